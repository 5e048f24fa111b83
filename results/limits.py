"""How much is read of files that strangers wrote, how many runs a study may be, how far a loss may grow.

Standard library only.

Every limit is far above anything real and far below what exhausts a machine (ours). An environment variable of the
same name raises or lowers it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["LIMITS", "LimitError", "limit", "read_bounded", "special"]

LIMITS: dict[str, int] = {
    "CROWD_MAX_PIXELS": 150_000_000,
    "CROWD_MAX_ANNOTATION_BYTES": 64 * 2**20,
    "CROWD_MAX_POINTS": 1_000_000,
    "CROWD_MAX_STUDY_BYTES": 1_000_000,
    "CROWD_MAX_STUDY_VALUES": 100_000,
    "CROWD_MAX_RUNS": 100_000,
    "CROWD_MAX_LOSS_GROWTH": 1_000,
    "CROWD_MAX_RECORD_BYTES": 64 * 2**20,
    "CROWD_MAX_RECORDED_BYTES": 4 * 2**30,
    "CROWD_MAX_TABLE_ROWS": 20_000_000,
    "CROWD_MAX_TABLE_COLUMNS": 5_000,
    "CROWD_MAX_TABLE_BYTES": 8 * 2**30,
}
"""Environment variables, with the limits where they are not set.

- `PIXELS`, `POINTS`: of an image. `ANNOTATION_BYTES`: of a file of annotations or predictions, packed and unpacked.
- `STUDY_BYTES`, `STUDY_VALUES`: of a study file, the values counted after its aliases are written out.
- `RUNS`: combinations of a study, the trials of a tuned recipe included.
- `LOSS_GROWTH`: times the largest loss of a step of a run's first epoch; a larger one has exploded and ends the run.
  In the first epoch, the square of it times the loss of the first step with people.
- `RECORD_BYTES`: of one JSON file of a store, of `history.jsonl`, and of one run's line in a recorded study.
- `RECORDED_BYTES`: of one file of a recorded study. `TABLE_*`: of a parquet file, the bytes counted when decoded.
"""


_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class LimitError(ValueError):
    """An environment variable holds no limit."""


def limit(name: str) -> int:
    """The value of a limit: the environment's, else the default.

    Raises:
        LimitError: If the environment holds no positive integer.
    """
    text = os.environ.get(name)
    if text is None:
        return LIMITS[name]
    plain = text.strip()
    if not (plain.isascii() and plain.isdecimal()) or len(plain) > 18 or int(plain) < 1:
        raise LimitError(f"{name} must be a positive integer; found {text[:60]!r}")
    return int(plain)


def special(path: Path) -> str | None:
    """What is there if it is no regular file: opening a pipe would wait for a writer, and a device has no end.

    Returns:
        `a named pipe`, `a socket`, `a device` or `a folder`; None of a file, and where there is nothing.
    """
    try:
        return _SPECIAL.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):  # whoever opens it tells
        return None


def read_bounded(path: Path, name: str, error: type[Exception]) -> bytes:
    """The bytes of a file that has no more of them than a limit allows.

    Args:
        path: The file.
        name: Of the limit.
        error: What is raised, with the file's path, where it cannot be read or is too large.
    """
    most = limit(name)
    kind = special(path)
    if kind is not None:
        raise error(f"{path} is {kind}, not a regular file; remove it, or put the file itself there")
    try:
        with path.open("rb") as file:
            found = file.read(most + 1)
    except OSError as failed:
        raise error(f"{path} cannot be read: {failed.strerror or failed}") from failed
    if len(found) > most:
        raise error(f"{path} has more than {most} bytes, absurd for what it is; else raise {name}")
    return found
