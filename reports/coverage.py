"""Do the intervals of `reports.stats` hold what they promise? Measured on made-up crowds whose truth is known.

The population of images has log-normal counts, and the error of network s on image i is proportional to the count:

    e[s, i] = t_i (u_s + exp(v_s) (g_i + h_si)),   log t ~ N(4.5, crowd^2),
    u_s ~ N(0, bias^2),  v_s ~ N(0, spread^2),  g_i ~ N(0, image^2),  h_si ~ N(0, interaction^2),

u a seed's own bias, v how far it errs, g an image's difficulty, h what depends on both; all numbers are ours. Given the
seed, e / t is normal with variance u^2 + exp(2 v) (image^2 + interaction^2) over images, so that the expected metrics
of a new seed on new images are integrals over u and v. A second loss of the same distribution, with seeds of its own
and image difficulties correlated by 1/2 with the first's, is a true null: any difference found is false.

`python -m reports.coverage` prints the table, in about a minute; a number of trials may follow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from reports import stats
from reports.stats import Metric
from reports.table import Cell, Column, Row, Table, number

__all__ = ["REGIMES", "Regime", "coverage", "coverage_table", "expected", "percentile_interval", "simulate"]

Array = npt.NDArray[np.float64]


class Regime(NamedTuple):
    """A population of images and seeds: the standard deviations of the module's docstring.

    Attributes:
        name: What dominates the variance of a cell's estimate.
        bias: Of a seed's bias, as a share of the count.
        spread: Of the logarithm of a seed's size of errors.
        crowd: Of the logarithm of the counts.
        image: Of an image's own error, as a share of its count.
        interaction: Of the error that depends on seed and image together.
    """

    name: str
    bias: float
    spread: float
    crowd: float
    image: float = 0.2
    interaction: float = 0.1


REGIMES = (Regime("images", 0.03, 0.03, 0.8), Regime("mixed", 0.08, 0.12, 0.6), Regime("seeds", 0.05, 0.25, 0.5))
"""Of the variance of a MAE of 5 seeds on 182 images, the seeds' effects are 2 %, 42 % and 74 % (simulated). The first
is the regime most like training: the MAE of seeds differs by 3 %, and RMSE / MAE is 1.7. In the others it differs by
14 % and 25 %, and counts vary less: on so few images, a few per cent between seeds are never what matters most."""


def simulate(
    regime: Regime, seeds: int, images: int, rng: np.random.Generator, losses: int = 1
) -> tuple[list[Array], Array]:
    """Draws the predicted counts of some equal losses, each (seeds, images), and the true counts, (images,)."""
    true = rng.lognormal(4.5, regime.crowd, images)
    common = rng.standard_normal(images)
    predicted = []
    for _ in range(losses):
        bias, size = regime.bias * rng.standard_normal((seeds, 1)), regime.spread * rng.standard_normal((seeds, 1))
        difficulty = regime.image * (common + rng.standard_normal(images)) / np.sqrt(2)
        both = regime.interaction * rng.standard_normal((seeds, images))
        predicted.append(true * (1 + bias + np.exp(size) * (difficulty + both)))
    return predicted, true


def expected(regime: Regime, metric: Metric) -> float:
    """The expected metric of a new seed on new images, by Gauss-Hermite quadrature over the seed's effects."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()
    u, v = regime.bias * nodes[:, None], regime.spread * nodes
    within = np.exp(2 * v) * (regime.image**2 + regime.interaction**2)  # variance of e / t over images, without bias
    count, square = np.exp(4.5 + regime.crowd**2 / 2), np.exp(2 * 4.5 + 2 * regime.crowd**2)
    nae = np.sqrt(2 / np.pi) * (weights @ np.sqrt(regime.bias**2 + within))  # e / t is normal over u and images
    rmse = np.sqrt(square) * (weights @ np.sqrt(u**2 + within) @ weights)
    return float({"mae": count * nae, "rmse": rmse, "nae": nae, "bias": 0.0}[metric])


def percentile_interval(
    metric: Metric, predicted: Array, true: Array, *, rng: np.random.Generator, level: float = 0.95, resamples: int
) -> tuple[float, float]:
    """The plain crossed bootstrap that `stats.interval` replaces: percentiles, seeds and images resampled apart.

    Args:
        metric: mae or rmse.
        predicted: (S, I) predicted counts.
        true: (I,) true counts.
        rng: Draws the resamples.
        level: Coverage aimed at.
        resamples: Number of resamples.
    """
    seeds, images = predicted.shape
    power = 2 if metric == "rmse" else 1
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    by_image = rng.multinomial(images, np.full(images, 1 / images), resamples) / images
    drawn = (by_seed * (by_image @ (np.abs(predicted - true) ** power).T) ** (1 / power)).sum(axis=1)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def coverage(
    seeds: Iterable[int] = (2, 3, 5, 10, 20),
    images: int = 182,
    *,
    trials: int = 200,
    resamples: int = 500,
    level: float = 0.95,
    metrics: Sequence[Metric] = ("mae", "rmse"),
    regimes: Iterable[Regime] = REGIMES,
    seed: int = 0,
) -> pd.DataFrame:
    """How often the intervals cover the expected metric, and how often two equal losses are told apart.

    Args:
        seeds: Numbers of seeds, at least 2 each.
        images: Images of the test set (182: those of ShanghaiTech A's).
        trials: Simulated benchmarks for each regime and number of seeds. 200 take about a minute on one core.
        resamples: Resamples of each interval.
        level: Coverage aimed at; tests are at 1 - level.
        metrics: mae, rmse.
        regimes: Populations.
        seed: Of the simulation; the same seed gives the same table.

    Returns:
        One row for each regime, metric and number of seeds, with the shares of trials in which

        * `interval`: `stats.interval` covers the expected metric; `width` is its median width as a share of that;
        * `percentile`: the plain crossed bootstrap does; `seeds_only`: `stats.seed_interval` does;
        * `p`: `stats.compare` finds a difference where there is none; `p_images`: Wilcoxon's test over images does,

        and for each share its Monte-Carlo standard error, `<name>_se`: sqrt(share (1 - share) / trials).

    Raises:
        ValueError: If there is a number of seeds below 2, or no trial.
    """
    numbers = list(seeds)
    if min(numbers, default=0) < 2 or trials < 1:
        raise ValueError(f"found seeds {numbers} and {trials} trials; expected at least 2 seeds each and 1 trial")
    rows: list[dict[str, Any]] = []
    for index, regime in enumerate(regimes):
        truth = {metric: expected(regime, metric) for metric in metrics}
        for count in numbers:
            rng = np.random.default_rng([seed, index, count])
            found = pd.DataFrame(
                [row for _ in range(trials) for row in _trial(regime, truth, count, images, rng, resamples, level)]
            )
            for metric, part in found.groupby("metric", sort=False):
                row = {"regime": regime.name, "metric": metric, "seeds": count, "images": images, "trials": trials}
                rates = {name: float(part[name].mean()) for name in _RATES}
                errors = {f"{name}_se": float(np.sqrt(r * (1 - r) / trials)) for name, r in rates.items()}
                rows.append(row | rates | {"width": float(part["width"].median())} | errors)
    order = {name: place for place, name in enumerate(dict.fromkeys(row["regime"] for row in rows))}
    rows.sort(key=lambda row: (order[row["regime"]], metrics.index(row["metric"])))
    return pd.DataFrame(rows)


def coverage_table(**options: Any) -> Table:
    """`coverage`, in per cent, as a table to print.

    Args:
        **options: As of `coverage`.
    """
    found = coverage(**options)
    groups = dict.fromkeys(list(_RATES)[:3], "covers") | dict.fromkeys(list(_RATES)[3:], "false alarms")
    columns = [Column(words, groups[name]) for name, words in _RATES.items()]
    columns.insert(3, Column("width", "covers"))
    rows = []
    for line in found.to_dict("records"):
        shares = [Cell(f"{100 * line[name]:.1f}", 100 * line[name], 100 * line[f"{name}_se"]) for name in _RATES]
        shares.insert(3, Cell(number(100 * line["width"], 0), 100 * line["width"]))
        label = f"{line['regime']}, {line['metric'].upper()}, {line['seeds']} seeds"
        rows.append(Row(label, tuple(shares)))
    first, nominal = found.iloc[0], 100 * options.get("level", 0.95)
    caption = (
        f"Per cent of {first['trials']} simulated benchmarks of {first['images']} images, in which images, seeds or "
        "both (mixed) vary most; the model is described in reports/coverage.py.",
        f"covers, nominal {nominal:g}: intervals of this report; plain percentiles of a crossed bootstrap; t over "
        "seeds. width: median width of the first, as a share of the truth.",
        f"false alarms, at most {100 - nominal:g} wanted: two equal losses told apart by the test that decides here, "
        "and by Wilcoxon's over the images.",
        f"Monte-Carlo standard error: at most {100 * max(found[f'{name}_se'].max() for name in _RATES):.1f}.",
    )
    title = "How often the intervals hold what they promise"
    return Table("coverage", title, "what varies", tuple(columns), tuple(rows), caption)


_RATES = {
    "interval": "ours",
    "percentile": "percentile",
    "seeds_only": "seeds only",
    "p": "ours",
    "p_images": "Wilcoxon",
}
"""The measured shares, and what they are called in a table."""


def _trial(
    regime: Regime,
    truth: dict[Metric, float],
    seeds: int,
    images: int,
    rng: np.random.Generator,
    resamples: int,
    level: float,
) -> Iterable[dict[str, Any]]:
    """One simulated benchmark: two equal losses, and what each method says, a row for each metric."""
    (a, b), true = simulate(regime, seeds, images, rng, losses=2)
    for metric, value in truth.items():
        found = stats.interval(metric, a, true, rng=rng, level=level, resamples=resamples)
        low, high = percentile_interval(metric, a, true, rng=rng, level=level, resamples=resamples)
        versus = stats.compare(metric, a, b, true, level=level)
        yield {
            "metric": metric,
            "interval": found.covers(value),
            "percentile": low <= value <= high,
            "seeds_only": stats.seed_interval(stats.per_seed(metric, a, true), level=level).covers(value),
            "width": (found.high - found.low) / value,
            "p": versus.p < 1 - level,
            "p_images": versus.p_images < 1 - level,
        }


if __name__ == "__main__":
    table = coverage(trials=int(sys.argv[1])) if len(sys.argv) > 1 else coverage()
    sys.stdout.write(table.round(3).to_string(index=False) + "\n")
