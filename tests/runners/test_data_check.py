"""Checks of datasets: each fault that is planted is found, and a sound dataset has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runners import data
from runners.data.check import Finding, Report, check, overlay, where
from runners.data.reading import DataError
from tests.runners import fake_datasets as fake

GRID = np.stack(np.meshgrid(np.linspace(1, 60, 8), np.linspace(1, 44, 6)), axis=-1).reshape(-1, 2)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWD_CACHE", str(tmp_path / "cache"))


def own(root: Path, points: dict[str, list[np.ndarray]]) -> Path:
    for split, arrays in points.items():
        for n, array in enumerate(arrays):
            fake.write_image(root / split / f"{n}.png", seed=n)
            (root / split / f"{n}.json").write_text(str(array.tolist()))
    return root


def report(root: Path, **options: bool) -> Report:
    return check(data.build("folder", root), **options)


def only(found: Report, what: str) -> Finding:
    (finding,) = [finding for finding in found.findings if finding.what == what]
    return finding


def test_a_sound_dataset_has_no_findings(tmp_path: Path) -> None:
    found = report(own(tmp_path / "own", {"train": [GRID] * 4, "val": [GRID], "test": [GRID[:5], GRID[:9]]}))
    assert found.findings == ()
    assert found.sound
    assert [s.images for s in found.splits] == [4, 1, 2]
    test = found.splits[2]
    assert (test.points, test.least, test.mean, test.most) == (14, 5, 7, 9)


def test_exchanged_coordinates_are_an_error(tmp_path: Path) -> None:
    found = report(own(tmp_path / "own", {"train": [GRID[:, ::-1]] * 4, "val": [GRID], "test": [GRID]}))
    assert only(found, "order").level == "error"
    assert "(y, x)" in only(found, "order").message
    assert not found.sound


def test_points_outside_and_duplicates_and_empty_images(tmp_path: Path) -> None:
    odd = np.concatenate([GRID, [[-358.0, 3.0], [70.0, 3.0]], GRID[:3]])
    found = report(own(tmp_path / "own", {"train": [odd, GRID], "val": [GRID], "test": [np.zeros((0, 2))]}))
    assert only(found, "outside").message.startswith("2 points")
    assert only(found, "outside").ids == ("train/0",)
    assert only(found, "duplicates").message.startswith("3 points")
    assert only(found, "empty").ids == ("test/0",)
    assert found.sound


@pytest.mark.parametrize("decode", [True, False])
def test_a_cut_image_is_found_by_decoding(tmp_path: Path, decode: bool) -> None:
    root = own(tmp_path / "own", {"train": [GRID] * 3, "val": [GRID], "test": [GRID]})
    image = root / "train" / "1.png"
    image.write_bytes(image.read_bytes()[:3000])
    found = report(root, decode=decode)
    assert found.sound is not decode
    if decode:
        assert only(found, "unreadable").ids == ("train/1",)
        assert "1.png" in only(found, "unreadable").message


def test_an_image_turned_by_exif_is_told(tmp_path: Path) -> None:
    root = own(tmp_path / "own", {"train": [GRID] * 2, "val": [GRID], "test": [GRID]})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / "test" / "0.png").save(root / "test" / "0.png", exif=exif)
    assert only(report(root), "exif").ids == ("test/0",)


def test_boxes_that_lie_elsewhere_are_told(tmp_path: Path) -> None:
    root = own(tmp_path / "own", {"train": [GRID] * 2, "val": [GRID], "test": [GRID]})
    (root / "test" / "0.json").write_text('{"points": [[9, 9], [30, 30]], "boxes": [[5, 5, 12, 12], [0, 0, 9, 9]]}')
    assert only(report(root), "boxes").message.startswith("1 head boxes")


def test_wrong_numbers_of_images_and_unknown_releases(tmp_path: Path) -> None:
    fake.shanghaitech(tmp_path / "part_B", {"train": [1, 2, 3], "test": [4]})
    found = check(data.build("shanghaitech_b", tmp_path))
    assert only(found, "counts").level == "error"
    assert only(found, "release").level == "warning"
    assert found.release is None


def test_a_missing_split_is_an_error_and_the_others_are_checked(tmp_path: Path) -> None:
    folder = fake.shanghaitech(tmp_path / "part_B", {"train": [1, 2, 3], "test": [4]})
    (folder / "test_data" / "ground-truth" / "GT_IMG_1.mat").unlink()
    found = check(data.build("shanghaitech_b", tmp_path))
    assert only(found, "missing").message.startswith("test:")
    assert found.splits[0].images == 2


def test_overlay_shows_the_points(tmp_path: Path) -> None:
    root = own(tmp_path / "own", {"train": [GRID[[9, 20]]], "val": [GRID], "test": [GRID]})
    fake.write_image(root / "train" / "0.png", (480, 640))
    Image.new("RGB", (640, 480)).save(root / "train" / "0.png")
    (root / "train" / "0.json").write_text("[[100, 200], [500, 400]]")
    dataset = data.build("folder", root)
    picture = np.asarray(Image.open(overlay(dataset, tmp_path / "overlay.png"))).astype(int)
    assert picture.shape == (480, 640, 3)
    red = (picture[..., 0] > 200) & (picture[..., 1] < 100)
    rows, columns = np.nonzero(red)
    for x, y in ((100, 200), (500, 400)):
        near = np.hypot(columns - x, rows - y) < 10
        assert near.sum() > 4
        assert abs(columns[near].mean() + 0.5 - x) < 1
        assert abs(rows[near].mean() + 0.5 - y) < 1
    assert red.sum() == sum((np.hypot(columns - x, rows - y) < 10).sum() for x, y in ((100, 200), (500, 400)))


def test_overlay_of_an_empty_split_says_so(tmp_path: Path) -> None:
    root = own(tmp_path / "own", {"train": [GRID], "val": [GRID], "test": [GRID]})
    (root / "test" / "0.png").unlink()
    with pytest.raises(DataError, match="no images"):
        overlay(data.build("folder", root), tmp_path / "overlay.png", split="test")


def test_where_lists_every_dataset(tmp_path: Path) -> None:
    fake.qnrf(tmp_path / "UCF-QNRF", {"Train": [1], "Test": [1]})
    listed = {place.name: place for place in where(tmp_path)}
    assert set(listed) == set(data.names())
    assert listed["ucf_qnrf"].found == (tmp_path / "UCF-QNRF",)
    assert listed["nwpu"].found == ()
    assert all(
        "http" in listed[name].source for name in ("ucf_qnrf", "nwpu", "shanghaitech_a", "jhu_crowd", "ucf_cc_50")
    )


def test_real_shanghaitech_b_is_sound(shared_dir: Path) -> None:
    found = check(data.build("shanghaitech_b", shared_dir / "data"), decode=False)
    assert found.sound
    assert found.release == "November 2016"
    assert [s.images for s in found.splits] == [360, 40, 316]
    assert sum(s.points for s in found.splits) == 88_272
    assert sum(s.outside for s in found.splits) == 0
