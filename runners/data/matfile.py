"""A strict reader of MATLAB 5 files: numbers, cells and structures, which is all that annotations hold.

`scipy.io.loadmat` is not used because a damaged file can bring the whole process down (found by fuzzing: a bus error),
and because it unpacks without a limit. Here every length is checked against the bytes that are there. The tests compare
this reader with scipy's on sound files.

The format, from MathWorks' "MAT-File Format" (Level 5): a header of 128 bytes, then elements of type, length, content.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

__all__ = ["MatError", "read_variable"]

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)
_COMPLEX = 0x08
_DEPTH = 8
_DIMENSIONS = 32


class MatError(ValueError):
    """The bytes are no sound MATLAB 5 file, or hold what this reader does not read."""


class _Element(NamedTuple):
    """A piece of the file: its type, its content, and where the next one begins."""

    kind: int
    content: memoryview
    end: int


def read_variable(content: bytes, name: str, most: int) -> Any:
    """One variable by name; None if the file has none of that name.

    Args:
        content: The file.
        name: Name of the variable.
        most: How many bytes the file may unpack to.

    Returns:
        Numbers and logical values as float64 arrays in their shape, a structure as a dict, text as None; a cell array
        or an array of structures as the list of its elements in MATLAB's order.

    Raises:
        MatError: If the file is damaged, of another version, or unpacks to more than `most` bytes.
    """
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        raise MatError("not a MATLAB 5 file (save it with -v7 or -v6)")
    order = "<" if content[126:128] == b"IM" else ">"
    view, place, total = memoryview(content), 128, 0
    while place < len(view):
        element = _element(view, place, order)
        place = element.end
        if element.kind == _COMPRESSED:
            unpacked = _unpack(element.content, most - total)
            total += len(unpacked)
            element = _element(memoryview(unpacked), 0, order)
        if element.kind == _MATRIX:
            matrix = _Matrix(element.content, order)
            if matrix.name == name:
                return matrix.value(_DEPTH)
    return None


def _element(view: memoryview, place: int, order: str) -> _Element:
    """The element at `place`. One of up to four bytes may be packed into its own tag."""
    if place + 8 > len(view):
        raise MatError("cut short")
    first, length = struct.unpack_from(f"{order}II", view, place)
    if first >> 16:
        kind, length, start, end = first & 0xFFFF, first >> 16, place + 4, place + 8
        if length > 4:
            raise MatError(f"a short element of {length} bytes")
    else:
        kind, start = first, place + 8
        end = start + length if kind == _COMPRESSED else start + -(-length // 8) * 8  # others are padded to 8 bytes
    if start + length > len(view):
        raise MatError("cut short")
    return _Element(kind, view[start : start + length], end)


def _unpack(packed: memoryview, most: int) -> bytes:
    """A zlib stream, unpacked to at most `most` bytes."""
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(packed, max(1, most + 1))
    except zlib.error as error:
        raise MatError(str(error)) from error
    if len(unpacked) > most:
        raise MatError("unpacks to more than the limit of CROWD_MAX_ANNOTATION_BYTES; if genuine, raise it")
    return unpacked


class _Matrix:
    """A matrix element: flags, dimensions and name are read at once, the value when asked for."""

    def __init__(self, content: memoryview, order: str) -> None:
        self._view, self._order, self._place = content, order, 0
        flags = self._numbers("array flags")
        dimensions = self._numbers("dimensions")
        if len(flags) != 2 or not 2 <= len(dimensions) <= _DIMENSIONS or min(dimensions) < 0:
            raise MatError("a matrix without flags or dimensions")
        self._class, self._complex = int(flags[0]) & 0xFF, bool(int(flags[0]) >> 8 & _COMPLEX)
        self._shape = tuple(int(d) for d in dimensions)
        self._count = math.prod(self._shape)
        self.name = self._text()

    def value(self, depth: int) -> Any:
        """The value; `depth` is how many more levels of cells and structures are followed."""
        if depth == 0:
            raise MatError("nested too deeply")
        if self._class in _NUMERIC:
            numbers = self._numbers("values")
            if self._complex or len(numbers) != self._count:
                raise MatError(f"a matrix of {self._shape} with {len(numbers)} values")
            return numbers.astype(np.float64).reshape(self._shape, order="F")
        if self._class == _CELL:
            return [self._inner(depth) for _ in range(self._bounded(self._count))]
        if self._class == _STRUCT:
            fields = self._fields()
            self._bounded(self._count * max(1, len(fields)))
            found = [{field: self._inner(depth) for field in fields} for _ in range(self._count)]
            return found[0] if self._count == 1 else found
        if self._class == _CHAR:
            return None
        raise MatError(f"a value of class {self._class}; expected numbers, cells or structures")

    def _next(self) -> _Element:
        element = _element(self._view, self._place, self._order)
        self._place = element.end
        return element

    def _numbers(self, what: str) -> np.ndarray:
        """The next element as an array of the type in which it is stored."""
        element = self._next()
        dtype = np.dtype(self._order + _STORED[element.kind]) if element.kind in _STORED else None
        if dtype is None or len(element.content) % dtype.itemsize:
            raise MatError(f"{what} of type {element.kind} and {len(element.content)} bytes")
        return np.frombuffer(element.content, dtype)

    def _text(self) -> str:
        """The next element as a name."""
        return bytes(self._next().content).decode("latin-1")

    def _fields(self) -> list[str]:
        """The names of a structure's fields, each in `length` bytes."""
        lengths, names = self._numbers("length of field names"), self._text()
        length = int(lengths[0]) if len(lengths) == 1 else 0
        if length < 1 or len(names) % length:
            raise MatError("a structure without field names")
        return [names[at : at + length].partition("\0")[0] for at in range(0, len(names), length)]

    def _inner(self, depth: int) -> Any:
        """The value of the next element, a matrix; one without content is an empty array."""
        element = self._next()
        if element.kind != _MATRIX:
            raise MatError(f"an element of type {element.kind} in a cell or structure")
        return _Matrix(element.content, self._order).value(depth - 1) if len(element.content) else np.zeros((0, 0))

    def _bounded(self, count: int) -> int:
        """Refuses more elements than there are bytes for: each has a tag of 8."""
        if count > (len(self._view) - self._place) // 8:
            raise MatError(f"{count} elements in {len(self._view)} bytes")
        return count
