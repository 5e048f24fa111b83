"""Figures of where people were found: precision and recall, sparse and dense images, and images with their errors.

See `reports.plots`; every figure is of one method, so a line is a radius within which a prediction counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator

from reports import style
from reports.style import COLUMN, GRID, LEFT, LINE, PAGE, SMALL, TEXT, Plot

__all__ = ["Hits", "by_density", "by_radius", "hits", "iso_f1", "precision_recall", "square"]

Array = npt.NDArray[np.float64]

_MOST_ROWS = 2000
"""Thresholds of a drawn curve: more are not seen."""
# Found, false, missed: colour, marker and whether it is filled; each of the three tells them apart.
_MARKS = {"found": ("#56B4E9", "o"), "false": ("#D55E00", "x"), "missed": ("#F0E442", "o")}
_DARK = "#222222"


class Hits(NamedTuple):
    """One image with what was found in it.

    Attributes:
        title: Why it is shown, such as `worst`.
        id: The image's name.
        image: uint8 (H, W, 3).
        found: (k, 2) annotated heads with a prediction, (x, y), pixels.
        missed: (n - k, 2) annotated heads without.
        false: (m - k, 2) predictions without a head.
        radius: Name of the radius within which predictions count.
    """

    title: str
    id: str
    image: npt.NDArray[np.uint8]
    found: Array
    missed: Array
    false: Array
    radius: str

    @property
    def f1(self) -> float:
        """F1 of this image; NaN if there is neither head nor prediction."""
        total = 2 * len(self.found) + len(self.missed) + len(self.false)
        return 2 * len(self.found) / total if total else float("nan")


@style.context()
def precision_recall(curves: Mapping[str, pd.DataFrame]) -> Plot:
    """Precision over recall for every threshold on the score, a line a radius, with the threshold of the largest F1.

    Args:
        curves: `runners.metrics.localisation.curve` by the name of the radius.

    Returns:
        `data` has `radius, threshold, precision, recall, f1`, at most 2000 rows a radius, evenly spread, with the last
        one and that of the largest F1 (of several, the one with the highest threshold).

    Raises:
        ValueError: If there is no curve, or none has a row with a defined recall.
    """
    parts = []
    for name, curve in curves.items():
        rows = curve[np.isfinite(curve["recall"].to_numpy(float))]
        if len(rows):
            places = np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).round().astype(int)
            kept = np.unique([*places, int(rows["f1"].to_numpy(float).argmax())])
            parts.append(rows.iloc[kept][["threshold", "precision", "recall", "f1"]].assign(radius=name))
    if not parts:
        raise ValueError("no curve has a threshold with a recall: there is nothing to draw")
    data = pd.concat(parts, ignore_index=True)[["radius", "threshold", "precision", "recall", "f1"]]
    names = list(dict.fromkeys(data["radius"]))
    shown = _looks(names)
    figure, axes = square(names)
    iso_f1(axes)
    lines = []
    for name in names:
        rows = data[data["radius"] == name]
        look, best = shown[name], rows.loc[rows["f1"].idxmax()]
        axes.plot(rows["recall"], rows["precision"], color=look.color, ls=look.line, zorder=2)
        axes.plot([best["recall"]], [best["precision"]], ls="", zorder=3, **style.marks(look, 5.0))
        lines.append(f"{name} {100 * best['f1']:.1f} % at a threshold of {best['threshold']:.3g}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    style.axis_titles(axes, x="recall", y="precision")
    style.legend(figure, shown, left=LEFT, top=style.legend_height(names, COLUMN - LEFT, line=True), line=True)
    caption = (
        "Precision over recall for every threshold on the score; a line for each radius within which a prediction "
        "counts as a head, grey lines of equal F1. The mark is the largest F1, chosen on these very images: "
        f"{'; '.join(lines)}."
    )
    return Plot(data, figure, caption, "precision_recall")


@style.context()
def by_radius(scores: pd.DataFrame) -> Plot:
    """Precision, recall and F1 over the radius within which a prediction counts.

    Args:
        scores: `radius` (pixels), `precision, recall, f1`, a row a radius.

    Returns:
        `data` is `scores`, sorted by radius.

    Raises:
        ValueError: If a column is missing, or there are fewer than two radii.
    """
    style.need(scores, ["radius", "precision", "recall", "f1"], "scores")
    data = scores[["radius", "precision", "recall", "f1"]].astype(float).sort_values("radius", ignore_index=True)
    if len(data) < 2:
        raise ValueError("one radius is no curve: give several, such as 1:100")
    names = ["precision", "recall", "f1"]
    labels = ["precision", "recall", "F1"]
    shown = _looks(labels)
    figure, axes = square(labels, 2.3)
    every = max(len(data) // 12, 1)
    for name, label in zip(names, labels, strict=True):
        look = shown[label]
        axes.plot(data["radius"], data[name], color=look.color, ls=look.line, markevery=every, **style.marks(look, 3.5))
    style.scale_axis(axes.xaxis, data["radius"], log_from=20, margin=0.03, most=7)
    axes.set_ylim(0, 1.02)
    axes.grid(axis="y")
    style.axis_titles(axes, x="radius (pixels)", y="score")
    style.legend(figure, shown, left=LEFT, top=style.legend_height(labels, COLUMN - LEFT, line=True), line=True)
    low, high = data["radius"].iloc[[0, -1]]
    caption = (
        f"Precision, recall and F1 over the distance within which a prediction counts as a head, {len(data)} radii "
        f"from {low:g} to {high:g} pixels; each with a maximum one-to-one matching, counts summed over all images. The "
        "lines lie on each other where there are as many predictions as heads."
    )
    return Plot(data, figure, caption, "by_radius")


@style.context()
def by_density(scores: pd.DataFrame) -> Plot:
    """F1 of images with few and many people, and with heads near to and far from each other.

    Args:
        scores: `runners.metrics.density.by_density`.

    Returns:
        `data` is `scores`.

    Raises:
        ValueError: If a column or all rows are missing.
    """
    style.need(scores, ["radius", "axis", "bin", "images", "f1", "f1_low", "f1_high"], "scores")
    names = list(dict.fromkeys(scores["radius"]))
    shown = _looks(names)
    legend = style.legend_height(names, PAGE - LEFT)
    foot, tall = 0.42 + legend, 1.7
    figure = style.sheet(PAGE, foot + tall + 0.1)
    wide = (PAGE - LEFT - 0.3 - 0.08) / 2
    titles = {"people": "people in the image", "spacing": "mean distance to the nearest head (px)"}
    for place, (axis, title) in enumerate(titles.items()):
        axes = style.place(figure, LEFT + place * (wide + 0.3), foot, wide, tall)
        part = scores[scores["axis"] == axis]
        _bins(axes, part, names, shown)
        axes.tick_params(labelleft=place == 0)
        style.axis_titles(axes, x=title, y="F1" if place == 0 else "")
    style.legend(figure, shown, left=LEFT, top=legend)
    bars = "; bars: 95 % bootstrap interval over the images of a bin" if scores["f1_low"].notna().any() else ""
    caption = (
        "F1 by the number of people in an image (scene levels of NWPU-Crowd) and by the mean distance of a head to the "
        f"nearest other (quantiles of the images, the densest first), for each radius; counts are summed over the "
        f"images of a bin, whose number stands above the axis{bars}. Images without people are left out."
    )
    return Plot(scores.reset_index(drop=True), figure, caption, "by_density")


def _bins(axes: Axes, part: pd.DataFrame, names: Sequence[str], shown: Mapping[str, style.Look]) -> None:
    """The bins of one axis, the radii side by side."""
    bins = part.drop_duplicates("bin")
    axes.set(xlim=(-0.5, max(len(bins), 1) - 0.5), ylim=(0, 1.02))
    axes.grid(axis="y")
    for i, name in enumerate(names):
        rows = part[part["radius"] == name]
        x = np.arange(len(rows)) + (i - (len(names) - 1) / 2) * min(0.16, 0.7 / len(names))
        f1, low, high = (rows[column].to_numpy(float) for column in ("f1", "f1_low", "f1_high"))
        axes.vlines(x, low, high, color=shown[name].color, lw=1.0)
        axes.plot(x, f1, ls="", **style.marks(shown[name], 4.5))
    axes.xaxis.set_major_locator(FixedLocator(list(range(len(bins)))))
    axes.xaxis.set_major_formatter(FixedFormatter(list(bins["bin"])))
    axes.tick_params(axis="x", length=0)
    for place, count in enumerate(bins["images"]):
        axes.text(place, 0.02, f"n = {count}", size=SMALL, color=GRID, ha="center")


@style.context()
def hits(examples: Sequence[Hits]) -> Plot:
    """Images with found and missed heads and false alarms, whole and where there are most errors.

    The detail is the window of a third of the image's sides (ours) with most misses and false alarms together, of
    several the upper left one on a grid of a twelfth.

    Args:
        examples: In order, such as worst, median, best.

    Returns:
        `data` has `title, id, radius, found, missed, false, f1`, one row an image.

    Raises:
        ValueError: If there is no example, or an array's shape is not what `Hits` says.
    """
    if not examples:
        raise ValueError("examples is empty: there is no image to draw")
    for example in examples:
        _check(example)
    names = 1.12
    each = (PAGE - names - 2 * 0.08) / 2
    heights = [max(min(each * e.image.shape[0] / e.image.shape[1], 2.9), 7.2 * LINE) for e in examples]
    foot, head = 0.26, 0.2
    figure = style.sheet(PAGE, foot + head + sum(heights) + 0.08 * len(examples))
    lefts = [names + i * (each + 0.08) for i in range(2)]
    top = float(figure.get_size_inches()[1]) - head
    for left, title in zip(lefts, ("whole image", "where most is wrong"), strict=True):
        style.write(figure, left + each / 2, top + 0.06, title, TEXT, ha="center")
    for example, tall in zip(examples, heights, strict=True):
        _name(figure, example, top, names - 0.1)
        window = _window(example)
        rows, columns = example.image.shape[:2]
        for left, view in zip(lefts, ((0.0, 0.0, float(columns), float(rows)), window), strict=True):
            axes = _view(figure, left, top - tall, each, tall, view)
            _draw(axes, example)
            if view is not window:
                x, y, width, height = window
                axes.add_patch(Rectangle((x, y), width, height, fill=False, ec="#ffffff", lw=0.8))
        top -= tall + 0.08
    _marks_legend(figure, lefts[0])
    radius = " and ".join(dict.fromkeys(e.radius for e in examples))
    data = pd.DataFrame(
        [(e.title, e.id, e.radius, len(e.found), len(e.missed), len(e.false), e.f1) for e in examples],
        columns=["title", "id", "radius", "found", "missed", "false", "f1"],
    )
    caption = (
        f"{style.span([len(examples)], 'image')} on faded grey: heads that a prediction within {radius} stands for "
        "(blue dots), missed heads (yellow rings) and predictions without a head (red crosses), in the whole image and "
        "in the window, framed in white, that has most of the last two."
    )
    return Plot(data, figure, caption, "hits")


# ---------------------------------------------------------------------------------------------------------------------
# Parts


def _looks(names: Sequence[str]) -> dict[str, style.Look]:
    """Looks in the order given, which is that of the radii: few names, and no other figure has them."""
    made = list(style.looks(f"{place:03d}" for place in range(len(names))).values())
    return dict(zip(names, made, strict=True))


def square(names: Sequence[str], tall: float = 2.7) -> tuple[Figure, Axes]:
    """A figure of one column with one pair of axes, and space for a legend below it."""
    legend = style.legend_height(names, COLUMN - LEFT, line=True)
    figure = style.sheet(COLUMN, 0.4 + legend + tall + 0.1)
    return figure, style.place(figure, LEFT, 0.4 + legend, COLUMN - LEFT - 0.1, tall)


def iso_f1(axes: Axes) -> None:
    """Lines of equal F1, named at their right end."""
    for f1 in (0.2, 0.4, 0.6, 0.8):
        recall = np.linspace(f1 / 2 + 1e-3, 1, 200)
        precision = f1 * recall / (2 * recall - f1)
        inside = precision <= 1.0
        axes.plot(recall[inside], precision[inside], color=GRID, lw=0.5, alpha=0.6, zorder=1)
        axes.text(0.995, f1 / (2 - f1) - 0.01, f"F1 {f1:g}", size=SMALL - 1, color=GRID, ha="right", va="top")


def _check(example: Hits) -> None:
    """Checks the shapes of one example."""
    if example.image.ndim != 3 or example.image.shape[2] != 3 or 0 in example.image.shape:
        raise ValueError(f"image {example.id!r} has shape {example.image.shape}; expected (H, W, 3), not empty")
    for name in ("found", "missed", "false"):
        points = getattr(example, name)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"{name} of image {example.id!r} has shape {points.shape}; expected (n, 2)")


def _name(figure: Figure, example: Hits, top: float, inches: float) -> None:
    """What a row is, beside it."""
    f1 = "n/a" if example.f1 != example.f1 else f"{100 * example.f1:.1f} %"
    lines = [*style.wrap(example.id, inches), f"F1 {f1}", f"found {len(example.found)}"]
    lines += [f"missed {len(example.missed)}", f"false {len(example.false)}"]
    style.write_lines(figure, 0.02, top, [example.title], weight="bold")
    style.write_lines(figure, 0.02, top - LINE, lines)


def _window(example: Hits) -> tuple[float, float, float, float]:
    """x, y, width, height of the window with most errors."""
    rows, columns = example.image.shape[:2]
    wrong = np.concatenate([example.missed, example.false])
    sums = np.histogram2d(wrong[:, 1], wrong[:, 0], bins=(12, 12), range=((0, rows), (0, columns)))[0]
    totals = np.lib.stride_tricks.sliding_window_view(sums, (4, 4)).sum(axis=(2, 3))
    y, x = np.unravel_index(int(totals.argmax()), totals.shape)
    return x * columns / 12, y * rows / 12, columns / 3, rows / 3


def _view(
    figure: Figure, left: float, bottom: float, width: float, height: float, view: tuple[float, float, float, float]
) -> Axes:
    """Axes over a part of an image, as large as its shape allows, in the middle of a place."""
    x, y, across, down = view
    scale = min(width / across, height / down)
    left += (width - across * scale) / 2
    bottom += height - down * scale
    axes = style.place(figure, left, bottom, across * scale, down * scale, xlim=(x, x + across), ylim=(y + down, y))
    axes.set_axis_off()
    return axes


def _draw(axes: Axes, example: Hits) -> None:
    """The faded picture and the marks, the errors above."""
    rows, columns = example.image.shape[:2]
    limits = axes.get_xlim(), axes.get_ylim()
    grey = example.image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    axes.imshow((60 + 0.45 * grey).astype(np.uint8), extent=(0, columns, rows, 0), interpolation="antialiased")
    (x0, x1), (y1, y0) = limits
    seen = [p[((p >= (x0, y0)) & (p <= (x1, y1))).all(axis=1)] for p in (example.found, example.missed, example.false)]
    size = _size(axes, sum(map(len, seen)))
    for name, points in zip(("found", "missed", "false"), seen, strict=True):
        color, marker = _MARKS[name]
        x, y = points.T
        if name == "found":
            axes.scatter(x, y, s=(0.75 * size) ** 2, c=color, edgecolors=_DARK, linewidths=0.1 * size, rasterized=True)
        elif name == "missed":
            axes.scatter(x, y, s=(1.5 * size) ** 2, c="none", edgecolors=color, linewidths=0.35 * size, rasterized=True)
        else:
            axes.scatter(x, y, s=(1.2 * size) ** 2, c=color, marker=marker, linewidths=0.4 * size, rasterized=True)
    axes.set(xlim=limits[0], ylim=limits[1])


def _size(axes: Axes, count: int) -> float:
    """Size of a mark, points: a third of the side of the square that each would have, 1.2 to 4."""
    frame = axes.get_window_extent()
    side = 72 / axes.figure.dpi * float(np.sqrt(frame.width * frame.height / max(count, 1)))
    return float(np.clip(side / 3, 1.2, 4.0))


def _marks_legend(figure: Figure, left: float) -> None:
    across, up = figure.get_size_inches()
    found, false, missed = (_MARKS[name] for name in ("found", "false", "missed"))
    handles = [
        Line2D([], [], ls="", marker=found[1], color=found[0], mec=_DARK, mew=0.4, ms=4, label="found"),
        Line2D([], [], ls="", marker=missed[1], mfc="none", mec="#B8A800", mew=1.2, ms=5.5, label="missed"),
        Line2D([], [], ls="", marker=false[1], color=false[0], mew=1.3, ms=5, label="false alarm"),
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(left / across, 0.2 / up), ncols=3, borderpad=0.0,
        borderaxespad=0.0, handlelength=1.0, handletextpad=0.5, columnspacing=1.6,
    )  # fmt: skip
