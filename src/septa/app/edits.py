"""Edits of object labels: each finds the pixels that change, and their new ids."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.kernels import label_mask

Int32 = NDArray[np.int32]
Mask = NDArray[np.bool_]
Points = Sequence[tuple[float, float]]
"""Points (x, y) in pixels of the image; the centre of the first pixel is (0.5, 0.5)."""


@dataclass(frozen=True)
class Part:
    """A part of an image: first row and column, and the ones after the last."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def index(self) -> tuple[slice, slice]:
        """Index of the part in an array ``YX``."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


class Change:
    """A change of some pixels of a label array, which can be undone and done again.

    Parameters
    ----------
    box
        Part of the array that changes.
    before_yx, after_yx
        Labels of the part, int32; kept compressed.
    """

    def __init__(self, box: Part, before_yx: Int32, after_yx: Int32) -> None:
        self.box = box
        self._shape = before_yx.shape
        self._before, self._after = (zlib.compress(part.tobytes(), 1) for part in (before_yx, after_yx))

    def apply(self, labels_yx: Int32) -> None:
        """Write the new labels into an array."""
        labels_yx[self.box.index] = self._unpack(self._after)

    def revert(self, labels_yx: Int32) -> None:
        """Write the old labels into an array."""
        labels_yx[self.box.index] = self._unpack(self._before)

    def join(self, later: Change) -> Change:
        """Return the change from before this one to after a later one of the same part."""
        return Change(self.box, self._unpack(self._before), later._unpack(later._after))

    def compare(self) -> tuple[Int32, Int32]:
        """Return the labels of the part before and after the change."""
        return self._unpack(self._before), self._unpack(self._after)

    def _unpack(self, data: bytes) -> Int32:
        return np.frombuffer(zlib.decompress(data), np.int32).reshape(self._shape)


def make_change(labels_yx: Int32, box: Part, after_yx: Int32) -> Change | None:
    """Return the change of a part to new labels, cut to what differs; None if nothing does."""
    before_yx = labels_yx[box.index]
    differs_yx = before_yx != after_yx
    rows, columns = np.flatnonzero(differs_yx.any(1)), np.flatnonzero(differs_yx.any(0))
    if not rows.size:
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    inner = slice(top, bottom), slice(left, right)
    cut = Part(*(int(edge) for edge in (box.top + top, box.left + left, box.top + bottom, box.left + right)))
    return Change(cut, before_yx[inner], after_yx[inner])


def draw_stroke(shape_yx: tuple[int, int], points: Points, radius: float) -> tuple[Part, Mask]:
    """Return the pixels of a stroke with a round brush, as a part of the image and a mask of it.

    Examples
    --------
    >>> draw_stroke((5, 5), [(1.5, 1.5), (3.5, 1.5)], 0.5)
    (Part(top=1, left=1, bottom=2, right=4), array([[ True,  True,  True]]))
    """
    box = _bound(shape_yx, points, radius)
    margin = int(radius) + 2  # a stroke beyond the image can reach into it
    corner = np.array([box.left - margin, box.top - margin])
    size = box.bottom - box.top + 2 * margin, box.right - box.left + 2 * margin
    places = np.clip(np.floor(points) - corner, 0, (size[1] - 1, size[0] - 1)).astype(int)
    away_yx = np.ones(size, np.uint8)
    for begin, end in pairwise([places[0], *places]):
        cv2.line(away_yx, begin.tolist(), end.tolist(), 0)
    near_yx = away_yx == 0
    if radius >= 1:
        near_yx = np.asarray(cv2.distanceTransform(away_yx, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)) < radius - 0.499
    return _trim(box, near_yx[margin:-margin, margin:-margin])


def draw_polygon(shape_yx: tuple[int, int], points: Points) -> tuple[Part, Mask]:
    """Return the pixels of a closed polygon, its outline included.

    Raises
    ------
    InputError
        There are fewer than three points.
    """
    if len(points) < 3:
        raise InputError("", "a polygon needs at least 3 corners", "Click more corners, then close the polygon")
    box = _bound(shape_yx, points, 1)
    canvas_yx = np.zeros((box.bottom - box.top, box.right - box.left), np.uint8)
    corners = np.array([[int(np.floor(x)) - box.left, int(np.floor(y)) - box.top] for x, y in points], np.int32)
    cv2.fillPoly(canvas_yx, [corners], 1)
    return _trim(box, canvas_yx.astype(bool))


def paint(labels_yx: Int32, box: Part, mask_yx: Mask, label: int, *, over: bool) -> Change | None:
    """Give pixels to an object; pixels of other objects only if ``over`` is True."""
    part_yx = labels_yx[box.index]
    return make_change(labels_yx, box, np.where(mask_yx & (over | (part_yx == 0)), np.int32(label), part_yx))


def erase(labels_yx: Int32, box: Part, mask_yx: Mask, label: int | None) -> Change | None:
    """Turn pixels to background; only those of one object if ``label`` is given."""
    part_yx = labels_yx[box.index]
    erased_yx = mask_yx if label is None else mask_yx & (part_yx == label)
    return make_change(labels_yx, box, np.where(erased_yx, np.int32(0), part_yx))


def delete(labels_yx: Int32, label: int) -> Change | None:
    """Remove an object."""
    return merge(labels_yx, label, 0)


def merge(labels_yx: Int32, label: int, into: int) -> Change | None:
    """Give all pixels of an object to another one."""
    box, part_yx = _find_object(labels_yx, label)
    return make_change(labels_yx, box, np.where(part_yx == label, np.int32(into), part_yx))


def fill(labels_yx: Int32, point: tuple[float, float]) -> Change | None:
    """Fill the hole at a point, or all holes of the object at the point.

    A hole is a 4-connected region of background that touches one object and no edge of the image.

    Raises
    ------
    InputError
        The region of background at the point is not enclosed by one object.
    """
    y, x = locate(labels_yx, point)
    label = int(labels_yx[y, x])
    if label:
        box, part_yx = _find_object(labels_yx, label)
        around_yx = np.pad(part_yx != label, 1, constant_values=True)
        outside_yx = label_mask(around_yx)
        inside_yx = (outside_yx != outside_yx[0, 0])[1:-1, 1:-1]
        return make_change(labels_yx, box, np.where(inside_yx & (part_yx == 0), np.int32(label), part_yx))
    regions_yx = label_mask(labels_yx == 0)
    hole_yx = regions_yx == regions_yx[y, x]
    at_edge = hole_yx[0].any() or hole_yx[-1].any() or hole_yx[:, 0].any() or hole_yx[:, -1].any()
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    rim_yx = np.asarray(cv2.dilate(hole_yx.view(np.uint8), cross)).astype(bool) & ~hole_yx
    owners = np.unique(labels_yx[rim_yx])
    if at_edge or len(owners) != 1:
        problem = "this background is not enclosed by one object"
        raise InputError("", problem, "Click a hole inside an object, or the object itself")
    box = Part(0, 0, *labels_yx.shape)
    return make_change(labels_yx, box, np.where(hole_yx, owners[0], labels_yx))


def split(labels_yx: Int32, points: Points, first_new: int) -> Change | None:
    """Cut the objects that a line crosses; the largest part of each keeps its id, the others get new ones.

    The pixels of the line go to the part that they touch, so that no gap is left.

    Raises
    ------
    InputError
        The line cuts no object in two.
    """
    box, line_yx = draw_stroke((labels_yx.shape[0], labels_yx.shape[1]), points, 0.5)
    after_yx = labels_yx.copy()
    new, whole = first_new, Part(0, 0, *labels_yx.shape)
    for label in np.unique(labels_yx[box.index][line_yx]):
        if label == 0:
            continue
        own_yx = labels_yx == label
        cut_yx = own_yx.copy()
        cut_yx[box.index] &= ~line_yx
        parts_yx, before = label_mask(cut_yx), int(label_mask(own_yx).max())
        sizes = np.bincount(parts_yx.ravel())[1:]
        if len(sizes) <= before:
            continue
        for part in np.argsort(-sizes, kind="stable")[1:] + 1:
            after_yx[parts_yx == part] = new
            new += 1
        _share_line(after_yx, own_yx & ~cut_yx, own_yx)
    if new == first_new:
        raise InputError("", "the line cuts no object in two", "Draw it across an object, from outside to outside")
    return make_change(labels_yx, whole, after_yx)


def _share_line(labels_yx: Int32, line_yx: Mask, own_yx: Mask) -> None:
    """Give each pixel of a cut the highest id among its neighbours inside the object, in place."""
    padded_yx = np.pad(np.where(own_yx & ~line_yx, labels_yx, 0), 1)
    for y, x in np.argwhere(line_yx):
        found = int(padded_yx[y : y + 3, x : x + 3].max())
        labels_yx[y, x] = found or labels_yx[y, x]


def locate(labels_yx: Int32, point: tuple[float, float]) -> tuple[int, int]:
    """Return the row and column of the pixel at a point.

    Raises
    ------
    InputError
        The point lies outside the image.
    """
    x, y = int(np.floor(point[0])), int(np.floor(point[1]))
    if not (0 <= y < labels_yx.shape[0] and 0 <= x < labels_yx.shape[1]):
        raise InputError("", "the point lies outside the image", "Choose a point inside it")
    return y, x


def _find_object(labels_yx: Int32, label: int) -> tuple[Part, Int32]:
    """Return the bounding box of an object, and the labels in it."""
    own_yx = labels_yx == label
    rows, columns = np.flatnonzero(own_yx.any(1)), np.flatnonzero(own_yx.any(0))
    if label <= 0 or not rows.size:
        raise InputError("", f"there is no object {label}", "Select an object that the image shows")
    box = Part(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return box, labels_yx[box.index]


def _bound(shape_yx: tuple[int, int], points: Points, radius: float) -> Part:
    """Return the part of an image that a stroke can touch.

    Raises
    ------
    InputError
        It lies outside the image.
    """
    (left, top), (right, bottom) = np.floor(np.min(points, 0) - radius - 1), np.ceil(np.max(points, 0) + radius + 1)
    height, width = shape_yx
    box = Part(max(0, int(top)), max(0, int(left)), min(height, int(bottom)), min(width, int(right)))
    if box.top >= box.bottom or box.left >= box.right:
        raise InputError("", "the stroke lies outside the image", "Draw inside the image")
    return box


def _trim(box: Part, mask_yx: Mask) -> tuple[Part, Mask]:
    """Cut a part of an image to the pixels of its mask."""
    rows, columns = np.flatnonzero(mask_yx.any(1)), np.flatnonzero(mask_yx.any(0))
    if not rows.size:
        raise InputError("", "the stroke lies outside the image", "Draw inside the image")
    inner = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    edges = box.top + rows[0], box.left + columns[0], box.top + rows[-1] + 1, box.left + columns[-1] + 1
    return Part(*map(int, edges)), mask_yx[inner]
