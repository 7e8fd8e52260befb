"""Growth of regions into thin walls, so that walls get narrow but no two regions merge.

It thins the walls in parallel passes, each from one of the four directions. A pass changes a pixel only if this changes
neither the number of 4-connected regions nor that of 8-connected walls, as far as its 3 x 3 pixels show. Rosenfeld
proved that all such pixels of one direction can change at once. So every pass is a function of 3 x 3 pixels, and the
result does not depend on where an image is cut.

References
----------
Rosenfeld 1975, A characterization of parallel thinning algorithms, doi 10.1016/S0019-9958(75)90448-9.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel

Mask = npt.NDArray[np.bool_]

PIXELS_PER_STEP = 4
"""Largest distance in pixels from which one step of `grow_regions` can change a pixel."""


def grow_regions(regions_yx: Mask, allowed_yx: Mask, steps: int) -> Mask:
    """Grow the 4-connected regions of a mask into allowed pixels, without merging, splitting or making any.

    Parameters
    ----------
    regions_yx
        True in regions, bool ``YX``. Pixels beyond the array are walls.
    allowed_yx
        Pixels into which regions may grow, bool ``YX``.
    steps
        Number of pixels by which a region grows at most in each direction.

    Returns
    -------
    ndarray
        bool ``YX``, a new array that holds the regions. A pixel does not depend on pixels that are further away than
        ``PIXELS_PER_STEP * steps`` rows or columns.

    Examples
    --------
    >>> regions_yx = np.array([[1, 1, 0, 0, 0, 1, 1]] * 3, bool)
    >>> grow_regions(regions_yx, np.ones((3, 7), bool), steps=1).astype(int)[1]
    array([1, 1, 1, 0, 1, 1, 1])
    """
    padded_yx = np.pad(regions_yx, 1)
    candidates = np.flatnonzero(np.pad(allowed_yx & ~regions_yx, 1))
    if candidates.size and steps:
        _grow(padded_yx.reshape(-1), candidates, _find_simple(), padded_yx.shape[1], steps)
    return padded_yx[1:-1, 1:-1].copy()


@functools.cache
def _find_simple() -> Mask:
    """Return for each of the 256 neighbourhoods of a wall pixel whether it can join the regions.

    Bit k is the k-th neighbour counter-clockwise, 1 in a region. By Yokoi's formula, one 4-connected region must meet
    in the pixel. A pixel with a single neighbour in the walls is the end of one, and stays.
    """
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    meeting = sum(bits[:, k] - bits[:, k] * bits[:, k + 1] * bits[:, (k + 2) % 8] for k in (0, 2, 4, 6))
    return np.asarray((meeting == 1) & (bits.sum(axis=1) < 7), bool)


@Kernel
def _grow(mask: Mask, candidates: npt.NDArray[np.int64], simple: Mask, width: int, steps: int) -> None:
    """Add candidates to a flat padded mask in place; ``candidates`` is overwritten."""
    ring = (1, 1 - width, -width, -1 - width, -1, width - 1, width, width + 1)
    joined = np.empty(candidates.size, np.int64)
    left = candidates.size
    for _ in range(steps):
        for direction in (-width, width, -1, 1):
            found = kept = 0
            for k in range(left):
                p = candidates[k]
                index = 0
                if mask[p + direction]:
                    for bit in range(8):
                        if mask[p + ring[bit]]:
                            index |= 1 << bit
                if simple[index]:
                    joined[found] = p
                    found += 1
                else:
                    candidates[kept] = p
                    kept += 1
            left = kept
            for k in range(found):
                mask[joined[k]] = True
