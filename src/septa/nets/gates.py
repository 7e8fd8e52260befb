"""Attention gates: which parts of a skip connection the finer level gets to see."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from septa.nets.blocks import BilinearUpsample, PixelSpan, Pointwise, conv_needs, crop_centre


class AttentionGate(nn.Module):
    """Additive attention gate: a skip connection times coefficients in (0, 1) that the coarser node decides on.

    The skip connection comes to the coarser node's resolution by a 2x2 convolution of stride 2, meets the coarser
    node's features there, and the coefficients are enlarged bilinearly. All of it looks at near pixels only.

    Parameters
    ----------
    skip_channels, coarse_channels
        Channels of the skip connection and of the coarser node.
    inner
        Channels in which the two are added.
    trim
        Pixels a side that the result is smaller than twice the coarser node: 1 where the image goes on beyond the
        edge, as enlarging repeats the edge.

    References
    ----------
    Oktay et al. 2018, "Attention U-Net", equations 1 and 2 (arXiv 1804.03999).
    """

    def __init__(self, skip_channels: int, coarse_channels: int, inner: int, trim: int = 0) -> None:
        super().__init__()
        self.skip = nn.Conv2d(skip_channels, inner, 2, stride=2, bias=False)
        self.signal = Pointwise(coarse_channels, inner)
        self.score = Pointwise(inner, 1)
        self.enlarge = BilinearUpsample(2)
        self.trim = trim

    def forward(self, skip_bcyx: Tensor, coarse_bcyx: Tensor) -> Tensor:
        """``(B, skip_channels, 2 Y, 2 X)`` and ``(B, coarse_channels, Y, X)`` to ``(B, skip_channels, 2 Y - 2 trim,
        2 X - 2 trim)``."""
        score = self.score(functional.relu(self.skip(skip_bcyx) + self.signal(coarse_bcyx)))
        # The logistic function; PyTorch's own rounds otherwise at the end of an array, so a tile would differ.
        shares = self.enlarge(0.5 + 0.5 * torch.tanh(0.5 * score))
        height, width = (2 * side - 2 * self.trim for side in coarse_bcyx.shape[2:])
        return crop_centre(skip_bcyx, height, width) * crop_centre(shares, height, width)

    def needs(self, span: PixelSpan) -> tuple[PixelSpan, PixelSpan]:
        """Spans of the skip connection and of the coarser node that the output ``span`` depends on."""
        span = span[0] + self.trim, span[1] + self.trim
        coarse = self.enlarge.needs(span)
        low, high = conv_needs(self.skip, coarse)
        return (min(low, span[0]), max(high, span[1])), coarse
