"""Which image of a prediction is which image of an annotation.

Names are compared as they are; if they do not agree, without folders and the ending of an image file
(`images/IMG_3.jpg` is `IMG_3`); if they still do not, as whole numbers (`0003` is `3`). The first way in which all
names agree is taken. A number is never looked for within a name: `IMG_10` is image 2 in files that number the images in
the order of their names (FIDTM's), and image 10 in others. For these there is `ids="lexicographic"`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from results.atomic import printable
from runners.data.reading import DataError, read_text
from runners.metrics.point_files import Predicted
from runners.metrics.radii import Heads

__all__ = ["Paired", "by_order", "image_file", "image_files", "numbered", "pair", "read_names"]

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_FEW = 5

_Value = TypeVar("_Value")


class Paired(NamedTuple):
    """One image.

    Attributes:
        id: Its name in the annotation.
        heads: Its annotation.
        predicted: Its predicted points.
    """

    id: str
    heads: Heads
    predicted: Predicted


def pair(
    truth: Mapping[str, Heads],
    predictions: Mapping[str, Predicted],
    *,
    missing: Literal["error", "empty", "skip"] = "error",
) -> list[Paired]:
    """The images of an annotation with their predictions, in the annotation's order.

    Args:
        truth: `point_files.read_truth`.
        predictions: `point_files.read_predictions`.
        missing: What to do if the images are not the same. `error` (default); `empty`: an annotated image without a
            prediction counts as one in which nobody was found; `skip`: only images of both files are scored.

    Raises:
        DataError: If images are only on one side, and `missing` does not allow it; with how many, and the first few.
    """
    best: tuple[int, dict[str, str], dict[str, str]] | None = None
    for rule in (str, _stem, _number):
        left, right = _keys(truth, rule), _keys(predictions, rule)
        if left is None or right is None:
            continue  # two names would become one
        common = len(left.keys() & right.keys())
        if best is None or common > best[0]:
            best = (common, left, right)
        if common == len(left) == len(right):
            break
    assert best is not None  # names as they are are unique
    common, left, right = best
    allowed = missing == "skip" or (missing == "empty" and common == len(right))
    if (common < len(left) or common < len(right)) and not (allowed and common):
        raise DataError(_disagreement(truth, predictions, left, right, missing))
    scored = any(one.scores is not None for one in predictions.values())
    nothing = Predicted(np.zeros((0, 2)), np.zeros(0) if scored else None)
    return [
        Paired(name, truth[name], predictions[right[key]] if key in right else nothing)
        for key, name in left.items()
        if key in right or missing == "empty"
    ]


def by_order(
    truth: Mapping[str, Heads], predictions: Mapping[str, Predicted], names: Collection[str] | None = None
) -> tuple[dict[str, Heads], dict[str, Predicted]]:
    """Names the images of predictions that number them in the order of their names.

    Args:
        truth: An annotation by the images' names; or numbered in the same way, if `names` has none of its numbers.
        predictions: By number.
        names: The images' names; None: those of the annotation.

    Raises:
        DataError: See `numbered`; or both are numbered and no names are given.
    """
    if names is None:
        if _counts_up(truth):
            raise DataError(
                "both files number the images; if in the same way, leave --ids away; else give the names: "
                "--names FOLDER or LIST"
            )
        return dict(truth), numbered(predictions, truth, "predictions")
    known = {_stem(name) for name in names}
    own = not _counts_up(truth) or any(name in known for name in truth)
    return dict(truth) if own else numbered(truth, names, "annotation"), numbered(predictions, names, "predictions")


def numbered(values: Mapping[str, _Value], names: Collection[str], what: str) -> dict[str, _Value]:
    """Gives images that are numbered by the order of their names these names: number k is the k-th name.

    Args:
        values: By number, `1` to `n` (or `0` to `n - 1`), in any order.
        names: n names of images; sorted here as text, as FIDTM's lists are: IMG_1, IMG_10, IMG_100, IMG_2.
        what: Where the numbers are from, for the message.

    Raises:
        DataError: If the ids are other numbers, or there are not as many names.
    """
    if not _counts_up(values):
        raise DataError(
            f"{what}: ids by lexicographic order are the numbers 1 to n; found {_some(values)} "
            f"({len(values)} images); leave --ids away if these are the images' own names"
        )
    if len(names) != len(values):
        raise DataError(f"{what}: {len(values)} images are numbered, and {len(names)} names are given")
    by_number = sorted(values, key=int)
    renamed = dict(zip(by_number, sorted(names), strict=True))
    return {renamed[number]: value for number, value in values.items()}


def read_names(path: str | Path) -> list[str]:
    """The names of images: the image files of a folder, or the first word of each line of a list.

    Raises:
        DataError: If there are none, or a name comes twice.
    """
    place = Path(path)
    if place.is_dir():
        found = sorted(file.name for file in place.iterdir() if file.suffix.lower() in _ENDINGS)
    else:
        found = [line.split()[0] for line in read_text(place).splitlines() if line.strip()]
    if not found:
        raise DataError(f"{place}: holds no names of images; expected image files, or one name a line")
    if len(set(found)) < len(found):
        raise DataError(f"{place}: the name {_first_twice(found)!r} comes twice")
    return found


def image_files(folder: Path) -> dict[str, Path]:
    """The image files of a folder, by name and by name without its ending (the first, where two share it)."""
    found: dict[str, Path] = {}
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _ENDINGS)
    for file in files:
        found[file.name] = file
    for file in files:
        found.setdefault(_stem(file.name), file)
    return found


def image_file(files: Mapping[str, Path], name: str) -> Path | None:
    """The file of an image among `image_files`, by its name, or by it without folders and ending."""
    return files.get(name) or files.get(PurePosixPath(name).name) or files.get(_stem(name))


def _counts_up(names: Iterable[str]) -> bool:
    """Whether the names are the numbers 1 to n, or 0 to n - 1."""
    found = list(names)
    if not all(name.isascii() and name.isdecimal() and len(name) < 10 for name in found):
        return False
    numbers = sorted(map(int, found))
    return numbers in (list(range(1, len(found) + 1)), list(range(len(found))))


def _keys(names: Iterable[str], rule: Callable[[str], str]) -> dict[str, str] | None:
    """Names by what they are compared as; None if two names become one."""
    found: dict[str, str] = {}
    for name in names:
        if found.setdefault(rule(name), name) != name:
            return None
    return found


def _stem(name: str) -> str:
    """A name without folders and the ending of an image file."""
    last = PurePosixPath(name.replace("\\", "/")).name or name
    ending = next((e for e in _ENDINGS if last.lower().endswith(e) and len(last) > len(e)), "")
    return last[: len(last) - len(ending)]


def _number(name: str) -> str:
    """A whole number without leading zeros; another name as `_stem`."""
    stem = _stem(name)
    return (stem.lstrip("0") or "0") if stem.isascii() and stem.isdecimal() else stem


def _disagreement(
    truth: Mapping[str, Heads],
    predictions: Mapping[str, Predicted],
    left: dict[str, str],
    right: dict[str, str],
    missing: str,
) -> str:
    """Which images are on one side only, and what may be the reason."""
    lacking = [name for key, name in left.items() if key not in right]
    unknown = [name for key, name in right.items() if key not in left]
    parts = []
    if lacking:
        parts.append(f"{len(lacking)} of {len(left)} annotated images have no prediction: {_some(lacking)}")
    if unknown:
        parts.append(f"{len(unknown)} of {len(right)} predicted images have no annotation: {_some(unknown)}")
    message = "the images do not agree: " + "; ".join(parts)
    if len(lacking) == len(left) and missing == "skip":
        return message + ". No image is in both files"
    counting = [side for side, names in (("predictions", predictions), ("annotations", truth)) if _counts_up(names)]
    if len(counting) == 1 and len(truth) == len(predictions):
        return message + (
            f". The {counting[0]} number the images; if by the order of their names, as FIDTM's files do: "
            "--ids lexicographic, with --names FOLDER or LIST if the other file does not hold the names"
        )
    hints = []
    if lacking and not unknown:
        hints.append("--missing empty counts nobody as found there")
    if unknown and missing == "empty":
        hints.append("--missing empty is for annotated images without a prediction, not for these")
    if len(lacking) < len(left):
        hints.append("--missing skip scores only the images of both files")
    return message + (". " + "; ".join(hints) if hints else "")


def _some(names: Iterable[str]) -> str:
    """The first few names."""
    found = list(names)
    shown = ", ".join(printable(name if len(name) <= 40 else name[:37] + "...") for name in found[:_FEW])
    return shown + (", ..." if len(found) > _FEW else "")


def _first_twice(names: list[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
