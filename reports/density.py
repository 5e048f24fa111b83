"""Errors of sparse and of dense crowds: bins of images or of windows, each with its errors over seeds and images.

What the PML paper's Figure 7 ("performance difference of PML when handling sparse and dense crowds") bins, on which
data and how it measures, is not known: units, bins and axes here are ours. What a bin's errors and their intervals are,
`reports.units` says. Where the bins lie is taken for given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from losses.discovery import check_known
from reports import stats
from reports.localised import PlaceSample
from reports.place_windows import PlaceUnits
from reports.stats import Array
from reports.units import METRICS, Units
from results.crowds import LEAST_IMAGES, SCENE_BOUNDS
from results.crowds import quantiles as quantile_of

__all__ = [
    "KINDS",
    "QUANTILES",
    "Bin",
    "Binning",
    "Kind",
    "binning",
    "scored",
]

Kind = Literal["quantiles", "nwpu", "jhu", "spacing"]
KINDS: tuple[Kind, ...] = get_args(Kind)
QUANTILES = 5
"""Bins of about equally many units with people (ours)."""
_LEVELS: dict[Kind, tuple[str, str, tuple[int, ...]]] = {
    "nwpu": ("scene levels of NWPU-Crowd", "S", SCENE_BOUNDS),
    "jhu": ("ranges of JHU-Crowd++, as we recall them (no source at hand: ours)", "", (50, 500)),
}
"""Whose levels, a letter before each one's number, and the most people of each but the last, which has more."""
_DECIMALS = 6
"""Of a bin's ends, at most."""

Bools = npt.NDArray[np.bool_]


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


def binning(
    kind: Kind, values: npt.ArrayLike, *, unit: str = "image", count: int = QUANTILES, pixels: str = "prepared"
) -> Binning:
    """Bins of one kind.

    Args:
        kind: `quantiles` of the true count, `nwpu`: scene levels of NWPU-Crowd, `jhu`: ranges of JHU-Crowd++,
            `spacing`: quantiles of the mean distance to the nearest other head.
        values: (U,) true counts, or for `spacing` pixels, NaN where there is no distance.
        unit: What the units are, for words.
        count: Number of quantiles.
        pixels: Of which image those of the spacing are, for words: `prepared` or `stored`.

    Raises:
        ValueError: If the kind is unknown, there is no unit, or a count is negative or not finite.
    """
    check_known("kind of bins", kind, KINDS)
    found = np.asarray(values, float)
    if found.ndim != 1 or not len(found) or (kind != "spacing" and not (np.isfinite(found) & (found >= 0)).all()):
        raise ValueError(f"expected a list of counts of at least 0, at least one; found shape {found.shape}")
    people = f"true count of the {unit} (people)"
    if kind == "quantiles":
        within = _within(found > 0, found, count)
        bins = [Bin("0", found == 0), *within]
        cut = _cut(within, count, f"{unit}s with people")
        words = f"Bins: {cut}, by true count; those without people are a bin of their own (ours)."
        return Binning(kind, people, words, _peopled(bins))
    if kind == "spacing":
        bins, words = _spaced(found, unit, count, pixels)
        return Binning(kind, f"mean distance to the nearest head (px of the {pixels} image)", words, _peopled(bins))
    whose, letter, tops = _LEVELS[kind]
    level = np.searchsorted(tops, found)
    bins = [Bin(name, level == place) for place, name in enumerate(_names(letter, tops))]
    of_windows = "" if unit == "image" else "; of windows they are ours"
    return Binning(kind, people, f"Bins: {whose}, by true count{of_windows}.", _peopled(bins))


def _spaced(spacing: Array, unit: str, count: int, pixels: str) -> tuple[list[Bin], str]:
    """Quantiles of the spacing, with a sentence."""
    known = np.isfinite(spacing)
    alone, rest = ("<2 heads", "images with fewer than two heads are")
    if unit != "image":
        alone, rest = ("no distance", "windows without a head, or with the only one of their image, are")
    within = _within(known, spacing, count, " px")
    words = (
        f"Bins: {_cut(within, count, f'{unit}s')}, by the mean distance of a head to the nearest other of the image, "
        f"in pixels of the {pixels} image, the densest first; {rest} a bin of their own (ours)."
    )
    return [*within, Bin(alone, ~known)], words


def _cut(bins: Sequence[Bin], count: int, units: str) -> str:
    """How the units were cut: equal values stay together, so bins may be fewer and not equally full."""
    made, sizes = len(bins), [int(one.members.sum()) for one in bins]
    if made == count and max(sizes) <= 1.25 * min(sizes):
        return f"{made} bins of about equally many {units}"
    return f"{made} of {count} quantiles of the {units}, as equal values stay in one bin"


def _names(letter: str, tops: Sequence[int]) -> list[str]:
    """`S0: 0`, `S1: 1–100`, ..., `S4: >5000`."""
    lows = [0, *(top + 1 for top in tops[:-1])]
    ranges = [f"{low}–{top}" if low < top else f"{top}" for low, top in zip(lows, tops, strict=True)]
    ranges.append(f">{tops[-1]}")
    return [f"{letter}{place}: {name}" if letter else name for place, name in enumerate(ranges)]


def _within(kept: Bools, values: Array, count: int, unit: str = "") -> list[Bin]:
    """Quantiles of some of the units, named by the least and the greatest value in each, and the unit."""
    if not kept.any():
        return []
    places = np.full(len(values), -1)
    places[kept] = quantile_of(values[kept], count)
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
    samples: Mapping[str, Units] | Mapping[str, PlaceSample] | Mapping[str, PlaceUnits],
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
        `_sd, _low, _high` (NaN for shares of found people in a bin of nobody), and `difference` to the baseline with
        `_low, _high`, `p`, `p_holm`. Bounds are NaN where there are fewer than two seeds, or than `LEAST_IMAGES` images
        in a bin.
    """
    rows = []
    for one in found.bins:
        inside = {label: sample.restricted(one.members) for label, sample in samples.items()}
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


def _metric(metric: str, sample: Units | PlaceSample) -> dict[str, float]:
    scores = sample.scores(metric)  # type: ignore[arg-type]  # each has its own metrics
    if isinstance(sample, PlaceSample) and not sample.true.sum():
        scores = np.full_like(scores, np.nan)  # where nobody is there is nobody to be found
    row = {metric: float(scores.mean()), f"{metric}_sd": float(scores.std(ddof=1)) if len(scores) > 1 else np.nan}
    bounds = (np.nan, np.nan)
    if np.isfinite(scores).all() and len(scores) > 1 and len(sample.ids) >= LEAST_IMAGES:
        bounds = sample.interval(metric)[1:3]  # type: ignore[arg-type]
    return row | dict(zip((f"{metric}_low", f"{metric}_high"), bounds, strict=True))


def _difference(metric: str, sample: Units | PlaceSample, other: Units | PlaceSample) -> dict[str, float]:
    names = ("difference", "difference_low", "difference_high", "p")
    one = None if sample is other else sample.compared(metric, other)  # type: ignore[arg-type]
    if one is None or one.seeds < 2 or one.images < LEAST_IMAGES or not np.isfinite(one.difference.low):
        return dict.fromkeys(names, np.nan)
    return dict(zip(names, (*one.difference[:3], one.p), strict=True))
