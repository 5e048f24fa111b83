"""What the proximal view claims, checked on random cells and crowds: each proposition with its worst numerical error.

The closed forms of `losses.proximal` are held against things that do not share their algebra: scipy's constrained
optimisers, POT, enumeration, automatic and finite differences, and the zoo's losses themselves. All in float64.
Two rows are measurements, not propositions: how far a loss of the zoo is from its one-cell row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import ot
import torch
from scipy import optimize
from torch import Tensor

import losses
from losses import Prediction, Target, proximal
from losses.bl import BL
from losses.geometry import cell_centres
from losses.proximal import Cell

__all__ = ["Proposition", "propositions"]

_SOLVER, _EXACT, _STEP = 1e-6, 1e-9, 1e-6
"""Tolerances of scipy's solvers and of finite differences, and of rounding; the step of a finite difference."""
_SIDE, _STRIDE, _WHOLE = 64, 8, 512
"""Pixels: of the crowds, of a cell, and the shorter side of the image that a crowd is a crop of, which BL asks for."""


class Proposition(NamedTuple):
    """A claim and how it fared.

    Attributes:
        name: Short.
        statement: In one line.
        worst: Largest error over all cases; of a measurement the largest relative distance of two gradients.
        median: Of the cases' largest errors.
        tolerance: What `worst` must stay below; None for a measurement.
        cases: Random cells or crowds.
    """

    name: str
    statement: str
    worst: float
    median: float
    tolerance: float | None
    cases: int

    @property
    def holds(self) -> bool | None:
        """Whether it held in every case; None for a measurement."""
        return None if self.tolerance is None else self.worst <= self.tolerance


def propositions(seed: int = 0, cases: int = 25) -> list[Proposition]:
    """Checks every proposition on `cases` random cells, and on `cases` crowds those about whole images.

    Args:
        seed: Of the cells and crowds.
        cases: How many of each, at least 1.

    Raises:
        ValueError: If `cases` is below 1.
    """
    if cases < 1:
        raise ValueError(f"cases must be at least 1; found {cases}")
    made: list[Proposition] = []
    for name, statement, tolerance, errors in _CLAIMS:
        rng = np.random.default_rng([seed, len(made)])
        found = [max(errors(rng)) for _ in range(cases)]
        made.append(Proposition(name, statement, float(max(found)), float(np.median(found)), tolerance, cases))
    return made


# ---------------------------------------------------------------------------------------------------------------------
# Random cells and crowds


class _Case(NamedTuple):
    """One cell: density, cost, background posterior, tau."""

    density: Tensor
    cost: Tensor
    tau: float


def _cell(rng: np.random.Generator) -> _Case:
    """A cell of 2 to 12 density cells that counts 0.2 to 3, costs in [0, 2], tau in [0.05, 20]."""
    count = int(rng.integers(2, 13))
    density = rng.dirichlet(np.full(count, 0.8)) * rng.uniform(0.2, 3.0) + 1e-6
    return _Case(torch.tensor(density), torch.tensor(rng.uniform(0, 2, count)), float(np.exp(rng.uniform(-3, 3))))


def _crowd(
    rng: np.random.Generator, heads: int | None = None, counted: tuple[float, float] = (0.4, 2.0)
) -> tuple[Tensor, Tensor]:
    """Density (h, w) and heads (n, 2) of a random crowd on `_SIDE` pixels; `counted` people a head."""
    count = heads or int(rng.integers(1, 9))
    cells = _SIDE // _STRIDE
    density = rng.dirichlet(np.ones(cells * cells)) * count * rng.uniform(*counted)
    return torch.tensor(density).view(cells, cells), torch.tensor(rng.uniform(0, _SIDE, (count, 2)))


def _gradient(name: str, density: Tensor, points: Tensor, **params: object) -> Tensor:
    """The zoo's gradient on one image, (h w,)."""
    prediction = Prediction(_STRIDE, density=density[None, None])
    target = Target([points], (_SIDE, _SIDE), short_side=density.new_tensor([_WHOLE]))
    (found,) = proximal.view(losses.build(name, **params), prediction, target)
    return found.gradient.flatten()


def _gap(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value where that is above 1."""
    scale = max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) / scale


def _distance(found: Tensor, expected: Tensor) -> float:
    """Relative distance of two gradients in the 2-norm."""
    return float((found - expected).norm() / expected.norm())


# ---------------------------------------------------------------------------------------------------------------------
# One cell against solvers and differences


def _rows(case: _Case) -> dict[str, Callable[[Tensor], Cell]]:
    """Every row as a function of the density alone."""
    cost, tau = case.cost, case.tau
    posterior = cost / 2
    return {
        "squared": lambda a: proximal.squared(a, cost, tau),
        "simplex": lambda a: proximal.squared(a, cost, tau, feasible="simplex"),
        "squared_l1": lambda a: proximal.squared_l1(a, cost, tau),
        "entropic": lambda a: proximal.entropic(a, cost, tau),
        "distribution": lambda a: proximal.distribution(a, cost, tau),
        "bregman": lambda a: proximal.distribution(a, cost, tau, count="bregman"),
        "matched": lambda a: proximal.matched(a, cost, tau),
        "bayesian": lambda a: proximal.bayesian(a, posterior),
        "gaussian": lambda a: proximal.gaussian(a, posterior),
    }


def _autograd(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    for row in _rows(case).values():
        density = case.density.clone().requires_grad_()
        found = row(density)
        yield _gap(torch.autograd.grad(found.value, density)[0], found.gradient.detach())


def _differences(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    for row in _rows(case).values():
        expected = row(case.density).gradient
        for place in range(len(case.density)):
            step = torch.zeros_like(case.density)
            step[place] = _STEP * float(case.density[place]) if float(case.density[place]) < _STEP else _STEP / 10
            slope = (row(case.density + step).value - row(case.density - step).value) / (2 * step[place])
            yield abs(float(slope - expected[place])) / max(1.0, float(expected.abs().max()))


def _envelope(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    for feasible in ("affine", "simplex"):
        found = proximal.squared(case.density, case.cost, case.tau, feasible=feasible)
        yield _gap(case.tau * (case.density - found.target), found.gradient)
    found = proximal.entropic(case.density, case.cost, case.tau)
    yield _gap(case.tau * (1 - found.target / case.density), found.gradient)
    found = proximal.squared_l1(case.density, case.cost, case.tau)
    tau = case.tau * len(case.density) / (case.density.sum() - 1).abs()
    yield _gap(tau * (case.density - found.target), found.gradient)
    found = proximal.bayesian(case.density, case.cost / 2)
    yield _gap(len(case.density) / (case.density.sum() - 1).abs() * (case.density - found.target), found.gradient)


def _solved(case: _Case, objective: Callable[[Any], float], slope: Callable[[Any], Any], positive: bool) -> np.ndarray:
    """The constrained minimum by scipy's SLSQP, started at the uniform target."""
    count = len(case.density)
    found = optimize.minimize(
        objective,
        np.full(count, 1 / count),
        jac=slope,
        method="SLSQP",
        constraints=optimize.LinearConstraint(np.ones((1, count)), 1, 1),
        bounds=optimize.Bounds(1e-14 if positive else -np.inf, np.inf),
        options={"ftol": 1e-15, "maxiter": 2000},
    )
    return np.asarray(found.x, float)


def _solver(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    a, c, tau = case.density.numpy(), case.cost.numpy(), case.tau

    def quadratic(p: np.ndarray) -> float:
        return float(c @ p + tau / 2 * np.square(p - a).sum()) / max(tau, 1.0)

    def quadratic_slope(p: np.ndarray) -> np.ndarray:
        return np.asarray((c + tau * (p - a)) / max(tau, 1.0))

    for feasible in ("affine", "simplex"):
        found = proximal.squared(case.density, case.cost, tau, feasible=feasible)
        solved = _solved(case, quadratic, quadratic_slope, positive=feasible == "simplex")
        yield _gap(found.target, torch.tensor(solved))
        yield abs(float(found.value) - quadratic(solved) * max(tau, 1.0)) / max(1.0, abs(float(found.value)))


def _pot(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    found = proximal.squared(case.density, case.cost, case.tau, feasible="simplex")
    projected = ot.utils.proj_simplex((case.density - case.cost / case.tau).numpy())
    yield _gap(found.target, torch.tensor(projected))


def _dual(rng: np.random.Generator) -> Iterator[float]:
    """The KL problem by its multiplier: p = a exp(-(c + m) / tau) with 1'p = 1, m by bracketing; and by SLSQP."""
    case = _cell(rng)
    a, c, tau = case.density.numpy(), case.cost.numpy(), case.tau
    found = proximal.entropic(case.density, case.cost, tau)

    def target(multiplier: float) -> np.ndarray:
        return np.asarray(a * np.exp(-(c + multiplier) / tau))

    multiplier = optimize.brentq(lambda m: target(m).sum() - 1, -2 - 60 * tau, 2 + 60 * tau, xtol=1e-14, rtol=1e-15)
    yield _gap(found.target, torch.tensor(target(float(multiplier))))
    solved = target(float(multiplier))
    value = c @ solved + tau * (solved * np.log(solved / a) - solved + a).sum()
    yield abs(float(found.value) - value) / max(1.0, abs(value))


def _kl_solver(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    a, c, tau = case.density.numpy(), case.cost.numpy(), max(case.tau, 0.3)

    def objective(p: np.ndarray) -> float:
        return float(c @ p + tau * (p * np.log(p / a) - p + a).sum())

    solved = _solved(case, objective, lambda p: np.asarray(c + tau * np.log(p / a)), positive=True)
    yield abs(objective(solved) - float(proximal.entropic(case.density, case.cost, tau).value))


def _enumerated(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    found = proximal.matched(case.density, case.cost, case.tau)
    count = len(case.density)
    values = [float(case.cost[k] + case.tau * (torch.eye(count)[k] - case.density).abs().sum()) for k in range(count)]
    yield abs(float(found.value) - min(values))
    yield 0.0 if values[int(found.target.argmax())] <= min(values) + 1e-12 else 1.0


def _p2p_form(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    density = case.density.clamp(max=1)
    found = proximal.matched(density, case.cost, case.tau)
    yield 0.0 if int((case.cost - 2 * case.tau * density).argmin()) == int(found.target.argmax()) else 1.0


# ---------------------------------------------------------------------------------------------------------------------
# Limits and equivalences


def _limit_large(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    a, tau = case.density, 1e9
    expected = a + (1 - a.sum()) / len(a)
    yield _gap(proximal.squared(a, case.cost, tau).target, expected)
    yield _gap(proximal.entropic(a, case.cost, tau).target, a / a.sum())


def _limit_value(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    a, tau = case.density, 1e5  # beyond, the difference of two numbers of size tau has no digits left
    row = (case.cost * a).sum() / a.sum() + tau * (a.sum() - 1 - a.sum().log())
    yield abs(float(proximal.entropic(a, case.cost, tau).value - row))


def _limit_small(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    cheapest = torch.zeros_like(case.cost)
    cheapest[case.cost.argmin()] = 1
    gap = float(case.cost.sort().values[1] - case.cost.min())
    yield _gap(proximal.squared(case.density, case.cost, gap / 1e3, feasible="simplex").target, cheapest)
    yield _gap(proximal.entropic(case.density, case.cost, gap / 1e3).target, cheapest)


def _diverges(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    tau = 1e-9
    grown = proximal.squared(case.density, case.cost, tau).target * tau
    yield _gap(grown, case.cost.mean() - case.cost)


def _equivalent(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    density = case.density.clone().requires_grad_()
    found = proximal.squared(density.detach(), case.cost, case.tau)
    assert found.filler is not None
    centred = case.cost - case.cost.mean()
    views = (
        case.tau / 2 * (density - found.target).square().sum(),
        (centred * density).sum() + case.tau / (2 * len(density)) * (density.sum() - 1).square(),
        ((case.cost - case.tau * found.filler) * density).sum(),
    )
    for each in views:
        yield _gap(torch.autograd.grad(each, density)[0], found.gradient)


def _factor_two(rng: np.random.Generator) -> Iterator[float]:
    case = _cell(rng)
    density = case.density.clone().requires_grad_()
    excess, count = density.sum() - 1, len(case.density)
    held = 2 / excess.abs().detach() / (2 * count) * excess.square()
    ratio = torch.autograd.grad(held, density)[0] / torch.autograd.grad((density.sum() - 1).abs() / count, density)[0]
    yield _gap(ratio, torch.full_like(ratio, 2.0))


# ---------------------------------------------------------------------------------------------------------------------
# The zoo on whole images


def _by_cells(density: Tensor, points: Tensor, offset: float, conquer: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Divides by brute force, conquers each head's cells: (h w,) gradient."""
    centres = cell_centres((density.shape[0], density.shape[1]), _STRIDE, density, offset=offset)
    distances = (centres.unsqueeze(1) - points).square().sum(-1).sqrt()
    owner, nearest = distances.argmin(1), distances.amin(1)
    flat, found = density.flatten(), torch.full_like(density.flatten(), torch.nan)
    for head in range(len(points)):
        own = owner == head
        if bool(own.any()):
            cost = torch.exp(nearest[own] / max(float(nearest[own].max()), 32.0)) - 1
            found[own] = conquer(flat[own], cost)
    return found


def _official_pml(rng: np.random.Generator) -> Iterator[float]:
    density, points = _crowd(rng)
    density = density * max(1.0, 1.01 / float(density.sum()))  # at most one person is its other branch

    def conquer(a: Tensor, c: Tensor) -> Tensor:
        return proximal.squared(a, c, len(a) / abs(float(a.sum()) - 1)).gradient

    expected = _by_cells(density, points, (_STRIDE - 1) / (2 * _STRIDE), conquer)
    yield _gap(_gradient("pml", density, points, variant="official", fallback_count="points"), expected)


def _paper_pml(rng: np.random.Generator) -> Iterator[float]:
    density, points = _crowd(rng)
    tau = float(rng.uniform(5, 50))
    l2 = _by_cells(density, points, 0.5, lambda a, c: proximal.squared(a, c, tau).gradient)
    yield _gap(_gradient("pml", density, points, count_norm="l2", tau=tau), l2)
    l1 = _by_cells(density, points, 0.5, lambda a, c: proximal.squared_l1(a, c, 2.0).gradient)
    yield _gap(_gradient("pml", density, points, count_weight=2.0), l1)


def _exact_transport(rng: np.random.Generator) -> Iterator[float]:
    density, points = _crowd(rng, heads=1)
    expected = _dm_row(density, points)
    for solver in ("exact", "stabilised", "pot"):
        yield _gap(_gradient("dm_count", density, points, solver=solver, tv_weight=0.0), expected)


def _dm_row(density: Tensor, points: Tensor) -> Tensor:
    """The row's gradient of DM-Count without its TV term: 0.1 OT in pixels^2 and the count."""
    centres = cell_centres((density.shape[0], density.shape[1]), _STRIDE, density)
    cost = 0.1 * (centres - points[0]).square().sum(1)
    return proximal.distribution(density.flatten(), cost).gradient


def _official_dm(rng: np.random.Generator) -> Iterator[float]:
    density, points = _crowd(rng, heads=1)
    found = _gradient("dm_count", density, points, variant="official", tv_weight=0.0)
    yield _distance(found, _dm_row(density, points))


def _rounds_of_dm(rng: np.random.Generator) -> Iterator[float]:
    density, points = _crowd(rng, heads=4)
    expected = _gradient("dm_count", density, points, solver="exact", tv_weight=0.0)
    yield _distance(_gradient("dm_count", density, points, solver="stabilised", tv_weight=0.0), expected)


def _under_bl(rng: np.random.Generator) -> Iterator[float]:
    yield _zoo_bl(*_crowd(rng, heads=1, counted=(0.3, 0.7)))


def _over_bl(rng: np.random.Generator) -> Iterator[float]:
    yield _zoo_bl(*_crowd(rng, heads=1, counted=(4.0, 6.0)))


def _zoo_bl(density: Tensor, points: Tensor) -> float:
    """How far the zoo's BL is from its row, both with the zoo's posterior of the background."""
    bl = BL()
    centres = cell_centres((density.shape[0], density.shape[1]), _STRIDE, density)
    distance = (centres - points[0]).square().sum(1).sqrt()
    dummy = (_WHOLE * bl.background_ratio - distance).clamp(min=0)
    evidence = torch.exp(-torch.stack([distance, dummy]).square() / (2 * bl.sigma**2))
    expected = proximal.bayesian(density.flatten(), evidence[1] / evidence.sum(0)).gradient
    return _distance(_gradient("bl", density, points), expected)


_Claim = tuple[str, str, float | None, Callable[[np.random.Generator], Iterator[float]]]
_CLAIMS: tuple[_Claim, ...] = (
    ("envelope theorem", "dL/da = tau dD(p*, a)/da: tau (a - p*) for L2, tau (1 - p*/a) for KL", _EXACT, _envelope),
    ("gradient by autograd", "the stated gradient is autograd's of the stated value, every row", _EXACT, _autograd),
    ("gradient by differences", "... and that of central differences, every row", 1e-4, _differences),
    ("target against scipy", "p* and L of the L2 divergence, affine and simplex, by SLSQP", _SOLVER, _solver),
    ("target against POT", "p* on the simplex is POT's projection", _EXACT, _pot),
    ("KL target by its dual", "p* and L of the KL divergence, multiplier by bracketing", _EXACT, _dual),
    ("KL value against scipy", "L of the KL divergence by SLSQP", _SOLVER, _kl_solver),
    ("P2PNet target", "the Dirac target by enumeration of all", _EXACT, _enumerated),
    ("P2PNet's matching", "for a in [0, 1] it is argmin c - 2 tau a", _EXACT, _p2p_form),
    ("tau to infinity", "p* -> a + (1 - s) / n (L2), a / s (KL)", _SOLVER, _limit_large),
    ("tau to infinity, value", "the KL divergence's L -> c'a / s + tau (s - 1 - log s)", 1e-4, _limit_value),
    ("tau to 0, p >= 0", "p* -> Dirac mass on the cheapest cell (simplex, KL)", _SOLVER, _limit_small),
    ("tau to 0, affine", "p* diverges like (mean c - c) / tau", _SOLVER, _diverges),
    ("three views", "target, split and gradient view have one gradient", _EXACT, _equivalent),
    ("two readings of L1", "tau = 2/|s - 1| held constant doubles the gradient of |s - 1| / n", _EXACT, _factor_two),
    ("official PML", "its gradient is the proximal one with tau_j = n_j / |s_j - 1|", _EXACT, _official_pml),
    ("PML", "so for both count norms with their tau, on the zoo's own cells", _EXACT, _paper_pml),
    ("DM-Count, one head", "OT by any solver has the row's gradient", _EXACT, _exact_transport),
    ("official DM-Count, one head", "distance of its gradient from the row's (reg log b)", None, _official_dm),
    (
        "DM-Count, four heads",
        "distance of the gradient by 100 entropic rounds from that by exact OT",
        None,
        _rounds_of_dm,
    ),
    ("BL, one head, too few", "distance of its gradient from the slides' row: it counts (1 - q)'a", None, _under_bl),
    ("BL, one head, too many", "the same where both counts are above one", None, _over_bl),
)
