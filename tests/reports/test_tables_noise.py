"""Tables of the study of noise against the statistics and the store they are made of."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from reports import noise, render, tables_noise
from reports.degradation import slopes
from reports.overview_noise import noisy
from reports.page import noted
from reports.style import looks
from reports.table import Cell, Table
from tests.reports.fake_store import add_run, fake_spec, fake_store
from tests.reports.test_noise import noisy_store, one_study
from tests.reports.test_tables import cell, measured

NOISES = ("none", "uniform-height:0.02", "uniform-height:0.04", "missing:0.3")


def study_of(root: Path, zoo: tuple[str, ...] = ("pml", "bl", "l2"), seeds: int = 3) -> noise.Study:
    return one_study(measured(fake_store(root, zoo, range(seeds), noises=NOISES)))


def only(table: Table, group: str, label: str) -> dict[str, Cell]:
    (place,) = [i for i, c in enumerate(table.columns) if (c.group, c.label) == (group, label)]
    return {row.label: row.cells[place] for row in table.rows}


def test_slopes_follow_from_the_table_of_errors(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    levels, sloped, _ = tables_noise.noise_tables(study, ["mae"])
    for label in ("pml", "bl", "l2"):
        errors = [cell(levels, label, "MAE", name).value for name in NOISES[:3]]
        found = cell(sloped, label, "slope", "uniform-height")
        assert found.value == pytest.approx(np.polyfit([0, 2, 4], errors, 1)[0])
        assert found.low < found.value < found.high
        assert found.seeds == 3
        share = cell(sloped, label, "relative", "uniform-height")
        assert share.value == pytest.approx(100 * found.value / errors[0])
        span = slopes(study).found["uniform-height"][label].interval("mae")
        assert (found.low, found.high) == (span.low, span.high)
    assert any("that every level has: 3." in line for line in sloped.caption)


def test_ranks_follow_from_the_table_of_errors(tmp_path: Path) -> None:
    levels, _, ranked = tables_noise.noise_tables(study_of(tmp_path), ["mae"])
    for name in NOISES:
        errors = {row.label: cell(levels, row.label, "MAE", name).value for row in ranked.rows}
        ranks = only(ranked, name, "rank")
        assert sorted(errors, key=lambda label: errors[label]) == sorted(ranks, key=lambda label: ranks[label].value)
        for found in ranks.values():
            assert found.text == f"{found.value:g} ({found.low} to {found.high})"
            assert found.low <= found.value <= found.high
    changes = only(ranked, "missing:0.3", "rank change")
    before, after = only(ranked, "none", "rank"), only(ranked, "missing:0.3", "rank")
    assert {k: c.value for k, c in changes.items()} == {k: after[k].value - before[k].value for k in changes}


def test_marks_where_separated_and_where_not(tmp_path: Path) -> None:
    steep = {("pml", "none"): 0.1, ("pml", "missing:0.3"): 0.1, ("l2", "none"): 0.1, ("l2", "missing:0.3"): 0.9}
    study = one_study(measured(noisy_store(tmp_path, steep, seeds=4, images=150)))
    _, sloped, ranked = tables_noise.noise_tables(study)
    assert [only(sloped, "missing", "slope")[label].mark for label in ("pml", "l2")] == ["best", ""]
    assert [only(ranked, "missing:0.3", "rank")[label].text for label in ("pml", "l2")] == ["1 (1 to 1)", "2 (2 to 2)"]
    assert [only(ranked, "missing:0.3", "rank")[label].mark for label in ("pml", "l2")] == ["best", ""]
    assert {found.mark for found in only(ranked, "none", "rank").values()} == {"tie"}
    assert {found.text for found in only(ranked, "none", "rank").values()} == {"1 (1 to 2)", "2 (1 to 2)"}


def test_everything_is_called_ours(tmp_path: Path) -> None:
    for table in tables_noise.noise_tables(study_of(tmp_path, seeds=2)):
        assert "(kinds and levels ours)" in table.title
        assert any("drawn once" in line for line in table.caption)


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml", "bl"], [0, 1], noises=NOISES)
    add_run(store, fake_spec("gl", noise="missing:0.3"))
    fake_store(tmp_path, ["l2"], [0, 1, 2], noises=("none", "uniform-height:0.04"))
    fake_store(tmp_path, ["pml"], [0], noises=("missing:0.3+uniform-px:8",))
    levels, sloped, ranked = tables_noise.noise_tables(one_study(measured(store)), ["mae"])
    assert cell(sloped, "gl", "slope", "missing").notes == ("fewer than two levels were measured",)
    assert cell(sloped, "l2", "slope", "uniform-height").notes == ("over none, uniform-height:0.04 alone",)
    assert [cell(sloped, label, "seeds", "uniform-height").value for label in ("pml", "l2")] == [2, 3]
    assert cell(ranked, "gl", "rank", "none").text == "–"
    assert cell(ranked, "gl", "rank", "missing:0.3").high == 3, "one seed rules out no rank"
    assert any("On no curve, of several kinds: missing:0.3+uniform-px:8" in line for line in levels.caption)


def test_one_seed_has_slopes_without_intervals_and_open_ranks(tmp_path: Path) -> None:
    _, sloped, ranked = tables_noise.noise_tables(study_of(tmp_path, seeds=1))
    found = cell(sloped, "pml", "slope", "missing")
    assert (found.low, found.mark) == (None, "")
    assert "(" not in found.text
    assert any("No pair of slopes could be tested" in line for line in sloped.caption)
    assert {c.text.partition(" ")[2] for c in only(ranked, "none", "rank").values()} == {"(1 to 3)"}
    said = " ".join((*sloped.caption, *ranked.caption))
    assert "No intervals" in said
    assert "95 % intervals" not in said
    assert "0 pairs" not in said
    assert "No pair could be tested" in said


def test_metrics(tmp_path: Path) -> None:
    study = study_of(tmp_path, seeds=2)
    levels, sloped, ranked = tables_noise.noise_tables(study, ["nae", "bias", "mae"])
    assert cell(levels, "pml", "NAE", "missing:0.3").value < 1
    assert cell(sloped, "pml", "slope", "missing, bias").value is not None
    assert ("missing, bias", "relative") not in {(c.group, c.label) for c in sloped.columns}
    assert {c.group.partition(", ")[2] for c in ranked.columns} == {"MAE", "NAE"}
    assert [t.name for t in tables_noise.noise_tables(study, ["bias"])] == ["noise", "noise_slopes"]
    with pytest.raises(ValueError, match="unknown metric 'f1'"):
        tables_noise.noise_tables(study, ["f1"])


def test_a_csv_names_every_column_once_and_holds_every_value(tmp_path: Path) -> None:
    for table in tables_noise.noise_tables(study_of(tmp_path), ["mae", "rmse", "bias"]):
        lines = list(csv.reader(io.StringIO(render.to_csv(table))))
        assert len(set(lines[0])) == len(lines[0])
        for row, line in zip(table.rows, lines[1:], strict=True):
            found = dict(zip(lines[0], line, strict=True))
            for column, own in zip(table.columns, row.cells, strict=True):
                name = f"{column.group} {column.label}"
                if own.value is not None:
                    assert float(found[name]) == own.value
                if own.low is not None:
                    assert (float(found[f"{name} low"]), float(found[f"{name} high"])) == (own.low, own.high)
        changes = {c.label for c in table.columns if "change" in c.label}
        assert changes <= {"MAE change", "RMSE change", "bias change", "rank change"}


def test_a_rank_changes_among_the_losses_of_both(tmp_path: Path) -> None:
    store = noisy_store(tmp_path, {("pml", "none"): 0.1, ("l2", "none"): 0.9, ("l2", "missing:0.3"): 0.5}, seeds=3)
    fake_store(tmp_path, ["bl"], [0, 1, 2], noises=("missing:0.3",))
    fake_store(tmp_path, ["gl"], [0, 1, 2], noises=("none",))
    table = tables_noise.by_rank(one_study(measured(store)))
    levels = tables_noise.by_level(measured(store))
    clean = {name: cell(levels, name, "MAE", "none").value for name in ("pml", "l2", "gl")}
    assert only(table, "none", "rank")["l2"].value == sorted(clean.values()).index(clean["l2"]) + 1
    changes = only(table, "missing:0.3", "rank change")
    assert changes["l2"].value == 0, "alone in both, it is the first in both"
    assert changes["l2"].notes == ("among losses measured here and with clean labels: 1",)
    assert (changes["bl"].text, changes["bl"].notes) == ("–", ("no rank with clean labels",))
    assert only(table, "missing:0.3", "rank")["l2"].notes == ("of 2 losses; with clean labels 3",)


def test_the_terminal_is_wide_enough(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["bl"], [0, 1], noises=NOISES)
    for seed in range(2):
        for level in NOISES:
            long = {"solver": "stabilised"}
            add_run(store, fake_spec("dm_count", seed, noise=level, loss_params=long), quality=3.0)
    for table in tables_noise.noise_tables(one_study(measured(store))):
        lines = render.terminal_text(table, 80).splitlines()
        assert max(map(len, lines)) <= 80
        assert "…" not in "".join(lines)
        for row in table.rows:
            for found in row.cells:
                assert any(found.text in line for line in lines), "a number is not broken over two lines"


def test_several_studies_are_kept_apart(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml", "bl"], [0, 1], noises=("none", "missing:0.3"), backbones=("vgg19", "csrnet"))
    found = measured(store)
    history = store.histories(found.runs["run_id"])
    part = noisy(found, history, looks(found.evaluated["label"]), noted, "the interval")
    assert part is not None
    keys = {study.key for study in noise.studies(found)}
    names = ("noise", "noise_slopes", "noise_ranks")
    assert {table.name for table in part.tables} == {f"{name}_{key}" for name in names for key in keys}
    assert {plot.name for plot in part.plots} == {f"noise_heads_{key}" for key in keys}
    assert not part.warnings
    assert "no number of that figure can be confirmed" in part.lead[0]
    titles = {f"{study.title}:" for study in noise.studies(found)}
    assert titles <= set(part.lead)
