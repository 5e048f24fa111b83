"""Annealed entropic transport from the cells of a density to points, exact to rounding and fast.

The balanced problem min <P, C> + eps KL(P | a 1^T) over plans P whose rows sum to the cells' masses a and whose
columns sum to 1, C_ij = |x_i - y_j|^2 / (2 v). Its potentials f over cells and g over points follow eps as it falls
from the largest cost to `blur`: at each step both soft c-transforms

    f_i <- -eps log sum_j exp((g_j - C_ij) / eps),    g_j <- -eps log sum_i a_i exp((f_i - C_ij) / eps)

of the old potentials are averaged with them; a last step, not averaged, follows at `blur`.

Every step is done in the cheapest of three ways that agree to rounding: by products of row and column kernels (module
`_separable`), over the pairs near enough to matter (`_local`), or over all pairs, tile by tile. Each of the first two
checks its own result and refuses it where float64 or the list of pairs does not suffice. The choice follows from
counted operations, not from clocks, so results are repeatable.

With N cells on an h x w grid and n points a step takes 4 n h w multiplications by products, which is what limits large
maps with many people (128 x 128 cells, 5000 points: 9 ms of one core), 4 n p^2 by series, and about 10 ns per pair
locally. Annealing begins anew in every round: beginning at the last round's potentials instead, with eps from 0.25 to 4
times the largest move's cost, gave two to four times as many rounds, no less time, and no better points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from losses.transport import epsilon_schedule
from runners.localizers._local import MOST_PAIRS, REACH, Moments, Pairs, pairs_near
from runners.localizers._separable import Array, Separable, Step

__all__ = ["Cells", "Transport", "cells_in_blocks", "largest_cost", "transport"]

_PAIR_SECONDS = 3e-8
"""What a pair costs at the step where its list is made; a step alone takes a tenth of it."""
_TILE = 1 << 20
_MOST_BLOCKS = 600
_BLOCK_PAIRS = 20_000
"""Blocks of cells for the search of pairs: each has its price, so not more than the pairs to look at pay for."""


class Cells(NamedTuple):
    """Cells with mass, in the order of square blocks of neighbours.

    Attributes:
        centres: [N, 2] as (x, y).
        mass: [N], positive.
        blocks: First cell of each block, and N.
    """

    centres: Array
    mass: Array
    blocks: np.ndarray


class Transport(NamedTuple):
    """A solution: potentials f [N] (in the order of `Cells`) and g [n], and the moments of the plan's columns."""

    f: Array
    g: Array
    moments: Moments


def cells_in_blocks(rows: np.ndarray, columns: np.ndarray, centres: Array, mass: Array, count: int) -> Cells:
    """Sorts cells, given by their rows and columns on the grid, into blocks that suit a number of points."""
    blocks = np.clip(len(mass) * count / _BLOCK_PAIRS, 1, _MOST_BLOCKS)
    side = max(1, math.ceil((len(mass) / blocks) ** 0.5))
    block = (rows // side).astype(np.int64) * (int(columns.max(initial=0)) // side + 1) + columns // side
    order = np.argsort(block, kind="stable")
    first = np.flatnonzero(np.diff(block[order], prepend=-1))
    return Cells(centres[order], mass[order], np.append(first, len(mass)))


def largest_cost(centres: Array, points: Array, variance: float) -> float:
    """Largest |x - y|^2 / (2 v). The farthest cell from a point is at an end of its row of cells."""
    order = np.lexsort((centres[:, 0], centres[:, 1]))
    ordered = centres[order]
    first = np.flatnonzero(np.diff(ordered[:, 1], prepend=-np.inf))
    last = np.append(first[1:], len(ordered)) - 1
    farthest, step = 0.0, max(1, _TILE // (16 * len(points)))
    for start in range(0, len(first), step):
        left, right = ordered[first[start : start + step]], ordered[last[start : start + step]]
        across = np.maximum(np.subtract.outer(left[:, 0], points[:, 0]) ** 2, (right[:, :1] - points[:, 0]) ** 2)
        across += np.subtract.outer(left[:, 1], points[:, 1]) ** 2
        farthest = max(farthest, float(across.max()))
    return farthest / (2 * variance)


def transport(cells: Cells, points: Array, *, variance: float, blur: float, scaling: float) -> Transport:
    """Solves the problem above by the schedule above.

    Args:
        cells: The cells; their masses sum to n.
        points: [n, 2], n >= 1.
        variance: v.
        blur: Last strength of the entropy, in the units of the cost.
        scaling: What eps is multiplied by from step to step, between 0 and 1.
    """
    steps = _Steps(cells, points, variance)
    start = max(8.0, largest_cost(cells.centres, points, variance))
    f, g = steps(np.zeros(len(cells.mass)), np.zeros(len(points)), start)
    for eps in epsilon_schedule(start, blur, scaling):
        new_f, new_g = steps(f, g, eps)
        f, g = (f + new_f) / 2, (g + new_g) / 2
    f, g = steps(f, g, blur)
    return Transport(f, g, steps.moments(f, g, blur))


class _Steps:
    """Chooses how each step is done."""

    def __init__(self, cells: Cells, points: Array, variance: float) -> None:
        self._cells, self._points, self._variance = cells, points, variance
        self._separable = Separable(cells.centres, cells.mass, points, variance)
        self._pairs: Pairs | None = None
        pitch = [np.diff(np.unique(axis)) for axis in cells.centres.T]
        self._area = float(np.prod([gaps.min() if len(gaps) else 1.0 for gaps in pitch]))

    def __call__(self, f: Array, g: Array, eps: float) -> Step:
        found = None
        if self._pairs is None and not self._local_is_cheaper(eps):
            found = self._separable.step(f, g, eps)
        if found is None:
            found = self._locally(f, g, eps)
        return _exhaustive_step(self._cells, self._points, self._variance, f, g, eps) if found is None else found

    def moments(self, f: Array, g: Array, eps: float) -> Moments:
        """Of the plan at these potentials."""
        for reach in (0.0, REACH, 2 * REACH):
            pairs = self._near(f, g, reach * eps) if reach else self._pairs
            found = pairs.moments(f, g, eps) if pairs is not None else None
            if found is not None:
                return found
        return _exhaustive_moments(self._cells, self._points, self._variance, f, g, eps)

    def _local_is_cheaper(self, eps: float) -> bool:
        """With as many pairs as there are where potentials are flat: cells within sqrt(2 v tau) of each point."""
        around = np.pi * 2 * self._variance * REACH * eps / self._area
        pairs = len(self._points) * min(float(len(self._cells.mass)), around)
        return pairs < MOST_PAIRS / 2 and pairs * _PAIR_SECONDS < self._separable.seconds()

    def _locally(self, f: Array, g: Array, eps: float) -> Step | None:
        """Over the list of pairs; when that does not suffice over a new one, then over a longer one."""
        found = self._pairs.step(f, g, eps) if self._pairs is not None else None
        for reach in (REACH, 2 * REACH):
            if found is not None:
                break
            self._pairs = self._near(f, g, reach * eps)
            found = self._pairs.step(f, g, eps) if self._pairs is not None else None
        return found

    def _near(self, f: Array, g: Array, tau: float) -> Pairs | None:
        cells = self._cells
        return pairs_near(cells.centres, cells.mass, self._points, self._variance, (f, g), tau, cells.blocks)


# ---------------------------------------------------------------------------------------------------------------------
# All pairs: always right, and slow.


def _tiles(cells: Cells, points: Array, variance: float) -> Iterator[tuple[slice, Array]]:
    """Costs [k, n] of the cells, k at a time."""
    step = max(1, _TILE // len(points))
    for start in range(0, len(cells.mass), step):
        part = slice(start, start + step)
        cost = np.subtract.outer(cells.centres[part, 0], points[:, 0]) ** 2
        cost += np.subtract.outer(cells.centres[part, 1], points[:, 1]) ** 2
        yield part, cost / (2 * variance)


def _exhaustive_step(cells: Cells, points: Array, variance: float, f: Array, g: Array, eps: float) -> Step:
    new_f, log_sum = np.empty_like(f), np.full(len(g), -np.inf)
    at_cells = np.log(cells.mass) + f / eps
    for part, cost in _tiles(cells, points, variance):
        new_f[part] = -eps * logsumexp((g - cost) / eps, axis=1)
        log_sum = np.logaddexp(log_sum, logsumexp(at_cells[part, None] - cost / eps, axis=0))
    return new_f, -eps * log_sum


def _exhaustive_moments(cells: Cells, points: Array, variance: float, f: Array, g: Array, eps: float) -> Moments:
    found = Moments(np.zeros(len(g)), np.zeros((len(g), 2)), np.zeros(len(g)))
    for part, cost in _tiles(cells, points, variance):
        plan = np.exp(np.log(cells.mass[part, None]) + (np.add.outer(f[part], g) - cost) / eps)
        found.mass[:] += plan.sum(axis=0)
        found.place[:] += plan.T @ cells.centres[part]
        found.cost[:] += np.einsum("ij,ij->j", plan, cost)
    return found
