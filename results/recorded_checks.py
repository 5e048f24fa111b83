"""Whether a recorded run's numbers follow from its per-image rows.

Counting errors are as `runners.metrics.counting` defines them. Of places, over the images k of a measurement, with g_k
heads, p_k points and t_k matched pairs at a radius, whose distances add up to e_k:

* tp = sum t, fp = sum p - tp, fn = sum g - tp; precision = tp / sum p, recall = tp / sum g, F1 = 2 tp / sum (p + g);
* error = sum e / tp, pixels; and MAE, RMSE, NAE and bias of the number of points, as of any count.

What is divided by zero is null. The average precision is of all candidates; they are not carried, so it is not checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from results.recorded_files import METRICS
from results.recorded_places import Places, points_frame
from results.recorded_runs import Run
from results.schema import Localisation, Record

__all__ = ["findings"]

_TOLERANCE = 1e-9
"""Of recomputed metrics, as a share of the largest of them: another processor may add in another order (ours)."""


def findings(run: Run) -> list[str]:
    """A sentence for each number that does not follow from the per-image rows; see `Recorded.check`."""
    found = []
    for measured in run.entry.evaluations:
        eval_id = measured.evaluation.eval_id
        images = run.images[eval_id].select(["true", "predicted", *METRICS[4:]])
        computed = _metrics(images.to_pandas(), run.entry.record)
        said = measured.metrics | {f"constant_{name}": value for name, value in measured.constant.items()}
        found += _unlike(f"run {run.entry.run_id}, {eval_id}: ", said, computed)
    for eval_id, places in run.places.items():
        found += _of_places(f"run {run.entry.run_id}, {eval_id}: ", run.entry.places[eval_id], places)
    return found


def _unlike(which: str, said: Mapping[str, float | None], computed: Mapping[str, float]) -> list[str]:
    """A sentence for each number that was said and is not the computed one."""
    scale = max((abs(value) for value in computed.values() if math.isfinite(value)), default=0.0)
    return [
        f"{which}{name} is {said[name]}, but its images give {value}"
        for name, value in computed.items()
        if name in said and not _agree(said[name], value, _TOLERANCE * scale)
    ]


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


def _of_places(which: str, measured: Localisation, places: Places) -> list[str]:
    """A sentence for each number of a measurement of places that does not follow, or that no image can have."""
    images = points_frame(places, measured)
    true, predicted = images["true"].astype(float), images["predicted"].astype(float)
    with np.errstate(all="ignore"):
        found = _unlike(f"{which}count ", measured.counts, _errors(predicted, true))
    for radius, said in measured.scores.items():
        tp = images[f"tp_{radius}"]
        wrong = (tp < 0) | (tp > images["true"]) | (tp > images["predicted"])
        if wrong.any():
            row = images[wrong].iloc[0]
            pairs = f"{row[f'tp_{radius}']} pairs of {row['true']} heads and {row['predicted']} points"
            found.append(f"{which}at {radius}, image {row['id'][:99]!r} has {pairs}, which cannot be")
        for computed in _scores(images, radius):
            found += _unlike(f"{which}at {radius}, ", said, computed)
    return found + [f"{which}{problem}" for problem in _of_curves(measured, int(images["true"].sum()), places.curve)]


def _scores(images: pd.DataFrame, radius: str) -> Iterator[dict[str, float]]:
    """What is recomputed at one radius, each group on its own scale."""
    tp, points, heads = (int(images[name].sum()) for name in (f"tp_{radius}", "predicted", "true"))
    yield {"tp": float(tp), "fp": float(points - tp), "fn": float(heads - tp)}
    yield {"precision": _ratio(tp, points), "recall": _ratio(tp, heads), "f1": _ratio(2 * tp, points + heads)}
    if f"error_{radius}" in images:
        yield {"error": _ratio(float(images[f"error_{radius}"].sum(skipna=False)), tp)}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _of_curves(measured: Localisation, heads: int, curve: pa.Table) -> list[str]:
    """A sentence for each curve that has more pairs than points or heads, or another number of heads."""
    found = []
    rows = curve.to_pandas()
    for (split, radius), part in rows.groupby(["split", "radius"], sort=False):
        name = f"the curve of {split} at {radius}"
        if ((part["tp"] < 0) | (part["tp"] > part["predicted"]) | (part["recall"] > 1)).any():
            found.append(f"{name} has more pairs than points or heads, which cannot be")
        expected = part["tp"] / heads if heads else part["recall"]
        if split == measured.localisation.split and not np.allclose(part["recall"], expected, 0, 1e-9, equal_nan=True):
            found.append(f"{name} has not the recall that {heads} heads give")
    return found
