"""UCF_CC_50: 50 grey pictures of very dense crowds, five-fold cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runners.data.datasets._files import FileDataset, pair
from runners.data.datasets.base import Annotation, Entry, Published
from runners.data.places import images_in
from runners.data.reading import DataError, points_array, read_mat

__all__ = ["UcfCc50"]

FOLDS = 5


class UcfCc50(FileDataset):
    """`<i>.jpg` beside `<i>_ann.mat` (`annPoints`), i = 1..50. Five points lie outside their image.

    Args:
        root: See `FileDataset`.
        fold: Which tenth of images is the test part: fold k tests on images 10 k + 1 to 10 k + 10 (the folds in order
            of number are ours; the authors' folds are not stated).
        **params: See `FileDataset`.
    """

    title = "UCF_CC_50"
    homepage = "Idrees et al., CVPR 2013: https://www.crcv.ucf.edu/data/ucf-cc-50/ offers the download."
    note = "Five folds: run fold 0 to 4 and average."
    folders = ("ucfcc50", "ucfcrowdcountingdataset", "ucfcc", "ucf50")
    published = (Published("2013", {"train": 40, "test": 10}, {}),)

    def __init__(self, root: Path | str | None = None, *, fold: int = 0, **params: Any) -> None:
        if fold not in range(FOLDS):
            raise ValueError(f"fold must be 0 to {FOLDS - 1}; found {fold!r}")
        super().__init__(root, **params)
        self.fold = fold

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """By the first and the last annotation."""
        return (folder / "1_ann.mat").is_file() and (folder / "50_ann.mat").is_file()

    def listing(self, split: str) -> list[Entry]:
        """The ten images of the fold, or the forty others."""
        annotations = {file.stem.removesuffix("_ann"): file for file in self.folder.glob("*_ann.mat")}
        images = [file for file in images_in(self.folder) if file.stem.isdecimal()]
        every = pair(images, annotations, split, f"<i>_ann.mat in {self.folder}")
        if len(every) != 10 * FOLDS:
            raise DataError(f"{self.folder}: {len(every)} images; expected 1.jpg to {10 * FOLDS}.jpg")
        return [entry for entry in every if ((int(entry.id) - 1) // 10 == self.fold) == (split == "test")]

    def read_annotation(self, entry: Entry) -> Annotation:
        """`annPoints`, (x, y)."""
        assert entry.annotation is not None
        return Annotation(points_array(read_mat(entry.annotation, "annPoints"), entry.annotation))
