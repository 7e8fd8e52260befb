"""How a node of the grid puts together what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from septa.nets.blocks import ConvBlock, PixelSpan, UpConvolution, crop_centre
from septa.nets.gates import AttentionGate


@dataclass(frozen=True, eq=False)
class Join:
    """One node's layers, and the pixels a side that are cut from the enlarged coarser node."""

    up: nn.Module
    gate: nn.Module | None
    block: nn.Module
    trim: int

    def __call__(self, skips: Sequence[Tensor], coarse_bcyx: Tensor) -> Tensor:
        """What the block reads: the skip connections, cut to the size of the enlarged coarser node, and that node."""
        height, width = (2 * side for side in coarse_bcyx.shape[2:])
        if self.gate is not None:
            skips = [crop_centre(skip, height, width) for skip in skips]
            skips = [self.gate(skips[0] if len(skips) == 1 else torch.cat(skips, 1), coarse_bcyx)]
        height, width = height - 2 * self.trim, width - 2 * self.trim
        return torch.cat([crop_centre(part, height, width) for part in (*skips, self.up(coarse_bcyx))], 1)

    def needs(self, span: PixelSpan) -> tuple[PixelSpan, PixelSpan]:
        """Spans of the skip connections and of the coarser node that the node's pixels ``span`` depend on.

        The former counts from the first pixel of the enlarged coarser node, before any is cut.
        """
        assert isinstance(self.up, UpConvolution)
        assert isinstance(self.block, ConvBlock)
        span = self.block.needs(span)
        doubled = span[0] + self.trim, span[1] + self.trim
        coarse = self.up.needs(doubled)
        if isinstance(self.gate, AttentionGate):
            doubled, gating = self.gate.needs(span)
            coarse = min(coarse[0], gating[0]), max(coarse[1], gating[1])
        return doubled, coarse
