"""Intensities of objects and of the background near them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count

import numpy as np
import numpy.typing as npt

from septa.objects.runs import Array, Integers, Reals, Runs

Groups = tuple[Integers, Integers]
"""Flat indices of the pixels of all objects, object after object, and the number of pixels of each object."""


def name_channels(names: Sequence[str] | None, channels: int) -> list[str]:
    """Return a different name for each channel; see `septa.objects.measure_objects`."""
    if names is not None and len(names) != channels:
        raise ValueError(f"expected one name for each of {channels} channels, got {len(names)}")
    chosen: list[str] = []
    for number, name in enumerate(names or [""] * channels, 1):
        first = name or f"channel_{number}"
        others = (f"{first}_{again}" for again in count(2))
        chosen.append(next(free for free in chain([first], others) if free not in chosen))
    return chosen


def describe_basic_intensities(runs: Runs, plane_yx: Array, name: str) -> dict[str, Array]:
    """Return the basic columns of one channel."""
    flat, objects = plane_yx.reshape(-1), runs.objects[runs.inside]
    lowest, highest = np.zeros((2, runs.ids.size), plane_yx.dtype)
    for ufunc, extremes in ((np.minimum, lowest), (np.maximum, highest)):
        with np.errstate(invalid="ignore"):  # NaN
            values = ufunc.reduceat(flat, runs.starts)[runs.inside]
            extremes[objects] = values  # start from any run of the object
            ufunc.at(extremes, objects, values)
    return {f"mean_{name}": runs.totals(flat) / runs.areas, f"min_{name}": lowest, f"max_{name}": highest}


def describe_intensities(
    plane_yx: Array, name: str, pixels: Groups, rings: Groups | None, chosen: frozenset[str]
) -> dict[str, Array]:
    """Return the columns of one channel beyond the basic ones.

    Parameters
    ----------
    plane_yx, name
        Channel, and its name in columns.
    pixels, rings
        Pixels of objects, and of the background near each; see `group_pixels`.
    chosen
        Names of `septa.objects.MEASUREMENTS`.
    """
    flat, columns = plane_yx.reshape(-1), {}
    sizes, values = pixels[1], flat[pixels[0]]
    sums = sum_groups(values, sizes)
    if "std" in chosen:
        with np.errstate(invalid="ignore"):  # NaN, and differences of infinite values
            columns[f"std_{name}"] = np.sqrt(sum_groups((values - np.repeat(sums / sizes, sizes)) ** 2, sizes) / sizes)
    if "median" in chosen:
        columns[f"median_{name}"] = compute_medians(values, sizes)
    if "integrated" in chosen:
        columns[f"integrated_{name}"] = sums
    if rings is not None:
        background = compute_medians(flat[rings[0]], rings[1])
        columns |= {f"background_{name}": background, f"corrected_mean_{name}": sums / sizes - background}
    return columns


def group_pixels(objects: npt.NDArray[np.int32], count: int) -> Groups:
    """Sort pixels by their objects, given -1 or less for those of none; return their places, and each object's number.

    The order within an object is that of the pixels.
    """
    inside = np.flatnonzero(objects >= 0)
    sizes = np.bincount(objects[inside], minlength=count)
    return inside[np.argsort(objects[inside], kind="stable")], sizes


def compute_medians(values: Array, sizes: Integers) -> Reals:
    """Compute the median of each group of values, as `numpy.median` does; NaN without values or with one that is NaN.

    Parameters
    ----------
    values
        Values of all groups, one group after the other.
    sizes
        Number of values of each group.

    Examples
    --------
    >>> compute_medians(np.array([5, 1, 3, 2, 8]), np.array([3, 0, 2]))
    array([ 3., nan,  5.])
    """
    ordered = _sort_groups(values, np.repeat(np.arange(sizes.size), sizes))
    filled = sizes > 0
    ends, sizes = np.cumsum(sizes)[filled], sizes[filled]
    low, high, last = (
        ordered[ends - back].astype(np.float64) for back in (sizes // 2 + 1, (sizes + 1) // 2, np.ones_like(sizes))
    )
    medians = np.full(filled.size, np.nan)
    medians[filled] = np.where(np.isnan(last), np.nan, low + (high - low) / 2)
    return medians


def _sort_groups(values: Array, groups: Integers) -> Array:
    """Sort the values of each group; NaN comes last."""
    if values.dtype.kind == "f" or values.dtype.itemsize > 4 or not values.size:
        return values[np.lexsort((values, groups))]
    # One number for group and value sorts four times as fast.
    lowest = int(values.min())
    keys = (groups << 32) + (values.astype(np.int64) - lowest)
    keys.sort()
    ordered: Array = (keys & 0xFFFFFFFF) + lowest
    return ordered


def sum_groups(values: Array, sizes: Integers) -> Reals:
    """Sum each group of values, given one group after the other and none empty, in float64."""
    if not sizes.size:
        return np.zeros(0)
    sums: Reals = np.add.reduceat(values, np.cumsum(sizes) - sizes, dtype=np.float64)
    return sums
