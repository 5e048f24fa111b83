"""Gradients against finite differences: of the value, or of the value with what is declared constant held constant."""

from __future__ import annotations

import pytest
import torch

import losses
from losses import Prediction, Target
from losses.dm_count import DMCount
from losses.gl import GL
from tests.contracts.crowd import ALL, inputs, predict, scatter

SIZE = (16, 24)
EXACT = [(name, variant) for name, variant in ALL if losses.load(name).exact_gradient]


def check(loss: losses.CrowdLoss, prediction: Prediction, points: list[torch.Tensor]) -> None:
    names = list(inputs(prediction))

    def value(*tensors: torch.Tensor) -> torch.Tensor:
        return loss(prediction._replace(**dict(zip(names, tensors, strict=True))), Target(points, SIZE))["loss"]

    assert torch.autograd.gradcheck(
        value, tuple(inputs(prediction).values()), eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True
    )


def dense(name: str, batch: int = 2) -> Prediction:
    """Without exact zeros, where |d| has a kink and a step leaves the allowed range."""
    prediction = predict(name, SIZE, batch=batch, dtype=torch.float64)
    if prediction.density is None:
        return prediction
    return prediction._replace(density=(prediction.density.detach() + 0.02).requires_grad_())


@pytest.mark.parametrize(("name", "variant"), EXACT)
def test_exact_gradients(name: str, variant: str) -> None:
    points = [scatter(3, SIZE, torch.float64), scatter(0, SIZE, torch.float64)]
    check(losses.build(name, variant=variant), dense(name), points)


@pytest.mark.parametrize(
    "params",
    [
        {"name": "pml", "count_norm": "l2"},
        {"name": "pml", "count_norm": "l2", "tau": 2.0},
        {"name": "pml", "divergence": "kl", "tau": 0.5},
        {"name": "pml", "cost": "linear"},
        {"name": "l2", "kernel": "adaptive", "cosine_weight": 3.0},
        {"name": "bl", "background": False},
        {"name": "noisecc", "regularizer": True},
        {"name": "noisecc", "add_floor": False, "floor": 1e-6},
        {"name": "chfl", "norm": "sparse"},
        {"name": "chfl", "noise_std": 20.0},
    ],
    ids=str,
)
def test_exact_gradients_of_options(params: dict[str, object]) -> None:
    name = str(params["name"])
    options = {key: value for key, value in params.items() if key != "name"}
    check(losses.build(name, **options), dense(name, batch=1), [scatter(3, SIZE, torch.float64)])


def test_dm_count_with_its_potentials_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared: "its gradient is that with the potentials held constant"."""
    import losses.transport.planar as module

    solve, solved = module.planar, []

    def once(*args, **kwargs):
        if not solved:
            solved.append(solve(*args, **kwargs))
        return solved[0]

    monkeypatch.setattr(module, "planar", once)
    check(DMCount(), dense("dm_count", batch=1), [scatter(3, SIZE, torch.float64)])


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_gl_with_its_potentials_held(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared: potentials constant, and in the pixel term also the plan: so pixel is left out by tau = 0."""
    from losses.transport.unbalanced import Plane

    solve, solved = Plane.solve, []

    def once(*args, **kwargs):
        if not solved:
            solved.append(solve(*args, **kwargs))
        return solved[0]

    monkeypatch.setattr(Plane, "solve", once)
    check(GL(tau=0.0, variant=variant), dense("gl", batch=1), [scatter(3, SIZE, torch.float64)])
