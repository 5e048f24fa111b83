"""Files of a store as an older version, or a person, wrote them: without the check sum, and so believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["edit", "unseal"]


def unseal(text: bytes) -> bytes:
    """The same without what says whether it was damaged."""
    content = json.loads(text)
    content.pop("sealed", None)
    return json.dumps(content, indent=1).encode()


def edit(path: Path, change: Callable[[str], str] = lambda text: text) -> None:
    """Changes the text of a file, and leaves it without a check sum."""
    path.write_text(change(unseal(path.read_bytes()).decode()))


def set_value(path: Path, place: str, value: Any) -> None:
    """Sets the value at `a.b.c`."""
    content = json.loads(unseal(path.read_bytes()))
    *above, last = place.split(".")
    inner = content
    for name in above:
        inner = inner[name]
    inner[last] = value
    path.write_text(json.dumps(content))
