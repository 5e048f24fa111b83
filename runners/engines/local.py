"""Runs as processes on this machine: as many at once as there are slots, each with its threads and its device."""

from __future__ import annotations

import importlib
import queue
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from results.store import Store
from runners.engines import EngineError
from runners.engines.process import (
    ENDS,
    PATIENCE,
    OnEvent,
    cores,
    death,
    interruptible,
    keep_failure,
    placed,
    start,
    stop,
)
from runners.job import Job

__all__ = ["Options", "check", "run_jobs"]


class Options(BaseModel):
    """What this engine wants to know.

    Attributes:
        devices: The devices that runs are dealt out to: cpu, or cuda:0, cuda:1, ...
        jobs: Runs at once; None for one a core, or `runs_per_gpu` for each GPU.
        runs_per_gpu: How many runs share a GPU. Their memory is not watched: a run that finds none left fails.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    devices: tuple[str, ...] = Field(default=("cpu",), min_length=1)
    jobs: PositiveInt | None = None
    runs_per_gpu: PositiveInt = 1


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


def check(options: Options) -> None:
    """Nothing is needed but this machine."""


def run_jobs(jobs: Sequence[Job], options: Options, on_event: OnEvent) -> None:
    """Runs all jobs and returns when the last has ended. A job's failure is an event, never an exception.

    Args:
        jobs: What to run, in this order.
        options: The devices, and how many runs go at once.
        on_event: Called in this thread with the job's index and an event: `start`, those of `execute`, `idle` now and
            then (so that a display can be drawn).

    A run that another process holds, on this machine or another, is `held`: the others go first, and it is taken up
    once it is free, be it done by then or left unfinished. So several processes share the work on one store.

    Raises:
        KeyboardInterrupt: After all processes were stopped; what they had saved is kept.
    """
    slots = _slots(jobs, options)
    if min(len(jobs), len(slots)) > 1:
        _warm_up()
    events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    waiting = [_Waiting(index, job) for index, job in enumerate(jobs)]
    free = list(range(len(slots)))
    running: dict[int, _Running] = {}
    told: dict[int, str] = {}
    with interruptible(), _stopped_at_end(running):
        while waiting or running:
            while free and (due := _due(waiting, on_event)) is not None:
                slot = free.pop(0)
                process = start(placed(due.job, slots[slot]), due.index, events)
                running[due.index] = _Running(due.index, process, slot)
                on_event(due.index, {"event": "start"})
            try:
                index, event = events.get(timeout=0.5)
            except queue.Empty:
                on_event(-1, {"event": "idle"})
                continue
            if event is not None:
                if event["event"] in ENDS:
                    told[index] = event["event"]
                on_event(index, event)
                continue
            ended = running.pop(index)
            free.append(ended.slot)
            status = ended.process.wait()
            last = told.pop(index, None)
            if last == "held":
                waiting.append(_Waiting(index, jobs[index], time.monotonic() + PATIENCE))
            if last is None:  # the worker could not say, let alone write, how it ended
                reason = death(status)
                keep_failure(jobs[index], reason)
                on_event(index, {"event": "failed", "reason": reason})


def _slots(jobs: Sequence[Job], options: Options) -> list[str]:
    """The first device of each run that may go at once; a run of several ranks has the next ones as well.

    Raises:
        EngineError: If there are fewer GPUs than ranks.
    """
    ranks, threads = (max(getattr(job.place, name) for job in jobs) for name in ("ranks", "threads"))
    if options.devices[0] == "cpu":
        first, room = options.devices, max(1, cores() // (threads * ranks))
    else:
        first = options.devices[: len(options.devices) // ranks * ranks : ranks]
        room = len(first) * options.runs_per_gpu
        if not first:
            raise EngineError(f"--ranks {ranks} needs {ranks} GPUs; here are {', '.join(options.devices)}")
    return [first[slot % len(first)] for slot in range(min(options.jobs or room, len(jobs)))]


def _due(waiting: list[_Waiting], on_event: OnEvent) -> _Waiting | None:
    """Takes the first job out of the list that may start now; tells of those that are held elsewhere."""
    for place, item in enumerate(waiting):
        if item.after <= time.monotonic():
            holder = Store(item.job.output).run(item.job.spec.run_id).claims.holder()
            if holder is None:
                return waiting.pop(place)
            waiting[place] = item._replace(after=time.monotonic() + PATIENCE)
            on_event(item.index, {"event": "held", "holder": str(holder)})
    return None


def _warm_up() -> None:
    """Imports the engine once before several workers do.

    Its formatter, yapf, writes a grammar into the user's cache when it is first imported after an installation, and not
    in one piece: of two first imports at once, one could read half a file and die.
    """
    importlib.import_module("mmengine")


@contextmanager
def _stopped_at_end(running: dict[int, _Running]) -> Iterator[None]:
    """Stops what still runs when the block is left."""
    try:
        yield
    finally:
        stop(job.process for job in running.values())
