"""Windows of images and who was found in them, from the stored points, heads and matches.

A found head counts in its own window, and so does the point that stands for it; every other point counts where it lies.
So no window has more pairs than points or heads, and the windows of an image add up to it (ours). Windows are of the
stored image, whose pixels the radii are of, and lie as those of `reports.windows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports.localised import Localised, PlaceSample
from reports.protocol import MixedProtocolError
from reports.windows import places
from results.crowds import nearest
from results.store import Store, StoreError

__all__ = ["PlaceUnits", "PlaceWindows"]

Floats = npt.NDArray[np.float64]


class _Image(NamedTuple):
    """What is in each window of an image: pairs, points, heads, and the heads' mean distance to the nearest other."""

    tp: Floats
    predicted: Floats
    true: Floats
    spacing: Floats


@dataclass(frozen=True, eq=False)
class PlaceUnits:
    """The windows of one system at one radius.

    Attributes:
        tp: float [S, U], found heads, one row a seed.
        predicted: float [S, U], points.
        true: float [U], heads.
        spacing: float [U], pixels of the stored image, NaN where there is no distance.
        owner: int [U], the place in `ids` of the image that a window lies in.
        ids: The I images.
        seeds: The S seeds, increasing.
        runs: The S run ids.
    """

    tp: Floats
    predicted: Floats
    true: Floats
    spacing: Floats
    owner: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[str, ...]

    def restricted(self, members: npt.NDArray[np.bool_]) -> PlaceSample:
        """What some of the windows hold, summed by image: the images that they lie in are the sample."""
        kept, owner = np.unique(self.owner[members], return_inverse=True)

        def summed(values: Floats) -> Floats:
            found: Floats = np.bincount(owner, values[members], minlength=len(kept)).astype(float)
            return found

        tp, predicted = (np.stack([summed(row) for row in values]) for values in (self.tp, self.predicted))
        ids = tuple(self.ids[place] for place in kept)
        return PlaceSample(tp, predicted, summed(self.true), self.seeds, self.runs, ids)


class PlaceWindows:
    """Who was found in the windows of some measurements, at the radius that chose their thresholds.

    Args:
        window: Side, pixels of the stored image.
        known: By (run, measurement) the images by id.
    """

    def __init__(self, window: int, known: Mapping[tuple[str, str], Mapping[str, _Image]]) -> None:
        self.window, self._known = window, dict(known)

    @classmethod
    def of(cls, store: Store, localised: Localised, window: int, problems: list[str] | None = None) -> PlaceWindows:
        """Reads the points of a store; what cannot be read is left out, with a line in `problems`."""
        rows = localised.rows[localised.rows["main"].astype(bool)]
        known = {}
        for run_id, eval_id, radius in rows[["run_id", "eval_id", "radius"]].astype(str).itertuples(index=False):
            columns = ["id", "height", "width", "heads", "points", f"match_{radius}"]
            try:
                points = store.run(run_id).points(eval_id, columns)
                known[run_id, eval_id] = {row["id"]: _image(row, radius, window) for row in points.to_dict("records")}
            except (StoreError, OSError, ValueError) as error:
                if problems is not None:
                    problems.append(str(error))
        return cls(window, known)

    def __len__(self) -> int:
        return len(self._known)

    def has(self, rows: pd.DataFrame) -> pd.Series:
        """Whether the windows of each row of `Localised.rows` are known."""
        return pd.Series([key in self._known for key in _keys(rows)], index=rows.index, dtype=bool)

    def whole(self, rows: pd.DataFrame) -> bool:
        """Whether every image of these rows is one window, as far as their windows are known, and some are."""
        images = [image for key in _keys(rows) for image in self._known.get(key, {}).values()]
        return bool(images) and all(len(image.true) == 1 for image in images)

    def units(self, rows: pd.DataFrame) -> PlaceUnits:
        """The windows of rows that differ in their seed only (`Localised.sample` checks that), image by image.

        Raises:
            MixedProtocolError: If they were measured on other images or heads.
        """
        rows = rows.sort_values("seed")
        found = [self._known[key] for key in _keys(rows)]
        first, ids = found[0], tuple(sorted(found[0]))
        for run_id, each in zip(rows["run_id"], found, strict=True):
            if set(each) != set(ids) or any(not np.array_equal(each[name].true, first[name].true) for name in ids):
                raise MixedProtocolError(
                    f"runs {rows['run_id'].iloc[0]} and {run_id} were localised on other images or heads; "
                    "measure both again on one copy of the dataset"
                )

        def joined(image: Mapping[str, _Image], name: str) -> Floats:
            return np.concatenate([getattr(image[one], name) for one in ids])

        tp, predicted = (np.stack([joined(each, name) for each in found]) for name in ("tp", "predicted"))
        owner = np.repeat(np.arange(len(ids)), [len(first[name].true) for name in ids])
        seeds = tuple(int(seed) for seed in rows["seed"])
        true, spacing = joined(first, "true"), joined(first, "spacing")
        return PlaceUnits(tp, predicted, true, spacing, owner, ids, seeds, tuple(map(str, rows["run_id"])))


def _image(row: Mapping[Any, Any], radius: str, window: int) -> _Image:
    """The windows of an image.

    Raises:
        ValueError: If its size is not known, or its columns contradict each other.
    """
    sides = [row["height"], row["width"]]
    if not all(np.isfinite(np.asarray(sides, float))):
        raise ValueError(f"image {row['id']} was localised without its size: it has no windows")
    rows, columns = (-(-int(side) // window) for side in sides)
    heads, points = (np.asarray(row[name], float).reshape(-1, 2) for name in ("heads", "points"))
    partner = np.asarray(row[f"match_{radius}"], np.int64)
    found = partner >= 0
    if partner.shape != (len(heads),) or (partner >= len(points)).any() or len(set(partner[found])) < found.sum():
        raise ValueError(f"image {row['id']}: the matches at {radius} do not fit its {len(heads)} heads and points")
    owner, lies = (places(each, window, (rows, columns)) for each in (heads, points))
    lies[partner[found]] = owner[found]
    true, predicted, tp = (
        np.bincount(each, minlength=rows * columns).astype(float) for each in (owner, lies, owner[found])
    )
    total = np.bincount(owner, nearest(heads), minlength=rows * columns)
    return _Image(tp, predicted, true, np.where(true > 0, total / np.maximum(true, 1), np.nan))


def _keys(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(rows["run_id"].astype(str), rows["eval_id"].astype(str), strict=True))
