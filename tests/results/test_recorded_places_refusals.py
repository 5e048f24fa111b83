"""Measurements of places in recorded studies: torn, edited, made up, and numbers that do not follow."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from results.recorded import RecordedError, export, import_into, read
from results.store import Store
from tests.results.made_up import (
    edit_images,
    edit_runs,
    edit_table,
    odd_places,
    put,
    rehash,
)

PLACES = ("localisation.parquet", "curves.parquet")


@pytest.fixture
def places(store: Store) -> Store:
    return odd_places(store)


# ---- torn, edited, foreign


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("change", ["torn", "edited", "missing"])
def test_a_changed_file_is_found_out(study: Path, name: str, change: str) -> None:
    data = bytearray((study / name).read_bytes())
    if change == "missing":
        (study / name).unlink()
    else:
        data[len(data) // 2] ^= 1
        (study / name).write_bytes(data if change == "edited" else data[:-7])
    with pytest.raises(RecordedError, match="is missing" if change == "missing" else "torn or was edited") as caught:
        read(study)
    assert str(study / name) in str(caught.value)


def test_files_that_the_study_does_not_mention_are_not_believed(study: Path) -> None:
    rehash(study, localisations=0, schema_version=1)
    with pytest.raises(RecordedError, match="says localisations: 0, but runs.jsonl has 2"):
        read(study)
    rehash(study, localisations=2, schema_version=1)
    with pytest.raises(RecordedError, match="schema_version is 1, but with 2 localisations it is 2"):
        read(study)
    rehash(study, localisations=3, schema_version=2)
    with pytest.raises(RecordedError, match="says localisations: 3, but runs.jsonl has 2"):
        read(study)


_FIRST = (0, "localisations", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(*_FIRST, "run_id", "0" * 16), "holds a part of run 0000"),
        (put(*_FIRST, "images", 0), "impossible number of images"),
        (put(*_FIRST, "images", 6), "has 10 rows; its runs have 11"),
        (put(*_FIRST, "images", "5"), "images: Input should be a valid integer"),
        (put(*_FIRST, "localisation", "metrics", -1), "impossible version"),
        (put(*_FIRST, "localisation", "version", 10**9), "impossible version"),
        (
            put(*_FIRST, "localisation", "localizer", "../lm"),
            r"its localizer is called '../lm', which is no plain word",
        ),
        (put(*_FIRST, "localisation", "localizer", "l" * 65), "which is no plain word"),
        (put(*_FIRST, "localisation", "split", "train"), "split: Input should be 'test' or 'val'"),
        (put(*_FIRST, "localisation", "radii", ["4px"]), "scores at other radii"),
        (put(*_FIRST, "localisation", "main", "5px"), "scores at other radii"),
        (put(*_FIRST, "localisation", "params", "size", 5), "rows that are not, in order"),  # its id is another
        (put(*_FIRST, "localisation", "params", "r\x1bx", 1), "is too long or cannot be printed"),
        (put(*_FIRST, "localisation", "params", "rule", "\u202e"), "is too long or cannot be printed"),
        (put(*_FIRST, "scores", "4px", "x" * 1001, 1.0), "is too long or cannot be printed"),
        (put(*_FIRST, "scores", "4px", "f1", math.nan), "holds what JSON cannot carry"),
        (put(*_FIRST, "scores", "4px", "f1", "1"), "f1: Input should be a valid number"),
        (put(*_FIRST, "threshold_from", "test"), "threshold_from: Input should be"),
        (put(*_FIRST, "threshold_from", "none"), "a threshold that comes from nowhere"),
        (put(*_FIRST, "points", []), "points: Extra inputs"),
        (put(0, "localisations", []), "says localisations: 2, but runs.jsonl has 1"),
        (lambda lines: lines[0]["localisations"].append(lines[0]["localisations"][0]), "or one is there twice"),
        (lambda lines: lines[0]["localisations"].append(lines[1]["localisations"][0]), "holds a part of run"),
    ],
)
def test_a_made_up_measurement_is_refused(study: Path, change: Any, message: str) -> None:
    edit_runs(study, change)
    with pytest.raises(RecordedError, match=message) as caught:
        read(study)
    assert str(caught.value).isprintable()


def test_measurements_are_in_order(places: Store, tmp_path: Path) -> None:
    export(places, tmp_path / "study", name="places")
    edit_runs(tmp_path / "study", lambda lines: [line.get("localisations", []).reverse() for line in lines])
    with pytest.raises(RecordedError, match="localisations of run .* are not in order"):
        read(tmp_path / "study")


def _with(name: str, values: Callable[[list[Any]], Any]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = pa.array(values(table[name].to_pylist()), table[name].type)
        return table.set_column(table.column_names.index(name), name, column)

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (PLACES[0], lambda t: t.append_column("x", t["true"]), r"x \(int64\); expected"),
        (PLACES[0], lambda t: t.drop_columns(["error"]), r"expected .*error \(list<"),
        (PLACES[0], lambda t: t.slice(1), "has 9 rows; its runs have 10"),
        (PLACES[0], lambda t: t.take(list(range(9, -1, -1))), "rows that are not, in order"),
        (PLACES[0], _with("true", lambda v: [None, *v[1:]]), "values of 'true' are missing"),
        (PLACES[0], _with("tp", lambda v: [[None, 1], *v[1:]]), "values of 'tp' are missing"),
        (PLACES[0], _with("tp", lambda v: [[1], *v[1:]]), "'tp' of run .* has not a number for each of 2 radii"),
        (PLACES[0], _with("tp", lambda v: [[1, 2, 3]] * len(v)), "has not a number for each of 2 radii"),
        (PLACES[0], _with("error", lambda v: [[]] * len(v)), "'error' of run .* has not a number for each"),
        (PLACES[0], _with("error", lambda v: [[None, 1.0], *v[1:]]), "'error' of run .* has gaps in some"),
        (PLACES[1], lambda t: t.append_column("x", t["tp"]), r"x \(int64\); expected"),
        (PLACES[1], lambda t: t.drop_columns(["heads"]), r"expected .*heads \(int64\)"),
        (PLACES[1], lambda t: t.take(list(range(len(t) - 1, -1, -1))), "rows that are not, in order"),
        (PLACES[1], _with("run_id", lambda v: ["0" * 16, *v[1:]]), "rows; its runs have"),
        (PLACES[1], _with("tp", lambda v: [None, *v[1:]]), "values of 'tp' are missing"),
        (PLACES[1], _with("split", lambda v: ["train", *v[1:]]), "for the split 'train', which it has not"),
        (PLACES[1], _with("radius", lambda v: ["\x1b[2J", *v[1:]]), "for the radius .*, which it has not"),
    ],
)
def test_a_made_up_table_is_refused(study: Path, name: str, change: Any, message: str) -> None:
    edit_table(study, name, change)
    with pytest.raises(RecordedError, match=message) as caught:
        read(study)
    assert str(study / name) in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("points.parquet", lambda f: f.drop(columns="tp_4px"), r"expected .*tp_4px \(int64\)"),
        ("points.parquet", lambda f: f.assign(tp_4px=f["tp_4px"] / 1), r"tp_4px \(double\)"),
        ("points.parquet", lambda f: f.iloc[1:], "has 4 images; localisation.json beside it says 5"),
        ("curve.parquet", lambda f: f.drop(columns="f1"), "expected threshold, tp, predicted, precision"),
        ("curve.parquet", lambda f: f.assign(radius="7px"), "for the radius '7px', which it has not"),
    ],
)
def test_other_places_are_not_recorded(base: Path, tmp_path: Path, name: str, change: Any, message: str) -> None:
    store = Store(shutil.copytree(base / "runs", tmp_path / "runs"))
    path = next(store.root.glob(f"*/eval/*/{name}"))
    edit_images(path, change)
    with pytest.raises(RecordedError, match=message):
        export(store, tmp_path / "s", name="s")
    path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(RecordedError, match="is no readable parquet file"):
        export(store, tmp_path / "s", name="s")
    path.unlink()
    with pytest.raises(RecordedError, match="is missing"):
        export(store, tmp_path / "s", name="s")


# ---- numbers follow from images


_SCORES = ("tp", "fp", "fn", "precision", "recall", "f1", "error")


@pytest.mark.parametrize("metric", [*_SCORES, "mae", "rmse", "nae", "bias"])
def test_a_number_that_does_not_follow_is_named(study: Path, tmp_path: Path, metric: str) -> None:
    """`runners.metrics.localisation` computed what is compared: it must agree, and a millionth more must not."""
    assert read(study).check() == []
    first = json.loads((study / "runs.jsonl").read_text().splitlines()[0])
    path = ("scores", "sigma_l", metric) if metric in _SCORES else ("counts", metric)
    value = first["localisations"][0]
    for key in path:
        value = value[key]
    claimed = value + 1e-6 * max(1.0, abs(value))
    edit_runs(study, put(*_FIRST, *path, claimed))
    (found,) = read(study).check()
    eval_id = read(study).localisations()["eval_id"].iloc[0]
    what = f"at sigma_l, {metric}" if metric in _SCORES else f"count {metric}"
    expected = f"run {first['run_id']}, {eval_id}: {what} is {claimed!r}, but its images give "
    assert found.startswith(expected)
    assert float(found.removeprefix(expected)) == pytest.approx(value, rel=1e-12, abs=1e-12)
    with pytest.raises(RecordedError, match=f"{metric} is"):
        import_into(read(study), Store(tmp_path / "back"))
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (PLACES[0], _with("tp", lambda v: [[99, 99], *v[1:]]), "image 'img_0' has 99 pairs of .* heads and 0 points"),
        (PLACES[0], _with("tp", lambda v: [[-1, 0], *v[1:]]), "at 4px, image 'img_0' has -1 pairs"),
        (PLACES[0], _with("error", lambda v: [[9.0, 0.0], *v[1:]]), "at 4px, error is .*, but its images give"),
        (PLACES[1], _with("tp", lambda v: [10**6, *v[1:]]), "the curve of val at 4px has more pairs than points"),
        (PLACES[1], _with("heads", lambda v: [h + 1 for h in v]), "the curve of test at 4px has not the recall that"),
    ],
)
def test_a_table_that_does_not_fit_is_found_out(study: Path, name: str, change: Any, message: str) -> None:
    edit_table(study, name, change)
    assert any(pd.Series(read(study).check()).str.contains(message))


def test_a_null_is_no_number(study: Path) -> None:
    edit_runs(study, put(*_FIRST, "scores", "4px", "f1", None))
    assert any("f1 is None, but its images give" in finding for finding in read(study).check())


def test_the_first_difference_is_named(base: Path, tmp_path: Path) -> None:
    found = read(base / "study")
    for name, change, message in (
        ("points", lambda f: f.assign(error_4px=f["error_4px"] + 1), r"places\..*\.images\.error is .* there"),
        ("curve", lambda f: f.assign(threshold=0.0), r"places\..*\.curve\.threshold is .* there"),
    ):
        store = Store(shutil.copytree(base / "runs", tmp_path / name))
        edit_images(next(store.run(found.run_ids[0]).path.glob(f"eval/*/{name}.parquet")), change)
        with pytest.raises(RecordedError, match=f"{found.run_ids[0]} is in .* already and differs: {message}"):
            import_into(found, store)
