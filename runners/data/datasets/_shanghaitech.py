"""What both parts of ShanghaiTech share: folders, file names and the MATLAB structure of their annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from runners.data.datasets._files import FileDataset, pair
from runners.data.datasets.base import Annotation, Entry
from runners.data.places import child, images_in, plain
from runners.data.reading import DataError, points_array, read_mat

__all__ = ["ShanghaiTech", "folder_names"]


class ShanghaiTech(FileDataset):
    """`{train,test}_data/images/IMG_<n>.jpg` and `{train,test}_data/ground-truth/GT_IMG_<n>.mat`.

    Other releases write `ground_truth`, `part_A` for `part_A_final`, or put both under `ShanghaiTech/`. Numbering
    restarts in the test part. There is no official val.
    """

    homepage = "Zhang et al., CVPR 2016: https://github.com/desenzhou/ShanghaiTechDataset has the links."
    part: ClassVar[str]
    """`a` or `b`."""
    train_images: ClassVar[int]
    """Images in the training part: tells the parts apart where the folder's name does not."""

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """By the folders of both splits; and by the folder's name, or else the number of training images."""
        train, test = child(folder, "train_data", "train"), child(folder, "test_data", "test")
        images = train and child(train, "images")
        if not (test and images and child(test, "images") and _truth(train) and _truth(test)):
            return False
        named = {part: plain(folder.name) in folder_names(part) for part in "ab"}
        return named[cls.part] or (not any(named.values()) and len(images_in(images)) == cls.train_images)

    def listing(self, split: str) -> list[Entry]:
        """Pairs `IMG_<n>` with `GT_IMG_<n>`."""
        folder = child(self.folder, f"{split}_data", split)
        images, truth = folder and child(folder, "images"), folder and _truth(folder)
        if not (images and truth):
            raise DataError(f"{self.folder}: expected {split}_data with images and ground-truth")
        annotations = {file.stem.removeprefix("GT_"): file for file in truth.glob("GT_*.mat")}
        return pair(images_in(images), annotations, split, f"GT_IMG_<n>.mat in {truth}")

    def read_annotation(self, entry: Entry) -> Annotation:
        """`image_info{1}.location`, N x 2, (x, y)."""
        assert entry.annotation is not None
        return Annotation(
            points_array(_location(read_mat(entry.annotation, "image_info"), entry.annotation), entry.annotation)
        )


def folder_names(part: str) -> tuple[str, ...]:
    """Plain names that a part's folder has."""
    return (
        f"part{part}final",
        f"part{part}",
        f"shanghaitech{part}",
        f"shanghaitechpart{part}",
        f"sh{part}",
        f"shh{part}",
    )


def _truth(folder: Path) -> Path | None:
    """The folder of annotations under one of its names."""
    return child(folder, "ground-truth", "ground_truth", "gt")


def _location(info: Any, path: Path) -> Any:
    """Unwraps one-element cells down to the structure with the field `location`."""
    value = info
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict) or "location" not in value:
        found = f"a structure of {', '.join(value)}" if isinstance(value, dict) else type(value).__name__
        raise DataError(f"{path}: image_info is {found}; expected a structure with the field location")
    return value["location"]
