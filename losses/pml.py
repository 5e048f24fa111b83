"""PML: the proximal mapping loss (Lin, Wan, Chan, ICLR 2025)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from losses.base import Sample, check_choice, check_number
from losses.geometry import nearest_point, wide
from losses.images import Images, TogetherLoss, side_by_side

__all__ = ["PML"]

_EMPTY_CELL = 1e-10
"""Keeps the mean cost of a point without cells finite [code]; such a point's mean is never used."""
_KL_FLOOR = 1e-3
"""People per cell set below which the KL divergence is levelled off, see `PML`."""


class PML(TogetherLoss):
    r"""Proximal mapping loss: each cell belongs to its nearest head, and each head is a problem of its own.

    Divide: X_j = {i : y_j is the head nearest to x_i}, ties to the lowest j. Conquer: with a the density on the n cells
    of X_j, and c the cost of moving one person from each cell to y_j,

        L_j(a) = min_p  c'p + tau_j D(p, a)   subject to  1'p = 1.

    D = |p - a|^2 / 2 (`divergence="l2"`) has p* = a - c / tau_j + eta and, up to a constant that does not depend on a,

        L_j(a) = (c - mean c)'a  +  (tau_j / 2n) (1'a - 1)^2         background + count (the slides' split view)

    `count_norm` and `tau` choose tau_j, and with it the count term:

        count_norm  tau=None (ours; L1: [code])                 tau given (the slides)
        "l1"        w |1'a - 1|,       tau_j = 2wn / |1'a - 1|     (w tau / n) |1'a - 1|
        "l2"        (w / 2)(1'a - 1)^2,  tau_j = w n               (w tau / 2n)(1'a - 1)^2

    with w = `count_weight`. The L1 term is differentiated as it stands; the slides hold tau_j constant, which would
    double its gradient, and contradict themselves by that factor. On densities >= 0 the L2 norm overcounts by
    (mean c - min c) / w, or n (mean c - min c) / (w tau); and the L1 norm is unbounded below where its weight, w or
    w tau / n, is less than mean c - min c. A given `tau` should therefore be large against n.

    D = KL(p | a) (`divergence="kl"`) has p* = a exp(-c / tau) / eta, eta = sum_i a_i exp(-c_i / tau), and

        L_j(a) = tau (1'a - 1) - tau log eta,

    with eta + 0.001 in place of eta (ours), so that a cell set without any mass has a finite loss.

    The cost of a cell at distance d from its head, with R_j the largest distance in X_j, is exp(d / max(R_j, radius))
    - 1 (`cost="exponential"` [code]) or d / max(R_j, radius) (`cost="linear"`, ours).

    A head that owns no cell (a duplicate, or two heads in one cell) adds a constant: no mass can be given to it. An
    image without people costs background sum(a) plus the count term with target 0.

    Terms: `background`, `count`. For KL they are -tau log eta and tau (1'a - 1).

    Differences of `variant="official"` (released code, commit d49bf69):
        * Cell centres are pixel indices, r s + (s - 1) / 2, half a pixel up and left of ours.
        * An image whose density sums to at most `factor` costs |sum a - c factor| instead, c its count. The switch
          makes the loss jump. The released loader gives no count column, so c is the sum of the x coordinates there
          (`fallback_count="x"`), and an image with all heads at x = 0 counts as empty; "points" repairs it.

    Args:
        count_norm: "l1" (default [paper]) or "l2", the norm of the count term; `divergence="l2"` only.
        tau: Weight of the proximal term. None, the default, makes the count term independent of the number of cells
            ([code] for L1, ours for L2). With KL, None is 1 (ours; the paper states no value).
        count_weight: Weight w of the count term, default 1 [code]. With KL it multiplies tau.
        divergence: "l2" (default [paper]) or "kl".
        cost: "exponential" (default [code]) or "linear" (ours).
        radius: Lower limit of the distance that normalises the cost, default 32 pixels [code].
        factor: Official only: density units per person in the fallback, default 1 [code].
        fallback_count: Official only: "x" (default [code]) or "points".
        variant: See `CrowdLoss`.
        validate: See `CrowdLoss`.

    Raises:
        ValueError, TypeError: If a parameter is out of range.
    """

    reference: ClassVar[str] = "Lin, Wan, Chan: Proximal Mapping Loss, ICLR 2025"
    main_weight: ClassVar[str | None] = "count_weight"

    def __init__(
        self,
        *,
        count_norm: str = "l1",
        tau: float | None = None,
        count_weight: float = 1.0,
        divergence: str = "l2",
        cost: str = "exponential",
        radius: float = 32.0,
        factor: float = 1.0,
        fallback_count: str = "x",
        variant: str = "paper",
        validate: bool | None = None,
    ) -> None:
        super().__init__(variant=variant, validate=validate)
        check_choice("count_norm", count_norm, ("l1", "l2"))
        check_choice("divergence", divergence, ("l2", "kl"))
        check_choice("cost", cost, ("exponential", "linear"))
        check_choice("fallback_count", fallback_count, ("x", "points"))
        check_number("count_weight", count_weight, above=0)
        check_number("radius", radius, above=0)
        check_number("factor", factor, above=0)
        if tau is not None:
            check_number("tau", tau, above=0)
        self.count_norm, self.tau, self.count_weight = count_norm, tau, count_weight
        self.divergence, self.cost, self.radius = divergence, cost, radius
        self.factor, self.fallback_count = factor, fallback_count

    def terms(self, images: Images) -> dict[str, Tensor]:
        """Background and count of each image."""
        terms = self._divide_and_conquer(images)
        empty = self._empty(images.density)
        if self.official:
            total, count = images.density.sum((1, 2)), self._image_count(images)
            low = {"background": torch.zeros_like(total), "count": (total - count * self.factor).abs()}
            # A choice among values, not a branch: a branch would make a GPU wait.
            terms = {name: torch.where(total <= self.factor, low[name], terms[name]) for name in terms}
            terms = {name: torch.where(count < 1, empty[name], terms[name]) for name in terms}
        return {name: images.where_people(terms[name], empty[name]) for name in terms}

    def _divide_and_conquer(self, images: Images) -> dict[str, Tensor]:
        """The closed form over the cell sets of images with people."""
        owner, cost, cells = self._divide(images)
        # In the cost's precision: a running sum over thousands of cells would lose digits of float32.
        flat = images.density.flatten(1).to(cost.dtype)
        mass = _gathered(flat, owner, cells)
        if self.divergence == "kl":
            terms = self._conquer_kl(images, flat, owner, cost, mass)
        else:
            count = images.only(self._count(mass - 1, self._weights(cells))).sum(1)
            terms = {"background": (flat * _centred(cost, owner, cells)).sum(1), "count": count}
        return {name: term.to(images.density.dtype) for name, term in terms.items()}

    def image_target(self, sample: Sample) -> Tensor:
        """The p* of every cell set: the gradient is tau_j (a - p*), or tau (1 - p* / a) for KL.

        For the L1 norm tau_j = w n / |1'a - 1| here, with which the *gradient* is that of the loss; with the tau_j of
        the table above the value is. Where official PML falls back on |sum a - c factor|, it is p* of the whole image
        as one cell set with c the count of `fallback_count` and no cost: the error is spread evenly over the N cells,
        tau = N / |sum a - c factor|. An image that counts as empty asks for nobody.
        """
        density, total, images = sample.density, sample.density.sum(), side_by_side([sample])
        count = self._image_count(images) if self.official else images.counts
        if count < 1:
            return torch.zeros_like(density)
        if self.official and total <= self.factor:
            return density + (count * self.factor - total) / density.numel()
        owner, cost, cells = self._divide(images)
        flat = images.density.flatten(1).to(cost.dtype)
        if self.divergence == "kl":
            moved = flat * torch.exp(-cost / self._kl_tau)
            target = moved / (_gathered(moved, owner, cells) + _KL_FLOOR).gather(1, owner)
        else:
            excess = _gathered(flat, owner, cells) - 1
            slack = excess.abs() if self.count_norm == "l1" else torch.ones_like(excess)  # tau_j = weight n / slack
            step = slack / (self._weights(cells) * cells.clamp(min=1))
            target = flat - step.gather(1, owner) * _centred(cost, owner, cells)
            target = target - (excess / cells.clamp(min=1)).gather(1, owner)
        return target.to(density.dtype).view_as(density)

    def _image_count(self, images: Images) -> Tensor:
        """c, the count of each image by which the released code goes, (B,)."""
        return images.counts if self.fallback_count == "points" else images.only(images.points[..., 0]).sum(1)

    @property
    def _kl_tau(self) -> float:
        """The tau of the KL divergence."""
        return self.count_weight * (1.0 if self.tau is None else self.tau)

    def _weights(self, cells: Tensor) -> Tensor:
        """The weight of each point's count term, (n,)."""
        weight = torch.full_like(cells, self.count_weight)
        return weight if self.tau is None else weight * self.tau / cells.clamp(min=1)

    def _divide(self, images: Images) -> tuple[Tensor, Tensor, Tensor]:
        """Owner (B, h w) and cost (B, h w) of each cell, and the number of cells of each point (B, n)."""
        stride, points = images.stride, wide(images.points)
        offset = (stride - 1) / (2 * stride) if self.official else 0.5
        nearest = nearest_point(points, images.cells, stride, offset=offset)
        owner, distance = nearest.owner.flatten(1), nearest.distance.flatten(1)
        nothing = torch.zeros_like(points[..., 0])
        reach = nothing.scatter_reduce(1, owner, distance, "amax")
        relative = distance / reach.clamp(min=self.radius).gather(1, owner)
        cost = relative.expm1() if self.cost == "exponential" else relative
        return owner, cost, nothing.scatter_add(1, owner, torch.ones_like(cost))

    def _count(self, excess: Tensor, weight: float | Tensor) -> Tensor:
        """The count term of the L2 divergence, of every point."""
        norm = excess.abs() if self.count_norm == "l1" else excess.square() / 2
        return weight * norm

    def _conquer_kl(self, images: Images, flat: Tensor, owner: Tensor, cost: Tensor, mass: Tensor) -> dict[str, Tensor]:
        """The closed form of the KL divergence, summed over points."""
        tau = self._kl_tau
        eta = _gathered(flat * torch.exp(-cost / tau), owner, mass)
        background = images.only((eta + _KL_FLOOR).log()).sum(1)
        return {"background": -tau * background, "count": tau * images.only(mass - 1).sum(1)}

    def _empty(self, density: Tensor) -> dict[str, Tensor]:
        """No head, so no cell set: every unit of mass costs 1, and the count should be 0."""
        return {"background": density.abs().sum((1, 2)), "count": self._count(density.sum((1, 2)), self.count_weight)}


def _gathered(values: Tensor, owner: Tensor, like: Tensor) -> Tensor:
    """The sum of the cells' values, (B, m), over the cells of each point, (B, n)."""
    return torch.zeros_like(like).scatter_add(1, owner, values)


def _centred(cost: Tensor, owner: Tensor, cells: Tensor) -> Tensor:
    """The cost of each cell less the mean over its point's cells, (B, m)."""
    mean = _gathered(cost, owner, cells) / (cells + _EMPTY_CELL)
    return cost - mean.gather(1, owner)
