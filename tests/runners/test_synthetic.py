"""Synthetic crowds: the same everywhere, exact, and distributed as documented."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from runners import data
from runners.data.datasets.synthetic import Synthetic
from runners.data.scene.figures import HEAD_HALF, LOOKS, sprite
from runners.data.scene.layout import MIN_VISIBLE, SIZES, capacity, plan
from runners.data.scene.painter import paint
from runners.data.scene.sprites import ALPHA
from runners.data.scene.stream import Stream

ROOT = Path(__file__).resolve().parents[2]

# Made on x86-64 with numpy 2.4. A change here means that everybody's synthetic runs change: raise Synthetic.version.
POINTS = {
    256: "a80b64c12ed89cc88262874aa6d196c0d2508a3b1773d296b096d87dfbd27a77",
    "192x320": "0500ed7531d0880003a68f472610067e82ece74e8ad4acccf2bb695e36b20e92",
}
PIXELS = {
    "00000": [92, 79, 106, 82, 85, 85, 89, 85, 135, 94, 105, 100, 100, 80, 103, 104],
    "00007": [139, 150, 188, 172, 47, 50, 74, 36, 110, 38, 109, 121, 114, 122, 111, 81],
}


def digest_of(crowds: Synthetic, split: str) -> str:
    """sha256 over points and boxes in 1/64 pixels, so that it is about the numbers, not about their bytes."""
    content = hashlib.sha256()
    for entry in crowds.entries(split):
        points, boxes = crowds.read_annotation(entry)
        for array in (points, boxes):
            content.update(np.round(array * 64).astype("<i4").tobytes())
    return content.hexdigest()


@pytest.mark.parametrize("size", POINTS)
def test_points_and_boxes_are_the_same_on_every_machine(size):
    assert digest_of(Synthetic(train=200, size=size), "train") == POINTS[size]


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_are_within_one_grey_level_on_every_machine(name):
    crowds = Synthetic()
    image = crowds.read_image(crowds.entries("train")[int(name)])
    found = image[20::60, 20::60, 1].ravel().astype(int)
    np.testing.assert_allclose(found, PIXELS[name], atol=1)


def test_other_instructions_of_the_processor_change_nothing_but_a_grey_level(tmp_path):
    """Another machine in this one: numpy without its fast paths, OpenBLAS as on a processor of 2004."""
    script = (
        "import sys, numpy; from runners.data.datasets.synthetic import Synthetic as S; c = S(test=12);"
        "e = c.entries('test'); numpy.savez(sys.argv[1], images=numpy.stack([c.read_image(x) for x in e]),"
        "boxes=numpy.concatenate([c.read_annotation(x).boxes for x in e]))"
    )
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
    slow = {"NPY_DISABLE_CPU_FEATURES": " ".join(found), "OPENBLAS_CORETYPE": "Prescott"}
    made = []
    for name, environment in (("here", {}), ("there", slow)):
        command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / f"{name}.npz")]
        subprocess.run(command, env=os.environ | environment, cwd=ROOT, check=True, timeout=300)
        made.append(np.load(tmp_path / f"{name}.npz"))
    here, there = made
    np.testing.assert_array_equal(there["boxes"], here["boxes"])
    assert np.abs(there["images"].astype(int) - here["images"]).max() <= 1


def test_an_image_does_not_depend_on_what_was_made_before():
    crowds = Synthetic()
    last, first = crowds.entries("test")[3], crowds.entries("test")[0]
    alone = crowds.read_image(last)
    crowds.read_image(first)
    np.testing.assert_array_equal(Synthetic(train=1, val=0, test=9).read_image(last), alone)


def test_seeds_and_splits_give_other_scenes():
    entries = [Synthetic().entries("train")[0], Synthetic().entries("val")[0], Synthetic().entries("train")[1]]
    made = [Synthetic(seed=seed).read_image(entry).tobytes() for seed in (0, 1) for entry in entries]
    assert len(set(made)) == 6


def test_fingerprint_covers_what_changes_the_split_and_nothing_else():
    base = Synthetic().fingerprint("train")
    for other in ({"train": 5}, {"size": 128, "most": 20}, {"fewest": 2}, {"most": 99}, {"seed": 1}):
        assert Synthetic(**{"most": 300, **other}).fingerprint("train") != base
    assert Synthetic("elsewhere", test=7).fingerprint("train") == base
    assert Synthetic(test=7).fingerprint() != Synthetic().fingerprint()
    assert Synthetic().fingerprint("val") != base


# ---------------------------------------------------------------------------------------------------------------------
# Distributions


def test_stream_is_uniform_and_log_uniform():
    stream = Stream("test")
    assert stats.kstest(stream.uniform(4000), "uniform").pvalue > 0.01
    drawn = [stream.geometric(3, 700) for _ in range(4000)]
    assert stats.kstest(drawn, stats.loguniform(3, 700).cdf).pvalue > 0.01
    assert stats.chisquare(np.bincount(stream.octets(100, 513).ravel(), minlength=256)).pvalue > 0.01
    picked = [stream.pick({"a": 1, "b": 3}) for _ in range(2000)]
    assert stats.binomtest(picked.count("a"), 2000, 0.25).pvalue > 0.01


def test_stream_names_are_told_apart():
    assert Stream("a", 1).uniform(3).tolist() == Stream("a", 1).uniform(3).tolist()
    assert Stream("a", 1).uniform(1) != Stream("a", 2).uniform(1)
    assert Stream("a").uniform(6).tolist() == [*Stream("a").uniform(2), *Stream("a").uniform(6)[2:]]


def test_counts_are_log_uniform_with_some_empty_images():
    crowds = Synthetic(train=600, fewest=4, most=256)
    counts = np.array([len(crowds.read_annotation(entry).points) for entry in crowds.entries("train")])
    assert stats.binomtest(int((counts == 0).sum()), 600, 0.05).pvalue > 0.01
    assert counts.max() <= 256
    people = counts[counts > 0]
    low, high = (people < 32).mean(), (people >= 64).mean()  # half and a third of the doublings from 4 to 256
    assert 0.43 < low < 0.58
    assert 0.24 < high < 0.4


def test_nearly_everybody_who_was_drawn_is_there():
    for people, share in ((20, 0.99), (100, 0.95), (300, 0.85)):
        crowds = Synthetic(train=60, fewest=people, most=people)
        counts = [len(crowds.read_annotation(entry).points) for entry in crowds.entries("train")]
        found = [count for count in counts if count]
        assert max(found) <= people
        assert np.mean(found) >= share * people


def test_heads_grow_towards_the_camera_and_the_crowd_is_denser_far_away():
    crowds = Synthetic(train=40, fewest=120, most=200)
    growing, density = [], []
    for entry in crowds.entries("train"):
        points, boxes = crowds.read_annotation(entry)
        if len(points):
            growing.append(stats.linregress(points[:, 1], boxes[:, 3] - boxes[:, 1]).slope > 0)
            middle = (points[:, 1].min() + points[:, 1].max()) / 2
            density.append((points[:, 1] < middle).mean())
    assert np.mean(growing) > 0.97
    assert np.mean(density) > 0.52


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    size=st.tuples(st.integers(64, 400), st.integers(64, 400)),
    share=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_annotation_is_sound_for_any_size_and_crowd(seed, size, share):
    low, high = sorted(max(1, int(part * capacity(size))) for part in share)
    scene = plan(Stream(seed), size, (low, high))
    points, boxes = scene.points, scene.boxes
    assert len(points) == len(boxes) <= high
    assert points.dtype == boxes.dtype == np.float64
    assert np.isin(scene.size, SIZES).all()
    assert np.array_equal(points * 2, np.round(points * 2))
    assert (points > 0).all()
    assert (points < [size[1], size[0]]).all()
    assert (boxes[:, :2] < points).all()
    assert (boxes[:, 2:] > points).all()
    assert (boxes >= 0).all()
    assert (boxes <= [size[1], size[0]] * 2).all()
    assert (scene.visible[scene.person] >= MIN_VISIBLE).all()


# ---------------------------------------------------------------------------------------------------------------------
# The picture


def difference(scene, index: int) -> np.ndarray:
    """Where the picture changes when one figure leaves, bool [H, W]."""
    with_it, without = (paint(s, "same").astype(int) for s in (scene, scene.without(index)))
    return np.abs(with_it - without).max(axis=2) > 3


def disc(scene, index: int, share: float = 1.0) -> np.ndarray:
    """The pixels of a head, or of its inner share, bool [H, W]."""
    (x, y), size = scene.center[index], scene.size[index] * share
    column, row = np.arange(scene.image_size[1]) + 0.5, (np.arange(scene.image_size[0]) + 0.5)[:, None]
    return ((column - x) / (HEAD_HALF[0] * size)) ** 2 + ((row - y) / (HEAD_HALF[1] * size)) ** 2 <= 1


@pytest.mark.parametrize("seed", range(5))
def test_people_are_where_the_points_are(seed):
    scene = plan(Stream("place", seed), (256, 256), (12, 12))
    free = np.flatnonzero(scene.person & (scene.visible == 1))
    assert len(free)
    for index in free:
        (x, y), size = scene.center[index], scene.size[index]
        changed = difference(scene, index)
        assert changed[disc(scene, index, 0.9)].mean() > 0.8
        assert not changed[: max(0, int(y - 1.1 * size))].any()
        if LOOKS[scene.look[index]].name.endswith("stand") and size < x < 256 - size:
            # At the height of the eyes there is nothing but the head: its middle is the point.
            eyes = changed[int(y), int(x - 0.62 * size) : int(x + 0.62 * size) + 1]
            assert abs(np.flatnonzero(eyes).mean() + int(x - 0.62 * size) + 0.5 - x) < 0.12 * size + 0.5


def test_nobody_who_is_counted_is_invisible():
    scene = plan(Stream("dense", 2), (256, 256), (220, 220))
    people = np.flatnonzero(scene.person)[::3]
    shares = [(difference(scene, index)[disc(scene, index)].mean(), scene.visible[index]) for index in people]
    seen, said = np.array(shares).T
    assert seen.min() > 0.1
    assert stats.pearsonr(seen, said).statistic > 0.5
    assert abs(seen.mean() - said.mean()) < 0.15


@pytest.mark.parametrize("look", range(len(LOOKS)), ids=lambda i: LOOKS[i].name)
def test_sprites_keep_their_shape_at_every_size(look):
    areas = []
    for size in SIZES[::4]:
        figure = sprite(look, float(size), False, True)
        assert figure.left % 1 == 0
        assert figure.top % 1 == 0.5
        areas.append(figure.layers[ALPHA].sum() / 255 / size**2)
        if LOOKS[look].person:
            head = figure.layers[ALPHA, int(figure.top), int(figure.left - 1) : int(figure.left + 1)]
            assert head.min() > 240
    assert np.ptp(areas) < 0.03 * np.mean(areas)


def test_pictures_use_the_range_of_grey_levels():
    crowds = Synthetic(train=24)
    pictures = np.stack([crowds.read_image(entry) for entry in crowds.entries("train")])
    assert pictures.dtype == np.uint8
    assert pictures.shape == (24, 256, 256, 3)
    means = pictures.mean(axis=(1, 2, 3))
    assert means.min() > 30
    assert means.max() < 225
    assert pictures.std(axis=(1, 2)).min() > 8


# ---------------------------------------------------------------------------------------------------------------------
# The dataset


def test_is_registered_and_builds_by_name():
    crowds = data.build("synthetic", root="ignored", train=2, val=0, test=1, size="80x96", most=20)
    assert isinstance(crowds, Synthetic)
    assert crowds.splits == ("train", "test")
    entry = crowds.entries("train")[1]
    assert entry.image is None
    assert crowds.image_size(entry) == crowds.read_image(entry).shape[:2] == (80, 96)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"size": 32}, "size must be pixels from 64"),
        ({"size": "256*256"}, "as 256 or as"),
        ({"size": 64}, "at most 27 do"),
        ({"fewest": 0}, "1 <= fewest <= most"),
        ({"fewest": 30, "most": 20}, "fewest=30 and most=20"),
        ({"train": -1}, "train must be"),
        ({"scale": 0}, "scale must"),
    ],
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        Synthetic(**params)


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match="no split 'val'"):
        Synthetic(val=0).entries("val")


def test_exported_files_read_back_the_same(tmp_path):
    crowds = Synthetic(train=4, val=2, test=3, size=96, most=40)
    crowds.export(tmp_path / "out")
    files = data.build("folder", root=tmp_path / "out")
    for split in crowds.splits:
        made, read = crowds.entries(split), files.entries(split)
        assert [entry.id for entry in read] == [entry.id for entry in made]
        for ours, theirs in zip(made, read, strict=True):
            np.testing.assert_array_equal(files.read_image(theirs), crowds.read_image(ours))
            for a, b in zip(files.read_annotation(theirs), crowds.read_annotation(ours), strict=True):
                np.testing.assert_array_equal(a, b)
    with pytest.raises(FileExistsError, match="not empty"):
        crowds.export(tmp_path / "out")
