"""Tables of the study of noisy annotations: errors by level, slopes, and ranks. See `reports.noise`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from reports.cells import CONSTANT, DIGITS, METRIC_NAMES, measured_cells, p_cell
from reports.degradation import Slopes, slopes
from reports.measured import Comparisons, Measured, Sample
from reports.noise import CLEAN, KINDS, Study, comparisons, order, ranks
from reports.protocol import check_comparable
from reports.stats import Metric
from reports.table import Cell, Column, Mark, Row, Table, number
from reports.tables import check_metrics, grid, known_metrics
from reports.words import failures_caption, terms_caption

__all__ = ["by_level", "by_rank", "by_slope", "few_noises", "noise_tables", "slope_words"]

ONE_DRAW = (
    "Training labels are noisy, test labels never; every loss saw the same wrong labels, drawn once: intervals do not "
    "count another draw."
)
"""What all of these tables and figures hold."""


def noise_tables(study: Study, metrics: Sequence[str] = ("mae",)) -> list[Table]:
    """Errors by level, slopes and ranks of one study; the bias has no rank.

    Raises:
        ValueError: If a metric is unknown.
    """
    chosen = known_metrics(metrics)
    levels = by_level(study.measured, metrics)
    left_out = f"On no curve, of several kinds: {', '.join(study.left_out)}."
    levels = replace(levels, caption=(*levels.caption, *([left_out] if study.left_out else [])))
    made = [levels, by_slope(study, chosen)]
    ranked = [metric for metric in chosen if metric != "bias"]
    made += [by_rank(study, ranked)] if ranked else []
    return [replace(table, title=f"{table.title}: {study.title}") for table in made]


def by_level(measured: Measured, metrics: Sequence[str] = ("mae",)) -> Table:
    """Losses by annotation noise: each level's error, and how much it is above that with clean labels.

    The change is paired: the same seeds, the same images. The levels are this suite's; the papers do not state theirs.

    Raises:
        MixedProtocolError: If the rows differ in more than loss, noise and seed.
        ValueError: If there is only one level, or an unknown metric.
    """
    check_metrics(metrics)
    rows = measured.evaluated
    levels = sorted(set(rows["noise"]), key=order)
    if len(levels) < 2:
        raise ValueError(few_noises(levels))
    check_comparable(rows, "the noise table", ("noise",))
    found = grid(measured, {level: rows[rows["noise"] == level] for level in levels}, "label", "noise", metrics)
    heads: list[Column] = []
    parts: dict[str, list[Cell]] = {label: [] for label in found.cells}
    for place, head in enumerate(found.heads):
        change = CLEAN in levels and head.group != CLEAN
        heads += [head, *([Column(f"{_short(head.label)} change", head.group, "derived")] if change else [])]
        for label, cells in found.cells.items():
            metric = known_metrics(metrics)[place % len(known_metrics(metrics))]
            clean, noisy = (found.samples.get(level, {}).get(label) for level in (CLEAN, head.group))
            parts[label] += [cells[place], *([_change(metric, clean, noisy)] if change else [])]
    body = [Row(label, tuple(cells), label == CONSTANT) for label, cells in parts.items()]
    caption = (
        *terms_caption(rows.sort_values(["noise", "label"], key=_ordered), ("noise",)),
        _change_words(parts, heads),
        ONE_DRAW,
        *found.reading,
        *_correction_words(found.samples),
        *failures_caption(measured),
    )
    title = "Losses under noisy annotations (kinds and levels ours)"
    return Table("noise", title, "loss", tuple(heads), tuple(body), caption)


def by_slope(study: Study, metrics: Sequence[Metric] = ("mae",)) -> Table:
    """How fast each loss's error rises with the level of each kind, absolute and relative; see `reports.degradation`.

    Beside the slope stands the p of "it is zero", Holm-corrected over the losses and kinds, where one can be tested.
    The bias has no relative slope: its clean value is near zero by design.
    """
    absolute = slopes(study, metrics)
    relative = slopes(study, [metric for metric in metrics if metric != "bias"], relative=True)
    labels = sorted({label for kind in study.levels for label in _labels(study, kind)})
    counts = {len(one.seeds) for inside in absolute.found.values() for one in inside.values()}
    tests = absolute.tests.set_index(["metric", "kind", "label"])["p_holm"].dropna()
    heads: list[Column] = []
    cells: dict[str, list[Cell]] = {label: [] for label in labels}
    for kind in study.levels:
        for metric in metrics:
            group = kind if len(metrics) == 1 else f"{kind}, {METRIC_NAMES[metric]}"
            both = [absolute] if metric == "bias" else [absolute, relative]
            heads += [Column("slope", group), *([Column("p (Holm)", group, "derived")] if len(tests) else [])]
            heads += [Column("relative", group)] if len(both) > 1 else []
            heads += [Column("seeds", group, "derived")] if len(counts) > 1 else []
            shown = [_slope_marks(one, kind, metric) for one in both]
            for label in labels:
                slope, *share = [_slope_cell(*pair, kind, label) for pair in zip(both, shown, strict=True)]
                p = [p_cell(tests.get((metric, kind, label)))] if len(tests) else []
                seeds = [Cell(str(slope.seeds or ""), slope.seeds)] if len(counts) > 1 else []
                cells[label] += [slope, *p, *share, *seeds]
    names = ", ".join(METRIC_NAMES[metric] for metric in metrics)
    caption = (
        f"slope: least squares, {names} over the level, a unit; relative: percent of the error with clean labels a "
        f"unit. {_interval_words(counts)}",
        *(f"{kind}: {KINDS[kind].words}, per {KINDS[kind].unit}, {KINDS[kind].axis}." for kind in study.levels),
        ONE_DRAW,
        *_p_words(absolute),
        _tested(absolute.comparisons),
    )
    title = "Slopes of the error over the noise (kinds and levels ours)"
    return Table("noise_slopes", title, "loss", tuple(heads), _rows(cells), caption)


def by_rank(study: Study, metrics: Sequence[Metric] = ("mae",)) -> Table:
    """The ranking at every noise: the rank by the mean error, and the ranks that the tests leave open."""
    heads: list[Column] = []
    cells: dict[str, list[Cell]] = {label: [] for label in sorted(set(study.measured.evaluated["label"]))}
    counts = []
    for metric in metrics:
        clean_labels: set[str] = set()
        compared = comparisons(study, metric)
        counts += [found.pairs for found in compared.values()]
        frame = ranks(study, metric, compared)
        for noise in study.noises:
            group = noise if len(metrics) == 1 else f"{noise}, {METRIC_NAMES[metric]}"
            inside = {row["label"]: row for row in frame[frame["noise"] == noise].to_dict("records")}
            tied = _tied(list(inside), compared[noise], noise, metric)
            if noise == CLEAN:
                clean_labels = set(inside)
            notes = _rank_notes(set(inside), clean_labels)
            changes = any(math.isfinite(row["change"]) for row in inside.values())
            heads += [Column("rank", group), *([Column("rank change", group, "derived")] if changes else [])]
            for label, own in cells.items():
                row = inside.get(label)
                if row is None:
                    own += [Cell("–"), *([Cell()] if changes else [])]
                    continue
                text = f"{row['rank']:g} ({row['first']} to {row['last']})"
                mark: Mark = "tie" if label in tied else "best" if row["last"] == 1 and len(inside) > 1 else ""
                own.append(Cell(text, row["rank"], None, row["first"], row["last"], row["seeds"], mark, notes[0]))
                own += [_rank_change(row["change"], notes[1])] if changes else []
    caption = (
        "Rank by the mean error, 1 is least; in brackets the ranks that paired tests at this noise do not rule out "
        "(all of them at once at 95 %): where brackets overlap, the order may be chance.",
        "rank change: to the rank with clean labels, both among the losses that were measured at both. "
        + _rank_tests(max(counts, default=0)),
        ONE_DRAW,
    )
    title = "Ranking at every noise (kinds and levels ours)"
    return Table("noise_ranks", title, "loss", tuple(heads), _rows(cells), caption)


def few_noises(noises: Sequence[str]) -> str:
    """Why there is no study of noise."""
    found = f"only {noises[0]!r}" if len(noises) == 1 else "no two on the same terms" if noises else "no measured run"
    return (
        f"a noise table needs runs with at least two noises; found {found}: train on others too, as with "
        "`benchmark run ... --noise none uniform-px:8`"
    )


# ---------------------------------------------------------------------------------------------------------------------


def _ordered(column: pd.Series) -> pd.Series:
    """What a column is sorted by: noises by kind and level."""
    return column.map(order) if column.name == "noise" else column


def _change(metric: Metric, clean: Sample | None, noisy: Sample | None) -> Cell:
    """The paired difference to clean labels; nothing without two seeds that both have."""
    found = None if clean is None or noisy is None else noisy.compared(metric, clean)
    if found is None or found.seeds < 2 or not math.isfinite(found.difference.low):
        return Cell("–" if clean is not None and noisy is not None else "")
    at, low, high, *_ = found.difference
    text, *span = (number(value, DIGITS[metric], sign=True) for value in (at, low, high))
    return Cell(f"{text} ({' to '.join(span)})", at, low=low, high=high, seeds=found.seeds)


def _short(name: str) -> str:
    """A metric's name without what stands in brackets behind it."""
    return name.partition(" (")[0]


def _change_words(parts: Mapping[str, Sequence[Cell]], heads: Sequence[Column]) -> str:
    """What the changes are, or why there are none."""
    known = [
        cells[place].low is not None
        for place, head in enumerate(heads)
        if head.kind == "derived"
        for cells in parts.values()
    ]
    if not known:
        return "No change is told: nothing was measured with clean labels."
    if not any(known):
        return "change: none, it takes two seeds that were measured with clean and with noisy labels."
    return "change: against clean labels, on the same seeds and images, with its 95 % interval (not corrected)."


def _correction_words(samples: Mapping[str, Mapping[str, Sample]]) -> list[str]:
    """That the other tables correct over fewer pairs, where anything can be tested."""
    several = [sum(len(sample.seeds) > 1 for sample in inside.values()) > 1 for inside in samples.values()]
    said = "Marks: corrected over the pairs of all noises; ranks and findings: over those of one; they may differ."
    return [said] if any(several) else []


def _interval_words(counts: Collection[int]) -> str:
    """Over what the intervals of slopes are."""
    if not counts:
        return "No loss has a slope."
    if set(counts) == {1}:
        return "No intervals: every level has one seed in common, an interval takes two."
    ending = f": {next(iter(counts))}." if len(counts) == 1 else ", none of one seed." if 1 in counts else "."
    return f"95 % intervals over seeds and images, not corrected, of the seeds that every level has{ending}"


def _rank_notes(inside: set[str], clean: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Notes on ranks and on their changes, where not all losses were measured at the noise and with clean labels."""
    both = inside & clean
    rank = (f"of {len(inside)} losses; with clean labels {len(clean)}",) if len(inside) < len(clean) else ()
    same = not clean or inside == clean
    return rank, () if same else (f"among losses measured here and with clean labels: {len(both)}",)


def _rank_change(change: float, notes: tuple[str, ...]) -> Cell:
    """The change of a rank; a dash for a loss without a rank with clean labels."""
    if not math.isfinite(change):
        return Cell("–", notes=("no rank with clean labels",))
    return Cell(f"{change:+g}" if change else "0", change, notes=notes)


def _rank_tests(pairs: int) -> str:
    if not pairs:
        return "No pair could be tested: that takes two seeds that two losses share; every rank is open."
    some = f"up to {pairs} pairs" if pairs > 1 else "1 pair"
    start = f"Tests: 5 % after Holm's correction for {some} of one noise"
    return f"{start}; a pair without two common seeds is not told apart."


def _slope_cell(found: Slopes, marked: Mapping[str, Cell], kind: str, label: str) -> Cell:
    """The slope with its interval, marked where it is separated; or why there is none."""
    if label not in marked:
        reason = found.absent.get((kind, label))
        return Cell("–", notes=(reason,)) if reason else Cell()
    cell = marked[label]
    if cell.value is None:
        return cell
    text = slope_words(cell.value)
    text += "" if cell.low is None or cell.high is None else f" ({slope_words(cell.low)} to {slope_words(cell.high)})"
    short = found.short.get((kind, label))
    return cell._replace(text=text, notes=(*cell.notes, *([f"over {short} alone"] if short else [])))


def slope_words(value: float) -> str:
    """A slope with its sign and about three digits."""
    return f"{value:+.2f}" if abs(value) < 10 else f"{value:+.1f}" if abs(value) < 100 else f"{value:+.0f}"


def _p_words(found: Slopes) -> list[str]:
    """Over how many slopes each p is corrected; nothing where there is none."""
    tested = int(found.tests.groupby("metric")["p"].count().max()) if len(found.tests) else 0
    if not tested:
        return []
    family = f"{tested} slopes, all losses and kinds, a metric" if tested > 1 else "1 slope"
    return [f"p (Holm): paired test that the slope is zero, after Holm's correction for {family}; it decides."]


def _slope_marks(found: Slopes, kind: str, metric: Metric) -> dict[str, Cell]:
    """The slopes of one kind as cells."""
    return measured_cells({kind: found.found.get(kind, {})}, metric, found.comparisons)[kind]


def _tied(ranked: Sequence[str], compared: Comparisons, noise: str, metric: Metric) -> set[str]:
    """The first and those that were tested against it and not told apart."""
    apart = {label: compared.better(noise, metric, ranked[0], label) for label in ranked[1:]}
    tied = {label for label, found in apart.items() if found is False}
    return {ranked[0], *tied} if tied else set()


def _tested(compared: Comparisons) -> str:
    if not compared.pairs:
        return "No pair of slopes could be tested: that takes two seeds that both losses have at every level."
    return f"Marks: paired tests of {compared.pairs} pairs of slopes over all kinds, 5 % after Holm's correction."


def _labels(study: Study, kind: str) -> set[str]:
    return {label for level in study.levels[kind] for label in study.samples(level.noise)}


def _rows(cells: Mapping[str, Sequence[Cell]]) -> tuple[Row, ...]:
    return tuple(Row(label, tuple(own)) for label, own in cells.items())
