"""MobileNetV2 with narrow heads: the light backbone that trains on a CPU."""

from runners.backbones.spec import Backbone, Level

SPEC = Backbone(
    reference="Sandler et al., CVPR 2018. Ours: the fusion of strides 8, 16 and 32, and heads of 64 channels.",
    timm="mobilenetv2_100.ra_in1k",
    levels={8: Level(2, 32), 16: Level(3, 96), 32: Level(4, 320)},
    reads={"bl": (8, 16, 32), "pml": (8, 16, 32), "points": (8, 16, 32)},
    width=64,
    norm=True,
)
