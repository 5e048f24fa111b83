"""Findings on noise: rise and fall by corrected tests, and where absolute and relative slopes disagree."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp

from reports import noise
from reports.degradation import Degradation, slopes
from reports.noise_words import _claim, _otherwise, _row, findings
from reports.tables_noise import by_slope
from tests.reports.test_noise import L2, measured, noisy_store, one_study, sample
from tests.reports.test_tables import cell

LEVELS = ("none", "missing:0.3", "uniform-px:8")
ZOO = ("pml", "bl", "l2", "gl")


def study_of(root: Path, noisy: dict[str, float], clean: dict[str, float] | None = None) -> noise.Study:
    """Four losses of one quality, but for those named, at clean and at noisy labels."""
    at = {level: (clean or {}) if level == "none" else noisy for level in LEVELS}
    qualities = {(loss, level): at[level].get(loss, 0.1) for loss in ZOO for level in LEVELS}
    return one_study(measured(noisy_store(root, qualities, seeds=4)))


def sentence(study: noise.Study, kind: str) -> str:
    (found,) = [line for line in findings(study) if line.startswith(f"MAE over {kind} ")]
    return found


def test_p_of_a_slope_is_the_t_test_over_seeds_where_images_do_not_vary() -> None:
    rng = np.random.default_rng(0)
    levels, true = (0.0, 1.0, 4.0), np.full(50, 100.0)
    errors = {x: np.abs(rng.normal(20 + 2 * x, 3, (5, 1))) * np.ones(50) for x in levels}
    one = Degradation({x: sample(errors[x], true) for x in levels})
    by_seed = np.polyfit(levels, [errors[x].mean(axis=1) for x in levels], 1)[0]
    assert one.tested("mae").p == pytest.approx(ttest_1samp(by_seed, 0).pvalue)


def test_p_is_corrected_over_losses_and_kinds_of_each_metric(tmp_path: Path) -> None:
    tests = slopes(study_of(tmp_path, {"pml": 0.14}), ("mae", "nae")).tests
    assert len(tests) == 2 * len(ZOO) * 2
    for _, family in tests.groupby("metric"):
        p = np.sort(family["p"])
        by_hand = np.minimum(np.maximum.accumulate(p * np.arange(len(p), 0, -1)), 1)
        np.testing.assert_allclose(np.sort(family["p_holm"]), by_hand)
        assert set(family["kind"]) == {"missing", "uniform-px"}
        assert ((family["p"] < 0.05) == (family["low"] * family["high"] > 0)).all()


def test_no_slope_is_rarely_called_one() -> None:
    """Family-wise: none of six flat slopes is told from zero in 95 % of the trials at least."""
    rng, trials, wrong = np.random.default_rng(1), 200, 0
    for _ in range(trials):
        true, hard = rng.lognormal(4.5, 0.6, 60), rng.standard_normal(60)
        smallest = []
        for _ in range(6):
            by_level = {
                x: sample(
                    true * (0.05 * rng.standard_normal((3, 1)) + 0.2 * (hard + rng.standard_normal((3, 60)))), true
                )
                for x in (0.0, 1.0, 2.0)
            }
            smallest.append(Degradation(by_level).tested("mae").p)
        wrong += 6 * min(smallest) < 0.05
    assert wrong <= binom.ppf(0.999, trials, 0.05)


def test_an_interval_beside_zero_is_no_finding_before_correction(tmp_path: Path) -> None:
    study = study_of(tmp_path, {"pml": 0.12})
    found = slopes(study).tests.set_index(["kind", "label"]).loc[("uniform-px", "pml")]
    assert found["low"] > 0
    assert found["p"] < 0.05 < found["p_holm"]
    said = sentence(study, "uniform-px")
    assert "rises for" not in said
    assert re.search(r"neither rise nor fall is told for [^;]*pml \+0.92 \(\+0.\d+ to \+1.\d+, p 0.078\)", said)
    assert "tested against zero at 5 % after Holm's correction for 8 slopes (all losses and kinds)" in said
    assert "95 % intervals, not corrected" in said


@pytest.mark.parametrize(("noisy", "verb", "sign"), [(0.9, "rises for", r"\+"), (0.02, "falls for", "-")])
def test_what_rises_and_what_falls(tmp_path: Path, noisy: float, verb: str, sign: str) -> None:
    said = sentence(study_of(tmp_path, {"pml": noisy}, {"pml": 0.3}), "missing")
    assert re.search(rf"corrected: {verb} pml {sign}[\d.]+ \(", said)
    other = ({"rises for", "falls for"} - {verb}).pop()
    assert other not in said
    assert re.search(r"neither rise nor fall is told for bl [^;]*, gl [^;]*, l2 ", said)


def test_the_table_has_the_p_that_decides(tmp_path: Path) -> None:
    study = study_of(tmp_path, {"pml": 0.12})
    table = by_slope(study, ("mae", "nae"))
    tests = slopes(study, ("mae", "nae")).tests.set_index(["metric", "kind", "label"])["p_holm"]
    for metric, name in (("mae", "MAE"), ("nae", "NAE")):
        for kind in ("missing", "uniform-px"):
            for label in ZOO:
                found = cell(table, label, "p (Holm)", f"{kind}, {name}")
                assert found.value == tests[metric, kind, label]
    assert any("Holm's correction for 8 slopes, all losses and kinds, a metric" in line for line in table.caption)


def test_relative_slopes_that_say_otherwise_are_told(tmp_path: Path) -> None:
    """Near the threshold the clean error's spread decides: it makes one slope less and another more certain."""
    for name, noisy, kind, verdicts in (
        ("rise", 0.18, "missing", ("rises for pml", "neither rise nor fall is told for pml")),
        ("fall", 0.05, "uniform-px", (r"neither rise nor fall is told for [^;]*pml -", "falls for pml")),
    ):
        said = sentence(study_of(tmp_path / name, {"pml": noisy}), kind)
        before, _, after = said.partition("As a share of the clean error")
        assert re.search(verdicts[0], before), said
        assert verdicts[1] in after, said


def test_nothing_is_added_where_both_slopes_agree(tmp_path: Path) -> None:
    said = findings(study_of(tmp_path, {"pml": 0.9}))
    assert not any("As a share of" in line for line in said)


def test_pairs_that_only_one_of_the_slopes_tells_apart(tmp_path: Path) -> None:
    """Twice the error at every level is twice the slope, and the same relative one."""
    study = study_of(tmp_path, {"pml": 0.8, "bl": 0.2}, {"pml": 0.4})
    absolute, relative = slopes(study), slopes(study, relative=True)
    assert "pml is steeper than bl" in sentence(study, "missing")
    (said,) = _otherwise("missing", absolute, relative)
    assert "bl and pml are not told apart" in said
    assert _otherwise("missing", absolute, absolute) == []


def test_the_steeper_of_a_pair_that_only_the_other_slopes_tell_apart(tmp_path: Path) -> None:
    """The other way round: of slopes that are nearly equal as a share, the absolute ones tell pairs apart."""
    study = study_of(tmp_path, {"pml": 0.8, "bl": 0.2}, {"pml": 0.4})
    absolute, relative = slopes(study), slopes(study, relative=True)
    (said,) = _otherwise("missing", relative, absolute)
    pairs = re.findall(r"(\w+) is steeper than (\w+)", said)
    assert {first < second for first, second in pairs} == {True, False}, "of both orders that a table can have"
    slope = {label: one.interval("mae").estimate for label, one in absolute.found["missing"].items()}
    for steep, flat in pairs:
        assert slope[steep] > slope[flat], said


@pytest.mark.parametrize("pair", [("bl", "pml"), ("pml", "bl")])
def test_a_pair_is_first_minus_second_whichever_way_the_table_has_it(tmp_path: Path, pair: tuple[str, str]) -> None:
    found = slopes(study_of(tmp_path, {"pml": 0.4}))
    row = _row(found.comparisons, "missing", pair)
    first, second = (found.found["missing"][label] for label in pair)
    wanted = first.compared("mae", second)
    assert wanted is not None
    span = wanted.difference
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((span.estimate, span.low, span.high))
    assert row["low"] < row["difference"] < row["high"]


def test_a_claim_that_rests_on_the_absolute_slopes_says_so(tmp_path: Path) -> None:
    qualities = {("pml", "none"): 0.1, ("pml", "missing:0.3"): 0.2, ("pml/l2", "none"): 0.4}
    study = one_study(measured(noisy_store(tmp_path, qualities | {("pml/l2", "missing:0.3"): 0.8}, seeds=5)))
    pair = next(iter(noise.count_norms(study.measured.evaluated)))
    absolute, relative = slopes(study), slopes(study, relative=True)
    said = _claim(study, "missing", pair, absolute, relative, "mae")
    assert "This confirms, on these terms" in said
    assert "; the relative slopes would neither confirm nor contradict it." in said
    assert "interval not corrected" in said
    assert "would" not in _claim(study, "missing", pair, absolute, absolute, "mae")
    assert L2["count_norm"] in pair[1]
