"""Figures of how time and memory of a loss grow, from `reports.speed.scaling_frame`."""

from __future__ import annotations

import pandas as pd

from reports import style
from reports.plots import Looks
from reports.style import COLUMN, FOOT, LEFT, Plot

__all__ = ["SCALES", "scaling"]

SCALES = {"people": "people (heads an image)", "cells": "cells (of the map)"}
"""What is varied, with the title of its axis."""
_COSTS = {"ms": ("time (ms)", "Time of a forward and a backward pass"), "peak_mib": ("memory (MiB)", "Highest memory")}


@style.context()
def scaling(frame: pd.DataFrame, measure: str, axis: str, *, looks: Looks = None) -> Plot:
    """Cost against size, both logarithmic, a line a loss.

    Args:
        frame: Rows of `reports.speed.scaling_frame` of one axis.
        measure: `ms` or `peak_mib`.
        axis: `people` or `cells`.
        looks: See `reports.plots`.

    Raises:
        ValueError: If a column is missing, or nothing is positive.
    """
    style.need(frame, ("label", axis, measure), "frame")
    data = frame.loc[frame[measure] > 0, ["label", axis, measure]].sort_values(["label", axis]).reset_index(drop=True)
    if data.empty:
        raise ValueError(f"no {measure} is above zero: there is nothing to draw")
    labels = sorted(set(data["label"]))
    shown = style.chosen(looks, labels)
    foot = FOOT + 0.1 + style.legend_height(labels, COLUMN - LEFT)
    figure = style.sheet(COLUMN, foot + 2.1)
    axes = style.place(figure, LEFT, foot, COLUMN - LEFT - 0.08, 2.02)
    style.scale_axis(axes.xaxis, data[axis], log_from=1, margin=0.05, most=4)
    style.scale_axis(axes.yaxis, data[measure], log_from=1)
    axes.grid()
    for label in labels:
        own = data[data["label"] == label]
        axes.plot(own[axis], own[measure], color=shown[label].color, lw=1.0)
        axes.plot(own[axis], own[measure], ls="", **style.marks(shown[label], 3.6))
    style.axis_titles(axes, x=SCALES[axis], y=_COSTS[measure][0])
    style.legend(figure, shown, left=LEFT, top=foot - 0.5)
    other = "on 64x64 cells" if axis == "people" else "with 1000 people"
    caption = f"{_COSTS[measure][1]} against the number of {axis}, {other}, float32, both axes logarithmic."
    return Plot(data, figure, caption, f"speed_{measure}_by_{axis}")
