"""ShanghaiTech part B: 716 street pictures from Shanghai, sparse, all 1024 x 768."""

from __future__ import annotations

from runners.data.datasets._shanghaitech import ShanghaiTech, folder_names
from runners.data.datasets.base import Published

__all__ = ["ShanghaiTechB"]


class ShanghaiTechB(ShanghaiTech):
    """400 training and 316 test images."""

    title = "ShanghaiTech part B"
    part = "b"
    train_images = 400
    folders = folder_names("b")
    published = (
        Published("November 2016", {"train": 400, "test": 316}, {"train": 49_151, "test": 39_121}),
        Published("other release", {"train": 400, "test": 316}, {"all": 88_488}),
    )
