"""NWPU-Crowd: 5,109 pictures, up to 20,000 heads, some without people, with head boxes."""

from __future__ import annotations

from pathlib import Path

from runners.data.datasets._files import FileDataset, pair
from runners.data.datasets.base import Annotation, Entry, Published, Resize
from runners.data.places import child, images_in
from runners.data.reading import DataError, boxes_array, points_array, read_json, read_mat, read_text

__all__ = ["Nwpu"]


class Nwpu(FileDataset):
    """`images/NNNN.jpg` (or `images_part1..5/`), `jsons/NNNN.json` or `mats/NNNN.mat`, and `train.txt`, `val.txt`.

    The labels of the official test part are hidden. So `test` is the official val (500 images), and `val` a fixed part
    of train (ours). `entries("hidden")` lists the official test part, whose annotations cannot be read.
    """

    title = "NWPU-Crowd"
    homepage = "Wang et al., PAMI 2020: https://www.crowdbenchmark.com/nwpucrowd.html offers the download."
    note = "Test labels are hidden: 'test' is the official val, and 'val' is carved from train (ours)."
    folders = ("nwpucrowd", "nwpu", "nwpucrowddataset")
    protocol = Resize(short_min=384, short_max=1920, source="DM-Count: shorter side clipped to [384, 1920]")
    radii = ("sigma_s", "sigma_l")
    main_radius = "sigma_l"  # what its leaderboard, and Table 3 of the PML paper, rank by
    published = (Published("2020", {"train": 3109, "test": 500}, {"test": 196_238}),)

    @property
    def splits(self) -> tuple[str, ...]:
        """With the hidden part."""
        return (*super().splits, "hidden")

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """By an image folder and labels."""
        return bool(_image_folders(folder) and (child(folder, "jsons") or child(folder, "mats")))

    def listing(self, split: str) -> list[Entry]:
        """Pairs the images of a list with their labels."""
        listed = self._ids({"train": "train", "test": "val", "hidden": "test"}[split])
        images = {image.stem: image for folder in _image_folders(self.folder) for image in images_in(folder)}
        missing = [i for i in listed if i not in images]
        if missing:
            raise DataError(f"{self.folder}: {len(missing)} listed images are missing, the first is {missing[0]}.jpg")
        chosen = [images[i] for i in listed]
        if split == "hidden":
            return [Entry(image.stem, split, image) for image in chosen]
        return pair(chosen, self._labels(), split, "jsons/NNNN.json or mats/NNNN.mat")

    def read_annotation(self, entry: Entry) -> Annotation:
        """`points` and `boxes` of the JSON file, or `annPoints` and `annBoxes` of the MATLAB file."""
        path = entry.annotation
        if path is None:
            raise DataError(f"{entry.id}: the labels of NWPU's official test part are not public")
        if path.suffix == ".mat":
            points, boxes = read_mat(path, "annPoints"), read_mat(path, "annBoxes", required=False)
        else:
            content = read_json(path)
            if not isinstance(content, dict) or "points" not in content:
                raise DataError(f"{path}: expected an object with points and boxes")
            points, boxes = content["points"], content.get("boxes")
        located = points_array(points, path)
        framed = None if boxes is None else boxes_array(boxes, path)
        return Annotation(located, framed if framed is not None and len(framed) == len(located) else None)

    def _ids(self, part: str) -> list[str]:
        """The image names of an official list; a line is "id luminance scene_level", or "id"."""
        ids = [line.split()[0] for line in read_text(self.folder / f"{part}.txt").splitlines() if line.strip()]
        if not ids or len(set(ids)) != len(ids):
            raise DataError(f"{self.folder / f'{part}.txt'}: empty, or names an image twice")
        return ids

    def _labels(self) -> dict[str, Path]:
        """The label file of each image; JSON where both exist."""
        folders = [(child(self.folder, "mats"), "*.mat"), (child(self.folder, "jsons"), "*.json")]
        return {file.stem: file for folder, pattern in folders if folder for file in folder.glob(pattern)}


def _image_folders(folder: Path) -> list[Path]:
    """`images`, or the parts it comes in."""
    parts = [child(folder, f"images_part{n}") for n in range(1, 6)]
    whole = child(folder, "images")
    return [part for part in (whole, *parts) if part]
