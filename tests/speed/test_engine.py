"""What the training engine and its hooks add to a step, beside a plain loop over the same batches.

`pytest tests/speed/test_engine.py --benchmark-only -s`: blocks of steps of the engine and of a plain loop take turns in
one process, on the same model, optimiser and batches; of each pair of blocks the ratio and the difference of CPU times
count, so that what else runs on the machine falls on both. Given are medians with 95 % bootstrap intervals. Loading a
batch and what an epoch adds (validation, checkpoints) are no part of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop
from scipy.stats import bootstrap
from torch import nn

from benchmark.plan import Planned, plan
from benchmark.study import validated
from losses.base import Prediction
from runners import build, execute
from runners.counter import Counter
from runners.job import Job, Place

DATA = "synthetic[train=32,val=1,test=1]"


class OneLayer(nn.Module):
    """As little as a network can be: its step is what surrounds the network."""

    multiple = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 4, 4)

    def forward(self, images: torch.Tensor) -> Prediction:
        return Prediction(4, density=self.layer(images).abs())

    def parameter_groups(self, lr: float, backbone_multiplier: float = 1.0) -> list[dict[str, Any]]:
        return [{"name": "head", "params": list(self.parameters()), "lr": lr}]


def plain(model: Counter, optimizer: torch.optim.Optimizer, clip: float | None, batch: Any) -> None:
    """A step with nothing in it but what training needs."""
    images = (batch.images.float() - model.data_preprocessor.mean) / model.data_preprocessor.std
    optimizer.zero_grad()
    model.loss(model.network(images), batch.target)["loss"].backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()


class Stop(KeyboardInterrupt):
    """Ends the run where all is measured; an ordinary exception would be kept as the run's failure."""


def alternating(blocks: int, steps: int, found: dict[str, list[float]]) -> type[EpochBasedTrainLoop]:
    """A training loop that measures; see above. The first pair warms up."""

    class Alternating(EpochBasedTrainLoop):
        def run(self) -> nn.Module:
            model, wrapper = self.runner.model, self.runner.optim_wrapper
            clip = (wrapper.clip_grad_kwargs or {}).get("max_norm")
            self.runner.call_hook("before_train")
            self.runner.call_hook("before_train_epoch")
            model.train()
            batches = list(self.dataloader)
            ways: dict[str, Callable[[Any], None]] = {
                "engine": lambda batch: self.run_iter(self._iter, batch),
                "plain": lambda batch: plain(model, wrapper.optimizer, clip, batch),
            }
            for block in range(blocks + 1):
                for way in ("engine", "plain") if block % 2 else ("plain", "engine"):
                    start = time.process_time()
                    for step in range(steps):
                        ways[way](batches[step % len(batches)])
                    if block:
                        found[way].append(1e3 * (time.process_time() - start) / steps)
            raise Stop

    return Alternating


def middle(values: np.ndarray) -> str:
    """The median with its interval."""
    low, high = bootstrap((values,), np.median, method="percentile", rng=0).confidence_interval
    return f"{np.median(values):.3f} ({low:.3f} to {high:.3f})"


@pytest.mark.parametrize(
    ("backbone", "crop", "blocks", "steps"),
    [("one layer", 64, 40, 50), ("mcnn", 64, 40, 8), ("mcnn", 128, 30, 4), ("mobilenetv2", 128, 30, 4)],
)
def test_the_engine(  # type: ignore[no-untyped-def]
    benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, crop: int, blocks: int, steps: int
) -> None:
    trivial = backbone == "one layer"
    axes = {"losses": ["pml"], "datasets": [DATA], "weights": "none", "backbones": ["mcnn" if trivial else backbone]}
    (run,) = plan(validated(axes | {"overrides": {"epochs": 1, "batch_size": 8, "crop": crop}}, "test"))
    assert isinstance(run, Planned), run.reason
    found: dict[str, list[float]] = {"engine": [], "plain": []}
    monkeypatch.setattr(execute, "EpochBasedTrainLoop", alternating(blocks, steps, found))
    if trivial:
        monkeypatch.setattr(build, "network", lambda spec, place: OneLayer())

    def once() -> None:
        job = Job(spec=run.spec, output=tmp_path, place=Place(), evaluations=(), resume=False)
        with pytest.raises(Stop):
            execute.execute(job, lambda event: None)

    benchmark.pedantic(once, rounds=1, iterations=1)
    engine, bare = (np.array(found[way]) for way in ("engine", "plain"))
    assert len(engine) == len(bare) == blocks
    said = {"step_ms": f"{np.median(engine):.2f}", "ratio": middle(engine / bare), "added_ms": middle(engine - bare)}
    benchmark.extra_info.update(said | {"network": backbone, "crop": crop})
    print(f"{backbone}, {crop}-px crops, {blocks} pairs of {steps} steps: {said}")
