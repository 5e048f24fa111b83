"""Runs as processes on this machine: as many at once as there are slots, each with its threads and its device."""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from results.schema import Failure
from results.store import Store
from runners.job import Job

__all__ = ["run_jobs"]

OnEvent = Callable[[int, dict[str, Any]], None]
_GRACE_SECONDS = 15
_PATIENCE = 5.0
"""Seconds between two looks at a run that another process holds (ours)."""


class _Waiting(NamedTuple):
    """A job that is to be started, not before a time of the monotonic clock."""

    index: int
    job: Job
    after: float = 0.0


class _Running(NamedTuple):
    """A started job: its index, its process and its slot."""

    index: int
    process: subprocess.Popen[str]
    slot: int


def run_jobs(jobs: Sequence[Job], slots: Sequence[str], on_event: OnEvent) -> None:
    """Runs all jobs and returns when the last has ended. A job's failure is an event, never an exception.

    Args:
        jobs: What to run, in this order.
        slots: The device of each slot: as many jobs run at once as there are slots.
        on_event: Called in this thread with the job's index and an event: `start`, those of `execute`, `idle` now and
            then (so that a display can be drawn).

    A run that another process holds, on this machine or another, is `held`: the others go first, and it is taken up
    once it is free, be it done by then or left unfinished. So several processes share the work on one store.

    Raises:
        KeyboardInterrupt: After all processes were stopped; what they had saved is kept.
    """
    if min(len(jobs), len(slots)) > 1:
        _warm_up()
    events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    waiting = [_Waiting(index, job) for index, job in enumerate(jobs)]
    free = list(range(len(slots)))
    running: dict[int, _Running] = {}
    told: dict[int, str] = {}
    with _interruptible(), _stopped_at_end(running):
        while waiting or running:
            while free and (due := _due(waiting, on_event)) is not None:
                slot = free.pop(0)
                running[due.index] = _Running(due.index, _start(due.job, slots[slot], due.index, events), slot)
                on_event(due.index, {"event": "start"})
            try:
                index, event = events.get(timeout=0.5)
            except queue.Empty:
                on_event(-1, {"event": "idle"})
                continue
            if event is not None:
                if event["event"] in ("done", "failed", "held"):
                    told[index] = event["event"]
                on_event(index, event)
                continue
            ended = running.pop(index)
            free.append(ended.slot)
            status = ended.process.wait()
            last = told.pop(index, None)
            if last == "held":
                waiting.append(_Waiting(index, jobs[index], time.monotonic() + _PATIENCE))
            if last is None:  # the worker could not say, let alone write, how it ended
                reason = _death(status)
                _keep_failure(jobs[index], reason)
                on_event(index, {"event": "failed", "reason": reason})


def _due(waiting: list[_Waiting], on_event: OnEvent) -> _Waiting | None:
    """Takes the first job out of the list that may start now; tells of those that are held elsewhere."""
    for place, item in enumerate(waiting):
        if item.after <= time.monotonic():
            holder = Store(item.job.output).run(item.job.spec.run_id).claims.holder()
            if holder is None:
                return waiting.pop(place)
            waiting[place] = item._replace(after=time.monotonic() + _PATIENCE)
            on_event(item.index, {"event": "held", "holder": str(holder)})
    return None


def _warm_up() -> None:
    """Imports the engine once before several workers do.

    Its formatter, yapf, writes a grammar into the user's cache when it is first imported after an installation, and not
    in one piece: of two first imports at once, one could read half a file and die.
    """
    importlib.import_module("mmengine")


def _start(job: Job, device: str, index: int, events: queue.Queue[Any]) -> subprocess.Popen[str]:
    """Starts the worker of a job, and a thread that passes its lines on; None means that it has ended."""
    job = job.model_copy(update={"place": job.place.model_copy(update={"device": device})})
    log = Store(job.output).run(job.spec.run_id).work / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = str(job.place.threads)
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    # The worker imports this very checkout, wherever the command was started.
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runners.worker"],  # -P: no file of the working directory is a module here
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process alone, which stops the workers in good order
        )
    assert process.stdin is not None
    try:
        process.stdin.write(job.model_dump_json())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died at once; its exit status tells
    threading.Thread(target=_pass_on, args=(process, index, events), daemon=True).start()
    return process


def _pass_on(process: subprocess.Popen[str], index: int, events: queue.Queue[Any]) -> None:
    """Puts a worker's lines into the queue, None when they end."""
    assert process.stdout is not None
    for line in process.stdout:
        try:
            events.put((index, json.loads(line)))
        except ValueError:
            continue  # a line torn by the death of its process
    events.put((index, None))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Lets a termination or a closed terminal end the block like Ctrl-C, in good order."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _stopped_at_end(running: dict[int, _Running]) -> Iterator[None]:
    """Stops what still runs when the block is left, first kindly."""
    try:
        yield
    finally:
        for job in running.values():
            job.process.terminate()
        for job in running.values():
            try:
                job.process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                job.process.kill()


def _death(status: int) -> str:
    """Why a worker ended without a word."""
    if status == -signal.SIGKILL:
        return "killed (signal 9), most likely because memory ran out; lower --jobs, --batch-size or --crop"
    if status < 0:
        return f"the process died of signal {-status} ({signal.strsignal(-status)}); see work/log.txt of the run"
    return f"the process ended with status {status} before it could say why; see work/log.txt of the run"


def _keep_failure(job: Job, reason: str) -> None:
    """Keeps the reason in the run's folder, where that can still be written."""
    folder = Store(job.output).run(job.spec.run_id)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    with suppress(OSError):
        folder.begin(job.spec)
        folder.fail(Failure(run_id=folder.run_id, spec=job.spec, when=when, reason=reason))
