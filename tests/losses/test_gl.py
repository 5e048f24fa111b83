"""GL against POT's unbalanced transport, a dense formula, known answers and its own symmetries."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from losses import GL, Prediction, Target
from losses.transport import epsilon_schedule
from tests.references.naive_gl import potentials

SIZE = (48, 64)
CELLS = (6, 8)


def case(n: int = 9, *, empty: float = 0.2, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    density = (torch.rand(1, 1, *CELLS, dtype=dtype) - empty).clamp(min=0)
    return density * n / density.sum(), torch.rand(n, 2, dtype=dtype) * torch.tensor([64.0, 48.0], dtype=dtype)


def terms(
    loss: GL, density: Tensor, *points: Tensor, stride: int = 8, size: tuple[int, int] = SIZE
) -> dict[str, float]:
    out = loss(Prediction(stride, density=density), Target(list(points), size))
    return {key.removeprefix("term/"): float(value.detach()) for key, value in out.items()}


def dense_cost(points: Tensor, *, cost: str = "perspective", offset: float = 0.5) -> Tensor:
    """The cost from its definition, one pair at a time."""
    rows = []
    for x, y in (points / 64).tolist():
        row = []
        for r in range(CELLS[0]):
            for c in range(CELLS[1]):
                cx, cy = (c + offset) * 8 / 64, (r + offset) * 8 / 64
                z = 0.2 * (y + cy) / 2 + 0.5 if cost == "perspective" else 0.6
                row.append(math.exp(math.hypot(x - cx, y - cy) / z) - 1)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def dense_loss(density: Tensor, points: Tensor, loss: GL) -> Tensor:
    """The formula on the full plan, differentiated by autograd, the potentials constant."""
    offset = 1.0 if loss.official else 0.5
    cost, d = dense_cost(points, cost=loss.cost, offset=offset), density.flatten()
    low, high = torch.tensor([offset, offset]) * 8, torch.tensor([7 + offset, 5 + offset]) * 8
    span = torch.maximum(points.amax(0), high.double()) - torch.minimum(points.amin(0), low.double())
    log_d = torch.where(d > 0, d.log(), -1e5).detach()
    schedule = epsilon_schedule(float((span / 64).norm()), loss.blur, loss.scaling)
    g, f = potentials(cost, torch.zeros(len(points)).double(), log_d, schedule, loss.reach)
    plan = d * torch.exp((g[:, None] + f - cost) / loss.blur)
    emd = sum((m * (loss.reach + loss.blur / 2) * (1 - torch.exp(-t / loss.reach))).sum() for m, t in ((d, f), (1, g)))
    point = (plan.sum(1) - 1).abs().sum()
    pixel = (plan.sum(0).detach() - d).square().sum()
    entropy = ((plan + 1e-20) * (plan + 1e-20).log()).mean()
    return emd + loss.tau * (point + pixel) + loss.blur * entropy


def relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q) - p + q).sum())


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("cost", ["perspective", "exp"])
def test_value_and_gradient_are_those_of_the_dense_formula(variant, cost):
    density, points = case()
    loss = GL(variant=variant, cost=cost)
    fast, dense = density.clone().requires_grad_(), density.clone().requires_grad_()
    value = loss(Prediction(8, density=fast), Target([points], SIZE))["loss"]
    expected = dense_loss(dense, points, loss)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(value, fast)[0], torch.autograd.grad(expected, dense)[0], rtol=1e-8, atol=1e-10
    )


def test_emd_is_the_cost_of_pots_unbalanced_plan():
    """With many small steps the potentials converge, and emd is the optimum up to constants of the masses."""
    density, points = case(empty=0.0)
    eps, reach = 0.05, 0.5
    found = terms(GL(scaling=0.999, blur=eps, reach=reach), density, points)["emd"]
    cost, a, b = dense_cost(points).numpy(), np.ones(9), density.flatten().numpy()
    plan = ot.unbalanced.sinkhorn_unbalanced(a, b, cost, eps, reach, numItermax=100_000, stopThr=1e-15)
    optimum = (
        (plan * cost).sum()
        + eps * relative_entropy(plan, np.outer(a, b))
        + reach * (relative_entropy(plan.sum(1), a) + relative_entropy(plan.sum(0), b))
    )
    # At the optimum |P| = sum a exp(-f / reach) = sum b exp(-g / reach); put into the dual objective, this remains.
    constants = eps * a.sum() * b.sum() - eps / 2 * (a.sum() + b.sum())
    # Annealing by 0.1 % a step leaves an error of 2.5e-6; it falls in proportion to the step.
    assert found == pytest.approx(optimum - constants, rel=5e-6)


def test_one_person_exactly_under_one_unit_costs_almost_nothing():
    density = torch.zeros(1, 1, *CELLS, dtype=torch.float64)
    density[0, 0, 2, 3] = 1
    place = torch.tensor([[28.0, 20.0]]).double()
    paper = terms(GL(), density, place)
    assert {key: paper[key] for key in ("emd", "point", "pixel")} == pytest.approx(
        {"emd": 0, "point": 0, "pixel": 0}, abs=1e-9
    )
    official = terms(GL(variant="official"), density, place)
    assert official["emd"] > 0.05, "half a cell off"
    assert terms(GL(variant="official"), density, place + 4)["emd"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_an_image_without_people(variant):
    density, _ = case()
    found = terms(GL(variant=variant, tau=0.3), density, torch.zeros(0, 2).double())
    assert found["loss"] == pytest.approx(1.6 * float(density.sum()))
    assert found["entropy"] == 0


def test_official_sums_the_entropy_over_the_batch():
    density, points = case()
    batch = density.expand(3, 1, *CELLS)
    for variant, factor in (("paper", 1), ("official", 3)):
        loss = GL(variant=variant)
        single, three = terms(loss, density, points), terms(loss, batch, points, points, points)
        assert three["entropy"] == pytest.approx(factor * single["entropy"])
        assert three["emd"] == pytest.approx(single["emd"])


def test_batch_of_paper_is_the_mean_of_its_images():
    cases = [case(5), case(9), (torch.rand(1, 1, *CELLS).double(), torch.zeros(0, 2).double())]
    single = [terms(GL(), d, p) for d, p in cases]
    batch = terms(GL(), torch.cat([d for d, _ in cases]), *(p for _, p in cases))
    assert batch == pytest.approx({key: sum(s[key] for s in single) / 3 for key in batch})


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 20), cost=st.sampled_from(["perspective", "exp"]))
def test_a_horizontal_flip_changes_nothing(seed, n, cost):
    """Holds for cells whose centre is where it belongs; the vertical flip only without perspective."""
    torch.manual_seed(seed)
    density, points = case(n)
    loss = GL(cost=cost)
    mirrored = torch.stack([SIZE[1] - points[:, 0], points[:, 1]], 1)
    straight = terms(loss, density, points)
    assert terms(loss, density.flip(3), mirrored) == pytest.approx(straight, rel=1e-9)
    upside_down = torch.stack([points[:, 0], SIZE[0] - points[:, 1]], 1)
    same = terms(loss, density.flip(2), upside_down) == pytest.approx(straight, rel=1e-9)
    assert same == (cost == "exp")


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.sampled_from([2, 3]))
def test_only_the_shape_of_the_image_matters(seed, factor):
    torch.manual_seed(seed)
    density, points = case()
    larger = (SIZE[0] * factor, SIZE[1] * factor)
    found = terms(GL(), density, points * factor, stride=8 * factor, size=larger)
    assert found == pytest.approx(terms(GL(), density, points), rel=1e-9)
    assert terms(GL(crop_size=64.0), density, points) == pytest.approx(terms(GL(), density, points), rel=1e-12)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("mass", [0.0, 1e-38, 1e-12, 1e-3, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_mass_is_finite(variant, mass, dtype):
    density, points = case(dtype=dtype)
    density = (density * mass).requires_grad_()
    loss = GL(variant=variant)(Prediction(8, density=density), Target([points], SIZE))["loss"]
    loss.backward()
    assert bool(loss.isfinite())
    assert density.grad is not None
    assert bool(density.grad.isfinite().all())


@pytest.mark.parametrize("cost", ["perspective", "exp"])
@pytest.mark.parametrize(
    "place", [(1e6, 20.0), (-1e6, 20.0), (30.0, 1e6), (30.0, -1e6), (30.0, -320.0), (30.0, -350.0)]
)
def test_a_head_far_outside_is_left_behind(cost, place):
    """It costs the price of leaving one person unexplained, reach + blur / 2, and disturbs nobody."""
    density, points = case(dtype=torch.float32)
    loss = GL(cost=cost, tau=0.0)
    stray = torch.cat([points, torch.tensor([place])])
    extra = terms(loss, density, stray)["emd"] - terms(loss, density, points)["emd"]
    assert extra == pytest.approx(0.505, abs=0.03), "a longer schedule changes the other potentials slightly"


def test_norms_are_exchangeable():
    density, points = case()
    density = density * 1.7
    usual, swapped = (terms(GL(point_norm=a, pixel_norm=b), density, points) for a, b in (("l1", "l2"), ("l2", "l1")))
    assert swapped["emd"] == usual["emd"]
    cost = dense_cost(points)
    # Both read the same plan, so the 2-norm bounds the 1-norm and is bounded by it.
    for name, size in (("point", cost.shape[0]), ("pixel", cost.shape[1])):
        one, two = (usual, swapped) if name == "point" else (swapped, usual)
        assert (one[name] / 0.1) ** 2 / size <= two[name] / 0.1 <= (one[name] / 0.1) ** 2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tau": -1.0}, "tau must be at least 0; found -1.0"),
        ({"reach": 0.0}, "reach must be above 0; found 0.0"),
        ({"blur": math.nan}, "blur must be finite; found nan"),
        ({"crop_size": -5}, "crop_size must be above 0; found -5"),
        ({"scaling": 1.0}, "scaling must lie between 0 and 1; found 1.0"),
        ({"cost": "per"}, "cost must be one of perspective, exp; found 'per'"),
        ({"point_norm": "L1"}, "point_norm must be one of l1, l2; found 'L1'"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        GL(**params)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    density, points = case(dtype=torch.float32)
    half = density.to(dtype).requires_grad_()
    value = GL()(Prediction(8, density=half), Target([points.to(dtype)], SIZE))["loss"]
    (gradient,) = torch.autograd.grad(value, half)
    whole = terms(GL(), half.detach().float(), points.to(dtype).float())["loss"]
    assert value.dtype == gradient.dtype == dtype
    assert value.item() == pytest.approx(whole, rel=0.02)
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("most", [1e38, math.inf])
def test_a_diverged_density_gives_a_loss_that_says_so(most):
    """The run that watches its loss ends it; nothing else is raised here."""
    density, points = case(dtype=torch.float32)
    density = torch.full_like(density, most).requires_grad_()
    value = GL(validate=False)(Prediction(8, density=density), Target([points], SIZE))["loss"]
    assert not bool(value.isfinite())
