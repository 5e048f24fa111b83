"""What a part of the report leaves in a folder beside its printed tables: figures, and a file of findings."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from benchmark.show import progress_console
from reports.page import Part
from results.atomic import printable, write_text

if TYPE_CHECKING:
    from reports.style import Plot

__all__ = ["write_figures", "write_findings"]

_LISTED = 3
"""Figures that are named when they are written; ours."""
_WIDTH = 100
"""Columns of the file of findings; ours."""


def write_figures(plots: Sequence[Plot], folder: Path) -> None:
    """Writes the figures that go with tables into `figures` below a folder, and says so on stderr."""
    from reports.plots import save

    for plot in plots:
        save(plot, folder / "figures", ("png", "pdf", "svg"))
    if plots:
        names = ", ".join(plot.name for plot in plots[:_LISTED]) + (", ..." if len(plots) > _LISTED else "")
        where = escape(f"{folder / 'figures'} (png, pdf, svg, csv): {names}")
        progress_console.print(f"{len(plots)} figures in {where}", soft_wrap=True)


def write_findings(part: Part, folder: Path) -> Path:
    """Writes `findings.txt`: the findings, then each figure's name with its caption; says so on stderr.

    Args:
        part: Of `report noise`, `sparse_dense` or `speed`.
        folder: Where `figures` lies; made if it does not exist.

    Returns:
        The file.
    """
    paragraphs = [*part.lead, *part.warnings, *(f"{plot.name}: {plot.caption}" for plot in part.plots)]
    wrapped = [
        textwrap.fill(printable(text), _WIDTH, break_long_words=False, break_on_hyphens=False) for text in paragraphs
    ]
    path = folder / "findings.txt"
    write_text(path, "\n\n".join(wrapped) + "\n")
    progress_console.print(f"findings and captions in {escape(str(path))}", soft_wrap=True)
    return path
