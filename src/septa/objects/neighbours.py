"""Neighbours of objects: which ones touch, how far the nearest is, and which background lies nearest to each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel
from septa.objects.runs import Array, Integers, Reals

Objects = npt.NDArray[np.int32]
"""Index of each pixel's object, ``YX``; -1 for background, -2 for pixels that are neither."""

RING = (2, 10)
"""Distance in pixels beyond which background counts as local, and up to which it does."""


def count_touching(objects_yx: Objects, count: int) -> Integers:
    """Count the other objects of which a pixel has a side or a corner in common with one of the object."""
    pairs = []
    for one, other in (
        (objects_yx[:, 1:], objects_yx[:, :-1]),
        (objects_yx[1:], objects_yx[:-1]),
        (objects_yx[1:, 1:], objects_yx[:-1, :-1]),
        (objects_yx[1:, :-1], objects_yx[:-1, 1:]),
    ):
        touching = (one != other) & (one >= 0) & (other >= 0)
        low, high = np.minimum(one[touching], other[touching]), np.maximum(one[touching], other[touching])
        pairs.append(np.unique(low.astype(np.int64) * count + high))
    low, high = np.divmod(np.unique(np.concatenate(pairs)), max(count, 1))
    touched: Integers = np.bincount(low, minlength=count) + np.bincount(high, minlength=count)
    return touched


def find_nearest_centroids(y: Array, x: Array) -> Reals:
    """Return the distance from each centroid to the nearest other one; NaN if there is none."""
    from scipy.spatial import cKDTree

    if y.size < 2:
        return np.full(y.size, np.nan)
    points = np.stack([y, x], axis=1)
    distances, _ = cKDTree(points).query(points, k=2)
    nearest: Reals = distances[:, 1]
    return nearest


@dataclass(frozen=True, eq=False)
class ColumnNeighbours:
    """Object pixels that are nearest within columns, from which the nearest in the image are found.

    Attributes
    ----------
    objects_yx
        Index of each pixel's object.
    first_yx, second_yx
        int32: row of the nearest object pixel in the same column, which may be the pixel itself, and row of the nearest
        one of another object than that; -1 without one.
    """

    objects_yx: Objects
    first_yx: Objects
    second_yx: Objects

    @classmethod
    def find(cls, objects_yx: Objects) -> ColumnNeighbours:
        """Find the neighbours of all pixels."""
        return cls(objects_yx, *_find_in_columns(objects_yx))

    def measure_gaps(self, count: int, y_um: float = 1.0, x_um: float = 1.0) -> Reals:
        """Return the least distance from the centre of a pixel of each object to that of another; NaN without one."""
        squares = np.full(count, np.inf)
        if count > 1:
            _measure_gaps(self.objects_yx, self.first_yx, self.second_yx, y_um, x_um, squares)
        return np.sqrt(np.where(np.isinf(squares), np.nan, squares))

    def find_rings(self) -> Objects:
        """Assign background near objects to the nearest one.

        Returns
        -------
        ndarray
            int32 ``YX``: index of the nearest object for background pixels whose distance to it is within `RING`; -1
            elsewhere, and where several are equally near.
        """
        owners_yx = np.full(self.objects_yx.shape, -1, np.int32)
        _assign_rings(self.objects_yx, self.first_yx, self.second_yx, *RING, owners_yx)
        return owners_yx


@Kernel
def _find_in_columns(objects: Objects) -> tuple[Objects, Objects]:
    """See `ColumnNeighbours`."""
    height, width = objects.shape
    first, second = np.full((height, width), -1, np.int32), np.full((height, width), -1, np.int32)
    for way in (1, -1):
        nearest, other = np.full(width, -1, np.int32), np.full(width, -1, np.int32)  # of the rows passed so far
        for step in range(height):
            y = step if way == 1 else height - 1 - step
            for x in range(width):
                if objects[y, x] >= 0:
                    if nearest[x] >= 0 and objects[nearest[x], x] != objects[y, x]:
                        other[x] = nearest[x]
                    nearest[x] = y
                one, two, near, far = first[y, x], second[y, x], nearest[x], other[x]
                if one < 0 or (near >= 0 and abs(near - y) < abs(one - y)):
                    one, two, near, far = near, far, one, two
                if one < 0:
                    continue
                if near < 0 or objects[near, x] == objects[one, x]:
                    near = far
                if two < 0 or (near >= 0 and abs(near - y) < abs(two - y)):
                    two = near
                first[y, x], second[y, x] = one, two
    return first, second


@Kernel
def _measure_gaps(
    objects: Objects,
    first: Objects,
    second: Objects,
    y_size: float,
    x_size: float,
    squares: Reals,
) -> None:
    """Lower the squared distance of each object to the nearest pixel of another one, column after column."""
    height, width = objects.shape
    for y in range(height):
        for x in range(width):
            own = objects[y, x]
            if own < 0 or (
                0 < y < height - 1
                and 0 < x < width - 1
                and objects[y - 1, x] == own
                and objects[y + 1, x] == own
                and objects[y, x - 1] == own
                and objects[y, x + 1] == own
            ):
                continue
            for step in range(width):
                across = (step * x_size) ** 2
                if across >= squares[own] or (x - step < 0 and x + step >= width):
                    break
                for column in (x - step, x + step):
                    if not 0 <= column < width:
                        continue
                    for row in (first[y, column], second[y, column]):
                        if row >= 0 and objects[row, column] != own:
                            squares[own] = min(squares[own], across + ((row - y) * y_size) ** 2)


@Kernel
def _assign_rings(
    objects: Objects,
    first: Objects,
    second: Objects,
    beyond: int,
    within: int,
    owners: Objects,
) -> None:
    height, width = objects.shape
    for y in range(height):
        for x in range(width):
            if objects[y, x] != -1:
                continue
            best, owner = within * within + 1, -1
            for column in range(max(0, x - within), min(width, x + within + 1)):
                for row in (first[y, column], second[y, column]):
                    if row < 0:
                        continue
                    square = (column - x) ** 2 + (row - y) ** 2
                    near = objects[row, column]
                    if square < best:
                        best, owner = square, near
                    elif square == best and near != owner:
                        owner = -1
            if beyond * beyond < best <= within * within:
                owners[y, x] = owner
