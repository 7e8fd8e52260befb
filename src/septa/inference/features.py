"""Mean and standard deviation of a net's features over an image, summed up tile by tile."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from septa.inference.protocol import NetGeometry
from septa.inference.tiling import ImageTile

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


class FeatureSums:
    """Sums of the features of one image.

    Every part of the image counts once, in the tile whose core it lies in. With a padded net the result therefore does
    not depend on the tiles, except for rounding. With a valid net, whose features cover other areas than its cores, it
    does to a small degree.

    Parameters
    ----------
    net
        Sizes of the net.

    Examples
    --------
    >>> from septa.nets import UNet
    >>> sums = FeatureSums(UNet(1, 2, depth=2, width=4))
    >>> sums.add(np.array([[[1.0, 3.0]], [[1.0, 9.0]]], np.float32))
    >>> sums.summarize().tolist()
    [2.0, 1.0]
    """

    def __init__(self, net: NetGeometry) -> None:
        self._net = net
        self.clear()

    def clear(self) -> None:
        """Forget what was added."""
        self._total: Float64 = np.zeros(0)
        self._count = 0

    def __bool__(self) -> bool:
        """Return True if something was added."""
        return self._count > 0

    def add(self, statistics_cyx: Float32, tile: ImageTile | None = None) -> None:
        """Add the statistics of a window.

        Parameters
        ----------
        statistics_cyx
            Statistics of the window, as of `septa.nets.pool_statistics`.
        tile
            Tile of the window, of which only the core counts; the whole window if None.
        """
        if tile is not None:
            statistics_cyx = statistics_cyx[(slice(None), *self._find_cells(statistics_cyx, tile))]
        total = statistics_cyx.sum(axis=(1, 2), dtype=np.float64)
        self._total = total if self._count == 0 else self._total + total
        self._count += statistics_cyx.shape[1] * statistics_cyx.shape[2]

    def _find_cells(self, statistics_cyx: Float32, tile: ImageTile) -> tuple[slice, slice]:
        """Return the pixels of the statistics that belong to the core of a tile."""
        step = self._net.multiple
        slices = []
        for core, length, span in zip(tile.core_in_output, statistics_cyx.shape[1:], (tile.y, tile.x), strict=True):
            # The output of a valid net may be larger than the area of its lowest level, and the reverse.
            output = span.window[1] - span.window[0] - 2 * span.margin
            shift = (length - output / step) / 2 if span.margin else 0.0
            first = min(max(0, math.floor(core.start / step + shift)), length - 1)
            slices.append(slice(first, max(first + 1, math.ceil(core.stop / step + shift))))
        return slices[0], slices[1]

    def summarize(self) -> Float64:
        """Return the means of all channels, then their standard deviations, float64; empty if nothing was added."""
        if self._count == 0:
            return np.zeros(0)
        means, squares = np.split(self._total / self._count, 2)
        return np.concatenate([means, np.sqrt(np.maximum(squares - means**2, 0))])
