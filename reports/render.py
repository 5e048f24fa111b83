"""Tables as text: terminal, Markdown, CSV, LaTeX, JSON and HTML. Whatever a name holds is escaped in each."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from reports.table import Cell, Column, Table, wrap

__all__ = ["FORMATS", "environment", "html", "latex", "markdown", "several", "terminal", "to_csv", "to_json"]

_NUMBERS = re.compile(r"[-+\d.,% ±()]*(?: ?to [-+\d.,% ()]*)?")
"""What a formatted number or interval is made of."""
_STUB = 24
"""Characters that row labels may be folded to on a terminal (ours)."""
_STYLES = {"best": "bold", "second": "underline", "tie": "", "": ""}


def environment() -> Environment:
    """The templates of this room; everything that is put into them is escaped."""
    return Environment(loader=PackageLoader("reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


# ---------------------------------------------------------------------------------------------------------------------
# Terminal


def terminal(table: Table, width: int = 80) -> RenderableType:
    """The table for a terminal of `width` columns, in panels where it is wider, with what stands under it."""
    parts: list[RenderableType] = [Text(table.title, style="bold")]
    for panel in table.panels(width, stub_most=_STUB, spanning=False):
        out = RichTable(header_style="bold", pad_edge=False, title_justify="left")
        out.add_column(escape(panel.stub), overflow="fold")
        grouped = any(column.group for column in panel.columns)
        for column in panel.columns:
            title = column.title if column.kind == "text" else column.title.replace(" ", "\n")
            heading = f"{column.group}\n{title}" if grouped else title
            style = "italic dim" if column.kind == "published" else None
            text = column.kind == "text"  # numbers stay whole: it is row labels and text that fold
            out.add_column(escape(heading), justify="left" if text else "right", style=style, no_wrap=not text)
        room = max(panel.room(width), _STUB)
        for row in panel.rows:
            if row.reference and not any(cell.text for cell in row.cells):
                continue  # counts of a group of columns that stands in another panel
            cells = [_styled(table, cell) for cell in row.cells]
            label = "\n".join(line.strip() for line in wrap(row.label, room))
            out.add_row(Text(label), *cells, style="dim" if row.reference else None)
        parts.append(out)
    parts += [Padding(Text(line), (0, 0, 0, 1)) for line in table.findings]
    parts += [Padding(Text(line, style="dim"), (0, 0, 0, 1)) for line in (*table.caption, *table.legend())]
    return Group(*parts)


def terminal_text(table: Table, width: int = 80) -> str:
    """What `terminal` shows, as plain text."""
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, color_system=None).print(terminal(table, width))
    return stream.getvalue()


def _styled(table: Table, cell: Cell) -> Text:
    return Text(cell.text, style=_STYLES[cell.mark]) + Text(_spaced(table.signs(cell)), style="dim")


def _spaced(signs: str) -> str:
    return f" {signs}" if signs else ""


# ---------------------------------------------------------------------------------------------------------------------
# Markdown, CSV, JSON, HTML


def markdown(table: Table) -> str:
    """A GitHub-flavoured table; published columns in italics."""
    headings = [_joined(column) for column in table.columns]
    found = [*(f"- {_md(line)}" for line in table.findings), ""] if table.findings else []
    lines = [f"**{_md(table.title)}**", "", *found, f"| {_md(table.stub)} | " + " | ".join(map(_md, headings)) + " |"]
    lines.append("|---|" + "|".join("---" if column.kind == "text" else "--:" for column in table.columns) + "|")
    for row in table.rows:
        cells = [_md_cell(table, column, cell) for column, cell in zip(table.columns, row.cells, strict=True)]
        label = f"*{_md(row.label)}*" if row.reference else _md(row.label)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{_md(line)}  " for line in (*table.caption, *table.legend()))]).rstrip() + "\n"


def _md_cell(table: Table, column: Column, cell: Cell) -> str:
    text = _md(cell.text)
    if text and column.kind == "published":
        text = f"*{text}*"
    text = {"best": f"**{text}**", "second": f"<u>{text}</u>"}.get(cell.mark, text)
    signs = table.signs(cell)
    return f"{text}<sup>{_md(signs)}</sup>" if signs else text


def _md(text: str) -> str:
    """Text that neither ends a cell nor starts markup or a tag."""
    for character in "\\`*_{}[]|~$":
        text = text.replace(character, "\\" + character)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(text.split())


def to_csv(table: Table) -> str:
    """One line a row; a measured column with its standard deviation, interval, seeds and mark beside it.

    Any other column whose cells have an interval or a standard error (differences, sensitivities) is written with them.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    heading: list[str] = [table.stub]
    extras = [_extras(table, place) for place in range(len(table.columns))]
    for column, beside in zip(table.columns, extras, strict=True):
        name = _joined(column) + (" published" if column.kind == "published" else "")
        heading += [name, *(f"{name} {extra}" for extra in beside), f"{name} notes"]
    writer.writerow([_guarded(item) for item in heading])
    for row in table.rows:
        line: list[Any] = [row.label]
        for beside, cell in zip(extras, row.cells, strict=True):
            line.append(cell.text if cell.value is None else cell.value)
            line += [getattr(cell, extra) for extra in beside]
            line.append(" ".join(cell.notes))
        writer.writerow([_guarded(item) for item in line])
    return stream.getvalue()


def _extras(table: Table, place: int) -> tuple[str, ...]:
    """The fields of a column's cells that a CSV has beside their values."""
    if table.columns[place].kind == "measured":
        return ("sd", "low", "high", "seeds", "mark")
    cells = [row.cells[place] for row in table.rows]
    span = ("low", "high") if any(cell.low is not None or cell.high is not None for cell in cells) else ()
    return (*(("se",) if any(cell.se is not None for cell in cells) else ()), *span)


def _guarded(item: Any) -> Any:
    """Text that a spreadsheet would take for a formula is quoted: names come from strangers."""
    risky = isinstance(item, str) and item[:1] in tuple("=+-@\t\r") and not _NUMBERS.fullmatch(item)
    return f"'{item}" if risky else item


def to_json(table: Table) -> str:
    """The whole table, numbers unrounded; `findings` where it has some."""
    value = {
        "name": table.name,
        "title": table.title,
        "columns": [column._asdict() for column in table.columns],
        "rows": [row._asdict() | {"cells": [cell._asdict() for cell in row.cells]} for row in table.rows],
        "caption": list(table.caption),
        "legend": table.legend(),
    } | ({"findings": list(table.findings)} if table.findings else {})
    return json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """NaN and infinity become null, which JSON has."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value


def html(table: Table) -> str:
    """The table as an HTML fragment: sortable by the page's script, readable without it."""
    return environment().get_template("table.html.j2").render(table=table, headings=_headings(table))


def _headings(table: Table) -> list[tuple[str, int]]:
    """The groups over the columns with their spans."""
    return [(group, len(list(columns))) for group, columns in groupby(table.columns, key=lambda column: column.group)]


def _joined(column: Column) -> str:
    return f"{column.group} {column.title}".strip()


# ---------------------------------------------------------------------------------------------------------------------
# LaTeX

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "≈": r"$\approx$", "†": r"\textsuperscript{\textdagger}", "·": r"$\cdot$", "×": r"$\times$",
    "−": "$-$", "–": "--", "…": r"\ldots{}", "≥": r"$\ge$", "≤": r"$\le$", "²": r"\textsuperscript{2}",
    "|": r"\textbar{}", '"': "''",
}  # fmt: skip
_PAGE_ROWS = 48
"""Rows, with headings, that a page holds; more are set as several tables."""
_LATIN = 0x100
"""Letters below are in the fonts that LaTeX uses by default."""
_DOCUMENT = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\begin{document}
%s\end{document}
"""


def latex(table: Table, *, standalone: bool = True, width: int = 96) -> str:
    r"""The table with booktabs rules, in panels where it is wider than a page, as several tables where it is longer.

    Args:
        table: What is printed.
        standalone: A document that compiles as it is; otherwise the `table` environment alone (needs
            `\usepackage{booktabs}`).
        width: Characters of a panel.
    """
    panels = table.panels(width)
    under = " ".join(_tex(line if line.endswith(".") else f"{line}.") for line in (*table.caption, *table.legend()))
    per_page = max(1, _PAGE_ROWS // (len(table.rows) + 3))
    pages = [panels[start : start + per_page] for start in range(0, len(panels), per_page)]
    floats = []
    for place, page in enumerate(pages, start=1):
        part = "" if len(pages) == 1 else f" ({place} of {len(pages)})"
        body = "\n\\par\\medskip\n".join(_tabular(table, panel) for panel in page)
        floats.append(
            "\\begin{table}[ht]\n\\centering\\small\\setlength{\\tabcolsep}{4pt}\n"
            f"\\caption{{{_tex(table.title)}{part}}}\n{body}\n\\par\\smallskip\n"
            f"\\begin{{minipage}}{{\\linewidth}}\\footnotesize {under}\\end{{minipage}}\n\\end{{table}}\n"
        )
    text = "\n".join(floats)
    return _DOCUMENT % text if standalone else f"% \\usepackage{{booktabs}}\n{text}"


def _tabular(table: Table, panel: Table) -> str:
    align = "l" + "".join("l" if column.kind == "text" else "r" for column in panel.columns)
    lines = [f"\\begin{{tabular}}{{{align}}}", "\\toprule"]
    headings = _headings(panel)
    if any(group for group, _ in headings):
        lines.append(" & " + " & ".join(f"\\multicolumn{{{n}}}{{c}}{{{_tex(g)}}}" for g, n in headings) + r" \\")
        start = 2
        for group, span in headings:
            if group:
                lines.append(f"\\cmidrule(lr){{{start}-{start + span - 1}}}")
            start += span
    titles = " & ".join(_tex(column.title) for column in panel.columns)
    lines += [f"{_tex(panel.stub)} & {titles} \\\\", "\\midrule"]
    for before, row in zip((None, *panel.rows), panel.rows, strict=False):
        if row.reference and before is not None and not before.reference:
            lines.append("\\midrule")
        cells = [_tex_cell(table, column, cell) for column, cell in zip(panel.columns, row.cells, strict=True)]
        lines.append(f"{_tex(row.label)} & " + " & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def _tex_cell(table: Table, column: Column, cell: Cell) -> str:
    text = _tex(cell.text)
    if text and column.kind == "published":
        text = f"\\textit{{{text}}}"
    text = {"best": f"\\textbf{{{text}}}", "second": f"\\underline{{{text}}}"}.get(cell.mark, text)
    signs = table.signs(cell)
    return f"{text}\\textsuperscript{{{_tex(signs)}}}" if signs else text


def _tex(text: str) -> str:
    """Text without anything that LaTeX would act on; characters that its fonts lack become a question mark."""
    found = (_TEX.get(character, character) for character in " ".join(text.split()))
    shown = "".join(part if part.isascii() or ord(part) < _LATIN else "?" for part in found if part.isprintable())
    return f"{{}}{shown}" if shown.startswith("[") else shown  # else an argument of the line break before it


def several(tables: Sequence[Table], form: str) -> str:
    """Tables as one text: one LaTeX document, one JSON list, one CSV with a column for each heading that occurs.

    Args:
        tables: At least one.
        form: A key of `FORMATS`.
    """
    if len(tables) == 1:
        return FORMATS[form](tables[0])
    if form == "json":
        return json.dumps([json.loads(to_json(table)) for table in tables], indent=1, ensure_ascii=False) + "\n"
    if form == "latex":
        return _DOCUMENT % "\n".join(latex(table, standalone=False) for table in tables)
    if form == "csv":
        rows = [{"table": t.title} | row for t in tables for row in csv.DictReader(io.StringIO(to_csv(t)))]
        stream = io.StringIO()
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(stream, names, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)
        return stream.getvalue()
    return "\n".join(FORMATS[form](table) for table in tables)


FORMATS: dict[str, Callable[[Table], str]] = {
    "terminal": terminal_text,
    "markdown": markdown,
    "csv": to_csv,
    "latex": latex,
    "latex-table": lambda table: latex(table, standalone=False),
    "html": html,
    "json": to_json,
}
"""How a table can be printed, by name."""
