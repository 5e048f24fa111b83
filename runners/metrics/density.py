"""Scores of sparse and of dense images, with how much they would vary over other images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from results.crowds import LEAST_IMAGES, SCENE_BOUNDS, nearest, quantiles
from runners.metrics.localisation import scores_of
from runners.metrics.radii import scene_level

__all__ = ["by_density", "spacing"]


def by_density(
    rows: pd.DataFrame, radius_names: Sequence[str], *, bins: int = 5, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Precision, recall and F1 by the number of people in the image and by how near to each other they are.

    Args:
        rows: One row of `localisation.image_points` an image; those without people are left out.
        radius_names: `Radius.name`s.
        bins: Quantiles of the spacing (ours), of about equally many images; equal values share one.
        resamples: Of the images of each bin, for the interval.
        seed: Of the resampling.

    Returns:
        Columns `radius, axis` (`people`: scene levels; `spacing`: mean distance to the nearest other head, pixels),
        `bin` (its label), `low, high` (least and greatest value within), `images, true, precision, recall, f1`, summed
        over the bin's images, and `f1_low, f1_high`, the 95 % percentile interval of a bootstrap over its images (ours;
        None with fewer than `LEAST_IMAGES`). The sparsest first for `people`, the densest first for `spacing`.
    """
    kept = rows[rows["true"] > 0].reset_index(drop=True)
    apart = np.array([spacing(np.asarray(heads, float).reshape(-1, 2)) for heads in kept["heads"]], float)
    found: list[dict[str, Any]] = []
    for axis, values, groups in (
        ("people", kept["true"].to_numpy(float), _scenes(kept)),
        ("spacing", apart, _quantiles(apart, bins)),
    ):
        for label, members in groups:
            place = {"axis": axis, "bin": label, "low": values[members].min(), "high": values[members].max()}
            for name in radius_names:
                found.append({"radius": name} | place | _scored(kept.iloc[members], name, resamples, seed))
    columns = [
        "radius",
        "axis",
        "bin",
        "low",
        "high",
        "images",
        "true",
        "precision",
        "recall",
        "f1",
        "f1_low",
        "f1_high",
    ]
    return pd.DataFrame([[one[column] for column in columns] for one in found], columns=columns)


def spacing(heads: np.ndarray) -> float:
    """Mean distance of a head to the nearest other, pixels; NaN with fewer than two heads."""
    return float(nearest(heads).mean()) if len(heads) > 1 else float("nan")


def _scenes(kept: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    levels = scene_level(kept["true"])
    names = [f"{low + 1}–{high}" for low, high in pairwise(SCENE_BOUNDS)]
    names.append(f">{SCENE_BOUNDS[-1]}")
    return [(names[level - 1], np.flatnonzero(levels == level)) for level in np.unique(levels)]


def _quantiles(values: np.ndarray, bins: int) -> list[tuple[str, np.ndarray]]:
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return []
    places = quantiles(values[known], bins)
    found = []
    for place in np.unique(places):
        members = known[places == place]
        found.append((f"{values[members].min():.3g}–{values[members].max():.3g}", members))
    return found


def _scored(part: pd.DataFrame, name: str, resamples: int, seed: int) -> dict[str, Any]:
    """Scores of some images, and the interval of F1."""
    counts = part[[f"tp_{name}", "predicted", "true"]].to_numpy(float)
    scores = scores_of(*(int(total) for total in counts.sum(axis=0)))
    low = high = None
    if len(part) >= LEAST_IMAGES:
        drawn = np.random.default_rng(seed).integers(0, len(part), (resamples, len(part)))
        tp, predicted, true = counts[drawn].sum(axis=1).T
        low, high = (float(value) for value in np.quantile(2 * tp / (predicted + true), [0.025, 0.975]))
    shares = {what: scores[what] for what in ("precision", "recall", "f1")}
    return {"images": len(part), "true": int(counts[:, 2].sum())} | shares | {"f1_low": low, "f1_high": high}
