"""Data: datasets, annotation noise, the prepared cache, and what feeds training and evaluation.

    from runners import data
    dataset = data.build("shanghaitech_b", root="~/data", scale=0.5)
    prepared = data.cache.prepare(dataset, "train")

Importing this package loads nothing heavy. A dataset is one file, `runners/data/datasets/<name>.py`, and `<name>` is
its name everywhere.
"""

from __future__ import annotations

import importlib
from functools import cache as _memoise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losses import discovery
from losses.discovery import check_known, files, only_class

if TYPE_CHECKING:
    from runners.data.datasets.base import CrowdDataset

__all__ = ["build", "check_params", "load", "names"]

_SUBMODULES = frozenset({"cache", "check", "loader", "noise", "places", "reading", "transforms"})


@_memoise
def names() -> tuple[str, ...]:
    """The names of all datasets, sorted. Reads file names only."""
    return files(Path(__file__).parent / "datasets", without=("base",))


def load(name: str) -> type[CrowdDataset]:
    """The class of a dataset by name.

    Raises:
        ValueError: If there is no such dataset; the message suggests the nearest names.
    """
    check_known("dataset", name, names())
    from runners.data.datasets.base import CrowdDataset

    return only_class(f"runners.data.datasets.{name}", CrowdDataset)


def check_params(name: str, params: dict[str, Any]) -> None:
    """Checks names of a dataset's parameters without building it (planning time).

    Raises:
        ValueError: If the dataset is unknown.
        TypeError: If a parameter is unknown; the message lists the known ones.
    """
    discovery.check_params(f"dataset {name}", load(name), params, hidden=("root",))


def build(name: str, root: Path | str | None = None, **params: Any) -> CrowdDataset:
    """Builds a dataset by name: `build("shanghaitech_b", root="~/data", scale=0.5)`.

    Args:
        name: One of `names()`.
        root: The dataset's folder, its parent, or a folder that holds all datasets. None: the environment variable
            CROWD_DATA, else `./data`.
        **params: The dataset's own parameters.

    Raises:
        ValueError: If the name or the value of a parameter is wrong, or the dataset is not found under `root`.
        TypeError: If a parameter is unknown, with the known ones, or a value is of the wrong kind.
    """
    check_params(name, params)
    try:
        return load(name)(root, **params)
    except TypeError as error:  # a word where a number is compared
        typed = ", ".join(f"{key}={value!r}" for key, value in params.items())
        raise TypeError(f"a parameter is of the wrong kind among {typed}: {error}") from error


def __getattr__(name: str) -> Any:
    """Loads `runners.data.cache`, `.noise`, ... when they are first asked for."""
    if name in _SUBMODULES:
        return importlib.import_module(f"runners.data.{name}")
    raise AttributeError(f"module 'runners.data' has no attribute {name!r}")
