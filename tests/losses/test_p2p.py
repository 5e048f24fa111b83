"""P2P against brute force, known answers and gradcheck."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from losses import P2P, Prediction, Target
from losses.p2p import anchors, match

SIZE = (32, 48)


def proposals(batch: int = 1, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    grid = anchors(4, 6, 8).to(dtype).expand(batch, -1, -1)
    return grid + torch.randn_like(grid), torch.randn_like(grid)


def heads(n: int, dtype=torch.float64) -> Tensor:
    return torch.rand(n, 2, dtype=dtype) * torch.tensor([48.0, 32.0], dtype=dtype)


def run(loss: P2P, points: Tensor, logits: Tensor, *targets: Tensor) -> dict[str, Tensor]:
    return loss(Prediction(8, points=points, logits=logits), Target(list(targets), SIZE))


def test_anchors_lie_a_quarter_stride_from_the_centre():
    found = anchors(2, 3, 8)
    assert found.shape == (24, 2)
    assert found.dtype == torch.float32
    assert found[:8].tolist() == [[2, 2], [6, 2], [2, 6], [6, 6], [10, 2], [14, 2], [10, 6], [14, 6]]
    assert found[12].tolist() == [2, 10], "the next row of cells follows after all columns"


@settings(max_examples=30, deadline=None)
@given(
    h=st.integers(1, 5), w=st.integers(1, 5), stride=st.integers(1, 16), rows=st.integers(1, 4), cols=st.integers(1, 3)
)
def test_anchors_of_a_cell_are_centred_and_inside(h, w, stride, rows, cols):
    found = anchors(h, w, stride, rows, cols, like=torch.empty(0, dtype=torch.float64)).view(h, w, rows * cols, 2)
    centre = (torch.cartesian_prod(torch.arange(h), torch.arange(w)).flip(1).double() + 0.5) * stride
    torch.testing.assert_close(found.mean(2).view(-1, 2), centre)
    inside = (found - centre.view(h, w, 1, 2)).abs() < stride / 2
    assert bool(inside.all())


def test_anchors_check_their_numbers():
    with pytest.raises(ValueError, match="must be positive"):
        anchors(0, 3, 8)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 5), q=st.integers(1, 5), weight=st.sampled_from([0.0, 0.05, 1.0]))
def test_match_is_the_cheapest_of_all_assignments(seed, n, q, weight):
    torch.manual_seed(seed)
    points, logits, targets = torch.rand(q, 2) * 20, torch.randn(q, 2), torch.rand(n, 2) * 20
    cost = [
        [weight * math.dist(t, p) - s for p, s in zip(points.tolist(), logits.softmax(1)[:, 1].tolist(), strict=True)]
        for t in targets.tolist()
    ]
    least = min(
        (
            sum(cost[t][p] for t, p in zip(chosen, order, strict=True))
            for chosen in itertools.combinations(range(n), min(n, q))
            for order in itertools.permutations(range(q), min(n, q))
        ),
        default=0.0,
    )
    proposal, target = match(points, logits, targets, cost_point=weight)
    assert len(set(proposal.tolist())) == len(set(target.tolist())) == len(proposal) == min(n, q)
    found = sum(cost[t][p] for t, p in zip(target.tolist(), proposal.tolist(), strict=True))
    assert found == pytest.approx(least, abs=1e-5)


def test_a_batch_is_matched_as_its_images_are_at_the_cost_of_the_dense_solver():
    """Enough heads in the first and last image that they are matched from candidates."""
    points = anchors(32, 32, 8).expand(3, -1, -1) + torch.randn(3, 4096, 2)
    logits = torch.randn(3, 4096, 2)
    targets = [torch.rand(n, 2) * 256 for n in (300, 4, 150)]
    target = Target(targets, (256, 256))
    dealt = P2P().targets(Prediction(8, points=points, logits=logits), target)
    for b, image in enumerate(targets):
        proposal, head = match(points[b], logits[b], image)
        assert head.tolist() == list(range(len(image)))
        cost = 0.05 * torch.cdist(image.double(), points[b].double()) - logits[b].double().softmax(1)[:, 1]
        best = cost[linear_sum_assignment(cost.numpy())].sum()
        assert float(cost[head, proposal].sum()) == pytest.approx(float(best), rel=1e-9)
        assert dealt[b] is not None
        assert dealt[b].nonzero().flatten().tolist() == sorted(proposal.tolist())


def test_perfect_proposals_are_found_whatever_their_order():
    targets = heads(20)
    order = torch.randperm(20)
    proposal, target = match(targets[order], torch.zeros(20, 2).double(), targets)
    assert torch.equal(order[proposal], target)


def test_indifferent_logits_cost_log_two():
    points, _ = proposals(2)
    out = run(P2P(), points, torch.zeros_like(points), heads(7), heads(0))
    assert float(out["term/ce"]) == pytest.approx(math.log(2))


def test_distance_term_by_hand():
    """Seven matched pairs, each (3, 4) pixels off: 25 px^2 a head, whatever the batch's distribution."""
    targets = [heads(5), heads(2)]
    points = torch.full((2, 5, 2), 1e3, dtype=torch.float64)
    points[0] = targets[0] + torch.tensor([3.0, 4.0])
    points[1, :2] = targets[1] + torch.tensor([3.0, 4.0])
    # A high price of distance makes the identity the cheapest matching: no pair could swap for less.
    out = run(P2P(cost_point=1e3), points, torch.zeros_like(points), *targets)
    assert float(out["term/point"]) <= 2e-4 * 25 + 1e-12
    lone = run(P2P(), points[:, :1], torch.zeros(2, 1, 2).double(), targets[0][:1], targets[1][:1])
    assert float(lone["term/point"]) == pytest.approx(2e-4 * 25)


def test_cross_entropy_is_weighted_over_the_whole_batch():
    points, logits = proposals(2)
    targets = [heads(9), heads(1)]
    out = run(P2P(eos=0.25), points, logits, *targets)
    above = below = 0.0
    for b in range(2):
        matched = set(match(points[b], logits[b], targets[b])[0].tolist())
        for q, row in enumerate(logits[b].log_softmax(1).tolist()):
            weight = 1.0 if q in matched else 0.25
            above -= weight * row[int(q in matched)]
            below += weight
    assert float(out["term/ce"]) == pytest.approx(above / below)
    single = [float(run(P2P(eos=0.25), points[b : b + 1], logits[b : b + 1], targets[b])["loss"]) for b in range(2)]
    assert float(out["loss"]) != pytest.approx(sum(single) / 2, rel=1e-3), "the batch is not the mean of its images"


def test_sure_logits_cost_what_cross_entropy_says():
    points, logits = proposals(2)
    logits = (logits * 200).requires_grad_()
    targets = [heads(9), heads(1)]
    loss = run(P2P(variant="official"), points, logits, *targets)["loss"]
    (gradient,) = torch.autograd.grad(loss, logits)
    person = torch.stack(P2P().targets(Prediction(8, points=points, logits=logits), Target(targets, SIZE))).long()
    expected = F.cross_entropy(logits.flatten(0, 1), person.flatten(), torch.tensor([0.5, 1.0]).double())
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])


def test_official_drops_the_point_term():
    points, logits = proposals()
    points, targets = points.requires_grad_(), heads(6)
    official, paper = (run(P2P(variant=v), points, logits, targets) for v in ("official", "paper"))
    assert set(official) == {"loss", "term/ce"}
    assert float(official["loss"]) == pytest.approx(float((paper["loss"] - paper["term/point"]).detach()))
    assert not official["loss"].requires_grad, "nothing of it depends on the places of the proposals"


@pytest.mark.parametrize("counts", [(0,), (1,), (6, 0, 3), (200,)])
def test_gradient_is_exact(counts):
    points, logits = proposals(len(counts))
    points, logits = points[:, :30].contiguous().requires_grad_(), logits[:, :30].contiguous().requires_grad_()
    targets = [heads(n) for n in counts]
    loss = P2P(point_weight=0.01)
    assert torch.autograd.gradcheck(lambda p, z: run(loss, p, z, *targets)["loss"], (points, logits))


def test_unmatched_heads_count_in_the_normaliser():
    points, logits = proposals()
    targets = heads(300)
    proposal, target = match(points[0], logits[0], targets)
    assert len(proposal) == points.shape[1] < 300
    squares = (points[0, proposal] - targets[target]).square().sum()
    assert float(run(P2P(), points, logits, targets)["term/point"]) == pytest.approx(float(2e-4 * squares / 300))


def test_a_batch_without_heads_pushes_all_to_background():
    points, logits = proposals(2)
    points, logits = points.requires_grad_(), logits.requires_grad_()
    out = run(P2P(), points, logits, heads(0), heads(0))
    out["loss"].backward()
    assert float(out["term/point"]) == 0
    assert logits.grad is not None
    assert bool((logits.grad[..., 0] < 0).all())
    assert bool((logits.grad[..., 1] > 0).all())
    assert points.grad is not None
    assert float(points.grad.abs().max()) == 0


def test_descent_finds_the_people():
    """Free proposals and logits end with one confident proposal on every head."""
    grid = anchors(4, 6, 8)[None]
    points, logits = grid.clone().requires_grad_(), torch.zeros_like(grid).requires_grad_()
    targets = heads(8, torch.float32)
    optimiser = torch.optim.Adam([points, logits], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        run(P2P(point_weight=0.1), points, logits, targets)["loss"].backward()
        optimiser.step()
    sure = points[0, logits[0].softmax(-1)[:, 1] > 0.5].detach()
    assert len(sure) == 8
    assert float(torch.cdist(targets, sure).amin(1).max()) < 0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"eos": 0.0}, "eos must be above 0; found 0.0"),
        ({"cost_point": -1.0}, "cost_point must be at least 0; found -1.0"),
        ({"point_weight": math.inf}, "point_weight must be finite; found inf"),
    ],
)
def test_parameters_are_checked(params, message):
    with pytest.raises(ValueError, match=message):
        P2P(**params)
