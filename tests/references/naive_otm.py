"""OT-M written straight from its formulas: dense cells x points matrices in torch, no regard for speed.

Coordinates are (x, y) in pixels; any type of the given tensors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Outcome(NamedTuple):
    points: Tensor
    rounds: int
    moves: tuple[float, float]


def cells_of(density: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Centres (N, 2) and masses (N,) of the cells above 1e-12."""
    rows, columns = torch.nonzero(density > 1e-12, as_tuple=True)
    centres = torch.stack([columns * stride + stride / 2, rows * stride + stride / 2], 1)
    return centres.to(density), density[rows, columns]


def schedule(diameter: float, blur: float = 0.01, scaling: float = 0.75) -> list[float]:
    steps, eps = [diameter], diameter
    while eps > blur:
        steps.append(eps)
        eps *= scaling
    return [*steps, blur]


def potentials(cost: Tensor, mass: Tensor, blur: float = 0.01, scaling: float = 0.75) -> tuple[Tensor, Tensor]:
    """The annealed, averaged Sinkhorn iterations between `mass` (N,) and a unit for each of n points; cost (N, n)."""
    log_mass = mass.log()
    diameter = max(8.0, cost.max().item())

    def step(f: Tensor, g: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        return (
            -eps * torch.logsumexp(g[None] / eps - cost / eps, 1),
            -eps * torch.logsumexp((log_mass + f / eps)[:, None] - cost / eps, 0),
        )

    f, g = step(torch.zeros_like(mass), torch.zeros_like(cost[0]), diameter)
    for eps in schedule(diameter, blur, scaling):
        new_f, new_g = step(f, g, eps)
        f, g = (f + new_f) / 2, (g + new_g) / 2
    return step(f, g, blur)


def localise(density: Tensor, stride: int, init: Tensor, rounds: int = 16, blur: float = 0.01) -> Outcome:
    """Points after at most `rounds` rounds from `init` (n, 2)."""
    centres, mass = cells_of(density, stride)
    points, mass = init.to(density), mass / mass.sum() * len(init)
    done, moves = 0, (0.0, 0.0)
    while done < rounds:
        cost = (centres[:, None] - points[None]).square().sum(2) / 64
        f, g = potentials(cost, mass, blur)
        plan = mass[:, None] * ((f[:, None] + g[None] - cost) / blur).exp()
        new = (plan.T @ centres) / (plan.sum(0)[:, None] + 1e-12)
        distance = (new - points).norm(dim=1)
        points, done, moves = new, done + 1, (distance.mean().item(), distance.max().item())
        if moves[0] < 1 and moves[1] < stride:
            break
    return Outcome(points, done, moves)
