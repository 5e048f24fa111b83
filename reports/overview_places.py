"""The part of the page on where people were found: a table, F1 with intervals, and curves, for each setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import pandas as pd

from reports import plots, tables_places
from reports.localised import Localised
from reports.page import Part
from reports.plots_places import curves_by_loss
from reports.style import Look, Plot
from reports.table import Table
from reports.tables_places import file_name, radius_words

__all__ = ["places"]


class Noted(Protocol):
    """Turns what cannot be made into a sentence of a list, and lets the rest be written."""

    def __call__(self, warnings: list[str], what: str, /) -> AbstractContextManager[None]: ...


def places(localised: Localised, looks: Mapping[str, Look], noted: Noted, interval: str) -> Part | None:
    """All that was measured of places; None if nothing was.

    Args:
        localised: What was measured.
        looks: Of all losses of the page.
        noted: What to do with a table or figure that cannot be made.
        interval: What intervals are, for captions.
    """
    if not len(localised):
        return None
    warnings: list[str] = []
    made: list[Table] = []
    drawn: list[Plot] = []
    for setting in tables_places.by_setting(localised):
        with noted(warnings, "localisation table"):
            table = tables_places.localisation(setting)
            made.append(table)
            with noted(warnings, "F1 by system"):
                drawn.append(_titled(_ranking(setting, looks, interval, table.name), table))
            drawn += [_titled(plot, table) for plot in _curves(setting, looks, table.name)]
    lead = [
        "Every localizer on every loss's output. A threshold that fits one loss is no reason to rank another below it: "
        "each run's threshold is chosen on val, never on test.",
    ]
    return Part("places", "Where people are", lead, warnings, made, drawn)


def _titled(plot: Plot, table: Table) -> Plot:
    """With the title of its table before its caption: figures of two settings look alike."""
    return plot._replace(caption=f"{table.title}. {plot.caption}")


def _ranking(setting: Localised, looks: Mapping[str, Look], interval: str, name: str) -> Plot:
    """F1 of every system at the radius that chose the thresholds."""
    rows = _main(setting)
    shown = {str(s): looks[str(label)] for s, label in zip(rows["system"], rows["label"], strict=True)}
    found = []
    for system, own in rows.groupby("system", sort=False):
        sample = setting.sample(own)
        span = sample.interval("f1")
        several = len(sample.seeds) > 1  # one seed has no interval over seeds
        low, high = (span.low, span.high) if several else (np.nan, np.nan)
        found.append({"label": system, "estimate": span.estimate, "low": low, "high": high, "seeds": len(sample.seeds)})
    radius = radius_words(str(rows["radius"].iloc[0]))
    plot = plots.ranking(
        pd.DataFrame(found), looks=shown, metric=f"F1 at {radius}", unit="", interval=interval, highest=True
    )
    return plot._replace(name=f"f1_{name}")


def _curves(setting: Localised, looks: Mapping[str, Look], name: str) -> Iterator[Plot]:
    """Precision over recall at the main radius, a figure a localizer."""
    rows = _main(setting)
    keys = ["run_id", "eval_id", "radius", "split"]
    if not set(keys) <= set(setting.curves):
        return
    curves = setting.curves.merge(rows[[*keys, "label", "seed", "localizer_label"]], on=keys)
    for localizer, own in curves.groupby("localizer_label", sort=False):
        chosen = rows[rows["localizer_label"] == localizer]
        if own["recall"].notna().any():
            words = f"{localizer} at {radius_words(str(own['radius'].iloc[0]))}, {own['split'].iloc[0]}"
            plot = curves_by_loss(own, chosen, looks=looks, words=words)
            yield plot._replace(name=file_name(f"curves_{localizer}_{name}"))


def _main(setting: Localised) -> pd.DataFrame:
    """The rows at the main radius whose hits could be read."""
    rows = setting.rows
    return rows[rows["main"].astype(bool) & setting.has_hits(rows)]
