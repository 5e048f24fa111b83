"""Figures of what losses ask for: gradient fields and targets on one scene. See `reports.plots`.

Gradients are drawn from dark blue (negative: more people wanted) over white to orange (fewer), with a scale for each
loss; densities on one scale for the whole figure, what is below zero in light blue. All scales are square roots, so
that small values are told apart beside large ones. Scales and sizes are ours; every figure is a page wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, FuncNorm
from matplotlib.figure import Figure

from reports import style
from reports.plots_maps import (
    BELOW,
    PUSH,
    Shown,
    above,
    bar,
    dash,
    density_scale,
    digits,
    draw_map,
    frame,
    height,
    map_bar,
    owners,
    picture,
    roots,
)
from reports.style import LINE, PAGE, SMALL, TEXT, Plot

__all__ = ["Asked", "count_norms", "fields"]

Array = npt.NDArray[np.float64]

MOST_ROWS, MOST_GROUPS = 4, 3
"""Losses and predictions in one figure at most."""
_TALLEST = 3.6
"""Of a map in the figure of the count norms, inches."""


class Asked(NamedTuple):
    """What a loss asks of a prediction.

    Attributes:
        loss: Its label.
        prediction: Name of the prediction.
        words: How that was made.
        read: float64 [h, w], what the loss reads, people per cell.
        gradient: float64 [h, w]; negative: more people wanted.
        target: float64 [h, w], or None where the loss names none.
        value: The loss.
        seen: What one sees, in a few words.
        kink: Whether the gradient jumps here: a little less and a little more of the prediction are pushed apart.
        of: What the gradient is in: `density` or `logits`.
        least: The scale of a row is not below the least of these: above 0 where no cell is pushed, so that rounding is
            not drawn as a push.
    """

    loss: str
    prediction: str
    words: str
    read: Array
    gradient: Array
    target: Array | None
    value: float
    seen: str
    kink: bool = False
    of: str = "density"
    least: float = 0.0


def fields(scene: Shown, asked: Sequence[Asked]) -> list[Plot]:
    """Losses as rows; for each prediction the gradient field and the target density, heads and nearest cells marked.

    Args:
        scene: What is looked at.
        asked: Every loss with every prediction.

    Returns:
        Figures of at most 4 losses and 3 predictions, named `fields`, `fields_2`, ...; `data` has `loss, prediction,
        value, count, target_count, largest_gradient, scale, seen`.

    Raises:
        ValueError: If there is nothing, a loss lacks a prediction, or a map has not the shape of `owner`.
    """
    if not asked:
        raise ValueError("asked is empty: there is no loss to draw")
    found = {(one.loss, one.prediction): one for one in asked}
    losses, guesses = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    if len(found) != len(losses) * len(guesses) or len(found) != len(asked):
        raise ValueError(f"each of {losses} needs each of {guesses} once; found {sorted(found)}")
    for one in asked:
        for name in ("read", "gradient", "target"):
            values = getattr(one, name)
            if values is not None and values.shape != scene.owner.shape:
                raise ValueError(f"{name} of {one.loss} has shape {values.shape}; expected {scene.owner.shape}")
    plots: list[Plot] = []
    for group in _parts(guesses, MOST_GROUPS):
        for rows in _parts(losses, MOST_ROWS):
            part = {key: one for key, one in found.items() if key[0] in rows and key[1] in group}
            name = f"fields_{len(plots) + 1}" if plots else "fields"
            plots.append(_fields(scene, part, rows, group, name))
    return plots


def _parts(items: Sequence[str], most: int) -> list[list[str]]:
    """Items in as few parts as can be, of about the same length."""
    return [list(part) for part in np.array_split(np.asarray(items, object), -(-len(items) // most))]


@style.context()
def _fields(
    scene: Shown, found: dict[tuple[str, str], Asked], rows: Sequence[str], groups: Sequence[str], name: str
) -> Plot:
    """One figure."""
    stub, gap, between, foot = 1.0, 0.04, 0.14, 0.5
    each = min((PAGE - stub - between * (len(groups) - 1) - gap * len(groups) - 0.02) / (2 * len(groups)), 1.6)
    tall = height(scene, each)
    step = tall + LINE + 0.07
    first = {group: found[rows[0], group] for group in groups}
    words = {group: _words(one, len(scene.points), each - 0.04) for group, one in first.items()}
    head = max(tall, height(scene, 0.9), LINE * max(map(len, words.values()))) + 2 * LINE + 0.1
    titles = LINE + 0.06
    figure = style.sheet(PAGE, foot + head + titles + len(rows) * step)
    top = float(figure.get_size_inches()[1])
    lefts = [stub + i * (2 * each + gap + between) for i in range(len(groups))]
    targets = {key: None if one.target is None else above(one.target) for key, one in found.items()}
    scale = density_scale([one.read for one in found.values()], list(targets.values()))
    picture(style.place(figure, 0.02, top - 2 * LINE - height(scene, 0.9), 0.9, height(scene, 0.9)), scene)
    for group, left in zip(groups, lefts, strict=True):
        one = first[group]
        style.write(figure, left, top - LINE, group, TEXT, weight="bold")
        axes = style.place(figure, left, top - 2 * LINE - tall, each, tall)
        draw_map(axes, scene, one.read, *scale, dark=True)
        style.write_lines(figure, left + each + gap + 0.04, top - 2 * LINE, words[group])
        for place, title in ((left, "gradient"), (left + each + gap, "target")):
            style.write(figure, place + each / 2, top - head - LINE, title, ha="center")
    data = []
    for i, loss in enumerate(rows):
        upper = top - head - titles - i * step
        most = max(float(np.abs(found[loss, group].gradient).max()) for group in groups)
        most = max(most, min(found[loss, group].least for group in groups))
        _stub(figure, upper, loss, most, found[loss, groups[0]].of, stub - 0.08)
        for group, left in zip(groups, lefts, strict=True):
            one = found[loss, group]
            pair = [style.place(figure, left + j * (each + gap), upper - tall, each, tall) for j in (0, 1)]
            draw_map(pair[0], scene, one.gradient, PUSH, roots(-(most or 1), most or 1))
            if one.kink:
                dash(pair[0])
            _target(pair[1], scene, targets[loss, group], scale)
            below = upper - tall - 0.8 * LINE
            value = f"value {digits(one.value)}" + (", kink" if one.kink else "")
            style.write(figure, left + each / 2, below, value, ha="center")
            total = np.nan if one.target is None else float(one.target.sum())
            style.write(figure, left + 1.5 * each + gap, below, f"sum {digits(total)}", ha="center")
            if len(groups) == 1:  # there is space for what the caption says
                beside = left + 2 * each + gap + 0.12
                style.write_lines(figure, beside, upper, _lines(one.seen, PAGE - beside - 0.02))
            largest = float(np.abs(one.gradient).max())
            data.append((loss, group, one.value, float(one.read.sum()), total, largest, most, one.seen))
    middle = (stub + PAGE) / 2
    _push_bar(figure, stub + 0.12, 2.5, "gradient: more people wanted | fewer")
    map_bar(figure, middle + 0.2, 2.5, *scale, "prediction and target (people per cell)")
    columns = ["loss", "prediction", "value", "count", "target_count", "largest_gradient", "scale", "seen"]
    return Plot(pd.DataFrame(data, columns=columns), figure, _caption(scene, found, rows, groups), name)


def _words(one: Asked, heads: int, inches: float) -> list[str]:
    """What a prediction is, in lines."""
    return [*_lines(one.words, inches), *_lines(f"count {one.read.sum():.2f} of {heads}", inches)]


def _lines(text: str, inches: float) -> list[str]:
    """Words in lines."""
    return [line.strip() for line in style.wrap(text, inches)]


_KINK = (
    "Dashed frame, kink: the gradient jumps here, and which side is drawn, blue or orange, is rounding: it hangs on "
    "less than a thousandth of the prediction, or on rounding alone where the count is exactly right."
)


def _caption(scene: Shown, found: dict[tuple[str, str], Asked], rows: Sequence[str], groups: Sequence[str]) -> str:
    """What is shown, and for each loss what one sees."""
    cells = f"{scene.owner.shape[1]} x {scene.owner.shape[0]} cells of {scene.stride} px"
    said = [f"{row}: " + "; ".join(f"{g} – {found[row, g].seen}" for g in groups) + "." for row in rows]
    kinks = any(one.kink for one in found.values())
    proposals = any(one.of == "logits" for one in found.values())
    return " ".join(
        [
            f"What losses ask for: {scene.title} ({cells}). Gradient: blue, more people wanted; orange, fewer; white, "
            "no push; the scale of a loss is the largest absolute value of its row, printed beside it (where its row "
            "pushes no cell, that of half the people at every head). Target: the "
            f"density that the loss moves the prediction towards; light blue is below zero (where it is more than "
            f"{BELOW:g} people in all). Rings are the heads, lines the borders of their nearest cells; colours follow "
            "square roots (scales and colours: ours).",
            *([_KINK] if kinks else []),
            *(["Point losses read a proposal in every cell, its probability the cell's mass."] if proposals else []),
            *said,
        ]
    )


# ---------------------------------------------------------------------------------------------------------------------
# The paper's last figure


@style.context()
def count_norms(scene: Shown, asked: Sequence[Asked]) -> Plot:
    """Two count norms (rows) on three predictions (columns): what the target adds to the prediction, p* - a.

    After the paper's last figure: (a) image and prediction, (b) heads and their nearest cells, (c)-(e) the first loss,
    (f)-(h) the second. Unlike gradients, p* - a is in people per cell for both, so all six maps share one scale.

    Args:
        scene: What is looked at.
        asked: Of two losses that name targets, each with the same predictions, at most three.

    Returns:
        `data` has `loss, prediction, value, count, target_count, added, taken, seen`: people added to cells, and taken
        from them.

    Raises:
        ValueError: If there are not two losses with the same one to three predictions, or a target is missing.
    """
    found = {(one.loss, one.prediction): one for one in asked}
    rows, groups = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    if len(rows) != 2 or not 1 <= len(groups) <= 3 or len(found) != 2 * len(groups):
        raise ValueError(f"two losses with the same one to three predictions are needed; found {sorted(found)}")
    moves = {key: one.target - one.read for key, one in found.items() if one.target is not None}
    if len(moves) < len(found):
        raise ValueError(f"no target of {sorted(set(found) - set(moves))}")
    places = _places(len(groups))
    columns, lines = (1 + max(place[i] for place in places) for i in (0, 1))
    edge, gap, apart, foot = 0.05, 0.1, 0.1, 0.5
    each = min((PAGE - 2 * edge - apart - (columns - 1) * gap) / columns, _TALLEST / height(scene, 1))
    tall = height(scene, each)
    step = tall + 2 * LINE + 0.1
    figure = style.sheet(PAGE, foot + LINE + lines * step)
    top = float(figure.get_size_inches()[1]) - LINE
    most = max(float(np.abs(move).max()) for move in moves.values()) or 1.0
    shown = found[rows[0], "right" if "right" in groups else groups[0]]
    corners = [(edge + x * (each + gap) + (apart if i > 1 else 0), top - y * step) for i, (x, y) in enumerate(places)]
    axes = [style.place(figure, x, y - LINE - tall, each, tall) for x, y in corners[:2]]
    picture(axes[0], scene, shown.read)
    owners(axes[1], scene)
    for (x, y), text in zip(corners, (f"(a) image, ‘{shown.prediction}’", "(b) heads, nearest cells"), strict=False):
        style.write(figure, x, y - 0.75 * LINE, text)
    data = []
    for i, loss in enumerate(rows):
        for j, group in enumerate(groups):
            one, move = found[loss, group], moves[loss, group]
            left, upper = corners[2 + i * len(groups) + j]
            letter = "cdefgh"[i * len(groups) + j]
            style.write(figure, left, upper - 0.75 * LINE, f"({letter}) {group}, {_norm(loss)}")
            axes_ = style.place(figure, left, upper - LINE - tall, each, tall)
            draw_map(axes_, scene, move, PUSH.reversed(), roots(-most, most))
            added, taken = float(move.clip(min=0).sum()), abs(float(move.clip(max=0).sum()))
            total = float(one.read.sum() + move.sum())
            text = f"+{added:.2f} −{taken:.2f} → {total:.2f} people"
            style.write(figure, left + each / 2, upper - LINE - tall - 0.8 * LINE, text, ha="center")
            data.append((loss, group, one.value, float(one.read.sum()), total, added, taken, one.seen))
    title = "target − prediction (people per cell)"
    bar(figure, corners[2][0], 2.6, PUSH.reversed(), roots(-most, most), _signed_ticks(most), title)
    names = ["loss", "prediction", "value", "count", "target_count", "added", "taken", "seen"]
    caption = (
        "The count norm, after the last figure of the paper (tau of the L2 norm is ours, the paper's is not known): "
        f"{scene.title}. (a) Picture and a prediction, (b) heads "
        f"with the cells nearest to each, (c)–({'cdefgh'[2 * len(groups) - 1]}) what the target adds to the prediction "
        "(blue) and takes from it (orange), in people per cell on one scale of square roots; beneath, people added, "
        "taken, and the target's sum. "
        + " ".join(
            f"{_norm(loss)}: " + "; ".join(f"{g} – {_moved(moves[loss, g])}" for g in groups) + "." for loss in rows
        )
    )
    return Plot(pd.DataFrame(data, columns=names), figure, caption, "count_norms")


def _places(groups: int) -> list[tuple[int, int]]:
    """Column and row of (a), (b) and the maps of both losses: of one prediction all in a row."""
    if groups == 1:
        return [(i, 0) for i in range(4)]
    return [(0, 0), (0, 1), *((1 + j, i) for i in (0, 1) for j in range(groups))]


def _norm(loss: str) -> str:
    """The words of the paper for its two norms; else the label."""
    return {"pml": "L1 norm", "pml[count_norm=l1]": "L1 norm", "pml[count_norm=l2]": "L2 norm"}.get(loss, loss)


def _moved(move: Array) -> str:
    """What a target adds and takes, or that it changes nothing."""
    if float(np.abs(move).max()) <= 1e-9:
        return "the target is the prediction"
    added, taken = float(move.clip(min=0).sum()), abs(float(move.clip(max=0).sum()))
    return f"adds {added:.2f} people and takes {taken:.2f}"


# ---------------------------------------------------------------------------------------------------------------------
# Parts of figures


def _target(axes: Axes, scene: Shown, target: Array | None, scale: tuple[Colormap, FuncNorm]) -> None:
    if target is None:
        frame(axes, scene)
        axes.text(0.5, 0.5, "none named", transform=axes.transAxes, size=SMALL, ha="center", va="center_baseline")
        return
    draw_map(axes, scene, target, *scale, dark=True)


def _stub(figure: Figure, top: float, loss: str, most: float, of: str, inches: float) -> None:
    """What a row is."""
    names = style.wrap(loss, 0.9 * inches)  # bold is wider
    style.write_lines(figure, 0.02, top, names, weight="bold")
    lines = [f"scale ±{digits(most)}"]
    style.write_lines(figure, 0.02, top - len(names) * LINE, [*lines, *([f"in {of}"] if of != "density" else [])])


def _push_bar(figure: Figure, left: float, width: float, title: str) -> None:
    ticks = {-1.0: "−scale", 0.0: "0", 1.0: "+scale"}
    bar(figure, left, width, PUSH, roots(-1, 1), ticks, title)


def _signed_ticks(most: float) -> dict[float, str]:
    return {value: digits(value) for value in (-most, -most / 4, 0.0, most / 4, most)}
