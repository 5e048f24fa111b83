"""What is trained: a `RunSpec` holds everything that changes the trained weights, and nothing else.

Its canonical JSON is hashed to the run's id. Where the data lie, which device trains, how many processes run and which
metrics are computed afterwards are no part of it: the same experiment has the same id on every machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer

__all__ = [
    "LOCALISATION_VERSION",
    "METRICS_VERSION",
    "PROTOCOL_VERSION",
    "EvaluationSpec",
    "LocalisationSpec",
    "Recipe",
]
__all__ += ["RadiusName", "RunSpec", "Scalar", "Selection", "digest_of"]

Scalar = str | int | float | bool | None
"""A parameter's value, as JSON writes it."""

PROTOCOL_VERSION = 1
"""Raised when the way a run is trained changes what the same spec gives: crops, noise, optimiser steps, selection."""

METRICS_VERSION = 1
"""Raised when the same weights would be given other per-image numbers."""

RadiusName = Annotated[
    str, Field(pattern=r"^(sigma_[sl]|[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?(px|head)?|[0-9]+:[0-9]+)$", max_length=24)
]
"""`8px`, `sigma_l`, `0.5head`, `1:100`: a word of `runners.metrics.radii.parse_radii`, and of file names."""

LOCALISATION_VERSION = 1
"""Raised when the same weights and localizer would be given other scores: matching, radii, choice of the threshold."""

Selection = Literal["val", "last", "test_oracle"]
"""Which epoch's weights are kept: least MAE on `val`, the last epoch's, or (labelled) the best on the test set."""


class _Frozen(BaseModel):
    """Immutable, strict about unknown fields: a file from elsewhere is either understood or refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_MOST = {"epochs": 1_000_000, "batch_size": 65_536, "crop": 65_536}
"""What a recipe may ask for at most; more is a slip, or absurd (ours)."""


class Recipe(_Frozen):
    """How a run is trained. Defaults are the `shared` recipe: one for all losses, and ours.

    Attributes:
        name: shared, official or tuned.
        epochs: Passes over the training split.
        batch_size: Crops a step; each image gives one crop an epoch.
        crop: Side of the square training crop, pixels.
        scale: Range of the uniform random scale before cropping.
        flip: Probability of a horizontal flip.
        optimizer: adam (weight decay in the gradient) or adamw (decoupled).
        lr: Peak learning rate of the counting head.
        backbone_lr: The pretrained features' rate as a multiple of `lr`.
        weight_decay: Weight decay.
        clip_grad: Largest gradient norm, or None.
        schedule: constant, cosine (to zero), or exponential (to `final_lr`), each after the warm-up.
        warmup: Share of all steps over which the rate rises linearly from a thousandth.
        final_lr: Last rate as a share of `lr` (exponential).
        val_interval: Epochs between validations; the last epoch is always validated.
        val_start: First epoch that may be selected.
        precision: Of the network in training: float32, or bf16, automatic mixed precision. Losses are always
            float32, and so is every evaluation. float32 is not written, so that runs from before have their names.
    """

    name: Literal["shared", "official", "tuned"] = "shared"
    epochs: Annotated[int, Field(ge=1, le=_MOST["epochs"])] = 100
    batch_size: Annotated[int, Field(ge=1, le=_MOST["batch_size"])] = 8
    crop: Annotated[int, Field(ge=1, le=_MOST["crop"])] = 256
    scale: tuple[float, float] = (0.75, 1.33)
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    optimizer: Literal["adam", "adamw"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-4
    backbone_lr: Annotated[float, Field(ge=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip_grad: Annotated[float, Field(gt=0)] | None = 5.0
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    final_lr: Annotated[float, Field(gt=0, le=1)] = 1.0
    val_interval: PositiveInt = 1
    val_start: Annotated[int, Field(ge=0)] = 0
    precision: Literal["float32", "bf16"] = "float32"

    @model_serializer(mode="wrap")
    def _plain(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a precision that every run had before there was a choice."""
        written: dict[str, Any] = write(self)
        if self.precision == "float32":
            written.pop("precision", None)
        return written


class RunSpec(_Frozen):
    """One training, completely described.

    Attributes:
        loss, loss_params, loss_version: The loss, every constructor argument with its value, its mathematics' version.
        backbone, head, stride, output: The network; `output` is what makes its density non-negative.
        weights, weights_hash: Where its features start: `none`, `imagenet` or a file's name, and the content's hash.
        dataset, dataset_params, dataset_hash: The images, how they are read, and the hash of their content.
        noise, noise_seed: What was done to the training labels.
        recipe: How it is trained.
        seed: Initialisation, order and crops.
        protocol: `PROTOCOL_VERSION` at the time.
    """

    loss: str
    loss_params: dict[str, Scalar]
    loss_version: int
    backbone: str
    head: str
    stride: PositiveInt
    output: str
    weights: str
    weights_hash: str
    dataset: str
    dataset_params: dict[str, Scalar]
    dataset_hash: str
    noise: str
    noise_seed: int
    recipe: Recipe
    seed: Annotated[int, Field(ge=0)]
    protocol: int = PROTOCOL_VERSION

    @property
    def run_id(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the canonical JSON.

        The *name* of a weight file is left out: its content is what matters.
        """
        return digest_of(self.model_dump(mode="json", exclude={"weights"}))


class EvaluationSpec(_Frozen):
    """A measurement of a trained run: which weights, on which split, by which version of the metrics."""

    selection: Selection = "val"
    split: Literal["test", "val"] = "test"
    metrics: int = METRICS_VERSION

    @property
    def eval_id(self) -> str:
        """A readable name that is also a folder: selection, split, metrics version."""
        return f"{self.selection}-{self.split}-m{self.metrics}"


class LocalisationSpec(_Frozen):
    """A measurement of *where* people are: whose weights, which localizer, which distances count as a hit.

    Attributes:
        selection, split: As in `EvaluationSpec`.
        localizer, params, version: The localizer, every constructor argument with its value, its own version. A
            `threshold` of None is chosen on `val`.
        radii: Names of the distances within which a point may be matched to a head: `4px`, `sigma_l`, ...
        main: The radius whose F1 on `val` chooses the threshold.
        metrics: `LOCALISATION_VERSION` at the time.
    """

    selection: Selection = "val"
    split: Literal["test", "val"] = "test"
    localizer: str
    params: dict[str, Scalar]
    version: int
    radii: tuple[RadiusName, ...]
    main: RadiusName
    metrics: int = LOCALISATION_VERSION

    @property
    def eval_id(self) -> str:
        """A readable name that is also a folder: selection, split, localizer, and a hash of all of it."""
        name = re.sub(r"[^A-Za-z0-9_]", "_", self.localizer)
        return f"{self.selection}-{self.split}-{name}-{digest_of(self.model_dump(mode='json'))[:8]}"


def digest_of(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of `value` as JSON with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
