"""HRNetV2-W48: four branches of stride 4 to 32 that never lose resolution."""

from typing import Any

from runners.backbones.spec import Backbone, Level


def drop_unread_branches(network: Any, levels: tuple[int, ...]) -> None:
    """Removes the last fusions into branches coarser than any that is read: they would be computed for nothing."""
    module = network.stage4[-1]
    module.fuse_layers = module.fuse_layers[: [4, 8, 16, 32].index(max(levels)) + 1]


SPEC = Backbone(
    reference="Wang et al., TPAMI 2020; raw branches after stage 4, PML head as in PML. Ours: the other heads.",
    timm="hrnet_w48.ms_in1k",
    options={"feature_location": ""},
    adapt=drop_unread_branches,
    levels={4: Level(1, 48), 8: Level(2, 96), 16: Level(3, 192), 32: Level(4, 384)},
    reads={"bl": (4, 8, 16, 32), "pml": (4, 8), "points": (4, 8, 16, 32)},
    norm=True,
    multiple=32,
)
