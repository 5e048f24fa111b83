"""What the machine can do, so that times of different machines can be put in relation."""

from __future__ import annotations

import statistics

import torch

from benchmark.speed.measure import timed

__all__ = ["probe"]

_SIDE = 1024
_COPIED = 1 << 25
_RAISED = 1 << 22


def probe(device: str = "cpu", seconds: float = 0.5) -> dict[str, float]:
    """Speeds of three operations in float32, on one thread of the CPU.

    Args:
        device: As torch names it.
        seconds: How long each is repeated.

    Returns:
        `matmul_gflops`: a product of 1024 x 1024 matrices, 10^9 multiplications and additions a second; `copy_gbs`:
        128 MiB copied, 10^9 bytes read and written a second; `exp_gs`: 10^9 exponentials a second.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b = (torch.rand(_SIDE, _SIDE, device=device) for _ in range(2))
        source, target = torch.rand(_COPIED, device=device), torch.empty(_COPIED, device=device)
        values = torch.rand(_RAISED, device=device)
        out = torch.empty_like(values)
        sync = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
        work = {
            "matmul_gflops": (lambda: torch.mm(a, b), 2 * _SIDE**3),
            "copy_gbs": (lambda: target.copy_(source), 2 * 4 * _COPIED),
            "exp_gs": (lambda: torch.exp(values, out=out), _RAISED),
        }
        return {
            name: 1e-6 * size / statistics.median(timed(call, seconds, sync)) for name, (call, size) in work.items()
        }
    finally:
        torch.set_num_threads(threads)
