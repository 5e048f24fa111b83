"""Scores of sparse and dense images: the bins hold every image once, and add up to the whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from runners.metrics.density import by_density, spacing
from runners.metrics.localisation import Heads, image_points, parse_radii, pooled

RADII = parse_radii(["3", "9"])


class Found:
    def __init__(self, points: np.ndarray) -> None:
        self.points, self.scores = points, None


def rows_of(sizes: list[int], seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for place, n in enumerate(sizes):
        true = rng.uniform(0, 200, (n, 2))
        found = np.concatenate([true[: n // 2] + rng.normal(0, 3, (n // 2, 2)), rng.uniform(0, 200, (n // 4, 2))])
        rows.append(image_points(str(place), Heads(true), Found(found), RADII))
    return pd.DataFrame(rows)


def test_spacing_is_the_mean_nearest_distance() -> None:
    rng = np.random.default_rng(1)
    heads = rng.uniform(0, 50, (30, 2))
    apart = np.linalg.norm(heads[:, None] - heads[None], axis=2) + np.diag(np.full(30, np.inf))
    assert spacing(heads) == pytest.approx(apart.min(axis=1).mean())
    assert spacing(np.array([[1.0, 1.0], [1.0, 1.0]])) == 0.0
    assert np.isnan(spacing(heads[:1]))


def test_bins_add_up() -> None:
    rows = rows_of([0, 1, 3, 40, 90, 100, 101, 250, 400, 600, 30, 20, 0])
    found = by_density(rows, ["3px", "9px"])
    peopled = rows[rows["true"] > 0]
    for axis, images in (("people", peopled), ("spacing", peopled[peopled["true"] > 1])):
        for name in ("3px", "9px"):
            part = found[(found["axis"] == axis) & (found["radius"] == name)]
            assert part["images"].sum() == len(images)
            assert part["true"].sum() == images["true"].sum()
            assert (part["recall"] * part["true"]).sum() == pytest.approx(pooled(images, name)["tp"])
            assert (part["low"] <= part["high"]).all()
    people = found[(found["axis"] == "people") & (found["radius"] == "9px")]
    assert people["bin"].tolist() == ["1–100", "101–500", "501–5000"]
    assert people["images"].tolist() == [7, 3, 1]
    assert people[["low", "high"]].to_numpy().tolist() == [[1, 100], [101, 400], [600, 600]]
    known = found["f1_low"].notna()
    assert (known == (found["images"] >= 5)).all()
    assert ((found["f1_low"] <= found["f1"]) & (found["f1"] <= found["f1_high"]))[known].all()


def test_the_interval_covers_what_other_images_would_give() -> None:
    """Of 100 sets of 30 images about 95 intervals hold the F1 of very many images (binomial: at least 86)."""
    sizes = np.random.default_rng(9).integers(5, 60, 1500).tolist()
    many = rows_of(sizes, seed=3)
    truth = pooled(many, "9px")["f1"]
    held = 0
    for seed in range(100):
        part = many.sample(30, random_state=seed)
        bins = by_density(part, ["9px"], resamples=300, seed=seed)
        held += bool((bins["f1_low"].iloc[0] <= truth) & (truth <= bins["f1_high"].iloc[0]))
    assert 86 <= held <= 100


def test_equal_spacings_share_a_bin_and_nothing_is_fine() -> None:
    same = pd.concat([rows_of([12])] * 4, ignore_index=True)
    found = by_density(same, ["3px"])
    assert found[found["axis"] == "spacing"]["images"].tolist() == [4]
    assert by_density(rows_of([0, 0]), ["3px"]).empty
    assert by_density(rows_of([1]), ["3px"])["axis"].tolist() == ["people"]
