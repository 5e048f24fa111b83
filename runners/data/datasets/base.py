"""What a dataset is: a name, splits of entries, images and annotations, a resize rule, and a fingerprint.

A dataset is one file, `runners/data/datasets/<name>.py`, with one subclass of `CrowdDataset`; `<name>` is its name on
the command line and in every record. Modules that begin with an underscore, and this one, are no datasets.

Coordinates are (x, y) in pixels with the origin at the image's corner, as everywhere in this project. The public
annotations are taken as they are; nobody subtracts MATLAB's one, and neither do we.
"""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SPLITS", "Annotation", "CrowdDataset", "Entry", "Published", "Resize", "carve"]

SPLITS = ("train", "val", "test")


class Annotation(NamedTuple):
    """The heads of one image.

    Attributes:
        points: float64 [n, 2], (x, y), pixels of the stored image.
        boxes: float64 [n, 4], x1, y1, x2, y2 of each head, or None where the dataset has no boxes.
    """

    points: NDArray[np.float64]
    boxes: NDArray[np.float64] | None = None


class Entry(NamedTuple):
    """One image of a split.

    Attributes:
        id: Unique within its split; the file name without its ending.
        split: `"train"`, `"val"` or `"test"`.
        image: Where the image lies; None if it is made on the fly.
        annotation: Where its points lie; None if made on the fly or kept elsewhere (one table for all images).
    """

    id: str
    split: str
    image: Path | None = None
    annotation: Path | None = None


class Published(NamedTuple):
    """What the authors (or a count of the genuine files) say a release holds.

    Attributes:
        label: Name of the release.
        images: Number of images by official split.
        points: Number of points by official split, or `{"all": n}` where only the sum is known.
        tolerance: Share by which points may differ because the published figure is rounded.
    """

    label: str
    images: dict[str, int]
    points: dict[str, int]
    tolerance: float = 0.0


class Resize(NamedTuple):
    """A resize rule: clip the shorter side to [short_min, short_max], then cap the longer side; 0 is no limit.

    Attributes:
        short_min: Images with a shorter side below it are enlarged, pixels.
        short_max: Images with a shorter side above it are reduced, pixels.
        long_max: Images with a longer side above it are reduced; wins over `short_min`, pixels.
        source: Where the rule comes from.
    """

    short_min: int = 0
    short_max: int = 0
    long_max: int = 0
    source: str = "ours: images as they are"

    def size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """(H, W) after the rule, times `scale`, each rounded half up and at least 1."""
        short, long = min(height, width), max(height, width)
        ratio = 1.0
        if self.short_min:
            ratio = max(ratio, self.short_min / short)
        if self.short_max:
            ratio = min(ratio, self.short_max / short)
        if self.long_max:
            ratio = min(ratio, self.long_max / long)
        ratio *= scale
        return max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5))


class CrowdDataset(ABC):
    """Base of every dataset.

    Args:
        root: Folder under which the dataset lies; ignored by datasets that are made on the fly.
        scale: Factor on the size that the resize rule gives (0.5: half resolution).
    """

    title: ClassVar[str] = ""
    homepage: ClassVar[str] = ""
    """Where to get it, and what is asked for."""
    note: ClassVar[str] = ""
    """What a user must know about its splits or files."""
    published: ClassVar[tuple[Published, ...]] = ()
    protocol: ClassVar[Resize] = Resize()
    """The default resize rule."""
    radii: ClassVar[tuple[str, ...]] = ("4px", "8px")
    """Distances within which a point may be matched to a head, pixels of the stored image [FIDTM for ShanghaiTech and
    JHU-Crowd++; ours elsewhere]; see `runners.metrics.localisation.parse_radii`."""
    main_radius: ClassVar[str] = "8px"
    """The one whose F1 on val chooses a localizer's threshold (ours)."""
    on_disk: ClassVar[bool] = True
    """False: images are made on the fly, and the prepared images are kept in memory instead of the cache."""
    version: ClassVar[int] = 1
    """Raised when the reader reads something else from the same files; part of the fingerprint."""

    def __init__(self, root: Path | str | None = None, *, scale: float = 1.0) -> None:
        if not (0 < scale <= 8):
            raise ValueError(f"scale must lie in (0, 8]; found {scale!r}")
        self.root = None if root is None else Path(root)
        self.scale = float(scale)
        self.resize = self.protocol

    @property
    def name(self) -> str:
        """The name on the command line: the module's."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that `entries` knows."""
        return SPLITS

    @abstractmethod
    def entries(self, split: str) -> list[Entry]:
        """The images of a split in a fixed order, the same on every machine.

        Raises:
            ValueError: If the split is unknown.
            DataError: If files are missing.
        """

    @abstractmethod
    def read_image(self, entry: Entry) -> NDArray[np.uint8]:
        """The image as RGB, uint8 [H, W, 3], at its stored size."""

    @abstractmethod
    def read_annotation(self, entry: Entry) -> Annotation:
        """The heads, in pixels of the stored image, all of them: also those outside."""

    @abstractmethod
    def fingerprint(self, split: str | None = None) -> str:
        """sha256 (hex) over the content of a split, or of all splits: images, annotations, reader version.

        Two copies of a dataset on two machines have the same fingerprint; one changed point gives another.
        """

    def image_size(self, entry: Entry) -> tuple[int, int]:
        """(H, W) of the stored image. Datasets that can tell without decoding override this."""
        height, width = self.read_image(entry).shape[:2]
        return height, width

    def prepared_size(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of an image after the resize rule and `scale`."""
        return self.resize.size(height, width, self.scale)

    def check_split(self, split: str) -> None:
        """Raises ValueError if `split` is unknown."""
        if split not in self.splits:
            raise ValueError(f"{self.name} has no split {split!r}; expected one of {', '.join(self.splits)}")


def carve(dataset: str, counts: dict[str, int], fraction: float, purpose: str = "val") -> set[str]:
    """A fixed part of a dataset, spread evenly over its counts, the same on every machine and for every seed (ours).

    The images are ranked by count and cut into as many blocks as images are wanted; each block gives the one whose
    sha256 is smallest. (By hash alone, the 40 validation images of ShanghaiTech B would have a mean of 84 people where
    the rest has 127.)

    Args:
        dataset: Name of the dataset, part of what is hashed.
        counts: Number of people by id.
        fraction: Share that is taken, rounded to whole images; at least one image stays on each side where it can.
        purpose: Part of what is hashed, so that two carvings of one dataset are independent.
    """
    hashed = {i: hashlib.sha256(f"{dataset}/{purpose}/{i}".encode()).hexdigest() for i in counts}
    ranked = sorted(counts, key=lambda i: (counts[i], hashed[i]))
    wanted = min(max(1, round(fraction * len(ranked))), max(0, len(ranked) - 1))
    bounds = [len(ranked) * block // wanted for block in range(wanted + 1)] if wanted else []
    return {min(ranked[start:stop], key=hashed.__getitem__) for start, stop in itertools.pairwise(bounds)}
