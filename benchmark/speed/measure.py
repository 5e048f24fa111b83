"""Time and memory of a loss, each measurement in a process of its own that was never used before."""

from __future__ import annotations

import multiprocessing
import queue
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

import losses
from benchmark.speed.dense import reference
from benchmark.speed.workloads import Workload, batch
from losses.base import Prediction, Target

__all__ = ["Job", "Measured", "measured", "network_ms", "timed"]

_MOST = 20
"""Repetitions at most, of fast calls; ours."""
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_MEMORY = Path("/proc/meminfo")
_TINY = Workload(32, 5)
"""What libraries are loaded with: small, and still large enough for sparse kernels and their compiled code."""
_SHARE = 0.85
"""Of the memory that is free, what a measurement may take: a reference that needs more is stopped, not the machine."""


class Job(NamedTuple):
    """What is measured: a loss with its parameters on a workload, or the dense reference of it.

    Attributes:
        loss: Its name.
        params: Its parameters.
        work: The batch.
        dense: Whether the reference is measured in its place.
        device: As torch names it.
        seconds: How long calls are repeated, after a first one that is not counted.
    """

    loss: str
    params: Mapping[str, Any]
    work: Workload
    dense: bool = False
    device: str = "cpu"
    seconds: float = 2.0


class Measured(NamedTuple):
    """What a forward and a backward pass cost.

    Attributes:
        ms: Median of the calls, milliseconds; None where it could not be measured.
        low, high: Quartiles.
        calls: Number of calls, the first one left out; 1 where that took longer than all the time there was.
        peak_mib: Memory above what the process had before, at its highest, MiB; None where the system does not say.
        problem: Why there is no time.
    """

    ms: float | None
    low: float | None = None
    high: float | None = None
    calls: int = 0
    peak_mib: float | None = None
    problem: str = ""


def measured(job: Job) -> Measured:
    """Carries out one measurement in a fresh process, on one thread of the CPU."""
    context = _context()
    answers = context.Queue()
    process = context.Process(target=_answer, args=(job, answers), daemon=True)
    process.start()
    try:
        while True:
            try:
                found: Measured = answers.get(timeout=1.0)
                break
            except queue.Empty:
                if not process.is_alive():
                    return Measured(None, problem=f"the process ended with {process.exitcode}, out of memory perhaps")
    finally:
        process.join(timeout=10)
    return found


def timed(call: Callable[[], object], seconds: float, sync: Callable[[], object] = lambda: None) -> list[float]:
    """Milliseconds of repeated calls; the first call is left out unless it alone takes longer than `seconds`."""
    found: list[float] = []
    start = time.perf_counter()
    while len(found) <= _MOST:
        sync()
        before = time.perf_counter()
        call()
        sync()
        found.append(1e3 * (time.perf_counter() - before))
        if time.perf_counter() - start > seconds and (len(found) > 3 or found[0] > 1e3 * seconds):
            break
    return found[1:] or found


def network_ms(backbone: str, reads: str, size: int, images: int, seconds: float, device: str = "cpu") -> float:
    """Median milliseconds of a training step without its loss: forward, backward, AdamW.

    Args:
        backbone: A name of `runners.backbones`.
        reads: What the loss reads, which decides the head: `density` or `points`.
        size: Side of the crops, pixels.
        images: Of a batch.
        seconds: How long steps are repeated.
        device: As torch names it.
    """
    from runners.backbones import build_counter

    torch.manual_seed(0)
    network = build_counter(backbone, reads=reads, weights="none").to(device)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    crops = torch.randn(images, 3, size, size, device=device)

    def step() -> None:
        optimizer.zero_grad()
        found = network(crops)
        main = found.density if reads == "density" else torch.cat([found.points, found.logits])
        main.mean().backward()
        optimizer.step()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return statistics.median(timed(step, seconds, _sync(device)))
    finally:
        torch.set_num_threads(threads)


def _context() -> Any:
    """A server that has imported everything gives each measurement a copy of itself; elsewhere a new interpreter."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _answer(job: Job, answers: Any) -> None:
    """In the new process: measures, and sends what was found."""
    torch.set_num_threads(1)
    try:
        answers.put(_measure(job))
    except KeyboardInterrupt:
        pass  # of the whole group: the command says what was kept
    except (RuntimeError, MemoryError, ValueError) as error:
        text = str(error).splitlines()[0]
        short = "out of memory" if "memory" in text.lower() or "alloc" in text.lower() else text
        answers.put(Measured(None, problem=short))


def _measure(job: Job) -> Measured:
    loss = losses.build(job.loss, **job.params)
    dense = reference(loss, job.loss) if job.dense else None
    if job.dense and dense is None:
        return Measured(None, problem="no reference for these parameters")
    prediction, target = batch(loss, job.work, job.device)

    def score(prediction: Prediction, target: Target) -> None:
        value = dense(prediction, target) if dense is not None else loss(prediction, target)["loss"]
        inputs = [tensor for tensor in prediction if isinstance(tensor, torch.Tensor)]
        torch.autograd.grad(value, inputs, allow_unused=True)

    small, few = batch(loss, _TINY, job.device)  # libraries that a first call loads are no cost of a workload
    score(small, few)
    before = _reset_peak(job.device)
    score(prediction, target)
    peak = _peak(job.device)
    times = timed(lambda: score(prediction, target), job.seconds, _sync(job.device))
    low, middle, high = statistics.quantiles(times, n=4) if len(times) > 1 else (times[0],) * 3
    mib = None if before is None or peak is None else max(peak - before, 0) / 2**20
    return Measured(middle, low, high, len(times), mib)


def _sync(device: str) -> Callable[[], object]:
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def _reset_peak(device: str) -> int | None:
    """Bytes in use now; from here on the highest use is kept. The process is held to what memory is free."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if not (_STATUS.exists() and _RESET.exists()):
        return None
    _hold()
    _RESET.write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak(device: str) -> int | None:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return _status("VmHWM") if _STATUS.exists() else None


def _status(name: str) -> int | None:
    """A line of the process's status, bytes."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _hold() -> None:
    """Limits the process to a share of the memory that is free, so that an allocation fails rather than the machine."""
    import resource

    free = next((line for line in _MEMORY.read_text("ascii").splitlines() if line.startswith("MemAvailable")), None)
    used = _status("VmSize")
    if free is not None and used is not None:
        limit = used + int(_SHARE * int(free.split()[1]) * 1024)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
