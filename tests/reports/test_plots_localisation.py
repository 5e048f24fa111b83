"""Figures of localisation: what is drawn against numbers computed by hand, texts that do not collide, and refusals."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports import plots, style
from reports.plots import Plot
from reports.plots_files import save
from reports.plots_localisation import Hits, by_density, by_radius, hits, precision_recall
from tests.reports.test_plots import drawn_texts

pytestmark = pytest.mark.filterwarnings("error")


def curve(n: int = 50, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    tp, predicted = np.cumsum(rng.random(n) < 0.7), np.arange(1, n + 1)
    return pd.DataFrame(
        {"threshold": np.linspace(1, 0.1, n), "tp": tp, "predicted": predicted, "precision": tp / predicted}
        | {"recall": tp / 40, "f1": 2 * tp / (predicted + 40)}
    )


def density(radii: tuple[str, ...] = ("4px", "8px")) -> pd.DataFrame:
    rows = []
    for axis, names in (("people", ("1–100", "101–500")), ("spacing", ("3–9.5", "9.6–14", "14.1–120"))):
        for place, name in enumerate(names):
            rows += [(radius, axis, name, 9, 0.5 + 0.1 * place, 0.4, 0.8) for radius in radii]
    return pd.DataFrame(rows, columns=["radius", "axis", "bin", "images", "f1", "f1_low", "f1_high"])


def example(
    title: str = "worst", shape: tuple[int, int] = (240, 360), counts: tuple[int, int, int] = (9, 4, 3)
) -> Hits:
    rng = np.random.default_rng(sum(counts))
    image = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
    found, missed, false = (rng.random((n, 2)) * (shape[1], shape[0]) for n in counts)
    return Hits(title, "IMG_1.jpg", image, found, missed, false, "8px")


FIGURES = {
    "precision_recall": lambda: precision_recall({"4px": curve(), "sigma_l": curve(seed=1)}),
    "by_radius": lambda: by_radius(scores(range(1, 101))),
    "by_radius of few": lambda: by_radius(scores([1, 2, 4, 8])),
    "by_density": lambda: by_density(density()),
    "by_density of one": lambda: by_density(density(("0.5head",))),
    "hits": lambda: hits([example(), example("median", (100, 400)), example("best", (400, 100), (900, 0, 0))]),
}


def scores(radii) -> pd.DataFrame:
    values = np.linspace(0.1, 0.9, len(list(radii)))
    return pd.DataFrame({"radius": list(radii), "precision": values, "recall": values / 2, "f1": values / 1.5})


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_written_and_their_texts_do_not_collide(name: str, tmp_path: Path) -> None:
    plot: Plot = FIGURES[name]()
    paths = plots.save(plot, tmp_path)
    assert [path.suffix for path in paths] == [".png", ".pdf", ".csv"]
    assert all(path.stat().st_size > 100 for path in paths)
    assert plot.caption.endswith(".")
    width, height = (side * style.DPI for side in plot.figure.get_size_inches())
    texts = drawn_texts(plot)
    scale = style.DPI / plot.figure.dpi
    for text, box in texts:
        assert box.x0 * scale >= -1, text
        assert box.x1 * scale <= width + 1, text
        assert box.y0 * scale >= -1, text
        assert box.y1 * scale <= height + 1, text
    for (first, a), (second, b) in combinations(texts, 2):
        apart = min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1
        assert apart, (first, second)


def test_the_best_threshold_is_said_and_kept() -> None:
    long = curve(9000)
    plot = precision_recall({"8px": long})
    best = long.loc[long["f1"].idxmax()]
    assert len(plot.data) <= 2001
    assert plot.data["f1"].max() == best["f1"]
    assert plot.data["recall"].iloc[-1] == long["recall"].iloc[-1]
    assert f"8px {100 * best['f1']:.1f} % at a threshold of {best['threshold']:.3g}" in plot.caption


def test_the_window_is_where_most_is_wrong() -> None:
    wrong = np.array([[310.0, 30.0], [320.0, 40.0], [330.0, 50.0]])
    one = example(counts=(9, 0, 0))._replace(missed=wrong[:2], false=np.concatenate([wrong[2:], [[5.0, 200.0]]]))
    plot = hits([one])
    (x0, x1), (y1, y0) = plot.figure.axes[1].get_xlim(), plot.figure.axes[1].get_ylim()
    assert (x1 - x0, y1 - y0) == (120.0, 80.0)
    assert ((wrong >= (x0, y0)) & (wrong <= (x1, y1))).all()
    row = plot.data.iloc[0]
    assert (row["found"], row["missed"], row["false"], row["f1"]) == (9, 2, 2, 18 / 22)


def test_an_image_without_anything_is_drawn() -> None:
    assert np.isnan(hits([example(counts=(0, 0, 0))]).data["f1"].iloc[0])


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="examples is empty"):
        hits([])
    with pytest.raises(ValueError, match="missed of image 'IMG_1.jpg' has shape"):
        hits([example()._replace(missed=np.zeros(3))])
    with pytest.raises(ValueError, match="image 'IMG_1.jpg' has shape"):
        hits([example()._replace(image=np.zeros((4, 4), np.uint8))])
    with pytest.raises(ValueError, match="no curve has a threshold"):
        precision_recall({"8px": curve()[:0]})
    with pytest.raises(ValueError, match="one radius is no curve"):
        by_radius(scores([8]))
    with pytest.raises(ValueError, match="scores has no rows"):
        by_density(density()[:0])
    with pytest.raises(ValueError, match=r"lacks the columns \['bin'\]"):
        by_density(density().drop(columns="bin"))


def test_a_name_that_is_a_formula_is_text_in_the_csv(tmp_path: Path) -> None:
    example = Hits(
        "worst", "=1+1", np.zeros((8, 8, 3), np.uint8), np.zeros((0, 2)), np.ones((1, 2)), np.zeros((0, 2)), "8px"
    )
    files = save(hits([example]), tmp_path)
    assert "'=1+1" in files[-1].read_text()
