"""Points in files of others: annotations and predictions as text, CSV or JSON, told apart by what is in them.

All coordinates are (x, y) in pixels of the stored image. Three forms are read, whatever a file's name ends in:

* Text, one line an image, numbers separated by blanks (NWPU-Crowd, FIDTM): `id n`, then n times the fields of a point.
  Annotation: `x y sigma_s sigma_l level`, or `x y` alone. Prediction: `x y`, or `x y score`. Numbers may have decimals;
  all lines have the same fields. An image without points is `id 0`.
* CSV with a header, one line a point. Annotation: `image,x,y`, further `sigma_s,sigma_l`, `level`, `x1,y1,x2,y2` in any
  order. Prediction: `image,x,y`, further `score`. Other columns are left out. An image without points: `empty.jpg,,`.
  An apostrophe before `=`, `+`, `-` or `@` at the start of a name, which `guarded` sets, is taken away.
* JSON. `{id: points}`, where points are `[[x, y], ...]` or an object with `points` and, of the same length, `scores` of
  a prediction, `boxes` (x1, y1, x2, y2), `sigmas` (sigma_s, sigma_l), `levels` of an annotation; or a list of such
  objects that have an `id` too, alone or as `{"images": [...]}`, which `benchmark predict --format json` writes. A
  predicted point may be `[x, y, score]`.

Files are bounded as annotations are (`runners.data.reading.LIMITS`). Which image of a prediction is which image of the
annotation is the matter of `runners.metrics.point_ids`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runners.data.reading import DataError, limit, read_text
from runners.metrics.radii import Heads

__all__ = ["Predicted", "guarded", "read_predictions", "read_truth"]

FARTHEST = 10_000_000
"""Coordinates, and sides of boxes, beyond this many pixels are no image's (ours)."""

_Kind = Literal["annotation", "prediction"]
_TEXT: dict[_Kind, dict[int, tuple[str, ...]]] = {
    "annotation": {2: ("x", "y"), 5: ("x", "y", "sigma_s", "sigma_l", "level")},
    "prediction": {2: ("x", "y"), 3: ("x", "y", "score")},
}
"""Fields of a point in a text file, by their number."""
_OPTIONAL: dict[_Kind, tuple[tuple[str, ...], ...]] = {
    "annotation": (("sigma_s", "sigma_l"), ("level",), ("x1", "y1", "x2", "y2")),
    "prediction": (("score",),),
}
"""Columns of a CSV file that belong together."""
_JSON: dict[_Kind, dict[str, tuple[str, ...]]] = {
    "annotation": {"sigmas": ("sigma_s", "sigma_l"), "levels": ("level",), "boxes": ("x1", "y1", "x2", "y2")},
    "prediction": {"scores": ("score",)},
}
"""Keys of an image in a JSON file, and the fields that their items hold."""
_IMAGE = ("image", "id", "name", "filename", "file")
_SHOWN = 60
_FORMULA = tuple("=+-@\t\r")
"""What a spreadsheet takes for the beginning of a formula."""

Floats = NDArray[np.float64]


class Predicted(NamedTuple):
    """Predicted points of one image.

    Attributes:
        points: float64 [m, 2], (x, y), pixels of the stored image.
        scores: float64 [m]; None where the file has none.
    """

    points: Floats
    scores: Floats | None = None


class _Image(NamedTuple):
    """The points of one image as they are in the file: a column for each field, and where they stand."""

    fields: dict[str, Floats]
    where: str


def guarded(name: str) -> str:
    """A name for a cell of a CSV file that no spreadsheet takes for a formula: '=x for =x. The reader undoes it."""
    return f"'{name}" if name.lstrip("'").startswith(_FORMULA) else name


def _unguarded(cell: str) -> str:
    """The name that `guarded` was given."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def read_truth(path: str | Path) -> dict[str, Heads]:
    """The annotated heads of a file, by image, in its order.

    Raises:
        DataError: If the file is missing, too large, of no known form, or says something impossible; with its line.
    """
    found = _read(Path(path), "annotation")
    every = dict.fromkeys(field for image in found.values() for field in image.fields)
    nobody = {field: np.zeros(0) for field in every}  # an image without people has all that others have
    return {
        name: _heads(Path(path), image if len(image.fields["x"]) else image._replace(fields=nobody))
        for name, image in found.items()
    }


def read_predictions(path: str | Path) -> dict[str, Predicted]:
    """The predicted points of a file, by image, in its order. Scores are there for all images or for none.

    Raises:
        DataError: If the file is missing, too large, of no known form, or says something impossible; with its line.
    """
    found = _read(Path(path), "prediction")
    scored = {"score" in image.fields for image in found.values() if len(image.fields["x"])}
    if len(scored) > 1:
        bare = next(i for i in found.values() if len(i.fields["x"]) and "score" not in i.fields)
        raise DataError(f"{path}: {bare.where} has points without scores, others have scores; give all points a score")
    return {
        name: Predicted(
            np.stack([image.fields["x"], image.fields["y"]], axis=1),
            image.fields.get("score", np.zeros(0)) if scored == {True} else None,
        )
        for name, image in found.items()
    }


def _heads(path: Path, image: _Image) -> Heads:
    fields = image.fields
    boxes = np.stack([fields[name] for name in ("x1", "y1", "x2", "y2")], axis=1) if "x1" in fields else None
    sigmas = np.stack([fields["sigma_s"], fields["sigma_l"]], axis=1) if "sigma_s" in fields else None
    if sigmas is not None and (sigmas < 0).any():
        raise DataError(f"{path}: {image.where} has a negative sigma, {sigmas.min():g}; expected at least 0")
    levels = None
    if "level" in fields:
        found = np.nan_to_num(fields["level"], nan=-1.0)
        if ((found != np.round(found)) | (found < -1) | (found > 5)).any():
            raise DataError(f"{path}: {image.where} has a box level that is not one of 0 to 5")
        levels = found.astype(np.int64)
    return Heads(np.stack([fields["x"], fields["y"]], axis=1), boxes, sigmas, levels)


def _read(path: Path, kind: _Kind) -> dict[str, _Image]:
    """The images of a file of any form."""
    text = read_text(path)
    start = text.lstrip()[:1]
    if not start:
        raise DataError(f"{path}: empty; expected {kind}s as text (id n x y ...), CSV (image,x,y) or JSON")
    if start in "{[":
        images = _from_json(path, text, kind)
    elif "," in text.lstrip().splitlines()[0]:
        images = _from_csv(path, text, kind)
    else:
        images = _from_text(path, text, kind)
    found: dict[str, _Image] = {}
    for name, image in images:
        if name in found:
            raise DataError(f"{path}: image {_short(name)} comes twice, {found[name].where} and {image.where}")
        found[name] = image
    if not found:
        raise DataError(f"{path}: holds no image; expected {kind}s of at least one")
    return found


def _columns(path: Path, where: str, names: tuple[str, ...], values: Floats) -> dict[str, Floats]:
    """The fields of the points of an image from [n, fields], checked; NaN stands for what may be left open."""
    if len(values) > limit("CROWD_MAX_POINTS"):
        raise DataError(f"{path}: {where}: {len(values)} points are absurd for one image; else raise CROWD_MAX_POINTS")
    found = dict(zip(names, values.T, strict=True))
    for name, column in found.items():
        open_ = np.isnan(column) & (name not in ("x", "y", "score"))
        wrong = ~open_ & ~(np.abs(column) <= (np.finfo(float).max if name == "score" else FARTHEST))
        if wrong.any():
            raise DataError(
                f"{path}: {where}: {name} of point {int(wrong.argmax()) + 1} is {column[wrong.argmax()]:g}; "
                + ("expected a finite number" if name == "score" else f"expected at most {FARTHEST} pixels")
            )
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Text


def _from_text(path: Path, text: str, kind: _Kind) -> Iterator[tuple[str, _Image]]:
    """Lines of `id n` and n points."""
    layout: tuple[str, ...] | None = None
    first = 0
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        where = f"line {number}"
        count = _count(path, where, words, kind)
        names = _layout(path, where, count, len(words) - 2, kind) if count else None
        if names is not None and layout is not None and names != layout:
            raise DataError(
                f"{path}: {where} has {len(names)} numbers a point ({' '.join(names)}), "
                f"line {first} has {len(layout)} ({' '.join(layout)}); all lines must have the same"
            )
        if names is not None and layout is None:
            layout, first = names, number
        try:
            values = np.array(list(map(float, words[2:]))).reshape(count, -1 if count else 2)
        except ValueError as error:
            raise DataError(f"{path}: {where} holds something that is no number ({_short(str(error))})") from None
        yield words[0], _Image(_columns(path, where, names or ("x", "y"), values), where)


def _count(path: Path, where: str, words: list[str], kind: _Kind) -> int:
    """The stated number of points of a line."""
    expected = "expected an id, the number of points n, and n times " + " or ".join(map(" ".join, _TEXT[kind].values()))
    if len(words) < 2:
        raise DataError(f"{path}: {where} is {_short(words[0])} alone; {expected}")
    if not (words[1].isascii() and words[1].isdecimal()) or len(words[1]) > 9:
        raise DataError(f"{path}: {where} has {_short(words[1])} for the number of points; {expected}")
    return int(words[1])


def _layout(path: Path, where: str, count: int, numbers: int, kind: _Kind) -> tuple[str, ...]:
    """The fields of each point, from how many numbers a line has for how many points."""
    layouts = _TEXT[kind]
    if numbers % count == 0 and numbers // count in layouts:
        return layouts[numbers // count]
    expected = " or ".join(f"{count * size} ({' '.join(names)} each)" for size, names in layouts.items())
    other: _Kind = "prediction" if kind == "annotation" else "annotation"
    mixed = numbers % count == 0 and numbers // count in _TEXT[other]
    hint = f"; is it {'an' if other == 'annotation' else 'a'} {other}?" if mixed else ""
    raise DataError(f"{path}: {where} states {count} points and has {numbers} numbers; expected {expected}{hint}")


# ---------------------------------------------------------------------------------------------------------------------
# CSV


def _from_csv(path: Path, text: str, kind: _Kind) -> Iterator[tuple[str, _Image]]:
    """Lines of one point each, gathered by image."""
    reader = csv.reader(io.StringIO(text, newline=""))
    names: tuple[str, ...] | None = None
    found: dict[str, tuple[list[list[float]], int]] = {}
    try:
        for words in reader:
            cells = [word.strip() for word in words]
            if not any(cells):
                continue
            if names is None:
                names, places, width = *_header(path, cells, kind), len(cells)
                continue
            where = f"line {reader.line_num}"
            if len(cells) != width:
                raise DataError(f"{path}: {where} has {len(cells)} fields; the header has {width}")
            image, values = _unguarded(cells[places[0]]), [cells[place] for place in places[1:]]
            if not image:
                raise DataError(f"{path}: {where} names no image")
            points, _ = found.setdefault(image, ([], reader.line_num))
            if any(values):
                points.append(_numbers(path, where, names, values))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is not valid CSV ({error})") from error
    if names is None:
        raise DataError(f"{path}: has no header; expected image,x,y")
    for image, (points, line) in found.items():
        where = f"the image {_short(image)} from line {line}"
        values = np.array(points, float).reshape(-1, len(names))
        bare = len(points) > 0 and names[-1] == "score" and bool(np.isnan(values[:, -1]).all())
        known = names[:-1] if bare else names  # an image whose scores are all left open has none
        yield image, _Image(_columns(path, where, known, values[:, : len(known)]), where)


def _header(path: Path, cells: list[str], kind: _Kind) -> tuple[tuple[str, ...], list[int]]:
    """The fields of a point, and the places of the image's name and of these fields."""
    titles = [cell.lower() for cell in cells]
    image = next((name for name in _IMAGE if name in titles), None)
    if image is None or not {"x", "y"} <= set(titles):
        optional = " and, if known, ".join(["", *(",".join(group) for group in _OPTIONAL[kind])])
        raise DataError(f"{path}: the first line is {_short(','.join(cells))}; expected a header: image,x,y{optional}")
    names = ["x", "y"]
    for group in _OPTIONAL[kind]:
        there = [name for name in group if name in titles]
        if there and len(there) < len(group):
            raise DataError(f"{path}: the header has {', '.join(there)}; it needs all of {', '.join(group)}, or none")
        names += there
    twice = next((name for name in [image, *names] if titles.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: the header has the column {twice} twice")
    return tuple(names), [titles.index(name) for name in [image, *names]]


def _numbers(path: Path, where: str, names: tuple[str, ...], values: list[str]) -> list[float]:
    """One point; an empty optional field is NaN."""
    found = []
    for name, value in zip(names, values, strict=True):
        if not value and name not in ("x", "y"):
            found.append(float("nan"))
            continue
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if number != number:
            raise DataError(f"{path}: {where}: {name} is {_short(value)}; expected a number")
        found.append(number)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# JSON


def _from_json(path: Path, text: str, kind: _Kind) -> Iterator[tuple[str, _Image]]:
    """Objects of images, or points by image."""
    try:
        value = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({_short(str(error))})") from error
    if isinstance(value, dict) and isinstance(value.get("images"), list) and _are_objects(value["images"]):
        value = value["images"]
    if isinstance(value, list):
        for place, item in enumerate(value):
            name = next((item[key] for key in _IMAGE if key in item), None) if isinstance(item, dict) else None
            if not isinstance(name, str | int) or isinstance(name, bool) or not str(name):
                raise DataError(f'{path}: image {place + 1} has no "id"; expected objects with "id" and "points"')
            yield str(name), _json_image(path, f"image {_short(str(name))}", item, kind)
        return
    for name, item in value.items():
        yield name, _json_image(path, f"image {_short(name)}", item, kind)


def _json_image(path: Path, where: str, item: Any, kind: _Kind) -> _Image:
    """One image: its points, or an object with points and what is known of them."""
    members = item if isinstance(item, dict) else {"points": item}
    if "points" not in members:
        hint = "; name a --localizer when you predict" if kind == "prediction" and "count" in members else ""
        raise DataError(f'{path}: {where} has no "points"; expected [[x, y], ...]{hint}')
    widths = {2: ("x", "y")} | ({3: ("x", "y", "score")} if kind == "prediction" else {})
    fields = _json_columns(path, where, "points", members["points"], widths)
    for key, names in _JSON[kind].items():
        if members.get(key) is None:
            continue
        more = _json_columns(path, where, key, members[key], {len(names): names})
        if len(more[names[0]]) != len(fields["x"]):
            raise DataError(f"{path}: {where} has {len(fields['x'])} points and {len(more[names[0]])} {key}")
        if "score" in fields and key == "scores":
            raise DataError(f'{path}: {where} has scores both in "points" and in "scores"')
        fields |= more
    return _Image(fields, where)


def _json_columns(
    path: Path, where: str, key: str, value: Any, widths: dict[int, tuple[str, ...]]
) -> dict[str, Floats]:
    """A list of numbers, or of lists of numbers, as columns."""
    expected = " or ".join("[" + ", ".join(names) + "]" for names in widths.values())
    if value == []:
        return {name: np.zeros(0) for name in next(iter(widths.values()))}
    single = 1 in widths
    rows = [[item] for item in value] if isinstance(value, list) and single else value
    good = isinstance(rows, list) and all(isinstance(row, list) for row in rows)
    width = len(rows[0]) if good else 0
    if width not in widths or not all(len(row) == width and all(map(_is_number, row)) for row in rows):
        raise DataError(f'{path}: {where}: "{key}" is {_short(json.dumps(value))}; expected a list of {expected}')
    try:
        values = np.array([[np.nan if one is None else float(one) for one in row] for row in rows])
    except OverflowError:
        raise DataError(f'{path}: {where}: "{key}" holds a number that is too large') from None
    return _columns(path, where, widths[width], values)


def _is_number(value: Any) -> bool:
    """Whether JSON has a number, or null for what may be left open."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _are_objects(items: list[Any]) -> bool:
    return all(isinstance(item, dict) for item in items)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are unique: of two images with one name neither may be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} comes twice in an object")
    return found


def _short(text: str) -> str:
    """Text of a stranger's file for a message: quoted, and cut where it is long."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")
