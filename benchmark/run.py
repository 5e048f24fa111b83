"""`benchmark run` and `benchmark plan`: plan a study, train what is missing, print what was found."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.markup import escape

from benchmark import engines, localizing
from benchmark.plan import PlanError, Planned, Skipped, plan, variations
from benchmark.recipes import DEVIATIONS
from benchmark.report import localised_in, measured_in
from benchmark.show import Matrix, console, plan_tree
from benchmark.study import Study, load_study, validated
from reports.measured import Measured
from reports.render import terminal
from reports.tables import comparison, comparison_rows, not_better_than_constant, settings
from reports.tables_places import by_setting, localisation
from results.spec import EvaluationSpec, Recipe
from results.store import RunFolder, State, Store, StoreError
from runners.job import Job, Place

__all__ = ["Done", "carry_out", "failures_of", "outcome", "run"]

_NETWORK = ("backbones", "head", "stride", "weights")
_PLACE_FIELDS = ["run_id", "label", "backbone", "data", "noise", "seed", "selection", "localizer_label", "radius"]
_PLACE_FIELDS += ["threshold", "tp", "fp", "fn", "precision", "recall", "f1", "ap", "error", "count_mae"]
_AXES = ("losses", "datasets", "noises", "seeds", "noise_seed", "selections", "recipe", "budget", *_NETWORK)
_PLACES = ("localizers", "radii")


class _Tuned(NamedTuple):
    """The winner of a search, trained with one seed, and all trials for its record."""

    run: Planned
    search: tuple[dict[str, Any], ...]


class Done(NamedTuple):
    """A study that was carried out.

    Attributes:
        study: Its axes.
        planned: The runs that were planned.
        store: Where they lie.
        told: Why runs failed just now, by their ids; a store that cannot be written does not know.
    """

    study: Study
    planned: list[Planned]
    store: Store
    told: Mapping[str, str]


def run(options: argparse.Namespace) -> int:
    """Carries out the command; 1 if a run of the plan failed, 2 if nothing could be planned."""
    done = carry_out(options)
    return done if isinstance(done, int) else _conclude(options, *done)


def carry_out(options: argparse.Namespace) -> Done | int:
    """Plans a study and trains what is missing of it; or only shows the plan, and gives the exit status.

    Raises:
        PlanError: If nothing can be planned.
    """
    study = _study(options)
    _check_place(options)
    localizing.check(study)
    runs = plan(study, options.data_root)
    store = Store(options.output)
    planned = [item for item in runs if isinstance(item, Planned)]
    localizing.check_boxes(study, [item.spec for item in planned], options.data_root)
    if options.dry_run:
        _show_plan(options, study, runs, store)
        return 0 if planned else 2
    if not options.json:
        console.print(plan_tree(runs, _states(planned, store)))
        _say_deviations(study, planned)
    if not runs:
        only = ", ".join(dict.fromkeys(rule.backbone for rule in study.only if rule.backbone))
        raise PlanError(f"nothing to run: the study has none of these combinations. Its networks are {only}")
    if not planned:
        raise PlanError("nothing to run: every combination is skipped, for the reasons above")
    engine = _Engine(options, study, store)
    if study.recipe == "tuned":
        tuned = _tune(engine, planned, study.budget)
        planned = [item.run for item in tuned]
        engine.train(planned, [item.search for item in tuned])
    else:
        engine.train(planned)
    return Done(study, planned, store, engine.told)


# ---------------------------------------------------------------------------------------------------------------------
# From options to a study


def _study(options: argparse.Namespace) -> Study:
    """The named study with the axes and recipe fields that were typed. Axes alone start from `quick` as well."""
    content = load_study(options.study or "quick").model_dump()
    typed = {name: value for name in (*_AXES, *_PLACES) if (value := getattr(options, name)) is not None}
    fields = {name: value for name in Recipe.model_fields if (value := getattr(options, name, None)) is not None}
    if typed.get("recipe") == "official":
        content["overrides"] = {}  # a study's settings are made for the shared recipe; typed ones still win
    if options.study is None and ("datasets" in typed or "backbones" in typed):
        # Real data or another network: quick's settings, made for tiny synthetic crowds, do not carry over.
        content |= {"title": "", "description": "", "overrides": {}, "weights": None}
    content |= typed | {"overrides": content["overrides"] | fields}
    return validated(content, "command line")


# ---------------------------------------------------------------------------------------------------------------------
# Training


class _Engine:
    """Turns planned runs into jobs for the engine that was chosen."""

    def __init__(self, options: argparse.Namespace, study: Study, store: Store) -> None:
        self.options, self.study, self.store = options, study, store
        self.told: dict[str, str] = {}
        self.evaluations = tuple(EvaluationSpec(selection=rule) for rule in study.selections)
        self.place = Place(
            data_root=_absolute(options.data_root),
            cache_dir=_absolute(options.cache_dir),
            ranks=options.ranks,
            threads=options.threads,
            workers=options.workers,
            tracker=options.tracker,
        )

    def train(self, planned: Sequence[Planned], searches: Sequence[tuple[dict[str, Any], ...]] | None = None) -> None:
        """Executes what is missing of `planned`; says what is left out and why."""
        jobs, labels = [], []
        for item, search in zip(planned, searches or [()] * len(planned), strict=True):
            reason = self._settled(self.store.run(item.spec.run_id))
            if reason is None:
                jobs.append(self._job(item, search))
                labels.append(item.label)
            elif reason == "" and search:
                self.store.run(item.spec.run_id).keep_search(search)
            elif reason and not self.options.json:
                console.print(f"[yellow]{escape(item.label)}: {escape(reason)}[/]")
        if not jobs:
            return
        with Matrix(labels) as progress:
            engine, terms = engines.chosen(self.options)
            engine.run_jobs(jobs, terms, progress)
        self.told |= {jobs[index].spec.run_id: reason for index, reason in progress.failed.items()}

    def counting(self) -> _Engine:
        """The same without localizers, for the trials of a search: they are chosen among by their counts on val."""
        return _Engine(self.options, self.study.model_copy(update={"localizers": []}), self.store)

    def _settled(self, folder: RunFolder) -> str | None:
        """Why a run is not executed: "" if it is complete, a sentence if it must be left alone, None if it is due."""
        state = folder.state()
        if state == "done":
            try:
                return "" if _measured(self.study, folder) else None
            except StoreError as error:
                return str(error)
        if state == "failed" and not self.options.retry_failed:
            return "failed before; try again with --retry-failed"
        return None

    def _job(self, item: Planned, search: tuple[dict[str, Any], ...]) -> Job:
        return Job(
            spec=item.spec,
            output=self.store.root.absolute(),
            place=self.place.model_copy(update={"weights": item.weights}),
            evaluations=self.evaluations,
            localisations=localizing.localisations(self.study, item.spec),
            resume=self.options.resume,
            search=search,
            command=self.options.command_line,
        )


def _tune(engine: _Engine, planned: Sequence[Planned], budget: int) -> list[_Tuned]:
    """Trains the trials of every loss with the first seed, and gives each seed the values that were best on val."""
    groups = [list(members) for _, members in groupby(planned, key=_without_seed)]
    trials = [variations(members[0], budget) for members in groups]
    searching = engine.counting()
    searching.train([trial for group in trials for trial in group])
    found = []
    for members, group in zip(groups, trials, strict=True):
        search = tuple(_outcome(engine.store.run(trial.spec.run_id), trial) for trial in group)
        finished = [(entry["val_mae"], place) for place, entry in enumerate(search) if entry["val_mae"] is not None]
        if not finished:
            reason = next((searching.told[run] for entry in search if (run := entry["run_id"]) in searching.told), "")
            why = f" ({reason})" if reason else ""
            raise PlanError(f"all {budget} trials of {members[0].label} failed{why}; see `benchmark list`")
        best = group[min(finished)[1]].spec
        for member in members:
            spec = best.model_copy(update={"seed": member.spec.seed})
            found.append(_Tuned(member._replace(spec=spec), search))
    return found


def _outcome(folder: RunFolder, trial: Planned) -> dict[str, Any]:
    """What a trial tried, and its MAE on val; None if it failed."""
    import losses

    main = losses.load(trial.spec.loss).main_weight
    value = trial.spec.loss_params[main] if main else None
    mae = folder.record().selected["val"]["mae"] if folder.state() == "done" else None
    return {"run_id": folder.run_id, "lr": trial.spec.recipe.lr, "main_weight": main, "value": value, "val_mae": mae}


def _without_seed(item: Planned) -> str:
    return item.spec.model_copy(update={"seed": 0}).run_id


def _check_place(options: argparse.Namespace) -> None:
    """Refuses an engine, a device or a tracker that is not here before anything is planned.

    Raises:
        EngineError: If the engine cannot work here.
        PlanError: If something else is not here.
    """
    engines.check(options)
    tracker = getattr(options, "tracker", None)
    if tracker is not None and importlib.util.find_spec(tracker) is None:
        raise PlanError(f"--tracker {tracker} needs a package that is not installed: pip install {tracker}")


# ---------------------------------------------------------------------------------------------------------------------
# What was found


def _conclude(
    options: argparse.Namespace, study: Study, planned: Sequence[Planned], store: Store, told: Mapping[str, str]
) -> int:
    """Prints the tables, the losses that did not beat a constant, the failures and where everything lies."""
    damaged: list[str] = []
    measured = outcome(study, planned, store, damaged)
    compared = [(setting, comparison(setting)) for setting in settings(measured)]
    places = localised_in(store, measured, localizing.wanted(study, [item.spec for item in planned]), damaged)
    failures = failures_of(study, planned, store, told, damaged)
    if options.json:
        rows = [row for setting, table in compared for row in comparison_rows(setting, table)]
        rows = json.loads(pd.DataFrame(rows).to_json(orient="records")) if rows else []  # NaN becomes null
        said = {"rows": rows, "places": json.loads(places.rows[_PLACE_FIELDS].to_json(orient="records"))}
        json.dump(said | {"failed": failures, "output": str(store.root)}, sys.stdout, indent=1)
        sys.stdout.write("\n")
        return 1 if failures else 0
    for _, table in compared:
        console.print()
        console.print(terminal(table, console.width))
    for table in map(localisation, by_setting(places) if len(places) else ()):
        console.print()
        console.print(terminal(table, console.width))
    beaten = [label for setting, _ in compared for label in not_better_than_constant(setting)]
    if beaten:
        console.print(f"\n[yellow]No better than a constant count:[/] {escape('; '.join(beaten))}", soft_wrap=True)
    elif compared:
        console.print("\nEvery loss has a lower mean MAE than the constant count.")
    for label, reason in failures.items():
        console.print(f"[red]failed[/] {escape(label)}: {escape(reason)}", soft_wrap=True)
    if not compared:
        return 1
    console.print(
        f"\n`benchmark report -o {store.root}` makes a page of it, with figures. {store.root}/<run>/ holds each run;\n"
        f"`benchmark list -o {store.root}` shows them; results.load({str(store.root)!r}) gives a data frame.",
        soft_wrap=True,
    )
    return 1 if failures else 0


def outcome(study: Study, planned: Sequence[Planned], store: Store, damaged: list[str]) -> Measured:
    """What the planned runs measured, by the selections of the study: a store may hold more.

    Args:
        study: What is asked for.
        planned: The runs.
        store: Where they lie.
        damaged: Gets the reasons of files that cannot be read; they are told among the failures.
    """
    frame = store.load([item.spec.run_id for item in planned], problems=damaged)
    if "selection" in frame:
        frame = frame[frame["selection"].isin(study.selections) | frame["selection"].isna()]
    return measured_in(store, frame, damaged)


def failures_of(
    study: Study, planned: Sequence[Planned], store: Store, told: Mapping[str, str], damaged: Sequence[str] = ()
) -> dict[str, str]:
    """Why runs are not done, or not measured as asked: the reason of a failure, else the state that they are in.

    Args:
        study: What is asked for.
        planned: The runs.
        store: Where they lie.
        told: Reasons of failures just now, by the run's id: they come before what the store has kept.
        damaged: Reasons of files that could not be read.
    """
    found = {}
    for item in planned:
        folder = store.run(item.spec.run_id)
        try:
            reason = _failure(study, folder, told.get(folder.run_id))
        except StoreError as error:
            reason = str(error)
        reason = reason or next((said for said in damaged if str(folder.path) in said), "")
        if reason:
            found[item.label] = reason
    return found


def _failure(study: Study, folder: RunFolder, told: str | None) -> str:
    """Why a run is not done, or not measured as asked; "" if it is."""
    state = folder.state()
    if state == "done":
        folder.check()
        if _measured(study, folder):
            return ""
    if told is not None:
        return told
    word = "trained, but not measured" if state == "done" else f"not finished: {state}"
    return folder.failure().reason if folder.has_failure() else word


def _measured(study: Study, folder: RunFolder) -> bool:
    """Whether all measurements that the study asks for were made of a finished run."""
    counted = all(folder.has_evaluation(EvaluationSpec(selection=rule)) for rule in study.selections)
    return counted and all(map(folder.has_localisation, localizing.localisations(study, folder.spec())))


def _states(planned: Sequence[Planned], store: Store) -> dict[str, State]:
    return {item.spec.run_id: store.run(item.spec.run_id).state() for item in planned}


def _show_plan(options: argparse.Namespace, study: Study, runs: Sequence[Planned | Skipped], store: Store) -> None:
    planned = [item for item in runs if isinstance(item, Planned)]
    states = _states(planned, store)
    if options.json:
        rows = [
            {"run_id": item.spec.run_id, "label": item.label, "state": states[item.spec.run_id]}
            | {"spec": item.spec.model_dump(mode="json")}
            for item in planned
        ]
        skipped = [item._asdict() for item in runs if isinstance(item, Skipped)]
        json.dump({"runs": rows, "skipped": skipped}, sys.stdout, indent=1)
        sys.stdout.write("\n")
        return
    console.print(plan_tree(runs, states))
    _say_deviations(study, planned)
    if study.recipe == "tuned":
        groups = len({_without_seed(item) for item in planned})
        console.print(f"and before them {study.budget} trials for each of {groups} settings, on val")


def _say_deviations(study: Study, planned: Sequence[Planned]) -> None:
    """What the official recipes of the planned losses do not carry over, and which losses are not located."""
    unfit = localizing.unfit(study, [item.spec for item in planned])
    if unfit is not None:
        console.print(f"[yellow]{escape(unfit)}[/]", soft_wrap=True)
    if study.recipe == "official":
        for loss in sorted({item.spec.loss for item in planned}):
            console.print(f"[dim]official recipe of {loss}: {DEVIATIONS.get(loss, 'none known; trained as l2')}[/]")


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser().absolute()
