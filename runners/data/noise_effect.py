"""What a noise does to the labels of a split, before anything is trained.

    effect = displaced(prepared, parse("uniform-px:8"), seed=0)
    effect.numbers()["switched"]     # share of heads whose nearest annotated head is now another one

The labels are the very ones that `transforms.TrainCrops` trains on: same images, same key, same seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import cKDTree

from runners.data.noise import Noise, Noisy, clip
from runners.data.transforms import Images, noise_key

__all__ = ["Effect", "Part", "Request", "displaced", "evenly", "request", "wrong_labels"]

_AXES = {"uniform-height": "uniform", "uniform-px": "uniform", "gaussian-px": "normal"}
"""The kinds that move heads, and the distribution of one axis."""


class Part:
    """Some images of a split, under their own names, so that their noise is that of the whole split.

    Args:
        images: The split.
        places: Which images.
    """

    def __init__(self, images: Images, places: Sequence[int]) -> None:
        self.images, self.places = images, tuple(places)
        self.name = images.name
        self.ids = tuple(images.ids[place] for place in places)

    def __len__(self) -> int:
        return len(self.places)

    def image(self, index: int) -> NDArray[np.uint8]:
        """See `Images`."""
        return self.images.image(self.places[index])

    def points(self, index: int) -> NDArray[np.float64]:
        """See `Images`."""
        return self.images.points(self.places[index])

    def boxes(self, index: int) -> NDArray[np.float64] | None:
        """See `Images`."""
        return self.images.boxes(self.places[index])


def evenly(images: Images, count: int | None) -> Part:
    """At most `count` images, evenly spread over the order of the split, the same ones always; None: all.

    Raises:
        ValueError: If `count` is below 1, or the split has no images.
    """
    if count is not None and count < 1:
        raise ValueError(f"the number of images must be at least 1; found {count!r}")
    if not len(images):
        raise ValueError(f"{images.name}: the split has no images")
    wanted = len(images) if count is None else min(count, len(images))
    return Part(images, ((np.arange(wanted) + 0.5) * len(images) / wanted).astype(int).tolist())


class Request(NamedTuple):
    """The distribution that a noise draws the displacement of one axis from.

    Attributes:
        family: `"uniform"` on [-scale, scale], or `"normal"` with standard deviation `scale`.
        scale: Pixels.
    """

    family: str
    scale: float

    def cdf(self, displacement: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of a displacement of at most so many pixels along one axis."""
        unit = stats.uniform(-1, 2) if self.family == "uniform" else stats.norm()
        return np.asarray(unit.cdf(np.asarray(displacement) / self.scale))


def request(noise: Noise, height: int) -> Request | None:
    """What one axis of an image of `height` pixels is drawn from.

    None where no kind moves heads, and where several do: their sum has no name here.
    """
    moving = [step for step in noise.steps if step.kind in _AXES]
    if len(moving) != 1:
        return None
    step = moving[0]
    return Request(_AXES[step.kind], step.level * (height if step.kind == "uniform-height" else 1))


def wrong_labels(images: Images, index: int, noise: Noise, seed: int) -> tuple[Noisy, Noisy]:
    """The labels of an image with their noise: as trained on, and as drawn, before the border moved any."""
    size = images.image(index).shape[:2]
    drawn = noise.draw(images.points(index), size, noise_key(images, index, seed))
    return (drawn._replace(points=clip(drawn.points, size)) if noise.steps else drawn), drawn


class Effect(NamedTuple):
    """What a noise does to some images.

    Attributes:
        noise: Its canonical name.
        images: Number of images.
        before: True heads.
        after: Labels with the noise.
        missing: True heads without a label.
        duplicates: Labels too many: further ones of the same head.
        moves: One row for each head with a label (of several, the first: copies are duplicates, not displacements):

            id                  name of the image
            dx, dy              displacement as trained on, pixels of the prepared image
            asked_dx, asked_dy  as drawn, before the border
            family, scale       what is asked for along each axis, see `Request`; None and NaN where there is none
            spacing             distance of the true head to the nearest other true head, pixels; infinite if alone
            switched            whether another true head is nearer to the label than its own
            clipped             whether the border moved the label
    """

    noise: str
    images: int
    before: int
    after: int
    missing: int
    duplicates: int
    moves: pd.DataFrame

    def numbers(self) -> dict[str, float]:
        """The effect in a few numbers; NaN where there is nothing to measure.

        Returns:
            before, after, missing, duplicates: As the attributes.
            mean_px, median_px, p95_px: Of the Euclidean displacement, pixels, as trained on.
            sd_px: Root mean square displacement of one axis, pixels.
            requested_sd_px: The same of the distribution asked for; a difference is the border's, and chance.
            clipped: Share of labels that the border moved; clipped_px: by how much on average, those alone.
            relative: Median of the displacement divided by the distance to the nearest other true head.
            switched: Share of labels that lie nearer to another true head than to their own.
            ks, ks_p: Kolmogorov-Smirnov distance between what was drawn, before the border, and what was asked for,
                both axes together and each in units of its image's scale; and its p-value.
        """
        found: dict[str, float] = {
            "before": self.before,
            "after": self.after,
            "missing": self.missing,
            "duplicates": self.duplicates,
        }
        rows = self.moves
        distance = np.hypot(rows["dx"], rows["dy"]).to_numpy()
        border = np.hypot(rows["dx"] - rows["asked_dx"], rows["dy"] - rows["asked_dy"])[rows["clipped"]]
        spaced = rows["spacing"].to_numpy() > 0  # exact duplicates of the annotation have no distance to measure in
        some = len(rows) > 0
        found |= {
            "mean_px": float(distance.mean()) if some else math.nan,
            "median_px": float(np.median(distance)) if some else math.nan,
            "p95_px": float(np.quantile(distance, 0.95)) if some else math.nan,
            "sd_px": float(np.sqrt((distance**2).mean() / 2)) if some else math.nan,
            "requested_sd_px": _requested_sd(rows),
            "clipped": float(rows["clipped"].mean()) if some else math.nan,
            "clipped_px": float(border.mean()) if len(border) else 0.0,
            "relative": float(np.median(distance[spaced] / rows["spacing"][spaced])) if spaced.any() else math.nan,
            "switched": float(rows["switched"].mean()) if some else math.nan,
        }
        return found | _kolmogorov_smirnov(rows)


def displaced(images: Images, noise: Noise, seed: int = 0, *, progress: Callable[[], None] | None = None) -> Effect:
    """Applies a noise to all images and compares the labels with the true heads.

    Args:
        images: What the labels belong to; see `evenly` for some of a split.
        noise: What is done to the labels.
        seed: Seed of the noise.
        progress: Called after each image.
    """
    parts, before, after, missing = [], 0, 0, 0
    for index in range(len(images)):
        noisy, drawn = wrong_labels(images, index, noise, seed)
        true = images.points(index)
        rows = _moves(true, noisy, drawn, request(noise, images.image(index).shape[0]))
        rows.insert(0, "id", images.ids[index])
        parts.append(rows)
        before, after, missing = before + len(true), after + len(noisy.points), missing + len(true) - len(rows)
        if progress is not None:
            progress()
    moves = pd.concat(parts, ignore_index=True)
    return Effect(str(noise), len(images), before, after, missing, after - len(moves), moves)


def _moves(true: NDArray[np.float64], noisy: Noisy, drawn: Noisy, asked: Request | None) -> pd.DataFrame:
    """The rows of one image in `Effect.moves`."""
    source, first = np.unique(noisy.source, return_index=True)
    label, origin = noisy.points[first], true[source]
    moved, wanted = label - origin, drawn.points[first] - origin
    spacing, switched = np.full(len(source), np.inf), np.zeros(len(source), dtype=bool)
    if len(true) > 1 and len(source):
        tree = cKDTree(true)
        spacing = np.asarray(tree.query(origin, k=[2])[0])[:, 0]
        # Compared as squares of differences that are formed alike, so that a label which did not move is its own.
        nearest = true[np.asarray(tree.query(label)[1])]
        switched = ((label - nearest) ** 2).sum(1) < (moved**2).sum(1)
    return pd.DataFrame(
        {
            "dx": moved[:, 0],
            "dy": moved[:, 1],
            "asked_dx": wanted[:, 0],
            "asked_dy": wanted[:, 1],
            "family": None if asked is None else asked.family,
            "scale": math.nan if asked is None else asked.scale,
            "spacing": spacing,
            "switched": switched,
            "clipped": (moved != wanted).any(axis=1),
        }
    )


def _requested_sd(rows: pd.DataFrame) -> float:
    """Root mean square displacement of one axis that was asked for: L / sqrt(3) if uniform on [-L, L], else sigma."""
    if rows["scale"].isna().any() or rows.empty:
        return math.nan
    variance = rows["scale"] ** 2 / np.where(rows["family"] == "uniform", 3, 1)
    return float(np.sqrt(variance.mean()))


def _kolmogorov_smirnov(rows: pd.DataFrame) -> dict[str, float]:
    """`ks` and `ks_p`, see `Effect.numbers`."""
    if rows["scale"].isna().any() or rows.empty:
        return {"ks": math.nan, "ks_p": math.nan}
    drawn = rows[["asked_dx", "asked_dy"]].to_numpy() / rows[["scale"]].to_numpy()
    found = stats.kstest(drawn.ravel(), Request(rows["family"].iloc[0], 1.0).cdf)
    return {"ks": float(found.statistic), "ks_p": float(found.pvalue)}
