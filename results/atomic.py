"""Files that exist whole or not at all: written under another name, flushed, then renamed. And printable text."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

__all__ = ["digest", "flush", "printable", "publish", "replacing", "write_text"]

_UMASK = os.umask(0)
os.umask(_UMASK)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; when the block ends well, the file written there takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Gives a whole file its name, replacing what had it: on disk before it can be seen, and there to stay.

    It gets the mode of any new file, whatever library wrote it: a store may be shared.
    """
    flush(temporary)
    with suppress(OSError):  # a file system without modes
        temporary.chmod(0o666 & ~_UMASK)
    temporary.replace(path)
    _sync_folder(path.parent)


def flush(path: Path) -> None:
    """Waits until the content of a file is on disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def digest(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Makes a renaming outlive a loss of power, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def printable(text: str, keep: str = "") -> str:
    """A stranger's words on one line, each character that could steer a terminal as a space.

    Args:
        text: The words.
        keep: Characters that stay all the same, as ends of lines.
    """
    return "".join(c if c.isprintable() or c in keep else " " for c in text)
