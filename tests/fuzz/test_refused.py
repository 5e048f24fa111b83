"""Bombs and ways out of a folder, made by hand: the smallest files that once did harm, or would."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmark.cli import main
from results import recorded
from results.claims import Claims
from results.limits import LIMITS, LimitError, limit
from results.recorded import RecordedError
from results.store import RunFolder, Store, StoreError, read_history
from runners import checkpoints
from runners.data.datasets.folder import Folder
from runners.data.reading import DataError, points_array, read_mat
from tests.reports.fake_store import fake_store
from tests.results.made_up import edit_runs, put, rehash
from tests.results.unsealed import set_value


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one run and its study; tests change copies."""
    root = tmp_path_factory.mktemp("made")
    recorded.export(fake_store(root / "runs", zoo=("pml",), seeds=(0,), images=3), root / "study", name="study")
    return root


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def the_run(copied: Path) -> RunFolder:
    (run,) = Store(copied / "runs").runs()
    return run


# --- limits


def test_limits_are_raised_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in LIMITS.items():
        assert limit(name) == most
        monkeypatch.setenv(name, str(most + 1))
        assert limit(name) == most + 1
        for wrong in ("", "0", "-1", "1e9", "²", "9" * 5000):
            monkeypatch.setenv(name, wrong)
            with pytest.raises(LimitError, match=f"{name} must be a positive integer"):
                limit(name)


# --- stores


NESTED = "[" * 200_000


@pytest.mark.parametrize("name", ["spec.json", "record.json"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NESTED.encode(), "no whole JSON file"),
        (b'{"a": \xff}', "no whole JSON file"),
        (b'{"schema_version": "\\u001b[2J"}', r"has schema  \[2J"),
        (b'{"\\u001b]0;x": 1}', "is no valid"),
        (b"[1]", "is no valid"),
        (b'{"command": "\\uD800"}', "no whole JSON file"),  # found by fuzzing: pandas refused it later
    ],
)
def test_a_record_that_is_none(copied: Path, name: str, text: bytes, message: str) -> None:
    (the_run(copied).path / name).write_bytes(text)
    with pytest.raises(StoreError, match=f"{name} (is )?{message}") as caught:
        Store(copied / "runs").load()
    assert str(caught.value).isprintable()


def test_libraries_that_are_no_table(copied: Path) -> None:
    """Found by fuzzing: an AttributeError of `Store.load`."""
    set_value(the_run(copied).path / "record.json", "environment.libraries", [1])
    with pytest.raises(StoreError, match="environment: .*libraries is no table"):
        Store(copied / "runs").load()


def test_a_record_of_absurd_size(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWD_MAX_RECORD_BYTES", "99")
    with pytest.raises(StoreError, match="more than 99 bytes.* raise CROWD_MAX_RECORD_BYTES"):
        the_run(copied).record()
    with pytest.raises(StoreError, match="history.jsonl has more than 99 bytes"):
        the_run(copied).history()


@pytest.mark.parametrize("line", [b"[1]", b"1", b"\xff", NESTED.encode(), b'{"half', b"null"])
def test_a_history_is_read_up_to_the_first_line_that_is_none(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + line + b'\n{"epoch": 3}\n')
    assert read_history(path) == [{"epoch": 1}]


def test_a_history_whose_table_would_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps({f"a{n}": 1}) + "\n" for n in range(6000)))
    with pytest.raises(StoreError, match="6000 epochs with 6000 names, absurd"):
        RunFolder(tmp_path).history()


def test_a_table_that_decodes_to_very_much(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = the_run(copied)
    (path,) = run.path.glob("eval/*/images.parquet")
    pq.write_table(pa.table({"id": pa.array(["x"] * 3_000_000), "true": pa.repeat(1, 3_000_000)}), path)
    assert path.stat().st_size < 100_000
    monkeypatch.setenv("CROWD_MAX_TABLE_BYTES", str(2**20))
    tracemalloc.start()
    with pytest.raises(StoreError, match="images.parquet is absurdly large .* raise CROWD_MAX_TABLE_BYTES"):
        run.images(path.parent.name)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    monkeypatch.setenv("CROWD_MAX_TABLE_ROWS", "1000")
    with pytest.raises(StoreError, match="3000000 rows; at most 1000"):
        run.images(path.parent.name)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "true": [1], "predicted": [1.0]}, "column 'id' holds int64; expected words"),
        ({"id": ["a"], "true": ["1"], "predicted": [1.0]}, "column 'true' holds string; expected numbers"),
        ({"id": ["a"], "true": [[["x"]]], "predicted": [1.0]}, "column 'true' holds list"),
        ({"id": ["a"], "true": [1]}, "has 0 columns 'predicted'; expected one"),
    ],
)
def test_tables_of_another_kind(copied: Path, columns: dict[str, Any], message: str) -> None:
    run = the_run(copied)
    (path,) = run.path.glob("eval/*/images.parquet")
    pq.write_table(pa.table(columns), path)
    with pytest.raises(StoreError, match=message):
        run.images(path.parent.name, ["id", "true", "predicted"])


def test_words_that_are_no_text(copied: Path) -> None:
    """Found by fuzzing: a UnicodeDecodeError of `recorded.read`."""
    (path,) = the_run(copied).path.glob("eval/*/images.parquet")
    for file in (copied / "study" / "images.parquet", path):
        table = pq.read_table(file)
        place = table.column_names.index("id")
        wrong = pa.array([b"\xff"] * len(table), pa.binary()).view(pa.string())
        pq.write_table(table.set_column(place, "id", wrong), file, store_schema=False)
    rehash(copied / "study")
    with pytest.raises(RecordedError, match="images.parquet is no readable parquet file: .*UTF8"):
        recorded.read(copied / "study")
    with pytest.raises(StoreError, match="images.parquet is no readable parquet file: .*UTF8"):
        the_run(copied).images(path.parent.name)


def test_what_pandas_noted_in_a_table_is_not_believed(copied: Path) -> None:
    run = the_run(copied)
    (path,) = run.path.glob("eval/*/images.parquet")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"pandas": '{"index_columns": ["x", {}], "columns": 1}'}), path)
    assert len(run.images(path.parent.name)) == 3


# --- claims


@pytest.mark.parametrize(
    "text",
    [NESTED, "[]", '{"host": "h", "machine": "m", "pid": Infinity, "started": 0, "released": false}']
    + [f'{{"host": "h", "machine": "m", "pid": {pid}, "started": 0, "released": false}}' for pid in (10**30, -1, 0)],
)
def test_claims_of_strangers(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("results.claims._machine", lambda: "m")
    (tmp_path / "claim-0003.json").write_text(text)
    assert Claims(tmp_path).holder() is None


@pytest.mark.parametrize("number", ["²", "9" * 200, "x", ""])
def test_claims_with_a_name_that_is_no_number(tmp_path: Path, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("results.claims._WRITING", 0.0)
    (tmp_path / f"claim-{number}.json").write_text("{}")
    claims = Claims(tmp_path)
    assert claims.take()
    assert claims.mine()
    assert (tmp_path / "claim-0001.json").exists()


# --- checkpoints


def kept_checkpoint(folder: Path, content: bytes) -> None:
    (folder / f"checkpoint-000009-{hashlib.sha256(content).hexdigest()}.pth").write_bytes(content)


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harm",)


def test_a_checkpoint_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logging.disable(logging.WARNING)
    sound = dict.fromkeys(checkpoints._PARTS, 1)
    checkpoints.save(tmp_path, 1, sound)
    sink = io.BytesIO()
    torch.save(Harm(), sink)
    for content in (sink.getvalue(), pickle.dumps(Harm()), saved({"a": 1}), b"", b"PK\x05\x06" + b"\0" * 18, _packed()):
        kept_checkpoint(tmp_path, content)
        assert checkpoints.load(tmp_path) == sound
        (tmp_path / f"checkpoint-000009-{hashlib.sha256(content).hexdigest()}.pth").unlink()
    assert not (tmp_path / "harm").exists()
    logging.disable(logging.NOTSET)


def saved(state: Any) -> bytes:
    """A file that torch reads, and that is no checkpoint of a run."""
    sink = io.BytesIO()
    torch.save(state, sink)
    return sink.getvalue()


def _packed() -> bytes:
    """A checkpoint whose tensor is packed: a few kilobytes for many megabytes."""
    plain, sink = io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.zeros(2**20)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    return sink.getvalue()


# --- annotations


def test_a_long_word_among_many_short_ones(tmp_path: Path) -> None:
    """numpy would give each of them the room of the longest: 40 GB for this list."""
    rows: list[Any] = [["1", "2"]] * 5000 + [["1" * 1_000_000, "2"]]
    tracemalloc.start()
    with pytest.raises(DataError, match="a.csv: a point is not made of 2 plain numbers .*1000000 characters"):
        points_array(rows, tmp_path / "a.csv")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_matrix_of_very_many_dimensions(tmp_path: Path) -> None:
    """numpy has at most 64, and said so with an error of its own."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    body = (
        element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<100i", *[1] * 100)) + element(1, b"annPoints")
    )
    content = b"MATLAB 5.0".ljust(124) + b"\0\1IM" + element(14, body + element(9, struct.pack("<d", 1.0)))
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match="a.mat: damaged or unknown MATLAB file: a matrix without flags or dimensions"):
        read_mat(tmp_path / "a.mat", "annPoints")


def test_names_in_a_table_lead_nowhere(tmp_path: Path) -> None:
    """Names of images in a stranger's table are compared, never opened."""
    (tmp_path / "points.csv").write_text("image,x,y\n../../etc/passwd,1,2\n/etc/shadow,3,4\n")
    dataset = Folder.__new__(Folder)
    dataset._tables = {}
    assert set(dataset._table(tmp_path / "points.csv")) == {"passwd", "shadow"}


def test_errors_are_one_printable_line(tmp_path: Path) -> None:
    error = DataError("a.csv: has the columns \x1b[2J, \u202e, \ud800\n" + "x" * 5000)
    assert str(error).isprintable()
    assert len(str(error)) == 1000


# --- ways out of the folder


OUTSIDE = ["../outside", "/tmp/outside", "..", ".", "", "a/b", "a\\b", "a\0b", "-x", "\ud800", "a\nb", "x" * 300]


@pytest.mark.parametrize("name", OUTSIDE)
def test_ids_stay_in_the_store(copied: Path, name: str) -> None:
    store = Store(copied / "runs")
    with pytest.raises(StoreError, match="is no name of a folder"):
        store.run(name)
    run = the_run(copied)
    for read in (run.images, run.points, run.curve, run.localisation):
        with pytest.raises(StoreError, match="is no name of a folder"):
            read(name)
    problems: list[str] = []
    assert store.images([(name, "val-test-m1"), (run.run_id, name)], problems=problems).empty
    assert len(problems) == 2


@pytest.mark.parametrize("name", OUTSIDE)
def test_ids_of_a_study_stay_in_the_store(copied: Path, name: str) -> None:
    def rename(lines: list[Any]) -> None:
        for part in (lines[0], lines[0]["record"], *lines[0]["evaluations"]):
            part["run_id"] = name

    edit_runs(copied / "study", rename)
    with pytest.raises(RecordedError, match="runs.jsonl"):
        recorded.read(copied / "study")


@pytest.mark.parametrize("field", ["selection", "split", "metrics"])
@pytest.mark.parametrize("name", ["../x", "/x", "a\0b", -1])
def test_evaluations_of_a_study_stay_in_the_store(copied: Path, field: str, name: object) -> None:
    edit_runs(copied / "study", put(0, "evaluations", 0, "evaluation", field, name))
    with pytest.raises(RecordedError, match="runs.jsonl"):
        recorded.read(copied / "study")


def test_a_study_is_imported_into_its_folders_only(copied: Path, tmp_path: Path) -> None:
    target = tmp_path / "into" / "runs"
    assert main(["results", "import", str(copied / "study"), "-o", str(target)]) == 0
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["runs"]
    assert [path.name for path in target.iterdir()] == [the_run(copied).run_id]


@pytest.mark.parametrize("name", ["study.json", "runs.jsonl", "images.parquet", "summary.csv"])
def test_links_in_a_study_are_not_followed(copied: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    shutil.move(copied / "study" / name, outside)
    (copied / "study" / name).symlink_to(outside)
    if name != "study.json":
        rehash(copied / "study")
    with pytest.raises(RecordedError, match=f"{name} is a link"):
        recorded.read(copied / "study")
    problems: list[str] = []
    assert len(recorded.studies(copied, problems)) == (name != "study.json")
    assert len(problems) == (name == "study.json")


def test_a_study_is_written_over_links_not_through_them(copied: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    for name in ("study.json", "runs.jsonl"):
        (copied / "study" / name).unlink()
        (copied / "study" / name).symlink_to(outside)
    recorded.export(Store(copied / "runs"), copied / "study", name="study", force=True)
    assert outside.read_text() == "precious"
    assert recorded.read(copied / "study").run_ids == (the_run(copied).run_id,)


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_name_of_a_study_stays_in_its_folder(copied: Path, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((RecordedError, ValueError)):
        recorded.export(Store(copied / "runs"), tmp_path / "new" / "study", name=name)
    assert sorted(tmp_path.rglob("*")) == before


def test_numbers_of_a_sound_file_are_read(tmp_path: Path) -> None:
    assert np.array_equal(points_array([["1", "2.5"], ["3", "4"]], tmp_path), [[1, 2.5], [3, 4]])
