"""ShanghaiTech part A: 482 pictures from the web, dense."""

from __future__ import annotations

from runners.data.datasets._shanghaitech import ShanghaiTech, folder_names
from runners.data.datasets.base import Published

__all__ = ["ShanghaiTechA"]


class ShanghaiTechA(ShanghaiTech):
    """300 training and 182 test images; 6 have a side below 256 pixels, 20 are grey."""

    title = "ShanghaiTech part A"
    part = "a"
    train_images = 300
    folders = folder_names("a")
    published = (
        Published("November 2016", {"train": 300, "test": 182}, {"train": 162_413, "test": 78_862}),
        Published("other release", {"train": 300, "test": 182}, {"all": 241_677}),
    )
