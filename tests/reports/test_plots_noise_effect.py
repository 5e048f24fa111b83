"""Figures of `benchmark data noise`: what is drawn is what was measured, and nothing is drawn outside."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from reports import plots
from reports.plots_noise_effect import Labels, displacement, overlay
from reports.plots_sensitivity import levels, sensitivity
from runners.data import noise as makers
from tests.reports.test_plots import drawn_texts


def moves(noise: str, family: str | None, scale: float, count: int = 4000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    size = (count, 2)
    drawn = {"uniform": rng.uniform(-1, 1, size), "normal": rng.normal(size=size), None: np.zeros(size)}
    dx, dy = (np.nan_to_num(scale) * drawn[family]).T
    clipped = np.arange(count) % 10 == 0
    return pd.DataFrame(
        {"noise": noise, "id": "a", "dx": dx, "dy": dy, "family": family, "scale": scale, "clipped": clipped}
    )


def summary(noises: list[str], names: tuple[str, ...] = ("bl", "pml[count_norm=l2]")) -> pd.DataFrame:
    rows = [
        (name, noise, measure, 0.1 * i + 0.05 * j, 0.02, 0.1 * i + 0.05 * j - 0.04, 0.1 * i + 0.05 * j + 0.04, 12)
        for i, name in enumerate(names)
        for j, noise in enumerate(noises)
        for measure in ("gradient_shift", "preference_lost")
    ]
    return pd.DataFrame(rows, columns=["loss", "noise", "measure", "value", "se", "low", "high", "images"])


def test_bars_add_up_and_follow_what_was_asked_for() -> None:
    rows = pd.concat(
        [moves("uniform-px:8", "uniform", 8), moves("gaussian-px:4", "normal", 4), moves("missing:0.1", None, np.nan)]
    )
    plot = displacement(rows)
    assert list(dict.fromkeys(plot.data["noise"])) == ["uniform-px:8", "gaussian-px:4"]
    for _, part in plot.data.groupby("noise"):
        shares = part["moved"] + part["clipped"]
        assert shares.sum() == pytest.approx(1, abs=0.001)
        assert part["clipped"].sum() == pytest.approx(0.1, abs=0.001)
        assert part["requested"].sum() == pytest.approx(1, abs=0.005)
        assert (shares - part["requested"]).abs().max() < 0.01
    assert "ours" in plot.caption


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_key_lies_within_the_figure(count: int) -> None:
    plot = displacement(pd.concat([moves(f"uniform-px:{level}", "uniform", level) for level in range(1, count + 1)]))
    renderer = plot.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in plot.figure.texts}
    key = [boxes[name] for name in ("as trained on", "moved by the border", "asked for")]
    assert all(first.x1 < second.x0 for first, second in pairwise(key))
    assert key[-1].x1 <= plot.figure.bbox.x1
    assert min(box.y0 for box in key) >= 0


def test_a_share_of_the_height_is_a_mixture_over_images() -> None:
    rows = pd.concat([moves("uniform-height:0.1", "uniform", scale, n) for scale, n in ((4, 1000), (16, 3000))])
    plot = displacement(rows)
    inside = plot.data[plot.data["low"].between(-3.9, 3)]
    assert inside["requested"].to_numpy() == pytest.approx(0.25 * 0.8 / 8 + 0.75 * 0.8 / 32, rel=1e-6)


def test_noises_that_move_nobody_have_no_histogram() -> None:
    with pytest.raises(ValueError, match="no noise moves"):
        displacement(moves("missing:0.1", None, np.nan))


def labels(noise: str, keep: list[int], copies: list[int]) -> Labels:
    rng = np.random.default_rng(1)
    true = rng.uniform(5, 95, (60, 2))
    source = np.array([*keep, *copies], dtype=np.int64)
    image = rng.integers(0, 256, (100, 120, 3), dtype=np.uint8)
    return Labels(noise, "IMG_1", image, true, true[source] + 1.0, source)


def test_an_overlay_counts_its_marks_and_keeps_them_inside(tmp_path: Path) -> None:
    noises = [labels("uniform-px:2", list(range(60)), []), labels("missing:0.5", list(range(30)), []),
              labels("duplicate:0.1", list(range(60)), [0, 1])]  # fmt: skip
    plot = overlay(noises)
    assert plot.data[["missing", "duplicates"]].to_numpy().tolist() == [[0, 0], [30, 0], [0, 2]]
    picture = np.asarray(Image.open(plots.save(plot, tmp_path)[0]).convert("RGB")).astype(int)
    across = picture.shape[1] / 3
    red = (picture[..., 0] > 220) & (picture[..., 1] < 90) & (picture[..., 2] < 90)
    columns = np.nonzero(red[: int(0.85 * len(red))])[1]
    assert len(columns)
    assert ((columns > across) & (columns < 2 * across)).all()  # in the second panel alone heads are missing
    with pytest.raises(ValueError, match="several images"):
        overlay([noises[0], noises[1]._replace(id="IMG_2")])
    with pytest.raises(ValueError, match="no image"):
        overlay([])


@pytest.mark.parametrize("count", [0, 1, 25])
def test_sparse_images_are_shown_whole(count: int) -> None:
    one = labels("uniform-px:2", list(range(count)), [])
    plot = overlay([one._replace(true=one.true[:count])])
    assert "100 pixels wide" in plot.caption


def test_sensitivities_are_sorted_and_complete(tmp_path: Path) -> None:
    found = summary(["uniform-px:4", "uniform-px:8", "missing:0.1"])
    plot = sensitivity(found)
    assert len(plot.data) == 6
    assert "ours" in plot.caption
    text = plots.svg(plot)
    assert text.index("bl") < text.index("pml[count_norm=l2]")
    assert all(path.stat().st_size for path in plots.save(plot, tmp_path, ("png", "pdf", "svg")))


def test_levels_need_two_levels_of_a_kind() -> None:
    found = summary(["uniform-px:4", "uniform-px:8", "missing:0.1", "uniform-px:4+missing:0.1", "none"])
    curves = levels(found)
    assert curves is not None
    assert set(curves.data["kind"]) == {"uniform-px"}
    assert curves.caption.endswith("a single level: missing:0.1, uniform-px:4+missing:0.1, none.")
    assert "Shaded: 95 %" in curves.caption
    assert "Bars: 95 %" in sensitivity(found).caption
    assert sorted(set(curves.data["level"])) == [4, 8]
    assert levels(summary(["uniform-px:4", "missing:0.1"])) is None
    assert levels(summary(["none"])) is None


def test_axes_name_their_units() -> None:
    """Every kind of the runners, at the levels as they are typed; the measures are pure numbers and ours."""
    noises = [f"{kind}:{level}" for kind in makers.KINDS for level in (0.1, 0.2)]
    curves = levels(summary(noises))
    assert curves is not None
    titles = [axes.get_xlabel() for axes in curves.figure.axes if axes.get_xlabel()]
    assert sorted(titles) == sorted(
        ["half-width (share of image height)", "half-width (px)", "standard deviation (px)", "share of heads left out",
         "share of heads doubled"]
    )  # fmt: skip
    assert {axes.get_ylabel() for axes in curves.figure.axes} == {"", "preference lost (share, ours)"}
    dots = sensitivity(summary(noises), "gradient_shift")
    assert "gradient shift (ratio, ours)" in [text.get_text() for text in dots.figure.texts]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_levels_are_called_ours_in_the_figure_and_its_caption(count: int) -> None:
    """What names a level: in a line above all panels, within the figure and above their titles, or in each title."""
    noises = [f"uniform-height:{level}" for level in range(1, count + 1)]
    shifted = displacement(pd.concat([moves(noise, "uniform", 4) for noise in noises]))
    marked = overlay([labels(noise, list(range(60)), []) for noise in noises])
    for plot in (shifted, marked, sensitivity(summary(noises))):
        texts = dict(drawn_texts(plot))
        line = texts["annotation noise: kinds and levels ours"]
        width, height = plot.figure.get_size_inches() * plot.figure.dpi
        assert min(line.x0, width - line.x1, height - line.y1) > -0.5
        assert line.y0 >= max(texts[noise].y1 for noise in noises)
        assert "Kinds and levels are ours." in plot.caption
    curves = levels(summary([*noises, "uniform-height:9"]))
    assert curves is not None
    assert "uniform-height (levels ours)" in dict(drawn_texts(curves))
    assert "Kinds and levels are ours." in curves.caption


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_titles_of_axes_lie_within_the_figure_and_apart(count: int) -> None:
    noises = [f"{kind}:{level}" for kind in list(makers.KINDS)[:count] for level in (0.1, 0.2)]
    for draw in (levels, sensitivity):
        plot = draw(summary(noises))
        assert plot is not None
        texts = drawn_texts(plot)
        width, height = plot.figure.get_size_inches() * plot.figure.dpi
        for text, box in texts:
            assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.5, text
        for (one, a), (other, b) in combinations(texts, 2):
            assert min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1, (one, other)


def test_captions_have_the_terms() -> None:
    found = summary(["uniform-px:4", "uniform-px:8"])
    for draw in (sensitivity, levels):
        assert "Training crops of 12 images." in draw(found).caption  # type: ignore[union-attr]
        assert "16 crops of shanghaitech_b." in draw(found, terms="16 crops of shanghaitech_b.").caption  # type: ignore[union-attr]


def test_what_cannot_be_drawn_is_told() -> None:
    found = summary(["none"])
    with pytest.raises(ValueError, match="expected one of"):
        sensitivity(found, "robustness")
    with pytest.raises(ValueError, match="no value of rest"):
        sensitivity(found, "rest")
