"""What holds for every localizer, whatever it reads and however it searches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from losses.discovery import UnknownNameError
from runners import localizers
from runners.localizers import Field, NoThresholdError
from runners.localizers.base import at_least
from tests.runners.localizers.fields import SIZE, build, check, field, lattice, nothing

NAMES = localizers.names()
DENSITY = [name for name in NAMES if localizers.load(name).reads == "density"]
POINTS = [name for name in NAMES if localizers.load(name).reads == "points"]
CHOOSING = [name for name in NAMES if localizers.load(name).chooses]
LM = [("lm", {"rule": rule, "refine": refine}) for rule in ("gl", "steerer", "fidtm") for refine in (False, True)]
ALL = LM + [(name, {}) for name in NAMES if name != "lm"]
OF_DENSITY = [(name, params) for name, params in ALL if name in DENSITY]

every = pytest.mark.parametrize(
    ("name", "params"), ALL, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)
every_density = pytest.mark.parametrize(
    ("name", "params"), OF_DENSITY, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)


def test_the_localizers_are_there() -> None:
    assert {"lm", "proposals"} <= set(NAMES)
    assert all(localizers.load(name).reference for name in NAMES)


@every
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_isolated_people_are_found_within_half_a_stride(name: str, params: dict, stride: int) -> None:
    people = lattice()[::2] if stride > 1 else lattice((96, 128))
    size = SIZE if stride > 1 else (96, 128)
    given = field(name, people, stride=stride, size=size, masses=np.ones(len(people)))
    found = build(name, **params)(given)
    check(found, given)
    assert len(found.points) == len(people)
    distance = cdist(people, found.points, "chebyshev")
    error = distance[linear_sum_assignment(distance)]
    near = error <= stride / 2 + 1e-9
    # What begins at random places may end in a local optimum, with two points at one person and none at another.
    assert near.all() if localizers.load(name).chooses else near.mean() > 0.6


@every
def test_a_lone_person_at_every_place_of_a_cell(name: str, params: dict) -> None:
    for dx, dy in np.random.default_rng(1).uniform(0, 8, (20, 2)):
        person = np.array([[96 + dx, 64 + dy]])
        found = build(name, **params)(field(name, person)).points
        assert abs(found - person).max() <= 4 + 1e-9


@every
def test_the_surer_the_earlier(name: str, params: dict) -> None:
    """Heads in the middles of cells, so that a blob's height is its mass."""
    people = np.array([[28.0, 28.0], [100.0, 60.0], [180.0, 100.0], [60.0, 140.0]])
    masses = np.array([0.7, 1.0, 0.8, 0.9])
    found = build(name, **params)(field(name, people, masses=masses))
    if not localizers.load(name).chooses:
        assert len(found.points) == 4
        return
    np.testing.assert_allclose(found.points, people[np.argsort(-masses)], atol=0.5)
    assert len(set(found.scores)) == 4


@every
def test_the_same_again(name: str, params: dict) -> None:
    given = field(name, lattice())
    first, again, other = build(name, **params), build(name, **params), build(name, **params)
    other(nothing(name))  # a localizer keeps no state
    for located in (again(given), other(given), first(given)):
        np.testing.assert_array_equal(located.points, first(given).points)
        np.testing.assert_array_equal(located.scores, first(given).scores)


@every
def test_nothing_given_is_changed(name: str, params: dict) -> None:
    given = field(name, lattice())
    for array in given[2:]:
        if array is not None:
            array.flags.writeable = False
    build(name, **params)(given)


@every
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (48, 64), (45, 61)])
def test_nobody(name: str, params: dict, size: tuple[int, int]) -> None:
    found = build(name, **params)(nothing(name, size=size))
    assert found.points.shape == (0, 2)
    assert found.scores.shape == (0,)


@every_density
@pytest.mark.parametrize("size", [(8, 8), (7, 3), (1, 1)])
def test_a_map_of_one_cell(name: str, params: dict, size: tuple[int, int]) -> None:
    given = Field(8, size, density=np.array([[64 / (size[0] * size[1])]]))  # one person inside the image
    found = build(name, **params)(given)
    check(found, given)
    np.testing.assert_allclose(found.points, [[min(4, size[1]), min(4, size[0])]], atol=0.5)


@every_density
@pytest.mark.parametrize("shape", [(1, 9), (9, 1)])
def test_a_single_row(name: str, params: dict, shape: tuple[int, int]) -> None:
    density = np.zeros(9)
    density[4] = 1.0
    given = Field(4, (4 * shape[0], 4 * shape[1]), density=density.reshape(shape))
    np.testing.assert_allclose(build(name, **params)(given).points, [[4 * shape[1] / 2, 4 * shape[0] / 2]], atol=0.5)


@every_density
@pytest.mark.parametrize("stride", [1, 2, 3, 8])
def test_a_flat_map(name: str, params: dict, stride: int) -> None:
    """Not a person a pixel: one place where the height decides, the count where the sum does."""
    given = Field(stride, (12 * stride, 16 * stride), density=np.full((12, 16), 5 / (12 * 16)))
    found = build(name, **params)(given)
    check(found, given)
    if localizers.load(name).chooses:
        expected = [] if params.get("rule") == "fidtm" and stride == 8 else [[8.0 * stride, 6.0 * stride]]  # too low
        assert found.points.tolist() == expected
    else:
        assert len(found.points) == 5


@every_density
def test_what_does_not_choose_finds_the_sum(name: str, params: dict) -> None:
    if localizers.load(name).chooses:
        pytest.skip("has a threshold")
    for total, expected in ((0.4, 0), (0.6, 1), (7.3, 7), (7.6, 8)):
        density = np.random.default_rng(3).random((12, 16))
        given = Field(8, (96, 128), density=density * total / density.sum())
        assert len(build(name, **params)(given).points) == expected


@every
def test_images_that_are_no_squares(name: str, params: dict) -> None:
    for size in ((64, 320), (320, 64)):
        people = lattice(size)
        given = field(name, people, size=size)
        found = build(name, **params)(given)
        check(found, given)
        nearest = cdist(people, found.points, "chebyshev").min(1)
        assert nearest.max() <= 4 + 1e-9


@every
def test_the_padding_is_no_image(name: str, params: dict) -> None:
    """A person in the padding is not found and changes nothing; the network's map is larger than the image."""
    people = np.array([[50.0, 40.0], [110.0, 80.0]])
    alone = field(name, people, size=(100, 150), masses=np.array([1.0, 1.0]))
    more = np.vstack([people, [[230.0, 60.0], [60.0, 170.0]]])
    padded = field(name, more, masses=np.ones(4))._replace(size=(100, 150))
    expected, found = build(name, **params)(alone), build(name, **params)(padded)
    check(found, padded)
    assert len(found.points) == len(expected.points) == 2
    np.testing.assert_allclose(found.points, expected.points, atol=0.1)


@every
@pytest.mark.parametrize("size", [(104, 152), (101, 149)])
def test_people_at_the_border_stay_inside(name: str, params: dict, size: tuple[int, int]) -> None:
    height, width = size
    people = np.array([[0, 0], [width, 0], [0, height], [width, height], [75, 0.5], [width - 0.5, 50]], dtype=float)
    given = field(name, people, size=size)
    found = build(name, **params)(given)
    check(found, given)
    if localizers.load(name).chooses:
        assert len(found.points) == 6
        assert cdist(people, found.points, "chebyshev").min(1).max() <= 8
    elif size == (104, 152):  # no cell is partly in the padding
        assert len(found.points) == 6


@every
def test_thousands_of_people(name: str, params: dict) -> None:
    size = (768, 1024) if localizers.load(name).chooses else (384, 704)
    people = lattice(size, apart=16)
    given = field(name, people, size=size, stride=4)
    found = build(name, **params)(given)
    check(found, given)
    assert len(people) > 1000
    assert abs(len(found.points) - len(people)) <= 0.05 * len(people)  # those nearer than two cells may be one blob
    assert np.median(cdist(people, found.points).min(1)) <= 2.5


@every
def test_single_precision_is_enough(name: str, params: dict) -> None:
    """The same numbers as float32 and as float64 are the same input."""
    given = field(name, lattice())
    low = given._replace(**{k: v.astype(np.float32) for k, v in _arrays(given).items()})
    high = given._replace(**{k: v.astype(np.float64) for k, v in _arrays(low).items()})
    found, expected = build(name, **params)(low), build(name, **params)(high)
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.scores, expected.scores)


@every
def test_moved_by_whole_cells(name: str, params: dict) -> None:
    if not localizers.load(name).chooses:
        pytest.skip("begins at random places")
    cells = np.array([4, 4]) if params.get("rule") == "steerer" else np.array([3, 2])  # its patches stay where they are
    people = lattice((128, 192)) + 8.0
    still = build(name, **params)(field(name, people))
    moved = build(name, **params)(field(name, people + 8 * cells))
    np.testing.assert_allclose(moved.points, still.points + 8 * cells, atol=1e-6)
    np.testing.assert_allclose(moved.scores, still.scores, rtol=1e-9)


@pytest.mark.parametrize("name", CHOOSING)
def test_a_threshold_keeps_the_surest(name: str) -> None:
    given = field(name, lattice())
    candidates = localizers.build(name).candidates(given)
    rest = len(candidates.points)
    for threshold in (-1.0, *np.sort(candidates.scores), candidates.scores[0] + 1e-3):
        found = localizers.build(name, threshold=float(threshold))(given)
        assert len(found.points) <= rest
        rest = len(found.points)
        assert rest == np.sum(candidates.scores.astype(np.float32) >= np.float32(threshold))  # as they are kept
        np.testing.assert_array_equal(found.points, candidates.points[:rest])
        np.testing.assert_array_equal(found.points, at_least(candidates, threshold).points)
    assert rest == 0


@pytest.mark.parametrize("name", NAMES)
def test_thresholds_that_are_none(name: str) -> None:
    given = field(name, lattice())
    if not localizers.load(name).chooses:
        with pytest.raises(ValueError, match="no threshold"):
            localizers.build(name, threshold=0.5)
        return
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            localizers.build(name, threshold=wrong)
    localizer = localizers.build(name)
    if localizer.published is None:
        with pytest.raises(NoThresholdError):
            localizer(given)
    else:
        expected = at_least(localizer.candidates(given), localizer.published)
        np.testing.assert_array_equal(localizer(given).points, expected.points)


@every
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(name: str, params: dict, wrong: float) -> None:
    given = field(name, lattice())
    for key, array in _arrays(given).items():
        spoiled = array.copy()
        spoiled[(1,) * array.ndim] = wrong
        with pytest.raises(ValueError, match="NaN or infinite"):
            build(name, **params)(given._replace(**{key: spoiled}))


@every
def test_values_below_zero(name: str, params: dict) -> None:
    given = field(name, lattice())
    key = "density" if given.density is not None else "scores"
    spoiled = _arrays(given)[key].copy()
    spoiled[(1,) * spoiled.ndim] = -0.25
    with pytest.raises(ValueError, match=r"-0\.25"):
        build(name, **params)(given._replace(**{key: spoiled}))


@every_density
def test_wrong_shapes_of_densities(name: str, params: dict) -> None:
    for density, words in (
        (np.ones((1, 24, 32)), [r"\[1, 24, 32\]", r"\[h, w\]"]),
        (np.ones(24), [r"\[24\]", r"\[h, w\]"]),
        (np.ones((24, 31)), ["24 x 32", "24 x 31"]),
        (np.ones((12, 32)), ["24 x 32", "12 x 32"]),
    ):
        for word in words:
            with pytest.raises(ValueError, match=word):
                build(name, **params)(Field(8, SIZE, density=density))


@pytest.mark.parametrize("name", POINTS)
def test_wrong_shapes_of_proposals(name: str) -> None:
    for points, scores, words in (
        (np.ones((5, 3)), np.ones(5), [r"\[5, 3\]", r"\[q, 2\]"]),
        (np.ones((5, 2)), np.ones(4), [r"\[5, 2\]", r"\[4\]"]),
        (np.ones((5, 2)), np.ones((5, 1)), [r"\[5, 2\]", r"\[5, 1\]"]),
    ):
        for word in words:
            with pytest.raises(ValueError, match=word):
                build(name)(Field(8, SIZE, points=points, scores=scores))


@every
def test_a_frame_that_is_none(name: str, params: dict) -> None:
    given = field(name, lattice())
    for wrong in ({"stride": 0}, {"size": (0, 256)}):
        with pytest.raises(ValueError, match="at least 1"):
            build(name, **params)(given._replace(**wrong))


@every
def test_the_other_kind_of_field(name: str, params: dict) -> None:
    """What is missing is named, and what to use instead."""
    other = POINTS[0] if name in DENSITY else DENSITY[0]
    with pytest.raises(ValueError, match="use the localizer"):
        build(name, **params)(field(other, lattice()))


@pytest.mark.parametrize("name", NAMES)
def test_names_and_parameters_that_are_not_known(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean .*{name}"):
        localizers.build(name + "s")
    with pytest.raises(TypeError, match="Did you mean threshold"):
        localizers.build(name, treshold=0.5)


def _arrays(given: Field) -> dict[str, np.ndarray]:
    return {key: value for key, value in given._asdict().items() if isinstance(value, np.ndarray)}
