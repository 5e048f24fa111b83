"""What lies behind the crowd: a ground in perspective and, where it ends, sky, walls, trees, stands, tents.

Much of it is meant to look like a crowd from afar: leaves, cobbles, gravel, seats and windows repeat at the scale of
heads. Pictures are float32 [3, H, W] with values of 0 to 255.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from runners.data.scene.layout import Scene
from runners.data.scene.stream import Stream

__all__ = ["backdrop", "smooth_noise"]

Picture = NDArray[np.float32]

_TILE = 512  # side of the repeating textures, texels
_TEXEL = 0.02  # metres

_GROUNDS: dict[str, tuple[float, list[tuple[int, int, int]]]] = {
    "paving": (3.0, [(168, 160, 150), (150, 142, 136), (186, 176, 158), (140, 134, 130), (172, 150, 132)]),
    "planks": (1.0, [(150, 118, 86), (128, 100, 76), (170, 146, 116), (112, 92, 78)]),
    "cobbles": (1.5, [(132, 126, 120), (112, 108, 106), (146, 130, 114)]),
    "asphalt": (2.0, [(96, 97, 100), (84, 84, 88), (120, 118, 116)]),
    "grass": (2.5, [(96, 128, 62), (112, 134, 70), (84, 112, 58), (140, 142, 84)]),
    "sand": (1.5, [(206, 186, 150), (190, 166, 128), (168, 144, 116)]),
    "gravel": (1.0, [(150, 144, 136), (128, 120, 110), (120, 92, 60)]),
    "carpet": (0.7, [(120, 52, 56), (62, 72, 104), (92, 92, 96), (66, 96, 90)]),
}
_FAR = {"foliage": 3.0, "facade": 2.5, "bricks": 1.5, "stand": 1.5, "tents": 1.0, "fence": 1.5, "open": 1.0}
_SKIES = [((112, 158, 214), (206, 222, 234)), ((168, 180, 192), (214, 216, 216)), ((92, 120, 168), (236, 206, 176))]
_CLOTH = [(196, 60, 52), (232, 226, 214), (52, 92, 160), (226, 176, 62), (60, 128, 92), (120, 70, 128), (222, 122, 60)]


def backdrop(stream: Stream, scene: Scene) -> Picture:
    """Paints the image without its figures, float32 [3, H, W]."""
    height, width = scene.image_size
    camera = scene.camera
    edge = int(np.clip(np.ceil(camera.horizon + camera.height * camera.far * 0.94), 0, height))
    picture = np.empty((3, height, width), np.float32)
    if edge > 0:
        picture[:, :edge] = _distance(stream, edge, width, camera.far)
    if edge < height:
        picture[:, edge:] = _ground(stream, scene, edge)
    return picture


# ---------------------------------------------------------------------------------------------------------------------
# Noise and textures


@cache
def _spline(pixels: int, cells: int) -> NDArray[np.float32]:
    """Cubic B-spline weights [pixels, cells + 3] that enlarge a coarse row smoothly."""
    at = (np.arange(pixels) + 0.5) * cells / pixels
    cell, t = np.floor(at).astype(int), at - np.floor(at)
    weights = np.zeros((pixels, cells + 3), np.float32)
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for offset, part in enumerate(parts):
        weights[np.arange(pixels), cell + offset] = part / 6
    return weights


def smooth_noise(stream: Stream, height: int, width: int, cells: int) -> NDArray[np.float32]:
    """Noise of about unit range, [height, width], with `cells` bumps along the width."""
    rows = max(1, cells * height // width)
    coarse = stream.octets(rows + 3, cells + 3).astype(np.float32) * (4 / 255) - 2
    return np.matmul(np.matmul(_spline(height, rows), coarse), _spline(width, cells).T)


@cache
def _texture(*octaves: tuple[int, float]) -> NDArray[np.float32]:
    """A texture that repeats, [512 * 512], mean 0 and deviation 1, of octaves (bumps along a side, strength)."""
    stream = Stream("texture", octaves)
    total = np.zeros((_TILE, _TILE), np.float32)
    for cells, strength in octaves:
        coarse = stream.octets(cells, cells).astype(np.float32) / 127.5 - 1
        spline = _spline(_TILE, cells)
        layer = np.matmul(np.matmul(spline, np.pad(coarse, ((1, 2), (1, 2)), mode="wrap")), spline.T)
        total += strength * layer / layer.std()
    return ((total - total.mean()) / total.std()).ravel()


def _grain() -> NDArray[np.float32]:
    """Roughness down to two texels, for surfaces and as a table of random tones."""
    return _texture((8, 0.8), (16, 0.7), (32, 0.6), (64, 0.6), (128, 0.7), (256, 0.8))


def _broad() -> NDArray[np.float32]:
    """Smooth patches, for wear and dappled light."""
    return _texture((8, 0.7), (14, 0.8), (24, 0.6), (48, 0.4))


@cache
def _leaves() -> NDArray[np.float32]:
    """A texture that repeats, [512 * 512], of clumps of shaded leaves, lighter above and dark between; 0 to 1."""
    stream = Stream("leaves")
    clumps = smooth_noise(stream, _TILE, _TILE, 20)
    texture = np.full((_TILE, _TILE), 0.12, np.float32)
    steps = np.arange(-7, 8)
    for x, y, a, b, tone in stream.uniform(9000, 5):
        dx, dy = steps / (2.5 + 4 * a * a), steps[:, None] / (2.5 + 4 * b * b)
        column, row = int(x * _TILE), int(y * _TILE)
        inside = dx * dx + dy * dy
        level = 0.4 + 0.3 * tone + 0.22 * clumps[row, column]
        where = np.ix_((steps + row) % _TILE, (steps + column) % _TILE)
        shade = level * (1 - 0.45 * inside) - 0.16 * dy
        texture[where] = np.where(inside < 1, shade, texture[where] * np.clip(0.6 + 0.2 * inside, 0, 1))
    return np.clip(texture, 0, 1).ravel()


def _look_up(texture: NDArray[np.float32], u: NDArray, v: NDArray) -> NDArray[np.float32]:
    """The texture at texel coordinates, repeated without end."""
    return texture.take(((v.astype(np.int32) & (_TILE - 1)) << 9) | (u.astype(np.int32) & (_TILE - 1)))


def _tint(color: tuple[float, ...], shade: NDArray[np.float32]) -> Picture:
    return np.asarray(color, np.float32)[:, None, None] * shade


# ---------------------------------------------------------------------------------------------------------------------
# Ground


def _ground(stream: Stream, scene: Scene, edge: int) -> Picture:
    """The rows of the ground, [3, H - edge, W]."""
    height, width = scene.image_size
    camera = scene.camera
    scale = ((np.arange(edge, height) + 0.5 - camera.horizon) / camera.height).astype(np.float32)[:, None]
    x = ((np.arange(width) + 0.5 - width / 2).astype(np.float32)) / scale
    z = np.float32(camera.focal) / scale
    turn = stream.between(-0.5, 0.5) if stream.chance(0.5) else 0.0
    cos, sin = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    u, v = cos * x + sin * z + 300, cos * z - sin * x + 300

    kind = stream.pick({name: weight for name, (weight, _) in _GROUNDS.items()})
    color = np.array(stream.choose(_GROUNDS[kind][1])) * stream.between(0.8, 1.12)
    grain = _look_up(_grain(), u / _TEXEL, v / _TEXEL)
    broad = _look_up(_broad(), u / (2 * _TEXEL), v / (2 * _TEXEL))
    sharp = np.minimum(1, scale * (3 * _TEXEL))  # fine grain averages out in the distance
    shade = 1 + 0.05 * broad
    if kind in ("paving", "planks", "cobbles"):
        shade += _tiles(stream, kind, u, v, scale)
    if kind == "gravel":
        size = stream.between(0.006, 0.014)
        shade *= 0.5 + (0.25 + 0.75 * sharp) * (_look_up(_leaves(), u / size, v / size) - 0.45) + 0.45
    if kind == "carpet" or (kind == "grass" and stream.chance(0.5)):
        band = stream.between(0.8, 2.5)
        shade += 0.09 * ((np.floor(u / band).astype(np.int32) & 1) - 0.5)
    roughness = {"grass": 0.13, "sand": 0.06, "asphalt": 0.07, "carpet": 0.04}.get(kind, 0.045)
    shade += roughness * sharp * grain
    picture = _tint(tuple(color), shade)
    if kind in ("grass", "sand", "paving") and stream.chance(0.45):
        other = np.array(stream.choose(_GROUNDS["sand" if kind == "grass" else "asphalt"][1]))
        worn = np.clip(1.2 * broad + 0.35 * grain - 0.6, 0, 0.7)
        picture += worn * (_tint(tuple(other), shade) - picture)
    if kind == "asphalt":
        _markings(stream, picture, u, v, scale)
    if stream.chance(0.3):  # the shade of trees or houses outside the picture
        dapple = _look_up(_broad(), u / _TEXEL + 91, v / _TEXEL + 17)
        picture *= 1 - 0.38 * np.clip(1.5 * dapple + stream.between(-0.5, 0.8), 0, 1)
    return picture


def _tiles(stream: Stream, kind: str, u: NDArray, v: NDArray, scale: NDArray) -> NDArray[np.float32]:
    """Shading of slabs, planks or cobbles: a tone for each, joints, and round tops of cobbles."""
    long, short = {
        "paving": (stream.between(0.35, 1.1), stream.between(0.6, 1.0)),
        "planks": (stream.between(1.6, 3.0), 0.08),
        "cobbles": (stream.between(0.13, 0.24), 0.9),
    }[kind]
    short *= long
    row = v * (1 / short)
    rank = np.floor(row)
    column = u * (1 / long) + (0.5 if stream.chance(0.6) else 0.0) * (rank.astype(np.int32) & 1)
    file = np.floor(column)
    tone = _look_up(_grain(), file * 7, rank * 13)
    across, along = column - file, row - rank
    clear = np.clip((scale * short - 2) / 4, 0, 1)  # below two pixels a pattern would alias
    if kind == "cobbles":
        across, along = 2 * across - 1, 2 * along - 1
        return (0.07 * tone + 0.2 - 0.32 * (across * across + along * along)) * clear
    gap = np.minimum(np.minimum(across, 1 - across) * (long * scale), np.minimum(along, 1 - along) * (short * scale))
    return (0.045 * tone - 0.28 * np.clip(1.2 - gap, 0, 1)) * clear


def _markings(stream: Stream, picture: Picture, u: NDArray, v: NDArray, scale: NDArray) -> None:
    """White stripes of a crossing, or lines of a road, painted onto the ground."""
    if stream.chance(0.5):
        period, width = stream.between(0.9, 1.3), 0.45
        start, length = stream.between(0.5, 3), stream.between(2.5, 5)
        far = np.minimum(v - v.min() - start, start + length - v + v.min())
    else:
        period, width, far = stream.between(3.0, 5.0), 0.14, np.float32(1e3)
    place = np.abs(np.mod(u, period) - period / 2)
    paint = np.clip((np.minimum(width / 2 - place, far)) * scale + 0.5, 0, 1) * 0.8
    picture += paint * (218 - picture)


# ---------------------------------------------------------------------------------------------------------------------
# The distance


def _distance(stream: Stream, height: int, width: int, scale: float) -> Picture:
    """What stands where the ground ends, [3, height, W], at `scale` pixels per metre."""
    top, low = (np.array(c, np.float32) for c in stream.choose(_SKIES))
    fall = np.linspace(1, 0, height, dtype=np.float32)[None, :, None]
    picture = np.broadcast_to(low[:, None, None] + (top - low)[:, None, None] * fall, (3, height, width)).copy()
    picture += (245 - picture) * np.clip(smooth_noise(stream, height, width, 6) * 0.7 - 0.1, 0, 0.7)
    kind = stream.pick(_FAR)
    if kind in ("tents", "fence", "open") or stream.chance(0.4):
        _foliage(stream, picture, scale, metres=stream.between(2.0, 4.5))
    {
        "foliage": _foliage,
        "facade": _facade,
        "bricks": _bricks,
        "stand": _stand,
        "tents": _tents,
        "fence": _fence,
        "open": _hedge,
    }[kind](stream, picture, scale)
    return picture


def _foliage(stream: Stream, picture: Picture, scale: float, metres: float = 0.0) -> None:
    """Trees or bushes: leaves lit from above, with an uneven top."""
    _, height, width = picture.shape
    rise = (metres or stream.between(3.5, 9)) * scale
    row, column = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
    zoom = max(1.0, stream.between(0.9, 1.7) * 40 / scale)
    u, v = stream.below(_TILE, 2)
    leaves = _look_up(_leaves(), column * zoom + u, row * zoom + v)
    crowns = smooth_noise(stream, height, width, 5)
    line = height - rise * (0.8 + 0.25 * smooth_noise(stream, 4, width, 7)[:1])
    cover = np.clip((row - line) * 0.5 + (leaves - 0.4) * 6, 0, 1)
    shade = (0.25 + 1.15 * leaves) * (0.95 + 0.22 * crowns)
    green = np.array(stream.choose([(84, 112, 56), (96, 118, 66), (66, 98, 58), (122, 118, 58), (142, 96, 52)]))
    picture += cover * (_tint(tuple(green), shade) - picture)


def _hedge(stream: Stream, picture: Picture, scale: float) -> None:
    _foliage(stream, picture, scale, metres=stream.between(0.8, 1.5))


def _facade(stream: Stream, picture: Picture, scale: float) -> None:
    """Houses with rows of windows, some of them lit, and awnings."""
    _, height, width = picture.shape
    left = -int(stream.below(width // 3, 1)[0])
    while left < width:
        wide = int(stream.between(5, 14) * scale)
        rise = min(height, int(stream.between(5, 14) * scale))
        wall = np.array(
            stream.choose([(190, 172, 150), (158, 120, 100), (206, 200, 190), (128, 128, 136), (176, 150, 120)])
        )
        storey, bay = max(6, int(2.9 * scale)), max(5, int(stream.between(1.3, 2.4) * scale))
        y, x = np.arange(rise), np.arange(wide)
        window = ((y % storey > 0.3 * storey) & (y % storey < 0.8 * storey))[:, None]
        window = window & ((x % bay > 0.28 * bay) & (x % bay < 0.75 * bay))[None, :]
        pane = (0.2 + 0.5 * stream.uniform(rise // storey + 1, wide // bay + 1) ** 2)[
            y[:, None] // storey, x[None, :] // bay
        ]
        tone = 0.85 + 0.12 * smooth_noise(stream, rise, wide, 4)
        part = _tint(tuple(wall), tone)
        part += window * (_tint((150, 170, 190), pane.astype(np.float32)) - part)
        awning = slice(max(0, rise - int(2.7 * scale)), max(0, rise - int(2.2 * scale)))
        part[:, awning] = np.array(stream.choose(_CLOTH), np.float32)[:, None, None] * (
            0.8 + 0.2 * (x // max(2, bay // 4) % 2)
        )
        x0, x1 = max(left, 0), min(left + wide, width)
        picture[:, height - rise :, x0:x1] = part[:, :, x0 - left : x1 - left]
        left += wide


def _bricks(stream: Stream, picture: Picture, scale: float) -> None:
    """A wall of bricks or blocks, sometimes with a ledge."""
    _, height, width = picture.shape
    rise = min(height, int(stream.between(2.5, 8) * scale))
    long = stream.geometric(0.25, 0.9) * scale
    row = np.arange(rise)[:, None] / (0.42 * long)
    column = np.arange(width)[None, :] / long + 0.5 * (row.astype(int) & 1)
    tone = _look_up(_grain(), column.astype(int) * 7, row.astype(int) * 13)
    joint = ((column % 1 < 1 / long) | (row % 1 < 1 / (0.42 * long))) * 0.18
    color = stream.choose([(160, 100, 82), (178, 168, 152), (146, 140, 136), (190, 150, 118)])
    picture[:, height - rise :] = _tint(color, (0.9 + 0.09 * tone - joint).astype(np.float32))
    picture[:, height - rise : height - rise + max(1, int(0.15 * scale))] *= 1.15


def _stand(stream: Stream, picture: Picture, scale: float) -> None:
    """Empty seats in ranks: round, coloured, as large as heads, and nobody on them."""
    _, height, width = picture.shape
    rise = min(height, int(stream.between(3, 10) * scale))
    pitch, rank = 0.5 * scale, stream.between(0.45, 0.7) * scale
    row, column = np.arange(rise)[:, None] / rank, np.arange(width)[None, :] / pitch
    across, along = 2 * (column % 1) - 1, 2 * (row % 1) - 1
    seat = np.clip((0.8 - across**2 - np.maximum(along, -along * 0.6) ** 2) * 3, 0, 1)
    which = _look_up(_grain(), column.astype(int) * 7, row.astype(int) * 13)
    first, second = (np.array(stream.choose(_CLOTH), np.float32) for _ in range(2))
    limit = stream.between(-1, 2.5)
    color = np.where((which > limit)[None], first[:, None, None], second[:, None, None])
    shade = (0.75 - 0.25 * along) * seat
    picture[:, height - rise :] = (color * shade + _tint((112, 110, 108), 0.75 * (1 - seat))).astype(np.float32)


def _tents(stream: Stream, picture: Picture, scale: float) -> None:
    """Market tents: coloured roofs over dark openings."""
    _, height, width = picture.shape
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
    left = -stream.between(0, 2) * scale
    while left < width:
        wide, rise, roof = (stream.between(a, b) * scale for a, b in ((2.2, 3.8), (1.9, 2.3), (0.7, 1.3)))
        place = np.abs(x - left - wide / 2) / (wide / 2)
        up = height - y - rise
        over = np.clip((1 - place) * wide / 2, 0, 1) * np.clip((roof * (1 - place) - up) + 0.5, 0, 1)
        cloth = np.clip(up + 0.22 * scale, 0, 1)
        stripes = 0.82 + 0.18 * (np.floor((x - left) / (0.35 * scale)) % 2)
        color = _tint(stream.choose(_CLOTH), stripes * (1.05 - 0.3 * place))
        inside = _tint((62, 56, 54), 0.7 + 0.6 * (place > 0.94))
        picture += over * (cloth * color + (1 - cloth) * inside - picture)
        left += wide * stream.between(1.0, 1.3)


def _fence(stream: Stream, picture: Picture, scale: float) -> None:
    """Railings: bars, rails and, sometimes, knobs on the bars."""
    _, height, width = picture.shape
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
    rise, gap = stream.between(1.1, 2.2) * scale, stream.between(0.14, 0.5) * scale
    up = height - y
    place = np.abs(np.mod(x, gap) - gap / 2)
    bars = np.clip(0.035 * scale + 0.5 - place, 0, 1) * (up < rise)
    rails = sum(np.clip(0.05 * scale + 0.5 - np.abs(up - part * rise), 0, 1) for part in (0.12, 0.92))
    knobs = np.clip(0.1 * scale + 0.5 - np.hypot(place, up - rise), 0, 1) * stream.chance(0.5)
    cover = np.clip(bars + rails + knobs, 0, 1)
    color = np.array(stream.choose([(52, 54, 58), (198, 198, 196), (70, 92, 76)]), np.float32)
    picture += cover * (color[:, None, None] - picture)
