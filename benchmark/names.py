"""Names as people type them: `pml`, `pml[count_norm=l2,tau=2]`, and what was meant when one is misspelt.

The lists of what exists are kept by the rooms that hold it (`losses.names()`,
`runners.data.names()`, `runners.backbones.names()`): a file there is a name here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from losses.discovery import shortened
from results.spec import Scalar

__all__ = ["Choice", "parse_choice", "parse_scalar", "split_choices"]

_CHOICE = re.compile(r"(?P<name>[A-Za-z0-9_:.\-/]+)(?:\[(?P<params>[^\[\]]*)\])?")


class Choice(NamedTuple):
    """A name with its parameters, as typed: `Choice("pml", {"tau": 2})` for `pml[tau=2]`."""

    name: str
    params: dict[str, Scalar]

    def __str__(self) -> str:
        """The canonical spelling, parameters sorted."""
        if not self.params:
            return self.name
        return f"{self.name}[{','.join(f'{k}={_spell(v)}' for k, v in sorted(self.params.items()))}]"


def parse_scalar(text: str) -> Scalar:
    """Reads one value: integer, float, true/false, none, else the text itself."""
    lowered = text.strip().lower()
    words: Mapping[str, Scalar] = {"true": True, "false": False, "none": None}
    if lowered in words:
        return words[lowered]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip()


def parse_choice(text: str) -> Choice:
    """Reads `NAME` or `NAME[parameter=value,parameter=value]`.

    Raises:
        ValueError: If the text has another form, or a key is given twice.
    """
    match = _CHOICE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"cannot read {shortened(text)}; expected NAME or NAME[parameter=value,...]")
    params: dict[str, Scalar] = {}
    for item in filter(None, (match["params"] or "").split(",")):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals or not key.isidentifier():
            raise ValueError(f"cannot read {shortened(item)} in {shortened(text)}; expected parameter=value")
        if key in params:
            raise ValueError(f"{shortened(key)} is given twice in {shortened(text)}")
        found = parse_scalar(value)
        if isinstance(found, int) and abs(found) > sys.float_info.max:
            raise ValueError(
                f"{key[:60]} in {shortened(text)} is a number of {len(value)} digits, which no parameter takes"
            )
        params[key] = found
    return Choice(match["name"], params)


def split_choices(texts: Iterable[str]) -> list[Choice]:
    """Reads a list of choices, each item one choice or several separated by commas outside brackets."""
    return [parse_choice(part) for text in texts for part in _parts(text) if part.strip()]


def _parts(text: str) -> list[str]:
    """What stands between the commas outside brackets, in one pass: a stranger's text may have very many commas."""
    parts, open_ = [""], False
    for piece in re.findall(r"[^,\[\]]+|.", text, re.DOTALL):
        if piece == "," and not open_:
            parts.append("")
            continue
        open_ = piece == "[" or (open_ and piece != "]")
        parts[-1] += piece
    return parts


def _spell(value: Scalar) -> str:
    """The inverse of `parse_scalar`."""
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
