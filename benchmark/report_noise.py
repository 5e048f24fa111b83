"""`benchmark report noise`: the study of noisy annotations of a store."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reports.measured import Measured
from reports.overview_noise import noisy
from reports.page import Part, noted
from reports.style import looks
from reports.tables_noise import few_noises
from reports.words import SPAN

__all__ = ["noise"]


def noise(
    measured: Measured, history: pd.DataFrame, metrics: Sequence[str] = ("mae",), *, figures: bool = True
) -> Part:
    """Tables, figures and findings of everything that differs in its noise alone.

    Args:
        measured: What was measured.
        history: Its epochs, for PML's two count norms.
        metrics: Of the tables; the first one that is not the bias is drawn and put into sentences.
        figures: Whether to draw.

    Raises:
        ValueError: If no terms have two noises, or a metric is unknown.
    """
    shown = looks(measured.evaluated["label"])
    part = noisy(measured, history, shown, noted, SPAN, metrics, figures=figures)
    if part is None:
        raise ValueError(few_noises(sorted(set(measured.evaluated["noise"]))))
    if len(set(metrics)) > 1:
        part = part._replace(lead=[*part.lead, "Other metrics: see the tables."])
    return part
