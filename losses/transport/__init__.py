"""Entropic optimal transport between points and the cells of a density map, for DM-Count and GL.

Potentials are constants: no solver is differentiated. All solvers of one problem have the same numbers up to rounding;
they differ in what they cost, and where.

* `costs`: costs, potentials, schedules, the floors of the released codes.
* `dense`: balanced transport by POT's solvers, with the whole matrix of costs.
* `planar`: POT's rounds on the CPU, without a matrix: from sparse kernels.
* `floored`: the rounds of DM-Count's code.
* `unbalanced`: GL's steps on the CPU, without a matrix.
* `together`: all images of a batch at once, for accelerators, in plain torch; `choice` puts kernels in their place
  where these run, `fused` launches them, `kernels` has them (Triton).
* `chunks`, `compiled`: loops that are compiled (numba), and how.
"""

from __future__ import annotations

from losses.transport.costs import (
    FLOOR,
    PLAN_FLOOR,
    DistanceCost,
    Potentials,
    epsilon_schedule,
    squared_distance,
)
from losses.transport.dense import balanced, softmin
from losses.transport.floored import floored_rounds

__all__ = [
    "FLOOR",
    "PLAN_FLOOR",
    "DistanceCost",
    "Potentials",
    "balanced",
    "epsilon_schedule",
    "floored_rounds",
    "softmin",
    "squared_distance",
]
