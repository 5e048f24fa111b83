"""GL: the generalised loss, unbalanced optimal transport between a density map and points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from losses import _together as together
from losses._together import padded
from losses.base import CrowdLoss, Sample, check_choice, check_number
from losses.geometry import cell_axis, free_to_look, wide
from losses.parallel import processes
from losses.transport import annealed, epsilon_schedule, safe_exp_, tiles

__all__ = ["GL"]

_COSTS = ("perspective", "exp")
_NORMS = ("l1", "l2")
_NO_MASS = -1e5
"""Log mass of a cell without any [code]."""
_EXP_SCALE = 0.6
"""The exp cost's length, in crop units [code]."""
_LEAST_SCALE = 0.1
"""Floor of the perspective cost's length, in crop units; only points four crops above the image reach it (ours)."""
_FARTHEST = 10.0
"""Cap of the cost's exponent, so that no cost is infinite; pairs inside the image stay below 2.9 (ours)."""
_TRACE = 1e-6
"""Density assumed in every cell of a map without any mass, for the potentials only (ours)."""


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
        check_choice("cost", cost, _COSTS)
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
        cost, g, f = self._solve(sample)
        # From here on the cost's memory holds the plan per unit of density.
        kernel, entropy, slope = self._kernel_(cost, f, g, density.detach())
        emd = (density * self._marginal(f)).sum() + self._marginal(g).sum()
        point = kernel @ density - 1
        pixel = kernel.sum(0) * density.detach() - density
        return {
            "emd": emd,
            "point": self.tau * _norm(point, self.point_norm),
            "pixel": self.tau * _norm(pixel, self.pixel_norm),
            "entropy": self.blur * (entropy + ((density - density.detach()) * slope).sum()),
        }

    def image_target(self, sample: Sample) -> Tensor:
        """The cells' marginal of the unbalanced plan, which the pixel term regresses: mass that was transported."""
        density = sample.density.detach().flatten()
        if len(sample.points) == 0:
            return torch.zeros_like(sample.density)
        cost, g, f = self._solve(sample)
        kernel, _, _ = self._kernel_(cost, f, g, density)
        return (kernel.sum(0) * density).view_as(sample.density)

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
        cost, box = self._geometry(points, people[0])
        diameter = torch.linalg.vector_norm(wide(box), dim=-1)
        density = torch.stack([sample.density.detach().flatten() for sample in people])
        # Points may be outside of the image, but hardly by more than its own size.
        most = 2 * math.hypot(*people[0].image_size) / (self.crop_size or max(people[0].image_size))
        g, f = together.annealed(
            cost,
            torch.where(real, 0.0, _NO_MASS).to(cost.dtype),
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
        """An image with its own part of the solution; of the cost a copy, which is worked on in place."""
        count = len(sample.points)
        return sample._replace(solved=(cost[:count].clone(), g[:count], f))

    def _solve(self, sample: Sample) -> tuple[Tensor, ...]:
        """The cost (n, h * w) of one image, and the potentials over points (n,) and cells (h * w,)."""
        if sample.solved is not None:
            return sample.solved
        cost, box = self._geometry(sample.points, sample)
        diameter = float(torch.linalg.vector_norm(box))
        schedule = epsilon_schedule(max(diameter, self.blur), self.blur, self.scaling)
        log_mass = self._log_mass(sample.density.detach().flatten())
        g, f = annealed(cost, torch.zeros_like(cost[:, 0]), log_mass, schedule, reach=self.reach)
        return cost, g, f

    def _geometry(self, points: Tensor, sample: Sample) -> tuple[Tensor, Tensor]:
        """The cost, and the box around all cells and points, whose diagonal is the first strength of the entropy.

        Args:
            points: (..., n, 2) of images of one size.
            sample: One of these images.

        Returns:
            (..., n, h * w) and (..., 2).
        """
        size = self.crop_size or max(sample.image_size)
        points = points / size
        offset = 1.0 if self.official else 0.5
        ys, xs = (cell_axis(k, sample.stride, points, offset=offset) / size for k in sample.density.shape)
        dy = ys - points[..., 1:2]
        dx = xs - points[..., 0:1]
        distance = (dy.square().unsqueeze(-1) + dx.square().unsqueeze(-2)).sqrt_()
        if self.cost == "perspective":
            distance.div_((0.1 * (ys + points[..., 1:2]) + 0.5).clamp_(min=_LEAST_SCALE).unsqueeze(-1))
        else:
            distance.div_(_EXP_SCALE)
        # Inside the box of cells only its corners matter, so two of them and the points span the same box.
        corners = torch.stack([torch.stack([xs[0], ys[0]]), torch.stack([xs[-1], ys[-1]])])
        everything = torch.cat([corners.expand(*points.shape[:-2], 2, 2), points], dim=-2)
        box = everything.amax(-2) - everything.amin(-2)
        return distance.clamp_(max=_FARTHEST).expm1_().flatten(-2), box

    def _log_mass(self, density: Tensor) -> Tensor:
        """The log masses of the cells, (..., m); a map without any mass has a trace of it everywhere."""
        mass = torch.where((density > 0).any(-1, keepdim=True), density, _TRACE)
        return torch.where(mass > 0, mass.log(), _NO_MASS)

    def _marginal(self, potential: Tensor) -> Tensor:
        """W(t), the dual cost of a potential under KL marginals."""
        return -(self.reach + self.blur / 2) * torch.expm1(-potential / self.reach)

    @torch.no_grad()
    def _kernel_(self, cost: Tensor, f: Tensor, g: Tensor, density: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turns the cost, in place, into the plan per unit of density, and takes its entropy on the way.

        Returns:
            kernel: (n, m), exp((f_i + g_j - C_ij) / blur).
            entropy: Mean of P log P.
            slope: (m,), its derivative in the density at constant kernel.
        """
        total = cost.new_zeros(())
        slope = torch.empty_like(density)
        for part in tiles(cost.shape[1], cost.shape[0], cost):
            kernel = safe_exp_(torch.sub(g.unsqueeze(1) + f[part], cost[:, part]).div_(self.blur))
            cost[:, part] = kernel
            plan = (kernel * density[part]).add_(1e-20)
            log_plan = plan.log()
            total += (plan * log_plan).sum()
            slope[part] = (log_plan.add_(1) * kernel).sum(0)
        return cost, total / cost.numel(), slope / cost.numel()


def _norm(difference: Tensor, norm: str) -> Tensor:
    """The 1-norm, or the square of the 2-norm."""
    return difference.abs().sum() if norm == "l1" else difference.square().sum()
