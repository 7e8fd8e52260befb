"""The size at which a net sees the image."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import BilinearUpsample, MeanPool, PixelSpan


class ImageResizer(nn.Module):
    """Reduction or magnification of the image before a net, and its inverse for the logits.

    Parameters
    ----------
    reduction
        Factor of the reduction, by the mean of pixels; its inverse is bilinear.
    magnification
        Factor of the bilinear magnification; its inverse is the mean of pixels.
    levels
        Number of levels that have logits; each has half the size of the one before.
    """

    def __init__(self, reduction: int, magnification: int, levels: int) -> None:
        super().__init__()
        self.reduction, self.magnification = reduction, magnification
        self.reduce, self.magnify = MeanPool(reduction), BilinearUpsample(magnification)
        self.enlarge = nn.ModuleList(BilinearUpsample(reduction << level) for level in range(levels))
        self.average = MeanPool(magnification)

    def forward(self, image_bcyx: Tensor) -> Tensor:
        """Resize images ``(B, C, Y, X)``, whose sides are multiples of the reduction."""
        if self.magnification > 1:
            return self.magnify(image_bcyx)  # type: ignore[no-any-return]
        return self.reduce(image_bcyx) if self.reduction > 1 else image_bcyx

    def restore(self, logits_bkyx: Tensor, level: int) -> Tensor:
        """Resize the logits ``(B, K, Y, X)`` of a level to the size of the image."""
        if (self.reduction << level) > 1:
            logits_bkyx = self.enlarge[level](logits_bkyx)
        return self.average(logits_bkyx) if self.magnification > 1 else logits_bkyx

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Return the span of the image that the ``span`` of the resized image depends on."""
        return self.magnify.needs(span) if self.magnification > 1 else self.reduce.needs(span)

    def trace_restored(self, span: PixelSpan) -> PixelSpan:
        """Return the span of the finest logits that the ``span`` of the restored ones depends on."""
        span = self.average.needs(span)
        return BilinearUpsample(self.reduction).needs(span) if self.reduction > 1 else span
