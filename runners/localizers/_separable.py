"""Sinkhorn steps on a whole grid of cells as matrix products: cheap while the entropy's strength eps is large.

With squared distances the kernel factorises, exp(-|x - y|^2 / (2 v eps)) = exp(-(x_1 - y_1)^2 / (2 v eps)) exp(-(x_2 -
y_2)^2 / (2 v eps)), so that both log-sum-exps of a step are two products of n x h and n x w matrices instead of N n
exponentials: 4 n h w multiplications. While eps is very large each factor is moreover a short Chebyshev series in the
point's coordinate, of p terms: 4 n p^2.

Both sums are scaled by one number only, so they may underflow where a potential varies by more than the range of
float64. That is checked afterwards, on the sums themselves, and a step that fails is refused.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXPONENT_FLOOR", "Array", "Separable", "Step", "chebyshev_terms"]

Array = NDArray[np.float64]
Step = tuple[Array, Array]
"""New potentials (f over cells, g over points)."""

EXPONENT_FLOOR = -575.0
"""Exponents are floored at 1e-250: underflow is slow, and two factors of that size may still be multiplied."""
_LEAST_SUM = 1e-225
"""A sum above this, per term, owes nothing to terms of the floor's size, to 1e-25."""
_LEAST_SHARE = 1e-3
"""Series have an absolute error of 1e-16 of the sum of all weights: sums must be at least this share of it."""
_SERIES_ERROR = 1e-17
_SLAB = 1024
"""Points at once: their kernels of 128 rows take 1 MB."""
_KEPT_TERMS = 64
"""Polynomials up to this degree are kept between steps: 1 KB a point."""


class Separable:
    """Steps between all points and all cells, by products of row and column kernels.

    Points are taken in slabs, so that memory beside the potentials is a few MB whatever their number.

    Args:
        centres: [N, 2], (x, y) of the cells with mass, which lie on a grid.
        mass: [N], positive.
        points: [n, 2].
        variance: v; the cost is |x - y|^2 / (2 v).
    """

    def __init__(self, centres: Array, mass: Array, points: Array, variance: float) -> None:
        self._mass, self._variance, self._count = mass, variance, len(points)
        rows, row = np.unique(centres[:, 1], return_inverse=True)
        columns, column = np.unique(centres[:, 0], return_inverse=True)
        self._place = row * len(columns) + column
        self._axes = (_Axis(rows, points[:, 1]), _Axis(columns, points[:, 0]))
        self._grid = np.zeros((len(rows), len(columns)))

    def seconds(self) -> float:
        """What a step costs, from counted operations at the speed of an ordinary core."""
        height, width = self._grid.shape
        return self._count * (4 * height * width / 4e10 + 3e-9 * (height + width)) + 3e-8 * len(self._mass) + 1e-5

    def step(self, f: Array, g: Array, eps: float) -> Step | None:
        """Both soft c-transforms at once, from the old potentials; None if they could not be exact in float64."""
        spread = self._variance * eps
        found = None
        if all(axis.terms(spread) for axis in self._axes):
            found = self._step(f, g, eps, series=True)
        return self._step(f, g, eps, series=False) if found is None else found

    def _step(self, f: Array, g: Array, eps: float, *, series: bool) -> Step | None:
        f_most, g_most = float(f.max()), float(g.max())
        self._grid.ravel()[self._place] = self._mass * np.exp(np.maximum((f - f_most) / eps, EXPONENT_FLOOR))
        weights = np.exp(np.maximum((g - g_most) / eps, EXPONENT_FLOOR))
        sums = self._by_series if series else self._by_kernels
        at_cells, at_points = sums(weights, self._variance * eps)
        at_cells = at_cells.ravel().take(self._place)
        if series:
            enough = at_cells.min() > _LEAST_SHARE * weights.sum() and at_points.min() > _LEAST_SHARE * self._grid.sum()
        else:
            enough = at_cells.min() > _LEAST_SUM * self._count and at_points.min() > _LEAST_SUM * self._mass.sum()
        if not enough:
            return None
        return -g_most - eps * np.log(at_cells), -f_most - eps * np.log(at_points)

    def _by_kernels(self, weights: Array, spread: float) -> tuple[Array, Array]:
        """Sums at the grid's cells [h, w] and at the points [n]."""
        at_cells, at_points = np.zeros_like(self._grid), np.empty_like(weights)
        for part in _slabs(self._count):
            rows, columns = (axis.kernel(part, spread) for axis in self._axes)
            at_points[part] = np.einsum("jc,jc->j", rows @ self._grid, columns)
            columns *= weights[part, None]
            at_cells += rows.T @ columns
        return at_cells, at_points

    def _by_series(self, weights: Array, spread: float) -> tuple[Array, Array]:
        """The same by the kernels' Chebyshev series."""
        of_rows, of_columns = (axis.coefficients(spread) for axis in self._axes)
        inner = np.zeros((len(of_rows), len(of_columns)))
        outer = of_rows @ self._grid @ of_columns.T
        at_points = np.empty_like(weights)
        for part in _slabs(self._count):
            rows = self._axes[0].polynomials(part, len(of_rows))
            columns = self._axes[1].polynomials(part, len(of_columns))
            at_points[part] = np.einsum("jc,jc->j", rows @ outer, columns)
            inner += rows.T @ (weights[part, None] * columns)
        return of_rows.T @ inner @ of_columns, at_points


class _Axis:
    """One axis: grid coordinates [h] against the points' [n]."""

    def __init__(self, grid: Array, points: Array) -> None:
        self._grid, self._points = grid, np.ascontiguousarray(points)
        self._middle, self._half = (points.max() + points.min()) / 2, max(float(np.ptp(points)) / 2, 1e-6)
        self._angle = np.arccos(np.clip((points - self._middle) / self._half, -1, 1))
        self._known: dict[int, Array] = {}

    def kernel(self, part: slice, spread: float) -> Array:
        """exp(-(y_j - x_r)^2 / (2 spread)) of a slab of points, [k, h]."""
        kernel = np.subtract.outer(self._points[part], self._grid)
        kernel *= kernel
        kernel *= -0.5 / spread
        return np.exp(np.maximum(kernel, EXPONENT_FLOOR, out=kernel), out=kernel)

    def terms(self, spread: float) -> int:
        """Terms of the series, or 0 where it would not pay: it needs half the products, and the coefficients."""
        found = chebyshev_terms(round(float(self._half / np.sqrt(spread)), 6))
        return found if found <= len(self._grid) // 2 and 4 * found <= len(self._points) else 0

    def coefficients(self, spread: float) -> Array:
        """Of the kernel's series, for every row of the grid: [p, h]."""
        terms = self.terms(spread)
        angles = (np.arange(terms) + 0.5) * np.pi / terms
        nodes = np.subtract.outer(self._middle + self._half * np.cos(angles), self._grid)
        transform = np.cos(np.outer(np.arange(terms), angles)) * (2 / terms)
        transform[0] /= 2
        return transform @ np.exp(np.maximum(nodes**2 / (-2 * spread), EXPONENT_FLOOR))

    def polynomials(self, part: slice, terms: int) -> Array:
        """Chebyshev polynomials at a slab of points, [k, p]. Those of few terms are kept: they serve many steps."""
        if terms > _KEPT_TERMS:
            return np.cos(np.multiply.outer(self._angle[part], np.arange(terms)))
        if part.start not in self._known:
            self._known[part.start] = np.cos(np.multiply.outer(self._angle[part], np.arange(_KEPT_TERMS)))
        return self._known[part.start][:, :terms]


def _slabs(count: int) -> list[slice]:
    return [slice(start, min(start + _SLAB, count)) for start in range(0, count, _SLAB)]


@lru_cache(maxsize=4096)
def chebyshev_terms(ratio: float) -> int:
    """Terms that interpolate exp(-(t - c)^2 / 2) on |t| <= ratio to 1e-17, whatever c.

    By the bound 4 M rho^(1 - p) / (rho - 1) for p Chebyshev nodes and a function that is at most M on the ellipse of
    Bernstein of sum rho of its half axes, whose half height is ratio (rho - 1 / rho) / 2: there M = exp(half height^2 /
    2). The best rho is taken (Trefethen: Approximation Theory and Approximation Practice, theorem 8.2).
    """
    rho = 1 + np.geomspace(1e-2, 1e4, 400)
    height = ratio * (rho - 1 / rho) / 2
    needed = 1 + (np.log(4 / (rho - 1)) + height**2 / 2 - np.log(_SERIES_ERROR)) / np.log(rho)
    return max(2, int(np.ceil(needed.min())))
