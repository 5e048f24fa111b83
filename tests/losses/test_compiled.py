"""Compiled loops beside the same loops in Python, whatever vectors the compiler made of them."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import _chunks
from losses._compiled import compiled


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    points=st.integers(1, 40),
    most=st.integers(0, 9),
    rows=st.integers(1, 9),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_products_have_the_bits_of_the_loops(seed: int, points: int, most: int, rows: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], rng.integers(0, most + 1, points).cumsum()])
    place = rng.integers(0, rows * 4, starts[-1]).astype(np.int32) * 4
    entries = rng.normal(size=(len(place), 4)).astype(dtype)
    cells, people = rng.normal(size=rows * 16).astype(dtype), rng.normal(size=points).astype(dtype)
    for product, factor, like in ((_chunks.to_cells, people, cells), (_chunks.to_points, cells, people)):
        found, expected = np.full_like(like, np.nan), np.full_like(like, np.nan)
        product(starts, place, entries, factor, found)
        product.py_func(starts, place, entries, factor, expected)
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([1, 2, 3, 16]), holes=st.sampled_from([0.0, 0.5, 1.0]))
def test_limits_are_limits(seed: int, size: int, holes: float) -> None:
    """Of g_j - c_ij over the cells of each block, for points in and beside the map."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(2 * size, 3 * size)) * 30 + np.arange(3 * size) * rng.normal() * 20
    g[rng.random(g.shape) < holes] = -np.inf
    side = rng.uniform(0.2, 4)
    limits = _chunks._limits(g, size, side)
    y, x = (np.arange(count) * side + side / 2 for count in g.shape)
    for py, px in rng.uniform(-10, 30, (9, 2)):
        reached = g - (y[:, None] - py) ** 2 - (x - px) ** 2
        for row in range(2):
            for column in range(3):
                largest = reached[row * size : (row + 1) * size, column * size : (column + 1) * size].max()
                limit = _chunks._limit(limits[row, column], row, column, size, side, py, px)
                assert limit >= largest - 1e-9 * (1 + abs(largest)) or largest == -np.inf


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package and a home that cannot be written; numba says so when the function is made."""
    right = numba.njit

    def nowhere(*args: Any, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function 'twice': no locator available for file 'x.py'")
        return right(*args, **options)

    monkeypatch.setattr(numba, "njit", nowhere)

    def twice(value: float) -> float:
        return 2 * value / 0.0

    assert compiled(twice)(3.0) == np.inf
