"""Ratios of sums over images, as means over images: how what is pooled enters the analysis of seeds and images.

Of S trained networks, each with a part n[s, i] and a whole d[s, i] on image i, a seed's ratio is r = sum n / sum d. Its
influence values x[i] = r + (n[i] - r d[i]) / mean(d) have the ratio as their mean, and its first-order variance over
images as theirs (the delta method). They take the place of the errors in the two-way analysis of `reports.stats`.
"""

from __future__ import annotations

import numpy as np

from reports.stats import Array

__all__ = ["divided", "influence", "per_seed"]


def per_seed(part: Array, whole: Array) -> Array:
    """The ratio of each seed, (S,), from (S, I) parts and wholes; NaN where the wholes sum to nothing."""
    return divided(part.sum(axis=1), whole.sum(axis=1))


def influence(part: Array, whole: Array) -> Array:
    """(S, I) influence values; NaN for a seed whose wholes sum to nothing."""
    size = whole.mean(axis=1, keepdims=True)
    ratio = divided(part.mean(axis=1, keepdims=True), size)
    found: Array = ratio + (part - ratio * whole) / np.where(size > 0, size, 1.0)
    return found


def divided(part: Array, whole: Array, empty: float = np.nan) -> Array:
    """The quotient, and `empty` where there is nothing to divide by."""
    found: Array = np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), empty)
    return found
