"""Who solves transport for a batch: kernels of our own on a GPU, plain torch everywhere else.

The kernels (see `fused`) take a launch where torch takes ten. They are used for float32 on CUDA devices where Triton is
installed, unless the environment says `CROWD_FUSED=0`; in Triton's interpreter (`TRITON_INTERPRET=1`) on the CPU as
well. A device whose compiler, driver or numbers are not as they should be is found out before it matters: the
first time in a process, a small known problem is solved in both ways on the device. That compiles the kernels, seconds,
and is the one time that the device is waited for.
"""

from __future__ import annotations

import importlib.util
import math
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from losses.geometry import cell_centres
from losses.transport.costs import FLOOR, Potentials

__all__ = ["Solver", "chosen"]

_ALIKE = 1e-4
"""What the kernels may be off by in the small problem, as a share of the largest number (ours)."""
_TESTED: dict[torch.device, Solver | None] = {}
"""By device, what it was found fit for in this process; None: plain torch."""
_TESTING = threading.Lock()


class Solver(NamedTuple):
    """One way to solve what `together` is asked for; the arguments are those of its `_rounds` and so on."""

    rounds: Callable[..., Potentials]
    floored_rounds: Callable[..., Tensor]
    annealed: Callable[..., Potentials]


def chosen(like: Tensor, plain: Solver) -> Solver:
    """The way for tensors like this one.

    Raises:
        ValueError: If `CROWD_FUSED` is neither 0 nor 1.
    """
    device = like.device
    wanted = like.is_cuda or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")
    if not wanted or like.dtype != torch.float32 or not _allowed():
        return plain
    with _TESTING:
        if device not in _TESTED:
            _TESTED[device] = _tested(device, plain)
    return _TESTED[device] or plain


def _allowed() -> bool:
    """What the environment says."""
    text = os.environ.get("CROWD_FUSED", "").strip() or "1"
    if text not in ("0", "1"):
        raise ValueError(f"CROWD_FUSED must be 0 (plain torch) or 1; found {text[:60]!r}")
    return text == "1"


def _tested(device: torch.device, plain: Solver) -> Solver | None:
    """The fused way if Triton is there and both agree on `_small_problem`, or None."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        from losses.transport import fused

        ours = Solver(fused.rounds, fused.floored_rounds, fused.annealed)
        # In float64, which no setting of the device rounds to fewer digits.
        expected = _small_problem(plain, device, torch.float64)
        found = _small_problem(ours, device, torch.float32)
        for name, one, other in zip(Solver._fields, found, expected, strict=True):
            off, most = float((one - other).abs().max()), float(other.abs().max())
            if not off <= _ALIKE * most:
                raise ArithmeticError(f"{name}: numbers of up to {most:.6g} are off by {off:.6g}")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler or a driver raises
        _give_up(device, error)
        return None
    return Solver(*(_guarded(device, fast, slow) for fast, slow in zip(ours, plain, strict=True)))


def _guarded(device: torch.device, fast: Callable[..., Any], slow: Callable[..., Any]) -> Callable[..., Any]:
    """The fast way for as long as it raises nothing: Triton compiles anew for some sizes and alignments."""

    def either(*args: Any, **kwargs: Any) -> Any:
        try:
            return fast(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            _TESTED[device] = None
            _give_up(device, error)
            return slow(*args, **kwargs)

    return either


def _give_up(device: torch.device, error: Exception) -> None:
    """Says that plain torch is used from now on."""
    reason = " ".join(str(error).split())[:300]
    warnings.warn(
        f"the fused kernels of dm_count and gl do not work on {device}, plain torch is used instead: the same numbers, "
        f"slower ({type(error).__name__}: {reason}); CROWD_FUSED=0 does not try them",
        RuntimeWarning,
        stacklevel=2,
    )


def _small_problem(way: Solver, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """The answers of each of the three solvers to two images with 35 and 3 people on 23 x 25 cells.

    That is more than one tile and more than one block each way, a tenth round, padding, and cells without mass.
    """
    h, w, n = 23, 25, 35
    turn = torch.arange(h * w, device=device, dtype=torch.float32)
    points = torch.stack([(turn[:n] * 37).remainder(200), (turn[:n] * 23.5).remainder(180)], 1).expand(2, n, 2)
    real = turn[:n] < torch.tensor([[n], [3]], device=device)
    mass = (torch.stack([turn, turn + 1]) * 7).remainder(5).view(2, h, w)
    mass = (mass / mass.sum((1, 2), keepdim=True)).to(dtype)
    places = points.to(dtype)
    f, g = way.rounds(places, real, mass, 8, reg=60.0, scale=1.0, iterations=12, tolerance=1e-9)
    v = way.floored_rounds(places, real, mass, 8, variance=30.0, iterations=12, tolerance=1e-9)
    cost = torch.cdist(places / 200, (cell_centres((h, w), 8, places) / 200).expand(2, h * w, 2))
    strengths = torch.tensor([[1.0, 0.7], [0.5, 0.01], [0.1, 0.1]], device=device, dtype=torch.float64)
    due = strengths > 0.05
    log_a, log_b = torch.where(real, 0.0, -1e5).to(dtype), (mass.flatten(1) * n).log().clamp(min=-1e5)
    left, right = way.annealed(cost, log_a, log_b, strengths, due, 0.1, reach=0.5)
    of_rounds = torch.cat([torch.where(real, f, 0.0), g], 1)
    return [of_rounds, (v + FLOOR).log() + math.log(1 / FLOOR), torch.cat([left, right], 1)]
