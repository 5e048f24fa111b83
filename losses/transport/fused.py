"""Transport of all images of a batch on a GPU, one launch for each half of a round: launchers of `kernels`.

Float32 only. Nothing here looks at a value, and nothing is allocated within the rounds. `together` says what is
computed; its own way, in plain torch, is the reference.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from losses.geometry import cell_centres
from losses.transport import kernels
from losses.transport.costs import Potentials

__all__ = ["annealed", "floored_rounds", "rounds"]


class _Tile(NamedTuple):
    """How a kernel's programs are cut (ours, from counted instructions: no GPU was at hand), see `kernels`."""

    out: int
    lanes: int
    deep: int
    warps: int

    def blocks(self, count: int) -> int:
        """Programs for so many outputs of an image."""
        return -(-count // self.out)

    def options(self) -> dict[str, int | bool]:
        """Arguments of a launch."""
        return {
            "OUT": self.out,
            "LANES": self.lanes,
            "DEEP": self.deep,
            "num_warps": self.warps,
            "enable_fp_fusion": True,  # one rounding less wherever a product is added
        }


TO_POINTS = _Tile(4, 128, 4, 4)
"""Few outputs, long sums: 600 programs for 8 images of 300 people."""
TO_CELLS = _Tile(64, 4, 8, 2)
"""Many outputs, short sums: 512 programs for 8 images of 64 x 64 cells."""
COLUMNS = _Tile(128, 1, 16, 2)
"""Sums down the columns of a matrix: neighbouring threads read neighbouring cells, 256 programs for as many."""


class _Plane:
    """Points and cells of one batch, with the half rounds between them."""

    def __init__(self, points: Tensor, cells: tuple[int, int], stride: int, rate: float, *, log: bool) -> None:
        self.images, self.n, self.m = len(points), points.shape[1], cells[0] * cells[1]
        self._points = points.mT.contiguous()
        self._cells = cell_centres(cells, stride, points).T.contiguous()
        self._rate, self._log = rate, log
        self.stopped = torch.zeros(self.images, dtype=torch.uint8, device=points.device)
        self.gaps = points.new_zeros(self.images, TO_CELLS.blocks(self.m))

    def to_points(self, into: Tensor, mass: Tensor, weight: Tensor) -> None:
        """Sums over cells."""
        sides = self._points, self._cells, self.stopped, self.gaps, self.n, self.m, 2 * self.n, 0
        self._launch(TO_POINTS, self.n, (into, into, mass, weight, *sides), test=False)

    def to_cells(self, into: Tensor, before: Tensor, mass: Tensor, weight: Tensor, *, test: bool) -> None:
        """Sums over points; with `test`, the gaps of what was `before`."""
        sides = self._cells, self._points, self.stopped, self.gaps, self.m, self.n, 0, 2 * self.n
        self._launch(TO_CELLS, self.m, (into, before, mass, weight, *sides), test=test)

    def _launch(self, tile: _Tile, count: int, arguments: tuple[Any, ...], *, test: bool) -> None:
        grid = (tile.blocks(count), self.images)
        kernels.half_round[grid](*arguments, self._rate, LOG=self._log, TEST=test, **tile.options())


def _on(like: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever the tensors' is."""
    return torch.cuda.device(like.device) if like.is_cuda else nullcontext()


def rounds(
    points: Tensor,
    real: Tensor,
    mass: Tensor,
    stride: int,
    *,
    reg: float,
    scale: float,
    iterations: int,
    tolerance: float,
) -> Potentials:
    """See `losses.transport.together.rounds`, with padded points (B, n, 2); f (B, n) and g (B, h w).

    What goes from one half to the next is a side's whole weight, log2 a + f / (reg ln 2) and its like, so that a half
    is a logarithm of masses less one of a sum.
    """
    plane = _Plane(points, (mass.shape[1], mass.shape[2]), stride, scale / (reg * math.log(2)), log=True)
    b, real = mass.flatten(1).contiguous(), real.contiguous()
    log_a = torch.where(real, -real.sum(1, keepdim=True).to(mass.dtype).log2(), -math.inf)
    log_b = b.log2()
    of_points, of_cells = torch.where(real, 0.0, log_a), log_b.clone()  # f = reg log n, g = 0
    plane.stopped |= ~(b > 0).any(1)  # its potentials mean nothing
    with _on(mass):
        for done in range(iterations):
            test = done % 10 == 1
            plane.to_cells(of_cells, of_cells, log_b, of_points, test=test)
            if test:
                plane.stopped |= plane.gaps.sum(1) < tolerance**2
            plane.to_points(of_points, log_a, of_cells)
        plane.stopped.zero_()
        plane.to_cells(of_cells, of_cells, torch.zeros_like(log_b), of_points, test=False)
    unit = reg * math.log(2)
    return Potentials(torch.where(real, of_points - log_a, 0.0) * unit, of_cells * unit)


def floored_rounds(
    points: Tensor,
    real: Tensor,
    mass: Tensor,
    stride: int,
    *,
    variance: float,
    iterations: int,
    tolerance: float,
) -> Tensor:
    """See `losses.transport.together.floored_rounds`, with padded points (B, n, 2); the last v, (B, h, w)."""
    plane = _Plane(points, (mass.shape[1], mass.shape[2]), stride, 1 / (2 * variance * math.log(2)), log=False)
    b, real = mass.flatten(1).contiguous(), real.contiguous()
    a = real / real.sum(1, keepdim=True).to(mass.dtype)
    u, v, spare = a.clone(), torch.empty_like(b), torch.empty_like(b)
    with _on(mass):
        plane.to_cells(v, b, b, u, test=False)
        for done in range(1, iterations):
            test = done % 10 == 0
            plane.to_points(u, a, v)
            plane.to_cells(spare if test else v, v, b, u, test=test)
            if test:  # what stops now keeps the v before; what had stopped has nothing in `spare`
                plane.stopped |= plane.gaps.sum(1) <= tolerance
                torch.where(plane.stopped.view(torch.bool).unsqueeze(1), v, spare, out=v)
    return v.view_as(mass)


def annealed(
    cost: Tensor, log_a: Tensor, log_b: Tensor, strengths: Tensor, due: Tensor, end: float, *, reach: float
) -> Potentials:
    """See `losses.transport.together.annealed`, of which these are the averaged steps, (steps, B), and who takes them.

    Both sides are updated from old values. So f goes to other memory, and g, which needs the old f, is written after.
    """
    cost, log_a, log_b = cost.contiguous(), log_a.contiguous(), log_b.contiguous()
    eps = torch.cat([strengths[:1], strengths, torch.full_like(strengths[:1], end)]).to(cost.dtype)
    kept = torch.zeros_like(eps)  # the first step and the last are not averaged
    kept[1:-1] = torch.where(due, 0.5, 1.0)
    images, n, m = cost.shape
    f, next_f, g = torch.zeros_like(log_a), torch.empty_like(log_a), torch.zeros_like(log_b)
    with _on(cost):
        for step in range(len(eps)):
            sides = cost, eps, kept, step
            kernels.half_step[(TO_POINTS.blocks(n), images)](
                next_f, f, log_b, g, *sides, n, m, reach, ROWS=True, **TO_POINTS.options()
            )
            kernels.half_step[(COLUMNS.blocks(m), images)](
                g, g, log_a, f, *sides, m, n, reach, ROWS=False, **COLUMNS.options()
            )
            f, next_f = next_f, f
    return Potentials(f, g)
