"""Windows of images from the stored 64-pixel sums: what lies where, without the weights and without the images.

A window of W pixels, a multiple of 64, is the sum of the stored windows in it. Windows do not overlap and start at the
image's upper left corner; those at the right and the lower border are smaller, and are kept. An image smaller than W is
one window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.density import Units
from reports.measured import Measured
from reports.protocol import MixedProtocolError
from results.store import Store

__all__ = ["COLUMNS", "STORED", "WINDOW", "Windows", "check_window", "summed"]

STORED = 64
"""Side of the windows that a store keeps, pixels (`runners.metrics.counting.WINDOW`)."""
WINDOW = 512
"""Side of the windows of a report, pixels (ours)."""
COLUMNS = ("id", "window_rows", "mass", "people")
"""What is read of each image."""


class _Image(NamedTuple):
    """Predicted and true people of each window of an image."""

    predicted: npt.NDArray[np.float32]
    true: npt.NDArray[np.float32]


class Windows:
    """Predicted and true people in the windows of some evaluations.

    Args:
        window: Side, pixels.
        known: By (run, evaluation) the images by id.
    """

    def __init__(self, window: int, known: Mapping[tuple[str, str], Mapping[str, _Image]]) -> None:
        self.window, self._known = window, dict(known)

    @classmethod
    def of(cls, store: Store, measured: Measured, window: int = WINDOW, problems: list[str] | None = None) -> Windows:
        """Reads the windows of a store, one evaluation at a time; see `Store.images` for `problems`.

        Raises:
            ValueError: If the side is no multiple of 64.
        """
        check_window(window)
        rows = measured.evaluated
        known = {}
        for pair in zip(rows["run_id"].astype(str), rows["eval_id"].astype(str), strict=True):
            found = store.images([pair], COLUMNS, problems)
            if len(found):
                known[pair] = _images(found, window)
        return cls(window, known)

    @classmethod
    def of_frame(cls, images: pd.DataFrame, window: int = WINDOW) -> Windows:
        """The same of `Store.images` with `COLUMNS`.

        Raises:
            ValueError: If the side is no multiple of 64.
        """
        check_window(window)
        groups = images.groupby(["run_id", "eval_id"], sort=False)
        return cls(window, {(str(run), str(one)): _images(rows, window) for (run, one), rows in groups})

    @classmethod
    def merged(cls, window: int, parts: Iterable[Windows]) -> Windows:
        """Those of several stores or studies, all of this side."""
        return cls(window, {key: images for part in parts for key, images in part._known.items()})

    def __len__(self) -> int:
        return len(self._known)

    def has(self, rows: pd.DataFrame) -> pd.Series:
        """Whether the windows of each row of `Measured.evaluated` are known."""
        return pd.Series([key in self._known for key in _keys(rows)], index=rows.index, dtype=bool)

    def whole(self, rows: pd.DataFrame) -> bool:
        """Whether every image of these rows is one window, as far as their windows are known, and some are."""
        images = [image for key in _keys(rows) for image in self._known.get(key, {}).values()]
        return bool(images) and all(len(image.true) == 1 for image in images)

    def units(self, rows: pd.DataFrame) -> Units:
        """The windows of runs that differ in their seed only (`Measured.sample` checks that), image by image.

        Raises:
            MixedProtocolError: If they were measured on other images or windows.
        """
        rows = rows.sort_values("seed")
        found = [self._known[key] for key in _keys(rows)]
        ids = tuple(sorted(found[0]))
        for run_id, each in zip(rows["run_id"], found, strict=True):
            if set(each) != set(ids) or any(not np.array_equal(each[name].true, found[0][name].true) for name in ids):
                raise MixedProtocolError(
                    f"runs {rows['run_id'].iloc[0]} and {run_id} were measured on other images or windows; "
                    "measure both again on one copy of the dataset"
                )
        true = np.concatenate([found[0][name].true for name in ids])
        owner = np.repeat(np.arange(len(ids)), [len(found[0][name].true) for name in ids])
        predicted = np.stack([np.concatenate([each[name].predicted for name in ids]) for each in found])
        seeds = tuple(int(seed) for seed in rows["seed"])
        return Units(predicted, true, owner, ids, seeds, tuple(map(str, rows["run_id"])))


def check_window(window: int) -> None:
    """ValueError unless the side is a multiple of 64, the windows that are stored."""
    if window < STORED or window % STORED:
        raise ValueError(f"a window is a multiple of {STORED} px, as {STORED}, 128 or {WINDOW}; found {window}")


def summed(values: npt.ArrayLike, rows: int, window: int) -> npt.NDArray[np.float64]:
    """The sums of stored windows, flattened by rows, in windows of `window` pixels, flattened by rows.

    Args:
        values: (rows * columns,) of the windows of 64 px of one image.
        rows: Their rows.
        window: Side, pixels, a multiple of 64.
    """
    grid = np.asarray(values, np.float64).reshape(rows, -1)
    for axis in (0, 1):
        grid = np.add.reduceat(grid, np.arange(0, grid.shape[axis], window // STORED), axis=axis)
    return grid.ravel()


def _images(found: pd.DataFrame, window: int) -> dict[str, _Image]:
    columns = (found[name] for name in COLUMNS)
    return {
        str(name): _Image(*(summed(each, rows, window).astype(np.float32) for each in (mass, people)))
        for name, rows, mass, people in zip(*columns, strict=True)
    }


def _keys(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(rows["run_id"].astype(str), rows["eval_id"].astype(str), strict=True))
