"""What losses cost on a machine, as tables and figures: `results.speed` to a part of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import linear_regression

import pandas as pd

from reports.page import Part
from reports.plots_speed import SCALES, scaling
from reports.style import Look, Plot
from reports.table import Cell, Column, Row, Table
from reports.tables_places import file_name
from results.speed import Cost, Speed, SpeedRow

__all__ = ["exponent", "exponents", "profile_table", "scaling_frame", "speed_part", "speed_table", "step_ms"]

_SCALING = "scaling"
_LEAD = (
    "What a loss costs by itself: a forward and a backward pass, with everything that is built from the points, "
    "each measurement in a process of its own. A factor says how many times longer the same mathematics takes with "
    "matrices of points x cells, written as the formulas read, in the same call on the same machine.",
)


def speed_part(found: Sequence[Speed], looks: Mapping[str, Look]) -> Part:
    """A table for each call of `benchmark speed`, exponents and figures where sizes were varied.

    Args:
        found: What was measured, the oldest first.
        looks: Of all losses.
    """
    tables: list[Table] = []
    plots: list[Plot] = []
    for number, one in enumerate(found, 1):
        ending = f"_{number}" if len(found) > 1 else ""
        if any(row.workload != _SCALING for row in one.rows):
            tables.append(speed_table(one, f"speed{ending}"))
        if one.profiles:
            tables.append(profile_table(one, f"speed_profile{ending}"))
        frame = scaling_frame(one)
        if len(frame):
            tables.append(exponents(one, f"speed_exponents{ending}"))
            for measure in ("ms", "peak_mib"):
                for axis in SCALES:
                    part = frame[(frame["axis"] == axis) & frame[measure].notna() & (frame[measure] > 0)]
                    if part["label"].value_counts().ge(2).any():
                        plot = scaling(part, measure, axis, looks=looks)
                        plots.append(
                            plot._replace(name=f"{plot.name}{ending}", caption=f"{plot.caption} {one.machine}")
                        )
    return Part("speed", "Speed", _LEAD, [], tables, plots)


def step_ms(found: Sequence[Speed]) -> dict[str, float]:
    """Milliseconds of each loss on the workload `step`, by label, of the last measurement that has it on a CPU."""
    return {
        row.loss: row.own.ms
        for one in found
        if one.environment.get("device") == "cpu"
        for row in one.rows
        if row.workload == "step" and row.own.ms is not None
    }


def speed_table(speed: Speed, name: str = "speed") -> Table:
    """Rows losses; for each workload its time, the factor of the dense reference, memory, and the share of a step."""
    rows = [row for row in speed.rows if row.workload != _SCALING]
    by_loss: dict[str, dict[str, SpeedRow]] = {}
    for row in rows:
        by_loss.setdefault(row.loss, {})[row.size] = row
    columns, makers = [], []
    for size in dict.fromkeys(row.size for row in rows):
        inside = [row for row in rows if row.size == size]
        for head, make, shown in _COLUMNS:
            if any(shown(row) for row in inside):
                columns.append(Column(head, size, "measured" if head != "speed-up" else "derived"))
                makers.append((size, make))
    body = [
        Row(label, tuple(make(own[size]) if size in own else Cell() for size, make in makers))
        for label, own in sorted(by_loss.items())
    ]
    caption = [
        "ms: median of the calls after a first one, on one thread where it is a CPU; float32. MiB: highest memory "
        "above that before. speed-up: how many times longer the dense reference takes, in the same call.",
        speed.machine,
        f"Measured {speed.written}.",
    ]
    if any(row.network_ms for row in rows):
        caption.insert(1, f"step: the loss's share of a training step of {speed.backbone} with that batch.")
    caption += [f"{row.loss}, {row.size}: {words}." for row in rows for words in _problems(row)]
    return Table(file_name(name), "What a loss costs", "loss", tuple(columns), tuple(body), tuple(caption))


def profile_table(speed: Speed, name: str = "speed_profile") -> Table:
    """Rows losses; milliseconds of each part of a training step, and the loss's share; its functions underneath."""
    parts = list(dict.fromkeys(part for one in speed.profiles for part in one.parts))
    body, largest = [], []
    for one in sorted(speed.profiles, key=lambda one: one.loss):
        whole = sum(one.parts.values())
        spent = sum(ms for part, ms in one.parts.items() if part.startswith("loss"))
        times = [Cell(_digits(one.parts[part]), one.parts[part]) if part in one.parts else Cell() for part in parts]
        share = Cell(f"{100 * spent / whole:.1f} %", 100 * spent / whole) if whole else Cell("–")
        body.append(Row(one.loss, (*times, share)))
        functions = ", ".join(f"{function} {100 * part:.0f} %" for function, part in one.functions.items())
        largest.append(f"{one.loss}: {functions}.")
    columns = [*(Column(part.split()[-1], part.split()[0]) for part in parts), Column("share", "loss", "derived")]
    caption = (
        f"Milliseconds of the parts of a training step of {speed.backbone}, medians: eight 256-px crops of 300 people "
        "each, one thread. What a loss computes from the points is in its forward pass.",
        speed.machine,
        "Largest functions of each loss, forward and backward, what they call left out:",
        *largest,
    )
    return Table(file_name(name), "A training step, part by part", "loss", tuple(columns), tuple(body), caption)


def exponents(speed: Speed, name: str = "speed_exponents") -> Table:
    """Rows losses; the powers of people and of cells with which time and memory grow."""
    frame = scaling_frame(speed)
    columns, makers = [], []
    for measure, title in (("ms", "time"), ("peak_mib", "memory")):
        for axis, words in SCALES.items():
            columns.append(Column(words.split(" (")[0], title, "derived"))
            makers.append((measure, axis))
    body = []
    for label, own in frame.groupby("label", sort=True):
        cells = []
        for measure, axis in makers:
            part = own[(own["axis"] == axis) & own[measure].notna() & (own[measure] > 0)]
            power = exponent(part[axis].tolist(), part[measure].tolist()) if len(part) else None
            cells.append(Cell("–") if power is None else Cell(f"{power:.2f}", power))
        body.append(Row(str(label), tuple(cells)))
    sizes = {axis: sorted(set(frame.loc[frame["axis"] == axis, axis])) for axis in SCALES}
    caption = (
        "Powers p of cost ~ size^p, by least squares on the logarithms, over "
        f"{_listed(sizes['people'])} people on 64x64 cells, and over maps of {_listed(sizes['cells'])} cells with 1000 "
        "people. Small sizes have a cost that does not grow, which lowers p.",
        speed.machine,
    )
    return Table(file_name(name), "How cost grows", "loss", tuple(columns), tuple(body), caption)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """The power p of cost ~ size^p, by least squares on the logarithms; None with fewer than two sizes or a zero."""
    if len(set(sizes)) < 2 or min(*sizes, *costs) <= 0:
        return None
    return linear_regression(*([math.log(each) for each in values] for values in (sizes, costs))).slope


def scaling_frame(speed: Speed) -> pd.DataFrame:
    """Rows where people or cells were varied: `axis` (which of them), `label`, `people`, `cells`, `ms`, `peak_mib`.

    `cells` is the number of cells of the map. A workload that both axes share stands twice.
    """
    rows = [row for row in speed.rows if row.workload == _SCALING]
    found = []
    for axis, other in (("people", "cells"), ("cells", "people")):
        fixed = _commonest(getattr(row, other) for row in rows)
        found += [(axis, row) for row in rows if getattr(row, other) == fixed]
    return pd.DataFrame(
        [
            {"axis": axis, "label": row.loss, "people": row.people, "cells": row.cells**2}
            | {"ms": row.own.ms, "peak_mib": row.own.peak_mib}
            for axis, row in found
        ],
        columns=["axis", "label", "people", "cells", "ms", "peak_mib"],
    ).astype({"ms": float, "peak_mib": float})


def _commonest(values: Iterable[int]) -> int | None:
    found = list(values)
    return max(set(found), key=found.count) if found else None


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:,.0f}" for value in values)


def _ms(row: SpeedRow) -> Cell:
    if row.own.ms is None:
        return Cell("failed")
    return Cell(_digits(row.own.ms), row.own.ms, low=row.own.low, high=row.own.high)


def _ratio(row: SpeedRow) -> Cell:
    if row.ratio is None:
        return Cell("–")
    return Cell(f"{_digits(row.ratio)}x", row.ratio)


def _memory(row: SpeedRow) -> Cell:
    peak = row.own.peak_mib
    return Cell("–") if peak is None else Cell(f"{peak:.0f}", peak)


def _share(row: SpeedRow) -> Cell:
    return Cell("–") if row.share is None else Cell(f"{100 * row.share:.1f} %", 100 * row.share)


_COLUMNS: tuple[tuple[str, Callable[[SpeedRow], Cell], Callable[[SpeedRow], bool]], ...] = (
    ("ms", _ms, lambda row: True),
    ("speed-up", _ratio, lambda row: row.dense is not None),
    ("MiB", _memory, lambda row: row.own.peak_mib is not None),
    ("step", _share, lambda row: row.network_ms is not None),
)


def _digits(value: float) -> str:
    """Three digits at most before the point, two at least in all."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _problems(row: SpeedRow) -> list[str]:
    """What could not be measured."""
    found: list[tuple[str, Cost | None]] = [("the loss", row.own), ("the dense reference", row.dense)]
    return [f"{what} has no time, {cost.problem}" for what, cost in found if cost is not None and cost.problem]
