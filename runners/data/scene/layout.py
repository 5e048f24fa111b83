"""Where everything stands: the camera, the ground, the crowd and what hides whom. Exact arithmetic only.

The ground is a plane seen by a camera without roll. A figure at depth z (metres) is drawn at s = f / z pixels per
metre, and s is linear in the row of its feet: s = (row - horizon) / camera height. Towards the horizon people thus get
smaller, and because they are spread over the *ground*, denser in the picture. Which scales are seen follows from how
many people there are: a large crowd is seen from afar.

All of it is our design. No number here depends on the machine: positions are made by additions, products, quotients
and roots, which IEEE 754 rounds exactly, and head centres are put on half pixels, where their sprites are drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runners.data.scene.figures import FEET, HEAD_HALF, LOOKS
from runners.data.scene.stream import Stream

__all__ = ["MIN_VISIBLE", "SIZES", "Camera", "Scene", "capacity", "plan"]

SIZES = np.array([5, 5.5, 6, 6.5, 7, 8, 9, 10, 11, 12.5, 14, 16, 18, 20, 22.5, 25, 28])
"""Heights of heads that are drawn, pixels."""
MIN_VISIBLE = 0.35
"""A head that nearer figures hide by more than this leaves out is not in the scene: annotators would not see it."""

_HEAD = 0.25  # metres
_EYE = FEET * _HEAD  # height of a head's centre above the ground, metres
_PEOPLE_PER_M2 = 1.7  # a dense crowd; more is reached only within clusters
_EMPTY = 0.05  # share of images without people

_FACINGS = ("front", "back", "side")
_BY_FACING = {f: np.array([i for i, look in enumerate(LOOKS) if look.facing == f]) for f in _FACINGS}
_THINGS = np.array([i for i, look in enumerate(LOOKS) if not look.person])
_SOLID = np.zeros((len(LOOKS), 3, 4))
for _i, _look in enumerate(LOOKS):
    _SOLID[_i, : len(_look.solid)] = _look.solid
_U, _V = (a.ravel() * 0.9 for a in np.meshgrid([-0.75, -0.25, 0.25, 0.75], [-0.8, -0.4, 0.0, 0.4, 0.8]))
_INSIDE = _U * _U + _V * _V <= 0.81
_PROBE_X, _PROBE_Y = _U[_INSIDE] * HEAD_HALF[0], _V[_INSIDE] * HEAD_HALF[1]
"""Points of a head, heads, at which it is asked what is seen of it."""


class Camera(NamedTuple):
    """How the ground is seen.

    Attributes:
        horizon: Row of the horizon; usually above the image, so negative.
        height: Of the camera above the ground, metres.
        focal: Focal length, pixels.
        far: Pixels per metre where the crowd ends.
        near: Pixels per metre of the nearest people whose heads are in the image.
    """

    horizon: float
    height: float
    focal: float
    far: float
    near: float


class Scene(NamedTuple):
    """Everything that stands in one image, the farthest first.

    Attributes:
        image_size: (H, W), pixels.
        camera: How the ground is seen.
        look: int [n], index into `LOOKS`.
        mirrored: bool [n].
        center: float64 [n, 2], (x, y) of the head's centre (of things: of the place where a head would be), pixels.
        size: float64 [n], height of the head, pixels.
        person: bool [n].
        visible: float64 [n], the share of the head that nearer figures leave free.
    """

    image_size: tuple[int, int]
    camera: Camera
    look: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    center: NDArray[np.float64]
    size: NDArray[np.float64]
    person: NDArray[np.bool_]
    visible: NDArray[np.float64]

    @property
    def points(self) -> NDArray[np.float64]:
        """Centres of the heads, float64 [n, 2], (x, y)."""
        return self.center[self.person]

    @property
    def boxes(self) -> NDArray[np.float64]:
        """Boxes of the heads within the image, float64 [n, 4], x1, y1, x2, y2."""
        half = self.size[self.person, None] * np.array(HEAD_HALF)
        height, width = self.image_size
        corners = np.concatenate([self.points - half, self.points + half], axis=1)
        return np.clip(corners, 0, np.array([width, height, width, height], float))

    def without(self, index: int) -> Scene:
        """The same scene less one figure."""
        keep = np.arange(len(self.look)) != index
        return self._replace(**{name: getattr(self, name)[keep] for name in self._fields[2:]})


def capacity(image_size: tuple[int, int]) -> int:
    """The most people an image may ask for: one in 150 pixels, and 2000, because memory grows with the square."""
    return min(image_size[0] * image_size[1] // 150, 2000)


def plan(stream: Stream, image_size: tuple[int, int], people: tuple[int, int]) -> Scene:
    """Plans one scene.

    Args:
        stream: The scene's random numbers.
        image_size: (H, W), pixels.
        people: The fewest and the most people of an image that is not empty; the number is log-uniform between them.
            One image in twenty is empty. A scene that is too crowded has a few less, because hidden heads are left out.
    """
    low, high = people
    wanted = min(high, int(stream.geometric(low, high + 1)))
    empty = stream.chance(_EMPTY)
    camera = _camera(stream, image_size, wanted)
    things = int(stream.below(6, 1)[0]) + 2 * stream.chance(0.4)
    x, s, facing = _ground(stream, image_size, camera, wanted + things)
    return _figures(stream, image_size, camera, x, s, facing, 0 if empty else wanted, things)


def _camera(stream: Stream, image_size: tuple[int, int], people: int) -> Camera:
    """A camera from which `people` can be seen side by side."""
    height, width = image_size
    first = stream.between(0.03, 0.42) * height  # the row of the farthest heads
    room = (height - first) * width / max(people, 1)
    largest = float(np.clip(0.85 * np.sqrt(room), SIZES[0] * 1.5, SIZES[-1]))
    near = stream.geometric(max(SIZES[0] * 1.5, largest * 0.4), largest * 1.0001) / _HEAD
    far = max(SIZES[0] / _HEAD, near / stream.between(1.3, 3.5))
    rise = (height - first) / (near - far)  # of the camera above the heads, metres
    horizon = first - far * rise
    shallow = (height - horizon) / stream.between(0.3, 0.75)
    roomy = 2 * people / (_PEOPLE_PER_M2 * width * (1 / (far * far) - 1 / (near * near)))
    return Camera(horizon, rise + _EYE, max(shallow, roomy), far, near)


# ---------------------------------------------------------------------------------------------------------------------
# The crowd on the ground


def _ground(
    stream: Stream, image_size: tuple[int, int], camera: Camera, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Candidates in random order, some more than wanted and no two closer than bodies allow.

    Returns:
        Column of the feet (pixels), scale there (pixels per metre), facing (0 front, 1 back, 2 left, 3 right).
    """
    width = image_size[1]
    tries = 2 * count + 16
    weights = {"scattered": 3.0, "groups": 3.0, "rows": 1.5, "ring": 1.0, "queue": 1.0}
    kind = stream.pick(weights)
    x, z, facing = _scattered(stream, width, camera, tries)
    if kind != "scattered":
        shape = {"groups": _groups, "rows": _rows, "ring": _ring, "queue": _queue}[kind]
        x2, z2, facing2 = shape(stream, width, camera, tries)
        loose = stream.uniform(tries) < stream.between(0.03, 0.3)
        x, z, facing = (np.where(loose, a, b) for a, b in ((x, x2), (z, z2), (facing, facing2)))
    spare = _scattered(stream, width, camera, count)  # where the pattern is full, the rest stand anywhere
    x, z, facing = (np.concatenate(pair) for pair in zip((x, z, facing), spare, strict=True))
    s = camera.focal / z
    column = 0.5 * width + x * s
    seen = (s >= camera.far) & (s <= camera.near * 1.2) & (column > -4) & (column < width + 4)
    x, z, s, column, facing = (a[seen] for a in (x, z, s, column, facing))
    free = _apart(x, z, 0.5 if count < 60 else 0.38)
    return column[free], s[free], facing[free]


def _apart(x: NDArray[np.float64], z: NDArray[np.float64], gap: float) -> NDArray[np.bool_]:
    """Keeps, in order, each place that is at least `gap` metres from all places kept before it."""
    x, z = x.astype(np.float32), z.astype(np.float32)
    dx, dz = x[:, None] - x[None, :], z[:, None] - z[None, :]
    dx *= dx
    dz *= dz
    dx += dz
    close = dx < np.float32(gap * gap)
    blocked = np.zeros(len(x), bool)
    kept = np.zeros(len(x), bool)
    for i in range(len(x)):
        if not blocked[i]:
            kept[i] = True
            blocked |= close[i]
    return kept


def _depths(stream: Stream, camera: Camera, count: int) -> NDArray[np.float64]:
    """Depths that fill the visible ground evenly: its width grows with the depth, so z^2 is uniform."""
    first, last = camera.focal / (camera.near * 1.2), camera.focal / camera.far
    return np.sqrt(first * first + stream.uniform(count) * (last * last - first * first))


def _place(stream: Stream, width: int, camera: Camera) -> tuple[float, float]:
    """One place on the visible ground, not at its margin: x and z in metres."""
    z = float(_depths(stream, camera, 1)[0])
    return stream.between(-0.4, 0.4) * width * z / camera.focal, z


def _attitude(stream: Stream, count: int) -> NDArray[np.int64]:
    """Facings with one that prevails, as in a street or before a stage."""
    main = int(stream.below(4, 1)[0])
    loyal = stream.uniform(count) < stream.between(0.25, 0.95)
    return np.where(loyal, main, stream.below(4, count))


def _scattered(stream: Stream, width: int, camera: Camera, count: int) -> tuple[NDArray, NDArray, NDArray]:
    """Everywhere alike."""
    z = _depths(stream, camera, count)
    return (stream.uniform(count) - 0.5) * width * z / camera.focal, z, _attitude(stream, count)


def _groups(stream: Stream, width: int, camera: Camera, count: int) -> tuple[NDArray, NDArray, NDArray]:
    """Around a few centres; the sum of three uniform numbers is bell-shaped enough and exact."""
    groups = 1 + int(stream.below(6, 1)[0])
    homes = np.array([_place(stream, width, camera) for _ in range(groups)])
    spread = np.array([stream.geometric(0.7, 3.0) for _ in range(groups)])
    which = stream.below(groups, count)
    around = stream.uniform(3, 2, count)
    around = (around[0] + around[1] + around[2] - 1.5) * 1.6 * spread[which] * (1 + count / 400)
    return homes[which, 0] + around[0], homes[which, 1] + around[1], _attitude(stream, count)


def _rows(stream: Stream, width: int, camera: Camera, count: int) -> tuple[NDArray, NDArray, NDArray]:
    """An audience: ranks that are slightly askew, with empty places."""
    x, z, _ = _scattered(stream, width, camera, count)
    pitch, rank = stream.between(0.55, 0.8), stream.between(0.8, 1.2)
    slope = stream.between(-0.15, 0.15)
    x = (np.floor(x / pitch) + 0.5 + 0.2 * (stream.uniform(count) - 0.5)) * pitch
    z = (np.floor(z / rank) + 0.5 + 0.12 * (stream.uniform(count) - 0.5)) * rank + slope * x
    return x, z, np.full(count, int(stream.below(2, 1)[0]))


def _ring(stream: Stream, width: int, camera: Camera, count: int) -> tuple[NDArray, NDArray, NDArray]:
    """Spectators around a free place, looking inwards."""
    home = _place(stream, width, camera)
    inner = stream.between(0.8, 2.2)
    outer = inner + stream.between(0.8, 1.6) * (1 + count / 100)
    u, v = 2 * stream.uniform(2, 4 * count) - 1
    far = u * u + v * v
    ring = np.flatnonzero((far <= 1) & (far * outer * outer >= inner * inner))[:count]
    u, v = np.resize(u[ring], count), np.resize(v[ring], count)
    sideways = np.abs(u) > np.abs(v)
    return home[0] + u * outer, home[1] + v * outer, np.where(sideways, np.where(u > 0, 2, 3), np.where(v > 0, 0, 1))


def _queue(stream: Stream, width: int, camera: Camera, count: int) -> tuple[NDArray, NDArray, NDArray]:
    """Lines of people one behind the other, as many lines as are needed."""
    home, other = np.array(_place(stream, width, camera)), np.array(_place(stream, width, camera))
    along = other - home
    length = float(np.sqrt(along[0] * along[0] + along[1] * along[1])) + 1e-3
    along = along / length
    spots = stream.below(1 + int(length / 0.65), count)
    lanes = stream.below(1 + count // 40, count)
    jitter = 0.16 * (stream.uniform(2, count) - 0.5)
    t, side = 0.65 * spots + jitter[0], 0.9 * lanes + jitter[1]
    facing = (3 if along[0] > 0 else 2) if abs(along[0]) > abs(along[1]) else (1 if along[1] > 0 else 0)
    return home[0] + t * along[0] - side * along[1], home[1] + t * along[1] + side * along[0], np.full(count, facing)


# ---------------------------------------------------------------------------------------------------------------------
# Figures and what is seen of them


def _figures(
    stream: Stream,
    image_size: tuple[int, int],
    camera: Camera,
    column: NDArray[np.float64],
    s: NDArray[np.float64],
    facing: NDArray[np.int64],
    people: int,
    things: int,
) -> Scene:
    """Puts things on the first places and people on the next, and leaves out those that cannot be seen."""
    count = len(column)
    person = np.arange(count) >= things
    build = stream.uniform(count)
    growth = np.where(stream.uniform(count) < 0.06, 0.72, 0.93 + 0.14 * build)  # few children, people of all heights
    ideal = _HEAD * s * np.where(person, growth, 1.0)
    size = SIZES[np.abs(ideal[:, None] - SIZES[None, :]).argmin(axis=1)]
    feet = camera.horizon + camera.height * s
    center = np.stack([_half(column), _half(feet - FEET * size)], axis=1)
    look, mirrored = _looks(stream, facing, person)

    height, width = image_size
    x, y = center.T
    inside = (x > 0) & (x < width) & (y > 0) & (y < height)
    above = (y > 0.03 * height) | ~person
    kept = np.flatnonzero(inside & above & (ideal <= SIZES[-1] * 1.08) & (ideal >= SIZES[0] * 0.9))
    kept = kept[np.argsort(s[kept], kind="stable")]
    shown = _visible(center[kept], size[kept], look[kept])
    free = person[kept] & (shown >= MIN_VISIBLE)
    chosen = np.sort(kept[free])[:people]
    shows = ~person
    shows[chosen] = True
    kept = kept[shows[kept]]
    shown = _visible(center[kept], size[kept], look[kept])
    return Scene(image_size, camera, look[kept], mirrored[kept], center[kept], size[kept], person[kept], shown)


def _half(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest multiple of half a pixel."""
    return np.floor(2 * value + 0.5) / 2


def _looks(
    stream: Stream, facing: NDArray[np.int64], person: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A look for each place, and whether it is mirrored: profiles are drawn looking left."""
    draw = stream.uniform(2, len(facing))
    look = _THINGS[(draw[0] * len(_THINGS)).astype(np.int64)]
    for code, name in enumerate((*_FACINGS, "side")):
        here = person & (facing == code)
        look = np.where(here, _BY_FACING[name][(draw[0] * len(_BY_FACING[name])).astype(np.int64)], look)
    return look, np.where(facing >= 2, facing == 3, draw[1] < 0.5)


def _visible(center: NDArray[np.float64], size: NDArray[np.float64], look: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of each head that nearer figures (those later in the order) leave free.

    Asked at fixed points of the head, against the boxes that each nearer figure fills. Things have a share too; nobody
    reads it.
    """
    x, y = center.T
    reach = 1.3 * size[None, :] + HEAD_HALF[0] * size[:, None]
    nearer = np.triu(np.ones((len(x), len(x)), bool), 1)
    nearer &= np.abs(x[:, None] - x[None, :]) < reach
    nearer &= (y[None, :] - y[:, None] < size[:, None] + size[None, :]) & (y[:, None] - y[None, :] < 7 * size[None, :])
    head, front = np.nonzero(nearer)
    dx = (x[head, None] + _PROBE_X * size[head, None] - x[front, None]) / size[front, None]
    dy = (y[head, None] + _PROBE_Y * size[head, None] - y[front, None]) / size[front, None]
    solid = _SOLID[look[front]]
    hidden = np.zeros((len(x), len(_PROBE_X)), bool)
    for part in range(solid.shape[1]):
        x0, y0, x1, y1 = solid[:, part].T[..., None]
        covered = (dx > x0) & (dx < x1) & (dy > y0) & (dy < y1)
        pair, probe = np.nonzero(covered)
        hidden[head[pair], probe] = True
    return 1 - np.count_nonzero(hidden, axis=1) / len(_PROBE_X)
