"""Atrous spatial pyramid pooling: convolutions with several dilations side by side."""

from __future__ import annotations

from torch import Tensor, nn

from septa.nets.blocks import PixelSpan, Pointwise, make_norm

DILATIONS = (6, 12, 18)


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling.

    Three 3x3 convolutions with dilations 6, 12 and 18 and a 1x1 convolution, each followed by a norm, are summed. A
    ReLU and a 1x1 convolution follow. No branch pools over the image, so that tiles remain exact.

    Parameters
    ----------
    channels
        Number of channels of the input and of the output.
    norm
        One of `septa.nets.blocks.NORMS`.

    References
    ----------
    Jha et al. 2019, "ResUNet++" (arXiv 1911.07067); Chen et al. 2017, "Rethinking atrous convolution"
    (arXiv 1706.05587).
    """

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        bias = norm == "none"
        self.near = Pointwise(channels, channels, bias)
        self.far = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=bias) for dilation in DILATIONS
        )
        self.norms = nn.ModuleList(make_norm(norm, channels) for _ in range(1 + len(DILATIONS)))
        self.relu = nn.ReLU(inplace=True)
        self.merge = Pointwise(channels, channels)

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """Process ``(B, channels, Y, X)``; the shape stays the same."""
        total: Tensor = self.norms[0](self.near(x_bcyx))
        for conv, norm in zip(self.far, list(self.norms)[1:]):
            total = total + norm(conv(x_bcyx))
        out: Tensor = self.merge(self.relu(total))
        return out

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Return the input span that the output ``span`` depends on, which is that of the largest dilation."""
        return span[0] - max(DILATIONS), span[1] + max(DILATIONS)
