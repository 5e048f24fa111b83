"""A recorded study in memory: made of runs as the bytes of its files, read from them, asked and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from results import recorded_files as files
from results import recorded_places as places
from results import recorded_tables as tables
from results.recorded_checks import findings
from results.recorded_files import RecordedError, Study
from results.recorded_runs import Run
from results.rows import LOCALISATION_COLUMNS, localisation_rows
from results.schema import SCHEMA_VERSION, Localisation

__all__ = ["Recorded", "made", "parsed"]


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

    def localisations(self) -> pd.DataFrame:
        """The rows that `Store.localisations` gives for all runs."""
        done = [run.entry.localisations for run in self.runs.values() if run.entry.state == "done"]
        rows = [row for found in done for row in localisation_rows(found)]
        return pd.DataFrame(rows, columns=list(LOCALISATION_COLUMNS))

    def hits(self, radii: Sequence[str]) -> pd.DataFrame:
        """The rows that `Store.hits` gives for all measurements of places of finished runs."""
        found = [pd.DataFrame({name: [] for name in ("run_id", "eval_id", "radius", "id", "true", "predicted", "tp")})]
        for run_id, run in self.runs.items():
            for eval_id, located in run.places.items() if run.entry.state == "done" else ():
                found += places.hits_frames(run_id, located, run.entry.places[eval_id], radii)
        return pd.concat(found[1:] or found, ignore_index=True)

    def points(self, run_id: str, eval_id: str) -> pd.DataFrame:
        """Of a measurement of places, the columns of `RunFolder.points` that are numbers of each image.

        Raises:
            RecordedError: If there is no such measurement.
        """
        return places.points_frame(*self._place(run_id, eval_id))

    def curve(self, run_id: str, eval_id: str) -> pd.DataFrame:
        """The curves over thresholds that `RunFolder.curve` gives.

        Raises:
            RecordedError: If there is no such measurement.
        """
        frame: pd.DataFrame = self._place(run_id, eval_id)[0].curve.to_pandas()
        return frame

    def curves(self) -> pd.DataFrame:
        """The rows that `Store.curves` gives for all measurements of places of finished runs."""
        found = [pd.DataFrame({"run_id": [], "eval_id": []})]
        for run_id, run in self.runs.items():
            for eval_id in run.places if run.entry.state == "done" else ():
                found.append(self.curve(run_id, eval_id).assign(run_id=run_id, eval_id=eval_id))
        return pd.concat(found[1:] or found, ignore_index=True)

    def _place(self, run_id: str, eval_id: str) -> tuple[places.Places, Localisation]:
        run = self.runs.get(run_id)
        if run is None or eval_id not in run.places:
            raise RecordedError(f"{self.folder} has no measurement of places {eval_id} of run {run_id}")
        return run.places[eval_id], run.entry.places[eval_id]

    def check(self) -> list[str]:
        """Recomputes `summary.csv` from the runs, and every metric from the per-image rows.

        See `results.recorded_checks` for the definitions. Numbers agree if they differ by at most 1e-9 of the
        largest of their kind in the measurement. A metric of another name is not recomputed.

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


def made(folder: Path, runs: Iterable[Run], about: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a study of these runs, `study.json` last; `folder` is for messages.

    Args:
        folder: Where it will lie.
        runs: Its runs.
        about: `name`, `title`, `author`, `command`, `windows` and `sources` of `Study`.
    """
    runs = sorted(runs, key=lambda run: run.entry.run_id)
    lines = [run.entry for run in runs]
    contents = {
        "runs.jsonl": b"".join(files.entry_line(folder / "runs.jsonl", entry) for entry in lines),
        "history.parquet": tables.packed(tables.history_table({run.entry.run_id: run.history for run in runs})),
        "images.parquet": tables.packed(tables.images_table(_images(runs), about["windows"])),
        "summary.csv": tables.summary(row for entry in lines for row in entry.rows()),
    }
    found = {(run.entry.run_id, eval_id): located for run in runs for eval_id, located in run.places.items()}
    if found:
        contents["localisation.parquet"] = tables.packed(places.places_table(found))
        contents["curves.parquet"] = tables.packed(places.curves_table(found))
    fields = {"schema_version": files.version_for(len(found)), "record_schema": SCHEMA_VERSION, **about}
    fields |= files.counts(lines)
    fields["exported"] = datetime.now(UTC).isoformat(timespec="seconds")
    fields["benchmark"] = version("crowd-loss-benchmark")
    fields["sha256"] = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    names = [name for name in Study.model_fields if found or name != "localisations"]  # version 1 does not know it
    contents["study.json"] = json.dumps({name: fields[name] for name in names}, indent=1).encode() + b"\n"
    return contents


def parsed(folder: Path, contents: Mapping[str, bytes]) -> Recorded:
    """All checks of `results.recorded.read`, on the bytes of the files: what is used later is what was checked."""
    study = files.parsed(str(folder / "study.json"), contents["study.json"], Study)
    for name in study.files:
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
    measured = {(entry.run_id, eval_id): found for entry in lines for eval_id, found in entry.places.items()}
    located = places.read_places(folder, contents, measured) if measured else {}
    runs = {
        e.run_id: Run(
            entry=e,
            history=histories[e.run_id],
            images={i: images[e.run_id, i] for i in e.sizes},
            places={i: located[e.run_id, i] for i in e.places},
        )
        for e in lines
    }
    return Recorded(folder, study, runs, contents["summary.csv"])


def _images(runs: Iterable[Run]) -> dict[tuple[str, str], pa.Table]:
    return {(run.entry.run_id, eval_id): table for run in runs for eval_id, table in run.images.items()}
