"""Loops over pixels as machine code: kernels that numba compiles at their first call, and connected regions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Kernel:
    """A function of arrays and numbers that numba compiles at its first call.

    Before this call, numba is not imported and nothing is compiled: both take seconds that most uses of septa never
    need. Threads that call meanwhile wait. The interpreter's lock is released while the machine code runs. numba caches
    this code next to the file of the function, or in the user's cache folder.

    Parameters
    ----------
    function
        A function that numba can compile in nopython mode.

    Examples
    --------
    >>> import numpy as np
    >>> @Kernel
    ... def double(values):
    ...     for i in range(values.size):
    ...         values[i] *= 2
    >>> values = np.array([1, 2, 3])
    >>> double(values)
    >>> values
    array([2, 4, 6])
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._compiled: Callable[..., Any] | None = None
        self._lock = threading.Lock()
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        """Run the machine code; the first call compiles it."""
        if self._compiled is None:
            with self._lock:
                return self._first_call(arguments)
        return self._compiled(*arguments)

    def _first_call(self, arguments: tuple[Any, ...]) -> Any:
        if self._compiled is not None:  # another thread has compiled it meanwhile
            return self._compiled(*arguments)
        import numba

        try:
            compiled = numba.njit(nogil=True, cache=True)(self._function)
            result = compiled(*arguments)
        except Exception:  # numba cannot use its cache: a read-only folder, a full disk, a damaged file
            compiled = numba.njit(nogil=True)(self._function)
            result = compiled(*arguments)
        self._compiled = compiled
        return result


def label_mask(mask_yx: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Label the 4-connected regions of a mask.

    It serves seeds and holes of objects, classes as objects, and segments between membranes.

    Parameters
    ----------
    mask_yx
        bool ``YX``; left untouched.

    Returns
    -------
    ndarray
        int32 ``YX``: 0 outside the mask, regions are 1 to n.

    Examples
    --------
    >>> label_mask(np.eye(2, dtype=bool))
    array([[1, 0],
           [0, 2]], dtype=int32)
    """
    import cv2  # takes a tenth of a second, which printing a help page need not spend

    if not mask_yx.size:
        return np.zeros(mask_yx.shape, np.int32)
    _, regions_yx = cv2.connectedComponents(np.ascontiguousarray(mask_yx).view(np.uint8), connectivity=4)
    return np.asarray(regions_yx, np.int32)


def label_parts(ids_yx: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Label the 4-connected parts of equal ids.

    Parameters
    ----------
    ids_yx
        Ids, any integer type ``YX``; values of 0 and below are background.

    Returns
    -------
    ndarray
        int32 ``YX``: 0 is background, parts are 1 to n in the order of their first pixels, row by row.

    Examples
    --------
    >>> label_parts(np.array([[5, 5, 3], [0, 3, 3], [5, 0, 0]]))
    array([[1, 1, 2],
           [0, 2, 2],
           [3, 0, 0]], dtype=int32)
    """
    height, width = ids_yx.shape
    if not ids_yx.size:
        return np.zeros(ids_yx.shape, np.int32)
    # Pixels lie at even places, and at the odd ones between them is what joins two pixels of one id.
    grid_yx = np.zeros((2 * height - 1, 2 * width - 1), bool)
    grid_yx[::2, ::2] = inside_yx = ids_yx > 0
    grid_yx[1::2, ::2] = (ids_yx[1:] == ids_yx[:-1]) & inside_yx[1:]
    grid_yx[::2, 1::2] = (ids_yx[:, 1:] == ids_yx[:, :-1]) & inside_yx[:, 1:]
    return np.ascontiguousarray(label_mask(grid_yx)[::2, ::2])


def load() -> None:
    """Import numba and compile a first kernel now, in a process that will need it."""
    _do_nothing()


@Kernel
def _do_nothing() -> None:
    """Do nothing; numba loads its compiler with the first kernel."""
