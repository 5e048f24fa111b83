"""Synthetic crowds, made on the fly: nothing to download, and every head is known exactly."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runners.data.datasets.base import Annotation, CrowdDataset, Entry
from runners.data.scene.layout import SIZES, Scene, capacity, plan
from runners.data.scene.painter import paint
from runners.data.scene.stream import Stream

__all__ = ["Synthetic"]

_SIDES = (64, 4096)


class Synthetic(CrowdDataset):
    """People of many looks on a ground in perspective, with occlusion, light, haze, and backgrounds like crowds.

    All of it is ours. In short (see `runners/data/scene`):

    * The number of people is log-uniform between `fewest` and `most`; one image in twenty is empty but for its things.
    * Heads are 5 to 28 pixels high, smaller and denser towards the horizon, scattered, in groups, rows, rings, queues.
    * A point is the centre of a head; a box is 0.84 times as wide as high, within the image. Both are exact: heads are
      drawn where the points are, on half pixels.
    * As annotators do, heads that can hardly be seen are not counted; here they are not even there: whoever's head is
      hidden by more than 65 % is left out, so a scene that is too full has a few people less than drawn.
    * Lamps, signs, balloons, bollards, bushes, seats, windows, cobbles and leaves are not people.

    Points and boxes are identical by seed on every machine; pixels are within one grey level. The images of a split
    do not depend on how many it has, nor on the other splits.

    Args:
        root: Ignored.
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images.
        size: Height and width of the images, pixels: 256, or "256x384" for H x W.
        fewest: The fewest people of an image that is not empty.
        most: The most people of an image.
        seed: Another seed, other scenes.
        scale: See `CrowdDataset`.

    Raises:
        ValueError: If a number is out of range, or `most` people do not fit.
    """

    title = "Synthetic crowds"
    homepage = "Made on the fly; nothing to get."
    note = "`benchmark data export synthetic FOLDER` writes it as files."
    on_disk = False
    version = 1

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        train: int = 300,
        val: int = 60,
        test: int = 120,
        size: int | str = 256,
        fewest: int = 4,
        most: int = 300,
        seed: int = 0,
        scale: float = 1.0,
    ) -> None:
        super().__init__(None, scale=scale)
        self.counts = {"train": train, "val": val, "test": test}
        for split, count in self.counts.items():
            if not 0 <= count <= 10**6:
                raise ValueError(f"{split} must be a number of images from 0 to 1000000; found {count!r}")
        self.size = _parse_size(size)
        fits = capacity(self.size)
        if not 1 <= fewest <= most:
            raise ValueError(f"expected 1 <= fewest <= most; found fewest={fewest!r} and most={most!r}")
        if most > fits:
            raise ValueError(
                f"most={most} people do not fit into {self.size[0]} x {self.size[1]} pixels, where heads are at least "
                f"{SIZES[0]:g} pixels high; at most {fits} do. Lower `most` or raise `size`."
            )
        self.people = (fewest, most)
        self.seed = seed

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have images."""
        return tuple(split for split, count in self.counts.items() if count)

    def entries(self, split: str) -> list[Entry]:
        """The images of a split, numbered."""
        self.check_split(split)
        return [Entry(f"{index:05d}", split) for index in range(self.counts[split])]

    def scene(self, entry: Entry) -> Scene:
        """What stands where in one image."""
        return plan(Stream("layout", *self._key(entry)), self.size, self.people)

    def read_image(self, entry: Entry) -> NDArray[np.uint8]:
        """Paints the image, uint8 RGB [H, W, 3]."""
        return paint(self.scene(entry), *self._key(entry))

    def read_annotation(self, entry: Entry) -> Annotation:
        """Head centres and head boxes, without painting anything."""
        scene = self.scene(entry)
        return Annotation(scene.points, scene.boxes)

    def image_size(self, entry: Entry) -> tuple[int, int]:
        """(H, W), the same for all images."""
        return self.size

    def fingerprint(self, split: str | None = None) -> str:
        """sha256 over the version of the generator and all parameters that change the split's images."""
        chosen = self.counts if split is None else {split: self.counts[split]}
        said = ["synthetic", self.version, self.seed, self.size, self.people, sorted(chosen.items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def export(self, folder: Path | str) -> None:
        """Writes all splits as PNG and JSON files in the layout of the dataset `folder`.

        Args:
            folder: A folder that does not exist yet, or is empty.

        Raises:
            FileExistsError: If the folder holds anything.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty; name a new folder")
        for split in self.splits:
            place = folder / split
            place.mkdir(parents=True)
            for entry in self.entries(split):
                points, boxes = self.read_annotation(entry)
                assert boxes is not None
                Image.fromarray(self.read_image(entry)).save(place / f"{entry.id}.png")
                content = {"points": points.tolist(), "boxes": boxes.tolist()}
                (place / f"{entry.id}.json").write_text(json.dumps(content), encoding="utf-8")

    def _key(self, entry: Entry) -> tuple[object, ...]:
        """The name of an image's random numbers. It has all that shapes the scene except what `plan` is told."""
        return self.version, self.seed, entry.split, entry.id


def _parse_size(size: int | str) -> tuple[int, int]:
    """(H, W) from 256 or "256x384"."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(size))
    sides = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not all(_SIDES[0] <= side <= _SIDES[1] for side in sides):
        raise ValueError(
            f'size must be pixels from {_SIDES[0]} to {_SIDES[1]}, as 256 or as "256x384" (H x W); found {size!r}'
        )
    return sides
