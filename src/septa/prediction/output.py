"""The label files, pictures and numbers that a prediction gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.images import Guard, ImageInfo, draw_overlay, write_labels
from septa.model import Model


def write_stack(target: Path, pages: list[NDArray[Any]], info: ImageInfo, guard: Guard) -> None:
    """Write the labels of all pages of an image into one file, with the axes and the scale of the image.

    Each page has the axes ``YX``, or ``KYX`` if classes overlap.
    """
    labels, axes = pages[0], "YX".rjust(pages[0].ndim, "C")
    if len(pages) > 1:
        named = set(info.page_axes) <= set("TZ")
        sizes = info.page_shape if named else (len(pages),)
        labels = np.stack(pages).reshape(*sizes, *labels.shape)
        axes = f"{info.page_axes if named else 'Q'}{axes}"
    calibration = replace(info.calibration, channel_names=())
    write_labels(target, labels, axes=axes, calibration=calibration, guard=guard)


def compute_padding(model: Model, height: int, width: int) -> tuple[int, int]:
    """Return the number of rows and columns that a padded net adds; a valid net adds none."""
    height, width = model.recipe.data.resize or (height, width)
    padded = (height, width) if model.net.margin else model.net.pad_size(height, width)
    return padded[0] - height, padded[1] - width


def draw_prediction(model: Model, image_cyx: NDArray[Any], labels_yx: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Draw labels over an image; classes that overlap are drawn one over the other, each in its own colour."""
    if not model.task.multilabel:
        return draw_overlay(image_cyx, labels_yx)
    for bit in range(model.labels.classes):
        picture_yxs = draw_overlay(image_cyx, (labels_yx >> bit & 1) * (bit + 1))
        image_cyx = np.moveaxis(picture_yxs, -1, 0)
    return picture_yxs
