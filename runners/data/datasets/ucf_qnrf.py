"""UCF-QNRF: 1,535 large pictures from the web, 1.25 million heads."""

from __future__ import annotations

from pathlib import Path

from runners.data.datasets._files import FileDataset, pair
from runners.data.datasets.base import Annotation, Entry, Published, Resize
from runners.data.places import child, images_in
from runners.data.reading import DataError, points_array, read_mat

__all__ = ["UcfQnrf"]


class UcfQnrf(FileDataset):
    """`{Train,Test}/img_NNNN.jpg` beside `img_NNNN_ann.mat` (`annPoints`, N x 2). There is no official val.

    BL and DM-Count share a list of 120 validation images; `val_list=PATH` uses it.
    """

    title = "UCF-QNRF"
    homepage = "Idrees et al., ECCV 2018: https://www.crcv.ucf.edu/data/ucf-qnrf/ offers the download."
    folders = ("ucfqnrfeccv18", "ucfqnrf", "qnrf", "ucfqnrfeccv2018")
    protocol = Resize(short_min=512, short_max=2048, source="BL, DM-Count: shorter side clipped to [512, 2048]")
    radii = ("1:100",)  # the mean over them is what is published for it
    main_radius = "8px"
    published = (Published("2018", {"train": 1201, "test": 334}, {"all": 1_251_642}),)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """By both split folders and one annotation."""
        train = child(folder, "Train")
        return bool(train and child(folder, "Test") and next(train.glob("img_*_ann.mat"), None))

    def listing(self, split: str) -> list[Entry]:
        """Pairs `img_NNNN` with `img_NNNN_ann`."""
        folder = child(self.folder, split)
        if folder is None:
            raise DataError(f"{self.folder}: expected a folder {split.capitalize()}")
        annotations = {file.stem.removesuffix("_ann"): file for file in folder.glob("*_ann.mat")}
        return pair(images_in(folder), annotations, split, f"img_NNNN_ann.mat in {folder}")

    def read_annotation(self, entry: Entry) -> Annotation:
        """`annPoints`, (x, y)."""
        assert entry.annotation is not None
        return Annotation(points_array(read_mat(entry.annotation, "annPoints"), entry.annotation))
