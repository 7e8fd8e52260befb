"""Resize images and labels."""

from __future__ import annotations

from itertools import pairwise
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
    """Resize labels by majority, which creates no new label values and moves no edge to one side.

    Parameters
    ----------
    labels_yx
        int32, axes ``YX``; left untouched.
    size
        New height and width in pixels.

    Returns
    -------
    ndarray
        int32, shape ``size``: each pixel has the most frequent label among samples spread evenly over its area, at
        least one for each old pixel inside; of equally frequent labels the largest.

    Examples
    --------
    >>> resize_labels(np.array([[0, 3, 3, 3, 3, 0, 0, 0]], np.int32), (1, 4))
    array([[3, 3, 3, 0]], dtype=int32)
    """
    if labels_yx.shape == size:
        return labels_yx
    rows, columns = (_find_samples(new, old) for new, old in zip(size, labels_yx.shape))
    samples = [labels_yx[row[:, None], column] for row in rows for column in columns]
    return _find_most_frequent(np.sort(np.stack(samples), axis=0))


def _find_samples(new: int, old: int) -> NDArray[np.intp]:
    """Return the old index of each sample of each new pixel, shape (samples, new).

    The samples of a pixel lie symmetrically around its centre, a trace nearer to it, so that one on the border of two
    old pixels belongs to the inner one, as it does in the mirrored image. None lies on the centre unless an old pixel
    does.
    """
    count = old // new if old % new == 0 else 2 * -(-old // (2 * new))
    offsets = ((np.arange(count) + 0.5) / count - 0.5) * (1 - 1e-6)
    centres = np.arange(new) + 0.5
    return np.clip((centres + offsets[:, None]) * old / new, 0, old - 1).astype(np.intp)


def _find_most_frequent(sorted_nyx: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the most frequent of N sorted values at each pixel; of equally frequent ones the largest."""
    best_yx: NDArray[np.int32] = sorted_nyx[0].copy()
    run_yx = np.ones(best_yx.shape, np.intp)
    longest_yx = run_yx.copy()
    for before_yx, value_yx in pairwise(sorted_nyx):
        run_yx = np.where(value_yx == before_yx, run_yx + 1, 1)
        longer_yx = run_yx >= longest_yx
        best_yx[longer_yx], longest_yx[longer_yx] = value_yx[longer_yx], run_yx[longer_yx]
    return best_yx
