r"""Label sensitivity: how far wrong labels move a loss at the *true* density. Ours: a robustness measure untrained.

    crops = sample_crops(prepared, noises, crop=256, count=16, seed=0)
    rows = measure({"pml": losses.build("pml")}, crops)         # one row for each loss, noise and crop
    table = summary(rows)

Let y be the true heads of a training crop and y' the labels that a run would train on; n the number of heads y;
L(d; y) the loss of a density d; d* the true density, the same for all losses: every head one unit of mass, drawn as a
Gaussian of `sigma` pixels and integrated exactly over the cells; and d0 the uninformed density, the n people evenly
over the crop. `sigma` is 8 by default (ours: as wide as BL, NoiseCC and ChfL blur heads; at 4, NoiseCC and ChfL do not
prefer the truth to d0 on ShanghaiTech B); None leaves dots. Then

    value shift       V = sum [L(d*; y') - L(d*; y)] / sum n                          units of the loss, a head
    gradient shift    G = sum |grad L(d*; y') - grad L(d*; y)| / sum |grad L(d0; y)|
    count push        P = -sum <grad L(d*; y') - grad L(d*; y), u> / sum |grad L(d0; y)|,            |P| <= G
    rest              R = sum |grad L(d*; y)| / sum |grad L(d0; y)|
    preference lost   Q = 1 - sum [L(d0; y') - L(d*; y')] / sum [L(d0; y) - L(d*; y)]

with the sums over crops, Euclidean norms, and u the unit vector that raises all cells alike. Ratios of sums, not means
of ratios: a crop in which a loss hardly tells d* from d0 would outweigh all others.

G, P, R and Q do not change when the loss is multiplied by a number, so losses compare. G = 1: the wrong labels push the
true density as hard as the true labels push an uninformed one. P is the part of that push which changes the total,
positive upwards. Q = 1: the wrong labels no longer tell the truth from knowing nothing; above 1 they prefer the latter,
below 0 they tell it even better (labels too many raise what is at stake). V is in the loss's own units and does not
compare between losses, and a term that depends on the labels alone, and trains nothing, moves it; it moves none of the
others.

Limits. Gradients are with respect to the density, not to a network's weights. d* is not every loss's optimum: R says
how far the true labels push it. Losses with |.| terms (pml, bl, gl, dm_count, chfl) have kinks at or near d*: there an
arbitrarily small noise can turn a sign, so that G does not begin at 0 but jumps to about R, and then hardly grows; V
and Q are continuous. DM-Count and GL hold their transport potentials constant in the gradient, as in training.

A point loss (p2p) reads proposals: in d*'s place, anchors at their places, the nearest free one moved onto each true
head and a person with the probability CONFIDENCE, all others with one small probability such that they add up to n; in
d0's place, all anchors with the probability n / anchors. Its gradient is that of the logits, which decide the count; V
and Q hold its point term too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from losses.base import CrowdLoss, Prediction, Target, samples
from losses.geometry import dots
from losses.l2 import L2
from losses.p2p import anchors, match
from runners.data.loader import collate
from runners.data.noise import Noise
from runners.data.noise_effect import evenly
from runners.data.transforms import Images, TrainCrops

__all__ = [
    "CONFIDENCE",
    "LEAST_CELLS",
    "MEASURES",
    "TRIES",
    "Crop",
    "informed",
    "measure",
    "sample_crops",
    "summary",
    "uninformed",
]

CONFIDENCE = 0.9
"""Probability of being a person that a proposal on a true head has (ours)."""
MEASURES = {
    "value_shift": ("value_change", "heads"),
    "gradient_shift": ("gradient_change", "gradient_scale"),
    "count_push": ("count_change", "gradient_scale"),
    "rest": ("gradient_rest", "gradient_scale"),
    "preference_lost": ("preference_change", "preference"),
}
"""Each measure is a ratio of sums over crops: the columns of `measure` above and below the line."""
_PARTS = tuple(dict.fromkeys(column for pair in MEASURES.values() for column in pair))
_RESAMPLES = 999
TRIES = 20
"""Places that are tried in an image for a crop with people in it (ours)."""
LEAST_CELLS = 4
"""Cells along the side of the smallest crop (ours): in fewer, the true density is hardly another than the even one."""


class Crop(NamedTuple):
    """One training crop.

    Attributes:
        id: Name of its image.
        clean: The true heads of the crop, at least one.
        noisy: What a run with each noise would train on in its place, by the noise's name.
    """

    id: str
    clean: Target
    noisy: dict[str, Target]


def sample_crops(
    images: Images, noises: Sequence[Noise], *, crop: int | None = None, count: int = 32, stride: int = 8, seed: int = 0
) -> list[Crop]:
    """Crops as training cuts them, neither scaled nor flipped: the same places for every noise.

    One crop each of `count` images evenly spread over the split, several where the split has fewer; the place is the
    first with a head among 20 tries, and an image without such a place is left out. Heads whose wrong label lies beyond
    the crop are missing from it, and others come in, as in training.

    Args:
        images: The prepared split.
        noises: What is done to the labels.
        crop: Side, pixels, at least `LEAST_CELLS` cells. Default: 256, or what fits into the smallest of the images, in
            whole cells.
        count: How many.
        stride: Pixels per cell.
        seed: Seed of the noise.

    Raises:
        ValueError: If no crop has a head, a crop is below `LEAST_CELLS` cells, or a number is out of range.
    """
    if count < 1:
        raise ValueError(f"the number of crops must be at least 1; found {count!r}")
    part = evenly(images, count)
    side = crop
    if side is None:
        least = min(min(part.image(index).shape[:2]) for index in range(len(part)))
        side = min(256, max(least // stride, 1) * stride)
    if side < LEAST_CELLS * stride:
        found_in = "crop is" if crop is not None else "the images of the split allow crops of"
        raise ValueError(
            f"{found_in} {side} px; expected at least {LEAST_CELLS} cells of {stride} px, {LEAST_CELLS * stride} px: "
            "take a smaller stride, or larger crops"
        )
    like = {"crop": side, "scale": (1.0, 1.0), "flip": 0.0, "seed": 0, "noise_seed": seed}
    clean = TrainCrops(part, **like)
    noisy = {str(noise): TrainCrops(part, noise=noise, **like) for noise in noises}
    found = []
    for index in range(len(part)):
        wanted = count // len(part) + (index < count % len(part))
        keys = [index + tried * len(part) for tried in range(TRIES * wanted)]
        for key in [key for key in keys if len(clean[key].points)][:wanted]:
            targets = {name: collate([crops[key]]).target for name, crops in noisy.items()}
            found.append(Crop(part.ids[index], collate([clean[key]]).target, targets))
    if not found:
        raise ValueError(f"{images.name}: no head in any of {count} crops of {side} pixels; take larger or more crops")
    return found


def informed(loss: CrowdLoss, target: Target, *, stride: int = 8, sigma: float | None = 8.0) -> Prediction:
    """The truth as the loss would read it from a network; see the module. float64, one image.

    Args:
        loss: Who reads it.
        target: The true heads.
        stride: Pixels per cell.
        sigma: Standard deviation of a head, pixels. None: dots.
    """
    if loss.reads == "points":
        places, logits = _proposals(target, stride)
        near, head = match(places, torch.zeros_like(logits), target.points[0].double())
        places[near] = target.points[0].double()[head]
        # What the heads leave of the count goes to the others, so that the probabilities add up to it.
        logits[:, 1] = _logit((1 - CONFIDENCE) * len(near) / max(len(places) - len(near), 1))
        logits[near, 1] = _logit(CONFIDENCE)
        return Prediction(stride, points=places[None], logits=logits[None])
    sample = samples(_even(target, stride), target)[0]
    shape = (sample.density.shape[0], sample.density.shape[1])
    density = dots(sample.points, shape, stride, target.image_size) if sigma is None else L2(sigma=sigma).target(sample)
    return Prediction(stride, density=density[None, None])


def uninformed(loss: CrowdLoss, target: Target, *, stride: int = 8) -> Prediction:
    """Nothing but the true count, evenly over the crop; see the module. float64, one image."""
    if loss.reads == "points":
        places, logits = _proposals(target, stride)
        logits[:, 1] = _logit(len(target.points[0]) / len(places))
        return Prediction(stride, points=places[None], logits=logits[None])
    return _even(target, stride)


def measure(
    losses: Mapping[str, CrowdLoss],
    crops: Sequence[Crop],
    *,
    stride: int = 8,
    sigma: float | None = 8.0,
    progress: Callable[[], None] | None = None,
) -> pd.DataFrame:
    """The label sensitivity of losses on crops.

    Args:
        losses: By the name that the rows carry.
        crops: What all of them see.
        stride: Pixels per cell.
        sigma: Of the true density, pixels; None: dots.
        progress: Called after each loss on each crop.

    Returns:
        One row for each loss, noise and crop: `loss, noise, id` and the columns of `MEASURES`.
    """
    rows = []
    for name, loss in losses.items():
        for crop in crops:
            best = informed(loss, crop.clean, stride=stride, sigma=sigma)
            flat = uninformed(loss, crop.clean, stride=stride)
            rows += [{"loss": name, "noise": noise} | row for noise, row in _compare(loss, crop, best, flat).items()]
            if progress is not None:
                progress()
    return pd.DataFrame(rows, columns=["loss", "noise", "id", *_PARTS])


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Each measure of each loss and noise.

    Args:
        rows: Of `measure`.

    Returns:
        `loss, noise, measure, value, se, low, high, images`, in the order of the rows: standard error and 95 % interval
        (percentiles) are from a bootstrap over images, whose crops stay together. NaN where the sum below the line is
        not positive (the loss does not prefer the truth), or not in all resamples, and with a single image.
    """
    found = []
    for (loss, noise), group in rows.groupby(["loss", "noise"], sort=False):
        by_image = group.groupby("id", sort=False)[list(_PARTS)].sum()
        for name, (above, below) in MEASURES.items():
            numbers = _quotient(by_image[above].to_numpy(float), by_image[below].to_numpy(float))
            found.append((loss, noise, name, *numbers, len(by_image)))
    return pd.DataFrame(found, columns=["loss", "noise", "measure", "value", "se", "low", "high", "images"])


def _quotient(above: NDArray[np.float64], below: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """A ratio of sums over images, its standard error and its 95 % interval."""

    def ratio(above: NDArray[np.float64], below: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        total = below.sum(axis=axis)
        return above.sum(axis=axis) / np.where(total > 0, total, np.nan)

    value = float(ratio(above, below))
    if len(above) < 2 or math.isnan(value):
        return value, math.nan, math.nan, math.nan
    options = {"paired": True, "n_resamples": _RESAMPLES, "random_state": 0, "method": "percentile"}
    with warnings.catch_warnings():  # resamples without a value: then there is no interval
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap((above, below), ratio, **options)
    low, high = (float(end) for end in drawn.confidence_interval)
    return value, float(drawn.standard_error), low, high


# ---------------------------------------------------------------------------------------------------------------------
# One loss on one crop


def _compare(loss: CrowdLoss, crop: Crop, best: Prediction, flat: Prediction) -> dict[str, dict[str, float | str]]:
    """The columns of `measure` for every noise, by its name."""
    value, gradient = _score(loss, best, crop.clean)
    start, slope = _score(loss, flat, crop.clean)
    found: dict[str, dict[str, float | str]] = {}
    for noise, target in crop.noisy.items():
        wrong, pushed = _score(loss, best, target)
        kept = _score(loss, flat, target, slope=False)[0] - wrong
        found[noise] = {
            "id": crop.id,
            "heads": len(crop.clean.points[0]),
            "value_change": wrong - value,
            "gradient_change": _length(pushed - gradient),
            "count_change": -_upwards(pushed - gradient),
            "gradient_rest": _length(gradient),
            "gradient_scale": _length(slope),
            "preference": start - value,
            "preference_change": (start - value) - kept,
        }
    return found


def _score(loss: CrowdLoss, prediction: Prediction, target: Target, *, slope: bool = True) -> tuple[float, Tensor]:
    """Value, and gradient in the density or in the logits (empty without `slope`)."""
    name = "density" if loss.reads == "density" else "logits"
    given: Tensor = getattr(prediction, name).detach().requires_grad_(slope)
    with torch.set_grad_enabled(slope):
        value = loss(prediction._replace(**{name: given}), target)["loss"]
    return float(value.detach()), torch.autograd.grad(value, given)[0] if slope else given.new_empty(0)


def _length(gradient: Tensor) -> float:
    return float(torch.linalg.vector_norm(gradient))


def _upwards(gradient: Tensor) -> float:
    """The component along the unit vector that raises every cell alike, or every proposal's odds of being a person."""
    if gradient.shape[-1] == 2 and gradient.dim() == 3:  # logits
        return float((gradient[..., 1] - gradient[..., 0]).sum()) / math.sqrt(gradient.numel())
    return float(gradient.sum()) / math.sqrt(gradient.numel())


def _even(target: Target, stride: int) -> Prediction:
    """The people evenly over the cells."""
    shape = tuple(-(-side // stride) for side in target.image_size)
    density = torch.full((1, 1, *shape), len(target.points[0]) / float(np.prod(shape)), dtype=torch.float64)
    return Prediction(stride, density=density)


def _proposals(target: Target, stride: int) -> tuple[Tensor, Tensor]:
    """Anchors at their places, and logits of zero."""
    rows, columns = (-(-side // stride) for side in target.image_size)
    places = anchors(rows, columns, stride).double()
    return places, torch.zeros_like(places)


def _logit(probability: float) -> float:
    """Log odds, those of certainty cut: more heads than anchors are no reason for an infinite logit."""
    sure = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(sure / (1 - sure))
