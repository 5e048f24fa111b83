"""Cells from measurements: means over seeds with their spread, marked only where they are separated."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from reports.measured import HIGHER, Compared, Comparisons, Sample
from reports.protocol import protocol_hash
from reports.shares import SHARES
from reports.table import Cell, Mark, number

__all__ = [
    "CONSTANT",
    "DIGITS",
    "METRIC_NAMES",
    "absent_cell",
    "constant_cell",
    "failed_cell",
    "measured_cell",
    "measured_cells",
    "noting_failures",
    "p_cell",
    "plain_cell",
]

CONSTANT = "(constant count)"
"""The row of the prediction that any network must beat: the mean count of the training labels."""
METRIC_NAMES = {"mae": "MAE", "rmse": "RMSE ('MSE')", "nae": "NAE", "bias": "bias", "f1": "F1"}
METRIC_NAMES |= {
    "precision": "precision",
    "recall": "recall",
    "game1": "GAME(1)",
    "game2": "GAME(2)",
    "game3": "GAME(3)",
}
DIGITS = {"mae": 1, "rmse": 1, "nae": 2, "bias": 1, "f1": 3, "precision": 3, "recall": 3}


def measured_cells(
    columns: Mapping[str, Mapping[str, Compared]], metric: str, comparisons: Comparisons | None = None
) -> dict[str, dict[str, Cell]]:
    """The cells of one metric by column and row, marked where the comparisons separate them."""
    found: dict[str, dict[str, Cell]] = {}
    for name, samples in columns.items():
        cells = {label: measured_cell(metric, sample) for label, sample in samples.items()}
        marks = _marks(name, metric, cells, comparisons) if comparisons is not None else {}
        found[name] = {label: cell._replace(mark=marks.get(label, "")) for label, cell in cells.items()}
    return found


def measured_cell(metric: str, sample: Compared) -> Cell:
    """Mean over seeds, standard deviation over seeds, and the interval over seeds x images."""
    scores = sample.scores(metric)
    if not np.isfinite(scores).all():
        nobody = metric == "nae" and isinstance(sample, Sample) and not sample.true.any()
        what = "nobody is on these images" if nobody else "a prediction is not finite"
        what = "not defined: no point, or no head" if metric in SHARES else what
        return Cell("–", seeds=len(scores), notes=(what,))
    found = sample.interval(metric)
    sd = float(scores.std(ddof=1)) if len(scores) > 1 else None
    digits, sign = DIGITS[metric], metric == "bias"
    text = number(found.estimate, digits, sign=sign) + (f" ± {sd:.{digits}f}" if sd is not None else "")
    low, high = (found.low, found.high) if len(scores) > 1 and np.isfinite(found.low) else (None, None)
    return Cell(text, found.estimate, sd, low, high, len(scores))


def _marks(column: str, metric: str, cells: Mapping[str, Cell], comparisons: Comparisons) -> dict[str, Mark]:
    """`best` and `second` where separated from all that follow; else `tie` for the best and all found no different."""
    known = {label: cell.value for label, cell in cells.items() if cell.value is not None}
    ranked = sorted(known, key=lambda label: known[label], reverse=metric in HIGHER)
    if metric == "bias" or len(ranked) < 2:
        return {}
    against = {label: comparisons.better(column, metric, ranked[0], label) for label in ranked[1:]}
    if not all(against.values()):
        tied = [label for label, apart in against.items() if apart is False]
        return dict.fromkeys([ranked[0], *tied], "tie") if tied else {}
    found: dict[str, Mark] = {ranked[0]: "best"}
    if len(ranked) > 2 and all(comparisons.better(column, metric, ranked[1], other) for other in ranked[2:]):
        found[ranked[1]] = "second"
    return found


def constant_cell(rows: pd.DataFrame, metric: str) -> Cell:
    """What the constant count gets on the same images; the mean over runs, whose training labels may differ."""
    name = f"constant_{metric}"
    if name not in rows or rows[name].isna().all():
        return Cell()
    value = float(rows[name].mean())
    return Cell(number(value, DIGITS[metric], sign=metric == "bias"), value)


def plain_cell(values: pd.Series, digits: int) -> Cell:
    """Mean and standard deviation over runs, without interval or mark."""
    values = values.dropna()
    if values.empty:
        return Cell()
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
    text = number(mean, digits) + (f" ± {sd:.{digits}f}" if sd is not None else "")
    return Cell(text, mean, sd, seeds=len(values))


def p_cell(value: float | None) -> Cell:
    """A p-value; a dash where there is no test."""
    if value is None or value != value:
        return Cell("–")
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", float(value))


def absent_cell(runs: pd.DataFrame) -> Cell:
    """Why there is no number: the runs failed, are unfinished or unreadable, or were never begun."""
    failed = runs[runs["state"] == "failed"]
    if len(failed):
        return failed_cell(failed)
    done = (runs["state"] == "done").any()
    return Cell("not run" if runs.empty else "unreadable" if done else "unfinished")


def noting_failures(cell: Cell, runs: pd.DataFrame) -> Cell:
    """The cell with a note on each run that failed on the terms of those that were measured."""
    keys = protocol_hash(runs, ("split", "selection", "eval_id"))
    failed = (runs["state"] == "failed") & keys.isin(keys[runs["state"] == "done"])
    rows = runs.loc[failed, ["label", "seed", "reason"]]
    notes = [f"{label}: seed {seed} failed: {reason}" for label, seed, reason in rows.itertuples(index=False)]
    return cell._replace(notes=tuple(dict.fromkeys((*cell.notes, *notes))))


def failed_cell(failed: pd.DataFrame) -> Cell:
    """How many runs failed, with their reasons as notes."""
    reasons = tuple(dict.fromkeys(f"failed: {reason}" for reason in failed["reason"]))
    return Cell("failed" if len(failed) == 1 else f"failed ({len(failed)})", notes=reasons)
