"""Maximum matching against enumeration, scipy's assignment solver and networkx, on thousands of small cases."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from runners.metrics import matching
from runners.metrics.matching import gains, match, matched_count, matched_counts

Case = tuple[np.ndarray, np.ndarray, np.ndarray]


def distances(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return np.sqrt(((true[:, None] - predicted[None]) ** 2).sum(axis=2))


def by_assignment(true: np.ndarray, predicted: np.ndarray, radius: np.ndarray) -> tuple[int, float]:
    """Size and least total distance from scipy's dense assignment: a possible pair costs its distance minus a lot."""
    apart = distances(true, predicted)
    possible = apart <= np.broadcast_to(radius, (len(true),))[:, None]
    rows, columns = linear_sum_assignment(np.where(possible, apart - 1e4, 0.0))
    used = possible[rows, columns]
    return int(used.sum()), float(apart[rows, columns][used].sum())


def by_enumeration(true: np.ndarray, predicted: np.ndarray, radius: np.ndarray) -> tuple[int, float]:
    """Size and least total distance over all matchings, head by head."""
    apart = distances(true, predicted)
    possible = apart <= np.broadcast_to(radius, (len(true),))[:, None]

    @cache
    def best(head: int, taken: int) -> tuple[int, float]:
        """(-size, distance) of the best matching of the heads from this one on."""
        if head == len(true):
            return 0, 0.0
        found = [best(head + 1, taken)]
        for one in np.flatnonzero(possible[head]):
            if not taken >> int(one) & 1:
                size, total = best(head + 1, taken | 1 << int(one))
                found.append((size - 1, total + apart[head, one]))
        return min(found)

    size, total = best(0, 0)
    return -size, total


def random_case(rng: np.random.Generator, most: int) -> Case:
    """Points on a small grid (ties, duplicates) or anywhere, with one radius a head; radii of 0 among them."""
    n, m = rng.integers(0, most + 1, 2)
    side = float(rng.choice([3, 6, 12]))
    true, predicted = rng.uniform(0, side, (n, 2)), rng.uniform(0, side, (m, 2))
    if rng.random() < 0.6:
        true, predicted = true.round(), predicted.round()
    radius = rng.choice([0.0, 1.0, np.sqrt(2.0), 1.5, 2.0, np.sqrt(5.0), 4.0], n)
    return true, predicted, radius if rng.random() < 0.7 else np.full(n, radius[0] if n else 1.0)


def check(true: np.ndarray, predicted: np.ndarray, radius: np.ndarray, expected: tuple[int, float]) -> None:
    found = match(true, predicted, radius)
    assert matched_count(true, predicted, radius) == len(found.true) == expected[0]
    assert found.distance.sum() == pytest.approx(expected[1], abs=1e-7)
    assert (np.diff(found.true) > 0).all()
    assert len(set(found.predicted.tolist())) == len(found.predicted)
    apart = distances(true, predicted)[found.true, found.predicted]
    np.testing.assert_array_equal(found.distance, apart)
    assert (apart <= np.broadcast_to(radius, (len(true),))[found.true]).all()


@pytest.mark.parametrize("seed", range(8))
def test_size_and_distance_are_those_of_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(250):
        case = random_case(rng, 6)
        check(*case, by_enumeration(*case))


@pytest.mark.parametrize("seed", range(4))
def test_size_and_distance_are_those_of_a_dense_assignment(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    for _ in range(250):
        case = random_case(rng, 25)
        check(*case, by_assignment(*case))


def test_size_is_that_of_networkx() -> None:
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(5)
    for _ in range(200):
        true, predicted, radius = random_case(rng, 30)
        rows, columns = np.nonzero(distances(true, predicted) <= radius[:, None])
        graph = networkx.Graph()
        graph.add_nodes_from(("true", row) for row in range(len(true)))
        graph.add_edges_from((("true", row), ("predicted", column)) for row, column in zip(rows, columns, strict=True))
        tops = [("true", row) for row in range(len(true))]
        expected = len(networkx.bipartite.hopcroft_karp_matching(graph, tops)) // 2
        assert matched_count(true, predicted, radius) == expected


def test_a_crowd_is_matched_as_by_a_dense_assignment() -> None:
    rng = np.random.default_rng(2)
    true = rng.uniform(0, 300, (400, 2))
    predicted = np.concatenate([true[:300] + rng.normal(0, 6, (300, 2)), rng.uniform(0, 300, (150, 2))])
    for radius in (2.0, 9.0, 25.0, 70.0):
        check(true, predicted, np.full(400, radius), by_assignment(true, predicted, np.full(400, radius)))


@pytest.mark.parametrize("seed", range(6))
def test_gains_add_up_to_the_size_of_every_prefix(seed: int) -> None:
    rng = np.random.default_rng(200 + seed)
    for _ in range(150):
        true, predicted, radius = random_case(rng, 12)
        scores = rng.integers(0, 5, len(predicted)) / 4  # with ties
        found = np.cumsum(gains(true, predicted, scores, radius))
        order = np.argsort(-scores, kind="stable")
        expected = [by_assignment(true, predicted[order[: k + 1]], radius)[0] for k in range(len(order))]
        assert found.tolist() == expected


def test_gains_of_a_crowd_are_the_sizes_of_its_prefixes() -> None:
    rng = np.random.default_rng(8)
    true, predicted, scores = rng.uniform(0, 200, (500, 2)), rng.uniform(0, 200, (600, 2)), rng.random(600)
    for radius in (3.0, 8.0, 20.0):
        total = np.cumsum(gains(true, predicted, scores, radius))
        order = np.argsort(-scores)
        for k in (1, 50, 200, 333, 480, 600):
            assert total[k - 1] == by_assignment(true, predicted[order[:k]], np.full(500, radius))[0]


numbers = st.one_of(st.integers(0, 6).map(float), st.floats(0, 6, width=32))
points = st.lists(st.tuples(numbers, numbers), max_size=8).map(lambda found: np.array(found, float).reshape(-1, 2))


@settings(max_examples=300, deadline=None)
@given(points, points, st.sampled_from([0.0, 1.0, 2.0, 3.5, 20.0]), st.randoms(use_true_random=False))
def test_order_and_sides_do_not_matter(true, predicted, radius, random) -> None:
    found = match(true, predicted, radius)
    swapped = match(predicted, true, radius)
    assert len(found.true) == len(swapped.true)
    assert found.distance.sum() == pytest.approx(swapped.distance.sum(), abs=1e-9)
    a, b = list(range(len(true))), list(range(len(predicted)))
    random.shuffle(a)
    random.shuffle(b)
    again = match(true[a], predicted[b], radius)

    def places(one, heads, others):
        pairs = zip(heads[one.true].tolist(), others[one.predicted].tolist(), strict=True)
        return sorted((tuple(x), tuple(y)) for x, y in pairs)

    assert places(again, true[a], predicted[b]) == places(found, true, predicted)


@settings(max_examples=200, deadline=None)
@given(points, points, st.lists(st.floats(0, 9), max_size=6))
def test_several_radii_are_as_one_at_a_time(true, predicted, radii) -> None:
    together = matched_counts(true, predicted, radii)
    assert together == [by_assignment(true, predicted, np.full(len(true), radius))[0] for radius in radii]


def test_several_radii_that_differ_by_head() -> None:
    """Neither is the larger for every head: the sizes are found for each by itself."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        true, predicted, first = random_case(rng, 10)
        second = rng.permutation(first)
        expected = [by_assignment(true, predicted, radius)[0] for radius in (first, second)]
        assert matched_counts(true, predicted, [first, second]) == expected


@pytest.mark.parametrize("few", [0, 30])
def test_flow_and_growing_agree(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """Dense images are solved as a flow; here all are (0), or those with more than 30 pairs."""
    monkeypatch.setattr(matching, "_FEW_PAIRS", few)
    rng = np.random.default_rng(few)
    for _ in range(300):
        true, predicted, radius = random_case(rng, 20)
        several = [radius, np.minimum(1.3 * radius, 5.0), rng.permutation(radius), 0.5 * radius]
        assert matched_counts(true, predicted, several) == [by_assignment(true, predicted, r)[0] for r in several]


@pytest.mark.parametrize("few", [0, 30])
def test_a_full_table_and_a_sparse_one_agree(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """Dense images are solved in a full table of costs; here all (0), or those with more than 30 pairs."""
    monkeypatch.setattr(matching, "_FEW_PAIRS", few)
    rng = np.random.default_rng(50 + few)
    for _ in range(300):
        case = random_case(rng, 20)
        check(*case, by_enumeration(*case) if max(len(case[0]), len(case[1])) < 7 else by_assignment(*case))


def test_a_crowd_within_one_radius_is_matched_by_its_short_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """3000 heads and 2500 predictions, 7.5 million pairs: all are matched before most pairs are looked at."""
    listed: list[int] = []
    real = matching._pairs

    def counted(heads, points, radii):
        found = real(heads, points, radii)
        listed.append(len(found.true))
        return found

    monkeypatch.setattr(matching, "_pairs", counted)
    rng = np.random.default_rng(0)
    true, predicted = rng.uniform(0, 70, (3000, 2)), rng.uniform(0, 70, (2500, 2))
    assert matched_count(true, predicted, 100.0) == 2500
    assert max(listed) < 3000 * 2500 / 4


def test_maximum_is_more_than_greedy() -> None:
    """The prediction in the middle is nearest to the first head, which has another; a greedy choice finds one pair."""
    true, predicted = np.array([[0.0, 0.0], [3.0, 0.0]]), np.array([[1.0, 0.0], [-2.0, 0.0]])
    found = match(true, predicted, 2.0)
    assert found.true.tolist() == [0, 1]
    assert found.predicted.tolist() == [1, 0]
    assert found.distance.tolist() == [2.0, 2.0]


def test_a_distance_equal_to_the_radius_is_a_pair() -> None:
    true, predicted = np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])
    assert matched_count(true, predicted, 5.0) == 1
    assert matched_count(true, predicted, np.nextafter(5.0, 0.0)) == 0
    diagonal = np.array([[1.0, 1.0]])
    assert matched_count(true, diagonal, np.sqrt(2.0)) == 1


def test_radius_zero_pairs_what_coincides_once() -> None:
    true, predicted = np.array([[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]]), np.array([[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]])
    found = match(true, predicted, 0.0)
    assert len(found.true) == 2
    assert found.distance.tolist() == [0.0, 0.0]


def test_empty_sides() -> None:
    none, some = np.zeros((0, 2)), np.array([[1.0, 2.0]])
    for true, predicted in ((none, none), (none, some), (some, none)):
        assert len(match(true, predicted, 3.0).true) == 0
        assert matched_counts(true, predicted, [1.0, 2.0]) == [0, 0]
        assert gains(true, predicted, np.ones(len(predicted)), 3.0).tolist() == [False] * len(predicted)
    assert matched_counts(some, some, []) == []
    assert matched_count([], [], np.zeros(0)) == 0


def test_far_coordinates_and_large_radii_stay_exact() -> None:
    rng = np.random.default_rng(4)
    true = rng.uniform(0, 20, (40, 2)) + 1e5
    predicted = rng.uniform(0, 20, (40, 2)) + 1e5
    check(true, predicted, np.full(40, 1e4), by_assignment(true, predicted, np.full(40, 1e4)))


def test_bad_input_is_named(monkeypatch) -> None:
    some = np.array([[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"shape \[n, 2\]; found \[1, 3\]"):
        match(np.ones((1, 3)), some, 1.0)
    with pytest.raises(ValueError, match="must be finite; found 1"):
        match(some, np.array([[np.nan, 1.0]]), 1.0)
    with pytest.raises(ValueError, match="at least 0"):
        match(some, some, -1.0)
    with pytest.raises(ValueError, match="one for each of 1 heads"):
        match(some, some, np.ones(3))
    with pytest.raises(ValueError, match="1 finite scores"):
        gains(some, some, np.ones(2), 1.0)
    monkeypatch.setattr(matching, "MAX_PAIRS", 50)
    many = np.zeros((10, 2))
    with pytest.raises(ValueError, match="100 pairs within a radius of up to 1 px; the most is 50"):
        match(many, many, 1.0)
    monkeypatch.setattr(matching, "MAX_PAIRS", 1000)
    monkeypatch.setattr(matching, "MAX_MATCHED", 50)
    with pytest.raises(ValueError, match=r"100 pairs .* at most 50: use a smaller radius, or a range such as 1:100"):
        match(many, many, 1.0)
    assert matched_count(many, many, 1.0) == 10
    monkeypatch.setattr(matching, "_FEW_PAIRS", 50)
    assert len(match(many, many, 1.0).true) == 10  # a full table has no such bound
    far = np.arange(20.0).reshape(10, 2) * 10
    assert matched_count(far, far, 1.0) == 10
