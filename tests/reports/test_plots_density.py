"""Figures of sparse and dense crowds: what is drawn against the frame, and what they refuse."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reports import plots_density, style
from reports.density import binning, scored
from reports.style import Plot
from reports.units import Units
from tests.reports.test_plots import drawn_texts

pytestmark = pytest.mark.filterwarnings("error")
AXIS = "true count of the image (people)"


def density_frame(labels: list[str], seeds: int, images: int = 60, baseline: str | None = None) -> pd.DataFrame:
    """Losses whose errors grow with the count, the later ones more."""
    rng = np.random.default_rng(len(labels))
    true = np.round(rng.lognormal(4, 1, images)) * (np.arange(images) > 5)
    names = tuple(f"i{place:03d}" for place in range(images))
    samples = {}
    for place, label in enumerate(labels):
        predicted = true * (1 + (0.1 + 0.02 * place) * rng.standard_normal((seeds, images))) + rng.random(
            (seeds, images)
        )
        runs = tuple(f"{label}{seed}" for seed in range(seeds))
        samples[label] = Units(predicted, true, np.arange(images), names, tuple(range(seeds)), runs)
    return scored(binning("quantiles", true), samples, baseline=baseline)


def every(labels: list[str], seeds: int) -> list[Plot]:
    """All figures, each with a name of its own."""
    frame = density_frame(labels, seeds, baseline=labels[0])
    found = [plots_density.by_bin(frame, axis=AXIS), plots_density.in_panels(frame, "bias", axis=AXIS)]
    if seeds > 1:
        found.append(plots_density.in_panels(frame, axis=AXIS, baseline=labels[0]))
    shares = frame.assign(f1=1 / (1 + frame["mae"]), f1_low=0.1, f1_high=0.9)
    return [*found, plots_density.by_bin(shares, "f1", axis=AXIS)]


@pytest.mark.parametrize(("count", "seeds"), [(8, 3), (12, 2), (1, 1), (2, 2)])
def test_texts_lie_within_the_figure_and_apart(count: int, seeds: int) -> None:
    labels = [f"dm_count[solver=stabilised,reg={place}]" if place % 3 == 1 else f"l{place}" for place in range(count)]
    for plot in every(labels, seeds):
        width, height = plot.figure.get_size_inches() * plot.figure.dpi
        assert plot.figure.get_size_inches()[0] in (style.COLUMN, style.PAGE)
        texts = drawn_texts(plot)
        for place, (text, box) in enumerate(texts):
            assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.5, (plot.name, text)
            for other, b in texts[:place]:
                across, up = min(box.x1, b.x1) - max(box.x0, b.x0), min(box.y1, b.y1) - max(box.y0, b.y0)
                assert across < 1 or up < 1, (plot.name, text, other)


def test_marks_and_bars_are_the_frame() -> None:
    frame = density_frame(["a", "b"], 3, baseline="a")
    plot = plots_density.by_bin(frame, axis=AXIS)
    axes = plot.figure.axes[0]
    pd.testing.assert_series_equal(plot.data["mae"], frame["mae"])
    for line, label in zip(axes.lines, "ab", strict=True):
        np.testing.assert_allclose(line.get_ydata(), frame.loc[frame["label"] == label, "mae"])
    bars = [collection.get_segments() for collection in axes.collections[:2]]
    own = frame[frame["label"] == "b"]
    np.testing.assert_allclose([segment[1][1] for segment in bars[1]], own["mae_high"])
    texts = [text for text, _ in drawn_texts(plot)]
    assert f"0\nn = {int(frame['units'].iloc[0])}" in texts
    assert "95 % intervals over seeds and images" in plot.caption
    assert "3 seeds" in plot.caption
    assert "ours" in plot.caption


def test_differences_leave_the_baseline_out_and_have_a_scale_a_bin() -> None:
    frame = density_frame(["a", "b", "c"], 3, baseline="a")
    plot = plots_density.in_panels(frame, axis=AXIS, baseline="a")
    assert set(plot.data["label"]) == {"b", "c"}
    panels = plot.figure.axes
    assert len(panels) == frame["bin"].nunique()
    spans = [axes.get_xlim() for axes in panels]
    assert all(low < 0 < high for low, high in spans)
    assert spans[-1][1] - spans[-1][0] > 3 * (spans[1][1] - spans[1][0]), "dense bins err by more people"
    drawn = [line.get_xdata()[0] for axes in panels for line in axes.lines if line.get_marker() != "None"]
    np.testing.assert_allclose(drawn, plot.data["difference"])
    assert "not corrected" in plot.caption


def test_one_seed_has_no_bars_and_what_is_missing_is_said() -> None:
    frame = density_frame(["a", "b"], 1, baseline="a")
    assert "intervals" not in plots_density.by_bin(frame, axis=AXIS).caption
    with pytest.raises(ValueError, match="no bin has a finite difference"):
        plots_density.in_panels(frame, axis=AXIS, baseline="a")
    with pytest.raises(ValueError, match="lacks the columns.*f1"):
        plots_density.by_bin(frame, "f1", axis=AXIS)
    with pytest.raises(ValueError, match=r"no look is given for \['b'\]"):
        plots_density.by_bin(frame, axis=AXIS, looks=style.looks(["a"]))
