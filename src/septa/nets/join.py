"""The layers of one node of the grid, and the arrays that they join."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from septa.nets.blocks import ConvBlock, PixelSpan, UpConvolution, crop_centre
from septa.nets.gates import AttentionGate


@dataclass(frozen=True, eq=False)
class Join:
    """Layers of one node.

    Attributes
    ----------
    up
        The `UpConvolution` of the coarser node.
    gate
        The `AttentionGate` of the skip connections, or None.
    block
        The `ConvBlock` that computes the node from the joined arrays.
    trim
        Number of pixels that are cropped from each side of the upsampled coarser node.
    top_left
        True if skip connections are cropped at the bottom and at the right only, not to their centre.
    """

    up: nn.Module
    gate: nn.Module | None
    block: nn.Module
    trim: int
    top_left: bool = False

    def __call__(self, skips: Sequence[Tensor], coarse_bcyx: Tensor) -> Tensor:
        """Concatenate the skip connections and the upsampled coarser node, all cropped to the same size."""
        height, width = (2 * side for side in coarse_bcyx.shape[2:])
        if self.gate is not None:
            skips = [crop_centre(skip, height, width) for skip in skips]
            skips = [self.gate(skips[0] if len(skips) == 1 else torch.cat(skips, 1), coarse_bcyx)]
        height, width = height - 2 * self.trim, width - 2 * self.trim
        parts = (*skips, self.up(coarse_bcyx))
        if self.top_left:
            return torch.cat([part[:, :, :height, :width] for part in parts], 1)
        return torch.cat([crop_centre(part, height, width) for part in parts], 1)

    def needs(self, span: PixelSpan) -> tuple[PixelSpan, PixelSpan]:
        """Return the spans of the skip connections and of the coarser node that the node's ``span`` depends on.

        The first is counted from the first pixel of the upsampled coarser node before cropping.
        """
        assert isinstance(self.up, UpConvolution)
        assert isinstance(self.block, ConvBlock)
        span = self.block.needs(span)
        skip = span[0] + self.trim, span[1] + self.trim
        coarse = self.up.needs(skip)
        if isinstance(self.gate, AttentionGate):
            skip, gating = self.gate.needs(span)
            coarse = min(coarse[0], gating[0]), max(coarse[1], gating[1])
        return skip, coarse
