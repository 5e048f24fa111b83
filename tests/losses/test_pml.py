"""PML: known answers, what its options mean, and where paper and released code part."""

from __future__ import annotations

import math

import pytest
import torch

from losses import PML, Prediction, Target, functional, proximal

STRIDE = 8
LONE = torch.tensor([[12.0, 12.0]])
"""At the centre of cell (1, 1) of a 3 x 3 map: distances 0, 8 and 8 sqrt(2)."""


def terms(density: torch.Tensor, points: torch.Tensor, **params: object) -> dict[str, float]:
    size = (density.shape[0] * STRIDE, density.shape[1] * STRIDE)
    out = PML(**params)(Prediction(STRIDE, density=density[None, None]), Target([points], size))
    return {key.removeprefix("term/"): value.item() for key, value in out.items()}


def costs() -> torch.Tensor:
    """exp(d / 32) - 1: no distance reaches the radius."""
    side, corner = math.expm1(8 / 32), math.expm1(8 * math.sqrt(2) / 32)
    return torch.tensor([[corner, side, corner], [side, 0.0, side], [corner, side, corner]], dtype=torch.float64)


def test_one_head_by_hand() -> None:
    density = torch.rand(3, 3, dtype=torch.float64)
    found = terms(density, LONE.double())
    assert found["background"] == pytest.approx((density * (costs() - costs().mean())).sum().item())
    assert found["count"] == pytest.approx(abs(density.sum().item() - 1))


def test_large_cell_sets_are_normalised_by_their_reach() -> None:
    """Beyond the radius the farthest cell costs e - 1, whatever the size of the image."""
    for cells in (9, 33):
        density = torch.zeros(cells, cells, dtype=torch.float64)
        density[-1, -1] = 1.0
        head = torch.tensor([[4.0, 4.0]], dtype=torch.float64)
        y, x = torch.meshgrid(torch.arange(cells).double(), torch.arange(cells).double(), indexing="ij")
        cost = torch.exp((x**2 + y**2).sqrt() / (math.sqrt(2) * (cells - 1))) - 1
        assert terms(density, head)["background"] == pytest.approx(math.e - 1 - cost.mean().item())


def test_linear_cost() -> None:
    density = torch.zeros(3, 3, dtype=torch.float64)
    density[1, 2] = 2.0
    mean = (4 * 8 + 4 * 8 * math.sqrt(2)) / 9 / 16
    assert terms(density, LONE.double(), cost="linear", radius=16.0)["background"] == pytest.approx(2 * (0.5 - mean))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, 2.0),
        ({"count_weight": 3.0}, 6.0),
        ({"count_norm": "l2"}, 2.0),  # (3 - 1)^2 / 2
        ({"tau": 4.5}, 1.0),  # 2 tau / n
        ({"count_norm": "l2", "tau": 4.5}, 1.0),  # tau / (2 n) (3 - 1)^2
        ({"count_norm": "l2", "tau": 4.5, "count_weight": 2.0}, 2.0),
    ],
    ids=str,
)
def test_count_norm_and_tau(params: dict[str, object], expected: float) -> None:
    density = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    assert terms(density, LONE.double(), **params)["count"] == pytest.approx(expected)


def test_dynamic_l2_target_has_the_slides_limit() -> None:
    """tau -> infinity: p* = a + (1 - 1'a) / n, so the gradient per tau is (1'a - 1) / n in every cell."""
    density = torch.rand(3, 3, dtype=torch.float64, requires_grad=True)
    functional.pml(density, LONE.double(), stride=STRIDE, count_norm="l2", tau=1e9).backward()
    assert density.grad is not None
    expected = torch.full((3, 3), (density.sum().item() - 1) / 9, dtype=torch.float64)
    torch.testing.assert_close(density.grad / 1e9, expected, rtol=1e-6, atol=1e-9)


def test_l2_norm_overcounts_by_what_the_docstring_says() -> None:
    """Mass m in the head's own cell: d/dm [m (0 - mean c) + w/2 (m - 1)^2] = 0 at m = 1 + mean c / w."""
    weight = 2.0
    best = 1 + costs().mean().item() / weight

    def value(mass: float) -> float:
        density = torch.zeros(3, 3, dtype=torch.float64)
        density[1, 1] = mass
        return terms(density, LONE.double(), count_norm="l2", count_weight=weight)["loss"]

    assert value(best) < value(best - 0.01)
    assert value(best) < value(best + 0.01)


def test_a_small_tau_is_unbounded_below_with_the_l1_norm() -> None:
    dot = torch.zeros(3, 3)
    dot[1, 1] = 1.0
    values = [terms(dot * mass, LONE, tau=0.1)["loss"] for mass in (1, 10, 100)]
    assert values[0] > values[1] > values[2]


def test_kl_by_hand() -> None:
    density = torch.rand(3, 3, dtype=torch.float64)
    eta = (density * torch.exp(-costs() / 0.5)).sum().item()
    found = terms(density, LONE.double(), divergence="kl", tau=0.5)
    assert found["count"] == pytest.approx(0.5 * (density.sum().item() - 1))
    assert found["background"] == pytest.approx(-0.5 * math.log(eta + 1e-3))


def test_the_lowest_of_duplicates_owns_the_cells() -> None:
    density = torch.rand(3, 3)
    once, twice = terms(density, LONE), terms(density, LONE.repeat(2, 1))
    assert twice["background"] == pytest.approx(once["background"], rel=1e-6)
    assert twice["count"] == pytest.approx(once["count"] + 1)


def test_an_empty_image() -> None:
    density = torch.full((3, 3), 0.25)
    found = terms(density, torch.zeros(0, 2))
    assert found["background"] == pytest.approx(2.25)
    assert found["count"] == pytest.approx(2.25)


TWO = torch.tensor([[4.0, 4.0], [20.0, 20.0]])


def test_paper_is_continuous_where_the_released_code_jumps() -> None:
    def value(total: float, **params: object) -> float:
        density = torch.zeros(3, 3)
        density[0, 0] = total  # on the first head: mass that the main branch rewards, and the fallback does not see
        return terms(density, TWO, **params)["loss"]

    assert value(1 + 1e-5) == pytest.approx(value(1 - 1e-5), abs=1e-4)
    released = {"variant": "official", "fallback_count": "points"}
    assert value(1 - 1e-5, **released) == pytest.approx(1.0, abs=1e-4)  # |S - 2|
    assert abs(value(1 + 1e-5, **released) - value(1 - 1e-5, **released)) > 0.01


def test_fallback_count() -> None:
    density = torch.full((3, 3), 0.05)
    assert terms(density, TWO, variant="official")["count"] == pytest.approx(24 - 0.45)  # the sum of x
    assert terms(density, TWO, variant="official", fallback_count="points")["count"] == pytest.approx(2 - 0.45)
    factor = {"factor": 10.0, "fallback_count": "points"}
    assert terms(density, TWO, variant="official", **factor)["count"] == pytest.approx(20 - 0.45)
    at_the_left_edge = torch.tensor([[0.0, 4.0], [0.0, 20.0]])
    found = terms(density, at_the_left_edge, variant="official")
    assert found["background"] == pytest.approx(0.45)  # counts as empty
    assert found["count"] == pytest.approx(0.45)


@pytest.mark.parametrize("params", [{}, {"fallback_count": "points"}, {"factor": 10.0}, {"count_norm": "l2"}], ids=str)
def test_the_target_of_the_fallback_has_the_losses_gradient(params: dict[str, object]) -> None:
    """L = |S - c factor|: with tau = N / L the gradient is tau (a - p*), and the target counts c factor."""
    density = torch.rand(3, 3, dtype=torch.float64) * 0.09
    prediction, annotation = Prediction(STRIDE, density=density[None, None]), Target([TWO.double()], (24, 24))
    loss = PML(variant="official", **params)
    (found,) = proximal.view(loss, prediction, annotation)
    assert found.target is not None
    count = 2 if params.get("fallback_count") == "points" else 24  # heads, or the sum of their x
    wanted = count * params.get("factor", 1.0)
    assert found.value.item() == pytest.approx(wanted - density.sum().item())
    assert found.target.sum().item() == pytest.approx(wanted)
    torch.testing.assert_close(9 / found.value * (density - found.target), found.gradient)
    torch.testing.assert_close(found.gradient, -torch.ones(3, 3, dtype=torch.float64))


def test_heads_at_the_left_edge_ask_for_nobody_where_the_loss_sees_none() -> None:
    """Their x sums to less than one: the released loss of an empty image, whose target is empty."""
    density = torch.full((1, 1, 3, 3), 0.2, dtype=torch.float64)
    annotation = Target([torch.tensor([[0.2, 4.0], [0.3, 20.0]], dtype=torch.float64)], (24, 24))
    (found,) = proximal.view(PML(variant="official"), Prediction(STRIDE, density=density), annotation)
    assert found.target is not None
    assert not found.target.any()
    assert (found.gradient > 0).all()
    (repaired,) = proximal.view(
        PML(variant="official", fallback_count="points"), Prediction(STRIDE, density=density), annotation
    )
    assert repaired.target is not None
    assert repaired.target.sum().item() == pytest.approx(2)


def test_official_centres_are_pixel_indices() -> None:
    """Half a pixel up and left: the official loss of heads moved by it is the paper's loss."""
    density, heads = torch.rand(5, 6).double(), torch.rand(4, 2).double() * 40
    ours = functional.pml(density, heads, stride=STRIDE)
    theirs = functional.pml(density, heads - 0.5, stride=STRIDE, variant="official")
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"count_norm": "l3"}, "count_norm must be one of l1, l2"),
        ({"divergence": "js"}, "divergence must be one of l2, kl"),
        ({"cost": "exponental"}, "Did you mean exponential"),
        ({"tau": 0.0}, "tau must be above 0"),
        ({"radius": -1.0}, "radius must be above 0"),
        ({"factor": 0.0}, "factor must be above 0"),
        ({"fallback_count": "y"}, "fallback_count must be one of x, points"),
    ],
    ids=str,
)
def test_bad_parameters(params: dict[str, object], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        PML(**params)
