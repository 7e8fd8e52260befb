"""Resize images and labels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def resize_image(image_cyx: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize an image or logits.

    An axis that shrinks is averaged over areas; an axis that grows is interpolated linearly.

    Parameters
    ----------
    image_cyx
        Axes ``CYX``, any real dtype; left untouched.
    size
        New height and width in pixels.

    Returns
    -------
    ndarray
        ``(C, *size)`` in the dtype of the image, integers rounded; the image itself if it has that size.

    Examples
    --------
    >>> resize_image(np.array([[[0, 2, 10, 20]]], np.uint8), (1, 2))
    array([[[ 1, 15]]], dtype=uint8)
    """
    if image_cyx.shape[1:] == size:
        return image_cyx
    exact = np.float64 if image_cyx.dtype.itemsize > 2 and image_cyx.dtype != np.float32 else np.float32
    out = np.empty((len(image_cyx), *size), image_cyx.dtype)
    for plane_yx, target_yx in zip(image_cyx, out):
        # One axis after the other: cv2 averages over areas only if no axis grows.
        tall_yx = _resize_axis(plane_yx.astype(exact), size[0], plane_yx.shape[1])
        whole_yx = _resize_axis(tall_yx, *size)
        target_yx[...] = np.rint(whole_yx) if image_cyx.dtype.kind in "ui" else whole_yx
    return out


def _resize_axis(plane_yx: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize a plane of which one side already has the new length."""
    if plane_yx.shape == (height, width):
        return plane_yx
    interpolation = cv2.INTER_AREA if height * width < plane_yx.size else cv2.INTER_LINEAR
    return cv2.resize(plane_yx, (width, height), interpolation=interpolation)


def resize_labels(labels_yx: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
    """Resize labels with nearest-neighbour interpolation, which creates no new label values.

    Parameters
    ----------
    labels_yx
        int32, axes ``YX``; left untouched.
    size
        New height and width in pixels.

    Returns
    -------
    ndarray
        int32, shape ``size``: each pixel has the label of the old pixel under its centre.
    """
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.intp)
        for new, old in zip(size, labels_yx.shape)
    )
    return np.asarray(labels_yx[rows[:, None], columns])
