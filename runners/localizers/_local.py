"""Sinkhorn steps over the pairs of cell and point that matter: cheap once the entropy's strength eps is small.

A pair's term is exp((f_i + g_j - C_ij) / eps). Pairs whose f_i + g_j - C_ij was below -tau when the list was made are
left out. At a later step a left-out pair is at most -tau + (change of f_i) + (change of g_j) since then, which bounds
what is missing in every sum; a step is refused unless that is less than 1e-16 of each sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from runners.localizers._separable import EXPONENT_FLOOR, Array, Step

__all__ = ["MOST_PAIRS", "REACH", "Moments", "Pairs", "pairs_near"]

REACH = 60.0
"""Pairs below exp(-60) are left out. 37 + log(n) would do if every sum were 1; the rest is for sums that are not."""
MOST_PAIRS = 1 << 23
"""Longest list, about 350 MB with its copies."""
_EXACT = 37.0
"""-log(1e-16)."""
_OVERFLOW = 600.0


class Moments(NamedTuple):
    """Sums over each point's column of the plan: its mass [n], mass times place [n, 2], mass times cost [n]."""

    mass: Array
    place: Array
    cost: Array


class _Left(NamedTuple):
    """What was left out: pairs with f_i + g_j - C_ij below -tau at these potentials."""

    tau: float
    f: Array
    g: Array


class Pairs:
    """A list of pairs, by cells, and the steps over it. See `pairs_near`.

    Args:
        centres: [N, 2].
        mass: [N], positive.
        count: n, the number of points.
        indptr, points, cost: The pairs, by rows: of cell i those from indptr[i] to indptr[i + 1].
        left: What it leaves out.
    """

    def __init__(
        self, centres: Array, mass: Array, count: int, indptr: np.ndarray, points: np.ndarray, cost: Array, left: _Left
    ) -> None:
        self._centres, self._mass, self._count, self._left = centres, mass, count, [left]
        self._hold(indptr, points, cost)

    def __len__(self) -> int:
        return len(self._cost)

    def _hold(self, indptr: np.ndarray, points: np.ndarray, cost: Array) -> None:
        self._lengths, self._cost = np.diff(indptr), cost
        self._matrix = sp.csr_array((np.empty(len(cost)), points, indptr), shape=(len(self._mass), self._count))
        self._transposed = self._matrix.T

    def step(self, f: Array, g: Array, eps: float) -> Step | None:
        """Both soft c-transforms at once, from the old potentials; None if a sum may lack more than 1e-16 of it."""
        rows, columns = self._log_sums(f, g, eps)
        if not self._complete(rows, columns, f, g, eps):
            return None
        self._shorten(f, g, eps)
        return f - eps * rows, g - eps * columns

    def moments(self, f: Array, g: Array, eps: float) -> Moments | None:
        """Of the plan mass_i exp((f_i + g_j - C_ij) / eps); None if a column may lack more than 1e-16 of its mass."""
        _, columns = self._log_sums(f, g, eps)
        if not self._complete(None, columns, f, g, eps):
            return None
        place = np.stack([self._transposed @ (self._mass * axis) for axis in self._centres.T], axis=1)
        mass = self._transposed @ self._mass
        self._matrix.data *= self._cost
        return Moments(mass, place, self._transposed @ self._mass)

    def _log_sums(self, f: Array, g: Array, eps: float) -> tuple[Array, Array]:
        """Logarithms of the kernel's row and column sums: one exponential per pair serves both."""
        kernel = self._matrix.data
        np.take(g, self._matrix.indices, out=kernel, mode="clip")
        kernel -= self._cost
        kernel += np.repeat(f, self._lengths)
        kernel *= 1 / eps
        np.exp(np.clip(kernel, EXPONENT_FLOOR, _OVERFLOW + 1, out=kernel), out=kernel)
        with np.errstate(divide="ignore"):
            return np.log(self._matrix @ np.ones(self._count)), np.log(self._transposed @ self._mass)

    def _complete(self, rows: Array | None, columns: Array, f: Array, g: Array, eps: float) -> bool:
        """Whether what is missing is nothing: n terms of a row, or cells of the total mass n in a column."""
        slack = np.log(self._count) + _EXACT
        least = min(float(columns.min()), float(rows.min()) if rows is not None else np.inf)
        for left in self._left:
            df, dg = f - left.f, g - left.g
            if (df.max() + dg.max() - left.tau) / eps + slack < least:
                continue
            if not ((dg + df.max() - left.tau) / eps + slack < columns).all():
                return False
            if rows is not None and not ((df + dg.max() - left.tau) / eps + slack < rows).all():
                return False
        return bool(columns.max() < _OVERFLOW and (rows is None or rows.max() < _OVERFLOW))

    def _shorten(self, f: Array, g: Array, eps: float) -> None:
        """Leaves out what has become small, when that is a good part of the list."""
        keep = np.flatnonzero(self._matrix.data > np.exp(-REACH))
        if len(keep) > 0.7 * len(self):
            return
        indptr = np.searchsorted(keep, self._matrix.indptr).astype(np.int32)
        self._hold(indptr, self._matrix.indices[keep], self._cost[keep])
        self._left.append(_Left(REACH * eps, f, g))


def pairs_near(
    centres: Array, mass: Array, points: Array, variance: float, potentials: Step, tau: float, blocks: np.ndarray
) -> Pairs | None:
    """All pairs with f_i + g_j - C_ij >= -tau, or None if there are more than `MOST_PAIRS`.

    Args:
        centres: [N, 2], in the order of their blocks.
        mass: [N].
        points: [n, 2].
        variance: v; the cost is |x - y|^2 / (2 v).
        potentials: f and g.
        tau: See above, at least 0.
        blocks: First cell of each block of neighbouring cells, and N: points too far from a block's box for its
            largest f are passed over for the whole block.
    """
    lengths, found, costs, total = [], [], [], 0
    for part, some in _candidates(centres, points, variance, potentials, tau, blocks):
        f, g = potentials
        cost = np.subtract.outer(centres[part, 0], points[some, 0]) ** 2
        cost += np.subtract.outer(centres[part, 1], points[some, 1]) ** 2
        cost /= 2 * variance
        near = np.add.outer(f[part], g[some]) - cost >= -tau
        lengths.append(near.sum(axis=1))
        found.append(np.broadcast_to(some.astype(np.int32), near.shape)[near])
        costs.append(cost[near])
        total += len(costs[-1])
        if total > MOST_PAIRS:
            return None
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int32)
    left = _Left(tau, *potentials)
    return Pairs(centres, mass, len(points), indptr, np.concatenate(found), np.concatenate(costs), left)


def _candidates(
    centres: Array, points: Array, variance: float, potentials: Step, tau: float, blocks: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """For every block of cells the points that may be near one of them."""
    f, g = potentials
    first = blocks[:-1]
    highest = np.maximum.reduceat(f, first)
    low, high = np.minimum.reduceat(centres, first, axis=0), np.maximum.reduceat(centres, first, axis=0)
    x, y = np.ascontiguousarray(points.T)
    reach = (g + tau) * (2 * variance)
    for block, (start, end) in enumerate(zip(first, blocks[1:], strict=True)):
        dx = x - np.clip(x, low[block, 0], high[block, 0])
        dy = y - np.clip(y, low[block, 1], high[block, 1])
        yield slice(start, end), np.flatnonzero(dx * dx + dy * dy <= reach + highest[block] * (2 * variance) + 1e-9)
