"""Objects that have a class each: id and class in one number, so that whatever moves ids moves classes with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def with_classes(ids_yx: NDArray[Any], class_yx: NDArray[Any], classes: int) -> NDArray[np.int32]:
    """Number objects anew, so that the class of each is its number modulo ``classes``.

    Parameters
    ----------
    ids_yx
        Object ids, integers; 0 is background, and what is below 0 stays as it is.
    class_yx
        Class of each object at its pixels, 1 to ``classes - 1``, the same at all of them.
    classes
        Number of classes, background included.

    Returns
    -------
    ndarray
        int32 YX: the n-th object, by ascending id and from 1, is ``n * classes`` plus its class.

    Examples
    --------
    >>> with_classes(np.array([[7, 7, 0, 9]]), np.array([[2, 2, 0, 1]]), 3)
    array([[5, 5, 0, 7]], dtype=int32)
    """
    inside_yx = ids_yx > 0
    ids = np.unique(ids_yx[inside_yx])
    numbers_yx = (np.searchsorted(ids, ids_yx) + 1) * classes + class_yx
    return np.where(inside_yx, numbers_yx, ids_yx).astype(np.int32)


def classes_of(numbers_yx: NDArray[Any], classes: int) -> NDArray[np.int32]:
    """The class of each pixel of what `with_classes` gives: 0 is background, and what is below 0 stays as it is.

    Examples
    --------
    >>> classes_of(np.array([[5, 5, 0, 7, -1]]), 3)
    array([[ 2,  2,  0,  1, -1]], dtype=int32)
    """
    return np.where(numbers_yx > 0, numbers_yx % classes, numbers_yx).astype(np.int32)


def majority_classes(ids_yx: NDArray[Any], votes_yx: NDArray[Any]) -> NDArray[Any]:
    """Give all pixels of an object the value that most of them have, not counting 0.

    Parameters
    ----------
    ids_yx
        Object ids, integers; 0 is background.
    votes_yx
        A value for each pixel, integers.

    Returns
    -------
    ndarray
        YX in the dtype of ``votes_yx``: the value of each object, the lowest of equals; 0 in background and in objects
        without any.

    Examples
    --------
    >>> majority_classes(np.array([[7, 7, 7, 7, 0, 9]]), np.array([[5, 4, 5, 0, 4, 0]]))
    array([[5, 5, 5, 5, 0, 0]])
    """
    ids, objects_yx = np.unique(ids_yx, return_inverse=True)
    values, choices_yx = np.unique(votes_yx, return_inverse=True)
    both = objects_yx.ravel() * values.size + choices_yx.ravel()
    votes = np.bincount(both, minlength=ids.size * values.size).reshape(ids.size, values.size)
    votes[:, values == 0] = 0
    winners = np.where(votes.any(axis=1) & (ids != 0), values[votes.argmax(axis=1)], 0).astype(votes_yx.dtype)
    return np.asarray(winners[objects_yx.reshape(ids_yx.shape)])
