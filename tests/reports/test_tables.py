"""Tables of measurements against numbers worked out from the parquet files by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports import stats, tables, tables_noise
from reports.cells import CONSTANT
from reports.measured import Comparisons, Measured, Sample
from reports.protocol import MixedProtocolError
from reports.table import Cell, Table
from results.store import Store
from tests.reports.fake_store import add_failure, add_run, defaults, fake_spec, fake_store


def measured(store: Store) -> Measured:
    frame = store.load()
    return Measured.of(store, frame, defaults(frame))


def cell(table: Table, row: str, column: str, group: str = "") -> Cell:
    (place,) = [i for i, c in enumerate(table.columns) if (c.label, c.group) == (column, group)]
    (found,) = [r for r in table.rows if r.label == row]
    return found.cells[place]


def test_every_number_follows_from_the_images(tmp_path: Path) -> None:
    store = fake_store(tmp_path)
    (setting,) = tables.settings(measured(store))
    table = tables.comparison(setting)
    for loss in ("pml", "bl", "l2"):
        errors = []
        for seed in range(3):
            rows = store.run(fake_spec(loss, seed).run_id).images("val-test-m1")
            errors.append((rows["predicted"] - rows["true"]).to_numpy())
        truth = rows["true"].to_numpy()
        mae = [np.abs(e).mean() for e in errors]
        found = cell(table, loss, "MAE")
        assert found.value == pytest.approx(np.mean(mae), rel=1e-12)
        assert found.sd == pytest.approx(np.std(mae, ddof=1), rel=1e-12)
        assert found.text == f"{np.mean(mae):.1f} ± {np.std(mae, ddof=1):.1f}"
        assert found.low < found.value < found.high
        assert cell(table, loss, "95 % interval").text == f"{found.low:.1f} to {found.high:.1f}"
        rmse = np.mean([np.sqrt((e**2).mean()) for e in errors])
        assert cell(table, loss, "RMSE ('MSE')").value == pytest.approx(rmse, rel=1e-12)
        nae = np.mean([(np.abs(e)[truth > 0] / truth[truth > 0]).mean() for e in errors])
        assert cell(table, loss, "NAE").value == pytest.approx(nae, rel=1e-12)
        assert cell(table, loss, "bias").value == pytest.approx(np.mean(errors), rel=1e-9)
    constant = np.abs(truth - truth.mean()).mean()
    assert cell(table, CONSTANT, "MAE").value == pytest.approx(constant, rel=1e-12)
    assert [row.label for row in table.rows] == [
        *sorted(("pml", "bl", "l2"), key=lambda k: cell(table, k, "MAE").value),
        CONSTANT,
    ]
    assert table.rows[-1].reference


def test_the_best_is_bold_only_where_separated(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in range(5):
        for loss, quality in (("pml", 0.05), ("bl", 0.2), ("l2", 0.6)):
            add_run(store, fake_spec(loss, seed), quality=quality, images=150)
    (setting,) = tables.settings(measured(store))
    table = tables.comparison(setting)
    assert [cell(table, loss, "MAE").mark for loss in ("pml", "bl", "l2")] == ["best", "second", ""]


def test_equal_losses_are_a_tie(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in range(5):
        for loss in ("pml", "bl"):
            add_run(store, fake_spec(loss, seed), quality=0.2, images=60)
    (setting,) = tables.settings(measured(store))
    table = tables.comparison(setting)
    assert [cell(table, loss, "MAE").mark for loss in ("pml", "bl")] == ["tie", "tie"]
    assert any("not separated" in line for line in table.legend())


def test_one_seed_has_no_interval_and_no_mark(tmp_path: Path) -> None:
    (setting,) = tables.settings(measured(fake_store(tmp_path, seeds=[0])))
    table = tables.comparison(setting)
    found = cell(table, "pml", "MAE")
    assert (found.sd, found.low) == (None, None)
    assert {c.mark for row in table.rows for c in row.cells} == {""}
    assert "±" not in found.text
    assert any(line.startswith("1 seed: no interval") for line in table.caption)


def test_different_terms_are_different_settings(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml"], [0])
    add_run(store, fake_spec("bl", recipe={"epochs": 7}))
    add_run(store, fake_spec("l2", noise="uniform-px:8"))
    found = tables.settings(measured(store))
    assert len(found) == 3
    assert len({setting.key for setting in found}) == 3


def test_failures_are_shown_with_their_reason_and_counted(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml", "bl"], [0, 1])
    add_failure(store, fake_spec("gl", 0), "out of memory")
    add_failure(store, fake_spec("gl", 1), "out of memory")
    add_failure(store, fake_spec("bl", 2), "the loss is not finite")
    (setting,) = tables.settings(measured(store))
    table = tables.comparison(setting)
    gone = cell(table, "gl", "seeds")
    assert gone.text == "failed (2)"
    assert gone.notes == ("failed: out of memory",)
    assert cell(table, "bl", "seeds").notes == ("bl: seed 2 failed: the loss is not finite",)
    assert "Of 7 runs 3 failed." in table.caption


def test_worse_than_a_constant_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add_run(store, fake_spec("pml"), quality=0.1)
    add_run(store, fake_spec("p2p"), quality=8.0)
    (setting,) = tables.settings(measured(store))
    assert [line.split(" ")[0] for line in tables.not_better_than_constant(setting)] == ["p2p"]


def test_rows_for_machines(tmp_path: Path) -> None:
    (setting,) = tables.settings(measured(fake_store(tmp_path)))
    rows = tables.comparison_rows(setting, tables.comparison(setting))
    (pml,) = [row for row in rows if row["loss"] == "pml"]
    assert pml["seeds"] == 3
    assert pml["mae_low"] < pml["mae"] < pml["mae_high"]
    assert pml["protocol"] == setting.key


def test_the_noise_table(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for loss in ("pml", "l2"):
        for noise, quality in (("none", 0.1), ("uniform-px:16", 0.4), ("uniform-px:8", 0.2)):
            for seed in range(2):
                add_run(store, fake_spec(loss, seed, noise=noise), quality=quality)
    table = tables_noise.by_level(measured(store))
    assert list(dict.fromkeys(column.group for column in table.columns)) == ["none", "uniform-px:8", "uniform-px:16"]
    clean, noisy = (cell(table, "pml", "MAE", level).value for level in ("none", "uniform-px:16"))
    change = cell(table, "pml", "MAE change", "uniform-px:16")
    assert change.value == pytest.approx(noisy - clean)
    assert change.low < change.value < change.high
    single = fake_store(tmp_path / "single", ["pml"], [0], noises=("none", "uniform-px:8"))
    assert cell(tables_noise.by_level(measured(single)), "pml", "MAE change", "uniform-px:8").text == "–"
    with pytest.raises(ValueError, match="at least two noises; found only 'none'"):
        tables_noise.by_level(measured(fake_store(tmp_path / "clean")))


def test_failed_runs_are_told_in_every_table(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml", "bl"], [0, 1], noises=("none", "uniform-px:8"))
    add_failure(store, fake_spec("pml", 2), "out of memory")
    add_failure(store, fake_spec("gl", 0), "not finite")
    found = measured(store)
    for table, group in ((tables_noise.by_level(found), "none"), (tables.custom(found, "label", "noise"), "none")):
        assert cell(table, "pml", "MAE", group).notes == ("pml: seed 2 failed: out of memory",)
        assert cell(table, "gl", "MAE", group).text == "failed"
        assert cell(table, "gl", "MAE", group).notes == ("failed: not finite",)
        assert cell(table, "gl", "MAE", "uniform-px:8").text == "not run"
        assert table.rows[-1].label == CONSTANT


def test_the_cost_table(tmp_path: Path) -> None:
    store = fake_store(tmp_path)
    frame = store.load()
    table = tables.cost(measured(store))
    mean = frame[frame["loss"] == "pml"]["loss_ms"].mean()
    assert cell(table, "pml", "loss ms", "vgg19").value == pytest.approx(mean)
    assert "Test CPU" in table.caption[0]
    add_run(store, fake_spec("gl"), record={"environment": {"processor": "Another CPU", "device": "cpu", "threads": 1}})
    with pytest.raises(MixedProtocolError, match="processor is"):
        tables.cost(measured(store))


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml", "bl"], [0, 1], backbones=("vgg19", "csrnet"))
    found = measured(store)
    table = tables.custom(found, "label", "backbone", ["mae", "nae"])
    assert [(c.group, c.label) for c in table.columns] == [
        ("csrnet", "MAE"), ("csrnet", "NAE"), ("vgg19", "MAE"), ("vgg19", "NAE"),
    ]  # fmt: skip
    turned = tables.custom(found, "backbone", "label")
    assert cell(turned, "csrnet", "MAE", "pml").value == cell(table, "pml", "MAE", "csrnet").value
    with pytest.raises(ValueError, match="Did you mean backbone"):
        tables.custom(found, "label", "backbon")
    with pytest.raises(ValueError, match="rows and columns are both"):
        tables.custom(found, "label", "label")
    with pytest.raises(ValueError, match="unknown metric 'mse'"):
        tables.custom(found, metrics=["mse"])


def test_an_axis_of_the_recipe_is_no_term(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml"], [0, 1])
    for seed in (0, 1):
        add_run(store, fake_spec("pml", seed, recipe={"epochs": 7}))
    table = tables.custom(measured(store), "label", "epochs")
    assert [column.group for column in table.columns] == ["5", "7"]
    with pytest.raises(MixedProtocolError, match="recipe_epochs is"):
        tables.custom(measured(store), "label", "dataset")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head": "pml"}, "head is"),
        ({"loss_version": 9}, "loss_version is"),
        ({"recipe": {"name": "official", "lr": 1.0}}, "recipe is"),
    ],
)
def test_a_cell_holds_runs_that_differ_in_their_seed_only(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    store = fake_store(tmp_path, ["pml"], [0])
    add_run(store, fake_spec("pml", 1, **change))
    found = measured(store)
    with pytest.raises(MixedProtocolError, match=said):
        found.sample(found.evaluated)


def test_other_images_are_refused(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml"], [0])
    add_run(store, fake_spec("pml", 1), images=30)
    found = measured(store)
    with pytest.raises(MixedProtocolError, match="on other images or true counts"):
        found.sample(found.evaluated)


def test_comparisons_are_corrected_over_the_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    true = rng.lognormal(4, 1, 80)
    noise = {"a": 0.1, "b": 0.12, "c": 0.4}
    columns = {
        name: {
            loss: Sample(true * (1 + share * rng.standard_normal((4, 80))), true, (0, 1, 2, 3), tuple("abcd"))
            for loss, share in noise.items()
        }
        for name in ("x", "y")
    }
    found = Comparisons(columns, ("mae", "rmse"))
    for _, family in found.table.groupby("metric"):
        assert len(family) == 6
        np.testing.assert_allclose(family["p_holm"], stats.holm(family["p"].to_numpy()))
    assert found.better("x", "mae", "a", "c") is True
    assert found.better("x", "mae", "c", "a") is False
    assert found.better("x", "mae", "a", "zzz") is None
    assert found.pairs == 6


def test_losses_without_common_seeds_are_not_separated() -> None:
    true = np.arange(1.0, 41.0)
    a = Sample(np.tile(true, (2, 1)), true, (0, 1), ("a", "b"))
    b = Sample(np.tile(true * 3, (2, 1)), true, (2, 3), ("c", "d"))
    found = Comparisons({"": {"a": a, "b": b}})
    assert found.better("", "mae", "a", "b") is None
    assert set(found.table["seeds"]) == {0}


def test_the_mark_follows_the_test_and_not_other_seeds(tmp_path: Path) -> None:
    """On the seeds that both have pml is worse; seeds that bl lacks make its mean the lower one all the same."""
    store = Store(tmp_path)
    for seed in range(10):
        add_run(store, fake_spec("pml", seed), quality=0.6 if seed < 3 else 0.05, images=100)
    for seed in range(3):
        add_run(store, fake_spec("bl", seed), quality=0.3, images=100)
    (setting,) = tables.settings(measured(store))
    table = tables.comparison(setting)
    assert cell(table, "pml", "MAE").value < cell(table, "bl", "MAE").value
    assert cell(table, "pml", "MAE").mark != "best"


def test_tuned_runs_differ_in_their_learning_rate_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for loss, lr in (("pml", 1e-4), ("bl", 1e-3)):
        add_run(store, fake_spec(loss, recipe={"name": "tuned", "lr": lr}))
    assert len(tables.settings(measured(store))) == 1
    add_run(store, fake_spec("l2", recipe={"name": "tuned", "epochs": 9}))
    assert len(tables.settings(measured(store))) == 2


def test_trials_of_a_search_are_no_results(tmp_path: Path) -> None:
    store = Store(tmp_path)
    trials = [fake_spec("pml", 0, recipe={"name": "tuned", "lr": lr}) for lr in (1e-4, 3e-4, 1e-3)]
    search = [{"run_id": spec.run_id, "lr": spec.recipe.lr, "val_mae": 1.0} for spec in trials]
    for spec in trials:
        add_run(store, spec, record={"search": search} if spec is trials[1] else {})
    add_run(store, fake_spec("pml", 1, recipe={"name": "tuned", "lr": 3e-4}), record={"search": search})
    found = measured(store)
    (setting,) = tables.settings(found)
    table = tables.comparison(setting)
    assert cell(table, "pml", "seeds").value == 2
    assert "2 trials of a search are left out." in table.caption


def test_two_heads_are_two_rows(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml"], [0, 1])
    for seed in (0, 1):
        add_run(store, fake_spec("pml", seed, head="pml"))
    (setting,) = tables.settings(measured(store))
    names = {row.label for row in tables.comparison(setting).rows}
    assert names == {"pml · bl head", "pml · pml head", CONSTANT}


def test_a_prediction_that_is_not_finite_is_last_and_says_so(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml", "bl"], [0, 1])
    folder = store.run(fake_spec("pml", 0).run_id)
    path = folder.path / "eval/val-test-m1/images.parquet"
    rows = folder.images("val-test-m1")
    rows.loc[3, "predicted"] = np.nan
    rows.to_parquet(path)
    (setting,) = tables.settings(measured(store))
    table = tables.comparison(setting)
    assert [row.label for row in table.rows] == ["bl", "pml", CONSTANT]
    assert cell(table, "pml", "MAE").notes == ("a prediction is not finite",)
    assert cell(table, "pml", "95 % interval").text == "none"


def test_failures_on_other_terms_are_not_pinned_on_a_cell(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml"], [0, 1], noises=("none", "uniform-px:8"))
    add_failure(store, fake_spec("pml", 0, recipe={"lr": 1.0}), "not finite")
    table = tables_noise.by_level(measured(store))
    assert cell(table, "pml", "MAE", "none").notes == ()
    assert "Of 5 runs 1 failed." in table.caption


def test_done_runs_without_a_measurement_are_counted(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml", "bl"], [0, 1])
    (store.run(fake_spec("bl", 1).run_id).path / "eval/val-test-m1/metrics.json").unlink()
    (setting,) = tables.settings(measured(store))
    assert "Of 4 runs 1 done without a readable measurement." in tables.comparison(setting).caption
