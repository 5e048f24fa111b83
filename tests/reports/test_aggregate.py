"""Across settings: normalised errors, ranks and profiles against scipy and numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats as reference

from reports import aggregate, tables
from results.store import Store
from tests.reports.fake_store import add_run, fake_spec, fake_store
from tests.reports.test_tables import cell, measured


def test_aggregates_follow_from_the_runs(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml", "bl", "l2"), range(3), datasets=("ucf_qnrf", "shanghaitech_b"))
    frame = store.load()
    found = aggregate.normalised(tables.settings(measured(store)))
    assert found.labels == ("bl", "l2", "pml")
    scores = frame.assign(score=frame["mae"] / frame["constant_mae"])
    table = aggregate.table(found)
    for loss, rows in scores.groupby("loss"):
        assert cell(table, loss, "IQM").value == pytest.approx(reference.trim_mean(rows["score"], 0.25))
    means = scores.groupby(["dataset", "loss"])["score"].mean().unstack()
    ranks = reference.rankdata(means.to_numpy(), axis=1).mean(axis=0)
    for loss, rank in zip(means.columns, ranks, strict=True):
        assert cell(table, loss, "mean rank").value == pytest.approx(rank)

    def better(one: str, other: str) -> float:
        by = scores.groupby(["dataset", "loss"])["score"].apply(list)
        return np.mean(
            [np.mean([a < b for a in by[data, one] for b in by[data, other]]) for data in set(scores["dataset"])]
        )

    least = min(better("bl", "pml"), better("bl", "l2"))
    assert cell(table, "bl", "least P(better)").value == pytest.approx(least)
    curves = aggregate.profile(found)
    pml = curves[curves["label"] == "pml"]
    at = pml["threshold"].to_numpy()[120]
    shares = scores[scores["loss"] == "pml"].groupby("dataset")["score"].apply(lambda x: (x <= at).mean())
    assert pml["share"].to_numpy()[120] == pytest.approx(shares.mean())


def test_only_losses_that_all_settings_have(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml", "bl"), [0], datasets=("ucf_qnrf", "shanghaitech_b"))
    for loss in ("gl", "chfl"):
        add_run(store, fake_spec(loss))
    add_run(store, fake_spec("l2", dataset="shanghaitech_b"))
    found = aggregate.normalised(tables.settings(measured(store)))
    assert found.labels == ("bl", "pml")
    qnrf, part_b = (next(t for t in found.settings if t.startswith(name)) for name in ("ucf_qnrf", "shanghaitech_b"))
    assert found.left_out == {"chfl": (part_b,), "gl": (part_b,), "l2": (qnrf,)}
    said = f"Left out, not measured in every setting: chfl, gl lack {part_b}; l2 lacks {qnrf}."
    assert said in aggregate.table(found).caption
    both = fake_store(tmp_path / "both", ("pml", "bl"), [0], datasets=("ucf_qnrf", "shanghaitech_b"))
    whole = aggregate.table(aggregate.normalised(tables.settings(measured(both))))
    assert not any("Left out" in line for line in whole.caption)


def test_too_little_to_compare_is_said(tmp_path: Path) -> None:
    one = tables.settings(measured(fake_store(tmp_path / "one", ("pml", "bl"), [0])))
    with pytest.raises(ValueError, match="it takes two settings at least; found 1"):
        aggregate.normalised(one)
    store = Store(tmp_path / "apart")
    add_run(store, fake_spec("pml"))
    add_run(store, fake_spec("bl", dataset="shanghaitech_b"))
    with pytest.raises(ValueError, match=r"no loss was measured in all 2 settings.*bl lacks ucf_qnrf.*pml lacks shang"):
        aggregate.normalised(tables.settings(measured(store)))
    add_run(store, fake_spec("bl"))
    with pytest.raises(ValueError, match=r"only bl was measured in all 2 settings.*\(pml lacks shang.*--where"):
        aggregate.normalised(tables.settings(measured(store)))
    two = fake_store(tmp_path / "two", ("pml", "bl", "l2"), [0], datasets=("ucf_qnrf", "shanghaitech_b"))
    with pytest.raises(ValueError, match="at least 5 cells"):
        aggregate.ranking(aggregate.normalised(tables.settings(measured(two))))


def test_noises_of_one_dataset_are_one_cell(tmp_path: Path) -> None:
    noises = ["none", *(f"uniform-px:{level}" for level in range(1, 6))]
    store = fake_store(tmp_path, ("pml", "bl", "l2"), [0], noises=noises)
    with pytest.raises(ValueError, match=r"shape \(1, 3\)"):
        aggregate.ranking(aggregate.normalised(tables.settings(measured(store))))


def test_few_seeds_have_no_interval(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml", "bl"), range(3), datasets=("ucf_qnrf", "shanghaitech_b"))
    table = aggregate.table(aggregate.normalised(tables.settings(measured(store))))
    assert {row.cells[1].text for row in table.rows} == {"too few seeds"}
