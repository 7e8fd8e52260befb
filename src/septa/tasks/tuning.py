"""The thresholds by which objects are found, chosen on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from septa.tasks.decoding import Decoding, find_objects

_SEEDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_FOREGROUNDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_SIZES = (1, 5, 10, 20, 40)
_SHARES = (64, 32, 16, 8, 4, 3)
"""Least sizes that are tried: pixels, and parts of the median area of true objects."""

_LEAST_REACH, _MOST_REACH = 8, 256

Curve = tuple[tuple[float, float], ...]
"""Values of a threshold, each with its score."""
Maps = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]
"""Foreground and inner map of an image as `find_objects` takes them, and its true object ids."""


def tune_decoding(images: Sequence[Maps], decoding: Decoding) -> tuple[Decoding, dict[str, Curve]]:
    """Choose the thresholds one after the other: the least size, of seeds, of the foreground, and the least size again.

    The least size comes first because specks would decide about the others. The score is the mean over images and IoU
    thresholds 0.5 to 0.95 of the accuracy of objects.

    Parameters
    ----------
    images
        Maps and true objects of at least one image.
    decoding
        Thresholds to begin with. Of values that score the same, the one nearest to these is taken.

    Returns
    -------
    decoding
        The chosen thresholds.
    curves
        For each threshold its values and the score with each, while the others were as chosen by then.
    """
    curves: dict[str, Curve] = {}
    sizes = _sizes(images, decoding.least_pixels)
    best = 0.0
    for name, values in (
        ("least_pixels", sizes),
        ("seed", _SEEDS),
        ("foreground", _FOREGROUNDS),
        ("least_pixels", sizes),
    ):
        tried = [(float(value), _score(images, _with(decoding, name, value))) for value in values]
        best = max(score for _, score in tried)
        standing = float(getattr(decoding, name))
        value, _ = min((entry for entry in tried if entry[1] == best), key=lambda entry: abs(entry[0] - standing))
        decoding = _with(decoding, name, value)
        curves[name] = tuple(tried)
    return _with_reach(images, decoding, best), curves


def _sizes(images: Sequence[Maps], standing: int) -> tuple[int, ...]:
    areas = [np.unique(truth_yx[truth_yx > 0], return_counts=True)[1] for *_, truth_yx in images]
    median = int(np.median(np.concatenate(areas))) if any(part.size for part in areas) else 0
    return tuple(sorted({standing, *_SIZES, *(max(1, median // share) for share in _SHARES)}))


def _with_reach(images: Sequence[Maps], decoding: Decoding, least_score: float) -> Decoding:
    """Set the reach to twice what nearly all pixels of true objects need, or to more if the score would fall."""
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


def _with(decoding: Decoding, name: str, value: float) -> Decoding:
    return Decoding.from_json({**decoding.to_json(), name: value})


def _score(images: Sequence[Maps], decoding: Decoding) -> float:
    from septa.metrics import score_objects  # takes a third of a second, which the use of a model need not spend

    scores = [
        score_objects(truth_yx, find_objects(foreground_yx, inner_yx, decoding)).mean_accuracy
        for foreground_yx, inner_yx, truth_yx in images
    ]
    return float(np.mean(scores))
