"""A free density, optimised by a loss alone, finds the number of heads, and their places where the theory says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import losses
from losses import Prediction, Target
from losses.p2p import anchors

SIZE, STRIDE = (96, 96), 8
HEADS = torch.tensor([[20.0, 20.0], [70.3, 17.1], [45.0, 50.2], [18.6, 78.0], [77.0, 73.5]])
TARGET = Target([HEADS], SIZE, short_side=torch.tensor([1024.0]))
"""A crop of a large image: the background of BL is far from the heads, and takes none of their mass."""

# Loss, parameters, how far the count may be off, and the share of the mass that must lie within a radius of a head:
# most of a kernel's mass for losses that expect a kernel, nearly all of it where the optimum is a dot in one cell.
CASES: list[tuple[str, dict[str, Any], float, float, float]] = [
    ("l2", {}, 0.02, 12.0, 0.85),
    ("l2", {"kernel": "adaptive"}, 0.01, 24.0, 0.85),
    ("bl", {}, 0.01, 24.0, 0.8),
    ("bl", {"background": False}, 0.01, 24.0, 0.8),
    ("noisecc", {}, 0.01, 24.0, 0.85),
    ("chfl", {}, 0.02, 24.0, 0.98),
    ("chfl", {"norm": "sparse"}, 0.02, 24.0, 0.98),
    ("chfl", {"noise_std": 10.0}, 0.02, 24.0, 0.98),
    ("dm_count", {}, 0.01, 8.0, 0.95),
    ("dm_count", {"solver": "stabilised"}, 0.01, 8.0, 0.95),
    ("gl", {}, 0.1, 8.0, 0.95),  # it trades mass against transport: its optimum is 8 % above the count
    ("pml", {}, 0.01, 8.0, 0.95),
    ("pml", {"divergence": "kl"}, 0.01, 8.0, 0.95),
]


def optimise(name: str, steps: int = 300, **params: Any) -> torch.Tensor:
    """The density that minimises a loss, (h, w); squares keep it non-negative."""
    loss = losses.build(name, **params)
    root = torch.full((1, 1, SIZE[0] // STRIDE, SIZE[1] // STRIDE), 0.3, requires_grad=True)
    optimiser = torch.optim.Adam([root], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(Prediction(STRIDE, density=root.square()), TARGET)["loss"].backward()
        optimiser.step()
        schedule.step()
    return root.detach().square()[0, 0]


def distances() -> torch.Tensor:
    """From each cell's centre to its nearest head, (h, w)."""
    y, x = (torch.arange(side // STRIDE) * float(STRIDE) + STRIDE / 2 for side in SIZE)
    centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    return (centres.unsqueeze(-2) - HEADS).norm(dim=-1).amin(-1)


@pytest.mark.parametrize(("name", "params", "tolerance", "radius", "share"), CASES, ids=lambda v: str(v))
def test_density_recovers_the_crowd(
    name: str, params: dict[str, Any], tolerance: float, radius: float, share: float
) -> None:
    density = optimise(name, **params)
    assert density.sum().item() == pytest.approx(len(HEADS), rel=tolerance)
    near = density[distances() <= radius].sum() / density.sum()
    assert near > share


def test_every_density_loss_is_here() -> None:
    assert {case[0] for case in CASES} == {n for n in losses.names() if losses.load(n).reads == "density"}


def test_proposals_recover_the_crowd() -> None:
    loss, places = losses.build("p2p"), anchors(SIZE[0] // STRIDE, SIZE[1] // STRIDE, STRIDE)
    offsets = torch.zeros_like(places).requires_grad_()
    logits = torch.zeros(1, len(places), 2, requires_grad=True)
    optimiser = torch.optim.Adam([{"params": [logits], "lr": 0.1}, {"params": [offsets], "lr": 0.1}])
    for _ in range(150):
        optimiser.zero_grad()
        loss(Prediction(STRIDE, points=(places + offsets)[None], logits=logits), TARGET)["loss"].backward()
        optimiser.step()
    said = logits[0].softmax(-1)[:, 1] > 0.5
    assert said.sum() == len(HEADS)
    found = (places + offsets).detach()[said]
    assert (found[:, None] - HEADS).norm(dim=-1).amin(0).max() < 1.0
