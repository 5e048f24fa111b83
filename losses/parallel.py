"""One batch on several devices: sums over all processes, so that a loss means the same however a batch is dealt.

DistributedDataParallel averages the gradients of its R processes, each of which sees a part of the batch. A term that
is a sum over the whole batch divided by something of the whole batch therefore needs the factor R and the *global*
divisor; then the average of the processes' gradients is that of one process with the whole batch, however it is dealt.

Collective calls are made only while gradients are recorded and `torch.distributed` runs with more than one process:
all of them must then call the loss, as in training. Without gradients (validation) every process is for itself.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["everywhere", "gathered", "over_all", "processes"]


def processes() -> int:
    """R, the number of processes that share the batch; 1 outside distributed training and without gradients."""
    if not (torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()):
        return 1
    return int(dist.get_world_size())


def everywhere(value: Tensor | float, like: Tensor) -> Tensor:
    """The sum of a number of this process over all processes, () on the device of `like`; no gradient."""
    total = torch.as_tensor(value, dtype=like.dtype, device=like.device).detach().clone()
    if processes() > 1:
        dist.all_reduce(total)
    return total


def over_all(part: Tensor, whole: Tensor | float, least: float = 0.0) -> Tensor:
    """This process's share of (sum of `part` over all processes) / (sum of `whole`): R part / max(sum of whole, least).

    The mean of the shares over the processes is the quotient, and so are their gradients'. With one process it is the
    quotient itself. Nothing waits for an accelerator.

    Args:
        part: () numerator of this process's part of the batch.
        whole: () divisor of this process's part of the batch.
        least: Lower limit of the divisor of the whole batch.
    """
    return processes() * part / everywhere(whole, part).clamp(min=least)


def gathered(points: Tensor) -> Tensor:
    """The points (n, 2) of all processes, (N, 2), in the order of their ranks; no gradient."""
    if processes() == 1:
        return points
    points = points.detach()
    lengths = [torch.zeros(1, dtype=torch.int64, device=points.device) for _ in range(processes())]
    dist.all_gather(lengths, torch.tensor([len(points)], device=points.device))
    counts = [int(length) for length in lengths]
    own = points.new_zeros(max(counts), 2)
    own[: len(points)] = points
    every = [torch.zeros_like(own) for _ in counts]
    dist.all_gather(every, own)
    return torch.cat([found[:count] for found, count in zip(every, counts, strict=True)])
