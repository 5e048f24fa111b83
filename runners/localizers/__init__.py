"""Localizers: from a density or proposals to points with scores.

from runners import localizers
from runners.localizers import Field

located = localizers.build("otm")(Field(stride=8, size=(768, 1024), density=density))
located.points  # [m, 2], (x, y), pixels of the network's input
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from losses.discovery import check_known, check_params, files, only_class, parameters
from runners.localizers.base import Field, Localizer, Located, NoThresholdError

__all__ = ["Field", "Localizer", "Located", "NoThresholdError", "build", "defaults", "load", "names"]


@cache
def names() -> tuple[str, ...]:
    """All localizers, sorted."""
    return files(Path(__file__).parent, without=("base",))


def load(name: str) -> type[Localizer]:
    """The class of a localizer.

    Raises:
        UnknownNameError: If there is none of this name.
    """
    check_known("localizer", name, names())
    return only_class(f"runners.localizers.{name}", Localizer)


def defaults(name: str) -> dict[str, Any]:
    """Every parameter of a localizer with its default.

    Raises:
        UnknownNameError: If there is none of this name.
    """
    return dict(parameters(load(name)))


def build(name: str, **params: Any) -> Localizer:
    """A localizer with these parameters.

    Raises:
        UnknownNameError: If there is none of this name.
        TypeError: If it has no such parameter.
        ValueError: If a value is out of range.
    """
    kind = load(name)
    check_params(name, kind, params)
    return kind(**params)
