"""The proximal view: closed forms on one cell against solvers, and the targets that the losses name.

`tests/benchmark/explain/test_propositions.py` runs the claims of `benchmark explain --check`; here are known answers,
the edges, and the zoo's targets.
"""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import kl_div, softmax
from torch import Tensor

import losses
from losses import Prediction, Target, proximal
from losses.proximal_table import MISPRINTS, TABLE
from tests.contracts.crowd import ALL, predict, scatter

SIZE = (48, 64)
numbers = st.floats(-3, 3, allow_nan=False)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_squared_by_hand() -> None:
    """Two cells, a = (0.5, 0.1), c = (0, 1), tau = 2: a - c / tau = (0.5, -0.4), eta = 0.45."""
    found = proximal.squared(tensor(0.5, 0.1), tensor(0.0, 1.0), 2.0)
    torch.testing.assert_close(found.target, tensor(0.95, 0.05))
    assert found.filler is not None
    assert found.filler.item() == pytest.approx(0.45)
    assert found.value.item() == pytest.approx(0.05 + 0.45**2 + 0.05**2)
    torch.testing.assert_close(found.gradient, tensor(-0.9, 0.1))


def test_the_simplex_keeps_what_the_affine_set_makes_negative() -> None:
    density, cost = tensor(0.5, 0.1), tensor(0.0, 3.0)
    assert proximal.squared(density, cost, 2.0).target.min() < 0
    found = proximal.squared(density, cost, 2.0, feasible="simplex")
    torch.testing.assert_close(found.target, tensor(1.0, 0.0))
    torch.testing.assert_close(found.gradient, tensor(-1.0, 0.2))


def test_l1_leaves_a_density_with_the_right_count_alone() -> None:
    density = tensor(0.0, 0.25, 0.75)  # all mass off the cheapest cell
    found = proximal.squared_l1(density, tensor(0.0, 1.0, 2.0))
    torch.testing.assert_close(found.target, density)
    torch.testing.assert_close(found.gradient, tensor(-1.0, 0.0, 1.0))
    l2 = proximal.squared(density, tensor(0.0, 1.0, 2.0), 3.0)
    assert (l2.target - density).abs().max() > 0.3


@pytest.mark.parametrize("total", [0.4, 2.5])
def test_l1_pulls_with_one_strength_whatever_the_error(total: float) -> None:
    cost = tensor(0.0, 1.0, 2.0, 5.0)
    pull = [proximal.squared_l1(torch.full_like(cost, s / 4), cost, 0.7).gradient - (cost - cost.mean())
            for s in (total, 1 + 2 * (total - 1))]  # fmt: skip
    for each in pull:
        torch.testing.assert_close(each, torch.full_like(cost, math.copysign(0.7, total - 1)))


def test_p2p_row_by_hand_above_one() -> None:
    """a = (1.5, 3), c = (0, 0.2), tau = 1: |delta - a|_1 is 3.5 at both, so that the cheaper cell is chosen.

    c - 2 tau a, which is the rule for a in [0, 1], would choose the other.
    """
    density, cost = tensor(1.5, 3.0), tensor(0.0, 0.2)
    assert (cost - 2 * density).argmin() == 1
    found = proximal.matched(density, cost, 1.0)
    torch.testing.assert_close(found.target, tensor(1.0, 0.0))
    assert found.value.item() == pytest.approx(3.5)
    torch.testing.assert_close(found.gradient, tensor(1.0, 1.0))


@given(st.lists(st.tuples(st.floats(-2, 4), st.floats(0, 3)), min_size=1, max_size=6), st.floats(0.05, 5))
def test_p2p_row_is_the_best_of_all_dirac_masses(cells: list[tuple[float, float]], tau: float) -> None:
    """By trying each, of densities below zero and above one, too."""
    density, cost = np.array(cells).T
    values = cost + tau * np.abs(np.eye(len(cells)) - density).sum(axis=1)
    found = proximal.matched(torch.from_numpy(density.copy()), torch.from_numpy(cost.copy()), tau)
    assert found.value.item() == pytest.approx(values.min(), abs=1e-9)
    assert values[int(found.target.argmax())] == pytest.approx(values.min(), abs=1e-9)


def test_bl_pulls_its_target_below_one() -> None:
    density, posterior = tensor(0.2, 0.2, 0.2), tensor(0.1, 0.4, 0.7)
    found = proximal.bayesian(density, posterior)
    assert found.target.sum().item() == pytest.approx(1 - 0.4 * 0.4)
    torch.testing.assert_close(found.gradient, posterior - 1)


def test_the_slides_posterior_grows_with_distance() -> None:
    found = proximal.slide_posterior(tensor(0, 10, 20, 29), 30.0, 8.0)
    assert (found.diff() > 0).all()
    peak = 1 / (math.sqrt(2 * math.pi) * 8)
    assert proximal.slide_posterior(tensor(30.0), 30.0, 8.0).item() == pytest.approx(peak / (1 + peak))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(1e-3, 1), st.floats(0, 2)), min_size=2, max_size=10),
    st.floats(0.3, 10),
    st.sampled_from(["simplex", "affine"]),
)
def test_kl_target_is_where_scipy_ends(cells: list[tuple[float, float]], tau: float, feasible: str) -> None:
    """The minimiser itself. Simplex: softmax(x), free. Affine: signs free but for the divergence, the last cell given
    by the others, so that nothing but 1'p = 1 is imposed."""
    a, c = np.array(cells).T
    found = proximal.entropic(torch.tensor(a), torch.tensor(c), tau)

    def objective(p: np.ndarray) -> float:
        return float(c @ p + tau * kl_div(p, a).sum()) / max(tau, 1.0)  # infinite where p < 0

    if feasible == "simplex":
        best = minimize(lambda x: objective(softmax(x)), np.zeros(len(a)), method="BFGS", options={"gtol": 1e-10})
        solved = softmax(best.x)
    else:
        start = np.full(len(a) - 1, 1 / len(a))
        best = minimize(
            lambda x: objective(np.append(x, 1 - x.sum())), start, method="Nelder-Mead",
            options={"xatol": 1e-12, "fatol": 1e-16, "maxiter": 40000, "maxfev": 40000, "adaptive": True},
        )  # fmt: skip
        solved = np.append(best.x, 1 - best.x.sum())
    np.testing.assert_allclose(found.target, solved, atol=2e-6)
    assert float(found.value) <= best.fun * max(tau, 1.0) + 1e-12


def test_cells_without_mass_stay_without_under_kl() -> None:
    found = proximal.entropic(tensor(0.0, 0.5, 0.5), tensor(0.0, 1.0, 2.0), 0.5)
    assert found.target[0] == 0
    assert torch.isfinite(found.gradient).all()
    assert found.target.sum().item() == pytest.approx(1.0)


@settings(deadline=None, max_examples=60)
@given(st.lists(numbers, min_size=1, max_size=20), st.floats(0.1, 5))
def test_projection_agrees_with_pot(values: list[float], total: float) -> None:
    found, shift = proximal.project_simplex(tensor(*values), total)
    np.testing.assert_allclose(found, ot.utils.proj_simplex(np.array(values), total), atol=1e-12)
    np.testing.assert_allclose(found, np.maximum(np.array(values) + shift.item(), 0), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: proximal.squared(torch.rand(3), torch.rand(4), 1.0), r"found shapes \(3,\) and \(4,\)"),
        (lambda: proximal.squared(torch.rand(2, 2), torch.rand(2, 2), 1.0), "two vectors of one length"),
        (lambda: proximal.squared(torch.rand(3), torch.rand(3), 0.0), "tau must be above 0"),
        (lambda: proximal.squared(torch.rand(3), torch.rand(3), 1.0, feasible="simplx"), "Did you mean simplex"),
        (lambda: proximal.entropic(torch.zeros(3), torch.rand(3), 1.0), "some mass"),
        (lambda: proximal.entropic(tensor(-1, 2), tensor(0, 1), 1.0), "minimum of -1"),
        (lambda: proximal.squared_l1(tensor(0.5, 0.5), tensor(0, 1), feasible="simplex"), "infinite"),
    ],
)
def test_what_raises(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_every_row_of_the_table_has_its_function() -> None:
    assert [row.loss for row in TABLE][:4] == ["L2 (Gaussian target)", "BL", "P2PNet", "DM-Count"]
    for row in TABLE:
        assert callable(getattr(proximal, row.function))
    assert len({print_.printed for print_ in MISPRINTS}) == len(MISPRINTS)


# ---------------------------------------------------------------------------------------------------------------------
# Losses of the zoo


def view(name: str, prediction: Prediction, points: Tensor, **params: object) -> proximal.View:
    (found,) = proximal.view(losses.build(name, **params), prediction, Target([points], SIZE))
    return found


@pytest.mark.parametrize(("name", "variant"), ALL)
@pytest.mark.parametrize("count", [0, 1, 7])
def test_every_loss_names_a_target(name: str, variant: str, count: int) -> None:
    prediction = predict(name, SIZE, total=4.0, dtype=torch.float64)
    found = view(name, prediction, scatter(count, SIZE, torch.float64), variant=variant)
    assert found.target is not None
    assert found.target.shape == found.gradient.shape
    assert found.target.isfinite().all()
    assert found.gradient.isfinite().all()
    if count == 0:
        assert not found.target.any()
    main = prediction.density if prediction.density is not None else prediction.logits
    assert main is not None
    assert main.grad is None  # a look changes nothing


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_a_view_of_a_batch_is_that_of_its_images(name: str, variant: str) -> None:
    batch = predict(name, SIZE, batch=2, dtype=torch.float64)
    points = [scatter(4, SIZE, torch.float64), scatter(2, SIZE, torch.float64, seed=5)]
    loss = losses.build(name, variant=variant)
    both = proximal.view(loss, batch, Target(points, SIZE, short_side=torch.tensor([48.0, 300.0])))
    single = {k: v[1:].detach() for k, v in batch._asdict().items() if isinstance(v, Tensor)}
    target = Target(points[1:], SIZE, short_side=torch.tensor([300.0]))
    (one,) = proximal.view(loss, batch._replace(**single), target)
    torch.testing.assert_close(both[1].gradient, one.gradient)
    torch.testing.assert_close(both[1].target, one.target)


@pytest.mark.parametrize("params", [{}, {"count_norm": "l2"}, {"tau": 9.0}, {"count_norm": "l2", "tau": 9.0}], ids=str)
def test_pml_moves_towards_its_target(params: dict[str, object]) -> None:
    """On every head's cells the gradient is one tau times (a - p*), and the target counts one."""
    prediction, points = predict("pml", SIZE, total=4.0, dtype=torch.float64), scatter(5, SIZE, torch.float64)
    found = view("pml", prediction, points, **params)
    assert found.target is not None
    assert prediction.density is not None
    assert found.target.sum().item() == pytest.approx(5.0)
    moved = (prediction.density.detach()[0, 0] - found.target).flatten()
    owner = np.argmin(_distances(points), axis=1)
    for head in range(5):
        own = torch.from_numpy(owner == head)
        tau = found.gradient.flatten()[own] / moved[own]
        torch.testing.assert_close(tau, tau[0].expand_as(tau))
        assert tau[0] > 0
        assert found.target.flatten()[own].sum().item() == pytest.approx(1.0)


def test_kl_target_is_where_the_gradient_says() -> None:
    prediction, points = predict("pml", SIZE, total=4.0, dtype=torch.float64), scatter(5, SIZE, torch.float64)
    found = view("pml", prediction, points, divergence="kl", tau=2.0)
    assert found.target is not None
    assert prediction.density is not None
    density = prediction.density.detach()[0, 0]
    torch.testing.assert_close(density * found.gradient, 2.0 * (density - found.target))


def test_fixed_targets_do_not_depend_on_the_density() -> None:
    points = scatter(5, SIZE, torch.float64)
    for name in ("l2", "noisecc", "chfl"):
        few, many = (view(name, predict(name, SIZE, total=t, dtype=torch.float64), points).target for t in (1.0, 9.0))
        torch.testing.assert_close(few, many)


@pytest.mark.parametrize("name", ["l2", "noisecc", "chfl"])
def test_at_its_own_target_a_regression_rests(name: str) -> None:
    points = torch.tensor([[30.0, 22.0]], dtype=torch.float64)
    at = predict(name, SIZE, stride=4, dtype=torch.float64)
    away = view(name, at, points)
    assert away.target is not None
    there = view(name, Prediction(4, density=away.target[None, None]), points)
    assert there.value < 0.02 * away.value


def test_dm_counts_target_is_the_density_with_the_right_count() -> None:
    prediction = predict("dm_count", SIZE, total=2.0, dtype=torch.float64)
    found = view("dm_count", prediction, scatter(5, SIZE, torch.float64))
    assert prediction.density is not None
    torch.testing.assert_close(found.target, prediction.density.detach()[0, 0] * 2.5)


def test_p2p_wants_one_proposal_a_head() -> None:
    found = view("p2p", predict("p2p", SIZE, dtype=torch.float64), scatter(5, SIZE, torch.float64))
    assert found.target is not None
    assert sorted(found.target.unique().tolist()) == [0, 1]
    assert found.target.sum() == 5
    assert (found.gradient[found.target == 1] < 0).all()  # more of it
    assert (found.gradient[found.target == 0] > 0).all()


def test_bl_target_has_the_slides_form_for_one_head() -> None:
    """a - gradient |count - 1| / n, with the loss's own count."""
    prediction, points = predict("bl", SIZE, total=0.6, dtype=torch.float64), scatter(1, SIZE, torch.float64)
    found = view("bl", prediction, points)
    assert prediction.density is not None
    density = prediction.density.detach()[0, 0]
    assert found.target is not None
    step = (density - found.target) / found.gradient
    people = losses.build("bl")(Prediction(8, density=density[None, None]), Target([points], SIZE))["term/people"]
    torch.testing.assert_close(step, (people / density.numel()).expand_as(step))


def test_gl_target_is_what_its_pixel_term_regresses() -> None:
    prediction, points = predict("gl", SIZE, total=4.0, dtype=torch.float64), scatter(5, SIZE, torch.float64)
    found = view("gl", prediction, points)
    assert prediction.density is not None
    assert found.target is not None
    pixel = losses.build("gl", tau=1.0)(prediction, Target([points], SIZE))["term/pixel"]
    plain = view("gl", prediction, points, tau=1.0).target
    assert plain is not None
    assert pixel.item() == pytest.approx((plain - prediction.density.detach()[0, 0]).square().sum().item())


def _distances(points: Tensor) -> np.ndarray:
    y, x = np.mgrid[4 : SIZE[0] : 8, 4 : SIZE[1] : 8]
    return np.hypot(x.reshape(-1, 1) - points[:, 0].numpy(), y.reshape(-1, 1) - points[:, 1].numpy())


@pytest.mark.parametrize("name", ["bl", "noisecc"])
def test_a_view_knows_visible_shares_and_the_whole_image(name: str) -> None:
    """As the loss itself on the same batch."""
    prediction, points = predict(name, SIZE, total=4.0, dtype=torch.float64), scatter(5, SIZE, torch.float64)
    target = Target([points], SIZE, visible=[torch.linspace(0.2, 1, 5)], short_side=torch.tensor([300.0]))
    assert prediction.density is not None
    (expected,) = torch.autograd.grad(losses.build(name)(prediction, target)["loss"], prediction.density)
    (found,) = proximal.view(losses.build(name), prediction, target)
    torch.testing.assert_close(found.gradient, expected[0, 0])
    (plain,) = proximal.view(losses.build(name), prediction, target._replace(visible=None))
    assert (plain.gradient - found.gradient).abs().max() > 1e-6


def test_bl_target_has_each_heads_own_number_of_cells() -> None:
    """a - gradient |count_j - 1| / n_j on the n_j cells nearest to head j."""
    prediction, points = predict("bl", SIZE, total=2.0, dtype=torch.float64), scatter(4, SIZE, torch.float64)
    found = view("bl", prediction, points)
    assert prediction.density is not None
    assert found.target is not None
    step = ((prediction.density.detach()[0, 0] - found.target) / found.gradient).flatten()
    owner = np.argmin(_distances(points), axis=1)
    sizes = np.bincount(owner, minlength=4)
    people = []
    for head in range(4):
        own = step[torch.from_numpy(owner == head)]
        torch.testing.assert_close(own, own[0].expand_as(own))
        people.append(float(own[0]) * sizes[head])  # |count_j - 1|
    loss = losses.build("bl")(prediction, Target([points], SIZE))
    assert sum(people) == pytest.approx(loss["term/people"].item())
