"""Exact tiles: cores cover an image once, and each is read with a halo as wide as the net's receptive field.

A padded net with d poolings pools pixels in cells of 2**d. A core that starts at a multiple of 2**d has the same cells
as the whole image. If its halo covers the receptive field, its output equals that of the whole image, bit for bit with
one engine. At the edge of the image a tile ends too, and the net pads it as it pads the whole image.

A valid net pads nothing, and its output is smaller by a margin on each side. Each window is larger than its core by
this margin, also beyond the image, which is mirrored there. This is the overlap-tile strategy of the U-Net paper.

References
----------
Ronneberger et al. 2015, "U-Net: convolutional networks for biomedical image segmentation" (arXiv 1505.04597), figure 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from septa.inference.protocol import NetGeometry

MEMORY = 2 * 2**30
"""Default limit of the activations of a tile, bytes."""
_ENOUGH = 1024
"""Side of a tile, pixels, above which larger tiles are not faster.

Fewer pixels are computed twice, but the memory of larger activations is mapped page by page. Measured for an image of
4096 x 4096 (width 16, depth 4): 7.2 s with tiles of 1280, 9.6 s with tiles of 2160.
"""
_HALOS = 13
"""The same limit as a multiple of the halo; the larger of the two applies."""
_WHOLE = 1.5
"""Side of an image, as a multiple of that limit, up to which it is not cut if the memory holds it."""


ImageRegion = tuple[tuple[int, int], tuple[int, int]]
"""Part of an image: its first row and column, and the row and column after its last."""


@dataclass(frozen=True)
class TileSpan:
    """Rows or columns of a tile.

    Attributes
    ----------
    core
        Half-open range of the output that is kept.
    window
        Half-open range of the image that is read for it.
    margin
        Pixels between the beginning of the window and that of its output.
    """

    core: tuple[int, int]
    window: tuple[int, int]
    margin: int = 0


@dataclass(frozen=True)
class ImageTile:
    """A core and its window in coordinates of the image. Only windows of valid nets may reach beyond the image."""

    y: TileSpan
    x: TileSpan

    @property
    def core(self) -> tuple[slice, slice]:
        """Index of the core in the image."""
        return slice(*self.y.core), slice(*self.x.core)

    @property
    def begin(self) -> tuple[int, int]:
        """First row and column of the window."""
        return self.y.window[0], self.x.window[0]

    @property
    def end(self) -> tuple[int, int]:
        """Row and column after the last of the window."""
        return self.y.window[1], self.x.window[1]

    @property
    def core_in_output(self) -> tuple[slice, slice]:
        """Index of the core in the output for the window."""
        y, x = (
            slice(span.core[0] - span.window[0] - span.margin, span.core[1] - span.window[0] - span.margin)
            for span in (self.y, self.x)
        )
        return y, x


def plan_tiles(
    height: int,
    width: int,
    *,
    halo: int,
    multiple: int,
    tile: int,
    margin: int = 0,
    surplus: int = 0,
    least: int = 0,
    region: ImageRegion | None = None,
) -> list[ImageTile]:
    """Plan tiles whose cores cover an image, or a region of it, exactly once.

    Parameters
    ----------
    height, width
        Size of the image, pixels.
    halo
        Context on each side of a core, pixels, a multiple of ``multiple``.
    multiple
        Number of which each core starts at a multiple, pixels.
    tile
        Largest side of a window, pixels. Windows have equal sides where possible, because an engine may compile for
        each size.
    margin
        Pixels on each side by which the output of a valid net is smaller than its input; 0 for a padded net. If it is
        positive, ``halo`` is not used.
    surplus
        Remainder of the output sides of a valid net when they are divided by ``multiple``.
    least
        Smallest side of a window, pixels, a multiple of ``multiple``, if several windows are needed and the image is
        large enough.
    region
        Region that the cores cover, on the grid as `align_region` returns it; the whole image if None.

    Returns
    -------
    list of ImageTile
        Tiles row by row.

    Raises
    ------
    ValueError
        A tile of this size has no room for a core, or the image or the region is empty or not on the grid.

    Examples
    --------
    >>> [t.core for t in plan_tiles(100, 20, halo=8, multiple=4, tile=64)]
    [(slice(0, 48, None), slice(0, 20, None)), (slice(48, 100, None), slice(0, 20, None))]
    """
    if min(height, width) < 1:
        raise ValueError(f"an image has at least one pixel, got {height} x {width}")
    parts = zip((height, width), *(region or ((0, 0), (height, width))))
    axes = [_check_range(size, begin, end, multiple) for size, begin, end in parts]
    if margin:
        rows, columns = (_valid_spans(*axis, margin, multiple, surplus, tile, least) for axis in axes)
    else:
        rows, columns = (_spans(*axis, halo, multiple, tile, least) for axis in axes)
    return [ImageTile(y, x) for y in rows for x in columns]


def align_region(region: ImageRegion, size: tuple[int, int], multiple: int) -> ImageRegion:
    """Return the smallest region on the grid that contains a region.

    Parameters
    ----------
    region
        Region of the image.
    size
        Height and width of the image, pixels.
    multiple
        Step of the grid, pixels. A region on the grid also may end where the image ends.

    Examples
    --------
    >>> align_region(((5, 0), (30, 33)), (100, 33), 16)
    ((0, 0), (32, 33))
    """
    (top, left), (bottom, right) = region
    begin = (top // multiple * multiple, left // multiple * multiple)
    ends = (min(side, -(-end // multiple) * multiple) for end, side in zip((bottom, right), size))
    return begin, (next(ends), next(ends))


def add_margin(core: ImageRegion, margin: int, size: tuple[int, int]) -> ImageRegion:
    """Return the region of a block with its margin, and one line more: the first line of the next blocks.

    Without a margin, the block itself is returned. The region ends at the edges of the image.

    Examples
    --------
    >>> add_margin(((64, 0), (128, 64)), 8, (200, 70))
    ((55, 0), (137, 70))
    """
    wide = margin + 1 if margin else 0
    (top, left), (bottom, right) = core
    return (max(0, top - wide), max(0, left - wide)), (min(size[0], bottom + wide), min(size[1], right + wide))


def _check_range(size: int, begin: int, end: int, multiple: int) -> tuple[int, int, int]:
    if not 0 <= begin < end <= size or begin % multiple or (end % multiple and end != size):
        raise ValueError(f"{begin} to {end} of {size} is not a region on a grid of {multiple}")
    return size, begin, end


def plan_tiles_for(
    net: NetGeometry, height: int, width: int, tile: int | None = None, region: ImageRegion | None = None
) -> list[ImageTile]:
    """Plan the tiles of an image for a net; see `plan_tiles`.

    If ``tile`` is None, the size is chosen from the memory, and is at least `smallest_tile_for`.
    """
    surplus = _surplus(net)
    if tile is None:
        tile = choose_tile(halo=net.halo, multiple=net.multiple, bytes_per_pixel=net.bytes_per_pixel, surplus=surplus)
        enough = max(_ENOUGH, _HALOS * net.halo)
        if max(height, width) > _WHOLE * enough:
            tile = min(tile, enough)
        tile = max(tile, smallest_tile_for(net))
    return plan_tiles(
        height,
        width,
        halo=net.halo,
        multiple=net.multiple,
        tile=tile,
        margin=net.margin,
        surplus=surplus,
        least=_steady_side(net),
        region=region,
    )


def smallest_tile_for(net: NetGeometry) -> int:
    """Return the smallest side of a tile for a net, pixels.

    The tile has room for a core, and PyTorch computes it with the same kernels as larger tiles.
    """
    return max(smallest_tile(net.halo, net.multiple, _surplus(net)), _steady_side(net))


def scale_tile(net: NetGeometry, tile: int, factor: float) -> int:
    """Return the side in pixels of the largest tile of an image of which a net sees ``tile`` pixels.

    Parameters
    ----------
    net
        Net that reduces the image by the factor; the tile has at least its smallest side.
    tile
        Largest side that the net may see, pixels.
    factor
        Factor of the reduction; below 1 the net enlarges the image.
    """
    return max(int(factor * tile), smallest_tile_for(net))


def _surplus(net: NetGeometry) -> int:
    return net.output_size(net.input_size(1)) % net.multiple if net.margin else 0


def _steady_side(net: NetGeometry) -> int:
    return math.ceil(net.steady_side / net.multiple) * net.multiple


def smallest_tile(halo: int, multiple: int, surplus: int = 0) -> int:
    """Return the smallest side of a window with room for a core, pixels; the halo of a valid net is its margin."""
    return 2 * halo + multiple + surplus


def choose_tile(*, halo: int, multiple: int, bytes_per_pixel: int, memory: int = MEMORY, surplus: int = 0) -> int:
    """Return the largest side of a square window, pixels, whose activations fit in ``memory`` bytes.

    It is at least the smallest side with room for a core.
    """
    side = math.isqrt(max(1, memory // max(1, bytes_per_pixel)))
    return max(smallest_tile(halo, multiple, surplus), side // multiple * multiple)


def _spans(size: int, begin: int, end: int, halo: int, multiple: int, tile: int, least: int) -> list[TileSpan]:
    low = max(0, begin - halo)
    high = min(size, end + halo)
    alone = [TileSpan((begin, end), _window(size, begin, end, halo, multiple, least))]
    if high - low <= tile:
        return alone
    room = (tile - 2 * halo) // multiple * multiple
    if room < multiple:
        needed = smallest_tile(halo, multiple)
        raise ValueError(f"a tile of {tile} pixels has no room for a core: with a halo of {halo} it needs {needed}")
    count = math.ceil((high - low - 2 * halo) / room)
    step = max(math.ceil((high - low - 2 * halo) / count / multiple) * multiple, least - 2 * halo)
    length = step + 2 * halo
    if high - low <= length:
        return alone
    starts = [*range(low, high - length, step), math.ceil((high - length) / multiple) * multiple]
    edges = [begin, *(start + halo for start in starts[1:]), end]
    return [
        TileSpan(edge, (start, min(start + length, high))) for edge, start in zip(pairwise(edges), starts, strict=True)
    ]


def _window(size: int, start: int, end: int, halo: int, multiple: int, least: int) -> tuple[int, int]:
    """Return a core with its halo, as a range of at least ``least`` pixels if the image is large enough."""
    low = max(0, start - halo)
    high = max(min(size, end + halo), min(size, low + least))
    return min(low, max(0, (high - least) // multiple * multiple)), high


def _valid_spans(
    size: int, begin: int, end: int, margin: int, multiple: int, surplus: int, tile: int, least: int
) -> list[TileSpan]:
    """Return the spans for a valid net: a window is the smallest input whose output contains the core."""
    room = (tile - 2 * margin - surplus) // multiple * multiple
    if room < multiple:
        needed = smallest_tile(margin, multiple, surplus)
        raise ValueError(f"a tile of {tile} pixels has no room for a core: with a margin of {margin} it needs {needed}")
    length = max(1, end - begin - surplus)
    count = math.ceil(length / room)
    core = math.ceil(math.ceil(length / count) / multiple) * multiple
    starts = range(begin, begin + length, core)
    ends = [*starts[1:], end]
    spans = []
    for start, stop in zip(starts, ends):
        enough = stop - start if stop - start == size else max(stop - start, least - 2 * margin)
        output = max(1, math.ceil((enough - surplus) / multiple)) * multiple + surplus
        spans.append(TileSpan((start, stop), (start - margin, start + output + margin), margin))
    return spans


def compute_overhead(tiles: list[ImageTile]) -> float:
    """Return the number of pixels computed for each pixel kept, at least 1."""
    read = sum((t.y.window[1] - t.y.window[0]) * (t.x.window[1] - t.x.window[0]) for t in tiles)
    kept = sum((t.y.core[1] - t.y.core[0]) * (t.x.core[1] - t.x.core[0]) for t in tiles)
    return read / kept


def largest_difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the largest absolute difference of two arrays of equal shape; NaN in either counts as infinite."""
    difference = np.abs(a - b)
    return float(np.where(np.isnan(difference), np.inf, difference).max())
