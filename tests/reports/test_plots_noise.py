"""Figures of the study of noise: what is drawn against the data, and that all of it can be read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from reports import plots, style
from reports.plots_noise import error_by_noise, norms_by_epoch
from reports.style import Plot
from tests.reports.test_plots import drawn_texts

pytestmark = pytest.mark.filterwarnings("error")

LABELS = ("bl", "dm_count[solver=stabilised]", "l2", "pml", "pml[count_norm=l2]")


def errors(kinds: dict[str, Sequence[float]], labels: Sequence[str] = LABELS, size: float = 30.0) -> pd.DataFrame:
    """Made-up errors: level and place are given alike."""
    rng = np.random.default_rng(0)
    rows = []
    for kind, places in kinds.items():
        for x, (i, label) in itertools.product(places, enumerate(labels)):
            at = size + 3 * i + x + rng.random()
            name = f"{kind}:{x:g}" if x else "none"
            told = {"kind": kind, "noise": name, "level": x, "x": float(x), "label": label, "estimate": at}
            rows.append(told | {"low": at - 4, "high": at + 6, "seeds": 2, "images": 60})
    return pd.DataFrame(rows)


def curves(noises: Sequence[str] = ("none", "missing:0.1"), seeds: int = 2, trained: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for noise, (label, norm), seed in itertools.product(
        noises, (("pml", "L1"), ("pml[count_norm=l2]", "L2")), range(seeds)
    ):
        for epoch in range(1, 21):
            told = {"noise": noise, "norm": norm, "label": label, "seed": seed, "run_id": f"{noise}{label}{seed}"}
            told |= {"epoch": epoch, "val_mae": 40 / epoch**0.3 + rng.random(), "picked": epoch == 12}
            rows.append(told | {"train_mae": 20 / epoch**0.5 + rng.random() if trained else np.nan})
    return pd.DataFrame(rows)


FIGURES = {
    "height": lambda: error_by_noise(errors({"uniform-height": (0, 1, 2, 3, 4)}), name="noise_height"),
    "pixels": lambda: error_by_noise(
        errors({"uniform-px": (0, 2.309, 4.619, 9.238, 18.475), "gaussian-px": (0, 4.619, 18.475)}), name="noise_px"
    ),
    "gaussian": lambda: error_by_noise(errors({"gaussian-px": (0, 4.619)}), name="noise_px"),
    "heads": lambda: error_by_noise(errors({"missing": (0, 10, 30), "duplicate": (0, 10, 30)}), name="noise_heads"),
    "crowded": lambda: error_by_noise(errors({"missing": (0, 0.5, 1, 30)}), name="noise_crowded"),
    "one": lambda: error_by_noise(errors({"missing": (0, 30)}, ["pml"]), name="noise_one"),
    "eight": lambda: error_by_noise(errors({"missing": (0, 10, 30)}, list("abcdefgh"), 0.2), metric="NAE", unit=""),
    "norms": lambda: norms_by_epoch(curves()),
    "norms5": lambda: norms_by_epoch(curves(["none", *(f"gaussian-px:{i}.237604307" for i in range(1, 5))]), name="n5"),
    "norms1": lambda: norms_by_epoch(curves(["none"], 1, trained=False), name="n1"),
}


@pytest.fixture(scope="module", params=FIGURES)
def plot(request: pytest.FixtureRequest) -> Plot:
    return FIGURES[request.param]()


def test_texts_lie_within_the_figure_and_apart(plot: Plot) -> None:
    texts = drawn_texts(plot)
    width, height = plot.figure.get_size_inches() * plot.figure.dpi
    for text, box in texts:
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.5, text
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        across, up = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 1 or up < 1, (one, other)


def test_it_is_called_ours_and_is_a_figure_of_a_page(plot: Plot) -> None:
    assert "ours: no source states" in plot.caption
    assert any("ours)" in text or text == "clean labels" for text, _ in drawn_texts(plot))
    assert plot.figure.get_size_inches()[0] in (style.COLUMN, style.PAGE)
    ElementTree.fromstring(plots.svg(plot))
    assert style.INK not in plots.svg(plot)


def test_marks_are_the_data_and_stand_apart() -> None:
    data = errors({"uniform-px": (0, 8 / 3**0.5, 32 / 3**0.5), "gaussian-px": (0, 4.6188)})
    plot = error_by_noise(data)
    pd.testing.assert_frame_equal(plot.data.drop(columns="drawn_at"), data)
    for axes, kind in zip(plot.figure.axes, ("uniform-px", "gaussian-px"), strict=True):
        part = plot.data[plot.data["kind"] == kind]
        marks = [line.get_xydata() for line in axes.lines if line.get_linestyle() == "None" and len(line.get_xdata())]
        drawn = np.concatenate(marks)
        wanted = part.sort_values(["label", "x"])[["drawn_at", "estimate"]].to_numpy()
        np.testing.assert_allclose(drawn, wanted)
        ends = np.concatenate([c.get_segments() for c in axes.collections]).reshape(-1, 4)
        np.testing.assert_allclose(ends[:, [1, 3]], part.sort_values(["label", "x"])[["low", "high"]])
        for _, level in part.groupby("x"):
            inches = np.diff(level["drawn_at"]) * style.axes_width(axes) / np.diff(axes.get_xlim())
            assert (inches > 0.01).all()
            np.testing.assert_allclose(level["drawn_at"].mean(), level["x"].iloc[0], atol=1e-9)
    assert plot.figure.axes[0].get_xlim() == plot.figure.axes[1].get_xlim(), "equal variances stand at one place"
    assert "L / √3" in plot.caption
    assert {axes.get_xlabel() for axes in plot.figure.axes} == {"standard deviation in x, y (px; common axis ours)"}


def test_levels_do_not_run_into_each_other() -> None:
    plot = error_by_noise(errors({"missing": (0, 1, 2, 30)}, list("abcdefgh")))
    spans = plot.data.groupby("x")["drawn_at"].agg(["min", "max"])
    assert (spans["max"].to_numpy()[:-1] < spans["min"].to_numpy()[1:]).all()
    low, high = plot.figure.axes[0].get_xlim()
    assert low < spans["min"].min() < spans["max"].max() < high


def test_without_an_interval_marks_are_hollow() -> None:
    data = errors({"missing": (0, 30)}, ["pml"])
    data.loc[1, ["low", "high"]] = np.nan
    data.loc[1, "seeds"] = 1
    plot = error_by_noise(data)
    faces = [line.get_markerfacecolor() for line in plot.figure.axes[0].lines if line.get_linestyle() == "None"]
    assert faces[1] == "none" != faces[0]
    assert "hollow" in plot.caption


@pytest.mark.parametrize(("height", "near"), [(45.0, True), (400.0, False)])
def test_the_constant_count_is_drawn_where_it_is_near(height: float, near: bool) -> None:
    data = errors({"missing": (0, 30)})
    floor = pd.DataFrame({"kind": "missing", "noise": ["none", "missing:30"], "x": [0.0, 30.0], "estimate": height})
    plot = error_by_noise(data, floor)
    drawn = [line for line in plot.figure.axes[0].lines if line.get_color() == style.INK and len(line.get_xdata())]
    assert len(drawn) == near
    assert ("constant count" in {text for text, _ in drawn_texts(plot)}) == near
    assert set(plot.data["constant_count"]) == {height}
    assert len(plot.data) == len(data)
    assert ("Dashed: the constant count" in plot.caption) == near
    assert ("400" in plot.caption) != near


def test_norms_draw_seeds_and_their_mean() -> None:
    data = curves(["none"], 3)
    plot = norms_by_epoch(data)
    assert len(plot.figure.axes) == 2
    for axes, name in zip(plot.figure.axes, ("val_mae", "train_mae"), strict=True):
        lines = [line for line in axes.lines if len(line.get_xdata()) == 20]
        assert len(lines) == 2 * (3 + 1)
        thick = max(lines[:4], key=lambda line: line.get_linewidth())
        np.testing.assert_allclose(thick.get_ydata(), data[data["norm"] == "L1"].groupby("epoch")[name].mean())
    texts = [text for text, _ in drawn_texts(plot)]
    assert {"pml (L1 count norm)", "pml[count_norm=l2] (L2 count norm)", "clean labels"} <= set(texts)
    assert "labels as trained on" in plot.caption


def test_norms_are_told_apart_by_colour_and_dash_in_thin_lines_too() -> None:
    """Also by readers who see no red, green or blue: Machado's matrices on linear RGB, distances in OKLab.

    A shade of the loss's colour, which the L2 norm has elsewhere, is 0.11 to 0.18 away; the colours of two losses 0.2.
    """
    own = style.looks(["pml", "pml[count_norm=l2]"])
    plot = norms_by_epoch(curves(["none"], 3), looks=own)
    lines = [line for line in plot.figure.axes[0].lines if len(line.get_xdata()) == 20]
    first, second = lines[:4], lines[4:]
    assert {(line.get_color(), is_dashed(line)) for line in first} == {(own["pml"].color, False)}
    ((other, dashed),) = {(line.get_color(), is_dashed(line)) for line in second}
    assert dashed
    assert other not in {look.color for look in style.looks([*LABELS, "chfl", "gl", "noisecc", "p2p"]).values()}
    assert min(seen_apart(own["pml"].color, other)) > 0.19 > max(seen_apart(own["pml"].color, "#9795DE"))
    assert min(seen_apart(other, "#ffffff")) > 0.3, "thin lines on paper"
    assert "L1 is solid and has PML's colour, L2 is dashed" in plot.caption
    assert {line.get_color() for line in plot.figure.legends[0].get_lines()} == {own["pml"].color, other}


def is_dashed(line: Line2D) -> bool:
    """Whether it has gaps; matplotlib's own answer is yes for every tuple, an empty one included."""
    return bool(line._unscaled_dash_pattern[1])


VISION = {
    "all": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Machado, Oliveira and Fernandes 2009, severity 1."""


def seen_apart(one: str, other: str) -> list[float]:
    """Distances of two colours in OKLab (Ottosson 2020), for each `VISION`."""
    to_lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
              [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    found = []
    for matrix in VISION.values():
        places = []
        for color in (one, other):
            coded = np.array(to_rgb(color))
            linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
            places.append(to_lab @ np.cbrt(to_lms @ np.clip(matrix @ linear, 0, 1)))
        found.append(float(np.linalg.norm(places[0] - places[1])))
    return found


def test_older_runs_have_no_training_error() -> None:
    plot = norms_by_epoch(curves(trained=False))
    assert len(plot.figure.axes) == 2, "one a noise"
    assert "was not kept by these runs" in plot.caption
    some = curves()
    some.loc[some["seed"] == 0, "train_mae"] = np.nan
    assert "4 of 8 runs did not keep it" in norms_by_epoch(some).caption


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="no finite estimate"):
        error_by_noise(errors({"missing": (0, 1)}).assign(estimate=np.nan))
    with pytest.raises(ValueError, match="no finite val_mae"):
        norms_by_epoch(curves().assign(val_mae=np.nan))
    with pytest.raises(ValueError, match="lacks the columns"):
        error_by_noise(pd.DataFrame({"label": ["pml"]}))


def test_files_are_the_same_for_the_same_input(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        plots.save(FIGURES["heads"](), tmp_path / folder, ("png", "pdf", "svg"))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
