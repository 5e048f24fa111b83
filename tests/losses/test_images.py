"""Images side by side: what is padded, what padding means, and that a batch at once is its images one by one."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import losses
from losses import Prediction, Target
from losses.base import samples
from losses.geometry import axis_gaussians, nearest_point
from losses.images import Images, TogetherLoss, side_by_side
from tests.contracts.crowd import DENSITY, inputs, predict, scatter

SIZE = (48, 80)
TOGETHER = [(name, variant) for name, variant in DENSITY if issubclass(losses.load(name), TogetherLoss)]


def crowd(counts: list[int]) -> Images:
    points = [scatter(count, SIZE, torch.float64, seed=place) for place, count in enumerate(counts)]
    visible = [torch.linspace(0.1, 1, count, dtype=torch.float64) for count in counts]
    density = torch.arange(len(counts) * 60, dtype=torch.float64).view(-1, 1, 6, 10)
    short = torch.arange(1.0, len(counts) + 1)
    return side_by_side(samples(Prediction(8, density=density), Target(points, SIZE, visible, short)))


def test_one_image_is_not_padded() -> None:
    images = crowd([5])
    assert not images.filled
    assert images.real.all()
    values = torch.rand(1, 5, 3)
    assert images.only(values) is values
    assert images.where_people(values, 0) is values
    torch.testing.assert_close(images.points[0], images.samples[0].points)
    assert (images.cells, images.stride, images.image_size) == ((6, 10), 8, SIZE)


@pytest.mark.parametrize("counts", [[3, 0, 7], [0], [0, 0], [4, 4], [1, 2]])
def test_filling_heads_are_nobody(counts: list[int]) -> None:
    images = crowd(counts)
    most = max(1, *counts) if len(counts) > 1 else max(1, counts[0])
    assert images.points.shape == (len(counts), most, 2)
    assert images.counts.tolist() == counts
    assert images.filled == (min(counts) < most)
    assert images.short_side.tolist() == [k + 1 for k in range(len(counts))]
    for image, count in enumerate(counts):
        sample = images.samples[image]
        torch.testing.assert_close(images.density[image], sample.density)
        torch.testing.assert_close(images.points[image, :count], sample.points)
        torch.testing.assert_close(images.visible[image, :count], sample.visible)
        assert (images.visible[image, count:] == 0).all()
        assert images.only(torch.ones(images.real.shape))[image].tolist() == [1.0] * count + [0.0] * (most - count)
        filling = images.points[image, max(count, 1) :]
        assert (filling == torch.inf).all()
    lone = images.points[[count == 0 for count in counts], 0]
    assert (lone == 0).all(), "a head to compute with, where nobody is"
    kept = images.where_people(torch.full((len(counts),), 7.0), -1.0)
    assert kept.tolist() == [7.0 if count else -1.0 for count in counts]


def test_a_head_at_infinity_has_no_cells_and_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    images = crowd([2, 9])
    rows, columns = axis_gaussians(images.points, images.cells, 8, 100.0)
    assert (rows[0, 2:] == 0).all()
    assert (columns[0, 2:] == 0).all()
    monkeypatch.setattr("losses.geometry.free_to_look", lambda tensor: False)
    found = nearest_point(images.points, images.cells, 8)
    for image, sample in enumerate(images.samples):
        alone = nearest_point(sample.points, images.cells, 8)
        torch.testing.assert_close(found.owner[image], alone.owner)
        torch.testing.assert_close(found.distance[image], alone.distance)


def test_the_losses_that_go_together() -> None:
    """All density losses; P2P's assignment is solved image by image."""
    assert {name for name, _ in TOGETHER} == {name for name, _ in DENSITY}


@pytest.mark.parametrize(("name", "variant"), TOGETHER)
@settings(max_examples=8, deadline=None)
@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_a_batch_at_once_is_its_images_one_by_one(name: str, variant: str, counts: list[int], seed: int) -> None:
    """Values and gradients of every term: what runs on an accelerator, on the CPU, beside what runs on the CPU."""
    loss: Any = losses.build(name, variant=variant)
    prediction = predict(name, SIZE, batch=len(counts), dtype=torch.float64, seed=seed)
    points = [scatter(count, SIZE, torch.float64, seed=seed + place) for place, count in enumerate(counts)]
    batch = samples(prediction, Target(points, SIZE))

    def outcome(terms: dict[str, Tensor]) -> list[Tensor]:
        weighted = sum((values * torch.arange(1.0, len(counts) + 1)).sum() for values in terms.values())
        return [*terms.values(), *torch.autograd.grad(weighted, list(inputs(prediction).values()))]

    each = [loss.image_terms(sample) for sample in batch]
    alone = outcome({name: torch.stack([terms[name] for terms in each]) for name in each[0]})
    with pytest.MonkeyPatch.context() as patch:
        for module in [m for key, m in sys.modules.items() if key.startswith("losses.") and hasattr(m, "free_to_look")]:
            patch.setattr(module, "free_to_look", lambda tensor: False)
        found = outcome(loss.terms(side_by_side(batch)))
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
