"""Outlines to pixels: a pixel belongs to an outline if its centre lies inside.

A centre exactly on an edge belongs to the outline if the inside lies to its right or, on a horizontal edge, below. So
outlines that share an edge neither overlap nor leave a gap, and outlines along the edges of pixels, as septa writes
them, give back exactly these pixels. QuPath and ImageJ fill by the centres of pixels too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from septa.errors import InputError
from septa.kernels import Kernel
from septa.labels.outlines.outline import Outline
from septa.recipe import IGNORE

_MOST_CROSSINGS = 50_000_000
_MOST_COVER = 100
_LEAST_COVER = 1 << 24
"""Largest work: rows that all edges cross, and pixels to fill in pixels of the image, or at least of this number."""

Boxes = npt.NDArray[np.int64]


class Raster(NamedTuple):
    """Outlines as pixels.

    Attributes
    ----------
    labels_yx
        int32 ``YX``: number of the object, 1 to n in the order of the outlines; 0 in the background, `IGNORE` in
        ignored regions. Objects without a pixel get no number.
    objects
        Index of the outline of each object.
    overlaps
        Number of pixels that lie in several outlines.
    outside
        Number of outlines that lie outside the image.
    empty
        Number of other objects without a pixel: too small, or hidden by smaller ones.
    """

    labels_yx: npt.NDArray[np.int32]
    objects: list[int]
    overlaps: int
    outside: int
    empty: int


def rasterize(outlines: Sequence[Outline], size_yx: tuple[int, int], where: str) -> Raster:
    """Fill outlines.

    A pixel inside several outlines belongs to the one of fewest pixels, of equal ones to the earlier.

    Parameters
    ----------
    outlines
        Outlines in pixels.
    size_yx
        Height and width of the image.
    where
        File, for errors.

    Raises
    ------
    InputError
        The outlines have too many edges, or cover the image too often.

    Examples
    --------
    >>> square = Outline(((np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]]),),))
    >>> rasterize([square], (2, 3), "a.geojson").labels_yx
    array([[1, 1, 0],
           [1, 1, 0]], dtype=int32)
    """
    height, width = size_yx
    boxes, owners = _collect_boxes(outlines, height, width, where)
    areas = np.zeros(len(outlines), np.int64)
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    np.add.at(areas, owners, sizes)
    if sizes.sum() > max(_MOST_COVER * height * width, _LEAST_COVER):
        problem = f"the outlines cover the image of {height} x {width} pixels more than {_MOST_COVER} times"
        raise InputError(where, problem, "Remove outlines that lie on each other")
    # The largest is painted first, so that smaller ones stay visible on it; the earliest of equal ones last.
    order = np.lexsort((-np.arange(len(outlines)), -areas))
    rank = np.empty(len(outlines), np.int64)
    rank[order] = np.arange(len(outlines))
    by_rank = np.argsort(rank[owners], kind="stable")
    painted_yx = np.zeros((height, width), np.int32)
    overlaps = int(_paint(painted_yx, boxes[by_rank], owners[by_rank] + 1))
    seen = np.bincount(painted_yx.reshape(-1), minlength=len(outlines) + 1) > 0
    objects = [k for k, outline in enumerate(outlines) if outline.kind == "object" and seen[k + 1]]
    table = np.zeros(len(outlines) + 1, np.int32)
    for number, k in enumerate(objects, start=1):
        table[k + 1] = number
    for k, outline in enumerate(outlines):
        if outline.kind == "ignored":
            table[k + 1] = IGNORE
    outside = [not area and not _touches(outline, height, width) for outline, area in zip(outlines, areas.tolist())]
    wanted = sum(outline.kind == "object" and not out for outline, out in zip(outlines, outside))
    return Raster(table[painted_yx], objects, overlaps, sum(outside), wanted - len(objects))


def _touches(outline: Outline, height: int, width: int) -> bool:
    """Return True if the bounding box of an outline has a part in the image."""
    for polygon in outline.polygons:
        for ring in polygon:
            if len(ring):
                (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
                if right > 0 and bottom > 0 and left < width and top < height:
                    return True
    boxes = outline.boxes
    if boxes is None:
        return False
    inside = (boxes[:, 2] > 0) & (boxes[:, 3] > 0) & (boxes[:, 0] < height) & (boxes[:, 1] < width)
    return bool(inside.any())


def _collect_boxes(
    outlines: Sequence[Outline], height: int, width: int, where: str
) -> tuple[Boxes, npt.NDArray[np.int64]]:
    """Return rectangles of pixels, clipped to the image, and the index of the outline that each belongs to."""
    polygons = [(k, polygon) for k, outline in enumerate(outlines) for polygon in outline.polygons]
    rings = [ring for _, polygon in polygons for ring in polygon]
    ring_ends = np.array([*accumulate(map(len, rings), initial=0)], np.int64)
    polygon_ends = np.array([*accumulate((len(polygon) for _, polygon in polygons), initial=0)], np.int64)
    points = np.concatenate([*rings, np.zeros((0, 2))])
    after = np.arange(1, len(points) + 1)
    filled_rings = np.diff(ring_ends) > 0
    after[ring_ends[1:][filled_rings] - 1] = ring_ends[:-1][filled_rings]
    rows = np.clip(points[:, 1], 0, height)
    crossed = np.abs(rows[after] - rows).sum()
    if crossed > _MOST_CROSSINGS or len(points) > _MOST_CROSSINGS:
        problem = f"the outlines have too many edges ({len(points)})"
        raise InputError(where, problem, "Simplify them, or save labels as PNG or TIFF")
    runs, sources = _find_runs(points, ring_ends, polygon_ends, height, width)
    owner_of_polygon = np.array([k for k, _ in polygons], np.int64)
    found: list[npt.NDArray[Any]] = [runs]
    owners: list[npt.NDArray[Any]] = [owner_of_polygon[sources]]
    for k, outline in enumerate(outlines):
        if outline.boxes is not None:
            found.append(np.clip(outline.boxes, 0, [height, width, height, width]))
            owners.append(np.full(len(outline.boxes), k, np.int64))
    boxes, owner = np.concatenate(found), np.concatenate(owners)
    filled = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return boxes[filled], owner[filled]


def mask_to_boxes(mask_yx: npt.NDArray[np.bool_], top: int = 0, left: int = 0) -> Boxes:
    """Return the runs of a mask in its rows as boxes, with the mask's first pixel at row ``top``, column ``left``.

    Examples
    --------
    >>> mask_to_boxes(np.array([[False, True, True]]), top=5)
    array([[5, 1, 6, 3]])
    """
    steps = np.diff(np.pad(mask_yx, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    return np.stack([rows + top, starts + left, rows + top + 1, ends + left], axis=1).astype(np.int64)


def counts_to_boxes(counts: npt.NDArray[np.int64], height: int) -> Boxes:
    """Return the boxes of run lengths outside and inside an object, column by column, starting outside.

    Parameters
    ----------
    counts
        int64, none negative, with a sum of at most 2^62.
    height
        Height of the image, at least 1.

    Examples
    --------
    >>> counts_to_boxes(np.array([1, 2, 1]), 2)
    array([[1, 0, 2, 1],
           [0, 1, 1, 2]])
    """
    ends = np.cumsum(counts)
    starts, ends = ends[:-1:2], ends[1::2]
    kept = ends > starts
    return np.asarray(_split_columns(starts[kept], ends[kept], height))


@Kernel
def _split_columns(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], height: int) -> npt.NDArray[np.int64]:
    """Split runs that cross columns into the end of a column, whole columns, and the start of a column."""
    boxes = np.empty((3 * len(starts), 4), np.int64)
    count = 0
    for k in range(len(starts)):
        start, end = starts[k], ends[k]
        if start % height:
            stop = min(end, (start // height + 1) * height)
            column = start // height
            boxes[count] = (start % height, column, start % height + stop - start, column + 1)
            count += 1
            start = stop
        if end - start >= height:
            boxes[count] = (0, start // height, height, end // height)
            count += 1
            start = end // height * height
        if end > start:
            boxes[count] = (0, start // height, end - start, start // height + 1)
            count += 1
    return boxes[:count].copy()


@Kernel
def _find_runs(
    points: npt.NDArray[np.float64],
    ring_ends: npt.NDArray[np.int64],
    polygon_ends: npt.NDArray[np.int64],
    height: int,
    width: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows of pixels inside each polygon as boxes, and the polygon that each belongs to.

    The points of ring k are those from ``ring_ends[k]`` on, before ``ring_ends[k + 1]``; rings of polygons likewise.
    Edge k leads from point k to the next of its ring.
    """
    after = np.arange(1, len(points) + 1)
    for ring in range(len(ring_ends) - 1):
        if ring_ends[ring] < ring_ends[ring + 1]:
            after[ring_ends[ring + 1] - 1] = ring_ends[ring]
    # Row of the first centre that is not above a point.
    rows = np.ceil(np.minimum(np.maximum(points[:, 1], -1.0), height + 1.0) - 0.5).astype(np.int64)
    boxes = np.empty((1024, 4), np.int64)
    owners = np.empty(1024, np.int64)
    count = 0
    for polygon in range(len(polygon_ends) - 1):
        begin, end = ring_ends[polygon_ends[polygon]], ring_ends[polygon_ends[polygon + 1]]
        if begin == end:
            continue
        first, last = max(rows[begin:end].min(), 0), min(rows[begin:end].max(), height)
        if last <= first:
            continue
        # Two passes over the edges: count the crossings of each row of centres, then sort them into rows. Until then,
        # begins[row] is where the next crossing of the row goes.
        begins = np.zeros(last - first + 1, np.int64)
        for k in range(begin, end):
            for row in range(max(min(rows[k], rows[after[k]]), first), min(max(rows[k], rows[after[k]]), last)):
                begins[row - first + 1] += 1
        begins = np.cumsum(begins)
        columns = np.empty(begins[last - first], np.int64)
        for k in range(begin, end):
            # The same edge of two outlines must cross a row at the same place, whatever its direction.
            a, b = (k, after[k]) if points[k, 1] < points[after[k], 1] else (after[k], k)
            for row in range(max(rows[a], first), min(rows[b], last)):
                share = (row + 0.5 - points[a, 1]) / (points[b, 1] - points[a, 1])
                x = points[a, 0] + share * (points[b, 0] - points[a, 0])
                columns[begins[row - first]] = int(np.ceil(min(max(x, 0.0), width + 1.0) - 0.5))
                begins[row - first] += 1
        start = 0
        for row in range(first, last):
            stop = begins[row - first]
            columns[start:stop] = np.sort(columns[start:stop])
            for k in range(start, stop - 1, 2):
                if columns[k] < min(columns[k + 1], width):
                    if count == len(boxes):
                        boxes = np.concatenate((boxes, np.empty_like(boxes)))
                        owners = np.concatenate((owners, np.empty_like(owners)))
                    boxes[count] = (row, columns[k], row + 1, min(columns[k + 1], width))
                    owners[count] = polygon
                    count += 1
            start = stop
    return boxes[:count].copy(), owners[:count].copy()


@Kernel
def _paint(labels_yx: npt.NDArray[np.int32], boxes: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> int:
    """Fill boxes with numbers in their order; return the number of pixels that were filled with another number."""
    overlaps = 0
    for k in range(len(boxes)):
        for y in range(boxes[k, 0], boxes[k, 2]):
            for x in range(boxes[k, 1], boxes[k, 3]):
                overlaps += labels_yx[y, x] != 0 and labels_yx[y, x] != numbers[k]
                labels_yx[y, x] = numbers[k]
    return overlaps
