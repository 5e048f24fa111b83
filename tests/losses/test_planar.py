"""Sinkhorn's rounds without matrices against POT, and the search for pairs against all pairs."""

from __future__ import annotations

import math
import tracemalloc
from typing import NamedTuple

import numpy as np
import ot
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from losses import DMCount, Prediction, Target
from losses.transport import chunks, squared_distance
from losses.transport import planar as module
from losses.transport.planar import planar

CROWDS = ("uniform", "corner", "left", "duplicates", "outside", "far", "clusters", "one place")
MASSES = ("noise", "holes", "tiny", "block", "smooth", "one cell")
ENTROPIES = (1.0, 10.0, 100.0, "normalised")


class Case(NamedTuple):
    """Heads (n, 2), masses (h, w), the stride, the strength of the entropy and the cost of a squared pixel."""

    points: Tensor
    mass: Tensor
    stride: int
    reg: float
    scale: float


def heads(kind: str, n: int, size: Tensor) -> Tensor:
    """Heads in an image of the size (x, y), pixels; `outside` and `far` are not in it."""
    unit = torch.rand(n, 2, dtype=torch.float64)
    return {
        "uniform": unit * size,
        "corner": unit * size / 10,
        "left": unit * size / torch.tensor([2, 1]),
        "duplicates": unit[torch.randint((n + 3) // 4, (n,))] * size,
        "outside": (3 * unit - 1) * size,
        "far": unit * size + 5000,
        "clusters": (unit[torch.randint(min(n, 3), (n,))] + 0.02 * torch.randn_like(unit)) * size,
        "one place": unit[:1].expand(n, 2) * size,
    }[kind]


def masses(kind: str, h: int, w: int) -> Tensor:
    """Masses of h x w cells, summing to 1."""
    noise = torch.rand(h, w, dtype=torch.float64) + 1e-3
    y, x = torch.linspace(-1, 1, h).double()[:, None], torch.linspace(-1, 1, w).double()
    block = torch.zeros_like(noise)
    block[: (h + 3) // 4, : (w + 3) // 4] = noise[: (h + 3) // 4, : (w + 3) // 4]
    cell = torch.zeros_like(noise)
    cell[h // 2, w // 3] = 1
    found = {
        "noise": noise,
        "holes": torch.where(noise > 0.6, noise, 0),
        "tiny": noise * 10 ** (-30 * torch.rand_like(noise)),
        "block": block,
        "smooth": torch.exp(-8 * (y * y + x * x)),
        "one cell": cell,
    }[kind]
    found[-1, -1] += 1e-3 * (found.sum() == 0)
    return found / found.sum()


def case(seed: int, n: int, h: int, w: int, stride: int, crowd: str, mass: str, entropy: float | str) -> Case:
    torch.manual_seed(seed)
    size = torch.tensor([w * stride, h * stride], dtype=torch.float64)
    reg, scale = (0.1, (2 / float(size.max())) ** 2) if isinstance(entropy, str) else (entropy, 1.0)
    return Case(heads(crowd, n, size), masses(mass, h, w), stride, reg, scale)


CASES = st.builds(
    case,
    seed=st.integers(0, 10_000),
    n=st.sampled_from([1, 2, 7, 40, 150]),
    h=st.integers(1, 20),
    w=st.integers(1, 20),
    stride=st.sampled_from([1, 2, 8, 32]),
    crowd=st.sampled_from(CROWDS),
    mass=st.sampled_from(MASSES),
    entropy=st.sampled_from(ENTROPIES),
)


def pot(found: Case, iterations: int, tolerance: float = 1e-9) -> tuple[Tensor, Tensor, int]:
    """POT's log-domain potentials on the whole matrix, g by its formula in all cells, and the rounds it made."""
    cost = squared_distance(found.points, tuple(found.mass.shape), found.stride) * found.scale
    b, n = found.mass.flatten(), len(cost)
    filled = b > 0
    a = torch.full((n,), 1 / n, dtype=torch.float64)
    options = {"numItermax": iterations, "stopThr": tolerance, "warn": False, "log": True}
    _, log = ot.sinkhorn(a, b[filled], cost[:, filled], found.reg, method="sinkhorn_log", **options)
    f = found.reg * (log["log_u"] + math.log(n))
    g = -found.reg * torch.logsumexp((f[:, None] - cost) / found.reg - math.log(n), 0)
    return f, g.view_as(found.mass), log["niter"] + 1


def ours(found: Case, iterations: int, tolerance: float = 1e-9, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    options = {"reg": found.reg, "scale": found.scale, "iterations": iterations, "tolerance": tolerance}
    return planar(found.points.to(dtype), found.mass.to(dtype), found.stride, **options)


def worst(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], scale: float) -> float:
    """Largest difference of potentials, NaN included, relative to a scale."""
    gaps = torch.cat([(x.double() - y).flatten().abs() for x, y in zip(one, other, strict=True)])
    return float(gaps.nan_to_num(nan=math.inf).max()) / scale


# --- the rounds ------------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(found=CASES, iterations=st.sampled_from([1, 2, 11, 100]))
@example(found=case(0, 150, 20, 20, 8, "uniform", "noise", 10.0), iterations=100)
@example(found=case(0, 40, 6, 6, 8, "outside", "tiny", 1.0), iterations=11)
@example(found=case(0, 150, 20, 20, 8, "corner", "noise", 10.0), iterations=100)
@example(found=case(0, 40, 12, 12, 32, "far", "tiny", 10.0), iterations=100)
@example(found=case(0, 40, 20, 20, 8, "far", "smooth", "normalised"), iterations=100)
def test_the_rounds_are_pots_in_both_precisions(found: Case, iterations: int) -> None:
    """To 1e-11 of the largest potential (or entropy) in float64; in float32 to 1e-5, which its heads' places allow."""
    f, g, _ = pot(found, iterations)
    scale = float(torch.cat([f, g.flatten()]).abs().max()) + found.reg
    assert worst(ours(found, iterations), (f, g), scale) < 1e-11
    rounded = found._replace(points=found.points.float().double(), mass=found.mass.float().double())
    if bool(((rounded.mass > 0) == (found.mass > 0)).all()):
        f, g, _ = pot(rounded, iterations)
        assert worst(ours(rounded, iterations, dtype=torch.float32), (f, g), scale) < 1e-5


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("crowd", ["uniform", "clusters"])
def test_a_thousand_rounds_are_pots(crowd: str, entropy: float | str) -> None:
    found = case(1, 30, 10, 14, 8, crowd, "holes", entropy)
    f, g, _ = pot(found, 1000)
    assert worst(ours(found, 1000), (f, g), float(g.abs().max()) + found.reg) < 1e-10


@settings(max_examples=40, deadline=None)
@given(found=CASES, tolerance=st.sampled_from([1e-2, 1e-4, 1e-6]))
def test_it_stops_at_pots_round(found: Case, tolerance: float) -> None:
    rounds = [0]
    scale, alone, compiled = module._Plane._scale, module._Plane.from_cells, chunks.rounds

    def scaled(*args):  # type: ignore[no-untyped-def]
        rounds.append((result := scale(*args)).done)
        return result

    def in_chunks(*args):  # type: ignore[no-untyped-def]
        rounds.append((result := compiled(*args))[0])
        return result

    def one_more(*args):  # type: ignore[no-untyped-def]
        """A round that no kernel can make."""
        rounds.append(rounds[-1] + 1)
        return alone(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Plane, "_scale", scaled)
        patch.setattr(module._Plane, "from_cells", one_more)
        patch.setattr(chunks, "rounds", in_chunks)
        ours(found, 60, tolerance)
    assert rounds[-1] == pot(found, 60, tolerance)[2]


@settings(max_examples=60, deadline=None)
@given(
    found=CASES, exponent=st.sampled_from([-30.0, -8.0, 0.0, 6.0, 30.0]), dtype=st.sampled_from(["float32", "float64"])
)
def test_gradients_are_finite(found: Case, exponent: float, dtype: str) -> None:
    """For totals from 1e-30 to 1e30, of the default loss."""
    h, w = found.mass.shape
    density = (found.mass * 10**exponent).to(getattr(torch, dtype))[None, None].requires_grad_()
    target = Target([found.points.to(density)], (h * found.stride, w * found.stride))
    value = DMCount(reg=found.reg, normalise=found.scale != 1)(Prediction(found.stride, density=density), target)[
        "loss"
    ]
    value.backward()
    assert torch.isfinite(value)
    assert density.grad is not None
    assert bool(torch.isfinite(density.grad).all())


def test_memory_is_not_that_of_the_matrix() -> None:
    """256 x 256 cells and 5000 heads: a matrix is 1.3 GB in float32."""
    torch.manual_seed(0)
    points, mass = torch.rand(5000, 2) * 2048, torch.rand(256, 256)
    tracemalloc.start()
    f, g = planar(points, mass / mass.sum(), 8, reg=10.0, scale=1.0, iterations=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bool(torch.isfinite(f).all())
    assert bool(torch.isfinite(g).all())
    assert peak < 60e6, "of numpy; torch holds the two factors beside, 10 MB each"


# --- what a kernel leaves out ----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(found=CASES)
def test_a_kernel_lacks_only_what_is_below_its_limit(found: Case) -> None:
    plane = module._Plane(found.points, found.mass, found.stride, found.reg / (2 * found.scale))
    with np.errstate(all="ignore"):
        f = np.full(len(found.points), math.log(len(found.points)))
        g = plane.from_points(f, plane.filled)[plane.filled]
        f = plane.from_cells(g)
        kernel, lost = plane._near(f, g)
    cost = squared_distance(found.points, tuple(found.mass.shape), found.stride).numpy() * found.scale / found.reg
    with np.errstate(over="ignore"):
        whole = np.exp(f[:, None] + g - cost[:, plane.filled.ravel()])
    size = chunks.padded(found.mass.numpy(), 0).size
    everywhere = np.zeros((len(f), size))
    everywhere[kernel.owners()[:, None], kernel.cells()] = kernel.entries
    stored = np.stack([plane._inside(row)[plane.filled] for row in everywhere])
    assert everywhere.sum() == pytest.approx(stored.sum())
    missing = np.where(stored == 0, whole, 0)
    assert missing.max() <= lost * (1 + 1e-6)
    same = np.isfinite(whole) & (stored > 0)
    # The exponent is a difference of large numbers: its rounding is relative to them.
    digits = 1e-14 * (np.abs(f).max() + np.abs(g).max() + cost.max() + 100)
    np.testing.assert_allclose(stored[same], whole[same], rtol=digits)
    forth, back = np.full(size, np.nan), np.full(len(f), np.nan)
    u, w = (np.random.default_rng(0).random(count) for count in (len(f), size))
    chunks.to_cells(*kernel, u, forth)
    chunks.to_points(*kernel, w, back)
    np.testing.assert_allclose(forth, u @ everywhere, rtol=1e-12)
    np.testing.assert_allclose(back, everywhere @ w, rtol=1e-12)
    np.testing.assert_allclose(whole.clip(max=1e300) @ plane.b, 1, rtol=digits)


def test_scalings_that_could_raise_what_is_missing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One cell of which the kernel holds hardly anything: the round is not made, whatever its sums are."""
    found = case(0, 7, 6, 8, 8, "uniform", "noise", 10.0)
    plane = module._Plane(found.points, found.mass, found.stride, 5.0)
    n, m = 7, 48
    sums = np.ones(m)
    monkeypatch.setattr(plane, "_to_cells", lambda u: sums.reshape(plane.cells))
    monkeypatch.setattr(plane, "_to_points", lambda w: np.ones(n) * 1e3)
    monkeypatch.setattr(module, "_LOST", plane.eps * 1e-5)
    for least, made in ((1e-3, True), (1e-7, False), (0.0, False), (math.nan, False)):
        sums[3] = least
        assert (plane._scale(np.ones(n), np.ones(m), 1, 0.0).done == 1) == made, least


@pytest.mark.parametrize(("least", "made"), [(1e-3, 1), (1e-7, 0), (0.0, 0), (math.nan, 0), (math.inf, 1)])
@pytest.mark.parametrize("side", ["cells", "points"])
def test_compiled_rounds_refuse_them_too(side: str, least: float, made: int) -> None:
    """Four points and four cells; one of the cells, or of the points, has hardly anything."""
    entries = np.eye(4)
    entries[2, 2] = least
    mass, u, v = np.full(4, 0.25), np.ones(4), np.ones(4)
    if side == "points":  # so little that the cell's scaling makes up for it, but for what is missing
        entries[2] = [least, 0, 0, 0]
        mass[2] = 0
    kernel = chunks.Chunks(np.arange(5), np.zeros(4, np.int32), entries)
    done, finished = chunks.rounds(*kernel, mass, u, v, 5, 6, 0.0, 1e5)
    assert done == 5 + (made if least < math.inf else 0)
    assert finished == (done == 6)


# --- the search for pairs --------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.sampled_from([1, 5, 300]),
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    side=st.sampled_from([0.1, 1.0, 5.0]),
    steep=st.sampled_from([0.0, 1.0, 30.0]),
    holes=st.sampled_from([0.0, 0.5, 0.98]),
    noise=st.sampled_from([0.0, 10.0]),
    slack=st.sampled_from([0.0, 3.0, 50.0]),
)
def test_all_pairs_are_found(seed, n, h, w, side, steep, holes, noise, slack) -> None:  # type: ignore[no-untyped-def]
    """Beside all of them; g is a plane, a paraboloid and noise, with holes."""
    rng = np.random.default_rng(seed)
    points = (rng.random((n, 2)) * 1.4 - 0.2) * [w * side, h * side]
    y, x = (np.arange(h)[:, None] + 0.5) * side, (np.arange(w) + 0.5) * side
    g = steep * (y - 2 * x) + 0.9 * (y * y + x * x) + noise * rng.random((h, w))
    g[rng.random((h, w)) < holes] = -np.inf
    cost = (y - points[:, 1, None, None]) ** 2 + (x - points[:, 0, None, None]) ** 2
    f = -(g - cost).max((1, 2), initial=-1e3) + rng.normal(size=n)
    whole = f[:, None, None] + g - cost
    larger = chunks.padded(g, -np.inf)
    found = chunks.near(points, f, larger, side, slack)
    assert (found.entries.max(1, initial=-np.inf) >= -slack - 1e-7).all(), "each chunk has a pair"
    assert len(set(zip(found.owners(), found.place, strict=True))) == len(found.place)
    everywhere = np.full((n, larger.size), -np.inf)
    everywhere[found.owners()[:, None], found.cells()] = found.entries
    seen = everywhere.reshape(n, *larger.shape)[:, :h, :w]
    assert (seen[whole >= -slack + 1e-7] > -np.inf).all()
    np.testing.assert_allclose(seen[seen > -np.inf], whole[seen > -np.inf], atol=1e-7)
    everywhere.reshape(n, *larger.shape)[:, :h, :w] = -np.inf
    assert (everywhere == -np.inf).all(), "nothing is found outside the map"
