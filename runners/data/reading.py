"""Files from strangers: images, .mat, .json, .csv and .txt, read with limits and with errors that name the file.

Every reader raises `DataError` and nothing else on bad input. The limits are generous for real datasets and can be
raised through the environment (`LIMITS`).
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from results import limits
from results.atomic import printable
from runners.data.matfile import MatError, read_variable

__all__ = [
    "LIMITS",
    "DataError",
    "boxes_array",
    "image_size",
    "limit",
    "orientation",
    "points_array",
    "read_csv",
    "read_image",
    "read_json",
    "read_mat",
    "read_numbers",
    "read_text",
    "refuse_special",
]

LIMITS = {f"CROWD_MAX_{what}": limits.LIMITS[f"CROWD_MAX_{what}"] for what in ("PIXELS", "ANNOTATION_BYTES", "POINTS")}
"""Environment variables that raise a limit of these readers, with their defaults (ours)."""

_LONGEST = 1000
"""Most characters of an error (ours)."""
_WORD = 64
"""Most characters of a number (ours): numpy gives every text of a list the room of the longest."""
_STRIP = 2**20
"""Pixels that are converted at a time (ours): what a conversion needs beside the image stays small."""
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_PILLOW_LIMIT = threading.Lock()


class DataError(ValueError):
    """A file of a dataset is missing, damaged, or says something impossible. One printable line that names the file."""

    def __init__(self, message: str) -> None:
        # An error of a data-loading process comes back with the whole traceback for its message.
        message = message.rpartition(f"{__name__}.DataError: ")[2].rstrip()
        super().__init__(printable(message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…"))


def limit(name: str) -> int:
    """The value of a limit: the environment's, else the default.

    Raises:
        DataError: If the environment holds no positive integer.
    """
    try:
        return limits.limit(name)
    except limits.LimitError as error:
        raise DataError(str(error)) from None


def refuse_special(path: Path) -> None:
    """Refuses what is there but no regular file: to open a pipe waits for a writer, and a device has no end.

    Raises:
        DataError: If the path is a named pipe, a socket, a device or a folder; says which.
    """
    kind = limits.special(path)
    if kind is not None:
        raise DataError(f"{path}: is {kind}, not a regular file; remove it, or put the file itself there")


# ---------------------------------------------------------------------------------------------------------------------
# Images


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file from its header, without decoding it.

    Raises:
        DataError: If the file is no image or larger than `CROWD_MAX_PIXELS`.
    """
    with _opened(path) as image:
        return image.height, image.width


def orientation(path: Path) -> int:
    """The EXIF orientation of an image, 1 (upright) to 8; 1 where there is none or it cannot be read."""
    with _opened(path) as image, contextlib.suppress(Exception):  # Pillow states no set of exceptions
        return int(image.getexif().get(0x0112, 1))
    return 1


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decodes an image to RGB, uint8 [H, W, 3]. Grey images are repeated, transparency is dropped, 16 bits become 8.

    An EXIF orientation is *not* applied: the public annotations count pixels as they are stored (`check` reports it).

    Raises:
        DataError: If the file is missing, damaged, cut short or larger than `CROWD_MAX_PIXELS`.
    """
    with _opened(path) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image.load()
            rows = max(1, _STRIP // max(1, image.width))
            if image.height <= rows and not image.mode.startswith("I"):
                return np.asarray(image.convert("RGB"))
            pixels = np.empty((image.height, image.width, 3), np.uint8)
            for top in range(0, image.height, rows):
                bottom = min(top + rows, image.height)
                pixels[top:bottom] = _rgb(image.crop((0, top, image.width, bottom)))
        except Exception as error:  # Pillow states no set of exceptions for a damaged file
            raise DataError(f"{path}: the image cannot be decoded ({error}); fetch the file again") from error
    return pixels


def _rgb(strip: Image.Image) -> NDArray[np.uint8]:
    """A few rows of an image as RGB, or as [rows, W, 1] where all three are the same."""
    if strip.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        return np.clip(np.asarray(strip).astype(np.int64) >> 8, 0, 255).astype(np.uint8)[..., None]
    return np.asarray(strip.convert("RGB"))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Opens an image and checks its size before anything is decoded."""
    most = limit("CROWD_MAX_PIXELS")
    refuse_special(path)
    try:
        with _PILLOW_LIMIT, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # our own limit is checked below
            try:
                image = Image.open(path, formats=_FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = before
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except Exception as error:  # Pillow states no set of exceptions for a damaged file
        raise DataError(f"{path}: not a readable {', '.join(_FORMATS)} image ({error})") from error
    with image:
        if image.width * image.height > most:
            raise DataError(
                f"{path}: {image.width} x {image.height} pixels are more than the limit of {most}; "
                "if the image is genuine, raise CROWD_MAX_PIXELS"
            )
        yield image


# ---------------------------------------------------------------------------------------------------------------------
# Annotations


def read_bytes(path: Path) -> bytes:
    """The content of an annotation file of at most `CROWD_MAX_ANNOTATION_BYTES`."""
    most = limit("CROWD_MAX_ANNOTATION_BYTES")
    refuse_special(path)
    try:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > most:
        raise DataError(
            f"{path}: larger than {most} bytes, absurd for an annotation; else raise CROWD_MAX_ANNOTATION_BYTES"
        )
    return content


def read_text(path: Path) -> str:
    """The content of a UTF-8 text file; a byte-order mark is dropped."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def read_json(path: Path) -> Any:
    """Parses strict JSON: NaN and Infinity, which are not JSON, are refused."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not a number")

    try:
        return json.loads(read_text(path), parse_constant=refuse)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error


def read_csv(path: Path, columns: Sequence[str] = ("x", "y")) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, names in lower case, without empty lines.

    Args:
        path: The file.
        columns: What its header has to name, beside others.

    Raises:
        DataError: If the file is no CSV, has no rows at all, or its first row is not such a header.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(read_text(path), newline="")) if any(c.strip() for c in row)]
    except csv.Error as error:
        raise DataError(f"{path}: not valid CSV ({error})") from error
    expected = f"{', '.join(columns[:-1])} and {columns[-1]}"
    if not rows:
        raise DataError(f"{path}: empty; expected a header with the columns {expected}")
    header = [name.strip().lower() for name in rows[0]]
    if not set(columns) <= set(header):
        found = ",".join(header)[:_WORD]
        raise DataError(f"{path}: the first line is {found!r}; expected a header with the columns {expected}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(f"{path}: row {number} has {len(row)} fields; the header has {len(header)}")
    return [dict(zip(header, (c.strip() for c in row), strict=True)) for row in rows[1:]]


def read_numbers(path: Path, columns: int) -> NDArray[np.float64]:
    """A table of numbers separated by blanks, at least `columns` a line; an empty file has no rows. [n, columns]."""
    rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
    for number, row in enumerate(rows, start=1):
        if len(row) < columns:
            raise DataError(f"{path}: line {number} has {len(row)} numbers; expected at least {columns}")
    return _numbers([row[:columns] for row in rows], columns, path, "line")


def read_mat(path: Path, key: str, *, required: bool = True) -> Any:
    """One variable of a MATLAB 5 file, see `matfile.read_variable`; None if it is optional and absent.

    Raises:
        DataError: If the file is damaged, of another version, unpacks to more than the limit, or lacks the variable.
    """
    try:
        value = read_variable(read_bytes(path), key, limit("CROWD_MAX_ANNOTATION_BYTES"))
    except MatError as error:
        raise DataError(f"{path}: damaged or unknown MATLAB file: {error}") from error
    if value is None and required:
        raise DataError(f"{path}: holds no variable {key!r}; is it an annotation of this dataset?")
    return value


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


def points_array(values: ArrayLike, path: Path) -> NDArray[np.float64]:
    """Points as float64 [n, 2]. Anything empty is no point; more columns than (x, y) are left out.

    Raises:
        DataError: If the values are no numbers, not finite, of the wrong shape, or more than `CROWD_MAX_POINTS`.
    """
    return _numbers(values, 2, path, "point")


def boxes_array(values: ArrayLike, path: Path) -> NDArray[np.float64]:
    """Boxes x1, y1, x2, y2 as float64 [n, 4], corners put in order."""
    boxes = _numbers(values, 4, path, "box")
    return np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)


def _refuse_words(values: Any) -> None:
    """Refuses long texts among the cells of rows."""
    for row in values if isinstance(values, list) else ():
        for cell in row if isinstance(row, list) else (row,):
            if isinstance(cell, str) and len(cell) > _WORD:
                raise ValueError(f"found a text of {len(cell)} characters")


def _numbers(values: ArrayLike, columns: int, path: Path, what: str) -> NDArray[np.float64]:
    """Finite numbers, float64 [n, columns], or an error that names the file and the first bad row."""
    try:
        _refuse_words(values)
        array = np.asarray(values)
        if array.dtype.kind not in "biufUS":  # objects and complex numbers have no place here
            raise TypeError(f"found {array.dtype}")
        numbers = array.astype(np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: a {what} is not made of {columns} plain numbers ({str(error)[:200]})") from error
    if numbers.size == 0:
        return np.zeros((0, columns))
    if numbers.ndim != 2 or numbers.shape[1] < columns:
        raise DataError(
            f"{path}: expected {columns} numbers for each {what}, shape (n, {columns}); found {numbers.shape}"
        )
    if len(numbers) > limit("CROWD_MAX_POINTS"):
        raise DataError(f"{path}: {len(numbers)} rows are absurd for one image; else raise CROWD_MAX_POINTS")
    numbers = numbers[:, :columns]
    bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: {what} {bad[0] + 1} is {numbers[bad[0]].tolist()}; all numbers must be finite")
    return numbers
