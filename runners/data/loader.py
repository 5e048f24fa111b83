"""From samples to batches: collate, the sampler that knows its epoch, and the loaders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from losses.base import Target
from runners.data.transforms import Sample, TrainCrops, WholeImages

__all__ = ["AHEAD", "Batch", "EpochSampler", "SameSize", "collate", "evaluation_loader", "training_loader"]

AHEAD = 64
"""Images among which those of one size are looked for (ours): so many predictions wait, at most, for their turn."""


class Batch(NamedTuple):
    """A batch as the training loop sees it. A NamedTuple, so that mmengine moves it to the device.

    Attributes:
        images: uint8 [B, 3, H, W].
        target: Labels; points in pixels of `images`, float32.
        ids: B names.
        valid: B times (H, W), what is not padding.
        places: B places in the split, from 0.
    """

    images: Tensor
    target: Target
    ids: list[str]
    valid: list[tuple[int, int]]
    places: list[int]


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
    return Batch(
        images,
        target,
        ids=[sample.id for sample in samples],
        valid=[sample.valid for sample in samples],
        places=[sample.place for sample in samples],
    )


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


class PartOfBatches(Sampler[list[int]]):
    """One process's part of every batch: batch k is what one process alone would see, dealt out in turn.

    Args:
        sampler: Of the whole epoch.
        batch_size: Of the whole batch.
        rank: Which part, from 0.
        ranks: How many parts.

    Raises:
        ValueError: If a part of a batch would be empty.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        least = min(batch_size, len(sampler) % batch_size or batch_size, len(sampler))
        if least < ranks:
            raise ValueError(
                f"a batch of {least} cannot be shared by {ranks} processes ({len(sampler)} images, batch size "
                f"{batch_size}); take fewer processes or another batch size"
            )
        self.sampler, self.batch_size, self.rank, self.ranks = sampler, batch_size, rank, ranks

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size][self.rank :: self.ranks]


class SameSize(Sampler[list[int]]):
    """Batches of images of one size, of at most so many pixels; every image once.

    Only `AHEAD` images in a row are grouped, so that whoever puts them back in order holds no more than these. Images
    of a batch are in order, and batches are in the order of their first images.

    Args:
        sizes: (H, W) of each image.
        pixels: Of a batch at most; a larger image is a batch of its own.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], pixels: int) -> None:
        self.batches = [
            batch
            for start in range(0, len(sizes), AHEAD)
            for batch in _grouped(sizes, range(start, min(start + AHEAD, len(sizes))), pixels)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def _grouped(sizes: Sequence[tuple[int, int]], places: Iterable[int], pixels: int) -> list[list[int]]:
    """The places of some images as batches of one size."""
    alike: dict[tuple[int, int], list[int]] = {}
    for place in places:
        alike.setdefault(sizes[place], []).append(place)
    found = []
    for (height, width), group in alike.items():
        most = max(1, pixels // (height * width))
        found += [group[start : start + most] for start in range(0, len(group), most)]
    return sorted(found)


def training_loader(
    dataset: TrainCrops,
    batch_size: int,
    *,
    seed: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
    rank: int = 0,
    ranks: int = 1,
) -> DataLoader[Any]:
    """Shuffled batches of crops, or this process's part of each; the last short batch is kept.

    `loader.batch_sampler.sampler.set_epoch(epoch)` starts an epoch.
    """
    parts = PartOfBatches(EpochSampler(dataset, seed=seed), batch_size, rank, ranks)
    return _loader(dataset, batch_sampler=parts, workers=workers, pin_memory=pin_memory)


def evaluation_loader(
    dataset: WholeImages, *, pixels: int = 0, workers: int = 0, pin_memory: bool = False
) -> DataLoader[Any]:
    """Whole images, each once; see `SameSize` for their order.

    Args:
        dataset: The images.
        pixels: Of a batch of images of one size, at most; 0 (default): one by one, in order.
        workers: Data-loading processes.
        pin_memory: Whether batches are put where a GPU copies them from.
    """
    return _loader(dataset, batch_sampler=SameSize(dataset.sizes, pixels), workers=workers, pin_memory=pin_memory)


def _loader(
    dataset: Dataset[Sample],
    *,
    batch_sampler: Sampler[list[int]],
    workers: int,
    pin_memory: bool,
) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
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
