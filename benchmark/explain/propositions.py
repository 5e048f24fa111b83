"""What the proximal view claims, checked on random cells and crowds: each proposition with its worst numerical error.

The closed forms of `losses.proximal` are held against things that do not share their algebra: scipy's constrained
optimisers, POT, enumeration, automatic and finite differences, and the zoo's losses themselves. All in float64.
Rows without a limit are measurements: how far a loss of the zoo is from its one-cell row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import ot
import torch
from torch import Tensor

from benchmark.explain import solvers, zoo
from benchmark.explain.cases import Case, cell, gap
from losses import proximal
from losses.proximal import Cell

__all__ = ["Proposition", "propositions"]

_SOLVER, _EXACT, _STEP = 1e-6, 1e-9, 1e-6
"""Tolerances of scipy's solvers and of finite differences, and of rounding; the step of a finite difference."""


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
        found = [float(np.max(list(errors(rng)))) for _ in range(cases)]  # NaN stays NaN, and holds nowhere
        made.append(Proposition(name, statement, float(np.max(found)), float(np.median(found)), tolerance, cases))
    return made


# ---------------------------------------------------------------------------------------------------------------------
# One cell against solvers and differences


def _rows(case: Case) -> dict[str, Callable[[Tensor], Cell]]:
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
    case = cell(rng)
    for row in _rows(case).values():
        density = case.density.clone().requires_grad_()
        found = row(density)
        yield gap(torch.autograd.grad(found.value, density)[0], found.gradient.detach())


def _differences(rng: np.random.Generator) -> Iterator[float]:
    case = cell(rng)
    for row in _rows(case).values():
        expected = row(case.density).gradient
        for place in range(len(case.density)):
            step = torch.zeros_like(case.density)
            step[place] = _STEP * float(case.density[place]) if float(case.density[place]) < _STEP else _STEP / 10
            slope = (row(case.density + step).value - row(case.density - step).value) / (2 * step[place])
            yield abs(float(slope - expected[place])) / max(1.0, float(expected.abs().max()))


def _envelope(rng: np.random.Generator) -> Iterator[float]:
    case = cell(rng)
    for feasible in ("affine", "simplex"):
        found = proximal.squared(case.density, case.cost, case.tau, feasible=feasible)
        yield gap(case.tau * (case.density - found.target), found.gradient)
    found = proximal.entropic(case.density, case.cost, case.tau)
    yield gap(case.tau * (1 - found.target / case.density), found.gradient)
    found = proximal.squared_l1(case.density, case.cost, case.tau)
    tau = case.tau * len(case.density) / (case.density.sum() - 1).abs()
    yield gap(tau * (case.density - found.target), found.gradient)
    simplex = proximal.squared_l1(case.density, case.cost, case.tau, feasible="simplex")
    projected = ot.utils.proj_simplex((case.density - case.cost / tau).numpy())
    yield gap(simplex.target, torch.tensor(projected))
    yield gap(tau * (case.density - simplex.target), simplex.gradient)
    found = proximal.bayesian(case.density, case.cost / 2)
    yield gap(len(case.density) / (case.density.sum() - 1).abs() * (case.density - found.target), found.gradient)


def _enumerated(rng: np.random.Generator) -> Iterator[float]:
    case = cell(rng)
    found = proximal.matched(case.density, case.cost, case.tau)
    count = len(case.density)
    values = [float(case.cost[k] + case.tau * (torch.eye(count)[k] - case.density).abs().sum()) for k in range(count)]
    yield abs(float(found.value) - min(values))
    yield 0.0 if values[int(found.target.argmax())] <= min(values) + 1e-12 else 1.0


def _p2p_form(rng: np.random.Generator) -> Iterator[float]:
    case = cell(rng)
    density = case.density.clamp(max=1)
    found = proximal.matched(density, case.cost, case.tau)
    yield 0.0 if int((case.cost - 2 * case.tau * density).argmin()) == int(found.target.argmax()) else 1.0


# ---------------------------------------------------------------------------------------------------------------------
# Limits and equivalences


def _limit_large(rng: np.random.Generator) -> Iterator[float]:
    case = cell(rng)
    a, tau = case.density, 1e9
    expected = a + (1 - a.sum()) / len(a)
    yield gap(proximal.squared(a, case.cost, tau).target, expected)
    yield gap(proximal.entropic(a, case.cost, tau).target, a / a.sum())
    yield gap(proximal.entropic(a, case.cost, tau).target, proximal.distribution(a, case.cost).target)


def _fillers(rng: np.random.Generator) -> Iterator[float]:
    """Each filler in the place that its row gives it."""
    case = cell(rng)
    a, c, tau = case.density, case.cost, case.tau
    excess = a.sum() - 1
    rows = {
        "squared": (proximal.squared(a, c, tau), a - c / tau),
        "squared_l1": (proximal.squared_l1(a, c, tau), a - excess.abs() / (tau * len(a)) * c),
        "bayesian": (proximal.bayesian(a, c / 2), a - excess.abs() / len(a) * c / 2),
    }
    for found, rest in rows.values():
        assert found.filler is not None
        yield gap(rest + found.filler, found.target)
    for found, shape in ((proximal.entropic(a, c, tau), a * torch.exp(-c / tau)), (proximal.distribution(a, c), a)):
        assert found.filler is not None
        yield gap(shape / found.filler, found.target)


def _limit_value(rng: np.random.Generator) -> Iterator[float]:
    case = cell(rng)
    a, tau = case.density, 1e5  # beyond, the difference of two numbers of size tau has no digits left
    row, whole = proximal.distribution(a, case.cost, tau, count="bregman"), proximal.entropic(a, case.cost, tau)
    yield abs(float(whole.value - row.value))
    yield gap(whole.gradient / tau, row.gradient / tau)
    by_hand = (case.cost * a).sum() / a.sum() + tau * (a.sum() - 1 - a.sum().log())
    yield abs(float(row.value - by_hand))


def _limit_small(rng: np.random.Generator) -> Iterator[float]:
    case = cell(rng)
    cheapest = torch.zeros_like(case.cost)
    cheapest[case.cost.argmin()] = 1
    lead = float(case.cost.sort().values[1] - case.cost.min())
    yield gap(proximal.squared(case.density, case.cost, lead / 1e3, feasible="simplex").target, cheapest)
    yield gap(proximal.entropic(case.density, case.cost, lead / 1e3).target, cheapest)


def _diverges(rng: np.random.Generator) -> Iterator[float]:
    case = cell(rng)
    tau = 1e-9
    grown = proximal.squared(case.density, case.cost, tau).target * tau
    yield gap(grown, case.cost.mean() - case.cost)


def _equivalent(rng: np.random.Generator) -> Iterator[float]:
    case = cell(rng)
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
        yield gap(torch.autograd.grad(each, density)[0], found.gradient)


def _factor_two(rng: np.random.Generator) -> Iterator[float]:
    case = cell(rng)
    density = case.density.clone().requires_grad_()
    excess, count = density.sum() - 1, len(case.density)
    held = 2 / excess.abs().detach() / (2 * count) * excess.square()
    ratio = torch.autograd.grad(held, density)[0] / torch.autograd.grad((density.sum() - 1).abs() / count, density)[0]
    yield gap(ratio, torch.full_like(ratio, 2.0))


_Claim = tuple[str, str, float | None, Callable[[np.random.Generator], Iterator[float]]]
_CLAIMS: tuple[_Claim, ...] = (
    ("envelope theorem", "dL/da = tau dD(p*, a)/da: tau (a - p*) for L2, tau (1 - p*/a) for KL", _EXACT, _envelope),
    ("gradient by autograd", "the stated gradient is autograd's of the stated value, every row", _EXACT, _autograd),
    ("gradient by differences", "... and that of central differences, every row", 1e-4, _differences),
    ("target against scipy", "p* (both tau), L of the L2 divergence, affine and simplex, SLSQP", _SOLVER, solvers.l2),
    ("target against POT", "p* on the simplex is POT's projection", _EXACT, solvers.l2_by_pot),
    ("KL target by its dual", "p* and L of the KL divergence, multiplier by bracketing", _EXACT, solvers.kl_dual),
    ("KL value against scipy", "L of the KL divergence by SLSQP, tau at least 0.3", _SOLVER, solvers.kl_value),
    (
        "KL target, simplex",
        "p* of the KL divergence is where a trust region on p = softmax(x) ends",
        _SOLVER,
        solvers.kl_simplex,
    ),
    (
        "KL target, affine",
        "... and where SLSQP ends on p = exp(x), 1'p = 1, tau at least 0.3",
        _SOLVER,
        solvers.kl_affine,
    ),
    ("P2PNet target", "the Dirac target by enumeration of all", _EXACT, _enumerated),
    ("P2PNet's matching", "for a in [0, 1] it is argmin c - 2 tau a", _EXACT, _p2p_form),
    ("fillers", "eta stands where each row has it: added (L2, BL), divided by (KL, DM-Count)", _EXACT, _fillers),
    ("L2 regression", "the zoo's L2 has twice the row's value and gradient", _EXACT, zoo.regression),
    ("tau to infinity", "p* -> a + (1 - s) / n (L2), a / s (KL)", _SOLVER, _limit_large),
    ("tau to infinity, value", "the KL divergence's L -> c'a / s + tau (s - 1 - log s)", 1e-4, _limit_value),
    ("tau to 0, p >= 0", "p* -> Dirac mass on the cheapest cell (simplex, KL)", _SOLVER, _limit_small),
    ("tau to 0, affine", "p* diverges like (mean c - c) / tau", _SOLVER, _diverges),
    ("three views", "target, split and gradient view have one gradient", _EXACT, _equivalent),
    ("two readings of L1", "tau = 2/|s - 1| held constant doubles the gradient of |s - 1| / n", _EXACT, _factor_two),
    ("official PML", "its gradient is the proximal one with tau_j = n_j / |s_j - 1|", _EXACT, zoo.official_pml),
    ("PML", "so for both count norms with their tau, on the zoo's own cells", _EXACT, zoo.paper_pml),
    (
        "DM-Count, one head",
        "OT has the row's gradient, by any solver: with one head the plan is unique",
        _EXACT,
        zoo.exact_transport,
    ),
    (
        "DM-Count, exact OT",
        "its gradient is the slope of POT's transport cost, several heads",
        1e-4,
        zoo.exact_differences,
    ),
    ("official DM-Count, one head", "distance of its gradient from the row's (reg log b)", None, zoo.official_dm),
    (
        "DM-Count, four heads",
        "distance of the gradient by 100 entropic rounds from that by exact OT",
        None,
        zoo.rounds_of_dm,
    ),
    ("BL, one head, too few", "distance of its gradient from the slides' row: it counts (1 - q)'a", None, zoo.under_bl),
    ("BL, one head, too many", "the same where both counts are above one", None, zoo.over_bl),
)
