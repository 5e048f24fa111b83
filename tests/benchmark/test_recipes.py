from __future__ import annotations

from typing import Any

import pytest

import losses
from benchmark.recipes import DEVIATIONS, RECIPES, recipe_for
from results.spec import Recipe
from runners import data


@pytest.mark.parametrize("loss", losses.names())
@pytest.mark.parametrize("dataset", data.names())
def test_official_recipes_can_be_built(loss: str, dataset: str) -> None:
    trained = recipe_for("official", loss, dataset, {})
    assert trained.recipe.name == "official"
    assert losses.build(loss, **trained.loss_params).official
    assert loss in DEVIATIONS
    assert trained.recipe.val_start < trained.recipe.epochs


# What the authors published, typed again by hand from their papers and code.
PUBLISHED: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("pml", "ucf_qnrf", {"lr": 3e-5, "batch_size": 16, "crop": 512, "epochs": 3000, "scale": (0.5, 1.5)}, {}),
    ("bl", "ucf_qnrf", {"lr": 1e-5, "batch_size": 1, "crop": 512, "weight_decay": 1e-4}, {}),
    ("bl", "shanghaitech_a", {"lr": 1e-6, "crop": 256}, {"background_ratio": 0.1}),
    ("noisecc", "ucf_qnrf", {"lr": 3e-6, "weight_decay": 0.0, "epochs": 1000}, {}),
    ("dm_count", "nwpu", {"crop": 384, "batch_size": 10}, {}),
    ("gl", "ucf_qnrf", {"weight_decay": 1e-5, "epochs": 500, "warmup": 10 / 500}, {}),
    ("chfl", "shanghaitech_a", {"crop": 128, "batch_size": 16}, {"norm": "dense"}),
    ("chfl", "shanghaitech_b", {"crop": 512, "batch_size": 8}, {"norm": "sparse"}),
    ("chfl", "jhu_crowd", {"crop": 384, "epochs": 800, "val_start": 400}, {"norm": "sparse"}),
    ("p2p", "shanghaitech_a", {"lr": 1e-4, "backbone_lr": 0.1, "crop": 128, "clip_grad": 0.1, "epochs": 3500}, {}),
]


@pytest.mark.parametrize(("loss", "dataset", "fields", "params"), PUBLISHED)
def test_official_recipes_are_the_published_ones(
    loss: str, dataset: str, fields: dict[str, Any], params: dict[str, Any]
) -> None:
    trained = recipe_for("official", loss, dataset, {})
    assert {name: getattr(trained.recipe, name) for name in fields} == fields
    assert {name: trained.loss_params[name] for name in params} == params
    assert trained.recipe.optimizer == "adam"


@pytest.mark.parametrize("name", ["shared", "tuned"])
def test_all_losses_share_the_other_recipes(name: str) -> None:
    assert name in RECIPES
    found = {recipe_for(name, loss, "ucf_qnrf", {"epochs": 3}).recipe for loss in losses.names()}
    assert found == {Recipe(name=name, epochs=3)}
