"""Recorded studies: what many runs measured, in a few small files that two labs can put together under git.

In `<name>/`:

- `study.json`: what this is, by whom, under which versions, and the SHA-256 of the other files. Name, title and author
  may be edited by hand; numbers, losses, datasets and versions are compared with the files.
- `runs.jsonl`: one line a run, by id: spec.json, record.json or failed.json, and each evaluation's metrics.json
- `history.parquet`: the epochs of all runs, a column for each number; see `results.recorded_tables`
- `images.parquet`: the per-image rows of all evaluations; without the 64-px windows if `windows` is false
- `summary.csv`: one line an evaluation, for people and for diffs; derived

Everything that `Store.load`, `images` and `histories` give of finished and failed runs is carried exactly. Weights,
checkpoints and logs are not: a new measurement of an imported run needs its training again. A hash finds a torn or
edited copy, and `Recorded.check` numbers that do not follow from the images; neither finds invented images. Records
name the machine and the command line: read them before you publish. Git must leave line ends alone, as
`.gitattributes` says for `results/studies`.

Measured on 28 runs of 20 epochs and 316 images with 12 windows each: 23 kB a run, of which `images.parquet` 18.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from results import recorded_files as files
from results import recorded_tables as tables
from results.atomic import replacing
from results.recorded_files import RECORDED_VERSION, RecordedError, Study
from results.recorded_runs import Run, difference, findings, from_store, write_runs
from results.schema import SCHEMA_VERSION
from results.store import Store, _noting

__all__ = ["FILES", "RECORDED_VERSION", "Imported", "Recorded", "RecordedError", "Study", "export", "import_into"]
__all__ += ["merge", "read", "read_study", "studies"]

FILES = ("runs.jsonl", "history.parquet", "images.parquet", "summary.csv")
"""The files beside `study.json`, which is written last and has their hashes."""


class Imported(NamedTuple):
    """What `import_into` did.

    Attributes:
        imported: Ids of the runs that were written, failed ones included.
        present: Ids of those that were there already, identical.
        failed: How many of the imported ones had failed.
        missing: What the study does not carry: always the weights, and the windows of one without.
    """

    imported: tuple[str, ...]
    present: tuple[str, ...]
    failed: int
    missing: tuple[str, ...]


class Recorded:
    """A study that was read and found whole.

    Attributes:
        folder: Where it lies.
        study: What it says about itself.
        runs: Its runs, by id.
    """

    def __init__(self, folder: Path, study: Study, runs: Mapping[str, Run], summary: bytes) -> None:
        self.folder, self.study, self.runs, self._summary = folder, study, runs, summary

    @property
    def run_ids(self) -> tuple[str, ...]:
        """All runs, by id."""
        return tuple(self.runs)

    def rows(self) -> list[dict[str, Any]]:
        """What `frame` is made of: of several studies, the rows together make the frame that one store would give."""
        return [row for run in self.runs.values() for row in run.entry.rows()]

    def frame(self) -> pd.DataFrame:
        """The data frame that `Store.load` gives for these runs."""
        return pd.DataFrame(self.rows())

    def images(self, columns: Sequence[str] = ("id", "true", "predicted")) -> pd.DataFrame:
        """The per-image rows that `Store.images` gives for all measurements.

        Raises:
            RecordedError: If there is no such column, as `mass` and `people` in a study without windows.
        """
        table = tables.images_table(_images(self.runs.values()), self.study.windows)
        for name in columns:
            if name not in table.column_names:
                raise RecordedError(f"the images of {self.folder} have no column {name!r}")
        frame: pd.DataFrame = table.select([*columns, "run_id", "eval_id"]).to_pandas()
        return frame

    def histories(self) -> pd.DataFrame:
        """The epochs that `Store.histories` gives for all runs."""
        found = [pd.DataFrame(run.history).assign(run_id=i) for i, run in self.runs.items() if run.history]
        return pd.concat(found or [pd.DataFrame({"run_id": [], "epoch": []})], ignore_index=True)

    def check(self) -> list[str]:
        """Recomputes `summary.csv` from the runs, and every metric from the per-image rows.

        MAE, RMSE, NAE, bias and the mean of each GAME are as `runners.metrics.counting` defines them. Numbers agree
        if they differ by at most 1e-9 of the evaluation's largest metric. A metric of another name is not recomputed.

        Returns:
            A sentence for each number that does not follow: run, metric, both values. Empty if all is right.
        """
        derived = self._summary == tables.summary(self.rows())
        found = [] if derived else [f"{self.folder / 'summary.csv'} does not follow from runs.jsonl"]
        return found + [finding for run in self.runs.values() for finding in findings(run)]

    def refuse_unsound(self) -> None:
        """Raises the first finding of `check` as a `RecordedError`."""
        found = self.check()
        if found:
            more = f"; and {len(found) - 1} more, see `benchmark results check`" if len(found) > 1 else ""
            raise RecordedError(f"{self.folder}: {found[0]}{more}")


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
    return _parsed(folder, {name: files.read_bytes(folder / name) for name in ("study.json", *FILES)})


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
    missing = ("weights",) if recorded.study.windows else ("weights", "windows")
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
            versions of protocol or metrics differ; if there are mismatches; if one has no windows and they are wanted.
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
    return files.parsed(str(path), files.read_bytes(path), Study)


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
    lying = [name for name in ("study.json", *FILES) if (folder / name).exists()]
    if lying and not force:
        raise RecordedError(f"{folder / lying[0]} is there already; choose another folder, or --force to replace it")
    runs = sorted(runs, key=lambda run: run.entry.run_id)
    lines = [run.entry for run in runs]
    contents = {
        "runs.jsonl": b"".join(files.entry_line(folder / "runs.jsonl", entry) for entry in lines),
        "history.parquet": tables.packed(tables.history_table({run.entry.run_id: run.history for run in runs})),
        "images.parquet": tables.packed(tables.images_table(_images(runs), about["windows"])),
        "summary.csv": tables.summary(row for entry in lines for row in entry.rows()),
    }
    fields = {"schema_version": RECORDED_VERSION, "record_schema": SCHEMA_VERSION, **about, **files.counts(lines)}
    fields["exported"] = datetime.now(UTC).isoformat(timespec="seconds")
    fields["benchmark"] = version("crowd-loss-benchmark")
    fields["sha256"] = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents["study.json"] = json.dumps({n: fields[n] for n in Study.model_fields}, indent=1).encode() + b"\n"
    recorded = _parsed(folder, contents)
    for name in (*FILES, "study.json"):
        with replacing(folder / name) as temporary:
            temporary.write_bytes(contents[name])
    return recorded


def _parsed(folder: Path, contents: Mapping[str, bytes]) -> Recorded:
    """All checks of `read`, on the bytes of the files: what is used later is what was checked."""
    study = files.parsed(str(folder / "study.json"), contents["study.json"], Study)
    for name in FILES:
        found, said = hashlib.sha256(contents[name]).hexdigest(), str(study.sha256.get(name))
        if found != said:
            raise RecordedError(
                f"{folder / name} is torn or was edited: its SHA-256 is {found[:12]}…, study.json says {said[:12]}…; "
                "copy the study again (git must not change its line ends)"
            )
    lines = files.entries(folder / "runs.jsonl", contents["runs.jsonl"])
    for field, value in files.counts(lines).items():
        said = getattr(study, field)
        if said != value:
            raise RecordedError(f"{folder / 'study.json'} says {field}: {said}, but runs.jsonl has {value}")
    epochs = {entry.run_id: entry.epochs or 0 for entry in lines}
    histories = tables.read_histories(folder / "history.parquet", contents["history.parquet"], epochs)
    sizes = {(entry.run_id, eval_id): size for entry in lines for eval_id, size in entry.sizes.items()}
    images = tables.read_images(folder / "images.parquet", contents["images.parquet"], sizes, study.windows)
    runs = {e.run_id: Run(e, histories[e.run_id], {i: images[e.run_id, i] for i in e.sizes}) for e in lines}
    return Recorded(folder, study, runs, contents["summary.csv"])


def _images(runs: Iterable[Run]) -> dict[tuple[str, str], pa.Table]:
    return {(run.entry.run_id, eval_id): table for run in runs for eval_id, table in run.images.items()}


def _refuse_versions(parts: Sequence[Recorded]) -> None:
    """Numbers of different versions of protocol or metrics are no comparison, whatever the columns say."""
    for field in ("protocols", "metrics"):
        found = {str(part.folder): getattr(part.study, field) for part in parts if getattr(part.study, field)}
        if len({tuple(versions) for versions in found.values()}) > 1:
            what = ", ".join(f"{folder} has {versions}" for folder, versions in found.items())
            raise RecordedError(f"versions of the {field} differ: {what}; such studies are not merged")
