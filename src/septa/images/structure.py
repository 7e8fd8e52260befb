"""Whether an image shows objects or nothing but noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from septa.images.outliers import select_measured
from septa.images.sampling import choose_sampling_steps

Array = NDArray[Any]

PERCENTILES = (0.5, 1.0, 50.0, 99.0, 99.8)
"""Percentiles of the values of each channel."""
_SAMPLED = 1 << 15
"""Largest number of pixels of a channel from which percentiles are found."""
_TEXTURE_PIXELS = 1 << 18
"""Largest number of pixels in which objects are looked for; a larger image is reduced."""
_WINDOWS = 3
"""Number of windows along each side of a larger image."""
_WINDOW = 192
"""Side of such a window, pixels."""
_FEWEST_PARTS = 24
"""Fewest parts of 8 x 8 pixels by which noise is distinguished from objects."""
_ORDER = 4
"""Largest order in Y and X of the polynomial that stands for uneven light."""
# White noise has ratios of 1.0; of noise with neighbours that correlate (JPEG, resampled), measured up to 1.2 and 1.3.
# The least ratios of 481 images of nuclei, glands and neurites are 1.38 and 1.77.
_MOST_NOISE_TO_8 = 1.25
_MOST_NOISE_TO_16 = 1.45
_MOST_NOISE_TO_4 = 1.35
_MOST_OUTLYING_4 = 6.5
_MOST_OUTLYING = 5.5
"""Largest deviation of a part of noise, in standard deviations of all parts; one object in empty noise has more."""
_MEDIAN_DIFFERENCE = 0.6745 * math.sqrt(2)
"""Median difference of two values of white noise of standard deviation 1."""
_FAINT = 12.0
"""Range of faint images, from the 1 to the 99.8 percentile, in standard deviations of noise. White noise has 5.2, and
empty images of cameras had up to 10."""
_MOST_OUTLYING_FAINT = 16.0
"""Largest deviation of a part of a faint image that holds specks, but no object."""


def holds_only_noise(image_cyx: Array) -> bool:
    """Return True if an image shows no objects in any channel, and is not of one value either; see `ValueFacts`.

    Faint specks in noise are no objects here: the values of the image must reach beyond those of noise.
    """
    if len(image_cyx) > 1 and image_cyx.strides[0] == 0:  # one channel, repeated
        image_cyx = image_cyx[:1]
    planes = [plane_yx for plane_yx in image_cyx if not is_constant(plane_yx)]
    return bool(planes) and all(is_faint(plane_yx) or has_structure(plane_yx) is False for plane_yx in planes)


def combine_structures(structures: Iterable[bool | None]) -> bool | None:
    """Return True if any channel has structure, None if one may have it; later channels are not asked then."""
    found: bool | None = False
    for structure in structures:
        if structure:
            return True
        if structure is None:
            found = None
    return found


def is_constant(plane_yx: Array) -> bool:
    """Return True if a channel has a single value."""
    if plane_yx[0, 0] != plane_yx[-1, -1] or plane_yx[0, 0] != plane_yx[plane_yx.shape[0] // 2, plane_yx.shape[1] // 2]:
        return False
    return bool((plane_yx == plane_yx[0, 0]).all())


def sample_measured(plane_yx: Array) -> Array:
    """Return the measured values of every n-th row and column."""
    y, x = choose_sampling_steps(plane_yx.shape, _SAMPLED)
    return select_measured(plane_yx[::y, ::x])


def find_percentiles(values: Array) -> tuple[float, ...]:
    """Return the `PERCENTILES` of some values, 0 if there are none."""
    if not values.size:
        return (0.0,) * len(PERCENTILES)
    return tuple(np.percentile(values.astype(np.float64), PERCENTILES).tolist())


def has_structure(plane_yx: Array) -> bool | None:
    """Return False if a channel holds only noise, with even or uneven light; None if it is too small to decide.

    A large channel is examined twice: reduced, for few objects anywhere, and in full-size windows, for small objects.
    """
    side = max(1, math.ceil(math.sqrt(plane_yx.size / _TEXTURE_PIXELS)))
    if min(plane_yx.shape) < 32 * side or plane_yx.size < 64 * _FEWEST_PARTS * side * side:
        return None
    if side == 1:
        return _shows_objects(_shrink(plane_yx, 1))
    return _shows_objects(_shrink(plane_yx, side)) or any(
        _shows_objects(_shrink(window_yx, 1)) for window_yx in _cut_windows(plane_yx)
    )


def is_faint(plane_yx: Array) -> bool:
    """Return True if the values of a channel scatter as noise does, and its parts too, but for specks."""
    if min(plane_yx.shape) < 32 or plane_yx.size < 64 * _FEWEST_PARTS:
        return False
    _, low, *_, high = find_percentiles(sample_measured(plane_yx))
    rows_yx = plane_yx[::8].astype(np.float32)
    noise = float(np.nanmedian(np.abs(rows_yx[:, 1:] - rows_yx[:, :-1]))) / _MEDIAN_DIFFERENCE
    return high - low < _FAINT * noise and not _shows_objects(
        _shrink(plane_yx, 1), _MOST_OUTLYING_FAINT, _MOST_OUTLYING_FAINT
    )


def _cut_windows(plane_yx: Array) -> Iterator[Array]:
    """Yield windows that are spread over a plane."""
    sides = [min(length, _WINDOW) for length in plane_yx.shape]
    tops, lefts = (
        np.linspace(0, length - side, _WINDOWS).round().astype(int).tolist()
        for length, side in zip(plane_yx.shape, sides, strict=True)
    )
    for top, left in product(tops, lefts):
        yield plane_yx[top : top + sides[0], left : left + sides[1]]


def _shows_objects(
    plane_yx: NDArray[np.float32], outlying_4: float = _MOST_OUTLYING_4, outlying_8: float = _MOST_OUTLYING
) -> bool:
    """Return False if an image holds only noise.

    In noise, means over 8 x 8 and 16 x 16 pixels scatter 2 and 4 times less than those over 4 x 4 pixels. In objects,
    whose pixels belong together, they scatter nearly as much. A single object in empty noise stands out of all parts.
    """
    plane_yx = _remove_spikes(plane_yx)
    parts_2 = _remove_uneven_light(_reduce(plane_yx, 2))
    parts_4 = _reduce(parts_2, 2)
    parts_8 = _reduce(parts_4, 2)
    parts_16 = _reduce(parts_8, 2)
    scatter_2, scatter_4, scatter_8, scatter_16 = (
        float(parts.std(dtype=np.float64)) for parts in (parts_2, parts_4, parts_8, parts_16)
    )
    if scatter_4 <= 1e-6 * float(np.abs(plane_yx).max()):
        return False
    return (
        2 * scatter_4 > _MOST_NOISE_TO_4 * scatter_2
        or 2 * scatter_8 > _MOST_NOISE_TO_8 * scatter_4
        or 4 * scatter_16 > _MOST_NOISE_TO_16 * scatter_4
        or float(np.abs(parts_4).max()) > outlying_4 * scatter_4
        or float(np.abs(parts_8).max()) > outlying_8 * scatter_8
    )


def _shrink(plane_yx: Array, side: int) -> NDArray[np.float32]:
    """Return the means of squares of pixels; in wide squares, of two or three rows only, which takes less time."""
    step = max(1, side // 2)
    rows_yx = plane_yx[: plane_yx.shape[0] // step * step : step].astype(np.float32)
    if plane_yx.dtype.kind == "f":
        rows_yx = _remove_gaps(rows_yx)
    size = plane_yx.shape[1] // side, plane_yx.shape[0] // side
    whole_yx = rows_yx[: size[1] * side // step, : size[0] * side]
    if side == 1:
        return rows_yx
    return np.asarray(cv2.resize(whole_yx, size, interpolation=cv2.INTER_AREA), np.float32)


def _remove_gaps(rows_yx: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace NaN, Inf, nodata and whatever is far out by the nearest usual value."""
    low, *_, high = find_percentiles(sample_measured(rows_yx))
    rows_yx = np.nan_to_num(rows_yx, nan=low, posinf=high, neginf=low)
    return np.clip(rows_yx, np.float32(2 * low - high), np.float32(2 * high - low))


def _reduce(plane_yx: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the means of squares of pixels."""
    height, width = (length // side for length in plane_yx.shape)
    whole = plane_yx[: height * side, : width * side]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _remove_spikes(plane_yx: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace single pixels that stand far out of their neighbours, such as hot pixels, by the median."""
    pairs = plane_yx[::8, :-1:2] - plane_yx[::8, 1::2]
    noise = float(np.percentile(np.abs(pairs), 95)) / 2.8
    median_yx = cv2.medianBlur(plane_yx, 3)
    return np.asarray(np.where(np.abs(plane_yx - median_yx) > 6 * noise, median_yx, plane_yx), np.float32)


def _remove_uneven_light(parts_yx: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtract the best polynomial in Y and X."""
    bases = []
    for length in parts_yx.shape:
        powers = np.vander(np.linspace(-1, 1, length), min(_ORDER, length // 8) + 1, increasing=True)
        bases.append(np.linalg.qr(powers)[0])
    rows, columns = bases
    light_yx = rows @ (rows.T @ parts_yx.astype(np.float64) @ columns) @ columns.T
    return np.asarray(parts_yx - light_yx, np.float32)
