"""Counting heads: feature maps in, density or proposals out. What no paper states is marked as ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losses.p2p import anchors

__all__ = [
    "BayesianHead",
    "ColumnHead",
    "DilatedHead",
    "NativeHead",
    "NonNegative",
    "PointHead",
    "PyramidHead",
    "SpatialHead",
    "resample_density",
    "resize",
]


class NonNegative(nn.Module):
    """Makes a map non-negative: people per cell.

    * `abs`: |z|, BL's choice [its code] and the default of every head here. Ours for the heads whose authors end in
      ReLU (PML, MCNN, SFCN, DM-Count) or in nothing (CSRNet): the gradient does not vanish on either side of 0.
    * `relu`: max(z, 0). Fresh weights, or an early step, can make every cell negative; such a network gives 0 for ever.

    Args:
        kind: `abs` or `relu`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, z: Tensor) -> Tensor:
        """(B, 1, h, w) -> (B, 1, h, w), >= 0."""
        return z.abs() if self.kind == "abs" else z.relu()


def resize(maps: Tensor, stride: int, target: int) -> Tensor:
    """Brings feature maps of one stride to another: bilinear when finer, the mean of whole blocks when coarser."""
    if target < stride:
        return F.interpolate(maps, scale_factor=stride // target, mode="bilinear", align_corners=False)
    return F.avg_pool2d(maps, target // stride) if target > stride else maps


def resample_density(density: Tensor, stride: int, target: int) -> Tensor:
    """Brings a density to another stride without changing its sum (bilinear, or sums of whole blocks)."""
    return resize(density, stride, target) * (target / stride) ** 2


def conv3(before: int, after: int, *, dilation: int = 1, norm: bool = False) -> nn.Sequential:
    """A 3 x 3 convolution that keeps the size, batch norm if asked for, ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(after))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def normal_init(module: nn.Module) -> None:
    """Starts convolutions from N(0, 0.01) [MCNN, CSRNet, C-3-Framework] with zero bias."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def start_small(layer: nn.Conv2d) -> None:
    """Divides the weights of a last layer by 100 and zeroes its bias [PML's code]."""
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight /= 100
        layer.bias.zero_()


class Fusion(nn.Module):
    """Sum of feature maps after a 1 x 1 convolution each, at one stride: the top-down path of an FPN.

    Args:
        channels: Stride -> channels of the maps to fuse.
        width: Channels of the result.
        stride: Stride of the result.
        norm: Batch norm after each 1 x 1 convolution.
    """

    def __init__(self, channels: Mapping[int, int], width: int, stride: int, norm: bool = False) -> None:
        super().__init__()
        self.strides = tuple(sorted(channels))
        self.stride = stride
        self.laterals = nn.ModuleList(self._lateral(channels[s], width, norm) for s in self.strides)

    @staticmethod
    def _lateral(before: int, after: int, norm: bool) -> nn.Module:
        if norm:
            return nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))
        lateral = nn.Conv2d(before, after, 1)
        nn.init.zeros_(lateral.bias)  # [PML's code]
        return lateral

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Stride -> (B, C, h, w) maps in, (B, width, H / stride, W / stride) out."""
        pairs = zip(self.strides, self.laterals, strict=True)
        return reduce(torch.add, (resize(lateral(maps[s]), s, self.stride) for s, lateral in pairs))


class BayesianHead(nn.Module):
    """The head of BL [its code]: features to stride 8, 3 x 3 to 256, 3 x 3 to 128, 1 x 1 to the density, abs.

    Ours: other strides, by resizing the features; several feature maps, fused to `2 width` channels before; a `width`
    other than 128. Weights start as PyTorch's convolutions do, as published.

    Args:
        channels: Stride -> channels of the maps to read.
        stride: Output stride.
        width: Channels before the last layer.
        output: See `NonNegative`.
    """

    def __init__(self, channels: Mapping[int, int], stride: int, width: int = 128, output: str = "abs") -> None:
        super().__init__()
        self.source, *more = sorted(channels)
        self.stride = stride
        self.fuse = Fusion(channels, 2 * width, stride) if more else None
        before = 2 * width if more else channels[self.source]
        self.layers = nn.Sequential(conv3(before, 2 * width), conv3(2 * width, width), nn.Conv2d(width, 1, 1))
        self.output = NonNegative(output)

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Stride -> (B, C, h, w) maps in, density (B, 1, H / stride, W / stride) out."""
        x = resize(maps[self.source], self.source, self.stride) if self.fuse is None else self.fuse(maps)
        return self.output(self.layers(x))


class PyramidHead(nn.Module):
    """The head of PML [its code]: fuse a coarse map into a fine one, decode there, and shuffle channels into pixels.

    With f the finest stride read and r = f / stride: 1 x 1 laterals, bilinear upsampling, sum, 3 x 3 ReLU; twice 3 x 3
    ReLU; 1 x 1 to r^2 channels, weights divided by 100 and bias 0; PixelShuffle(r). With `norm` the fusion has batch
    norm and one more 3 x 3, as published for HRNet. Published: stride 2, width 512 (VGG) or 48 (HRNet), a ReLU at the
    end. Ours: other strides and widths, more than two maps, and abs at the end, because a ReLU can start dead.

    Args:
        channels: Stride -> channels of the maps to read.
        stride: Output stride, at most the finest of `channels`.
        width: Channels of the decoder. None: those of the finest map, as published.
        norm: Batch norm in the fusion.
        output: See `NonNegative`.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        stride: int,
        width: int | None = None,
        norm: bool = False,
        output: str = "abs",
    ) -> None:
        super().__init__()
        finest = min(channels)
        width = width or channels[finest]
        smooth = [conv3(width, width, norm=norm) for _ in range(2 if norm else 1)]
        self.fuse = nn.Sequential(Fusion(channels, width, finest, norm), *smooth)
        self.decode = nn.Sequential(conv3(width, width), conv3(width, width))
        self.shuffle = nn.Sequential(nn.Conv2d(width, (finest // stride) ** 2, 1), nn.PixelShuffle(finest // stride))
        self.output = NonNegative(output)
        for layer in self.decode:
            nn.init.zeros_(layer[0].bias)
        start_small(self.shuffle[0])

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Stride -> (B, C, h, w) maps in, density (B, 1, H / stride, W / stride) out."""
        return self.output(self.shuffle(self.decode(self.fuse(maps))))


class PointHead(nn.Module):
    """The head of P2PNet: 2 x 2 proposals per cell, each an anchor plus an offset, and two logits.

    Published: FPN of 256 channels, stride 8, offsets = 100 x regression. Of its FPN only what reaches the map that is
    read is built. Ours (not stated by our sources): bilinear upsampling in the FPN; two 3 x 3 ReLU layers and a 3 x 3
    output in each branch, the last weights of the offsets divided by 100 and their bias 0, so that proposals start at
    their anchors; other widths and strides; batch norm and ReLU in the FPN with `norm`.

    Args:
        channels: Stride -> channels of the maps to read.
        stride: Input pixels per cell of proposals.
        width: Channels of the FPN and the branches.
        norm: Batch norm in the FPN.
    """

    PROPOSALS = 4
    REACH = 100.0
    """Pixels per unit of the regression [P2PNet's code]."""

    def __init__(self, channels: Mapping[int, int], stride: int, width: int = 256, norm: bool = False) -> None:
        super().__init__()
        self.stride = stride
        smooth = conv3(width, width, norm=True) if norm else nn.Conv2d(width, width, 3, padding=1)
        self.fuse = nn.Sequential(Fusion(channels, width, stride, norm), smooth)
        self.offsets = self._branch(width)
        start_small(self.offsets[-1])
        self.logits = self._branch(width)

    def _branch(self, width: int) -> nn.Sequential:
        last = nn.Conv2d(width, 2 * self.PROPOSALS, 3, padding=1)
        return nn.Sequential(conv3(width, width), conv3(width, width), last)

    def forward(self, maps: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Stride -> (B, C, h, w) maps in; points (B, Q, 2) as (x, y) pixels and logits (B, Q, 2) out, Q = 4 h w.

        The order of the proposals is that of `losses.p2p.anchors`: row, column, row and column within the cell.
        """
        x = self.fuse(maps)
        start = anchors(*x.shape[-2:], self.stride, like=x)
        return start + self.REACH * self._flat(self.offsets(x)), self._flat(self.logits(x))

    @staticmethod
    def _flat(x: Tensor) -> Tensor:
        """(B, 4 * 2, h, w) -> (B, h * w * 4, 2)."""
        return x.permute(0, 2, 3, 1).reshape(len(x), -1, 2)


class NativeHead(nn.Module):
    """A backbone's own head: reads one map and gives a density of the same stride, resampled to the one asked for.

    Resampling keeps the sum (ours: C-3-Framework upsamples the maps of MCNN and SFCN to stride 1 as they are).

    Args:
        channels: Stride -> channels of the one map to read.
        layers: From that map to one channel of any sign.
        stride: Output stride.
        output: See `NonNegative`.
    """

    def __init__(self, channels: Mapping[int, int], layers: nn.Module, stride: int, output: str = "abs") -> None:
        super().__init__()
        (self.source,) = channels
        self.stride = stride
        self.layers = layers
        self.output = NonNegative(output)

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Stride -> (B, C, h, w) map in, density (B, 1, H / stride, W / stride) out."""
        return resample_density(self.output(self.layers(maps[self.source])), self.source, self.stride)


class ColumnHead(nn.Conv2d):
    """MCNN's last layer: 1 x 1 over the columns' channels, N(0, 0.01)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 1, 1)
        normal_init(self)


class DilatedHead(nn.Sequential):
    """CSRNet's back end: six 3 x 3 convolutions of dilation 2 and a 1 x 1, N(0, 0.01)."""

    WIDTHS = (512, 512, 512, 256, 128, 64)

    def __init__(self, channels: int) -> None:
        steps = zip((channels, *self.WIDTHS[:-1]), self.WIDTHS, strict=True)
        super().__init__(*(conv3(*step, dilation=2) for step in steps), nn.Conv2d(self.WIDTHS[-1], 1, 1))
        self.apply(normal_init)


class SpatialHead(nn.Sequential):
    """SFCN's back end: six dilated convolutions (widths of CSRNet: ours), the spatial encoder, a 1 x 1; N(0, 0.01)."""

    def __init__(self, channels: int) -> None:
        *dilated, last = DilatedHead(channels)
        super().__init__(*dilated, SpatialEncoder(last.in_channels), last)
        self.apply(normal_init)


class SpatialEncoder(nn.Module):
    """Passes messages down, up, right and left over a map: each row (column) adds ReLU(conv) of the one before it.

    Args:
        channels: Channels of the map, kept.
        kernel: Length of the convolution along a row or a column.
    """

    def __init__(self, channels: int, kernel: int = 9) -> None:
        super().__init__()
        along_row = {"kernel_size": (1, kernel), "padding": (0, kernel // 2), "bias": False}
        along_column = {"kernel_size": (kernel, 1), "padding": (kernel // 2, 0), "bias": False}
        self.down, self.up = (nn.Conv2d(channels, channels, **along_row) for _ in range(2))
        self.right, self.left = (nn.Conv2d(channels, channels, **along_column) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        x = self._sweep(self._sweep(x, self.down, 2), self.up, 2, backwards=True)
        return self._sweep(self._sweep(x, self.right, 3), self.left, 3, backwards=True)

    @staticmethod
    def _sweep(x: Tensor, conv: nn.Module, dim: int, backwards: bool = False) -> Tensor:
        slices = list(x.split(1, dim))
        if backwards:
            slices.reverse()
        for i in range(1, len(slices)):
            slices[i] = slices[i] + conv(slices[i - 1]).relu()
        if backwards:
            slices.reverse()
        return torch.cat(slices, dim)
