"""VGG-16 with batch norm up to conv5_3, the backbone of P2PNet."""

from runners.backbones.spec import Backbone, Level

SPEC = Backbone(
    reference="Simonyan and Zisserman, ICLR 2015, with batch norm; heads as in BL, PML and P2PNet.",
    timm="vgg16_bn.tv_in1k",
    levels={8: Level(3, 512), 16: Level(4, 512)},
    reads={"bl": (16,), "pml": (8, 16), "points": (8, 16)},
)
