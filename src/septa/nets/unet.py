"""The padded U-Net: output of the input's size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from septa.nets.blocks import ConvBlock, Down, Enlarge, Reduce, Span, Up, initialize

_STEADY_VALUES = 20_480
"""PyTorch on a CPU convolves a single input of more values with oneDNN, others with a kernel that rounds otherwise
(``use_mkldnn`` in ATen's Convolution.cpp)."""


class UNet(nn.Module):
    """The U-Net with padded convolutions (output of the input's size).

    Level ``l`` of the contracting path has ``width * 2**l`` channels; ``depth`` poolings lead to the bottom. With
    ``norm="batch"`` and ``up="transpose"`` it is the network that most implementations call U-Net.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the image and of the logits.
    depth
        Number of poolings, at least 1.
    width
        Channels at full resolution.
    norm
        ``batch``, ``group`` (8 groups, fewer where the channels do not divide), ``instance`` or ``none``. Group and
        instance norms pool over the image: tiles then differ from the whole, see `exact_tiles`.
    up
        ``transpose`` (2x2 up-convolution) or ``bilinear``.
    dropout
        Chance of dropping a value at the end of the contracting path, while training.
    padding
        ``same``.
    reduction
        1, 2, 4 or 8. Above 1 the net works on the image reduced by this factor (means of pixels) and its logits are
        enlarged bilinearly to the image's size: objects that are large in pixels are seen whole, in a fraction of the
        time. Sizes, halo and receptive field remain in pixels of the image.

    Raises
    ------
    ValueError
        A parameter is out of its range.

    References
    ----------
    Ronneberger, Fischer, Brox 2015, "U-Net" (arXiv 1505.04597), figure 1; padded as in most implementations since.

    Examples
    --------
    >>> net = UNet(1, 2, depth=2, width=4)
    >>> net(torch.zeros(1, 1, 37, 50)).shape
    torch.Size([1, 2, 37, 50])
    >>> net.multiple, net.halo, net.receptive_field
    (4, 24, 44)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        depth: int = 4,
        width: int = 64,
        norm: str = "batch",
        up: str = "transpose",
        dropout: float = 0.0,
        padding: str = "same",
        reduction: int = 1,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, depth, width) < 1:
            raise ValueError(
                f"in_channels, out_channels, depth and width must be at least 1, "
                f"got {in_channels}, {out_channels}, {depth}, {width}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        if padding != "same":
            raise ValueError(f"padding must be 'same', got {padding!r}")
        if reduction not in (1, 2, 4, 8):
            raise ValueError(f"reduction must be 1, 2, 4 or 8, got {reduction}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.depth, self.width, self.norm, self.reduction = depth, width, norm, reduction
        channels = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            ConvBlock(before, after, norm) for before, after in zip([in_channels, *channels], channels)
        )
        self.down = Down()
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(Up(channels[level + 1], channels[level], up) for level in range(depth))
        self.decoder = nn.ModuleList(ConvBlock(2 * channels[level], channels[level], norm) for level in range(depth))
        self.head = nn.Conv2d(channels[0], out_channels, 1)
        self.reduce, self.enlarge = Reduce(reduction), Enlarge(reduction)
        initialize(self)

    @property
    def multiple(self) -> int:
        """Sizes that are multiples of this need no padding: 2**depth times the reduction."""
        return self.reduction << self.depth

    @property
    def exact_tiles(self) -> bool:
        """Whether a tile's core equals the same pixels of the whole image: not where a norm pools over the image."""
        return self.norm in ("batch", "none")

    @property
    def steady_pixels(self) -> int:
        """Pixels from which on PyTorch's CPU kernels for a single image no longer depend on its size.

        The convolutions with the fewest values to read are the first one and the first one of the bottom level.
        """
        values_per_pixel = min(self.in_channels, self.width / (1 << (self.depth + 1)))
        return math.floor(_STEADY_VALUES * self.reduction**2 / values_per_pixel) + 1

    @property
    def halo(self) -> int:
        """Context that a core needs on each side, pixels, rounded up to a multiple of `multiple`.

        Cores start and end at multiples of `multiple`, so the span of one such cell tells it for all.
        """
        low, high = self.needs((0, self.multiple))
        return math.ceil(max(-low, high - self.multiple) / self.multiple) * self.multiple

    @property
    def receptive_field(self) -> int:
        """Largest number of input pixels along one axis that can change one output pixel."""
        spans = [self.needs((at, at + 1)) for at in range(self.multiple)]
        return max(high - low for low, high in spans)

    def needs(self, span: Span) -> Span:
        """Half-open span of input pixels that the output pixels of ``span`` depend on, along one axis.

        Follows both ways back through the layers, the skip connection and the deeper level, and takes their union.
        """
        if self.reduction == 1:
            return self._needs(span, 0)
        return self.reduce.needs(self._needs(self.enlarge.needs(span), 0))

    def _needs(self, span: Span, level: int) -> Span:
        if level < self.depth:
            decoder, up = self.decoder[level], self.up[level]
            assert isinstance(decoder, ConvBlock)
            assert isinstance(up, Up)
            span = decoder.needs(span)
            deeper = self.down.needs(self._needs(up.needs(span), level + 1))
            span = min(span[0], deeper[0]), max(span[1], deeper[1])
        encoder = self.encoder[level]
        assert isinstance(encoder, ConvBlock)
        return encoder.needs(span)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Size to which `forward` pads: the next multiple of `multiple`, and at least two of it."""
        step = self.multiple
        return max(2, math.ceil(height / step)) * step, max(2, math.ceil(width / step)) * step

    def forward(self, image_bcyx: Tensor) -> Tensor:
        """Logits of the input's size.

        Parameters
        ----------
        image_bcyx
            Normalised images, float, ``(B, in_channels, Y, X)``, Y and X at least 1. A size that is no multiple of
            `multiple` is padded below and at the right by repeating the edge, and the logits are cropped.

        Returns
        -------
        Tensor
            Logits ``(B, out_channels, Y, X)``.

        Raises
        ------
        ValueError
            Another number of axes or channels.
        """
        if image_bcyx.ndim != 4 or image_bcyx.shape[1] != self.in_channels:
            raise ValueError(f"expected a tensor (B, {self.in_channels}, Y, X), got {tuple(image_bcyx.shape)}")
        height, width = image_bcyx.shape[-2:]
        full_height, full_width = self.padded_size(height, width)
        x = image_bcyx
        if (full_height, full_width) != (height, width):
            x = functional.pad(x, (0, full_width - width, 0, full_height - height), mode="replicate")
        if self.reduction > 1:
            x = self.reduce(x)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.down(x))
            skips.append(x)
        x = self.dropout(skips.pop())
        for level in reversed(range(self.depth)):
            x = self.decoder[level](torch.cat([skips.pop(), self.up[level](x)], dim=1))
        logits: Tensor = self.head(x)
        if self.reduction > 1:
            logits = self.enlarge(logits)
        return logits[..., :height, :width]
