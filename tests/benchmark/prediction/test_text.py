"""Formats of predictions, and what reads them again."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.prediction.text import Counted, Origin, Spool, rendered, write_points
from runners.data.reading import DataError
from runners.metrics.point_files import _unguarded, guarded, read_predictions
from tests.reports.fake_store import fake_spec

COUNTED = [
    Counted("0002", "a,b/0002.jpg", 12.00006, None),
    Counted("0010", "0010.png", 1234.5, [[1.5, 2.0], [7.49, 9.6]], [0.75, 0.5]),
    Counted("[red]x", "x.png", 0.0, []),
]


ORIGIN = Origin("3f2a" * 4, "val", fake_spec(), failed={"bad.png": "no image"})
FRAMES = [Counted(f"clip_00000{k}", "a/clip.mp4", float(k), None, frame=k, seconds=k / 4) for k in range(4)]


def text(form: str) -> str:
    return rendered(form, COUNTED, ORIGIN)


def test_nwpu_lines() -> None:
    assert text("nwpu") == "0002 12.0001\n0010 1234.5000\n[red]x 0.0000\n"


def test_csv_lines() -> None:
    assert text("csv") == 'id,count,path\n0002,12.00006,"a,b/0002.jpg"\n0010,1234.5,0010.png\n[red]x,0.0,x.png\n'


def test_json_object() -> None:
    assert json.loads(text("json")) == {
        "run_id": "3f2a3f2a3f2a3f2a",
        "selection": "val",
        "loss": "pml",
        "backbone": "vgg19",
        "dataset": "ucf_qnrf",
        "images": [
            {"id": "0002", "path": "a,b/0002.jpg", "count": 12.00006},
            {"id": "0010", "path": "0010.png", "count": 1234.5, "points": [[1.5, 2.0], [7.49, 9.6]],
             "scores": [0.75, 0.5]},
            {"id": "[red]x", "path": "x.png", "count": 0.0, "points": []},
        ],
        "failed": {"bad.png": "no image"},
    }  # fmt: skip
    assert json.loads(rendered("json", [], replace(ORIGIN, localizer="otm", failed={}))) == {
        **{key: value for key, value in json.loads(text("json")).items() if key not in ("images", "failed")},
        "localizer": "otm",
        "images": [],
        "failed": {},
    }


def test_lines_of_points() -> None:
    assert text("nwpu-points") == "0002 0\n0010 2 2 2 7 10\n[red]x 0\n"
    stream = io.StringIO()
    write_points("csv", stream, COUNTED, ORIGIN)
    assert stream.getvalue() == "image,x,y,score\n0002,,,\n0010,1.5,2.0,0.75\n0010,7.49,9.6,0.5\n[red]x,,,\n"


def test_frames_have_their_number_and_time() -> None:
    timed = replace(ORIGIN, timed=True)
    lines = rendered("csv", [COUNTED[2], FRAMES[1]], timed).splitlines()
    assert lines == ["id,count,path,frame,seconds", "[red]x,0.0,x.png,,", "clip_000001,1.0,a/clip.mp4,1,0.250"]
    assert json.loads(rendered("json", FRAMES[1:2], timed))["images"] == [
        {"id": "clip_000001", "path": "a/clip.mp4", "count": 1.0, "frame": 1, "seconds": 0.25}
    ]
    table = rendered("table", [*FRAMES, COUNTED[0]], timed)
    assert "clip.mp4: mean of 4 frames; most 3.0, at 0.8 s" in table
    assert table.splitlines()[-1] == "1 image, 12.0 people; 1 video, 4 frames"


def test_a_spool_gives_back_what_it_was_given() -> None:
    spool = Spool()
    for image in [*COUNTED, *FRAMES]:
        spool.add(image)
    assert len(spool) == 7
    assert list(spool) == list(spool) == [*COUNTED, *FRAMES]


def test_table_of_eighty_columns() -> None:
    lines = text("table").splitlines()
    assert lines[0] == "pml · vgg19 · ucf_qnrf · run 3f2a3f2a · weights val"
    assert lines[-1] == "3 images, 1246.5 people"
    assert [line.strip("│").replace("│", " ").split() for line in lines[4:7]] == [
        ["0002", "12.0"],
        ["0010", "1234.5"],
        ["[red]x", "0.0"],
    ]
    long = [Counted("n" * 200, "p", 1.0, None)]
    assert max(map(len, rendered("table", long, ORIGIN).splitlines())) <= 80


@pytest.mark.parametrize("ending", ["csv", "json", "txt"])
def test_points_are_read_by_the_evaluation(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(0)
    images = []
    for number in (3, 0, 40):
        points, scores = rng.uniform(0, 900, (number, 2)), rng.uniform(0, 1, number).tolist()
        images.append(Counted(f"{number:04d}", f"a/{number}.png", 7.0, points.tolist(), scores))
    path = tmp_path / f"points.{ending}"
    with path.open("w", newline="") as stream:
        write_points({"txt": "nwpu-points"}.get(ending, ending), stream, images, ORIGIN)
    found = read_predictions(path)
    assert list(found) == ["0003", "0000", "0040"]
    for image in images:
        points = np.array(image.points).reshape(-1, 2)
        np.testing.assert_array_equal(found[image.id].points, points.round() if ending == "txt" else points)
        if ending != "txt":
            np.testing.assert_array_equal(found[image.id].scores, image.scores)


RISKY = ["=1+1", "+a", "-a.jpg", "@x", "'=1+1", "''-b", "'quoted", "plain=", "\t=z"]


def test_no_cell_is_a_formula_and_ids_are_read_as_they_were(tmp_path: Path) -> None:
    images = [Counted(n, f"{n}/x.png", 2.0, *(([[1.0, 2.0]], [0.5]) if k % 2 else ([],))) for k, n in enumerate(RISKY)]
    path = tmp_path / "points.csv"
    with path.open("w", newline="") as stream:
        write_points("csv", stream, images, ORIGIN)
    for text in (rendered("csv", images, ORIGIN), path.read_text()):
        cells = [cell for line in csv.reader(io.StringIO(text, newline="")) for cell in line]
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
        assert {"'=1+1", "''=1+1", "'quoted", "plain="} <= set(cells)
    assert list(read_predictions(path)) == RISKY


@given(st.text("=+-@'a \t", min_size=1, max_size=6))
def test_guarding_is_undone(name: str) -> None:
    assert _unguarded(guarded(name)) == name
    assert not guarded(name).startswith(("=", "+", "-", "@", "\t"))


def test_points_without_scores_are_read_without(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    with path.open("w", newline="") as stream:
        write_points("csv", stream, [Counted("a", "a.png", 2.0, [[1.0, 2.0], [3.0, 4.0]]), COUNTED[2]], ORIGIN)
    found = read_predictions(path)
    assert found["a"].points.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert [one.scores for one in found.values()] == [None, None]
    path.write_text("image,x,y,score\na,1,2,\na,3,4,0.5\n")
    with pytest.raises(DataError, match="'a' from line 2: score of point 1 is nan; expected a finite number"):
        read_predictions(path)


def test_the_table_steers_no_terminal() -> None:
    """Names of files and of a stranger's run may hold anything."""
    origin = replace(ORIGIN, spec=fake_spec(dataset="a\x1b[31m"))
    shown = rendered("table", [Counted("b\x1b]0;c\x07", "b.png", 1.0, None)], origin)
    assert "a [31m" in shown
    assert all(line.isprintable() for line in shown.split("\n"))
