"""Where the time of one training step goes: network, loss and optimiser, and the largest functions of the loss."""

from __future__ import annotations

import cProfile
import pstats
import re
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch

import losses
from benchmark.names import Choice
from benchmark.speed.workloads import WORKLOADS, batch
from losses.base import CrowdLoss, Prediction, Target

__all__ = ["PARTS", "Profile", "profiled"]

PARTS = ("network forward", "loss forward", "loss backward", "network backward", "optimiser")
"""Parts of a step in their order. What the loss computes from the points is in its forward pass."""
_LARGEST = 3
"""Functions that are named (ours)."""


class Profile(NamedTuple):
    """One training step with a loss.

    Attributes:
        parts: Milliseconds of each of `PARTS`, medians.
        functions: Share of the loss's time, forward and backward, in each of its largest functions, what they call
            left out: Python's, and those of torch, numpy and scipy that are compiled.
    """

    parts: dict[str, float]
    functions: dict[str, float]


def profiled(choice: Choice, backbone: str, seconds: float) -> Profile:
    """Profiles a training step on one CPU thread: 256-px crops, 300 people each, batch 8 (workload `step`).

    Network and loss have inputs of their own, and each its gradient: a network without a head of points stands in with
    its head of densities, and the loss does not depend on what an untrained network predicts.

    Args:
        choice: The loss and its parameters.
        backbone: A name of `runners.backbones`.
        seconds: How long steps are repeated, and after that half as long the loss, to find its functions.
    """
    from runners.backbones import build_counter, fits

    loss, work = losses.build(choice.name, **choice.params), WORKLOADS["step"]
    head: Any = loss.reads if fits(backbone, reads=loss.reads) is None else "density"
    torch.manual_seed(0)
    network = build_counter(backbone, reads=head, weights="none")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    crops = torch.randn(work.images, 3, work.cells * work.stride, work.cells * work.stride)
    prediction, target = batch(loss, work)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps: list[list[float]] = []
        until = time.perf_counter() + seconds
        while len(steps) < 3 or time.perf_counter() < until:
            steps.append(_step(network, loss, optimizer, crops, prediction, target))
        parts = [statistics.median(times) for times in zip(*steps[1:], strict=True)]
        return Profile(dict(zip(PARTS, parts, strict=True)), _functions(loss, prediction, target, seconds))
    finally:
        torch.set_num_threads(threads)


def _step(
    network: torch.nn.Module,
    loss: CrowdLoss,
    optimizer: torch.optim.Optimizer,
    crops: torch.Tensor,
    prediction: Prediction,
    target: Target,
) -> list[float]:
    """Milliseconds of each part of a step."""
    clock = [time.perf_counter()]
    optimizer.zero_grad()
    found = network(crops)
    main = found.logits if found.density is None else found.density
    clock.append(time.perf_counter())
    value = loss(prediction, target)["loss"]
    clock.append(time.perf_counter())
    _differentiate(value, prediction)
    clock.append(time.perf_counter())
    main.backward(torch.ones_like(main))
    clock.append(time.perf_counter())
    optimizer.step()
    clock.append(time.perf_counter())
    return [1e3 * (after - before) for before, after in pairwise(clock)]


def _functions(loss: CrowdLoss, prediction: Prediction, target: Target, seconds: float) -> dict[str, float]:
    """Shares of the loss's time in its largest functions, by Python's profiler."""
    _differentiate(loss(prediction, target)["loss"], prediction)
    until = time.perf_counter() + seconds / 2
    with cProfile.Profile() as seen:
        while True:
            _differentiate(loss(prediction, target)["loss"], prediction)
            if time.perf_counter() > until:
                break
    own: dict[str, float] = {}
    for place, (_, _, alone, _, _) in pstats.Stats(seen).stats.items():  # type: ignore[attr-defined]
        name = _name(*place)
        own[name] = own.get(name, 0.0) + alone
    total = sum(own.values())
    largest = sorted(own.items(), key=lambda item: -item[1])[:_LARGEST]
    return {name: spent / total for name, spent in largest}


def _name(path: str, line: int, function: str) -> str:
    """`transport.softmin` of a Python function, `Tensor.exp_` or `cKDTree.query` of a compiled one."""
    if path != "~":
        return f"{Path(path).stem}.{function}"
    method = re.fullmatch(r"<method '(\w+)' of '(?:.*\.)?(\w+)' objects>", function)
    if method:
        return f"{method[2].removesuffix('Base')}.{method[1]}"
    return re.sub(r"<built-in method (?:.*\.)?(\w+)>", r"\1", function).strip("<>{}")


def _differentiate(value: torch.Tensor, prediction: Prediction) -> None:
    """The gradient of what the loss reads."""
    read = [tensor for tensor in prediction if isinstance(tensor, torch.Tensor)]
    torch.autograd.grad(value, read, allow_unused=True)
