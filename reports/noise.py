"""The study of noisy annotations: what was trained on which wrong labels, the errors at each level, and the ranking.

No source states the levels, distributions, datasets or networks of the paper's panels (a) "Adding noise following BL"
and (b) "Adding noise following NCC": kinds and levels are ours, in their style. Everything here holds test labels
clean. All losses of a study saw the same wrong labels, drawn once: intervals over seeds and images do not count that
another draw of the noise would have been another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from scipy.stats import rankdata

from reports.measured import Comparisons, Measured, Sample
from reports.protocol import protocol_hash
from reports.stats import Metric
from reports.tables import AFTER
from reports.words import setting_title

__all__ = [
    "CLEAN",
    "KINDS",
    "Kind",
    "Level",
    "Study",
    "comparisons",
    "constants",
    "count_norms",
    "errors",
    "norm_curves",
    "order",
    "parse",
    "ranks",
    "studies",
]

CLEAN = "none"
"""The noise of clean labels: level 0 of every kind."""


class Kind(NamedTuple):
    """A kind of noise as it is reported.

    Attributes:
        words: What it is, for titles and sentences.
        axis: Title of the axis of its levels.
        unit: One step of that axis, after "per".
        scale: Times the level of its name is its place on the axis.
        level: What the number in its name is, with its unit.
    """

    words: str
    axis: str
    unit: str
    scale: float
    level: str


_COMMON = "standard deviation in x, y (px; common axis ours)"

KINDS: dict[str, Kind] = {
    "uniform-height": Kind(
        "uniform displacement, BL-style", "half-width (% of image height)", "% of height", 100.0,
        "half-width (share of image height)",
    ),
    "uniform-px": Kind("uniform displacement, NCC-style", _COMMON, "px", 1 / math.sqrt(3), "half-width (px)"),
    "gaussian-px": Kind("Gaussian displacement", _COMMON, "px", 1.0, "standard deviation (px)"),
    "missing": Kind("missing heads", "heads left out (%)", "% of heads", 100.0, "share of heads left out"),
    "duplicate": Kind("duplicate heads", "heads counted twice (%)", "% of heads", 100.0, "share of heads doubled"),
}  # fmt: skip
"""The kinds by the beginning of their names. U(-L, L) has the standard deviation L / sqrt(3), N(0, S^2) has S: on this
common axis (ours) a uniform and a Gaussian displacement of equal variance stand at one place."""


class Level(NamedTuple):
    """One level of one kind: `noise` is its name in the store, `level` the number in it, `x` its place on the axis."""

    noise: str
    kind: str
    level: float
    x: float


class Study(NamedTuple):
    """What was measured under terms that differ in the noise alone.

    Attributes:
        key: Hash of the terms without the noise.
        title: One line.
        measured: The evaluations, and the runs without one that were trained on these terms.
        levels: For each kind its levels, increasing, the clean one first where it was measured.
        left_out: Noises of several kinds at once, or of unknown ones: on no kind's curve.
    """

    key: str
    title: str
    measured: Measured
    levels: Mapping[str, Sequence[Level]]
    left_out: tuple[str, ...]

    @property
    def noises(self) -> list[str]:
        """All noises with a measurement, clean first, by kind and level."""
        return sorted(set(self.measured.evaluated["noise"]), key=order)

    def samples(self, noise: str) -> dict[str, Sample]:
        """The counts of every loss at one noise."""
        rows = self.measured.evaluated
        return self.measured.samples(rows[rows["noise"] == noise].sort_values("label", kind="stable"))


def parse(noise: str) -> tuple[str, float] | None:
    """Kind and level of a noise of one known kind, as `uniform-px:8`; None for clean, combined and unknown ones."""
    kind, _, text = noise.partition(":")
    try:
        level = float(text)
    except ValueError:
        return None
    return (kind, level) if kind in KINDS and math.isfinite(level) else None


def order(noise: str) -> tuple[int, float, str]:
    """Sorts noises: clean, then by kind and level, then all others by name."""
    if noise == CLEAN:
        return (-1, 0.0, "")
    found = parse(noise)
    return (len(KINDS), 0.0, noise) if found is None else (list(KINDS).index(found[0]), found[1], noise)


def studies(measured: Measured) -> list[Study]:
    """Everything that differs in its noise alone, if there are two noises at least; the largest first.

    Runs without an evaluation (failed, unfinished) go with those that were trained on the same terms.
    """
    rows = measured.evaluated
    keys, trained = protocol_hash(rows, ("noise",)), protocol_hash(measured.runs, ("noise", *AFTER))
    found = []
    for key in keys.unique():
        inside = rows[keys == key]
        if inside["noise"].nunique() < 2:
            continue
        others = measured.runs[(trained == trained[inside.index[0]]) & ~measured.runs.index.isin(rows.index)]
        title = setting_title(inside.iloc[0].to_dict() | {"noise": CLEAN})
        levels, left_out = _levels(inside["noise"])
        found.append(Study(key, title, measured.restricted(pd.concat([inside, others])), levels, left_out))
    titles = [study.title for study in found]
    found = [s._replace(title=f"{s.title} · {s.key}") if titles.count(s.title) > 1 else s for s in found]
    return sorted(found, key=lambda study: (-len(study.measured.evaluated), study.title))


def _levels(noises: Iterable[str]) -> tuple[dict[str, list[Level]], tuple[str, ...]]:
    """The levels of each kind, and what belongs to none."""
    names = sorted(set(noises), key=order)
    levels: dict[str, list[Level]] = {}
    for noise in names:
        if (found := parse(noise)) is not None:
            kind, level = found
            clean = [Level(CLEAN, kind, 0.0, 0.0)] if CLEAN in names else []
            levels.setdefault(kind, clean).append(Level(noise, kind, level, level * KINDS[kind].scale))
    return levels, tuple(noise for noise in names if noise != CLEAN and parse(noise) is None)


# ---------------------------------------------------------------------------------------------------------------------
# Errors and ranks


def errors(study: Study, metric: Metric = "mae") -> pd.DataFrame:
    """The error of every loss at every level of every kind, one row each.

    Args:
        study: What was measured.
        metric: mae, rmse, nae or bias.

    Returns:
        `kind, noise, level, x, label, estimate, low, high, seeds, images`: the interval over seeds and images, NaN of
        one seed. The clean level stands in every kind that has another one.
    """
    rows = []
    for kind, levels in study.levels.items():
        for level in levels:
            for label, sample in study.samples(level.noise).items():
                found = sample.interval(metric)
                low, high = (found.low, found.high) if len(sample.seeds) > 1 else (math.nan, math.nan)
                told = {"kind": kind, "noise": level.noise, "level": level.level, "x": level.x, "label": label}
                rows.append(told | {"estimate": found.estimate, "low": low, "high": high, "seeds": len(sample.seeds)})
                rows[-1]["images"] = found.images
    columns = ["kind", "noise", "level", "x", "label", "estimate", "low", "high", "seeds", "images"]
    return pd.DataFrame(rows, columns=columns)


def constants(study: Study, metric: Metric = "mae") -> pd.DataFrame:
    """The error of the constant count at every level: `kind, noise, x, estimate`. Missing labels change their mean."""
    rows, name = study.measured.evaluated, f"constant_{metric}"
    found = rows.groupby("noise")[name].mean() if name in rows else pd.Series(dtype=float)
    told = [
        {"kind": kind, "noise": level.noise, "x": level.x, "estimate": found.get(level.noise, math.nan)}
        for kind, levels in study.levels.items()
        for level in levels
    ]
    return pd.DataFrame(told, columns=["kind", "noise", "x", "estimate"])


def comparisons(study: Study, metric: Metric = "mae") -> dict[str, Comparisons]:
    """All pairs of losses at each noise, Holm-corrected over the pairs of that noise alone."""
    return {noise: Comparisons({noise: study.samples(noise)}, (metric,)) for noise in study.noises}


def ranks(study: Study, metric: Metric = "mae", compared: Mapping[str, Comparisons] | None = None) -> pd.DataFrame:
    """The ranking at every noise, with what is not separated.

    Of n losses, the rank of one that is separated from a better ones and b worse ones lies from 1 + a to n - b: with
    tests whose family-wise error is 5 %, all these ranges hold at once at 95 % (Mogstad, Romano, Shaikh and Wilhelm,
    Inference for Ranks, Review of Economic Studies 2024). A pair that could not be tested is not separated.

    Args:
        study: What was measured.
        metric: mae, rmse or nae; lower is better.
        compared: `comparisons` of the same study and metric, if they were made already.

    Returns:
        `noise, label, estimate, rank, first, last, change, not_separated, tested, seeds`: rank 1 has the least mean
        error; `first` to `last` is the range; `change` is to the rank with clean labels among the losses that both
        have, negative is better, NaN without; `not_separated` names the losses that are not told apart; `tested` is
        whether all pairs of the loss were. Losses without a finite estimate are left out.
    """
    compared = comparisons(study, metric) if compared is None else compared
    means = {noise: _means(study.samples(noise), metric) for noise in study.noises}
    rows = []
    for noise, found in means.items():
        rank = _ranked(found)
        clean = means.get(CLEAN, {})
        both = [label for label in found if label in clean]
        before, after = (_ranked({label: values[label] for label in both}) for values in (clean, found))
        for label in sorted(found, key=lambda name: (found[name], name)):
            others = [other for other in found if other != label]
            lost = [compared[noise].better(noise, metric, other, label) for other in others]
            won = [compared[noise].better(noise, metric, label, other) for other in others]
            same = [other for other, *apart in zip(others, lost, won, strict=True) if not any(apart)]
            change = after[label] - before[label] if label in after and noise != CLEAN else math.nan
            told = {"noise": noise, "label": label, "estimate": found[label], "rank": rank[label]}
            told |= {"first": 1 + sum(map(bool, lost)), "last": len(found) - sum(map(bool, won)), "change": change}
            told |= {"not_separated": ", ".join(same), "tested": None not in lost}
            rows.append(told | {"seeds": len(study.samples(noise)[label].seeds)})
    columns = ["noise", "label", "estimate", "rank", "first", "last", "change", "not_separated", "tested", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def _means(samples: Mapping[str, Sample], metric: Metric) -> dict[str, float]:
    """The finite estimates."""
    found = {label: float(sample.scores(metric).mean()) for label, sample in samples.items()}
    return {label: value for label, value in found.items() if math.isfinite(value)}


def _ranked(means: Mapping[str, float]) -> dict[str, float]:
    """Ranks, 1 for the least; equal means share one."""
    return dict(zip(means, map(float, rankdata(list(means.values()))), strict=True)) if means else {}


# ---------------------------------------------------------------------------------------------------------------------
# The two norms of PML's count term


def count_norms(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The labels of PML with the L1 and with the L2 count norm, for every pair that is equal in all else.

    Args:
        rows: Some of `Measured.runs`: `loss, loss_params, loss_version, head, label`.
    """
    found: dict[str, dict[str, str]] = {}
    for row in rows[rows["loss"] == "pml"].to_dict("records"):
        params: dict[str, Any] = json.loads(row["loss_params"])
        norm = str(params.pop("count_norm", ""))
        key = json.dumps([params, row["head"], row["loss_version"]], sort_keys=True, default=str)
        found.setdefault(key, {}).setdefault(norm, str(row["label"]))
    return [(pair["l1"], pair["l2"]) for pair in found.values() if {"l1", "l2"} <= set(pair)]


def norm_curves(study: Study, history: pd.DataFrame, pair: tuple[str, str]) -> pd.DataFrame:
    """Errors per epoch of PML with both count norms, at the noises that both were trained on.

    Args:
        study: What was measured.
        history: `results.Store.histories()` of its runs.
        pair: Labels of the L1 and of the L2 norm; see `count_norms`.

    Returns:
        `noise, norm, label, seed, run_id, epoch, val_mae, train_mae, picked`: `val_mae` on the clean validation images,
        `train_mae` on the training crops against the labels as trained on (NaN of runs that did not keep it), `picked`
        where the weights of that epoch are evaluated.

    Raises:
        ValueError: If the two have no noise in common, or no epoch was kept.
    """
    rows = study.measured.evaluated
    rows = rows[rows["label"].isin(pair)]
    both = [str(noise) for noise, own in rows.groupby("noise") if own["label"].nunique() == 2]
    if not both:
        raise ValueError(f"{pair[0]} and {pair[1]} have no noise in common: train both on the same labels")
    rows = rows[rows["noise"].isin(both)].assign(norm=rows["label"].map(dict(zip(pair, ("L1", "L2"), strict=True))))
    kept = rows[["noise", "norm", "label", "seed", "run_id", "epoch"]].rename(columns={"epoch": "chosen"})
    epochs = history.reindex(columns=["run_id", "epoch", "val_mae", "train_mae"])
    data = kept.merge(epochs.drop_duplicates(["run_id", "epoch"], keep="last"), on="run_id")
    if data.empty or data["val_mae"].isna().all():
        raise ValueError(f"no epoch of {pair[0]} and {pair[1]} was kept with its val_mae: there is no curve")
    data["picked"] = data["epoch"] == data["chosen"]
    data = data.assign(place=data["noise"].map({noise: i for i, noise in enumerate(sorted(both, key=order))}))
    data = data.sort_values(["place", "norm", "seed", "epoch"], kind="stable", ignore_index=True)
    return data.drop(columns=["chosen", "place"])
