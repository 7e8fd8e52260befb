"""Facts of the labels of one image: the pixels of each class, and the diameters of objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from septa.recipe import IGNORE

Array = npt.NDArray[Any]

_DIAMETERS = 200
"""Largest number of diameters that are kept."""
_COMPONENT_PIXELS = 2**26
"""Largest number of pixels whose regions are measured."""


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
