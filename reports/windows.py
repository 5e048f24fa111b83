"""Windows of images from the stored 64-pixel sums: what lies where, without the weights and without the images.

A window of W pixels, a multiple of 64, is the sum of the stored windows in it. Windows do not overlap and start at the
image's upper left corner; those at the right and the lower border are smaller, and are kept. An image smaller than W is
one window.

Heads lie in the window that their place divided by W says; one on the right or the lower border of the image, in the
last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.measured import Measured
from reports.protocol import MixedProtocolError
from reports.units import Units
from results.crowds import STORED_WINDOW, nearest
from results.store import Store

__all__ = ["COLUMNS", "WINDOW", "KeptWindows", "Windows", "check_window", "places", "summed"]

WINDOW = 512
"""Side of the windows of a report, pixels (ours)."""
COLUMNS = ("id", "window_rows", "mass", "people")
"""What is read of each image."""
_AT_ONCE = 64
"""Evaluations whose windows are read at once (ours)."""


class _Image(NamedTuple):
    """Predicted and true people of each window of an image, by rows, and the number of those rows."""

    predicted: npt.NDArray[np.float32]
    true: npt.NDArray[np.float32]
    rows: int


class HasTrue(Protocol):
    """What is in the windows of an image, by rows."""

    @property
    def true(self) -> npt.NDArray[np.floating[Any]]:
        """True people of each window."""
        ...


_Kept = TypeVar("_Kept", bound=HasTrue)


class KeptWindows(Generic[_Kept]):
    """What is in the windows of the images of some measurements.

    Args:
        window: Side, pixels.
        known: By (run, measurement) the images by id.
    """

    def __init__(self, window: int, known: Mapping[tuple[str, str], Mapping[str, _Kept]]) -> None:
        self.window, self._known = window, dict(known)

    def __len__(self) -> int:
        return len(self._known)

    def has(self, rows: pd.DataFrame) -> pd.Series:
        """Whether the windows of each row, a run and a measurement, are known."""
        return pd.Series([key in self._known for key in _keys(rows)], index=rows.index, dtype=bool)

    def whole(self, rows: pd.DataFrame) -> bool:
        """Whether every image of these rows is one window, as far as their windows are known, and some are."""
        images = [image for key in _keys(rows) for image in self._known.get(key, {}).values()]
        return bool(images) and all(len(image.true) == 1 for image in images)

    def _aligned(self, rows: pd.DataFrame) -> tuple[tuple[str, ...], list[list[_Kept]], npt.NDArray[np.int64]]:
        """Of rows that differ in their seed only: ids, each row's images in their order, each window's image's place.

        Raises:
            MixedProtocolError: If they were measured on other images or windows.
        """
        found = [self._known[key] for key in _keys(rows)]
        ids = tuple(sorted(found[0]))
        for run_id, each in zip(rows["run_id"], found, strict=True):
            if set(each) != set(ids) or any(not np.array_equal(each[name].true, found[0][name].true) for name in ids):
                raise MixedProtocolError(
                    f"runs {rows['run_id'].iloc[0]} and {run_id} were measured on other images or windows; "
                    "measure both again on one copy of the dataset"
                )
        owner = np.repeat(np.arange(len(ids)), [len(found[0][name].true) for name in ids])
        return ids, [[each[name] for name in ids] for each in found], owner


class Windows(KeptWindows[_Image]):
    """Predicted and true people in the windows of some evaluations."""

    @classmethod
    def of(cls, store: Store, measured: Measured, window: int = WINDOW, problems: list[str] | None = None) -> Windows:
        """Reads the windows of a store, some evaluations at a time; see `Store.images` for `problems`.

        Raises:
            ValueError: If the side is no multiple of 64.
        """
        check_window(window)
        rows = measured.evaluated
        pairs = list(zip(rows["run_id"].astype(str), rows["eval_id"].astype(str), strict=True))
        parts = [pairs[start : start + _AT_ONCE] for start in range(0, len(pairs), _AT_ONCE)]
        return cls.merged(window, (cls.of_frame(store.images(part, COLUMNS, problems), window) for part in parts))

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

    def units(self, rows: pd.DataFrame) -> Units:
        """The windows of runs that differ in their seed only (`Measured.sample` checks that), image by image.

        Raises:
            MixedProtocolError: If they were measured on other images or windows.
        """
        rows = rows.sort_values("seed")
        ids, found, owner = self._aligned(rows)
        true = np.concatenate([image.true for image in found[0]])
        predicted = np.stack([np.concatenate([image.predicted for image in each]) for each in found])
        seeds = tuple(int(seed) for seed in rows["seed"])
        return Units(predicted, true, owner, ids, seeds, tuple(map(str, rows["run_id"])))

    def spacing(self, rows: pd.DataFrame, heads: Sequence[npt.ArrayLike]) -> npt.NDArray[np.float64]:
        """The mean distance of each window's heads to the nearest other head of the image, pixels; as `units` has them.

        Args:
            rows: As `units`.
            heads: (n, 2) of each image of `units`, pixels of the prepared image.

        Returns:
            (U,), NaN for a window without heads, and for the only head of an image.

        Raises:
            ValueError: If the heads are not those that were counted in the windows.
        """
        images = self._known[_keys(rows.sort_values("seed"))[0]]
        found = []
        for (name, image), points in zip(sorted(images.items()), heads, strict=True):
            count, each = len(image.true), np.asarray(points, float).reshape(-1, 2)
            owner = places(each, self.window, (image.rows, count // image.rows))
            people = np.bincount(owner, minlength=count)
            if not np.array_equal(people, image.true):
                raise ValueError(
                    f"the heads of image {name} are not those that were counted in its windows of {self.window} px: "
                    f"found {len(each)} heads, expected {image.true.sum():g}; name the folder that it was measured on"
                )
            total = np.bincount(owner, nearest(each), minlength=count)
            found.append(np.where(people > 0, total / np.maximum(people, 1), np.nan))
        return np.concatenate(found)


def places(points: npt.ArrayLike, window: int, shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """The window of each point, (n,), numbered by rows.

    Args:
        points: (n, 2), (x, y), pixels.
        window: Side, pixels.
        shape: Rows and columns of windows; what lies outside is in the window next to it.
    """
    cell = np.floor(np.asarray(points, float).reshape(-1, 2) / window).astype(np.int64)
    column, row = (np.clip(cell[:, axis], 0, shape[1 - axis] - 1) for axis in (0, 1))
    found: npt.NDArray[np.int64] = row * shape[1] + column
    return found


def check_window(window: int) -> None:
    """ValueError unless the side is a multiple of 64, the windows that are stored."""
    if window < STORED_WINDOW or window % STORED_WINDOW:
        raise ValueError(
            f"a window is a multiple of {STORED_WINDOW} px, as {STORED_WINDOW}, 128 or {WINDOW}; found {window}"
        )


def summed(values: npt.ArrayLike, rows: int, window: int) -> npt.NDArray[np.float64]:
    """The sums of stored windows, flattened by rows, in windows of `window` pixels, flattened by rows.

    Args:
        values: (rows * columns,) of the windows of 64 px of one image.
        rows: Their rows.
        window: Side, pixels, a multiple of 64.
    """
    grid = np.asarray(values, np.float64).reshape(rows, -1)
    for axis in (0, 1):
        grid = np.add.reduceat(grid, np.arange(0, grid.shape[axis], window // STORED_WINDOW), axis=axis)
    return grid.ravel()


def _images(found: pd.DataFrame, window: int) -> dict[str, _Image]:
    columns = (found[name] for name in COLUMNS)
    images = {}
    for name, rows, mass, people in zip(*columns, strict=True):
        predicted, true = (summed(each, rows, window).astype(np.float32) for each in (mass, people))
        images[str(name)] = _Image(predicted, true, -(-int(rows) * STORED_WINDOW // window))
    return images


def _keys(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(rows["run_id"].astype(str), rows["eval_id"].astype(str), strict=True))
