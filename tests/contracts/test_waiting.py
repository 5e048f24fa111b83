"""No loss makes an accelerator wait inside a step: nothing that is computed depends on looking at a tensor's values.

Tensors on torch's `meta` device have shapes and no values. Whatever would make a GPU wait (a branch on a value, a
number taken out, a mask's number of hits, a copy to the CPU) has no answer there and raises, forward and backward.
"""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import losses
from losses import Prediction, Target, bl, geometry
from losses.transport import _unseen_rounds, balanced, epsilon_schedule, squared_distance, unseen_schedule
from tests.contracts.crowd import ALL, inputs, predict, scatter

SIZE = (64, 96)
COUNTS = (5, 0, 12, 1)
WAITS = {"p2p": "its assignment is solved on the CPU, by scipy"}
"""Losses that do wait, and why."""


def crowd(device: str, dtype: torch.dtype = torch.float32) -> Target:
    points = [scatter(count, SIZE, dtype, seed=seed).to(device) for seed, count in enumerate(COUNTS)]
    visible = [torch.linspace(0.5, 1, count, dtype=dtype, device=device) for count in COUNTS]
    short = torch.full((len(COUNTS),), 90.0, dtype=dtype, device=device)
    return Target(points, SIZE, visible=visible, short_side=short)


def moved(prediction: Prediction, device: str) -> Prediction:
    changed = {name: value.detach().to(device).requires_grad_() for name, value in inputs(prediction).items()}
    return prediction._replace(**changed)


def gradient(name: str, variant: str, prediction: Prediction, target: Target) -> tuple[Tensor, list[Tensor]]:
    value = losses.build(name, variant=variant)(prediction, target)["loss"]
    read = [tensor for tensor in inputs(prediction).values() if tensor.requires_grad]
    return value, [g for g in torch.autograd.grad(value, read, allow_unused=True) if g is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "variant"), ALL)
def test_a_step_looks_at_no_value(name: str, variant: str, dtype: torch.dtype) -> None:
    prediction = moved(predict(name, SIZE, batch=len(COUNTS), dtype=dtype), "meta")
    if name in WAITS:
        with pytest.raises(NotImplementedError, match="meta tensor"):
            gradient(name, variant, prediction, crowd("meta", dtype))
        return
    value, found = gradient(name, variant, prediction, crowd("meta", dtype))
    assert value.device.type == "meta"
    assert value.dtype == dtype
    assert found


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_without_looking_the_numbers_are_the_same(name: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on an accelerator, on the CPU, against what runs on the CPU."""
    prediction, target = predict(name, SIZE, batch=len(COUNTS), dtype=torch.float64), crowd("cpu", torch.float64)
    value, expected = gradient(name, variant, prediction, target)
    for module in [m for key, m in sys.modules.items() if key.startswith("losses.") and hasattr(m, "free_to_look")]:
        monkeypatch.setattr(module, "free_to_look", lambda tensor: False)
    assert not geometry.free_to_look(value)
    unseen, found = gradient(name, variant, prediction, target)
    torch.testing.assert_close(unseen, value, rtol=1e-9, atol=1e-9)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@given(start=st.floats(0.011, 9.0), end=st.floats(0.01, 0.5), ratio=st.floats(0.2, 0.9))
@settings(max_examples=200, deadline=None)
def test_a_schedule_whose_start_is_not_looked_at_has_the_same_steps(start: float, end: float, ratio: float) -> None:
    start = max(start, end)
    unseen = unseen_schedule(torch.tensor(start, dtype=torch.float64), 10.0, end, ratio)
    assert [float(eps) for eps in unseen if float(eps) > 0] == pytest.approx(epsilon_schedule(start, end, ratio))
    assert len(unseen) == len(epsilon_schedule(10.0, end, ratio))


@pytest.mark.parametrize("iterations", [1, 2, 11, 100, 3000])
def test_rounds_that_are_not_looked_at_stop_where_pots_do(iterations: int) -> None:
    """At 3000 rounds POT stops long before."""
    generator = torch.Generator().manual_seed(4)
    points = scatter(9, SIZE, torch.float64, seed=4)
    cost = squared_distance(points, (8, 12), 8)
    a = torch.full((9,), 1 / 9, dtype=torch.float64)
    b = torch.rand(96, generator=generator, dtype=torch.float64).clamp(min=0.3) - 0.3
    b = b / b.sum()
    f = _unseen_rounds(cost, a, b, 100.0, iterations, 1e-9)
    expected, _ = balanced(cost, a, b, solver="pot", reg=100.0, iterations=iterations)
    torch.testing.assert_close(f, expected, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("tile", [1 << 22, 40])
@pytest.mark.parametrize("background", [torch.inf, 90.0])
def test_counts_by_tiles_are_those_by_factors_near_and_far(
    tile: int, background: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells up to 350 sigmas from everybody, values and gradients."""
    monkeypatch.setattr(bl, "_TILE", tile)
    points = torch.tensor([[3.0, 4.0], [9.0, 4.5], [30.0, 31.0]], dtype=torch.float64)
    prediction = predict("bl", (160, 240), dtype=torch.float64)
    assert prediction.density is not None
    shape, far = (20, 30), 100
    found = []
    for look in (True, False):
        monkeypatch.setattr(bl, "free_to_look", lambda tensor, look=look: look)
        density = prediction.density.detach()[0, 0].requires_grad_()
        sample = losses.base.samples(Prediction(far, density[None, None]), Target([points], (2000, 3000)))[0]
        distance = geometry.nearest_point(points, shape, far).distance
        people, rest = bl.expected_counts(sample, 64.0, distance, torch.full(shape, background, dtype=torch.float64))
        weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
        found.append((people.detach(), rest.detach(), *torch.autograd.grad(people @ weights + 5 * rest, density)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-14)
