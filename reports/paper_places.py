"""Table 3 of the PML paper: localisation on NWPU-Crowd, measured and published side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from reports.cells import METRIC_NAMES, absent_cell, measured_cells
from reports.localised import Localised, PlaceSample
from reports.measured import Comparisons, Measured
from reports.paper import published_cell
from reports.protocol import NETWORK, check_comparable
from reports.shares import SHARES
from reports.table import Cell, Column, Row, Table
from reports.tables_places import APART, check_shares, file_name, radius_words, scoring_caption
from reports.words import failures_caption, reading, terms_caption
from results.published import published

__all__ = ["table3"]

_SUITE = "not in this suite: published row only"
_NETWORKS = (*NETWORK, *APART)
"""The rows are whole methods: their networks and localizers are no terms of a column."""


class _System(NamedTuple):
    """A row: its label, its published cells by metric, and what picks its runs; empty where the suite has it not."""

    label: str
    cells: dict[str, Cell]
    loss: str
    backbone: str
    localizer: str


def table3(measured: Measured, localised: Localised, metrics: Sequence[str] = SHARES, dataset: str = "nwpu") -> Table:
    """Systems, a loss with its network and a localizer, by precision, recall and F1 at the dataset's main radius.

    Args:
        measured: The runs.
        localised: What was measured of places; runs on other datasets, or on noisy labels, are left out.
        metrics: f1, precision, recall.
        dataset: With its parameters in brackets, or all of that name. The paper's is NWPU-Crowd as it is (sigma_l); on
            any other, at another scale or another radius, nothing is published, and only what was measured has a row.

    Raises:
        MixedProtocolError: If a column would mix terms other than the network and the localizer.
        ValueError: If a metric is unknown, or there is neither a run nor a published number.
    """
    check_shares(metrics)
    rows = _of_dataset(localised.rows[localised.rows["noise"] == "none"], dataset)
    rows = rows[rows["main"].astype(bool) & localised.has_hits(rows)]
    runs = _of_dataset(measured.runs[measured.runs["noise"] == "none"], dataset)
    names = list(dict.fromkeys(rows["data"])) or [dataset]
    systems = _published() if names == ["nwpu"] and set(rows["radius"]) <= {"sigma_l"} else []
    check_comparable(rows, f"localisation on {', '.join(names)}", _NETWORKS, ("localisation_version", "scoring"))
    own = rows.assign(place=[_place(row, systems) for row in rows.to_dict("records")])
    samples: dict[str, PlaceSample] = {
        str(place): localised.sample(rows.loc[part.index]) for place, part in own.groupby("place", sort=True)
    }
    if not samples and not systems:
        raise ValueError(f"no run on {dataset} has scores of places; `benchmark run ... --localizers` makes them")
    comparisons = Comparisons({"": samples}, metrics)
    cells = {metric: measured_cells({"": samples}, metric, comparisons)[""] for metric in metrics}
    known = [system.label for system in systems]
    body = [_row(system, cells, metrics, runs) for system in systems]
    body += [
        Row(label, (*(cells[metric][label] for metric in metrics), *[Cell("–")] * (len(metrics) if systems else 0)))
        for label in sorted(samples, key=lambda label: -(cells[metrics[0]][label].value or 0.0))
        if label not in known
    ]
    columns = [Column(METRIC_NAMES[metric]) for metric in metrics]
    columns += [Column(METRIC_NAMES[metric], kind="published") for metric in metrics] if systems else []
    caption = [*terms_caption(rows.assign(label=rows["system"]), _NETWORKS)]
    if len(rows):
        radius = str(rows["radius"].iloc[0])
        caption += [f"Within {radius_words(radius)}.", *scoring_caption(rows, radius), *reading(samples, comparisons)]
    if systems:
        caption.append(
            "Published: within sigma_l, on the hidden test set of NWPU-Crowd, which only its server can measure."
        )
    title = "Localisation on " + (
        "NWPU-Crowd (Table 3 of the PML paper)" if systems else f"{', '.join(names)} (as Table 3)"
    )
    stub = "system"
    return Table(
        "table3" if systems else file_name(f"table3_{'_'.join(names)}"),
        title, stub, tuple(columns), tuple(body), (*caption, *failures_caption(measured)),
    )  # fmt: skip


def _row(system: _System, cells: dict[str, dict[str, Cell]], metrics: Sequence[str], runs: pd.DataFrame) -> Row:
    """A row of the paper: measured, then published."""
    if not system.loss:
        absent = Cell("–", notes=(_SUITE,))
    else:
        there = runs[(runs["loss"] == system.loss) & (runs["backbone"] == system.backbone)]
        done = len(there) and (there["state"] == "done").any()
        absent = Cell("no scores", notes=("trained, but not localised: --localizers",)) if done else absent_cell(there)
    found = [cells[metric].get(system.label, absent) for metric in metrics]
    return Row(system.label, (*found, *(system.cells.get(metric, Cell("–")) for metric in metrics)))


def _published() -> list[_System]:
    """The rows of the paper's table, in its order."""
    found = []
    for (method, network), rows in published("table3").groupby(["method", "network"], sort=False):
        cells = {str(row["metric"]): published_cell(row) for row in rows.to_dict("records")}
        first = rows.iloc[0]
        label = str(method) if str(network).split("-")[0] in str(method) else f"{method} · {network}"
        found.append(_System(label, cells, first["our_loss"], first["our_backbone"], first["our_localizer"]))
    return found


def _place(row: dict[object, object], systems: Sequence[_System]) -> str:
    """The label of a measured row: the paper's where it is that system with default parameters, else its own."""
    for system in systems:
        ours = (system.loss, system.backbone, system.localizer)
        if system.loss and (row["label"], row["backbone"], row["localizer_label"]) == ours:
            return system.label
    return f"{row['label']} · {row['backbone']} + {row['localizer_label']}"


def _of_dataset(rows: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The rows on a dataset with these parameters; if there are none, on any of that name."""
    exact = rows[rows["data"] == dataset]
    return exact if len(exact) else rows[rows["dataset"] == dataset]
