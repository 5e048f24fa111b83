"""What a network would say of people at known places: a density for the localizers that read one, else proposals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from runners import localizers
from runners.localizers import Field, Localizer, Located

SIZE = (192, 256)


def build(name: str, **params) -> Localizer:
    """A localizer that keeps everything it finds: the least threshold where it has one."""
    if localizers.load(name).chooses:
        params.setdefault("threshold", 0.0)
    return localizers.build(name, **params)


def lattice(size: tuple[int, int] = SIZE, apart: int = 64) -> NDArray[np.float64]:
    """People at generic places, at least half of `apart` from each other and a quarter from the borders."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(apart / 2, size[1], apart), np.arange(apart / 2, size[0], apart))
    return np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(-apart / 4, apart / 4, (x.size, 2))


def crowd_density(
    people: NDArray[np.float64], masses: NDArray[np.float64], size: tuple[int, int], stride: int, sigma: float
) -> NDArray[np.float64]:
    """Gaussians cut at 4 sigma, integrated over the cells."""

    def axis(places: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
        edges = np.arange(cells + 1) * stride
        inside = np.clip(edges, places[:, None] - 4 * sigma, places[:, None] + 4 * sigma)
        return np.diff(stats.norm.cdf(inside, places[:, None], sigma), axis=1)

    rows, columns = (-(-side // stride) for side in size)
    return np.einsum("n,nr,nc->rc", masses, axis(people[:, 1], rows), axis(people[:, 0], columns))


def field(
    name: str,
    people: NDArray[np.float64],
    *,
    size: tuple[int, int] = SIZE,
    stride: int = 8,
    masses: NDArray[np.float64] | None = None,
) -> Field:
    """People as blobs about as wide as a cell (masses sum to the count), or as proposals with the masses as scores."""
    masses = np.linspace(0.6, 1.0, len(people)) if masses is None else masses
    if localizers.load(name).reads == "points":
        return Field(stride, size, points=people, scores=masses / masses.max(initial=1e-9))
    density = crowd_density(people, masses, size, stride, max(0.6 * stride, 2.0))
    return Field(stride, size, density=density * (len(people) / density.sum() if len(people) else 1.0))


def nothing(name: str, *, size: tuple[int, int] = SIZE, stride: int = 8) -> Field:
    """An image of which the network says that nobody is there."""
    return field(name, np.zeros((0, 2)), size=size, stride=stride)


def check(located: Located, given: Field) -> None:
    """What every answer must be: shapes, types, decreasing scores, inside the image."""
    points, scores = located
    assert points.dtype == scores.dtype == np.float64
    assert points.shape == (len(scores), 2)
    assert np.isfinite(points).all()
    assert np.isfinite(scores).all()
    assert (np.diff(scores) <= 0).all()
    assert (points >= 0).all()
    assert (points <= given.size[::-1]).all()
    tied = np.diff(scores) == 0
    rising = (np.diff(points[:, 1]) > 0) | ((np.diff(points[:, 1]) == 0) & (np.diff(points[:, 0]) >= 0))
    assert rising[tied].all()
