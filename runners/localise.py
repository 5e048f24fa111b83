"""Where a run's weights find people: every localizer on every image, its threshold chosen on val, scored on test.

What is scored are pixels of the *stored* images, since that is what published distances mean: points found in a
prepared image are divided by its scale, and heads are read as the dataset states them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from results.schema import Localisation
from results.spec import LocalisationSpec
from runners import localizers
from runners.counter import Counter, predict
from runners.data.datasets.base import Annotation, CrowdDataset
from runners.localizers.base import Localizer, Located, at_least
from runners.metrics.counting import counts
from runners.metrics.localisation import (
    Heads,
    Radius,
    average_precision,
    best_threshold,
    curve,
    image_points,
    parse_radii,
    pooled,
)
from runners.metrics.matching import gains

__all__ = ["CURVE_ROWS", "Scores", "localise", "stored_heads"]

CURVE_ROWS = 200
"""Rows that are kept of a curve over thresholds, evenly over its points (ours); scores are taken from the whole."""
_SWEEP = 8
"""Of more radii than this no curve and no average precision is made: it is a sweep, as QNRF's 1 to 100 px."""


class Image(NamedTuple):
    """The truth about one image: its heads inside it and its size (H, W), in pixels of the stored image."""

    heads: Heads
    size: tuple[int, int]


class Scores(NamedTuple):
    """A measurement of places, and what lies beside it in the store."""

    localisation: Localisation
    points: pd.DataFrame
    curve: pd.DataFrame


class _Task(NamedTuple):
    """A localizer to be scored, with what it found in each image of each split, in stored pixels."""

    spec: LocalisationSpec
    localizer: Localizer
    radii: tuple[Radius, ...]
    found: dict[str, dict[str, Located]]
    seconds: list[float]

    @property
    def main(self) -> Radius:
        return parse_radii([self.spec.main])[0]

    @property
    def searches(self) -> bool:
        """Whether its threshold has to be chosen on val."""
        return self.localizer.chooses and self.localizer.threshold is None

    @property
    def splits(self) -> set[str]:
        return {self.spec.split, *(["val"] if self.searches else [])}


def stored_heads(dataset: CrowdDataset, split: str) -> dict[str, Image]:
    """The heads of each image of a split by its id, in pixels of the stored image.

    As everywhere, a head outside the image (0 <= x <= W, 0 <= y <= H) is none.
    """
    found = {}
    for entry in dataset.entries(split):
        height, width = dataset.image_size(entry)
        found[entry.id] = Image(_inside(dataset.read_annotation(entry), (height, width)), (height, width))
    return found


def _inside(annotation: Annotation, size: tuple[int, int]) -> Heads:
    inside = ((annotation.points >= 0) & (annotation.points <= size[::-1])).all(axis=1)
    boxes = None if annotation.boxes is None else annotation.boxes[inside]
    return Heads(annotation.points[inside], boxes)


def localise(
    counter: Counter,
    specs: Sequence[LocalisationSpec],
    loaders: Mapping[str, Iterable[Any]],
    truth: Mapping[str, Mapping[str, Image]],
    *,
    run_id: str,
    epoch: int,
    seen: Callable[[int], None] | None = None,
) -> list[Scores]:
    """Scores localizers on one set of weights. Each split is predicted once for all of them.

    Args:
        counter: The model with its weights; put into evaluation mode.
        specs: What is measured; all of one selection.
        loaders: Batches of one padded image, by split.
        truth: `stored_heads` by split.
        run_id: Of the run, for the record.
        epoch: Of the weights, for the record.
        seen: Called with the number of images done.

    Raises:
        ValueError: If a radius needs head boxes that the dataset has not, or a localizer does not fit the network.
    """
    tasks = [
        _Task(spec, localizers.build(spec.localizer, **spec.params), parse_radii(spec.radii), {}, [0.0])
        for spec in specs
    ]
    done = 0
    for split in ("val", "test"):
        wanted = [task for task in tasks if split in task.splits]
        for batch, field in _fields(counter, loaders[split]) if wanted else ():
            image = truth[split][batch.ids[0]]
            for task in wanted:
                started = time.perf_counter()
                located = _in_stored_pixels(task.localizer.candidates(field), field.size, image.size)
                task.found.setdefault(split, {})[batch.ids[0]] = located
                task.seconds[0] += time.perf_counter() - started
            done += 1
            if seen is not None:
                seen(done)
    return [_scored(task, truth, run_id, epoch) for task in tasks]


@torch.inference_mode()
def _fields(counter: Counter, loader: Iterable[Any]) -> Iterator[tuple[Any, localizers.Field]]:
    """What the network says of image after image."""
    counter.eval()
    for batch in loader:
        yield batch, predict(counter, batch).field(batch.valid[0])


def _in_stored_pixels(found: Located, prepared: tuple[int, int], stored: tuple[int, int]) -> Located:
    """The points at the stored size, rounded to float32 as they are kept: the stored rows give the same scores."""
    factor = np.array([stored[1] / prepared[1], stored[0] / prepared[0]])
    points: NDArray[np.float64] = (found.points * factor).astype(np.float32).astype(np.float64)
    return Located(points, found.scores.astype(np.float32).astype(np.float64))


def _scored(task: _Task, truth: Mapping[str, Mapping[str, Image]], run_id: str, epoch: int) -> Scores:
    """Chooses the threshold, applies it, and scores what is left."""
    started, spec = time.perf_counter(), task.spec
    threshold, source, curves = _threshold(task, truth)
    images = truth[spec.split]
    rows = []
    for id, located in task.found.get(spec.split, {}).items():
        kept = located if threshold is None else at_least(located, threshold)
        rows.append(image_points(id, images[id].heads, kept, task.radii, images[id].size))
    table = pd.DataFrame(rows)
    scores = {radius.name: pooled(table, radius.name) for radius in task.radii}
    for radius in task.radii if len(task.radii) <= _SWEEP else ():
        whole = _curve(task, images, spec.split, radius)
        precision = average_precision(whole)
        scores[radius.name]["ap"] = None if np.isnan(precision) else precision
        curves.append(_kept(whole, spec.split, radius.name))
    measured = Localisation(
        run_id=run_id,
        localisation=spec,
        epoch=epoch,
        images=len(table),
        threshold=threshold,
        threshold_from=source,
        counts=counts(table["predicted"].to_numpy(float), table["true"].to_numpy(float)),
        scores=scores,
        seconds=round(task.seconds[0] + time.perf_counter() - started, 3),
    )
    none = _kept(curve([], [], 0), spec.split, spec.main)
    return Scores(measured, table, pd.concat(curves or [none], ignore_index=True))


def _threshold(
    task: _Task, truth: Mapping[str, Mapping[str, Image]]
) -> tuple[float | None, Literal["val", "given", "none"], list[pd.DataFrame]]:
    """The least score of a point, where it comes from, and the curve on val that it was read off, if it was."""
    if not task.localizer.chooses:
        return None, "none", []
    if not task.searches:
        return task.localizer.threshold, "given", []
    found = _curve(task, truth["val"], "val", task.main)
    # Without any candidate on val there is nothing to choose by, and nothing is refused.
    threshold = best_threshold(found) if len(found) else 0.0
    return threshold, "val", [_kept(found, "val", task.spec.main)]


def _curve(task: _Task, images: Mapping[str, Image], split: str, radius: Radius) -> pd.DataFrame:
    """Precision and recall of a localizer at every threshold, pooled over the images of a split."""
    found = task.found.get(split, {})
    gained = [
        gains(images[id].heads.points, located.points, located.scores, radius.of(images[id].heads))
        for id, located in found.items()
    ]
    heads = sum(len(image.heads.points) for image in images.values())
    return curve([located.scores for located in found.values()], gained, heads)


def _kept(whole: pd.DataFrame, split: str, radius: str) -> pd.DataFrame:
    """At most `CURVE_ROWS` rows of a curve, its ends among them."""
    places = np.unique(np.linspace(0, max(len(whole) - 1, 0), CURVE_ROWS).round().astype(int)) if len(whole) else []
    return whole.iloc[places].assign(split=split, radius=radius)
