"""SFCN: ResNet-101 whose layer3 keeps stride 8, dilated convolutions and a spatial encoder."""

from typing import Any

from runners.backbones.spec import Backbone, Level


def keep_stride(network: Any, levels: tuple[int, ...]) -> None:
    """Gives layer3 stride 1. Unlike timm's `output_stride=8` this does not dilate its convolutions."""
    if 8 in levels:
        block = network.layer3[0]
        block.conv2.stride = block.downsample[0].stride = (1, 1)


SPEC = Backbone(
    reference="Wang et al., CVPR 2019 (SFCN); layers as in C-3-Framework. Ours: abs instead of the last ReLU, "
    "the other heads.",
    timm="resnet101.tv_in1k",
    adapt=keep_stride,
    levels={4: Level(1, 256), 8: Level(3, 1024)},
    reads={"native": (8,), "bl": (8,), "pml": (4, 8), "points": (8,)},
    native="runners.backbones.heads:SpatialHead",
)
