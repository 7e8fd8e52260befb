"""Save an image and its corrected labels as a training pair. Nothing here needs napari or Qt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from septa.errors import InputError
from septa.images import Calibration, WrittenFiles, write_image, write_labels
from septa.napari.segmentation import Array, LayerImage, Span


def save_pair(
    folder: Path, image: LayerImage, labels: Array, begin: Sequence[int], plane: Sequence[int]
) -> tuple[Path, Path]:
    """Write an image and its labels as a training pair, ``images/NAME.tif`` and ``labels/NAME.tif``.

    Parameters
    ----------
    folder
        Folder of the training data, which `septa train` takes.
    image
        The image.
    labels
        Labels of all planes or of one, with as many axes as the image, or ``YX``.
    begin
        First pixel of the labels in the image.
    plane
        Index of the plane that is saved.

    Returns
    -------
    tuple
        The two files.

    Raises
    ------
    InputError
        The labels do not lie in the image or on the plane, or files exist that septa did not write.
    """
    labels_yx, rows, columns = _cut_labels(image, np.asarray(labels), list(begin), plane)
    parts = [re.sub(r"[^\w.+-]+", "_", image.name).strip("._") or "image"]
    parts += [f"{place:04d}" for place in plane]
    if (rows, columns) != ((0, image.shape[-2]), (0, image.shape[-1])):
        parts.append(f"y{rows[0]}_x{columns[0]}")
    calibration = Calibration(pixel_size_um=image.pixel_size_um)
    files = folder / "images" / f"{'_'.join(parts)}.tif", folder / "labels" / f"{'_'.join(parts)}.tif"
    written = WrittenFiles(folder=folder)
    written.check(dict.fromkeys(files))
    write_image(files[0], image.read(tuple(plane), rows, columns), calibration=calibration, guard=written.guard())
    write_labels(files[1], labels_yx, calibration=calibration, guard=written.guard())
    return files


def _cut_labels(image: LayerImage, labels: Array, begin: list[int], plane: Sequence[int]) -> tuple[Array, Span, Span]:
    """Return the labels of a plane, and their rows and columns in the image."""
    labels = labels.reshape((1,) * (len(image.shape) - labels.ndim) + labels.shape)
    begin = [0] * (labels.ndim - len(begin)) + begin
    remedy = "Choose the layers of one image, and show a plane that has labels"
    if labels.ndim != len(image.shape):
        raise InputError(image.name, "the labels have more axes than the image", remedy)
    places = []
    for place, first, size, whole in zip(plane, begin, labels.shape, image.shape[:-2], strict=False):
        places.append(place - first if size > 1 or whole == 1 or first else 0)
    if not all(0 <= place < size for place, size in zip(places, labels.shape, strict=False)):
        raise InputError(image.name, "the labels have no such plane", remedy)
    labels_yx = labels[tuple(places)]
    (top, left), (height, width) = begin[-2:], labels_yx.shape
    rows, columns = (top, top + height), (left, left + width)
    if top < 0 or left < 0 or rows[1] > image.shape[-2] or columns[1] > image.shape[-1]:
        raise InputError(image.name, "the labels do not lie within the image", remedy)
    return labels_yx, rows, columns
