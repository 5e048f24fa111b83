"""The study of noisy annotations: names, errors, ranks and slopes against numpy, scipy and simulations."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, rankdata

from benchmark.study import load_study
from reports import noise, stats
from reports.coverage import REGIMES, Regime, expected
from reports.degradation import Degradation, slopes, weights
from reports.measured import Comparisons, Measured, Sample
from reports.noise_words import findings
from results.store import Store
from runners.data import noise as makers
from tests.reports.fake_store import add_failure, add_run, fake_spec, fake_store
from tests.reports.test_tables import measured

L2 = {"count_norm": "l2"}


def noisy_store(root: Path, qualities: dict[tuple[str, str], float], seeds: int = 3, images: int = 60) -> Store:
    """A store of runs with a given quality for each loss and noise; `pml/l2` is PML with the L2 count norm."""
    store = Store(root)
    for (name, level), quality in qualities.items():
        loss, _, norm = name.partition("/")
        for seed in range(seeds):
            spec = fake_spec(loss, seed, noise=level, loss_params={"count_norm": norm} if norm else {})
            add_run(store, spec, quality=quality, images=images, train_mae=True)
    return store


def one_study(found: Measured) -> noise.Study:
    (study,) = noise.studies(found)
    return study


def sample(errors: np.ndarray, true: np.ndarray, seeds: tuple[int, ...] | None = None) -> Sample:
    """Counts that are off by `errors`, (S, I)."""
    kept = tuple(range(len(errors))) if seeds is None else seeds
    return Sample(true + errors, true, kept, tuple(f"r{seed}" for seed in kept))


# ---- names


@pytest.mark.parametrize("kind", list(makers.KINDS))
def test_every_kind_of_the_runners_is_read(kind: str) -> None:
    level = makers.KINDS[kind].example
    assert noise.parse(str(makers.parse(f"{kind}:{level}"))) == (kind, level)


def test_the_kinds_are_those_of_the_runners() -> None:
    assert list(noise.KINDS) == list(makers.KINDS)


@pytest.mark.parametrize("name", ["none", "", "uniform-px", "uniform-px:8+missing:0.1", "wind:3", "uniform-px:nan"])
def test_what_is_no_single_kind(name: str) -> None:
    assert noise.parse(name) is None


@pytest.mark.parametrize("kind", ["uniform-px", "gaussian-px"])
def test_pixels_stand_at_their_standard_deviation(kind: str) -> None:
    points = np.full((40_000, 2), 5000.0)
    moved = makers.parse(f"{kind}:12").apply(points, (10_000, 10_000), ("d", "i", 0)).points - points
    (level,) = noise._levels([f"{kind}:12"])[0][kind]
    assert moved.std(axis=0) == pytest.approx([level.x, level.x], rel=0.02)


def test_order_is_by_kind_then_size() -> None:
    names = ["missing:0.1", "uniform-px:16", "b+c", "uniform-px:8", "none", "uniform-height:0.02"]
    assert sorted(names, key=noise.order) == [
        "none", "uniform-height:0.02", "uniform-px:8", "uniform-px:16", "missing:0.1", "b+c",
    ]  # fmt: skip


# ---- studies, errors


def test_a_study_for_everything_that_differs_in_noise_alone(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml", "bl"], [0, 1], noises=("none", "uniform-px:8", "missing:0.1+uniform-px:8"))
    fake_store(tmp_path, ["pml"], [0, 1], backbones=("csrnet",), noises=("none", "missing:0.1"))
    fake_store(tmp_path, ["pml"], [0, 1], backbones=("mcnn",))
    add_failure(store, fake_spec("gl", noise="uniform-px:8"))
    large, small = noise.studies(measured(store))
    assert (set(large.measured.runs["backbone"]), set(small.measured.runs["backbone"])) == ({"vgg19"}, {"csrnet"})
    assert [level.noise for level in large.levels["uniform-px"]] == ["none", "uniform-px:8"]
    assert list(large.levels) == ["uniform-px"]
    assert large.left_out == ("missing:0.1+uniform-px:8",)
    assert list(large.measured.failed["label"]) == ["gl"]
    assert len({large.key, small.key, large.title, small.title}) == 4


def test_errors_are_the_samples(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml", "bl"], [0, 1, 2], noises=("none", "uniform-px:8", "missing:0.3"))
    add_run(store, fake_spec("l2", noise="missing:0.3"))
    study = one_study(measured(store))
    frame = noise.errors(study, "rmse")
    assert len(frame) == 2 * 2 + 2 * 2 + 1
    for row in frame.to_dict("records"):
        folders = [store.run(fake_spec(row["label"], seed, noise=row["noise"]).run_id) for seed in range(row["seeds"])]
        images = [folder.images("val-test-m1") for folder in folders]
        rmse = np.mean([math.sqrt(((i["predicted"] - i["true"]) ** 2).mean()) for i in images])
        assert row["estimate"] == pytest.approx(rmse)
        assert (row["low"] < row["estimate"] < row["high"]) == (row["seeds"] > 1)
    assert set(frame.loc[frame["kind"] == "missing", "x"]) == {0.0, 30.0}
    floor = noise.constants(study).set_index(["kind", "noise"])["estimate"]
    assert floor["missing", "none"] == floor["uniform-px", "none"] > 0


# ---- ranks


def test_ranks_of_separated_losses(tmp_path: Path) -> None:
    worse = {"pml": (0.05, 0.6), "bl": (0.2, 0.2), "l2": (0.6, 0.05)}
    levels = ("none", "missing:0.3")
    qualities = {(loss, level): q for loss, pair in worse.items() for level, q in zip(levels, pair, strict=True)}
    study = one_study(measured(noisy_store(tmp_path, qualities, seeds=5, images=150)))
    frame = noise.ranks(study).set_index(["noise", "label"])
    for level, order in (("none", ["pml", "bl", "l2"]), ("missing:0.3", ["l2", "bl", "pml"])):
        for rank, label in enumerate(order, 1):
            row = frame.loc[(level, label)]
            assert (row["rank"], row["first"], row["last"]) == (rank, rank, rank)
            assert (row["not_separated"], bool(row["tested"])) == ("", True)
    assert list(frame.loc["missing:0.3"].loc[["pml", "bl", "l2"], "change"]) == [2, 0, -2]
    assert frame.loc["none", "change"].isna().all()


def test_ranks_of_equal_losses_are_open(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml", "bl", "l2"], [0], noises=("none", "missing:0.3"))
    frame = noise.ranks(one_study(measured(store)))
    means = frame.pivot_table(index="label", columns="noise", values=["estimate", "rank"])
    for level in ("none", "missing:0.3"):
        np.testing.assert_array_equal(rankdata(means["estimate"][level]), means["rank"][level])
    assert set(frame["first"]) == {1}
    assert set(frame["last"]) == {3}
    assert not frame["tested"].any()
    assert frame["not_separated"].str.split(", ").map(len).eq(2).all()


def test_the_range_of_ranks_holds_the_true_rank() -> None:
    """Ranges of all losses at once, where two of four are equal: the true ranks are 1, 2 to 3, 2 to 3, 4."""
    rng, hits, trials = np.random.default_rng(1), 0, 60
    spread = {"a": 1.0, "b": 1.3, "c": 1.3, "d": 1.6}
    for _ in range(trials):
        true = rng.lognormal(4, 0.5, 80)
        samples = {k: sample(size * 0.1 * true * rng.standard_normal((3, 80)), true) for k, size in spread.items()}
        found = Comparisons({"": samples}, ("mae",))
        first = {k: 1 + sum(bool(found.better("", "mae", o, k)) for o in spread if o != k) for k in spread}
        last = {k: 4 - sum(bool(found.better("", "mae", k, o)) for o in spread if o != k) for k in spread}
        hits += all(first[k] <= ranks and last[k] >= ranks for k, ranks in (("a", 1), ("d", 4))) and all(
            first[k] <= 2 and last[k] >= 3 for k in "bc"
        )
    assert hits >= binom.ppf(0.001, trials, 0.95)


# ---- slopes


@pytest.mark.parametrize("metric", ["mae", "rmse", "nae", "bias"])
def test_slopes_are_those_of_polyfit(metric: stats.Metric) -> None:
    rng = np.random.default_rng(0)
    true = np.append(rng.lognormal(4, 1, 49), 0.0)
    levels = (0.0, 1.0, 2.5, 4.0)
    samples = {x: sample((1 + x) * rng.normal(0.3, 5, (3, 50)), true) for x in levels}
    one = Degradation(samples)
    errors = np.array([samples[x].scores(metric) for x in levels])
    np.testing.assert_allclose(one.scores(metric), np.polyfit(levels, errors, 1)[0])
    found = one.interval(metric)
    assert found.estimate == pytest.approx(np.polyfit(levels, errors.mean(axis=1), 1)[0])
    assert found.low < found.estimate < found.high
    if metric != "bias":
        relative = Degradation(samples, relative=True).interval(metric)
        assert relative.estimate == pytest.approx(100 * found.estimate / errors[0].mean())


def test_weights_need_two_levels() -> None:
    np.testing.assert_allclose(weights([0, 4]), [-0.25, 0.25])
    with pytest.raises(ValueError, match="two different levels"):
        weights([2, 2])


def test_the_relative_slope_is_linearised_as_by_leaving_out_images() -> None:
    """The jackknife's variance over images, which knows no formula of the ratio."""
    rng = np.random.default_rng(2)
    true = rng.lognormal(4, 0.5, 400)
    size = np.abs(rng.standard_normal(400)) * 10
    samples = {x: sample((size * (1 + 0.2 * x) + rng.normal(0, 3, 400))[None], true) for x in (0.0, 1.0, 2.0)}

    def ratio(kept: np.ndarray) -> float:
        errors = [np.abs(samples[x].predicted[0, kept] - true[kept]).mean() for x in (0.0, 1.0, 2.0)]
        return float(100 * np.polyfit([0, 1, 2], errors, 1)[0] / errors[0])

    every = np.arange(400)
    left = np.array([ratio(np.delete(every, i)) for i in every])
    jackknife = math.sqrt(399 / 400 * ((left - left.mean()) ** 2).sum())
    values = Degradation(samples, relative=True).values("mae")
    assert values.mean() == pytest.approx(ratio(every))
    assert values.std(ddof=1) / math.sqrt(400) == pytest.approx(jackknife, rel=0.02)


def simulated(regime: Regime, growth: float, rng: np.random.Generator, common: np.ndarray, true: np.ndarray) -> Sample:
    """Counts of 3 newly trained seeds whose errors are `growth` times the regime's; see `reports.coverage`."""
    bias, size = regime.bias * rng.standard_normal((3, 1)), regime.spread * rng.standard_normal((3, 1))
    difficulty = regime.image * (common + rng.standard_normal(len(true)) / 2) / math.sqrt(1.25)
    both = regime.interaction * rng.standard_normal((3, len(true)))
    return sample(true * growth * (bias + np.exp(size) * (difficulty + both)), true)


@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: regime.name)
def test_intervals_cover_the_slope_and_equal_slopes_are_equal(regime: Regime) -> None:
    rng, trials, level = np.random.default_rng(3), 150, {0.0: 1.0, 1.0: 1.1, 2.0: 1.2, 4.0: 1.4}
    truth = float(np.polyfit(list(level), [g * expected(regime, "mae") for g in level.values()], 1)[0])
    share = 100 * truth / expected(regime, "mae")
    hits, wrong = np.zeros(2, int), 0
    for _ in range(trials):
        true, common = rng.lognormal(4.5, regime.crowd, 120), rng.standard_normal(120)
        a, b = (Degradation({x: simulated(regime, g, rng, common, true) for x, g in level.items()}) for _ in range(2))
        hits += [a.interval("mae").covers(truth), Degradation(a.samples, True).interval("mae").covers(share)]
        compared = a.compared("mae", b)
        assert compared is not None
        wrong += compared.p < 0.05
    assert hits.min() >= binom.ppf(0.001, trials, 0.95)
    assert wrong <= binom.ppf(0.999, trials, 0.05)


def test_only_seeds_that_every_level_has() -> None:
    rng = np.random.default_rng(4)
    true = rng.lognormal(4, 0.5, 30)
    errors = {x: rng.standard_normal((3, 30)) * (5 + x) for x in (0.0, 1.0)}
    one = Degradation({0.0: sample(errors[0.0], true, (0, 1, 5)), 1.0: sample(errors[1.0], true, (1, 5, 7))})
    assert one.seeds == (1, 5)
    by_hand = np.abs(errors[1.0][:2]).mean(axis=1) - np.abs(errors[0.0][1:]).mean(axis=1)
    np.testing.assert_allclose(one.scores("mae"), by_hand)
    assert Degradation({0.0: sample(errors[0.0], true, (0, 1, 2)), 1.0: one.samples[1.0]}).problem == ""
    nobody = Degradation({0.0: sample(errors[0.0], true, (0, 2, 4)), 1.0: one.samples[1.0]})
    assert nobody.problem == "no seed was trained at every level"
    with pytest.raises(ValueError, match="no seed was trained"):
        nobody.values("mae")
    assert Degradation({1.0: one.samples[1.0]}).problem == "fewer than two levels were measured"
    assert "clean labels" in Degradation({1.0: one.samples[1.0], 2.0: one.samples[0.0]}, relative=True).problem
    assert "different images" in Degradation({0.0: one.samples[0.0], 1.0: sample(errors[1.0], true + 1)}).problem


def test_slopes_are_compared_over_the_levels_that_both_have() -> None:
    rng = np.random.default_rng(5)
    true = rng.lognormal(4, 0.5, 40)
    a = {x: sample(rng.standard_normal((2, 40)) * (5 + x), true) for x in (0.0, 1.0, 4.0)}
    b = {x: sample(rng.standard_normal((2, 40)) * (5 + x), true) for x in (0.0, 4.0)}
    found = Degradation(a).compared("mae", Degradation(b))
    assert found is not None
    means = [np.abs(samples[x].predicted - true).mean() for samples in (a, b) for x in (0.0, 4.0)]
    assert found.difference.estimate == pytest.approx(((means[1] - means[0]) - (means[3] - means[2])) / 4)
    assert Degradation(a).compared("mae", Degradation({1.0: a[1.0], 2.0: a[4.0]})) is None


def test_slopes_of_a_store(tmp_path: Path) -> None:
    store = fake_store(tmp_path, ["pml", "bl", "l2"], [0, 1], noises=("none", "missing:0.1", "missing:0.3"))
    add_run(store, fake_spec("gl", noise="missing:0.1"))
    fake_store(tmp_path, ["chfl"], [0, 1], noises=("none", "missing:0.3"))
    found = slopes(one_study(measured(store)), ("mae", "nae"))
    assert sorted(found.found["missing"]) == ["bl", "chfl", "l2", "pml"]
    assert found.absent == {("missing", "gl"): "fewer than two levels were measured"}
    assert found.short == {("missing", "chfl"): "none, missing:0.3"}
    mae = found.comparisons.table.query("metric == 'mae'")
    assert len(mae) == 6
    np.testing.assert_allclose(mae["p_holm"], stats.holm(mae["p"]))


# ---- PML's count norms


def test_norms_are_paired_only_when_all_else_is_equal(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for params in ({}, L2 | {"count_weight": 2.0}, {"radius": 8.0}, {"radius": 8.0} | L2):
        add_run(store, fake_spec("pml", loss_params=params))
    (pair,) = noise.count_norms(measured(store).evaluated)
    assert pair == ("pml[radius=8.0]", "pml[count_norm=l2,radius=8.0]")


def test_curves_of_the_norms(tmp_path: Path) -> None:
    qualities = {(loss, level): 0.1 for loss in ("pml", "pml/l2", "bl") for level in ("none", "missing:0.1")}
    store = noisy_store(tmp_path, qualities | {("pml", "missing:0.3"): 0.1}, seeds=2)
    study = one_study(measured(store))
    history = store.histories(study.measured.evaluated["run_id"])
    frame = noise.norm_curves(study, history, ("pml", "pml[count_norm=l2]"))
    assert list(dict.fromkeys(frame["noise"])) == ["none", "missing:0.1"]
    assert len(frame) == 2 * 2 * 2 * 5
    row = frame.query("noise == 'missing:0.1' and norm == 'L2' and seed == 1 and epoch == 3").iloc[0]
    kept = store.run(fake_spec("pml", 1, noise="missing:0.1", loss_params=L2).run_id).history()
    assert tuple(row[["val_mae", "train_mae"]]) == tuple(kept[kept["epoch"] == 3].iloc[0][["val_mae", "train_mae"]])
    assert set(frame.loc[frame["picked"], "epoch"]) == {4}
    old = noise.norm_curves(study, history.drop(columns="train_mae"), ("pml", "pml[count_norm=l2]"))
    assert old["train_mae"].isna().all()
    with pytest.raises(ValueError, match="no noise in common"):
        noise.norm_curves(study, history, ("pml", "nobody"))
    with pytest.raises(ValueError, match="there is no curve"):
        noise.norm_curves(study, history.iloc[:0], ("pml", "pml[count_norm=l2]"))


# ---- sentences


@pytest.mark.parametrize(
    ("l1", "l2", "verdict"),
    [
        ((0.1, 0.1), (0.1, 0.1), "neither confirmed nor contradicted"),
        ((0.1, 0.12), (0.1, 0.9), "confirms, on these terms"),
        ((0.1, 0.9), (0.1, 0.12), "contradicts, on these terms"),
    ],
)
def test_the_claim_is_judged_by_the_test(
    tmp_path: Path, l1: tuple[float, float], l2: tuple[float, float], verdict: str
) -> None:
    pairs = {"pml": l1, "pml/l2": l2, "bl": (0.1, 0.1)}
    levels = ("none", "uniform-height:0.04")
    qualities = {(k, level): q for k, pair in pairs.items() for level, q in zip(levels, pair, strict=True)}
    said = findings(one_study(measured(noisy_store(tmp_path, qualities, seeds=4, images=150))))
    (claim,) = [line for line in said if line.startswith("PML's count norm")]
    assert verdict in claim
    assert ("the intervals of the two slopes overlap" in claim) == (l1 == l2)
    slope = next(line for line in said if line.startswith("MAE over uniform-height"))
    assert "levels ours" in slope
    if l1 == l2:
        assert "No pair of its slopes is separated (3 tested)" in slope
        assert any("No pair of losses is separated" in line and "uniform-height:0.04 (3)" in line for line in said)
    else:
        steep = "pml[count_norm=l2]" if l2[1] > l1[1] else "pml"
        assert f"Slopes told apart: {steep} is steeper than" in slope
        assert re.search(rf"rises for [^;]*{re.escape(steep)} \+", slope)


def test_a_level_that_is_not_finished_is_said(tmp_path: Path) -> None:
    levels = ("none", "missing:0.1")
    store = noisy_store(tmp_path, {(loss, level): 0.1 for loss in ("pml", "pml/l2") for level in levels}, seeds=2)
    add_run(store, fake_spec("pml", 0, noise="missing:0.3"), images=60)
    said = findings(one_study(measured(store)))
    assert any("not tested, one seed at every level: pml." in line for line in said)
    (claim,) = [line for line in said if line.startswith("PML's count norm")]
    assert "over none, missing:0.1, which both have" in claim
    assert "overlap" not in claim


def test_one_seed_is_said(tmp_path: Path) -> None:
    qualities = {(loss, level): 0.1 for loss in ("pml", "pml/l2") for level in ("none", "missing:0.1")}
    said = findings(one_study(measured(noisy_store(tmp_path, qualities, seeds=1))))
    assert any(line.startswith("Nothing can be tested at none, missing:0.1") for line in said)
    assert any("one seed a loss" in line for line in said)
    assert any("cannot be tested without two common seeds" in line for line in said)


def test_the_gaussian_levels_of_the_built_in_study_have_the_variance_of_a_uniform_one() -> None:
    levels, left_out = noise._levels(load_study("noise_ncc").noises)
    uniform = [level.x for level in levels["uniform-px"]]
    for level in levels["gaussian-px"]:
        assert min(abs(level.x - x) for x in uniform) < 1e-4
    assert left_out == ()
    assert list(noise._levels(load_study("noise_bl").noises)[0]) == ["uniform-height"]
