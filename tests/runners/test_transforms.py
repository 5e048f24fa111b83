"""Crops, whole images and loaders: labels follow pixels, and nothing depends on who computes what when."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from losses.base import CrowdLoss, Prediction, check_inputs
from runners.data.loader import (
    AHEAD,
    Batch,
    EpochSampler,
    SameSize,
    collate,
    evaluation_loader,
    training_loader,
)
from runners.data.noise import parse
from runners.data.transforms import PAD, TrainCrops, WholeImages


class Memory:
    """A prepared split in memory."""

    name = "memory"

    def __init__(
        self, images: list[np.ndarray], points: list[np.ndarray], boxes: list[np.ndarray] | None = None
    ) -> None:
        self._images, self._points, self._boxes = images, points, boxes
        self.ids = tuple(f"image{i}" for i in range(len(images)))
        self.sizes = tuple((image.shape[0], image.shape[1]) for image in images)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> np.ndarray:
        return self._images[index]

    def points(self, index: int) -> np.ndarray:
        return self._points[index]

    def boxes(self, index: int) -> np.ndarray | None:
        return None if self._boxes is None else self._boxes[index]


def crowd(sizes: list[tuple[int, int]], count: int = 30, seed: int = 0) -> Memory:
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return Memory(images, [rng.uniform(0, size[::-1], (count, 2)) for size in sizes])


def blob(size: tuple[int, int], x: float, y: float) -> np.ndarray:
    """A white disc of radius 6 with its centre at (x, y), corner origin, on black."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    inside = np.clip(6.5 - np.hypot(columns - x, rows - y), 0, 1)
    return np.repeat((255 * inside).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("size", [(120, 160), (50, 200), (40, 30)])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_points_follow_the_pixels(size: tuple[int, int], flip: float) -> None:
    """The centre of brightness of a disc lies at its point, whatever was cut, scaled, flipped and padded."""
    x, y = size[1] * 0.45, size[0] * 0.55
    crops = TrainCrops(Memory([blob(size, x, y)], [np.array([[x, y]])]), crop=64, scale=(0.5, 2.0), flip=flip, seed=3)
    seen = 0
    for epoch in range(150):
        sample = crops[epoch]
        height, width = sample.valid
        light = sample.image[0, :height, :width].double()
        framed = light[[0, -1]].sum() + light[:, [0, -1]].sum()
        if not len(sample.points) or framed > 0:
            continue  # the disc is cut by the crop: its centre of brightness says nothing
        seen += 1
        rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
        centre = torch.stack([(light.sum(0) * columns).sum(), (light.sum(1) * rows).sum()]) / light.sum()
        assert (centre - sample.points[0]).abs().max() < 0.15
    assert seen > 20


def test_unscaled_crop_is_a_piece_of_the_image_with_exactly_its_heads() -> None:
    images = crowd([(60, 90)])
    for epoch in range(50):
        sample = TrainCrops(images, crop=32, scale=(1, 1), flip=0)[epoch]
        window = np.lib.stride_tricks.sliding_window_view(images.image(0), (32, 32, 3))[:, :, 0]
        top, left = np.argwhere((window == sample.image.permute(1, 2, 0).numpy()).all(axis=(2, 3, 4)))[0]
        shifted = images.points(0) - [left, top]
        expected = shifted[((shifted >= 0) & (shifted < 32)).all(axis=1)]
        np.testing.assert_allclose(sample.points.numpy(), expected, atol=1e-4)


def test_a_flip_mirrors_pixels_and_points() -> None:
    images = crowd([(80, 70)])
    straight, mirrored = (TrainCrops(images, crop=48, scale=(0.8, 1.2), flip=p)[5] for p in (0, 1))
    assert torch.equal(mirrored.image, straight.image.flip(-1))
    torch.testing.assert_close(mirrored.points, torch.stack([48 - straight.points[:, 0], straight.points[:, 1]], 1))
    torch.testing.assert_close(mirrored.visible, straight.visible)


def test_small_images_are_padded_right_and_bottom_with_the_mean_colour() -> None:
    images = crowd([(20, 40)], count=5)
    for flip in (0, 1):
        sample = TrainCrops(images, crop=64, scale=(1, 1), flip=flip)[0]
        assert sample.valid == (20, 40)
        expected = images.image(0)[:, ::-1] if flip else images.image(0)
        np.testing.assert_array_equal(sample.image[:, :20, :40].permute(1, 2, 0), expected)
        padding = torch.from_numpy(PAD)[:, None]
        assert (sample.image[:, 20:].flatten(1) == padding).all()
        assert (sample.image[:, :, 40:].flatten(1) == padding).all()
        assert len(sample.points) == 5
    normalised = (PAD / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.abs(normalised).max() < 0.01


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 80), st.floats(0.3, 3), st.integers(5, 70), st.integers(5, 70))
def test_every_crop_keeps_the_contract(key: int, crop: int, scale: float, height: int, width: int) -> None:
    sample = TrainCrops(crowd([(height, width)]), crop=crop, scale=(scale, scale * 1.5))[key]
    assert sample.image.shape == (3, crop, crop)
    assert sample.image.dtype == torch.uint8
    assert (sample.points >= 0).all()
    assert (sample.points < torch.tensor([sample.valid[1], sample.valid[0]])).all()
    assert ((sample.visible >= 0) & (sample.visible <= 1)).all()
    assert len(sample.visible) == len(sample.spacing) == len(sample.points)


def test_visible_share_counts_pixels() -> None:
    """Against counting the pixels of integer boxes one by one."""
    rng = np.random.default_rng(1)
    points = rng.integers(5, 55, (40, 2)).astype(float)
    boxes = np.concatenate([points - rng.integers(1, 9, (40, 2)), points + rng.integers(1, 9, (40, 2))], axis=1)
    labels = np.zeros((60, 60, 3), dtype=np.uint8)
    labels[..., 0], labels[..., 1] = np.mgrid[:60, :60]
    sample = TrainCrops(Memory([labels], [points], [boxes]), crop=24, scale=(1, 1), flip=0)[2]
    top, left = sample.image[0, 0, 0].item(), sample.image[1, 0, 0].item()
    inside = ((points >= [left, top]) & (points < [left + 24, top + 24])).all(axis=1)
    assert 3 < inside.sum() < 40
    for share, (x1, y1, x2, y2) in zip(sample.visible, boxes[inside].astype(int), strict=True):
        pixels = [(x, y) for x in range(x1, x2) for y in range(y1, y2)]
        shown = [(x, y) for x, y in pixels if left <= x < left + 24 and top <= y < top + 24]
        assert share.item() == pytest.approx(len(shown) / len(pixels), abs=1e-6)


def test_spacing_and_short_side_are_those_of_the_whole_image_at_crop_scale() -> None:
    images = crowd([(200, 300)], count=50)
    distance = np.sort(cdist(images.points(0), images.points(0)), axis=1)[:, 1:4].mean(1)
    crops = TrainCrops(images, crop=64, scale=(0.5, 0.5), flip=0)
    sample = crops[0]
    assert sample.short_side == 100
    assert len(sample.spacing) > 2
    for value in sample.spacing.numpy():
        assert np.abs(distance * 0.5 - value).min() < 1e-4
    half = np.clip(distance, 4, 128) / 2
    np.testing.assert_allclose(crops.heads[0].boxes[:, 2] - images.points(0)[:, 0], half)
    alone = TrainCrops(Memory([images.image(0)], [np.array([[150.0, 100.0]])]), crop=200, scale=(1, 1))
    assert alone.heads[0].spacing[0] == np.inf
    np.testing.assert_allclose(alone.heads[0].boxes, [[86, 36, 214, 164]])


def test_noise_moves_boxes_with_their_points_and_spares_evaluation() -> None:
    points = np.array([[50.0, 60.0], [120.0, 30.0], [20.0, 90.0]])
    boxes = np.tile(points, 2) + np.array([-3, -4, 5, 6])
    boxes[2] = np.nan  # unknown: a square around the noisy point
    images = Memory([np.zeros((100, 150, 3), np.uint8)], [points], [boxes])
    heads = TrainCrops(images, crop=64, noise=parse("uniform-px:8+duplicate:0.5"), noise_seed=4).heads[0]
    expected = parse("uniform-px:8+duplicate:0.5").apply(points, (100, 150), ("memory", "image0", 4))
    np.testing.assert_array_equal(heads.points, expected.points)
    assert (heads.points[:3] != points).all()
    known = expected.source != 2
    np.testing.assert_allclose(
        heads.boxes[known] - np.tile(heads.points[known], 2), np.tile([-3, -4, 5, 6], (known.sum(), 1))
    )
    assert np.isfinite(heads.boxes).all()
    np.testing.assert_array_equal(images.points(0), points)
    torch.testing.assert_close(WholeImages(images)[0].points, torch.tensor(points, dtype=torch.float32))


def test_training_seeds_share_their_wrong_labels() -> None:
    images, noise = crowd([(60, 80), (70, 50)]), parse("uniform-px:4+missing:0.3")
    one, other = (TrainCrops(images, crop=32, noise=noise, seed=seed, noise_seed=9) for seed in (0, 1))
    for a, b in zip(one.heads, other.heads, strict=True):
        np.testing.assert_array_equal(a.points, b.points)
    assert not torch.equal(one[0].image, other[0].image)


@pytest.mark.parametrize("size", [(64, 96), (33, 65), (1, 1)])
def test_whole_images_are_padded_to_a_multiple(size: tuple[int, int]) -> None:
    images = crowd([size])
    sample = WholeImages(images, multiple=32)[0]
    assert sample.valid == size
    height, width = sample.image.shape[-2:]
    assert height % 32 == width % 32 == 0
    assert height - size[0] < 32
    assert width - size[1] < 32
    np.testing.assert_array_equal(sample.image[:, : size[0], : size[1]].permute(1, 2, 0), images.image(0))
    np.testing.assert_allclose(sample.points, images.points(0), rtol=1e-6)


def batches(workers: int, epochs: int = 2) -> list[Batch]:
    crops = TrainCrops(
        crowd([(50, 60), (40, 90), (30, 30), (70, 64), (41, 43)]), crop=32, seed=1, noise=parse("missing:0.2")
    )
    loader = training_loader(crops, 2, seed=5, workers=workers)
    found = []
    for epoch in range(epochs):
        loader.batch_sampler.sampler.set_epoch(epoch)
        found += list(loader)
    return found


def test_workers_and_global_seeds_change_nothing() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - it must not matter
    alone = batches(0)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    shared = batches(2)
    assert len(alone) == len(shared) == 6
    for one, other in zip(alone, shared, strict=True):
        assert one.ids == other.ids
        assert one.valid == other.valid
        assert torch.equal(one.images, other.images)
        for a, b in zip(one.target.points, other.target.points, strict=True):
            assert torch.equal(a, b)


def test_loading_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    batches(0)
    assert torch.equal(torch.rand(3), expected)


def test_sampler_covers_every_image_once_an_epoch_in_a_new_order() -> None:
    sampler, orders = EpochSampler(range(100), seed=3), []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert sorted(keys) == list(range(epoch * 100, epoch * 100 + 100))
        orders.append([key % 100 for key in keys])
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    assert list(EpochSampler(range(100), seed=4)) != orders[0]
    assert list(EpochSampler(range(5), shuffle=False)) == [0, 1, 2, 3, 4]


def test_a_batch_is_what_the_losses_expect() -> None:
    crops = TrainCrops(crowd([(50, 60), (20, 90)]), crop=32)
    batch = collate([crops[0], crops[1]])
    prediction = Prediction(stride=8, density=torch.zeros(2, 1, 4, 4))
    check_inputs(CrowdLoss(validate=True), prediction, batch.target)
    assert batch.target.image_size == (32, 32)
    assert batch.images.dtype == torch.uint8
    assert all(points.dtype == torch.float32 for points in batch.target.points)


def test_evaluation_goes_through_in_order_one_by_one() -> None:
    found = list(evaluation_loader(WholeImages(crowd([(50, 60), (20, 90)]))))
    assert [batch.ids for batch in found] == [["image0"], ["image1"]]
    assert [batch.valid for batch in found] == [[(50, 60)], [(20, 90)]]
    assert [batch.places for batch in found] == [[0], [1]]
    assert found[1].target.image_size == (32, 96)


def test_batches_of_one_size_hold_every_image_once_and_no_more_pixels_than_allowed() -> None:
    rng = np.random.default_rng(0)
    sizes = [(32 * int(h), 32 * int(w)) for h, w in rng.integers(1, 5, (200, 2))]
    batches = list(SameSize(sizes, 16 * 32 * 32))
    assert len(batches) == len(SameSize(sizes, 16 * 32 * 32)) < 150
    assert sorted(place for batch in batches for place in batch) == list(range(200))
    seen = 0
    for batch in batches:
        assert len({sizes[place] for place in batch}) == 1
        assert batch == sorted(batch)
        assert len(batch) * sizes[batch[0]][0] * sizes[batch[0]][1] <= 16 * 32 * 32
        seen += len(batch)
        assert max(batch) < AHEAD * -(-seen // AHEAD), "nothing further ahead is read"
    assert list(SameSize(sizes, 0)) == [[place] for place in range(200)]
    assert list(SameSize([(64, 64)] * 5, 2 * 64 * 64)) == [[0, 1], [2, 3], [4]]


def test_mmengine_hands_a_batch_on_as_it_is() -> None:
    model = pytest.importorskip("mmengine.model")
    batch = collate([TrainCrops(crowd([(50, 60)]), crop=32)[0]])
    cast = model.BaseDataPreprocessor().cast_data(batch)
    assert isinstance(cast, Batch)
    assert cast.valid == batch.valid
    assert cast.ids == batch.ids
    assert torch.equal(cast.target.points[0], batch.target.points[0])


@pytest.mark.parametrize("wrong", [{"crop": 0}, {"scale": (0.0, 1.0)}, {"scale": (2.0, 1.0)}, {"flip": 1.5}])
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        TrainCrops(crowd([(50, 60)]), **{"crop": 32, **wrong})
