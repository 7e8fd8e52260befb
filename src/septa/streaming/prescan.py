"""Facts that need the whole image before its first block: scale of the values, normalisation, size, empty blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.images import (
    Normalization,
    Selection,
    Source,
    choose_sampling_steps,
    find_robust_range,
    measure_values,
    open_source,
)
from septa.images.store import BlockIndex
from septa.inference import FeatureSums
from septa.labels import ImageScale
from septa.model import (
    Model,
    cut_windows,
    find_scale,
    is_measured,
    measure_diameter,
    measure_windows,
    report_distance,
)
from septa.nets import list_members
from septa.notices import Notices
from septa.runtime import pick_device

_WHOLE = 1 << 20
"""Largest number of pixels of a plane that is compared with the training images as a whole."""
_PLANES = 3
"""Largest number of planes that are compared."""
_WINDOWS = 6
"""Number of windows along Y and along X that are compared of a larger plane."""
_MEASURED_WINDOWS = 3
"""The same number for features, which take longer to compute."""
_WINDOW = 256
"""Side of such a window, pixels."""
_BAND = 2048
"""Side of the parts in which an image is read, pixels."""
_THUMBNAIL = 1 << 22
"""Largest number of pixels of the thumbnail."""
_CONTRAST = 0.05
"""Share of the thumbnail's range; in an empty block nothing differs from the background by more than that."""


def find_factor(model: Model, source: Source, notices: Notices) -> float:
    """Compare an image with the training images, and return the factor for its values, as `Model.find_factor` does.

    At most three planes are read, and of a plane of more than 1 million pixels only 36 windows. Windows and planes
    without objects are left out of the comparison unless the whole image was read.

    Raises
    ------
    InputError
        The image cannot be read.
    """
    if model.training_values is None:
        return 1.0
    chosen = _choose_planes(source)
    windows = [window for plane in chosen for window in _read_windows(model, source, *plane)]
    shown = [window for window in windows if measure_values(window).structured is not False]
    is_whole = source.shape[0] * source.shape[2] == len(chosen) == len(windows)
    if not shown and not is_whole:
        text = f"{len(windows)} samples of the image show no objects, so it is not compared with the training images"
        notices.add(source.path, text)
        return 1.0
    return model.find_factor(np.concatenate(shown or windows, axis=2), source.path, notices)


def measure_scale(
    model: Model, source: Source, normalizations: Mapping[str, Normalization], device: str, notices: Notices
) -> ImageScale:
    """Return the scale of an image, as `Model.fit_size` chooses it.

    All planes have that of the first one, of at most three, in which objects are found.

    Raises
    ------
    InputError
        The image cannot be read.
    """
    if not is_measured(model):
        return ImageScale()
    size = source.shape[3], source.shape[4]
    diameter = None
    for t, z in _choose_planes(source):

        def read(window: tuple[slice, slice], t: int = t, z: int = z) -> NDArray[Any]:
            y, x = window
            image_cyx = source.read((y.start, y.stop), (x.start, x.stop), t=t, z=z)
            return model.as_model_input(image_cyx, source.path)

        normalization = normalizations.get("") or normalizations[f"{t},{z}"]
        diameter = measure_diameter(model, read, size, normalization, device)
        if diameter is not None:
            break
    return find_scale(model, diameter, size, source.path, notices)


def report_unlike(
    model: Model, source: Source, normalizations: Mapping[str, Normalization], device: str, notices: Notices
) -> None:
    """Compare the features of an image with those of the training images, as `Model.report_unlike` does.

    Of at most three planes, at most nine windows each are measured. Windows without objects are left out, as far as
    any have objects.

    Raises
    ------
    InputError
        The image cannot be read.
    """
    if model.training_features is None:
        return
    sums = FeatureSums(model.net)
    net = list_members(model.net)[0]
    for t, z in _choose_planes(source):
        wholes = _read_windows(model, source, t, z, _MEASURED_WINDOWS)
        windows = [window for whole in wholes for window in cut_windows(whole, _WINDOW)]
        shown = [window for window in windows if measure_values(window).structured is not False]
        normalization = normalizations.get("") or normalizations[f"{t},{z}"]
        measure_windows(net, shown or windows, normalization, pick_device(device), sums)
    report_distance(model.training_features, sums, source.path, notices)


def _choose_planes(source: Source) -> list[tuple[int, int]]:
    """Return the time and depth of at most three planes that are spread over an image."""
    planes = list(product(range(source.shape[0]), range(source.shape[2])))
    return [
        planes[number]
        for number in sorted({round(index * (len(planes) - 1) / max(1, _PLANES - 1)) for index in range(_PLANES)})
    ]


def _read_windows(model: Model, source: Source, t: int, z: int, windows: int = _WINDOWS) -> Iterator[NDArray[Any]]:
    """Yield a whole plane, or windows of one size that are spread over it, that many along Y and along X."""
    height, width = source.shape[3:]
    if height * width <= _WHOLE:
        yield model.as_model_input(source.read((0, height), (0, width), t=t, z=z), source.path)
        return
    tall, wide = min(height, _WINDOW), min(width, _WINDOW)
    tops, lefts = (
        sorted({round(place) for place in np.linspace(0, length - side, windows)})
        for length, side in ((height, tall), (width, wide))
    )
    for top, left in product(tops, lefts):
        image_cyx = source.read((top, top + tall), (left, left + wide), t=t, z=z)
        yield model.as_model_input(image_cyx, source.path)


def resolve_normalizations(model: Model, source: Source, factor: float = 1.0) -> dict[str, Normalization]:
    """Find the normalisation of each plane, with keys "t,z"; or return one for all planes, with the key "".

    The constants equal those that `Normalization.resolve` finds for a whole plane in memory. They include the factor
    for the values.

    Raises
    ------
    InputError
        The image cannot be read.
    """
    if model.normalization.kind == "dataset":
        return {"": model.normalization.rescale(factor)}
    planes = product(range(source.shape[0]), range(source.shape[2]))
    height, width = source.shape[3:]
    if model.normalization.flatten_noise and choose_sampling_steps((height, width)) == (1, 1):
        wholes = ((t, z, source.read((0, height), (0, width), t=t, z=z)) for t, z in planes)
        return {
            f"{t},{z}": model.normalization.resolve(model.as_model_input(image_cyx, source.path))
            for t, z, image_cyx in wholes
        }
    return {f"{t},{z}": model.normalization.resolve_samples(_read_samples(model, source, t, z)) for t, z in planes}


def _read_samples(model: Model, source: Source, t: int, z: int) -> list[NDArray[Any]]:
    """Read the pixels of each channel on the grid of `choose_sampling_steps`, part by part."""
    height, width = source.shape[3:]
    rows, columns = choose_sampling_steps((height, width))
    bands: list[list[NDArray[Any]]] = [[] for _ in range(model.channels)]
    # A large chunk is kept, so it can be read part by part; others are read whole, to decode each once.
    chunk = source.chunk if math.prod(source.chunk) * source.dtype.itemsize <= 2 * _BAND**2 else (_BAND, _BAND)
    for top, bottom in _split(height, max(chunk[0], rows)):
        for left, right in _split(width, max(chunk[1], _BAND)):
            first = -top % rows, -left % columns
            if top + first[0] >= bottom or left + first[1] >= right:
                continue
            image_cyx = source.read((top, bottom), (left, right), t=t, z=z)
            fitted_cyx = model.as_model_input(image_cyx, source.path)[:, first[0] :: rows, first[1] :: columns]
            for band, plane_yx in zip(bands, fitted_cyx):
                band.append(np.array(plane_yx).ravel())
    return [np.concatenate(band) for band in bands]


def _split(size: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the first index of each part of a side, and the one after its last."""
    for begin in range(0, size, step):
        yield begin, min(begin + step, size)


def find_empty_blocks(source: Source, block: int) -> tuple[tuple[BlockIndex, ...], tuple[str, ...]]:
    """Find the blocks in which a thumbnail shows nothing but background.

    The background is the most frequent grey value of each channel. A block is empty if no pixel of the thumbnail in it,
    or next to it, differs from the background by more than 5 % of the range from percentile 1 to percentile 99.8. The
    thumbnail is the largest pyramid level of at most 4 million pixels. Without such a level, every nth row and column
    of the image is read.

    Parameters
    ----------
    source
        The image.
    block
        Side of a block, pixels.

    Returns
    -------
    blocks
        Indices (t, z, y, x) of the empty blocks.
    notes
        A sentence for the user about their number.

    Raises
    ------
    InputError
        The image cannot be read.
    """
    found: list[BlockIndex] = []
    height, width = source.shape[3:]
    for t, z in product(range(source.shape[0]), range(source.shape[2])):
        thumbnail_cyx, scale_y, scale_x = _read_thumbnail(source, t, z)
        busy_yx = np.zeros(thumbnail_cyx.shape[1:], bool)
        for plane_yx in thumbnail_cyx:
            low, high = find_robust_range(plane_yx, 1, 99.8)
            if high > low:
                busy_yx |= np.abs(plane_yx - _find_background(plane_yx, low, high)) > _CONTRAST * (high - low)
        for row, column in product(range(-(-height // block)), range(-(-width // block))):
            y, x = (
                slice(max(0, int(number * block / scale) - 1), int(np.ceil((number + 1) * block / scale)) + 1)
                for number, scale in ((row, scale_y), (column, scale_x))
            )
            if not busy_yx[y, x].any():
                found.append((t, z, row, column))
    total = -(-height // block) * -(-width // block) * source.shape[0] * source.shape[2]
    return tuple(found), (f"{len(found)} of {total} blocks show nothing but background and are skipped",)


def _find_background(plane_yx: NDArray[Any], low: float, high: float) -> float:
    """Return the most frequent value, as the centre of one of 256 bins."""
    counts, edges = np.histogram(plane_yx, bins=256, range=(low, high))
    most = int(counts.argmax())
    return float(edges[most] + edges[most + 1]) / 2


def _read_thumbnail(source: Source, t: int, z: int) -> tuple[NDArray[np.float64], float, float]:
    """Read a small version of a plane.

    Returns
    -------
    thumbnail_cyx
        float64.
    rows, columns
        Rows and columns of the image per pixel of the thumbnail.
    """
    height, width = source.shape[3:]
    for level, (rows, columns) in enumerate(source.levels):
        if level > source.level and rows * columns <= _THUMBNAIL:
            with open_source(
                source.path, Selection(level=level, channels=source.channels, image=source.image)
            ) as small:
                whole = small.read((0, rows), (0, columns), t=t, z=z).astype(np.float64)
            return whole, height / rows, width / columns
    step = max(1, int(np.ceil(np.sqrt(height * width / _THUMBNAIL))))
    strips = []
    for top, bottom in _split(height, max(step, _BAND // step * step)):
        parts = [
            source.read((top, bottom), (left, right), t=t, z=z)[:, ::step, ::step]
            for left, right in _split(width, max(step, _BAND // step * step))
        ]
        strips.append(np.concatenate(parts, axis=2))
    return np.concatenate(strips, axis=1).astype(np.float64), step, step
