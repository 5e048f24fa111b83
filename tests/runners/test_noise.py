"""Annotation noise: names, determinism, and the distributions it promises."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from runners.data.noise import BORDER, KINDS, parse

SIZE = (3000, 4000)
KEY = ("shanghaitech_b", "IMG_7", 0)
KNOWN = [[98.94045718470888, 193.53292426327252], [295.6283896925932, 54.66496848267495]]
CENTRE = np.random.default_rng(0).uniform(500, 2500, (4000, 2))


def moves(name: str, key: tuple[str, str, int] = KEY) -> np.ndarray:
    return parse(name).apply(CENTRE, SIZE, key).points - CENTRE


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("none", "none"),
        (" none ", "none"),
        ("uniform-px:8", "uniform-px:8"),
        ("uniform-px:8.0", "uniform-px:8"),
        ("uniform-px:0", "none"),
        ("missing:0.1+uniform-px:8", "uniform-px:8+missing:0.1"),
        ("uniform-px:8 + missing:1e-1", "uniform-px:8+missing:0.1"),
        ("duplicate:.5+missing:0+gaussian-px:2", "gaussian-px:2+duplicate:0.5"),
        ("uniform-height:0.02", "uniform-height:0.02"),
    ],
)
def test_names_are_canonical(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical
    assert parse(str(parse(text))) == parse(text)


@given(st.dictionaries(st.sampled_from(sorted(KINDS)), st.floats(0, 1)))
def test_any_valid_name_survives_a_round_trip(levels: dict[str, float]) -> None:
    noise = parse("+".join(f"{k}:{v!r}" for k, v in levels.items()) or "none")
    assert parse(str(noise)) == noise


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("unifrom-px:8", "Did you mean uniform-px"),
        ("uniform-px", "such as uniform-px:8"),
        ("uniform-px:", "such as uniform-px:8"),
        ("uniform-px:eight", "such as uniform-px:8"),
        ("uniform-px:nan", "from 0 to"),
        ("uniform-px:inf", "from 0 to"),
        ("gaussian-px:-1", "from 0 to"),
        ("missing:1.5", "from 0 to 1"),
        ("missing:0.1+missing:0.2", "twice"),
        ("none+missing:0.1", "unknown noise 'none'"),
        ("", "a noise is a name"),
    ],
)
def test_wrong_names_say_what_is_expected(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(text)


def test_parsing_needs_neither_numpy_nor_torch() -> None:
    code = (
        "import sys; from runners import data; data.names(); from runners.data.noise import parse;"
        "parse('uniform-px:8+missing:0.1'); print([m for m in ('numpy', 'torch', 'scipy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_same_key_same_labels_other_key_other_labels() -> None:
    name = "uniform-px:8"
    assert np.array_equal(moves(name), moves(name))
    others = [("shanghaitech_a", "IMG_7", 0), ("shanghaitech_b", "IMG_8", 0), ("shanghaitech_b", "IMG_7", 1)]
    for other in others:
        assert np.corrcoef(moves(name)[:, 0], moves(name, other)[:, 0])[0, 1] < 0.1
    assert np.corrcoef(moves(name)[:, 0], moves("uniform-px:9")[:, 0])[0, 1] < 0.1
    assert np.corrcoef(moves(name)[:, 0], moves("gaussian-px:8")[:, 0])[0, 1] < 0.1


def test_labels_are_the_same_on_every_machine() -> None:
    noisy = parse("uniform-px:8").apply(np.array([[100.0, 200.0], [300.0, 50.0]]), (768, 1024), KEY)
    np.testing.assert_allclose(noisy.points, KNOWN, atol=1e-9)


def test_uniform_noise_is_uniform_and_gaussian_noise_is_gaussian() -> None:
    for axis in (0, 1):
        assert stats.kstest(moves("uniform-px:8")[:, axis], stats.uniform(-8, 16).cdf).pvalue > 1e-3
        assert stats.kstest(moves("uniform-height:0.01")[:, axis], stats.uniform(-30, 60).cdf).pvalue > 1e-3
        assert stats.kstest(moves("gaussian-px:8")[:, axis], stats.norm(0, 8).cdf).pvalue > 1e-3


def test_missing_and_duplicate_points_come_at_their_rate() -> None:
    missing = parse("missing:0.3").apply(CENTRE, SIZE, KEY)
    assert stats.binomtest(len(missing.points), len(CENTRE), 0.7).pvalue > 1e-3
    np.testing.assert_array_equal(missing.points, CENTRE[missing.source])
    doubled = parse("duplicate:0.3").apply(CENTRE, SIZE, KEY)
    assert stats.binomtest(len(doubled.points) - len(CENTRE), len(CENTRE), 0.3).pvalue > 1e-3
    np.testing.assert_array_equal(doubled.points[: len(CENTRE)], CENTRE)
    copies = doubled.points[len(CENTRE) :] - CENTRE[doubled.source[len(CENTRE) :]]
    assert stats.kstest(copies.reshape(-1), stats.norm(0, 4).cdf).pvalue > 1e-3


def test_adding_a_kind_leaves_the_others_as_they_were() -> None:
    alone, both = (
        parse("uniform-px:8").apply(CENTRE, SIZE, KEY),
        parse("uniform-px:8+missing:0.2").apply(CENTRE, SIZE, KEY),
    )
    np.testing.assert_array_equal(both.points, alone.points[both.source])


def test_all_or_nothing() -> None:
    assert len(parse("missing:1").apply(CENTRE, SIZE, KEY).points) == 0
    assert len(parse("duplicate:1").apply(CENTRE, SIZE, KEY).points) == 2 * len(CENTRE)
    for name in ("none", "uniform-px:8+missing:0.5+duplicate:0.5"):
        assert parse(name).apply(np.zeros((0, 2)), SIZE, KEY).points.shape == (0, 2)


def test_points_stay_in_the_image_and_the_input_stays_as_it_was() -> None:
    points = np.array([[0.0, 0.0], [10.0, 5.0], [9.9, 4.9]])
    before = points.copy()
    noisy = parse("gaussian-px:50+duplicate:1").apply(points, (5, 10), KEY)
    assert (noisy.points >= 0).all()
    assert (noisy.points <= np.array([10, 5]) - BORDER).all()
    np.testing.assert_array_equal(points, before)
    clean = parse("none").apply(points, (5, 10), KEY)
    np.testing.assert_array_equal(clean.points, before)
    assert not np.shares_memory(clean.points, points)
