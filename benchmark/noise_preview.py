"""`benchmark data noise`: what noise levels mean for a dataset, and how far each loss is moved by them, untrained."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import Progress

from benchmark.names import parse_choice, split_choices
from benchmark.show import console, progress_console
from benchmark.targets import check_folder
from reports import plots_sensitivity, render
from reports.plots_files import save
from reports.plots_noise_effect import Labels, displacement, overlay
from reports.style import Plot
from reports.table import Cell, Column, Row, Table, number
from results.atomic import write_text

__all__ = ["preview"]

_EXAMPLES = (0.5, 0.9)
"""Quantiles of the number of heads at which images are drawn (ours)."""
_PRINTED = ("noise_effect", "sensitivity_preference_lost", "sensitivity_gradient_shift", "sensitivity_value_shift")
"""Tables for the terminal: the labels, what compares between losses, and what labels do to a loss's own value."""
_DRAWN = ("preference_lost", "gradient_shift", "count_push")


def preview(options: argparse.Namespace) -> int:
    """Measures, prints, and writes figures, tables and a page; 0.

    Raises:
        ValueError: If a noise, loss, dataset or number is wrong, or the folder cannot be written.
    """
    from runners import data, sensitivity
    from runners.data.cache import prepare
    from runners.data.noise import parse
    from runners.data.noise_effect import Effect, displaced, evenly

    if options.stride < 1:
        raise ValueError(f"--stride must be at least 1; found {options.stride}")
    noises = list({str(noise): noise for noise in map(parse, options.noise)}.values())
    losses = _losses(options.losses)
    choice = parse_choice(options.dataset)
    folder = options.to or Path(f"noise_{choice.name}")
    check_folder(folder)
    dataset = data.build(choice.name, root=options.data_root, **choice.params)
    images = prepare(dataset, options.split, cache_dir=options.cache_dir)
    part = evenly(images, options.images)
    crops = sensitivity.sample_crops(
        images, noises, crop=options.crop, count=options.crops, stride=options.stride, seed=options.noise_seed
    )
    sigma = _sigma(options.sigma)
    effects: list[Effect] = []
    with _progress(len(noises) * len(part) + len(losses) * len(crops)) as advance:
        for noise in noises:
            effects.append(displaced(part, noise, options.noise_seed, progress=advance))
        rows = sensitivity.measure(losses, crops, stride=options.stride, sigma=sigma, progress=advance)
    found = sensitivity.summary(rows)
    if options.json:
        print(json.dumps(_numbers(effects, found), indent=1, allow_nan=False))  # noqa: T201
    terms = _terms(crops, options, str(choice), sigma)
    points = _points(losses, sensitivity.CONFIDENCE)
    peopled = sum(len(part.points(index)) > 0 for index in range(len(part)))
    tables = [_effect_table(effects, str(choice), options.split, peopled), *_sensitivity_tables(found, terms, points)]
    drawn = _figures(effects, found, _examples(part, noises, options.noise_seed), f"{terms} {points}".strip())
    _write(folder, tables, drawn, rows, found, str(choice))
    if not options.json:
        for table in (table for table in tables if table.name in _PRINTED):
            console.print(render.terminal(table, console.width))
            console.print()
        console.print(f"written: index.html, figures, and all tables in {folder}", soft_wrap=True, markup=False)
    return 0


def _losses(texts: Sequence[str] | None) -> dict[str, Any]:
    """The losses by their names as typed; without any, all that there are."""
    import losses

    chosen = split_choices(texts or losses.names())
    return {str(choice): losses.build(choice.name, **choice.params) for choice in chosen}


def _terms(crops: Sequence[Any], options: argparse.Namespace, dataset: str, sigma: float | None) -> str:
    """On what the losses were measured, and which of it is ours, for the captions of tables and figures."""
    from runners.sensitivity import TRIES

    side, images, empty = crops[0].clean.image_size[0], len({crop.id for crop in crops}), options.crops - len(crops)
    density = "dots" if sigma is None else f"of sigma {sigma:g} px"
    said = (
        f"{len(crops)} crops of {side} px, {images} image{'' if images == 1 else 's'} of {dataset}, {options.split}, "
        f"noise seed {options.noise_seed}; stride {options.stride} px, true density {density}. No source states such a "
        "measure: sigma, stride, number and side of the crops are ours, as are kinds and levels of the noise."
    )
    if empty:
        said += f" {options.crops} crops were asked for: {empty} had no head at any of {TRIES} places tried."
    return said


def _points(losses: Mapping[str, Any], confidence: float) -> str:
    """How the losses that read points are measured, in words; nothing where there is none."""
    names = [name for name, loss in losses.items() if loss.reads == "points"]
    if not names:
        return ""
    return (
        f"{', '.join(names)}: reads proposals, no density. d*: the nearest free anchor stands on each true head and is "
        f"a person with probability {confidence:g} (ours), the others share the rest of the count; d0: all anchors "
        "with probability heads / anchors. Gradients are of the logits, which labels reach only through the matching "
        "of proposals with heads: a shift of 0.00 says that the matching did not change."
    )


def _sigma(text: str) -> float | None:
    """`--sigma`: pixels, or dots.

    Raises:
        ValueError: If it is neither.
    """
    if text == "dots":
        return None
    try:
        sigma = float(text)
    except ValueError:
        sigma = math.nan
    if not 0 < sigma < math.inf:
        raise ValueError(f"--sigma must be a number of pixels above 0, or dots; found {text!r}")
    return sigma


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def _effect_table(effects: Sequence[Any], dataset: str, split: str, peopled: int) -> Table:
    """One row a noise: what became of the labels."""
    titles = {
        "after": "labels", "missing": "missing %", "duplicates": "twice %", "mean_px": "mean px", "sd_px": "sd px",
        "requested_sd_px": "asked px", "clipped": "clipped %", "relative": "of spacing", "switched": "nearer other %",
        "ks": "KS",
    }  # fmt: skip
    digits = {"after": 0, "mean_px": 2, "sd_px": 2, "requested_sd_px": 2, "relative": 2, "ks": 3}
    body = []
    for effect in effects:
        numbers = effect.numbers()
        numbers |= {key: _share(numbers[key], numbers["before"]) for key in ("missing", "duplicates")}
        values = {k: 100 * numbers[k] if titles[k].endswith("%") else numbers[k] for k in titles}
        cells = [Cell(number(values[key], digits.get(key, 1)), _finite(values[key])) for key in titles]
        body.append(Row(_spaced(effect.noise), tuple(cells)))
    first = effects[0]
    caption = (
        f"{first.images} images, {peopled} of them with heads, {first.before} annotated heads. Pixels of the prepared "
        "image. Levels are ours. Empty: nothing to measure.",
        "mean: Euclidean displacement; sd: of one axis, beside the one asked for. clipped: moved by the border. of "
        "spacing: median of displacement / distance to the nearest other head. nearer other: labels that lie nearer to "
        "another head than to their own. KS: Kolmogorov-Smirnov distance between what was drawn and asked for.",
    )
    columns = tuple(Column(title, kind="derived") for title in titles.values())
    return Table("noise_effect", f"What the labels become: {dataset}, {split}", "noise", columns, tuple(body), caption)


def _sensitivity_tables(found: pd.DataFrame, terms: str, points: str) -> list[Table]:
    """A table a measure, losses by noises; the one that true labels leave stands beside the gradients."""
    said = {
        "preference_lost": (
            "Preference lost",
            "1 - [L(d0; wrong) - L(d*; wrong)] / [L(d0; true) - L(d*; true)]: 0 nothing, 1 all of what the loss "
            "prefers the true density d* by, over d0, the true count evenly spread. Below 0: the wrong labels tell d* "
            "from d0 even better, as more labels raise what is at stake. n/a: the loss does not prefer d* to d0.",
        ),
        "gradient_shift": (
            "Gradient shift",
            "|grad L(d*; wrong) - grad L(d*; true)| / |grad L(d0; true)|: 1 is as hard as a prediction that knows "
            "only the count is pushed. rest: |grad L(d*; true)| / |grad L(d0; true)|; kinks (|.|) raise both.",
        ),
        "count_push": ("Count push", "The part of the gradient shift that raises (above 0) or lowers the total."),
        "value_shift": ("Value shift a head", "[L(d*; wrong) - L(d*; true)] / heads, in each loss's own units."),
    }
    notes = (points,) if points else ()
    return [_measure_table(found, name, f"{title} (label sensitivity, ours)", (terms, text, *notes))
            for name, (title, text) in said.items()]  # fmt: skip


def _measure_table(found: pd.DataFrame, name: str, title: str, caption: tuple[str, ...]) -> Table:
    noises, losses = (list(dict.fromkeys(found[column])) for column in ("noise", "loss"))
    by_key = {(row["measure"], row["loss"], row["noise"]): row for row in found.to_dict("records")}
    columns = [Column(_spaced(noise), kind="derived") for noise in noises]
    rests = name == "gradient_shift"
    body = []
    for loss in losses:
        cells = [_measured(by_key[name, loss, noise]) for noise in noises]
        body.append(Row(loss, (*cells, *([_measured(by_key["rest", loss, noises[0]])] if rests else []))))
    columns += [Column("rest", kind="derived")] if rests else []
    caption = (*caption, "±: bootstrap standard error over images; files and copies have it and the 95 % interval.")
    return Table(f"sensitivity_{name}", title, "loss", tuple(columns), tuple(body), caption)


def _measured(row: Mapping[Any, Any]) -> Cell:
    """`0.42 ±0.03`, with its interval."""
    value, se, low, high = (_finite(float(row[name])) for name in ("value", "se", "low", "high"))
    if value is None:
        return Cell("n/a")
    digits = 2 if abs(value) >= 0.1 or value == 0 else 3
    text = number(value, digits) + ("" if se is None else f" ±{number(se, digits)}")
    return Cell(text, value, low=low, high=high, se=se)


def _spaced(noise: str) -> str:
    """A combined noise that may be broken into lines; others are their plain names."""
    return noise.replace("+", " + ")


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _numbers(effects: Sequence[Any], found: pd.DataFrame) -> dict[str, Any]:
    """Everything measured, for machines."""
    return {
        "noises": [
            {"noise": e.noise, "images": e.images} | {k: _finite(v) for k, v in e.numbers().items()} for e in effects
        ],
        "sensitivity": json.loads(found.to_json(orient="records")),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Figures and files


def _examples(part: Any, noises: Sequence[Any], seed: int) -> list[list[Labels]]:
    """An image of a median and one of a high number of heads, each with every noise."""
    from runners.data.noise_effect import wrong_labels

    counts = np.array([len(part.points(index)) for index in range(len(part))])
    order = np.argsort(counts, kind="stable")
    chosen = dict.fromkeys(int(order[round(share * (len(order) - 1))]) for share in _EXAMPLES)
    found = []
    for index in chosen:
        of_image = []
        for noise in noises:
            labels, _ = wrong_labels(part, index, noise, seed)
            of_image.append(
                Labels(str(noise), part.ids[index], part.image(index), part.points(index), labels.points, labels.source)
            )
        found.append(of_image)
    return found


def _figures(
    effects: Sequence[Any], found: pd.DataFrame, examples: Sequence[Sequence[Labels]], terms: str
) -> list[Plot]:
    """All figures that there is something to draw for; those of losses have the `terms` in their captions."""
    moves = pd.concat([effect.moves.assign(noise=effect.noise) for effect in effects], ignore_index=True)
    drawn = [displacement(moves)] if moves[["dx", "dy"]].to_numpy().any() else []
    for place, labels in enumerate(examples, start=1):
        drawn.append(overlay(labels)._replace(name=f"noise_overlay_{place}"))
    for measure in _DRAWN:
        rows = found[found["measure"] == measure]
        if np.isfinite(rows["value"]).any():
            curves = plots_sensitivity.levels(found, measure, terms)
            drawn += [plots_sensitivity.sensitivity(found, measure, terms), *([curves] if curves is not None else [])]
    return drawn


def _write(
    folder: Path,
    tables: Sequence[Table],
    drawn: Sequence[Plot],
    rows: pd.DataFrame,
    found: pd.DataFrame,
    dataset: str,
) -> None:
    """The figures and their data, the tables, the rows behind the sensitivities, and a page with all of it."""
    from reports.page import Page, Part, html

    for plot in drawn:
        save(plot, folder, ("png", "pdf", "svg"))
    for table in tables:
        write_text(folder / f"{table.name}.csv", _csv(table, found))
    write_text(folder / "sensitivity.csv", rows.to_csv(index=False, lineterminator="\n"))
    named = {f"noise_{kind}{measure}" for kind in ("", "levels_") for measure in _DRAWN}
    parts = [
        Part("labels", "What the labels become", tables=tables[:1], plots=[p for p in drawn if p.name not in named]),
        Part(
            "sensitivity",
            "Label sensitivity of the losses",
            ("Ours: how far wrong labels move each loss at the true density, before any training.",),
            tables=tables[1:],
            plots=[p for p in drawn if p.name in named],
        ),
    ]
    lead = "What noise levels do to the labels, and to the losses, before training. Kinds and levels are ours."
    facts = [("dataset", dataset), ("noises", ", ".join(dict.fromkeys(rows["noise"])))]
    page = Page(
        title=f"Annotation noise: {dataset}",
        lead=lead,
        facts=facts,
        parts=parts,
        program=f"crowd-loss-benchmark {version('crowd-loss-benchmark')}",
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(folder / "index.html", html(page))


def _csv(table: Table, found: pd.DataFrame) -> str:
    """A table for machines: names as typed, nothing where there is no number, standard errors and 95 % intervals."""
    measure = table.name.removeprefix("sensitivity_")
    if measure == table.name:
        rows = tuple(row._replace(label=row.label.replace(" + ", "+")) for row in table.rows)
        return render.to_csv(dataclasses.replace(table, rows=rows))
    wanted = [measure, *(["rest"] if measure == "gradient_shift" else [])]
    names = {"value": "", "se": " se", "low": " low", "high": " high"}
    wide: dict[str, dict[str, float]] = {}
    for one in wanted:
        for row in found[found["measure"] == one].to_dict("records"):
            title = "rest" if one == "rest" else str(row["noise"])
            wide.setdefault(str(row["loss"]), {}).update({f"{title}{end}": row[key] for key, end in names.items()})
    return pd.DataFrame.from_dict(wide, orient="index").to_csv(index_label="loss", lineterminator="\n")


class _progress:  # noqa: N801 - used like a function
    """A bar on a terminal, as a context that gives what advances it; nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._bar = Progress(console=progress_console, transient=True, disable=not progress_console.is_terminal)
        self._task = self._bar.add_task("measuring", total=total)

    def __enter__(self) -> Callable[[], None]:
        self._bar.start()
        return lambda: self._bar.advance(self._task)

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
