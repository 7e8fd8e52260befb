"""After a training: the thresholds by which objects are found, chosen on the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from septa.data.samples import Examples
from septa.metrics.objects import score_objects
from septa.model import Model
from septa.tasks.decoding import Decoding, find_objects
from septa.tasks.instances import Instances

_PIXELS = 4_000_000
"""Validation pixels that are looked at, so that the search takes seconds."""
_SEEDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_FOREGROUNDS = (0.3, 0.4, 0.5, 0.6, 0.7)
_SIZES = (1, 5, 10, 20, 40, 80)

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
    """Choose the thresholds one after the other: of seeds, of the foreground, and the least size.

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
    decoding, curves = Decoding(), {}
    for name, values in (("seed", _SEEDS), ("foreground", _FOREGROUNDS), ("least_pixels", _SIZES)):
        tried = [(float(value), _score(images, _with(decoding, name, value))) for value in values]
        best = max(score for _, score in tried)
        standing = float(getattr(decoding, name))
        value, _ = min((entry for entry in tried if entry[1] == best), key=lambda entry: abs(entry[0] - standing))
        decoding = _with(decoding, name, value)
        curves[name] = tuple(tried)
    return Tuning(decoding, curves, logits)


def _with(decoding: Decoding, name: str, value: float) -> Decoding:
    return Decoding.from_json({**decoding.to_json(), name: value})


def _logits(model: Model, examples: Examples, device: str) -> dict[int, NDArray[np.float32]]:
    found: dict[int, NDArray[np.float32]] = {}
    pixels = 0
    for index in range(len(examples)):
        example = examples[index]
        if found and pixels + example.labels_yx.size > _PIXELS:
            continue
        pixels += example.labels_yx.size
        found[index] = model.logits(example.image_cyx, device=device)
    return found


def _score(images: Sequence[Maps], decoding: Decoding) -> float:
    scores = [
        score_objects(truth_yx, find_objects(foreground_yx, inner_yx, decoding)).mean_accuracy
        for foreground_yx, inner_yx, truth_yx in images
    ]
    return float(np.mean(scores))
