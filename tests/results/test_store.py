from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import results
from results.atomic import replacing, write_text
from results.schema import Evaluation, Failure, Localisation, Record
from results.spec import EvaluationSpec, LocalisationSpec, Recipe, RunSpec
from results.store import Store, StoreError
from tests.results.unsealed import edit


def spec(**changes: object) -> RunSpec:
    fields: dict[str, object] = {
        "loss": "pml", "loss_params": {"tau": 1.0}, "loss_version": 1, "backbone": "mcnn", "head": "native",
        "stride": 4, "output": "abs", "weights": "none", "weights_hash": "none", "dataset": "folder",
        "dataset_params": {}, "dataset_hash": "0", "noise": "none", "noise_seed": 0, "recipe": Recipe(), "seed": 0,
    }  # fmt: skip
    return RunSpec.model_validate(fields | changes)


def record(run: RunSpec) -> Record:
    return Record(
        run_id=run.run_id, spec=run, started="s", finished="f", selected={"val": {"epoch": 3, "mae": 1.5}},
        train_count_mean=7.0, parameters=10, environment={}, git={}, timings={"loss_ms": 1.0}, memory={},
    )  # fmt: skip


METRICS = {"mae": 2.0, "rmse": 3.0, "nae": None, "bias": 0.5, "game1": 2.0, "game2": 2.5, "game3": 3.0}


def measured(run: RunSpec, selection: str = "val") -> Evaluation:
    return Evaluation(
        run_id=run.run_id, evaluation=EvaluationSpec(selection=selection), epoch=3, images=2, metrics=METRICS,
        constant={"mae": 9.0}, seconds=0.1,
    )  # fmt: skip


def test_the_id_is_the_same_everywhere() -> None:
    """Fixed by hand: a change here orphans every stored run, so PROTOCOL_VERSION must say why."""
    assert spec().run_id == "4ec9144be42e2fd5"
    assert spec(weights="other_name.pth").run_id == spec().run_id
    assert spec(loss_params={"tau": 2.0}).run_id != spec().run_id


def test_a_precision_is_part_of_a_run_and_float32_is_what_runs_always_had() -> None:
    mixed = spec(recipe=Recipe(precision="bf16"))
    assert spec(recipe=Recipe(precision="float32")).run_id == spec(recipe=Recipe()).run_id != mixed.run_id
    assert "precision" not in spec().model_dump_json()
    assert RunSpec.model_validate_json(mixed.model_dump_json()) == mixed


def test_round_trip(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = spec()
    folder = store.run(run.run_id)
    assert folder.state() == "new"
    folder.begin(run)
    assert folder.state() == "interrupted"
    folder.finish(record(run))
    images = pd.DataFrame({"id": ["a", "b"], "true": [1, 2], "predicted": [1.5, 2.5], "mass": [[0.5, 1.0], [2.5, 0.0]]})
    folder.add_evaluation(measured(run), images)
    folder.add_evaluation(measured(run, "last"), images)
    assert folder.state() == "done"
    assert folder.record() == record(run)
    assert folder.has_evaluation(EvaluationSpec())
    back = folder.images(EvaluationSpec())
    assert back["predicted"].tolist() == [1.5, 2.5]
    assert list(back["mass"][0]) == [0.5, 1.0]
    frame = results.load(tmp_path)
    assert frame["selection"].tolist() == ["last", "val"]
    assert frame["mae"].tolist() == [2.0, 2.0]
    assert frame["constant_mae"].tolist() == [9.0, 9.0]
    assert json.loads(frame["loss_params"][0]) == {"tau": 1.0}


def test_failures_are_kept_until_the_next_try(tmp_path: Path) -> None:
    run = spec()
    folder = Store(tmp_path).run(run.run_id)
    folder.begin(run)
    folder.fail(Failure(run_id=run.run_id, spec=run, when="now", reason="NaN at step 3", epoch=2))
    assert folder.state() == "failed"
    (row,) = results.load(tmp_path).to_dict("records")
    assert (row["state"], row["reason"], row["finished_epochs"]) == ("failed", "NaN at step 3", 2)
    folder.begin(run)
    assert folder.state() == "interrupted"


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def torn() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        torn()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no whole JSON file"),
        ("{}", "no valid Record: run_id"),
        ('{"schema_version": 99}', "schema 99; this version reads 1"),
    ],
)
def test_broken_records_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "record.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        Store(tmp_path).run("a").record()


def test_half_a_history_line_is_left_out(tmp_path: Path) -> None:
    folder = Store(tmp_path).run("a")
    folder.path.mkdir()
    folder.history_file.write_text('{"epoch": 1, "loss": 2.0}\n{"epoch": 2, "lo')
    assert folder.history()["epoch"].tolist() == [1]


def test_find_by_prefix(tmp_path: Path) -> None:
    run = spec()
    store = Store(tmp_path)
    store.run(run.run_id).begin(run)
    assert store.find(run.run_id[:6]).run_id == run.run_id
    with pytest.raises(StoreError, match="0 runs"):
        store.find("zz")


# ---- measurements of places


def place(**changes: object) -> LocalisationSpec:
    fields: dict[str, object] = {"localizer": "lm", "params": {"size": 3}, "version": 1, "radii": ("4px", "8px")}
    return LocalisationSpec.model_validate(fields | {"main": "8px"} | changes)


def located(run: RunSpec, where: LocalisationSpec) -> Localisation:
    scores = {"tp": 3, "fp": 1, "fn": 2, "precision": 0.75, "recall": 0.6, "f1": 2 / 3, "ap": None, "error": 1.5}
    return Localisation(
        run_id=run.run_id, localisation=where, epoch=3, images=2, threshold=0.3, threshold_from="val",
        counts={"mae": 1.0, "rmse": 2.0, "nae": None, "bias": -0.5}, scores={"4px": scores, "8px": scores}, seconds=0.1,
    )  # fmt: skip


POINTS = pd.DataFrame(
    {"id": ["a", "b"], "true": [3, 2], "predicted": [2, 2], "points": [[1.0, 2.0], [3.0, 4.0]]}
    | {f"{name}_{radius}": [2, 1] for radius in ("4px", "8px") for name in ("tp", "error")}
)
CURVE = pd.DataFrame({"threshold": [0.5, 0.3], "tp": [1, 3], "split": "test", "radius": "8px"})


def with_places(root: Path, *where: LocalisationSpec) -> Store:
    """A store of one finished run."""
    run = spec()
    folder = Store(root).run(run.run_id)
    folder.begin(run)
    for one in where:
        folder.add_localisation(located(run, one), POINTS, CURVE)
    folder.finish(record(run))
    return Store(root)


def test_the_id_of_places_is_the_same_everywhere() -> None:
    """Fixed by hand: a change here measures every stored run again."""
    assert place().eval_id == "val-test-lm-c1b9b226"
    assert place(localizer="../x y").eval_id.rsplit("-", 1)[0] == "val-test-___x_y"
    others = [place(version=2), place(params={"size": 5}), place(radii=("8px",)), place(main="4px"), place(metrics=2)]
    assert len({one.eval_id for one in (place(), *others)}) == 6


def test_places_round_trip(tmp_path: Path) -> None:
    run, where = spec(), [place(), place(selection="last", localizer="otm")]
    store = with_places(tmp_path, *where)
    folder = store.run(run.run_id)
    folder.add_evaluation(measured(run), pd.DataFrame({"id": ["a"], "true": [1], "predicted": [1.0]}))
    assert folder.has_localisation(where[0])
    assert not folder.has_localisation(place(version=9))
    assert folder.localisations() == sorted((located(run, one) for one in where), key=lambda m: m.localisation.eval_id)
    assert folder.localisation(where[0].eval_id) == located(run, where[0])
    assert folder.evaluations() == [measured(run)]  # neither is taken for the other
    pd.testing.assert_frame_equal(folder.curve(where[0]), CURVE)
    pd.testing.assert_frame_equal(folder.points(where[0].eval_id, ["id", "tp_8px"]), POINTS[["id", "tp_8px"]])
    assert list(folder.points(where[0])["points"][1]) == [3.0, 4.0]
    frame = store.localisations()
    assert frame["localizer"].tolist() == ["otm", "otm", "lm", "lm"]
    assert frame["main"].tolist() == [False, True] * 2
    assert frame[["tp", "count_mae", "error"]].to_numpy().tolist() == [[3.0, 1.0, 1.5]] * 4
    assert json.loads(frame["localizer_params"][0]) == {"size": 3}
    assert len(store.load()) == 1
    hits = store.hits([(run.run_id, where[0].eval_id)], ["8px", "9px"])
    assert hits[["radius", "id", "true", "predicted", "tp"]].to_numpy().tolist() == [
        ["8px", "a", 3, 2, 2], ["8px", "b", 2, 2, 1],
    ]  # fmt: skip


def test_places_of_unfinished_runs_and_none_at_all(tmp_path: Path) -> None:
    run = spec()
    store = with_places(tmp_path, place())
    assert store.localisations([]).empty
    (store.run(run.run_id).path / "record.json").unlink()
    empty = store.localisations()
    assert empty.empty
    assert {"run_id", "f1", "count_bias"} <= set(empty)
    assert store.hits([], ["8px"]).columns.tolist() == ["run_id", "eval_id", "radius", "id", "true", "predicted", "tp"]


def test_a_measurement_counts_when_its_json_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables come first: a process that dies between them leaves no measurement."""
    folder = with_places(tmp_path).run(spec().run_id)

    def torn(path: Path, text: str) -> None:
        assert {"points.parquet", "curve.parquet"} == {p.name for p in path.parent.iterdir()}
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("results.run_folder.write_text", torn)
        with pytest.raises(OSError, match="no space"):
            folder.add_localisation(located(spec(), place()), POINTS, CURVE)
    assert not folder.has_localisation(place())
    assert folder.localisations() == []
    folder.add_localisation(located(spec(), place()), POINTS, CURVE)
    assert folder.has_localisation(place())


@pytest.mark.parametrize("name", ["points.parquet", "curve.parquet"])
def test_a_damaged_table_of_places_is_named(tmp_path: Path, name: str) -> None:
    store = with_places(tmp_path, place())
    folder = store.run(spec().run_id)
    path = folder.path / "eval" / place().eval_id / name
    read = folder.points if name == "points.parquet" else folder.curve
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match=f"{name} is no readable parquet file"):
        read(place())
    path.unlink()
    with pytest.raises(StoreError, match=f"{name} is missing: run {folder.run_id} has no evaluation"):
        read(place())
    if name == "points.parquet":
        problems: list[str] = []
        assert store.hits([(folder.run_id, place().eval_id)], ["8px"], problems).empty
        assert len(problems) == 1


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = with_places(tmp_path, place()).run(spec().run_id)
    with pytest.raises(StoreError, match="tp_9px"):
        folder.points(place(), ["id", "tp_9px"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-9], "localisation.json is no whole JSON file"),
        (lambda text: text.replace('"images"', '"pictures"'), "no valid Localisation: "),
        (lambda text: text.replace('"val"', '"train"'), "no valid Localisation: localisation.selection: Input"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 9'), "has schema 9; this version reads 1"),
    ],
)
def test_a_damaged_measurement_of_places_is_named(tmp_path: Path, change: Any, message: str) -> None:
    store = with_places(tmp_path, place(), place(selection="last"))
    path = store.run(spec().run_id).path / "eval" / place().eval_id / "localisation.json"
    edit(path, change)
    with pytest.raises(StoreError, match=message) as caught:
        store.localisations()
    assert str(path) in str(caught.value)
    problems: list[str] = []
    assert store.localisations(problems=problems).empty  # the run is left out in whole
    assert problems == [str(caught.value)]
    assert len(store.load()) == 1  # its counts do not depend on it
