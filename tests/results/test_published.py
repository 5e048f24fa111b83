"""The published numbers: complete, corrected where the slides are wrong, and mapped to names that this suite knows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import losses
from results.published import published
from runners import backbones, data


def cell(table: str, method: str, dataset: str, metric: str) -> pd.Series:
    rows = published(table).query("method == @method and our_dataset == @dataset and metric == @metric")
    return rows.iloc[0]


def test_every_system_of_the_slides_has_its_rows() -> None:
    methods = {name: list(dict.fromkeys(published(name)["method"])) for name in ("table2", "table3", "table4")}
    assert [method.split(" (")[0] for method in methods["table2"]] == [
        "MCNN", "CSRNet", "SFCN", "BL", "KDMG", "DMC", "NoiseCC", "P2PNet", "UOTCC", "GL", "ChfL", "PET", "STEERER",
        "PML",
    ]  # fmt: skip
    assert published("table2").query("method == 'PML (ours)'")["network"].nunique() == 3
    assert methods["table3"] == [
        "RAZNet", "GL+LM", "GL+OTM", "P2PNet", "PET", "STEERER+LM", "PML(VGG-19)+OTM", "PML(HRNet)+OTM",
        "PML(HRNet)+LM",
    ]  # fmt: skip
    assert methods["table4"] == ["L2 Loss", "BL", "NoiseCC", "DMC", "GL", "GCFL", "PML (ours)"]
    assert len(published()) == 243
    assert published()["value"].notna().sum() == 235


def test_errors_of_the_slides_are_corrected_and_conflicts_are_not() -> None:
    wrong = cell("table2", "MCNN (Zhang et al., 2016)", "shanghaitech_a", "mae")
    assert (wrong["slides"], wrong["value"], wrong["status"]) == (232.5, 110.2, "error")
    assert "PET paper" in wrong["evidence"]
    loc = cell("table3", "P2PNet", "nwpu", "f1")
    assert (loc["slides"], loc["value"]) == (0.729, 0.712)
    disputed = cell("table2", "STEERER (Han et al., 2023)", "jhu_crowd", "rmse")
    assert (disputed["value"], disputed["other"], disputed["status"]) == (238.1, 238.3, "conflict")


def test_names_are_those_of_the_suite() -> None:
    frame = published()
    assert set(frame["our_loss"]) - {""} <= set(losses.names())
    assert set(frame["our_dataset"]) <= set(data.names())
    for name in set(frame["our_backbone"]) - {""}:
        backbones.load(name)
    assert ((frame["our_loss"] == "") == (frame["our_backbone"] == "")).all()


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no published table 'table9'"):
        published("table9")


@pytest.mark.shared
def test_it_is_what_the_sources_say(shared_dir: Path) -> None:
    """Cell by cell against the transcription of the slides and the corrections beside it."""
    slides = pd.read_csv(shared_dir / "design" / "published.csv")
    ours = published()
    assert ours["slides"].tolist() == pytest.approx(slides["value"].tolist(), nan_ok=True)
    assert ours["method"].tolist() == slides["method"].tolist()
    assert ours["network"].tolist() == slides["backbone"].tolist()
    fixes = pd.read_csv(shared_dir / "design" / "published_corrections.csv")
    counts = ours["status"].value_counts()
    assert counts["error"] == (fixes["status"] == "error").sum()
    assert counts["conflict"] == (fixes["status"] == "conflict").sum()
    for fix in fixes[fixes["status"] == "error"].to_dict("records"):
        rows = ours[
            (ours["method"] == fix["method"]) & (ours["dataset"] == fix["dataset"]) & (ours["status"] == "error")
        ]
        assert float(fix["other_value"]) in rows["value"].tolist()
