"""What a transport problem between points and the cells of a density map is made of."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from losses.geometry import cell_axis

__all__ = ["FLOOR", "PLAN_FLOOR", "DistanceCost", "Potentials", "epsilon_schedule", "squared_distance"]

FLOOR = 1e-16
"""What DM-Count's code adds to both denominators and to the argument of the logarithm [code]."""
PLAN_FLOOR = 1e-20
"""What GL's code adds to its plan before it takes the logarithm [code]."""


class Potentials(NamedTuple):
    """The dual solution of a transport problem: f of shape (n,) over points, g of shape (m,) over cells."""

    f: Tensor
    g: Tensor


class DistanceCost(NamedTuple):
    """exp(min(r / z, most)) - 1 of a pair at distance r, with z = max(slope * (y_i + y_j) + offset, least)."""

    slope: float
    offset: float
    least: float
    most: float


def squared_distance(points: Tensor, cells: tuple[int, int], stride: int) -> Tensor:
    """|x_j - p_i|^2 between points (n, 2) and the centres of h x w cells, pixels^2, shape (n, h * w)."""
    y = (cell_axis(cells[0], stride, points) - points[:, 1:2]).square()
    x = (cell_axis(cells[1], stride, points) - points[:, 0:1]).square()
    return (y.unsqueeze(2) + x.unsqueeze(1)).flatten(1)


def epsilon_schedule(start: float, end: float, ratio: float) -> list[float]:
    """`start`, then start, start ratio, start ratio^2, ... as long as they exceed `end`, then `end` [code: GL].

    Raises:
        ValueError: If `start` or `end` is not positive, or `ratio` not between 0 and 1.
    """
    if not (start > 0 and end > 0 and 0 < ratio < 1):
        raise ValueError(f"need start > 0, end > 0 and 0 < ratio < 1; found {start}, {end}, {ratio}")
    steps = max(0, math.ceil(math.log(end / start) / math.log(ratio)))
    return [start, *(start * ratio**k for k in range(steps)), end]
