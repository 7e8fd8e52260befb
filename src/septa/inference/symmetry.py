"""The eight symmetries of the square: rotated and mirrored versions of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SYMMETRIES = 8
"""Number of versions."""


def apply_symmetry(array: NDArray[Any], index: int) -> NDArray[Any]:
    """Return a rotated or mirrored version of an array.

    Parameters
    ----------
    array
        Array ``(..., Y, X)``.
    index
        Number of the version, 0 to 7: 0 to 3 are the quarter turns of the array, counterclockwise; 4 to 7 are those of
        the array mirrored left to right.

    Returns
    -------
    ndarray
        View of the array; odd numbers exchange the lengths of Y and X.

    Examples
    --------
    >>> apply_symmetry(np.array([[1, 2, 3]]), 1)
    array([[3],
           [2],
           [1]])
    >>> undo_symmetry(apply_symmetry(np.array([[1, 2, 3]]), 5), 5)
    array([[1, 2, 3]])
    """
    mirrored = array[..., ::-1] if index >= 4 else array
    return np.rot90(mirrored, index % 4, axes=(-2, -1))


def undo_symmetry(array: NDArray[Any], index: int) -> NDArray[Any]:
    """Return the array from which `apply_symmetry` with the same ``index`` gives ``array``, as a view."""
    turned = np.rot90(array, -(index % 4), axes=(-2, -1))
    return turned[..., ::-1] if index >= 4 else turned
