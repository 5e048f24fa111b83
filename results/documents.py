"""JSON files of a store: read within bounds and checked, or refused with one line that names the file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from results.atomic import printable
from results.frames import StoreError
from results.limits import limit
from results.schema import SCHEMA_VERSION

__all__ = ["content", "plain", "read_model", "value"]

_Model = TypeVar("_Model", bound=BaseModel)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")


def read_model(path: Path, kind: type[_Model]) -> _Model:
    """Reads and checks one JSON file of the store."""
    try:
        found = value(content(path))
    except (ValueError, RecursionError) as error:
        said = printable(str(error)[:200])
        raise StoreError(f"{path} is no whole JSON file ({said}); delete its folder to train it again") from error
    version = found.get("schema_version", SCHEMA_VERSION) if isinstance(found, dict) else SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        said = printable(str(version)[:60])
        raise StoreError(f"{path} has schema {said}; this version reads {SCHEMA_VERSION}: update the benchmark")
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        said = printable(f"{'.'.join(str(part) for part in first['loc'])[:200]}: {first['msg'][:200]}")
        raise StoreError(f"{path} is no valid {kind.__name__}: {said}") from error


def value(text: bytes) -> Any:
    """What JSON says; a ValueError also for half characters, which no table can hold and no terminal can print."""
    found = json.loads(text)
    if b"\\ud" in text.lower():
        json.dumps(found, ensure_ascii=False).encode()
    return found


def content(path: Path) -> bytes:
    """The bytes of a small file."""
    most = limit("CROWD_MAX_RECORD_BYTES")
    try:
        with path.open("rb") as file:
            found = file.read(most + 1)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(found) > most:
        raise StoreError(f"{path} has more than {most} bytes, absurd for what it is; else raise CROWD_MAX_RECORD_BYTES")
    return found


def plain(name: str) -> str:
    """The name of a folder in the store, and of nothing outside it."""
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{printable(name[:60])!r} is no name of a folder of a store: letters, digits, dots and dashes"
        )
    return name
