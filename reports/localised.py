"""What a store measured of places, ready for statistics: systems (a loss with a localizer) and their hits by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports import shares
from reports.measured import Measured, generator, loss_name
from reports.protocol import MixedProtocolError, check_comparable
from reports.shares import Share
from reports.stats import Comparison, Interval
from results.store import Store

__all__ = ["Localised", "PlaceSample", "shown_radii", "swept"]

_WITHIN: tuple[str, ...] = (
    "loss",
    "loss_params",
    "loss_version",
    "head",
    "localizer",
    "localizer_params",
    "localizer_version",
    "eval_id",
)
"""What the measurements of one cell share beside their terms."""


@dataclass(frozen=True, eq=False)
class PlaceSample:
    """The hits of one cell of a table: one system at one radius. Remembers what was worked out of them.

    Attributes:
        tp: float64 [S, I], matched pairs, one row a seed.
        predicted: float64 [S, I], points.
        true: float64 [I], heads.
        seeds: The S seeds, increasing.
        runs: The S run ids.
        ids: The I images.
    """

    tp: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.float64]
    true: npt.NDArray[np.float64]
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    ids: tuple[str, ...]
    _known: dict[Any, Any] = field(default_factory=dict, repr=False)

    def scores(self, share: Share) -> npt.NDArray[np.float64]:
        """The share of each seed, (S,); NaN where it is not defined."""
        return shares.per_seed(share, self.tp, self.predicted, self.true)

    def interval(self, share: Share) -> Interval:
        """The estimate with its 95 % interval over seeds x images; see `shares.interval`."""
        if share not in self._known:
            rng = generator(share, *self.runs)
            self._known[share] = shares.interval(share, self.tp, self.predicted, self.true, rng=rng)
        found: Interval = self._known[share]
        return found

    def compared(self, share: Share, other: PlaceSample) -> Comparison | None:
        """The paired comparison over the seeds that both have; None without such seeds, or on other images."""
        key = (share, other)
        if key not in self._known:
            common = sorted(set(self.seeds) & set(other.seeds))
            same = bool(common) and self.ids == other.ids and np.array_equal(self.true, other.true)
            a, b = self._of(common), other._of(common)
            self._known[key] = shares.compare(share, a, b, self.true) if same else None
        found: Comparison | None = self._known[key]
        return found

    def restricted(self, members: npt.NDArray[np.bool_]) -> PlaceSample:
        """Some of the images."""
        ids = tuple(name for name, kept in zip(self.ids, members, strict=True) if kept)
        return PlaceSample(
            self.tp[:, members], self.predicted[:, members], self.true[members], self.seeds, self.runs, ids
        )

    def _of(self, seeds: Sequence[int]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Hits and points of these seeds only."""
        places = [self.seeds.index(seed) for seed in seeds]
        return self.tp[places], self.predicted[places]


class Localised:
    """The measurements of places of some runs, and the hits by image.

    Args:
        measured: The runs, with their labels and terms.
        frame: `results.Store.localisations()` of them.
        hits: `results.Store.hits()` at the radii for which there are to be intervals.
        defaults: Each localizer's default parameters; its label then carries those that differ.
        curves: `results.Store.curves()`, for figures.

    Attributes:
        rows: One row a run, measurement and radius: the columns of the frame, those of the run's evaluation (terms,
            `label`, `data`, `settings`), `localizer_label`, `system`, as `pml + lm`, and `scoring`, the radii of the
            measurement with its main one first.
    """

    def __init__(
        self,
        measured: Measured,
        frame: pd.DataFrame,
        hits: pd.DataFrame,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
        curves: pd.DataFrame | None = None,
    ) -> None:
        known = defaults or {}
        own = [name for name in frame if name not in ("run_id", "selection")]
        runs = measured.runs.drop(columns=[name for name in own if name in measured.runs])
        # Terms are those of the run's weights: one row for each selection rule, whatever else was measured of it.
        runs = runs[runs["selection"].notna()].drop_duplicates(["run_id", "selection"])
        texts = {"run_id": object, "selection": object}  # an empty store's columns have another type
        rows = frame.astype(texts).merge(runs.astype(texts), on=["run_id", "selection"], how="inner")
        rows = rows.assign(localizer_label=pd.Series(_labels(rows, known), index=rows.index, dtype=object))
        rows = rows.assign(scoring=pd.Series(_scoring(rows), index=rows.index, dtype=object))
        self.rows = rows.assign(system=rows["label"].astype(str) + " + " + rows["localizer_label"].astype(str))
        self.hits = hits[hits["run_id"].isin(self.rows["run_id"])]
        self.curves = pd.DataFrame({"run_id": [], "eval_id": []}) if curves is None else curves
        self._samples: dict[Any, PlaceSample] = {}

    @classmethod
    def of(
        cls,
        store: Store,
        measured: Measured,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
        problems: list[str] | None = None,
    ) -> Localised:
        """Reads the measurements of places of the runs of `measured`; see `Store.images` for `problems`."""
        frame = store.localisations(measured.runs["run_id"].unique(), problems)
        keys = frame.drop_duplicates(["run_id", "eval_id"])
        pairs = list(zip(keys["run_id"], keys["eval_id"], strict=True))
        hits = store.hits(pairs, shown_radii(frame), problems)
        return cls(measured, frame, hits, defaults, store.curves(pairs, problems))

    def __len__(self) -> int:
        return len(self.rows)

    def restricted(self, rows: pd.DataFrame) -> Localised:
        """The same with some of its rows."""
        kept = Localised.__new__(Localised)
        kept.rows, kept._samples = self.rows.loc[rows.index], self._samples
        kept.hits, kept.curves = self.hits, self.curves
        kept.__dict__["_by_key"] = self._by_key
        return kept

    def sample(self, rows: pd.DataFrame) -> PlaceSample:
        """The hits of rows that differ in their seed only: one system at one radius.

        Raises:
            MixedProtocolError: If they differ in more, or were measured on other images.
        """
        rows = rows.sort_values("seed")
        keys = tuple(self._keys(rows))
        if keys not in self._samples:
            self._samples[keys] = self._sample(rows, keys)
        return self._samples[keys]

    def has_hits(self, rows: pd.DataFrame) -> pd.Series:
        """Whether the hits by image of each row could be read."""
        return pd.Series([key in self._by_key for key in self._keys(rows)], index=rows.index, dtype=bool)

    def _sample(self, rows: pd.DataFrame, keys: Sequence[tuple[str, str, str]]) -> PlaceSample:
        system = rows["system"].iloc[0]
        check_comparable(rows, f"one cell of {system}", also=(*_WITHIN, *rows.filter(like="recipe_").columns))
        seeds = tuple(int(seed) for seed in rows["seed"])
        if len(set(seeds)) < len(seeds):
            raise MixedProtocolError(
                f"one cell of {system} has two runs with the same seed: {', '.join(rows['run_id'])}"
            )
        found = [self._by_key[key] for key in keys]
        first = found[0]
        for run_id, other in zip(rows["run_id"], found, strict=True):
            if not other.index.equals(first.index) or not np.array_equal(other["true"], first["true"]):
                raise MixedProtocolError(
                    f"runs {rows['run_id'].iloc[0]} and {run_id} were localised on other images or heads; "
                    "measure both again on one copy of the dataset"
                )
        tp, predicted = (np.stack([other[name].to_numpy(float) for other in found]) for name in ("tp", "predicted"))
        return PlaceSample(
            tp, predicted, first["true"].to_numpy(float), seeds, tuple(rows["run_id"]), tuple(first.index)
        )

    @cached_property
    def _by_key(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """The hits of each measurement by (run, measurement, radius), in order of the image ids."""
        return {
            (str(run), str(measured), str(radius)): rows.set_index("id")[["true", "predicted", "tp"]].sort_index()
            for (run, measured, radius), rows in self.hits.groupby(["run_id", "eval_id", "radius"], sort=False)
        }

    @staticmethod
    def _keys(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
        columns = (rows[name].astype(str) for name in ("run_id", "eval_id", "radius"))
        return list(zip(*columns, strict=True))


def _labels(rows: pd.DataFrame, known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The localizers as people read them; with the version where a store has a localizer in several."""
    pairs = zip(rows["localizer"], rows["localizer_params"], strict=True)
    names = pd.Series(
        [loss_name(name, params, known.get(name)) for name, params in pairs], index=rows.index, dtype=object
    )
    several = rows.groupby("localizer")["localizer_version"].transform("nunique") > 1
    return [
        f"{name} (version {version})" if more else name
        for name, version, more in zip(names, rows["localizer_version"], several, strict=True)
    ]


def _scoring(rows: pd.DataFrame) -> list[str]:
    """`8px of 4px 8px`: by which radius thresholds were chosen, and which there are."""
    main = rows[rows["main"].astype(bool)].drop_duplicates("eval_id").set_index("eval_id")["radius"]
    return [f"{main.get(i, '')} of {radii}" for i, radii in zip(rows["eval_id"], rows["radii"], strict=True)]


def swept(radii: str) -> dict[str, list[str]]:
    """The ranges among the radii that were asked for, as `1:100`, with the names of what they stand for."""
    ranges = [word.split(":") for word in radii.split() if ":" in word]
    return {f"{a}:{b}": [f"{px}px" for px in range(int(a), int(b) + 1)] for a, b in ranges}


def shown_radii(frame: pd.DataFrame) -> tuple[str, ...]:
    """The radii of a frame of measurements that stand in tables: the main one, and what no range brought in."""
    found: dict[str, None] = {}
    for radii, rows in frame.groupby("radii", sort=False):
        hidden = {name for names in swept(str(radii)).values() for name in names} - set(_named(str(radii)))
        found |= dict.fromkeys(rows.loc[rows["main"].astype(bool) | ~rows["radius"].isin(hidden), "radius"])
    return tuple(found)


def _named(radii: str) -> list[str]:
    """The radii that were asked for by name."""
    return [
        word if word.endswith(("px", "head", "_s", "_l")) else f"{word}px" for word in radii.split() if ":" not in word
    ]
