"""Tiles: the windows cover the image once, and small networks see the same as in one pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from runners.counter import POINT_SCORE, Found
from runners.data.transforms import PAD
from runners.predict_tiles import cuts, stitched

MULTIPLES = (1, 4, 16, 32)


@pytest.mark.parametrize("multiple", MULTIPLES)
def test_windows_cover_each_axis_once_with_their_margins(multiple: int) -> None:
    rng = np.random.default_rng(multiple)
    for _ in range(500):
        margin = int(rng.integers(0, 70))
        wide = -(-margin // multiple) * multiple
        tile = 2 * wide + multiple + int(rng.integers(0, 200))
        side = int(rng.integers(1, 1500))
        found = cuts(side, tile, margin, multiple)
        assert found[0].low == 0
        assert found[-1].high == side
        assert all(one.high == other.low for one, other in pairwise(found))
        for cut in found:
            assert 0 <= cut.start <= cut.low < cut.high <= cut.end <= side
            assert cut.end - cut.start <= tile
            assert cut.start == 0 or cut.low - cut.start >= margin
            assert cut.end == side or cut.end - cut.high >= margin
            assert cut.start % multiple == cut.low % multiple == 0
            assert cut.end == side or cut.end % multiple == 0
            assert cut.high == side or cut.high % multiple == 0
        if side <= tile // multiple * multiple:
            assert len(found) == 1


@pytest.mark.parametrize(("tile", "margin"), [(256, 128), (255, 100), (31, 0), (0, 0), (64, 32), (320, 129)])
def test_tiles_that_would_keep_nothing_are_refused(tile: int, margin: int) -> None:
    with pytest.raises(ValueError, match="longer than two margins"):
        cuts(1000, tile, margin, 32)


def _padded(image: np.ndarray, multiple: int) -> torch.Tensor:
    height, width = (-(-side // multiple) * multiple for side in image.shape[:2])
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = PAD
    canvas[: image.shape[0], : image.shape[1]] = image
    return torch.from_numpy(canvas.transpose(2, 0, 1)[None].astype(np.float64) - 110)


def _network(multiple: int, outputs: int) -> torch.nn.Module:
    """Two convolutions of 3 x 3, blocks of `multiple` pixels, one more: sees 2 + multiple pixels beyond a block.

    Whole numbers all along (and a power of two to divide by): sums are exact, whatever their order.
    """
    layers = [torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 6, 3, padding=1)]
    layers += [torch.nn.AvgPool2d(multiple), torch.nn.ReLU(), torch.nn.Conv2d(6, outputs, 3, padding=1)]
    network = torch.nn.Sequential(*layers).double().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(torch.randint(-3, 4, parameter.shape))
    return network


@pytest.mark.parametrize("size", [(300, 500), (257, 64), (64, 641), (31, 33), (128, 128)])
@pytest.mark.parametrize("multiple", [8, 16])
def test_a_density_of_a_small_field_is_that_of_one_pass(size: tuple[int, int], multiple: int) -> None:
    network = _network(multiple, 1)
    passes = []

    def whole(image: np.ndarray) -> Found:
        passes.append(image.shape[:2])
        return Found(network(_padded(image, multiple))[0, 0].abs().numpy().astype(np.float32), None, multiple)

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = whole(image)
    passes.clear()
    found = stitched(whole, image, 128, 2 * multiple + 2, multiple)
    assert max(max(shape) for shape in passes) <= 128
    assert found.density.dtype == np.float32
    np.testing.assert_array_equal(found.density, expected.density)
    if max(size) > 300:  # with too little context it is not: the test can fail
        assert not np.array_equal(stitched(whole, image, 128, 0, multiple).density, expected.density)


@pytest.mark.parametrize("size", [(300, 500), (64, 641)])
def test_proposals_of_a_small_field_are_those_of_one_pass_in_their_order(size: tuple[int, int]) -> None:
    """Also those that point far out of their cell, over the cuts."""
    stride, per_cell = 8, 4
    network = _network(stride, 3 * per_cell)

    def whole(image: np.ndarray) -> Found:
        out = network(_padded(image, stride))[0].numpy()
        height, width = out.shape[1:]
        values = out.reshape(per_cell, 3, height, width).transpose(2, 3, 0, 1)
        rows, columns = np.mgrid[:height, :width]
        centres = np.stack([columns, rows], axis=2)[:, :, None] * float(stride) + stride / 2
        values = values / (1e3 + np.abs(values))
        points = (centres + 40 * values[..., :2]).reshape(-1, 2)
        scores = (values[..., 2] / 2 + 0.5).ravel()
        return Found(None, points[scores >= POINT_SCORE], stride, points, scores)

    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = whole(image)
    found = stitched(whole, image, 128, 2 * stride + 2, stride)
    assert 0 < len(expected.points) < len(expected.proposals)
    np.testing.assert_allclose(found.proposals, expected.proposals, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_allclose(found.points, expected.points, rtol=0, atol=1e-9)
