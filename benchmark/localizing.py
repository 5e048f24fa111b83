"""Which measurements of places a study asks of a run: its localizers, as far as they fit the loss, and their radii."""

from __future__ import annotations

from collections.abc import Iterable

from benchmark.names import split_choices
from benchmark.plan import PlanError
from benchmark.study import Study
from results.spec import LocalisationSpec, RunSpec

__all__ = ["check", "localisations", "unfit", "wanted"]


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


def localisations(study: Study, run: RunSpec) -> tuple[LocalisationSpec, ...]:
    """What is measured of a run: every fitting localizer for every selection rule, on test.

    Radii are the study's, else the dataset's own; the threshold is chosen at the dataset's main radius where that is
    one of them, else at the last one.
    """
    if not study.localizers:
        return ()
    import losses
    from runners import data, localizers
    from runners.metrics.localisation import parse_radii

    reads = losses.load(run.loss).reads
    dataset = data.load(run.dataset)
    radii = tuple(study.radii) or dataset.radii
    names = [radius.name for radius in parse_radii(radii)]
    main = dataset.main_radius if dataset.main_radius in names else names[-1]
    return tuple(
        LocalisationSpec(
            selection=selection,
            localizer=choice.name,
            params=localizers.defaults(choice.name) | choice.params,
            version=localizers.load(choice.name).version,
            radii=radii if any(":" in text for text in radii) else tuple(names),
            main=main,
        )
        for selection in study.selections
        for choice in split_choices(study.localizers)
        if localizers.load(choice.name).reads == reads
    )


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
