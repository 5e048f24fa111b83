"""Runs as processes on this machine: as many at once as there are slots, each with its threads and its device."""

from __future__ import annotations

import importlib
import queue
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from results.store import Store
from runners.engines import EngineError
from runners.engines.process import (
    ENDS,
    PATIENCE,
    OnEvent,
    cannot_start,
    concluded,
    cores,
    interruptible,
    placed,
    reserved,
    start,
    stop,
)
from runners.engines.room import Room
from runners.job import Job

__all__ = ["Options", "check", "run_jobs"]


class Options(BaseModel):
    """What this engine wants to know.

    Attributes:
        devices: The devices that runs are dealt out to: cpu, or cuda:0, cuda:1, ...
        jobs: Runs at once; None for as many as there is room for.
        runs_per_gpu: How many runs share a GPU. `auto`: as many as its memory and the cores have room for, see
            `runners.engines.room`. A run that finds no memory beside others goes again, alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    devices: tuple[str, ...] = Field(default=("cpu",), min_length=1)
    jobs: PositiveInt | None = None
    runs_per_gpu: PositiveInt | Literal["auto"] = "auto"


class _Waiting(NamedTuple):
    """A job that is to be started.

    Attributes:
        index, job: Which.
        after: Not before this time of the monotonic clock.
        alone: Only on a device that it has for itself.
        small: Devices whose memory was too little for it alone.
    """

    index: int
    job: Job
    after: float = 0.0
    alone: bool = False
    small: frozenset[str] = frozenset()


_TOO_LARGE = "out of memory on every GPU, alone; lower --batch-size or --crop"


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
    room, most = _room(jobs, options)
    if min(len(jobs), most) > 1:
        _warm_up()
    events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    waiting = [_Waiting(index, job) for index, job in enumerate(jobs)]
    running: dict[int, subprocess.Popen[str]] = {}
    taken: dict[int, _Waiting] = {}
    told: dict[int, dict[str, Any]] = {}
    with interruptible(), _stopped_at_end(running):
        while waiting or running:
            while len(running) < most and (due := _due(waiting, room, on_event)) is not None:
                item, device = due
                try:
                    running[item.index] = start(placed(item.job, device), item.index, events)
                except OSError as error:
                    room.leave(item.index)
                    on_event(item.index, cannot_start(error))
                    continue
                taken[item.index] = item
                on_event(item.index, {"event": "start"})
            try:
                index, event = events.get(timeout=0.5)
            except queue.Empty:
                on_event(-1, {"event": "idle"})
                continue
            if event is not None:
                if event["event"] == "memory":
                    room.learn(index, event)
                elif event["event"] in ENDS:
                    told[index] = event
                else:
                    on_event(index, event)
                continue
            status, item = running.pop(index).wait(), taken.pop(index)
            was, shared = room.leave(index)
            last = concluded(jobs[index], told.pop(index, None), status)
            if last.get("out_of_memory") and room.another(was, shared=shared):
                # Its checkpoints are kept, and the others go first.
                resumed = item.job.model_copy(update={"resume": True})
                small = item.small if shared else item.small | {was}
                waiting.append(_Waiting(index, resumed, alone=True, small=small))
                where = "after the others: the GPU had too little memory for both" if shared else "on a larger GPU"
                last = {"event": "again", "reason": f"alone, {where}"}
            elif last["event"] == "held":
                waiting.append(item._replace(after=time.monotonic() + PATIENCE))
            on_event(index, last)


def _room(jobs: Sequence[Job], options: Options) -> tuple[Room, int]:
    """The devices with their room, and how many runs may go at once; a run of several ranks has the next ones as well.

    Raises:
        EngineError: If there are fewer GPUs than ranks.
    """
    ranks, threads = (max(getattr(job.place, name) for job in jobs) for name in ("ranks", "threads"))
    if options.devices[0] == "cpu":
        each = max(1, cores() // (threads * ranks))
        return Room(options.devices, options.jobs or each, by_memory=False), options.jobs or each
    first = options.devices[: len(options.devices) // ranks * ranks : ranks]
    if not first:
        raise EngineError(f"--ranks {ranks} needs {ranks} GPUs; here are {', '.join(options.devices)}")
    by_memory = options.runs_per_gpu == "auto" and ranks == 1
    if options.runs_per_gpu != "auto":
        each = options.runs_per_gpu
    else:
        each = max(1, cores() // max(reserved(placed(job, first[0])) for job in jobs) // len(first)) if by_memory else 1
    return Room(first, each, by_memory=by_memory), options.jobs or each * len(first)


def _due(waiting: list[_Waiting], room: Room, on_event: OnEvent) -> tuple[_Waiting, str] | None:
    """Takes the first job out of the list that may start now, and its device; tells of those held elsewhere."""
    wants = {(item.alone, item.small) for item in waiting}
    found = {(alone, small): room.find(alone=alone, small=small) for alone, small in wants}
    for place, item in enumerate(waiting):
        device = found[item.alone, item.small]
        if item.small and room.hopeless(item.small):  # it had hoped for a GPU whose size was not known then
            waiting.pop(place)
            on_event(item.index, {"event": "failed", "reason": _TOO_LARGE})
            return _due(waiting, room, on_event)
        if device is None or item.after > time.monotonic():
            continue
        holder = Store(item.job.output).run(item.job.spec.run_id).claims.holder()
        if holder is None:
            room.enter(item.index, device, alone=item.alone)
            return waiting.pop(place), device
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
def _stopped_at_end(running: dict[int, subprocess.Popen[str]]) -> Iterator[None]:
    """Stops what still runs when the block is left."""
    try:
        yield
    finally:
        stop(running.values())
