"""After a training: the thresholds of decoding, chosen on the validation images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from septa.data import Examples
from septa.model import Model
from septa.tasks import Curve, Decoding

_PIXELS = 4_000_000
"""Validation pixels that are looked at, so that the search takes seconds."""


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
    """Choose the thresholds of decoding; see `septa.tasks.Task.tune`.

    Parameters
    ----------
    model
        Of a task that has thresholds.
    examples
        Validation images with object ids, of which as many are used as go into four megapixels, at least one.
    device
        As for `Model.segment`.
    """
    logits = _logits(model, examples, device)
    images = [(logits_kyx, examples[index].labels_yx) for index, logits_kyx in logits.items()]
    decoding, curves = model.task.tune(images)
    return Tuning(decoding, curves, logits)


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
