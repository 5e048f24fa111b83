"""How far the transport step of OT-M is from the exact solution, which POT's network simplex gives."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from runners.localizers._separable import Array
from runners.localizers._transport import Cells, transport

__all__ = ["Agreement", "agreement"]


class Agreement(NamedTuple):
    """The entropic plan against an exact one. Costs are |x - y|^2 / (2 v).

    Attributes:
        cost: <P, C> of the entropic plan, per unit of its mass.
        exact_cost: The least possible <P, C>, per unit of mass.
        mean_distance: Between the barycentres of both plans' columns, averaged over the points, pixels.
        max_distance: The largest of them, pixels.
        mass_error: Mean |column's mass - 1| of the entropic plan, which has not converged when eps ends.
    """

    cost: float
    exact_cost: float
    mean_distance: float
    max_distance: float
    mass_error: float


def agreement(
    cells: Cells, points: Array, *, variance: float = 32.0, blur: float = 0.01, scaling: float = 0.75
) -> Agreement:
    """Compares one transport step from given points with `ot.emd`, whose matrix has N n entries.

    Exact plans need not be unique; their barycentres then differ among themselves.

    Args:
        cells: Masses that sum to n.
        points: [n, 2].
        variance: v.
        blur: Last eps of the entropic solution.
        scaling: Factor from eps to eps.
    """
    import ot

    ours = transport(cells, points, variance=variance, blur=blur, scaling=scaling).moments
    cost = ot.dist(cells.centres, points, metric="sqeuclidean") / (2 * variance)
    plan = ot.emd(cells.mass, np.full(len(points), cells.mass.sum() / len(points)), cost, numItermax=10_000_000)
    exact = (plan.T @ cells.centres) / plan.sum(axis=0)[:, None]
    distance = np.sqrt(((ours.place / ours.mass[:, None] - exact) ** 2).sum(axis=1))
    return Agreement(
        float(ours.cost.sum() / ours.mass.sum()),
        float((plan * cost).sum() / plan.sum()),
        float(distance.mean()),
        float(distance.max()),
        float(np.abs(ours.mass - 1).mean()),
    )
