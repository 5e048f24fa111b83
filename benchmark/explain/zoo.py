"""Claims and measurements about whole losses of the zoo; see `benchmark.explain.propositions`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import ot
import torch
from torch import Tensor

import losses
from benchmark.explain.cases import SIDE, STRIDE, WHOLE, crowd, distance, gap, gradient
from losses import Prediction, Target, proximal
from losses.bl import BL
from losses.geometry import cell_centres

__all__ = [
    "exact_differences",
    "exact_transport",
    "official_dm",
    "official_pml",
    "over_bl",
    "paper_pml",
    "regression",
    "rounds_of_dm",
    "under_bl",
]


def _by_cells(density: Tensor, points: Tensor, offset: float, conquer: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Divides by brute force, conquers each head's cells: (h w,) gradient."""
    centres = cell_centres((density.shape[0], density.shape[1]), STRIDE, density, offset=offset)
    distances = (centres.unsqueeze(1) - points).square().sum(-1).sqrt()
    owner, nearest = distances.argmin(1), distances.amin(1)
    flat, found = density.flatten(), torch.full_like(density.flatten(), torch.nan)
    for head in range(len(points)):
        own = owner == head
        if bool(own.any()):
            cost = torch.exp(nearest[own] / max(float(nearest[own].max()), 32.0)) - 1
            found[own] = conquer(flat[own], cost)
    return found


def official_pml(rng: np.random.Generator) -> Iterator[float]:
    """Official PML on a crowd against `squared` with tau_j = n_j / |s_j - 1| on each head's cells."""
    density, points = crowd(rng)
    density = density * max(1.0, 1.01 / float(density.sum()))  # at most one person is its other branch

    def conquer(a: Tensor, c: Tensor) -> Tensor:
        return proximal.squared(a, c, len(a) / abs(float(a.sum()) - 1)).gradient

    expected = _by_cells(density, points, (STRIDE - 1) / (2 * STRIDE), conquer)
    yield gap(gradient("pml", density, points, variant="official", fallback_count="points"), expected)


def paper_pml(rng: np.random.Generator) -> Iterator[float]:
    """PML with both count norms against its rows, on each head's cells."""
    density, points = crowd(rng)
    tau = float(rng.uniform(5, 50))
    l2 = _by_cells(density, points, 0.5, lambda a, c: proximal.squared(a, c, tau).gradient)
    yield gap(gradient("pml", density, points, count_norm="l2", tau=tau), l2)
    l1 = _by_cells(density, points, 0.5, lambda a, c: proximal.squared_l1(a, c, 2.0).gradient)
    yield gap(gradient("pml", density, points, count_weight=2.0), l1)


def exact_transport(rng: np.random.Generator) -> Iterator[float]:
    """DM-Count with one head, by every solver, against its row."""
    density, points = crowd(rng, heads=1)
    expected = _dm_row(density, points)
    for solver in ("exact", "stabilised", "pot"):
        yield gap(gradient("dm_count", density, points, solver=solver, tv_weight=0.0), expected)


def exact_differences(rng: np.random.Generator) -> Iterator[float]:
    """The zoo's OT gradient by its exact solver against differences of POT's own transport cost, several heads."""
    density, points = crowd(rng, heads=int(rng.integers(2, 6)))
    centres = cell_centres((density.shape[0], density.shape[1]), STRIDE, density)
    cost = 0.1 * (centres - points.unsqueeze(1)).square().sum(2).numpy()
    share = np.full(len(points), 1 / len(points))

    def value(a: np.ndarray) -> float:
        return float(ot.emd2(share, a / a.sum(), cost, numItermax=1_000_000))

    flat = density.flatten().numpy()
    count = gradient("dm_count", density, points, solver="exact", tv_weight=0.0, ot_weight=0.0)
    found = (gradient("dm_count", density, points, solver="exact", tv_weight=0.0) - count).numpy()
    for _ in range(3):
        step = rng.standard_normal(flat.size) * flat * 1e-5
        slope = (value(flat + step) - value(flat - step)) / 2
        yield abs(slope - float(found @ step)) / float(np.abs(found) @ np.abs(step))


def regression(rng: np.random.Generator) -> Iterator[float]:
    """The zoo's L2 is twice its row, towards the target that it names; NoiseCC and ChfL name theirs, whatever a is."""
    density, points = crowd(rng)
    prediction = Prediction(STRIDE, density=density[None, None])
    target = Target([points], (SIDE, SIDE), short_side=density.new_tensor([WHOLE]))
    (found,) = proximal.view(losses.build("l2"), prediction, target)
    assert found.target is not None
    row = proximal.gaussian(density.flatten(), found.target.flatten())
    yield gap(found.gradient.flatten(), 2 * (density - found.target).flatten())
    yield gap(2 * row.gradient, found.gradient.flatten())
    yield abs(float(found.value - 2 * row.value)) / max(1.0, float(found.value))


def _dm_row(density: Tensor, points: Tensor) -> Tensor:
    """The row's gradient of DM-Count without its TV term: 0.1 OT in pixels^2 and the count."""
    centres = cell_centres((density.shape[0], density.shape[1]), STRIDE, density)
    cost = 0.1 * (centres - points[0]).square().sum(1)
    return proximal.distribution(density.flatten(), cost).gradient


def official_dm(rng: np.random.Generator) -> Iterator[float]:
    """How far official DM-Count is from its row: reg log b."""
    density, points = crowd(rng, heads=1)
    found = gradient("dm_count", density, points, variant="official", tv_weight=0.0)
    yield distance(found, _dm_row(density, points))


def rounds_of_dm(rng: np.random.Generator) -> Iterator[float]:
    """How far 100 entropic rounds are from exact transport, four heads."""
    density, points = crowd(rng, heads=4)
    expected = gradient("dm_count", density, points, solver="exact", tv_weight=0.0)
    yield distance(gradient("dm_count", density, points, solver="stabilised", tv_weight=0.0), expected)


def under_bl(rng: np.random.Generator) -> Iterator[float]:
    """How far BL is from its row where the count is too low."""
    yield _zoo_bl(*crowd(rng, heads=1, counted=(0.3, 0.7)))


def over_bl(rng: np.random.Generator) -> Iterator[float]:
    """How far BL is from its row where the count is too high."""
    yield _zoo_bl(*crowd(rng, heads=1, counted=(4.0, 6.0)))


def _zoo_bl(density: Tensor, points: Tensor) -> float:
    """How far the zoo's BL is from its row, both with the zoo's posterior of the background."""
    bl = BL()
    centres = cell_centres((density.shape[0], density.shape[1]), STRIDE, density)
    away = (centres - points[0]).square().sum(1).sqrt()
    dummy = (WHOLE * bl.background_ratio - away).clamp(min=0)
    evidence = torch.exp(-torch.stack([away, dummy]).square() / (2 * bl.sigma**2))
    expected = proximal.bayesian(density.flatten(), evidence[1] / evidence.sum(0)).gradient
    return distance(gradient("bl", density, points), expected)
