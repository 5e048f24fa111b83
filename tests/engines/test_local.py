"""How local runs share the devices of a machine: GPUs that do not exist, with workers that say what they would need."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from results.spec import EvaluationSpec
from results.store import RunFolder, Store
from runners import environment
from runners.engines import EngineError, local, process
from runners.engines.process import OnEvent
from runners.engines.room import CONTEXT, SHARE, Room
from runners.execute import _out_of_memory
from runners.hooks import tell_memory
from runners.job import Job
from tests.engines.study import jobs

GIB = 1024.0
TWO = ("cuda:0", "cuda:1")


def memory(peak: float, *, free: float, settled: bool, total: float = 80 * GIB, held: float = 0.0) -> dict[str, Any]:
    return {"total": total, "free": free, "held": held, "peak": peak, "settled": settled}


def filled(room: Room, runs: int, **settings: Any) -> list[str | None]:
    """The devices of so many runs, put in one after another; None for those that must wait."""
    found = []
    for index in range(runs):
        found.append(device := room.find(**settings))
        if device is not None:
            room.enter(index, device, **settings)
    return found


@pytest.mark.parametrize(
    ("options", "ranks", "expected"),
    [
        ({"devices": TWO, "runs_per_gpu": 1}, 1, ["cuda:0", "cuda:1"]),
        ({"devices": TWO, "runs_per_gpu": 2}, 1, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        ({"devices": TWO, "runs_per_gpu": 2, "jobs": 3}, 1, ["cuda:0", "cuda:1", "cuda:0"]),
        ({"devices": (*TWO, "cuda:2", "cuda:3", "cuda:4")}, 2, ["cuda:0", "cuda:2"]),
        ({"devices": TWO}, 1, ["cuda:0", "cuda:1"]),
        ({"devices": ("cpu",), "jobs": 9}, 1, ["cpu"] * 9),
        ({"devices": ("cpu",)}, 2, ["cpu"] * 8),
    ],
)
def test_devices_of_this_machine(
    options: dict[str, Any], ranks: int, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any run has said what memory it needs, one goes on a GPU, unless a number was asked for."""
    monkeypatch.setattr(local, "cores", lambda: 16)
    two = jobs(tmp_path, "runs", losses=("pml", "l2"))
    some = [job.model_copy(update={"place": job.place.model_copy(update={"ranks": ranks})}) for job in two]
    room, most = local._room(some, local.Options(**options))
    assert [device for device in filled(room, most) if device is not None] == expected


@pytest.mark.parametrize(("cores", "workers", "expected"), [(16, None, 3), (16, 0, 16), (4, 8, 1), (32, 3, 8)])
def test_cores_limit_the_runs_of_a_gpu(
    cores: int, workers: int | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run on a GPU counts as its thread and its data-loading processes, four where none were asked for."""
    monkeypatch.setattr(local, "cores", lambda: cores)
    (job,) = jobs(tmp_path, "runs", losses=("pml",))
    job = job.model_copy(update={"place": job.place.model_copy(update={"workers": workers})})
    room, most = local._room([job], local.Options(devices=("cuda:0",)))
    assert (room.each, most) == (expected, expected)


def test_more_ranks_than_gpus_are_refused(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path, "runs", losses=("pml",))
    job = job.model_copy(update={"place": job.place.model_copy(update={"ranks": 2})})
    with pytest.raises(EngineError, match="--ranks 2 needs 2 GPUs; here are cuda:0"):
        local._room([job], local.Options(devices=("cuda:0",)))


def test_the_first_epoch_tells_how_many_fit() -> None:
    """80 GiB, of which another program holds 8: runs of 10 GiB and a context each fit while they fill 90 % of 72."""
    room = Room(["cuda:0"], 100, by_memory=True)
    room.enter(0, "cuda:0")
    assert room.find() is None
    room.learn(0, memory(0.0, free=72 * GIB - CONTEXT, settled=False))
    assert room.find() is None, "its need is not known before its first epoch is over"
    room.learn(0, memory(10 * GIB, free=62 * GIB - CONTEXT, held=10 * GIB, settled=True))
    more = 0
    while (device := room.find()) is not None:
        more += 1
        room.enter(more, device)
    assert 1 + more == SHARE * 72 * GIB // (10 * GIB + CONTEXT) == 6
    assert room.leave(3) == ("cuda:0", True)
    assert room.find() == "cuda:0"


def test_a_larger_run_makes_room_for_fewer() -> None:
    room = Room(["cuda:0"], 100, by_memory=True)
    room.enter(0, "cuda:0")
    room.learn(0, memory(10 * GIB, free=70 * GIB - CONTEXT, held=10 * GIB, settled=True))
    room.enter(1, "cuda:0")
    room.learn(1, memory(30 * GIB, free=40 * GIB, held=30 * GIB, settled=True))
    assert room.find() is None, "10 + 30 and one that may need 30 again"
    room.leave(1)
    room.leave(0)
    assert room.find() == "cuda:0"
    room.enter(2, "cuda:0")
    assert room.find() == "cuda:0", "30 + 30 at most"
    room.enter(3, "cuda:0")
    assert room.find() is None


def test_a_run_that_wants_a_device_alone_has_it() -> None:
    room = Room(TWO, 4, by_memory=False)
    room.enter(0, "cuda:0")
    assert room.find(alone=True) == "cuda:1"
    room.enter(1, "cuda:1", alone=True)
    assert room.find(alone=True) is None
    assert [room.find() for _ in range(3)] == ["cuda:0"] * 3
    room.enter(2, "cuda:0")
    assert [room.leave(index)[1] for index in (0, 1, 2)] == [True, False, True]


@given(
    needs=st.lists(st.floats(1, 60), min_size=1, max_size=12),
    devices=st.integers(1, 3),
    each=st.integers(1, 5),
    others=st.floats(0, 15),
    data=st.data(),
)
@settings(max_examples=300, deadline=None)
def test_a_gpu_is_overfilled_only_by_runs_larger_than_any_before(
    needs: list[float], devices: int, each: int, others: float, data: st.DataObject
) -> None:
    """Runs come, say what they need, and go, in any order. None is left over."""
    total, room = 80 * GIB, Room([f"cuda:{number}" for number in range(devices)], each, by_memory=True)
    waiting, on, settled = list(enumerate(needs)), dict[int, str](), set[int]()
    seen = 0.0
    while waiting or on:
        if waiting and (device := room.find()) is not None:
            index, _ = waiting.pop(0)
            room.enter(index, device)
            on[index] = device
            room.learn(index, memory(0.0, free=total - others * GIB - CONTEXT, settled=False))
            runs = [other for other, where in on.items() if where == device]
            assert len(runs) <= each
            if len(runs) > 1:
                expected = sum((needs[run] if run in settled else seen) * GIB + CONTEXT for run in runs)
                assert expected <= SHARE * (total - others * GIB) * (1 + 1e-9)
            continue
        index = data.draw(st.sampled_from(sorted(on)))
        if index not in settled:
            settled.add(index)
            seen = max(seen, needs[index])
            held = needs[index] * GIB
            # Beside others the rest of the memory says nothing: it is theirs.
            alone = list(on.values()).count(on[index]) == 1
            free = total - others * GIB - CONTEXT - held if alone else 0.0
            room.learn(index, memory(held, free=free, held=held, settled=True))
        else:
            room.leave(index)
            del on[index]


class Machine:
    """One GPU with workers that take its memory, and die where it has too little for them.

    Args:
        needs: GiB of each job, context included.
        size: GiB of the GPU.
    """

    def __init__(self, needs: list[float], size: float) -> None:
        self.needs, self.size = needs, size
        self.on = set[int]()
        self.most = 0
        self.resumed: list[tuple[int, bool]] = []
        self._lock = threading.Lock()

    def start(self, job: Job, index: int, events: queue.Queue[Any]) -> Machine:
        self.resumed.append((index, job.resume))
        threading.Thread(target=self._work, args=(index, events), daemon=True).start()
        return self

    def _work(self, index: int, events: queue.Queue[Any]) -> None:
        with self._lock:
            self.on.add(index)
            self.most = max(self.most, len(self.on))
            full = sum(self.needs[run] for run in self.on) > self.size
        total, need = self.size * GIB, self.needs[index] * GIB - CONTEXT
        self._say(events, index, event="memory", **memory(0.0, free=total - CONTEXT, total=total, settled=False))
        if not full:
            told = memory(need, free=total - need - CONTEXT, total=total, held=need, settled=True)
            self._say(events, index, event="memory", **told)
            threading.Event().wait(0.3)
        with self._lock:
            self.on.remove(index)
        self._say(
            events,
            index,
            **({"event": "failed", "reason": "full", "out_of_memory": True} if full else {"event": "done"}),
        )
        events.put((index, None))

    @staticmethod
    def _say(events: queue.Queue[Any], index: int, **event: Any) -> None:
        events.put((index, event))

    def poll(self) -> int:
        return 0

    def wait(self, timeout: float | None = None) -> int:
        return 0


def told(machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[tuple[int, str]]:
    """What is told of as many jobs as the machine has needs."""
    monkeypatch.setattr(local, "start", machine.start)
    monkeypatch.setattr(local, "cores", lambda: 16)
    some = [
        job.model_copy(update={"resume": False, "place": job.place.model_copy(update={"workers": 0})})
        for job in jobs(folder, "runs", losses=["pml", "l2", "bl", "noisecc", "chfl"][: len(machine.needs)])
    ]
    found: list[tuple[int, str]] = []
    tell: OnEvent = lambda index, event: found.append((index, event["event"])) if index >= 0 else None  # noqa: E731
    local.run_jobs(some, local.Options(devices=("cuda:0",), **options), tell)
    return found


def test_runs_share_a_gpu_as_its_memory_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine([20.0, 20.0, 20.0, 20.0, 20.0], 80.0)
    found = told(machine, tmp_path, monkeypatch)
    assert Counter(kind for _, kind in found) == {"start": 5, "done": 5}
    assert machine.most == 3, "three fill 60 of 80 GiB, a fourth would leave less than a tenth"


def test_a_run_without_memory_beside_others_goes_again_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second needs more than the first let expect. Its checkpoints are kept the second time."""
    machine = Machine([20.0, 70.0, 20.0], 80.0)
    found = told(machine, tmp_path, monkeypatch)
    assert [index for index, kind in found if kind == "again"] == [1]
    assert Counter(kind for _, kind in found) == {"start": 4, "again": 1, "done": 3}
    assert found[-1] == (1, "done")
    assert [resume for index, resume in machine.resumed if index == 1] == [False, True]


def test_a_run_without_memory_and_without_others_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(Machine([90.0, 20.0], 80.0), tmp_path, monkeypatch)
    assert [event for event in found if event[0] == 0] == [(0, "start"), (0, "failed")]
    assert found[-1] == (1, "done")


def test_a_number_of_runs_is_kept_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine([1.0, 1.0, 1.0, 1.0], 80.0)
    told(machine, tmp_path, monkeypatch, runs_per_gpu=2)
    assert machine.most == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("this is out of memory of mine"), False),
    ],
)
def test_memory_that_ran_out_is_known(error: BaseException, expected: bool) -> None:
    assert _out_of_memory(error) is expected


def test_what_a_run_says_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, Any]] = []
    tell_memory(events.append, torch.device("cpu"), settled=True)
    assert events == []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2**30)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 2**31)
    tell_memory(events.append, torch.device("cuda:0"), settled=True)
    assert events == [{"event": "memory"} | memory(2048, free=3072, total=8192, held=1024, settled=True)]
    assert environment.device_memory(torch.device("cpu")) is None


def test_the_gpu_with_the_most_room_is_chosen_once_sizes_are_known() -> None:
    """24 and 80 GiB: by the number of runs alone the small one would have half of them."""
    room = Room(TWO, 10, by_memory=True)
    for index, (device, size) in enumerate(zip(TWO, (24 * GIB, 80 * GIB), strict=True)):
        room.enter(index, device)
        told = memory(8 * GIB, free=size - 8 * GIB - CONTEXT, total=size, held=8 * GIB, settled=True)
        room.learn(index, told)
    found = []
    while (device := room.find()) is not None:
        room.enter(10 + len(found), device)
        found.append(device)
    assert found.count("cuda:0") == 1
    assert found.count("cuda:1") == 7
    assert found[:5] == ["cuda:1"] * 5


def test_a_run_too_large_for_one_gpu_goes_to_a_larger_one() -> None:
    room = Room(TWO, 10, by_memory=True)
    assert room.another("cuda:0", shared=False), "the other's size is not known yet"
    for index, (device, size) in enumerate(zip(TWO, (24 * GIB, 80 * GIB), strict=True)):
        room.enter(index, device)
        room.learn(index, memory(1.0, free=size - CONTEXT, total=size, settled=True))
    assert room.another("cuda:0", shared=False)
    assert not room.another("cuda:1", shared=False)
    assert room.another("cuda:1", shared=True)
    assert room.find(small={"cuda:0"}) == "cuda:1"
    assert room.find(small={"cuda:1"}) is None
    assert room.hopeless({"cuda:1"})


class Unequal:
    """GPUs of different sizes; each run takes its memory alone, or dies."""

    def __init__(self, needs: list[float], sizes: dict[str, float]) -> None:
        self.needs, self.sizes = needs, sizes
        self.tried: list[tuple[int, str]] = []

    def start(self, job: Job, index: int, events: queue.Queue[Any]) -> Machine:
        device = job.place.device
        self.tried.append((index, device))
        total, need = self.sizes[device] * GIB, self.needs[index] * GIB
        held = 0.0 if need > total else need - CONTEXT
        told = memory(held, free=total - CONTEXT - held, total=total, held=held, settled=need <= total)
        events.put((index, {"event": "memory"} | told))
        last = {"event": "done"} if need <= total else {"event": "failed", "reason": "full", "out_of_memory": True}
        events.put((index, last))
        events.put((index, None))
        return Machine([], 0.0)


@pytest.mark.parametrize(("need", "ends"), [(40.0, "done"), (90.0, "failed")])
def test_no_run_is_lost_to_a_small_gpu(need: float, ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor waits for ever for a GPU that turns out to be no larger."""
    machine = Unequal([need] * 4, {"cuda:0": 24.0, "cuda:1": 80.0})
    monkeypatch.setattr(local, "start", machine.start)
    monkeypatch.setattr(local, "cores", lambda: 16)
    found: list[tuple[int, str]] = []
    tell: OnEvent = lambda index, event: found.append((index, event["event"])) if index >= 0 else None  # noqa: E731
    some = jobs(tmp_path, "runs", losses=["pml", "l2", "bl", "chfl"])
    local.run_jobs(some, local.Options(devices=TWO), tell)
    assert sorted(index for index, kind in found if kind == ends) == [0, 1, 2, 3]
    assert len(machine.tried) <= 8, "at most once on each"


def test_a_worker_that_dies_after_its_work_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = jobs(tmp_path, "runs", losses=("l2",))
    job = job.model_copy(update={"evaluations": ()})
    run = Store(job.output).run(job.spec.run_id)
    run.begin(job.spec)
    process.keep_failure(job, "killed")
    assert run.failure().reason == "killed"
    monkeypatch.setattr(RunFolder, "state", lambda self: "done")
    assert process.complete(job)
    assert not process.complete(job.model_copy(update={"evaluations": (EvaluationSpec(),)}))


def test_a_failure_is_not_written_into_a_run_that_another_process_has(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path, "runs", losses=("l2",))
    run = Store(job.output).run(job.spec.run_id)
    assert run.claims.take()
    process.keep_failure(job, "killed")
    assert not (run.path / "failed.json").exists()
    run.claims.release()
