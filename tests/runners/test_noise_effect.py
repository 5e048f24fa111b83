"""What a noise does to labels: known moments, known distributions, and the very labels of training."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from runners.data.noise import parse
from runners.data.noise_effect import displaced, evenly, request, wrong_labels
from runners.data.transforms import TrainCrops
from tests.runners.test_transforms import Memory, crowd

FAR = Memory(
    [np.zeros((600, 600, 3), dtype=np.uint8)] * 4,
    [np.random.default_rng(i).uniform(250, 350, (5000, 2)) for i in range(4)],
)
"""Many heads far from every border."""


def test_a_uniform_square_has_its_known_moments() -> None:
    """Sd L / sqrt(3) along an axis; mean length (sqrt(2) + asinh(1)) / 3 L = 0.7652 L."""
    found = displaced(FAR, parse("uniform-px:8")).numbers()
    assert found["sd_px"] == pytest.approx(8 / math.sqrt(3), rel=0.01)
    assert found["requested_sd_px"] == pytest.approx(8 / math.sqrt(3))
    assert found["mean_px"] == pytest.approx(8 * (math.sqrt(2) + math.asinh(1)) / 3, rel=0.01)
    assert found["clipped"] == 0


def test_a_gaussian_has_its_known_moments() -> None:
    """Mean length sigma sqrt(pi / 2), median sigma sqrt(2 ln 2)."""
    found = displaced(FAR, parse("gaussian-px:5")).numbers()
    assert found["mean_px"] == pytest.approx(5 * math.sqrt(math.pi / 2), rel=0.01)
    assert found["median_px"] == pytest.approx(5 * math.sqrt(2 * math.log(2)), rel=0.015)


@pytest.mark.parametrize("noise", ["uniform-px:8", "uniform-height:0.02", "gaussian-px:5", "uniform-px:8+missing:0.5"])
def test_what_is_drawn_follows_what_is_asked_for_also_at_borders(noise: str) -> None:
    images = crowd([(60, 90), (120, 50)], count=4000)
    found = displaced(images, parse(noise)).numbers()
    assert found["ks"] < 0.02
    assert found["ks_p"] > 0.001
    assert found["clipped"] > 0.01


def test_the_wrong_distribution_would_be_noticed() -> None:
    found = displaced(FAR, parse("uniform-px:8"))
    rows = found.moves.assign(family="normal", scale=8 / math.sqrt(3))
    assert found._replace(moves=rows).numbers()["ks_p"] < 1e-6


def test_no_noise_moves_nothing() -> None:
    found = displaced(crowd([(60, 90)]), parse("none")).numbers()
    assert found["before"] == found["after"] == 30
    assert all(found[key] == 0 for key in ("mean_px", "p95_px", "clipped", "switched", "missing", "duplicates"))
    assert math.isnan(found["ks"])


def test_missing_and_duplicate_heads_are_counted() -> None:
    found = displaced(FAR, parse("missing:0.25+duplicate:0.5")).numbers()
    assert found["missing"] / found["before"] == pytest.approx(0.25, abs=0.02)
    assert found["duplicates"] / (found["before"] - found["missing"]) == pytest.approx(0.5, abs=0.02)
    assert found["after"] == found["before"] - found["missing"] + found["duplicates"]
    assert found["mean_px"] == 0  # copies are no displacement


def test_switches_and_spacing_agree_with_all_pairs() -> None:
    images, noise = crowd([(60, 90)], count=80), parse("uniform-px:6+missing:0.2")
    true, rows = images.points(0), displaced(images, noise, 3).moves
    noisy, _ = wrong_labels(images, 0, noise, 3)
    gaps = cdist(noisy.points, true)
    switched = gaps.argmin(1) != noisy.source
    assert 0 < switched.mean() < 1
    np.testing.assert_array_equal(rows["switched"], switched)
    between = cdist(true, true)
    np.fill_diagonal(between, np.inf)
    np.testing.assert_allclose(rows["spacing"], between.min(1)[noisy.source])


def test_exact_duplicates_of_the_annotation_are_no_switch() -> None:
    images = Memory([np.zeros((50, 50, 3), dtype=np.uint8)], [np.array([[20.0, 20.0], [20.0, 20.0], [40.0, 40.0]])])
    found = displaced(images, parse("uniform-px:2")).numbers()
    assert found["switched"] == 0
    assert math.isfinite(found["relative"])


def test_a_lone_head_and_an_empty_image() -> None:
    blank = np.zeros((400, 400, 3), dtype=np.uint8)
    images = Memory([blank, blank], [np.array([[200.0, 200.0]]), np.zeros((0, 2))])
    found = displaced(images, parse("uniform-px:30")).numbers()
    assert (found["before"], found["clipped"], found["switched"], found["relative"]) == (1, 0, 0, 0)
    nobody = displaced(evenly(Memory([blank], [np.zeros((0, 2))]), None), parse("uniform-px:3")).numbers()
    assert nobody["before"] == 0
    assert math.isnan(nobody["mean_px"])


def test_the_border_moves_what_would_lie_outside() -> None:
    images = Memory([np.zeros((100, 100, 3), dtype=np.uint8)], [np.tile([[0.0, 50.0]], (2000, 1))])
    found = displaced(images, parse("uniform-px:10")).numbers()
    assert found["clipped"] == pytest.approx(0.5, abs=0.05)
    assert found["clipped_px"] == pytest.approx(5, abs=0.4)


@pytest.mark.parametrize("noise", ["uniform-height:0.1+missing:0.3", "gaussian-px:7+duplicate:0.4"])
def test_the_labels_are_those_of_training(noise: str) -> None:
    images = crowd([(60, 90), (80, 50), (64, 64)])
    trained = TrainCrops(images, crop=32, noise=parse(noise), noise_seed=7)
    part = evenly(images, 2)
    for index in range(2):
        noisy, _ = wrong_labels(part, index, parse(noise), 7)
        np.testing.assert_array_equal(noisy.points, trained.heads[part.places[index]].points)


def test_images_are_spread_evenly() -> None:
    images = crowd([(16, 16)] * 10, count=1)
    assert evenly(images, 5).places == (1, 3, 5, 7, 9)
    assert evenly(images, None).places == evenly(images, 99).places == tuple(range(10))
    with pytest.raises(ValueError, match="at least 1"):
        evenly(images, 0)


def test_requests() -> None:
    asked = request(parse("uniform-height:0.1+missing:0.1"), 200)
    assert asked is not None
    assert (asked.family, asked.scale) == ("uniform", 20)
    np.testing.assert_allclose(asked.cdf(np.array([-20.0, 0, 10, 20])), [0, 0.5, 0.75, 1])
    assert request(parse("missing:0.1"), 200) is None
    assert request(parse("uniform-px:3+gaussian-px:2"), 200) is None
