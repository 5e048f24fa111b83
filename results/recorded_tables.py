"""What a recorded study says in tables: `history.parquet` and `images.parquet`, which are exact, and `summary.csv`.

`results.recorded_places` makes the tables of places, by the same means.

Of an epoch's row, a column carries what is a number of the column's type; `layout` names the row's keys in their order,
as JSON: `[name]` where the value stands in the column of that name, else `[name, value]`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.limits import limit
from results.recorded_files import METRICS, RecordedError, read_bytes

__all__ = ["KEY", "WINDOWS", "Rows", "fingerprint", "history_table", "images_table", "packed", "parts"]
__all__ += ["read_histories", "read_images", "read_table", "refuse_gaps", "stacked", "stored_images", "summary"]

Rows = list[dict[str, Any]]
"""The lines of a `history.jsonl`."""

WINDOWS = {"mass": pa.list_(pa.float32()), "people": pa.list_(pa.int32())}
_COUNTS = {"id": pa.string(), **dict.fromkeys(("height", "width", "true"), pa.int64()), "predicted": pa.float64()}
_COUNTS |= {**dict.fromkeys(("game1", "game2", "game3"), pa.float64()), "window_rows": pa.int64()}
_IMAGES = {False: _COUNTS, True: _COUNTS | WINDOWS}
"""The columns of per-image rows without and with windows."""
KEY = {"run_id": pa.string(), "eval_id": pa.string()}
"""The first columns of a table of many measurements."""
_SUMMARY: tuple[str, ...] = ("run_id", "loss", "loss_params", "loss_version", "backbone", "head", "stride", "weights")
_SUMMARY += ("dataset", "dataset_params", "noise", "noise_seed", "recipe", "recipe_epochs", "recipe_crop", "recipe_lr")
_SUMMARY += ("seed", "selection", "split", "epoch", "images", *METRICS, "constant_mae")


def images_table(images: Mapping[tuple[str, str], pa.Table], windows: bool) -> pa.Table:
    """The per-image rows of all evaluations, by run id and evaluation id, one below the other."""
    return stacked(images, _IMAGES[windows])


def stacked(found: Mapping[tuple[str, str], pa.Table], columns: Mapping[str, pa.DataType]) -> pa.Table:
    """The rows of many measurements one below the other, with their ids."""
    schema = pa.schema({**KEY, **columns})
    tables = [schema.empty_table()]
    for key, table in found.items():
        keys = [pa.repeat(pa.scalar(part, pa.string()), len(table)) for part in key]
        tables.append(pa.table([*keys, *table.select([*columns]).columns], schema))
    return pa.concat_tables(tables).combine_chunks()  # else the bytes would depend on how it was read


def read_images(
    path: Path, content: bytes, counts: Mapping[tuple[str, str], int], windows: bool
) -> dict[tuple[str, str], pa.Table]:
    """The per-image rows of each evaluation, of which there must be `counts`."""
    table = read_table(path, content, lambda _: pa.schema({**KEY, **_IMAGES[windows]}))
    refuse_gaps(path, table)
    return parts(path, table, counts)


def stored_images(path: Path, count: int) -> pa.Table:
    """The per-image rows of a measurement in a store, with their windows if there are any."""
    table = read_table(path, read_bytes(path), lambda found: pa.schema(_IMAGES["mass" in found.names]))
    refuse_gaps(path, table)
    if len(table) != count:
        raise RecordedError(f"{path} has {len(table)} images; metrics.json beside it says {count}")
    return table


def history_table(histories: Mapping[str, Rows]) -> pa.Table:
    """The epochs of all runs, by run id, one below the other."""
    rows = [row for found in histories.values() for row in found]
    types: dict[str, pa.DataType] = {}
    for name, value in (item for row in rows for item in row.items()):
        kind = _column_type(name, value)
        if kind is not None and (name not in types or pa.types.is_floating(kind)):
            types[name] = kind
    carried = [{n: v for n, v in row.items() if n in types and _column_type(n, v) == types[n]} for row in rows]
    columns = {name: pa.array([own.get(name) for own in carried], kind) for name, kind in types.items()}
    layouts = [
        json.dumps([[name] if name in own else [name, value] for name, value in row.items()])
        for row, own in zip(rows, carried, strict=True)
    ]
    ids = pa.array([run_id for run_id, found in histories.items() for _ in found], pa.string())
    return pa.table({"run_id": ids, **columns, "layout": pa.array(layouts, pa.string())})


def _column_type(name: str, value: Any) -> pa.DataType | None:
    """Of the column that carries a value exactly; None where `layout` must."""
    if name in ("run_id", "layout"):
        return None
    if type(value) is int:
        return pa.int64() if -(2**63) <= value < 2**63 else None
    return pa.float64() if type(value) is float else None


def read_histories(path: Path, content: bytes, counts: Mapping[str, int]) -> dict[str, Rows]:
    """The epochs of each run, as its history.jsonl had them; there must be `counts`."""

    def wanted(found: pa.Schema) -> pa.Schema:
        numbers = [field for field in found if field.type in (pa.int64(), pa.float64())]
        return pa.schema([("run_id", pa.string()), *numbers, ("layout", pa.string())])

    table = read_table(path, content, wanted)
    found = parts(path, table, {(run_id,): count for run_id, count in counts.items()})
    try:
        rows = {run_id: list(map(_epoch, part.to_pylist())) for (run_id,), part in found.items()}
        again = history_table(rows)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RecordedError(f"{path} has a row that does not fit its layout: {error!r}") from error
    if again.schema != table.schema or list(map(fingerprint, again.columns)) != list(map(fingerprint, table.columns)):
        raise RecordedError(f"{path} has a row that does not fit its layout")
    return rows


def _epoch(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value[0] if value else row[name] for name, *value in json.loads(row["layout"])}


def packed(table: pa.Table) -> bytes:
    """As a parquet file: numbers split by byte, which zstd packs far better, words and integers as a dictionary."""
    fields = [(f.type, f.name, pa.types.is_list(f.type)) for f in table.schema]
    columns = [(kind.value_type, f"{name}.list.element") if nested else (kind, name) for kind, name, nested in fields]
    floats = [path for kind, path in columns if pa.types.is_floating(kind)]
    others = [path for kind, path in columns if not pa.types.is_floating(kind)]
    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression="zstd", compression_level=9, use_dictionary=others, use_byte_stream_split=floats,
        store_schema=False,
    )  # fmt: skip
    return sink.getvalue()


def summary(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """`summary.csv`: one line an evaluation, from the rows of `Store.load`; metrics rounded, for people."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(_SUMMARY)
    writer.writerows([_cell(row.get(name)) for name in _SUMMARY] for row in rows if "eval_id" in row)
    return sink.getvalue().encode()


def _cell(value: Any) -> Any:
    """A number rounded, a text so that no spreadsheet takes it for a formula."""
    if isinstance(value, float):
        return repr(round(value, 4)) if abs(value) >= 1 else f"{value:.4g}"
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def fingerprint(column: pa.ChunkedArray) -> str:
    """The same for columns of one type that are equal to the bit; a gap in floats is NaN, and NaN is equal to NaN."""
    if pa.types.is_list(column.type):
        return fingerprint(pc.list_value_length(column)) + fingerprint(pc.list_flatten(column))
    return hashlib.sha256(json.dumps(column.to_numpy().tolist()).encode()).hexdigest()[:16]


def read_table(
    path: Path, content: bytes, wanted: Callable[[pa.Schema], pa.Schema], columns: Callable[[str], bool] | None = None
) -> pa.Table:
    """A parquet file whose size, columns and types are checked before anything is decoded.

    `wanted` says, knowing the columns that are there, which there must be; where `columns` is given, the others that
    it says no to are not looked at. Where there are no rows, the types say nothing.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        rows, leaves = file.metadata.num_rows, file.metadata.num_columns
        for what, number in (("ROWS", rows), ("COLUMNS", leaves)):
            most = limit(f"CROWD_MAX_TABLE_{what}")
            if number > most:
                raise RecordedError(
                    f"{path} has {number} {what.lower()}; at most {most} are read: CROWD_MAX_TABLE_{what}"
                )
        fields = [field for field in file.schema_arrow if columns is None or columns(field.name)]
        found = pa.schema([(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in fields])
        schema = wanted(found)
        if schema != found and (rows or schema.names != found.names):
            known, there = ([f"{f.name} ({f.type})" for f in part] for part in (schema, found))
            raise RecordedError(f"{path} has the columns {', '.join(there)}; expected {', '.join(known)}")
        if not rows:
            return schema.empty_table()
        if columns is None:
            table = pa.Table.from_batches(_bounded(path, file, None), file.schema_arrow).cast(schema)
        else:
            table = pa.Table.from_batches(_bounded(path, file, schema.names)).select(schema.names).cast(schema)
        table.validate(full=True)  # words that are no UTF-8 would be found out later
        return table
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RecordedError(f"{path} is no readable parquet file: {error}") from error


def _bounded(path: Path, file: pq.ParquetFile, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    """What a file decodes to, a little at a time: a few bytes of a file can stand for very many equal values."""
    size, most = 0, limit("CROWD_MAX_TABLE_BYTES")
    for batch in file.iter_batches(batch_size=1024, columns=columns):
        size += batch.nbytes
        if size > most:
            raise RecordedError(f"{path} has more than {most} bytes when decoded; CROWD_MAX_TABLE_BYTES raises that")
        yield batch


def refuse_gaps(path: Path, table: pa.Table) -> None:
    """Nothing may be missing; but of floats, where it is NaN."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        levels = (column, pc.list_flatten(column)) if pa.types.is_list(column.type) else (column,)
        if any(level.null_count and not pa.types.is_floating(level.type) for level in levels):
            raise RecordedError(f"{path}: values of {name!r} are missing")


def parts(path: Path, table: pa.Table, counts: Mapping[Any, int]) -> dict[Any, pa.Table]:
    """The rows of each key, which stands in the first columns; refuses others than so many to each key, in order."""
    sizes, keys = list(counts.values()), list(zip(*counts, strict=True))
    if sum(sizes) != len(table):
        raise RecordedError(f"{path} has {len(table)} rows; its runs have {sum(sizes)}")
    for column, part in zip(table.columns, keys, strict=False):
        if not column.equals(pa.chunked_array([np.repeat(np.array(part, object), sizes)], pa.string())):
            raise RecordedError(f"{path} has rows that are not, in order, those of the runs in runs.jsonl")
    rest = table.select(list(range(len(keys), table.num_columns)))
    starts = np.cumsum([0, *sizes])
    return {key: rest.slice(start, size) for (key, size), start in zip(counts.items(), starts, strict=False)}
