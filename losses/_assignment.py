"""The assignment problem between points, exactly, from the few pairs that can matter.

n targets, Q >= n proposals, and a cost for every pair:

    c_ij = price * |target_i - proposal_j| - bonus_j

Every target gets a proposal of its own so that the total is least. A dense solver forms all n Q costs. Here every
target starts with its k cheapest proposals, and one *escape* beside them, a place of its own that costs e_i, a lower
bound of all pairs that target i leaves out. The problem with escapes is a relaxation: any matching of the full problem
becomes one that costs no more when its left-out pairs are replaced by escapes. So if its optimum uses no escape, that
optimum is a matching of the full problem and no other is cheaper: this is the certificate of every result. If targets
escape, they and their rivals (who share a proposal with them) get more proposals, and the problem is solved again.

The k cheapest and the bound come from one k-d tree. With z_j = max(bonus) - bonus_j >= 0, a pair costs, but for a
constant, price |t - p| + z_j, which is at least |(price t, 0) - (price p, z_j)|, a distance in three dimensions.

Where many targets crowd at few proposals, candidates become so many that the dense solver is the cheaper one; small
problems, and those with more targets than proposals, are dense from the start.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["assign"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_DENSE = 120_000
"""Pairs up to which all are formed: building the tree takes longer (ours, measured)."""

_FEW = 25
"""Targets up to which all pairs are formed, for the same reason (ours, measured)."""

_FIRST = 24
"""Proposals a target starts with (ours, measured)."""

_SHARE = 32
"""All pairs are formed once candidates are more than this part of them, and more than four times the first (ours)."""

_ROUNDS = 12
"""Relaxations solved before all pairs are formed (ours)."""


class _Edges(NamedTuple):
    """Pairs with a cost above 0, sorted by target: all (E,). Column j < Q is a proposal, Q + i the escape of target i.

    Every target has one at least.
    """

    row: Indices
    column: Indices
    cost: Floats

    def kept(self, mask: NDArray[np.bool_]) -> _Edges:
        return _Edges(self.row[mask], self.column[mask], self.cost[mask])

    def runs(self) -> tuple[Indices, Indices]:
        """Where each target's edges start, and for each edge the number of its run."""
        new = np.empty(len(self.row), dtype=bool)
        new[:1] = True
        np.not_equal(self.row[1:], self.row[:-1], out=new[1:])
        return np.flatnonzero(new), np.cumsum(new) - 1


def assign(targets: Floats, proposals: Floats, bonus: Floats, price: float) -> tuple[Indices, Indices]:
    """Matches targets with proposals one to one at the least total of price * distance - bonus.

    All targets are matched, or all proposals if they are fewer. The total is the least up to rounding. Where several
    matchings cost the same (duplicates of points, prices of 0) any of them may be returned.

    Args:
        targets: (n, 2) places, pixels.
        proposals: (Q, 2) places, pixels.
        bonus: (Q,) what matching a proposal is worth.
        price: Cost of one pixel of distance, at least 0.

    Returns:
        Indices of the matched targets, ascending, and of their proposals, both (min(n, Q),).

    Raises:
        ValueError: If a number is not finite.
    """
    n, q = len(targets), len(proposals)
    if _FEW < n <= q and n * q > _DENSE:
        found = _sparse(targets, proposals, bonus, price)
        if found is not None:
            return np.arange(n), found
    return _dense(targets, proposals, bonus, price)


def _dense(targets: Floats, proposals: Floats, bonus: Floats, price: float) -> tuple[Indices, Indices]:
    """The same from all pairs."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    if not (len(targets) and len(proposals)):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    # One row per target: with fewer rows than columns the solver searches one path per target.
    cost = cdist(targets, proposals)
    cost *= price
    cost -= bonus
    target, proposal = linear_sum_assignment(cost)
    return target.astype(np.int64, copy=False), proposal.astype(np.int64, copy=False)


def _sparse(targets: Floats, proposals: Floats, bonus: Floats, price: float, first: int = _FIRST) -> Indices | None:
    """The proposal of every target, (n,), from candidates; None where forming all pairs is the cheaper way."""
    n, q = len(targets), len(proposals)
    search = _Search(targets, proposals, bonus, price)
    wanted = np.full(n, min(first, q))
    edges = search.cheapest(np.arange(n), int(wanted[0]))
    for _ in range(_ROUNDS):
        found = _relaxed(edges, n, q + n)
        escaped = found >= q
        if not escaped.any():
            return found
        # Prices rise around an escape: rivals left as they are would be the next to escape.
        real = edges.column < q
        contested = np.zeros(q, dtype=bool)
        contested[edges.column[real & escaped[edges.row]]] = True
        escaped[edges.row[real][contested[edges.column[real]]]] = True
        wanted[escaped] = np.minimum(2 * wanted[escaped], q)
        if wanted.sum() > max(n * q // _SHARE, 4 * first * n):
            return None
        parts = [edges.kept(~escaped[edges.row])]
        parts += [search.cheapest(np.flatnonzero(escaped & (wanted == k)), int(k)) for k in np.unique(wanted[escaped])]
        edges = _merged(parts)
    return None


class _Search:
    """Finds the candidates of targets."""

    def __init__(self, targets: Floats, proposals: Floats, bonus: Floats, price: float) -> None:
        from scipy.spatial import cKDTree

        self.targets, self.proposals, self.price = targets, proposals, price
        self.lack = bonus.max() - bonus
        places = np.column_stack([proposals * price, self.lack])
        # Built unbalanced in half the time; the searches are as fast.
        self.tree = cKDTree(places, balanced_tree=False, compact_nodes=False)
        self.queries = np.column_stack([targets * price, np.zeros(len(targets))])

    def cheapest(self, rows: Indices, k: int) -> _Edges:
        """About the k cheapest pairs of some targets, and their escapes at the bound of all others.

        Costs are raised by max(bonus) + 1, the same for all pairs: the solver wants them above 0.
        """
        bound, near = map(np.asarray, self.tree.query(self.queries[rows], k=range(1, k + 1)))
        away = self.targets[rows, None] - self.proposals[near]
        cost = np.sqrt(np.square(away, out=away).sum(-1)) * self.price + self.lack[near]
        # An escape costs less than the pairs beyond the bound and is nobody else's: those are of no use.
        mask = np.ones((len(rows), k + 1), dtype=bool)
        mask[:, 1:] = cost <= bound[:, -1:]
        escape = len(self.proposals) + rows[:, None]
        return _Edges(
            np.repeat(rows, mask.sum(1)),
            np.concatenate([escape, near], axis=1)[mask],
            np.concatenate([bound[:, -1:], cost], axis=1)[mask] + 1,
        )


def _merged(parts: list[_Edges]) -> _Edges:
    """Edges of different targets as one, in the order of the targets."""
    row, column, cost = (np.concatenate(field) for field in zip(*parts, strict=True))
    order = np.argsort(row, kind="stable")
    return _Edges(row[order], column[order], cost[order])


def _relaxed(edges: _Edges, n: int, columns: int) -> Indices:
    """The cheapest matching of all n targets over some edges: the column of each, (n,).

    Every target must have an edge that nobody else has, as its escape is.
    """
    found, edges = _peeled(edges, n, columns)
    if len(edges.row):
        open_rows, column = _solved(edges, columns)
        found[open_rows] = column
    return found


def _peeled(edges: _Edges, n: int, columns: int) -> tuple[Indices, _Edges]:
    """Settles the targets that nobody competes with, and drops edges that no optimum needs; exact.

    The cheapest edge of a target to a place that no other target has an edge to is always there for it: all its dearer
    edges go, and if it is the cheapest of all the target is settled. Places that lose edges may be a target's own now.

    Returns:
        The columns of settled targets, (n,), -1 for the others, and the edges of the others.
    """
    found = np.full(n, -1, dtype=np.int64)
    while len(edges.row):
        starts, run = edges.runs()
        own = (np.bincount(edges.column, minlength=columns) == 1)[edges.column]
        limit = np.minimum.reduceat(np.where(own, edges.cost, np.inf), starts)
        settled = (np.minimum.reduceat(edges.cost, starts) >= limit)[run]
        limit = limit[run]
        chosen = own & (edges.cost == limit)
        # A target's escape is its first edge: where a proposal costs the same, that is written last and stays.
        found[edges.row[settled & chosen]] = edges.column[settled & chosen]
        keep = ~settled & (chosen | (edges.cost < limit))
        if keep.all():
            break
        edges = edges.kept(keep)
    return found, edges


def _solved(edges: _Edges, columns: int) -> tuple[Indices, Indices]:
    """Targets that have edges, and the column of each in their cheapest matching."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    starts, _ = edges.runs()
    used = np.zeros(columns, dtype=bool)
    used[edges.column] = True
    compact = (np.cumsum(used) - 1)[edges.column]
    # With an own place for every target, and another that some of them share, columns outnumber rows. The solver's
    # way for square problems, which may not end in floating point, is never taken.
    shape = (len(starts), int(used.sum()))
    graph = csr_array((edges.cost, compact, np.append(starts, len(edges.row))), shape=shape)
    _, column = min_weight_full_bipartite_matching(graph)
    return edges.row[starts], np.flatnonzero(used)[column]
