"""Connected regions of each value of a label image: their number, place and size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_SIDE = 2048
"""Regions are found in the centre of an image only. That is enough."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of the values of one label image, 8-connected.

    Attributes
    ----------
    values
        Values that occur, int64, ascending.
    counts
        Number of regions of each value, int64.
    pixels
        Number of pixels of each value, int64.
    boxes
        Smallest box around all regions of each value, float64 ``N x 4``: top, left, bottom and right as shares of the
        height and the width.
    """

    values: NDArray[np.int64]
    counts: NDArray[np.int64]
    pixels: NDArray[np.int64]
    boxes: NDArray[np.float64]

    @property
    def extents(self) -> NDArray[np.float64]:
        """Share of its box that each value covers, up to a factor that the values of one image have in common."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        shares: NDArray[np.float64] = self.pixels / np.maximum(sides.prod(axis=1), 1e-12)
        return shares

    def first(self, number: int) -> Regions:
        """Return the regions of the first values."""
        return Regions(self.values[:number], self.counts[:number], self.pixels[:number], self.boxes[:number])

    def with_values(self, values: NDArray[Any]) -> Regions:
        """Return the same regions under other values."""
        return Regions(values.astype(np.int64), self.counts, self.pixels, self.boxes)

    def without(self, *values: int | None) -> Regions:
        """Return the regions of the other values."""
        kept = ~np.isin(self.values, [value for value in values if value is not None])
        return Regions(self.values[kept], self.counts[kept], self.pixels[kept], self.boxes[kept])


def find_regions(array_yx: NDArray[Any], background: int | None) -> Regions:
    """Find the 8-connected regions of each value, in the central 2048 x 2048 pixels.

    Parameters
    ----------
    array_yx
        Integers ``YX``.
    background
        Value that is left out; None to count every value.

    Examples
    --------
    >>> regions = find_regions(np.array([[1, 0, 1], [0, 2, 0]]), 0)
    >>> regions.values.tolist(), regions.counts.tolist(), regions.boxes[1].round(2).tolist()
    ([1, 2], [2, 1], [0.5, 0.33, 1.0, 0.67])
    """
    array_yx = _crop_centre(array_yx)
    height, width = array_yx.shape
    runs = _find_runs(array_yx, background)
    values, first = np.unique(runs.values, return_index=True)
    place = np.searchsorted(values, runs.values)
    # The first run of each region stands for it.
    counts = np.bincount(place[np.unique(runs.regions, return_index=True)[1]], minlength=len(values))
    pixels = np.bincount(place, runs.ends - runs.starts, len(values))
    rows, lefts = np.divmod(runs.starts, max(1, width))
    corners = np.stack([rows[first], lefts[first], rows[first], lefts[first]], 1)
    for column, ends in ((0, rows), (1, lefts)):
        np.minimum.at(corners[:, column], place, ends)
    for column, ends in ((2, rows + 1), (3, lefts + runs.ends - runs.starts)):
        np.maximum.at(corners[:, column], place, ends)
    boxes = corners / np.maximum(1, [height, width, height, width])
    return Regions(values.astype(np.int64), counts.astype(np.int64), pixels.astype(np.int64), boxes)


def label_equal_regions(array_yx: NDArray[Any], background: int | None) -> NDArray[np.int32]:
    """Give every 8-connected region of equal values an id of its own.

    Parameters
    ----------
    array_yx
        Integers ``YX``.
    background
        Value whose pixels become 0; None if every pixel belongs to a region.

    Returns
    -------
    ndarray
        int32 ``YX``: 0 in the background, 1 to n in the regions.

    Examples
    --------
    >>> label_equal_regions(np.array([[5, 0, 7], [0, 5, 7]]), 0)
    array([[1, 0, 2],
           [0, 1, 2]], dtype=int32)
    """
    runs = _find_runs(array_yx, background)
    ids_yx = np.zeros(array_yx.size, np.int32)
    edges = np.zeros(array_yx.size + 1, np.int64)
    # Runs do not overlap, but one may start where another one ends.
    np.add.at(edges, runs.starts, runs.regions + 1)
    np.subtract.at(edges, runs.ends, runs.regions + 1)
    np.cumsum(edges[:-1], out=ids_yx, dtype=np.int32)
    return ids_yx.reshape(array_yx.shape)


def count_regions(array_yx: NDArray[Any]) -> int:
    """Count the 8-connected regions of equal values other than 0 in the central 2048 x 2048 pixels of integers ``YX``.

    Examples
    --------
    >>> count_regions(np.array([[1, 0, 1], [0, 2, 0]]))
    3
    """
    return int(find_regions(array_yx, 0).counts.sum())


class _Runs(NamedTuple):
    """Runs of equal values along the rows: flat positions, value and number of the region of each run."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    values: NDArray[Any]
    regions: NDArray[np.int32]


def _find_runs(array_yx: NDArray[Any], background: int | None) -> _Runs:
    """Find the runs outside the background, and connect those that touch in neighbouring rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    width = max(1, array_yx.shape[1])
    flat = array_yx.ravel()
    borders = np.empty(flat.size, bool)
    borders[1:] = flat[1:] != flat[:-1]
    borders[::width] = True
    starts = np.flatnonzero(borders)
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    if background is not None:
        kept = values != background
        starts, ends, values = starts[kept], ends[kept], values[kept]
    # Runs of the next row that touch, diagonally too; the ends of a row are checked by its number.
    first = np.searchsorted(ends, starts + width, "left")
    number = np.maximum(0, np.searchsorted(starts, ends + width, "right") - first)
    upper = np.repeat(np.arange(len(starts)), number)
    lower = np.arange(len(upper)) + np.repeat(first - np.cumsum(number) + number, number)
    touching = (values[upper] == values[lower]) & (starts[upper] // width + 1 == starts[lower] // width)
    upper, lower = upper[touching], lower[touching]
    links = coo_array((np.ones(len(upper), bool), (upper, lower)), shape=(len(starts), len(starts)))
    regions = connected_components(links, directed=False)[1] if len(starts) else np.zeros(0, np.int32)
    return _Runs(starts, ends, values, regions)


def _crop_centre(array_yx: NDArray[Any]) -> NDArray[Any]:
    top, left = (max(0, size - _SIDE) // 2 for size in array_yx.shape)
    return array_yx[top : top + _SIDE, left : left + _SIDE]
