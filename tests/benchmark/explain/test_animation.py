"""Descents: where they end against what is known of the losses, and animations that can be read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from benchmark.explain.animation import CLOSE, Settings, descents, write_frames
from benchmark.explain.fields import nearest
from benchmark.explain.part import shown
from benchmark.explain.scenes import synthetic
from benchmark.names import parse_choice
from reports.plots_descent import Trace, frames

SCENE = synthetic("three-heads", 8)


@pytest.mark.parametrize("start", ["uniform", "blurred"])
@pytest.mark.parametrize("name", ["bl", "pml", "l2", "gl"])
def test_the_count_becomes_right(name: str, start: str) -> None:
    (one,) = descents([parse_choice(name)], SCENE, Settings(start, steps=250, frames=5))
    assert one.counts[0] == pytest.approx(1.5, abs=0.02)
    assert one.counts[-1] == pytest.approx(3, abs=0.25)
    assert one.values[-1] < one.values[0]
    assert one.own == pytest.approx(np.ones(3), abs=0.15)
    _, distance = nearest(SCENE)
    assert one.close[-1] == pytest.approx(one.maps[-1][distance <= CLOSE].sum() / one.maps[-1].sum())


def test_pml_with_the_l2_norm_overcounts_by_what_its_docstring_says() -> None:
    """On densities >= 0 by (mean c - min c) / w for each head, the cost c worked out here from its definition."""
    (one,) = descents([parse_choice("pml[count_norm=l2]")], SCENE, Settings(steps=300, frames=2))
    centres = np.stack(np.meshgrid(np.arange(16) * 8 + 4.0, np.arange(16) * 8 + 4.0), axis=-1)
    distance = np.linalg.norm(centres[:, :, None] - SCENE.points, axis=-1)
    for head in range(3):
        own = distance[distance.argmin(axis=-1) == head][:, head]
        cost = np.exp(own / max(own.max(), 32)) - 1
        assert one.own[head] == pytest.approx(1 + cost.mean() - cost.min(), abs=0.02)


def test_p2p_finds_one_proposal_a_head() -> None:
    (one,) = descents([parse_choice("p2p")], SCENE, Settings(steps=200, frames=2))
    assert one.proposals == 3
    assert one.close[-1] > 0.9


def test_a_descent_is_the_same_whatever_the_scale_of_its_loss() -> None:
    """Adam's steps do not depend on it; that is why it is used."""
    names = ["l2", "l2[sigma=4.0]"]
    plain, again = descents(map(parse_choice, names), SCENE, Settings(steps=20, frames=2))
    assert np.array_equal(plain.maps, again.maps)
    light, heavy = descents(
        map(parse_choice, ["noisecc[weight=0.01]", "noisecc[weight=10.0]"]), SCENE, Settings(steps=20, frames=2)
    )
    assert heavy.values[0] == pytest.approx(1000 * light.values[0])
    assert heavy.maps[-1] == pytest.approx(light.maps[-1], rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(start="unifrm"), "Did you mean uniform"),
        (Settings(steps=0), "at least 1 step"),
        (Settings(steps=3, frames=6), "at most --frames 4"),
        (Settings(frames=1), "2 to 500 frames"),
        (Settings(rate=0.0), "learning rate"),
    ],
)
def test_settings_out_of_range(settings: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(descents([parse_choice("l2")], SCENE, settings))


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    done = descents([parse_choice(name) for name in ("l2", "pml", "p2p")], SCENE, Settings(steps=12, frames=4))
    return list(
        frames(shown(SCENE), [Trace(one.loss, one.steps, one.maps, one.values, one.counts, one.close) for one in done])
    )


def test_frames_have_one_even_size_and_move(drawn: list[np.ndarray]) -> None:
    assert len(drawn) == 4
    assert {frame.shape for frame in drawn} == {drawn[0].shape}
    assert all(side % 2 == 0 for side in drawn[0].shape[:2])
    assert not np.array_equal(drawn[0], drawn[-1])


def test_a_gif_is_read_again(drawn: list[np.ndarray], tmp_path: Path) -> None:
    path = write_frames(iter(drawn), tmp_path / "out", "gif")
    with Image.open(path) as gif:
        pictures = [np.asarray(frame.convert("RGB"), int) for frame in ImageSequence.Iterator(gif)]
    assert len(pictures) == 4
    for picture, frame in zip(pictures, drawn, strict=True):
        assert np.abs(picture - frame).mean() < 3  # 256 colours


def test_frames_are_files(drawn: list[np.ndarray], tmp_path: Path) -> None:
    path = write_frames(iter(drawn), tmp_path, "frames")
    files = sorted(path.iterdir())
    assert [file.name for file in files] == ["000.png", "001.png", "002.png", "003.png"]
    with Image.open(files[2]) as picture:
        assert np.array_equal(np.asarray(picture), drawn[2])


def test_a_film_is_read_again(drawn: list[np.ndarray], tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    try:
        path = write_frames(iter(drawn), tmp_path, "mp4")
    except RuntimeError as error:
        pytest.skip(str(error))
    film = cv2.VideoCapture(str(path))
    seen, picture = film.read()
    assert seen
    assert picture.shape == drawn[0].shape
    assert np.abs(picture[..., ::-1].astype(int) - drawn[0]).mean() < 12


def test_an_unknown_format(drawn: list[np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean gif"):
        write_frames(iter(drawn), tmp_path, "gff")
