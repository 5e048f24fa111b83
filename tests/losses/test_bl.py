"""BL: known answers, the background, and cells so far away that likelihoods underflow."""

from __future__ import annotations

import pytest
import torch

import losses.bl as module
from losses import BL, Prediction, Target, functional
from losses.base import samples
from losses.geometry import nearest_point
from losses.images import Images, side_by_side

FAR = torch.tensor([[10.0, 10.0], [14.0, 30.0], [20.0, 11.0]], dtype=torch.float64)
"""A corner of an image of 1600 x 2400 pixels: the far corner is 2800 pixels, 350 sigmas, away."""
SIZE, STRIDE = (1600, 2400), 40


def distances(loss: BL, images: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """From each cell to its nearest head, and, squared, to its background dummy."""
    distance = nearest_point(images.points.double(), images.cells, images.stride).distance
    return distance, loss._dummy(distance, images)


def counts(loss: BL, density: torch.Tensor, points: torch.Tensor, size: tuple[int, int], stride: int):
    images = side_by_side(samples(Prediction(stride, density=density[None, None]), Target([points], size)))
    people, background = module.expected_counts(images, loss.sigma**2, *distances(loss, images))
    return people[0], background[0]


def test_without_background_one_head_takes_all() -> None:
    density = torch.rand(6, 8)
    found = functional.bl(density, torch.tensor([[20.0, 20.0]]), stride=8, background=False)
    torch.testing.assert_close(found, (density.sum() - 1).abs())


def test_two_heads_share_by_distance() -> None:
    density = torch.zeros(1, 4, dtype=torch.float64)
    density[0, 1] = 1.0  # centre (12, 4): 4 pixels from the first head, 12 from the second
    points = torch.tensor([[8.0, 4.0], [24.0, 4.0]], dtype=torch.float64)
    people, background = counts(BL(background=False), density, points, (8, 32), 8)
    share = 1 / (1 + torch.exp(torch.tensor((16.0 - 144.0) / 128, dtype=torch.float64)))
    torch.testing.assert_close(people, torch.stack([share, 1 - share]))
    assert background == 0


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("background", [True, False])
def test_no_mass_is_lost(variant: str, background: bool) -> None:
    """Posteriors of a cell sum to one, near and far: the counts sum to the density."""
    density = torch.rand(SIZE[0] // STRIDE, SIZE[1] // STRIDE, dtype=torch.float64)
    people, rest = counts(BL(variant=variant, background=background), density, FAR, SIZE, STRIDE)
    torch.testing.assert_close(people.sum() + rest, density.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_cells_go_to_the_nearest_head(dtype: torch.dtype) -> None:
    density = torch.zeros(SIZE[0] // STRIDE, SIZE[1] // STRIDE, dtype=dtype)
    density[-1, 0] = 1.0  # straight below: the head with the largest y
    people, _ = counts(BL(background=False), density, FAR.to(dtype), SIZE, STRIDE)
    torch.testing.assert_close(people, torch.tensor([0.0, 1.0, 0.0], dtype=dtype), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("background", [True, False])
def test_the_two_paths_agree(background: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells by separable products, all by their own softmax, and tile by tile: the same counts."""
    points, density = torch.rand(20, 2).double() * 100, torch.rand(16, 12).double()
    loss = BL(background=background)
    found = []
    for far, tile in ((1e9, 1 << 22), (-1.0, 1 << 22), (-1.0, 50)):
        monkeypatch.setattr(module, "_FAR", far)
        monkeypatch.setattr(module, "_TILE", tile)
        found.append(counts(loss, density, points, (128, 96), 8))
    for people, rest in found[1:]:
        torch.testing.assert_close(people, found[0][0])
        torch.testing.assert_close(rest, found[0][1])


def test_paper_background_is_clamped() -> None:
    """Beyond 15 % of the shorter side everything is background, and stays so."""
    density = torch.zeros(1, 40, dtype=torch.float64)
    density[0, 10:] = 1.0
    point = torch.tensor([[4.0, 4.0]], dtype=torch.float64)
    images = side_by_side(
        samples(Prediction(8, density=density[None, None]), Target([point], (8, 320), short_side=torch.tensor([200.0])))
    )
    distance, squared = distances(BL(), images)
    dummy = squared[0, 0]
    torch.testing.assert_close(dummy[:4], torch.tensor([900.0, 484.0, 196.0, 36.0]).double())
    assert (dummy[4:] == 0).all()
    assert module.expected_counts(images, 64.0, distance, squared)[1].item() == pytest.approx(30)


def test_official_background_is_reciprocal() -> None:
    images = side_by_side(
        samples(
            Prediction(8, density=torch.zeros(1, 1, 1, 3).double()),
            Target([torch.tensor([[4.0, 4.0]]).double()], (8, 24), short_side=torch.tensor([100.0])),
        )
    )
    expected = 100.0**2 / (torch.tensor([0.0, 64.0, 256.0]).double() + 1e-5)
    torch.testing.assert_close(distances(BL(variant="official"), images)[1][0, 0], expected)
    torch.testing.assert_close(distances(BL(variant="official", background_ratio=0.1), images)[1][0, 0], expected / 100)


def test_visible_shares_are_the_targets() -> None:
    density, points = torch.zeros(6, 8), torch.rand(3, 2) * 40
    visible = torch.tensor([0.3, 0.5, 1.0])
    assert functional.bl(density, points, stride=8, visible=visible).item() == pytest.approx(1.8)


@pytest.mark.parametrize("params", [{"sigma": 0.0}, {"background_ratio": -0.1}], ids=str)
def test_bad_parameters(params: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(params))} must be above 0"):
        BL(**params)
