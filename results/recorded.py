"""Recorded studies: what many runs measured, in a few small files that two labs can put together under git.

In `<name>/`:

- `study.json`: what this is, by whom, under which versions, and the SHA-256 of the other files. Name, title and author
  may be edited by hand; numbers, losses, datasets and versions are compared with the files.
- `runs.jsonl`: one line a run, by id: spec.json, record.json or failed.json, and each evaluation's metrics.json or
  localisation.json
- `history.parquet`: the epochs of all runs, a column for each number; see `results.recorded_tables`
- `images.parquet`: the per-image rows of all evaluations; without the 64-px windows if `windows` is false
- `localisation.parquet`, `curves.parquet`: of measurements of places, if there are any: numbers of heads, points and
  matched pairs of each image, and the curves over thresholds; see `results.recorded_places`
- `summary.csv`: one line an evaluation, for people and for diffs; derived

Everything that `Store.load`, `images`, `histories`, `localisations` and `hits` give of finished and failed runs is
carried exactly, and `RunFolder.curve`. Weights, checkpoints and logs are not, nor are points with their scores and
matches: a new measurement of an imported run needs its training again, and its `points.parquet` has the numbers of each
image only. A hash finds a torn or edited copy, and `Recorded.check` numbers that do not follow from the images; neither
finds invented images. Records name the machine and the command line: read them before you publish. Git must leave line
ends alone, as `.gitattributes` says for `results/studies`.

Measured on 28 runs of 20 epochs and 316 images with 12 windows each: 23 kB a run, of which `images.parquet` 18. A
measurement of places at two radii adds 11 kB: `localisation.parquet` 6, `curves.parquet` 4 (three curves of 200 rows).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from results import recorded_files as files
from results.atomic import replacing
from results.recorded_files import ALL_FILES, FILES, RECORDED_VERSION, RecordedError, Study
from results.recorded_runs import Run, difference, from_store, write_runs
from results.recorded_study import Recorded, made, parsed
from results.store import Store, _noting

__all__ = ["ALL_FILES", "FILES", "RECORDED_VERSION", "Imported", "Recorded", "RecordedError", "Study", "export"]
__all__ += ["import_into", "merge", "read", "read_study", "studies"]


class Imported(NamedTuple):
    """What `import_into` did.

    Attributes:
        imported: Ids of the runs that were written, failed ones included.
        present: Ids of those that were there already, identical.
        failed: How many of the imported ones had failed.
        missing: What the study does not carry: always the weights, the windows of one without, and the points of one
            with measurements of places.
    """

    imported: tuple[str, ...]
    present: tuple[str, ...]
    failed: int
    missing: tuple[str, ...]


def export(
    store: Store,
    folder: str | Path,
    *,
    name: str,
    run_ids: Iterable[str] | None = None,
    title: str = "",
    windows: bool = True,
    author: str = "",
    command: str = "",
    force: bool = False,
    problems: list[str] | None = None,
) -> Recorded:
    """Writes finished and failed runs of a store as a recorded study; the store is only read.

    Args:
        store: Where the runs are.
        folder: The study's own folder.
        name: What the study is called: letters, digits, dots, dashes.
        run_ids: Restrict to these; by default all that are finished or failed.
        title: What the study is about.
        windows: Keep the mass and the people of every image's windows.
        author: By whom.
        command: The command line, for `study.json`.
        force: Replace the study that lies there.
        problems: Where given, a run that cannot be read is left out and the reason is added here.

    Raises:
        StoreError: If a run cannot be read and there is no list of problems, or is neither finished nor failed.
        RecordedError: If a study lies there already, or a run holds what the files cannot carry exactly.
        ValueError: If the folder is inside the store, or no run is left.
    """
    folder = Path(folder)
    if folder.resolve().is_relative_to(store.root.resolve()):
        raise ValueError(f"{folder} is inside the store {store.root}, which holds runs only; choose another folder")
    if run_ids is None:
        run_ids = [run.run_id for run in store.runs() if run.state() in ("done", "failed")]
    runs = []
    for run_id in sorted(set(run_ids)):
        with _noting(problems):
            run = from_store(store.run(run_id))
            if windows and any("mass" not in table.column_names for table in run.images.values()):
                raise RecordedError(f"run {run_id} has images without windows; --without-windows records all runs so")
            runs.append(run)
    if not runs:
        raise ValueError(f"no finished or failed run to record in {store.root}")
    about = {"name": name, "title": title, "author": author, "command": command, "windows": windows, "sources": []}
    return _write(folder, runs, about, force)


def read(folder: str | Path) -> Recorded:
    """Reads a study and compares its files with each other.

    Raises:
        RecordedError: If a file is missing, torn, edited, too large or of a newer schema, or holds anything that this
            version does not know: with its path and the reason.
    """
    folder = Path(folder)
    first = files.read_own(folder / "study.json")
    names = files.parsed(str(folder / "study.json"), first, Study).files
    return parsed(folder, {"study.json": first} | {name: files.read_own(folder / name) for name in names})


def import_into(recorded: Recorded, store: Store) -> Imported:
    """Writes a study's runs into a store, where they read exactly as in the store that they come from.

    Each run's folder is renamed in whole. A run that is there already and identical is left alone; if the study has no
    windows, those of the store are no difference.

    Raises:
        RecordedError: Before anything is written, if a number of the study does not follow from its images, or a run
            is in the store already and differs: its id and the first field that does.
    """
    recorded.refuse_unsound()
    present = {run_id for run_id in recorded.runs if store.run(run_id).path.exists()}
    for run_id in sorted(present):
        state, run = store.run(run_id).state(), recorded.runs[run_id]
        if state != run.entry.state:
            raise RecordedError(f"run {run_id} is {state} in {store.root}, but {run.entry.state} in the study")
        found = difference(from_store(store.run(run_id)), run, recorded.study.windows)
        if found:
            raise RecordedError(f"run {run_id} is in {store.root} already and differs: {found}")
    new = [run for run_id, run in recorded.runs.items() if run_id not in present]
    if new:
        write_runs(store.root, new)
    lacking = {"weights": True, "windows": not recorded.study.windows, "points": recorded.study.localisations > 0}
    missing = tuple(name for name, lacks in lacking.items() if lacks)
    failed = sum(run.entry.state == "failed" for run in new)
    return Imported(tuple(run.entry.run_id for run in new), tuple(sorted(present)), failed, missing)


def merge(
    folders: Sequence[str | Path],
    into: str | Path,
    name: str,
    *,
    mismatches: Callable[[pd.DataFrame], Sequence[str]],
    title: str = "",
    author: str = "",
    command: str = "",
    windows: bool = True,
    allow_identical: bool = False,
    force: bool = False,
) -> Recorded:
    """Puts studies together, if their numbers may stand in one table.

    Args:
        folders: At least two studies.
        into: The folder of the new one.
        name: What the new one is called; as in `export`.
        mismatches: Says of `Recorded.frame()` of all runs, in one sentence each, which rows would stand in one column
            under different terms.
        title: What it is about.
        author: By whom.
        command: The command line, for `study.json`.
        windows: Keep the windows, which all studies must then have.
        allow_identical: Accept a run that is in several studies if it is equal to the bit.
        force: Replace the study that lies there.

    Raises:
        RecordedError: If a study cannot be read or does not follow from its images; if a run is in two of them; if
            versions of protocol, metrics or localizers differ; if there are mismatches; if one has no windows and they
            are wanted.
    """
    if len(folders) < 2:
        raise ValueError("merge needs at least two studies")
    parts = [read(folder) for folder in folders]
    for part in parts:
        part.refuse_unsound()
        if windows and not part.study.windows:
            raise RecordedError(f"{part.folder} has no windows; merge without windows, or export it again with them")
    _refuse_versions(parts)
    runs: dict[str, Run] = {}
    for part in parts:
        for run_id, run in part.runs.items():
            if run_id in runs:
                owner = next(other.folder for other in parts if run_id in other.runs)
                found = difference(runs[run_id], run, windows)
                if found or not allow_identical:
                    what = f"differs: {found}" if found else "is the same; --allow-identical takes it once"
                    raise RecordedError(f"run {run_id} is in {owner} and in {part.folder}, and {what}")
            runs.setdefault(run_id, run)
    mixed = mismatches(pd.DataFrame([row for _, run in sorted(runs.items()) for row in run.entry.rows()]))
    if mixed:
        more = f"; and {len(mixed) - 3} more" if len(mixed) > 3 else ""
        raise RecordedError(f"these studies do not go into one table: {'; '.join(mixed[:3])}{more}")
    sources = [part.study.model_dump(include={"name", "title", "author", "exported", "runs"}) for part in parts]
    about = {"name": name, "title": title, "author": author, "command": command, "windows": windows}
    return _write(Path(into), list(runs.values()), about | {"sources": sources}, force)


def read_study(folder: str | Path) -> Study:
    """Reads `study.json` alone: quick, and believed; `read` compares it with the other files."""
    path = Path(folder) / "study.json"
    return files.parsed(str(path), files.read_own(path), Study)


def studies(root: str | Path, problems: list[str] | None = None) -> list[tuple[Path, Study]]:
    """The studies in a folder and below it, by path; see `read_study`.

    Args:
        root: Where to look.
        problems: Where given, a study that cannot be read is left out and the reason is added here.
    """
    found = []
    for path in sorted(Path(root).rglob("study.json")):
        with _noting(problems):
            found.append((path.parent, read_study(path.parent)))
    return found


def _write(folder: Path, runs: Iterable[Run], about: Mapping[str, Any], force: bool) -> Recorded:
    """Makes all files in memory, reads them back, and only then writes them, `study.json` last."""
    lying = [name for name in ("study.json", *ALL_FILES) if (folder / name).exists()]
    if lying and not force:
        raise RecordedError(f"{folder / lying[0]} is there already; choose another folder, or --force to replace it")
    contents = made(folder, runs, about)
    recorded = parsed(folder, contents)
    for name, content in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
    for name in set(ALL_FILES) - set(contents):  # of the study that is replaced
        (folder / name).unlink(missing_ok=True)
    return recorded


def _refuse_versions(parts: Sequence[Recorded]) -> None:
    """Numbers of different versions of protocol, metrics or localizers are no comparison, whatever the columns say."""
    versions = {str(part.folder): _versions(part) for part in parts}
    for what in dict.fromkeys(name for found in versions.values() for name in found):
        found = {folder: numbers[what] for folder, numbers in versions.items() if numbers.get(what)}
        if len(set(map(tuple, found.values()))) > 1:
            said = ", ".join(f"{folder} has {numbers}" for folder, numbers in found.items())
            raise RecordedError(f"versions of the {what} differ: {said}; such studies are not merged")


def _versions(part: Recorded) -> dict[str, list[int]]:
    """Of training, of the metrics, of scoring places, and of each localizer."""
    specs = [found.localisation for run in part.runs.values() for found in run.entry.localisations]
    localizers = {
        f"localizer {name}": sorted({spec.version for spec in specs if spec.localizer == name})
        for name in sorted({spec.localizer for spec in specs})
    }
    scoring = {"scores of places": sorted({spec.metrics for spec in specs})}
    return {"protocols": part.study.protocols, "metrics": part.study.metrics} | scoring | localizers
