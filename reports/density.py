"""Errors of sparse and of dense crowds: bins of images or of windows, each with its errors over seeds and images.

What the PML paper's Figure 7 ("performance difference of PML when handling sparse and dense crowds") bins, on which
data and how it measures, is not known: units, bins and axes here are ours.

A unit is an image or a window of it. Within a bin, with errors e[s, u] = predicted[s, u] - true[u] of S seeds and the
units u of the bin,

* MAE = mean |e|; bias = mean e; NAE = mean |e| / t over the units with t > 0.

Windows of one image are not independent: the images are the sample, and a bin's error is a ratio of sums over images,
n[s, i] of the errors and d[i] of the units of image i, whose influence values (`reports.ratios`) go through the two-way
analysis of `reports.stats`. Only images with a unit in the bin take part (ours): the others add nothing to the ratio
and would only feign degrees of freedom. Of whole images this is `stats.interval` and `stats.compare` on the bin's
images. Where the bins lie is taken for given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from losses.discovery import check_known
from reports import ratios, stats
from reports.localised import PlaceSample
from reports.measured import Sample, generator
from reports.stats import Array, Comparison, Interval

__all__ = [
    "KINDS",
    "LEAST",
    "METRICS",
    "QUANTILES",
    "Bin",
    "Binning",
    "Kind",
    "Units",
    "binning",
    "quantiles",
    "scored",
]

Kind = Literal["quantiles", "nwpu", "jhu", "spacing"]
KINDS: tuple[Kind, ...] = get_args(Kind)
METRICS = ("mae", "nae", "bias")
QUANTILES = 5
"""Bins of about equally many units with people (ours)."""
LEAST = 5
"""Images of a bin below which no interval is given (ours)."""
_NWPU = {"S0: 0": 0, "S1: 1–100": 100, "S2: 101–500": 500, "S3: 501–5000": 5000, "S4: >5000": np.inf}
_JHU = {"0–50": 50, "51–500": 500, ">500": np.inf}
"""Most people of each level, in increasing order."""
_DECIMALS = 6
"""Of a bin's ends, at most."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Units:
    """The images, or windows of images, of one loss under one setting.

    Attributes:
        predicted: float [S, U], people, one row a seed.
        true: float [U], people.
        owner: int [U], the place in `ids` of the image that a unit lies in; every image has a unit.
        ids: The I images.
        seeds: The S seeds, increasing.
        runs: The S run ids.
    """

    predicted: npt.NDArray[np.floating[Any]]
    true: npt.NDArray[np.floating[Any]]
    owner: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[str, ...]

    @classmethod
    def of(cls, sample: Sample) -> Units:
        """Whole images."""
        return cls(sample.predicted, sample.true, np.arange(len(sample.ids)), sample.ids, sample.seeds, sample.runs)

    def restricted(self, members: Bools) -> Units:
        """Some of the units, with the images that they lie in."""
        kept, owner = np.unique(self.owner[members], return_inverse=True)
        ids = tuple(self.ids[place] for place in kept)
        return replace(self, predicted=self.predicted[:, members], true=self.true[members], owner=owner, ids=ids)

    def scores(self, metric: str) -> Array:
        """The metric of each seed, (S,); NaN where no unit has people, for the NAE."""
        return ratios.per_seed(*self._sums(metric))

    def interval(self, metric: str) -> Interval:
        """The estimate with its 95 % interval over seeds x images.

        Raises:
            ValueError: If the metric is none of `METRICS`.
        """
        part, whole = self._sums(metric)
        rng = generator(metric, *self.runs, *self.ids)
        found = stats.interval_of_values(ratios.influence(part, whole), rng=rng)
        return found if metric == "bias" else found._replace(low=np.maximum(found.low, 0.0))

    def compared(self, metric: str, other: Units) -> Comparison | None:
        """This one minus the other, on the seeds that both have; None without such seeds, or on other units."""
        common = sorted(set(self.seeds) & set(other.seeds))
        same = self.ids == other.ids and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("owner", "true")
        )
        if not common or not same:
            return None
        (first, whole), (second, _) = (units._seeded(common)._sums(metric) for units in (self, other))
        values = ratios.influence(first, whole) - ratios.influence(second, whole)
        return stats.compare_values(values, (first - second).mean(axis=0))

    def _seeded(self, seeds: Sequence[int]) -> Units:
        """These seeds only."""
        places = [self.seeds.index(seed) for seed in seeds]
        return replace(self, predicted=self.predicted[places], seeds=tuple(seeds))

    def _sums(self, metric: str) -> tuple[Array, Array]:
        """Summed errors and number of units of each image that has any, (S, I) each; of the NAE those with people."""
        check_known("metric", metric, METRICS)
        counted = self.true > 0 if metric == "nae" else np.ones(len(self.true), bool)
        true, owner = self.true[counted].astype(float), self.owner[counted]
        error = self.predicted[:, counted] - true
        values = error if metric == "bias" else np.abs(error) / (true if metric == "nae" else 1.0)
        whole = np.bincount(owner, minlength=len(self.ids)).astype(float)
        sums: Array = np.stack([np.bincount(owner, row, minlength=len(self.ids)) for row in values])
        part: Array = sums[:, whole > 0]
        return part, np.broadcast_to(whole[whole > 0], part.shape)


# ---- bins


class Bin(NamedTuple):
    """One bin: its name, as `S1: 1–100`, and which units are in it, bool [U]."""

    name: str
    members: Bools


class Binning(NamedTuple):
    """Bins from sparse to dense, of the spacing from near to far; empty ones are left out.

    Attributes:
        kind: How they were made.
        axis: What is binned, with its unit.
        words: A sentence for captions: where the bins come from.
        bins: Together every unit once.
    """

    kind: Kind
    axis: str
    words: str
    bins: tuple[Bin, ...]


def binning(kind: Kind, values: npt.ArrayLike, *, unit: str = "image", count: int = QUANTILES) -> Binning:
    """Bins of one kind.

    Args:
        kind: `quantiles` of the true count, `nwpu`: scene levels of NWPU-Crowd, `jhu`: ranges of JHU-Crowd++,
            `spacing`: quantiles of the mean distance to the nearest other head.
        values: (U,) true counts, or for `spacing` pixels, NaN with fewer than two heads.
        unit: What the units are, for words.
        count: Number of quantiles.

    Raises:
        ValueError: If the kind is unknown, there is no unit, or a count is negative or not finite.
    """
    check_known("kind of bins", kind, KINDS)
    found = np.asarray(values, float)
    if found.ndim != 1 or not len(found) or (kind != "spacing" and not (np.isfinite(found) & (found >= 0)).all()):
        raise ValueError(f"expected a list of counts of at least 0, at least one; found shape {found.shape}")
    cut = f"{count} bins of about equally many {unit}s"
    if kind == "quantiles":
        bins = (Bin("0", found == 0), *_within(found > 0, found, count))
        words = f"Bins: {cut} with people, by true count; those without people are a bin of their own (ours)."
        return Binning(kind, f"true count of the {unit} (people)", words, _peopled(bins))
    if kind == "spacing":
        known = np.isfinite(found)
        bins = (*_within(known, found, count, " px"), Bin("<2 heads", ~known))
        words = (
            f"Bins: {cut} by the mean distance of a head to the nearest other, in pixels of the prepared image, the "
            "densest first; images with fewer than two heads are a bin of their own (ours)."
        )
        return Binning(kind, "mean distance to the nearest head (px)", words, _peopled(bins))
    tops, whose = (_NWPU, "scene levels of NWPU-Crowd") if kind == "nwpu" else (_JHU, "ranges of JHU-Crowd++")
    level = np.searchsorted(list(tops.values()), found)
    bins = tuple(Bin(name, level == place) for place, name in enumerate(tops))
    return Binning(kind, f"true count of the {unit} (people)", f"Bins: {whose}, by true count.", _peopled(bins))


def quantiles(values: npt.ArrayLike, count: int = QUANTILES) -> npt.NDArray[np.int64]:
    """The bin of each value, from 0: edges are values that occur, so that no bin is empty; equal values share one.

    Raises:
        ValueError: If there is no value, or `count` is below 1.
    """
    found = np.asarray(values, float)
    if count < 1 or not len(found):
        raise ValueError(f"found {count} bins of {len(found)} values; expected at least 1 of each")
    edges = np.unique(np.quantile(found, np.linspace(0, 1, count + 1), method="inverted_cdf"))
    return np.searchsorted(edges[1:-1], found, side="right")


def _within(kept: Bools, values: Array, count: int, unit: str = "") -> list[Bin]:
    """Quantiles of some of the units, named by the least and the greatest value in each, and the unit."""
    if not kept.any():
        return []
    places = np.full(len(values), -1)
    places[kept] = quantiles(values[kept], count)
    groups = [places == place for place in np.unique(places[kept])]
    digits = _decimals([(float(values[members].min()), float(values[members].max())) for members in groups])
    found = []
    for members in groups:
        low, high = (f"{value:.{digits}f}" for value in (values[members].min(), values[members].max()))
        found.append(Bin((low if low == high else f"{low}–{high}") + unit, members))
    names = [one.name for one in found]
    return [
        one._replace(name=f"{one.name} ({place})") if names.count(one.name) > 1 else one
        for place, one in enumerate(found, 1)
    ]


def _decimals(ends: Sequence[tuple[float, float]]) -> int:
    """The fewest decimals with which no bin seems to begin where the one before it ends; none if all are whole."""
    if all(value.is_integer() for pair in ends for value in pair):
        return 0
    for digits in range(1, _DECIMALS):
        if all(f"{top:.{digits}f}" != f"{low:.{digits}f}" for (_, top), (low, _) in pairwise(ends)):
            return digits
    return _DECIMALS


def _peopled(bins: Sequence[Bin]) -> tuple[Bin, ...]:
    return tuple(one for one in bins if one.members.any())


# ---- what was measured in them


def scored(
    found: Binning,
    samples: Mapping[str, Units] | Mapping[str, PlaceSample],
    metrics: Sequence[str] = METRICS,
    baseline: str | None = None,
) -> pd.DataFrame:
    """Every loss in every bin.

    Args:
        found: The bins of the units that all samples have.
        samples: By label.
        metrics: What is measured; the first is compared.
        baseline: The label that the others are compared with, Holm-corrected over the table; None: no comparison.

    Returns:
        One row a bin and label: `bin, label, images, units, people, seeds`, each metric (mean over seeds) with
        `_sd, _low, _high`, and `difference` to the baseline with `_low, _high`, `p`, `p_holm`. Bounds are NaN where
        there are fewer than two seeds, or than `LEAST` images in a bin.
    """
    rows = []
    for one in found.bins:
        inside = {label: _restricted(sample, one.members) for label, sample in samples.items()}
        for label, sample in inside.items():
            row = {"bin": one.name, "label": label, "images": len(sample.ids), "units": int(one.members.sum())}
            row |= {"people": int(sample.true.sum()), "seeds": len(sample.seeds)}
            for metric in metrics:
                row |= _metric(metric, sample)
            rows.append(row | (_difference(metrics[0], sample, inside[baseline]) if baseline else {}))
    frame = pd.DataFrame(rows)
    if baseline:
        frame["p_holm"] = stats.holm(frame["p"].to_numpy(float))
    return frame


def _restricted(sample: Units | PlaceSample, members: Bools) -> Units | PlaceSample:
    if isinstance(sample, Units):
        return sample.restricted(members)
    ids = tuple(name for name, kept in zip(sample.ids, members, strict=True) if kept)
    tp, points = sample.tp[:, members], sample.predicted[:, members]
    return PlaceSample(tp, points, sample.true[members], sample.seeds, sample.runs, ids)


def _metric(metric: str, sample: Units | PlaceSample) -> dict[str, float]:
    scores = sample.scores(metric)  # type: ignore[arg-type]  # each has its own metrics
    row = {metric: float(scores.mean()), f"{metric}_sd": float(scores.std(ddof=1)) if len(scores) > 1 else np.nan}
    bounds = (np.nan, np.nan)
    if np.isfinite(scores).all() and len(scores) > 1 and len(sample.ids) >= LEAST:
        bounds = sample.interval(metric)[1:3]  # type: ignore[arg-type]
    return row | dict(zip((f"{metric}_low", f"{metric}_high"), bounds, strict=True))


def _difference(metric: str, sample: Units | PlaceSample, other: Units | PlaceSample) -> dict[str, float]:
    names = ("difference", "difference_low", "difference_high", "p")
    one = None if sample is other else sample.compared(metric, other)  # type: ignore[arg-type]
    if one is None or one.seeds < 2 or one.images < LEAST or not np.isfinite(one.difference.low):
        return dict.fromkeys(names, np.nan)
    return dict(zip(names, (*one.difference[:3], one.p), strict=True))
