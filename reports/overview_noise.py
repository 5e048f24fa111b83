"""The part on noisy annotations, of the page and of `benchmark report noise`: tables, figures and findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from reports.cells import METRIC_NAMES
from reports.measured import Measured
from reports.noise import Study, constants, count_norms, errors, norm_curves, studies
from reports.noise_words import findings
from reports.overview_places import Noted
from reports.page import Part
from reports.plots_noise import error_by_noise, norms_by_epoch
from reports.stats import Metric
from reports.style import Look, Plot
from reports.table import Table
from reports.tables import check_metrics, known_metrics
from reports.tables_noise import noise_tables

__all__ = ["noisy"]

FIGURES = {
    "noise_height": ("uniform-height",),
    "noise_px": ("uniform-px", "gaussian-px"),
    "noise_heads": ("missing", "duplicate"),
}
"""The kinds of each figure of errors by level."""
_UNITS: dict[str, str] = {"mae": "people", "rmse": "people", "nae": "", "bias": "people"}


def noisy(
    measured: Measured,
    history: pd.DataFrame,
    looks: Mapping[str, Look],
    noted: Noted,
    interval: str,
    metrics: Sequence[str] = ("mae",),
    *,
    figures: bool = True,
) -> Part | None:
    """All that was measured of noisy annotations, one study after the other; None if no terms have two noises.

    Args:
        measured: What was measured.
        history: `results.Store.histories()` of its runs.
        looks: Of all losses of the report.
        noted: What to do with a table or figure that cannot be made.
        interval: What intervals are, for captions.
        metrics: Of the tables; the first one that is not the bias is drawn and put into sentences.
        figures: Whether to draw.

    Returns:
        The part; the findings are in `lead`, and each study's also with its first table.

    Raises:
        ValueError: If a metric is unknown.
    """
    check_metrics(metrics)
    chosen = known_metrics(metrics)
    found = studies(measured)
    if not found:
        return None
    lead = [
        "The paper has a figure of noisy annotations whose axes, levels, data and network no source states. Kinds and "
        "levels here are ours, in the style of BL and of NoiseCC: no number of that figure can be confirmed or "
        "contradicted, only what is said about losses in words. Test labels are clean."
    ]
    warnings: list[str] = []
    made: list[Table] = []
    drawn: list[Plot] = []
    main = next((metric for metric in chosen if metric != "bias"), None)
    for study in found:
        ending = f"_{study.key}" if len(found) > 1 else ""
        said: list[str] = []
        if main is not None:
            with noted(warnings, f"findings on noise of {study.title}"):
                said = findings(study, main)
                lead += [f"{study.title}:", *said] if len(found) > 1 else said
        with noted(warnings, f"noise tables of {study.title}"):
            first, *others = noise_tables(study, metrics)
            tables = [replace(first, findings=tuple(said)), *others]
            made += [replace(table, name=f"{table.name}{ending}") for table in tables]
        if figures:
            drawn += [
                plot._replace(name=f"{plot.name}{ending}")
                for plot in _figures(study, history, looks, noted, warnings, main or "bias", interval)
            ]
    return Part("noise", "Noisy annotations", lead, warnings, made, drawn)


def _figures(
    study: Study,
    history: pd.DataFrame,
    looks: Mapping[str, Look],
    noted: Noted,
    warnings: list[str],
    metric: Metric,
    interval: str,
) -> list[Plot]:
    """Panels (a), (b), heads, and (c), as far as there are runs for them."""
    drawn = []
    every, floor = errors(study, metric), constants(study, metric)
    for name, kinds in FIGURES.items():
        inside = every[every["kind"].isin(kinds)]
        if inside.empty:
            continue
        with noted(warnings, name.replace("_", " ")):
            words = {"metric": METRIC_NAMES[metric], "unit": _UNITS[metric], "interval": interval}
            drawn.append(error_by_noise(inside, floor, looks=looks, name=name, **words))
    for place, pair in enumerate(count_norms(study.measured.evaluated)):
        with noted(warnings, "curves of PML's count norms"):
            name = "count_norms" if place == 0 else f"count_norms_{place + 1}"
            drawn.append(norms_by_epoch(norm_curves(study, history, pair), looks=looks, name=name))
    return drawn
