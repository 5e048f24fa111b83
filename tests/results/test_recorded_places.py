"""Recorded studies with measurements of places."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.cli import main
from benchmark.recorded import read_all
from results.recorded import ALL_FILES, FILES, RecordedError, export, import_into, merge, read
from results.recorded_runs import write_runs
from results.schema import Localisation
from results.spec import LocalisationSpec
from results.store import Store, StoreError
from tests.reports.fake_store import add_run, fake_spec, fake_store
from tests.results.made_up import (
    assert_same_content,
    edit_images,
    edit_runs,
    located,
    measure_places,
    nothing_wrong,
    odd_places,
    put,
    tree,
)

PLACES = ("localisation.parquet", "curves.parquet")


@pytest.fixture
def places(store: Store) -> Store:
    return odd_places(store)


def kept(frame: pd.DataFrame) -> list[str]:
    """What a study carries of a `points.parquet`."""
    names = ("id", "height", "width", "true", "predicted")
    return [name for name in frame if name in names or name.startswith(("tp_", "error_"))]


# ---- nothing is lost


def test_round_trip(places: Store, tmp_path: Path) -> None:
    before = tree(places.root)
    found = export(places, tmp_path / "study", name="places")
    assert tree(places.root) == before
    assert (found.study.schema_version, found.study.localisations, found.check()) == (2, 6, [])
    assert set(found.study.sha256) == set(ALL_FILES)
    back = Store(tmp_path / "back")
    assert import_into(read(tmp_path / "study"), back).missing == ("weights", "points")
    for path in sorted(places.root.glob("*/eval/*/localisation.json")):
        run, eval_id = path.parent.parent.parent.name, path.parent.name
        mine, other = places.run(run), back.run(run)
        points = mine.points(eval_id)
        pd.testing.assert_frame_equal(other.points(eval_id), points[kept(points)], check_exact=True)
        pd.testing.assert_frame_equal(found.points(run, eval_id), points[kept(points)], check_exact=True)
        pd.testing.assert_frame_equal(found.curve(run, eval_id), mine.curve(eval_id), check_exact=True)
        with pytest.raises(StoreError, match="points"):
            other.points(eval_id, ["points"])
        points[kept(points)].to_parquet(path.parent / "points.parquet", index=False)
    assert_same_content(places.root, back.root, without=fake_spec("chfl", 0).run_id)  # all the rest is the same
    assert import_into(found, places).imported == ()
    export(back, tmp_path / "again", name="places")
    for name in ALL_FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "study" / name).read_bytes()


def test_a_study_answers_as_the_store_does(places: Store, tmp_path: Path) -> None:
    found = export(places, tmp_path / "study", name="places")
    frame = places.localisations()
    assert len(frame) == 2 + 1 + 13 + 2 + 2  # a row a radius, none of the failed run
    pd.testing.assert_frame_equal(found.localisations(), frame, check_exact=True)
    pairs = list(dict.fromkeys(zip(frame["run_id"], frame["eval_id"], strict=True)))
    for radii in (["4px", "sigma_l"], ["12px"], ["5head"]):
        pd.testing.assert_frame_equal(found.hits(radii), places.hits(pairs, radii), check_exact=True)
    pd.testing.assert_frame_equal(found.frame(), places.load(found.run_ids), check_exact=True)
    with pytest.raises(RecordedError, match="no measurement of places val-test-m1 of run"):
        found.curve(found.run_ids[0], "val-test-m1")


def test_numbers_that_follow_are_left_out_of_the_curves(places: Store, tmp_path: Path) -> None:
    """They are most of the bytes; one that does not follow, by a last bit, is carried."""
    export(places, tmp_path / "study", name="places")
    table = pq.read_table(tmp_path / "study" / "curves.parquet")
    assert len(table) > 50
    assert all(table[name].null_count == len(table) for name in ("precision", "f1"))
    run = fake_spec("pml", 0).run_id
    eval_id = next(i.localisation.eval_id for i in places.run(run).localisations() if len(i.localisation.radii) == 2)
    path = places.run(run).path / "eval" / eval_id / "curve.parquet"
    edit_images(path, lambda f: f.assign(f1=np.nextafter(f["f1"], 2.0), precision=np.nan))
    found = export(places, tmp_path / "other", name="places")
    pd.testing.assert_frame_equal(found.curve(run, eval_id), pd.read_parquet(path), check_exact=True)
    pd.testing.assert_frame_equal(read(tmp_path / "other").curve(run, eval_id), pd.read_parquet(path), check_exact=True)


def test_without_places_a_study_is_as_it_was(store: Store, tmp_path: Path) -> None:
    """Version 1, which older versions of the benchmark read, and the same files."""
    export(store, tmp_path / "study", name="s")
    text = (tmp_path / "study" / "study.json").read_text()
    assert json.loads(text)["schema_version"] == 1
    assert "localisation" not in text + (tmp_path / "study" / "runs.jsonl").read_text()
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == sorted([*FILES, "study.json"])
    found = read(tmp_path / "study")
    assert found.localisations().empty
    assert found.hits(["4px"]).empty
    assert import_into(found, Store(tmp_path / "back")).missing == ("weights",)


def test_a_replaced_study_leaves_no_file_behind(base: Path, study: Path) -> None:
    store = fake_store(study.parent / "bare", zoo=("bl",), seeds=(0,), images=3)
    export(store, study, name="new", force=True)
    assert not any((study / name).exists() for name in PLACES)
    assert read(study).study.localisations == 0
    with pytest.raises(RecordedError, match="is there already"):
        export(Store(base / "runs"), study, name="again")


def test_merged_studies_are_as_if_from_one_store(base: Path, tmp_path: Path) -> None:
    store = Store(base / "runs")
    ids = [run.run_id for run in store.runs()]
    parts = [export(store, tmp_path / i, name=f"s{i}", run_ids=[i]).folder for i in ids]
    merge(parts[::-1], tmp_path / "merged", "m", mismatches=nothing_wrong)
    for name in ALL_FILES:
        assert (tmp_path / "merged" / name).read_bytes() == (base / "study" / name).read_bytes()
    frame, images, history, places, hits, curves = read_all(parts)
    assert (len(frame), images["run_id"].nunique(), history["run_id"].nunique()) == (2, 2, 2)
    pd.testing.assert_frame_equal(places, store.localisations(), check_exact=True)
    pairs = [(run.run_id, run.localisations()[0].localisation.eval_id) for run in store.runs()]
    pd.testing.assert_frame_equal(hits, store.hits(pairs, ["4px", "sigma_l"]), check_exact=True)
    pd.testing.assert_frame_equal(curves, store.curves(pairs), check_exact=True)
    edit_runs(parts[0], put(0, "localisations", 0, "seconds", 7.0))
    with pytest.raises(RecordedError, match=r"differs: localisations\..*\.seconds is 0.5 there and 7.0 here"):
        merge([base / "study", parts[0]], tmp_path / "n", "n", mismatches=nothing_wrong, allow_identical=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"version": 2}, r"versions of the localizer lm differ: .* has \[1\], .* has \[2\]"),
     ({"metrics": 2}, r"versions of the scores of places differ")],
)  # fmt: skip
def test_versions_are_never_mixed(base: Path, tmp_path: Path, change: dict[str, int], message: str) -> None:
    other = Store(tmp_path / "runs")
    add_run(other, fake_spec("bl", 0), images=4)
    measure_places(other, fake_spec("bl", 0), located(1, 3), **change)
    export(other, tmp_path / "other", name="other")
    with pytest.raises(RecordedError, match=message):
        merge([base / "study", tmp_path / "other"], tmp_path / "m", "m", mismatches=nothing_wrong)


_INTS, _FLOATS = st.integers(-(2**63), 2**63 - 1), st.floats(width=64)
_ROW_COLUMNS = ("id", "height", "width", "true", "predicted", "tp_4px", "tp_0.5head")
_ROWS = st.fixed_dictionaries(dict.fromkeys(_ROW_COLUMNS, _INTS) | {"id": st.text(max_size=4)})
_CURVE_COLUMNS = ("threshold", "tp", "predicted", "precision", "recall", "f1", "split", "radius")
_CURVE_ROWS = st.fixed_dictionaries(
    {"threshold": _FLOATS, "tp": _INTS, "predicted": _INTS, "precision": _FLOATS, "recall": _FLOATS, "f1": _FLOATS}
    | {"split": st.sampled_from(["val", "test"]), "radius": st.sampled_from(["4px", "0.5head"])}
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(_ROWS, min_size=1, max_size=4), curve=st.lists(_CURVE_ROWS, max_size=6), data=st.data())
def test_any_values_survive(rows: list[dict[str, Any]], curve: list[dict[str, Any]], data: st.DataObject) -> None:
    """Possible or not, to the bit (NaN as NaN): what is impossible `check` says, and nothing is changed."""
    root = Path(tempfile.mkdtemp())
    try:
        store, spec = Store(root / "runs"), fake_spec("l2", 0)
        add_run(store, spec, images=2)
        points = pd.DataFrame(rows, columns=[*_ROW_COLUMNS])
        for radius in data.draw(st.lists(st.sampled_from(["4px", "0.5head"]), unique=True)):
            at = points.columns.get_loc(f"tp_{radius}")
            points.insert(
                at + 1, f"error_{radius}", data.draw(st.lists(_FLOATS, min_size=len(rows), max_size=len(rows)))
            )
        place = LocalisationSpec(localizer="a", params={}, version=1, radii=("4px", "0.5head"), main="4px")
        measured = Localisation(
            run_id=spec.run_id, localisation=place, epoch=1, images=len(rows), threshold=None, threshold_from="none",
            counts={}, scores={"4px": {}, "0.5head": {}}, seconds=0.0,
        )  # fmt: skip
        store.run(spec.run_id).add_localisation(measured, points, pd.DataFrame(curve, columns=[*_CURVE_COLUMNS]))
        export(store, root / "study", name="s")
        found = read(root / "study")
        write_runs(root / "back", list(found.runs.values()))  # `import_into` would refuse impossible numbers
        back = Store(root / "back").run(spec.run_id)
        assert_bits(back.points(place), points)
        assert_bits(back.curve(place), pd.DataFrame(curve, columns=[*_CURVE_COLUMNS]))
        assert all(finding.isprintable() for finding in found.check())
    finally:
        shutil.rmtree(root)


def assert_bits(one: pd.DataFrame, other: pd.DataFrame) -> None:
    assert list(one) == list(other)
    for name in one:
        assert [repr(value) for value in one[name].tolist()] == [repr(value) for value in other[name].tolist()], name


# ---- the command line


def test_the_commands_say_what_is_there(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = str(base / "study")
    assert main(["results", "check", study]) == 0
    assert "all 2 evaluations and 2 localisations (2 runs" in capsys.readouterr().out
    assert main(["results", "export", "mine", "-o", str(base / "runs"), "--to", str(tmp_path)]) == 0
    assert "2 evaluations and 2 localisations, " in capsys.readouterr().out
    assert (
        main(["results", "export", "mine", "-o", str(base / "runs"), "--to", str(tmp_path), "--force", "--json"]) == 0
    )
    assert set(json.loads(capsys.readouterr().out)["bytes"]) == {"study.json", *ALL_FILES}
    assert main(["results", "import", study, "-o", str(tmp_path / "back")]) == 0
    assert "not part of the study: weights, points" in capsys.readouterr().out
