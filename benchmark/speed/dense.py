"""The losses as their formulas read, with matrices of points x cells: what speed is measured against.

Written for clarity, as one would write them first, in the dtype of the prediction and with autograd. They have the
values and gradients of the losses (`tests/benchmark/speed/test_dense.py`), take the same time as such code does
elsewhere, and as much memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from losses import CrowdLoss, load
from losses.base import Prediction, Target
from losses.discovery import parameters

__all__ = ["DENSE", "OFFICIAL", "Reference", "reference"]

Reference = Callable[[Prediction, Target], Tensor]
"""The loss of a batch, a scalar with gradient."""
_Image = Callable[[Tensor, Tensor, int, float], Tensor]


def reference(loss: CrowdLoss, name: str) -> Reference | None:
    """The same loss with whole matrices; None where these parameters have none.

    Args:
        loss: A loss, whose parameters decide: there is a reference for the defaults, of DM-Count for both variants.
        name: Its name in the zoo.
    """
    found = (OFFICIAL if loss.official else DENSE).get(name)
    if found is None:
        return None
    plain = load(name)(variant=loss.variant)
    same = all(
        getattr(loss, key, None) == getattr(plain, key, None) for key in parameters(type(plain)) if key != "validate"
    )
    return found if same else None


def _over_images(one: _Image) -> Reference:
    """The mean over the images of a batch."""

    def batch(prediction: Prediction, target: Target) -> Tensor:
        density, side = prediction.density, float(min(target.image_size))
        assert density is not None
        found = [one(d[0], p.to(d), prediction.stride, side) for d, p in zip(density, target.points, strict=True)]
        return torch.stack(found).mean()

    return batch


def _centres(density: Tensor, stride: int) -> Tensor:
    """Cell centres, (h w, 2) as (x, y)."""
    h, w = density.shape
    y, x = torch.meshgrid(torch.arange(h).to(density), torch.arange(w).to(density), indexing="ij")
    return (torch.stack([x, y], dim=-1).view(-1, 2) + 0.5) * stride


def _gaps(density: Tensor, points: Tensor, stride: int) -> Tensor:
    """Squared distances, (n, h w)."""
    return (_centres(density, stride).unsqueeze(0) - points.unsqueeze(1)).square().sum(-1)


def _gaussian(gaps: Tensor, variance: float) -> Tensor:
    return torch.exp(-gaps / (2 * variance)) / (2 * math.pi * variance)


def _pml(density: Tensor, points: Tensor, stride: int, side: float) -> Tensor:
    distance, flat = _gaps(density, points, stride).sqrt(), density.flatten()
    mask = F.one_hot(distance.argmin(0), len(points)).T.to(density)
    cells = mask.sum(1)
    reach = (distance * mask).amax(1).clamp(min=32)
    cost = torch.expm1(distance / reach.unsqueeze(1)) * mask
    centred = cost - (cost.sum(1) / cells.clamp(min=1)).unsqueeze(1) * mask
    return (centred * flat).sum() + (mask @ flat - 1).abs().sum()


def _l2(density: Tensor, points: Tensor, stride: int, side: float) -> Tensor:
    h, w = density.shape
    masses = []
    for axis, count in ((1, h), (0, w)):
        edges = torch.arange(count + 1).to(density) * stride
        below = 0.5 * (1 + torch.erf((edges - points[:, axis : axis + 1]) / (4 * math.sqrt(2))))
        masses.append(below.diff(dim=1) / (below[:, -1:] - below[:, :1]))
    target = (masses[0].unsqueeze(2) * masses[1].unsqueeze(1)).sum(0)
    return (density - target).square().sum()


def _bl(density: Tensor, points: Tensor, stride: int, side: float) -> Tensor:
    gaps = _gaps(density, points, stride)
    dummy = (0.15 * side - gaps.amin(0, keepdim=True).sqrt()).clamp(min=0).square()
    counts = (-torch.cat([gaps, dummy]) / 128).softmax(0) @ density.flatten()
    return (counts[:-1] - 1).abs().sum() + counts[-1].abs()


def _noisecc(density: Tensor, points: Tensor, stride: int, side: float) -> Tensor:
    a = s = 64.0
    gaps, flat = _gaps(density, points, stride), density.flatten()
    each = _gaussian(gaps, a + s)
    mean, peak = each.sum(0), 1 / (4 * math.pi * s)
    crowd = peak * _gaussian(gaps, a + s / 2).sum(0) - each.square().sum(0)
    dummy = (side * 0.15 * torch.exp(-gaps.amin(0).sqrt() / math.sqrt(a + s))).square()
    variance = crowd + peak * _gaussian(dummy, a + s / 2) + 1e-14
    order = crowd.argsort(descending=True)
    kept = order[: min(100, 1 + int((crowd[order].cumsum(0) / crowd.sum() <= 0.6).sum()))]
    x = _centres(density, stride)[kept]
    near = _gaussian((x.unsqueeze(1) - x).square().sum(-1), 2 * s)
    middle = (x.unsqueeze(1) + x) / 2
    between = _gaussian((middle.unsqueeze(2) - points).square().sum(-1), a + s / 2).sum(-1)
    covariance = near * between - each[:, kept].T @ each[:, kept]
    covariance.diagonal().copy_(variance[kept] + 1e-10)
    factor = len(points) / mean.sum()
    residual = flat - mean * factor
    independent = residual.square() / (variance * factor**2)
    chosen = residual[kept] / factor
    exact: Tensor = chosen @ torch.linalg.solve(covariance, chosen)
    return 0.005 * (independent.sum() - independent[kept].sum() + exact)


def _dm_count(density: Tensor, points: Tensor, stride: int, side: float) -> Tensor:
    """The paper variant, its rounds in the log domain, as POT makes them."""
    mass, n = density.sum(), len(points)
    share = density / mass
    with torch.no_grad():
        cost, b = _gaps(density, points, stride) / 10, share.flatten()
        log_b = b.log()
        f = torch.full_like(points[:, 0], math.log(n))
        for done in range(1, 101):
            g = -torch.logsumexp(f.unsqueeze(1) - math.log(n) - cost, 0)
            f = -torch.logsumexp(g + log_b - cost, 1)
            if done % 10 == 1:
                plan = torch.exp(f.unsqueeze(1) + g - cost) * b / n
                if torch.linalg.vector_norm(plan.sum(0) - b) < 1e-9:
                    break
        g = -torch.logsumexp(f.unsqueeze(1) - math.log(n) - cost, 0)
    transport = 10 * (f.mean() + (g * share.flatten()).sum())
    h, w = density.shape
    row, column = ((points[:, k] / stride).long().clamp(0, count - 1) for k, count in ((1, h), (0, w)))
    dots = torch.zeros_like(density).index_put((row, column), torch.ones_like(f), accumulate=True)
    variation = n / 2 * (share - dots / n).abs().sum()
    return (mass - n).abs() + 0.1 * transport + 0.01 * variation


def _official_dm_count(prediction: Prediction, target: Target) -> Tensor:
    """The official variant: transport is summed over the batch, count and total variation are averaged."""
    density, stride = prediction.density, prediction.stride
    assert density is not None
    total = density.new_zeros(())
    for maps, heads in zip(density, target.points, strict=True):
        image, points = maps[0], heads.to(density)
        mass, n = image.sum(), len(points)
        share = (image / (mass + 1e-6)).detach().flatten()
        kernel = torch.exp(-_gaps(image, points, stride) / 10)
        u = torch.full_like(points[:, 0], 1 / n)
        for done in range(1, 101):
            v = share / (u @ kernel + 1e-16)
            u = (1 / n) / (kernel @ v + 1e-16)
            if done % 10 == 0 and (share - v * (u @ kernel)).square().sum() <= 1e-9:
                break
        beta = 10 * (v + 1e-16).log()
        flat, sum_ = image.detach().flatten(), mass.detach()
        slope = sum_ / (sum_**2 + 1e-8) * beta - (flat * beta).sum() / (sum_**2 + 1e-8)
        transport = (slope * (image.flatten() - flat)).sum()
        pixel = points.round()
        column, row = ((pixel[:, k].clamp(0, target.image_size[1 - k] - 1) / stride).long() for k in (0, 1))
        dots = torch.zeros_like(image).index_put((row, column), torch.ones_like(u), accumulate=True)
        variation = n * (image / (mass + 1e-6) - dots / (n + 1e-6)).abs().sum()
        total = total + 0.1 * transport + ((mass - n).abs() + 0.01 * variation) / len(density)
    return total


def _gl(density: Tensor, points: Tensor, stride: int, side: float) -> Tensor:
    tau, reach, blur = 0.1, 0.5, 0.01
    size = float(max(density.shape) * stride)
    x, y, d = _centres(density, stride) / size, points / size, density.flatten()
    distance = (x.unsqueeze(0) - y.unsqueeze(1)).square().sum(-1).sqrt()
    cost = torch.expm1(distance / (0.1 * (x[:, 1] + y[:, 1:2]) + 0.5))
    box = torch.cat([x, y]).amax(0) - torch.cat([x, y]).amin(0)
    diameter = float(torch.linalg.vector_norm(box))
    steps = max(0, math.ceil(math.log(blur / diameter) / math.log(0.5)))
    with torch.no_grad():
        log_d = torch.where(d > 0, d.clamp(min=1e-38).log(), -1e5)

        def update(f: Tensor, g: Tensor, eps: float) -> tuple[Tensor, Tensor]:
            damping = 1 / (1 + eps / reach)
            cells = -eps * torch.logsumexp((f.unsqueeze(1) - cost) / eps, 0)
            heads = -eps * torch.logsumexp(log_d + (g - cost) / eps, 1)
            return damping * heads, damping * cells

        f, g = update(torch.zeros_like(y[:, 0]), torch.zeros_like(d), diameter)
        for eps in [diameter, *(diameter * 0.5**k for k in range(steps)), blur]:
            next_f, next_g = update(f, g, eps)
            f, g = (f + next_f) / 2, (g + next_g) / 2
        f, g = update(f, g, blur)
        kernel = torch.exp((f.unsqueeze(1) + g - cost) / blur)
    plan = kernel * d + 1e-20
    marginal = [-(reach + blur / 2) * torch.expm1(-potential / reach) for potential in (g, f)]
    emd = (d * marginal[0]).sum() + marginal[1].sum()
    point = (kernel @ d - 1).abs().sum()
    pixel = ((kernel * d.detach()).sum(0) - d).square().sum()
    entropy = blur * (plan * plan.log()).mean()
    return emd + tau * (point + pixel) + entropy


def _chfl(density: Tensor, points: Tensor, stride: int, side: float) -> Tensor:
    t = torch.arange(-30, 30).to(density) * 0.01
    fy, fx = torch.meshgrid(t, t, indexing="ij")

    def spectrum(places: Tensor, masses: Tensor) -> Tensor:
        phase = fy.unsqueeze(2) * places[:, 1] + fx.unsqueeze(2) * places[:, 0]
        return torch.stack([(phase.cos() * masses).sum(2), (phase.sin() * masses).sum(2)], dim=-1)

    blur = torch.exp(-(fx.square() + fy.square()) * 32).unsqueeze(2)
    heads = blur * spectrum(points, torch.ones_like(points[:, 0]))
    difference = spectrum(_centres(density, stride), density.flatten()) - heads
    moduli: Tensor = torch.linalg.vector_norm(difference, dim=-1)
    return 1e-4 * moduli.sum()


def _p2p(prediction: Prediction, target: Target) -> Tensor:
    points, logits = prediction.points, prediction.logits
    assert points is not None
    assert logits is not None
    person = torch.zeros(logits.shape[:2], dtype=torch.long)
    squares = points.new_zeros(())
    for b, raw in enumerate(target.points):
        heads = raw.to(points)
        cost = 0.05 * torch.cdist(points[b], heads, compute_mode="donot_use_mm_for_euclid_dist")
        cost = cost - logits[b].softmax(-1)[:, 1:]
        proposal, head = map(torch.from_numpy, linear_sum_assignment(cost.detach().numpy()))
        person[b, proposal] = 1
        squares = squares + (points[b, proposal] - heads[head]).square().sum()
    weight = logits.new_tensor([0.5, 1.0])
    entropy = F.cross_entropy(logits.flatten(0, 1), person.flatten(), weight)
    return entropy + 2e-4 * squares / max(sum(map(len, target.points)), 1)


DENSE: dict[str, Reference] = {
    "pml": _over_images(_pml),
    "l2": _over_images(_l2),
    "bl": _over_images(_bl),
    "noisecc": _over_images(_noisecc),
    "dm_count": _over_images(_dm_count),
    "gl": _over_images(_gl),
    "chfl": _over_images(_chfl),
    "p2p": _p2p,
}
"""One for each loss, of its paper variant."""
OFFICIAL: dict[str, Reference] = {"dm_count": _official_dm_count}
"""Of official variants."""
