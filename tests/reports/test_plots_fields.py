"""Figures of fields and descents: sizes, texts that do not collide, data, colours, and refusals."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from reports import plots, style
from reports.plots import Plot
from reports.plots_descent import Trace, _stage, curves, frames, strips
from reports.plots_fields import Asked, count_norms, fields
from reports.plots_maps import BELOW, PUSH, Shown, above, density_scale, digits, roots
from tests.reports.test_plots import drawn_texts

pytestmark = pytest.mark.filterwarnings("error")

H, W, STRIDE = 12, 16, 8
GUESSES = ("under", "right", "over")
LOSSES = ("pml", "pml[count_norm=l2]", "dm_count[solver=stabilised]", "l2", "bl")


def scene(heads: int = 2) -> Shown:
    rng = np.random.default_rng(heads)
    points = rng.random((heads, 2)) * (W * STRIDE, H * STRIDE)
    rows, columns = np.meshgrid(np.arange(H) * STRIDE + 4, np.arange(W) * STRIDE + 4, indexing="ij")
    owner = np.hypot(columns[..., None] - points[:, 0], rows[..., None] - points[:, 1]).argmin(axis=-1)
    return Shown("a scene", np.full((H * STRIDE, W * STRIDE, 3), 200, np.uint8), points, owner, STRIDE)


def asked(loss: str, guess: str, *, target: bool = True, scale: float = 1.0) -> Asked:
    rng = np.random.default_rng(len(loss) + len(guess))
    read = rng.random((H, W)) / 100
    return Asked(
        loss, guess, "one person a head, Gaussians of 4 px", read, scale * rng.normal(size=(H, W)),
        read + rng.normal(size=(H, W)) / 200 if target else None, -1234.5 * scale, "up near heads", kink=True,
    )  # fmt: skip


def trace(loss: str, steps: int = 9) -> Trace:
    rng = np.random.default_rng(len(loss))
    kept = np.array([0, 3, 6, steps])
    values = np.linspace(5, 1, steps + 1)
    return Trace(loss, kept, rng.random((4, H, W)) / 50, values, np.linspace(1, 3, steps + 1), values / 10)


def upright() -> Shown:
    """Half as wide as high."""
    flat = scene()
    image = np.ascontiguousarray(np.swapaxes(flat.image, 0, 1)[:, : H * STRIDE * 2 // 3])
    return flat._replace(image=image, points=flat.points[:, ::-1] * (2 / 3, 1), owner=flat.owner.T[:, : H * 2 // 3])


def turned(one: Asked) -> Asked:
    maps = {name: getattr(one, name).T[:, : H * 2 // 3] for name in ("read", "gradient", "target")}
    return one._replace(**maps)


FIGURES = {
    "three": lambda: fields(scene(), [asked(loss, g) for loss in LOSSES[:4] for g in GUESSES])[0],
    "two": lambda: fields(scene(60), [asked(loss, g) for loss in LOSSES[:2] for g in GUESSES[:2]])[0],
    "one": lambda: fields(scene(1), [asked("pml", "right", target=False, scale=1e-9)])[0],
    "norms": lambda: count_norms(scene(), [asked(loss, g) for loss in LOSSES[:2] for g in GUESSES]),
    "norms of two": lambda: count_norms(scene(), [asked(loss, g) for loss in LOSSES[:2] for g in GUESSES[:2]]),
    "norms of two, upright": lambda: count_norms(
        upright(), [turned(asked(loss, g)) for loss in LOSSES[:2] for g in GUESSES[:2]]
    ),
    "norms of one": lambda: count_norms(scene(), [asked(loss, "blurred") for loss in LOSSES[:2]]),
    "strip": lambda: strips(scene(), [trace(loss) for loss in LOSSES], how="By hand.")[0],
    "curves": lambda: curves([trace(loss) for loss in LOSSES], 2, radius=4, how="By hand."),
    "curves of one": lambda: curves([trace("l2")], 2, radius=4, how="By hand."),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_written_and_their_texts_do_not_collide(name: str, tmp_path: Path) -> None:
    plot: Plot = FIGURES[name]()
    paths = plots.save(plot, tmp_path, ("png", "svg"))
    assert all(path.stat().st_size > 100 for path in paths)
    assert plot.caption.endswith(".")
    across, up = plot.figure.get_size_inches()
    assert across == pytest.approx(style.PAGE)  # all of a command's figures: a page scales them alike
    assert up <= 9
    texts = drawn_texts(plot)
    scale = style.DPI / plot.figure.dpi
    for text, box in texts:
        assert box.x0 * scale >= -1, text
        assert box.x1 * scale <= across * style.DPI + 1, text
        assert box.y0 * scale >= -1, text
        assert box.y1 * scale <= up * style.DPI + 1, text
    for (first, a), (second, b) in combinations(texts, 2):
        apart = min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1
        assert apart, (first, second)


@pytest.mark.parametrize("number", [1, 2, 3, 5])
@pytest.mark.parametrize("title", ["three heads", "two heads 8 pixels apart, nearer than their kernels are wide"])
def test_texts_of_a_frame_do_not_collide(number: int, title: str) -> None:
    names = ["dm_count[solver=stabilised,weight=0.25]", "l2", "pml[count_norm=l2]", "bl", "p2p"][:number]
    with style.context():
        figure, _, counts, step = _stage(scene()._replace(title=title), [trace(name) for name in names])
        step.set_text("step 300 of 300")
        for count in counts:
            count.set_text("count 123.45")
        figure.canvas.draw()
        boxes = [(text.get_text(), text.get_window_extent()) for text in figure.texts]
    assert isinstance(figure, Figure)
    assert "".join(text for text, _ in boxes).replace(" ", "").count(title.replace(" ", "")) == 1  # nothing is cut
    for text, box in boxes:
        assert min(box.x0, box.y0) >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text
    for (first, a), (second, b) in combinations(boxes, 2):
        apart = min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1
        assert apart, (first, second)


@pytest.mark.parametrize("kept", [2, 3, 6, 7, 40])
def test_a_strip_shows_each_step_once(kept: int) -> None:
    steps = np.arange(kept)
    values = np.linspace(5, 1, kept)
    path = Trace("l2", steps, np.full((kept, H, W), 0.01), values, values, values / 10)
    (plot,) = strips(scene(), [path], how="By hand.")
    found = plot.data["step"].tolist()
    assert found == sorted(set(found))
    assert (found[0], found[-1], len(found)) == (0, kept - 1, min(kept, 6))


def test_a_kink_is_framed_and_explained() -> None:
    smooth, kinked = (fields(scene(), [asked("l2", "right")._replace(kink=kink)])[0] for kink in (False, True))
    dashed = [
        sum(axes.spines["left"].get_linestyle() not in ("-", "solid") for axes in plot.figure.axes)
        for plot in (smooth, kinked)
    ]
    assert dashed == [0, 1]
    assert "is rounding" in kinked.caption
    assert "is rounding" not in smooth.caption


def test_what_is_hardly_below_zero_is_drawn_as_zero() -> None:
    target = np.array([[0.5, -0.8 * BELOW, 0.0]])
    assert above(target).tolist() == [[0.5, 0.0, 0.0]]
    assert np.array_equal(above(2 * target), 2 * target)


def test_many_losses_and_predictions_are_several_figures() -> None:
    every = [asked(loss, g) for loss in LOSSES for g in (*GUESSES, "blurred")]
    found = fields(scene(), every)
    assert [plot.name for plot in found] == ["fields", "fields_2", "fields_3", "fields_4"]
    rows = [(row["loss"], row["prediction"]) for plot in found for row in plot.data.to_dict("records")]
    assert sorted(rows) == sorted((one.loss, one.prediction) for one in every)
    assert max(plot.data["loss"].nunique() for plot in found) <= 4
    for plot in found:
        for row in plot.data.to_dict("records"):
            one = next(e for e in every if (e.loss, e.prediction) == (row["loss"], row["prediction"]))
            assert row["target_count"] == pytest.approx(one.target.sum())
            assert row["largest_gradient"] == pytest.approx(np.abs(one.gradient).max())
            assert row["scale"] >= row["largest_gradient"]


def test_count_norms_tell_what_is_added_and_taken() -> None:
    same = asked("pml", "right")
    pair = [same._replace(target=same.read.copy()), asked("pml[count_norm=l2]", "right")]
    plot = count_norms(scene(), pair)
    first, second = plot.data.to_dict("records")
    assert (first["added"], first["taken"]) == (0, 0)
    assert "L1 norm: right – the target is the prediction." in plot.caption
    assert second["count"] + second["added"] - second["taken"] == pytest.approx(second["target_count"])


def test_the_words_and_the_numbers_tell_what_is_added_from_what_is_taken() -> None:
    """By hand: 3 people more in one cell, 1 fewer in another."""
    read = np.full((H, W), 0.02)
    target = read.copy()
    target[2, 3] += 3
    target[7, 9] -= 1
    one = asked("pml[count_norm=l2]", "right")._replace(read=read, target=target)
    plot = count_norms(scene(), [one._replace(loss="pml"), one])
    assert plot.caption.count("adds 3.00 people and takes 1.00") == 2
    assert "adds to the prediction (blue) and takes from it (orange)" in plot.caption
    total = read.sum() + 2
    texts = [text.get_text() for text in plot.figure.texts]
    assert texts.count(f"+3.00 −1.00 → {total:.2f} people") == 2
    for row in plot.data.to_dict("records"):
        assert (row["added"], row["taken"]) == pytest.approx((3, 1))
    maps = [axes.images[0] for axes in plot.figure.axes if axes.images and axes.images[0].get_array().shape == (H, W)]
    assert len(maps) == 2
    for image in maps:
        more, fewer = (image.cmap(float(image.norm(value)))[:3] for value in (3.0, -1.0))
        assert more[2] > more[0]  # blue
        assert fewer[0] > fewer[2]  # orange


def test_refusals() -> None:
    with pytest.raises(ValueError, match="asked is empty"):
        fields(scene(), [])
    with pytest.raises(ValueError, match="needs each of"):
        fields(scene(), [asked("l2", "under"), asked("bl", "right")])
    with pytest.raises(ValueError, match="expected \\(12, 16\\)"):
        fields(scene(), [asked("l2", "under")._replace(gradient=np.zeros((3, 3)))])
    with pytest.raises(ValueError, match="two losses"):
        count_norms(scene(), [asked("pml", "right")])
    with pytest.raises(ValueError, match="no target"):
        count_norms(scene(), [asked("pml", "right"), asked("l2", "right", target=False)])
    with pytest.raises(ValueError, match="paths is empty"):
        strips(scene(), [], how="")
    with pytest.raises(ValueError, match="different steps"):
        list(frames(scene(), [trace("l2"), trace("bl", 8)]))


def grey(color: object) -> float:
    """Luma of Rec. 709."""
    return float(np.dot(to_rgb(color[:3] if isinstance(color, tuple) else color), (0.2126, 0.7152, 0.0722)))


def test_the_ends_of_the_gradient_are_told_apart_in_grey() -> None:
    assert grey(PUSH(0.0)) + 0.15 < grey(PUSH(1.0))
    assert grey(PUSH(0.5)) > 0.95


def test_zero_is_black_and_what_is_below_is_not_on_the_scale_above() -> None:
    cmap, norm = density_scale([np.array([[0.0, 0.2]])], [np.array([[-0.01, 0.1]])])
    assert grey(cmap(float(norm(0.0)))) < 0.01
    above = [matplotlib.colormaps["magma"](share)[:3] for share in np.linspace(0, 1, 100)]
    below = np.array(cmap(float(norm(-0.01)))[:3])
    assert min(np.abs(below - np.array(color)).max() for color in above) > 0.2
    same, _ = density_scale([np.array([[0.0, 0.2]])], [None])
    assert same(1.0)[:3] == pytest.approx(matplotlib.colormaps["magma"](1.0)[:3], abs=0.01)


@pytest.mark.parametrize("least", [-1e-6, -1e-5, -2e-4, -1e-3, -0.004, -0.03, -0.2, -5.0])
def test_zero_is_black_however_little_is_below(least: float) -> None:
    """The scale ends at `least`; zero, and what is just above it, must not take the last colour below."""
    cmap, norm = density_scale([np.array([[0.0, 0.2]])], [np.array([[least, 0.1]])])
    for value in (0.0, 1e-9):
        assert grey(cmap(float(norm(value)))) < 0.01
    assert np.all(np.diff([grey(cmap(float(norm(value)))) for value in np.linspace(0, 0.2, 40)]) >= -0.01)


@pytest.mark.parametrize(("low", "high"), [(-2.0, 2.0), (-0.5, 3.0), (0.0, 1.0)])
def test_scales_are_signed_roots(low: float, high: float) -> None:
    norm = roots(low, high)
    values = np.linspace(low, high, 7)
    assert np.asarray(norm.inverse(norm(values)), float) == pytest.approx(values)
    spacing = np.sign(values) * np.sqrt(np.abs(values))
    wanted = (spacing - spacing[0]) / (spacing[-1] - spacing[0])
    assert np.asarray(norm(values), float) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.5, "1.50"), (-2.345, "−2.35"), (7273.4, "7273"), (3e-11, "3e−11"), (float("nan"), "n/a")],
)
def test_digits(value: float, text: str) -> None:
    assert digits(value) == text
