"""A trained run's weights on images, without training, and the images that a report draws.

    from results import Store
    from runners import localizers
    from runners.data.reading import read_image
    from runners.predict import Predictor

    predictor = Predictor(Store("runs").find("3f2a"))
    predicted = predictor.image(read_image(path))   # predicted.count, .density or .points
    predicted.located(localizers.build("otm"))      # points with scores, pixels of the image file

An image goes the way of the run's own evaluation: resized by the rule and scale of the run's dataset, padded,
normalised and counted by the same functions. On the processor that measured the run, with as many threads, the count
of a test image is the `predicted` of its evaluation to the last bit; a GPU evaluates images of one size in batches,
which may round otherwise. No annotation is read. Images too large for one pass of the network are predicted in tiles,
see `runners.predict_tiles`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from losses.discovery import check_known
from results.spec import EvaluationSpec, RunSpec
from results.store import RunFolder
from runners import build, data
from runners.counter import POINT_SCORE, Counter, Found, predict
from runners.data import cache
from runners.data.datasets.base import CrowdDataset, Entry, Resize
from runners.data.loader import collate
from runners.data.reading import DataError
from runners.data.transforms import WholeImages
from runners.job import Place
from runners.localizers.base import Field, Localizer, Located
from runners.memory import keep_freed
from runners.metrics.counting import density_masses, point_masses, window_edges
from runners.predict_tiles import MARGIN, cuts, stitched
from runners.weights import MissingWeightsError, finished, kept, load

__all__ = ["Choice", "Example", "MissingWeightsError", "Predicted", "Predictor", "resize_rule", "samples"]

Choice = Literal["best", "median", "worst"]
"""Which image of a split: that of the least, the (lower) median or the largest absolute error; ties go by id."""


class Predicted(NamedTuple):
    """What a run predicts of one image.

    Attributes:
        id: As given.
        count: People; for a density its mass inside the image, cells that straddle the edge shared by area.
        density: float32 [h, w], people per cell, without the cells that lie outside the image; None for a point loss.
            Cells that straddle the edge are whole here, so that the sum may exceed `count`.
        points: float64 [m, 2], people inside the image as (x, y), pixels of the prepared image; None for a density.
        stride: Pixels of the prepared image per cell.
        size: (H, W) of the prepared image, pixels.
        scale: Prepared over stored width, and prepared over stored height.
        proposals: float64 [q, 2], all proposals inside the image, whether they count or not; None for a density.
        scores: float64 [q], their probabilities; None for a density.
    """

    id: str
    count: float
    density: NDArray[np.float32] | None
    points: NDArray[np.float64] | None
    stride: int
    size: tuple[int, int]
    scale: tuple[float, float]
    proposals: NDArray[np.float64] | None = None
    scores: NDArray[np.float64] | None = None

    @property
    def stored_points(self) -> NDArray[np.float64] | None:
        """The points in pixels of the stored image, [m, 2]."""
        return None if self.points is None else self.points / np.array(self.scale)

    @property
    def point_scores(self) -> NDArray[np.float64] | None:
        """The scores of the points, [m]; None for a density."""
        return None if self.scores is None else self.scores[self.scores >= POINT_SCORE]

    def field(self) -> Field:
        """What a localizer reads, in pixels of the prepared image."""
        return Field(self.stride, self.size, self.density, self.proposals, self.scores)

    def located(self, localizer: Localizer) -> Located:
        """The points that a localizer finds, in pixels of the *stored* image.

        Raises:
            ValueError: See `Localizer.__call__`.
        """
        found = localizer(self.field())
        return Located(found.points / np.array(self.scale), found.scores)


class Predictor:
    """The network of a finished run with the weights that it kept.

    Args:
        folder: The run's folder in its store.
        selection: Whose weights: `val` (default), `last`, or `test_oracle` where a run kept it.
        device: cpu (default), cuda or cuda:N.
        threads: CPU threads of this process; 1 (default), as runs have, because another number may round otherwise.
        tile: Side of the tiles that the prepared image is predicted in, pixels; None (default): in one pass.
        margin: Context around a tile, pixels, see `runners.predict_tiles`.

    Attributes:
        spec: What was trained.

    Raises:
        ValueError: If a tile is not longer than two margins.
        StoreError: If there is no such run, it is not finished, or its weights are damaged or do not fit.
        MissingWeightsError: If the store has no such weights.
    """

    def __init__(
        self,
        folder: RunFolder,
        selection: str = "val",
        device: str = "cpu",
        threads: int = 1,
        *,
        tile: int | None = None,
        margin: int = MARGIN,
    ) -> None:
        self.spec = finished(folder)
        file = kept(folder, selection)
        if device == "cpu":
            keep_freed()
        torch.set_num_threads(threads)
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are replaced; the caller's stream goes on
            network = build.network(self.spec, Place(device=device, threads=threads), pretrained=False)
            self._counter = Counter(network, build.loss(self.spec))
        load(network, file)
        self._counter.to(device).eval()
        self._multiple = network.multiple
        self._rule, self._scale = resize_rule(self.spec)
        self._tile, self._margin = tile, margin
        if tile is not None:
            cuts(1, tile, margin, self._multiple)

    def image(self, image: NDArray[np.uint8], id: str = "") -> Predicted:
        """Predicts one stored image, of any size.

        Args:
            image: RGB, uint8 [H, W, 3], as `runners.data.reading.read_image` gives it.
            id: A name for it.

        Raises:
            ValueError: If the array has another shape or type.
            DivergedError: If the prediction has NaN or infinite values.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"an image must be uint8 [H, W, 3]; found {image.dtype} {list(image.shape)}")
        size = self._rule.size(*image.shape[:2], self._scale)
        scale = size[1] / image.shape[1], size[0] / image.shape[0]
        return self.prepared(cache.resize_image(image, size), id)._replace(scale=scale)

    def split(self, dataset: CrowdDataset, split: str) -> Iterator[Predicted]:
        """Predicts the images of a split one after the other, resized by the *run's* rule. No annotation is read here.

        (To list a `val` that is carved from train, or the parts of a `folder` without parts, people are counted.)

        Raises:
            DataError: If an image cannot be read.
        """
        for entry in dataset.entries(split):
            yield self.image(dataset.read_image(entry), entry.id)

    def prepared(self, image: NDArray[np.uint8], id: str = "") -> Predicted:
        """Predicts an image that has its final size already: uint8 [H, W, 3]."""
        found = self._found(image, id)
        size = (image.shape[0], image.shape[1])
        inside = None if found.proposals is None else _is_within(found.proposals, size)
        return Predicted(
            id=id,
            count=_count(found, size),
            density=None if found.density is None else _inside(found.density, found.stride, size),
            points=None if found.points is None else found.points[_is_within(found.points, size)],
            stride=found.stride,
            size=size,
            scale=(1.0, 1.0),
            proposals=None if found.proposals is None else found.proposals[inside],
            scores=None if found.scores is None else found.scores[inside],
        )

    def _found(self, image: NDArray[np.uint8], id: str) -> Found:
        """What the network says of a prepared image, padding included."""

        def whole(window: NDArray[np.uint8]) -> Found:
            images = WholeImages(_Single(id, window), multiple=self._multiple)
            return predict(self._counter, collate([images[0]]))[0]

        if self._tile is None:
            return whole(image)
        return stitched(whole, image, self._tile, self._margin, self._multiple)


def resize_rule(spec: RunSpec) -> tuple[Resize, float]:
    """The resize rule and the scale of a run's dataset, which need not be there."""
    params = spec.dataset_params
    limits = {name: params[name] for name in ("short_min", "short_max", "long_max") if params.get(name) is not None}
    return data.load(spec.dataset).protocol._replace(**limits), float(params.get("scale", 1.0))


class _Single:
    """One image without labels, as a split; see `runners.data.transforms.Images`."""

    name = "image"

    def __init__(self, id: str, image: NDArray[np.uint8]) -> None:
        self.ids = (id,)
        self.sizes = ((image.shape[0], image.shape[1]),)
        self._image = image

    def __len__(self) -> int:
        return 1

    def image(self, index: int) -> NDArray[np.uint8]:
        return self._image

    def points(self, index: int) -> NDArray[np.float64]:
        return np.zeros((0, 2))

    def boxes(self, index: int) -> None:
        return None


def _inside(density: NDArray[np.float32], stride: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """The cells that have a part in the image."""
    rows, columns = (-(-side // stride) for side in size)
    return density[:rows, :columns].copy()


def _is_within(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which points are in the image, its far borders among it as in `metrics.counting.point_masses`."""
    return ((points >= 0) & (points <= size[::-1])).all(axis=1)


def _count(found: Found, size: tuple[int, int]) -> float:
    """People inside the image: `predicted` of `metrics.counting.image_row`, summed in the same order."""
    rows, columns = (window_edges(side) for side in size)
    if found.density is not None:
        return float(density_masses(found.density, found.stride, rows, columns).sum())
    return float(point_masses(found.points, rows, columns).sum())


# ---------------------------------------------------------------------------------------------------------------------
# Pictures for a report


class Example(NamedTuple):
    """An image of a stored evaluation with what was predicted of it.

    Attributes:
        choice: Why it was chosen: best, median or worst.
        id: Its name in its split.
        image: The prepared image, RGB, uint8 [H, W, 3].
        true_points: float64 [n, 2], annotated people as (x, y), pixels of `image`.
        density: float32 [h, w], predicted people per cell; None for a point loss, or without weights.
        points: float64 [m, 2], predicted people, pixels of `image`; None for a density, or without weights.
        stride: Pixels per cell of the density.
        true: Annotated people, as stored.
        predicted: Predicted people, as stored. (The density is computed anew: on another processor its last bits
            differ.)
        window_errors: float64 [rows, columns], predicted minus annotated people in windows of 64 pixels from the
            image's origin, those at the far edges being cut; from the stored `mass` and `people`. None where a
            recorded study was imported without these.
    """

    choice: Choice
    id: str
    image: NDArray[np.uint8]
    true_points: NDArray[np.float64]
    density: NDArray[np.float32] | None
    points: NDArray[np.float64] | None
    stride: int
    true: int
    predicted: float
    window_errors: NDArray[np.float64] | None


def samples(
    folder: RunFolder,
    dataset: CrowdDataset | None,
    choose: Sequence[Choice] = ("best", "median", "worst"),
    evaluation: EvaluationSpec = EvaluationSpec(),  # noqa: B008 - immutable
    *,
    cache_dir: Path | str | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> list[Example]:
    """Images of a stored evaluation, chosen by their absolute error. Only these are decoded.

    Args:
        folder: A finished run.
        dataset: The run's dataset, built with the run's parameters; None if it is not at hand.
        choose: Which images, in this order; an image that is several of them is given once.
        evaluation: The measurement whose rows decide.
        cache_dir: Where prepared images may lie, see `runners.data.places.cache_folder`; nothing is prepared.
        device: See `Predictor`.
        threads: See `Predictor`.

    Returns:
        One example for each; without density and points where the store has no weights, as after an import.

    Raises:
        DataError: If the dataset is not at hand, cannot be read, or is not the one that was measured.
        StoreError: If the run is not finished, has no such evaluation, or its weights are damaged.
        ValueError: If a choice is unknown.
    """
    spec = finished(folder)
    rows = folder.images(evaluation)
    chosen = _chosen(rows, choose)
    if dataset is None or dataset.name != spec.dataset:
        found = "it is not at hand" if dataset is None else f"found {dataset.name}"
        raise DataError(f"the images of run {folder.run_id} are those of the dataset {spec.dataset}; {found}")
    images = _Split(dataset, evaluation.split, cache_dir)
    try:
        predictor = Predictor(folder, evaluation.selection, device, threads)
    except MissingWeightsError:
        predictor = None
    return [_example(choice, rows.loc[index].to_dict(), images, predictor) for index, choice in chosen.items()]


def _chosen(rows: pd.DataFrame, choose: Sequence[Choice]) -> dict[int, Choice]:
    """The chosen rows' labels, each with the first choice that it is."""
    places: dict[Choice, int] = {"best": 0, "median": (len(rows) - 1) // 2, "worst": len(rows) - 1}
    chosen: dict[int, Choice] = {}
    order = rows.assign(error=(rows["predicted"] - rows["true"]).abs()).sort_values(["error", "id"]).index
    for choice in choose:
        check_known("choice", choice, places)
        if len(order):
            chosen.setdefault(order[places[choice]], choice)
    return chosen


class _Split:
    """The images of a split, one at a time: from the prepared cache where that is, else decoded."""

    def __init__(self, dataset: CrowdDataset, split: str, cache_dir: Path | str | None) -> None:
        self.dataset = dataset
        self.entries = {entry.id: entry for entry in dataset.entries(split)}
        self.prepared = cache.opened(dataset, split, cache_dir)

    def read(self, id: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """The prepared image and the true points in it."""
        if id not in self.entries:
            raise DataError(f"{self.dataset.name} has no image {id}; is it the dataset that was measured?")
        if self.prepared is not None:
            index = self.prepared.ids.index(id)
            return self.prepared.image(index).copy(), self.prepared.points(index)
        return self._decoded(self.entries[id])

    def _decoded(self, entry: Entry) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        stored = self.dataset.read_image(entry)
        height, width = stored.shape[:2]
        size = self.dataset.prepared_size(height, width)
        annotation = cache.fit_annotation(self.dataset.read_annotation(entry), (height, width), size)
        return cache.resize_image(stored, size), annotation.points


def _example(choice: Choice, stored: dict[str, object], images: _Split, predictor: Predictor | None) -> Example:
    """One image with its stored row, if it is the image that was measured."""
    image, points = images.read(stored["id"])
    _check_same(stored, images.dataset.name, image.shape[:2], points)
    predicted = None if predictor is None else predictor.prepared(image, stored["id"])
    errors = None
    if "mass" in stored:
        difference = np.asarray(stored["mass"], np.float64) - stored["people"]
        errors = difference.reshape(stored["window_rows"], -1)
    return Example(
        choice=choice,
        id=stored["id"],
        image=image,
        true_points=points,
        density=None if predicted is None else predicted.density,
        points=None if predicted is None else predicted.points,
        stride=1 if predicted is None else predicted.stride,
        true=int(stored["true"]),
        predicted=float(stored["predicted"]),
        window_errors=errors,
    )


def _check_same(stored: dict[str, object], dataset: str, size: tuple[int, int], points: NDArray[np.float64]) -> None:
    """Raises DataError unless size and people are those that were measured: where the rows have windows, in each."""
    same = (*size, len(points)) == (stored["height"], stored["width"], stored["true"])
    if same and "people" in stored:
        # Counted as for the evaluation, which has the points in float32: a head on an edge must not change windows.
        here = point_masses(points.astype(np.float32).astype(np.float64), *map(window_edges, size))
        same = np.array_equal(here.ravel(), stored["people"])
    if not same:
        raise DataError(
            f"{dataset}: image {stored['id']} has {size[0]} x {size[1]} pixels and {len(points)} people; measured were "
            f"{stored['height']} x {stored['width']} and {stored['true']}, or they stood elsewhere. "
            "Name the dataset that the run was measured on, with its parameters"
        )
