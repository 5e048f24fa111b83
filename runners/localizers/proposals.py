"""Proposals: the points that a point loss gives, with the network's own scores."""

from __future__ import annotations

from typing import ClassVar, Literal

from runners.localizers.base import Field, Localizer, Located, ordered, proposals_of

__all__ = ["Proposals"]


class Proposals(Localizer):
    """The proposals inside the image; the score is the probability that a proposal is a person.

    There is no suppression of near ones: P2PNet is trained by one-to-one matching, so that each person has one.

    Args:
        threshold: Least probability. None (default): chosen on the validation split where runs are scored; elsewhere
            0.5 [code: P2PNet].
        least: Proposals below this probability are no candidates (ours): nearly all of a large image's are, and they
            would be most of the memory and time of a curve. A lower threshold takes its place.

    Raises:
        ValueError: If the field has a density, or its points and scores are of other shapes, NaN or infinite, or a
            score is not within 0 and 1.
    """

    reads: ClassVar[Literal["density", "points"]] = "points"
    reference = "Song et al.: Rethinking counting and localization in crowds, ICCV 2021; scores and 0.5 as its code"
    published = 0.5

    def __init__(self, *, threshold: float | None = None, least: float = 0.01) -> None:
        super().__init__(threshold=threshold)
        if not 0 <= least <= 1:
            raise ValueError(f"least must be a probability; found {least!r}")
        self.least = least if threshold is None else min(least, threshold)

    def candidates(self, field: Field) -> Located:
        """The proposals inside the image, borders included, of at least `least`, by decreasing score.

        Raises:
            ValueError: See the class.
        """
        points, scores = proposals_of(field)
        if scores.size and not 0 <= scores.min() <= scores.max() <= 1:
            raise ValueError(
                f"scores must be probabilities, from 0 to 1; found {scores.min():.3g} to {scores.max():.3g}"
            )
        kept = scores >= self.least
        return ordered(points[kept], scores[kept])
