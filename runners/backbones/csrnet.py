"""CSRNet: VGG-16 up to conv4_3, then six dilated convolutions."""

from runners.backbones.spec import Backbone, Level

SPEC = Backbone(
    reference="Li et al., CVPR 2018. Ours: abs after the last layer, which is linear there.",
    timm="vgg16.tv_in1k",
    levels={8: Level(3, 512)},
    reads={"native": (8,)},
    native="runners.backbones.heads:DilatedHead",
)
