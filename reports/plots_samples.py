"""The figure of single images: what is there, what was predicted, and where it is wrong. See `reports.plots`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, FuncNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from scipy.spatial import cKDTree

from reports import style
from reports.style import LINE, PAGE, SMALL, TEXT, Plot
from results.crowds import STORED_WINDOW

__all__ = ["Example", "samples"]

Array = npt.NDArray[np.float64]

_DENSITY = matplotlib.colormaps["magma"]
_ERROR = matplotlib.colormaps["RdBu_r"]
# Text on pictures and maps, which are as light or dark on any page: not the page's colour.
_ON_DARK, _ON_LIGHT = "#ffffff", "#222222"


class Example(NamedTuple):
    """One image with its prediction.

    Attributes:
        title: Why it is shown, such as `worst`.
        id: The image's name in its dataset.
        image: uint8 (H, W, 3).
        points: (n, 2) annotated heads as (x, y), pixels.
        density: (h, w) predicted people per cell, or None.
        stride: Pixels per density cell.
        predicted_points: (m, 2) predicted heads, or None.
        true: Annotated count.
        predicted: Predicted count.
        window_error: (rows, columns) predicted minus true people in each 64-px window, or None.
    """

    title: str
    id: str
    image: npt.NDArray[np.uint8]
    points: Array
    density: Array | None
    stride: int
    predicted_points: Array | None
    true: int
    predicted: float
    window_error: Array | None


@style.context()
def samples(examples: Sequence[Example]) -> Plot:
    """Images in rows: the picture with its heads, the prediction, and the signed error in 64-px windows.

    Densities are drawn as people per 64 x 64 px, whatever the stride; the scale ends at the 99.5th percentile of the
    cells. Errors have a symmetric scale; windows too small for a number have a sign where the error is at least a
    quarter of the largest. Both scales are square roots and the same in all rows (all of this: ours).

    Args:
        examples: In order, such as worst, median, best.

    Returns:
        `data` has `title, id, true, predicted, error`, one row an example.

    Raises:
        ValueError: If there is no example, or an array's shape is not what `Example` says.
    """
    if not examples:
        raise ValueError("examples is empty: there is no image to draw")
    for example in examples:
        _check(example)
    names = 1.12
    each = (PAGE - names - 3 * 0.08) / 3
    heights = [min(each * e.image.shape[0] / e.image.shape[1], 2.4) for e in examples]
    heights = [max(height, 5.2 * LINE) for height in heights]
    foot, head = 0.5, 0.2
    figure = style.sheet(PAGE, foot + head + sum(heights) + 0.08 * len(examples))
    lefts = [names + i * (each + 0.08) for i in range(3)]
    top = figure.get_size_inches()[1] - head
    for left, title in zip(lefts, ("annotated heads", "prediction", "error in 64-px windows"), strict=True):
        style.write(figure, left + each / 2, top + 0.06, title, TEXT, ha="center")
    most, worst = _density_limit(examples), _error_limit(examples)
    for example, tall in zip(examples, heights, strict=True):
        _name(figure, example, top, names - 0.1)
        axes = [_frame(figure, left, top - tall, each, tall, example) for left in lefts]
        axes[0].imshow(example.image, extent=_extent(example), interpolation="antialiased")
        _heads(axes[0], example.points, "#F0E442")
        _prediction(axes[1], example, most)
        _windows(axes[2], example, worst, each / example.image.shape[1])
        top -= tall + 0.08
    if most:
        _bar(figure, lefts[1], each, _DENSITY, PowerNorm(0.5, 0, most), "people per 64 × 64 px")
    if worst:
        _bar(figure, lefts[2], each, _ERROR, _signed_roots(worst), "predicted − true (people per window)")
    rows = [(e.title, e.id, int(e.true), float(e.predicted), float(e.predicted) - int(e.true)) for e in examples]
    data = pd.DataFrame(rows, columns=["title", "id", "true", "predicted", "error"])
    caption = (
        f"{style.span([len(examples)], 'image')} of one run: annotated heads, what is predicted, and predicted minus "
        f"true people in windows of 64 pixels (red: too many, blue: too few). Colours follow square roots, on the same "
        f"scales in all rows."
    )
    return Plot(data, figure, caption, "samples")


def _check(example: Example) -> None:
    """Checks the shapes of one example.

    Raises:
        ValueError: With the array, its shape and what is expected.
    """
    windows = tuple(-(-side // STORED_WINDOW) for side in example.image.shape[:2])
    for name, array, good, expected in (
        ("image", example.image, example.image.ndim == 3 and example.image.shape[2:] == (3,), "(H, W, 3)"),
        ("points", example.points, _are_points(example.points), "(n, 2)"),
        ("predicted_points", example.predicted_points, _are_points(example.predicted_points), "(m, 2)"),
        ("density", example.density, example.density is not None and example.density.ndim == 2, "(h, w)"),
        (
            "window_error",
            example.window_error,
            example.window_error is not None and example.window_error.shape == windows,
            f"{windows}",
        ),
    ):
        if array is not None and (not good or ("points" not in name and 0 in array.shape)):
            raise ValueError(f"{name} of image {example.id!r} has shape {array.shape}; expected {expected}, not empty")


def _are_points(points: Array | None) -> bool:
    return points is not None and points.ndim == 2 and points.shape[1] == 2


def _per_window(example: Example) -> Array | None:
    """The density as people per 64 x 64 px."""
    return None if example.density is None else example.density * (STORED_WINDOW / example.stride) ** 2


def _density_limit(examples: Sequence[Example]) -> float:
    """The end of the density's scale: 0 if no example has one, 1 if nothing is predicted anywhere."""
    cells = [cells[np.isfinite(cells)] for e in examples if (cells := _per_window(e)) is not None]
    every = np.concatenate(cells) if cells else np.zeros(0)
    return (float(np.quantile(every, 0.995)) or float(every.max()) or 1.0) if len(every) else 0.0


def _error_limit(examples: Sequence[Example]) -> float:
    """The end of the error's scale: 0 if no example has windows."""
    found = [np.nanmax(np.abs(e.window_error)) for e in examples if e.window_error is not None]
    return (float(max(found)) or 1.0) if found else 0.0


def _name(figure: Figure, example: Example, top: float, inches: float) -> None:
    """What a row is, beside it."""
    error = example.predicted - example.true
    lines = [*style.wrap(example.id, inches), f"true {example.true:d}", f"predicted {example.predicted:.1f}"]
    lines.append(f"error {error:+.1f}".replace("-", "−"))
    style.write_lines(figure, 0.02, top, [example.title], weight="bold")
    style.write_lines(figure, 0.02, top - LINE, lines)


def _frame(figure: Figure, left: float, bottom: float, width: float, height: float, example: Example) -> Axes:
    """Axes in pixels of the image, as large as its shape allows, in the middle of a place."""
    rows, columns = example.image.shape[:2]
    scale = min(width / columns, height / rows)
    left += (width - columns * scale) / 2
    bottom += height - rows * scale
    axes = style.place(figure, left, bottom, columns * scale, rows * scale, xlim=(0, columns), ylim=(rows, 0))
    axes.set_axis_off()
    return axes


def _extent(example: Example) -> tuple[float, float, float, float]:
    rows, columns = example.image.shape[:2]
    return (0, columns, rows, 0)


def _heads(axes: Axes, points: Array, color: str) -> None:
    """Dots as large as the crowd allows: 0.4 of the median distance to the nearest head, 1 to 4 pt."""
    if not len(points):
        return
    points_per_pixel = style.axes_width(axes) * 72 / (axes.get_xlim()[1] - axes.get_xlim()[0])
    distances = np.asarray(cKDTree(points).query(points, k=[2])[0])  # the first is the head itself
    near = float(np.median(distances))
    size = float(np.clip(0.4 * near * points_per_pixel, 1.0, 4.0))
    x, y = points.T
    axes.scatter(x, y, s=size**2, c=color, edgecolors=_ON_LIGHT, linewidths=0.12 * size, rasterized=True)


def _prediction(axes: Axes, example: Example, most: float) -> None:
    """The density, or the predicted heads on the faded picture."""
    cells = _per_window(example)
    if cells is not None:
        extent = (0, cells.shape[1] * example.stride, cells.shape[0] * example.stride, 0)
        axes.imshow(cells, extent=extent, cmap=_DENSITY, norm=PowerNorm(0.5, 0, most), interpolation="nearest")
    elif example.predicted_points is not None:
        grey = example.image.mean(axis=2, keepdims=True).repeat(3, axis=2)
        axes.imshow((80 + 0.4 * grey).astype(np.uint8), extent=_extent(example), interpolation="antialiased")
        _heads(axes, example.predicted_points, "#F0E442")
    else:
        _absent(axes, "no map was kept")
    axes.set(xlim=(0, example.image.shape[1]), ylim=(example.image.shape[0], 0))


def _windows(axes: Axes, example: Example, worst: float, scale: float) -> None:
    """The error of each window in colour; and as a number where windows are large enough, else its sign."""
    error = example.window_error
    if error is None:
        _absent(axes, "no windows were kept")
        return
    norm, side = _signed_roots(worst), STORED_WINDOW * scale
    rows, columns = (
        np.minimum(np.arange(count + 1) * STORED_WINDOW, length)
        for count, length in zip(error.shape, example.image.shape[:2], strict=True)
    )
    axes.pcolormesh(columns, rows, error, cmap=_ERROR, norm=norm, edgecolors=style.GRID, linewidth=0.2)
    for (i, j), value in np.ndenumerate(error):
        place = ((columns[j] + columns[j + 1]) / 2, (rows[i] + rows[i + 1]) / 2)
        color = _ON_DARK if abs(value) > 0.5 * worst else _ON_LIGHT
        text = f"{value:+.0f}".replace("-", "−") if abs(value) >= 0.5 else "0"
        fits = min(columns[j + 1] - columns[j], rows[i + 1] - rows[i]) * scale
        if side > 0.26 and fits > max(0.12, style.text_width(text)):
            axes.text(*place, text, size=SMALL, color=color, ha="center", va="center_baseline")
        elif abs(value) >= worst / 4:
            axes.plot(*place, marker="+" if value > 0 else "_", ms=min(4.0, side * 40), mew=0.7, color=color)


def _signed_roots(worst: float) -> FuncNorm:
    """A symmetric scale of square roots: as of the density, small values are told apart beside large ones."""
    return FuncNorm((lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda y: np.sign(y) * y**2), -worst, worst)


def _absent(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, size=SMALL, ha="center", va="center_baseline")


def _bar(figure: Figure, left: float, width: float, cmap: Colormap, norm: Normalize, title: str) -> None:
    """The scale of a column, below it."""
    axes = style.place(figure, left + 0.15, 0.37, width - 0.3, 0.07)
    edges = np.linspace(0, 1, 129)
    values = np.asarray(norm.inverse((edges[1:] + edges[:-1]) / 2), float)
    axes.pcolormesh(edges, [0, 1], values[None], cmap=cmap, norm=norm, rasterized=True)
    most = float(norm.inverse(1.0))
    ticks = np.unique([0.0, *(_round_down(share * most) for share in (0.12, 0.45, 1.0))])
    if norm.vmin:
        ticks = np.unique([*-ticks[[1, -1]], *ticks[[0, 1, -1]]])
    axes.xaxis.set(major_locator=FixedLocator(list(np.asarray(norm(ticks), float))))
    axes.xaxis.set_major_formatter(FixedFormatter([style.number(tick) for tick in ticks]))
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines[:].set_visible(False)
    axes.set_xlabel(title, size=SMALL)


def _round_down(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10 ** np.floor(np.log10(value))
    return float(max(step * power for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)))
