"""Pictures of predictions: the image, its density as colour, its points as rings, the count in a corner."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Drawing", "PerArea", "draw", "nice", "per_area", "top_of"]

Pixels = NDArray[np.uint8]

_COLOURS = "inferno"
"""A colour map whose steps look equally large, and whose lightness rises: it can be read without seeing colours."""
_OPAQUE = 0.88
_KNEE = 0.12
"""Share of the scale at which the density covers the image halfway to `_OPAQUE`."""
_BLUR = 1 / 160
"""Standard deviation of the smoothing of the density, of the picture's longer side: peaks become visible."""
_RING = (0, 229, 255)
_DIMMED = 0.72
_MASS = 0.95
"""The colours end where this share of the people is reached, so that one dense corner does not darken the rest."""
_AREA = 100
"""The density is told in people per square of this side, pixels of the image file."""


class PerArea(NamedTuple):
    """A density to draw.

    Attributes:
        values: float32 [h, w], people per 100 x 100 pixels of the image file, smoothed, by cell.
        cell: Height and width of a cell, pixels of the image file. The last cells may reach beyond the image.
    """

    values: NDArray[np.float32]
    cell: tuple[float, float]


class Drawing(NamedTuple):
    """What is drawn on an image.

    Attributes:
        lines: Text of the corner, the first line large.
        density: The density, or None.
        points: float64 [m, 2] as (x, y), pixels of the image file, or None.
    """

    lines: tuple[str, ...]
    density: PerArea | None = None
    points: NDArray[np.float64] | None = None


def per_area(density: NDArray[np.floating], stride: int, scale: tuple[float, float], size: tuple[int, int]) -> PerArea:
    """A density in people per 100 x 100 pixels of the image file, smoothed for the eye.

    The smoothing is Gaussian, of a standard deviation of 1/160 of the image's longer side (ours), and keeps the sum
    but for what leaves the image.

    Args:
        density: float [h, w], people per cell.
        stride: Pixels of the prepared image per cell.
        scale: Prepared over stored width, and prepared over stored height.
        size: (H, W) of the image file, pixels.
    """
    from scipy.ndimage import gaussian_filter

    cell = stride / scale[1], stride / scale[0]
    values = density.astype(np.float32) * np.float32(_AREA**2 / (cell[0] * cell[1]))
    sigma = max(size) * _BLUR
    return PerArea(gaussian_filter(values, [sigma / side for side in cell], mode="nearest", truncate=3.0), cell)


def nice(value: float) -> float:
    """The least of 1, 2, 3, 4, 5, 6, 8, 10, 20, ... (and 0.8, ...) that is at least `value`; 1 if that is 0."""
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


def top_of(density: PerArea) -> float:
    """Where the colours end: 95 % of the people stand at most as dense, rounded up by `nice`."""
    levels = np.sort(density.values, axis=None)[::-1]
    mass = np.cumsum(levels, dtype=np.float64)
    if not mass.size or not mass[-1] > 0:
        return 1.0
    return nice(float(levels[np.searchsorted(mass, (1 - _MASS) * mass[-1])]))


def draw(image: Pixels, drawing: Drawing, *, longest: int | None = 2000, top: float | None = None) -> Pixels:
    """Draws a prediction on its image.

    Args:
        image: RGB, uint8 [H, W, 3], as it is stored.
        drawing: What is drawn.
        longest: Longer side of the picture, pixels: larger images are shrunk. None: never.
        top: People per 100 x 100 pixels at the colours' end; None: as the density itself has it, see `top_of`.

    Returns:
        RGB, uint8 [H', W', 3].
    """
    height, width = image.shape[:2]
    factor = 1.0 if longest is None else min(1.0, longest / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    picture = Image.fromarray(image)
    if size != (height, width):
        picture = picture.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(picture)
    if drawing.density is not None:
        if top is None:
            top = top_of(drawing.density)
        pixels = _coloured(pixels, drawing.density, (height, width), top)
    if drawing.points is not None and len(drawing.points):
        pixels = _ringed(pixels, drawing.points * (size[1] / width, size[0] / height))
    canvas = Image.fromarray(pixels)
    unit = max(10.0, min(max(size) / 38, min(size) / 16))
    taken = _corner(canvas, drawing.lines, unit)
    if drawing.density is not None and top is not None:
        _legend(canvas, top, bool(drawing.density.values.max(initial=0.0) > top), unit, taken)
    return np.asarray(canvas)


# ---------------------------------------------------------------------------------------------------------------------
# Density and points


@cache
def _table() -> NDArray[np.float32]:
    """The colours by 256 steps, [256, 3], 0 to 255."""
    from matplotlib import colormaps

    return (255 * colormaps[_COLOURS](np.linspace(0.15, 1.0, 256))[:, :3]).astype(np.float32)


@cache
def _mix() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """By level: what the colour adds, [256, 3], and the share of the image that stays, [256]."""
    level = np.linspace(0.0, 1.0, 256)
    alpha = _OPAQUE * level / (level + _KNEE) * (1 + _KNEE)
    return (_table() * alpha[:, None]).astype(np.float32), (1 - alpha).astype(np.float32)


def _coloured(pixels: Pixels, density: PerArea, size: tuple[int, int], top: float) -> Pixels:
    """The image, dimmed and half grey, under the density's colours."""
    rows, columns = (side / cell for side, cell in zip(size, density.cell, strict=True))
    box = 0.0, 0.0, min(columns, density.values.shape[1]), min(rows, density.values.shape[0])
    level = np.clip(density.values * (255 / top), 0, 255).astype(np.float32)
    shown = Image.fromarray(level).resize(pixels.shape[1::-1], Image.Resampling.BICUBIC, box=box)
    index = np.clip(np.asarray(shown) + 0.5, 0, 255).astype(np.uint8)
    colour, stays = _mix()
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    share = stays[index] * (_DIMMED / 2)
    out = np.empty_like(pixels)
    for channel in range(3):  # one after the other: a third of the memory
        out[..., channel] = (pixels[..., channel] + grey) * share + colour[index, channel]
    return out


def _ringed(pixels: Pixels, points: NDArray[np.float64]) -> Pixels:
    """Rings around points, bright on a dark halo; smaller where people stand close."""
    long = max(pixels.shape[:2])
    width = max(1.4, long / 640)
    inner, halo = np.zeros(pixels.shape[:2], np.float32), np.zeros(pixels.shape[:2], np.float32)
    for (x, y), radius in zip(points, _radii(points, long), strict=True):
        reach = radius + 2 * width + 1
        left, above = max(0, int(x - reach)), max(0, int(y - reach))
        window = np.s_[above : max(0, int(y + reach) + 2), left : max(0, int(x + reach) + 2)]
        shape = inner[window].shape
        across, down = np.arange(shape[1]) + (left + 0.5 - x), np.arange(shape[0]) + (above + 0.5 - y)
        off = np.abs(np.sqrt(across**2 + down[:, None] ** 2) - radius)
        for mask, half in ((inner, width / 2), (halo, width)):
            np.maximum(mask[window], np.clip(half + 0.5 - off, 0, 1), out=mask[window], casting="same_kind")
    dark = pixels * (1 - 0.6 * halo[..., None])
    ringed: Pixels = (dark + inner[..., None] * (np.array(_RING, np.float32) - dark)).astype(np.uint8)
    return ringed


def _radii(points: NDArray[np.float64], long: int) -> NDArray[np.float64]:
    """Radius of each ring: 0.4 of the distance to the nearest other point, between 1/400 and 1/110 of the picture."""
    from scipy.spatial import KDTree

    least, most = max(2.0, long / 400), max(3.0, long / 110)
    if len(points) < 2:
        return np.full(len(points), most)
    nearest: NDArray[np.float64] = np.asarray(KDTree(points).query(points, 2)[0])[:, 1]
    return np.clip(0.4 * nearest, least, most)


# ---------------------------------------------------------------------------------------------------------------------
# Text


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib, by pixels."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _panel(canvas: Image.Image, box: tuple[float, float, float, float], unit: float) -> None:
    """Darkens a box with round corners."""
    left, above, right, below = (round(side) for side in box)
    if right <= left or below <= above:
        return
    mask = Image.new("L", (right - left, below - above), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, right - left - 1, below - above - 1), round(unit * 0.35), fill=165)
    canvas.paste((14, 14, 20), (left, above), mask)


def _corner(canvas: Image.Image, lines: tuple[str, ...], unit: float) -> tuple[float, float]:
    """The text, at the bottom left: crowds are dense at the top, where they are far. Small where the picture is.

    Returns:
        The right and the upper end of what it takes.
    """
    if not lines:
        return 0.0, float(canvas.height)
    wanted = max(_line_width(text, first, unit) for first, text in _numbered(lines))
    unit *= min(1.0, canvas.width / max(1.0, wanted + 2.1 * unit), canvas.height / (4.3 * unit))
    pad, heights = 0.55 * unit, [(1.75 if first else 1.15) * unit for first, _ in _numbered(lines)]
    wide = 2 * pad + max(_line_width(text, first, unit) for first, text in _numbered(lines))
    y = above = canvas.height - 0.5 * unit - 2 * pad - sum(heights)
    _panel(canvas, (0.5 * unit, y, 0.5 * unit + wide, canvas.height - 0.5 * unit), unit)
    pen = ImageDraw.Draw(canvas)
    y += pad
    for (first, text), height in zip(_numbered(lines), heights, strict=True):
        pen.text((0.5 * unit + pad, y + height / 2), text, fill="white", font=_line_font(first, unit), anchor="lm")
        y += height
    return 0.5 * unit + wide, above


def _numbered(lines: tuple[str, ...]) -> list[tuple[bool, str]]:
    """Each line with whether it is the first."""
    return [(number == 0, text) for number, text in enumerate(lines)]


def _line_font(first: bool, unit: float) -> ImageFont.FreeTypeFont:
    return _font(max(5, round((1.5 if first else 0.8) * unit)), first)


def _line_width(text: str, first: bool, unit: float) -> float:
    return float(_line_font(first, unit).getlength(text))


def _legend(canvas: Image.Image, top: float, beyond: bool, unit: float, taken: tuple[float, float]) -> None:
    """The colours with their numbers, at the bottom right beside the text, else above it; not in tiny pictures."""
    width, pad, thick = 9 * unit, 0.55 * unit, 0.6 * unit
    high = 2 * pad + 2.3 * unit + thick
    left, above = canvas.width - 0.5 * unit - width - 2 * pad, canvas.height - 0.5 * unit - high
    if left < taken[0] + 0.5 * unit:
        above = taken[1] - 0.5 * unit - high
    if left < 0 or above < 0:
        return
    _panel(canvas, (left, above, left + width + 2 * pad, above + high), unit)
    pen, font = ImageDraw.Draw(canvas), _font(round(0.75 * unit), False)
    pen.text((left + pad, above + pad), f"people per {_AREA}×{_AREA} px", fill="white", font=font, anchor="lt")
    start, low = round(left + pad), round(above + pad + 1.1 * unit)
    levels = np.round(np.linspace(0, 255, round(width))).astype(np.uint8)
    colour, stays = _mix()
    bar = colour[levels] + stays[levels, None] * np.array([60.0])  # over a dark grey, as over the dimmed image
    strip = np.repeat(np.clip(bar, 0, 255).astype(np.uint8)[None], max(1, round(thick)), axis=0)
    canvas.paste(Image.fromarray(strip), (start, low))
    for share, anchor in ((0.0, "lt"), (0.5, "mt"), (1.0, "rt")):
        text = f"{'≥ ' if beyond and share == 1 else ''}{share * top:g}"
        pen.text((start + share * width, low + thick + 0.3 * unit), text, fill="white", font=font, anchor=anchor)
