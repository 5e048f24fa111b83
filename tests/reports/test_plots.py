"""Each figure alone: what it says against numbers computed by hand, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from reports import plots, style
from reports.plots import Example, Plot

pytestmark = pytest.mark.filterwarnings("error")


def intervals(runs: pd.DataFrame) -> pd.DataFrame:
    """Estimates and made-up costs of every label; the range over seeds stands for an interval."""
    mae = runs.groupby("label")["mae"].agg(["mean", "count", "min", "max"]).reset_index()
    some = mae["count"] > 1
    return pd.DataFrame(
        {"label": mae["label"], "estimate": mae["mean"], "low": mae["min"].where(some), "high": mae["max"].where(some)}
        | {"seeds": mae["count"], "loss_ms": np.geomspace(3, 90, len(mae)), "step_ms": np.linspace(100, 180, len(mae))}
        | {"peak_rss_mib": 800.0}
    )


def example(title: str = "worst", shape: tuple[int, int] = (130, 200), people: int = 9, **changes: Any) -> Example:
    rng = np.random.default_rng(people)
    height, width = shape
    image = np.stack(np.broadcast_arrays(np.arange(width), 128, np.arange(height)[:, None]), axis=2).astype(np.uint8)
    density = np.full((-(-height // 8), -(-width // 8)), 0.01)
    window = rng.normal(0, 5, (-(-height // 64), -(-width // 64)))
    points = rng.random((people, 2)) * (width, height)
    return Example(title, "IMG_1", image, points, density, 8, None, people, people + 2.5, window)._replace(**changes)


def drawn_texts(plot: Plot) -> list[tuple[str, Any]]:
    """Every text that is drawn, with its extents in pixels; ticks outside the limits have texts that are not drawn."""
    with style.context():
        plot.figure.canvas.draw()
        hidden = set()
        for axes in plot.figure.findobj(matplotlib.axes.Axes):
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                for tick, place in zip(axis.get_major_ticks(), axis.get_majorticklocs(), strict=False):
                    inside = low - 1e-9 <= place <= high + 1e-9 and axes.axison
                    hidden |= set() if inside else {tick.label1, tick.label2}
        texts = [text for text in plot.figure.findobj(Text) if text.get_visible() and text.get_text()]
        return [(text.get_text(), text.get_window_extent()) for text in texts if text not in hidden]


# ---- single figures, by hand


def small(predicted: dict[tuple[str, int], list[float]], true: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    runs = pd.DataFrame(
        [{"run_id": f"{a}{s}", "eval_id": "e", "label": a, "seed": s, "epoch": 2} for a, s in predicted]
    )
    rows = [
        {"run_id": f"{a}{s}", "eval_id": "e", "id": f"i{i}", "true": t, "predicted": p}
        for (a, s), values in predicted.items()
        for i, (t, p) in enumerate(zip(true, values, strict=True))
    ]
    return runs, pd.DataFrame(rows)


def test_count_scatter_has_linear_axes_for_counts_of_one_size() -> None:
    plot = plots.count_scatter(*small({("a", 0): [50.0, 60.0, 71.0]}, [50, 60, 70]))
    assert "log" not in plot.caption
    assert "MAE 0.333" in [text for text, _ in drawn_texts(plot)]
    low, high = plot.figure.axes[0].get_xlim()
    assert low < 50
    assert 71 < high < 80
    assert plot.figure.axes[0].get_ylim() == (low, high)


def test_training_curves() -> None:
    runs, _ = small({("a", 0): [1.0], ("a", 1): [1.0]}, [1])
    history = pd.DataFrame({"run_id": ["a0"] * 3 + ["a1"] * 3, "epoch": [1, 2, 3] * 2, "loss": [4.0, 2, 1, 8, 6, 4]})
    history["val_mae"] = [30.0, 20, np.nan, 50, 10, 5]
    plot = plots.training_curves(runs, history)
    assert list(plot.data["relative_loss"]) == [1, 0.5, 0.25, 1, 0.75, 0.5]
    assert list(plot.data["selected"]) == [False, True, False] * 2
    above, below = plot.figure.axes
    lines = [line.get_ydata().tolist() for line in above.lines]
    seeds = [30, 20, np.nan, 50, 10, 5]
    np.testing.assert_array_equal(lines[0], seeds)
    assert lines[1:] == [[40, 15], [20, 10]], "after the two seeds their mean, and the selected epochs"
    assert below.lines[1].get_ydata().tolist() == [1, 0.625, 0.375]
    negative = plots.training_curves(runs, history.assign(loss=-1.0))
    assert negative.data["relative_loss"].isna().all()


def test_ranking() -> None:
    frame = pd.DataFrame(
        {"label": ["c", "a", "b", "d"], "estimate": [30.0, 10, 12, 20], "low": [28.0, 8, 11, np.nan]}
        | {"high": [32.0, 11, 14, np.nan], "seeds": [3, 3, 3, 1]}
    )
    plot = plots.ranking(frame, constant=35.0, interval="95% interval")
    assert list(plot.data["label"]) == ["a", "b", "d", "c"]
    assert plot.data["overlaps_best"].tolist() == [True, True, pd.NA, False]
    assert "1 to 3 seeds" in plot.caption
    assert "95% interval" in plot.caption
    assert "no interval" in plot.caption
    bold = {text.get_text() for text in plot.figure.findobj(Text) if text.get_weight() == "bold"}
    assert bold == set()  # in bold stands only what a test separates: no overlap of intervals
    assert [line.get_xdata()[0] for line in plot.figure.axes[0].lines][-1] == 35.0
    far = plots.ranking(frame, constant=500.0)
    assert far.figure.axes[0].get_xlim()[1] < 40
    assert "constant count 500 →" in [text for text, _ in drawn_texts(far)]


def test_cost_error_refuses() -> None:
    costs = intervals(pd.DataFrame({"label": ["a", "b"], "mae": [1.0, 2.0]}))
    with pytest.raises(ValueError, match="expected one of"):
        plots.cost_error(costs, "price")
    with pytest.raises(ValueError, match="finite loss_ms"):
        plots.cost_error(costs.assign(loss_ms=np.nan))
    one = plots.cost_error(costs.assign(loss_ms=[np.nan, 3.0]))
    assert one.data[["label", "loss_ms"]].to_numpy().tolist() == [["b", 3.0]]


def test_critical_difference() -> None:
    plot = plots.critical_difference(
        ["a", "b", "c", "d"], [3.5, 1.2, 2.0, 3.3], 1.5, [["b", "c"], ["c", "d", "a"], ["a"]]
    )
    assert list(plot.data["label"]) == ["b", "c", "d", "a"]
    assert list(plot.data["groups"]) == ["1", "1 2", "2", "2"]
    bars = [line for line in plot.figure.axes[0].lines if line.get_linewidth() > 2]
    ticks = [line.get_xdata()[0] for line in plot.figure.axes[0].lines[:4]]
    ends = [np.interp(np.add(bar.get_xdata(), (0.035, -0.035)), ticks, [1, 2, 3, 4]) for bar in bars]
    np.testing.assert_allclose(ends, [[1.2, 2.0], [2.0, 3.5]])
    assert bars[0].get_ydata()[0] != bars[1].get_ydata()[0], "bars that meet are on two levels"
    length = np.diff(plot.figure.axes[0].lines[5].get_xdata())[0]
    assert length == pytest.approx(1.5 * (ticks[1] - ticks[0]))
    for wrong in (
        ([], [], 1.0, []),
        (["a"], [2.0], 1.0, []),
        (["a", "b"], [1, 2], 0.0, []),
        (["a"], [1], 1.0, [["x"]]),
    ):
        with pytest.raises(ValueError, match="expected|not within"):
            plots.critical_difference(*wrong)


def test_performance_profile() -> None:
    curves = pd.DataFrame({"label": ["b", "b", "a", "a"], "threshold": [2.0, 1, 1, 2], "share": [0.5, 0.2, 0.4, 1.0]})
    plot = plots.performance_profile(curves)
    assert plot.data.to_numpy().tolist() == [["a", 1.0, 0.4], ["a", 2.0, 1.0], ["b", 1.0, 0.2], ["b", 2.0, 0.5]]
    lines = plot.figure.axes[0].lines
    assert [line.get_ydata().tolist() for line in lines] == [[0.4, 1.0], [0.2, 0.5]]
    assert all(line.get_drawstyle() == "steps-post" for line in lines)
    with pytest.raises(ValueError, match="0 to 1"):
        plots.performance_profile(curves.assign(share=50.0))


def test_samples() -> None:
    dense = example("worst", (128, 192), 400, density=np.full((8, 12), 0.05), stride=16)
    plot = plots.samples([dense, example("best", people=0, window_error=np.zeros((3, 4)))])
    assert plot.data.to_numpy().tolist() == [["worst", "IMG_1", 400, 402.5, 2.5], ["best", "IMG_1", 0, 2.5, 2.5]]
    picture, density, errors = plot.figure.axes[:3]
    np.testing.assert_array_equal(picture.images[0].get_array(), dense.image)
    np.testing.assert_allclose(density.images[0].get_array(), 0.05 * 16)  # a 64 x 64 px window holds 16 such cells
    assert density.images[0].get_extent() == [0, 192, 128, 0]
    np.testing.assert_array_equal(np.reshape(errors.collections[0].get_array(), (2, 3)), dense.window_error)
    few = plots.samples([example(people=4)]).figure.axes[0].collections[0].get_sizes()[0]
    assert picture.collections[0].get_sizes()[0] < few
    for change in ({"points": np.ones((2, 3))}, {"density": np.ones(4)}, {"window_error": np.ones((2, 2))}):
        with pytest.raises(ValueError, match="IMG_1.*expected"):
            plots.samples([example(**change)])


# ---- what is missing or degenerate


def test_without_predictions() -> None:
    runs, images = small({("a", 0): [1.0]}, [1])
    for wrong, match in (
        ((runs.iloc[:0], images), "runs has no rows"),
        ((pd.DataFrame(), images), "lacks the columns.*run_id"),
        ((runs.assign(eval_id=None), images), "no evaluated run"),
        ((runs, images.iloc[:0]), "images has no rows"),
        ((runs, images.assign(run_id="x")), "do not meet"),
        ((runs, images.assign(predicted=np.nan)), "no finite count"),
        ((pd.concat([runs, runs]), images), "more than one row with seed 0"),
    ):
        with pytest.raises(ValueError, match=match):
            plots.count_scatter(*wrong)


def test_without_curves_estimates_or_examples() -> None:
    runs, _ = small({("a", 0): [1.0]}, [1])
    history = pd.DataFrame({"run_id": ["a0"], "epoch": [1], "loss": [1.0], "val_mae": [np.nan]})
    with pytest.raises(ValueError, match="no finite val_mae"):
        plots.training_curves(runs, history)
    with pytest.raises(ValueError, match="val_mae"):
        plots.training_curves(runs, history.drop(columns="val_mae"))
    bad = pd.DataFrame({"label": ["a"], "estimate": [np.nan], "low": [1.0], "high": [2.0], "seeds": [1]})
    with pytest.raises(ValueError, match="no finite estimate"):
        plots.ranking(bad)
    with pytest.raises(ValueError, match="low above high"):
        plots.ranking(bad.assign(estimate=1.0, low=3.0))
    with pytest.raises(ValueError, match="more than one row of 'a'"):
        plots.ranking(pd.concat([bad, bad]).assign(estimate=1.0))
    with pytest.raises(ValueError, match="no finite point"):
        plots.performance_profile(pd.DataFrame({"label": ["a"], "threshold": [np.nan], "share": [0.5]}))
    with pytest.raises(ValueError, match="examples is empty"):
        plots.samples([])


@pytest.mark.parametrize(
    ("true", "predicted"),
    [([0], [0.0]), ([5], [np.inf]), ([0, 0], [0.0, 1e6]), ([7, 7], [7.0, -1.0]), ([0, 200], [-1.0, 150.0])],
)
def test_one_image_zero_counts_and_identical_values(true: list[int], predicted: list[float], tmp_path: Path) -> None:
    runs, images = small({("a", 0): predicted, ("a", 1): predicted, ("b", 0): [1.0] * len(true)}, true)
    history = pd.DataFrame({"run_id": ["a0", "a1", "b0"], "epoch": 1, "loss": 0.0, "val_mae": 0.0})
    same = pd.DataFrame({"label": ["a", "b"], "estimate": 0.0, "low": 0.0, "high": 0.0, "seeds": 2, "loss_ms": 0.0})
    found = [
        plots.count_scatter(runs, images),
        plots.training_curves(runs, history),
    ]
    found += [plots.ranking(same, 0.0), plots.cost_error(same), plots.critical_difference(["a"], [1], None, [])]
    found.append(plots.performance_profile(pd.DataFrame({"label": ["a"], "threshold": [1.0], "share": [1.0]})))
    found.append(plots.samples([example(people=1, density=np.zeros((17, 25)), window_error=np.zeros((3, 4)))]))
    for plot in found:
        assert plots.save(plot, tmp_path, ["png"])[0].stat().st_size > 1000
        assert not plot.data.empty
