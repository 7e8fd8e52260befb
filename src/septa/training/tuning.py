"""The tuning of decoding thresholds on the validation images, after a training."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from septa.data import Examples
from septa.model import Model
from septa.tasks import Curve, Decoding

_MOST_PIXELS = 4_000_000
"""Largest number of validation pixels that are used, so that the search takes seconds."""


@dataclass(frozen=True)
class Tuning:
    """The result of a tuning.

    Attributes
    ----------
    decoding
        Chosen thresholds.
    curves
        For each threshold, the values that were tried and the score of each, with the other thresholds as they were
        then. The score is the mean accuracy of objects, over images and IoU thresholds 0.5 to 0.95.
    logits
        Logits of the images that were used, float32 ``KYX``, by their index, for later use.
    """

    decoding: Decoding
    curves: dict[str, Curve]
    logits: dict[int, NDArray[np.float32]] = field(default_factory=dict)


def tune_model(model: Model, examples: Examples, device: str) -> Tuning:
    """Choose the thresholds of decoding; see `septa.tasks.Task.tune`.

    Parameters
    ----------
    model
        Model whose task has thresholds.
    examples
        Validation images with object ids. At most four megapixels of them are used, but at least one image.
    device
        As for `Model.segment`.
    """
    logits = _compute_logits(model, examples, device)
    images = [(logits_kyx, examples[index].labels_yx) for index, logits_kyx in logits.items()]
    decoding, curves = model.task.tune(images)
    return Tuning(decoding, curves, logits)


def _compute_logits(model: Model, examples: Examples, device: str) -> dict[int, NDArray[np.float32]]:
    found: dict[int, NDArray[np.float32]] = {}
    pixels = 0
    engine = model.engine(device, "torch")
    for index in range(len(examples)):
        example = examples[index]
        if found and pixels + example.labels_yx.size > _MOST_PIXELS:
            continue
        pixels += example.labels_yx.size
        found[index] = model.logits(example.image_cyx, engine=engine)
    return found
