"""What the training engine adds to a step, beside a plain loop over the same batches, and whether the network waits.

`pytest tests/speed/test_training.py --benchmark-only`: both ways train the same network for the same steps; `step_ms`
in the extra columns of `--benchmark-json` leaves out what an epoch adds (validation, checkpoints).
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from benchmark.plan import Planned, plan
from benchmark.study import validated
from results.store import Store
from runners import build
from runners.counter import Counter
from runners.execute import execute
from runners.job import Job, Place

EPOCHS = 6
RECIPE = {"epochs": EPOCHS, "batch_size": 8, "crop": 256, "val_interval": EPOCHS}
AXES = {"losses": ["pml"], "datasets": ["synthetic[train=32,val=1,test=1]"], "weights": "none", "overrides": RECIPE}


def spec_of(backbone: str):  # type: ignore[no-untyped-def]
    (run,) = plan(validated(AXES | {"backbones": [backbone]}, "test"))
    assert isinstance(run, Planned), run.reason
    return run.spec


def engine(backbone: str, place: Place, output: Path) -> dict[str, float]:
    """Milliseconds a step as the record has them."""
    spec = spec_of(backbone)
    execute(Job(spec=spec, output=output, place=place, evaluations=(), resume=False), lambda event: None)
    return Store(output).run(spec.run_id).record().timings


def plain(backbone: str, place: Place) -> float:
    """Milliseconds a step of a loop with nothing in it but what training needs."""
    spec = spec_of(backbone)
    torch.manual_seed(spec.seed)
    network = build.network(spec, place)
    model, loader = Counter(network, build.loss(spec)), build.loaders(spec, place, network.multiple).train
    optimizer = build.optimizer(spec.recipe, model)
    model.train()
    steps, start = 0, time.perf_counter()
    for epoch in range(EPOCHS):
        loader.batch_sampler.sampler.set_epoch(epoch)
        for batch in loader:
            data = model.data_preprocessor(batch, training=True)
            optimizer.zero_grad()
            model(data.images, data.target, mode="loss")["loss"].backward()
            optimizer.step()
            steps += 1
    return 1e3 * (time.perf_counter() - start) / steps


@pytest.mark.parametrize("way", ["engine", "plain"])
@pytest.mark.parametrize("backbone", ["mcnn", "mobilenetv2"])
def test_a_run(benchmark, tmp_path: Path, backbone: str, way: str) -> None:  # type: ignore[no-untyped-def]
    benchmark.group = f"{EPOCHS} epochs of four steps, 256-px crops, batch 8, {backbone}"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = []

    def once() -> None:
        place = Place()
        found.append(engine(backbone, place, tmp_path)["step_ms"] if way == "engine" else plain(backbone, place))

    benchmark.pedantic(once, rounds=3, iterations=1)
    torch.set_num_threads(threads)
    benchmark.extra_info["step_ms"] = min(found)
    print(f"{backbone}, {way}: {min(found):.1f} ms a step")
    assert min(found) > 0


def test_two_workers_keep_a_light_network_busy(benchmark, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = []

    def once() -> None:
        found.append(engine("mobilenetv2", Place(workers=2), tmp_path))

    benchmark.pedantic(once, rounds=2, iterations=1)
    shares = [one["data_ms"] / one["step_ms"] for one in found]
    benchmark.extra_info["data_share"] = min(shares)
    print(f"waiting for data: {100 * min(shares):.1f} % of a step")
    assert all(0 <= share < 1 for share in shares)
