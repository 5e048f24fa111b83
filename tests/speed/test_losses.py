"""What a loss costs beside its dense reference, in the same run: `pytest tests/speed/test_losses.py --benchmark-only`.

Groups are comparable: the ratio stands in brackets. `benchmark speed` prints the same with memory and the share of a
training step; this is for watching a change.
"""

from __future__ import annotations

import pytest
import torch

import losses
from benchmark.speed.dense import DENSE, OFFICIAL, reference
from benchmark.speed.workloads import Workload, batch

WORK = {"256-px crops": Workload(32, 300, 8), "64x64, 2000 people": Workload(64, 2000)}


@pytest.mark.parametrize("which", ["ours", "dense"])
@pytest.mark.parametrize(
    ("name", "variant"), [*((name, "paper") for name in sorted(DENSE)), *((name, "official") for name in OFFICIAL)]
)
@pytest.mark.parametrize("size", sorted(WORK))
def test_forward_and_backward(benchmark, request, which: str, name: str, variant: str, size: str) -> None:  # type: ignore[no-untyped-def]
    benchmark.group = f"{name}, {variant}, {size}"
    loss = losses.build(name, variant=variant)
    dense = reference(loss, name)
    assert dense is not None
    prediction, target = batch(loss, WORK[size])
    inputs = [tensor for tensor in prediction if isinstance(tensor, torch.Tensor)]
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.set_num_threads(1)

    def step() -> float:
        value = dense(prediction, target) if which == "dense" else loss(prediction, target)["loss"]
        torch.autograd.grad(value, inputs, allow_unused=True)
        return value.item()

    value = benchmark.pedantic(step, rounds=3, iterations=1, warmup_rounds=1)
    assert value == pytest.approx(dense(prediction, target).item(), rel=1e-3)
