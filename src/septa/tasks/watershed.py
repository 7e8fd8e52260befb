"""The watershed: regions that grow from seeds and meet where the ground is highest."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel

Int32 = npt.NDArray[np.int32]


def watershed(height_yx: npt.NDArray[np.uint8], seeds_yx: npt.NDArray[Any], mask_yx: npt.NDArray[np.bool_]) -> Int32:
    """Grow seeds over the mask, the lowest ground first; between equals, what was reached first goes on first.

    As `skimage.segmentation.watershed` with 4-connected pixels, but heights are whole numbers, so that a queue for each
    of them replaces the heap.

    Parameters
    ----------
    height_yx
        uint8, axes YX.
    seeds_yx
        Integer ids, 0 where there is no seed; seeds outside the mask do not grow and are left out.
    mask_yx
        Where regions may be.

    Returns
    -------
    ndarray
        int32 YX: ids of the seeds; 0 outside the mask and where no seed reaches.

    Raises
    ------
    ValueError
        The sizes differ.

    Examples
    --------
    >>> height_yx = np.array([[0, 1, 9, 1, 0]], np.uint8)
    >>> watershed(height_yx, np.array([[1, 0, 0, 0, 2]]), np.ones((1, 5), bool))
    array([[1, 1, 1, 2, 2]], dtype=int32)
    """
    if not height_yx.shape == seeds_yx.shape == mask_yx.shape or height_yx.ndim != 2:
        shapes = f"{height_yx.shape}, {seeds_yx.shape} and {mask_yx.shape}"
        raise ValueError(f"height, seeds and mask must have the same size YX, got {shapes}")
    rows, columns = height_yx.shape
    # A frame that is never entered spares the loop all questions about edges.
    labels = np.full((rows + 2, columns + 2), -1, np.int32)
    labels[1:-1, 1:-1] = np.where(mask_yx, seeds_yx, -1)
    heights = np.zeros(labels.shape, np.uint8)
    heights[1:-1, 1:-1] = height_yx
    _flood(labels.reshape(-1), heights.reshape(-1), columns + 2)
    return np.maximum(labels[1:-1, 1:-1], 0)


@Kernel
def _flood(labels: Int32, heights: npt.NDArray[np.uint8], width: int) -> None:
    """Flat padded arrays; label -1 is never entered, 0 is free. Queues are linked lists of pixels, one a height."""
    after = np.full(labels.size, -1, np.int32)
    first, last = np.full(256, -1, np.int64), np.full(256, -1, np.int64)
    for pixel in range(labels.size):
        if labels[pixel] > 0:
            level = heights[pixel]
            if first[level] < 0:
                first[level] = pixel
            else:
                after[last[level]] = pixel
            last[level] = pixel
    lowest = 0
    while lowest < 256:
        pixel = first[lowest]
        if pixel < 0:
            lowest += 1
            continue
        first[lowest] = after[pixel]
        for step in (-width, -1, 1, width):
            near = pixel + step
            if labels[near] == 0:
                labels[near] = labels[pixel]
                level = heights[near]
                if first[level] < 0:
                    first[level] = near
                else:
                    after[last[level]] = near
                last[level] = near
                lowest = min(lowest, level)
