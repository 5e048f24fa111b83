"""The dense references have the values and gradients of the losses that they stand for."""

from __future__ import annotations

import pytest
import torch

import losses
from benchmark.speed.dense import DENSE, OFFICIAL, reference
from benchmark.speed.workloads import Workload, batch

WORK = Workload(16, 25, 2)


def double(tensors):  # type: ignore[no-untyped-def]
    """The same in float64, with gradients of its own."""
    return type(tensors)(*(t.detach().double().requires_grad_() if isinstance(t, torch.Tensor) else t for t in tensors))


@pytest.mark.parametrize(
    ("name", "variant"), [*((name, "paper") for name in sorted(DENSE)), *((name, "official") for name in OFFICIAL)]
)
def test_a_reference_has_the_value_and_the_gradient_of_its_loss(name: str, variant: str) -> None:
    loss = losses.build(name, variant=variant)
    prediction, target = batch(loss, WORK)
    target = target._replace(points=[points.double() for points in target.points])
    dense = reference(loss, name)
    assert dense is not None
    found = []
    for score in (lambda p: loss(p, target)["loss"], lambda p: dense(p, target)):
        own = double(prediction)
        value = score(own)
        inputs = [own.density] if own.density is not None else [own.points, own.logits]
        found.append((value.detach(), torch.autograd.grad(value, inputs)))
    (ours, ours_by), (plain, plain_by) = found
    assert ours == pytest.approx(plain.item(), rel=1e-7)
    for a, b in zip(ours_by, plain_by, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_every_loss_has_a_reference_and_only_its_own_parameters_do() -> None:
    assert set(DENSE) == set(losses.names())
    assert reference(losses.build("pml"), "pml") is DENSE["pml"]
    assert reference(losses.build("pml", tau=5.0), "pml") is None
    assert reference(losses.build("pml", validate=False), "pml") is DENSE["pml"]
    assert reference(losses.build("dm_count"), "dm_count") is DENSE["dm_count"]
    assert reference(losses.build("dm_count", variant="official"), "dm_count") is OFFICIAL["dm_count"]
    assert reference(losses.build("dm_count", variant="official", reg=1.0), "dm_count") is None
    assert reference(losses.build("bl", variant="official"), "bl") is None
    assert reference(losses.build("bl"), "unknown") is None


def test_a_workload_is_what_it_says() -> None:
    for name in ("bl", "p2p"):
        loss = losses.build(name)
        prediction, target = batch(loss, WORK)
        again, _ = batch(loss, WORK)
        main = prediction.density if name == "bl" else prediction.logits
        other = again.density if name == "bl" else again.logits
        assert main is not None
        assert other is not None
        assert main.requires_grad
        assert main.shape == ((2, 1, 16, 16) if name == "bl" else (2, 1024, 2))
        torch.testing.assert_close(main, other)
        assert [len(points) for points in target.points] == [25, 25]
        assert target.image_size == (128, 128)
    assert WORK.name == "16x16, 25 people, batch 2"
    assert Workload(64, 2000).name == "64x64, 2000 people"
