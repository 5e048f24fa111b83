"""Every dataset in every layout it comes in: found, split, read, and refused where it is broken."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners import data
from runners.data.datasets.base import CrowdDataset, Resize, carve
from runners.data.reading import DataError
from tests.runners import fake_datasets as fake

TRAIN, TEST = [5, 0, 40, 3, 12, 7, 9, 1, 2, 30, 31], [4, 6, 0]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CROWD_DATA", raising=False)


def people(dataset: CrowdDataset, split: str) -> list[int]:
    return [len(dataset.read_annotation(entry).points) for entry in dataset.entries(split)]


# --- names and parameters


def test_every_dataset_is_found_by_its_file_name() -> None:
    here = {"folder", "jhu_crowd", "nwpu", "shanghaitech_a", "shanghaitech_b", "ucf_cc_50", "ucf_qnrf"}
    assert here <= set(data.names())
    for name in here:
        assert data.load(name).__module__.endswith(name)
        assert data.load(name).title


def test_unknown_names_come_with_suggestions() -> None:
    with pytest.raises(ValueError, match="Did you mean shanghaitech_b"):
        data.load("shanghai_tech_b")
    with pytest.raises(TypeError, match="Did you mean val_fraction"):
        data.build("shanghaitech_b", val_fracton=0.2)
    with pytest.raises(TypeError, match="Known: fold, scale"):
        data.build("ucf_cc_50", nonsense=1)
    data.check_params("ucf_cc_50", {"fold": 1, "scale": 0.5, "val_fraction": 0.2})


@pytest.mark.parametrize(
    "params",
    [{"scale": 0}, {"scale": -1}, {"val_fraction": 0.0}, {"val_fraction": 1.0}, {"short_min": -5}, {"long_max": 1.5}],
)
def test_impossible_parameters_are_refused(tmp_path: Path, params: dict) -> None:
    fake.shanghaitech(tmp_path / "part_B", {"train": [1, 2], "test": [1]})
    with pytest.raises(ValueError, match=next(iter(params))):
        data.build("shanghaitech_b", tmp_path, **params)


# --- layouts

Layout = Callable[[Path], Path]
LAYOUTS: dict[str, tuple[str, Layout]] = {
    "b final": ("shanghaitech_b", lambda p: fake.shanghaitech(p / "part_B_final", {"train": TRAIN, "test": TEST})),
    "b underscore": (
        "shanghaitech_b",
        lambda p: fake.shanghaitech(
            p / "ShanghaiTech" / "part_B", {"train": TRAIN, "test": TEST}, truth="ground_truth"
        ),
    ),
    "b deep": (
        "shanghaitech_b",
        lambda p: fake.shanghaitech(p / "sets" / "shanghaitech" / "part_B_final", {"train": TRAIN, "test": TEST}),
    ),
    "a": ("shanghaitech_a", lambda p: fake.shanghaitech(p / "ShanghaiTech" / "part_A", {"train": TRAIN, "test": TEST})),
    "qnrf": ("ucf_qnrf", lambda p: fake.qnrf(p / "UCF-QNRF_ECCV18", {"Train": TRAIN, "Test": TEST})),
    "qnrf lower": ("ucf_qnrf", lambda p: fake.qnrf(p / "ucf_qnrf", {"train": TRAIN, "test": TEST})),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("above", [0, 1, 2])
def test_mat_datasets_in_their_layouts(tmp_path: Path, layout: str, above: int) -> None:
    """The root may be the dataset's folder or one above it; every point and pixel is what was written."""
    name, write = LAYOUTS[layout]
    folder = write(tmp_path / "data")
    root = [folder, *folder.parents][min(above, len(folder.relative_to(tmp_path).parts) - 1)]
    dataset = data.build(name, root)
    assert dataset.name == name
    assert people(dataset, "test") == TEST
    assert sorted(people(dataset, "train") + people(dataset, "val")) == sorted(TRAIN)
    assert len(dataset.entries("val")) == 1
    for entry in dataset.entries("train"):
        number = int(entry.id.rpartition("_")[2])
        np.testing.assert_array_equal(
            dataset.read_annotation(entry).points, fake.some_points(TRAIN[number - 1], seed=number)
        )
        assert dataset.image_size(entry) == dataset.read_image(entry).shape[:2] == (48, 64)


def test_entries_are_in_natural_order(tmp_path: Path) -> None:
    fake.shanghaitech(tmp_path / "part_B", {"train": TRAIN, "test": [1] * 12})
    ids = [entry.id for entry in data.build("shanghaitech_b", tmp_path).entries("test")]
    assert ids == [f"IMG_{n}" for n in range(1, 13)]


def test_the_two_parts_are_never_taken_for_each_other(tmp_path: Path) -> None:
    fake.shanghaitech(tmp_path / "ShanghaiTech" / "part_A_final", {"train": TRAIN, "test": TEST})
    with pytest.raises(DataError, match="shanghaitech_b is not under"):
        data.build("shanghaitech_b", tmp_path)
    with pytest.raises(DataError, match="shanghaitech_b is not under"):
        data.build("shanghaitech_b", tmp_path / "ShanghaiTech" / "part_A_final")


def test_two_copies_are_an_error_and_a_link_is_none(tmp_path: Path) -> None:
    fake.shanghaitech(tmp_path / "part_B", {"train": [1, 2], "test": [1]})
    (tmp_path / "part_B_final").symlink_to(tmp_path / "part_B")
    data.build("shanghaitech_b", tmp_path)
    (tmp_path / "part_B_final").unlink()
    shutil.copytree(tmp_path / "part_B", tmp_path / "part_B_final")
    with pytest.raises(DataError, match="name one of them"):
        data.build("shanghaitech_b", tmp_path)


def test_a_missing_dataset_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="https://") as caught:
        data.build("ucf_qnrf", tmp_path / "nowhere")
    assert "no folder" in str(caught.value)
    monkeypatch.setenv("CROWD_DATA", str(fake.qnrf(tmp_path / "qnrf", {"Train": TRAIN, "Test": TEST})))
    assert people(data.build("ucf_qnrf"), "test") == TEST


def test_an_image_without_annotation_is_named(tmp_path: Path) -> None:
    folder = fake.shanghaitech(tmp_path / "part_B", {"train": TRAIN, "test": TEST})
    (folder / "train_data" / "ground-truth" / "GT_IMG_3.mat").unlink()
    with pytest.raises(DataError, match=r"1 of 11 images have no annotation.*IMG_3.jpg"):
        data.build("shanghaitech_b", tmp_path).entries("train")


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    fake.shanghaitech(tmp_path / "part_B", {"train": TRAIN, "test": TEST})
    with pytest.raises(ValueError, match="expected one of train, val, test"):
        data.build("shanghaitech_b", tmp_path).entries("valid")


def test_jhu_has_an_official_val_boxes_and_empty_images(tmp_path: Path) -> None:
    fake.jhu(tmp_path / "jhu_crowd_v2.0", {"train": [3, 0], "val": [1], "test": [2, 2]})
    dataset = data.build("jhu_crowd", tmp_path)
    assert [people(dataset, split) for split in ("train", "val", "test")] == [[3, 0], [1], [2, 2]]
    found = dataset.read_annotation(dataset.entries("train")[0])
    np.testing.assert_array_equal(found.points, [[5, 7], [6, 8], [7, 9]])
    np.testing.assert_array_equal(found.boxes[0], [3, 4, 7, 10])
    with pytest.raises(ValueError, match="validation part of its own"):
        data.build("jhu_crowd", tmp_path, val_fraction=0.2)


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("mats", [False, True])
def test_nwpu_tests_on_its_official_val(tmp_path: Path, parts: bool, mats: bool) -> None:
    train = {f"{n:04d}": n for n in range(1, 21)}
    counts = {"train": train, "val": {"3110": 4, "3098": 0}, "test": {"3610": 0}}
    fake.nwpu(tmp_path / "NWPU-Crowd", counts, parts=parts, mats=mats)
    dataset = data.build("nwpu", tmp_path)
    assert [entry.id for entry in dataset.entries("test")] == ["3110", "3098"]  # the order of the list
    assert people(dataset, "test") == [4, 0]
    assert len(dataset.entries("train")) == 18
    assert len(dataset.entries("val")) == 2
    found = dataset.read_annotation(dataset.entries("test")[0])
    np.testing.assert_allclose(found.boxes, np.concatenate([found.points - 2, found.points + 3], axis=1))
    (hidden,) = dataset.entries("hidden")
    with pytest.raises(DataError, match="not public"):
        dataset.read_annotation(hidden)


def test_real_nwpu_lists(shared_dir: Path, tmp_path: Path) -> None:
    lists = shared_dir / "data" / "localisation" / "lists"
    for part in ("train", "val"):
        shutil.copy(lists / f"nwpu_{part}.txt", tmp_path / f"{part}.txt")
    for folder, suffix in (("images", "jpg"), ("jsons", "json")):
        (tmp_path / folder).mkdir()
        for n in range(1, 3610):
            (tmp_path / folder / f"{n:04d}.{suffix}").write_text('{"points": [], "boxes": []}')
    dataset = data.build("nwpu", tmp_path)
    test = [entry.id for entry in dataset.entries("test")]
    assert len(test) == 500
    assert test[59] == "3098"
    assert "3169" not in test
    assert len(dataset.entries("train")) + len(dataset.entries("val")) == 3109


def test_ucf_cc_50_folds_partition_the_images(tmp_path: Path) -> None:
    fake.ucf_cc_50(tmp_path / "UCF_CC_50")
    tested: list[str] = []
    for fold in range(5):
        dataset = data.build("ucf_cc_50", tmp_path, fold=fold)
        split = {s: {entry.id for entry in dataset.entries(s)} for s in ("train", "val", "test")}
        assert [len(split[s]) for s in ("train", "val", "test")] == [36, 4, 10]
        assert len(set.union(*split.values())) == 50
        tested += split["test"]
    assert sorted(map(int, tested)) == list(range(1, 51))
    with pytest.raises(ValueError, match="fold must be 0 to 4"):
        data.build("ucf_cc_50", tmp_path, fold=5)


# --- a user's own folder


def own_images(folder: Path, names: list[str]) -> Path:
    for n, name in enumerate(names):
        fake.write_image(folder / name, seed=n)
    return folder


def test_own_images_with_json_and_csv(tmp_path: Path) -> None:
    train = own_images(tmp_path / "train" / "images", ["a.png", "b.jpg", "c.jpg"])
    (train / "a.json").write_text("[[1, 2], [3.5, 4]]")
    (tmp_path / "train" / "annotations").mkdir()
    (tmp_path / "train" / "annotations" / "b.json").write_text('{"points": [[5, 6]], "boxes": [[4, 5, 6, 7]]}')
    (tmp_path / "train" / "annotations" / "c.csv").write_text("x,y\n7,8\n\n9,10\n")
    own_images(tmp_path / "test", ["d.jpg", "e.jpg"])
    (tmp_path / "test" / "points.csv").write_text("image,x,y\nd.jpg,1,2\ne.jpg,,\nd.jpg,3,4\n")
    dataset = data.build("folder", tmp_path)
    found = {e.id: dataset.read_annotation(e) for split in ("train", "val", "test") for e in dataset.entries(split)}
    expected = {"a": [[1, 2], [3.5, 4]], "b": [[5, 6]], "c": [[7, 8], [9, 10]], "d": [[1, 2], [3, 4]], "e": []}
    assert {name: annotation.points.tolist() for name, annotation in found.items()} == expected
    np.testing.assert_array_equal(found["b"].boxes, [[4, 5, 6, 7]])
    assert found["a"].boxes is None
    assert [entry.id for entry in dataset.entries("test")] == ["d", "e"]


def test_own_images_in_one_folder_are_split_by_name(tmp_path: Path) -> None:
    own_images(tmp_path, [f"p{n}.png" for n in range(20)])
    rows = [f"p{n}.png,{k},{k}" for n in range(20) for k in range(n + 1)]
    (tmp_path / "points.csv").write_text("\n".join(["image,x,y", *rows]))
    dataset = data.build("folder", tmp_path)
    parts = {split: [entry.id for entry in dataset.entries(split)] for split in ("train", "val", "test")}
    assert [len(parts[s]) for s in ("train", "val", "test")] == [14, 2, 4]
    assert len(set().union(*parts.values())) == 20
    again = data.build("folder", shutil.copytree(tmp_path, tmp_path.parent / "elsewhere"))
    assert parts == {split: [entry.id for entry in again.entries(split)] for split in parts}


def test_own_val_folder_is_used(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        own_images(tmp_path / split, ["a.png"])
        (tmp_path / split / "a.json").write_text("[]")
    dataset = data.build("folder", tmp_path)
    assert [entry.image.parent.name for entry in dataset.entries("val")] == ["val"]
    with pytest.raises(ValueError, match="validation part of its own"):
        data.build("folder", tmp_path, val_fraction=0.3)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", '{"heads": []}', "expected"),
        ("a.json", "[[1, 2], [3]]", "plain numbers"),
        ("a.json", "[[1, 2], [3, null]]", "plain numbers"),
        ("a.json", '[["x", "y"]]', "plain numbers"),
        ("a.json", "[[1, NaN]]", "not a number"),
        ("a.json", "[[1, 1e999]]", "finite"),
        ("a.json", "[1, 2]", "expected 2 numbers for each point"),
        ("a.json", '{"points": [[1, 2]], "boxes": []}', "0 boxes for 1 points"),
        ("a.json", "[" * 100_000, "not valid JSON"),
        ("a.json", "[[1, 2]", "not valid JSON"),
        ("a.csv", "x;y\n1;2\n", "columns x and y"),
        ("a.csv", "10,20", "the first line is '10,20'; expected a header with the columns x and y"),
        ("a.csv", "10,20\n30,40\n", "the first line is '10,20'; expected a header with the columns x and y"),
        ("a.csv", "col,row\n", "the first line is 'col,row'; expected a header with the columns x and y"),
        ("a.csv", "x,y\n1,2,3\n", "3 fields"),
        ("a.csv", "x,y\n1,two\n", "plain numbers"),
        ("a.csv", "x,y\n1,nan\n", "finite"),
        ("a.csv", "", "empty"),
        ("points.csv", "name,x,y\na.png,1,2\n", "columns image, x and y"),
        ("points.csv", "image,col,row\n", "columns image, x and y"),
        ("points.csv", "image,x,y\n../../a2.png,1,2\n", "no annotation"),
    ],
)
def test_broken_labels_are_refused_by_name(tmp_path: Path, name: str, text: str, says: str) -> None:
    own_images(tmp_path / "train", ["a.png"])
    own_images(tmp_path / "test", ["b.png"])
    (tmp_path / "train" / name).write_text(text)
    (tmp_path / "test" / "b.json").write_text("[]")

    def read() -> None:
        dataset = data.build("folder", tmp_path)
        dataset.read_annotation(dataset.entries("train")[0])

    with pytest.raises(DataError, match=says) as caught:
        read()
    assert str(tmp_path) in str(caught.value)


# --- splits, sizes, fingerprints


@given(st.dictionaries(st.text(max_size=8), st.integers(0, 5000), max_size=60), st.floats(0.01, 0.99), st.randoms())
def test_carving_is_a_fixed_fair_part(counts: dict[str, int], fraction: float, random: object) -> None:
    taken = carve("x", counts, fraction)
    assert taken <= counts.keys()
    if len(counts) > 1:
        assert len(taken) == min(max(1, round(fraction * len(counts))), len(counts) - 1)
    shuffled = list(counts.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert carve("x", dict(shuffled), fraction) == taken


def test_carving_spreads_over_the_counts() -> None:
    counts = {f"IMG_{n}": n * n for n in range(400)}
    taken = carve("shanghaitech_b", counts, 0.1)
    assert sorted(counts[i] ** 0.5 // 10 for i in taken) == list(range(40))
    assert carve("other", counts, 0.1) != taken
    assert carve("shanghaitech_b", counts, 0.1, purpose="test") != taken


def test_val_list_replaces_the_carving(tmp_path: Path) -> None:
    fake.qnrf(tmp_path / "qnrf", {"Train": TRAIN, "Test": TEST})
    chosen = tmp_path / "val.txt"
    chosen.write_text("img_0002.jpg\nimg_0005\n")
    dataset = data.build("ucf_qnrf", tmp_path, val_list=str(chosen))
    assert [entry.id for entry in dataset.entries("val")] == ["img_0002", "img_0005"]
    assert len(dataset.entries("train")) == 9
    chosen.write_text("img_9999.jpg\n")
    with pytest.raises(DataError, match="img_9999"):
        data.build("ucf_qnrf", tmp_path, val_list=str(chosen)).entries("val")


@pytest.mark.parametrize(
    ("rule", "size", "expected"),
    [
        (Resize(), (768, 1024), (768, 1024)),
        (Resize(short_min=512, short_max=2048), (256, 400), (512, 800)),
        (Resize(short_min=512, short_max=2048), (4096, 6000), (2048, 3000)),
        (Resize(short_min=512, short_max=2048), (1000, 700), (1000, 700)),
        (Resize(long_max=2048), (4096, 1000), (2048, 500)),
        (Resize(short_min=512, long_max=2048), (100, 4000), (51, 2048)),
    ],
)
def test_resize_rules(rule: Resize, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert rule.size(*size) == expected


def test_scale_and_limits_change_the_prepared_size(tmp_path: Path) -> None:
    fake.qnrf(tmp_path / "qnrf", {"Train": TRAIN, "Test": TEST})
    assert data.build("ucf_qnrf", tmp_path).prepared_size(768, 1024) == (768, 1024)
    assert data.build("ucf_qnrf", tmp_path, scale=0.5).prepared_size(768, 1024) == (384, 512)
    assert data.build("ucf_qnrf", tmp_path, short_min=0).prepared_size(48, 64) == (48, 64)
    assert data.build("ucf_qnrf", tmp_path, short_max=600, scale=0.5).prepared_size(1200, 1600) == (300, 400)


def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    folder = fake.shanghaitech(tmp_path / "one" / "part_B", {"train": TRAIN, "test": TEST})
    before = data.build("shanghaitech_b", folder).fingerprint()
    copied = shutil.copytree(folder, tmp_path / "two" / "sets" / "part_B_final")
    for file in copied.rglob("*.jpg"):
        os.utime(file, (1, 1))
    assert data.build("shanghaitech_b", copied).fingerprint() == before
    test_before = data.build("shanghaitech_b", folder).fingerprint("test")
    points = fake.some_points(TRAIN[4], seed=5)
    points[0, 0] += 1
    fake.write_mat(folder / "train_data" / "ground-truth" / "GT_IMG_5.mat", image_info=fake.image_info(points))
    after = data.build("shanghaitech_b", folder)
    assert after.fingerprint() != before
    assert after.fingerprint("test") == test_before
    assert data.build("shanghaitech_b", copied, val_fraction=0.3).fingerprint() != before


def test_known_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake.shanghaitech(tmp_path / "part_B", {"train": TRAIN, "test": TEST})
    first = data.build("shanghaitech_b", folder).fingerprint()
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("a known file was read again"))
    assert data.build("shanghaitech_b", folder).fingerprint() == first


def test_a_damaged_store_of_hashes_is_no_obstacle(tmp_path: Path) -> None:
    folder = fake.shanghaitech(tmp_path / "part_B", {"train": TRAIN, "test": TEST})
    first = data.build("shanghaitech_b", folder).fingerprint()
    for content in ("", "[1, 2]", json.dumps({str(folder): 3})):
        for store in (tmp_path / "cache" / "hashes").glob("*.json"):
            store.write_text(content)
        assert data.build("shanghaitech_b", folder).fingerprint() == first


# --- the real thing


@pytest.mark.parametrize("root", ["data", "data/shanghaitech", "data/shanghaitech/part_B_final"])
def test_real_shanghaitech_b(shared_dir: Path, root: str) -> None:
    dataset = data.build("shanghaitech_b", shared_dir / root)
    counts = {split: people(dataset, split) for split in ("train", "val", "test")}
    assert [len(counts[s]) for s in ("train", "val", "test")] == [360, 40, 316]
    assert sum(counts["train"] + counts["val"]) == 49_151
    assert sum(counts["test"]) == 39_121
    assert (min(counts["test"]), max(counts["test"])) == (9, 539)
    assert abs(np.mean(counts["val"]) / np.mean(counts["train"]) - 1) < 0.05
    assert dataset.image_size(dataset.entries("test")[0]) == (768, 1024)


def test_real_qnrf_annotation(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "data" / "localisation" / "lists" / "qnrf_example_ann.mat"
    fake.qnrf(tmp_path / "qnrf", {"Train": [1], "Test": [1]})
    shutil.copy(source, tmp_path / "qnrf" / "Test" / "img_0001_ann.mat")
    assert people(data.build("ucf_qnrf", tmp_path), "test") == [433]
