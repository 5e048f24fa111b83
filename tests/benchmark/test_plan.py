from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from benchmark.plan import PlanError, Planned, Skipped, plan, variations
from benchmark.study import Study, validated
from tests.runners.crowd_folder import crowd_folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crowd_folder(tmp_path_factory.mktemp("data") / "crowd")


def study(**axes: object) -> Study:
    plain = {"losses": ["pml"], "backbones": ["mcnn"], "datasets": ["folder"], "weights": "none"}
    return validated(plain | axes, "test")


def ids(runs: list[Planned | Skipped]) -> list[str]:
    assert all(isinstance(run, Planned) for run in runs)
    return [run.spec.run_id for run in runs if isinstance(run, Planned)]


def test_every_combination_once(root: Path) -> None:
    runs = plan(study(losses=["pml", "bl"], noises=["none", "uniform-px:4"], seeds=[0, 1, 2]), root)
    assert len(set(ids(runs))) == 12


def test_the_id_covers_what_changes_the_weights(root: Path) -> None:
    base = ids(plan(study(), root))
    changes: list[dict[str, object]] = [
        {"losses": ["pml[tau=2]"]},
        {"losses": ["bl"]},
        {"backbones": ["csrnet"]},
        {"stride": 8, "head": "native", "backbones": ["csrnet"], "seeds": [1]},
        {"noises": ["missing:0.1"]},
        {"noise_seed": 1, "noises": ["missing:0.1"]},
        {"seeds": [1]},
        {"overrides": {"epochs": 3}},
        {"datasets": ["folder[scale=0.5]"]},
    ]
    found = [ids(plan(study(**change), root))[0] for change in changes]
    assert len({*base, *found}) == len(changes) + 1


def test_the_id_does_not_cover_spelling_or_place(root: Path, tmp_path: Path) -> None:
    base = ids(plan(study(), root))
    assert ids(plan(study(losses=["pml[count_norm=l1]"]), root)) == base  # the default, written out
    assert ids(plan(study(noises=["none"], title="another"), root)) == base
    moved = crowd_folder(tmp_path / "elsewhere")
    assert ids(plan(study(), moved)) == base


def test_the_id_follows_the_content(tmp_path: Path) -> None:
    folder = crowd_folder(tmp_path / "crowd")
    base = ids(plan(study(), folder))
    next((folder / "train").glob("*.json")).write_text("[[1.0, 2.0]]")
    assert ids(plan(study(), folder)) != base


def test_what_does_not_fit_is_skipped_with_a_reason(root: Path) -> None:
    runs = plan(study(losses=["p2p", "pml"], backbones=["vgg16_bn[head=bl]"]), root)
    assert [type(run) for run in runs] == [Skipped, Planned]
    assert "points" in runs[0].reason  # type: ignore[union-attr]


def test_a_missing_dataset_is_skipped_with_a_reason(tmp_path: Path) -> None:
    (run,) = plan(study(datasets=["ucf_qnrf"]), tmp_path)
    assert isinstance(run, Skipped)
    assert str(tmp_path) in run.reason


def test_filters(root: Path) -> None:
    rule = {"loss": "bl", "noise": "none", "reason": "not this one"}
    runs = plan(study(losses=["pml", "bl"], noises=["none", "missing:0.1"], exclude=[rule]), root)
    skipped = [run for run in runs if isinstance(run, Skipped)]
    assert [(run.label.split(" ")[0], run.reason) for run in skipped] == [("bl", "not this one")]


def test_only_what_a_study_is_about(root: Path) -> None:
    only = [{"loss": "pml", "backbone": "vgg19[head=pml]"}, {"loss": "bl", "backbone": "mcnn"}]
    runs = plan(study(losses=["pml", "bl"], backbones=["mcnn", "vgg19", "vgg19[head=pml]"], only=only), root)
    assert [(run.spec.loss, run.spec.backbone, run.spec.head) for run in runs if isinstance(run, Planned)] == [
        ("bl", "mcnn", "native"),
        ("pml", "vgg19", "pml"),
    ]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"losses": ["pmll"]}, "Did you mean pml"),
        ({"losses": ["pml[taw=1]"]}, "Did you mean tau"),
        ({"losses": ["pml[tau=-1]"]}, "tau"),
        ({"backbones": ["mcn"]}, "Did you mean mcnn"),
        ({"backbones": ["mcnn[strid=4]"]}, "Did you mean stride"),
        ({"datasets": ["foldr"]}, "Did you mean folder"),
        ({"noises": ["uniform:8"]}, "uniform-px"),
        ({"recipe": "offical"}, "Did you mean official"),
        ({"overrides": {"lr": -1}}, "lr"),
    ],
)
def test_wrong_names_are_errors_with_suggestions(root: Path, axes: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(study(**axes), root)


def test_official_recipe_selects_the_official_variant(root: Path) -> None:
    (run,) = plan(study(losses=["dm_count"], recipe="official"), root)
    assert isinstance(run, Planned)
    assert run.spec.loss_params["variant"] == "official"
    assert (run.spec.recipe.optimizer, run.spec.recipe.lr, run.spec.recipe.batch_size) == ("adam", 1e-5, 10)


@pytest.mark.parametrize("loss", ["pml", "l2", "dm_count"])
def test_every_loss_gets_the_same_budget(root: Path, loss: str) -> None:
    (run,) = plan(study(losses=[loss], recipe="tuned"), root)
    assert isinstance(run, Planned)
    trials = variations(run, 9)
    assert len({trial.spec.run_id for trial in trials}) == 9
    assert trials[0].spec == run.spec  # the untuned values take part
    rates = sorted({trial.spec.recipe.lr for trial in trials})
    assert rates[0] < run.spec.recipe.lr < rates[-1]
    assert all(high / low == pytest.approx(rates[1] / rates[0], rel=0.02) for low, high in pairwise(rates))
