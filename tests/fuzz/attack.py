"""Runs a target on many inputs, within bounds of time and memory, and collects what is no clear error."""

from __future__ import annotations

import random
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.mutate import mutated
from tests.fuzz.targets import TARGETS, Target

__all__ = ["Outcome", "attack", "judged"]

SECONDS = {signal.ITIMER_PROF: 5.0, signal.ITIMER_REAL: 60.0}
"""The most that one input may take, of the processor and by the clock (ours)."""
MEMORY = 256 * 2**20
"""The most by which the peak of memory may rise, bytes (ours); an input has a quarter of a MiB at most."""
LOOKS = 50
"""Inputs between two looks at the peak, which take longer than many readers."""
MOST_FINDINGS = 5


class TooSlowError(BaseException):
    """An input took longer than it may; no reader catches this."""


class Outcome(NamedTuple):
    """What happened.

    Attributes:
        inputs, refused: How many there were, and how many were refused with a clear error.
        seconds, slowest: Of the processor, for all of them with making them, and for the slowest.
        findings: What is no clear error: the index, what happened, and the input.
    """

    inputs: int
    refused: int
    seconds: float
    slowest: float
    findings: list[str]


def attack(name: str, folder: Path, count: int, seed: int, first: int = 0) -> Outcome:
    """Tries the inputs `first` to `first + count` of a target.

    Args:
        name: Of the target.
        folder: An empty one; the input that is being read lies in it, should the process die.
        count: Number of inputs.
        seed: Of all of them.
        first: Index of the first.
    """
    target = TARGETS[name]
    corpus = target.corpus(folder)
    refused, slowest, began, findings = 0, 0.0, time.process_time(), list[str]()
    peak = _peak()
    for index in range(first, first + count):
        rng = random.Random(f"{name} {seed} {index}")
        content = mutated(rng, corpus, target.kind)
        if target.repair is not None and rng.random() < 0.8:
            content = target.repair(content)
        before = time.process_time()
        said = judged(target, folder, content)
        slowest = max(slowest, time.process_time() - before)
        refused += said == ""
        if index % LOOKS == LOOKS - 1 or index == first + count - 1:
            last, peak = peak, _peak()
            if peak > last + MEMORY:
                said = f"memory rose by {(peak - last) / 2**20:.0f} MiB at this input or in the {LOOKS} before"
        if said:
            findings.append(f"{name}, seed {seed}, input {index}: {said}; {len(content)} bytes: {content[:300]!r}")
            if len(findings) == MOST_FINDINGS:
                break
    return Outcome(index - first + 1 if count else 0, refused, time.process_time() - began, slowest, findings)


def judged(target: Target, folder: Path, content: bytes) -> str | None:
    """None if an input was read, "" if it was refused clearly, else what is wrong."""
    path = folder / (target.file or "words")
    path.write_bytes(content)
    try:
        with _limited():
            target.read(path)
    except target.allowed as error:
        return _unclear(str(error), target)
    except (Exception, TooSlowError) as error:  # whatever it is, it is a finding
        return f"{type(error).__name__}: {str(error)[:200]!r}"
    return None


def _unclear(message: str, target: Target) -> str:
    """What an error's words lack; "" if nothing."""
    if target.file and target.file not in message:
        return f"the error does not name the file: {message[:200]!r}"
    if not message or len(message) > 20_000:
        return f"an error of {len(message)} characters"
    if target.file and not message.replace("\n", "").isprintable():
        return f"an error that cannot be printed: {message[:200]!r}"
    return ""


@contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TooSlowError("an input takes too long")

    before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    for timer, seconds in SECONDS.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in SECONDS:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _peak() -> int:
    """Highest resident memory so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
