"""OT-M against its dense formulas: `pytest tests/speed/test_otm.py --benchmark-only`. The aim is a tenth of the time.

The dense formulas run once in float32, as the released code does; ours are in float64. Both do as many rounds. Beyond
64 x 64 cells ours run alone: one dense round of 128 x 128 cells and 5000 people takes a minute.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from runners.localizers.otm import otm
from tests.references import naive_otm

STRIDE = 8


def crowd(cells: int, people: int) -> np.ndarray:
    """Blurred heads with noise, of the sum `people`, on cells x cells."""
    generator = np.random.default_rng(0)
    density = np.zeros((cells, cells))
    np.add.at(density, tuple(generator.integers(0, cells, (2, people))), 1.0)
    density = gaussian_filter(density, 1.0, mode="nearest") + generator.normal(0, 0.01, density.shape) * density.mean()
    density = np.maximum(density, 0)
    return density * people / density.sum()


@pytest.mark.parametrize("people", [30, 300, 2000])
def test_64_cells_against_the_dense_formulas(benchmark, people):
    density = crowd(64, people)
    found = benchmark.pedantic(otm, (density, STRIDE), rounds=3, warmup_rounds=1)
    start = time.perf_counter()
    dense = naive_otm.localise(
        torch.as_tensor(density, dtype=torch.float32), STRIDE, torch.as_tensor(found.initial), rounds=found.iterations
    )
    seconds = time.perf_counter() - start
    error = np.sqrt(((dense.points.double().numpy() - found.points) ** 2).sum(1))
    benchmark.extra_info |= {
        "iterations": found.iterations,
        "dense_seconds": round(seconds, 3),
        "ratio": round(seconds / benchmark.stats.stats.median, 1),
        "median_difference_px": float(np.median(error)),
    }
    print(f"\n64 x 64 cells, {people} people: {benchmark.extra_info}")


@pytest.mark.parametrize("people", [300, 2000, 5000])
def test_128_cells(benchmark, people):
    density = crowd(128, people)
    found = benchmark.pedantic(otm, (density, STRIDE), rounds=1, warmup_rounds=0)
    benchmark.extra_info["iterations"] = found.iterations
    print(f"\n128 x 128 cells, {people} people: {found.iterations} rounds")
