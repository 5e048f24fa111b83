"""Sprites: figures drawn once, large, from two primitives with soft shading, and reduced by area to any size.

The layers of a drawing are materials, not colours, so that one sprite serves every skin, hair and shirt: a picture is
`palette @ layers`. Lengths are in *heads*: the head of a standing person is one high and its centre is the origin, x to
the right and y down.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALPHA", "BOTTOM", "EXTRA", "HAIR", "ONE", "SHADE", "SIDE", "SKIN", "TOP", "Drawing", "Sprite", "reduced"]

SKIN, HAIR, TOP, BOTTOM, EXTRA, ALPHA, SIDE, ONE = range(8)  # the layers; five materials first
SHADE = 190.0
"""8-bit value of a surface that shows its own colour; above it are highlights."""

_LEFT, _TOP, _RIGHT, _BASE = -1.35, -0.95, 1.35, 6.95  # what a drawing shows, heads
_GRID = 30  # samples per head; a little above the largest head


class Sprite(NamedTuple):
    """A figure at one size, all layers in 0 .. 255.

    Attributes:
        layers: uint8 [8, h, w]: five materials (times their shading and coverage), coverage, the side that a surface
            faces (0 left, 128 to the camera, 255 right), and 255 everywhere, so that a picture, what it leaves of the
            background and its light are one matrix product.
        left: Columns from the sprite's left edge to the head's centre, pixels; a multiple of 0.5.
        top: Rows from the sprite's upper edge to the head's centre, pixels; a multiple of 0.5.
    """

    layers: NDArray[np.uint8]
    left: float
    top: float


class Drawing:
    """A large drawing of one figure, painted back to front."""

    def __init__(self) -> None:
        rows, columns = round((_BASE - _TOP) * _GRID), round((_RIGHT - _LEFT) * _GRID)
        self.layers = np.zeros((8, rows, columns), np.float32)
        self.layers[SIDE] = 0.5
        self.layers[ONE] = 1
        self.x = ((np.arange(columns, dtype=np.float32) + 0.5) / _GRID + _LEFT)[None, :]
        self.y = ((np.arange(rows, dtype=np.float32) + 0.5) / _GRID + _TOP)[:, None]

    def blob(
        self,
        x: float,
        y: float,
        a: float,
        b: float,
        part: int,
        tone: float = 1.0,
        above: float = 99.0,
        below: float = -99.0,
    ) -> None:
        """An ellipsoid with half axes a and b; only its part above and below the given heights."""
        nx, ny = (self.x - x) / a, (self.y - y) / b
        far = np.sqrt(nx * nx + ny * ny)
        cover = (1 - far) * (min(a, b) * _GRID)
        cover = np.minimum(cover, np.minimum(above - self.y, self.y - below) * _GRID)
        self._paint(cover, far, nx, ny, part, tone)

    def limb(
        self, x0: float, y0: float, r0: float, x1: float, y1: float, r1: float, part: int, tone: float = 1.0
    ) -> None:
        """A cylinder with round ends from (x0, y0) with radius r0 to (x1, y1) with radius r1."""
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((self.x - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        radius = r0 + (r1 - r0) * along
        nx, ny = (self.x - x0 - along * dx) / radius, (self.y - y0 - along * dy) / radius
        far = np.sqrt(nx * nx + ny * ny)
        self._paint((1 - far) * radius * _GRID, far, nx, ny, part, tone)

    def _paint(
        self, cover: NDArray[Any], far: NDArray[Any], nx: NDArray[Any], ny: NDArray[Any], part: int, tone: float
    ) -> None:
        """Blends one primitive over the drawing; light comes from above, the front is brighter than the edge."""
        cover = np.clip(cover + 0.5, 0, 1)
        depth = np.sqrt(np.maximum(0, 1 - far * far))
        shade = tone * (0.6 + 0.4 * depth - 0.16 * np.clip(ny, -1, 1))
        self.layers[:SIDE] *= 1 - cover  # materials and coverage
        self.layers[part] += cover * shade
        self.layers[ALPHA] += cover
        self.layers[SIDE] += cover * (0.5 + 0.5 * np.clip(nx, -1, 1) - self.layers[SIDE])


@cache
def _averages(low: float, pixels: int, size: float, samples: int) -> NDArray[np.float32]:
    """Matrix [pixels, samples] that averages a drawing over pixels of 1 / size heads, the first one from `low`."""
    edges = (low + np.arange(pixels + 1) / size) * _GRID
    upto = np.clip(edges[:, None] - np.arange(samples)[None, :], 0, 1)
    return ((upto[1:] - upto[:-1]) * (size / _GRID)).astype(np.float32)


def reduced(drawing: Drawing, size: float, half_x: bool, half_y: bool) -> Sprite:
    """A drawing at one size, each pixel the mean of the samples that it covers.

    Args:
        drawing: The large drawing.
        size: Height of a head, pixels.
        half_x: Whether the head's centre lies in the middle of a pixel (else between two pixels).
        half_y: Likewise for the row.
    """
    left = int(np.ceil(-_LEFT * size)) + 0.5 * half_x
    top = int(np.ceil(-_TOP * size)) + 0.5 * half_y
    width, height = int(2 * left), int(np.ceil(top + _BASE * size))
    across = _averages(-left / size - _LEFT, width, size, drawing.layers.shape[2])
    down = _averages(-top / size - _TOP, height, size, drawing.layers.shape[1])
    layers = np.matmul(np.matmul(down, drawing.layers), across.T)
    layers[:ALPHA] *= SHADE / 255
    layers[ONE] = 1
    filled = layers[ALPHA] > 1 / 512
    row, column = (np.flatnonzero(filled.any(axis=axis)) for axis in (1, 0))
    layers = layers[:, row[0] : row[-1] + 1, column[0] : column[-1] + 1]
    return Sprite((np.clip(layers, 0, 1) * 255 + 0.5).astype(np.uint8), left - column[0], top - row[0])
