from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import results
from results.atomic import replacing, write_text
from results.schema import Evaluation, Failure, Record
from results.spec import EvaluationSpec, Recipe, RunSpec
from results.store import Store, StoreError


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


def test_a_claim_holds_while_its_process_lives(tmp_path: Path) -> None:
    folder = Store(tmp_path).run("a")
    assert folder.claim()
    assert not Store(tmp_path).run("a").claim()
    folder.release()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "a" / "claim.json").write_text(json.dumps({"host": os.uname().nodename, "pid": dead.pid}))
    assert folder.claim()


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
