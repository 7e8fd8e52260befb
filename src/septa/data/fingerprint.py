"""Facts of a dataset: what each image holds, and what they hold together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from septa.recipe import IGNORE

Array = npt.NDArray[Any]

PERCENTILES = (0.5, 50.0, 99.5)
DIAMETER_PERCENTILES = (5.0, 50.0, 95.0)
_THUMB = 32
_STATISTICS_BLOCK = 2**20
_PERCENTILE_PIXELS = 2**16
_THUMB_PIXELS = 2**22
_COMPONENT_PIXELS = 2**26
_DIAMETERS = 200


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageFacts:
    """What one image and its labels hold.

    Attributes
    ----------
    name
        Unique name of the pair.
    height, width, channels, dtype
        Shape of the image in pixels and its NumPy dtype's name.
    mean, std
        For each channel, in raw units, over the finite pixels.
    percentiles
        For each channel the 0.5, 50 and 99.5 percentiles in raw units, of an even sample of the finite pixels.
    finite
        Whether the image holds neither NaN nor Inf.
    constant
        Whether every channel has a single value.
    thumb
        float32, 32 x 32: the grey image reduced, mean 0 and norm 1; zeros for a constant image.
    digest, image_digest
        SHA-256 (hex) of image and label pixels together, and of the image's pixels alone.
    class_pixels
        Number of pixels of each class (each bit of a multilabel bit field), and of `IGNORE`; empty without labels.
    object_diameters
        Diameters in pixels of the discs that have the areas of the foreground's connected components, ascending;
        at most 200, evenly chosen.
    objects
        Number of objects that the labels number; None where they hold classes or are not usable.
    """

    name: str
    height: int
    width: int
    channels: int
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    percentiles: tuple[tuple[float, ...], ...]
    finite: bool
    constant: bool
    thumb: npt.NDArray[np.float32]
    digest: str
    image_digest: str
    class_pixels: dict[int, int]
    object_diameters: tuple[float, ...]
    objects: int | None = None


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What the images of a dataset hold together.

    Attributes
    ----------
    images
        Number of images.
    sizes
        (height, width) in pixels: smallest, median and largest, height and width each for itself.
    channels
        Channels of the net's input; grey images count as repeated.
    dtype
        The most frequent NumPy dtype name.
    mean, std
        For each channel over all pixels of all images, raw units.
    percentiles
        For each channel the medians over the images of their 0.5, 50 and 99.5 percentiles.
    class_shares
        Share 0..1 of each class among the pixels that are not ignored. Multilabel classes overlap, so that the
        sum may be any.
    diameter_percentiles
        5, 50 and 95 percentile of the object diameters in pixels; zeros where there are no objects.
    digest
        SHA-256 (hex) over all images and labels, independent of names and order.
    """

    images: int
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    channels: int
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    percentiles: tuple[tuple[float, ...], ...]
    class_shares: tuple[float, ...]
    diameter_percentiles: tuple[float, float, float]
    digest: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def scan_image(
    name: str, image_cyx: Array, labels_yx: Array | None, *, classes: int, multilabel: bool = False
) -> ImageFacts:
    """Collect the facts of one image.

    Parameters
    ----------
    name
        Unique name of the pair.
    image_cyx
        Image, CYX, any numeric dtype, raw units.
    labels_yx
        Encoded labels, YX, integer: class indices below ``classes`` or, if ``multilabel``, bit fields; `IGNORE` for
        ignored pixels. None if there are no usable labels.
    classes
        Number of classes.
    multilabel
        Whether the labels are bit fields.

    Raises
    ------
    ValueError
        If the shapes do not fit or the labels hold other values.

    Examples
    --------
    >>> image_cyx = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    >>> facts = scan_image("a", image_cyx, np.eye(3, 4, dtype=np.int32), classes=2)
    >>> facts.mean, facts.class_pixels
    ((5.5,), {0: 9, 1: 3, -1: 0})
    """
    if image_cyx.ndim != 3 or image_cyx.size == 0:
        raise ValueError(f"an image has non-empty axes CYX, got shape {image_cyx.shape}")
    channels, height, width = image_cyx.shape
    if labels_yx is not None and labels_yx.shape != (height, width):
        raise ValueError(f"labels of shape {labels_yx.shape} do not fit an image of shape {image_cyx.shape}")
    moments = [_moments(plane_yx) for plane_yx in image_cyx]
    constant = all(low >= high for _, _, low, high, _ in moments)
    image_digest = digest_array(image_cyx)
    labels_digest = "" if labels_yx is None else digest_array(labels_yx.astype(np.int32, copy=False))
    return ImageFacts(
        name=name,
        height=height,
        width=width,
        channels=channels,
        dtype=image_cyx.dtype.name,
        mean=tuple(mean for mean, _, _, _, _ in moments),
        std=tuple(std for _, std, _, _, _ in moments),
        percentiles=tuple(_percentiles(plane_yx) for plane_yx in image_cyx),
        finite=all(finite for _, _, _, _, finite in moments),
        constant=constant,
        thumb=np.zeros((_THUMB, _THUMB), np.float32) if constant else _thumb(image_cyx),
        digest=hashlib.sha256((image_digest + labels_digest).encode()).hexdigest(),
        image_digest=image_digest,
        class_pixels={} if labels_yx is None else _class_pixels(labels_yx, classes, multilabel),
        object_diameters=() if labels_yx is None else _object_diameters(labels_yx, classes, multilabel),
    )


def combine_facts(facts: Sequence[ImageFacts], *, channels: int | None = None) -> Fingerprint:
    """Join the facts of several images; the order does not matter.

    Parameters
    ----------
    facts
        At least one image's facts.
    channels
        Channels of the net's input; the largest number found when not given.

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
    means = np.array([_fit(item.mean, channels, item.name) for item in facts])
    stds = np.array([_fit(item.std, channels, item.name) for item in facts])
    mean = weights @ means
    # The spread between the images counts too; this form does not cancel as E[x^2] - E[x]^2 would.
    std = np.sqrt(weights @ (stds**2 + (means - mean) ** 2))
    percentiles = np.median(np.array([_fit(item.percentiles, channels, item.name) for item in facts]), axis=0)
    sizes = np.array([(item.height, item.width) for item in facts])
    low, middle, high = (tuple(int(size) for size in row) for row in np.quantile(sizes, (0, 0.5, 1), axis=0))
    digests = "".join(sorted(item.digest for item in facts))
    return Fingerprint(
        images=len(facts),
        sizes=((low[0], low[1]), (middle[0], middle[1]), (high[0], high[1])),
        channels=channels,
        dtype=min(Counter(item.dtype for item in facts).items(), key=lambda entry: (-entry[1], entry[0]))[0],
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        percentiles=tuple(tuple(row) for row in percentiles.tolist()),
        class_shares=_class_shares(facts),
        diameter_percentiles=_diameter_percentiles(facts),
        digest=hashlib.sha256(digests.encode()).hexdigest(),
    )


def digest_array(array: Array) -> str:
    """SHA-256 of an array: the same for the same shape, dtype and values, whatever its layout in memory.

    Parameters
    ----------
    array
        Any numeric dtype; any byte order and strides, which do not count.

    Returns
    -------
    str
        64 hex digits, of the shape, the dtype's name and the values in little-endian order.

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


def _moments(plane_yx: Array) -> tuple[float, float, float, float, bool]:
    """Mean, standard deviation, minimum and maximum of the finite pixels, and whether all are finite."""
    count, mean, squares, low, high, finite = 0, 0.0, 0.0, float("inf"), float("-inf"), True
    rows = max(1, _STATISTICS_BLOCK // plane_yx.shape[1])
    for top in range(0, plane_yx.shape[0], rows):
        block = plane_yx[top : top + rows].astype(np.float64).ravel()
        if plane_yx.dtype.kind == "f" and not np.isfinite(block).all():
            finite = False
            block = block[np.isfinite(block)]
        if not block.size:
            continue
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        block_mean = float(block.mean())
        block -= block_mean
        # Chan's update keeps the precision that a sum of squares loses.
        shift, total = block_mean - mean, count + block.size
        squares += float(block @ block) + shift**2 * count * block.size / total
        mean += shift * block.size / total
        count = total
    return mean, (squares / count) ** 0.5 if count else 0.0, low, high, finite


def _percentiles(plane_yx: Array) -> tuple[float, ...]:
    sample = _thin(plane_yx, _PERCENTILE_PIXELS).ravel()
    if plane_yx.dtype.kind == "f":
        sample = sample[np.isfinite(sample)]
    if not sample.size:
        return (0.0,) * len(PERCENTILES)
    return tuple(float(value) for value in np.percentile(sample, PERCENTILES))


def _thin(plane_yx: Array, pixels: int) -> Array:
    """Every n-th pixel in both axes (a view), such that about ``pixels`` remain at most."""
    step = int(np.ceil(np.sqrt(max(1.0, plane_yx.size / pixels))))
    return plane_yx[::step, ::step]


def _thumb(image_cyx: Array) -> npt.NDArray[np.float32]:
    total = np.zeros((_THUMB, _THUMB), np.float64)
    for plane_yx in image_cyx:
        plane = _thin(plane_yx, _THUMB_PIXELS).astype(np.float32)
        if plane_yx.dtype.kind == "f":
            plane = np.nan_to_num(plane, nan=0.0, posinf=0.0, neginf=0.0)
        total += cv2.resize(plane, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
    total -= total.mean()
    norm = float(np.linalg.norm(total))
    # Below this the thumb is rounding noise of an even image, which would correlate with anything or nothing.
    if not np.isfinite(norm) or norm <= 1e-9:
        return np.zeros((_THUMB, _THUMB), np.float32)
    return (total / norm).astype(np.float32)


def _class_pixels(labels_yx: Array, classes: int, multilabel: bool) -> dict[int, int]:
    low, high = int(labels_yx.min()), int(labels_yx.max())
    limit = 2**classes if multilabel else classes
    if low < IGNORE or high >= limit:
        raise ValueError(f"encoded labels lie in {IGNORE}..{limit - 1}, got {low}..{high}")
    if multilabel:
        counts = {k: int(np.count_nonzero((labels_yx >> k) & (labels_yx >= 0))) for k in range(classes)}
        return counts | {IGNORE: int(np.count_nonzero(labels_yx == IGNORE))}
    found = np.bincount((labels_yx - IGNORE).ravel(), minlength=classes + 1)
    return {k: int(found[k + 1]) for k in range(classes)} | {IGNORE: int(found[0])}


def _object_diameters(labels_yx: Array, classes: int, multilabel: bool) -> tuple[float, ...]:
    thin_yx = _thin(labels_yx, _COMPONENT_PIXELS)
    step = labels_yx.shape[0] / thin_yx.shape[0]
    areas = []
    for mask_yx in _foreground_masks(thin_yx, classes, multilabel):
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask_yx, connectivity=8)
        areas.append(stats[1:, cv2.CC_STAT_AREA])
    if not areas:
        return ()
    diameters = np.sort(2 * step * np.sqrt(np.concatenate(areas) / np.pi))
    if diameters.size > _DIAMETERS:
        diameters = diameters[np.linspace(0, diameters.size - 1, _DIAMETERS).round().astype(int)]
    return tuple(diameters.tolist())


def _foreground_masks(labels_yx: Array, classes: int, multilabel: bool) -> Iterator[npt.NDArray[np.uint8]]:
    for k in range(0 if multilabel else 1, classes):
        selected = ((labels_yx >> k) & (labels_yx >= 0)) if multilabel else labels_yx == k
        if selected.any():
            yield selected.astype(np.uint8)


def _fit(values: tuple[Any, ...], channels: int, name: str) -> tuple[Any, ...]:
    if len(values) == channels:
        return values
    if len(values) == 1:
        return values * channels
    if len(values) == 3 and channels == 1:
        return values[:1]
    raise ValueError(f"{name}: {len(values)} channels cannot be made {channels}")


def _class_shares(facts: Sequence[ImageFacts]) -> tuple[float, ...]:
    classes = max((max(item.class_pixels, default=IGNORE) + 1 for item in facts), default=0)
    counted = [item for item in facts if item.class_pixels]
    pixels = sum(item.height * item.width - item.class_pixels.get(IGNORE, 0) for item in counted)
    return tuple(sum(item.class_pixels.get(k, 0) for item in counted) / max(1, pixels) for k in range(classes))


def _diameter_percentiles(facts: Sequence[ImageFacts]) -> tuple[float, float, float]:
    diameters = np.concatenate([np.asarray(item.object_diameters, np.float64) for item in facts])
    if not diameters.size:
        return 0.0, 0.0, 0.0
    low, middle, high = np.percentile(diameters, DIAMETER_PERCENTILES).tolist()
    return low, middle, high


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
