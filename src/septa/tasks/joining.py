"""Parts of one object joined: touching regions that are small together and have no deep rim between them.

Nets cut lobed objects. The *saddle* of two touching regions is the highest inner value at which a path can cross from
one to the other: the largest, over all pairs of neighbouring pixels of both, of the smaller value of the pair. Two
regions are joined if their area together, before holes are filled, is less than

    ``join_pixels * min(1, saddle / seed)``

so that the smaller they are together, the deeper a rim may be that does not divide them. If the area did not count,
this would be a lower threshold of seeds. Each pair is judged by itself, so nothing depends on an order. Regions that
are joined through others are one object, which may be larger than the limit.

In a window of a larger image, a region that touches an open side or an uncertain pixel may be larger than it seems. A
pair of it that would be too large anyway is not joined; any other is undecided, and its pixels at the contact become
uncertain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from septa.tasks.watershed import UNCERTAIN, Sides, get_outer_lines

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_DEEPEST = 255
"""Height of an inner value of 0."""


def join_parts(
    labels_yx: Int32,
    height_yx: npt.NDArray[np.uint8],
    seed: float,
    join_pixels: int,
    open_sides: Sides = (False, False, False, False),
) -> Int32:
    """Join touching regions that are small together and have a shallow rim between them.

    Parameters
    ----------
    labels_yx
        Regions of a window, int32 ``YX``: 0 is background, other values are ids with gaps, and `UNCERTAIN` marks pixels
        that depend on what lies beyond the open sides.
    height_yx
        255 less the inner map of 0 to 255, uint8 ``YX``.
    seed
        Inner value above which a pixel is a seed, in (0, 1).
    join_pixels
        Area below which two regions with a saddle as high as a seed are joined, pixels.
    open_sides
        True where the image continues beyond the top, bottom, left and right side of the window.

    Returns
    -------
    ndarray
        int32 ``YX``: objects have the lowest id of their regions. Pixels with one id belong to one object of the whole
        image. Two regions that are joined by their own contact have one id, unless all of it is uncertain.

    Examples
    --------
    >>> labels_yx = np.array([[4, 4, 7, 7, 7, 7, 7, 9]], np.int32)
    >>> height_yx = np.array([[0, 199, 199, 0, 0, 0, 0, 240]], np.uint8)
    >>> join_parts(labels_yx, height_yx, 0.5, 18)
    array([[4, 4, 4, 4, 4, 4, 4, 9]], dtype=int32)
    >>> join_parts(labels_yx, height_yx, 0.5, 15)
    array([[4, 4, 7, 7, 7, 7, 7, 9]], dtype=int32)
    """
    first, second, walls, places = _find_contacts(labels_yx, height_yx)
    both = (first > 0) & (second > 0)
    if not both.any():
        return labels_yx
    areas = np.bincount(np.maximum(labels_yx, 0).reshape(-1))
    cut = np.zeros(areas.size, bool)
    for line, is_open in zip(get_outer_lines(labels_yx), open_sides):
        cut[np.maximum(line, 0)] |= is_open
    for one, other in ((first, second), (second, first)):
        cut[one[(one > 0) & (other == UNCERTAIN)]] = True
    keys = np.minimum(first, second)[both] * np.int64(areas.size) + np.maximum(first, second)[both]
    keys, pair = np.unique(keys, return_inverse=True)
    low, high = np.divmod(keys, areas.size)
    lowest = np.full(keys.size, _DEEPEST, np.int64)
    np.minimum.at(lowest, pair, walls[both])
    together = areas[low] + areas[high]
    saddles = (_DEEPEST - lowest) / (_DEEPEST * seed)
    unknown = cut[low] | cut[high]
    joined = ~unknown & (together < join_pixels * np.minimum(1, saddles))
    roots = find_roots(areas.size, [np.stack([low, high])[:, joined]])
    labels_yx = np.append(roots, UNCERTAIN).astype(np.int32)[labels_yx]  # -1 takes the last value
    undecided = (unknown & (together < join_pixels))[pair]
    labels_yx.reshape(-1)[places[:, both][:, undecided].reshape(-1)] = UNCERTAIN
    return labels_yx


def find_roots(count: int, pairs: Sequence[npt.NDArray[np.integer]]) -> Int64:
    """Return for each of a number of nodes the first of all nodes to which pairs ``(2, n)`` connect it, int64.

    Examples
    --------
    >>> find_roots(4, [np.array([[1, 2], [3, 1]])])
    array([0, 1, 1, 1])
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    joined = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.int64)
    if not count:
        return np.zeros(0, np.int64)
    graph = coo_array((np.ones(joined.shape[1], np.bool_), (joined[0], joined[1])), shape=(count, count))
    parts, part = connected_components(graph, directed=False)
    first = np.full(parts, count, np.int64)
    np.minimum.at(first, part, np.arange(count))
    return np.asarray(first[part], np.int64)


def _find_contacts(labels_yx: Int32, height_yx: npt.NDArray[np.uint8]) -> tuple[Int32, Int32, Int64, Int64]:
    """Return the two labels of all neighbouring pixels that differ and are no background.

    The other values are the larger height of the two, and their places in the flat array, ``(2, n)``.
    """
    columns = labels_yx.shape[1]
    found: list[tuple[Int32, Int32, Int64, Int64]] = []
    for step, lower in ((columns, (slice(1, None), slice(None))), (1, (slice(None), slice(1, None)))):
        upper = tuple(slice(None, -1) if part.start else part for part in lower)
        one_yx, other_yx = labels_yx[upper], labels_yx[lower]
        y, x = np.nonzero((one_yx != other_yx) & (one_yx != 0) & (other_yx != 0))
        walls = np.maximum(height_yx[upper][y, x], height_yx[lower][y, x]).astype(np.int64)
        places = y * columns + x
        found.append((one_yx[y, x], other_yx[y, x], walls, np.stack([places, places + step])))
    (first, second, walls, places), (other_first, other_second, other_walls, other_places) = found
    return (
        np.concatenate([first, other_first]),
        np.concatenate([second, other_second]),
        np.concatenate([walls, other_walls]),
        np.concatenate([places, other_places], axis=1),
    )
