"""The functions give the same numbers as the classes, for every way of handing in one image or a batch."""

from __future__ import annotations

import pytest
import torch

import losses
from losses import Prediction, Target, functional

DENSITY = torch.rand(6, 8, generator=torch.Generator().manual_seed(0))
POINTS = torch.rand(4, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([64.0, 48.0])
NAMES = [name for name in losses.names() if losses.load(name).reads == "density"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(6, 8), (1, 6, 8), (1, 1, 6, 8)])
@pytest.mark.parametrize("listed", [True, False])
def test_one_image(name: str, shape: tuple[int, ...], listed: bool) -> None:
    expected = losses.build(name)(Prediction(8, density=DENSITY[None, None]), Target([POINTS], (48, 64)))["loss"]
    found = getattr(functional, name)(DENSITY.view(shape), [POINTS] if listed else POINTS, stride=8)
    assert found.shape == ()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_batch_and_extras(name: str) -> None:
    density, size = torch.stack([DENSITY, DENSITY.flip(0)])[:, None], (45, 61)
    extras = {
        "visible": [torch.rand(4), torch.rand(0)],
        "short_side": torch.tensor([300.0, 400.0]),
        "spacing": [torch.rand(4), torch.rand(0)],
    }
    points = [POINTS, torch.zeros(0, 2)]
    expected = losses.build(name, variant="official")(Prediction(8, density=density), Target(points, size, **extras))
    call = getattr(functional, name)
    assert torch.equal(call(density, points, stride=8, image_size=size, variant="official", **extras), expected["loss"])


def test_a_short_side_may_be_a_number() -> None:
    side = torch.tensor([300.0])
    assert torch.equal(
        functional.bl(DENSITY, POINTS, stride=8, short_side=300),
        functional.bl(DENSITY, POINTS, stride=8, short_side=side),
    )


def test_parameters_reach_the_loss() -> None:
    assert functional.pml(DENSITY, POINTS, stride=8) != functional.pml(DENSITY, POINTS, stride=8, count_norm="l2")
    with pytest.raises(TypeError, match="Did you mean count_norm"):
        functional.pml(DENSITY, POINTS, stride=8, count_nrom="l2")


@pytest.mark.parametrize("batched", [True, False])
def test_proposals(batched: bool) -> None:
    points, logits = torch.rand(20, 2) * 40, torch.rand(20, 2)
    expected = losses.build("p2p")(Prediction(8, points=points[None], logits=logits[None]), Target([POINTS], (48, 64)))
    found = functional.p2p(points[None], logits[None], [POINTS]) if batched else functional.p2p(points, logits, POINTS)
    assert torch.equal(found, expected["loss"])


def test_gradients_flow() -> None:
    density = DENSITY.clone().requires_grad_()
    functional.pml(density, POINTS, stride=8).backward()
    assert density.grad is not None
    assert density.grad.abs().sum() > 0


def test_discovery() -> None:
    assert dir(functional) == sorted(losses.names())
    assert functional.pml.__name__ == "pml"
    assert "PML as a scalar" in (functional.pml.__doc__ or "")
    assert functional.pml is functional.pml
    with pytest.raises(AttributeError, match="has no attribute 'pmll'"):
        _ = functional.pmll


def test_a_wrong_rank_is_reported_by_the_loss() -> None:
    with pytest.raises(ValueError, match=r"prediction\.density must have shape"):
        functional.pml(DENSITY[0], POINTS, stride=8, image_size=(48, 64))
