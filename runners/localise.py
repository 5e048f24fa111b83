"""Where a run's weights find people: every localizer on every image, its threshold chosen on val, scored on test.

What is scored are pixels of the *stored* images, since that is what published distances mean: points found in a
prepared image are divided by its scale, and heads are read as the dataset states them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from results.schema import Localisation
from results.spec import LocalisationSpec
from runners import localizers
from runners.counter import Counter, predictions
from runners.data.datasets.base import Annotation, CrowdDataset
from runners.localizers.base import Located, at_least
from runners.metrics.counting import counts, point_games
from runners.metrics.localisation import (
    MOST_PAIRED,
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

__all__ = ["CURVE_ROWS", "Failed", "Image", "Scores", "localise", "stored_heads"]

CURVE_ROWS = 200
"""Rows that are kept of a curve over thresholds, evenly over its points (ours); scores are taken from the whole."""


class Image(NamedTuple):
    """The truth about one image: its heads inside it and its size (H, W), in pixels of the stored image."""

    heads: Heads
    size: tuple[int, int]


class Scores(NamedTuple):
    """A measurement of places, and what lies beside it in the store."""

    localisation: Localisation
    points: pd.DataFrame
    curve: pd.DataFrame


class Failed(NamedTuple):
    """A measurement of places that could not be made, and why."""

    spec: LocalisationSpec
    reason: str


@dataclass
class _Curves:
    """What the curves of a split are made of: scores and gains of each image, by radius. Points are not kept."""

    heads: int = 0
    scores: list[NDArray[np.float32]] = field(default_factory=list)
    gains: dict[str, list[NDArray[np.bool_]]] = field(default_factory=dict)

    def add(self, heads: Heads, located: Located, radii: Sequence[Radius]) -> None:
        """Takes an image."""
        self.heads += len(heads.points)
        self.scores.append(located.scores.astype(np.float32))
        for radius in radii:
            gained = gains(heads.points, located.points, located.scores, radius.of(heads))
            self.gains.setdefault(radius.name, []).append(gained)

    def curve(self, radius: Radius) -> pd.DataFrame:
        """Precision and recall at every threshold, pooled over the images."""
        return curve(self.scores, self.gains.get(radius.name, []), self.heads)


class _Task:
    """A localizer to be scored, with what is kept of the images that it has seen."""

    def __init__(self, spec: LocalisationSpec) -> None:
        self.spec = spec
        self.localizer = localizers.build(spec.localizer, **spec.params)
        self.radii = parse_radii(spec.radii)
        self.main = parse_radii([spec.main])[0]
        self.searches = self.localizer.chooses and self.localizer.threshold is None
        # A range has hits only, which is what is published for QNRF: its pairs would be most of a file.
        named = [word for word in spec.radii if ":" not in word][:MOST_PAIRED]
        self.paired = tuple(dict.fromkeys((*(parse_radii(named) if named else ()), self.main)))
        self.swept = tuple(radius for radius in self.radii if radius not in self.paired)
        self.threshold: float | None = self.localizer.threshold
        self.source: Literal["val", "given", "none"] = "given" if self.localizer.chooses else "none"
        self.val, self.test = _Curves(), _Curves()
        self.kept: list[pd.DataFrame] = []
        self.rows: list[dict[str, Any]] = []
        self.games: list[dict[str, float]] = []
        self.seconds = 0.0
        self.error: str | None = None

    def locate(self, found: localizers.Field, image: Image) -> Located:
        """The candidates of an image in stored pixels, rounded to float32 as they are kept."""
        return _in_stored_pixels(self.localizer.candidates(found), found.size, image.size)

    def search(self, id: str, found: localizers.Field, image: Image) -> None:
        """Takes an image of val, for the choice of the threshold."""
        self.val.add(image.heads, self.locate(found, image), [self.main])

    def choose(self) -> None:
        """Takes the threshold of the highest F1 on val."""
        whole = self.val.curve(self.main)
        # Without any candidate on val there is nothing to choose by, and nothing is refused.
        self.threshold, self.source = best_threshold(whole) if len(whole) else 0.0, "val"
        self.kept.append(_kept(whole, "val", self.spec.main))
        self.val = _Curves()

    def score(self, id: str, found: localizers.Field, image: Image) -> None:
        """Takes an image that is scored."""
        located = self.locate(found, image)
        self.test.add(image.heads, located, self.paired)
        kept = located if self.threshold is None else at_least(located, self.threshold)
        self.rows.append(image_points(id, image.heads, kept, self.paired, image.size, sweep=self.swept))
        self.games.append(point_games(image.heads.points, kept.points, image.size))

    def scores(self, run_id: str, epoch: int) -> Scores:
        """The measurement, once all images were seen."""
        table = pd.DataFrame(self.rows)
        scores = {radius.name: pooled(table, radius.name) for radius in self.radii}
        for radius in self.paired:
            whole = self.test.curve(radius)
            precision = average_precision(whole)
            scores[radius.name]["ap"] = None if np.isnan(precision) else precision
            self.kept.append(_kept(whole, self.spec.split, radius.name))
        measured = Localisation(
            run_id=run_id,
            localisation=self.spec,
            epoch=epoch,
            images=len(table),
            threshold=self.threshold,
            threshold_from=self.source,
            counts=counts(table["predicted"].to_numpy(float), table["true"].to_numpy(float)) | _means(self.games),
            scores=scores,
            seconds=round(self.seconds, 3),
        )
        return Scores(measured, table, pd.concat(self.kept, ignore_index=True))


def stored_heads(dataset: CrowdDataset, split: str) -> dict[str, Image]:
    """The heads of each image of a split by its id, in pixels of the stored image, rounded to float32 as they are kept.

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
    return Heads(_rounded(annotation.points[inside]), boxes)


def localise(
    counter: Counter,
    specs: Sequence[LocalisationSpec],
    loaders: Mapping[str, Iterable[Any]],
    truth: Mapping[str, Mapping[str, Image]],
    *,
    run_id: str,
    epoch: int,
    seen: Callable[[int], None] | None = None,
) -> Iterator[Scores | Failed]:
    """Scores localizers on one set of weights. Val is predicted once to choose thresholds, then what is scored.

    A localizer that fails, on whatever image, is given back as `Failed`; the others go on.

    Args:
        counter: The model with its weights; put into evaluation mode.
        specs: What is measured; all of one selection.
        loaders: Batches of padded images, by split, see `counter.predictions`.
        truth: `stored_heads` by split.
        run_id: Of the run, for the record.
        epoch: Of the weights, for the record.
        seen: Called with the number of images done.
    """
    tasks = [_Task(spec) for spec in specs]
    tell = _Count(seen)
    searching = [task for task in tasks if task.searches]
    if searching:
        for id, found in _fields(counter, loaders["val"]):
            _each(searching, _Task.search, id, found, truth["val"][id])
            tell()
        for task in searching:
            if task.error is None:
                task.choose()
    for split in dict.fromkeys(task.spec.split for task in tasks):
        wanted = [task for task in tasks if task.spec.split == split]
        for id, found in _fields(counter, loaders[split]):
            _each(wanted, _Task.score, id, found, truth[split][id])
            tell()
    for task in tasks:
        yield task.scores(run_id, epoch) if task.error is None else Failed(task.spec, task.error)


class _Count:
    """Counts the images that are done, and tells."""

    def __init__(self, seen: Callable[[int], None] | None) -> None:
        self.seen, self.done = seen, 0

    def __call__(self) -> None:
        self.done += 1
        if self.seen is not None:
            self.seen(self.done)


def _each(
    tasks: Iterable[_Task],
    take: Callable[[_Task, str, localizers.Field, Image], None],
    id: str,
    found: localizers.Field,
    image: Image,
) -> None:
    """Lets every task that has not failed take an image."""
    for task in tasks:
        if task.error is None:
            started = time.perf_counter()
            try:
                take(task, id, found, image)
            except ValueError as error:
                task.error = f"image {id}: {error}"
            task.seconds += time.perf_counter() - started


def _fields(counter: Counter, loader: Iterable[Any]) -> Iterator[tuple[str, localizers.Field]]:
    """What the network says of image after image, by its name."""
    counter.eval()
    for image in predictions(counter, loader):
        yield image.id, image.found.field(image.size)


def _in_stored_pixels(found: Located, prepared: tuple[int, int], stored: tuple[int, int]) -> Located:
    """The points at the stored size, rounded to float32 as they are kept: the stored rows give the same scores."""
    factor = np.array([stored[1] / prepared[1], stored[0] / prepared[0]])
    return Located(_rounded(found.points * factor), _rounded(found.scores))


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.astype(np.float32).astype(np.float64)


def _kept(whole: pd.DataFrame, split: str, radius: str) -> pd.DataFrame:
    """At most `CURVE_ROWS` rows of a curve, its ends among them."""
    places = np.unique(np.linspace(0, max(len(whole) - 1, 0), CURVE_ROWS).round().astype(int)) if len(whole) else []
    return whole.iloc[places].assign(split=split, radius=radius)


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over the images."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
