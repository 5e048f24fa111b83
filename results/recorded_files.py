"""What a recorded study says in words, `study.json` and `runs.jsonl`: read strictly, within bounds, or refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator

from results.atomic import printable
from results.limits import limit, read_bounded
from results.rows import run_rows
from results.schema import SCHEMA_VERSION, Evaluation, Failure, Localisation, Record
from results.spec import RunSpec
from results.store import State, StoreError

__all__ = ["ALL_FILES", "FILES", "METRICS", "RECORDED_VERSION", "Entry", "RecordedError", "Source", "Study", "counts"]
__all__ += ["entries", "entry_line", "parsed", "read_bytes", "read_own", "reason", "version_for"]

RECORDED_VERSION = 2
"""Raised when the files of a study change in a way that an older version cannot read. 2: with measurements of places; a
study without any is written as version 1, and version 1 is read."""
FILES = ("runs.jsonl", "history.parquet", "images.parquet", "summary.csv")
"""The files of every study beside `study.json`, which is written last and has their hashes."""
ALL_FILES = (*FILES, "localisation.parquet", "curves.parquet")
"""Those of a study with measurements of places."""
METRICS = ("mae", "rmse", "nae", "bias", "game1", "game2", "game3")
"""The metrics that `Recorded.check` recomputes."""

_Model = TypeVar("_Model", bound=BaseModel)


class RecordedError(StoreError):
    """A study cannot be read, written or imported. One printable line, whatever strangers wrote into their files."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message if len(message) <= 1000 else f"{message[:999]}…"))


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected one line of printable characters")
    return text


def version_for(localisations: int) -> int:
    """The `schema_version` of a study with so many measurements of places."""
    return RECORDED_VERSION if localisations else 1


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
        schema_version: 2 with measurements of places, else 1; see `RECORDED_VERSION`.
        record_schema: Of the records within, `results.schema.SCHEMA_VERSION`.
        name, title, author: What it is called, what it is about, by whom it was put together.
        exported, benchmark, command: When (ISO 8601, UTC), by which version of the benchmark, by which command line.
        runs, failed, evaluations, localisations: How many; `runs` includes the failed ones.
        losses, datasets, protocols, metrics: Names without parameters; versions of training and of measuring.
        windows: Whether the per-image rows have the mass and the people of their windows.
        sources, sha256: The studies that were merged into this one; the hash of each of the other files.
    """

    schema_version: Annotated[int, Field(ge=1, le=RECORDED_VERSION)]
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
    localisations: NonNegativeInt = 0
    losses: list[_Line]
    datasets: list[_Line]
    protocols: list[int]
    metrics: list[int]
    windows: bool
    sources: list[Source]
    sha256: dict[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """The files beside `study.json`."""
        return ALL_FILES if self.localisations else FILES

    @model_validator(mode="after")
    def _version(self) -> Study:
        if self.schema_version != version_for(self.localisations):
            raise ValueError(
                f"schema_version is {self.schema_version}, but with {self.localisations} localisations it is "
                f"{version_for(self.localisations)}"
            )
        return self


class Entry(_Strict):
    """A line of `runs.jsonl`.

    Attributes:
        run_id, spec, record, failure, evaluations: What the run's files say.
        localisations: The measurements of places; the line does not mention them where there are none.
        epochs: Their number, None where the run has no history file.
    """

    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    spec: RunSpec
    record: Record | None
    failure: Failure | None
    evaluations: list[Evaluation]
    epochs: NonNegativeInt | None
    localisations: list[Localisation] = []

    @property
    def state(self) -> State:
        """As `RunFolder.state` calls it."""
        return "failed" if self.record is None else "done"

    @property
    def sizes(self) -> dict[str, int]:
        """The number of images of each evaluation, by its id."""
        return {e.evaluation.eval_id: e.images for e in self.evaluations}

    @property
    def places(self) -> dict[str, Localisation]:
        """The measurements of places, by their ids."""
        return {found.localisation.eval_id: found for found in self.localisations}

    def rows(self) -> list[dict[str, Any]]:
        """The run's rows in `Store.load`."""
        return run_rows(self.run_id, self.state, self.spec, self.record, self.failure, self.evaluations)

    @model_validator(mode="after")
    def _one_run(self) -> Entry:
        ended = [part for part in (self.record, self.failure) if part is not None]
        if not ended:
            raise ValueError(f"run {self.run_id} has neither record nor failure")
        specs = (self.spec, *(part.spec for part in ended))
        parts = (*ended, *self.evaluations, *self.localisations)
        for found in (*(spec.run_id for spec in specs), *(part.run_id for part in parts)):
            if found != self.run_id:
                raise ValueError(f"run {self.run_id} holds a part of run {found}, or its specification was changed")
        ids = [e.evaluation.eval_id for e in self.evaluations]
        if ids != sorted(set(ids)):
            raise ValueError(f"the evaluations of run {self.run_id} are not in order, or one is there twice")
        for measured in self.localisations:
            _refuse_places(self.run_id, measured)
        ids = [measured.localisation.eval_id for measured in self.localisations]
        if ids != sorted(set(ids)):
            raise ValueError(f"the localisations of run {self.run_id} are not in order, or one is there twice")
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
    bare = record.model_copy(update={"timings": {}, "memory": {}})
    own = {"selection", "split", "eval_id", "epoch", "images", "reason", "finished_epochs"}
    own |= run_rows(entry.run_id, "done", entry.spec, bare, None, ())[0].keys()
    metrics = {*METRICS, *(name for evaluation in entry.evaluations for name in evaluation.metrics)}
    for name, times in Counter([*record.timings, *record.memory, *metrics]).items():
        if times > 1 or name in own or name.startswith("constant_"):
            raise ValueError(f"run {entry.run_id}: a timing or metric is called {name!r}, which is another column's")


def _refuse_places(run_id: str, measured: Localisation) -> None:
    """Refuses a measurement of places that cannot be, or whose words cannot be a folder's, a column's or printed."""
    spec, known = measured.localisation, measured.scores
    if not re.fullmatch(r"\w{1,64}", spec.localizer, re.ASCII):
        raise ValueError(f"run {run_id}: its localizer is called {spec.localizer[:99]!r}, which is no plain word")
    names = [*spec.params, *map(str, spec.params.values()), *spec.radii, *known, *measured.counts]
    for name in (*names, *(name for scores in known.values() for name in scores)):
        if not name.isprintable() or len(name) > 1000:
            raise ValueError(f"run {run_id}, {spec.eval_id}: {name[:99]!r} is too long or cannot be printed")
    if not all(0 <= number < 10**6 for number in (spec.version, spec.metrics)) or measured.images < 1:
        raise ValueError(f"run {run_id}, {spec.eval_id} has an impossible number of images, or an impossible version")
    swept = any(":" in text for text in spec.radii)  # `1:100` stands for a hundred of them
    if spec.main not in known or not (swept or sorted(known) == sorted(spec.radii)):
        raise ValueError(f"run {run_id}, {spec.eval_id} has scores at other radii than its specification says")
    if measured.threshold_from == "none" and measured.threshold is not None:
        raise ValueError(f"run {run_id}, {spec.eval_id} has a threshold that comes from nowhere")


def read_bytes(path: Path) -> bytes:
    """A file's content, if it is a file of a bearable size (`CROWD_MAX_RECORDED_BYTES`)."""
    if not path.is_file():
        raise RecordedError(f"{path} is missing: {path.parent} is no recorded study, or was copied in part")
    return read_bounded(path, "CROWD_MAX_RECORDED_BYTES", RecordedError)


def read_own(path: Path) -> bytes:
    """The content of a study's file, which must lie in the study: a stranger's link may lead anywhere."""
    if path.is_symlink():
        raise RecordedError(f"{path} is a link, which may lead out of the study; put the file itself in its place")
    return read_bytes(path)


def parsed(place: str, text: bytes, kind: type[_Model]) -> _Model:
    """Strict: no unknown key, no number in quotes. `place` is for messages."""
    most = limit("CROWD_MAX_RECORD_BYTES")
    if len(text) > most:
        raise RecordedError(f"{place} has {len(text)} bytes; at most {most} are read; CROWD_MAX_RECORD_BYTES")
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
    most = limit("CROWD_MAX_RUNS")
    if len(lines) > most:
        raise RecordedError(f"{path} has {len(lines)} runs; at most {most} are read; CROWD_MAX_RUNS")
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
        text = entry.model_dump_json(exclude=None if entry.localisations else {"localisations"}).encode()
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
        "localisations": sum(len(entry.localisations) for entry in found),
        "losses": sorted({entry.spec.loss for entry in found}),
        "datasets": sorted({entry.spec.dataset for entry in found}),
        "protocols": sorted({entry.spec.protocol for entry in found}),
        "metrics": sorted({e.evaluation.metrics for entry in found for e in entry.evaluations}),
    }
