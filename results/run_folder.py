"""One run's folder: plain files, each renamed into place.

In `<output>/<run_id>/`:

- `spec.json`: what is trained
- `history.jsonl`: one line an epoch
- `record.json`: renamed in last: its presence means done
- `failed.json`: why it stopped, if it did
- `claim-<n>.json`: who trains it now, or did last; see `results.claims`
- `model_<rule>.safetensors`: the weights that each selection rule kept
- `eval/<eval_id>/`: metrics.json and images.parquet, one folder a measurement of the counts; localisation.json,
  points.parquet and curve.parquet, one of the places
- `work/`: checkpoints of an unfinished run, and the log
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import BaseModel

from results.atomic import printable, replacing, write_text
from results.claims import Claims
from results.documents import PLACE, content, plain, read_model, read_seals, sealed, value
from results.frames import StoreError, read_frame, refuse_place, write_frame
from results.limits import limit
from results.schema import Evaluation, Failure, Localisation, Record, State
from results.spec import EvaluationSpec, LocalisationSpec, RunSpec

__all__ = ["RunFolder", "read_history"]

_Model = TypeVar("_Model", bound=BaseModel)

_HISTORY = "history"
"""What `record.json` carries beside the record: a check sum of the epochs that the run was finished with."""


class RunFolder:
    """The files of one run. Reads and writes; decides nothing.

    Attributes:
        path: The folder.
        claims: Who is training it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.claims = Claims(path)

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def work(self) -> Path:
        """Where an unfinished run keeps its checkpoints and log."""
        return self.path / "work"

    @property
    def history_file(self) -> Path:
        """One JSON object a line, one line an epoch."""
        return self.path / "history.jsonl"

    def weights(self, selection: str) -> Path:
        """The file of the weights that a selection rule kept."""
        return self.path / f"model_{selection}.safetensors"

    def state(self) -> State:
        """What the files say: done, failed, running (claimed by a living process), interrupted or new."""
        if (self.path / "record.json").is_file():
            return "done"
        if self.claims.holder() is not None:
            return "running"
        if (self.path / "failed.json").is_file():
            return "failed"
        return "interrupted" if (self.path / "spec.json").is_file() else "new"

    # ---- reading

    def spec(self) -> RunSpec:
        """The run's specification."""
        return self._read("spec.json", RunSpec)

    def record(self) -> Record:
        """The record of a finished run."""
        return self._read("record.json", Record)

    def failure(self) -> Failure:
        """Why the run failed."""
        return self._read("failed.json", Failure)

    def has_failure(self) -> bool:
        """Whether the last attempt failed: to train the run, or to measure one that is done."""
        return (self.path / "failed.json").is_file() and self.state() in ("failed", "done")

    def evaluations(self) -> list[Evaluation]:
        """All measurements of this run, in order of their ids."""
        return [self._read(file, Evaluation) for file in self._measured("metrics.json")]

    def has_evaluation(self, evaluation: EvaluationSpec) -> bool:
        """Whether this measurement was already made."""
        return (self.path / "eval" / evaluation.eval_id / "metrics.json").is_file()

    def images(self, evaluation: EvaluationSpec | str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The per-image rows of a measurement.

        Args:
            evaluation: The measurement, or its `eval_id`.
            columns: Restrict to these: `mass` and `people`, the windows, are most of the file.

        Raises:
            StoreError: If there is no such measurement, or its file is damaged or lacks a column.
        """
        eval_id = evaluation if isinstance(evaluation, str) else evaluation.eval_id
        return self._table(eval_id, "images.parquet", columns)

    def localisations(self) -> list[Localisation]:
        """All measurements of places of this run, in order of their ids."""
        return [self._read(file, Localisation) for file in self._measured("localisation.json")]

    def localisation(self, eval_id: str) -> Localisation:
        """One measurement of places."""
        return self._read(f"eval/{plain(eval_id)}/localisation.json", Localisation)

    def has_localisation(self, localisation: LocalisationSpec) -> bool:
        """Whether this measurement was already made."""
        return (self.path / "eval" / localisation.eval_id / "localisation.json").is_file()

    def points(self, localisation: LocalisationSpec | str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The per-image rows of a measurement of places: points, scores, heads, and the matches at each radius.

        See `runners.metrics.localisation.image_points` for the columns.

        Args:
            localisation: The measurement, or its `eval_id`.
            columns: Restrict to these: points and matches are most of the file.

        Raises:
            StoreError: As `images`.
        """
        eval_id = localisation if isinstance(localisation, str) else localisation.eval_id
        return self._table(eval_id, "points.parquet", columns)

    def curve(self, localisation: LocalisationSpec | str) -> pd.DataFrame:
        """Precision and recall at every threshold: split, radius, threshold, predicted, tp, precision, recall, f1.

        Raises:
            StoreError: As `images`.
        """
        eval_id = localisation if isinstance(localisation, str) else localisation.eval_id
        return self._table(eval_id, "curve.parquet", None)

    def _table(self, eval_id: str, name: str, columns: Sequence[str] | None) -> pd.DataFrame:
        """A parquet file of a measurement."""
        path = self.eval_file(eval_id, name)
        return read_frame(path, columns, self.place(path))

    def eval_file(self, eval_id: str, name: str) -> Path:
        """Where a file of a measurement lies.

        Raises:
            StoreError: If it is not there, or the id could name a place elsewhere.
        """
        path = self.path / "eval" / plain(eval_id) / name
        if not path.is_file():
            raise StoreError(f"{path} is missing: run {self.run_id} has no evaluation {eval_id}")
        return path

    def history(self) -> pd.DataFrame:
        """One row an epoch; empty where nothing was trained yet. A torn last line of an unfinished run is left out.

        Raises:
            StoreError: As `epochs`.
        """
        return pd.DataFrame(self.epochs())

    def epochs(self) -> list[dict[str, Any]]:
        """The lines of the history, as `history`.

        Raises:
            StoreError: If the file cannot be read, is absurdly large, or is not that of the finished run's record.
        """
        rows = read_history(self.history_file)
        said = read_seals(self.path / "record.json").get(_HISTORY)
        if said not in (None, _sum(rows)):
            word = "damaged: it is not the one that the run was finished with" if rows else "missing or empty"
            raise StoreError(f"{self.history_file} is {word}; copy it again, or remove {self.path} to train it again")
        names, most = len({name for row in rows for name in row}), limit("CROWD_MAX_TABLE_ROWS")
        if names > limit("CROWD_MAX_TABLE_COLUMNS") or names * len(rows) > most:
            raise StoreError(
                f"{self.history_file} has {len(rows)} epochs with {names} names, absurd for a history; "
                "else raise CROWD_MAX_TABLE_COLUMNS and CROWD_MAX_TABLE_ROWS"
            )
        return rows

    def check(self) -> None:
        """Looks for damage of a finished run: reads its JSON files and its history, compares the sizes of its tables.

        What was changed within a table is found when it is read: its pages have check sums.

        Raises:
            StoreError: If a file is missing, damaged, or another run's.
        """
        self.spec()
        self.record()
        self.evaluations()
        self.localisations()
        self.check_tables()

    def check_tables(self) -> None:
        """The part of `check` that is about the history and the tables.

        Raises:
            StoreError: As `check`.
        """
        self.epochs()
        for name in ("metrics.json", "localisation.json"):
            for file in self._measured(name):
                for table, size in read_seals(self.path / file).items():
                    if table.endswith(".parquet"):
                        self._check_size((self.path / file).with_name(table), size)

    def place(self, path: Path) -> str:
        """What a file of this run is called in the store: `<run_id>/eval/<eval_id>/metrics.json`."""
        return (self.run_id / path.relative_to(self.path)).as_posix()

    def _read(self, file: str, kind: type[_Model]) -> _Model:
        """A JSON file, which must be this run's."""
        path = self.path / file
        found = read_model(path, kind, self.place(path))
        refuse_place(path, getattr(found, "run_id", None), self.run_id)
        return found

    def _measured(self, name: str) -> list[str]:
        """The files of that name of all measurements, in order of their ids."""
        return [path.relative_to(self.path).as_posix() for path in sorted(self.path.glob(f"eval/*/{name}"))]

    def _check_size(self, path: Path, size: str) -> None:
        """Refuses a table that is missing or of another size than it was written with."""
        try:
            found = str(path.stat().st_size)
        except OSError as error:
            found = error.strerror or str(error)
        if found != size:
            raise StoreError(
                f"{path} is damaged: expected {size} bytes, found {printable(found)}; copy it again, or remove "
                f"{path.parent} to measure again"
            )

    # ---- writing

    def begin(self, spec: RunSpec) -> None:
        """Writes the specification, and forgets an earlier failure."""
        self._write("spec.json", spec)
        self.forget_failure()

    def fail(self, failure: Failure) -> None:
        """Keeps the reason of a failure; checkpoints stay."""
        self._write("failed.json", failure)

    def succeed(self) -> None:
        """Forgets an earlier failure and removes what killed processes left: all that was asked for is there."""
        self.forget_failure()
        self.discard_checkpoints()
        (self.work / "diverged.safetensors").unlink(missing_ok=True)
        for leftover in self.path.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        for folder in self.work.glob("*/"):
            with suppress(OSError):  # only an empty one goes
                folder.rmdir()

    def forget_failure(self) -> None:
        """Forgets an earlier failure."""
        (self.path / "failed.json").unlink(missing_ok=True)

    def finish(self, record: Record) -> None:
        """Renames the record in, with the digest of the history, then removes what only an unfinished run needs."""
        seals = {_HISTORY: _sum(read_history(self.history_file))} if self.history_file.is_file() else {}
        self._write("record.json", record, seals)
        self.discard_checkpoints()

    def keep_search(self, search: Sequence[dict[str, Any]]) -> None:
        """Adds the trials of a search to the record of a run that was one of them, and so was finished before."""
        record = self.record()
        if not record.search:
            seals = read_seals(self.path / "record.json")
            self._write("record.json", record.model_copy(update={"search": list(search)}), seals)

    def discard_checkpoints(self) -> None:
        """Removes the checkpoints; the log stays."""
        for path in self.work.glob("*.pth"):
            path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes everything of an unfinished run, to start it afresh."""
        for name in ("failed.json", "history.jsonl", "spec.json"):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)

    def add_evaluation(self, evaluation: Evaluation, images: pd.DataFrame) -> None:
        """Keeps a measurement; its metrics file is renamed in last."""
        self._add(evaluation.evaluation.eval_id, "metrics.json", evaluation, {"images.parquet": images})

    def add_localisation(self, localisation: Localisation, points: pd.DataFrame, curve: pd.DataFrame) -> None:
        """Keeps a measurement of places; its JSON file is renamed in last."""
        tables = {"points.parquet": points, "curve.parquet": curve}
        self._add(localisation.localisation.eval_id, "localisation.json", localisation, tables)

    def _add(self, eval_id: str, file: str, measured: BaseModel, tables: dict[str, pd.DataFrame]) -> None:
        """Keeps the tables of a measurement, and then what it says, with their sizes."""
        folder, sizes = self.path / "eval" / eval_id, {}
        for name, table in tables.items():
            with replacing(folder / name) as temporary:
                write_frame(table, temporary, self.place(folder / name))
                sizes[name] = str(temporary.stat().st_size)
        self._write(f"eval/{eval_id}/{file}", measured, sizes)

    def _write(self, file: str, model: BaseModel, seals: dict[str, str] | None = None) -> None:
        """Writes a JSON file with its check sum, and with which file of which run it is."""
        path = self.path / file
        write_text(path, sealed(model, {**(seals or {}), PLACE: self.place(path)}))


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a `history.jsonl`. A process killed while writing leaves half a line: reading stops there.

    Raises:
        StoreError: If the file cannot be read, or is absurdly large.
    """
    rows: list[dict[str, Any]] = []
    if path.is_file():
        for line in content(path).splitlines():
            try:
                row = value(line)
            except (ValueError, RecursionError):
                break
            if not isinstance(row, dict):
                break
            rows.append(row)
    return rows


def _sum(rows: list[dict[str, Any]]) -> str:
    """Check sum of a history's epochs, however they are written."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]
