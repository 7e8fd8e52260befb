"""Building blocks of the nets. Each block can compute which input pixels its output pixels depend on.

``needs(span)`` returns, along one axis, the half-open span of input pixels that the output pixels of ``span`` depend
on. Both spans are indices into the arrays: output pixel 0 of a 3x3 convolution depends on the input pixels 0, 1 and 2
without padding, and on -1, 0 and 1 with padding. Composing these spans gives the receptive field and the halo of a
net from its layers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

PixelSpan = tuple[int, int]
"""Half-open range of pixel indices along one axis: the first pixel, and the one after the last."""
NORMS = ("batch", "group", "instance", "none")
LOCAL_NORMS = ("batch", "none")
"""Norms that do not pool over the image."""
UPS = ("transpose", "bilinear", "aligned")


def make_norm(kind: str, channels: int) -> nn.Module:
    """Build a normalisation layer.

    ``instance`` is group norm with one group for each channel, and has a learned scale and shift.

    Parameters
    ----------
    kind
        One of `NORMS`.
    channels
        Number of channels.

    Raises
    ------
    ValueError
        ``kind`` is not one of `NORMS`.
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
    """1x1 convolution whose rounding does not depend on the image's size.

    On one CPU thread PyTorch computes 1x1 convolutions by a matrix product, whose rounding differs for few pixels. It
    does not do so for dilated convolutions, and dilation does not change a kernel of one pixel.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``(B, in_channels, Y, X)`` to ``(B, out_channels, Y, X)``."""
        dilate = input.device.type == "cpu" and not torch.compiler.is_compiling() and torch.get_num_threads() == 1
        return functional.conv2d(input, self.weight, self.bias, dilation=2 if dilate else 1)


def conv_needs(conv: nn.Conv2d, span: PixelSpan) -> PixelSpan:
    """Return the input span that the output ``span`` of a convolution depends on.

    Kernel, stride, dilation and padding may have any values; those of the first axis are used.
    """
    stride, kernel, dilation, padding = (
        int(value[0]) for value in (conv.stride, conv.kernel_size, conv.dilation, conv.padding)
    )
    return span[0] * stride - padding, (span[1] - 1) * stride - padding + (kernel - 1) * dilation + 1


def average_heads(logits: list[Tensor]) -> Tensor:
    """Return the mean of the logits of several heads, or those of the only one."""
    return logits[0] if len(logits) == 1 else sum(logits[1:], logits[0]) / len(logits)


def crop_centre(x_bcyx: Tensor, height: int, width: int) -> Tensor:
    """Return the centre of ``height`` x ``width`` pixels as a view."""
    # Graphs of padded nets then contain no slices, which would take a tenth of the time of 8-bit integer engines.
    if tuple(x_bcyx.shape[2:]) == (height, width):
        return x_bcyx
    top = (x_bcyx.shape[2] - height) // 2
    left = (x_bcyx.shape[3] - width) // 2
    return x_bcyx[:, :, top : top + height, left : left + width]


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation layer.

    Each channel is scaled by a factor that is computed from the means of all channels over the image.

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
        """Scale the channels of ``(B, C, Y, X)``; the shape stays the same."""
        means = x_bcyx.mean((2, 3), keepdim=True)
        return x_bcyx * torch.sigmoid(self.widen(functional.relu(self.narrow(means))))


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each followed by a norm and a ReLU.

    By default the convolutions have a bias only if there is no norm, since a norm cancels it.

    Parameters
    ----------
    in_channels, out_channels
        Number of channels of the input and of the output.
    norm
        One of `NORMS`.
    valid
        True for convolutions without padding: the output is 2 pixels smaller on each side. Otherwise it has the
        input's size.
    residual
        True to add the input before the last ReLU, through a 1x1 convolution if the numbers of channels differ.
    squeeze
        True for a `SqueezeExcitation` after the second norm.
    bias
        True for a bias in each convolution; None for one only if there is no norm.

    Attributes
    ----------
    shrink : int
        Number of pixels along one axis by which the output is smaller than the input.

    References
    ----------
    Zhang, Liu, Wang 2018, "Road extraction by deep residual U-Net" (arXiv 1711.10684). ReLU and norm are placed as in
    He et al. 2015 (arXiv 1512.03385).
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
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        bias = norm == "none" if bias is None else bias
        padding = 0 if valid else 1
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=padding, bias=bias)
        self.norm1 = make_norm(norm, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=padding, bias=bias)
        self.norm2 = make_norm(norm, out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.squeeze = SqueezeExcitation(out_channels) if squeeze else None
        self.shrink = 4 if valid else 0
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
        """Return the input span that the output ``span`` depends on.

        A `SqueezeExcitation`, which depends on all pixels, is not counted.
        """
        return conv_needs(self.conv1, conv_needs(self.conv2, span))


class MaxPool(nn.MaxPool2d):
    """2x2 max pooling with stride 2."""

    def __init__(self) -> None:
        super().__init__(kernel_size=2, stride=2)

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Return the input span that the output ``span`` depends on."""
        return 2 * span[0], 2 * span[1]


class MeanPool(nn.AvgPool2d):
    """Downsampling to the mean of each ``factor`` x ``factor`` pixels."""

    def __init__(self, factor: int) -> None:
        super().__init__(kernel_size=factor, stride=factor)
        self.factor = factor

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Return the input span that the output ``span`` depends on."""
        return self.factor * span[0], self.factor * span[1]


class BilinearUpsample(nn.Module):
    """Bilinear upsampling to ``factor`` times the size, with repeated edges and without aligned corners.

    It computes what `torch.nn.Upsample` computes, but by sums and products of whole arrays. PyTorch's kernels for small
    and for large images round differently, so that a small tile would differ from the whole image.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """Upsample ``(B, C, Y, X)`` to ``(B, C, factor * Y, factor * X)``."""
        out = self._upsample_axis(self._upsample_axis(x_bcyx, 2), 3)
        return out.contiguous(memory_format=torch.channels_last)

    def _upsample_axis(self, x_bcyx: Tensor, axis: int) -> Tensor:
        size = x_bcyx.shape[axis]
        first = x_bcyx.narrow(axis, 0, 1)
        last = x_bcyx.narrow(axis, size - 1, 1)
        before = torch.cat([first, x_bcyx.narrow(axis, 0, size - 1)], dim=axis)
        after = torch.cat([x_bcyx.narrow(axis, 1, size - 1), last], dim=axis)
        phases = []
        for phase in range(self.factor):
            shift = (2 * phase + 1 - self.factor) / (2 * self.factor)
            phases.append(x_bcyx * (1 - abs(shift)) + (before if shift < 0 else after) * abs(shift))
        return torch.stack(phases, dim=axis + 1).flatten(axis, axis + 1)

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Return the input span that the output ``span`` depends on."""
        return self._lower_neighbour(span[0]), self._lower_neighbour(span[1] - 1) + 2

    def _lower_neighbour(self, pixel: int) -> int:
        """Return the index of the lower of the two input pixels that an output pixel is interpolated from.

        Output pixel i lies at the input coordinate (i + 1/2) / factor - 1/2.
        """
        return (2 * pixel + 1 - self.factor) // (2 * self.factor)


class AlignedUpsample(nn.Module):
    """Bilinear upsampling to twice the size with aligned corners: the corner pixels of both arrays coincide.

    Output pixel o lies at the input coordinate o (n - 1) / (2 n - 1), where n is the side of the input. It depends on
    the size of the image, so that tiles differ from the whole image.
    """

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """Upsample ``(B, C, Y, X)`` to ``(B, C, 2 Y, 2 X)``."""
        return functional.interpolate(x_bcyx, scale_factor=2.0, mode="bilinear", align_corners=True)

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Return the input span that the output ``span`` depends on, whatever the size of the image."""
        return (span[0] - 1) // 2, (span[1] - 1) // 2 + 2


class UpConvolution(nn.Module):
    """Upsampling by 2 with a change of the number of channels.

    ``transpose`` is the 2x2 up-convolution of the U-Net paper. ``bilinear`` interpolates without aligned corners, so
    that the weights depend only on a pixel's position in its 2x2 cell and tiles equal the whole image. Its 1x1
    convolution commutes with the interpolation, and therefore runs first, on a quarter of the pixels. ``aligned``
    interpolates with aligned corners and keeps the number of channels, as older PyTorch code does.

    Parameters
    ----------
    in_channels, out_channels
        Number of channels of the input and of the output.
    kind
        One of `UPS`.

    Raises
    ------
    ValueError
        ``kind`` is not one of `UPS`.
    """

    def __init__(self, in_channels: int, out_channels: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv: nn.Module
        self.resize: nn.Module = nn.Identity()
        if kind == "transpose":
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        elif kind == "bilinear":
            self.conv = Pointwise(in_channels, out_channels)
            self.resize = BilinearUpsample(2)
        elif kind == "aligned":
            self.conv = nn.Identity()
            self.resize = AlignedUpsample()
        else:
            raise ValueError(f"up must be one of {', '.join(UPS)}, got {kind!r}")

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """Upsample ``(B, in_channels, Y, X)`` to ``(B, out_channels, 2 Y, 2 X)``."""
        out: Tensor = self.resize(self.conv(x_bcyx))
        return out

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Return the input span that the output ``span`` depends on."""
        if isinstance(self.resize, BilinearUpsample | AlignedUpsample):
            return self.resize.needs(span)
        return span[0] // 2, (span[1] - 1) // 2 + 1


def union_spans(a: PixelSpan | None, b: PixelSpan | None) -> PixelSpan | None:
    """Return the smallest span that contains both; None stands for an empty span.

    Examples
    --------
    >>> union_spans((3, 5), (0, 4)), union_spans(None, (0, 4))
    ((0, 5), (0, 4))
    """
    if a is None or b is None:
        return a or b
    return min(a[0], b[0]), max(a[1], b[1])


def initialize_weights(net: nn.Module) -> None:
    """Initialise the convolutions of a net by the rule of He et al.

    Weights are normally distributed with standard deviation sqrt(2 / N), where N is the number of incoming nodes of one
    neuron. Biases are 0. A 2x2 up-convolution with stride 2 reaches each output pixel once, so its N is the number of
    input channels.

    Weights on the meta device have no values and are skipped. PyTorch would load its compiler for them, which takes
    more than a second.

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
