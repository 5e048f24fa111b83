"""Prepared images: a split resized once by its protocol, kept memory-mapped, and read a crop at a time.

A prepared split is a folder `<cache>/prepared/<dataset>-<split>-<key>` with `images.npy` (all pixels in a row),
`points.npy`, `boxes.npy` and `meta.json`. The key is a hash of the content of the split's files, the resize rule,
Pillow's version (its decoders differ) and this module's: whatever changes, another folder is made. A folder appears
under its name only when complete and on disk. `meta.json` has check sums (CRC-32) of itself, the tables and each image:
the former are checked when a folder is opened, an image when a process first looks at it, since that reads all of it.
What is damaged is made again. Any folder may be deleted at any time.

The cache lies in `cache_dir`, else in the environment's CROWD_CACHE, else in ~/.cache/crowd-benchmark.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from results.atomic import flush
from runners.data.datasets.base import Annotation, CrowdDataset
from runners.data.noise import clip
from runners.data.places import cache_folder
from runners.data.reading import DataError

__all__ = ["VERSION", "Prepared", "fit_annotation", "opened", "prepare", "resize_image"]

VERSION = 1
"""Raised when prepared images become others; part of the key."""

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


class Prepared:
    """A split at its final size: images, points and boxes, by index, in the order of `CrowdDataset.entries`.

    Args:
        meta: Names and sizes; the content of `meta.json`.
        points: float64 [all points, 2].
        boxes: float64 [all points, 4], or None; NaN for the points of an image without boxes.
        pixels: uint8 [all pixels * 3], or the folder whose `images.npy` holds them.
    """

    def __init__(
        self,
        meta: dict[str, Any],
        points: NDArray[np.float64],
        boxes: NDArray[np.float64] | None,
        pixels: NDArray[np.uint8] | Path,
    ) -> None:
        self.name: str = meta["dataset"]
        self.split: str = meta["split"]
        self.ids: tuple[str, ...] = tuple(meta["ids"])
        self.sizes: tuple[tuple[int, int], ...] = tuple((h, w) for h, w in meta["sizes"])
        self.outside: int = meta["outside"]
        """How many annotated points lay outside their image and were left out."""
        self._sums: list[int] = meta["sums"]
        self._checked: set[int] = set()
        self._points, self._boxes = points, boxes
        self._rows = np.cumsum([0, *meta["counts"]])
        self._starts = np.cumsum([0, *(3 * h * w for h, w in self.sizes)])
        self.folder = pixels if isinstance(pixels, Path) else None
        self._pixels = None if isinstance(pixels, Path) else pixels

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        """A worker that is spawned opens the map itself; pickling it would copy all images."""
        return {**self.__dict__, "_pixels": self._pixels if self.folder is None else None}

    @property
    def counts(self) -> NDArray[np.int64]:
        """People in each image."""
        return np.diff(self._rows)

    def image(self, index: int) -> NDArray[np.uint8]:
        """RGB, uint8 [H, W, 3]: a read-only view; after the first time only the pixels looked at are read from disk.

        Raises:
            DataError: If the image on disk is not the one that was prepared, or is no more there.
        """
        if self._pixels is None:
            self._pixels = self._map()
        start, stop = self._starts[index], self._starts[index + 1]
        flat = self._pixels[start:stop]
        if self.folder is not None and index not in self._checked:
            self._check(index, flat)
        return flat.reshape(*self.sizes[index], 3).view(np.ndarray)

    def _map(self) -> NDArray[np.uint8]:
        """All pixels on disk. The folder was whole when it was opened, but any folder of the cache may be deleted."""
        assert self.folder is not None
        path = self.folder / "images.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            said = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
            raise DataError(
                f"{path}: the prepared images went away while they were in use ({said}); start again, with "
                "--retry-failed: they will be prepared anew"
            ) from error

    def _check(self, index: int, flat: NDArray[np.uint8]) -> None:
        """Compares an image with its check sum; a damaged folder is given up, so that the next start makes it again."""
        assert self.folder is not None
        if zlib.crc32(flat) != self._sums[index]:
            said = f"{self.folder}: the prepared image {self.ids[index]} is damaged on disk"
            try:
                (self.folder / "meta.json").unlink(missing_ok=True)
            except OSError as error:
                raise DataError(f"{said} and cannot be removed ({error.strerror}); name another --cache-dir") from error
            raise DataError(f"{said}; start again, with --retry-failed: the images will be prepared anew")
        self._checked.add(index)

    def points(self, index: int) -> NDArray[np.float64]:
        """Heads inside the image as (x, y), pixels of `image`, [n, 2]."""
        return self._points[self._rows[index] : self._rows[index + 1]]

    def boxes(self, index: int) -> NDArray[np.float64] | None:
        """Head boxes x1, y1, x2, y2, pixels of `image`, [n, 4], NaN where unknown; None if no image has any."""
        return None if self._boxes is None else self._boxes[self._rows[index] : self._rows[index + 1]]


def prepare(
    dataset: CrowdDataset, split: str, *, cache_dir: Path | str | None = None, progress: Progress | None = None
) -> Prepared:
    """Opens the prepared images of a split, making them if they are not there.

    Datasets made on the fly are kept in memory and leave nothing on disk.

    Args:
        dataset: What is prepared, with its resize rule and scale.
        split: `"train"`, `"val"` or `"test"`.
        cache_dir: Where they lie, see `cache_folder`.
        progress: Told after each image while they are made.

    Raises:
        DataError: If a file cannot be read, or the disk has too little room.
    """
    if not dataset.on_disk:
        return _build(dataset, split, None, progress)
    folder = cache_folder(cache_dir) / "prepared" / f"{dataset.name}-{split}-{_key(dataset, split)}"
    found = _open(folder)
    if found is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder.with_suffix(".lock")):
            found = _open(folder)  # another process may have made it while this one waited
            if found is None:
                _remove_leftovers(folder)
                _install(dataset, split, folder, progress)
                found = _open(folder)
    if found is None:
        raise DataError(f"{folder}: the prepared images are damaged right after they were written; is the disk sound?")
    return found


def opened(dataset: CrowdDataset, split: str, cache_dir: Path | str | None = None) -> Prepared | None:
    """The prepared images of a split if they were made before; nothing is prepared.

    The key hashes the split's files, and is asked for only if there is any folder that it could be.
    """
    place, name = cache_folder(cache_dir) / "prepared", f"{dataset.name}-{split}-"
    if not dataset.on_disk or not any(place.glob(f"{name}*/meta.json")):
        return None
    return _open(place / f"{name}{_key(dataset, split)}")


# ---------------------------------------------------------------------------------------------------------------------
# One image


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image at (H, W) = `size`: bicubic as in BL, with an antialiasing support when it shrinks (ours)."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def fit_annotation(annotation: Annotation, stored: tuple[int, int], size: tuple[int, int]) -> Annotation:
    """The heads inside the image, in pixels of the image at (H, W) = `size`.

    A point belongs to the image if 0 <= x <= W and 0 <= y <= H [BL, DM-Count]; one exactly on the far border is pulled
    in by `noise.BORDER`. Points outside are left out everywhere, also from the counts of val and test.
    """
    inside = ((annotation.points >= 0) & (annotation.points <= stored[::-1])).all(axis=1)
    factor = np.array([size[1] / stored[1], size[0] / stored[0]])
    boxes = None if annotation.boxes is None else annotation.boxes[inside] * np.tile(factor, 2)
    return Annotation(clip(annotation.points[inside] * factor, size), boxes)


# ---------------------------------------------------------------------------------------------------------------------
# A split


def _key(dataset: CrowdDataset, split: str) -> str:
    """Short hash of everything that prepared images depend on."""
    rule = dataset.resize
    parts = [
        VERSION,
        PIL.__version__,
        dataset.fingerprint(split),
        rule.short_min,
        rule.short_max,
        rule.long_max,
        dataset.scale,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _build(dataset: CrowdDataset, split: str, folder: Path | None, progress: Progress | None) -> Prepared:
    """Reads and resizes every image, into `folder` or, without one, into memory."""
    entries = dataset.entries(split)
    stored = [dataset.image_size(entry) for entry in entries]
    sizes = [dataset.prepared_size(*size) for size in stored]
    total = sum(3 * h * w for h, w in sizes)
    pixels = np.empty(total, dtype=np.uint8) if folder is None else _new_map(folder, total)
    annotations, sums, outside, start = [], [], 0, 0
    for done, (entry, old, new) in enumerate(zip(entries, stored, sizes, strict=True), start=1):
        annotation = dataset.read_annotation(entry)
        annotations.append(fit_annotation(annotation, old, new))
        outside += len(annotation.points) - len(annotations[-1].points)
        image = resize_image(dataset.read_image(entry), new)
        pixels[start : start + image.size] = image.reshape(-1)
        sums.append(zlib.crc32(np.ascontiguousarray(image)))
        start += image.size
        if progress is not None:
            progress(done, len(entries))
    meta = {
        "dataset": dataset.name,
        "split": split,
        "ids": [entry.id for entry in entries],
        "sizes": sizes,
        "counts": [len(a.points) for a in annotations],
        "outside": outside,
        "sums": sums,
    }
    points = np.concatenate([np.zeros((0, 2)), *(a.points for a in annotations)])
    boxes = _joined_boxes(annotations)
    if isinstance(pixels, np.memmap) and folder is not None:
        pixels.flush()
        np.save(folder / "points.npy", points, allow_pickle=False)
        if boxes is not None:
            np.save(folder / "boxes.npy", boxes, allow_pickle=False)
        content = json.dumps(meta)
        (folder / "meta.json").write_text(json.dumps({"sum": _sum_of(content, points, boxes), "content": content}))
        for path in folder.iterdir():
            flush(path)  # on disk before the folder gets its name
    return Prepared(meta, points, boxes, pixels)


def _sum_of(content: str, points: NDArray[np.float64], boxes: NDArray[np.float64] | None) -> int:
    """Check sum of the description and the tables."""
    found = zlib.crc32(np.ascontiguousarray(points), zlib.crc32(content.encode()))
    return found if boxes is None else zlib.crc32(np.ascontiguousarray(boxes), found)


def _new_map(folder: Path, total: int) -> NDArray[np.uint8]:
    """An empty memory-mapped `images.npy`, unless the disk is too full for it."""
    free = shutil.disk_usage(folder).free
    if free < 1.02 * total:
        raise DataError(
            f"{folder.parent}: the prepared images need {total / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "make room, name another place with CROWD_CACHE, or use a smaller scale"
        )
    return np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(total,))


def _joined_boxes(annotations: list[Annotation]) -> NDArray[np.float64] | None:
    """The boxes of all images, NaN for those of an image without; None if no image has any."""
    if all(a.boxes is None for a in annotations):
        return None
    return np.concatenate([np.full((len(a.points), 4), np.nan) if a.boxes is None else a.boxes for a in annotations])


def _install(dataset: CrowdDataset, split: str, folder: Path, progress: Progress | None) -> None:
    """Builds under a temporary name beside `folder` and renames it; a process that was faster wins."""
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        temporary.chmod(folder.parent.stat().st_mode & 0o777)  # others may read what is shared with them
        _build(dataset, split, temporary, progress)
        if folder.exists() and _open(folder) is None:  # damaged; a sound one is never taken from its readers
            folder.rename(temporary / "replaced")
        temporary.rename(folder)
        shutil.rmtree(folder / "replaced", ignore_errors=True)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # else: the folder of a faster process is as good
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open(folder: Path) -> Prepared | None:
    """The prepared split in `folder`, or None if there is none or it is damaged."""
    try:
        whole = json.loads((folder / "meta.json").read_text())
        meta = json.loads(whole["content"])
        points = np.load(folder / "points.npy", allow_pickle=False)
        boxes = np.load(folder / "boxes.npy", allow_pickle=False) if (folder / "boxes.npy").exists() else None
        if whole["sum"] != _sum_of(whole["content"], points, boxes):
            return None
        prepared = Prepared(meta, points, boxes, folder)
        pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return prepared if pixels.shape == (prepared._starts[-1],) else None


def _remove_leftovers(folder: Path) -> None:
    """Removes what builders of this folder left behind when they were killed, more than a day ago."""
    for leftover in folder.parent.glob(f"{folder.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 86_400:
                shutil.rmtree(leftover)


@contextlib.contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Lets one process of this machine build while the others wait.

    It only saves work: where the platform or the file system has no locks, both build and the renaming decides.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):  # OSError: another user's lock, too
            import fcntl

            fcntl.flock(stack.enter_context(lock.open("w")), fcntl.LOCK_EX)
        yield
