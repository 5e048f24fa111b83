"""What is timed: random crowds with random predictions, of a size."""

from __future__ import annotations

from typing import NamedTuple

import torch

from losses.base import CrowdLoss, Prediction, Target
from losses.p2p import anchors

__all__ = ["SCALING", "WORKLOADS", "Workload", "batch"]


class Workload(NamedTuple):
    """The size of a batch.

    Attributes:
        cells: Side of the density map, cells; a point loss has four proposals a cell.
        people: Heads an image.
        images: Of the batch.
        stride: Pixels a cell.
    """

    cells: int
    people: int
    images: int = 1
    stride: int = 8

    @property
    def name(self) -> str:
        """`64x64, 300 people, batch 8`."""
        ending = f", batch {self.images}" if self.images > 1 else ""
        return f"{self.cells}x{self.cells}, {self.people} people{ending}"


WORKLOADS: dict[str, Workload] = {
    "step": Workload(32, 300, 8),
    "batch": Workload(64, 300, 8),
    "dense": Workload(64, 2000),
    "large": Workload(256, 5000),
}
"""A training step on crops of 256 px; a batch of 512-px crops; a dense crop; a whole map of a stadium (ours)."""
SCALING: tuple[Workload, ...] = (
    *(Workload(64, people) for people in (100, 300, 1000, 3000)),
    *(Workload(cells, 1000) for cells in (32, 128, 192)),
)
"""People at one size of the map, and maps at one number of people."""


def batch(loss: CrowdLoss, work: Workload, device: str = "cpu", seed: int = 0) -> tuple[Prediction, Target]:
    """A batch that the loss reads: heads uniform in the image, densities uniform around the right count, float32.

    Args:
        loss: Decides whether densities or proposals are made; both need a gradient.
        work: The size.
        device: As torch names it.
        seed: Of everything.
    """
    generator = torch.Generator().manual_seed(seed)
    side = work.cells * work.stride
    heads = [torch.rand(work.people, 2, generator=generator) * side for _ in range(work.images)]
    target = Target(points=[points.to(device) for points in heads], image_size=(side, side))
    if loss.reads == "points":
        grid = anchors(work.cells, work.cells, work.stride)
        shape = (work.images, len(grid), 2)
        points = grid + work.stride / 4 * torch.randn(shape, generator=generator)
        logits = torch.randn(shape, generator=generator)
        tensors = [tensor.to(device).requires_grad_() for tensor in (points, logits)]
        return Prediction(stride=work.stride, points=tensors[0], logits=tensors[1]), target
    level = 2 * work.people / work.cells**2
    density = torch.rand(work.images, 1, work.cells, work.cells, generator=generator) * level
    return Prediction(stride=work.stride, density=density.to(device).requires_grad_()), target
