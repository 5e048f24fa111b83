"""Feature extractors: those of timm, and the columns of MCNN. Each maps images to stride -> feature map."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import Tensor, nn

from runners.backbones.spec import Backbone, Level

__all__ = ["Columns", "TimmFeatures", "timm_backbone"]

PROBE = (128, 96)
"""Size of the image on which a `timm:NAME` must show that it reads images of any shape."""


class TimmFeatures(nn.Module):
    """Chosen feature maps of a timm model.

    Args:
        spec: The backbone.
        levels: Strides of the maps to return.
        state: Weights in timm's key names; None starts from timm's random initialisation.
    """

    def __init__(self, spec: Backbone, levels: tuple[int, ...], state: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        assert spec.timm is not None
        # timm returns its maps in the order of their index, whatever the order of `out_indices`.
        self.levels = sorted(levels, key=lambda stride: spec.levels[stride].index)
        options = dict(spec.options, features_only=True, out_indices=[spec.levels[s].index for s in self.levels])
        if state is not None:
            options.update(pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)})
        with _quiet_timm():
            self.network = timm.create_model(spec.timm, **options)
        if state is not None:
            # timm keeps a copy of the whole file, classifier included, in the model's configuration.
            self.network.pretrained_cfg.pop("state_dict", None)
        if spec.adapt is not None:
            spec.adapt(self.network, levels)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Images (B, 3, H, W) -> stride -> (B, C, H / stride, W / stride)."""
        return dict(zip(self.levels, self.network(images), strict=True))


class Columns(nn.Module):
    """The three columns of MCNN, 30 channels at stride 4 [C-3-Framework].

    All weights start from N(0, 0.01), biases from 0.
    """

    KERNELS = ((9, 7, 7, 7), (7, 5, 5, 5), (5, 3, 3, 3))
    CHANNELS = ((16, 32, 16, 8), (20, 40, 20, 10), (24, 48, 24, 12))

    def __init__(self) -> None:
        super().__init__()
        self.columns = nn.ModuleList(map(self._column, self.KERNELS, self.CHANNELS))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    @staticmethod
    def _column(kernels: tuple[int, ...], channels: tuple[int, ...]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for depth, (before, after, kernel) in enumerate(zip((3, *channels[:-1]), channels, kernels, strict=True)):
            layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
            if depth < 2:
                layers.append(nn.MaxPool2d(2))
        return nn.Sequential(*layers)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Images (B, 3, H, W) -> {4: (B, 30, H / 4, W / 4)}."""
        return {4: torch.cat([column(images) for column in self.columns], dim=1)}


class Plain(nn.Module):
    """Seven 3 x 3 convolutions with batch norm, 16 to 96 channels, strides 4 and 8 (ours)."""

    CHANNELS = (16, 32, 48, 48, 96, 96, 96)
    STRIDES = (2, 1, 2, 1, 2, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        layers = [
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )
            for before, after, stride in zip((3, *self.CHANNELS[:-1]), self.CHANNELS, self.STRIDES, strict=True)
        ]
        self.fine, self.coarse = nn.Sequential(*layers[:4]), nn.Sequential(*layers[4:])

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Images (B, 3, H, W) -> {4: (B, 48, H / 4, W / 4), 8: (B, 96, H / 8, W / 8)}."""
        fine = self.fine(images)
        return {4: fine, 8: self.coarse(fine)}


def timm_backbone(name: str) -> Backbone:
    """Any timm model that gives feature maps of images of any shape; heads as those of `mobilenetv2` (ours).

    Args:
        name: A model of timm, with or without a weight tag: `resnet18`, `resnet18.tv_in1k`.

    Raises:
        ValueError: If the model gives no feature maps of stride 4 to 32, or reads images of one size only.
    """
    try:
        with torch.device("meta"), _quiet_timm():
            network = timm.create_model(name, features_only=True)
        maps = network(torch.zeros(1, 3, *PROBE, device="meta"))
    except Exception as error:  # timm's models fail each in its own way: assertions, attribute and shape errors
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"timm:{name} cannot count: it gives no feature maps of any image size ({reason})") from error
    levels = {}
    for index, (info, found) in enumerate(zip(network.feature_info, maps, strict=True)):
        stride, channels = info["reduction"], info["num_chs"]
        if tuple(found.shape) != (1, channels, *(side // stride for side in PROBE)):
            raise ValueError(f"timm:{name} cannot count: its map of stride {stride} has the shape {tuple(found.shape)}")
        levels[stride] = Level(index, channels)
    read = tuple(stride for stride in (8, 16, 32) if stride in levels) or tuple(s for s in (4,) if s in levels)
    if not read:
        raise ValueError(f"timm:{name} cannot count: its maps have strides {sorted(levels)}, none of 4, 8, 16, 32")
    config = timm.get_pretrained_cfg(name)
    tagged = name if "." in name or config is None or not config.tag else f"{name}.{config.tag}"
    return Backbone(
        reference=f"timm's {tagged}; heads ours",
        timm=tagged,
        levels=levels,
        reads={"bl": read, "pml": read, "points": read},
        width=64,
        norm=True,
    )


@contextmanager
def _quiet_timm() -> Iterator[Any]:
    """Holds back timm's warnings about unused classifier weights; what is missing we check ourselves."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
