"""A training step on an accelerator waits for nothing: shown on tensors without values, see tests/contracts."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import MessageHub

import losses
from losses import Target
from results.spec import Recipe
from results.store import Store
from runners import build
from runners.backbones import build_counter
from runners.counter import Counter
from runners.data.loader import Batch
from runners.execute import _OptimWrapper
from runners.hooks import History, StepInfo
from runners.job import TRACKERS
from tests.contracts.crowd import scatter
from tests.contracts.test_waiting import WAITS
from tests.runners.crowd_folder import crowd_folder
from tests.runners.test_execute import job, train

RECIPE = Recipe(epochs=2, batch_size=2, crop=64, clip_grad=1.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crowd_folder(tmp_path_factory.mktemp("data") / "crowd")


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without values have none; in float32 it does nothing."""
    monkeypatch.setattr(torch, "autocast", lambda *words, **others: nullcontext())


def step(name: str) -> tuple[Counter, SimpleNamespace, dict[str, torch.Tensor]]:
    """A step as the engine makes it: preprocessing, network, loss, gradient, clipping, optimiser."""
    loss = losses.build(name)
    model = Counter(build_counter("mcnn", reads=loss.reads, weights="none"), loss).to("meta")
    wrapper = _OptimWrapper(build.optimizer(RECIPE, model), clip_grad={"max_norm": RECIPE.clip_grad})
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8, device="meta")
    points = [scatter(count, (64, 64), seed=count).to("meta") for count in (7, 0)]
    outputs = model.train_step(Batch(images, Target(points, (64, 64)), ["a", "b"], [(64, 64)] * 2, [0, 1]), wrapper)
    return model, SimpleNamespace(model=model, optim_wrapper=wrapper, epoch=0, iter=0, train_dataloader=[0, 0]), outputs


@pytest.mark.parametrize("name", [name for name in losses.names() if name not in WAITS])
def test_a_step_and_what_is_noted_of_it_look_at_no_value(name: str, tmp_path: Path) -> None:
    model, runner, outputs = step(name)
    history, info = History(RECIPE, Store(tmp_path).run("0")), StepInfo(tracked=False)
    history.before_train_epoch(runner)
    for hook in (history, info):
        hook.after_train_iter(runner, 0, outputs=outputs)
    assert history._sums["loss"].device.type == "meta"
    assert model.timer.milliseconds is None, "the clock is not read, for which the device would have to be waited for"


def test_the_engines_own_notes_do_wait() -> None:
    """Why there is `StepInfo`; the day this fails it can go."""
    _, runner, outputs = step("l2")
    runner.message_hub = MessageHub("waits")
    with pytest.raises(RuntimeError, match="meta"):
        RuntimeInfoHook().after_train_iter(runner, 0, outputs=outputs)


def test_a_tracker_gets_the_terms_of_logged_steps_and_the_validation(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the engine's own backend, which writes what the others would be sent."""
    monkeypatch.setitem(TRACKERS, "tensorboard", "LocalVisBackend")
    task = job(root, tmp_path / "runs")
    plain = task.model_copy(update={"output": tmp_path / "plain"})
    task = task.model_copy(update={"place": task.place.model_copy(update={"tracker": "tensorboard"})})
    for each in (task, plain):
        assert train(each)[-1] == {"event": "done"}
    run = Store(task.output).run(task.spec.run_id)
    (file,) = run.work.rglob("scalars.json")
    rows: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    history = run.history()
    assert [row["val_mae"] for row in rows if "val_mae" in row] == pytest.approx(history["val_mae"].tolist())
    steps = [row for row in rows if "loss" in row]
    assert len(steps) == len(history)
    assert all(row["loss"] > 0 and row["lr"] > 0 for row in steps)
    assert not list(Store(plain.output).run(plain.spec.run_id).work.rglob("scalars.json"))
