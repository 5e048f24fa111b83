"""Tables of where people were found: precision, recall and F1 of every system, a loss with a localizer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from losses.discovery import check_known
from reports.cells import METRIC_NAMES, measured_cells, plain_cell
from reports.localised import Localised, PlaceSample, shown_radii, swept
from reports.measured import Comparisons
from reports.protocol import TERMS, check_comparable, protocol_hash
from reports.shares import SHARES
from reports.table import Cell, Column, Row, Table
from reports.words import reading, setting_title, terms_caption

__all__ = [
    "APART",
    "by_setting",
    "check_shares",
    "file_name",
    "localisation",
    "radius_words",
    "scoring_caption",
    "setting_key",
]

APART = ("eval_id",)
"""A localizer is part of the row: its identity is no term of the column."""


def by_setting(localised: Localised) -> list[Localised]:
    """What may stand in one table: the same terms, the same radii.

    Returns:
        The parts. Their rows have a column `told` for `setting_title`: the stride, and of parts that would have one
        title the terms that they differ in, each with its value.

    Raises:
        ValueError: If nothing was measured of places.
    """
    read = localised.rows.assign(read=localised.has_hits(localised.rows))  # of a sweep, at the main radius only
    rows = localised.rows[read.groupby(["run_id", "eval_id"])["read"].transform("any")]
    if rows.empty:
        raise ValueError("no run has scores of places; `benchmark run ... --localizers lm otm` makes them")
    keys = protocol_hash(rows, APART) + " " + rows["scoring"] + " " + rows["localisation_version"].astype(str)
    found = [localised.restricted(rows[keys == key]) for key in keys.unique()]
    for part, words in zip(found, _told([part.rows for part in found]), strict=True):
        part.rows = part.rows.assign(told=words)
    return found


def _told(parts: Sequence[pd.DataFrame]) -> list[str]:
    """For each part the words behind its title that tell it from all others."""
    firsts = [{str(name): value for name, value in rows.iloc[0].items()} for rows in parts]
    told = [{"stride": f"stride {first['stride']}"} for first in firsts]
    titles = [(setting_title(first), first["stride"]) for first in firsts]
    for title in {title for title in titles if titles.count(title) > 1}:
        places = [place for place, other in enumerate(titles) if other == title]
        for name, words in _names(firsts).items():
            values = {place: str(firsts[place].get(name)) for place in places}
            if len(set(values.values())) > 1:
                for place, value in values.items():
                    told[place][name] = f"{words} {_short(value, name)}"
    return [", ".join(words.values()) for words in told]


def _names(firsts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What may tell two parts of one title apart, in words: the terms, the recipe field by field, and the scoring."""
    fields = dict.fromkeys(name for first in firsts for name in first if name.startswith("recipe_"))
    terms = {name: words for name, words in TERMS.items() if name not in ("settings", *APART)}
    recipe = {name: name.removeprefix("recipe_").replace("_", " ") for name in fields}
    return terms | recipe | {"scoring": "thresholds by", "localisation_version": "scores of version"}


def _short(value: str, name: str) -> str:
    """A term's value; of a hash what one tells it by."""
    return value[:8] if name.endswith("_hash") else value


def localisation(localised: Localised, metrics: Sequence[str] = SHARES) -> Table:
    """The systems of one setting, the highest F1 at the radius that chose the thresholds first.

    Args:
        localised: One of `by_setting`.
        metrics: f1, precision, recall; all of them at the main radius, the first at the others.

    Raises:
        MixedProtocolError: If it is more than one setting.
        ValueError: If a metric is unknown.
    """
    check_shares(metrics)
    rows = localised.rows
    check_comparable(rows, "the columns of localisation", APART, ("localisation_version", "scoring"))
    key = setting_key(rows)
    radii = shown_radii(rows)
    main = next(iter(rows.loc[rows["main"].astype(bool), "radius"]), radii[-1])
    samples = {radius: _samples(localised, rows[rows["radius"] == radius]) for radius in radii}
    comparisons = Comparisons(samples, metrics)
    cells = {metric: measured_cells(samples, metric, comparisons) for metric in metrics}
    first = cells[metrics[0]][main]
    order = sorted(samples[main], key=lambda system: -(first[system].value or 0.0))
    others = [radius for radius in radii if radius != main]
    ranges = swept(str(rows["radii"].iloc[0]))
    body = []
    for system in order:
        own = rows[rows["system"] == system]
        chosen = own[own["radius"] == main]
        seeds = len(samples[main][system].seeds)
        found = [Cell(str(seeds), seeds), *(cells[metric][main][system] for metric in metrics)]
        found += [plain_cell(chosen["ap"], 3), plain_cell(chosen["error"], 1)]
        found += [cells[metrics[0]][radius].get(system, Cell("–")) for radius in others]
        found += [_mean(own, names, metric) for names in ranges.values() for metric in metrics]
        found += [plain_cell(chosen["count_mae"], 1), _threshold(chosen["threshold"])]
        body.append(Row(system, tuple(found)))
    first_row = {str(name): value for name, value in rows.iloc[0].items()}
    merged = {f"{radius}/{system}": sample for radius, found in samples.items() for system, sample in found.items()}
    return Table(
        name=f"localisation_{key}",
        title=f"Where people are: {setting_title(first_row)}, {_places_words(rows)}",
        stub="loss + localizer",
        columns=_columns(main, others, list(ranges), metrics),
        rows=tuple(body),
        caption=(*terms_caption(rows, APART), *scoring_caption(rows, main), *reading(merged, comparisons)),
    )


def setting_key(rows: pd.DataFrame) -> str:
    """A short hash of the terms of one of `by_setting`, for names of files."""
    terms = protocol_hash(rows, APART).iloc[0], rows["scoring"].iloc[0], rows["localisation_version"].iloc[0]
    return hashlib.sha256(repr(terms).encode()).hexdigest()[:8]


def _columns(main: str, others: Sequence[str], ranges: Sequence[str], metrics: Sequence[str]) -> tuple[Column, ...]:
    """All metrics, AP and the error at the main radius, the first metric at the others, the means over ranges."""
    place = radius_words(main)
    found = [Column("seeds"), *(Column(METRIC_NAMES[metric], place) for metric in metrics)]
    found += [Column("AP", place), Column("error px", place)]
    found += [Column(METRIC_NAMES[metrics[0]], radius_words(radius)) for radius in others]
    found += [Column(METRIC_NAMES[metric], f"mean {words}") for words in ranges for metric in metrics]
    return (*found, Column("count MAE"), Column("threshold"))


def _places_words(rows: pd.DataFrame) -> str:
    """`within 4 px, 8 px`: where points count."""
    words = str(rows["radii"].iloc[0]).split()
    within = ", ".join(radius_words(word) if ":" not in word else f"{word} px" for word in words)
    return f"within {within}"


def _mean(own: pd.DataFrame, radii: Sequence[str], metric: str) -> Cell:
    """The mean of a metric over a range of radii, as is published for UCF-QNRF; over the runs of a system."""
    return plain_cell(own[own["radius"].isin(radii)].groupby("run_id")[metric].mean(), 3)


def file_name(text: str) -> str:
    """Letters, digits, _ and - only: what comes from a stranger's store names no folder."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def _samples(localised: Localised, rows: pd.DataFrame) -> dict[str, PlaceSample]:
    """The hits of each system at one radius."""
    return {str(system): localised.sample(own) for system, own in rows.groupby("system", sort=False)}


def scoring_caption(rows: pd.DataFrame, main: str) -> tuple[str, ...]:
    """How points were matched, and where thresholds come from."""
    chosen = set(rows["threshold_from"])
    said = []
    if "val" in chosen:
        said.append(f"Thresholds are those of the highest F1 at {radius_words(main)} on val, one for each run.")
    if "given" in chosen:
        said.append("Some thresholds were given by hand.")
    return (
        "A point counts if it is matched to a head within the radius, in pixels of the stored images; maximum "
        "matching, pooled over the images.",
        *said,
    )


def radius_words(radius: str) -> str:
    """`8 px`, `0.5 x head`, `sigma_l`."""
    if radius.endswith("px"):
        return f"{radius.removesuffix('px')} px"
    return f"{radius.removesuffix('head')} x head" if radius.endswith("head") else radius


def _threshold(values: pd.Series) -> Cell:
    """The mean threshold; its scale is the localizer's own."""
    values = values.dropna()
    if values.empty:
        return Cell("none")
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
    return Cell(f"{mean:.2g}", mean, sd, seeds=len(values))


def check_shares(metrics: Sequence[str]) -> None:
    """Raises ValueError unless all are shares, and there is one."""
    if not metrics:
        raise ValueError(f"name at least one metric: {', '.join(SHARES)}")
    for metric in metrics:
        check_known("metric", metric, SHARES)
