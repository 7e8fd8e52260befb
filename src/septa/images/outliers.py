"""Find the values that stand for missing or saturated pixels: nodata, and debris far brighter than the image."""

from __future__ import annotations

import math
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError

FAR = 10.0
"""Distance from the other values, in multiples of their span, from which on a value is far outside."""

_FLOAT32 = float(np.finfo(np.float32).max)
_BEYOND = 0.001
"""Share of the pixels at each end that are not in the central range."""
_FEWEST, _MOST = 0.001, 0.25
"""Share of the pixels that a filler has, unless it is a usual code for nodata. Fewer do not move a percentile."""
_NODATA = (-999.0, -9999.0, -99999.0, -999999.0, -32767.0, -32768.0, -(2.0**31))
_HUGE = 1e30
_SAMPLE = 1 << 16


def check_magnitude(image: NDArray[Any], where: str | PathLike[str]) -> None:
    """Refuse an image with finite values that float32, in which a net computes, cannot hold.

    Raises
    ------
    InputError
        A value is too large; the message names ``where``.
    """
    if image.dtype.kind != "f" or image.dtype.itemsize <= 4:
        return
    beyond = image[np.isfinite(image) & (np.abs(image) > _FLOAT32)]
    if beyond.size:
        problem = f"the image holds values beyond float32, such as {beyond.flat[0]:.3g}"
        raise InputError(where, problem, "Divide its values by a constant, or replace them where they stand for nodata")


def find_fillers(values: NDArray[Any]) -> tuple[float, ...]:
    """Return the values that fill pixels without a measurement; usually there are none.

    A filler is the smallest or largest value of the image. It either is a usual code for nodata, such as -9999 or any
    number beyond 1e30, that at least two pixels share and that lies further from the other values than these span. Or
    0.1 to 25 % of the pixels share it, and it lies further from the others than 10 times their span, as saturated
    debris does. Bright objects are not fillers: their values differ, and their edges have values in between.

    Parameters
    ----------
    values
        Values of one channel, any shape, any real dtype, finite.

    Returns
    -------
    tuple of float
        At most two values, the smaller one first.

    Examples
    --------
    >>> find_fillers(np.array([-9999, 110, 120, 150, -9999], np.float32))
    (-9999.0,)
    """
    values = values.ravel()
    if not values.size:
        return ()
    counts = {float(value): int(np.count_nonzero(values == value)) for value in (values.min(), values.max())}
    fillers = [value for value, count in counts.items() if _may_fill(value, count, values.size)]
    if not fillers:
        return ()
    others = drop_values(values, fillers)
    if not others.size:
        return ()
    low, high = find_central_range(others)
    span = high - low

    def is_far(value: float) -> bool:
        distance = max(low - value, value - high)
        return distance > span if is_nodata(value) else span > 0 and distance > FAR * span

    return tuple(value for value in fillers if is_far(value))


def drop_values(values: NDArray[Any], dropped: list[float] | tuple[float, ...]) -> NDArray[Any]:
    """Return the values without those in ``dropped``; the array itself if there is nothing to drop."""
    for value in dropped:
        values = values[values != values.dtype.type(value)]
    return values


def select_measured(values: NDArray[Any]) -> NDArray[Any]:
    """Return the measured values of one channel, flat: finite, and without those of `find_fillers`.

    Parameters
    ----------
    values
        Values of one channel, any shape, any real dtype.
    """
    values = select_finite(values)
    return drop_values(values, find_fillers(values))


def select_finite(values: NDArray[Any]) -> NDArray[Any]:
    """Return the finite values of an array of any shape and real dtype, flat."""
    values = values.ravel()
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def find_central_range(values: NDArray[Any]) -> tuple[float, float]:
    """Return the range of 99.8 % of an even sample of at least one finite value.

    Examples
    --------
    >>> find_central_range(np.r_[np.arange(110, 150).repeat(99), 65535])
    (110.0, 149.0)
    """
    values = values.ravel()
    sample = values[:: -(-values.size // _SAMPLE)]
    beyond = math.ceil(_BEYOND * (sample.size - 1))
    ends = sorted((beyond, sample.size - 1 - beyond))
    low, high = np.partition(sample, ends)[ends]
    return float(low), float(high)


def is_nodata(value: float) -> bool:
    """Return True if a value is a usual code for nodata, and never a measurement if many pixels share it."""
    return abs(value) > _HUGE or value in _NODATA


def _may_fill(value: float, count: int, size: int) -> bool:
    if is_nodata(value):
        return count > 1
    return _FEWEST * size <= count <= _MOST * size and count > 1
