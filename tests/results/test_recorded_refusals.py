from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results.recorded import FILES, RecordedError, export, import_into, merge, read
from results.spec import EvaluationSpec
from results.store import Store, StoreError
from tests.reports.fake_store import add_failure, add_run, fake_images, fake_spec
from tests.results.made_up import edit_images, edit_runs, edit_table, measure, nothing_wrong, put, rehash, tree
from tests.results.unsealed import edit, set_value

# ---- torn, edited and made-up files


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", ["torn", "edited", "missing"])
def test_a_changed_file_is_found_out(copied: Path, name: str, change: str) -> None:
    path = copied / name
    data = bytearray(path.read_bytes())
    if change == "missing":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data if change == "edited" else data[:-7])
    with pytest.raises(RecordedError, match="is missing" if change == "missing" else "torn or was edited") as caught:
        read(path.parent)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": 3}, "says runs: 3, but runs.jsonl has 2"),
        ({"losses": ["pml"]}, "says losses"),
        ({"schema_version": 2}, "schema_version is 2, but with 0 localisations it is 1"),
        ({"schema_version": 2, "localisations": 1}, "localisation.parquet is missing"),
        ({"protocols": [2]}, "says protocols"),
        ({"windows": False}, r"has the columns .*mass \(list<.*; expected .*window_rows \(int64\)$"),
        (
            {"schema_version": 9},
            "this version of the benchmark: schema_version: Input should be less than or equal to 2",
        ),
        ({"record_schema": 9}, "by this version of the benchmark: record_schema: Input should be less"),
        ({"schema_version": "1"}, "schema_version: Input should be a valid integer"),
        ({"runs": "2"}, "runs: Input should be a valid integer"),
        ({"name": "../x"}, "name: "),
        ({"title": "a\nb"}, "title: expected one line"),
        ({"path": "/"}, "path: Extra inputs"),
        ({"sha256": {}}, "torn or was edited"),
    ],
)
def test_a_changed_study_file_is_found_out(copied: Path, changes: dict[str, Any], message: str) -> None:
    path = copied / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(RecordedError, match=message) as caught:
        read(path.parent)
    assert "\n" not in str(caught.value)
    path.write_text(path.read_text()[:-9])
    with pytest.raises(RecordedError, match="Invalid JSON: EOF"):
        read(path.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(0, "spec", "seed", 7), "run .* holds a part of run .*, or its specification was changed"),
        (put(0, "record", "spec", "recipe", "lr", 0.5), "or its specification was changed"),
        (put(0, "run_id", "../../../../tmp/x"), "run_id: String should match"),
        (put(0, "run_id", "0" * 16), "or its specification was changed"),
        (put(0, "record", "run_id", "0" * 16), "holds a part of run 0000"),
        (put(0, "evaluations", 0, "run_id", "0" * 16), "holds a part of run 0000"),
        (put(0, "evaluations", 0, "evaluation", "split", "../x"), "split: Input should be 'test' or 'val'"),
        (put(0, "evaluations", 0, "evaluation", "metrics", -1), "impossible number of images or version"),
        (put(0, "evaluations", 0, "images", 10**15), "has 12 rows; its runs have 1000000000000006"),
        (put(0, "evaluations", 0, "images", 7), "has 12 rows; its runs have 13"),
        (put(0, "epochs", 6), "has 10 rows; its runs have 11"),
        (put(0, "spec", "seed", "0"), "spec.seed: Input should be a valid integer"),
        (put(0, "weights", "x"), "weights: Extra inputs"),
        (put(0, "record", None), "has neither record nor failure"),
        (put(0, "record", "train_count_mean", math.nan), "holds what JSON cannot carry"),
        (put(0, "record", "environment", "x", math.inf), "holds what JSON cannot carry"),
        (put(0, "record", "command", "\ud800"), "line 1 cannot be read by this version of the benchmark: Invalid JSON"),
        (put(0, "record", "timings", "mae", 1.0), "a timing or metric is called 'mae'"),
        (put(0, "record", "memory", "step_ms", 1.0), "a timing or metric is called 'step_ms'"),
        (put(0, "evaluations", 0, "metrics", "loss", 1.0), "a timing or metric is called 'loss'"),
        (put(0, "record", "environment", "libraries", "x"), "libraries is no table"),
        (lambda lines: lines.reverse(), "not in order"),
        (lambda lines: lines[0]["evaluations"].append(lines[0]["evaluations"][0]), "or one is there twice"),
    ],
)
def test_a_made_up_run_is_refused(copied: Path, change: Any, message: str) -> None:
    edit_runs(copied, change)
    with pytest.raises(RecordedError, match=message) as caught:
        read(copied)
    assert str(copied) in str(caught.value)
    assert "\n" not in str(caught.value)


def _with(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = values(table[name].to_pylist())
        return table.set_column(table.column_names.index(name), name, column)

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("images.parquet", lambda t: t.append_column("x", t["true"]), r"has the columns .*, x \(int64\); expected"),
        ("images.parquet", lambda t: t.drop_columns(["people"]), r"has the columns .*; expected .*, people \(list<"),
        ("images.parquet", lambda t: t.slice(1), "has 11 rows; its runs have 12"),
        ("images.parquet", lambda t: t.take(list(range(11, -1, -1))), "rows that are not, in order"),
        (
            "images.parquet",
            _with("true", lambda v: pa.array(v, pa.float64())),
            r"true \(double\).*; expected .*true \(int64",
        ),
        (
            "images.parquet",
            _with("eval_id", lambda v: pa.array(["last-test-m1"] * len(v))),
            "rows that are not, in order",
        ),
        ("history.parquet", lambda t: t.append_column("x", t["layout"]), r"x \(string\); expected"),
        ("history.parquet", _with("layout", lambda v: pa.array(["[1"] * len(v))), "a row that does not fit its layout"),
        ("history.parquet", _with("layout", lambda v: pa.array(['[["q"]]'] * len(v))), "does not fit its layout"),
        ("history.parquet", _with("lr", lambda v: pa.array([None] * len(v), pa.float64())), "does not fit its layout"),
        (
            "history.parquet",
            _with("run_id", lambda v: pa.array(["x"] * len(v))),
            "rows that are not, in order",
        ),
    ],
)
def test_a_made_up_table_is_refused(copied: Path, name: str, change: Any, message: str) -> None:
    edit_table(copied, name, change)
    with pytest.raises(RecordedError, match=message) as caught:
        read(copied)
    assert str(copied / name) in str(caught.value)


def test_gaps_and_no_parquet_at_all(copied: Path) -> None:
    edit_table(copied, "images.parquet", _with("true", lambda v: pa.array([None, *v[1:]], pa.int64())))
    with pytest.raises(RecordedError, match="values of 'true' are missing"):
        read(copied)
    gap = pa.ListArray.from_arrays([12 * i for i in range(13)], pa.array([None] + [1] * 143, pa.int32()))
    edit_table(copied, "images.parquet", _with("true", lambda v: pa.array([1] * len(v))))
    edit_table(copied, "images.parquet", _with("people", lambda _: gap))
    with pytest.raises(RecordedError, match="values of 'people' are missing"):
        read(copied)
    (copied / "images.parquet").write_bytes(b"PAR1 no table PAR1")
    rehash(copied)
    with pytest.raises(RecordedError, match=r"images.parquet is no readable parquet file"):
        read(copied)


@pytest.mark.parametrize(
    ("limit", "most", "message"),
    [("RECORDED_BYTES", 99, "more than 99 bytes"), ("RECORD_BYTES", 999, "at most 999 are read"),
     ("RUNS", 1, "has 2 runs; at most 1"), ("TABLE_ROWS", 11, "12 rows; at most 11"),
     ("TABLE_COLUMNS", 5, "columns; at most 5"), ("TABLE_BYTES", 999, "more than 999 bytes when decoded")],
)  # fmt: skip
def test_sizes_are_bounded(small: Path, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, message: str) -> None:
    monkeypatch.setenv(f"CROWD_MAX_{limit}", str(most))
    with pytest.raises(RecordedError, match=message):
        read(small / "study")


# ---- numbers follow from images


_COUNTS = ("mae", "rmse", "nae", "bias")


@pytest.mark.parametrize(
    ("part", "metric"),
    [("metrics", name) for name in (*_COUNTS, "game1", "game2", "game3")] + [("constant", name) for name in _COUNTS],
)
def test_a_number_that_does_not_follow_is_named(
    small: Path, copied: Path, tmp_path: Path, part: str, metric: str
) -> None:
    """`runners.metrics.counting` computed what is compared: it must agree, and a millionth of the MAE more must not."""
    folder = copied
    first = json.loads((folder / "runs.jsonl").read_text().splitlines()[0])
    values = first["evaluations"][0][part]
    assert read(folder).check() == []
    claimed = values[metric] + 1e-6 * values["mae"]
    edit_runs(folder, put(0, "evaluations", 0, part, metric, claimed))
    found = [finding for finding in read(folder).check() if "summary.csv" not in finding]
    assert len(found) == 1
    name = metric if part == "metrics" else f"constant_{metric}"
    expected = f"run {first['run_id']}, val-test-m1: {name} is {claimed!r}, but its images give "
    assert found[0].startswith(expected)
    assert float(found[0].removeprefix(expected)) == pytest.approx(values[metric], rel=1e-12, abs=1e-12)
    with pytest.raises(RecordedError, match=f"{name} is|summary.csv"):
        import_into(read(folder), Store(tmp_path / "back"))
    assert not (tmp_path / "back").exists()
    with pytest.raises(RecordedError, match=f"{name} is|summary.csv"):
        merge([folder, small / "study"], tmp_path / "merged", "m", mismatches=nothing_wrong)


def test_a_null_metric_and_a_false_summary_are_found(copied: Path) -> None:
    text = (copied / "summary.csv").read_text()
    (copied / "summary.csv").write_text(text.replace("vgg19", "mcnn", 1))
    rehash(copied)
    assert read(copied).check() == [f"{copied / 'summary.csv'} does not follow from runs.jsonl"]
    edit_runs(copied, put(0, "evaluations", 0, "metrics", "mae", None))
    assert any("mae is None, but its images give" in finding for finding in read(copied).check())


def test_no_word_of_a_stranger_is_a_formula(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    add_run(store, fake_spec("l2", 0, backbone='=HYPERLINK("x")'), images=4)
    found = export(store, tmp_path / "study", name="s")
    assert pd.read_csv(tmp_path / "study" / "summary.csv")["backbone"][0].startswith("'=")
    assert found.frame()["backbone"][0].startswith("=")
    add_run(store, fake_spec("l2", 0, backbone="\x1b[2J"), images=4)
    with pytest.raises(RecordedError, match="'backbone' of its spec has characters that cannot be printed"):
        export(store, tmp_path / "other", name="s")


# ---- export


def test_export_refuses_what_it_cannot_carry(store: Store, tmp_path: Path) -> None:
    first, other = fake_spec("pml", 0).run_id, fake_spec("bl", 0).run_id
    with pytest.raises(ValueError, match="is inside the store"):
        export(store, store.root / "study", name="s")
    with pytest.raises(StoreError, match="is interrupted: only finished"):
        export(store, tmp_path / "s", name="s", run_ids=[fake_spec("chfl", 0).run_id])
    with pytest.raises(ValueError, match="no finished or failed run"):
        export(Store(tmp_path / "none"), tmp_path / "s", name="s")
    for name, fields in (("name", {"name": "a/b"}), ("title", {"name": "s", "title": "a\nb"})):
        with pytest.raises(RecordedError, match=name):
            export(store, tmp_path / "s", **fields)
    metrics = store.run(other).path / "eval" / "val-test-m1" / "metrics.json"
    text = metrics.read_text()
    metrics.write_text("{")
    with pytest.raises(StoreError, match="metrics.json is no whole JSON"):
        export(store, tmp_path / "s", name="s")
    problems: list[str] = []
    assert other not in export(store, tmp_path / "t", name="t", problems=problems).run_ids
    assert len(problems) == 1
    metrics.write_text(text)
    record = store.run(first).path / "record.json"
    edit(record, lambda text: text.replace('"python": "3.11.7"', '"python": NaN'))
    with pytest.raises(RecordedError, match=f"{first} holds what JSON cannot carry"):
        export(store, tmp_path / "s", name="s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.assign(extra=1), r"extra \(int64\); expected"),
        (lambda rows: rows.assign(true=rows["true"].astype(float)), r"true \(double\).*; expected .*true \(int64\)"),
        (lambda rows: rows.iloc[1:], "has 5 images; metrics.json beside it says 6"),
    ],
)
def test_other_images_are_not_recorded(small: Path, tmp_path: Path, change: Any, message: str) -> None:
    root = Path(shutil.copytree(small / "runs", tmp_path / "runs"))
    path = root / fake_spec("pml", 0).run_id / "eval" / "val-test-m1" / "images.parquet"
    edit_images(path, change)
    with pytest.raises(RecordedError, match=message):
        export(Store(root), tmp_path / "s", name="s")


# ---- import


def test_what_is_there_is_skipped_or_refused(small: Path, tmp_path: Path) -> None:
    back = Store(tmp_path / "back")
    first, second = read(small / "study").run_ids
    shutil.copytree(small / "runs" / first, back.root / first)
    done = import_into(read(small / "study"), back)
    assert (done.imported, done.present) == ((second,), (first,))
    shutil.rmtree(back.root / first)
    record = back.root / second / "record.json"
    set_value(record, "timings.train_seconds", 61.0)
    before = tree(back.root)
    message = f"run {second} is in .* already and differs: record.timings.train_seconds is 61.0 there and 60.0 here"
    with pytest.raises(RecordedError, match=message):
        import_into(read(small / "study"), back)
    assert tree(back.root) == before


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "history.jsonl",
            lambda p: (edit(p.parent / "record.json"), p.write_text(p.read_text().replace("0.0001", "0.0002", 1))),
            "history.0.lr",
        ),
        ("history.jsonl", lambda p: p.unlink(), "epochs is None there and 5 here"),
        ("eval/val-test-m1/metrics.json", lambda p: set_value(p, "seconds", 2.0), "seconds"),
        (
            "eval/val-test-m1/images.parquet",
            lambda p: edit_images(p, lambda f: f.assign(game1=0.0)),
            "images.val-test-m1.game1 is .* there and .* here",
        ),
        (
            "eval/val-test-m1/images.parquet",
            lambda p: edit_images(p, lambda f: f.assign(people=f["people"] + np.int32(1))),
            "images.val-test-m1.people is ",
        ),
    ],
)
def test_the_first_difference_is_named(small: Path, tmp_path: Path, file: str, change: Any, message: str) -> None:
    root = Path(shutil.copytree(small / "runs", tmp_path / "back"))
    change(root / read(small / "study").run_ids[0] / file)
    with pytest.raises(RecordedError, match=message):
        import_into(read(small / "study"), Store(root))


def test_nan_is_nan_whatever_its_bits(tmp_path: Path) -> None:
    """A gap and a NaN of either sign read the same in a data frame: a run that has the other one is the same run."""
    store, spec = Store(tmp_path / "runs"), fake_spec("l2", 0)
    add_run(store, spec, images=2)
    shutil.rmtree(store.run(spec.run_id).path / "eval")
    nan = np.array([np.nan, 1.0], np.float32)
    measure(store, spec, EvaluationSpec(), fake_images(spec, 0.1, 2).assign(mass=[nan, nan]))
    study = export(store, tmp_path / "study", name="s")
    path = store.run(spec.run_id).path / "eval" / "val-test-m1" / "images.parquet"
    table = pq.read_table(path)
    gaps = pa.ListArray.from_arrays([0, 2, 4], pa.array([None, 1.0] * 2, pa.float32()))
    signed = np.array([0xFFC00000, 0x3F800000] * 2, np.uint32).view(np.float32)
    for values in (gaps, pa.ListArray.from_arrays([0, 2, 4], pa.array(signed, from_pandas=False))):
        pq.write_table(table.set_column(table.column_names.index("mass"), "mass", values), path)
        assert import_into(study, store).present == (spec.run_id,)
    signed[1] = 1.5
    values = pa.ListArray.from_arrays([0, 2, 4], pa.array(signed, from_pandas=False))
    pq.write_table(table.set_column(table.column_names.index("mass"), "mass", values), path)
    with pytest.raises(RecordedError, match="images.val-test-m1.mass is"):
        import_into(study, store)


def test_states_are_never_replaced(small: Path, tmp_path: Path) -> None:
    spec = fake_spec("pml", 0)
    failed = Store(tmp_path / "failed")
    add_failure(failed, spec)
    study = export(failed, tmp_path / "study", name="failed")
    assert study.frame()["state"].tolist() == ["failed"]
    with pytest.raises(RecordedError, match="is done in .*, but failed in the study"):
        import_into(study, Store(small / "runs"))
    with pytest.raises(RecordedError, match="is failed in .*, but done in the study"):
        import_into(read(small / "study"), failed)
    assert import_into(study, failed).present == (spec.run_id,)
    other = Store(tmp_path / "other")
    other.run(spec.run_id).begin(spec)
    with pytest.raises(RecordedError, match="is interrupted in"):
        import_into(study, other)
