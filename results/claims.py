"""Who is training a run: claims that two processes, on one machine or on two with a shared folder, never both hold.

A run's claims are numbered files, `claim-0001.json`, `claim-0002.json`, ...; the one with the highest number counts.
Whoever finds it released or its owner dead may create the next number, and creating a file that must not exist yet
succeeds for one process only. Nothing is ever taken by deleting or overwriting another's claim, which two could do at
once, and no lock of the operating system is needed, which shared folders may not have.

An owner on this machine lives while its process does. Of one elsewhere only its heartbeat is known: the file's time,
set anew every `BEAT` seconds, by the clock of the file's server. After `LEASE` seconds of silence it counts as dead.
Setting the clock makes no living owner on this machine look dead, and no dead one elsewhere alive.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psutil

from results.atomic import printable, write_text

__all__ = ["BEAT", "LEASE", "Claims", "Owner", "document"]

BEAT = 20.0
"""Seconds between two signs of life (ours)."""
LEASE = 180.0
"""Seconds without one after which an owner on another machine counts as dead (ours)."""
_AHEAD = 3600.0
"""Seconds that a sign of life may lie ahead of the clock that it is compared with (ours): clocks differ a little."""
_WRITING = 5.0
"""Seconds that a claim which cannot be read may still be being written."""
_TICKS = " ticks"
"""Ends the machine in claims that tell a process's start in ticks. An older version takes it for another machine, and
believes its heartbeat."""
_DIGITS = 9
"""Most digits of a claim's number, and a claim's most bytes: more is a stranger's file (ours)."""
_BYTES = 4096
_KEPT = 8
"""Older claims that stay: a machine whose view of a shared folder is behind must find its number taken."""


class Owner(NamedTuple):
    """Who holds a claim, or held it.

    Attributes:
        host: Name of the machine, for people.
        machine: What tells machines and containers apart, with `_TICKS` after it where `started` counts ticks.
        pid: Process id there.
        started: When that process was started: process ids are used again. Clock ticks since the machine was, where it
            tells; else, and in claims of older versions, seconds since the epoch, which move when the clock is set.
        released: Whether it was given back.
    """

    host: str
    machine: str
    pid: int
    started: float
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {printable(self.host)}"


class Claims:
    """The claims on one run.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mine: Path | None = None

    def take(self) -> bool:
        """Takes the run for this process, or says that another living process has it; True if it is its own already.

        Raises:
            OSError: If the folder cannot be written.
        """
        if self.mine():
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        newest = self._settled()
        if newest is not None and self._alive(newest):
            return False
        number = 1 if newest is None else _number(newest) + 1
        mine = self.folder / f"claim-{number:04d}.json"
        if not _create(mine, document(_myself())):
            return False
        self._mine = mine
        for old in self._files()[: -_KEPT - 1]:
            old.unlink(missing_ok=True)
        return True

    def mine(self) -> bool:
        """Whether this object's claim still counts: no other process took the run over."""
        return self._mine is not None and self._newest() == self._mine

    def release(self) -> None:
        """Gives the run back; nothing happens if it is no longer this process's."""
        if self._mine is not None:
            with suppress(OSError):  # a folder that is gone or full: the claim dies with the process
                write_text(self._mine, document(_myself()._replace(released=True)))
        self._mine = None

    def holder(self) -> Owner | None:
        """The living process that has the run; None if it is free."""
        newest = self._newest()
        return _read(newest) if newest is not None and self._alive(newest, probe=False) else None

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Gives signs of life while the block runs."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(BEAT):
            if self._mine is not None:
                with suppress(OSError):
                    os.utime(self._mine)

    def _files(self) -> list[Path]:
        """All claims, the oldest first."""
        return sorted(self.folder.glob("claim-*.json"), key=_number)

    def _newest(self) -> Path | None:
        files = self._files()
        return files[-1] if files else None

    def _settled(self) -> Path | None:
        """The newest claim, once it is written: where files cannot be created whole, that may take a moment."""
        newest = self._newest()
        while newest is not None and _read(newest) is None and abs(self._age(newest, probe=True)) < _WRITING:
            time.sleep(0.1)
            newest = self._newest()
        return newest

    def _alive(self, claim: Path, probe: bool = True) -> bool:
        """Whether a claim holds; without `probe` nothing is written to find out."""
        owner = _read(claim)
        if owner is None or owner.released:
            return False
        if owner.machine.removesuffix(_TICKS) == _machine():
            return _runs(owner)
        age = self._age(claim, probe)
        if age < -_AHEAD:
            return probe and self._beats(claim)
        return age < LEASE

    def _beats(self, claim: Path) -> bool:
        """Whether a claim whose time lies far ahead is given a sign of life, or followed by another, within a lease.

        The time itself says nothing: the clock was set back, or never right. A living owner sets it anew, right or
        not; that of a dead one stays. Only who wants to take the run waits for that; to others it looks free.
        """
        first, until = _changed(claim), time.monotonic() + LEASE
        while time.monotonic() < until:
            time.sleep(0.5)
            if _changed(claim) != first or self._newest() != claim:
                return True
        return False

    def _age(self, claim: Path, probe: bool) -> float:
        """Seconds since a claim's last sign of life; with a `probe` both times are by the clock of the folder."""
        now = time.time()
        if probe:
            file = self.folder / f".now-{uuid4().hex[:8]}"
            file.touch()
            now = file.stat().st_mtime
            file.unlink(missing_ok=True)
        seen = _changed(claim)
        return LEASE if seen is None else now - seen


def _number(claim: Path) -> int:
    """The number in a claim's name; 0 for a stranger's file."""
    digits = claim.stem.partition("-")[2]
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS else 0


def _create(path: Path, text: str) -> bool:
    """Creates a file with this text in one step, or says that it is there already."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):  # over a network the answer may be lost, and the link there all the same
            os.link(temporary, path)
        return temporary.stat().st_nlink == 2 or (not path.exists() and _create_plainly(path, text))
    finally:
        temporary.unlink(missing_ok=True)


def _create_plainly(path: Path, text: str) -> bool:
    """The same on file systems without links; a reader may see it half written for a moment."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def document(owner: Owner) -> str:
    """What stands in a claim: JSON with a check sum; a machine whose name is damaged would be believed for `LEASE`."""
    said = json.dumps(owner._asdict())
    return json.dumps(owner._asdict() | {"check": zlib.crc32(said.encode())})


def _read(claim: Path) -> Owner | None:
    """The owner that a claim names; None if it cannot be read or is damaged, and then holds nothing."""
    if not claim.is_file():  # to open a named pipe would wait for a writer for ever
        return None
    try:
        with claim.open("rb") as file:
            found = json.loads(file.read(_BYTES))
        owner = Owner(str(found["host"]), str(found["machine"]), int(found["pid"]), float(found["started"]),
                      bool(found["released"]))  # fmt: skip
        return owner if json.loads(document(owner))["check"] == found["check"] else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _changed(claim: Path) -> float | None:
    """A claim's time, seconds since the epoch; None if it is gone."""
    try:
        return claim.stat().st_mtime
    except FileNotFoundError:
        return None


def _runs(owner: Owner) -> bool:
    """Whether a process of this machine still runs; another one with its id does not count."""
    try:
        if owner.machine.endswith(_TICKS):
            return _ticks(owner.pid) == owner.started
        process = psutil.Process(owner.pid)
        return abs(process.create_time() - owner.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ValueError, OverflowError):  # a number that no process has
        return False
    except (psutil.AccessDenied, PermissionError):
        return True


def _ticks(pid: int) -> float | None:
    """When a process was started, clock ticks after the machine was [proc(5)]: setting the clock does not move it.

    Args:
        pid: Its id.

    Returns:
        None if it is dead, or a zombie.

    Raises:
        PermissionError: If that is a secret.
    """
    try:
        said = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except PermissionError:
        raise
    except OSError:
        return None
    state, *fields = said.rpartition(")")[2].split()  # before it is the program's name, whatever that holds
    return None if state in "ZX" else float(fields[18])


def _myself() -> Owner:
    host, pid = socket.gethostname(), os.getpid()
    ticks = _ticks(pid) if _boot() else None  # ticks of which start of the machine?
    if ticks is None:
        return Owner(host, _machine(), pid, psutil.Process().create_time())
    return Owner(host, _machine() + _TICKS, pid, ticks)


@cache
def _boot() -> str:
    """This start of this machine, where it has a name."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


@cache
def _machine() -> str:
    """This start of this machine, and the container on it: process ids mean something within it only."""
    parts = [socket.gethostname()]
    if _boot():
        parts.append(_boot())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
