"""A run of a recorded study in memory: from a store, into a store, against its images, against a copy of it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import ValidationError

from results.atomic import write_text
from results.recorded_files import METRICS, Entry, RecordedError, reason
from results.recorded_tables import WINDOWS, Rows, fingerprint, stored_images
from results.schema import Record
from results.store import RunFolder, StoreError, read_history

__all__ = ["Run", "difference", "findings", "from_store", "write_runs"]

_TOLERANCE = 1e-9
"""Of recomputed metrics, as a share of the largest of them: another processor may add in another order (ours)."""


class Run(NamedTuple):
    """A finished or failed run.

    Attributes:
        entry: Its line of `runs.jsonl`.
        history: Its epochs.
        images: The per-image rows of each evaluation, by its id.
    """

    entry: Entry
    history: Rows
    images: dict[str, pa.Table]


def from_store(folder: RunFolder) -> Run:
    """All of a run that a study carries.

    Raises:
        StoreError: If it is neither finished nor failed, or a file cannot be read or carried.
    """
    state = folder.state()
    if state not in ("done", "failed"):
        raise StoreError(f"{folder.path} is {state}: only finished and failed runs can be recorded")
    try:
        history = [{**row} for row in read_history(folder.history_file)]
        entry = Entry(
            run_id=folder.run_id, spec=folder.spec(), record=folder.record() if state == "done" else None,
            failure=folder.failure() if (folder.path / "failed.json").is_file() else None,
            evaluations=folder.evaluations(), epochs=len(history) if folder.history_file.is_file() else None,
        )  # fmt: skip
    except ValidationError as error:
        raise RecordedError(f"{folder.path} cannot be recorded: {reason(error)}") from error
    except (OSError, ValueError, TypeError) as error:
        raise RecordedError(f"{folder.history_file} cannot be read: {error}") from error
    images = {i: stored_images(folder.path / "eval" / i / "images.parquet", n) for i, n in entry.sizes.items()}
    return Run(entry, history, images)


def write_runs(root: Path, runs: Sequence[Run]) -> None:
    """Makes the folders of all runs beside their places, then renames each in whole."""
    staging = root / f".import-{uuid4().hex[:8]}"
    try:
        for run in runs:
            _write(RunFolder(staging / run.entry.run_id), run)
        for run in runs:
            (staging / run.entry.run_id).rename(root / run.entry.run_id)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(folder: RunFolder, run: Run) -> None:
    folder.begin(run.entry.spec)
    if run.entry.epochs is not None:
        write_text(folder.history_file, "".join(json.dumps(row) + "\n" for row in run.history))
    for measured in run.entry.evaluations:
        folder.add_evaluation(measured, run.images[measured.evaluation.eval_id].to_pandas())
    if run.entry.failure is not None:
        folder.fail(run.entry.failure)
    if run.entry.record is not None:
        folder.finish(run.entry.record)


def findings(run: Run) -> list[str]:
    """A sentence for each metric that does not follow from the per-image rows; see `Recorded.check`."""
    found = []
    for measured in run.entry.evaluations:
        eval_id = measured.evaluation.eval_id
        images = run.images[eval_id].select(["true", "predicted", *METRICS[4:]])
        computed = _metrics(images.to_pandas(), run.entry.record)
        said = measured.metrics | {f"constant_{name}": value for name, value in measured.constant.items()}
        scale = max((abs(value) for value in computed.values() if math.isfinite(value)), default=0.0)
        found += [
            f"run {run.entry.run_id}, {eval_id}: {name} is {said[name]}, but its images give {value}"
            for name, value in computed.items()
            if name in said and not _agree(said[name], value, _TOLERANCE * scale)
        ]
    return found


def _metrics(images: pd.DataFrame, record: Record | None) -> dict[str, float]:
    """All that are recomputed; of a finished run also of its constant prediction."""
    true = images["true"].astype(float)
    with np.errstate(all="ignore"):
        found = _errors(images["predicted"], true) | {name: float(images[name].mean()) for name in METRICS[4:]}
        if record is not None:
            constant = _errors(pd.Series(record.train_count_mean, true.index), true)
            found |= {f"constant_{name}": value for name, value in constant.items()}
    return found


def _errors(predicted: pd.Series[float], true: pd.Series[float]) -> dict[str, float]:
    """MAE, RMSE, NAE over the images with people, bias."""
    error = predicted - true
    parts = {"mae": error.abs(), "rmse": error**2, "nae": (error.abs() / true)[true > 0], "bias": error}
    means = {name: float(values.mean(skipna=False)) for name, values in parts.items()}
    return means | {"rmse": math.sqrt(means["rmse"])}


def _agree(said: float | None, computed: float, tolerance: float) -> bool:
    """Whether two numbers are the same up to the order of addition; what is not finite is written as null."""
    if said is None or not math.isfinite(computed):
        return said is None and not math.isfinite(computed)
    return abs(said - computed) <= tolerance


def difference(there: Run, here: Run, windows: bool) -> str | None:
    """The first place where two runs of one id differ, and both values (of per-image rows, hashes of a column)."""
    one, other = _flat(_document(there, windows)), _flat(_document(here, windows))
    for place in {**one, **other}:
        a, b = one.get(place, "nothing"), other.get(place, "nothing")
        if a != b:
            return f"{'.'.join(map(str, place))} is {a[:80]} there and {b[:80]} here"
    return None


def _document(run: Run, windows: bool) -> dict[str, Any]:
    """All of a run as plain values, in the order in which they are compared."""
    entry = run.entry.model_dump(mode="json")
    evaluations = dict(zip(run.images, entry["evaluations"], strict=True))
    images = {
        eval_id: {name: fingerprint(table[name]) for name in table.column_names if windows or name not in WINDOWS}
        for eval_id, table in run.images.items()
    }
    return entry | {"evaluations": evaluations, "history": run.history, "images": images}


def _flat(value: Any, place: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], str]:
    """What stands at each place, written so that NaN is equal to NaN, and 1 is not 1.0."""
    if not value or not isinstance(value, dict | list):
        return {place: repr(value)}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: text for key, part in parts for name, text in _flat(part, (*place, key)).items()}
