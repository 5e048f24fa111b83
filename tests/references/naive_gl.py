"""GL's potentials written straight from their formulas: dense points x cells matrices in torch, no regard for speed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def potentials(
    cost: Tensor, log_a: Tensor, log_b: Tensor, schedule: Sequence[float], reach: float = math.inf
) -> tuple[Tensor, Tensor]:
    """The annealed, averaged steps of unbalanced transport between masses of n points and m cells; cost (n, m)."""

    def step(f: Tensor, g: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        damping = 1 / (1 + eps / reach)
        rows = torch.logsumexp(log_b + (g - cost) / eps, 1)
        columns = torch.logsumexp(log_a[:, None] + (f[:, None] - cost) / eps, 0)
        return -eps * damping * rows, -eps * damping * columns

    f, g = step(torch.zeros_like(log_a), torch.zeros_like(log_b), schedule[0])
    for eps in schedule:
        new_f, new_g = step(f, g, eps)
        f, g = (f + new_f) / 2, (g + new_g) / 2
    return step(f, g, schedule[-1])
