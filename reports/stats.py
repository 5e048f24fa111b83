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

from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

__all__ = [
    "Comparison",
    "Interval",
    "Metric",
    "check_options",
    "compare",
    "compare_values",
    "finite_scores",
    "holm",
    "image_values",
    "interval",
    "interval_of_values",
    "per_seed",
    "seed_interval",
]

Array = npt.NDArray[np.float64]
Metric = Literal["mae", "rmse", "nae", "bias"]

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
    values = image_values(metric, predicted, true)
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

    Chosen by simulation: 182 images of the regimes of `reports.coverage`, 1500 or 2000 trials, nominal 95 %. It covers
    the expected MAE in 95 to 99 % of them at 2 to 5 seeds, in 95 to 97 % at 10 and 20. What else was tried covers less:

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
    A has that part too. The RMSE it covers too rarely where images dominate, 89 to 91 % from 5 seeds on: a few hundred
    images do not show the tail of the squares. Of 10 images it covers the MAE in 91 to 93 %, the RMSE in about 80 %.

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
    check_options(level, resamples)
    values = image_values(metric, predicted, true)
    found = interval_of_values(values, rng=rng, level=level, resamples=resamples, root=metric == "rmse")
    return found if metric == "bias" else found._replace(low=max(found.low, 0.0))


def interval_of_values(
    values: Array, *, rng: np.random.Generator, level: float = 0.95, resamples: int = 2000, root: bool = False
) -> Interval:
    """`interval` of anything that is a mean over images: of (S, I) values, or influence values, one row a seed.

    Args:
        values: (S, I); their mean is the estimate.
        rng: As `interval`, like what follows.
        level: Coverage aimed at.
        resamples: Number of resamples.
        root: Whether they are influence values of the root of a mean.
    """
    check_options(level, resamples)
    none = _without_bounds(values)
    if none is not None:
        return none
    seeds, images = values.shape
    split, tail = _two_way(values), (1 - level) / 2
    by_t = _t_isf(tail, images - 1)
    resampled = _image_quantiles(np.sort(values.mean(axis=0)), root, rng, level, resamples)
    below, above = (max(value, by_t) for value in resampled or (by_t, by_t))
    low, high = split.mean - split.distance(tail, below), split.mean + split.distance(tail, above)
    over_images = "t" if resampled is None else "bootstrap-t"
    method = f"seeds (t) x images ({over_images})" if seeds > 1 else f"images only ({over_images}): 1 seed"
    return Interval(split.mean, low, high, method, seeds, images)


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
    check_options(level)
    if kind not in ("mean", "single"):
        raise ValueError(f"unknown kind {kind!r}; expected 'mean' or 'single'")
    found = finite_scores(scores)
    count = len(found)
    if count == 1:
        return Interval(float(found[0]), np.nan, np.nan, "none: 1 seed", 1, 0)
    variance = 1 / count if kind == "mean" else 1 + 1 / count
    half = float(_t_isf((1 - level) / 2, count - 1) * found.std(ddof=1) * np.sqrt(variance))
    method = "t over seeds, this test set" if kind == "mean" else "t for one further seed, this test set"
    return Interval(float(found.mean()), float(found.mean()) - half, float(found.mean()) + half, method, count, 0)


# ---- two losses


def compare(
    metric: Metric,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    true: npt.ArrayLike,
    *,
    level: float = 0.95,
) -> Comparison:
    """Compares two losses, trained with the same seeds, on the same images: `a` minus `b`.

    The two-way interval of `interval`, on the differences x_a[s, i] - x_b[s, i], with Student's t for seeds and images:
    no resampling. `p` inverts it. In simulations of the model of `reports.coverage`, a bootstrap-t over the images
    makes the coverage of a difference worse: long tails to both sides call for no correction of skewness. Wilcoxon's
    test over images takes the trained networks as given and calls the luck of a seed a difference between losses, which
    is why `p` decides: below 0.05 for 1 to 6 % of equal losses, Wilcoxon's for 5 to 57 %.

    Args:
        metric: mae, rmse, nae or bias.
        a: (S, I) predicted counts of the first loss.
        b: (S, I) predicted counts of the second, rows and columns in the same order.
        true: (I,) true counts, at least 0.
        level: Coverage of the difference's interval (0.95: convention).

    Returns:
        The comparison. For one seed its interval counts images only and `p` is NaN; for one image there is neither.

    Raises:
        ValueError: If `a` and `b` differ in shape, and as `interval`.
    """
    check_options(level)
    if np.shape(a) != np.shape(b):
        raise ValueError(
            f"the losses have predictions of shapes {np.shape(a)} and {np.shape(b)}; expected one shape (seeds,"
            " images): keep the seeds and images that both have, in the same order"
        )
    values = image_values(metric, a, true) - image_values(metric, b, true)
    gap = image_values("mae", a, true).mean(axis=0) - image_values("mae", b, true).mean(axis=0)
    return compare_values(values, gap, level=level)


def compare_values(values: Array, gap: Array, *, level: float = 0.95) -> Comparison:
    """`compare` of anything that is a mean over images.

    Args:
        values: (S, I) differences of the values, or influence values, first minus second.
        gap: (I,) per image, how much worse the first is: what wins and Wilcoxon's test are taken of.
        level: As `compare`.
    """
    check_options(level)
    seeds, images = values.shape
    wins = float(np.mean(np.sign(-gap)) / 2 + 0.5)
    p_images = float(stats.wilcoxon(gap).pvalue) if np.isfinite(wins) and np.any(gap) else np.nan
    none = _without_bounds(values)
    if none is not None:
        return Comparison(none, np.nan, p_images, wins, seeds, images)
    split, tail = _two_way(values), (1 - level) / 2
    half = split.distance(tail, _t_isf(tail, images - 1))
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
        over_seeds = _t_isf(tail, self.seeds - 1) if self.seeds > 1 else 0.0
        return float(np.sqrt(self.variance) * (self.weight * over_seeds + (1 - self.weight) * over_images))

    def p(self) -> float:
        """Two-sided p-value of a mean of zero: where a bound by t would be zero."""
        if self.mean == 0:
            return 1.0
        if self.variance == 0:
            return 0.0
        ratio = abs(self.mean) / np.sqrt(self.variance)
        ends = [float(np.log(max(_t_sf(ratio, n - 1), 1e-300))) for n in (self.seeds, self.images)]

        def excess(log_tail: float) -> float:
            tail = float(np.exp(log_tail))
            return self.distance(tail, _t_isf(tail, self.images - 1)) - abs(self.mean)

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


def image_values(metric: Metric, predicted: npt.ArrayLike, true: npt.ArrayLike) -> Array:
    """(S, I) values whose mean over images is the metric of each seed: what `interval_of_values` takes.

    |e|, |e| / t of the images with people only, e, and for the RMSE the influence values of `interval`.

    Args:
        metric: mae, rmse, nae or bias.
        predicted: (S, I) predicted counts.
        true: (I,) true counts, at least 0.

    Raises:
        ValueError: As `per_seed`.
    """
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


def finite_scores(scores: npt.ArrayLike) -> Array:
    """The scores as an array; ValueError unless there is at least one and all are finite."""
    found = np.asarray(scores, float)
    if found.ndim != 1 or not found.size or not np.all(np.isfinite(found)):
        raise ValueError(f"expected a list of finite scores, one a run, at least one; found {found}")
    return found


def check_options(level: float, resamples: int = 1) -> None:
    """ValueError unless a level lies between 0 and 1 and there is a resample to draw."""
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"found level {level}, {resamples} resamples; expected a level between 0 and 1, such as 0.95")


def _t_isf(tail: float, degrees: int) -> float:
    """Upper quantile of Student's t; `scipy.stats.t.isf` takes ten times as long to check its arguments."""
    return float(-special.stdtrit(degrees, tail))


def _t_sf(value: float, degrees: int) -> float:
    """Upper tail of Student's t."""
    return float(special.stdtr(degrees, -value))
