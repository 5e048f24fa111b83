"""`benchmark predict`: count and locate the people in images and videos with the weights of a finished run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.names import Choice, parse_choice
from benchmark.prediction.inputs import Clip, Source, check_numbered, checkpoint, listed, meant_data, named, repeated
from benchmark.prediction.text import Counted, Origin, Spool, rendered, write, write_points
from results.atomic import printable, replacing
from results.spec import LOCALISATION_VERSION
from results.store import RunFolder

if TYPE_CHECKING:
    from results.spec import RunSpec
    from runners.localizers import Localizer
    from runners.predict import Predictor

__all__ = ["Counted", "Origin", "Source", "localizer_of", "predict", "rendered"]

POINT_FORMATS = {".csv": "csv", ".json": "json", ".txt": "nwpu-points"}
"""Endings of --points, and what is written then."""


def predict(options: argparse.Namespace) -> int:
    """Carries out the command.

    Returns:
        0; 1 if an image or video could not be read or predicted: the others are done all the same; 130 if it was
        stopped by Ctrl-C: what was done is written.

    Raises:
        ValueError: Before any work, if images are missing, the options contradict each other, or the ids do not suit
            the format; afterwards if a submission to NWPU would be incomplete.
        StoreError: If the run is not there, or cannot predict.
    """
    folder, selection = checkpoint(options.run, options.output, options.select)
    media, official = _media(options, folder)
    _check_outputs(options, media, official)
    from benchmark.prediction.work import Pictures, Work

    pictures = Pictures(options.overlay, options.overlay_format, options.overlay_size, media)
    predictor = _predictor(options, folder, selection)
    chosen = _chosen(options, folder, selection, predictor.spec)
    _warn_of_weights(options, folder, selection, predictor.spec)
    label, short, localizer = (str(chosen[0]), _short(chosen[0]), chosen[1]) if chosen else ("", "", None)
    work = Work(predictor, localizer, short, pictures, every=options.every or 1, fps=options.fps)
    spool = Spool()
    stopped = work.run(media, spool)
    for reason in work.failed.values():
        _warn(reason)
    if official and _is_submission(options) and (stopped or work.failed):
        done = len(media) - len(spool)
        raise ValueError(f"nothing written: {done} of {len(media)} images are missing from the submission")
    timed = any(isinstance(item, Clip) for item in media)
    origin = Origin(folder.run_id, selection, predictor.spec, label, work.failed, timed)
    _write(options, spool, origin, len(media))
    if stopped:
        _warn(f"stopped; what was done until then is written: {work.done} of {len(media)}")
        return 130
    return 1 if work.failed else 0


def _media(options: argparse.Namespace, folder: RunFolder) -> tuple[Sequence[Source | Clip], bool]:
    """What is predicted, and whether it is the part of NWPU-Crowd that its server scores."""
    data = meant_data(options, folder)
    if data is None:
        return named(map(Path, options.images), as_stored=options.as_stored), False
    return listed(data, options.split, options.data_root), (data.name, options.split) == ("nwpu", "hidden")


def _predictor(options: argparse.Namespace, folder: RunFolder, selection: str) -> Predictor:
    from benchmark.engines import devices_of
    from runners.predict import Predictor

    margin = {} if options.tile_margin is None else {"margin": options.tile_margin}
    return Predictor(folder, selection, devices_of(options.device)[0], options.threads, tile=options.tile, **margin)


def _warn_of_weights(options: argparse.Namespace, folder: RunFolder, selection: str, spec: RunSpec) -> None:
    """Says where the weights do not suit what is made of them."""
    if _is_submission(options) and spec.dataset != "nwpu":
        _warn(f"run {folder.run_id} was trained on {spec.dataset}, not on nwpu")
    if selection == "test_oracle":
        _warn(f"the weights of {folder.run_id} were selected on the test set")


def _is_submission(options: argparse.Namespace) -> bool:
    """Whether a file is written that has to be whole."""
    return "nwpu" in options.format or (options.points is not None and options.points.suffix.lower() == ".txt")


def _write(options: argparse.Namespace, spool: Spool, origin: Origin, asked: int) -> None:
    """Writes the results, and says where they are."""
    told = f"{len(spool)} of {asked} images" if not origin.timed else f"{len(spool)} images and frames"
    if options.points is not None:
        with replacing(options.points) as file, file.open("w", encoding="utf-8", newline="") as stream:
            write_points(POINT_FORMATS[options.points.suffix.lower()], stream, spool, origin)
        number = sum(len(image.points or ()) for image in spool)
        print(f"{options.points}: {number} points in {told}", file=sys.stderr)  # noqa: T201
    if options.overlay is not None:
        print(f"{options.overlay}: pictures of {told}", file=sys.stderr)  # noqa: T201
    if options.out is None:
        write(options.format, sys.stdout, spool, origin)
        return
    with replacing(options.out) as file, file.open("w", encoding="utf-8", newline="") as stream:
        write(options.format, stream, spool, origin)
    print(f"{options.out}: {told}")  # noqa: T201


def _short(choice: Choice) -> str:
    """A localizer for a picture: numbers have three digits."""
    return str(
        Choice(choice.name, {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in choice.params.items()})
    )


def _warn(text: str) -> None:
    print(f"benchmark: {printable(text)}", file=sys.stderr)  # noqa: T201


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be done is said before any work


def _check_outputs(options: argparse.Namespace, media: Sequence[Source | Clip], official: bool) -> None:
    """Refuses outputs that cannot be written, or not be read again."""
    if "nwpu" in options.format:
        check_numbered(media, options.format, official)
    for name in ("out", "points"):
        file = getattr(options, name)
        if file is not None and file.is_dir():
            raise ValueError(f"--{name} {file} is a folder; name a file")
    if options.points is not None:
        _check_points(options.points, options.out, media, official)
    if options.overlay is not None and options.overlay.exists() and not options.overlay.is_dir():
        raise ValueError(f"--overlay {options.overlay} is a file; name a folder")
    for name, least in (("overlay_size", 64), ("every", 1), ("tile", 1), ("tile_margin", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}; found {value}")
    if options.tile_margin is not None and options.tile is None:
        raise ValueError("--tile-margin is the context around tiles; say how large they are, --tile 1024")
    if options.fps is not None and not 0 < options.fps < float("inf"):
        raise ValueError(f"--fps must be a positive number; found {options.fps}")
    if options.fps is not None and options.every is not None:
        raise ValueError("--every and --fps both say which frames are taken; give one of them")


def _check_points(points: Path, out: Path | None, media: Sequence[Source | Clip], official: bool) -> None:
    form = POINT_FORMATS.get(points.suffix.lower())
    if form is None:
        raise ValueError(f"--points {points}: the ending says the format; take {', '.join(POINT_FORMATS)}")
    if out is not None and out.resolve() == points.resolve():
        raise ValueError(f"--out and --points both name {out}")
    if form == "nwpu-points":
        check_numbered(media, form, official)
    twice = repeated(item.id for item in media)
    if form == "csv" and twice:
        raise ValueError(
            f"--points {points} names images by id, and {len(twice)} ids come twice, the first is {twice[0]}; take "
            ".json, which has their paths, or predict the folders one after the other"
        )


def _chosen(
    options: argparse.Namespace, folder: RunFolder, selection: str, spec: RunSpec
) -> tuple[Choice, Localizer] | None:
    """The localizer that was asked for, with its threshold; None if none was."""
    if options.localizer is not None:
        return localizer_of(options.localizer, folder, selection, spec)
    wants = "--points" if options.points is not None else "--format nwpu-points"
    if spec.head != "points" and (options.points is not None or options.format == "nwpu-points"):
        raise ValueError(f"{wants}: {spec.loss} gives a density, not points; name a --localizer, for instance otm")
    return None


def localizer_of(text: str, folder: RunFolder, selection: str, spec: RunSpec) -> tuple[Choice, Localizer]:
    """A localizer as it was typed, `lm[rule=fidtm]`, with the threshold that it will use.

    Args:
        text: Name and parameters.
        folder: The run.
        selection: Whose weights.
        spec: What was trained.

    Raises:
        ValueError: If there is no such localizer, it cannot read what the run gives, or no threshold is known.
        TypeError: If it has no such parameter.
    """
    from runners import localizers

    choice = parse_choice(text)
    localizer = localizers.build(choice.name, **choice.params)
    gives = "points" if spec.head == "points" else "density"
    if localizer.reads != gives:
        fitting = [name for name in localizers.names() if localizers.load(name).reads == gives]
        raise ValueError(
            f"localizer {choice.name} reads {_READS[localizer.reads]}, and {spec.loss} gives {_READS[gives]}: take "
            f"{' or '.join(fitting)}"
        )
    if not localizer.chooses or localizer.threshold is not None:
        return choice, localizer
    threshold, source = _threshold_of(folder, choice, localizer, selection)
    if threshold is None:
        typed = Choice(choice.name, {**choice.params, "threshold": 0.3})
        raise ValueError(
            f"localizer {choice} has no published threshold, and none was chosen on the validation split of run "
            f"{folder.run_id}; give one, for instance --localizer '{typed}'"
        )
    print(f"localizer {choice}: threshold {threshold:.4g}, {source}", file=sys.stderr)  # noqa: T201
    choice = Choice(choice.name, {**choice.params, "threshold": threshold})
    return choice, localizers.build(choice.name, **choice.params)


_READS = {"density": "a density", "points": "proposals"}


def _threshold_of(folder: RunFolder, choice: Choice, localizer: Localizer, selection: str) -> tuple[float | None, str]:
    """The threshold of a localizer where none was typed, and where it is from.

    First the one that was chosen on the validation split when these weights were scored with this very localizer by
    the metrics' present version, by F1 at the dataset's main radius; at another one where it is the only threshold.
    Else the published one; None if there is neither.

    Raises:
        ValueError: If several thresholds were chosen and none, or more than one, at the dataset's main radius.
    """
    from runners import data, localizers

    params = localizers.defaults(choice.name) | choice.params
    scored = [
        found
        for found in folder.localisations()
        if found.threshold_from == "val"
        and found.threshold is not None
        and found.localisation.selection == selection
        and (found.localisation.localizer, found.localisation.version) == (choice.name, localizer.version)
        and found.localisation.params == params
        and found.localisation.metrics == LOCALISATION_VERSION
    ]
    if not scored:
        return localizer.published, "as published"
    main = data.load(folder.spec().dataset).main_radius
    best = [found for found in scored if found.localisation.main == main] or scored
    if len({found.threshold for found in best}) > 1:
        known = sorted((found.localisation.main, found.threshold or 0.0) for found in best)
        told = ", ".join(f"{threshold:.6g} by F1 at {radius}" for radius, threshold in dict.fromkeys(known))
        raise ValueError(
            f"localizer {choice}: several thresholds were chosen on the validation split of run {folder.run_id}: "
            f"{told}; give one, for instance --localizer "
            f"'{Choice(choice.name, {**choice.params, 'threshold': known[0][1]})}'"
        )
    return best[0].threshold, f"chosen on the validation split by F1 at {best[0].localisation.main}"
