"""The part of the page, and of the command line, on sparse and dense crowds: figures, and tables that are folded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from reports import plots_density, tables, tables_density, tables_places
from reports.density import KINDS, Kind
from reports.localised import Localised
from reports.measured import Measured
from reports.overview_places import Noted
from reports.page import Part
from reports.style import Look, Plot
from reports.table import Table
from reports.tables_density import Density, Spacings
from reports.tables_places import file_name
from reports.windows import Windows

__all__ = ["crowds"]

_LEAD = (
    "Which losses err where there are few people, and which where there are many. The PML paper has a figure of it (7) "
    "whose bins, data and axes are not known: images, windows, bins and axes here are ours.",
)


def crowds(
    measured: Measured,
    localised: Localised | None,
    windows: Windows | None,
    looks: Mapping[str, Look],
    noted: Noted,
    *,
    kinds: Sequence[Kind] = ("quantiles", "nwpu", "jhu"),
    drawn: Sequence[Kind] = KINDS,
    baseline: str | None = None,
    spacings: Spacings | None = None,
) -> Part:
    """Every setting in every kind of bins: whole images, windows, and where people were found.

    Args:
        measured: Runs and per-image counts.
        localised: Where people were found, if that was measured.
        windows: Of the images; None leaves them out.
        looks: Of all losses.
        noted: What to do with a table or figure that cannot be made.
        kinds: Of the bins.
        drawn: Those that have figures too.
        baseline: What the others are compared with; by default `l2`, else the first.
        spacings: For bins of the spacing.

    Returns:
        The part; all tables are among its `details`.
    """
    warnings: list[str] = []
    details: list[tuple[str, Table]] = []
    plots: list[Plot] = []
    whole: list[str] = []
    for setting in tables.settings(measured):
        made: dict[str, Callable[[], Density]] = {
            f"images, {kind}": partial(tables_density.of_images, setting, kind, baseline=baseline, spacings=spacings)
            for kind in kinds
        }
        if windows is not None and "quantiles" in kinds:
            if windows.whole(setting.measured.evaluated):
                whole.append(setting.title)
            else:
                made["windows"] = partial(tables_density.of_windows, setting, windows, baseline=baseline)
        for what, make in made.items():
            with noted(warnings, f"{what} of {setting.title}"):
                density = make()
                details.append((density.title, tables_density.table(density)))
                if density.found.kind in drawn:
                    plots += _errors(density, looks)
    for part in _settings(localised):
        for kind in kinds:
            with noted(warnings, f"F1 by density, {kind}"):
                density = tables_density.of_places(part, kind, spacings=spacings)
                details.append((density.title, tables_density.table(density)))
                if kind in drawn:
                    plots += _places(density, looks)
    lead = (*_LEAD, *([_too_large(windows.window, whole)] if windows is not None and whole else []))
    return Part("density", "Sparse and dense crowds", lead, warnings, (), plots, details)


def _too_large(side: int, titles: Sequence[str]) -> str:
    """Why there is no table of windows."""
    smaller = " or ".join(str(other) for other in (64, 128) if other < side)
    hint = f"; --window {smaller} has smaller ones" if smaller else ""
    return f"A window of {side} px is a whole image in {'; '.join(titles)}: no table of windows of their own{hint}."


def _settings(localised: Localised | None) -> Sequence[Localised]:
    return tables_places.by_setting(localised) if localised is not None and len(localised) else ()


def _errors(density: Density, looks: Mapping[str, Look]) -> Iterator[Plot]:
    """The error, the difference to the baseline, and the signed error."""
    frame, axis, unit = density.frame, density.found.axis, density.unit
    yield _named(plots_density.by_bin(frame, axis=axis, unit=unit, looks=looks), density)
    if density.baseline and frame["difference"].notna().any():
        base = density.baseline
        yield _named(plots_density.in_panels(frame, axis=axis, unit=unit, baseline=base, looks=looks), density)
    yield _named(plots_density.in_panels(frame, "bias", axis=axis, unit=unit, looks=looks), density)


def _places(density: Density, looks: Mapping[str, Look]) -> Iterator[Plot]:
    """F1 of the losses, a figure a localizer."""
    for localizer, own in density.frame.groupby("localizer_label", sort=True):
        frame = own.assign(label=own["loss"])
        plot = plots_density.by_bin(frame, "f1", axis=density.found.axis, looks=looks)
        yield _named(plot._replace(caption=f"{localizer}: {plot.caption}"), density, f"_{localizer}")


def _named(plot: Plot, density: Density, more: str = "") -> Plot:
    """With the setting in its name and its caption."""
    metric = plot.name.removeprefix("density_")
    return plot._replace(name=file_name(f"{density.name}_{metric}{more}"), caption=f"{density.title}. {plot.caption}")
