"""Sparse kernels between points and the cells of a map, four cells at a time, and Sinkhorn's rounds with them.

A kernel is kept as chunks: runs of four cells of a row that start at a multiple of four, with all four entries. A
chunk is one index and one vector, so a product is a vector operation a chunk, where a sparse matrix of single entries
gathers them one by one: a third of its time at the density of real kernels (measured).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from losses.transport.compiled import compiled

__all__ = ["CELLS", "PAD", "Chunks", "floored", "near", "padded", "rounds", "to_cells", "to_points", "windows"]

_Floats = NDArray[Any]
_Doubles = NDArray[np.float64]

CELLS = 4
"""Cells of a chunk."""
_U = np.uintp
_1, _2, _3 = _U(1), _U(2), _U(3)
"""Unsigned: a signed index would be tested for being counted from the end."""
PAD = 16
"""Maps are padded to multiples of this, the side of the largest blocks that a search leaves out at once."""


class Chunks(NamedTuple):
    """The chunks of a kernel.

    Attributes:
        starts: (n + 1,), where the chunks of a point start.
        place: (k,), the first cell of a chunk, flat in the padded map.
        entries: (k, 4), its entries.
    """

    starts: NDArray[np.int64]
    place: NDArray[np.int32]
    entries: _Floats

    def owners(self) -> NDArray[np.int64]:
        """(k,), the point of each chunk."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def cells(self) -> NDArray[np.int32]:
        """(k, 4), the cell of each entry, flat in the padded map."""
        found: NDArray[np.int32] = (self.place[:, None] + np.arange(CELLS)).astype(np.int32)
        return found


def padded(values: _Floats, empty: float) -> _Floats:
    """A map (h, w) with cells below and to the right, so that both sides are multiples of `PAD`."""
    found: _Floats = np.pad(values, [(0, -count % PAD) for count in values.shape], constant_values=empty)
    return found


def near(points: _Doubles, f: _Doubles, g: _Doubles, side: float, slack: float) -> Chunks:
    """All pairs of points and cells with f_i + g_j - c_ij >= -slack, c_ij the squared distance, and their neighbours.

    Blocks of 16 x 16 cells, then of 4 x 4, are left out by an upper limit of g_j - c_ij over their cells, so nothing is
    missed. Time is that of points x blocks of 16 x 16, and of what is found.

    Args:
        points: (n, 2) as (x, y).
        f: (n,) finite.
        g: (h, w) padded, -infinity where a cell is not to be found.
        side: Of a cell.
        slack: Any number.

    Returns:
        Chunks with an entry of at least -slack, in the order of the points; entries are f_i + g_j - c_ij.
    """
    chunks = Chunks(*_search(points, f + slack, g, side))
    chunks.entries.__isub__(slack)
    return chunks


@compiled
def _search(
    points: _Doubles, f: _Doubles, g: _Doubles, side: float
) -> tuple[NDArray[np.int64], NDArray[np.int32], _Doubles]:
    """Starts, places and entries of the chunks with an f_i + g_j - c_ij >= 0."""
    outer, inner = _limits(g, PAD, side), _limits(g, CELLS, side)
    w, step = g.shape[1], PAD // CELLS
    starts = np.zeros(len(points) + 1, np.int64)
    place, entries = np.empty(64 + 16 * len(points), np.int32), np.empty((64 + 16 * len(points), CELLS))
    k = 0
    for i in range(len(points)):
        x, y = points[i, 0], points[i, 1]
        for big in range(outer.shape[0] * outer.shape[1]):
            top, left = big // outer.shape[1], big % outer.shape[1]
            if not f[i] + _limit(outer[top, left], top, left, PAD, side, y, x) >= 0:
                continue
            for row in range(top * step, top * step + step):
                for column in range(left * step, left * step + step):
                    if not f[i] + _limit(inner[row, column], row, column, CELLS, side, y, x) >= 0:
                        continue
                    if k + CELLS > len(place):
                        place = np.concatenate((place, np.empty_like(place)))
                        entries = np.concatenate((entries, np.empty_like(entries)))
                    for down in range(row * CELLS, row * CELLS + CELLS):
                        dy, largest = (down + 0.5) * side - y, -np.inf
                        for beside in range(CELLS):
                            dx = (column * CELLS + beside + 0.5) * side - x
                            entry = g[down, column * CELLS + beside] - dy * dy - dx * dx + f[i]
                            entries[k, beside] = entry
                            largest = max(largest, entry)
                        if largest >= 0:
                            place[k] = down * w + column * CELLS
                            k += 1
        starts[i + 1] = k
    return starts, place[:k].copy(), entries[:k].copy()


@compiled
def _limits(g: _Doubles, size: int, side: float) -> _Doubles:
    """What `_limit` needs of blocks of size x size cells: `top`, and the slope s along y and x; (h, w, 3).

    With d_j = x_j - X from a block's centre X, and any slope s,

        g_j - c_ij = (g_j - |d_j|^2 - s'd_j) - |X - p_i|^2 + (s - 2 (X - p_i))'d_j.

    The first part is at most `top` (-infinity of a block without cells), the last at most the distance from the centre
    to that of the last cell times the moduli of its slope. With the slope of g itself, by least squares along each
    axis, the limit is close even where mass moves far and g is steep.
    """
    h, w = g.shape[0] // size, g.shape[1] // size
    found = np.empty((h, w, 3))
    d = (np.arange(size) - (size - 1) / 2) * side
    for row in range(h):
        for column in range(w):
            block = g[row * size : (row + 1) * size, column * size : (column + 1) * size]
            count, total = 0, 0.0
            sums, squares, products = np.zeros(2), np.zeros(2), np.zeros(2)
            for down in range(size):
                for beside in range(size):
                    value = block[down, beside]
                    if value > -np.inf:
                        count, total = count + 1, total + value
                        for axis in range(2):
                            offset = d[down] if axis == 0 else d[beside]
                            sums[axis] += offset
                            squares[axis] += offset * offset
                            products[axis] += offset * value
            slope = np.zeros(2)
            for axis in range(2):
                spread = squares[axis] - sums[axis] * sums[axis] / max(count, 1)
                if spread > 1e-6 * side * side:
                    slope[axis] = (products[axis] - total * sums[axis] / count) / spread
            top = -np.inf
            for down in range(size):
                for beside in range(size):
                    y, x = d[down], d[beside]
                    top = max(top, block[down, beside] - (y * y + x * x) - y * slope[0] - x * slope[1])
            found[row, column, 0], found[row, column, 1], found[row, column, 2] = top, slope[0], slope[1]
    return found


@compiled
def _limit(limits: _Doubles, row: int, column: int, size: int, side: float, y: float, x: float) -> float:
    """The upper limit of g_j - c_ij over the cells of one block, for a point at (x, y); see `_limits`."""
    dy, dx = (row + 0.5) * (size * side) - y, (column + 0.5) * (size * side) - x
    last = (abs(limits[1] - 2 * dy) + abs(limits[2] - 2 * dx)) * ((size - 1) / 2 * side)
    found: float = limits[0] + last - dy * dy - dx * dx
    return found


@compiled
def windows(
    top: NDArray[np.int64], down: _Floats, left: NDArray[np.int64], beside: _Floats, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int32], _Floats]:
    """The chunks of kernels that are products of a factor over rows and one over columns, around each point.

    Args:
        top: (n,), the first row of a point's window; rows outside the map count for nothing.
        down: (n, r), its factors.
        left: (n,), the first column.
        beside: (n, r), its factors; 0 outside the map.
        shape: Of the padded map.

    Returns:
        The parts of `Chunks`: those with an entry above 0.
    """
    n, reach = down.shape
    (h, w), most = shape, reach * (reach // CELLS + 2)
    starts = np.zeros(n + 1, np.int64)
    place, entries = np.empty(n * most, np.int32), np.zeros((n * most, CELLS), down.dtype)
    k = 0
    for i in range(n):
        for r in range(reach):
            row = top[i] + r
            if not (0 <= row < h and down[i, r] > 0):
                continue
            for first in range(left[i] // CELLS * CELLS, left[i] + reach, CELLS):
                if not 0 <= first < w:
                    continue
                largest = 0.0
                for cell in range(CELLS):
                    c = first + cell - left[i]
                    entries[k, cell] = down[i, r] * beside[i, c] if 0 <= c < reach else 0
                    largest = max(largest, entries[k, cell])
                if largest > 0:
                    place[k] = row * w + first
                    k += 1
        starts[i + 1] = k
    return starts, place[:k].copy(), entries[:k].copy()


# ---------------------------------------------------------------------------------------------------------------------
# Products, and the rounds made of them. The four sums of a chunk are written out: a vector operation each.


@compiled
def to_cells(starts: NDArray[np.int64], place: NDArray[np.int32], entries: _Floats, u: _Floats, sums: _Floats) -> None:
    """Writes the sum over points of E_ij u_i into `sums`, flat of the padded map."""
    sums[:] = 0
    for i in range(len(u)):
        weight = u[i]
        for e in range(_U(starts[i]), _U(starts[i + 1])):
            j = _U(place[e])
            a, b = sums[j] + entries[e, 0] * weight, sums[j + _1] + entries[e, 1] * weight
            c, d = sums[j + _2] + entries[e, 2] * weight, sums[j + _3] + entries[e, 3] * weight
            sums[j], sums[j + _1], sums[j + _2], sums[j + _3] = a, b, c, d


@compiled
def to_points(starts: NDArray[np.int64], place: NDArray[np.int32], entries: _Floats, w: _Floats, sums: _Floats) -> None:
    """Writes the sum over cells of E_ij w_j into `sums`, w flat of the padded map."""
    for i in range(len(sums)):
        a = b = c = d = entries.dtype.type(0)
        for e in range(_U(starts[i]), _U(starts[i + 1])):
            j = _U(place[e])
            a, b = a + entries[e, 0] * w[j], b + entries[e, 1] * w[j + _1]
            c, d = c + entries[e, 2] * w[j + _2], d + entries[e, 3] * w[j + _3]
        sums[i] = (a + b) + (c + d)


@compiled
def rounds(
    starts: NDArray[np.int64], place: NDArray[np.int32], entries: _Doubles, mass: _Doubles, u: _Doubles, v: _Doubles,
    done: int, iterations: int, tolerance: float, most: float,
) -> tuple[int, bool]:  # fmt: skip
    """Sinkhorn's rounds v = 1 / (E' u / n), u = 1 / (E (b v)), for as long as what the kernel lacks is nothing.

    Args:
        starts: Of `Chunks`, E; so are the next two.
        place: See there.
        entries: See there.
        mass: b, flat of the padded map.
        u: (n,), replaced.
        v: Flat of the padded map, replaced; meaningless in cells without mass.
        done: Rounds that were made before.
        iterations: Rounds at the end.
        tolerance: It stops when, at every tenth round, the cells' marginal is this close in the 2-norm.
        most: A half of a round is made while 1 + the mean of u (the sum of b v) is at most this times its least sum.

    Returns:
        Rounds that were made in all, and whether none is left to do.
    """
    n, m = len(u), len(v)
    sums, w, shares, u_next = np.empty(m), np.zeros(m), np.empty(n), np.empty(n)
    while done < iterations:
        shares[:] = u / n
        to_cells(starts, place, entries, shares, sums)
        least, off = np.inf, 0.0
        for j in range(m):
            if mass[j] > 0:
                least = min(least, sums[j])
                off += (mass[j] * (v[j] * sums[j] - 1)) ** 2
        if done % 10 == 1 and math.sqrt(off) < tolerance:
            return done, True
        if not (1 + shares.sum() <= most * least and least < np.inf):
            return done, False
        for j in range(m):
            if mass[j] > 0:
                w[j] = mass[j] / sums[j]
        to_points(starts, place, entries, w, u_next)
        least = u_next.min()
        if not (1 + w.sum() <= most * least and least < np.inf):
            return done, False
        u[:] = 1 / u_next
        v[:] = 1 / sums
        done += 1
    return done, True


@compiled
def floored(
    starts: NDArray[np.int64], place: NDArray[np.int32], entries: _Floats, mass: _Floats, iterations: int,
    floor: np.floating[Any], tolerance: float,
) -> _Floats:  # fmt: skip
    """The last v of the rounds v = b / (K' u + floor), u = 1/n / (K v + floor) that begin with u = 1/n.

    It stops when, at every tenth round, the sum of (b - v K' u)^2 is at most `tolerance`.

    Args:
        starts: Of `Chunks`, K; so are the next two.
        place: See there.
        entries: See there.
        mass: b, flat of the padded map, in the dtype of K.
        iterations: Most rounds.
        floor: In the same dtype.
        tolerance: See above.
    """
    n = len(starts) - 1
    one = floor / floor
    u, sums, v = np.full(n, one / n, mass.dtype), np.empty_like(mass), mass.copy()
    share, fitted = u[0], np.empty_like(u)
    to_cells(starts, place, entries, u, sums)
    for done in range(1, iterations + 1):
        v[:] = mass / (sums + floor)
        to_points(starts, place, entries, v, fitted)
        u[:] = share / (fitted + floor)
        to_cells(starts, place, entries, u, sums)
        if done % 10 == 0:
            off = 0.0
            for j in range(len(v)):
                off += (mass[j] - v[j] * sums[j]) ** 2
            if off <= tolerance:
                break
    return v
