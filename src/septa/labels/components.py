"""Connected regions of class labels as separate objects."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.kernels import label_mask


def label_components(labels_yx: NDArray[Any]) -> NDArray[np.int32]:
    """Give every 4-connected region of equal labels an id of its own.

    `septa.kernels.label_mask` does the same for a mask.

    Parameters
    ----------
    labels_yx
        Class indices or any other integers, ``YX``; values of 0 and below are background.

    Returns
    -------
    ndarray
        int32 ``YX``: 0 is background, regions are 1 to n, those of the lowest label first.

    Examples
    --------
    >>> label_components(np.array([[1, 0, 1], [0, 1, 2]]))
    array([[1, 0, 2],
           [0, 3, 4]], dtype=int32)
    """
    ids_yx = np.zeros(labels_yx.shape, np.int32)
    found = 0
    for value in np.unique(labels_yx):
        if value > 0:
            regions_yx = label_mask(labels_yx == value)
            np.add(regions_yx, found, out=ids_yx, where=regions_yx > 0, casting="unsafe")
            found += int(regions_yx.max())
    return ids_yx
