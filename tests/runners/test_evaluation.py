"""Whole images in batches, in another memory format, with memory that is kept: the same numbers as one by one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import losses
from losses.base import Prediction
from runners.backbones import build_counter
from runners.build import EVALUATION_PIXELS
from runners.counter import Counter, evaluate, predict, predictions
from runners.data.loader import evaluation_loader
from runners.data.transforms import WholeImages
from runners.watch import DivergedError
from tests.runners.test_transforms import crowd

SIZES = [(60, 90), (33, 40), (64, 70), (60, 96), (90, 60), (61, 91), (34, 64), (128, 128), (50, 95)]
"""Padded to multiples of 32: five of 64x96, two of 64x64, one of 96x64 and one of 128x128."""
PIXELS = 3 * 64 * 96


def model(loss: str) -> Counter:
    torch.manual_seed(0)
    reads = losses.load(loss).reads
    return Counter(build_counter("tiny", reads=reads, weights="none"), losses.build(loss))


@pytest.mark.parametrize("loss", ["pml", "p2p"])
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_one_size_give_the_rows_of_single_images_in_their_order(loss: str, workers: int) -> None:
    counter, images = model(loss), WholeImages(crowd(SIZES))
    loader = evaluation_loader(images, pixels=PIXELS, workers=workers)
    assert [batch.places for batch in loader] == [[0, 2, 3], [1, 6], [4], [5, 8], [7]]
    done: list[int] = []
    single, batched = evaluate(counter, evaluation_loader(images)), evaluate(counter, loader, done.append)
    assert done == list(range(1, len(SIZES) + 1))
    assert batched["id"].tolist() == list(images.images.ids)
    assert list(zip(batched["height"], batched["width"], strict=True)) == SIZES
    exact = ["id", "height", "width", "true", "window_rows"]
    pd.testing.assert_frame_equal(single[exact], batched[exact])
    for name in ("people", "mass"):
        for left, right in zip(single[name], batched[name], strict=True):
            np.testing.assert_allclose(right, left, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batched["predicted"], single["predicted"], rtol=1e-5)
    assert single["predicted"].nunique() > 5, "images can be told apart"


def test_proposals_of_a_batch_are_those_of_its_images() -> None:
    counter, images = model("p2p").eval(), WholeImages(crowd(SIZES))
    single = list(predictions(counter, evaluation_loader(images)))
    batched = list(predictions(counter, evaluation_loader(images, pixels=PIXELS)))
    for left, right in zip(single, batched, strict=True):
        assert (left.id, left.size, left.found.stride) == (right.id, right.size, right.found.stride)
        np.testing.assert_array_equal(left.heads, right.heads)
        for name in ("proposals", "scores", "points"):
            np.testing.assert_allclose(getattr(right.found, name), getattr(left.found, name), rtol=1e-5, atol=1e-4)


class Spoilt(nn.Module):
    """Says NaN, in one cell, of every image that has a pixel of the brightest white."""

    def __init__(self, points: bool) -> None:
        super().__init__()
        self.points = points

    def forward(self, images: Tensor) -> Prediction:
        bad = images.amax(dim=(1, 2, 3)) > 2.6
        if self.points:
            logits = torch.zeros(len(images), 4, 2)
            logits[bad, 2] = torch.nan
            return Prediction(8, points=torch.zeros(len(images), 4, 2), logits=logits)
        density = torch.ones(len(images), 1, images.shape[2] // 8, images.shape[3] // 8)
        density[bad, 0, 1, 2] = torch.nan
        return Prediction(8, density=density)


@pytest.mark.parametrize("points", [False, True])
def test_the_image_of_a_batch_that_is_not_finite_is_named(points: bool) -> None:
    images = crowd(SIZES)
    for image in images._images:
        np.minimum(image, 200, out=image)
    images._images[3][5, 5] = 255
    counter = Counter(Spoilt(points), losses.build("p2p" if points else "l2"))
    with pytest.raises(DivergedError, match="image image3 has NaN"):
        evaluate(counter, evaluation_loader(WholeImages(images), pixels=PIXELS))


@pytest.mark.parametrize("backbone", ["tiny", "mcnn", "mobilenetv2", "csrnet"])
def test_the_memory_format_of_the_maps_changes_rounding_only(backbone: str) -> None:
    """On a CPU a network has its maps channels last; here also as PyTorch has them by default."""
    torch.manual_seed(0)
    network, images = build_counter(backbone, weights="none").eval(), torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        found = network(images).density
        plain = network.decoder(network.backbone(images))
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5 * float(plain.max()))


def test_a_cpu_takes_images_one_by_one_and_a_gpu_no_more_than_one_large_image() -> None:
    assert EVALUATION_PIXELS == {"cpu": 0, "cuda": 2048 * 1536}
    whole = next(iter(evaluation_loader(WholeImages(crowd([(64, 64)] * 3)), pixels=EVALUATION_PIXELS["cpu"])))
    assert whole.ids == ["image0"]
    assert len(predict(model("pml").eval(), whole)) == 1


FAULTS = """
import resource, sys
from runners.memory import keep_freed
if sys.argv[1] == "kept" and not keep_freed():
    print("none")
    sys.exit()
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"7" * (64 * 2**20)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(after - before)
"""


def test_memory_that_was_freed_is_not_faulted_in_again() -> None:
    faults = {}
    for way in ("default", "kept"):
        done = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True)
        faults[way] = done.stdout.strip()
    if faults["kept"] == "none":
        pytest.skip("another allocator than glibc's")
    assert int(faults["kept"]) < 10
    assert int(faults["default"]) > 20
