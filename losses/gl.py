"""GL: the generalised loss, unbalanced optimal transport between a density map and points."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from losses.base import Sample, check_choice, check_number
from losses.geometry import cell_axis, free_to_look, wide
from losses.images import Images, TogetherLoss, side_by_side
from losses.parallel import processes
from losses.transport import PLAN_FLOOR, DistanceCost, epsilon_schedule, together
from losses.transport.dense import tiles

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
    """The potentials of images, and sums over their plans per unit of density, K_ij = exp((f_i + g_j - C_ij) / blur).

    Attributes:
        f: (B, m), of the cells.
        g: (B, n), of the points; -infinity of filling ones.
        points: (B, n), the sum over cells of K_ij d_i.
        cells: (B, m), the sum over points of K_ij.
        pull: (B, m), the derivative of the norm of `points` - 1 in the density.
        slope: (B, m), that of the entropy.
        entropy: (B,), the mean over pairs of P log P.
    """

    f: Tensor
    g: Tensor
    points: Tensor
    cells: Tensor
    pull: Tensor
    slope: Tensor
    entropy: Tensor


class GL(TogetherLoss):
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
    potentials of a map with 1e-6 in every cell (ours). The cost of heads crops away from the image is capped (ours). On
    an accelerator, where the farthest head is not looked for, `blur` is approached from twice the image's diagonal at
    most: heads farther outside than the image is large have other potentials there (ours).

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

    def terms(self, images: Images) -> dict[str, Tensor]:
        """The terms emd, point, pixel and entropy of each image."""
        density = images.density.flatten(1)
        total, held = density.sum(1).abs(), density.detach()
        empty = {"emd": total, "point": self.tau * total, "pixel": self.tau * total, "entropy": total * 0}
        if images.deserted:
            return empty
        found = self._sums(images)
        change = density - held  # zero, with the gradient of the density
        emd = (density * self._marginal(found.f)).sum(1) + images.only(self._marginal(found.g)).sum(1)
        point = _norm(images.only(found.points - 1), self.point_norm) + (change * found.pull).sum(1)
        pixel = _norm(found.cells * held - density, self.pixel_norm)
        entropy = found.entropy + (change * found.slope).sum(1)
        terms = {"emd": emd, "point": self.tau * point, "pixel": self.tau * pixel, "entropy": self.blur * entropy}
        return {name: images.where_people(values, empty[name]) for name, values in terms.items()}

    def image_target(self, sample: Sample) -> Tensor:
        """The cells' marginal of the unbalanced plan, which the pixel term regresses: mass that was transported."""
        if len(sample.points) == 0:
            return torch.zeros_like(sample.density)
        (moved,) = self._sums(side_by_side([sample])).cells
        target: Tensor = moved.view_as(sample.density) * sample.density.detach()
        return target

    def reduce(self, name: str, values: Tensor) -> Tensor:
        """The mean over images; the official entropy is summed."""
        summed = self.official and name == "entropy"
        return processes() * values.sum() if summed else super().reduce(name, values)

    @torch.no_grad()
    def _sums(self, images: Images) -> _Sums:
        """The potentials, and the sums over the plans."""
        return self._sums_here(images) if free_to_look(images.density) else self._sums_at_once(images)

    def _sums_here(self, images: Images) -> _Sums:
        """On the CPU, of one image with people, without a matrix."""
        from losses.transport.unbalanced import Duals, Plane  # compiled code: its library is loaded by who needs it

        wide_enough = torch.promote_types(images.density.dtype, torch.float32)
        points, axes = self._places(images, images.points.to(wide_enough))
        (density,) = images.density.detach().to(wide_enough)
        strongest = float(_diameter(points, axes))
        schedule = epsilon_schedule(max(strongest, self.blur), self.blur, self.scaling)
        log_mass = self._log_mass(density.flatten()).view_as(density)
        plane = Plane(points[0].numpy(), (axes[0].numpy(), axes[1].numpy()), _COSTS[self.cost])
        solved = plane.solve(log_mass.numpy(), schedule, self.reach)
        # The plan is that of the potentials as they are returned, in the dtype of the density.
        g, f = (torch.from_numpy(side).to(density) for side in solved)
        duals, masses = Duals(g.numpy(), f.numpy()), density.numpy()
        reached, moved = plane.sums(duals, masses, self.blur)
        weights = _norm_slope(torch.from_numpy(reached) - 1, self.point_norm).numpy()
        entropy, slopes, pulls = plane.entropy(duals, weights, masses, self.blur)
        pairs = g.numel() * f.numel()
        found = (reached, moved, pulls, slopes / pairs)
        sums = [f, g, *(torch.from_numpy(part) for part in found)]
        f, g, received, cells, pull, slope = (each.to(images.density).reshape(1, -1) for each in sums)
        return _Sums(f, g, received, cells, pull, slope, f.new_tensor([entropy / pairs]))

    def _sums_at_once(self, images: Images) -> _Sums:
        """On an accelerator, of all images from the matrices of their costs."""
        # A filling point takes no part, but for the box around all points; there it must not stick out.
        points, axes = self._places(images, images.only(images.points, min(images.image_size) / 2))
        cost, strongest = self._cost_of(points, axes), _diameter(points, axes)
        density = images.density.detach().flatten(1)
        # Points may be outside of the image, but hardly by more than its own size.
        most = 2 * math.hypot(*images.image_size) / (self.crop_size or max(images.image_size))
        g, f = together.annealed(
            cost,
            torch.where(images.taking_part, 0.0, -math.inf).to(cost.dtype),
            self._log_mass(density),
            strongest.clamp(min=self.blur),
            max(most, self.blur),
            self.blur,
            self.scaling,
            reach=self.reach,
        )
        return self._sums_of(images, density, cost, images.only(g, -math.inf), f)

    def _sums_of(self, images: Images, density: Tensor, cost: Tensor, g: Tensor, f: Tensor) -> _Sums:
        """The sums over plans of densities (B, m), from costs (B, n, m) and potentials (B, n), (B, m)."""
        received, total = torch.zeros_like(g), torch.zeros_like(g[:, 0])
        parts = tiles(cost.shape[2], cost.shape[0] * cost.shape[1], cost)

        def kernel(part: slice) -> Tensor:
            return (g.unsqueeze(2) + f[:, None, part] - cost[:, :, part]).div_(self.blur).exp_()

        cells, slope, pull = [], [], []
        for part in parts:
            entries = kernel(part)
            received += (entries @ density[:, part].unsqueeze(2)).squeeze(2)
            cells.append(entries.sum(1))
            plan = (entries * density[:, None, part]).add_(PLAN_FLOOR)
            logs = plan.log()
            total += images.only((plan * logs).sum(2)).sum(1)
            slope.append((logs.add_(1) * entries).sum(1))
        weights = images.only(_norm_slope(received - 1, self.point_norm)).unsqueeze(1)
        for part in parts:
            pull.append((weights @ kernel(part)).squeeze(1))
        pairs = images.counts.clamp(min=1) * cost.shape[2]
        return _Sums(
            f=f,
            g=g,
            points=received,
            cells=torch.cat(cells, 1),
            pull=torch.cat(pull, 1),
            slope=torch.cat(slope, 1) / pairs.unsqueeze(1),
            entropy=total / pairs,
        )

    def _places(self, images: Images, points: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Points (B, n, 2) and the axes of the cells, y (h,) and x (w,), in crop units."""
        size = self.crop_size or max(images.image_size)
        offset = 1.0 if self.official else 0.5
        rows, columns = (cell_axis(count, images.stride, points, offset=offset) / size for count in images.cells)
        return points / size, (rows, columns)

    def _cost_of(self, points: Tensor, axes: tuple[Tensor, Tensor]) -> Tensor:
        """The cost of all pairs, (..., n, h * w); what `losses.transport.unbalanced` makes as it goes."""
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
    """The 1-norm, or the square of the 2-norm, along the last dimension."""
    return difference.abs().sum(-1) if norm == "l1" else difference.square().sum(-1)


def _norm_slope(difference: Tensor, norm: str) -> Tensor:
    """The derivative of `_norm`."""
    return difference.sign() if norm == "l1" else 2 * difference
