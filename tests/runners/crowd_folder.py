"""A tiny crowd on disk: bright blobs on noise, one a person, in the format of the dataset `folder`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image


def crowd_folder(root: Path, images: int = 12, size: int = 96, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    for index in range(images):
        picture = rng.normal(60, 10, (size, size, 3))
        points = rng.uniform(6, size - 6, (int(rng.integers(1, 25)), 2))
        for x, y in points:
            picture += 150 * np.exp(-((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2) / 8)[..., None]
        folder = root / ("train" if index < images * 2 // 3 else "test")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{index:03d}.png")
        (folder / f"{index:03d}.json").write_text(json.dumps(points.tolist()))
    return root
