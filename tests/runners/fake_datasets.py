"""Writes small datasets in the layouts of the real ones, with known pixels and points."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image


def write_image(path: Path, size: tuple[int, int] = (48, 64), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def some_points(count: int, size: tuple[int, int] = (48, 64), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + 1000).uniform(0, size[::-1], (count, 2))


def write_mat(path: Path, **variables: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables, do_compression=True)


def image_info(points: np.ndarray) -> np.ndarray:
    """The nested structure of ShanghaiTech: a cell that holds a structure with location and number."""
    info = np.empty((1, 1), dtype=object)
    info[0, 0] = {"location": points, "number": np.uint8(len(points) % 256)}
    return info


def shanghaitech(folder: Path, counts: dict[str, list[int]], truth: str = "ground-truth") -> Path:
    for split, numbers in counts.items():
        for n, count in enumerate(numbers, start=1):
            part = folder / f"{split}_data"
            write_image(part / "images" / f"IMG_{n}.jpg", seed=n)
            write_mat(part / truth / f"GT_IMG_{n}.mat", image_info=image_info(some_points(count, seed=n)))
    return folder


def qnrf(folder: Path, counts: dict[str, list[int]]) -> Path:
    for split, numbers in counts.items():
        for n, count in enumerate(numbers, start=1):
            write_image(folder / split / f"img_{n:04d}.jpg", seed=n)
            write_mat(folder / split / f"img_{n:04d}_ann.mat", annPoints=some_points(count, seed=n))
    return folder


def ucf_cc_50(folder: Path) -> Path:
    for n in range(1, 51):
        write_image(folder / f"{n}.jpg", (6, 8), seed=n)
        write_mat(folder / f"{n}_ann.mat", annPoints=some_points(n, (6, 8), seed=n))
    return folder


def jhu(folder: Path, counts: dict[str, list[int]]) -> Path:
    for split, numbers in counts.items():
        for n, count in enumerate(numbers, start=1):
            write_image(folder / split / "images" / f"{n:04d}.jpg", seed=n)
            truth = folder / split / "gt" / f"{n:04d}.txt"
            truth.parent.mkdir(parents=True, exist_ok=True)
            truth.write_text("".join(f"{5 + i} {7 + i} 4 6 1 0 \n" for i in range(count)))
    return folder


def nwpu(folder: Path, counts: dict[str, dict[str, int]], *, parts: bool = False, mats: bool = False) -> Path:
    """`counts` has the official parts train, val and test, each with a count by id."""
    for part, numbers in counts.items():
        for k, (name, count) in enumerate(numbers.items()):
            write_image(folder / (f"images_part{k % 5 + 1}" if parts else "images") / f"{name}.jpg", seed=int(name))
            if part == "test":
                continue
            points = some_points(count, seed=int(name))
            boxes = np.concatenate([points - 2, points + 3], axis=1)
            if mats:
                write_mat(folder / "mats" / f"{name}.mat", annPoints=points, annBoxes=boxes)
            else:
                label = folder / "jsons" / f"{name}.json"
                label.parent.mkdir(parents=True, exist_ok=True)
                content = {"img_id": f"{name}.jpg", "human_num": count}
                label.write_text(json.dumps({**content, "points": points.tolist(), "boxes": boxes.tolist()}))
        lines = [f"{name} 1 2\n" if part != "test" else f"{name}\n" for name in numbers]
        (folder / f"{part}.txt").write_text("".join(lines))
    return folder
