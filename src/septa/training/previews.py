"""Pictures of a training while it runs: ground truth and current prediction of some validation images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from septa.data import Examples
from septa.images import encode_png, shrink_picture, to_rgb, write_bytes
from septa.report import draw_labels
from septa.tasks import Task

MOST_PREVIEWS = 4
"""Number of validation images that are drawn: the first ones."""
_SIDE = 320
"""Longest side of a picture, pixels."""
_GAP = 4


def write_previews(folder: Path, examples: Examples, predicted: Mapping[int, NDArray[np.int32]], task: Task) -> None:
    """Write a picture ``N.png`` for each predicted image: ground truth at the left, prediction at the right.

    Parameters
    ----------
    folder
        Folder of the pictures; those of the validation before are replaced.
    examples
        Validation images.
    predicted
        Predicted labels ``YX`` of some of them, by their number.
    task
        Task, which gives objects of the prediction the colours of those that they match.
    """
    bits = task.classes if task.multilabel else 0
    for index, predicted_yx in predicted.items():
        example = examples[index]
        image_yxs = shrink_picture(to_rgb(example.image_cyx), _SIDE)
        sides = [example.labels_yx, task.align(example.labels_yx, predicted_yx)]
        truth_yxs, found_yxs = (draw_labels(image_yxs, labels_yx, bits) for labels_yx in sides)
        gap_yxs = np.full((len(image_yxs), _GAP, 3), 255, np.uint8)
        write_bytes(folder / f"{index}.png", encode_png(np.concatenate([truth_yxs, gap_yxs, found_yxs], axis=1)))
