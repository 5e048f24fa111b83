"""How fast localisation is scored, beside a naive evaluator in the same run: `pytest tests/speed --benchmark-only`.

The naive one has a matrix of all distances and pure Python augmenting paths, one after the other. Groups are
comparable: the ratio stands in brackets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runners.metrics.localisation import image_points
from runners.metrics.matching import gains, match, matched_counts
from runners.metrics.point_files import read_predictions, read_truth
from runners.metrics.point_ids import pair
from runners.metrics.radii import Radius

RADII = (Radius("sigma_s"), Radius("sigma_l"))
Images = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def naive_count(true: np.ndarray, predicted: np.ndarray, radius: np.ndarray) -> int:
    """The size of a maximum matching, by a matrix of distances and depth-first augmenting paths."""
    if not len(true) or not len(predicted):
        return 0
    distance = np.sqrt(((true[:, None] - predicted[None]) ** 2).sum(axis=2))
    near = [np.flatnonzero(row).tolist() for row in distance <= radius[:, None]]
    owner = [-1] * len(predicted)

    def augment(head: int, seen: bytearray) -> bool:
        for one in near[head]:
            if not seen[one]:
                seen[one] = 1
                if owner[one] < 0 or augment(owner[one], seen):
                    owner[one] = head
                    return True
        return False

    return sum(augment(head, bytearray(len(predicted))) for head in range(len(true)))


def naive(images: Images) -> list[int]:
    """True positives of all images at both radii."""
    return [sum(naive_count(true, found, sigmas[:, k]) for true, found, sigmas in images) for k in (0, 1)]


def ours(images: Images) -> list[int]:
    """The same by what the benchmark uses."""
    sizes = [matched_counts(true, found, [sigmas[:, 0], sigmas[:, 1]]) for true, found, sigmas in images]
    return [sum(size[k] for size in sizes) for k in (0, 1)]


def crowd(people: int, seed: int = 0, side: float = 1000.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heads, predictions (four fifths of them near a head), and sigmas that grow downwards."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, side, (people, 2))
    found = np.concatenate([true + rng.normal(0, 5, true.shape), rng.uniform(0, side, (people // 4, 2))])
    small = 2 + 18 * true[:, 1] / side
    return true, rng.permutation(found)[:people], np.stack([small, 1.45 * small], axis=1)


@pytest.mark.parametrize("evaluator", [ours, naive])
@pytest.mark.benchmark(group="twenty images of 400 people, two radii")
def test_images(benchmark, evaluator: Callable[[Images], list[int]]) -> None:
    images = [crowd(400, seed) for seed in range(20)]
    found = benchmark.pedantic(evaluator, args=(images,), rounds=3, iterations=1)
    assert found == ours(images)


@pytest.mark.parametrize("evaluator", [ours, naive])
@pytest.mark.benchmark(group="one image of 5000 people, two radii")
def test_a_large_image(benchmark, evaluator: Callable[[Images], list[int]]) -> None:
    images = [crowd(5000)]
    found = benchmark.pedantic(evaluator, args=(images,), rounds=1, iterations=1)
    assert found == ours(images)


@pytest.mark.shared
@pytest.mark.parametrize("evaluator", ["ours", "naive"])
@pytest.mark.benchmark(group="NWPU-val, 500 images, 196238 heads, 161159 predictions, two radii; ours with reading")
def test_the_whole_of_nwpu_val(benchmark, shared_dir: Path, evaluator: str) -> None:
    folder = shared_dir / "data" / "localisation" / "nwpu_val"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    files = folder / "val_gt_loc.txt", folder / "Raz_loc_val_0.5.txt"

    def images() -> Images:
        pairs = pair(read_truth(files[0]), read_predictions(files[1]))
        return [(one.heads.points, one.predicted.points, one.heads.sigmas) for one in pairs]

    if evaluator == "ours":
        found = benchmark.pedantic(lambda: ours(images()), rounds=3, iterations=1)
    else:
        found = benchmark.pedantic(naive, args=(images(),), rounds=1, iterations=1)
    assert found == [97_432, 111_668]


@pytest.mark.shared
def test_nwpu_val_with_pairs_and_levels(benchmark, shared_dir: Path) -> None:
    folder = shared_dir / "data" / "localisation" / "nwpu_val"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    pairs = pair(read_truth(folder / "val_gt_loc.txt"), read_predictions(folder / "Raz_loc_val_0.5.txt"))
    benchmark.pedantic(lambda: [image_points(p.id, p.heads, p.predicted, RADII) for p in pairs], rounds=3, iterations=1)


@pytest.mark.parametrize("radius", [8.0, 20.0])
def test_pairs_of_a_crowd(benchmark, radius: float) -> None:
    true, found, _ = crowd(5000)
    benchmark(match, true, found, radius)


@pytest.mark.parametrize("radius", [8.0, 20.0])
def test_every_threshold_on_the_score(benchmark, radius: float) -> None:
    true, found, _ = crowd(5000)
    benchmark(gains, true, found, np.random.default_rng(1).random(len(found)), radius)


def test_a_hundred_radii(benchmark) -> None:
    true, found, _ = crowd(5000)
    radii = [float(radius) for radius in range(1, 101)]
    sizes = benchmark.pedantic(matched_counts, args=(true, found, radii), rounds=1, iterations=1)
    assert sizes == sorted(sizes)
