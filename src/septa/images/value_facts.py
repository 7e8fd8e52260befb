"""Facts of the values of one image, by which it is compared with the images that a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.images.normalize import find_position
from septa.images.structure import (
    combine_structures,
    find_percentiles,
    has_structure,
    is_constant,
    sample_measured,
)

Array = NDArray[Any]

FULL_RANGES = (255, 1023, 4095, 16_383, 65_535)
"""Largest values of 8, 10, 12, 14 and 16 bits."""

_STEP_VALUES = 1 << 12
"""Largest number of pixels from which the step between values is found."""


@dataclass(frozen=True, kw_only=True)
class ValueFacts:
    """Facts of the values of one image.

    Attributes
    ----------
    dtype
        Name of the NumPy dtype.
    percentiles
        `PERCENTILES` of each channel in raw units, from an even sample of the finite pixels.
    constant
        For each channel: True if it has a single value.
    step
        Number that divides all values, such as 16 for 12 bits in the upper bits of 16; for floats also 1 divided by
        one of `FULL_RANGES`. 0 if there is none.
    structured
        False if the image shows no objects: it is constant or holds only noise, with even or uneven light. None if it
        is too small to decide.
    """

    dtype: str
    percentiles: tuple[tuple[float, ...], ...]
    constant: tuple[bool, ...]
    step: float
    structured: bool | None

    @property
    def blank(self) -> bool:
        """True if every channel has a single value."""
        return all(self.constant)

    @property
    def top(self) -> float:
        """Largest of the highest percentiles."""
        return max(row[-1] for row in self.percentiles)

    @property
    def bottom(self) -> float:
        """Smallest of the lowest percentiles."""
        return min(row[0] for row in self.percentiles)

    @property
    def median_position(self) -> float:
        """Position of the median between the 1 and the 99 percentile, the mean over the channels.

        It is near 0 if a dark background fills most of the image, and near 1 if a light one does.
        """
        return float(np.mean([find_position(row[2], row[1], row[3]) for row in self.percentiles]))

    def fit_channels(self, channels: int) -> ValueFacts:
        """Return the facts of the image after `septa.images.fit_channels`.

        Raises
        ------
        ValueError
            The channels do not fit.
        """
        have = len(self.percentiles)
        if have == channels:
            return self
        if have != 1 and not (have == 3 and channels == 1):
            raise ValueError(f"the image has {have} channels, expected {channels}")
        return ValueFacts(
            dtype=self.dtype,
            percentiles=self.percentiles[:1] * channels,
            constant=self.constant[:1] * channels,
            step=self.step,
            structured=self.structured,
        )


def measure_values(image_cyx: Array) -> ValueFacts:
    """Measure the facts of an image, in a few milliseconds.

    Parameters
    ----------
    image_cyx
        Image ``CYX``, any real dtype, raw values, not empty. NaN, Inf and nodata are left out.

    Examples
    --------
    >>> facts = measure_values(np.full((1, 64, 64), 7, np.uint8))
    >>> facts.blank, facts.structured, facts.percentiles[0]
    (True, False, (7.0, 7.0, 7.0, 7.0, 7.0))
    """
    if len(image_cyx) > 1 and image_cyx.strides[0] == 0:  # one channel, repeated
        return measure_values(image_cyx[:1]).fit_channels(len(image_cyx))
    samples = [sample_measured(plane_yx) for plane_yx in image_cyx]
    constant = tuple(is_constant(plane_yx) for plane_yx in image_cyx)
    structures = (has_structure(plane_yx) for plane_yx, same in zip(image_cyx, constant, strict=True) if not same)
    return ValueFacts(
        dtype=image_cyx.dtype.name,
        percentiles=tuple(find_percentiles(sample) for sample in samples),
        constant=constant,
        step=_find_step(np.concatenate([_thin(sample, _STEP_VALUES // len(samples)) for sample in samples])),
        structured=combine_structures(structures),
    )


def _thin(values: Array, count: int) -> Array:
    return values[:: max(1, len(values) // count)]


def _find_step(values: Array) -> float:
    """Return the step of `ValueFacts`."""
    if not values.size or values.dtype.kind == "b":
        return 0.0
    if values.dtype.kind != "f":
        return float(np.gcd.reduce(values))
    wide = values.astype(np.float64)
    if float(np.abs(wide).max()) > 2**53:
        return 0.0
    if (wide == np.rint(wide)).all():
        return float(np.gcd.reduce(wide.astype(np.int64)))
    for full in FULL_RANGES:
        scaled = wide * full
        # float32 keeps 24 bits of a value below 1
        if (np.abs(scaled - np.rint(scaled)) < 0.01).all():
            return 1 / full
    return 0.0
