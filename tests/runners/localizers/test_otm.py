"""OT-M against its formulas, torch's upsampling, sampling theory, known answers and its symmetries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from runners import localizers
from runners.localizers import Field, _draw
from runners.localizers import otm as otm_file
from runners.localizers.otm import exact_gap, otm
from tests.references import naive_otm
from tests.runners.localizers.crowds import blobs, crowd


def reference(density: np.ndarray, stride: int, init: np.ndarray, rounds: int) -> naive_otm.Outcome:
    return naive_otm.localise(torch.as_tensor(density), stride, torch.as_tensor(init), rounds=rounds)


# ---------------------------------------------------------------------------------------------------------------------
# The rounds.


def far_apart() -> np.ndarray:
    density = np.zeros((60, 60))
    density[:3, :3] = density[-3:, -3:] = 3.0
    return density


SCENES = {
    "crowd": (crowd((20, 26), 60), 8, None),
    "stride 1": (crowd((40, 30), 5, stride=1), 1, None),
    "stride 3": (crowd((25, 20), 12, stride=3), 3, None),
    "crowded": (crowd((16, 16), 400), 8, None),
    "flat": (np.full((20, 20), 0.1), 8, None),
    "one cell": (np.pad([[30.0]], 6), 8, None),
    "one cell in all": (np.array([[3.2]]), 8, None),
    "one row": (np.full((1, 50), 0.4), 8, None),
    "one column": (np.full((50, 1), 0.4), 4, None),
    "cells that differ by 1e9": (np.exp(np.random.default_rng(1).normal(0, 4, (14, 14))) / 30, 8, None),
    "points in a corner": (np.full((20, 20), 0.1), 8, np.random.default_rng(2).random((40, 2)) * 5),
    "points at one place": (crowd((14, 14), 40), 8, np.full((40, 2), 50.0)),
    "points far outside": (crowd((14, 14), 40), 8, np.random.default_rng(3).random((40, 2)) * 2000 - 900),
    "mass far away": (far_apart(), 8, np.random.default_rng(4).random((54, 2)) * 10),
}


@pytest.mark.parametrize("name", SCENES)
def test_one_round_is_that_of_the_formulas(name: str) -> None:
    density, stride, init = SCENES[name]
    found = otm(density, stride, init=init, rounds=1)
    expected = reference(density, stride, found.initial, rounds=1)
    np.testing.assert_allclose(found.points, expected.points.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.last_move, expected.moves, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_all_rounds_are_those_of_the_formulas(seed: int) -> None:
    density = crowd((20, 24), 50, seed)
    found = otm(density, 8, seed=seed)
    expected = reference(density, 8, found.initial, rounds=16)
    assert found.iterations == expected.rounds
    np.testing.assert_allclose(found.points, expected.points.numpy(), atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Known answers, symmetries, properties.


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_well_separated_blobs_give_their_centres(stride: int, seed: int) -> None:
    heads = np.array([[40.0, 40.0], [120.0, 40.0], [40.0, 128.0], [120.0, 120.0]])
    density = blobs((160 // stride, 160 // stride), heads, stride, 2.0 + stride / 4)
    found = localizers.build("otm", seed=seed)(Field(stride, (160, 160), density))
    distance, which = cKDTree(heads).query(found.points)
    assert sorted(which) == [0, 1, 2, 3]
    assert distance.max() < 0.05


def test_flip_and_transpose() -> None:
    density, init = crowd((18, 24), 30), np.random.default_rng(0).random((30, 2)) * [192, 144]
    found = otm(density, 8, init=init, rounds=2).points
    flipped = otm(density[:, ::-1], 8, init=init * [-1, 1] + [192, 0], rounds=2).points
    np.testing.assert_allclose(flipped * [-1, 1] + [192, 0], found, atol=1e-6)
    turned = otm(density.T, 8, init=init[:, ::-1], rounds=2).points
    np.testing.assert_allclose(turned[:, ::-1], found, atol=1e-6)


def test_translation() -> None:
    density, init = crowd((12, 14), 15), np.random.default_rng(0).random((15, 2)) * [112, 96]
    found = otm(density, 8, init=init, rounds=2).points
    moved = otm(np.pad(density, ((3, 2), (5, 1))), 8, init=init + np.array([40, 24]), rounds=2).points
    np.testing.assert_allclose(moved - [40, 24], found, atol=1e-6)


def test_units_of_length() -> None:
    """Twice the stride, and points, with four times the variance: the same costs."""
    density, init = crowd((12, 14), 15), np.random.default_rng(0).random((15, 2)) * [112, 96]
    found = otm(density, 8, init=init, rounds=1)
    larger = otm(density, 16, init=2 * init, rounds=1, variance=128.0)
    np.testing.assert_allclose(larger.points, 2 * found.points, atol=1e-6)
    np.testing.assert_allclose(larger.scores, found.scores, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_as_many_points_as_the_sum_inside_the_image(data: st.DataObject) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    height, width, stride = (data.draw(st.integers(1, most)) for most in (60, 60, 12))
    shape = (-(-height // stride), -(-width // stride))
    density = generator.random((shape[0] + 2, shape[1] + 1)) * data.draw(st.sampled_from([0.0, 0.01, 0.3, 3.0]))
    if not data.draw(st.booleans()):
        density = np.where(generator.random(density.shape) < 0.8, 0, density)
    variant, field = data.draw(st.sampled_from(["paper", "official"])), Field(stride, (height, width), density)
    build = localizers.build("otm", variant=variant, rounds=2)
    found, again = build(field), build(field)
    inside = density[: shape[0], : shape[1]]
    if variant == "paper":
        rows, columns = (
            np.clip(side / stride - np.arange(n), 0, 1) for side, n in zip((height, width), shape, strict=True)
        )
        inside = inside * np.outer(rows, columns)
    assert len(found.points) == int(inside.sum() + 0.5)
    assert ((found.points >= 0) & (found.points <= [width, height])).all()
    assert ((found.scores > 0) & (found.scores <= 1)).all()
    assert (np.diff(found.scores) <= 0).all()
    np.testing.assert_array_equal(found.points, again.points)


def test_float32_and_read_only_maps() -> None:
    density = crowd((12, 12), 20).astype(np.float32)
    density.flags.writeable = False
    found = otm(density, 8, rounds=2)
    np.testing.assert_array_equal(found.points, otm(density.astype(np.float64), 8, rounds=2).points)


def test_seeds() -> None:
    density = crowd((12, 12), 20)
    assert not np.array_equal(otm(density, 8, seed=1).initial, otm(density, 8).initial)
    np.testing.assert_array_equal(otm(density, 8, seed=1).points, otm(density, 8, seed=1).points)


def test_scores_are_the_spread_of_the_mass() -> None:
    """A blob of standard deviation s has the mean squared distance 2 s^2 from its centre."""
    heads = np.array([[60.5, 60.5], [180.5, 60.5], [300.5, 60.5]])
    density = sum(blobs((121, 361), [head], 1, s) for head, s in zip(heads, (2.0, 4.0, 8.0), strict=True))
    found = localizers.build("otm")(Field(1, (121, 361), density))
    np.testing.assert_allclose(found.points, heads, atol=0.1)
    np.testing.assert_allclose(found.scores, [1 / (1 + 2 * s**2 / 64) for s in (2.0, 4.0, 8.0)], rtol=0.01)


# ---------------------------------------------------------------------------------------------------------------------
# Degenerate inputs.


def test_less_than_half_a_person_is_nobody() -> None:
    for density in (np.zeros((6, 6)), np.full((6, 6), 0.49 / 36)):
        found = localizers.build("otm")(Field(8, (48, 48), density))
        assert found.points.shape == (0, 2)
        assert found.scores.shape == (0,)
        assert otm(density, 8).iterations == 0


def test_more_people_than_pixels() -> None:
    density = np.zeros((4, 4))
    density[1, 2] = 50.0
    found = otm(density, 1)
    assert len(found.points) == 50
    np.testing.assert_allclose(found.points, np.tile([2.5, 1.5], (50, 1)))
    assert len(np.unique(found.initial, axis=0)) == 50
    assert (found.scores == 1).all()


def test_tens_of_thousands_of_people() -> None:
    density = np.zeros((64, 64))
    density[20:28, 30:38] = np.random.default_rng(0).random((8, 8))
    density *= 20_000 / density.sum()
    found = localizers.build("otm", rounds=1)(Field(8, (512, 512), density))
    assert len(found.points) == 20_000
    assert ((found.points >= [240, 160]) & (found.points <= [304, 224])).all()


def test_more_people_than_a_picture_holds_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A density that has diverged would keep the machine busy for minutes."""
    monkeypatch.setattr(otm_file, "transport", None)  # would be a TypeError
    density = np.random.default_rng(0).random((96, 128))
    for people in (otm_file.MOST + 1, 197_000, 1e300):
        diverged = Field(8, (768, 1024), density * (people / density.sum()))
        with pytest.raises(ValueError, match=rf"sum is {people:.6g}.* at most {otm_file.MOST}".replace("+", r"\+")):
            localizers.build("otm")(diverged)
    with pytest.raises(ValueError, match="sum is inf"):
        otm(np.full((4, 4), np.finfo(float).max), 8)
    monkeypatch.undo()
    monkeypatch.setattr(otm_file, "MOST", 30)
    assert len(otm(np.full((4, 4), 30.4 / 16), 8, rounds=1).points) == 30
    with pytest.raises(ValueError, match="at most 30"):
        otm(np.full((4, 4), 30.6 / 16), 8)


def test_cells_across_the_border_count_by_their_share() -> None:
    """Image 20 x 20 px at stride 8: the last cells are half inside."""
    density = np.zeros((3, 3))
    density[2, 2], density[0, 0] = 8.0, 1.0
    field = Field(8, (20, 20), density)
    assert len(localizers.build("otm")(field).points) == 3
    assert len(localizers.build("otm", variant="official")(field).points) == 9
    assert (localizers.build("otm")(field).points <= 20).all()
    density[2, 2], density[0, 0] = 40.0, 0.0
    thin = Field(8, (18, 18), density)  # a quarter inside along each axis: the cell's centre lies beyond the border
    np.testing.assert_allclose(localizers.build("otm")(thin).points, [[18, 18], [18, 18], [18, 18]][: int(2.5 + 0.5)])


def test_wrong_values_are_refused() -> None:
    for bad in (np.nan, np.inf, -1.0):
        density = np.ones((4, 4))
        density[1, 1] = bad
        with pytest.raises(ValueError, match="NaN|negative"):
            localizers.build("otm")(Field(8, (32, 32), density))
        with pytest.raises(ValueError, match="NaN|negative"):
            otm(density, 8)
    with pytest.raises(ValueError, match="reads a density"):
        localizers.build("otm")(Field(8, (32, 32), points=np.zeros((1, 2)), scores=np.ones(1)))
    with pytest.raises(ValueError, match=r"must be \[16, 2\]"):
        otm(np.ones((4, 4)), 8, init=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="NaN"):
        otm(np.ones((1, 1)), 8, init=np.full((1, 2), np.nan))
    with pytest.raises(ValueError, match=r"shape \[h, w\]"):
        otm(np.ones(4), 8)


def test_wrong_parameters_are_refused() -> None:
    wrong = {"variant": "best", "blur": 0.0, "variance": -1.0, "scaling": 1.0, "rounds": 0, "seed": -1}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            localizers.build("otm", **{name: value})
    with pytest.raises(ValueError, match="whole"):
        localizers.build("otm", rounds=1.5)
    with pytest.raises(ValueError, match="no threshold"):
        localizers.build("otm", threshold=0.5)


# ---------------------------------------------------------------------------------------------------------------------
# The draw.


@pytest.mark.parametrize("stride", [1, 2, 3, 8])
def test_upsampling_is_that_of_torch(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_draw, "_BAND", 100)
    density = np.random.default_rng(0).random((7, 5))
    size = (7 * stride, 5 * stride)
    bands = list(_draw.upsampled_bands(density, stride, size))
    expected = torch.nn.functional.interpolate(torch.as_tensor(density)[None, None], size=size, mode="bilinear")
    np.testing.assert_allclose(np.concatenate([band for _, band in bands]), expected[0, 0].numpy(), atol=1e-14)
    assert [first for first, _ in bands] == np.cumsum([0] + [len(band) for _, band in bands])[:-1].tolist()


def test_draw_is_successive_sampling() -> None:
    """Frequencies of ordered pairs against p_i p_j / (1 - p_i), by a chi-squared test at 1e-4."""
    weights = np.array([[1.0, 2.0], [0.0, 4.0]])
    p = weights.ravel() / weights.sum()
    expected = {(i, j): p[i] * p[j] / (1 - p[i]) for i in (0, 1, 3) for j in (0, 1, 3) if i != j}
    generator, trials = np.random.default_rng(0), 6000
    seen = dict.fromkeys(expected, 0)
    for _ in range(trials):
        pixels = _draw.drawn_pixels(weights, 1, (2, 2), 2, generator)
        seen[tuple((pixels[:, 1] * 2 + pixels[:, 0]).tolist())] += 1
    statistic = sum((seen[pair] - trials * q) ** 2 / (trials * q) for pair, q in expected.items())
    assert statistic < 25.7  # chi-squared with 5 degrees of freedom at 1e-4


def test_draw_is_without_replacement_inside_the_image() -> None:
    density = crowd((10, 10), 30)
    pixels = _draw.drawn_pixels(density, 8, (75, 78), 5000, np.random.default_rng(0))
    assert len(np.unique(pixels, axis=0)) == 5000
    assert (pixels >= 0).all()
    assert (pixels < [78, 75]).all()


def test_official_draw_is_at_the_corners_of_pixels() -> None:
    density = crowd((10, 10), 12)
    official, paper = (otm(density, 8, variant=variant, rounds=1).initial for variant in ("official", "paper"))
    np.testing.assert_array_equal(official, np.floor(paper))


def test_the_gap_to_the_exact_plan_can_be_measured() -> None:
    """One person in one cell: both plans are the same; a crowd: the entropic plan costs no more and is near."""
    single = np.zeros((8, 8))
    single[3, 4] = 1.0
    found = exact_gap(single, 8, otm(single, 8).points)
    assert found.mean_distance < 1e-6
    assert found.exact_cost == pytest.approx(found.cost, abs=1e-9)
    rng = np.random.default_rng(0)
    crowd = rng.gamma(0.3, size=(16, 16))
    crowd *= 40 / crowd.sum()
    gap = exact_gap(crowd, 8, otm(crowd, 8).points)
    assert gap.cost <= gap.exact_cost * 1.001
    assert 0 < gap.mean_distance < 8
    with pytest.raises(ValueError, match="nothing to transport"):
        exact_gap(crowd, 8, np.zeros((0, 2)))
