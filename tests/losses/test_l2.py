"""L2: its targets and the two ways to reduce it."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from losses import L2, Prediction, Target, functional
from losses.base import samples


def target(loss: L2, points: torch.Tensor, size: tuple[int, int] = (48, 64), stride: int = 8, **extras) -> torch.Tensor:
    cells = (-(-size[0] // stride), -(-size[1] // stride))
    prediction = Prediction(stride, density=torch.zeros(1, 1, *cells, dtype=torch.float64))
    return loss.target(samples(prediction, Target([points], size, **extras))[0])


@pytest.mark.parametrize("kernel", ["fixed", "adaptive"])
@pytest.mark.parametrize("size", [(48, 64), (45, 61)])
def test_the_target_sums_to_the_count(kernel: str, size: tuple[int, int]) -> None:
    points = torch.rand(30, 2).double() * 70 - 5
    found = target(L2(kernel=kernel), points, size)
    assert found.sum().item() == pytest.approx(30)
    assert found.min() >= 0


def test_a_kernel_inside_the_image_is_a_normal_distribution() -> None:
    found = target(L2(sigma=3.0), torch.tensor([[33.0, 22.0]]).double())
    column = stats.norm.cdf(40, 33, 3) - stats.norm.cdf(32, 33, 3)
    row = stats.norm.cdf(24, 22, 3) - stats.norm.cdf(16, 22, 3)
    assert found[2, 4].item() == pytest.approx(row * column, rel=1e-6)  # normalised to all but 1e-12 of it


def test_adaptive_kernels() -> None:
    """sigma = 0.3 times the spacing; a lone head gets a quarter of the mean side."""
    points = torch.tensor([[33.0, 22.0]]).double()
    alone = target(L2(kernel="adaptive"), points)
    torch.testing.assert_close(alone, target(L2(sigma=(48 + 64) / 8), points))
    spaced = target(L2(kernel="adaptive"), points, spacing=[torch.tensor([20.0])])
    torch.testing.assert_close(spaced, target(L2(sigma=6.0), points))
    pair = torch.tensor([[30.0, 20.0], [30.0, 30.0]]).double()
    torch.testing.assert_close(target(L2(kernel="adaptive"), pair), target(L2(sigma=3.0), pair))


def test_duplicates_become_dots() -> None:
    found = target(L2(kernel="adaptive"), torch.tensor([[33.0, 22.0]] * 5).double())
    assert found[2, 4].item() == pytest.approx(5)


def test_official_kernels_lose_mass_at_the_border() -> None:
    corner = torch.zeros(1, 2).double()
    assert target(L2(variant="official"), corner).sum() < 0.35
    assert target(L2(), corner).sum().item() == pytest.approx(1)
    inside = torch.tensor([[30.0, 20.0]]).double()
    assert target(L2(variant="official"), inside).sum().item() == pytest.approx(1)


def test_scale_is_on_both_maps() -> None:
    density, points = torch.rand(6, 8), torch.rand(4, 2) * 40
    one = functional.l2(density, points, stride=8)
    torch.testing.assert_close(functional.l2(density, points, stride=8, scale=100.0), 1e4 * one)


def test_the_traditional_loss_has_no_cosine() -> None:
    density, points = torch.rand(6, 8), torch.rand(4, 2) * 40
    out = L2()(Prediction(8, density=density[None, None]), Target([points], (48, 64)))
    assert out["term/cosine"] == 0
    exact = target(L2(), points).to(torch.float32)
    torch.testing.assert_close(out["loss"], (density - exact).square().sum())


def test_official_divides_the_cosine_by_the_batch_twice() -> None:
    density, points = torch.rand(1, 1, 6, 8), torch.rand(4, 2) * 40
    loss = L2(variant="official")
    one = loss(Prediction(8, density=density), Target([points], (48, 64)))
    four = loss(Prediction(8, density=density.expand(4, -1, -1, -1)), Target([points] * 4, (48, 64)))
    torch.testing.assert_close(four["term/squared_error"], one["term/squared_error"])
    torch.testing.assert_close(four["term/cosine"], one["term/cosine"] / 4)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"kernel": "fix"}, "Did you mean fixed"),
        ({"sigma": 0.0}, "sigma must be above 0"),
        ({"beta": -1.0}, "beta must be above 0"),
        ({"scale": 0.0}, "scale must be above 0"),
        ({"cosine_weight": -1.0}, "cosine_weight must be at least 0"),
    ],
    ids=str,
)
def test_bad_parameters(params: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        L2(**params)
