"""A loss that is not finite or has exploded ends its run with the batch that it happened on."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import losses
from losses import Target
from results.spec import Recipe
from results.store import Store
from runners import ranks, watch
from runners.execute import take_part
from runners.hooks import LARGEST, History
from runners.watch import DEEPEST, DivergedError, Step, Watch
from tests.runners.crowd_folder import crowd_folder
from tests.runners.test_execute import job, train


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crowd_folder(tmp_path_factory.mktemp("data") / "crowd")


def step(name: str = "a") -> Step:
    target = Target([torch.ones(1, 2), torch.zeros(0, 2)], (16, 16))
    return Step(torch.zeros(2, 3, 16, 16), target, [name, "other"], torch.zeros(2, 1, 2, 2))


def terms(loss: float) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(loss), "term/count": torch.tensor(loss / 2)}


@pytest.mark.parametrize(
    ("largest", "loss", "says"),
    [
        (None, math.nan, "the loss is not finite: loss nan"),
        (None, -math.inf, "not finite"),
        (3.0, math.nan, "not finite"),
        (
            3.0,
            3_001.0,
            "exploded: loss 3001, term/count 1500; the largest that is allowed is 3000, 1,000",
        ),
        (3.0, -3_001.0, "exploded"),
        (3.0, 2_999.0, None),
        (3.0, -2_999.0, None),
        (None, 1e5, None),
        (0.0, 1.0, None),
    ],
)
def test_what_is_refused(largest: float | None, loss: float, says: str | None) -> None:
    """0 as the largest loss of the first epoch (crops of nobody) says nothing about those to come."""
    watched = Watch()
    watched.allow(largest)
    watched.see(terms(1.0), step())
    if says is None:
        watched.see(terms(loss), step())
        return
    with pytest.raises(DivergedError, match=says) as caught:
        watched.see(terms(loss), step("b"))
    assert caught.value.behind == 0
    assert caught.value.ids == ["b", "other"]
    assert caught.value.batch is not None
    assert sorted(caught.value.batch) == ["images", "points_0", "points_1", "prediction"]


def test_the_limit_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watch()
    monkeypatch.setenv("CROWD_MAX_LOSS_GROWTH", "10")
    watched.allow(2.0)
    watched.see(terms(19.0), step())
    with pytest.raises(DivergedError, match="10 times that of the first epoch"):
        watched.see(terms(21.0), step())


@pytest.mark.parametrize(
    ("losses_", "says"),
    [
        ([2.0, 1.9e6], None),
        ([2.0, -2.1e6], "exploded: .*; it was 2 at the first step with people, and may be 1,000 x 1,000 times that in"),
        ([0.0, 2.0, 1.9e6], None),
        ([1e-9, math.nan], "not finite"),
    ],
)
def test_the_first_epoch_is_held_to_its_first_step(losses_: list[float], says: str | None) -> None:
    """A wrong learning rate shows there; no limit is known yet."""
    watched = Watch()
    nobody = Step(torch.zeros(1, 3, 4, 4), Target([torch.zeros(0, 2)], (16, 16)), None, torch.zeros(1, 1, 2, 2))
    watched.see(terms(1e-12), nobody)  # crops of nobody say nothing
    for loss in losses_[:-1]:
        watched.see(terms(loss), step())
    if says is None:
        watched.see(terms(losses_[-1]), step())
        return
    with pytest.raises(DivergedError, match=says):
        watched.see(terms(losses_[-1]), step())


@pytest.mark.parametrize(("error", "refused"), [(255.0, False), (257.0, True)])
def test_more_people_than_pixels_are_an_explosion(error: float, refused: bool) -> None:
    watched = Watch()
    found = terms(1.0) | {"train_mae": torch.tensor(error)}
    if not refused:
        watched.see(found, step())
        return
    with pytest.raises(DivergedError, match="off by more people than the crops have pixels"):
        watched.see(found, step())


class Late:
    """Stands for numbers on their way from a GPU."""

    queue: ClassVar[list[float]] = []
    arrived: ClassVar[list[float]] = []

    def __init__(self, values: torch.Tensor) -> None:
        self.loss = Late.queue.pop(0)

    def here(self) -> bool:
        return self.loss in Late.arrived

    def numbers(self) -> list[float]:
        return [self.loss, 0.0]


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], dict[str, torch.Tensor]]]:
    """Terms on a GPU whose values cannot be read; they arrive when the test says so."""
    monkeypatch.setattr(watch, "_Coming", Late)
    monkeypatch.setattr(Late, "queue", [])
    monkeypatch.setattr(Late, "arrived", [])
    with FakeTensorMode():

        def make(loss: float) -> dict[str, torch.Tensor]:
            Late.queue.append(loss)
            value = torch.empty((), device="cuda")
            with pytest.raises(DataDependentOutputException):
                bool(torch.isfinite(value))
            return {"loss": value, "term/count": value / 2}

        yield make


def test_on_a_gpu_a_step_is_looked_at_when_its_numbers_have_come(on_gpu: Callable[[float], Any]) -> None:
    steps = {name: step(name) for name in "abc"}
    watched = Watch()
    watched.see(on_gpu(1.0), steps["a"])
    watched.see(on_gpu(math.nan), steps["b"])
    Late.arrived = [1.0]
    watched.see(on_gpu(2.0), steps["c"])
    Late.arrived = [1.0, 2.0]  # numbers come in the order of the steps
    watched.see(on_gpu(3.0), steps["c"])
    with pytest.raises(DivergedError, match="not finite") as caught:
        watched.settle()
    assert (caught.value.behind, caught.value.ids) == (3, ["b", "other"])
    watched.settle()


def test_on_a_gpu_the_batch_of_a_step_that_has_come_is_the_offending_one(on_gpu: Callable[[float], Any]) -> None:
    watched = Watch()
    watched.allow(1.0)
    watched.see(on_gpu(20_000.0), step("a"))
    Late.arrived = [20_000.0]
    with pytest.raises(DivergedError, match="exploded") as caught:
        watched.see(on_gpu(1.0), step("b"))
    assert (caught.value.behind, caught.value.ids[0]) == (1, "a")


def test_on_a_gpu_few_batches_are_held(on_gpu: Callable[[float], Any]) -> None:
    watched = Watch()
    for number in range(3 * DEEPEST):
        watched.see(on_gpu(float(number)), step())
    assert len(watched._waiting) == DEEPEST


def test_an_exploding_loss_ends_its_run_with_the_batch(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = job(root, tmp_path / "runs")
    kind = losses.load("pml")
    right, calls = kind.image_terms, {"number": 0}

    def spoil(self: Any, sample: Any) -> Any:
        calls["number"] += 1
        return {name: value * (1e6 if calls["number"] > 20 else 1) for name, value in right(self, sample).items()}

    with monkeypatch.context() as patch:
        patch.setattr(kind, "image_terms", spoil)
        event = train(task)[-1]
    assert event["event"] == "failed"
    assert "the loss has exploded: " in event["reason"]
    assert "(epoch 3, step 6; the batch is kept in" in event["reason"]
    folder = Store(task.output).run(task.spec.run_id)
    assert load_file(folder.work / "diverged.safetensors")["images"].shape[1:] == (3, 64, 64)
    assert folder.failure().epoch == 2
    assert train(task)[-1] == {"event": "done"}
    history = folder.history()
    assert (history[LARGEST] >= history["loss"].abs()).all()


def test_another_process_of_the_run_keeps_the_batch_too(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its part of the batch is the one that the loss diverged on."""
    task = job(root, tmp_path / "runs")
    monkeypatch.setattr(
        losses.load("pml"), "image_terms", lambda self, sample: {"loss": sample.density.sum() * math.nan}
    )
    with pytest.raises(DivergedError, match=r"not finite.* \(epoch 1, step 1; the batch is kept in"):
        take_part(task, 0)
    assert (Store(task.output).run(task.spec.run_id).work / "diverged.safetensors").is_file()


def test_the_reason_outlives_a_batch_that_cannot_be_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = job(root, tmp_path / "runs")
    (Store(task.output).run(task.spec.run_id).work / "diverged.safetensors").mkdir(parents=True)
    kind = losses.load("pml")
    right = kind.image_terms
    monkeypatch.setattr(
        kind, "image_terms", lambda self, sample: {k: v * math.nan for k, v in right(self, sample).items()}
    )
    event = train(task)[-1]
    assert "the loss is not finite" in event["reason"]
    assert "(epoch 1, step 1; the batch could not be kept: " in event["reason"]


@pytest.mark.parametrize(("row", "expected"), [({LARGEST: 2.0}, 2_000.0), ({}, math.inf)])
def test_a_resumed_run_keeps_the_limit_of_its_first_epoch(
    tmp_path: Path, row: dict[str, float], expected: float
) -> None:
    """A history without it, of an older version, sets no limit."""
    folder = Store(tmp_path).run("0")
    folder.history_file.parent.mkdir(parents=True)
    folder.history_file.write_text(json.dumps({"epoch": 1} | row) + "\n" + json.dumps({"epoch": 2, LARGEST: 7.0}))
    runner = SimpleNamespace(model=SimpleNamespace(watch=Watch()), epoch=2)
    History(Recipe(), folder).before_train_epoch(runner)
    assert runner.model.watch.limit == expected


def test_a_process_that_is_stuck_because_another_died_ends(tmp_path: Path) -> None:
    """On GPUs a sum waits for the part of a dead process; here the block just sleeps."""
    program = f"""
import subprocess, sys, threading, time
from pathlib import Path
from runners import ranks
dead = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
Path({str(tmp_path)!r}, "log-rank-1.txt").write_text("why it died")
tell = lambda event: print(event["event"], event["reason"], flush=True)
threading.Thread(target=ranks._guard, args=([dead], Path({str(tmp_path)!r}), threading.Event(), tell)).start()
time.sleep(60)
"""
    root = Path(ranks.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, timeout=50)
    assert done.returncode == 1
    assert done.stdout == "failed process 1 of the run ended with status 3: why it died\n"
