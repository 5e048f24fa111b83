"""DM-Count: distribution matching by count, optimal transport and total variation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from losses.base import Sample, check_choice, check_number
from losses.geometry import dots, free_to_look
from losses.images import Images, TogetherLoss
from losses.parallel import processes
from losses.transport import balanced, floored_rounds, squared_distance, together

__all__ = ["DMCount"]

_SOLVERS = ("pot", "stabilised", "exact")
_EMPTY = 1e-6
"""Keeps the normalisation d / S finite on a map without mass [code]."""


class DMCount(TogetherLoss):
    r"""Distribution matching for crowd counting (Wang et al., NeurIPS 2020).

    With S = sum(d), n points, z the dot map binned to cells, \(b = d / S\) and the uniform distribution a = 1/n on the
    points, one image costs

        count = |S - n|
        ot    = ot_weight * W_reg(a, b),  cost |x - p|^2 in pixels^2
        tv    = tv_weight * n * 1/2 * sum |d / S - z / n|

    and an empty image |S|. W_reg is entropic transport; its value here is the dual objective <f, a> + <g, b>, its
    gradient in d is (g - <g, b>) / S with the potentials held constant. At convergence that is the derivative of the
    value; at the published 100 rounds in pixel units the solver has not converged.

    `variant="paper"`:

    * Transport by log-domain Sinkhorn with entropy relative to a b^T. Cells without mass are left out of the solve and
      get their dual by the soft c-transform.
    * All terms are averaged over the images of a batch.
    * d / S becomes d / 1e-6 below S = 1e-6, and a map without any mass has no transport term (ours).
    * A point belongs to the pixel that contains it.

    `variant="official"` differs, as the released code does:

    * Kernel-domain Sinkhorn with a floor of 1e-16 (see `losses.transport.floored_rounds`), b = d / (S + 1e-6). Its
      entropy is not relative to a b^T, so g contains an additional reg log b: it drives mass apart, and a cell without
      mass gets the dual reg log(1e-16), -368 at reg 10, hence a strong pull upwards.
    * The transport term is <S / (S^2 + 1e-8) g - <d, g> / (S^2 + 1e-8), d>, all but the last d constant. That is 0 up
      to rounding, and here exactly 0: only its gradient matters.
    * The transport term is *summed* over the batch, the other two are averaged, so its weight grows with the batch.
    * Total variation lacks the factor 1/2 and uses d / (S + 1e-6) and z / (n + 1e-6).
    * Points are rounded half to even to the pixel with the nearest index.

    Args:
        ot_weight: Weight of the transport term. Default 0.1 [paper, code].
        tv_weight: Weight of the total variation term. Default 0.01 [paper, code].
        reg: Strength of the entropy, in the units of the cost: pixels^2, or of [-1, 1] coordinates with `normalise`.
            Default 10 [paper, code].
        iterations: Most rounds of the Sinkhorn algorithm. Default 100 [paper, code].
        normalise: Measure the cost on coordinates in which the longer side of the image spans [-1, 1]; then `reg` must
            be small, 0.1 say. Default False [code].
        solver: Of the paper variant. `"stabilised"` (default, ours): POT's rounds as products with what a kernel holds
            beside zeros; its potentials are POT's to rounding, in a two-hundredth of the time or less. `"pot"`: POT's
            `sinkhorn_log`. `"exact"`: no entropy, POT's network simplex (`reg` unused).
        variant: `"paper"` or `"official"`.
        validate: See `CrowdLoss`.

    Raises:
        ValueError: If a parameter is out of range or the solver unknown.
    """

    reference = "Wang et al., Distribution Matching for Crowd Counting, NeurIPS 2020, eq. 8"
    exact_gradient = False
    main_weight = "ot_weight"

    def __init__(
        self,
        *,
        ot_weight: float = 0.1,
        tv_weight: float = 0.01,
        reg: float = 10.0,
        iterations: int = 100,
        normalise: bool = False,
        solver: str = "stabilised",
        variant: str = "paper",
        validate: bool | None = None,
    ) -> None:
        super().__init__(variant=variant, validate=validate)
        check_number("ot_weight", ot_weight, at_least=0)
        check_number("tv_weight", tv_weight, at_least=0)
        check_number("reg", reg, above=0)
        if not isinstance(iterations, int) or iterations < 1:
            raise ValueError(f"iterations must be an integer of at least 1; found {iterations!r}")
        check_choice("solver", solver, _SOLVERS)
        self.ot_weight = ot_weight
        self.tv_weight = tv_weight
        self.reg = reg
        self.iterations = iterations
        self.normalise = normalise
        self.solver = solver

    def terms(self, images: Images) -> dict[str, Tensor]:
        """The terms count, ot and tv of each image."""
        total = images.density.sum((1, 2))
        found = {"count": (total - images.counts).abs(), "ot": torch.zeros_like(total), "tv": torch.zeros_like(total)}
        if images.deserted:
            return found
        ot, tv = self._official_ot(images) if self.official else self._paper_ot(images), self._variation(images)
        found["ot"] = self.ot_weight * images.where_people(ot, 0)
        found["tv"] = self.tv_weight * images.where_people(tv, 0)
        return found

    def image_target(self, sample: Sample) -> Tensor:
        """The density's own shape with the right count, n d / S: the limit tau -> infinity of the KL divergence."""
        density = sample.density
        return density * (len(sample.points) / density.sum().clamp(min=_EMPTY))

    def reduce(self, name: str, values: Tensor) -> Tensor:
        """The mean over images; official transport is summed."""
        summed = self.official and name == "ot"
        return processes() * values.sum() if summed else super().reduce(name, values)

    def _scale(self, images: Images) -> float:
        """The cost of a squared pixel."""
        return (2 / max(images.image_size)) ** 2 if self.normalise else 1.0

    def _share(self, density: Tensor) -> Tensor:
        """b, the share of its image's mass that each cell has."""
        total = density.sum((-2, -1), keepdim=True)
        return density / (total + _EMPTY) if self.official else density / total

    def _paper_ot(self, images: Images) -> Tensor:
        """<f, a> + <g, d / S>: the dual objective, the potentials constant."""
        mean, g = self._potentials(images)
        return mean + (g * images.density).sum((1, 2)) / images.density.sum((1, 2)).clamp(min=_EMPTY)

    @torch.no_grad()
    def _potentials(self, images: Images) -> tuple[Tensor, Tensor]:
        """The mean of f over the heads, (B,), and g (B, h, w); both 0 where there is no mass.

        On an accelerator, of all images at once; not by POT's solvers, which go image by image.
        """
        density = images.density
        if free_to_look(density) or self.solver != "stabilised":
            each = [self._potentials_of(one.points, one.density, images) for one in images.samples]
            return torch.stack([f.sum() / max(1, len(f)) for f, _ in each]), torch.stack([g for _, g in each])
        points, real = images.only(images.points), images.taking_part
        mass, stride = self._share(density), images.stride
        reg, scale, rounds = self.reg, self._scale(images), self.iterations
        f, g = together.rounds(points, real, mass, stride, reg=reg, scale=scale, iterations=rounds)
        return f.sum(1) / real.sum(1), g.view_as(density)

    def _potentials_of(self, points: Tensor, mass: Tensor, images: Images) -> tuple[Tensor, Tensor]:
        """The potentials f (n,) and g (h, w) of one image."""
        scale, stride = self._scale(images), images.stride
        if len(points) == 0 or (free_to_look(mass) and not bool((mass > 0).any())):
            return torch.zeros_like(points[:, 0]), torch.zeros_like(mass)
        b, cells = self._share(mass), (mass.shape[0], mass.shape[1])
        if self.solver == "stabilised":
            from losses.transport.planar import planar  # compiled code: its library is loaded by who needs it

            return planar(points, b, stride, reg=self.reg, scale=scale, iterations=self.iterations)
        cost = squared_distance(points, cells, stride).mul_(scale)
        a = cost.new_full((len(cost),), 1 / len(cost))
        f, g = balanced(cost, a, b.flatten(), solver=self.solver, reg=self.reg, iterations=self.iterations)
        return f, g.view_as(mass)

    def _official_ot(self, images: Images) -> Tensor:
        """<gradient, d - const(d)>: zero, with the gradient of the released code."""
        held = images.density.detach()
        square = held.sum((1, 2), keepdim=True).square() + 1e-8
        g = self._official_duals(images)
        gradient = held.sum((1, 2), keepdim=True) / square * g - (held * g).sum((1, 2), keepdim=True) / square
        return (gradient * (images.density - held)).sum((1, 2))

    @torch.no_grad()
    def _official_duals(self, images: Images) -> Tensor:
        """The cells' duals, (B, h, w)."""
        mass, stride = self._share(images.density), images.stride
        reg, scale, rounds = self.reg, self._scale(images), self.iterations
        if not free_to_look(mass):
            points, real = images.only(images.points), images.taking_part
            return together.floored_rounds(points, real, mass, stride, reg=reg, scale=scale, iterations=rounds)
        duals = torch.zeros_like(mass)
        for image, one in enumerate(images.samples):
            if len(one.points):
                duals[image] = floored_rounds(one.points, mass[image], stride, reg=reg, scale=scale, iterations=rounds)
        return duals

    def _variation(self, images: Images) -> Tensor:
        """The number of people times the total variation between the normalised maps; official: twice that."""
        density, n = images.density, images.counts.view(-1, 1, 1)
        total, real = density.sum((1, 2), keepdim=True), images.real if images.filled else None
        place: dict[str, Any] = {"stride": images.stride, "image_size": images.image_size, "real": real}
        if self.official:
            gt = dots(images.points, images.cells, rounding="even", **place)
            return (n * (density / (total + _EMPTY) - gt / (n + _EMPTY)).abs()).sum((1, 2))
        gt = dots(images.points, images.cells, **place)
        return (n / 2 * (density / total.clamp(min=_EMPTY) - gt / n.clamp(min=1)).abs()).sum((1, 2))
