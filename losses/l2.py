"""L2: regression of a Gaussian density map, the traditional baseline."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.base import Sample, check_choice, check_number
from losses.geometry import cell_axis, spread, wide
from losses.images import Images, TogetherLoss, side_by_side
from losses.parallel import everywhere

__all__ = ["L2"]

_WINDOW = 7
"""Half width of the truncated kernel of 15 pixels [code: C3F, NWPU]."""
_LEAST_SIGMA = 1e-3
"""Pixels. Duplicates have spacing 0, for which a Gaussian is a dot (ours)."""


class L2(TogetherLoss):
    r"""Sum of squared differences between the density and a Gaussian at every head.

        loss = sum_i (scale (d_i - t_i))^2  +  cosine_weight (1 - cos(d, t))
        t_i  = sum_k integral over cell i of N(x | y_k, sigma_k^2)

    per image, averaged over the batch. Summed over cells, not averaged, as in CSRNet [code]. The target is the exact
    mass of each Gaussian in each cell (error functions, no rasterised kernel); a Gaussian is normalised to the part
    inside the image, as C3F does, so the target sums to the number of heads. A head outside is moved to the border
    (ours). Where d or t is all zero, cos is 0.

    `kernel="fixed"` has one sigma; `kernel="adaptive"` has sigma_k = beta times the mean distance to the three nearest
    other heads [paper: MCNN], of `Target.spacing` or, without it, of the heads in the crop; a lone head gets a quarter
    of the mean side of the input [code: CSRNet].

    Terms: `squared_error`, `cosine`.

    There is no one official L2. Differences of `variant="official"` (KDMG's criterion on C3F's fixed target):
        * The cosine term is on (weight 10), and divided by the batch size twice.
        * The fixed kernel lives on pixels: heads rounded half to even, a window of 15 x 15 pixels, and zero padding, so
          that mass is lost at the borders. The adaptive kernel is the same in both variants.

    Args:
        sigma: Standard deviation of the fixed kernel, default 4 pixels [code: C3F, NWPU].
        kernel: "fixed" (default) or "adaptive".
        beta: Factor of the adaptive kernel, default 0.3 [paper: MCNN].
        scale: Factor on both maps, default 1 [code: CSRNet, KDMG]; C3F and STEERER use 100.
        cosine_weight: Default None: 0 for `paper` (the traditional loss has no such term), 10 for `official` [code].
        variant: See `CrowdLoss`.
        validate: See `CrowdLoss`.

    Raises:
        ValueError, TypeError: If a parameter is out of range.
    """

    reference: ClassVar[str] = "Zhang et al.: Single-Image Crowd Counting via Multi-Column CNN (MCNN), CVPR 2016"
    accepts_negative: ClassVar[bool] = True
    main_weight: ClassVar[str | None] = "sigma"

    def __init__(
        self,
        *,
        sigma: float = 4.0,
        kernel: str = "fixed",
        beta: float = 0.3,
        scale: float = 1.0,
        cosine_weight: float | None = None,
        variant: str = "paper",
        validate: bool | None = None,
    ) -> None:
        super().__init__(variant=variant, validate=validate)
        check_choice("kernel", kernel, ("fixed", "adaptive"))
        check_number("sigma", sigma, above=0)
        check_number("beta", beta, above=0)
        check_number("scale", scale, above=0)
        if cosine_weight is None:
            cosine_weight = 10.0 if self.official else 0.0
        check_number("cosine_weight", cosine_weight, at_least=0)
        self.sigma, self.kernel, self.beta = sigma, kernel, beta
        self.scale, self.cosine_weight = scale, cosine_weight

    def terms(self, images: Images) -> dict[str, Tensor]:
        """Squared error and cosine distance of each image."""
        density, target = images.density.flatten(1), self._targets(images).flatten(1)
        error = (self.scale * (density - target)).square().sum(1)
        cosine = F.cosine_similarity(density, target, dim=1)
        return {"squared_error": error, "cosine": self.cosine_weight * (1 - cosine)}

    def reduce(self, name: str, values: Tensor) -> Tensor:
        """The mean over images; KDMG divides its mean cosine by the batch size once more."""
        mean = super().reduce(name, values)
        return mean / everywhere(len(values), values) if self.official and name == "cosine" else mean

    def image_target(self, sample: Sample) -> Tensor:
        """The ground-truth density, whatever is predicted."""
        return self.target(sample)

    def target(self, sample: Sample) -> Tensor:
        """The ground-truth density, (h, w) people per cell."""
        return self._targets(side_by_side([sample]))[0]

    def _targets(self, images: Images) -> Tensor:
        """The ground-truth density of each image, (B, h, w)."""
        points, (height, width) = wide(images.points), images.image_size
        if self.official and self.kernel == "fixed":
            masses = _windowed_masses
            sigma = torch.full_like(points[..., 0], self.sigma)
        else:
            masses = _exact_masses
            sigma = self._sigmas(images, points)
        rows = images.only(masses(points[..., 1], sigma, images.cells[0], images.stride, height))
        columns = masses(points[..., 0], sigma, images.cells[1], images.stride, width)
        return (rows.mT @ columns).to(images.density.dtype)

    def _sigmas(self, images: Images, points: Tensor) -> Tensor:
        """Standard deviation of each head's kernel, (B, n) pixels."""
        if self.kernel == "fixed":
            return torch.full_like(points[..., 0], self.sigma)
        each = [spread(wide(one.points)) if one.spacing is None else wide(one.spacing) for one in images.samples]
        lone, spacing = sum(images.image_size) / 8, images.heads(each)
        return torch.where(spacing.isfinite(), self.beta * spacing, lone).clamp(min=_LEAST_SIGMA)


def _exact_masses(position: Tensor, sigma: Tensor, cells: int, stride: int, side: int) -> Tensor:
    """Share of each 1-D Gaussian in each cell of one axis, (..., cells), normalised to the axis [0, side]."""
    edges = (cell_axis(cells + 1, stride, position, offset=0.0)).clamp(max=side)
    gaps = edges - position.clamp(0, side).unsqueeze(-1)
    below = 0.5 * (1 + torch.erf(gaps / (sigma.unsqueeze(-1) * math.sqrt(2))))
    return below.diff(dim=-1) / (below[..., -1:] - below[..., :1])


def _windowed_masses(position: Tensor, sigma: Tensor, cells: int, stride: int, side: int) -> Tensor:
    """Share of each truncated pixel kernel in each cell of one axis, (..., cells); what falls outside is lost."""
    centre = position.round().clamp(0, side - 1).long().unsqueeze(-1)
    steps = torch.arange(-_WINDOW, _WINDOW + 1, device=position.device)
    weights = torch.exp(-steps.square() / (2 * sigma.unsqueeze(-1).square()))
    weights = weights / weights.sum(-1, keepdim=True)
    pixels = centre + steps
    weights = weights.where((pixels >= 0) & (pixels < side), 0)
    cell = (pixels.clamp(0, side - 1) / stride).floor().long()
    return weights.new_zeros(*position.shape, cells).scatter_add(-1, cell, weights)
