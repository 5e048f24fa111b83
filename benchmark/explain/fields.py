"""Every loss on every prediction of a scene: gradient field, target, value, and what one sees in them, measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import losses
from benchmark.explain.scenes import Guess, Scene, guess
from benchmark.names import Choice
from losses import CrowdLoss, Prediction, Target
from losses.geometry import cell_centres, nearest_point
from losses.proximal import View, view
from reports.plots_maps import BELOW

__all__ = [
    "NEAR",
    "SIDE",
    "STILL",
    "Field",
    "Seen",
    "build",
    "by_head",
    "fields",
    "nearest",
    "proposals",
    "read",
    "target_of",
]

Floats = NDArray[np.float64]

NEAR = 8.0
"""Cells within this many pixels of a head are near it: twice the width of a good prediction's kernels (ours)."""
_ALL, _MOST = 0.995, 0.75
"""Shares of cells from which words say that they are pushed one way or not at all, and that they mostly are (ours). All
is where a table shows 100 %."""
_PUSHED = 1e-4
"""A cell is pushed where the gradient is more than this share of the loss's largest at the reference (ours)."""
_REFERENCE = "under"
"""The prediction whose largest gradient is a loss's unit of a push (ours). Made from the scene, so that what is said of
a pair does not depend on which others are drawn; with people missing at every head, so that no loss is at rest."""
_SAME = 1e-9
"""People per cell by which a target may differ from the prediction and be the same: what is computed in float64 is far
nearer (ours). Masses of predictions are rounded, see `Guess.rounding`, which is more, and is allowed besides."""
_NUDGE = 1e-3
"""Change of the prediction that shows a kink: the sign of the gradient is not the same just below and above."""
_JUMP = 0.05
"""Share of the largest gradient at the reference by which a gradient jumps at a kink: more than a smooth one changes
over twice `_NUDGE`, even at its zero (ours)."""
_KINKED = 0.25
"""Share of cells pushed the other way from which a kink is told of (ours)."""
_NEARLY = 0.05
"""People by which a target's sum may miss a whole number and be told as that (ours)."""
SIDE = (
    "Which of the two sides is drawn hangs on less than a thousandth of the prediction; where the count is exactly "
    "right, on rounding alone."
)
"""What is said of a field at a kink."""
STILL = (
    "Yet the gradient is not zero: this target is that of the loss's row in the table of proximal steps, the limit of "
    "tau to infinity, in which the transport term moves nothing; the gradient of transport is no part of that target."
)
"""What is said where cells are pushed although the target is the prediction; see `Seen.still`."""
_LEAST = 1e-6
"""Probabilities of proposals lie within [this, 1 - this]: a logit is finite."""


class Seen(NamedTuple):
    """What is measured in a field. A cell is pushed up where the gradient is negative: more people are wanted there.

    Attributes:
        up, down: Shares of all cells.
        up_near, down_near: Shares of the cells within `NEAR` of a head; NaN if there is none.
        up_far, down_far: Shares of the others.
        one_sign: Heads whose nearest cells are all pushed the same way.
        heads: Number of heads.
        near: Share of the prediction's mass within `NEAR` of a head.
        target_near: Of the target's positive mass; NaN without a target or mass.
        target_count: Sum of the target; NaN without.
        change: Largest |target - prediction| of a cell; NaN without.
        rounding: Of that, what the rounding of the prediction's masses may make.
        negative: Mass below zero in the target, people.
        kink: Share of the cells that 0.999 and 1.001 times the prediction push in opposite directions, with a jump.
        shape: Whether 0.999 and 1.001 times the prediction have targets of the prediction's shape.
        without: Heads that own no cell, as others are nearer to every cell's centre.
    """

    up: float
    down: float
    up_near: float
    down_near: float
    up_far: float
    down_far: float
    one_sign: int
    heads: int
    near: float
    target_near: float
    target_count: float
    change: float
    rounding: float
    negative: float
    kink: float
    shape: bool
    without: int

    @property
    def same(self) -> bool:
        """Whether the target is the prediction itself, up to the rounding of the prediction's masses."""
        return self.change <= self.rounding + _SAME

    @property
    def kinked(self) -> bool:
        """Whether a good part of the cells is pushed the other way by a little less or a little more."""
        return self.kink >= _KINKED

    @property
    def below(self) -> bool:
        """Whether the target's mass below zero is told of, in words, numbers and colours alike."""
        return self.negative > BELOW

    @property
    def still(self) -> bool:
        """Whether cells are pushed although the target is the prediction, as one of the prediction's shape always is.

        So it is for DM-Count: its row is the limit tau -> infinity, whose target keeps the shape and sets the count.
        """
        return self.same and self.shape and not self.kinked and self.up + self.down > 0


class Field(NamedTuple):
    """What a loss asks of a prediction.

    Attributes:
        loss: Its name with the parameters that were typed.
        guess: The prediction.
        reads: `density`, or `points`: then all maps are of proposals at the cells' centres.
        read: float64 [h, w], what the loss reads: people per cell, or each proposal's probability.
        gradient: float64 [h, w], in people per cell, or in logits.
        target: float64 [h, w] as `read`, or None.
        value: The loss.
        unit: Its largest gradient at the reference, the prediction `under`.
        counts: float64 [n], what the cells nearest to each head hold.
        target_counts: The same of the target; None without.
        seen: See `Seen`.
    """

    loss: str
    guess: Guess
    reads: str
    read: Floats
    gradient: Floats
    target: Floats | None
    value: float
    unit: float
    counts: Floats
    target_counts: Floats | None
    seen: Seen

    @property
    def total(self) -> float:
        """Sum of what the loss reads."""
        return float(self.read.sum())

    @property
    def short(self) -> str:
        """Where the gradient pushes, and what sort of target that is, in a few words."""
        seen = self.seen
        near, far = _way(seen.up_near, seen.down_near), _way(seen.up_far, seen.down_far)
        if near == far or seen.up_near != seen.up_near or seen.up_far != seen.up_far:
            way = _way(seen.up, seen.down)
            where = _OVERALL.get(way, f"{way} everywhere")
        else:
            where = f"{near} near heads, {far} elsewhere"
        where += " (at a kink)" if seen.kinked else ""
        if self.target is None:
            return where
        sort = ", the prediction itself" if seen.same else ", partly negative" if seen.below else ""
        limit = " (the limit tau to infinity: transport is not in it)" if seen.still else ""
        return f"{where}; target sums to {_people(seen.target_count)}{sort}{limit}"

    @property
    def sentences(self) -> tuple[str, ...]:
        """What one sees, each sentence computed from the maps."""
        seen = self.seen
        said = [
            f"{_percent(seen.up)} of the cells are pushed up (more people wanted), {_percent(seen.down)} down; within "
            f"{NEAR:g} px of a head {_percent(seen.up_near)} up, elsewhere {_percent(seen.up_far)}.",
            f"For {seen.one_sign} of {seen.heads} heads all of the nearest cells are pushed the same way.",
        ]
        if seen.kinked:
            said.append(
                f"{_percent(seen.kink)} of the cells are pushed the other way if the prediction changes from 0.999 to "
                f"1.001 times itself: the loss has a kink there. {SIDE}"
            )
        if self.target is None:
            return (*said, "The loss names no target.")
        if seen.same:
            but = ", but for the rounding of its masses" if seen.change > _SAME else ""
            said.append(f"The target is the prediction itself{but} (largest difference {seen.change:.1g}).")
        if seen.still:
            said.append(STILL)
        said.append(
            f"The target sums to {_people(seen.target_count)} for {seen.heads} heads (prediction: "
            f"{_people(self.total)}); {_percent(seen.target_near)} of its positive mass lies within {NEAR:g} px of a "
            f"head (prediction: {_percent(seen.near)})."
        )
        if seen.without and abs(seen.heads - seen.without - seen.target_count) < _NEARLY:
            said.append(
                f"That is {seen.without} fewer than the heads: so many own no cell, as others are nearer to "
                "every cell's centre."
            )
        if seen.below:
            said.append(f"It is negative in places, by {_people(seen.negative)} people in all.")
        return tuple(said)


def fields(choices: Iterable[Choice], scene: Scene, guesses: Sequence[Guess]) -> list[Field]:
    """Losses, each with every prediction, in the order given.

    Raises:
        ValueError, TypeError: For an unknown loss or parameter; see `losses.build`.
    """
    found = []
    for choice in choices:
        loss = build(choice)
        unit = float(_view(loss, scene, guess(scene, _REFERENCE).density).gradient.abs().max())
        found += [_field(str(choice), loss, scene, one, unit) for one in guesses]
    return found


def build(choice: Choice) -> CrowdLoss:
    """A loss as it was typed."""
    return losses.build(choice.name, **choice.params)


def _view(loss: CrowdLoss, scene: Scene, density: Floats) -> View:
    """What the loss asks of a density, in float64."""
    return view(loss, read(loss, scene, torch.from_numpy(density))[1], target_of(scene))[0]


def _field(name: str, loss: CrowdLoss, scene: Scene, made: Guess, unit: float) -> Field:
    """One loss on one prediction, and on a little less and a little more of it; `unit` is a large gradient."""
    views = [_view(loss, scene, made.density * factor) for factor in (1.0, 1 - _NUDGE, 1 + _NUDGE)]
    found, cells = views[0], scene.cells
    read_, _ = read(loss, scene, torch.from_numpy(made.density))
    gradients = [each.gradient.view(cells).numpy() for each in views]
    signs = [_sign(gradient, _PUSHED * unit) for gradient in gradients]
    jumps = np.abs(gradients[2] - gradients[1]) > _JUMP * unit
    wanted = None if found.target is None else found.target.double().view(cells).numpy()
    owner, distance = nearest(scene)
    heads = len(scene.points)
    kink = float(((signs[1] * signs[2] < 0) & jumps).mean())
    without = heads - len(np.unique(owner))
    shape = all(each.target is not None and _same_shape(each.target.view(cells).numpy(), read_) for each in views[1:])
    return Field(
        loss=name,
        guess=made,
        reads=loss.reads,
        read=read_,
        gradient=gradients[0],
        target=wanted,
        value=float(found.value),
        unit=unit,
        counts=by_head(read_, owner, heads),
        target_counts=None if wanted is None else by_head(wanted, owner, heads),
        seen=_seen(read_, signs[0], wanted, owner, distance, heads)._replace(
            rounding=made.rounding, kink=kink, shape=shape, without=without
        ),
    )


def target_of(scene: Scene) -> Target:
    """The annotation of a scene, as a batch of one."""
    return Target(
        [torch.from_numpy(np.ascontiguousarray(scene.points))],
        scene.size,
        short_side=torch.tensor([scene.short_side], dtype=torch.float64),
    )


def read(loss: CrowdLoss, scene: Scene, density: Tensor) -> tuple[Floats, Prediction]:
    """A density as a loss reads it, and the map of what it reads.

    A point loss gets a proposal at the centre of every cell, as if a head of 2 x 2 anchors had twice the stride; its
    probability of "person" is the mass of the cell, so that the probabilities sum to the count (ours).

    Args:
        loss: Any loss.
        scene: Gives stride and cells.
        density: (h, w) people per cell.
    """
    if loss.reads == "density":
        return density.numpy(), Prediction(scene.stride, density=density[None, None])
    probability = density.clamp(_LEAST, 1 - _LEAST)
    prediction = proposals(scene, torch.logit(probability).flatten())
    return probability.numpy(), prediction


def proposals(scene: Scene, logits: Tensor) -> Prediction:
    """Proposals at the cells' centres; `logits` (h w,) are the logarithms of the odds of "person"."""
    places = cell_centres(scene.cells, scene.stride, logits)
    return Prediction(scene.stride, points=places[None], logits=torch.stack([-logits / 2, logits / 2], dim=-1)[None])


def nearest(scene: Scene) -> tuple[NDArray[np.int64], Floats]:
    """The nearest head of every cell and its distance from the cell's centre, pixels, both [h, w]."""
    found = nearest_point(torch.from_numpy(np.ascontiguousarray(scene.points)), scene.cells, scene.stride)
    return found.owner.numpy(), found.distance.numpy()


# ---------------------------------------------------------------------------------------------------------------------
# Measuring


def by_head(values: Floats, owner: NDArray[np.int64], heads: int) -> Floats:
    """Sums over the cells nearest to each head."""
    return np.bincount(owner.ravel(), weights=values.ravel(), minlength=heads).astype(np.float64)


def _sign(gradient: Floats, floor: float) -> Floats:
    return np.where(np.abs(gradient) <= floor, 0.0, np.sign(gradient))


def _seen(
    read_: Floats, sign: Floats, target: Floats | None, owner: NDArray[np.int64], distance: Floats, heads: int
) -> Seen:
    """All but the rounding, the kink, the shape and the heads without a cell."""
    close = distance <= NEAR
    signs = [np.unique(sign[owner == head]) for head in range(heads)]
    shares = [_share(sign == way, where) for where in (np.ones_like(close), close, ~close) for way in (-1, 1)]
    positive = None if target is None else target.clip(min=0)
    return Seen(
        up=shares[0],
        down=shares[1],
        up_near=shares[2],
        down_near=shares[3],
        up_far=shares[4],
        down_far=shares[5],
        one_sign=sum(len(found) == 1 and bool(found[0]) for found in signs),
        heads=heads,
        near=_near(read_, close),
        target_near=np.nan if positive is None else _near(positive, close),
        target_count=np.nan if target is None else float(target.sum()),
        change=np.nan if target is None else float(np.abs(target - read_).max()),
        rounding=0.0,
        negative=0.0 if target is None or positive is None else float((positive - target).sum()),
        kink=0.0,
        shape=False,
        without=0,
    )


def _same_shape(target: Floats, read_: Floats) -> bool:
    """Whether a target is a multiple of the prediction."""
    total = float(read_.sum())
    return total > 0 and float(np.abs(target - read_ * (float(target.sum()) / total)).max()) <= _SAME


def _share(yes: NDArray[np.bool_], where: NDArray[np.bool_]) -> float:
    return float(yes[where].mean()) if where.any() else np.nan


def _near(mass: Floats, close: NDArray[np.bool_]) -> float:
    total = float(mass.sum())
    return float(mass[close].sum()) / total if total > 0 else np.nan


_OVERALL = {"not pushed": "no push anywhere", "mostly not pushed": "mostly not pushed"}
"""What is said of ways that do not take an "everywhere"."""


def _way(up: float, down: float) -> str:
    """Which way most cells are pushed."""
    for share, word in ((up, "up"), (down, "down"), (1 - up - down, "not pushed")):
        if share >= _MOST:
            return word if share >= _ALL else f"mostly {word}"
    return "both ways"


def _people(value: float) -> str:
    """Two decimals; three digits of what is smaller."""
    return f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.1g}"


def _percent(share: float) -> str:
    return "none" if share != share else f"{100 * share:.0f} %"
