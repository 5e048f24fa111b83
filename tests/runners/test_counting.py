from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.metrics.counting import constant, counts, density_masses, image_row, summary


def by_pixels(density: np.ndarray, stride: int, edges_y: np.ndarray, edges_x: np.ndarray) -> np.ndarray:
    """Blocks of a density that is first spread evenly over its pixels; edges at whole pixels."""
    fine = np.kron(density, np.full((stride, stride), 1 / stride**2))
    return np.array(
        [[fine[int(a) : int(b), int(c) : int(d)].sum() for c, d in pairwise(edges_x)]
         for a, b in pairwise(edges_y)]
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 4, 8, 16]))
def test_masses_are_shared_by_area(seed: int, stride: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 9, 2)
    density = rng.random((height, width))
    edges_y, edges_x = (
        np.unique(np.concatenate([[0, side * stride], rng.integers(0, side * stride + 1, 3)]))
        for side in (height, width)
    )
    found = density_masses(density, stride, edges_y.astype(float), edges_x.astype(float))
    np.testing.assert_allclose(found, by_pixels(density, stride, edges_y, edges_x), atol=1e-12)


def test_game_of_a_known_case() -> None:
    """Two people left, none right; predicted the other way round: the count is right, every place wrong."""
    true = np.array([[10.0, 10.0], [10.0, 50.0]])
    density = np.zeros((8, 8))
    density[1, 6] = density[6, 6] = 1.0
    row = image_row("a", true, (64, 64), density=density, stride=8)
    assert (row["true"], row["predicted"]) == (2, 2.0)
    assert [row[f"game{level}"] for level in (1, 2, 3)] == [4.0, 4.0, 4.0]


def test_padding_is_not_counted() -> None:
    row = image_row("a", np.zeros((0, 2)), (40, 50), density=np.ones((8, 8)), stride=8)
    assert row["predicted"] == pytest.approx(40 * 50 / 64)
    assert row["game1"] == pytest.approx(40 * 50 / 64)


def test_windows_add_up_and_points_have_one_window() -> None:
    rng = np.random.default_rng(0)
    true, found = rng.uniform(0, [200, 130], (37, 2)), rng.uniform(0, [200, 130], (21, 2))
    row = image_row("a", true, (130, 200), points=found)
    assert row["window_rows"] == 3
    people, mass = np.reshape(row["people"], (3, 4)), np.reshape(row["mass"], (3, 4))
    assert people.sum() == 37
    assert mass.sum() == row["predicted"] == 21
    inside = (true[:, 0] >= 64) & (true[:, 0] < 128) & (true[:, 1] >= 0) & (true[:, 1] < 64)
    assert people[0, 1] == inside.sum()


def test_metrics_of_known_errors() -> None:
    found = counts(np.array([12.0, 7.0, 3.0]), np.array([10.0, 10.0, 0.0]))
    assert found["mae"] == pytest.approx(8 / 3)
    assert found["rmse"] == pytest.approx(np.sqrt((4 + 9 + 9) / 3))
    assert found["bias"] == pytest.approx(2 / 3)
    assert found["nae"] == pytest.approx((0.2 + 0.3) / 2)  # the empty image is left out
    assert counts(np.array([1.0]), np.array([0.0]))["nae"] is None


def test_constant_is_what_its_name_says() -> None:
    assert constant(5.0, [3.0, 9.0]) == counts(np.array([5.0, 5.0]), np.array([3.0, 9.0]))


def test_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        summary(pd.DataFrame())
    with pytest.raises(ValueError, match="either a density map or predicted points"):
        image_row("a", np.zeros((0, 2)), (8, 8))
