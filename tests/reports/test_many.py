"""Statistics over many cells against scipy and the worked example of Demsar (2006)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats as scipy_stats

from reports import many


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_probability_of_improvement_against_scipy() -> None:
    a, b = [rng(1).normal(0, 1, 8), rng(2).integers(0, 4, 6)], [rng(3).normal(0.4, 1, 9), rng(4).integers(0, 4, 7)]
    u = [1 - scipy_stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in zip(a, b, strict=True)]
    found = many.probability_of_improvement(a, b, rng=rng())
    assert found.estimate == pytest.approx(np.mean(u))
    assert found.seeds == 6
    assert many.probability_of_improvement([[1, 2]], [[3, 4]], rng=rng()).estimate == 1
    assert many.probability_of_improvement([[1, 1]], [[1, 1]], rng=rng()).estimate == 0.5
    single = many.probability_of_improvement([[1.0]], [[2.0, 3.0]], rng=rng())
    assert (single.estimate, single.method) == (1, "none: a dataset has 1 run")

    def better(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return 1 - scipy_stats.mannwhitneyu(x, y, axis=axis).statistic / (x.shape[axis] * y.shape[axis])

    found = many.probability_of_improvement(a[:1], b[:1], rng=rng(), resamples=20000)
    theirs = scipy_stats.bootstrap((a[0], b[0]), better, n_resamples=10000, method="percentile", rng=rng(1))
    np.testing.assert_allclose((found.low, found.high), theirs.confidence_interval, atol=0.02)


def test_interquartile_mean_against_scipy() -> None:
    scores = [rng(1).lognormal(size=11), rng(2).lognormal(size=6)]
    found = many.interquartile_mean(scores, rng=rng())
    assert found.estimate == pytest.approx(scipy_stats.trim_mean(np.concatenate(scores), 0.25))
    assert many.interquartile_mean([[1, 2, 3, 1000], [4, 5, 6, 7]], rng=rng()).estimate == 4.5
    one = many.interquartile_mean(scores[:1], rng=rng(), resamples=20000)
    theirs = scipy_stats.bootstrap(
        (scores[0],), lambda x, axis: scipy_stats.trim_mean(x, 0.25, axis=axis),
        n_resamples=20000, method="percentile", rng=rng(1),
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose((one.low, one.high), theirs, atol=0.03 * (theirs.high - theirs.low))


def test_strata_are_resampled_apart() -> None:
    """Datasets whose runs are all alike leave nothing to chance, however far apart the datasets are."""
    found = many.interquartile_mean([[1, 1, 1], [5, 5, 5], [9, 9, 9]], rng=rng())
    assert found.low == found.high == found.estimate == 5


def test_performance_profile_by_hand() -> None:
    found = many.performance_profile([[0.1, 0.2], [0.2, 0.3, 0.5, 0.9]], [0.0, 0.2, 0.4, 1.0])
    np.testing.assert_allclose(found, [0, (1 + 0.25) / 2, (1 + 0.5) / 2, 1])


DEMSAR_QUANTILES = {  # Demsar 2006, table 5(a): classifiers, level, critical value
    0.05: {3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164},
    0.10: {3: 2.052, 4: 2.291, 5: 2.459, 6: 2.589, 7: 2.693, 8: 2.780, 9: 2.855, 10: 2.920},
}


@pytest.mark.parametrize("level", DEMSAR_QUANTILES)
def test_critical_difference_as_published(level: float) -> None:
    for count, quantile in DEMSAR_QUANTILES[level].items():
        found = many.friedman_nemenyi(rng().normal(size=(12, count)), level=level)
        expected = quantile * np.sqrt(count * (count + 1) / (6 * 12))
        assert found.critical_difference == pytest.approx(expected, abs=1.1e-3 * expected / quantile)


DEMSAR_AUC = [  # Demsar 2006, table 6: C4.5, with m, with cf, with both; higher is better
    # The last but one row is printed as 0.975 twice, with the ranks 2 and 3.
    [0.763, 0.768, 0.771, 0.798], [0.599, 0.591, 0.590, 0.569], [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657], [0.882, 0.888, 0.886, 0.898], [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685], [0.583, 0.583, 0.563, 0.625], [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000], [0.940, 0.962, 0.965, 0.962], [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.9749], [0.957, 0.978, 0.946, 0.970],
]  # fmt: skip


def test_ranking_of_demsars_example() -> None:
    found = many.friedman_nemenyi(-np.array(DEMSAR_AUC), level=0.10)
    np.testing.assert_allclose(found.mean_ranks, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    assert found.critical_difference == pytest.approx(1.12, abs=0.005)
    assert found.groups == ((3, 1, 2), (2, 0))
    assert found.p == scipy_stats.friedmanchisquare(*np.transpose(DEMSAR_AUC)).pvalue


def test_rankings_at_the_ends() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tied = many.friedman_nemenyi(np.ones((6, 3)))
    assert (tied.p, tied.groups) == (1, ((0, 1, 2),))
    apart = many.friedman_nemenyi(np.arange(3) + rng().random((40, 1)))
    assert apart.groups == ()
    with pytest.raises(ValueError, match=r"shape \(4, 3\).*at least 5 cells.*at least 3 losses"):
        many.friedman_nemenyi(np.ones((4, 3)))
    with pytest.raises(ValueError, match="1 of 15 scores are missing.*cell 2 of loss 1"):
        many.friedman_nemenyi(np.where(np.arange(15).reshape(5, 3) == 7, np.nan, 1.0))
