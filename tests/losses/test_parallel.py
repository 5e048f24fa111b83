"""A batch dealt out to processes gives the gradient that one process has of the whole batch, for every loss."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import losses
from losses import Prediction, Target
from losses.p2p import anchors
from losses.parallel import everywhere, gathered, over_all, processes
from tests.contracts.crowd import ALL, scatter

SIZE, STRIDE = (48, 64), 8
COUNTS = (5, 0, 9, 1)
"""Heads of the four images of the batch."""


class Network(nn.Module):
    """One convolution with a density head, or one that moves and scores anchors."""

    def __init__(self, reads: str) -> None:
        super().__init__()
        self.reads = reads
        torch.manual_seed(3)
        channels = 1 if reads == "density" else 16  # 4 anchors a cell: two coordinates and two logits each
        self.layer = nn.Conv2d(3, channels, STRIDE, STRIDE, dtype=torch.float64)

    def forward(self, images: Tensor) -> Prediction:
        out = self.layer(images)
        if self.reads == "density":
            return Prediction(STRIDE, density=nn.functional.softplus(out))
        batch, _, h, w = out.shape
        out = out.view(batch, 4, 4, h, w).permute(0, 3, 4, 1, 2).reshape(batch, -1, 4)
        places = anchors(h, w, STRIDE, like=out)
        return Prediction(STRIDE, points=places + out[..., :2], logits=out[..., 2:])


def gradients(name: str, variant: str, part: slice, wrap: bool) -> dict[str, Tensor]:
    """Of the network's weights, for a part of the batch."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(len(COUNTS), 3, *SIZE, generator=generator, dtype=torch.float64)
    points = [scatter(count, SIZE, torch.float64, seed=i) for i, count in enumerate(COUNTS)]
    loss = losses.build(name, variant=variant)
    network = Network(loss.reads)
    model = DistributedDataParallel(network) if wrap else network
    loss(model(images[part]), Target(points[part], SIZE))["loss"].backward()
    return {key: value.grad for key, value in network.named_parameters() if value.grad is not None}


def work(rank: int, parts: list[slice], folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=len(parts))
    for name, variant in ALL:
        found = gradients(name, variant, parts[rank], wrap=True)
        if rank == 0:
            save_file(found, folder / f"{name}-{variant}.safetensors")
    like = torch.zeros((), dtype=torch.float64)
    told = {
        "sum": everywhere(rank + 1, like),
        "share": over_all(torch.tensor(float(rank)), 2.0),
        "points": gathered(torch.full((rank * 2, 2), float(rank))),
        "processes": torch.tensor(processes()),
    }
    with torch.no_grad():
        told["processes without gradients"] = torch.tensor(processes())
    save_file(told, folder / f"told-{rank}.safetensors")
    distributed.barrier()
    # Not by the interpreter's own end: gloo's threads race with it, which aborts a process once in hundreds.
    os._exit(0)


def run(parts: list[slice], folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=work, args=(rank, parts, folder)) for rank in range(len(parts))]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    assert [process.exitcode for process in ranks] == [0] * len(parts)


@pytest.fixture(scope="module", params=[[slice(0, 2), slice(2, 4)], [slice(0, 3), slice(3, 4)]], ids=["2+2", "3+1"])
def dealt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the processes found, for an even and an uneven dealing out."""
    folder = tmp_path_factory.mktemp("dealt")
    run(request.param, folder)
    return folder


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_the_gradient_of_the_whole_batch(name: str, variant: str, dealt: Path) -> None:
    expected = gradients(name, variant, slice(None), wrap=False)
    found = load_file(dealt / f"{name}-{variant}.safetensors")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert value.abs().max() > 0
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-12 * float(value.abs().max()))


def test_collectives(dealt: Path) -> None:
    for rank in range(2):
        told = load_file(dealt / f"told-{rank}.safetensors")
        assert told["sum"] == 3
        assert told["share"] == 2 * rank / 4
        torch.testing.assert_close(told["points"], torch.ones(2, 2))
        assert told["processes"] == 2
        assert told["processes without gradients"] == 1


def test_one_process_makes_no_calls() -> None:
    part, points = torch.tensor(3.0, requires_grad=True), torch.rand(4, 2)
    assert over_all(part, 2.0) == 1.5
    assert over_all(part, 0.0, least=1) == 3.0
    assert gathered(points) is points
    assert processes() == 1
