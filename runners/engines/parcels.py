"""A run's folder as a parcel: what a node that does not see the store borrows of it, and brings back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from results.atomic import replacing
from results.store import RunFolder

__all__ = ["Parcel", "pack", "unpack"]

Parcel = dict[str, bytes]
"""Paths within the run's folder, and the contents of the files."""

_LAST = ("localisation.json", "metrics.json", "record.json")
"""Files whose presence says that others are whole: put down after them, the record after all."""


def pack(folder: RunFolder) -> Parcel:
    """The files of a run, which may be being trained; claims stay where they are.

    Checkpoints are read before the weights that were selected: a checkpoint resumes beside weights that are newer than
    it, not beside older ones.
    """
    parcel: Parcel = {}
    for path in sorted(_files(folder.path), key=lambda path: (path.parent != folder.work, str(path))):
        try:
            parcel[path.relative_to(folder.path).as_posix()] = path.read_bytes()
        except FileNotFoundError:  # an old checkpoint that was removed meanwhile
            continue
    return parcel


def unpack(parcel: Parcel, folder: RunFolder) -> None:
    """Makes the files of a run those of a parcel: each whole or not at all, and the record last.

    Raises:
        ValueError: If a path leads out of the folder.
    """
    for name in sorted(parcel, key=lambda name: (_rank(name), name)):
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise ValueError(f"a parcel of run {folder.run_id} has the path {name!r}, which leads out of its folder")
        with replacing(folder.path / name) as temporary:
            temporary.write_bytes(parcel[name])
    for path in _files(folder.path):
        if path.relative_to(folder.path).as_posix() not in parcel:
            path.unlink(missing_ok=True)


def _rank(name: str) -> int:
    """The place of a file in the order: 0 unless it says that others are whole."""
    last = PurePosixPath(name).name
    return _LAST.index(last) + 1 if last in _LAST else 0


def _files(folder: Path) -> Iterator[Path]:
    """All files but claims and those that are still being written."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith(("claim-", ".")):
            yield path
