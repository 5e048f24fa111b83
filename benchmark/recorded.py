"""`benchmark results export`, `import`, `merge`, `list` and `check`: recorded studies, to be kept under git."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.markup import escape
from rich.table import Table

from benchmark.show import console
from reports.localised import shown_radii
from reports.protocol import mismatches, select
from results import recorded
from results.atomic import printable
from results.recorded import Recorded, RecordedError
from results.store import Store, StoreError

__all__ = ["Contents", "check", "export", "import_study", "list_studies", "merge", "read_all"]


def export(options: argparse.Namespace) -> int:
    """Records the finished and failed runs of a store that fulfil every condition."""
    store = Store(options.output)
    if not store.root.is_dir():
        raise StoreError(f"{store.root} is no folder; name the --output of `benchmark run`")
    problems: list[str] = []
    frame = store.load(problems=problems)
    _refuse_unreadable(options, problems)
    if frame.empty:
        raise StoreError(f"no readable runs in {store.root}")
    rows = select(frame, options.where)
    ended = rows["state"].isin(["done", "failed"])
    folder = options.to if options.to.name == options.name else options.to / options.name
    found = recorded.export(
        store, folder, name=options.name, run_ids=list(rows.loc[ended, "run_id"]), title=options.title,
        author=options.author, windows=options.windows, command=options.command_line, force=options.force,
        problems=problems if options.skip_unreadable else None,
    )  # fmt: skip
    unfinished = sorted(set(rows.loc[~ended, "run_id"]))
    _say_written(options, found, {"unfinished": unfinished, "unreadable": problems})
    return 0


def import_study(options: argparse.Namespace) -> int:
    """Writes the runs of a study into a store."""
    done = recorded.import_into(recorded.read(options.folder), Store(options.output))
    if options.json:
        _dump(done._asdict() | {"output": str(options.output)})
        return 0
    failed = f" ({done.failed} of them failed)" if done.failed else ""
    print(f"{options.output}: {len(done.imported)} runs imported{failed}, {len(done.present)} were there, identical")  # noqa: T201
    print(f"not part of the study: {', '.join(done.missing)}")  # noqa: T201
    return 0


def merge(options: argparse.Namespace) -> int:
    """Puts studies together, if their numbers may stand in one table."""
    found = recorded.merge(
        options.folders, options.into, options.name or options.into.resolve().name, mismatches=mismatches,
        title=options.title, author=options.author, command=options.command_line, windows=options.windows,
        allow_identical=options.allow_identical, force=options.force,
    )  # fmt: skip
    _say_written(options, found, {})
    return 0


def list_studies(options: argparse.Namespace) -> int:
    """Lists the studies below a folder; 1 if one cannot be read."""
    problems: list[str] = []
    found = recorded.studies(options.folder, problems)
    if options.json:
        _dump({"studies": [{"folder": str(p), **study.model_dump()} for p, study in found], "unreadable": problems})
        return 1 if problems else 0
    if not found and not problems:
        console.print(f"no recorded studies below {escape(str(options.folder))}; `benchmark results export` makes one")
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("name", "title", "runs", "datasets", "losses", "exported"):
        table.add_column(name, overflow="fold", justify="right" if name == "runs" else "left")
    for _, study in found:
        words = (study.title, str(study.runs), ", ".join(study.datasets), ", ".join(study.losses), study.exported[:10])
        table.add_row(*(escape(word) for word in (study.name, *words)))
    if found:
        console.print(table)
    for problem in problems:
        console.print(f"[red]unreadable[/] {escape(problem)}", soft_wrap=True)
    return 1 if problems else 0


def check(options: argparse.Namespace) -> int:
    """Reads a study, recomputes its numbers from the per-image rows; 1 if one does not follow."""
    found = recorded.read(options.folder)
    findings = found.check()
    if options.json:
        _dump({**_about(found), "findings": findings, "sound": not findings})
        return 1 if findings else 0
    for finding in findings:
        console.print(f"[red]error[/] {escape(finding)}", soft_wrap=True)
    if not findings:
        study = found.study
        console.print(
            f"{escape(study.name)}: the metrics of all {study.evaluations} evaluations{_and_places(study)} "
            f"({study.runs} runs, {study.failed} of them failed) follow from their images",
            soft_wrap=True,
        )
    return 1 if findings else 0


class Contents(NamedTuple):
    """What `Store.load`, `images`, `histories`, `localisations`, `hits` and `curves` would give of one store."""

    frame: pd.DataFrame
    images: pd.DataFrame
    history: pd.DataFrame
    places: pd.DataFrame
    hits: pd.DataFrame
    curves: pd.DataFrame


def read_all(folders: Sequence[Path]) -> Contents:
    """What a report of several studies is made of, without merging them; hits at the radii that a report shows.

    Raises:
        RecordedError: If a study cannot be read, a number does not follow from its images, or a run is in two studies.
    """
    found = [recorded.read(folder) for folder in folders]
    owners: dict[str, Path] = {}
    for part in found:
        part.refuse_unsound()
        for run_id in part.run_ids:
            if run_id in owners:
                both = f"{owners[run_id]} and {part.folder}"
                raise RecordedError(f"run {run_id} is in {both}; `benchmark results merge --allow-identical` first")
            owners[run_id] = part.folder
    frame = pd.DataFrame([row for part in found for row in part.rows()])
    places = _stacked([part.localisations() for part in found])
    hits = [part.hits(shown_radii(places)) for part in found]
    images, histories = [part.images() for part in found], [part.histories() for part in found]
    curves = _stacked([part.curves() for part in found])
    return Contents(frame, _stacked(images), _stacked(histories), places, _stacked(hits), curves)


def _stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One below the other; empty ones, whose columns have no types yet, only where there is nothing else."""
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def _refuse_unreadable(options: argparse.Namespace, problems: list[str]) -> None:
    if problems and not options.skip_unreadable:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StoreError(f"{problems[0]}{more}; --skip-unreadable leaves such runs out")


def _say_written(options: argparse.Namespace, found: Recorded, left_out: dict[str, list[str]]) -> None:
    """What was written and how large it is, what was left out."""
    if options.json:
        _dump(_about(found) | {"left_out": left_out} if left_out else _about(found))
        return
    study = found.study
    size = sum(_sizes(found).values())
    windows = "" if study.windows else ", without windows"
    print(  # noqa: T201
        f"{found.folder}: {study.runs} runs ({study.failed} failed), {study.evaluations} evaluations"
        f"{_and_places(study)}{windows}, "
        f"{size / 1024:.0f} KiB"
    )
    for why, which in left_out.items():
        for item in which:
            print(f"left out, {why}: {printable(item)}")  # noqa: T201


def _and_places(study: recorded.Study) -> str:
    return f" and {study.localisations} localisations" if study.localisations else ""


def _about(found: Recorded) -> dict[str, Any]:
    return {"folder": str(found.folder), **found.study.model_dump(), "bytes": _sizes(found)}


def _sizes(found: Recorded) -> dict[str, int]:
    return {name: (found.folder / name).stat().st_size for name in ("study.json", *found.study.files)}


def _dump(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, default=_text)
    sys.stdout.write("\n")


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
