"""Small crowds for every loss, whatever it reads: the same call gives a density or point proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import losses
from losses import Prediction, Target
from losses.p2p import anchors
from losses.transport import Potentials, together

ALL = [(name, variant) for name in losses.names() for variant in ("paper", "official")]
DENSITY = [(name, variant) for name, variant in ALL if losses.load(name).reads == "density"]
PAPER = [(name, variant) for name, variant in ALL if variant == "paper"]


def scatter(count: int, size: tuple[int, int], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Heads at generic places inside an image of (H, W) pixels."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return (unit * torch.tensor([size[1], size[0]])).to(dtype)


def predict(
    name: str,
    size: tuple[int, int],
    *,
    stride: int = 8,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    total: float = 5.0,
    seed: int = 0,
) -> Prediction:
    """A prediction of the kind that the loss reads, with gradients switched on.

    A density has about a third of exact zeros, as after a ReLU, and sums to `total` in each image.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    h, w = (-(-side // stride) for side in size)
    if losses.load(name).reads == "density":
        density = (torch.rand(batch, 1, h, w, generator=generator, dtype=torch.float64) - 0.3).clamp(min=0)
        density = density * total / density.sum((2, 3), keepdim=True).clamp(min=1e-12)
        return Prediction(stride, density=density.to(dtype).requires_grad_())
    places = anchors(h, w, stride).double()
    noise = torch.randn(batch, len(places), 4, generator=generator, dtype=torch.float64)
    points = (places + 2 * noise[..., :2]).to(dtype).requires_grad_()
    return Prediction(stride, points=points, logits=noise[..., 2:].to(dtype).requires_grad_())


def inputs(prediction: Prediction) -> dict[str, Tensor]:
    """The tensors of a prediction by name."""
    return {k: v for k, v in prediction._asdict().items() if isinstance(v, Tensor)}


def one(prediction: Prediction, b: int) -> Prediction:
    """One image of a batch."""
    return prediction._replace(**{k: v.detach()[b : b + 1].requires_grad_() for k, v in inputs(prediction).items()})


def score(name: str, variant: str, prediction: Prediction, points: list[Tensor], size: tuple[int, int], **params: Any):
    """Value and gradients of a loss."""
    out = losses.build(name, variant=variant, **params)(prediction, Target(points, size))
    tensors = inputs(prediction)
    # The official P2P does not read the proposals' places after the matching.
    gradients = torch.autograd.grad(out["loss"], list(tensors.values()), allow_unused=True)
    return out, {k: g for k, g in zip(tensors, gradients, strict=True) if g is not None}


def padded(points: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Points of several images as (B, n, 2), and which of them are real, (B, n)."""
    real = pad_sequence([torch.ones(len(some), dtype=torch.bool) for some in points], batch_first=True)
    return pad_sequence(list(points), batch_first=True), real


def rounds(points: Sequence[Tensor], mass: Tensor, stride: int, **settings: Any) -> list[Potentials]:
    """What `transport.together.rounds` finds for each image."""
    f, g = together.rounds(*padded(points), mass, stride, **settings)
    return [Potentials(f[image, : len(some)], g[image]) for image, some in enumerate(points)]


def floored_rounds(points: Sequence[Tensor], mass: Tensor, stride: int, **settings: Any) -> Tensor:
    """What `transport.together.floored_rounds` finds for all images."""
    return together.floored_rounds(*padded(points), mass, stride, **settings)
