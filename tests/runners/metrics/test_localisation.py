"""Localisation metrics: the official evaluator's numbers, known answers, and scores over thresholds and radii."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.metrics.localisation import (
    Heads,
    Radius,
    average_precision,
    best_threshold,
    box_levels,
    by_level,
    count_errors,
    curve,
    image_points,
    parse_radii,
    pooled,
    radius_names,
    scene_level,
    swept,
)
from runners.metrics.matching import gains, matched_count
from tests.conftest import ROOT, outside

SIGMAS = (Radius("sigma_s"), Radius("sigma_l"))


class Found:
    """Points with or without scores."""

    def __init__(self, points, scores=None) -> None:
        self.points = np.asarray(points, float).reshape(-1, 2)
        self.scores = None if scores is None else np.asarray(scores, float)


def heads(points, **more) -> Heads:
    return Heads(np.asarray(points, float).reshape(-1, 2), **more)


# ---------------------------------------------------------------------------------------------------------------------
# The official evaluator


@pytest.fixture(scope="module")
def golden(pytestconfig: pytest.Config) -> Path:
    folder = outside(pytestconfig, "--golden", "CROWD_GOLDEN", ROOT.parent / "shared" / "golden")
    if folder is None or not (folder / "nwpu_gt.npz").is_file():
        pytest.skip("needs nwpu_*.npz, the official evaluator's results: pass --golden FOLDER or set CROWD_GOLDEN")
    return folder


def loaded(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"nwpu_{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file}


def golden_rows(folder: Path, method: str) -> tuple[pd.DataFrame, np.ndarray, dict]:
    """Our rows of NWPU-val, the official rows, and the official results."""
    truth, official = loaded(folder, "gt"), loaded(folder, method)
    rows = []
    for k, image in enumerate(truth["ids"]):
        part = truth["gt"][truth["gt_offsets"][k] : truth["gt_offsets"][k + 1]]
        points = official["pred"][official["pred_offsets"][k] : official["pred_offsets"][k + 1]]
        annotated = heads(part[:, :2], sigmas=part[:, 2:4].astype(float), levels=part[:, 4])
        rows.append(image_points(str(image), annotated, Found(points), SIGMAS))
    return pd.DataFrame(rows), official["rows"], json.loads(str(official["meta"].ravel()[0]))["result"]


def attainable(folder: Path, rows: pd.DataFrame, short: str) -> list[tuple[int, int, int]]:
    """The fewest and most heads of two box levels that any maximum matching finds: (level, fewest, most)."""
    truth = loaded(folder, "gt")
    column, found = {"s": 2, "l": 3}[short], []
    for level in (1, 5):
        few = many = 0
        for k, (points, tp) in enumerate(zip(rows["points"], rows[f"tp_sigma_{short}"], strict=True)):
            part = truth["gt"][truth["gt_offsets"][k] : truth["gt_offsets"][k + 1]]
            own = part[:, 4] == level
            if tp and own.any():
                alone, others = (
                    matched_count(one[:, :2], points.reshape(-1, 2), one[:, column]) for one in (part[own], part[~own])
                )
                few, many = few + tp - others, many + alone
        found.append((level, few, many))
    return found


@pytest.mark.shared
@pytest.mark.parametrize("method", ["Raz_loc_val_0.5", "fasterRCNN_val_0.8_0.3"])
def test_equal_to_the_official_evaluator_on_nwpu_val(golden: Path, method: str) -> None:
    rows, official, result = golden_rows(golden, method)
    np.testing.assert_array_equal(rows[["true", "predicted"]].to_numpy(int), official[:, 1:3])
    for short, first in (("s", 3), ("l", 6)):
        tp = rows[f"tp_sigma_{short}"]
        ours = np.stack([tp, rows["predicted"] - tp, rows["true"] - tp], axis=1)
        np.testing.assert_array_equal(ours, official[:, first : first + 3])
        scores = pooled(rows, f"sigma_{short}")
        for name, theirs in (("precision", "pre"), ("recall", "rec"), ("f1", "f1")):
            assert scores[name] == pytest.approx(result[f"{theirs}_{short}"], abs=1e-12)
        ours = by_level(rows, f"sigma_{short}").query("level.str.startswith('A')")
        theirs = np.round(np.array(result[f"rec_{short}_per_level"]) * ours["true"].to_numpy(int))
        assert ours["tp"].sum() == theirs.sum() == scores["tp"]
        for level, few, many in attainable(golden, rows, short):  # it depends on which maximum matching is taken
            assert few <= ours["tp"].iloc[level] <= many
            assert few <= theirs[level] <= many
    errors = count_errors(rows)
    for name, theirs in (("mae", "mae"), ("rmse", "mse"), ("nae", "nae")):
        assert errors[name] == pytest.approx(result[theirs], abs=1e-9)
    assert (rows["true"] == 0).sum() == 35


# ---------------------------------------------------------------------------------------------------------------------
# One row


def test_a_row_reproduces_its_own_numbers() -> None:
    """Points are rounded before they are matched: scoring the stored row again gives the stored numbers."""
    rng = np.random.default_rng(0)
    annotated = heads(rng.uniform(0, 90, (40, 2)), boxes=np.tile([0.0, 0.0, 9.0, 12.0], (40, 1)))
    radii = parse_radii(["4", "sigma_s", "sigma_l", "0.5head"])
    row = image_points("a", annotated, Found(rng.uniform(0, 90, (50, 2)), rng.random(50)), radii, (90, 100))
    assert (row["id"], row["height"], row["width"], row["true"], row["predicted"]) == ("a", 90, 100, 40, 50)
    assert row["points"].dtype == row["heads"].dtype == row["scores"].dtype == np.float32
    assert (np.diff(row["scores"]) <= 0).all()
    true, points = row["heads"].reshape(-1, 2).astype(float), row["points"].reshape(-1, 2).astype(float)
    for radius in radii:
        reach = {"4px": 4.0, "sigma_s": 4.5, "sigma_l": 7.5, "0.5head": 4.5}[radius.name]
        partner = row[f"match_{radius.name}"]
        hit = partner >= 0
        apart = np.linalg.norm(true[hit] - points[partner[hit]], axis=1)
        assert (apart <= reach).all()
        assert hit.sum() == row[f"tp_{radius.name}"] == matched_count(true, points, reach)
        assert apart.sum() == pytest.approx(row[f"error_{radius.name}"])


def test_the_surest_points_come_first() -> None:
    row = image_points("a", heads([[9, 9]]), Found([[1, 1], [9, 9], [5, 5]], [0.1, 0.9, 0.1]), parse_radii(["1"]))
    assert row["points"].tolist() == [9, 9, 1, 1, 5, 5]
    assert row["match_1px"].tolist() == [0]
    assert (row["height"], row["levels"]) == (None, None)


def test_sweeps_keep_numbers_only() -> None:
    few, many = parse_radii(["4", "8"]), parse_radii(["1:20"])
    row = image_points("a", heads([[9, 9]]), Found([[9, 14]]), few, sweep=many)
    assert {key for key in row if key.startswith("match_")} == {"match_4px", "match_8px"}
    assert [row[f"tp_{k}px"] for k in range(1, 21)] == [0] * 4 + [1] * 16
    alone = image_points("a", heads([[9, 9]]), Found([[9, 14]]), many)
    assert not any(key.startswith(("match_", "error_")) for key in alone)
    assert alone["tp_5px"] == 1
    bare = image_points("a", heads([[9, 9]]), Found([[9, 14]]), few, pairs=False)
    assert radius_names(pd.DataFrame([bare])) == ["4px", "8px"]
    assert "match_8px" not in bare


@pytest.mark.parametrize(("true", "predicted"), [(0, 0), (0, 3), (3, 0)])
def test_empty_images(true: int, predicted: int) -> None:
    row = image_points("a", heads(np.zeros((true, 2))), Found(np.zeros((predicted, 2)), np.ones(predicted)), SIGMAS[:0])
    assert (row["true"], row["predicted"]) == (true, predicted)
    annotated = heads(np.zeros((true, 2)), sigmas=np.ones((true, 2)))
    row = image_points("a", annotated, Found(np.zeros((predicted, 2))), SIGMAS)
    assert row["tp_sigma_l"] == 0
    assert row["match_sigma_l"].tolist() == [-1] * true


def test_bad_scores_are_named() -> None:
    with pytest.raises(ValueError, match="expected 2 finite scores"):
        image_points("a", heads([[1, 1]]), Found([[1, 1], [2, 2]], [0.5]), parse_radii(["4"]))


# ---------------------------------------------------------------------------------------------------------------------
# Radii and levels


def test_radii_of_boxes() -> None:
    annotated = heads([[5, 5], [9, 9]], boxes=np.array([[0.0, 0.0, 6.0, 8.0], [1.0, 5.0, 6.0, 17.0]]))
    assert Radius("sigma_s").of(annotated).tolist() == [3.0, 2.5]
    assert Radius("sigma_l").of(annotated).tolist() == [5.0, 6.5]
    assert Radius("head", 0.5).of(annotated).tolist() == Radius("sigma_s").of(annotated).tolist()
    assert Radius("px", 8).of(annotated).tolist() == [8.0, 8.0]
    stated = annotated._replace(sigmas=np.array([[7.0, 9.0], [1.0, 2.0]]))
    assert Radius("sigma_l").of(stated).tolist() == [9.0, 2.0]
    assert Radius("head", 2).of(stated).tolist() == [28.0, 4.0]
    assert Radius("sigma_l").of(heads([])).tolist() == []


def test_without_boxes_the_error_says_so() -> None:
    with pytest.raises(ValueError, match="sigma_l needs the heads' boxes, and the annotation has none"):
        Radius("sigma_l").of(heads([[1, 1]]))
    half = heads([[1, 1], [2, 2]], boxes=np.array([[0.0, 0.0, 6.0, 8.0], [np.nan] * 4]))
    with pytest.raises(ValueError, match="2 heads have 1 known boxes"):
        Radius("head", 0.5).of(half)


def test_words_for_radii() -> None:
    found = parse_radii(["4", "8px", "sigma_l", "0.5head", "3:5", "4px", ".5head"])
    assert [radius.name for radius in found] == ["4px", "8px", "sigma_l", "0.5head", "3px", "5px"]
    assert parse_radii([radius.name for radius in found]) == found
    assert len(parse_radii(["1:100"])) == 100


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sigma", "Did you mean sigma_"),
        ("sigmal", "Did you mean sigma_l"),
        ("8 px", "is no radius"),
        ("nan", "is no radius"),
        ("-4", "is no radius"),
        ("0", "must be above 0"),
        ("9:3", "runs upwards"),
        ("0:9", "runs upwards"),
        ("1:999999999", "at most 1000 values"),
        ("9" * 400, "must be above 0"),
        ("", "is no radius"),
    ],
)
def test_other_words_are_refused(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_radii([word])


def test_no_word_is_refused() -> None:
    with pytest.raises(ValueError, match="no radius is given"):
        parse_radii([])


def test_levels() -> None:
    sides = np.array([3.0, np.sqrt(10) - 0.01, 4.0, 10.0, 31.0, 99.0, 317.0])
    boxes = np.stack([np.zeros(7), np.zeros(7), sides, sides], axis=1)
    assert box_levels(heads(np.zeros((7, 2)), boxes=boxes)).tolist() == [0, 0, 1, 2, 2, 3, 5]
    assert box_levels(heads([[1, 1]])) is None
    assert box_levels(heads([[1, 1]], boxes=np.full((1, 4), np.nan))).tolist() == [-1]
    assert scene_level([0, 1, 100, 101, 500, 501, 5000, 5001]).tolist() == [0, 1, 1, 2, 2, 3, 3, 4]


# ---------------------------------------------------------------------------------------------------------------------
# Over images


@pytest.fixture
def rows() -> pd.DataFrame:
    """Two of three heads found with one false alarm; an empty image with a false alarm; one missed head."""
    radii = parse_radii(["2", "10"])
    levels = np.array([0, 0, 3])
    return pd.DataFrame(
        [
            image_points(
                "a", heads([[0, 0], [9, 0], [0, 50]], levels=levels), Found([[1, 0], [9, 2], [90, 90]]), radii
            ),
            image_points("b", heads([], levels=np.zeros(0, int)), Found([[1, 1]]), radii),
            image_points("c", heads([[5, 5]], levels=np.array([3])), Found([]), radii),
        ]
    )


def test_counts_are_summed_over_images(rows: pd.DataFrame) -> None:
    found = pooled(rows, "2px")
    assert (found["tp"], found["fp"], found["fn"]) == (2, 2, 2)
    assert found["precision"] == found["recall"] == found["f1"] == 0.5
    assert found["error"] == 1.5
    assert count_errors(rows) == pytest.approx({"mae": 2 / 3, "rmse": np.sqrt(2 / 3), "nae": 0.5, "bias": 0.0})


def test_what_has_no_denominator_is_none(rows: pd.DataFrame) -> None:
    missed, false = pooled(rows[2:], "2px"), pooled(rows[1:2], "2px")
    assert (missed["precision"], missed["recall"], missed["f1"], missed["error"]) == (None, 0.0, 0.0, None)
    assert (false["precision"], false["recall"], false["f1"]) == (0.0, None, 0.0)
    nothing = pd.DataFrame([image_points("d", heads([]), Found([]), parse_radii(["2"]))])
    assert pooled(nothing, "2px")["f1"] is None
    assert swept(nothing, ["2px"]) == {"precision": None, "recall": None, "f1": None}


def test_by_level(rows: pd.DataFrame) -> None:
    found = by_level(rows, "2px").set_index("level")
    assert found.loc["A0", ["images", "true", "tp", "recall"]].tolist() == [1, 2, 2, 1.0]
    assert found.loc["A3", ["images", "true", "tp", "recall"]].tolist() == [2, 2, 0, 0.0]
    assert found.loc["A3", "precision"] is None
    assert found.loc["S0", ["images", "true", "predicted", "tp", "f1"]].tolist() == [1, 0, 1, 0, 0.0]
    assert found.loc["S1", ["images", "true", "predicted", "tp", "f1"]].tolist() == [2, 4, 3, 2, 4 / 7]
    assert set(by_level(rows)["radius"]) == {"2px", "10px"}
    assert by_level(rows.drop(columns=["match_2px", "match_10px"]), "2px")["level"].tolist() == ["S0", "S1"]


def test_unknown_radius_is_named(rows: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="not scored at the radius '3px'; scored at: 2px, 10px"):
        pooled(rows, "3px")
    with pytest.raises(ValueError, match="no images"):
        pooled(rows[:0], "2px")
    with pytest.raises(ValueError, match="no images"):
        count_errors(rows[:0])
    with pytest.raises(ValueError, match="no radii"):
        swept(rows, [])


def test_means_over_radii() -> None:
    radii = parse_radii(["1:4"])
    row = image_points("a", heads([[0, 0], [50, 0]]), Found([[2, 0], [54, 0], [90, 90], [80, 80]]), radii)
    found = swept(pd.DataFrame([row]), radii)
    assert [row[f"tp_{k}px"] for k in (1, 2, 3, 4)] == [0, 1, 1, 2]
    assert found["precision"] == pytest.approx((0 + 0.25 + 0.25 + 0.5) / 4)
    assert found["recall"] == pytest.approx((0 + 0.5 + 0.5 + 1) / 4)
    assert found["f1"] == pytest.approx((0 + 2 / 6 + 2 / 6 + 4 / 6) / 4)
    right = swept(pd.DataFrame([image_points("a", heads([[3, 4]]), Found([[3, 4]]), radii)]), radii)
    assert right == {"precision": 1.0, "recall": 1.0, "f1": 1.0}  # a perfect method has no number below 1


# ---------------------------------------------------------------------------------------------------------------------
# Over thresholds


def at_threshold(images: list[tuple[np.ndarray, np.ndarray, np.ndarray]], threshold: float) -> tuple[int, int]:
    """(TP, predictions) of what scores at least the threshold, each image matched afresh."""
    kept = [(true, points[scores >= threshold]) for true, points, scores in images]
    return sum(matched_count(true, points, 3.0) for true, points in kept), sum(len(points) for _, points in kept)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_every_threshold_is_as_if_scored_by_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(3):
        n, m = rng.integers(0, 12, 2)
        images.append((rng.uniform(0, 12, (n, 2)), rng.uniform(0, 12, (m, 2)), rng.integers(0, 6, m) / 5))
    total = sum(len(true) for true, _, _ in images)
    found = curve(
        [np.sort(scores)[::-1] for _, _, scores in images],
        [gains(true, points, scores, 3.0) for true, points, scores in images],
        total,
    )
    every = np.unique(np.concatenate([scores for _, _, scores in images]))[::-1]
    assert found["threshold"].tolist() == every.tolist()
    for row in found.itertuples():
        tp, predicted = at_threshold(images, row.threshold)
        assert (row.tp, row.predicted) == (tp, predicted)
        assert row.f1 == pytest.approx(2 * tp / (predicted + total))
    if len(found):
        best = best_threshold(found)
        assert found["f1"].max() == found.loc[found["threshold"] == best, "f1"].item()
        assert not (found["f1"][found["threshold"] > best] == found["f1"].max()).any()


def test_average_precision_of_a_known_case() -> None:
    """Right, wrong, right, right of four heads: envelope 1, then 3/4."""
    found = curve([[0.9, 0.8, 0.7, 0.6]], [[True, False, True, True]], 4)
    assert found["precision"].tolist() == [1.0, 0.5, 2 / 3, 0.75]
    assert average_precision(found) == pytest.approx(0.25 * 1 + 0.25 * 0.75 + 0.25 * 0.75)
    assert best_threshold(found) == 0.6


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=20), st.integers(0, 5))
def test_average_precision_is_the_area_under_the_envelope(pairs: list[tuple[int, bool]], missed: int) -> None:
    pairs = sorted(pairs, key=lambda pair: -pair[0])
    total = sum(won for _, won in pairs) + missed
    found = curve([[score for score, _ in pairs]], [[won for _, won in pairs]], total)
    if total == 0:
        assert found.empty or np.isnan(average_precision(found))
        return
    levels = (np.arange(20_000) + 0.5) / 20_000
    reached = found["recall"].to_numpy(float)[None] >= levels[:, None]
    best = np.where(reached, found["precision"].to_numpy(float)[None], 0.0).max(axis=1, initial=0.0)
    assert average_precision(found) == pytest.approx(best.mean(), abs=2e-3)


def test_equal_scores_are_one_threshold_and_ties_take_the_highest() -> None:
    found = curve([[0.9, 0.5, 0.5], [0.5]], [[True, True, False], [True]], 3)
    assert found["threshold"].tolist() == [0.9, 0.5]
    assert found["tp"].tolist() == [1, 3]
    assert found["predicted"].tolist() == [1, 4]
    level = curve([[0.9, 0.8, 0.7, 0.6]], [[True, False, False, True]], 2)
    assert level["f1"].tolist() == pytest.approx([2 / 3, 1 / 2, 2 / 5, 2 / 3])
    assert best_threshold(level) == 0.9


def test_without_predictions_nothing_is_best() -> None:
    nothing = curve([[], []], [[], []], 5)
    assert nothing.empty
    assert average_precision(nothing) == 0.0
    assert best_threshold(nothing) == float("inf")
    assert average_precision(curve([], [], 5)) == 0.0
    with pytest.raises(ValueError, match="as many scores as gains"):
        curve([[0.5]], [[]], 1)
