"""The eight symmetries of the square: rotated and mirrored versions of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SYMMETRIES = 8


def apply_symmetry(array: NDArray[Any], index: int) -> NDArray[Any]:
    """Version ``index`` of an array: 0 to 3 are its quarter turns, 4 to 7 those of its mirror image.

    Parameters
    ----------
    array
        Any number of axes, the last two Y and X, which odd quarter turns exchange.
    index
        0 to 7; 0 changes nothing.

    Returns
    -------
    ndarray
        A view.

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
    """What `apply_symmetry` made into ``array``; a view."""
    turned = np.rot90(array, -(index % 4), axes=(-2, -1))
    return turned[..., ::-1] if index >= 4 else turned
