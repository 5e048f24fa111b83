"""A run of a recorded study in memory: from a store, into a store, against a copy of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pyarrow as pa
from pydantic import ValidationError

from results.atomic import write_text
from results.recorded_files import Entry, RecordedError, reason
from results.recorded_places import Places, fingerprints, points_frame, stored_places
from results.recorded_tables import WINDOWS, Rows, fingerprint, stored_images
from results.store import RunFolder, StoreError, read_history

__all__ = ["Run", "difference", "from_store", "write_runs"]


class Run(NamedTuple):
    """A finished or failed run.

    Attributes:
        entry: Its line of `runs.jsonl`.
        history: Its epochs.
        images: The per-image rows of each evaluation, by its id.
        places: The per-image counts and the curve of each measurement of places, by its id.
    """

    entry: Entry
    history: Rows
    images: dict[str, pa.Table]
    places: dict[str, Places]


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
            evaluations=folder.evaluations(), localisations=folder.localisations(),
            epochs=len(history) if folder.history_file.is_file() else None,
        )  # fmt: skip
    except ValidationError as error:
        raise RecordedError(f"{folder.path} cannot be recorded: {reason(error)}") from error
    except (OSError, ValueError, TypeError) as error:
        raise RecordedError(f"{folder.history_file} cannot be read: {error}") from error
    images = {i: stored_images(folder.path / "eval" / i / "images.parquet", n) for i, n in entry.sizes.items()}
    places = {i: stored_places(folder.path / "eval" / i, measured) for i, measured in entry.places.items()}
    return Run(entry, history, images, places)


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
    for eval_id, places in run.places.items():
        found = run.entry.places[eval_id]
        folder.add_localisation(found, points_frame(places, found), places.curve.to_pandas())
    if run.entry.failure is not None:
        folder.fail(run.entry.failure)
    if run.entry.record is not None:
        folder.finish(run.entry.record)


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
    entry |= {"evaluations": evaluations, "history": run.history, "images": images}
    localisations = dict(zip(run.places, entry["localisations"], strict=True))
    places = {eval_id: fingerprints(found) for eval_id, found in run.places.items()}
    return entry | {"localisations": localisations, "places": places}


def _flat(value: Any, place: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], str]:
    """What stands at each place, written so that NaN is equal to NaN, and 1 is not 1.0."""
    if not value or not isinstance(value, dict | list):
        return {place: repr(value)}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: text for key, part in parts for name, text in _flat(part, (*place, key)).items()}
