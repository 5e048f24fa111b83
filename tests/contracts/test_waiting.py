"""No loss makes an accelerator wait inside a step: nothing that is computed depends on looking at a tensor's values.

Tensors on torch's `meta` device have shapes and no values. Whatever would make a GPU wait (a branch on a value, a
number taken out, a mask's number of hits, a copy to the CPU) has no answer there and raises, forward and backward.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import losses
from losses import Prediction, Target, bl, geometry
from losses.images import side_by_side
from losses.transport import balanced, epsilon_schedule, floored_rounds, squared_distance, together
from tests.contracts import crowd as crowds
from tests.contracts.crowd import ALL, inputs, predict, scatter
from tests.references.naive_gl import potentials

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


@given(
    starts=st.lists(st.floats(0.011, 9.0), min_size=1, max_size=4), end=st.floats(0.01, 0.5), ratio=st.floats(0.2, 0.9)
)
@settings(max_examples=60, deadline=None)
def test_annealing_together_is_annealing_each_from_its_own_strength(
    starts: list[float], end: float, ratio: float
) -> None:
    """Images with one to four points, three of the cells without mass."""
    generator = torch.Generator().manual_seed(len(starts))
    starts = [max(start, end) for start in starts]
    cost = torch.rand(len(starts), 4, 9, generator=generator, dtype=torch.float64)
    log_b = torch.rand(len(starts), 9, generator=generator, dtype=torch.float64).log()
    log_b[:, 3:6] = -1e5
    log_a = torch.zeros(len(starts), 4, dtype=torch.float64)
    for image in range(len(starts)):
        log_a[image, image + 1 :] = -1e5
    start = torch.tensor(starts, dtype=torch.float64)
    found = together.annealed(cost, log_a, log_b, start, 10.0, end, ratio, reach=0.5)
    for image, each in enumerate(starts):
        real = slice(0, image + 1)
        f, g = potentials(cost[image, real], log_a[image, real], log_b[image], epsilon_schedule(each, end, ratio), 0.5)
        torch.testing.assert_close(found.f[image, real], f, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(found.g[image], g, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("iterations", [1, 2, 11, 100, 3000])
def test_rounds_together_stop_where_pots_do(iterations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 3000 rounds POT stops long before, after another number of rounds for each image. In narrow tiles too."""
    monkeypatch.setattr(together, "tiles", lambda count, other, like: [slice(i, i + 5) for i in range(0, count, 5)])
    generator = torch.Generator().manual_seed(4)
    points = [scatter(count, SIZE, torch.float64, seed=count) for count in (9, 1, 30)]
    mass = torch.rand(3, 8, 12, generator=generator, dtype=torch.float64).clamp(min=0.3) - 0.3
    mass = mass / mass.sum((1, 2), keepdim=True)
    found = crowds.rounds(points, mass, 8, reg=100.0, scale=1.0, iterations=iterations)
    for image, some in enumerate(points):
        cost, a = squared_distance(some, (8, 12), 8), torch.full((len(some),), 1 / len(some), dtype=torch.float64)
        one = balanced(cost, a, mass[image].flatten(), solver="pot", reg=100.0, iterations=iterations)
        torch.testing.assert_close(found[image].f, one.f, rtol=1e-9, atol=1e-7)
        torch.testing.assert_close(found[image].g, one.g, rtol=1e-9, atol=1e-7)


def test_images_without_mass_have_no_potentials() -> None:
    points = [scatter(count, SIZE, torch.float64, seed=count) for count in (9, 3)]
    mass = torch.zeros(2, 8, 12, dtype=torch.float64)
    mass[1, 3, 4] = 1
    for mass_ in (mass, mass.clone().fill_(torch.nan).index_copy_(0, torch.tensor([1]), mass[1:])):
        empty, other = crowds.rounds(points, mass_, 8, reg=10.0, scale=1.0, iterations=5)
        assert not empty.f.any()
        assert not empty.g.any()
        assert torch.isfinite(other.g).all()


@pytest.mark.parametrize("iterations", [1, 9, 100, 2000])
@pytest.mark.parametrize("reg", [10.0, 1e4])
def test_floored_rounds_together_are_those_of_each(iterations: int, reg: float) -> None:
    """With the wide kernel some images stop early."""
    generator = torch.Generator().manual_seed(5)
    points = [scatter(count, SIZE, torch.float64, seed=count) for count in (9, 1, 30)]
    mass = torch.rand(3, 8, 12, generator=generator, dtype=torch.float64).clamp(min=0.3) - 0.3
    mass = mass / mass.sum((1, 2), keepdim=True)
    found = crowds.floored_rounds(points, mass, 8, reg=reg, scale=1.0, iterations=iterations)
    for image, some in enumerate(points):
        one = floored_rounds(some, mass[image], 8, reg=reg, scale=1.0, iterations=iterations)
        torch.testing.assert_close(found[image], one, rtol=1e-9, atol=1e-9 * reg)


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
        images = side_by_side(losses.base.samples(Prediction(far, density[None, None]), Target([points], (2000, 3000))))
        distance = geometry.nearest_point(images.points, shape, far).distance
        people, rest = bl.expected_counts(images, 64.0, distance, torch.full_like(distance, background))
        weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
        found.append((people.detach(), rest.detach(), *torch.autograd.grad(people @ weights + 5 * rest, density)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-14)


class _Operations(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "variant"), [(n, v) for n, v in ALL if n in ("dm_count", "gl")])
def test_more_images_of_a_batch_take_few_more_operations(name: str, variant: str) -> None:
    """An accelerator launches each of them, whatever its size: rounds are those of a batch, not of its images."""
    counts = []
    for images in (1, 8):
        prediction = moved(predict(name, SIZE, batch=images), "meta")
        target = Target([scatter(20, SIZE, seed=seed).to("meta") for seed in range(images)], SIZE)
        with _Operations() as seen:
            gradient(name, variant, prediction, target)
        counts.append(seen.count)
    assert counts[1] < 3 * counts[0]
