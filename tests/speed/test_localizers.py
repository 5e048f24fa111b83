"""How fast LM finds its peaks, beside the upsampled map searched pixel by pixel.

`pytest tests/speed/test_localizers.py --benchmark-only`
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn.functional import interpolate, max_pool2d

from runners import localizers
from runners.localizers import Field

SHAPES = ((96, 128), (375, 500))
STRIDE = 8


def crowded(shape: tuple[int, int]) -> np.ndarray:
    """A crowd of one person per 25 cells, with a third of the cells at 0, as after a ReLU."""
    rng = np.random.default_rng(0)
    density = ndimage.gaussian_filter((rng.random(shape) < 1 / 25).astype(float), 0.8) + 0.01 * rng.random(shape)
    return np.maximum(density - np.quantile(density, 1 / 3), 0)


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lm(benchmark, shape, refine):
    density = crowded(shape)
    field = Field(STRIDE, (STRIDE * shape[0], STRIDE * shape[1]), density=density)
    benchmark.group = str(shape)
    found = benchmark(localizers.build("lm", refine=refine).candidates, field)
    assert len(found.points) > shape[0] * shape[1] / 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_upsampled_map(benchmark, shape, dtype):
    torch.set_num_threads(1)
    density = torch.from_numpy(crowded(shape)).to(dtype)

    def naive():
        surface = interpolate(density[None, None], scale_factor=STRIDE, mode="bilinear")
        equal = (surface == max_pool2d(surface, 3, stride=1, padding=1)) & (surface > 0)
        return equal[0, 0].nonzero(), surface[equal]

    benchmark.group = str(shape)
    benchmark(naive)
