"""`benchmark explain --check`: the propositions of the proximal view with their worst numerical errors, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.explain.propositions import Proposition
from reports.table import Cell, Column, Row, Table

__all__ = ["propositions_table"]


def propositions_table(found: Sequence[Proposition]) -> Table:
    """Claims with their worst error and what it had to stay below, measurements with their median and largest."""
    numbers = [Column(name, kind="derived") for name in ("worst", "limit", "median")]
    columns = (Column("claim", kind="text"), *numbers, Column("holds", kind="text"))
    failing = [each.name for each in found if each.holds is False]
    cases = " or ".join(sorted({str(each.cases) for each in found}))
    said = f"Not true here: {', '.join(failing)}." if failing else "Every claim holds."
    caption = (
        f"{cases} random cells or crowds a row, float64; worst: largest error over all of them. {said}",
        "measured: no claim, but how far the gradient of a loss of the zoo is from its one-cell row, relative to it.",
    )
    return Table("propositions", "The proximal view, checked", "proposition", columns, tuple(map(_row, found)), caption)


def _row(found: Proposition) -> Row:
    holds = {True: "yes", False: "NO", None: "measured"}[found.holds]
    limit = Cell("–") if found.tolerance is None else Cell(f"{found.tolerance:.0e}", found.tolerance)
    cells = (Cell(found.statement), _error(found.worst), limit, _error(found.median), Cell(holds))
    return Row(found.name, cells)


def _error(value: float) -> Cell:
    return Cell("0" if value == 0 else f"{value:.1e}" if value < 0.01 else f"{value:.2f}", value)
