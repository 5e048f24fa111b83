"""Training crops and whole images, ready for a loader. Images stay uint8; the model normalises them.

Every random choice of a crop is drawn from `default_rng([seed, epoch, index])`: the number of workers, their order and
the batch size change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from losses.geometry import spread
from runners.data.noise import Noise, clip

__all__ = ["PAD", "Images", "Sample", "SizedImages", "TrainCrops", "WholeImages", "noise_key"]

PAD = np.array([124, 116, 104], dtype=np.uint8)
"""The ImageNet mean colour, 255 (0.485, 0.456, 0.406) rounded: within half a grey level of zero after normalisation."""
BOX_SIDE = (4.0, 128.0)
"""Where a dataset has no head boxes: a square of side clip(mean distance to the 3 nearest heads, 4, 128) px [BL]."""


class Images(Protocol):
    """A split whose images are at hand at their final size: `runners.data.cache.Prepared`, or anything alike."""

    name: str
    ids: tuple[str, ...]

    def __len__(self) -> int: ...

    def image(self, index: int) -> NDArray[np.uint8]:
        """RGB, uint8 [H, W, 3]."""
        ...

    def points(self, index: int) -> NDArray[np.float64]:
        """Heads inside the image as (x, y), pixels, [n, 2]."""
        ...

    def boxes(self, index: int) -> NDArray[np.float64] | None:
        """Head boxes x1, y1, x2, y2, pixels, [n, 4], NaN where unknown; None if there are none."""
        ...


class SizedImages(Images, Protocol):
    """A split that knows the sizes of its images without reading them."""

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """(H, W) of each image, pixels."""
        ...


class Sample(NamedTuple):
    """One network input and its labels.

    Attributes:
        image: uint8 [3, H, W], padded right and bottom with `PAD`.
        points: float32 [n, 2] as (x, y), pixels of `image`.
        visible: float32 [n], share of each head's box inside the crop.
        spacing: float32 [n], mean distance to the three nearest heads of the whole image at this scale, pixels;
            infinite for a lone head.
        short_side: Shorter side of the whole image at this scale, pixels.
        valid: (H, W) of what is not padding.
        id: Name of the image.
        place: Its place in the split, from 0.
    """

    image: Tensor
    points: Tensor
    visible: Tensor
    spacing: Tensor
    short_side: float
    valid: tuple[int, int]
    id: str
    place: int


class Heads(NamedTuple):
    """The labels of one whole image in training: points [n, 2], boxes [n, 4], spacing [n]; float64."""

    points: NDArray[np.float64]
    boxes: NDArray[np.float64]
    spacing: NDArray[np.float64]


class TrainCrops(Dataset[Sample]):
    """Random crops of a prepared split at random scale, flipped half of the time.

    An item is asked for by `epoch * len(self) + index` (see `loader.EpochSampler`), so that an item is a function of
    its key alone.

    Args:
        images: The prepared training part.
        crop: Side of the square crop, pixels.
        scale: Lowest and highest factor of the random scale [P2P: 0.7 to 1.3; PML: 0.5 to 1.5; BL, DM-Count: none].
        flip: Probability of a horizontal flip, x -> W - x.
        seed: Seed of crops, scales and flips.
        noise: What is done to the labels; levels in pixels of the prepared image, before scaling and cropping.
        noise_seed: Seed of the noise alone, so that training seeds share their wrong labels.
    """

    def __init__(
        self,
        images: Images,
        *,
        crop: int,
        scale: tuple[float, float] = (0.7, 1.3),
        flip: float = 0.5,
        seed: int = 0,
        noise: Noise = Noise(),  # noqa: B008 - immutable
        noise_seed: int = 0,
    ) -> None:
        if crop < 1:
            raise ValueError(f"crop must be at least 1 pixel; found {crop!r}")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale must be two factors 0 < low <= high; found {scale!r}")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be a probability; found {flip!r}")
        if not len(images):
            raise ValueError(f"{images.name}: no images to train on")
        self.images, self.crop, self.scale, self.flip, self.seed = images, crop, scale, flip, seed
        self.heads = [_heads(images, index, noise, noise_seed) for index in range(len(images))]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int) -> Sample:
        epoch, index = divmod(key, len(self))
        rng = np.random.default_rng([self.seed, epoch, index])
        image, heads = self.images.image(index), self.heads[index]
        height, width = image.shape[:2]

        # A window of the image is cut first and resized then: the same picture as the other way round, but cheaper.
        side = max(1, round(self.crop / rng.uniform(*self.scale)))
        high, wide = min(side, height), min(side, width)
        top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
        flipped = bool(rng.random() < self.flip)
        valid = _scaled(high, self.crop, side), _scaled(wide, self.crop, side)
        factor = np.array([valid[1] / wide, valid[0] / high])

        window = np.array([left, top, left + wide, top + high], dtype=np.float64)
        inside = ((heads.points >= window[:2]) & (heads.points < window[2:])).all(axis=1)
        points = (heads.points[inside] - window[:2]) * factor
        picture = _resized(image[top : top + high, left : left + wide], valid)
        if flipped:  # before padding, which so is always right and bottom
            picture = picture[:, ::-1]
            points[:, 0] = valid[1] - points[:, 0]
        return Sample(
            image=_tensor(_padded(picture, (self.crop, self.crop))),
            points=torch.from_numpy(clip(points, valid)).float(),
            visible=torch.from_numpy(_visible(heads.boxes[inside], window)).float(),
            spacing=torch.from_numpy(heads.spacing[inside] * (self.crop / side)).float(),
            short_side=min(height, width) * self.crop / side,
            valid=valid,
            id=self.images.ids[index],
            place=index,
        )


class WholeImages(Dataset[Sample]):
    """Whole images of a prepared split, clean labels, padded right and bottom to a multiple of `multiple`.

    Args:
        images: The prepared split.
        multiple: What the sides of the padded image are divisible by; 32 fits every backbone here.
    """

    def __init__(self, images: SizedImages, *, multiple: int = 32) -> None:
        if multiple < 1:
            raise ValueError(f"multiple must be at least 1; found {multiple!r}")
        self.images, self.multiple = images, multiple

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each padded image, pixels; no image is read."""
        return [self._padded(size) for size in self.images.sizes]

    def _padded(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = (-(-side // self.multiple) * self.multiple for side in size)
        return height, width

    def __getitem__(self, index: int) -> Sample:
        image, points = self.images.image(index), self.images.points(index)
        height, width = image.shape[:2]
        return Sample(
            image=_tensor(_padded(image, self._padded((height, width)))),
            points=torch.from_numpy(points).float(),
            visible=torch.ones(len(points)),
            spacing=torch.from_numpy(_spacing(points)).float(),
            short_side=float(min(height, width)),
            valid=(height, width),
            id=self.images.ids[index],
            place=index,
        )


# ---------------------------------------------------------------------------------------------------------------------
# Labels


def noise_key(images: Images, index: int, noise_seed: int) -> tuple[str, str, int]:
    """What an image's noise is drawn from in training; whoever asks with the same key sees the same wrong labels."""
    return images.name, images.ids[index], noise_seed


def _heads(images: Images, index: int, noise: Noise, noise_seed: int) -> Heads:
    """Labels of a training image with their noise; boxes follow their points, or are made from the noisy ones."""
    clean, boxes = images.points(index), images.boxes(index)
    noisy = noise.apply(clean, images.image(index).shape[:2], noise_key(images, index, noise_seed))
    spacing = _spacing(noisy.points)
    half = np.clip(spacing, *BOX_SIDE)[:, None] / 2
    squares = np.concatenate([noisy.points - half, noisy.points + half], axis=1)
    if boxes is None:
        return Heads(noisy.points, squares, spacing)
    moved = boxes[noisy.source] + np.tile(noisy.points - clean[noisy.source], 2)
    return Heads(noisy.points, np.where(np.isnan(moved), squares, moved), spacing)


def _spacing(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean distance to the three nearest other points, [n]."""
    return spread(torch.from_numpy(points)).numpy()


def _visible(boxes: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each box's area inside the window, [n]; a box without area is its point and counts as inside."""
    within = np.clip(np.minimum(boxes[:, 2:], window[2:]) - np.maximum(boxes[:, :2], window[:2]), 0, None).prod(axis=1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.where(area > 0, within / np.where(area > 0, area, 1), 1.0)


# ---------------------------------------------------------------------------------------------------------------------
# Pixels


def _scaled(length: int, crop: int, side: int) -> int:
    """Pixels that `length` of a window of `side` takes up in the crop; all of them where the window is whole."""
    return max(1, round(length * crop / side))


def _resized(window: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The window at (H, W) = `size`: bilinear, with an antialiasing support when it shrinks."""
    if window.shape[:2] == size:
        return window
    return np.asarray(Image.fromarray(np.ascontiguousarray(window)).resize(size[::-1], Image.Resampling.BILINEAR))


def _padded(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture at the top left of a canvas of (H, W) = `size` in the mean colour."""
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    canvas = np.empty((*size, 3), dtype=np.uint8)
    canvas[:] = PAD
    canvas[:height, :width] = picture
    return canvas


def _tensor(picture: NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] -> [3, H, W], a copy of its own."""
    return torch.from_numpy(picture.transpose(2, 0, 1).copy())
