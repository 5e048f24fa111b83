"""`benchmark data noise` from the command line."""

from __future__ import annotations

import html
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from benchmark import noise_preview
from benchmark.cli import main

WORDS = ["data", "noise", "synthetic[train=6,val=1,test=1,size=128,most=40]", "--crops", "4", "--losses", "l2", "pml"]


def test_tables_figures_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--noise", "uniform-px:4", "uniform-px:8", "missing:0.2", "--to", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "What the labels become" in printed
    assert "Preference lost (label sensitivity, ours)" in printed
    assert "Value shift a head (label sensitivity, ours)" in printed
    assert max(map(len, printed.split("written:")[0].splitlines())) <= 80
    names = {path.name for path in (tmp_path / "out").iterdir()}
    for figure in ("noise_displacement", "noise_overlay_1", "noise_gradient_shift", "noise_levels_gradient_shift"):
        assert {f"{figure}.{kind}" for kind in ("png", "pdf", "svg", "csv")} <= names
    assert {"index.html", "noise_effect.csv", "sensitivity.csv", "sensitivity_preference_lost.csv"} <= names
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<svg") >= 4
    assert "://" not in page.replace("http://www.w3.org", "")
    assert re.search(r"Written by crowd-loss-benchmark \d\S* on \d{4}-\d\d-\d\d", page)
    assert "Shaded: 95 %" in page
    assert "Not drawn, as combined or of a kind with a single level: missing:0.2." in page


def test_a_level_is_not_broken_in_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noises = ["uniform-height:0.04", "gaussian-px:9.237604307"]
    assert main([*WORDS[:3], "--losses", "l2", "--crops", "2", "--noise", *noises, "--to", str(tmp_path)]) == 0
    labels = capsys.readouterr().out.partition("Preference lost")[0].splitlines()
    assert max(map(len, labels)) <= 80
    stubs = [line.split("│")[1].strip() for line in labels if line.startswith("│")]
    assert {"0.04", "9.237604307"} <= {stub.rpartition(":")[2] for stub in stubs}
    assert all(re.fullmatch(r"(uniform-height:|gaussian-px:)?(0\.04|9\.237604307)?", stub) for stub in stubs)


def test_csvs_have_plain_names_numbers_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noises = ["none", "uniform-px:4", "uniform-px:4+missing:0.2"]
    words = [*WORDS, "p2p", "--noise", *noises, "--to", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    found = pd.DataFrame(json.loads(capsys.readouterr().out)["sensitivity"])
    effect = pd.read_csv(tmp_path / "noise_effect.csv")
    assert list(effect["noise"]) == noises
    assert all(kind.kind in "fi" for name, kind in effect.dtypes.items() if name not in ("noise",))
    wide = pd.read_csv(tmp_path / "sensitivity_gradient_shift.csv", index_col="loss")
    for row in found[found["measure"] == "gradient_shift"].to_dict("records"):
        for key, end in (("value", ""), ("se", " se"), ("low", " low"), ("high", " high")):
            assert wide.loc[row["loss"], f"{row['noise']}{end}"] == pytest.approx(row[key], nan_ok=True)
    page = (tmp_path / "index.html").read_text()
    assert "p2p: reads proposals, no density" in page


def test_captions_say_on_what_it_was_measured_and_what_is_ours(tmp_path: Path) -> None:
    words = [*WORDS, "--noise", "uniform-px:4", "uniform-px:8", "--stride", "4", "--sigma", "6", "--noise-seed", "3"]
    assert main([*words, "--to", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text()
    captions = re.findall(r"<figcaption>(Label sensitivity.*?)</figcaption>", page, re.DOTALL)
    assert len(captions) == 6
    tables = re.findall(r'<ul class="under">(.*?)</ul>', page.partition('id="sensitivity"')[2], re.DOTALL)
    assert len(tables) == 4
    for said in (*captions, *tables):
        assert " crops of 128 px" in said
        assert "synthetic[" in said
        assert ", train, noise seed 3; stride 4 px, true density of sigma 6 px." in said
        assert "sigma, stride, number and side of the crops are ours" in said


def test_a_copied_table_has_the_errors_that_it_shows(tmp_path: Path) -> None:
    assert main([*WORDS, "--noise", "uniform-px:4", "missing:0.2", "--to", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text()
    copies = [html.unescape(t) for t in re.findall(r'<textarea name="csv"[^>]*>(.*?)</textarea>', page, re.DOTALL)]
    (copied,) = [pd.read_csv(io.StringIO(t), index_col="loss") for t in copies if "rest" in t.partition("\n")[0]]
    kept = pd.read_csv(tmp_path / "sensitivity_gradient_shift.csv", index_col="loss")
    assert {"uniform-px:4 se", "uniform-px:4 low", "missing:0.2 high", "rest se"} <= set(copied)
    for name in kept:
        assert copied[name].tolist() == pytest.approx(kept[name].tolist(), nan_ok=True), name
    assert kept["missing:0.2 se"].notna().all()


def test_the_seed_of_the_noise_reaches_labels_and_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(noise_preview, "_figures", lambda *_: [])  # the numbers alone
    found = []
    for seed in ("0", "0", "1"):
        words = [*WORDS, "--noise", "uniform-px:8", "--noise-seed", seed, "--to", str(tmp_path), "--json"]
        assert main(words) == 0
        found.append(json.loads(capsys.readouterr().out))
    first, again, other = found
    assert first == again
    assert first["noises"][0]["mean_px"] != other["noises"][0]["mean_px"]
    for one, two in zip(first["sensitivity"], other["sensitivity"], strict=True):
        assert one["measure"] == "rest" or one["value"] != two["value"], one


def test_crops_without_heads_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "noise", "synthetic[train=40,val=1,test=1,size=128,fewest=1,most=3]", "--losses", "l2"]
    assert main([*words, "--noise", "none", "--crop", "32", "--crops", "40", "--to", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    made = int(re.findall(r"(\d+) crops of 32 px", printed)[0])
    assert made < 40
    assert f"40 crops were asked for: {40 - made} had no head" in printed


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
        (["--crop", "0"], "expected at least 4 cells"),
        (["--crop", "7"], "crop is 7 px; expected at least 4 cells of 8 px"),
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
