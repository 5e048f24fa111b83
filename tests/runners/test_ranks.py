"""One run by two processes that share its batches is the run of one, but for the order of sums."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import losses
from results.spec import EvaluationSpec
from results.store import RunFolder, Store
from runners import ranks, weights
from runners.data.loader import EpochSampler, PartOfBatches
from runners.engines.local import Options, run_jobs
from runners.job import Job
from tests.runners.crowd_folder import crowd_folder
from tests.runners.test_execute import job


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crowd_folder(tmp_path_factory.mktemp("data") / "crowd")


def shared(task: Job, count: int) -> Job:
    return task.model_copy(update={"place": task.place.model_copy(update={"ranks": count})})


def run(task: Job) -> tuple[RunFolder, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    run_jobs([task], Options(), lambda _, event: events.append(event))
    return Store(task.output).run(task.spec.run_id), [event for event in events if event["event"] != "idle"]


def longer(task: Job, epochs: int = 60) -> Job:
    recipe = task.spec.recipe.model_copy(update={"epochs": epochs})
    return task.model_copy(update={"spec": task.spec.model_copy(update={"recipe": recipe})})


def start(task: Job) -> subprocess.Popen[str]:
    """The process of a run."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "runners.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(losses.__file__).parents[1])},
    )
    assert process.stdin is not None
    process.stdin.write(task.model_dump_json())
    process.stdin.close()
    return process


def wait_for_checkpoint(task: Job) -> None:
    work = Store(task.output).run(task.spec.run_id).work
    deadline = time.monotonic() + 120
    while not list(work.glob("checkpoint-*.pth")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(work.glob("checkpoint-*.pth"))


@pytest.mark.parametrize(("images", "batch", "count"), [(8, 4, 2), (10, 4, 2), (9, 6, 3), (5, 8, 2)])
def test_parts_make_up_the_batches_of_one(images: int, batch: int, count: int) -> None:
    def batches(rank: int, of: int) -> list[list[int]]:
        sampler = EpochSampler(range(images), seed=5)
        sampler.set_epoch(3)
        return list(PartOfBatches(sampler, batch, rank, of))

    whole, parts = batches(0, 1), [batches(rank, count) for rank in range(count)]
    assert {len(part) for part in parts} == {len(whole)}
    for place, expected in enumerate(whole):
        dealt = [part[place] for part in parts]
        assert sorted(chain(*dealt)) == sorted(expected)
        assert all(dealt)


def test_a_batch_smaller_than_the_processes_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 1 cannot be shared by 2 processes"):
        PartOfBatches(EpochSampler(range(9)), 4, 0, 2)


@pytest.mark.parametrize("loss", ["pml", "dm_count"])
def test_two_processes_train_the_run_of_one(root: Path, tmp_path: Path, loss: str) -> None:
    """MCNN has no batch normalisation: on a CPU that is over each process's part."""
    alone, _ = run(job(root, tmp_path / "a", loss, backbones=["mcnn"]))
    both, events = run(shared(job(root, tmp_path / "b", loss, backbones=["mcnn"]), 2))
    assert events[-1] == {"event": "done"}
    assert alone.run_id == both.run_id
    assert both.record().environment["ranks"] == 2
    for name in ("loss", "val_mae"):
        np.testing.assert_allclose(both.history()[name], alone.history()[name], rtol=1e-4)
    left, right = weights.read(both.weights("last")), weights.read(alone.weights("last"))
    for name, value in right.items():
        torch.testing.assert_close(left[name], value, rtol=1e-3, atol=1e-5)
    counts = [folder.images(EvaluationSpec())["predicted"] for folder in (both, alone)]
    np.testing.assert_allclose(*counts, rtol=1e-3)
    assert not list(both.work.glob("meeting-*"))


def test_a_split_that_cannot_be_shared_fails_with_its_reason(root: Path, tmp_path: Path) -> None:
    task = shared(job(root, tmp_path / "runs", backbones=["mcnn"]), 4)  # 7 images, batches of 4: the last one has 3
    _, events = run(task)
    assert events[-1]["event"] == "failed"
    assert "a batch of 3 cannot be shared by 4 processes" in events[-1]["reason"]


def test_the_death_of_another_process_is_told(root: Path, tmp_path: Path) -> None:
    task = shared(longer(job(root, tmp_path / "runs", backbones=["mcnn"])), 2)
    process = start(task)
    wait_for_checkpoint(task)
    (other,) = (child for child in psutil.Process(process.pid).children() if "runners.rank_worker" in child.cmdline())
    other.kill()
    process.wait(60)
    folder = Store(task.output).run(task.spec.run_id)
    assert folder.state() == "failed"
    assert "process 1 of the run ended with status -9" in folder.failure().reason


def test_a_process_that_dies_before_the_meeting_is_not_waited_for(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = shared(job(root, tmp_path / "runs", backbones=["mcnn"]), 2)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'runners.rank_worker' in sys.orig_argv:\n"
        "    print('no such library', file=sys.stderr, flush=True)\n"
        "    os._exit(7)\n"
    )
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        folder, events = run(task)
    expected = "process 1 of the run ended with status 7: no such library"
    assert events[-1] == {"event": "failed", "reason": expected}
    assert folder.failure().reason == expected
    _, events = run(task)
    assert events[-1] == {"event": "done"}
    assert not list(folder.work.glob("meeting-*"))


def test_a_process_that_waits_at_the_meeting_ends_with_rank_0(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However that one ends, its side of the pipe is closed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(losses.__file__).parents[1]))
    task, meeting = shared(job(root, tmp_path / "runs", backbones=["mcnn"]), 2), tmp_path / "meeting"
    process = ranks._start(task, 1, meeting, tmp_path / "log.txt")
    try:
        deadline = time.monotonic() + 60
        while not meeting.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, (tmp_path / "log.txt").read_text()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 1
    finally:
        process.kill()


def test_resuming_with_two_processes(root: Path, tmp_path: Path) -> None:
    task = shared(job(root, tmp_path / "runs", backbones=["mcnn"]), 2)
    slow = longer(task)
    process = start(slow)
    wait_for_checkpoint(slow)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder, events = run(slow)
    assert events[-1] == {"event": "done"}
    resumed = folder.record().timings["resumed_from_epoch"]
    assert resumed is not None
    assert 1 <= resumed < 60
    assert folder.history()["epoch"].tolist() == list(range(1, 61))
    assert not list(folder.work.glob("meeting-*")), "where the killed ones had met"
