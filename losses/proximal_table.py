"""The paper's table of losses as cases of the proximal mapping loss, corrected, and what was misprinted. Text only.

The mathematics is in `losses.proximal`, the proofs in `benchmark explain --check` and `tests/losses/test_proximal.py`.
Notation: a the density on the n cells of one head, s = 1'a, c the cost of each cell, p* the target.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MISPRINTS", "TABLE", "Misprint", "Row"]


class Row(NamedTuple):
    """A row of the paper's table, corrected.

    Attributes:
        loss: As people call it.
        tau, divergence, feasible: What the problem is made of.
        target: p*.
        gradient: In a.
        function: Of this module.
    """

    loss: str
    tau: str
    divergence: str
    feasible: str
    target: str
    gradient: str
    function: str


TABLE: tuple[Row, ...] = (
    Row("L2 (Gaussian target)", "0", "|p - a|^2 / 2", "Gaussians, Sigma >= sigma^2 I", "N(y, sigma^2 I)", "a - p*",
        "gaussian"),
    Row("BL", "n / |s - 1|", "|p - a|^2 / 2", "none", "a - (|s - 1| / n) q + (1 - s) / n", "q + sign(s - 1)",
        "bayesian"),
    Row("P2PNet", "matching weight", "|p - a|_1", "Dirac masses", "delta(argmin c - 2 tau a)", "tau (1 - 2 p*)",
        "matched"),
    Row("DM-Count", "infinite", "KL(p | a)", "1'p = 1", "a / s", "(c - c'a / s) / s + w sign(s - 1)", "distribution"),
    Row("PML, L2 count norm", "constant", "|p - a|^2 / 2", "1'p = 1", "a - c / tau + eta",
        "c - mean c + (tau / n)(s - 1)", "squared"),
    Row("PML, L1 count norm", "w n / |s - 1|", "|p - a|^2 / 2", "1'p = 1", "a - (|s - 1| / (w n)) c + eta",
        "c - mean c + w sign(s - 1)", "squared_l1"),
    Row("PML, KL", "constant", "KL(p | a)", "1'p = 1", "a exp(-c / tau) / eta", "tau (1 - p* / a)", "entropic"),
)  # fmt: skip
"""The rows that are implemented here: the paper's four in its order, and PML's own three from its derivation."""


class Misprint(NamedTuple):
    """Something the slides print that cannot be meant.

    Attributes:
        printed: What stands there.
        meant: What is implemented.
        why: How one sees it.
    """

    printed: str
    meant: str
    why: str


MISPRINTS: tuple[Misprint, ...] = (
    Misprint("min_p p'a + tau D(p, a)", "min_p c'p + tau D(p, a)",
             "the linear term is the transport cost, as in the line above and in every derivation below it"),
    Misprint("tau -> infinity: p* -> a + (1 - 1'a)", "a + (1 - 1'a) / n",
             "the target must sum to 1; the factor 1/n of eta was lost"),
    Misprint("tau -> 0: p* -> delta(y), of the affine closed form", "only on the simplex",
             "the affine p* diverges like (mean c - c) / tau"),
    Misprint("BL: tau = 1 / |1'a - 1| with p* = a - (1 / |1'a - 1|) c + eta", "p* = a - |1'a - 1| c + eta at that tau; "
             "here tau = n / |1'a - 1|, and no mean of the cost is taken away",
             "p* has c / tau: the factor is inverted; with that tau the gradient is BL's"),
    Misprint("tau = detach(2 / |1'a - 1|) gives the count loss |1'a - 1| / n",
             "gradient (2 / n) sign with that tau detached, (1 / n) sign from the value",
             "a factor 2 between the two readings; the table has 1 / |1'a - 1|"),
    Misprint("L1 count norm |1'a - 1| / n", "w |1'a - 1|, tau = w n / |1'a - 1|",
             "released PML has no 1 / n: each head's own number of cells is in its tau"),
    Misprint("L2 row: p* = N(0 | sigma 1), tau = 0", "N(y, sigma^2 I); the gradient a - p* is that of regressing p*",
             "at tau = 0 the loss itself does not depend on a"),
    Misprint("DM-Count: count loss |1'a - 1| beside tau = infinity and KL", "|1'a - 1|, as DM-Count has it",
             "the limit of the KL divergence has 1'a - log 1'a - 1 instead; the slides set one for the other"),
    Misprint("P2PNet: delta(argmin c - tau a) in the table", "delta(argmin c - 2 tau a), as in its derivation",
             "the factor 2 of |delta_k - a|_1 = 1 + 1'a - 2 a_k was absorbed into tau"),
)  # fmt: skip
"""Misprints and gaps of the slides, each with what is implemented. `benchmark explain --check` checks the algebra."""
