"""Maxima of a bilinearly upsampled map, found on its cells: the upsampled map itself is never made.

Between four cell centres the surface is linear along every row and every column of pixels. A pixel that has its two
neighbours of a row within one such square is therefore no maximum unless the whole row of the square is as high. So
only the pixels nearest to a cell's centre, here called *near* pixels, can be maxima: one per cell for an odd stride
(the centre), two by two for an even one (half a pixel from it on either side). Each is compared with its eight
neighbours, whose heights follow from the 3 x 3 cells around. All heights are taken relative to the cell's own value, as
multiples of 1 / n^2 (n units a cell), so that equal heights are found equal: whole numbers of people are compared
without rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["Peaks", "peaks", "refined"]

_BAND = 1 << 18
"""Cells looked at together: 2 MB an array."""
_AXES = ((-1, 0), (0, -1), (0, 1), (1, 0))
_DIAGONALS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


class Peaks(NamedTuple):
    """The maxima of an upsampled map, by rows of cells.

    Attributes:
        points: float64 [m, 2] as (x, y), pixels; may lie in the part of a border cell that is padding.
        heights: float64 [m], the upsampled map there, unit of the map.
        cells: int64 [m, 2] as (row, column), the cell of the peak; (-1, -1) for a plateau over several cells.
    """

    points: NDArray[np.float64]
    heights: NDArray[np.float64]
    cells: NDArray[np.int64]


class _Pixels(NamedTuple):
    """Where pixels lie on a cell.

    Attributes:
        n: Units per cell, in which all places are whole numbers.
        steps: int [sides, 3]: of each near pixel of a cell along one axis, the pixel before it, itself and the one
            after it, in units from the cell's centre.
        touching: bool [sides, 2]: whether the near pixel before and the one after are neighbours in pixels.
    """

    n: int
    steps: tuple[tuple[int, int, int], ...]
    touching: NDArray[np.bool_]

    @property
    def sides(self) -> int:
        return len(self.steps)


class _Found(NamedTuple):
    """Near pixels that no neighbour exceeds, finally by rows.

    Attributes:
        near: int64 [m, 2], index (row, column) among all near pixels: cell * sides + side.
        heights: float64 [m].
        equal: bool [m, 3, 3]: which of the pixels around is as high.
    """

    near: NDArray[np.int64]
    heights: NDArray[np.float64]
    equal: NDArray[np.bool_]


def peaks(values: NDArray[np.float64], stride: int) -> Peaks:
    """The local maxima above 0 of `values`, upsampled bilinearly by `stride` (align_corners=False, borders repeated).

    A maximum is a connected set of equally high pixels (8 neighbours) with lower pixels around it; outside the map
    there is nothing. A set of several pixels, a plateau, is one peak at the mean of its near pixels: for an isolated
    cell that is its centre, for a flat map the middle. Against "equal to the maximum of the 3 x 3 pixels around", this
    differs where that rule takes every pixel of a plateau, and where it takes pixels of a plateau that is higher at one
    end: half a cell along the border is flat, so there it would find people on every slope that rises towards the
    inside.

    Args:
        values: [h, w], at least 0.
        stride: Pixels per cell, at least 1.
    """
    pixels = _pixels(stride)
    if values.size > 1 and 0 < values.min() == values.max():  # as below, without a list of all pixels
        height, width = values.shape
        return Peaks(np.array([[width, height]]) * stride / 2, values[:1, 0], np.full((1, 2), -1))
    near, heights, equal = zip(*_found(np.pad(values, 1, mode="edge"), pixels), strict=True)
    order = np.lexsort(np.concatenate(near).T[::-1])
    found = _Found(*(np.concatenate(part)[order] for part in (near, heights, equal)))
    return _plateaus(found, values.shape, pixels, stride)


def refined(values: NDArray[np.float64], found: Peaks, stride: int) -> NDArray[np.float64]:
    """The peaks' places below the size of a cell (ours), float64 [m, 2].

    The quadratic z(x, y) that fits a peak's 3 x 3 cells best in least squares has its top at -H^-1 g (g gradient, H
    second derivatives at the cell's centre). z is the logarithm of the cells where all nine are positive, so the top of
    a sampled Gaussian is found exactly; otherwise the cells themselves. Moves are at most half a cell along each axis.
    Plateaus over several cells, and cells without a top (H not negative definite), stay where they are. At the border
    the missing cells mirror those inside, so that nothing moves across it.
    """
    moved = found.points.copy()
    alone = np.flatnonzero(found.cells[:, 0] >= 0)
    row, column = found.cells[alone].T
    z = _around(np.pad(values, 1, mode="reflect"), row, column)
    positive = z.min((0, 1)) > 0
    z[..., positive] = np.log(z[..., positive])
    gy, gx = (z[2] - z[0]).sum(0) / 6, (z[:, 2] - z[:, 0]).sum(0) / 6
    hyy, hxx = (z[0] - 2 * z[1] + z[2]).sum(0) / 3, (z[:, 0] - 2 * z[:, 1] + z[:, 2]).sum(0) / 3
    hxy = (z[0, 0] + z[2, 2] - z[0, 2] - z[2, 0]) / 4
    determinant = hxx * hyy - hxy**2
    top = (hxx < 0) & (determinant > 1e-9 * hxx * hyy)
    gx, gy, hxx, hyy, hxy, determinant = (a[top] for a in (gx, gy, hxx, hyy, hxy, determinant))
    step = np.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], axis=1) / determinant[:, None]
    centre = np.stack([column, row], axis=1)[top] + 0.5
    moved[alone[top]] = (centre + step.clip(-0.5, 0.5)) * stride
    return moved


def _pixels(stride: int) -> _Pixels:
    if stride % 2:
        return _Pixels(stride, ((-1, 0, 1),), np.full((1, 2), stride == 1))
    apart = stride == 2
    return _Pixels(2 * stride, ((-3, -1, 1), (-1, 1, 3)), np.array([[apart, True], [True, apart]]))


def _found(padded: NDArray[np.float64], pixels: _Pixels) -> Iterator[_Found]:
    """The near pixels that no neighbour exceeds, some rows of cells and one side of the cells at a time."""
    rows, columns = padded.shape[0] - 2, padded.shape[1] - 2
    band = max(1, _BAND // columns)
    for first in range(0, rows, band):
        part = padded[first : first + band + 2]
        row, column = _likely(part, pixels)
        hood = _around(part, row, column)
        centre = hood[1, 1].copy()
        hood -= centre
        cells = np.stack([row + first, column], axis=1)
        for i, j in itertools.product(range(pixels.sides), repeat=2):
            kept, height, equal = _tops(hood, pixels, i, j)
            near = cells[kept] * pixels.sides + (i, j)
            yield _Found(near, centre[kept] + height / pixels.n**2, equal)


def _likely(padded: NDArray[np.float64], pixels: _Pixels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cells that can have a maximum, as rows and columns.

    For an odd stride a cell must be at least as high as its four neighbours. For an even one a maximum half a pixel
    from the centre weighs in the cells of the next row: (n - 1) (B - A) <= C - D for neighbours A, B over C, D, and the
    same along the column, (n - 1) (C - A) <= B - D. With D >= 0 this gives B <= A (n - 1) / (n - 2).
    """
    own = padded[1:-1, 1:-1]
    beside = np.maximum(padded[1:-1, :-2], padded[1:-1, 2:])
    np.maximum(beside, padded[:-2, 1:-1], out=beside)
    np.maximum(beside, padded[2:, 1:-1], out=beside)
    if pixels.sides == 2:
        beside *= (pixels.n - 2) / (pixels.n - 1) * (1 - 1e-12)  # rounding must lose no cell
    row, column = np.nonzero((own >= beside) & (own > 0))
    return row, column


def _around(padded: NDArray[np.float64], row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.float64]:
    """The 3 x 3 cells around each cell, [3, 3, m]; `padded` has one more cell on each side."""
    return np.stack([[padded[row + i, column + j] for j in range(3)] for i in range(3)])


def _height(hood: NDArray[np.float64], p: int, q: int, n: int) -> NDArray[np.float64]:
    """n^2 times the surface above the cell's own value, p / n cells below and q / n cells right of its centre."""
    vertical, horizontal = 1 + (p > 0) - (p < 0), 1 + (q > 0) - (q < 0)
    down, right, across = hood[vertical, 1], hood[1, horizontal], hood[vertical, horizontal]
    p, q = abs(p), abs(q)
    return n * (p * down + q * right) + p * q * (across - (down + right))


def _tops(
    hood: NDArray[np.float64], pixels: _Pixels, i: int, j: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Which of the near pixels (side i, side j) no neighbour exceeds, their heights, and what around is as high."""
    kept = np.arange(hood.shape[2])
    height = _height(hood, pixels.steps[i][1], pixels.steps[j][1], pixels.n)
    equal = np.zeros((len(kept), 3, 3), dtype=bool)
    for dy, dx in (*_AXES, *_DIAGONALS):
        beside = _height(hood, pixels.steps[i][1 + dy], pixels.steps[j][1 + dx], pixels.n)
        equal[:, 1 + dy, 1 + dx] = beside == height
        good = beside <= height
        kept, height, equal, hood = kept[good], height[good], equal[good], hood[..., good]
    return kept, height, equal


def _plateaus(found: _Found, cells: tuple[int, ...], pixels: _Pixels, stride: int) -> Peaks:
    """One peak for each connected set of equally high near pixels that nothing higher touches."""
    label, spoiled = _connected(found, cells, pixels)
    size = np.bincount(label)
    good = np.bincount(label, weights=spoiled) == 0
    own, side = np.divmod(found.near, pixels.sides)
    offset = np.array([step[1] for step in pixels.steps]) / pixels.n
    place = (own + 0.5 + offset[side]) * stride
    points = np.stack([np.bincount(label, weights=place[:, axis]) / size for axis in (1, 0)], axis=1)
    first = np.unique(label, return_index=True)[1]
    spread = np.zeros(len(size), dtype=bool)
    spread[label[(own != own[first][label]).any(axis=1)]] = True
    home = np.where(spread[:, None], -1, own[first])
    good = np.flatnonzero(good)[np.argsort(first[good])]
    return Peaks(points[good], found.heights[first[good]], home[good])


def _connected(found: _Found, cells: tuple[int, ...], pixels: _Pixels) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The number of each near pixel's plateau, and which near pixels show that theirs is higher at another place.

    Along a row or column, near pixels are joined by a straight line: equally high at one pixel is equally high up to
    the next near pixel. Across a square they are joined only if they touch; else an equally high pixel there, without
    one beside it on a row or column, lies on a slope that rises.
    """
    rows, columns = cells[0] * pixels.sides, cells[1] * pixels.sides
    key = found.near[:, 0] * columns + found.near[:, 1]
    spoiled = np.zeros(len(key), dtype=bool)
    links: list[NDArray[np.int64]] = []
    for dy, dx in (*_AXES, *_DIAGONALS):
        source = np.flatnonzero(found.equal[:, 1 + dy, 1 + dx])
        row, column = found.near[source].T
        inside = (row + dy >= 0) & (row + dy < rows) & (column + dx >= 0) & (column + dx < columns)
        source, row, column = source[inside], row[inside], column[inside]
        if dy and dx:
            touching = pixels.touching[row % pixels.sides, (dy + 1) // 2]
            touching &= pixels.touching[column % pixels.sides, (dx + 1) // 2]
            apart = source[~touching]
            spoiled[apart] |= ~(found.equal[apart, 1 + dy, 1] | found.equal[apart, 1, 1 + dx])
            source, row, column = source[touching], row[touching], column[touching]
        wanted = (row + dy) * columns + column + dx
        target = np.searchsorted(key, wanted).clip(max=max(len(key) - 1, 0))
        there = key[target] == wanted
        spoiled[source[~there]] = True
        links.append(np.stack([source[there], target[there]]))
    start, end = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(start), dtype=bool), (start, end)), shape=(len(key), len(key)))
    return connected_components(graph, directed=False)[1].astype(np.int64), spoiled
