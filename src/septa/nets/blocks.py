"""Building blocks of the nets. Each knows which input pixels its output pixels need.

``needs(span)`` answers, along one axis, which half-open span of input pixels the output pixels of ``span`` depend on.
Composing these answers gives a net's receptive field and halo from its layers themselves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

Span = tuple[int, int]
NORMS = ("batch", "group", "instance", "none")
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


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each followed by norm and ReLU; the size stays.

    Convolutions have a bias only where no norm follows, which would cancel it.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        bias = norm == "none"
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
        self.norm1 = make_norm(norm, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.norm2 = make_norm(norm, out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """``(B, in_channels, Y, X)`` to ``(B, out_channels, Y, X)``."""
        x_bcyx = self.relu(self.norm1(self.conv1(x_bcyx)))
        out: Tensor = self.relu(self.norm2(self.conv2(x_bcyx)))
        return out

    def needs(self, span: Span) -> Span:
        """Input span that the output ``span`` depends on."""
        reach = sum(conv.kernel_size[0] // 2 for conv in (self.conv1, self.conv2))
        return span[0] - reach, span[1] + reach


class Down(nn.MaxPool2d):
    """2x2 max pooling."""

    def __init__(self) -> None:
        super().__init__(kernel_size=2, stride=2)

    def needs(self, span: Span) -> Span:
        """Input span that the output ``span`` depends on."""
        return 2 * span[0], 2 * span[1]


class Reduce(nn.AvgPool2d):
    """Mean of each ``factor`` x ``factor`` pixels."""

    def __init__(self, factor: int) -> None:
        super().__init__(kernel_size=factor, stride=factor)
        self.factor = factor

    def needs(self, span: Span) -> Span:
        """Input span that the output ``span`` depends on."""
        return self.factor * span[0], self.factor * span[1]


class Enlarge(nn.Module):
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

    def needs(self, span: Span) -> Span:
        """Input span that the output ``span`` depends on."""
        first, last = (self._before(at) for at in (span[0], span[1] - 1))
        return first, last + 2

    def _before(self, at: int) -> int:
        """The input pixel at or before the place (at + 1/2) / factor - 1/2."""
        return (2 * at + 1 - self.factor) // (2 * self.factor)


class Up(nn.Module):
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
            self.conv = nn.Conv2d(in_channels, out_channels, 1)
            self.resize = Enlarge(2)
        else:
            raise ValueError(f"up must be one of {', '.join(UPS)}, got {kind!r}")

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """``(B, in_channels, Y, X)`` to ``(B, out_channels, 2 Y, 2 X)``."""
        out: Tensor = self.resize(self.conv(x_bcyx))
        return out

    def needs(self, span: Span) -> Span:
        """Input span that the output ``span`` depends on."""
        if isinstance(self.resize, Enlarge):
            return self.resize.needs(span)
        return span[0] // 2, (span[1] - 1) // 2 + 1


def initialize(net: nn.Module) -> None:
    """He initialisation: weights are normal with standard deviation sqrt(2 / N), N the incoming nodes; biases are 0.

    A 2x2 up-convolution of stride 2 reaches each output pixel once, so there N is the number of input channels.

    References
    ----------
    He, Zhang, Ren, Sun 2015, "Delving deep into rectifiers", equation 10 (arXiv 1502.01852).
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            incoming = module.in_channels * (1 if isinstance(module, nn.ConvTranspose2d) else kernel)
            nn.init.normal_(module.weight, std=math.sqrt(2 / incoming))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
