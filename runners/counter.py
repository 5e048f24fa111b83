"""A network and its loss as one model of the training engine, and the evaluation of whole images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from numpy.typing import NDArray
from torch import Tensor, nn

from losses.base import CrowdLoss, Prediction, Target
from runners.localizers.base import Field
from runners.metrics.counting import image_row
from runners.watch import DivergedError, Step, Watch

__all__ = ["POINT_SCORE", "Counter", "Found", "Seen", "evaluate", "predict", "predictions"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
POINT_SCORE = 0.5
"""Proposals of at least this probability count as people [P2PNet's code]."""


class Normalise(BaseDataPreprocessor):
    """Moves a batch to the device and turns its uint8 images into ImageNet-normalised floats there."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, data: Any, training: bool = False) -> Any:
        """The same NamedTuple with float images."""
        data = self.cast_data(data)
        return data._replace(images=(data.images.float() - self.mean) / self.std)


class Counter(BaseModel):
    """What is trained: `network(images) -> Prediction`, `loss(prediction, target) -> {"loss": ...}`.

    Args:
        network: Module from normalised images (B, 3, H, W) to a `Prediction`.
        loss: The loss; its parameters, if any, are trained with the network's.
        bf16: Whether the network is trained in automatic mixed precision; the loss and evaluations stay in float32.

    Attributes:
        timer: Milliseconds that the loss took, forward and backward.
        watch: Ends the training where the loss diverges.
    """

    def __init__(self, network: nn.Module, loss: CrowdLoss, *, bf16: bool = False) -> None:
        super().__init__(data_preprocessor=Normalise())
        self.network = network
        self.loss = loss
        self.bf16 = bf16
        self.timer = LossTimer()
        self.watch = Watch()
        self._step: Step | None = None

    def forward(
        self, images: Tensor, target: Target, ids: Any = None, valid: Any = None, places: Any = None,
        mode: str = "tensor",
    ) -> Any:  # fmt: skip
        """The loss terms and `train_mae` in mode `loss`, otherwise the prediction. The engine gives a whole batch."""
        if mode != "loss":
            return self.network(images)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            prediction = self.network(images)
        if self.bf16:
            prediction = _float32(prediction)
        self._step = Step(images, target, ids, _main(prediction).detach())
        with self.timer.forward(prediction):
            terms = self._terms(prediction, target)
        self.timer.watch_backward(prediction, terms["loss"])
        return terms | {"train_mae": _count_error(prediction, target)}

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The engine's sum of all losses, looked at by the watch.

        Raises:
            DivergedError: If it is not finite, or has exploded; see `runners.watch.Watch`.
        """
        total, logged = super().parse_losses(losses)
        if self._step is not None:
            self.watch.see(logged | {"loss": total}, self._step)
        return total, logged

    def _terms(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """The loss's terms. What it refuses because the prediction is not finite is an error of its own kind."""
        try:
            return self.loss(prediction, target)
        except ValueError as error:
            if bool(torch.isfinite(_main(prediction)).all()):
                raise
            raise self.watch.error(str(error), self._step) from error


@torch.no_grad()
def _count_error(prediction: Prediction, target: Target) -> Tensor:
    """Mean |predicted - labelled people| of the crops, before the step; labels as trained on, noise included."""
    if prediction.density is not None:
        counts = prediction.density.sum(dim=(1, 2, 3))
    else:
        assert prediction.logits is not None
        counts = (prediction.logits.softmax(-1)[..., 1] >= POINT_SCORE).sum(dim=1)
    labelled = torch.tensor([len(points) for points in target.points], device=counts.device)
    return (counts - labelled).abs().float().mean()


class LossTimer:
    """Measures the loss alone: its forward pass, and its backward pass up to the gradient of the prediction.

    On an accelerator it stays silent, because reading the clock would make the step wait.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = 0
        self._started = 0.0
        self._active = False

    @property
    def milliseconds(self) -> float | None:
        """Mean milliseconds a step, or None where nothing was measured."""
        return 1e3 * self.seconds / self.steps if self.steps else None

    def forward(self, prediction: Prediction) -> LossTimer:
        """A context around the forward pass."""
        self._active = _main(prediction).device.type == "cpu"
        return self

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        if self._active:
            self.seconds += time.perf_counter() - self._started
            self.steps += 1

    def watch_backward(self, prediction: Prediction, loss: Tensor) -> None:
        """Adds the time between the gradient of the loss and that of the prediction."""
        main = _main(prediction)
        if self._active and main.requires_grad and loss.requires_grad:
            loss.register_hook(self._begin)
            main.register_hook(self._end)

    def _begin(self, gradient: Tensor) -> None:
        self._started = time.perf_counter()

    def _end(self, gradient: Tensor) -> None:
        self.seconds += time.perf_counter() - self._started


def _float32(prediction: Prediction) -> Prediction:
    """The same in the precision of the losses; the gradient goes back through the cast."""
    return Prediction(*(value.float() if isinstance(value, Tensor) else value for value in prediction))


def _main(prediction: Prediction) -> Tensor:
    """The tensor of a prediction that carries the gradient."""
    main = prediction.logits if prediction.density is None else prediction.density
    assert main is not None
    return main


class Found(NamedTuple):
    """What a network says of one image, padding included.

    Attributes:
        density: float32 [h, w], people per cell, or None.
        points: float64 [m, 2], people as (x, y), pixels, or None: the proposals that count, with a score of at least
            `POINT_SCORE`.
        stride: Pixels per cell.
        proposals: float64 [q, 2], all proposals as (x, y), pixels, or None.
        scores: float64 [q], probability that a proposal is a person, or None.
    """

    density: NDArray[np.float32] | None
    points: NDArray[np.float64] | None
    stride: int
    proposals: NDArray[np.float64] | None = None
    scores: NDArray[np.float64] | None = None

    def field(self, size: tuple[int, int]) -> Field:
        """What a localizer reads.

        Args:
            size: (H, W) of the image without its padding, pixels.
        """
        return Field(self.stride, size, self.density, self.proposals, self.scores)


class Seen(NamedTuple):
    """One image of a split, and what was found in it.

    Attributes:
        id: Its name.
        heads: float64 [n, 2], its labels as (x, y), pixels.
        size: (H, W) without padding, pixels.
        found: What the network says.
    """

    id: str
    heads: NDArray[np.float64]
    size: tuple[int, int]
    found: Found


@torch.inference_mode()
def evaluate(counter: Counter, loader: Iterable[Any], seen: Callable[[int], None] | None = None) -> pd.DataFrame:
    """Predicts whole images and keeps one row each, in the split's order; see `metrics.counting.image_row`.

    Args:
        counter: The model; put into evaluation mode, and back afterwards.
        loader: See `predictions`.
        seen: Called with the number of images done.
    """
    training = counter.training
    counter.eval()
    rows = []
    for image in predictions(counter, loader):
        rows.append(_row(image))
        if seen is not None:
            seen(len(rows))
    counter.train(training)
    return pd.DataFrame(rows)


@torch.inference_mode()
def predictions(counter: Counter, loader: Iterable[Any]) -> Iterator[Seen]:
    """What the network says of image after image, in the order of the split, however they were batched.

    Args:
        counter: The model, in evaluation mode.
        loader: Batches of padded images of one size, as `evaluation_loader` gives them; their places are 0, 1, 2, ...

    Raises:
        DivergedError: See `predict`.
    """
    waiting: dict[int, Seen] = {}
    due = 0
    for batch in loader:
        for number, found in enumerate(predict(counter, batch)):
            heads = batch.target.points[number].cpu().numpy().astype(np.float64)
            waiting[batch.places[number]] = Seen(batch.ids[number], heads, batch.valid[number], found)
        while due in waiting:
            yield waiting.pop(due)
            due += 1


@torch.inference_mode()
def predict(counter: Counter, batch: Any) -> list[Found]:
    """What the network says of each image of a batch. From an accelerator a batch comes back at once.

    Args:
        counter: The model, in evaluation mode.
        batch: Padded images of one size, as `evaluation_loader` gives it.

    Raises:
        DivergedError: If the predicted density or proposals have NaN or infinite values; it names the image.
    """
    prediction = counter.network(counter.data_preprocessor(batch, False).images)
    if prediction.density is not None:
        densities = prediction.density[:, 0].float().cpu().numpy()
        _check_finite(batch.ids, densities)
        return [Found(density, None, prediction.stride) for density in densities]
    assert prediction.points is not None
    assert prediction.logits is not None
    scores = prediction.logits.float().softmax(-1)[..., 1].cpu().numpy()
    proposals = prediction.points.float().cpu().numpy().astype(np.float64)
    _check_finite(batch.ids, proposals, scores)
    return [
        Found(None, where[score >= POINT_SCORE], prediction.stride, where, score.astype(np.float64))
        for where, score in zip(proposals, scores, strict=True)
    ]


def _check_finite(ids: Sequence[str], *predicted: NDArray[Any]) -> None:
    """Refuses a batch of which an image's part is not finite, by that image's name."""
    for id, *parts in zip(ids, *predicted, strict=True):
        if not all(np.isfinite(part).all() for part in parts):
            raise DivergedError(f"the prediction of image {id} has NaN or infinite values")


def _row(image: Seen) -> dict[str, object]:
    """The row of one image; see `metrics.counting.image_row`."""
    found = image.found
    predicted = {"density": found.density, "points": found.points, "stride": found.stride}
    return image_row(image.id, image.heads, image.size, **predicted)
