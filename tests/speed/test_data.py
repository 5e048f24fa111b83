"""How fast crops come from the prepared cache, beside decoding the JPEG each time: `pytest tests/speed/test_data.py`.

Both ways give the same crops. Groups are comparable: the ratio stands in brackets.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runners import data
from runners.data.cache import Prepared, prepare
from runners.data.transforms import TrainCrops

SIZES = {"1024x768": (1024, 768, 12), "4000x3000": (4000, 3000, 3)}


@pytest.fixture(scope="module", params=sorted(SIZES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEGs of noise blurred to about the size of photographs, 300 heads each."""
    width, height, count = SIZES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    rng = np.random.default_rng(0)
    for split, number in (("train", count), ("val", 1), ("test", 1)):
        (root / split).mkdir()
        for place in range(number):
            coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
            coarse.resize((width, height), Image.Resampling.BICUBIC).save(root / split / f"{place}.jpg", quality=90)
            points = rng.uniform(0, (width, height), (300, 2)).round(2).tolist()
            (root / split / f"{place}.json").write_text(json.dumps(points))
    return root


class Decoded(Prepared):
    """The prepared split, but pixels are decoded from the JPEG whenever an image is asked for."""

    def __init__(self, prepared: Prepared, root: Path) -> None:
        self.__dict__.update(prepared.__dict__)
        self._files = [root / "train" / f"{name}.jpg" for name in prepared.ids]

    def image(self, index: int) -> np.ndarray:
        with Image.open(self._files[index]) as image:
            return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("way", ["cache", "decoding"])
def test_crops(benchmark, folder: Path, tmp_path_factory: pytest.TempPathFactory, way: str) -> None:  # type: ignore[no-untyped-def]
    benchmark.group = f"one 256-px crop of each image, {folder.name[:-1]}"
    prepared = prepare(data.build("folder", root=folder), "train", cache_dir=folder / "cache")
    images = prepared if way == "cache" else Decoded(prepared, folder)
    crops, exact = (TrainCrops(each, crop=256, seed=0) for each in (images, prepared))
    found = benchmark.pedantic(lambda: [crops[key] for key in range(len(crops))], rounds=5, warmup_rounds=1)
    benchmark.extra_info["crops_per_second"] = len(crops) / benchmark.stats["median"]
    for key, sample in enumerate(found):
        assert (sample.image.int() - exact[key].image.int()).abs().max() <= 1
