"""`benchmark data list`, `check` and `export`."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from benchmark.names import parse_choice
from benchmark.show import console, progress_console

__all__ = ["check", "export", "list_datasets"]

_COLOUR = {"error": "red", "warning": "yellow", "info": "dim"}


def list_datasets(options: argparse.Namespace) -> int:
    """Says where to get each dataset, and which folders hold it here."""
    from runners.data.check import where

    places = where(options.data_root)
    if options.json:
        _dump([{**place._asdict(), "found": [str(path) for path in place.found]} for place in places])
        return 0
    for place in places:
        found = ", ".join(str(path) for path in place.found)
        console.print(f"[bold]{place.name}[/]  {escape(place.title)}")
        console.print(f"  {escape(place.source)}" + (f"  {escape(place.note)}" if place.note else ""), soft_wrap=True)
        console.print(f"  [green]found[/] {escape(found)}" if found else "  [dim]not found[/]", soft_wrap=True)
    return 0


def check(options: argparse.Namespace) -> int:
    """Reads a whole dataset, prints what was found, draws its points; 1 if there are errors."""
    from runners.data.check import check as look
    from runners.data.check import overlay

    dataset = _dataset(options)
    with _progress(not options.json) as progress:
        report = look(dataset, progress=progress)
    picture = overlay(dataset, options.overlay or Path(f"check_{dataset.name}.png")) if report.splits else None
    if options.json:
        rows: dict[str, Any] = {**report._asdict(), "folder": str(report.folder), "sound": report.sound}
        rows["splits"] = [split._asdict() for split in report.splits]
        rows["findings"] = [finding._asdict() for finding in report.findings]
        _dump(rows | {"overlay": str(picture) if picture else None})
        return 0 if report.sound else 1
    console.print(f"[bold]{dataset.name}[/] in {report.folder or 'memory'}" + _release(report.release), soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = ("split", "images", "points", "least", "mean", "most", "empty", "outside", "duplicates")
    for name in columns:
        table.add_column(name, justify="left" if name == "split" else "right")
    for split in report.splits:
        values = split._asdict() | {"mean": f"{split.mean:.1f}"}
        table.add_row(*(str(values[name]) for name in columns))
    console.print(table)
    for finding in report.findings:
        style = _COLOUR[finding.level]
        console.print(f"[{style}]{finding.level}[/] {escape(finding.message)}", soft_wrap=True)
    console.print(f"points drawn in {picture}" if picture else "nothing to draw", soft_wrap=True)
    return 0 if report.sound else 1


def export(options: argparse.Namespace) -> int:
    """Writes a synthetic dataset as images and JSON points that the dataset `folder` reads."""
    dataset = _dataset(options)
    if not hasattr(dataset, "export"):
        raise ValueError(f"dataset {dataset.name} lies on disk already; only synthetic crowds are exported")
    dataset.export(options.folder)
    print(f"{options.folder}: read it with --datasets folder --data-root {options.folder}")  # noqa: T201
    return 0


def _dataset(options: argparse.Namespace) -> Any:
    from runners import data

    choice = parse_choice(options.dataset)
    return data.build(choice.name, root=options.data_root, **choice.params)


def _release(release: str | None) -> str:
    return f", {escape(release)}" if release else ""


def _dump(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1)
    sys.stdout.write("\n")


def _progress(shown: bool) -> Any:
    """A context that gives a callback for (done, all), or None where nothing should be drawn."""
    if not shown or not progress_console.is_terminal:
        return nullcontext(None)
    return _Bar()


class _Bar:
    """A progress bar as a callback."""

    def __enter__(self) -> _Bar:
        self._progress = Progress(console=progress_console, transient=True)
        self._progress.start()
        self._task = self._progress.add_task("reading", total=None)
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)
