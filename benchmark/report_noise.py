"""`benchmark report noise`: the study of noisy annotations of a store."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.markup import escape

from benchmark.show import progress_console
from reports.measured import Measured
from reports.overview_noise import noisy
from reports.page import Part, noted
from reports.style import looks
from reports.tables_noise import few_noises
from reports.words import SPAN
from results.atomic import printable, write_text

__all__ = ["noise", "write_findings"]

_WIDTH = 100
"""Columns of the file of findings; ours."""


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


def write_findings(part: Part, folder: Path) -> Path:
    """Writes `findings.txt`: the findings, then each figure's name with its caption; says so on stderr.

    Args:
        part: What `noise` made.
        folder: Where `figures` lies; made if it does not exist.

    Returns:
        The file.
    """
    paragraphs = [*part.lead, *part.warnings, *(f"{plot.name}: {plot.caption}" for plot in part.plots)]
    wrapped = [
        textwrap.fill(printable(text), _WIDTH, break_long_words=False, break_on_hyphens=False) for text in paragraphs
    ]
    path = folder / "findings.txt"
    write_text(path, "\n\n".join(wrapped) + "\n")
    progress_console.print(f"findings and captions in {escape(str(path))}", soft_wrap=True)
    return path
