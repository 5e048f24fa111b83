"""GL's transport on the CPU: unbalanced Sinkhorn steps between points and cells, with a kernel that is never stored.

A step needs the sums over cells and over points of K_ij = exp((f_i + g_j - C_ij) / eps), C_ij a cost that grows with
the distance. Both come from one sweep over the map, in which the costs and exponentials of a run of cells are a few
dozen vector instructions: they are made again in every step, and memory is O(n + h w).

**What is left out.** Entries below `lost`, or rather: of every row of a tile, the cells where K_ij would be below it at
the largest g of the tile. That would add at most lost * sum(b) to any sum over cells, and at most lost * sum(a) to any
sum over points. A sum beside which this is more than `eps`, a sixteenth of a rounding of the density's dtype, is made
again, with its largest entry scaled to 1. So every sum is complete to `eps`, whatever the potentials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numba.extending import overload
from numpy.typing import NDArray

from losses.transport.compiled import allowing, compiled
from losses.transport.costs import PLAN_FLOOR, DistanceCost

__all__ = ["Duals", "Plane"]

_Floats = NDArray[Any]
_Doubles = NDArray[np.float64]
_Which = NDArray[np.bool_]

_ROWS, _COLUMNS, _VECTOR = 16, 64, 16
"""Cells of a tile, and of a step along its rows: as many as the widest vectors have."""
_U = np.uintp
"""Unsigned: a signed index would be tested for being counted from the end."""
_POINTS = 64
"""After so many points a tile's sums over points are added to those in float64; those over its cells are at once."""
_LEAST = 1e-8
"""Sums above this are complete at once, unless there is more mass than the exponents of the dtype can tell."""
_ROUNDINGS = 64
"""How far off a price or a distance may be, in roundings: there are fewer than twenty in either."""
_NOWHERE = -1e30
"""The potential of who does not take part."""
_RANGE = 0.8
"""Entries are kept within this share of the exponents of their dtype, so that sums of them stay numbers."""
_WORTH_A_THREAD = 1 << 21
"""Pairs for which a thread is started: about a millisecond's."""
_LOG2E = math.log2(math.e)


class Duals(NamedTuple):
    """Potentials of the points, (n,), and of the cells, (h, w)."""

    f: _Doubles
    g: _Doubles


class Plane:
    """Points, cells and the cost between them.

    Args:
        points: (n, 2) as (x, y), n >= 1; their dtype is that of the entries.
        axes: y of the rows (h,) and x of the columns (w,), equally spaced, in the unit and dtype of the points.
        cost: In the same unit.
    """

    def __init__(self, points: _Floats, axes: tuple[_Floats, _Floats], cost: DistanceCost) -> None:
        self.dtype = points.dtype
        self.eps = float(np.finfo(points.dtype).eps) / 16
        self.most = _RANGE * np.finfo(points.dtype).maxexp
        self.cells = (len(axes[0]), len(axes[1]))
        self.pairs = (points[:, 0].copy(), points[:, 1].copy(), *axes, self._numbers(cost))

    def solve(self, log_b: _Floats, schedule: Sequence[float], reach: float) -> Duals:
        """Potentials of min <P, C> + eps KL(P | b) + reach (KL(P 1 | 1) + KL(P'1 | b)), while eps falls step by step.

        Every point has mass 1. Both sides are updated at once and averaged with their old values at every step; a last
        step, not averaged, follows at the last eps.

        Args:
            log_b: (h, w) log masses of the cells.
            schedule: Strengths of the entropy in the order of their use, see `losses.transport.epsilon_schedule`.
            reach: Price of leaving a unit of mass behind.
        """
        log_b = log_b.astype(np.float64)
        f, g = self._step(np.zeros(self._n), np.zeros(self.cells), log_b, schedule[0], reach)
        for eps in schedule:
            next_f, next_g = self._step(f, g, log_b, eps, reach)
            f, g = (f + next_f) / 2, (g + next_g) / 2
        return self._step(f, g, log_b, schedule[-1], reach)

    def sums(self, duals: Duals, density: _Floats, eps: float) -> tuple[_Doubles, _Doubles]:
        """The sums over cells of K_ij d_j, (n,), and over points of K_ij, (h, w)."""
        a = np.ones(self._n)
        return self._sums(duals, a, density, eps, self._unseen(a, density), scaled=True)

    def entropy(self, duals: Duals, a: _Floats, density: _Floats, eps: float) -> tuple[float, _Doubles, _Doubles]:
        """The entropy of the plan P_ij = K_ij d_j, its slope, and a sum with weights a (n,) of the points.

        Returns:
            The sum of (P + 1e-20) log(P + 1e-20); its derivative in the density at constant K, (h, w); and the sum over
            points of a_i K_ij, (h, w).
        """
        slope, lost = np.zeros(self._padded(density).shape), self._unseen(a, density)
        points, cells = self._sums(duals, a, density, eps, lost, scaled=True, slope=slope)
        return float(points.sum()), self._inside(slope), cells

    @property
    def _n(self) -> int:
        return len(self.pairs[0])

    # -----------------------------------------------------------------------------------------------------------------
    # Steps.

    @np.errstate(divide="ignore", invalid="ignore")  # sums that are made again, and densities that have diverged
    def _step(self, f: _Doubles, g: _Doubles, log_b: _Doubles, eps: float, reach: float) -> Duals:
        """-eps log sum_j b_j exp((g_j - C_ij) / eps) and -eps log sum_i exp((f_i - C_ij) / eps), damped.

        The first is f_i - eps log (K b)_i, the second g_j - eps log (K'1)_j. Potentials of a step before keep these
        sums moderate as a rule.
        """
        # Rounded once, so that what is added to the logarithms is what has been in the sums.
        f, g, b = (value.astype(self.dtype).astype(np.float64) for value in (f, g, np.exp(log_b)))
        heaviest = max(self._n, float(b.sum()))
        lost = max(self.eps * _LEAST / heaviest, 2**-self.most)
        least = lost * heaviest / self.eps
        rows, columns = self._sums(Duals(f, g), np.ones(self._n), b, eps, lost)
        next_f, next_g = f - eps * np.log(rows), g - eps * np.log(columns)
        left = self._doubtful(rows, least)
        if left.any():
            next_f[left] = self._from_cells(left, g + eps * log_b, eps)
        left = self._doubtful(columns, least)
        if left.any():
            next_g[left] = self._from_points(f, left, eps)
        damping = 1 / (1 + eps / reach)
        return Duals(damping * next_f, damping * next_g)

    def _doubtful(self, sums: _Doubles, least: float) -> _Which:
        """Sums that may lack something, or have an entry that was cut."""
        return ~((sums >= least) & (sums < 2**self.most))

    def _from_cells(self, which: _Which, g: _Doubles, eps: float) -> _Doubles:
        """-eps log sum_j exp((g_j - C_ij) / eps) of some points, whatever its range."""
        least, _ = self._least(np.where(which, 0, _NOWHERE), g)
        f, ones = np.where(which, least, _NOWHERE), np.ones(self._n)
        rows, _ = self._sums(Duals(f, g), ones, np.ones(self.cells), eps, self.eps / g.size, scaled=True)
        found: _Doubles = f[which] - eps * np.log(rows[which])
        return found

    def _from_points(self, f: _Doubles, which: _Which, eps: float) -> _Doubles:
        """-eps log sum_i exp((f_i - C_ij) / eps) of some cells, whatever its range."""
        _, least = self._least(f, np.where(which, 0, _NOWHERE))
        g, ones = np.where(which, least, _NOWHERE), np.ones(self._n)
        _, columns = self._sums(Duals(f, g), ones, np.ones(self.cells), eps, self.eps / len(f), scaled=True)
        found: _Doubles = g[which] - eps * np.log(columns[which])
        return found

    # -----------------------------------------------------------------------------------------------------------------
    # Sweeps.

    def _sums(
        self, duals: Duals, a: _Floats, b: _Floats, eps: float, lost: float, *, scaled: bool = False,
        slope: _Doubles | None = None,
    ) -> tuple[_Doubles, _Doubles]:  # fmt: skip
        """What `_sweep` finds of points (n,) and of cells (h, w); `scaled`: who asks knows that nothing overflows."""
        f, g = self._numbers(duals.f), self._padded(duals.g, _NOWHERE)
        top = g.reshape(g.shape[0] // _ROWS, _ROWS, -1, _COLUMNS).max((1, 3))
        unit = eps * math.log(2)
        risky = math.inf if scaled else _RANGE * self.most * unit
        slack, loose = -eps * math.log(lost), _ROUNDINGS * float(np.finfo(self.dtype).eps)
        scales = self._numbers([1 / unit, slack, risky, -self.most, self.most, _LOG2E, loose])
        cells = np.zeros(g.shape)
        nothing = np.zeros((0, 0)) if slope is None else slope
        x, y, ys, xs, cost = self.pairs
        a, b = self._numbers(a), self._padded(b)

        def sweep(strip: slice) -> _Doubles:
            """A strip of the map, in tiles."""
            rows, sums = slice(strip.start * _ROWS, strip.stop * _ROWS), np.zeros(self._n)
            there = f, g[rows], top[strip], a, b[rows], scales
            _sweep(x, y, ys[rows], xs, cost, *there, sums, cells[rows], nothing[rows])
            return sums

        # Sums of points are added up in the order of the strips: the same bits whenever there are as many threads.
        strips = self._strips(len(top))
        if len(strips) == 1:
            return sweep(strips[0]), self._inside(cells)
        with ThreadPoolExecutor(len(strips)) as pool:
            return np.sum([*pool.map(sweep, strips)], axis=0), self._inside(cells)

    def _strips(self, rows: int) -> list[slice]:
        """The map's rows of tiles, cut into one strip for each of torch's threads where there is work for them."""
        work = self._n * math.prod(self.cells) // _WORTH_A_THREAD
        count = max(1, min(torch.get_num_threads(), rows, work))
        ends = [rows * k // count for k in range(count + 1)]
        return [slice(start, end) for start, end in pairwise(ends)]

    def _least(self, f: _Floats, g: _Floats) -> tuple[_Floats, _Floats]:
        """min_j C_ij - g_j of the points, (n,), and min_i C_ij - f_i of the cells, (h, w)."""
        points, cells = np.full(self._n, np.inf, self.dtype), np.full(self.cells, np.inf, self.dtype)
        _least(*self.pairs, self._numbers(f), self._numbers(g), self.dtype.type(_LOG2E), points, cells)
        return points, cells

    def _unseen(self, a: _Floats, density: _Floats) -> float:
        """What an entry of the plan per unit of density may lack: sums are complete to a rounding of one person."""
        total = max(self._n, float(np.abs(a).sum()), float(density.sum(dtype=np.float64)))
        return max(self.eps / total, 2**-self.most)

    def _padded(self, values: _Floats, empty: float = 0.0) -> _Floats:
        """A map with whole tiles, in the dtype of the entries."""
        h, w = self.cells
        found: _Floats = np.full((h + -h % _ROWS, w + -w % _COLUMNS), empty, self.dtype)
        found[:h, :w] = values
        return found

    def _numbers(self, values: Any) -> _Floats:
        """An array in the dtype of the entries."""
        return np.asarray(values, self.dtype)

    def _inside(self, values: _Doubles) -> _Doubles:
        """A map without its padding."""
        return values[: self.cells[0], : self.cells[1]]


# ---------------------------------------------------------------------------------------------------------------------
# Exponential and logarithm as series between the powers of two: loops with them become vector instructions, which
# calls of a library would not.


def _power(number: Any) -> Any:
    """(s, q) with 2^number = s (1 + q), s a power of two and |q| < 0.42; number and s within the normal numbers."""
    raise NotImplementedError("for compiled code only")


def _log(number: Any) -> Any:
    """The natural logarithm of a normal positive number."""
    raise NotImplementedError("for compiled code only")


def _powers(dtype: type[np.floating[Any]], terms: int) -> tuple[np.floating[Any], ...]:
    """The coefficients of 2^r - 1 = log(2) r + log(2)^2 / 2 r^2 + ..."""
    return tuple(dtype(math.log(2) ** k / math.factorial(k)) for k in range(1, terms + 1))


def _logs(dtype: type[np.floating[Any]], terms: int) -> tuple[np.floating[Any], ...]:
    """The coefficients of log((1 + r) / (1 - r)) = 2 r + 2/3 r^3 + ..."""
    return tuple(dtype(2 / (2 * k + 1)) for k in range(terms))


_POWERS_32, _POWERS_64 = _powers(np.float32, 7), _powers(np.float64, 13)
"""So many that the next term, at r = 1/2, is below half a rounding."""
_LOGS_32, _LOGS_64 = _logs(np.float32, 5), _logs(np.float64, 11)
"""Likewise at r = 0.172."""
_NEXT_32, _NEXT_64 = np.float32(1.5 * 2**23), np.float64(1.5 * 2**52)
"""Added to a number this rounds it to an integer, which then is in the last bits."""
_LOG2_32, _LOG2_64 = np.float32(math.log(2)), np.float64(math.log(2))


@overload(_power, jit_options={"fastmath": {"contract"}})  # type: ignore[untyped-decorator]
def _power_for(number: Any) -> Any:
    if number.bitwidth == 32:

        def power(number: Any) -> Any:
            shifted = np.float32(number + _NEXT_32)
            r = number - (shifted - _NEXT_32)
            s = np.int32((shifted.view(np.int32) << 23) + 0x3F800000).view(np.float32)
            a, b, c, d, e, f, g = _POWERS_32
            return s, r * (a + r * (b + r * (c + r * (d + r * (e + r * (f + r * g))))))
    else:

        def power(number: Any) -> Any:
            shifted = np.float64(number + _NEXT_64)
            r = number - (shifted - _NEXT_64)
            s = np.int64((shifted.view(np.int64) << 52) + 0x3FF0000000000000).view(np.float64)
            a, b, c, d, e, f, g, h, i, j, k, m, n = _POWERS_64
            q = f + r * (g + r * (h + r * (i + r * (j + r * (k + r * (m + r * n))))))
            return s, r * (a + r * (b + r * (c + r * (d + r * (e + r * q)))))

    return power


@overload(_log, jit_options={"fastmath": {"contract"}})  # type: ignore[untyped-decorator]
def _log_for(number: Any) -> Any:
    if number.bitwidth == 32:

        def log(number: Any) -> Any:
            bits = np.float32(number).view(np.int32)
            k = np.int32((bits - 0x3F3504F3) >> 23)  # of the power of two that leaves 1/sqrt(2) to sqrt(2)
            part = np.int32(bits - (k << 23)).view(np.float32)
            r = (part - np.float32(1)) / (part + np.float32(1))
            t, (a, b, c, d, e) = r * r, _LOGS_32
            return np.float32(k) * _LOG2_32 + r * (a + t * (b + t * (c + t * (d + t * e))))
    else:

        def log(number: Any) -> Any:
            bits = np.float64(number).view(np.int64)
            k = np.int64((bits - 0x3FE6A09E667F3BCD) >> 52)
            part = np.int64(bits - (k << 52)).view(np.float64)
            r = (part - 1.0) / (part + 1.0)
            t, (a, b, c, d, e, f, g, h, i, j, m) = r * r, _LOGS_64
            q = e + t * (f + t * (g + t * (h + t * (i + t * (j + t * m)))))
            return np.float64(k) * _LOG2_64 + r * (a + t * (b + t * (c + t * (d + t * q))))

    return log


# ---------------------------------------------------------------------------------------------------------------------
# Sweeps over all pairs.


@allowing("contract")
def _price(dx: float, dy2: float, closer: float, most: float, unit: float) -> float:
    """exp(min(r / z, most)) - 1 of a pair, closer = 1 / z; `unit` is log2(e). Small prices keep all their digits."""
    power, more = _power(min(math.sqrt(dx * dx + dy2) * closer, most) * unit)
    price: float = power * more + (power - power / power)
    return price


@allowing("contract")
def _entry(exponent: float, low: float, high: float) -> float:
    """2^exponent, within 2^low and 2^high."""
    power, more = _power(min(max(exponent, low), high))
    entry: float = power + power * more
    return entry


@allowing("contract")
def _distance(price: float, most: float, dearest: float) -> float:
    """The least r / z at which a pair costs this much; infinity where none does, 0 where all do."""
    if price < dearest:
        return math.log1p(max(price, price * 0))
    return most / (most * 0)


@compiled
def _run(start: float, end: float, width: int) -> tuple[np.uintp, np.uintp]:
    """The vectors of a row that hold its cells from `start` to `end`: the first cell, and that after the last."""
    first = _U(max(start, start * 0)) // _U(_VECTOR) * _U(_VECTOR)
    last = (_U(min(max(end, end * 0), width)) + _U(_VECTOR)) // _U(_VECTOR) * _U(_VECTOR)
    return first, min(last, _U(width + -width % _VECTOR))


@allowing("contract", "reassoc")
def _sweep(
    x: _Floats, y: _Floats, ys: _Floats, xs: _Floats, cost: _Floats, f: _Floats, g: _Floats, top: _Floats, a: _Floats,
    b: _Floats, scales: _Floats, points: _Doubles, cells: _Doubles, slope: _Doubles,
) -> None:  # fmt: skip
    """Adds the sum over cells of K_ij b_j to `points`, and the sum over points of a_i K_ij to `cells`.

    With a `slope` of the size of the map, adds the sum over cells of P log P with P = K_ij b_j + 1e-20 to `points`
    instead, and the sum over points of (log P + 1) K_ij to `slope`. Where entries overflow, a sum is NaN or huge.

    Args:
        x: (n,), of the points; so are y, f and a.
        y: See there.
        ys: (h,), of the cells.
        xs: (w,), equally spaced.
        cost: The numbers of a `DistanceCost`.
        f: Potentials.
        g: (H, W) potentials; H and W are h and w rounded up to whole tiles.
        top: (H / 16, W / 64), the largest of each tile.
        a: Weights.
        b: (H, W) weights.
        scales: 1 / (eps log 2); the slack: entries with f_i + g_j - C_ij below its negative may be left out; the limit
            above which entries may overflow; the least and the largest exponent of 2 that they get; log2(e); and some
            roundings, as a share.
        points: (n,), see above.
        cells: (H, W), see above.
        slope: (H, W) or empty.
    """
    number, entropy = x.dtype.type, len(slope) > 0
    none, one, trace = number(0), number(1), number(PLAN_FLOOR)
    # One by one: unpacked together they keep the compiler from making vectors (measured).
    tilt, offset, thinnest, most = cost[0], cost[1], cost[2], cost[3]
    unit, slack, risky, low, high, log2e = scales[0], scales[1], scales[2], scales[3], scales[4], scales[5]
    loose = scales[6]
    dearest = number(math.expm1(most))
    spacing = xs[1] - xs[0] if len(xs) > 1 else one
    # What belongs to a tile lies in one array at fixed distances, so the compiler sees that nothing overlaps.
    board = np.zeros((5 * _ROWS, _COLUMNS), x.dtype)
    place, there, mass, pull, tilted = 0, _ROWS, 2 * _ROWS, 3 * _ROWS, 4 * _ROWS
    for row in range(0, g.shape[0], _ROWS):
        for column in range(0, g.shape[1], _COLUMNS):
            height, width = min(_ROWS, len(ys) - row), min(_COLUMNS, len(xs) - column)
            for down in range(height):
                board[place + down, :width] = xs[column : column + width]
            board[there:mass] = g[row : row + _ROWS, column : column + _COLUMNS]
            board[mass:pull] = b[row : row + _ROWS, column : column + _COLUMNS]
            board[pull:] = 0
            left, right = xs[column], xs[column + width - 1]
            for i in range(len(x)):
                px, py, weight, highest = x[i], y[i], a[i], f[i] + top[row // _ROWS, column // _COLUMNS]
                # Potentials and prices are rounded: of those that are large, more is let through.
                wider = slack + loose * (one + abs(f[i]) + abs(highest))
                if highest + wider > 0:
                    far = number(_distance(highest + wider, most, dearest)) * (one + loose)
                    near = number(_distance(highest + wider - slack - risky, most, dearest)) * (one + loose)
                    aside, across = max(none, left - px, px - right), max(px - left, right - px)
                    total = none
                    for down in range(height):
                        dy2 = (ys[row + down] - py) * (ys[row + down] - py)
                        z = max(tilt * (ys[row + down] + py) + offset, thinnest)
                        reach2, least2 = far * z * (far * z), dy2 + aside * aside
                        if least2 > reach2:
                            continue
                        if least2 < near * z * (near * z):
                            points[i] = np.nan
                        first, last = _U(0), _U(width + -width % _VECTOR)
                        if dy2 + across * across > reach2:
                            half = math.sqrt(max(none, reach2 - dy2))
                            first, last = _run((px - left - half) / spacing, (px - left + half) / spacing, width)
                        closer, part = one / z, none
                        if entropy:
                            for cell in range(first, last):
                                price = _price(board[_U(place + down), cell] - px, dy2, closer, most, log2e)
                                entry = _entry((f[i] + board[_U(there + down), cell] - price) * unit, low, high)
                                board[_U(pull + down), cell] += weight * entry
                                plan = entry * board[_U(mass + down), cell] + trace
                                log_plan = _log(plan)
                                board[_U(tilted + down), cell] += (log_plan + one) * entry
                                part += plan * log_plan
                        else:
                            for cell in range(first, last):
                                price = _price(board[_U(place + down), cell] - px, dy2, closer, most, log2e)
                                entry = _entry((f[i] + board[_U(there + down), cell] - price) * unit, low, high)
                                board[_U(pull + down), cell] += weight * entry
                                part += entry * board[_U(mass + down), cell]
                        total += part
                    points[i] += total
                if i % _POINTS == _POINTS - 1 or i == len(x) - 1:
                    cells[row : row + _ROWS, column : column + _COLUMNS] += board[pull:tilted]
                    if entropy:
                        slope[row : row + _ROWS, column : column + _COLUMNS] += board[tilted:]
                    board[pull:] = 0


@allowing("contract")
def _least(
    x: _Floats, y: _Floats, ys: _Floats, xs: _Floats, cost: _Floats, f: _Floats, g: _Floats, log2e: float,
    points: _Floats, cells: _Floats,
) -> None:  # fmt: skip
    """Lowers `points` to min_j C_ij - g_j and `cells` to min_i C_ij - f_i; arguments as of `_sweep`, g (h, w).

    Points whose f is `_NOWHERE` are passed by.
    """
    for i in range(len(x)):
        if f[i] <= x.dtype.type(_NOWHERE):
            continue
        for row in range(len(ys)):
            dy2 = (ys[row] - y[i]) * (ys[row] - y[i])
            closer = 1 / max(cost[0] * (ys[row] + y[i]) + cost[1], cost[2])
            for column in range(len(xs)):
                price = _price(xs[column] - x[i], dy2, x.dtype.type(closer), cost[3], log2e)
                points[i] = min(points[i], price - g[row, column])
                cells[row, column] = min(cells[row, column], price - f[i])
