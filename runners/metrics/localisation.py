"""Localisation metrics: precision, recall, F1, average precision and errors of points against annotated heads.

A head has a radius; predictions and heads are matched one to one within it, as many as possible
(`runners.metrics.matching`). TP are the matched pairs, FP the other predictions, FN the other heads. Summed over the
images of a set (NWPU-Crowd's protocol),

    P = TP / (TP + FP),   R = TP / (TP + FN),   F1 = 2 TP / (2 TP + FP + FN) = 2 P R / (P + R).

What has no denominator is None: P without any prediction, R without any head, F1 without both. The radius is that of a
head's box (`sigma_s`, half its shorter side; `sigma_l`, half its diagonal; `head`, its shorter side) or a number of
pixels. One row an image (`image_points`) holds all that the other functions need.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from runners.metrics import counting
from runners.metrics.matching import match, matched_counts
from runners.metrics.radii import BOX_BOUNDS, Heads, Radius, box_levels, parse_radii, scene_level

__all__ = [
    "BOX_BOUNDS",
    "Heads",
    "Points",
    "Radius",
    "average_precision",
    "best_threshold",
    "box_levels",
    "by_level",
    "count_errors",
    "curve",
    "image_points",
    "parse_radii",
    "pooled",
    "radius_names",
    "scene_level",
    "swept",
]

MOST_PAIRED = 8
"""With more radii than this only `tp_` is kept: a sweep's pairs would be most of a file."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Points(Protocol):
    """Predicted points of one image, such as `runners.localizers.Located`."""

    @property
    def points(self) -> Floats:
        """float64 [m, 2], (x, y), pixels of the stored image."""

    @property
    def scores(self) -> Floats | None:
        """float64 [m]; None where a method gives none."""


def image_points(
    id: str,
    heads: Heads,
    located: Points,
    radii: Sequence[Radius],
    size: tuple[int, int] | None = None,
    *,
    sweep: Sequence[Radius] = (),
    pairs: bool = True,
) -> dict[str, Any]:
    """Everything kept about the points of one image. Coordinates are rounded to float32 before they are matched.

    Args:
        id: The image's name in its dataset.
        heads: Its annotation.
        located: Its predicted points; sorted here by decreasing score (equal scores: as they come).
        radii: Within which predictions are matched; with more than `MOST_PAIRED`, all are treated as `sweep`.
        size: (H, W) of the stored image, pixels.
        sweep: Further radii of which only the number of matched pairs is kept.
        pairs: False: keep only that number for all radii, which is faster.

    Returns:
        `id, height, width` (None without `size`), `true` (n), `predicted` (m), `points` (float32 [2 m], x y x y ..., by
        decreasing score), `scores` (float32 [m] or None), `heads` (float32 [2 n]), `levels` (int8 [n] or None), and for
        each radius `tp_<name>`; with pairs also `error_<name>` (sum of the distances of matched pairs, pixels) and
        `match_<name>` (int32 [n]: index of the matched prediction, or -1).

    Raises:
        ValueError: If a shape is wrong, a number is not finite, or a radius needs boxes that are not there.
    """
    points, scores = _by_score(located)
    true = np.asarray(heads.points, np.float32).reshape(-1, 2)
    height, width = size if size is not None else (None, None)
    row: dict[str, Any] = {"id": id, "height": height, "width": width}
    row |= _places(true, points, scores, box_levels(heads))
    paired = list(radii) if pairs and len(radii) <= MOST_PAIRED else []
    for radius in paired:
        row |= _paired(radius, heads, true, points)
    counted = [radius for radius in dict.fromkeys([*radii, *sweep]) if f"tp_{radius.name}" not in row]
    sizes = matched_counts(true, points, [radius.of(heads) for radius in counted])
    return row | {f"tp_{radius.name}": size for radius, size in zip(counted, sizes, strict=True)}


def _places(true: NDArray[Any], points: NDArray[Any], scores: Floats | None, levels: Ints | None) -> dict[str, Any]:
    """What a row keeps of both sides."""
    return {
        "true": len(true),
        "predicted": len(points),
        "points": points.ravel(),
        "scores": None if scores is None else scores.astype(np.float32),
        "heads": true.ravel(),
        "levels": None if levels is None else levels.astype(np.int8),
    }


def _paired(radius: Radius, heads: Heads, true: NDArray[Any], points: NDArray[Any]) -> dict[str, Any]:
    """What a row keeps of the pairs within one radius."""
    found = match(true, points, radius.of(heads))
    partner = np.full(len(true), -1, np.int32)
    partner[found.true] = found.predicted
    name = radius.name
    return {
        f"tp_{name}": len(found.true),
        f"error_{name}": float(found.distance.sum()),
        f"match_{name}": partner,
    }


def _by_score(located: Points) -> tuple[NDArray[np.float32], Floats | None]:
    """Points, float32, and scores by decreasing score."""
    points = np.asarray(located.points, np.float32).reshape(-1, 2)
    if located.scores is None:
        return points, None
    scores = np.asarray(located.scores, np.float64)
    if scores.shape != points.shape[:1] or not np.isfinite(scores).all():
        raise ValueError(f"expected {len(points)} finite scores, one a point; found the shape {list(scores.shape)}")
    order = np.argsort(-scores, kind="stable")
    return points[order], scores[order]


# ---------------------------------------------------------------------------------------------------------------------
# Over the images of a set


def radius_names(rows: pd.DataFrame) -> list[str]:
    """The names of the radii that the rows of `image_points` were scored at."""
    return [str(column)[3:] for column in rows.columns if str(column).startswith("tp_")]


def pooled(rows: pd.DataFrame, radius_name: str) -> dict[str, float | None]:
    """Precision, recall and F1 of a set of images, from their summed counts.

    Args:
        rows: One row of `image_points` an image.
        radius_name: `Radius.name`.

    Returns:
        `tp, fp, fn` (int), `precision, recall, f1` (None where undefined: see the module), and `error`, the mean
        distance of matched pairs in pixels (None without pairs, or if they were not kept).

    Raises:
        ValueError: If the rows were not scored at this radius.
    """
    _check_scored(rows, radius_name)
    tp = int(rows[f"tp_{radius_name}"].sum())
    found = scores_of(tp, int(rows["predicted"].sum()), int(rows["true"].sum()))
    kept = f"error_{radius_name}" in rows.columns
    return found | {"error": float(rows[f"error_{radius_name}"].sum()) / tp if kept and tp else None}


def _check_scored(rows: pd.DataFrame, radius_name: str) -> None:
    if rows.empty:
        raise ValueError("no images to score")
    if f"tp_{radius_name}" not in rows.columns:
        raise ValueError(f"not scored at the radius {radius_name!r}; scored at: {', '.join(radius_names(rows))}")


def scores_of(tp: int, predicted: int, true: int) -> dict[str, float | None]:
    """`tp, fp, fn, precision, recall, f1` from the number of matched pairs, predictions and heads."""
    return {
        "tp": tp,
        "fp": predicted - tp,
        "fn": true - tp,
        "precision": tp / predicted if predicted else None,
        "recall": tp / true if true else None,
        "f1": 2 * tp / (predicted + true) if predicted + true else None,
    }


def count_errors(rows: pd.DataFrame) -> dict[str, float | None]:
    """MAE, RMSE, NAE (over the images with people) and bias of the number of points: `counting.counts`.

    Raises:
        ValueError: If there are no rows.
    """
    if rows.empty:
        raise ValueError("no images to score")
    return counting.counts(rows["predicted"].to_numpy(float), rows["true"].to_numpy(float))


def by_level(rows: pd.DataFrame, radius_name: str | None = None) -> pd.DataFrame:
    """Scores by the size of a head's box (A0 to A5) and by the number of people in the image (S0 to S4).

    A prediction without a head has no box level, so box levels have a recall only. Recall by box level depends on which
    maximum matching is taken; ours is one of least total distance (`matching.match`), the official evaluator's is
    whichever its search meets first.

    Args:
        rows: One row of `image_points` an image, with pairs for the box levels.
        radius_name: None: all radii with pairs.

    Returns:
        Columns `radius, level` (`A0`..., `S0`...), `images` (with such heads, or of such a scene), `true, predicted,
        tp, precision, recall, f1`, None where undefined. Levels without heads and images are left out.

    Raises:
        ValueError: If the rows were not scored at this radius.
    """
    names = radius_names(rows) if radius_name is None else [radius_name]
    found: list[dict[str, Any]] = []
    for name in names:
        _check_scored(rows, name)
        if radius_name is None and f"match_{name}" not in rows.columns:
            continue
        found += [{"radius": name} | one for one in [*_by_box(rows, name), *_by_scene(rows, name)]]
    columns = ["radius", "level", "images", "true", "predicted", "tp", "precision", "recall", "f1"]
    return pd.DataFrame([[one.get(column) for column in columns] for one in found], columns=columns, dtype=object)


def _by_box(rows: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    if f"match_{name}" not in rows.columns or not any(levels is not None for levels in rows["levels"]):
        return []
    kept = [
        (np.asarray(a), np.asarray(b))
        for a, b in zip(rows["levels"], rows[f"match_{name}"], strict=True)
        if a is not None
    ]
    found = []
    for level in range(len(BOX_BOUNDS) + 1):
        true = [int((levels == level).sum()) for levels, _ in kept]
        tp = sum(int(((levels == level) & (partner >= 0)).sum()) for levels, partner in kept)
        if sum(true):
            images = sum(count > 0 for count in true)
            found.append(
                {"level": f"A{level}", "images": images, "true": sum(true), "tp": tp, "recall": tp / sum(true)}
            )
    return found


def _by_scene(rows: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    found = []
    for level, part in rows.groupby(scene_level(rows["true"])):
        true, predicted = int(part["true"].sum()), int(part["predicted"].sum())
        scores = scores_of(int(part[f"tp_{name}"].sum()), predicted, true)
        found.append({"level": f"S{level}", "images": len(part), "true": true, "predicted": predicted} | scores)
    return found


def swept(rows: pd.DataFrame, radii: Sequence[Radius | str]) -> dict[str, float | None]:
    """Means over radii, as UCF-QNRF is scored over 1, 2, ..., 100 pixels.

    The authors of QNRF print an "AUC" too; what it is the papers do not say, so none is computed here. It is not the
    mean F1: beside a precision of 75.8 % and a recall of 59.75 % they print an AUC of 0.714, and if all three are over
    the same radii, a mean F1 is at most the F1 of these means, 0.668, as F1 is concave.

    Args:
        rows: One row of `image_points` an image.
        radii: `Radius` or their names, the smallest first.

    Returns:
        `precision, recall, f1`, means over the radii; None where undefined.

    Raises:
        ValueError: If there are no radii, or the rows were not scored at one of them.
    """
    if not radii:
        raise ValueError("no radii to average over; for example 1:100")
    names = [radius if isinstance(radius, str) else radius.name for radius in radii]
    found = [pooled(rows, name) for name in names]
    columns = {what: [one[what] for one in found] for what in ("precision", "recall", "f1")}
    return {
        what: None if any(value is None for value in values) else float(np.mean(np.asarray(values, float)))
        for what, values in columns.items()
    }


# ---------------------------------------------------------------------------------------------------------------------
# Over thresholds on the score


def curve(scores_by_image: Iterable[ArrayLike], gains_by_image: Iterable[ArrayLike], n_true: int) -> pd.DataFrame:
    """Precision, recall and F1 for every threshold on the score, summed over images; exact at every threshold.

    Args:
        scores_by_image: For each image its scores, decreasing.
        gains_by_image: For each image `matching.gains` of the same predictions.
        n_true: Heads in all images.

    Returns:
        One row a distinct score, the highest first: `threshold` (kept are scores >= threshold), `tp, predicted,
        precision, recall, f1`; recall is NaN without heads.

    Raises:
        ValueError: If an image has not as many scores as gains.
    """
    scores = [np.asarray(one, np.float64).ravel() for one in scores_by_image]
    gains = [np.asarray(one, bool).ravel() for one in gains_by_image]
    if [len(one) for one in scores] != [len(one) for one in gains]:
        raise ValueError("every image needs as many scores as gains, in the same order")
    every, won = np.concatenate([*scores, np.zeros(0)]), np.concatenate([*gains, np.zeros(0, bool)])
    order = np.argsort(-every, kind="stable")
    every, tp = every[order], np.cumsum(won[order])
    last = np.flatnonzero(np.append(every[1:] != every[:-1], len(every) > 0)) if len(every) else np.zeros(0, int)
    hits, taken = tp[last].astype(np.int64), last + 1
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / np.float64(n_true)
    columns: dict[str, Any] = {
        "threshold": every[last], "tp": hits, "predicted": taken,
        "precision": hits / taken, "recall": recall, "f1": 2 * hits / (taken + n_true),
    }  # fmt: skip
    return pd.DataFrame(columns)


def average_precision(curve: pd.DataFrame) -> float:
    """Area under the precision-recall curve, all-point interpolation (ours).

    AP = sum_k (R_k - R_{k-1}) max_{j >= k} P_j over the thresholds from the highest, R_0 = 0: the area under the
    decreasing envelope of precision. Recall that no threshold reaches counts as precision 0. NaN without heads, 0
    without predictions.
    """
    recall, precision = curve["recall"].to_numpy(float), curve["precision"].to_numpy(float)
    if np.isnan(recall).any():
        return float("nan")
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def best_threshold(curve: pd.DataFrame) -> float:
    """The threshold of the largest F1; of several the highest (ours). Without predictions infinity: no point at all."""
    if curve.empty:
        return float("inf")
    return float(curve["threshold"].iloc[int(curve["f1"].to_numpy(float).argmax())])
