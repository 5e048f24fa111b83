"""Which predicted points are heads: exact maximum matching of two sets of points.

A prediction may stand for a head if it lies within the head's radius, and each stands for one at most. The number of
true positives is the size of a largest set of such pairs (a maximum matching), never that of a greedy choice; it does
not depend on which of several maximum matchings is found. Numpy and scipy only; sparse: time and memory grow with the
number of pairs within the radius.

    match(true, predicted, 8.0)            # the pairs: a maximum matching of least total distance
    matched_count(true, predicted, 8.0)    # its size alone
    matched_counts(true, predicted, radii) # its size for several radii, from one search for neighbours
    gains(true, predicted, scores, 8.0)    # its size for every threshold on the score at once
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array, csr_matrix
from scipy.sparse.csgraph import maximum_flow, min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

__all__ = ["MAX_MATCHED", "MAX_PAIRS", "Matching", "gains", "match", "matched_count", "matched_counts"]

MAX_PAIRS = 10_000_000
"""Pairs within the radius that one image may have (ours): 1.2 GB. More is a radius that holds the whole crowd."""

MAX_MATCHED = 4_000_000
"""Of these `match` takes so many (ours; 6 to 9 million took 52 to 57 s), unless they are more than a fourth of all."""

_FEW_PAIRS = 20_000
"""Up to so many pairs, growing a matching path by path is faster than scipy's maximum flow."""

_FULL = 4
"""With more than a fourth of all pairs possible, and more than `_FEW_PAIRS`, a full table of costs is faster."""

_LADDER = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the smallest radius that are tried before it: in a dense image all are matched by the first of them."""

_SLACK = 1 + 1e-9
"""The tree compares squares; it is asked for a little more, and what it finds is compared exactly."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Matching(NamedTuple):
    """Matched pairs, in the order of `true`.

    Attributes:
        true: int64 [k], indices of heads, increasing.
        predicted: int64 [k], index of the prediction of each.
        distance: float64 [k], between the two, pixels.
    """

    true: Ints
    predicted: Ints
    distance: Floats


_NO_PAIRS = Matching(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def match(true: ArrayLike, predicted: ArrayLike, radius: ArrayLike) -> Matching:
    """A maximum matching, and among all maximum matchings one of least total distance.

    The least total distance is ours: the official evaluators take any maximum matching, so that their true positives
    by level, unlike their total, depend on the order of the files. Both sides are sorted by coordinates before they
    are matched: the same points in another order give the same pairs (up to exact duplicates).

    Args:
        true: [n, 2] heads, pixels.
        predicted: [m, 2] predicted points, pixels.
        radius: One radius, or [n], one a head; pixels. A pair is possible if sqrt(dx^2 + dy^2) <= radius, in float64.

    Raises:
        ValueError: If a shape is wrong, a number is not finite, a radius is negative, or there are more than
            `MAX_PAIRS`, or `MAX_MATCHED`, possible pairs.
    """
    heads, points, radii = _checked(true, predicted, [radius])
    rows, columns = np.lexsort((radii[0], *heads.T[::-1])), np.lexsort(points.T[::-1])
    pairs = _pairs(heads[rows], points[columns], radii[0][rows])
    if not len(pairs.true):
        return pairs
    chosen = _cheapest(pairs, len(heads), len(points))
    row, column, distance = rows[pairs.true[chosen]], columns[pairs.predicted[chosen]], pairs.distance[chosen]
    order = np.argsort(row, kind="stable")
    return Matching(row[order], column[order], distance[order])


def matched_count(true: ArrayLike, predicted: ArrayLike, radius: ArrayLike) -> int:
    """The size of a maximum matching: the number of true positives. Arguments and errors as `match`."""
    return matched_counts(true, predicted, [radius])[0]


def matched_counts(true: ArrayLike, predicted: ArrayLike, radii: Sequence[ArrayLike]) -> list[int]:
    """The sizes of maximum matchings for several radii (each as `match` takes it), from one search for neighbours.

    Raises:
        ValueError: See `match`; the largest radius of each head counts.
    """
    heads, points, values = _checked(true, predicted, radii)
    if not len(heads) or not len(points) or not len(values):
        return [0] * len(values)
    found: dict[int, int] = {}
    full, size = min(len(heads), len(points)), 0
    pairs, reach, last = _NO_PAIRS, np.full(len(heads), -1.0), np.full(len(heads), np.inf)
    graph: _Graph | None = None
    # By increasing radius: what has been matched stays matched, and when all are, a larger radius needs no search.
    steps = len(values)
    smallest = min(values, key=lambda radius: float(radius.sum()))
    if _expected(heads, points, smallest) > _FEW_PAIRS:
        values = [*values, *(share * smallest for share in _LADDER)]
    order = sorted(range(len(values)), key=lambda place: float(values[place].sum()))
    for step, place in enumerate(order):
        radius = values[place]
        grows = bool((radius >= last).all())
        if not (grows and size == full):
            if (radius > reach).any():
                # Neighbours of the radii ahead, but of no more than thrice this one: the rest may never be needed.
                ahead = np.max([values[other] for other in order[step:]], axis=0)
                reach = np.minimum(ahead, 3 * radius)
                pairs = _by_prediction(_pairs(heads, points, reach))
            near = pairs.distance <= radius[pairs.true]
            rows, columns = pairs.true[near], pairs.predicted[near]
            if len(rows) > _FEW_PAIRS:
                graph, size = None, _flow(rows, columns, len(heads), len(points))
            else:
                graph = _graph(rows, columns, len(heads), len(points), graph if grows else None)
                size = _grown(graph)
        found[place], last = size, radius
    return [found[place] for place in range(steps)]


def gains(true: ArrayLike, predicted: ArrayLike, scores: ArrayLike, radius: ArrayLike) -> NDArray[np.bool_]:
    """Whether each prediction, taken by decreasing score, raises the size of the maximum matching.

    The sets of predictions that can be matched together are the independent sets of a matroid: a prediction that does
    not raise the size when it is added never will. So `np.cumsum(gains(...))[k - 1]` is the exact number of true
    positives of the k surest predictions, for every k. By augmenting paths; what a search without success has visited
    can be on no augmenting path later and is never visited again.

    Args:
        true: [n, 2] heads, pixels.
        predicted: [m, 2] predicted points, pixels.
        scores: [m]; equal ones are taken in the order given.
        radius: As in `match`.

    Returns:
        bool [m], in the order of `np.argsort(-scores, kind="stable")`.

    Raises:
        ValueError: See `match`; or the scores have another shape or are not finite.
    """
    heads, points, radii = _checked(true, predicted, [radius])
    values = np.asarray(scores, np.float64)
    if values.shape != (len(points),) or not np.isfinite(values).all():
        raise ValueError(f"expected {len(points)} finite scores, one a prediction; found shape {list(values.shape)}")
    pairs = _by_prediction(_pairs(heads, points[np.argsort(-values, kind="stable")], radii[0]))
    graph = _graph(pairs.true, pairs.predicted, len(heads), len(points))
    return np.array([_augment(graph, one) for one in range(len(points))], dtype=bool)


class _Graph(NamedTuple):
    """Predictions, the heads within their reach, and a matching that grows.

    Attributes:
        near: Heads within reach of all predictions, one after another: prediction j's are `near[starts[j] : ends[j]]`.
        starts, ends: See `near`.
        owner: The prediction that each head is matched with, or -1.
        held: The head that each prediction is matched with, or -1.
        dead: 1 for heads from which no free head can be reached, now or later.
    """

    near: list[int]
    starts: list[int]
    ends: list[int]
    owner: list[int]
    held: list[int]
    dead: bytearray


def _by_prediction(pairs: Matching) -> Matching:
    """Pairs sorted by prediction, the nearest head first."""
    order = np.lexsort((pairs.distance, pairs.predicted))
    return Matching(pairs.true[order], pairs.predicted[order], pairs.distance[order])


def _graph(rows: Ints, columns: Ints, n: int, m: int, before: _Graph | None = None) -> _Graph:
    """The graph of pairs sorted by prediction, with the matching of a graph `before` it, else none."""
    ends = np.cumsum(np.bincount(columns, minlength=m)).tolist()
    owner, held = (before.owner, before.held) if before is not None else ([-1] * n, [-1] * m)
    return _Graph(rows.tolist(), [0, *ends[:-1]], ends, owner, held, bytearray(n))


def _grown(graph: _Graph) -> int:
    """Makes the matching of a graph a maximum one; its size."""
    for one, head in enumerate(graph.held):
        if head < 0 and graph.ends[one] > graph.starts[one]:
            _augment(graph, one)
    return sum(head >= 0 for head in graph.held)


def _augment(graph: _Graph, first: int) -> bool:
    """Searches an augmenting path from a prediction, breadth first, and flips it, or marks what leads nowhere."""
    near, starts, ends, owner, held, dead = graph
    queue, came = [first], dict[int, int]()  # came: the prediction from which a head was reached
    for one in queue:  # grows while it is walked through
        for head in near[starts[one] : ends[one]]:
            if dead[head] or head in came:
                continue
            came[head] = one
            if owner[head] >= 0:
                queue.append(owner[head])
                continue
            while head >= 0:  # back to the first, each prediction taking the head that was reached from it
                one = came[head]
                owner[head], held[one], head = one, head, held[one]
            return True
    for head in came:
        dead[head] = 1
    return False


def _cheapest(pairs: Matching, n: int, m: int) -> Ints:
    """Places in `pairs` of a maximum matching of least total distance.

    What is no pair costs more than the total of any matching; then a full assignment of least cost is a maximum
    matching of least distance. In a sparse table every head has a column of its own that stands for being missed.
    """
    costs = pairs.distance + 1.0  # a cost of 0 would be no entry; one more for each pair changes nothing
    missed = (costs.max() + 1.0) * (min(n, m) + 1.0)
    crowded = len(costs) > _FEW_PAIRS and _FULL * len(costs) > n * m
    if len(costs) > MAX_MATCHED and not crowded:
        raise ValueError(
            f"{n} heads and {m} predictions have {len(costs)} pairs within their radii, those of least distance are "
            f"found among at most {MAX_MATCHED}: use a smaller radius, or a range such as 1:100, which only counts them"
        )
    if crowded:
        full, place = np.full((n, m), missed), np.full((n, m), -1, np.int32)
        full[pairs.true, pairs.predicted], place[pairs.true, pairs.predicted] = costs, np.arange(len(costs))
        chosen = place[linear_sum_assignment(full)]
        return chosen[chosen >= 0].astype(np.int64)
    every = np.arange(n)
    rows, columns = np.concatenate([pairs.true, every]), np.concatenate([pairs.predicted, m + every])
    table = csr_matrix((np.concatenate([costs, np.full(n, missed)]), (rows, columns)), shape=(n, m + n))
    row, column = min_weight_full_bipartite_matching(table)
    keys = pairs.true * m + pairs.predicted
    order = np.argsort(keys)
    real = column < m
    chosen = row[real].astype(np.int64) * m + column[real]
    return order[np.searchsorted(keys, chosen, sorter=order)]


def _flow(rows: Ints, columns: Ints, n: int, m: int) -> int:
    """The size of a maximum matching: a flow of ones from a source over heads and predictions to a sink.

    scipy's `maximum_bipartite_matching` is faster on sparse images, and needs exponential time on dense ones.
    """
    source, sink = n + m, n + m + 1
    tails = np.concatenate([rows, np.full(n, source), n + np.arange(m)])
    ends = np.concatenate([n + columns, np.arange(n), np.full(m, sink)])
    graph = csr_array((np.ones(len(tails), np.int32), (tails, ends)), shape=(n + m + 2, n + m + 2))
    return int(maximum_flow(graph, source, sink, method="dinic").flow_value)


def _pairs(heads: Floats, points: Floats, radii: Floats) -> Matching:
    """All pairs within the radius of their head."""
    if not len(heads) or not len(points):
        return _NO_PAIRS
    tree = cKDTree(points)
    # Heads of like radius are searched together (within a factor of two): the tree knows one radius at a time.
    classes = np.ceil(np.log2(np.maximum(radii, 1.0))).astype(np.int64)
    groups = []
    for one in np.unique(classes):
        members = np.flatnonzero(classes == one)
        groups.append((members, cKDTree(heads[members]), float(radii[members].max()) * _SLACK))
    total = sum(int(group.count_neighbors(tree, reach)) for _, group, reach in groups) if _many(heads, points) else 0
    if total > MAX_PAIRS:
        raise ValueError(
            f"{len(heads)} heads and {len(points)} predictions have {total} pairs within a radius of up to "
            f"{radii.max():g} px; the most is {MAX_PAIRS}: use a smaller radius"
        )
    rows, columns = [], []
    for members, group, reach in groups:
        near = group.sparse_distance_matrix(tree, reach, output_type="ndarray")
        rows.append(members[near["i"]])
        columns.append(near["j"])
    row, column = np.concatenate(rows).astype(np.int64), np.concatenate(columns).astype(np.int64)
    difference = heads[row] - points[column]
    distance = np.sqrt(difference[:, 0] ** 2 + difference[:, 1] ** 2)
    inside = distance <= radii[row]
    return Matching(row[inside], column[inside], distance[inside])


def _expected(heads: Floats, points: Floats, radii: Floats) -> float:
    """How many pairs there would be if both sides were spread evenly over the rectangle that holds the heads."""
    area = float(np.prod(np.ptp(heads, axis=0)))
    share = np.pi * float((radii**2).mean()) / area if area else 1.0
    return len(heads) * len(points) * min(share, 1.0)


def _many(heads: Floats, points: Floats) -> bool:
    """Whether there could be more than `MAX_PAIRS` pairs at all."""
    return len(heads) * len(points) > MAX_PAIRS


def _checked(true: ArrayLike, predicted: ArrayLike, radii: Sequence[ArrayLike]) -> tuple[Floats, Floats, list[Floats]]:
    """Both sides as float64 [., 2], and each radius as float64 [n]."""
    heads, points = _points("true", true), _points("predicted", predicted)
    return heads, points, [_radius(radius, len(heads)) for radius in radii]


def _points(name: str, values: ArrayLike) -> Floats:
    found = np.asarray(values, np.float64)
    if found.size == 0:
        return np.zeros((0, 2))
    if found.ndim != 2 or found.shape[1] != 2:
        raise ValueError(f"{name} points must have the shape [n, 2]; found {list(found.shape)}")
    if not np.isfinite(found).all():
        raise ValueError(
            f"{name} points must be finite; found {int((~np.isfinite(found)).any(axis=1).sum())} that are not"
        )
    return found


def _radius(radius: ArrayLike, n: int) -> Floats:
    found = np.asarray(radius, np.float64)
    if found.shape not in ((), (n,)):
        raise ValueError(f"a radius is one number or one for each of {n} heads; found the shape {list(found.shape)}")
    if not np.isfinite(found).all() or (found < 0).any():
        raise ValueError("a radius must be finite and at least 0")
    return np.broadcast_to(found, (n,)).astype(np.float64)
