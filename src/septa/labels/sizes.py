"""The typical size of objects, and what it changes in the segmentation of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MOST_REDUCED = 8
"""Largest factor by which an image is reduced."""


@dataclass(frozen=True)
class ImageScale:
    """Changes in the segmentation of an image that follow from the size of its objects.

    Attributes
    ----------
    reduction
        Factor by which the image is reduced; 1/2 enlarges it.
    least_pixels
        Smallest size of an object, pixels of the whole image, unless the decoding has a larger one.
    join_pixels
        Area below which touching parts are one object if no deep rim divides them, pixels of the whole image, unless
        the decoding has a larger one; 0 joins none.
    """

    reduction: float = 1
    least_pixels: int = 1
    join_pixels: int = 0


def find_typical_diameter(areas: npt.ArrayLike) -> float | None:
    """Return the diameter of a disc of the area that is typical of some objects, in pixels; None without objects.

    Half of the area of the objects belongs to those that are larger, so specks hardly count.

    Parameters
    ----------
    areas
        Areas of the objects, pixels.

    Examples
    --------
    >>> round(find_typical_diameter([1, 1, 1, 1, 78.5]), 2)
    10.0
    """
    ordered = np.sort(np.asarray(areas, np.float64))
    ordered = ordered[ordered > 0]
    if not ordered.size:
        return None
    middle = int(np.searchsorted(np.cumsum(ordered), ordered.sum() / 2))
    return float(np.sqrt(4 / np.pi * ordered[middle]))


def choose_reduction(diameter: float, largest: float) -> int:
    """Return the power of two by which an image is reduced so that its objects are smaller than ``largest``, at most 8.

    Parameters
    ----------
    diameter
        Typical diameter of the objects, pixels.
    largest
        Diameter that they must not reach, pixels.

    Examples
    --------
    >>> [choose_reduction(diameter, 24) for diameter in (23, 24, 47, 48, 1000)]
    [1, 2, 2, 4, 8]
    """
    reduction = 1
    while reduction < MOST_REDUCED and diameter >= largest * reduction:
        reduction *= 2
    return reduction
