"""NoiseCC: modeling noisy annotations (Wan, Chan, NeurIPS 2020)."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from losses.base import Sample, check_number
from losses.bl import expected_counts
from losses.geometry import axis_gaussians, cell_centres, free_to_look, nearest_point, wide
from losses.images import Images, TogetherLoss, side_by_side
from losses.parallel import gathered, processes

__all__ = ["NoiseCC"]

_MOST_CELLS = 100
"""Most cells whose correlations are kept [code]."""
_RIDGE = 1e-10
"""Added to the variances before the correlation is inverted, and the diagonal of that correlation [code]."""
_LEAST_MASS = 1e-12
"""Below this the mean of an image is not rescaled: all its heads lie far outside (ours)."""


class NoiseCC(TogetherLoss):
    r"""Likelihood of the density under annotation noise: where heads are uncertain, so is the map.

    If each head is annotated with Gaussian noise of variance a = alpha^2 and drawn as a Gaussian of variance
    s = sigma^2, the density of a cell has, with G(x; v) the 2-D Gaussian density, per square pixel

        mean        mu_i = sum_k w_k m_k(i),                             m_k(i) = G(x_i - y_k; a + s)
        covariance  C_ij = sum_k [ G(x_i - x_j; 2s) G((x_i + x_j)/2 - y_k; a + s/2)  -  m_k(i) m_k(j) ]
        variance    v_i  = C_ii + G(D_i; a + s/2) / (4 pi s) + floor

    where D_i = S background_ratio exp(-r_i / sqrt(a + s)) is the distance of a background dummy from the cell, r_i that
    of the nearest head, and S the shorter side of the whole image. The moments are rescaled so that sum mu is the
    number n of heads. The loss is the negative log-likelihood without its constants; correlations are kept among the
    M cells of largest variance only (those before a share `ratio` of all variance is reached, and at most 100):

        loss = weight / 2 [ sum_{i not in M} (d_i - mu_i)^2 / v_i  +  r' C_MM^-1 r ],         r = (d - mu)_M

    with v + 1e-10 [code] on the diagonal of C_MM. The terms are `diagonal`, the first sum over *all* cells, as if they
    were independent, and `correlation`, the rest. With `regularizer` there is a term `counts`,

        sum_k |w_k - sum_i q_k(i) d_i|  +  sum_i q_0(i) d_i

    with the posteriors of the Bayesian loss (see `BL`) at variance a + s and the dummy above as the background.

    An image without people costs |sum d|, unweighted [code]: the term `empty`.

    Differences of `variant="official"` (released code, commit c3f66b6):
        * C_MM has an extra sum_k G(x_i - x_j; 2s), and its first two sums run over the heads of the whole batch: the
          images of a batch are coupled. Such a matrix is no covariance: the loss is **unbounded below**. (The authors
          train with one image a batch.)
        * The correlation enters as the Woodbury correction -r' (V C^-1 V + V)^-1 r with the diagonal of C set to 1e-10.

    Args:
        alpha: Standard deviation of the annotation noise, default 8 pixels [code].
        sigma: Standard deviation of the kernel, default 8 pixels [code].
        background: Whether the dummy adds variance, default True [code]. Without it the variance is `floor` far from
            all heads, and the loss explodes there.
        background_ratio: Default 0.15 [code].
        ratio: Share of the variance whose correlations are kept, default 0.6 [code].
        floor: Least variance, default 1e-14 [code].
        add_floor: Whether `floor` is added (default [code]) or variances are clamped to it.
        weight: Default 0.01 [code].
        regularizer: Whether the term `counts` is on, default False [code].
        variant: See `CrowdLoss`.
        validate: See `CrowdLoss`.

    Raises:
        ValueError, TypeError: If a parameter is out of range.
    """

    reference: ClassVar[str] = "Wan, Chan: Modeling Noisy Annotations for Crowd Counting, NeurIPS 2020"
    main_weight: ClassVar[str | None] = "alpha"

    def __init__(
        self,
        *,
        alpha: float = 8.0,
        sigma: float = 8.0,
        background: bool = True,
        background_ratio: float = 0.15,
        ratio: float = 0.6,
        floor: float = 1e-14,
        add_floor: bool = True,
        weight: float = 0.01,
        regularizer: bool = False,
        variant: str = "paper",
        validate: bool | None = None,
    ) -> None:
        super().__init__(variant=variant, validate=validate)
        positive = {"alpha": alpha, "sigma": sigma, "background_ratio": background_ratio, "floor": floor}
        for name, value in (positive | {"ratio": ratio, "weight": weight}).items():
            check_number(name, value, above=0)
        if ratio > 1:
            raise ValueError(f"ratio must be at most 1, a share of the variance; found {ratio}")
        self.noise, self.kernel = alpha**2, sigma**2
        self.background, self.background_ratio = background, background_ratio
        self.ratio, self.floor, self.add_floor = ratio, floor, add_floor
        self.weight, self.regularizer = weight, regularizer

    def coupled(self, batch: list[Sample]) -> list[Sample]:
        """Official: the points of the whole batch, of all processes."""
        if not self.official or processes() == 1:
            return batch
        everyone = gathered(torch.cat(batch[0].batch_points))
        return [sample._replace(batch_points=(everyone,)) for sample in batch]

    def terms(self, images: Images) -> dict[str, Tensor]:
        """The terms of each image's likelihood."""
        density = images.density
        distance = nearest_point(wide(images.points), images.cells, images.stride).distance
        dummy = self._dummy(distance, images)
        moments = self._moments(images, dummy)
        residual = density - moments.mean.to(density.dtype)
        independent = residual.square() / moments.variance.to(density.dtype)
        chosen = (residual.flatten(1).gather(1, moments.chosen) * moments.kept).unsqueeze(2)
        operator = self._operator(images, moments).to(density.dtype)
        if self.official:
            correlation = -(chosen.mT @ operator @ chosen).flatten()
        else:
            own = independent.flatten(1).gather(1, moments.chosen)
            correlation = (operator @ chosen).square().sum((1, 2)) - (own * moments.kept).sum(1)
        half, zero = self.weight / 2, torch.zeros_like(density[:, 0, 0])
        terms = {"diagonal": half * independent.sum((1, 2)), "correlation": half * correlation}
        if self.regularizer:
            terms["counts"] = self._count_errors(images, distance, dummy)
        terms = {name: images.where_people(values, 0) for name, values in terms.items()}
        return terms | {"empty": images.where_people(zero, density.sum((1, 2)).abs())}

    def image_target(self, sample: Sample) -> Tensor:
        """The mean of the density under annotation noise, whatever is predicted: the likelihood's centre."""
        if len(sample.points) == 0:
            return torch.zeros_like(sample.density)
        images = side_by_side([sample])
        distance = nearest_point(wide(images.points), images.cells, images.stride).distance
        dummy = self._dummy(distance, images)
        return self._moments(images, dummy).mean[0].to(sample.density.dtype)

    def _dummy(self, distance: Tensor, images: Images) -> Tensor:
        """Squared distance of the background's dummy from each cell, given the distance of the nearest head."""
        if not self.background:
            return torch.full_like(distance, torch.inf)
        reach = math.sqrt(self.noise + self.kernel)
        margin = wide(images.short_side).view(-1, 1, 1) * self.background_ratio
        return (margin * torch.exp(-distance / reach)).square()

    def _moments(self, images: Images, dummy: Tensor) -> _Moments:
        """Mean and variance of every cell, and the cells whose correlations are kept; in float64."""
        points = wide(images.points)
        total, middle = self.noise + self.kernel, self.noise + self.kernel / 2
        rows, columns = axis_gaussians(points, images.cells, images.stride, total)
        mean = (wide(images.visible).unsqueeze(2) * rows).mT @ columns / (2 * math.pi * total)
        squares = rows.square().mT @ columns.square() / (2 * math.pi * total) ** 2
        rows, columns = axis_gaussians(points, images.cells, images.stride, middle)
        peak = 1 / (4 * math.pi * self.kernel)  # G(0; 2s)
        crowd = peak * (rows.mT @ columns) / (2 * math.pi * middle) - squares
        variance = crowd + peak * _gaussian(dummy, middle)
        variance = variance + self.floor if self.add_floor else variance.clamp(min=self.floor)

        largest = crowd.flatten(1).topk(min(_MOST_CELLS, crowd[0].numel()))
        shares = largest.values.cumsum(1) / crowd.sum((1, 2)).unsqueeze(1)
        count = (shares <= self.ratio).sum(1, keepdim=True) + 1
        if free_to_look(shares):
            shares = shares[:, : count.max()]
        kept = (torch.arange(shares.shape[1], device=count.device) < count).to(images.density.dtype)
        factor = wide(images.counts) / mean.sum((1, 2)).clamp(min=_LEAST_MASS)
        factor = images.where_people(factor, 1).view(-1, 1, 1)
        return _Moments(mean * factor, variance * factor**2, largest.indices[:, : shares.shape[1]], kept, factor)

    def _operator(self, images: Images, moments: _Moments) -> Tensor:
        """What turns the chosen residuals into the likelihood's correlation, (B, M, M) in float64.

        Official: B / factor^2 with B = (V C^-1 V + V)^-1, to be used as r' B r. Paper: L^-1 / factor with L L' the
        covariance, to be used as |L^-1 r|^2, which cannot turn negative by rounding.
        """
        variance = (moments.variance / moments.factor**2).flatten(1).gather(1, moments.chosen) + _RIDGE
        if self.official:
            everyone = torch.cat([wide(points) for points in images.samples[0].batch_points])
            correlation = moments.only(self._correlation(images, everyone, len(everyone), moments.chosen))
            correlation.diagonal(dim1=1, dim2=2).fill_(_RIDGE)
            diagonal = torch.diag_embed(variance)
            return _inverse(diagonal @ _inverse(correlation) @ diagonal + diagonal) / moments.factor**2
        covariance = moments.only(self._correlation(images, wide(images.points), 0, moments.chosen))
        covariance.diagonal(dim1=1, dim2=2).copy_(variance)
        root = torch.linalg.cholesky_ex(covariance, check_errors=free_to_look(covariance)).L
        identity = torch.eye(root.shape[1], dtype=root.dtype, device=root.device)
        whitening: Tensor = torch.linalg.solve_triangular(root, identity, upper=False)
        return whitening / moments.factor

    def _correlation(self, images: Images, points: Tensor, extra: int, chosen: Tensor) -> Tensor:
        """Covariance of the chosen cells before rescaling, (B, M, M).

        Args:
            images: Those of the cells.
            points: What the first sum runs over: (B, n, 2), each image's own, or (N, 2), the same for all.
            extra: How often the kernel between the cells is added: the number of the latter [code].
            chosen: (B, M) flat indices of the cells.
        """
        height, width = images.cells
        stride, own = images.stride, wide(images.points)
        row, column = chosen // width, chosen % width
        # The midpoints of cell centres lie on a lattice of half the stride: one separable map holds all of them.
        middle = self.noise + self.kernel / 2
        rows, columns = axis_gaussians(points, (2 * height - 1, 2 * width - 1), stride / 2, middle, offset=1.0)
        crowd = (rows.mT @ columns).flatten(-2) / (2 * math.pi * middle)
        across = (row.unsqueeze(2) + row.unsqueeze(1)) * (2 * width - 1) + column.unsqueeze(2) + column.unsqueeze(1)
        between = crowd.expand(len(chosen), -1).gather(1, across.flatten(1)).view_as(across)

        centres = cell_centres((height, width), stride, own)[chosen]
        gaps = (centres.unsqueeze(2) - centres.unsqueeze(1)).square().sum(-1)
        near = _gaussian(gaps, 2 * self.kernel)
        rows, columns = axis_gaussians(own, (height, width), stride, self.noise + self.kernel)
        means = (_picked(rows, row) * _picked(columns, column)) / (2 * math.pi * (self.noise + self.kernel))
        return near * between + near * extra - means.mT @ means

    def _count_errors(self, images: Images, distance: Tensor, dummy: Tensor) -> Tensor:
        """The Bayesian regulariser, |w_k - count_k| summed over heads plus the background's count, (B,)."""
        people, background = expected_counts(images, self.noise + self.kernel, distance, dummy)
        return (images.visible - people).abs().sum(1) + background


class _Moments(NamedTuple):
    """Mean and variance of the density under annotation noise.

    Attributes:
        mean: (B, h, w) people per cell.
        variance: (B, h, w).
        chosen: (B, M) flat indices of the cells of largest variance.
        kept: (B, M) 1 for those whose correlations are kept: all of them on a CPU, where the others are left out.
        factor: (B, 1, 1) by which the density per square pixel was multiplied.
    """

    mean: Tensor
    variance: Tensor
    chosen: Tensor
    kept: Tensor
    factor: Tensor

    def only(self, matrix: Tensor) -> Tensor:
        """A matrix over the chosen cells, with zeros off the diagonal where one of the two is not kept.

        With the residuals of those cells 0, they change nothing: what is inverted falls into two blocks.
        """
        kept = self.kept.to(matrix.dtype)
        return matrix * kept.unsqueeze(2) * kept.unsqueeze(1)


def _picked(factors: Tensor, places: Tensor) -> Tensor:
    """The factors (B, n, cells) at the places (B, M) of an axis, (B, n, M)."""
    return factors.gather(2, places.unsqueeze(1).expand(-1, factors.shape[1], -1))


def _inverse(matrix: Tensor) -> Tensor:
    """The inverse. Elsewhere than on a CPU it isn't checked for being one, for which the device would have to wait."""
    inverse: Tensor = torch.linalg.inv_ex(matrix, check_errors=free_to_look(matrix)).inverse
    return inverse


def _gaussian(squared: Tensor, variance: float) -> Tensor:
    """Density of a 2-D Gaussian at a squared distance, per square pixel."""
    return torch.exp(-squared / (2 * variance)) / (2 * math.pi * variance)
