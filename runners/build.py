"""From a specification to objects: data, network, loss, optimiser, schedules."""

from __future__ import annotations

from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

import losses
from losses.base import CrowdLoss
from results.spec import Recipe, RunSpec
from runners import backbones, data
from runners.data import noise
from runners.data.cache import prepare
from runners.data.datasets.base import CrowdDataset
from runners.data.loader import evaluation_loader, training_loader
from runners.data.transforms import TrainCrops, WholeImages
from runners.job import Place

__all__ = ["EVALUATION_PIXELS", "ChangedError", "Loaders", "loaders", "loss", "network", "optimizer", "schedules"]

EVALUATION_PIXELS = {"cpu": 0, "cuda": 3 * 2**20}
"""Pixels of a batch of whole images of one size, by kind of device (ours); 0: one by one. On a CPU batches of four
take 0.97 to 0.98 of the time at 768x1024 and 0.73 to 0.99 at 192x256, by measurement; but then `benchmark predict`,
which sees one image at a time, would not give the evaluation's bits. On a GPU, where it is not measured, four images of
768x1024 are a batch, and none is larger than one image of 2048x1536."""


class ChangedError(RuntimeError):
    """The images, labels or pretrained weights are not those that the run was planned with."""


class Loaders(NamedTuple):
    """The three splits of a run, the mean count of the training labels as trained on, and where they come from."""

    train: DataLoader[Any]
    val: DataLoader[Any]
    test: DataLoader[Any]
    train_count_mean: float
    dataset: CrowdDataset


def network(spec: RunSpec, place: Place, *, pretrained: bool = True) -> nn.Module:
    """The network, its head drawn from torch's random state.

    Args:
        spec: The run.
        place: Where the file of pretrained weights lies, if the spec names one.
        pretrained: False leaves the features as drawn, for weights that are loaded afterwards.

    Raises:
        ChangedError: If the pretrained weights are not those that the run was planned with.
    """
    weights = "none"
    if pretrained and spec.weights_hash != "none":
        weights = str(place.weights or spec.weights)
        found = backbones.weights_hash(weights, spec.backbone)
        if found != spec.weights_hash:
            raise ChangedError(
                f"the weights {weights} have the hash {found}, planned was {spec.weights_hash}; plan again"
            )
    reads = losses.load(spec.loss).reads
    return backbones.build_counter(
        spec.backbone, head=spec.head, stride=spec.stride, reads=reads, weights=weights, output=spec.output
    )


def loss(spec: RunSpec) -> CrowdLoss:
    """The loss with every parameter as specified."""
    return losses.build(spec.loss, **spec.loss_params)


def loaders(spec: RunSpec, place: Place, multiple: int, rank: int = 0) -> Loaders:
    """Crops with the run's noise for training, whole clean images for `val` and `test`.

    Args:
        spec: The run.
        place: Where the data lie.
        multiple: Whole images are padded to a multiple of this, pixels.
        rank: Which of the `place.ranks` processes this is: it gets its part of every training batch.

    Raises:
        ChangedError: If the dataset's content is not what the run was planned with.
    """
    dataset = data.build(spec.dataset, root=place.data_root, **spec.dataset_params)
    found = dataset.fingerprint()
    if found != spec.dataset_hash:
        raise ChangedError(
            f"dataset {spec.dataset} has the content hash {found[:9]}, planned was {spec.dataset_hash[:9]}; plan again"
        )
    recipe = spec.recipe
    splits = {split: prepare(dataset, split, cache_dir=place.cache_dir) for split in ("train", "val", "test")}
    crops = TrainCrops(
        splits["train"],
        crop=recipe.crop,
        scale=recipe.scale,
        flip=recipe.flip,
        noise=noise.parse(spec.noise),
        noise_seed=spec.noise_seed,
        seed=spec.seed,
    )
    pin = place.device != "cpu"
    train = training_loader(
        crops,
        recipe.batch_size,
        seed=spec.seed,
        workers=place.workers or 0,
        pin_memory=pin,
        rank=rank,
        ranks=place.ranks,
    )
    val, test = (
        evaluation_loader(
            WholeImages(splits[split], multiple=multiple),
            pixels=EVALUATION_PIXELS.get(torch.device(place.device).type, 0),
            workers=place.workers or 0,
            pin_memory=pin,
        )
        for split in ("val", "test")
    )
    return Loaders(train, val, test, fmean(len(heads.points) for heads in crops.heads), dataset)


def optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Adam or AdamW; the backbone has its own rate. A loss with parameters of its own trains them like the head."""
    groups = model.network.parameter_groups(recipe.lr, recipe.backbone_lr)
    own = list(model.loss.parameters())
    if own:
        groups.append({"name": "loss", "params": own, "lr": recipe.lr})
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)


def schedules(recipe: Recipe, steps: int) -> list[dict[str, Any]]:
    """The engine's schedules, counted in steps: a linear warm-up, then what the recipe says.

    Args:
        recipe: The recipe.
        steps: Optimiser steps of the whole run.
    """
    warm = round(recipe.warmup * steps)
    if warm < 2:  # of a warm-up of one step the engine never leaves the first rate
        warm = 0
    found: list[dict[str, Any]] = []
    if warm > 0:
        found.append({"type": "LinearLR", "start_factor": 1e-3, "begin": 0, "end": warm, "by_epoch": False})
    remaining = {"begin": warm, "end": steps, "by_epoch": False}
    if recipe.schedule == "cosine":
        found.append({"type": "CosineAnnealingLR", "T_max": max(steps - warm, 1), "eta_min_ratio": 0.0, **remaining})
    if recipe.schedule == "exponential":
        found.append({"type": "ExponentialLR", "gamma": recipe.final_lr ** (1 / max(steps - warm, 1)), **remaining})
    return found
