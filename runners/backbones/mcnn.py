"""MCNN: three columns of plain convolutions, 0.13 million parameters, always trained from scratch."""

from runners.backbones.spec import Backbone, Level

SPEC = Backbone(
    reference="Zhang et al., CVPR 2016; layers as in C-3-Framework. Ours: abs instead of the last ReLU.",
    network="runners.backbones.features:Columns",
    levels={4: Level(0, 30)},
    reads={"native": (4,)},
    native="runners.backbones.heads:ColumnHead",
)
