"""The losses as plain functions, one per name: a scalar from tensors, for a training loop of one's own.

    from losses import functional as F
    loss = F.pml(density, points, stride=8)
    loss = F.p2p(proposals, logits, points)

A density loss takes

    density     (h, w), (1, h, w) or (B, 1, h, w), people per cell
    points      (N, 2) for one image, or a list of B such tensors, as (x, y) in input pixels
    stride      input pixels per cell
    image_size  (H, W) of the input; default: the map's size times the stride
    visible, short_side, spacing
                as in `losses.Target`; for one image a single tensor (or number) will do
    **params    the loss's own parameters, see its class: `F.pml(density, points, stride=8, count_norm="l2")`

and a point loss takes `proposals` and `logits`, each (Q, 2) or (B, Q, 2), in place of the density; it reads neither
`stride` nor `image_size`. Every loss of
`losses.names()` is here; the functions are made when they are first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

import losses
from losses.base import Prediction, Target

Points = Tensor | Sequence[Tensor]


def __getattr__(name: str) -> Callable[..., Tensor]:
    """The function of a loss by its name."""
    if name in losses.names():
        return _function(name)
    raise AttributeError(f"module 'losses.functional' has no attribute {name!r}; it has {', '.join(losses.names())}")


def __dir__() -> list[str]:
    """What can be asked for."""
    return list(losses.names())


@cache
def _function(name: str) -> Callable[..., Tensor]:
    """Wraps the class of a loss in a function of the form that its predictions have."""
    cls = losses.load(name)

    def of_density(
        density: Tensor,
        points: Points,
        *,
        stride: int,
        image_size: tuple[int, int] | None = None,
        visible: Points | None = None,
        short_side: Tensor | float | None = None,
        spacing: Points | None = None,
        **params: Any,
    ) -> Tensor:
        batch = _batch(density)
        size = image_size or (batch.shape[-2] * stride, batch.shape[-1] * stride)
        if short_side is not None:
            short_side = torch.as_tensor(short_side, dtype=batch.dtype, device=batch.device).reshape(-1)
        target = Target(_list(points), size, _list(visible), short_side, _list(spacing))
        terms: dict[str, Tensor] = losses.build(name, **params)(Prediction(stride, batch), target)
        return terms["loss"]

    def of_points(
        proposals: Tensor,
        logits: Tensor,
        points: Points,
        *,
        stride: int = 8,
        image_size: tuple[int, int] = (1, 1),
        **params: Any,
    ) -> Tensor:
        proposals, logits = (t.unsqueeze(0) if t.dim() == 2 else t for t in (proposals, logits))
        prediction = Prediction(stride, points=proposals, logits=logits)
        terms: dict[str, Tensor] = losses.build(name, **params)(prediction, Target(_list(points), image_size))
        return terms["loss"]

    function: Callable[..., Tensor] = of_density if cls.reads == "density" else of_points
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{cls.__name__} as a scalar; its arguments are those of `losses.functional`.\n\n{cls.__doc__}"
    return function


def _batch(density: Tensor) -> Tensor:
    """A density as (B, 1, h, w). A rank that fits no reading is left for the loss to report."""
    if density.dim() == 2:
        return density[None, None]
    return density.unsqueeze(0) if density.dim() == 3 else density


def _list(values: Points | None) -> Any:
    """One tensor per image: a single tensor is a batch of one."""
    if values is None:
        return None
    return [values] if isinstance(values, Tensor) else list(values)
