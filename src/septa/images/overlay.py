"""Draw pictures for people: images as 8-bit RGB, labels over them, and maps of errors.

Colour-blind people can distinguish the colours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.images.normalize import find_robust_range

Rgb = NDArray[np.uint8]

CLASS_COLORS: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
"""Colours of class 1, 2, ..., repeated for further classes: the palette of Okabe and Ito (2008)."""

ERROR_COLORS: dict[str, tuple[int, int, int]] = {
    "correct": (0, 158, 115),
    "false positive": (213, 94, 0),
    "false negative": (86, 180, 233),
    "wrong class or object": (240, 228, 66),
    "ignored": (128, 128, 128),
}
"""Legend of `draw_error_map`; background that is predicted as background is black."""

_LOW, _HIGH = 0.5, 99.5
_LOW_CONTRAST = 64


def to_rgb(image_cyx: NDArray[Any]) -> Rgb:
    """Convert any image to an RGB picture.

    Parameters
    ----------
    image_cyx
        Axes ``CYX``, any numeric type. One channel is shown in grey, two in magenta and green, and the first three of
        more in red, green and blue.

    Returns
    -------
    ndarray
        uint8, axes ``YXS``. uint8 images with enough contrast keep their values. Others are stretched from their 0.5
        to their 99.5 percentile: each channel separately, but uint8 channels together, which keeps their hue. Values
        that are not finite are black.

    Examples
    --------
    >>> to_rgb(np.array([[[0, 255]]], np.uint8)).tolist()
    [[[0, 0, 0], [255, 255, 255]]]
    """
    image_cyx = image_cyx[:3]
    ranges = [find_robust_range(plane_yx, _LOW, _HIGH) for plane_yx in image_cyx]
    if image_cyx.dtype == np.uint8:
        shared = (min(low for low, _ in ranges), max(high for _, high in ranges))
        ranges = [shared] * len(ranges)
        if shared[1] - shared[0] >= _LOW_CONTRAST:
            ranges = [(0.0, 255.0)] * len(ranges)
    planes = [_stretch(plane_yx, *limits) for plane_yx, limits in zip(image_cyx, ranges)]
    if len(planes) == 1:
        planes *= 3
    elif len(planes) == 2:
        planes.append(planes[0])
    return np.stack(planes, axis=-1)


def draw_overlay(image_cyx: NDArray[Any], labels_yx: NDArray[Any], *, alpha: float = 0.35) -> Rgb:
    """Draw labels over an image: each label as a tint with a solid contour.

    Parameters
    ----------
    image_cyx
        Axes ``CYX``, any numeric type.
    labels_yx
        Class indices or instance ids, integers, axes ``YX``, of the same size. Pixels of label 0 are not tinted;
        negative labels (ignored pixels) are grey.
    alpha
        Opacity of the tint, 0..1.

    Returns
    -------
    ndarray
        uint8, axes ``YXS``.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    picture = to_rgb(image_cyx)
    _check_same_size(picture.shape[:2], labels_yx.shape)
    colors = np.asarray(CLASS_COLORS, np.uint8)[(labels_yx.astype(np.int64) - 1) % len(CLASS_COLORS)]
    colors[labels_yx < 0] = ERROR_COLORS["ignored"]
    drawn = labels_yx != 0
    tint = (1 - alpha) * picture[drawn].astype(np.float32) + alpha * colors[drawn].astype(np.float32)
    picture[drawn] = np.rint(tint).astype(np.uint8)
    contour = _find_contour(labels_yx) & (labels_yx > 0)
    picture[contour] = colors[contour]
    return picture


def draw_error_map(truth_yx: NDArray[Any], prediction_yx: NDArray[Any], ignore: int = -1) -> Rgb:
    """Draw a map that colours each pixel by the kind of error there; `ERROR_COLORS` is the legend.

    Parameters
    ----------
    truth_yx, prediction_yx
        Ground truth and prediction, integers, axes ``YX``, same size: class indices, or ids of which matching objects
        have the same one. 0 is background.
    ignore
        Ground truth of the pixels that do not count.

    Returns
    -------
    ndarray
        uint8, axes ``YXS``.

    Raises
    ------
    ValueError
        If the sizes differ.

    Examples
    --------
    >>> draw_error_map(np.array([[0, 1]]), np.array([[1, 1]])).tolist() == [
    ...     [list(ERROR_COLORS["false positive"]), list(ERROR_COLORS["correct"])]
    ... ]
    True
    """
    _check_same_size(truth_yx.shape, prediction_yx.shape)
    picture = np.zeros((*truth_yx.shape, 3), np.uint8)
    known = truth_yx != ignore
    truth, found = truth_yx != 0, prediction_yx != 0
    same = truth_yx == prediction_yx
    picture[truth & same] = ERROR_COLORS["correct"]
    picture[~truth & found] = ERROR_COLORS["false positive"]
    picture[truth & ~found] = ERROR_COLORS["false negative"]
    picture[truth & found & ~same] = ERROR_COLORS["wrong class or object"]
    picture[~known] = ERROR_COLORS["ignored"]
    return picture


def shrink_picture(rgb_yxs: Rgb, longest: int) -> Rgb:
    """Shrink a picture, by averaging, so that no side is longer than ``longest`` pixels.

    Parameters
    ----------
    rgb_yxs
        uint8, axes ``YXS``.
    longest
        Length of the longer side in pixels, at least 1.

    Returns
    -------
    ndarray
        uint8, axes ``YXS``; the picture itself if it is small enough.

    Examples
    --------
    >>> shrink_picture(np.zeros((40, 80, 3), np.uint8), 20).shape
    (10, 20, 3)
    """
    height, width = rgb_yxs.shape[:2]
    if max(height, width) <= longest:
        return rgb_yxs
    import cv2

    factor = longest / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(np.ascontiguousarray(rgb_yxs), size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _stretch(plane_yx: NDArray[Any], low: float, high: float) -> Rgb:
    if plane_yx.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return plane_yx
    values = np.nan_to_num(plane_yx.astype(np.float64), nan=low, posinf=low, neginf=low)
    stretched = (values - low) * (255.0 / (high - low) if high > low else 0.0)
    return np.rint(np.clip(stretched, 0, 255)).astype(np.uint8)


def _find_contour(labels_yx: NDArray[Any]) -> NDArray[np.bool_]:
    """Find the pixels that have a neighbour of another label above, below, left or right."""
    contour = np.zeros(labels_yx.shape, bool)
    down = labels_yx[1:] != labels_yx[:-1]
    right = labels_yx[:, 1:] != labels_yx[:, :-1]
    contour[1:] |= down
    contour[:-1] |= down
    contour[:, 1:] |= right
    contour[:, :-1] |= right
    return contour


def _check_same_size(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    if first != second:
        raise ValueError(f"both arrays must have the same size YX, got {first} and {second}")
