"""Figures of sparse and of dense crowds, from `density.scored`: what is binned and on which axes is ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

from reports import style
from reports.plots import Looks
from reports.style import COLUMN, GRID, INK, LEFT, PAGE, TEXT, Plot

__all__ = ["by_bin", "in_panels"]

_TITLES = {"mae": "MAE (people)", "f1": "F1", "bias": "mean error (people)"}
_TITLES |= {"difference": "MAE minus that of {} (people)"}


@style.context()
def by_bin(frame: pd.DataFrame, metric: str = "mae", *, axis: str, unit: str = "image", looks: Looks = None) -> Plot:
    """An error, or F1, of every loss in every bin, on one axis; logarithmic where errors span more than a decade.

    Args:
        frame: `density.scored`.
        metric: `mae` or `f1`.
        axis: What is binned, as `Binning.axis`.
        unit: What the units are.
        looks: See `reports.plots`.

    Returns:
        `data` has the frame's columns on bins, labels and the metric.

    Raises:
        ValueError: If a column is missing, or no value is finite.
    """
    data = _data(frame, metric)
    labels, bins = (list(dict.fromkeys(data[name])) for name in ("label", "bin"))
    shown = style.chosen(looks, labels)
    across = PAGE if len(labels) * len(bins) > 12 else COLUMN
    foot = 0.62 + style.legend_height(labels, across - LEFT)
    figure = style.sheet(across, foot + 2.1)
    axes = style.place(figure, LEFT, foot, across - LEFT - 0.08, 2.02)
    values = data[[metric, f"{metric}_low", f"{metric}_high"]].to_numpy(float)
    if metric == "f1":
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    else:
        values = np.maximum(values, 0.4 * np.nanmin(values[:, 0]))  # a bound at zero does not set the scale
        style.scale_axis(axes.yaxis, values, log_from=10)
    low, high = axes.get_ylim()
    axes.set_xlim(-0.5, len(bins) - 0.5)
    axes.grid(axis="y")
    for i, label in enumerate(labels):
        part = data[data["label"] == label]
        x = part["bin"].map(bins.index).to_numpy(float) + 0.8 * ((i + 0.5) / len(labels) - 0.5)
        bounds = part[[f"{metric}_low", f"{metric}_high"]].to_numpy(float).clip(low, high)
        axes.vlines(x, *bounds.T, color=shown[label].color, lw=1.2)
        axes.plot(x, part[metric], ls="", **style.marks(shown[label], 3.6))
    places = np.arange(len(bins) - 1) + 0.5
    axes.vlines(places, 0, 1, transform=axes.get_xaxis_transform(), color=GRID, lw=0.5, alpha=0.35)
    axes.xaxis.set_major_locator(FixedLocator(list(range(len(bins)))))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{name}\nn = {_units(data, name):,}" for name in bins]))
    axes.tick_params(axis="x", length=0)
    style.axis_titles(axes, x=axis, y=_TITLES[metric])
    style.legend(figure, shown, left=LEFT, top=foot - 0.55)
    what = "F1, pooled over the images of a bin," if metric == "f1" else "Mean absolute error"
    caption = f"{what} by density: {_said(data, metric, axis, unit)}."
    return Plot(data, figure, caption, f"density_{metric}")


@style.context()
def in_panels(
    frame: pd.DataFrame,
    metric: str = "difference",
    *,
    axis: str,
    unit: str = "image",
    baseline: str = "",
    looks: Looks = None,
) -> Plot:
    """What may be above or below zero, a panel a bin with its own scale: dense bins err by far more people than sparse.

    Args:
        frame: `density.scored`.
        metric: `difference` to the baseline, or `bias`.
        axis: As `by_bin`, like what follows.
        unit: What the units are.
        baseline: What the difference is to.
        looks: See `reports.plots`.

    Returns:
        `data` as `by_bin`; without the baseline for the difference.

    Raises:
        ValueError: As `by_bin`.
    """
    if metric == "difference" and metric in frame:
        frame = frame[frame["label"] != baseline]
    data = _data(frame, metric)
    labels, bins = (list(dict.fromkeys(data[name])) for name in ("label", "bin"))
    shown = style.chosen(looks, labels)
    figure, panels = _panels(labels, [f"{name} (n = {_units(data, name):,})" for name in bins])
    for place, (axes, name) in enumerate(zip(panels, bins, strict=True)):
        part = data[data["bin"] == name].set_index("label").reindex(labels)
        y = -np.arange(len(labels), dtype=float)
        bounds = part[[f"{metric}_low", f"{metric}_high"]].to_numpy(float)
        style.scale_axis(axes.xaxis, [*bounds.ravel(), *part[metric], 0.0], log_from=np.inf, most=4)
        axes.axvline(0, color=INK, lw=0.6)
        axes.grid(axis="x")
        axes.hlines(y, *bounds.T, color=[shown[label].color for label in labels], lw=1.2)
        for label, at, value in zip(labels, y, part[metric], strict=True):
            axes.plot([value], [at], ls="", **style.marks(shown[label], 3.8))
        if place % _columns(len(bins)) == 0:
            _names(axes, labels)
    across, _ = figure.get_size_inches()
    title = _TITLES[metric].format(baseline)
    style.write(figure, (_STUB + across) / 2, 0.05, title, TEXT, ha="center")
    sign = "below zero: less than the baseline" if metric == "difference" else "above zero: too many"
    what = f"MAE minus that of {baseline}, paired" if metric == "difference" else "Mean signed error"
    caption = f"{what} ({sign}), by density, each bin on a scale of its own: {_said(data, metric, axis, unit)}." + (
        " Intervals are not corrected for their number; the table's stars are." if metric == "difference" else ""
    )
    return Plot(data, figure, caption, f"density_{metric}")


# ---------------------------------------------------------------------------------------------------------------------
# Parts

_STUB = 1.05
"""Space for the labels on the left of panels, inches."""


def _data(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The columns of one metric, where it is known."""
    columns = ["bin", "label", "images", "units", "people", "seeds", metric, f"{metric}_low", f"{metric}_high"]
    columns += ["p", "p_holm"] if metric == "difference" else []
    style.need(frame, columns, "frame")
    data = frame.loc[np.isfinite(frame[metric].astype(float)), columns].reset_index(drop=True)
    if data.empty:
        raise ValueError(f"no bin has a finite {metric}: there is nothing to draw")
    return data


def _panels(labels: list[str], titles: list[str]) -> tuple[Figure, list[Axes]]:
    """Panels with a row for each label, and the bins' names above them."""
    columns = _columns(len(titles))
    rows = -(-len(titles) // columns)
    lines = max(len(style.wrap(label, _STUB - 0.1)) for label in labels)
    tall, head, foot, gap = (0.04 + 0.125 * lines) * len(labels) + 0.1, 0.2, 0.25, 0.3
    width = (PAGE - _STUB - 0.1 - gap * (columns - 1)) / columns
    figure = style.sheet(PAGE, rows * (tall + head + foot) + 0.2)
    panels = []
    for place, title in enumerate(titles):
        left = _STUB + (place % columns) * (width + gap)
        bottom = 0.2 + (rows - 1 - place // columns) * (tall + head + foot) + foot
        axes = style.place(figure, left, bottom, width, tall)
        axes.set_ylim(-len(labels) + 0.4, 0.6)
        axes.yaxis.set_major_locator(FixedLocator([]))
        axes.spines["left"].set_visible(False)
        style.write(figure, left, bottom + tall + 0.05, title)
        panels.append(axes)
    return figure, panels


def _columns(count: int) -> int:
    """Panels in a row."""
    return style.shape(count)[1] if count <= 4 else 3


def _names(axes: Axes, labels: list[str]) -> None:
    """The labels left of a panel, in lines that fit."""
    axes.yaxis.set_major_locator(FixedLocator([-float(place) for place in range(len(labels))]))
    axes.yaxis.set_major_formatter(FixedFormatter(["\n".join(style.wrap(label, _STUB - 0.1)) for label in labels]))
    axes.tick_params(axis="y", length=0)


def _units(data: pd.DataFrame, name: Any) -> int:
    return int(data.loc[data["bin"] == name, "units"].iloc[0])


def _said(data: pd.DataFrame, metric: str, axis: str, unit: str) -> str:
    """What is binned, over how much, and what the bars are."""
    bins = data.drop_duplicates("bin")
    bars = "; bars: 95 % intervals over seeds and images" if data[f"{metric}_low"].notna().any() else ""
    return (
        f"{style.span([len(bins)], 'bin')} of the {axis}, n {unit}s in each; mean over "
        f"{style.span(data['seeds'], 'seed')}{bars}; bins and axes ours"
    )
