"""Hostile and damaged files: refused with an error that names the file, never with anything else."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from runners.data import reading
from runners.data.datasets._shanghaitech import _location
from runners.data.places import content_hashes
from runners.data.reading import DataError
from tests.runners import fake_datasets as fake


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def mat_bomb(unpacked: int) -> bytes:
    """A MATLAB 5 file of one compressed element of zeros."""
    block = zlib.compress(b"\0" * unpacked, 9)
    return b"MATLAB 5.0".ljust(124) + b"\0\1IM" + struct.pack("<II", 15, len(block)) + block


# --- images


def test_image_bombs_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(60_000, 60_000))
    for read in (reading.read_image, reading.image_size):
        with pytest.raises(DataError, match=r"bomb.png: 60000 x 60000 .* raise CROWD_MAX_PIXELS"):
            read(bomb)
    fake.write_image(tmp_path / "small.png", (20, 30))
    monkeypatch.setenv("CROWD_MAX_PIXELS", "599")
    with pytest.raises(DataError, match="raise CROWD_MAX_PIXELS"):
        reading.read_image(tmp_path / "small.png")
    monkeypatch.setenv("CROWD_MAX_PIXELS", "600")
    assert reading.read_image(tmp_path / "small.png").shape == (20, 30, 3)
    monkeypatch.setenv("CROWD_MAX_PIXELS", "many")
    with pytest.raises(DataError, match="positive integer"):
        reading.read_image(tmp_path / "small.png")
    assert Image.MAX_IMAGE_PIXELS is not None  # Pillow's own guard is back


def test_a_raised_limit_wins_over_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    fake.write_image(tmp_path / "large.png", (20, 30))
    assert reading.image_size(tmp_path / "large.png") == (20, 30)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_truncated_images_are_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.jpg"
    fake.write_image(path, (200, 300))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"cut\.jpg"):
        reading.read_image(path)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16", "LA"])
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    if mode == "I;16":
        Image.fromarray(np.full((4, 5), 200 << 8, np.uint16)).save(path)
    else:
        Image.new("RGB", (5, 4), (200, 200, 200)).convert(mode).save(path)
    found = reading.read_image(path)
    assert found.shape == (4, 5, 3)
    assert found.dtype == np.uint8
    assert mode == "1" or np.abs(found.astype(int) - 200).max() <= 4


def test_a_large_grey_image_of_16_bits_needs_little_beside_itself(tmp_path: Path) -> None:
    """Found by an audit: 12000 x 12000 pixels in a file of 280 kB took 3.7 GB; 432 MB are the answer itself."""
    height, width = 3000, 2001
    pixels = (np.arange(height)[:, None] * 19 + np.arange(width)).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    reading.read_image(tmp_path / "a.png")
    tracemalloc.start()
    found = reading.read_image(tmp_path / "a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, np.repeat((pixels >> 8)[..., None], 3, axis=2))
    assert peak < found.nbytes + 32 * 2**20


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_images_are_what_pillow_converts_whole(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_STRIP", 100)
    noise = np.random.default_rng(0).integers(0, 256, (23, 17, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(reading.read_image(tmp_path / "a.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("read", [reading.read_image, reading.image_size, reading.orientation, reading.read_text])
def test_only_regular_files_are_opened(tmp_path: Path, read: Callable[[Path], object]) -> None:
    """Opening a named pipe waits for a writer, for ever."""
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    for name in ("a.jpg", "link.jpg"):
        with pytest.raises(DataError, match=f"{name}: is a named pipe, not a regular file"):
            read(tmp_path / name)
    with pytest.raises(DataError, match="is a device, not a regular file"):
        read(Path("/dev/zero"))
    with pytest.raises(DataError, match="is a folder, not a regular file"):
        read(tmp_path)


def test_the_hash_of_a_named_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWD_CACHE", str(tmp_path / "cache"))
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: is a named pipe"):
        content_hashes([tmp_path / "a.jpg"], tmp_path)


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    with pytest.raises(DataError, match="not a readable"):
        reading.read_image(tmp_path / "text.jpg")
    with pytest.raises(DataError, match="no such image"):
        reading.read_image(tmp_path / "absent.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError, match="is a folder, not a regular file"):
        reading.read_image(tmp_path / "folder.jpg")


# --- MATLAB files


def test_mat_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWD_MAX_ANNOTATION_BYTES", str(2**20))
    path = tmp_path / "bomb.mat"
    path.write_bytes(mat_bomb(2**23))
    assert path.stat().st_size < 2**15
    with pytest.raises(DataError, match=r"bomb\.mat.* unpacks to more .*CROWD_MAX_ANNOTATION_BYTES"):
        reading.read_mat(path, "annPoints")


def test_mat_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(DataError, match="not a MATLAB 5 file"):
        reading.read_mat(path, "annPoints")
    path.write_bytes(b"")
    with pytest.raises(DataError, match="not a MATLAB 5 file"):
        reading.read_mat(path, "annPoints")
    fake.write_mat(path, other=np.zeros(3))
    with pytest.raises(DataError, match="no variable 'annPoints'"):
        reading.read_mat(path, "annPoints")
    assert reading.read_mat(path, "annPoints", required=False) is None


@pytest.mark.parametrize("packed", [True, False])
def test_mat_values_are_what_scipy_reads(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "a.mat"
    written = {
        "f8": np.random.default_rng(0).normal(size=(7, 2)),
        "f4": np.float32([[1.5, 2.5]]),
        "i2": np.int16([[-3, 4, 5]]),
        "u1": np.uint8([[1], [2]]),
        "cube": np.arange(24.0).reshape(2, 3, 4),
        "yes": np.array([[True, False]]),
        "empty": np.zeros((0, 2)),
        "one": 3.0,
        "text": "hello",
    }
    scipy.io.savemat(path, written, do_compression=packed)
    expected = scipy.io.loadmat(path)
    for name in written:
        if name != "text":
            np.testing.assert_array_equal(reading.read_mat(path, name), expected[name])
    nested = np.empty((1, 3), dtype=object)
    nested[0, :] = [{"location": written["f8"], "number": 7, "a_long_field_name": "text"}, written["i2"], "text"]
    scipy.io.savemat(path, {"nested": nested, "empty": np.empty((0, 0), dtype=object)}, do_compression=packed)
    structure, numbers, text = reading.read_mat(path, "nested")
    np.testing.assert_array_equal(structure["location"], written["f8"])
    assert structure["number"].tolist() == [[7]]
    assert structure["a_long_field_name"] is None
    assert numbers.tolist() == [[-3, 4, 5]]
    assert text is None
    assert reading.read_mat(path, "empty") == []


def test_real_mat_files_are_what_scipy_reads(shared_dir: Path) -> None:
    files = sorted((shared_dir / "data" / "shanghaitech").rglob("GT_IMG_*7.mat"))
    assert len(files) > 50
    for path in files:
        expected = scipy.io.loadmat(path)["image_info"][0, 0]["location"][0, 0]
        np.testing.assert_array_equal(read_location(path), expected)
    example = shared_dir / "data" / "localisation" / "lists" / "qnrf_example_ann.mat"
    np.testing.assert_array_equal(reading.read_mat(example, "annPoints"), scipy.io.loadmat(example)["annPoints"])


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.array([[1.0, np.nan]]), "finite"),
        (np.array([[1.0, 2.0], [np.inf, 0.0]]), "point 2"),
        (np.array([[1.0], [2.0]]), "expected 2 numbers"),
        (np.array([[1 + 2j, 3]]), "plain numbers"),
        (np.array([["a", "b"]], dtype=object), "plain numbers"),
        (np.zeros((2, 2, 2)), "shape"),
    ],
)
def test_numbers_that_are_no_points(tmp_path: Path, value: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        reading.points_array(value, tmp_path / "a.mat")


def test_too_many_points_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWD_MAX_POINTS", "10")
    assert reading.points_array(np.zeros((10, 2)), tmp_path).shape == (10, 2)
    with pytest.raises(DataError, match="CROWD_MAX_POINTS"):
        reading.points_array(np.zeros((11, 2)), tmp_path)


def test_points_of_every_numeric_type_and_an_empty_one(tmp_path: Path) -> None:
    for dtype in (np.uint8, np.int16, np.float32, np.float64):
        found = reading.points_array(np.array([[1, 2, 3]], dtype=dtype), tmp_path)
        assert found.dtype == np.float64
        assert found.tolist() == [[1, 2]]
    for empty in ([], np.zeros((0, 0)), np.zeros((0, 2))):
        assert reading.points_array(empty, tmp_path).shape == (0, 2)


def test_large_annotations_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWD_MAX_ANNOTATION_BYTES", "100")
    (tmp_path / "a.json").write_text("[" + " " * 200 + "]")
    with pytest.raises(DataError, match="CROWD_MAX_ANNOTATION_BYTES"):
        reading.read_json(tmp_path / "a.json")


# --- fuzzing: damaged real files and garbage give DataError or a sane answer, nothing else


@pytest.fixture(scope="module")
def mats(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Genuine files, packed and not."""
    path = tmp_path_factory.mktemp("mats") / "a.mat"
    found = []
    for packed in (True, False):
        for variable in ({"image_info": fake.image_info(fake.some_points(9))}, {"image_info": fake.some_points(9)}):
            scipy.io.savemat(path, variable, do_compression=packed)
            found.append(path.read_bytes())
    return found


FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """The content with some bytes changed, and perhaps cut short."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    return bytes(changed[: data.draw(st.integers(0, len(changed)))] if data.draw(st.booleans()) else changed)


def answer(read: Callable[[Path], np.ndarray], path: Path) -> np.ndarray | str:
    """What was read, or the message of the one error that is allowed."""
    try:
        return read(path)
    except DataError as error:
        return str(error)


def read_location(path: Path) -> np.ndarray:
    return reading.points_array(_location(reading.read_mat(path, "image_info"), path), path)


@FUZZ
@given(st.data())
def test_fuzz_mat(tmp_path: Path, mats: list[bytes], data: st.DataObject) -> None:
    path = tmp_path / "fuzz.mat"
    path.write_bytes(damaged(data, data.draw(st.sampled_from(mats))))
    found = answer(read_location, path)
    assert "fuzz.mat" in found if isinstance(found, str) else np.isfinite(found).all()


@FUZZ
@given(st.binary(max_size=200) | st.text('[]{},.:"0123456789eE-+ \nNaxpointsbe', max_size=60).map(str.encode))
def test_fuzz_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.txt"
    path.write_bytes(content)
    for read in (lambda p: reading.points_array(reading.read_json(p), p), lambda p: reading.read_numbers(p, 4)):
        found = answer(read, path)
        assert "fuzz.txt" in found if isinstance(found, str) else np.isfinite(found).all()
    rows = answer(reading.read_csv, path)
    assert "fuzz.txt" in rows if isinstance(rows, str) else all(isinstance(row, dict) for row in rows)


@FUZZ
@given(st.data())
def test_fuzz_images(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / f"fuzz.{data.draw(st.sampled_from(['png', 'jpg', 'bmp', 'webp']))}"
    fake.write_image(path, (9, 7))
    path.write_bytes(damaged(data, path.read_bytes()))
    found = answer(reading.read_image, path)
    assert "fuzz." in found if isinstance(found, str) else found.dtype == np.uint8
