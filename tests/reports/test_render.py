"""Every format says the same, and none lets a name through that it would act on."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reports import render
from reports.table import Cell, Column, Row, Table, wrap

NASTY = r"[x] ĸŧ <script>alert(1)</script> & 50% of $x_1^2$ {a}\b | *c* `d` ~ #e [f](g) " + '"q" ±≈†· 漢'


def table(label: str = "pml", title: str = "A title") -> Table:
    columns = (
        Column("MAE", "vgg19"),
        Column("RMSE ('MSE')", "vgg19"),
        Column("MAE", "vgg19", "published"),
        Column("why", kind="text"),
    )
    best = Cell("9.1 ± 0.2", 9.123, 0.2, 8.8, 9.4, 3, "best")
    second = Cell("12.0 ± 0.3", 12.01, 0.3, 11.5, 12.6, 3, "second")
    tie = Cell("13.0 ± 0.3", 13.01, 0.3, 12.5, 13.6, 3, "tie")
    rows = (
        Row(label, (best, Cell("14.0", 14.04, seeds=3), Cell("77.6", 77.6, notes=("a note",)), Cell("x"))),
        Row("bl", (second, Cell("15.0", 15.0), Cell("–"), Cell(label))),
        Row("l2", (tie, Cell("failed", notes=("a note", label)), Cell("–"), Cell())),
        Row("(constant count)", (Cell("50.0", 50.0), Cell(), Cell(), Cell()), reference=True),
    )
    return Table("t", title, "loss", columns, rows, ("Under it.",))


def test_marks_signs_and_legend() -> None:
    found = table()
    assert found.signs(found.rows[2].cells[0]) == "≈"
    assert found.signs(found.rows[2].cells[1]) == "a,b"
    legend = " ".join(found.legend())
    assert "† published" in legend
    assert "Bold: best" in legend
    assert "a: a note" in legend
    text = render.markdown(found)
    assert "**9.1 ± 0.2**" in text
    assert "<u>12.0 ± 0.3</u>" in text
    assert "| *77.6*<sup>a</sup> |" in text
    assert "vgg19 MAE† |" in text


def test_the_terminal_keeps_its_width_and_loses_nothing() -> None:
    for width in (40, 60, 80, 120):
        text = render.terminal_text(table(), width)
        assert max(map(len, text.splitlines())) <= width
        for piece in ("9.1 ± 0.2", "77.6 a", "13.0 ± 0.3 ≈", "(constant", "Under it."):
            assert piece in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_row_labels_are_broken_between_their_parts_only(width: int) -> None:
    """A level or a value stands whole on its line, and labels are not broken where there is room."""
    whole = ["uniform-height:", "0.04", "gaussian-px:", "9.237604307", "missing:", "0.2", "solver=", "stabilised]"]
    names = ("uniform-height:0.04", "gaussian-px:9.237604307 + missing:0.2", "dm_count[solver=stabilised]")
    for count in range(1, 10):
        columns = tuple(Column(f"c{i}", kind="derived") for i in range(count))
        cells = tuple(Cell("123.45") for _ in columns)
        found = Table("t", "t", "noise", columns, tuple(Row(name, cells) for name in names))
        lines = render.terminal_text(found, width).splitlines()
        assert max(map(len, lines)) <= width
        stubs = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
        assert "".join(stubs).replace(" ", "").count("uniform-height:0.04") == len(
            found.panels(width, stub_most=render._STUB, spanning=False)
        )
        for piece in whole:
            assert any(piece in stub for stub in stubs), (count, piece, stubs)
        if width - 2 - 9 * count >= max(map(len, names)):
            assert set(stubs) == set(names)


def test_a_piece_without_a_place_to_break_stays_whole() -> None:
    assert wrap("uniform-height:0.04", 18) == ["uniform-height:", "0.04"]
    assert wrap("uniform-height:0.04", 19) == ["uniform-height:0.04"]
    assert wrap("pml[count_norm=l2]", 16) == ["pml", "[count_norm=l2]"]
    assert wrap("pml[count_norm=l2]", 10) == ["pml[count_", "norm=l2]"]
    assert wrap("abcdefgh", 3) == ["abcdefgh"]
    assert wrap("aa,bb", 2.5, lambda text: len(text) / 2) == ["aa,bb"]


def test_csv_has_full_numbers_and_marks_published_columns() -> None:
    rows = list(csv.DictReader(io.StringIO(render.to_csv(table()))))
    assert rows[0]["vgg19 MAE"] == "9.123"
    assert rows[0]["vgg19 MAE low"] == "8.8"
    assert rows[0]["vgg19 MAE seeds"] == "3"
    assert rows[0]["vgg19 MAE mark"] == "best"
    assert rows[0]["vgg19 MAE† published"] == "77.6"
    assert "vgg19 MAE† published low" not in rows[0]


def test_csv_disarms_formulas() -> None:
    (row, *_) = csv.reader(io.StringIO(render.to_csv(table("=cmd|' /C calc'!A0")).split("\n", 1)[1]))
    assert row[0].startswith("'=")
    for harmless in ("-3.5", "+4.0 to +13.3", "-0.8 ± 3.4", "+12 %", "+1.2 (-0.3 to +2.7)"):
        text = render.to_csv(Table("t", "t", "s", (Column("d"),), (Row("a", (Cell(harmless),)),)))
        assert text.splitlines()[1] == f"a,{harmless},,,,,,"
    for formula in ("=1+1", '=(HYPERLINK("x"))', "+1-cmd|x", '="a"', "@SUM(1)", "=-1*cmd|'/C calc'!A0"):
        text = render.to_csv(Table("t", "t", formula, (Column("d", formula),), (Row(formula, (Cell(formula),)),)))
        cells = [item for line in csv.reader(io.StringIO(text)) for item in line]
        assert not [item for item in cells if item.startswith(("=", "+", "@"))]


def test_control_characters_reach_no_format() -> None:
    found = table("\x1b[2Jpml\x00\x7f", "\x1b]0;owned\x07")
    for name, form in render.FORMATS.items():
        assert not set(form(found)) & set("\x1b\x00\x07\x7f"), name


def test_several_tables_are_one_document() -> None:
    two = [table(), Table("u", "Another", "loss", (Column("NAE"),), (Row("gl", (Cell("0.1", 0.1),)),))]
    assert [found["title"] for found in json.loads(render.several(two, "json"))] == ["A title", "Another"]
    assert render.several(two, "latex").count("\\documentclass") == 1
    rows = list(csv.DictReader(io.StringIO(render.several(two, "csv"))))
    assert [row["loss"] for row in rows] == ["pml", "bl", "l2", "(constant count)", "gl"]
    assert rows[-1]["table"] == "Another"
    assert rows[-1]["NAE"] == "0.1"


def test_json_is_strict() -> None:
    found = Table("t", "t", "s", (Column("d"),), (Row("a", (Cell("–", float("nan")),)),))
    assert json.loads(render.to_json(found))["rows"][0]["cells"][0]["value"] is None


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_escapes_names() -> None:
    reader = _Text()
    reader.feed(render.html(table(NASTY, NASTY)))
    assert "script" not in reader.tags
    assert NASTY in reader.text
    assert 'data-value="9.123"' in render.html(table())


def test_markdown_escapes_names() -> None:
    text = render.markdown(table(NASTY))
    assert "<script" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line.replace("\\|", "").split("|")) for line in lines}) == 1


def test_latex_panels_are_cut_between_groups() -> None:
    columns = tuple(Column(name, group) for group in ("vgg19", "csrnet", "hrnet_w48") for name in ("MAE", "RMSE"))
    wide = Table("t", "t", "loss", columns, (Row("pml", tuple(Cell("123.4 ± 5.6", 123.4) for _ in columns)),))
    text = render.latex(wide, width=70)
    assert text.count(r"\begin{tabular}") == 2
    assert text.count(r"\multicolumn{2}{c}{csrnet}") == 1
    assert r"hrnet\_w48" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (Debian: texlive-latex-recommended)")
def test_latex_compiles_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "t.tex").write_text(render.latex(table(NASTY, NASTY)), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").stat().st_size > 5000
