"""Looks at the loss of every training step: one that is not finite, or has exploded, ends the run with its batch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from losses.base import Target
from results.limits import limit

__all__ = ["DivergedError", "Step", "Watch"]

DEEPEST = 4
"""Batches that are held until their loss has come from the GPU (ours). Work is queued one or two steps ahead."""


class DivergedError(FloatingPointError):
    """The loss or the prediction is NaN or infinite, or the loss has exploded.

    Attributes:
        batch: What it happened on: normalised images, points of each image, prediction; None where it is not known.
        ids: The images' ids, where they are known.
        behind: Steps that have gone by since; 0 where it is the step that is going on.
    """

    batch: dict[str, Tensor] | None = None
    ids: Sequence[str] = ()
    behind: int = 0


@dataclass(frozen=True)
class Step:
    """A batch that a loss was computed of.

    Attributes:
        images: Normalised images, (B, 3, H, W).
        target: Their points.
        ids: The images' ids, or None.
        prediction: Density (B, 1, h, w) or logits (B, Q, 2), without their graph.
    """

    images: Tensor
    target: Target
    ids: Sequence[Any] | None
    prediction: Tensor


@dataclass(frozen=True)
class _Unseen:
    """A step whose loss has not been looked at."""

    number: int
    names: tuple[str, ...]
    values: _Coming
    batch: Step


class Watch:
    """Refuses a step whose loss is not finite, or that has exploded.

    That is, one of a loss above `limit`; one whose counts are off by more people than its crops have pixels; and in the
    first epoch, which has no limit yet, one of a loss above the square of `CROWD_MAX_LOSS_GROWTH` (a million) times
    that of the first step with people. All ours, and far from what sound training does, see `allow`.

    On a CPU at once, before the optimiser could spoil the weights. On a GPU a look would make every step wait for the
    device. There the numbers are copied beside the work that is queued, and looked at when they have come, mostly one
    step later; the last at the end of the epoch, before anything of it is kept. Other accelerators are left to the
    mean of the epoch, see `runners.hooks.History`.

    Attributes:
        limit: Largest absolute loss of a step (in the unit of the loss); infinite until an epoch has been trained.
    """

    def __init__(self) -> None:
        self.limit = math.inf
        self._start = 0.0
        self._steps = 0
        self._waiting: deque[_Unseen] = deque()

    def allow(self, largest: float | None) -> None:
        """Sets the limit: `CROWD_MAX_LOSS_GROWTH` (1,000, ours) times the largest loss of a step of the first epoch.

        In sound training of all losses none was more than 4.4 times that; P2P at a thousandfold learning rate came to
        3,700 times (measured on ShanghaiTech B).

        Args:
            largest: The largest absolute loss of a step of the first epoch; None where it is not known, or yet to come.
        """
        self.limit = limit("CROWD_MAX_LOSS_GROWTH") * largest if largest else math.inf

    def see(self, terms: dict[str, Tensor], batch: Step) -> None:
        """Looks at a step's terms now (CPU), or as soon as they have come (GPU).

        Args:
            terms: Scalars by name, with `loss`, what is optimised.
            batch: What they were computed of.

        Raises:
            DivergedError: If this step, or an earlier one that has come by now, diverged.
        """
        device = terms["loss"].device.type
        if device == "cpu":
            trouble = self._trouble({name: float(value.detach()) for name, value in terms.items()}, batch)
            if trouble:
                raise self.error(trouble, batch)
        elif device == "cuda":
            self._look(wait=False)
            if len(self._waiting) < DEEPEST:
                values = torch.stack([value.detach().float() for value in terms.values()])
                self._waiting.append(_Unseen(self._steps, tuple(terms), _Coming(values), batch))
        self._steps += 1

    def settle(self) -> None:
        """Waits for what has not come, and looks at it.

        Raises:
            DivergedError: If one of those steps diverged.
        """
        self._look(wait=True)

    def error(self, message: str, batch: Step | None, behind: int = 0) -> DivergedError:
        """The error, with the batch that it happened on."""
        error = DivergedError(message)
        error.behind = behind
        if batch is not None:
            found = {"images": batch.images, "prediction": batch.prediction}
            found |= {f"points_{place}": points for place, points in enumerate(batch.target.points)}
            error.batch = {name: value.detach().cpu().contiguous() for name, value in found.items()}
            error.ids = [str(each) for each in batch.ids or ()]
        return error

    def _look(self, wait: bool) -> None:
        """Looks at the steps whose values have come, the earliest first."""
        while self._waiting and (wait or self._waiting[0].values.here()):
            step = self._waiting.popleft()
            terms = dict(zip(step.names, step.values.numbers(), strict=True))
            trouble = self._trouble(terms, step.batch)
            if trouble:
                self._waiting.clear()
                raise self.error(trouble, step.batch, self._steps - step.number)

    def _trouble(self, terms: dict[str, float], batch: Step) -> str:
        """Why a step diverged; "" if it did not."""
        size, growth = abs(terms["loss"]), limit("CROWD_MAX_LOSS_GROWTH")
        words = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
        if not math.isfinite(size):
            return f"the loss is not finite: {words}"
        if size > self.limit:
            return (
                f"the loss has exploded: {words}; the largest that is allowed is {self.limit:.4g}, {growth:,} times "
                "that of the first epoch (CROWD_MAX_LOSS_GROWTH changes it)"
            )
        if terms.get("train_mae", 0.0) > math.prod(batch.target.image_size):
            return f"the prediction has exploded: {words}; its counts are off by more people than the crops have pixels"
        if self.limit < math.inf or not any(len(points) for points in batch.target.points):
            return ""
        self._start = self._start or size
        if size > growth**2 * self._start:
            return (
                f"the loss has exploded: {words}; it was {self._start:.4g} at the first step with people, and may be "
                f"{growth:,} x {growth:,} times that in the first epoch (CROWD_MAX_LOSS_GROWTH changes it)"
            )
        return ""


class _Coming:
    """Numbers on their way from a GPU to the host, beside the work that is queued there."""

    def __init__(self, values: Tensor) -> None:
        self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        self._host.copy_(values, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(values.device))

    def here(self) -> bool:
        """Whether they have come; does not wait."""
        return bool(self._event.query())

    def numbers(self) -> list[float]:
        """The numbers; waits for them."""
        self._event.synchronize()
        return [float(value) for value in self._host.tolist()]
