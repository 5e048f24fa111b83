"""Tiny: a plain network that learns in a minute on one core, for the study `quick` and for tests. Ours."""

from runners.backbones.spec import Backbone, Level

SPEC = Backbone(
    reference="Ours: seven 3 x 3 convolutions, always trained from scratch; heads of 32 channels.",
    network="runners.backbones.features:Plain",
    levels={4: Level(0, 48), 8: Level(1, 96)},
    reads={"bl": (8,), "pml": (4, 8), "points": (8,)},
    width=32,
    norm=True,
)
