"""The last convolution of a net, and the size of its logits."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from septa.nets.blocks import Pointwise


def make_head(channels: int, outputs: int, kernel: int, *, valid: bool) -> nn.Conv2d:
    """Build the convolution from features to logits; a kernel of 3 has no padding if the net is valid."""
    if kernel == 1:
        return Pointwise(channels, outputs)
    return nn.Conv2d(channels, outputs, kernel, padding=0 if valid else kernel // 2)


def fit_logits(logits_bkyx: Tensor, height: int, width: int) -> Tensor:
    """Crop the logits of a padded net to the size of its image.

    Nets that crop odd sizes lack the last rows and columns, which repeat those before them.
    """
    logits_bkyx = logits_bkyx[..., :height, :width]
    below, right = height - logits_bkyx.shape[2], width - logits_bkyx.shape[3]
    return functional.pad(logits_bkyx, (0, right, 0, below), mode="replicate") if below or right else logits_bkyx
