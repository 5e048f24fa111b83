"""What a localizer is: from what a network says of an image to points with scores.

A localizer is one file, `runners/localizers/<name>.py`, with one subclass of `Localizer`; `<name>` is its name on the
command line and in every record. Modules that begin with an underscore, and this one, are no localizers.

Coordinates are (x, y) in pixels of the network's input, origin at the image's corner: the centre of cell (r, c) at
stride s is x = (c + 0.5) s, y = (r + 0.5) s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Field", "Localizer", "Located", "NoThresholdError"]


class NoThresholdError(ValueError):
    """Points were asked of a localizer whose threshold was neither given nor published."""


class Field(NamedTuple):
    """What a network says of one image: either a density or proposals.

    Attributes:
        stride: Pixels per cell.
        size: (H, W) of the image without its padding, pixels. Cells and proposals beyond it are no part of the image.
        density: float [h, w], people per cell, at least 0; None for a point loss.
        points: float64 [q, 2], all proposals as (x, y), pixels; None for a density.
        scores: float64 [q], probability that a proposal is a person; None for a density.
    """

    stride: int
    size: tuple[int, int]
    density: NDArray[np.floating] | None = None
    points: NDArray[np.float64] | None = None
    scores: NDArray[np.float64] | None = None


class Located(NamedTuple):
    """Points that a localizer found, the surest first; equal scores in the order of rows, then columns.

    Attributes:
        points: float64 [m, 2] as (x, y), pixels of the network's input, inside the image: 0 <= x <= W, 0 <= y <= H.
        scores: float64 [m], decreasing. Comparable within one localizer only.
    """

    points: NDArray[np.float64]
    scores: NDArray[np.float64]


class Localizer(ABC):
    """Base of every localizer.

    `candidates` gives all points with their scores; calling the localizer keeps those of at least `threshold`. So one
    pass over an image serves every threshold, and one rule (`score >= threshold`) serves all localizers.

    Args:
        threshold: Least score of a point. None (default): chosen on the validation split where runs are scored, since
            one fixed threshold would favour the losses that it happens to fit; elsewhere `published`.
    """

    reads: ClassVar[Literal["density", "points"]] = "density"
    reference: ClassVar[str]
    """Paper, and what is ours."""
    version: ClassVar[int] = 1
    """Raised when the same input would give other points; part of a score's identity."""
    chooses: ClassVar[bool] = True
    """Whether a threshold on the score decides how many points there are. OT-M has as many as the density's sum."""
    published: ClassVar[float | None] = None
    """The threshold that its authors give, if they give one."""

    def __init__(self, *, threshold: float | None = None) -> None:
        if threshold is not None and not self.chooses:
            raise ValueError(f"{type(self).__name__} has no threshold: its number of points is the density's sum")
        if threshold is not None and not np.isfinite(threshold):
            raise ValueError(f"threshold must be a finite number; found {threshold!r}")
        self.threshold = threshold

    @abstractmethod
    def candidates(self, field: Field) -> Located:
        """All points of an image, whatever the threshold.

        Raises:
            ValueError: If the field has not what `reads` names, another shape, or NaN, infinite or negative values.
        """

    def __call__(self, field: Field) -> Located:
        """The points of an image: the candidates of at least the threshold.

        Raises:
            NoThresholdError: If there is no threshold, neither given nor published.
            ValueError: See `candidates`.
        """
        found = self.candidates(field)
        if not self.chooses:
            return found
        threshold = self.published if self.threshold is None else self.threshold
        if threshold is None:
            raise NoThresholdError(
                f"{type(self).__name__} has no threshold of its own here; give one, threshold=..., or score the run "
                "with `benchmark run --localizers`, which chooses it on val"
            )
        return at_least(found, threshold)


def at_least(found: Located, threshold: float) -> Located:
    """The points with a score of at least `threshold`, both as float32.

    Scores are kept as float32, and thresholds chosen among them: the very point that decided must not be lost.
    """
    count = int(np.searchsorted(-found.scores.astype(np.float32), -np.float32(threshold), side="right"))
    return Located(found.points[:count], found.scores[:count])


def density_of(field: Field) -> NDArray[np.float64]:
    """The checked density of a field, float64 [h, w], without the cells that lie wholly in the padding.

    Raises:
        ValueError: If there is none, or it has another shape, NaN, infinite or negative values.
    """
    if field.density is None:
        raise ValueError("this localizer reads a density; the network gives proposals: use the localizer proposals")
    found = np.asarray(field.density)
    _check_frame(field)
    if found.ndim != 2:
        raise ValueError(f"a density must have the shape [h, w]; found {list(found.shape)}")
    rows, columns = (-(-side // field.stride) for side in field.size)
    if found.shape[0] < rows or found.shape[1] < columns:
        raise ValueError(
            f"an image of {field.size[0]} x {field.size[1]} pixels at stride {field.stride} needs a density of "
            f"at least {rows} x {columns} cells; found {found.shape[0]} x {found.shape[1]}"
        )
    inside = found[:rows, :columns].astype(np.float64)
    _check_values("density", inside)
    return inside


def proposals_of(field: Field) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The checked proposals of a field inside the image: points [q, 2] and scores [q].

    Raises:
        ValueError: If there are none, or they have another shape, NaN or infinite values.
    """
    if field.points is None or field.scores is None:
        raise ValueError("this localizer reads proposals; the network gives a density: use the localizers lm or otm")
    _check_frame(field)
    points, scores = np.asarray(field.points, np.float64), np.asarray(field.scores, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or scores.shape != points.shape[:1]:
        raise ValueError(
            f"proposals must be points [q, 2] and scores [q]; found {list(points.shape)} and {list(scores.shape)}"
        )
    if not (np.isfinite(points).all() and np.isfinite(scores).all()):
        raise ValueError("the proposals have NaN or infinite values")
    height, width = field.size
    inside = ((points >= 0) & (points <= (width, height))).all(axis=1)
    return points[inside], scores[inside]


def ordered(points: NDArray[np.float64], scores: NDArray[np.float64]) -> Located:
    """The points by decreasing score; equal scores by y, then x."""
    order = np.lexsort((points[:, 0], points[:, 1], -scores))
    return Located(points[order], scores[order])


def _check_frame(field: Field) -> None:
    if field.stride < 1 or min(field.size) < 1:
        raise ValueError(f"stride and size must be at least 1; found stride {field.stride}, size {field.size}")


def _check_values(what: str, values: NDArray[np.float64]) -> None:
    wrong = int(np.sum(~np.isfinite(values)))
    if wrong:
        raise ValueError(f"the {what} has {wrong} NaN or infinite values")
    if values.size and values.min() < 0:
        raise ValueError(f"the {what} has negative values; the least is {values.min():.3g}, expected at least 0")
