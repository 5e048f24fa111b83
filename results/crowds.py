"""How crowded images and their windows are: levels, quantiles, spacing. For who measures and for who reports."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

__all__ = ["LEAST_IMAGES", "SCENE_BOUNDS", "STORED_WINDOW", "nearest", "quantiles"]

SCENE_BOUNDS = (0, 100, 500, 5000)
"""Most people in an image of the scene levels S0 to S3 of NWPU-Crowd; S4 has more."""
LEAST_IMAGES = 5
"""Images of a bin below which no interval is given (ours)."""
STORED_WINDOW = 64
"""Side of the windows whose mass and people a store keeps for every image, pixels of the prepared image (ours)."""


def nearest(points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The distance of each point to the nearest other, (n,), in the unit of the points; NaN for a lone one.

    Args:
        points: (n, 2).
    """
    found = np.asarray(points, float).reshape(-1, 2)
    if len(found) < 2:
        return np.full(len(found), np.nan)
    distances, _ = cKDTree(found).query(found, k=[2])
    return np.asarray(distances, float)[:, 0]


def quantiles(values: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """The bin of each value, from 0: edges are values that occur, so that no bin is empty; equal values share one.

    Args:
        values: (n,), finite.
        count: Number of bins of about equally many values.

    Raises:
        ValueError: If there is no value, or `count` is below 1.
    """
    found = np.asarray(values, float)
    if count < 1 or not len(found):
        raise ValueError(f"found {count} bins of {len(found)} values; expected at least 1 of each")
    edges = np.unique(np.quantile(found, np.linspace(0, 1, count + 1), method="inverted_cdf"))
    return np.searchsorted(edges[1:-1], found, side="right")
