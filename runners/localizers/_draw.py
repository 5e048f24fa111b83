"""Pixels of an upsampled density drawn without replacement, as the initial points of OT-M."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["drawn_pixels", "upsampled_bands"]

_BAND = 1 << 18
"""About how many pixels are held at once. Part of what a seed means."""

Array = NDArray[np.float64]


def upsampled_bands(density: Array, stride: int, size: tuple[int, int]) -> Iterator[tuple[int, Array]]:
    """The density upsampled bilinearly to pixels, in bands of rows: first row, and [k, W].

    Pixel p lies at (p + 0.5) / stride - 0.5 in cells; beyond the centres of the outermost cells it has their value.

    Args:
        density: [h, w].
        stride: Pixels per cell.
        size: (H, W), at most (h stride, w stride): pixels beyond are left out.
    """
    height, width = size
    low, high, share = _between(np.arange(width), stride, density.shape[1])
    step = max(1, _BAND // width)
    for start in range(0, height, step):
        up, down, below = _between(np.arange(start, min(start + step, height)), stride, density.shape[0])
        rows = density[up] * (1 - below)[:, None] + density[down] * below[:, None]
        yield start, rows.take(low, axis=1) * (1 - share) + rows.take(high, axis=1) * share


def _between(pixels: NDArray[np.int64], stride: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The two cells on either side of each pixel, and the share of the second."""
    place = np.clip((pixels + 0.5) / stride - 0.5, 0, cells - 1)
    low = np.floor(place).astype(np.int64)
    return low, np.minimum(low + 1, cells - 1), place - low


def drawn_pixels(
    density: Array, stride: int, size: tuple[int, int], count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draws pixels one after another without replacement, each with probability ~ the upsampled density.

    By the keys of Efraimidis and Spirakis (2006): E / weight with E exponential; the smallest `count` keys are such a
    draw. Band by band, so that memory is O(count) beside one band. Where fewer pixels than `count` have a positive
    weight the draw is with replacement instead.

    Returns:
        [count, 2] as (x, y), whole pixels, in the order of the draw.
    """
    keys, places, weights = np.empty(0), np.empty(0, np.int64), np.empty(0)
    for first, band in upsampled_bands(density, stride, size):
        flat = band.ravel()
        new = generator.standard_exponential(len(flat))
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            new /= flat
        some = np.argpartition(new, count - 1)[:count] if count < len(new) else np.arange(len(new))
        some = some[flat[some] > 0]
        keys = np.concatenate([keys, new[some]])
        places = np.concatenate([places, some + first * size[1]])
        weights = np.concatenate([weights, flat[some]])
        if len(keys) > count:
            smallest = np.argpartition(keys, count - 1)[:count]
            keys, places, weights = keys[smallest], places[smallest], weights[smallest]
    if len(keys) < count:
        chosen = generator.choice(places, size=count, p=weights / weights.sum())
    else:
        chosen = places[np.lexsort((places, keys))]
    return np.stack([chosen % size[1], chosen // size[1]], axis=1)
