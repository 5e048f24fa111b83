"""Videos: frames and their times, films with annotations, videos that are broken."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmark.cli import main
from benchmark.prediction.draw import top_of
from benchmark.prediction.video import Film, Video, silent_opencv
from runners.data.reading import DataError, read_image
from runners.predict import Predictor
from tests.runners.trained import Trained, train

cv2 = pytest.importorskip("cv2")
silent_opencv()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory)


def video(path: Path, frames: list[np.ndarray], codec: str = "MJPG", fps: float = 10.0) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {codec}")
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def grey(count: int) -> list[np.ndarray]:
    """Frames whose grey level says their number."""
    return [np.full((48, 64, 3), 10 * number, np.uint8) for number in range(count)]


def crowd(trained: Trained, count: int = 6) -> list[np.ndarray]:
    images = [read_image(path) for path in sorted((trained.root / "test").glob("*.png"))]
    return [images[number % len(images)] for number in range(count)]


def predict(trained: Trained, *words: str | Path) -> int:
    return main(["predict", trained.ids["pml"], *map(str, words), "-o", str(trained.store.root), "--device", "cpu"])


# ---------------------------------------------------------------------------------------------------------------------
# Frames


@pytest.mark.parametrize(("ending", "codec"), [("avi", "MJPG"), ("mp4", "mp4v")])
@pytest.mark.parametrize(
    ("every", "fps", "expected"),
    [(1, None, range(20)), (3, None, range(0, 20, 3)), (50, None, [0]), (1, 5.0, range(0, 20, 2)), (1, 10.0, range(20)),
     (1, 99.0, range(20)), (1, 1.0, [0, 10]), (1, 0.1, [0]), (1, 4.0, [0, 3, 5, 8, 10, 13, 15, 18])],
)  # fmt: skip
def test_frames_with_number_and_time(
    tmp_path: Path, ending: str, codec: str, every: int, fps: float | None, expected: list[int]
) -> None:
    clip = Video(video(tmp_path / f"a.{ending}", grey(20), codec))
    assert (clip.fps, clip.length) == (10.0, 20)
    assert clip.taken(every, fps) in (len(expected), len(expected) + 1)
    found = list(clip.frames(every, fps))
    clip.close()
    assert [frame.number for frame in found] == list(expected)
    assert [frame.seconds for frame in found] == pytest.approx([number / 10 for number in expected])
    for frame in found:
        assert frame.pixels.shape == (48, 64, 3)
        assert abs(float(frame.pixels.mean()) - 10 * frame.number) < 4


def test_colours_are_not_swapped(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 200
    (frame,) = Video(video(tmp_path / "a.avi", [red])).frames()
    assert np.abs(frame.pixels.mean(axis=(0, 1)) - [200, 0, 0]).max() < 8


def test_a_film_is_a_video_with_its_frames(tmp_path: Path) -> None:
    video(tmp_path / "probe.mp4", grey(2), "mp4v")
    with Film(tmp_path / "new" / "film.mp4", 5.0) as film:
        for frame in grey(12):
            film.add(np.pad(frame, ((0, 1), (0, 1), (0, 0))))  # odd sides
    clip = Video(tmp_path / "new" / "film.mp4")
    assert (clip.fps, clip.length) == (5.0, 12)
    levels = [float(frame.pixels.mean()) for frame in clip.frames()]
    np.testing.assert_allclose(levels, np.arange(12) * 10, atol=4)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["film.mp4"]


# ---------------------------------------------------------------------------------------------------------------------
# What is broken


def _torn(path: Path) -> Path:
    rng = np.random.default_rng(0)
    video(path, [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(60)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _head(path: Path) -> Path:
    video(path.with_suffix(".mp4"), grey(9), "mp4v")
    content = path.with_suffix(".mp4").read_bytes()
    path.write_bytes(content[: len(content) // 2])  # an MP4 has its index at the end
    return path


def _written(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "no such video"),
        (_written(b""), "the file is empty"),
        (_written(b"no video" * 100), "cannot read this as a video"),
        (_head, "cannot read this as a video"),
    ],
)
def test_what_is_no_video_is_an_error_with_its_path(
    tmp_path: Path, make: Callable[[Path], Path], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=f"bad.mov: .*{message}"):
        Video(make(tmp_path / "bad.mov"))
    assert capfd.readouterr().err == ""  # OpenCV's own words have no path


def test_frames_beyond_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video(tmp_path / "a.avi", grey(2))
    monkeypatch.setenv("CROWD_MAX_PIXELS", str(64 * 48 - 1))
    with pytest.raises(DataError, match="CROWD_MAX_PIXELS"):
        Video(path)


def test_a_video_that_breaks_off_gives_what_is_there(tmp_path: Path) -> None:
    frames = Video(_torn(tmp_path / "a.avi")).frames()
    seen = []
    message = ""
    try:
        for frame in frames:
            seen.append(frame.number)
    except DataError as error:
        message = str(error)
    assert 20 < len(seen) < 40
    assert seen == list(range(len(seen)))
    assert message == f"{tmp_path / 'a.avi'}: the video breaks off after frame {len(seen)} of 60"


# ---------------------------------------------------------------------------------------------------------------------
# The command


def test_frames_are_counted_as_images_are(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = video(tmp_path / "clip.avi", crowd(trained))
    image = next((trained.root / "test").glob("*.png"))
    words = "--every", "2", "--format", "csv", "--overlay", tmp_path / "films"
    assert predict(trained, path, image, *words) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["id"], row["frame"], row["seconds"]) for row in rows] == [
        ("clip_000000", "0", "0.000"),
        ("clip_000002", "2", "0.200"),
        ("clip_000004", "4", "0.400"),
        (image.stem, "", ""),
    ]
    predictor = Predictor(trained.run("pml"))
    clip = Video(path)
    counts = [predictor.image(frame.pixels).count for frame in clip.frames(every=2)]
    assert [float(row["count"]) for row in rows[:3]] == counts
    film = Video(tmp_path / "films" / "clip.mp4")
    assert (film.fps, film.length) == (5.0, 3)
    assert next(film.frames()).pixels.shape == (100, 100, 3)
    with Image.open(tmp_path / "films" / f"{image.stem}.jpg") as picture:
        assert picture.size == (100, 100)


def test_the_colours_of_a_film_have_one_scale(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rises with the densest frame so far and never falls, but begins anew with each video."""
    ends, own = [], []

    def spy(density: object) -> float:
        own.append(float(len(own) % 3))
        return own[-1] + 1

    def drawn(pixels: np.ndarray, drawing: object, *, longest: int, top: float) -> np.ndarray:
        ends.append(top)
        return pixels

    monkeypatch.setattr("benchmark.prediction.work.top_of", spy)
    monkeypatch.setattr("benchmark.prediction.work.draw", drawn)
    path, other = (video(tmp_path / f"{name}.avi", crowd(trained, 4)) for name in ("a", "b"))
    assert predict(trained, path, other, "--overlay", tmp_path / "films") == 0
    assert ends == [1, 2, 3, 3, 2, 3, 3, 3]
    assert callable(top_of)


def test_a_broken_video_keeps_what_was_done_and_stops_nothing(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn, empty = _torn(tmp_path / "torn.avi"), tmp_path / "empty.mp4"
    empty.touch()
    whole = video(tmp_path / "whole.avi", crowd(trained, 3))
    out, films = tmp_path / "counts.json", tmp_path / "films"
    words = "--every", "10", "--format", "json", "--out", out, "--overlay", films
    assert predict(trained, torn, empty, whole, *words) == 1
    content = json.loads(out.read_text())
    frames = [(Path(image["path"]).stem, image["frame"]) for image in content["images"]]
    assert frames == [("torn", 0), ("torn", 10), ("torn", 20), ("whole", 0)]
    assert set(content["failed"]) == {str(torn), str(empty)}
    errors = capsys.readouterr().err
    assert f"{torn}: the video breaks off after frame" in errors
    assert f"{empty}: the file is empty" in errors
    assert sorted(file.name for file in films.iterdir()) == ["torn.mp4", "whole.mp4"]
    assert Video(films / "torn.mp4").length == 3


def test_videos_are_no_submission(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = video(tmp_path / "1.avi", grey(1))
    assert predict(trained, path, "--format", "nwpu") == 2
    assert "is a video: take csv or json" in capsys.readouterr().err
