"""DM-Count: distribution matching by count, optimal transport and total variation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from losses import _together as together
from losses.base import CrowdLoss, Sample, check_choice, check_number
from losses.geometry import dots, free_to_look
from losses.parallel import processes
from losses.transport import SOLVERS, balanced, floored_rounds, squared_distance

__all__ = ["DMCount"]

_EMPTY = 1e-6
"""Keeps the normalisation d / S finite on a map without mass [code]."""


class DMCount(CrowdLoss):
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
            beside zeros; its potentials are POT's to rounding, in a two-hundredth of the time. `"pot"`: POT's
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
        check_choice("solver", solver, (*SOLVERS, "exact"))
        self.ot_weight = ot_weight
        self.tv_weight = tv_weight
        self.reg = reg
        self.iterations = iterations
        self.normalise = normalise
        self.solver = solver

    def image_terms(self, sample: Sample) -> dict[str, Tensor]:
        """The terms count, ot and tv of one image."""
        density, n = sample.density, len(sample.points)
        total = density.sum()
        zero = density.new_zeros(())
        ot, tv = (zero, zero) if n == 0 else (self._transport(sample, total), self._variation(sample, total))
        return {"count": (total - n).abs(), "ot": self.ot_weight * ot, "tv": self.tv_weight * tv}

    def image_target(self, sample: Sample) -> Tensor:
        """The density's own shape with the right count, n d / S: the limit tau -> infinity of the KL divergence."""
        density = sample.density
        return density * (len(sample.points) / density.sum().clamp(min=_EMPTY))

    def reduce(self, name: str, values: Tensor) -> Tensor:
        """The mean over images; official transport is summed."""
        summed = self.official and name == "ot"
        return processes() * values.sum() if summed else super().reduce(name, values)

    def coupled(self, batch: list[Sample]) -> list[Sample]:
        """On an accelerator, the potentials of all images at once; not by POT, which goes image by image."""
        people = [sample for sample in batch if len(sample.points)]
        if not people or free_to_look(people[0].density) or not (self.official or self.solver == "stabilised"):
            return batch
        points, stride = [sample.points for sample in people], people[0].stride
        mass = torch.stack([self._share(sample.density.detach()) for sample in people])
        reg, scale, rounds = self.reg, self._scale(people[0]), self.iterations
        solved: Sequence[tuple[Tensor, ...]]
        if self.official:
            duals = together.floored_rounds(points, mass, stride, reg=reg, scale=scale, iterations=rounds)
            solved = [(g,) for g in duals]
        else:
            solved = together.rounds(points, mass, stride, reg=reg, scale=scale, iterations=rounds)
        own = iter(solved)
        return [sample._replace(solved=next(own)) if len(sample.points) else sample for sample in batch]

    def _scale(self, sample: Sample) -> float:
        """The cost of a squared pixel."""
        return (2 / max(sample.image_size)) ** 2 if self.normalise else 1.0

    def _share(self, density: Tensor) -> Tensor:
        """b, the share of the mass that each cell has."""
        return density / (density.sum() + _EMPTY) if self.official else density / density.sum()

    def _transport(self, sample: Sample, total: Tensor) -> Tensor:
        """The transport term of an image with people."""
        return self._official_ot(sample) if self.official else self._paper_ot(sample, total)

    def _paper_ot(self, sample: Sample, total: Tensor) -> Tensor:
        """<f, a> + <g, d / S>: the dual objective, the potentials constant."""
        density = sample.density
        f, g = self._potentials(sample) if sample.solved is None else sample.solved
        return f.mean() + (g.view_as(density) * density).sum() / total.clamp(min=_EMPTY)

    def _potentials(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """The potentials f (n,) and g of one image; both 0 where there is no mass."""
        mass, scale = sample.density.detach(), self._scale(sample)
        if free_to_look(mass) and not bool((mass > 0).any()):
            return torch.zeros_like(sample.points[:, 0]), torch.zeros_like(mass)
        b, cells = self._share(mass), (mass.shape[0], mass.shape[1])
        if self.solver == "stabilised" and free_to_look(mass):
            from losses._sinkhorn import planar  # compiled code: its library is loaded by who needs it

            return planar(sample.points, b, sample.stride, reg=self.reg, scale=scale, iterations=self.iterations)
        cost = squared_distance(sample.points, cells, sample.stride).mul_(scale)
        a = cost.new_full((len(cost),), 1 / len(cost))
        return balanced(cost, a, b.flatten(), solver=self.solver, reg=self.reg, iterations=self.iterations)

    def _official_ot(self, sample: Sample) -> Tensor:
        """<gradient, d - const(d)>: zero, with the gradient of the released code."""
        density = sample.density.detach()
        total, scale = density.sum(), self._scale(sample)
        if sample.solved is None:
            mass, rounds = self._share(density), self.iterations
            g = floored_rounds(sample.points, mass, sample.stride, reg=self.reg, scale=scale, iterations=rounds)
        else:
            (g,) = sample.solved
        square = total.square() + 1e-8
        gradient = total / square * g - (density * g).sum() / square
        return (gradient * (sample.density - density)).sum()

    def _variation(self, sample: Sample, total: Tensor) -> Tensor:
        """The number of people times the total variation between the normalised maps; official: twice that."""
        density, n = sample.density, len(sample.points)
        cells = (density.shape[0], density.shape[1])
        if self.official:
            gt = dots(sample.points, cells, sample.stride, sample.image_size, rounding="even")
            return n * (density / (total + _EMPTY) - gt / (n + _EMPTY)).abs().sum()
        gt = dots(sample.points, cells, sample.stride, sample.image_size)
        return n / 2 * (density / total.clamp(min=_EMPTY) - gt / n).abs().sum()
