"""The border weight map of the U-Net paper, which makes the narrow gaps between touching cells count.

Two scans of the image find the distances to the two nearest cells for all pixels, whatever the number of cells. A scan
along columns finds the two nearest different cells in the column of each pixel; a scan along rows combines these. numba
compiles the scans.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from septa.kernels import Kernel

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

_NEGLIGIBLE = 1e-8
"""Share of ``w0`` below which a weight is set to 0; it limits the distance at which cells are searched."""


def cut_seams(labels_yx: npt.NDArray[Any]) -> Int32:
    """Set a line of background between cells that touch, so that a net learns to separate them.

    A pixel of a cell becomes 0 where its right or lower neighbour belongs to another cell, and after that where its
    lower left or lower right neighbour still does. Of two touching pixels only the upper one, or in one row the left
    one, becomes background, so these seams are one pixel wide. Afterwards no two cells are neighbours, not even
    diagonally. A cell may vanish if all its pixels lie on seams, such as a cell one pixel wide.

    Parameters
    ----------
    labels_yx
        Instance ids, integers ``YX`` in the range of int32. Values up to 0 (background, ignored) are not cells: they
        stay as they are and cut nothing.

    Returns
    -------
    labels_yx
        int32 ``YX``, a new array.

    Raises
    ------
    ValueError
        The labels are not an integer array of two axes, or an id does not fit int32.

    Examples
    --------
    >>> cut_seams(np.array([[7, 7, 2, 2], [7, 7, 0, 2]]))
    array([[7, 0, 0, 2],
           [7, 7, 0, 2]], dtype=int32)
    """
    ids_yx = _as_int32(labels_yx)
    whole, first, last = slice(None), slice(None, -1), slice(1, None)
    right, lower_left, lower, lower_right = (
        ((whole, first), (whole, last)),
        ((first, last), (last, first)),
        ((first, whole), (last, whole)),
        ((first, first), (last, last)),
    )
    for pairs in ((right, lower), (lower_left, lower_right)):
        cut_yx = np.zeros(ids_yx.shape, bool)
        for here, there in pairs:
            one, other = ids_yx[here], ids_yx[there]
            cut_yx[here] |= (one != other) & (one > 0) & (other > 0)
        ids_yx[cut_yx] = 0
    return ids_yx


def border_weights(labels_yx: npt.NDArray[Any], *, w0: float = 10.0, sigma: float = 5.0) -> Float32:
    """Compute the weight by which pixels between two cells count more: ``w0 * exp(-(d1 + d2)**2 / (2 * sigma**2))``.

    This is the second term of equation 2 of the U-Net paper. ``d1`` and ``d2`` are the Euclidean distances to the
    nearest pixels of the nearest and of the second nearest cell, in pixels from centre to centre; inside a cell ``d1``
    is 0. All cells of the array count; of labels that are cut from a larger image, cells outside the cut are not
    known. Weights below ``1e-8 * w0`` are 0.

    Time and memory do not depend on the number of cells. The first call in a process compiles the scans, which takes
    some seconds, or loads them from numba's cache.

    Parameters
    ----------
    labels_yx
        Instance ids, integers ``YX`` in the range of int32, in any order and with gaps; values up to 0 are not cells. A
        cell may have several parts.
    w0
        Weight where both distances are 0; finite, at least 0.
    sigma
        Scale of the distance over which the weight falls, pixels; finite, above 0.

    Returns
    -------
    weights_yx
        float32 ``YX`` in [0, w0], a new array; 0 everywhere with fewer than two cells.

    Raises
    ------
    ValueError
        The labels are not an integer array of two axes, an id does not fit int32, or a setting is out of range.

    References
    ----------
    Ronneberger, Fischer, Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation"
    (arXiv 1505.04597), equation 2.

    Examples
    --------
    >>> border_weights(np.array([[3, 0, 0, 8]]), w0=10, sigma=5).round(3)
    array([[8.353, 8.353, 8.353, 8.353]], dtype=float32)
    """
    if not (math.isfinite(w0) and w0 >= 0 and math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"w0 must be finite and at least 0, and sigma finite and above 0, got {w0} and {sigma}")
    labels_yx = np.ascontiguousarray(_as_int32(labels_yx))
    weights_yx = np.zeros(labels_yx.shape, np.float32)
    if labels_yx.size:
        rows_nyx = np.empty((2, *labels_yx.shape), np.int32)
        _find_in_columns(labels_yx, rows_nyx)
        # No distance exceeds the diagonal of the image, so no square overflows, however large sigma is.
        reach = min(sigma * math.sqrt(-2 * math.log(_NEGLIGIBLE)), 2 * math.hypot(*labels_yx.shape))
        _weigh(labels_yx, rows_nyx, weights_yx, float(w0), float(sigma), float(reach))
    return weights_yx


def _as_int32(labels_yx: npt.NDArray[Any]) -> Int32:
    """Return a copy of the labels as int32."""
    if labels_yx.ndim != 2 or labels_yx.dtype.kind not in "iu":
        raise ValueError(f"the labels must be an integer array YX, got {labels_yx.dtype} {labels_yx.shape}")
    limits = np.iinfo(np.int32)
    if labels_yx.size and not (limits.min <= labels_yx.min() and labels_yx.max() <= limits.max):
        raise ValueError(f"the ids must fit int32, got {labels_yx.min()} to {labels_yx.max()}")
    return np.array(labels_yx, np.int32, order="C")


@Kernel
def _find_in_columns(labels_yx: Int32, rows_nyx: Int32) -> None:
    """Write for each pixel the rows of the nearest pixels of the two nearest cells in its column; -1 if there are none.

    A third cell of the column is never needed: every pixel that reaches it through this pixel is nearer to the others.
    """
    height, width = labels_yx.shape
    rows_nyx[:] = -1
    for start, stop, step in ((0, height, 1), (height - 1, -1, -1)):
        met_nx = np.full((2, width), -1, np.int32)  # rows of the last two different cells, the latest first
        for y in range(start, stop, step):
            for x in range(width):
                if labels_yx[y, x] > 0:
                    if met_nx[0, x] >= 0 and labels_yx[met_nx[0, x], x] != labels_yx[y, x]:
                        met_nx[1, x] = met_nx[0, x]
                    met_nx[0, x] = y
                first, second = rows_nyx[0, y, x], rows_nyx[1, y, x]
                for row in (met_nx[0, x], met_nx[1, x]):
                    if row < 0:
                        continue
                    other = first < 0 or labels_yx[row, x] != labels_yx[first, x]
                    if first < 0 or abs(row - y) < abs(first - y):
                        if other:
                            second = first
                        first = row
                    elif other and (second < 0 or abs(row - y) < abs(second - y)):
                        second = row
                rows_nyx[0, y, x], rows_nyx[1, y, x] = first, second


@Kernel
def _weigh(labels_yx: Int32, rows_nyx: Int32, weights_yx: Float32, w0: float, sigma: float, reach: float) -> None:
    """Write equation 2 where the sum of both distances is at most ``reach``; other weights stay as they are.

    The columns are searched from each pixel outwards until none can hold a nearer second cell.
    """
    height, width = labels_yx.shape
    limit = math.floor(reach * reach) + 1  # square of a distance beyond the reach
    ids_xn = np.empty((width, 2), np.int32)
    heights_xn = np.empty((width, 2), np.int64)  # squared distances along the column
    for y in range(height):
        for x in range(width):
            for n in range(2):
                row = rows_nyx[n, y, x]
                ids_xn[x, n] = labels_yx[row, x] if row >= 0 else 0
                heights_xn[x, n] = min((row - y) * (row - y), limit) if row >= 0 else limit
        for x in range(width):
            nearest = 0
            first = second = limit
            # The sum exceeds the reach if both cells are beyond reach / 2, or the second beyond reach minus the first.
            dx = 0
            dx_end = reach / 2
            while dx <= dx_end and dx * dx < second:
                for column in (x - dx, x + dx):
                    if column < 0 or column >= width:
                        continue
                    for n in range(2):
                        square = dx * dx + heights_xn[column, n]
                        if square >= second:
                            break
                        if square < first:
                            if ids_xn[column, n] != nearest:
                                second = first
                                nearest = ids_xn[column, n]
                            first = square
                            dx_end = max(reach / 2, reach - math.sqrt(first))
                        elif ids_xn[column, n] != nearest:
                            second = square
                dx += 1
            if second < limit:
                total = math.sqrt(first) + math.sqrt(second)
                if total <= reach:
                    weights_yx[y, x] = w0 * math.exp(-total * total / (2 * sigma * sigma))
