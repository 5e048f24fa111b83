"""Figures of `benchmark data noise`: what a noise level means before anything is trained. See `reports.plots`.

All that is drawn, and the levels, is ours. The figures of label sensitivity lie in `plots_sensitivity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from scipy import stats

from reports import style
from reports.plots_sensitivity import HEADING, heading
from reports.style import COLUMN, INK, LEFT, LINE, PAGE, SMALL, TEXT, Plot

__all__ = ["Labels", "displacement", "overlay"]

Array = npt.NDArray[np.float64]

_BINS = 40
_MOVED, _CLIPPED = "#0072B2", "#D55E00"
# On pictures, which are as light or dark on any page.
_TRUE, _NOISY, _MISSING, _COPY, _DARK = "#F0E442", "#56B4E9", "#FF3B30", "#FF8FD8", "#111111"
_SIGN = 0.13
"""Width of a sign in the key, inches."""
_WINDOW_HEADS = 25
"""Heads that a picture shows, about (ours): few enough for each to be told."""


class Labels(NamedTuple):
    """One image with its true heads and its labels with noise.

    Attributes:
        noise: Name of the noise.
        id: The image's name in its dataset.
        image: uint8 (H, W, 3).
        true: (n, 2) annotated heads as (x, y), pixels.
        noisy: (m, 2) labels with the noise.
        source: (m,) row of `true` that a label comes from; a further label of the same row is a duplicate.
    """

    noise: str
    id: str
    image: npt.NDArray[np.uint8]
    true: Array
    noisy: Array
    source: npt.NDArray[np.int64]


# ---------------------------------------------------------------------------------------------------------------------
# Displacement


@style.context()
def displacement(moves: pd.DataFrame) -> Plot:
    """How far labels lie from their heads along one axis, and what was asked for: one panel a noise.

    Args:
        moves: `noise`, and the rows of `runners.data.noise_effect.Effect.moves`; noises that move nobody are left out.

    Returns:
        `data` has a row a bar: `noise, low, high` (pixels), `moved` and `clipped` (shares of all displacements, of
        labels that the border left and moved), `requested` (share that was asked for; NaN where it has no name).

    Raises:
        ValueError: If no noise moves a head.
    """
    style.need(moves, ("noise", "id", "dx", "dy", "family", "scale", "clipped"), "moves")
    parts = {str(name): part for name, part in moves.groupby("noise", sort=False)}
    parts = {name: part for name, part in parts.items() if part[["dx", "dy"]].to_numpy().any()}
    if not parts:
        raise ValueError("no noise moves a head: there is no displacement to draw")
    bars = pd.concat([_bars(part).assign(noise=name) for name, part in parts.items()], ignore_index=True)
    figure, panels = style.multiples(list(parts), [1.15], above=HEADING)
    heading(figure, LEFT)
    for name, panel in panels.items():
        axes, rows = panel.axes[0], bars[bars["noise"] == name]
        low, width = rows["low"].to_numpy(), (rows["high"] - rows["low"]).to_numpy()
        moved, clipped = (100 * rows[column].to_numpy() for column in ("moved", "clipped"))
        axes.bar(low, moved, width, align="edge", color=_MOVED, alpha=0.75, lw=0)
        axes.bar(low, clipped, width, bottom=moved, align="edge", color=_CLIPPED, lw=0)
        if rows["requested"].notna().all():
            edges = np.append(low, rows["high"].iloc[-1])
            axes.stairs(100 * rows["requested"].to_numpy(), edges, color=INK, lw=0.9)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.tick_params(labelleft=True, labelbottom=True)
        axes.set_ylim(0, 1.05 * max((moved + clipped).max(), 100 * rows["requested"].max(skipna=True) or 0))
    _spaced_out(figure, panels)
    _shared(figure, "displacement along one axis (px)", "labels (%)", HEADING)
    _key(figure)
    images = style.span([moves["id"].nunique()], "image") + " (those without a labelled head have nothing to move)"
    caption = (
        f"Displacement of the labels from their heads along x and y together, in pixels of the prepared image, as a "
        f"run would train on them, of {images}; the line is the distribution asked for, and labels that it puts "
        f"outside the image are moved to the border. Kinds and levels are ours. Duplicate labels are left out."
    )
    return Plot(bars[["noise", "low", "high", "moved", "clipped", "requested"]], figure, caption, "noise_displacement")


def _bars(part: pd.DataFrame) -> pd.DataFrame:
    """Shares of the displacements of one noise in equal bins, and those asked for."""
    values = part[["dx", "dy"]].to_numpy(float).ravel()
    clipped = np.repeat(part["clipped"].to_numpy(bool), 2)
    scale = part["scale"].to_numpy(float)
    known = bool(np.isfinite(scale).all())
    reach = float(np.abs(values).max())
    if known:
        uniform = part["family"].iloc[0] == "uniform"
        reach = max(min(reach, 4 * float(scale.max())), float(scale.max()) * (1 if uniform else 3))
    edges = np.linspace(-reach, reach, _BINS + 1) * (1 + 1e-9)
    counts = [np.histogram(values[chosen], edges)[0] / len(values) for chosen in (~clipped, clipped)]
    requested = np.full(_BINS, np.nan)
    if known:
        law: Any = stats.uniform(-1, 2) if uniform else stats.norm()
        sizes, heads = np.unique(scale, return_counts=True)  # of a share of the height, one an image size
        requested = np.average([np.diff(law.cdf(edges / size)) for size in sizes], axis=0, weights=heads)
    return pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "moved": counts[0], "clipped": counts[1], "requested": requested}
    )


# ---------------------------------------------------------------------------------------------------------------------
# Overlay


@style.context()
def overlay(examples: Sequence[Labels]) -> Plot:
    """True heads and their labels with noise on a part of one image, a panel a noise.

    The part is a square of one place for all panels, with about 25 heads in it (ours), where the image is fullest.

    Args:
        examples: One image with each noise.

    Returns:
        `data` has `noise, id, heads, labels, missing, duplicates`, one row a panel, of the whole image.

    Raises:
        ValueError: If there is no example, or they are of several images.
    """
    if not examples:
        raise ValueError("examples is empty: there is no image to draw")
    ids = sorted({example.id for example in examples})
    if len(ids) > 1:
        raise ValueError(f"examples are of several images: {ids}; draw one figure for each")
    columns = min(3, len(examples))
    gap, head, foot = 0.1, LINE + 0.1, 0.24
    across = PAGE if columns > 2 else COLUMN
    each = (across - gap * (columns - 1)) / columns
    rows = -(-len(examples) // columns)
    figure = style.sheet(across, foot + rows * (each + head) + HEADING)
    heading(figure, 0.0)
    window = _window(examples[0])
    for place, example in enumerate(examples):
        row, column = divmod(place, columns)
        left, bottom = column * (each + gap), foot + (rows - 1 - row) * (each + head)
        style.write(figure, left, bottom + each + 0.05, example.noise, TEXT)
        _picture(style.place(figure, left, bottom, each, each), example, window)
    _signs(figure, across)
    data = pd.DataFrame(
        [(e.noise, e.id, len(e.true), len(e.noisy), len(e.true) - len(np.unique(e.source)),
          len(e.noisy) - len(np.unique(e.source))) for e in examples],
        columns=["noise", "id", "heads", "labels", "missing", "duplicates"],
    )  # fmt: skip
    caption = (
        f"True heads of a part of image {ids[0]}, {window[2]:.0f} pixels wide, and the labels that a run with each "
        f"noise would train on: a line joins a head with its label. Kinds and levels are ours."
    )
    return Plot(data, figure, caption, "noise_overlay")


def _window(example: Labels) -> tuple[float, float, float]:
    """x, y and side of a square with about `_WINDOW_HEADS` heads, the fullest place of that size in the image.

    The side is the one at which an average head's nearest `_WINDOW_HEADS` heads fill a square.
    """
    height, width = example.image.shape[:2]
    whole = float(min(height, width))
    if len(example.true) <= _WINDOW_HEADS:
        middle = example.true.mean(axis=0) if len(example.true) else np.array([width, height]) / 2
        return (*_kept(middle, whole, (height, width)), whole)
    gaps = np.abs(example.true[:, None] - example.true[None]).max(axis=2)
    reach = np.sort(gaps, axis=1)[:, _WINDOW_HEADS - 1]
    side = float(np.clip(2 * np.quantile(reach, 0.25), 24, whole))
    corners = [_kept(head, side, (height, width)) for head in example.true]
    held = [((example.true >= corner) & (example.true <= np.add(corner, side))).all(axis=1).sum() for corner in corners]
    return (*corners[int(np.argmax(held))], side)


def _kept(middle: Array, side: float, size: tuple[int, int]) -> tuple[float, float]:
    """The corner of a square around a place, moved into the image."""
    x, y = (float(np.clip(m - side / 2, 0, most - side)) for m, most in zip(middle, size[::-1], strict=True))
    return x, y


def _picture(axes: Axes, example: Labels, window: tuple[float, float, float]) -> None:
    """The faded picture, and the marks."""
    x, y, side = window
    axes.set(xlim=(x, x + side), ylim=(y + side, y))
    limits = axes.get_xlim(), axes.get_ylim()
    rows, columns = example.image.shape[:2]
    top, left = max(int(y) - 1, 0), max(int(x) - 1, 0)
    bottom, right = min(int(y + side) + 2, rows), min(int(x + side) + 2, columns)
    grey = example.image[top:bottom, left:right].mean(axis=2, keepdims=True).repeat(3, axis=2)
    axes.imshow((0.62 * grey).astype(np.uint8), extent=(left, right, bottom, top), interpolation="antialiased")
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.set_axis_off()
    _, first = np.unique(example.source, return_index=True)
    copies = np.setdiff1d(np.arange(len(example.source)), first)
    lost = np.setdiff1d(np.arange(len(example.true)), example.source)
    found = np.setdiff1d(np.arange(len(example.true)), lost)
    lines = np.stack([example.true[example.source], example.noisy], axis=1)
    axes.add_collection(LineCollection(list(lines), colors="#ffffff", linewidths=0.6, alpha=0.8))
    for points, marker, color in (
        (example.true[found], "o", _TRUE),
        (example.true[lost], "o", _MISSING),
        (example.noisy[first], "x", _NOISY),
        (example.noisy[copies], "+", _COPY),
    ):
        _mark(axes, points, marker, color)


def _mark(axes: Axes, points: Array, marker: str, color: str) -> None:
    """Marks with a dark edge below, so that they read on light pictures."""
    for shade, width in ((_DARK, 2.0), (color, 1.0)):
        kwargs: dict[str, Any] = {"mfc": "none"} if marker == "o" else {}
        axes.plot(*points.T, ls="", marker=marker, ms=5.0, mec=shade, mew=width, **kwargs)


def _signs(figure: Any, across: float) -> None:
    """What the marks are, below the pictures; in a colour that reads on any page."""
    names = [("true head", "o", "#B8A800"), ("label", "x", "#0072B2"), ("head without a label", "o", "#D62718"),
             ("duplicate label", "+", "#C2318F")]  # fmt: skip
    left = 0.08
    for name, marker, color in names:
        axes = style.place(figure, left, 0.06, 0.1, 0.1, xlim=(-1, 1), ylim=(-1, 1))
        axes.set_axis_off()
        axes.plot([0], [0], marker=marker, ms=4.5, mec=color, mew=1.0, mfc="none", clip_on=False)
        style.write(figure, left + 0.16, 0.075, name, SMALL if across > COLUMN else SMALL - 1)
        left += 0.16 + style.text_width(name) + (0.25 if across > COLUMN else 0.06)


# ---------------------------------------------------------------------------------------------------------------------
# Parts of figures


def _spaced_out(figure: Any, panels: dict[str, style.Panel]) -> None:
    """Every panel has numbers of its own below: it gives up a little height for them."""
    across, up = (float(side) for side in figure.get_size_inches())
    for panel in panels.values():
        box = panel.axes[0].get_position()
        shrink = 0.0 if panel.last else 0.14 / up
        left, width = box.x0 + 0.1 / across, box.width - 0.12 / across
        panel.axes[0].set_position((left, box.y0 + shrink, width, box.height - shrink))


def _shared(figure: Any, x: str, y: str, above: float) -> None:
    """Titles of the axes of all panels, which leave `above` inches free."""
    across, up = (float(side) for side in figure.get_size_inches() - [0, above])
    style.write(figure, (LEFT + across) / 2, 0.13, x, TEXT, ha="center")
    style.write(figure, 0.12, (style.FOOT + up) / 2, y, TEXT, rotation=90, rotation_mode="anchor", ha="center")


def _key(figure: Any) -> None:
    """What the bars and the line are, on the lowest line."""
    left, bottom = 0.3, 0.024
    for name, color in (("as trained on", _MOVED), ("moved by the border", _CLIPPED), ("asked for", INK)):
        axes = style.place(figure, left, bottom, _SIGN, 0.08, xlim=(0, 1), ylim=(-1, 1), xticks=[], yticks=[])
        axes.set_axis_off()
        if color == INK:
            axes.plot([0, 1], [0, 0], color=INK, lw=0.9)
        else:
            axes.fill_between([0, 1], -1, 1, color=color, lw=0)
        style.write(figure, left + _SIGN + 0.05, bottom + 0.002, name)
        left += _SIGN + 0.05 + style.text_width(name) + 0.14
