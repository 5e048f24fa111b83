"""LM: its peaks against an upsampled map searched pixel by pixel, its scores against the rules that they stand for."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import ndimage, stats
from torch.nn.functional import interpolate, max_pool2d

from runners import localizers
from runners.localizers import Field, Located, NoThresholdError
from runners.localizers._peaks import peaks
from runners.localizers.lm import AREA, PUBLISHED, kernel_peak

STRIDES = (1, 2, 3, 4, 5, 6, 8, 16)
AROUND = np.ones((3, 3))
RULES = ("gl", "steerer", "fidtm")


def upsampled(values: NDArray, stride: int) -> NDArray:
    """4 s^2 times the bilinear surface at the centres of the pixels, in whole numbers."""

    def weights(cells: int) -> NDArray:
        table = np.zeros((cells * stride, cells), dtype=np.int64)
        for pixel in range(cells * stride):
            cell, part = divmod(2 * pixel + 1 - stride, 2 * stride)
            table[pixel, max(cell, 0)] += 2 * stride - part
            table[pixel, min(cell + 1, cells - 1)] += part
        return table

    return weights(values.shape[0]) @ values @ weights(values.shape[1]).T


def searched(surface: NDArray, stride: int) -> set[tuple[float, float, float]]:
    """(x, y, height) of every connected set of pixels that equal the maximum of the 3 x 3 around and touch no equally
    high pixel that does not; the mean of those next to a cell's centre."""
    top = (surface == ndimage.maximum_filter(surface, 3, mode="nearest")) & (surface > 0)
    label, count = ndimage.label(top, AROUND)
    framed, frame = np.pad(surface, 1, constant_values=-1), np.pad(top, 1, constant_values=True)
    shoulders = set()
    for dy, dx in itertools.product(range(3), repeat=2):
        part = np.s_[dy : dy + surface.shape[0], dx : dx + surface.shape[1]]
        shoulders |= set(label[top & (framed[part] == surface) & ~frame[part]])
    near = (np.arange(max(surface.shape)) % stride) - (stride - 1) / 2
    near = abs(near) <= 0.5
    found = set()
    for one in set(range(1, count + 1)) - shoulders:
        row, column = np.nonzero((label == one) & near[: surface.shape[0], None] & near[: surface.shape[1]])
        found.add((column.mean() + 0.5, row.mean() + 0.5, surface[row[0], column[0]]))
    return found


def as_set(found, scale: float = 1.0) -> set[tuple[float, float, float]]:
    return {(x, y, scale * v) for (x, y), v in zip(found.points.tolist(), found.heights.tolist(), strict=True)}


def rounded(found: set[tuple[float, float, float]]) -> list[tuple[float, ...]]:
    return sorted(tuple(round(v, 6) for v in each) for each in found)


@pytest.mark.parametrize("stride", STRIDES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    values=st.integers(1, 12).flatmap(
        lambda most: arrays.arrays(
            np.int64, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, most)
        )
    )
)
def test_peaks_and_plateaus_are_those_of_the_pixels(stride: int, values: NDArray) -> None:
    """Small whole numbers: ties, plateaus, shoulders, saddles and borders everywhere; both sides are exact."""
    found = as_set(peaks(values.astype(np.float64), stride), 4 * stride**2)
    assert rounded(found) == rounded(searched(upsampled(values, stride), stride))


@pytest.mark.parametrize("stride", STRIDES)
def test_peaks_of_many_small_maps(stride: int) -> None:
    rng = np.random.default_rng(stride)
    for _ in range(200):
        values = rng.integers(0, rng.integers(2, 15), size=rng.integers(1, 8, 2))
        values = values * (rng.random(values.shape) < rng.choice([0.4, 1.0]))
        found = as_set(peaks(values.astype(np.float64), stride), 4 * stride**2)
        assert rounded(found) == rounded(searched(upsampled(values, stride), stride))


def test_ties_across_a_corner() -> None:
    """Equally high pixels that touch at a corner only: the second of them rises further, or is the same person."""
    rising = np.array([[1.0, 0.0], [0.0, 5.0]])  # at stride 3 the pixel towards the 5 is as high as the centre of the 1
    assert upsampled(rising.astype(int), 3)[1, 1] == upsampled(rising.astype(int), 3)[2, 2]
    assert peaks(rising, 3).points.tolist() == [[4.5, 4.5]]
    assert len(peaks(np.array([[1.0, 0.0], [0.0, 4.9]]), 3).points) == 2
    pair = np.pad(np.eye(2), 1)
    assert peaks(pair, 2).points.tolist() == [[4.0, 4.0]]
    assert len(peaks(pair, 4).points) == 2


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("smooth", [0.0, 1.0, 2.5])
def test_peaks_are_those_of_torch(stride: int, smooth: float) -> None:
    """Values on a grid of 2^-20 so that torch's float64 arithmetic is exact, and flat where it is flat."""
    rng = np.random.default_rng(stride)
    values = ndimage.gaussian_filter(rng.random((23, 31)) ** 4, smooth)
    values = np.round(np.maximum(values - np.quantile(values, 0.3), 0) * 2**20) / 2**20
    surface = interpolate(torch.from_numpy(values)[None, None], scale_factor=stride, mode="bilinear")
    equal = (surface == max_pool2d(surface, 3, stride=1, padding=1)) & (surface > 0)
    exact = searched(surface[0, 0].numpy(), stride)
    found = peaks(values, stride)
    assert as_set(found) == exact
    # Away from the flat half cells of the border, each lone pixel of the literal rule is a peak, and nothing else is.
    label, count = ndimage.label(equal[0, 0].numpy(), AROUND)
    alone = np.isin(label, np.flatnonzero(np.bincount(label.ravel()) == 1))
    edge = stride // 2
    row, column = np.nonzero(alone)
    inner = (row >= edge) & (row < label.shape[0] - edge) & (column >= edge) & (column < label.shape[1] - edge)
    lone = set(zip(column[inner] + 0.5, row[inner] + 0.5, strict=True))
    assert lone
    assert lone <= set(map(tuple, found.points.tolist()))
    assert len(found.points) <= count


def test_bands_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).integers(0, 4, (60, 40)).astype(np.float64)
    whole = peaks(values, 8)
    monkeypatch.setattr("runners.localizers._peaks._BAND", 3 * 40)
    np.testing.assert_array_equal(np.column_stack(whole[:2]), np.column_stack(peaks(values, 8)[:2]))


def test_nearly_flat_is_not_flat() -> None:
    """One unit in the last place decides, at any stride: no height is rounded away."""
    values = np.full((5, 6), 0.3)
    values[2, 3] = np.nextafter(0.3, 1)
    for stride in STRIDES:
        assert peaks(values, stride).points.tolist() == [[3.5 * stride, 2.5 * stride]]


def test_a_large_image_needs_little_memory() -> None:
    import tracemalloc

    values = np.random.default_rng(0).random((375, 500)) ** 8
    tracemalloc.start()
    found = localizers.build("lm").candidates(Field(8, (3000, 4000), density=values))
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.points) > 10_000
    assert used < 3000 * 4000 * 8  # less than the upsampled map alone


def field(values: NDArray, stride: int = 8) -> Field:
    return Field(stride, (values.shape[0] * stride, values.shape[1] * stride), density=values)


def crowd(seed: int, shape: tuple[int, int] = (24, 30)) -> NDArray:
    """Peaks of very different heights, as a rule with patches needs."""
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.random(shape) ** 6 * rng.choice([0.1, 1.0, 8.0], shape), 0.7)


def points(found: Located) -> set[tuple[float, float]]:
    return set(map(tuple, found.points.tolist()))


def patch_top(values: NDArray, point: tuple[float, float], stride: int, side: int) -> float:
    """The highest cell whose centre lies in a point's patch."""
    low = [side * math.floor(v / side) for v in point]
    y, x = ((np.arange(cells) + 0.5) * stride for cells in values.shape)
    rows, columns = (y >= low[1]) & (y < low[1] + side), (x >= low[0]) & (x < low[0] + side)
    return float(values[rows][:, columns].max(initial=0.0))


@pytest.mark.parametrize("stride", [1, 3, 4, 8, 16, 48])
@pytest.mark.parametrize("t", [0.02, 0.1, 0.15, 0.2, 0.29, 0.3])
def test_steerers_score_is_its_rule(stride: int, t: float) -> None:
    values = crowd(stride) * stride**2 / AREA
    own, peak = 64 / stride**2, 64 * kernel_peak(4.0, 15)
    found = peaks(values, stride)
    kept = {
        point
        for point, v in zip(map(tuple, found.points.tolist()), own * found.heights, strict=True)
        if v >= np.clip(t * own * patch_top(values, point, stride, 32), t * peak, 0.3 * peak)
    }
    assert points(localizers.build("lm", rule="steerer", threshold=t)(field(values, stride))) == kept
    assert 0 < len(kept) < len(found.points) or t < 0.15


@pytest.mark.parametrize("stride", [1, 4, 8])
def test_fidtms_score_is_its_rule(stride: int) -> None:
    values = crowd(3) * stride**2 / AREA
    found = peaks(values, stride)
    kept = {
        tuple(p)
        for p, v in zip(found.points.tolist(), found.heights, strict=True)
        if v >= 100 / 255 * found.heights.max()
    }
    located = localizers.build("lm", rule="fidtm")(field(values, stride))
    assert points(located) == kept
    assert located.scores[0] == 1


def test_fidtms_empty_image() -> None:
    """Nobody where the highest peak is below a tenth of one person's kernel."""
    values = np.zeros((9, 9))
    for share, expected in ((0.0999, 0), (0.1001, 1)):
        values[4, 4] = share * kernel_peak(4.0, 15) * 64 / (15 / 16) ** 2  # pixels straddle the centre
        assert len(localizers.build("lm", rule="fidtm").candidates(field(values)).points) == expected
    assert len(localizers.build("lm", rule="fidtm", least=0.2).candidates(field(values)).points) == 0


def test_the_kernels_peak() -> None:
    kernel = ndimage.gaussian_filter(np.eye(1, 225, 112).reshape(15, 15), 4.0, radius=7, mode="constant")
    assert kernel_peak(4.0, 15) == pytest.approx(kernel.max(), rel=1e-12)
    assert kernel_peak(4.0, 201) == pytest.approx(1 / (2 * math.pi * 16), rel=1e-6)


def test_published_thresholds() -> None:
    assert localizers.build("lm", rule="fidtm").published == pytest.approx(0.392, abs=1e-3)
    assert PUBLISHED["steerer"] == {"shanghaitech_a": 0.2, "ucf_qnrf": 0.15, "nwpu": 0.1}
    for rule in ("gl", "steerer"):
        with pytest.raises(NoThresholdError):
            localizers.build("lm", rule=rule)(field(np.ones((3, 3))))


def blob(head: tuple[float, float], sigma: float, shape: tuple[int, int], stride: int) -> NDArray:
    """One person as a Gaussian, integrated over each cell."""
    x, y = (
        np.diff(stats.norm.cdf(np.arange(cells + 1) * stride, place, sigma))
        for cells, place in zip(shape[::-1], head, strict=True)
    )
    return np.outer(y, x)


@pytest.mark.parametrize("rule", RULES)
def test_scores_hardly_depend_on_the_stride(rule: str) -> None:
    """A wide Gaussian on maps of other strides has the same height."""
    scores = []
    for stride in (1, 2, 4, 8):
        shape = (192 // stride, 256 // stride)
        values = blob((90.0, 100.0), 30.0, shape, stride) * 40 + blob((220.0, 30.0), 20.0, shape, stride) * 10
        scores.append(localizers.build("lm", rule=rule).candidates(field(values, stride)).scores)
    for found in scores[1:]:
        np.testing.assert_allclose(found, scores[0], rtol=0.05)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(dx=st.floats(-0.49, 0.49), dy=st.floats(-0.49, 0.49), sigma=st.floats(0.6, 3.0), stride=st.sampled_from(STRIDES))
def test_refined_peaks_of_a_sampled_gaussian_are_exact(dx: float, dy: float, sigma: float, stride: int) -> None:
    y, x = np.mgrid[0:9, 0:11]
    values = np.exp(-((x - 5 - dx) ** 2 + (y - 4 - dy) ** 2) / (2 * sigma**2))
    found = localizers.build("lm", refine=True).candidates(field(values, stride))
    np.testing.assert_allclose(found.points, [[(5.5 + dx) * stride, (4.5 + dy) * stride]], atol=1e-6 * stride)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_refining_brings_people_nearer(stride: int) -> None:
    rng = np.random.default_rng(0)
    errors = []
    for refine in (False, True):
        moved = []
        for head in rng.uniform(40, 60, (50, 2)):
            values = blob(tuple(head), 4.0, (96 // stride, 96 // stride), stride)
            found = localizers.build("lm", refine=refine).candidates(field(values, stride))
            moved.append(np.hypot(*(found.points[0] - head)))
        errors.append(np.mean(moved))
    assert errors[1] < 0.2 * errors[0]


def test_refining_keeps_scores_borders_and_plateaus() -> None:
    values = crowd(7)
    values[0, 3], values[5, 0], values[10:13, 10:13] = 9.0, 9.0, 20.0
    plain, moved = (localizers.build("lm", refine=refine).candidates(field(values)) for refine in (False, True))
    np.testing.assert_array_equal(plain.scores, moved.scores)
    assert abs(plain.points - moved.points).max() <= 4 + 0.5
    assert moved.points[0].tolist() == [11.5 * 8, 11.5 * 8]
    top = next(p for p in moved.points.tolist() if p[1] < 8 and 24 <= p[0] < 32)
    left = next(p for p in moved.points.tolist() if p[0] < 8 and 40 <= p[1] < 48)
    assert top[1] == 4
    assert left[0] == 4
    assert len(localizers.build("lm", refine=True).candidates(field(np.ones((1, 1)))).points) == 1


def test_a_slope_at_the_border_is_no_person() -> None:
    """The literal rule finds pixels of the flat half cell along the border; see `_peaks.peaks`."""
    values = np.outer([1.0, 2.0, 3.0, 2.0], [1.0, 2.0, 1.0])
    surface = interpolate(torch.from_numpy(values)[None, None], scale_factor=8, mode="bilinear")
    literal = (surface == max_pool2d(surface, 3, stride=1, padding=1))[0, 0].numpy()
    assert ndimage.label(literal, AROUND)[1] == 9  # the peak, one at each side and each corner
    assert localizers.build("lm").candidates(field(values)).points.tolist() == [[12.0, 20.0]]


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"rule": "steer"}, ValueError, "steerer"),
        ({"sigma": 0}, ValueError, "sigma"),
        ({"kernel": 2.5}, ValueError, "whole"),
        ({"patch": 0}, ValueError, "patch"),
        ({"least": -1}, ValueError, "least"),
        ({"sigma": "4"}, TypeError, "sigma"),
        ({"threshold": math.nan}, ValueError, "threshold"),
    ],
)
def test_wrong_parameters(params: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        localizers.build("lm", **params)
