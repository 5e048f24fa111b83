"""Tables of where people were found: precision, recall and F1 of every system, a loss with a localizer."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from losses.discovery import check_known
from reports.cells import METRIC_NAMES, measured_cells, plain_cell
from reports.localised import SWEEP, Localised, PlaceSample, shown_radii
from reports.measured import Comparisons
from reports.protocol import check_comparable, protocol_hash
from reports.shares import SHARES
from reports.table import Cell, Column, Row, Table
from reports.words import reading, setting_title, terms_caption

__all__ = ["APART", "by_setting", "check_shares", "localisation", "radius_words", "scoring_caption"]

APART = ("eval_id",)
"""A localizer is part of the row: its identity is no term of the column."""


def by_setting(localised: Localised) -> list[Localised]:
    """What may stand in one table: the same terms, the same radii.

    Raises:
        ValueError: If nothing was measured of places.
    """
    read = localised.rows.assign(read=localised.has_hits(localised.rows))  # of a sweep, at the main radius only
    rows = localised.rows[read.groupby(["run_id", "eval_id"])["read"].transform("any")]
    if rows.empty:
        raise ValueError("no run has scores of places; `benchmark run ... --localizers lm otm` makes them")
    terms = zip(protocol_hash(rows, APART), rows["scoring"], strict=True)
    keys = pd.Series([f"{key} {scoring}" for key, scoring in terms], index=rows.index)
    return [localised.restricted(rows[keys == key]) for key in keys.unique()]


def localisation(localised: Localised, metrics: Sequence[str] = SHARES) -> Table:
    """The systems of one setting, the highest F1 at the radius that chose the thresholds first.

    Args:
        localised: One of `by_setting`.
        metrics: f1, precision, recall; the first for every radius, all of them at the main one.

    Raises:
        MixedProtocolError: If it is more than one setting.
        ValueError: If a metric is unknown.
    """
    check_shares(metrics)
    rows = localised.rows
    check_comparable(rows, "the columns of localisation", APART, ("localisation_version", "scoring"))
    (key,) = protocol_hash(rows, APART).unique()
    radii = shown_radii(rows)
    main = next(iter(rows.loc[rows["main"].astype(bool), "radius"]), radii[-1])
    samples = {radius: _samples(localised, rows[rows["radius"] == radius]) for radius in radii}
    comparisons = Comparisons(samples, metrics)
    cells = {metric: measured_cells(samples, metric, comparisons) for metric in metrics}
    first = cells[metrics[0]][main]
    order = sorted(samples[main], key=lambda system: -(first[system].value or 0.0))
    places = [(radius, metrics[0]) for radius in radii if radius != main] + [(main, metric) for metric in metrics]
    columns = [Column("seeds")]
    columns += [Column(METRIC_NAMES[metric], radius_words(radius)) for radius, metric in places]
    swept = _swept(rows)
    columns += [Column(METRIC_NAMES[metric], f"mean {swept}") for metric in metrics if swept]
    columns += [Column("AP", radius_words(main)), Column("error px", radius_words(main)), Column("count MAE")]
    columns += [Column("threshold")]
    body = []
    for system in order:
        own = rows[rows["system"] == system]
        chosen = own[own["radius"] == main]
        seeds = len(samples[main][system].seeds)
        body.append(
            Row(
                system,
                (
                    Cell(str(seeds), seeds),
                    *(cells[metric][radius].get(system, Cell("–")) for radius, metric in places),
                    *(plain_cell(own.groupby("run_id")[metric].mean(), 3) for metric in metrics if swept),
                    plain_cell(chosen["ap"], 3), plain_cell(chosen["error"], 1), plain_cell(chosen["count_mae"], 1),
                    _threshold(chosen["threshold"]),
                ),
            )
        )  # fmt: skip
    merged = {f"{radius}/{system}": sample for radius, found in samples.items() for system, sample in found.items()}
    return Table(
        name=f"localisation_{key}_{'_'.join(radii)}",
        title=f"Where people are: {setting_title({str(k): v for k, v in rows.iloc[0].items()})}",
        stub="loss + localizer",
        columns=tuple(columns),
        rows=tuple(body),
        caption=(*terms_caption(rows, APART), *scoring_caption(rows, main), *reading(merged, comparisons)),
    )


def _swept(rows: pd.DataFrame) -> str:
    """`1 to 100 px`: the radii of a sweep, whose mean is shown as is published for UCF-QNRF; empty if it is none."""
    radii = list(dict.fromkeys(rows["radius"]))
    return f"{radii[0].removesuffix('px')} to {radius_words(radii[-1])}" if len(radii) > SWEEP else ""


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
