"""Images of a batch side by side, for losses whose mathematics is written for several images at once.

An accelerator is kept busy by few and large operations: it gets the whole batch at once, with the heads of all images
padded to the same number. A CPU gets one image after the other: nothing is padded there, and memory is that of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from losses.base import CrowdLoss, Prediction, Sample, Target, samples
from losses.geometry import free_to_look

__all__ = ["Images", "TogetherLoss", "side_by_side"]


class Images(NamedTuple):
    """B images of one batch; n is the largest number of heads among them, at least 1.

    Attributes:
        density: (B, h, w) people per cell.
        points: (B, n, 2) heads as (x, y), input pixels. Filling heads are at (infinity, infinity), so that they are
            nobody's nearest and Gaussians around them vanish; in an image without people the first is at (0, 0).
        real: (B, n), False for filling heads.
        filled: Whether there are any.
        samples: The images one by one.
    """

    density: Tensor
    points: Tensor
    real: Tensor
    filled: bool
    samples: Sequence[Sample]

    @property
    def cells(self) -> tuple[int, int]:
        """(h, w)."""
        return self.density.shape[1], self.density.shape[2]

    @property
    def stride(self) -> int:
        """Input pixels per cell."""
        return self.samples[0].stride

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the input, pixels."""
        return self.samples[0].image_size

    @property
    def counts(self) -> Tensor:
        """(B,) heads of each image, in the density's dtype."""
        return self.real.sum(1, dtype=self.density.dtype)

    @property
    def taking_part(self) -> Tensor:
        """(B, n): `real`, and everybody where nobody is real, for what is not defined without heads."""
        return self.real | ~self.real.any(1, keepdim=True)

    @property
    def deserted(self) -> bool:
        """Whether nobody is in any of the images."""
        return not any(len(sample.points) for sample in self.samples)

    @property
    def short_side(self) -> Tensor:
        """(B,) shorter side of the whole image, pixels."""
        return torch.stack([sample.short_side for sample in self.samples])

    @property
    def visible(self) -> Tensor:
        """(B, n) visible share of each head, 0 of filling ones."""
        return self.heads([sample.visible for sample in self.samples])

    def where_people(self, values: Tensor, empty: Tensor | float) -> Tensor:
        """Values of images, (B,), or what they are where nobody is."""
        return torch.where(self.real.any(1), values, empty) if self.filled else values

    def heads(self, values: Sequence[Tensor]) -> Tensor:
        """Values of the heads of each image as (B, n), 0 for filling ones."""
        whole = values[0].unsqueeze(0) if len(values) == 1 else pad_sequence(list(values), batch_first=True)
        return whole if whole.shape[1] else self.real.new_zeros(self.real.shape, dtype=whole.dtype)

    def only(self, values: Tensor, filling: float = 0.0) -> Tensor:
        """Values of heads, (B, n, ...), with another value for filling ones."""
        if not self.filled:
            return values
        return torch.where(self.real.view(*self.real.shape, *[1] * (values.dim() - 2)), values, filling)


def side_by_side(batch: Sequence[Sample]) -> Images:
    """Some images of one batch, at least one."""
    if len(batch) == 1 and len(batch[0].points):
        density, points = batch[0].density.unsqueeze(0), batch[0].points.unsqueeze(0)
        return Images(density, points, points.new_ones(points.shape[:2], dtype=torch.bool), False, batch)
    density = torch.stack([sample.density for sample in batch])
    counts = [len(sample.points) for sample in batch]
    points = pad_sequence([sample.points for sample in batch], batch_first=True, padding_value=torch.inf)
    if not max(counts):
        points = density.new_full((len(batch), 1, 2), torch.inf)
    real = points[..., 0] != torch.inf
    if not min(counts):
        first = torch.where(real[:, :1], points[:, 0], 0)
        points = torch.cat([first.unsqueeze(1), points[:, 1:]], 1)
    return Images(density, points, real, min(counts) < max(1, *counts), batch)


class TogetherLoss(CrowdLoss):
    """Base of the density losses that score several images at once: they write `terms` instead of `image_terms`."""

    def forward_terms(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """The named terms of a checked batch: of all its images at once on an accelerator, else one after the other."""
        assert prediction.density is not None
        if free_to_look(prediction.density):
            return super().forward_terms(prediction, target)
        terms = self.terms(side_by_side(self.coupled(samples(prediction, target))))
        return {name: self.reduce(name, values) for name, values in terms.items()}

    def image_terms(self, sample: Sample) -> dict[str, Tensor]:
        """The named terms of one image."""
        return {name: values[0] for name, values in self.terms(side_by_side([sample])).items()}

    def terms(self, images: Images) -> dict[str, Tensor]:
        """The named terms of some images, each (B,); the same names whether or not there are people."""
        raise NotImplementedError(f"{type(self).__name__} must define terms")
