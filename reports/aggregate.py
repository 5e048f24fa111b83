"""Across settings: which loss does well on many data, networks and noises, not on one.

Errors are normalised by the constant count's MAE of the same setting, so that 1 is as bad as predicting the mean of the
training labels and lower is better. Only losses that were measured in every setting are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from reports import many
from reports.measured import generator
from reports.table import Cell, Column, Row, Table
from reports.tables import Setting

__all__ = ["Normalised", "normalised", "profile", "ranking", "table"]


MIN_RUNS = 10
"""Fewest runs in every setting from which the interval of the interquartile mean is shown (ours)."""


class Normalised(NamedTuple):
    """Normalised MAE.

    Attributes:
        labels: L losses, in every setting.
        settings: C titles.
        datasets: The dataset of each setting.
        scores: For each loss and setting the normalised MAE of each seed.
        left_out: The losses that are not among them, with the titles of the settings that they lack.
    """

    labels: tuple[str, ...]
    settings: tuple[str, ...]
    datasets: tuple[str, ...]
    scores: dict[str, list[npt.NDArray[np.float64]]]
    left_out: dict[str, tuple[str, ...]]

    @property
    def means(self) -> npt.NDArray[np.float64]:
        """Mean over seeds, [C, L]."""
        return np.array([[self.scores[label][c].mean() for label in self.labels] for c in range(len(self.settings))])


def normalised(settings: Sequence[Setting]) -> Normalised:
    """The errors of the losses that all settings have.

    Raises:
        ValueError: If there are fewer than two settings, or fewer than two losses in all of them.
    """
    if len(settings) < 2:
        raise ValueError(f"it takes two settings at least; found {len(settings)}")
    frames = [setting.measured.evaluated for setting in settings]
    there = [set(frame["label"]) for frame in frames]
    common = set.intersection(*there)
    left_out = {
        label: tuple(setting.title for setting, own in zip(settings, there, strict=True) if label not in own)
        for label in sorted(set.union(*there) - common)
    }
    if len(common) < 2:
        found = f"only {next(iter(common))} was" if common else "no loss was"
        raise ValueError(
            f"{found} measured in all {len(settings)} settings, and it takes two losses ({_lacking(left_out)}); train "
            "what is missing, or choose settings with --where"
        )
    labels = tuple(sorted(common))
    scores = {
        label: [
            (rows["mae"] / rows["constant_mae"]).to_numpy(float)
            for frame in frames
            for rows in [frame[frame["label"] == label]]
        ]
        for label in labels
    }
    datasets = tuple(str(setting.first["dataset"]) for setting in settings)
    return Normalised(labels, tuple(setting.title for setting in settings), datasets, scores, left_out)


def _lacking(left_out: Mapping[str, Sequence[str]]) -> str:
    """`gl lacks A; p2p lacks B and C`; losses that lack the same together."""
    by_titles: dict[tuple[str, ...], list[str]] = {}
    for label, titles in left_out.items():
        by_titles.setdefault(tuple(titles), []).append(label)
    return "; ".join(
        f"{', '.join(labels)} {'lacks' if len(labels) == 1 else 'lack'} {' and '.join(titles)}"
        for titles, labels in by_titles.items()
    )


def table(found: Normalised) -> Table:
    """Interquartile mean, probability of improvement over the best other loss, and mean rank.

    The interval of the IQM resamples runs within settings and covers too little with few of them (71 % with two seeds
    in two settings, 91 to 93 % with ten): below `MIN_RUNS` runs in a setting there is none.
    """
    fewest = min(len(runs) for losses in found.scores.values() for runs in losses)
    ranks = rankdata(found.means, axis=1).mean(axis=0)
    rows = []
    for place, label in enumerate(found.labels):
        centre = many.interquartile_mean(found.scores[label], rng=generator("iqm", label))
        better = [
            many.probability_of_improvement(
                found.scores[label], found.scores[other], rng=generator("poi", label, other)
            )
            for other in found.labels
            if other != label
        ]
        least = min(better, key=lambda interval: interval.estimate)
        rows.append(
            Row(
                label,
                (
                    Cell(f"{centre.estimate:.3f}", centre.estimate),
                    Cell(f"{centre.low:.3f} to {centre.high:.3f}" if fewest >= MIN_RUNS else "too few seeds"),
                    Cell(f"{least.estimate:.2f}", least.estimate),
                    Cell(f"{ranks[place]:.2f}", float(ranks[place])),
                ),
            )
        )
    columns = (
        Column("IQM"), Column("95 % interval", kind="text"), Column("least P(better)"), Column("mean rank"),
    )  # fmt: skip
    caption: tuple[str, ...] = (
        f"MAE divided by the constant count's, over {len(found.settings)} settings and all seeds; lower is better.",
        f"IQM: interquartile mean; its interval resamples seeds within each setting, from {MIN_RUNS} seeds on.",
        "least P(better): probability that a run of this loss has a lower error than a run of the loss that is hardest "
        "to beat for it, mean over settings.",
    )
    if found.left_out:
        caption = (*caption, f"Left out, not measured in every setting: {_lacking(found.left_out)}.")
    rows.sort(key=lambda row: float(row.cells[0].value or 0))
    return Table("aggregate", "Across settings", "loss", columns, tuple(rows), caption)


def profile(found: Normalised) -> pd.DataFrame:
    """The performance profile: share of runs with at most each normalised error; label, threshold, share."""
    most = max(float(scores.max()) for losses in found.scores.values() for scores in losses)
    thresholds = np.linspace(0, most * 1.05, 200)
    return pd.concat(
        pd.DataFrame(
            {"label": k, "threshold": thresholds, "share": many.performance_profile(found.scores[k], thresholds)}
        )
        for k in found.labels
    )


def ranking(found: Normalised) -> many.Ranking:
    """Friedman's test and Nemenyi's critical difference over the datasets.

    A cell is a dataset, its error the mean over its settings: networks and noises share its images, and five noises of
    one test set are no five cells.

    Raises:
        ValueError: If there are too few datasets or losses for it.
    """
    return many.friedman_nemenyi(pd.DataFrame(found.means).groupby(list(found.datasets)).mean().to_numpy())
