"""Figures of a free density map descending losses: curves, a strip of pictures, and the frames of an animation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, FuncNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from reports import style
from reports.plots_maps import Shown, draw_map, map_bar, roots
from reports.style import GRID, LINE, PAGE, TEXT, Look, Plot

__all__ = ["Trace", "curves", "frames", "strips"]

Array = npt.NDArray[np.float64]

_MOST_ROWS = 5
_SHOTS = 6
"""Pictures of one loss in a strip."""
_LEAST_WIDTH, _TITLE_LINE = 3.95, 1.25 * LINE
"""A frame is as wide as the title in one line, or nearly, and its lines of larger text are further apart; inches."""
_HINTED = 0.94
"""Letters on so few pixels are set a little wider than their outlines: lines are planned this much shorter."""
_DPI = 100
"""Of an animation's frames."""


class Trace(NamedTuple):
    """What a map did.

    Attributes:
        loss: Its label.
        steps: int64 [f], the step of each map kept, ascending.
        maps: float64 [f, h, w], people per cell.
        loss_values, counts, close: float64 [steps + 1], the loss, the sum of the map, and the share of it at the heads.
    """

    loss: str
    steps: npt.NDArray[np.int64]
    maps: Array
    loss_values: Array
    counts: Array
    close: Array


@style.context()
def curves(paths: Sequence[Trace], heads: int, *, radius: float, how: str) -> Plot:
    """Loss, count, and share of the mass at the heads over steps, one panel a loss.

    Losses have units of their own: each is drawn from its lowest value (0) to its first one (1).

    Args:
        paths: One a loss.
        heads: What the count should be.
        radius: Within which mass is at a head, pixels.
        how: How it descended, a sentence for the caption.

    Returns:
        `data` has `loss, step, value, count, close`.

    Raises:
        ValueError: If there is no path.
    """
    _need(paths)
    looks = style.looks(path.loss for path in paths)
    figure, panels = style.multiples([path.loss for path in paths], (0.55, 0.55, 0.55))
    figure.set_figwidth(PAGE)  # of one or two losses as well: on a page, strips and curves are of one scale
    most = max(float(path.counts.max()) for path in paths) * 1.05
    for path in paths:
        panel, look = panels[path.loss], looks[path.loss]
        low, first = float(path.loss_values.min()), float(path.loss_values[0])
        relative = (path.loss_values - low) / ((first - low) or 1.0)
        for axes, values, top, mark in zip(
            panel.axes, (relative, path.counts, 100 * path.close), (1.1, most, 105.0), (None, heads, None), strict=True
        ):
            _curve(axes, values, top, look, mark)
        if panel.first:
            for axes, title in zip(panel.axes, ("loss", "count", "% at heads"), strict=True):
                style.axis_titles(axes, y=title)
    style.write(figure, figure.get_figwidth() / 2, 0.07, "step", TEXT, ha="center")
    data = pd.concat(
        [
            pd.DataFrame(
                {
                    "loss": p.loss,
                    "step": np.arange(len(p.loss_values)),
                    "value": p.loss_values,
                    "count": p.counts,
                    "close": p.close,
                }
            )
            for p in paths
        ],
        ignore_index=True,
    )
    said = "; ".join(
        f"{p.loss} {p.counts[-1]:.2f} people, {100 * p.close[-1]:.0f} % within {radius:g} px of a head" for p in paths
    )
    caption = (
        f"A free density map descends each loss. {how} Top: the loss, from its lowest value (0) to its first one (1); "
        f"middle: the count, dashed the {heads} heads; bottom: the share of the map within {radius:g} px of a head. In "
        f"the end: {said}."
    )
    return Plot(data, figure, caption, "descent")


def _curve(axes: Axes, values: Array, top: float, look: Look, mark: float | None) -> None:
    if mark is not None:
        axes.axhline(mark, color=GRID, lw=0.8, ls=(0, (3, 2)))
    axes.plot(np.arange(len(values)), values, color=look.color, lw=1.1, solid_capstyle="round")
    axes.set(xlim=(0, max(len(values) - 1, 1)), ylim=(min(0.0, float(values.min())), top))
    axes.xaxis.set_major_locator(MaxNLocator(2, integer=True, steps=[1, 2, 5, 10], prune="upper"))
    axes.yaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
    axes.grid(True, axis="y")


@style.context()
def _strip(scene: Shown, paths: Sequence[Trace], scale: tuple[Colormap, FuncNorm], name: str, how: str) -> Plot:
    stub, gap, foot, head = 1.0, 0.05, 0.5, LINE + 0.08
    each = (PAGE - stub - 0.02 - gap * (_SHOTS - 1)) / _SHOTS
    tall = each * scene.image.shape[0] / scene.image.shape[1]
    step = tall + LINE + 0.07
    figure = style.sheet(PAGE, foot + head + len(paths) * step)
    top = float(figure.get_size_inches()[1]) - head
    rows = []
    for i, path in enumerate(paths):
        upper = top - i * step
        lines = style.wrap(path.loss, 0.9 * (stub - 0.08))
        style.write_lines(figure, 0.02, upper, lines, weight="bold")
        for j, k in enumerate(_shots(len(path.steps))):
            left, number, count = stub + j * (each + gap), int(path.steps[k]), float(path.maps[k].sum())
            if i == 0:
                style.write(figure, left + each / 2, top + 0.05, f"step {number}", ha="center")
            draw_map(style.place(figure, left, upper - tall, each, tall), scene, path.maps[k], *scale, dark=True)
            style.write(figure, left + each / 2, upper - tall - 0.8 * LINE, f"count {count:.2f}", ha="center")
            rows.append((path.loss, number, count, float(path.close[number]), float(path.loss_values[number])))
    map_bar(figure, stub + 1.5, 2.6, *scale, "people per cell (denser cells have the last colour)")
    data = pd.DataFrame(rows, columns=["loss", "step", "count", "close", "value"])
    caption = (
        f"A free density map descends each loss: {scene.title}. {how} Colours follow square roots, on one scale for "
        "all losses; rings are the heads."
    )
    return Plot(data, figure, caption, name)


def strips(scene: Shown, paths: Sequence[Trace], *, how: str) -> list[Plot]:
    """The maps at six steps, or at all if fewer were kept, more of them early; losses as rows, at most five a figure.

    Args:
        scene: What is looked at.
        paths: One a loss, with the same steps.
        how: How it descended, a sentence for the caption.

    Returns:
        Figures named `strip`, `strip_2`, ...; `data` has `loss, step, count, close, value`.

    Raises:
        ValueError: If there is no path.
    """
    _need(paths)
    scale = _scale(paths)
    number = -(-len(paths) // _MOST_ROWS)
    parts = [list(part) for part in np.array_split(np.arange(len(paths)), number)]
    return [
        _strip(scene, [paths[k] for k in part], scale, f"strip_{i + 1}" if i else "strip", how)
        for i, part in enumerate(parts)
    ]


def _shots(kept: int) -> list[int]:
    """Places of the maps shown, each once: the first, the last, and between them more of the early ones."""
    if kept <= _SHOTS:
        return list(range(kept))
    shots = [0]
    for share in np.linspace(0, 1, _SHOTS)[1:]:
        shots.append(max(round((kept - 1) * share**2), shots[-1] + 1))
    return shots


def frames(scene: Shown, paths: Sequence[Trace]) -> Iterator[npt.NDArray[np.uint8]]:
    """The frames of an animation, all losses side by side, each with its name and count, and the step above them.

    Args:
        scene: What is looked at.
        paths: One a loss, with the same steps.

    Yields:
        uint8 [H, W, 3], even sides; one for each map kept.

    Raises:
        ValueError: If there is no path, or the steps differ.
    """
    _need(paths)
    if any(not np.array_equal(path.steps, paths[0].steps) for path in paths):
        raise ValueError("the paths were kept at different steps: they cannot be shown side by side")
    with style.context():
        figure, images, counts, step = _stage(scene, paths)
    for k, number in enumerate(paths[0].steps):
        step.set_text(f"step {number} of {paths[0].steps[-1]}")
        for path, image, count in zip(paths, images, counts, strict=True):
            image.set_data(np.clip(path.maps[k], image.norm.vmin, image.norm.vmax))
            count.set_text(f"count {path.maps[k].sum():.2f}")
        with style.context():
            canvas = FigureCanvasAgg(figure)
            pixels = _drawn(canvas)
        yield np.ascontiguousarray(pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2])


def _drawn(canvas: Any) -> npt.NDArray[np.uint8]:
    """RGB pixels of a canvas, whose methods are untyped."""
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _stage(scene: Shown, paths: Sequence[Trace]) -> tuple[Figure, list[AxesImage], list[Text], Text]:
    """The figure of a frame, and what changes in it."""
    each, gap, columns = 1.85, 0.1, min(len(paths), 5 if len(paths) > 8 else 4)
    tall = each * scene.image.shape[0] / scene.image.shape[1]
    rows = -(-len(paths) // columns)
    names = [style.wrap(path.loss, 0.9 * each, TEXT) for path in paths]  # bold is wider
    label = max(map(len, names)) * LINE + 0.06
    step = tall + label + LINE + 0.1
    panels = columns * (each + gap) + gap
    title = [
        line.strip()
        for line in style.wrap(
            f"A free density descends each loss: {scene.title}",
            _HINTED * (max(panels, _LEAST_WIDTH) - 2 * gap),
            TEXT + 1,
        )
    ]
    width = max(panels, _LEAST_WIDTH, *(style.text_width(line, TEXT + 1) / _HINTED + 2 * gap for line in title))
    head = (len(title) + 1) * _TITLE_LINE + 0.1
    figure = Figure(figsize=(width, rows * step + head + 0.1), dpi=_DPI, facecolor="white")
    up = float(figure.get_size_inches()[1])
    scale = _scale(paths)
    images, counts = [], []
    for i, line in enumerate(title):
        style.write(figure, gap, up - (i + 1) * _TITLE_LINE, line, TEXT + 1)
    number = figure.text(gap / width, 1 - (len(title) + 1) * _TITLE_LINE / up, "", size=TEXT + 1)
    edge = (width - panels) / 2 + gap
    for i, path in enumerate(paths):
        left, top = edge + i % columns * (each + gap), up - head - i // columns * step
        for j, line in enumerate(reversed(names[i])):  # the last line stands on the picture
            style.write(figure, left, top - label + 0.08 + j * LINE, line, TEXT, weight="bold")
        axes = style.place(figure, left, top - label - tall, each, tall)
        draw_map(axes, scene, path.maps[0], *scale, dark=True)
        images.append(axes.images[0])
        below = top - label - tall - LINE
        counts.append(figure.text((left + each) / width, below / up, "", size=TEXT, ha="right"))
        style.write(figure, left, below, f"heads {len(scene.points)}", TEXT)
    return figure, images, counts, number


def _scale(paths: Sequence[Trace]) -> tuple[Colormap, FuncNorm]:
    """Colours of all maps: they end at the median over losses of the densest cell of the last map."""
    most = float(np.median([path.maps[-1].max() for path in paths])) or 1.0
    return matplotlib.colormaps["magma"], roots(0.0, most)


def _need(paths: Sequence[Trace]) -> None:
    if not paths:
        raise ValueError("paths is empty: there is no descent to draw")
