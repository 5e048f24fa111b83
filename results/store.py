"""The store: one folder a run, plain files, nothing shared between runs.

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

import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pydantic import BaseModel

from results.atomic import replacing, write_text
from results.claims import Claims
from results.documents import content, plain, read_model, value
from results.frames import StoreError, read_frame, read_table
from results.limits import limit
from results.rows import LOCALISATION_COLUMNS, localisation_rows, run_rows
from results.schema import Evaluation, Failure, Localisation, Record, State
from results.spec import EvaluationSpec, LocalisationSpec, RunSpec

__all__ = ["RunFolder", "State", "Store", "StoreError", "load"]

_READERS = 8
"""Files read at once; ours."""


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
        """One row an epoch; empty where nothing was trained yet. A torn last line is left out.

        Raises:
            StoreError: If the file cannot be read, or is absurdly large.
        """
        rows = read_history(self.history_file)
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
        write_text(self.path / "spec.json", _dump(spec))
        self.succeed()

    def fail(self, failure: Failure) -> None:
        """Keeps the reason of a failure; checkpoints stay."""
        write_text(self.path / "failed.json", _dump(failure))

    def succeed(self) -> None:
        """Forgets an earlier failure: everything that was asked for is there."""
        (self.path / "failed.json").unlink(missing_ok=True)

    def finish(self, record: Record) -> None:
        """Renames the record in, then removes the checkpoints that only an unfinished run needs."""
        write_text(self.path / "record.json", _dump(record))
        self.discard_checkpoints()

    def keep_search(self, search: Sequence[dict[str, Any]]) -> None:
        """Adds the trials of a search to the record of a run that was one of them, and so was finished before."""
        record = self.record()
        if not record.search:
            write_text(self.path / "record.json", _dump(record.model_copy(update={"search": list(search)})))

    def discard_checkpoints(self) -> None:
        """Removes the checkpoints; the log stays."""
        for path in self.work.glob("*.pth"):
            path.unlink()

    def discard(self) -> None:
        """Removes everything of an unfinished run, to start it afresh."""
        for name in ("failed.json", "history.jsonl", "spec.json"):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)

    def add_evaluation(self, evaluation: Evaluation, images: pd.DataFrame) -> None:
        """Keeps a measurement; its metrics file is renamed in last."""
        folder = self.path / "eval" / evaluation.evaluation.eval_id
        with replacing(folder / "images.parquet") as temporary:
            images.to_parquet(temporary, index=False)
        write_text(folder / "metrics.json", _dump(evaluation))

    def add_localisation(self, localisation: Localisation, points: pd.DataFrame, curve: pd.DataFrame) -> None:
        """Keeps a measurement of places; its JSON file is renamed in last."""
        folder = self.path / "eval" / localisation.localisation.eval_id
        for name, table in (("points.parquet", points), ("curve.parquet", curve)):
            with replacing(folder / name) as temporary:
                table.to_parquet(temporary, index=False)
        write_text(folder / "localisation.json", _dump(localisation))


class Store:
    """All runs below one folder.

    Args:
        root: The folder; it need not exist yet.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def run(self, run_id: str) -> RunFolder:
        """The folder of one run, existing or not.

        Raises:
            StoreError: If the id is no plain name, so that its folder might be outside the store.
        """
        return RunFolder(self.root / plain(run_id))

    def runs(self) -> list[RunFolder]:
        """All runs that have begun, in order of their ids."""
        return [RunFolder(path.parent) for path in sorted(self.root.glob("*/spec.json"))]

    def find(self, prefix: str) -> RunFolder:
        """The one run whose id begins with `prefix`.

        Raises:
            StoreError: If there is none, or more than one.
        """
        found = [run for run in self.runs() if run.run_id.startswith(prefix)]
        if len(found) != 1:
            raise StoreError(f"{len(found)} runs in {self.root} begin with {prefix!r}; expected one")
        return found[0]

    def load(self, run_ids: Iterable[str] | None = None, problems: list[str] | None = None) -> pd.DataFrame:
        """One row for every evaluation of every finished run, and one for each run without any.

        Columns: `run_id`, `state`, the spec (`loss`, `loss_params` as text, `backbone`, ..., `recipe_*`), `seed`,
        `selection`, `split`, `epoch`, the metrics (`mae`, `rmse`, `nae`, `bias`, `game1`-`game3`), the same of the
        constant prediction (`constant_mae`, ...), timings, memory, where it was trained (`processor`, `device`,
        `threads`, `torch`, ...), by which `commit` and `command`, `search`, the runs
        among which a tuned one was chosen, and `reason` of a failed run.

        Args:
            run_ids: Restrict to these runs.
            problems: Where given, a run that cannot be read is left out and the reason is added here.

        Raises:
            StoreError: If a run cannot be read and there is no list of problems.
        """
        wanted = None if run_ids is None else set(run_ids)
        rows: list[dict[str, Any]] = []
        for run in self.runs():
            if wanted is None or run.run_id in wanted:
                with _noting(problems):
                    rows += _rows(run)
        return pd.DataFrame(rows)

    def images(
        self,
        evaluations: Iterable[tuple[str, str]],
        columns: Sequence[str] = ("id", "true", "predicted"),
        problems: list[str] | None = None,
    ) -> pd.DataFrame:
        """The per-image rows of many measurements, one below the other, with `run_id` and `eval_id`.

        Args:
            evaluations: Pairs of run id and evaluation id.
            columns: What is read of each image.
            problems: Where given, a file that cannot be read is left out and the reason is added here.
        """
        found: list[pa.Table] = []
        # Thousands of small files: most of the time goes into waiting for them.
        with ThreadPoolExecutor(_READERS) as pool:
            for reading in [pool.submit(self._images, *pair, columns) for pair in evaluations]:
                with _noting(problems):
                    found.append(reading.result())
        if not found:
            return pd.DataFrame({name: [] for name in ("run_id", "eval_id", *columns)})
        frame: pd.DataFrame = pa.concat_tables(found, promote_options="permissive").to_pandas()
        return frame

    def _images(self, run_id: str, eval_id: str, columns: Sequence[str]) -> pa.Table:
        """The rows of one measurement, with whose they are."""
        table = read_table(self.run(run_id).eval_file(eval_id, "images.parquet"), columns)
        for name, word in (("run_id", run_id), ("eval_id", eval_id)):
            table = table.append_column(name, pa.repeat(pa.scalar(word, pa.large_string()), len(table)))
        return table

    def localisations(self, run_ids: Iterable[str] | None = None, problems: list[str] | None = None) -> pd.DataFrame:
        """One row for every finished run, measurement of places, and radius.

        Columns: `run_id`, `eval_id`, `localizer` (its name), `localizer_params` (JSON text), `selection`, `split`,
        `radius`, `main` (whether this radius chose the threshold), `threshold`, `threshold_from`, `images`, `epoch`,
        `radii` (all, as asked for), `localizer_version`, `localisation_version`, `tp`, `fp`, `fn`, `precision`,
        `recall`, `f1`, `ap`, `error`, and `count_mae`, `count_rmse`, `count_nae`, `count_bias` of the number of points.

        Args:
            run_ids: Restrict to these runs.
            problems: See `load`.
        """
        wanted = None if run_ids is None else set(run_ids)
        rows: list[dict[str, Any]] = []
        for run in self.runs():
            if (wanted is None or run.run_id in wanted) and run.state() == "done":
                with _noting(problems):
                    rows += localisation_rows(run.localisations())
        return pd.DataFrame(rows, columns=list(LOCALISATION_COLUMNS))

    def hits(
        self, localisations: Iterable[tuple[str, str]], radii: Sequence[str], problems: list[str] | None = None
    ) -> pd.DataFrame:
        """The per-image counts of many measurements of places, one row an image and radius.

        Columns: `run_id`, `eval_id`, `radius`, `id`, `true`, `predicted`, `tp`.

        Args:
            localisations: Pairs of run id and evaluation id.
            radii: Names of radii; those that a measurement has not are left out.
            problems: See `images`.
        """
        names = ("run_id", "eval_id", "radius", "id", "true", "predicted", "tp")
        found = [pd.DataFrame({name: [] for name in names})]
        for run_id, eval_id in localisations:
            with _noting(problems):
                folder = self.run(run_id)
                known = [name for name in radii if name in folder.localisation(eval_id).scores]
                rows = folder.points(eval_id, ["id", "true", "predicted", *(f"tp_{name}" for name in known)])
                for radius in known:
                    hits = rows[["id", "true", "predicted"]].assign(tp=rows[f"tp_{radius}"])
                    found.append(hits.assign(run_id=run_id, eval_id=eval_id, radius=radius)[list(names)])
        return pd.concat(found[1:] or found, ignore_index=True)

    def curves(self, localisations: Iterable[tuple[str, str]], problems: list[str] | None = None) -> pd.DataFrame:
        """The curves over thresholds of many measurements of places, with `run_id` and `eval_id`.

        Args:
            localisations: Pairs of run id and evaluation id.
            problems: See `images`.
        """
        found = [pd.DataFrame({"run_id": [], "eval_id": []})]
        for run_id, eval_id in localisations:
            with _noting(problems):
                found.append(self.run(run_id).curve(eval_id).assign(run_id=run_id, eval_id=eval_id))
        return pd.concat(found[1:] or found, ignore_index=True)

    def histories(self, run_ids: Iterable[str], problems: list[str] | None = None) -> pd.DataFrame:
        """The epochs of many runs, one below the other, with `run_id`; see `RunFolder.history`."""
        found = [pd.DataFrame({"run_id": [], "epoch": []})]
        for run_id in run_ids:
            with _noting(problems):
                rows = self.run(run_id).history()
                if not rows.empty:
                    found.append(rows.assign(run_id=run_id))
        return pd.concat(found[1:] or found, ignore_index=True)


def load(root: str | Path = "runs") -> pd.DataFrame:
    """All finished, failed and unfinished runs below `root` as a data frame; see `Store.load`.

    Raises:
        StoreError: If there is no such folder.
    """
    if not Path(root).is_dir():
        raise StoreError(f"{root} is no folder; name the --output of `benchmark run`")
    return Store(root).load()


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


@contextmanager
def _noting(problems: list[str] | None) -> Iterator[None]:
    """Adds the reason of a file that cannot be read to `problems` and goes on; without such a list it is raised."""
    try:
        yield
    except StoreError as error:
        if problems is None:
            raise
        problems.append(str(error))


def _rows(run: RunFolder) -> list[dict[str, Any]]:
    """The rows of one run in `Store.load`."""
    state = run.state()
    done, failed = state == "done", state == "failed"
    return run_rows(
        run.run_id, state, run.spec(), run.record() if done else None, run.failure() if failed else None,
        run.evaluations() if done else (),
    )  # fmt: skip


def _dump(model: BaseModel) -> str:
    return model.model_dump_json(indent=1) + "\n"
