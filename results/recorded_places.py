"""Where people are, in a recorded study: `localisation.parquet` and `curves.parquet`.

- `localisation.parquet` has a row for every image of every measurement of places: the numbers of heads and of points,
  `tp`, the numbers of matched pairs at each radius, in the order of `scores` in `runs.jsonl`, and `error`, the sums of
  their distances (pixels of the stored images), with gaps at radii for which the store has none, as of a sweep.
- `curves.parquet` has the curves over thresholds, as the store has them, and `heads`, the number of heads of the split,
  from which follow precision = tp / predicted, recall = tp / heads, F1 = 2 tp / (predicted + heads). Where that gives a
  number to the bit, the file has a gap in its place: doubles hardly pack.

Points, scores, heads and matches are not carried: of 316 images with 124 points each, points and scores alone would be
345 kB a measurement, ten times all the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from results.recorded_files import RecordedError, read_bytes
from results.recorded_tables import KEY, fingerprint, parts, read_table, refuse_gaps, stacked
from results.schema import Localisation

__all__ = ["Places", "curves_table", "fingerprints", "hits_frames", "places_table", "points_frame", "read_places"]
__all__ += ["stored_places"]

_IMAGE = {"id": pa.string(), **dict.fromkeys(("height", "width", "true", "predicted"), pa.int64())}
_LISTS = {"tp": pa.list_(pa.int64()), "error": pa.list_(pa.float64())}
_WHERE = {"split": pa.string(), "radius": pa.string()}
_POINTS = {"threshold": pa.float64(), "tp": pa.int64(), "predicted": pa.int64()}
_RATES = dict.fromkeys(("precision", "recall", "f1"), pa.float64())
_STORED = _POINTS | _RATES | _WHERE
"""The columns of a `curve.parquet`."""
_CURVES = _WHERE | _POINTS | {"heads": pa.int64()} | _RATES
_MOST = 2**53
"""No number of heads is larger, so that each is exact as a float."""

Key = tuple[str, str]
"""Run id and evaluation id."""


class Places(NamedTuple):
    """What a study carries of a measurement of places.

    Attributes:
        images: A row for each image, as in `localisation.parquet`.
        curve: As in `curve.parquet`.
    """

    images: pa.Table
    curve: pa.Table


def stored_places(folder: Path, measured: Localisation) -> Places:
    """What is carried of a measurement in a store.

    Raises:
        RecordedError: If a file cannot be read, or has not the columns, types or rows that `localisation.json` says.
    """
    path = folder / "points.parquet"
    tp = [f"tp_{radius}" for radius in measured.scores]
    kinds = _IMAGE | dict.fromkeys(tp, pa.int64()) | {f"error_{radius}": pa.float64() for radius in measured.scores}

    def schema(found: pa.Schema) -> pa.Schema:
        missing = [name for name in (*_IMAGE, *tp) if name not in found.names]
        return pa.schema([(name, kinds[name]) for name in (*found.names, *missing)])

    table = read_table(path, read_bytes(path), schema, kinds.__contains__)
    refuse_gaps(path, table)
    if len(table) != measured.images:
        raise RecordedError(f"{path} has {len(table)} images; localisation.json beside it says {measured.images}")
    lists = [_listed(table, [f"{name}_{radius}" for radius in measured.scores], _LISTS[name]) for name in _LISTS]
    images = pa.table([*table.select([*_IMAGE]).columns, *lists], pa.schema(_IMAGE | _LISTS))
    return Places(images, _stored_curve(folder / "curve.parquet", measured))


def _listed(table: pa.Table, names: list[str], kind: pa.DataType) -> pa.Array:
    """Columns as one of lists, with gaps for those that are not there."""
    known = np.array([name in table.column_names for name in names])
    gap = np.zeros(len(table), kind.value_type.to_pandas_dtype())
    values = np.stack([table[n].to_numpy() if there else gap for n, there in zip(names, known, strict=True)], axis=1)
    mask = np.broadcast_to(~known, values.shape).ravel()
    offsets = np.arange(len(table) + 1, dtype=np.int32) * len(names)
    flat = pa.array(values.ravel(), kind.value_type, mask=mask, from_pandas=False)
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def _stored_curve(path: Path, measured: Localisation) -> pa.Table:
    def schema(found: pa.Schema) -> pa.Schema:
        names = [name for name in found.names if name in _STORED]
        return pa.schema([(name, _STORED[name]) for name in names or _STORED])

    table = read_table(path, read_bytes(path), schema)
    if set(table.column_names) != set(_STORED):
        raise RecordedError(f"{path} has the columns {', '.join(table.column_names)}; expected {', '.join(_STORED)}")
    table = table.select([*_STORED])
    refuse_gaps(path, table)
    _refuse_curve(path, table, measured)
    return table


def points_frame(places: Places, measured: Localisation) -> pd.DataFrame:
    """The columns of `points.parquet` that are carried, as `image_points` names them."""
    columns: dict[str, Any] = {name: places.images[name] for name in _IMAGE}
    flat = {name: pc.list_flatten(places.images[name]).combine_chunks() for name in _LISTS}
    for place, radius in enumerate(measured.scores):
        for name, values in flat.items():
            column = values[place :: len(measured.scores)]
            if column.null_count < len(column):
                columns[f"{name}_{radius}"] = column
    frame: pd.DataFrame = pa.table(columns).to_pandas()
    return frame


def hits_frames(run_id: str, places: Places, measured: Localisation, radii: Sequence[str]) -> list[pd.DataFrame]:
    """The rows of a measurement in `Store.hits`, for each of its radii that is asked for."""
    points = points_frame(places, measured)
    found = []
    for radius in (name for name in radii if name in measured.scores):
        keys = {"run_id": run_id, "eval_id": measured.localisation.eval_id, "radius": radius}
        rows = points[["id", "true", "predicted", f"tp_{radius}"]].rename(columns={f"tp_{radius}": "tp"})
        found.append(rows.assign(**keys)[[*keys, "id", "true", "predicted", "tp"]])
    return found


def places_table(found: Mapping[Key, Places]) -> pa.Table:
    """`localisation.parquet`: the images of all measurements, by run id and evaluation id."""
    return stacked({key: places.images for key, places in found.items()}, _IMAGE | _LISTS)


def curves_table(found: Mapping[Key, Places]) -> pa.Table:
    """`curves.parquet`: the curves of all measurements, with a gap for each number that follows from the others."""
    table = stacked({key: places.curve for key, places in found.items()}, _STORED)
    heads = _heads(table.to_pandas())
    follows = _following(table["tp"].to_numpy(), table["predicted"].to_numpy(), heads)
    table = table.append_column("heads", pa.array(heads, pa.int64()))
    for name, derived in follows.items():
        values = table[name].to_numpy()
        same = (_bits(values) == _bits(derived)) | (np.isnan(values) & np.isnan(derived))
        column = pa.array(np.array(values), pa.float64(), mask=same, from_pandas=False)
        table = table.set_column(table.column_names.index(name), name, column)
    return table.select([*KEY, *_CURVES])


def _heads(curves: pd.DataFrame) -> np.ndarray[Any, Any]:
    """The number of heads that each curve's recall speaks of; 1 where no row tells it."""
    with np.errstate(all="ignore"):
        told = np.rint(curves["tp"].to_numpy(float) / curves["recall"].to_numpy())
    told[~((told >= 1) & (told <= _MOST))] = 1
    groups = [curves[name] for name in (*KEY, *_WHERE)]
    most = pd.Series(told).groupby(groups, dropna=False).transform("max")
    return most.to_numpy().astype(np.int64)


def _following(tp: Any, predicted: Any, heads: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Precision, recall and F1."""
    with np.errstate(all="ignore"):
        return {"precision": tp / predicted, "recall": tp / heads, "f1": 2 * tp / (predicted + heads)}


def _bits(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(values, np.float64).view(np.int64)


def read_places(folder: Path, contents: Mapping[str, bytes], measured: Mapping[Key, Localisation]) -> dict[Key, Places]:
    """Both files of a study, which must have, in order, the rows of its measurements."""
    path = folder / "localisation.parquet"
    table = read_table(path, contents[path.name], lambda _: pa.schema(KEY | _IMAGE | _LISTS))
    refuse_gaps(path, table)
    images = parts(path, table, {key: found.images for key, found in measured.items()})
    for key, found in images.items():
        _refuse_lists(path, key, found, len(measured[key].scores))
    path = folder / "curves.parquet"
    table = read_table(path, contents[path.name], lambda _: pa.schema(KEY | _CURVES))
    refuse_gaps(path, table)
    rows = Counter(zip(table["run_id"].to_pylist(), table["eval_id"].to_pylist(), strict=True))
    curves = parts(path, _filled(table), {key: rows[key] for key in measured})
    for key, found in curves.items():
        _refuse_curve(path, found, measured[key])
    return {key: Places(images[key], curves[key]) for key in measured}


def _filled(table: pa.Table) -> pa.Table:
    """Curves with their gaps filled, as the store has them."""
    follows = _following(*(table[name].to_numpy() for name in ("tp", "predicted", "heads")))
    for name, derived in follows.items():
        column = pc.coalesce(table[name], pa.array(derived, pa.float64(), from_pandas=False))
        table = table.set_column(table.column_names.index(name), name, column)
    return table.select([*KEY, *_STORED])


def _refuse_lists(path: Path, key: Key, images: pa.Table, radii: int) -> None:
    """Every image has a number, or of errors a gap, for each radius; all images have the same gaps."""
    for name in _LISTS:
        if pc.unique(pc.list_value_length(images[name])).to_pylist() != [radii]:
            raise RecordedError(
                f"{path}: {name!r} of run {key[0]}, {key[1]} has not a number for each of {radii} radii"
            )
    gaps = pc.list_flatten(images["error"]).is_null().to_numpy().reshape(-1, radii)
    if (gaps != gaps[0]).any():
        raise RecordedError(f"{path}: 'error' of run {key[0]}, {key[1]} has gaps in some of its images")


def _refuse_curve(path: Path, curve: pa.Table, measured: Localisation) -> None:
    """A curve is of a split and a radius of its measurement."""
    for name, known in (("split", {"val", "test"}), ("radius", {*measured.scores})):
        foreign = set(pc.unique(curve[name]).to_pylist()) - known
        if foreign:
            which = f"run {measured.run_id}, {measured.localisation.eval_id}"
            raise RecordedError(f"{path} has a curve of {which} for the {name} {min(foreign)[:99]!r}, which it has not")


def fingerprints(places: Places) -> dict[str, dict[str, str]]:
    """The hash of each column; see `results.recorded_tables.fingerprint`."""
    return {
        "images": {name: fingerprint(places.images[name]) for name in places.images.column_names},
        "curve": {name: fingerprint(places.curve[name]) for name in places.curve.column_names},
    }
