"""The units whose errors are binned: images, or windows of images.

A unit is an image or a window of it. Within a bin, with errors e[s, u] = predicted[s, u] - true[u] of S seeds and the
units u of the bin,

* MAE = mean |e|; bias = mean e; NAE = mean |e| / t over the units with t > 0.

Windows of one image are not independent: the images are the sample, and a bin's error is a ratio of sums over images,
n[s, i] of the errors and d[i] of the units of image i, whose influence values (`reports.ratios`) go through the two-way
analysis of `reports.stats`. Only images with a unit in the bin take part (ours): the others add nothing to the ratio
and would only feign degrees of freedom. Of whole images this is `stats.interval` and `stats.compare` on the bin's
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from losses.discovery import check_known
from reports import ratios, stats
from reports.measured import Sample, generator
from reports.stats import Array, Comparison, Interval

__all__ = ["METRICS", "Units"]

METRICS = ("mae", "nae", "bias")


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

    def restricted(self, members: npt.NDArray[np.bool_]) -> Units:
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
