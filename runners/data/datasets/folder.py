"""A user's own images: a folder of pictures with points in JSON or CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runners.data.datasets._files import FileDataset, pair
from runners.data.datasets.base import Annotation, Entry, carve
from runners.data.places import child, images_in
from runners.data.reading import DataError, boxes_array, points_array, read_csv, read_json

__all__ = ["Folder"]

_LABEL_FOLDERS = ("annotations", "labels", "points", "gt")
_BOX = ("x1", "y1", "x2", "y2")
_EXPECTED = "<name>.json or <name>.csv beside it or in annotations/, or one points.csv with the columns image,x,y"


class Folder(FileDataset):
    """Splits in `train/`, `val/` and `test/`, or all images in one folder; images directly in it or in `images/`.

    The points of an image lie in one of these, pixels with the origin at the corner, looked for in this order:

    * `<name>.json`, beside the image or in `annotations/` (`labels/`, `points/`, `gt/`): `[[x, y], ...]`, or
      `{"points": [[x, y], ...], "boxes": [[x1, y1, x2, y2], ...]}`, boxes being optional;
    * `<name>.csv` in the same places, with the columns `x,y` and optionally `x1,y1,x2,y2`;
    * `points.csv` (or `annotations.csv`) in the split's folder or above it, with the columns `image,x,y` and optionally
      the box. An image without people has one row with nothing after its name: `empty.jpg,,`.

    Args:
        root: The folder itself.
        test_fraction: Share of the images that tests where there is no `test/`, fixed by their names (ours).
        **params: See `FileDataset`; `val_fraction` applies where there is no `val/`.
    """

    title = "Your own images"
    homepage = "Put images and points into a folder (see `runners/data/datasets/folder.py` for the formats)."

    def __init__(self, root: Path | str | None = None, *, test_fraction: float = 0.2, **params: Any) -> None:
        if not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction must lie in (0, 1); found {test_fraction!r}")
        self.test_fraction = test_fraction
        self._tables: dict[Path, dict[str, Annotation]] = {}
        super().__init__(root, **params)

    @property
    def has_val(self) -> bool:
        """Whether there is a folder `val`."""
        return child(self.folder, "val") is not None

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """By images in the folder itself or in `train`."""
        part = child(folder, "train") or folder
        return bool(images_in(child(part, "images") or part))

    def listing(self, split: str) -> list[Entry]:
        """The images of a split's folder; without such folders, a fixed share of all images is the test part."""
        part = child(self.folder, split)
        if part is not None and (split != "train" or child(self.folder, "test") is not None):
            return self._pairs(part, split)
        every = self._pairs(child(self.folder, "train") or self.folder, split)
        test = carve(self.name, self.people(every), self.test_fraction, purpose="test")
        return [entry for entry in every if (entry.id in test) == (split == "test")]

    def read_annotation(self, entry: Entry) -> Annotation:
        """Points and boxes of one image, from its own file or from the table."""
        path = entry.annotation
        assert path is not None
        if path in self._tables:
            return self._tables[path][entry.id]
        if path.suffix.lower() == ".csv":
            return _from_rows(read_csv(path), path)
        content = read_json(path)
        points, boxes = (content.get("points"), content.get("boxes")) if isinstance(content, dict) else (content, None)
        if not isinstance(points, list):
            raise DataError(f'{path}: expected [[x, y], ...] or {{"points": [[x, y], ...]}}')
        return _annotation(points, boxes, path)

    def _pairs(self, part: Path, split: str) -> list[Entry]:
        """Every image of a folder with the file that holds its points."""
        images = images_in(child(part, "images") or part)
        found: dict[str, Path] = {}
        for folder in (part, self.folder):
            for table in (folder / "points.csv", folder / "annotations.csv"):
                if table.is_file():
                    found = dict.fromkeys(self._table(table), table) | found
        places = [part, child(part, "images"), *(child(part, name) for name in _LABEL_FOLDERS)]
        for suffix in (".csv", ".json"):  # the JSON file wins
            for place in filter(None, places):
                found |= {f.stem: f for f in place.glob(f"*{suffix}") if f not in self._tables}
        return pair(images, found, split, _EXPECTED)

    def _table(self, path: Path) -> dict[str, Annotation]:
        """The table of all images, by the images' names without folder and ending."""
        if path not in self._tables:
            rows: dict[str, list[dict[str, str]]] = {}
            for row in read_csv(path, ("image", "x", "y")):
                rows.setdefault(Path(row["image"]).stem, []).append(row)
            self._tables[path] = {name: _from_rows(group, path) for name, group in rows.items()}
        return self._tables[path]


def _from_rows(rows: list[dict[str, str]], path: Path) -> Annotation:
    """Points and boxes of one image from CSV rows; rows without coordinates say that there is nobody."""
    heads = [row for row in rows if row["x"] or row["y"]]
    boxes = [[head[side] for side in _BOX] for head in heads] if heads and set(_BOX) <= heads[0].keys() else None
    return _annotation([[head["x"], head["y"]] for head in heads], boxes, path)


def _annotation(points: Any, boxes: Any, path: Path) -> Annotation:
    """Checked arrays; as many boxes as points."""
    located = points_array(points, path)
    framed = None if boxes is None else boxes_array(boxes, path)
    if framed is not None and len(framed) != len(located):
        raise DataError(f"{path}: {len(framed)} boxes for {len(located)} points; expected one each, or no boxes")
    return Annotation(located, framed)
