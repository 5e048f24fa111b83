"""JHU-Crowd++: 4,372 pictures, bad weather and distractors among them, with head boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runners.data.datasets._files import FileDataset, pair
from runners.data.datasets.base import Annotation, Entry, Published, Resize
from runners.data.places import child, images_in
from runners.data.reading import DataError, boxes_array, points_array, read_numbers

__all__ = ["JhuCrowd"]


class JhuCrowd(FileDataset):
    """`{train,val,test}/images/NNNN.jpg` and `{train,val,test}/gt/NNNN.txt`, one head a line.

    A line is "x y w h occlusion blur": the head's centre and its box's sides. An empty file is an image without people.
    """

    title = "JHU-Crowd++"
    homepage = "Sindagi et al., PAMI 2020: http://www.crowd-counting.com/ offers the download."
    folders = ("jhucrowdv20", "jhucrowd", "jhucrowdpp", "jhu", "jhucrowdplusplus")
    official = ("train", "val", "test")
    protocol = Resize(long_max=2048, source="PET: longer side at most 2048")
    published = (Published("v2.0", {"train": 2272, "val": 500, "test": 1600}, {"all": 1_510_000}, tolerance=0.01),)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """By the three splits with their `gt`."""
        parts = [child(folder, split) for split in ("train", "val", "test")]
        return all(part and child(part, "images") and (part / "gt").is_dir() for part in parts)

    def listing(self, split: str) -> list[Entry]:
        """Pairs images with their text files."""
        folder = child(self.folder, split)
        images = folder and child(folder, "images")
        if not (folder and images):
            raise DataError(f"{self.folder}: expected {split}/images and {split}/gt")
        annotations = {file.stem: file for file in (folder / "gt").glob("*.txt")}
        return pair(images_in(images), annotations, split, f"NNNN.txt in {folder / 'gt'}")

    def read_annotation(self, entry: Entry) -> Annotation:
        """Centres and boxes."""
        assert entry.annotation is not None
        rows = read_numbers(entry.annotation, columns=4)
        points, half = points_array(rows, entry.annotation), rows[:, 2:4] / 2
        return Annotation(points, boxes_array(np.concatenate([points - half, points + half], axis=1), entry.annotation))
