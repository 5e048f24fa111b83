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
_VERBS = {1: "rises for", -1: "falls for", 0: "neither rise nor fall is told for"}
"""What is said of a slope by its verdict."""
_CLAIM = {1: "contradict", -1: "confirm", 0: "neither confirm nor contradict"}


def findings(study: Study, metric: Metric = "mae") -> list[str]:
    """What is separated and what is not: at every noise, among the slopes, and between PML's two count norms.

    Args:
        study: What was measured.
        metric: mae, rmse or nae.
    """
    absolute, relative = (slopes(study, [metric], relative=shown) for shown in (False, True))
    said = _at_noises(study, metric)
    for kind in study.levels:
        said.append(_of_slopes(kind, absolute, relative, metric))
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


def _of_slopes(kind: str, absolute: Slopes, relative: Slopes, metric: Metric) -> str:
    """Whose error rises with the level, whose slopes differ, and where the relative slopes say otherwise."""
    inside, words = absolute.found.get(kind, {}), KINDS[kind]
    if not inside:
        return f"No loss has a slope over {kind}: {'; '.join(sorted(set(absolute.absent.values()))) or 'no loss'}."
    what = f"{METRIC_NAMES[metric]} over {kind} ({words.words}, levels ours)"
    tested = _tested(absolute, kind)
    if not tested:
        few = all(len(one.seeds) < 2 for one in inside.values())
        return f"{what}: {'one seed a loss, no' if few else 'no'} slope can be tested."
    parts = []
    for verdict, verb in _VERBS.items():
        told = [f"{label} {_span(row)}" for label, row in tested.items() if _verdict(row, "estimate") == verdict]
        parts += [f"{verb} {', '.join(told)}"] if told else []
    single = [label for label in inside if label not in tested]
    parts += [f"not tested, one seed at every level: {', '.join(single)}"] if single else []
    count = int(absolute.tests["p"].notna().sum())
    family = f"{count} slopes (all losses and kinds)" if count > 1 else "1 slope"
    said = (
        f"{what}, per {words.unit}, each slope tested against zero at 5 % after Holm's correction for {family}; in "
        f"brackets 95 % intervals, not corrected: {'; '.join(parts)}."
    )
    return " ".join([said, *_apart(kind, absolute), *_otherwise(kind, absolute, relative)])


def _apart(kind: str, found: Slopes) -> list[str]:
    """Which slopes of a kind differ."""
    table = found.comparisons.table
    tested = table[(table["column"] == kind) & table["p"].notna()] if len(table) else table
    if tested.empty:
        return []
    won = _won(tested, "is steeper than", worse=True)
    return [f"Slopes told apart: {won}." if won else f"No pair of its slopes is separated ({len(tested)} tested)."]


def _otherwise(kind: str, absolute: Slopes, relative: Slopes) -> list[str]:
    """The losses and pairs of which the relative slopes give another verdict, in a sentence."""
    ours, theirs = (
        {label: _verdict(row, "estimate") for label, row in _tested(one, kind).items()} for one in (absolute, relative)
    )
    said = []
    for verdict, verb in _VERBS.items():
        told = [label for label, one in theirs.items() if one == verdict and ours.get(label, one) != one]
        said += [f"{verb} {', '.join(told)}"] if told else []
    pairs, others = (_pairs(one, kind) for one in (absolute, relative))
    for (a, b), verdict in others.items():
        if pairs.get((a, b), verdict) != verdict:
            steep, flat = (a, b) if verdict > 0 else (b, a)
            said.append(f"{steep} is steeper than {flat}" if verdict else f"{a} and {b} are not told apart")
    if not said:
        return []
    return [f"As a share of the clean error (relative slopes, corrected alike) it is otherwise: {'; '.join(said)}."]


def _tested(found: Slopes, kind: str) -> dict[str, dict[str, Any]]:
    """The tests of a kind's slopes against zero, by loss."""
    rows = found.tests[(found.tests["kind"] == kind) & found.tests["p"].notna()]
    return {str(row["label"]): {str(name): value for name, value in row.items()} for row in rows.to_dict("records")}


def _pairs(found: Slopes, kind: str) -> dict[tuple[str, str], int]:
    """The verdict of every tested pair of a kind: 1 where the first is steeper, -1 the second, 0 not told apart."""
    table = found.comparisons.table
    tested = table[(table["column"] == kind) & table["p"].notna()] if len(table) else table
    return {(row["a"], row["b"]): _verdict(row, "difference") for row in tested.to_dict("records")}


def _verdict(row: Mapping[Any, Any], what: str) -> int:
    """The sign of what was tested where it is told from zero after correction, else 0."""
    return 0 if not row["p_holm"] < _LEVEL else 1 if row[what] > 0 else -1


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
        f"L1 ({pair[0]}) minus L2 ({pair[1]}) {slope_words(difference)} ({_bounds(row)}) {METRIC_NAMES[metric]} per "
        f"{KINDS[kind].unit}{_common(study, kind, pair)}, interval not corrected, p {p:.2g} after correction"
        f"{_relative_words(by_clean)}{_overlap([inside[label] for label in pair], metric)}."
    )
    verdict = _verdict(row, "difference")
    said = {
        0: "The slides' claim that the L1 norm is more robust is neither confirmed nor contradicted here",
        -1: "This confirms, on these terms, the slides' claim that the L1 norm is more robust",
        1: "This contradicts, on these terms, the slides' claim that the L1 norm is more robust",
    }[verdict]
    by_share = _verdict(by_clean, "difference") if by_clean and math.isfinite(by_clean["p_holm"]) else verdict
    if by_share != verdict:
        said += f"; the relative slopes would {_CLAIM[by_share]} it"
    return f"{start}: {measured} {said}. The tau of the L2 norm is ours; the paper's is not known."


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
    return f"; of the clean error {slope_words(row['difference'])} ({_bounds(row)}) % per unit, p {row['p_holm']:.2g}"


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


def _span(row: Mapping[str, Any]) -> str:
    """A tested slope: `+0.69 (-0.01 to +1.39, p 0.052)`."""
    return f"{slope_words(row['estimate'])} ({_bounds(row)}, p {row['p_holm']:.2g})"


def _bounds(row: Mapping[str, Any]) -> str:
    return f"{slope_words(row['low'])} to {slope_words(row['high'])}"
