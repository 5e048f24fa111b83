"""Intervals and tests for losses that were trained with several seeds and measured on the same test images.

A cell is one loss on one test set: S trained networks (seeds) each predict a count for each of I images. With errors
e[s, i] = predicted[s, i] - true[i], each seed has

* MAE = mean |e|; RMSE = sqrt(mean e^2), which the literature prints as "MSE"; bias = mean e;
* NAE = mean |e| / t over the images with t > 0;

and a cell's estimate is the mean of these over its seeds. Both the seeds and the images are samples: another seed gives
another network, another test set other images. What is reported here about a loss counts both, unless its name says
otherwise. Pure functions of arrays: numpy and scipy, random numbers from the generator that the caller hands over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

__all__ = [
    "MIN_CELLS",
    "MIN_LOSSES",
    "Comparison",
    "Interval",
    "Metric",
    "Ranking",
    "compare",
    "friedman_nemenyi",
    "holm",
    "interquartile_mean",
    "interval",
    "per_seed",
    "performance_profile",
    "probability_of_improvement",
    "seed_interval",
]

Array = npt.NDArray[np.float64]
Metric = Literal["mae", "rmse", "nae", "bias"]

MIN_CELLS = 5
"""Fewest cells (datasets, networks, noises) that losses are ranked over (ours): Nemenyi's test is asymptotic."""
MIN_LOSSES = 3
"""Fewest losses of a ranking: two are compared by `compare`."""
_MIN_IMAGES = 8
"""Fewest images that are resampled (ours): of fewer, too many resamples repeat one image and have no spread."""
_CHUNK = 1 << 20
"""Numbers drawn at a time when resampling: bounds the memory at some tens of MiB."""


class Interval(NamedTuple):
    """An estimate with a confidence interval.

    Attributes:
        estimate: The estimate.
        low, high: Its bounds; NaN where no interval can be given, and `method` says why.
        method: What the interval counts and how, in a few words for people.
        seeds: Runs behind it; of lists over datasets, the fewest of a dataset.
        images: Images behind it; 0 where single images play no part.
    """

    estimate: float
    low: float
    high: float
    method: str
    seeds: int
    images: int

    @property
    def half_width(self) -> float:
        """Half the distance between the bounds."""
        return (self.high - self.low) / 2

    def covers(self, value: float) -> bool:
        """Whether `value` lies within the bounds; False where there are none."""
        return self.low <= value <= self.high


class Comparison(NamedTuple):
    """Two losses on the same images with the same seeds.

    Attributes:
        difference: First minus second, over seeds and images; covers zero exactly when `p` is above 1 - level.
        p: Two-way test that the expected difference is zero. This one decides. NaN for one seed or one image.
        p_images: Wilcoxon's signed-rank test on the images' seed-averaged |e|: about these trained networks only. NaN
            where no image differs.
        wins: Share of the images on which the first has the smaller seed-averaged |e|, ties half.
        seeds, images: What it is based on.
    """

    difference: Interval
    p: float
    p_images: float
    wins: float
    seeds: int
    images: int


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


# ---- one cell


def per_seed(metric: Metric, predicted: npt.ArrayLike, true: npt.ArrayLike) -> Array:
    """The metric of each seed, (S,); NaN for a prediction that is not finite, and for the NAE where nobody is.

    Args:
        metric: mae, rmse, nae or bias.
        predicted: (S, I) predicted counts.
        true: (I,) true counts, at least 0.

    Raises:
        ValueError: If the shapes do not fit, there is no seed or image, or a true count is negative or not finite.
    """
    values = _values(metric, predicted, true)
    return values.mean(axis=1) if values.size else np.full(len(values), np.nan)


def interval(
    metric: Metric,
    predicted: npt.ArrayLike,
    true: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Interval over seeds x images: for the expected metric of a new seed on new images of the same population.

    Each seed's metric is the mean over images of values x[s, i]: |e|, |e| / t, e, and for the RMSE r_s its influence
    values r_s + (e^2 - r_s^2) / (2 r_s). With the mean squares of their two-way table, and A = MS_seeds / (S I),
    B = MS_images / (S I), C = MS_residual / (S I), the variance of the estimate is V = A + B - C, no less than A or B
    (ours: the difference of mean squares can be too small by chance). The bounds are

        estimate -+ sqrt(V) (w q_seeds + (1 - w) q_images),   w = A / V,

    Cochran's weighted mean of two critical values, as for the Behrens-Fisher problem. q_seeds is Student's t with S - 1
    degrees of freedom. q_images, another one for either side, is of a bootstrap-t over the images (Efron; Hesterberg
    2015): quantiles of (estimate* - estimate) / error* when the seed-averaged images are resampled, for the RMSE of the
    root itself; never less than t with I - 1 degrees of freedom (ours), which alone is used below 8 images (ours). With
    one seed, w = 0. The errors of counting have a long right tail, and so has the interval. Errors are never negative:
    only the bias has a bound below zero.

    Chosen by simulation: 182 images of the regimes of `reports.coverage`, 2000 trials, nominal 95 %. It covers the
    expected MAE in 94 to 98 % of them at 2 to 5 seeds, in 95 to 97 % from 10 on. What else was tried covers less:

    * crossed bootstrap (seeds and images resampled), its deviations stretched to V, with quantiles of t (expanded
      percentiles, Hesterberg 2015), by Satterthwaite's degrees of freedom: 83 to 94 % at 2 seeds, 92 to 94 % from 5 on.
      Percentiles make a third of the correction for skewness that a bootstrap-t makes;
    * crossed bootstrap-t: 86 to 94 % at 2 seeds, 92 to 94 % from 5 on. So few seeds do not show the shape of their
      distribution;
    * two-way t with Satterthwaite's degrees of freedom: 87 to 94 % at 2 seeds. The seeds' part is often small by
      chance, and is then credited with too many;
    * this interval with t alone over images: 92 to 93 % from 5 seeds on where images dominate; with the bootstrap-t
      alone, which shortens the lower side, 93 to 95 %.

    Of 2 or 3 seeds the interval is wide, the more so the larger the part that depends on seed and image together, since
    A has that part too. It covers the RMSE too rarely on a few hundred images: so few do not show the tail of squares.

    Args:
        metric: mae, rmse, nae or bias.
        predicted: (S, I) predicted counts.
        true: (I,) true counts, at least 0.
        rng: Draws the resamples; the same state gives the same interval, whatever the order of seeds and images.
        level: Coverage aimed at (0.95: convention).
        resamples: Number of resamples (2000: ours).

    Returns:
        The interval; without bounds for a single image, without an estimate where `per_seed` has none. The `images`
        of the NAE are those with people.

    Raises:
        ValueError: As `per_seed`, and if the level is not between 0 and 1.
    """
    _check_options(level, resamples)
    values = _values(metric, predicted, true)
    none = _without_bounds(values)
    if none is not None:
        return none
    seeds, images = values.shape
    split, tail = _two_way(values), (1 - level) / 2
    by_t = float(stats.t.isf(tail, images - 1))
    resampled = _image_quantiles(np.sort(values.mean(axis=0)), metric == "rmse", rng, level, resamples)
    below, above = (max(value, by_t) for value in resampled or (by_t, by_t))
    low, high = split.mean - split.distance(tail, below), split.mean + split.distance(tail, above)
    over_images = "t" if resampled is None else "bootstrap-t"
    method = f"seeds (t) x images ({over_images})" if seeds > 1 else f"images only ({over_images}): 1 seed"
    return Interval(split.mean, low if metric == "bias" else max(low, 0.0), high, method, seeds, images)


def seed_interval(scores: npt.ArrayLike, *, level: float = 0.95, kind: Literal["mean", "single"] = "mean") -> Interval:
    """Student's t over seeds, on this very test set.

    Args:
        scores: (S,) scores of the seeds.
        level: Coverage aimed at (0.95: convention).
        kind: `mean`: of the expected score, mean -+ t s / sqrt(S). `single`: of one further run's score, the prediction
            interval mean -+ t s sqrt(1 + 1 / S): what a published number of one run is held against.

    Returns:
        The interval; without bounds for one seed.

    Raises:
        ValueError: If there is no score, one is not finite, the level is not between 0 and 1, or the kind is unknown.
    """
    _check_options(level)
    if kind not in ("mean", "single"):
        raise ValueError(f"unknown kind {kind!r}; expected 'mean' or 'single'")
    found = _scores(scores)
    count = len(found)
    if count == 1:
        return Interval(float(found[0]), np.nan, np.nan, "none: 1 seed", 1, 0)
    variance = 1 / count if kind == "mean" else 1 + 1 / count
    half = float(stats.t.isf((1 - level) / 2, count - 1) * found.std(ddof=1) * np.sqrt(variance))
    method = "t over seeds, this test set" if kind == "mean" else "t for one further seed, this test set"
    return Interval(float(found.mean()), float(found.mean()) - half, float(found.mean()) + half, method, count, 0)


# ---- two losses


def compare(
    metric: Metric,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    true: npt.ArrayLike,
    *,
    rng: np.random.Generator | None = None,
    level: float = 0.95,
    resamples: int = 0,
) -> Comparison:
    """Compares two losses, trained with the same seeds, on the same images: `a` minus `b`.

    The two-way interval of `interval`, on the differences x_a[s, i] - x_b[s, i], with Student's t for seeds and images:
    no resampling. `p` inverts it. In the simulation of `reports.coverage`, a bootstrap-t over the images makes the
    coverage of a difference worse: long tails to both sides call for no correction of skewness. Wilcoxon's test
    over images takes the trained networks as given and calls the luck of a seed a difference between losses, which is
    why `p` decides. Of equal losses `p` tells fewer apart than the level says, except with 2 seeds that matter far more
    than the images: up to 6 % at 5 %.

    Args:
        metric: mae, rmse, nae or bias.
        a: (S, I) predicted counts of the first loss.
        b: (S, I) predicted counts of the second, rows and columns in the same order.
        true: (I,) true counts, at least 0.
        rng: Not used, since nothing is resampled; taken so that this is called like `interval`.
        level: Coverage of the difference's interval (0.95: convention).
        resamples: Not used.

    Returns:
        The comparison. For one seed its interval counts images only and `p` is NaN; for one image there is neither.

    Raises:
        ValueError: If `a` and `b` differ in shape, and as `interval`.
    """
    _check_options(level)
    if np.shape(a) != np.shape(b):
        raise ValueError(
            f"the losses have predictions of shapes {np.shape(a)} and {np.shape(b)}; expected one shape (seeds,"
            " images): keep the seeds and images that both have, in the same order"
        )
    values = _values(metric, a, true) - _values(metric, b, true)
    seeds, images = values.shape
    gap = _values("mae", a, true).mean(axis=0) - _values("mae", b, true).mean(axis=0)
    wins = float(np.mean(np.sign(-gap)) / 2 + 0.5)
    p_images = float(stats.wilcoxon(gap).pvalue) if np.isfinite(wins) and np.any(gap) else np.nan
    none = _without_bounds(values)
    if none is not None:
        return Comparison(none, np.nan, p_images, wins, seeds, images)
    split, tail = _two_way(values), (1 - level) / 2
    half = split.distance(tail, float(stats.t.isf(tail, images - 1)))
    method = "two-way t (seeds x images)" if seeds > 1 else "images only (t): 1 seed"
    difference = Interval(split.mean, split.mean - half, split.mean + half, method, seeds, images)
    return Comparison(difference, split.p() if seeds > 1 else np.nan, p_images, wins, seeds, images)


def holm(p: npt.ArrayLike) -> Array:
    """Holm's step-down adjustment of m p-values: the k-th smallest becomes max over j <= k of min(1, (m - j + 1) p_j).

    Args:
        p: (n,) p-values; NaN is no test and is not counted.

    Returns:
        (n,) adjusted p-values in the same order, NaN where it was.

    Raises:
        ValueError: If a p-value is not between 0 and 1.
    """
    found = np.asarray(p, float)
    tested = ~np.isnan(found)
    if found.ndim != 1 or np.any((found[tested] < 0) | (found[tested] > 1)):
        raise ValueError(f"expected a list of p-values between 0 and 1, found {found}")
    order = np.argsort(found, kind="stable")[: tested.sum()]  # NaN is sorted last
    adjusted = np.full(len(found), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(np.arange(len(order), 0, -1) * found[order]), 1.0)
    return adjusted


# ---- many cells


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
    _check_options(level, resamples)
    if len(a) != len(b) or not len(a):
        raise ValueError(f"found {len(a)} and {len(b)} datasets; expected the same, at least one, in the same order")
    estimate, drawn = 0.0, np.zeros(resamples)
    left, right = [_scores(x) for x in a], [_scores(x) for x in b]
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
    _check_options(level, resamples)
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
    _check_options(level)
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


# ---- within


class _TwoWay(NamedTuple):
    """Mean of an (S, I) table, its variance over seeds and images, the seeds' weight in it; see `interval`."""

    mean: float
    variance: float
    weight: float
    seeds: int
    images: int

    def distance(self, tail: float, over_images: float) -> float:
        """Distance of a bound from the mean, for a tail probability and the images' critical value."""
        over_seeds = float(stats.t.isf(tail, self.seeds - 1)) if self.seeds > 1 else 0.0
        return float(np.sqrt(self.variance) * (self.weight * over_seeds + (1 - self.weight) * over_images))

    def p(self) -> float:
        """Two-sided p-value of a mean of zero: where a bound by t would be zero."""
        if self.mean == 0:
            return 1.0
        if self.variance == 0:
            return 0.0
        ratio = abs(self.mean) / np.sqrt(self.variance)
        ends = [float(np.log(max(stats.t.sf(ratio, n - 1), 1e-300))) for n in (self.seeds, self.images)]

        def excess(log_tail: float) -> float:
            tail = float(np.exp(log_tail))
            return self.distance(tail, float(stats.t.isf(tail, self.images - 1))) - abs(self.mean)

        # A weighted mean of two critical values lies between them, so p lies between the two tests' own.
        low, high = min(ends) - 1e-9, max(ends) + 1e-9
        if excess(low) <= 0:  # beyond what a float can tell from zero
            return float(2 * np.exp(low))
        return min(1.0, float(2 * np.exp(optimize.brentq(excess, low, high, xtol=1e-10))))


def _two_way(values: Array) -> _TwoWay:
    """The variance components of (S, I) values, I at least 2, as `interval` says; for one seed the images' alone."""
    seeds, images = values.shape
    mean = float(values.mean())
    rows, columns = values.mean(axis=1) - mean, values.mean(axis=0) - mean
    b = float((columns**2).sum()) / (images * (images - 1))
    if seeds == 1:
        return _TwoWay(mean, b, 0.0, seeds, images)
    a = float((rows**2).sum()) / (seeds * (seeds - 1))
    residual = values - mean - rows[:, None] - columns
    c = float((residual**2).sum()) / (seeds * images * (seeds - 1) * (images - 1))
    variance = max(a + b - c, a, b)
    return _TwoWay(mean, variance, a / variance if variance else 0.0, seeds, images)


def _image_quantiles(
    column: Array, root: bool, rng: np.random.Generator, level: float, resamples: int
) -> tuple[float, float] | None:
    """Critical values of the lower and the upper bound by a bootstrap-t over images.

    None where t has to do: of too few images, and where resamples without any spread make up a tail, as when nearly
    all images are counted exactly.

    Args:
        column: (I,) seed-averaged values.
        root: Whether they are influence values of an RMSE theta: then 2 theta column - theta^2 is the images' share of
            its square, and the pivot is of the root of their mean.
        rng: As `interval`, like what follows.
        level: Coverage aimed at.
        resamples: Number of resamples.
    """
    images = len(column)
    if images < _MIN_IMAGES:
        return None
    centre, nothing = float(column.mean()), 1e-12 * float(np.abs(column).max())  # nothing: what rounding leaves
    pivots = np.empty(resamples)
    step = max(1, _CHUNK // images)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = column[rng.integers(images, size=(size, images), dtype=np.int32)]
        mean = drawn.mean(axis=1)
        drawn -= mean[:, None]
        error = np.sqrt(np.einsum("ri,ri->r", drawn, drawn) / (images * (images - 1)))
        if root:
            theta = np.sqrt(np.maximum(centre * (2 * mean - centre), 0.0))
            mean, error = theta, error * centre / np.where(theta > 0, theta, np.inf)
        gap = mean - centre
        spread = error > nothing
        without = np.where(np.abs(gap) <= nothing, 0.0, np.copysign(np.inf, gap))
        pivots[start : start + size] = np.where(spread, gap / np.where(spread, error, 1.0), without)
    # An order statistic, not interpolated: a pivot may be infinite.
    upper, lower = np.quantile(pivots, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return (float(lower), float(-upper)) if np.isfinite(lower) and np.isfinite(upper) else None


def _values(metric: Metric, predicted: npt.ArrayLike, true: npt.ArrayLike) -> Array:
    """(S, I) values whose mean over images is the metric of each seed; of the NAE the images with people only."""
    if metric not in get_args(Metric):
        raise ValueError(f"unknown metric {metric!r}; expected one of {', '.join(get_args(Metric))}")
    counts, truth = np.asarray(predicted, float), np.asarray(true, float)
    if counts.ndim != 2 or truth.ndim != 1 or counts.shape[1] != len(truth) or not counts.size:
        raise ValueError(
            f"found predicted counts of shape {counts.shape} and true counts of shape {truth.shape}; expected"
            " (seeds, images) and (images,), at least one seed and one image"
        )
    wrong = int(np.sum(~(np.isfinite(truth) & (truth >= 0))))
    if wrong:
        raise ValueError(f"{wrong} of {len(truth)} true counts are negative or not finite; correct the annotations")
    error: Array = counts - truth
    if metric == "bias":
        return error
    if metric == "mae":
        return np.abs(error)
    if metric == "nae":
        share: Array = np.abs(error[:, truth > 0]) / truth[truth > 0]
        return share
    root: Array = np.sqrt((error**2).mean(axis=1, keepdims=True))
    return root / 2 + error**2 / np.where(root > 0, 2 * root, 1.0)


def _without_bounds(values: Array) -> Interval | None:
    """What can be said of (S, I) values that allow no interval; None where they do."""
    seeds, images = values.shape
    estimate = float(values.mean()) if images else np.nan
    if images >= 2 and np.isfinite(estimate):
        return None
    few = "no image with people" if images == 0 else "1 image"
    reason = few if images < 2 else "a prediction is not finite"
    return Interval(estimate, np.nan, np.nan, f"none: {reason}", seeds, images)


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
    return [_scores(x) for x in scores]


def _scores(scores: npt.ArrayLike) -> Array:
    found = np.asarray(scores, float)
    if found.ndim != 1 or not found.size or not np.all(np.isfinite(found)):
        raise ValueError(f"expected a list of finite scores, one a run, at least one; found {found}")
    return found


def _check_options(level: float, resamples: int = 1) -> None:
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"found level {level}, {resamples} resamples; expected a level between 0 and 1, such as 0.95")
