"""What may stand in one column, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.recipes import recipe_for
from benchmark.report import measured_in
from reports.protocol import (
    MixedProtocolError,
    check_comparable,
    differences,
    mismatches,
    protocol_hash,
    select,
    with_terms,
)
from reports.tables import settings
from results.store import Store
from tests.reports.fake_store import add_failure, add_run, fake_spec


def frame(root: Path, *specs: dict[str, Any]) -> pd.DataFrame:
    store = Store(root)
    for changes in specs:
        add_run(store, fake_spec(**changes), images=5)
    return with_terms(store.load())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dataset_hash": "d1"}, "dataset content (dataset_hash) is d"),
        ({"recipe": {"epochs": 9}}, "recipe_epochs is"),
        ({"recipe": {"crop": 128}}, "recipe_crop is"),
        ({"noise": "uniform-px:8"}, "training noise (noise) is"),
        ({"stride": 4}, "stride is"),
        ({"weights_hash": "none"}, "initial weights (weights_hash) is"),
        ({"recipe": {"name": "tuned"}}, "recipe is"),
    ],
)
def test_a_term_that_differs_is_named_with_its_values(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows = frame(tmp_path, {"loss": "pml"}, {"loss": "bl"} | change)
    assert len(set(protocol_hash(rows))) == 2
    with pytest.raises(MixedProtocolError, match="not comparable") as error:
        check_comparable(rows, "the column vgg19")
    assert said in str(error.value)
    assert "--where" in str(error.value)


def test_loss_head_and_seed_are_no_terms(tmp_path: Path) -> None:
    rows = frame(tmp_path, {"loss": "pml"}, {"loss": "p2p"}, {"loss": "bl", "seed": 7, "loss_params": {"sigma": 4.0}})
    assert len(set(protocol_hash(rows))) == 1
    assert differences(rows) == []


def test_settings_of_an_official_recipe_differ_by_design(tmp_path: Path) -> None:
    official = {"name": "official", "epochs": 9}
    rows = frame(tmp_path, {"recipe": official}, {"loss": "bl", "recipe": official | {"epochs": 3}})
    assert differences(rows) == []


def test_what_was_set_by_hand_beside_an_official_recipe_is_a_term(tmp_path: Path) -> None:
    rows = {loss: dict(recipe_for("official", loss, "ucf_qnrf", {}).recipe) for loss in ("pml", "bl")}
    store = Store(tmp_path)
    add_run(store, fake_spec("pml", recipe=rows["pml"]), images=5)
    add_run(store, fake_spec("bl", recipe=rows["bl"]), images=5)
    assert len({setting.key for setting in settings(measured_in(store, store.load()))}) == 1
    add_run(
        store, fake_spec("l2", recipe=dict(recipe_for("official", "l2", "ucf_qnrf", {"epochs": 1}).recipe)), images=5
    )
    assert len({setting.key for setting in settings(measured_in(store, store.load()))}) == 2


def test_terms_may_be_set_apart(tmp_path: Path) -> None:
    rows = frame(tmp_path, {}, {"loss": "l2", "backbone": "csrnet"})
    assert differences(rows, ("backbone",)) == []
    rows = frame(tmp_path, {}, {"recipe": {"epochs": 9}})
    rows = with_terms(rows.query("loss == 'pml'"), without=["recipe_epochs"])
    assert differences(rows) == []


def test_mismatches_are_found_by_column(tmp_path: Path) -> None:
    rows = frame(tmp_path, {}, {"backbone": "csrnet", "stride": 4}, {"loss": "bl", "recipe": {"epochs": 9}})
    (sentence,) = mismatches(rows)
    assert "vgg19" in sentence
    assert "recipe_epochs is" in sentence
    assert mismatches(rows[rows["recipe_epochs"] == 5]) == []
    assert mismatches(rows.iloc[:0]) == []
    (sentence,) = mismatches(frame(tmp_path / "versions", {}, {"loss_version": 9, "seed": 1}))
    assert sentence.startswith("pml: loss_version is 1 (1 run) or 9 (1 run)")


def test_select(tmp_path: Path) -> None:
    rows = frame(tmp_path, {}, {"loss": "bl", "seed": 1}, {"loss": "l2", "recipe": {"epochs": 9}})
    rows["label"] = rows["loss"] + "[a=1,b=2]"
    assert set(select(rows, ["loss=pml,bl"])["loss"]) == {"pml", "bl"}
    assert set(select(rows, ["epochs=9.0"])["loss"]) == {"l2"}
    assert set(select(rows, ["label=bl[a=1,b=2],l2[a=1,b=2]"])["loss"]) == {"bl", "l2"}
    assert set(select(rows, ["seed=0", "recipe_epochs=5"])["loss"]) == {"pml"}
    with pytest.raises(ValueError, match="Did you mean loss"):
        select(rows, ["los=pml"])
    with pytest.raises(ValueError, match="loss is one of: bl, l2, pml"):
        select(rows, ["loss=gl"])
    with pytest.raises(ValueError, match="expected FIELD=VALUE"):
        select(rows, ["loss"])


def test_each_value_of_a_list_must_be_there(tmp_path: Path) -> None:
    noises = ("none", "uniform-px:8", "uniform-px:16")
    rows = frame(tmp_path, *({"noise": noise} for noise in noises), {"loss": "bl"})
    with pytest.raises(ValueError, match=r"no run has noise=unifrom-px:8; .*Did you mean uniform-px:8"):
        select(rows, ["noise=none,unifrom-px:8"])
    assert len(select(rows, ["noise=none,uniform-px:8"])) == 3
    # A value that other conditions drop is not misspelt.
    assert set(select(rows, ["loss=bl", "noise=none,uniform-px:8"])["loss"]) == {"bl"}
    with pytest.raises(ValueError, match="noise is one of: none"):
        select(rows, ["loss=bl", "noise=uniform-px:8"])


def test_conditions_on_measurements_keep_failed_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add_run(store, fake_spec("pml"), images=5)
    add_failure(store, fake_spec("bl"))
    rows = select(store.load(), ["selection=val", "split=test"])
    assert set(rows["loss"]) == {"pml", "bl"}
    assert set(select(store.load(), ["loss=pml"])["loss"]) == {"pml"}
