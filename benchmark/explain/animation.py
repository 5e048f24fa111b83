"""A free density map descends each loss: no network, no data, only what the loss itself wants.

Every cell has a parameter u of its own, the density is softplus(u) >= 0 (of a point loss: the proposal's probability
of "person" is sigmoid(u); for very negative u both are exp(u)). Adam moves u, with one learning rate for all losses:
its steps do not depend on a loss's scale, so that losses in people, in pixels^2 and in logits get equal ones. The rate
falls to zero on a cosine, so that losses with kinks come to rest. All of this is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.explain.fields import build, by_head, nearest, proposals, target_of
from benchmark.explain.scenes import WIDE, Scene, kernels
from benchmark.names import Choice
from losses import CrowdLoss, Prediction
from losses.discovery import check_known

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FORMATS", "STARTS", "Descent", "Settings", "check_settings", "descend", "descents", "write_frames"]

Floats = NDArray[np.float64]

FORMATS = ("gif", "mp4", "frames")
STARTS = ("uniform", "blurred")
CLOSE = 4.0
"""Mass within this many pixels of a head is at the head (ours): one cell of the default stride."""
_PERSON = 0.5
"""A proposal above this probability is counted [P2PNet]."""
_EPSILON = 1e-8
"""Adam's epsilon, as a share of the first step's largest slope: what is that small moves nothing."""
_SECONDS = 0.12, 2.0
"""A frame of an animation, and its last one."""


class Settings(NamedTuple):
    """How a map descends.

    Attributes:
        start: `uniform`: half the heads, spread evenly; `blurred`: half of each head as a Gaussian of 12 px.
        steps: Number of steps.
        frames: Pictures kept, the start and the end among them; at most steps + 1, as each is of a step of its own.
        rate: Adam's learning rate at the start: a density changes by about this share in a step.
    """

    start: str = "uniform"
    steps: int = 300
    frames: int = 40
    rate: float = 0.1


class Descent(NamedTuple):
    """What a map did.

    Attributes:
        loss: The label.
        reads: `density` or `points`.
        steps: int64 [f], the step of each map kept.
        maps: float64 [f, h, w], people per cell, or probabilities.
        values: float64 [steps + 1], the loss before the first step, ..., after the last.
        counts: float64 [steps + 1], the sum of the map.
        close: float64 [steps + 1], share of the map within 4 px of a head.
        own: float64 [n], what the cells nearest to each head hold in the end.
        proposals: Proposals above 0.5 in the end; None for a density.
    """

    loss: str
    reads: str
    steps: NDArray[np.int64]
    maps: Floats
    values: Floats
    counts: Floats
    close: Floats
    own: Floats
    proposals: int | None


def descents(choices: Iterable[Choice], scene: Scene, settings: Settings | None = None) -> Iterator[Descent]:
    """Each loss's descent from the same start, one after the other.

    Raises:
        ValueError: If a setting is out of range.
    """
    settings = settings or Settings()
    for choice in choices:
        yield descend(str(choice), build(choice), scene, settings)


def descend(name: str, loss: CrowdLoss, scene: Scene, settings: Settings) -> Descent:
    """One loss's descent. The same on every machine of one kind: nothing is drawn at random.

    Raises:
        ValueError: If a setting is out of range.
    """
    check_settings(settings)
    mass = _start(scene, settings.start)
    free = _inverse(loss, mass).requires_grad_()
    adam = torch.optim.Adam([free], lr=settings.rate, betas=(0.9, 0.99), eps=1e-300)
    cosine = torch.optim.lr_scheduler.LambdaLR(adam, lambda t: 0.5 * (1 + math.cos(math.pi * t / settings.steps)))
    target = target_of(scene)
    owner, distance = nearest(scene)
    kept = np.unique(np.linspace(0, settings.steps, settings.frames).round().astype(int))
    maps, values, counts, close = [], [], [], []
    for step in range(settings.steps + 1):
        prediction, now = _read(loss, scene, free)
        adam.zero_grad()
        value = loss(prediction, target)["loss"]
        value.backward()
        if step == 0 and free.grad is not None:
            adam.param_groups[0]["eps"] = max(_EPSILON * float(free.grad.abs().max()), 1e-300)
        map_ = now.detach().numpy().copy()
        values.append(float(value.detach()))
        counts.append(float(map_.sum()))
        close.append(float(map_[distance <= CLOSE].sum()) / max(counts[-1], 1e-12))
        if step in kept:
            maps.append(map_)
        if step < settings.steps:
            adam.step()
            cosine.step()
    return Descent(
        loss=name,
        reads=loss.reads,
        steps=kept.astype(np.int64),
        maps=np.stack(maps),
        values=np.array(values),
        counts=np.array(counts),
        close=np.array(close),
        own=by_head(maps[-1], owner, len(scene.points)),
        proposals=int((maps[-1] > _PERSON).sum()) if loss.reads == "points" else None,
    )


def check_settings(settings: Settings) -> None:
    """Nothing, if a descent can be made so.

    Raises:
        ValueError: If a setting is out of range, or more frames are asked for than there are steps to show.
    """
    check_known("start", settings.start, STARTS)
    if settings.steps < 1 or not 2 <= settings.frames <= 500:
        raise ValueError(
            f"a descent needs at least 1 step and 2 to 500 frames; found {settings.steps} and {settings.frames}"
        )
    if settings.frames > settings.steps + 1:
        raise ValueError(
            f"{settings.frames} frames of {settings.steps} steps: there are {settings.steps + 1} maps to show, "
            f"the start among them; ask for at most --frames {settings.steps + 1}, or for more --steps"
        )
    if not 0 < settings.rate <= 1:
        raise ValueError(f"the learning rate must lie in (0, 1]; found {settings.rate}")


def _start(scene: Scene, name: str) -> Tensor:
    """Half the heads, (h, w) people per cell, nowhere quite zero."""
    even = np.full(scene.cells, len(scene.points) / np.prod(scene.cells))
    mass = even if name == "uniform" else 0.99 * kernels(scene, scene.points, WIDE) + 0.01 * even
    return torch.from_numpy(0.5 * mass)


def _inverse(loss: CrowdLoss, mass: Tensor) -> Tensor:
    """The parameters that give a map."""
    return torch.expm1(mass).log() if loss.reads == "density" else torch.logit(mass.clamp(max=0.9))


def _read(loss: CrowdLoss, scene: Scene, free: Tensor) -> tuple[Prediction, Tensor]:
    """What the loss reads, and the map (h, w)."""
    if loss.reads == "density":
        density = torch.nn.functional.softplus(free)
        return Prediction(scene.stride, density=density[None, None]), density
    return proposals(scene, free.flatten()), free.sigmoid()


# ---------------------------------------------------------------------------------------------------------------------
# Files


def write_frames(frames: Iterable[NDArray[np.uint8]], folder: Path, form: str) -> Path:
    """Writes an animation: `descent.gif`, `descent.mp4`, or `descent/000.png`, ...

    Args:
        frames: uint8 [H, W, 3] of one size, at least one.
        folder: Made if it does not exist.
        form: Of `FORMATS`; gif needs Pillow only, mp4 needs OpenCV.

    Returns:
        The file or folder.

    Raises:
        ValueError: If the format is unknown.
        ImportError, RuntimeError: If OpenCV is not there, or cannot write MP4.
    """
    check_known("format", form, FORMATS)
    from PIL import Image as PillowImage

    if form == "mp4":
        from benchmark.prediction.video import Film

        path = folder / "descent.mp4"
        with Film(path, 1 / _SECONDS[0]) as film:
            last = None
            for last in frames:
                film.add(last)
            for _ in range(round(_SECONDS[1] / _SECONDS[0])):
                if last is not None:
                    film.add(last)
        return path
    from results.atomic import replacing

    if form == "frames":
        path = folder / "descent"
        for number, frame in enumerate(frames):
            with replacing(path / f"{number:03d}.png") as temporary:
                PillowImage.fromarray(frame).save(temporary, format="PNG", optimize=True)
        return path
    pictures = _one_palette([PillowImage.fromarray(frame) for frame in frames])
    times = [round(1000 * _SECONDS[0])] * (len(pictures) - 1) + [round(1000 * _SECONDS[1])]
    path = folder / "descent.gif"
    with replacing(path) as temporary:
        pictures[0].save(
            temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=times, loop=0, optimize=False
        )
    return path


def _one_palette(pictures: Sequence[Image]) -> list[Image]:
    """Pictures of 256 colours, the same in all, so that nothing flickers: 192 of densities, 64 greys for the rest."""
    from matplotlib import colormaps
    from PIL import Image as PillowImage
    from PIL.Image import Dither

    densities = colormaps["magma"](np.linspace(0, 1, 192))[:, :3]
    greys = np.linspace(0, 1, 64)[:, None].repeat(3, axis=1)
    palette = PillowImage.new("P", (1, 1))
    palette.putpalette(np.rint(255 * np.concatenate([densities, greys])).astype(np.uint8).tobytes())
    return [picture.quantize(palette=palette, dither=Dither.NONE) for picture in pictures]
