"""The label files and pictures that a prediction writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import ImageInfo, draw_overlay, write_image, write_labels
from septa.model import Model
from septa.prediction.find import find_stem
from septa.prediction.options import Options

_PNG_IDS = 65_535
"""Largest object id in a PNG file."""


def find_target(info: ImageInfo, options: Options, multilabel: bool) -> Path:
    """Return the label file of an image; ``multilabel`` is True if its classes overlap."""
    stacked = multilabel or info.pages > 1 or info.format == "tiff"
    return options.output / f"{find_stem(info.path)}{options.suffix or ('.tif' if stacked else '.png')}"


def check_target(path: Path, target: Path) -> None:
    """Raise InputError if an image is its own label file."""
    if target.exists() and target.samefile(path):
        raise InputError(path, "its label file would overwrite it", "Give another folder with -o")


def write_pages(pages: list[NDArray[Any]], info: ImageInfo, options: Options) -> Path:
    """Write the labels of all pages: one stack, or for overlapping classes one file of planes for each page."""
    overlapping = pages[0].ndim == 3
    target = find_target(info, options, overlapping)
    if overlapping:
        for number, planes_kyx in enumerate(pages):
            file = target if len(pages) == 1 else target.with_stem(f"{target.stem}_{number:04d}")
            write_image(file, planes_kyx, pixel_size_um=info.pixel_size_um)
        return file
    if options.suffix is None and max(int(page.max(initial=0)) for page in pages) > _PNG_IDS:
        target = target.with_suffix(".tif")
    write_labels(target, stack_pages(pages), pixel_size_um=info.pixel_size_um)
    return target


def stack_pages(pages: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the pages as one array; a single page is returned unchanged."""
    return pages[0] if len(pages) == 1 else np.stack(pages)


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
