"""BL: the Bayesian loss (Ma, Wei, Hong, Gong, ICCV 2019)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from losses.base import Sample, check_number
from losses.geometry import axis_gaussians, cell_centres, counted, free_to_look, nearest_point, wide
from losses.images import Images, TogetherLoss, side_by_side

__all__ = ["BL", "expected_counts"]

_FAR = 50.0
"""Exponent beyond which plain exponentials would leave float32's range, and a cell gets a softmax of its own."""
_NEGLIGIBLE = 40.0
"""exp(-40) = 4e-18: a head this much less likely than the likeliest one has no part in a far cell."""
_TILE = 1 << 22
"""Distances held at once by the search for the heads of far cells."""


class BL(TogetherLoss):
    r"""Bayesian loss: every head expects one person from the cells that probably belong to it, the background none.

        q_k(i) = exp(-|x_i - y_k|^2 / 2 sigma^2) / Z_i,     q_0(i) = exp(-D_i^2 / 2 sigma^2) / Z_i
        loss   = sum_k |w_k - sum_i q_k(i) d_i|  +  |sum_i q_0(i) d_i|

    with w_k the visible share of the head (1 in the paper) and the background a dummy head near x_i: if x_i is r_i from
    its nearest head, the dummy is D_i = max(S background_ratio - r_i, 0) away, S the shorter side of the whole image.
    Clamped (ours), because beyond that range the paper's dummy would recede again. All mass of an image without people
    is background. Where S background_ratio is no more than a few sigma, as on inputs below 200 pixels, the dummy takes
    mass from the heads' own cells and the optimum overcounts: give `Target.short_side`.

    Terms: `people`, `background`.

    Differences of `variant="official"` (released code, commit 5f10bfc):
        * D_i^2 = (S background_ratio)^2 / (r_i^2 + 1e-5), the reciprocal in place of the difference.
        * `background_ratio` is 1 (UCF-QNRF; ShanghaiTech A: 0.1).

    Args:
        sigma: Standard deviation of a head's likelihood, default 8 pixels [code].
        background: Whether there is a background (BL+, default) or not (BL).
        background_ratio: Default None: 0.15 for `paper` [paper], 1.0 for `official` [code].
        variant: See `CrowdLoss`.
        validate: See `CrowdLoss`.

    Raises:
        ValueError, TypeError: If a parameter is out of range.
    """

    reference: ClassVar[str] = "Ma, Wei, Hong, Gong: Bayesian Loss for Crowd Count Estimation, ICCV 2019"
    main_weight: ClassVar[str | None] = "background_ratio"

    def __init__(
        self,
        *,
        sigma: float = 8.0,
        background: bool = True,
        background_ratio: float | None = None,
        variant: str = "paper",
        validate: bool | None = None,
    ) -> None:
        super().__init__(variant=variant, validate=validate)
        if background_ratio is None:
            background_ratio = 1.0 if self.official else 0.15
        check_number("sigma", sigma, above=0)
        check_number("background_ratio", background_ratio, above=0)
        self.sigma, self.background, self.background_ratio = sigma, background, background_ratio

    def terms(self, images: Images) -> dict[str, Tensor]:
        """Count errors of the heads and of the background of each image."""
        distance = nearest_point(wide(images.points), images.cells, images.stride).distance
        people, background = expected_counts(images, self.sigma**2, distance, self._dummy(distance, images))
        missing = (images.visible - people).abs().sum(1)
        empty = images.density.sum((1, 2)).abs()
        return {
            "people": images.where_people(missing, 0),
            "background": images.where_people(background.abs(), empty),
        }

    def image_target(self, sample: Sample) -> Tensor:
        """The slides' one-cell target (`losses.proximal.bayesian`) for many heads (ours).

        p* = a - gradient / tau_j, tau_j = n_j / |w_j - count_j| on the n_j cells nearest to head j: the counts share
        cells out by the posterior, tau by the nearest head.
        """
        if len(sample.points) == 0:
            return torch.zeros_like(sample.density)
        with torch.enable_grad():
            density = sample.density.detach().requires_grad_()
            images = side_by_side([sample._replace(density=density)])
            (gradient,) = torch.autograd.grad(torch.cat([*self.terms(images).values()]).sum(), density)
        nearest = nearest_point(wide(images.points), images.cells, images.stride)
        owner, distance = nearest.owner[0], nearest.distance
        people, _ = expected_counts(images, self.sigma**2, distance, self._dummy(distance, images))
        cells = counted(owner.flatten(), len(sample.points)).clamp(min=1)
        step = (sample.visible - people[0]).abs() / cells
        return (density - step[owner] * gradient).detach()

    def _dummy(self, distance: Tensor, images: Images) -> Tensor:
        """Squared distance of the background's dummy head from each cell, given that of the nearest real one."""
        if not self.background:
            return torch.full_like(distance, torch.inf)
        margin = wide(images.short_side).view(-1, 1, 1) * self.background_ratio
        if self.official:
            return margin.square() / (distance.square() + 1e-5)
        return (margin - distance).clamp(min=0).square()


def expected_counts(images: Images, variance: float, distance: Tensor, dummy: Tensor) -> tuple[Tensor, Tensor]:
    """Shares the density out among heads and background: sum_i q_k(i) d_i.

    A head's likelihood is a separable Gaussian, so that the sums over cells are two small matrix products. Where even
    the likeliest explanation of a cell underflows, far from everybody, a softmax over its few nearest heads serves. To
    ask whether there are such cells would make an accelerator wait: there all cells have a softmax over all heads.

    Args:
        images: In an image without people there is one at (0, 0).
        variance: Squared standard deviation of the likelihood, pixels^2.
        distance: (B, h, w) distance from each cell to its nearest head, pixels, in float64.
        dummy: (B, h, w) squared distance from each cell to its background dummy, pixels^2; infinite without background.

    Returns:
        People expected at each head, (B, n), and in the background, (B,).
    """
    density, points = images.density, wide(images.points)
    unseen = dummy / (2 * variance)
    if not free_to_look(density):
        return _counts_by_tiles(density, cell_centres(images.cells, images.stride, points), unseen, points, variance)
    least = torch.minimum(distance.square() / (2 * variance), unseen)
    far = least > _FAR

    rows, columns = axis_gaussians(points, images.cells, images.stride, variance)
    evidence = rows.mT @ columns + torch.exp(-unseen)
    shared = density * torch.where(far, 0, 1 / evidence).to(density.dtype)
    rows, columns = rows.to(density.dtype), columns.to(density.dtype)
    people = ((rows @ shared) * columns).sum(2)
    background = (shared * torch.exp(-unseen).to(density.dtype)).sum((1, 2))

    for image in far.flatten(1).any(1).nonzero()[:, 0].tolist():
        there = far[image]
        centres = cell_centres(images.cells, images.stride, points)[there.flatten()]
        pairs = _far_posterior(points[image], centres, unseen[image][there], least[image][there], variance)
        remote = density[image][there]
        more, place = remote[pairs.cell] * pairs.share.to(density.dtype), pairs.head + image * people.shape[1]
        people = people.flatten().index_add(0, place, more).view_as(people)
        rest = (remote * pairs.background.to(density.dtype)).sum()
        background = background.index_add(0, torch.tensor([image]), rest.view(1))
    return people, background


def _counts_by_tiles(
    density: Tensor, centres: Tensor, unseen: Tensor, points: Tensor, variance: float
) -> tuple[Tensor, Tensor]:
    """`expected_counts` by comparing all pairs, tile by tile; each tile is computed again in the backward pass.

    Args:
        density: (B, h, w).
        centres: (h w, 2) of the cells, pixels.
        unseen: (B, h, w) exponent of the background, D^2 / 2 variance.
        points: (B, n, 2) heads, pixels.
        variance: sigma^2, pixels^2.
    """
    x, y = points[..., 0:1], points[..., 1:2]

    def counts(mass: Tensor, cells: Tensor, dummy: Tensor) -> tuple[Tensor, Tensor]:
        gaps = (cells[:, 0] - x).square() + (cells[:, 1] - y).square()
        posterior = torch.cat([gaps / (-2 * variance), -dummy.unsqueeze(1)], 1).softmax(1).to(mass.dtype)
        return (posterior[:, :-1] @ mass.unsqueeze(2)).squeeze(2), (posterior[:, -1] * mass).sum(1)

    size = max(1, _TILE // (x.numel() + len(x)))
    parts = zip((density.flatten(1), centres, unseen.flatten(1)), (1, 0, 1), strict=True)
    tiles = zip(*(torch.split(whole, size, dim) for whole, dim in parts), strict=True)
    found = [checkpoint(counts, *tile, use_reentrant=False, preserve_rng_state=False) for tile in tiles]
    people, background = (torch.stack(parts).sum(0) for parts in zip(*found, strict=True))
    return people, background


class _Pairs(NamedTuple):
    """The heads that far cells may belong to: P pairs (cell, head) and the share of each.

    Attributes:
        cell: (P,) index into the far cells.
        head: (P,) index into the points.
        share: (P,) posterior of the head.
        background: (F,) posterior of the background of each far cell.
    """

    cell: Tensor
    head: Tensor
    share: Tensor
    background: Tensor


def _far_posterior(points: Tensor, centres: Tensor, dummy: Tensor, least: Tensor, variance: float) -> _Pairs:
    """The posterior of cells whose every likelihood underflows, by a softmax shifted to the likeliest.

    Only heads nearly as near as the nearest count, a thin ring: the pairs are few although all are looked at.

    Args:
        points: (n, 2) heads, pixels.
        centres: (F, 2) far cells, pixels.
        dummy: (F,) exponent of the background, D^2 / 2 variance.
        least: (F,) smallest exponent of each cell.
        variance: sigma^2, pixels^2.
    """
    cells, heads, weights = [], [], []
    tile = max(1, _TILE // len(points))
    for start in range(0, len(centres), tile):
        gaps = torch.cdist(centres[start : start + tile], points, compute_mode="donot_use_mm_for_euclid_dist").square()
        excess = gaps / (2 * variance) - least[start : start + tile, None]
        cell, head = (excess < _NEGLIGIBLE).nonzero(as_tuple=True)
        cells.append(cell + start)
        heads.append(head)
        weights.append(torch.exp(-excess[cell, head]))
    cell, head, weight = torch.cat(cells), torch.cat(heads), torch.cat(weights)
    background = torch.exp(least - dummy)
    evidence = background.index_add(0, cell, weight)
    return _Pairs(cell, head, weight / evidence[cell], background / evidence)
