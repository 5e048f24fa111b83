"""ChfL and GCFL: crowd counting in the frequency domain (Shu, Wan, Tan, Kwong, Chan, CVPR 2022)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from losses.base import Sample, check_choice, check_number
from losses.geometry import axis_gaussians, cell_axis, dots, wide
from losses.images import Images, TogetherLoss

__all__ = ["ChfL"]


class ChfL(TogetherLoss):
    r"""Characteristic function loss: density and heads are compared by their Fourier transforms at low frequencies.

        phi_d(t) = sum_i d_i exp(i t.x_i),       phi_y(t) = exp(-|t|^2 bandwidth^2 / 2) sum_k exp(i t.y_k)

    on the grid t = tick * (-steps .. steps - 1) along each axis, radians per pixel, and with D = phi_d - phi_y

        norm="dense":   tick^2 sum_t |D(t)|                  the L1 of the paper
        norm="sparse":  tick sqrt(sum_t |D(t)|^2)            for sparse crowds [code: ShanghaiTech B, JHU, NWPU]

    GCFL, robust to annotation noise, divides each |D(t)| by its standard deviation under that noise:

        tick^2 sum_t |D(t)| / sqrt(noise_weight n h(t) + 1)

    with n the number of heads and h(t) the variance of one head's spectrum: `variance_map`, or for Gaussian noise of
    `noise_std` pixels h(t) = (1 - exp(-|t|^2 noise_std^2 / 2)) exp(-|t|^2 bandwidth^2 / 2).

    Only the heads are blurred, not the density. An image without people has phi_y = 0. The term is `spectrum`.

    Differences of `variant="official"` (released code, commit 1f2175d):
        * norm="dense" is tick^2 times the sum, over rows of the grid and over real and imaginary parts, of the 2-norm
          *along a row*, not of the modulus.
        * The noise-robust sum has no factor tick^2. (The paper variant keeps it, ours, so that noise_std = 0 is the
          dense norm.)

    Args:
        norm: "dense" (default [paper]) or "sparse". The noise-robust form has its own and needs "dense".
        bandwidth: Standard deviation of the blur of the heads, default 8 pixels [code].
        steps: Frequencies on each side of zero, default 30 [code].
        tick: Distance of two frequencies, default 0.01 radians per pixel [code].
        noise_std: Standard deviation of Gaussian annotation noise, pixels; 10, 20 or 30 in [code]. Default None: ChfL.
        variance_map: h(t), shape (2 steps, 2 steps) as [y frequency, x frequency]. Default None.
        noise_weight: Default None: 0.5 with `variance_map`, 1 with `noise_std` [code].
        variant: See `CrowdLoss`.
        validate: See `CrowdLoss`.

    Raises:
        ValueError, TypeError: If a parameter is out of range, or two noise models are given.
    """

    reference: ClassVar[str] = "Shu et al.: Crowd Counting in the Frequency Domain, CVPR 2022"
    main_weight: ClassVar[str | None] = "bandwidth"
    variance_map: Tensor | None

    def __init__(
        self,
        *,
        norm: str = "dense",
        bandwidth: float = 8.0,
        steps: int = 30,
        tick: float = 0.01,
        noise_std: float | None = None,
        variance_map: Tensor | None = None,
        noise_weight: float | None = None,
        variant: str = "paper",
        validate: bool | None = None,
    ) -> None:
        super().__init__(variant=variant, validate=validate)
        check_choice("norm", norm, ("dense", "sparse"))
        check_number("bandwidth", bandwidth, at_least=0)
        check_number("tick", tick, above=0)
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be a positive integer; found {steps!r}")
        if noise_weight is None:
            noise_weight = 0.5 if noise_std is None else 1.0
        check_number("noise_weight", noise_weight, at_least=0)
        if noise_std is not None:
            check_number("noise_std", noise_std, at_least=0)
        _check_noise(norm, noise_std, variance_map, steps)
        self.norm, self.bandwidth, self.steps, self.tick = norm, bandwidth, steps, tick
        self.noise_std, self.noise_weight = noise_std, noise_weight
        self.register_buffer("variance_map", variance_map, persistent=False)

    def terms(self, images: Images) -> dict[str, Tensor]:
        """Distance of the two spectra of each image."""
        difference = self._density_spectrum(images) - self._head_spectrum(images)
        return {"spectrum": self._distance(difference, images.counts)}

    def image_target(self, sample: Sample) -> Tensor:
        """The density whose spectrum is phi_y: a Gaussian of `bandwidth` at every head, whatever is predicted.

        A bandwidth below half a cell is a dot in its cell (ours).
        """
        points, cells = wide(sample.points), (sample.density.shape[0], sample.density.shape[1])
        if self.bandwidth < sample.stride / 2:
            return dots(points, cells, sample.stride, sample.image_size).to(sample.density.dtype)
        rows, columns = axis_gaussians(points, cells, sample.stride, self.bandwidth**2)
        masses = rows.T @ columns * (sample.stride**2 / (2 * math.pi * self.bandwidth**2))
        return masses.to(sample.density.dtype)

    def _density_spectrum(self, images: Images) -> Tensor:
        """phi_d, (B, 2 steps, 2 steps) complex: the transform factorises into one product per axis."""
        density = images.density
        waves = [self._waves(cell_axis(cells, images.stride, wide(density))) for cells in images.cells]
        rows, columns = (wave.to(density.dtype.to_complex()) for wave in waves)
        return rows.T @ density.to(rows.dtype) @ columns

    def _head_spectrum(self, images: Images) -> Tensor:
        """phi_y, (B, 2 steps, 2 steps) complex."""
        points = images.only(wide(images.points))
        blur = torch.exp(-self._squared_frequency(points) * self.bandwidth**2 / 2)
        spectrum = images.only(self._waves(points[..., 1])).mT @ self._waves(points[..., 0])
        return (blur * spectrum).to(images.density.dtype.to_complex())

    def _waves(self, position: Tensor) -> Tensor:
        """exp(i t x) for positions (...,) and all frequencies of an axis, (..., 2 steps), complex.

        The phase reaches hundreds of radians: it must be formed in float64 even for a float32 loss. The frequencies are
        multiples of one: sines and cosines are taken of that alone, the others are its powers and their conjugates.
        """
        phase = position * self.tick
        wave = torch.polar(torch.ones_like(phase), phase).unsqueeze(-1)
        powers = wave.expand(*phase.shape, self.steps).cumprod(-1)
        return torch.cat([powers.flip(-1).conj(), torch.ones_like(wave), powers[..., :-1]], dim=-1)

    def _frequencies(self, like: Tensor) -> Tensor:
        """The frequencies of one axis, (2 steps,), radians per pixel."""
        return torch.arange(-self.steps, self.steps, dtype=like.dtype, device=like.device) * self.tick

    def _squared_frequency(self, like: Tensor) -> Tensor:
        """|t|^2 on the grid, (2 steps, 2 steps)."""
        squared = self._frequencies(like).square()
        return squared.unsqueeze(1) + squared

    def _distance(self, difference: Tensor, count: Tensor) -> Tensor:
        """The norm of each spectrum, (B,); count (B,)."""
        if self.noise_std is not None or self.variance_map is not None:
            modulus = (difference.abs() / self._deviation(difference.real.detach(), count)).sum((1, 2))
            return modulus if self.official else self.tick**2 * modulus
        if self.norm == "sparse":
            length: Tensor = torch.linalg.vector_norm(torch.view_as_real(difference), dim=(1, 2, 3))
            return self.tick * length
        if self.official:
            lengths: Tensor = torch.linalg.vector_norm(torch.view_as_real(difference), dim=2)
            return self.tick**2 * lengths.sum((1, 2))
        return self.tick**2 * difference.abs().sum((1, 2))

    def _deviation(self, like: Tensor, count: Tensor) -> Tensor:
        """sqrt(noise_weight n h(t) + 1) on the grid, (B, 2 steps, 2 steps)."""
        if self.noise_std is None:
            assert self.variance_map is not None
            variance = self.variance_map.to(like)
        else:
            squared = self._squared_frequency(wide(like))
            variance = -torch.expm1(-squared * self.noise_std**2 / 2) * torch.exp(-squared * self.bandwidth**2 / 2)
        return (self.noise_weight * count.view(-1, 1, 1) * variance + 1).sqrt().to(like.dtype)


def _check_noise(norm: str, noise_std: float | None, variance_map: Tensor | None, steps: int) -> None:
    """At most one model of noise, and a map that fits the grid of frequencies."""
    if noise_std is None and variance_map is None:
        return
    if norm != "dense":
        raise ValueError(f"the noise-robust loss has its own norm; leave norm at 'dense', found {norm!r}")
    if noise_std is not None and variance_map is not None:
        raise ValueError("give noise_std or variance_map, not both")
    if variance_map is not None:
        expected = (2 * steps, 2 * steps)
        if not isinstance(variance_map, Tensor) or tuple(variance_map.shape) != expected:
            found = tuple(variance_map.shape) if isinstance(variance_map, Tensor) else type(variance_map).__name__
            raise ValueError(f"variance_map must be a tensor of shape {expected} (steps={steps}); found {found}")
        if not bool((variance_map >= 0).all()):
            raise ValueError(f"variance_map must not be negative; found a minimum of {variance_map.min():.4g}")
