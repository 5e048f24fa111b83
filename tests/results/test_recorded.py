from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.cli import main
from results.recorded import FILES, RecordedError, export, import_into, merge, read
from results.spec import EvaluationSpec
from results.store import RunFolder, Store, StoreError
from tests.reports.fake_store import add_failure, add_run, fake_images, fake_spec
from tests.results.made_up import assert_same_content, edit_runs, measure, nothing_wrong, put, rehash, tree

# ---- nothing is lost


def test_round_trip_is_lossless(store: Store, tmp_path: Path) -> None:
    before = tree(store.root)
    exported = export(store, tmp_path / "study", name="odd", title="Ein Fräulein", author="人")
    assert tree(store.root) == before
    found = read(tmp_path / "study")
    assert found.study == exported.study
    assert (found.study.runs, found.study.failed, found.study.evaluations) == (4, 1, 4)
    done = import_into(found, Store(tmp_path / "back"))
    assert done == (found.run_ids, (), 1, ("weights",))
    assert_same_content(store.root, tmp_path / "back", without=fake_spec("chfl", 0).run_id)
    assert [path.name for path in sorted((tmp_path / "back").iterdir())] == list(found.run_ids)  # nothing else is left


def test_a_study_answers_as_the_store_does(store: Store, tmp_path: Path) -> None:
    found = export(store, tmp_path / "study", name="odd")
    frame = store.load(found.run_ids)
    pd.testing.assert_frame_equal(found.frame(), frame, check_exact=True)
    pd.testing.assert_frame_equal(found.histories(), store.histories(found.run_ids), check_exact=True)
    pairs = frame[["run_id", "eval_id"]].dropna().to_numpy().tolist()
    for columns in (("id", "true", "predicted"), ("id", "mass", "people", "game2")):
        pd.testing.assert_frame_equal(found.images(columns), store.images(pairs, columns), check_exact=True)
    failed = export(store, tmp_path / "failed", name="failed", run_ids=[fake_spec("gl", 1).run_id])
    for empty in (failed.images(), failed.histories()):
        assert empty.empty
        assert "run_id" in empty


def test_the_same_runs_give_the_same_bytes(store: Store, tmp_path: Path) -> None:
    """What did not change makes no difference in git; `study.json` has the date."""
    export(store, tmp_path / "a", name="a")
    import_into(read(tmp_path / "a"), Store(tmp_path / "back"))
    export(Store(tmp_path / "back"), tmp_path / "b", name="a")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


_FLOATS = st.floats(width=64) | st.sampled_from([5e-324, -0.0, 1.7976931348623157e308, 2.0**53 + 1])
_JSON = st.none() | st.booleans() | st.integers() | _FLOATS | st.text(max_size=5) | st.lists(_FLOATS, max_size=2)
_KEYS = st.sampled_from(["epoch", "lr", "run_id", "layout", "other", "term/é"]) | st.text(max_size=4)
_COLUMNS = {
    "id": st.text(max_size=4),
    "height": st.integers(1, 2**40),
    "width": st.integers(1, 9),
    "true": st.integers(0, 2**40),
    **dict.fromkeys(("predicted", "game1", "game2", "game3"), _FLOATS),
    "window_rows": st.integers(1, 9),
    "mass": st.lists(st.floats(width=32), max_size=3).map(lambda v: np.asarray(v, np.float32)),
    "people": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3).map(lambda v: np.asarray(v, np.int32)),
}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    history=st.lists(st.dictionaries(_KEYS, _JSON, max_size=5), max_size=4),
    rows=st.lists(st.fixed_dictionaries(_COLUMNS), min_size=1, max_size=4),
    timing=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(max_size=20),
)
def test_any_values_survive(history: list[dict[str, Any]], rows: list[dict[str, Any]], timing: Any, text: str) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        store, spec = Store(root / "runs"), fake_spec("l2", 0)
        record = {"timings": {"step_ms": timing}, "command": text, "environment": {"processor": text, "n": 2**70}}
        add_run(store, spec, images=2, record=record)
        run = store.run(spec.run_id)
        run.history_file.write_text("".join(json.dumps(row) + "\n" for row in history))
        run.finish(run.record())
        shutil.rmtree(store.run(spec.run_id).path / "eval")
        measure(store, spec, EvaluationSpec(), pd.DataFrame(rows)[list(_COLUMNS)])
        found = export(store, root / "study", name="s")
        pd.testing.assert_frame_equal(found.frame(), store.load(), check_exact=True)
        import_into(read(root / "study"), Store(root / "back"))
        assert_same_content(root / "runs", root / "back")
        assert import_into(found, store).present == (spec.run_id,)  # and is found identical
    finally:
        shutil.rmtree(root)


def test_without_windows_says_what_is_missing(store: Store, tmp_path: Path) -> None:
    whole = export(store, tmp_path / "whole", name="whole")
    found = export(store, tmp_path / "study", name="bare", windows=False)
    assert not found.study.windows
    assert found.check() == []
    assert (found.folder / "images.parquet").stat().st_size < (whole.folder / "images.parquet").stat().st_size
    back = Store(tmp_path / "back")
    assert import_into(found, back).missing == ("weights", "windows")
    pairs = found.frame()[["run_id", "eval_id"]].dropna().to_numpy().tolist()
    pd.testing.assert_frame_equal(back.images(pairs), store.images(pairs), check_exact=True)
    with pytest.raises(StoreError, match="mass"):
        back.images(pairs, ("id", "mass"))
    with pytest.raises(RecordedError, match="have no column 'mass'"):
        found.images(("id", "mass"))
    assert import_into(found, store).imported == ()  # a store that has more is no other
    with pytest.raises(RecordedError, match="images without windows; --without-windows"):
        export(back, tmp_path / "again", name="again")
    with pytest.raises(RecordedError, match="mass is nothing there and .* here"):
        import_into(whole, back)


def test_the_summary_is_what_the_frame_says(store: Store, tmp_path: Path) -> None:
    found = export(store, tmp_path / "study", name="odd")
    shown = pd.read_csv(tmp_path / "study" / "summary.csv")
    frame = found.frame().dropna(subset="mae").reset_index(drop=True)
    assert shown["run_id"].tolist() == frame["run_id"].tolist()
    for name in ("mae", "rmse", "nae", "bias", "game3", "constant_mae"):
        np.testing.assert_allclose(shown[name], frame[name], atol=6e-5)
    assert shown["loss_params"].tolist() == frame["loss_params"].tolist()


def test_a_study_is_replaced_by_force_only(small: Path, copied: Path) -> None:
    folder = copied
    (folder / "README.md").write_text("ours")
    with pytest.raises(RecordedError, match="is there already"):
        export(Store(small / "runs"), folder, name="new")
    assert read(folder).study.name == "study"
    chosen = [fake_spec("pml", 0).run_id]
    assert export(Store(small / "runs"), folder, name="new", run_ids=chosen, force=True).run_ids == tuple(chosen)
    assert read(folder).study.name == "new"
    assert (folder / "README.md").read_text() == "ours"


def test_an_import_that_breaks_leaves_nothing(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished: list[str] = []

    def broken(folder: RunFolder, record: Any) -> None:
        finished.append(folder.run_id)
        if len(finished) == 2:
            raise OSError("no space left on device")

    monkeypatch.setattr(RunFolder, "finish", broken)
    with pytest.raises(OSError, match="no space"):
        import_into(read(small / "study"), Store(tmp_path / "back"))
    assert list((tmp_path / "back").iterdir()) == []


def test_merged_studies_are_as_if_from_one_store(halves: tuple[Path, Path], tmp_path: Path) -> None:
    seen: list[pd.DataFrame] = []

    def look(frame: pd.DataFrame) -> list[str]:
        seen.append(frame)
        return []

    merged = merge(halves[::-1], tmp_path / "merged", "both", mismatches=look, author="we")
    for name in FILES:
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "all" / name).read_bytes()
    pd.testing.assert_frame_equal(seen[0], read(tmp_path / "all").frame(), check_exact=True)
    assert [(source.name, source.runs) for source in merged.study.sources] == [("two", 2), ("one", 4)]


def test_a_run_in_two_studies_is_refused(halves: tuple[Path, Path], tmp_path: Path) -> None:
    parts = [tmp_path / "one", tmp_path / "all"]
    first = read(parts[0]).run_ids[0]
    with pytest.raises(RecordedError, match=f"run {first} is in .*one and in .*all, and is the same"):
        merge(parts, tmp_path / "m", "m", mismatches=nothing_wrong)
    merged = merge(parts, tmp_path / "m", "m", mismatches=nothing_wrong, allow_identical=True)
    assert merged.run_ids == read(tmp_path / "all").run_ids
    folder = tmp_path / "one"
    edit_runs(folder, put(0, "record", "parameters", 7))
    with pytest.raises(RecordedError, match=r"and differs: record.parameters is 7 there and 123456 here"):
        merge(parts, tmp_path / "n", "n", mismatches=nothing_wrong, allow_identical=True)
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("field", ["protocols", "metrics"])
def test_versions_are_never_mixed(halves: tuple[Path, Path], tmp_path: Path, field: str) -> None:
    store = Store(tmp_path / "other")
    spec = fake_spec("bl", 0, protocol=2 if field == "protocols" else 1)
    add_run(store, spec, images=5)
    if field == "metrics":
        shutil.rmtree(store.run(spec.run_id).path / "eval")
        measure(store, spec, EvaluationSpec(metrics=2), fake_images(spec, 0.1, 5))
    export(store, tmp_path / "study", name="other")
    with pytest.raises(RecordedError, match=rf"versions of the {field} differ: .*one has \[1\], .*study has \[2\]"):
        merge([halves[0], tmp_path / "study"], tmp_path / "m", "m", mismatches=nothing_wrong)


def test_what_is_not_comparable_is_not_merged(halves: tuple[Path, Path], tmp_path: Path) -> None:
    def mixed(frame: pd.DataFrame) -> Sequence[str]:
        return [f"seed {seed}" for seed in sorted(set(frame["seed"]))] * 2

    with pytest.raises(RecordedError, match=r"do not go into one table: seed 0; seed 1; seed 2; and 3 more"):
        merge(halves, tmp_path / "m", "m", mismatches=mixed)
    with pytest.raises(ValueError, match="at least two"):
        merge(halves[:1], tmp_path / "m", "m", mismatches=nothing_wrong)
    bare = export(Store(tmp_path / "runs_two"), tmp_path / "bare", name="bare", windows=False)
    with pytest.raises(RecordedError, match="bare has no windows"):
        merge([halves[0], bare.folder], tmp_path / "m", "m", mismatches=nothing_wrong)
    merged = merge([halves[0], bare.folder], tmp_path / "m", "m", mismatches=nothing_wrong, windows=False)
    assert not merged.study.windows


# ---- the command line


def answer(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    assert main([*map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command which cannot be carried out prints."""
    assert main([*map(str, words)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("benchmark: ")
    assert printed.count("\n") == 1
    return printed


def test_the_commands_from_store_to_store(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "studies"
    written = answer(capsys, "results", "export", "mine", "-o", store.root, "--to", to, "--title", "T", "--author", "A")
    assert (written["folder"], written["title"], written["author"], written["runs"]) == (str(to / "mine"), "T", "A", 4)
    assert written["left_out"] == {"unfinished": [fake_spec("chfl", 0).run_id], "unreadable": []}
    assert written["command"].startswith("benchmark results export mine")
    words = ("results", "export", "l2", "-o", store.root, "--to", to / "l2", "--where", "loss=l2", "--without-windows")
    assert answer(capsys, *words)["losses"] == ["l2"]
    listed = answer(capsys, "results", "list", tmp_path)
    assert [study["name"] for study in listed["studies"]] == ["l2", "mine"]
    checked = answer(capsys, "results", "check", to / "mine")
    assert (checked["sound"], checked["findings"]) == (True, [])
    done = answer(capsys, "results", "import", to / "mine", "-o", tmp_path / "back")
    assert (len(done["imported"]), done["failed"]) == (4, 1)
    assert_same_content(store.root, tmp_path / "back", without=fake_spec("chfl", 0).run_id)
    for words in (("list", tmp_path), ("check", to / "mine"), ("import", to / "mine", "-o", tmp_path / "back")):
        assert main(["results", *map(str, words)]) == 0
    printed = capsys.readouterr().out
    assert "mine" in printed
    assert "0 runs imported, 4 were there, identical" in printed


def test_the_commands_refuse_in_one_line(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_mine = ("results", "export", "mine", "-o", store.root, "--to", tmp_path)
    assert "Did you mean" in refusal(capsys, *export_mine, "--where", "datset=ucf_qnrf")
    assert "is no folder" in refusal(capsys, "results", "export", "mine", "-o", tmp_path / "none", "--to", tmp_path)
    assert "study.json is missing" in refusal(capsys, "results", "check", tmp_path / "none")
    record = store.run(fake_spec("l2", 3).run_id).path / "record.json"
    record.write_text("{")
    printed = refusal(capsys, *export_mine)
    assert str(record) in printed
    assert "--skip-unreadable" in printed
    written = answer(capsys, *export_mine, "--skip-unreadable")
    assert (written["runs"], len(written["left_out"]["unreadable"])) == (3, 1)
    assert "is there already" in refusal(capsys, *export_mine, "--skip-unreadable")
    (tmp_path / "mine" / "summary.csv").write_text("run_id\x1b[2J\n")
    rehash(tmp_path / "mine")
    assert not answer(capsys, "results", "check", tmp_path / "mine", code=1)["sound"]
    assert "\x1b" not in refusal(capsys, "results", "import", tmp_path / "mine", "-o", tmp_path / "back")
    (tmp_path / "mine" / "study.json").write_text("{")
    assert len(answer(capsys, "results", "list", tmp_path, code=1)["unreadable"]) == 1


def test_no_word_of_a_stranger_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure's reason is carried as it is, and printed on one line without control characters."""
    theirs, reason = Store(tmp_path / "theirs"), "first\x1b[2J\x1b]0;title\x07\nsecond\r\u202e\x9b1m end"
    spec = fake_spec("l2", 0)
    add_failure(theirs, spec, reason=reason)
    export(theirs, tmp_path / "study", name="s")
    for words in (("results", "list", tmp_path), ("results", "import", tmp_path / "study", "-o", tmp_path / "ours")):
        assert main([*map(str, words)]) == 0
    assert Store(tmp_path / "ours").run(spec.run_id).failure().reason == reason
    capsys.readouterr()
    assert main(["status", "-o", str(tmp_path / "ours")]) == 1
    _, line = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert line.endswith("second   1m end")


def test_merge_asks_the_protocol(halves: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    merged = answer(capsys, "results", "merge", *halves, "--into", tmp_path / "both")
    assert (merged["name"], merged["runs"]) == ("both", 6)
    longer = Store(tmp_path / "longer")
    add_run(longer, fake_spec("bl", 0, recipe={"epochs": 6}), images=5)
    export(longer, tmp_path / "study", name="longer")
    printed = refusal(capsys, "results", "merge", halves[0], tmp_path / "study", "--into", tmp_path / "no")
    assert "do not go into one table" in printed
    assert "epochs" in printed


def test_a_report_reads_several_studies(halves: tuple[Path, Path], tmp_path: Path) -> None:
    from benchmark.recorded import read_all

    frame, images, history, places, hits, curves = read_all(halves)
    assert places.empty
    assert hits.empty
    assert curves.empty
    whole = read(tmp_path / "all")
    expected = (whole.frame(), whole.images(), whole.histories())
    for one, other in zip((frame, images, history), expected, strict=True):
        in_order = one.sort_values("run_id", kind="stable", ignore_index=True)
        pd.testing.assert_frame_equal(in_order, other, check_exact=True)
    with pytest.raises(RecordedError, match="is in .*one and .*all"):
        read_all([halves[0], tmp_path / "all"])
