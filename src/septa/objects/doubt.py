"""Doubt of a model about an image: where labels drawn by a person would teach it the most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_LEAST = 0.05
"""Foreground probability from which on a pixel outside objects may be part of one."""
_PRIOR = 0.01
"""Share of the region that counts as certain pixels of objects, so that one speck in an empty region is no doubt."""


@dataclass(frozen=True)
class Doubt:
    """Doubt about an image.

    Attributes
    ----------
    amount
        Mean doubt about the pixels that may be part of objects in the region, 0 to 1.
    box
        Region of the most doubt: first row and column, and the ones after the last.
    """

    amount: float
    box: tuple[int, int, int, int]


def measure_doubt(
    predicted_yx: npt.NDArray[np.integer[Any]],
    foreground_yx: npt.NDArray[np.floating[Any]],
    confidences: npt.NDArray[np.floating[Any]],
    *,
    side: int = 256,
) -> Doubt:
    """Measure how unsure a model is of an image, and find the region of which it is least sure.

    The doubt about an object is 1 less its confidence, that about a pixel outside objects twice its foreground
    probability, at most 1. Background of which the model is sure does not count, so that sparse images do not seem
    certain.

    Parameters
    ----------
    predicted_yx
        Object ids, integers ``YX``.
    foreground_yx
        Foreground probability of the net, float ``YX`` in 0..1.
    confidences
        Confidence of each object, 0..1, by ascending id.
    side
        Side of the region, pixels; an image that is smaller is one region.

    Raises
    ------
    ValueError
        The sizes differ, or there is not one confidence for each object.

    Examples
    --------
    >>> doubt = measure_doubt(np.array([[1, 1, 0, 0]]), np.array([[0.8, 0.8, 0.0, 0.4]]), np.array([0.8]), side=2)
    >>> round(doubt.amount, 3), doubt.box
    (0.784, (0, 2, 1, 4))
    """
    ids, place_yx = np.unique(predicted_yx, return_inverse=True)
    objects = ids > 0
    if foreground_yx.shape != predicted_yx.shape or confidences.shape != (int(objects.sum()),):
        got = f"{foreground_yx.shape} probabilities, {predicted_yx.shape} labels and {confidences.shape} confidences"
        raise ValueError(f"expected one size, and a confidence for each of {int(objects.sum())} objects, got {got}")
    doubts = np.zeros(ids.size)
    doubts[objects] = 1 - confidences
    is_object_yx = predicted_yx > 0
    doubt_yx = np.where(is_object_yx, doubts[place_yx.reshape(predicted_yx.shape)], np.minimum(1, 2 * foreground_yx))
    counts_yx = is_object_yx | (foreground_yx >= _LEAST)
    height, width = (min(side, size) for size in predicted_yx.shape)
    doubted, counted = (_sum_windows(values_yx, height, width) for values_yx in (doubt_yx * counts_yx, counts_yx))
    share = doubted / (counted + _PRIOR * height * width)
    top, left = np.unravel_index(int(share.argmax()), share.shape)
    return Doubt(float(share[top, left]), (int(top), int(left), int(top) + height, int(left) + width))


def measure_pixel_doubt(probability_yx: npt.NDArray[np.floating[Any]], *, side: int = 256) -> Doubt:
    """Measure how unsure a model of pixel classes is of an image, and find the region of which it is least sure.

    The doubt about a pixel is twice what the probability of its class lacks of 1, at most 1. That about a region is the
    mean over its pixels.

    Parameters
    ----------
    probability_yx
        Probability of the class that each pixel has, float ``YX`` in 0..1.
    side
        Side of the region, pixels; an image that is smaller is one region.

    Examples
    --------
    >>> measure_pixel_doubt(np.array([[1.0, 1.0, 0.9, 0.5]]), side=2)
    Doubt(amount=0.6, box=(0, 2, 1, 4))
    """
    height, width = (min(side, size) for size in probability_yx.shape)
    doubts = _sum_windows(np.minimum(1, 2 - 2 * probability_yx.astype(np.float64)), height, width) / (height * width)
    top, left = np.unravel_index(int(doubts.argmax()), doubts.shape)
    return Doubt(round(float(doubts[top, left]), 6), (int(top), int(left), int(top) + height, int(left) + width))


def _sum_windows(values_yx: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.float64]:
    """Return the sum of each window of a size, by its first row and column."""
    sums = np.zeros((values_yx.shape[0] + 1, values_yx.shape[1] + 1))
    sums[1:, 1:] = values_yx.cumsum(0, dtype=np.float64).cumsum(1)
    found: npt.NDArray[np.float64] = (
        sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    )
    return np.maximum(found, 0)
