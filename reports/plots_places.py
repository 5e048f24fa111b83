"""Figures that compare losses by where they find people: one line a loss, one figure a localizer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from reports import style
from reports.plots_localisation import iso_f1, square
from reports.style import COLUMN, LEFT, Look, Plot

__all__ = ["curves_by_loss"]


@style.context()
def curves_by_loss(
    curves: pd.DataFrame, chosen: pd.DataFrame, *, looks: Mapping[str, Look] | None = None, words: str = ""
) -> Plot:
    """Precision over recall for every threshold on the score, a line a seed, a colour a loss.

    Args:
        curves: `label, seed, threshold, precision, recall, f1` of one localizer on one test set at one radius.
        chosen: `label, seed, precision, recall` at the thresholds that were chosen on val, or of a localizer that has
            none: the marks.
        looks: See `reports.plots`.
        words: Which localizer, radius and split, for the caption.

    Returns:
        `data` is `curves` with finite recall, sorted.

    Raises:
        ValueError: If a column is missing, or no row has a finite recall.
    """
    style.need(curves, ("label", "seed", "threshold", "precision", "recall", "f1"), "curves")
    style.need(chosen, ("label", "seed", "precision", "recall"), "chosen")
    data = curves[np.isfinite(curves["recall"].astype(float))]
    if data.empty:
        raise ValueError("no curve has a threshold with a recall: there is nothing to draw")
    columns = ["label", "seed", "threshold", "precision", "recall", "f1"]
    data = data.sort_values(["label", "seed", "threshold"], ascending=[True, True, False], ignore_index=True)[columns]
    names = list(dict.fromkeys(data["label"]))
    shown = style.chosen(looks, names)
    figure, axes = square(names)
    iso_f1(axes)
    for (label, _), rows in data.groupby(["label", "seed"], sort=False):
        look = shown[str(label)]
        axes.plot(rows["recall"], rows["precision"], color=look.color, ls=look.line, lw=0.9, zorder=2)
    for row in chosen.dropna(subset=["precision", "recall"]).to_dict("records"):
        axes.plot([row["recall"]], [row["precision"]], ls="", zorder=3, **style.marks(shown[row["label"]], 4.5))
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    style.axis_titles(axes, x="recall", y="precision")
    drawn = {name: shown[name] for name in names}
    style.legend(figure, drawn, left=LEFT, top=style.legend_height(names, COLUMN - LEFT, line=True), line=True)
    caption = (
        f"Precision over recall{f', {words}' if words else ''}: a line a seed, for every threshold on the score; marks "
        "are where each run stands (at the threshold chosen on val, if it has one), grey lines of equal F1."
    )
    return Plot(data, figure, caption, "curves")
