"""The process of a run, as every engine starts it: `runners.worker` with its threads, its device and its log."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results.redact import redacted
from results.schema import Failure
from results.store import Store
from runners.job import Job

__all__ = [
    "ENDS",
    "GRACE",
    "PATIENCE",
    "ROOT",
    "Carrier",
    "OnEvent",
    "afresh",
    "cannot_start",
    "complete",
    "concluded",
    "cores",
    "interruptible",
    "keep_failure",
    "placed",
    "reserved",
    "start",
    "stop",
]

OnEvent = Callable[[int, dict[str, Any]], None]
"""Takes a job's index (-1: of none) and an event; see `Carrier` and `runners.execute.execute` for the events."""

ENDS = ("done", "failed", "held")
"""The events with which a worker's last word is said."""
GRACE = 15.0
"""Seconds that a worker has to end in good order (ours)."""
PATIENCE = 5.0
"""Seconds between two looks at a run that another process holds (ours)."""
ROOT = Path(__file__).resolve().parents[2]
"""The checkout, or the folder of the installed packages."""
_GPU_WORKERS = 4
"""Data-loading processes of a run on a GPU, where none were asked for (ours)."""
_STOPPED = (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT)
"""Exit statuses of a worker that was told to stop."""


class Carrier:
    """Carries one job to its end where it is called, on a machine that an engine chose.

    Args:
        job: The job.
        device: Its device here.
        report: Called in the caller's thread with `start` (each time that a process is started), the worker's events,
            and `idle` at least once a second. The event that ends the job is returned instead.
    """

    def __init__(self, job: Job, device: str, report: Callable[[dict[str, Any]], None]) -> None:
        self.job = placed(job, device)
        self.report = report
        self._process: subprocess.Popen[str] | None = None
        self._stopping = False

    def run(self, wait: float | None = None) -> dict[str, Any]:
        """Runs the worker. A run that another process holds is waited for.

        Args:
            wait: Seconds to wait for such a run, None for as long as it takes.

        Returns:
            The last event: `done`, `failed`, `stopped` (it was told to stop; the run can be resumed), or `held` after
            having waited.
        """
        until = None if wait is None else time.monotonic() + wait
        while True:
            last = self._once()
            if last["event"] != "held":
                return last
            self.report(last)
            last = self._free(last, until)
            if last is not None:
                return last

    def stop(self) -> None:
        """Ends the worker in good order; `run` then returns `stopped`. May be called by a signal's handler."""
        self._stopping = True
        if self._process is not None:
            stop([self._process])

    def _once(self) -> dict[str, Any]:
        """Runs one worker; its last event."""
        if self._stopping:
            return {"event": "stopped"}
        events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        last: dict[str, Any] | None = None
        try:
            self._process = process = start(self.job, 0, events)
        except OSError as error:
            return cannot_start(error)
        try:
            self.report({"event": "start"})
            for event in _until_none(events):
                if event["event"] in ENDS:
                    last = event
                else:
                    self.report(event)
        except BaseException:
            stop([process])
            raise
        status = process.wait()
        if last is None and (self._stopping or status in _STOPPED):
            return {"event": "stopped"}
        return concluded(self.job, last, status)

    def _free(self, held: dict[str, Any], until: float | None) -> dict[str, Any] | None:
        """Waits until nobody has the run; the event to end with if that is not to be."""
        claims = Store(self.job.output).run(self.job.spec.run_id).claims
        again = time.monotonic() + PATIENCE
        while time.monotonic() < again or claims.holder() is not None:
            if self._stopping:
                return {"event": "stopped"}
            if until is not None and time.monotonic() > until:
                return held
            self.report({"event": "idle"})
            time.sleep(0.5)
        return None


def _until_none(events: queue.Queue[tuple[int, dict[str, Any] | None]]) -> Iterator[dict[str, Any]]:
    """The events until the worker ends, with `idle` where nothing comes."""
    while True:
        try:
            _, event = events.get(timeout=0.5)
        except queue.Empty:
            event = {"event": "idle"}
        if event is None:
            return
        yield event


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reserved(job: Job) -> int:
    """Cores that a placed job counts as where nothing else is said (ours): its threads and data-loading processes."""
    place = job.place
    return place.ranks * (place.threads + (place.workers or 0))


def placed(job: Job, device: str) -> Job:
    """The job with its device, and more data-loading processes where that is a GPU and none were asked for."""
    workers = job.place.workers
    if workers is None:
        workers = 0 if device == "cpu" else _GPU_WORKERS
    return job.model_copy(update={"place": job.place.model_copy(update={"device": device, "workers": workers})})


def afresh(job: Job) -> Job:
    """Discards what an unfinished run left, if that was asked for, and gives the job back as one that resumes.

    Engines that may take a run up more than once do it before the first time: the second must go on.

    Raises:
        OSError: If the run's folder cannot be written.
    """
    folder = Store(job.output).run(job.spec.run_id)
    if not job.resume and folder.state() in ("failed", "interrupted") and folder.claims.take():
        try:
            folder.discard()
        finally:
            folder.claims.release()
    return job.model_copy(update={"resume": True})


def start(job: Job, index: int, events: queue.Queue[Any]) -> subprocess.Popen[str]:
    """Starts the worker of a job that is placed.

    Args:
        job: The job.
        index: Put before each event.
        events: Receives (index, event) for each of the worker's lines, and (index, None) when they end.

    Raises:
        OSError: If the run's folder cannot be written, or the machine can start no process.
    """
    log = Store(job.output).run(job.spec.run_id).work / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = str(job.place.threads)
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    # The worker imports this very checkout, wherever the command was started.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
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


def stop(processes: Iterable[subprocess.Popen[str]]) -> None:
    """Stops those that still run, first kindly."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def interruptible() -> Iterator[None]:
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


def cannot_start(error: OSError) -> dict[str, Any]:
    """The last event of a run whose folder or process could not be made: it fails, and the others go on."""
    return {"event": "failed", "reason": f"the run could not be started: {redacted(str(error))}"}


def concluded(job: Job, last: dict[str, Any] | None, status: int) -> dict[str, Any]:
    """The last event of a job whose worker has ended. A failure that the worker did not write is written for it.

    Args:
        job: The job.
        last: The event with which the worker ended, None if it could not say one.
        status: Its exit status.
    """
    if last is None:
        last = {"event": "done"} if complete(job) else {"event": "failed", "reason": _death(status)}
        written = False
    else:
        written = Store(job.output).run(job.spec.run_id).has_failure()
    if last["event"] == "failed" and not written:
        keep_failure(job, last["reason"])
    return last


def _death(status: int) -> str:
    """Why a worker ended without a word."""
    if status == -signal.SIGKILL:
        return "killed (signal 9), most likely because memory ran out; lower --jobs, --batch-size or --crop"
    if status < 0:
        return f"the process died of signal {-status} ({signal.strsignal(-status)}); see work/log.txt of the run"
    return f"the process ended with status {status} before it could say why; see work/log.txt of the run"


def complete(job: Job) -> bool:
    """Whether a run is done, and all that a job asks for was measured."""
    folder = Store(job.output).run(job.spec.run_id)
    counted = all(map(folder.has_evaluation, job.evaluations))
    return folder.state() == "done" and counted and all(map(folder.has_localisation, job.localisations))


def keep_failure(job: Job, reason: str) -> None:
    """Keeps the reason in the run's folder, where that can still be written and no other process has the run."""
    folder = Store(job.output).run(job.spec.run_id)
    if folder.claims.holder() is not None:
        return
    when = datetime.now(UTC).isoformat(timespec="seconds")
    with suppress(OSError):
        if folder.state() != "done":
            folder.begin(job.spec)
        folder.fail(Failure(run_id=folder.run_id, spec=job.spec, when=when, reason=reason))
