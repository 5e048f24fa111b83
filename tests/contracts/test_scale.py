"""20,000 heads on a map of 256 x 256 cells: no loss that factorises may build a tensor of points x cells (5 GB)."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

FACTORISED = ["bl", "chfl", "l2", "noisecc", "pml"]


def peak_growth(name: str) -> int:
    """Memory in bytes that one training step adds to the peak of this process."""
    import torch

    import losses
    from losses import Prediction, Target

    def step(cells: int, count: int) -> None:
        density = torch.rand(1, 1, cells, cells).requires_grad_()
        points = torch.rand(count, 2) * cells * 8
        loss(Prediction(8, density=density), Target([points], (cells * 8, cells * 8)))["loss"].backward()

    loss = losses.build(name)
    step(8, 5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(256, 20_000)
    unit = 1 if sys.platform == "darwin" else 1024
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit


@pytest.mark.parametrize("name", FACTORISED)
def test_memory_of_a_training_step(name: str) -> None:
    """In a process of its own: the peak never falls again."""
    code = f"from tests.contracts.test_scale import peak_growth; print(peak_growth({name!r}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300)
    assert int(done.stdout) < 1 << 30
