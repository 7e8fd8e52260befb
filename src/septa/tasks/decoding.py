"""Decoding of objects: from maps of the foreground and of the inside of objects to one id per object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel, label_mask
from septa.tasks.joining import join_parts
from septa.tasks.watershed import UNCERTAIN, Sides, get_outer_lines, watershed

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


MOST_REACH = 1 << 16
"""Largest reach, in pixels; no object of a training is as far from its seed."""
MOST_PIXELS = 2**31 - 1


@dataclass(frozen=True)
class Decoding:
    """Thresholds by which objects are found; they are tuned on the validation images after a training.

    Regions between walls, which are classes of pixels, have the first two and the reach: pixels above ``seed`` are
    regions, which grow by at most the reach to pixels above ``foreground``.

    Attributes
    ----------
    foreground
        Probability of foreground above which a pixel belongs to an object, or to class 1 of two, in (0, 1).
    seed
        Value of the inner map above which a pixel is a seed, in (0, 1); each 4-connected region of seeds is one object.
    least_pixels
        Smallest size of an object, pixels; smaller ones are dropped.
    reach
        Largest distance of a pixel of an object from its seed, in rows and in columns; 0 for any distance. With a
        reach, an object does not depend on anything far away, so images of any size can be decoded in parts.
    close_seams
        True if the net was trained with seams of background between touching objects: the seams are given back to the
        objects, see `close_seams`.
    fill_holes
        True if holes inside one object are filled.
    join_pixels
        Area below which touching parts are one object if no deep rim divides them, pixels; 0 joins none. See
        `septa.tasks.joining`.

    Raises
    ------
    ValueError
        A number is out of its range.
    """

    foreground: float = 0.5
    seed: float = 0.5
    least_pixels: int = 1
    reach: int = 0
    close_seams: bool = False
    fill_holes: bool = True
    join_pixels: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        whole = 1 <= self.least_pixels <= MOST_PIXELS and 0 <= self.reach <= MOST_REACH
        whole &= 0 <= self.join_pixels <= MOST_PIXELS
        if not (0 < self.foreground < 1 and 0 < self.seed < 1 and whole):
            shares = "foreground and seed must be between 0 and 1"
            numbers = "least_pixels at least 1, reach 0 to 65536, join_pixels at least 0"
            raise ValueError(f"{shares}, {numbers}, got {self}")

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def enlarge(self, factor: float) -> Decoding:
        """Return the thresholds for objects that are larger by a factor, or smaller if it is below 1."""
        least = max(1, min(math.floor(self.least_pixels * factor**2), MOST_PIXELS))
        joined = min(math.floor(self.join_pixels * factor**2), MOST_PIXELS)
        reach = min(math.ceil(self.reach * factor), MOST_REACH)
        return replace(self, least_pixels=least, reach=reach, join_pixels=joined)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Decoding:
        """Build thresholds from the values of `to_json`; ValueError if they do not fit."""
        try:
            shares = values["foreground"], values["seed"]
            whole = values["least_pixels"], values.get("reach", 0), values.get("join_pixels", 0)
            flags = values.get("close_seams", False), values.get("fill_holes", True)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"decoding: {type(error).__name__} {error}") from None
        if any(type(value) not in (int, float) for value in (*shares, *whole)) or any(value % 1 for value in whole):
            raise ValueError(f"decoding: not the numbers of thresholds: {values!r}")
        if any(type(flag) is not bool for flag in flags):
            raise ValueError(f"decoding: close_seams and fill_holes must be true or false: {values!r}")
        return cls(float(shares[0]), float(shares[1]), int(whole[0]), int(whole[1]), *flags, int(whole[2]))


def find_objects(foreground_yx: Float32, inner_yx: Float32, decoding: Decoding) -> Int32:
    """Find the objects of one image.

    Seeds are the regions where the inner map is high. They grow by a watershed over this map to all foreground within
    reach. A foreground region without a seed is an object of its own, so that thin objects are not lost. Seams are
    closed, parts of one object joined and holes inside one object filled, if ``decoding`` says so, and small objects
    are dropped.

    Parameters
    ----------
    foreground_yx
        Probability that a pixel belongs to an object, float32 ``YX`` in [0, 1].
    inner_yx
        Map that is high inside objects and low at their rims, float32 ``YX`` in [0, 1].
    decoding
        Thresholds.

    Returns
    -------
    ndarray
        int32 ``YX``: 0 is background, objects are 1 to n.

    Examples
    --------
    >>> foreground_yx = np.array([[0, 1, 1, 1, 1, 1, 0]], np.float32)
    >>> inner_yx = np.array([[0, 0.2, 0.9, 0.1, 0.9, 0.2, 0]], np.float32)
    >>> find_objects(foreground_yx, inner_yx, Decoding())
    array([[0, 1, 1, 1, 2, 2, 0]], dtype=int32)
    """
    labels_yx = grow_objects(foreground_yx, inner_yx, decoding)
    return keep_large(fill_holes(labels_yx) if decoding.fill_holes else labels_yx, decoding.least_pixels)


def grow_objects(
    foreground_yx: Float32, inner_yx: Float32, decoding: Decoding, open_sides: Sides = (False, False, False, False)
) -> Int32:
    """Find the objects of an image or of a window of it, before holes are filled and small objects are dropped.

    Parameters
    ----------
    foreground_yx, inner_yx, decoding
        As for `find_objects`.
    open_sides
        True where the image continues beyond the top, bottom, left and right side of the window.

    Returns
    -------
    ndarray
        int32 ``YX``: 0 is background, other values are ids with gaps, and `UNCERTAIN` marks pixels that depend on what
        lies beyond the open sides. Pixels with one id belong to one object of the whole image. Pixels with two ids
        belong to one object only if they are connected beyond the window or at uncertain pixels.
    """
    mask_yx = foreground_yx > decoding.foreground
    seeds_yx = label_mask(mask_yx & (inner_yx > decoding.seed))
    height_yx = np.asarray(cv2.convertScaleAbs(inner_yx, alpha=-255.0, beta=255.0), np.uint8)
    near_yx, unsure_yx = _find_reachable(seeds_yx, decoding.reach, open_sides)
    labels_yx = watershed(height_yx, seeds_yx, mask_yx & near_yx, open_sides, unsure_yx)
    np.logical_and(mask_yx, labels_yx == 0, out=mask_yx)
    if mask_yx.any():
        alone_yx = label_mask(mask_yx)
        np.add(alone_yx, seeds_yx.max(initial=0), out=labels_yx, where=mask_yx)
    if decoding.close_seams:
        labels_yx = close_seams(labels_yx, open_sides)
    if decoding.join_pixels:
        labels_yx = join_parts(labels_yx, height_yx, decoding.seed, decoding.join_pixels, open_sides)
    return labels_yx


def close_seams(labels_yx: Int32, open_sides: Sides = (False, False, False, False)) -> Int32:
    """Give the thin lines of background between objects to the objects, as `cut_seams` took them.

    These are the pixels that a closing of the foreground by a cross of 3 x 3 pixels adds: those of lines of background
    one pixel wide. Each takes the id of the object at its left or above it, from which `cut_seams` took it, also if one
    more pixel of the seam lies between; else that of the object at its right or below.

    Parameters
    ----------
    labels_yx
        Objects of a window, int32 ``YX``, with `UNCERTAIN` where they depend on what lies beyond the open sides.
    open_sides
        As for `grow_objects`.

    Returns
    -------
    ndarray
        int32 ``YX``, a new array. A pixel does not depend on where an image is cut, or it is `UNCERTAIN`.

    Examples
    --------
    >>> close_seams(np.array([[7, 7, 0, 2, 2, 0, 0, 0, 5]], np.int32))
    array([[7, 7, 7, 2, 2, 0, 0, 0, 5]], dtype=int32)
    """
    mask_yx = labels_yx != 0
    background_yx = ~mask_yx
    some_yx = _close(mask_yx, open_sides, beyond=False) & background_yx
    most_yx = _close(mask_yx, open_sides, beyond=True) & background_yx if any(open_sides) else some_yx
    around_yx = np.pad(labels_yx, 1)
    for line, is_open in zip(get_outer_lines(around_yx), open_sides):
        line[:] = UNCERTAIN if is_open else 0
    around_yx[1:-1, 1:-1][most_yx & ~some_yx] = UNCERTAIN
    y, x = np.nonzero(some_yx)
    for sides in (((1, 0), (0, 1)), ((1, 0), (0, 1)), ((1, 2), (2, 1))):  # left and above, twice; right and below
        ids = np.zeros(y.size, np.int32)
        for down, right in ((1, 1), *sides):
            ids = np.where(ids == 0, around_yx[y + down, x + right], ids)
        around_yx[y + 1, x + 1] = ids
    return np.ascontiguousarray(around_yx[1:-1, 1:-1])


def _close(mask_yx: Mask, open_sides: Sides, *, beyond: bool) -> Mask:
    """Close a mask by a cross; beyond the open sides all pixels are ``beyond``, and beyond others there are none."""
    rows, columns = (
        np.concatenate([[first, first], np.ones(side, bool), [last, last]])
        for side, first, last in zip(mask_yx.shape, open_sides[::2], open_sides[1::2])
    )
    there_yx = rows[:, None] & columns
    wide_yx = there_yx & beyond
    wide_yx[2:-2, 2:-2] = mask_yx
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    grown_yx = np.asarray(cv2.dilate(wide_yx.view(np.uint8), cross), np.uint8)
    closed_yx = np.asarray(cv2.erode(grown_yx | ~there_yx, cross), np.uint8)
    return closed_yx[2:-2, 2:-2].view(bool)


def _find_reachable(seeds_yx: Int32, reach: int, open_sides: Sides) -> tuple[Mask, Mask | None]:
    """Find the pixels that a seed may reach, and those among them that only a seed beyond an open side may reach."""
    if not reach or not seeds_yx.size:
        return np.ones(seeds_yx.shape, bool), None
    near_yx = _dilate(seeds_yx > 0, reach)
    if not any(open_sides):
        return near_yx, None
    rows, columns = seeds_yx.shape
    band_yx = np.zeros(seeds_yx.shape, bool)
    for begin, end, line in ((0, reach, 0), (max(0, rows - reach), rows, 1)):
        band_yx[begin:end] |= open_sides[line]
    for begin, end, line in ((0, reach, 2), (max(0, columns - reach), columns, 3)):
        band_yx[:, begin:end] |= open_sides[line]
    unsure_yx = band_yx & ~near_yx
    return near_yx | unsure_yx, unsure_yx


def _dilate(mask_yx: Mask, reach: int) -> Mask:
    """Dilate a mask by a square: by ``reach`` rows and columns in each direction."""
    side = 2 * reach + 1
    grown = mask_yx.view(np.uint8)
    for shape in ((side, 1), (1, side)):
        grown = np.asarray(cv2.dilate(grown, np.ones(shape, np.uint8), borderValue=0), np.uint8)
    return grown.view(bool)


def fill_holes(labels_yx: Int32) -> Int32:
    """Fill the holes of objects: 4-connected regions of background that touch one object and no edge of the image.

    Examples
    --------
    >>> fill_holes(np.array([[4, 4, 4], [4, 0, 4], [4, 4, 4]], np.int32))[1]
    array([4, 4, 4], dtype=int32)
    """
    if not labels_yx.size:
        return labels_yx
    regions_yx = label_mask(labels_yx == 0)
    low, high = find_owners(labels_yx, regions_yx)
    owner = np.where(low == high, high, 0)
    for edge in (regions_yx[0], regions_yx[-1], regions_yx[:, 0], regions_yx[:, -1]):
        owner[edge] = 0
    return np.where(labels_yx == 0, owner[regions_yx], labels_yx)


def find_owners(labels_yx: Int32, regions_yx: Int32) -> tuple[Int32, Int32]:
    """Find the lowest and the highest id among the objects that each region of background touches.

    Parameters
    ----------
    labels_yx
        Object ids, int32 ``YX``, above 0.
    regions_yx
        Regions of background, int32 ``YX``: 1 to n, 0 elsewhere.

    Returns
    -------
    low, high
        int32 of length n + 1, indexed by region. For a region that touches no object, ``high`` is 0 and ``low`` the
        largest int32.

    Examples
    --------
    >>> low, high = find_owners(np.array([[4, 0, 7, 0]], np.int32), np.array([[0, 1, 0, 2]], np.int32))
    >>> low[1:], high[1:]
    (array([4, 7], dtype=int32), array([7, 7], dtype=int32))
    """
    count = int(regions_yx.max(initial=0)) + 1
    low, high = np.full(count, np.iinfo(np.int32).max, np.int32), np.zeros(count, np.int32)
    _scan_owners(np.ascontiguousarray(labels_yx), np.ascontiguousarray(regions_yx), low, high)
    return low, high


@Kernel
def _scan_owners(labels_yx: Int32, regions_yx: Int32, low: Int32, high: Int32) -> None:
    rows, columns = labels_yx.shape
    for y in range(rows):
        for x in range(columns):
            label = labels_yx[y, x]
            if label <= 0:
                continue
            for row, column in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
                if 0 <= row < rows and 0 <= column < columns:
                    region = regions_yx[row, column]
                    if region > 0:
                        low[region] = min(low[region], label)
                        high[region] = max(high[region], label)


def keep_large(labels_yx: Int32, least_pixels: int) -> Int32:
    """Drop objects of fewer pixels, and renumber the others from 1 to n in the order of their ids.

    Examples
    --------
    >>> keep_large(np.array([[3, 3, 0, 9]], np.int32), 2)
    array([[1, 1, 0, 0]], dtype=int32)
    """
    sizes = np.bincount(labels_yx.reshape(-1), minlength=1)
    sizes[0] = 0
    kept = sizes >= least_pixels
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels_yx]
