"""The search for the thresholds by which objects are found best, on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from septa.recipe import IGNORE
from septa.tasks.decoding import Decoding, find_objects
from septa.tasks.growth import grow_regions

_SEEDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_FOREGROUNDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
_SIZES = (1, 5, 10, 20, 40)
_SHARES = (64, 32, 16, 8, 4, 3)
"""Smallest sizes of an object that are tried: pixels, and parts of the median area of true objects."""
_DROPPED = 5
"""Percentile of the areas of true objects that no smallest size exceeds: it drops specks, and not small objects."""

_LEAST_REACH = 8
MOST_TUNED_REACH = 256
"""Reach in pixels from which on it is not limited."""

_INTERIORS = tuple(round(0.05 * k, 2) for k in range(2, 20))
"""Thresholds of interiors that are tried: 0.1 to 0.95."""
_NEARLY = 0.02
"""Difference of V-Rand that may be due to the choice of images."""
_MOST_STEPS = 4
"""Largest growth of regions that is tried, pixels."""
_EQUAL = 0.001
"""Difference of Dice that does not count."""

Curve = tuple[tuple[float, float], ...]
"""Values of a threshold, each with its score."""
Tuned = tuple[Decoding, dict[str, Curve]]
"""Chosen thresholds, and for each the values that were tried with their scores."""
Maps = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]
"""Foreground and inner map of an image, as for `find_objects`, and its true object ids."""


@dataclass(frozen=True)
class Prior:
    """Facts about the thresholds of objects that are known before they are tuned.

    Attributes
    ----------
    least_reach
        Smallest reach, pixels: few images may lack the largest objects. From `MOST_TUNED_REACH` on, it is any distance.
    luck
        Number of objects by which scores must differ to change the threshold of seeds or foreground. Of few objects, at
        most a tenth counts, but at least one.
    """

    least_reach: int = 0
    luck: int = 1


def search_thresholds(images: Sequence[Maps], decoding: Decoding, prior: Prior | None = None) -> Tuned:
    """Choose the thresholds one by one: smallest size, seeds, foreground, and again the smallest size.

    The smallest size is first because specks would otherwise decide about the other thresholds. The score is the mean
    accuracy of objects over images and IoU thresholds 0.5 to 0.95. Scores that differ by less than the share of one
    object, or of as many as ``prior`` says, count as equal, so that few objects change the thresholds little. The reach
    is set last: it is the smallest one tried that does not lower the score.

    Parameters
    ----------
    images
        Maps and ground truth of at least one image.
    decoding
        Initial thresholds. Of the values with the best score, or equal to it, the nearest to the current one is taken.
    prior
        What is known before; by default nothing.

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
    prior = prior or Prior()
    one = 1 / max(1, areas.size)
    luck = max(1.0, min(prior.luck, areas.size / 10))
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
        share = one if name == "least_pixels" else luck * one
        equal = [entry for entry in tried if entry[1] == best or entry[1] > best - share]
        value, chosen = min(equal, key=lambda entry: abs(entry[0] - current))
        decoding = _set(decoding, name, value)
        curves[name] = tuple(tried)
    return _set_reach(images, decoding, chosen, prior.least_reach), curves


def search_wall_thresholds(
    images: Sequence[tuple[NDArray[np.float32], NDArray[np.int32]]], decoding: Decoding
) -> Tuned:
    """Choose how the regions between walls are found: ``seed`` for V-Rand, and ``reach`` for Dice.

    V-Rand is the mean over images of the foreground-restricted Rand score after border thinning, see
    `septa.metrics.score_regions`. Most pixels decide little about it, but one missing pixel of a wall merges two
    regions. So its best threshold is often far above 1/2, where regions are too small. Then they grow back.

    Parameters
    ----------
    images
        For each image, the probability of interior, float32 ``YX``, and the true classes: 1 in interiors, 0 in walls,
        `IGNORE` where ignored.
    decoding
        Initial thresholds, which other fields are taken from.

    Returns
    -------
    decoding
        The chosen thresholds. ``seed`` is the highest whose score is hardly worse than the best one: on new images a
        net is less sure of walls, and merged regions cost more than split ones.
    curves
        For ``seed``, the values and their scores.
    """
    from septa.metrics import score_regions  # takes a third of a second, which prediction need not spend

    values = sorted({*_INTERIORS, decoding.seed})
    curve = tuple(
        (value, float(np.mean([score_regions(truth_yx == 1, map_yx > value).v_rand for map_yx, truth_yx in images])))
        for value in values
    )
    best = max(score for _, score in curve)
    seed = max(value for value, score in curve if score >= best - _NEARLY)
    if len({score for _, score in curve}) == 1:
        seed = decoding.seed
    decoding = replace(decoding, seed=seed, foreground=min(seed, decoding.foreground))
    return replace(decoding, reach=_choose_growth(images, decoding)), {"seed": curve}


def _choose_growth(images: Sequence[tuple[NDArray[np.float32], NDArray[np.int32]]], decoding: Decoding) -> int:
    """Return the least number of steps by which growing regions reach nearly the best Dice."""
    if decoding.seed <= decoding.foreground:
        return 0
    scores = []
    for steps in range(_MOST_STEPS + 1):
        both = total = 0
        for map_yx, truth_yx in images:
            grown_yx = grow_regions(map_yx > decoding.seed, map_yx > decoding.foreground, steps) & (truth_yx != IGNORE)
            both += 2 * int(np.count_nonzero(grown_yx & (truth_yx == 1)))
            total += int(np.count_nonzero(grown_yx)) + int(np.count_nonzero(truth_yx == 1))
        scores.append(both / max(1, total))
    return next(steps for steps, score in enumerate(scores) if score >= max(scores) - _EQUAL)


def _list_sizes(areas: NDArray[np.int64], current: int) -> tuple[int, ...]:
    """Return the smallest sizes to try, ascending, from the areas of true objects."""
    median = int(np.median(areas)) if areas.size else 0
    most = max(current, int(np.percentile(areas, _DROPPED))) if areas.size else current
    sizes = {*_SIZES, *(max(1, median // share) for share in _SHARES)}
    return tuple(sorted({current, *(size for size in sizes if size <= most)}))


def _set_reach(images: Sequence[Maps], decoding: Decoding, least_score: float, least: int) -> Decoding:
    """Set the reach to twice the distance of nearly all pixels of true objects; double it while it lowers the score."""
    distances = [np.zeros(1, np.float32)]
    for foreground_yx, inner_yx, truth_yx in images:
        found_yx = foreground_yx > decoding.foreground
        seeds_yx = found_yx & (inner_yx > decoding.seed)
        if seeds_yx.any():
            away_yx = cv2.distanceTransform((~seeds_yx).astype(np.uint8), cv2.DIST_C, 3)
            distances.append(np.asarray(away_yx[found_yx & (truth_yx > 0)], np.float32))
    reach = max(_LEAST_REACH, least, int(2 * np.percentile(np.concatenate(distances), 99)))
    while reach < MOST_TUNED_REACH:
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
