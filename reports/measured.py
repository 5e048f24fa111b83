"""What a store measured, ready for statistics: evaluations with their terms, and errors as seeds x images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports import stats
from reports.protocol import MixedProtocolError, Published, check_comparable, with_terms
from reports.shares import SHARES
from reports.stats import Comparison, Interval, Metric
from results.store import Store

__all__ = ["HIGHER", "METRICS", "Compared", "Comparisons", "Measured", "Sample", "data_name", "generator", "loss_name"]

METRICS: tuple[Metric, ...] = ("mae", "rmse", "nae", "bias")
"""The metrics that follow from the counts, for which there are intervals."""
HIGHER = frozenset(SHARES)
"""The metrics of which more is better."""
_WITHIN = ("loss", "loss_params", "loss_version", "head")
"""What the runs of one cell share beside their terms."""
_ALWAYS: tuple[str, ...] = (
    "run_id",
    "state",
    "reason",
    "loss",
    "loss_params",
    "backbone",
    "head",
    "stride",
    "output",
    "weights",
)
_ALWAYS += ("weights_hash", "dataset", "dataset_params", "dataset_hash", "noise", "noise_seed", "recipe", "seed")
_ALWAYS += ("protocol", "split", "selection", "eval_id", "mae", "search", "images")
"""Columns that `results.load()` lacks where no run has them: nothing failed, nothing measured, nothing there."""
SEED = 20_250_424
"""Of every bootstrap, with the runs it is about: a report of the same store has the same digits (ours)."""


@dataclass(frozen=True, eq=False)
class Sample:
    """The counts of one cell of a table: one loss under one setting. Remembers what was worked out of them.

    Attributes:
        predicted: float64 [S, I], people, one row a seed.
        true: float64 [I], people.
        seeds: The S seeds, increasing.
        runs: The S run ids.
        ids: The I images.
    """

    predicted: npt.NDArray[np.float64]
    true: npt.NDArray[np.float64]
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    ids: tuple[str, ...] = ()
    _known: dict[Any, Any] = field(default_factory=dict, repr=False)

    def interval(self, metric: Metric) -> Interval:
        """The estimate with its 95 % interval over seeds x images; see `stats.interval`."""
        if metric not in self._known:
            rng = generator(metric, *self.runs)
            self._known[metric] = stats.interval(metric, self.predicted, self.true, rng=rng)
        found: Interval = self._known[metric]
        return found

    def scores(self, metric: Metric) -> npt.NDArray[np.float64]:
        """The metric of each seed, (S,); see `stats.per_seed`."""
        return stats.per_seed(metric, self.predicted, self.true)

    def compared(self, metric: Metric, other: Sample) -> Comparison | None:
        """The paired comparison over the seeds that both have; None without such seeds, or on other images."""
        key = (metric, other)
        if key not in self._known:
            common = sorted(set(self.seeds) & set(other.seeds))
            same = bool(common) and self.ids == other.ids and np.array_equal(self.true, other.true)
            a, b = self._of(common), other._of(common)
            self._known[key] = stats.compare(metric, a, b, self.true) if same else None
        found: Comparison | None = self._known[key]
        return found

    def _of(self, seeds: Sequence[int]) -> npt.NDArray[np.float64]:
        """The predictions of these seeds only."""
        return self.predicted[[self.seeds.index(seed) for seed in seeds]]


class Measured:
    """The runs of a store and the per-image counts of their evaluations.

    Args:
        frame: `results.Store.load()`, or a part of it, runs without an evaluation included.
        images: `results.Store.images()` of its evaluations: run_id, eval_id, id, true, predicted.
        defaults: Each loss's default parameters; a loss's label then carries those that differ.
        official: The official recipes; see `with_terms`.

    Attributes:
        runs: The frame, without the trials of a search, with the columns `data` (the dataset with its parameters),
            `label` (the loss as people read it; with its head, where a network has it with several) and `settings`
            (see `with_terms`).
        trials: How many trials were left out: they were chosen among on val, and are no results.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        images: pd.DataFrame,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
        official: Published | None = None,
    ) -> None:
        known = defaults or {}
        frame = frame.reindex(columns=list(dict.fromkeys((*frame.columns, *_ALWAYS))))
        pairs = zip(frame["loss"], frame["loss_params"], strict=True)
        labels = [loss_name(loss, params, known.get(loss)) for loss, params in pairs]
        data = [data_name(name, text) for name, text in zip(frame["dataset"], frame["dataset_params"], strict=True)]
        self.official = official
        runs = with_terms(frame.assign(label=labels, data=data), official=official)
        trials = runs["run_id"].isin([run for found in runs["search"].dropna() for run in found])
        self.trials = int(runs.loc[trials & runs["search"].isna(), "run_id"].nunique())
        self.runs = _with_heads(runs[~trials | runs["search"].notna()])
        self.images = images[images["run_id"].isin(self.runs["run_id"])]
        self._samples: dict[tuple[tuple[str, str], ...], Sample] = {}

    @classmethod
    def of(
        cls,
        store: Store,
        frame: pd.DataFrame,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
        problems: list[str] | None = None,
        official: Published | None = None,
    ) -> Measured:
        """Reads the per-image counts of `store.load()`, or of some of its rows; see `Store.images` for `problems`."""
        rows = frame.reindex(columns=["run_id", "eval_id"]).dropna()
        images = store.images(zip(rows["run_id"], rows["eval_id"], strict=True), problems=problems)
        return cls(frame, images, defaults, official)

    @property
    def evaluated(self) -> pd.DataFrame:
        """The rows that have a measurement whose per-image counts could be read."""
        read = [key in self._counts for key in self._keys(self.runs)]
        return self.runs[pd.Series(read, index=self.runs.index, dtype=bool)]

    @property
    def failed(self) -> pd.DataFrame:
        """The rows of failed runs, with their `reason`."""
        return self.runs[self.runs["state"] == "failed"]

    def restricted(self, rows: pd.DataFrame) -> Measured:
        """The same with some of the runs."""
        kept = Measured.__new__(Measured)
        kept.runs, kept.trials, kept.official = self.runs.loc[rows.index], self.trials, self.official
        kept.images = self.images[self.images["run_id"].isin(kept.runs["run_id"])]
        kept.__dict__["_counts"], kept._samples = self._counts, self._samples
        return kept

    def samples(self, rows: pd.DataFrame, by: str = "label") -> dict[str, Sample]:
        """The counts of each loss (or of what `by` names) in some rows, in their order."""
        return {str(label): self.sample(inside) for label, inside in rows.groupby(by, sort=False)}

    def sample(self, rows: pd.DataFrame) -> Sample:
        """The counts of runs that differ in their seed only.

        Raises:
            MixedProtocolError: If the runs differ in more than their seed, or were measured on other images.
        """
        rows = rows.sort_values("seed")
        keys = tuple(self._keys(rows))
        if keys not in self._samples:
            self._samples[keys] = self._sample(rows)
        return self._samples[keys]

    def _sample(self, rows: pd.DataFrame) -> Sample:
        label = rows["label"].iloc[0]
        check_comparable(rows, f"one cell of {label}", also=(*_WITHIN, *rows.filter(like="recipe_").columns))
        seeds = tuple(int(seed) for seed in rows["seed"])
        if len(set(seeds)) < len(seeds):
            raise MixedProtocolError(
                f"one cell of {label} has two runs with the same seed: {', '.join(rows['run_id'])}"
            )
        counts = [self._counts[key] for key in self._keys(rows)]
        first = counts[0]
        for run_id, other in zip(rows["run_id"], counts, strict=True):
            if not np.array_equal(other.ids, first.ids) or not np.array_equal(other.true, first.true):
                raise MixedProtocolError(
                    f"runs {rows['run_id'].iloc[0]} and {run_id} were measured on other images or true counts; "
                    "measure both again on one copy of the dataset"
                )
        predicted = np.stack([other.predicted for other in counts])
        return Sample(predicted, first.true, seeds, tuple(rows["run_id"]), tuple(map(str, first.ids)))

    @cached_property
    def _counts(self) -> dict[tuple[str, str], _Counts]:
        """The counts of each evaluation by (run, evaluation), in order of the image ids.

        Sorted once and cut where the evaluation changes: a store may have ten thousand of them.
        """
        images = self.images
        codes, names = zip(
            *(pd.factorize(images[name], sort=True) for name in ("run_id", "eval_id", "id")), strict=True
        )
        order = np.lexsort(codes[::-1])
        runs, evaluations, ids = (code[order] for code in codes)
        true, predicted = (images[name].to_numpy(float)[order] for name in ("true", "predicted"))
        words = np.asarray(names[2], object)
        ends = np.flatnonzero((np.diff(runs) != 0) | (np.diff(evaluations) != 0)) + 1
        return {
            (str(names[0][runs[a]]), str(names[1][evaluations[a]])): _Counts(words[ids[a:b]], true[a:b], predicted[a:b])
            for a, b in pairwise([0, *ends, len(order)])
            if b > a
        }

    @staticmethod
    def _keys(rows: pd.DataFrame) -> list[tuple[str, str]]:
        return [(str(run), str(evaluation)) for run, evaluation in zip(rows["run_id"], rows["eval_id"], strict=True)]


class _Counts(NamedTuple):
    """The counts of one evaluation, by increasing image id."""

    ids: npt.NDArray[np.object_]
    true: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.float64]


class Compared(Protocol):
    """What can be compared: `Sample` by its counts, `reports.localised.PlaceSample` by its hits."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, increasing."""
        ...

    def scores(self, metric: Any) -> npt.NDArray[np.float64]:
        """The metric of each seed."""
        ...

    def interval(self, metric: Any) -> Interval:
        """The estimate with its interval over seeds x images."""
        ...

    def compared(self, metric: Any, other: Any) -> Comparison | None:
        """This one minus the other, on the seeds that both have."""
        ...


class Comparisons:
    """All pairs of losses in all columns of a table, Holm-corrected over the table, for each metric.

    Args:
        columns: For each column the samples of its rows: `Sample`, or anything that compares itself likewise.
        metrics: What is compared.
        level: Of the family-wise error.
    """

    def __init__(
        self,
        columns: Mapping[str, Mapping[str, Compared]],
        metrics: Iterable[str] = ("mae", "rmse", "nae"),
        level: float = 0.05,
    ) -> None:
        self.level = level
        rows = [
            {"column": column, "metric": metric, "a": a, "b": b} | self._compared(metric, samples[a], samples[b])
            for metric in metrics
            for column, samples in columns.items()
            for a, b in combinations(samples, 2)
        ]
        self.table = pd.DataFrame(rows)
        for _, family in self.table.groupby("metric", sort=False) if rows else ():
            for name in ("p", "p_images"):
                self.table.loc[family.index, f"{name}_holm"] = stats.holm(family[name].to_numpy(float))
        self._adjusted: dict[tuple[str, str, str, str], tuple[float, float]] = {}
        for row in self.table.to_dict("records"):
            for a, b, sign in ((row["a"], row["b"], 1), (row["b"], row["a"], -1)):
                self._adjusted[row["column"], row["metric"], a, b] = (row["p_holm"], sign * row["difference"])

    def better(self, column: str, metric: str, a: str, b: str) -> bool | None:
        """Whether `a` is better than `b`, significantly so after correction; None where the pair could not be tested.

        Better is lower, but for what is in `HIGHER`.

        A test takes two seeds that both losses have, and the same images. It is about these seeds: where losses have
        others besides, their means may stand in the other order, and neither is then better.
        """
        p, difference = self._adjusted.get((column, metric, a, b), (np.nan, np.nan))
        wrong = difference >= 0 if metric not in HIGHER else difference <= 0
        return None if np.isnan(p) else bool(p < self.level and not wrong)

    @property
    def pairs(self) -> int:
        """How many pairs were tested, for each metric."""
        return int(self.table.groupby("metric")["p"].count().max()) if len(self.table) else 0

    @staticmethod
    def _compared(metric: str, a: Compared, b: Compared) -> dict[str, Any]:
        """One row of the table."""
        found = a.compared(metric, b)
        if found is None:
            empty = dict.fromkeys(("difference", "low", "high", "p", "p_images", "wins"), np.nan)
            return empty | {"seeds": len(set(a.seeds) & set(b.seeds))}
        names = ("p", "p_images", "wins", "seeds")
        span = {"difference": found.difference.estimate, "low": found.difference.low, "high": found.difference.high}
        return span | {name: getattr(found, name) for name in names}


def data_name(dataset: str, params: str) -> str:
    """`shanghaitech_b[scale=0.25]`: the dataset with its parameters (JSON text)."""
    found = json.loads(params) if isinstance(params, str) else {}
    return f"{dataset}[{','.join(f'{k}={v}' for k, v in sorted(found.items()))}]" if found else dataset


def _with_heads(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, each label with its head where one network has the loss with several."""
    if runs.empty:
        return runs
    heads = runs.groupby(["label", "backbone"])["head"].transform("nunique")
    named = runs["label"] + " · " + runs["head"].astype(str) + " head"
    return runs.assign(label=runs["label"].where(heads < 2, named))


def generator(*names: str) -> np.random.Generator:
    """A generator that depends on what it is used for and on nothing else."""
    digest = hashlib.sha256("\x1f".join(names).encode()).digest()
    return np.random.default_rng([SEED, int.from_bytes(digest[:8], "big")])


def loss_name(loss: str, params: str, defaults: Mapping[str, Any] | None) -> str:
    """`pml[tau=2]`: the loss with the parameters (JSON text) that differ from its defaults."""
    if defaults is None:
        return loss
    changed = {k: v for k, v in json.loads(params).items() if k not in defaults or defaults[k] != v}
    return f"{loss}[{','.join(f'{k}={v}' for k, v in sorted(changed.items()))}]" if changed else loss
