"""One run on several devices of a machine: processes that share each batch (DistributedDataParallel).

The process of the run is rank 0: it starts the others, validates, writes, and ends them. They see the same job, train
the same weights on their parts of each batch, and write nothing. The losses know of the whole batch
(`losses.parallel`), so the run is the same but for the order of floating-point sums; on several GPUs batch
normalisation is over the whole batch too (SyncBatchNorm), on CPUs over each part. The others are `runners.rank_worker`.

None outlives another: rank 0 watches the others from their start, and each of them ends with the pipe that rank 0
holds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import torch
from mmengine.model import MMDistributedDataParallel
from torch import distributed, nn

from results.redact import redacted
from results.store import Store
from runners.job import Job

__all__ = ["device_of", "join", "together", "unwrapped", "wrapped"]

_PATIENCE = timedelta(hours=2)
"""How long the others wait while rank 0 validates."""
_GRACE_SECONDS = 10
"""How long the others have to end, and rank 0 to notice by itself that one died (ours)."""


def device_of(job: Job, rank: int) -> torch.device:
    """The device of a process: the CPU, or the GPU `rank` places after the job's own."""
    first = torch.device(job.place.device)
    return first if first.type == "cpu" else torch.device(first.type, (first.index or 0) + rank)


@contextmanager
def together(job: Job, report: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Starts the other processes of a job, and ends them when the block is left. Nothing happens with one.

    Where another process has died and this one is stuck, it reports why the run `failed` and ends too: it would wait at
    the meeting for one that never comes, or on GPUs for the dead one's part of a sum.

    Args:
        job: The job.
        report: As in `runners.execute.execute`; called in another thread.

    Raises:
        RuntimeError: If the block fails because another process died, with what that one said.
    """
    count = job.place.ranks
    work = Store(job.output).run(job.spec.run_id).work
    for left_behind in work.glob("meeting-*"):  # by an attempt that was killed; the run is claimed, nobody meets there
        left_behind.unlink(missing_ok=True)
    if count == 1:
        yield
        return
    work.mkdir(parents=True, exist_ok=True)
    meeting = work / f"meeting-{uuid4().hex[:8]}"
    others = [_start(job, rank, meeting, work / f"log-rank-{rank}.txt") for rank in range(1, count)]
    left = threading.Event()
    threading.Thread(target=_guard, args=(others, work, left, report), daemon=True).start()
    try:
        join(job, 0, meeting)
        yield
    except Exception as error:
        left.set()
        said = _last_words(others, work)
        if said:
            raise RuntimeError(said) from error
        raise
    finally:
        left.set()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for process in others:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_SECONDS if sys.exc_info()[0] is None else 0.1)
            process.kill()
            with suppress(BrokenPipeError):
                _input(process).close()
        meeting.unlink(missing_ok=True)


def wrapped(model: nn.Module, device: torch.device) -> nn.Module:
    """The model as all processes train it; as it is with one."""
    if not distributed.is_initialized():
        return model
    if device.type != "cpu":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return MMDistributedDataParallel(model, device_ids=None if device.type == "cpu" else [device])


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself."""
    return model.module if isinstance(model, MMDistributedDataParallel) else model


def _start(job: Job, rank: int, meeting: Path, log: Path) -> subprocess.Popen[str]:
    """Starts a process; what it says goes into its log."""
    environment = os.environ | {"RANK": str(rank), "CROWD_MEETING": str(meeting)}
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runners.rank_worker"],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env=environment,
            text=True,
        )
    with suppress(BrokenPipeError):
        _input(process).write(job.model_dump_json() + "\n")
        _input(process).flush()  # and left open: when it ends, this process is gone
    return process


def _input(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin


def join(job: Job, rank: int, meeting: Path) -> None:
    """Meets the other processes."""
    device = device_of(job, rank)
    if device.type != "cpu":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        "gloo" if device.type == "cpu" else "nccl",
        init_method=f"file://{meeting.absolute()}",
        rank=rank,
        world_size=job.place.ranks,
        timeout=_PATIENCE,
    )


def _guard(
    others: list[subprocess.Popen[str]],
    work: Path,
    left: threading.Event,
    report: Callable[[dict[str, Any]], None],
) -> None:
    """Ends this process if it is stuck because another one died: at the meeting at once, later after a while."""
    while not left.wait(1):
        if any(process.poll() for process in others):
            if not left.wait(_GRACE_SECONDS if distributed.is_initialized() else 1):
                try:
                    report({"event": "failed", "reason": redacted(_last_words(others, work))})
                finally:
                    os._exit(1)
            return


def _last_words(others: list[subprocess.Popen[str]], work: Path) -> str:
    """What a process said that died, or nothing where all live."""
    for rank, process in enumerate(others, start=1):
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
        if process.poll():
            lines = (work / f"log-rank-{rank}.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            said = f": {lines[-1]}" if lines else ""
            return f"process {rank} of the run ended with status {process.returncode}{said}"
    return ""
