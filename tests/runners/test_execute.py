"""Whole runs on a tiny crowd: the same bits twice, resuming, failing, and the command line around it."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import losses
import results
from benchmark.cli import main
from benchmark.plan import Planned, plan
from benchmark.study import validated
from reports.words import recipe_words
from results.spec import EvaluationSpec
from results.store import Store
from runners import checkpoints, hooks
from runners.engines.local import Options, run_jobs
from runners.execute import execute
from runners.job import Job, Place
from tests.runners.crowd_folder import crowd_folder

RECIPE = {"epochs": 3, "batch_size": 4, "crop": 64, "lr": 1e-3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crowd_folder(tmp_path_factory.mktemp("data") / "crowd")


def planned(root: Path, loss: str = "pml", **axes: Any) -> Planned:
    plain = {"losses": [loss], "backbones": ["mcnn"], "datasets": ["folder"], "weights": "none", "overrides": RECIPE}
    (run,) = plan(validated(plain | axes, "test"), root)
    assert isinstance(run, Planned), run.reason
    return run


def job(root: Path, output: Path, loss: str = "pml", *, workers: int = 0, resume: bool = True, **axes: Any) -> Job:
    place = Place(data_root=root, cache_dir=output.parent / "cache", workers=workers)
    evaluations = (EvaluationSpec(), EvaluationSpec(selection="last"))
    spec = planned(root, loss, **axes).spec
    return Job(spec=spec, output=output, place=place, evaluations=evaluations, resume=resume)


def train(task: Job) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    execute(task, events.append)
    gc.collect()  # ends the data workers now: a process of its own would end with its run
    return events


def interrupted(task: Job, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains up to the middle of an epoch, counted from 0."""

    def interrupt(self: hooks.Progress, runner: Any, batch_idx: int, **_: Any) -> None:
        if runner.epoch == epoch:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hooks.Progress, "after_train_iter", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(task)


def same_run(one: Job, other: Job) -> None:
    """Weights, per-image rows and history (but for seconds) have the same bits."""
    a, b = (Store(task.output).run(task.spec.run_id) for task in (one, other))
    for rule in ("val", "last"):
        left, right = load_file(a.weights(rule)), load_file(b.weights(rule))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
        evaluation = EvaluationSpec(selection=rule)
        pd.testing.assert_frame_equal(a.images(evaluation), b.images(evaluation), check_exact=True)
    pd.testing.assert_frame_equal(
        a.history().drop(columns="seconds"), b.history().drop(columns="seconds"), check_exact=True
    )


@pytest.mark.parametrize("loss", losses.names())
def test_every_loss_trains_and_is_recorded(root: Path, tmp_path: Path, loss: str) -> None:
    task = job(root, tmp_path / "runs", loss, backbones=["mobilenetv2"])
    assert train(task)[-1] == {"event": "done"}
    folder = Store(task.output).run(task.spec.run_id)
    record = folder.record()
    assert record.spec == task.spec
    assert set(record.selected) == {"val", "last"}
    assert record.timings["loss_ms"] > 0
    assert record.memory["peak_rss_mib"] > 100
    history = folder.history()
    assert history["epoch"].tolist() == [1, 2, 3]
    terms = history.filter(like="term/").sum(axis=1)
    np.testing.assert_allclose(terms, history["loss"], rtol=1e-4, atol=1e-4)
    assert (history["train_mae"] >= 0).all()
    best = history.loc[history["val_mae"].idxmin()]
    assert record.selected["val"] == {"epoch": best["epoch"], "mae": best["val_mae"]}
    images = folder.images(EvaluationSpec())
    (frame,) = results.load(task.output).query("selection == 'val'").to_dict("records")
    assert frame["mae"] == pytest.approx((images["predicted"] - images["true"]).abs().mean())
    assert not list(folder.work.glob("*.pth"))


def test_the_same_bits_twice_whatever_the_workers(root: Path, tmp_path: Path) -> None:
    one, other = job(root, tmp_path / "a"), job(root, tmp_path / "b", workers=2)
    train(one)
    train(other)
    same_run(one, other)


@pytest.mark.parametrize("loss", ["pml", "dm_count"])
def test_resuming_gives_the_run_that_was_never_interrupted(
    root: Path, tmp_path: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = job(root, tmp_path / "a", loss), job(root, tmp_path / "b", loss)
    train(whole)

    interrupted(broken, 2, monkeypatch)
    folder = Store(broken.output).run(broken.spec.run_id)
    assert folder.state() == "interrupted"
    assert train(broken)[-1] == {"event": "done"}
    assert folder.record().timings["resumed_from_epoch"] == 2
    same_run(whole, broken)


def test_no_resume_starts_afresh(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = job(root, tmp_path / "runs", resume=False)

    interrupted(task, 1, monkeypatch)
    train(task)
    assert Store(task.output).run(task.spec.run_id).record().timings["resumed_from_epoch"] == 0


def test_a_loss_that_is_not_finite_fails_with_its_terms_and_can_be_retried(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = job(root, tmp_path / "runs")
    kind = losses.load("pml")
    calls = {"number": 0}
    right = kind.image_terms

    def spoil(self: Any, sample: Any) -> Any:
        calls["number"] += 1
        terms = right(self, sample)
        return {name: value * float("nan") for name, value in terms.items()} if calls["number"] > 20 else terms

    with monkeypatch.context() as patch:
        patch.setattr(kind, "image_terms", spoil)
        event = train(task)[-1]
    assert event["event"] == "failed"
    assert "loss is not finite" in event["reason"]
    assert "term/count nan" in event["reason"]
    assert "(epoch 3, step 6; the batch is kept in" in event["reason"]
    kept = load_file(Store(task.output).run(task.spec.run_id).work / "diverged.safetensors")
    assert kept["images"].shape[0] == kept["prediction"].shape[0] == len(kept) - 2
    folder = Store(task.output).run(task.spec.run_id)
    assert folder.state() == "failed"
    assert folder.failure().epoch >= 1
    assert train(task)[-1] == {"event": "done"}


def test_a_changed_dataset_is_refused(tmp_path: Path) -> None:
    folder = crowd_folder(tmp_path / "crowd")
    task = job(folder, tmp_path / "runs")
    next((folder / "train").glob("*.json")).write_text("[[5.0, 5.0]]")
    event = train(task)[-1]
    assert "content hash" in event["reason"]


def test_noise_changes_the_training_and_never_the_test(root: Path, tmp_path: Path) -> None:
    clean, noisy = job(root, tmp_path / "a"), job(root, tmp_path / "b", noises=["missing:0.5"])
    train(clean)
    train(noisy)
    one, other = (Store(task.output).run(task.spec.run_id) for task in (clean, noisy))
    assert one.images(EvaluationSpec())["true"].equals(other.images(EvaluationSpec())["true"])
    assert other.record().train_count_mean < 0.8 * one.record().train_count_mean
    assert not one.history()["loss"].equals(other.history()["loss"])


def test_a_new_evaluation_needs_no_training(root: Path, tmp_path: Path) -> None:
    task = job(root, tmp_path / "runs")
    first = task.model_copy(update={"evaluations": (EvaluationSpec(),)})
    train(first)
    folder = Store(task.output).run(task.spec.run_id)
    finished = folder.record().finished
    time.sleep(1.1)
    events = train(task)
    assert {event["event"] for event in events} == {"evaluate", "done"}
    assert folder.record().finished == finished
    assert folder.has_evaluation(EvaluationSpec(selection="last"))


def arguments(root: Path, output: Path, *more: str) -> list[str]:
    words = ["run", "--backbones", "mcnn", "--datasets", "folder", "--data-root", str(root), "-o", str(output)]
    words += ["--epochs", "2", "--batch-size", "4", "--crop", "64", "--cache-dir", str(output.parent / "cache")]
    return [*words, "--device", "cpu", *more]


def test_the_command_line_trains_once(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(root, tmp_path / "runs", "--losses", "pml", "bl", "--json", "-j", "2")
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)
    assert {row["loss"] for row in first["rows"]} == {"pml", "bl", "(constant count)"}
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert main(["status", "-o", str(tmp_path / "runs"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 2
    assert main(["list", "-o", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert all(f"{row['mae']:.1f}" in printed for row in first["rows"] if row["seeds"])


def test_the_oracle_is_trained_for_and_labelled(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(root, tmp_path / "runs", "--losses", "l2")
    assert main([*words, "--json"]) == 0
    (folder,) = Store(tmp_path / "runs").runs()
    before = load_file(folder.weights("last"))
    assert main([*words, "--select", "test_oracle"]) == 0  # the weights were not kept: trained again, to the same bits
    assert "ON THE TEST SET" in " ".join(capsys.readouterr().out.split())
    after = load_file(folder.weights("last"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    frame = results.load(tmp_path / "runs").set_index("selection")
    assert frame.loc["test_oracle", "mae"] <= frame.loc["val", "mae"]
    assert folder.history()["test_oracle_mae"].min() == pytest.approx(frame.loc["test_oracle", "mae"])


def test_a_bad_image_fails_its_run_and_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = crowd_folder(tmp_path / "crowd")
    words = arguments(folder, tmp_path / "runs", "--losses", "pml", "--noise", "none", "missing:0.1", "--json")
    broken = next((folder / "test").glob("*.png"))
    broken.write_bytes(broken.read_bytes()[:200])
    assert main(words) == 1
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["failed"]) == 2
    assert all(broken.name in reason for reason in printed["failed"].values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interruption_leaves_everything_resumable(root: Path, tmp_path: Path, number: int) -> None:
    """Ctrl-C, a termination, and a death that cannot be noticed but by the workers it leaves behind."""
    words = arguments(root, tmp_path / "runs", "--losses", "pml", "--epochs", "400", "-j", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A background job ignores Ctrl-C, and so would its children: the tests may be run by one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 90
        while not list((tmp_path / "runs").glob("*/work/checkpoint-*.pth")) and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(number)
        assert process.wait(30) == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    finally:
        process.kill()
    (folder,) = Store(tmp_path / "runs").runs()
    deadline = time.monotonic() + 30
    while folder.state() == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert folder.state() == "interrupted"
    assert checkpoints.load(folder.work) is not None


def test_a_worker_that_is_killed_is_a_failed_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when memory runs out: nobody in the worker can say a word."""
    fatal = tmp_path / "fatal"
    fatal.mkdir()
    (fatal / "sitecustomize.py").write_text(
        "import os, signal, sys\nif 'runners.worker' in ' '.join(sys.orig_argv): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(fatal))
    assert main(arguments(root, tmp_path / "runs", "--losses", "pml", "--json")) == 1
    (reason,) = json.loads(capsys.readouterr().out)["failed"].values()
    assert "memory" in reason


def test_a_tuned_recipe_keeps_its_search(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(root, tmp_path / "runs", "--losses", "pml", "--recipe", "tuned", "--budget", "2", "--json")
    assert main([*words, "--seeds", "0", "1", "--epochs", "1"]) == 0
    capsys.readouterr()
    store = Store(tmp_path / "runs")
    searched = [run.record() for run in store.runs() if run.record().search]
    assert sorted(record.spec.seed for record in searched) == [0, 1]
    for record in searched:
        best = min(record.search, key=lambda trial: trial["val_mae"])
        assert record.spec.recipe.lr == best["lr"]
        assert len(record.search) == 2


def test_files_of_the_working_directory_are_no_modules(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker imports what is installed, not a script of the user's that bears the name of a library."""
    (tmp_path / "safetensors.py").write_text("raise RuntimeError('a file of the user')")
    monkeypatch.chdir(tmp_path)
    events: list[dict[str, Any]] = []
    run_jobs([job(root, tmp_path / "runs")], Options(jobs=1), lambda _, event: events.append(event))
    assert [event for event in events if event["event"] != "idle"][-1] == {"event": "done"}


def test_two_commands_share_one_store(root: Path, tmp_path: Path) -> None:
    """Started at once on the same store, both end with everything, and every run was trained once."""
    words = arguments(root, tmp_path / "runs", "--losses", "pml", "bl", "l2", "--json", "-j", "1")
    command = [sys.executable, "-m", "benchmark", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pair = [
        subprocess.Popen([*command, "--epochs", "6"], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [json.loads(process.communicate(timeout=300)[0]) for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert printed[0] == printed[1]
    assert not printed[0]["failed"]
    for folder in Store(tmp_path / "runs").runs():
        assert folder.history()["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
        assert folder.claims.holder() is None


def test_a_run_in_bf16_trains_and_is_measured_in_float32(root: Path, tmp_path: Path) -> None:
    """Another run than the one in float32, with weights and predictions in float32."""
    mixed = job(root, tmp_path / "runs", overrides=RECIPE | {"precision": "bf16"})
    plain = job(root, tmp_path / "runs")
    assert mixed.spec.run_id != plain.spec.run_id
    train(mixed)
    folder = Store(tmp_path / "runs").run(mixed.spec.run_id)
    assert folder.record().spec.recipe.precision == "bf16"
    assert np.isfinite(folder.history()["loss"]).all()
    assert {value.dtype for value in load_file(folder.weights("val")).values() if value.is_floating_point()} == {
        torch.float32
    }
    row = Store(tmp_path / "runs").load().iloc[0]
    assert row["recipe_precision"] == "bf16"
    assert "network in bf16" in recipe_words(row)
