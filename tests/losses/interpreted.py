"""The fused kernels in Triton's interpreter, beside POT, scipy, the formulas, and plain torch in float64.

Run by `test_fused.py` in processes of their own: what Triton's interpreter takes over, it takes over at import.
"""

from __future__ import annotations

import math
import os
import sys

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import Tensor

import losses
from losses import Target, transport
from losses.geometry import cell_centres
from losses.transport import choice, fused, squared_distance, together
from tests.contracts import crowd as crowds
from tests.contracts.crowd import inputs, predict, scatter

assert os.environ.get("TRITON_INTERPRET") == "1", "run by tests/losses/test_fused.py"
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
"""Numpy's, which computes for the interpreter, of NaN and overflow; and that of falling back to torch."""

FUSED = choice.Solver(fused.rounds, fused.floored_rounds, fused.annealed)
CPU = torch.device("cpu")
SIZE = (64, 96)
DIGITS = 1e-6
"""Eight units in the last place of float32."""


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solves by the kernels at once."""
    monkeypatch.setitem(choice._TESTED, CPU, FUSED)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer and larger programs: the interpreter takes milliseconds for each."""
    monkeypatch.setattr(fused, "TO_POINTS", fused._Tile(32, 8, 8, 1))
    monkeypatch.setattr(fused, "TO_CELLS", fused._Tile(128, 2, 8, 1))


def crowd(*counts: int, size: tuple[int, int] = SIZE, spread: float = 1.0) -> list[Tensor]:
    """Heads in each image; with a spread above 1 beside it too."""
    side = torch.tensor([size[1], size[0]]) / 2
    return [(scatter(count, size, seed=count) - side) * spread + side for count in counts]


def masses(images: int, cells: tuple[int, int], empty: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(images)
    mass = (torch.rand(images, *cells, generator=generator) - empty).clamp(min=0)
    return mass / mass.sum((1, 2), keepdim=True)


def near(found: Tensor, expected: Tensor, largest: float | None = None) -> None:
    """Within some last digits of the largest number that is computed with, by default the largest result."""
    assert found.dtype == torch.float32
    most = float(expected.abs().max()) if largest is None else largest
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=DIGITS * most)


# --- one half round --------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 9),
    cells=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    images=st.integers(1, 2),
    stride=st.sampled_from([1, 8, 300]),
    tile=st.tuples(*[st.sampled_from([1, 2, 4, 8])] * 3),
    to_cells=st.booleans(),
    log=st.booleans(),
)
def test_rounds_half_of_one_is_a_sum_of_exponentials(
    seed: int,
    n: int,
    cells: tuple[int, int],
    images: int,
    stride: int,
    tile: tuple[int, int, int],
    to_cells: bool,
    log: bool,
) -> None:
    """Beside scipy's logsumexp, whatever the tiles, with weights of nothing, and the gap of what was before."""
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.uniform(-stride, 5 * stride, (images, n, 2))).float()
    rate = float(rng.uniform(0.01, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "TO_CELLS" if to_cells else "TO_POINTS", fused._Tile(*tile, 1))
        plane = fused._Plane(points, cells, stride, rate, log=log)
        m = cells[0] * cells[1]
        outputs, others = (m, n) if to_cells else (n, m)
        weight, mass, before = (rng.uniform(0.1, 1, (images, k)) for k in (others, outputs, outputs))
        weight[rng.random(weight.shape) < 0.4] = 0
        weight[:, 0] = 0.5
        mass[rng.random(mass.shape) < 0.3] = 0
        before = before * (mass > 0)
        given_ = [torch.from_numpy(values).float() for values in (weight, mass, before)]
        w, a, into = (values.log2() if log else values.clone() for values in given_)
        old = into.clone()
        if to_cells:
            plane.to_cells(into, into, a, w, test=True)
        else:
            plane.to_points(into, a, w)
    x, y = points.double().numpy(), cell_centres(cells, stride, points).double().numpy()
    cost = ((x[:, :, None] - y[None, None]) ** 2).sum(-1)
    cost = cost.swapaxes(1, 2) if to_cells else cost
    weight, mass, before = (values.double().numpy() for values in given_)
    if log:
        largest = 1 + rate * cost.max()
        sums = logsumexp(-cost * rate * math.log(2), b=weight[:, None, :], axis=2) / math.log(2)
        expected, filled = np.full_like(mass, -np.inf), mass > 0
        expected[filled] = np.log2(mass[filled]) - sums[filled]
        np.testing.assert_allclose(into, expected, rtol=0, atol=1e-6 * largest)
        # Of the kernel's own result: e^t of a rounded t.
        t = np.where(filled, old.double().numpy(), 0) - np.where(filled, into.double().numpy(), 0)
        with np.errstate(over="ignore"):
            off = mass * np.expm1(t * math.log(2))
    else:
        sums = (weight[:, None, :] * 2.0 ** (-cost * rate)).sum(2)
        expected = mass / (sums + 1e-16)
        np.testing.assert_allclose(into, expected, rtol=1e-5 * (1 + rate * cost.max()), atol=1e-30)
        off = mass - before * sums
    if to_cells and (off**2).sum(1).max() < 1e30:
        np.testing.assert_allclose(plane.gaps.sum(1), (off**2).sum(1), rtol=1e-4, atol=1e-12)


# --- rounds ----------------------------------------------------------------------------------------------------------


def by_pot(points: list[Tensor], mass: Tensor, stride: int, reg: float, scale: float, rounds: int, stop: float):
    """The points' potential and the cells' c-transform of each image, in float64, and the largest cost."""
    for some, own in zip(points, mass.double(), strict=True):
        cost = squared_distance(some.double(), (mass.shape[1], mass.shape[2]), stride).numpy() * scale
        b, n = own.flatten().numpy(), len(some)
        filled, a = b > 0, np.full(n, 1 / n)
        with np.errstate(over="ignore"):  # of what POT gives beside the logarithms
            _, log = ot.sinkhorn(a, b[filled], cost[:, filled], reg, "sinkhorn_log", rounds, stop, log=True, warn=False)
        f = reg * (log["log_u"] - np.log(a))
        g = -reg * logsumexp((f[:, None] - cost) / reg, b=a[:, None], axis=0)
        yield torch.from_numpy(f), torch.from_numpy(g), float(cost.max())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("stride", "reg", "scale", "spread"),
    [
        pytest.param(8, 10.0, 1.0, 1.0, id="published"),
        pytest.param(8, 0.1, (2 / 96) ** 2, 1.0, id="normalised"),
        pytest.param(8, 100.0, 1.0, 3.0, id="outside"),
        pytest.param(150, 10.0, 1.0, 1.0, id="costs-of-a-million"),
    ],
)
def test_rounds_are_pots(stride: int, reg: float, scale: float, spread: float) -> None:
    """Padding, one person, empty cells, blocks that the sides do not fill; the tiles that a GPU gets."""
    points, mass = crowd(5, 1, 30, spread=spread), masses(3, (8, 12))
    points = [some * (stride / 8) for some in points]
    found = crowds.rounds(points, mass, stride, reg=reg, scale=scale, iterations=6)
    pots = by_pot(points, mass, stride, reg, scale, 6, 1e-9)
    plain = together._PLAIN.rounds(
        *crowds.padded([some.double() for some in points]), mass.double(), stride,
        reg=reg, scale=scale, iterations=6, tolerance=1e-9,
    )  # fmt: skip
    for image, (f, g, largest) in enumerate(pots):
        near(found[image].f, f, largest)
        near(found[image].g, g, largest)
        near(found[image].f, plain.f[image, : len(f)], largest)
        near(found[image].g, plain.g[image], largest)


@pytest.mark.usefixtures("unchecked", "wide")
def test_rounds_of_one_image_stop_before_anothers() -> None:
    points, mass = crowd(3, 1, 20), masses(3, (8, 12))
    stopping = list(by_pot(points, mass, 8, 200.0, 1.0, 24, 3e-3))
    going = list(by_pot(points, mass, 8, 200.0, 1.0, 24, 0.0))
    early = [float((stopped[0] - went_on[0]).abs().max()) for stopped, went_on in zip(stopping, going, strict=True)]
    assert early[0] == 0, "one that does not stop"
    assert early[2] > 10, "one that does, as can be seen"
    found = crowds.rounds(points, mass, 8, reg=200.0, scale=1.0, iterations=24, tolerance=3e-3)
    for image, (f, g, largest) in enumerate(stopping):
        near(found[image].f, f, largest)
        near(found[image].g, g, largest)


@pytest.mark.usefixtures("unchecked", "wide")
@pytest.mark.parametrize("nothing", [0.0, math.nan])
def test_rounds_without_mass_have_no_potentials(nothing: float) -> None:
    points, mass = crowd(9, 3, 4), masses(3, (8, 12))
    mass[1] = nothing
    found = crowds.rounds(points, mass, 8, reg=10.0, scale=1.0, iterations=3)
    assert not found[1].f.any()
    assert not found[1].g.any()
    pots = by_pot([points[0], points[2]], mass[[0, 2]], 8, 10.0, 1.0, 3, 0.0)
    for image, (f, g, largest) in zip((0, 2), pots, strict=True):
        near(found[image].f, f, largest)
        near(found[image].g, g, largest)


@pytest.mark.usefixtures("unchecked", "wide")
@pytest.mark.parametrize(("n", "cells"), [(1, (1, 1)), (300, (1, 3)), (1, (40, 41))])
def test_rounds_of_extreme_shapes(n: int, cells: tuple[int, int]) -> None:
    points, mass = crowd(n, size=(cells[0] * 8, cells[1] * 8)), masses(1, cells, empty=0.0)
    found = crowds.rounds(points, mass, 8, reg=10.0, scale=1.0, iterations=2)
    ((f, g, largest),) = by_pot(points, mass, 8, 10.0, 1.0, 2, 1e-9)
    near(found[0].f, f, largest)
    near(found[0].g, g, largest)


@pytest.mark.usefixtures("unchecked", "wide")
def test_rounds_of_masses_that_lie_otherwise_in_memory() -> None:
    points, mass = crowd(2, 3), masses(2, (8, 12))
    other = mass.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert other.stride() != mass.stride()
    for one, two in zip(
        *(crowds.rounds(points, some, 8, reg=10.0, scale=1.0, iterations=2) for some in (mass, other)), strict=True
    ):
        assert torch.equal(one.f, two.f)
        assert torch.equal(one.g, two.g)
    one, two = (crowds.floored_rounds(points, some, 8, reg=10.0, scale=1.0, iterations=2) for some in (mass, other))
    assert torch.equal(one, two)


# --- floored rounds --------------------------------------------------------------------------------------------------


def by_formula(points: Tensor, mass: Tensor, stride: int, reg: float, rounds: int, stop: float) -> tuple[Tensor, int]:
    """DM-Count's released rounds with the whole kernel, in float64, and how many were made."""
    kernel = torch.exp(-squared_distance(points.double(), (mass.shape[0], mass.shape[1]), stride) / reg)
    b, a = mass.double().flatten(), 1 / len(points)
    u = torch.full_like(kernel[:, 0], a)
    for done in range(1, rounds + 1):
        v = b / (kernel.T @ u + 1e-16)
        u = a / (kernel @ v + 1e-16)
        if done % 10 == 0 and float(((b - v * (kernel.T @ u)) ** 2).sum()) <= stop:
            break
    return (reg * (v + 1e-16).log()).view_as(mass), done


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spread", [1.0, 4.0])
@pytest.mark.parametrize("iterations", [1, 6])
def test_floored_rounds_are_the_released_ones(iterations: int, spread: float) -> None:
    """The tiles that a GPU gets; with people beside the map, most of the kernel underflows."""
    points, mass = crowd(5, 1, 30, spread=spread), masses(3, (8, 12))
    found = crowds.floored_rounds(points, mass, 8, reg=10.0, scale=1.0, iterations=iterations)
    for image, some in enumerate(points):
        expected, _ = by_formula(some, mass[image], 8, 10.0, iterations, 1e-9)
        near(found[image], expected)
        ours = transport.floored_rounds(
            some.double(), mass[image].double(), 8, reg=10.0, scale=1.0, iterations=iterations
        )
        near(found[image], ours)


@pytest.mark.usefixtures("unchecked", "wide")
def test_floored_rounds_stop_each_at_its_own() -> None:
    points, mass = crowd(3, 1, 20), masses(3, (8, 12))
    found = crowds.floored_rounds(points, mass, 8, reg=1e3, scale=1.0, iterations=23)
    made = []
    for image, some in enumerate(points):
        expected, done = by_formula(some, mass[image], 8, 1e3, 23, 1e-9)
        made.append(done)
        near(found[image], expected)
    assert len(set(made)) > 1, made


@pytest.mark.usefixtures("unchecked", "wide")
def test_floored_rounds_without_mass_are_the_floor() -> None:
    mass = masses(2, (8, 12))
    mass[0] = 0
    found = crowds.floored_rounds(crowd(4, 3), mass, 8, reg=10.0, scale=1.0, iterations=11)
    near(found[0], torch.full((8, 12), 10 * math.log(1e-16)))
    assert torch.isfinite(found).all()


# --- annealed --------------------------------------------------------------------------------------------------------


def annealed_by_scipy(cost, log_a, log_b, start: float, end: float, ratio: float, reach: float):
    """Both sides at once, averaged, at falling strengths, of one image in float64."""

    def step(f, g, eps):
        damping = 1 / (1 + eps / reach)
        return (
            -eps * damping * logsumexp(log_b[None, :] + (g[None, :] - cost) / eps, axis=1),
            -eps * damping * logsumexp(log_a[:, None] + (f[:, None] - cost) / eps, axis=0),
        )

    f, g = step(np.zeros(len(log_a)), np.zeros(len(log_b)), start)
    for eps in transport.epsilon_schedule(start, end, ratio):
        next_f, next_g = step(f, g, eps)
        f, g = (f + next_f) / 2, (g + next_g) / 2
    return step(f, g, end)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("reach", "most"), [(0.5, 2.0), (math.inf, 2.0), (0.5, 3e3)])
def test_annealed_is_scipys(reach: float, most: float) -> None:
    """Images of 37, 3 and 1 points, cells without mass, a start of their own each, costs of up to `most`."""
    counts, m, end = (37, 3, 1), 131, 0.05
    rng = np.random.default_rng(3)
    cost = torch.from_numpy(rng.uniform(0, most, (3, 37, m))).float()
    log_a = torch.full((3, 37), -1e5)
    for image, count in enumerate(counts):
        log_a[image, :count] = 0
    log_b = torch.from_numpy(rng.uniform(0.01, 1, (3, m))).float().log()
    log_b[:, 7:30] = -1e5
    start = torch.tensor([2.0, 0.3, end], dtype=torch.float64)
    found = together.annealed(cost, log_a, log_b, start, 4.0, end, 0.4, reach=reach)
    for image, count in enumerate(counts):
        own = cost[image, :count].double().numpy(), log_a[image, :count].double().numpy()
        f, g = annealed_by_scipy(*own, log_b[image].double().numpy(), float(start[image]), end, 0.4, reach)
        near(found.f[image, :count], torch.from_numpy(f), 4 * most)
        near(found.g[image], torch.from_numpy(g), 4 * most)


@pytest.mark.usefixtures("unchecked")
def test_annealed_takes_costs_that_are_not_contiguous() -> None:
    cost = torch.rand(2, 9, 5).mT
    some = torch.zeros(2, 5), torch.zeros(2, 9), torch.full((2,), 0.5, dtype=torch.float64)
    assert not cost.is_contiguous()
    for one, other in zip(
        together.annealed(cost, *some, 1.0, 0.1, 0.5, reach=0.5),
        together.annealed(cost.double(), *(x.double() for x in some), 1.0, 0.1, 0.5, reach=0.5),
        strict=True,
    ):
        near(one, other, 2.0)


# --- whole losses ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize(("name", "params"), [("dm_count", {"iterations": 22}), ("gl", {})])
def test_losses_have_the_values_and_gradients_of_the_cpu(
    name: str, params: dict[str, int], variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the check of the first use, which finds nothing; an image without people, one without mass."""
    prediction = predict(name, SIZE, batch=4, total=9.0)
    density = prediction.density
    assert density is not None
    prediction = prediction._replace(density=density.detach().index_fill(0, torch.tensor([3]), 0))
    target = Target([scatter(count, SIZE, seed=count) for count in (5, 0, 12, 2)], SIZE)

    def gradient() -> tuple[dict[str, Tensor], Tensor]:
        moved = prediction._replace(density=inputs(prediction)["density"].detach().requires_grad_())
        terms = losses.build(name, variant=variant, **params)(moved, target)
        return terms, torch.autograd.grad(terms["loss"], inputs(moved)["density"])[0]

    expected, slope = gradient()
    for module in [m for key, m in sys.modules.items() if key.startswith("losses.") and hasattr(m, "free_to_look")]:
        monkeypatch.setattr(module, "free_to_look", lambda tensor: False)
    found, other = gradient()
    assert choice._TESTED[CPU] is not None
    for term, value in expected.items():
        torch.testing.assert_close(found[term], value, rtol=2e-5, atol=2e-5 * float(expected["loss"].detach().abs()))
    torch.testing.assert_close(other, slope, rtol=0, atol=2e-5 * float(slope.abs().max()))
