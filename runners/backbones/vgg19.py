"""VGG-19 up to conv5_4, the backbone of BL, NoiseCC, DM-Count, GL and PML."""

from runners.backbones.spec import Backbone, Level

SPEC = Backbone(
    reference="Simonyan and Zisserman, ICLR 2015; heads as in BL, PML and P2PNet.",
    timm="vgg19.tv_in1k",
    levels={8: Level(3, 512), 16: Level(4, 512)},
    reads={"bl": (16,), "pml": (8, 16), "points": (8, 16)},
)
