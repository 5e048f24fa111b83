"""Sinkhorn's rounds between points and the cells of a map on the CPU, from what a kernel holds beside zeros.

Everything here is in units of the entropy: lengths are divided by sqrt(reg / scale), so that the cost is the squared
distance c_ij = |x_j - p_i|^2 and the plan a_i b_j exp(f_i + g_j - c_ij), with a_i = 1 / n. A round is

    exp(-g_j) = 1/n sum_i exp(f_i - c_ij),      exp(-f_i) = sum_j b_j exp(g_j - c_ij).

**What is left out.** Scalings u of the points and v of the cells follow a kernel E_ij = exp(f_i + g_j - c_ij) at fixed
potentials. Entries below `lost` are not stored. They would add at most lost * mean(u) to any sum over points and at
most lost * sum(b v) to any sum over cells, whatever the geometry. A round is accepted only while both are at most `eps`
(a sixteenth of a rounding of the density's dtype) of the smallest sum; else the scalings are absorbed into f and g, and
a new kernel is built. So every sum of every round is complete to `eps`, and nothing depends on which entries a search
by distance finds: it finds all that are not below `lost`. Sums themselves are in float64. The search and the rounds are
compiled, see `losses.transport.chunks`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from losses.geometry import axis_gaussians, cell_axis
from losses.transport import chunks

__all__ = ["planar"]

_Floats = NDArray[np.float64]

_RANGE = 1e25
"""How large scalings may become before they are absorbed. The smaller, the more kernels are built, the larger, the more
entries they have: the time is flat between 1e12 and 1e50 (measured)."""
_LOST = 1e-300
"""What float64 may lose of a kernel that is kept as a product of factors: what is smaller than its normal numbers."""
_SPARSE = 4
"""A kernel is stored where the window around a point is this many times smaller than the map."""


class _Scaled(NamedTuple):
    """The scalings of points and cells after `done` rounds, and whether no round is left to do."""

    u: _Floats
    v: _Floats
    done: int
    finished: bool


@torch.no_grad()
def planar(
    points: Tensor, mass: Tensor, stride: int, *, reg: float, scale: float, iterations: int, tolerance: float = 1e-9
) -> tuple[Tensor, Tensor]:
    """The potentials of `transport.balanced` by POT's rounds, for points of equal mass and the cells of a map.

    The cost is scale * squared distance. No matrix of points x cells is formed: memory is O(n (h + w)) and what the
    sparse kernels hold, time that of their entries.

    Args:
        points: (n, 2) as (x, y), pixels, n >= 1, on the CPU.
        mass: (h, w) non-negative masses of the cells, summing to 1; its dtype decides what may be left out.
        stride: Pixels per cell.
        reg: Strength of the entropy, in the units of the cost.
        scale: Cost per squared pixel.
        iterations: Most rounds.
        tolerance: They stop when, at every tenth round, the cells' marginal is this close in the 2-norm [POT].

    Returns:
        f (n,) and g (h, w), in the units of the cost: g by the soft c-transform of f, in cells without mass too.
    """
    with np.errstate(all="ignore"):  # what leaves the range of float64 is seen by comparing, and done another way
        plane = _Plane(points.double(), mass, stride, reg / (2 * scale))
        f = plane.solve(iterations, tolerance)
        g = plane.from_points(f, np.ones_like(plane.filled))
    return torch.from_numpy(reg * f).to(mass), torch.from_numpy(reg * g).to(mass)


class _Plane:
    """The points, the cells, and what is between them."""

    def __init__(self, points: Tensor, mass: Tensor, stride: int, variance: float) -> None:
        self.cells = (mass.shape[0], mass.shape[1])
        self.eps = torch.finfo(mass.dtype).eps / 16
        unit = math.sqrt(2 * variance)
        self.side = stride / unit
        self.points: _Floats = (points / unit).numpy()
        self.rows, self.columns = axis_gaussians(points, self.cells, stride, variance)
        self.axes = [(cell_axis(count, stride, points) / unit).numpy() for count in self.cells]
        masses = mass.double().numpy()
        self.filled: NDArray[np.bool_] = masses > 0
        self.b: _Floats = masses[self.filled]
        self.log_b: _Floats = np.log(self.b)

    def solve(self, iterations: int, tolerance: float) -> _Floats:
        """The points' potential: scalings of the whole kernel if it is wide, then of sparse ones, absorbed."""
        n, m = len(self.points), len(self.b)
        f, g = np.full(n, math.log(n)), np.zeros(m)  # POT starts from f - log n = 0
        done, finished, stuck = 0, False, True
        if self._wide():
            u, g, done, finished = self._scale(np.exp(f), g, iterations, tolerance)
            f, g, stuck = np.log(u), np.log(g), done == 0
        mass = chunks.padded(self._map(self.b), 0).ravel()
        while not finished:
            if stuck:  # a single round leaves the range of the scalings
                g = self.from_points(f, self.filled)[self.filled]
                f, done = self.from_cells(g), done + 1
            if done == iterations:
                break
            before, u, v = done, np.ones(n), np.ones(len(mass))
            kernel, lost = self._near(f, g)
            done, finished = chunks.rounds(*kernel, mass, u, v, done, iterations, tolerance, self.eps / lost)
            f, g, stuck = f + np.log(u), g + np.log(self._inside(v)[self.filled]), done == before
        return f

    def _scale(self, u: _Floats, v: _Floats, iterations: int, tolerance: float) -> _Scaled:
        """Rounds with the whole kernel exp(-c_ij), for as long as what it lacks is nothing.

        It is kept as a product of a factor over rows and one over columns, O(n (h + w)) memory. The potentials are in
        the scalings, which have the range of float64; what underflows of the kernel is below `_LOST`.
        """
        b, most, done = self.b, self.eps / _LOST, 0
        total, least = np.add.reduce, np.minimum.reduce  # methods of an array cost more than the sums of a small map
        while done < iterations:
            sums = self._to_cells(u)[self.filled]
            if done % 10 == 1 and np.linalg.norm(b * (v * sums - 1)) < tolerance:
                return _Scaled(u, v, done, True)
            if not 1 + total(u) / len(u) <= most * least(sums):
                return _Scaled(u, v, done, False)
            next_v = 1 / sums
            weights = b * next_v
            sums = self._to_points(self._map(weights))
            if not 1 + total(weights) <= most * least(sums):
                return _Scaled(u, v, done, False)
            u, v, done = 1 / sums, next_v, done + 1
        return _Scaled(u, v, done, True)

    # -----------------------------------------------------------------------------------------------------------------
    # Kernels.

    def _wide(self) -> bool:
        """Whether a window in which a kernel is not nothing, at equal potentials, is a large part of the map."""
        reach = 2 * math.ceil(math.sqrt(math.log(_RANGE / self.eps)) / self.side) + 1
        return _SPARSE * math.prod(min(reach, count) for count in self.cells) > math.prod(self.cells)

    def _to_cells(self, u: _Floats) -> _Floats:
        """The mean over points of exp(-c_ij) u_i, (h, w)."""
        weights = torch.from_numpy(u / len(u)).unsqueeze(1)
        found: _Floats = (self.rows.T @ (weights * self.columns)).numpy()
        return found

    def _to_points(self, w: _Floats) -> _Floats:
        """The sum over cells, (h, w), of exp(-c_ij) w_j."""
        found: _Floats = ((self.rows @ torch.from_numpy(w)) * self.columns).sum(1).numpy()
        return found

    def _near(self, f: _Floats, g: _Floats) -> tuple[chunks.Chunks, float]:
        """E_ij = exp(f_i + g_j - c_ij) where it is not below `lost` = eps / range, in chunks; and `lost`."""
        lost = self.eps / _RANGE
        found = self._pairs(self.points, f, self._map(g, -math.inf), -math.log(lost))
        return found._replace(entries=np.exp(found.entries)), lost

    def _pairs(self, points: _Floats, f: _Floats, g: _Floats, slack: float) -> chunks.Chunks:
        """f_i + g_j - c_ij where it is at least -slack, and of the neighbours; g on the map."""
        return chunks.near(points, f, chunks.padded(g, -math.inf), self.side, slack)

    def _inside(self, values: _Floats) -> _Floats:
        """A flat padded map without its padding, (h, w)."""
        h, w = self.cells
        return values.reshape(-1, w + -w % chunks.PAD)[:h, :w]

    def _map(self, values: _Floats, empty: float = 0.0) -> _Floats:
        """Values of the cells with mass on the map."""
        if len(values) == self.filled.size:
            return values.reshape(self.cells)
        found = np.full(self.cells, empty)
        found[self.filled] = values
        return found

    # -----------------------------------------------------------------------------------------------------------------
    # Halves of a round that survive any range.

    def from_points(self, f: _Floats, wanted: NDArray[np.bool_]) -> _Floats:
        """g_j = -log 1/n sum_i exp(f_i - c_ij) of the wanted cells, (h, w), -infinity elsewhere.

        By the whole kernel where it is not lost in float64. Elsewhere from the pairs that count beside the largest
        term, which a tree finds: the least c_ij - f_i over i.
        """
        top = f.max()
        u = np.exp(f - top)
        sums = self._to_cells(u)
        g = np.where(wanted, -np.log(sums) - top, -np.inf)
        left = wanted & ~((1 + u.mean()) * _LOST <= self.eps * sums)
        if left.any():
            bound = np.full(self.cells, -np.inf)
            bound[left] = _least(self._centres(left), self.points, f)
            found = self._pairs(self.points, f, bound, math.log(len(f) / self.eps))
            sums = np.empty(chunks.padded(bound, 0).size)
            chunks.to_cells(*found._replace(entries=np.exp(found.entries)), np.full(len(f), 1 / len(f)), sums)
            g[left] = bound[left] - np.log(self._inside(sums)[left])
        return g

    def from_cells(self, g: _Floats) -> _Floats:
        """f_i = -log sum_j b_j exp(g_j - c_ij), (n,), in the same two ways."""
        heights = g + self.log_b
        top = heights.max()
        weights = np.exp(heights - top)
        sums = self._to_points(self._map(weights))
        f: _Floats = -np.log(sums) - top
        left = ~((1 + weights.sum()) * _LOST <= self.eps * sums)
        if left.any():
            points = self.points[left]
            bound = self._nearly_least(points, self._map(heights, -math.inf))
            slack = math.log(len(g) / self.eps)
            found = self._pairs(points, bound, self._map(heights, -math.inf), slack)
            largest = np.maximum.reduceat(found.entries.max(1), found.starts[:-1])
            terms = np.exp(found.entries - largest[found.owners(), None]).sum(1)
            f[left] = bound - largest - np.log(np.add.reduceat(terms, found.starts[:-1]))
        return f

    def _nearly_least(self, points: _Floats, heights: _Floats) -> _Floats:
        """c_ij - heights_j of every point at some cell j, the best one but for the point's place within its row."""
        y, x = self.axes
        inner = np.clip(np.floor(points[:, 1] / self.side), 0, len(y) - 1).astype(np.int32)
        best = np.zeros(self.cells, dtype=np.int32)
        for row in np.unique(inner):  # in each column the best cell as seen from this row
            best[row] = (np.square(y - y[row])[:, None] - heights).argmin(0)
        rows = best[inner]
        costs = np.square(y[rows] - points[:, 1:]) + np.square(x - points[:, :1])
        found: _Floats = (costs - heights[rows, np.arange(len(x))]).min(1)
        return found

    def _centres(self, which: NDArray[np.bool_]) -> _Floats:
        """Centres of some cells, (k, 2) as (x, y)."""
        row, column = which.nonzero()
        return np.stack([self.axes[1][column], self.axes[0][row]], 1)


def _least(queries: _Floats, sites: _Floats, heights: _Floats) -> _Floats:
    """min_i |q - s_i|^2 - heights_i of every query.

    The nearest neighbour by a k-d tree, with sqrt(max(heights) - heights) as a third coordinate of the sites.
    """
    from scipy.spatial import cKDTree

    top = heights.max()
    tree = cKDTree(np.column_stack([sites, np.sqrt(top - heights)]))
    distance, _ = tree.query(np.column_stack([queries, np.zeros(len(queries))]))
    found: _Floats = np.square(np.asarray(distance)) - top
    return found
