"""Cut windows that may reach beyond the image, where the image is mirrored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cut_mirrored(
    array: NDArray[Any], begin_yx: tuple[int, int], end_yx: tuple[int, int], dtype: Any = None
) -> NDArray[Any]:
    """Cut rows and columns ``begin <= i < end`` from the last two axes, mirrored where they lie outside.

    Edge pixels are not repeated (figure 2 of the U-Net paper, Ronneberger et al. 2015). A window that is wider than
    the image sees it mirrored repeatedly, and an axis of one pixel is that pixel everywhere.

    Parameters
    ----------
    array
        Any number of axes, the last two Y and X, each at least 1; left untouched.
    begin_yx, end_yx
        First row and column, and the ones after the last; may be negative or beyond the image.
    dtype
        Type of the result; that of ``array`` by default.

    Returns
    -------
    ndarray
        A contiguous copy.

    Examples
    --------
    >>> cut_mirrored(np.array([[0, 1, 2]]), (0, -3), (1, 6))
    array([[1, 2, 1, 0, 1, 2, 1, 0, 1]])
    """
    y, x = array.shape[-2:]

    def read(rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
        return np.array(array[..., slice(*rows), slice(*columns)], dtype, order="C")

    return read_mirrored(read, (y, x), begin_yx, end_yx)


def read_mirrored(
    read: Callable[[tuple[int, int], tuple[int, int]], NDArray[Any]],
    size_yx: tuple[int, int],
    begin_yx: tuple[int, int],
    end_yx: tuple[int, int],
) -> NDArray[Any]:
    """Read a window as `cut_mirrored` cuts it, from an image that is not in memory.

    Parameters
    ----------
    read
        Function that returns some rows and columns, each given as (first, end) inside the image, as a new array. They
        are its last two axes.
    size_yx
        Height and width of the image in pixels.
    begin_yx, end_yx
        As for `cut_mirrored`.

    Returns
    -------
    ndarray
        A contiguous array of the type that ``read`` returns.
    """
    (rows, y_index), (columns, x_index) = (
        _mirror(begin, end, size) for begin, end, size in zip(begin_yx, end_yx, size_yx)
    )
    window = read(rows, columns)
    if y_index is not None:
        window = np.take(window, y_index, axis=-2)
    if x_index is not None:
        window = np.take(window, x_index, axis=-1)
    return np.ascontiguousarray(window)


def _mirror(begin: int, end: int, size: int) -> tuple[tuple[int, int], NDArray[np.int64] | None]:
    """Find the part of an axis that the mirrored positions begin..end touch.

    Returns
    -------
    tuple
        The part as (first, end), and the index in it of each position; None if these are all of it, in order.
    """
    if begin >= 0 and end <= size:
        return (begin, end), None
    period = max(2 * (size - 1), 1)
    index = np.arange(begin, end) % period
    index = np.minimum(index, period - index) if size > 1 else np.zeros_like(index)
    first = int(index.min())
    return (first, int(index.max()) + 1), index - first
