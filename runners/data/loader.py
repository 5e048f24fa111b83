"""From samples to batches: collate, the sampler that knows its epoch, and the loaders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from losses.base import Target
from runners.data.transforms import Sample, TrainCrops, WholeImages

__all__ = ["Batch", "EpochSampler", "collate", "evaluation_loader", "training_loader"]


class Batch(NamedTuple):
    """A batch as the training loop sees it. A NamedTuple, so that mmengine moves it to the device.

    Attributes:
        images: uint8 [B, 3, H, W].
        target: Labels; points in pixels of `images`, float32.
        ids: B names.
        valid: B times (H, W), what is not padding.
    """

    images: Tensor
    target: Target
    ids: list[str]
    valid: list[tuple[int, int]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stacks samples of one size into a batch."""
    images = torch.stack([sample.image for sample in samples])
    height, width = images.shape[-2:]
    target = Target(
        points=[sample.points for sample in samples],
        image_size=(height, width),
        visible=[sample.visible for sample in samples],
        short_side=torch.tensor([sample.short_side for sample in samples], dtype=torch.float32),
        spacing=[sample.spacing for sample in samples],
    )
    return Batch(images, target, [sample.id for sample in samples], [sample.valid for sample in samples])


class EpochSampler(Sampler[int]):
    """Every image once an epoch, in an order that depends on the seed and the epoch only.

    Yields `epoch * len + index`: the key carries the epoch into the workers, also those that outlive it.

    Args:
        dataset: What is sampled from.
        seed: Seed of the order.
        shuffle: False goes through in order (the key still carries the epoch).
    """

    def __init__(self, dataset: Sized, *, seed: int = 0, shuffle: bool = True) -> None:
        self.length, self.seed, self.shuffle, self.epoch = len(dataset), seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch that the next iteration belongs to; mmengine calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        order = np.arange(self.length)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        return iter((self.epoch * self.length + order).tolist())


def training_loader(
    dataset: TrainCrops, batch_size: int, *, seed: int = 0, workers: int = 0, pin_memory: bool = False
) -> DataLoader[Any]:
    """Shuffled batches of crops. `loader.sampler.set_epoch(epoch)` starts an epoch; the last short batch is kept."""
    sampler = EpochSampler(dataset, seed=seed)
    return _loader(dataset, batch_size, sampler=sampler, workers=workers, pin_memory=pin_memory)


def evaluation_loader(dataset: WholeImages, *, workers: int = 0, pin_memory: bool = False) -> DataLoader[Any]:
    """Whole images one by one, in order: their sizes differ."""
    return _loader(dataset, 1, workers=workers, pin_memory=pin_memory)


def _loader(
    dataset: Dataset[Sample],
    batch_size: int,
    *,
    sampler: Sampler[int] | None = None,
    workers: int,
    pin_memory: bool,
) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        # A generator of its own: otherwise each pass over the loader would draw from torch's global one.
        generator=torch.Generator().manual_seed(0),
    )


def _start_worker(worker: int) -> None:
    """One thread for each worker. Seeds are not needed: samples draw from generators made from their keys."""
    torch.set_num_threads(1)
