"""The pairs of points and cells of a map whose reduced cost is small, by blocks of cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pairs", "pairs"]

_Floats = NDArray[np.float64]
_Integers = NDArray[np.int32]

_SIDES, _BRANCHES = (16, 4), 4
"""Pairs are looked for in blocks of 16 x 16 cells, in those of 4 x 4 cells, then in cells."""
_AT_ONCE = 384
"""Points whose pairs are looked for at once: their candidates stay in cache (measured)."""


class Pairs(NamedTuple):
    """Points (in rising order), cells (flat), and f_i + g_j - c_ij of the pairs that were looked for."""

    point: _Integers
    cell: _Integers
    exponent: _Floats


class _Found(NamedTuple):
    """The same with the cells' rows and columns."""

    point: _Integers
    row: _Integers
    column: _Integers
    exponent: _Floats


def pairs(points: _Floats, f: _Floats, g: _Floats, side: float, slack: float) -> Pairs:
    """All pairs of points and cells with f_i + g_j - c_ij >= -slack, c_ij the squared distance.

    Blocks are left out by an upper limit of g_j - c_ij over their cells, so nothing is missed.

    Args:
        points: (n, 2) as (x, y).
        f: (n,) finite.
        g: (h, w), -infinity where a cell is not to be found.
        side: Of a cell.
        slack: Any number.
    """
    width = g.shape[1]
    g = np.pad(g, [(0, -count % _SIDES[0]) for count in g.shape], constant_values=-np.inf)
    outer, *inner = (_blocks(g, size, side) for size in _SIDES)
    cells = _by_block(g)
    parts = [
        _descend(points[k : k + _AT_ONCE], f[k : k + _AT_ONCE] + slack, outer, inner, cells, side)
        for k in range(0, len(points), _AT_ONCE)
    ]
    return Pairs(
        np.concatenate([part.point + np.int32(k * _AT_ONCE) for k, part in enumerate(parts)]),
        np.concatenate([part.row * np.int32(width) + part.column for part in parts]),
        np.concatenate([part.exponent for part in parts]) - slack,
    )


def _descend(points: _Floats, f: _Floats, outer: _Blocks, inner: list[_Blocks], cells: _Floats, side: float) -> _Found:
    """The pairs of some points with f_i + g_j - c_ij >= 0: by blocks with a chance, their blocks, their cells."""
    (h, w), size = outer.shape, _SIDES[0]
    down, right = ((np.arange(count) + 0.5) * (size * side) - points[:, k : k + 1] for k, count in ((1, h), (0, w)))
    chance = outer.chance(down, right)
    chance += f[:, None, None]
    point, block = np.divmod(np.flatnonzero(chance >= 0).astype(np.int32), np.int32(h * w))
    row, column = np.divmod(block, np.int32(w))
    for level in (*inner, None):
        size //= _BRANCHES
        centre = (np.arange(_BRANCHES)[:, None] + 0.5) * (size * side)
        steps = np.float64(_BRANCHES * size * side)
        down, right = (place * steps - points[point, k] + centre for k, place in ((1, row), (0, column)))
        block = row * np.int32(w) + column
        if level is None:
            chance = cells.take(block, axis=2)
            chance -= np.square(down)[:, None]
            chance -= np.square(right)
        else:
            chance = level.chance(down, right, block)
        chance += f[point]
        flat = chance.reshape(_BRANCHES**2, -1)
        kept = np.flatnonzero(np.ascontiguousarray((flat >= 0).T)).astype(np.int32)  # pairs stay in order
        which, child = np.divmod(kept, np.int32(_BRANCHES**2))
        found = flat.ravel().take(child * np.int32(flat.shape[1]) + which)
        below, beside = np.divmod(child, np.int32(_BRANCHES))
        point, row, column = point[which], row[which] * _BRANCHES + below, column[which] * _BRANCHES + beside
        w *= _BRANCHES
    return _Found(point, row, column, found)


class _Blocks(NamedTuple):
    """Upper limits of g_j - c_ij over the cells j of a block.

    With d_j = x_j - X from the block's centre X, and any slope s,

        g_j - c_ij = (g_j - |d_j|^2 - s'd_j) - |X - p_i|^2 + (s - 2 (X - p_i))'d_j.

    The first part is at most `top`, the last at most `half` the block's side times the moduli of its slope. With the
    slope of g itself the limit is close even where mass moves far and g is steep.

    Attributes:
        top: The largest first part, -infinity of a block without cells; (h, w), of inner levels (4, 4, outer blocks).
        down, right: s along y and x, of the same shape.
        half: From a block's centre to that of its last cell.
    """

    top: _Floats
    down: _Floats
    right: _Floats
    half: float

    @property
    def shape(self) -> tuple[int, int]:
        """Blocks along y and x, of the outer level."""
        return self.top.shape[0], self.top.shape[1]

    def chance(self, y: _Floats, x: _Floats, block: _Integers | None = None) -> _Floats:
        """The limits from X - p along y and x.

        Of all blocks, (n, h, w) from (n, h) and (n, w); or of those inside k chosen ones, (4, 4, k) from (4, k) each.
        """
        top, down, right = self.top, self.down, self.right
        if block is None:
            y, x = y[:, :, None], x[:, None, :]
        else:
            top, down, right = (values.take(block, axis=2) for values in (top, down, right))
            y = y[:, None]
        found = np.abs(down - 2 * y)
        found += np.abs(right - 2 * x)
        found *= self.half
        found += top
        found -= np.square(y)
        found -= np.square(x)
        return found


def _blocks(g: _Floats, size: int, side: float) -> _Blocks:
    """The blocks of size x size cells of a map, with slopes by least squares along each axis over those there are."""
    h, w = g.shape[0] // size, g.shape[1] // size
    values = g.reshape(h, size, w, size).transpose(1, 3, 0, 2).reshape(size * size, h * w)
    there = values > -np.inf
    known = np.where(there, values, 0)
    d = (np.arange(size) - (size - 1) / 2) * side
    y, x = np.repeat(d, size), np.tile(d, size)
    count, *moments = np.stack([np.ones_like(y), y, x, y * y, x * x]) @ there
    total, *products = np.stack([np.ones_like(y), y, x]) @ known
    count = np.maximum(count, 1)
    slopes = []
    for product, first, second in zip(products, moments[:2], moments[2:], strict=True):
        spread = second - first * first / count
        known_along = spread > 1e-6 * side * side
        slope = (product - total * first / count) / np.where(known_along, spread, 1)
        slopes.append(np.where(known_along, slope, 0))
    rest = values - (y * y + x * x)[:, None] - y[:, None] * slopes[0] - x[:, None] * slopes[1]
    maps = [each.reshape(h, w) for each in (rest.max(0), *slopes)]
    top, down, right = maps if size == _SIDES[0] else map(_by_block, maps)
    return _Blocks(top, down, right, (size - 1) / 2 * side)


def _by_block(level: _Floats) -> _Floats:
    """(h, w) as (4, 4, blocks): the place within a block first, so that a block's values are read for many at once."""
    h, w = level.shape
    blocks = level.reshape(h // _BRANCHES, _BRANCHES, w // _BRANCHES, _BRANCHES)
    return np.ascontiguousarray(blocks.transpose(1, 3, 0, 2).reshape(_BRANCHES, _BRANCHES, -1))
