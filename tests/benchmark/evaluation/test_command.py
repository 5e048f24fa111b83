"""`benchmark evaluate`: real files against the official numbers, formats, files that are written, and bad input."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmark.cli import main
from runners.metrics.matching import matched_count

HEADS = {"a": [[10, 10], [50, 50], [90, 20]], "b": [[5, 5]], "empty": []}
FOUND = {"a": [[12, 10], [50, 56], [70, 70]], "b": [], "empty": [[3, 3]]}
"""At 4 px: 1 of 4 heads, 3 false alarms; at 8 px: 2 of 4 and 2."""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Annotation and predictions without boxes and scores, as words for the command."""
    for name, value in (("gt.json", HEADS), ("pred.json", FOUND)):
        (tmp_path / name).write_text(json.dumps(value))
    return ("--gt", str(tmp_path / "gt.json"), "--pred", str(tmp_path / "pred.json"))


@pytest.fixture
def scored(tmp_path: Path) -> tuple[str, ...]:
    """Annotation with boxes and predictions with scores, in CSV."""
    rows = ["image,x,y,x1,y1,x2,y2"]
    rows += [f"{k},{x},{y},{x - 3},{y - 4},{x + 3},{y + 4}" for k, v in HEADS.items() for x, y in v] + [
        "empty" + "," * 6
    ]
    (tmp_path / "gt.csv").write_text("\n".join(rows))
    points = [("a", 12, 10, 0.9), ("a", 50, 54, 0.5), ("a", 70, 70, 0.7), ("empty", 3, 3, 0.1)]
    lines = ["image,x,y,score", *(",".join(map(str, point)) for point in points), "b,,,"]
    (tmp_path / "pred.csv").write_text("\n".join(lines))
    return ("--gt", str(tmp_path / "gt.csv"), "--pred", str(tmp_path / "pred.csv"))


def evaluate(*words: str | Path) -> int:
    return main(["evaluate", *map(str, words)])


def numbers(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    assert evaluate(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


# ---------------------------------------------------------------------------------------------------------------------
# Real files

OFFICIAL = {
    "Raz_loc_val_0.5": {"sigma_s": (97432, 63727, 98806), "sigma_l": (111668, 49491, 84570)},
    "fasterRCNN_val_0.8_0.3": {"sigma_s": (6915, 769, 189323), "sigma_l": (7407, 277, 188831)},
}
PERCENT = {
    "Raz_loc_val_0.5": {"sigma_s": (60.457, 49.650, 54.523), "sigma_l": (69.291, 56.904, 62.490)},
    "fasterRCNN_val_0.8_0.3": {"sigma_s": (89.992, 3.524, 6.782), "sigma_l": (96.395, 3.774, 7.265)},
}
COUNTS = {"Raz_loc_val_0.5": (128.71, 665.39), "fasterRCNN_val_0.8_0.3": (377.26, 1051.22)}


@pytest.fixture
def official(shared_dir: Path) -> Path:
    folder = shared_dir / "data" / "localisation"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}: real annotations and predictions with their official scores")
    return folder


@pytest.mark.shared
@pytest.mark.parametrize("method", OFFICIAL)
def test_nwpu_val_has_the_official_numbers(official: Path, capsys: pytest.CaptureFixture[str], method: str) -> None:
    folder = official / "nwpu_val"
    found = numbers(capsys, "--gt", folder / "val_gt_loc.txt", "--pred", folder / f"{method}.txt")
    assert (found["images"], found["true"]) == (500, 196_238)
    for name, expected in OFFICIAL[method].items():
        one = found["radii"][name]
        assert (one["tp"], one["fp"], one["fn"]) == expected
        shares = tuple(round(100 * one[what], 3) for what in ("precision", "recall", "f1"))
        assert shares == PERCENT[method][name]
    assert (round(found["counts"]["mae"], 2), round(found["counts"]["rmse"], 2)) == COUNTS[method]
    boxes = [row for row in found["levels"] if row["radius"] == "sigma_l" and row["level"].startswith("A")]
    assert sum(row["tp"] for row in boxes) == found["radii"]["sigma_l"]["tp"]


@pytest.mark.shared
@pytest.mark.parametrize("ids", ["own", "lexicographic"])
def test_shanghaitech_b_has_the_official_numbers(official: Path, capsys: pytest.CaptureFixture[str], ids: str) -> None:
    folder = official / "shb_fidtm"
    files = ("--gt", folder / "B_gt.txt", "--pred", folder / "B_pred_fidt.txt", "--thresholds", "4", "8")
    images = official.parent / "shanghaitech" / "part_B_final" / "test_data" / "images"
    if ids == "lexicographic" and not images.is_dir():
        pytest.skip(f"needs {images}, whose names order the predictions")
    found = numbers(capsys, *files, *(("--ids", ids, "--names", images) if ids == "lexicographic" else ()))
    four, eight = found["radii"]["4px"], found["radii"]["8px"]
    assert [round(100 * four[what], 3) for what in ("precision", "recall", "f1")] == [64.942, 64.362, 64.650]
    assert [round(100 * eight[what], 3) for what in ("precision", "recall", "f1")] == [83.916, 83.167, 83.540]
    assert (eight["tp"], eight["fp"], eight["fn"]) == (32608, 6250, 6600)
    assert (round(found["counts"]["mae"], 2), round(found["counts"]["rmse"], 2)) == (7.03, 11.91)


# ---------------------------------------------------------------------------------------------------------------------
# What is printed


def test_numbers_for_machines(files: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers(capsys, *files, "--thresholds", "4", "8", "1:8")
    assert {k: found["radii"]["4px"][k] for k in ("tp", "fp", "fn", "f1")} == {"tp": 1, "fp": 3, "fn": 3, "f1": 0.25}
    assert found["radii"]["8px"]["error"] == 4.0
    assert found["counts"] == pytest.approx({"mae": 2 / 3, "rmse": np.sqrt(2 / 3), "nae": 0.5, "bias": 0.0})
    expected = [
        2 * sum(matched_count(HEADS[k], FOUND[k], float(r)) for k in HEADS if HEADS[k] and FOUND[k]) / 8
        for r in range(1, 9)
    ]
    assert found["sweeps"]["1:8"]["f1"] == pytest.approx(np.mean(expected))
    assert [row["level"] for row in found["levels"] if row["radius"] == "8px"] == ["S0", "S1"]


def test_the_table_fits_eighty_columns(
    scored: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert evaluate(*scored) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "sigma_s" in printed
    assert re.search(r"sigma_l │ 50\.00 │ 50\.00 │ 50\.00 │ +2 │ +2 │ +2 │ +3\.00 │", printed)
    assert "chosen on these very images" in " ".join(printed.split())


def test_boxes_choose_the_radii_and_scores_give_average_precision(
    scored: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    found = numbers(capsys, *scored)["radii"]
    assert list(found) == ["sigma_s", "sigma_l"]
    assert found["sigma_s"]["tp"] == 1  # half the shorter side: 3 px
    assert found["sigma_l"]["tp"] == 2  # half the diagonal: 5 px
    # In order of scores right, wrong, right, wrong; of four heads.
    assert found["sigma_l"]["average_precision"] == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    assert found["sigma_l"]["best_on_these_images"] == {"threshold": 0.5, "f1": pytest.approx(4 / 7)}


def test_without_boxes_and_scores_pixels_are_taken(files: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    found = numbers(capsys, *files)["radii"]
    assert list(found) == ["4px", "8px"]
    assert "average_precision" not in found["4px"]


BOXES = {
    "some heads have none": [[7, 6, 13, 14], [None] * 4, [87, 16, 93, 24]],
    "no head has one": [[None] * 4] * 3,
    "one side is open": [[7, 6, 13, 14], [47, 46, 53, 54], [87, 16, None, 24]],
}


@pytest.mark.parametrize("name", BOXES)
def test_boxes_of_some_heads_choose_pixels(
    files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Half the heads have a size: sigma_s would need all."""
    annotated = {"points": HEADS["a"], "boxes": BOXES[name]}
    (tmp_path / "some.json").write_text(json.dumps(HEADS | {"a": annotated}))
    assert list(numbers(capsys, "--gt", tmp_path / "some.json", *files[2:])["radii"]) == ["4px", "8px"]
    whole = {k: {"points": v, "boxes": [[x - 3, y - 4, x + 3, y + 4] for x, y in v]} for k, v in HEADS.items()}
    whole["a"]["boxes"] = BOXES[name]
    (tmp_path / "most.json").write_text(json.dumps(whole))
    assert list(numbers(capsys, "--gt", tmp_path / "most.json", *files[2:])["radii"]) == ["4px", "8px"]


def test_nobody_annotated_chooses_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gt.txt").write_text("1 0\n2 0\n")
    (tmp_path / "pred.txt").write_text("1 1 5 5\n2 0\n")
    found = numbers(capsys, "--gt", tmp_path / "gt.txt", "--pred", tmp_path / "pred.txt")["radii"]
    assert list(found) == ["4px", "8px"]
    assert found["4px"]["fp"] == 1


def test_a_perfect_method_has_nothing_below_one(files: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    words = (*files[:2], "--pred", files[1], "--thresholds", "1:9")
    assert numbers(capsys, *words)["sweeps"] == {"1:9": {"precision": 1.0, "recall": 1.0, "f1": 1.0}}
    assert evaluate(*words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"mean 1:9 │ 100\.00 │ 100\.00 │ 100\.00", printed)
    assert "over precision" not in printed
    assert "precision over recall" not in printed


@pytest.mark.parametrize("form", ["markdown", "csv", "latex", "latex-table", "html", "json", "terminal"])
def test_formats(files: tuple[str, ...], capsys: pytest.CaptureFixture[str], form: str) -> None:
    assert evaluate(*files, "--format", form) == 0
    printed = capsys.readouterr().out
    assert "pred.json against gt.json" in printed.replace("\\", "")
    assert "25" in printed
    if form == "json":
        assert json.loads(printed)[0]["rows"][0]["cells"][0]["value"] == 25.0


# ---------------------------------------------------------------------------------------------------------------------
# What is written


@pytest.mark.parametrize(("ending", "start"), [("md", "**pred"), ("csv", "table"), ("tex", "\\documentclass")])
def test_the_ending_says_the_format(files: tuple[str, ...], tmp_path: Path, ending: str, start: str) -> None:
    out = tmp_path / f"table.{ending}"
    assert evaluate(*files, "--out", out) == 0
    assert out.read_text().lstrip("%\n ").startswith(start) or start in out.read_text()


def test_a_folder_gets_everything(scored: tuple[str, ...], tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "scored"
    images.mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((80, 100, 3), 90, np.uint8)).save(images / f"{name}.png")
    assert evaluate(*scored, "--out", out, "--images", images) == 0
    names = {path.name for path in out.iterdir()}
    assert {
        "localisation.csv",
        "localisation.md",
        "localisation.tex",
        "counts.csv",
        "people.csv",
        "images.csv",
    } <= names
    for figure in ("precision_recall", "by_radius", "by_density", "hits"):
        assert {f"{figure}.png", f"{figure}.pdf", f"{figure}.csv", f"{figure}.txt"} <= names
    with (out / "images.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows["a"] == {"id": "a", "true": "3", "predicted": "3", "tp_sigma_s": "1", "tp_sigma_l": "2"}
    with (out / "hits.csv").open() as file:
        drawn = [(row["title"], row["id"], row["found"], row["missed"], row["false"]) for row in csv.DictReader(file)]
    assert drawn == [("worst", "b", "0", "1", "0"), ("best", "a", "2", "1", "1")]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Image files for two of the annotated images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((80, 100, 3), 90, np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize(("words", "radius"), [("1:50", "8px"), ("1:5", "5px"), ("20:30", "30px")])
def test_pictures_of_a_range_are_drawn_at_one_radius(
    files: tuple[str, ...], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, radius: str
) -> None:
    out = tmp_path / "scored"
    assert evaluate(*files, "--thresholds", words, "--out", out, "--images", images) == 0
    assert f"heads in the pictures are found within {radius}" in " ".join(capsys.readouterr().out.split())
    with (out / "hits.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows["a"]["radius"] == radius
    assert int(rows["a"]["found"]) == matched_count(HEADS["a"], FOUND["a"], float(radius.removesuffix("px")))
    assert f"within {radius}" in (out / "hits.txt").read_text()
    with (out / "images.csv").open() as file:
        assert next(csv.reader(file)) == ["id", "true", "predicted"]  # no column of a radius that was not asked for


def test_a_folder_holds_one_evaluation(scored: tuple[str, ...], images: Path, tmp_path: Path) -> None:
    """What an earlier evaluation left is taken away, and nothing else, whatever its list says."""
    out, fresh = tmp_path / "scored", tmp_path / "fresh"
    out.mkdir()
    (out / "by_radius.svg").write_text("mine")
    assert evaluate(*scored, "--out", out, "--images", images) == 0
    assert (out / "hits.png").is_file()
    (out / "notes.txt").write_text("mine")
    with (out / "evaluation_files.txt").open("a") as file:
        file.write("notes.txt\n../gt.csv\n" + str(tmp_path / "pred.csv") + "\n\n.\n")
    words = (*scored, "--thresholds", "4", "--out")
    assert evaluate(*words, out) == 0
    assert evaluate(*words, fresh) == 0
    left = {path.name: path.read_bytes() for path in fresh.iterdir()}
    assert "hits.png" not in left
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    assert found == left | {"by_radius.svg": b"mine", "notes.txt": b"mine"}
    assert (tmp_path / "gt.csv").is_file()
    assert (tmp_path / "pred.csv").is_file()


def test_a_file_that_no_evaluation_wrote_stays(files: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "scored"
    (out / "people.md").mkdir(parents=True)
    (out / "hits.png").write_text("mine")
    assert evaluate(*files, "--thresholds", "1:4", "--out", out) == 0
    assert (out / "hits.png").read_text() == "mine"


def test_no_name_is_a_formula(tmp_path: Path) -> None:
    name = "=HYPERLINK(1)"
    for file in ("gt.json", "pred.json"):
        (tmp_path / file).write_text(json.dumps({name: [[1, 1]], "-1": [], "'b": []}))
    words = ("--gt", tmp_path / "gt.json", "--pred", tmp_path / "pred.json")
    assert evaluate(*words, "--out", tmp_path / "new") == 0
    with (tmp_path / "new" / "images.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == [f"'{name}", "'-1", "'b"]


def test_ids_by_the_order_of_names(files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = sorted(HEADS)  # a, b, empty
    (tmp_path / "numbers.txt").write_text(
        "".join(
            f"{k + 1} {len(FOUND[n])} {' '.join(str(v) for p in FOUND[n] for v in p)}\n" for k, n in enumerate(order)
        )
    )
    numbered = (*files[:2], "--pred", tmp_path / "numbers.txt")
    assert evaluate(*numbered) == 2
    assert "--ids lexicographic" in capsys.readouterr().err
    assert numbers(capsys, *numbered, "--ids", "lexicographic") == numbers(capsys, *files)


def test_missing_images_are_refused_or_allowed(
    files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "some.csv").write_text("image,x,y\na,12,10\na,50,56\na,70,70\nempty,3,3\n")
    some = (*files[:2], "--pred", tmp_path / "some.csv")
    assert evaluate(*some) == 2
    error = capsys.readouterr().err
    assert "1 of 3 annotated images have no prediction: b" in error
    assert "Traceback" not in error
    assert numbers(capsys, *some, "--missing", "empty")["radii"] == numbers(capsys, *files)["radii"]
    assert numbers(capsys, *some, "--missing", "skip")["images"] == 2


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be done

REFUSED = {
    ("--thresholds", "sigma_l"): "image a: the radius sigma_l needs the heads' boxes",
    ("--thresholds", "sigmal"): "Did you mean sigma_l",
    ("--thresholds", *map(str, range(1, 10))): "9 single radii, at most 8; give a range, 1:100",
    ("--pred", "absent.txt"): "absent.txt: no such file",
    ("--images", "."): "--out FOLDER",
    ("--out", "table.docx"): "expected a folder, or a file that ends in .md",
    ("--json", "--format", "csv"): "--json prints all numbers",
    ("--ids", "lexicographic"): "ids by lexicographic order are the numbers 1 to n; found a, b, empty",
    ("--names", "."): "say --ids lexicographic",
    ("--out", "new", "--images", "nowhere"): "--images nowhere is no folder",
}


@pytest.mark.parametrize("words", REFUSED, ids=lambda words: " ".join(words)[:40])
def test_what_cannot_be_done_is_one_sentence(
    files: tuple[str, ...],
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert evaluate(*files, *words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("benchmark: ")
    assert REFUSED[words] in printed.err
    assert printed.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_images_of_other_names_are_refused(files: tuple[str, ...], tmp_path: Path, capsys) -> None:
    (tmp_path / "images").mkdir()
    assert evaluate(*files, "--out", tmp_path / "new", "--images", tmp_path / "images") == 2
    assert "holds none of the images with people; looked for a, b" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("found", ["1 0\n2 0\n", "1 1 5 5 0.5\n2 0\n"])
def test_nobody_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str], found: str) -> None:
    (tmp_path / "gt.txt").write_text("1 0\n2 0\n")
    (tmp_path / "pred.txt").write_text(found)
    assert evaluate("--gt", tmp_path / "gt.txt", "--pred", tmp_path / "pred.txt", "--out", tmp_path / "new") == 0
    assert "n/a" in capsys.readouterr().out


def test_nobody_was_found(files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.json").write_text('{"a": {"points": [], "scores": []}, "b": [], "empty": []}')
    assert evaluate(*files[:2], "--pred", tmp_path / "none.json", "--out", tmp_path / "new") == 0
    assert "n/a" in capsys.readouterr().out


def test_names_of_strangers_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[31m[bold]x"
    (tmp_path / "gt.json").write_text(json.dumps({name: [[1, 1]]}))
    (tmp_path / "pred.json").write_text(json.dumps({name + "y": [[1, 1]]}))
    assert evaluate("--gt", tmp_path / "gt.json", "--pred", tmp_path / "pred.json") == 2
    assert "\x1b" not in capsys.readouterr().err


def test_images_of_one_file_only_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "g.json").write_text(json.dumps({"a": [[1, 1]], "b": [[2, 2]], "c": [[3, 3]]}))
    (tmp_path / "p.json").write_text(json.dumps({"a": [[1, 1]]}))
    common = ["evaluate", "--gt", str(tmp_path / "g.json"), "--pred", str(tmp_path / "p.json")]
    assert main([*common, "--missing", "skip"]) == 0
    found = capsys.readouterr()
    assert "left out: 2 annotated and 0 predicted" in found.err
    assert "1 image, 1 annotated heads" in " ".join(found.out.split())
    assert main([*common, "--missing", "empty"]) == 0
    assert "2 of 3 annotated images have no prediction" in capsys.readouterr().err


def test_an_input_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "g.json").write_text(json.dumps({"a": [[1, 1]]}))
    text = json.dumps({"a": [[1.5, 1]]})
    (tmp_path / "p.json").write_text(text)
    place = str(tmp_path / "p.json")
    assert main(["evaluate", "--gt", str(tmp_path / "g.json"), "--pred", place, "--out", place]) == 2
    assert "would be lost" in capsys.readouterr().err
    assert (tmp_path / "p.json").read_text() == text
