"""What `benchmark predict` is given: a run with its weights, and images, videos or a split of a dataset."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmark.names import Choice, parse_choice
from losses.discovery import suggestion
from results.store import RunFolder, Store, StoreError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "NWPU_IMAGES",
    "VIDEO_SUFFIXES",
    "Clip",
    "Source",
    "check_numbered",
    "checkpoint",
    "listed",
    "meant_data",
    "named",
    "read_upright",
    "repeated",
]

NWPU_IMAGES = 1500
"""Images of NWPU-Crowd's official test part [Wang et al., PAMI 2020]: what a submission must hold."""

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
"""Endings that are taken for videos; whether OpenCV reads them depends on its build."""


class Source(NamedTuple):
    """An image to predict: its id, where it lies (empty if it is made on the fly), and how to read it."""

    id: str
    path: str
    read: Callable[[], NDArray[np.uint8]]


class Clip(NamedTuple):
    """A video to predict: its id, and where it lies."""

    id: str
    path: str


# ---------------------------------------------------------------------------------------------------------------------
# Whose weights


def checkpoint(word: str, output: Path, selection: str | None) -> tuple[RunFolder, str]:
    """The run that is meant, and whose weights of it.

    Args:
        word: A run's id in the store, or how it begins; or the path of a run's folder, or of a weights file in it.
        output: The store.
        selection: `val` or `last`; None: the file's own, else `val`.

    Raises:
        StoreError: If there is no such run, or several.
        ValueError: If the path is no run, or the selection contradicts the file.
    """
    path = Path(word).expanduser()
    if path.is_file() or path.suffix in (".safetensors", ".pth", ".pt"):
        return _weights_file(path, selection)
    if (path / "spec.json").is_file():
        return RunFolder(path.resolve()), selection or "val"
    if path.name != word or word in (".", ".."):
        raise ValueError(_no_run(path, word))
    try:
        return Store(output).find(word), selection or "val"
    except StoreError as error:
        ids = [run.run_id for run in Store(output).runs()]
        near = suggestion(word, [*ids, *(run_id[: len(word)] for run_id in ids)])
        raise StoreError(
            f"{error}.{near} `benchmark list -o {output}` shows the runs; or name a run's folder"
        ) from None


def _weights_file(path: Path, selection: str | None) -> tuple[RunFolder, str]:
    """The run that a weights file lies in, and whose weights they are."""
    if not path.is_file():
        raise ValueError(f"{path}: no such weights file.{_meant(path)}")
    own = path.stem.removeprefix("model_")
    if path.suffix != ".safetensors" or own == path.stem:
        raise ValueError(
            f"{path} is no weights file of a run; those are named model_val.safetensors or model_last.safetensors"
        )
    if not path.with_name("spec.json").is_file():
        raise ValueError(f"{path} has no spec.json beside it, which says of what network it is: name it in its run")
    if selection not in (None, own):
        raise ValueError(f"{path} has the weights of {own!r}, but --select is {selection}; leave --select out")
    return RunFolder(path.resolve().parent), own


def _no_run(path: Path, word: str) -> str:
    """Why a path is no run."""
    if not path.exists():
        return f"{word}: no such run or weights file.{_meant(path)}"
    if next(path.glob("*/spec.json"), None) is not None:
        return f"{word} is a store of runs; name one of its runs: `benchmark predict ID -o {word}`"
    return f"{word} is no run: it has no spec.json"


# ---------------------------------------------------------------------------------------------------------------------
# Images and videos


def meant_data(options: argparse.Namespace, folder: RunFolder) -> Choice | None:
    """The dataset whose split is meant; None if images are named.

    Raises:
        ValueError: If both or neither are named.
    """
    if options.images and (options.split or options.dataset):
        raise ValueError("name either images or a --split of a dataset, not both")
    if options.images:
        return None
    if options.split is None:
        raise ValueError("name images, videos, folders of images, or a --split (train, val, test; hidden of nwpu)")
    if options.dataset is not None:
        return parse_choice(options.dataset)
    spec = folder.spec()
    return Choice(spec.dataset, dict(spec.dataset_params))


def listed(choice: Choice, split: str, data_root: Path | None) -> list[Source | Clip]:
    """The images of a split, as they are stored.

    Raises:
        ValueError: If there are none.
    """
    from runners import data

    dataset = data.build(choice.name, root=data_root, **choice.params)
    entries = dataset.entries(split)
    if not entries:
        raise ValueError(f"the {split} split of {choice} has no images")
    return [Source(e.id, "" if e.image is None else str(e.image), partial(dataset.read_image, e)) for e in entries]


def named(paths: Iterable[Path], *, as_stored: bool = False) -> list[Source | Clip]:
    """Image files, videos, and the images directly in folders; all are there.

    Args:
        paths: What was named.
        as_stored: Leave photos as they are stored, whatever their EXIF orientation says.

    Raises:
        ValueError: If one is missing, or a folder has no images.
    """
    from runners.data.places import images_in
    from runners.data.reading import read_image

    read = read_image if as_stored else read_upright
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = images_in(path)
            if not inside:
                raise ValueError(_no_images(path))
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise ValueError(f"{path}: no such image, video or folder.{_meant(path)}")
    return [
        Clip(file.stem, str(file)) if is_video(file) else Source(file.stem, str(file), partial(read, file))
        for file in files
    ]


def is_video(path: Path) -> bool:
    """Whether the ending is a video's."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def read_upright(path: Path) -> NDArray[np.uint8]:
    """Decodes an image, RGB, uint8 [H, W, 3], turned as its EXIF orientation says: as every viewer shows it.

    Raises:
        DataError: See `runners.data.reading.read_image`.
    """
    from runners.data.reading import orientation, read_image

    image, turn = read_image(path), orientation(path)
    if turn in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if turn in (2, 3, 6, 7):
        image = image[:, ::-1]
    if turn in (3, 4, 7, 8):
        image = image[::-1]
    return image.copy() if turn in range(2, 9) else image


def _no_images(folder: Path) -> str:
    from runners.data.places import IMAGE_SUFFIXES

    clips = sorted(file.name for file in folder.iterdir() if is_video(file))
    more = f"; videos are named one by one, as {folder / clips[0]}" if clips else ""
    return f"{folder} holds no images directly in it; looked for {', '.join(sorted(IMAGE_SUFFIXES))}{more}"


def _meant(path: Path) -> str:
    """What in the same folder has nearly that name."""
    try:
        return suggestion(path.name, [file.name for file in path.parent.iterdir()])
    except OSError:
        return ""


# ---------------------------------------------------------------------------------------------------------------------
# Ids


def repeated(ids: Iterable[str]) -> list[str]:
    """The ids that come more than once."""
    return [id for id, number in Counter(ids).items() if number > 1]


def check_numbered(media: Sequence[Source | Clip], form: str, official: bool) -> None:
    """Refuses what the evaluation server could not understand, before hours of work.

    Args:
        media: What is to be predicted.
        form: Name of the format.
        official: Whether this is NWPU-Crowd's own test part, which has to be whole.

    Raises:
        ValueError: If an id is no number or comes twice, a video is among them, or images are missing.
    """
    clips = [item.path for item in media if isinstance(item, Clip)]
    if clips:
        raise ValueError(f"format {form} is for images; {clips[0]} is a video: take csv or json")
    wrong = [item.id for item in media if not (item.id.isascii() and item.id.isdecimal())]
    if wrong:
        raise ValueError(
            f"format {form} names images by number, as 3610.jpg; {len(wrong)} names are none, the first is "
            f"{wrong[0]!r}; csv and json, and --points with such an ending, take any name"
        )
    twice = repeated(item.id for item in media)
    if twice:
        raise ValueError(f"format {form} needs each image once; {len(twice)} ids come twice, the first is {twice[0]}")
    if official and len(media) != NWPU_IMAGES:
        lacking = NWPU_IMAGES - len(media)
        what = f"{lacking} are missing" if lacking > 0 else f"{-lacking} are too many"
        raise ValueError(f"NWPU's test part has {NWPU_IMAGES} images, its list here names {len(media)}: {what}")
