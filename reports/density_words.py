"""What a table of sparse and of dense crowds finds, in sentences worked out of its tests. See `reports.density`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from reports.cells import DIGITS, METRIC_NAMES
from reports.density import Kind
from reports.table import number

__all__ = ["LEVEL", "Verdict", "digits_of", "findings", "span_words", "verdicts"]

LEVEL = 0.05
"""Of the family-wise error."""
_FEW = 10
"""Fewer people a unit: errors in people have one more decimal."""


def findings(frame: pd.DataFrame, kind: Kind, metric: str, baseline: str | None) -> list[str]:
    """Who is told apart from the baseline in which bins, and what that says of PML in dense crowds.

    Args:
        frame: `density.scored`.
        kind: Of its bins.
        metric: What was compared; without a baseline, what is read from the sparsest to the densest bin.
        baseline: The label that the others were compared with, or None.

    Returns:
        Sentences; none where nothing could be tested, or fewer than two bins have a value.
    """
    if baseline is None:
        return _ends(frame, kind, metric)
    tested = frame[frame["p"].notna()]
    if tested.empty:
        return []
    name, clear = METRIC_NAMES[metric], tested[tested["p_holm"] < LEVEL]
    tests = f"{len(tested)} test{'s' * (len(tested) > 1)}"
    if clear.empty:
        said = [f"No loss is told apart from {baseline} in any bin by the {name} ({tests})."]
    else:
        where = {
            str(label): ", ".join(f"by {span_words(row, metric)} in {row['bin']}" for row in _records(own))
            for label, own in clear.groupby("label", sort=True)
        }
        parts = [f"{label} {bins}" for label, bins in where.items()]
        said = [f"Told apart from {baseline} by the {name} ({len(clear)} of {tests}): {'; '.join(parts)}."]
    found = verdicts(frame, kind, metric, baseline)
    if found:
        start = (
            f"The paper argues that PML gains in dense crowds. Against {baseline} in the densest bin that was tested: "
        )
        said.append(start + "; ".join(one.words for one in found) + ".")
    return said


class Verdict(NamedTuple):
    """What the densest bin says of the paper's argument that PML gains in dense crowds.

    Attributes:
        said: `confirmed`, `contradicted`, `open`, or `untold`: the bin holds most of the units.
        words: The measurement and the verdict.
    """

    said: str
    words: str


def verdicts(frame: pd.DataFrame, kind: Kind, metric: str, baseline: str) -> list[Verdict]:
    """One for every label of PML that was tested in the densest bin that could be; none if the baseline is one itself.

    A bin that holds more than half of the units with people says nothing of dense crowds (ours).

    Args:
        frame: `density.scored`, with a baseline.
        kind: Of its bins.
        metric: What was compared.
        baseline: What with.
    """
    tested = frame[frame["p"].notna()]
    own = tested[list(map(_is_pml, tested["label"]))]
    bins = _sparse_to_dense(own, kind)
    if not bins or _is_pml(baseline):
        return []
    units = frame[frame["people"] > 0].drop_duplicates("bin").set_index("bin")["units"]
    size, every = int(units[bins[-1]]), int(units.sum())
    ordered = _sparse_to_dense(frame, kind)
    denser = ordered[ordered.index(bins[-1]) + 1 :]
    untested = f", {', '.join(denser)} not tested" if denser else ""
    place = f"in {bins[-1]} ({size:,} of {every:,}{untested})"
    found = []
    for row in _records(own[own["bin"] == bins[-1]]):
        measured = f"{row['label']} {span_words(row, metric)}, p {row['p_holm']:.2g} after correction"
        said = _said(row, size, every)
        found.append(Verdict(said, f"{place}, {measured}: {_SAID[said]}"))
    return found


_SAID = {
    "open": "neither confirmed nor contradicted on these terms",
    "confirmed": "confirmed on these terms",
    "contradicted": "contradicted on these terms",
    "untold": "most of all are in this bin, which says nothing of dense crowds",
}


def _said(row: Any, size: int, every: int) -> str:
    if 2 * size > every:
        return "untold"
    if row["p_holm"] >= LEVEL:
        return "open"
    return "confirmed" if row["difference"] < 0 else "contradicted"


def _is_pml(label: Any) -> bool:
    return str(label).split("[")[0] == "pml"


def _ends(frame: pd.DataFrame, kind: Kind, metric: str) -> list[str]:
    """The metric in the sparsest bin with people and in the densest, and whether the intervals of the two meet."""
    bins = _sparse_to_dense(frame[frame[metric].notna() & (frame["people"] > 0)], kind)
    if len(bins) < 2:
        return []
    by_bin = frame.set_index(["label", "bin"])
    parts = []
    for label in sorted(set(frame["label"])):
        first, last = (by_bin.loc[(label, name)] for name in (bins[0], bins[-1]))
        shown = " to ".join(number(row[metric], digits_of(row, metric)) for row in (first, last))
        parts.append(f"{label} {shown}{_meeting(first, last, metric)}")
    return [
        f"{METRIC_NAMES[metric]} from the sparsest bin ({bins[0]}) to the densest ({bins[-1]}): {'; '.join(parts)}."
    ]


def _meeting(first: Any, last: Any, metric: str) -> str:
    low, high = f"{metric}_low", f"{metric}_high"
    if any(pd.isna(row[name]) for row in (first, last) for name in (low, high)):
        return ""
    meet = first[low] <= last[high] and last[low] <= first[high]
    return " (intervals overlap)" if meet else " (intervals do not overlap)"


def _sparse_to_dense(frame: pd.DataFrame, kind: Kind) -> list[str]:
    """The bins in that order; those of the spacing begin with the densest, and end with units that have none."""
    names = list(dict.fromkeys(frame["bin"]))
    if kind != "spacing":
        return names
    return [name for name in reversed(names) if name.endswith(("px", ")"))]


def span_words(row: Any, metric: str) -> str:
    """`+5.7 (+2.8 to +8.6)`: the difference of a row to the baseline, with its interval."""
    digits = digits_of(row, metric)
    at, low, high = (number(row[f"difference{end}"], digits, sign=True) for end in ("", "_low", "_high"))
    return f"{at} ({low} to {high})"


def digits_of(row: Any, metric: str) -> int:
    """Decimals of a metric: one more in bins of few people each."""
    return DIGITS[metric] + (metric in ("mae", "bias") and row["people"] < _FEW * row["units"])


def _records(frame: pd.DataFrame) -> Sequence[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
