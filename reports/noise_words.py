"""What the study of noisy annotations finds, in sentences worked out of its tests. See `reports.noise`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reports.cells import METRIC_NAMES
from reports.degradation import Degradation, Slopes, slopes
from reports.measured import Comparisons
from reports.noise import CLEAN, KINDS, Study, comparisons, count_norms
from reports.stats import Metric
from reports.tables_noise import slope_words

__all__ = ["findings"]

_LEVEL = 0.05


def findings(study: Study, metric: Metric = "mae") -> list[str]:
    """What is separated and what is not: at every noise, among the slopes, and between PML's two count norms.

    Args:
        study: What was measured.
        metric: mae, rmse or nae.
    """
    absolute, relative = (slopes(study, [metric], relative=shown) for shown in (False, True))
    said = _at_noises(study, metric)
    for kind in study.levels:
        said += _of_slopes(kind, absolute, metric)
    for pair in count_norms(study.measured.evaluated):
        for kind in study.levels:
            said.append(_claim(study, kind, pair, absolute, relative, metric))
    if study.left_out:
        said.append(f"Noises of several kinds are on no curve and in no slope: {', '.join(study.left_out)}.")
    return said


def _at_noises(study: Study, metric: Metric) -> list[str]:
    """Who is told apart at which noise; the noises at which nobody is, in one sentence."""
    name = METRIC_NAMES[metric]
    apart, open_, untested = [], [], []
    for noise, compared in comparisons(study, metric).items():
        table = compared.table
        tested = table[table["p"].notna()] if len(table) else table
        if tested.empty:
            untested += [noise] if len(study.samples(noise)) > 1 else []
        elif won := _won(tested):
            shown = f"{(tested['p_holm'] < _LEVEL).sum()} of {len(tested)} pairs"
            apart.append(f"{_at(noise)} {won} ({shown}, by the {name}); the other pairs are not separated.")
            if (tested["p_holm"] < _LEVEL).all():
                apart[-1] = f"{_at(noise)} {won}: all {len(tested)} pairs are separated by the {name}."
        else:
            open_.append(f"{'clean labels' if noise == CLEAN else noise} ({len(tested)})")
    if open_:
        apart.append(
            f"No pair of losses is separated by the {name} at {', '.join(open_)}; in brackets the pairs tested."
        )
    if untested:
        apart.append(f"Nothing can be tested at {', '.join(untested)}: that takes two seeds that two losses share.")
    return apart


def _of_slopes(kind: str, found: Slopes, metric: Metric) -> list[str]:
    """Whose error rises with the level, and whose slopes differ."""
    inside, words = found.found.get(kind, {}), KINDS[kind]
    if not inside:
        return [f"No loss has a slope over {kind}: {'; '.join(sorted(set(found.absent.values()))) or 'no loss'}."]
    spans = {label: one.interval(metric) for label, one in inside.items() if len(one.seeds) > 1}
    what = f"{METRIC_NAMES[metric]} over {kind} ({words.words}, levels ours)"
    if not spans:
        return [f"{what}: one seed a loss, no interval of a slope."]
    told = {
        "rises for": [label for label, span in spans.items() if span.low > 0],
        "falls for": [label for label, span in spans.items() if span.high < 0],
        "neither rise nor fall is told for": [label for label, span in spans.items() if span.low <= 0 <= span.high],
    }
    parts = [
        f"{verb} {', '.join(f'{label} {_span(spans[label])}' for label in labels)}"
        for verb, labels in told.items()
        if labels
    ]
    single = [label for label in inside if label not in spans]
    parts += [f"one seed at every level, no interval: {', '.join(single)}"] if single else []
    said = f"{what}, per {words.unit}, with 95 % intervals (not corrected): {'; '.join(parts)}."
    table = found.comparisons.table
    tested = table[(table["column"] == kind) & table["p"].notna()] if len(table) else table
    if tested.empty:
        return [said]
    won = _won(tested, "is steeper than", worse=True)
    ending = f" Slopes told apart: {won}." if won else f" No pair of its slopes is separated ({len(tested)} tested)."
    return [said + ending]


def _claim(study: Study, kind: str, pair: tuple[str, str], absolute: Slopes, relative: Slopes, metric: Metric) -> str:
    """Whether PML's L1 count norm is more robust than its L2, as the paper's slides say."""
    inside = absolute.found.get(kind, {})
    start = f"PML's count norm under {kind}"
    if missing := [label for label in pair if label not in inside]:
        reason = absolute.absent.get((kind, missing[0]), "it was not trained on this noise")
        return f"{start}: nothing to say, {missing[0]} has no slope ({reason})."
    row = _row(absolute.comparisons, kind, pair)
    p, difference = row["p_holm"], row["difference"]
    if not math.isfinite(p):
        return f"{start}: the slopes of {pair[0]} and {pair[1]} cannot be tested without two common seeds."
    by_clean = _row(relative.comparisons, kind, pair) if pair[0] in relative.found.get(kind, {}) else {}
    measured = (
        f"L1 ({pair[0]}) minus L2 ({pair[1]}) {slope_words(difference)} "
        f"({slope_words(row['low'])} to {slope_words(row['high'])}) {METRIC_NAMES[metric]} per {KINDS[kind].unit}"
        f"{_common(study, kind, pair)}, p {p:.2g} after correction{_relative_words(by_clean)}"
        f"{_overlap([inside[label] for label in pair], metric)}."
    )
    verdict = (
        "The slides' claim that the L1 norm is more robust is neither confirmed nor contradicted here."
        if p >= _LEVEL
        else "This confirms, on these terms, the slides' claim that the L1 norm is more robust."
        if difference < 0
        else "This contradicts, on these terms, the slides' claim that the L1 norm is more robust."
    )
    return f"{start}: {measured} {verdict} The tau of the L2 norm is ours; the paper's is not known."


def _common(study: Study, kind: str, pair: tuple[str, str]) -> str:
    """The levels of a paired comparison, where they are not all of the kind's."""
    levels = study.levels[kind]
    both = [level.noise for level in levels if set(pair) <= set(study.samples(level.noise))]
    return "" if len(both) == len(levels) else f" over {', '.join(both)}, which both have"


def _overlap(pair: Sequence[Degradation], metric: Metric) -> str:
    """Whether the intervals of two slopes overlap, over the same levels."""
    if any(len(one.seeds) < 2 for one in pair) or set(pair[0].samples) != set(pair[1].samples):
        return ""
    a, b = (one.interval(metric) for one in pair)
    return f"; the intervals of the two slopes {'' if a.low <= b.high and b.low <= a.high else 'do not '}overlap"


def _relative_words(row: Mapping[str, Any]) -> str:
    if not row or not math.isfinite(row["p_holm"]):
        return ""
    span = f"{slope_words(row['difference'])} ({slope_words(row['low'])} to {slope_words(row['high'])})"
    return f"; of the clean error {span} % per unit, p {row['p_holm']:.2g}"


def _at(noise: str) -> str:
    return "With clean labels" if noise == CLEAN else f"At {noise}"


def _row(found: Comparisons, kind: str, pair: Sequence[str]) -> dict[str, Any]:
    """The comparison of a pair, first minus second, whichever way the table has it."""
    for row in found.table.to_dict("records") if len(found.table) else ():
        if row["column"] == kind and {row["a"], row["b"]} == set(pair):
            told = {str(name): value for name, value in row.items()}
            if row["a"] == pair[0]:
                return told
            return told | {"difference": -row["difference"], "low": -row["high"], "high": -row["low"]}
    return {"p_holm": math.nan, "difference": math.nan, "low": math.nan, "high": math.nan}


def _won(tested: pd.DataFrame, verb: str = "is better than", worse: bool = False) -> str:
    """`a is better than b, c; b is better than c`; empty where nothing is separated."""
    wins: dict[str, list[str]] = {}
    for row in tested[tested["p_holm"] < _LEVEL].to_dict("records"):
        first, second = (row["a"], row["b"]) if (row["difference"] < 0) != worse else (row["b"], row["a"])
        wins.setdefault(first, []).append(second)
    return "; ".join(f"{label} {verb} {', '.join(sorted(others))}" for label, others in sorted(wins.items()))


def _span(interval: Any) -> str:
    return f"{slope_words(interval.estimate)} ({slope_words(interval.low)} to {slope_words(interval.high)})"
