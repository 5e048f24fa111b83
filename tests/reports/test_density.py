"""Errors by density: against sums by hand, a bootstrap over images, a simulation, and points counted in windows."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from losses.discovery import UnknownNameError
from reports import stats
from reports.density import Bin, Binning, binning, scored
from reports.density_words import findings, verdicts
from reports.localised import Localised, PlaceSample
from reports.measured import Measured, Sample, generator
from reports.place_windows import PlaceWindows, _image
from reports.protocol import MixedProtocolError
from reports.units import METRICS, Units
from reports.windows import COLUMNS, Windows, summed
from results.crowds import LEAST_IMAGES, quantiles
from results.store import Store
from runners.metrics.counting import image_row
from tests.reports.fake_store import add_places, add_points, defaults, fake_spec, fake_store

Array = npt.NDArray[np.float64]


def draw(rng: np.random.Generator, seeds: int, images: int, each: int = 6) -> Units:
    """Windows whose errors have a seed's part, a large one of their image and one of their own."""
    owner = np.repeat(np.arange(images), each)
    true = rng.poisson(np.repeat(rng.gamma(2, 6, images), each)).astype(float)
    shared = rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 1.0, (1, images)) + rng.normal(0, 0.2, (seeds, images))
    error = shared[:, owner] + rng.normal(0, 0.3, (seeds, images * each))
    names = tuple(f"i{place:04d}" for place in range(images))
    return Units(true + error, true, owner, names, tuple(range(seeds)), tuple(f"r{s}" for s in range(seeds)))


def whole(units: Units) -> Binning:
    return Binning("quantiles", "count", "all", (Bin("all", np.ones(len(units.true), bool)),))


# ---- estimates, intervals, comparisons


def test_a_bin_of_windows_pools_them() -> None:
    units = draw(np.random.default_rng(0), 2, 30).restricted(np.arange(180) % 5 > 1)
    error = units.predicted - units.true
    some = units.true > 0
    np.testing.assert_allclose(units.scores("mae"), np.abs(error).mean(axis=1))
    np.testing.assert_allclose(units.scores("bias"), error.mean(axis=1))
    np.testing.assert_allclose(units.scores("nae"), (np.abs(error[:, some]) / units.true[some]).mean(axis=1))
    for metric in METRICS:
        assert units.interval(metric).estimate == pytest.approx(units.scores(metric).mean())
    with pytest.raises(UnknownNameError, match="rmse"):
        units.scores("rmse")


@pytest.mark.parametrize("metric", METRICS)
def test_whole_images_are_analysed_as_in_every_other_table(metric: stats.Metric) -> None:
    rng = np.random.default_rng(1)
    true = np.round(rng.lognormal(3, 1, 40)) * (np.arange(40) > 3)
    names, runs = tuple(f"i{place:02d}" for place in range(40)), ("a", "b", "c")
    one, other = (Units.of(Sample(true + rng.normal(0, 5, (3, 40)), true, (0, 1, 2), runs, names)) for _ in range(2))
    inside = true < np.median(true)
    part, against = one.restricted(inside), other.restricted(inside)
    expected = stats.interval(metric, part.predicted, part.true, rng=generator(metric, *runs, *part.ids))
    np.testing.assert_allclose(part.interval(metric)[:3], expected[:3])
    assert part.interval(metric).images == expected.images
    found = part.compared(metric, against)
    known = stats.compare(metric, part.predicted, against.predicted, part.true)
    assert found is not None
    np.testing.assert_allclose(found.difference[:3], known.difference[:3])
    assert found.p == pytest.approx(known.p)


def test_the_width_is_that_of_a_bootstrap_of_whole_images() -> None:
    """One seed: the images drawn again with all their windows, the error pooled anew each time."""
    rng = np.random.default_rng(2)
    units = draw(rng, 1, 400)
    units = units.restricted(units.true >= np.median(units.true))  # unequal numbers of windows
    error = np.abs(units.predicted[0] - units.true)
    sums, sizes = np.bincount(units.owner, error), np.bincount(units.owner)
    drawn = rng.integers(len(sums), size=(4000, len(sums)))
    resampled = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    assert units.interval("mae").half_width == pytest.approx(1.96 * resampled.std(), rel=0.1)
    other = draw(np.random.default_rng(3), 1, 400)
    both = Units(units.predicted + other.predicted[:, : len(error)] * 0.02, *units_but_counts(units))
    gap = np.bincount(units.owner, np.abs(both.predicted[0] - units.true) - error)
    spread = (gap[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)).std()
    found = both.compared("mae", units)
    assert found is not None
    assert found.difference.half_width == pytest.approx(1.96 * spread, rel=0.1)


def units_but_counts(units: Units) -> tuple[Any, ...]:
    return np.asarray(units.true, float), units.owner, units.ids, units.seeds, units.runs


def test_intervals_cover_and_those_of_independent_windows_do_not() -> None:
    rng = np.random.default_rng(4)
    truth = np.mean([draw(rng, 40, 500).scores("mae").mean() for _ in range(60)])
    covered, naive = 0, 0
    for _ in range(150):
        units = draw(rng, 3, 60, each=8)
        covered += units.interval("mae").covers(float(truth))
        values = np.abs(units.predicted - units.true)
        naive += stats.interval_of_values(values, rng=rng, resamples=200).covers(float(truth))
    assert covered / 150 >= 0.89  # nominal 0.95; below 0.89 once in ten thousand times, if it is 0.95
    assert naive / 150 < 0.87, "the windows of an image are not independent"


def test_equal_losses_are_rarely_told_apart_and_different_ones_are() -> None:
    rng, wrong = np.random.default_rng(5), 0
    for _ in range(150):
        units = draw(rng, 6, 60)
        one, other = (
            Units(units.predicted[rows], *units_but_counts(units)[:3], (0, 1, 2), ("a", "b", "c"))
            for rows in ([0, 1, 2], [3, 4, 5])
        )
        found = one.compared("mae", other)
        assert found is not None
        wrong += found.p < 0.05
    assert wrong / 150 < 0.12
    worse = Units(one.true + 2 * (one.predicted - one.true), *units_but_counts(one))
    found = worse.compared("mae", one)
    assert found is not None
    assert found.p < 0.01
    assert found.difference.low > 0
    moved = Units(one.predicted, one.true + 1, *units_but_counts(one)[1:])
    assert one.compared("mae", moved) is None


# ---- bins


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 6))
def test_every_unit_is_in_one_bin_and_no_bin_is_empty(counts: list[int], count: int) -> None:
    values = np.array(counts, float)
    for kind in ("quantiles", "nwpu", "jhu", "spacing"):
        found = binning(kind, values, count=count)
        members = np.stack([one.members for one in found.bins])
        assert (members.sum(axis=0) == 1).all()
        assert members.any(axis=1).all()
        assert len({one.name for one in found.bins}) == len(found.bins)
        ends = [(values[one.members].min(), values[one.members].max()) for one in found.bins]
        assert all(high < low for (_, high), (low, _) in pairwise(ends))


def test_quantiles_are_of_about_equally_many() -> None:
    values = np.random.default_rng(6).permutation(np.arange(1.0, 104.0))
    found = binning("quantiles", np.append(values, [0.0, 0.0]))
    assert found.bins[0].name == "0"
    assert found.bins[0].members.sum() == 2
    assert {int(one.members.sum()) for one in found.bins[1:]} <= {20, 21, 22}
    expected = pd.qcut(values, 5, labels=False)
    ours = quantiles(values, 5)
    assert (np.abs(expected - ours) <= 1).all()
    assert (expected != ours).sum() <= 4, "pandas puts a value on an edge below it, we above"


def test_levels_begin_and_end_where_their_datasets_have_them() -> None:
    counts = [0, 1, 100, 101, 500, 501, 5000, 5001]
    found = {one.name: np.flatnonzero(one.members).tolist() for one in binning("nwpu", counts).bins}
    expected = {"S0: 0": [0], "S1: 1–100": [1, 2], "S2: 101–500": [3, 4], "S3: 501–5000": [5, 6], "S4: >5000": [7]}
    assert found == expected
    found = {one.name: np.flatnonzero(one.members).tolist() for one in binning("jhu", [0, 50, 51, 500, 501]).bins}
    assert found == {"0–50": [0, 1], "51–500": [2, 3], ">500": [4]}
    spaced = binning("spacing", [np.nan, 3.25, 8.5, np.nan], count=2)
    assert [one.name for one in spaced.bins] == ["3.2–8.5 px", "<2 heads"]
    with pytest.raises(ValueError, match="at least 0"):
        binning("jhu", [3.0, -1.0])
    with pytest.raises(UnknownNameError, match="Did you mean quantiles"):
        binning("quantile", [1.0])


def test_scored() -> None:
    rng = np.random.default_rng(7)
    units = draw(rng, 3, 40)
    worse = Units(units.predicted + 3, *units_but_counts(units))
    found = binning("quantiles", units.true + 1, unit="window", count=3)
    frame = scored(found, {"l2": units, "pml": worse}, baseline="l2").set_index(["bin", "label"])
    for one in found.bins:
        l2, pml = frame.loc[(one.name, "l2")], frame.loc[(one.name, "pml")]
        assert pml["difference"] == pytest.approx(pml["mae"] - l2["mae"])
        assert np.isnan(l2["difference"])
        assert pml["units"] == one.members.sum()
        assert pml["people"] == units.true[one.members].sum()
        assert pml["images"] == len(set(units.owner[one.members]))
        assert pml["p_holm"] >= pml["p"]
    small = units.restricted(units.owner < LEAST_IMAGES - 1)
    few = scored(whole(small), {"l2": small})
    assert few["images"].iloc[0] == LEAST_IMAGES - 1
    assert few[["mae_low", "bias_high"]].isna().all(axis=None)
    assert np.isfinite(few["mae"].iloc[0])


def test_a_bin_without_people_has_no_nae_and_one_seed_no_interval() -> None:
    units = draw(np.random.default_rng(8), 1, 40)
    frame = scored(binning("quantiles", units.true), {"l2": units}).set_index("bin")
    assert frame["mae_low"].isna().all()
    assert np.isnan(frame.loc["0", "nae"])
    assert np.isfinite(frame.loc[frame.index != "0", "nae"]).all()


def test_a_bin_of_nobody_has_no_share_of_found_people() -> None:
    sample = PlaceSample(np.zeros((2, 6)), np.full((2, 6), 3.0), np.zeros(6), (0, 1), ("r", "s"), tuple("abcdef"))
    frame = scored(binning("nwpu", np.zeros(6)), {"l2 + lm": sample}, ("f1", "precision"))
    assert frame[["f1", "f1_low", "precision"]].isna().all(axis=None)


def test_hits_are_pooled_over_the_images_of_a_bin() -> None:
    tp, points = np.array([[1.0, 2, 8, 9, 3, 0]]), np.array([[2.0, 2, 10, 12, 3, 1]])
    true = np.array([4.0, 2, 9, 10, 3, 1])
    sample = PlaceSample(tp, points, true, (0,), ("r",), tuple("abcdef"))
    found = binning("jhu", [4, 2, 90, 100, 3, 1])
    frame = scored(found, {"l2 + lm": sample}, ("f1", "recall")).set_index("bin")
    assert frame.loc["0–50", "f1"] == pytest.approx(2 * 6 / (8 + 10))
    assert frame.loc["51–500", "recall"] == pytest.approx(17 / 19)


def test_bins_of_the_spacing_do_not_share_an_end() -> None:
    """However near the values: the label of a bin begins above the end of the one before it."""
    values = [7.111, 9.671, 9.6712, 12.2, 12.24, 15.0]
    found = binning("spacing", values, count=2)
    ends = [[float(end) for end in one.name.removesuffix(" px").split("–")] for one in found.bins]
    assert all(one.name.endswith(" px") for one in found.bins)
    assert ends == [[7.111, 9.671], [9.6712, 15.0]]
    assert all(top < low for (_, top), (low, _) in pairwise(ends))
    assert [one.name for one in binning("quantiles", [1, 2, 3, 4], count=2).bins] == ["1", "2–4"]


# ---- windows


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 4), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_windows_hold_the_points_that_lie_in_them(height: int, width: int, step: int, count: int, seed: int) -> None:
    """The stored windows of 64 px, summed, against each point's place divided by the side of a window."""
    points = np.random.default_rng(seed).random((count, 2)) * (width, height) * 0.999
    row = image_row("i", points, (height, width), points=points)
    side = 64 * step
    shape = (-(-height // side), -(-width // side))
    expected = np.zeros(shape)
    np.add.at(expected, tuple((points[:, ::-1] // side).astype(int).T), 1)
    rows = int(row["window_rows"])  # type: ignore[call-overload]
    for name in ("mass", "people"):
        np.testing.assert_array_equal(summed(row[name], rows, side), expected.ravel())


def read(store: Store) -> Measured:
    frame = store.load()
    return Measured.of(store, frame, defaults(frame))


def test_windows_of_a_store(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), [1, 0], images=12)
    measured = read(store)
    rows = measured.evaluated
    sample = measured.sample(rows)
    for side, each in ((64, 12), (128, 4), (192, 2), (512, 1)):
        windows = Windows.of(store, measured, side)
        units = windows.units(rows)
        assert windows.has(rows).all()
        assert windows.whole(rows) == (side == 512)
        assert (units.ids, units.seeds, units.runs) == (sample.ids, sample.seeds, sample.runs)
        assert units.true.shape == (12 * each,)
        np.testing.assert_array_equal(np.bincount(units.owner, units.true), sample.true)
        summed_up = np.stack([np.bincount(units.owner, row) for row in units.predicted])
        np.testing.assert_allclose(summed_up, sample.predicted, rtol=1e-4)
    pairs = list(zip(rows["run_id"], rows["eval_id"], strict=True))
    again = Windows.of_frame(store.images(pairs, COLUMNS), 192).units(rows)
    np.testing.assert_array_equal(again.predicted, Windows.of(store, measured, 192).units(rows).predicted)
    with pytest.raises(ValueError, match="multiple of 64 px.*found 100"):
        Windows.of(store, measured, 100)


def test_runs_on_other_windows_are_not_mixed_and_missing_ones_are_told(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), [0, 1], images=6)
    measured = read(store)
    path = next(store.run(fake_spec("pml", 0).run_id).path.glob("eval/*/images.parquet"))
    images = pd.read_parquet(path)
    images.assign(people=[people[::-1] for people in images["people"]]).to_parquet(path)
    with pytest.raises(MixedProtocolError, match="other images or windows"):
        Windows.of(store, measured, 64).units(measured.evaluated)
    images.drop(columns=["mass", "people"]).to_parquet(path)
    problems: list[str] = []
    windows = Windows.of(store, measured, 64, problems)
    assert len(windows) == 1
    assert len(problems) == 1
    assert windows.has(measured.evaluated).sum() == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 4), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_the_spacing_of_windows(height: int, width: int, step: int, count: int, seed: int) -> None:
    """Against all distances, head by head, window by window."""
    side = 64 * step
    points = np.random.default_rng(seed).random((count, 2)) * (width, height) * 0.999
    row = image_row("i", points, (height, width), points=points)
    stored = pd.DataFrame([row])[list(COLUMNS)].assign(run_id="r", eval_id="e")
    windows = Windows.of_frame(stored, side)
    rows = pd.DataFrame({"run_id": ["r"], "eval_id": ["e"], "seed": [0]})
    found = windows.spacing(rows, [points])
    apart = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(count, np.inf))
    nearest = apart.min(axis=1) if count > 1 else np.full(count, np.nan)
    grid = [
        nearest[(points[:, 1] // side == y) & (points[:, 0] // side == x)]
        for y in range(-(-height // side))
        for x in range(-(-width // side))
    ]
    expected = [values.mean() if len(values) else np.nan for values in grid]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    if count:
        with pytest.raises(ValueError, match="found .* heads, expected"):
            windows.spacing(rows, [points[1:]])


def test_bins_of_windows_say_that_they_are_ours() -> None:
    unit = "128 px window"
    assert "of windows they are ours" in binning("nwpu", [3.0], unit=unit).words
    assert "ours" in binning("jhu", [3.0]).words
    assert "ours" not in binning("nwpu", [3.0]).words, "the levels of images are NWPU-Crowd's"
    spaced = binning("spacing", [3.0, np.nan], unit=unit, pixels="stored")
    assert [one.name for one in spaced.bins] == ["3 px", "no distance"]
    assert "px of the stored image" in spaced.axis


def test_the_tests_of_a_table_are_corrected_for_their_number() -> None:
    """Against Holm's step-down procedure, written out."""
    units = draw(np.random.default_rng(11), 4, 60)
    samples = {"l2": units}
    for place, shift in enumerate((0.2, 0.5, 1.0)):
        samples[f"x{place}"] = Units(units.predicted + shift, *units_but_counts(units))
    frame = scored(binning("quantiles", units.true + 1, count=3), samples, baseline="l2")
    tested = frame[frame["p"].notna()].sort_values("p")
    count, least = len(tested), 0.0
    assert count == 9
    for place, (p, corrected) in enumerate(tested[["p", "p_holm"]].itertuples(index=False)):
        least = max(least, min(1.0, (count - place) * p))
        assert corrected == pytest.approx(least)
    assert (tested["p_holm"] > tested["p"]).any()


# ---- in words


def worded(rows: list[tuple[str, str, float, float]], **more: Any) -> pd.DataFrame:
    """A frame of `scored` from (bin, label, difference, p_holm)."""
    frame = pd.DataFrame(rows, columns=["bin", "label", "difference", "p_holm"])
    frame = frame.assign(p=frame["p_holm"] / 2, difference_low=frame["difference"] - 1, people=900, units=9, **more)
    return frame.assign(difference_high=frame["difference"] + 1)


def test_findings_name_who_is_told_apart_and_doubt_the_paper() -> None:
    rows = [("1–9", "pml", -2.0, 0.5), ("10–90", "pml", 4.0, 0.01), ("1–9", "bl", -3.0, 0.02), ("10–90", "bl", 1, 0.9)]
    found = findings(worded(rows), "quantiles", "mae", "l2")
    assert found[0] == (
        "Told apart from l2 by the MAE (2 of 4 tests): bl by -3.0 (-4.0 to -2.0) in 1–9; "
        "pml by +4.0 (+3.0 to +5.0) in 10–90."
    )
    assert "Against l2 in the densest bin that was tested: in 10–90 (9 of 18), pml +4.0 (+3.0 to +5.0)" in found[1]
    assert found[1].endswith("after correction: contradicted on these terms.")
    gains = findings(worded([("1–9", "pml", 3.0, 0.01), ("10–90", "pml", -4.0, 0.01)]), "quantiles", "mae", "l2")
    assert gains[1].endswith(": confirmed on these terms.")
    open_ = findings(worded([("1–9", "pml", 3.0, 0.5), ("10–90", "pml", -4.0, 0.06)]), "quantiles", "mae", "l2")
    assert open_[0] == "No loss is told apart from l2 in any bin by the MAE (2 tests)."
    assert "neither confirmed nor contradicted" in open_[1]


def test_the_densest_spacing_is_the_first_bin() -> None:
    rows = [
        ("2–3 px", "pml[tau=1]", -2.0, 0.01),
        ("4–9 px", "pml[tau=1]", 4.0, 0.01),
        ("<2 heads", "pml[tau=1]", 4, 0.01),
    ]
    found = findings(worded(rows), "spacing", "mae", "l2")
    assert "densest bin that was tested: in 2–3 px (9 of 27), pml[tau=1] -2.0" in found[1]
    assert ": confirmed on" in found[1]
    other = worded(rows).assign(label="bl")
    assert len(findings(other, "spacing", "mae", "l2")) == 1
    assert not findings(worded(rows).assign(p=np.nan), "spacing", "mae", "l2")


def test_findings_of_shares_go_from_sparse_to_dense() -> None:
    rows = [("S0: 0", "a", 0.0, 1.0), ("S1: 1–100", "a", 0.0, 1.0), ("S2: 101–500", "a", 0.0, 1.0)]
    frame = worded(rows).assign(f1=[0.0, 0.25, 0.75], f1_low=[0.0, 0.2, 0.7], f1_high=[0.0, 0.3, 0.8])
    frame.loc[frame["bin"] == "S0: 0", "people"] = 0
    found = findings(frame, "nwpu", "f1", None)
    ends = "F1 from the sparsest bin (S1: 1–100) to the densest (S2: 101–500)"
    assert found == [f"{ends}: a 0.250 to 0.750 (intervals do not overlap)."]
    wide = findings(frame.assign(f1_high=0.9), "nwpu", "f1", None)
    assert "(intervals overlap)" in wide[0]
    unknown = findings(frame.assign(f1_low=np.nan), "nwpu", "f1", None)
    assert "intervals" not in unknown[0]


def test_a_bin_of_most_says_nothing_of_dense_crowds_and_denser_ones_are_named() -> None:
    rows = [("0–50", "pml", 1.0, 0.9), ("51–500", "pml", 5.0, 0.001), (">500", "pml", 9.0, np.nan)]
    frame = worded(rows).assign(units=[60, 252, 4])
    (told,) = verdicts(frame, "jhu", "mae", "l2")
    assert told.said == "untold"
    assert told.words.startswith("in 51–500 (252 of 316, >500 not tested), pml +5")
    assert "says nothing of dense crowds" in told.words
    (told,) = verdicts(frame.assign(units=[260, 52, 4]), "jhu", "mae", "l2")
    assert told.said == "contradicted"


def test_pml_is_not_held_against_itself() -> None:
    frame = worded([("1–9", "pml[count_norm=l2]", -3.0, 0.01), ("1–9", "bl", 4.0, 0.01)])
    assert verdicts(frame, "quantiles", "mae", "pml") == []
    assert len(findings(frame, "quantiles", "mae", "pml")) == 1
    assert len(verdicts(frame, "quantiles", "mae", "l2")) == 1


def test_equal_values_merge_bins_and_that_is_said() -> None:
    assert "3 bins of about equally many images with people" in binning("quantiles", np.arange(1, 31), count=3).words
    tied = binning("quantiles", [1] * 20 + [2, 3, 4], count=5)
    assert f"{len(tied.bins)} of 5 quantiles" in tied.words
    assert "equal values stay in one bin" in tied.words
    spaced = binning("spacing", [2.0] * 20 + [3.0, 4.0], count=5)
    assert "of 5 quantiles of the images" in spaced.words


def test_too_few_images_have_no_difference() -> None:
    units = draw(np.random.default_rng(12), 3, 60)
    other = Units(units.predicted + 1, *units_but_counts(units))
    for images, known in ((LEAST_IMAGES - 1, False), (LEAST_IMAGES, True)):
        some = units.owner < images
        frame = scored(
            whole(units.restricted(some)), {"l2": units.restricted(some), "x": other.restricted(some)}, baseline="l2"
        )
        row = frame.set_index("label").loc["x"]
        assert np.isfinite(row["difference"]) == known


# ---- windows of where people were found


def test_windows_of_points_add_up_and_are_those_of_each_head(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), [0, 1], images=8)
    for seed in range(2):
        add_points(store, fake_spec("pml", seed))
    measured = read(store)
    localised = Localised.of(store, measured)
    rows = localised.rows
    whole_images = localised.sample(rows)
    for side in (64, 100, 512):
        windows = PlaceWindows.of(store, localised, side)
        assert windows.has(rows).all()
        assert windows.whole(rows) == (side == 512)
        units = windows.units(rows)
        assert (units.tp <= units.predicted).all()
        assert (units.tp <= units.true).all()
        every = units.restricted(np.ones(len(units.true), bool))
        for name in ("tp", "predicted", "true"):
            np.testing.assert_array_equal(getattr(every, name), getattr(whole_images, name))
    units = PlaceWindows.of(store, localised, 100).units(rows)
    run = rows.sort_values("seed").iloc[0]
    place = 0
    for _, row in store.run(run["run_id"]).points(run["eval_id"]).sort_values("id").iterrows():
        heads, points = (np.asarray(row[name], float).reshape(-1, 2) for name in ("heads", "points"))
        partner, lone = row["match_8px"], set(range(len(points))) - set(row["match_8px"])
        apart = np.linalg.norm(heads[:, None] - heads[None], axis=2) + np.diag(np.full(len(heads), np.inf))
        for y in range(2):
            for x in range(3):
                inside = [head for head, (a, b) in enumerate(heads) if a // 100 == x and b // 100 == y]
                found = sum(partner[head] >= 0 for head in inside)
                beside = sum(points[one][0] // 100 == x and points[one][1] // 100 == y for one in lone)
                assert (units.true[place], units.tp[0, place]) == (len(inside), found)
                assert units.predicted[0, place] == found + beside
                near = apart[inside].min(axis=1).mean() if inside and len(heads) > 1 else np.nan
                assert units.spacing[place] == pytest.approx(near, nan_ok=True)
                place += 1
    assert place == len(units.true)


def test_points_without_sizes_or_with_broken_matches_are_left_out_and_said(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ("pml",), [0], images=8)
    add_places(store, fake_spec("pml", 0))
    localised = Localised.of(store, read(store))
    problems: list[str] = []
    assert not len(PlaceWindows.of(store, localised, 64, problems))
    assert len(problems) == 1
    good = {"id": "a", "height": 64, "width": 64, "heads": [1.0, 1.0], "points": [2.0, 2.0], "match_8px": [0]}
    assert _image(good, "8px", 64).tp.tolist() == [1.0]
    with pytest.raises(ValueError, match="image a was localised without its size"):
        _image(good | {"height": None}, "8px", 64)
    for wrong in ([1], [0, 0], []):
        with pytest.raises(ValueError, match="do not fit its 1 heads"):
            _image(good | {"match_8px": wrong}, "8px", 64)
