"""Random numbers that are the same on every machine and with every version of numpy.

numpy promises stability for the raw words of a bit generator, not for the distributions made from them. So all numbers
here come from raw words of Philox, by operations that IEEE 754 rounds exactly: no logarithm, sine or power, whose last
bit depends on the machine's mathematical library.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stream"]

_UNIT = 2.0**-53


class Stream:
    """A stream of random numbers named by its key; equal keys give equal numbers, different keys unrelated ones.

    Args:
        *key: The parts of the name, for example `("layout", seed, split, index)`.
    """

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
        self._bits = np.random.Philox(key=int.from_bytes(digest[:16], "little"))

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """Uniform numbers in [0, 1)."""
        words = np.asarray(self._bits.random_raw(math.prod(shape)))
        return ((words >> np.uint64(11)) * _UNIT).reshape(shape)

    def between(self, low: float, high: float) -> float:
        """One uniform number in [low, high)."""
        return low + (high - low) * float(self.uniform(1)[0])

    def below(self, stop: int, *shape: int) -> NDArray[np.int64]:
        """Uniform integers in 0 .. stop - 1."""
        return (self.uniform(*shape) * stop).astype(np.int64)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return float(self.uniform(1)[0]) < probability

    def pick(self, weights: dict[str, float]) -> str:
        """One of the keys, with probability proportional to its weight."""
        at = self.between(0.0, math.fsum(weights.values()))  # sum() of floats differs between versions of Python
        for name, weight in weights.items():
            at -= weight
            if at < 0:
                return name
        return name

    def choose(self, items: Sequence[Any]) -> Any:
        """One of the items, each as likely."""
        return items[int(self.below(len(items), 1)[0])]

    def geometric(self, low: float, high: float) -> float:
        """A log-uniform number in [low, high): every doubling is as likely as any other.

        low * (high / low)^u, with u read bit by bit: each bit stands for a factor that is the root of the one before,
        and square roots, unlike powers, are rounded exactly everywhere.
        """
        value, factor = float(low), float(high) / float(low)
        word = int(self.below(1 << 24, 1)[0])
        for bit in range(23, -1, -1):
            factor = math.sqrt(factor)
            if word >> bit & 1:
                value *= factor
        return value

    def octets(self, *shape: int) -> NDArray[np.uint8]:
        """Uniform integers in 0 .. 255, eight from one raw word: cheap noise for pixels."""
        count = math.prod(shape)
        words = np.asarray(self._bits.random_raw(-(-count // 8)))
        return words.astype("<u8").view(np.uint8)[:count].reshape(shape)
