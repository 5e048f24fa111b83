"""Figures: people of many looks, and things that are not people.

A person's shoulders are at y = 1 and the feet at y = 6.7 heads below the centre of the head; see `sprites` for how
figures are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from runners.data.scene.sprites import BOTTOM, EXTRA, HAIR, SKIN, TOP, Drawing, Sprite, reduced

__all__ = ["FEET", "HEAD_HALF", "LOOKS", "Look", "sprite"]

HEAD_HALF = (0.42, 0.5)
"""Half width and half height of a head's box, heads."""
FEET = 6.7
"""Height of the head's centre above the ground, heads."""


class Look(NamedTuple):
    """One way to look.

    Attributes:
        name: For people.
        person: Whether it has a head that is annotated.
        facing: `"front"`, `"back"`, `"side"` (to the left), or `""` for things.
        solid: What it hides: boxes (x0, y0, x1, y1), heads.
        draw: Draws it.
    """

    name: str
    person: bool
    facing: str
    solid: tuple[tuple[float, float, float, float], ...]
    draw: Callable[[Drawing], None]


# ---------------------------------------------------------------------------------------------------------------------
# People


def _legs(m: Drawing, facing: str, skirt: bool) -> None:
    spread = 0.16 if facing == "side" else 0.3
    for side in (-1, 1):
        m.limb(side * spread, 3.3, 0.33, side * (spread + 0.03), 6.3, 0.19, BOTTOM, 0.82 if side > 0 else 0.92)
        toe = -0.14 if facing == "side" else side * 0.05
        m.blob(side * (spread + 0.03) + toe, 6.62, 0.27, 0.15, EXTRA, 0.45)
    if skirt:
        m.limb(0, 2.9, 0.52, 0, 4.5, 0.74, TOP, 0.95)


def _torso(m: Drawing, facing: str) -> None:
    if facing == "side":
        m.limb(0.02, 1.35, 0.5, 0.02, 3.1, 0.46, TOP)
        return
    m.limb(-0.55, 1.18, 0.34, 0.55, 1.18, 0.34, TOP)
    m.limb(0, 1.5, 0.66, 0, 3.0, 0.56, TOP)


def _arms(m: Drawing, facing: str, pose: str, sleeves: int) -> None:
    if facing == "side":
        m.limb(0.05, 1.3, 0.24, 0.1, 2.3, 0.19, TOP, 0.85)
        m.limb(0.1, 2.3, 0.17, -0.28, 3.1, 0.13, sleeves, 0.9)
        m.blob(-0.33, 3.2, 0.14, 0.15, SKIN)
        return
    for side in (-1, 1):
        raised = pose == "cheer" or (pose == "phone" and side > 0)
        if raised:
            m.limb(side * 0.86, 1.2, 0.22, side * 1.08, 0.35, 0.17, TOP, 0.92)
            m.limb(side * 1.08, 0.35, 0.15, side * 0.86, -0.5, 0.12, sleeves)
            m.blob(side * 0.84, -0.62, 0.15, 0.17, SKIN)
            if pose == "phone":
                m.limb(side * 0.8, -0.84, 0.07, side * 0.8, -0.66, 0.07, EXTRA, 0.25)
        elif pose == "crossed":
            m.limb(side * 0.84, 1.25, 0.22, side * 0.86, 2.0, 0.19, TOP, 0.85)
            m.limb(side * 0.84, 2.1, 0.17, -side * 0.3, 2.05, 0.14, sleeves, 0.98)
        else:
            m.limb(side * 0.84, 1.25, 0.23, side * 0.98, 2.3, 0.18, TOP, 0.85)
            m.limb(side * 0.98, 2.3, 0.16, side * 0.88, 3.2, 0.12, sleeves, 0.85)
            m.blob(side * 0.87, 3.36, 0.14, 0.17, SKIN)


def _face(m: Drawing, style: str) -> None:
    """Eyes, brows, nose and mouth; at the small sizes they become the shades that make a face."""
    m.blob(0, 0.08, 0.34, 0.4, SKIN, 1.12)
    for side in (-1, 1):
        m.blob(side * 0.15, -0.01, 0.1, 0.07, SKIN, 0.7)
        m.blob(side * 0.15, 0.03, 0.055, 0.05, HAIR, 0.35)
    m.blob(0, 0.16, 0.055, 0.09, SKIN, 1.25)
    if style == "beard":
        m.blob(0, 0.3, 0.31, 0.23, HAIR, 0.9, below=0.2)
    m.blob(0, 0.31, 0.11, 0.035, SKIN, 0.62)


def _head_front(m: Drawing, style: str) -> None:
    if style == "long":
        m.limb(0, 0, 0.42, 0, 0.85, 0.47, HAIR, 0.85)
    m.limb(0, 0.4, 0.19, 0, 0.85, 0.24, SKIN, 0.78)
    if style == "veil":
        m.limb(0, 0.3, 0.4, 0, 1.05, 0.62, EXTRA)
        m.blob(0, -0.02, 0.43, 0.49, EXTRA)
        _face(m, style)
        return
    m.blob(0, -0.05, 0.41, 0.45, SKIN if style == "bald" else HAIR)
    _face(m, style)
    if style in ("short", "beard", "bun", "long"):
        m.blob(0.04, -0.29, 0.36, 0.2, HAIR, 1.05)
    if style == "bun":
        m.blob(0, -0.5, 0.19, 0.15, HAIR, 1.1)
    _hat(m, style, brim=0.0)


def _head_back(m: Drawing, style: str) -> None:
    m.limb(0, 0.4, 0.19, 0, 0.85, 0.24, SKIN, 0.85)
    if style == "veil":
        m.limb(0, 0.3, 0.4, 0, 1.1, 0.66, EXTRA)
        m.blob(0, -0.02, 0.43, 0.49, EXTRA)
        return
    for side in (-1, 1):
        m.blob(side * 0.39, 0.06, 0.06, 0.1, SKIN)
    m.blob(0, 0.02, 0.37, 0.45, SKIN, 0.92)
    m.blob(0, -0.06, 0.41, 0.44, SKIN if style == "bald" else HAIR, above=0.3)
    if style == "long":
        m.limb(0, 0, 0.42, 0, 1.0, 0.42, HAIR)
    if style == "bun":
        m.limb(0, -0.05, 0.17, 0.02, 0.95, 0.12, HAIR, 1.2)
    _hat(m, style, brim=0.0)


def _head_side(m: Drawing, style: str) -> None:
    m.limb(0.1, 0.35, 0.19, 0.06, 0.85, 0.23, SKIN, 0.8)
    if style == "veil":
        m.limb(0.06, 0.3, 0.38, 0.04, 1.05, 0.5, EXTRA)
        m.blob(0.02, -0.02, 0.42, 0.49, EXTRA)
        m.blob(-0.2, 0.08, 0.22, 0.33, SKIN, 1.1)
        return
    if style == "long":
        m.limb(0.14, 0.0, 0.34, 0.2, 0.95, 0.26, HAIR, 0.9)
    m.blob(0.05, -0.06, 0.4, 0.44, SKIN if style == "bald" else HAIR)
    m.blob(-0.12, 0.1, 0.29, 0.38, SKIN, 1.1)
    m.blob(-0.4, 0.13, 0.07, 0.07, SKIN, 1.15)
    m.blob(-0.27, 0.02, 0.06, 0.05, HAIR, 0.4)
    m.blob(0.1, 0.08, 0.06, 0.1, SKIN, 0.95)
    if style == "beard":
        m.blob(-0.14, 0.3, 0.26, 0.2, HAIR, 0.9, below=0.18)
    if style == "bun":
        m.blob(0.46, -0.05, 0.16, 0.18, HAIR, 1.1)
    if style != "bald":
        m.blob(-0.05, -0.3, 0.34, 0.19, HAIR, 1.05)
    _hat(m, style, brim=-0.42)


def _hat(m: Drawing, style: str, brim: float) -> None:
    if style == "cap":
        m.blob(0.02, -0.14, 0.43, 0.38, EXTRA, above=-0.12)
        m.limb(brim - 0.3, -0.12, 0.06, brim + 0.3, -0.12, 0.06, EXTRA, 0.75)
    if style == "sunhat":
        m.blob(0, -0.15, 0.66, 0.15, EXTRA, 0.9)
        m.blob(0, -0.2, 0.38, 0.32, EXTRA, above=-0.16)


def _person(facing: str, style: str, pose: str = "stand", *, skirt: bool = False, bag: bool = False) -> Look:
    def draw(m: Drawing) -> None:
        _legs(m, facing, skirt)
        if bag and facing == "side":
            m.limb(0.52, 1.5, 0.26, 0.52, 2.5, 0.3, EXTRA)
        _torso(m, facing)
        _arms(m, facing, pose, SKIN if skirt or pose == "phone" else TOP)
        if bag and facing == "back":
            m.limb(0, 1.5, 0.42, 0, 2.55, 0.46, EXTRA)
        {"front": _head_front, "back": _head_back, "side": _head_side}[facing](m, style)
        if bag and facing == "front":
            m.limb(-0.5, 1.0, 0.07, 0.6, 2.7, 0.07, EXTRA, 0.7)

    width = 0.5 if facing == "side" else 0.85
    solid = ((-0.38, -0.45, 0.38, 0.5), (-width, 0.9, width, 3.3), (-0.5, 3.3, 0.5, FEET))
    return Look(f"{facing} {style} {pose}", True, facing, solid, draw)


# ---------------------------------------------------------------------------------------------------------------------
# Things that stand in a crowd and are round, tall or head-high, so that a count cannot be had from blobs alone


def _lamp(m: Drawing) -> None:
    m.limb(0, 0.4, 0.07, 0, 6.6, 0.1, BOTTOM)
    m.blob(0, 6.6, 0.4, 0.16, BOTTOM, 0.8)
    m.blob(0, 0, 0.42, 0.42, SKIN, 1.2)


def _sign(m: Drawing) -> None:
    m.limb(0, 0.4, 0.06, 0, 6.7, 0.06, BOTTOM)
    m.blob(0, 0, 0.62, 0.62, EXTRA, 1.05)
    m.blob(0, 0, 0.46, 0.46, SKIN, 1.15)
    m.limb(-0.25, 0, 0.09, 0.25, 0, 0.09, EXTRA)


def _balloons(m: Drawing) -> None:
    for x, y, part in ((-0.55, 0.1, EXTRA), (0.5, -0.1, TOP), (0.0, 0.55, HAIR)):
        m.limb(x, y, 0.02, 0.0, 4.2, 0.02, BOTTOM)
        m.blob(x, y, 0.42, 0.52, part, 1.15)
        m.blob(x - 0.14, y - 0.2, 0.1, 0.12, SKIN, 1.2)


def _bush(m: Drawing) -> None:
    for i in range(46):
        u, v = (i * 0.618034) % 1, (i + 0.5) / 46
        half = 1.05 - 0.35 * abs(2 * v - 0.9)
        m.blob(
            (2 * u - 1) * half, 3.9 + 2.6 * v, 0.3, 0.27, EXTRA if i % 5 == 0 else TOP, 0.72 + 0.4 * ((i * 0.7548) % 1)
        )


def _bollard(m: Drawing) -> None:
    m.limb(0, 4.9, 0.24, 0, 6.5, 0.3, BOTTOM, 0.9)
    m.blob(0, 4.55, 0.36, 0.36, EXTRA)


def _bin(m: Drawing) -> None:
    m.limb(0, 4.6, 0.52, 0, 6.35, 0.46, BOTTOM)
    m.blob(0, 4.3, 0.56, 0.22, EXTRA, 0.6)


def _parasol(m: Drawing) -> None:
    m.limb(0, 0.2, 0.06, 0, 6.7, 0.06, BOTTOM)
    for x, part in ((-0.85, TOP), (0.85, TOP), (-0.42, EXTRA), (0.42, EXTRA), (0.0, TOP)):
        m.blob(x, 0.35, 0.46, 0.95 - 0.45 * abs(x), part, above=0.35)


def _stone(m: Drawing) -> None:
    m.blob(-0.3, 6.3, 0.75, 0.5, BOTTOM, 0.95, above=6.65)
    m.blob(0.55, 6.4, 0.5, 0.36, BOTTOM, 0.8, above=6.65)


def _planter(m: Drawing) -> None:
    m.limb(-0.5, 6.2, 0.4, 0.5, 6.2, 0.4, BOTTOM, 0.9)
    for i in range(18):
        m.blob(
            -0.8 + 1.6 * ((i * 0.618034) % 1),
            5.2 + 0.6 * (i / 18),
            0.24,
            0.22,
            (TOP, TOP, EXTRA)[i % 3],
            0.8 + 0.02 * i,
        )


_LOW = ((-0.6, 4.2, 0.6, FEET),)

LOOKS: tuple[Look, ...] = (
    _person("front", "short"),
    _person("front", "short", "crossed"),
    _person("front", "short", "phone"),
    _person("front", "long", skirt=True),
    _person("front", "long", "cheer"),
    _person("front", "beard", bag=True),
    _person("front", "bald"),
    _person("front", "bun", "crossed", skirt=True),
    _person("front", "cap"),
    _person("front", "veil"),
    _person("front", "sunhat"),
    _person("back", "short"),
    _person("back", "short", "cheer"),
    _person("back", "short", bag=True),
    _person("back", "long"),
    _person("back", "long", "phone", skirt=True),
    _person("back", "bun", bag=True),
    _person("back", "bald"),
    _person("back", "cap"),
    _person("back", "veil"),
    _person("back", "sunhat", skirt=True),
    _person("side", "short"),
    _person("side", "long"),
    _person("side", "beard", bag=True),
    _person("side", "bun"),
    _person("side", "cap", bag=True),
    _person("side", "veil"),
    Look("lamp", False, "", ((-0.4, -0.4, 0.4, 0.4),), _lamp),
    Look("sign", False, "", ((-0.6, -0.6, 0.6, 0.6),), _sign),
    Look("balloons", False, "", ((-0.95, -0.4, 0.9, 0.9),), _balloons),
    Look("bush", False, "", ((-0.9, 4.0, 0.9, FEET),), _bush),
    Look("bollard", False, "", _LOW, _bollard),
    Look("bin", False, "", _LOW, _bin),
    Look("parasol", False, "", ((-1.2, -0.5, 1.2, 0.4),), _parasol),
    Look("stone", False, "", ((-1.0, 5.9, 1.0, FEET),), _stone),
    Look("planter", False, "", ((-0.9, 5.0, 0.9, FEET),), _planter),
)


@cache
def _drawing(look: int) -> Drawing:
    drawing = Drawing()
    LOOKS[look].draw(drawing)
    return drawing


@cache
def sprite(look: int, size: float, half_x: bool, half_y: bool) -> Sprite:
    """A look (index into `LOOKS`) at one size, made when first asked for; see `sprites.reduced`."""
    return reduced(_drawing(look), size, half_x, half_y)
