"""Tables of sparse and of dense crowds: a row a loss, a group of columns a bin. Bins and units are ours.

`of_images`, `of_windows` and `of_places` measure; `table` prints what they found, `reports.plots_density` draws it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy.typing as npt
import pandas as pd

from losses.discovery import check_known
from reports.cells import METRIC_NAMES
from reports.density import Binning, Kind, binning, scored
from reports.density_words import LEVEL, digits_of, findings, span_words
from reports.localised import Localised, PlaceSample
from reports.measured import Measured
from reports.place_windows import PlaceUnits, PlaceWindows
from reports.shares import SHARES
from reports.table import Cell, Column, Row, Table, number
from reports.table import Kind as ColumnKind
from reports.tables import Setting
from reports.tables_places import APART, file_name, radius_words, scoring_caption, setting_key
from reports.units import METRICS, Units
from reports.windows import Windows
from reports.words import failures_caption, setting_title, terms_caption
from results.crowds import LEAST_IMAGES, nearest

__all__ = ["Density", "Heads", "check_baseline", "of_images", "of_place_windows", "of_places", "of_windows", "table"]

Heads = Callable[[Mapping[str, Any], Sequence[str], Sequence[float]], Sequence[npt.ArrayLike]]
"""From the terms of a setting, its image ids and true counts: each image's heads, (n, 2), pixels of the prepared image.
Raises ValueError where the data are not at hand, or not those that were measured."""
DEFAULT_BASELINE = "l2"
"""What the others are compared with, where it was measured (ours)."""
_BY: dict[Kind, str] = {"quantiles": "", "nwpu": " by NWPU-Crowd's levels", "jhu": " by JHU-Crowd++'s ranges"}
_BY |= {"spacing": " by spacing"}
_WINDOWS = (
    "Windows of {side} px do not overlap and start at the upper left corner of the {which} image; those at the right "
    "and the lower border are smaller. The images are the sample: windows of one image are not independent."
)


class Density(NamedTuple):
    """One setting in the bins of one kind.

    Attributes:
        name: For names of files.
        title: One line.
        unit: `image`, or `128 px window`.
        stub: What a row is.
        found: The bins.
        frame: `density.scored`.
        metrics: What is in it, the first one compared.
        baseline: What the others are compared with.
        findings: What is told apart, in sentences.
        caption: What the units are, and the terms.
    """

    name: str
    title: str
    unit: str
    stub: str
    found: Binning
    frame: pd.DataFrame
    metrics: tuple[str, ...]
    baseline: str | None
    findings: tuple[str, ...]
    caption: tuple[str, ...]


def of_images(
    setting: Setting, kind: Kind = "quantiles", *, baseline: str | None = None, heads: Heads | None = None
) -> Density:
    """Whole images of a setting.

    Args:
        setting: What was measured.
        kind: Of the bins.
        baseline: A label; by default `l2`, else the first. A label that is not in this setting: nothing is compared.
        heads: For bins of the spacing.

    Raises:
        ValueError: If bins of the spacing are asked for and the data are not at hand.
    """
    samples = {label: Units.of(sample) for label, sample in _sorted(setting).items()}
    first = next(iter(samples.values()))
    found = binning(kind, _values(kind, setting.first, first.ids, first.true, heads))
    return _density(f"{kind}_{setting.key}", "image", setting, found, samples, baseline)


def of_windows(
    setting: Setting,
    windows: Windows,
    kind: Kind = "quantiles",
    *,
    baseline: str | None = None,
    heads: Heads | None = None,
) -> Density:
    """Windows of the images of a setting; losses without windows are left out.

    Args:
        setting: What was measured.
        windows: Of its images.
        kind: Of the bins; their names are of images, and for windows ours.
        baseline: As `of_images`.
        heads: For bins of the spacing.

    Raises:
        ValueError: If no run has windows, and as `of_images`.
    """
    rows = setting.measured.evaluated
    rows = rows[windows.has(rows)]
    if rows.empty:
        raise ValueError("no windows were kept with these runs (a study recorded --without-windows has none)")
    samples = {str(label): windows.units(inside) for label, inside in rows.groupby("label", sort=True)}
    label, first = next(iter(samples.items()))
    values: npt.ArrayLike = first.true
    if kind == "spacing":
        people = [float(first.true[first.owner == place].sum()) for place in range(len(first.ids))]
        values = windows.spacing(rows[rows["label"] == label], _heads(heads)(setting.first, first.ids, people))
    side = windows.window
    found = binning(kind, values, unit=f"{side} px window")
    words = (_WINDOWS.format(side=side, which="prepared"),)
    name = f"windows{side}_{kind}_{setting.key}"
    return _density(name, f"{side} px window", setting, found, samples, baseline, words)


def of_places(localised: Localised, kind: Kind = "quantiles", *, heads: Heads | None = None) -> Density:
    """F1, precision and recall of every system by density of the image, at the radius that chose the thresholds.

    Args:
        localised: One of `tables_places.by_setting`.
        kind: Of the bins.
        heads: For bins of the spacing.

    Raises:
        ValueError: If no hits could be read at the main radius, and as `of_images`.
    """
    rows = localised.rows
    rows = rows[rows["main"].astype(bool) & localised.has_hits(rows)]
    if rows.empty:
        raise ValueError("no hits by image were kept at the main radius")
    samples = {str(system): localised.sample(own) for system, own in rows.groupby("system", sort=True)}
    first = next(iter(samples.values()))
    terms = {str(name): value for name, value in rows.iloc[0].items()}
    found = binning(kind, _values(kind, terms, first.ids, first.true, heads))
    return _placed(f"{kind}_places_{setting_key(localised.rows)}", "image", rows, found, samples)


def of_place_windows(localised: Localised, windows: PlaceWindows, kind: Kind = "quantiles") -> Density:
    """The same by density of the window.

    Args:
        localised: One of `tables_places.by_setting`.
        windows: Of its images.
        kind: Of the bins; their names are of images, and for windows ours.

    Raises:
        ValueError: If no matches by head were kept at the main radius.
    """
    rows = localised.rows
    rows = rows[rows["main"].astype(bool) & windows.has(rows)]
    if rows.empty:
        raise ValueError("no points and matches were kept at the main radius (recorded studies have none)")
    samples = {str(system): windows.units(own) for system, own in rows.groupby("system", sort=True)}
    first = next(iter(samples.values()))
    side = windows.window
    values = first.spacing if kind == "spacing" else first.true
    found = binning(kind, values, unit=f"{side} px window", pixels="stored")
    words = (
        _WINDOWS.format(side=side, which="stored"),
        "A found head counts in its window, and so does the point that stands for it; other points where they lie.",
    )
    name = f"windows{side}_{kind}_places_{setting_key(localised.rows)}"
    return _placed(name, f"{side} px window", rows, found, samples, words)


def table(density: Density) -> Table:
    """Rows losses, then what the bins hold; a group of columns for each metric, in it a column a bin."""
    frame, first = density.frame, density.metrics[0]
    bins = list(dict.fromkeys(frame["bin"]))
    rows: dict[str, dict[str, dict[str, Any]]] = {
        str(label): {str(row["bin"]): row for row in _records(own)} for label, own in frame.groupby("label", sort=False)
    }
    groups: list[tuple[str, ColumnKind, Callable[[Mapping[str, Any]], Cell]]] = []
    for metric in density.metrics:
        groups.append((METRIC_NAMES[metric], "measured", partial(_cell, metric=metric)))
        if metric == first and frame[f"{first}_low"].notna().any():
            groups.append((f"{METRIC_NAMES[first]}, 95 %", "text", partial(_span, metric=first)))
    if density.baseline:
        groups.append((f"{METRIC_NAMES[first]} − {density.baseline}", "derived", partial(_change, metric=first)))
    heads = tuple(Column(name, group, kind) for group, kind, _ in groups for name in bins)
    body = [Row(label, tuple(make(own[name]) for *_, make in groups for name in bins)) for label, own in rows.items()]
    any_row = next(iter(rows.values()))
    counted = {f"({density.unit}s)": "units"} if density.unit != "image" else {}
    for words, column in (counted | {"(images)": "images", "(people)": "people"}).items():
        cells = [Cell(f"{any_row[name][column]:,}", any_row[name][column]) for name in bins]
        body.append(Row(words, (*cells, *[Cell()] * (len(heads) - len(bins))), reference=True))
    return Table(
        file_name(density.name), density.title, density.stub, heads, tuple(body), density.caption, density.findings
    )


def check_baseline(measured: Measured, baseline: str | None) -> None:
    """Raises `UnknownNameError`, a ValueError, unless the baseline is a label that was measured, or None."""
    if baseline is not None:
        check_known("baseline", baseline, sorted(set(map(str, measured.evaluated["label"]))))


# ---------------------------------------------------------------------------------------------------------------------
# Within


def _density(
    name: str,
    unit: str,
    setting: Setting,
    found: Binning,
    samples: Mapping[str, Units],
    baseline: str | None,
    words: tuple[str, ...] = (),
) -> Density:
    """The errors of a setting with what stands under them."""
    base = baseline or (DEFAULT_BASELINE if DEFAULT_BASELINE in samples else next(iter(samples)))
    against = base if base in samples and len(samples) > 1 else None
    if baseline is not None and against is None:
        words = (*words, f"{baseline} has nothing to be compared with here.")
    frame = scored(found, samples, METRICS, against)
    caption = (*words, found.words, *_reading(frame, METRICS, against), *terms_caption(setting.measured.evaluated))
    title = f"Sparse and dense {unit}s{_BY[found.kind]}: {setting.title}"
    caption += failures_caption(setting.measured)
    said = tuple(findings(frame, found.kind, METRICS[0], against)) if against else ()
    return Density(f"sparse_dense_{name}", title, unit, "loss", found, frame, METRICS, against, said, caption)


def _sorted(setting: Setting) -> dict[str, Any]:
    return dict(sorted(setting.measured.samples(setting.measured.evaluated).items()))


def _placed(
    name: str,
    unit: str,
    rows: pd.DataFrame,
    found: Binning,
    samples: Mapping[str, PlaceSample] | Mapping[str, PlaceUnits],
    words: tuple[str, ...] = (),
) -> Density:
    """The shares of systems with what stands under them; a table of them names loss and localizer."""
    radius = str(rows["radius"].iloc[0])
    frame = scored(found, samples, SHARES)
    labels = rows.drop_duplicates("system").set_index("system")[["label", "localizer_label"]]
    frame = frame.rename(columns={"label": "system"}).join(labels, on="system")
    named = frame.rename(columns={"label": "loss", "system": "label"})
    terms = (*scoring_caption(rows, radius), *terms_caption(rows, APART))
    title = setting_title({str(column): value for column, value in rows.iloc[0].items()})
    return Density(
        f"sparse_dense_{name}",
        f"Sparse and dense {unit}s{_BY[found.kind]}, found within {radius_words(radius)}: {title}",
        unit,
        "loss + localizer",
        found,
        named,
        SHARES,
        None,
        tuple(findings(named, found.kind, SHARES[0], None)),
        (*words, found.words, *_reading(frame, SHARES, None), *terms),
    )


def _values(
    kind: Kind, terms: Mapping[str, Any], ids: Sequence[str], true: Any, heads: Heads | None
) -> Sequence[float]:
    """What is binned of images: true counts, or spacings."""
    counts = list(map(float, true))
    if kind != "spacing":
        return counts
    found = [nearest(points) for points in _heads(heads)(terms, ids, counts)]
    return [float(each.mean()) if len(each) else math.nan for each in found]


def _heads(heads: Heads | None) -> Heads:
    if heads is None:
        raise ValueError("bins of the spacing need the annotations: name the folder of the datasets, --data-root")
    return heads


def _reading(frame: pd.DataFrame, metrics: Sequence[str], baseline: str | None) -> list[str]:
    """How the numbers are to be read."""
    said = ["Ours throughout: what Figure 7 of the PML paper bins, on which data, is not known."]
    if frame["seeds"].max() < 2:
        return [*said, "1 seed: no interval over seeds, and nothing is compared."]
    said.append(
        f"95 %: intervals over seeds and images, of a bin's images; none with fewer than {LEAST_IMAGES} images. "
        + (
            "NAE over those with people."
            if "nae" in metrics
            else "Pooled over the images of a bin; none where nobody is."
        )
    )
    if baseline is not None:
        tests = int(frame["p"].notna().sum())
        said.append(
            f"{METRIC_NAMES[metrics[0]]} − {baseline}: paired on the same seeds and images, with its 95 % interval "
            f"(not corrected); *: not zero, at 5 % after Holm's correction for the {tests} tests of the table."
        )
    return said


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _cell(row: Mapping[str, Any], metric: str) -> Cell:
    """One metric in one bin."""
    value, digits = row[metric], digits_of(row, metric)
    if not math.isfinite(value):
        return Cell("–", seeds=row["seeds"])
    sd, low, high = (_known(row[f"{metric}_{name}"]) for name in ("sd", "low", "high"))
    return Cell(number(value, digits, sign=metric == "bias"), value, sd, low, high, row["seeds"])


def _span(row: Mapping[str, Any], metric: str) -> Cell:
    """The interval of one metric in one bin."""
    low, high, digits = row[f"{metric}_low"], row[f"{metric}_high"], digits_of(row, metric)
    return Cell(f"{low:.{digits}f} to {high:.{digits}f}" if math.isfinite(low) else "none")


def _change(row: Mapping[str, Any], metric: str) -> Cell:
    """The difference to the baseline."""
    at, low, high = row["difference"], row["difference_low"], row["difference_high"]
    if not math.isfinite(at):
        return Cell("–")
    star = "*" if row["p_holm"] < LEVEL else ""
    return Cell(span_words(row, metric) + star, at, low=low, high=high, seeds=row["seeds"])


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
