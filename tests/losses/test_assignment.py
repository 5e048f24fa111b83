"""The assignment from candidates against scipy's dense solver, and its certificate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial.distance import cdist

from losses import _assignment
from losses._assignment import _Edges, _relaxed, _Search, _sparse, assign


class Scene(NamedTuple):
    targets: np.ndarray
    proposals: np.ndarray
    bonus: np.ndarray
    price: float = 0.05

    def cost(self) -> np.ndarray:
        return self.price * cdist(self.targets, self.proposals) - self.bonus


def least(cost: np.ndarray) -> float:
    return float(cost[linear_sum_assignment(cost)].sum())


def check(scene: Scene, target: np.ndarray, proposal: np.ndarray) -> None:
    """One to one, as many as can be, and as cheap as the dense solver's."""
    cost = scene.cost()
    assert len(target) == len(proposal) == min(cost.shape)
    assert len(np.unique(target)) == len(np.unique(proposal)) == len(target)
    best = least(cost)
    assert cost[target, proposal].sum() == pytest.approx(best, rel=1e-9, abs=1e-9)


def grid(cells: int, rng: np.random.Generator, jitter: float = 1.0) -> np.ndarray:
    """Four proposals a cell of 8 pixels."""
    line = np.arange(2 * cells) * 4 + 2.0
    return np.stack(np.meshgrid(line, line), -1).reshape(-1, 2) + jitter * rng.standard_normal((4 * cells**2, 2))


def uniform(rng: np.random.Generator) -> Scene:
    return Scene(rng.random((300, 2)) * 256, grid(32, rng), rng.random(4096))


def crowded(rng: np.random.Generator) -> Scene:
    """Three knots, in each of which more heads stand than proposals."""
    knots = np.repeat(rng.random((3, 2)) * 256, 60, axis=0) + 6 * rng.standard_normal((180, 2))
    return Scene(np.concatenate([knots, rng.random((120, 2)) * 256]), grid(32, rng), rng.random(4096))


def duplicates(rng: np.random.Generator) -> Scene:
    """Heads and proposals stand several times at the same place, on a lattice that ties most distances."""
    return Scene(
        rng.integers(0, 20, (300, 2)) * 12.0, np.tile(grid(16, rng, 0) * 2, (4, 1)), rng.integers(0, 3, 4096) / 2
    )


def indifferent(rng: np.random.Generator) -> Scene:
    """A network before its training: all bonuses nearly the same."""
    return Scene(rng.random((300, 2)) * 256, grid(32, rng, 0), 0.5 + 1e-3 * rng.random(4096))


def trained(rng: np.random.Generator) -> Scene:
    """Four of five heads have a confident proposal, and there are confident mistakes elsewhere."""
    targets, proposals, bonus = rng.random((300, 2)) * 256, grid(32, rng), 0.01 * rng.random(4096)
    bonus[cdist(targets[:240], proposals).argmin(1)] = 0.9 + 0.1 * rng.random(240)
    bonus[rng.integers(0, 4096, 60)] = 0.9
    return Scene(targets, proposals, bonus)


def far_away(rng: np.random.Generator) -> Scene:
    """The heads stand far outside of the proposals, nearly as far from all of them."""
    return Scene(rng.random((100, 2)) * 100 + 1e5, grid(32, rng), rng.random(4096))


def worth_the_way(rng: np.random.Generator) -> Scene:
    """No proposal near the heads is worth anything, 40 at the other end are."""
    proposals = grid(32, rng)
    return Scene(rng.random((40, 2)) * 60, proposals, np.where((proposals > 240).all(1), 50.0, 0.0))


SCENES = [uniform, crowded, duplicates, indifferent, trained, far_away, worth_the_way]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", SCENES)
def test_candidates_cost_what_all_pairs_cost(make, seed):
    scene = make(np.random.default_rng(seed))
    check(scene, *assign(*scene))


@pytest.mark.parametrize("make", [uniform, crowded, duplicates, indifferent, trained])
@pytest.mark.parametrize("first", [2, 24])
def test_scenes_are_solved_from_candidates(make, first, monkeypatch):
    """However few candidates there are at first, they grow until the optimum is among them."""
    monkeypatch.setattr(_assignment, "_SHARE", 4)
    scene = make(np.random.default_rng(7))
    found = _sparse(*scene, first=first)
    assert found is not None
    check(scene, np.arange(len(found)), found)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 12),
    more=st.integers(0, 20),
    first=st.integers(1, 4),
    price=st.sampled_from([0.0, 0.05, 1.0]),
    whole=st.booleans(),
)
def test_small_scenes_whatever_the_first_candidates(seed, n, more, first, price, whole):
    """Whole numbers tie places, costs and bounds."""
    rng = np.random.default_rng(seed)
    draw = (lambda *shape: rng.integers(0, 4, shape).astype(float)) if whole else (lambda *shape: 4 * rng.random(shape))
    scene = Scene(draw(n, 2), draw(n + more, 2), draw(n + more) / 2, price)
    found = _sparse(*scene, first=first)
    if found is not None:
        check(scene, np.arange(n), found)
    check(scene, *assign(*scene))


@pytest.mark.parametrize(("n", "q"), [(0, 5), (0, 0), (3, 0), (1, 1), (1, 9000), (3, 9000), (900, 300), (500, 500)])
def test_numbers_of_targets_and_proposals(n, q):
    rng = np.random.default_rng(n)
    check_scene = Scene(rng.random((n, 2)) * 300, rng.random((q, 2)) * 300, rng.random(q))
    target, proposal = assign(*check_scene)
    if n and q:
        check(check_scene, target, proposal)
    else:
        assert len(target) == len(proposal) == 0
    assert target.dtype == proposal.dtype == np.int64


def test_five_thousand_targets(monkeypatch):
    rng = np.random.default_rng(0)
    scene = Scene(rng.random((5000, 2)) * 512, grid(64, rng), rng.random(4 * 64**2))
    monkeypatch.setattr(_assignment, "_dense", None)
    check(scene, *assign(*scene))


def test_where_candidates_would_be_nearly_all_pairs_the_dense_solver_takes_over():
    rng = np.random.default_rng(0)
    scene = Scene(128 + rng.standard_normal((400, 2)), grid(16, rng), rng.random(1024))
    assert _sparse(*scene) is None
    check(scene, *assign(*scene))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 12), price=st.sampled_from([0.0, 0.05, 1.0]))
def test_no_left_out_pair_is_cheaper_than_its_escape(seed, k, price):
    """What the certificate rests on."""
    rng = np.random.default_rng(seed)
    scene = Scene(rng.random((9, 2)) * 40, rng.random((30, 2)) * 40, rng.random(30), price)
    rows = np.arange(2, 9)
    row, column, cost = _Search(*scene).cheapest(rows, k)
    raised = scene.cost() + scene.bonus.max() + 1
    real = column < 30
    np.testing.assert_allclose(cost[real], raised[row[real], column[real]], rtol=1e-12)
    assert row[~real].tolist() == (column[~real] - 30).tolist() == rows.tolist()
    raised[row[real], column[real]] = np.inf
    assert bool((raised[rows] >= cost[~real][:, None] - 1e-12).all())


@pytest.mark.parametrize(("seed", "refused"), [(0, True), (1, True), (3, True), (4, True), (5, False)])
def test_the_certificate_refuses_a_matching_that_is_no_optimum(seed, refused):
    """The cheapest matching of 24 candidates a head is the optimum of the last of these crowds only."""
    rng = np.random.default_rng([seed, 6])
    spots = np.repeat(rng.random((12, 2)) * 200, 25, axis=0)
    scene = Scene(spots + 18 * rng.standard_normal((300, 2)), grid(26, rng), rng.random(2704))
    edges = _Search(*scene).cheapest(np.arange(300), 24)
    real = edges.kept(edges.column < 2704)
    graph = csr_array((real.cost, (real.row, real.column)), shape=(300, 2704))
    target, proposal = min_weight_full_bipartite_matching(graph)
    cost = scene.cost()
    assert (cost[target, proposal].sum() > least(cost) + 1e-3) == refused
    assert bool((_relaxed(edges, 300, 3004) >= 2704).any()) == refused, "a target escapes from what is no optimum"


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 10), q=st.integers(1, 14), whole=st.booleans())
def test_peeling_keeps_an_optimum(seed, n, q, whole):
    """Any bipartite graph, with an escape for every target at any cost."""
    rng = np.random.default_rng(seed)
    cost = np.full((n, q + n), np.inf)
    cost[:, :q] = rng.integers(1, 5, (n, q)) if whole else 1 + rng.random((n, q))
    cost[:, :q][rng.random((n, q)) < rng.random()] = np.inf
    cost[range(n), range(q, q + n)] = rng.integers(1, 6, n) if whole else 1 + 1.5 * rng.random(n)
    row, column = np.isfinite(cost).nonzero()
    found = _relaxed(_Edges(row, column, cost[row, column]), n, q + n)
    assert len(np.unique(found)) == n
    assert cost[range(n), found].sum() == pytest.approx(least(cost), rel=1e-12)


@pytest.mark.parametrize("n", [10, 400])
def test_places_that_are_no_numbers_are_refused(n):
    rng = np.random.default_rng(0)
    scene = Scene(rng.random((n, 2)), rng.random((1024, 2)), rng.random(1024))
    scene.proposals[5] = np.nan
    with pytest.raises(ValueError, match="finite|invalid numeric"):
        assign(*scene)
