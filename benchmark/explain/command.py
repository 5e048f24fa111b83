"""`benchmark explain`: what each loss asks of a prediction, as tables, figures, a page and an animation."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

import losses
from benchmark.explain.animation import (
    CLOSE,
    FORMATS,
    STARTS,
    Descent,
    Settings,
    check_settings,
    descents,
    write_frames,
)
from benchmark.explain.fields import Field, build, fields
from benchmark.explain.part import DEFAULT_PREDICTIONS, field_part, shown, theory_part
from benchmark.explain.scenes import Scene, guess, real, synthetic
from benchmark.explain.tables import READING, descent_table, misprints, paper_table, seen
from benchmark.names import Choice, split_choices
from benchmark.show import console, progress_console
from losses.discovery import check_known
from reports import plots_descent, render
from reports.page import Page, Part, html
from reports.plots import save
from reports.table import Table
from results.atomic import write_text

__all__ = ["explain"]

_MOVING = ("format", "start", "steps", "frames")
"""Options of the descent."""


def explain(options: argparse.Namespace) -> int:
    """Carries out the command.

    Raises:
        ValueError, TypeError: Before any work, if a name is unknown or options contradict each other; DataError, if an
            image or its points cannot be read.
    """
    if options.table:
        return _print_theory(options)
    if options.check is not None:
        return _check(options)
    settings = _settings(options)
    choices = _choices(options.losses)
    scene = _scene(options)
    names = list(dict.fromkeys(options.prediction or DEFAULT_PREDICTIONS))
    guesses = [guess(scene, name) for name in names]
    found = fields(choices, scene, guesses)
    parts = [field_part(scene, guesses, found)]
    done: list[Descent] = []
    movie: Path | None = None
    if settings is not None:
        done = _descended(choices, scene, settings)
        movie = _movie(options, scene, done)
        parts.append(_descent_part(scene, settings, done, movie))
    parts.append(theory_part())
    files = _write(options.to, scene, parts)
    files += [movie] if movie is not None else []
    if options.json:
        print(json.dumps(_finite(_numbers(scene, found, done, files)), indent=1))  # noqa: T201
        return 0
    _print(found, parts[1].tables if done else ())
    figures = sum(len(part.plots) for part in parts)
    console.print(f"\n{files[0]}: the page; {figures} figures in {options.to / 'figures'}", soft_wrap=True)
    if movie is not None:
        console.print(f"{movie}: the animation", soft_wrap=True)
    return 0


def _check(options: argparse.Namespace) -> int:
    """Prints the propositions with their worst errors; 1 if one does not hold."""
    from benchmark.explain.check import propositions_table
    from benchmark.explain.propositions import propositions

    found = propositions(cases=options.check)
    if options.json:
        print(json.dumps([each._asdict() | {"holds": each.holds} for each in found], indent=1))  # noqa: T201
    else:
        console.print(render.terminal(propositions_table(found), console.width))
    return 1 if any(each.holds is False for each in found) else 0


def _print(found: Sequence[Field], further: Sequence[Table]) -> None:
    """What was measured, and what one sees, for a terminal."""
    for table in seen(found):
        console.print(render.terminal(table, console.width))
        console.print()
    console.print(f" {READING}", style="dim")
    console.print()
    grid = RichTable.grid(padding=(0, 1))
    for i, field in enumerate(found):
        first = not i or found[i - 1].loss != field.loss
        grid.add_row(Text(field.loss if first else "", style="bold"), field.guess.name, field.short)
    console.print(grid)
    for table in further:
        console.print()
        console.print(render.terminal(table, console.width))


# ---------------------------------------------------------------------------------------------------------------------
# What was asked for


def _choices(words: Sequence[str]) -> list[Choice]:
    """The losses, each once; all that there are, and PML's other norm, if none was named."""
    texts = words or [*losses.names(), "pml[count_norm=l2]"]
    choices = list({str(choice): choice for choice in split_choices(texts)}.values())
    for choice in choices:
        build(choice)  # says what is wrong before any work
    return choices


def _scene(options: argparse.Namespace) -> Scene:
    """The synthetic scene or the real image.

    Raises:
        ValueError: If options contradict each other; see `scenes`.
    """
    if options.image is None:
        for name in ("points", "crop"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is of a real image; name it with --image")
        return synthetic(options.scene or "three-heads", options.stride)
    if options.scene is not None:
        raise ValueError("--scene is synthetic and --image is not; give one of them")
    if options.points is None:
        raise ValueError(f"--image {options.image} needs its heads: --points FILE, CSV x,y or JSON [[x, y], ...]")
    crop = None if options.crop is None else (*options.crop[:2], *options.crop[2:])
    return real(options.image, options.points, crop=crop, stride=options.stride)


def _settings(options: argparse.Namespace) -> Settings | None:
    """How the map descends; None if nothing is animated.

    Raises:
        ValueError: If an option would do nothing, or is unknown.
    """
    if options.to.exists() and not options.to.is_dir():
        raise ValueError(f"--to {options.to} is a file; name a folder")
    given = {name: getattr(options, name) for name in _MOVING if getattr(options, name) is not None}
    if not options.animate:
        if given:
            raise ValueError(f"--{min(given)} is of the animation; add --animate")
        return None
    check_known("format", given.pop("format", "gif"), FORMATS)
    check_known("start", given.get("start", "uniform"), STARTS)
    settings = Settings(**given)
    if "frames" not in given:  # a short descent has fewer maps than the default asks for
        settings = settings._replace(frames=max(2, min(settings.frames, settings.steps + 1)))
    check_settings(settings)
    return settings


def _print_theory(options: argparse.Namespace) -> int:
    """The paper's table, corrected, and its misprints."""
    tables = [paper_table(), misprints()]
    if options.json:
        print(render.several(tables, "json"), end="")  # noqa: T201
        return 0
    for table in tables:
        console.print(render.terminal(table, console.width))
        console.print()
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# The descent


def _descended(choices: Sequence[Choice], scene: Scene, settings: Settings) -> list[Descent]:
    """Every loss's descent, with a line of progress each."""
    done = []
    for one in descents(choices, scene, settings):
        done.append(one)
        progress_console.print(f"[dim]descended {escape(one.loss)} ({len(done)} of {len(choices)})[/]")
    return done


def _how(settings: Settings) -> str:
    """What was done, for captions."""
    start = {"uniform": "half the heads, spread evenly", "blurred": "half of each head, blurred to 12 px"}
    return (
        f"Start: {start[settings.start]}. {settings.steps} steps of Adam on the parameter u of each cell, the density "
        f"being softplus(u), a proposal's probability sigmoid(u); one learning rate for all losses ({settings.rate:g}, "
        "falling to 0 on a cosine), as Adam's steps do not depend on a loss's scale (ours)."
    )


def _traces(done: Sequence[Descent]) -> list[plots_descent.Trace]:
    return [plots_descent.Trace(one.loss, one.steps, one.maps, one.values, one.counts, one.close) for one in done]


def _descent_part(scene: Scene, settings: Settings, done: Sequence[Descent], movie: Path) -> Part:
    """What a free map does."""
    how, heads = _how(settings), len(scene.points)
    plots = [
        *plots_descent.strips(shown(scene), _traces(done), how=how),
        plots_descent.curves(_traces(done), heads, radius=CLOSE, how=how),
    ]
    lead = [
        "Without a network, a density map follows each loss downhill, every cell free: what is seen is the loss's own "
        "doing. Where the map stands depends on start and steps, too, and need not be the minimum: more --steps tell.",
        f"{movie.name} beside this page shows them all side by side, with the count of each.",
    ]
    return Part("descent", "A free density descends", lead, (), [descent_table(done, heads, how)], plots)


def _movie(options: argparse.Namespace, scene: Scene, done: Sequence[Descent]) -> Path:
    return write_frames(plots_descent.frames(shown(scene), _traces(done)), options.to, options.format or "gif")


# ---------------------------------------------------------------------------------------------------------------------
# What is written


def _write(folder: Path, scene: Scene, parts: Sequence[Part]) -> list[Path]:
    """The page, then the figures."""
    files = [
        file for part in parts for plot in part.plots for file in save(plot, folder / "figures", ("png", "pdf", "svg"))
    ]
    page = Page(
        title="What each loss asks for",
        lead=f"Gradient fields and targets of crowd-counting losses: {scene.title}.",
        facts=[
            ("Scene", scene.title),
            ("Heads", str(len(scene.points))),
            ("Picture", f"{scene.size[1]} x {scene.size[0]} px" + (f", {scene.note}" if scene.note else "")),
            ("Cells", f"{scene.cells[1]} x {scene.cells[0]} of {scene.stride} px"),
        ],
        parts=list(parts),
        program=f"crowd-loss-benchmark {version('crowd-loss-benchmark')}",
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(folder / "index.html", html(page))
    return [folder / "index.html", *files]


def _numbers(scene: Scene, found: Sequence[Field], done: Sequence[Descent], files: Sequence[Path]) -> dict[str, Any]:
    """All that was measured."""
    return {
        "scene": {
            "name": scene.name, "title": scene.title, "note": scene.note, "size": scene.size, "stride": scene.stride,
            "points": scene.points.tolist(),
        },
        "fields": [
            {
                "loss": field.loss, "prediction": field.guess.name, "made": field.guess.words, "value": field.value,
                "count": field.total, "counts": field.counts.tolist(),
                "target_counts": None if field.target_counts is None else field.target_counts.tolist(),
                **field.seen._asdict(), "sentences": field.sentences,
            }
            for field in found
        ],
        "descents": [
            {
                "loss": one.loss, "first_value": one.values[0], "last_value": one.values[-1], "count": one.counts[-1],
                "close": one.close[-1], "own": one.own.tolist(), "proposals": one.proposals,
            }
            for one in done
        ],
        "files": [str(file) for file in files],
    }  # fmt: skip


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON has not, as null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
