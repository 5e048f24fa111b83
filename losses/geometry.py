"""The one place for pixel and cell conventions, nearest-point assignment and separable Gaussians.

A cell is addressed by (row, column) = (y, x); points are (x, y) in pixels. Everything that is a sum over cells and
points is written as a product of one factor per axis, so that memory is points x (h + w), not points x h x w.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Nearest",
    "axis_gaussians",
    "cell_axis",
    "cell_centres",
    "counted",
    "dots",
    "free_to_look",
    "nearest_point",
    "spread",
    "wide",
]

_TILE = 1 << 22
"""Distances held at once by the brute-force search: 32 MB in float64."""


class Nearest(NamedTuple):
    """The nearest point of every cell.

    Attributes:
        owner: (..., h, w) int64, row of `points`; the lowest of the equally near ones.
        distance: (..., h, w) Euclidean distance from the cell's centre, pixels.
    """

    owner: Tensor
    distance: Tensor


def wide(tensor: Tensor) -> Tensor:
    """The detached tensor in float64, or as it is where the device has no float64.

    Quantities that depend on the annotation alone are computed once in float64 and then rounded, so that a float32 loss
    is as exact as its density.
    """
    return tensor.detach() if tensor.device.type == "mps" else tensor.detach().double()


def free_to_look(tensor: Tensor) -> bool:
    """Whether code may depend on a tensor's values: on the CPU. Elsewhere the device would have to be waited for.

    The losses then do what is right for all values, which costs more operations and no waiting.
    """
    return tensor.device.type == "cpu"


def cell_axis(cells: int, stride: float, like: Tensor, *, offset: float = 0.5) -> Tensor:
    """Coordinates of the cell centres along one axis: (i + offset) * stride, pixels, shape (cells,).

    Args:
        cells: Number of cells along the axis.
        stride: Pixels per cell.
        like: Tensor whose dtype and device are used.
        offset: 0.5 puts the centre in the middle of the cell (ours). Official PML counts pixel indices,
            (stride - 1) / (2 stride); official GL is half a cell off, 1.0.
    """
    return (torch.arange(cells, dtype=like.dtype, device=like.device) + offset) * stride


def cell_centres(cells: tuple[int, int], stride: float, like: Tensor, *, offset: float = 0.5) -> Tensor:
    """Centres of all cells as (x, y), row by row, shape (h * w, 2), pixels. Arguments as in `cell_axis`."""
    y = cell_axis(cells[0], stride, like, offset=offset)
    x = cell_axis(cells[1], stride, like, offset=offset)
    return torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], dim=1)


def axis_gaussians(
    points: Tensor, cells: tuple[int, int], stride: float, variance: float | Tensor, *, offset: float = 0.5
) -> tuple[Tensor, Tensor]:
    """The two factors of exp(-|x_i - p_k|^2 / (2 variance)) = rows[k, r] * columns[k, c].

    Differences are formed before they are squared: the expanded form x^2 - 2xp + p^2 loses float32's digits.

    Args:
        points: (..., n, 2) as (x, y), pixels.
        cells: (h, w) of the map.
        stride: Pixels per cell.
        variance: Squared standard deviation, pixels^2; one number, or one per point of shape (..., n). No gradient
            flows.
        offset: See `cell_axis`.

    Returns:
        rows (..., n, h) and columns (..., n, w), each 1 at the point.
    """
    width = variance.unsqueeze(-1) if isinstance(variance, Tensor) else variance
    y = cell_axis(cells[0], stride, points, offset=offset) - points[..., 1:2].detach()
    x = cell_axis(cells[1], stride, points, offset=offset) - points[..., 0:1].detach()
    return y.square_().div_(-2 * width).exp_(), x.square_().div_(-2 * width).exp_()


def dots(
    points: Tensor,
    cells: tuple[int, int],
    stride: int,
    image_size: tuple[int, int],
    *,
    rounding: Literal["floor", "even"] = "floor",
    real: Tensor | None = None,
) -> Tensor:
    """Counts the points of every cell, shape (..., h, w): a dot map binned to the map's resolution.

    Points outside the image go to its nearest pixel, so the map always sums to n.

    Args:
        points: (..., n, 2) as (x, y), pixels.
        cells: (h, w) of the map.
        stride: Pixels per cell.
        image_size: (H, W), pixels.
        rounding: "floor" takes the pixel that contains the point, since pixel c covers [c, c + 1) (ours). "even" rounds
            half to even, the pixel whose *index* is nearest [code: DM-Count, KDMG].
        real: (..., n), False for points that are not counted. Default: all are.
    """
    pixel = points.floor() if rounding == "floor" else points.round()
    column = (pixel[..., 0].clamp(0, image_size[1] - 1) / stride).long()
    row = (pixel[..., 1].clamp(0, image_size[0] - 1) / stride).long()
    found = counted(row * cells[1] + column, cells[0] * cells[1], real)
    return found.to(points.dtype).view(*points.shape[:-2], *cells)


def counted(index: Tensor, size: int, real: Tensor | None = None) -> Tensor:
    """How often each of 0, ..., size - 1 occurs in `index` (..., n), shape (..., size): no GPU waits for `bincount`.

    Where `real` is False nothing is counted.
    """
    ones = torch.ones_like(index) if real is None else real.to(index.dtype)
    return index.new_zeros(*index.shape[:-1], size).scatter_add_(-1, index, ones)


def nearest_point(points: Tensor, cells: tuple[int, int], stride: int, *, offset: float = 0.5) -> Nearest:
    """Finds the nearest point of every cell exactly: argmin_k |x_i - p_k|, ties to the lowest k.

    Distances are compared in float64 whatever the points' dtype, so float32 and float64 agree on who is nearest. On the
    CPU a k-d tree needs O((cells + n) log n) time; elsewhere a tiled search needs O(cells n) time. Both need
    O(cells + n) memory. No gradient flows through either output.

    Args:
        points: (..., n, 2) as (x, y), pixels, n >= 1; anywhere in the plane; elsewhere than on the CPU
            also at infinity, where they are nobody's nearest.
        cells: (h, w) of the map.
        stride: Pixels per cell.
        offset: See `cell_axis`.

    Raises:
        ValueError: If there are no points.
    """
    if points.shape[-2] == 0:
        raise ValueError("nearest_point needs at least one point; treat an image without people before calling it")
    exact, shape = wide(points), (*points.shape[:-2], *cells)
    centres = cell_centres(cells, stride, exact, offset=offset)
    if free_to_look(points):
        each = [_nearest_tree(some, centres) for some in exact.reshape(-1, *exact.shape[-2:])]
        owner, squared = (torch.cat(found) for found in zip(*each, strict=True))
    else:
        owner, squared = _nearest_tiled(exact, centres)
    return Nearest(owner.view(shape), squared.sqrt().to(points.dtype).view(shape))


def _nearest_tree(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Index and squared distance of the nearest point of each centre, by a k-d tree.

    The tree breaks ties as it likes. Where its last candidate is as near as its first there may be further ones, so
    these centres ask again for twice as many, until each one's list of equally near points is complete.
    """
    import numpy as np
    from scipy.spatial import cKDTree

    # Duplicates are tied everywhere and would fill every list: only the first of them stays.
    # Seen as complex numbers they are sorted ten times faster than as rows.
    pairs, first = np.unique(np.ascontiguousarray(points.numpy()).view(np.complex128).ravel(), return_index=True)
    unique = pairs.view(np.float64).reshape(-1, 2)
    tree, queries = cKDTree(unique), centres.numpy()
    owner = np.empty(len(queries), dtype=np.int64)
    squared = np.empty(len(queries))
    unsettled = np.arange(len(queries))
    wanted = 2
    while unsettled.size:
        wanted = min(wanted, len(unique))
        distance, candidates = map(np.asarray, tree.query(queries[unsettled], k=range(1, wanted + 1)))
        # The tree rounds its square roots: near-ties are settled on squared distances formed here.
        gaps = ((unique[candidates] - queries[unsettled, None]) ** 2).sum(-1)
        least = gaps.min(1)
        owner[unsettled] = np.where(gaps == least[:, None], first[candidates], len(points)).min(1)
        squared[unsettled] = least
        complete = distance[:, -1] > distance[:, 0] * (1 + 1e-12)
        unsettled = unsettled[~complete] if wanted < len(unique) else unsettled[:0]
        wanted *= 2
    return torch.from_numpy(owner), torch.from_numpy(squared)


def _nearest_tiled(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Index and squared distance of the nearest point (..., n, 2) of each centre, of all pairs, tile by tile."""
    count = points.shape[-2]
    order = torch.arange(count, device=points.device)
    x, y = points[..., 0].unsqueeze(-2), points[..., 1].unsqueeze(-2)
    owner, squared = [], []
    for tile in torch.split(centres, max(1, _TILE // x.numel())):
        gaps = (tile[:, 0:1] - x).square() + (tile[:, 1:2] - y).square()
        least = gaps.amin(-1)
        # argmin does not promise the first minimum on every device.
        owner.append(torch.where(gaps == least.unsqueeze(-1), order, count).amin(-1))
        squared.append(least)
    return torch.cat(owner, -1), torch.cat(squared, -1)


def spread(points: Tensor, neighbours: int = 3) -> Tensor:
    """Mean distance from each point to its nearest others, shape (n,), pixels.

    With fewer than `neighbours` other points the mean is over those there are (ours); a lone point gets infinity.

    Args:
        points: (n, 2) as (x, y), pixels.
        neighbours: How many others are averaged; 3 in geometry-adaptive kernels [paper: MCNN].
    """
    import numpy as np
    from scipy.spatial import cKDTree

    available = min(neighbours, len(points) - 1)
    if available < 1:
        return torch.full((len(points),), math.inf, dtype=points.dtype, device=points.device)
    located = points.detach().to("cpu", torch.float64).numpy()
    # The nearest "other" is the point itself at distance 0, or a duplicate of it, which is also at 0.
    distance = np.asarray(cKDTree(located).query(located, k=range(2, available + 2))[0])
    return torch.from_numpy(distance.mean(1)).to(points)
