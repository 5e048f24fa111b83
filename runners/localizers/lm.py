"""LM: the local maxima of a density, by the rules of GL, STEERER and FIDTM."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from losses.base import check_choice, check_number
from runners.localizers._peaks import Peaks, peaks, refined
from runners.localizers.base import Field, Localizer, Located, density_of, ordered

__all__ = ["LM", "PUBLISHED", "kernel_peak"]

RULES = ("gl", "steerer", "fidtm")
PUBLISHED: dict[str, dict[str, float]] = {
    "gl": {},
    "steerer": {"shanghaitech_a": 0.2, "ucf_qnrf": 0.15, "nwpu": 0.1},
    "fidtm": {"all": 100 / 255},
}
"""Thresholds that the authors give, by rule and dataset. GL's is not known."""
AREA = 64.0
"""Heights are people per 64 square pixels, which is a cell of GL's own stride 8."""
CEILING = 0.3
"""STEERER keeps every peak of this share of the kernel's peak, whatever is beside it [code]."""


def kernel_peak(sigma: float, kernel: int) -> float:
    """Highest value of a Gaussian on kernel x kernel pixels that sums to 1, people per pixel."""
    steps = np.arange(kernel) - (kernel - 1) / 2
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    return float((weights.max() / weights.sum()) ** 2)


class LM(Localizer):
    """Local maxima of the density, upsampled bilinearly to pixels (GL: by its stride, 8; here by any stride).

    All rules share the peaks (`runners.localizers._peaks`): pixels that equal the maximum of the 3 x 3 around, a
    plateau once, above 0 only. They differ in the score. v is a peak's height as people per 64 square pixels (v = 64 /
    s^2 times the upsampled people per cell: comparable between strides, and the value itself at GL's stride 8), g the
    peak of one person's Gaussian kernel in the same unit (0.72 by default), P the highest cell in the peak's patch:

    - gl: the score is v. Its authors drop what is below a threshold, whose value is not known.
    - steerer: a peak is kept if v >= clip(t P, t g, 0.3 g), and so if v >= min(t max(P, g), 0.3 g). The score is v / g
      where v >= 0.3 g, else v / max(P, g): at least t exactly where the rule keeps the peak, for every t up to 0.3.
      Above 0.3 the rule changes nothing more; ours then goes on with v >= t g.
    - fidtm: the score is v / (highest v of the image), 1 for the highest peak; no point where the highest v is below
      0.1 g. The 0.1 is of a FIDT map, whose peaks are 1; a density's are g (ours).

    Differences from the releases: STEERER adds points from its coarser maps (4 and 8 times), which a single density
    does not have; its patch maximum is over the cells whose centres lie in the patch, not over upsampled pixels. FIDTM
    and STEERER look at finer maps than most of ours: at stride 8 the highest cell of a Gaussian of sigma 4 px is 0.65 g
    where a cell's centre is its own, 0.32 g where a cell's corner is.

    Borders: cells that lie wholly in the padding are cut first, and what is beyond does not exist, so a cell at the cut
    may be a peak although the padding beyond it is higher. That is wanted: nobody stands in the padding, density there
    has leaked from a person at the border. A point in the part of a border cell that is padding is moved to the border.

    Args:
        rule: "gl" (default; ours), "steerer" or "fidtm".
        threshold: Least score. None (default): chosen on the validation split where runs are scored; elsewhere what is
            published: 100 / 255 for fidtm. STEERER's t depends on the dataset (`PUBLISHED`: ShanghaiTech A 0.2,
            UCF-QNRF 0.15, NWPU 0.1), GL's is not known: both must be given.
        refine: Whether peaks move below the size of a cell, to the top of a quadratic through the 3 x 3 cells around;
            see `_peaks.refined`. Scores stay (ours; default False, as the releases).
        sigma: Standard deviation of one person's Gaussian, pixels; 4 [code: STEERER, C3F]. For steerer and fidtm.
        kernel: Pixels along a side of that Gaussian; 15 [code: STEERER; 11 on ShanghaiTech A].
        patch: Pixels along a side of STEERER's patches, which begin at the image's corner; 32 [code].
        least: Share of g that the highest peak must have for fidtm; 0.1 [code, of a map with peaks of 1].

    Raises:
        ValueError: If a parameter is out of range; from calls, if the density is missing, has another shape or values
            that are NaN, infinite or negative.
        TypeError: If a parameter is of another type.
    """

    reference = (
        "Wan et al.: A generalized loss function for crowd counting and localization, CVPR 2021 (gl); Han et al.: "
        "STEERER, ICCV 2023 (steerer); Liang et al.: Focal inverse distance transform maps, TMM 2022 (fidtm); "
        "refine, units and plateaus are ours"
    )

    def __init__(
        self,
        *,
        rule: str = "gl",
        threshold: float | None = None,
        refine: bool = False,
        sigma: float = 4.0,
        kernel: int = 15,
        patch: int = 32,
        least: float = 0.1,
    ) -> None:
        super().__init__(threshold=threshold)
        check_choice("rule", rule, RULES)
        check_number("sigma", sigma, above=0)
        check_number("least", least, at_least=0)
        for name, value in (("kernel", kernel), ("patch", patch)):
            check_number(name, value, at_least=1)
            if value != int(value):
                raise ValueError(f"{name} must be a whole number of pixels; found {value}")
        self.rule = rule
        self.refine = refine
        self.patch = int(patch)
        self.least = least
        self.published = PUBLISHED[rule].get("all")
        self.top = AREA * kernel_peak(sigma, int(kernel))

    def candidates(self, field: Field) -> Located:
        """All peaks of the density with the scores of the rule.

        Raises:
            ValueError: See the class.
        """
        density = density_of(field)
        found = peaks(density, field.stride)
        points = refined(density, found, field.stride) if self.refine else found.points
        height, width = field.size
        unit = AREA / field.stride**2
        kept, scores = self._scores(unit * density, found._replace(heights=unit * found.heights), field.stride)
        return ordered(points[kept].clip(0, (width, height)), scores)

    def _scores(self, density: NDArray[np.float64], found: Peaks, stride: int) -> tuple[slice, NDArray[np.float64]]:
        """Which peaks are candidates and their scores; everything in people per `AREA`."""
        heights = found.heights
        if self.rule == "gl":
            return slice(None), heights
        if self.rule == "steerer":
            beside = self._patch_maxima(density, found.points, stride)
            sure = heights >= CEILING * self.top
            return slice(None), heights / np.where(sure, self.top, np.maximum(beside, self.top))
        highest = heights.max(initial=0.0)
        return (slice(0), heights[:0]) if highest < self.least * self.top else (slice(None), heights / (highest or 1.0))

    def _patch_maxima(
        self, density: NDArray[np.float64], points: NDArray[np.float64], stride: int
    ) -> NDArray[np.float64]:
        """The highest cell in the patch of each point; 0 where a patch has no cell's centre."""
        row, column = (((np.arange(cells) + 0.5) * stride // self.patch).astype(np.int64) for cells in density.shape)
        x, y = (points // self.patch).astype(np.int64).T
        highest = np.zeros((max(row[-1], y.max(initial=0)) + 1, max(column[-1], x.max(initial=0)) + 1))
        np.maximum.at(highest, (row[:, None], column[None, :]), density)
        return highest[y, x]
