"""Scenes to explain losses on: few heads on a small picture, or a real image; and predictions made from the truth.

All parameters are ours and stand in the captions. Coordinates as in `losses.base`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from losses.discovery import check_known
from runners.data.reading import DataError, points_array, read_csv, read_image, read_json

__all__ = ["LONGEST", "PREDICTIONS", "SCENES", "Guess", "Scene", "guess", "real", "synthetic"]

Floats = NDArray[np.float64]

SIDE = 128
"""Side of a synthetic scene, pixels."""
SHORT_SIDE = 512
"""A synthetic scene is a cut-out of an image with this shorter side: BL's and NoiseCC's background reads it."""
LONGEST = 512
"""Longer side of a real image, pixels; larger ones are reduced, see `real`."""
SIGMA = 4.0
"""Standard deviation of a good prediction's kernels, pixels."""
WIDE = 12.0
"""Of a blurred one's."""
SHIFT = (8.0, 8.0)
"""How far a shifted one lies to the right and down, pixels."""
_UNIT = 2.0**-24
"""Masses are multiples of this, so that sums are exact: at the right count the slope of an absolute value is 0."""


class Scene(NamedTuple):
    """What is looked at.

    Attributes:
        name: Short.
        title: For captions.
        image: uint8 [H, W, 3].
        points: float64 [n, 2], heads as (x, y), pixels; n >= 1.
        stride: Pixels per density cell.
        short_side: Shorter side of the whole image at this scale, pixels.
        note: Of a real image, how it was cut, reduced, and what lies outside, empty if nothing was done to it; of a
            synthetic one, what it is a part of.
    """

    name: str
    title: str
    image: NDArray[np.uint8]
    points: Floats
    stride: int
    short_side: float
    note: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), pixels."""
        return int(self.image.shape[0]), int(self.image.shape[1])

    @property
    def cells(self) -> tuple[int, int]:
        """(h, w) density cells that cover the image."""
        return -(-self.size[0] // self.stride), -(-self.size[1] // self.stride)


class Guess(NamedTuple):
    """A prediction made from the truth.

    Attributes:
        name: Such as `under`.
        words: How it was made.
        density: float64 [h, w], people per cell.
        rounding: Largest difference of a cell from the same map before its masses were rounded, people; see `kernels`.
    """

    name: str
    words: str
    density: Floats
    rounding: float = 0.0


# ---------------------------------------------------------------------------------------------------------------------
# Synthetic scenes


def _ring() -> Floats:
    angle = 0.2 + 2 * np.pi * np.arange(8) / 8  # turned, so that no head lies on an axis
    return 64 + 38 * np.stack([np.cos(angle), np.sin(angle)], axis=1)


SCENES: dict[str, tuple[str, Callable[[], Floats]]] = {
    "three-heads": ("three heads far apart", lambda: np.array([[34.0, 38.0], [94.0, 44.0], [60.0, 94.0]])),
    "row": ("a queue of six heads, 16 pixels apart",
            lambda: np.array([[22.0, 76.0]]) + np.arange(6)[:, None] * np.array([16.0, -4.0])),
    "ring": ("eight heads in a ring", _ring),
    "overlap": ("two heads 8 pixels apart, nearer than their kernels are wide",
                lambda: np.array([[59.0, 65.0], [66.5, 68.0]])),
}  # fmt: skip
"""Names of the synthetic scenes, what they are, and their heads."""


def synthetic(name: str, stride: int = 4) -> Scene:
    """A scene of 128 x 128 pixels.

    Args:
        name: Of `SCENES`.
        stride: Pixels per cell, 1 to 32; default 4 (ours).

    Raises:
        ValueError: If there is no such scene, or the stride is out of range.
    """
    check_known("scene", name, SCENES)
    _check_stride(stride)
    title, heads = SCENES[name]
    points = heads()
    note = f"as if it were a crop of an image with a shorter side of {SHORT_SIDE} px (ours: BL and NoiseCC ask for it)"
    return Scene(name, title, _painted(points), points, stride, float(SHORT_SIDE), note)


def _painted(points: Floats) -> NDArray[np.uint8]:
    """Grey heads with shoulders on a light ground, drawn at four times the size; the far ones first."""
    from PIL import Image, ImageDraw

    scale = 4
    ground = Image.new("L", (SIDE * scale, SIDE * scale), 222)
    pen = ImageDraw.Draw(ground)
    for x, y in sorted(points.tolist(), key=lambda point: point[1]):
        for dx, dy, rx, ry, grey in ((0, 11, 8.5, 7.5, 150), (0, 0, 4.8, 5.6, 95)):
            box = np.array([x + dx - rx, y + dy - ry, x + dx + rx, y + dy + ry]) * scale
            pen.ellipse(box.tolist(), fill=grey, outline=190, width=scale // 2)
    small = ground.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.repeat(np.asarray(small)[..., None], 3, axis=2)


# ---------------------------------------------------------------------------------------------------------------------
# Real images


def real(path: Path, points: Path, *, crop: tuple[int, int, int, int] | None = None, stride: int = 4) -> Scene:
    """A stored image with its heads. Whatever is longer than 512 pixels is reduced to that (ours), with its heads.

    Args:
        path: The image.
        points: Its heads in pixels of the stored image: CSV with the columns `x,y` (rows of other images are left out
            where there is a column `image`), or JSON, `[[x, y], ...]` or `{"points": [[x, y], ...]}`.
        crop: (x, y, width, height) of a part, pixels of the stored image.
        stride: Pixels per cell.

    Raises:
        DataError: If a file cannot be read, or no head lies in what is shown.
        ValueError: If the crop does not lie in the image, or the stride is out of range.
    """
    _check_stride(stride)
    image, heads = read_image(path), _heads(points, path)
    height, width = image.shape[:2]
    left, top, across, down = crop or (0, 0, width, height)
    if min(left, top) < 0 or min(across, down) < 32 or left + across > width or top + down > height:
        raise ValueError(
            f"--crop {left} {top} {across} {down} (x y width height) must lie within {path}, {width} x {height} pixels,"
            " and be at least 32 x 32"
        )
    image, shown = image[top : top + down, left : left + across], heads - [left, top]
    inside = ((shown >= 0) & (shown < [across, down])).all(axis=1)
    if not inside.any():
        raise DataError(f"{points}: none of {len(heads)} heads lies in the part of {path} that is shown")
    notes = [] if crop is None else [f"part of {width} x {height} pixels, its corner at ({left}, {top})"]
    scale = min(1.0, LONGEST / max(across, down))
    if scale < 1:
        from runners.data.cache import resize_image

        image = resize_image(image, (round(down * scale), round(across * scale)))
        notes.append(
            f"reduced from {across} x {down} to {image.shape[1]} x {image.shape[0]} pixels: all px here are of the "
            "reduced image"
        )
    if not inside.all():
        notes.append(f"{len(heads) - int(inside.sum())} of {len(heads)} heads lie outside")
    place = np.array([image.shape[1] / across, image.shape[0] / down])
    short = min(height, width) * float(place.min())
    return Scene(path.stem, path.name, image, shown[inside] * place, stride, short, "; ".join(notes))


def _heads(path: Path, image: Path) -> Floats:
    """The points of a file."""
    if path.suffix.lower() == ".json":
        content: Any = read_json(path)
        content = content.get("points") if isinstance(content, dict) else content
        if not isinstance(content, list):
            raise DataError(f'{path}: expected [[x, y], ...] or {{"points": [[x, y], ...]}}')
        pairs = [_pair(item, f"{path}: point {number}") for number, item in enumerate(content, start=1)]
        return points_array(pairs, path)
    rows = read_csv(path)
    if not rows:
        raise DataError(f"{path}: expected the columns x and y, and a row a head; found no row")
    named = "image" in rows[0]
    pairs = [
        _pair([row["x"], row["y"]], f"{path}: row {number}, the header being row 1")
        for number, row in enumerate(rows, start=2)
        if (row["x"] or row["y"]) and (not named or Path(row["image"]).stem == image.stem)
    ]
    return points_array(pairs, path)


def _pair(values: Any, where: str) -> list[float]:
    """Two finite numbers, or an error that says where they are not."""
    if not isinstance(values, list) or len(values) != 2:
        found = f"{len(values)} values" if isinstance(values, list) else _brief(values)
        raise DataError(f"{where}: expected two numbers, x and y; found {found}")
    for name, value in zip("xy", values, strict=True):
        try:
            number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise DataError(f"{where}: {name} must be a finite number of pixels; found {_brief(value)}")
    return [float(value) for value in values]


def _brief(value: Any) -> str:
    """A value for an error: its first 40 characters; of a container its type only, as its text may be long."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__}"
    return repr(value[:40]) if isinstance(value, str) else str(value)[:40]


def _check_stride(stride: int) -> None:
    if not 1 <= stride <= 32:
        raise ValueError(f"--stride must be 1 to 32 pixels; found {stride}")


# ---------------------------------------------------------------------------------------------------------------------
# Predictions


def _right(scene: Scene, unit: float) -> Floats:
    return kernels(scene, scene.points, SIGMA, unit)


PREDICTIONS: dict[str, tuple[str, Callable[[Scene, float], Floats]]] = {
    "under": ("0.5 times the right one", lambda scene, unit: 0.5 * _right(scene, unit)),
    "right": (f"one person a head, Gaussians of {SIGMA:g} px", _right),
    "over": ("1.6 times the right one", lambda scene, unit: 1.6 * _right(scene, unit)),
    "blurred": (f"one person a head, Gaussians of {WIDE:g} px",
                lambda scene, unit: kernels(scene, scene.points, WIDE, unit)),
    "shifted": (f"the right one, {SHIFT[0]:g} px to the right and {SHIFT[1]:g} px down",
                lambda scene, unit: kernels(scene, scene.points + SHIFT, SIGMA, unit)),
}  # fmt: skip
"""Names of the predictions, how they are made, and their makers from a scene and the unit of masses."""


def guess(scene: Scene, name: str) -> Guess:
    """A prediction of a scene.

    Raises:
        ValueError: If there is no such prediction.
    """
    check_known("prediction", name, PREDICTIONS)
    words, make = PREDICTIONS[name]
    density = make(scene, _UNIT)
    return Guess(name, words, density, float(np.abs(density - make(scene, 0.0)).max()))


def kernels(scene: Scene, centres: Floats, sigma: float, unit: float = _UNIT) -> Floats:
    """A Gaussian of mass 1 around each centre, all of it within the image.

    Each mass of a kernel is a multiple of 2^-24, less than that from the Gaussian's own: sums over cells are then exact
    in float64, and a count that is right is exactly right.

    Args:
        scene: Gives cells and stride.
        centres: float64 [n, 2], (x, y), pixels; those outside the image are put on its edge.
        sigma: Pixels.
        unit: 2^-24, or 0 for masses that are not rounded.

    Returns:
        float64 [h, w], which sums to n.
    """
    from scipy.special import ndtr

    height, width = scene.size
    axes = []
    for place, side in ((centres[:, 1].clip(0, height), height), (centres[:, 0].clip(0, width), width)):
        edges = np.minimum(np.arange(-(-side // scene.stride) + 1) * scene.stride, side)
        axes.append(np.diff(ndtr((edges - place[:, None]) / sigma), axis=1))
    total = np.zeros(scene.cells)
    for rows, columns in zip(*axes, strict=True):
        mass = np.outer(rows, columns)
        mass /= mass.sum()
        total += _rounded(mass, unit) if unit else mass
    return total


def _rounded(mass: Floats, unit: float) -> Floats:
    """Masses that sum to 1 as multiples of a unit that do: rounded down, and up where most was lost."""
    units = np.floor(mass / unit)
    lost = mass / unit - units
    units.flat[np.argsort(-lost, axis=None, kind="stable")[: round(1 / unit - units.sum())]] += 1
    return units * unit
