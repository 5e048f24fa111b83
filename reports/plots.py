"""Figures for a paper and for the HTML report: pure functions from data frames to `Plot`s, and `Plot`s as files.

Every function takes `looks`, the result of `style.looks` for all labels of a report, so that a loss looks the same in
every figure; without it the labels of the figure alone decide. Only rows of one comparable setting belong in a figure.
All figures, `save` and `svg` are used from here; those of summaries and of single images, and files, lie in
`plots_summary`, `plots_samples` and `plots_files`; those of studies in modules of their own, as `plots_density`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from reports import style
from reports.plots_files import save, svg
from reports.plots_samples import Example, samples
from reports.plots_summary import cost_error, critical_difference, performance_profile, ranking
from reports.style import GRID, LEFT, TEXT, Look, Plot

__all__ = [
    "Example",
    "Plot",
    "cost_error",
    "count_scatter",
    "critical_difference",
    "performance_profile",
    "ranking",
    "samples",
    "save",
    "svg",
    "training_curves",
]

Array = npt.NDArray[np.float64]
Looks = Mapping[str, Look] | None


@style.context()
def count_scatter(runs: pd.DataFrame, images: pd.DataFrame, *, looks: Looks = None) -> Plot:
    """Predicted against true count of every image, one panel a loss, as a density of hexagons.

    Axes are log(1 + count) where counts span more than 1.5 decades (ours), else linear; the same in all panels.

    Args:
        runs: Rows of `Store.load` of one setting, with `label`.
        images: `Store.images` of these runs.
        looks: See the module.

    Returns:
        `data` has `label, seed, run_id, id, true, predicted`; panels are sorted by MAE.

    Raises:
        ValueError: If a column is missing, a label has a seed twice, or no finite prediction is left.
    """
    rows = _predictions(runs, images)
    mae = _mae(rows)
    shown = style.chosen(looks, mae.index)
    counts = rows[["true", "predicted"]].to_numpy(float)
    log = bool((1 + counts.max()) / (1 + max(counts.min(), 0.0)) > 10**1.5)
    places = np.sign(counts) * np.log1p(np.abs(counts)) if log else counts  # a negative prediction has its place too
    pad = 0.05 * (places.max() - places.min()) or 1.0
    limits = (float(places.min() - pad), float(places.max() + pad))
    figure, panels = style.multiples(list(mae.index), right=0.52, lines=1)
    clouds = []
    for label, panel in panels.items():
        axes = panel.axes[0]
        for axis in (axes.xaxis, axes.yaxis):
            _count_ticks(axis, limits, log, most=4 if panel.width < 1.8 else 6)
        axes.plot(limits, limits, color=GRID, lw=0.7, ls=(0, (4, 2)), zorder=1)
        x, y = places[(rows["label"] == label).to_numpy()].T
        color = style.ramp(shown[label].color)
        cells: dict[str, Any] = {
            "gridsize": int(27 * panel.width),
            "extent": limits * 2,
            "mincnt": 1,
            "linewidths": 0.1,
        }
        clouds.append(axes.hexbin(x, y, cmap=color, rasterized=True, zorder=2, **cells))
        axes.set(xlim=limits, ylim=limits)
        style.write(figure, panel.left, panel.top + 0.06, f"MAE {_with_sd(*mae.loc[label, ['mean', 'sd']])}")
    most = max(float(np.max(np.asarray(cloud.get_array()))) for cloud in clouds)
    for cloud in clouds:
        cloud.set_norm(LogNorm(1, most) if most > 1 else Normalize(0, 1))
    if most > 1:
        last = list(panels.values())[min(len(panels), style.shape(len(panels))[1]) - 1]
        _density_bar(last.axes[0], most)
    _shared_titles(figure, "true count (people)", "predicted count (people)", right=0.52)
    caption = (
        f"Predicted against true count of {_images(rows)}, {_seeds(rows)} in one panel a loss; the stronger "
        f"the colour, the more images; the dashed line is a perfect count{', axes are log(1 + count)' if log else ''}. "
        f"MAE: mean{' and standard deviation' if mae['sd'].notna().any() else ''} over seeds, in people."
    )
    return Plot(rows, figure, caption, "count_scatter")


@style.context()
def training_curves(runs: pd.DataFrame, history: pd.DataFrame, *, looks: Looks = None) -> Plot:
    """Validation MAE and training loss per epoch: a pair of panels for each loss, thin lines its seeds.

    The training loss is divided by its first epoch's: losses have different units. The mean over seeds is drawn where
    every seed has a value; the grey band is the range of the other losses' means.

    Args:
        runs: Rows of `Store.load` of one setting, with `label`; `epoch` is the selected one.
        history: `Store.histories` of these runs.
        looks: See the module.

    Returns:
        `data` has `label, seed, run_id, epoch, val_mae, relative_loss, selected`; panels are sorted by the least value
        of the mean validation MAE.

    Raises:
        ValueError: If a column is missing, a label has a seed twice, or no validation MAE is finite.
    """
    data = _epochs(runs, history)
    means = {name: _mean_curves(data, name) for name in ("val_mae", "relative_loss")}
    order = list(means["val_mae"].min().fillna(np.inf).sort_values(kind="stable").index)
    shown = style.chosen(looks, order)
    figure, panels = style.multiples(order, [1.0, 0.62])
    many, long = len(data) > 1500, means["val_mae"].size > 300  # as paths, they would be megabytes of SVG
    for label, panel in panels.items():
        part, color = data[data["label"] == label], shown[label].color
        for axes, name in zip(panel.axes, means, strict=True):
            style.scale_axis(axes.yaxis, data[name], log_from=3, most=4)
            style.scale_axis(axes.xaxis, data["epoch"], log_from=np.inf, margin=0.04)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10], min_n_ticks=3))
            axes.grid(axis="y")
            others = means[name].drop(columns=label)
            axes.fill_between(
                others.index, others.min(axis=1), others.max(axis=1), color=GRID, alpha=0.2, lw=0, rasterized=long
            )
            _seed_curves(axes, part, name, color=color, lw=0.5, alpha=0.5, rasterized=many)
            _curve(axes, means[name][label], color=color, lw=1.5, rasterized=long)
            if panel.first:
                style.axis_titles(axes, y="val MAE (people)" if name == "val_mae" else "rel. loss")
        picked = part[part["selected"]]
        panel.axes[0].plot(picked["epoch"], picked["val_mae"], ls="", zorder=4, **style.marks(shown[label], 4.2))
    _shared_titles(figure, "epoch")
    seeds = _seeds(data) + (
        " (thin lines) and their mean" if data.groupby("label")["run_id"].nunique().max() > 1 else ""
    )
    rest = "; the grey band is the range of the other losses' means" if len(order) > 1 else ""
    caption = (
        f"Above: MAE on the validation images (people) after each epoch, {seeds}; markers are the epochs whose weights "
        f"are evaluated. Below: training loss as a share of its first epoch's{rest}."
    )
    return Plot(data, figure, caption, "training_curves")


# ---------------------------------------------------------------------------------------------------------------------
# From the store's frames to what is drawn


def _evaluated(runs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The evaluated runs, one row for each label and seed.

    Raises:
        ValueError: If there is none, or a label has a seed twice: then the rows are of more than one setting.
    """
    style.need(runs, ("run_id", "label", "seed", *columns), "runs")
    rows = runs.dropna(subset=list(columns[:1]))[["label", "seed", "run_id", *columns]]
    if rows.empty:
        raise ValueError(f"runs has no evaluated run: {columns[0]} is empty in all {len(runs)} rows")
    twice = rows[rows.duplicated(["label", "seed"])]
    if not twice.empty:
        label, seed = twice.iloc[0][["label", "seed"]]
        raise ValueError(f"{label!r} has more than one row with seed {seed}: pass the rows of one comparable setting")
    return rows


def _predictions(runs: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """True and predicted count of every image by every run, finite ones only."""
    evaluated = _evaluated(runs, ["eval_id"])
    style.need(images, ("run_id", "eval_id", "id", "true", "predicted"), "images")
    rows = evaluated.merge(images[["run_id", "eval_id", "id", "true", "predicted"]], on=["run_id", "eval_id"])
    if rows.empty:
        raise ValueError("images has no row of any run in runs: their run_id and eval_id do not meet")
    finite = np.isfinite(rows[["true", "predicted"]].astype(float)).all(axis=1)
    if not finite.any():
        raise ValueError(f"images has no finite count: all {len(rows)} predictions are NaN or infinite")
    rows = rows[["label", "seed", "run_id", "id", "true", "predicted"]][np.asarray(finite)]
    return rows.sort_values(["label", "seed", "id"], kind="stable", ignore_index=True)


def _mae(rows: pd.DataFrame) -> pd.DataFrame:
    """`mean` and `sd` over seeds of each label's MAE, sorted."""
    error = (rows["predicted"] - rows["true"]).abs()
    seeds = error.groupby([rows["label"], rows["run_id"]]).mean().groupby("label")
    return pd.DataFrame({"mean": seeds.mean(), "sd": seeds.std(ddof=1)}).sort_values("mean", kind="stable")


def _epochs(runs: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Validation MAE and relative training loss of every run and epoch."""
    evaluated = _evaluated(runs, ["epoch"]).rename(columns={"epoch": "picked"})
    style.need(history, ("run_id", "epoch", "loss", "val_mae"), "history")
    data = evaluated.merge(history[["run_id", "epoch", "loss", "val_mae"]], on="run_id")
    data = data.drop_duplicates(["run_id", "epoch"], keep="last")  # an epoch trained again after an interruption
    data = data.sort_values(["label", "seed", "epoch"], kind="stable", ignore_index=True)
    data[["loss", "val_mae"]] = data[["loss", "val_mae"]].astype(float).replace([np.inf, -np.inf], np.nan)
    if data["val_mae"].isna().all():
        raise ValueError(
            "history has no finite val_mae of any run in runs: nothing was validated, or run_id do not meet"
        )
    first = data.groupby("run_id")["loss"].transform("first")
    data["relative_loss"] = (data["loss"] / first).where(first > 0)  # a share of zero or less says nothing
    data["selected"] = data["epoch"] == data["picked"]
    return data[["label", "seed", "run_id", "epoch", "val_mae", "relative_loss", "selected"]]


def _mean_curves(data: pd.DataFrame, name: str) -> pd.DataFrame:
    """Mean over seeds of each label (columns) at each epoch where every seed has a value."""
    wide = data.set_index(["epoch", "label", "run_id"])[name].unstack(["label", "run_id"])  # noqa: PD010 - no aggregation
    return wide.T.groupby(level="label").mean().T.where(wide.notna().T.groupby(level="label").all().T)


def _curve(axes: Axes, values: pd.Series, **kwargs: Any) -> None:
    """A line through the values that are there."""
    values = values.dropna()
    axes.plot(values.index, values.to_numpy(), solid_capstyle="round", **kwargs)


def _seed_curves(axes: Axes, rows: pd.DataFrame, name: str, **kwargs: Any) -> None:
    """A line for each run through the values that are there, all as one broken line: there may be thousands."""
    rows = rows.dropna(subset=[name]).sort_values(["run_id", "epoch"], kind="stable")
    breaks = np.flatnonzero(rows["run_id"].to_numpy()[1:] != rows["run_id"].to_numpy()[:-1]) + 1
    epochs, values = (np.insert(rows[each].to_numpy(float), breaks, np.nan) for each in ("epoch", name))
    axes.plot(epochs, values, solid_capstyle="round", **kwargs)


def _images(rows: pd.DataFrame) -> str:
    return style.span([rows["id"].nunique()], "image")


def _seeds(rows: pd.DataFrame) -> str:
    return style.span(rows.groupby("label")["run_id"].nunique(), "seed")


def _with_sd(mean: float, sd: float) -> str:
    """Mean and standard deviation with the same number of decimals."""
    text = style.measured(mean)
    decimals = len(text.partition(".")[2])
    return text + (f" ± {sd:.{decimals}f}" if np.isfinite(sd) else "")


# ---------------------------------------------------------------------------------------------------------------------
# Parts of figures


def _count_ticks(axis: Axis, limits: tuple[float, float], log: bool, most: int) -> None:
    """Ticks of an axis of counts, or of log(1 + count)."""
    if not log:
        axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
        return
    low, high = np.expm1(limits)
    counts = ([0.0] if low < 0 else []) + style.log_ticks(max(low, 1.0), high, most)
    axis.set_major_locator(FixedLocator(list(np.log1p(counts))))
    axis.set_major_formatter(FixedFormatter([style.number(count) for count in counts]))


def _density_bar(beside: Axes, most: float) -> None:
    """The scale of hexagons: how many images they hold, in grey for panels of any colour."""
    inch = 1 / style.axes_width(beside)
    axes = beside.inset_axes((1 + 0.1 * inch, 0, 0.08 * inch, 1))
    norm = LogNorm(1, most)
    edges = np.geomspace(1, most, 65)
    shades = np.sqrt(edges[1:] * edges[:-1])[:, None]
    axes.pcolormesh([0, 1], edges, shades, cmap=style.ramp(GRID), norm=norm, rasterized=True)
    ticks = style.log_ticks(1, most, 4)
    axes.set(yscale="log", xticks=[])
    axes.yaxis.set(major_locator=FixedLocator(ticks), minor_locator=NullLocator())
    axes.yaxis.set_major_formatter(FixedFormatter([style.number(tick) for tick in ticks]))
    axes.tick_params(axis="y", right=True, left=False, labelright=True, labelleft=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_ylabel("images per hexagon", size=style.SMALL)
    axes.yaxis.set_label_coords(1 + 0.34 / 0.08, 0.5)


def _shared_titles(figure: Figure, x: str, y: str = "", right: float = 0.08) -> None:
    """Titles of the axes that all panels share, in the middle of them."""
    across, up = figure.get_size_inches()
    style.write(figure, (LEFT + across - right) / 2, 0.07, x, TEXT, ha="center")
    if y:
        middle = (style.FOOT + up) / 2
        style.write(figure, 0.14, middle, y, TEXT, rotation=90, rotation_mode="anchor", ha="center")
