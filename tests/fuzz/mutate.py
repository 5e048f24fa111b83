"""Damaged and hostile variants of sound files, drawn from a seed: bytes, tokens and structures are changed.

An input is a function of (target, seed, index) alone: a finding can be made again from the three.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import yaml

__all__ = ["NUMBERS", "TOKENS", "mutated"]

NUMBERS = ["0", "-1", "1", "255", "256", "65535", "2147483647", "2147483648", "-2147483649", "4294967295"]
NUMBERS += [
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "1e308",
    "1e309",
]
NUMBERS += [
    "-1e999",
    "5e-324",
    "0.1",
    "-0.0",
    "NaN",
    "nan",
    "Infinity",
    "-inf",
    "1_000",
    "0x1F",
    "0o17",
    "1:100",
    "٣",
    "²",
]
NUMBERS += ["9" * 400, "1" * 5000, "1e" + "9" * 30, "0." + "1" * 300]

_WORDS = [
    "",
    " ",
    "\0",
    "\n",
    "\u2028",
    "\ud7ff",
    "é",
    "人群",
    "𝔘",
    "\u202e",
    "../../x",
    "/etc/passwd",
    "a" * 5000,
    "null",
]
_WORDS += ["true", "~", "<script>", "=1+1", "%s%n", "\\ud800", "\x1b[2J", "C:\\x", "none", "on"]

TOKENS: dict[str, list[str]] = {
    "yaml": [
        "&a ",
        "*a",
        "<<: *a",
        "- ",
        ": ",
        "? ",
        "!!python/object/apply:os.system ['true']",
        "!!binary x",
        "!!set {a}",
        "!!int ''",
        "!!float x",
        "!!timestamp x",
        "2001-99-99",
        "2001-01-01",
        "---\n",
        "...\n",
        "%YAML 9.9\n",
        "%TAG ! x\n",
        "|\n",
        ">-\n",
        "\t",
        "[" * 200,
        "{" * 200,
        "{a: " * 50,
        "&a [*a]",
        '"\\x00"',
        '"\\ud800"',
        "'",
        '"',
        "@",
        "`",
        "#",
        "losses: [l2]\n",
        "seeds: [0]\n",
        "overrides: {lr: .inf}\n",
        "=",
        "!",
        "!!null x",
        "!<tag:yaml.org,2002:int> x",
    ],
    "json": [
        "[" * 2000,
        "{" * 50,
        '{"a":' * 1500,
        "]",
        "}",
        ",",
        ":",
        '""',
        '"\\ud800"',
        "null",
        "true",
        "[]",
        "{}",
        "//",
        '"points":',
        '"images":',
        '"id":1,',
        '"schema_version": 2,',
        '"spec": {},',
        '"\\u0000"',
        "\ufeff",
    ],
    "csv": [",", '"', "\n", "\r", ",,,,", '""', ";", "\t", "image,x,y\n", '"a\nb"', "'=x", "\ufeff", "a.png,1,2\n"],
    "text": [" ", "\n", "\t", "1 2 ", "0 0\n", "\x0b", "\x1c", "\x85", "\xa0"],
    "binary": [],
}
_BLOCKS = [
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"\0\0\0\x80",
    b"\x01\0",
]
_BLOCKS += [
    b"IHDR",
    b"IDAT",
    b"IEND",
    b"zTXt",
    b"iCCP",
    b"\xff\xd8\xff\xdb",
    b"\xff\xc0",
    b"\xff\xda",
    b"RIFF",
    b"WEBPVP8L",
]
_BLOCKS += [
    b"BM",
    b"MATLAB",
    b"\x0e\0\0\0",
    b"\x0f\0\0\0",
    b"\x01\0\x01\0",
    b"PAR1",
    b"PK\x03\x04",
    b"\x80\x02c",
    b"x\x9c",
]

Mutation = Callable[[random.Random, bytes, Sequence[bytes], str], bytes]


def mutated(rng: random.Random, corpus: Sequence[bytes], kind: str) -> bytes:
    """One variant of a sound file.

    Args:
        rng: Of this input alone.
        corpus: Sound files.
        kind: A key of `TOKENS`: what the files are made of.
    """
    content = rng.choice(corpus)
    chosen = _BY_KIND.get(kind, _OF_BYTES)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        mutation = rng.choice(chosen)
        content = mutation(rng, content, corpus, kind)
    return content[: 1 << 18]


# ---------------------------------------------------------------------------------------------------------------------
# Bytes


def _flip(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 10, 34, 127, 128, 255, rng.randrange(256)))
    return bytes(changed)


def _cut(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] if rng.random() < 0.8 else content[at:]


def _remove(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    start, size = rng.randrange(len(content) + 1), _size(rng)
    return content[:start] + content[start + size :]


def _repeat(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    start, size = rng.randrange(len(content) + 1), _size(rng)
    return content[: start + size] + content[start : start + size] * rng.choice((1, 1, 2, 30)) + content[start + size :]


def _splice(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    other = rng.choice(corpus)
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def _block(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    at, block = rng.randrange(len(content) + 1), rng.choice(_BLOCKS)
    return content[:at] + block + content[at + len(block) * rng.randrange(2) :]


def _token(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    token = rng.choice(rng.choice((TOKENS[kind] or NUMBERS, NUMBERS, _WORDS))).encode()
    at = rng.randrange(len(content) + 1)
    return content[:at] + token + content[at + rng.choice((0, 0, 1, len(token))) :]


def _number(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    """Puts another number, or a word, in the place of one of the file's words."""
    text = content.decode("utf-8", "surrogateescape")
    starts = [
        i for i, c in enumerate(text) if c.isalnum() and (i == 0 or not (text[i - 1].isalnum() or text[i - 1] in "._"))
    ]
    if not starts:
        return content
    start = end = rng.choice(starts)
    while end < len(text) and (text[end].isalnum() or text[end] in "._+-"):
        end += 1
    word = rng.choice(NUMBERS if rng.random() < 0.7 else _WORDS)
    return (text[:start] + word + text[end:]).encode("utf-8", "surrogateescape")


def _line(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    lines = content.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    if rng.random() < 0.5:
        lines[at], lines[other] = lines[other], lines[at]
    elif rng.random() < 0.5:
        lines.insert(at, lines[other])
    else:
        del lines[at]
    return b"\n".join(lines)


def _size(rng: random.Random) -> int:
    return rng.choice((1, 2, 3, 4, 8, 16, 64, 300))


# ---------------------------------------------------------------------------------------------------------------------
# Structures


def _json(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    """Changes values of a JSON file, or of one of its lines; one that is no JSON is changed as bytes."""
    lines = content.split(b"\n")
    whole = _loaded(content)
    if whole is not _NOTHING:
        return _dumped(_changed(rng, whole))
    at = rng.randrange(len(lines))
    value = _loaded(lines[at])
    if value is _NOTHING:
        return _flip(rng, content, corpus, kind)
    lines[at] = _dumped(_changed(rng, value))
    return b"\n".join(lines)


def _yaml(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    try:
        value = _LOADER(content).get_single_data()
        changed = _changed(rng, value)
        return yaml.dump(changed, Dumper=_DUMPER, allow_unicode=True, default_flow_style=rng.random() < 0.5).encode()
    except (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError, AttributeError):
        return _token(rng, content, corpus, kind)


def _csv(rng: random.Random, content: bytes, corpus: Sequence[bytes], kind: str) -> bytes:
    """Changes, moves, repeats or removes cells, rows and columns."""
    rows = [line.split(",") for line in content.decode("utf-8", "replace").split("\n")]
    row = rng.choice(rows)
    at = rng.randrange(len(row))
    act = rng.randrange(6)
    if act == 0:
        row[at] = rng.choice(NUMBERS + _WORDS)
    elif act == 1:
        del row[at]
    elif act == 2:
        row.insert(at, rng.choice(row))
    elif act == 3:
        rng.shuffle(rows[0])
    elif act == 4:
        rows.insert(rng.randrange(len(rows)), rng.choice(rows))
    else:
        for other in rows:
            if len(other) > at:
                del other[at]
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n", escapechar="\\").writerows(rows)
    return sink.getvalue().encode("utf-8", "replace")


_NOTHING = object()
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _loaded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return _NOTHING


def _dumped(value: Any) -> bytes:
    text = json.dumps(value)
    for number in NUMBERS:
        text = text.replace(f'"\\u0001{number}"', number)  # numbers that Python would not write
    return text.encode()


def _changed(rng: random.Random, value: Any) -> Any:
    """The value with one of its parts replaced, removed, repeated, renamed or wrapped."""
    places = list(_places(value, ()))
    if not places:
        return _other(rng, value)
    path = rng.choice(places)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    last, act = path[-1], rng.randrange(6)
    if act == 0:
        del holder[last]
    elif act == 1 and isinstance(holder, list):
        holder += [holder[last]] * rng.choice((1, 2, 50))
    elif act == 1:
        holder[rng.choice(_WORDS)] = holder[last]
    elif act == 2:
        for _ in range(rng.choice((1, 2, 30, 120))):
            holder[last] = [holder[last]] if rng.random() < 0.5 else {"a": holder[last]}
    elif act == 3:
        other: Any = value
        for key in rng.choice(places):
            other = other[key]
        holder[last] = json.loads(json.dumps(other, default=str)) if not isinstance(other, float) else other
    else:
        holder[last] = _other(rng, holder[last])
    return value


def _other(rng: random.Random, value: Any) -> Any:
    """A value of another kind, or an extreme one of the same."""
    return rng.choice(
        [
            None,
            True,
            False,
            "",
            [],
            {},
            [[]],
            [None],
            {"": {}},
            0,
            -1,
            2**31,
            2**63,
            -(2**64),
            10**400,
            1e308,
            0.5,
            float("nan"),
            float("inf"),
            rng.choice(_WORDS),
            f"\x01{rng.choice(NUMBERS)}",
            [value, value],
            {"x": value},
            str(value)[:200],
            [1, 2],
            [[1, 2], [3]],
            "\ud800" if rng.random() < 0.2 else "x",
        ]
    )


def _places(value: Any, path: tuple[Any, ...]) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(items)[:40]:
        yield (*path, key)
        if len(path) < 8:
            yield from _places(part, (*path, key))


_OF_BYTES: list[Mutation] = [_flip, _set, _cut, _remove, _repeat, _splice, _block, _flip, _set]
_OF_TEXT: list[Mutation] = [_flip, _cut, _remove, _repeat, _splice, _token, _token, _number, _number, _line]
_BY_KIND: dict[str, list[Mutation]] = {
    "binary": _OF_BYTES,
    "text": _OF_TEXT,
    "csv": [*_OF_TEXT, *[_csv] * 5],
    "json": [*_OF_TEXT, *[_json] * 8],
    "yaml": [*_OF_TEXT, *[_yaml] * 8],
}
