"""A file is a name: how the rooms of this project find their members, and what was meant when one is misspelt.

Standard library only, so that lists of names cost nothing.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["UnknownNameError", "check_known", "check_params", "files", "only_class", "shortened", "suggestion"]

_LONGEST = 80
"""Characters of a stranger's word that an error repeats (ours)."""

_Base = TypeVar("_Base")


class UnknownNameError(ValueError):
    """A name that nothing answers to; the message says what is known and what was probably meant."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """`" Did you mean pml?"`, or nothing where no known word is near."""
    near = difflib.get_close_matches(word[:_LONGEST], list(known), cutoff=0.5)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def shortened(word: object) -> str:
    """The word as an error repeats it, in quotes, cut where it is absurdly long."""
    text = repr(word)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def check_known(kind: str, word: str, known: Iterable[str]) -> None:
    """Raises `UnknownNameError` unless `word` is one of `known`."""
    known = list(known)
    if word not in known:
        raise UnknownNameError(f"unknown {kind} {shortened(word)}.{suggestion(word, known)} Known: {', '.join(known)}")


def check_params(owner: str, target: Callable[..., Any], params: Iterable[str], hidden: Collection[str] = ()) -> None:
    """Raises TypeError unless `target` has all of `params`; the message lists the known ones but for `hidden`."""
    known = [name for name in parameters(target) if name not in hidden]
    for param in params:
        if param not in known:
            hint = suggestion(param, known)
            raise TypeError(f"{owner} has no parameter {shortened(param)}.{hint} Known: {', '.join(known)}")


def parameters(target: Callable[..., Any]) -> dict[str, Any]:
    """The named parameters of a class or function with their defaults; `**params` passes on to the bases."""
    found: dict[str, Any] = {}
    for cls in target.__mro__ if isinstance(target, type) else (target,):
        passes_on = False
        for parameter in inspect.signature(cls).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                passes_on = True
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                found.setdefault(parameter.name, parameter.default)
        if not passes_on:
            break
    return found


def files(folder: Path | str, without: Collection[str] = ()) -> tuple[str, ...]:
    """The names of the modules in a folder, sorted, but for those `without` and those that begin with an underscore."""
    found = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return tuple(sorted(name for name in found if name not in without and not name.startswith("_")))


def only_class(module: str, base: type[_Base]) -> type[_Base]:
    """The one subclass of `base` that a module defines.

    Raises:
        ImportError: If it defines none, or several.
    """
    members = vars(importlib.import_module(module)).values()
    found: list[type[_Base]] = [
        m for m in members if isinstance(m, type) and issubclass(m, base) and m.__module__ == module
    ]
    if len(found) != 1:
        raise ImportError(f"{module} must define exactly one {base.__name__}; found {[m.__name__ for m in found]}")
    return found[0]
