"""The measure of walls: whether a class of the labels is thin walls that divide many regions of the other class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from septa.errors import format_count
from septa.kernels import label_mask
from septa.labels import LabelMapping
from septa.recipe import IGNORE

_THIN = 1 / 4
"""Largest width of a wall, as a part of the diameter of the region in which a pixel of a region lies on average."""
_LEAST_WIDTH = 3.0
"""Width in pixels up to which a wall is thin between regions of any size."""
_LEAST_BETWEEN = 0.7
"""Least share of the walls' pixels that lie between two regions: 0.98 for the membranes of ISBI 2012, and 0.15 for what
lies between the glands of GlaS."""
_LEAST_REGIONS = 4.0
"""Least effective number of regions per image, on average. It is 28 for the interiors of ISBI 2012, and 1.0 to 1.2 for
what surrounds nuclei or glands."""
_LEAST_OF_IMAGE = 2.0
"""The same for a single image, below which nothing else is measured."""
_SIDE = 2048
"""Largest side in pixels of the middle of an image, which is measured."""


@dataclass(frozen=True, kw_only=True)
class Walls:
    """One class of an image as walls between the 4-connected regions of the other class.

    Attributes
    ----------
    pixels
        Number of pixels of the class.
    between
        Number of these pixels that lie where two different regions are near each other.
    regions
        Effective number of the regions: the number of regions of equal size for which two random pixels would lie in
        the same one as often. It is near 1 if one region has nearly all pixels.
    region_pixels
        Number of pixels of the regions.
    width
        Median distance between two regions where they are near each other, pixels; 0 if they are nowhere.
    """

    pixels: int
    between: int
    regions: float
    region_pixels: int
    width: float


@dataclass(frozen=True)
class WallFacts:
    """The class that is thin walls in a whole dataset.

    Attributes
    ----------
    wall_class
        Index of the class, 0 or 1.
    width
        Median width of the walls, pixels.
    between
        Share of its pixels that lie between two regions of the other class, 0 to 1.
    """

    wall_class: int
    width: float
    between: float


def measure_walls(labels_yx: npt.NDArray[Any]) -> tuple[Walls, Walls]:
    """Measure class 0, and class 1, as walls between the regions of the other.

    Two regions are near each other where they are at most a quarter of the typical diameter apart: the diameter of a
    disc with the area of the region in which a pixel lies on average. Of a large image, the middle is measured.

    Parameters
    ----------
    labels_yx
        Labels 0 and 1, integer ``YX``; `IGNORE` for ignored pixels, which are in no region and no wall.

    Examples
    --------
    >>> labels_yx = np.ones((41, 41), np.int32)
    >>> labels_yx[20] = labels_yx[:, 20] = 0
    >>> measure_walls(labels_yx)[0]
    Walls(pixels=81, between=81, regions=4.0, region_pixels=1600, width=1.0)
    """
    top, left = (max(0, side - _SIDE) // 2 for side in labels_yx.shape)
    middle_yx = labels_yx[top : top + _SIDE, left : left + _SIDE]
    return _measure_class(middle_yx, 0), _measure_class(middle_yx, 1)


def _measure_class(labels_yx: npt.NDArray[Any], wall_class: int) -> Walls:
    walls_yx = labels_yx == wall_class
    regions_yx = label_mask(~walls_yx & (labels_yx != IGNORE))
    areas = np.bincount(regions_yx.ravel())[1:].astype(np.float64)
    pixels, region_pixels = int(np.count_nonzero(walls_yx)), int(areas.sum())
    regions = float(region_pixels**2 / (areas**2).sum()) if areas.size else 0.0
    nothing = Walls(pixels=pixels, between=0, regions=regions, region_pixels=region_pixels, width=0.0)
    if regions < _LEAST_OF_IMAGE or pixels > region_pixels:
        return nothing
    reach = max(_LEAST_WIDTH, _THIN * 2 * np.sqrt(region_pixels / regions / np.pi)) / 2
    # A wall runs along the lines on which the nearest region changes; it is as wide as these are far from the regions.
    away_yx, nearest_yx = _find_nearest(regions_yx)
    centre_yx = _mark_changes(nearest_yx) & (away_yx <= reach)
    if not centre_yx.any():
        return nothing
    beside_yx = cv2.distanceTransform((~centre_yx).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    between = int(np.count_nonzero(walls_yx & (beside_yx <= reach)))
    width = float(2 * np.median(away_yx[centre_yx & (away_yx > 0)]) - 1)
    return replace(nothing, between=between, width=width)


def find_walls(images: Sequence[tuple[Walls, ...]]) -> WallFacts | None:
    """Find the class that is thin walls between many regions in a whole dataset.

    Nearly all its pixels lie between different regions, and the regions have at least half of all pixels.

    Parameters
    ----------
    images
        Result of `measure_walls` for each image; empty for an image without labels, or with other classes.
    """
    for wall_class, walls in enumerate(zip(*filter(None, images), strict=True)):
        pixels, region_pixels = sum(own.pixels for own in walls), sum(own.region_pixels for own in walls)
        between = sum(own.between for own in walls)
        many = np.mean([own.regions for own in walls]) >= _LEAST_REGIONS
        if many and pixels <= region_pixels and between >= max(1, _LEAST_BETWEEN * pixels):
            width = float(np.median([own.width for own in walls if own.between]))
            return WallFacts(wall_class, width, between / pixels)
    return None


def explain_walls(facts: WallFacts, class_names: Sequence[str]) -> str:
    """Describe the walls of a dataset in one clause.

    Examples
    --------
    >>> explain_walls(WallFacts(0, 4.8, 0.98), ("membrane", "interior"))
    'membrane is thin walls (about 5 pixels wide) between regions of interior'
    """
    walls, regions = class_names[facts.wall_class], class_names[1 - facts.wall_class]
    width = format_count(round(facts.width), "pixel")
    return f"{walls} is thin walls (about {width} wide) between regions of {regions}"


def note_walls(images: Sequence[tuple[Walls, ...]], mapping: LabelMapping, task: str) -> tuple[str, ...]:
    """Return the line about the walls of a dataset; none without walls, and none if objects are found."""
    facts = find_walls(images)
    if facts is None or "instances" in (mapping.task, task):
        return ()
    text = f"labels: {explain_walls(facts, mapping.class_names)}"
    if facts.wall_class == 0:
        return (f"{text}, and the threshold between them is tuned for these regions (semantic.walls)",)
    values = json.dumps(mapping.values[::-1], separators=(",", ":"))
    return (f"{text}; to tune the threshold for these regions, make the walls class 0 (--set data.values={values})",)


def _find_nearest(regions_yx: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return the distance of each pixel to the nearest region in pixels, and the number of this region."""
    outside_yx = (regions_yx == 0).astype(np.uint8)
    away_yx, nearest_yx = cv2.distanceTransformWithLabels(
        outside_yx, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    inside_yx = regions_yx > 0
    region_of_pixel = np.zeros(int(nearest_yx.max()) + 1, np.int32)
    region_of_pixel[nearest_yx[inside_yx]] = regions_yx[inside_yx]
    return np.asarray(away_yx, np.float32), region_of_pixel[nearest_yx]


def _mark_changes(values_yx: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Mark the pixels whose right, left, lower or upper neighbour has another value."""
    marked_yx = np.zeros(values_yx.shape, bool)
    across_yx, down_yx = values_yx[:, 1:] != values_yx[:, :-1], values_yx[1:] != values_yx[:-1]
    marked_yx[:, 1:] |= across_yx
    marked_yx[:, :-1] |= across_yx
    marked_yx[1:] |= down_yx
    marked_yx[:-1] |= down_yx
    return marked_yx
