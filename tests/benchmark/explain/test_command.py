"""`benchmark explain` on the command line, and its part of the report's page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from benchmark.cli import main
from benchmark.explain.part import explain_part
from benchmark.names import Choice
from losses.proximal_table import MISPRINTS, TABLE
from tests.reports.fake_store import fake_store


def explain(*words: object) -> int:
    return main(["explain", *map(str, words)])


def test_the_page_the_figures_and_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("pml", "pml[count_norm=l2]", "p2p", "--stride", 8, "--to", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines()[:-2])) <= 80
    assert "What each loss asks for: under" in printed
    assert "the prediction itself" in printed
    names = {path.name for path in (tmp_path / "out/figures").iterdir()}
    assert names == {f"{name}.{kind}" for name in ("fields", "count_norms") for kind in ("png", "pdf", "svg", "csv")}
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert page.count('<svg id="') == 2
    assert "delta(argmin c - 2 tau a)" in page
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)  # one file, no network


def test_the_descent_is_drawn_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("l2", "--animate", "--format", "frames", "--steps", 6, "--frames", 3, "--stride", 8)
    assert explain(*words, "--scene", "overlap", "--prediction", "blurred", "--to", tmp_path, "--json") == 0
    numbers = json.loads(capsys.readouterr().out)
    (descent,) = numbers["descents"]
    assert descent["loss"] == "l2"
    assert sum(descent["own"]) == pytest.approx(descent["count"])
    assert len(list((tmp_path / "descent").iterdir())) == 3
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    widths = re.findall(r'<svg id="(?:fields|strip|descent)"[^>]*viewBox="0 0 ([\d.]+) ', page)
    assert len(widths) == page.count('<figure class="wide"') == page.count("<figure") == 3
    assert len(set(widths)) == 1  # one scale on the page
    assert {"descent.png", "strip.png"} <= {path.name for path in (tmp_path / "figures").iterdir()}
    (field,) = numbers["fields"]
    assert field["count"] == pytest.approx(2)
    assert sum(field["target_counts"]) == pytest.approx(field["target_count"])
    assert all(Path(file).exists() for file in numbers["files"])


def test_a_short_descent_has_as_many_frames_as_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("l2", "--animate", "--format", "frames", "--steps", 2, "--stride", 16, "--prediction", "right")
    assert explain(*words, "--to", tmp_path) == 0
    assert len(list((tmp_path / "descent").iterdir())) == 3
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "128 x 128 px, as if it were a crop of an image with a shorter side of 512 px" in page
    assert capsys.readouterr().out


def test_a_real_image_with_a_name_that_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, points = tmp_path / "<b>street.png", tmp_path / "heads.csv"
    Image.new("RGB", (160, 96), "gray").save(image)
    points.write_text("x,y\n30,40\n120,50\n", encoding="utf-8")
    words = ("bl", "--prediction", "right", "--crop", 0, 0, 128, 96, "--stride", 8)
    assert explain(*words, "--image", image, "--points", points, "--to", tmp_path / "out") == 0
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;street.png" in page
    assert "<b>street" not in page
    assert "part of 160 x 96 pixels, its corner at (0, 0)" in page


def test_the_table_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("--table", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [len(table["rows"]) for table in printed] == [len(TABLE), len(MISPRINTS)]
    assert explain("--table") == 0
    assert "Misprints and gaps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pmll"], "Did you mean pml"),
        (["pml[tua=2]"], "Did you mean tau"),
        (["--scene", "rng"], "Did you mean ring"),
        (["--prediction", "undr"], "Did you mean under"),
        (["--animate", "--format", "gff"], "Did you mean gif"),
        (["--animate", "--frames", "6", "--steps", "3"], "at most --frames 4"),
        (["--format", "gif"], "add --animate"),
        (["--points", "heads.csv"], "name it with --image"),
        (["--image", "a.jpg"], "needs its heads"),
        (["--image", "a.jpg", "--points", "b.csv", "--scene", "row"], "give one of them"),
        (["--image", "nowhere.jpg", "--points", "b.csv"], "nowhere.jpg: no such image"),
        (["--stride", "99"], "1 to 32"),
    ],
)
def test_mendable_errors_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(*words, "--to", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert explain("l2", "--to", tmp_path / "file") == 2
    assert "is a file; name a folder" in capsys.readouterr().err


def test_what_a_store_holds_of_another_version_is_a_warning() -> None:
    part = explain_part([Choice("l2", {}), Choice("nosuchloss", {}), Choice("bl", {"sgima": 1})])
    assert len(part.warnings) == 2
    assert "unknown loss 'nosuchloss'" in part.warnings[0]
    assert [plot.name for plot in part.plots] == ["fields"]
    assert set(part.plots[0].data["loss"]) == {"l2"}
    assert explain_part([]).plots == ()


def test_the_report_has_it_unless_told_otherwise(tmp_path: Path) -> None:
    root = fake_store(tmp_path / "runs", ("l2",), [0]).root
    assert main(["report", "-o", str(root), "--to", str(tmp_path / "with"), "--no-images"]) == 0
    assert 'id="explained"' in (tmp_path / "with/index.html").read_text(encoding="utf-8")
    assert (tmp_path / "with/figures/fields.png").is_file()
    assert main(["report", "-o", str(root), "--to", str(tmp_path / "without"), "--no-images", "--no-explain"]) == 0
    assert 'id="explained"' not in (tmp_path / "without/index.html").read_text(encoding="utf-8")
