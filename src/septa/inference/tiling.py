"""Exact tiles: cores that cover an image once, each read with the halo that the net's receptive field asks for.

A padded net with d poolings looks at pixels in cells of 2**d. A core that starts at a multiple of 2**d therefore sees
the same cells as the whole image does; with a halo at least as wide as the receptive field reaches, its output is the
whole image's output, bit for bit on one engine. Where the image ends a tile ends too, and the net pads itself as for
the whole.

A valid net pads nothing: its output lacks a margin on each side. There every window reaches that far beyond its core,
also beyond the image, where it is mirrored: the U-Net paper's overlap-tile strategy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

MEMORY = 2 * 2**30
"""Bytes of activations that a tile may take when nothing else is said."""
_ENOUGH, _HALOS = 1024, 13
"""Side of a tile in pixels, and in halos, beyond which larger ones do not pay: fewer pixels are computed twice, but
pages are faulted in for activations (4096 x 4096, width 16, depth 4: 7.2 s with tiles of 1280, 9.6 s with 2160)."""
_WHOLE = 1.5
"""Images up to so many times that side are not cut if the memory holds them."""


ImageRegion = tuple[tuple[int, int], tuple[int, int]]
"""First row and column of a part of an image, and those behind it."""


@dataclass(frozen=True)
class TileSpan:
    """Half-open range of rows or columns: the core that is kept and the window that is read for it.

    The output for the window begins ``margin`` pixels after it.
    """

    core: tuple[int, int]
    window: tuple[int, int]
    margin: int = 0


@dataclass(frozen=True)
class ImageTile:
    """A core and its window in image coordinates; only that of a valid net may reach beyond the image."""

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
        """Row and column behind the window."""
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
    """Tiles whose cores cover an image of ``height`` x ``width`` pixels, or a region of it, exactly once, row by row.

    Parameters
    ----------
    height, width
        Size of the image, pixels.
    halo
        Context on each side of a core, pixels, a multiple of ``multiple``.
    multiple
        Cores start at multiples of this.
    tile
        Largest side of a window, pixels. Windows are made equal: an engine may prepare for each size that it sees.
    margin, surplus
        Of a valid net: pixels a side by which its output is smaller than its input, and by how many its outputs are
        larger than a multiple of ``multiple``. The halo is then not used.
    least
        Smallest side of a window as the net pads it, pixels, a multiple of ``multiple``, where several are needed and
        the image has it.
    region
        All of the image when not given; else from `align_region`, or of an equal grid.

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
    """The smallest region that holds another and begins and ends at multiples, or where the image ends.

    Examples
    --------
    >>> align_region(((5, 0), (30, 33)), (100, 33), 16)
    ((0, 0), (32, 33))
    """
    (top, left), (bottom, right) = region
    begin = (top // multiple * multiple, left // multiple * multiple)
    ends = (min(side, -(-end // multiple) * multiple) for end, side in zip((bottom, right), size))
    return begin, (next(ends), next(ends))


def _check_range(size: int, begin: int, end: int, multiple: int) -> tuple[int, int, int]:
    if not 0 <= begin < end <= size or begin % multiple or (end % multiple and end != size):
        raise ValueError(f"{begin} to {end} of {size} is no region on a grid of {multiple}")
    return size, begin, end


class TiledNet(Protocol):
    """What a plan needs to know of a net; `septa.nets.UNet` says what each is."""

    @property
    def halo(self) -> int: ...
    @property
    def multiple(self) -> int: ...
    @property
    def margin(self) -> int: ...
    @property
    def steady_side(self) -> int: ...
    @property
    def bytes_per_pixel(self) -> int: ...
    def input_size(self, size: int) -> int: ...
    def output_size(self, size: int) -> int: ...


def plan_tiles_for(
    net: TiledNet, height: int, width: int, tile: int | None = None, region: ImageRegion | None = None
) -> list[ImageTile]:
    """Plan the tiles of an image for a net; see `plan_tiles`.

    Without ``tile``, the size is chosen from the memory, and is at least `smallest_tile_for`.
    """
    surplus, least = _surplus(net), smallest_tile_for(net)
    if tile is None:
        tile = choose_tile(halo=net.halo, multiple=net.multiple, bytes_per_pixel=net.bytes_per_pixel, surplus=surplus)
        enough = max(_ENOUGH, _HALOS * net.halo)
        if max(height, width) > _WHOLE * enough:
            tile = min(tile, enough)
        tile = max(tile, least)
    return plan_tiles(
        height, width, halo=net.halo, multiple=net.multiple, tile=tile, margin=net.margin, surplus=surplus,
        least=_steady(net), region=region,
    )  # fmt: skip


def smallest_tile_for(net: TiledNet) -> int:
    """Smallest tile for a net, pixels: it has room for a core, and is computed as large ones are."""
    return max(smallest_tile(net.halo, net.multiple, _surplus(net)), _steady(net))


def _surplus(net: TiledNet) -> int:
    return net.output_size(net.input_size(1)) % net.multiple if net.margin else 0


def _steady(net: TiledNet) -> int:
    return math.ceil(net.steady_side / net.multiple) * net.multiple


def smallest_tile(halo: int, multiple: int, surplus: int = 0) -> int:
    """Smallest side of a window, pixels, that has room for a core; of a valid net, whose halo is its margin, too."""
    return 2 * halo + multiple + surplus


def choose_tile(*, halo: int, multiple: int, bytes_per_pixel: int, memory: int = MEMORY, surplus: int = 0) -> int:
    """Largest side of a square window, pixels, whose activations fit in ``memory`` bytes."""
    side = math.isqrt(max(1, memory // max(1, bytes_per_pixel)))
    return max(smallest_tile(halo, multiple, surplus), side // multiple * multiple)


def _spans(size: int, begin: int, end: int, halo: int, multiple: int, tile: int, least: int) -> list[TileSpan]:
    low, high = max(0, begin - halo), min(size, end + halo)
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
    """A core with its halo, at least as long as the least where the image has it."""
    low, high = max(0, start - halo), min(size, end + halo)
    high = max(high, min(size, low + least))
    return min(low, max(0, (high - least) // multiple * multiple)), high


def _valid_spans(
    size: int, begin: int, end: int, margin: int, multiple: int, surplus: int, tile: int, least: int
) -> list[TileSpan]:
    """As `_spans`; a window is as long as the net's smallest input whose output holds the core."""
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
    """Pixels computed for each pixel kept, at least 1."""
    read = sum((t.y.window[1] - t.y.window[0]) * (t.x.window[1] - t.x.window[0]) for t in tiles)
    kept = sum((t.y.core[1] - t.y.core[0]) * (t.x.core[1] - t.x.core[0]) for t in tiles)
    return read / kept


def largest_difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Largest absolute difference of two arrays of equal shape; NaN in either counts as infinite."""
    difference = np.abs(a - b)
    return float(np.where(np.isnan(difference), np.inf, difference).max())
