"""The features of the training images, which a model keeps to recognise images that are unlike them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from septa.data import Examples
from septa.inference import TrainingFeatures, combine_features
from septa.model import Model

_MOST_IMAGES = 128
"""Largest number of images that are measured."""
_SIDE = 256
"""Side of the windows that are measured of a large image, pixels."""


def measure_training_features(model: Model, parts: Sequence[Examples], device: str) -> TrainingFeatures | None:
    """Measure the features of the training and validation images with the weights of a model.

    Of many images, 128 are measured that are spread over all of them.

    Parameters
    ----------
    model
        Trained model.
    parts
        Training images, and validation images.
    device
        Device that runs the net.

    Returns
    -------
    TrainingFeatures or None
        None if there are too few images to know their variety.
    """
    places = [(part, index) for part in parts for index in range(len(part))]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), _MOST_IMAGES)).round().astype(int))
    images = (part[index].image_cyx for part, index in (places[number] for number in chosen))
    return combine_features(
        [model.measure_features(image_cyx, device=device, side=_SIDE).summarize() for image_cyx in images]
    )
