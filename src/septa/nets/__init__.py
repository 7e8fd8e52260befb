"""Networks: tensors to logits."""

from __future__ import annotations

from septa.nets.unet import UNet

__all__ = ["UNet"]
