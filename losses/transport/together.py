"""Transport of all images of a batch at once, without looking at a value: what the losses solve on an accelerator.

An accelerator is kept busy by few and large operations, and waits when it is asked for a number. So images are padded
to the same number of points and solved side by side, for as many rounds as any of them may need; an image that has
converged stays as it is. The mathematics is that of `losses.transport`, which goes image by image on the CPU.

The rounds are written here in plain torch, for every device and dtype. `choice` puts kernels of our own in their place
where these run.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losses.geometry import axis_gaussians
from losses.transport.choice import Solver, chosen
from losses.transport.costs import FLOOR, Potentials, epsilon_schedule, squared_distance
from losses.transport.dense import tiles

__all__ = ["annealed", "floored_rounds", "rounds"]


@torch.no_grad()
def floored_rounds(
    points: Tensor, real: Tensor, mass: Tensor, stride: int, *, reg: float, scale: float, iterations: int
) -> Tensor:
    """`transport.floored_rounds` of B images, their masses (B, h, w): the cells' duals (B, h, w).

    Points and `real` as of `rounds`.
    """
    solve = chosen(mass, _PLAIN).floored_rounds
    v = solve(points, real, mass, stride, variance=reg / (2 * scale), iterations=iterations, tolerance=1e-9)
    return reg * (v + FLOOR).log()


@torch.no_grad()
def rounds(
    points: Tensor,
    real: Tensor,
    mass: Tensor,
    stride: int,
    *,
    reg: float,
    scale: float,
    iterations: int,
    tolerance: float = 1e-9,
) -> Potentials:
    """`transport.balanced` of B images with points of equal mass, by POT's rounds in the log domain.

    Args:
        points: (B, n, 2) as (x, y), pixels, n >= 1, finite.
        real: (B, n), False for points that only fill up an image, True for one of each at least.
        mass: (B, h, w) non-negative masses of the cells, each image's summing to 1. Of an image without any mass all
            potentials are 0.
        stride: Pixels per cell.
        reg: Strength of the entropy, in the units of the cost.
        scale: Cost per squared pixel.
        iterations: Rounds.
        tolerance: Of the cells' marginal, in the 2-norm, at every tenth round [POT].

    Returns:
        f (B, n), 0 for filling points, and g (B, h w).
    """
    solve = chosen(mass, _PLAIN).rounds
    f, g = solve(points, real, mass, stride, reg=reg, scale=scale, iterations=iterations, tolerance=tolerance)
    there = (mass.flatten(1) > 0).any(1, keepdim=True)
    return Potentials(torch.where(there & real, f, 0), torch.where(there, g, 0))


@torch.no_grad()
def annealed(
    cost: Tensor, log_a: Tensor, log_b: Tensor, start: Tensor, most: float, end: float, ratio: float, *, reach: float
) -> Potentials:
    """Potentials of unbalanced transport of B images, the strength of the entropy lowered from one of its own.

    Args:
        cost: (B, n, m).
        log_a: (B, n) log masses of the points.
        log_b: (B, m) log masses of the cells.
        start: (B,) first strengths, at least `end`, in float64, so that they exceed `end` as often as a number would.
        most: What they are at most, which decides how many steps there are. A larger one leaves out steps before the
            last.
        end: The last strength.
        ratio: Of one strength to the one before.
        reach: Price of leaving a unit of mass behind, in the units of the cost.

    Returns:
        f (B, n) and g (B, m).
    """
    steps = len(epsilon_schedule(most, end, ratio)) - 2
    strengths = torch.stack([start, *(start * ratio**k for k in range(steps)), torch.full_like(start, end)])
    due = strengths > end
    due[0] = due[-1] = True  # between them are steps that not every start has
    return chosen(cost, _PLAIN).annealed(cost, log_a, log_b, strengths, due, end, reach=reach)


# ---------------------------------------------------------------------------------------------------------------------
# In plain torch.


def _floored_rounds(
    points: Tensor,
    real: Tensor,
    mass: Tensor,
    stride: int,
    *,
    variance: float,
    iterations: int,
    tolerance: float,
) -> Tensor:
    """The last v, (B, h, w), from padded points (B, n, 2)."""
    cells = (mass.shape[1], mass.shape[2])
    factors = axis_gaussians(points.flatten(0, 1), cells, stride, variance)
    rows, columns = (factor.view(*real.shape, -1) * real.unsqueeze(2) for factor in factors)
    a = 1 / real.sum(1, keepdim=True).to(mass.dtype)

    def to_cells(u: Tensor) -> Tensor:
        return rows.mT @ (u.unsqueeze(2) * columns)

    v, spread = mass, to_cells(a.expand(real.shape))
    stopped = mass.new_zeros((len(mass), 1, 1), dtype=torch.bool)
    for done in range(1, iterations + 1):
        next_v = mass / (spread + FLOOR)
        next_spread = to_cells(a / (((rows @ next_v) * columns).sum(2) + FLOOR))
        v, spread = torch.where(stopped, v, next_v), torch.where(stopped, spread, next_spread)
        if done % 10 == 0:
            stopped = stopped | ((mass - v * spread).square().sum((1, 2), keepdim=True) <= tolerance)
    return v


def _rounds(
    points: Tensor,
    real: Tensor,
    mass: Tensor,
    stride: int,
    *,
    reg: float,
    scale: float,
    iterations: int,
    tolerance: float,
) -> Potentials:
    """Potentials f (B, n) and g (B, h w) from padded points (B, n, 2); without meaning for padding or without mass.

    The marginal by which POT stops is had from the next round: sum_i P_ij = b_j exp((g_j - next g_j) / reg).
    """
    cells = (mass.shape[1], mass.shape[2])
    cost = squared_distance(points.flatten(0, 1), cells, stride).mul_(scale).view(*real.shape, -1)
    count = real.sum(1, keepdim=True).to(mass.dtype)
    b = mass.flatten(1)
    log_a, log_b = torch.where(real, -count.log(), -math.inf), b.log()
    f, g = torch.where(real, reg * count.log(), 0), torch.zeros_like(b)
    stopped = torch.zeros_like(count, dtype=torch.bool)
    for done in range(iterations):
        next_g = _softmin(cost, log_a + f / reg, reg, dim=1)
        if done % 10 == 1:
            gap = torch.linalg.vector_norm(b * torch.expm1((g - next_g) / reg), dim=1, keepdim=True)
            stopped = stopped | (gap < tolerance)
        next_f = _softmin(cost, log_b + next_g / reg, reg, dim=2)
        f, g = torch.where(stopped, f, next_f), torch.where(stopped, g, next_g)
    return Potentials(f, _softmin(cost, log_a + f / reg, reg, dim=1))


def _annealed(
    cost: Tensor, log_a: Tensor, log_b: Tensor, strengths: Tensor, due: Tensor, end: float, *, reach: float
) -> Potentials:
    """Potentials f (B, n) and g (B, m), after one step at the first strength, the averaged ones, and one at the end.

    Args:
        cost: (B, n, m).
        log_a: (B, n).
        log_b: (B, m).
        strengths: (steps, B), float64, of the averaged steps.
        due: (steps, B), which images take a step.
        end: The last strength.
        reach: See `annealed`.
    """

    def step(f: Tensor, g: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        damping = 1 / (1 + eps / reach)
        next_f = _softmin(cost, log_b + g / eps, eps.unsqueeze(2), dim=2) * damping
        return next_f, _softmin(cost, log_a + f / eps, eps.unsqueeze(2), dim=1) * damping

    every = strengths.to(cost.dtype).unsqueeze(2)
    f, g = step(torch.zeros_like(log_a), torch.zeros_like(log_b), every[0])
    for eps, taken in zip(every, due.unsqueeze(2), strict=True):
        next_f, next_g = step(f, g, eps)
        f, g = torch.where(taken, (f + next_f) / 2, f), torch.where(taken, (g + next_g) / 2, g)
    return Potentials(*step(f, g, torch.full_like(every[0], end)))


def _softmin(cost: Tensor, weight: Tensor, reg: float | Tensor, *, dim: int) -> Tensor:
    """-reg log sum exp(weight - cost / reg) along a dimension of (B, n, m), tile by tile along the other.

    Args:
        cost: (B, n, m).
        weight: Log weights of the summed side: (B, n) if `dim` is 1, (B, m) if it is 2.
        reg: One number, or (B, 1, 1).
        dim: The axis that is summed.
    """
    other, weight = 3 - dim, weight.unsqueeze(3 - dim)
    found = []
    for part in tiles(cost.shape[other], cost.shape[0] * cost.shape[dim], cost):
        some = cost[:, part] if other == 1 else cost[:, :, part]
        exponent = weight - some / reg if isinstance(reg, Tensor) else torch.sub(weight, some, alpha=1 / reg)
        largest = exponent.amax(dim, keepdim=True)
        found.append(exponent.sub_(largest).exp_().sum(dim).log_().add_(largest.squeeze(dim)))
    whole = torch.cat(found, dim=1) if len(found) > 1 else found[0]
    return whole * -(reg.squeeze(2) if isinstance(reg, Tensor) else reg)


_PLAIN = Solver(_rounds, _floored_rounds, _annealed)
"""Every device and dtype."""
