"""NoiseCC: its moments against simulated annotation noise, and what is wrong with the official covariance."""

from __future__ import annotations

import math

import pytest
import torch

from losses import NoiseCC, Prediction, Target, functional
from losses.base import samples
from losses.geometry import nearest_point
from losses.images import Images, side_by_side

SIZE, STRIDE = (96, 112), 8
HEADS = torch.tensor([[40.0, 50.0], [62.0, 44.0], [70.0, 70.0]], dtype=torch.float64)


def image(density: torch.Tensor | None = None, points: torch.Tensor = HEADS) -> Images:
    if density is None:
        density = torch.rand(12, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return side_by_side(samples(Prediction(STRIDE, density=density[None, None]), Target([points], SIZE)))


def moments(loss: NoiseCC, one: Images):
    distance = nearest_point(one.points, (12, 14), STRIDE).distance
    return loss._moments(one, loss._dummy(distance, one))


def test_moments_are_those_of_noisy_annotations() -> None:
    """20,000 noisy annotations of the same heads: mean, variance and correlation of the maps they draw."""
    loss, one = NoiseCC(background=False), image()
    found = moments(loss, one)
    chosen = found.chosen[0]
    generator = torch.Generator().manual_seed(1)
    noise = 8 * torch.randn(20_000, len(HEADS), 2, generator=generator, dtype=torch.float64)
    y, x = (torch.arange(n, dtype=torch.float64) * STRIDE + STRIDE / 2 for n in (12, 14))
    noisy = HEADS + noise
    rows = torch.exp(-((y - noisy[..., 1:]) ** 2) / 128)
    columns = torch.exp(-((x - noisy[..., :1]) ** 2) / 128)
    maps = torch.einsum("skr,skc->src", rows, columns).flatten(1) / (2 * math.pi * 64)
    factor = found.factor

    mean = maps.mean(0).view(12, 14) * factor
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=0.02 * mean.max().item())
    variance = maps.var(0).view(12, 14) * factor**2
    torch.testing.assert_close(found.variance, variance, rtol=0, atol=0.04 * variance.max().item())
    covariance = torch.cov(maps[:, chosen].T)
    (ours,) = loss._correlation(one, one.points, 0, found.chosen)
    torch.testing.assert_close(ours, covariance, rtol=0, atol=0.05 * covariance.max().item())


def test_the_mean_is_rescaled_to_the_count() -> None:
    assert moments(NoiseCC(), image()).mean.sum().item() == pytest.approx(3)


def test_cells_are_chosen_until_the_share_is_reached() -> None:
    found = moments(NoiseCC(background=False, floor=1e-30), image())
    order = found.variance.flatten().sort(descending=True)
    shares = order.values.cumsum(0) / order.values.sum()
    expected = order.indices[: 1 + int((shares <= 0.6).sum())]
    assert set(found.chosen[0].tolist()) == set(expected.tolist())
    assert len(moments(NoiseCC(ratio=1.0), image()).chosen[0]) == 100


def test_paper_loss_is_a_likelihood() -> None:
    """Zero at the mean, positive elsewhere, and the terms add up to the exact quadratic form."""
    loss, one = NoiseCC(), image()
    (mean,) = moments(loss, one).mean
    at_mean = functional.noisecc(mean, HEADS, stride=STRIDE)
    assert at_mean.item() == pytest.approx(0, abs=1e-12)
    for seed in range(20):
        step = torch.rand(12, 14, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert functional.noisecc(mean + step, HEADS, stride=STRIDE) > 0


def test_official_loss_is_unbounded_below() -> None:
    """Along one direction, over non-negative densities, the official loss falls without end; the paper's rises."""
    loss, one = NoiseCC(variant="official"), image()
    found = moments(loss, one)
    chosen = found.chosen[0]
    curvature = torch.diag(1 / found.variance.flatten()[chosen]) - loss._operator(one, found)[0]
    values, vectors = torch.linalg.eigh((curvature + curvature.T) / 2)
    assert values[0] < 0
    direction = torch.zeros(12 * 14, dtype=torch.float64)
    direction[chosen] = vectors[:, 0]
    # Non-negative directions only: shift by the smallest multiple of the flattest all-positive direction.
    positive = torch.zeros_like(direction)
    positive[chosen] = vectors[:, values.abs().argmin()].abs()
    needed = (-direction[chosen] / positive[chosen]).max()
    ray = (direction + needed * positive).clamp(min=0).view(12, 14)
    along = [
        [
            functional.noisecc(found.mean[0] + t * ray, HEADS, stride=STRIDE, variant=v).item()
            for t in (1.0, 10.0, 100.0)
        ]
        for v in ("official", "paper")
    ]
    assert along[0][0] > along[0][1] > along[0][2]
    assert along[0][2] < -1
    assert along[1][0] < along[1][1] < along[1][2]


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_only_the_official_correlation_couples_images(variant: str) -> None:
    density = torch.rand(2, 1, 12, 14, dtype=torch.float64)
    there = [HEADS, HEADS.flip(0) * 0.5]

    def correlation(images: slice) -> torch.Tensor:
        out = NoiseCC(variant=variant)(Prediction(STRIDE, density=density[images]), Target(there[images], SIZE))
        return out["term/correlation"]

    alone = (correlation(slice(0, 1)) + correlation(slice(1, 2))) / 2
    coupled = not torch.isclose(correlation(slice(0, 2)), alone, rtol=1e-9)
    assert coupled == (variant == "official")


def test_without_background_far_mass_explodes() -> None:
    density = torch.zeros(12, 14, dtype=torch.float64)
    density[-1, -1] = 0.1
    near = torch.tensor([[20.0, 20.0]], dtype=torch.float64)
    with_background = functional.noisecc(density, near, stride=STRIDE)
    assert functional.noisecc(density, near, stride=STRIDE, background=False) > 1e3 * with_background


def test_regularizer_is_a_bayesian_loss() -> None:
    density = torch.rand(12, 14, dtype=torch.float64)
    params = {"background": False}
    both = functional.noisecc(density, HEADS, stride=STRIDE, regularizer=True, **params)
    likelihood = functional.noisecc(density, HEADS, stride=STRIDE, **params)
    counts = functional.bl(density, HEADS, stride=STRIDE, sigma=math.sqrt(128), **params)
    torch.testing.assert_close(both, likelihood + counts)


def test_an_empty_image_costs_its_mass() -> None:
    density = torch.rand(12, 14)
    torch.testing.assert_close(functional.noisecc(density, torch.zeros(0, 2), stride=STRIDE), density.sum())


@pytest.mark.parametrize("name", ["alpha", "sigma", "background_ratio", "ratio", "floor", "weight"])
def test_bad_parameters(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be above 0"):
        NoiseCC(**{name: 0.0})
    with pytest.raises(ValueError, match="ratio must be at most 1"):
        NoiseCC(ratio=1.5)
