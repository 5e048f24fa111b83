"""The tables of the PML paper (ICLR 2025), measured and published side by side, and the test of a reproduction.

A published number stands in its own column, never in one of measured ones. Every system of the paper has its row:
measured where this suite has it, "not run" where it was not, "not in this suite" where it cannot be trained here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from losses.discovery import check_known
from reports import stats
from reports.cells import (
    CONSTANT,
    DIGITS,
    METRIC_NAMES,
    absent_cell,
    constant_cell,
    measured_cells,
    noting_failures,
)
from reports.measured import METRICS, Comparisons, Measured, Sample
from reports.protocol import NETWORK, check_comparable
from reports.table import Cell, Column, Row, Table, number
from reports.words import failures_caption, reading, terms_caption
from results.published import published

__all__ = ["published_cell", "reproduction", "table2", "table4"]

_SUITE = "not in this suite: published row only"
_ALONE = ("solver", "variant")
"""Parameters that leave a loss what the paper calls it: another solver of the same transport, or the authors' code."""


class _System(NamedTuple):
    """A row: its label, and what picks its runs and its published cells."""

    label: str
    ours: Mapping[str, str]
    method: str
    network: str = ""


Naming = Callable[[Mapping[Any, Any]], str]
"""The label of a row that the paper does not have, from one of its runs."""


class _Group(NamedTuple):
    """A group of columns: its heading, the runs in it, and the published cells for it by system label and metric."""

    label: str
    runs: pd.DataFrame
    cells: Mapping[tuple[str, str], Cell]


def table4(measured: Measured, metrics: Sequence[str] = ("mae", "rmse"), dataset: str = "ucf_qnrf") -> Table:
    """Losses by networks on one dataset, trained on clean labels.

    Args:
        measured: What was measured; runs on other datasets are left out.
        metrics: mae, rmse, nae, bias; the paper has the first two.
        dataset: With its parameters in brackets, or all of that name. The paper's is UCF-QNRF as it is; on any other,
            and at another scale, nothing is published.

    Raises:
        MixedProtocolError: If a column would mix terms, or a cell runs that differ in more than their seed.
        ValueError: If a metric is unknown, or there is neither a run nor a published number.
    """
    for metric in metrics:
        check_known("metric", metric, METRICS)
    runs = _clean(measured)
    exact = runs[runs["data"] == dataset]
    runs = exact if len(exact) else runs[runs["dataset"] == dataset]
    names = list(dict.fromkeys(runs["data"])) or [dataset]
    there = published("table4")
    there = there[there["our_dataset"] == (names[0] if len(names) == 1 else "")]
    dataset = ", ".join(names)
    systems = [
        _System(str(method).removesuffix(" (ours)"), {"loss": str(rows["our_loss"].iloc[0])}, str(method))
        for method, rows in published("table4").groupby("method", sort=False)
    ]
    networks = list(dict.fromkeys(there["our_backbone"])) + sorted(set(runs["backbone"]))
    groups = [
        _Group(
            name,
            runs[runs["backbone"] == name],
            _published(there[there["our_backbone"] == name]),
        )
        for name in dict.fromkeys(networks)
    ]
    title = f"Losses by networks on {dataset} ({'' if len(there) else 'as '}Table 4 of the PML paper)"
    return _side_by_side(
        f"table4_{_file_name(dataset)}",
        title,
        "loss",
        measured.restricted(runs),
        systems,
        groups,
        metrics,
        own=lambda run: str(run["label"]),
    )


def table2(measured: Measured, metrics: Sequence[str] = ("mae", "rmse")) -> Table:
    """Whole methods by datasets: each loss on the network it was published with, trained on clean labels.

    Raises:
        MixedProtocolError: If a column would mix terms other than the network, or a cell mixes anything but seeds.
        ValueError: If a metric is unknown.
    """
    for metric in metrics:
        check_known("metric", metric, METRICS)
    there = published("table2")
    runs = _clean(measured)
    systems = _methods(there)
    names = list(dict.fromkeys(there["our_dataset"])) + sorted(set(runs["data"]))
    groups = [
        _Group(name, runs[runs["data"] == name], _published(there[there["our_dataset"] == name]))
        for name in dict.fromkeys(names)
    ]
    title = "Methods by datasets (Table 2 of the PML paper)"
    return _side_by_side(
        "table2", title, "method", measured.restricted(runs), systems, groups, metrics, apart=NETWORK,
        own=lambda run: f"{run['label']} · {run['backbone']}",
    )  # fmt: skip


def reproduction(
    measured: Measured,
    table: str,
    metrics: Sequence[str] = ("mae", "rmse"),
    cells: Iterable[tuple[str, str, str]] | None = None,
) -> Table:
    """Measured against published, cell by cell: the difference, and whether the published value is one more run's.

    The published number is that of one run (or the best of several), so it is held against the 95 % interval of a
    single further run on the same test set, mean +- t s sqrt(1 + 1/S) over S seeds.

    Args:
        measured: The runs of the study.
        table: `table2` or `table4`.
        metrics: mae, rmse.
        cells: Loss, backbone and dataset of the cells that are shown; None for all that the paper has.

    Raises:
        MixedProtocolError: If a network and dataset would mix terms, or a cell anything but seeds.
        ValueError: If the table or a metric is unknown.
    """
    check_known("table", table, ("table2", "table4"))
    columns = (
        Column("seeds"), Column("measured"), Column("95 % of a single run", kind="text"),
        Column("published", kind="published"), Column("difference", kind="derived"), Column("inside", kind="text"),
    )  # fmt: skip
    for (backbone, dataset), runs in _done(measured, _clean(measured)).groupby(["backbone", "dataset"], sort=True):
        check_comparable(runs, f"{backbone} on {dataset}")
    there = published(table).set_index(["our_loss", "our_backbone", "our_dataset", "metric"], drop=False).sort_index()
    ours = there[(there["our_loss"] != "") & (there["our_backbone"] != "")]
    wanted = list(cells) if cells is not None else [(str(k[0]), str(k[1]), str(k[2])) for k in ours.index]
    rows = []
    for metric in metrics:
        check_known("metric", metric, ("mae", "rmse"))
        for loss, backbone, dataset in dict.fromkeys(wanted):
            key = (loss, backbone, dataset, metric)
            cell = there.loc[[key]].iloc[0].to_dict() if key in there.index else None
            runs = _runs(measured, {"loss": loss, "backbone": backbone, "dataset": dataset})
            plain = _plain_label(runs["label"])
            for label in sorted(dict.fromkeys(runs["label"]), key=len) or [loss]:
                part = runs[runs["label"] == label]
                data = str(part["data"].iloc[0]) if len(part) else dataset
                held = cell if plain in (None, label) and data == dataset else None
                place = f"{label} · {backbone} · {data} {METRIC_NAMES[metric]}"
                rows.append(Row(place, _reproduced(measured, part, metric, held)))
        for name, done in measured.evaluated.groupby("data", sort=True):
            constant = constant_cell(done, metric)
            cells_of = (Cell(), constant, Cell(), Cell(), Cell(), Cell())
            rows.append(Row(f"{CONSTANT} {name} {METRIC_NAMES[metric]}", cells_of, reference=True))
    caption = (
        *terms_caption(measured.evaluated, NETWORK),
        "Inside: the published value lies in the 95 % interval of a single further run over seeds.",
        *failures_caption(measured),
    )
    title = f"Reproduction of {table.replace('table', 'Table ')} of the PML paper"
    return Table(f"reproduce_{table}", title, "loss · network · data", columns, tuple(rows), caption)


# ---------------------------------------------------------------------------------------------------------------------
# Rows and columns


def _side_by_side(
    name: str,
    title: str,
    stub: str,
    measured: Measured,
    systems: Sequence[_System],
    groups: Sequence[_Group],
    metrics: Sequence[str],
    *,
    own: Naming,
    apart: tuple[str, ...] = (),
) -> Table:
    """For each group of columns the measured metrics, then the published ones where there are any."""
    shown = [METRIC for METRIC in METRICS if METRIC in metrics]
    rows_of: dict[str, dict[str, pd.DataFrame]] = {}
    for group in groups:
        done = _done(measured, group.runs)
        check_comparable(done, f"the columns of {group.label}", apart)
        rows_of[group.label] = _rows_of(group, systems, own)
    extra = sorted({label for rows in rows_of.values() for label in rows} - {system.label for system in systems})
    systems = [*systems, *(_System(label, {}, "") for label in extra)]
    samples: dict[str, dict[str, Sample]] = {
        group.label: {
            label: measured.sample(done)
            for label, rows in rows_of[group.label].items()
            if len(done := _done(measured, rows))
        }
        for group in groups
    }
    comparisons = Comparisons(samples, shown)
    columns: list[Column] = []
    cells: dict[str, list[Cell]] = {system.label: [] for system in systems}
    constant: list[Cell] = []
    for group in groups:
        if not len(group.runs) and not group.cells:
            continue
        found = {metric: measured_cells(samples, metric, comparisons)[group.label] for metric in shown}
        columns += [Column(METRIC_NAMES[metric], group.label) for metric in shown]
        columns += [Column(METRIC_NAMES[metric], group.label, "published") for metric in shown if group.cells]
        for system in systems:
            runs = rows_of[group.label].get(system.label)
            for metric in shown:
                cell = found[metric].get(system.label) or _missing(system, runs)
                cells[system.label].append(_named(cell, system, runs))
            if group.cells:
                cells[system.label] += [group.cells.get((_key(system), metric), Cell("–")) for metric in shown]
        done = _done(measured, group.runs)
        constant += [constant_cell(done, metric) for metric in shown]
        constant += [Cell()] * (len(shown) if group.cells else 0)
    if not columns:
        raise ValueError(f"{name}: no run and no published number to show")
    body = [Row(label, tuple(found)) for label, found in cells.items()]
    if any(cell.text for cell in constant):
        body.append(Row(CONSTANT, tuple(constant), reference=True))
    everything = {f"{g}/{k}": sample for g, found in samples.items() for k, sample in found.items()}
    words = terms_caption(measured.evaluated, apart)
    return Table(
        name, title, stub, tuple(columns), tuple(body),
        (*words, *(reading(everything, comparisons) if everything else ()), *failures_caption(measured)),
    )  # fmt: skip


def _rows_of(group: _Group, systems: Sequence[_System], own: Naming) -> dict[str, pd.DataFrame]:
    """The group's runs by row label; what the paper does not have gets rows of its own."""
    found: dict[str, list[pd.DataFrame]] = {}
    for _, rows in group.runs.groupby(["loss", "backbone"], sort=True):
        fits = [
            s for s in systems if s.ours["loss"] and all(rows[name].iloc[0] == value for name, value in s.ours.items())
        ]
        plain = _plain_label(rows["label"])
        for label in dict.fromkeys(rows["label"]):
            part = rows[rows["label"] == label]
            place = fits[0].label if fits and label == plain else own(part.iloc[0].to_dict())
            found.setdefault(place, []).append(part)
    return {place: pd.concat(parts) for place, parts in found.items()}


def _is_plain(label: str) -> bool:
    """Whether a label has no head and no parameters but those that leave the loss what the paper calls it."""
    if label.endswith(" head"):
        return False
    params = label.partition("[")[2].rstrip("]")
    return all(item.partition("=")[0] in _ALONE for item in params.split(",") if item)


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=-]+", "_", text).strip("_")


def _methods(there: pd.DataFrame) -> list[_System]:
    """The rows of a table of whole methods."""
    found = []
    for first in there.drop_duplicates(["method", "network"]).to_dict("records"):
        method, network = str(first["method"]), str(first["network"])
        label = method.removesuffix(" (ours)")
        label = label if network in method else f"{label} · {network}"
        found.append(_System(label, {"loss": first["our_loss"], "backbone": first["our_backbone"]}, method, network))
    return found


def _key(system: _System) -> str:
    return f"{system.method}/{system.network}" if system.network else system.method


def _published(there: pd.DataFrame) -> dict[tuple[str, str], Cell]:
    """The published cells of a group by system and metric, with what other sources say as notes."""
    found = {}
    for row in there.to_dict("records"):
        cell = published_cell(row)
        for key in (f"{row['method']}/{row['network']}", row["method"]):
            found[(key, row["metric"])] = cell
    return found


def published_cell(row: Mapping[Any, Any]) -> Cell:
    """A published cell, from a row of `published`."""
    value = row["value"]
    if pd.isna(value):
        return Cell("–")
    said = {
        "error": f"corrected: the slides print {row['slides']:g}; {row['evidence']}",
        "conflict": f"sources disagree: another has {row['other']:g}; {row['evidence']}",
        "checked": row["evidence"],
        "note": row["evidence"],
    }.get(row["status"])
    digits = max(DIGITS[row["metric"]], _decimals(value))
    return Cell(number(value, digits), float(value), notes=() if said is None else (said,))


def _decimals(value: float) -> int:
    return len(f"{value:.10g}".partition(".")[2])


def _missing(system: _System, runs: pd.DataFrame | None) -> Cell:
    """Why a measured cell is empty."""
    if runs is not None and len(runs):
        return absent_cell(runs)
    return Cell("not run") if system.ours.get("loss", "x") else Cell("–", notes=(_SUITE,))


def _named(cell: Cell, system: _System, runs: pd.DataFrame | None) -> Cell:
    """The cell with what its runs add: the loss's label where it is not the row's plain name, and those that failed."""
    if runs is None or cell.value is None:
        return cell
    label = str(runs["label"].iloc[0])
    if "[" in label and label != system.label:
        cell = cell._replace(notes=(*cell.notes, f"measured as {label}"))
    return noting_failures(cell, runs)


def _clean(measured: Measured) -> pd.DataFrame:
    """The runs on clean labels, as the paper's tables have them."""
    return measured.runs[measured.runs["noise"] == "none"]


def _done(measured: Measured, runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs.index.isin(measured.evaluated.index)]


def _runs(measured: Measured, where: Mapping[str, str]) -> pd.DataFrame:
    """The runs on clean labels that a cell may hold."""
    rows = _clean(measured)
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return rows


def _plain_label(labels: Iterable[str]) -> str | None:
    """Of a loss's labels the one that is the paper's: the plain one, or the only one."""
    found = sorted(dict.fromkeys(labels), key=len)
    return next((label for label in found if _is_plain(label)), found[0] if len(found) == 1 else None)


# ---------------------------------------------------------------------------------------------------------------------
# Reproduction


def _reproduced(
    measured: Measured, runs: pd.DataFrame, metric: Any, cell: Mapping[Any, Any] | None
) -> tuple[Cell, ...]:
    """Seeds, measured, interval of a single run, published, difference, verdict."""
    printed = Cell("–") if cell is None else published_cell(cell)
    done = _done(measured, runs)
    if done.empty:
        return (Cell(), absent_cell(runs), Cell(), printed, Cell(), Cell())
    sample = measured.sample(done)
    scores = stats.per_seed(metric, sample.predicted, sample.true)
    single = stats.seed_interval(scores, kind="single")
    seeds = len(scores)
    sd = float(scores.std(ddof=1)) if seeds > 1 else None
    text = number(single.estimate, 1) + (f" ± {sd:.1f}" if sd is not None else "")
    ours = Cell(text, single.estimate, sd, seeds=seeds)
    span = Cell("1 seed: no interval")
    if np.isfinite(single.low):
        low = max(single.low, 0.0)  # an error has no other side
        span = Cell(f"{low:.1f} to {single.high:.1f}", low=low, high=single.high)
    counted = noting_failures(Cell(str(seeds), seeds), runs)
    if cell is not None and cell["our_dataset"] == "nwpu":
        note = "measured on the official val, published on the hidden test set: no difference is taken"
        return (counted, ours, span, printed, Cell("–", notes=(note,)), Cell("–"))
    if printed.value is None:
        return (counted, ours, span, printed, Cell("–"), Cell("–"))
    apart = single.estimate - printed.value
    inside = "–" if not np.isfinite(single.low) else "yes" if single.low <= printed.value <= single.high else "no"
    return (counted, ours, span, printed, Cell(number(apart, 1, sign=True), apart), Cell(inside))
