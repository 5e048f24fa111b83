"""The tables that `benchmark evaluate` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import pandas as pd

from reports.table import Cell, Column, Row, Table, number

__all__ = ["counts_table", "levels_tables", "scores_table"]

Scores = Mapping[str, float | None]

_SIZES = {
    "A0": "A0 <10 px²",
    "A1": "A1 <100 px²",
    "A2": "A2 <1k px²",
    "A3": "A3 <10k px²",
    "A4": "A4 <100k px²",
    "A5": "A5 larger",
}
_SCENES = {"S0": "S0 nobody", "S1": "S1 1-100", "S2": "S2 101-500", "S3": "S3 501-5000", "S4": "S4 >5000"}


def scores_table(
    title: str,
    rows: pd.DataFrame,
    scores: Mapping[str, Scores],
    means: Mapping[str, Scores],
    precise: Mapping[str, float],
    best: Mapping[str, float],
) -> Table:
    """Precision, recall and F1 at each radius.

    Args:
        title: Of the table.
        rows: One row an image.
        scores: `localisation.pooled` by radius.
        means: `localisation.swept` by range of radii.
        precise: Average precision by radius; empty without scores.
        best: The threshold of the largest F1 by radius; empty without scores.
    """
    columns = ["P %", "R %", "F1 %", "TP", "FP", "FN", "error px"] + (["AP %"] if precise else [])
    body = [_score_row(name, one, [_percent(precise[name])] if precise else []) for name, one in scores.items()]
    for name, one in means.items():
        shares = [_percent(one[what]) for what in ("precision", "recall", "f1")]
        body.append(Row(f"mean {name}", (*shares, *[Cell()] * (len(columns) - 3))))
    caption = [
        f"{len(rows)} image{'' if len(rows) == 1 else 's'}, {int(rows['true'].sum())} annotated heads, "
        f"{int(rows['predicted'].sum())} predictions. "
        "Maximum one-to-one matching within the radius of each head; counts summed over all images."
    ]
    if scores:
        caption.append("error: mean distance of matched pairs.")
    if means:
        caption.append("mean: of precision, of recall and of F1 over each whole number of pixels in the range.")
    if precise:
        caption += _score_captions(best)
    made = tuple(Column(c, kind="derived") for c in columns)
    return Table("localisation", title, "radius", made, tuple(body), tuple(caption))


def _score_row(name: str, one: Scores, more: list[Cell]) -> Row:
    shares = (_percent(one[what]) for what in ("precision", "recall", "f1"))
    numbers = (_whole(one[what]) for what in ("tp", "fp", "fn"))
    return Row(name, (*shares, *numbers, _cell(one["error"], 2), *more))


def _score_captions(best: Mapping[str, float]) -> list[str]:
    """What is said where predictions have scores."""
    found = ", ".join(f"{name} {value:.4g}" for name, value in best.items() if isfinite(value))
    said = ["AP: area under the precision envelope over all thresholds on the score."]
    return said + ([f"Threshold of the largest F1, chosen on these very images: {found}."] if found else [])


def counts_table(rows: pd.DataFrame, errors: Scores) -> Table:
    """Errors of the number of points."""
    columns = ["true", "predicted", "MAE", "RMSE ('MSE')", "NAE", "bias"]
    cells = (
        _whole(int(rows["true"].sum())),
        _whole(int(rows["predicted"].sum())),
        _cell(errors["mae"], 2),
        _cell(errors["rmse"], 2),
        _cell(errors["nae"], 4),
        Cell(number(errors["bias"], 2, sign=True), errors["bias"]),
    )
    caption = ("NAE is over the images with people; bias: predicted minus true, mean over images.",)
    made = tuple(Column(c, kind="derived") for c in columns)
    return Table("counts", "Number of points in an image", "", made, (Row(f"{len(rows)} images", cells),), caption)


def levels_tables(levels: Sequence[pd.DataFrame]) -> list[Table]:
    """Scores by the number of people in the image, and by the size of the box where that differs between heads.

    Args:
        levels: `localisation.by_level` for each radius.
    """
    if not levels:
        return []
    scenes = [frame[frame["level"].str.startswith("S")] for frame in levels]
    boxes = [frame[frame["level"].str.startswith("A")] for frame in levels]
    names = [frame["radius"].iloc[0] for frame in levels]
    found = []
    if len(scenes[0]) > 1:
        found.append(_scenes(names, scenes))
    if len(boxes[0]) > 1:
        found.append(_boxes(names, boxes))
    return found


def _scenes(names: Sequence[str], levels: Sequence[pd.DataFrame]) -> Table:
    columns = [Column("images", kind="derived"), Column("heads", kind="derived")]
    columns += [Column(label, name, "derived") for name in names for label in ("P %", "R %", "F1 %")]
    body = []
    for rows in zip(*(frame.to_dict("records") for frame in levels), strict=True):
        shares = [_percent(row[what]) for row in rows for what in ("precision", "recall", "f1")]
        body.append(Row(_SCENES[rows[0]["level"]], (_whole(rows[0]["images"]), _whole(rows[0]["true"]), *shares)))
    return Table("people", "By the number of people in the image", "people", tuple(columns), tuple(body))


def _boxes(names: Sequence[str], levels: Sequence[pd.DataFrame]) -> Table:
    columns = [Column("images", kind="derived"), Column("heads", kind="derived")]
    columns += [Column("recall %", name, "derived") for name in names]
    body = []
    for rows in zip(*(frame.to_dict("records") for frame in levels), strict=True):
        shares = [_percent(row["recall"]) for row in rows]
        body.append(Row(_SIZES[rows[0]["level"]], (_whole(rows[0]["images"]), _whole(rows[0]["true"]), *shares)))
    caption = (
        "Which heads are found depends on which maximum matching is taken; here one of least total distance. The "
        "official evaluator's recall by level differs a little, its totals do not.",
    )
    return Table("boxes", "By the size of the head's box", "box area", tuple(columns), tuple(body), caption)


def _percent(value: float | None) -> Cell:
    return Cell("n/a") if value is None or value != value else Cell(f"{100 * value:.2f}", 100 * value)


def _whole(value: float | None) -> Cell:
    return Cell() if value is None else Cell(f"{int(value)}", int(value))


def _cell(value: float | None, digits: int) -> Cell:
    return Cell(number(value, digits, empty="n/a"), value)
