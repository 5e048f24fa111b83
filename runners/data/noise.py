"""Annotation noise: wrong labels for the training part, the very same ones for every loss.

    noise = parse("uniform-px:8+missing:0.1")
    noisy = noise.apply(points, (height, width), key=("shanghaitech_b", "IMG_1", 0))

Levels are measured on the prepared (resized) image, before cropping. The kinds follow what is known of BL's and
NoiseCC's studies; neither paper's levels could be verified, so kinds and levels are *ours*, in their style. Validation
and test labels stay clean (ours). Parsing needs nothing but the standard library, so planning may use it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from losses.discovery import suggestion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BORDER", "KINDS", "Noise", "Noisy", "Step", "clip", "parse"]

DUPLICATE_SIGMA = 4.0
"""Standard deviation of a duplicate around its original, pixels (ours)."""
BORDER = 2.0**-10
"""Points are kept this far from the right and bottom border, so that each one lies in a pixel; exact in float32."""


class Noisy(NamedTuple):
    """Labels after noise.

    Attributes:
        points: float64 [m, 2], inside the image.
        source: int64 [m], for each one the index of the original point it comes from.
    """

    points: NDArray[np.float64]
    source: NDArray[np.int64]


class Step(NamedTuple):
    """One kind of noise at one level."""

    kind: str
    level: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.level:.12g}"


class Noise(NamedTuple):
    """What is done to the labels: steps in the fixed order of `KINDS`. No steps: clean labels."""

    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        """The canonical name; noises that do the same have the same one."""
        return "+".join(map(str, self.steps)) or "none"

    def apply(self, points: NDArray[np.float64], image_size: tuple[int, int], key: tuple[str, str, int]) -> Noisy:
        """Labels with this noise, inside the image: what `draw` gives, points outside moved to the border.

        Args:
            points: See `draw`.
            image_size: See `draw`.
            key: See `draw`.
        """
        noisy = self.draw(points, image_size, key)
        return noisy._replace(points=clip(noisy.points, image_size)) if self.steps else noisy

    def draw(self, points: NDArray[np.float64], image_size: tuple[int, int], key: tuple[str, str, int]) -> Noisy:
        """Labels with this noise before they meet the border: they may lie outside. The input is not touched.

        Every kind draws from its own generator, seeded by the dataset, the image, the kind, the level and the noise
        seed: adding `+missing:0.1` does not change how the remaining points were displaced.

        Args:
            points: [n, 2] as (x, y), pixels of the prepared image.
            image_size: (H, W) of the prepared image.
            key: (dataset, image id, noise seed).
        """
        import numpy as np

        noisy = Noisy(np.array(points, dtype=np.float64).reshape(-1, 2), np.arange(len(points)))
        for step in self.steps:
            named = "\x1f".join(["annotation-noise", key[0], key[1], str(step), str(int(key[2]))])
            seed = int.from_bytes(hashlib.sha256(named.encode()).digest(), "big")
            noisy = KINDS[step.kind].act(noisy, step.level, image_size, np.random.default_rng(seed))
        return noisy


def parse(text: str) -> Noise:
    """Reads a noise by name: `none`, or `kind:level`, several joined by `+`.

    The order of the kinds does not matter and a level of 0 is no noise, so `str(parse(text))` is a canonical name.

    Raises:
        ValueError: If a kind is unknown (with suggestions) or named twice, or a level is missing or out of range.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"a noise is a name such as 'none' or 'uniform-px:8'; found {text!r}")
    if text.strip() == "none":
        return Noise()
    steps = [_parse_step(part.strip()) for part in text.split("+")]
    kinds = [step.kind for step in steps]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise ValueError(f"noise {text!r} names {kind} twice; give one level")
    order = list(KINDS)
    return Noise(tuple(sorted((s for s in steps if s.level), key=lambda step: order.index(step.kind))))


def _parse_step(part: str) -> Step:
    """Reads one `kind:level`."""
    kind, colon, level_text = part.partition(":")
    if kind not in KINDS:
        hint = suggestion(kind, KINDS)
        raise ValueError(f"unknown noise {kind!r}.{hint} Known: none, {', '.join(f'{k}:LEVEL' for k in KINDS)}")
    known = KINDS[kind]
    expected = f"{kind} needs a level from 0 to {known.most:g} ({known.unit}), such as {kind}:{known.example:g}"
    try:
        level = float(level_text)
    except ValueError:
        raise ValueError(f"{expected}; found {part!r}") from None
    if not colon or not math.isfinite(level) or not 0 <= level <= known.most:
        raise ValueError(f"{expected}; found {part!r}")
    return Step(kind, float(f"{level:.12g}"))


def clip(points: NDArray[np.float64], image_size: tuple[int, int]) -> NDArray[np.float64]:
    """Points moved into [0, W) x [0, H), those on the far borders by `BORDER`; a new array."""
    import numpy as np

    height, width = image_size
    return np.clip(points, 0.0, np.array([width, height]) - BORDER)


# ---------------------------------------------------------------------------------------------------------------------
# The kinds


def _uniform_height(noisy: Noisy, level: float, size: tuple[int, int], rng: np.random.Generator) -> Noisy:
    """dx, dy ~ U(-R H, R H), H the image's height: BL's way."""
    return _uniform_px(noisy, level * size[0], size, rng)


def _uniform_px(noisy: Noisy, level: float, size: tuple[int, int], rng: np.random.Generator) -> Noisy:
    """dx, dy ~ U(-L, L): NoiseCC's way."""
    return noisy._replace(points=noisy.points + level * rng.uniform(-1.0, 1.0, noisy.points.shape))


def _gaussian_px(noisy: Noisy, level: float, size: tuple[int, int], rng: np.random.Generator) -> Noisy:
    """dx, dy ~ N(0, S^2)."""
    return noisy._replace(points=noisy.points + level * rng.standard_normal(noisy.points.shape))


def _missing(noisy: Noisy, level: float, size: tuple[int, int], rng: np.random.Generator) -> Noisy:
    """Each point is left out with probability P, independently."""
    kept = rng.random(len(noisy.points)) >= level
    return Noisy(noisy.points[kept], noisy.source[kept])


def _duplicate(noisy: Noisy, level: float, size: tuple[int, int], rng: np.random.Generator) -> Noisy:
    """Each point is counted twice with probability P: a copy at N(0, DUPLICATE_SIGMA^2) beside it."""
    import numpy as np

    twice = rng.random(len(noisy.points)) < level
    copies = noisy.points[twice] + DUPLICATE_SIGMA * rng.standard_normal((int(twice.sum()), 2))
    return Noisy(np.concatenate([noisy.points, copies]), np.concatenate([noisy.source, noisy.source[twice]]))


class Kind(NamedTuple):
    """A kind of noise: what it does, the unit and the range of its level, and an example."""

    act: Callable[[Noisy, float, tuple[int, int], np.random.Generator], Noisy]
    unit: str
    most: float
    example: float


KINDS: dict[str, Kind] = {
    "uniform-height": Kind(_uniform_height, "share of the image's height", 1.0, 0.02),
    "uniform-px": Kind(_uniform_px, "pixels", 10_000.0, 8.0),
    "gaussian-px": Kind(_gaussian_px, "pixels", 10_000.0, 8.0),
    "missing": Kind(_missing, "probability", 1.0, 0.1),
    "duplicate": Kind(_duplicate, "probability", 1.0, 0.1),
}
"""Every kind, in the order in which combined ones are applied: positions, then missing ones, then duplicates."""
