"""The targets on one cell against numerical solvers of the constrained problem; see `benchmark.explain.propositions`.

Problems are solved divided by max(tau, 1), so that a solver's tolerance means the same for every tau.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import ot
import torch
from numpy.typing import NDArray
from scipy import optimize, special

from benchmark.explain.cases import Case, cell, gap
from losses import proximal

__all__ = ["kl_affine", "kl_dual", "kl_simplex", "kl_value", "l2", "l2_by_pot"]

Floats = NDArray[np.float64]

_LEAST_TAU = 0.3
"""Of the KL divergence where SLSQP solves it: below, some of a thousand cells are left short of the tolerance, as the
objective has no digits left in which the solver could see a descent. Other solvers are used for every tau."""
_SEEN = 0.01
"""People from which a cell's relative error is asked for: what is less weighs nothing in a solver's objective."""


def _solved(case: Case, objective: Callable[[Any], float], slope: Callable[[Any], Any], positive: bool) -> Floats:
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


# ---------------------------------------------------------------------------------------------------------------------
# L2 divergence


def l2(rng: np.random.Generator) -> Iterator[float]:
    """Target and value of `squared`, and the target of `squared_l1`, by SLSQP, affine and on the simplex."""
    case = cell(rng)
    a, c = case.density.numpy(), case.cost.numpy()
    constant, dynamic = case.tau, case.tau * len(a) / abs(float(a.sum()) - 1)
    for feasible in ("affine", "simplex"):
        for tau in (constant, dynamic):

            def objective(p: Floats, tau: float = tau) -> float:
                return float(c @ p + tau / 2 * np.square(p - a).sum()) / max(tau, 1.0)

            def slope(p: Floats, tau: float = tau) -> Floats:
                return np.asarray((c + tau * (p - a)) / max(tau, 1.0))

            row = proximal.squared if tau == constant else proximal.squared_l1
            found = row(case.density, case.cost, case.tau, feasible=feasible)
            solved = _solved(case, objective, slope, positive=feasible == "simplex")
            yield gap(found.target, torch.tensor(solved))
            if tau == constant:
                value = objective(solved) * max(tau, 1.0)
                yield abs(float(found.value) - value) / max(1.0, abs(float(found.value)))


def l2_by_pot(rng: np.random.Generator) -> Iterator[float]:
    """The target of `squared` on the simplex by POT's projection."""
    case = cell(rng)
    found = proximal.squared(case.density, case.cost, case.tau, feasible="simplex")
    projected = ot.utils.proj_simplex((case.density - case.cost / case.tau).numpy())
    yield gap(found.target, torch.tensor(projected))


# ---------------------------------------------------------------------------------------------------------------------
# KL divergence


def kl_dual(rng: np.random.Generator) -> Iterator[float]:
    """The KL problem by its multiplier: p = a exp(-(c + m) / tau) with 1'p = 1, m by bracketing."""
    case = cell(rng)
    a, c, tau = case.density.numpy(), case.cost.numpy(), case.tau
    found = proximal.entropic(case.density, case.cost, tau)

    def target(multiplier: float) -> Floats:
        return np.asarray(a * np.exp(-(c + multiplier) / tau))

    multiplier = optimize.brentq(lambda m: target(m).sum() - 1, -2 - 60 * tau, 2 + 60 * tau, xtol=1e-14, rtol=1e-15)
    yield gap(found.target, torch.tensor(target(float(multiplier))))
    solved = target(float(multiplier))
    value = c @ solved + tau * (solved * np.log(solved / a) - solved + a).sum()
    yield abs(float(found.value) - value) / max(1.0, abs(value))


def kl_value(rng: np.random.Generator) -> Iterator[float]:
    """The value of `entropic` by SLSQP on p."""
    case = cell(rng)
    a, c, tau = case.density.numpy(), case.cost.numpy(), max(case.tau, _LEAST_TAU)

    def objective(p: Floats) -> float:
        return float(c @ p + tau * (p * np.log(p / a) - p + a).sum())

    solved = _solved(case, objective, lambda p: np.asarray(c + tau * np.log(p / a)), positive=True)
    yield abs(objective(solved) - float(proximal.entropic(case.density, case.cost, tau).value))


def kl_simplex(rng: np.random.Generator) -> Iterator[float]:
    """The target of `entropic` by a trust region without constraints: p = softmax(x) is positive and sums to 1."""
    case = cell(rng)
    objective, slope = _kl_of_logarithms(case, case.tau)

    def both(x: Floats) -> tuple[float, Floats]:
        logs = np.asarray(special.log_softmax(x))
        steep = slope(logs)
        return objective(logs), steep - np.exp(logs) * steep.sum()

    def curvature(x: Floats) -> Floats:
        p, steep = special.softmax(x), both(x)[1]
        weight = case.tau / max(case.tau, 1.0)
        return np.asarray(np.diag(steep + weight * p) - np.outer(steep, p) - np.outer(p, steep + weight * p))

    found = optimize.minimize(
        both, _uniform(case), jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-12}
    )
    yield from _apart(proximal.entropic(case.density, case.cost, case.tau).target.numpy(), special.softmax(found.x))


def kl_affine(rng: np.random.Generator) -> Iterator[float]:
    """The target of `entropic` by SLSQP on p = exp(x), which the divergence asks for, held to 1'p = 1 alone."""
    case = cell(rng)
    tau = max(case.tau, _LEAST_TAU)
    objective, slope = _kl_of_logarithms(case, tau)
    counts_one = optimize.NonlinearConstraint(lambda x: np.exp(x).sum(), 1, 1, jac=lambda x: np.exp(x)[None])
    found = optimize.minimize(
        objective,
        _uniform(case),
        jac=slope,
        method="SLSQP",
        constraints=counts_one,
        options={"ftol": 1e-16, "maxiter": 2000},
    )
    yield from _apart(proximal.entropic(case.density, case.cost, tau).target.numpy(), np.exp(found.x))


def _uniform(case: Case) -> Floats:
    """The logarithm of the uniform target."""
    return np.full(len(case.density), -np.log(len(case.density)))


def _kl_of_logarithms(case: Case, tau: float) -> tuple[Callable[[Floats], float], Callable[[Floats], Floats]]:
    """The objective c'p + tau KL(p | a) as a function of log p, and its slope in log p."""
    a, c = case.density.numpy(), case.cost.numpy()

    def objective(logs: Floats) -> float:
        p = np.exp(logs)
        return float(c @ p + tau * (p * (logs - np.log(a)) - p + a).sum()) / max(tau, 1.0)

    def slope(logs: Floats) -> Floats:
        return np.asarray(np.exp(logs) * (c + tau * (logs - np.log(a))) / max(tau, 1.0))

    return objective, slope


def _apart(target: Floats, solved: Floats) -> Iterator[float]:
    """Largest difference in people, of one in all, and relative in cells that have a good part of them."""
    yield float(np.abs(target - solved).max())
    some = solved >= _SEEN
    yield float(np.abs(target[some] / solved[some] - 1).max())
