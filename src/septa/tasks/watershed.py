"""A watershed in which seeds grow over the lowest ground first and regions meet where the ground is highest.

The id of a pixel follows from a definition, not from the order in which pixels are visited. This makes it possible to
cut an image into windows that together give the result of the whole image. Pixels have 4 neighbours, and paths run
through the mask alone.

*Cost* of a path from a seed pixel: ``(m, k)``. m is its highest ground, both ends included; k is the number of steps
since the path first was as high as m. One step further, to ground h, gives ``(h, 0)`` if h > m, else ``(m, k + 1)``.
So a longer path costs more. Of two paths that continue in the same way, the more expensive one never becomes the
cheaper one. Costs are compared by m, then by k.
*Cost* of a pixel: the least cost of all paths to it; that of a seed pixel is ``(its ground, 0)``.
*Parent* of a pixel that is not a seed: among the neighbours from which one step gives the pixel its cost, the one of
the least cost, and of several such the first of up, left, right, down. A parent costs less than its pixel, so the
parents of a pixel lead to a seed pixel, whose id the pixel gets.

Windows of a larger image: on an open side the image continues beyond the window. There, every pixel of the outermost
line that is not a seed starts a path of cost ``(its ground, 0)``. No path through the unseen part can cost less.
Pixels of which only the whole image shows whether they belong to the mask start such a path too. Pixels whose parents
lead to such a start are uncertain. All others have the id that the whole image gives them:

1. No pixel costs more in the window than in the whole image: the pixels of the outermost line and the unsure ones have
   the least possible cost, and all other paths are the same.
2. Let p be certain. The pixels from p to its seed pixel are a path of the whole image too, so each of them has the same
   cost in both. Let q be p's parent in the whole image; q lies in the window, as p is not on an open line. By 1, q
   costs no more in the window. A step from q cannot undercut p's cost there, so it gives p its cost in the window as
   well. Thus q was a candidate in the window, no worse than in the whole image. A parent that the window preferred to q
   is certain, has the same cost in the whole image, and would have been preferred there. So q is the parent in the
   window, and the same holds for q and all further parents down to the seed.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel

Int32 = npt.NDArray[np.int32]
Scalar = TypeVar("Scalar", bound=np.generic)
Sides = tuple[bool, bool, bool, bool]
"""One truth value for the top, bottom, left and right side."""

UNCERTAIN = -1
"""Label of pixels whose object depends on the image beyond the window."""


def watershed(
    height_yx: npt.NDArray[np.uint8],
    seeds_yx: npt.NDArray[Any],
    mask_yx: npt.NDArray[np.bool_],
    open_sides: Sides = (False, False, False, False),
    unsure_yx: npt.NDArray[np.bool_] | None = None,
) -> Int32:
    """Grow seeds over the mask, the lowest ground first; on equal ground the nearest seed grows first.

    Where heights differ, the result is that of `skimage.segmentation.watershed` with 4-connected pixels. Ties are
    resolved as defined at the top of this file. Mirroring or rotating the image changes only the choice between equals.

    Parameters
    ----------
    height_yx
        Ground, uint8 ``YX``.
    seeds_yx
        Ids of the seeds, integers ``YX`` above 0; 0 where there is no seed. Seeds outside the mask are ignored.
    mask_yx
        Pixels that regions may cover, bool ``YX``.
    open_sides
        True where the image continues beyond the top, bottom, left and right side.
    unsure_yx
        Pixels of the mask of which only the whole image shows whether they belong to it, bool ``YX``.

    Returns
    -------
    ndarray
        int32 ``YX``: ids of the seeds; 0 outside the mask and where no seed arrives; `UNCERTAIN` where the image beyond
        the open sides may change the id.

    Raises
    ------
    ValueError
        The arrays differ in size.

    Examples
    --------
    >>> height_yx = np.array([[0, 1, 9, 1, 0]], np.uint8)
    >>> seeds_yx, mask_yx = np.array([[1, 0, 0, 0, 2]]), np.ones((1, 5), bool)
    >>> watershed(height_yx, seeds_yx, mask_yx)
    array([[1, 1, 1, 2, 2]], dtype=int32)
    >>> watershed(height_yx[:, :4], seeds_yx[:, :4], mask_yx[:, :4], (False, False, False, True))
    array([[ 1,  1,  1, -1]], dtype=int32)
    """
    if not height_yx.shape == seeds_yx.shape == mask_yx.shape or height_yx.ndim != 2:
        shapes = f"{height_yx.shape}, {seeds_yx.shape} and {mask_yx.shape}"
        raise ValueError(f"height, seeds and mask must have the same size YX, got {shapes}")
    rows, columns = height_yx.shape
    # With a frame that is never entered, the loop needs no checks for edges.
    labels = np.zeros((rows + 2, columns + 2), np.int32)
    labels_yx = labels[1:-1, 1:-1]
    np.copyto(labels_yx, seeds_yx, where=mask_yx, casting="unsafe")
    if height_yx.size:
        for lines, masks, opened in zip(get_outer_lines(labels_yx), get_outer_lines(mask_yx), open_sides):
            lines[masks & (lines == 0) & opened] = UNCERTAIN
    if unsure_yx is not None:
        labels_yx[unsure_yx & mask_yx & (labels_yx == 0)] = UNCERTAIN
    heights = np.zeros(labels.shape, np.uint8)
    heights[1:-1, 1:-1] = height_yx
    kind = np.int32 if labels.size < 2**29 else np.int64  # up to four ranks per pixel
    ranks = np.full(labels.shape, -1, kind)
    free = np.iinfo(kind).max
    ranks[1:-1, 1:-1][mask_yx & (labels_yx == 0)] = free
    _flood(labels.reshape(-1), heights.reshape(-1), ranks.reshape(-1), columns + 2, free)
    return labels_yx


def get_outer_lines(values_yx: npt.NDArray[Scalar]) -> tuple[npt.NDArray[Scalar], ...]:
    """Return views of the top, bottom, left and right line."""
    return values_yx[0], values_yx[-1], values_yx[:, 0], values_yx[:, -1]


@Kernel
def _flood(labels: Int32, heights: npt.NDArray[np.uint8], ranks: npt.NDArray[Any], width: int, free: int) -> None:
    """Grow the labels of flat padded arrays in place.

    The rank of a pixel is its parent's group and direction; it is ``free`` at first, and -1 where nothing grows.

    Pixels wait in linked lists, one for each m of their cost. Within a list, pixels of one k form a group, because the
    pixels that a group reaches are appended after it. The group of a parent is complete before its children are
    visited, so a waiting pixel can still change to a neighbour that the definition prefers.
    """
    after = np.full(labels.size, -1, ranks.dtype)
    first, last = np.full(256, -1, np.int64), np.full(256, -1, np.int64)
    for pixel in range(labels.size):
        if labels[pixel] != 0:
            inside = True
            for near in (pixel - width, pixel - 1, pixel + 1, pixel + width):
                inside = inside and ranks[near] < 0
            if not inside:
                level = heights[pixel]
                if first[level] < 0:
                    first[level] = pixel
                else:
                    after[last[level]] = pixel
                last[level] = pixel
    steps = np.array([width, 1, -1, -width])  # to the pixel whose parent is up, left, right, down
    group = 0
    for lowest in range(256):
        pixel, end = first[lowest], last[lowest]
        while pixel >= 0:
            for direction in range(4):
                near = pixel + steps[direction]
                rank = 4 * group + direction
                if rank < ranks[near]:
                    if ranks[near] == free:
                        level = max(lowest, heights[near])
                        if first[level] < 0:
                            first[level] = near
                        else:
                            after[last[level]] = near
                        last[level] = near
                    ranks[near] = rank
                    labels[near] = labels[pixel]
            if pixel == end:
                group += 1
                end = last[lowest]
            pixel = after[pixel]
