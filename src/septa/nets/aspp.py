"""Atrous spatial pyramid pooling: one place seen at several scales at once."""

from __future__ import annotations

from torch import Tensor, nn

from septa.nets.blocks import PixelSpan, Pointwise, make_norm

DILATIONS = (6, 12, 18)


class AtrousPyramid(nn.Module):
    """3x3 convolutions dilated by 6, 12 and 18 and a 1x1 convolution, each with norm, are summed; a ReLU and a 1x1
    convolution follow.

    There is no branch that pools over the image, so that tiles remain exact.

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
            nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, bias=bias) for rate in DILATIONS
        )
        self.norms = nn.ModuleList(make_norm(norm, channels) for _ in range(1 + len(DILATIONS)))
        self.relu = nn.ReLU(inplace=True)
        self.merge = Pointwise(channels, channels)

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """``(B, channels, Y, X)`` to the same shape."""
        total: Tensor = self.norms[0](self.near(x_bcyx))
        for conv, norm in zip(self.far, list(self.norms)[1:]):
            total = total + norm(conv(x_bcyx))
        out: Tensor = self.merge(self.relu(total))
        return out

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Input span that the output ``span`` depends on: that of the widest branch."""
        return span[0] - max(DILATIONS), span[1] + max(DILATIONS)
