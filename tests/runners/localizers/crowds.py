"""Densities for the tests of OT-M."""

from __future__ import annotations

import numpy as np

from runners.localizers import _transport


def blobs(cells: tuple[int, int], heads, stride: int, sigma: float) -> np.ndarray:
    """A density with one unit of Gaussian at each head (x, y), pixels."""
    y, x = ((np.arange(side) + 0.5) * stride for side in cells)
    density = np.zeros(cells)
    for head in np.asarray(heads, float):
        bump = np.exp(-((x[None] - head[0]) ** 2 + (y[:, None] - head[1]) ** 2) / (2 * sigma**2))
        density += bump / bump.sum()
    return density


def crowd(cells: tuple[int, int], people: int, seed: int = 0, stride: int = 8) -> np.ndarray:
    """Blobs at random heads with noise, some cells empty, of the sum `people`."""
    generator = np.random.default_rng(seed)
    heads = generator.random((people, 2)) * [cells[1] * stride, cells[0] * stride]
    density = blobs(cells, heads, stride, 6.0)
    density = np.maximum(density + 0.3 * density.mean() * generator.normal(size=cells), 0)
    return density * people / density.sum()


def cells_of(density: np.ndarray, stride: int, count: int) -> _transport.Cells:
    rows, columns = np.nonzero(density > 1e-12)
    centres = (np.stack([columns, rows], 1) + 0.5) * stride
    mass = density[rows, columns]
    return _transport.cells_in_blocks(rows, columns, centres, mass * count / mass.sum(), count)
