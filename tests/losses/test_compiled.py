"""Compiled loops beside the same loops in Python, whatever vectors the compiler made of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.caching import FunctionCache

from losses.transport import chunks
from losses.transport.compiled import compiled


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
    for product, factor, like in ((chunks.to_cells, people, cells), (chunks.to_points, cells, people)):
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
    limits = chunks._limits(g, size, side)
    y, x = (np.arange(count) * side + side / 2 for count in g.shape)
    for py, px in rng.uniform(-10, 30, (9, 2)):
        reached = g - (y[:, None] - py) ** 2 - (x - px) ** 2
        for row in range(2):
            for column in range(3):
                largest = reached[row * size : (row + 1) * size, column * size : (column + 1) * size].max()
                limit = chunks._limit(limits[row, column], row, column, size, side, py, px)
                assert limit >= largest - 1e-9 * (1 + abs(largest)) or largest == -np.inf


PROGRAM = """
from losses.transport import chunks
import numpy as np
sums = np.empty(1)
chunks.to_points(np.array([0, 1]), np.zeros(1, np.int32), np.ones((1, 4)), np.arange(4.0), sums)
print(sums[0], sum(chunks.to_points.stats.cache_hits.values()))
"""


def run(cache: Path) -> str:
    """The sum, and how often compiled code was found, in a process of its own."""
    root = Path(chunks.__file__).parents[2]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("length", [0, 40])
def test_damaged_code_is_compiled_again(tmp_path: Path, kind: str, length: int) -> None:
    """As a loss of power leaves it: a file that has its name, and not its content."""
    assert run(tmp_path) == "6.0 0"
    assert run(tmp_path) == "6.0 1"
    files = list(tmp_path.rglob(f"*.{kind}"))
    assert files
    for file in files:
        os.truncate(file, length)
    assert run(tmp_path) == "6.0 0"
    assert run(tmp_path) == "6.0 1"


@pytest.mark.parametrize("problem", ["nowhere", "full"])
def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package and a home that cannot be written, of which numba tells when the function is made; and a full disk."""

    def nowhere(self: Any, function: Any) -> None:
        raise RuntimeError("cannot cache function 'twice': no locator available for file 'x.py'")

    def full(self: Any, sig: Any, data: Any) -> None:
        raise OSError(28, "No space left on device")

    name = "__init__" if problem == "nowhere" else "save_overload"
    monkeypatch.setattr(FunctionCache, name, nowhere if problem == "nowhere" else full)

    def twice(value: float) -> float:
        return 2 * value / 0.0

    assert compiled(twice)(3.0) == np.inf
