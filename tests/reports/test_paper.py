"""The paper's tables: every system has its row, and published numbers keep to their own columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats as reference

from reports import paper
from reports.protocol import MixedProtocolError
from reports.table import Cell, Table
from results.published import published
from results.store import Store
from tests.reports.fake_store import add_failure, add_run, fake_spec, fake_store
from tests.reports.test_tables import measured


def cell(table: Table, row: str, group: str, label: str, kind: str = "measured") -> Cell:
    (place,) = [i for i, c in enumerate(table.columns) if (c.group, c.label, c.kind) == (group, label, kind)]
    (found,) = [r for r in table.rows if r.label == row]
    return found.cells[place]


def test_table4_measured_beside_published(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml", "bl"), [0, 1], backbones=("vgg19", "mcnn"))
    table = paper.table4(measured(store))
    assert [row.label for row in table.rows][:7] == ["L2 Loss", "BL", "NoiseCC", "DMC", "GL", "GCFL", "PML"]
    rows = [store.run(fake_spec("pml", seed).run_id).images("val-test-m1") for seed in (0, 1)]
    mae = np.mean([(r["predicted"] - r["true"]).abs().mean() for r in rows])
    assert cell(table, "PML", "vgg19", "MAE").value == pytest.approx(mae)
    assert cell(table, "PML", "vgg19", "MAE", "published").value == 77.6
    assert cell(table, "PML", "hrnet_w48", "MAE", "published").text == "73.17"
    assert cell(table, "GL", "vgg19", "MAE").text == "not run"
    assert cell(table, "GCFL", "mcnn", "MAE", "published").text == "–"
    assert any("sources disagree: another has 76.6" in n for n in cell(table, "PML", "vgg19", "MAE", "published").notes)


def test_no_published_number_stands_in_a_measured_column(tmp_path: Path) -> None:
    found = measured(fake_store(tmp_path, ("pml",), [0]))
    values = set(published()["value"].dropna()) | set(published()["slides"].dropna())
    for table in (paper.table2(found), paper.table4(found)):
        for row in table.rows:
            for column, one in zip(table.columns, row.cells, strict=True):
                if column.kind == "measured":
                    assert one.value not in values


def test_table2_has_every_system(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), [0], backbones=("vgg19", "mobilenetv2"))
    table = paper.table2(measured(store), ["mae"])
    names = [row.label for row in table.rows]
    assert sum(name.startswith("PML · ") for name in names) == 3
    assert "pml · mobilenetv2" in names
    assert cell(table, "KDMG (Wan et al., 2020) · VGG-19", "ucf_qnrf", "MAE").notes == (paper._SUITE,)
    assert cell(table, "PML · VGG-19", "ucf_qnrf", "MAE").value is not None
    assert cell(table, "PML · HRNet", "ucf_qnrf", "MAE").text == "not run"
    wrong = next(row.label for row in table.rows if row.label.startswith("MCNN"))
    corrected = cell(table, wrong, "shanghaitech_a", "MAE", "published")
    assert corrected.value == 110.2
    assert "the slides print 232.5" in corrected.notes[0]


def test_variants_and_solvers(tmp_path: Path) -> None:
    """Another solver is the paper's row, with a note; another count norm is a row of its own."""
    store = fake_store(tmp_path, ("pml",), [0])
    add_run(store, fake_spec("pml", loss_params={"count_norm": "l2"}))
    add_run(store, fake_spec("dm_count", loss_params={"solver": "pot"}))
    table = paper.table4(measured(store))
    assert cell(table, "pml[count_norm=l2]", "vgg19", "MAE").value is not None
    assert cell(table, "DMC", "vgg19", "MAE").notes == ("measured as dm_count[solver=pot]",)
    assert cell(table, "PML", "vgg19", "MAE").notes == ()


def test_mixed_terms_are_refused_and_noise_is_left_out(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml", "bl"), [0], noises=("none", "uniform-px:8"))
    paper.table4(measured(store))
    add_run(store, fake_spec("l2", recipe={"epochs": 9}))
    with pytest.raises(MixedProtocolError, match="the columns of vgg19 would mix.*recipe_epochs is"):
        paper.table4(measured(store))


def test_failed_cells_say_so(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), [0])
    add_failure(store, fake_spec("bl"), "out of memory")
    found = cell(paper.table4(measured(store)), "BL", "vgg19", "MAE")
    assert (found.text, found.notes) == ("failed", ("failed: out of memory",))


def test_a_reproduction_is_held_against_one_more_run(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), range(4))
    table = paper.reproduction(
        measured(store), "table4", cells=[("pml", "vgg19", "ucf_qnrf"), ("bl", "vgg19", "ucf_qnrf")]
    )
    scores = []
    for seed in range(4):
        rows = store.run(fake_spec("pml", seed).run_id).images("val-test-m1")
        scores.append((rows["predicted"] - rows["true"]).abs().mean())
    half = reference.t.ppf(0.975, 3) * np.std(scores, ddof=1) * np.sqrt(1 + 1 / 4)
    seeds, ours, span, printed, apart, inside = table.rows[0].cells
    assert seeds.text == "4"
    assert ours.value == pytest.approx(np.mean(scores))
    assert (span.low, span.high) == pytest.approx((np.mean(scores) - half, np.mean(scores) + half))
    assert span.text == f"{span.low:.1f} to {span.high:.1f}"
    assert printed.value == 77.6
    assert apart.value == pytest.approx(np.mean(scores) - 77.6)
    assert inside.text == "no"
    assert table.rows[1].cells[1].text == "not run"
    truth = rows["true"]
    assert table.rows[2].label == "(constant count) ucf_qnrf MAE"
    assert table.rows[2].cells[1].value == pytest.approx((truth - truth.mean()).abs().mean())


def test_nwpu_is_never_differenced(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), range(3), datasets=("nwpu",))
    table = paper.reproduction(measured(store), "table2", ["mae"], cells=[("pml", "vgg19", "nwpu")])
    *_, apart, inside = table.rows[0].cells
    assert (apart.text, apart.value, inside.text) == ("–", None, "–")
    assert "hidden test set" in apart.notes[0]
    assert any("official val" in line for line in paper.table2(measured(store)).caption)


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run and no published number"):
        paper.table4(measured(Store(tmp_path)), dataset="ucf_cc_50")


def test_a_reproduction_names_variants_and_holds_the_paper_against_the_plain_one(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), range(2))
    for seed in range(2):
        add_run(store, fake_spec("pml", seed, loss_params={"count_norm": "l2"}))
    table = paper.reproduction(measured(store), "table4", ["mae"], cells=[("pml", "vgg19", "ucf_qnrf")])
    published_at = {row.label: row.cells[3].value for row in table.rows if not row.reference}
    assert published_at == {"pml · vgg19 · ucf_qnrf MAE": 77.6, "pml[count_norm=l2] · vgg19 · ucf_qnrf MAE": None}
    add_run(store, fake_spec("bl", 0, recipe={"epochs": 99}))
    with pytest.raises(MixedProtocolError, match="vgg19 on ucf_qnrf would mix.*recipe_epochs"):
        paper.reproduction(measured(store), "table4")


def test_another_scale_is_not_held_against_published_numbers(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for seed in range(2):
        add_run(store, fake_spec("pml", seed, dataset_params={"scale": 0.25}, dataset="shanghaitech_b"))
    found = measured(store)
    four = paper.table4(found, dataset="shanghaitech_b")
    assert "shanghaitech_b[scale=0.25]" in four.title
    assert {column.kind for column in four.columns} == {"measured"}
    two = paper.table2(found, ["mae"])
    assert cell(two, "PML · VGG-19", "shanghaitech_b", "MAE").text == "not run"
    assert cell(two, "PML · VGG-19", "shanghaitech_b[scale=0.25]", "MAE").value is not None
    again = paper.reproduction(found, "table2", ["mae"], cells=[("pml", "vgg19", "shanghaitech_b")])
    assert again.rows[0].label == "pml · vgg19 · shanghaitech_b[scale=0.25] MAE"
    assert again.rows[0].cells[3].value is None


def test_the_papers_own_table_stands_without_a_run_of_it(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), [0], datasets=("shanghaitech_b",))
    table = paper.table4(measured(store))
    assert cell(table, "PML", "vgg19", "MAE").text == "not run"
    assert cell(table, "PML", "vgg19", "MAE", "published").value == 77.6


def test_of_two_heads_neither_is_the_papers(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), [0, 1])
    for seed in (0, 1):
        add_run(store, fake_spec("pml", seed, head="pml"))
    table = paper.table4(measured(store))
    assert cell(table, "PML", "vgg19", "MAE").text == "not run"
    assert cell(table, "pml · pml head", "vgg19", "MAE").value is not None
