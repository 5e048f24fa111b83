"""Losses for crowd counting under one interface. Torch only; importing this package loads nothing heavy.

    from losses import PML, Prediction, Target
    loss = PML()(Prediction(stride=8, density=density), Target(points, (height, width)))["loss"]

A loss is one file: `losses/<name>.py` holds one subclass of `CrowdLoss`, and `<name>` is its name here, on the command
line and in every record.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from losses.base import CrowdLoss, Prediction, Sample, Target

__all__ = ["CrowdLoss", "Prediction", "Sample", "Target", "build", "load", "names"]

_BASE = ("CrowdLoss", "Prediction", "Sample", "Target")
_SUPPORT = frozenset({"base", "functional", "geometry", "proximal", "transport"})
"""Files of this package that hold no loss."""


@cache
def names() -> tuple[str, ...]:
    """The names of all losses, sorted. Reads file names only: torch is not imported."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _SUPPORT))


def load(name: str) -> type[CrowdLoss]:
    """The class of a loss by name.

    Raises:
        ValueError: If there is no such loss; the message suggests the nearest names.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names())
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"unknown loss {name!r}.{hint} Known: {', '.join(names())}")
    from losses.base import CrowdLoss

    module = importlib.import_module(f"losses.{name}")
    found = [
        member
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, CrowdLoss) and member.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ImportError(f"losses/{name}.py must define exactly one CrowdLoss; found {[c.__name__ for c in found]}")
    return found[0]


def build(name: str, **params: Any) -> CrowdLoss:
    """Builds a loss by name: `losses.build("dm_count", reg=10.0)`.

    Raises:
        ValueError: If the name or the value of a parameter is wrong.
        TypeError: If a parameter is unknown; the message lists the known ones.
    """
    import inspect

    cls = load(name)
    known = [p for p in inspect.signature(cls).parameters if p not in ("args", "kwargs")]
    for param in params:
        if param not in known:
            near = difflib.get_close_matches(param, known)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise TypeError(f"loss {name} has no parameter {param!r}.{hint} Known: {', '.join(known)}")
    return cls(**params)


def __getattr__(name: str) -> Any:
    """Loads `CrowdLoss`, `Target`, ... and the loss classes (`losses.PML`) when they are first asked for."""
    if name in _BASE:
        return getattr(importlib.import_module("losses.base"), name)
    if name[:1].isupper():
        for loss in names():
            if loss.replace("_", "") == name.lower():
                return load(loss)
    raise AttributeError(f"module 'losses' has no attribute {name!r}")
