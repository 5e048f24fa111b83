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
from pathlib import Path
from typing import Any

import pandas as pd

from results.atomic import replacing, write_text
from results.claims import Claims
from results.documents import content, plain, read_model, read_seals, sealed, value
from results.frames import StoreError, read_frame, write_frame
from results.limits import limit
from results.schema import Evaluation, Failure, Localisation, Record, State
from results.spec import EvaluationSpec, LocalisationSpec, RunSpec

__all__ = ["RunFolder", "read_history"]

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
        return read_model(self.path / "spec.json", RunSpec)

    def record(self) -> Record:
        """The record of a finished run."""
        return read_model(self.path / "record.json", Record)

    def failure(self) -> Failure:
        """Why the run failed."""
        return read_model(self.path / "failed.json", Failure)

    def has_failure(self) -> bool:
        """Whether the last attempt failed: to train the run, or to measure one that is done."""
        return (self.path / "failed.json").is_file() and self.state() in ("failed", "done")

    def evaluations(self) -> list[Evaluation]:
        """All measurements of this run, in order of their ids."""
        return [read_model(path, Evaluation) for path in sorted(self.path.glob("eval/*/metrics.json"))]

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
        return [read_model(path, Localisation) for path in sorted(self.path.glob("eval/*/localisation.json"))]

    def localisation(self, eval_id: str) -> Localisation:
        """One measurement of places."""
        return read_model(self.path / "eval" / plain(eval_id) / "localisation.json", Localisation)

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
        return read_frame(self.eval_file(eval_id, name), columns)

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
            StoreError: If the file cannot be read, is absurdly large, or is not that of the finished run's record.
        """
        rows = read_history(self.history_file)
        said = read_seals(self.path / "record.json").get(_HISTORY)
        if self.history_file.is_file() and said not in (None, _sum(rows)):
            raise StoreError(
                f"{self.history_file} is damaged: it is not the one that the run was finished with; copy it again, or "
                f"remove {self.path} to train it again"
            )
        names, most = len({name for row in rows for name in row}), limit("CROWD_MAX_TABLE_ROWS")
        if names > limit("CROWD_MAX_TABLE_COLUMNS") or names * len(rows) > most:
            raise StoreError(
                f"{self.history_file} has {len(rows)} epochs with {names} names, absurd for a history; "
                "else raise CROWD_MAX_TABLE_COLUMNS and CROWD_MAX_TABLE_ROWS"
            )
        return pd.DataFrame(rows)

    # ---- writing

    def begin(self, spec: RunSpec) -> None:
        """Writes the specification, and forgets an earlier failure."""
        write_text(self.path / "spec.json", sealed(spec))
        self.forget_failure()

    def fail(self, failure: Failure) -> None:
        """Keeps the reason of a failure; checkpoints stay."""
        write_text(self.path / "failed.json", sealed(failure))

    def succeed(self) -> None:
        """Forgets an earlier failure and removes what killed processes left: all that was asked for is there."""
        self.forget_failure()
        self.discard_checkpoints()
        for leftover in self.path.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def forget_failure(self) -> None:
        """Forgets an earlier failure."""
        (self.path / "failed.json").unlink(missing_ok=True)

    def finish(self, record: Record) -> None:
        """Renames the record in, with the digest of the history, then removes what only an unfinished run needs."""
        seals = {_HISTORY: _sum(read_history(self.history_file))} if self.history_file.is_file() else {}
        write_text(self.path / "record.json", sealed(record, seals))
        self.discard_checkpoints()

    def keep_search(self, search: Sequence[dict[str, Any]]) -> None:
        """Adds the trials of a search to the record of a run that was one of them, and so was finished before."""
        record, file = self.record(), self.path / "record.json"
        if not record.search:
            write_text(file, sealed(record.model_copy(update={"search": list(search)}), read_seals(file)))

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
        folder = self.path / "eval" / evaluation.evaluation.eval_id
        with replacing(folder / "images.parquet") as temporary:
            write_frame(images, temporary)
        write_text(folder / "metrics.json", sealed(evaluation))

    def add_localisation(self, localisation: Localisation, points: pd.DataFrame, curve: pd.DataFrame) -> None:
        """Keeps a measurement of places; its JSON file is renamed in last."""
        folder = self.path / "eval" / localisation.localisation.eval_id
        for name, table in (("points.parquet", points), ("curve.parquet", curve)):
            with replacing(folder / name) as temporary:
                write_frame(table, temporary)
        write_text(folder / "localisation.json", sealed(localisation))


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
