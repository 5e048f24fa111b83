"""Sinkhorn's rounds as DM-Count's code makes them: in the kernel domain, with a floor under both denominators."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from losses.geometry import axis_gaussians
from losses.transport.costs import FLOOR

if TYPE_CHECKING:
    from losses.transport.chunks import Chunks

__all__ = ["floored_rounds"]

_SPARSE = 4
"""A kernel is stored sparsely where its windows are this many times smaller than the map (measured on the CPU)."""
_CLOSE = 1e-9
"""Its rounds end when the squared distance of the cells' marginal is at most this [code]."""


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
    from losses.transport import chunks

    cells = (mass.shape[0], mass.shape[1])
    b = chunks.padded(mass.numpy(), 0)
    kernel = _sparse_kernel(points, cells, stride, variance)
    v = chunks.floored(*kernel, b.ravel(), iterations, b.dtype.type(FLOOR), _CLOSE).reshape(b.shape)
    return torch.from_numpy(v)[: cells[0], : cells[1]]


def _sparse_kernel(points: Tensor, cells: tuple[int, int], stride: int, variance: float) -> Chunks:
    """The entries exp(-|x_j - p_i|^2 / (2 variance)) that are not 0 in the dtype of the points."""
    from losses.transport import chunks

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
