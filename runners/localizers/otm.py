"""OT-M: points that minimise the transport cost from a density (Lin and Chan, CVPR 2023)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from losses.base import VARIANTS, check_choice, check_number
from runners.localizers._draw import drawn_pixels
from runners.localizers._exact import Agreement, agreement
from runners.localizers._transport import Cells, Transport, cells_in_blocks, transport
from runners.localizers.base import Field, Localizer, Located, density_of, ordered
from runners.metrics.counting import overlaps

__all__ = ["OTM", "OTMResult", "exact_gap", "otm"]

Array = NDArray[np.float64]

MOST = 50_000
"""People of one image (ours), above any annotated one. More is a density that has diverged.

It is no parameter of `OTM`: it changes no result, and parameters name what was measured.
"""
LEAST = 1e-12
"""Cells up to this are empty [code]; it is also added to the columns' masses [code]."""


class OTMResult(NamedTuple):
    """What `otm` found.

    Attributes:
        points: [n, 2] as (x, y), pixels, in the order of the initial points.
        scores: [n], 1 / (1 + mean cost of the point's mass), in (0, 1]; see `OTM`.
        iterations: Rounds done.
        last_move: Mean and largest distance that points moved in the last round, pixels.
        initial: [n, 2], the initial points.
    """

    points: Array
    scores: Array
    iterations: int
    last_move: tuple[float, float]
    initial: Array


class OTM(Localizer):
    """As many points as the density's sum, placed so that transport from the density to them costs little.

    With n = floor(sum a + 0.5), the density a scaled to the sum n, and the cost C_ij = |x_i - y_j|^2 / (2 v) between
    cell centres x_i and points y_j, it alternates

    - a plan P: entropic transport between a and a unit of mass at each point, eps falling from the largest cost (at
      least 8) by the factor `scaling` to `blur` (`runners.localizers._transport`), and
    - y_j <- sum_i P_ij x_i / sum_i P_ij,

    until points move less than 1 px on average and none as far as a cell, or for `rounds` rounds. The initial points
    are pixels drawn without replacement with probability ~ the density upsampled bilinearly.

    One step per eps does not converge: the plan is not the optimum. At the final points of synthetic crowds (16^2 to
    64^2 cells of 8 px, 20 to 1000 people) its barycentres lie 1.2 to 2.8 px on average, at most 5 to 23 px, from those
    of the exact plan (POT's `ot.emd`), columns have 5 to 9 % too much or too little mass, and the cost is 19 to 33 %
    below the least cost of a plan that meets all masses. With scaling=0.99 these become 0.8 to 1.3 px, at most 4 to 9
    px, 1.4 to 1.9 % and 9 to 12 % (`exact_gap` measures it).

    Scores (ours): with m_j the mean of |x - y_j|^2 / (2 v) over the mass that a point received, 1 / (1 + m_j): 1 where
    all of it lies in one cell, 1/2 where its root mean square distance is sqrt(2 v) = 8 px. They order the points for
    average precision; they do not choose any.

    variant "official" is the released code but for its random numbers; "paper", the default, differs from it so (ours):

    - Initial points lie anywhere within the drawn pixels, uniformly; the code takes their corners, half a pixel off.
      That shift hardly matters, the lattice does: two points that begin in one blob, side by side as seen from another,
      stay side by side in exact arithmetic, halfway between the two.
    - At stride 1 cells keep their centres; the code has whole numbers there, without the half pixel (and stops with a
      type error, which "official" passes over).
    - Only mass inside the image counts: a cell that straddles its border counts by the share of its area, and only
      pixels inside are drawn. The code knows no padding.
    - A point's new place is divided by its mass, not by its mass + 1e-12; without any mass it stays where it was.

    In both the draw comes from `seed`, and it is with replacement when n exceeds the pixels with positive density
    (ours). Points are clipped into the image (ours).

    Args:
        variant: "paper" or "official".
        seed: Of the initial draw; 0 (ours; the code is not seeded).
        rounds: Most rounds; 16 [code].
        blur: Last eps, in units of the cost; 0.01 [code].
        variance: v, pixels^2; 32 [code].
        scaling: Factor from eps to eps; 0.75 [code].

    Raises:
        ValueError: If a parameter is out of range; from calls, if the density is missing, has another shape or values
            that are NaN, infinite or negative, or stands for more than `MOST` people.
        TypeError: If a parameter is of another type.
    """

    reads = "density"
    reference = (
        "Lin and Chan: Optimal transport minimization: crowd localization on density maps, CVPR 2023; scores ours"
    )
    chooses = False

    def __init__(
        self,
        *,
        variant: str = "paper",
        seed: int = 0,
        rounds: int = 16,
        blur: float = 0.01,
        variance: float = 32.0,
        scaling: float = 0.75,
        threshold: None = None,
    ) -> None:
        super().__init__(threshold=threshold)
        _check(variant, seed, rounds, blur, variance, scaling)
        self.variant, self.seed, self.rounds = variant, seed, rounds
        self.blur, self.variance, self.scaling = blur, variance, scaling

    def candidates(self, field: Field) -> Located:
        """All points of the density, as many as its sum.

        Raises:
            ValueError: See the class.
        """
        density = density_of(field)
        found = otm(
            density,
            field.stride,
            size=field.size,
            variant=self.variant,
            seed=self.seed,
            rounds=self.rounds,
            blur=self.blur,
            variance=self.variance,
            scaling=self.scaling,
        )
        height, width = field.size
        return ordered(found.points.clip(0, (width, height)), found.scores)


def otm(
    density: NDArray[np.floating],
    stride: int,
    *,
    size: tuple[int, int] | None = None,
    init: NDArray[np.floating] | None = None,
    variant: str = "paper",
    seed: int = 0,
    rounds: int = 16,
    blur: float = 0.01,
    variance: float = 32.0,
    scaling: float = 0.75,
) -> OTMResult:
    """The algorithm of `OTM` on one density, with the initial points if wanted.

    Args:
        density: [h, w], people per cell, at least 0.
        stride: Pixels per cell.
        size: (H, W) of the image, pixels; None: all cells, (h stride, w stride).
        init: [n, 2] initial points as (x, y), n the rounded sum; None: drawn.
        variant: See `OTM`, as all others.
        seed: Of the draw.
        rounds: Most rounds.
        blur: Last eps.
        variance: v, pixels^2.
        scaling: Factor from eps to eps.

    Raises:
        ValueError: As `OTM`, or if `init` has another shape than [n, 2] or is not finite.
    """
    _check(variant, seed, rounds, blur, variance, scaling)
    if size is None:
        height, width = np.shape(density) if np.ndim(density) == 2 else (1, 1)
        size = (height * stride, width * stride)
    checked = density_of(Field(stride, size, density))
    official = variant == "official"
    inside = checked if official else checked * _shares(checked, stride, size)
    count = _people(inside)
    if init is None and count:
        init = _initial(checked, stride, size, count, seed, official=official)
    points = _checked_points(init, count)
    if not count:
        return OTMResult(points, np.empty(0), 0, (0.0, 0.0), points)
    offset = 0.0 if official and stride == 1 else 0.5
    cells = _cells(inside, stride, count, offset)
    started, done, move, spread = points, 0, np.zeros(1), np.zeros(1)
    while done < rounds and not (done and move.mean() < 1 and move.max() < stride):
        solved = transport(cells, points, variance=variance, blur=blur, scaling=scaling)
        new, spread = _moved(solved, points, variance, extra=LEAST if official else 0.0)
        move = np.sqrt(((new - points) ** 2).sum(axis=1))
        points, done = new, done + 1
    return OTMResult(points, 1 / (1 + spread), done, (float(move.mean()), float(move.max())), started)


def exact_gap(
    density: NDArray[np.floating],
    stride: int,
    points: NDArray[np.floating],
    *,
    blur: float = 0.01,
    variance: float = 32.0,
    scaling: float = 0.75,
) -> Agreement:
    """How far one transport step from given points is from the exact plan, which POT's network simplex gives.

    Args:
        density: [h, w], people per cell; scaled to as many people as there are points.
        stride: Pixels per cell.
        points: [n, 2] as (x, y), such as `OTMResult.points`. The exact solver's matrix has an entry a point and cell.
        blur: As `OTM`, like what follows.
        variance: v, pixels^2.
        scaling: Factor from eps to eps.

    Raises:
        ValueError: If the density is none, or there is no point, or one is not finite.
    """
    if np.ndim(density) != 2 or not np.size(density):
        raise ValueError(f"a density must have the shape [h, w]; found {list(np.shape(density))}")
    size = (np.shape(density)[0] * stride, np.shape(density)[1] * stride)
    checked, count = density_of(Field(stride, size, density)), len(points)
    if not count or not checked.sum() > 0:
        raise ValueError(f"nothing to transport: {count} points, a density that sums to {checked.sum():.3g}")
    cells = _cells(checked, stride, count, 0.5)
    return agreement(cells, _checked_points(points, count), blur=blur, variance=variance, scaling=scaling)


def _people(inside: Array) -> int:
    """The sum of the density as a whole number, within bounds."""
    with np.errstate(over="ignore"):
        total = float(inside.sum())
    if not total + 0.5 < MOST + 1:
        raise ValueError(
            f"the density's sum is {total:.6g} people, and OT-M places at most {MOST} in one image; has the model "
            "diverged? Split an image that really has more, or take another localizer"
        )
    return int(total + 0.5)


def _moved(solved: Transport, points: Array, variance: float, extra: float) -> tuple[Array, Array]:
    """The barycentre of each column, and the mean cost between it and the column's mass."""
    mass, place, cost = solved.moments
    some = mass > 0
    safe = np.where(some, mass, 1.0)[:, None]
    new = np.where(some[:, None], place / (safe + extra), points)
    square = ((place / safe - points) ** 2).sum(axis=1)
    spread = np.where(some, np.maximum(cost / safe[:, 0] - square / (2 * variance), 0.0), cost.max())
    return new, spread


def _cells(density: Array, stride: int, count: int, offset: float) -> Cells:
    rows, columns = np.nonzero(density > LEAST)
    mass = density[rows, columns]
    centres = (np.stack([columns, rows], axis=1).astype(np.float64) + offset) * stride
    return cells_in_blocks(rows, columns, centres, mass / mass.sum() * count, count)


def _shares(density: Array, stride: int, size: tuple[int, int]) -> Array:
    """Share of each cell that lies inside the image."""
    rows, columns = (
        overlaps(cells, stride, np.array([0.0, side]))[0] for cells, side in zip(density.shape, size, strict=True)
    )
    return np.outer(rows, columns)


def _initial(density: Array, stride: int, size: tuple[int, int], count: int, seed: int, *, official: bool) -> Array:
    generator = np.random.default_rng(seed)
    if official:
        size = (density.shape[0] * stride, density.shape[1] * stride)
    pixels = drawn_pixels(density, stride, size, count, generator)
    return pixels.astype(np.float64) if official else pixels + generator.random(pixels.shape)


def _checked_points(init: NDArray[np.floating] | None, count: int) -> Array:
    points = np.empty((0, 2)) if init is None else np.array(init, np.float64)
    if points.shape != (count, 2):
        raise ValueError(f"the density's sum rounds to {count}, so init must be [{count}, 2]; found {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("init has NaN or infinite values")
    return points


def _check(variant: str, seed: int, rounds: int, blur: float, variance: float, scaling: float) -> None:
    check_choice("variant", variant, VARIANTS)
    check_number("blur", blur, above=0)
    check_number("variance", variance, above=0)
    check_number("scaling", scaling, above=0)
    if scaling >= 1:
        raise ValueError(f"scaling must be below 1; found {scaling}")
    for name, value, least in (("seed", seed, 0), ("rounds", rounds, 1)):
        check_number(name, value, at_least=least)
        if value != int(value):
            raise ValueError(f"{name} must be a whole number; found {value}")
