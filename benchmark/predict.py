"""`benchmark predict`: count the people in images with the weights of a finished run."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmark.names import Choice, parse_choice
from losses.discovery import suggestion
from results.atomic import write_text
from results.store import RunFolder, Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from results.spec import RunSpec

__all__ = ["NWPU_IMAGES", "Counted", "Source", "predict", "rendered"]

NWPU_IMAGES = 1500
"""Images of NWPU-Crowd's official test part [Wang et al., PAMI 2020]: what a submission must hold."""


class Source(NamedTuple):
    """An image to predict: its id, where it lies (empty if it is made on the fly), and how to read it."""

    id: str
    path: str
    read: Callable[[], NDArray[np.uint8]]


class Counted(NamedTuple):
    """What is kept of an image: its predicted people; their points in pixels of the stored image, if it has points."""

    id: str
    path: str
    people: float
    points: list[list[float]] | None


def predict(options: argparse.Namespace) -> int:
    """Carries out the command.

    Returns:
        0, or 1 if an image could not be read or predicted; the others are done all the same.

    Raises:
        ValueError: Before any work, if images are missing, the options contradict each other, or the ids do not suit
            the format; afterwards if a submission to NWPU would be incomplete.
        StoreError: If the run is not there, or cannot predict.
    """
    folder = Store(options.output).find(options.run)
    data = _data(options, folder)
    sources = _named(map(Path, options.images)) if data is None else _listed(data, options)
    official = data is not None and (data.name, options.split) == ("nwpu", "hidden")
    if options.format == "nwpu":
        _check_nwpu(sources, official)
    if options.out is not None and options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder; name a file")
    from benchmark.run import devices_of
    from runners.predict import Predictor

    predictor = Predictor(folder, options.select, devices_of(options.device)[0], options.threads)
    if options.format == "nwpu" and predictor.spec.dataset != "nwpu":
        _warn(f"run {folder.run_id} was trained on {predictor.spec.dataset}, not on nwpu")
    counted, failed = _predicted(predictor, sources)
    for reason in failed.values():
        _warn(reason)
    if options.format == "nwpu" and official and failed:
        raise ValueError(f"nothing written: {len(failed)} of {len(sources)} images are missing from the submission")
    text = rendered(options.format, counted, failed, folder.run_id, options.select, predictor.spec)
    if options.out is None:
        sys.stdout.write(text)
    else:
        write_text(options.out, text)
        print(f"{options.out}: {len(counted)} of {len(sources)} images")  # noqa: T201
    return 1 if failed else 0


def _predicted(predictor: Any, sources: Sequence[Source]) -> tuple[list[Counted], dict[str, str]]:
    """Predicts image after image, keeping counts and points only; and why others could not be, by path."""
    from rich.progress import track

    from benchmark.show import progress_console
    from runners.counter import NonFiniteLossError
    from runners.data.reading import DataError

    counted, failed = [], {}
    shown = progress_console.is_terminal
    for source in track(sources, "predicting", console=progress_console, transient=True, disable=not shown):
        try:
            found = predictor.image(source.read(), source.id)
        except (DataError, NonFiniteLossError) as error:
            failed[source.path or source.id] = str(error)
            continue
        points = None if found.points is None else found.stored_points.tolist()
        counted.append(Counted(source.id, source.path, found.count, points))
    return counted, failed


def _warn(text: str) -> None:
    print(f"benchmark: {text}", file=sys.stderr)  # noqa: T201


# ---------------------------------------------------------------------------------------------------------------------
# Which images


def _data(options: argparse.Namespace, folder: RunFolder) -> Choice | None:
    """The dataset whose split is meant; None if images are named."""
    if options.images and (options.split or options.dataset):
        raise ValueError("name either images or a --split of a dataset, not both")
    if options.images:
        return None
    if options.split is None:
        raise ValueError("name images, folders of images, or a --split (train, val, test; hidden of nwpu)")
    if options.dataset is not None:
        return parse_choice(options.dataset)
    spec = folder.spec()
    return Choice(spec.dataset, dict(spec.dataset_params))


def _listed(choice: Choice, options: argparse.Namespace) -> list[Source]:
    """The images of a split."""
    from runners import data

    dataset = data.build(choice.name, root=options.data_root, **choice.params)
    entries = dataset.entries(options.split)
    if not entries:
        raise ValueError(f"the {options.split} split of {choice} has no images")
    return [Source(e.id, "" if e.image is None else str(e.image), partial(dataset.read_image, e)) for e in entries]


def _named(paths: Iterable[Path]) -> list[Source]:
    """Image files, and the images directly in folders; all are there."""
    from runners.data.places import IMAGE_SUFFIXES, images_in
    from runners.data.reading import read_image

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = images_in(path)
            if not inside:
                endings = ", ".join(sorted(IMAGE_SUFFIXES))
                raise ValueError(f"{path} holds no images directly in it; looked for {endings}")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise ValueError(f"{path}: no such image or folder.{_meant(path)}")
    return [Source(file.stem, str(file), partial(read_image, file)) for file in files]


def _meant(path: Path) -> str:
    """What in the same folder has nearly that name."""
    try:
        return suggestion(path.name, [file.name for file in path.parent.iterdir()])
    except OSError:
        return ""


def _check_nwpu(sources: Sequence[Source], official: bool) -> None:
    """Refuses what the evaluation server could not understand, before hours of work."""
    wrong = [source.id for source in sources if not (source.id.isascii() and source.id.isdecimal())]
    if wrong:
        raise ValueError(
            f"format nwpu names images by number, as 3610.jpg; {len(wrong)} names are none, the first is {wrong[0]!r}"
        )
    twice = [id for id, number in Counter(source.id for source in sources).items() if number > 1]
    if twice:
        raise ValueError(f"format nwpu needs each image once; {len(twice)} ids come twice, the first is {twice[0]}")
    if official and len(sources) != NWPU_IMAGES:
        lacking = NWPU_IMAGES - len(sources)
        what = f"{lacking} are missing" if lacking > 0 else f"{-lacking} are too many"
        raise ValueError(f"NWPU's test part has {NWPU_IMAGES} images, its list here names {len(sources)}: {what}")


# ---------------------------------------------------------------------------------------------------------------------
# How they are written


def rendered(
    form: str, counted: Sequence[Counted], failed: dict[str, str], run_id: str, selection: str, spec: RunSpec
) -> str:
    """The predictions as text.

    Args:
        form: `table`, 80 columns; `csv` with the columns id, count, path; `json` with points too, if there are any; or
            `nwpu`, lines of "id count". Counts have all their digits in `csv` and `json`, four decimals in `nwpu`.
        counted: What was predicted.
        failed: Why images could not be, by path; in `json` only.
        run_id: The run.
        selection: Whose weights.
        spec: What was trained.
    """
    if form == "nwpu":
        return "".join(f"{image.id} {image.people:.4f}\n" for image in counted)
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("id", "count", "path"))
        writer.writerows((image.id, repr(image.people), image.path) for image in counted)
        return text.getvalue()
    if form == "json":
        images = [_fields(image) for image in counted]
        run = {"run_id": run_id, "selection": selection, "loss": spec.loss, "backbone": spec.backbone}
        return json.dumps({**run, "dataset": spec.dataset, "images": images, "failed": failed}, indent=1) + "\n"
    return _table(counted, f"{spec.loss} · {spec.backbone} · {spec.dataset} · run {run_id[:8]} · weights {selection}")


def _fields(image: Counted) -> dict[str, Any]:
    """One image in `json`."""
    points = {} if image.points is None else {"points": image.points}
    return {"id": image.id, "path": image.path, "count": image.people, **points}


def _table(counted: Sequence[Counted], title: str) -> str:
    """Ids and counts for people to read."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("people", justify="right", no_wrap=True)
    for image in counted:
        table.add_row(escape(image.id), f"{image.people:.1f}")
    total = sum(image.people for image in counted)
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(escape(title))
    console.print(table)
    console.print(f"{len(counted)} image{'s' * (len(counted) != 1)}, {total:.1f} people")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
