"""Random cells and crowds on which the propositions of the proximal view are checked, in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import losses
from losses import Prediction, Target, proximal

__all__ = ["SIDE", "STRIDE", "WHOLE", "Case", "cell", "crowd", "distance", "gap", "gradient"]

SIDE, STRIDE, WHOLE = 64, 8, 512
"""Pixels: of the crowds, of a cell, and the shorter side of the image that a crowd is a crop of, which BL asks for."""


class Case(NamedTuple):
    """One cell: density, cost, background posterior, tau."""

    density: Tensor
    cost: Tensor
    tau: float


def cell(rng: np.random.Generator) -> Case:
    """A cell of 2 to 12 density cells that counts 0.2 to 3, costs in [0, 2], tau in [0.05, 20]."""
    count = int(rng.integers(2, 13))
    density = rng.dirichlet(np.full(count, 0.8)) * rng.uniform(0.2, 3.0) + 1e-6
    return Case(torch.tensor(density), torch.tensor(rng.uniform(0, 2, count)), float(np.exp(rng.uniform(-3, 3))))


def crowd(
    rng: np.random.Generator, heads: int | None = None, counted: tuple[float, float] = (0.4, 2.0)
) -> tuple[Tensor, Tensor]:
    """Density (h, w) and heads (n, 2) of a random crowd on `SIDE` pixels; `counted` people a head."""
    count = heads or int(rng.integers(1, 9))
    cells = SIDE // STRIDE
    density = rng.dirichlet(np.ones(cells * cells)) * count * rng.uniform(*counted)
    return torch.tensor(density).view(cells, cells), torch.tensor(rng.uniform(0, SIDE, (count, 2)))


def gradient(name: str, density: Tensor, points: Tensor, **params: object) -> Tensor:
    """The zoo's gradient on one image, (h w,)."""
    prediction = Prediction(STRIDE, density=density[None, None])
    target = Target([points], (SIDE, SIDE), short_side=density.new_tensor([WHOLE]))
    (found,) = proximal.view(losses.build(name, **params), prediction, target)
    return found.gradient.flatten()


def gap(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value where that is above 1."""
    scale = max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) / scale


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative distance of two gradients in the 2-norm."""
    return float((found - expected).norm() / expected.norm())
