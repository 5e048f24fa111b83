"""Nearest points, Gaussians, dots and spacing against brute force, scipy and known answers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import spatial

from losses import geometry

DTYPES = [torch.float32, torch.float64]


def brute(points: torch.Tensor, cells: tuple[int, int], stride: int, offset: float = 0.5):
    """Owner and distance by comparing all pairs in float64, the first of the least."""
    x = torch.tensor([[(c + offset) * stride, (r + offset) * stride] for r in range(cells[0]) for c in range(cells[1])])
    squared = ((x.double()[:, None] - points.double()[None]) ** 2).sum(-1)
    least = squared.min(1, keepdim=True).values
    first = torch.tensor([row.nonzero()[0, 0].item() for row in squared == least])
    return first.view(cells), least.sqrt().view(cells)


def test_cell_axis() -> None:
    like = torch.zeros((), dtype=torch.float64)
    assert geometry.cell_axis(3, 8, like).tolist() == [4.0, 12.0, 20.0]
    assert geometry.cell_axis(3, 8, like, offset=7 / 16).tolist() == [3.5, 11.5, 19.5]
    assert geometry.cell_axis(3, 1, like).dtype == torch.float64


def test_cell_centres_run_along_rows() -> None:
    centres = geometry.cell_centres((2, 3), 2, torch.zeros(()))
    assert centres.tolist() == [[1, 1], [3, 1], [5, 1], [1, 3], [3, 3], [5, 3]]


# Multiples of half a stride make exact ties, and small ranges make duplicates.
lattice = st.lists(st.tuples(st.integers(-4, 20), st.integers(-4, 20)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(lattice, st.sampled_from(DTYPES), st.sampled_from([1, 2, 8]), st.sampled_from([0.5, 0.4375, 1.0]))
def test_nearest_with_ties_and_duplicates(places, dtype, stride, offset) -> None:
    points = torch.tensor(places, dtype=dtype) * (stride / 2)
    nearest = geometry.nearest_point(points, (5, 7), stride, offset=offset)
    owner, distance = brute(points, (5, 7), stride, offset)
    assert torch.equal(nearest.owner, owner)
    torch.testing.assert_close(nearest.distance, distance.to(dtype))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(DTYPES), st.integers(1, 60))
def test_tree_and_tiles_agree(seed, dtype, count) -> None:
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 90 - 10
    centres = geometry.cell_centres((9, 7), 8, points.double())
    tree = geometry._nearest_tree(points.double(), centres)
    tiles = geometry._nearest_tiled(points.double(), centres)
    assert torch.equal(tree[0], tiles[0])
    torch.testing.assert_close(tree[1], tiles[1], rtol=1e-14, atol=1e-14)


def test_tiles_are_cut_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randint(0, 60, (30, 2), generator=torch.Generator().manual_seed(4)).double()
    centres = geometry.cell_centres((9, 7), 8, points)
    whole = geometry._nearest_tiled(points, centres)
    monkeypatch.setattr(geometry, "_TILE", 100)
    assert all(torch.equal(a, b) for a, b in zip(whole, geometry._nearest_tiled(points, centres), strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_points_on_a_circle(dtype: torch.dtype) -> None:
    """36 integer points are exactly 65 pixels from the centre of cell (8, 8): the lowest index owns it."""
    circle = [(x, y) for x in range(-65, 66) for y in range(-65, 66) if x * x + y * y == 65 * 65]
    assert len(circle) == 36
    points = torch.tensor(circle, dtype=dtype).flip(0) + 68
    nearest = geometry.nearest_point(points, (17, 17), 8)
    assert nearest.owner[8, 8] == 0
    assert nearest.distance[8, 8] == 65
    assert torch.equal(nearest.owner, brute(points, (17, 17), 8)[0])


def test_one_point_owns_all() -> None:
    nearest = geometry.nearest_point(torch.tensor([[4.0, 4.0]]), (2, 2), 8)
    assert nearest.owner.tolist() == [[0, 0], [0, 0]]
    torch.testing.assert_close(nearest.distance, torch.tensor([[0.0, 8.0], [8.0, 8 * math.sqrt(2)]]))


def test_nearest_carries_no_gradient() -> None:
    points = torch.rand(3, 2, requires_grad=True)
    assert not geometry.nearest_point(points, (2, 2), 8).distance.requires_grad


def test_nearest_of_nobody() -> None:
    with pytest.raises(ValueError, match="at least one point"):
        geometry.nearest_point(torch.zeros(0, 2), (2, 2), 8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 400), st.sampled_from([1, 4, 16]))
def test_axis_gaussians_factorise(seed, variance, stride) -> None:
    points = torch.rand(5, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 60
    rows, columns = geometry.axis_gaussians(points, (4, 6), stride, variance)
    centres = geometry.cell_centres((4, 6), stride, points)
    squared = ((centres - points[:, None]) ** 2).sum(-1)
    expected = torch.exp(-squared / (2 * variance)).view(5, 4, 6)
    torch.testing.assert_close(rows[:, :, None] * columns[:, None], expected, rtol=1e-10, atol=1e-300)


def test_axis_gaussians_with_a_variance_each() -> None:
    points, variances = torch.rand(3, 2).double() * 20, torch.tensor([1.0, 4.0, 9.0]).double()
    rows, columns = geometry.axis_gaussians(points, (4, 6), 4, variances)
    for k in range(3):
        row, column = geometry.axis_gaussians(points[k : k + 1], (4, 6), 4, variances[k].item())
        torch.testing.assert_close(rows[k], row[0])
        torch.testing.assert_close(columns[k], column[0])


def test_dots_are_pixels() -> None:
    points = torch.tensor([[7.9, 0.0], [8.0, 0.0], [15.99, 8.0], [16.0, 16.0], [-3.0, 99.0]])
    assert geometry.dots(points, (2, 2), 8, (16, 16)).tolist() == [[1, 1], [1, 2]]


def test_dots_rounded_half_to_even() -> None:
    points = torch.tensor([[7.5, 0.5], [6.5, 0.0], [15.9, 15.9]])  # to pixels (8, 0), (6, 0) and (15, 15)
    assert geometry.dots(points, (2, 2), 8, (16, 16), rounding="even").tolist() == [[1, 1], [0, 1]]


@given(st.integers(0, 200), st.sampled_from(["floor", "even"]), st.sampled_from([(16, 24), (13, 21)]))
def test_dots_sum_to_the_count(count, rounding, size) -> None:
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(count)) * 40 - 8
    cells = (-(-size[0] // 8), -(-size[1] // 8))
    assert geometry.dots(points, cells, 8, size, rounding=rounding).sum() == count


@pytest.mark.parametrize("count", [2, 3, 4, 50])
def test_spread_against_scipy(count: int) -> None:
    points = torch.rand(count, 2).double() * 100
    gaps = spatial.distance.squareform(spatial.distance.pdist(points.numpy()))
    gaps.sort(axis=1)
    expected = gaps[:, 1 : min(4, count)].mean(1)
    torch.testing.assert_close(geometry.spread(points), torch.from_numpy(expected))


def test_spread_of_few() -> None:
    assert geometry.spread(torch.zeros(0, 2)).shape == (0,)
    assert geometry.spread(torch.zeros(1, 2)).tolist() == [math.inf]
    assert geometry.spread(torch.zeros(5, 2)).tolist() == [0.0] * 5
