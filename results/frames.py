"""Parquet files of a store as data frames: within bounds, with columns of the kinds that a store has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from results.atomic import printable
from results.limits import limit, special

__all__ = ["StoreError", "read_frame", "read_table", "refuse_place", "write_frame"]

_LONGEST = 1000
"""Most characters of an error (ours)."""
_PLACE = b"place"
"""Where in the metadata of a file it says which file of the store it is."""
_WORDS = ("id", "split", "radius")
"""The columns that hold words; all others hold numbers or lists of numbers."""


class StoreError(RuntimeError):
    """A file of the store cannot be read; one printable line with its path and what is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…"))


def refuse_place(path: Path, said: str | None, place: str | None) -> None:
    """Refuses a file that says that it is another file of the store; one that says nothing is believed.

    Raises:
        StoreError: If `said` and `place` differ.
    """
    if said is not None and place is not None and said != place:
        raise StoreError(
            f"{path} was written as {said[:200]} and is the file of another run or measurement; copy the right one "
            "again, or remove its folder to make it again"
        )


def read_frame(path: Path, columns: Sequence[str] | None = None, place: str | None = None) -> pd.DataFrame:
    """As `read_table`, as a data frame."""
    try:
        frame: pd.DataFrame = read_table(path, columns, place).to_pandas()
        return frame
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise StoreError(f"{path} is no readable parquet file: {printable(str(error)[:300])}") from error


def write_frame(frame: pd.DataFrame, path: Path, place: str) -> None:
    """Writes a data frame as parquet, each page with a check sum that reading compares.

    Args:
        frame: Its columns are written, its index is not.
        path: The file, which may have a temporary name.
        place: The file of the store that it becomes: `<run_id>/eval/<eval_id>/images.parquet`.
    """
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _PLACE: place.encode()})
    pq.write_table(table, path, write_page_checksum=True)


def read_table(path: Path, columns: Sequence[str] | None = None, place: str | None = None) -> pa.Table:
    """A parquet file, decoded a little at a time: a few bytes of a stranger's can stand for very many equal values.

    Args:
        path: The file.
        columns: Restrict to these, in this order.
        place: Which file of the store it must be, if it says which.

    Raises:
        StoreError: If it is damaged, another file's, too large when decoded, lacks a column, or has one of another
            kind.
    """
    kind = special(path)
    if kind is not None:
        raise StoreError(f"{path} is {kind}, not a regular file; remove it, or put the file itself there")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            said = (file.schema_arrow.metadata or {}).get(_PLACE)
            refuse_place(path, None if said is None else said.decode(errors="replace"), place)
            _refuse_size(path, file)
            names = list(file.schema_arrow.names) if columns is None else list(columns)
            _refuse_columns(path, file.schema_arrow, names)
            batches, size = [], 0
            for batch in file.iter_batches(batch_size=1024, columns=names):
                size += batch.nbytes
                if size > limit("CROWD_MAX_TABLE_BYTES"):
                    raise StoreError(f"{path} is absurdly large when decoded; if genuine, raise CROWD_MAX_TABLE_BYTES")
                batches.append(batch.select(names))
            schema = pa.schema([file.schema_arrow.field(name) for name in names])
            table = pa.Table.from_batches(batches, schema.remove_metadata())
        table.validate(full=True)  # words that are no UTF-8 would be found out later
        return table
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is no readable parquet file: {printable(str(error)[:300])}") from error


def _refuse_size(path: Path, file: pq.ParquetFile) -> None:
    found = {"ROWS": file.metadata.num_rows, "COLUMNS": file.metadata.num_columns}
    for what, number in found.items():
        most = limit(f"CROWD_MAX_TABLE_{what}")
        if number > most:
            raise StoreError(f"{path} has {number} {what.lower()}; at most {most} are read: CROWD_MAX_TABLE_{what}")


def _refuse_columns(path: Path, schema: pa.Schema, names: Sequence[str]) -> None:
    """Refuses columns that are missing, there twice, or of a kind that no store has."""
    for name in names:
        places = schema.get_all_field_indices(name)
        if len(places) != 1:
            raise StoreError(f"{path} has {len(places)} columns {printable(name[:60])!r}; expected one")
        kind = schema.field(places[0]).type
        good = (
            _is_words(kind) if name in _WORDS else _is_numbers(kind) or _is_numbers(getattr(kind, "value_type", kind))
        )
        if not good and not pa.types.is_null(kind):
            raise StoreError(
                f"{path}: the column {printable(name[:60])!r} holds {printable(str(kind)[:60])}; "
                f"expected {'words' if name in _WORDS else 'numbers or lists of numbers'}"
            )


def _is_words(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_numbers(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
