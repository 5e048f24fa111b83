"""GL: the generalised loss, unbalanced optimal transport between a density map and points."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from losses import _together as together
from losses._together import padded
from losses.base import CrowdLoss, Sample, check_choice, check_number
from losses.geometry import cell_axis, free_to_look, wide
from losses.parallel import processes
from losses.transport import PLAN_FLOOR, DistanceCost, epsilon_schedule, tiles

__all__ = ["GL"]

_NORMS = ("l1", "l2")
_NO_MASS = -1e5
"""Log mass of a cell without any [code]."""
_COSTS = {"perspective": DistanceCost(0.1, 0.5, 0.1, 10.0), "exp": DistanceCost(0.0, 0.6, 0.1, 10.0)}
"""In crop units [code]. The last two are ours: a length that only points four crops above the image reach, and a cap
so that no cost is infinite, where pairs inside the image stay below 2.9."""
_EMPTY = 1e-6
"""Density assumed in every cell of a map without any mass, for the potentials only (ours)."""


class _Sums(NamedTuple):
    """The potentials of an image, and sums over its plan per unit of density, K_ij = exp((f_i + g_j - C_ij) / blur).

    Attributes:
        f: (m,), of the cells.
        g: (n,), of the points.
        points: (n,), the sum over cells of K_ij d_i.
        cells: (m,), the sum over points of K_ij.
        pull: (m,), the derivative of the norm of `points` - 1 in the density.
        slope: (m,), that of the entropy.
        entropy: The mean over pairs of P log P.
    """

    f: Tensor
    g: Tensor
    points: Tensor
    cells: Tensor
    pull: Tensor
    slope: Tensor
    entropy: Tensor


class GL(CrowdLoss):
    r"""Generalised loss (Wan, Liu and Chan, CVPR 2021).

    Coordinates are divided by the size of the crop; d_i is the density of cell i, each point j has mass 1. With
    potentials f (cells) and g (points) of entropic unbalanced transport (KL marginals of strength `reach`, entropy
    `blur`, reached step by step with ratio `scaling`), all constant in the gradient, W(t) = (reach + blur / 2)
    (1 - exp(-t / reach)) and the plan P_ij = d_i exp((f_i + g_j - C_ij) / blur), one image costs

        emd     = sum_i d_i W(f_i) + sum_j W(g_j)
        point   = tau * sum_j |sum_i P_ij - 1|
        pixel   = tau * sum_i (const(sum_j P_ij) - d_i)^2
        entropy = blur * mean_ij P_ij log P_ij

    The cost of a pair at distance r is exp(r / (0.2 y + 0.5)) - 1, y the mean vertical coordinate of the pair
    ("perspective"), or exp(r / 0.6) - 1 ("exp"). An image without people costs (1 + 2 tau) |sum d| [code].

    `variant="official"` differs from `"paper"` as the released code does:

    * Cell centres are half a cell too far right and down: ((c + 1) s, (r + 1) s).
    * The entropy term is summed over the images of a batch, the others are averaged.

    The logarithm gets P + 1e-20 in both. A map without any mass, where the formula's gradient is infinite, takes the
    potentials of a map with 1e-6 in every cell (ours). The cost of heads crops away from the image is capped (ours).

    Args:
        tau: Weight of the marginal terms. Default 0.1 [code].
        cost: `"perspective"` [code's default] or `"exp"`.
        reach: Price of leaving mass behind. Default 0.5 [code].
        blur: Strength of the entropy, in the units of the cost. Default 0.01 [code].
        scaling: Ratio between successive strengths of the entropy on the way to `blur`. Default 0.5 [code].
        point_norm: `"l1"` (default [paper, code]) or `"l2"` (squared).
        pixel_norm: `"l2"` (squared, default [paper, code]) or `"l1"`.
        crop_size: Pixels per unit of length, one scale for both axes so that distances stay isotropic. Default None:
            the longer side of the image (ours; on the square crops of the paper the two agree).
        variant: `"paper"` or `"official"`.
        validate: See `CrowdLoss`.

    Raises:
        ValueError: If a parameter is out of range or unknown.
    """

    reference = "Wan, Liu and Chan, A Generalized Loss Function for Crowd Counting and Localization, CVPR 2021"
    exact_gradient = False
    main_weight = "tau"

    def __init__(
        self,
        *,
        tau: float = 0.1,
        cost: str = "perspective",
        reach: float = 0.5,
        blur: float = 0.01,
        scaling: float = 0.5,
        point_norm: str = "l1",
        pixel_norm: str = "l2",
        crop_size: float | None = None,
        variant: str = "paper",
        validate: bool | None = None,
    ) -> None:
        super().__init__(variant=variant, validate=validate)
        check_number("tau", tau, at_least=0)
        for name, value in (("reach", reach), ("blur", blur), ("crop_size", crop_size)):
            if value is not None:
                check_number(name, value, above=0)
        check_number("scaling", scaling, above=0)
        if scaling >= 1:
            raise ValueError(f"scaling must lie between 0 and 1; found {scaling!r}")
        check_choice("cost", cost, tuple(_COSTS))
        check_choice("point_norm", point_norm, _NORMS)
        check_choice("pixel_norm", pixel_norm, _NORMS)
        self.tau = tau
        self.cost = cost
        self.reach = reach
        self.blur = blur
        self.scaling = scaling
        self.point_norm = point_norm
        self.pixel_norm = pixel_norm
        self.crop_size = crop_size

    def image_terms(self, sample: Sample) -> dict[str, Tensor]:
        """The terms emd, point, pixel and entropy of one image."""
        density = sample.density.flatten()
        if len(sample.points) == 0:
            total = density.sum().abs()
            return {"emd": total, "point": self.tau * total, "pixel": self.tau * total, "entropy": total * 0}
        found, held = self._sums(sample), density.detach()
        change = density - held  # zero, with the gradient of the density
        emd = (density * self._marginal(found.f)).sum() + self._marginal(found.g).sum()
        point = _norm(found.points - 1, self.point_norm) + (change * found.pull).sum()
        pixel = _norm(found.cells * held - density, self.pixel_norm)
        entropy = found.entropy + (change * found.slope).sum()
        return {"emd": emd, "point": self.tau * point, "pixel": self.tau * pixel, "entropy": self.blur * entropy}

    def image_target(self, sample: Sample) -> Tensor:
        """The cells' marginal of the unbalanced plan, which the pixel term regresses: mass that was transported."""
        if len(sample.points) == 0:
            return torch.zeros_like(sample.density)
        return self._sums(sample).cells.view_as(sample.density) * sample.density.detach()

    def reduce(self, name: str, values: Tensor) -> Tensor:
        """The mean over images; the official entropy is summed."""
        summed = self.official and name == "entropy"
        return processes() * values.sum() if summed else super().reduce(name, values)

    def coupled(self, batch: list[Sample]) -> list[Sample]:
        """On an accelerator, the potentials of all images at once."""
        people = [sample for sample in batch if len(sample.points)]
        if not people or free_to_look(people[0].density):
            return batch
        # A filling point takes no part, but for the box around all points; there it must not stick out.
        points, real = padded([sample.points for sample in people], min(people[0].image_size) / 2)
        places, axes = self._places(points, people[0])
        cost, diameter = self._cost_of(places, axes), _diameter(places, axes)
        density = torch.stack([sample.density.detach().flatten() for sample in people])
        # Points may be outside of the image, but hardly by more than its own size.
        most = 2 * math.hypot(*people[0].image_size) / (self.crop_size or max(people[0].image_size))
        g, f = together.annealed(
            cost,
            torch.where(real, 0.0, -math.inf).to(cost.dtype),
            self._log_mass(density),
            diameter.clamp(min=self.blur),
            max(most, self.blur),
            self.blur,
            self.scaling,
            reach=self.reach,
        )
        own = iter(zip(cost, g, f, strict=True))
        return [self._solved(sample, *next(own)) if len(sample.points) else sample for sample in batch]

    @staticmethod
    def _solved(sample: Sample, cost: Tensor, g: Tensor, f: Tensor) -> Sample:
        """An image with its own part of the solution."""
        count = len(sample.points)
        return sample._replace(solved=(cost[:count], g[:count], f))

    @torch.no_grad()
    def _sums(self, sample: Sample) -> _Sums:
        """The potentials of an image with people, and the sums over its plan."""
        return self._sums_here(sample) if sample.solved is None else self._sums_of(sample.density, *sample.solved)

    def _sums_here(self, sample: Sample) -> _Sums:
        """On the CPU, without a matrix."""
        from losses._unbalanced import Duals, Plane  # compiled code: its library is loaded by who needs it

        points, axes = self._places(sample.points, sample)
        density, most = sample.density.detach(), _diameter(points, axes)
        schedule = epsilon_schedule(max(float(most), self.blur), self.blur, self.scaling)
        log_mass = self._log_mass(density.flatten()).view_as(density)
        plane = Plane(points.numpy(), (axes[0].numpy(), axes[1].numpy()), _COSTS[self.cost])
        solved = plane.solve(log_mass.numpy(), schedule, self.reach)
        # The plan is that of the potentials as they are returned, in the dtype of the density.
        g, f = (torch.from_numpy(side).to(density) for side in solved)
        duals, masses = Duals(g.numpy(), f.numpy()), density.numpy()
        reached, moved = plane.sums(duals, masses, self.blur)
        weights = _norm_slope(torch.from_numpy(reached) - 1, self.point_norm).numpy()
        entropy, slopes, pulls = plane.entropy(duals, weights, masses, self.blur)
        pairs = g.numel() * f.numel()
        received, cells, pull, slope = (
            torch.from_numpy(part).to(density).flatten() for part in (reached, moved, pulls, slopes / pairs)
        )
        return _Sums(f.flatten(), g, received, cells, pull, slope, density.new_tensor(entropy / pairs))

    def _sums_of(self, density: Tensor, cost: Tensor, g: Tensor, f: Tensor) -> _Sums:
        """On an accelerator, from the cost (n, h * w) and the potentials of points (n,) and cells (h * w,)."""
        masses = density.detach().flatten()
        total, cells, slope = cost.new_zeros(()), torch.empty_like(masses), torch.empty_like(masses)
        received, pull = torch.zeros_like(g), torch.empty_like(masses)
        parts = tiles(len(masses), len(g), cost)

        def kernel(part: slice) -> Tensor:
            return (g.unsqueeze(1) + f[part] - cost[:, part]).div_(self.blur).exp_()

        for part in parts:
            entries = kernel(part)
            received += entries @ masses[part]
            cells[part] = entries.sum(0)
            plan = (entries * masses[part]).add_(PLAN_FLOOR)
            logs = plan.log()
            total += (plan * logs).sum()
            slope[part] = (logs.add_(1) * entries).sum(0)
        weights = _norm_slope(received - 1, self.point_norm)
        for part in parts:
            pull[part] = weights @ kernel(part)
        return _Sums(f, g, received, cells, pull, slope / cost.numel(), total / cost.numel())

    def _places(self, points: Tensor, sample: Sample) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Points (..., n, 2) and the axes of the cells, y (h,) and x (w,), in crop units."""
        size = self.crop_size or max(sample.image_size)
        offset = 1.0 if self.official else 0.5
        h, w = sample.density.shape
        rows, columns = (cell_axis(count, sample.stride, points, offset=offset) / size for count in (h, w))
        return points / size, (rows, columns)

    def _cost_of(self, points: Tensor, axes: tuple[Tensor, Tensor]) -> Tensor:
        """The cost of all pairs, (..., n, h * w); what `losses._unbalanced` makes as it goes."""
        (slope, offset, least, most), (ys, xs) = _COSTS[self.cost], axes
        dy = ys - points[..., 1:2]
        dx = xs - points[..., 0:1]
        distance = (dy.square().unsqueeze(-1) + dx.square().unsqueeze(-2)).sqrt_()
        length = (slope * (ys + points[..., 1:2]) + offset).clamp_(min=least)
        return distance.div_(length.unsqueeze(-1)).clamp_(max=most).expm1_().flatten(-2)

    def _log_mass(self, density: Tensor) -> Tensor:
        """The log masses of the cells, (..., m); a map without any mass has a trace of it everywhere."""
        mass = torch.where((density > 0).any(-1, keepdim=True), density, _EMPTY)
        return torch.where(mass > 0, mass.log(), _NO_MASS)

    def _marginal(self, potential: Tensor) -> Tensor:
        """W(t), the dual cost of a potential under KL marginals."""
        return -(self.reach + self.blur / 2) * torch.expm1(-potential / self.reach)


def _diameter(points: Tensor, axes: tuple[Tensor, Tensor]) -> Tensor:
    """The diagonal of the box around all cells and points (..., n, 2): the first strength of the entropy, (...)."""
    ys, xs = axes
    # Inside the box of cells only its corners matter, so two of them and the points span the same box.
    corners = torch.stack([torch.stack([xs[0], ys[0]]), torch.stack([xs[-1], ys[-1]])])
    everything = torch.cat([corners.expand(*points.shape[:-2], 2, 2), points], dim=-2)
    diagonal: Tensor = torch.linalg.vector_norm(wide(everything.amax(-2) - everything.amin(-2)), dim=-1)
    return diagonal


def _norm(difference: Tensor, norm: str) -> Tensor:
    """The 1-norm, or the square of the 2-norm."""
    return difference.abs().sum() if norm == "l1" else difference.square().sum()


def _norm_slope(difference: Tensor, norm: str) -> Tensor:
    """The derivative of `_norm`."""
    return difference.sign() if norm == "l1" else 2 * difference
