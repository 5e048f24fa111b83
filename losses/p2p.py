"""P2P: point proposals matched one to one with the annotated heads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from losses._assignment import assign
from losses.base import CrowdLoss, Prediction, Target, check_number
from losses.parallel import over_all

__all__ = ["P2P", "anchors", "match"]


def anchors(h: int, w: int, stride: int, rows: int = 2, cols: int = 2, *, like: Tensor | None = None) -> Tensor:
    """Reference points of a point head: `rows` x `cols` in every cell, evenly spread.

    Two a side lie at the cell's centre +- stride / 4: at stride 8, four anchors 4 pixels apart [code].

    Args:
        h: Cells along y.
        w: Cells along x.
        stride: Pixels per cell.
        rows: Anchors along y in a cell. Default 2 [code].
        cols: Anchors along x in a cell. Default 2 [code].
        like: Tensor whose dtype and device are used. Default: float32 on the CPU.

    Returns:
        (h * w * rows * cols, 2) as (x, y), pixels, ordered by row, column, anchor row, anchor column.

    Raises:
        ValueError: If a number is not positive.
    """
    if min(h, w, stride, rows, cols) < 1:
        raise ValueError(f"h, w, stride, rows and cols must be positive; found {(h, w, stride, rows, cols)}")
    like = torch.empty(0) if like is None else like
    y = (torch.arange(h * rows).to(like) + 0.5) * (stride / rows)
    x = (torch.arange(w * cols).to(like) + 0.5) * (stride / cols)
    grid = torch.stack([x.expand(h * rows, -1), y.unsqueeze(1).expand(-1, w * cols)], dim=-1)
    return grid.view(h, rows, w, cols, 2).transpose(1, 2).reshape(-1, 2)


@torch.no_grad()
def match(points: Tensor, logits: Tensor, targets: Tensor, *, cost_point: float = 0.05) -> tuple[Tensor, Tensor]:
    """Matches proposals with targets one to one at the least total cost, exactly (the assignment problem).

    The cost of a pair is cost_point * distance - probability of class 1. All targets are matched, or all proposals if
    they are fewer. Runs on the CPU in float64 (see `losses._assignment`). Where several matchings cost the same, as
    with duplicates of points, any of them may be returned.

    Args:
        points: (Q, 2) proposals as (x, y), pixels.
        logits: (Q, 2), background and person.
        targets: (n, 2) as (x, y), pixels.
        cost_point: Cost of one pixel of distance. Default 0.05 [code].

    Returns:
        Indices of the matched proposals and of their targets, both (min(n, Q),), int64, on the proposals' device.
    """
    return _match_batch(points[None], logits[None], [targets], cost_point)


@torch.no_grad()
def _match_batch(points: Tensor, logits: Tensor, heads: list[Tensor], cost_point: float) -> tuple[Tensor, Tensor]:
    """`match` of every image: indices into the batch's proposals, image after image, and into all its heads."""
    places, scores = points.cpu().double(), logits.cpu().double()
    # The softmax of two classes.
    person = (scores[..., 1] - scores[..., 0]).sigmoid_()
    proposals, targets, passed = [], [], 0
    for b, image_heads in enumerate(heads):
        located = image_heads.cpu().double().numpy()
        target, proposal = assign(located, places[b].numpy(), person[b].numpy(), cost_point)
        proposals.append(proposal + b * points.shape[1])
        targets.append(target + passed)
        passed += len(located)
    found = torch.from_numpy(np.stack([np.concatenate(proposals), np.concatenate(targets)])).to(points.device)
    return found[0], found[1]


class P2P(CrowdLoss):
    """Point-to-point loss of P2PNet (Song et al., ICCV 2021), on point proposals instead of a density map.

    Every image's proposals are matched with its heads at the least cost (see `match`); matched proposals should say
    "person" and lie on their head, all others say "background". Over the whole batch, w = 1 for matched proposals and
    `eos` for the others:

        ce    = sum w * cross entropy / sum w
        point = point_weight * sum over matched pairs of |proposal - head|^2 / max(number of heads, 1)

    Both normalisers belong to the batch, so a batch is not the mean of its images. Heads beyond the number of proposals
    stay unmatched but count in the normaliser [code]. A batch without any head has no point term (ours: the released
    matcher fails on it).

    `variant="official"` drops the point term: the released code's table of weights names it `loss_points`, the loss is
    called `loss_point`, and only names in the table are summed.

    Args:
        eos: Weight of the background class. Default 0.5 [paper, code].
        cost_point: Matching cost of one pixel of distance. Default 0.05 [paper, code].
        point_weight: Weight of the point term. Default 2e-4 [paper, code]. Without effect in the official variant.
        variant: `"paper"` or `"official"`.
        validate: See `CrowdLoss`.

    Raises:
        ValueError: If a parameter is out of range.
    """

    reads = "points"
    reference = "Song et al., Rethinking Counting and Localization in Crowds, ICCV 2021, eq. 5-7"
    main_weight = "point_weight"

    def __init__(
        self,
        *,
        eos: float = 0.5,
        cost_point: float = 0.05,
        point_weight: float = 2e-4,
        variant: str = "paper",
        validate: bool | None = None,
    ) -> None:
        super().__init__(variant=variant, validate=validate)
        check_number("eos", eos, above=0)
        check_number("cost_point", cost_point, at_least=0)
        check_number("point_weight", point_weight, at_least=0)
        self.eos = eos
        self.cost_point = cost_point
        self.point_weight = point_weight

    def targets(self, prediction: Prediction, target: Target) -> list[Tensor | None]:
        """For each image 1 at the proposals that are matched and 0 elsewhere, (Q,)."""
        points, logits = prediction.points, prediction.logits
        assert points is not None
        assert logits is not None
        proposal, _ = _match_batch(points, logits, [p.to(points.dtype) for p in target.points], self.cost_point)
        matched = points.new_zeros(points.shape[:2])
        matched.view(-1)[proposal] = 1.0
        return list(matched)

    def forward_terms(self, prediction: Prediction, target: Target) -> dict[str, Tensor]:
        """The terms ce and (paper) point of a batch."""
        points, logits = prediction.points, prediction.logits
        assert points is not None  # check_inputs has seen to it
        assert logits is not None
        heads = [p.to(points.dtype) for p in target.points]
        proposal, head = _match_batch(points, logits, heads, self.cost_point)
        # With two classes -log softmax is -log sigmoid of the difference, and much faster.
        margin = (logits[..., 0] - logits[..., 1]).flatten()
        side = torch.ones_like(margin).index_fill_(0, proposal, -1.0)
        weight = torch.full_like(margin, self.eos).index_fill_(0, proposal, 1.0)
        entropy = -(F.logsigmoid(margin * side) * weight).sum()
        matched = len(proposal)
        terms = {"ce": over_all(entropy, self.eos * (len(margin) - matched) + matched)}
        if not self.official:
            gaps = points.flatten(0, 1).index_select(0, proposal) - torch.cat(heads).to(points.device)[head]
            terms["point"] = over_all(self.point_weight * gaps.square().sum(), sum(map(len, heads)), least=1)
        return terms
