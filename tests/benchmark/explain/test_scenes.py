"""Scenes and the predictions made from them: exact masses, coordinates of real images, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import pdist
from scipy.stats import norm

from benchmark.explain.scenes import PREDICTIONS, SCENES, guess, kernels, real, synthetic
from runners.data.reading import DataError


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_predictions_hold_exactly_what_they_say(name: str, stride: int) -> None:
    scene = synthetic(name, stride)
    n = len(scene.points)
    assert scene.cells == (128 // stride, 128 // stride)
    assert ((scene.points > 0) & (scene.points < 128)).all()
    for what in ("right", "blurred", "shifted"):
        density = guess(scene, what).density
        assert density.sum() == n  # to the last bit, in any order
        assert density.T.ravel()[::-1].sum() == n
        assert density.min() >= 0
    right = guess(scene, "right").density
    assert np.array_equal(guess(scene, "under").density, 0.5 * right)
    assert guess(scene, "over").density.sum() == pytest.approx(1.6 * n, rel=1e-12)


def test_heads_that_are_far_apart_have_exactly_one_person_each() -> None:
    scene = synthetic("three-heads")
    for point in scene.points:
        alone = kernels(scene, point[None], 4.0)
        rows, columns = np.nonzero(alone)
        centres = 4 * np.stack([columns, rows], axis=1) + 2.0
        others = np.linalg.norm(centres[:, None] - scene.points, axis=2)
        assert alone.sum() == 1
        assert (scene.points[others.argmin(axis=1)] == point).all()


@pytest.mark.parametrize("stride", [1, 4, 32])
def test_kernels_are_integrals_of_a_gaussian(stride: int) -> None:
    """Of a cell in the middle as of one in the tail: no cell takes what the others lost to rounding."""
    scene, (x, y), sigma = synthetic("three-heads", stride), (61.3, 70.9), 5.0
    edges = np.arange(0, 129, stride)
    wanted = np.outer(np.diff(norm.cdf(edges, y, sigma)), np.diff(norm.cdf(edges, x, sigma)))
    found = kernels(scene, np.array([[x, y]]), sigma)
    assert np.abs(found - wanted).max() < 2**-24
    assert found.sum() == 1
    assert np.array_equal(found * 2**24, np.rint(found * 2**24))
    np.testing.assert_allclose(kernels(scene, np.array([[x, y]]), sigma, 0), wanted, atol=1e-15)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_prediction_knows_how_far_it_is_rounded(name: str) -> None:
    scene = synthetic("ring", 2)
    sigma, factor = 12.0 if name == "blurred" else 4.0, {"under": 0.5, "over": 1.6}.get(name, 1.0)
    edges, wanted = np.arange(0, 129, 2), np.zeros(scene.cells)
    for x, y in scene.points + (8.0 if name == "shifted" else 0.0):
        mass = np.outer(np.diff(norm.cdf(edges, y, sigma)), np.diff(norm.cdf(edges, x, sigma)))
        wanted += factor * mass / mass.sum()
    made = guess(scene, name)
    assert made.rounding == pytest.approx(np.abs(made.density - wanted).max(), abs=1e-14)
    assert 0 < made.rounding < 8 * 2**-24


def test_a_shifted_prediction_has_its_mass_elsewhere() -> None:
    scene = synthetic("three-heads")
    centres = np.arange(32) * 4 + 2.0
    moved, right = (guess(scene, name).density for name in ("shifted", "right"))
    for axis in (0, 1):
        assert (moved - right).sum(axis=axis) @ centres / 3 == pytest.approx(8, abs=1e-3)


def test_overlapping_heads_are_nearer_than_their_kernels_are_wide() -> None:
    assert pdist(synthetic("overlap").points).item() == pytest.approx(8, abs=0.2)
    assert pdist(synthetic("three-heads").points).min() > 50


def test_a_synthetic_scene_says_what_it_is_a_part_of() -> None:
    scene = synthetic("ring")
    assert "as if it were a crop" in scene.note
    assert f"{scene.short_side:.0f} px (ours" in scene.note


def test_unknown_names_and_strides() -> None:
    with pytest.raises(ValueError, match="Did you mean overlap"):
        synthetic("overlp")
    with pytest.raises(ValueError, match="Did you mean blurred"):
        guess(synthetic("row"), "blured")
    with pytest.raises(ValueError, match="1 to 32"):
        synthetic("row", 0)
    assert set(PREDICTIONS) == {"under", "right", "over", "blurred", "shifted"}


# ---------------------------------------------------------------------------------------------------------------------
# Real images


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    Image.new("RGB", (200, 100), "gray").save(path)
    return path


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("heads.csv", "x,y\n10,20\n150,60\n"),
        ("all.csv", "image,x,y\nstreet.png,10,20\nother.png,3,3\nstreet.png,150,60\nempty.png,,\n"),
        ("heads.json", "[[10, 20], [150, 60]]"),
        ("more.json", json.dumps({"points": [[10, 20], [150, 60]]})),
    ],
)
def test_points_of_every_form(picture: Path, name: str, text: str) -> None:
    scene = real(picture, written(picture.with_name(name), text))
    assert scene.points.tolist() == [[10, 20], [150, 60]]
    assert (scene.size, scene.cells, scene.short_side, scene.note) == ((100, 200), (25, 50), 100, "")


def test_a_crop_moves_the_points_and_says_who_is_left_out(picture: Path) -> None:
    points = written(picture.with_name("heads.csv"), "x,y\n10,20\n150,60\n")
    scene = real(picture, points, crop=(100, 30, 90, 50), stride=8)
    assert scene.points.tolist() == [[50, 30]]
    assert scene.size == (50, 90)
    assert scene.cells == (7, 12)  # the last ones reach beyond the image
    assert guess(scene, "right").density.sum() == 1
    assert "1 of 2 heads lie outside" in scene.note
    assert "part of 200 x 100 pixels, its corner at (100, 30)" in scene.note


def test_a_large_image_is_reduced_with_its_points(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (2048, 1024)).save(path)
    scene = real(path, written(tmp_path / "heads.json", "[[1024, 512], [4, 8]]"))
    assert scene.size == (256, 512)
    assert scene.points.tolist() == [[256, 128], [1, 2]]
    assert scene.short_side == 256
    assert "reduced from 2048 x 1024 to 512 x 256 pixels: all px here are of the reduced image" in scene.note


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "u,v\n1,2\n", "columns x and y"),
        ("b.csv", "x,y\n", "columns x and y, and a row a head"),
        ("c.csv", "x,y\n900,900\n", "none of 1 heads lies"),
        ("d.json", '{"heads": []}', "expected"),
        (
            "f.csv",
            "x,y\n1,2\nabc,3\n",
            "row 3, the header being row 1: x must be a finite .*; found 'abc'$",
        ),
        ("g.csv", "image,x,y\nother.png,1,1\nstreet.png,1,2\nstreet.png,3,nan\n", "row 4, .*y must be a finite"),
        ("h.csv", "x,y\n1,\n", "row 2, .*y must be"),
        ("i.json", "[[1, 2], [3, 4, 5]]", "point 2: expected two numbers, x and y; found 3 values"),
        ("j.json", "[[1, 2], [3, [4]]]", "point 2: y must be a finite number of pixels; found a list"),
        ("k.json", "[1, 2]", "point 1: expected two numbers, x and y; found 1"),
        ("l.json", "[[1, true]]", "point 1: y must be"),
        ("e.json", "[[1, 2", "not valid JSON"),
    ],
)
def test_bad_points_are_refused_with_the_path(picture: Path, name: str, text: str, message: str) -> None:
    path = written(picture.with_name(name), text)
    with pytest.raises(DataError, match=message) as caught:
        real(picture, path)
    assert str(path) in str(caught.value)


def test_a_crop_outside_the_image_is_refused(picture: Path) -> None:
    points = written(picture.with_name("heads.csv"), "x,y\n10,20\n")
    with pytest.raises(ValueError, match="must lie within .*200 x 100"):
        real(picture, points, crop=(150, 0, 100, 100))
