"""Evidence that the values of label images number objects rather than classes.

A class means the same in every image; the number of an object means nothing outside its image. Both leave traces in
the label images, and each trace scores points for objects (positive) or for classes (negative).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from septa.labels.regions import Regions

_MOST_CLASSES = 254
_WHOLE = 0.8
"""Least share of the values with one region each, for values that number objects."""
_CERTAIN_OBJECTS = 3
_CERTAIN_CLASSES = -2
"""Points from which on the meaning is certain."""
_FEW = 3
"""Number of objects per image up to which images say little."""
_RECURRENCES = 4
"""Least number of times that values recur in other images for a comparison of their places."""
_SHORT = 12
"""Number of different values up to which these are likely classes if images lack some of them."""


@dataclass(frozen=True)
class Evidence:
    """Evidence for objects against classes.

    Attributes
    ----------
    points
        Points for objects; negative points are for classes.
    whole
        True if nearly every value is one connected region in each image. Without this, values are classes.
    """

    points: int
    whole: bool

    @property
    def objects(self) -> bool:
        """True if values likely number objects."""
        return self.whole and self.points > 0

    @property
    def certain(self) -> bool:
        """True if the other meaning is very unlikely."""
        return not self.whole or not _CERTAIN_CLASSES < self.points < _CERTAIN_OBJECTS


def weigh_evidence(images: Sequence[Regions], values: int, *, background: bool = True) -> Evidence:
    """Weigh the evidence that values number objects.

    Parameters
    ----------
    images
        Regions of each label image that holds objects, without background and ignored values.
    values
        Number of different values in all label images, without background and ignored values.
    background
        False if no label image has background: few values that fill all images are likely classes.

    Examples
    --------
    >>> from septa.labels.regions import find_regions
    >>> numbered = [np.kron(np.diag(np.arange(1, n + 1)), np.ones((4, 4), int)) for n in (9, 12, 20)]
    >>> weigh_evidence([find_regions(array, 0) for array in numbered], 20).objects
    True
    """
    images = [image for image in images if len(image.values)]
    counts = np.concatenate([image.counts for image in images]) if images else np.zeros(0)
    if values < 2 or not len(counts) or np.mean(counts == 1) < _WHOLE:
        return Evidence(0, whole=False)
    if values > _MOST_CLASSES:
        return Evidence(_CERTAIN_OBJECTS, whole=True)
    numbers = [len(image.values) for image in images]
    points = _judge_values(images, numbers, values)
    if sum(numbers) - values < _RECURRENCES and len(images) > 1:
        # Too few to compare the places of a value: the way of numbering alone proves no classes.
        points = max(points, _CERTAIN_CLASSES + 1)
    points += _judge_places(images) + _judge_layout(images)
    points -= 2 * (not background and values <= _SHORT)
    return Evidence(int(points), whole=True)


def _judge_values(images: Sequence[Regions], numbers: Sequence[int], values: int) -> int:
    """Judge which values occur together: each image numbers its objects from the first, or its values are its own."""
    most = max(numbers)
    points = (most >= 8) + (most >= 16) + (len(images) == 1 and most >= 5)
    if most <= _FEW:
        points -= 1
    if len(images) == 1:
        return points
    every = np.concatenate([image.values for image in images])
    found, frequency = np.unique(every, return_counts=True)
    if frequency.max() == 1:
        # Classes would recur.
        return points + (1 if most == 1 else 3 if len(found) >= 8 else 1)
    # Numbered objects: the values of an image are the most frequent ones of the dataset.
    ranks = {value: rank for rank, value in enumerate(found[np.lexsort((found, -frequency))].tolist())}
    numbered = np.mean([max(ranks[v] for v in image.values.tolist()) < len(image.values) for image in images])
    sizes = len(set(numbers))
    if numbered >= 0.9:
        return points + (-1 if sizes == 1 else min(4, sizes - (sizes <= 3)))
    if most <= _FEW:
        return points - 3
    return points - (values <= _SHORT)


def _judge_places(images: Sequence[Regions]) -> int:
    """Judge whether a value has the same place, or the same shape, in all images."""
    if len(images) == 1:
        return 0
    values, groups = np.unique(np.concatenate([image.values for image in images]), return_inverse=True)
    boxes = np.concatenate([image.boxes for image in images])
    if len(groups) - len(values) < _RECURRENCES:
        return 0
    place = _compare_spreads(boxes, groups)
    if place <= 0.25:
        return -3
    points = 2 if place >= 0.45 else 0
    shapes = np.concatenate([image.extents / image.extents.max() for image in images])
    sizes = np.log(np.concatenate([image.pixels for image in images]))
    same_shape = shapes.std() >= 0.08 and _compare_spreads(shapes[:, None], groups) <= 0.15
    same_size = sizes.std() >= 0.4 and _compare_spreads(sizes[:, None], groups) <= 0.15
    return points - 2 * (same_shape or same_size)


def _compare_spreads(features: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Return the variance of the features inside groups, as a share of the variance of all; 1 if both are 0."""
    sizes = np.bincount(groups)
    sums = np.stack([np.bincount(groups, column) for column in features.T], 1)
    inside = ((features - (sums / sizes[:, None])[groups]) ** 2).sum() / (len(groups) - len(sizes))
    total = ((features - features.mean(0)) ** 2).sum() / (len(groups) - 1)
    return float(inside / total) if total > 0 else 1.0


def _judge_layout(images: Sequence[Regions]) -> int:
    """Judge whether values are layers that cross the image, or lie inside each other as the parts of one thing."""
    shares = [(_share_across(image.boxes), _share_nested(image.boxes)) for image in images if len(image.values) > 1]
    if not shares:
        return 0
    across, nested = np.mean(shares, axis=0)
    return -3 * bool(across >= 0.6) - 3 * bool(nested >= 0.6)


def _share_across(boxes: NDArray[np.float64]) -> float:
    """Return the share of the boxes that reach from one border of the image to the opposite one."""
    return float(np.any(boxes[:, 2:] - boxes[:, :2] >= 0.97, axis=1).mean())


def _share_nested(boxes: NDArray[np.float64]) -> float:
    """Return the share of the boxes, without the largest, that lie in another one of at most 8."""
    if len(boxes) > 8:
        return 0.0
    inside = (boxes[:, None, :2] >= boxes[None, :, :2]).all(-1) & (boxes[:, None, 2:] <= boxes[None, :, 2:]).all(-1)
    others = inside & ~np.eye(len(boxes), dtype=bool)
    return float(np.any(others, axis=1).sum() / (len(boxes) - 1))
