r"""The proximal view: every loss on one cell as a step from the density towards a target (Lin, Wan, Chan, ICLR 2025).

One head y with the n density cells nearest to it: the point-neighbour case. With a >= 0 the density on these cells,
s = 1'a its count, and c_i the cost of moving one person from cell i to y,

    L(a) = min_p  c'p + tau D(p, a)    subject to  p in xi,  a subset of {p : 1'p = 1}.

The minimiser p* is the loss's target, and by the envelope theorem the gradient is that of the divergence at the target:

    dL/da = tau dD(p*, a)/da           tau (a - p*) for D = |p - a|^2 / 2,     tau (1 - p*/a) for D = KL(p | a).

A function here for each row of the paper's table (`losses.proximal_table`), in closed form, for one cell:

    `squared`       L2 divergence, constant tau (PML with the L2 count norm); affine set or simplex
    `squared_l1`    L2 divergence, tau = w n / |s - 1| (PML with the L1 count norm, official PML with w = 1)
    `entropic`      KL divergence
    `distribution`  its limit tau -> infinity: DM-Count
    `matched`       L1 divergence on Dirac masses: P2PNet
    `bayesian`      BL in the slides' single-cell form
    `gaussian`      regression of a Gaussian: the traditional L2

and `view` for a loss of the zoo on whole images: its gradient field by autograd, and the target that the loss itself
names (`CrowdLoss.image_target`). The slides have misprints; `losses.proximal_table` lists what is corrected here.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from losses.base import CrowdLoss, Prediction, Target, check_choice, check_number

__all__ = [
    "Cell",
    "View",
    "bayesian",
    "distribution",
    "entropic",
    "gaussian",
    "matched",
    "project_simplex",
    "slide_posterior",
    "squared",
    "squared_l1",
    "view",
]

Feasible = Literal["affine", "simplex"]


class Cell(NamedTuple):
    """A loss on one cell.

    Attributes:
        target: (n,) p*, people per density cell.
        filler: () eta, what makes the target sum to 1: added to every cell (L2; on the simplex to those above zero) or
            divided by (KL). None where there is none.
        value: () L(a).
        gradient: (n,) dL/da. Where L has a kink (s = 1 under an absolute value), the one with sign(0) = 0.
    """

    target: Tensor
    filler: Tensor | None
    value: Tensor
    gradient: Tensor


def squared(density: Tensor, cost: Tensor, tau: float, *, feasible: Feasible = "affine") -> Cell:
    r"""PML with constant tau: min_p c'p + (tau / 2) |p - a|^2.

    Affine set, 1'p = 1 and signs free:

        p* = a - c / tau + eta,   eta = (1 - 1'(a - c / tau)) / n
        dL/da = c - tau eta = (c - mean c) + (tau / n)(s - 1)

    Simplex, p >= 0 as well: p* = max(a - c / tau + eta, 0), the Euclidean projection of a - c / tau, eta such that it
    sums to 1. As tau -> infinity both tend to the nearest density that counts one: a + (1 - s) / n (affine). As
    tau -> 0 the projection tends to a Dirac mass on the cheapest cell, while the affine p* *diverges* like
    (mean c - c) / tau: there is no closed form of "delta(y)" without p >= 0.

    Args:
        density: (n,) a, people per cell.
        cost: (n,) c.
        tau: Weight of the proximal term, above 0.
        feasible: "affine" (what released PML corresponds to) or "simplex".

    Raises:
        ValueError, TypeError: If the tensors are not two vectors of one length, or a parameter is out of range.
    """
    _check(density, cost)
    check_number("tau", tau, above=0)
    check_choice("feasible", feasible, ("affine", "simplex"))
    return _squared(density, cost, density.new_tensor(tau), feasible)


def squared_l1(density: Tensor, cost: Tensor, weight: float = 1.0, *, feasible: Feasible = "affine") -> Cell:
    r"""PML with the L1 count norm: `squared` with tau = w n / |s - 1| held constant, so that the count pulls with +-w.

        p* = a - |s - 1| / (w n) c + eta,    dL/da = (c - mean c) + w sign(s - 1)                        (affine)

    Where the count is right tau is infinite and p* = a: the target is the density itself, wherever its mass lies. This
    is the slides' explanation of robustness to noisy annotations. tau = w n / |s - 1| gives the *gradient* of official
    PML (w = 1); its value, here (c - mean c)'a + w |s - 1|, would need 2 w n / |s - 1| in the split form, see
    `losses.proximal_table`.

    Args:
        density: (n,) a, people per cell.
        cost: (n,) c.
        weight: w, above 0, default 1 [code].
        feasible: "affine" or "simplex"; on the simplex the value is that of `squared` at this tau.

    Raises:
        ValueError, TypeError: As `squared`, and on the simplex where s = 1: there tau is infinite.
    """
    _check(density, cost)
    check_number("weight", weight, above=0)
    check_choice("feasible", feasible, ("affine", "simplex"))
    excess = density.sum() - 1
    if feasible == "simplex":
        if float(excess) == 0:
            raise ValueError("the density sums to 1, where tau = w n / |s - 1| is infinite; use feasible='affine'")
        return _squared(density, cost, weight * len(density) / excess.abs().detach(), feasible)
    centred, step = cost - cost.mean(), excess.abs() / (weight * len(density))
    filler = (cost.mean() * step) - excess / len(density)
    value = (centred * density).sum() + weight * excess.abs()
    return Cell(density - step * cost + filler, filler, value, centred + weight * excess.sign())


def entropic(density: Tensor, cost: Tensor, tau: float) -> Cell:
    r"""KL divergence: min_p c'p + tau KL(p | a), KL(p | a) = sum p log(p / a) - p + a.

        p*_i = a_i exp(-c_i / tau) / eta,   eta = sum_k a_k exp(-c_k / tau)
        L = tau (s - 1) - tau log eta,      dL/da_i = tau (1 - exp(-c_i / tau) / eta)

    The filler divides instead of being added, so p* >= 0 by itself: affine set and simplex are one. A cell without mass
    stays without. As tau -> infinity p* -> a / s (`distribution`), as tau -> 0 a Dirac mass on the cheapest cell that
    has any mass.

    Args:
        density: (n,) a >= 0, with some mass.
        cost: (n,) c.
        tau: Weight of the proximal term, above 0.

    Raises:
        ValueError, TypeError: As `squared`, and for a density that is negative or has no mass.
    """
    _check(density, cost)
    check_number("tau", tau, above=0)
    _check_mass(density)
    log_eta = torch.logsumexp(density.log() - cost / tau, dim=0)
    target = torch.exp(density.log() - cost / tau - log_eta)
    gradient = tau * (1 - torch.exp(-cost / tau - log_eta))
    return Cell(target, log_eta.exp(), tau * (density.sum() - 1) - tau * log_eta, gradient)


def distribution(density: Tensor, cost: Tensor, weight: float = 1.0, *, count: Literal["l1", "bregman"] = "l1") -> Cell:
    r"""DM-Count's row: the shape of the density is kept, its count is one.

        p* = a / s,    L = c'a / s + w k(s),    dL/da = (c - c'a / s) / s + w k'(s)

    k(s) = |s - 1| ("l1": what DM-Count has) or s - 1 - log s ("bregman": with w = tau this is what `entropic` tends to
    as tau -> infinity, up to terms of order 1 / tau). With one head the transport cost is c'a / s, so the zoo's
    DM-Count agrees on its transport term.

    Args:
        density: (n,) a >= 0, with some mass.
        cost: (n,) c.
        weight: w of the count term, at least 0.
        count: k.

    Raises:
        ValueError, TypeError: As `entropic`.
    """
    _check(density, cost)
    check_number("weight", weight, at_least=0)
    check_choice("count", count, ("l1", "bregman"))
    _check_mass(density)
    total = density.sum()
    target, mean_cost = density / total, (cost * density).sum() / total
    if count == "l1":
        norm, slope = (total - 1).abs(), (total - 1).sign()
    else:
        norm, slope = total - 1 - total.log(), 1 - 1 / total
    return Cell(target, total, mean_cost + weight * norm, (cost - mean_cost) / total + weight * slope)


def matched(density: Tensor, cost: Tensor, tau: float) -> Cell:
    r"""P2PNet's row: L1 divergence, targets are Dirac masses: min_k c_k + tau |delta_k - a|_1.

    For a in [0, 1], |delta_k - a|_1 = 1 + s - 2 a_k, so p* = delta_k with k = argmin c_k - 2 tau a_k, and
    dL/da = tau (1 - 2 delta_k): down everywhere but at the chosen cell. Here for any a, with |1 - a_k| in place of
    1 - a_k. P2PNet itself then classifies towards p* by cross-entropy.

    Args:
        density: (n,) a, the probabilities of n proposals.
        cost: (n,) c.
        tau: Weight of the proximal term, above 0.

    Raises:
        ValueError, TypeError: As `squared`.
    """
    _check(density, cost)
    check_number("tau", tau, above=0)
    chosen = (cost + tau * ((1 - density).abs() - density.abs())).detach().argmin()
    target = torch.zeros_like(density).index_fill(0, chosen, 1.0)
    value = cost[chosen] + tau * (target - density).abs().sum()
    return Cell(target, None, value, tau * (density - target).sign())


def bayesian(density: Tensor, background: Tensor) -> Cell:
    r"""BL as the slides have it in one cell: L = q'a + |s - 1|, q_i the posterior of the background.

        dL/da = q + sign(s - 1),    p* = a - (|s - 1| / n) q + eta,   eta = (1 - s) / n

    p* is the target whose regression with tau = n / |s - 1| has this gradient. It is PML's L1 row with cost q and
    *without* the mean of the cost taken away, so it sums to 1 - |s - 1| mean(q), not to 1: BL's background pulls the
    count below one, PML's does not. (The table prints (1 / |s - 1|) q and gives no set xi.) The zoo's BL counts
    (1 - q)'a; see its own `image_target`.

    Args:
        density: (n,) a, people per cell.
        background: (n,) q in [0, 1], see `slide_posterior`.

    Raises:
        ValueError: If the tensors are not two vectors of one length.
    """
    _check(density, background)
    excess = density.sum() - 1
    filler = -excess / len(density)
    target = density - excess.abs() / len(density) * background + filler
    value = (background * density).sum() + excess.abs()
    return Cell(target, filler, value, background + excess.sign())


def slide_posterior(distance: Tensor, margin: float, sigma: float) -> Tensor:
    """The slides' background posterior q = g / (g + 1), g = exp(-(d - r)^2 / 2 sigma^2) / (sqrt(2 pi) sigma).

    Args:
        distance: (n,) r, from the cell to its head, pixels.
        margin: d, the distance of the dummy head, pixels.
        sigma: Pixels.
    """
    peak = 1 / (math.sqrt(2 * math.pi) * sigma)
    likelihood = peak * torch.exp(-(margin - distance).square() / (2 * sigma**2))
    return likelihood / (likelihood + 1)


def gaussian(density: Tensor, mass: Tensor) -> Cell:
    r"""The traditional L2: L = |a - t|^2 / 2 with a fixed target t, the Gaussian N(y, sigma^2 I) on the cells.

    The table's row is tau = 0: then p* minimises the transport alone, over the Gaussians of at least that width, and
    does not depend on a. But at tau = 0 the loss L(a) = c'p* does not depend on a either; what is trained is the
    regression of p*, whose gradient is a - p*. The zoo's L2 has no factor 1/2, so twice this gradient.

    Args:
        density: (n,) a, people per cell.
        mass: (n,) t, the Gaussian's mass in each cell.

    Raises:
        ValueError: If the tensors are not two vectors of one length.
    """
    _check(density, mass)
    return Cell(mass, None, (density - mass).square().sum() / 2, density - mass)


def project_simplex(vector: Tensor, total: float = 1.0) -> tuple[Tensor, Tensor]:
    """The nearest point of {p >= 0, 1'p = total}, max(v + eta, 0), by sorting: O(n log n).

    Args:
        vector: (n,) v.
        total: Above 0.

    Returns:
        The projection (n,) and eta ().
    """
    ordered = vector.sort(descending=True).values
    places = torch.arange(1, len(vector) + 1, dtype=vector.dtype, device=vector.device)
    shift = (total - ordered.cumsum(0)) / places
    support = int((ordered + shift > 0).nonzero().max())
    return (vector + shift[support]).clamp(min=0), shift[support]


def _squared(density: Tensor, cost: Tensor, tau: Tensor, feasible: Feasible) -> Cell:
    """`squared` of checked input."""
    free = density - cost / tau
    if feasible == "affine":
        filler = (1 - free.sum()) / len(density)
        target, gradient = free + filler, cost - tau * filler
    else:
        target, filler = project_simplex(free)
        gradient = tau * (density - target)
    value = (cost * target).sum() + tau / 2 * (target - density).square().sum()
    return Cell(target, filler, value, gradient)


def _check(density: Tensor, other: Tensor) -> None:
    """Two vectors of one length, not empty."""
    if density.dim() != 1 or density.shape != other.shape or not len(density):
        raise ValueError(
            f"one cell is two vectors of one length, (n,) with n >= 1; found shapes {tuple(density.shape)} and "
            f"{tuple(other.shape)}"
        )


def _check_mass(density: Tensor) -> None:
    """Some mass, none of it negative."""
    if bool((density < 0).any()) or not bool((density > 0).any()):
        raise ValueError(
            f"the KL divergence needs a density >= 0 with some mass; found a minimum of {float(density.min()):.4g} and "
            f"a sum of {float(density.sum()):.4g}"
        )


# ---------------------------------------------------------------------------------------------------------------------
# A loss of the zoo on whole images


class View(NamedTuple):
    """What a loss asks of one image's prediction.

    Attributes:
        gradient: dL/da for a density, (h, w); for proposals the derivative in each one's logit of "person" less that of
            "background", (Q,). Negative: more people here.
        target: The target, of the same shape, or None where the loss names none.
        value: () the loss.
    """

    gradient: Tensor
    target: Tensor | None
    value: Tensor


def view(loss: CrowdLoss, prediction: Prediction, target: Target) -> list[View]:
    """The gradient field and the target of a loss on every image, each image as a batch of its own.

    Args:
        loss: Any loss of the zoo.
        prediction: A density, or proposals with logits, as `loss.reads` says.
        target: The annotation.

    Raises:
        TypeError, ValueError: As the loss itself.
    """
    return [_view(loss, *_image(prediction, target, b)) for b in range(len(target.points))]


def _image(prediction: Prediction, target: Target, b: int) -> tuple[Prediction, Target]:
    """Image b of a batch as a batch of one, detached."""
    outputs = {name: getattr(prediction, name) for name in ("density", "points", "logits")}
    fields = {name: value[b : b + 1].detach() for name, value in outputs.items() if value is not None}
    lists = {name: getattr(target, name) for name in ("visible", "spacing")}
    return prediction._replace(**fields), Target(
        [target.points[b]],
        target.image_size,
        short_side=None if target.short_side is None else target.short_side[b : b + 1],
        **{name: None if values is None else [values[b]] for name, values in lists.items()},
    )


def _view(loss: CrowdLoss, prediction: Prediction, target: Target) -> View:
    """`view` of a batch of one image."""
    name = "density" if loss.reads == "density" else "logits"
    main = getattr(prediction, name)
    if main is not None:
        main = main.clone().requires_grad_()
    prediction = prediction._replace(**{name: main})
    value = loss(prediction, target)["loss"]
    (gradient,) = torch.autograd.grad(value, main)
    with torch.no_grad():
        asked = loss.targets(prediction, target)[0]
    field = gradient[0, 0] if name == "density" else (gradient[0, :, 1] - gradient[0, :, 0]) / 2
    return View(field, asked, value.detach())
