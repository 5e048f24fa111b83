"""Losses for crowd counting under one interface. Torch only; importing this package loads nothing heavy.

    from losses import PML, Prediction, Target
    loss = PML()(Prediction(stride=8, density=density), Target(points, (height, width)))["loss"]

A loss is one file: `losses/<name>.py` holds one subclass of `CrowdLoss`, and `<name>` is its name here, on the command
line and in every record.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from losses.discovery import check_known, check_params, files, only_class

if TYPE_CHECKING:
    from losses.base import CrowdLoss, Prediction, Sample, Target

__all__ = ["CrowdLoss", "Prediction", "Sample", "Target", "build", "load", "names"]

_BASE = ("CrowdLoss", "Prediction", "Sample", "Target")
_SUPPORT = frozenset(
    {"base", "discovery", "functional", "geometry", "images", "parallel", "proximal", "proximal_table", "transport"}
)
"""Files of this package that hold no loss."""


@cache
def names() -> tuple[str, ...]:
    """The names of all losses, sorted. Reads file names only: torch is not imported."""
    return files(__path__[0], without=_SUPPORT)


def load(name: str) -> type[CrowdLoss]:
    """The class of a loss by name.

    Raises:
        ValueError: If there is no such loss; the message suggests the nearest names.
    """
    check_known("loss", name, names())
    from losses.base import CrowdLoss

    return only_class(f"losses.{name}", CrowdLoss)


def build(name: str, **params: Any) -> CrowdLoss:
    """Builds a loss by name: `losses.build("dm_count", reg=10.0)`.

    Raises:
        ValueError: If the name or the value of a parameter is wrong.
        TypeError: If a parameter is unknown; the message lists the known ones.
    """
    check_params(f"loss {name}", load(name), params)
    return load(name)(**params)


def __dir__() -> list[str]:
    """What can be asked for, the loss classes aside: their names are only known to their files."""
    return [*__all__, "functional"]


def __getattr__(name: str) -> Any:
    """Loads `functional`, `CrowdLoss`, `Target`, ... and the loss classes (`losses.PML`) when first asked for."""
    if name in _BASE:
        return getattr(importlib.import_module("losses.base"), name)
    if name == "functional":
        return importlib.import_module("losses.functional")
    if name[:1].isupper():
        for loss in names():
            if loss.replace("_", "") == name.lower():
                return load(loss)
    raise AttributeError(f"module 'losses' has no attribute {name!r}")
