"""The losses written straight from their formulas, with dense cells x points tensors and no regard for speed.

Each function takes one image in float64, with at least one head: density (h, w), points (n, 2), stride.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage, stats
from torch import Tensor


def centres(density: Tensor, stride: int, offset: float = 0.5) -> Tensor:
    """Cell centres, (h * w, 2) as (x, y)."""
    h, w = density.shape
    return torch.tensor([[(c + offset) * stride, (r + offset) * stride] for r in range(h) for c in range(w)]).double()


def squared(density: Tensor, points: Tensor, stride: int, offset: float = 0.5) -> Tensor:
    """Squared distances, (n, h * w)."""
    return ((centres(density, stride, offset)[None] - points[:, None]) ** 2).sum(-1)


def gaussian(gap: Tensor, variance: float) -> Tensor:
    return torch.exp(-gap / (2 * variance)) / (2 * math.pi * variance)


def pml_cells(density: Tensor, points: Tensor, stride: int, offset: float = 0.5) -> list[tuple[Tensor, Tensor]]:
    """For each head its part of the density and the cost of each cell, exponential with radius 32."""
    distance = squared(density, points, stride, offset).sqrt()
    owner = distance.argmin(0)
    parts = []
    for k in range(len(points)):
        mine = owner == k
        d = distance[k, mine]
        reach = max(d.max().item(), 32.0) if len(d) else 32.0
        parts.append((density.flatten()[mine], torch.exp(d / reach) - 1))
    return parts


def proximal_l2(a: Tensor, c: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """min_p c'p + tau/2 |p - a|^2 with 1'p = 1, and its argument p* (the slides' closed form)."""
    p = a - c / tau
    p = p + (1 - p.sum()) / len(a)
    return c @ p + tau / 2 * (p - a).square().sum(), p


def proximal_kl(a: Tensor, c: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """min_p c'p + tau KL(p | a) with 1'p = 1, and its argument p*."""
    p = a * torch.exp(-c / tau)
    p = p / p.sum()
    divergence = torch.special.xlogy(p, p / a.clamp(min=1e-300)).sum() - p.sum() + a.sum()
    return c @ p + tau * divergence, p


def pml_l1(density: Tensor, points: Tensor, stride: int, offset: float = 0.5) -> tuple[Tensor, Tensor]:
    """Background and count of the split view with the L1 norm."""
    background, count = torch.zeros(()).double(), torch.zeros(()).double()
    for a, c in pml_cells(density, points, stride, offset):
        count = count + (a.sum() - 1).abs()
        if len(a):
            background = background + a @ (c - c.mean())
    return background, count


def l2_target_exact(
    density: Tensor, points: Tensor, stride: int, sigma: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Mass of every Gaussian in every cell, normalised to the image, by scipy's normal distribution."""
    h, w = density.shape
    target = np.zeros((h, w))
    for (x, y), s in zip(points.tolist(), sigma, strict=True):
        x, y = min(max(x, 0), size[1]), min(max(y, 0), size[0])
        columns = np.diff(stats.norm.cdf(np.minimum(np.arange(w + 1) * stride, size[1]), x, s))
        rows = np.diff(stats.norm.cdf(np.minimum(np.arange(h + 1) * stride, size[0]), y, s))
        target += np.outer(rows / rows.sum(), columns / columns.sum())
    return target


def l2_target_pixels(density: Tensor, points: Tensor, stride: int, sigma: float, size: tuple[int, int]) -> np.ndarray:
    """Dots on pixels, convolved with a normalised 15 x 15 kernel and zero padding, summed over cells."""
    dots = np.zeros(size)
    for x, y in points.tolist():
        dots[min(max(round(y), 0), size[0] - 1), min(max(round(x), 0), size[1] - 1)] += 1
    axis = np.exp(-(np.arange(-7, 8) ** 2) / (2 * sigma**2))
    kernel = np.outer(axis, axis) / axis.sum() ** 2
    full = ndimage.convolve(dots, kernel, mode="constant")
    h, w = density.shape
    return full.reshape(h, stride, w, stride).sum((1, 3))


def bl(density: Tensor, points: Tensor, stride: int, sigma: float, dummy: Tensor | None, visible: Tensor) -> Tensor:
    """The Bayesian loss by one dense softmax; `dummy` is the squared distance of the background, (h * w,)."""
    exponents = -squared(density, points, stride) / (2 * sigma**2)
    if dummy is not None:
        exponents = torch.cat([exponents, -dummy[None] / (2 * sigma**2)])
    counts = exponents.softmax(0) @ density.flatten()
    wanted = visible if dummy is None else torch.cat([visible, visible.new_zeros(1)])
    return (counts - wanted).abs().sum()


def noisecc(
    density: Tensor, points: Tensor, stride: int, short_side: float, visible: Tensor, *, official: bool
) -> tuple[Tensor, Tensor]:
    """Diagonal and correlation of the likelihood at the published constants (alpha = sigma = 8)."""
    a = s = 64.0
    gaps, d = squared(density, points, stride), density.flatten()
    each = gaussian(gaps, a + s)
    mean, own = (visible[:, None] * each).sum(0), (each**2).sum(0)
    crowd = gaussian(gaps, a + s / 2).sum(0) / (4 * math.pi * s) - own
    dummy = (short_side * 0.15 * torch.exp(-gaps.amin(0).sqrt() / math.sqrt(a + s))) ** 2
    variance = crowd + gaussian(dummy, a + s / 2) / (4 * math.pi * s) + 1e-14
    order = crowd.argsort(descending=True)
    kept = order[: min(100, 1 + int((crowd[order].cumsum(0) / crowd.sum() <= 0.6).sum()))]

    x = centres(density, stride)[kept]
    pair = gaussian(((x[:, None] - x[None]) ** 2).sum(-1), 2 * s)
    middle = (x[:, None] + x[None]) / 2
    between = gaussian(((middle[:, :, None] - points) ** 2).sum(-1), a + s / 2).sum(-1)
    covariance = pair * between - each[:, kept].T @ each[:, kept]
    if official:
        covariance = covariance + len(points) * pair
    factor = len(points) / mean.sum()
    residual = d - mean * factor
    diagonal = (residual**2 / (variance * factor**2)).sum()
    chosen = residual[kept] / factor
    v = torch.diag(variance[kept] + 1e-10)
    if official:
        covariance.fill_diagonal_(1e-10)
        inner = torch.linalg.inv(v @ torch.linalg.inv(covariance) @ v + v)
        return 0.005 * diagonal, -0.005 * (chosen @ inner @ chosen)
    covariance.fill_diagonal_(0)
    exact = chosen @ torch.linalg.solve(covariance + v, chosen)
    return 0.005 * diagonal, 0.005 * (exact - (residual[kept] ** 2 / (variance[kept] * factor**2)).sum())


def chfl_difference(density: Tensor, points: Tensor, stride: int) -> Tensor:
    """Difference of the two spectra, (60, 60) complex as [fy, fx], at the published constants."""
    t = torch.arange(-30, 30).double() * 0.01
    fy, fx = torch.meshgrid(t, t, indexing="ij")
    x = centres(density, stride)
    waves = torch.exp(1j * (fy[..., None] * x[:, 1] + fx[..., None] * x[:, 0]))
    heads = torch.exp(1j * (fy[..., None] * points[:, 1] + fx[..., None] * points[:, 0])).sum(-1)
    return (waves * density.flatten()).sum(-1) - torch.exp(-(fx**2 + fy**2) * 32) * heads
