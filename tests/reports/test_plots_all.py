"""What holds for every figure, and for the style that they share."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from scipy.optimize import minimize

import losses
from reports import plots, style
from reports.plots import Plot
from tests.reports.fake_store import QUALITY, fake_store
from tests.reports.test_plots import drawn_texts, example, intervals

pytestmark = pytest.mark.filterwarnings("error")


class Frames(NamedTuple):
    runs: pd.DataFrame
    images: pd.DataFrame
    history: pd.DataFrame


def fake_frames(root: Path, losses: int, seeds: int) -> Frames:
    """Runs, images and histories; of 12 losses, four are others of the eight under a longer name."""
    zoo = list(QUALITY)[:losses]
    store = fake_store(root, zoo, range(seeds), images=30)
    runs = store.load()
    images = store.images(zip(runs["run_id"], runs["eval_id"], strict=True))
    frames = [runs.assign(label=runs["loss"].replace({"dm_count": "dm_count[solver=stabilised]"})), images]
    frames.append(store.histories(runs["run_id"]))
    for loss in zoo[: losses - len(zoo)]:
        ids = {run_id: f"{run_id}-2" for run_id in runs["run_id"][runs["loss"] == loss]}
        copies = [frame[frame["run_id"].isin(ids)] for frame in frames]
        copies = [copy.assign(run_id=copy["run_id"].map(ids)) for copy in copies]
        copies[0] = copies[0].assign(label=f"{loss}[count_norm=l2,divergence=kl]")
        frames = [pd.concat(pair, ignore_index=True) for pair in zip(frames, copies, strict=True)]
    return Frames(*frames)


@pytest.fixture(scope="module", params=[(8, 5), (12, 2), (1, 1)], ids="{0[0]}x{0[1]}".format)
def frames(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Frames:
    return fake_frames(tmp_path_factory.mktemp("runs"), *request.param)


@pytest.fixture(scope="module")
def figures(frames: Frames) -> list[Plot]:
    return all_plots(frames)


def all_plots(frames: Frames) -> list[Plot]:
    runs, images, history = frames
    found = intervals(runs)
    names, count = list(found["label"]), len(found)
    ranks = np.linspace(1, count, count)
    thresholds = np.geomspace(1, 30, 40)
    curves = [
        pd.DataFrame({"label": n, "threshold": thresholds, "share": 1 - thresholds**-i / 2})
        for i, n in enumerate(names)
    ]
    views = [
        example(),
        example("median", (300, 150), predicted_points=np.ones((4, 2)), density=None, window_error=None),
    ]
    return [
        plots.count_scatter(runs, images),
        plots.training_curves(runs, history),
        plots.ranking(found, 60.0),
        *(plots.cost_error(found, x) for x in ("loss_ms", "step_ms", "peak_rss_mib")),
        plots.critical_difference(names, ranks, 2.5, [names[i : i + 3] for i in range(0, count, 2)]),
        plots.performance_profile(pd.concat(curves)),
        plots.samples(views),
    ]


# ---- every figure


def test_texts_lie_within_the_figure_and_apart(figures: list[Plot]) -> None:
    for plot in figures:
        texts = drawn_texts(plot)
        width, height = plot.figure.get_size_inches() * plot.figure.dpi
        assert len(texts) >= 2, plot.name
        for text, box in texts:
            assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.5, (plot.name, text)
        for (one, a), (other, b) in itertools.combinations(texts, 2):
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            up = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across < 1 or up < 1, (plot.name, one, other)


def test_sizes(figures: list[Plot]) -> None:
    for plot in figures:
        assert plot.figure.get_size_inches()[0] in (style.COLUMN, style.PAGE)
        sizes = {text.get_size() for text in plot.figure.findobj(Text) if text.get_text()}
        assert sizes <= {7, 8}, plot.name


def test_svg(figures: list[Plot]) -> None:
    """Of all figures on one page: ids of their own, no reference outside, the page's colour and font."""
    ids: set[str] = set()
    for plot in figures:
        text = plots.svg(plot)
        assert len(text) < 120_000, (plot.name, len(text))
        root = ElementTree.fromstring(text)
        found = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert len(found) == len(set(found) - ids), plot.name
        assert all(name.startswith(plot.name) for name in found)
        ids |= set(found)
        links = [value for e in root.iter() for name, value in e.attrib.items() if name.endswith("href")]
        assert all(link.startswith(("#", "data:image/")) for link in links)
        inner = [link[1:] for link in links if link[0] == "#"] + re.findall(r"url\(([^)]*)\)", text)
        assert {link.lstrip("#") for link in inner} <= set(found)
        written = [e for e in root.iter() if e.tag.endswith("}text")]
        assert written, "text stays text"
        for element in written:
            css = element.attrib["style"]
            assert "font-family: sans-serif" in css
            on_picture = plot.name == "samples" and re.fullmatch(r"[+−]?\d+", element.text or "")
            assert "fill: currentColor" in css or on_picture, (element.text, css)
        assert not re.search(r"#000(000)?\b|black|<metadata|<!|<\?|<script|DejaVu", text)
        assert style.INK not in text
        assert re.findall(r"[^\n>]*\*\s*{", text) == [f"#{plot.name} *{{"], "matplotlib's style is the figure's own"


def test_files_are_the_same_for_the_same_input(tmp_path: Path) -> None:
    frames = fake_frames(tmp_path / "runs", 1, 2)
    copies = [frame.copy() for frame in frames]
    settings = dict(matplotlib.rcParams)
    for folder in ("one", "two"):
        for plot in all_plots(frames):
            paths = plots.save(plot, tmp_path / folder, ("png", "pdf", "svg"))
            assert [path.name for path in paths] == [f"{plot.name}.{kind}" for kind in ("png", "pdf", "svg", "csv")]
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 4 * 9
    for name in names:
        data = (tmp_path / "one" / name).read_bytes()
        assert data == (tmp_path / "two" / name).read_bytes(), name
    for before, after in zip(copies, frames, strict=True):
        pd.testing.assert_frame_equal(before, after)
    assert dict(matplotlib.rcParams) == settings


def test_the_csv_is_the_data(frames: Frames, tmp_path: Path) -> None:
    plot = plots.ranking(intervals(frames.runs))
    path = plots.save(plot, tmp_path, ())[0]
    found = pd.read_csv(path)
    np.testing.assert_allclose(found["estimate"], plot.data["estimate"])
    assert list(found["label"]) == list(plot.data["label"])


def test_names_and_formats() -> None:
    plot = plots.samples([example()])
    with pytest.raises(ValueError, match="names no file"):
        plots.svg(plot._replace(name="../up"))
    with pytest.raises(ValueError, match="gif"):
        plots.save(plot, ".", ("gif",))


def test_pyplot_is_not_needed() -> None:
    code = "import sys, reports.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- the store's numbers in the figures


def test_count_scatter_of_a_store(frames: Frames) -> None:
    plot = plots.count_scatter(frames.runs, frames.images)
    merged = frames.images.merge(frames.runs, on=["run_id", "eval_id"]).sort_values(["label", "seed", "id"])
    np.testing.assert_array_equal(plot.data["predicted"], merged["predicted"])
    np.testing.assert_array_equal(plot.data["true"], merged["true"])
    mae = frames.runs.groupby("label")["mae"].mean().sort_values()
    texts = [text for text, _ in drawn_texts(plot)]
    assert [float(text.split()[1]) for text in texts if text.startswith("MAE")] == pytest.approx(list(mae), rel=0.01)
    clouds = [axes.collections[0].get_array() for axes in plot.figure.axes]
    assert [array.sum() for array in clouds] == list(merged.groupby("label")["id"].count()[mae.index])
    assert "log(1 + count)" in plot.caption
    assert "30 images" in plot.caption


def test_cost_error_of_a_store(frames: Frames) -> None:
    found = intervals(frames.runs)
    for x in ("loss_ms", "step_ms", "peak_rss_mib"):
        plot = plots.cost_error(found, x)
        expected = found.sort_values(["estimate", "label"]).set_index("label")
        assert plot.name == f"cost_error_{x}"
        assert list(plot.data[x]) == list(expected[x])
        axes = plot.figure.axes[0]
        assert axes.get_xscale() == ("log" if x == "loss_ms" and len(found) > 1 else "linear")
        labels = "".join(text for text, _ in drawn_texts(plot))
        assert all(label in labels for label in found["label"])


# ---- style


def luminance(color: str) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


VARIANTS = ("pml[count_norm=l2]", "pml[divergence=kl]", "pml[variant=official]", "dm_count[solver=exact]")


def legible(look: style.Look) -> bool:
    """WCAG's contrast with a white and with a dark page."""
    light = luminance(look.color) + 0.05
    return 1.05 / light > 2.2 and light / 0.057 > 3


def test_every_loss_has_a_look_of_its_own_in_colour_and_in_grey() -> None:
    found = style.looks([*reversed(losses.names()), *losses.names()])
    assert list(found) == list(losses.names())
    for what in ("color", "marker", "dash"):
        assert len({getattr(look, what) for look in found.values()}) == len(losses.names())
    assert all(map(legible, found.values()))


def test_a_loss_has_one_look_whatever_else_is_drawn() -> None:
    """Alone, with one other, and with all: none is re-used, and none depends on the rest."""
    every = [*losses.names(), *VARIANTS]
    found = style.looks(every)
    assert len(found) == 12
    for label in every:
        for others in ([], ["pml"], ["bl", "zzz"], list(losses.names()), every):
            assert style.looks([label, *others])[label] == found[label]
    for one, other in itertools.combinations(found.values(), 2):
        assert one.marker != other.marker or abs(luminance(one.color) - luminance(other.color)) > 0.05
        assert (one.color, one.marker) != (other.color, other.marker)
    assert len({look.color for look in found.values()}) >= 11
    assert found["pml[count_norm=l2]"].color != found["pml[divergence=kl]"].color


@pytest.mark.parametrize("loss", losses.names())
def test_variants_are_shades_of_their_loss(loss: str) -> None:
    labels = [loss, *(f"{loss}[weight={i}]" for i in range(9)), f"{loss} · density head"]
    found = style.looks(labels)
    assert len({(look.color, look.marker) for look in found.values()}) == len(labels)
    assert all(map(legible, found.values()))
    own = found.pop(loss)
    hue = matplotlib.colors.rgb_to_hsv(matplotlib.colors.to_rgb(own.color))[0]
    plain = style.looks(losses.names())
    for look in found.values():
        shade = matplotlib.colors.rgb_to_hsv(matplotlib.colors.to_rgb(look.color))
        assert shade[1] < 0.01 or abs((shade[0] - hue + 0.5) % 1 - 0.5) < 0.1  # greys have no hue
        assert look.color not in {one.color for one in plain.values()}
        assert look.marker not in {one.marker for one in plain.values()}
        assert look.dash != own.dash


def test_names_of_no_loss_take_what_is_left() -> None:
    """The ninth loss, which is not of the zoo, is not blue as the first; radii alone have the clearest colours."""
    nine = style.looks([*losses.names(), "zzz", "yyy"])
    assert len({look.color for look in nine.values()}) == 10
    assert len({look.marker for look in nine.values()}) == 10
    assert nine["pml"] == style.looks(["pml"])["pml"]
    assert style.looks(["yyy"])["yyy"] == nine["yyy"]
    assert len({(look.color, look.marker) for look in style.looks(f"new{i:02d}" for i in range(12)).values()}) == 12
    names = [f"{i:03d}" for i in range(12)]
    found = style.looks(reversed(names))
    assert list(found) == names
    assert [look.color for look in found.values()][:8] == [style.looks([loss])[loss].color for loss in losses.names()]
    for what in ("color", "marker"):
        assert len({getattr(look, what) for look in found.values()}) == 12
    assert all(map(legible, found.values()))


def test_the_colours_are_apart_for_the_colour_blind_too() -> None:
    """Distances in OKLab; markers and dashes carry what a colour-blind reader loses."""
    variants = [f"{loss}[weight={i}]" for loss in losses.names() for i in range(9)]
    colors = sorted({look.color for look in style.looks([*losses.names(), *variants, *"wxyz"]).values()})
    assert len(colors) == 8 + 16 + 4
    for one, other in itertools.combinations(colors, 2):
        assert np.linalg.norm(oklab(one) - oklab(other)) > 0.055
    for blind in (PROTAN, DEUTAN):
        plain = [blind @ linear(look.color) for look in style.looks(losses.names()).values()]
        for one, other in itertools.combinations(plain, 2):
            assert np.linalg.norm(oklab_of(one) - oklab_of(other)) > 0.03


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB; Ottosson's OKLab.
PROTAN = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
DEUTAN = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
OPPONENT = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip


def linear(color: str) -> np.ndarray:
    rgb = np.array(matplotlib.colors.to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def oklab_of(rgb: np.ndarray) -> np.ndarray:
    return OPPONENT @ np.cbrt(CONES @ rgb.clip(0, 1))


def oklab(color: str) -> np.ndarray:
    return oklab_of(linear(color))


def test_the_looks_of_a_report_are_used_in_every_figure(frames: Frames) -> None:
    runs = frames.runs
    found = style.looks([*runs["label"], "aaa"])
    plot = plots.ranking(intervals(runs), looks=found)
    colors = [line.get_markerfacecolor() for line in plot.figure.axes[0].lines if line.get_marker() != "None"]
    hollow = plot.data["low"].isna()
    assert colors == ["none" if h else found[label].color for label, h in zip(plot.data["label"], hollow, strict=True)]
    with pytest.raises(ValueError, match="no look is given"):
        plots.ranking(intervals(runs), looks=style.looks(["aaa"]))


@pytest.mark.parametrize("seed", range(5))
def test_spread_is_the_least_displacement(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted, heights = rng.random(7), rng.uniform(0.02, 0.13, 7)
    order = np.argsort(wanted)
    gaps = (heights[order][1:] + heights[order][:-1]) / 2
    ends = heights[order][[0, -1]] / 2
    rules = [{"type": "ineq", "fun": lambda y: np.diff(y[order]) - gaps}]
    rules.append({"type": "ineq", "fun": lambda y: [y[order[0]] - ends[0], 1 - ends[1] - y[order[-1]]]})
    best = minimize(
        lambda y: ((y - wanted) ** 2).sum(), wanted, constraints=rules, options={"ftol": 1e-14, "maxiter": 500}
    )
    np.testing.assert_allclose(style.spread(wanted, heights, 0, 1), best.x, atol=1e-5)
    with pytest.raises(ValueError, match="do not fit"):
        style.spread(wanted, heights, 0, 0.9 * heights.sum())


def test_labels_wrap_without_loss() -> None:
    for label in ("pml", "dm_count[solver=stabilised]", "pml[count_norm=l2,divergence=kl,tau=2]"):
        lines = style.wrap(label, 1.0)
        assert "".join(lines) == label
        assert all(style.text_width(line) <= 1.1 for line in lines)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1, 12, [1, 2, 5, 10]), (9, 600, [10, 30, 100, 300]), (1, 1e4, [1, 10, 100, 1e3, 1e4]), (21, 29, [])],
)
def test_log_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert style.log_ticks(low, high, 5) == ticks
