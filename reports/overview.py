"""All that a store has to say, as the parts of one page. A part that cannot be made says why; the rest stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from reports import aggregate, paper, paper_places, plots, tables
from reports.cells import p_cell
from reports.localised import Localised
from reports.measured import Comparisons, Measured
from reports.overview_density import crowds
from reports.overview_noise import noisy
from reports.overview_places import Noted, places
from reports.page import Page, Part
from reports.page import noted as _noted
from reports.speed import speed_part, step_ms
from reports.style import Look, Plot, looks
from reports.table import Cell, Column, Row, Table
from reports.tables import Setting
from reports.words import SPAN as _SPAN
from reports.words import nothing_measured
from results.speed import Speed

__all__ = ["Overview", "overview", "pairs"]

Examples = Callable[[Setting], Sequence[Any]]
"""Gives sample images of a setting as `plots.Example`; raises ValueError or OSError where there are none."""
Density = Callable[[Mapping[str, Look], Noted], Part]
"""Makes a part from the looks of all losses and what to do with what cannot be made."""


class Overview(NamedTuple):
    """A page, and the tables and plots on it, each once."""

    page: Page
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...]


def overview(
    measured: Measured,
    history: pd.DataFrame,
    localised: Localised | None = None,
    density: Density | None = None,
    *,
    title: str = "Crowd-counting losses compared",
    problems: Sequence[str] = (),
    examples: Examples | None = None,
    explained: Part | None = None,
    speeds: Sequence[Speed] = (),
    written: str = "",
    program: str = "crowd-loss-benchmark",
) -> Overview:
    """The report on a store.

    Args:
        measured: Runs and per-image counts.
        history: `results.Store.histories()` of the runs.
        localised: Where people were found, if that was measured.
        density: Makes the part on sparse and dense crowds, `overview_density.crowds`; None: of whole images only.
        title: Of the page.
        problems: Files that could not be read, one sentence each.
        examples: Where sample images come from; None leaves them out.
        explained: What each loss asks for, see `benchmark.explain.part`; None leaves it out.
        speeds: What `benchmark speed` measured, the oldest first.
        written: Date, for the footer.
        program: Name and version, for the footer.

    Raises:
        ValueError: If no run was measured: there is nothing to report.
    """
    found = tables.settings(measured)
    if not found:
        raise ValueError(nothing_measured(measured.runs))
    shown = looks(sorted(measured.evaluated["label"].unique()))
    parts = [_compared(measured, found)]
    alone = step_ms(speeds)
    parts += [_setting(setting, history, shown, examples, alone) for setting in found]
    found_places = None if localised is None else places(localised, shown, _noted, _SPAN)
    found_noise = noisy(measured, history, shown, _noted, _SPAN)
    found_density = (density or partial(crowds, measured, localised, None))(shown, _noted)
    optional = (_across(found, shown), found_noise, found_density, found_places, explained, _paper(measured, localised))
    parts += [part for part in optional if part is not None]
    parts += [_cost(found, alone), *_speed(speeds, measured), _failures(measured, problems), _provenance(measured)]
    page = Page(title, _lead(measured, found), _facts(measured, found), parts, program, written)
    return Overview(
        page,
        tuple(table for part in parts for table in (*part.tables, *(table for _, table in part.details))),
        tuple(plot for part in parts for plot in part.plots),
    )


def pairs(comparisons: Comparisons, name: str, metric: str = "mae") -> Table:
    """Every pair of losses: the difference with its interval, the corrected p, and how often the first is nearer."""
    rows = []
    found = comparisons.table
    tested = found[(found["metric"] == metric) & found["p_holm"].notna()] if len(found) else found
    for row in tested.sort_values("p_holm").to_dict("records") if len(tested) else ():
        difference = Cell(f"{row['difference']:+.2f}", row["difference"], low=row["low"], high=row["high"])
        cells = (
            difference, Cell(f"{row['low']:+.2f} to {row['high']:+.2f}"),
            p_cell(row["p_holm"]), p_cell(row["p_images_holm"]),
            Cell(f"{100 * row['wins']:.0f} %", row["wins"]), Cell(str(row["seeds"]), row["seeds"]),
        )  # fmt: skip
        rows.append(Row(f"{row['a']} − {row['b']}", cells))
    columns = (
        Column("difference"), Column("95 % interval", kind="text"), Column("p (Holm)"), Column("p, images only"),
        Column("nearer"), Column("seeds"),
    )  # fmt: skip
    caption = (
        "Paired on the same seeds and images. p, Holm-corrected, decides; the intervals are not corrected.",
        "p, images only: Wilcoxon's signed-rank test, given these trained networks; with other seeds it may differ.",
        "nearer: share of images on which the first loss's count, meaned over seeds, is nearer to the truth.",
    )
    return Table(f"pairs_{name}", f"Pairs of losses, {metric.upper()}", "pair", columns, tuple(rows), caption)


# ---------------------------------------------------------------------------------------------------------------------
# Parts


def _compared(measured: Measured, found: Sequence[Setting]) -> Part:
    """What was compared, and how it is to be read."""
    rows = []
    for setting in found:
        frame = setting.measured.evaluated
        first = setting.first
        cells = (
            Cell(str(frame["label"].nunique()), frame["label"].nunique()),
            Cell(str(frame["seed"].nunique()), frame["seed"].nunique()),
            Cell(f"{first['images']:.0f}", float(first["images"])),
            Cell(str(first["selection"])), Cell(str(first["dataset_hash"])[:8]), Cell(setting.key),
        )  # fmt: skip
        rows.append(Row(setting.title, cells))
    columns = (
        Column("losses"), Column("seeds"), Column("test images"), Column("selected", kind="text"),
        Column("data", kind="text"), Column("protocol", kind="text"),
    )  # fmt: skip
    lead = [
        "Every loss of a setting was trained on the same network, images and crops and, where named, wrong labels. "
        "Only rows with the same protocol are comparable: it is a hash of everything but loss, head and seed.",
        "A difference counts as one only where a paired test over seeds and images finds it after correction for all "
        "pairs of the table; the best is bold only then. MAE and RMSE (which this literature prints as “MSE”) are in "
        "people.",
    ]
    warnings = []
    if "test_oracle" in set(measured.evaluated["selection"]):
        warnings.append(
            "Some rows were selected ON THE TEST SET (test_oracle). They are not comparable with the others."
        )
    return Part(
        "compared",
        "What was compared",
        lead,
        warnings,
        [Table("settings", "Settings", "setting", columns, tuple(rows))],
    )


def _setting(
    setting: Setting,
    history: pd.DataFrame,
    shown: Mapping[str, Look],
    examples: Examples | None,
    alone: Mapping[str, float],
) -> Part:
    """One setting: its table, what is separated, its figures."""
    measured = setting.measured
    rows = measured.evaluated
    warnings: list[str] = []
    made: list[Table] = []
    details: list[tuple[str, Table]] = []
    lead: list[str] = []
    drawn: list[Plot] = []
    with _noted(warnings, "table"):
        samples = measured.samples(rows)
        comparisons = Comparisons({"": samples})
        made.append(tables.comparison(setting, comparisons))
        lead += findings(setting, comparisons)
        if comparisons.pairs:
            details.append(("All pairs", pairs(comparisons, setting.key)))
        intervals = pd.DataFrame(
            {"label": k, "seeds": len(s.seeds)}
            | dict(zip(("estimate", "low", "high"), s.interval("mae")[:3], strict=True))
            for k, s in samples.items()
        )
        costs = _costs(rows, _over_seeds(intervals))
        worse = tables.not_better_than_constant(setting)
        warnings += [f"No better than a constant count: {label}" for label in worse]
        floor = float(rows["constant_mae"].mean())
        with _noted(warnings, "ranking"):
            drawn.append(plots.ranking(_over_seeds(intervals), constant=floor, looks=shown, interval=_SPAN))
        with _noted(warnings, "cost against error"):
            drawn.append(plots.cost_error(costs, x="loss_ms", looks=shown, interval=_SPAN))
            if costs["label"].isin(list(alone)).sum() > 1:
                own = costs.assign(alone_ms=costs["label"].map(alone))
                drawn.append(plots.cost_error(own, x="alone_ms", looks=shown, interval=_SPAN))
            memory = costs["peak_rss_mib"]
            if memory.max() > 1.1 * memory.min():
                drawn.append(plots.cost_error(costs, x="peak_rss_mib", looks=shown, interval=_SPAN))
    images = measured.images[
        measured.images["run_id"].isin(rows["run_id"]) & measured.images["eval_id"].isin(rows["eval_id"])
    ]
    epochs = history[history["run_id"].isin(rows["run_id"])]
    figures: dict[str, Callable[[], Plot]] = {
        "count scatter": partial(plots.count_scatter, rows, images, looks=shown),
        "training curves": partial(plots.training_curves, rows, epochs, looks=shown),
    }
    for name, draw in figures.items():
        with _noted(warnings, name):
            drawn.append(draw())
    if examples is not None:
        with _noted(warnings, "sample images"):
            drawn.append(plots.samples(examples(setting)))
    named = [plot._replace(name=f"{plot.name}_{setting.key}") for plot in drawn]
    return Part(f"s{setting.key}", setting.title, lead, warnings, made, named, details)


def findings(setting: Setting, comparisons: Comparisons) -> list[str]:
    """What is significant in a setting, in sentences; or that nothing is."""
    found = comparisons.table
    found = found[found["metric"] == "mae"] if len(found) else found
    if not len(found):
        return ["One loss: nothing to compare."]
    found = found[found["p_holm"].notna()]
    if found.empty:
        return ["No two losses have two seeds in common: a difference between them may be one between seeds."]
    clear = found[found["p_holm"] < comparisons.level]
    if clear.empty:
        return [f"No pair of losses is separated: none of {len(found)} paired tests is significant after correction."]
    wins: dict[str, list[str]] = {}
    for row in clear.to_dict("records"):
        better, worse = (row["a"], row["b"]) if row["difference"] < 0 else (row["b"], row["a"])
        wins.setdefault(better, []).append(worse)
    said = [f"{better} has a lower MAE than {', '.join(sorted(worse))}" for better, worse in sorted(wins.items())]
    return [f"Separated after correction ({len(clear)} of {len(found)} pairs): {'; '.join(said)}."]


def _across(found: Sequence[Setting], shown: Mapping[str, Look]) -> Part | None:
    """Aggregates, where there are several settings."""
    if len(found) < 2:
        return None
    warnings: list[str] = []
    made: list[Table] = []
    drawn: list[Plot] = []
    chosen = next(rule for rule in ("val", "last", "test_oracle") if rule in {s.first["selection"] for s in found})
    kept = [setting for setting in found if setting.first["selection"] == chosen]
    if len(kept) < len(found):
        warnings.append(f"Selected by {chosen}; {len(found) - len(kept)} settings of another selection are left out.")
    with _noted(warnings, "comparison across settings"):
        every = aggregate.normalised(kept)
        made.append(aggregate.table(every))
        over = f"{len(kept)} settings"
        curves = aggregate.profile(every)
        drawn.append(
            plots.performance_profile(
                curves,
                looks=shown,
                threshold="MAE / constant count's MAE",
                share="share of runs",
                over=f"runs in {over}",
            )
        )
        with _noted(warnings, "critical-difference diagram"):
            rank = aggregate.ranking(every)
            groups = [[every.labels[place] for place in group] for group in rank.groups]
            ranks = rank.mean_ranks.tolist()
            drawn.append(
                plots.critical_difference(
                    every.labels,
                    ranks,
                    rank.critical_difference,
                    groups,
                    looks=shown,
                    over=f"{rank.cells} datasets; Friedman p {rank.p:.2g}",
                )
            )
    return Part("across", "Across settings", (), warnings, made, drawn)


def _paper(measured: Measured, localised: Localised | None) -> Part:
    """The paper's tables beside what was measured; folded, for they are long."""
    warnings: list[str] = []
    details: list[tuple[str, Table]] = []
    datasets = list(dict.fromkeys(["ucf_qnrf", *sorted(measured.evaluated["data"].unique())]))
    made: dict[str, Callable[[], Table]] = {
        f"Table 4 on {dataset}": partial(paper.table4, measured, dataset=dataset) for dataset in datasets
    }
    made |= {"Table 2": partial(paper.table2, measured)}
    if localised is not None:
        made |= {"Table 3": partial(paper_places.table3, measured, localised)}
    for name, make in made.items():
        with _noted(warnings, name):
            details.append((name, make()))
    lead = [
        "Published numbers stand in columns of their own; how they were selected and on which seeds is their authors'."
    ]
    return Part("paper", "Beside the published numbers", lead, warnings, (), (), details)


def _speed(speeds: Sequence[Speed], measured: Measured) -> list[Part]:
    """What was measured of losses alone; the looks are those of the page where it has the loss."""
    labels = {row.loss for one in speeds for row in one.rows} | set(map(str, measured.evaluated["label"]))
    return [speed_part(speeds, looks(labels))] if speeds else []


def _cost(found: Sequence[Setting], alone: Mapping[str, float]) -> Part:
    warnings: list[str] = []
    made: list[Table] = []
    for setting in found:
        with _noted(warnings, f"cost of {setting.title}"):
            made.append(
                replace(
                    tables.cost(setting.measured, alone), name=f"cost_{setting.key}", title=f"Cost: {setting.title}"
                )
            )
    return Part("cost", "What it cost", (), warnings, made)


def _failures(measured: Measured, problems: Sequence[str]) -> Part:
    """What did not end well, with its reason, and what could not be read."""
    states = measured.runs.drop_duplicates("run_id")["state"].value_counts().to_dict()
    lead = [f"{sum(states.values())} runs: " + ", ".join(f"{count} {state}" for state, count in states.items()) + "."]
    found = tables.failures(measured)
    made = [] if found is None else [found]
    return Part("failures", "Failures", lead, [f"Left out: {problem}" for problem in problems], made)


def _provenance(measured: Measured) -> Part:
    """Code, libraries, machines, and the commands that made the runs."""
    rows = measured.runs[measured.runs["state"] == "done"].drop_duplicates("run_id")
    known = {"commit": "code", "python": "Python", "torch": "torch", "platform": "system", "processor": "processor"}
    known |= {"device": "device", "threads": "threads a run"}
    body = []
    for name, words in known.items():
        for value, count in rows[name].value_counts(dropna=False).items() if name in rows else ():
            text = str(value)[:12] if name == "commit" else f"{value:.0f}" if isinstance(value, float) else str(value)
            changed = name == "commit" and rows.loc[rows[name] == value, "dirty"].any()
            body.append(
                Row(words, (Cell(text + (" with uncommitted changes" if changed else "")), Cell(str(count), count)))
            )
    columns = (Column("value", kind="text"), Column("runs"))
    commands = "\n".join(dict.fromkeys(str(command) for command in rows.get("command", []) if command))
    made = [Table("provenance", "Provenance", "what", columns, tuple(body))]
    return Part(
        "provenance", "Provenance", ["The commands that made these runs:"] if commands else (), (), made, code=commands
    )


# ---------------------------------------------------------------------------------------------------------------------
# Small things


def _lead(measured: Measured, found: Sequence[Setting]) -> str:
    losses = measured.evaluated["label"].nunique()
    compared = f"{_count(losses, 'loss')} in {_count(len(found), 'setting')}"
    return f"{compared}, trained on the same terms and measured image by image."


def _facts(measured: Measured, found: Sequence[Setting]) -> list[tuple[str, str]]:
    states = measured.runs.drop_duplicates("run_id")["state"]
    rows = measured.evaluated
    return [
        (
            "Runs",
            f"{(states == 'done').sum()} done"
            + (f", {(states == 'failed').sum()} failed" if (states == "failed").any() else ""),
        ),
        ("Losses", str(rows["label"].nunique())),
        ("Datasets", ", ".join(sorted(rows["data"].unique()))),
        ("Networks", ", ".join(sorted(rows["backbone"].unique()))),
        ("Seeds", str(rows["seed"].nunique())),
        ("Predictions of whole images", f"{rows['images'].sum():,.0f}"),
    ]


def _costs(rows: pd.DataFrame, intervals: pd.DataFrame) -> pd.DataFrame:
    """Means over runs of what a loss cost, beside its error."""
    names = [name for name in ("loss_ms", "step_ms", "peak_rss_mib") if name in rows]
    return intervals.merge(rows.groupby("label", as_index=False)[names].mean(), on="label")


def _over_seeds(intervals: pd.DataFrame) -> pd.DataFrame:
    """One seed has no interval over seeds."""
    single = intervals["seeds"] < 2
    return intervals.assign(low=intervals["low"].mask(single), high=intervals["high"].mask(single))


def _count(number: int, noun: str) -> str:
    plural = {"loss": "losses"}.get(noun, f"{noun}s")
    return f"{number} {noun if number == 1 else plural}"
