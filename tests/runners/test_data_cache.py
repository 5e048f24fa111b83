"""The prepared cache: the same pixels and points as read directly, made once, made again when anything changes."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runners import data
from runners.data import cache
from runners.data.datasets.base import Annotation, CrowdDataset, Entry
from runners.data.loader import evaluation_loader
from runners.data.noise import BORDER
from runners.data.reading import DataError
from runners.data.transforms import WholeImages
from tests.runners import fake_datasets as fake

COUNTS = [5, 0, 40, 3, 12, 7]


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CROWD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prepared"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fake.shanghaitech(tmp_path / "part_B", {"train": COUNTS, "test": COUNTS})
    return tmp_path / "part_B"


def build(root: Path, **params: object) -> CrowdDataset:
    return data.build("shanghaitech_b", root, **params)


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("an image was decoded again"))


def test_prepared_is_what_direct_reading_gives(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build(root)
    direct = [(dataset.read_image(entry), dataset.read_annotation(entry)) for entry in dataset.entries("test")]
    cache.prepare(dataset, "test")
    no_decoding(monkeypatch)
    prepared = cache.prepare(build(root), "test")
    assert len(prepared) == len(direct)
    assert prepared.counts.tolist() == COUNTS
    assert prepared.ids == tuple(f"IMG_{n}" for n in range(1, 7))
    for index, (image, annotation) in enumerate(direct):
        np.testing.assert_array_equal(prepared.image(index), image)
        np.testing.assert_array_equal(prepared.points(index), annotation.points)
        assert prepared.boxes(index) is None


def test_resizing_moves_points_and_pixels_alike(root: Path) -> None:
    dataset = build(root, scale=0.5)
    prepared = cache.prepare(dataset, "test")
    assert set(prepared.sizes) == {(24, 32)}
    for index, entry in enumerate(dataset.entries("test")):
        expected = Image.fromarray(dataset.read_image(entry)).resize((32, 24), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(prepared.image(index), np.asarray(expected))
        np.testing.assert_allclose(prepared.points(index), dataset.read_annotation(entry).points / 2)


def test_points_outside_are_left_out_and_those_on_the_border_stay() -> None:
    points = np.array([[0, 0], [64, 48], [64.01, 5], [5, 48.5], [-1e-9, 3], [63.5, 47.5], [-358, 0]], dtype=float)
    fitted = cache.fit_annotation(Annotation(points, np.tile(points, 2)), (48, 64), (96, 256))
    np.testing.assert_allclose(fitted.points, [[0, 0], [256 - BORDER, 96 - BORDER], [254, 95]])
    np.testing.assert_allclose(fitted.boxes, [[0, 0, 0, 0], [256, 96, 256, 96], [254, 95, 254, 95]])


def test_boxes_are_kept_and_missing_ones_are_nan(tmp_path: Path) -> None:
    for name, text in {"a": '{"points": [[10, 9]], "boxes": [[8, 6, 12, 12]]}', "b": "[[1, 2], [3, 4]]"}.items():
        fake.write_image(tmp_path / "own" / "test" / f"{name}.png")
        (tmp_path / "own" / "test" / f"{name}.json").write_text(text)
    fake.write_image(tmp_path / "own" / "train" / "c.png")
    (tmp_path / "own" / "train" / "c.json").write_text("[]")
    dataset = data.build("folder", tmp_path / "own", scale=0.5)
    prepared = cache.prepare(dataset, "test")
    np.testing.assert_allclose(prepared.boxes(0), [[4, 3, 6, 6]])
    assert np.isnan(prepared.boxes(1)).all()
    assert prepared.boxes(1).shape == (2, 4)
    assert cache.prepare(dataset, "train").boxes(0) is None


@pytest.mark.parametrize("change", ["scale", "limit", "image", "points", "val_fraction", "version"])
def test_any_change_makes_another_folder(
    root: Path, cached: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.prepare(build(root), "train")
    params: dict[str, object] = {}
    first = next(e for e in build(root).entries("train") if len(build(root).read_annotation(e).points))
    if change == "image":
        fake.write_image(first.image, seed=77)
    elif change == "points":
        count = len(build(root).read_annotation(first).points)
        fake.write_mat(first.annotation, image_info=fake.image_info(fake.some_points(count, seed=88)))
    elif change == "version":
        monkeypatch.setattr(cache, "VERSION", 999)
    else:
        params = {"scale": {"scale": 0.5}, "limit": {"long_max": 40}, "val_fraction": {"val_fraction": 0.5}}[change]
    changed = cache.prepare(build(root, **params), "train")
    assert len(list(cached.glob("*/meta.json"))) == 2
    dataset = build(root, **params)
    entry = dataset.entries("train")[0]
    image = cache.resize_image(dataset.read_image(entry), dataset.prepared_size(48, 64))
    np.testing.assert_array_equal(changed.image(0), image)


@pytest.mark.parametrize("file", ["images.npy", "points.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "garbage", "another's"])
def test_a_damaged_folder_is_made_again(root: Path, cached: Path, file: str, damage: str) -> None:
    cache.prepare(build(root), "test")
    (path,) = cached.glob(f"*/{file}")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "gone":
        path.unlink()
    elif damage == "another's":
        if file == "meta.json":
            path.write_text("{}")
        else:
            np.save(path, np.load(path)[:-1])
    else:
        path.write_bytes(b"nonsense")
    prepared = cache.prepare(build(root), "test")
    assert prepared.counts.tolist() == COUNTS
    np.testing.assert_array_equal(prepared.image(0), build(root).read_image(build(root).entries("test")[0]))
    assert [p.name for p in cached.iterdir() if p.suffix == ".tmp"] == []


def test_a_failure_leaves_nothing_behind(root: Path, cached: Path) -> None:
    image = root / "test_data" / "images" / "IMG_4.jpg"
    image.write_bytes(image.read_bytes()[:900])
    with pytest.raises(DataError, match="IMG_4"):
        cache.prepare(build(root), "test")
    assert [p for p in cached.iterdir() if p.is_dir()] == []
    fake.write_image(image, seed=4)
    assert len(cache.prepare(build(root), "test")) == len(COUNTS)


def test_a_full_disk_is_told_before_anything_is_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(100, 90, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="CROWD_CACHE"):
        cache.prepare(build(root), "test")


def test_leftovers_of_killed_builders_are_removed_when_old(root: Path, cached: Path) -> None:
    folder = cache.prepare(build(root), "test").folder
    shutil.rmtree(folder)
    old, new = (folder.with_name(f"{folder.name}.{age}.tmp") for age in ("old", "new"))
    old.mkdir()
    new.mkdir()
    os.utime(old, (1, 1))
    cache.prepare(build(root), "test")
    assert not old.exists()
    assert new.exists()


def test_cache_dir_wins_over_the_environment(root: Path, tmp_path: Path, cached: Path) -> None:
    cache.prepare(build(root), "test", cache_dir=tmp_path / "here")
    assert len(list((tmp_path / "here" / "prepared").glob("*/images.npy"))) == 1
    assert not cached.exists()


def test_progress_is_told(root: Path) -> None:
    told: list[tuple[int, int]] = []
    cache.prepare(build(root), "test", progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 6) for n in range(1, 7)]


def test_images_are_read_only_and_travel_to_workers_without_their_pixels(root: Path) -> None:
    prepared = cache.prepare(build(root), "test")
    with pytest.raises(ValueError, match="read-only"):
        prepared.image(0)[0, 0, 0] = 1
    sent = pickle.dumps(prepared)
    assert len(sent) < 48 * 64 * 3
    np.testing.assert_array_equal(pickle.loads(sent).image(3), prepared.image(3))


def _prepare(root: Path, start: multiprocessing.synchronize.Event, results: multiprocessing.Queue) -> None:
    start.wait()
    prepared = cache.prepare(build(root), "train")
    results.put((prepared.counts.tolist(), int(sum(prepared.image(i).sum() for i in range(len(prepared))))))


@pytest.mark.parametrize("locks", [True, False])
def test_processes_that_prepare_at_once_agree(
    root: Path, cached: Path, locks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With locks, and also where the file system has none."""
    if not locks:
        monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError("no locks here")))
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    workers = [context.Process(target=_prepare, args=(root, start, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert all(one == found[0] for one in found)
    assert len([p for p in cached.iterdir() if p.is_dir()]) == 1


class MadeUp(CrowdDataset):
    """A dataset that is made on the fly."""

    on_disk = False

    def entries(self, split: str) -> list[Entry]:
        self.check_split(split)
        return [Entry(str(n), split) for n in range(3)]

    def read_image(self, entry: Entry) -> np.ndarray:
        return np.full((8, 10, 3), int(entry.id), dtype=np.uint8)

    def read_annotation(self, entry: Entry) -> Annotation:
        return Annotation(np.array([[1.0, 2.0]]), np.array([[0.0, 1.0, 2.0, 3.0]]))

    def fingerprint(self, split: str | None = None) -> str:
        return "0"


def test_datasets_made_on_the_fly_leave_nothing_on_disk(tmp_path: Path) -> None:
    prepared = cache.prepare(MadeUp(scale=2.0), "train")
    assert prepared.image(2).shape == (16, 20, 3)
    assert (prepared.image(2) == 2).all()
    np.testing.assert_array_equal(prepared.points(1), [[2, 4]])
    np.testing.assert_array_equal(prepared.boxes(1), [[0, 2, 4, 6]])
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(prepared)).image(1), prepared.image(1))


def test_meta_is_plain_json(root: Path, cached: Path) -> None:
    cache.prepare(build(root), "test")
    (meta,) = cached.glob("*/meta.json")
    assert json.loads(json.loads(meta.read_text())["content"])["counts"] == COUNTS


def flip(path: Path, place: int) -> None:
    """Flips one bit, as a bad disk or a loss of power may: the size is right, the file can be read."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "place"), [("points.npy", -3), ("meta.json", 60), ("meta.json", 9), ("boxes.npy", -9)]
)
def test_a_flipped_bit_in_a_table_makes_the_folder_again(tmp_path: Path, cached: Path, file: str, place: int) -> None:
    fake.write_image(tmp_path / "own" / "test" / "a.png")
    (tmp_path / "own" / "test" / "a.json").write_text('{"points": [[10, 9]], "boxes": [[8, 6, 12, 12]]}')
    fake.write_image(tmp_path / "own" / "train" / "c.png")
    (tmp_path / "own" / "train" / "c.json").write_text("[]")
    dataset = data.build("folder", tmp_path / "own")
    cache.prepare(dataset, "test")
    (path,) = cached.glob(f"*/{file}")
    flip(path, place)
    prepared = cache.prepare(dataset, "test")
    np.testing.assert_array_equal(prepared.points(0), [[10, 9]])
    np.testing.assert_array_equal(prepared.boxes(0), [[8, 6, 12, 12]])
    assert prepared.ids == ("a",)


@pytest.mark.parametrize("damage", ["flipped", "zeros"])
def test_a_damaged_image_is_refused_and_made_again_at_the_next_start(root: Path, cached: Path, damage: str) -> None:
    """Zeros are what a page holds that was never written when the power failed."""
    good = cache.prepare(build(root), "test")
    expected = good.image(2).copy()
    (path,) = cached.glob("*/images.npy")
    if damage == "flipped":
        flip(path, len(path.read_bytes()) - good._starts[-1] + good._starts[2] + 77)
    else:
        pixels = np.load(path, mmap_mode="r+")
        pixels[good._starts[2] : good._starts[3]] = 0
        pixels.flush()
    opened = cache.prepare(build(root), "test")
    opened.image(1)
    with pytest.raises(DataError, match=r"the prepared image IMG_3 is damaged on disk; start again, with --retry"):
        opened.image(2)
    np.testing.assert_array_equal(cache.prepare(build(root), "test").image(2), expected)


def test_a_data_loading_process_says_the_same_of_a_damaged_image(root: Path, cached: Path) -> None:
    good = cache.prepare(build(root), "test")
    (path,) = cached.glob("*/images.npy")
    flip(path, len(path.read_bytes()) - good._starts[-1] + good._starts[2] + 77)
    opened = cache.prepare(build(root), "test")
    loader = evaluation_loader(WholeImages(opened, multiple=8), workers=1)
    with pytest.raises(DataError) as refused:
        list(loader)
    assert str(refused.value).startswith(str(opened.folder))
    assert "IMG_3 is damaged" in str(refused.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_is_removed_while_it_is_used(root: Path, cached: Path, workers: int) -> None:
    """One sentence that names the file, also from a data-loading process, whose errors come with their tracebacks."""
    opened = cache.prepare(build(root), "test")
    (path,) = cached.glob("*/images.npy")
    shutil.rmtree(path.parent)
    with pytest.raises(DataError) as refused:
        list(evaluation_loader(WholeImages(opened, multiple=8), workers=workers))
    assert str(refused.value) == (
        f"{path}: the prepared images went away while they were in use (no such file or directory); start again, "
        "with --retry-failed: they will be prepared anew"
    )
