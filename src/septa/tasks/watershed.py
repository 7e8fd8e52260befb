"""The watershed: regions that grow from seeds and meet where the ground is highest.

What a pixel gets follows from a definition, and from no order in which pixels are visited. Only so can an image be cut
into windows that give, together, what the whole gives. Pixels have 4 neighbours, and a way runs through the mask alone.

*Cost* of a way from a seed pixel: ``(m, k)``, m its highest ground, both ends included, k its steps since it first
was as high as m. One step on, to ground h, makes ``(h, 0)`` of it where h > m, else ``(m, k + 1)``. So a longer way
costs more, and of two ways that go on alike the dearer one is never the cheaper one later. Costs are compared by m,
then by k.
*Cost* of a pixel: the least of all ways to it; that of a seed pixel is ``(its ground, 0)``.
*Parent* of a pixel that is no seed: of the neighbours from which one step gives the pixel its cost the one of the
least cost, and of several such the first of up, left, right, down. Parents cost less than their pixels, so that
following them ends at a seed pixel, whose id the pixel gets.

Windows of a larger image: on an open side, where the image goes on beyond the window, every pixel of the outermost
line that is no seed starts a way of cost ``(its ground, 0)``, the least that any way through the unseen part could
have; and so does every pixel that may or may not be of the mask. Pixels that follow their parents to such a start are
uncertain; all others have the id that the whole image gives them:

1. No pixel has a higher cost in the window than in the whole image: for those on the outermost line, and for the
   unsure ones, it is the least possible, and the other ways are the same.
2. Let p be certain. The pixels from p to its seed pixel are a way that the image has too, so the cost of each of them
   is the same in both. Let q be p's parent in the whole image; it lies in the window, as p is not on an open line. By
   1 it costs no more in the window, and yet a step from it cannot undercut p's cost, so it gives p this cost in the
   window as well: q was among the candidates there, no worse than in the image. A parent preferred to it in the
   window is certain, costs the same in the image, and would have been preferred there. So the parent is q, and so on
   down to the seed.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel

Int32 = npt.NDArray[np.int32]
Scalar = TypeVar("Scalar", bound=np.generic)
Sides = tuple[bool, bool, bool, bool]
"""Something about the top, bottom, left and right side."""

UNCERTAIN = -1
"""Label of pixels whose object depends on what lies beyond the window."""


def watershed(
    height_yx: npt.NDArray[np.uint8],
    seeds_yx: npt.NDArray[Any],
    mask_yx: npt.NDArray[np.bool_],
    open_sides: Sides = (False, False, False, False),
    unsure_yx: npt.NDArray[np.bool_] | None = None,
) -> Int32:
    """Grow seeds over the mask, the lowest ground first; on equal ground the nearest seed goes on first.

    As `skimage.segmentation.watershed` with 4-connected pixels where heights differ. Where they tie the result is
    defined at the top of this file, and mirroring or turning the image changes no more than the choice among equals.

    Parameters
    ----------
    height_yx
        uint8, axes YX.
    seeds_yx
        Integer ids above 0, 0 where there is no seed; seeds outside the mask do not grow and are left out.
    mask_yx
        Where regions may be.
    open_sides
        Whether the image goes on beyond the top, bottom, left and right side.
    unsure_yx
        Pixels of the mask of which only the whole image tells whether regions may be there at all.

    Returns
    -------
    ndarray
        int32 YX: ids of the seeds; 0 outside the mask and where no seed reaches; `UNCERTAIN` where the part of the
        image beyond the open sides might change the id.

    Raises
    ------
    ValueError
        The sizes differ.

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
    # A frame that is never entered spares the loop all questions about edges.
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
    kind = np.int32 if labels.size < 2**29 else np.int64  # there are up to four ranks for each pixel
    ranks = np.full(labels.shape, -1, kind)
    free = np.iinfo(kind).max
    ranks[1:-1, 1:-1][mask_yx & (labels_yx == 0)] = free
    _flood(labels.reshape(-1), heights.reshape(-1), ranks.reshape(-1), columns + 2, free)
    return labels_yx


def get_outer_lines(values_yx: npt.NDArray[Scalar]) -> tuple[npt.NDArray[Scalar], ...]:
    """Views of the top, bottom, left and right line."""
    return values_yx[0], values_yx[-1], values_yx[:, 0], values_yx[:, -1]


@Kernel
def _flood(labels: Int32, heights: npt.NDArray[np.uint8], ranks: npt.NDArray[Any], width: int, free: int) -> None:
    """Flat padded arrays; rank of a pixel: its parent's group and direction, `free` at first, -1 if never entered.

    Pixels wait in linked lists, one for each m of their cost. Within a list they stand in groups of the same k, as
    those of a group are followed by what they reach. A parent's whole group is done before its children's turn comes,
    so that a pixel that waits may still change to a neighbour that the definition prefers.
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
