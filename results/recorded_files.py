"""What a recorded study says in words, `study.json` and `runs.jsonl`: read strictly, within bounds, or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator

from results.atomic import printable
from results.schema import SCHEMA_VERSION, Evaluation, Failure, Record
from results.spec import RunSpec
from results.store import State, StoreError, run_rows

__all__ = ["METRICS", "RECORDED_VERSION", "Entry", "RecordedError", "Source", "Study", "counts", "entries"]
__all__ += ["entry_line", "parsed", "read_bytes", "reason"]

RECORDED_VERSION = 1
"""Raised when the files of a study change in a way that an older version cannot read."""
METRICS = ("mae", "rmse", "nae", "bias", "game1", "game2", "game3")
"""The metrics that `Recorded.check` recomputes."""

# Bounds on what is read of strangers' files (ours): far above any study, far below what exhausts a machine.
MAX_FILE = 4 * 2**30
"""Bytes of one file."""
MAX_LINE = 16 * 2**20
"""Bytes of one run's line, and of `study.json`."""
MAX_RUNS = 100_000

_Model = TypeVar("_Model", bound=BaseModel)


class RecordedError(StoreError):
    """A study cannot be read, written or imported. One printable line, whatever strangers wrote into their files."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message if len(message) <= 1000 else f"{message[:999]}…"))


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected one line of printable characters")
    return text


_Line = Annotated[str, Field(max_length=1000), AfterValidator(_one_line)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
_Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(_Strict):
    """A study that went into a merged one."""

    name: _Name
    title: _Line
    author: _Line
    exported: _Time
    runs: NonNegativeInt


class Study(_Strict):
    """`study.json`.

    Attributes:
        schema_version, record_schema: `RECORDED_VERSION`, and of the records within, `results.schema.SCHEMA_VERSION`.
        name, title, author: What it is called, what it is about, by whom it was put together.
        exported, benchmark, command: When (ISO 8601, UTC), by which version of the benchmark, by which command line.
        runs, failed, evaluations: How many; `runs` includes the failed ones.
        losses, datasets, protocols, metrics: Names without parameters; versions of training and of measuring.
        windows: Whether the per-image rows have the mass and the people of their windows.
        sources, sha256: The studies that were merged into this one; the hash of each of the other files.
    """

    schema_version: Annotated[int, Field(ge=RECORDED_VERSION, le=RECORDED_VERSION)]
    record_schema: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)]
    name: _Name
    title: _Line
    author: _Line
    exported: _Time
    benchmark: _Line
    command: str
    runs: NonNegativeInt
    failed: NonNegativeInt
    evaluations: NonNegativeInt
    losses: list[_Line]
    datasets: list[_Line]
    protocols: list[int]
    metrics: list[int]
    windows: bool
    sources: list[Source]
    sha256: dict[str, str]


class Entry(_Strict):
    """A line of `runs.jsonl`; `epochs` is their number, None where the run has no history file."""

    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    spec: RunSpec
    record: Record | None
    failure: Failure | None
    evaluations: list[Evaluation]
    epochs: NonNegativeInt | None

    @property
    def state(self) -> State:
        """As `RunFolder.state` calls it."""
        return "failed" if self.record is None else "done"

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images of each evaluation, by its id."""
        return {e.evaluation.eval_id: e.images for e in self.evaluations}

    def rows(self) -> list[dict[str, Any]]:
        """The run's rows in `Store.load`."""
        return run_rows(self.run_id, self.state, self.spec, self.record, self.failure, self.evaluations)

    @model_validator(mode="after")
    def _one_run(self) -> Entry:
        ended = [part for part in (self.record, self.failure) if part is not None]
        if not ended:
            raise ValueError(f"run {self.run_id} has neither record nor failure")
        specs = (self.spec, *(part.spec for part in ended))
        for found in (*(spec.run_id for spec in specs), *(part.run_id for part in (*ended, *self.evaluations))):
            if found != self.run_id:
                raise ValueError(f"run {self.run_id} holds a part of run {found}, or its specification was changed")
        ids = [e.evaluation.eval_id for e in self.evaluations]
        if ids != sorted(set(ids)):
            raise ValueError(f"the evaluations of run {self.run_id} are not in order, or one is there twice")
        if any(e.images < 1 or not 0 <= e.evaluation.metrics < 10**6 for e in self.evaluations):
            raise ValueError(f"run {self.run_id} has an impossible number of images or version of the metrics")
        for name, value in (*self.spec, *self.spec.loss_params.items(), *self.spec.dataset_params.items()):
            if not f"{name}{value}".isprintable():
                raise ValueError(f"run {self.run_id}: {name!r} of its spec has characters that cannot be printed")
        if self.record is not None:
            _refuse_names(self, self.record)
        return self


def _refuse_names(entry: Entry, record: Record) -> None:
    """Refuses free names, of timings and metrics, that would take the place of another column of `Store.load`."""
    if not isinstance(record.environment.get("libraries") or {}, dict):
        raise ValueError(f"run {entry.run_id}: record.environment.libraries is no table")
    bare = record.model_copy(update={"timings": {}, "memory": {}})
    own = {"selection", "split", "eval_id", "epoch", "images", "reason", "finished_epochs"}
    own |= run_rows(entry.run_id, "done", entry.spec, bare, None, ())[0].keys()
    metrics = {*METRICS, *(name for evaluation in entry.evaluations for name in evaluation.metrics)}
    for name, times in Counter([*record.timings, *record.memory, *metrics]).items():
        if times > 1 or name in own or name.startswith("constant_"):
            raise ValueError(f"run {entry.run_id}: a timing or metric is called {name!r}, which is another column's")


def read_bytes(path: Path) -> bytes:
    """A file's content, if it is a file of a bearable size."""
    if not path.is_file():
        raise RecordedError(f"{path} is missing: {path.parent} is no recorded study, or was copied in part")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise RecordedError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_FILE:
        raise RecordedError(f"{path} is larger than {MAX_FILE} bytes, the most that is read")
    return content


def parsed(place: str, text: bytes, kind: type[_Model]) -> _Model:
    """Strict: no unknown key, no number in quotes. `place` is for messages."""
    if len(text) > MAX_LINE:
        raise RecordedError(f"{place} has {len(text)} bytes; at most {MAX_LINE} are read")
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise RecordedError(f"{place} cannot be read by this version of the benchmark: {reason(error)}") from error


def reason(error: ValidationError) -> str:
    """Where the first mistake is, and what it is."""
    first = error.errors()[0]
    where = "".join(f"{part}." for part in first["loc"]).rstrip(".")
    return f"{where}: {first['msg']}".removeprefix(": ").replace("Value error, ", "")


def entries(path: Path, text: bytes) -> list[Entry]:
    """The lines of `runs.jsonl`."""
    lines = text.removesuffix(b"\n").split(b"\n")
    if len(lines) > MAX_RUNS:
        raise RecordedError(f"{path} has {len(lines)} runs; at most {MAX_RUNS} are read")
    found = [parsed(f"{path}, line {number}", line, Entry) for number, line in enumerate(lines, 1)]
    for entry in found:
        entry_line(path, entry)
    ids = [entry.run_id for entry in found]
    if ids != sorted(set(ids)):
        raise RecordedError(f"{path}: its runs are not in order of their ids, or one is there twice")
    return found


def entry_line(path: Path, entry: Entry) -> bytes:
    """An entry's line, if it reads back the same: JSON has no NaN and no infinity, and UTF-8 no half characters."""
    try:
        text = entry.model_dump_json().encode()
        same = Entry.model_validate_json(text, strict=True) == entry
    except ValueError:
        same = False
    if not same:
        raise RecordedError(f"{path}: run {entry.run_id} holds what JSON cannot carry, such as an infinite number")
    return text + b"\n"


def counts(found: Sequence[Entry]) -> dict[str, Any]:
    """What `study.json` says of the runs."""
    return {
        "runs": len(found),
        "failed": sum(entry.state == "failed" for entry in found),
        "evaluations": sum(len(entry.evaluations) for entry in found),
        "losses": sorted({entry.spec.loss for entry in found}),
        "datasets": sorted({entry.spec.dataset for entry in found}),
        "protocols": sorted({entry.spec.protocol for entry in found}),
        "metrics": sorted({e.evaluation.metrics for entry in found for e in entry.evaluations}),
    }
