"""Labels as a file stores them: checks and conversions of their values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images._info import Array


@dataclass(frozen=True)
class RawLabels:
    """Labels as a file stores them, before their values get a meaning.

    Attributes
    ----------
    array
        Stored values; the axes depend on ``kind``.
    kind
        "index": axes ``YX``, integers. "rgb": axes ``YXS``, uint8, one colour per class. "channels": axes ``CYX``,
        integers, one plane per class.
    palette
        N x 3 uint8, the colour table of a palette image, whose array holds the indices; else None.
    objects
        Class name of each object, empty if it has none, where the array is known to number objects from 1 to n and to
        hold -1 in ignored pixels; None if the values have no meaning yet.
    ignored_yx
        True in pixels that count in no loss and no score whatever their value is; None if there are none.
    """

    array: NDArray[Any]
    kind: Literal["index", "rgb", "channels"]
    palette: NDArray[np.uint8] | None
    objects: tuple[str, ...] | None = field(default=None, kw_only=True)
    ignored_yx: NDArray[np.bool_] | None = field(default=None, kw_only=True)


def make_raw_labels(path: Path, array_cyx: Array, palette: NDArray[np.uint8] | None = None, *, rgb: bool) -> RawLabels:
    """Make labels of stored values.

    Parameters
    ----------
    path
        File of the labels, for errors.
    array_cyx
        Values ``CYX`` as stored.
    palette
        N x 3 uint8, the colour table of indices; None if there is none.
    rgb
        True if three channels are a colour.

    Raises
    ------
    InputError
        If values are not whole numbers, or a colour has more than 8 bits per channel.
    """
    array_cyx = convert_to_integers(path, array_cyx)
    if len(array_cyx) == 1:
        return RawLabels(np.ascontiguousarray(array_cyx[0]), "index", palette)
    if not rgb:
        return RawLabels(np.ascontiguousarray(array_cyx), "channels", None)
    if np.array_equal(array_cyx[0], array_cyx[1]) and np.array_equal(array_cyx[0], array_cyx[2]):
        return RawLabels(np.ascontiguousarray(array_cyx[0]), "index", None)
    return RawLabels(np.ascontiguousarray(np.moveaxis(_convert_to_bytes(path, array_cyx), 0, 2)), "rgb", None)


def is_grey(array_cyx: Array) -> bool:
    """Return True if all channels differ no more than those of a grey image do after JPEG compression."""
    full = np.iinfo(array_cyx.dtype).max if array_cyx.dtype.kind in "ui" else float(np.abs(array_cyx).max())
    return bool(np.ptp(array_cyx.astype(np.float64), axis=0).max() <= full / 8)


def apply_threshold(path: Path, array_cyx: Array, threshold: float) -> RawLabels:
    """Make labels of two classes from the grey values of an anti-aliased or JPEG-compressed mask.

    Parameters
    ----------
    path
        File of the mask, for errors.
    array_cyx
        Values ``CYX`` as stored: one channel, or three that differ no more than after JPEG compression.
    threshold
        Values of at least this are foreground.

    Returns
    -------
    RawLabels
        uint8 ``YX`` of kind ``index``: 0 and 255.

    Raises
    ------
    InputError
        If the mask has colours or several planes, or holds NaN.

    Examples
    --------
    >>> apply_threshold(Path("a.png"), np.array([[[0, 127, 128]]]), 128).array
    array([[  0,   0, 255]], dtype=uint8)
    """
    grey_yx = array_cyx[0]
    if len(array_cyx) == 3:
        if not is_grey(array_cyx):
            problem = "the labels have colours, but data.threshold needs grey values"
            raise InputError(path, problem, "Save the mask as a grey image, or leave data.threshold out")
        grey_yx = array_cyx.mean(axis=0)
    elif len(array_cyx) != 1:
        problem = f"the labels have {len(array_cyx)} planes, but data.threshold needs one"
        raise InputError(path, problem, "Save the mask as a grey image, or leave data.threshold out")
    if grey_yx.dtype.kind == "f" and np.isnan(grey_yx).any():
        raise InputError(path, "the labels hold NaN", "Replace these pixels by the value of the background")
    return RawLabels(np.where(grey_yx >= threshold, 255, 0).astype(np.uint8), "index", None)


def convert_to_integers(path: Path, array: Array) -> Array:
    """Convert labels to integers in the byte order of the machine."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind != "f":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if not np.isfinite(array).all() or np.abs(array).max() >= 2**31 or (array != np.rint(array)).any():
        problem = f"labels must be whole numbers, but the file holds {array.dtype} values that are not"
        remedy = "Export the labels as integers, without interpolation"
        if np.isfinite(array).all():
            middle = (float(array.min()) + float(array.max())) / 2
            remedy += f"; or set data.threshold={middle:g} if larger values are foreground"
        raise InputError(path, problem, remedy)
    return array.astype(np.int32)


def _convert_to_bytes(path: Path, array: Array) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 and array.min() >= 0:
        if array.max() <= 255:
            return array.astype(np.uint8)
        if array.dtype == np.uint16 and not (array % 257).any():
            return (array // 257).astype(np.uint8)
    if array.dtype != np.uint8:
        problem = f"colour labels must have 8 bits per channel, got {array.dtype} values"
        raise InputError(path, problem, "Save them as RGB of 8 bits, or as class indices")
    return array
