"""A table before it is printed: columns, rows, cells that know where they come from, and what stands under them.

`reports.tables` builds tables from measurements, `reports.render` prints them. Numbers and text are apart: `value`,
`sd`, `low` and `high` are unrounded, `text` is what a reader sees.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

from results.atomic import printable

__all__ = ["SIGNS", "Cell", "Column", "Kind", "Mark", "Row", "Table", "number", "wrap"]

Kind = Literal["measured", "published", "derived", "text"]
"""Where a column's numbers come from: measured here, printed in a paper, computed from both, or no numbers at all."""
Mark = Literal["", "best", "second", "tie"]
"""`best` and `second` of a column only where separated from what follows; `tie`: not separated from the best."""
SIGNS = {"tie": "≈", "published": "†"}


class Cell(NamedTuple):
    """One cell.

    Attributes:
        text: What is shown, without marks.
        value: The number, in the column's unit.
        sd: Standard deviation over seeds.
        low, high: 95 % interval.
        seeds: Number of seeds behind a measured value.
        mark: How it compares within its column.
        notes: What a reader must know about this cell; printed once under the table.
        se: Standard error, where that is what stands behind the `±` of the text.
    """

    text: str = ""
    value: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int | None = None
    mark: Mark = ""
    notes: tuple[str, ...] = ()
    se: float | None = None


class Column(NamedTuple):
    """One column: `label` under `group`, and where its numbers come from."""

    label: str
    group: str = ""
    kind: Kind = "measured"

    @property
    def title(self) -> str:
        """The label, with the sign of a published column."""
        return self.label + (SIGNS["published"] if self.kind == "published" else "")


class Row(NamedTuple):
    """One row; `reference` rows (the constant count) take no part in the comparison."""

    label: str
    cells: tuple[Cell, ...]
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: Short, for file names.
        title: One line.
        stub: Heading of the row labels.
        columns, rows: Every row has a cell for every column.
        caption: Sentences under the table: the terms of the comparison, and how it is to be read.
        findings: What follows from it, and from those that go with it; JSON has it, HTML and Markdown above the table.
    """

    name: str
    title: str
    stub: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Text of strangers' records loses what could steer a terminal."""
        columns = (
            column._replace(label=printable(column.label), group=printable(column.group)) for column in self.columns
        )
        rows = (
            row._replace(label=printable(row.label), cells=tuple(_printable(cell) for cell in row.cells))
            for row in self.rows
        )
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "columns", tuple(columns))
        object.__setattr__(self, "rows", tuple(rows))
        object.__setattr__(self, "caption", tuple(map(printable, self.caption)))
        object.__setattr__(self, "findings", tuple(map(printable, self.findings)))

    @cached_property
    def notes(self) -> dict[str, str]:
        """The notes of all cells, each once, with a letter: `{"the slides print 85.6": "a"}`."""
        texts = dict.fromkeys(note for row in self.rows for cell in row.cells for note in cell.notes)
        return dict(zip(texts, _letters(), strict=False))

    def signs(self, cell: Cell) -> str:
        """What stands behind a cell's text: the sign of a tie, and the letters of its notes."""
        return (SIGNS["tie"] if cell.mark == "tie" else "") + ",".join(self.notes[note] for note in cell.notes)

    def legend(self) -> list[str]:
        """What the signs mean, as far as they occur, and the notes by letter."""
        marks = {cell.mark for row in self.rows for cell in row.cells}
        found = []
        if any(column.kind == "published" for column in self.columns):
            found.append(f"{SIGNS['published']} published, not measured here.")
        if "best" in marks or "second" in marks:
            found.append("Bold: best of its column, underlined: second, each separated from all that follow.")
        if "tie" in marks:
            found.append(f"{SIGNS['tie']} tested, and not separated from the best of its column.")
        return found + [f"{letter}: {note}" for note, letter in self.notes.items()]

    def panels(self, width: int, *, stub_most: int = 40, spanning: bool = True) -> list[Table]:
        """The table cut between groups of columns so that each part is about `width` characters wide at most.

        Args:
            width: Characters of a part.
            stub_most: Row labels may be folded to this many characters.
            spanning: Whether a group's name spans its columns; otherwise it stands over each of them, and titles take a
                line a word.
        """
        stub = min(max([len(self.stub), *(len(row.label) for row in self.rows)], default=0), stub_most)
        parts: list[list[int]] = []
        used = 0
        for group in self._groups(width - stub - 2, spanning):
            size = self._width(group, spanning)
            if not parts or used + size > width:
                parts.append([])
                used = stub + 2
            parts[-1] += group
            used += size
        return [self._part(part) for part in parts]

    def room(self, width: int) -> int:
        """Characters that the columns leave to row labels in a terminal; columns of text fold to their longest word."""
        used = 2
        for place, column in enumerate(self.columns):
            texts = [column.title, *(row.cells[place].text for row in self.rows)]
            words = [len(word) for text in texts for word in text.split()]
            used += max(words, default=0) + 3 if column.kind == "text" else self._width([place], spanning=False)
        return width - used

    def _part(self, places: list[int]) -> Table:
        """Some of the columns."""
        columns = tuple(self.columns[place] for place in places)
        rows = tuple(row._replace(cells=tuple(row.cells[place] for place in places)) for row in self.rows)
        return replace(self, columns=columns, rows=rows)

    def _groups(self, width: int, spanning: bool) -> list[list[int]]:
        """Places of neighbouring columns under one heading, unless wider than `width`; others stand alone."""
        found: list[list[int]] = []
        for place, column in enumerate(self.columns):
            if found and column.group and self.columns[found[-1][0]].group == column.group:
                found[-1].append(place)
            else:
                found.append([place])
        parts: list[list[int]] = []
        for group in found:
            parts += [group] if self._width(group, spanning) <= width else [[place] for place in group]
        return parts

    def _width(self, group: list[int], spanning: bool) -> int:
        """Characters of neighbouring columns with the space around them."""
        total = 0
        for place in group:
            cells = [row.cells[place] for row in self.rows]
            shown = [len(" ".join(filter(None, (cell.text, self.signs(cell))))) for cell in cells]
            heading = 0 if spanning else len(self.columns[place].group)
            words = [self.columns[place].title] if spanning else self.columns[place].title.split(" ")
            total += max([*map(len, words), heading, *shown]) + 3
        return max(total, len(self.columns[group[0]].group) + 3)


def wrap(label: str, most: float, width: Callable[[str], float] = len) -> list[str]:
    """A label in lines no wider than `most`, broken where its parameters begin, after a comma, `:`, `=`, `_` or space.

    Nothing is cut: a piece that is wider alone stays whole, as a level or a value does.

    Args:
        label: Of a loss or a noise.
        most: In the unit of `width`.
        width: Of a line; by default in characters.
    """
    for pattern in (r"(?=\[)|(?<=,)", r"(?=\[)|(?<=[,:=_ ])"):
        lines = [""]
        for piece in re.split(pattern, label):
            if lines[-1] and width(lines[-1] + piece) > most:
                lines.append(piece)
            else:
                lines[-1] += piece
        if all(width(line) <= most for line in lines):
            break
    return lines


def number(value: float | None, digits: int, *, sign: bool = False, empty: str = "") -> str:
    """A number with a fixed number of digits; `empty` where there is none."""
    if value is None or value != value:
        return empty
    value = round(value, digits) + 0.0  # no minus before a zero
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def _printable(cell: Cell) -> Cell:
    return cell._replace(text=printable(cell.text), notes=tuple(map(printable, cell.notes)))


def _letters() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..."""
    yield from string.ascii_lowercase
    for first in string.ascii_lowercase:
        yield from (first + second for second in string.ascii_lowercase)
