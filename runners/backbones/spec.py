"""What a backbone file says: where its feature maps are, and which heads read which of them. Torch-free.

A backbone is one file here, `runners/backbones/<name>.py`, with one `SPEC = Backbone(...)`; `<name>` is its name on the
command line and in every record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["HEADS", "OUTPUTS", "STRIDES", "Backbone", "Level"]

STRIDES = (1, 2, 4, 8, 16)
"""Output strides that can be asked for: input pixels per density or proposal cell."""

HEADS: Mapping[str, int | None] = {"native": None, "bl": 8, "pml": 2, "points": 8}
"""Every head with its published stride; None: the stride of the map that the backbone's own head reads."""

OUTPUTS = ("abs", "relu")
"""What makes a density non-negative; see `heads.NonNegative`."""

PROPOSAL_STRIDES = (4, 8, 16)
"""Strides of the point head. Below 4 its 2 x 2 proposals per cell would be as dense as the pixels."""


class Level(NamedTuple):
    """One feature map: its place in timm's `feature_info`, and its channels."""

    index: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A feature extractor and the heads it can carry.

    Attributes:
        reference: Where the network comes from, and what here is ours.
        levels: Stride in input pixels -> feature map.
        reads: Head -> the strides of the maps it reads. A head that is absent cannot be built.
        timm: Model and weight tag in timm, `vgg19.tv_in1k`; None for a network of our own, always trained from scratch.
        network: `module:Class` of a network of our own, called without arguments.
        options: Keyword arguments of `timm.create_model`.
        adapt: Changes the network after its weights are loaded; called with it and the strides that are read.
        native: `module:Class` of the backbone's own head, called with the channels of the map it reads.
        width: Channels of the head, for light backbones (ours). None: as published.
        norm: Batch norm where the pml or points head fuses maps; published for HRNet with the PML head.
        multiple: The network itself needs sides that are multiples of this, whatever maps are read.
    """

    reference: str
    levels: Mapping[int, Level]
    reads: Mapping[str, tuple[int, ...]]
    timm: str | None = None
    network: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    adapt: Callable[[Any, tuple[int, ...]], None] | None = None
    native: str | None = None
    width: int | None = None
    norm: bool = False
    multiple: int = 1

    def stride(self, head: str) -> int:
        """The stride a head has unless another is asked for: the published one, or the finest that it can give."""
        published = HEADS[head]
        return min(self.reads[head]) if published is None else published

    def misfit(self, name: str, head: str, stride: int) -> str | None:
        """Why `head` at `stride` cannot be built on this backbone, called `name`; None if it can."""
        if head not in self.reads:
            return f"backbone {name} has no {head} head; it has {', '.join(sorted(self.reads))}"
        if stride not in STRIDES:
            return f"stride {stride} is not offered; choose one of {', '.join(map(str, STRIDES))}"
        if head == "points" and stride not in PROPOSAL_STRIDES:
            return f"the points head works at stride {', '.join(map(str, PROPOSAL_STRIDES))}, not {stride}"
        finest = min(self.reads[head])
        if head == "pml" and stride > finest:
            return (
                f"the pml head decodes stride-{finest} maps of {name} into finer ones and cannot give stride {stride}; "
                f"use a stride up to {finest}, or the bl head"
            )
        return None
