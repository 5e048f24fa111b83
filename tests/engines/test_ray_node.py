"""A run on a node and its desk, without Ray: a call is a call, and the process of the run a few lines of Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from results.store import RunFolder, Store
from runners.engines import process, ray, ray_node
from runners.engines.ray_node import Desk
from runners.job import Job
from tests.engines.study import Told, jobs

WORKER = """
import json, pathlib, sys, time
job = json.load(sys.stdin)
root = pathlib.Path(job["output"])
(folder,) = [path for path in root.iterdir() if (path / "work").is_dir()]
epochs = len(list(folder.glob("work/checkpoint-*.pth")))
(folder / "spec.json").write_text("{}")
while True:
    epochs += 1
    (folder / "work" / f"checkpoint-{epochs:06d}.pth").write_text(str(root))
    print(json.dumps({"event": "epoch", "epoch": epochs}), flush=True)
    if epochs == 4:
        break
    time.sleep(0.2)
for path in folder.glob("work/checkpoint-*.pth"):
    path.unlink()
(folder / "record.json").write_text(str(root))
print(json.dumps({"event": "done"}), flush=True)
"""


class Calls:
    """The desk as a task sees it: every method has a `remote`."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.desk, name))


class Cluster:
    """A store, its desk, and a node with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        (self.job,) = jobs(folder, "store", losses=("l2",))
        self.run = Store(self.job.output).run(self.job.spec.run_id)
        self.own = folder / "own"
        self.desk = self.new_desk()

    def new_desk(self) -> Desk:
        return Desk([str(self.job.output)], [self.job.spec.run_id])

    def carry(self, desk: Desk | None = None, code: str | None = None, job: Job | None = None) -> dict[str, Any]:
        content = (job or self.job).model_dump_json()
        return ray_node.carry(content, 0, Calls(desk or self.desk), "token", code or ray_node.code_digest())

    def files(self) -> set[str]:
        """What the store has of the run."""
        found = {path.relative_to(self.run.path).as_posix() for path in self.run.path.rglob("*") if path.is_file()}
        return {name for name in found if not name.startswith("claim-")}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = SimpleNamespace(get=lambda answer, timeout=None: answer, get_gpu_ids=list)
    monkeypatch.setitem(sys.modules, "ray", cluster)  # type: ignore[arg-type]
    worker = tmp_path / "code" / "runners" / "worker.py"
    worker.parent.mkdir(parents=True)
    (worker.parent / "__init__.py").touch()
    worker.write_text(WORKER)
    monkeypatch.setattr(process, "ROOT", tmp_path / "code")
    found = Cluster(tmp_path)
    monkeypatch.setenv("CROWD_NODE_STORE", str(found.own))
    return found


def test_a_node_of_its_own_brings_the_run_and_keeps_nothing(cluster: Cluster) -> None:
    assert cluster.carry() == {"event": "done"}
    assert cluster.files() == {"spec.json", "record.json", "work/log.txt"}
    assert str(cluster.own) in (cluster.run.path / "record.json").read_text()
    assert cluster.run.claims.holder() is None
    assert not [path for path in cluster.own.rglob("*") if path.is_file()]
    assert [event["event"] for _, event in cluster.desk.take()] == ["start", *["epoch"] * 4]


def test_a_node_that_sees_the_store_works_in_it(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CROWD_NODE_STORE")
    cluster.job.output.mkdir()
    (cluster.job.output / "token").touch()
    assert cluster.carry() == {"event": "done"}
    assert (cluster.run.path / "record.json").read_text() == str(cluster.job.output)


def test_a_study_that_is_stopped_gets_what_a_node_has_and_goes_on_with_it(cluster: Cluster) -> None:
    tell = cluster.desk.tell

    def stopping(index: int, event: dict[str, Any] | None) -> bool:
        if event is not None and event.get("epoch") == 2:
            cluster.desk.stop()
        return tell(index, event)

    cluster.desk.tell = stopping  # type: ignore[method-assign]
    assert cluster.carry() == {"event": "stopped"}
    assert {"work/checkpoint-000001.pth", "work/checkpoint-000002.pth"} <= cluster.files()
    assert "record.json" not in cluster.files()
    assert cluster.run.claims.holder() is None

    desk = cluster.new_desk()
    assert cluster.carry(desk) == {"event": "done"}
    told = [event["epoch"] for _, event in desk.take() if event["event"] == "epoch"]
    assert told[0] >= 3
    assert told[-1] == 4
    assert cluster.files() == {"spec.json", "record.json", "work/log.txt"}


def test_parcels_come_between_so_that_a_death_costs_little(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_node, "_BETWEEN", 0.0)
    brought: list[tuple[list[str], bool]] = []
    bring = cluster.desk.bring

    def noted(index: int, parcel: dict[str, bytes], last: bool) -> bool:
        brought.append((sorted(name for name in parcel if name.endswith(".pth")), last))
        return bring(index, parcel, last)

    cluster.desk.bring = noted  # type: ignore[method-assign]
    assert cluster.carry() == {"event": "done"}
    assert len(brought) > 2
    assert [last for _, last in brought] == [False] * (len(brought) - 1) + [True]
    assert brought[0][0] == ["work/checkpoint-000001.pth"]


def test_a_lent_run_is_claimed_until_it_is_back(cluster: Cluster) -> None:
    other = RunFolder(cluster.run.path)
    assert cluster.desk.lend(0) == {}
    assert cluster.run.claims.holder() is not None
    assert cluster.desk.lend(0) == {}, "the task that takes the place of a dead one may have it"
    assert cluster.desk.bring(0, {"history.jsonl": b"1"}, last=False)
    assert cluster.run.claims.holder() is not None
    assert cluster.desk.bring(0, {"history.jsonl": b"2"}, last=True)
    assert cluster.run.claims.holder() is None
    assert other.claims.take()
    assert not cluster.desk.bring(0, {"history.jsonl": b"3"}, last=True), "another process has it now"
    assert (cluster.run.path / "history.jsonl").read_bytes() == b"2"


def test_a_node_that_sees_the_store_takes_up_what_a_dead_one_had_borrowed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The desk lives on with the claim of the dead node, and would hold the run for ever."""
    assert cluster.desk.lend(0) == {}
    monkeypatch.delenv("CROWD_NODE_STORE")
    (cluster.job.output / "token").touch()
    told: list[bool] = []
    tell = cluster.desk.tell

    def noted(index: int, event: dict[str, Any] | None) -> bool:
        told.append(cluster.run.claims.holder() is None)
        return tell(index, event)

    cluster.desk.tell = noted  # type: ignore[method-assign]
    assert cluster.carry() == {"event": "done"}
    assert told
    assert all(told)
    assert not cluster.desk.bring(0, {"history.jsonl": b"late"}, last=True), (
        "the node was only slow, and comes too late"
    )
    assert "history.jsonl" not in cluster.files()


class RayError(Exception):
    """In the place of Ray's own."""


def study(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> tuple[ray._Study, Told]:
    """The study as the command has it; whatever task is asked for has died."""

    def get(answer: Any) -> Any:
        if answer == "task":
            raise RayError("worker crashed")
        return answer

    monkeypatch.setitem(
        sys.modules,
        "ray",
        SimpleNamespace(get=get, exceptions=SimpleNamespace(RayError=RayError)),  # type: ignore[arg-type]
    )
    told = Told()
    return ray._Study([cluster.job], ray.Options(), told, Calls(cluster.desk), "token", {}), told


def test_the_failure_of_a_run_whose_nodes_all_died_is_kept(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The desk had claimed it for the last of them."""
    found, told = study(cluster, monkeypatch)
    cluster.desk.lend(0)
    found.running["task"] = 0
    found._end("task")
    assert told.of("failed") == [0]
    assert cluster.run.state() == "failed"
    assert cluster.run.failure().reason == "RayError: worker crashed"


def test_a_run_that_cannot_be_started_afresh_stops_no_study(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: RunFolder) -> None:
        raise OSError(30, "Read-only file system")

    cluster.run.begin(cluster.job.spec)
    cluster.job = cluster.job.model_copy(update={"resume": False})
    found, told = study(cluster, monkeypatch)
    monkeypatch.setattr(RunFolder, "discard", refuse)
    found._hand_out(0)
    assert told.of("failed") == [0]
    assert not found.running
    assert cluster.run.claims.holder() is None


def test_a_run_that_others_have_is_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_node, "PATIENCE", 0.1)
    other = RunFolder(cluster.run.path)
    assert other.claims.take()
    tell = cluster.desk.tell

    def freeing(index: int, event: dict[str, Any] | None) -> bool:
        if event is None:
            other.claims.release()
        return tell(index, event)

    cluster.desk.tell = freeing  # type: ignore[method-assign]
    assert cluster.carry() == {"event": "done"}
    told = cluster.desk.take()
    assert told[0][1]["event"] == "held"
    assert told[1][1]["event"] == "start"


def test_a_node_with_other_code_trains_nothing(cluster: Cluster) -> None:
    last = cluster.carry(code="0" * 16)
    assert last["event"] == "failed"
    assert "another version of this package" in last["reason"]
    assert not cluster.run.path.exists()


def test_the_digest_of_the_code_is_of_what_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("losses", "results", "runners", "reports"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_text(json.dumps(room))
    monkeypatch.setattr(ray_node, "ROOT", tmp_path)
    before = ray_node.code_digest()
    (tmp_path / "reports" / "a.py").write_text("other")
    assert ray_node.code_digest() == before
    (tmp_path / "losses" / "a.py").write_text("other")
    assert ray_node.code_digest() != before
