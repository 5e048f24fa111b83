"""GL's compiled sweeps against dense formulas, POT's unbalanced transport and numpy's exponentials."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from losses.gl import _COSTS
from losses.transport import DistanceCost, epsilon_schedule, unbalanced
from losses.transport.unbalanced import Duals, Plane
from tests.references.naive_gl import potentials

DTYPES = [np.float32, np.float64]
CLOSE = {np.float32: 3e-5, np.float64: 1e-11}


def dense_cost(plane: Plane) -> NDArray[np.float64]:
    """The cost of all pairs from its definition, (n, h, w), in float64."""
    x, y, ys, xs, numbers = (part.astype(np.float64) for part in plane.pairs)
    slope, offset, least, most = numbers
    distance = np.hypot(xs - x[:, None, None], ys[:, None] - y[:, None, None])
    length = np.maximum(slope * (ys[:, None] + y[:, None, None]) + offset, least)
    return np.expm1(np.minimum(distance / length, most))


def plane_of(points: Any, cells: tuple[int, int], cost: str = "perspective", dtype: Any = np.float64) -> Plane:
    """A map whose longer side is 1."""
    axes = [((np.arange(count) + 0.5) / max(cells)).astype(dtype) for count in cells]
    return Plane(np.asarray(points, dtype), (axes[0], axes[1]), _COSTS[cost])


def masses(cells: tuple[int, int], total: float, empty: float, rng: np.random.Generator) -> NDArray[np.float64]:
    b = np.maximum(rng.random(cells) - empty, 0)
    return b * total / max(b.sum(), 1e-12)


def log_of(b: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(divide="ignore"):
        found: NDArray[Any] = np.where(b > 0, np.log(b), -1e5)
    return found


def naive(plane: Plane, log_b: NDArray[Any], schedule: list[float], reach: float) -> tuple[Any, Any]:
    cost = torch.from_numpy(dense_cost(plane)).flatten(1)
    log_a = torch.zeros(len(cost), dtype=torch.float64)
    f, g = potentials(cost, log_a, torch.from_numpy(log_b).double().flatten(), schedule, reach)
    return f.numpy(), g.numpy().reshape(plane.cells)


# ---- what the vectors are made of


@pytest.mark.parametrize("dtype", DTYPES)
def test_exponentials_and_logarithms_are_those_of_numpy(dtype: Any) -> None:
    """To two roundings, or to that of the exponent: a rounding of x is one of x times 2^x."""
    eps = float(np.finfo(dtype).eps)
    rng = np.random.default_rng(0)
    log = numba.njit(lambda number: unbalanced._log(number))
    most = 0.8 * np.finfo(dtype).maxexp
    for exponent in np.concatenate([rng.uniform(-most, most, 2000), rng.uniform(-1, 1, 2000), [0, most, -most]]):
        x = dtype(exponent)
        found = unbalanced._entry(x, dtype(-most), dtype(most))
        assert found == pytest.approx(2.0 ** float(x), rel=2 * eps)
        assert log(dtype(found)) == pytest.approx(math.log(found), rel=2 * eps, abs=2 * eps)
    assert unbalanced._entry(dtype(1e9), dtype(-3), dtype(4)) == 16
    assert unbalanced._entry(dtype(-1e9), dtype(-3), dtype(4)) == 0.125


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_prices_keep_their_digits(dtype: Any) -> None:
    eps = float(np.finfo(dtype).eps)
    rng = np.random.default_rng(0)
    for gap in np.concatenate([10.0 ** rng.uniform(-12, 1, 2000), [0.0]]).astype(dtype):
        numbers = [dtype(value) for value in (gap, 0, 1, 10, math.log2(math.e))]
        found = unbalanced._price(*numbers)
        # Of the square and its root, and of the exponent, which is larger the dearer the pair is.
        assert found == pytest.approx(math.expm1(min(float(gap), 10)), rel=(3 + 2 * float(gap)) * eps)
    assert unbalanced._price(*(dtype(value) for value in (3, 16, 9, 10, math.log2(math.e)))) == pytest.approx(
        math.expm1(10), rel=20 * eps
    )


# ---- steps


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cells=st.tuples(st.sampled_from([1, 2, 15, 16, 17, 40]), st.sampled_from([1, 3, 16, 31, 64, 65, 130])),
    n=st.integers(1, 70),
    spread=st.sampled_from([0.2, 1.0, 3.0]),
    empty=st.sampled_from([0.0, 0.5, 0.98, 1.0]),
    blur=st.sampled_from([0.1, 0.01, 0.002]),
    cost=st.sampled_from(["perspective", "exp"]),
    dtype=st.sampled_from(DTYPES),
)
def test_potentials_are_those_of_the_dense_formula(seed, cells, n, spread, empty, blur, cost, dtype):
    """Heads inside the map, in a corner of it, and up to a map's size outside; cells without mass; no mass at all."""
    rng = np.random.default_rng(seed)
    plane = plane_of(0.5 + (rng.random((n, 2)) - 0.5) * spread, cells, cost, dtype)
    log_b = log_of(masses(cells, n, empty, rng)).astype(dtype)
    schedule = epsilon_schedule(2.0, blur, 0.5)
    f, g = plane.solve(log_b, schedule, 0.5)
    expected_f, expected_g = naive(plane, log_b, schedule, 0.5)
    # Potentials of heads outside are as large as their cost, and so is their rounding.
    close = CLOSE[dtype] * (1 + max(abs(expected_f).max(), abs(expected_g).max()))
    np.testing.assert_allclose(f, expected_f, rtol=0, atol=close)
    np.testing.assert_allclose(g, expected_g, rtol=0, atol=close)


@pytest.mark.parametrize("reach", [0.1, 0.5, 5.0])
def test_a_long_schedule_ends_at_pots_unbalanced_solution(reach: float) -> None:
    """POT's reg KL(P | a b^T) + reg_m (KL(P 1 | a) + KL(P^T 1 | b)) is the same problem; both run to convergence."""
    rng = np.random.default_rng(1)
    plane, b = plane_of(rng.random((9, 2)), (5, 7)), masses((5, 7), 9.0, 0.0, rng)
    f, g = plane.solve(np.log(b), [*epsilon_schedule(1.0, 0.05, 0.5), *[0.05] * 2000], reach)
    cost = dense_cost(plane)
    plan = b * np.exp((f[:, None, None] + g - cost) / 0.05)
    expected = ot.unbalanced.sinkhorn_unbalanced(
        np.ones(9), b.ravel(), cost.reshape(9, -1), 0.05, reach, numItermax=50_000, stopThr=1e-15
    )
    np.testing.assert_allclose(plan.reshape(9, -1), expected, rtol=1e-8, atol=1e-10)


def test_the_dense_formula_ends_at_pots_solutions_too() -> None:
    """Unbalanced, and balanced where mass cannot stay behind."""
    rng = np.random.default_rng(2)
    cost, a, b = rng.random((9, 14)), rng.random(9) + 0.1, rng.random(14) + 0.1
    b *= a.sum() / b.sum()
    for reach, solve in (
        (0.5, lambda: ot.unbalanced.sinkhorn_unbalanced(a, b, cost, 0.05, 0.5, numItermax=50_000, stopThr=1e-15)),
        (math.inf, lambda: ot.sinkhorn(a, b, cost, 0.05, numItermax=50_000, stopThr=1e-15)),
    ):
        tensors = [torch.from_numpy(part) for part in (cost, np.log(a), np.log(b))]
        f, g = potentials(*tensors, [*epsilon_schedule(1.0, 0.05, 0.5), *[0.05] * 2000], reach)
        plan = a[:, None] * b * np.exp((f.numpy()[:, None] + g.numpy() - cost) / 0.05)
        np.testing.assert_allclose(plan, solve(), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [(40.0, 0.5), (0.5, -9.0), (1e4, 1e4)])
def test_heads_out_of_reach_are_solved_again(dtype: Any, place: tuple[float, float], monkeypatch) -> None:
    """Their exponentials underflow; with potentials of the step before they might overflow."""
    again: list[str] = []
    for name in ("_from_cells", "_from_points"):
        solve = getattr(Plane, name)
        monkeypatch.setattr(Plane, name, lambda *a, name=name, solve=solve: (again.append(name), solve(*a))[1])
    rng = np.random.default_rng(3)
    plane = plane_of([*rng.random((20, 2)), place], (24, 40), dtype=dtype)
    log_b, schedule = log_of(masses((24, 40), 21, 0.3, rng)), epsilon_schedule(2.0, 0.01, 0.5)
    f, g = plane.solve(log_b, schedule, 0.5)
    expected_f, expected_g = naive(plane, log_b, schedule, 0.5)
    assert "_from_cells" in again
    close = CLOSE[dtype] * (1 + abs(expected_f).max())
    np.testing.assert_allclose(f, expected_f, rtol=0, atol=close)
    np.testing.assert_allclose(g[:], expected_g, rtol=0, atol=close)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([0.01, 0.3, 3.0, 30.0]),
    eps=st.sampled_from([0.005, 0.1, 2.0]),
    dtype=st.sampled_from(DTYPES),
)
def test_a_step_from_any_potentials_is_the_dense_one(seed: int, size: float, eps: float, dtype: Any) -> None:
    """From potentials as no step would have them: sums of 1e-2000 and of 1e2000."""
    rng = np.random.default_rng(seed)
    n, cells = int(rng.integers(1, 30)), (18, 70)
    plane, log_b = plane_of(rng.random((n, 2)), cells, dtype=dtype), log_of(masses(cells, n, 0.4, rng))
    f, g = rng.normal(size=n) * size, rng.normal(size=cells) * size
    found = plane._step(f, g, log_b, eps, math.inf)
    cost = torch.from_numpy(dense_cost(plane))
    f, g, log_b = (torch.from_numpy(part) for part in (f, g, log_b))
    expected_f = -eps * torch.logsumexp((log_b + (g - cost) / eps).flatten(1), 1)
    expected_g = -eps * torch.logsumexp((f[:, None, None] - cost) / eps, 0)
    close = CLOSE[dtype] * (1 + 5 * size)
    np.testing.assert_allclose(found.f, expected_f, rtol=0, atol=close)
    np.testing.assert_allclose(found.g, expected_g, rtol=0, atol=close)


# ---- sums over the plan


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cells=st.tuples(st.sampled_from([1, 7, 16, 33]), st.sampled_from([1, 5, 16, 47, 64, 81])),
    n=st.integers(1, 150),
    empty=st.sampled_from([0.0, 0.5, 0.98]),
    scale=st.sampled_from([1e-20, 1e-6, 1.0]),
    dtype=st.sampled_from(DTYPES),
)
def test_sums_over_the_plan_are_those_of_the_matrix(seed, cells, n, empty, scale, dtype):
    rng = np.random.default_rng(seed)
    plane, density = plane_of(rng.random((n, 2)), cells, dtype=dtype), masses(cells, n * scale, empty, rng)
    density.flat[0] = max(density.flat[0], 1e-3 * scale)  # some mass: a loss gives potentials to none without
    density, eps = density.astype(dtype), 0.01
    f, g = plane.solve(log_of(density), epsilon_schedule(2.0, eps, 0.5), 0.5)
    duals = Duals(f.astype(dtype), g.astype(dtype))
    kernel = np.exp((duals.f.astype(float)[:, None, None] + duals.g - dense_cost(plane)) / eps)
    plan, a = kernel * density + 1e-20, rng.normal(size=n)
    points, moved = plane.sums(duals, density, eps)
    entropy, slope, pull = plane.entropy(duals, a, density, eps)
    # float32 knows an exponent of up to 200 to 1e-5; the plan's sums are of the size of a person.
    close = {"rtol": 2e-4 if dtype == np.float32 else 1e-10, "atol": 1e-4 if dtype == np.float32 else 1e-11}
    most = kernel.sum(0).max()
    np.testing.assert_allclose(points, (kernel * density).sum((1, 2)), **close)
    np.testing.assert_allclose(moved / most, kernel.sum(0) / most, **close)
    np.testing.assert_allclose(pull / most, np.tensordot(a, kernel, 1) / most, **close)
    assert entropy == pytest.approx((plan * np.log(plan)).sum(), rel=close["rtol"], abs=n * close["atol"])
    expected = ((np.log(plan) + 1) * kernel).sum(0)
    np.testing.assert_allclose(slope / abs(expected).max(), expected / abs(expected).max(), **close)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), eps=st.sampled_from([0.01, 0.05, 0.3]), lost=st.sampled_from([1e-3, 1e-9, 1e-20]))
def test_what_is_left_out_is_below_its_limit(seed: int, eps: float, lost: float) -> None:
    """And with a limit as large as this something is left out, or the test would show nothing."""
    rng = np.random.default_rng(seed)
    cells = (48, 192)
    plane = plane_of(rng.random((12, 2)) * [1, 0.25], cells)
    f, g, b = rng.normal(size=12) * 0.1, rng.normal(size=cells) * 0.1, rng.random(cells)
    rows, columns = plane._sums(Duals(f, g), np.ones(12), b, eps, lost)
    kernel = np.exp((f[:, None, None] + g - dense_cost(plane)) / eps)
    missing_rows, missing_columns = (kernel * b).sum((1, 2)) - rows, kernel.sum(0) - columns
    assert missing_rows.max() <= lost * b.sum() + 1e-12 * rows.max()
    assert missing_columns.max() <= lost * 12 + 1e-12 * columns.max()
    assert min(missing_rows.min(), missing_columns.min()) >= -1e-12 * max(rows.max(), columns.max())
    if eps == 0.01 and lost == 1e-3:
        assert missing_columns.max() > 1e-9


def test_a_cost_is_read_as_it_is_written() -> None:
    """Length, its least value and the cap on the exponent."""
    axes = (np.array([0.5]), np.array([0.5, 1.5]))
    for cost, expected in (
        (DistanceCost(0, 2, 0.1, 10), math.expm1(0.5)),
        (DistanceCost(1, 1, 0.1, 10), math.expm1(1 / 2)),
        (DistanceCost(0, 1e-9, 0.5, 10), math.expm1(2)),
        (DistanceCost(0, 1e-9, 1e-9, 3), math.expm1(3)),
    ):
        points, _ = Plane(np.array([[0.5, 0.5]]), axes, cost)._least(np.zeros(1), np.array([[-1e9, 0.0]]))
        assert points == pytest.approx(expected)


@pytest.mark.parametrize("total", [1e12, 1e18, 1e30])
def test_no_mass_is_so_large_that_the_least_entries_count(total: float) -> None:
    """Entries are cut at 2^-102 in float32; times a mass of 1e30 that would be seen."""
    rng = np.random.default_rng(4)
    cells = (12, 20)
    plane, log_b = plane_of(rng.random((9, 2)), cells, dtype=np.float32), log_of(masses(cells, total, 0.3, rng))
    schedule = epsilon_schedule(2.0, 0.01, 0.5)
    f, g = plane.solve(log_b, schedule, 0.5)
    expected_f, expected_g = naive(plane, log_b, schedule, 0.5)
    close = CLOSE[np.float32] * (1 + max(abs(expected_f).max(), abs(expected_g).max()))
    np.testing.assert_allclose(f, expected_f, rtol=0, atol=close)
    np.testing.assert_allclose(g, expected_g, rtol=0, atol=close)


@pytest.mark.parametrize("cost", ["perspective", "exp"])
@pytest.mark.parametrize("cells", [(1, 1), (8, 8), (20, 33)])
@pytest.mark.parametrize("away", [2.0, 5.8, 7.0, 20.0])
def test_prices_so_large_that_their_rounding_is_the_entropy(cost: str, cells: tuple[int, int], away: float) -> None:
    """Heads crops away at a blur of 5e-4: in float32 a price is off by more than what may be left out."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        angle = rng.random(20) * 2 * math.pi
        ring = np.stack([np.cos(angle), np.sin(angle)], 1) * away * (1 + 0.1 * rng.random((20, 1))) + 0.5
        plane, log_b = plane_of(ring, cells, cost, np.float32), log_of(masses(cells, 20, 0.2, rng))
        schedule = epsilon_schedule(2.0, 5e-4, 0.5)
        f, g = plane.solve(log_b, schedule, 0.5)
        expected_f, expected_g = naive(plane, log_b, schedule, 0.5)
        close = CLOSE[np.float32] * (1 + max(abs(expected_f).max(), abs(expected_g).max()))
        np.testing.assert_allclose(f, expected_f, rtol=0, atol=close)
        np.testing.assert_allclose(g, expected_g, rtol=0, atol=close)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_find_the_same(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A strip of the map each; three strips of five rows of tiles."""
    rng = np.random.default_rng(5)
    cells = (70, 50)
    plane, log_b = plane_of(rng.random((30, 2)), cells, dtype=dtype), log_of(masses(cells, 30, 0.3, rng))
    schedule, density = epsilon_schedule(1.4, 0.01, 0.5), masses(cells, 30, 0.3, rng)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(unbalanced, "_WORTH_A_THREAD", 1)
        monkeypatch.setattr(unbalanced.torch, "get_num_threads", lambda threads=threads: threads)
        assert len(plane._strips(5)) == threads
        duals = plane.solve(log_b, schedule, 0.5)
        entropy, slope, pull = plane.entropy(duals, np.ones(30), density, 0.01)
        found.append([*duals, *plane.sums(duals, density, 0.01), np.array([entropy]), slope, pull])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=CLOSE[dtype] * abs(one).max())
