"""How every figure looks: sizes, colours, ticks, and labels that do not collide.

Figures are built in inches on `matplotlib.figure.Figure`; pyplot, its global state and a display are never needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator, ScalarFormatter
from scipy.optimize import isotonic_regression

from reports import table
from reports.looks import Look, looks

__all__ = ["COLUMN", "GRID", "INK", "PAGE", "SMALL", "TEXT", "Look", "Plot", "context", "looks"]

INK = "#1b1c1e"
"""Text, axes and ticks: nearly black on paper, and the one colour that `svg` replaces by the page's own."""
GRID = "#8a8a8a"
"""Grid, leaders and reference lines: a mid grey that reads on white and on dark pages."""
EDGE = "#333333"
"""Edges of markers and of dots, on any page: in ink they would outshine small markers on a dark one."""
COLUMN, PAGE = 3.4, 7.0
"""Width of one and of two columns of a conference paper, inches."""
TEXT, SMALL = 8.0, 7.0
"""Sizes of text, points."""
LINE = 0.135
"""Height of a line of small text, inches."""
DPI = 200
"""Of PNG files, and of what is rasterised within a PDF."""

_RC: dict[str, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": TEXT,
    "axes.labelsize": TEXT, "axes.titlesize": TEXT, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL, "text.parse_math": False, "axes.formatter.useoffset": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "auto",
    "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "xtick.major.pad": 2.0, "ytick.major.pad": 2.0, "axes.labelpad": 2.0,
    "grid.color": GRID, "grid.alpha": 0.35, "grid.linewidth": 0.5, "lines.linewidth": 1.2,
    "legend.frameon": False, "svg.fonttype": "none", "pdf.fonttype": 42,
}  # fmt: skip


class Plot(NamedTuple):
    """A figure with what it shows.

    Attributes:
        data: What is drawn, one row a mark; written beside the figure as CSV.
        figure: The drawing.
        caption: What is shown, over how many seeds and images, and what bands and bars are.
        name: Of its files and of the ids in its SVG: letters, digits, `_` and `-`.
    """

    data: pd.DataFrame
    figure: Figure
    caption: str
    name: str


def marks(look: Look, size: float = 4.0) -> dict[str, Any]:
    """The marker of a look as keywords of `Axes.plot`; a thin dark edge carries pale colours on white pages."""
    return {"marker": look.marker, "ms": size, "mfc": look.color, "mec": EDGE, "mew": 0.4}


def ramp(color: str) -> LinearSegmentedColormap:
    """A scale from faint to full of one colour; by opacity, so that it reads on white and on dark pages."""
    rgb = to_rgb(color)
    return LinearSegmentedColormap.from_list(f"ramp{color}", [(*rgb, 0.3), (*rgb, 1.0)])


# ---------------------------------------------------------------------------------------------------------------------
# Building a figure


@contextmanager
def context() -> Iterator[None]:
    """Our settings, whatever the user's own are; every figure is built and drawn within it."""
    with matplotlib.style.context(["default", _RC]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name in a script that the font lacks
        yield


def sheet(width: float, height: float) -> Figure:
    """An empty transparent figure, inches."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def place(figure: Figure, left: float, bottom: float, width: float, height: float, **kwargs: Any) -> Axes:
    """Axes at a place given in inches from the lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up), **kwargs)


def write(figure: Figure, x: float, y: float, text: str, size: float = SMALL, **kwargs: Any) -> None:
    """One line of text at a place in inches."""
    across, up = figure.get_size_inches()
    figure.text(x / across, y / up, text, size=size, **kwargs)


def write_lines(figure: Figure, x: float, y: float, lines: Sequence[str], **kwargs: Any) -> None:
    """Lines of small text below each other, the first's top at y; each its own element, as SVG aligns only those."""
    for i, line in enumerate(lines):
        write(figure, x, y - (i + 0.8) * LINE, line, **kwargs)


@cache
def text_width(text: str, size: float = SMALL) -> float:
    """Width of a line of text, inches."""
    with context():
        font = FontProperties(family="DejaVu Sans", size=size)
        return float(TextToPath().get_text_width_height_descent(text, font, False)[0]) / 72


def wrap(label: str, inches: float, size: float = SMALL) -> list[str]:
    """A label in lines no wider than `inches`, see `reports.table.wrap`."""
    return table.wrap(label, inches, lambda line: text_width(line, size))


def shape(count: int) -> tuple[int, int]:
    """Rows and columns of small multiples: up to 4 columns, as few empty places as can be."""
    columns = count if count <= 4 else min((4, 3), key=lambda c: -count % c)
    return -(-count // columns), columns


class Panel(NamedTuple):
    """One loss's place in small multiples.

    Attributes:
        axes: From the top down.
        left, top, width: Of the upper axes, inches.
        first, last: Whether it is the first of its row, and the lowest of its column: where ticks have numbers.
    """

    axes: tuple[Axes, ...]
    left: float
    top: float
    width: float
    first: bool
    last: bool


LEFT, FOOT = 0.5, 0.4
"""Space for the numbers and titles of the left and the lower axis, inches."""


def multiples(
    labels: Sequence[str], heights: Sequence[float] = (), *, right: float = 0.08, lines: int = 0, above: float = 0.0
) -> tuple[Figure, dict[str, Panel]]:
    """A figure of one panel a label, with the label above; one column wide for two panels, else two.

    Args:
        labels: In order.
        heights: Of the axes that stand above each other in each panel, inches; by default one square.
        right: Space kept on the right, inches.
        lines: How many lines of text will stand between label and axes.
        above: Space kept above all panels, inches.
    """
    rows, columns = shape(len(labels))
    across = COLUMN if columns <= 2 else PAGE
    gap, between = 0.14, 0.1
    width = (across - LEFT - right - gap * (columns - 1)) / columns
    tall = list(heights) or [width]
    titles = [wrap(label, width, TEXT) for label in labels]
    most = [max(len(title) for title in titles[i * columns : (i + 1) * columns]) for i in range(rows)]
    heads = [LINE * (lines + lines_above) + 0.07 for lines_above in most]  # of each row of panels
    cell = sum(tall) + between * (len(tall) - 1)
    figure = sheet(across, FOOT + sum(heads) + rows * cell + 0.12 * (rows - 1) + 0.02 + above)
    panels = {}
    for i, label in enumerate(labels):
        row, left = i // columns, LEFT + (i % columns) * (width + gap)
        top = FOOT + (rows - row) * cell + (rows - 1 - row) * 0.12 + sum(heads[row + 1 :])
        write_lines(figure, left, top + 0.05 + LINE * (lines + len(titles[i])), titles[i], size=TEXT)
        tops = top - np.cumsum([0.0, *(height + between for height in tall[:-1])])
        axes = [place(figure, left, upper - h, width, h) for upper, h in zip(tops, tall, strict=True)]
        panels[label] = Panel(tuple(axes), left, top, width, i % columns == 0, i + columns >= len(labels))
        for j, ax in enumerate(axes):
            ax.tick_params(labelleft=i % columns == 0, labelbottom=panels[label].last and j == len(axes) - 1)
    return figure, panels


def axis_titles(axes: Axes, *, x: str = "", y: str = "", at: float = LEFT - 0.14) -> None:
    """Titles of axes; the upright one `at` inches left of them, so that titles above each other are aligned."""
    axes.set_xlabel(x)
    if y:
        axes.set_ylabel(y)
        axes.yaxis.set_label_coords(-at / axes_width(axes), 0.5)


def axes_width(axes: Axes) -> float:
    """Width of axes, inches."""
    return float(axes.get_window_extent().width / axes.figure.dpi)


def spread(wanted: npt.ArrayLike, heights: Sequence[float], low: float, high: float) -> npt.NDArray[np.float64]:
    """Places of labels along one axis: nearest to where they are wanted (least squares), in order, not overlapping.

    With the offsets that the heights demand taken off, the places need only be increasing: isotonic regression.

    Args:
        wanted: Where the centres should be.
        heights: How much of the axis each label needs.
        low: What no label may cross.
        high: What no label may cross, above `low`.

    Raises:
        ValueError: If the labels are higher than the space together.
    """
    centres, needs = np.asarray(wanted, float), np.asarray(heights, float)
    if needs.sum() > high - low + 1e-9:
        raise ValueError(f"labels {needs.sum():.3g} high do not fit into {high - low:.3g}: give them more space")
    order = np.argsort(centres, kind="stable")
    need = needs[order]
    offset = np.cumsum(need) - need / 2
    fitted = np.asarray(isotonic_regression(centres[order] - offset).x)
    places = np.empty_like(centres)
    places[order] = np.clip(fitted, low, max(low, high - need.sum())) + offset
    return places


def legend(figure: Figure, shown: Mapping[str, Look], *, left: float, top: float, line: bool = False) -> None:
    """A legend below the axes in as many columns as fit, its upper left corner at (left, top) inches."""
    across, up = figure.get_size_inches()
    columns = legend_columns(list(shown), across - left, line)
    handles = [
        Line2D([], [], ls=look.line if line else "", color=look.color, label=label, **marks(look))
        for label, look in shown.items()
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(left / across, top / up), ncols=columns, borderpad=0.0,
        borderaxespad=0.0, handlelength=_handle(line), handletextpad=0.5, columnspacing=1.2, labelspacing=0.35,
    )  # fmt: skip


def legend_columns(labels: Sequence[str], inches: float, line: bool = False) -> int:
    """How many columns of a legend fit; it is filled column by column."""
    sign = (_handle(line) + 0.5 + 1.2) * SMALL / 72
    for columns in range(len(labels), 1, -1):
        rows = -(-len(labels) // columns)
        parts = [labels[i : i + rows] for i in range(0, len(labels), rows)]
        if len(parts) == columns and sum(sign + max(map(text_width, part)) for part in parts) <= inches:
            return columns
    return 1


def legend_height(labels: Sequence[str], inches: float, line: bool = False) -> float:
    """Height of the legend, inches."""
    return LINE * -(-len(labels) // legend_columns(labels, inches, line)) + 0.05


def _handle(line: bool) -> float:
    return 2.6 if line else 1.0


# ---------------------------------------------------------------------------------------------------------------------
# Axes


def number(value: float) -> str:
    """A tick's number: `0.5`, `20`, `30k`, `2M`."""
    for scale, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= scale:
            return f"{value / (1e6 if letter == 'M' else 1e3):g}{letter}"
    return f"{value:g}".replace("-", "−")


def measured(value: float) -> str:
    """A measured number as it is read: three significant digits, no exponent."""
    if not np.isfinite(value):
        return "n/a"
    digits = 0 if value == 0 else max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{min(digits, 3)}f}".replace("-", "−")


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Ticks at 1, 2, 5, at 1, 3 or at powers of ten within [low, high], as dense as `most` allows."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**power for power in powers for step in steps]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) <= most:
            break
    return ticks[:: -(-len(ticks) // most)] if ticks else []


def scale_axis(axis: Axis, values: npt.ArrayLike, *, log_from: float, margin: float = 0.06, most: int = 5) -> bool:
    """Limits and ticks of an axis around values; logarithmic where they are positive and span the factor `log_from`.

    Returns:
        Whether it is logarithmic.
    """
    found = np.asarray(values, float)
    found = found[np.isfinite(found)]
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)
    name = "x" if isinstance(axis, XAxis) else "y"
    log = low > 0 and high / low > log_from
    if log:
        pad = (high / low) ** margin
        low, high = low / pad, high * pad
        ticks = log_ticks(low, high, most)
        axis.axes.set(**{f"{name}scale": "log"})
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FixedFormatter([number(tick) for tick in ticks]))
        axis.set_minor_locator(NullLocator())
    else:
        pad = (high - low) * margin if high > low else abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
        axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10], min_n_ticks=3 if most > 4 else 2))
        axis.set_major_formatter(ScalarFormatter(useOffset=False))
    axis.axes.set(**{f"{name}lim": (low, high)})
    return log


# ---------------------------------------------------------------------------------------------------------------------
# What figures say and ask


def need(frame: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    """Checks that a frame has rows and columns.

    Raises:
        ValueError: With what is missing.
    """
    if missing := [column for column in columns if column not in frame]:
        raise ValueError(f"{what} lacks the columns {missing}; it has {list(frame.columns)}")
    if frame.empty:
        raise ValueError(f"{what} has no rows: there is nothing to draw")


def chosen(given: Mapping[str, Look] | None, labels: Iterable[str]) -> dict[str, Look]:
    """The looks of a figure's labels, in their order: those given, or of these labels alone.

    Raises:
        ValueError: If looks are given and a label has none.
    """
    names = list(labels)
    known = looks(names) if given is None else given
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"no look is given for {missing}: call style.looks with all labels of the report")
    return {name: known[name] for name in names}


def span(counts: Iterable[float], noun: str) -> str:
    """`1 seed`, `5 seeds`, `3 to 5 seeds`."""
    found = sorted({int(count) for count in counts})
    if len(found) > 1:
        return f"{found[0]} to {found[-1]} {noun}s"
    return f"{found[0]} {noun}{'s' * (found[0] != 1)}"
