"""Where a command writes: checked before any work is done, so that an hour of it is not lost to a wrong path."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

__all__ = ["check_file", "check_folder"]


def check_folder(path: Path, option: str = "--to", inside: tuple[str, ...] = ()) -> None:
    """Makes sure that files can be written into a folder, by making it and a file in it; leaves neither behind.

    Args:
        path: Of the folder, which need not exist.
        option: By which it was named, for the message.
        inside: Names of folders in it that are written too.

    Raises:
        ValueError: If a file is in the way, or the folder cannot be made or written.
    """
    for folder in (path, *(path / name for name in inside)):
        _check_written(folder, f"{option} {path}", "expected a folder that exists or can be made; name another")


def check_file(path: Path, option: str = "--out") -> None:
    """Makes sure that a file can be written at a path; leaves nothing behind.

    Raises:
        ValueError: If a folder has its name, or its own folder cannot be made or written.
    """
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; expected a file: name one in it, as {path / 'table.csv'}")
    wanted = "expected a file in a folder that exists or can be made; name another"
    _check_written(path.parent, f"{option} {path}", wanted)


def _check_written(folder: Path, said: str, wanted: str) -> None:
    made: list[Path] = []
    try:
        places = (folder, *folder.parents)
        there = next(place for place in places if place.exists() or place.is_symlink())
        if not there.is_dir():
            kind = "a file" if there.exists() else "a link to nothing"
            raise ValueError(f"{said}: {there} is {kind}; {wanted}")
        for place in reversed(places[: places.index(there)]):
            place.mkdir()
            made.append(place)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ValueError(f"{said}: {folder} cannot be written ({why}); {wanted}") from error
    finally:
        for place in reversed(made):
            with suppress(OSError):  # another process has put something there: the folder stays
                place.rmdir()
