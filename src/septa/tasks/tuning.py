"""The search for the thresholds by which objects are found best, on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from septa.tasks.decoding import Decoding, find_objects

_SEEDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_FOREGROUNDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
_SIZES = (1, 5, 10, 20, 40)
_SHARES = (64, 32, 16, 8, 4, 3)
"""Smallest sizes of an object that are tried: pixels, and parts of the median area of true objects."""

_LEAST_REACH = 8
_MOST_REACH = 256

Curve = tuple[tuple[float, float], ...]
"""Values of a threshold, each with its score."""
Maps = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]
"""Foreground and inner map of an image, as for `find_objects`, and its true object ids."""


def search_thresholds(images: Sequence[Maps], decoding: Decoding) -> tuple[Decoding, dict[str, Curve]]:
    """Choose the thresholds one by one: smallest size, seeds, foreground, and again the smallest size.

    The smallest size is first because specks would otherwise decide about the other thresholds. The score is the mean
    accuracy of objects over images and IoU thresholds 0.5 to 0.95. Scores that differ by less than the share of one
    object count as equal, so that few objects change the thresholds little. The reach is set last: it is the smallest
    one tried that does not lower the score.

    Parameters
    ----------
    images
        Maps and ground truth of at least one image.
    decoding
        Initial thresholds. Of the values with the best score, or equal to it, the nearest to the current one is taken.

    Returns
    -------
    decoding
        The chosen thresholds.
    curves
        For each threshold its values and their scores; the other thresholds are those chosen up to then.
    """
    curves: dict[str, Curve] = {}
    areas = np.concatenate([np.unique(truth_yx[truth_yx > 0], return_counts=True)[1] for *_, truth_yx in images])
    sizes = _list_sizes(areas, decoding.least_pixels)
    share = 1 / max(1, areas.size)
    chosen = 0.0
    for name, values in (
        ("least_pixels", sizes),
        ("seed", _SEEDS),
        ("foreground", _FOREGROUNDS),
        ("least_pixels", sizes),
    ):
        tried = [(float(value), _score(images, _set(decoding, name, value))) for value in values]
        best = max(score for _, score in tried)
        current = float(getattr(decoding, name))
        equal = [entry for entry in tried if entry[1] == best or entry[1] > best - share]
        value, chosen = min(equal, key=lambda entry: abs(entry[0] - current))
        decoding = _set(decoding, name, value)
        curves[name] = tuple(tried)
    return _set_reach(images, decoding, chosen), curves


def _list_sizes(areas: NDArray[np.int64], current: int) -> tuple[int, ...]:
    """Return the smallest sizes to try, ascending, from the areas of true objects."""
    median = int(np.median(areas)) if areas.size else 0
    return tuple(sorted({current, *_SIZES, *(max(1, median // share) for share in _SHARES)}))


def _set_reach(images: Sequence[Maps], decoding: Decoding, least_score: float) -> Decoding:
    """Set the reach to twice the distance of nearly all pixels of true objects; double it while it lowers the score."""
    distances = [np.zeros(1, np.float32)]
    for foreground_yx, inner_yx, truth_yx in images:
        found_yx = foreground_yx > decoding.foreground
        seeds_yx = found_yx & (inner_yx > decoding.seed)
        if seeds_yx.any():
            away_yx = cv2.distanceTransform((~seeds_yx).astype(np.uint8), cv2.DIST_C, 3)
            distances.append(np.asarray(away_yx[found_yx & (truth_yx > 0)], np.float32))
    reach = max(_LEAST_REACH, int(2 * np.percentile(np.concatenate(distances), 99)))
    while reach < _MOST_REACH:
        limited = replace(decoding, reach=reach)
        if _score(images, limited) >= least_score:
            return limited
        reach *= 2
    return decoding


def _set(decoding: Decoding, name: str, value: float) -> Decoding:
    """Return thresholds in which one has another value."""
    return Decoding.from_json({**decoding.to_json(), name: value})


def _score(images: Sequence[Maps], decoding: Decoding) -> float:
    from septa.metrics import score_objects  # takes a third of a second, which prediction need not spend

    scores = [
        score_objects(truth_yx, find_objects(foreground_yx, inner_yx, decoding)).mean_accuracy
        for foreground_yx, inner_yx, truth_yx in images
    ]
    return float(np.mean(scores))
