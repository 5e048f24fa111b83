"""The learning rate reaches what the recipe says, however few steps a run has."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import scheduler
from mmengine.registry import PARAM_SCHEDULERS

from results.spec import Recipe
from runners.build import schedules

assert scheduler.LinearLR.__name__ in PARAM_SCHEDULERS.module_dict  # the import registers them


def rates(recipe: Recipe, steps: int) -> list[float]:
    """The rate of each step, as the engine steps the schedules."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    made = [PARAM_SCHEDULERS.build(each, default_args={"optimizer": optimizer}) for each in schedules(recipe, steps)]
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for each in made:
            each.step()
    return found


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential"])
@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 20, 29, 30, 31, 100, 1000])
def test_the_warm_up_ends_at_the_peak(steps: int, schedule: str) -> None:
    """Of 10 to 29 steps the warm-up is one, of which the engine would never leave the first rate."""
    found = rates(Recipe(lr=0.5, warmup=0.05, schedule=schedule), steps)
    warm = round(0.05 * steps)
    assert max(found) == pytest.approx(0.5)
    assert found.index(max(found)) == (warm - 1 if warm > 1 else 0)
    if warm > 1:
        assert found[0] == pytest.approx(0.0005)
