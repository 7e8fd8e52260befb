"""Augmentation of training patches: geometry of image and labels together, intensities of the image alone.

All geometric changes (flip, turn, rotation, magnification, elastic deformation) are composed into one displacement
field. It is applied once, from the full image to the patch. Pixels are therefore interpolated a single time, and
corners are filled with mirrored image only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from septa.images import cut_mirrored
from septa.recipe import AugmentSettings

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


def crop_patch(
    image_cyx: npt.NDArray[Any], labels_yx: npt.NDArray[Any], center_yx: tuple[int, int], patch_hw: tuple[int, int]
) -> tuple[Float32, Int32]:
    """Cut a patch without changing any pixel.

    Outside the image the patch is mirrored; edge pixels are not repeated.

    Parameters
    ----------
    image_cyx
        Image ``CYX`` with any number of channels, any real dtype, any size.
    labels_yx
        Encoded labels ``YX``, integer, of the same height and width.
    center_yx
        Pixel of the image that becomes pixel ``(patch_height // 2, patch_width // 2)`` of the patch. It may lie
        outside the image.
    patch_hw
        Height and width of the patch in pixels, each at least 1.

    Returns
    -------
    image_cyx, labels_yx
        Copies: float32 in the image's own units, and int32.

    Raises
    ------
    ValueError
        If image and labels differ in size or have the wrong number of axes, or a side of the patch is below 1.

    Examples
    --------
    >>> image_cyx = np.arange(12).reshape(1, 3, 4)
    >>> patch_cyx, labels_yx = crop_patch(image_cyx, image_cyx[0], (0, 0), (3, 3))
    >>> labels_yx
    array([[5, 4, 5],
           [1, 0, 1],
           [5, 4, 5]], dtype=int32)
    """
    _check(image_cyx, labels_yx, patch_hw)
    top, left = (center - size // 2 for center, size in zip(center_yx, patch_hw))
    height, width = patch_hw
    begin_yx, end_yx = (top, left), (top + height, left + width)
    image_cyx = cut_mirrored(image_cyx, begin_yx, end_yx, np.float32)
    return image_cyx, cut_mirrored(labels_yx, begin_yx, end_yx, np.int32)


def warp_patch(
    image_cyx: npt.NDArray[Any],
    labels_yx: npt.NDArray[Any],
    center_yx: tuple[int, int],
    patch_hw: tuple[int, int],
    augment: AugmentSettings,
    rng: np.random.Generator,
) -> tuple[Float32, Int32]:
    """Cut a patch with random geometry: flip, turn, rotation, magnification and elastic deformation.

    Image pixels are interpolated linearly. Labels are taken from the nearest pixel, so no new label value arises.
    Flips of each axis and the four turns are equally likely. The rotation is uniform in ``[-rotate, rotate]``, and the
    logarithm of the magnification is uniform between the logarithms of ``scale``. Without rotation, magnification and
    deformation the result is exact: the flipped and turned `crop_patch`. A quarter turn of a patch that is not square
    reads a window with height and width exchanged.

    The elastic deformation follows Ronneberger, Fischer and Brox, "U-Net" (2015), section 3.1: random displacements
    on a coarse grid, here in pixels of the image, are interpolated bicubically.

    Parameters
    ----------
    image_cyx, labels_yx, center_yx, patch_hw
        As for `crop_patch`. All changes act about the centre of the window that `crop_patch` would cut.
    augment
        Settings; those of `jitter_patch` are not used here.
    rng
        Source of all randomness; its state determines the result.

    Returns
    -------
    image_cyx, labels_yx
        float32 in the image's own units, and int32.

    Raises
    ------
    ValueError
        If image and labels differ in size or have the wrong number of axes, or a side of the patch is below 1.
    """
    _check(image_cyx, labels_yx, patch_hw)
    geometry = _draw_geometry(augment, rng)
    map_y, map_x = _compute_positions(geometry, patch_hw)
    source_hw = patch_hw[::-1] if geometry.turned_sideways else patch_hw
    begin_yx, end_yx = [], []
    for position, center, size in zip((map_y, map_x), center_yx, source_hw):
        middle = center - size // 2 + (size - 1) / 2
        first = math.floor(middle + float(position.min()))
        begin_yx.append(first)
        # Two pixels beyond the last position: linear interpolation reads a right-hand neighbour even at weight 0.
        end_yx.append(math.floor(middle + float(position.max())) + 2)
        # Positions relative to the window are small, hence exact in float32, however large the image is.
        position += np.float32(middle - first)
    begin, end = (begin_yx[0], begin_yx[1]), (end_yx[0], end_yx[1])
    window_cyx = cut_mirrored(image_cyx, begin, end, np.float32)
    window_labels_yx = cut_mirrored(labels_yx, begin, end, np.int32)
    warped_cyx = np.empty((len(window_cyx), *patch_hw), np.float32)
    for plane, target in zip(window_cyx, warped_cyx):
        target[...] = cv2.remap(plane, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    warped_labels_yx: Any = cv2.remap(
        window_labels_yx, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101
    )
    return warped_cyx, warped_labels_yx


def jitter_patch(patch_cyx: Float32, augment: AugmentSettings, rng: np.random.Generator) -> Float32:
    """Change the intensities of a normalised patch: contrast, brightness, gamma, blur and noise, in this order.

    Contrast and brightness change in every patch; gamma, blur and noise each with probability
    ``augment.probability``. Contrast, brightness and gamma are drawn for each channel, blur and the strength of the
    noise for all channels together. Gamma acts on the patch rescaled to 0..1 and keeps its smallest and largest value.

    Parameters
    ----------
    patch_cyx
        Normalised image ``CYX``, float32; left untouched.
    augment
        Settings; those of `warp_patch` are not used here.
    rng
        Source of all randomness; its state determines the result.

    Returns
    -------
    patch_cyx
        float32, a new array of the same shape.
    """
    channels = len(patch_cyx)
    column = (channels, 1, 1)
    contrast = rng.uniform(1 - augment.contrast, 1 + augment.contrast, column).astype(np.float32)
    brightness = rng.uniform(-augment.brightness, augment.brightness, column).astype(np.float32)
    mean = patch_cyx.mean(axis=(1, 2), keepdims=True)
    changed_cyx = patch_cyx * contrast
    changed_cyx += mean * (1 - contrast) + brightness
    if rng.random() < augment.probability:
        low, high = np.log(augment.gamma)
        for plane, exponent in zip(changed_cyx, np.exp(rng.uniform(low, high, channels))):
            _apply_gamma(plane, float(exponent))
    if rng.random() < augment.probability:
        sigma = rng.uniform(0, augment.blur)
        if sigma > 0:
            for plane in changed_cyx:
                plane[...] = cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    if rng.random() < augment.probability:
        strength = np.float32(rng.uniform(0, augment.noise))
        changed_cyx += strength * rng.standard_normal(changed_cyx.shape, np.float32)
    return changed_cyx


@dataclass(frozen=True)
class _Geometry:
    """Random geometry of one patch.

    Attributes
    ----------
    matrix
        Map from offsets (y, x) from the middle of the patch to offsets (y, x) in the image.
    turned_sideways
        True if the window has the patch's height and width exchanged.
    nodes_yxd
        Displacement (d = y, x) at each node of the coarse grid, pixels of the image; None without deformation.
    """

    matrix: npt.NDArray[np.float64]
    turned_sideways: bool
    nodes_yxd: Float32 | None


def _draw_geometry(augment: AugmentSettings, rng: np.random.Generator) -> _Geometry:
    turns = int(rng.integers(4)) if augment.turn else 0
    flips = 1 - 2 * rng.integers(2, size=2) if augment.flip else np.ones(2, np.int64)
    angle = math.radians(rng.uniform(-augment.rotate, augment.rotate))
    magnification = math.exp(rng.uniform(*np.log(augment.scale)))
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    quarter_turn = np.array([[0, 1], [-1, 0]])
    matrix = rotation / magnification @ np.linalg.matrix_power(quarter_turn, turns) @ np.diag(flips)
    nodes_yxd = None
    if augment.elastic > 0 and rng.random() < augment.probability:
        grid = augment.elastic_grid
        nodes_yxd = np.float32(augment.elastic) * rng.standard_normal((grid, grid, 2), np.float32)
    return _Geometry(matrix, turns % 2 == 1, nodes_yxd)


def _compute_positions(geometry: _Geometry, patch_hw: tuple[int, int]) -> tuple[Float32, Float32]:
    """Compute where each pixel of the patch is read from: y and x relative to the middle of the window."""
    height, width = patch_hw
    offset_y = np.arange(height)[:, None] - (height - 1) / 2
    offset_x = np.arange(width)[None, :] - (width - 1) / 2
    map_y, map_x = (
        (row[0] * offset_y).astype(np.float32) + (row[1] * offset_x).astype(np.float32) for row in geometry.matrix
    )
    if geometry.nodes_yxd is not None:
        for position, nodes_yx in zip((map_y, map_x), np.moveaxis(geometry.nodes_yxd, -1, 0)):
            position += cv2.resize(np.ascontiguousarray(nodes_yx), (width, height), interpolation=cv2.INTER_CUBIC)
    return map_y, map_x


def _apply_gamma(plane_yx: Float32, exponent: float) -> None:
    low, high = float(plane_yx.min()), float(plane_yx.max())
    if not low < high:
        return
    unit_yx = (plane_yx - np.float32(low)) / np.float32(high - low)
    plane_yx[...] = cv2.pow(unit_yx, exponent)
    plane_yx *= np.float32(high - low)
    plane_yx += np.float32(low)


def _check(image_cyx: npt.NDArray[Any], labels_yx: npt.NDArray[Any], patch_hw: tuple[int, int]) -> None:
    if image_cyx.ndim != 3 or labels_yx.ndim != 2 or image_cyx.shape[1:] != labels_yx.shape or 0 in image_cyx.shape:
        raise ValueError(
            "image (C, Y, X) and labels (Y, X) must have the same Y and X and not be empty, "
            f"got {image_cyx.shape} and {labels_yx.shape}"
        )
    if min(patch_hw) < 1:
        raise ValueError(f"a patch must have at least one pixel per side, got {patch_hw}")
