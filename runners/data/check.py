"""What is wrong with a dataset on disk, what it looks like, and where to get it: plain functions that return data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from runners import data
from runners.data.cache import resize_image
from runners.data.datasets.base import Annotation, CrowdDataset, Entry
from runners.data.places import data_root
from runners.data.reading import DataError, orientation

__all__ = ["Finding", "Location", "Report", "SplitSummary", "check", "overlay", "where"]

Level = Literal["error", "warning", "info"]
_MOST_NAMED = 5


class Finding(NamedTuple):
    """One thing that a check found.

    Attributes:
        level: `"error"` (do not train on this), `"warning"` (know this) or `"info"`.
        what: Short fixed name: `unreadable`, `order`, `outside`, `duplicates`, `counts`, `release`, `exif`, `empty`,
            `boxes`, `missing`.
        message: What was found, what was expected, what to do.
        ids: Images that it concerns, as `split/id`.
    """

    level: Level
    what: str
    message: str
    ids: tuple[str, ...] = ()


class SplitSummary(NamedTuple):
    """Figures of one split; counts are of annotated points, also of those outside."""

    split: str
    images: int
    points: int
    least: int
    mean: float
    most: int
    empty: int
    outside: int
    duplicates: int


class Report(NamedTuple):
    """What `check` returns.

    Attributes:
        dataset: Name of the dataset.
        folder: Where it lies; None if it is made on the fly.
        release: Which annotation release it is, if that can be told.
        splits: Figures by split.
        findings: Worst first.
    """

    dataset: str
    folder: Path | None
    release: str | None
    splits: tuple[SplitSummary, ...]
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether there is no error among the findings."""
        return all(finding.level != "error" for finding in self.findings)


class Location(NamedTuple):
    """Where a dataset comes from and whether it is here."""

    name: str
    title: str
    source: str
    note: str
    found: tuple[Path, ...]


class _Look(NamedTuple):
    """One image as the check saw it."""

    entry: Entry
    size: tuple[int, int]
    points: NDArray[np.float64]
    boxes: NDArray[np.float64] | None
    rotated: bool

    @property
    def name(self) -> str:
        return f"{self.entry.split}/{self.entry.id}"

    @property
    def outside(self) -> int:
        """Points that are not in the image."""
        return _outside(self.points, self.size)

    @property
    def duplicates(self) -> int:
        """Points that repeat another one exactly."""
        return len(self.points) - len(np.unique(self.points, axis=0))


def check(dataset: CrowdDataset, *, decode: bool = True, progress: Callable[[int, int], None] | None = None) -> Report:
    """Reads all of a dataset and reports what a user should know before training on it.

    Args:
        dataset: What is checked; its splits train, val and test.
        decode: Decode every image in full; False reads headers only, which misses files that are cut short.
        progress: Called with (images done, images in all).
    """
    looks: list[_Look] = []
    bad: list[tuple[str, str]] = []
    findings: list[Finding] = []
    listed: list[Entry] = []
    for split in ("train", "val", "test"):
        try:
            listed += dataset.entries(split)
        except DataError as error:
            findings.append(Finding("error", "missing", f"{split}: {error}"))
    for done, entry in enumerate(listed, start=1):
        try:
            looks.append(_look(dataset, entry, decode))
        except DataError as error:
            bad.append((f"{entry.split}/{entry.id}", str(error)))
        if progress is not None:
            progress(done, len(listed))
    if bad:
        text = f"{len(bad)} of {len(listed)} images or annotations cannot be read: {bad[0][1]}"
        findings.append(Finding("error", "unreadable", text, tuple(name for name, _ in bad)))
    release, about_counts = _compare(dataset, listed, looks)
    findings += about_counts + _oddities(looks)
    for split in ("train", "val", "test"):
        findings += _order(split, [look for look in looks if look.entry.split == split])
    rank = {"error": 0, "warning": 1, "info": 2}
    return Report(
        dataset=dataset.name,
        folder=getattr(dataset, "folder", None),
        release=release,
        splits=tuple(
            _summary(split, [k for k in looks if k.entry.split == split]) for split in ("train", "val", "test")
        ),
        findings=tuple(sorted(findings, key=lambda finding: rank[finding.level])),
    )


def where(root: Path | str | None = None) -> list[Location]:
    """For each dataset: where to get it, and which folders under `root` hold it."""
    found = []
    for name in data.names():
        cls: Any = data.load(name)
        places = tuple(cls.locate(data_root(root))) if hasattr(cls, "locate") else ()
        found.append(Location(name, cls.title, cls.homepage, cls.note, places))
    return found


def overlay(
    dataset: CrowdDataset, path: Path | str, *, split: str = "train", images: int = 6, width: int = 640
) -> Path:
    """Writes a PNG with images of a split, from the emptiest to the fullest, and their points on them.

    Args:
        dataset: What is drawn.
        path: Where the picture goes.
        split: Which split.
        images: How many images, two in a row.
        width: Width of each, pixels.

    Returns:
        `path`.

    Raises:
        DataError: If a file cannot be read.
    """
    annotated = [(entry, dataset.read_annotation(entry)) for entry in dataset.entries(split)]
    annotated.sort(key=lambda pair: len(pair[1].points))
    chosen = np.unique(np.linspace(0, len(annotated) - 1, min(images, len(annotated))).round().astype(int))
    tiles = [_tile(dataset, annotated[index], width) for index in chosen]
    rows = [tiles[start : start + 2] for start in range(0, len(tiles), 2)]
    heights = [max(tile.height for tile in row) for row in rows]
    sheet = Image.new("RGB", (width * min(2, len(tiles)), sum(heights)), "white")
    for row, top in zip(rows, np.cumsum([0, *heights[:-1]]).tolist(), strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (column * width, top))
    sheet.save(path, format="PNG")
    return Path(path)


# ---------------------------------------------------------------------------------------------------------------------
# What is looked at


def _look(dataset: CrowdDataset, entry: Entry, decode: bool) -> _Look:
    annotation = dataset.read_annotation(entry)
    size = dataset.read_image(entry).shape[:2] if decode else dataset.image_size(entry)
    return _Look(entry, (size[0], size[1]), annotation.points, annotation.boxes, _is_rotated(entry.image))


def _is_rotated(path: Path | None) -> bool:
    """Whether an EXIF tag asks viewers to turn the image."""
    if path is None:
        return False
    return orientation(path) != 1


def _outside(points: NDArray[np.float64], size: tuple[int, int]) -> int:
    """Points outside [0, W] x [0, H]."""
    return int((~((points >= 0) & (points <= size[::-1])).all(axis=1)).sum())


def _summary(split: str, looks: list[_Look]) -> SplitSummary:
    counts = [len(look.points) for look in looks] or [0]
    return SplitSummary(
        split=split,
        images=len(looks),
        points=sum(counts),
        least=min(counts),
        mean=float(np.mean(counts)),
        most=max(counts),
        empty=sum(not len(look.points) for look in looks),
        outside=sum(look.outside for look in looks),
        duplicates=sum(look.duplicates for look in looks),
    )


# ---------------------------------------------------------------------------------------------------------------------
# What is concluded


def _compare(dataset: CrowdDataset, listed: list[Entry], looks: list[_Look]) -> tuple[str | None, list[Finding]]:
    """Compares images and points with the published figures; says which release it is."""
    if not dataset.published:
        return None, []
    carved = "val" not in dataset.published[0].images  # our val is a part of the official train
    official = {"val": "train"} if carved else {}
    images: dict[str, int] = {}
    for entry in listed:
        split = official.get(entry.split, entry.split)
        images[split] = images.get(split, 0) + 1
    points = {"all": sum(len(look.points) for look in looks)}
    for look in looks:
        split = official.get(look.entry.split, look.entry.split)
        points[split] = points.get(split, 0) + len(look.points)
    findings = []
    expected = dataset.published[0].images
    if images != expected:
        findings.append(Finding("error", "counts", f"images by split are {images}; published are {expected}"))
    for release in dataset.published:
        if release.points and all(
            abs(points.get(split, 0) - count) <= release.tolerance * count for split, count in release.points.items()
        ):
            message = f"the annotations are those of the release '{release.label}': {points['all']} points"
            return release.label, [*findings, Finding("info", "release", message)]
    known = "; ".join(f"{r.label}: {r.points}" for r in dataset.published if r.points)
    if known:
        message = f"points by split are {points}, of no known release ({known}); figures will not compare with others'"
        findings.append(Finding("warning", "release", message))
    return None, findings


def _order(split: str, looks: list[_Look]) -> list[Finding]:
    """Finds coordinates stored as (y, x): exchanged, far more of them would lie in their images."""
    points = sum(len(look.points) for look in looks)
    as_read = sum(look.outside for look in looks)
    exchanged = sum(_outside(look.points[:, ::-1], look.size) for look in looks)
    if as_read > 0.01 * points and exchanged < 0.2 * as_read:
        message = (
            f"the coordinates of {split} look like (y, x): {as_read} of {points} points lie outside their image "
            f"as they are, {exchanged} with x and y exchanged; write them as x, y"
        )
        return [Finding("error", "order", message, _named(looks, lambda look: look.outside))]
    return []


def _oddities(looks: list[_Look]) -> list[Finding]:
    """Things that a user should know of."""
    tests: list[tuple[Level, str, str, Callable[[_Look], int]]] = [
        (
            "warning",
            "outside",
            "points lie outside their image; they are left out, also of the counts",
            lambda look: look.outside,
        ),
        ("info", "duplicates", "points repeat another one exactly; they are kept", lambda look: look.duplicates),
        ("info", "empty", "images without people", lambda look: int(not len(look.points))),
        (
            "warning",
            "exif",
            "images ask to be turned by an EXIF tag, which is ignored: look at the overlay",
            lambda look: int(look.rotated),
        ),
        ("warning", "boxes", "head boxes do not hold their point", _strayed),
    ]
    findings = []
    for level, what, text, measure in tests:
        total, concerned = sum(measure(look) for look in looks), sum(bool(measure(look)) for look in looks)
        if total:
            findings.append(Finding(level, what, f"{total} {text} ({concerned} images)", _named(looks, measure)))
    return findings


def _strayed(look: _Look) -> int:
    """Boxes that do not hold their point; a pixel of rounding is forgiven."""
    if look.boxes is None:
        return 0
    held = (look.points >= look.boxes[:, :2] - 1) & (look.points <= look.boxes[:, 2:] + 1)
    return int((~held.all(axis=1)).sum())


def _named(looks: list[_Look], measure: Callable[[_Look], int]) -> tuple[str, ...]:
    """The images that a finding concerns most."""
    concerned = sorted((look for look in looks if measure(look)), key=measure, reverse=True)
    return tuple(look.name for look in concerned[:_MOST_NAMED])


# ---------------------------------------------------------------------------------------------------------------------
# The picture


def _tile(dataset: CrowdDataset, annotated: tuple[Entry, Annotation], width: int) -> Image.Image:
    """One image at `width` pixels with its points and a line of text."""
    entry, annotation = annotated
    image = dataset.read_image(entry)
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    tile = Image.fromarray(resize_image(image, (height, width)))
    draw = ImageDraw.Draw(tile)
    radius = max(1.5, width / 320)
    for x, y in annotation.points * (width / image.shape[1]):
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(255, 40, 40), outline=(255, 255, 255))
    text = f"{entry.split}/{entry.id}   {len(annotation.points)} people"
    font = ImageFont.load_default(16)
    draw.rectangle([0, 0, draw.textlength(text, font) + 12, 24], fill=(0, 0, 0))
    draw.text((6, 2), text, fill=(255, 255, 255), font=font)
    return tile
