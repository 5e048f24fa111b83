"""What all engines have in common, and what the command line says of them, without any cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark import show
from benchmark.cli import main
from results.claims import LEASE, Owner, document
from results.store import RunFolder, Store
from runners import engines
from runners.engines import EngineError, local, parcels, process, slurm
from runners.engines.process import Carrier, afresh
from runners.job import Job
from tests.engines.study import Told, jobs

HERE = Path(engines.__file__).parent


def test_every_engine_is_a_file_with_the_same_functions() -> None:
    written = {path.stem for path in HERE.glob("*.py") if re.search(r"^def run_jobs", path.read_text(), re.MULTILINE)}
    assert written == set(engines.NAMES)
    for name in engines.NAMES:
        module = engines.load(name)
        assert {"Options", "check", "run_jobs"} <= set(module.__all__)
        assert not module.Options.model_json_schema().get("required"), "a word of the command line has no default"
    with pytest.raises(EngineError, match="local, ray, slurm"):
        engines.load("htcondor")


def test_engines_are_known_without_what_they_need() -> None:
    code = "import sys, benchmark.cli; from runners import engines; [engines.load(n) for n in engines.NAMES];"
    code += "print(sorted({'torch', 'ray', 'submitit'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_command_line_knows_them_and_their_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    said = capsys.readouterr().out
    assert f"{{{','.join(engines.NAMES)}}}" in said
    words = {word for name in engines.NAMES for word in engines.load(name).Options.model_fields} - {"devices"}
    assert all(f"--{word.replace('_', '-')}" in said for word in words)


@pytest.mark.parametrize(("package", "engine"), [("ray", "ray"), ("submitit", "slurm")])
def test_a_missing_extra_is_named_before_anything_is_planned(
    package: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["run", "--engine", engine, "-o", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr()
    assert f"pip install 'crowd-loss-benchmark[{engine}]'" in said.err
    assert not said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--ray-address", "auto"], "--ray-address is for --engine ray, not for local"),
        (["--slurm-time", "60"], "--slurm-time is for --engine slurm"),
        (["--engine", "slurm", "--runs-per-gpu", "2"], "--runs-per-gpu is for --engine local"),
        (["--jobs", "0"], "--jobs: input should be greater than 0; found 0"),
        (["--runs-per-gpu", "0"], "--runs-per-gpu: input should be greater than 0 or 'auto'; found '0'"),
        (["--runs-per-gpu", "many"], "unable to parse string as an integer or 'auto'; found 'many'"),
        (["--engine", "ray", "--device", "cuda:1"], "chooses the GPUs itself"),
        (["--engine", "ray", "--ray-address", "ray://head:10001"], "on a node of the cluster"),
        (["--engine", "slurm", "--slurm-time", "1"], "at least 5 minutes"),
        (["--engine", "slurm", "--slurm-options", "account"], "NAME=VALUE, such as account=lab; found 'account'"),
    ],
)
def test_words_that_make_no_sense_are_refused(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runners.engines.ray.needs", lambda package, extra: None)
    monkeypatch.setattr("runners.engines.slurm.needs", lambda package, extra: None)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert main(["run", *words, "-o", str(tmp_path / "runs")]) == 2
    assert expected in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_slurm_wants_its_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("runners.engines.slurm.needs", lambda package, extra: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="not found: sbatch, srun, squeue"):
        slurm.check(slurm.Options())


WORKERS = {
    "done": "say(event='done')",
    "failed": "say(event='failed', reason='loss is not finite')",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "ended": "sys.exit(3)",
    "torn": 'print(\'{"event": "do\', flush=True); sys.exit(3)',
    "stopped": "time.sleep(60)",
    "stubborn": "signal.signal(signal.SIGTERM, signal.SIG_IGN); say(event='epoch'); time.sleep(60)",
}
"""What processes of a run do after their first epoch, in the place of `runners.worker`."""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("done", {"event": "done"}),
        ("failed", {"event": "failed", "reason": "loss is not finite"}),
        ("killed", {"event": "failed", "reason": "most likely because memory ran out"}),
        ("ended", {"event": "failed", "reason": "ended with status 3"}),
        ("torn", {"event": "failed", "reason": "ended with status 3"}),
        ("stopped", {"event": "stopped"}),
        ("stubborn", {"event": "stopped"}),
    ],
)
def test_a_carrier_says_how_its_worker_ended(
    kind: str, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "code" / "runners" / "worker.py"
    worker.parent.mkdir(parents=True)
    (worker.parent / "__init__.py").touch()
    said = "def say(**event):\n    print(json.dumps(event), flush=True)\n"
    worker.write_text(
        f"import json, os, signal, sys, time\n{said}assert json.load(sys.stdin)['spec']['loss'] == 'l2'\n"
        f"say(event='epoch')\n{WORKERS[kind]}\n"
    )
    monkeypatch.setattr(process, "ROOT", tmp_path / "code")
    monkeypatch.setattr(process, "GRACE", 1.0)
    (job,) = jobs(tmp_path, "runs", losses=("l2",))
    told: list[str] = []

    def report(event: dict[str, Any]) -> None:
        told.append(event["event"])
        if expected["event"] == "stopped" and told.count("epoch") == 1 + (kind == "stubborn"):
            carrier.stop()

    carrier = Carrier(job, "cpu", report)
    last = carrier.run()
    assert last["event"] == expected["event"]
    assert expected.get("reason", "") in last.get("reason", "")
    assert told[0] == "start"
    assert "epoch" in told
    run = Store(job.output).run(job.spec.run_id)
    assert run.has_failure() == (expected["event"] == "failed"), "what a worker did not write is written for it"
    if run.has_failure():
        assert run.failure().reason == last["reason"]


def test_a_carrier_waits_for_the_lease_of_a_dead_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner was elsewhere: only its silence tells that it is dead."""
    (job,) = jobs(tmp_path, "runs", losses=("l2",))
    run = Store(job.output).run(job.spec.run_id)
    run.path.mkdir(parents=True)
    claim = run.path / "claim-0001.json"
    claim.write_text(document(Owner("lost", "another machine", 7, 0.0)))
    os.utime(claim, (time.time() - LEASE + 2,) * 2)
    monkeypatch.setattr(process, "PATIENCE", 0.0)
    words = [{"event": "held", "holder": "process 7 on lost"}, {"event": "done"}]
    monkeypatch.setattr(Carrier, "_once", lambda self: words.pop(0))
    told: list[str] = []
    carrier = Carrier(job, "cpu", lambda event: told.append(event["event"]))
    assert carrier.run(wait=0.0)["event"] == "held"
    words.insert(0, {"event": "held", "holder": "process 7 on lost"})
    assert carrier.run() == {"event": "done"}
    assert run.claims.holder() is None
    assert told.count("held") == 2
    assert "idle" in told


def unwritable(job: Job) -> RunFolder:
    """The run's folder, which is a file."""
    run = Store(job.output).run(job.spec.run_id)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    run.path.write_text("a file")
    return run


def test_a_carrier_whose_run_cannot_be_started_says_so(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path, "runs", losses=("l2",))
    unwritable(job)
    last = Carrier(job, "cpu", lambda event: None).run()
    assert last["event"] == "failed"
    assert "Not a directory" in last["reason"]


def test_a_run_that_cannot_be_started_stops_no_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "code" / "runners" / "worker.py"
    worker.parent.mkdir(parents=True)
    (worker.parent / "__init__.py").touch()
    worker.write_text('print(\'{"event": "done"}\')\n')
    monkeypatch.setattr(process, "ROOT", tmp_path / "code")
    ours = jobs(tmp_path, "runs", losses=("l2", "bl", "pml"))
    unwritable(ours[1])
    told = Told()
    local.run_jobs(ours, local.Options(jobs=1), told)
    assert told.of("done") == [0, 2]
    assert told.of("failed") == [1]
    assert "Not a directory" in next(event["reason"] for _, event in told.events if event["event"] == "failed")


class Stop(Exception):  # noqa: N818
    """Ends the watching of a queue."""


def submitted(ours: list[Job], monkeypatch: pytest.MonkeyPatch) -> tuple[Told, list[str]]:
    """What is told until jobs are submitted to a Slurm that is not there, and the ids of their runs."""
    runs: list[str] = []

    def submit(tasks: list[slurm.Task], *others: object) -> list[str]:
        runs.extend(Job.model_validate_json(task.content).spec.run_id for task in tasks)
        return [f"77_{place}" for place in range(len(tasks))]

    def stop(self: slurm._Watch) -> None:
        raise Stop

    monkeypatch.setattr(slurm, "_submitted", submit)
    monkeypatch.setattr(slurm._Watch, "_wait", stop)
    told = Told()
    with pytest.raises(Stop):
        slurm._Watch(ours, slurm.Options(), told).carry_out()
    return told, runs


def test_slurm_goes_on_from_what_an_earlier_attempt_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = jobs(tmp_path, "runs", losses=("l2",))
    run = Store(job.output).run(job.spec.run_id)
    run.begin(job.spec)
    process.keep_failure(job, "killed")
    checkpoint = run.work / f"checkpoint-000003-{'0' * 64}.pth"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    _, runs = submitted([job], monkeypatch)
    assert runs == [run.run_id]
    assert checkpoint.exists()
    assert not run.has_failure(), "the earlier failure would be taken for that of the new job"
    assert slurm._kept(run) == "77_0"


def test_slurm_leaves_out_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = jobs(tmp_path, "runs", losses=("l2", "bl"))
    unwritable(ours[0])
    told, runs = submitted(ours, monkeypatch)
    assert runs == [ours[1].spec.run_id]
    assert told.of("failed") == [0]


def test_afresh_discards_once(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path, "runs", losses=("l2",))
    run = Store(job.output).run(job.spec.run_id)
    run.begin(job.spec)
    assert afresh(job).resume
    assert run.state() == "interrupted", "a job that resumes discards nothing"
    again = afresh(job.model_copy(update={"resume": False}))
    assert again.resume
    assert run.state() == "new"


def filled(folder: RunFolder) -> dict[str, bytes]:
    """Files as a finished run has them."""
    names = ["spec.json", "history.jsonl", "record.json", "model_val.safetensors", "work/log.txt"]
    names += ["eval/ab/metrics.json", "eval/ab/images.parquet", "eval/cd/localisation.json", "eval/cd/points.parquet"]
    contents = {name: name.encode() * 100 for name in names}
    for name, content in contents.items():
        (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / name).write_bytes(content)
    return contents


def test_a_parcel_is_the_run_and_its_record_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = RunFolder(tmp_path / "there" / "run"), RunFolder(tmp_path / "here" / "run")
    contents = filled(there)
    (there.path / "claim-0001.json").write_text("theirs")
    (there.path / ".half.tmp").write_text("being written")
    here.path.mkdir(parents=True)
    (here.path / "failed.json").write_text("an earlier failure")
    (here.path / "claim-0004.json").write_text("ours")
    parcel = parcels.pack(there)
    assert parcel == contents

    written: list[str] = []
    right = parcels.replacing

    def noted(path: Path) -> Any:
        written.append(path.relative_to(here.path).as_posix())
        return right(path)

    monkeypatch.setattr(parcels, "replacing", noted)
    parcels.unpack(parcel, here)
    files = {path.relative_to(here.path).as_posix() for path in here.path.rglob("*") if path.is_file()}
    assert files == contents.keys() | {"claim-0004.json"}
    assert all((here.path / name).read_bytes() == content for name, content in contents.items())
    assert written[-1] == "record.json"
    for measured in ("eval/ab/metrics.json", "eval/cd/localisation.json"):
        assert written.index(measured) > max(written.index(name) for name in written if name.endswith(".parquet"))


@pytest.mark.parametrize("name", ["../other/record.json", "/etc/passwd", "work/../../record.json"])
def test_a_parcel_that_leads_out_of_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    here = RunFolder(tmp_path / "store" / "run")
    with pytest.raises(ValueError, match="leads out of its folder"):
        parcels.unpack({name: b"x"}, here)
    assert not list(tmp_path.rglob("*"))


def test_a_queue_that_does_not_answer_is_asked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is concluded from silence: to submit again could train a run twice at once."""
    told: list[dict[str, Any]] = []
    watch = slurm._Watch(
        jobs(tmp_path, "runs", losses=("l2",)), slurm.Options(), lambda index, event: told.append(event)
    )
    command = tmp_path / "bin" / "squeue"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    assert watch._queue() is None
    assert watch._queue() is None
    assert [event["event"] for event in told] == ["said"]
    assert "Unable to contact slurm controller" in told[0]["text"]
    command.write_text(
        "#!/bin/sh\necho '12_0|RUNNING|None'\necho ' 12_1|PENDING|Resources|x'\necho '9|CANCELLED|None'\n"
    )
    queue = watch._queue()
    assert queue is not None
    assert {number: seen.ended for number, seen in queue.items()} == {"12_0": False, "12_1": False, "9": True}


def test_the_display_takes_every_event(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with show.Matrix(["first", "second [x]"]) as display:
        for index, event in (
            (-1, {"event": "said", "text": "submitted 2 runs as Slurm job 12_[0-1]"}),
            (0, {"event": "start"}),
            (0, {"event": "step", "step": 1, "steps": 4}),
            (0, {"event": "again", "reason": "its node died"}),
            (0, {"event": "start"}),
            (0, {"event": "held", "holder": "process 1 on other"}),
            (0, {"event": "start"}),
            (0, {"event": "epoch", "epoch": 1, "epochs": 1, "step": 4, "steps": 4, "val_mae": 1.0}),
            (0, {"event": "done"}),
            (1, {"event": "failed", "reason": "never started"}),
            (-1, {"event": "idle"}),
        ):
            display(index, event)
    assert display.ended == 2
    said = capsys.readouterr().err
    for text in ("Slurm job 12_[0-1]", "again  first: its node died", "process 1 on other", "failed second [x]"):
        assert text in said
