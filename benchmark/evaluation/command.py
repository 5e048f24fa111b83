"""`benchmark evaluate`: scores anybody's predicted points against anybody's annotation."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from rich.markup import escape

from benchmark.evaluation.folder import write_folder
from benchmark.evaluation.tables import counts_table, levels_tables, scores_table
from benchmark.show import console, progress_console
from reports import render
from reports.table import Table
from results.atomic import printable, write_text
from runners.metrics import localisation as metrics
from runners.metrics.density import by_density
from runners.metrics.matching import gains
from runners.metrics.point_files import read_predictions, read_truth
from runners.metrics.point_ids import Paired, by_order, pair, read_names
from runners.metrics.radii import Radius, parse_radii, sized

if TYPE_CHECKING:
    from reports.style import Plot

__all__ = ["Sweep", "Tried", "evaluate", "read_pairs", "score", "try_thresholds"]

_SUFFIX = {"md": "markdown", "csv": "csv", "tex": "latex", "json": "json", "html": "html", "txt": "terminal"}
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 100)
"""Pixels at which scores are drawn where no range was asked for (ours)."""
_DRAWN = 8.0
"""Pixels within which heads are found in the pictures, where a range alone was asked for that has them (ours)."""


class Sweep(NamedTuple):
    """A range of radii that is averaged over: `1:100`."""

    name: str
    radii: tuple[Radius, ...]


class Tried(NamedTuple):
    """What every threshold on the score gives at one radius: `localisation.curve`, and what follows from it."""

    curve: pd.DataFrame
    average_precision: float
    threshold: float


def evaluate(options: argparse.Namespace) -> int:
    """Carries out the command; 0.

    Raises:
        ValueError: If a file cannot be read, images do not agree, or options contradict each other.
    """
    folder = _folder(options)
    form = _format(options, folder)
    _check_images(options, folder)
    names = options.names or options.images
    pairs, left_out = read_pairs(options.gt, options.pred, options.ids, names, options.missing)
    if left_out:
        progress_console.print(f"[yellow]{escape(left_out)}[/]", soft_wrap=True)
    radii, sweeps = _radii(options.thresholds, pairs)
    drawn = tuple(Radius("px", float(step)) for step in _STEPS) if folder is not None and not sweeps else ()
    pictured = _pictured(radii, sweeps) if options.images is not None else None
    paired = radii if pictured is None or pictured in radii else (*radii, pictured)
    rows = score(pairs, paired, [radius for sweep in sweeps for radius in sweep.radii] + list(drawn))
    tried = try_thresholds(pairs, radii)
    tables = _tables(rows, radii, sweeps, tried, options)
    if folder is not None:
        figures = _figures(rows, radii, sweeps[0].radii if sweeps else drawn, tried)
        if pictured is not None:
            figures.append(_pictures(rows, options.images, pictured))
        write_folder(folder, tables, figures, rows[["id", "true", "predicted", *(f"tp_{r.name}" for r in radii)]])
    _show(options, folder, form, tables, _numbers(rows, radii, sweeps, tried) if options.json else {})
    if folder is not None and not options.json:
        drawn_at = f"; heads in the pictures are found within {pictured.name}" if pictured is not None else ""
        console.print(f"written: tables, figures and images.csv in {folder}{drawn_at}", soft_wrap=True, markup=False)
    return 0


def _show(
    options: argparse.Namespace, folder: Path | None, form: str, tables: Sequence[Table], numbers: dict[str, Any]
) -> None:
    """Prints the tables or, for machines, the numbers; or writes the one file of --out."""
    if options.json:
        print(json.dumps(_finite(numbers), indent=1))  # noqa: T201
    elif options.out is not None and folder is None:
        write_text(options.out, render.several(tables, form))
        console.print(f"written: {options.out}", soft_wrap=True, markup=False)
    elif form == "terminal":
        for table in tables:
            console.print(render.terminal(table, console.width))
            console.print()
    else:
        print(render.several(tables, form), end="")  # noqa: T201


# ---------------------------------------------------------------------------------------------------------------------
# From files to rows


def read_pairs(
    truth: Path, predictions: Path, ids: str = "own", names: Path | None = None, missing: Any = "error"
) -> tuple[list[Paired], str]:
    """Reads an annotation and predictions, and finds the images that belong together.

    Args:
        truth: The annotation, see `runners.metrics.point_files`.
        predictions: The predictions.
        ids: `own`: images are named by their names; `lexicographic`: the predictions number them in the order of their
            names, from 1.
        names: Folder or list of names, for `lexicographic`; None: the names in the annotation.
        missing: See `point_ids.pair`.

    Returns:
        The pairs, and a sentence on images that only one file has; empty if they agree.

    Raises:
        DataError: See `point_files` and `point_ids`.
    """
    heads, points = read_truth(truth), read_predictions(predictions)
    if ids == "lexicographic":
        heads, points = by_order(heads, points, read_names(names) if names is not None else None)
    found = pair(heads, points, missing=missing)
    if missing == "empty" and len(heads) > len(points):
        return (
            found,
            f"{len(heads) - len(points)} of {len(heads)} annotated images have no prediction: nobody found there",
        )
    lacking, unknown = len(heads) - len(found), len(points) - len(found)
    if missing == "skip" and (lacking or unknown):
        return found, f"left out: {lacking} annotated and {unknown} predicted images that the other file does not have"
    return found, ""


def score(pairs: Sequence[Paired], radii: Sequence[Radius], sweep: Sequence[Radius] = ()) -> pd.DataFrame:
    """One row of `localisation.image_points` an image.

    Raises:
        ValueError: With the image's name, if it cannot be scored.
    """
    rows = []
    for one in pairs:
        try:
            rows.append(metrics.image_points(one.id, one.heads, one.predicted, radii, sweep=sweep))
        except ValueError as error:
            raise ValueError(f"image {printable(one.id)}: {error}") from error
    return pd.DataFrame(rows)


def try_thresholds(pairs: Sequence[Paired], radii: Sequence[Radius]) -> dict[str, Tried]:
    """Every threshold on the score, for each radius; nothing where the predictions have no scores."""
    if any(one.predicted.scores is None for one in pairs):
        return {}
    people = sum(len(one.heads.points) for one in pairs)
    found = {}
    for radius in radii:
        scores, won = [], []
        for one in pairs:
            values = one.predicted.scores
            assert values is not None
            scores.append(np.sort(values)[::-1])
            heads, points = one.heads.points.astype(np.float32), one.predicted.points.astype(np.float32)  # as in a row
            won.append(gains(heads, points, values, radius.of(one.heads)))
        curve = metrics.curve(scores, won, people)
        found[radius.name] = Tried(curve, metrics.average_precision(curve), metrics.best_threshold(curve))
    return found


def _radii(words: Sequence[str] | None, pairs: Sequence[Paired]) -> tuple[tuple[Radius, ...], tuple[Sweep, ...]]:
    """What the words ask for; without words sigma_s and sigma_l where every head has them, else 4 and 8 px.

    Where nobody is annotated nothing says that there are boxes: 4 and 8 px.
    """
    if not words:
        boxed = any(len(one.heads.points) for one in pairs) and all(sized(one.heads) for one in pairs)
        return parse_radii(["sigma_s", "sigma_l"] if boxed else ["4", "8"]), ()
    sweeps = tuple(Sweep(word, parse_radii([word])) for word in dict.fromkeys(words) if ":" in word)
    single = [word for word in words if ":" not in word]
    radii = parse_radii(single) if single or not sweeps else ()
    if len(radii) > metrics.MOST_PAIRED:
        raise ValueError(
            f"--thresholds has {len(radii)} single radii, at most {metrics.MOST_PAIRED}; give a range, 1:100"
        )
    return radii, sweeps


def _pictured(radii: Sequence[Radius], sweeps: Sequence[Sweep]) -> Radius:
    """The radius at which heads are found in the pictures: the last single one; of a range 8 px, else its largest."""
    if radii:
        return radii[-1]
    return next((radius for radius in sweeps[0].radii if radius.value == _DRAWN), sweeps[0].radii[-1])


# ---------------------------------------------------------------------------------------------------------------------
# What is written


def _tables(
    rows: pd.DataFrame,
    radii: Sequence[Radius],
    sweeps: Sequence[Sweep],
    tried: Mapping[str, Tried],
    options: argparse.Namespace,
) -> list[Table]:
    title = f"{options.pred.name} against {options.gt.name}"
    scores = {radius.name: metrics.pooled(rows, radius.name) for radius in radii}
    means = {sweep.name: metrics.swept(rows, sweep.radii) for sweep in sweeps}
    precise = {name: one.average_precision for name, one in tried.items()}
    best = {name: one.threshold for name, one in tried.items()}
    found = [scores_table(title, rows, scores, means, precise, best), counts_table(rows, metrics.count_errors(rows))]
    return found + levels_tables([metrics.by_level(rows, radius.name) for radius in radii])


def _numbers(
    rows: pd.DataFrame, radii: Sequence[Radius], sweeps: Sequence[Sweep], tried: Mapping[str, Tried]
) -> dict[str, Any]:
    """All numbers, unrounded, for machines."""
    scores: dict[str, Any] = {}
    for radius in radii:
        scores[radius.name] = dict(metrics.pooled(rows, radius.name))
        if radius.name in tried:
            one = tried[radius.name]
            best = {"threshold": one.threshold, "f1": one.curve["f1"].max() if len(one.curve) else None}
            scores[radius.name] |= {"average_precision": one.average_precision, "best_on_these_images": best}
    levels = [metrics.by_level(rows, radius.name) for radius in radii]
    return {
        "images": len(rows),
        "true": int(rows["true"].sum()),
        "predicted": int(rows["predicted"].sum()),
        "counts": metrics.count_errors(rows),
        "radii": scores,
        "sweeps": {sweep.name: metrics.swept(rows, sweep.radii) for sweep in sweeps},
        "levels": [record for frame in levels for record in frame.to_dict("records")],
    }


def _finite(value: Any) -> Any:
    """Numpy's numbers as Python's; NaN and infinity, which JSON lacks, as null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figures(
    rows: pd.DataFrame, radii: Sequence[Radius], swept: Sequence[Radius], tried: Mapping[str, Tried]
) -> list[Plot]:
    """Precision and recall over thresholds on the score, scores over radii, F1 of sparse and dense images."""
    from reports import plots_localisation as plots

    curves = {name: one.curve for name, one in tried.items() if len(one.curve)}
    found = [plots.precision_recall(curves)] if curves and rows["true"].any() else []
    if len(swept) > 1:
        found.append(plots.by_radius(_by_radius(rows, swept)))
    if radii and rows["true"].any():
        found.append(plots.by_density(by_density(rows, [radius.name for radius in radii])))
    return found


def _pictures(rows: pd.DataFrame, images: Path, radius: Radius) -> Plot:
    """False alarms and misses drawn on images."""
    from benchmark.evaluation.images import examples
    from reports import plots_localisation as plots

    return plots.hits(examples(rows, images, radius.name))


def _by_radius(rows: pd.DataFrame, radii: Sequence[Radius]) -> pd.DataFrame:
    """Precision, recall and F1 at each radius in pixels."""
    return pd.DataFrame([{"radius": radius.value, **metrics.pooled(rows, radius.name)} for radius in radii])


def _check_images(options: argparse.Namespace, folder: Path | None) -> None:
    """Refuses images that would not be used."""
    if options.images is not None and folder is None:
        raise ValueError("--images draws on these images: say where to with --out FOLDER")
    if options.images is not None and not options.images.is_dir():
        raise ValueError(f"--images {options.images} is no folder")
    if options.names is not None and options.ids == "own":
        raise ValueError("--names are of images that are numbered by the order of their names: say --ids lexicographic")


def _folder(options: argparse.Namespace) -> Path | None:
    """The folder that --out names: what exists as one, or has no ending of a file."""
    out: Path | None = options.out
    if out is None:
        return None
    for name, source in (("--pred", options.pred), ("--gt", options.gt)):
        if out.exists() and source.exists() and out.samefile(source):
            raise ValueError(f"--out {out} is the file of {name}, which would be lost; name another")
    if out.is_dir() or (not out.suffix and not out.exists()):
        return out
    if out.suffix.removeprefix(".") not in _SUFFIX:
        raise ValueError(f"--out {out}: expected a folder, or a file that ends in .{', .'.join(_SUFFIX)}")
    return None


def _format(options: argparse.Namespace, folder: Path | None) -> str:
    """The format typed, that of the ending of --out, or the terminal's."""
    if options.json and (options.format is not None or (options.out is not None and folder is None)):
        raise ValueError(
            "--json prints all numbers; leave --format and a file in --out away (--format json is the table)"
        )
    if options.format is not None:
        return str(options.format)
    ending = "" if options.out is None else options.out.suffix.removeprefix(".")
    return _SUFFIX.get(ending, "terminal") if folder is None else "terminal"
