"""After a training: the thresholds by which objects are found, chosen on the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from septa.data import Examples
from septa.metrics import score_objects
from septa.model import Model
from septa.tasks import Decoding, Instances, find_objects

_PIXELS = 4_000_000
"""Validation pixels that are looked at, so that the search takes seconds."""
_SEEDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_FOREGROUNDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_SIZES = (1, 5, 10, 20, 40)
_SHARES = (64, 32, 16, 8, 4, 3)
"""Least sizes that are tried: pixels, and parts of the median area of true objects."""

_LEAST_REACH, _MOST_REACH = 8, 256

Curve = tuple[tuple[float, float], ...]
Maps = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]


@dataclass(frozen=True)
class Tuning:
    """The thresholds chosen, and for each of them its values and the score with each, the others being as chosen then.

    The score is the mean over images and IoU thresholds 0.5 to 0.95 of the accuracy of objects. ``logits`` are those
    of the images that were used, by their place, for what comes next.
    """

    decoding: Decoding
    curves: dict[str, Curve]
    logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)


def tune(model: Model, examples: Examples, device: str) -> Tuning:
    """Choose the thresholds one after the other: the least size, of seeds, of the foreground, and the least size again.

    It comes first because specks would decide about the others.

    Parameters
    ----------
    model
        Of the instances task.
    examples
        Validation images with object ids, of which as many are used as go into four megapixels, at least one.
    device
        As for `Model.segment`.
    """
    task = model.task
    assert isinstance(task, Instances)
    logits = _logits(model, examples, device)
    images = [(*task.maps(logits_kyx), examples[index].labels_yx) for index, logits_kyx in logits.items()]
    decoding, curves = model.decoding, {}
    sizes = _sizes(images, decoding.least_pixels)
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
    return Tuning(_with_reach(images, decoding, best), curves, logits)


def _sizes(images: Sequence[Maps], standing: int) -> tuple[int, ...]:
    areas = [np.unique(truth_yx[truth_yx > 0], return_counts=True)[1] for *_, truth_yx in images]
    median = int(np.median(np.concatenate(areas))) if any(part.size for part in areas) else 0
    return tuple(sorted({standing, *_SIZES, *(max(1, median // share) for share in _SHARES)}))


def _with_reach(images: Sequence[Maps], decoding: Decoding, wanted: float) -> Decoding:
    """With a reach of twice what nearly all pixels of true objects need, or more, so that the score stays as wanted."""
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
        if _score(images, limited) >= wanted:
            return limited
        reach *= 2
    return decoding


def _with(decoding: Decoding, name: str, value: float) -> Decoding:
    return Decoding.from_json({**decoding.to_json(), name: value})


def _logits(model: Model, examples: Examples, device: str) -> dict[int, NDArray[np.float32]]:
    found: dict[int, NDArray[np.float32]] = {}
    pixels, engine = 0, model.engine(device, "torch")
    for index in range(len(examples)):
        example = examples[index]
        if found and pixels + example.labels_yx.size > _PIXELS:
            continue
        pixels += example.labels_yx.size
        found[index] = model.logits(example.image_cyx, engine=engine)
    return found


def _score(images: Sequence[Maps], decoding: Decoding) -> float:
    scores = [
        score_objects(truth_yx, find_objects(foreground_yx, inner_yx, decoding)).mean_accuracy
        for foreground_yx, inner_yx, truth_yx in images
    ]
    return float(np.mean(scores))
