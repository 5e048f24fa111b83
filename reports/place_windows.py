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
from reports.windows import KeptWindows, places
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


class PlaceWindows(KeptWindows[_Image]):
    """Who was found in the windows of some measurements, at the radius that chose their thresholds.

    Windows have a side in pixels of the stored image.
    """

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

    def units(self, rows: pd.DataFrame) -> PlaceUnits:
        """The windows of rows that differ in their seed only (`Localised.sample` checks that), image by image.

        Raises:
            MixedProtocolError: If they were measured on other images or heads.
        """
        rows = rows.sort_values("seed")
        ids, found, owner = self._aligned(rows)
        tp, predicted = (
            np.stack([np.concatenate([getattr(image, name) for image in each]) for each in found])
            for name in ("tp", "predicted")
        )
        true, spacing = (np.concatenate([getattr(image, name) for image in found[0]]) for name in ("true", "spacing"))
        seeds = tuple(int(seed) for seed in rows["seed"])
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
