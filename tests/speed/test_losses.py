"""What a loss costs beside its dense reference, in the same run: `pytest tests/speed/test_losses.py --benchmark-only`.

Groups are comparable: the ratio stands in brackets. `benchmark speed` prints the same with memory and the share of a
training step; this is for watching a change.
"""

from __future__ import annotations

import pytest
import torch

import losses
from benchmark.speed.dense import DENSE, OFFICIAL, reference
from benchmark.speed.workloads import WORKLOADS, batch

HUGE = {"dm_count": "minutes", "p2p": "more memory than a machine has"}
"""Dense references that the largest workload is too large for."""


@pytest.mark.parametrize("which", ["ours", "dense"])
@pytest.mark.parametrize(
    ("name", "variant"), [*((name, "paper") for name in sorted(DENSE)), *((name, "official") for name in OFFICIAL)]
)
@pytest.mark.parametrize("size", WORKLOADS)
def test_forward_and_backward(benchmark, request, which: str, name: str, variant: str, size: str) -> None:  # type: ignore[no-untyped-def]
    if size == "large" and variant == "paper" and name in HUGE:
        pytest.skip(f"the dense reference takes {HUGE[name]}")
    benchmark.group = f"{name}, {variant}, {WORKLOADS[size].name}"
    loss = losses.build(name, variant=variant)
    dense = reference(loss, name)
    assert dense is not None
    prediction, target = batch(loss, WORKLOADS[size])
    inputs = [tensor for tensor in prediction if isinstance(tensor, torch.Tensor)]
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.set_num_threads(1)

    def step() -> float:
        value = dense(prediction, target) if which == "dense" else loss(prediction, target)["loss"]
        torch.autograd.grad(value, inputs, allow_unused=True)
        return value.item()

    few = size == "large"
    value = benchmark.pedantic(
        step, rounds=1 if few else 3, iterations=1, warmup_rounds=0 if few and which == "dense" else 1
    )
    if not few:
        assert value == pytest.approx(dense(prediction, target).item(), rel=1e-3)
