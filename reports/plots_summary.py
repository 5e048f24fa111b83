"""Figures of summaries: ranking, cost, critical differences and performance profiles. See `reports.plots`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from reports import style
from reports.style import COLUMN, FOOT, GRID, INK, LEFT, LINE, PAGE, Look, Plot

__all__ = ["cost_error", "critical_difference", "performance_profile", "ranking"]

Looks = Mapping[str, Look] | None

_COSTS = {
    "loss_ms": ("time in the loss (ms/step)", "the time that a training step spends in the loss"),
    "alone_ms": ("time of the loss alone (ms)", "the time of a forward and backward pass of the loss alone"),
    "step_ms": ("time of a step (ms/step)", "the time of a training step"),
    "peak_rss_mib": ("peak resident memory (MiB)", "the peak resident memory of the training process"),
}


@style.context()
def ranking(
    intervals: pd.DataFrame,
    constant: float | None = None,
    *,
    looks: Looks = None,
    metric: str = "MAE",
    unit: str = "people",
    interval: str = "its interval",
    highest: bool = False,
) -> Plot:
    """Estimates with their intervals, the least (or the highest) on top.

    A grey band continues the interval of the first estimate. That another interval meets it is no test; see
    `reports.measured.Comparisons`. A hollow marker has no interval.

    Args:
        intervals: `label`, `estimate`, `low`, `high` (NaN where there is no interval, as of one seed), `seeds`.
        constant: The same metric of the constant count: a dashed line, or a note where it lies far outside.
        looks: See `reports.plots`.
        metric: What is estimated.
        unit: Its unit, for the axis.
        interval: What the lines are, for the caption, such as `95% bootstrap interval over seeds`.
        highest: Whether the highest estimate is the best, and on top.

    Returns:
        `data` is sorted and has `overlaps_best` besides (NA without an interval).

    Raises:
        ValueError: If a column is missing, a label stands twice, an interval is upside down, or no estimate is finite.
    """
    data = _estimates(intervals)
    data = data.iloc[::-1].reset_index(drop=True) if highest else data
    best, known = data.iloc[0], data["low"].notna() & data["high"].notna()
    ties = ((data["low"] <= best["high"]) & (data["high"] >= best["low"])).astype("boolean")
    data["overlaps_best"] = ties.where(known & bool(known.iloc[0]))
    shown = style.chosen(looks, data["label"])
    names = [style.wrap(label, 1.15) for label in data["label"]]
    heights = [LINE * len(lines) + 0.07 for lines in names]
    left = max(style.text_width(line) for lines in names for line in lines) + 0.1
    tall = sum(heights) + 0.04
    figure = style.sheet(COLUMN, FOOT + tall + 0.2)
    axes = style.place(figure, left, FOOT, COLUMN - left - 0.85, tall)
    ends = data[["estimate", "low", "high"]].to_numpy(float)
    reach = np.nanmax(ends) - np.nanmin(ends) or abs(np.nanmax(ends))
    near = constant is not None and np.nanmin(ends) - reach <= constant <= np.nanmax(ends) + reach
    style.scale_axis(
        axes.xaxis, [*ends.ravel(), constant if near and constant is not None else np.nan], log_from=20, margin=0.08
    )
    axes.set(ylim=(0, tall), xlabel=_titled(metric, unit))
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    if known.iloc[0]:
        axes.axvspan(best["low"], best["high"], color=GRID, alpha=0.25, lw=0, zorder=0)
    y = FOOT + tall - 0.02
    for row, name, height in zip(data.to_dict("records"), names, heights, strict=True):
        y -= height / 2
        look, solid = shown[row["label"]], np.isfinite(row["low"])
        if solid:
            axes.plot([row["low"], row["high"]], [y - FOOT] * 2, color=look.color, lw=1.6, solid_capstyle="butt")
        hollow = {} if solid else {"mfc": "none", "mec": look.color, "mew": 1}
        axes.plot(row["estimate"], y - FOOT, **style.marks(look, 4.6) | hollow)
        style.write_lines(figure, left - 0.06, y + LINE * len(name) / 2, name, ha="right")
        style.write(figure, COLUMN - 0.42, y - 0.035, style.measured(row["estimate"]), ha="right")
        style.write(figure, COLUMN - 0.1, y - 0.035, f"{row['seeds']:.0f}", ha="right")
        y -= height / 2
    style.write(figure, COLUMN - 0.42, FOOT + tall + 0.04, metric, ha="right")
    style.write(figure, COLUMN - 0.02, FOOT + tall + 0.04, "seeds", ha="right")
    if constant is not None:
        _constant(axes, constant, near)
    lines = f" with {interval} (lines)" if known.any() else ""
    single = "; hollow markers have no interval" if not known.all() else ""
    band = (
        " The band continues the first; intervals may overlap where a paired test separates." if known.iloc[0] else ""
    )
    caption = f"{metric} (markers){lines} over {style.span(data['seeds'], 'seed')}{single}.{band}"
    return Plot(data, figure, caption, "ranking")


@style.context()
def cost_error(
    costs: pd.DataFrame,
    x: str = "loss_ms",
    *,
    looks: Looks = None,
    metric: str = "MAE",
    unit: str = "people",
    interval: str = "its interval",
) -> Plot:
    """Error against cost, one marker a loss, its name beside it.

    Args:
        costs: As `intervals` of `ranking`, and the column `x`.
        x: `loss_ms`, `alone_ms`, `step_ms` or `peak_rss_mib`; logarithmic where it spans more than a decade.
        looks: See `reports.plots`.
        metric: See `ranking`.
        unit: See `ranking`.
        interval: See `ranking`.

    Returns:
        `data` has `label, <x>, estimate, low, high, seeds`, sorted by the estimate; losses without a cost are left out.

    Raises:
        ValueError: As `ranking`, or if x is no cost, or none is finite.
    """
    if x not in _COSTS:
        raise ValueError(f"x is {x!r}; expected one of {list(_COSTS)}")
    style.need(costs, (x,), "costs")
    data = _estimates(costs[np.isfinite(costs[x].astype(float))], f"costs with a finite {x}", (x,))
    shown = style.chosen(looks, data["label"])
    names = [style.wrap(label, 1.0) for label in data["label"]]
    heights = [LINE * len(lines) + 0.02 for lines in names]
    column = max(style.text_width(line) for lines in names for line in lines) + 0.14
    tall = max(1.9, 1.2 * sum(heights))
    figure = style.sheet(COLUMN, FOOT + tall + 0.06)
    axes = style.place(figure, LEFT, FOOT, COLUMN - LEFT - column - 0.28, tall)
    style.scale_axis(axes.yaxis, data[["estimate", "low", "high"]], log_from=10)
    style.scale_axis(axes.xaxis, data[x], log_from=10, margin=0.08, most=4)
    axes.grid()
    style.axis_titles(axes, x=_COSTS[x][0], y=_titled(metric, unit))
    points = axes.transData.transform(data[[x, "estimate"]].to_numpy(float)) / figure.dpi
    places = FOOT + tall - style.spread(FOOT + tall - points[:, 1], heights, 0.0, tall)
    for row, point, y, lines in zip(data.to_dict("records"), points, places, names, strict=True):
        look, left = shown[row["label"]], COLUMN - column
        axes.plot([row[x]] * 2, [row["low"], row["high"]], color=look.color, lw=1.4, zorder=3)
        axes.plot(row[x], row["estimate"], zorder=4, **style.marks(look, 4.6))
        _line(
            figure,
            [point[0], left - 0.14, left - 0.02],
            [point[1], y, y],
            color=look.color,
            lw=0.6,
            alpha=0.7,
            zorder=-1,
        )
        _line(figure, [left + 0.04], [y], ls="", **style.marks(look, 4.0))
        style.write_lines(figure, left + 0.11, y + LINE * len(lines) / 2, lines)
    bars = f"; lines are {interval}" if data["low"].notna().any() else ""
    caption = (
        f"{metric} against {_COSTS[x][1]}, both over {style.span(data['seeds'], 'seed')}{bars}. Lower left is better."
    )
    return Plot(data, figure, caption, f"cost_error_{x}")


@style.context()
def critical_difference(
    labels: Sequence[str],
    mean_ranks: Sequence[float],
    critical_difference: float | None,
    groups: Iterable[Iterable[str]],
    *,
    looks: Looks = None,
    over: str = "",
) -> Plot:
    """The critical difference diagram (Demsar, JMLR 2006): mean ranks on an axis, best on the left.

    Args:
        labels: The losses.
        mean_ranks: Of each, 1 is best.
        critical_difference: Mean ranks that differ by more are told apart; None where the test has no such number.
        groups: Sets of labels that are not told apart, each a thick bar; sets of one are not drawn.
        looks: See `reports.plots`.
        over: What the ranks are a mean of, for the caption, such as `the 316 test images`.

    Returns:
        `data` has `label, mean_rank, groups` (numbers of the bars that hold the label, from 1), sorted.

    Raises:
        ValueError: If there is no label, one stands twice, a rank is not within 1 to their number, the critical
            difference is not positive, or a group has an unknown label.
    """
    data, bars = _ranked(labels, mean_ranks, groups)
    if critical_difference is not None and not critical_difference > 0:
        raise ValueError(f"critical_difference is {critical_difference}; expected a positive number or None")
    shown, count = style.chosen(looks, data["label"]), len(data)
    half = -(-count // 2)
    widths = [style.text_width(f"{label}  0.00") + 0.16 for label in data["label"]]
    left, right = max(widths[:half]), max(widths[half:], default=0.16)
    width = COLUMN if COLUMN - left - right >= 1.4 else PAGE
    levels = _levels(bars)
    first = 0.5 + 0.1 * (max(levels, default=-1) + 1) + 0.16
    height = first + 0.17 * (half - 1) + 0.12
    figure = style.sheet(width, height)
    axes = style.place(figure, 0, 0, width, height, xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()

    def across(rank: float) -> float:
        return left + (width - left - right) * (rank - 1) / max(count - 1, 1)

    for rank in range(1, count + 1):
        axes.plot([across(rank)] * 2, [0.5, 0.45], color=INK, lw=0.6)
        axes.text(across(rank), 0.42, f"{rank}", size=style.SMALL, ha="center", va="baseline")
    axes.plot([across(1), across(count)], [0.5, 0.5], color=INK, lw=0.8, solid_capstyle="butt")
    if critical_difference is not None and count > 1:
        ends = [across(1), across(1 + min(critical_difference, count - 1))]
        axes.plot(ends, [0.2, 0.2], color=INK, lw=0.8, marker="|", ms=4, mew=0.8)
        axes.text(ends[1] + 0.06, 0.235, f"CD {critical_difference:.2f}", size=style.SMALL)
    for (low, high), level in zip(bars, levels, strict=True):
        y = 0.5 + 0.1 * (level + 1)
        ends = [across(low) - 0.035, across(high) + 0.035]
        axes.plot(ends, [y, y], color=INK, lw=2.4, solid_capstyle="butt", zorder=3)
    for i, row in enumerate(data.to_dict("records")):
        look, x, best = shown[row["label"]], across(row["mean_rank"]), i < half
        y = first + 0.17 * (i if best else count - 1 - i)
        edge = left - 0.1 if best else width - right + 0.1
        axes.plot([x, x, edge], [0.5, y, y], color=look.color, lw=0.9)
        axes.plot(x, 0.5, zorder=4, clip_on=False, **style.marks(look))
        text = f"{row['label']}  {row['mean_rank']:.2f}" if best else f"{row['mean_rank']:.2f}  {row['label']}"
        axes.text(edge + (-0.04 if best else 0.04), y + 0.035, text, size=style.SMALL, ha="right" if best else "left")
    told = "" if critical_difference is None else f" CD: the critical difference, {critical_difference:.2f}."
    caption = (
        f"Mean rank{f' over {over}' if over else ''}, 1 is best. Losses under one thick bar are not told apart.{told}"
    )
    return Plot(data, figure, caption, "critical_difference")


@style.context()
def performance_profile(
    curves: pd.DataFrame,
    *,
    looks: Looks = None,
    threshold: str = "threshold",
    share: str = "share",
    over: str = "",
) -> Plot:
    """For each loss, the share of cases within each threshold, as steps.

    Args:
        curves: `label`, `threshold`, `share` (0 to 1, of the cases with a value of at most the threshold).
        looks: See `reports.plots`.
        threshold: Title of the lower axis, with its unit.
        share: Title of the left axis.
        over: What the cases are, for the caption, such as `316 images, 5 seeds each`.

    Returns:
        `data` is sorted by label and threshold; rows that are not finite are left out.

    Raises:
        ValueError: If a column is missing, nothing is finite, or a share is not within 0 and 1.
    """
    style.need(curves, ("label", "threshold", "share"), "curves")
    data = curves[["label", "threshold", "share"]].replace([np.inf, -np.inf], np.nan).dropna()
    if data.empty:
        raise ValueError(f"curves has no finite point: all {len(curves)} rows hold NaN or infinity")
    if not data["share"].between(0, 1).all():
        raise ValueError(f"share goes from {data['share'].min():g} to {data['share'].max():g}; expected 0 to 1")
    data = data.sort_values(["label", "threshold"], kind="stable", ignore_index=True)
    order = list(data.groupby("label")["share"].mean().sort_values(ascending=False, kind="stable").index)
    shown = style.chosen(looks, order)
    across = COLUMN if len(order) <= 8 else PAGE
    foot = 0.46 + style.legend_height(order, across - LEFT, line=True)
    figure = style.sheet(across, foot + 1.9)
    axes = style.place(figure, LEFT, foot, across - LEFT - 0.12, 1.84)
    style.scale_axis(axes.xaxis, data["threshold"], log_from=10, margin=0.0)
    axes.set(ylim=(-0.02, 1.03), yticks=np.linspace(0, 1, 6))
    axes.grid()
    style.axis_titles(axes, x=threshold, y=share)
    for i, label in enumerate(order):
        part, look = data[data["label"] == label], shown[label]
        every = (0.04 + 0.1 * i / len(order), 0.22)  # markers of one loss between those of the others
        marks = style.marks(look, 3.6) | {"markevery": every}
        steps = "steps-post" if len(part) <= 50 else "default"  # where steps are finer than the dashes
        axes.plot(part["threshold"], part["share"], ds=steps, ls=look.line, color=look.color, lw=1.1, **marks)
    style.legend(figure, shown, left=LEFT, top=foot - 0.4, line=True)
    caption = f"Share of {over or 'cases'} within each threshold ({threshold}): higher is better."
    return Plot(data, figure, caption, "performance_profile")


# ---------------------------------------------------------------------------------------------------------------------


def _estimates(frame: pd.DataFrame, what: str = "intervals", besides: Sequence[str] = ()) -> pd.DataFrame:
    """The finite estimates, sorted, each label once; see `ranking`."""
    columns = ["label", *besides, "estimate", "low", "high", "seeds"]
    style.need(frame, columns, what)
    data: pd.DataFrame = frame[columns].astype(dict.fromkeys(columns[1:], float))
    data = data[np.isfinite(data["estimate"])]
    if data.empty:
        raise ValueError(f"{what} has no finite estimate: all {len(frame)} are NaN or infinite")
    if data["label"].duplicated().any():
        raise ValueError(f"{what} has more than one row of {data['label'][data['label'].duplicated()].iloc[0]!r}")
    if (data["low"] > data["high"]).any():
        raise ValueError(
            f"{what} has an interval with low above high: {data[data['low'] > data['high']].to_dict('records')}"
        )
    data = data.astype({"seeds": int}).sort_values(["estimate", "label"], ignore_index=True)
    unknown = ~np.isfinite(data[["low", "high"]].to_numpy(float)).all(axis=1)
    data.loc[unknown, ["low", "high"]] = np.nan
    return data


def _titled(metric: str, unit: str) -> str:
    return f"{metric} ({unit})" if unit else metric


def _constant(axes: Axes, constant: float, near: bool) -> None:
    """The reference of `ranking`: a line where it is near, else an arrow's head with the number."""
    text = f"constant count {style.measured(constant)}"
    high = axes.get_xlim()[1]
    share = axes.transAxes.inverted().transform(axes.transData.transform((constant, 0)))[0] if near else constant > high
    if near:
        axes.axvline(constant, color=INK, lw=0.8, ls=(0, (4, 2)))
    elif constant > high:
        text += " →"
    else:
        text = f"← {text}"
    side = "right" if share > 0.5 else "left"
    axes.annotate(
        text, (share, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points", ha=side, size=style.SMALL
    )


def _line(figure: Figure, x: Sequence[float], y: Sequence[float], **kwargs: object) -> None:
    """A line at places in inches."""
    across, up = figure.get_size_inches()
    figure.add_artist(Line2D(np.asarray(x) / across, np.asarray(y) / up, transform=figure.transFigure, **kwargs))  # type: ignore[arg-type]


def _ranked(
    labels: Sequence[str], mean_ranks: Sequence[float], groups: Iterable[Iterable[str]]
) -> tuple[pd.DataFrame, list[tuple[float, float]]]:
    """The checked ranks, sorted, and the ends of the groups' bars."""
    count = len(labels)
    if not count or len(set(labels)) != count or len(mean_ranks) != count:
        raise ValueError(
            f"{count} labels ({len(set(labels))} different) and {len(mean_ranks)} mean ranks; expected as many"
        )
    if not all(1 <= rank <= count for rank in mean_ranks):
        raise ValueError(f"mean ranks {list(mean_ranks)} are not within 1 and {count}, the number of labels")
    data = pd.DataFrame({"label": list(labels), "mean_rank": np.asarray(mean_ranks, float)})
    data = data.sort_values(["mean_rank", "label"], ignore_index=True)
    rank = dict(zip(data["label"], data["mean_rank"], strict=True))
    sets = [set(group) for group in groups]
    if unknown := set().union(*sets) - set(labels):
        raise ValueError(f"groups name {sorted(unknown)}, which are no labels; expected some of {list(labels)}")
    sets = sorted((group for group in sets if len(group) > 1), key=lambda group: sorted(rank[name] for name in group))
    data["groups"] = [" ".join(str(i + 1) for i, group in enumerate(sets) if label in group) for label in data["label"]]
    return data, [(min(rank[name] for name in group), max(rank[name] for name in group)) for group in sets]


def _levels(bars: Sequence[tuple[float, float]]) -> list[int]:
    """For each bar, from the left, the first level where it meets no other."""
    ends: list[float] = []
    found = []
    for low, high in bars:
        level = next((i for i, end in enumerate(ends) if low > end + 0.15), len(ends))
        ends[level : level + 1] = [high]
        found.append(level)
    return found
