"""The picture of a scene: light, colours, shadows, haze, and everything drawn from the back to the front."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runners.data.scene.backdrop import backdrop, smooth_noise
from runners.data.scene.figures import FEET, LOOKS, sprite
from runners.data.scene.layout import Scene
from runners.data.scene.sprites import ALPHA, ONE, SHADE, SIDE
from runners.data.scene.stream import Stream

__all__ = ["paint"]

_PAD = 48  # columns beside and rows above the image, so that no sprite has to be cut there


def _colors(text: str) -> NDArray[np.float64]:
    """Colours [n, 3] from hexadecimal words."""
    return np.array([list(bytes.fromhex(word)) for word in text.split()], float)


_SKIN = _colors("f6d0b4 ecbea0 e0ac8a c89270 ac7858 8c5e44 6a4634 4e342a")
_HAIR = _colors("1e1a1a 28201c 3e2c22 5c402a 825e3a bc9660 8c4828 969492 d4d0ca")
_HAIR_SHARE = np.cumsum([0.26, 0.2, 0.17, 0.11, 0.08, 0.06, 0.03, 0.05, 0.04])
_TOP = _colors(
    "eceae4 cecece 96989c 585a60 2c2e34 1e1e22 283456 3a588c 749ac4 a82c2c ce5446 e29642 e8cc60 5a7a46 "
    "345c48 3e8a8a 744678 c47e9e eec4cc 866044 c4aa86 782834 4c4e38 b2c6aa"
)
_BOTTOM = _colors("343e58 465472 24262e 1c1c20 5c5650 96866e 787a7e 423830")
_LEAF = _colors("58783a 486836 708448 7e783e")


class Light(NamedTuple):
    """How a scene is lit.

    Attributes:
        side: How much brighter surfaces are that face right, and darker those that face left; -1 .. 1.
        gain: Exposure by channel.
        shadow: Depth of the shadows on the ground, 0 .. 1.
        reach: Length of a shadow along the ground, heads; positive to the right.
        haze: Share of haze at the far end of the crowd, 0 .. 1.
        air: Colour of the haze.
    """

    side: float
    gain: NDArray[np.float32]
    shadow: float
    reach: float
    haze: float
    air: NDArray[np.float32]


def paint(scene: Scene, *key: object) -> NDArray[np.uint8]:
    """Paints a scene, uint8 RGB [H, W, 3].

    Args:
        scene: What stands where.
        *key: The name of the picture's random numbers (colours, grounds, light); they do not move anything. Every
            figure has numbers of its own, so that leaving one out changes nothing else.
    """
    height, width = scene.image_size
    light = _light(Stream("light", *key))
    canvas = np.zeros((3, height + _PAD, width + 2 * _PAD), np.float32)
    view = canvas[:, _PAD:, _PAD:-_PAD]
    view[:] = _hazy(backdrop(Stream("backdrop", *key), scene), scene, light)
    _shadows(canvas, scene, light)
    _draw(canvas, scene, light, Stream("colors", *key))
    return _develop(view, light, Stream("film", *key))


def _light(stream: Stream) -> Light:
    sunny = stream.chance(0.55)
    warm = stream.between(-0.07, 0.09)
    gain = stream.geometric(0.75, 1.3) * np.array([1 + warm, 1.0, 1 - 1.2 * warm])
    side = stream.between(-1, 1) * (0.42 if sunny else 0.16)
    air = np.array(stream.choose([(206, 214, 222), (222, 214, 202), (196, 198, 202)]), np.float32)
    return Light(
        side=side,
        gain=gain.astype(np.float32),
        shadow=stream.between(0.35, 0.55) if sunny else stream.between(0.2, 0.35),
        reach=-7 * side if sunny else 0.0,
        haze=stream.between(0, 0.28) ** 1.5,
        air=air,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Ground


def _haze_share(scale: NDArray | float, scene: Scene, light: Light) -> NDArray[np.float64]:
    """Haze by depth: none for the nearest, `light.haze` for the farthest."""
    depth, first, last = 1 / np.asarray(scale), 1 / scene.camera.near, 1 / scene.camera.far
    return light.haze * np.clip((depth - first) / (last - first), 0, 1)


def _hazy(picture: NDArray[np.float32], scene: Scene, light: Light) -> NDArray[np.float32]:
    """The backdrop behind the haze of its depth, in place."""
    rows = np.arange(picture.shape[1]) + 0.5
    scale = np.maximum((rows - scene.camera.horizon) / scene.camera.height, 1e-3)
    share = _haze_share(scale, scene, light).astype(np.float32)[None, :, None]
    picture *= 1 - share
    picture += share * light.air[:, None, None]
    return picture


@lru_cache(maxsize=2048)
def _shadow(size: float, reach: int, depth: int) -> NDArray[np.float32]:
    """What a figure leaves of the light on the ground: a dark foot and a soft streak, [rows, columns].

    Args:
        size: Height of the head, pixels.
        reach: Length of the streak, quarters of a head; negative to the left.
        depth: Darkness, percent.
    """
    half = int(np.ceil(size * 1.1)) + 1
    length = int(np.ceil(abs(reach) / 4 * size))
    x = np.arange(-half, half + length + 1) / size
    y = np.arange(-int(np.ceil(0.75 * size)), int(np.ceil(0.75 * size)) + 1)[:, None] / size
    foot = np.clip(1 - (x / 1.05) ** 2 - (y / 0.55) ** 2, 0, 1)
    along = np.clip(x / max(abs(reach) / 4, 1e-3), 0, 1)
    streak = np.clip(1 - ((x - along * abs(reach) / 4) / 0.7) ** 2 - (y / 0.36) ** 2, 0, 1) * (1 - 0.75 * along) * 0.8
    dark = depth / 100 * np.clip(1.25 * np.maximum(foot, streak if reach else 0), 0, 1)
    return (1 - dark)[:, :: -1 if reach < 0 else 1].astype(np.float32)


def _shadows(canvas: NDArray[np.float32], scene: Scene, light: Light) -> None:
    """Darkens the ground around all feet, before anybody stands on it."""
    reach = int(4 * light.reach)
    bottom, right = canvas.shape[1:]
    for (x, y), size in zip(scene.center, scene.size, strict=True):
        mask = _shadow(float(size), reach, int(100 * light.shadow))
        rows, columns = mask.shape
        row = int(y + FEET * size) + _PAD - rows // 2
        half = int(np.ceil(size * 1.1)) + 1
        column = int(x) + _PAD - (half if reach >= 0 else columns - 1 - half)
        above, left = max(0, -row), max(0, -column)
        patch = canvas[:, row + above : min(row + rows, bottom), column + left : min(column + columns, right)]
        if patch.size:
            patch *= mask[above : above + patch.shape[1], left : left + patch.shape[2]]


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def _draw(canvas: NDArray[np.float32], scene: Scene, light: Light, stream: Stream) -> None:
    """Draws all figures, the farthest first."""
    palettes = _palettes(scene, light, stream)
    bottom = canvas.shape[1]
    for look, mirrored, (x, y), size, palette in zip(
        scene.look, scene.mirrored, scene.center, scene.size, palettes, strict=True
    ):
        layers, left, top = sprite(int(look), float(size), x % 1 != 0, y % 1 != 0)
        row, column = int(y - top) + _PAD, int(x - (layers.shape[2] - left if mirrored else left)) + _PAD
        layers = layers[:, : max(0, bottom - row), :: -1 if mirrored else 1].astype(np.float32)
        count, height, width = layers.shape
        mixed = (palette @ layers.reshape(count, -1)).reshape(5, height, width)
        colors, keep, brightness = mixed[:3], mixed[3], mixed[4]
        colors *= brightness
        patch = canvas[:, row : row + height, column : column + width]
        patch *= keep
        patch += colors


def _palettes(scene: Scene, light: Light, stream: Stream) -> NDArray[np.float32]:
    """What every figure's layers are multiplied with, [n, 5, 8].

    Rows: red, green, blue; the share of what is behind that stays; the light on a surface by the side it faces.
    Columns: the layers of a `Sprite`.
    """
    count = len(scene.look)
    uniform = stream.choose(_TOP) if stream.chance(0.15) else None  # a team, a school, a choir
    order = _figure_order(scene)
    draw = stream.uniform(int(order.max(initial=-1)) + 1, 12)[order]
    colors = np.zeros((count, 5, 3))
    colors[:, 0] = _pick(_SKIN, draw[:, 0])
    colors[:, 1] = _HAIR[np.minimum(np.searchsorted(_HAIR_SHARE, draw[:, 1]), len(_HAIR) - 1)]
    colors[:, 2] = _pick(_TOP, draw[:, 2])
    if uniform is not None:
        colors[:, 2] = np.where(draw[:, 3:4] < 0.6, uniform, colors[:, 2])
    colors[:, 3] = _pick(_BOTTOM, draw[:, 4])
    colors[:, 4] = _pick(_TOP, draw[:, 5])
    for index in np.flatnonzero(~scene.person):
        colors[index] = _thing_colors(LOOKS[scene.look[index]].name, draw[index])
    colors *= 1 + 0.16 * (draw[:, 6:11, None] - 0.5)
    haze = _haze_share(scene.size / 0.25, scene, light)[:, None, None]
    tilt = np.where(scene.mirrored, -light.side, light.side)
    palettes = np.zeros((count, 5, ONE + 1))
    palettes[:, :3, :ALPHA] = (colors * (1 - haze) / SHADE).transpose(0, 2, 1)
    palettes[:, :3, ALPHA] = light.air * haze[:, 0] / 255
    palettes[:, 3, ALPHA], palettes[:, 3, ONE] = -1 / 255, 1 / 255
    palettes[:, 4, SIDE], palettes[:, 4, ONE] = tilt / 127.5, (1 - tilt) / 255
    return palettes.astype(np.float32)


def _figure_order(scene: Scene) -> NDArray[np.int64]:
    """A number for each figure that stays its own when another is left out: a hash of its place."""
    return ((2 * scene.center[:, 0] * 31 + 2 * scene.center[:, 1] * 17).astype(np.int64)) % 509


def _pick(table: NDArray[np.float64], draw: NDArray[np.float64]) -> NDArray[np.float64]:
    """A colour of the table for each draw, mixed a little with its neighbour."""
    at = draw * len(table)
    first = at.astype(np.int64)
    return table[first] + 0.35 * (at - first)[:, None] * (table[(first + 1) % len(table)] - table[first])


def _thing_colors(name: str, draw: NDArray[np.float64]) -> NDArray[np.float64]:
    """The five materials of something that is not a person."""
    cloth, metal = _pick(_TOP, draw[2:4]), _pick(_BOTTOM, draw[4:5])[0]
    white = np.array((242, 240, 232.0))
    if name in ("bush", "planter"):
        leaf = _pick(_LEAF, draw[2:4])
        return np.array(
            [white, leaf[0], leaf[0], np.array((150, 110, 88.0)), cloth[1] if name == "planter" else leaf[1] * 1.15]
        )
    if name == "stone":
        metal = np.array((150, 146, 140.0)) * (0.7 + 0.5 * draw[4])
    return np.array([white, cloth[1], cloth[0], metal, cloth[1]])


# ---------------------------------------------------------------------------------------------------------------------
# Film


@cache
def _vignette(height: int, width: int) -> NDArray[np.float32]:
    y, x = (np.arange(height) + 0.5) / height * 2 - 1, (np.arange(width) + 0.5) / width * 2 - 1
    return (1 - 0.07 * (y[:, None] ** 2 + x[None, :] ** 2)).astype(np.float32)


def _develop(view: NDArray[np.float32], light: Light, stream: Stream) -> NDArray[np.uint8]:
    """Lens, exposure and grain; rounds to uint8 [H, W, 3]."""
    _, height, width = view.shape
    shade = _vignette(height, width) * (1 + 0.06 * smooth_noise(stream, height, width, 2))
    picture = view * shade
    picture *= light.gain[:, None, None]
    soft = np.float32(stream.between(0.05, 0.25) if stream.chance(0.6) else 0)
    for ahead, behind, middle in (
        (picture[:, 2:], picture[:, :-2], picture[:, 1:-1]),
        (picture[:, :, 2:], picture[:, :, :-2], picture[:, :, 1:-1]),
    ):
        if not soft:
            break
        beside = ahead + behind
        beside *= soft / 2
        middle *= 1 - soft
        middle += beside
    grain = stream.octets(height, width).astype(np.float32)
    grain -= 127.5
    grain *= np.float32(stream.between(0.01, 0.05))
    grain += 0.5  # so that the cast below rounds
    picture += grain
    np.clip(picture, 0, 255, out=picture)
    return np.ascontiguousarray(picture.astype(np.uint8).transpose(1, 2, 0))
