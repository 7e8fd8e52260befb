"""Values of the channels of an image and of a dataset: the range of objects and background, and what lies far outside.

Everything here is robust: a few extreme pixels, nodata and debris change it little or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from septa.images import CLIP, FAR, bound_scale, find_central_range, find_fillers

Array = npt.NDArray[Any]
Values = npt.NDArray[np.float64]

_KEPT = 512
"""Largest number of quantiles that are kept of the objects, and of the background, of one image."""
_BACKGROUND = (10.0, 90.0)
"""Percentiles of the background that belong to the range: debris and strange objects may be part of it."""
_OBJECTS = (1.0, 99.0)
"""The same for the objects."""
_ROOM = 0.8
"""Share of the clipped range that the range of a dataset may take up."""
_THINNED = 1 << 15
_STATISTICS_BLOCK = 1 << 20


class Moments(NamedTuple):
    """Statistics of the finite pixels of one channel; ``finite`` is True if all pixels are finite."""

    mean: float
    std: float
    low: float
    high: float
    finite: bool


def compute_moments(plane_yx: Array) -> Moments:
    """Compute the statistics of a plane ``YX``, block by block."""
    count = 0
    mean = 0.0
    squares = 0.0
    low = float("inf")
    high = float("-inf")
    finite = True
    rows = max(1, _STATISTICS_BLOCK // plane_yx.shape[1])
    for top in range(0, plane_yx.shape[0], rows):
        block = plane_yx[top : top + rows].astype(np.float64).ravel()
        if plane_yx.dtype.kind == "f" and not np.isfinite(block).all():
            finite = False
            block = block[np.isfinite(block)]
        if not block.size:
            continue
        low = min(low, float(block.min()))
        high = max(high, float(block.max()))
        block_mean = float(block.mean())
        block -= block_mean
        # Chan's update keeps the precision that a sum of squares loses.
        shift = block_mean - mean
        total = count + block.size
        squares += float(block @ block) + shift**2 * count * block.size / total
        mean += shift * block.size / total
        count = total
    return Moments(mean, (squares / count) ** 0.5 if count else 0.0, low, high, finite)


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelValues:
    """Values of one channel of one image.

    Attributes
    ----------
    background, objects
        Quantiles of the finite pixels without and with a label, ascending; without fillers.
    background_pixels, object_pixels
        Numbers of these pixels.
    central
        Range of 99.8 % of the pixels, extended by that of the objects.
    candidates
        Values of the pixels further from the central range than `FAR` times its span, ascending.
    fillers
        Values that fill pixels without a measurement, each with its number of pixels; see `find_fillers`.
    """

    background: Values
    objects: Values
    background_pixels: int
    object_pixels: int
    central: tuple[float, float]
    candidates: Values
    fillers: dict[float, int]


def survey_channel(plane_yx: Array, labels_yx: Array | None) -> ChannelValues:
    """Survey the values of one channel.

    Parameters
    ----------
    plane_yx
        Axes ``YX``, any real dtype, raw units.
    labels_yx
        Encoded labels, integer ``YX``: above 0 at objects, below 0 at ignored pixels. None counts all as background.
    """
    values = plane_yx.ravel()
    marked = np.zeros(values.size, np.int32) if labels_yx is None else labels_yx.ravel()
    if plane_yx.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        values, marked = values[finite], marked[finite]
    fillers = {}
    for filler in find_fillers(values):
        filled = values == filler
        # Saturated objects are what the net is to find.
        if 2 * np.count_nonzero(marked[filled] > 0) < np.count_nonzero(filled):
            fillers[filler] = int(np.count_nonzero(filled))
            values, marked = values[~filled], marked[~filled]
    if not values.size:
        none = np.zeros(0)
        sizes = {"background_pixels": 0, "object_pixels": 0}
        return ChannelValues(
            background=none, objects=none, central=(0.0, 0.0), candidates=none, fillers=fillers, **sizes
        )
    objects, background = values[marked > 0], values[marked == 0]
    low, high = find_central_range(values)
    kept = _keep_quantiles(objects)
    if kept.size:
        ends = np.percentile(kept, _OBJECTS)
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    return ChannelValues(
        background=_keep_quantiles(background),
        objects=kept,
        background_pixels=background.size,
        object_pixels=objects.size,
        central=(low, high),
        candidates=np.sort(select_far(values, (low, high))).astype(np.float64),
        fillers=fillers,
    )


def select_far(values: Array, central: tuple[float, float]) -> Array:
    """Return the values further from a range than `FAR` times its span; none if the range is a single value."""
    low, high = central
    reach = FAR * (high - low)
    if reach <= 0:
        return values[:0]
    return values[(values < low - reach) | (values > high + reach)]


def find_range(channels: Sequence[ChannelValues]) -> tuple[float, float]:
    """Return the range of one channel over several images: that of their objects and of most of their background.

    Only images that hold objects count, if there are any.

    Returns
    -------
    tuple of float
        Low and high value in raw units; (0, 0) if there is no finite pixel.
    """
    channels = [item for item in channels if item.object_pixels] or list(channels)
    ends = []
    for name, percentiles in (("background", _BACKGROUND), ("objects", _OBJECTS)):
        values, weights = _pool(channels, name)
        if values.size:
            order = np.argsort(values, kind="stable")
            places = np.cumsum(weights[order]) - weights[order] / 2
            ends.append(np.interp(np.array(percentiles) / 100 * weights.sum(), places, values[order]))
    if not ends:
        return 0.0, 0.0
    return float(min(low for low, _ in ends)), float(max(high for _, high in ends))


def find_constants(channels: Sequence[ChannelValues]) -> tuple[float, float]:
    """Return the offset and the scale by which one channel of a dataset is normalised.

    They are the mean and the standard deviation of the values, which are first limited to the range of `find_range`,
    extended by its span at both ends. The scale is large enough that the range needs no clipping.

    Parameters
    ----------
    channels
        Values of this channel in each image.
    """
    low, high = find_range(channels)
    channels = [item for item in channels if item.object_pixels] or list(channels)
    pooled = [_pool(channels, name) for name in ("background", "objects")]
    values, weights = (np.concatenate(parts) for parts in zip(*pooled))
    if not values.size:
        return 0.0, 1.0
    limited = values.clip(2 * low - high, 2 * high - low) if high > low else values
    offset = float(np.average(limited, weights=weights))
    deviation = float(np.sqrt(np.average((limited - offset) ** 2, weights=weights)))
    return offset, bound_scale(max(deviation, (high - offset) / (_ROOM * CLIP), (offset - low) / (_ROOM * CLIP)))


def _pool(channels: Sequence[ChannelValues], name: str) -> tuple[Values, Values]:
    """Return the kept values of several images, each with the number of pixels that it stands for."""
    parts = [np.asarray(getattr(item, name)) for item in channels]
    pixels = [item.object_pixels if name == "objects" else item.background_pixels for item in channels]
    weights = [np.full(part.size, count / max(1, part.size)) for part, count in zip(parts, pixels)]
    return np.concatenate(parts), np.concatenate(weights)


def _keep_quantiles(values: Array) -> Values:
    sample: Values = np.sort(values[:: max(1, values.size // _THINNED)].astype(np.float64))
    places = ((np.arange(_KEPT) + 0.5) / _KEPT * sample.size).astype(int)
    return sample if sample.size <= _KEPT else np.take(sample, places)
