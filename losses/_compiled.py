"""Machine code from Python loops, for sums over few entries that no library has as one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

__all__ = ["compiled"]

_Function = TypeVar("_Function", bound=Callable[..., object])

numba.config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]  # sums that are written side by side become one vector


def compiled(function: _Function) -> _Function:
    """The function as numba compiles it: at its first call, seconds; kept beside its file, or in the user's cache.

    Divisions follow IEEE 754. Sums are made in the order that is written.
    """
    try:
        return cast(_Function, numba.njit(cache=True, error_model="numpy")(function))
    except RuntimeError:  # no folder can be written: compiled anew in every process
        return cast(_Function, numba.njit(error_model="numpy")(function))
