"""Parquet files of a store as data frames: within bounds, with columns of the kinds that a store has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from results.atomic import printable
from results.limits import limit

__all__ = ["StoreError", "read_frame", "read_table", "write_frame"]

_LONGEST = 1000
"""Most characters of an error (ours)."""
_WORDS = ("id", "split", "radius")
"""The columns that hold words; all others hold numbers or lists of numbers."""


class StoreError(RuntimeError):
    """A file of the store cannot be read; one printable line with its path and what is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…"))


def read_frame(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """As `read_table`, as a data frame."""
    try:
        frame: pd.DataFrame = read_table(path, columns).to_pandas()
        return frame
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise StoreError(f"{path} is no readable parquet file: {printable(str(error)[:300])}") from error


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Writes a data frame as parquet, each page with a check sum that reading compares."""
    frame.to_parquet(path, index=False, write_page_checksum=True)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A parquet file, decoded a little at a time: a few bytes of a stranger's can stand for very many equal values.

    Args:
        path: The file.
        columns: Restrict to these, in this order.

    Raises:
        StoreError: If it is damaged, too large when decoded, lacks a column, or has one of another kind.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
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
