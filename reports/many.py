"""Losses over many cells: which does well on several datasets, networks or noises, and are they told apart?

Pure functions of scores, lower is better: numpy and scipy, random numbers from the generator that the caller hands
over. Of one cell speaks `reports.stats`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from reports.stats import Array, Interval, check_options, finite_scores

__all__ = [
    "MIN_CELLS",
    "MIN_LOSSES",
    "Ranking",
    "friedman_nemenyi",
    "interquartile_mean",
    "performance_profile",
    "probability_of_improvement",
]

MIN_CELLS = 5
"""Fewest cells (datasets, networks, noises) that losses are ranked over (ours): Nemenyi's test is asymptotic."""
MIN_LOSSES = 3
"""Fewest losses of a ranking: two are compared by `compare`."""


class Ranking(NamedTuple):
    """Losses ranked over cells.

    Attributes:
        mean_ranks: Mean rank of each loss over the cells, 1 the best, ties averaged; in the table's order.
        p: Friedman's test that all losses are equal.
        critical_difference: Mean ranks nearer than this are not told apart (Nemenyi).
        cells: Number of cells.
        groups: Losses not told apart: maximal runs of at least two indices, in order of rank; they may overlap.
    """

    mean_ranks: Array
    p: float
    critical_difference: float
    cells: int
    groups: tuple[tuple[int, ...], ...]


def probability_of_improvement(
    a: Sequence[npt.ArrayLike],
    b: Sequence[npt.ArrayLike],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Probability that a run of `a` has a lower score than a run of `b`, on a dataset drawn at random from these.

    The mean over datasets of P(A < B) + P(A = B) / 2, which is 1 - U / (S_a S_b) with Mann and Whitney's U of `a`
    (Agarwal et al., NeurIPS 2021). Percentile interval of a bootstrap of the runs, stratified by dataset: it says
    nothing about further datasets, is too short for few runs, and has no width where the runs do not overlap.

    Args:
        a: For each dataset the scores of the runs of one loss, lower is better.
        b: The same of the other, datasets in the same order.
        rng: Draws the resamples.
        level: Coverage aimed at (0.95: convention).
        resamples: Number of resamples (2000: ours).

    Returns:
        The interval; without bounds if a dataset has one run only.

    Raises:
        ValueError: If `a` and `b` have no datasets, or different numbers of them, or a dataset has no run.
    """
    check_options(level, resamples)
    if len(a) != len(b) or not len(a):
        raise ValueError(f"found {len(a)} and {len(b)} datasets; expected the same, at least one, in the same order")
    estimate, drawn = 0.0, np.zeros(resamples)
    left, right = [finite_scores(x) for x in a], [finite_scores(x) for x in b]
    for x, y in zip(left, right, strict=True):
        better = (x[:, None] < y) + (x[:, None] == y) / 2
        estimate += better.mean() / len(left)
        weights = [rng.multinomial(len(z), np.full(len(z), 1 / len(z)), resamples) / len(z) for z in (x, y)]
        drawn += ((weights[0] @ better) * weights[1]).sum(axis=1) / len(left)
    return _stratified(estimate, drawn, level, min(len(x) for x in left + right))


def interquartile_mean(
    scores: Sequence[npt.ArrayLike], *, rng: np.random.Generator, level: float = 0.95, resamples: int = 2000
) -> Interval:
    """Mean of the middle half of all runs of all datasets: less moved by one failed run than the mean.

    `scipy.stats.trim_mean(x, 0.25)` of the pooled scores (Agarwal et al., NeurIPS 2021). Percentile interval of a
    bootstrap of the runs, stratified by dataset; it says nothing about further datasets, and is too short for few runs.

    Args:
        scores: For each dataset the runs' errors, normalised so that datasets can be pooled; lower is better.
        rng: Draws the resamples.
        level: Coverage aimed at (0.95: convention).
        resamples: Number of resamples (2000: ours).

    Returns:
        The interval; without bounds if a dataset has one run only.

    Raises:
        ValueError: If there is no dataset, or one without runs.
    """
    check_options(level, resamples)
    found = _datasets(scores)
    drawn = np.concatenate([x[rng.integers(len(x), size=(resamples, len(x)))] for x in found], axis=1)
    estimate = float(stats.trim_mean(np.concatenate(found), 0.25))
    return _stratified(estimate, stats.trim_mean(drawn, 0.25, axis=1), level, min(len(x) for x in found))


def performance_profile(scores: Sequence[npt.ArrayLike], thresholds: npt.ArrayLike) -> Array:
    """Share of runs whose error is at most each threshold, mean over the datasets: (thresholds,).

    Args:
        scores: For each dataset the runs' errors, normalised so that one threshold fits all.
        thresholds: (T,) thresholds.

    Raises:
        ValueError: If there is no dataset, or one without runs.
    """
    at = np.asarray(thresholds, float)
    shares = [np.searchsorted(np.sort(x), at, side="right") / len(x) for x in _datasets(scores)]
    return np.asarray(np.mean(shares, axis=0), float)


def friedman_nemenyi(table: npt.ArrayLike, *, level: float = 0.05) -> Ranking:
    """Ranks k losses over N cells: Friedman's test, and Nemenyi's critical difference (Demsar, JMLR 2006).

    CD = q sqrt(k (k + 1) / (6 N)), q the upper `level` quantile of the studentised range of k over infinite degrees of
    freedom, divided by sqrt(2). Losses whose mean ranks are nearer than CD are not told apart.

    Args:
        table: (N, k) scores, lower is better.
        level: Chance of telling any equal losses apart (0.05: convention).

    Raises:
        ValueError: If there are fewer than `MIN_CELLS` cells or `MIN_LOSSES` losses, or a score is missing.
    """
    check_options(level)
    scores = np.asarray(table, float)
    if scores.ndim != 2 or len(scores) < MIN_CELLS or scores.shape[1] < MIN_LOSSES:
        raise ValueError(
            f"found a table of shape {scores.shape}; a ranking needs at least {MIN_CELLS} cells (rows) of at least"
            f" {MIN_LOSSES} losses (columns): run the losses on more datasets, networks or noises"
        )
    missing = np.argwhere(~np.isfinite(scores))
    if len(missing):
        raise ValueError(
            f"{len(missing)} of {scores.size} scores are missing or not finite, the first in cell {missing[0, 0]} of"
            f" loss {missing[0, 1]}; keep only cells that every loss has"
        )
    cells, count = scores.shape
    ranks = stats.rankdata(scores, axis=1).mean(axis=0)
    tied = bool(np.all(scores == scores[:, :1]))  # Friedman's statistic is then 0 / 0
    p = 1.0 if tied else float(stats.friedmanchisquare(*scores.T).pvalue)
    quantile = float(stats.studentized_range.isf(level, count, np.inf)) / np.sqrt(2)
    critical = float(quantile * np.sqrt(count * (count + 1) / (6 * cells)))
    return Ranking(np.asarray(ranks, float), p, critical, cells, _groups(ranks, critical))


def _groups(ranks: Array, critical: float) -> tuple[tuple[int, ...], ...]:
    """Maximal runs of at least two losses, in order of rank, that span less than the critical difference."""
    order = np.argsort(ranks, kind="stable")
    groups: list[tuple[int, ...]] = []
    reached = 0
    for first in range(len(order)):
        end = first + int(np.sum(ranks[order[first:]] - ranks[order[first]] < critical))
        if end - first > 1 and end > reached:
            groups.append(tuple(int(index) for index in order[first:end]))
        reached = max(reached, end)
    return tuple(groups)


def _stratified(estimate: float, drawn: Array, level: float, fewest: int) -> Interval:
    """The percentile interval of a statistic resampled within datasets, of which one has only `fewest` runs."""
    if fewest < 2:
        return Interval(float(estimate), np.nan, np.nan, "none: a dataset has 1 run", fewest, 0)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high), "bootstrap of runs within datasets", fewest, 0)


def _datasets(scores: Sequence[npt.ArrayLike]) -> list[Array]:
    if not len(scores):
        raise ValueError("found no datasets; expected a list with the scores of the runs on each")
    return [finite_scores(x) for x in scores]
