"""Pictures of predictions: where the colours, rings and texts are, and what they mean."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps

from benchmark.prediction.draw import Drawing, PerArea, draw, nice, per_area, top_of

GREY = np.full((200, 300, 3), 128, np.uint8)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, 1), (-1.0, 1), (float("nan"), 1), (float("inf"), 1), (1.0, 1), (1.01, 2), (6.5, 8), (8.5, 10), (101, 200),
     (0.031, 0.04), (10.0, 10)],
)  # fmt: skip
def test_the_end_of_the_scale_is_a_round_number(value: float, expected: float) -> None:
    assert nice(value) == pytest.approx(expected)


@pytest.mark.parametrize(("stride", "scale"), [(1, (1.0, 1.0)), (8, (1.0, 1.0)), (8, (0.5, 0.25)), (2, (2.0, 2.0))])
def test_the_density_is_in_people_per_area_of_the_file(stride: int, scale: tuple[float, float]) -> None:
    """A uniform crowd of 30 people on 1200 x 1000 pixels: 0.25 in each square of 100 pixels."""
    cells = round(1000 * scale[1]) // stride, round(1200 * scale[0]) // stride
    shown = per_area(np.full(cells, 30 / (cells[0] * cells[1])), stride, scale, (1000, 1200))
    np.testing.assert_allclose(
        shown.values, 0.25 * 1000 * 1200 / (cells[0] * cells[1] * np.prod(shown.cell)), rtol=1e-4
    )
    assert shown.cell == (stride / scale[1], stride / scale[0])


def test_smoothing_keeps_people_and_their_place() -> None:
    density = np.zeros((90, 120))
    density[40, 70] = 3
    shown = per_area(density, 8, (1.0, 1.0), (720, 960))
    assert shown.values.sum() * (8 * 8) / 100**2 == pytest.approx(3, rel=1e-4)
    assert np.unravel_index(shown.values.argmax(), shown.values.shape) == (40, 70)
    assert shown.values.max() < 3 * 100**2 / 64


def test_the_scale_ends_where_most_people_are_reached() -> None:
    values = np.zeros((10, 100), np.float32)
    values[0] = 1  # 100 people
    values[1, 0] = 4  # and 4 in one place: less than 5 in a hundred
    assert top_of(PerArea(values, (1.0, 1.0))) == 1
    values[1, :2] = 4  # now 8
    assert top_of(PerArea(values, (1.0, 1.0))) == 4
    assert top_of(PerArea(np.zeros((3, 3), np.float32), (8.0, 8.0))) == 1


def test_dense_places_have_the_colour_of_the_map_and_empty_ones_the_image() -> None:
    values = np.zeros((25, 38), np.float32)
    values[2:8, 20:30] = 50
    picture = draw(GREY, Drawing(("7 people",), PerArea(values, (8.0, 8.0))), top=10.0).astype(int)
    full = 255 * np.array(colormaps["inferno"](1.0)[:3])
    assert np.abs(picture[40, 200] - full).max() < 40
    assert np.ptp(picture[40, 20]) == 0  # grey as before, but darker
    assert 60 < picture[40, 20, 0] < 128


def test_colours_stand_where_the_density_is() -> None:
    """The last cells reach beyond the image: 300 x 200 pixels in cells of 64."""
    values = np.zeros((4, 5), np.float32)
    values[3, 4] = 10  # from (256, 192): its middle is (288, 224), out of sight; its light falls on the corner
    with_light = draw(GREY, Drawing((), PerArea(values, (64.0, 64.0))), top=10.0)
    without = draw(GREY, Drawing((), PerArea(0 * values, (64.0, 64.0))), top=10.0)
    changed = np.argwhere((with_light != without).any(axis=2))
    assert changed[:, 0].min() > 96  # two cells around, as far as bicubic interpolation reaches
    assert changed[:, 1].min() > 160


def test_rings_are_around_their_points_and_leave_the_head_visible() -> None:
    points = np.array([[100.5, 50.5], [0.0, 0.0], [300.0, 100.0]])
    picture = draw(GREY, Drawing((), None, points)).astype(int)
    changed = np.argwhere((picture != 128).any(axis=2)) + 0.5
    nearest = np.sqrt(((changed[:, None, ::-1] - points) ** 2).sum(axis=2)).min(axis=1)
    assert nearest.min() >= 1
    assert nearest.max() < 9
    assert picture[50, 100].tolist() == [128] * 3
    ring = picture[50, 97:105]
    assert (ring[:, 2] > ring[:, 0] + 100).any()


def test_rings_of_close_people_are_smaller() -> None:
    def area(gap: float) -> int:
        rows = draw(
            np.full((900, 900, 3), 128, np.uint8), Drawing((), None, np.array([[200.0, 200], [200 + gap, 200]]))
        )
        return int((rows != 128).any(axis=2).sum())

    assert area(12) < area(40) == area(80)


def test_large_images_shrink_and_others_keep_their_size() -> None:
    image = np.random.default_rng(0).integers(0, 255, (1500, 3000, 3), dtype=np.uint8)
    before = image.copy()
    drawing = Drawing(("1 person",), None, np.array([[2000.0, 500.0]]))
    assert draw(image, drawing).shape == (1000, 2000, 3)
    assert draw(image, drawing, longest=600).shape == (300, 600, 3)
    assert draw(image, drawing, longest=None).shape == (1500, 3000, 3)
    assert (image == before).all()
    shrunk = draw(np.full((1500, 3000, 3), 128, np.uint8), drawing._replace(lines=()), longest=300)
    where = np.argwhere((shrunk != 128).any(axis=2)).mean(axis=0) + 0.5
    np.testing.assert_allclose(where, [50, 200], atol=0.5)


@pytest.mark.parametrize("size", [(1, 1), (5, 5), (60, 4000), (4000, 60), (70, 70), (768, 1024), (1024, 400)])
def test_text_and_legend_fit_into_pictures_of_any_size(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    density = per_area(np.ones([max(1, -(-side // 8)) for side in size]), 8, (1.0, 1.0), size)
    lines = "12345.6 people", "12345 points · lm[rule=steerer,threshold=0.392]", "100:00.00"
    picture = draw(image, Drawing(lines, density, np.zeros((0, 2))))
    factor = min(1, 2000 / max(size))
    assert picture.shape == (round(size[0] * factor), round(size[1] * factor), 3)


def test_text_is_at_the_bottom_left_and_the_legend_opposite() -> None:
    large = np.full((768, 1024, 3), 200, np.uint8)
    bare = draw(large, Drawing(()))
    text = np.argwhere((draw(large, Drawing(("12 people",))) != bare).any(axis=2))
    assert text[:, 0].min() > 600
    assert text[:, 1].max() < 400
    density = PerArea(np.zeros((96, 128), np.float32), (8.0, 8.0))
    legend = draw(large, Drawing((), density))[600:, 600:]
    assert len(np.unique(legend.reshape(-1, 3), axis=0)) > 200  # the colours
    assert len(np.unique(draw(large, Drawing((), density))[:600].reshape(-1, 3), axis=0)) == 1
