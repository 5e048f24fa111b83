"""`benchmark report`: a store's tables, and the page with everything on it. Reads the store, changes nothing in it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.markup import escape

from benchmark.recipes import recipe_for
from benchmark.show import console, progress_console
from benchmark.targets import check_file, check_folder
from reports import paper, paper_places, render, tables
from reports.localised import Localised
from reports.measured import Measured, loss_name
from reports.page import Part, said_once
from reports.protocol import select
from reports.speed import step_ms
from reports.table import Table
from reports.tables_places import by_setting, localisation
from reports.words import nothing_measured
from results.atomic import printable, write_text
from results.spec import EvaluationSpec
from results.speed import Speed, read_all
from results.store import Store, StoreError

__all__ = ["Found", "find", "localised_in", "measured_in", "report"]

_PLACES: tuple[str, ...] = ("localizer", "localizer_label", "radius", "system", "scoring", "threshold_from")
_PLACES += ("localizer_version", "localisation_version")
"""Fields that only measurements of places have."""
_SUFFIX = {"markdown": "md", "csv": "csv", "latex": "tex", "json": "json", "html": "html", "terminal": "txt"}
_DRAWN = ("noise", "sparse_dense", "speed")
"""Parts that have figures and findings beside their tables."""


class Found(NamedTuple):
    """What was read: measurements, epochs, and what could not be read."""

    measured: Measured
    localised: Localised
    history: pd.DataFrame
    problems: tuple[str, ...]


def report(options: argparse.Namespace) -> int:
    """Prints one table, or writes the page; 1 if something could not be read, 2 if there is nothing to report."""
    _check_options(options)
    if options.table == "coverage":
        return _coverage(options)
    if options.table == "speed":
        return _speed(options)
    found = find(options)
    for problem in found.problems:
        progress_console.print(f"[yellow]left out:[/] {escape(printable(problem))}", soft_wrap=True)
    if found.measured.evaluated.empty:
        place = ", ".join(map(str, options.recorded or [options.output]))
        raise ValueError(nothing_measured(found.measured.runs, place, len(found.problems)))
    if options.table is None:
        return _page(options, found)
    part = _study(options, found)
    _show(options, part or Part("", "", tables=_tables(options, found)))
    return 1 if found.problems else 0


def _show(options: argparse.Namespace, part: Part) -> None:
    """Prints or writes the tables; the sentences stand below them on the terminal. Figures go to --to, if given."""
    if options.format == "terminal" and options.out is None:
        for table in said_once(part).tables:
            console.print(render.terminal(table, console.width))
            console.print()
        for line in part.lead:
            console.print(f"{escape(printable(line))}\n")
    else:
        _write(options, render.several(part.tables, options.format))


def find(options: argparse.Namespace) -> Found:
    """Reads the store (or recorded studies) that the options name, and keeps what --where selects.

    Raises:
        StoreError: If there is no such folder.
        ValueError: If a condition cannot be read or selects nothing.
    """
    problems: list[str] = []
    if options.recorded:
        from benchmark.recorded import read_all

        frame, images, history, places, hits, curves = read_all(options.recorded)
        measured = Measured(frame, images, _defaults(frame), _official)
        localised = Localised(measured, places, hits, _localizer_defaults(), curves)
    else:
        store = Store(options.output)
        if not store.root.is_dir():
            raise StoreError(f"{store.root} is no folder; name the --output of `benchmark run`")
        frame = store.load(problems=problems)
        measured = Measured.of(store, frame, _defaults(frame), problems, _official)
        localised = Localised.of(store, measured, _localizer_defaults(), problems)
        history = store.histories(frame["run_id"].unique() if len(frame) else [], problems=problems)
    if options.where:
        measured, localised = _where(measured, localised, options.where)
    return Found(measured, localised, history, tuple(problems))


def _where(measured: Measured, localised: Localised, conditions: Sequence[str]) -> tuple[Measured, Localised]:
    """What fulfils the conditions; those on localizers, radii and systems are of measurements of places only."""
    of_places = [c for c in conditions if c.partition("=")[0].strip() in _PLACES]
    measured = measured.restricted(select(measured.runs, [c for c in conditions if c not in of_places]))
    keys = measured.runs[["run_id", "selection"]].drop_duplicates()
    rows = localised.rows.reset_index().merge(keys, on=["run_id", "selection"]).set_index("index")
    return measured, localised.restricted(select(rows, of_places))


def measured_in(store: Store, frame: pd.DataFrame, problems: list[str] | None = None) -> Measured:
    """The rows of `store.load()` with their per-image counts; see `Store.images` for `problems`."""
    return Measured.of(store, frame, _defaults(frame), problems, _official)


def localised_in(
    store: Store, measured: Measured, evaluations: Collection[tuple[str, str]], problems: list[str] | None = None
) -> Localised:
    """Of the measurements of places of some runs those that are asked for, as pairs of run and evaluation id."""
    if not evaluations:
        return Localised(measured, store.localisations([]), store.hits([], []))
    found = Localised.of(store, measured, _localizer_defaults(), problems)
    pairs = zip(found.rows["run_id"], found.rows["eval_id"], strict=True)
    wanted = pd.Series([pair in evaluations for pair in pairs], index=found.rows.index, dtype=bool)
    return found.restricted(found.rows[wanted])


def _official(loss: str, dataset: str) -> dict[str, Any]:
    """A loss's official recipe as `results.load()` has it: the range of scales is one text there."""
    found = recipe_for("official", loss, dataset, {}).recipe.model_dump(mode="json", exclude={"name"})
    return found | {"scale": "-".join(f"{value:g}" for value in found["scale"])}


def _localizer_defaults() -> dict[str, dict[str, Any]]:
    """The default parameters of the localizers."""
    from runners import localizers

    return {name: localizers.defaults(name) for name in localizers.names()}


def _defaults(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The default parameters of the losses; of one that this version does not know, every parameter is shown."""
    from benchmark.plan import known_defaults

    return {name: known_defaults(name) for name in (set(map(str, frame["loss"])) if len(frame) else ())}


def _check_options(options: argparse.Namespace) -> None:
    """Refuses options that would do nothing and places that cannot be written, before anything is read.

    Takes the format from the ending of --out where none was typed.
    """
    if options.table is None and (options.out is not None or options.format is not None):
        raise ValueError("--out and --format are of one table (as `report comparison`); the page is written to --to")
    if options.table not in (None, "sparse_dense") and (options.bins or options.window or options.baseline):
        raise ValueError("--bins, --window and --baseline are of sparse_dense and of the page")
    if options.table not in (None, *_DRAWN) and options.to is not None:
        drawn = f"{', '.join(_DRAWN[:-1])} and {_DRAWN[-1]}"
        raise ValueError(
            f"--to is of the page and of the figures of {drawn}; {options.table} has none: --out FILE writes the table"
        )
    if options.table is None and options.to is None:
        options.to = Path("report")
    if options.to is not None:
        _check_outside(options, options.to)
        check_folder(options.to, inside=("figures", *(("tables",) if options.table is None else ())))
    if options.out is not None:
        _check_outside(options, options.out)
        check_file(options.out)
    if options.format is None:
        options.format = "terminal" if options.out is None else _format_of(options.out)


def _format_of(path: Path) -> str:
    """The format by a file's ending."""
    ending = path.suffix.lower().removeprefix(".")
    for name, suffix in _SUFFIX.items():
        if suffix == ending:
            return name
    found = f"has the ending .{ending}" if ending else "has no ending"
    endings = ", ".join(f".{suffix}" for suffix in _SUFFIX.values())
    raise ValueError(f"--out {path} {found}; expected one of {endings}, or say what it is with --format")


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def _tables(options: argparse.Namespace, found: Found) -> list[Table]:
    """The tables that were asked for."""
    measured, localised = found.measured, found.localised
    chosen = {"metrics": options.metrics} if options.metrics else {}
    on = {"dataset": options.dataset} if options.dataset else {}
    make: dict[str, Callable[[], Sequence[Table]]] = {
        "comparison": lambda: _comparison(measured),
        "table2": lambda: [paper.table2(measured, **chosen)],
        "table3": lambda: [paper_places.table3(measured, localised, **on, **chosen)],
        "table4": lambda: [paper.table4(measured, **on, **chosen)],
        "localisation": lambda: [localisation(part, **chosen) for part in by_setting(localised)],
        "cost": lambda: [tables.cost(measured, step_ms(_speeds(options)))],
        "custom": lambda: [tables.custom(measured, options.rows, options.columns, **chosen)],
    }
    return list(make[options.table]())


def _comparison(measured: Measured) -> list[Table]:
    """A table for each setting, and the failed runs."""
    found = tables.settings(measured)
    failed = tables.failures(measured)
    return [tables.comparison(setting) for setting in found] + ([failed] if failed else [])


def _study(options: argparse.Namespace, found: Found) -> Part | None:
    """The study that was asked for, with its sentences; its figures go to --to, if given. None for tables alone."""
    from benchmark.report_noise import noise

    if options.table == "noise":
        metrics = options.metrics or ("mae",)
        part = noise(found.measured, found.history, metrics, figures=options.to is not None)
    elif options.table == "sparse_dense":
        from benchmark.report_density import sparse_dense

        part = sparse_dense(options, found.measured, found.localised)
    else:
        return None
    _save(options, part)
    return part


def _save(options: argparse.Namespace, part: Part) -> None:
    """Writes figures and findings below --to, or says that it would; warnings go beside what is printed."""
    from benchmark.report_files import write_figures, write_findings

    for warning in part.warnings:
        progress_console.print(f"[yellow]{escape(printable(warning))}[/]", soft_wrap=True)
    if options.to is None:
        said = "no figures written: --to FOLDER writes them, and the findings, there"
        progress_console.print(said, soft_wrap=True)
        return
    write_figures(part.plots, options.to)
    write_findings(part, options.to)


def _coverage(options: argparse.Namespace) -> int:
    """Simulates how often the intervals hold what they promise."""
    from reports.coverage import coverage_table

    table = coverage_table()
    if options.format == "terminal" and options.out is None:
        console.print(render.terminal(table, console.width))
    else:
        _write(options, render.FORMATS[options.format](table))
    return 0


def _speed(options: argparse.Namespace) -> int:
    """What `benchmark speed` measured and kept in the store."""
    from benchmark.speed.command import part_of

    problems: list[str] = []
    found = read_all(options.output, problems)
    for problem in problems:
        progress_console.print(f"[yellow]left out:[/] {escape(printable(problem))}", soft_wrap=True)
    if options.recorded or not found:
        where = "recorded studies have" if options.recorded else f"{options.output} has"
        raise ValueError(f"{where} no measurement of speed; `benchmark speed -o STORE` makes one")
    part = part_of(found)
    _save(options, part)
    _show(options, part)
    return 1 if problems else 0


def _speeds(options: argparse.Namespace) -> Sequence[Speed]:
    """What `benchmark speed` kept in the store, as far as it can be read."""
    return () if options.recorded else read_all(options.output, [])


def _write(options: argparse.Namespace, text: str) -> None:
    if options.out is None:
        print(text, end="")  # noqa: T201
        return
    write_text(options.out, text)
    console.print(f"written: {options.out}", soft_wrap=True)


# ---------------------------------------------------------------------------------------------------------------------
# The page


def _page(options: argparse.Namespace, found: Found) -> int:
    """Writes `index.html`, and every figure and table on it as files of their own."""
    from benchmark.report_density import part_of
    from reports.overview import overview
    from reports.page import html
    from reports.plots import save

    examples = None if options.no_images or options.recorded else _examples(options)
    made = overview(
        found.measured,
        found.history,
        found.localised,
        part_of(options, found.measured, found.localised, ("quantiles", "spacing")),
        title=options.title,
        problems=found.problems,
        examples=examples,
        speeds=_speeds(options),
        explained=None if options.no_explain else _explained(found.measured),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        program=f"crowd-loss-benchmark {version('crowd-loss-benchmark')}",
    )
    folder: Path = options.to
    for table in made.tables:
        for name in ("markdown", "csv", "latex"):
            write_text(folder / "tables" / f"{table.name}.{_SUFFIX[name]}", render.FORMATS[name](table))
    for plot in made.plots:
        save(plot, folder / "figures")
    text = html(made.page)
    write_text(folder / "index.html", text)
    for warning in (line for part in made.page.parts for line in part.warnings):
        progress_console.print(f"[yellow]{escape(warning)}[/]", soft_wrap=True)
    console.print(
        f"{folder / 'index.html'}: {len(text.encode()) / 1e6:.1f} MB, {len(made.tables)} tables, "
        f"{len(made.plots)} figures, also in {folder}/tables and {folder}/figures",
        soft_wrap=True,
    )
    return 1 if found.problems else 0


def _check_outside(options: argparse.Namespace, target: Path) -> None:
    """The report is never written into what it reports on: reporting changes nothing there."""
    for source in options.recorded or [options.output]:
        if source.resolve() in (target.resolve(), *target.resolve().parents):
            raise ValueError(f"{target} lies in {source}, which is reported on; choose a place outside it")


def _explained(measured: Measured) -> Part:
    """What the losses of a store ask for; it needs no run, only their names and parameters."""
    from benchmark.explain.part import explain_part
    from benchmark.names import parse_choice

    rows, known = measured.evaluated, _defaults(measured.evaluated)
    pairs = dict.fromkeys(zip(rows["loss"], rows["loss_params"], strict=True))
    names = sorted({loss_name(loss, params, known.get(loss)) for loss, params in pairs})
    return explain_part([parse_choice(name) for name in names])


def _examples(options: argparse.Namespace) -> Callable[[tables.Setting], Sequence[Any]]:
    """Sample images of a setting: of the loss with the least MAE, its first seed."""

    def find_examples(setting: tables.Setting) -> Sequence[Any]:
        from reports.plots_samples import Example
        from runners import data
        from runners.data.reading import DataError
        from runners.predict import samples

        rows = setting.measured.evaluated
        best = rows.groupby("label")["mae"].mean().idxmin()
        row = rows[rows["label"] == best].sort_values("seed").iloc[0]
        folder = Store(options.output).run(row["run_id"])
        spec = folder.spec()
        try:
            dataset = data.build(spec.dataset, root=options.data_root, **spec.dataset_params)
            found = samples(folder, dataset, evaluation=EvaluationSpec(selection=row["selection"], split=row["split"]))
        except (DataError, StoreError, TypeError) as error:
            raise ValueError(str(error)) from error
        return [
            Example(
                title=f"{item.choice}, {best}",
                id=item.id,
                image=item.image,
                points=item.true_points,
                density=None if item.density is None else item.density.astype(float),
                stride=item.stride,
                predicted_points=item.points,
                true=item.true,
                predicted=item.predicted,
                window_error=item.window_errors,
            )
            for item in found
        ]

    return find_examples
