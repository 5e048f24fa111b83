"""Figures of the study of noisy annotations: errors over the level, and PML's two count norms while they are trained.

They stand for the paper's panels (a) "Adding noise following BL", (b) "Adding noise following NCC" and (c) "MAE of PML
with L2- and L1-norm during training". No source states the axes of (a) and (b): kinds and levels are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

from reports import style
from reports.noise import CLEAN, KINDS
from reports.style import COLUMN, FOOT, INK, LEFT, LINE, PAGE, SMALL, TEXT, Look, Plot

__all__ = ["error_by_noise", "norms_by_epoch"]

Looks = Mapping[str, Look] | None
_FLOOR = Look(INK, "None", (4, 2))
"""The constant count: a dashed line without marks."""
_APART = "#C77800"
"""Of the L2 count norm beside the L1, of whose colour it has a shade elsewhere: an orange that no loss has, far from
PML's violet for colour-blind readers, too (ours)."""


@style.context()
def error_by_noise(
    errors: pd.DataFrame,
    constants: pd.DataFrame | None = None,
    *,
    looks: Looks = None,
    name: str = "noise",
    metric: str = "MAE",
    unit: str = "people",
    interval: str = "its interval",
) -> Plot:
    """The error of every loss over the level of the noise, one panel a kind, with its interval.

    The marks of the losses at one level stand a little apart, so that no bar hides another. Of kinds with one axis
    (uniform and Gaussian displacement in pixels, by their standard deviation) all panels have the same scale.

    Args:
        errors: `reports.noise.errors` of one or several kinds.
        constants: `reports.noise.constants`: the constant count, a dashed line where it is near, else a note.
        looks: See `reports.plots`.
        name: Of the figure.
        metric: What is drawn.
        unit: Its unit, for the axis.
        interval: What the bars are, for the caption.

    Returns:
        `data` is `errors` with a finite estimate, `drawn_at`, the place of the mark, and `constant_count`, the error of
        the constant count at that level, where it is known.

    Raises:
        ValueError: If a column is missing, or nothing is finite.
    """
    columns = ["kind", "noise", "level", "x", "label", "estimate", "low", "high", "seeds", "images"]
    style.need(errors, columns, "errors")
    data = errors[np.isfinite(errors["estimate"].astype(float))][columns].reset_index(drop=True)
    if data.empty:
        raise ValueError(f"errors has no finite estimate: all {len(errors)} are NaN or infinite")
    kinds, labels = list(dict.fromkeys(data["kind"])), sorted(set(data["label"]))
    shown = style.chosen(looks, labels)
    across = COLUMN if len(kinds) == 1 else PAGE
    near, far = _near(constants, kinds, data)
    told = dict(shown) | ({"constant count": _FLOOR} if len(near) else {})
    foot = FOOT + 0.02 + style.legend_height(list(told), across - LEFT, line=True)
    titles = [f"{KINDS[kind].words} (levels ours)" for kind in kinds]
    figure, panels = _panels(titles, [1.9], foot, across)
    data["drawn_at"] = np.nan
    for kind, (axes,) in zip(kinds, panels, strict=True):
        same = [other for other in kinds if KINDS[other].axis == KINDS[kind].axis]
        _level_axis(axes, data[data["kind"].isin(same)]["x"], data[data["kind"] == kind]["x"])
        apart = _apart(axes, data[data["kind"] == kind]["x"], len(labels))
        for place, label in enumerate(labels):
            part = data[(data["kind"] == kind) & (data["label"] == label)].sort_values("x")
            data.loc[part.index, "drawn_at"] = part["x"] + part["x"].map(apart) * (place - (len(labels) - 1) / 2)
    values = pd.concat([data["estimate"], data["low"], data["high"], near["estimate"]])
    for i, (kind, (axes,)) in enumerate(zip(kinds, panels, strict=True)):
        style.scale_axis(axes.yaxis, values, log_from=10)
        axes.grid(axis="y")
        axes.tick_params(labelleft=i == 0)
        title = f"{metric} ({unit})" if unit else metric
        style.axis_titles(axes, x=KINDS[kind].axis, y=title if i == 0 else "")
        floor = near[near["kind"] == kind].sort_values("x")
        axes.plot(floor["x"], floor["estimate"], color=_FLOOR.color, lw=0.8, ls=_FLOOR.line, zorder=1)
        for label in labels:
            _curve(axes, data[(data["kind"] == kind) & (data["label"] == label)].sort_values("x"), shown[label])
    style.legend(figure, told, left=LEFT, top=foot - FOOT - 0.02, line=True)
    caption = _error_caption(data, kinds, near, far, metric, interval)
    known = pd.concat([near, far])[["kind", "noise", "estimate"]].rename(columns={"estimate": "constant_count"})
    data = data.merge(known, on=["kind", "noise"], how="left") if len(known) else data
    return Plot(data, figure, caption, name)


@style.context()
def norms_by_epoch(curves: pd.DataFrame, *, looks: Looks = None, name: str = "count_norms") -> Plot:
    """Errors after each epoch of PML with the L1 and the L2 count norm, one column of panels a noise.

    Above the MAE on the clean validation images, below that on the training crops against the labels as trained on,
    where it was kept. Thin lines are seeds, thick ones their mean where every seed has a value. The L1 norm has the
    loss's colour and solid lines, the L2 norm another colour and dashed ones: in this figure alone (ours).

    Args:
        curves: `reports.noise.norm_curves`.
        looks: See `reports.plots`.
        name: Of the figure.

    Returns:
        `data` is `curves`.

    Raises:
        ValueError: If a column is missing, or no validation MAE is finite.
    """
    columns = ("noise", "norm", "label", "seed", "run_id", "epoch", "val_mae", "train_mae", "picked")
    style.need(curves, columns, "curves")
    data = curves.astype({"val_mae": float, "train_mae": float}).replace([np.inf, -np.inf], np.nan)
    if data["val_mae"].isna().all():
        raise ValueError(f"curves has no finite val_mae: all {len(data)} are NaN or infinite")
    noises, labels = list(dict.fromkeys(data["noise"])), list(dict.fromkeys(data.sort_values("norm")["label"]))
    named = data.drop_duplicates("label").set_index("label")["norm"]
    own = _told_apart(style.chosen(looks, labels), dict(named))
    told = {f"{label} ({named[label]} count norm)": look for label, look in own.items()}
    drawn = {"val_mae": "val MAE (people)"}
    drawn |= {"train_mae": "train MAE (people)"} if data["train_mae"].notna().any() else {}
    across = COLUMN if len(noises) == 1 else PAGE
    foot = FOOT + style.legend_height(list(told), across - LEFT, line=True)
    titles = ["clean labels" if noise == CLEAN else f"{noise} (ours)" for noise in noises]
    figure, panels = _panels(titles, [1.25, 1.0][: len(drawn)], foot, across)
    columns_ = style.shape(len(noises))[1]
    for i, (noise, stack) in enumerate(zip(noises, panels, strict=True)):
        for axes, (column, title) in zip(stack, drawn.items(), strict=True):
            style.scale_axis(axes.yaxis, data[column], log_from=10, most=4)
            style.scale_axis(axes.xaxis, data["epoch"], log_from=np.inf, margin=0.04)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10], min_n_ticks=3))
            axes.grid(axis="y")
            axes.tick_params(labelleft=i % columns_ == 0, labelbottom=column == list(drawn)[-1])
            style.axis_titles(axes, y=title if i % columns_ == 0 else "")
            for label in labels:
                _norm(axes, data[(data["noise"] == noise) & (data["label"] == label)], column, own[label])
        stack[-1].set_xlabel("epoch")
    style.legend(figure, told, left=LEFT, top=foot - FOOT, line=True)
    return Plot(data, figure, _norm_caption(data, list(drawn)), name)


# ---------------------------------------------------------------------------------------------------------------------


def _panels(
    titles: Sequence[str], heights: Sequence[float], foot: float, across: float
) -> tuple[Figure, list[list[Axes]]]:
    """Panels side by side, each a stack of axes under a title; `foot` inches stay free below for axis and legend."""
    rows, columns = style.shape(len(titles))
    gap, between = 0.16, 0.1
    width = (across - LEFT - 0.08 - gap * (columns - 1)) / columns
    wrapped = [style.wrap(title, width, TEXT) for title in titles]
    head = LINE * max(len(lines) for lines in wrapped) + 0.09
    tall = sum(heights) + between * (len(heights) - 1)
    cell = head + tall + (FOOT if rows > 1 else 0.0)
    figure = style.sheet(across, foot + rows * cell - (FOOT if rows > 1 else 0.0) + 0.02)
    found = []
    for i, lines in enumerate(wrapped):
        top = foot + (rows - 1 - i // columns) * cell + tall
        left = LEFT + (i % columns) * (width + gap)
        style.write_lines(figure, left, top + 0.05 + LINE * len(lines), lines, size=TEXT)
        tops = top - np.cumsum([0.0, *(height + between for height in heights[:-1])])
        found.append([style.place(figure, left, upper - h, width, h) for upper, h in zip(tops, heights, strict=True)])
    return figure, found


def _level_axis(axes: Axes, every: pd.Series, own: pd.Series) -> None:
    """An axis of levels with a tick at each of the panel's own, where there is room, else as any axis."""
    style.scale_axis(axes.xaxis, every, log_from=np.inf, margin=0.1)
    ticks = sorted(set(own))
    names = [f"{tick:.3g}" for tick in ticks]
    low, high = axes.get_xlim()
    inch = style.axes_width(axes) / (high - low)
    gaps = np.diff(ticks) * inch
    needs = [(style.text_width(a, SMALL) + style.text_width(b, SMALL)) / 2 + 0.05 for a, b in pairwise(names)]
    if all(gap >= need for gap, need in zip(gaps, needs, strict=True)):
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FixedFormatter(names))


def _apart(axes: Axes, places: pd.Series, count: int) -> dict[float, float]:
    """How far the marks of two losses stand apart at each level: all of a level within half the way to the next."""
    ticks = np.array(sorted(set(places)))
    low, high = axes.get_xlim()
    inch = (high - low) / style.axes_width(axes)
    gaps = np.concatenate([[np.inf], np.diff(ticks), [np.inf]])
    room = np.minimum(gaps[:-1], gaps[1:])
    steps = np.minimum(min(0.06, 0.42 / count) * inch, 0.5 * room / count)
    return dict(zip(ticks.tolist(), steps.tolist(), strict=True))


def _curve(axes: Axes, part: pd.DataFrame, look: Look) -> None:
    """One loss: line, bars, marks; hollow where there is no interval."""
    axes.plot(part["drawn_at"], part["estimate"], color=look.color, ls=look.line, lw=1.0, zorder=2)
    axes.vlines(part["drawn_at"], part["low"], part["high"], color=look.color, lw=1.1, zorder=3)
    marks = style.marks(look, 4.2)
    for has, hollow in ((True, {}), (False, {"mfc": "none", "mec": look.color, "mew": 1})):
        some = part[np.isfinite(part["low"].astype(float)) == has]
        axes.plot(some["drawn_at"], some["estimate"], ls="", zorder=4, **(marks | hollow))


def _near(
    constants: pd.DataFrame | None, kinds: Sequence[str], data: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The constant count's errors near those of the losses, which are drawn, and the others, which are told."""
    if constants is None:
        constants = pd.DataFrame(columns=["kind", "noise", "x", "estimate"])
    found = constants[constants["kind"].isin(kinds) & constants["estimate"].notna()]
    ends = data[["estimate", "low", "high"]].to_numpy(float)
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    reach = 0.5 * ((high - low) or abs(high))
    close = bool(len(found)) and bool(found["estimate"].between(low - reach, high + reach).all())
    return (found, found.iloc[:0]) if close else (found.iloc[:0], found)


def _error_caption(
    data: pd.DataFrame, kinds: Sequence[str], near: pd.DataFrame, far: pd.DataFrame, metric: str, interval: str
) -> str:
    known = data["low"].notna()
    bars = f" with {interval} (bars, not corrected)" if known.any() else ""
    hollow = "; hollow marks have one seed and no interval" if not known.all() else ""
    said = [
        f"{metric} on clean test images after training on noisy labels{bars}, over {style.span(data['seeds'], 'seed')} "
        f"and {style.span(data['images'], 'image')}{hollow}."
    ]
    if {"uniform-px", "gaussian-px"} & set(kinds):
        said.append("U(−L, L) stands at its standard deviation, L / √3, N(0, S²) at S; the data name L and S.")
    said.append(
        "Kinds and levels are ours: no source states those of the paper's figure. All losses saw the same wrong "
        "labels, drawn once. Overlapping bars are no test; the tables have it."
    )
    if len(set(data["label"])) > 1:
        said.append("Marks of one level stand a little apart so that no bar hides another: all belong to that level.")
    if len(near):
        said.append("Dashed: the constant count.")
    if len(far):
        values = sorted({style.measured(value) for value in (far["estimate"].min(), far["estimate"].max())})
        said.append(f"The constant count, {' to '.join(values)}, lies outside.")
    return " ".join(said)


def _told_apart(own: Mapping[str, Look], norms: Mapping[str, str]) -> dict[str, Look]:
    """The looks of the two norms, which are shades of one loss's elsewhere, with colours and dashes that differ."""
    return {
        label: look._replace(dash=()) if norms[label] == "L1" else look._replace(color=_APART, dash=(4, 1.3))
        for label, look in own.items()
    }


def _norm(axes: Axes, part: pd.DataFrame, column: str, look: Look) -> None:
    """One norm at one noise: seeds, mean, and the epochs whose weights are evaluated."""
    wide = part.set_index(["epoch", "run_id"])[column].unstack("run_id")  # noqa: PD010 - no aggregation
    for run in wide if wide.shape[1] > 1 else ():
        _line(axes, wide[run], color=look.color, ls=look.line, lw=0.5, alpha=0.7)
    _line(axes, wide.mean(axis=1).where(wide.notna().all(axis=1)), color=look.color, ls=look.line, lw=1.4)
    if column == "val_mae":
        chosen = part[part["picked"]]
        axes.plot(chosen["epoch"], chosen[column], ls="", zorder=4, **style.marks(look, 3.8))


def _line(axes: Axes, values: pd.Series, **kwargs: Any) -> None:
    values = values.dropna()
    axes.plot(values.index, values.to_numpy(), **kwargs)


def _norm_caption(data: pd.DataFrame, drawn: Sequence[str]) -> str:
    seeds = style.span(data.groupby(["noise", "label"])["run_id"].nunique(), "seed")
    thin = " (thin lines) and their mean" if not seeds.startswith("1 ") or " to " in seeds else ""
    lacking = data.groupby("run_id")["train_mae"].apply(lambda values: values.isna().all())
    below = ""
    if "train_mae" in drawn:
        below = " Below: the same on the training crops against the labels as trained on, noisy ones included"
        below += f"; {int(lacking.sum())} of {len(lacking)} runs did not keep it." if lacking.any() else "."
    else:
        below = " The MAE on training crops was not kept by these runs."
    return (
        "MAE on the clean validation images after each epoch, PML with the L1 and the L2 norm in its count term, equal "
        f"in all else, {seeds}{thin}; marks are the epochs whose weights are evaluated. L1 is solid and has PML's "
        f"colour, L2 is dashed and has one of its own, in this figure alone.{below} Noises and levels are ours: no "
        "source states those of the paper's figure."
    )
