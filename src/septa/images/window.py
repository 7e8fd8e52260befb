"""Windows of an image that may reach beyond it, where the image is mirrored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mirrored_window(
    array: NDArray[Any], begin_yx: tuple[int, int], end_yx: tuple[int, int], dtype: Any = None
) -> NDArray[Any]:
    """Rows and columns ``begin <= i < end`` of the last two axes, mirrored where they lie outside.

    Edge pixels are not repeated; a window that is wider than the image sees it mirrored again and again, and an axis
    of one pixel is that pixel everywhere (the U-Net paper's figure 2).

    Parameters
    ----------
    array
        Any number of axes, the last two Y and X, each at least 1; left untouched.
    begin_yx, end_yx
        Pixels, may be negative or beyond the image.
    dtype
        Of the result; that of ``array`` when not given.

    Returns
    -------
    ndarray
        A contiguous copy.

    Examples
    --------
    >>> mirrored_window(np.array([[0, 1, 2]]), (0, -3), (1, 6))
    array([[1, 2, 1, 0, 1, 2, 1, 0, 1]])
    """
    (y_slice, y_index), (x_slice, x_index) = (
        _mirror(begin, end, size) for begin, end, size in zip(begin_yx, end_yx, array.shape[-2:])
    )
    window = np.array(array[..., y_slice, x_slice], dtype, order="C")
    if y_index is not None:
        window = np.take(window, y_index, axis=-2)
    if x_index is not None:
        window = np.take(window, x_index, axis=-1)
    return np.ascontiguousarray(window)


def _mirror(begin: int, end: int, size: int) -> tuple[slice, NDArray[np.int64] | None]:
    """The part of an axis that mirrored positions begin..end touch, and their index within it (None: all, in order)."""
    if begin >= 0 and end <= size:
        return slice(begin, end), None
    period = max(2 * (size - 1), 1)
    index = np.arange(begin, end) % period
    index = np.minimum(index, period - index) if size > 1 else np.zeros_like(index)
    first = int(index.min())
    return slice(first, int(index.max()) + 1), index - first
