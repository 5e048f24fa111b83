"""JSON files of a store: read within bounds and checked, or refused with one line that names the file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from results.atomic import printable
from results.frames import StoreError, refuse_place
from results.limits import read_bounded
from results.schema import SCHEMA_VERSION
from results.spec import digest_of

__all__ = ["PLACE", "content", "plain", "read_model", "read_seals", "sealed", "value"]

_Model = TypeVar("_Model", bound=BaseModel)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")


PLACE = "place"
"""The seal that says where in its store a file was written to, `<run_id>/record.json`: a copy elsewhere is refused."""
_SEALS = "sealed"
"""The key of what a file carries beside its model: a check sum of all else, and what `sealed` was given."""


def sealed(model: BaseModel, seals: Mapping[str, str] | None = None) -> str:
    """A model as the JSON text of a file that tells when it was damaged.

    Args:
        model: What the file holds.
        seals: Digests of other files that belong to it.
    """
    found = json.loads(model.model_dump_json())
    beside = dict(seals or {})
    whole = found | {_SEALS: beside | {"check": digest_of([found, beside])}}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def read_model(path: Path, kind: type[_Model], place: str | None = None) -> _Model:
    """Reads and checks one JSON file of the store. One without a check sum, of an older version, is believed.

    Args:
        path: The file.
        kind: What it holds.
        place: Where it must have been written to, if it says where.
    """
    try:
        found = value(content(path))
    except (ValueError, RecursionError) as error:
        said = printable(str(error)[:200])
        raise StoreError(
            f"{path} is no whole JSON file ({said}); copy it again, or remove its folder to make it again"
        ) from error
    version = found.get("schema_version", SCHEMA_VERSION) if isinstance(found, dict) else SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        said = printable(str(version)[:60])
        raise StoreError(f"{path} has schema {said}; this version reads {SCHEMA_VERSION}: update the benchmark")
    seals = _seals(path, found)
    refuse_place(path, seals.get(PLACE), place)
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        said = printable(f"{'.'.join(str(part) for part in first['loc'])[:200]}: {first['msg'][:200]}")
        raise StoreError(f"{path} is no valid {kind.__name__}: {said}") from error


def read_seals(path: Path) -> dict[str, str]:
    """What a file carries beside its model; nothing where it cannot be read, which whoever reads the model is told."""
    try:
        return _seals(path, value(content(path)))
    except (StoreError, ValueError, RecursionError):
        return {}


def _seals(path: Path, found: Any) -> dict[str, str]:
    """Takes the seals out of a file's content and compares its check sum."""
    seals = found.pop(_SEALS, None) if isinstance(found, dict) else None
    if seals is None:
        return {}
    if not isinstance(seals, dict) or not all(isinstance(word, str) for word in seals.values()):
        raise StoreError(f"{path} is damaged: what it carries beside its content is no table of words")
    check = seals.pop("check", "")
    try:
        same = check == digest_of([found, seals])
    except (ValueError, RecursionError):  # numbers that JSON does not have
        same = False
    if not same:
        raise StoreError(
            f"{path} is damaged or was edited: its content has another check sum; copy it again, or remove its folder "
            "to make it again"
        )
    return seals


def value(text: bytes) -> Any:
    """What JSON says; a ValueError also for half characters, which no table can hold and no terminal can print."""
    found = json.loads(text)
    if b"\\ud" in text.lower():
        json.dumps(found, ensure_ascii=False).encode()
    return found


def content(path: Path) -> bytes:
    """The bytes of a small file."""
    try:
        return read_bounded(path, "CROWD_MAX_RECORD_BYTES", StoreError)
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise StoreError(f"{path} is missing; copy it again, or remove its folder to make it again") from error
        raise


def plain(name: str) -> str:
    """The name of a folder in the store, and of nothing outside it."""
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{printable(name[:60])!r} is no name of a folder of a store: letters, digits, dots and dashes"
        )
    return name
