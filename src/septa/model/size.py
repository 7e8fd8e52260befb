"""The size at which an image is segmented: large objects are found in a reduced image."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.images import Normalization
from septa.inference import Engine
from septa.labels import MOST_REDUCED, ImageScale, choose_reduction, find_typical_diameter
from septa.nets import list_members
from septa.notices import Notices
from septa.tasks import MOST_PIXELS

from .options import PredictionOptions
from .protocol import TrainedModel
from .tiles import run_tiles

_FIRST = 256
"""Side of the window in the centre of an image in which small objects are looked for, pixels."""
_SMALL = 20
"""Diameter below which objects are measured in this window, at full size; smaller ones can merge at half size."""
_SAMPLED = 2
"""Factor by which an image is reduced to measure larger objects."""
_CENTRE = 384
"""Side of the window in the centre of an image that is measured first, pixels."""
_SIDE = 768
"""Side of each of the windows that are measured if the first one holds few objects, pixels."""
_SPREAD = 2
"""Number of these windows along each side of the image."""
_FEWEST = 8
"""Number of objects from which a window is enough."""

Window = tuple[slice, slice]
Read = Callable[[Window], NDArray[Any]]


class SizedModels(dict[tuple[float, str, str | None, str | None], tuple[Hashable, tuple[Any, Engine]]]):
    """Reduced models of a model and their engines, by factor, device, engine and precision; they are not pickled.

    Each has the stamp of the weights of which it was made; see `septa.inference.reuse`.
    """

    def __reduce__(self) -> tuple[type[SizedModels], tuple[()]]:
        """Return an empty collection."""
        return type(self), ()


def is_measured(model: TrainedModel) -> bool:
    """Return whether the segmentation of an image depends on the typical diameter of its objects."""
    recipe = model.recipe
    data, own = recipe.data, recipe.instances
    asked = data.largest is not None, own.smallest is not None, own.least_share > 0, own.join_share > 0
    return model.task.finds_objects and any(asked)


def choose_scale(model: TrainedModel, diameter: float, largest: float | None) -> ImageScale:
    """Return the scale of an image whose objects have a typical diameter in pixels.

    They get smaller than ``largest``, as far as the net can be reduced, and twice as large if they are smaller than the
    recipe's ``instances.smallest``. Those below ``instances.least_share`` are dropped, and touching parts below
    ``instances.join_share`` together may be joined.
    """
    smallest = model.recipe.instances.smallest
    if smallest is not None and diameter < smallest and _can_enlarge(model):
        reduction = 0.5
    else:
        reduction = 1 if largest is None else choose_reduction(diameter, largest)
    own, area = model.recipe.instances, math.pi / 4 * diameter**2
    least, joined = (min(round(share * area), MOST_PIXELS) for share in (own.least_share, own.join_share))
    return ImageScale(min(reduction, _find_most_reduced(model)), max(1, least), joined)


def _can_enlarge(model: TrainedModel) -> bool:
    """Return whether the images of a model can be enlarged by 2."""
    config = list_members(model.net)[0].config
    return config.magnification == 1 and config.padding == "same" and config.odd_sizes == "pad"


def _find_most_reduced(model: TrainedModel) -> int:
    """Return the largest factor by which the images of a model can be reduced."""
    net = list_members(model.net)[0]
    return 1 if net.config.padding == "valid" else MOST_REDUCED // net.reduction


def find_scale(
    model: TrainedModel,
    diameter: float | None,
    size: tuple[int, int],
    where: str | PathLike[str],
    notices: Notices,
) -> ImageScale:
    """Return the scale at which an image is segmented, and say so if objects or their number change by it.

    Parameters
    ----------
    model
        Model; ``data.largest`` of its recipe is the diameter that objects must not reach, ``instances.least_share`` the
        smallest share of the typical area, and ``instances.join_share`` that below which parts may be joined.
    diameter
        Typical diameter of the objects, pixels; None if there are none.
    size
        Height and width of the image, pixels.
    where
        Path that the note names, or ``image``.
    notices
        Receives the note.
    """
    if diameter is None or not is_measured(model):
        return ImageScale()
    scale = choose_scale(model, diameter, model.recipe.data.largest)
    reduction = scale.reduction
    # An image that is smaller than the period of the net would be mostly padding.
    while reduction > 1 and min(size) < reduction * model.net.multiple:
        reduction /= 2
    if reduction != 1:
        times = f"1/{reduction:g} of" if reduction > 1 else f"{1 / reduction:g} times"
        text = f"objects are {{}} pixels wide, so the image is segmented at {times} its size"
        notices.add(where, text, amount=round(diameter))
    if scale.least_pixels > model.decoding.enlarge(reduction).least_pixels:
        text = "objects of less than {} pixels are left out: they are much smaller than the others"
        notices.add(where, text, amount=scale.least_pixels)
    if scale.join_pixels:
        text = "touching parts that together have less than {} pixels are joined where no deep rim divides them"
        notices.add(where, text, amount=scale.join_pixels)
    return replace(scale, reduction=reduction)


def decode_as_predicted(model: TrainedModel, logits_kyx: NDArray[np.float32]) -> NDArray[np.int32]:
    """Find the objects of a whole image as its segmentation does: parts are joined and debris is dropped.

    The typical diameter is that of the objects which are found without both. A segmentation measures it in windows of
    the image, so it may differ a little. The scale of the image is kept.

    Parameters
    ----------
    model
        Model.
    logits_kyx
        Logits of an image at the size that the net was trained for, float32 ``KYX``.

    Returns
    -------
    ndarray
        Labels, int32 ``YX``, as of `septa.tasks.Task.decode`.
    """
    labels_yx = model.task.decode(logits_kyx)
    own = model.recipe.instances
    diameter = find_typical_diameter(np.bincount(labels_yx.ravel())[1:]) if is_measured(model) else None
    if diameter is None or not (own.least_share or own.join_share):
        return labels_yx
    scale = replace(choose_scale(model, diameter, None), reduction=1)
    return model.apply_scale(scale).task.decode(logits_kyx)


def measure_diameter(
    model: TrainedModel, read: Read, size: tuple[int, int], normalization: Normalization, device: str
) -> float | None:
    """Return the typical diameter of the objects that a model finds in an image, pixels; None if it finds none.

    See `septa.labels.find_typical_diameter`. A window in the centre of the image is examined first. Unless it holds
    small objects, the image is examined at half its size, if the net can be reduced, in a window in its centre, or in
    four windows if that holds few objects.
    """
    _, engine = model.reduce_with_engine(1, device, "torch")
    (window,) = _choose_windows(size, _FIRST, 1)
    small, cut = _measure_window(model, engine, read, window, size, normalization)
    diameter = find_typical_diameter(small)
    if diameter is not None and diameter < _SMALL and len(small) >= _FEWEST and sum(small) >= sum(cut):
        return diameter
    half, engine = model.reduce_with_engine(min(_SAMPLED, _find_most_reduced(model)), device, "torch")
    areas: list[int] = []
    for windows in (_choose_windows(size, _CENTRE, 1), _choose_windows(size, _SIDE, _SPREAD)):
        found = [_measure_window(half, engine, read, window, size, normalization) for window in windows]
        areas = [area for whole, _ in found for area in whole]
        if len(areas) >= _FEWEST or windows[0] == (slice(0, size[0]), slice(0, size[1])):
            break
    return find_typical_diameter(areas) or diameter


def _choose_windows(size: tuple[int, int], side: int, count: int) -> Sequence[Window]:
    """Return windows that are spread over an image, that many along each side; the whole image if they cover it."""
    if max(size) <= count * side:
        return [(slice(0, size[0]), slice(0, size[1]))]
    places = []
    for length in size:
        part = min(length, side)
        starts = sorted({round((2 * n + 1) * (length - part) / (2 * count)) for n in range(count)})
        places.append([slice(start, start + part) for start in starts])
    return list(product(*places))


def _measure_window(
    half: TrainedModel,
    engine: Engine,
    read: Read,
    window: Window,
    size: tuple[int, int],
    normalization: Normalization,
) -> tuple[list[int], list[int]]:
    """Return the areas of the objects in a window: of the whole ones, and of those that it cuts."""
    image_cyx = read(window)
    logits_kyx = np.empty((half.net.out_channels, *image_cyx.shape[1:]), np.float32)

    def keep(core: Window, part_kyx: NDArray[np.float32]) -> None:
        logits_kyx[(slice(None), *core)] = part_kyx

    run_tiles(half.net, engine, image_cyx, normalization, keep, PredictionOptions())
    labels_yx = half.task.decode(logits_kyx)
    areas = np.bincount(labels_yx.ravel())
    areas[0] = 0
    cut = np.zeros(len(areas), bool)
    for edge_n in _list_cuts(labels_yx, window, size):
        cut[edge_n] = True
    whole, parts = ([int(area) for area in areas[kind] if area] for kind in (~cut, cut))
    return whole, parts


def _list_cuts(labels_yx: NDArray[np.int32], window: Window, size: tuple[int, int]) -> Iterator[NDArray[np.int32]]:
    """Yield the labels along the edges of a window that lie inside the image."""
    for axis, (part, length) in enumerate(zip(window, size, strict=True)):
        if part.start > 0:
            yield labels_yx[0] if axis == 0 else labels_yx[:, 0]
        if part.stop < length:
            yield labels_yx[-1] if axis == 0 else labels_yx[:, -1]
