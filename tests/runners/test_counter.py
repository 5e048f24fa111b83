"""The training model beside its network: what a step reports."""

import pytest
import torch
from torch import Tensor, nn

import losses
from losses.base import Prediction, Target
from runners.backbones import build_counter
from runners.counter import Counter

TARGET = Target([torch.tensor([[2.0, 3.0], [9.0, 4.0]]), torch.zeros(0, 2)], (16, 16))


class Fixed(nn.Module):
    """A network that answers the same whatever it sees."""

    def __init__(self, prediction: Prediction) -> None:
        super().__init__()
        self.prediction = prediction

    def forward(self, images: Tensor) -> Prediction:
        return self.prediction


def test_the_count_error_of_a_step_for_a_density() -> None:
    density = torch.full((2, 1, 2, 2), 0.25, requires_grad=True)  # one person in each crop; two and none are labelled
    terms = Counter(Fixed(Prediction(8, density=density)), losses.build("l2"))(
        torch.zeros(2, 3, 16, 16), TARGET, mode="loss"
    )
    assert terms["train_mae"].item() == pytest.approx(1.0)
    assert not terms["train_mae"].requires_grad


def test_the_count_error_of_a_step_for_points() -> None:
    points = torch.zeros(2, 4, 2)
    logits = torch.tensor([1.0, -1.0]).repeat(2, 4, 1)
    logits[0, :, 1] = 2.0  # four people where two are labelled, and none where there are none
    logits.requires_grad_()
    prediction = Prediction(8, points=points, logits=logits)
    terms = Counter(Fixed(prediction), losses.build("p2p"))(torch.zeros(2, 3, 16, 16), TARGET, mode="loss")
    assert terms["train_mae"].item() == pytest.approx(1.0)


# ---- mixed precision


def test_a_network_in_bf16_has_a_loss_in_float32() -> None:
    """The loss sees float32, its gradient reaches float32 weights, and evaluation is as before."""
    torch.manual_seed(0)
    network = build_counter("tiny", weights="none")
    seen: list[Prediction] = []

    class Watched(losses.load("l2")):  # type: ignore[misc]
        def forward(self, prediction: Prediction, target: Target) -> dict[str, torch.Tensor]:
            seen.append(prediction)
            return super().forward(prediction, target)

    images, points = torch.rand(2, 3, 64, 64), [torch.rand(5, 2) * 64] * 2
    target = Target(points=points, image_size=(64, 64))
    gradients, values = [], []
    for bf16 in (False, True):
        network.zero_grad()
        counter = Counter(network, Watched(), bf16=bf16)
        value = counter(images, target, mode="loss")["loss"]
        value.backward()
        values.append(value.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
        assert seen[-1].density is not None
        assert seen[-1].density.dtype == value.dtype == torch.float32
    assert values[0] != values[1], "bfloat16 has eight bits"
    assert values[1] == pytest.approx(values[0].item(), rel=0.05)
    cosine = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert gradients[1].dtype == torch.float32
    assert cosine > 0.95
    plain, mixed = (Counter(network, Watched(), bf16=bf16).eval() for bf16 in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(plain(images, target).density, mixed(images, target).density, rtol=0, atol=0)
