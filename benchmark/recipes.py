"""Training recipes: one shared by all losses (ours), and what each loss's authors published.

An official recipe selects `variant="official"` and, where the authors did so, settings per dataset. What it cannot
carry over is said in `DEVIATIONS`; a checkpoint is never selected on the test set here, whatever the authors did.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from results.spec import Recipe, Scalar

__all__ = ["DEVIATIONS", "RECIPES", "Trained", "recipe_for"]

RECIPES = {
    "shared": "one recipe for every loss: AdamW, cosine, the same crops (ours; the default)",
    "official": "each loss's published recipe, and its official variant",
    "tuned": "the same search budget of learning rate and main weight for every loss, chosen on val (ours)",
}


class Trained(NamedTuple):
    """How a loss is trained: the recipe, and the parameters that the loss gets where none were typed."""

    recipe: Recipe
    loss_params: dict[str, Scalar]


_ADAM: dict[str, Any] = {"name": "official", "optimizer": "adam", "clip_grad": None, "schedule": "constant"}
_ADAM |= {"warmup": 0.0, "scale": (1.0, 1.0), "val_interval": 5}

_OFFICIAL: dict[str, dict[str, Any]] = {
    # PML: Adam 3e-5 after 30 of 3000 epochs of warm-up, falling to 2e-5; whole-image scale U(0.5, 1.5).
    "pml": {"epochs": 3000, "batch_size": 16, "crop": 512, "scale": (0.5, 1.5), "lr": 3e-5, "warmup": 0.01}
    | {"schedule": "exponential", "final_lr": 2 / 3},
    "bl": {"epochs": 1000, "batch_size": 1, "crop": 512, "lr": 1e-5, "val_start": 600},
    "noisecc": {"epochs": 1000, "batch_size": 1, "crop": 512, "lr": 3e-6, "weight_decay": 0.0},
    "dm_count": {"epochs": 1000, "batch_size": 10, "crop": 512, "lr": 1e-5, "val_start": 50},
    "gl": {"epochs": 500, "batch_size": 1, "crop": 512, "lr": 1e-5, "weight_decay": 1e-5, "warmup": 0.02}
    | {"val_start": 10},
    "chfl": {"epochs": 1000, "batch_size": 8, "crop": 512, "lr": 1e-5, "val_interval": 2},
    "p2p": {"epochs": 3500, "batch_size": 32, "crop": 128, "scale": (0.7, 1.3), "lr": 1e-4, "backbone_lr": 0.1}
    | {"clip_grad": 0.1},
    # No authors' recipe exists for "the" L2 baseline: trained like BL (ours).
    "l2": {"epochs": 1000, "batch_size": 1, "crop": 512, "lr": 1e-5},
}

_PER_DATASET: dict[tuple[str, str], dict[str, Any]] = {
    ("bl", "shanghaitech_a"): {"crop": 256, "lr": 1e-6},
    ("dm_count", "shanghaitech_a"): {"crop": 256},
    ("dm_count", "nwpu"): {"crop": 384},
    ("chfl", "shanghaitech_a"): {"crop": 128, "batch_size": 16},
    ("chfl", "ucf_qnrf"): {"crop": 384, "batch_size": 32},
    ("chfl", "jhu_crowd"): {"crop": 384, "batch_size": 64, "epochs": 800, "val_start": 400},
    ("chfl", "nwpu"): {"crop": 384, "batch_size": 64, "epochs": 900, "val_start": 800},
}

_LOSS_PER_DATASET: dict[tuple[str, str], dict[str, Scalar]] = {
    ("bl", "shanghaitech_a"): {"background_ratio": 0.1},
    ("chfl", "shanghaitech_a"): {"norm": "dense"},
    ("chfl", "ucf_qnrf"): {"norm": "dense"},
    ("chfl", "shanghaitech_b"): {"norm": "sparse"},
    ("chfl", "jhu_crowd"): {"norm": "sparse"},
    ("chfl", "nwpu"): {"norm": "sparse"},
}

DEVIATIONS = {
    "pml": "one validation interval (5) instead of 20 falling to 5; selected on val, the authors on test",
    "bl": "selected by MAE on val, the authors by 2 RMSE + MAE",
    "noisecc": "selected by MAE on val, the authors by 2 RMSE + MAE",
    "dm_count": "selected by MAE on val, the authors by 2 RMSE + MAE (on test for ShanghaiTech)",
    "gl": "none known; per-dataset values other than the code's defaults are not published",
    "chfl": "selected on val, the authors on test for QNRF and ShanghaiTech",
    "p2p": "32 crops of 32 images a step instead of 4 of each of 8; weight decay ours; selected on val, not test",
    "l2": "no authors' recipe exists: trained like BL (ours)",
}


def recipe_for(name: str, loss: str, dataset: str, overrides: dict[str, Any]) -> Trained:
    """The recipe of a loss on a dataset.

    Args:
        name: A key of `RECIPES`.
        loss: The loss's name; one that has no official recipe is trained like `l2`'s, that is by Adam 1e-5.
        dataset: The dataset's name.
        overrides: Fields of `Recipe` that were set by hand; they win.
    """
    if name == "official":
        fields = _ADAM | _OFFICIAL.get(loss, _OFFICIAL["l2"]) | _PER_DATASET.get((loss, dataset), {}) | overrides
        params: dict[str, Scalar] = {"variant": "official"}
        return Trained(Recipe(**fields), params | _LOSS_PER_DATASET.get((loss, dataset), {}))
    return Trained(Recipe(**({"name": name} | overrides)), {})
