"""Exact tiles: cores that cover an image once, each read with the halo that the net's receptive field asks for.

A padded net with d poolings looks at pixels in cells of 2**d. A core that starts at a multiple of 2**d therefore sees
the same cells as the whole image does; with a halo at least as wide as the receptive field reaches, its output is the
whole image's output, bit for bit on one engine. Where the image ends a tile ends too, and the net pads itself as for
the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEMORY = 2 * 2**30
"""Bytes of activations that a tile may take when nothing else is said."""


@dataclass(frozen=True)
class Span:
    """Half-open range of rows or columns: the core that is kept and the window that is read for it."""

    core: tuple[int, int]
    window: tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """A core and its window in image coordinates."""

    y: Span
    x: Span

    @property
    def core(self) -> tuple[slice, slice]:
        """Index of the core in the image."""
        return slice(*self.y.core), slice(*self.x.core)

    @property
    def window(self) -> tuple[slice, slice]:
        """Index of the window in the image."""
        return slice(*self.y.window), slice(*self.x.window)

    @property
    def core_in_window(self) -> tuple[slice, slice]:
        """Index of the core in the window."""
        return (
            slice(self.y.core[0] - self.y.window[0], self.y.core[1] - self.y.window[0]),
            slice(self.x.core[0] - self.x.window[0], self.x.core[1] - self.x.window[0]),
        )


def plan(height: int, width: int, *, halo: int, multiple: int, tile: int) -> list[Tile]:
    """Tiles whose cores cover an image of ``height`` x ``width`` pixels exactly once, row by row.

    Parameters
    ----------
    height, width
        Size of the image, pixels.
    halo
        Context on each side of a core, pixels, a multiple of ``multiple``.
    multiple
        Cores start at multiples of this.
    tile
        Largest side of a window, pixels. Cores are made equal, so that few shapes occur.

    Raises
    ------
    ValueError
        A tile of this size has no room for a core, or the image is empty.

    Examples
    --------
    >>> [t.core for t in plan(100, 20, halo=8, multiple=4, tile=64)]
    [(slice(0, 36, None), slice(0, 20, None)), (slice(36, 72, None), slice(0, 20, None)), \
(slice(72, 100, None), slice(0, 20, None))]
    """
    if min(height, width) < 1:
        raise ValueError(f"an image has at least one pixel, got {height} x {width}")
    rows = _spans(height, halo, multiple, tile)
    columns = _spans(width, halo, multiple, tile)
    return [Tile(y, x) for y in rows for x in columns]


def least_tile(halo: int, multiple: int) -> int:
    """Smallest side of a window, pixels, that has room for a core."""
    return 2 * halo + multiple


def auto_tile(*, halo: int, multiple: int, bytes_per_pixel: int, memory: int = MEMORY) -> int:
    """Largest side of a square window, pixels, whose activations fit in ``memory`` bytes."""
    side = math.isqrt(max(1, memory // max(1, bytes_per_pixel)))
    return max(least_tile(halo, multiple), side // multiple * multiple)


def activation_bytes(width: int, reduction: int = 1) -> int:
    """Memory of one padded U-Net pass in bytes per pixel: its peak lies at full resolution in the last block.

    There the skip connection (``width`` channels), the two concatenated halves, and input and output of a convolution
    live together: about 7 times ``width`` float32 values, the lower levels included. A net that reduces the image
    holds as much for each reduced pixel, and image and logits at full size.
    """
    return 7 * width * 4 // reduction**2 + (64 if reduction > 1 else 0)


def _spans(size: int, halo: int, multiple: int, tile: int) -> list[Span]:
    if size <= tile:
        return [Span((0, size), (0, size))]
    room = (tile - 2 * halo) // multiple * multiple
    if room < multiple:
        least = least_tile(halo, multiple)
        raise ValueError(f"a tile of {tile} pixels has no room for a core: with a halo of {halo} it needs {least}")
    count = math.ceil(size / room)
    core = math.ceil(math.ceil(size / count) / multiple) * multiple
    starts = range(0, size, core)
    ends = [min(start + core, size) for start in starts]
    return [Span((a, b), (max(0, a - halo), min(size, b + halo))) for a, b in zip(starts, ends)]


def overhead(tiles: list[Tile]) -> float:
    """Pixels computed for each pixel kept, at least 1."""
    read = sum((t.y.window[1] - t.y.window[0]) * (t.x.window[1] - t.x.window[0]) for t in tiles)
    kept = sum((t.y.core[1] - t.y.core[0]) * (t.x.core[1] - t.x.core[0]) for t in tiles)
    return read / kept


def largest_difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Largest absolute difference of two arrays of equal shape; NaN in either counts as infinite."""
    difference = np.abs(a - b)
    return float(np.where(np.isnan(difference), np.inf, difference).max())
