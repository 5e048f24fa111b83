"""Machine code from Python loops, for sums over few entries that no library has as one call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache

__all__ = ["allowing", "compiled"]

_Function = TypeVar("_Function", bound=Callable[..., object])

numba.config.SLP_VECTORIZE = 1  # sums that are written side by side become one vector


class _Kept(FunctionCache):  # type: ignore[misc]
    """Numba's files of compiled code; one that is damaged, or cannot be written, costs the time to compile again."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code for some types of arguments, or None."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever a torn file raises
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keeps it, where there is room."""
        with suppress(OSError):
            super().save_overload(sig, data)


def compiled(function: _Function) -> _Function:
    """The function as numba compiles it: at its first call, seconds; kept beside its file, or in the user's cache.

    Divisions follow IEEE 754. Sums are made in the order that is written.
    """
    return allowing()(function)


def allowing(*liberties: str) -> Callable[[_Function], _Function]:
    """`compiled`, with liberties: LLVM's fast-math flags, such as "contract" (a product and a sum are rounded once)."""

    def decorate(function: _Function) -> _Function:
        return _made(function, numba.njit(error_model="numpy", fastmath=set(liberties), nogil=True))

    return decorate


def _made(function: _Function, compiler: Callable[[_Function], Any]) -> _Function:
    """The compiled function, with a cache where it can have one."""
    made = compiler(function)
    with suppress(RuntimeError):  # no folder can be written: compiled anew in every process
        made._cache = _Kept(function)
    return cast(_Function, made)
