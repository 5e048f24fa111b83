"""`benchmark report sparse_dense`: the windows and the spacings behind it, and the part of the page on it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reports.density import KINDS, Kind
from reports.localised import Localised
from reports.measured import Measured
from reports.overview_density import crowds
from reports.overview_places import Noted
from reports.page import Part, noted
from reports.place_windows import PlaceWindows
from reports.style import Look, looks
from reports.tables_density import Heads, check_baseline
from reports.windows import COLUMNS, WINDOW, Windows, check_window
from results.store import Store

__all__ = ["heads_of", "part_of", "sparse_dense"]

_BINS: tuple[Kind, ...] = ("quantiles", "nwpu", "jhu")
"""Bins that need nothing but the store."""


def part_of(
    options: argparse.Namespace, measured: Measured, localised: Localised, drawn: Sequence[Kind]
) -> Callable[[Mapping[str, Look], Noted], Part]:
    """What makes the part on sparse and dense crowds, from the looks of all losses and what to do with what fails.

    Args:
        options: `output`, `recorded`, `bins`, `window`, `baseline` and `data_root`.
        measured: What was measured.
        localised: Where people were found.
        drawn: Kinds of bins that have figures.

    Raises:
        ValueError: If the baseline was not measured, or the window is no multiple of 64 px.
    """
    check_baseline(measured, options.baseline)
    side = WINDOW if options.window is None else options.window
    check_window(side)
    kinds = tuple(options.bins or _BINS)
    problems: list[str] = []
    windows = _windows(options, measured, side, problems)
    found = None if options.recorded else PlaceWindows.of(Store(options.output), localised, side, problems)

    def make(shown: Mapping[str, Look], noted: Noted) -> Part:
        part = crowds(
            measured, localised, windows, shown, noted,
            kinds=kinds, drawn=drawn, baseline=options.baseline, heads=heads_of(options.data_root), place_windows=found,
        )  # fmt: skip
        said = [f"No readable windows in {len(problems)} measurements; the first: {problems[0]}"] if problems else []
        return part._replace(warnings=[*part.warnings, *said])

    return make


def sparse_dense(options: argparse.Namespace, measured: Measured, localised: Localised) -> Part:
    """The tables of one store, and its figures where there is a folder for them.

    Raises:
        ValueError: As `part_of`, and if there is no table.
    """
    drawn = KINDS if options.to is not None else ()
    part = part_of(options, measured, localised, drawn)(looks(set(measured.evaluated["label"])), noted)
    if not part.details:
        why = part.warnings[0] if part.warnings else "no run was measured; see `benchmark status`"
        raise ValueError(why.removesuffix("."))
    first, *others = [table for _, table in part.details]
    first = replace(first, findings=(*part.lead[1:], *first.findings))  # the summary; formats without a lead have it so
    return part._replace(tables=[first, *others], details=())


def heads_of(root: Path | None) -> Heads:
    """What gives the heads of each image of a setting, from the datasets below a folder."""

    @cache
    def known(name: str, params: str, split: str) -> dict[str, npt.NDArray[np.float64]]:
        from runners import data
        from runners.data.cache import fit_annotation
        from runners.data.reading import DataError

        found = {}
        try:
            dataset = data.build(name, root=root, **json.loads(params))
            for entry in dataset.entries(split):
                stored = dataset.image_size(entry)
                fitted = fit_annotation(dataset.read_annotation(entry), stored, dataset.prepared_size(*stored))
                found[entry.id] = np.asarray(fitted.points, np.float64)
        except (DataError, OSError, TypeError, ValueError) as error:
            raise ValueError(f"bins of the spacing need the annotations, and {error}") from error
        return found

    def find(terms: Mapping[str, Any], ids: Sequence[str], true: Sequence[float]) -> list[npt.NDArray[np.float64]]:
        name = str(terms["dataset"])
        params = terms["dataset_params"] if isinstance(terms["dataset_params"], str) else "{}"
        here = known(name, params, str(terms["split"]))
        for image, count in zip(ids, true, strict=True):
            if image not in here or len(here[image]) != count:
                found = f"{len(here[image])} people" if image in here else "no such image"
                raise ValueError(
                    f"{name} at --data-root is not what was measured: image {image} had {count:g} people, found {found}"
                )
        return [here[image] for image in ids]

    return find


def _windows(options: argparse.Namespace, measured: Measured, side: int, problems: list[str]) -> Windows:
    """The windows of a store or of recorded studies; those of a study without any are not there."""
    if not options.recorded:
        return Windows.of(Store(options.output), measured, side, problems)
    from results import recorded

    studies = [recorded.read(folder) for folder in options.recorded]
    found = [Windows.of_frame(one.images(COLUMNS), side) for one in studies if one.study.windows]
    return Windows.merged(side, found)
