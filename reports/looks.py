"""What tells one loss from another in every figure: its colour, marker and dash. Use them as `reports.style.looks`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

__all__ = ["Look", "looks"]

# Okabe and Ito's colours without black and yellow, which vanish on dark and on white pages, and two of ours; for each
# two shades (ours) for variants of the loss, apart from all else here by 0.055 or more in OKLab. A loss keeps its row.
_LOSSES: dict[str, tuple[str, str, str]] = {
    "bl": ("#0072B2", "#629FBE", "#5DA4FE"),
    "chfl": ("#E69F00", "#B18849", "#9E6C37"),
    "dm_count": ("#009E73", "#287447", "#38B26C"),
    "gl": ("#D55E00", "#A64B0E", "#F28C64"),
    "l2": ("#CC79A7", "#995D85", "#E58FD3"),
    "noisecc": ("#56B4E9", "#3B90D8", "#478298"),
    "p2p": ("#7F7F7F", "#686868", "#AAAAAA"),
    "pml": ("#7A52C7", "#8C79BF", "#9795DE"),
}
_OTHERS = ("#CB0F49", "#A67FFD", "#98AD85", "#B4279A")
"""Of losses that have no row above (ours)."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
_VARIANT_MARKERS = ("p", ">", "h", "*", "d")
_DASHES: tuple[tuple[float, ...], ...] = (
    (), (4, 1.3), (1, 1), (5, 1.2, 1, 1.2), (8, 1.5), (3, 1, 1, 1, 1, 1), (2, 1), (8, 1.2, 3, 1.2),
)  # fmt: skip
_VARIANTS = 10
"""Looks of a loss's variants: two shades by five markers."""
_SALT = 1124
"""Scatters variants over their looks, so that no two official ones nor those of PML in the README are alike (ours)."""


class Look(NamedTuple):
    """What tells one loss from another: each of the three suffices, so that a figure survives grey printing.

    Attributes:
        color: Hexadecimal.
        marker: A filled matplotlib marker.
        dash: On and off lengths in line widths; empty for a solid line.
    """

    color: str
    marker: str
    dash: tuple[float, ...]

    @property
    def line(self) -> tuple[float, tuple[float, ...]]:
        """The dash as matplotlib's `linestyle`."""
        return (0.0, self.dash)


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """The look of every label, in alphabetical order.

    A loss of the zoo has one look in every figure of every command. Its variants, such as `pml[count_norm=l2]`, have
    shades of its colour and markers that no loss has; which, the label alone says, but that of two variants of one loss
    that would look alike, the later takes the next look. Eleven variants of one loss repeat.

    Other losses take colours and markers of their own in alphabetical order, so that a single one has one look, too;
    from the fifth on, the colours of losses that are not here. Numbers, such as radii, have the colours of the zoo.
    Call it once with all labels of a report, and hand the result to every figure.
    """
    names = sorted(set(labels))
    bases = {name: _base(name) for name in names}
    strange = sorted({base for base in bases.values() if base not in _LOSSES})
    free = [color for loss, (color, *_) in _LOSSES.items() if loss not in bases.values()]
    numbers = all(name[:1].isdigit() for name in names)
    colors, first = ([*free, *_OTHERS], 0) if numbers else ([*_OTHERS, *free], len(_MARKERS))
    found: dict[str, Look] = {}
    taken: dict[str, set[int]] = {}
    for name in names:
        base = bases[name]
        if base not in _LOSSES:
            place = strange.index(base)
            found[name] = _place(colors[place % len(colors)], first + place)
        elif name == base:
            found[name] = _place(_LOSSES[base][0], list(_LOSSES).index(base))
        else:
            found[name] = _variant(base, name, taken.setdefault(base, set()))
    return found


def _base(label: str) -> str:
    """The loss that a label is a variant of, or the label itself where it is none of the zoo."""
    found = re.match(r"\w+", label)
    return found.group() if found and found.group() in _LOSSES else label


def _place(color: str, place: int) -> Look:
    """A colour with the marker and dash of a place."""
    markers = _MARKERS + _VARIANT_MARKERS
    return Look(color, markers[place % len(markers)], _DASHES[(place + place // len(_DASHES)) % len(_DASHES)])


def _variant(base: str, label: str, taken: set[int]) -> Look:
    """A shade of the loss's colour, with a marker of variants and not the loss's own dash."""
    number = int(sha256(f"{_SALT}{label}".encode()).hexdigest(), 16) % _VARIANTS
    while number in taken and len(taken) < _VARIANTS:
        number = (number + 1) % _VARIANTS
    taken.add(number)
    dash = list(_LOSSES).index(base) + 1 + number % (len(_DASHES) - 1)
    return Look(
        _LOSSES[base][1 + number % 2], _VARIANT_MARKERS[number % len(_VARIANT_MARKERS)], _DASHES[dash % len(_DASHES)]
    )
