"""One trial of the fault suite: a run is killed, torn, starved of disk and contended for, then finished and compared.

The processes are forked from a server that has the engine imported, so that a start costs a tenth of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from results.spec import EvaluationSpec
from results.store import RunFolder, Store
from runners import weights
from runners.execute import execute
from runners.job import Job

__all__ = ["FAULTS", "Trial", "differences", "finish", "start"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


def start(job: Job, limit: int | None = None) -> BaseProcess:
    """A process that executes a job; with a `limit` no file can grow beyond that many bytes, as on a full disk."""
    process = _CONTEXT.Process(target=_execute, args=(job, limit))
    process.start()
    return process


def _execute(job: Job, limit: int | None) -> None:
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    os._exit(0 if execute(job, lambda event: None) else 1)


class Told(NamedTuple):
    """What happened: kinds for counting, and a line for reading."""

    kinds: tuple[str, ...]
    line: str


class Trial(NamedTuple):
    """A run under attack.

    Attributes:
        job: What is run.
        folder: Where.
        seconds: How long an undisturbed one takes.
        rng: Chooses all that is left to chance.
        data: Folder of the images.
    """

    job: Job
    folder: RunFolder
    seconds: float
    rng: random.Random
    data: Path


def kill(trial: Trial) -> Told:
    """SIGKILL at any moment."""
    process, after = start(trial.job), trial.rng.uniform(0, 1.1 * trial.seconds)
    process.join(after)
    process.kill()
    process.join()
    return Told(("killed",), f"killed after {after:.2f} s")


def tear(trial: Trial) -> Told:
    """SIGKILL, then a file of the unfinished run is cut, emptied, or has a bit flipped."""
    said = kill(trial)
    if trial.folder.state() == "done":
        return said
    files = sorted(path for path in trial.folder.path.rglob("*") if path.is_file() and path.stat().st_size)
    if not files:
        return said
    victim = trial.rng.choice(files)
    how = _damage(victim, trial.rng)
    return Told(("killed", "file damaged"), f"{said.line}, {victim.relative_to(trial.folder.path)} {how}")


def _damage(victim: Path, rng: random.Random) -> str:
    """Cuts or empties a file, or flips one bit of it."""
    data = bytearray(victim.read_bytes())
    how = rng.choice(("cut", "emptied", "flipped"))
    if how == "cut":
        data = data[: rng.randrange(len(data))]
    elif how == "emptied":
        data = bytearray()
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    victim.write_bytes(data)
    return how


def fill(trial: Trial) -> Told:
    """Files cannot grow beyond a random size."""
    limit = int(10 ** trial.rng.uniform(1, 6))
    process = start(trial.job, limit)
    process.join()
    return Told(("disk full",), f"disk full at {limit} bytes, exit status {process.exitcode}")


def corrupt(trial: Trial) -> Told:
    """An image or an annotation is broken for the time of one attempt."""
    files = sorted(path for path in trial.data.rglob("*") if path.is_file())
    victim = trial.rng.choice(files)
    whole = victim.read_bytes()
    victim.write_bytes(whole[: trial.rng.randrange(len(whole))])
    try:
        process = start(trial.job)
        process.join()
    finally:
        victim.write_bytes(whole)
    return Told(("data broken",), f"{victim.name} cut, exit status {process.exitcode}")


def spoil(trial: Trial) -> Told:
    """SIGKILL, then a file of the prepared images is damaged; the attempt after that notices, or makes it again."""
    said = kill(trial)
    assert trial.job.place.cache_dir is not None
    files = sorted(path for path in trial.job.place.cache_dir.rglob("*") if path.is_file() and path.stat().st_size)
    if not files:
        return said
    victim = trial.rng.choice(files)
    how = _damage(victim, trial.rng)
    process = start(trial.job)
    process.join()
    line = f"{said.line}, prepared {victim.parent.name}/{victim.name} {how}, exit status {process.exitcode}"
    return Told(("killed", "cache spoilt"), line)


def contend(trial: Trial) -> Told:
    """Two processes want the run at once; one of them may be killed."""
    pair = [start(trial.job), start(trial.job)]
    if trial.rng.random() < 0.5:
        time.sleep(trial.rng.uniform(0, trial.seconds))
        trial.rng.choice(pair).kill()
    for process in pair:
        process.join()
    return Told(("two at once",), f"two at once, exit status {pair[0].exitcode} and {pair[1].exitcode}")


FAULTS: tuple[Callable[[Trial], Told], ...] = (kill, kill, tear, tear, fill, corrupt, spoil, contend)
"""What may happen, the likelier the more often it stands here."""


def finish(job: Job) -> int:
    """Runs to the end, undisturbed; the number of attempts that it took."""
    for attempt in range(1, 4):
        process = start(job)
        process.join()
        if process.exitcode == 0:
            return attempt
    return 0


def differences(found: RunFolder, expected: RunFolder) -> list[str]:
    """In what two runs of one specification differ, to the bit: weights, history (but for seconds), measurements."""
    differing = []
    for rule in ("val", "last"):
        left, right = weights.read(found.weights(rule)), weights.read(expected.weights(rule))
        same = left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
        evaluation = EvaluationSpec(selection=rule)
        tables = [each.images(evaluation).map(repr) for each in (found, expected)]
        differing += [f"model_{rule}"] * (not same) + [f"images of {rule}"] * (not tables[0].equals(tables[1]))
    histories: list[pd.DataFrame] = [each.history().drop(columns="seconds") for each in (found, expected)]
    differing += ["history"] * (not histories[0].equals(histories[1]))
    differing += ["selected"] * (found.record().selected != expected.record().selected)
    return differing


def folder_of(job: Job) -> RunFolder:
    """The run's folder."""
    return Store(job.output).run(job.spec.run_id)
