"""Convert image values to the values that a network sees, and channels to those that it expects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images.outliers import select_finite, select_measured
from septa.images.sampling import choose_sampling_steps
from septa.images.structure import holds_only_noise

CLIP = 10.0
"""Largest magnitude of a normalised value in a new model."""
_LOW, _HIGH = 1.0, 99.8
FLAT = 100
"""Factor of the scale of an image that holds only noise."""


@dataclass(frozen=True)
class Normalization:
    """A shift and a scale for each channel.

    Attributes
    ----------
    kind
        "dataset": constants of the training set, the same for every image. "image": constants found in each image.
    offset, scale
        One number per channel, in units of the image; empty for kind "image". ``scale`` is negative if the values are
        inverted.
    curve
        Strength of the compression, at least 0. At 0, values stay in proportion. Above, they are compressed in
        proportion to ``asinh(curve * value)``, so that dim objects keep their contrast next to very bright ones; the
        values 0 and 2 stay the same.
    clip
        Largest magnitude of a normalised value: what lies beyond is set to it, so that hot pixels, debris and nodata
        have little effect. None, as in models of septa 0.1.0 before this rule, keeps every value.
    invert_light
        True for kind "image" if images with a light background are inverted, so that all have a dark one.
    flatten_noise
        True for kind "image" if images that hold only noise become nearly constant, as blank ones are. Models of septa
        0.1.0 before this rule stretch their noise to the contrast of objects.

    Raises
    ------
    ValueError
        If the attributes contradict each other.

    Examples
    --------
    >>> image_cyx = np.array([[[10, 30]]], np.uint8)
    >>> Normalization("dataset", (20.0,), (10.0,)).apply(image_cyx)
    array([[[-1.,  1.]]], dtype=float32)
    """

    kind: Literal["dataset", "image"]
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    curve: float = 0.0
    clip: float | None = None
    invert_light: bool = False
    flatten_noise: bool = False

    def __post_init__(self) -> None:
        """Check the attributes."""
        if self.kind not in ("dataset", "image"):
            raise ValueError(f"kind must be 'dataset' or 'image', got {self.kind!r}")
        if len(self.offset) != len(self.scale) or bool(self.offset) != (self.kind == "dataset"):
            counts = f"{len(self.offset)} offsets and {len(self.scale)} scales"
            raise ValueError(f"kind 'dataset' must have an offset and a scale per channel, 'image' none; got {counts}")
        tiny, largest = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
        if not all(abs(offset) <= largest for offset in self.offset):
            raise ValueError(f"offsets must be finite numbers of float32, got {self.offset}")
        if not all(tiny <= abs(scale) <= largest for scale in self.scale):
            raise ValueError(f"scales must be finite numbers of float32 and not 0, got {self.scale}")
        if self.invert_light and self.kind != "image":
            raise ValueError("only kind 'image' can invert images with a light background")
        if self.flatten_noise and self.kind != "image":
            raise ValueError("only kind 'image' can flatten images that hold only noise")
        if not 0 <= self.curve < math.inf:
            raise ValueError(f"curve must be at least 0, got {self.curve}")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ValueError(f"clip must be above 0, got {self.clip}")

    def resolve(self, image_cyx: NDArray[Any]) -> Normalization:
        """Return the constants for one image, which apply to all of its tiles.

        Kind "dataset" is returned unchanged. For kind "image" the 1 and 99.8 percentiles of each channel become 0
        and 2: ``offset`` is the lower one, ``scale`` half the distance, or 1 if the channel is constant. With ``clip``,
        nodata and saturated debris (`find_fillers`) do not count. With ``invert_light``, an image in which the median
        lies nearer to percentile 99 than to percentile 1, as the mean over its channels, is normalised as its inverse:
        the 99 percentile becomes 0 and the 0.2 percentile 2. With ``flatten_noise``, the scale of an image of at most 4
        megapixels that holds only noise is `FLAT` times as large, so that its noise does not get the contrast of
        objects.

        Parameters
        ----------
        image_cyx
            The whole image, axes ``CYX``, any numeric type.

        Returns
        -------
        Normalization
            A normalisation of kind "dataset".
        """
        if self.kind == "dataset":
            return self
        steps = choose_sampling_steps(image_cyx.shape[1:])
        noise = self.flatten_noise and steps == (1, 1) and holds_only_noise(image_cyx)
        return self.resolve_samples([plane_yx[:: steps[0], :: steps[1]] for plane_yx in image_cyx], noise=noise)

    def resolve_samples(self, samples: Sequence[NDArray[Any]], *, noise: bool = False) -> Normalization:
        """Return the constants of `resolve` for an image that is not held whole in memory.

        Parameters
        ----------
        samples
            Pixels of each channel on the grid of `choose_sampling_steps`, any shape, any numeric type.
        noise
            True if the image holds only noise.

        Returns
        -------
        Normalization
            A normalisation of kind "dataset", equal to that of `resolve` for the whole image.
        """
        if self.kind == "dataset":
            return self
        wanted = (_LOW, _HIGH, 50.0, 100 - _LOW, 100 - _HIGH) if self.invert_light else (_LOW, _HIGH)
        rows = [_percentiles(values, *wanted, without_fillers=self.clip is not None) for values in samples]
        light = self.invert_light and _has_light_background(rows)
        ends = [(row[3], row[4]) if light else (row[0], row[1]) for row in rows]
        factor = (FLAT if noise else 1) * (-1 if light else 1)
        scales = (bound_scale(abs(bright - dark) / 2) * factor for dark, bright in ends)
        return Normalization(
            "dataset", tuple(dark for dark, _ in ends), tuple(scales), curve=self.curve, clip=self.clip
        )

    def rescale(self, factor: float) -> Normalization:
        """Return the normalisation of images whose values are ``factor`` times too small, such as 8 instead of 16 bit.

        Kind "image" finds its constants in each image and stays the same.

        Examples
        --------
        >>> Normalization("dataset", (514.0,), (257.0,)).rescale(257).offset
        (2.0,)
        """
        if factor == 1 or self.kind == "image":
            return self
        offset, scale = (tuple(value / factor for value in values) for values in (self.offset, self.scale))
        return replace(self, offset=offset, scale=scale)

    def apply(self, image_cyx: NDArray[Any], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Normalise an image: ``(image - offset) / scale``, compressed by the curve, then clipped.

        Parameters
        ----------
        image_cyx
            Axes ``CYX``, any numeric type; left untouched unless it is ``out``.
        out
            Array for the result, float32, same shape; a new one by default.

        Returns
        -------
        ndarray
            float32, axes ``CYX``.

        Raises
        ------
        ValueError
            If the kind is "image", the image has another number of channels, or ``out`` has another shape or type.
        """
        if self.kind == "image":
            raise ValueError("a normalisation of kind 'image' must be resolved on the whole image before it is applied")
        if image_cyx.ndim != 3 or len(image_cyx) != len(self.offset):
            raise ValueError(f"expected {len(self.offset)} channels CYX, got an array of shape {image_cyx.shape}")
        if out is None:
            out = np.empty(image_cyx.shape, np.float32)
        elif out.shape != image_cyx.shape or out.dtype != np.float32:
            raise ValueError(f"out must be float32 {image_cyx.shape}, got {out.dtype} {out.shape}")
        with np.errstate(over="ignore"):  # values near the limit of float32 become infinite, and are clipped
            self._apply(image_cyx, out)
        return out

    def _apply(self, image_cyx: NDArray[Any], out: NDArray[np.float32]) -> None:
        for plane, result, offset, scale in zip(image_cyx, out, self.offset, self.scale):
            if np.can_cast(plane.dtype, np.float32):
                np.subtract(plane, offset, out=result, dtype=np.float32)
                np.divide(result, np.float32(scale), out=result)
            else:
                # float32 would round wider types before the offset is subtracted.
                np.divide(np.subtract(plane, offset, dtype=np.float64), scale, out=result, casting="same_kind")
        if self.curve:
            np.multiply(out, np.float32(self.curve / 2), out=out)
            np.arcsinh(out, out=out)
            np.multiply(out, np.float32(2 / math.asinh(self.curve)), out=out)
        if self.clip is not None:
            np.clip(out, np.float32(-self.clip), np.float32(self.clip), out=out)

    def to_json(self) -> dict[str, Any]:
        """Return all attributes as a dictionary of JSON values; the inverse of `from_json`."""
        values = {"kind": self.kind, "offset": list(self.offset), "scale": list(self.scale), "curve": self.curve}
        values |= {} if self.clip is None else {"clip": self.clip}
        values |= {"invert_light": True} if self.invert_light else {}
        return values | ({"flatten_noise": True} if self.flatten_noise else {})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Normalization:
        """Build a normalisation from the values that `to_json` returns.

        Raises
        ------
        ValueError
            If ``values`` was not made by `to_json`.
        """
        try:
            offset, scale = (tuple(float(value) for value in values[key]) for key in ("offset", "scale"))
            clip = values.get("clip")
            return cls(
                values["kind"],
                offset,
                scale,
                curve=float(values.get("curve", 0)),
                clip=None if clip is None else float(clip),
                invert_light=values.get("invert_light", False) is True,
                flatten_noise=values.get("flatten_noise", False) is True,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a normalisation: {values!r}") from error


def bound_scale(scale: float) -> float:
    """Return a scale, at least 0, that float32 holds: 1 for a channel without contrast in float32.

    Examples
    --------
    >>> bound_scale(0.5), bound_scale(0), bound_scale(1e-50)
    (0.5, 1.0, 1.0)
    """
    return scale if scale >= float(np.finfo(np.float32).tiny) else 1.0


def find_robust_range(plane_yx: NDArray[Any], low: float, high: float) -> tuple[float, float]:
    """Return two percentiles of the finite values of one channel; (0, 0) if none is finite.

    Nodata and saturated debris (`find_fillers`) do not count. In planes beyond 4 million pixels only the pixels of a
    regular grid are used, always the same ones.

    Parameters
    ----------
    plane_yx
        Axes ``YX``, any numeric type.
    low, high
        Percentiles, 0..100.

    Examples
    --------
    >>> find_robust_range(np.arange(101).reshape(1, -1), 1, 99)
    (1.0, 99.0)
    """
    steps = choose_sampling_steps(plane_yx.shape)
    found = _percentiles(plane_yx[:: steps[0], :: steps[1]], low, high, without_fillers=True)
    return found[0], found[1]


def _percentiles(values: NDArray[Any], *wanted: float, without_fillers: bool) -> tuple[float, ...]:
    values = select_measured(values) if without_fillers else select_finite(values)
    if values.size == 0:
        return (0.0,) * len(wanted)
    # float16 and float32 overflow or lose digits in the interpolation.
    return tuple(np.percentile(values.astype(np.float64), wanted).tolist())


def _has_light_background(rows: Sequence[Sequence[float]]) -> bool:
    """Return True if the median (third) of each channel is nearer to its 99 (fourth) than to its 1 percentile."""
    return float(np.mean([find_position(median, low, high) for low, _, median, high, _ in rows])) > 0.5


def find_position(value: float, low: float, high: float) -> float:
    """Return the position of a value between two others, 0 to 1; 0.5 if they are equal."""
    return (value - low) / (high - low) if high > low else 0.5


def as_cyx(image: NDArray[Any], channels: int) -> NDArray[Any]:
    """Return an array with axes ``YX``, ``CYX`` or ``YXC`` as a view with axes ``CYX``.

    Parameters
    ----------
    image
        Array of numbers with 2 or 3 axes.
    channels
        Number of channels. An axis of this length is C; if both the first and the last have it, the first is. A first
        axis of length 1 is C too.

    Returns
    -------
    ndarray
        Axes ``CYX``, a view of ``image``.

    Raises
    ------
    InputError
        If the array has other axes, or does not hold numbers.
    """
    if image.dtype.kind not in "buif":
        raise InputError("image", f"the array has dtype {image.dtype}, expected integers or floats", "Convert it")
    if image.ndim == 2:
        return image[None]
    if image.ndim == 3 and image.shape[0] == channels:
        return image
    if image.ndim == 3 and image.shape[-1] == channels:
        return np.moveaxis(image, -1, 0)
    if image.ndim == 3 and image.shape[0] == 1:
        return image
    raise InputError(
        "image",
        f"the array has shape {image.shape}, expected YX, or CYX or YXC with {channels} channels",
        "Reorder or select its axes",
    )


def fit_channels(image_cyx: NDArray[Any], channels: int, color: bool = True) -> NDArray[Any]:
    """Convert an image to the number of channels that a network expects, if this loses nothing.

    Parameters
    ----------
    image_cyx
        Axes ``CYX``.
    channels
        Number of channels that the network expects.
    color
        True if a single channel may be repeated, because the channels are a colour.

    Returns
    -------
    ndarray
        Axes ``CYX``: the image itself, its single channel repeated, or the first of three equal channels. It may be a
        read-only view.

    Raises
    ------
    ValueError
        If the numbers differ in another way.

    Examples
    --------
    >>> fit_channels(np.zeros((1, 4, 5)), 3).shape
    (3, 4, 5)
    """
    have = len(image_cyx)
    if have == channels:
        return image_cyx
    if have == 1 and channels > 1 and color:
        return np.broadcast_to(image_cyx, (channels, *image_cyx.shape[1:]))
    if have == 3 and channels == 1 and all(np.array_equal(image_cyx[0], image_cyx[i]) for i in (1, 2)):
        return image_cyx[:1]
    note = ", which differ" if have == 3 and channels == 1 else ""
    raise ValueError(f"the image has {have} channels{note}, expected {channels}")
