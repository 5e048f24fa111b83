"""`benchmark data noise` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.cli import main

WORDS = ["data", "noise", "synthetic[train=6,val=1,test=1,size=128,most=40]", "--crops", "4", "--losses", "l2", "pml"]


def test_tables_figures_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--noise", "uniform-px:4", "uniform-px:8", "missing:0.2", "--to", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "What the labels become" in printed
    assert "Preference lost (label sensitivity, ours)" in printed
    assert max(map(len, printed.split("written:")[0].splitlines())) <= 80
    names = {path.name for path in (tmp_path / "out").iterdir()}
    for figure in ("noise_displacement", "noise_overlay_1", "noise_gradient_shift", "noise_levels_gradient_shift"):
        assert {f"{figure}.{kind}" for kind in ("png", "pdf", "svg", "csv")} <= names
    assert {"index.html", "noise_effect.csv", "sensitivity.csv", "sensitivity_preference_lost.csv"} <= names
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<svg") >= 4
    assert "://" not in page.replace("http://www.w3.org", "")


def test_numbers_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--noise", "none", "duplicate:0.5", "--images", "3", "--sigma", "dots", "--to", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["noise"] for row in found["noises"]] == ["none", "duplicate:0.5"]
    assert found["noises"][0]["images"] == 3
    assert {row["loss"] for row in found["sensitivity"]} == {"l2", "pml"}
    clean = [row for row in found["sensitivity"] if row["noise"] == "none" and row["measure"] == "gradient_shift"]
    assert [row["value"] for row in clean] == [0, 0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--noise", "uniform-p:8"], "Did you mean uniform-px"),
        (["--noise", "missing:2"], "needs a level from 0 to 1"),
        (["--losses", "pmll"], "Did you mean pml"),
        (["--sigma", "wide"], "--sigma must be a number"),
        (["--crops", "0"], "number of crops must be at least 1"),
        (["--images", "0"], "number of images must be at least 1"),
        (["--stride", "0"], "--stride must be"),
        (["--crop", "0"], "crop must be at least 1"),
    ],
)
def test_mendable_errors_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS[:3], "--to", str(tmp_path / "out"), *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()
