"""Balanced transport by POT's solvers, which hold the whole matrix of costs, a row per point, a column per cell.

Potentials are f over points and g over cells, in the units of the cost, and belong to the plan
P_ij = a_i b_j exp((f_i + g_j - C_ij) / reg). POT is imported when it is first used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losses.transport.costs import Potentials

__all__ = ["balanced", "softmin", "tiles"]

_CPU_TILE = 1 << 17
"""Matrix entries worked on at once by the CPU: 512 KB in float32, which stays in cache."""
_DEVICE_TILE = 1 << 25
"""The same elsewhere: few large kernels, and still a bounded memory."""
_NARROWEST = 64
"""Rows or columns of a tile at least: narrower slices of columns would read memory in crumbs."""
_UNDERFLOW = 0.8
"""Exponentials are floored at tiny^0.8 (5e-31 in float32): small enough to be nothing, and products stay normal."""


def tiles(count: int, other: int, like: Tensor) -> list[slice]:
    """Cuts `count` rows (or columns) of `other` entries each into slices of a size that suits the device."""
    tile = _CPU_TILE if like.device.type == "cpu" else _DEVICE_TILE
    step = max(_NARROWEST, tile // max(1, other))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _safe_exp_(exponent: Tensor) -> Tensor:
    """Exponential in place, with a floor far below rounding where it would underflow.

    On the CPU arguments that underflow take a slow path, about forty times slower (measured, torch 2.15), and most
    entries of a transport kernel would.
    """
    return exponent.clamp_(min=_UNDERFLOW * math.log(torch.finfo(exponent.dtype).tiny)).exp_()


@torch.no_grad()
def softmin(cost: Tensor, weight: Tensor, reg: float, *, dim: int) -> Tensor:
    """-reg log sum exp(weight - cost / reg) along `dim`, tile by tile: memory O(n + m) beside the cost.

    Args:
        cost: (n, m).
        weight: Log weights of the summed side: (n,) if `dim` is 0, (m,) if it is 1.
        reg: Strength of the entropy, in the units of the cost.
        dim: The axis that is summed, 0 or 1.

    Returns:
        (m,) if `dim` is 0, (n,) if it is 1.
    """
    weight = weight.unsqueeze(1 - dim)
    result = cost.new_empty(cost.shape[1 - dim])
    for part in tiles(len(result), cost.shape[dim], cost):
        exponent = torch.sub(weight, cost[:, part] if dim == 0 else cost[part], alpha=1 / reg)
        largest = exponent.amax(dim, keepdim=True)
        total = _safe_exp_(exponent.sub_(largest)).sum(dim)
        torch.add(total.log_(), largest.squeeze(dim), out=result[part])
    return result.mul_(-reg)


@torch.no_grad()
def balanced(
    cost: Tensor, a: Tensor, b: Tensor, *, solver: str, reg: float, iterations: int, tolerance: float = 1e-9
) -> Potentials:
    """Potentials of min <P, C> + reg KL(P | a b^T) over the plans P with marginals a and b.

    Cells without mass are left out of the solve; with mass nowhere, all potentials are 0. All cells then get their
    potential from the points' by the soft c-transform g_j = -reg log sum_i a_i exp((f_i - C_ij) / reg), so that
    <f, a> + <g, b> is exactly the dual objective at f, and g its gradient in b at fixed f; both are those of the
    transport cost once the solver has converged.

    Args:
        cost: (n, m).
        a: (n,) positive masses of the points, summing to 1.
        b: (m,) non-negative masses of the cells, summing to 1.
        solver: `"pot"`, POT's log-domain Sinkhorn, or `"exact"`, its network simplex, without entropy (then the
            c-transform is the hard one).
        reg: Strength of the entropy, in the units of the cost.
        iterations: Most rounds (one update of each side) of Sinkhorn.
        tolerance: They stop when, at every tenth round, the cells' marginal is this close in the 2-norm [POT].
    """
    filled = b > 0
    if not bool(filled.any()):
        return Potentials(torch.zeros_like(a), torch.zeros_like(b))
    some = cost if bool(filled.all()) else cost[:, filled]
    if solver == "exact":
        f = _exact(some, a, b[filled])
        return Potentials(f, (cost - f.unsqueeze(1)).amin(0))
    f = _pot(some, a, b[filled], reg, iterations, tolerance)
    return Potentials(f, softmin(cost, a.log() + f / reg, reg, dim=0))


def _pot(cost: Tensor, a: Tensor, b: Tensor, reg: float, iterations: int, tolerance: float) -> Tensor:
    """The points' potential by POT's log-domain Sinkhorn. Its plan is exp(log_u + log_v - C / reg), without a and b."""
    import ot

    _, log = ot.sinkhorn(
        a, b, cost, reg, method="sinkhorn_log", numItermax=iterations, stopThr=tolerance, warn=False, log=True
    )
    points: Tensor = log["log_u"]
    return reg * (points - a.log())


def _exact(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The points' potential of unregularised transport, by POT's network simplex (`ot.emd2`), in float64 on the CPU."""
    import ot

    # The simplex wants equal totals to the last digit.
    a64, b64 = a.cpu().double(), b.cpu().double()
    _, log = ot.emd2(a64 / a64.sum(), b64 / b64.sum(), cost.cpu().double(), numItermax=10_000_000, log=True)
    points: Tensor = log["u"]
    return points.to(cost)
