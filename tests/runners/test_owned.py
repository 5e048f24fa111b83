"""Runs whose files are another process's, or damaged: nothing is written that must not be, nothing is passed over."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli import main
from results.claims import document
from results.spec import EvaluationSpec
from results.store import RunFolder, Store
from runners import execute as engine
from runners import hooks, weights
from runners.execute import _check_kept as check_kept
from tests.runners.crowd_folder import crowd_folder
from tests.runners.test_execute import arguments, interrupted, job, train


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crowd_folder(tmp_path_factory.mktemp("data") / "crowd")


def test_a_run_that_is_held_is_left_alone(root: Path, tmp_path: Path) -> None:
    task = job(root, tmp_path / "runs")
    folder = Store(task.output).run(task.spec.run_id)
    assert folder.claims.take()
    events = train(task)
    assert [event["event"] for event in events] == ["held"]
    assert str(os.getpid()) in events[0]["holder"]
    folder.claims.release()
    assert train(task)[-1] == {"event": "done"}


def test_a_process_that_was_taken_over_writes_nothing_more(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that slept: its run was taken over elsewhere, and when it wakes it stops at the end of the epoch.

    Neither weights nor history are touched: the other may have finished them.
    """
    task = job(root, tmp_path / "runs")
    folder = Store(task.output).run(task.spec.run_id)
    before: dict[str, bytes] = {}

    def slept(self: hooks.Progress, runner: Any, batch_idx: int, **_: Any) -> None:
        if runner.epoch == 1 and batch_idx == 0:
            owner = folder.claims.holder()
            assert owner is not None
            (folder.path / "claim-0002.json").write_text(document(owner._replace(machine="elsewhere")))
            before.update(content(folder.path))

    with monkeypatch.context() as patch:
        patch.setattr(hooks.Progress, "after_train_iter", slept)
        assert train(task)[-1]["event"] == "held"
    assert before == content(folder.path)
    assert {"history.jsonl", "model_val.safetensors"} <= before.keys()
    assert folder.state() == "running"
    assert not (folder.path / "failed.json").exists()
    assert len(list(folder.work.glob("checkpoint-000001-*.pth"))) == 1
    assert not list(folder.work.glob("checkpoint-000002-*.pth"))


def content(folder: Path) -> dict[str, bytes]:
    """What is in a run's folder, but for claims and the work in progress."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and "claim" not in path.name}


@pytest.mark.parametrize("stage", ["evaluation", "record", "failure"])
def test_a_process_that_was_taken_over_after_training_writes_nothing_more(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    task = job(root, tmp_path / "runs")
    folder = Store(task.output).run(task.spec.run_id)

    def slept(*_: Any, **__: Any) -> Any:
        owner = folder.claims.holder()
        assert owner is not None
        (folder.path / "claim-0002.json").write_text(document(owner._replace(machine="elsewhere")))
        if stage == "failure":
            raise OSError("its files are another's")
        return original(*_, **__)

    where = {"evaluation": (engine, "summary"), "record": (engine, "describe"), "failure": (engine, "describe")}[stage]
    original = getattr(*where)
    with monkeypatch.context() as patch:
        patch.setattr(*where, slept)
        assert train(task)[-1]["event"] == "held"
    assert not (folder.path / "failed.json").exists()
    assert (folder.path / "record.json").exists() == (stage == "evaluation")
    assert not list(folder.path.glob("eval/*/metrics.json"))


def test_weights_of_another_epoch_than_the_selected_one_finish_no_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between weights and checkpoint of an epoch that is not the best any more where numbers round otherwise."""
    task = job(root, tmp_path / "runs")
    folder = Store(task.output).run(task.spec.run_id)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_check_kept", lambda folder, keeper: spoil(folder, keeper))
        assert train(task)[-1]["event"] == "failed"
    reason = folder.failure().reason
    assert "the kept weights of 'val' are of epoch 77, selected was epoch" in reason
    assert "--no-resume" in reason
    assert not (folder.path / "record.json").exists()
    assert train(task.model_copy(update={"resume": False}))[-1] == {"event": "done"}


def spoil(folder: RunFolder, keeper: hooks.KeepWeights) -> None:
    """The weights of a later epoch take the place of the selected ones."""
    found = weights.read(folder.weights("val"))
    weights.save(folder.weights("val"), found, 77)
    check_kept(folder, keeper)


def test_what_killed_processes_left_is_removed_in_the_end(root: Path, tmp_path: Path) -> None:
    """A checkpoint after the record, and half-written files of any kind."""
    task = job(root, tmp_path / "runs")
    folder = Store(task.output).run(task.spec.run_id)
    folder.work.mkdir(parents=True)
    for name in ("work/.checkpoint.1234abcd.tmp", ".record.json.1234abcd.tmp", "eval/val-test-m1/.metrics.json.1.tmp"):
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_text("half")
    assert train(task)[-1] == {"event": "done"}
    assert not list(folder.path.rglob("*.tmp"))
    (folder.work / f"checkpoint-000002-{'0' * 64}.pth").write_text("left between record and removal")
    more = task.model_copy(update={"evaluations": (*task.evaluations, EvaluationSpec(split="val"))})
    assert train(more)[-1] == {"event": "done"}
    assert not list(folder.path.rglob("*.pth"))


@pytest.mark.parametrize("file", ["record.json", "metrics.json", "images.parquet", "history.jsonl", "spec.json"])
@pytest.mark.parametrize("damage", ["torn", "changed", "emptied"])
def test_a_damaged_file_of_a_finished_run_is_noticed_and_the_others_go_on(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, damage: str
) -> None:
    words = [*arguments(root, tmp_path / "runs", "--losses", "l2", "bl", "--epochs", "3", "--lr", "1e-3"), "-j", "1"]
    for loss in ("l2", "bl"):
        assert train(job(root, tmp_path / "runs", loss))[-1] == {"event": "done"}
    store = Store(tmp_path / "runs")
    broken = store.run(job(root, tmp_path / "runs", "l2").spec.run_id)
    path = sorted(broken.path.rglob(file))[-1]  # of the measurements that of `val`, which the command reads
    data = path.read_bytes()
    middle = len(data) // 3
    if damage == "changed":
        place = next(i for i in range(middle, len(data)) if chr(data[i]).isdigit()) if file != "images.parquet" else 40
        data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    path.write_bytes({"torn": data[:middle], "emptied": b"", "changed": data}[damage])
    capsys.readouterr()
    within = file == "images.parquet" and damage == "changed"  # found when the table is read, and not before
    if not within:
        assert main(["status", "-o", str(store.root), "--json"]) == 1
        said = json.loads(capsys.readouterr().out)
        assert list(said["failures"]) == [broken.run_id]
        assert str(path) in said["failures"][broken.run_id]
        assert main(["list", "-o", str(store.root), "--json"]) == 1
        printed = capsys.readouterr()
        assert {row["loss"] for row in json.loads(printed.out)} == {"bl"}
        assert str(path) in printed.err
    assert main([*words, "--json"]) == 1
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert len(result["failed"]) == 1
    assert str(path) in next(iter(result["failed"].values()))


def test_a_checkpoint_of_another_run_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same network, same recipe, another seed: nothing but its name tells."""
    one, other = (job(root, tmp_path / name, seeds=[seed]) for name, seed in (("a", 0), ("b", 1)))
    for task in (one, other):
        interrupted(task, 1, monkeypatch)
    mine, foreign = (Store(task.output).run(task.spec.run_id) for task in (one, other))
    for path in mine.work.glob("*.pth"):
        path.unlink()
    for path in foreign.work.glob("*.pth"):
        shutil.copy(path, mine.work)
    event = train(one)[-1]
    assert f"is not of this run but of {foreign.run_id}; --no-resume starts it afresh" in event["reason"]
    assert train(one.model_copy(update={"resume": False}))[-1] == {"event": "done"}


def test_weights_of_another_run_are_refused(root: Path, tmp_path: Path) -> None:
    one, other = (job(root, tmp_path / name, seeds=[seed]) for name, seed in (("a", 0), ("b", 1)))
    for task in (one, other):
        assert train(task)[-1] == {"event": "done"}
    mine, foreign = (Store(task.output).run(task.spec.run_id) for task in (one, other))
    assert (mine.weights("val").stat().st_mode & 0o777) == (mine.path / "record.json").stat().st_mode & 0o777
    shutil.copy(foreign.weights("val"), mine.weights("val"))
    shutil.rmtree(mine.path / "eval")
    event = train(one)[-1]
    assert f"model_val.safetensors was written as {foreign.run_id}/model_val.safetensors" in event["reason"]


def test_equal_weights_are_equal_files(root: Path, tmp_path: Path) -> None:
    tasks = [job(root, tmp_path / name) for name in "abc"]
    for task in tasks:
        train(task)
    kept = [Store(task.output).run(task.spec.run_id).weights("last").read_bytes() for task in tasks]
    assert kept[0] == kept[1] == kept[2]
