"""Panels of images with their labels, and arrays of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import draw_error_map, draw_overlay, to_rgb
from septa.labels import label_components
from septa.metrics import align_ids

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Image = NDArray[Any]


def import_pyplot() -> Any:
    """Import matplotlib's figures.

    Raises
    ------
    InputError
        matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError:
        raise InputError("septa.plot", "matplotlib is not installed", "Run pip install 'septa[plot]'") from None
    return pyplot


def panels(
    images: Image | Sequence[Image],
    labels: Image | Sequence[Image] | None = None,
    predictions: Image | Sequence[Image] | None = None,
    *,
    names: Sequence[str] = (),
    errors: bool = True,
    objects: bool | None = None,
    size: float = 3.0,
) -> Figure:
    """Show images with ground truth, prediction and errors, one row for each image.

    Labels are drawn over the image, each with a tint and a contour. The error map shows ground truth and prediction
    together: green is correct, red is false positive, blue is false negative, yellow is a wrong class or object.

    Parameters
    ----------
    images
        One image or several: arrays ``(Y, X)``, ``(C, Y, X)`` or ``(Y, X, C)``, any number type, C at most 4 where it
        is the last axis.
    labels, predictions
        Labels of each image, integers ``(Y, X)``: ground truth, and prediction. -1 is ignored. A prediction may also be
        a `septa.Prediction`.
    names
        Title of each row.
    errors
        True for a column of errors, if both labels and predictions are given.
    objects
        True if labels are ids of objects, which are matched at IoU 0.5 for the errors; False if they are classes. If
        None, they are objects if every value of the ground truth is one connected region in each image, and there are
        values above 1.
    size
        Width of a panel, inches.

    Returns
    -------
    Figure
        Figure of matplotlib; notebooks show it.

    Raises
    ------
    InputError
        matplotlib is not installed, or the numbers or sizes of the arrays differ.
    """
    shown = [_as_cyx(image) for image in _as_list(images)]
    truth = None if labels is None else _as_labels(labels, shown, "labels")
    found = None if predictions is None else _as_labels(predictions, shown, "predictions")
    columns: dict[str, list[Image]] = {"image": [to_rgb(image_cyx) for image_cyx in shown]}
    if truth is not None:
        columns["ground truth"] = [draw_overlay(*pair) for pair in zip(shown, truth)]
    if found is not None:
        columns["prediction"] = [draw_overlay(*pair) for pair in zip(shown, found)]
    if truth is not None and found is not None and errors:
        matched = _hold_objects(truth) if objects is None else objects
        pairs = [(one, align_ids(one, other) if matched else other) for one, other in zip(truth, found)]
        columns["errors"] = [draw_error_map(*pair) for pair in pairs]
    pictures = [picture for row in zip(*columns.values()) for picture in row]
    titles = [*columns, *[""] * (len(pictures) - len(columns))]
    return grid(pictures, columns=len(columns), titles=titles, rows=names, size=size)


def grid(
    pictures: Sequence[Image],
    *,
    columns: int = 4,
    titles: Sequence[str] = (),
    rows: Sequence[str] = (),
    size: float = 3.0,
) -> Figure:
    """Show an array of pictures, row by row.

    Parameters
    ----------
    pictures
        Arrays ``(Y, X)``, ``(C, Y, X)`` or ``(Y, X, C)``. uint8 pictures of three channels at the end keep their
        colours; others are shown as `septa.images.to_rgb` does. Maps of floats, such as weights or probabilities, have
        the colours of a scale instead.
    columns
        Number of pictures in a row.
    titles
        Title of each picture; empty ones are not shown.
    rows
        Title of each row, on its left.
    size
        Width of a picture, inches.

    Returns
    -------
    Figure
        Figure of matplotlib.

    Raises
    ------
    InputError
        matplotlib is not installed, or there are no pictures.
    """
    pyplot = import_pyplot()
    if not pictures:
        raise InputError("pictures", "there are no pictures", "Give at least one array")
    columns = max(1, min(columns, len(pictures)))
    lines = -(-len(pictures) // columns)
    first = _as_cyx(np.asarray(pictures[0])).shape
    height = size * min(3.0, max(0.3, first[1] / first[2]))
    titled = sum(any(titles[line * columns : (line + 1) * columns]) for line in range(lines))
    figure, axes = pyplot.subplots(
        lines,
        columns,
        figsize=(size * columns, height * lines + 0.3 * titled),
        squeeze=False,
        layout="constrained",
    )
    for number, axis in enumerate(axes.flat):
        axis.set_xticks([])
        axis.set_yticks([])
        if number >= len(pictures):
            axis.set_axis_off()
            continue
        picture = np.asarray(pictures[number])
        if picture.ndim == 2 and picture.dtype.kind == "f":
            shown = axis.imshow(picture, cmap="viridis")
            figure.colorbar(shown, ax=axis, fraction=0.046)
        else:
            axis.imshow(_as_picture(picture))
        if number < len(titles) and titles[number]:
            axis.set_title(titles[number], parse_math=False)
        if number % columns == 0 and number // columns < len(rows):
            axis.set_ylabel(rows[number // columns], parse_math=False)
    pyplot.close(figure)  # a notebook would show it twice
    return cast("Figure", figure)


def _as_picture(picture: Image) -> Image:
    """Return a picture with colours, uint8 ``(Y, X, 3)``."""
    colored = picture.ndim == 3 and picture.shape[-1] == 3 and picture.dtype == np.uint8
    return picture if colored else to_rgb(_as_cyx(picture))


def _as_list(arrays: Image | Sequence[Image]) -> list[Image]:
    """Return one array, or several, as a list of arrays."""
    if isinstance(arrays, np.ndarray) and arrays.ndim <= 3 and not _is_stack(arrays):
        return [arrays]
    return [np.asarray(array) for array in arrays]


def _is_stack(array: Image) -> bool:
    """Return True if an array of three axes is pages rather than channels."""
    return array.ndim == 3 and min(array.shape[0], array.shape[-1]) > 4


def _as_cyx(image: Image) -> Image:
    if image.ndim == 2:
        return image[None]
    if image.ndim == 3:
        return np.moveaxis(image, -1, 0) if image.shape[-1] <= 4 < image.shape[0] else image
    raise InputError("images", f"an image has the shape {image.shape}, expected YX, CYX or YXC", "Select its axes")


def _as_labels(arrays: Image | Sequence[Image], images: Sequence[Image], what: str) -> list[Image]:
    one = hasattr(arrays, "labels") or (isinstance(arrays, np.ndarray) and arrays.ndim == 2)
    found = [np.asarray(getattr(array, "labels", array)) for array in ([arrays] if one else arrays)]
    if [labels.shape for labels in found] != [image.shape[1:] for image in images]:
        sizes = " and ".join(str([array.shape for array in group]) for group in (found, images))
        raise InputError(what, f"their sizes and those of the images differ: {sizes}", "Give one array for each image")
    if any(labels.dtype.kind not in "bui" for labels in found):
        raise InputError(what, "labels are not integers", "Give label arrays")
    return [labels.astype(np.int64) for labels in found]


def _hold_objects(truth: Sequence[Image]) -> bool:
    """Return True if every value is one connected region in each image, and some are above 1."""
    counts = [(np.unique(labels_yx[labels_yx > 0]).size, label_components(labels_yx).max()) for labels_yx in truth]
    return max(int(labels_yx.max(initial=0)) for labels_yx in truth) > 1 and all(a == b for a, b in counts)
