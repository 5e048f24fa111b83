"""The report as one self-contained HTML file: no network, nothing executed but its own two small scripts.

Everything that did not come from this room is escaped by the templates. Figures are inline SVG of `reports.plots`; its
writer escapes their text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from markupsafe import Markup

from reports import render
from reports.plots import svg
from reports.style import Plot
from reports.table import Table

__all__ = ["Page", "Part", "html", "noted", "said_once"]

_WIDE_INCHES = 4.5
"""Figures wider than this take the whole width of the page."""


class Part(NamedTuple):
    """One section.

    Attributes:
        id: Anchor.
        title: Heading.
        lead: Paragraphs.
        warnings: Paragraphs that stand out.
        tables, plots: What is shown.
        details: Tables that are folded away, with what one clicks on.
        code: Commands.
    """

    id: str
    title: str
    lead: Sequence[str] = ()
    warnings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    details: Sequence[tuple[str, Table]] = ()
    code: str = ""


class Page(NamedTuple):
    """The report: what it is about in a line and a few facts, and its parts."""

    title: str
    lead: str
    facts: Sequence[tuple[str, str]]
    parts: Sequence[Part]
    program: str = "crowd-loss-benchmark"
    written: str = ""


class _Drawn(NamedTuple):
    caption: str
    svg: str
    wide: bool


@contextmanager
def noted(warnings: list[str], what: str) -> Iterator[None]:
    """Turns what cannot be made into a sentence, and lets the rest be written."""
    try:
        yield
    except Exception as error:  # whatever a stranger's record holds: the rest of the report is written
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        warnings.append(f"No {what}: {kind}{error}.".replace("..", "."))


def html(page: Page) -> str:
    """The whole file as text."""
    parts = [said_once(part) for part in page.parts]
    drawn = [part._replace(plots=[_draw(plot) for plot in part.plots]) for part in parts]  # type: ignore[misc]
    template = render.environment().get_template("page.html.j2")
    return template.render(page=page._replace(parts=drawn), show=_show)


def said_once(part: Part) -> Part:
    """The part whose tables lack the findings that its lead has: for readers who see both."""

    def shown(table: Table) -> Table:
        return replace(table, findings=tuple(line for line in table.findings if line not in part.lead))

    details = [(title, shown(table)) for title, table in part.details]
    return part._replace(tables=[shown(table) for table in part.tables], details=details)


def _draw(plot: Plot) -> _Drawn:
    return _Drawn(plot.caption, svg(plot), plot.figure.get_figwidth() > _WIDE_INCHES)


def _show(table: Table) -> Markup:
    """A table with its copy buttons."""
    copies = [("latex", "Copy LaTeX", render.latex(table, standalone=False)), ("csv", "Copy CSV", render.to_csv(table))]
    buttons = Markup("").join(
        Markup(
            '<button type="button" name="{}">{}</button><textarea name="{}" readonly aria-hidden="true">{}</textarea>'
        ).format(name, label, name, text)
        for name, label, text in copies
    )
    return Markup('{}<div class="copy">{}</div>').format(Markup(render.html(table)), buttons)  # noqa: S704 - escaped there
