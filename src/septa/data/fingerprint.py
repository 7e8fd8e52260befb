"""Facts of each image, and the fingerprint of the whole dataset that follows from them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from septa.data.intensities import ChannelValues, compute_moments, find_constants, survey_channel
from septa.data.label_facts import count_class_pixels, measure_diameters, take_every_nth
from septa.data.walls import WallFacts, Walls, find_walls, measure_walls
from septa.images import Sketch, ValueFacts, drop_values, make_sketch, measure_values
from septa.recipe import IGNORE

Array = npt.NDArray[Any]

PERCENTILES = (0.5, 50.0, 99.5)
"""Percentiles of the intensities."""

DIAMETER_PERCENTILES = (5.0, 50.0, 95.0)
"""Percentiles of the object diameters."""

_THUMB = 32

# Largest numbers of pixels that statistics are computed from.
_PERCENTILE_PIXELS = 2**16
_THUMB_PIXELS = 2**22


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageFacts:
    """Facts of one image and its labels.

    Attributes
    ----------
    name
        Unique name of the pair.
    height, width
        Size of the image in pixels.
    channels
        Number of channels of the image.
    dtype
        Name of the image's NumPy dtype.
    mean, std
        Mean and standard deviation of the finite pixels of each channel, in raw units.
    percentiles
        0.5, 50 and 99.5 percentiles of each channel in raw units, from an even sample of the finite pixels without
        fillers.
    values
        Values of each channel by objects and background, and those far outside.
    finite
        True if the image holds neither NaN nor Inf.
    constant
        True if every channel has a single value.
    thumb
        Grey image reduced to 32 x 32, float32, with mean 0 and norm 1; zeros for a constant image.
    sketch
        Most distinct points of the image.
    digest, image_digest
        SHA-256 (hex) of image and label pixels together; of the image's pixels alone.
    class_pixels
        Number of pixels of each class (each bit of a multilabel bit field), and of `IGNORE`; empty without labels.
    object_diameters
        Diameters in pixels of the foreground's connected components, ascending: those of discs of the same area. At
        most 200 are kept, evenly chosen.
    value_facts
        Facts by which other images are compared with this one.
    walls
        Class 0 and class 1 as walls between regions of the other; empty unless the labels have two exclusive classes.
    objects
        Number of objects that the labels distinguish; None if labels hold classes or are not usable.
    cores
        Number of objects, and of those whose core is one piece; see `count_whole_cores`. Zeros if ``objects`` is None.
    labels_digest, whole_digest
        SHA-256 (hex) of labels of several values; of the whole image, if these are the facts of a part. Else empty.
    color
        True if the file states that its first three channels are a colour.
    """

    name: str
    height: int
    width: int
    channels: int
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    percentiles: tuple[tuple[float, ...], ...]
    values: tuple[ChannelValues, ...]
    finite: bool
    constant: bool
    thumb: npt.NDArray[np.float32]
    sketch: Sketch
    digest: str
    image_digest: str
    class_pixels: dict[int, int]
    object_diameters: tuple[float, ...]
    value_facts: ValueFacts
    walls: tuple[Walls, ...] = ()
    objects: int | None = None
    cores: tuple[int, int] = (0, 0)
    labels_digest: str = ""
    whole_digest: str = ""
    color: bool = False


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Facts of all images of a dataset together.

    Attributes
    ----------
    images
        Number of images.
    sizes
        Smallest, median and largest (height, width) in pixels, computed for height and width separately.
    channels
        Channels of the net's input; grey images count as repeated.
    dtype
        Most frequent name of a NumPy dtype.
    mean, std
        Mean and standard deviation of each channel over all pixels of all images, in raw units.
    percentiles
        Medians over the images of each channel's 0.5, 50 and 99.5 percentiles.
    offset, scale
        Centre and spread of each channel over the images that hold objects, in raw units; a few extreme pixels change
        them little. See `find_constants`.
    class_shares
        Share of each class among the pixels that are not ignored, 0 to 1. Multilabel classes overlap, so their shares
        need not sum to 1.
    diameter_percentiles
        5, 50 and 95 percentiles of the object diameters in pixels; zeros if there are no objects.
    digest
        SHA-256 (hex) over all images and labels, independent of names and order.
    color
        True if the three channels are a colour, so that grey images may be repeated to match.
    walls
        Class that is thin walls between regions of the other, as membranes between cells are; None if there is none.
    whole_cores
        Share of the objects whose core is one piece, 0 to 1; None if the labels hold no ids.
    """

    images: int
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    channels: int
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    percentiles: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    class_shares: tuple[float, ...]
    diameter_percentiles: tuple[float, float, float]
    digest: str
    color: bool = False
    walls: WallFacts | None = None
    whole_cores: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as values that JSON can hold."""
        return {key: _tuples_to_lists(value) for key, value in asdict(self).items()}


def scan_image(
    name: str, image_cyx: Array, labels_yx: Array | None, *, classes: int, multilabel: bool = False
) -> ImageFacts:
    """Collect the facts of one image.

    Parameters
    ----------
    name
        Unique name of the pair.
    image_cyx
        Image ``CYX``, any numeric dtype, raw units.
    labels_yx
        Encoded labels ``YX``, integer: class indices below ``classes`` or, if ``multilabel``, bit fields; `IGNORE` for
        ignored pixels. None if there are no usable labels.
    classes
        Number of classes.
    multilabel
        True if the labels are bit fields.

    Returns
    -------
    ImageFacts
        Facts with ``objects`` None.

    Raises
    ------
    ValueError
        If the shapes do not fit each other or the labels hold other values.

    Examples
    --------
    >>> image_cyx = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    >>> facts = scan_image("a", image_cyx, np.eye(3, 4, dtype=np.int32), classes=2)
    >>> facts.mean, facts.class_pixels
    ((5.5,), {0: 9, 1: 3, -1: 0})
    """
    if image_cyx.ndim != 3 or image_cyx.size == 0:
        raise ValueError(f"an image must have non-empty axes CYX, got shape {image_cyx.shape}")
    channels, height, width = image_cyx.shape
    if labels_yx is not None and labels_yx.shape != (height, width):
        raise ValueError(f"labels of shape {labels_yx.shape} do not fit an image of shape {image_cyx.shape}")
    moments = [compute_moments(plane_yx) for plane_yx in image_cyx]
    constant = all(channel.low >= channel.high for channel in moments)
    values = tuple(survey_channel(plane_yx, labels_yx) for plane_yx in image_cyx)
    image_digest = digest_array(image_cyx)
    labels_digest = "" if labels_yx is None else digest_array(labels_yx.astype(np.int32, copy=False))
    return ImageFacts(
        name=name,
        height=height,
        width=width,
        channels=channels,
        dtype=image_cyx.dtype.name,
        mean=tuple(channel.mean for channel in moments),
        std=tuple(channel.std for channel in moments),
        percentiles=tuple(_compute_percentiles(plane_yx, own) for plane_yx, own in zip(image_cyx, values)),
        values=values,
        finite=all(channel.finite for channel in moments),
        constant=constant,
        thumb=np.zeros((_THUMB, _THUMB), np.float32) if constant else _make_thumb(image_cyx, values),
        sketch=make_sketch(image_cyx),
        digest=hashlib.sha256((image_digest + labels_digest).encode()).hexdigest(),
        image_digest=image_digest,
        class_pixels={} if labels_yx is None else count_class_pixels(labels_yx, classes, multilabel),
        object_diameters=() if labels_yx is None else measure_diameters(labels_yx, classes, multilabel),
        value_facts=measure_values(image_cyx),
        walls=() if labels_yx is None or classes != 2 or multilabel else measure_walls(labels_yx),
    )


def combine_facts(facts: Sequence[ImageFacts], *, channels: int | None = None) -> Fingerprint:
    """Combine the facts of several images into a fingerprint; their order does not matter.

    Parameters
    ----------
    facts
        Facts of at least one image.
    channels
        Channels of the net's input; by default the largest number found.

    Raises
    ------
    ValueError
        If there are no facts, or an image's channels can neither be repeated nor merged to ``channels``.
    """
    if not facts:
        raise ValueError("a fingerprint needs the facts of at least one image")
    channels = channels or max(item.channels for item in facts)
    weights = np.array([item.height * item.width for item in facts], np.float64)
    weights /= weights.sum()
    means = np.array([_fit_channels(item.mean, channels, item.name) for item in facts])
    stds = np.array([_fit_channels(item.std, channels, item.name) for item in facts])
    mean = weights @ means
    # The spread between the images counts too; this form does not cancel as E[x^2] - E[x]^2 would.
    std = np.sqrt(weights @ (stds**2 + (means - mean) ** 2))
    percentiles = np.median(np.array([_fit_channels(item.percentiles, channels, item.name) for item in facts]), axis=0)
    pooled = zip(*(_fit_channels(item.values, channels, item.name) for item in facts))
    offset, scale = zip(*(find_constants(channel) for channel in pooled))
    sizes = np.array([(item.height, item.width) for item in facts])
    low, middle, high = (tuple(int(size) for size in row) for row in np.quantile(sizes, (0, 0.5, 1), axis=0))
    digests = "".join(sorted(item.digest for item in facts))
    objects, whole = (sum(counts) for counts in zip(*(item.cores for item in facts)))
    return Fingerprint(
        images=len(facts),
        sizes=((low[0], low[1]), (middle[0], middle[1]), (high[0], high[1])),
        channels=channels,
        dtype=min(Counter(item.dtype for item in facts).items(), key=lambda entry: (-entry[1], entry[0]))[0],
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        percentiles=tuple(tuple(row) for row in percentiles.tolist()),
        offset=offset,
        scale=scale,
        class_shares=_combine_shares(facts),
        diameter_percentiles=_combine_diameters(facts),
        digest=hashlib.sha256(digests.encode()).hexdigest(),
        color=holds_colors(facts, channels),
        walls=find_walls([item.walls for item in facts]),
        whole_cores=whole / objects if objects else None,
    )


def holds_colors(facts: Sequence[ImageFacts], channels: int) -> bool:
    """Return True if three channels are a colour in all images that have three; the others are grey."""
    return channels == 3 and all(item.color for item in facts if item.channels == 3)


def digest_array(array: Array) -> str:
    """Compute the SHA-256 of an array: equal for equal shape, dtype and values, whatever the layout in memory.

    Parameters
    ----------
    array
        Array of any numeric dtype, with any byte order and strides.

    Returns
    -------
    str
        64 hex digits that depend on the shape, the dtype's name and the values in little-endian order.

    Examples
    --------
    >>> digest_array(np.array([1, 2], ">u2")) == digest_array(np.array([1, 2], "<u2"))
    True
    >>> digest_array(np.array([1, 2])) == digest_array(np.array([[1, 2]]))
    False
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    value = hashlib.sha256(f"{array.shape} {array.dtype.name}".encode())
    value.update(little.data)
    return value.hexdigest()


def _compute_percentiles(plane_yx: Array, values: ChannelValues) -> tuple[float, ...]:
    sample = take_every_nth(plane_yx, _PERCENTILE_PIXELS).ravel()
    if plane_yx.dtype.kind == "f":
        sample = sample[np.isfinite(sample)]
    sample = drop_values(sample, tuple(values.fillers))
    if not sample.size:
        return (0.0,) * len(PERCENTILES)
    return tuple(float(value) for value in np.percentile(sample, PERCENTILES))


def _make_thumb(image_cyx: Array, values: Sequence[ChannelValues]) -> npt.NDArray[np.float32]:
    total = np.zeros((_THUMB, _THUMB), np.float64)
    for plane_yx, own in zip(image_cyx, values):
        plane = take_every_nth(plane_yx, _THUMB_PIXELS).astype(np.float32)
        if plane_yx.dtype.kind == "f":
            plane = np.nan_to_num(plane, nan=0.0, posinf=0.0, neginf=0.0)
        if own.fillers or own.candidates.size:
            # They would hide everything else.
            plane = plane.clip(*own.central)
        total += cv2.resize(plane, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
    total -= total.mean()
    norm = float(np.linalg.norm(total))
    # Below this norm the thumb is rounding noise of a nearly constant image, and its correlations mean nothing.
    if not np.isfinite(norm) or norm <= 1e-9:
        return np.zeros((_THUMB, _THUMB), np.float32)
    return (total / norm).astype(np.float32)


def _fit_channels(values: tuple[Any, ...], channels: int, name: str) -> tuple[Any, ...]:
    """Return one value per channel of the net: repeated for grey images, the first for grey RGB images."""
    if len(values) == channels:
        return values
    if len(values) == 1:
        return values * channels
    if len(values) == 3 and channels == 1:
        return values[:1]
    raise ValueError(f"{name}: {len(values)} channels cannot be converted to {channels}")


def _combine_shares(facts: Sequence[ImageFacts]) -> tuple[float, ...]:
    classes = max((max(item.class_pixels, default=IGNORE) + 1 for item in facts), default=0)
    counted = [item for item in facts if item.class_pixels]
    pixels = sum(item.height * item.width - item.class_pixels.get(IGNORE, 0) for item in counted)
    return tuple(sum(item.class_pixels.get(k, 0) for item in counted) / max(1, pixels) for k in range(classes))


def _combine_diameters(facts: Sequence[ImageFacts]) -> tuple[float, float, float]:
    diameters = np.concatenate([np.asarray(item.object_diameters, np.float64) for item in facts])
    if not diameters.size:
        return 0.0, 0.0, 0.0
    low, middle, high = np.percentile(diameters, DIAMETER_PERCENTILES).tolist()
    return low, middle, high


def _tuples_to_lists(value: Any) -> Any:
    return [_tuples_to_lists(item) for item in value] if isinstance(value, tuple | list) else value
