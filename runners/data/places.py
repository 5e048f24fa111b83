"""Where things lie: the root of the data, a dataset under it, the cache, and the content hashes of files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from runners.data.reading import DataError, refuse_special

__all__ = [
    "IMAGE_SUFFIXES",
    "cache_folder",
    "child",
    "content_hashes",
    "data_root",
    "find",
    "images_in",
    "natural",
    "plain",
]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_DEPTH, _MOST_FOLDERS = 3, 5000


def data_root(root: Path | str | None) -> Path:
    """The folder that is searched for datasets: the argument, else CROWD_DATA, else ./data."""
    return Path(root or os.environ.get("CROWD_DATA") or "data").expanduser()


def cache_folder(cache_dir: Path | str | None = None) -> Path:
    """Where prepared images lie: the argument, else CROWD_CACHE, else ~/.cache/crowd-benchmark."""
    return Path(cache_dir or os.environ.get("CROWD_CACHE") or "~/.cache/crowd-benchmark").expanduser()


def plain(name: str) -> str:
    """A name in lower-case letters and digits only: `UCF-QNRF_ECCV18` -> `ucfqnrfeccv18`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def natural(name: str) -> list[tuple[int, str]]:
    """Sorting key that puts IMG_2 before IMG_10."""
    return [(int(digits), "") if digits else (-1, text) for digits, text in re.findall(r"([0-9]+)|([^0-9]+)", name)]


def child(folder: Path, *names: str) -> Path | None:
    """The first subfolder whose plain name is one of `names`, in their order."""
    try:
        found = {plain(entry.name): entry for entry in sorted(folder.iterdir(), reverse=True) if entry.is_dir()}
    except OSError:
        return None
    return next((found[plain(name)] for name in names if plain(name) in found), None)


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, in natural order; hidden files are no images."""
    try:
        files = [f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from error
    return sorted(files, key=lambda file: natural(file.name))


def find(root: Path, names: Iterable[str], recognises: Callable[[Path], bool]) -> list[Path]:
    """The folders under `root` that hold a dataset: `root` itself, or one up to three levels below it.

    Args:
        root: Where the search begins. It may bear any name; folders below it must bear one of `names`.
        names: Plain names of the dataset's folder.
        recognises: Whether a folder has the dataset's files.
    """
    if root.is_dir() and recognises(root):
        return [root]
    known, level, seen = frozenset(names), [root], 0
    for _ in range(_DEPTH):
        below: list[Path] = []
        for folder in level:
            with contextlib.suppress(OSError):
                below += sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir())
        hits = [folder for folder in below if plain(folder.name) in known and recognises(folder)]
        if hits:
            return list({hit.resolve(): hit for hit in hits}.values())  # a link is no second copy
        seen += len(below)
        if seen > _MOST_FOLDERS:
            break
        level = below
    return []


def content_hashes(files: Iterable[Path], root: Path) -> dict[Path, str]:
    """sha256 of each file. A file whose path, size and time of change are known is not read again.

    Args:
        files: Files under `root`.
        root: Names the store of known hashes in the cache folder.

    Raises:
        DataError: If a file cannot be read.
    """
    store = cache_folder() / "hashes" / f"{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}.json"
    known = _read_store(store)
    hashes: dict[Path, str] = {}
    fresh = dict(known)
    for file in files:
        try:
            status = file.stat()
            stamp, name = f"{status.st_size}-{status.st_mtime_ns}", str(file)
            if known.get(name, "").partition(" ")[0] != stamp:
                refuse_special(file)
                with file.open("rb") as content:
                    fresh[name] = f"{stamp} {hashlib.file_digest(content, 'sha256').hexdigest()}"
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error
        hashes[file] = fresh[name].partition(" ")[2]
    if fresh != known:
        _write_store(store, fresh)
    return hashes


def _read_store(store: Path) -> dict[str, str]:
    """The known hashes; anything unreadable counts as none."""
    try:
        known = json.loads(store.read_text())
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in known.items() if isinstance(v, str)} if isinstance(known, dict) else {}


def _write_store(store: Path, hashes: dict[str, str]) -> None:
    """Keeps the hashes for the next time. Without a writable cache they are simply computed again."""
    with contextlib.suppress(OSError):
        store.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=store.parent, suffix=".tmp")
        with os.fdopen(handle, "w") as file:
            json.dump(hashes, file)
        os.replace(temporary, store)
