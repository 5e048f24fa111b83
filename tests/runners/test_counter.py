"""The training model beside its network: what a step reports."""

import pytest
import torch
from torch import Tensor, nn

import losses
from losses.base import Prediction, Target
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
