"""What figures of density cells are made of: maps with heads and borders, colours, and scales at the foot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, FuncNorm, LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from scipy.spatial import cKDTree

from reports import style
from reports.style import SMALL

__all__ = [
    "BELOW",
    "PUSH",
    "Shown",
    "above",
    "bar",
    "dash",
    "density_scale",
    "digits",
    "draw_map",
    "frame",
    "height",
    "map_bar",
    "mark_heads",
    "owners",
    "picture",
    "roots",
]

Array = npt.NDArray[np.float64]

PUSH = LinearSegmentedColormap.from_list(
    "push", ["#08306b", "#2171b5", "#9ecae1", "#ffffff", "#fdd0a2", "#fd8d3c", "#e6550d"]
)
"""Blue is darker than orange at the ends, so that grey printing keeps the two apart."""
BELOW = 0.005
"""People below zero in a target that are shown and told of; less is a rounded 0.00 (ours)."""
_BELOW = ("#7fd4ff", "#16465c")
_COLORS = 512
_ON_DARK, _ON_LIGHT = "#ffffff", "#222222"


class Shown(NamedTuple):
    """The scene.

    Attributes:
        title: What it is.
        image: uint8 [H, W, 3].
        points: float64 [n, 2], heads as (x, y), pixels.
        owner: int64 [h, w], the head nearest to each cell.
        stride: Pixels per cell.
    """

    title: str
    image: npt.NDArray[np.uint8]
    points: Array
    owner: npt.NDArray[np.int64]
    stride: int


def density_scale(reads: Sequence[Array], targets: Sequence[Array | None]) -> tuple[Colormap, FuncNorm]:
    """Colours of densities: they end at the densest predicted cell; targets that are denser have the same colour."""
    most = max(float(read.max()) for read in reads) or 1.0
    least = min([0.0, *(float(target.min()) for target in targets if target is not None)])
    norm = roots(max(least, -most), most)
    zero = float(norm(0.0))
    # Colour by colour: zero itself begins the colours above it, however little of the scale is below.
    middles = (np.arange(_COLORS) + 0.5) / _COLORS
    colors = matplotlib.colormaps["magma"](np.clip((middles - zero) / (1 - zero), 0, 1))
    below = int(zero * _COLORS)
    if below:
        shades = LinearSegmentedColormap.from_list("below", _BELOW)
        colors[:below] = shades(np.linspace(0, 1, below))
    return ListedColormap(colors, "density"), norm


def above(target: Array) -> Array:
    """A target as it is drawn: what is below zero counts as zero if it is no more than `BELOW` people in all.

    Colours follow square roots, which would show what no table tells.
    """
    return target if float(-target.clip(max=0).sum()) > BELOW else target.clip(min=0)


def roots(low: float, high: float) -> FuncNorm:
    """A scale of signed square roots from `low` to `high`."""
    return FuncNorm((lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda y: np.sign(y) * y**2), low, high)


def draw_map(axes: Axes, scene: Shown, values: Array, cmap: Colormap, norm: Normalize, *, dark: bool = False) -> None:
    """A map of cells with the heads and the borders of their nearest cells.

    Args:
        axes: Where.
        scene: What is looked at.
        values: float64 [h, w].
        cmap: Colours.
        norm: Their scale; values beyond it have its last colour.
        dark: Whether the colours are dark at zero.
    """
    extent = (0, values.shape[1] * scene.stride, values.shape[0] * scene.stride, 0)
    axes.imshow(np.clip(values, norm.vmin, norm.vmax), extent=extent, cmap=cmap, norm=norm, interpolation="nearest")
    frame(axes, scene)
    axes.add_collection(
        LineCollection(_borders(scene), colors="#9a9a9a", linewidths=0.35 if len(scene.points) < 50 else 0.2)
    )
    mark_heads(axes, scene.points, _ON_DARK if dark else _ON_LIGHT)


def frame(axes: Axes, scene: Shown) -> None:
    """Limits in pixels of the picture, no ticks, a thin frame."""
    axes.set(xlim=(0, scene.image.shape[1]), ylim=(scene.image.shape[0], 0), aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, linewidth=0.4, color=style.GRID)


def dash(axes: Axes) -> None:
    """A dashed frame: the gradient jumps here."""
    axes.spines[:].set(linewidth=1.1, color=_ON_LIGHT, linestyle=(0, (3, 2)))


def _borders(scene: Shown) -> list[list[tuple[float, float]]]:
    """Sides between cells that belong to different heads."""
    owner, stride = scene.owner, scene.stride
    lines = [
        [(float((c + 1) * stride), float(r * stride)), (float((c + 1) * stride), float((r + 1) * stride))]
        for r, c in zip(*np.nonzero(owner[:, 1:] != owner[:, :-1]), strict=True)
    ]
    return lines + [
        [(float(c * stride), float((r + 1) * stride)), (float((c + 1) * stride), float((r + 1) * stride))]
        for r, c in zip(*np.nonzero(owner[1:] != owner[:-1]), strict=True)
    ]


def mark_heads(axes: Axes, points: Array, color: str) -> None:
    """Rings as large as the crowd allows: 0.4 of the median distance to the nearest head, 1 to 4.5 pt."""
    per_pixel = style.axes_width(axes) * 72 / abs(axes.get_xlim()[1] - axes.get_xlim()[0])
    near = float(np.median(cKDTree(points).query(points, k=[2])[0])) if len(points) > 1 else np.inf
    size = float(np.clip(0.4 * near * per_pixel, 1.0, 4.5))
    x, y = points.T
    if color == _ON_LIGHT:  # dark blue is no light ground: a paler ring beneath
        axes.scatter(x, y, s=size**2, facecolors="none", edgecolors="#dddddd", linewidths=0.3 + 0.25 * size)
    axes.scatter(x, y, s=size**2, facecolors="none", edgecolors=color, linewidths=0.1 + 0.1 * size)


def picture(axes: Axes, scene: Shown, read: Array | None = None) -> None:
    """The picture, with a prediction over it where there is one."""
    height, width = scene.image.shape[:2]
    axes.imshow(scene.image, extent=(0, width, height, 0), interpolation="antialiased")
    if read is not None:
        share = np.sqrt((read / (float(read.max()) or 1.0)).clip(0, 1))
        colors = matplotlib.colormaps["magma"](0.25 + 0.75 * share)
        colors[..., 3] = share * 0.9
        extent = (0, read.shape[1] * scene.stride, read.shape[0] * scene.stride, 0)
        axes.imshow(colors, extent=extent, interpolation="nearest")
    frame(axes, scene)
    mark_heads(axes, scene.points, _ON_DARK if read is not None else "#D55E00")


def owners(axes: Axes, scene: Shown) -> None:
    """The cells nearest to each head, in colours that repeat."""
    looks = list(style.looks(f"{i:02d}" for i in range(8)).values())
    colors = np.array([matplotlib.colors.to_rgba(look.color, 0.55) for look in looks])
    extent = (0, scene.owner.shape[1] * scene.stride, scene.owner.shape[0] * scene.stride, 0)
    axes.imshow(colors[scene.owner % 8], extent=extent, interpolation="nearest")
    frame(axes, scene)
    mark_heads(axes, scene.points, _ON_LIGHT)


def map_bar(figure: Figure, left: float, width: float, cmap: Colormap, norm: FuncNorm, title: str) -> None:
    """The scale of densities at the foot of a figure, `left` and `width` in inches."""
    most, least = float(norm.vmax or 1), float(norm.vmin or 0)
    ticks = {most * share: digits(most * share) for share in (0.0, 0.25, 1.0)}
    if norm(0.0) > 0.25:
        ticks[least] = digits(least)
    bar(figure, left, width, cmap, norm, ticks, title)


def bar(
    figure: Figure, left: float, width: float, cmap: Colormap, norm: FuncNorm, ticks: dict[float, str], title: str
) -> None:
    """A scale at the foot of the figure."""
    axes = style.place(figure, left, 0.36, width, 0.07)
    edges = np.linspace(0, 1, 129)
    values = np.asarray(norm.inverse((edges[1:] + edges[:-1]) / 2), float)
    axes.pcolormesh(edges, [0, 1], values[None], cmap=cmap, norm=norm, rasterized=True)
    axes.xaxis.set(major_locator=FixedLocator([float(norm(tick)) for tick in ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter(list(ticks.values())))
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines[:].set_visible(False)
    axes.set_xlabel(title, size=SMALL)


def digits(value: float) -> str:
    """Three digits; what is nearly nothing is told as a power of ten."""
    if not np.isfinite(value):
        return "n/a"
    if abs(value) >= 1000:
        text = f"{value:.0f}"
    else:
        text = f"{value:#.3g}".rstrip(".") if abs(value) >= 1e-4 else f"{value:.0e}" if value else "0"
    return text.replace("-", "−")


def height(scene: Shown, width: float) -> float:
    """Of a picture that is `width` wide, inches."""
    return width * float(scene.image.shape[0] / scene.image.shape[1])
