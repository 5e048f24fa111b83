"""What the datasets on disk share: being found, the resize options, a validation part, and the fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from runners.data.datasets.base import SPLITS, CrowdDataset, Entry, Resize, carve
from runners.data.places import content_hashes, data_root, find
from runners.data.reading import DataError, image_size, read_image, read_text

__all__ = ["VAL_FRACTION", "FileDataset", "pair"]

VAL_FRACTION = 0.1
"""Share of the official training part that validates where a dataset has no official val (ours)."""


class FileDataset(CrowdDataset):
    """A dataset that lies on disk.

    Args:
        root: The dataset's folder, its parent, or a folder that holds all datasets. None: CROWD_DATA, else ./data.
        scale: Factor on the size that the resize rule gives (0.5: half resolution).
        short_min: Overrides the rule's least shorter side, pixels; 0 is no limit.
        short_max: Overrides the rule's largest shorter side, pixels; 0 is no limit.
        long_max: Overrides the rule's largest longer side, pixels; 0 is no limit.
        val_fraction: Share of the official training part that validates; 0.1 (ours) where there is no official val.
        val_list: A text file with one image name a line: the validation part, instead of `val_fraction`.

    Raises:
        ValueError: If a parameter is out of range.
        DataError: If the dataset is not found, or found twice.
    """

    folders: ClassVar[tuple[str, ...]] = ()
    """Plain names (lower-case letters and digits) that the dataset's folder has in its releases."""
    official: ClassVar[tuple[str, ...]] = ("train", "test")
    """The splits that the authors made."""

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        scale: float = 1.0,
        short_min: int | None = None,
        short_max: int | None = None,
        long_max: int | None = None,
        val_fraction: float | None = None,
        val_list: Path | str | None = None,
    ) -> None:
        super().__init__(root, scale=scale)
        self.resize = self._rule(short_min=short_min, short_max=short_max, long_max=long_max)
        if val_fraction is not None and not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction must lie in (0, 1); found {val_fraction!r}")
        self.val_fraction = VAL_FRACTION if val_fraction is None else val_fraction
        self.val_list = None if val_list is None else Path(val_list).expanduser()
        self._validation: set[str] | None = None
        self.folder = self._located(data_root(root))
        if self.has_val and (val_fraction is not None or val_list is not None):
            raise ValueError(f"{self.name} has a validation part of its own: leave out val_fraction and val_list")

    @property
    def has_val(self) -> bool:
        """Whether validation images need not be taken from train."""
        return "val" in self.official

    @classmethod
    @abstractmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether a folder has this dataset's files; looks at names only."""

    @abstractmethod
    def listing(self, split: str) -> list[Entry]:
        """The images of an *official* split, in a fixed order."""

    @classmethod
    def locate(cls, root: Path | str | None = None) -> list[Path]:
        """The folders under `root` that hold this dataset."""
        return find(data_root(root), cls.folders, cls.recognises)

    def entries(self, split: str) -> list[Entry]:
        """The images of a split; `val` is a fixed part of the official train where there is no official val."""
        self.check_split(split)
        if self.has_val or split not in ("train", "val"):
            return [entry._replace(split=split) for entry in self.listing(split)]
        train = self.listing("train")
        if self._validation is None:
            self._validation = self._chosen(train)
        chosen = self._validation
        return [entry._replace(split=split) for entry in train if (entry.id in chosen) == (split == "val")]

    def read_image(self, entry: Entry) -> NDArray[np.uint8]:
        """Decodes the image file."""
        assert entry.image is not None
        return read_image(entry.image)

    def image_size(self, entry: Entry) -> tuple[int, int]:
        """Reads the header of the image file only."""
        assert entry.image is not None
        return image_size(entry.image)

    def fingerprint(self, split: str | None = None) -> str:
        """sha256 over names and contents of all files of a split (or of train, val and test), and the reader."""
        listed = [entry for part in ([split] if split else SPLITS) for entry in self.entries(part)]
        files = {file for entry in listed for file in (entry.image, entry.annotation) if file is not None}
        hashes = content_hashes(sorted(files), self.folder)
        digest = hashlib.sha256(f"{self.name} {self.version}\n".encode())
        for entry in listed:
            contents = [hashes[file] if file else "-" for file in (entry.image, entry.annotation)]
            digest.update("\x1f".join([entry.split, entry.id, *contents, "\n"]).encode())
        return digest.hexdigest()

    def _rule(self, **limits: int | None) -> Resize:
        """The protocol's resize rule with the user's limits in place of its own."""
        given = {name: value for name, value in limits.items() if value is not None}
        for name, value in given.items():
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a number of pixels, or 0 for no limit; found {value!r}")
        return self.protocol._replace(**given, source="the user's") if given else self.protocol

    def _located(self, root: Path) -> Path:
        """The one folder of the dataset."""
        found = type(self).locate(root)
        if not found:
            searched = "searched 3 levels down" if root.is_dir() else "which is no folder"
            raise DataError(
                f"{self.name} is not under {root} ({searched}). "
                f"{self.homepage} Then name its folder, or one above it, as the data root (--data-root or CROWD_DATA)."
            )
        if len(found) > 1:
            raise DataError(
                f"{self.name} lies in {' and in '.join(map(str, found))}: name one of them as the data root"
            )
        return found[0]

    def people(self, entries: list[Entry]) -> dict[str, int]:
        """Number of annotated people by id; 0 where the annotation is damaged (whoever reads it will be told)."""
        counts = dict.fromkeys((entry.id for entry in entries), 0)
        for entry in entries:
            with contextlib.suppress(DataError):
                counts[entry.id] = len(self.read_annotation(entry).points)
        return counts

    def _chosen(self, train: list[Entry]) -> set[str]:
        """The ids of the official train that validate."""
        if self.val_list is None:
            return carve(self.name, self.people(train), self.val_fraction)
        lines = [line.split()[0] for line in read_text(self.val_list).splitlines() if line.strip()]
        chosen, known = {Path(line).stem for line in lines}, {entry.id for entry in train}
        if not chosen or chosen - known:
            unknown = sorted(chosen - known)[:3]
            raise DataError(
                f"{self.val_list}: names {unknown or 'no image'}; expected images of {self.name}'s train part"
            )
        return chosen


def pair(images: list[Path], annotation_of: dict[str, Path], split: str, expected: str) -> list[Entry]:
    """Entries from image files and the annotation file of each stem.

    Raises:
        DataError: If there is no image, or an image has no annotation.
    """
    if not images:
        raise DataError(f"the {split} part holds no images; expected {expected}")
    missing = [image for image in images if image.stem not in annotation_of]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} images have no annotation, the first is {missing[0]}; expected {expected}"
        )
    twice = len(images) - len({image.stem for image in images})
    if twice:
        raise DataError(f"{images[0].parent}: {twice} images share their name with another (only the ending differs)")
    return [Entry(image.stem, split, image, annotation_of[image.stem]) for image in images]
