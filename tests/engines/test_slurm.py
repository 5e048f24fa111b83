"""Runs as jobs of a real Slurm (`slurm_up.sh` brings one up): the bits of local processes, whatever ends them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from results.store import Store
from runners.engines import EngineError, local
from runners.engines import slurm as engine
from runners.job import Job
from tests.engines.study import Told, checkpoints, jobs, left_halfway, resumed_from, same_runs

pytest.importorskip("submitit", reason="needs submitit: pip install 'crowd-loss-benchmark[slurm]'")
pytestmark = pytest.mark.cluster

LONG = 40
"""Epochs of a run that something happens to."""
SLOW = """
import os, sys, time
if "runners.worker" in " ".join(sys.orig_argv):
    rename = os.replace
    def slowly(source, target, **other):
        time.sleep({seconds} if "checkpoint-" in str(target) else 0)
        return rename(source, target, **other)
    os.replace = slowly
"""


@pytest.fixture(autouse=True, scope="module")
def _slurm() -> None:
    if shutil.which("sinfo") is None:
        pytest.skip("needs Slurm: tests/engines/slurm_up.sh --install, as root in a container")
    found = subprocess.run(["sinfo", "--noheader", "--format=%t"], capture_output=True, text=True, timeout=60)
    if not any(state in found.stdout for state in ("idle", "mix", "alloc")):
        pytest.skip(f"Slurm has no node that is up ({found.stderr.strip() or found.stdout.strip()}): see slurm_up.sh")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slurm")


@pytest.fixture(scope="module")
def long(folder: Path) -> list[Job]:
    """What local processes make of the runs that something happens to."""
    tasks = jobs(folder, "local", LONG, ("pml", "l2"))
    local.run_jobs(tasks, local.Options(), Told())
    return tasks


def options(folder: Path, seconds: float = 0.5, **more: Any) -> engine.Options:
    """A worker of these jobs takes `seconds` for a checkpoint, so that there is time to end it."""
    slow = folder / f"slow-{seconds}"
    slow.mkdir(exist_ok=True)
    (slow / "sitecustomize.py").write_text(SLOW.format(seconds=seconds))
    return engine.Options(device="cpu", slurm_setup=(f"export PYTHONPATH={slow}",), **more)


def number(job: Job) -> str | None:
    return engine._kept(Store(job.output).run(job.spec.run_id))


class Once:
    """Does something to the first job's Slurm job, once it has trained a few epochs."""

    def __init__(self, job: Job, *words: str) -> None:
        self.job, self.words, self.done = job, words, ""

    def __call__(self, index: int, event: dict[str, Any]) -> None:
        if not self.done and index == 0 and event.get("epoch", 0) >= 3 and (found := number(self.job)):
            self.done = found
            print("+", *self.words, found)
            subprocess.run([*self.words, found], check=True, timeout=60)


def test_the_bits_of_local_processes(folder: Path) -> None:
    ours, theirs, told = jobs(folder, "short"), jobs(folder, "short-local"), Told()
    engine.run_jobs(ours, options(folder, 0), told)
    local.run_jobs(theirs, local.Options(), Told())
    same_runs(ours, theirs)
    assert sorted(told.of("done")) == [0, 1, 2]
    assert next(event["text"] for _, event in told.events if event["event"] == "said").startswith("submitted 3 runs")
    assert all(number(job) is None for job in ours)
    assert not [path.name for path in (ours[0].output / ".slurm").glob("*.pkl")]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("scontrol", "requeue"), id="requeued by an operator"),
        pytest.param(("scancel", "--signal=USR2"), id="told that its time is up"),
        pytest.param(("scancel", "--signal=KILL"), id="killed"),
    ],
)
def test_a_job_that_is_ended_goes_on_and_no_bit_differs(
    folder: Path, long: list[Job], words: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    ours = jobs(folder, f"ended-{words[-1].strip('-').replace('=', '-')}", LONG, ("pml", "l2"))
    once = Once(ours[0], *words)
    told = Told(once)
    engine.run_jobs(ours, options(folder), told)
    assert once.done
    if words[-1] == "--signal=KILL":  # Slurm counts it as cancelled: somebody wanted its end
        (reason,) = [event["reason"] for _, event in told.events if event["event"] == "failed"]
        assert "CANCELLED" in reason
        assert Store(ours[0].output).run(ours[0].spec.run_id).state() == "interrupted"
        told = Told()
        engine.run_jobs(ours[:1], options(folder), told)
        assert told.of("done") == [0]
    else:
        assert 0 in told.of("again")
        assert sorted(told.of("done")) == [0, 1]
    assert resumed_from(ours[0]) >= 2
    same_runs(ours, long)


def test_runs_that_shall_start_afresh_do_so_once(folder: Path, long: list[Job]) -> None:
    """Not again when Slurm requeues them: then what the second attempt has is kept."""
    ours = jobs(folder, "afresh", LONG, ("pml", "l2"))
    left = left_halfway(ours)
    once, told = Once(ours[0], "scontrol", "requeue"), Told()
    told.then = once
    engine.run_jobs([job.model_copy(update={"resume": False}) for job in ours], options(folder), told)
    assert once.done
    assert 0 in told.of("again")
    assert sorted(told.of("done")) == [0, 1]
    assert not any(path.exists() for path in left)
    assert resumed_from(ours[0]) >= 2
    assert resumed_from(ours[1]) == 0
    same_runs(ours, long)


def test_a_node_that_fails_costs_no_run(folder: Path, long: list[Job]) -> None:
    """Slurm queues its jobs again by itself, once it counts the node as down."""
    ours = jobs(folder, "down", LONG, ("pml", "l2"))
    (node,) = set(subprocess.run(["sinfo", "--noheader", "--format=%n"], capture_output=True, text=True).stdout.split())
    states: list[str] = []

    def set_node(state: str) -> None:
        states.append(state)
        print("+ scontrol update", node, state)
        words = ["scontrol", "update", f"nodename={node}", f"state={state}", "reason=test"]
        subprocess.run(words, check=state == "down", timeout=60)  # a node that answers may have come back by itself

    def fail(index: int, event: dict[str, Any]) -> None:
        if not states and event.get("epoch", 0) >= 3:
            set_node("down")
        elif states == ["down"] and event["event"] == "again":
            set_node("resume")

    told = Told(fail)
    try:
        engine.run_jobs(ours, options(folder), told)
    finally:
        if states == ["down"]:
            set_node("resume")
    assert sorted(set(told.of("again"))) == [0, 1]
    assert sorted(told.of("done")) == [0, 1]
    assert any(resumed_from(job) for job in ours)
    same_runs(ours, long)


def test_jobs_go_on_without_the_command_and_are_found_again(folder: Path, long: list[Job]) -> None:
    ours = jobs(folder, "left", LONG, ("pml", "l2"))

    def leave(index: int, event: dict[str, Any]) -> None:
        if event.get("epoch", 0) >= 2:
            raise KeyboardInterrupt

    told = Told(leave)
    with pytest.raises(KeyboardInterrupt):
        engine.run_jobs(ours, options(folder), told)
    assert "the jobs go on" in told.events[-1][1]["text"]
    before = [number(job) for job in ours]
    again = Told()
    engine.run_jobs(ours, options(folder), again)
    said = [event["text"] for _, event in again.events if event["event"] == "said"]
    assert len(said) == 1
    assert "2 of the runs are in Slurm's queue already" in said[0]
    assert {n.partition("_")[0] for n in before if n} == {said[0].rpartition(" ")[2].partition("_")[0]}
    assert sorted(again.of("done")) == [0, 1]
    assert not any(resumed_from(job) for job in ours), "a run was trained by more than one job"
    same_runs(ours, long)


def test_a_job_that_reaches_its_time_limit_is_queued_again(folder: Path) -> None:
    """Two minutes, of which the last is for queueing again, and a run that takes longer than the first."""
    epochs = 60
    ours, theirs = jobs(folder, "limit", epochs, ("pml",)), jobs(folder, "limit-local", epochs, ("pml",))
    told = Told()
    engine.run_jobs(ours, options(folder, 1.0, slurm_time=2), told)
    assert told.of("again") == [0] * len(told.of("again"))
    assert told.of("again")
    assert told.of("done") == [0]
    assert resumed_from(ours[0]) > 0
    local.run_jobs(theirs, local.Options(), Told())
    same_runs(ours, theirs)


def test_a_run_that_no_job_can_finish_an_epoch_of_fails_with_the_reason(folder: Path) -> None:
    (job,) = jobs(folder, "vain", 3, ("pml",))
    task = engine.Task(job.model_dump_json(), limit=1)
    task._began -= 45
    assert task.checkpoint() is None
    run = Store(job.output).run(job.spec.run_id)
    assert run.state() == "failed"
    assert "raise --slurm-time (1 minutes)" in run.failure().reason


def test_what_slurm_refuses_is_said(folder: Path) -> None:
    tasks = jobs(folder, "refused", losses=("pml",))
    with pytest.raises(EngineError, match=r"Slurm refuses the jobs: .*nosuch"):
        engine.run_jobs(tasks, options(folder, slurm_partition="nosuch"), Told())
    assert not checkpoints(tasks[0])
