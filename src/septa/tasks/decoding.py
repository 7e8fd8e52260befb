"""From maps of foreground and of the inside of objects to objects with an id each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel, label_mask
from septa.tasks.watershed import Sides, watershed

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Decoding:
    """The few numbers by which objects are found; tuned on the validation images after a training.

    Attributes
    ----------
    foreground
        Foreground probability above which a pixel belongs to some object, 0 to 1.
    seed
        Value of the inner map above which a pixel is a seed, 0 to 1; each 4-connected region of them is one object.
    least_pixels
        Smaller objects are dropped.
    reach
        How far an object may extend from its seed, in rows and in columns; 0: any distance. With a reach, what an
        object is does not depend on anything far away, so that images of any size can be decoded in parts.

    Raises
    ------
    ValueError
        A number is out of its range.
    """

    foreground: float = 0.5
    seed: float = 0.5
    least_pixels: int = 1
    reach: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.foreground < 1 and 0 < self.seed < 1 and self.least_pixels >= 1 and self.reach >= 0):
            raise ValueError(f"thresholds lie between 0 and 1, least_pixels >= 1, reach >= 0, got {self}")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Decoding:
        """What `to_json` wrote; ValueError where it does not fit."""
        try:
            whole = int(values["least_pixels"]), int(values.get("reach", 0))
            return cls(float(values["foreground"]), float(values["seed"]), *whole)
        except (KeyError, TypeError) as error:
            raise ValueError(f"decoding: {type(error).__name__} {error}") from None


def find_objects(foreground_yx: Float32, inner_yx: Float32, decoding: Decoding) -> Int32:
    """Find the objects of one image.

    Seeds are the regions where the inner map is high; they grow by a watershed over it to all of the foreground that
    they reach. Foreground that no seed reaches is an object of its own, so that none is lost for being thin. Holes that
    lie in one object are filled, and small objects dropped.

    Parameters
    ----------
    foreground_yx
        Probability that a pixel belongs to some object, float32 YX in [0, 1].
    inner_yx
        High inside objects and low at their rims, float32 YX in [0, 1].
    decoding
        Thresholds.

    Returns
    -------
    ndarray
        int32 YX: 0 is background, objects are 1..n.

    Examples
    --------
    >>> foreground_yx = np.array([[0, 1, 1, 1, 1, 1, 0]], np.float32)
    >>> inner_yx = np.array([[0, 0.2, 0.9, 0.1, 0.9, 0.2, 0]], np.float32)
    >>> find_objects(foreground_yx, inner_yx, Decoding())
    array([[0, 1, 1, 1, 2, 2, 0]], dtype=int32)
    """
    return keep_large(fill_holes(grow_objects(foreground_yx, inner_yx, decoding)), decoding.least_pixels)


def grow_objects(
    foreground_yx: Float32, inner_yx: Float32, decoding: Decoding, open_sides: Sides = (False, False, False, False)
) -> Int32:
    """Objects of an image, or of a window of one, before their holes are filled and small ones dropped.

    Parameters
    ----------
    foreground_yx, inner_yx, decoding
        As for `find_objects`.
    open_sides
        Whether the image goes on beyond the top, bottom, left and right side of the window.

    Returns
    -------
    ndarray
        int32 YX: 0 is background, others are ids with gaps; `UNCERTAIN` where what lies beyond the open sides
        matters. Pixels of one id are of one object in the whole image; those of two ids are so only where they are
        connected beyond the window.
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
    return labels_yx


def _find_reachable(seeds_yx: Int32, reach: int, open_sides: Sides) -> tuple[Mask, Mask | None]:
    """Pixels that a seed may reach, and those among them of which that depends on seeds beyond the open sides."""
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
    """Pixels at most so many rows and so many columns from one of the mask."""
    side = 2 * reach + 1
    grown = mask_yx.view(np.uint8)
    for shape in ((side, 1), (1, side)):
        grown = np.asarray(cv2.dilate(grown, np.ones(shape, np.uint8), borderValue=0), np.uint8)
    return grown.view(bool)


def fill_holes(labels_yx: Int32) -> Int32:
    """Give each 4-connected region of background that one object surrounds to that object; at edges there are no holes.

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
    """The lowest and the highest id among the objects that each region of background touches.

    Parameters
    ----------
    labels_yx
        int32 YX, objects are above 0.
    regions_yx
        int32 YX, regions 1..n, 0 elsewhere.

    Returns
    -------
    tuple
        Two int32 arrays of length n + 1; where a region touches none, the highest is 0 and the lowest the highest
        int32.

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
    """Drop objects of fewer pixels and number the others 1..n in their order.

    Examples
    --------
    >>> keep_large(np.array([[3, 3, 0, 9]], np.int32), 2)
    array([[1, 1, 0, 0]], dtype=int32)
    """
    sizes = np.bincount(labels_yx.reshape(-1), minlength=1)
    sizes[0] = 0
    kept = sizes >= least_pixels
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels_yx]
