"""Convex hulls of objects, and their Feret diameters.

As in scikit-image, a pixel is the square on its tip whose corners are the middles of the pixel's sides. The hull of an
object is the set of pixels whose centres lie in the convex hull of all these corners, or on its edge.

Coordinates are doubled in the kernels, so they are integers (v, u): pixel (y, x) has the corners (2y, 2x - 1),
(2y, 2x + 1), (2y - 1, 2x) and (2y + 1, 2x). A side of an object is the chain of the vertices of its hull that have the
least u for each v, from the top to the bottom; on the right side u is negated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from septa.kernels import Kernel
from septa.objects.runs import Integers, Reals, Runs


@dataclass(frozen=True, eq=False)
class HullRows:
    """Rows of objects or of their hulls, all from the first to the last one of each object.

    Attributes
    ----------
    firsts
        Index of the first row of each object, and the number of all rows.
    lefts, rights
        First and last column of each row; the first is larger if a row holds no pixel.
    """

    firsts: Integers
    lefts: Integers
    rights: Integers

    @property
    def areas(self) -> Reals:
        """Number of pixels between the first and the last column of all rows of each object."""
        lengths = (self.rights - self.lefts + 1).astype(np.float64)
        return np.add.reduceat(lengths, self.firsts[:-1]) if lengths.size else lengths


def find_hulls(runs: Runs, width: int) -> HullRows:
    """Find the rows of the convex hull of each object."""
    rows = _find_rows(runs, width)
    if not rows.lefts.size:
        return rows
    objects = np.repeat(np.arange(rows.firsts.size - 1), np.diff(rows.firsts))
    v = 2 * (np.arange(rows.lefts.size) + objects)
    sides = []
    for sign in (1, -1):
        ends, heights, edges = _trace_sides(rows.firsts, rows.lefts, rows.rights, sign)
        # Numbered on from object to object, the heights of all vertices ascend.
        heights += np.repeat(2 * (rows.firsts[:-1] + np.arange(ends.size)), np.diff(ends, prepend=0))
        start = np.searchsorted(heights, v, side="right") - 1
        step = heights[start + 1] - heights[start]
        u = edges[start] * step + (edges[start + 1] - edges[start]) * (v - heights[start])
        sides.append(sign * -(-u // (2 * step)))
    return HullRows(rows.firsts, *sides)


def measure_ferets(hulls: HullRows, y_um: float = 1.0, x_um: float = 1.0) -> tuple[Reals, Reals]:
    """Return the largest and the least distance of parallel lines around the corners of all pixels of each hull.

    The largest is scikit-image's ``feret_diameter_max``. Pixels may have a size.
    """
    largest, least = np.zeros((2, hulls.firsts.size - 1))
    if largest.size:
        left, right = (_trace_sides(hulls.firsts, hulls.lefts, hulls.rights, sign) for sign in (1, -1))
        _measure_ferets(*left, *right, y_um / 2, x_um / 2, largest, least)
    return largest, least


def _find_rows(runs: Runs, width: int) -> HullRows:
    objects = runs.objects[runs.inside]
    rows, lefts = np.divmod(runs.starts[runs.inside], max(1, width))
    tops, bottoms = np.full(runs.ids.size, np.iinfo(np.int64).max), np.full(runs.ids.size, -1)
    np.minimum.at(tops, objects, rows)
    np.maximum.at(bottoms, objects, rows)
    firsts = np.append(0, np.cumsum(bottoms - tops + 1))
    places = firsts[objects] + rows - tops[objects]
    first, last = np.full(firsts[-1], width), np.full(firsts[-1], -1)
    np.minimum.at(first, places, lefts)
    np.maximum.at(last, places, lefts + runs.lengths[runs.inside] - 1)
    return HullRows(firsts, first, last)


@Kernel
def _trace_sides(firsts: Integers, lefts: Integers, rights: Integers, sign: int) -> tuple[Integers, Integers, Integers]:
    """Trace the left side of each object, or for a sign of -1 the right one.

    Returns the index at which the vertices of each object end, and v, which is -1 above row 0 of the object, and u of
    all vertices.
    """
    ends = np.empty(firsts.size - 1, np.int64)
    heights = np.empty(2 * firsts[-1] + ends.size, np.int64)
    edges = np.empty_like(heights)
    size = 0
    for k in range(ends.size):
        begin, count = size, firsts[k + 1] - firsts[k]
        for v in range(-1, 2 * count):
            found, u = False, 0
            for row in (v // 2, (v + 1) // 2):  # one row or two have corners at v
                near = firsts[k] + row
                if 0 <= row < count and lefts[near] <= rights[near]:
                    corner = 2 * sign * (lefts[near] if sign == 1 else rights[near]) - (1 - v % 2)
                    u = min(u, corner) if found else corner
                    found = True
            if not found:
                continue
            while size - begin >= 2 and (heights[size - 1] - heights[size - 2]) * (u - edges[size - 2]) <= (
                edges[size - 1] - edges[size - 2]
            ) * (v - heights[size - 2]):
                size -= 1
            heights[size], edges[size] = v, u
            size += 1
        ends[k] = size
    return ends, heights[:size], edges[:size]


@Kernel
def _measure_ferets(
    left_ends: Integers,
    left_heights: Integers,
    left_edges: Integers,
    right_ends: Integers,
    right_heights: Integers,
    right_edges: Integers,
    y_size: float,
    x_size: float,
    largest: Reals,
    least: Reals,
) -> None:
    """Compare all vertices of each hull, of which there are few, with each other and with all its edges."""
    longest = 0
    for k in range(largest.size):
        before_left, before_right = (left_ends[k - 1], right_ends[k - 1]) if k else (0, 0)
        longest = max(longest, left_ends[k] - before_left + right_ends[k] - before_right)
    y, x = np.empty(longest), np.empty(longest)
    for k in range(largest.size):
        size = 0
        for place in range(left_ends[k - 1] if k else 0, left_ends[k]):
            y[size], x[size] = y_size * left_heights[place], x_size * left_edges[place]
            size += 1
        for place in range(right_ends[k] - 1, (right_ends[k - 1] if k else 0) - 1, -1):
            y[size], x[size] = y_size * right_heights[place], -x_size * right_edges[place]
            size += 1
        longest_squared, least[k] = 0.0, np.inf
        for one in range(size):
            other = (one + 1) % size
            edge_y, edge_x, widest = y[other] - y[one], x[other] - x[one], 0.0
            for third in range(size):
                dy, dx = y[third] - y[one], x[third] - x[one]
                longest_squared = max(longest_squared, dy * dy + dx * dx)
                widest = max(widest, abs(dy * edge_x - dx * edge_y))
            length = np.sqrt(edge_y * edge_y + edge_x * edge_x)
            if length > 0:
                least[k] = min(least[k], widest / length)
        largest[k] = np.sqrt(longest_squared)
