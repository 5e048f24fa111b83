"""Figures of label sensitivity, the measure of `runners.sensitivity` without training (ours). See `reports.plots`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from reports import style
from reports.noise import KINDS
from reports.style import COLUMN, GRID, INK, LEFT, LINE, PAGE, TEXT, Plot

__all__ = ["HEADING", "heading", "levels", "sensitivity"]

HEADING = LINE + 0.04
"""Space of the line above all panels, inches; see `heading`."""
_ROW = 0.17
"""Height of a row of dots, inches."""
_TITLES = {
    "gradient_shift": "gradient shift",
    "preference_lost": "preference lost",
    "count_push": "count push",
    "value_shift": "value shift a head",
    "rest": "gradient that true labels leave",
}
_AXES = dict.fromkeys(_TITLES, "ratio") | {"preference_lost": "share", "value_shift": "in the loss's units"}
"""The unit of each measure, for its axis: all but the value shift are pure numbers."""


def heading(figure: Figure, left: float) -> None:
    """A line at the top of a figure whose panels have the names of noises: no source states their kinds and levels."""
    up = float(figure.get_size_inches()[1])
    style.write(figure, left, up - 0.8 * LINE, "annotation noise: kinds and levels ours", TEXT)


@style.context()
def sensitivity(summary: pd.DataFrame, measure: str = "preference_lost", terms: str = "") -> Plot:
    """A measure of label sensitivity for every loss and noise: dots with 95 % intervals, a panel a noise.

    Args:
        summary: `runners.sensitivity.summary`.
        measure: Which.
        terms: On what it was measured (data, crops, stride, true density) and which of it is ours, in sentences for the
            caption.

    Returns:
        `data` is the measure's rows; losses are sorted by their mean over the noises, the least first.

    Raises:
        ValueError: If the measure has no value.
    """
    rows = _measured(summary, measure)
    order = list(rows.groupby("loss")["value"].mean().sort_values(kind="stable").index)
    noises = list(dict.fromkeys(map(str, rows["noise"])))
    shown = style.looks(rows["loss"])
    names = max(style.text_width(name) for name in order) + 0.12
    columns = min(3, len(noises))
    across = PAGE if columns > 1 else COLUMN
    gap, head, tick = 0.16, LINE + 0.08, 0.2
    width = (across - names - 0.08 - gap * (columns - 1)) / columns
    height = _ROW * len(order) + 0.1
    lines = -(-len(noises) // columns)
    figure = style.sheet(across, 0.22 + lines * (height + head + tick) + HEADING)
    heading(figure, 0.03)
    bounds = _bounds(rows)
    for place, noise in enumerate(noises):
        row, column = divmod(place, columns)
        left = names + column * (width + gap)
        bottom = 0.22 + tick + (lines - 1 - row) * (height + head + tick)
        style.write(figure, left, bottom + height + 0.05, noise, TEXT)
        axes = style.place(figure, left, bottom, width, height, ylim=(len(order) - 0.4, -0.6), xlim=bounds)
        part = rows[rows["noise"] == noise].set_index("loss")
        for i, name in enumerate(order):
            one = part.loc[name]
            axes.hlines(i, one["low"], one["high"], color=shown[name].color, lw=1.3)
            axes.plot(one["value"], i, **style.marks(shown[name], 4.5))
        axes.axvline(0, color=INK, lw=0.6)
        axes.axvline(1, color=GRID, lw=0.7, ls=(0, (4, 2)))
        axes.grid(axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set(major_locator=FixedLocator(list(range(len(order)))), minor_locator=NullLocator())
        axes.yaxis.set_major_formatter(FixedFormatter(order if column == 0 else [""] * len(order)))
        axes.tick_params(axis="y", length=0)
    style.write(figure, (names + across) / 2, 0.06, _title(measure), TEXT, ha="center")
    return Plot(rows, figure, _caption(rows, measure, "Bars", terms), f"noise_{measure}")


@style.context()
def levels(summary: pd.DataFrame, measure: str = "preference_lost", terms: str = "") -> Plot | None:
    """A measure of label sensitivity over the level, a panel for each kind of noise that has several levels.

    Args:
        summary: `runners.sensitivity.summary`; combined noises are left out, and the caption names what is.
        measure: Which.
        terms: As in `sensitivity`.

    Returns:
        None if no kind has two levels. `data` is the measure's rows with `kind` and `level`.
    """
    rows = _measured(summary, measure)
    given = list(dict.fromkeys(map(str, rows["noise"])))
    rows = rows[~rows["noise"].str.contains("+", regex=False) & rows["noise"].str.contains(":")]
    named = rows["noise"].str.split(":", n=1, expand=True).reindex(columns=[0, 1])
    rows = rows.assign(kind=named[0], level=named[1].astype(float))
    kinds = [str(kind) for kind, part in rows.groupby("kind", sort=False) if len(set(part["level"])) > 1]
    if not kinds:
        return None
    rows = rows[rows["kind"].isin(kinds)].sort_values(["kind", "loss", "level"], kind="stable", ignore_index=True)
    shown = style.looks(rows["loss"])
    across = COLUMN if len(kinds) == 1 else PAGE
    foot = 0.46 + style.legend_height(list(shown), across - LEFT, True)
    columns = min(len(kinds), 3)
    gap, head, height = 0.2, LINE + 0.08, 1.8
    width = (across - LEFT - 0.08 - gap * (columns - 1)) / columns
    lines = -(-len(kinds) // columns)
    figure = style.sheet(across, foot + lines * (height + head) + (lines - 1) * 0.25)
    for place, kind in enumerate(kinds):
        row, column = divmod(place, columns)
        left, bottom = LEFT + column * (width + gap), foot + (lines - 1 - row) * (height + head + 0.25)
        style.write(figure, left, bottom + height + 0.05, f"{kind} (levels ours)", TEXT)
        axes = style.place(figure, left, bottom, width, height)
        part = rows[rows["kind"] == kind]
        for name, curve in part.groupby("loss"):
            look = shown[str(name)]
            axes.fill_between(curve["level"], curve["low"], curve["high"], color=look.color, alpha=0.12, lw=0)
            axes.plot(curve["level"], curve["value"], color=look.color, ls=look.line, **style.marks(look, 4.0))
        axes.axhline(0, color=INK, lw=0.6)
        axes.set(ylim=_bounds(rows))
        axes.grid(axis="y")
        ticks = sorted(set(part["level"]))
        axes.xaxis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // 6)]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.number(value)))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.tick_params(labelleft=column == 0)
        unit = KINDS[kind].level if kind in KINDS else "level"
        style.axis_titles(axes, x=unit, y=_title(measure) if column == 0 else "")
    style.legend(figure, shown, left=LEFT, top=foot - 0.42, line=True)
    absent = [noise for noise in given if noise not in set(rows["noise"])]
    left_out = f" Not drawn, as combined or of a kind with a single level: {', '.join(absent)}." if absent else ""
    return Plot(rows, figure, _caption(rows, measure, "Shaded", terms) + left_out, f"noise_levels_{measure}")


def _measured(summary: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The rows of a measure that have a value.

    Raises:
        ValueError: If there is none.
    """
    style.need(summary, ("loss", "noise", "measure", "value", "low", "high", "images"), "summary")
    if measure not in _TITLES:
        raise ValueError(f"measure is {measure!r}; expected one of {', '.join(_TITLES)}")
    rows = summary[summary["measure"] == measure].reset_index(drop=True)
    if not np.isfinite(rows["value"].astype(float)).any():
        raise ValueError(f"summary has no value of {measure}: there is nothing to draw")
    return rows


def _bounds(rows: pd.DataFrame) -> tuple[float, float]:
    """Limits of an axis that hold zero, all values and their intervals."""
    values = rows[["value", "low", "high"]].to_numpy(float)
    low, high = min(float(np.nanmin(values)), 0.0), max(float(np.nanmax(values)), 0.1)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _title(measure: str) -> str:
    """A measure with its unit, for an axis."""
    return f"{_TITLES[measure]} ({_AXES[measure]}, ours)"


def _caption(rows: pd.DataFrame, measure: str, intervals: str, terms: str) -> str:
    """What is shown; `intervals` is how the figure draws them."""
    meaning = {
        "preference_lost": "the share of what a loss prefers the true density by, over one that knows nothing but "
        "the count, that is lost when it is given the wrong labels; 1: nothing of it is left; below 0: the wrong "
        "labels tell the true density apart even better, as more labels raise what is at stake",
        "gradient_shift": "how hard the wrong labels push the true density, as a share of how hard the true labels "
        "push one that knows nothing but the count; losses with kinks (|.|) do not begin at 0",
        "count_push": "the part of the gradient shift that raises (above 0) or lowers the total",
        "value_shift": "change of the loss at the true density, a head, in the loss's own units",
        "rest": "how hard the true labels push the true density, which is not every loss's optimum",
    }[measure]
    measured = terms or f"Training crops of {style.span(rows['images'], 'image')}."
    return (
        f"Label sensitivity (ours, without training): {_TITLES[measure]}, {meaning}. {measured} "
        f"{intervals}: 95 % bootstrap interval over images. Kinds and levels are ours."
    )
