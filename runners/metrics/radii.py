"""What annotated heads are, how near to them a prediction must be, and in which level they are counted.

The radius of a head is a number of pixels or comes from its box (NWPU-Crowd): sigma_s = min(w, h) / 2 and
sigma_l = sqrt(w^2 + h^2) / 2, not rounded; the official file states both as whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from losses.discovery import suggestion
from results.crowds import SCENE_BOUNDS

__all__ = ["BOX_BOUNDS", "Heads", "Radius", "box_levels", "parse_radii", "scene_level", "sized"]

BOX_BOUNDS = (10, 10**2, 10**3, 10**4, 10**5)
"""Box areas, px^2, that part the box levels A0 to A5 of NWPU-Crowd; an area at a bound is of the upper level (ours)."""
MOST_SWEPT = 1000
"""Radii of one range (ours)."""

_RADIUS = re.compile(r"(?P<value>\d+\.?\d*|\.\d+)(?P<unit>px|head)?")
_RANGE = re.compile(r"(?P<first>\d+):(?P<last>\d+)(px)?")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Heads(NamedTuple):
    """The annotation of one image.

    Attributes:
        points: float64 [n, 2], (x, y), pixels of the stored image.
        boxes: float64 [n, 4], x1, y1, x2, y2, pixels, NaN where unknown; None: no boxes.
        sigmas: float64 [n, 2], (sigma_s, sigma_l) as a file states them, pixels; None: from the boxes,
            min(w, h) / 2 and sqrt(w^2 + h^2) / 2.
        levels: int [n], box levels 0 to 5 as a file states them; None: from the boxes' areas, if there are boxes.
    """

    points: Floats
    boxes: Floats | None = None
    sigmas: Floats | None = None
    levels: Ints | None = None


class Radius(NamedTuple):
    """How near a prediction must be to stand for a head.

    Attributes:
        kind: `px`: pixels; `sigma_s`, `sigma_l`: of the head's box; `head`: the shorter side of its box (ours).
        value: Pixels, or the multiple of that length; 0.5 head is sigma_s.
    """

    kind: Literal["px", "sigma_s", "sigma_l", "head"]
    value: float = 1.0

    @property
    def name(self) -> str:
        """`8px`, `sigma_s`, `sigma_l`, `0.5head`: what `parse_radii` reads, and the ending of a row's columns."""
        return self.kind if self.kind.startswith("sigma") else f"{self.value:.12g}{self.kind}"

    def of(self, heads: Heads) -> Floats:
        """The radius of each head, float64 [n], pixels.

        Raises:
            ValueError: If it needs boxes, or sigmas, that the annotation lacks.
        """
        if self.kind == "px":
            return np.full(len(heads.points), float(self.value))
        sigmas = _sigmas(heads, self.name)
        if self.kind == "head":
            return 2 * self.value * sigmas[:, 0]
        return self.value * sigmas[:, 0 if self.kind == "sigma_s" else 1]


def parse_radii(texts: Iterable[str]) -> tuple[Radius, ...]:
    """Radii from words: `4` or `8px`, `sigma_s`, `sigma_l`, `0.5head`, `1:100` (each whole number of pixels).

    A radius that is named twice is taken once.

    Raises:
        ValueError: If a word is none of these, or there is no word.
    """
    found: dict[str, Radius] = {}
    for text in texts:
        for radius in _parsed(text.strip()):
            found.setdefault(radius.name, radius)
    if not found:
        raise ValueError("no radius is given; for example 4 8 sigma_l 0.5head 1:100")
    return tuple(found.values())


def _parsed(text: str) -> list[Radius]:
    if text in ("sigma_s", "sigma_l"):
        return [Radius(text)]  # type: ignore[arg-type]
    if whole := _RANGE.fullmatch(text):
        first, last = int(whole["first"]), int(whole["last"])
        if not 1 <= first <= last < first + MOST_SWEPT:
            raise ValueError(
                f"a range of radii runs upwards from 1 or more, over at most {MOST_SWEPT} values; found {text!r}"
            )
        return [Radius("px", float(value)) for value in range(first, last + 1)]
    one = _RADIUS.fullmatch(text)
    if one is None:
        hint = suggestion(text, ("sigma_s", "sigma_l", "8px", "0.5head", "1:100"))
        raise ValueError(
            f"{text!r} is no radius.{hint} Expected pixels (8 or 8px), sigma_s, sigma_l, "
            "a share of the head's size (0.5head), or a range of pixels (1:100)"
        )
    value = float(one["value"])
    if not 0 < value < np.inf:
        raise ValueError(f"a radius must be above 0; found {text!r}")
    return [Radius(one["unit"] or "px", value)]  # type: ignore[arg-type]


def box_levels(heads: Heads) -> Ints | None:
    """Box levels 0 to 5 (A0 to A5): as stated, else from the boxes' areas (`BOX_BOUNDS`); -1 where a box is unknown."""
    if heads.levels is not None:
        return np.asarray(heads.levels, np.int64)
    if heads.boxes is None:
        return None
    sides = heads.boxes[:, 2:] - heads.boxes[:, :2]
    areas = np.abs(sides[:, 0] * sides[:, 1])
    return np.where(np.isfinite(areas), np.digitize(areas, BOX_BOUNDS), -1)


def scene_level(people: ArrayLike) -> Ints:
    """Scene levels 0 to 4 (S0 to S4) of images with these numbers of people (`SCENE_BOUNDS`)."""
    return np.digitize(np.asarray(people), SCENE_BOUNDS, right=True)


def sized(heads: Heads) -> bool:
    """Whether sigma_s and sigma_l of every head are known; so of an image without people."""
    found = _stated(heads)
    return not len(heads.points) or (
        found is not None and len(found) == len(heads.points) and bool(np.isfinite(found).all())
    )


def _stated(heads: Heads) -> Floats | None:
    """(sigma_s, sigma_l), float64 [n, 2], as stated or from the boxes, NaN where unknown; None without both."""
    if heads.sigmas is not None:
        return np.asarray(heads.sigmas, np.float64).reshape(-1, 2)
    if heads.boxes is None:
        return None
    sides = np.abs(heads.boxes[:, 2:] - heads.boxes[:, :2])
    return np.stack([sides.min(axis=1), np.sqrt((sides**2).sum(axis=1))], axis=1) / 2


def _sigmas(heads: Heads, name: str) -> Floats:
    """(sigma_s, sigma_l) of each head, float64 [n, 2]."""
    found = _stated(heads)
    if found is None and not len(heads.points):
        return np.zeros((0, 2))
    if found is None:
        raise ValueError(
            f"the radius {name} needs the heads' boxes, and the annotation has none; give pixels, such as 8px"
        )
    unknown = int((~np.isfinite(found)).any(axis=1).sum())
    if unknown or len(found) != len(heads.points):
        raise ValueError(
            f"the radius {name} needs the box of every head; {len(heads.points)} heads have {len(found) - unknown} "
            "known boxes; give pixels, such as 8px"
        )
    return found
