"""The one interface of the zoo: what a loss is given, what it returns, and the checks all losses share.

Conventions, everywhere in this package:

* The origin is the corner of the image: pixel (row r, column c) covers [c, c+1) x [r, r+1), and the centre of the
  density cell (r, c) at stride s is x = (c + 0.5) s, y = (r + 0.5) s. A horizontal flip maps x to W - x.
* Points are (x, y) in pixels of the network's input. Density is people per cell: a map sums to the count.
* Every term is averaged over the images of a batch unless a loss says otherwise in its docstring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from losses.discovery import parameters, shortened, suggestion
from losses.parallel import over_all

__all__ = ["VARIANTS", "CrowdLoss", "Prediction", "Sample", "Target"]

VARIANTS = ("paper", "official")


class Target(NamedTuple):
    """What the annotators left for one batch of images.

    A NamedTuple rather than a dataclass, so that training frameworks move its tensors to the device.

    Attributes:
        points: B tensors of shape (N_i, 2), heads as (x, y) in input pixels; N_i may be 0.
        image_size: (H, W) of the network's input, pixels.
        visible: B tensors of shape (N_i,), the share of each head's box inside the crop, in [0, 1] (BL, NoiseCC).
            Default: 1 for every head.
        short_side: (B,), the shorter side of the *whole* image at the scale of the crop, pixels (the background of BL
            and NoiseCC). Default: the shorter side of the input.
        spacing: B tensors of shape (N_i,), mean distance to the three nearest other heads in the whole image, pixels
            (geometry-adaptive L2). Default: computed from the points of the crop.
    """

    points: list[Tensor]
    image_size: tuple[int, int]
    visible: list[Tensor] | None = None
    short_side: Tensor | None = None
    spacing: list[Tensor] | None = None


class Prediction(NamedTuple):
    """What a network says about one batch: a density map, or point proposals with their logits.

    Attributes:
        stride: Input pixels per density cell (or per proposal cell) along each axis.
        density: (B, 1, h, w) people per cell, non-negative.
        points: (B, Q, 2) proposals as (x, y) in input pixels.
        logits: (B, Q, 2) unnormalised scores, class 0 background and class 1 person.
    """

    stride: int
    density: Tensor | None = None
    points: Tensor | None = None
    logits: Tensor | None = None


class Sample(NamedTuple):
    """One image of a batch, as a density loss sees it. All tensors share the density's dtype and device.

    Attributes:
        density: (h, w) people per cell.
        points: (n, 2) heads as (x, y), input pixels; n may be 0.
        stride: Input pixels per cell.
        image_size: (H, W) of the input, pixels.
        visible: (n,) visible share of each head, in [0, 1].
        short_side: () shorter side of the whole image at crop scale, pixels.
        spacing: (n,) mean distance to the three nearest heads of the whole image, or None where the caller gave none.
        batch_points: The points of *all* images of the batch, for the official losses that couple images; of all
            processes where the batch is dealt out.
    """

    density: Tensor
    points: Tensor
    stride: int
    image_size: tuple[int, int]
    visible: Tensor
    short_side: Tensor
    spacing: Tensor | None
    batch_points: tuple[Tensor, ...]


class CrowdLoss(nn.Module):
    """Base of every loss: validates, walks over the images of a batch, and averages.

    A density loss writes `image_terms` only, the mathematics of one image, or that of several at once, see
    `losses.images.TogetherLoss`. A loss that couples images overrides `reduce` (how one term's per-image values become
    a scalar) or, if it reads proposals, `forward_terms`.

    Args:
        variant: `"paper"` follows the published formula, `"official"` the authors' released code where it departs.
        validate: Check the *values* of the tensors (finite, non-negative). None checks on the CPU and, because it would
            synchronise, not on an accelerator; True always checks; False never does. Shapes are always checked.

    Raises:
        ValueError: If `variant` is unknown.
    """

    reads: ClassVar[Literal["density", "points"]] = "density"
    """Which fields of a `Prediction` the loss reads."""
    reference: ClassVar[str] = ""
    """Paper and equation."""
    version: ClassVar[int] = 1
    """Raised when the mathematics changes; part of a run's identity."""
    exact_gradient: ClassVar[bool] = True
    """Whether autograd's gradient is the derivative of the value. False: some quantities are held constant."""
    accepts_negative: ClassVar[bool] = False
    """Whether a density below zero is meaningful (only the regression loss L2)."""
    main_weight: ClassVar[str | None] = None
    """The constructor argument that a fair search of hyper-parameters varies beside the learning rate."""

    def __init__(self, *, variant: str = "paper", validate: bool | None = None) -> None:
        super().__init__()
        check_choice("variant", variant, VARIANTS)
        self.variant = variant
        self.validate = validate

    @property
    def official(self) -> bool:
        """Whether this instance follows the released code rather than the paper."""
        return self.variant == "official"

    def extra_repr(self) -> str:
        """Every parameter with its value: `DMCount(ot_weight=0.1, ...)`."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in parameters(type(self)) if hasattr(self, name))

    def forward(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """Scores a batch.

        Args:
            prediction: The network's output; `density` or `points` and `logits`, as `reads` says.
            target: The annotation of the same images.

        Returns:
            `{"loss": scalar with gradient, "term/<name>": detached scalars}`; the terms sum to the loss. Exactly one
            key contains "loss", because some training frameworks add up every key that does.

        Raises:
            TypeError, ValueError: If a tensor is missing or has the wrong type, shape, device or values.
        """
        check_inputs(self, prediction, target)
        terms = self.forward_terms(prediction, target)
        total = torch.stack([*terms.values()]).sum()
        return {"loss": total, **{f"term/{name}": value.detach() for name, value in terms.items()}}

    def forward_terms(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """The named terms of a checked batch, each a scalar. Density losses inherit this loop over images."""
        per_image = [self.image_terms(sample) for sample in self.coupled(samples(prediction, target))]
        return {name: self.reduce(name, torch.stack([terms[name] for terms in per_image])) for name in per_image[0]}

    def image_terms(self, sample: Sample) -> dict[str, Tensor]:
        """The named terms of one image, each a scalar; the same names for every image, with or without people."""
        raise NotImplementedError(f"{type(self).__name__} must define image_terms (density) or forward_terms (points)")

    def targets(self, prediction: Prediction, target: Target) -> list[Tensor | None]:
        """What each image's prediction is moved towards, see `losses.proximal.view`; not needed for training.

        Args:
            prediction: As `forward`.
            target: As `forward`.

        Returns:
            For each image `image_target`; of a point loss the wanted probability of each proposal, (Q,).
        """
        return [self.image_target(sample) for sample in samples(prediction, target)]

    def image_target(self, sample: Sample) -> Tensor | None:
        """The target p* of one image's density in the proximal view, (h, w) people per cell; None: none is known."""
        return None

    def coupled(self, batch: list[Sample]) -> list[Sample]:
        """The images with what they need to know of each other; as they are, unless a loss couples them."""
        return batch

    def reduce(self, name: str, values: Tensor) -> Tensor:
        """Turns one term's values, shape (B,), into a scalar. The mean, unless a loss couples its images.

        Where the batch is dealt out to several processes it is this one's share, see `losses.parallel`.
        """
        return over_all(values.sum(), len(values))


def samples(prediction: Prediction, target: Target) -> list[Sample]:
    """Splits a checked batch into images, in the density's dtype and on its device.

    Points are cast to the density's dtype so that a float64 density gives a float64 loss.
    """
    density = prediction.density
    assert density is not None  # check_inputs has seen to it
    like: dict[str, Any] = {"dtype": density.dtype, "device": density.device}
    height, width = target.image_size
    points = tuple(p.to(density.dtype) for p in target.points)
    seen = torch.ones(max(map(len, points)), **like)
    short = target.short_side
    sides = torch.full((len(points),), float(min(height, width)), **like) if short is None else short.to(**like)
    return [
        Sample(
            density=density[b, 0],
            points=points[b],
            stride=prediction.stride,
            image_size=target.image_size,
            visible=seen[: len(points[b])] if target.visible is None else target.visible[b].to(**like),
            short_side=sides[b],
            spacing=None if target.spacing is None else target.spacing[b].to(**like),
            batch_points=points,
        )
        for b in range(len(points))
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Checks. Each message names the tensor, what was found and what was expected.


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raises ValueError unless a loss's parameter is one of a few words."""
    if value not in allowed:
        hint = suggestion(str(value), allowed)
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; found {shortened(value)}.{hint}")


def check_number(name: str, value: float, *, above: float | None = None, at_least: float | None = None) -> None:
    """Raises unless a loss's parameter is a finite number in its range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number; found {shortened(value)} of type {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite; found {value}")
    if above is not None and value <= above:
        raise ValueError(f"{name} must be above {above:g}; found {value}")
    if at_least is not None and value < at_least:
        raise ValueError(f"{name} must be at least {at_least:g}; found {value}")


def check_inputs(loss: CrowdLoss, prediction: Prediction, target: Target) -> None:
    """Checks a batch against what `loss` reads.

    Shapes, types and devices cost nothing and are always checked. Values are checked on the CPU, elsewhere only with
    `validate=True`, because looking at them would make the accelerator wait.

    Raises:
        TypeError: A field is missing or is no tensor of the right kind.
        ValueError: A shape, a device or a value is wrong.
    """
    main = _check_prediction(loss, prediction)
    _check_target(main, target)
    if loss.reads == "density":
        _check_stride(main, prediction.stride, target.image_size)
    if loss.validate or (loss.validate is None and main.device.type == "cpu"):
        _check_values(loss, prediction, target)


def _check_prediction(loss: CrowdLoss, prediction: Prediction) -> Tensor:
    """Checks rank, dtype and device of the fields the loss reads, and returns the main one."""
    if not isinstance(prediction, Prediction):
        raise TypeError(f"prediction must be a losses.Prediction; found {type(prediction).__name__}")
    if not isinstance(prediction.stride, int) or prediction.stride < 1:
        raise ValueError(f"prediction.stride must be a positive integer; found {prediction.stride!r}")
    proposals = "(B, Q, 2)"
    expected = {"density": "(B, 1, h, w)"} if loss.reads == "density" else {"logits": proposals, "points": proposals}
    for name, shape in expected.items():
        tensor = getattr(prediction, name)
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{type(loss).__name__} reads prediction.{name} of shape {shape}; found {type(tensor).__name__}. "
                f"Use a network with a {'density' if loss.reads == 'density' else 'point'} head."
            )
        if not tensor.is_floating_point():
            raise TypeError(f"prediction.{name} must be floating point; found {tensor.dtype}")
        rank_fits = tensor.dim() == (4 if name == "density" else 3)
        last_fits = rank_fits and (tensor.shape[1] == 1 if name == "density" else tensor.shape[2] == 2)
        if not last_fits or 0 in tensor.shape:
            raise ValueError(f"prediction.{name} must have shape {shape}, nothing empty; found {tuple(tensor.shape)}")
    if loss.reads == "points":
        assert prediction.points is not None
        assert prediction.logits is not None
        if prediction.points.shape != prediction.logits.shape:
            raise ValueError(
                f"prediction.points {tuple(prediction.points.shape)} and prediction.logits "
                f"{tuple(prediction.logits.shape)} must have the same shape (B, Q, 2)"
            )
        if prediction.points.device != prediction.logits.device:
            raise ValueError(
                f"prediction.points is on {prediction.points.device} and prediction.logits on "
                f"{prediction.logits.device}; move both to one device"
            )
        return prediction.logits
    assert prediction.density is not None
    return prediction.density


def _check_target(main: Tensor, target: Target) -> None:
    """Checks the annotation's structure against the batch size and device of the prediction."""
    if not isinstance(target, Target):
        raise TypeError(f"target must be a losses.Target; found {type(target).__name__}")
    size = target.image_size
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"target.image_size must be two positive integers (H, W); found {size!r}")
    batch = main.shape[0]
    _check_list("points", target.points, batch, main, (2,))
    counts = [len(p) for p in target.points]
    for name, values in (("visible", target.visible), ("spacing", target.spacing)):
        if values is not None:
            _check_list(name, values, batch, main, ())
            for b, (value, count) in enumerate(zip(values, counts, strict=True)):
                if len(value) != count:
                    raise ValueError(f"target.{name}[{b}] has {len(value)} values for {count} points; one per point")
    if target.short_side is not None:
        if tuple(target.short_side.shape) != (batch,):
            raise ValueError(f"target.short_side must have shape ({batch},); found {tuple(target.short_side.shape)}")
        if target.short_side.device != main.device:
            raise ValueError(f"target.short_side is on {target.short_side.device}, the prediction on {main.device}")


def _check_list(name: str, tensors: Any, batch: int, main: Tensor, tail: tuple[int, ...]) -> None:
    """Checks a list of per-image tensors: its length, and each one's rank, dtype and device."""
    if isinstance(tensors, Tensor) or not isinstance(tensors, Sequence):
        raise TypeError(f"target.{name} must be a list of {batch} tensors; found {type(tensors).__name__}")
    if len(tensors) != batch:
        raise ValueError(f"target.{name} must have one tensor per image: {batch}; found {len(tensors)}")
    shape = "(N, 2)" if tail else "(N,)"
    for b, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"target.{name}[{b}] must be a tensor of shape {shape}; found {type(tensor).__name__}")
        if tensor.dim() != 1 + len(tail) or tuple(tensor.shape[1:]) != tail:
            raise ValueError(f"target.{name}[{b}] must have shape {shape}; found {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise TypeError(f"target.{name}[{b}] must be floating point; found {tensor.dtype}")
        if tensor.device != main.device:
            raise ValueError(
                f"target.{name}[{b}] is on {tensor.device}, the prediction on {main.device}; move both to one"
            )


def _check_stride(density: Tensor, stride: int, image_size: tuple[int, int]) -> None:
    """A map of h x w cells at stride s must cover the image: ceil(H / s) x ceil(W / s) cells."""
    cells = tuple(density.shape[-2:])
    expected = tuple(-(-side // stride) for side in image_size)
    if cells != expected:
        raise ValueError(
            f"prediction.density has {cells[0]} x {cells[1]} cells, but an image of {image_size[0]} x {image_size[1]} "
            f"pixels at stride {stride} needs {expected[0]} x {expected[1]}; check the stride and target.image_size"
        )


def _check_values(loss: CrowdLoss, prediction: Prediction, target: Target) -> None:
    """Checks that all numbers are finite and that densities and shares lie where they are defined."""
    names = ("density",) if loss.reads == "density" else ("points", "logits")
    for name in names:
        tensor: Any = getattr(prediction, name)
        _check_finite(f"prediction.{name}", tensor)
    if loss.reads == "density" and not loss.accepts_negative:
        assert prediction.density is not None
        lowest = prediction.density.detach().min().item()
        if lowest < 0:
            raise ValueError(
                f"prediction.density must not be negative; found a minimum of {lowest:.4g}. "
                "End the network with ReLU, softplus or abs."
            )
    for b, points in enumerate(target.points):
        _check_finite(f"target.points[{b}]", points)
    for b, visible in enumerate(target.visible or []):
        if visible.numel() and not bool(((visible >= 0) & (visible <= 1)).all()):
            lowest, highest = visible.min().item(), visible.max().item()
            raise ValueError(f"target.visible[{b}] must lie in [0, 1]; found {lowest:.4g} to {highest:.4g}")
    for b, spacing in enumerate(target.spacing or []):
        if spacing.numel() and not bool((spacing >= 0).all()):
            raise ValueError(f"target.spacing[{b}] must be at least 0; found {spacing.min():.4g}")
    if target.short_side is not None and not bool((target.short_side > 0).all()):
        raise ValueError(f"target.short_side must be positive; found {target.short_side.min():.4g}")


def _check_finite(name: str, tensor: Tensor) -> None:
    """Raises with the number and the first place of the values that are NaN or infinite."""
    finite = torch.isfinite(tensor.detach())
    if not bool(finite.all()):
        bad = (~finite).nonzero()
        raise ValueError(
            f"{name} has {len(bad)} of {tensor.numel()} values NaN or infinite, the first at {tuple(bad[0].tolist())}; "
            "all must be finite"
        )
