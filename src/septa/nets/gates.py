"""Attention gates, which scale the skip connections by coefficients computed from the coarser level."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from septa.nets.blocks import BilinearUpsample, PixelSpan, Pointwise, conv_needs, crop_centre


class AttentionGate(nn.Module):
    """Additive attention gate: a skip connection times coefficients in (0, 1).

    A 2x2 convolution with stride 2 downsamples the skip connection to the coarser node's resolution. There it is added
    to the coarser node's features. The coefficients computed from the sum are upsampled bilinearly. All operations are
    local.

    Parameters
    ----------
    skip_channels, coarse_channels
        Number of channels of the skip connection and of the coarser node.
    inner
        Number of channels in which the two are added.
    trim
        Number of pixels on each side by which the result is smaller than twice the coarser node. It is 1 for valid
        nets, since their images continue beyond the edge of the arrays, whereas upsampling repeats the edge.

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
        """Scale a skip connection.

        Parameters
        ----------
        skip_bcyx
            Skip connection ``(B, skip_channels, 2 Y, 2 X)``.
        coarse_bcyx
            Features of the coarser node ``(B, coarse_channels, Y, X)``.

        Returns
        -------
        Tensor
            Scaled skip connection ``(B, skip_channels, 2 Y - 2 trim, 2 X - 2 trim)``.
        """
        score = self.score(functional.relu(self.skip(skip_bcyx) + self.signal(coarse_bcyx)))
        # This is the logistic function. PyTorch's own rounds differently at the end of an array, so tiles would differ.
        shares = self.enlarge(0.5 + 0.5 * torch.tanh(0.5 * score))
        height, width = (2 * side - 2 * self.trim for side in coarse_bcyx.shape[2:])
        return crop_centre(skip_bcyx, height, width) * crop_centre(shares, height, width)

    def needs(self, span: PixelSpan) -> tuple[PixelSpan, PixelSpan]:
        """Return the spans of the skip connection and of the coarser node that the output ``span`` depends on."""
        span = span[0] + self.trim, span[1] + self.trim
        coarse = self.enlarge.needs(span)
        low, high = conv_needs(self.skip, coarse)
        return (min(low, span[0]), max(high, span[1])), coarse
