"""Tables of where people were found, over made-up runs: every number against a sum over the stored rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from reports import paper_places, render, tables_places
from reports.localised import Localised
from reports.measured import Measured
from reports.overview import overview
from reports.page import html
from reports.plots import save
from reports.protocol import MixedProtocolError
from reports.table import Cell, Table
from results.published import published
from results.spec import LocalisationSpec
from results.store import Store
from runners import localizers
from tests.reports.fake_store import add_places, add_run, defaults, fake_spec, fake_store


def read(store: Store) -> tuple[Measured, Localised]:
    frame = store.load()
    measured = Measured.of(store, frame, defaults(frame))
    return measured, Localised.of(store, measured, {name: localizers.defaults(name) for name in localizers.names()})


def located(
    root: Path,
    zoo: tuple[str, ...] = ("pml", "bl"),
    seeds: int = 3,
    radii: tuple[str, ...] = ("4px", "8px"),
    **axes: tuple[str, ...],
) -> Store:
    store = fake_store(root, zoo, range(seeds), **axes)
    for run in store.runs():
        spec = run.spec()
        for localizer in ("proposals",) if spec.loss == "p2p" else ("lm", "otm"):
            add_places(
                store, spec, localizer, radii=radii, hit=0.9 if (spec.loss, localizer) == ("pml", "otm") else 0.6
            )
    return store


def located_tables(localised: Localised, metrics: tuple[str, ...] = ("f1", "precision", "recall")) -> list[Table]:
    return [tables_places.localisation(part, metrics) for part in tables_places.by_setting(localised)]


def cell(table: Table, row: str, group: str, label: str, kind: str = "measured") -> Cell:
    (place,) = [i for i, c in enumerate(table.columns) if (c.group, c.label, c.kind) == (group, label, kind)]
    (found,) = [r for r in table.rows if r.label == row]
    return found.cells[place]


def test_cells_are_sums_over_the_stored_rows(tmp_path: Path) -> None:
    store = located(tmp_path)
    (table,) = located_tables(read(store)[1])
    assert table.rows[0].label == "pml + otm"
    own = [run for run in store.runs() if run.spec().loss == "bl"]
    scores = []
    for run in own:
        (one,) = [m for m in run.localisations() if m.localisation.localizer == "lm"]
        rows = run.points(one.localisation)
        scores.append(2 * rows["tp_8px"].sum() / (rows["predicted"].sum() + rows["true"].sum()))
    found = cell(table, "bl + lm", "8 px", "F1")
    assert found.value == pytest.approx(sum(scores) / 3)
    assert found.sd == pytest.approx(float(pd.Series(scores).std()))
    assert found.low is not None
    assert found.low < found.value < (found.high or 0)
    assert cell(table, "pml + otm", "8 px", "F1").mark == "best"
    assert cell(table, "bl + lm", "", "threshold").text == "0.25"
    assert any("on val" in line for line in table.caption)


def test_the_best_needs_a_test(tmp_path: Path) -> None:
    """With one seed nothing is bold, whatever the difference."""
    (table,) = located_tables(read(located(tmp_path, seeds=1))[1])
    assert all(one.mark == "" for row in table.rows for one in row.cells)
    assert any("1 seed" in line for line in table.caption)


def test_settings_are_kept_apart(tmp_path: Path) -> None:
    store = located(tmp_path, zoo=("pml",), backbones=("vgg19", "mobilenetv2"))
    found = located_tables(read(store)[1])
    assert len(found) == 2
    assert {len(table.rows) for table in found} == {2}


def test_settings_of_one_title_name_what_differs(tmp_path: Path) -> None:
    """Stride, crop, data and radii: none of them is in the title of a setting, and each makes a table of its own."""
    store, changes = Store(tmp_path), ({}, {"stride": 4}, {"recipe": {"crop": 128}}, {"dataset_hash": "0123456789"})
    for change in changes:
        for seed in range(2):
            add_run(store, fake_spec("pml", seed, **change))
            add_places(store, fake_spec("pml", seed, **change), "lm")
    add_places(store, fake_spec("pml", 0), "otm", radii=("2px", "8px"))
    measured, localised = read(store)
    titles = [table.title for table in located_tables(localised)]
    assert len(set(titles)) == len(titles) == 5
    assert sum(", stride 4, within" in title for title in titles) == 1
    assert sum("crop 128" in title for title in titles) == 1
    assert sum("dataset content 01234567" in title and "0123456789" not in title for title in titles) == 1
    assert sum("thresholds by 8px of 2px 8px" in title for title in titles) == 1
    page = overview(measured, store.histories(measured.runs["run_id"]), localised).page
    (places,) = [part for part in page.parts if part.id == "places"]
    (density,) = [part for part in page.parts if part.id == "density"]
    for shown in ([p.caption for p in places.plots], [t.title for _, t in density.details]):
        assert len(set(shown)) == len(shown) > 5


def test_what_is_the_same_is_not_in_the_title(tmp_path: Path) -> None:
    (table,) = located_tables(read(located(tmp_path, zoo=("pml",)))[1])
    assert table.title.endswith("recipe, 5 epochs, stride 8, within 4 px, 8 px")


def test_parameters_of_a_localizer_make_another_row(tmp_path: Path) -> None:
    store = located(tmp_path, zoo=("pml",))
    for run in store.runs():
        add_places(store, run.spec(), "lm", params={"rule": "fidtm"})
    (table,) = located_tables(read(store)[1])
    assert {row.label for row in table.rows} == {"pml + lm", "pml + lm[rule=fidtm]", "pml + otm"}


def test_a_range_shows_its_mean_over_exactly_its_radii(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), range(2))
    for run in store.runs():
        add_places(store, run.spec(), "lm", radii=("sigma_l", "2:20"))
    (table,) = located_tables(read(store)[1])
    assert {column.group for column in table.columns} == {"", "sigma_l", "20 px", "mean 2:20"}
    means = [
        sum(one.scores[f"{px}px"]["f1"] or 0.0 for px in range(2, 21)) / 19
        for run in store.runs()
        for one in run.localisations()
    ]
    assert cell(table, "pml + lm", "mean 2:20", "F1").value == pytest.approx(sum(means) / 2)


def test_versions_of_a_localizer_are_rows_of_their_own(tmp_path: Path) -> None:
    store = located(tmp_path, zoo=("pml",))
    for run in store.runs():
        add_places(store, run.spec(), "lm", version=2)
    (table,) = located_tables(read(store)[1])
    assert {row.label for row in table.rows} == {"pml + lm (version 1)", "pml + lm (version 2)", "pml + otm"}


def test_names_of_strangers_name_no_folder() -> None:
    assert tables_places.file_name("a_/../../evil 0.5head") == "a__evil_0_5head"
    with pytest.raises(ValidationError, match="radii"):
        LocalisationSpec(localizer="lm", params={}, version=1, radii=("/../evil",), main="8px")


def test_the_page_has_the_places_whatever_the_radii(tmp_path: Path) -> None:
    store = located(tmp_path / "runs", zoo=("pml", "p2p"), seeds=2)
    for run in store.runs():
        add_places(store, run.spec(), "proposals" if run.spec().loss == "p2p" else "lm", radii=("0.5head", "2.5px"))
    measured, localised = read(store)
    found = overview(measured, store.histories(measured.runs["run_id"].unique()), localised)
    (part,) = [part for part in found.page.parts if part.title == "Where people are"]
    assert not part.warnings
    assert len(part.tables) == 2
    for plot in found.plots:
        save(plot, tmp_path / "figures")
    assert "pml + lm" in html(found.page)


def test_nothing_measured_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    localised = read(fake_store(tmp_path, ("pml",), [0]))[1]
    with pytest.raises(ValueError, match="--localizers"):
        located_tables(localised)
    with pytest.raises(ValueError, match="Did you mean precision"):
        tables_places.localisation(localised, ["precison"])


def test_every_format_renders(tmp_path: Path) -> None:
    (table,) = located_tables(read(located(tmp_path, zoo=("pml", "p2p")))[1])
    for name, write in render.FORMATS.items():
        assert "p2p + proposals" in write(table).replace("\\", ""), name


def test_table3_beside_the_published_numbers(tmp_path: Path) -> None:
    store = located(tmp_path, zoo=("pml", "gl", "p2p"), datasets=("nwpu",), radii=("sigma_s", "sigma_l"))
    measured, localised = read(store)
    table = paper_places.table3(measured, localised)
    assert cell(table, "PML(VGG-19)+OTM", "", "F1", "published").text == "0.735"
    assert cell(table, "PML(VGG-19)+OTM", "", "F1").value == pytest.approx(
        localised.rows.query("system == 'pml + otm' and radius == 'sigma_l'")["f1"].mean()
    )
    assert cell(table, "PML(HRNet)+LM", "", "F1").text == "not run"
    assert cell(table, "P2PNet · VGG-16bn", "", "F1").text == "not run"
    assert cell(table, "p2p · vgg19 + proposals", "", "F1").value is not None
    assert any("hidden test set" in line for line in table.caption)
    values = set(published()["value"].dropna())
    for row in table.rows:
        for column, one in zip(table.columns, row.cells, strict=True):
            assert column.kind == "published" or one.value not in values


def test_another_radius_is_not_set_beside_published_numbers(tmp_path: Path) -> None:
    table = paper_places.table3(*read(located(tmp_path, zoo=("pml",), datasets=("nwpu",))))
    assert {column.kind for column in table.columns} == {"measured"}


def test_table3_says_why_a_cell_is_empty(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), [0], datasets=("nwpu",))
    measured, localised = read(store)
    table = paper_places.table3(measured, localised)
    assert len(table.rows) == 9
    assert cell(table, "PML(VGG-19)+OTM", "", "F1").text == "no scores"
    assert cell(table, "PML(HRNet)+OTM", "", "F1").text == "not run"
    assert cell(table, "RAZNet · VGG-16", "", "F1").notes == (paper_places._SUITE,)


def test_table3_on_another_dataset_has_nothing_published(tmp_path: Path) -> None:
    measured, localised = read(located(tmp_path))
    table = paper_places.table3(measured, localised, dataset="ucf_qnrf")
    assert {column.kind for column in table.columns} == {"measured"}
    assert next(row.label for row in table.rows) == "pml · vgg19 + otm"
    with pytest.raises(ValueError, match="jhu_crowd"):
        paper_places.table3(measured, localised, dataset="jhu_crowd")


def test_mixed_terms_are_refused(tmp_path: Path) -> None:
    store = located(tmp_path, zoo=("pml",), datasets=("nwpu",))
    other = fake_spec("gl", dataset="nwpu", recipe={"epochs": 9})
    add_run(store, other)
    add_places(store, other, "otm")
    with pytest.raises(MixedProtocolError, match="recipe_epochs"):
        paper_places.table3(*read(store))


def test_a_damaged_file_is_left_out_and_named(tmp_path: Path) -> None:
    store = located(tmp_path, zoo=("pml",))
    (first, *_) = store.root.glob("*/eval/*otm*/points.parquet")
    first.write_bytes(b"PAR1")
    frame, problems = store.load(), list[str]()
    localised = Localised.of(store, Measured.of(store, frame, defaults(frame)), problems=problems)
    assert [str(first) in problem for problem in problems] == [True]
    (table,) = located_tables(localised)
    assert cell(table, "pml + otm", "", "seeds").text == "2"
