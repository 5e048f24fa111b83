"""The fast paths against the direct formulas: value and gradient, both variants, sizes and strides of all kinds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import losses
from losses import Prediction, Target
from tests.references import naive

SCENES = {
    "wide": (8, (5, 9), 6),
    "tall": (4, (11, 6), 9),
    "one head": (8, (6, 6), 1),
    "crowded": (8, (6, 5), 60),
    "fine": (2, (16, 12), 4),
    "far apart": (32, (20, 24), 3),
}


@pytest.fixture(params=SCENES)
def scene(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, int, tuple[int, int]]:
    """Density (h, w) with gradient, points (n, 2), stride and image size."""
    stride, cells, count = SCENES[request.param]
    generator = torch.Generator().manual_seed(11)
    size = (cells[0] * stride, cells[1] * stride)
    density = (torch.rand(cells, generator=generator).double() - 0.2).clamp(min=0)
    points = torch.rand(count, 2, generator=generator).double() * torch.tensor([size[1], size[0]])
    return density.requires_grad_(), points, stride, size


def compare(loss: losses.CrowdLoss, scene, reference: Callable[[Tensor, Tensor, int], Tensor], **extras) -> None:
    density, points, stride, size = scene
    ours = loss(Prediction(stride, density=density[None, None]), Target([points], size, **extras))["loss"]
    theirs = reference(density, points, stride)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    (found,) = torch.autograd.grad(ours, density)
    (expected,) = torch.autograd.grad(theirs, density)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9 * expected.abs().max().item())


def test_pml_l1(scene) -> None:
    compare(losses.build("pml"), scene, lambda d, p, s: sum(naive.pml_l1(d, p, s)))


def test_pml_official(scene) -> None:
    def reference(density: Tensor, points: Tensor, stride: int) -> Tensor:
        return sum(naive.pml_l1(density, points, stride, offset=(stride - 1) / (2 * stride)))

    assert scene[0].sum() > 1, "the fallback is another formula"
    compare(losses.build("pml", variant="official"), scene, reference)


def test_pml_l2_is_the_proximal_problem(scene) -> None:
    """The split view against min_p itself; they differ by what does not depend on the density."""
    tau = 3.0

    def reference(density: Tensor, points: Tensor, stride: int) -> Tensor:
        total = torch.zeros(()).double()
        for a, c in naive.pml_cells(density, points, stride):
            if len(a):
                constant = c.mean() - (c - c.mean()).square().sum() / (2 * tau)
                total = total + naive.proximal_l2(a, c, tau)[0] - constant
            else:  # no cell: the missing person at the weight of one cell
                total = total + tau / 2
        return total

    compare(losses.build("pml", count_norm="l2", tau=tau), scene, reference)


def test_pml_l2_gradient_is_tau_times_the_step(scene) -> None:
    """Envelope theorem: dL/da = tau (a - p*), the target view."""
    density, points, stride, size = scene
    loss = losses.build("pml", count_norm="l2", tau=3.0)
    value = loss(Prediction(stride, density=density[None, None]), Target([points], size))["loss"]
    (gradient,) = torch.autograd.grad(value, density)
    owner = naive.squared(density, points, stride).argmin(0)
    for k, (a, c) in enumerate(naive.pml_cells(density, points, stride)):
        if len(a):
            step = 3.0 * (a - naive.proximal_l2(a, c, 3.0)[1])
            torch.testing.assert_close(gradient.flatten()[owner == k], step.detach())


def test_pml_kl_is_the_proximal_problem(scene) -> None:
    tau, floor = 0.7, 1e-3
    density, *rest = scene
    scene = ((density.detach() + 0.01).requires_grad_(), *rest)  # the reference has no derivative at 0

    def reference(density: Tensor, points: Tensor, stride: int) -> Tensor:
        total = torch.zeros(()).double()
        for a, c in naive.pml_cells(density, points, stride):
            if len(a):
                eta = (a * torch.exp(-c / tau)).sum()
                total = total + naive.proximal_kl(a, c, tau)[0] - tau * ((eta + floor) / eta).log()
            else:
                total = total - tau * math.log(floor) - tau
        return total

    compare(losses.build("pml", divergence="kl", tau=tau), scene, reference)


def test_l2_fixed(scene) -> None:
    def reference(density: Tensor, points: Tensor, stride: int) -> Tensor:
        sigma = np.full(len(points), 4.0)
        return (density - torch.tensor(naive.l2_target_exact(density, points, stride, sigma, scene[3]))).square().sum()

    compare(losses.build("l2"), scene, reference)


def test_l2_adaptive(scene) -> None:
    spacing = torch.linspace(5, 60, len(scene[1])).double()

    def reference(density: Tensor, points: Tensor, stride: int) -> Tensor:
        sigma = 0.3 * spacing.numpy()
        return (density - torch.tensor(naive.l2_target_exact(density, points, stride, sigma, scene[3]))).square().sum()

    compare(losses.build("l2", kernel="adaptive"), scene, reference, spacing=[spacing])


def test_l2_official(scene) -> None:
    def reference(density: Tensor, points: Tensor, stride: int) -> Tensor:
        target = torch.tensor(naive.l2_target_pixels(density, points, stride, 4.0, scene[3]))
        cosine = (density * target).sum() / (density.norm() * target.norm())
        return (density - target).square().sum() + 10 * (1 - cosine)

    compare(losses.build("l2", variant="official"), scene, reference)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("short_side", [60.0, 3000.0])
def test_bl(scene, variant: str, background: bool, short_side: float) -> None:
    visible = torch.linspace(0.3, 1, len(scene[1])).double()

    def reference(density: Tensor, points: Tensor, stride: int) -> Tensor:
        nearest = naive.squared(density, points, stride).amin(0)
        if variant == "official":
            dummy = short_side**2 / (nearest + 1e-5)
        else:
            dummy = (0.15 * short_side - nearest.sqrt()).clamp(min=0) ** 2
        return naive.bl(density, points, stride, 8.0, dummy if background else None, visible)

    extras = {"visible": [visible], "short_side": torch.tensor([short_side]).double()}
    compare(losses.build("bl", variant=variant, background=background), scene, reference, **extras)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_noisecc(scene, variant: str) -> None:
    visible = torch.linspace(0.3, 1, len(scene[1])).double()

    def reference(density: Tensor, points: Tensor, stride: int) -> Tensor:
        return sum(naive.noisecc(density, points, stride, 90.0, visible, official=variant == "official"))

    density, points, stride, size = scene
    target = Target([points], size, visible=[visible], short_side=torch.tensor([90.0]).double())
    ours = losses.build("noisecc", variant=variant)(Prediction(stride, density=density[None, None]), target)["loss"]
    theirs = reference(density, points, stride)
    # Inverting the correlation of up to 100 neighbouring cells amplifies float64's rounding.
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    (found,), (expected,) = torch.autograd.grad(ours, density), torch.autograd.grad(theirs, density)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("params", "norm"),
    [
        ({}, lambda d, n: 1e-4 * d.abs().sum()),
        ({"norm": "sparse"}, lambda d, n: 0.01 * d.abs().square().sum().sqrt()),
        ({"variant": "official"}, lambda d, n: 1e-4 * torch.view_as_real(d).square().sum(1).sqrt().sum()),
        ({"variant": "official", "norm": "sparse"}, lambda d, n: 0.01 * d.abs().square().sum().sqrt()),
    ],
)
def test_chfl(scene, params, norm) -> None:
    def reference(density: Tensor, points: Tensor, stride: int) -> Tensor:
        return norm(naive.chfl_difference(density, points, stride), len(points))

    compare(losses.build("chfl", **params), scene, reference)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("kind", ["map", "gaussian"])
def test_chfl_with_noise(scene, variant: str, kind: str) -> None:
    t = torch.arange(-30, 30).double() * 0.01
    squares = t[:, None] ** 2 + t**2
    if kind == "map":
        h, weight = torch.rand(60, 60, generator=torch.Generator().manual_seed(1)).double(), 0.5
        params = {"variance_map": h}
    else:
        h, weight = (1 - torch.exp(-squares * 200)) * torch.exp(-squares * 32), 1.0
        params = {"noise_std": 20.0}

    def reference(density: Tensor, points: Tensor, stride: int) -> Tensor:
        deviation = (weight * len(points) * h + 1).sqrt()
        total = (naive.chfl_difference(density, points, stride).abs() / deviation).sum()
        return total if variant == "official" else 1e-4 * total

    compare(losses.build("chfl", variant=variant, **params), scene, reference)
