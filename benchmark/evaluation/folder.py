"""The folder that `benchmark evaluate --out` fills: what an evaluation leaves there, and what it takes away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from reports import render
from reports.table import Table
from results.atomic import write_text
from runners.metrics.point_files import guarded

if TYPE_CHECKING:
    from reports.style import Plot

__all__ = ["LIST", "write_folder"]

LIST = "evaluation_files.txt"
"""The names of the files that the last evaluation left in its folder, one a line."""

_TABLES = {"md": "markdown", "csv": "csv", "tex": "latex"}
_FIGURES = ("png", "pdf", "csv", "txt")
_POSSIBLE = frozenset(
    [f"{name}.{suffix}" for name in ("localisation", "counts", "people", "boxes") for suffix in _TABLES]
    + [f"{name}.{suffix}" for name in ("precision_recall", "by_radius", "by_density", "hits") for suffix in _FIGURES]
    + ["images.csv"]
)
"""All that an evaluation may write; nothing else is ever taken away, whatever the list says."""


def write_folder(folder: Path, tables: Sequence[Table], figures: Sequence[Plot], images: pd.DataFrame) -> None:
    """Writes tables in three formats, figures with their captions, and the counts of every image.

    What an earlier evaluation left there (it says so in `LIST`) and this one does not write is taken away: tables and
    figures of two evaluations must not lie side by side. Files that the list does not name stay.

    Args:
        folder: Made if it does not exist.
        tables: What was measured.
        figures: Drawn from it.
        images: One row an image, with `id`.
    """
    from reports.plots import save

    names = {f"{table.name}.{suffix}" for table in tables for suffix in _TABLES} | {"images.csv"}
    names |= {f"{figure.name}.{suffix}" for figure in figures for suffix in _FIGURES}
    earlier = _listed(folder)
    _list(folder, names | earlier)  # before anything is written: if this is interrupted, the next one knows of all
    for table in tables:
        for suffix, form in _TABLES.items():
            write_text(folder / f"{table.name}.{suffix}", render.FORMATS[form](table))
    counts = images.assign(id=images["id"].map(guarded))
    write_text(folder / "images.csv", counts.to_csv(index=False, lineterminator="\n"))
    for figure in figures:
        save(figure, folder)
        write_text(folder / f"{figure.name}.txt", figure.caption + "\n")
    for name in earlier - names:
        if (folder / name).is_file():
            (folder / name).unlink()
    _list(folder, names)


def _listed(folder: Path) -> set[str]:
    """What an earlier evaluation says that it left."""
    file = folder / LIST
    if not file.is_file():
        return set()
    return set(file.read_text(encoding="utf-8", errors="replace").splitlines()) & _POSSIBLE


def _list(folder: Path, names: set[str]) -> None:
    write_text(folder / LIST, "".join(f"{name}\n" for name in sorted(names)))
