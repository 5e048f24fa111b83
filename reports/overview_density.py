"""The part of the page, and of the command line, on sparse and dense crowds: figures, and tables that are folded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from reports import plots_density, tables, tables_density, tables_places
from reports.density import KINDS, Kind
from reports.density_words import LEVEL, verdicts
from reports.localised import Localised
from reports.measured import Measured
from reports.overview_places import Noted
from reports.page import Part
from reports.place_windows import PlaceWindows
from reports.style import Look, Plot
from reports.table import Table
from reports.tables_density import Density, Heads
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
    heads: Heads | None = None,
    place_windows: PlaceWindows | None = None,
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
        heads: For bins of the spacing.
        place_windows: The windows of where people were found; None leaves them out.

    Returns:
        The part; all tables are among its `details`.
    """
    found = _Collected(looks, noted, tuple(drawn))
    whole: list[str] = []
    for setting in tables.settings(measured):
        for kind in kinds:
            made = partial(tables_density.of_images, setting, kind, baseline=baseline, heads=heads)
            found.add(f"images, {kind}, of {setting.title}", made)
        if windows is None:
            continue
        if windows.whole(setting.measured.evaluated):
            whole.append(setting.title)
            continue
        for kind in kinds:
            made = partial(tables_density.of_windows, setting, windows, kind, baseline=baseline, heads=heads)
            found.add(f"windows, {kind}, of {setting.title}", made)
    for part in _settings(localised):
        for kind in kinds:
            found.add(f"F1 by density, {kind}", partial(tables_density.of_places, part, kind, heads=heads))
        if place_windows is None or place_windows.whole(part.rows):
            continue
        for kind in kinds:
            made = partial(tables_density.of_place_windows, part, place_windows, kind)
            found.add(f"F1 by density of windows, {kind}", made)
    lead = (*_LEAD, *([_too_large(windows.window, whole)] if windows is not None and whole else []), *found.summary())
    return Part("density", "Sparse and dense crowds", lead, found.warnings, (), found.plots, found.details)


class _Collected:
    """Tables, figures and findings as they are made; what cannot be made is a warning."""

    def __init__(self, looks: Mapping[str, Look], noted: Noted, drawn: Sequence[Kind]) -> None:
        self.details: list[tuple[str, Table]] = []
        self.plots: list[Plot] = []
        self.warnings: list[str] = []
        self._looks, self._noted, self._drawn = looks, noted, drawn
        self._apart: list[str] = []
        self._tables = 0
        self._verdicts: list[str] = []

    def add(self, what: str, make: Callable[[], Density]) -> None:
        """One setting in one kind of bins."""
        with self._noted(self.warnings, what):
            density = make()
            self.details.append((density.title, tables_density.table(density)))
            self._compare(density)
            if density.found.kind in self._drawn:
                draw = _errors if "mae" in density.metrics else _places
                self.plots += draw(density, self._looks)

    def summary(self) -> list[str]:
        """What is told apart from the baseline, over all tables; nothing if none compares."""
        if not self._tables:
            return []
        none = self._tables - len(self._apart)
        rest = f"No loss is told apart from the baseline in {none} of {self._tables} tables. " if none else ""
        own = "Each table is corrected (Holm) for its own tests, not for those of the others."
        return [*self._apart, rest + own, *self._tally()]

    def _tally(self) -> list[str]:
        """What the densest bins say of PML, over all tables; nothing without PML."""
        told = [said for said in self._verdicts if said != "untold"]
        rest = len(self._verdicts) - len(told)
        if not self._verdicts:
            return []
        said = ", ".join(f"{told.count(word)} {word}" for word in ("confirmed", "contradicted", "open"))
        without = f" In {rest} more that bin holds most of all images or windows and says nothing." if rest else ""
        return [
            "The paper argues that PML gains in dense crowds. In the densest bin of each table that could be tested, "
            f"against the baseline: {said}, of {len(told)} comparisons.{without} The sentence under each table has the "
            "numbers. Tables of one setting are of the same images: they are not independent."
        ]

    def _compare(self, density: Density) -> None:
        """Keeps the first sentence of a table in which something is told apart."""
        if density.baseline is None or not density.findings:
            return
        self._tables += 1
        found = verdicts(density.frame, density.found.kind, density.metrics[0], density.baseline)
        self._verdicts += [one.said for one in found]
        if (density.frame["p_holm"] < LEVEL).any():
            self._apart.append(f"{density.title}. {density.findings[0]}")


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
        frame = own[own["people"] > 0].assign(label=own["loss"])  # of nobody there is no F1
        plot = plots_density.by_bin(frame, "f1", axis=density.found.axis, unit=density.unit, looks=looks)
        yield _named(plot._replace(caption=f"{localizer}: {plot.caption}"), density, f"_{localizer}")


def _named(plot: Plot, density: Density, more: str = "") -> Plot:
    """With the setting in its name and its caption."""
    metric = plot.name.removeprefix("density_")
    return plot._replace(name=file_name(f"{density.name}_{metric}{more}"), caption=f"{density.title}. {plot.caption}")
