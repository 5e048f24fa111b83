"""Precision, recall and F1 over seeds and images: against sums, a simulation with a known truth, and a bootstrap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from losses.discovery import UnknownNameError
from reports import shares, stats

Array = npt.NDArray[np.float64]


def draw(rng: np.random.Generator, seeds: int, images: int) -> tuple[Array, Array, Array]:
    """Hits, points and heads; the chance of a hit has a seed's, an image's and a joint part."""
    true = np.round(np.exp(rng.normal(4.4, 0.8, images)))
    part = rng.normal(0, 0.2, (seeds, 1)) + rng.normal(0, 0.5, (1, images)) + rng.normal(0, 0.3, (seeds, images))
    points = rng.poisson(true * np.exp(0.25 * part)).astype(float)
    hits = rng.binomial(np.minimum(points, true).astype(int), expit(0.6 + part)).astype(float)
    return hits, points, true


def test_pooled_as_the_official_evaluator_pools() -> None:
    hits, points, true = draw(np.random.default_rng(0), 3, 50)
    precision, recall = hits.sum(1) / points.sum(1), hits.sum(1) / true.sum()
    np.testing.assert_allclose(shares.per_seed("precision", hits, points, true), precision)
    np.testing.assert_allclose(shares.per_seed("recall", hits, points, true), recall)
    harmonic = 2 * precision * recall / (precision + recall)
    np.testing.assert_allclose(shares.per_seed("f1", hits, points, true), harmonic)
    for share in shares.SHARES:
        found = shares.interval(share, hits, points, true, rng=np.random.default_rng(1))
        assert found.estimate == pytest.approx(shares.per_seed(share, hits, points, true).mean())
        assert 0 <= found.low < found.estimate < found.high <= 1


def test_the_images_part_is_that_of_a_bootstrap_of_the_ratio() -> None:
    """One seed: the delta method's interval against resampled images, whose F1 is pooled anew each time."""
    hits, points, true = draw(np.random.default_rng(3), 1, 400)
    rng = np.random.default_rng(4)
    places = rng.integers(400, size=(4000, 400))
    resampled = 2 * hits[0][places].sum(1) / (points[0][places] + true[places]).sum(1)
    found = shares.interval("f1", hits, points, true, rng=rng)
    assert found.half_width == pytest.approx(1.96 * resampled.std(), rel=0.1)


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(5)
    truth = np.mean([shares.per_seed("f1", *draw(rng, 40, 2000)).mean() for _ in range(60)])
    trials = [shares.interval("f1", *draw(rng, 3, 200), rng=rng) for _ in range(150)]
    share = np.mean([found.covers(float(truth)) for found in trials])
    assert 0.89 <= share <= 1.0  # nominal 0.95; below 0.89 once in ten thousand times, if it is 0.95


def test_equal_systems_are_rarely_told_apart_and_different_ones_are() -> None:
    rng, wrong = np.random.default_rng(6), 0
    for _ in range(150):
        hits, points, true = draw(rng, 6, 100)
        found = shares.compare("f1", (hits[:3], points[:3]), (hits[3:], points[3:]), true)
        wrong += found.p < 0.05
    assert wrong / 150 < 0.12
    worse = shares.compare("f1", (np.floor(0.7 * hits[:3]), points[:3]), (hits[:3], points[:3]), true)
    assert worse.p < 0.01
    assert worse.difference.high < 0
    assert worse.wins < 0.2


def test_nothing_found_is_zero_or_undefined_and_bad_counts_are_refused() -> None:
    """As the evaluator has it: F1 is 0 if all heads are missed, and nothing is defined that divides by nothing."""
    nobody = np.zeros((2, 9))
    assert shares.per_seed("f1", nobody, nobody, np.ones(9)).tolist() == [0, 0]
    assert np.isnan(shares.per_seed("precision", nobody, nobody, np.ones(9))).all()
    assert np.isnan(shares.interval("f1", nobody, nobody, np.zeros(9), rng=np.random.default_rng(0)).estimate)
    with pytest.raises(ValueError, match="more matched pairs"):
        shares.per_seed("f1", nobody + 2, nobody + 1, np.ones(9))
    with pytest.raises(ValueError, match=r"\(2, 9\).*\(8,\)"):
        shares.per_seed("f1", nobody, nobody, np.ones(8))
    with pytest.raises(UnknownNameError, match="Did you mean recall"):
        shares.per_seed("recal", nobody, nobody, np.ones(9))  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 30))
def test_one_minus_and_order(seed: int, seeds: int, images: int) -> None:
    """Order of seeds and images changes nothing; a system against itself has no difference."""
    rng = np.random.default_rng(seed)
    hits, points, true = draw(rng, seeds, images)
    rows, columns = rng.permutation(seeds), rng.permutation(images)
    one = shares.interval("f1", hits, points, true, rng=np.random.default_rng(1))
    moved = (hits[rows][:, columns], points[rows][:, columns], true[columns])
    other = shares.interval("f1", *moved, rng=np.random.default_rng(1))
    assert one.estimate == pytest.approx(other.estimate)
    assert one.low == pytest.approx(other.low, abs=1e-9) or np.isnan(one.low)
    same = shares.compare("f1", (hits, points), (hits, points), true)
    assert same.difference.estimate == 0
    assert same.wins == 0.5


def test_values_and_counts_share_one_analysis() -> None:
    """`stats.interval` of the bias is `interval_of_values` of the errors."""
    rng = np.random.default_rng(7)
    predicted, true = rng.normal(100, 9, (3, 40)), rng.uniform(50, 150, 40)
    one = stats.interval("bias", predicted, true, rng=np.random.default_rng(2))
    assert one == stats.interval_of_values(predicted - true, rng=np.random.default_rng(2))
