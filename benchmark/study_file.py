"""A YAML file of a stranger as plain values, each with the line on which it stands.

`yaml.safe_load` keeps the last of two equal keys, follows aliases without bound, fails on deep nesting with a
`RecursionError` and on impossible dates and numbers with whatever Python says. Here each of these is an error with a
line. Merge keys (`<<`) are refused: a few of them can stand for very many values.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.constructor import SafeConstructor
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from results.atomic import printable
from results.limits import limit, read_bounded

__all__ = ["MOST", "Located", "StudyError", "listed", "misread", "one_line", "read"]

_DEPTH = 20
"""Levels of nesting (ours): a study has three."""
_SEQUENCE, _MAPPING = "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "int", "null", "str")}
MOST = 50
"""Problems of a study that are shown (ours)."""
_SHOWN = 80
_SIXTIES = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_OCTAL = re.compile(r"[-+]?0[0-7_]*[0-7]")

Place = tuple[str | int, ...]
"""Keys and positions that lead to a value: `("seeds", 0)`."""


class StudyError(ValueError):
    """A study file that cannot be used. One line for each problem."""


class Located(NamedTuple):
    """Values, and where they stand.

    Attributes:
        values: The table.
        lines: The line of each value, counted from 1: of a table's value, its key's.
        words: Each number, truth value or nothing as it was typed: YAML takes `1:40` for 100.
    """

    values: dict[str, Any]
    lines: dict[Place, int]
    words: dict[Place, str]

    def line(self, place: Place) -> int:
        """The line of a value, or of the nearest thing around it that is there."""
        while place not in self.lines:
            place = place[:-1]
        return self.lines[place]


def one_line(text: str) -> str:
    """A stranger's word for a message: printable, and cut where it is long."""
    return printable(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")


def read(path: Path) -> Located:
    """Reads a table of values.

    Raises:
        StudyError: If the file cannot be read, is too large, is no YAML, or is no table with keys that are words, each
            there once; with its path and line.
    """
    text = _text(path)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        said = ": ".join(filter(None, (error.context, error.problem)))
        raise StudyError(f"{where}: no valid YAML: {one_line(said)}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise StudyError(f"{path}:{line}: no valid YAML: a character that YAML does not have, {error.reason}") from None
    except (yaml.YAMLError, ValueError, IndexError, RecursionError) as error:
        raise StudyError(f"{path}: no valid YAML: {one_line(str(error))}") from error
    if not isinstance(node, MappingNode):
        kind = "nothing" if node is None else "a list" if isinstance(node, SequenceNode) else "one value"
        raise StudyError(f"{path}:1: must hold a table of axes (losses: [...], ...); found {kind}")
    return _Values(path).table(node)


def misread(content: Located) -> Iterator[tuple[Place, str]]:
    """Numbers that YAML takes for others than whoever typed them: `1:40` for 100, `010` for 8; and what to write."""
    for place, word in content.words.items():
        value: Any = content.values
        for key in place:
            value = value[key]
        if _SIXTIES.fullmatch(word):
            yield (
                place,
                f"YAML takes {word!r} for {value}, in sixties; write {value}, or every number of a range: 1, 2, 3",
            )
        elif _OCTAL.fullmatch(word):
            yield (
                place,
                f"YAML takes {word!r} for {value}, in base eight; write {int(word.replace('_', ''))} or {value}",
            )


def _text(path: Path) -> str:
    """The characters of the file."""
    content = read_bounded(path, "CROWD_MAX_STUDY_BYTES", StudyError)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StudyError(f"{path}:{line}: no valid YAML: not UTF-8 text ({error.reason})") from None


class _Loader(yaml.SafeLoader):
    """Refuses what nests deeply before it overflows the stack."""

    depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """The next node, one level below its parent."""
        if self.depth > _DEPTH:
            said = f"nested more than {_DEPTH} levels deep; a study has three"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def listed(source: str, problems: Iterable[str]) -> str:
    """Problems one a line, each once, the first `MOST` of them."""
    lines = list(dict.fromkeys(problems))
    more = [f"{source}: and {len(lines) - MOST} more problems"] if len(lines) > MOST else []
    return "\n".join(lines[:MOST] + more)


class _Values:
    """Makes plain values of nodes; notes problems, and raises them all at the end."""

    def __init__(self, path: Path) -> None:
        self._path, self._constructor = path, SafeConstructor()
        self._problems: list[tuple[int, str]] = []
        self._lines: dict[Place, int] = {(): 1}
        self._words: dict[Place, str] = {}
        self._left = self._most = limit("CROWD_MAX_STUDY_VALUES")

    def table(self, node: MappingNode) -> Located:
        values = self._value(node, ())
        if self._problems:
            raise StudyError(
                listed(str(self._path), [f"{self._path}:{n}: {said}" for n, said in sorted(self._problems)])
            )
        return Located(values, self._lines, self._words)

    def _value(self, node: Node, place: Place) -> Any:
        """The value of a node, which may be an alias: then it is written out, and counted, each time."""
        self._left -= 1
        line = node.start_mark.line + 1
        if self._left < 0:
            raise StudyError(
                f"{self._path}:{line}: more than {self._most} values with all aliases written out, absurd for a study; "
                "else raise CROWD_MAX_STUDY_VALUES"
            )
        if len(place) > _DEPTH:
            raise StudyError(f"{self._path}:{line}: an alias stands for something that holds itself")
        self._lines.setdefault(place, line)
        if isinstance(node, MappingNode) and node.tag == _MAPPING:
            return self._mapping(node, place)
        if isinstance(node, SequenceNode) and node.tag == _SEQUENCE:
            return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node, place)
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        return self._note(line, place, f"a value of kind {one_line(tag)!r}; expected words, numbers, lists, tables")

    def _mapping(self, node: MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key, item in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                word = one_line(key.value) if isinstance(key, ScalarNode) else "a list or table"
                hint = " Write the fields out." if word == "<<" else " Put it in quotes." if word != key.value else ""
                self._note(line, place, f"the key {word} is no word.{hint}")
                continue
            name = self._scalar(key, (*place, "?"))
            if not isinstance(name, str):
                continue
            if name in first:
                self._note(line, (*place, name), f"given twice, on line {first[name]} and on line {line}; keep one")
                continue
            first[name] = self._lines[(*place, name)] = line
            found[name] = self._value(item, (*place, name))
        return found

    def _scalar(self, node: ScalarNode, place: Place) -> Any:
        line = node.start_mark.line + 1
        if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in node.value):
            return self._note(line, place, f"a character that cannot be printed in {one_line(node.value)!r}")
        try:
            value = self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError, KeyError, IndexError):  # an empty !!int, 5000 digits
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            return self._note(line, place, f"{one_line(node.value)!r} cannot be read as {kind}; put it in quotes")
        if not isinstance(value, str):
            self._words[place] = node.value
        return value

    def _note(self, line: int, place: Place, said: str) -> None:
        """Keeps a problem; its value is nothing."""
        where = ".".join(map(str, place))
        self._problems.append((line, f"{one_line(where)}: {said}" if where else said))
