"""The transport step of OT-M against its formulas and POT, and the certificates of its fast ways."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.localizers import _local, _separable, _transport
from runners.localizers._exact import agreement
from runners.localizers.otm import otm
from tests.references import naive_otm
from tests.runners.localizers.crowds import cells_of, crowd


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_potentials_are_those_of_the_formulas(data: st.DataObject) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    height, width, count = (data.draw(st.integers(1, most)) for most in (24, 24, 40))
    density = generator.random((height, width)) ** data.draw(st.sampled_from([0, 1, 8, 40]))
    density[generator.random((height, width)) < data.draw(st.sampled_from([0.0, 0.9]))] = 0
    density.flat[0] += 0.1
    stride = data.draw(st.sampled_from([1, 2, 8, 32]))
    points = generator.random((count, 2)) * [width * stride, height * stride]
    cells = cells_of(density, stride, count)
    found = _transport.transport(cells, points, variance=32.0, blur=0.01, scaling=0.75)
    cost = ((cells.centres[:, None] - points[None]) ** 2).sum(2) / 64
    f, g = naive_otm.potentials(torch.as_tensor(cost), torch.as_tensor(cells.mass))
    np.testing.assert_allclose(found.f, f.numpy(), atol=1e-8)
    np.testing.assert_allclose(found.g, g.numpy(), atol=1e-8)


def test_repeated_steps_find_the_plan_of_pot() -> None:
    """At one eps, averaged until nothing changes, against POT's Sinkhorn."""
    points, eps = np.random.default_rng(0).random((12, 2)) * 80, 10.0
    cells = cells_of(crowd((10, 10), 12), 8, 12)
    cost = ((cells.centres[:, None] - points[None]) ** 2).sum(2) / 64
    plan = ot.sinkhorn(cells.mass, np.ones(12), cost, eps, method="sinkhorn_log", numItermax=20000, stopThr=1e-10)
    steps, f, g = _transport._Steps(cells, points, 32.0), np.zeros(len(cells.mass)), np.zeros(12)
    for _ in range(500):
        new_f, new_g = steps(f, g, eps)
        f, g = (f + new_f) / 2, (g + new_g) / 2
    found = steps.moments(f, g, eps)
    np.testing.assert_allclose(found.mass, plan.sum(0), atol=1e-6)
    np.testing.assert_allclose(found.place, plan.T @ cells.centres, atol=1e-4)
    np.testing.assert_allclose(found.cost, (plan * cost).sum(0), atol=1e-5)


@pytest.mark.parametrize(("cells", "people"), [((16, 16), 20), ((32, 32), 100), ((48, 48), 250)])
def test_agreement_with_the_exact_plan(cells, people, record_property) -> None:
    """The released schedule stops short of the optimum; slower ones come closer. The figures go into the report."""
    density = crowd(cells, people)
    points, problem = otm(density, 8).points, cells_of(density, 8, people)
    found = {scaling: agreement(problem, points, scaling=scaling) for scaling in (0.75, 0.99)}
    for scaling, figures in found.items():
        record_property(f"emd scaling {scaling}", str(figures._asdict()))
    released, slow = found.values()
    assert slow.exact_cost == released.exact_cost > 0
    assert released.mean_distance < 4
    assert slow.mean_distance < 0.7 * released.mean_distance
    assert slow.mass_error < 0.5 * released.mass_error
    assert abs(slow.cost / slow.exact_cost - 1) < abs(released.cost / released.exact_cost - 1)


# ---------------------------------------------------------------------------------------------------------------------
# The three ways of a step, and their certificates.


def problem(count: int = 40) -> tuple[_transport.Cells, np.ndarray, np.ndarray, np.ndarray]:
    """Cells, points and some potentials that belong together."""
    generator = np.random.default_rng(5)
    cells = cells_of(crowd((20, 20), count), 8, count)
    points = generator.random((count, 2)) * 160
    solved = _transport.transport(cells, points, variance=32.0, blur=1.0, scaling=0.75)
    return cells, points, solved.f, solved.g


def test_the_three_ways_agree() -> None:
    cells, points, f, g = problem()
    exhaustive = _transport._exhaustive_step(cells, points, 32.0, f, g, 1.0)
    separable = _separable.Separable(cells.centres, cells.mass, points, 32.0).step(f, g, 1.0)
    near = _local.pairs_near(cells.centres, cells.mass, points, 32.0, (f, g), 60.0, cells.blocks)
    assert separable is not None
    assert near is not None
    for ours in (separable, near.step(f, g, 1.0)):
        np.testing.assert_allclose(ours[0], exhaustive[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(ours[1], exhaustive[1], rtol=0, atol=1e-12)
    found, expected = near.moments(f, g, 1.0), _transport._exhaustive_moments(cells, points, 32.0, f, g, 1.0)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_without_the_fast_ways_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    density = crowd((12, 12), 20)
    expected = otm(density, 8)
    monkeypatch.setattr(_separable.Separable, "step", lambda *_: None)
    monkeypatch.setattr(_local, "MOST_PAIRS", 0)
    found = otm(density, 8)
    assert found.iterations == expected.iterations
    np.testing.assert_allclose(found.points, expected.points, atol=1e-7)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-7)


def test_slabs_of_points_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    density = crowd((40, 40), 100)
    expected = otm(density, 8, rounds=1)
    monkeypatch.setattr(_separable, "_SLAB", 7)
    monkeypatch.setattr(_transport, "_TILE", 100)
    np.testing.assert_allclose(otm(density, 8, rounds=1).points, expected.points, atol=1e-7)


def test_products_are_refused_where_they_underflow() -> None:
    cells, points, f, g = problem()
    separable = _separable.Separable(cells.centres, cells.mass, points, 32.0)
    assert separable.step(f, g, 0.01) is None
    assert separable.step(f, g, 10.0) is not None


def test_a_list_of_pairs_is_refused_when_too_short() -> None:
    cells, points, f, g = problem()

    def near(tau: float) -> _local.Pairs:
        found = _local.pairs_near(cells.centres, cells.mass, points, 32.0, (f, g), tau, cells.blocks)
        assert found is not None
        return found

    assert near(60.0).step(f, g, 1.0) is not None
    assert near(30.0).step(f, g, 1.0) is None  # less than 37 + log(n)
    moved = g.copy()
    moved[3] += 25.0  # a point whose pairs were left out may have become near
    assert near(60.0).step(f, moved, 1.0) is None
    assert near(60.0).step(f, g, 5.0) is None  # a larger eps reaches farther


def test_all_near_pairs_are_found() -> None:
    cells, points, f, g = problem()
    cost = ((cells.centres[:, None] - points[None]) ** 2).sum(2) / 64
    for tau in (0.5, 5.0, 50.0):
        found = _local.pairs_near(cells.centres, cells.mass, points, 32.0, (f, g), tau, cells.blocks)
        assert found is not None
        assert len(found) == np.sum(f[:, None] + g - cost >= -tau)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 3.0, 8.0])
def test_chebyshev_terms_suffice(ratio: float) -> None:
    """Interpolation at that many nodes by numpy; ratio is the half interval in standard deviations."""
    terms, t = _separable.chebyshev_terms(ratio), np.linspace(-1, 1, 501)
    for centre in (0.0, ratio / 2, ratio, 3 * ratio):

        def gaussian(u: np.ndarray, centre: float = centre) -> np.ndarray:
            return np.exp(-((ratio * u - centre) ** 2) / 2)

        series = np.polynomial.chebyshev.chebinterpolate(gaussian, terms - 1)
        np.testing.assert_allclose(np.polynomial.chebyshev.chebval(t, series), gaussian(t), atol=3e-15)


def test_largest_cost_is_that_of_all_pairs() -> None:
    cells, points, _, _ = problem()
    direct = ((cells.centres[:, None] - points[None]) ** 2).sum(2).max() / 64
    assert _transport.largest_cost(cells.centres, points, 32.0) == pytest.approx(direct, rel=1e-14)
