"""What runs leave behind: the record's schema, the atomic store, and `results.load()` as a pandas DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.store import Store, load

__all__ = ["Store", "load"]


def __dir__() -> list[str]:
    """What can be asked for."""
    return list(__all__)


def __getattr__(name: str) -> Any:
    """Imports pandas only when the store is first asked for."""
    if name in __all__:
        import results.store

        return getattr(results.store, name)
    raise AttributeError(f"module 'results' has no attribute {name!r}")
