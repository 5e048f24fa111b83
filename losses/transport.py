"""Entropic optimal transport between points and the cells of a density map.

Every cost matrix here has one row per point and one column per cell, shape (n, m); potentials are f over points and
g over cells, in the units of the cost, and belong to the plan P_ij = a_i b_j exp((f_i + g_j - C_ij) / reg). They are
constants: no solver is differentiated. POT is imported when it is first used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from losses.geometry import axis_gaussians, cell_axis

if TYPE_CHECKING:
    from losses._chunks import Chunks

__all__ = [
    "FLOOR",
    "PLAN_FLOOR",
    "SOLVERS",
    "DistanceCost",
    "Potentials",
    "balanced",
    "epsilon_schedule",
    "floored_rounds",
    "safe_exp_",
    "softmin",
    "squared_distance",
    "tiles",
]

_CPU_TILE = 1 << 17
"""Matrix entries worked on at once by the CPU: 512 KB in float32, which stays in cache."""
_DEVICE_TILE = 1 << 25
"""The same elsewhere: few large kernels, and still a bounded memory."""
_NARROWEST = 64
"""Rows or columns of a tile at least: narrower slices of columns would read memory in crumbs."""
_UNDERFLOW = 0.8
"""Exponentials are floored at tiny^0.8 (5e-31 in float32): small enough to be nothing, and products stay normal."""
_ABSORB = -0.15
"""Scalings beyond tiny^-0.15 (5e5 in float32) are absorbed: their square times that floor is still nothing."""
_SPARSE = 4
"""A kernel is stored sparsely where its windows are this many times smaller than the map (measured on the CPU)."""
FLOOR = 1e-16
"""What DM-Count's code adds to both denominators and to the argument of the logarithm [code]."""
PLAN_FLOOR = 1e-20
"""What GL's code adds to its plan before it takes the logarithm [code]."""
_CLOSE = 1e-9
"""Its rounds end when the squared distance of the cells' marginal is at most this [code]."""


class Potentials(NamedTuple):
    """The dual solution of a transport problem: f of shape (n,) over points, g of shape (m,) over cells."""

    f: Tensor
    g: Tensor


class DistanceCost(NamedTuple):
    """exp(min(r / z, most)) - 1 of a pair at distance r, with z = max(slope * (y_i + y_j) + offset, least)."""

    slope: float
    offset: float
    least: float
    most: float


def squared_distance(points: Tensor, cells: tuple[int, int], stride: int) -> Tensor:
    """|x_j - p_i|^2 between points (n, 2) and the centres of h x w cells, pixels^2, shape (n, h * w)."""
    y = (cell_axis(cells[0], stride, points) - points[:, 1:2]).square()
    x = (cell_axis(cells[1], stride, points) - points[:, 0:1]).square()
    return (y.unsqueeze(2) + x.unsqueeze(1)).flatten(1)


def tiles(count: int, other: int, like: Tensor) -> list[slice]:
    """Cuts `count` rows (or columns) of `other` entries each into slices of a size that suits the device."""
    tile = _CPU_TILE if like.device.type == "cpu" else _DEVICE_TILE
    step = max(_NARROWEST, tile // max(1, other))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def safe_exp_(exponent: Tensor) -> Tensor:
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
        total = safe_exp_(exponent.sub_(largest)).sum(dim)
        torch.add(total.log_(), largest.squeeze(dim), out=result[part])
    return result.mul_(-reg)


# ---------------------------------------------------------------------------------------------------------------------
# Balanced transport.


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
        solver: `"pot"`, POT's log-domain Sinkhorn; `"stabilised"`, the same rounds as matrix products, much faster;
            `"exact"`, POT's network simplex, without entropy (then the c-transform is the hard one).
        reg: Strength of the entropy, in the units of the cost.
        iterations: Most rounds (one update of each side) of the Sinkhorn solvers.
        tolerance: They stop when, at every tenth round, the cells' marginal is this close in the 2-norm [POT].
    """
    filled = b > 0
    if not bool(filled.any()):
        return Potentials(torch.zeros_like(a), torch.zeros_like(b))
    some = cost if bool(filled.all()) else cost[:, filled]
    if solver == "exact":
        f = _exact(some, a, b[filled])
        return Potentials(f, (cost - f.unsqueeze(1)).amin(0))
    f = SOLVERS[solver](some, a, b[filled], reg, iterations, tolerance)
    return Potentials(f, softmin(cost, a.log() + f / reg, reg, dim=0))


def _pot(cost: Tensor, a: Tensor, b: Tensor, reg: float, iterations: int, tolerance: float) -> Tensor:
    """The points' potential by POT's log-domain Sinkhorn. Its plan is exp(log_u + log_v - C / reg), without a and b."""
    import ot

    _, log = ot.sinkhorn(
        a, b, cost, reg, method="sinkhorn_log", numItermax=iterations, stopThr=tolerance, warn=False, log=True
    )
    points: Tensor = log["log_u"]
    return reg * (points - a.log())


def _stabilised(cost: Tensor, a: Tensor, b: Tensor, reg: float, iterations: int, tolerance: float) -> Tensor:
    """The points' potential by POT's rounds, most of them as two matrix-vector products instead of n x m exponentials.

    A round in the log domain, which survives any range, gives a kernel K_ij = a_i b_j exp((f_i + g_j - C_ij) / reg).
    Plain scalings of K follow for as long as they stay moderate; then they are absorbed into f and g, and so on.
    """
    log_a, log_b = a.log(), b.log()
    f = -reg * log_a  # POT starts from log_u = 0
    done, converged = 0, False
    while done < iterations and not converged:
        g = softmin(cost, log_a + f / reg, reg, dim=0)
        f = softmin(cost, log_b + g / reg, reg, dim=1)
        kernel = ((log_a + f / reg).unsqueeze(1) + (log_b + g / reg)).sub_(cost, alpha=1 / reg)
        u, done, converged = _scale(safe_exp_(kernel), a, b, done + 1, iterations, tolerance)
        f = f + reg * u.log()
    return f


def _scale(
    kernel: Tensor, a: Tensor, b: Tensor, done: int, iterations: int, tolerance: float
) -> tuple[Tensor, int, bool]:
    """Scales the kernel's rows and columns while the scalings stay moderate.

    Returns:
        The rows' scaling, the number of rounds done, and whether the columns' marginal has converged.
    """
    u, v = torch.ones_like(a), torch.ones_like(b)
    limit = torch.finfo(kernel.dtype).tiny ** _ABSORB
    while done < iterations:
        columns = u @ kernel
        if done % 10 == 1 and bool(torch.linalg.vector_norm(v * columns - b) < tolerance):
            return u, done, True
        next_v = b / columns
        next_u = a / (kernel @ next_v)
        scalings = torch.cat([next_u, next_v])
        if not bool(((scalings < limit) & (scalings > 1 / limit)).all()):
            break
        u, v, done = next_u, next_v, done + 1
    return u, done, False


def _exact(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The points' potential of unregularised transport, by POT's network simplex (`ot.emd2`), in float64 on the CPU."""
    import ot

    # The simplex wants equal totals to the last digit.
    a64, b64 = a.cpu().double(), b.cpu().double()
    _, log = ot.emd2(a64 / a64.sum(), b64 / b64.sum(), cost.cpu().double(), numItermax=10_000_000, log=True)
    points: Tensor = log["u"]
    return points.to(cost)


SOLVERS: dict[str, Callable[[Tensor, Tensor, Tensor, float, int, float], Tensor]] = {
    "pot": _pot,
    "stabilised": _stabilised,
}
"""The Sinkhorn solvers of `balanced`: (cost, a, b, reg, iterations, tolerance) -> the points' potential."""


@torch.no_grad()
def floored_rounds(points: Tensor, mass: Tensor, stride: int, *, reg: float, scale: float, iterations: int) -> Tensor:
    """The cells' dual as DM-Count's code finds it: kernel-domain Sinkhorn whose denominators have a floor of 1e-16.

    v = b / (K^T u + 1e-16), u = a / (K v + 1e-16), a = 1 / n, u = 1 / n at the start; every tenth round it stops if
    sum (b - v K^T u)^2 <= 1e-9. In pixel units the floor decides the result: cells without mass and cells far from
    every point get duals that plain Sinkhorn does not have. It also bounds u and v by 1e16, so nothing overflows (the
    code's retreat from NaN can only be reached by NaN inputs).

    The cost is squared Euclidean, so K is the product of a kernel over rows and one over columns of the map, and both
    products of a round become small matrix products: memory O(n (h + w)) instead of n h w. On the CPU, where K is zero
    outside a small window around each point (beyond 32 pixels in float32 at the published constants), the rest is
    never looked at: O(n) operations a round. Only what underflows to zero is left out, so nothing is approximated.

    Args:
        points: (n, 2) as (x, y), pixels, n >= 1.
        mass: (h, w), the cells' masses b, summing to (almost) 1.
        stride: Pixels per cell.
        reg: Strength of the entropy, in the units of the cost.
        scale: Cost per squared pixel.
        iterations: Most rounds.

    Returns:
        (h, w), reg log(v + 1e-16).
    """
    cells, variance = (mass.shape[0], mass.shape[1]), reg / (2 * scale)
    reach = _reach(points.dtype, stride, variance)
    window = min(2 * reach + 1, cells[0]) * min(2 * reach + 1, cells[1])
    if points.device.type == "cpu" and window * _SPARSE <= cells[0] * cells[1]:
        v = _sparse_rounds(points, mass, stride, variance, iterations)
    else:
        v = _whole_rounds(points, mass, stride, variance, iterations)
    return reg * (v + FLOOR).log()


def _whole_rounds(points: Tensor, b: Tensor, stride: int, variance: float, iterations: int) -> Tensor:
    """The last v of `floored_rounds` by products with the kernel's two factors."""
    rows, columns = axis_gaussians(points, (b.shape[0], b.shape[1]), stride, variance)
    a = 1 / len(points)
    spread = rows.T @ (a * columns)
    v = b
    for done in range(1, iterations + 1):
        v = b / (spread + FLOOR)
        u = a / (((rows @ v) * columns).sum(1) + FLOOR)
        spread = rows.T @ (u.unsqueeze(1) * columns)
        if done % 10 == 0 and bool(((b - v * spread) ** 2).sum() <= _CLOSE):
            break
    return v


def _reach(dtype: torch.dtype, stride: int, variance: float) -> int:
    """Cells beyond which the kernel is 0."""
    format_ = torch.finfo(dtype)
    underflow = math.log(format_.smallest_normal) + math.log(format_.eps) - 1  # half the smallest subnormal, and less
    return math.ceil(math.sqrt(-2 * variance * underflow) / stride)


def _sparse_rounds(points: Tensor, mass: Tensor, stride: int, variance: float, iterations: int) -> Tensor:
    """The last v of `floored_rounds` from the kernel's entries that are not 0."""
    from losses import _chunks as chunks

    cells = (mass.shape[0], mass.shape[1])
    b = chunks.padded(mass.numpy(), 0)
    kernel = _sparse_kernel(points, cells, stride, variance)
    v = chunks.floored(*kernel, b.ravel(), iterations, b.dtype.type(FLOOR), _CLOSE).reshape(b.shape)
    return torch.from_numpy(v)[: cells[0], : cells[1]]


def _sparse_kernel(points: Tensor, cells: tuple[int, int], stride: int, variance: float) -> Chunks:
    """The entries exp(-|x_j - p_i|^2 / (2 variance)) that are not 0 in the dtype of the points."""
    from losses import _chunks as chunks

    reach = _reach(points.dtype, stride, variance)
    span = torch.arange(-reach, reach + 1)
    factors, first = [], []
    for axis, count in ((1, cells[0]), (0, cells[1])):
        position = points[:, axis : axis + 1]
        index = (position / stride).floor().clamp(-reach, count - 1 + reach).long() + span
        gap = (index + 0.5) * stride - position
        factors.append(torch.exp(-gap.square() / (2 * variance)).where((index >= 0) & (index < count), 0).numpy())
        first.append(index[:, 0].numpy())
    height, width = (count + -count % chunks.PAD for count in cells)
    return chunks.Chunks(*chunks.windows(first[0], factors[0], first[1], factors[1], (height, width)))


# ---------------------------------------------------------------------------------------------------------------------
# Unbalanced transport, with the strength of the entropy lowered step by step.


def epsilon_schedule(start: float, end: float, ratio: float) -> list[float]:
    """`start`, then start, start ratio, start ratio^2, ... as long as they exceed `end`, then `end` [code: GL].

    Raises:
        ValueError: If `start` or `end` is not positive, or `ratio` not between 0 and 1.
    """
    if not (start > 0 and end > 0 and 0 < ratio < 1):
        raise ValueError(f"need start > 0, end > 0 and 0 < ratio < 1; found {start}, {end}, {ratio}")
    steps = max(0, math.ceil(math.log(end / start) / math.log(ratio)))
    return [start, *(start * ratio**k for k in range(steps)), end]
