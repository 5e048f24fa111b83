"""A run's files as rows of a data frame: what `Store.load` and `Store.localisations` are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from results.schema import Evaluation, Failure, Localisation, Record, State
from results.spec import RunSpec

__all__ = ["LOCALISATION_COLUMNS", "localisation_rows", "run_rows"]

LOCALISATION_COLUMNS: tuple[str, ...] = ("run_id", "eval_id", "localizer", "localizer_params", "selection", "split")
LOCALISATION_COLUMNS += ("radius", "main", "threshold", "threshold_from", "images", "epoch")
LOCALISATION_COLUMNS += ("radii", "localizer_version", "localisation_version", "tp", "fp", "fn")
LOCALISATION_COLUMNS += ("precision", "recall", "f1", "ap", "error")
LOCALISATION_COLUMNS += ("count_mae", "count_rmse", "count_nae", "count_bias")
"""The columns of `Store.localisations`."""


def run_rows(
    run_id: str,
    state: State,
    spec: RunSpec,
    record: Record | None,
    failure: Failure | None,
    evaluations: Sequence[Evaluation],
) -> list[dict[str, Any]]:
    """The rows of one run in `Store.load`, from what its files say; `failure` is told of a failed run only."""
    base: dict[str, Any] = {"run_id": run_id, "state": state, **_flat(spec)}
    if state == "failed" and failure is not None:
        return [{**base, "reason": failure.reason, "finished_epochs": failure.epoch}]
    if state != "done" or record is None:
        return [base]
    base |= {"train_count_mean": record.train_count_mean, "parameters": record.parameters, "finished": record.finished}
    base |= record.timings | record.memory | _machine(record)
    base["search"] = [trial["run_id"] for trial in record.search if "run_id" in trial] or None
    return [
        {
            **base,
            "selection": e.evaluation.selection,
            "split": e.evaluation.split,
            "eval_id": e.evaluation.eval_id,
            "epoch": e.epoch,
            "images": e.images,
            **e.metrics,
            **{f"constant_{name}": value for name, value in e.constant.items()},
        }
        for e in evaluations
    ] or [base]


def localisation_rows(found: Iterable[Localisation]) -> list[dict[str, Any]]:
    """The rows of one run in `Store.localisations`."""
    return [
        {
            "run_id": measured.run_id,
            "eval_id": measured.localisation.eval_id,
            "localizer": measured.localisation.localizer,
            "localizer_params": json.dumps(measured.localisation.params, sort_keys=True),
            "selection": measured.localisation.selection,
            "split": measured.localisation.split,
            "radius": radius,
            "main": radius == measured.localisation.main,
            "threshold": measured.threshold,
            "threshold_from": measured.threshold_from,
            "images": measured.images,
            "epoch": measured.epoch,
            "radii": " ".join(measured.localisation.radii),
            "localizer_version": measured.localisation.version,
            "localisation_version": measured.localisation.metrics,
            **{name: scores.get(name) for name in ("tp", "fp", "fn", "precision", "recall", "f1", "ap", "error")},
            **{f"count_{name}": measured.counts.get(name) for name in ("mae", "rmse", "nae", "bias")},
        }
        for measured in found
        for radius, scores in measured.scores.items()
    ]


def _machine(record: Record) -> dict[str, Any]:
    """Where a run was trained, and by which code."""
    environment = record.environment
    names = ("processor", "device", "threads", "python", "platform")
    return {name: environment.get(name) for name in names} | {
        "torch": (environment.get("libraries") or {}).get("torch"),
        "commit": record.git.get("commit"),
        "dirty": record.git.get("dirty"),
        "command": record.command,
    }


def _flat(spec: RunSpec) -> dict[str, Any]:
    """A spec as columns: parameter tables as sorted JSON text, the recipe with a prefix."""
    fields = spec.model_dump(mode="json", exclude={"recipe"})
    for name in ("loss_params", "dataset_params"):
        fields[name] = json.dumps(fields[name], sort_keys=True)
    recipe = spec.recipe.model_dump(mode="json")
    recipe["scale"] = "-".join(f"{value:g}" for value in recipe["scale"])
    return fields | {"recipe": recipe.pop("name")} | {f"recipe_{name}": value for name, value in recipe.items()}
