"""ChfL: its spectra against numpy's Fourier transform, its norms, and the noise-robust form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from losses import ChfL, Prediction, Target, functional
from losses.base import samples
from losses.images import side_by_side

DENSITY = torch.rand(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
POINTS = torch.rand(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 128


def image(density: torch.Tensor, points: torch.Tensor, stride: int):
    size = (density.shape[0] * stride, density.shape[1] * stride)
    return side_by_side(samples(Prediction(stride, density=density[None, None]), Target([points], size)))


def test_the_density_spectrum_is_a_fourier_transform() -> None:
    """With frequencies 2 pi k / (16 s), k = -8..7, it is numpy's inverse FFT up to the half cell of the centres."""
    tick = 2 * math.pi / (16 * 8)
    found = ChfL(steps=8, tick=tick)._density_spectrum(image(DENSITY, POINTS, 8))[0].numpy()
    k = np.arange(-8, 8)
    shift = np.exp(1j * tick * 4 * (k[:, None] + k))
    expected = np.fft.fftshift(np.fft.ifft2(DENSITY.numpy()) * DENSITY.numel()) * shift
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_frequency_zero_is_the_count() -> None:
    loss, one = ChfL(), image(DENSITY, POINTS, 8)
    difference = (loss._density_spectrum(one) - loss._head_spectrum(one))[0]
    torch.testing.assert_close(difference[30, 30].real, DENSITY.sum() - 5)
    assert difference[30, 30].imag == 0


def test_heads_at_cell_centres_without_blur_are_matched_exactly() -> None:
    density = torch.zeros(6, 8, dtype=torch.float64)
    density[2, 3], density[5, 0] = 1.0, 2.0
    points = torch.tensor([[28.0, 20.0], [4.0, 44.0], [4.0, 44.0]], dtype=torch.float64)
    for norm in ("dense", "sparse"):
        value = functional.chfl(density, points, stride=8, bandwidth=0.0, norm=norm)
        assert value.item() == pytest.approx(0, abs=1e-10)
    assert functional.chfl(density, points + 1, stride=8, bandwidth=0.0) > 0.01


def test_far_from_the_origin_float32_keeps_its_digits() -> None:
    """At 20,000 pixels the phase is 6,000 radians, which float32 holds to 5e-4 only."""
    points = torch.tensor([[20_000.0, 4.0]])
    density = torch.zeros(1, 2504)
    density[0, 2500] = 1.0
    single = functional.chfl(density, points, stride=8)
    double = functional.chfl(density.double(), points.double(), stride=8)
    assert single.item() == pytest.approx(double.item(), rel=1e-5)


def test_norms_are_ordered() -> None:
    """A 2-norm is at most the 1-norm: along the rows (official), and over the whole grid (sparse)."""
    paper = functional.chfl(DENSITY, POINTS, stride=8)
    assert functional.chfl(DENSITY, POINTS, stride=8, variant="official") < paper
    sparse = functional.chfl(DENSITY, POINTS, stride=8, norm="sparse")
    assert sparse / 0.01 <= paper / 1e-4  # Frobenius <= sum of moduli
    torch.testing.assert_close(sparse, functional.chfl(DENSITY, POINTS, stride=8, norm="sparse", variant="official"))


def test_no_noise_is_the_dense_norm() -> None:
    plain = functional.chfl(DENSITY, POINTS, stride=8)
    torch.testing.assert_close(functional.chfl(DENSITY, POINTS, stride=8, noise_std=0.0), plain)
    torch.testing.assert_close(functional.chfl(DENSITY, POINTS, stride=8, variance_map=torch.zeros(60, 60)), plain)


def test_gaussian_noise_is_the_variance_of_noisy_spectra() -> None:
    """h(t) of the closed form is, up to one factor of the blur, the variance of exp(i t.noise) by simulation."""
    generator = torch.Generator().manual_seed(2)
    noise = 20 * torch.randn(40_000, 2, generator=generator, dtype=torch.float64)
    loss = ChfL(noise_std=20.0)
    (deviation,) = loss._deviation(torch.zeros((), dtype=torch.float64), torch.ones(1))
    for fy, fx in ((30, 33), (26, 30), (35, 28)):
        t = torch.tensor([fx - 30, fy - 30]).double() * 0.01
        wave = torch.exp(1j * (noise @ t))
        # |E e^{itX}| = exp(-|t|^2 s^2 / 2), so 1 - |E e^{itX}| is what the published h uses.
        spread = 1 - wave.mean().abs().item()
        blur = math.exp(-t.square().sum().item() * 32)
        assert deviation[fy, fx].item() ** 2 - 1 == pytest.approx(spread * blur, abs=0.01)


def test_official_noise_has_no_tick() -> None:
    paper = functional.chfl(DENSITY, POINTS, stride=8, noise_std=20.0)
    official = functional.chfl(DENSITY, POINTS, stride=8, noise_std=20.0, variant="official")
    torch.testing.assert_close(official, paper * 1e4)


def test_the_map_moves_with_the_module_but_is_no_weight() -> None:
    loss = ChfL(variance_map=torch.ones(60, 60))
    assert loss.double().variance_map.dtype == torch.float64
    assert not loss.state_dict()


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"norm": "spars"}, "Did you mean sparse"),
        ({"bandwidth": -1.0}, "bandwidth must be at least 0"),
        ({"tick": 0.0}, "tick must be above 0"),
        ({"steps": 0}, "steps must be a positive integer; found 0"),
        ({"noise_std": -1.0}, "noise_std must be at least 0"),
        ({"noise_std": 1.0, "norm": "sparse"}, "leave norm at 'dense'"),
        ({"noise_std": 1.0, "variance_map": torch.ones(60, 60)}, "not both"),
        ({"variance_map": torch.ones(20, 60)}, r"shape \(60, 60\) \(steps=30\); found \(20, 60\)"),
        ({"variance_map": -torch.ones(60, 60)}, "must not be negative"),
    ],
    ids=str,
)
def test_bad_parameters(params: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        ChfL(**params)
