"""Transport against POT, scipy, direct formulas and known answers."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from losses.transport import (
    balanced,
    chunks,
    dense,
    epsilon_schedule,
    floored,
    floored_rounds,
    softmin,
    squared_distance,
)


def problem(
    n: int = 12, side: int = 8, stride: int = 8, *, empty: float = 0.3, reach: float = 1.0, dtype=torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Cost, point masses and cell masses; a share of cells is empty, all points lie in the first share of the image."""
    points = torch.rand(n, 2, dtype=dtype) * side * stride * reach
    b = (torch.rand(side * side, dtype=dtype) - empty).clamp(min=0)
    return squared_distance(points, (side, side), stride), torch.full((n,), 1 / n, dtype=dtype), b / b.sum()


def plan_of(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, reg: float) -> Tensor:
    return a[:, None] * b * torch.exp((f[:, None] + g - cost) / reg)


def objective(plan: Tensor, cost: Tensor, a: Tensor, b: Tensor, reg: float) -> float:
    """<P, C> + reg KL(P | a b^T), from the definition."""
    some = plan > 0
    reference = (a[:, None] * b)[some]
    return float((plan * cost).sum() + reg * (plan[some] * (plan[some] / reference).log()).sum())


# --- softmin ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (300, 5), (70, 131)])
def test_softmin_is_logsumexp_whatever_the_tiles(monkeypatch, dim, shape):
    monkeypatch.setattr(dense, "_CPU_TILE", 256)
    cost = torch.rand(shape, dtype=torch.float64) * 1e4
    weight = torch.randn(shape[dim], dtype=torch.float64) * 100
    expected = -3 * torch.logsumexp(weight.unsqueeze(1 - dim) - cost / 3, dim)
    torch.testing.assert_close(softmin(cost, weight, 3.0, dim=dim), expected, rtol=1e-13, atol=1e-9)


def test_softmin_tends_to_the_minimum():
    cost = torch.rand(20, 30, dtype=torch.float64)
    torch.testing.assert_close(softmin(cost, torch.zeros(20).double(), 1e-6, dim=0), cost.amin(0), rtol=0, atol=1e-5)


# --- balanced --------------------------------------------------------------------------------------------------------


def test_balanced_solves_the_entropic_problem():
    cost, a, b = problem()
    f, g = balanced(cost, a, b, solver="pot", reg=100.0, iterations=5000, tolerance=1e-14)
    plan = plan_of(cost, a, b, f, g, 100.0)
    torch.testing.assert_close(plan.sum(0), b, rtol=0, atol=1e-12)
    torch.testing.assert_close(plan.sum(1), a, rtol=0, atol=1e-12)
    reference = torch.as_tensor(
        ot.sinkhorn(a.numpy(), b.numpy(), cost.numpy(), 100.0, method="sinkhorn", numItermax=20_000, stopThr=1e-14)
    )
    torch.testing.assert_close(plan, reference, rtol=0, atol=1e-12)
    assert float(f @ a + g @ b) == pytest.approx(objective(reference, cost, a, b, 100.0), rel=1e-10)


def test_dual_of_an_empty_cell_is_the_limit_of_a_vanishing_mass():
    cost, a, b = problem()
    hole = int((b == 0).nonzero()[0])
    _, g = balanced(cost, a, b, solver="pot", reg=50.0, iterations=5000)
    nearly = b.clone()
    nearly[hole] = 1e-9
    _, limit = balanced(cost, a, nearly / nearly.sum(), solver="pot", reg=50.0, iterations=5000)
    # Potentials are only defined up to a constant.
    torch.testing.assert_close(g - g @ b, limit - limit @ b, rtol=0, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 9))
def test_exact_is_the_assignment_for_equal_masses(seed, n):
    torch.manual_seed(seed)
    points = torch.rand(n, 2, dtype=torch.float64) * 64
    cost = squared_distance(points, (8, 8), 8)
    b = torch.zeros(64, dtype=torch.float64)
    b[torch.randperm(64)[:n]] = 1 / n
    a = torch.full((n,), 1 / n, dtype=torch.float64)
    f, g = balanced(cost, a, b, solver="exact", reg=1.0, iterations=1)
    filled = cost[:, b > 0].numpy()
    row, column = linear_sum_assignment(filled)
    assert float(f @ a + g @ b) == pytest.approx(filled[row, column].mean(), rel=1e-9)
    assert bool((f[:, None] + g <= cost + 1e-9).all()), "dual feasible in every cell, empty ones too"


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), reg=st.sampled_from([30.0, 100.0, 1000.0]))
def test_entropic_value_lies_between_exact_and_exact_plus_reg_log_n(seed, reg):
    torch.manual_seed(seed)
    cost, a, b = problem(7, 6)
    value = {s: balanced(cost, a, b, solver=s, reg=reg, iterations=3000) for s in ("pot", "exact")}
    entropic, exact = (float(f @ a + g @ b) for f, g in value.values())
    assert exact - 1e-6 * exact <= entropic <= exact + reg * math.log(7)


def test_known_permutation():
    """Points one cell to the right of the mass: every unit moves 8 pixels."""
    points = torch.tensor([[12.0, 4.0], [12.0, 60.0], [36.0, 28.0]], dtype=torch.float64)
    b = torch.zeros(8, 8, dtype=torch.float64)
    b[[0, 7, 3], [0, 0, 3]] = 1 / 3
    cost, a = squared_distance(points, (8, 8), 8), torch.full((3,), 1 / 3, dtype=torch.float64)
    for solver in ("exact", "pot"):
        f, g = balanced(cost, a, b.flatten(), solver=solver, reg=1.0, iterations=100)
        # Sinkhorn in the KL form adds reg KL(P | a b^T) = log 3 for a permutation of three.
        entropy = 0 if solver == "exact" else math.log(3)
        assert float(f @ a + g @ b.flatten()) == pytest.approx(64 + entropy, rel=1e-9)


# --- DM-Count's rounds -----------------------------------------------------------------------------------------------


def naive_rounds(points: Tensor, mass: Tensor, stride: int, reg: float, scale: float, iterations: int) -> np.ndarray:
    """The rounds from their formula, on the full kernel."""
    kernel = np.exp(-scale * squared_distance(points, tuple(mass.shape), stride).numpy() / reg)
    a, b = 1 / len(points), mass.flatten().numpy()
    u, v = np.full(len(points), a), np.zeros_like(b)
    for done in range(1, iterations + 1):
        v = b / (kernel.T @ u + 1e-16)
        u = a / (kernel @ v + 1e-16)
        if done % 10 == 0 and ((b - v * (kernel.T @ u)) ** 2).sum() <= 1e-9:
            break
    return reg * np.log(v + 1e-16)


@pytest.mark.parametrize(("reg", "scale"), [(10.0, 1.0), (0.1, (2 / 96) ** 2), (2.0, (2 / 96) ** 2)])
@pytest.mark.parametrize("iterations", [1, 9, 10, 100])
def test_floored_rounds_follow_the_formula(reg, scale, iterations):
    points = torch.rand(15, 2, dtype=torch.float64) * torch.tensor([64.0, 96.0])
    mass = (torch.rand(12, 8, dtype=torch.float64) - 0.2).clamp(min=0)
    mass /= mass.sum()
    found = floored_rounds(points, mass, 8, reg=reg, scale=scale, iterations=iterations)
    expected = naive_rounds(points, mass, 8, reg, scale, iterations)
    torch.testing.assert_close(found.flatten(), torch.from_numpy(expected), rtol=1e-10, atol=1e-10)


def test_floored_rounds_are_pots_where_the_floor_does_not_matter():
    """Normalised coordinates: POT's plain Sinkhorn works there, and the duals agree up to a constant."""
    points = torch.rand(15, 2, dtype=torch.float64) * 64
    mass = torch.rand(8, 8, dtype=torch.float64) + 0.05
    mass /= mass.sum()
    scale = (2 / 64) ** 2
    found = floored_rounds(points, mass, 8, reg=0.5, scale=scale, iterations=100).flatten()
    cost = squared_distance(points, (8, 8), 8).mul_(scale)
    a = np.full(15, 1 / 15)
    _, log = ot.sinkhorn(mass.flatten().numpy(), a, cost.T.numpy(), 0.5, log=True, numItermax=5000, stopThr=1e-12)
    expected = 0.5 * torch.from_numpy(log["u"]).log()
    # The official test of convergence stops at a squared error of 1e-9.
    torch.testing.assert_close(found - found.mean(), expected - expected.mean(), rtol=0, atol=2e-3)


def test_floor_is_the_dual_of_empty_and_of_unreachable_cells():
    mass = torch.zeros(64, 64, dtype=torch.float64)
    mass[0, 0], mass[63, 63] = 0.5, 0.5
    beta = floored_rounds(torch.tensor([[4.0, 4.0]]).double(), mass, 8, reg=10.0, scale=1.0, iterations=100)
    assert float(beta[5, 5]) == pytest.approx(10 * math.log(1e-16))
    assert float(beta[63, 63]) == pytest.approx(10 * math.log(0.5 / 1e-16))


# --- epsilon schedule -------------------------------------------------------------------------------------------------


def test_epsilon_schedule():
    assert epsilon_schedule(1.0, 0.2, 0.5) == [1.0, 1.0, 0.5, 0.25, 0.2]
    assert epsilon_schedule(1.0, 0.25, 0.5) == [1.0, 1.0, 0.5, 0.25]
    assert epsilon_schedule(0.1, 0.1, 0.5) == [0.1, 0.1]
    for bad in ((0.0, 0.1, 0.5), (1.0, 0.0, 0.5), (1.0, 0.1, 1.0), (1.0, 0.1, 0.0)):
        with pytest.raises(ValueError, match="0 < ratio < 1"):
            epsilon_schedule(*bad)


# ---- the fast ways of the CPU


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variance", [5.0, 40.0])
def test_a_sparse_kernel_is_the_whole_kernel(dtype, variance):
    """Beside exp of all distances, with points in cells, on borders, in corners and outside the map."""
    torch.manual_seed(3)
    points = torch.cat(
        [torch.rand(40, 2) * 512, torch.tensor([[0.0, 0.0], [512.0, 512.0], [-20.0, 300.0], [600.0, 700.0]])]
    )
    points, cells = points.to(dtype), (64, 60)
    sparse = floored._sparse_kernel(points, cells, 8, variance)
    kernel = torch.exp(-squared_distance(points.double(), cells, 8) / (2 * variance))
    v, u = torch.rand(cells, dtype=dtype), torch.rand(len(points), dtype=dtype)
    near = {"rtol": 2e-5 if dtype == torch.float32 else 1e-12, "atol": 1e-40}
    larger = chunks.padded(v.numpy(), 0)
    to_points, to_cells = np.empty_like(u.numpy()), np.empty_like(larger.ravel())
    chunks.to_points(*sparse, larger.ravel(), to_points)
    chunks.to_cells(*sparse, u.numpy(), to_cells)
    torch.testing.assert_close(torch.from_numpy(to_points).double(), kernel @ v.double().flatten(), **near)
    inside = torch.from_numpy(to_cells.reshape(larger.shape)[: cells[0], : cells[1]])
    torch.testing.assert_close(inside.double().flatten(), u.double() @ kernel, **near)
    assert to_cells.sum() == pytest.approx(float(inside.sum())), "nothing lies outside the map"


def test_what_a_sparse_kernel_leaves_out_is_zero_in_its_precision():
    """At the published constants, at a window of the size that is chosen: every entry left out underflows to zero."""
    points = torch.tensor([[256.0, 256.0], [3.0, 509.0]])
    for dtype in (torch.float32, torch.float64):
        own = points.to(dtype)
        kernel = floored._sparse_kernel(own, (64, 64), 8, 5.0)
        whole = torch.exp(-squared_distance(own, (64, 64), 8) / 10)
        rows = torch.zeros_like(whole)
        rows[kernel.owners()[:, None], kernel.cells()] = torch.from_numpy(kernel.entries)
        assert ((rows == 0) == (whole == 0)).double().mean() > 0.9999, "but for the last subnormal numbers"
        torch.testing.assert_close(rows, whole, rtol=1e-3, atol=torch.finfo(dtype).smallest_normal)
