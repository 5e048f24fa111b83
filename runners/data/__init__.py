"""Data: datasets, annotation noise, the prepared cache, and what feeds training and evaluation.

    from runners import data
    dataset = data.build("shanghaitech_b", root="~/data", scale=0.5)
    prepared = data.cache.prepare(dataset, "train")

Importing this package loads nothing heavy. A dataset is one file, `runners/data/datasets/<name>.py`, and `<name>` is
its name everywhere.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from functools import cache as _memoise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runners.data.datasets.base import CrowdDataset

__all__ = ["build", "check_params", "load", "names"]

_SUBMODULES = frozenset({"cache", "check", "loader", "noise", "places", "reading", "transforms"})


@_memoise
def names() -> tuple[str, ...]:
    """The names of all datasets, sorted. Reads file names only."""
    folder = str(Path(__file__).parent / "datasets")
    return tuple(sorted(m.name for m in pkgutil.iter_modules([folder]) if m.name[0] != "_" and m.name != "base"))


def load(name: str) -> type[CrowdDataset]:
    """The class of a dataset by name.

    Raises:
        ValueError: If there is no such dataset; the message suggests the nearest names.
    """
    if name not in names():
        raise ValueError(f"unknown dataset {name!r}.{_suggest(name, names())} Known: {', '.join(names())}")
    from runners.data.datasets.base import CrowdDataset

    module = importlib.import_module(f"runners.data.datasets.{name}")
    found = [
        member
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, CrowdDataset) and member.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ImportError(
            f"{module.__file__} must define exactly one CrowdDataset; found {[c.__name__ for c in found]}"
        )
    return found[0]


def check_params(name: str, params: dict[str, Any]) -> None:
    """Checks names of a dataset's parameters without building it (planning time).

    Raises:
        ValueError: If the dataset is unknown.
        TypeError: If a parameter is unknown; the message lists the known ones.
    """
    known = _parameters(load(name))
    for param in params:
        if param not in known:
            raise TypeError(
                f"dataset {name} has no parameter {param!r}.{_suggest(param, known)} Known: {', '.join(known)}"
            )


def build(name: str, root: Path | str | None = None, **params: Any) -> CrowdDataset:
    """Builds a dataset by name: `build("shanghaitech_b", root="~/data", scale=0.5)`.

    Args:
        name: One of `names()`.
        root: The dataset's folder, its parent, or a folder that holds all datasets. None: the environment variable
            CROWD_DATA, else `./data`.
        **params: The dataset's own parameters.

    Raises:
        ValueError: If the name or the value of a parameter is wrong, or the dataset is not found under `root`.
        TypeError: If a parameter is unknown; the message lists the known ones.
    """
    check_params(name, params)
    return load(name)(root, **params)


def _parameters(cls: type[CrowdDataset]) -> list[str]:
    """The names that a dataset's constructor takes, those it hands on to its base as **params included."""
    found: list[str] = []
    for owner in cls.__mro__:
        if "__init__" in vars(owner):
            parameters = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
            found += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in found]
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return found


def _suggest(name: str, known: tuple[str, ...] | list[str]) -> str:
    near = difflib.get_close_matches(name, known)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def __getattr__(name: str) -> Any:
    """Loads `runners.data.cache`, `.noise`, ... when they are first asked for."""
    if name in _SUBMODULES:
        return importlib.import_module(f"runners.data.{name}")
    raise AttributeError(f"module 'runners.data' has no attribute {name!r}")
