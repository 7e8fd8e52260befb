"""Facts of the labels of one image: the pixels of each class, and the diameters and cores of objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from septa.losses import cut_seams
from septa.recipe import IGNORE

Array = npt.NDArray[Any]

_DIAMETERS = 200
"""Largest number of diameters that are kept."""
_COMPONENT_PIXELS = 2**26
"""Largest number of pixels whose regions are measured."""
_CORE_SIDE = 2048
"""Largest side of the part, in the middle of an image, whose cores are counted."""
CORE = 0.35
"""Depth from which on a pixel belongs to the core of its object, as a share of the largest depth of the object."""
_SPECK = 0.05
"""Share of the area of an object below which a piece of its core does not count."""


def take_every_nth(plane_yx: Array, pixels: int) -> Array:
    """Return a view of every n-th pixel in both axes, so that at most about ``pixels`` remain."""
    step = int(np.ceil(np.sqrt(max(1.0, plane_yx.size / pixels))))
    return plane_yx[::step, ::step]


def count_class_pixels(labels_yx: Array, classes: int, multilabel: bool) -> dict[int, int]:
    """Count the pixels of each class, or of each bit, and of `IGNORE`; ValueError if there are other labels."""
    low, high = int(labels_yx.min()), int(labels_yx.max())
    limit = 2**classes if multilabel else classes
    if low < IGNORE or high >= limit:
        raise ValueError(f"encoded labels must lie in {IGNORE}..{limit - 1}, got {low}..{high}")
    if multilabel:
        counts = {k: int(np.count_nonzero((labels_yx >> k) & (labels_yx >= 0))) for k in range(classes)}
        return counts | {IGNORE: int(np.count_nonzero(labels_yx == IGNORE))}
    found = np.bincount((labels_yx - IGNORE).ravel(), minlength=classes + 1)
    return {k: int(found[k + 1]) for k in range(classes)} | {IGNORE: int(found[0])}


def measure_diameters(labels_yx: Array, classes: int, multilabel: bool) -> tuple[float, ...]:
    """Measure the diameters of regions in pixels, ascending: those of discs of the same area."""
    thin_yx = take_every_nth(labels_yx, _COMPONENT_PIXELS)
    step = labels_yx.shape[0] / thin_yx.shape[0]
    areas = []
    for mask_yx in _split_foreground(thin_yx, classes, multilabel):
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask_yx, connectivity=8)
        areas.append(stats[1:, cv2.CC_STAT_AREA])
    if not areas:
        return ()
    diameters = np.sort(2 * step * np.sqrt(np.concatenate(areas) / np.pi))
    if diameters.size > _DIAMETERS:
        diameters = diameters[np.linspace(0, diameters.size - 1, _DIAMETERS).round().astype(int)]
    return tuple(diameters.tolist())


def _split_foreground(labels_yx: Array, classes: int, multilabel: bool) -> Iterator[npt.NDArray[np.uint8]]:
    for k in range(0 if multilabel else 1, classes):
        selected = ((labels_yx >> k) & (labels_yx >= 0)) if multilabel else labels_yx == k
        if selected.any():
            yield selected.astype(np.uint8)


def count_whole_cores(ids_yx: npt.NDArray[np.int32]) -> tuple[int, int]:
    """Count objects, and those whose core is one piece.

    The depth of a pixel is its distance from the nearest pixel outside its object. The core is what is deeper than
    `CORE` times the largest depth. Round and long objects keep one core; branched and waisted ones have several.

    Parameters
    ----------
    ids_yx
        Instance ids, int32 ``YX``; up to 0 is no object. Of large images the middle is looked at.

    Returns
    -------
    objects, whole
        Number of objects, and of those whose core is one piece; pieces of less than 5 % of the object do not count.
    """
    top, left = (max(0, (side - _CORE_SIDE) // 2) for side in ids_yx.shape)
    ids_yx = ids_yx[top : top + _CORE_SIDE, left : left + _CORE_SIDE]
    ids, places = np.unique(np.maximum(ids_yx, 0), return_inverse=True)
    places_yx = places.reshape(ids_yx.shape) + (ids[0] > 0)  # 0 is no object
    inside_yx = (cut_seams(places_yx) > 0).astype(np.uint8)  # as in the encoding ``border``
    depth_yx = cv2.distanceTransform(inside_yx, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    largest = np.zeros(places_yx.max(initial=0) + 1, np.float32)
    np.maximum.at(largest, places_yx, depth_yx)
    core_yx = (inside_yx > 0) & (depth_yx > np.float32(CORE) * largest[places_yx])
    areas = np.bincount(places_yx.ravel(), minlength=len(largest))
    count, pieces_yx, stats, _ = cv2.connectedComponentsWithStats(core_yx.astype(np.uint8), connectivity=8)
    owners = np.zeros(count, np.int64)
    owners[pieces_yx[core_yx]] = places_yx[core_yx]
    counts = stats[:, cv2.CC_STAT_AREA] >= _SPECK * areas[owners]
    pieces = np.bincount(owners[1:][counts[1:]], minlength=len(largest))[1:]
    return len(pieces), int((pieces <= 1).sum())
