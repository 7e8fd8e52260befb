"""Building blocks of the nets. Each knows which input pixels its output pixels need.

``needs(span)`` answers, along one axis, which half-open span of input pixels the output pixels of ``span`` depend on.
Both are indices into the arrays: output 0 of a convolution without padding needs inputs 0, 1 and 2, with padding -1, 0
and 1. Composing these answers gives a net's receptive field and halo from its layers themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

PixelSpan = tuple[int, int]
NORMS = ("batch", "group", "instance", "none")
LOCAL_NORMS = ("batch", "none")
"""Those that do not pool over the image."""
UPS = ("transpose", "bilinear")


def make_norm(kind: str, channels: int) -> nn.Module:
    """A normalisation layer. ``instance`` is group norm with a group for each channel, learned scale and shift
    included.

    Raises
    ------
    ValueError
        ``kind`` is none of `NORMS`.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    if kind == "instance":
        return nn.GroupNorm(channels, channels)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {kind!r}")


class Pointwise(nn.Conv2d):
    """A 1x1 convolution that rounds alike at every size.

    On one CPU thread PyTorch leaves 1x1 convolutions to a matrix product that rounds otherwise for few pixels, unless
    they are dilated, which a kernel of one pixel does not notice.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """``(B, in_channels, Y, X)`` to ``(B, out_channels, Y, X)``."""
        dilate = input.device.type == "cpu" and not torch.compiler.is_compiling() and torch.get_num_threads() == 1
        return functional.conv2d(input, self.weight, self.bias, dilation=2 if dilate else 1)


def conv_needs(conv: nn.Conv2d, span: PixelSpan) -> PixelSpan:
    """Input span that the outputs ``span`` of a convolution depend on, whatever its kernel, stride and padding."""
    stride, kernel, dilation, padding = (
        int(value[0]) for value in (conv.stride, conv.kernel_size, conv.dilation, conv.padding)
    )
    return span[0] * stride - padding, (span[1] - 1) * stride - padding + (kernel - 1) * dilation + 1


def crop_centre(x_bcyx: Tensor, height: int, width: int) -> Tensor:
    """The centre of ``height`` x ``width`` pixels, as a view."""
    if tuple(x_bcyx.shape[2:]) == (height, width):
        return x_bcyx  # graphs of padded nets then hold no slices, a tenth of the time of engines of 8-bit integers
    top, left = (x_bcyx.shape[2] - height) // 2, (x_bcyx.shape[3] - width) // 2
    return x_bcyx[:, :, top : top + height, left : left + width]


class SqueezeExcitation(nn.Module):
    """Squeeze and excitation: each channel is scaled by a factor told from the means of all channels over the image.

    References
    ----------
    Hu, Shen, Sun 2018, "Squeeze-and-excitation networks", ratio 16 (arXiv 1709.01507).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(2, channels // 16)
        self.narrow = nn.Conv2d(channels, hidden, 1)
        self.widen = nn.Conv2d(hidden, channels, 1)

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """``(B, C, Y, X)`` to the same shape."""
        means = x_bcyx.mean((2, 3), keepdim=True)
        return x_bcyx * torch.sigmoid(self.widen(functional.relu(self.narrow(means))))


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each followed by norm and ReLU.

    Convolutions have a bias only where no norm follows, which would cancel it.

    Parameters
    ----------
    in_channels, out_channels
        Channels before and after.
    norm
        One of `NORMS`.
    valid
        Convolutions without padding: the output is 2 pixels a side smaller. Else the size stays.
    residual
        The input is added before the last ReLU, through a 1x1 convolution where the channels differ.
    squeeze
        `SqueezeExcitation` after the second norm.

    References
    ----------
    Zhang, Liu, Wang 2018, "Road extraction by deep residual U-Net" (arXiv 1711.10684); ReLU and norm stand where He et
    al. 2015 have them (arXiv 1512.03385).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: str,
        *,
        valid: bool = False,
        residual: bool = False,
        squeeze: bool = False,
    ) -> None:
        super().__init__()
        bias, padding = norm == "none", 0 if valid else 1
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=padding, bias=bias)
        self.norm1 = make_norm(norm, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=padding, bias=bias)
        self.norm2 = make_norm(norm, out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.squeeze = SqueezeExcitation(out_channels) if squeeze else None
        self.shrink = 4 if valid else 0
        """Pixels by which the output is smaller, both sides together."""
        self.shortcut: nn.Module | None = None
        if residual and in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif residual:
            self.shortcut = nn.Sequential(Pointwise(in_channels, out_channels, bias), make_norm(norm, out_channels))

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """``(B, in_channels, Y, X)`` to ``(B, out_channels, Y - shrink, X - shrink)``."""
        y_bcyx: Tensor = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x_bcyx)))))
        if self.squeeze is not None:
            y_bcyx = self.squeeze(y_bcyx)
        if self.shortcut is not None:
            y_bcyx = y_bcyx + self.shortcut(crop_centre(x_bcyx, *y_bcyx.shape[2:]))
        out: Tensor = self.relu(y_bcyx)
        return out

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Input span that the output ``span`` depends on (but for `SqueezeExcitation`, which depends on all)."""
        return conv_needs(self.conv1, conv_needs(self.conv2, span))


class MaxPool(nn.MaxPool2d):
    """2x2 max pooling."""

    def __init__(self) -> None:
        super().__init__(kernel_size=2, stride=2)

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Input span that the output ``span`` depends on."""
        return 2 * span[0], 2 * span[1]


class MeanPool(nn.AvgPool2d):
    """Mean of each ``factor`` x ``factor`` pixels."""

    def __init__(self, factor: int) -> None:
        super().__init__(kernel_size=factor, stride=factor)
        self.factor = factor

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Input span that the output ``span`` depends on."""
        return self.factor * span[0], self.factor * span[1]


class BilinearUpsample(nn.Module):
    """Bilinear interpolation to ``factor`` times the size, edges repeated, corners not aligned.

    As `torch.nn.Upsample`, but of sums and products of whole arrays: PyTorch's own kernel for small images rounds
    otherwise than that for large ones, and a small tile would differ from the whole.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """``(B, C, Y, X)`` to ``(B, C, factor * Y, factor * X)``."""
        out = self._along(self._along(x_bcyx, 2), 3)
        return out.contiguous(memory_format=torch.channels_last)

    def _along(self, x_bcyx: Tensor, axis: int) -> Tensor:
        size = x_bcyx.shape[axis]
        first, last = x_bcyx.narrow(axis, 0, 1), x_bcyx.narrow(axis, size - 1, 1)
        before = torch.cat([first, x_bcyx.narrow(axis, 0, size - 1)], dim=axis)
        after = torch.cat([x_bcyx.narrow(axis, 1, size - 1), last], dim=axis)
        phases = []
        for phase in range(self.factor):
            shift = (2 * phase + 1 - self.factor) / (2 * self.factor)
            phases.append(x_bcyx * (1 - abs(shift)) + (before if shift < 0 else after) * abs(shift))
        return torch.stack(phases, dim=axis + 1).flatten(axis, axis + 1)

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Input span that the output ``span`` depends on."""
        first, last = (self._before(at) for at in (span[0], span[1] - 1))
        return first, last + 2

    def _before(self, at: int) -> int:
        """The input pixel at or before the place (at + 1/2) / factor - 1/2."""
        return (2 * at + 1 - self.factor) // (2 * self.factor)


class UpConvolution(nn.Module):
    """Doubles the size and halves the channels.

    ``transpose`` is the paper's 2x2 up-convolution. ``bilinear`` interpolates without aligned corners, so that weights
    depend on a pixel's place in its 2x2 cell only and tiles come out as the whole; its 1x1 convolution commutes with
    the interpolation and therefore runs first, on a quarter of the pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv: nn.ConvTranspose2d | nn.Conv2d
        self.resize: nn.Module = nn.Identity()
        if kind == "transpose":
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        elif kind == "bilinear":
            self.conv = Pointwise(in_channels, out_channels)
            self.resize = BilinearUpsample(2)
        else:
            raise ValueError(f"up must be one of {', '.join(UPS)}, got {kind!r}")

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """``(B, in_channels, Y, X)`` to ``(B, out_channels, 2 Y, 2 X)``."""
        out: Tensor = self.resize(self.conv(x_bcyx))
        return out

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Input span that the output ``span`` depends on."""
        if isinstance(self.resize, BilinearUpsample):
            return self.resize.needs(span)
        return span[0] // 2, (span[1] - 1) // 2 + 1


class Encoder(Protocol):
    """A contracting path: what `UNet` asks of it."""

    channels: tuple[int, ...]
    """Channels of its features, level 0 (full resolution) first; each level has half the size of the one before."""
    local: bool
    """False where it pools over the whole image."""

    def __call__(self, x_bcyx: Tensor) -> list[Tensor]:
        """Features of all levels, level 0 first."""

    def needs(self, spans: Sequence[PixelSpan | None]) -> PixelSpan:
        """Input span that the spans of its features (None: not needed) depend on together."""


class PlainEncoder(nn.Module):
    """The U-Net's own contracting path: a `ConvBlock` on each level, 2x2 max pooling between.

    Parameters
    ----------
    in_channels
        Channels of the image.
    channels
        Channels of each level, full resolution first.
    norm, valid, residual, squeeze
        As for `ConvBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        norm: str,
        *,
        valid: bool = False,
        residual: bool = False,
        squeeze: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.local = tuple(channels), not squeeze and norm in LOCAL_NORMS
        for level, (before, after) in enumerate(zip([in_channels, *channels], channels)):
            block = ConvBlock(before, after, norm, valid=valid, residual=residual, squeeze=squeeze)
            self.add_module(str(level), block)
        self.down = MaxPool()

    def __iter__(self) -> Iterator[ConvBlock]:
        """The blocks, full resolution first."""
        for level in range(len(self.channels)):
            block = self.get_submodule(str(level))
            assert isinstance(block, ConvBlock)
            yield block

    def forward(self, x_bcyx: Tensor) -> list[Tensor]:
        """Features of all levels, ``(B, channels[level], Y, X)``, level 0 first."""
        features: list[Tensor] = []
        for block in self:
            features.append(block(self.down(features[-1]) if features else x_bcyx))
        return features

    def needs(self, spans: Sequence[PixelSpan | None]) -> PixelSpan:
        """Input span that the spans of its features (None: not needed) depend on together."""
        wanted: PixelSpan | None = None
        for block, span in reversed(list(zip(self, spans, strict=True))):
            wanted = union_spans(span, None if wanted is None else self.down.needs(wanted))
            wanted = None if wanted is None else block.needs(wanted)
        if wanted is None:
            raise ValueError("no level is needed")
        return wanted

    def sides(self, bottom: int) -> tuple[int, list[int], int]:
        """Side of the image, that of each level's feature, and what each block takes off, if the bottom's block reads
        an array of side ``bottom``."""
        shrink = next(iter(self)).shrink
        sides = [bottom - shrink]
        for _ in self.channels[1:]:
            sides.insert(0, 2 * bottom)
            bottom = 2 * bottom + shrink
        return bottom, sides, shrink


def union_spans(a: PixelSpan | None, b: PixelSpan | None) -> PixelSpan | None:
    """The least span that holds both.

    Examples
    --------
    >>> union_spans((3, 5), (0, 4)), union_spans(None, (0, 4))
    ((0, 5), (0, 4))
    """
    if a is None or b is None:
        return a or b
    return min(a[0], b[0]), max(a[1], b[1])


def initialize_weights(net: nn.Module) -> None:
    """He initialisation: weights are normal with standard deviation sqrt(2 / N), N the incoming nodes; biases are 0.

    On the meta device there are no values; to draw none, PyTorch would load its compiler, which takes over a second.

    A 2x2 up-convolution of stride 2 reaches each output pixel once, so there N is the number of input channels.

    References
    ----------
    He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers", equation 10 (arXiv 1502.01852).
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not module.weight.is_meta:
            kernel = module.kernel_size[0] * module.kernel_size[1]
            incoming = module.in_channels * (1 if isinstance(module, nn.ConvTranspose2d) else kernel)
            nn.init.normal_(module.weight, std=math.sqrt(2 / incoming))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
