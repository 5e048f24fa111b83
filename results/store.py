"""The store: one folder a run, plain files, nothing shared between runs.

See `results.run_folder` for the files of a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from results.documents import plain
from results.frames import StoreError, read_table
from results.rows import LOCALISATION_COLUMNS, localisation_rows, run_rows
from results.run_folder import RunFolder, read_history
from results.schema import State

__all__ = ["RunFolder", "State", "Store", "StoreError", "load", "read_history"]

_READERS = 8
"""Files read at once; ours."""


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

    def load(
        self, run_ids: Iterable[str] | None = None, problems: list[str] | None = None, *, checked: bool = False
    ) -> pd.DataFrame:
        """One row for every evaluation of every finished run, and one for each run without any.

        Columns: `run_id`, `state`, the spec (`loss`, `loss_params` as text, `backbone`, ..., `recipe_*`), `seed`,
        `selection`, `split`, `epoch`, the metrics (`mae`, `rmse`, `nae`, `bias`, `game1`-`game3`), the same of the
        constant prediction (`constant_mae`, ...), timings, memory, where it was trained (`processor`, `device`,
        `threads`, `torch`, ...), by which `commit` and `command`, `search`, the runs
        among which a tuned one was chosen, and `reason` of a failed run.

        Args:
            run_ids: Restrict to these runs.
            problems: Where given, a run that cannot be read is left out and the reason is added here.
            checked: Whether to look at the history and the tables of finished runs, too; see `RunFolder.check`.

        Raises:
            StoreError: If a run cannot be read and there is no list of problems.
        """
        wanted = None if run_ids is None else set(run_ids)
        rows: list[dict[str, Any]] = []
        for run in self.runs():
            if wanted is None or run.run_id in wanted:
                with _noting(problems):
                    found = _rows(run)
                    if checked and run.state() == "done":
                        run.check_tables()
                    rows += found
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
        folder = self.run(run_id)
        path = folder.eval_file(eval_id, "images.parquet")
        table = read_table(path, columns, folder.place(path))
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
        found: list[dict[str, Any]] = []
        for run_id in run_ids:
            with _noting(problems):
                found += [row | {"run_id": run_id} for row in self.run(run_id).epochs()]
        return pd.DataFrame(found) if found else pd.DataFrame({"run_id": [], "epoch": []})


def load(root: str | Path = "runs") -> pd.DataFrame:
    """All finished, failed and unfinished runs below `root` as a data frame; see `Store.load`.

    Raises:
        StoreError: If there is no such folder.
    """
    if not Path(root).is_dir():
        raise StoreError(f"{root} is no folder; name the --output of `benchmark run`")
    return Store(root).load()


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
