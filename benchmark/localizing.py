"""Which measurements of places a study asks of a run: its localizers, as far as they fit the loss, and their radii."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from benchmark.names import split_choices
from benchmark.plan import PlanError
from benchmark.study import Study
from results.spec import LocalisationSpec, RunSpec

__all__ = ["check", "check_boxes", "localisations", "unfit", "wanted"]


def check(study: Study) -> None:
    """Refuses localizers and radii that do not exist, before anything is planned.

    Raises:
        PlanError: With what is known, and what was probably meant.
    """
    if not study.localizers:
        if study.radii:
            raise PlanError("--radii are of localizers: name some with --localizers")
        return
    from runners import localizers
    from runners.metrics.localisation import parse_radii

    try:
        for choice in split_choices(study.localizers):
            localizers.build(choice.name, **choice.params)
        if study.radii:
            parse_radii(study.radii)
    except (ValueError, TypeError) as error:
        raise PlanError(str(error)) from error


def check_boxes(study: Study, runs: Iterable[RunSpec], data_root: Path | None) -> None:
    """Refuses radii of head boxes on data without boxes, which else would be found out after training.

    Raises:
        PlanError: If an annotation has none.
    """
    from runners import data
    from runners.metrics.localisation import parse_radii

    for run in {json.dumps([r.dataset, r.dataset_params]): r for r in runs}.values():
        found = localisations(study, run)
        boxed = [radius.name for spec in found[:1] for radius in parse_radii(spec.radii) if radius.kind != "px"]
        if boxed:
            dataset = data.build(run.dataset, root=data_root, **run.dataset_params)
            annotations = map(dataset.read_annotation, dataset.entries("test"))
            first = next((annotation for annotation in annotations if len(annotation.points)), None)
            if first is not None and first.boxes is None:
                raise PlanError(
                    f"radius {boxed[0]} needs head boxes, and {run.dataset} has none; name pixels: --radii 4 8"
                )


def localisations(study: Study, run: RunSpec) -> tuple[LocalisationSpec, ...]:
    """What is measured of a run: every fitting localizer for every selection rule, on test.

    Radii are the study's, else the dataset's own. The threshold is chosen at the dataset's main radius where that was
    named, else at the last one that was; ranges come last.
    """
    if not study.localizers:
        return ()
    import losses
    from runners import data, localizers
    from runners.metrics.localisation import parse_radii

    reads = losses.load(run.loss).reads
    dataset = data.load(run.dataset)
    radii = tuple(study.radii) or dataset.radii
    words = [word for word in radii if ":" not in word]
    named = [radius.name for radius in parse_radii(words)] if words else []
    ranges = [word for word in radii if ":" in word]
    main = _main(dataset.main_radius, named, [radius.name for radius in parse_radii(radii)])
    return tuple(
        LocalisationSpec(
            selection=selection,
            localizer=choice.name,
            params=localizers.defaults(choice.name) | choice.params,
            version=localizers.load(choice.name).version,
            radii=(*named, *ranges),
            main=main,
        )
        for selection in study.selections
        for choice in split_choices(study.localizers)
        if localizers.load(choice.name).reads == reads
    )


def _main(own: str, named: list[str], every: list[str]) -> str:
    """The radius that chooses thresholds: the dataset's own if it may, else the last that was named or brought in."""
    if named:
        return own if own in named else named[-1]
    return own if own in every else every[-1]


def wanted(study: Study, runs: Iterable[RunSpec]) -> set[tuple[str, str]]:
    """The measurements of places that a study asks for, as pairs of run and evaluation id: a store may hold more."""
    return {(run.run_id, spec.eval_id) for run in runs for spec in localisations(study, run)}


def unfit(study: Study, runs: Iterable[RunSpec]) -> str | None:
    """A sentence on the losses that none of the localizers fits; None where each has one."""
    lacking = {run.loss for run in runs if study.localizers and not localisations(study, run)}
    if not lacking:
        return None
    import losses

    points = sorted(loss for loss in lacking if losses.load(loss).reads == "points")
    others = sorted(lacking - set(points))
    said = [f"{', '.join(points)}: proposals are located by `proposals`"] if points else []
    said += [f"{', '.join(others)}: densities are located by `lm` or `otm`"] if others else []
    return f"not scored by --localizers {' '.join(study.localizers)}: {'; '.join(said)}"
