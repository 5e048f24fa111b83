"""Runs as jobs of Slurm, submitted as arrays through submitit: one task a run, all on a store that every node sees.

A job near its time limit, or preempted, is queued again and goes on from its last checkpoint. The command only watches:
if it ends, the jobs go on, and the same command finds them again by the ids that it left in the runs' folders.

Slurm is asked by `squeue` alone, so that no accounting is needed; how far a run is, and how it ended, is read from its
folder. submitit keeps its own files, among them pickles of what was submitted, in `.slurm` in the store.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, PositiveInt

from results.atomic import write_text
from results.claims import BEAT, LEASE
from results.store import RunFolder, Store, StoreError, read_history
from runners.engines import EngineError, needs
from runners.engines.process import (
    ROOT,
    Carrier,
    OnEvent,
    afresh,
    cannot_start,
    complete,
    interruptible,
    keep_failure,
    placed,
    reserved,
)
from runners.job import Job

__all__ = ["Options", "Task", "check", "run_jobs"]

_POLL = 5.0
"""Seconds between two questions to Slurm (ours)."""
_SETTLING = 30.0
"""Seconds after a job's end until its run counts as lost: a shared folder may show its files late (ours)."""
_WARNING = 90
"""Seconds before the time limit at which a job is told to queue itself again (submitit's default); Slurm may tell it a
minute earlier."""
_LEAST = 5
"""Shortest time limit, minutes (ours)."""
_ARRAY = 1000
"""Jobs in one array; Slurm's own default allows 1001."""
_TRIES = 3
"""How often a job that ended without doing anything is submitted again (ours)."""
_ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
          "TIMEOUT")  # fmt: skip
_BLAMELESS = ("", "BOOT_FAIL", "CANCELLED", "COMPLETED", "NODE_FAIL", "PREEMPTED")
"""Ends that say nothing about the run: it stays unfinished rather than failed, and the same command takes it up."""


class Options(BaseModel):
    """What this engine wants to know.

    Attributes:
        device: `cpu`; `cuda`: one GPU a run; `auto`: the same where the partition has GPUs, else the CPU.
        slurm_partition: The partition; None for the cluster's default.
        slurm_time: Time limit of a job, minutes. Runs may take longer: they go on in the next job.
        slurm_mem: Memory of a job, as Slurm writes it (16G); None for the partition's default.
        slurm_setup: Shell lines before a job's command, such as the activation of an environment.
        slurm_options: Any other option of sbatch, as NAME=VALUE.
        cpus_per_run: Cores of a job; None for the run's threads and data-loading processes.
        jobs: Runs at once; None for as many as there is room for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str = "auto"
    slurm_partition: str | None = None
    slurm_time: PositiveInt = 240
    slurm_mem: str | None = None
    slurm_setup: tuple[str, ...] = ()
    slurm_options: tuple[str, ...] = ()
    cpus_per_run: PositiveInt | None = None
    jobs: PositiveInt | None = None


def check(options: Options) -> None:
    """Checks that submitit and Slurm's commands are here and that the words make sense.

    Raises:
        EngineError: If not.
    """
    needs("submitit", "slurm")
    if missing := [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]:
        raise EngineError(f"--engine slurm must be started where Slurm's commands are; not found: {', '.join(missing)}")
    if options.device not in ("auto", "cpu", "cuda"):
        raise EngineError(f"--engine slurm: Slurm chooses the GPU; --device auto, cpu or cuda, not {options.device!r}")
    if options.slurm_time < _LEAST:
        raise EngineError(
            f"--slurm-time must be at least {_LEAST} minutes: up to two and a half of them are for queueing a job again"
        )
    _extra(options)


def run_jobs(jobs: Sequence[Job], options: Options, on_event: OnEvent) -> None:
    """Submits all jobs that are not in the queue already, and watches until all have ended.

    Args:
        jobs: What to run. Data, prepared images and weights are searched on each node below the same paths.
        options: The cluster, and what a run needs of it.
        on_event: As in `runners.engines.local.run_jobs`; also `again`, when a job was queued again, and `said`.

    Raises:
        EngineError: If Slurm refuses a job.
        KeyboardInterrupt: At once; the jobs go on.
    """
    gpu = _on_gpu(options)
    jobs = [placed(job, "cuda:0" if gpu else "cpu") for job in jobs]
    watch = _Watch(jobs, options, on_event)
    with interruptible():
        try:
            watch.carry_out()
        except KeyboardInterrupt:
            watch.leave()
            raise


class Task:
    """What a job does; submitit pickles it, and calls `checkpoint` before the time limit and when it is preempted.

    Args:
        content: The job as JSON.
        limit: Its time limit, minutes.
    """

    def __init__(self, content: str, limit: int) -> None:
        self.content, self.limit = content, limit
        self._carrier: Carrier | None = None
        self._began = 0.0
        self._epochs = 0

    def __call__(self) -> str:
        """Carries the job to its end; the name of its last event.

        A run that another process has is waited for as long as a dead one's claim lasts, and no longer: a node is too
        dear to wait on.
        """
        job = Job.model_validate_json(self.content)
        self._began, self._epochs = time.monotonic(), self._done()
        self._carrier = Carrier(job, job.place.device, lambda event: None)
        return str(self._carrier.run(wait=LEASE + BEAT)["event"])

    def checkpoint(self) -> Any:
        """Stops the worker in good order, and gives what goes on; None, which ends the job, if that is in vain."""
        import submitit

        if self._carrier is not None:
            self._carrier.stop()
        used = (time.monotonic() - self._began) / 60
        if self._done() == self._epochs and used > self.limit / 3:  # else it was preempted
            keep_failure(
                Job.model_validate_json(self.content),
                f"no epoch was finished within {used:.0f} minutes, so that queueing it again would be in vain; "
                f"raise --slurm-time ({self.limit} minutes)",
            )
            return None
        return submitit.helpers.DelayedSubmission(Task(self.content, self.limit))

    def _done(self) -> int:
        """Epochs that a later process need not train again."""
        job = Job.model_validate_json(self.content)
        folder = Store(job.output).run(job.spec.run_id)
        trained = folder.state() == "done"
        return job.spec.recipe.epochs if trained else len(read_history(folder.history_file))


def _why(folder: RunFolder) -> str:
    """Why a run failed, or why nobody can say."""
    try:
        return folder.failure().reason
    except StoreError as error:
        return str(error)


class _Seen(NamedTuple):
    """What the queue says of a job."""

    state: str
    reason: str

    @property
    def ended(self) -> bool:
        return self.state in _ENDED or not self.state


class _Watch:
    """The jobs of one command, as seen from where it was started."""

    def __init__(self, jobs: Sequence[Job], options: Options, on_event: OnEvent) -> None:
        self.jobs, self.options, self.on_event = list(jobs), options, on_event
        self.store = jobs[0].output
        self.name = f"crowd-{hashlib.sha256(str(self.store).encode()).hexdigest()[:8]}"
        self.folders = [Store(job.output).run(job.spec.run_id) for job in jobs]
        self.ids: dict[int, str] = {}
        self.open = set(range(len(jobs)))
        self.running: set[int] = set()
        self.epochs = dict.fromkeys(self.open, 0)
        self.tries = dict.fromkeys(self.open, 0)
        self.since: dict[int, float] = {}
        self.silent = False

    def carry_out(self) -> None:
        """Finds jobs again, submits the others, and tells of them until all have ended."""
        self._find()
        while self.open:
            due = [index for index in sorted(self.open - self.ids.keys()) if self._free(index)]
            self._submit([index for index in due if self._prepare(index)])
            self._wait()
            queue = self._queue()
            if queue is not None:
                for index, number in list(self.ids.items()):
                    self._look(index, queue.get(number, _Seen("", "")))

    def leave(self) -> None:
        """Says what goes on without this process."""
        if self.ids:
            numbers = " ".join(sorted({number.partition("_")[0] for number in self.ids.values()}))
            self._say(f"the jobs go on; the same command watches them again, and `scancel {numbers}` ends them")

    def _find(self) -> None:
        """Takes up jobs that an earlier command submitted and that have not ended."""
        known = {index: number for index, folder in enumerate(self.folders) if (number := _kept(folder)) is not None}
        queue = self._queue() if known else {}
        while queue is None:  # to submit without knowing could train a run twice at once
            self._wait()
            queue = self._queue()
        self.ids = {index: number for index, number in known.items() if number in queue and not queue[number].ended}
        if self.ids:
            self._say(f"{len(self.ids)} of the runs are in Slurm's queue already: job {_ranges(self.ids.values())}")

    def _prepare(self, index: int) -> bool:
        """Makes a run's folder ready for a job; where it cannot be written, the run fails and the others go on."""
        try:
            self.jobs[index] = afresh(self.jobs[index])
            self.folders[index].forget_failure()  # an earlier failure is not this job's; its checkpoints are
            write_text(_note(self.folders[index]), "{}\n")
        except OSError as error:
            self.open.discard(index)
            self.on_event(index, cannot_start(error))
            return False
        return True

    def _submit(self, indices: Sequence[int]) -> None:
        for start in range(0, len(indices), _ARRAY):
            part = indices[start : start + _ARRAY]
            tasks = [Task(self.jobs[index].model_dump_json(), self.options.slurm_time) for index in part]
            numbers = _submitted(tasks, self.name, self.store, self.options, self.jobs[part[0]])
            for index, number in zip(part, numbers, strict=True):
                self.ids[index] = number
                self.tries[index] += 1
                with suppress(OSError):  # a disk that is full by now: the claim keeps another command's job out
                    write_text(_note(self.folders[index]), json.dumps({"job": number}) + "\n")
            self._say(f"submitted {len(part)} run{'s' * (len(part) > 1)} as Slurm job {_ranges(numbers)}")

    def _free(self, index: int) -> bool:
        """Whether a run may be submitted; told once if another process has it."""
        holder = self.folders[index].claims.holder()
        if holder is not None:
            self.on_event(index, {"event": "held", "holder": str(holder)})
        return holder is None

    def _look(self, index: int, seen: _Seen) -> None:
        """Tells what became of a job since the last look."""
        if not seen.ended:
            self.since.pop(index, None)
            if seen.state == "PENDING" and index in self.running:
                self.running.discard(index)
                self.on_event(index, {"event": "again", "reason": f"Slurm queued it again ({seen.reason})"})
            if seen.state == "RUNNING":
                self._progress(index)
            return
        if complete(self.jobs[index]):
            self._end(index, {"event": "done"})
        elif (self.folders[index].path / "failed.json").is_file() and self.folders[index].claims.holder() is None:
            self._end(index, {"event": "failed", "reason": _why(self.folders[index])})
        elif time.monotonic() - self.since.setdefault(index, time.monotonic()) > _SETTLING:
            self._lost(index, seen)

    def _progress(self, index: int) -> None:
        """Tells of a run that trains: its start, and each epoch that its history has."""
        if index not in self.running:
            self.running.add(index)
            self.on_event(index, {"event": "start"})
        try:
            rows = read_history(self.folders[index].history_file)
        except StoreError:  # the job goes on, and so does the watch
            return
        if len(rows) != self.epochs[index] and rows:
            self.epochs[index] = len(rows)
            total = self.jobs[index].spec.recipe.epochs
            shown = {name: rows[-1][name] for name in ("val_mae", "val_rmse") if rows[-1].get(name) is not None}
            step = {"epoch": len(rows), "epochs": total, "step": len(rows), "steps": total}
            self.on_event(index, {"event": "epoch"} | step | shown)

    def _lost(self, index: int, seen: _Seen) -> None:
        """A job that ended and left neither record nor failure: submitted again if it did nothing wrong."""
        number, _ = self.ids.pop(index), self.since.pop(index)
        self.running.discard(index)
        silent = seen.state in ("COMPLETED", "")
        if silent and self.folders[index].claims.holder() is not None:
            return  # another process has it; `_free` tells when it can be submitted
        if silent and self.tries[index] < _TRIES:
            self.on_event(index, {"event": "again", "reason": f"job {number} ended without a word"})
            return
        reason = f"Slurm ended job {number}: {seen.state or 'no longer in the queue'}"
        reason += f"; what it said is in {self.store}/.slurm/{number}_*"
        if seen.state not in _BLAMELESS:
            keep_failure(self.jobs[index], reason)
        self.open.discard(index)
        self.on_event(index, {"event": "failed", "reason": reason})

    def _end(self, index: int, event: dict[str, Any]) -> None:
        """Tells the last event of a job; of one that is done nothing is kept but the run."""
        number = self.ids.pop(index)
        self.open.discard(index)
        self.since.pop(index, None)
        if event["event"] == "done":
            _note(self.folders[index]).unlink(missing_ok=True)
            for path in (self.store / ".slurm").glob(f"{number}_*"):
                path.unlink(missing_ok=True)
        self.on_event(index, event)

    def _queue(self) -> dict[str, _Seen] | None:
        """The jobs of this store that Slurm knows, also those that ended lately; None if it does not answer."""
        words = ["squeue", "--noheader", "--array", "--states=all", f"--user={getpass.getuser()}"]
        words += [f"--name={self.name}", "--format=%i|%T|%r"]
        try:
            lines = _asked(words).splitlines()
        except (OSError, subprocess.SubprocessError) as error:
            if not self.silent:
                self.silent = True
                self._say(f"squeue does not answer, asking on: {getattr(error, 'stderr', None) or error}")
            return None
        self.silent = False
        found = [line.strip().split("|", 2) for line in lines if line.count("|") >= 2]
        return {number: _Seen(state, reason) for number, state, reason in found}

    def _wait(self) -> None:
        """Lets time pass, with the display alive."""
        until = time.monotonic() + _POLL
        while time.monotonic() < until:
            self.on_event(-1, {"event": "idle"})
            time.sleep(0.5)

    def _say(self, text: str) -> None:
        self.on_event(-1, {"event": "said", "text": " ".join(text.split())})


def _submitted(tasks: Sequence[Task], name: str, store: Path, options: Options, job: Job) -> list[str]:
    """Submits an array; the id of each of its jobs.

    Raises:
        EngineError: If Slurm refuses.
    """
    import submitit

    place = job.place
    executor = submitit.SlurmExecutor(folder=store / ".slurm", max_num_timeout=10**6)  # `Task.checkpoint` says when
    setup = [f"export PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"]
    executor.update_parameters(
        job_name=name,
        time=options.slurm_time,
        signal_delay_s=min(_WARNING, 30 * options.slurm_time),
        cpus_per_task=options.cpus_per_run or reserved(job),
        ntasks_per_node=1,
        array_parallelism=options.jobs or len(tasks),
        setup=[*options.slurm_setup, *setup],
        additional_parameters={"requeue": True}
        | ({"partition": options.slurm_partition} if options.slurm_partition else {})
        | ({"mem": options.slurm_mem} if options.slurm_mem else {})
        | ({} if place.device == "cpu" else {"gpus-per-node": place.ranks})
        | _extra(options),
    )
    try:
        if len(tasks) == 1:
            return [executor.submit(tasks[0]).job_id]
        with executor.batch():
            jobs = [executor.submit(task) for task in tasks]
        return [submitted.job_id for submitted in jobs]
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
        raise EngineError(f"Slurm refuses the jobs: {' '.join(str(error).split())}") from error


def _extra(options: Options) -> dict[str, Any]:
    """The other options of sbatch.

    Raises:
        EngineError: If one is no NAME=VALUE.
    """
    found: dict[str, Any] = {}
    for word in options.slurm_options:
        name, equals, value = word.partition("=")
        if not name or not equals or not name.replace("-", "").isalnum():
            raise EngineError(f"--slurm-options are NAME=VALUE, such as account=lab; found {word!r}")
        found[name.lstrip("-")] = value
    return found


def _on_gpu(options: Options) -> bool:
    """Whether a run gets a GPU."""
    if options.device != "auto":
        return options.device == "cuda"
    words = ["sinfo", "--noheader", "--format=%G"]
    words += [f"--partition={options.slurm_partition}"] if options.slurm_partition else []
    with suppress(OSError, subprocess.SubprocessError):
        return "gpu" in _asked(words)
    return False


def _asked(words: Sequence[str]) -> str:
    """What a command of Slurm prints."""
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout  # noqa: S603


def _note(folder: RunFolder) -> Path:
    """The file that says which job of Slurm has a run."""
    return folder.work / "slurm.json"


def _kept(folder: RunFolder) -> str | None:
    """The id that an earlier command left."""
    try:
        return str(json.loads(_note(folder).read_text(encoding="utf-8"))["job"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _ranges(numbers: Sequence[str] | Any) -> str:
    """`12_[0-3]` for the four jobs of array 12."""
    arrays: dict[str, list[int]] = {}
    for number in numbers:
        array, _, task = number.partition("_")
        arrays.setdefault(array, []).extend([int(task)] if task else [])
    return ", ".join(a if not t else f"{a}_[{min(t)}-{max(t)}]" for a, t in arrays.items())
