"""DM-Count against known answers, finite differences and its own symmetries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from losses import DMCount, Prediction, Target
from losses.transport import balanced, floored_rounds, squared_distance

SIZE = (48, 64)
CELLS = (6, 8)


def case(n: int = 9, *, empty: float = 0.2, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    density = (torch.rand(1, 1, *CELLS, dtype=dtype) - empty).clamp(min=0)
    return density * n / density.sum(), torch.rand(n, 2, dtype=dtype) * torch.tensor([64.0, 48.0], dtype=dtype)


def terms(loss: DMCount, density: Tensor, *points: Tensor) -> dict[str, float]:
    out = loss(Prediction(8, density=density), Target(list(points), SIZE))
    return {key.removeprefix("term/"): float(value.detach()) for key, value in out.items()}


def gradient(loss: DMCount, density: Tensor, *points: Tensor) -> Tensor:
    density = density.clone().requires_grad_()
    loss(Prediction(8, density=density), Target(list(points), SIZE))["loss"].backward()
    assert density.grad is not None
    return density.grad


@pytest.mark.parametrize("solver", ["pot", "stabilised", "exact"])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_a_dirac_costs_its_squared_distance(solver, shift):
    density = torch.zeros(1, 1, *CELLS, dtype=torch.float64)
    density[0, 0, 2, 1 + shift] = 1
    found = terms(DMCount(solver=solver), density, torch.tensor([[12.0, 20.0]]).double())
    moved = shift > 0
    expected = {"count": 0.0, "ot": 0.1 * (8 * shift) ** 2, "tv": 0.01 * moved}
    assert found == pytest.approx({**expected, "loss": sum(expected.values())}, abs=1e-12)


def test_count_and_variation_by_hand():
    """Two people on three cells of mass 1, 2 and 1, one person under the first: TV = 1/2 (1/4 + 1/2 + 1/4 ...)."""
    density = torch.zeros(1, 1, *CELLS, dtype=torch.float64)
    density[0, 0, 0, :3] = torch.tensor([1.0, 2.0, 1.0])
    points = torch.tensor([[1.0, 1.0], [33.0, 1.0]]).double()  # cells 0 and 4
    variation = 0.5 * (abs(1 / 4 - 1 / 2) + 1 / 2 + 1 / 4 + 1 / 2)
    paper = terms(DMCount(), density, points)
    assert paper["count"] == pytest.approx(2)
    assert paper["tv"] == pytest.approx(0.01 * 2 * variation)
    official = terms(DMCount(variant="official"), density, points)
    assert official["tv"] == pytest.approx(0.01 * 2 * 2 * variation, rel=1e-5)
    assert official["ot"] == 0


def test_official_rounds_points_to_the_nearest_pixel_index():
    """A head at x = 7.6 lies in pixel 7, cell 0; rounded it is pixel 8, cell 1."""
    density = torch.zeros(1, 1, *CELLS, dtype=torch.float64)
    density[0, 0, 0, 0] = 1
    point = torch.tensor([[7.6, 1.0]]).double()
    assert terms(DMCount(), density, point)["tv"] == 0
    assert terms(DMCount(variant="official"), density, point)["tv"] == pytest.approx(0.01 * 2, rel=1e-5)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_normalise_divides_lengths_by_half_the_longer_side(variant):
    density, points = case()
    scale = (2 / 64) ** 2
    options = {"variant": variant, "tv_weight": 0.0, "ot_weight": 1.0, "iterations": 20}
    normal = gradient(DMCount(reg=100.0 * scale, normalise=True, **options), density, points)
    pixels = gradient(DMCount(reg=100.0, **options), density, points)
    torch.testing.assert_close(normal, pixels * scale, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", ["pot", "stabilised"])
@pytest.mark.parametrize("normalise", [False, True])
def test_gradient_is_the_derivative_of_the_value_once_converged(solver, normalise):
    """Central differences in filled cells, one-sided ones in empty cells, whose dual is the soft c-transform's."""
    reg = 200.0 * (2 / 64) ** 2 if normalise else 200.0
    loss = DMCount(reg=reg, iterations=5000, solver=solver, normalise=normalise, ot_weight=1.0, tv_weight=0.0)
    density, points = case()
    found = gradient(loss, density * 1.1, points).flatten()
    flat = (density * 1.1).flatten()
    cells = [*(flat > 0).nonzero()[:4, 0].tolist(), *(flat == 0).nonzero()[:3, 0].tolist()]
    for i in cells:
        h = 1e-5
        values = []
        for sign in (1, -1 if flat[i] > 0 else 0):
            moved = flat.clone()
            moved[i] += sign * h
            values.append(terms(loss, moved.view_as(density), points)["loss"])
        slope = (values[0] - values[1]) / (2 * h if flat[i] > 0 else h)
        # A one-sided difference is only exact to first order in h.
        assert float(found[i]) == pytest.approx(slope, rel=2e-5 if flat[i] > 0 else 2e-2, abs=1e-6)


def test_paper_and_official_solve_the_same_problem_on_normalised_coordinates():
    """Their gradients differ by exactly the entropy's reference: reg log b in the official dual."""
    density = torch.rand(1, 1, *CELLS, dtype=torch.float64) + 0.1
    density, points = density * 9 / density.sum(), case()[1]
    options = {"reg": 1.0, "normalise": True, "ot_weight": 1.0, "tv_weight": 0.0, "iterations": 100}
    total = density.sum()
    b = density / total
    found = [gradient(DMCount(variant=v, **options), density * 1.5, points) for v in ("paper", "official")]
    reference = b.log() - (b * b.log()).sum()
    torch.testing.assert_close(found[1] - found[0], reference / (1.5 * total), rtol=0, atol=2e-4)


def test_official_gradient_in_pixel_units_is_its_floored_dual():
    density, points = case()
    total = density.sum()
    found = gradient(DMCount(variant="official", ot_weight=1.0, tv_weight=0.0), density * 2, points)
    beta = floored_rounds(points, density[0, 0] / total, 8, reg=10.0, scale=1.0, iterations=100)
    expected = (beta - (beta * density[0, 0] / total).sum()) / (2 * total) + 1  # the count pulls down
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-4, atol=1e-3)
    holes = density[0, 0] == 0
    assert float(beta[holes].max()) == pytest.approx(10 * math.log(1e-16))


def test_paper_averages_and_official_sums_transport():
    density, points = case()
    batch = density.expand(3, 1, *CELLS)
    for variant, share in (("paper", 1 / 3), ("official", 1.0)):
        loss = DMCount(variant=variant, ot_weight=1.0, tv_weight=0.0)
        single = gradient(loss, density, points)
        torch.testing.assert_close(gradient(loss, batch, points, points, points)[0], single[0] * share)


def test_batch_of_paper_is_the_mean_of_its_images():
    loss = DMCount(solver="stabilised")
    cases = [case(5), case(9), (torch.rand(1, 1, *CELLS).double(), torch.zeros(0, 2).double())]
    single = [terms(loss, d, p) for d, p in cases]
    batch = terms(loss, torch.cat([d for d, _ in cases]), *(p for _, p in cases))
    assert batch == pytest.approx({key: sum(s[key] for s in single) / 3 for key in batch})


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_an_image_without_people_costs_its_mass(variant):
    density, _ = case()
    nobody = torch.zeros(0, 2).double()
    assert terms(DMCount(variant=variant), density, nobody)["loss"] == pytest.approx(float(density.sum()))
    torch.testing.assert_close(gradient(DMCount(variant=variant), density, nobody), torch.ones_like(density))


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("mass", [0.0, 1e-30, 1e-8, 1e-3])
def test_a_map_with_hardly_any_mass_is_finite(variant, mass):
    density, points = case(dtype=torch.float32)
    density = density * mass
    assert math.isfinite(terms(DMCount(variant=variant), density, points)["loss"])
    slope = gradient(DMCount(variant=variant), density, points)
    assert float(slope.abs().max()) < 1e10, "normalising by 1e-6 at least bounds it; NaN fails too"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 20), solver=st.sampled_from(["pot", "stabilised"]))
def test_flipping_image_and_points_changes_nothing(seed, n, solver):
    torch.manual_seed(seed)
    density, points = case(n)
    loss = DMCount(solver=solver)
    mirrored = torch.stack([SIZE[1] - points[:, 0], SIZE[0] - points[:, 1]], 1)
    assert terms(loss, density.flip(2, 3), mirrored) == pytest.approx(terms(loss, density, points), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.1, 10))
def test_transport_and_variation_do_not_depend_on_the_count(seed, factor):
    torch.manual_seed(seed)
    density, points = case()
    one, other = (terms(DMCount(solver="stabilised"), d, points) for d in (density, density * factor))
    assert other["ot"] == pytest.approx(one["ot"], rel=1e-9)
    assert other["tv"] == pytest.approx(one["tv"], rel=1e-9)
    assert other["count"] == pytest.approx(9 * abs(factor - 1), abs=1e-9)


def test_value_is_the_dual_objective():
    density, points = case()
    b = (density / density.sum()).flatten()
    a = torch.full((9,), 1 / 9, dtype=torch.float64)
    f, g = balanced(squared_distance(points, CELLS, 8), a, b, solver="pot", reg=10.0, iterations=100)
    assert terms(DMCount(), density, points)["ot"] == pytest.approx(0.1 * float(f @ a + g @ b), rel=1e-12)


@pytest.mark.parametrize("options", [{}, {"reg": 0.1, "normalise": True}, {"reg": 1.0, "iterations": 7}])
def test_the_default_solver_has_pots_numbers(options):
    density, points = case(20)
    pot, default = DMCount(solver="pot", **options), DMCount(**options)
    assert default.solver == "stabilised"
    assert terms(default, density, points) == pytest.approx(terms(pot, density, points), rel=1e-11)
    torch.testing.assert_close(gradient(default, density, points), gradient(pot, density, points), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ot_weight": -1.0}, "ot_weight must be at least 0; found -1.0"),
        ({"tv_weight": math.nan}, "tv_weight must be finite; found nan"),
        ({"reg": 0.0}, "reg must be above 0; found 0.0"),
        ({"iterations": 0}, "iterations must be an integer of at least 1; found 0"),
        ({"iterations": 1.5}, "iterations must be an integer"),
        ({"solver": "fast"}, "solver must be one of pot, stabilised, exact; found 'fast'"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        DMCount(**params)
