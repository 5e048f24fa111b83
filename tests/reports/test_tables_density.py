"""Tables of sparse and dense crowds: against the counts of the store, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from losses.discovery import UnknownNameError
from reports import overview_density, render, tables_density
from reports.localised import Localised
from reports.measured import Measured
from reports.page import noted
from reports.place_windows import PlaceWindows
from reports.style import looks
from reports.table import Table
from reports.tables import Setting, settings
from reports.tables_places import by_setting
from reports.windows import Windows
from results.store import Store
from tests.reports.fake_store import add_places, add_points, defaults, fake_spec, fake_store

ZOO = ("pml", "bl", "l2")


def read(store: Store) -> Measured:
    frame = store.load()
    return Measured.of(store, frame, defaults(frame))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = fake_store(tmp_path_factory.mktemp("runs"), ZOO, range(3), images=60)
    for loss in ("pml", "l2"):
        for seed in range(3):
            add_places(made, fake_spec(loss, seed), hit=0.9 if loss == "pml" else 0.5)
    return made


@pytest.fixture(scope="module")
def measured(store: Store) -> Measured:
    return read(store)


@pytest.fixture(scope="module")
def setting(measured: Measured) -> Setting:
    return settings(measured)[0]


def column(table: Table, group: str) -> list[int]:
    return [place for place, head in enumerate(table.columns) if head.group == group]


def test_the_numbers_are_those_of_the_store(setting: Setting) -> None:
    density = tables_density.of_images(setting, "jhu")
    table = tables_density.table(density)
    samples = setting.measured.samples(setting.measured.evaluated)
    rows = {row.label: row.cells for row in table.rows}
    true = samples["pml"].true
    bins = {"0–50": true <= 50, "51–500": (true > 50) & (true <= 500), ">500": true > 500}
    bins = {name: members for name, members in bins.items() if members.any()}
    assert [table.columns[place].label for place in column(table, "MAE")] == list(bins)
    for place, members in zip(column(table, "MAE"), bins.values(), strict=True):
        assert rows["(images)"][place].value == members.sum()
        assert rows["(people)"][place].value == true[members].sum()
        for label, sample in samples.items():
            error = np.abs(sample.predicted - sample.true)[:, members]
            assert rows[label][place].value == pytest.approx(error.mean())
            assert rows[label][place].sd == pytest.approx(error.mean(axis=1).std(ddof=1))
    for place, members in zip(column(table, "bias"), bins.values(), strict=True):
        sample = samples["bl"]
        expected = (sample.predicted - sample.true)[:, members].mean()
        assert rows["bl"][place].value == pytest.approx(expected)
        assert rows["bl"][place].text[0] in "+-0"
    for place, gap in zip(column(table, "MAE"), column(table, "MAE − l2"), strict=True):
        assert rows["l2"][gap].text == "–"
        if (value := rows["pml"][gap].value) is not None:
            assert value == pytest.approx(rows["pml"][place].value - rows["l2"][place].value)  # type: ignore[operator]


def test_stars_are_of_the_corrected_test(setting: Setting) -> None:
    """PML's made-up error is 0.1 of the count, that of L2 0.25."""
    density = tables_density.of_images(setting)
    table = tables_density.table(density)
    frame = density.frame[density.frame["label"] != "l2"]
    gaps = [cell.text for row in table.rows for cell in (row.cells[p] for p in column(table, "MAE − l2"))]
    assert sum(text.endswith("*") for text in gaps) == (frame["p_holm"] < 0.05).sum() > 0
    clear = frame[frame["p_holm"] < 0.05]
    assert set(clear["label"]) <= {"pml", "bl"}
    assert (clear["difference_high"] < 0).all()


def test_the_baseline(setting: Setting, measured: Measured, tmp_path: Path) -> None:
    assert tables_density.of_images(setting).baseline == "l2"
    assert tables_density.of_images(setting, baseline="bl").baseline == "bl"
    other = tables_density.of_images(setting, baseline="p2p")
    assert other.baseline is None
    assert any("p2p has nothing to be compared with here" in line for line in other.caption)
    tables_density.check_baseline(measured, "bl")
    with pytest.raises(UnknownNameError, match="Did you mean pml"):
        tables_density.check_baseline(measured, "pm")
    without = settings(read(fake_store(tmp_path / "two", ("pml", "bl"), [0, 1], images=12)))[0]
    assert tables_density.of_images(without).baseline == "bl"
    alone = settings(read(fake_store(tmp_path / "one", ("l2",), [0], images=12)))[0]
    table = tables_density.table(tables_density.of_images(alone))
    assert {head.group for head in table.columns} == {"MAE", "NAE", "bias"}
    assert "1 seed: no interval" in " ".join(table.caption)


@pytest.mark.parametrize("kind", ["quantiles", "nwpu", "windows", "places"])
def test_it_reads_at_80_columns_and_in_every_format(
    setting: Setting, store: Store, measured: Measured, kind: str
) -> None:
    if kind == "places":
        found = tables_density.of_places(by_setting(Localised.of(store, measured))[0])
    elif kind == "windows":
        found = tables_density.of_windows(setting, Windows.of(store, measured, 64))
    else:
        found = tables_density.of_images(setting, kind)  # type: ignore[arg-type]
    table = tables_density.table(found)
    for name, form in render.FORMATS.items():
        text = form(table)
        assert name == "csv" or "ours" in text.lower(), name
        assert "(people)" in text, name
        if name == "terminal":
            assert max(map(len, text.splitlines())) <= 80
            assert "…" not in text


def test_windows(setting: Setting, store: Store, measured: Measured) -> None:
    """64-px windows hold all people once; nobody is in the first bin."""
    density = tables_density.of_windows(setting, Windows.of(store, measured, 64))
    one = density.frame[density.frame["label"] == "pml"]
    assert one["units"].sum() == 60 * 12
    assert (
        one["people"].sum()
        == settings(measured)[0].measured.sample(measured.evaluated[measured.evaluated["label"] == "pml"]).true.sum()
    )
    assert one["bin"].iloc[0] == "0"
    assert one["people"].iloc[0] == 0
    table = tables_density.table(density)
    assert {"(64 px windows)", "(images)", "(people)"} <= {row.label for row in table.rows}
    assert "windows of one image are not independent" in " ".join(table.caption)
    with pytest.raises(ValueError, match="no windows were kept"):
        tables_density.of_windows(setting, Windows(64, {}))


def test_places_are_pooled_by_density(store: Store, measured: Measured) -> None:
    part = by_setting(Localised.of(store, measured))[0]
    density = tables_density.of_places(part, "jhu")
    rows = part.rows[part.rows["main"].astype(bool) & (part.rows["system"] == "pml + lm")]
    sample = part.sample(rows)
    dense = (sample.true > 50) & (sample.true <= 500)
    recall = (sample.tp[:, dense].sum(axis=1) / sample.true[dense].sum()).mean()
    frame = density.frame.set_index(["bin", "label"])
    assert frame.loc[("51–500", "pml + lm"), "recall"] == pytest.approx(recall)
    assert frame.loc[("51–500", "pml + lm"), "f1"] > frame.loc[("51–500", "l2 + lm"), "f1_high"]


def test_spacing_comes_from_who_has_the_annotations(setting: Setting) -> None:
    with pytest.raises(ValueError, match="need the annotations.*--data-root"):
        tables_density.of_images(setting, "spacing")
    asked = []

    def heads(terms, ids, true):  # type: ignore[no-untyped-def]
        asked.append((terms["dataset"], len(ids), len(true)))
        return [np.stack([np.arange(count) * 300 / (1 + count), np.zeros(int(count))], axis=1) for count in true]

    found = tables_density.of_images(setting, "spacing", heads=heads)
    assert asked == [("ucf_qnrf", 60, 60)]
    assert found.frame["bin"].iloc[-1] == "<2 heads"
    one = found.frame[found.frame["label"] == "pml"]
    assert one["people"].is_monotonic_decreasing, "the nearest heads first"


def test_the_part_says_what_it_cannot_make(setting: Setting, store: Store, measured: Measured) -> None:
    shown = looks(ZOO)
    part = overview_density.crowds(measured, None, Windows.of(store, measured, 512), shown, noted)
    assert any("512 px is a whole image" in line and "--window 64 or 128" in line for line in part.lead)
    assert not part.warnings
    assert len(part.details) == 3
    assert any("PML gains in dense crowds" in line and "comparisons" in line for line in part.lead)
    part = overview_density.crowds(measured, None, Windows(64, {}), shown, noted, kinds=["quantiles", "spacing"])
    assert len(part.warnings) == 3, "no windows in two kinds, no annotations for the spacing of images"
    assert [title.split(" by ")[0].split(":")[0] for title, _ in part.details] == ["Sparse and dense images"]
    localised = Localised.of(store, measured)
    part = overview_density.crowds(measured, localised, Windows.of(store, measured, 64), shown, noted, drawn=["jhu"])
    names = [plot.name for plot in part.plots]
    assert len(names) == len(set(names)) == 7
    assert len({table.name for _, table in part.details}) == len(part.details) == 9
    for seed in range(3):
        add_points(store, fake_spec("bl", seed))
    localised = Localised.of(store, measured)
    found = PlaceWindows.of(store, localised, 64)
    part = overview_density.crowds(
        measured, localised, None, shown, noted, kinds=["spacing"], place_windows=found, drawn=["spacing"]
    )
    assert [title.split(":")[0] for title, _ in part.details] == [
        "Sparse and dense 64 px windows by spacing, found within 8 px"
    ]
    assert [plot.name.split("_")[:4] for plot in part.plots] == [["sparse", "dense", "windows64", "spacing"]]
    assert "n 64 px windows in each" in part.plots[0].caption
