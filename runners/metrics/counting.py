"""Counting errors from per-image rows. Numpy only.

With predicted counts p_k and true counts g_k of K images:

* MAE = mean |p - g|; RMSE = sqrt(mean (p - g)^2), which the literature prints as "MSE"; bias = mean (p - g).
* NAE = mean |p - g| / g over the images with people.
* GAME(L) = mean over images of the sum of |p_b - g_b| over the 2^L x 2^L equal blocks of an image. GAME(0) = MAE.

Blocks are cut in pixels of the unpadded image; a density cell that straddles an edge is shared out by area, and a
method that gives points has them counted (both ours). The predicted count is the mass inside the unpadded image (ours).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from results.crowds import STORED_WINDOW

__all__ = ["counts", "game", "image_row", "point_games", "point_masses", "summary", "window_edges"]

GAME_LEVELS = (1, 2, 3)

Array = npt.NDArray[np.float64]


def overlaps(cells: int, stride: int, edges: Array) -> Array:
    """Share of each cell of an axis in each block: (blocks, cells), from the length of the overlap.

    Args:
        cells: Cells along the axis; cell i covers [i * stride, (i + 1) * stride).
        stride: Pixels per cell.
        edges: (blocks + 1,) increasing block edges, pixels.
    """
    low = np.arange(cells) * float(stride)
    shared = np.minimum(edges[1:, None], low + stride) - np.maximum(edges[:-1, None], low)
    return np.clip(shared, 0.0, None) / stride


def density_masses(density: Array, stride: int, rows: Array, columns: Array) -> Array:
    """Mass of a density map (h, w) in each block of a grid: (len(rows) - 1, len(columns) - 1)."""
    height, width = density.shape
    return overlaps(height, stride, rows) @ density.astype(np.float64) @ overlaps(width, stride, columns).T


def point_masses(points: Array, rows: Array, columns: Array) -> Array:
    """Number of points (n, 2), (x, y), in each block; points on the last edge belong to the last block."""
    return np.histogram2d(points[:, 1], points[:, 0], bins=(rows, columns))[0]


def window_edges(side: int, window: int = STORED_WINDOW) -> Array:
    """Edges 0, 64, 128, ... and the image's own end, pixels."""
    return np.append(np.arange(0.0, side, window), float(side))


def game(predicted: Array, true: Array) -> float:
    """Sum over the blocks of one image of the absolute difference."""
    return float(np.abs(predicted - true).sum())


def image_row(
    image_id: str,
    true: Array,
    size: tuple[int, int],
    *,
    density: Array | None = None,
    stride: int = 1,
    points: Array | None = None,
) -> dict[str, object]:
    """Everything kept about one image: counts, GAME, and mass and count in 64-px windows.

    Args:
        image_id: The image's name in its dataset.
        true: (n, 2) annotated heads as (x, y) inside the unpadded input, pixels.
        size: (H, W) of the unpadded input, pixels.
        density: (h, w) predicted people per cell, or
        points: (m, 2) predicted heads.
        stride: Pixels per density cell.

    Returns:
        `id, height, width, true, predicted, game1..3, window_rows, mass, people`, the last two flattened by rows.

    Raises:
        ValueError: Unless exactly one of density and points is given.
    """
    if (density is None) == (points is None):
        raise ValueError("image_row needs either a density map or predicted points, and not both")
    height, width = size

    def predicted(rows: Array, columns: Array) -> Array:
        if density is not None:
            return density_masses(density, stride, rows, columns)
        assert points is not None
        return point_masses(points, rows, columns)

    games = {}
    for level in GAME_LEVELS:
        rows, columns = (np.linspace(0.0, side, 2**level + 1) for side in size)
        games[f"game{level}"] = game(predicted(rows, columns), point_masses(true, rows, columns))
    rows, columns = window_edges(height), window_edges(width)
    mass, people = predicted(rows, columns), point_masses(true, rows, columns)
    return {
        "id": image_id,
        "height": height,
        "width": width,
        "true": len(true),
        "predicted": float(mass.sum()),
        **games,
        "window_rows": len(rows) - 1,
        "mass": mass.astype(np.float32).ravel(),
        "people": people.astype(np.int32).ravel(),
    }


def point_games(true: Array, points: Array, size: tuple[int, int]) -> dict[str, float]:
    """GAME(1) to GAME(3) of one image whose people are predicted as points.

    Args:
        true: (n, 2) annotated heads, (x, y), pixels.
        points: (m, 2) predicted people.
        size: (H, W) of the image, pixels.
    """
    found = {}
    for level in GAME_LEVELS:
        rows, columns = (np.linspace(0.0, side, 2**level + 1) for side in size)
        found[f"game{level}"] = game(point_masses(points, rows, columns), point_masses(true, rows, columns))
    return found


def counts(predicted: Array, true: Array) -> dict[str, float | None]:
    """MAE, RMSE, NAE and bias of predicted against true counts, each of shape (K,); NAE is None without people."""
    error, peopled = predicted - true, true > 0
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "nae": float((np.abs(error[peopled]) / true[peopled]).mean()) if peopled.any() else None,
        "bias": float(error.mean()),
    }


def summary(images: pd.DataFrame) -> dict[str, float | None]:
    """All metrics over the rows of `image_row`.

    Raises:
        ValueError: If there are no rows.
    """
    if images.empty:
        raise ValueError("no images to evaluate: the split is empty")
    found = counts(images["predicted"].to_numpy(float), images["true"].to_numpy(float))
    return found | {f"game{level}": float(images[f"game{level}"].mean()) for level in GAME_LEVELS}


def constant(count: float, true: Sequence[float]) -> dict[str, float | None]:
    """The metrics of predicting the same count for every image: what any network must beat."""
    truth = np.asarray(true, float)
    return counts(np.full_like(truth, count), truth)
