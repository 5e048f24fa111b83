"""Tables of measurements: the comparison of losses under one setting, cost, and tables of one's own.

Pure functions from `Measured` to `Table`. A column holds measurements under the same terms only (`reports.protocol`);
what is best is marked only where it is separated from the others, over seeds and images, after Holm's correction over
the whole table (`reports.measured.Comparisons`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from losses.discovery import check_known
from reports.cells import (
    CONSTANT,
    METRIC_NAMES,
    absent_cell,
    constant_cell,
    failed_cell,
    measured_cells,
    noting_failures,
    plain_cell,
)
from reports.measured import METRICS, Comparisons, Measured, Sample
from reports.protocol import NETWORK, check_comparable, protocol_hash, with_terms
from reports.stats import Metric
from reports.table import Cell, Column, Row, Table
from reports.words import failures_caption, reading, setting_title, terms_caption

__all__ = [
    "AFTER",
    "Grid",
    "Setting",
    "check_metrics",
    "comparison",
    "comparison_rows",
    "cost",
    "custom",
    "failures",
    "grid",
    "known_metrics",
    "not_better_than_constant",
    "settings",
]

_TOLD = ("dataset", "dataset_params", "split", "noise", "backbone", "stride", "recipe", "settings", "selection")
_ALONE = "alone: `benchmark speed`, 32x32 cells, 300 people, batch 8, on the machine that its own table names."
AFTER = ("split", "selection", "eval_id")
"""Terms that a run has only once it was measured."""


class Setting(NamedTuple):
    """Everything that was measured under the same terms.

    Attributes:
        key: Hash of the terms.
        title: One line.
        measured: The evaluations, and the runs without one that were trained on these terms.
    """

    key: str
    title: str
    measured: Measured

    @property
    def first(self) -> Mapping[str, Any]:
        """Any of its evaluations, for the terms."""
        return {str(name): value for name, value in self.measured.evaluated.iloc[0].items()}


def settings(measured: Measured) -> list[Setting]:
    """The evaluations grouped by their terms, largest first; failed runs go with those they were meant for."""
    rows = measured.evaluated
    if rows.empty:
        return []
    keys, all_keys = protocol_hash(rows), protocol_hash(measured.runs, AFTER)
    found = []
    for key in keys.unique():
        inside = rows[keys == key]
        unmeasured = measured.runs[(all_keys == all_keys[inside.index[0]]) & ~measured.runs.index.isin(rows.index)]
        part = measured.restricted(pd.concat([inside, unmeasured]))
        found.append(Setting(key, setting_title(inside.iloc[0].to_dict()), part))
    titles = [setting.title for setting in found]
    found = [s._replace(title=f"{s.title} · {s.key}") if titles.count(s.title) > 1 else s for s in found]
    return sorted(found, key=lambda setting: (-len(setting.measured.runs), setting.title))


def comparison(setting: Setting, comparisons: Comparisons | None = None) -> Table:
    """The losses under one setting, least MAE first, the constant count last.

    Args:
        setting: What is compared.
        comparisons: Of its losses, if they were made already.
    """
    measured = setting.measured
    samples = measured.samples(measured.evaluated)
    comparisons = comparisons or Comparisons({"": samples})
    cells = {str(metric): measured_cells({"": samples}, metric, comparisons)[""] for metric in METRICS}
    order = sorted(samples, key=lambda label: math.inf if (v := cells["mae"][label].value) is None else v)
    several = any(len(sample.seeds) > 1 for sample in samples.values())
    rows = [_comparison_row(measured, label, samples[label], cells, several) for label in order]
    rows += [Row(label, (failed_cell(failed), *[Cell()] * (6 + several))) for label, failed in _only_failed(measured)]
    rows.append(_constant_row(measured.evaluated, several))
    columns = [Column("seeds"), Column("MAE"), *([Column("95 % interval", kind="text")] if several else [])]
    columns += [Column(METRIC_NAMES[name]) for name in ("rmse", "nae", "bias", "game2")]
    columns += [Column("loss ms")]
    return Table(
        name=f"comparison_{setting.key}",
        title=setting.title,
        stub="loss",
        columns=tuple(columns),
        rows=tuple(rows),
        caption=(*terms_caption(measured.evaluated), *reading(samples, comparisons), *failures_caption(measured)),
    )


def comparison_rows(setting: Setting, table: Table) -> list[dict[str, Any]]:
    """The rows of a `comparison` for machines: terms, loss, seeds, and each metric with `_sd`, `_low`, `_high`."""
    keys = {METRIC_NAMES[name]: name for name in (*METRICS, "game2")} | {"loss ms": "loss_ms"}
    terms = {name: setting.first[name] for name in _TOLD}
    found = []
    for row in table.rows:
        cells = dict(zip((column.label for column in table.columns), row.cells, strict=True))
        line = terms | {"protocol": setting.key, "loss": row.label, "seeds": int(cells["seeds"].value or 0)}
        for title, key in keys.items():
            cell = cells[title]
            line |= {key: cell.value, f"{key}_sd": cell.sd, f"{key}_low": cell.low, f"{key}_high": cell.high}
        found.append({key: value for key, value in line.items() if value is not None or key in METRICS})
    return found


def not_better_than_constant(setting: Setting) -> list[str]:
    """Labels of the losses whose mean MAE is no lower than the constant count's, with the setting."""
    rows = setting.measured.evaluated
    means = rows.groupby("label", sort=False)[["mae", "constant_mae"]].mean()
    return [f"{label} ({setting.title})" for label, mae, floor in means.itertuples() if not mae < floor]


def cost(measured: Measured, alone: Mapping[str, float] | None = None) -> Table:
    """What a training step cost: milliseconds of the loss and of the whole step, training time, memory, by network.

    Args:
        measured: What was measured.
        alone: Milliseconds of losses by themselves, see `reports.speed.step_ms`; a column where a loss has one.

    Raises:
        MixedProtocolError: If runs of one network differ in crops, batch, stride or machine.
        ValueError: If no run has timings.
    """
    shown = {"loss_ms": ("loss ms", 1), "step_ms": ("step ms", 1), "train_seconds": ("train s", 0)}
    shown |= {"peak_rss_mib": ("peak MiB", 0), "peak_device_mib": ("GPU MiB", 0)}
    rows = measured.evaluated.drop_duplicates("run_id")
    shown = {name: value for name, value in shown.items() if name in rows and rows[name].notna().any()}
    if rows.empty or not shown:
        raise ValueError("no finished run with timings: nothing to say about cost")
    apart = ("noise", "noise_seed", *AFTER)
    machine = ("processor", "device", "threads", "torch")
    groups = {str(backbone): inside for backbone, inside in rows.groupby("backbone", sort=False)}
    for backbone, inside in groups.items():
        check_comparable(inside, f"cost on {backbone}", apart, machine)
    columns = [Column(title, backbone) for backbone in groups for title, _ in shown.values()]
    body = []
    for label in sorted(set(rows["label"])):
        parts = [inside[inside["label"] == label] for inside in groups.values()]
        cells = [plain_cell(part[name], digits) for part in parts for name, (_, digits) in shown.items()]
        if alone and not alone.keys().isdisjoint(rows["label"]):
            cells.append(Cell(f"{alone[label]:.1f}", alone[label]) if label in alone else Cell("–"))
        body.append(Row(label, tuple(cells)))
    known = [] if alone is None or alone.keys().isdisjoint(rows["label"]) else [_ALONE]
    columns += [Column("loss ms", "alone")] * len(known)
    first = rows.iloc[0]
    caption = (
        *known,
        f"{first['processor']}, {first['device']}, {first['threads']:.0f} thread(s), torch {first['torch']}.",
        *terms_caption(rows, apart),
        "Means and standard deviations over runs, as recorded in training: other work on the machine slows them.",
        *failures_caption(measured),
    )
    return Table("cost", "Cost of training, by loss", "loss", tuple(columns), tuple(body), caption)


def custom(
    measured: Measured, rows: str = "label", columns: str = "dataset", metrics: Sequence[str] = ("mae",)
) -> Table:
    """A table of one's own: any field of the runs down, any across.

    Args:
        measured: What was measured.
        rows: What goes down, a column of `Measured.runs`; `recipe_` may be left out (`epochs`).
        columns: What goes across, likewise.
        metrics: What is shown in each.

    Raises:
        ValueError: If a field or metric is unknown, both fields are the same, or nothing was measured.
        MixedProtocolError: If a column would mix terms, or a cell runs that differ in more than their seed.
    """
    check_metrics(metrics)
    frame = measured.evaluated
    down, across = (_field(frame, name) for name in (rows, columns))
    if down == across:
        raise ValueError(f"rows and columns are both {down}; choose two fields")
    frame = frame[frame[down].notna() & frame[across].notna()]
    if frame.empty:
        raise ValueError(f"no measured run has both {down} and {across}: nothing to show")
    free = {down, across, *_implied(down)}
    frame = with_terms(frame, [name for name in free if name.startswith("recipe_")], measured.official)
    groups = {str(value): frame[frame[across] == value] for value in sorted(set(frame[across]), key=_order)}
    for name, inside in groups.items():
        check_comparable(inside, f"the column {across}={name}", free)
    found = grid(measured, groups, down, across, metrics)
    body = [Row(label, tuple(cells), label == CONSTANT) for label, cells in found.cells.items()]
    caption = (*terms_caption(frame, free), *found.reading, *failures_caption(measured))
    return Table("custom", f"{down} by {across}", down, tuple(found.heads), tuple(body), caption)


class Grid(NamedTuple):
    """Columns, cells by row label with the constant count last, samples by group, and how they are to be read."""

    heads: list[Column]
    cells: dict[str, list[Cell]]
    samples: dict[str, dict[str, Sample]]
    reading: tuple[str, ...]


def grid(
    measured: Measured, groups: Mapping[str, pd.DataFrame], down: str, across: str, metrics: Sequence[str]
) -> Grid:
    """The cells of every metric for each value of `down` in each group; `across` is what the groups differ in."""
    samples = {name: measured.samples(inside, down) for name, inside in groups.items()}
    comparisons = Comparisons(samples, known_metrics(metrics))
    found = {metric: measured_cells(samples, metric, comparisons) for metric in known_metrics(metrics)}
    labels = sorted(set(measured.runs[down].dropna()), key=_order)
    cells: dict[str, list[Cell]] = {str(label): [] for label in labels}
    for name in groups:
        for label in labels:
            runs = measured.runs[(measured.runs[down] == label) & (measured.runs[across].astype(str) == name)]
            for metric in known_metrics(metrics):
                cell = found[metric][name].get(str(label))
                cells[str(label)].append(absent_cell(runs) if cell is None else noting_failures(cell, runs))
    cells[CONSTANT] = [constant_cell(inside, metric) for inside in groups.values() for metric in known_metrics(metrics)]
    heads = [Column(METRIC_NAMES[metric], name) for name in groups for metric in known_metrics(metrics)]
    return Grid(heads, cells, samples, reading(_merged(samples), comparisons))


def failures(measured: Measured) -> Table | None:
    """The failed runs with their reasons; None if there are none."""
    names = {"label": "loss", "dataset": "dataset", "noise": "noise", "backbone": "network", "seed": "seed"}
    names |= {"reason": "reason"}
    rows = [
        Row(str(row["run_id"])[:8], tuple(Cell(str(row[name])) for name in names))
        for row in measured.failed.to_dict("records")
    ]
    columns = tuple(Column(title, kind="text") for title in names.values())
    return Table("failures", "Failed runs", "run", columns, tuple(rows)) if rows else None


def _comparison_row(
    measured: Measured, label: str, sample: Sample, cells: Mapping[str, Mapping[str, Cell]], several: bool
) -> Row:
    rows = measured.evaluated
    rows = rows[rows["label"] == label]
    mae = cells["mae"][label]
    runs = measured.runs[measured.runs["label"] == label]
    seeds = noting_failures(Cell(str(len(sample.seeds)), len(sample.seeds)), runs)
    span = Cell("1 seed" if len(sample.seeds) < 2 else "none")
    if mae.low is not None and mae.high is not None:
        span = Cell(f"{mae.low:.1f} to {mae.high:.1f}")
    others = [cells[name][label] for name in ("rmse", "nae", "bias")]
    own = [plain_cell(rows[name], 1) if name in rows else Cell() for name in ("game2", "loss_ms")]
    return Row(label, (seeds, mae, *([span] if several else []), *others, *own))


def _constant_row(rows: pd.DataFrame, several: bool) -> Row:
    cells = [constant_cell(rows, name) for name in ("mae", "rmse", "nae", "bias")]
    middle = [Cell()] if several else []
    return Row(CONSTANT, (Cell(), cells[0], *middle, *cells[1:], Cell(), Cell()), reference=True)


def _only_failed(measured: Measured) -> list[tuple[str, pd.DataFrame]]:
    """The losses none of whose runs was measured."""
    done = set(measured.evaluated["label"])
    return [(str(k), rows) for k, rows in measured.failed.groupby("label", sort=True) if k not in done]


def _merged(columns: Mapping[str, Mapping[str, Sample]]) -> dict[str, Sample]:
    return {f"{column}/{label}": sample for column, samples in columns.items() for label, sample in samples.items()}


def _order(value: Any) -> tuple[int, Any]:
    """Numbers by size, then text."""
    return (1, str(value)) if isinstance(value, str) else (0, float(value))


def check_metrics(metrics: Sequence[str]) -> None:
    """Raises ValueError for a metric that does not follow from the counts, with the nearest names."""
    for metric in metrics:
        check_known("metric", metric, METRICS)


def known_metrics(metrics: Sequence[str]) -> list[Metric]:
    """The metrics in the order of all tables."""
    return [metric for metric in METRICS if metric in metrics]


def _field(frame: pd.DataFrame, name: str) -> str:
    if name not in frame and f"recipe_{name}" in frame:
        return f"recipe_{name}"
    check_known("field", name, map(str, frame.columns))
    return name


def _implied(field: str) -> tuple[str, ...]:
    """Terms that differ where a field is an axis: another network has another stride and other weights."""
    implied = {"backbone": NETWORK, "noise": ("noise_seed",), "dataset": ("dataset_params", "dataset_hash")}
    implied |= {"selection": ("eval_id",), "split": ("eval_id",), "recipe": ("settings",)}
    return implied.get(field, ())
