"""A page as tiles of a pyramid: small images are kept in memory, large ones are read where they are seen.

A large image without small levels is read once, band by band, for an overview.
The levels between are made tile by tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import encode_png, find_robust_range, shrink_picture

from .decoder import Decoders, Header
from .pages import ImagePage

TILE = 256
"""Side of a tile, pixels of its level."""
EDITABLE_PIXELS = 64_000_000
"""Largest image that is kept in memory, and so can be segmented and corrected."""
_SAMPLES = 256_000_000
"""Most samples of such an image: pixels times channels."""
_COARSE = 4096
"""Largest side of the overview of an image that is not kept in memory."""
_BAND = 32_000_000
"""Samples that are read at once to make an overview."""
_CHANNELS = 16
THUMBNAIL = 160
"""Longest side of a thumbnail, pixels."""

_COLORS = ("#5b8cff", "#3ddc84", "#ff5ca8", "#ffb02e", "#2ee6e6", "#c58cff")
_RGB = ("#ff0000", "#00ff00", "#0000ff")


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A channel as the page shows it at first.

    Attributes
    ----------
    name
        Name in the file, or its number.
    color
        Colour, ``#rrggbb``.
    low, high
        Samples that are drawn black and in full colour.
    """

    name: str
    color: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Meaning of the samples of tiles: a value of the image is ``offset + scale * sample``."""

    dtype: str
    offset: float
    scale: float


class Picture:
    """A page of an image that is open for viewing.

    Parameters
    ----------
    page
        The page.
    decoders
        Processes that decode it.

    Raises
    ------
    InputError, ResourceError
        The image cannot be decoded within the limits, or has too many channels.
    """

    def __init__(self, page: ImagePage, decoders: Decoders) -> None:
        self.page, self.path = page, page.path
        self.name = str(page.name)
        header = self.header = page.header
        self._decoders = decoders
        self.channels, (height, width) = header.shape[1], header.shape[3:]
        if self.channels > _CHANNELS:
            problem = f"the image has {self.channels} channels, and the app shows at most {_CHANNELS}"
            raise InputError(page.path, problem, "Save fewer channels")
        self.calibration, self.names = header.calibration, header.names
        self.size_yx = height, width
        self.in_memory = height * width <= EDITABLE_PIXELS and height * width * self.channels <= _SAMPLES
        if self.in_memory:
            self._stored: list[tuple[int, int]] = []
            self._arrays = _halve(self._read(0, (0, 0, height, width)))
        else:
            self._stored = list(header.levels)
            self._arrays = _halve(self._make_overview())
        self._factors = [1] * len(self._stored)
        if self._stored:
            rows, columns = self._stored[-1]
            while -(-rows // (2 * self._factors[-1])) > self._arrays[0].shape[1]:
                self._factors.append(2 * self._factors[-1])
                self._stored.append((-(-rows // self._factors[-1]), -(-columns // self._factors[-1])))
            if self._stored[-1] == self._arrays[0].shape[1:]:
                self._stored.pop()
        self.levels = [*self._stored, *((array.shape[1], array.shape[2]) for array in self._arrays)]

    @property
    def nbytes(self) -> int:
        """Memory that it takes, bytes."""
        return sum(array.nbytes for array in self._arrays)

    def _read(self, level: int, box: tuple[int, int, int, int], shrink: int = 1) -> NDArray[Any]:
        return self._decoders.read(self.path, self.page.name.image, self.page.plane, level, box, shrink)

    def _make_overview(self) -> NDArray[Any]:
        """Shrink the smallest level of the file until it is small; it is read band by band."""
        level = len(self._stored) - 1
        height, width = self._stored[-1]
        factor = 1
        while max(height, width) > _COARSE * factor:
            factor *= 2
        chunk = self.header.chunk[0]
        step = max(factor, -(-max(chunk, _BAND // (width * self.channels)) // factor) * factor)
        bands = [self._read(level, (top, 0, min(top + step, height), width), factor) for top in range(0, height, step)]
        return np.concatenate(bands, axis=1)

    @property
    def image_cyx(self) -> NDArray[Any]:
        """Values of the whole image ``CYX``.

        Raises
        ------
        InputError
            The image is too large to be kept in memory.
        """
        if not self.in_memory:
            height, width = self.size_yx
            problem = f"the image has {height} x {width} pixels, more than the {EDITABLE_PIXELS} that the app segments"
            raise InputError(self.path, problem, "Cut out the visible part, or use 'septa predict'")
        return self._arrays[0]

    def cut(self, top: int, left: int, bottom: int, right: int) -> NDArray[Any]:
        """Return the values of a part of the image ``CYX``, in full size."""
        if self.in_memory:
            return self._arrays[0][:, top:bottom, left:right]
        return self._read(0, (top, left, bottom, right))

    def read_tile(self, level: int, row: int, column: int) -> NDArray[Any]:
        """Return the samples of a tile ``CYX``, uint8 or uint16; tiles at the right and the bottom may be smaller.

        Raises
        ------
        InputError
            There is no such tile, or it is damaged.
        """
        (top, bottom), (left, right) = self.find_tile(level, row, column)
        if level >= len(self._stored):
            return self._to_samples(self._arrays[level - len(self._stored)][:, top:bottom, left:right])
        factor, stored = self._factors[level], min(level, len(self.header.levels) - 1)
        height, width = self.header.levels[stored]
        box = top * factor, left * factor, min(bottom * factor, height), min(right * factor, width)
        return self._to_samples(self._read(stored, box, factor))

    def find_tile(self, level: int, row: int, column: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the rows and columns of a tile, each as (first, end).

        Raises
        ------
        InputError
            There is no such tile.
        """
        if 0 <= level < len(self.levels):
            height, width = self.levels[level]
            if 0 <= row * TILE < height and 0 <= column * TILE < width:
                return (row * TILE, min(height, (row + 1) * TILE)), (column * TILE, min(width, (column + 1) * TILE))
        raise InputError(self.path.name, f"there is no tile {level}/{row}/{column}", "Reload the page")

    @property
    def _coarse_cyx(self) -> NDArray[Any]:
        """Values of the largest level in memory that is small enough to choose the contrast from."""
        return next(array for array in self._arrays if array.shape[1] * array.shape[2] <= 4_000_000)

    @cached_property
    def samples(self) -> Samples:
        """Meaning of the samples of tiles."""
        values = self._coarse_cyx
        if values.dtype in (np.uint8, np.uint16):
            return Samples(dtype=values.dtype.name, offset=0, scale=1)
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        return Samples(dtype="uint16", offset=low, scale=max(high - low, 1e-30) / 65535)

    def _to_samples(self, values_cyx: NDArray[Any]) -> NDArray[Any]:
        samples = self.samples
        if values_cyx.dtype == samples.dtype:
            return np.ascontiguousarray(values_cyx)
        scaled = (np.nan_to_num(values_cyx.astype(np.float64), nan=samples.offset) - samples.offset) / samples.scale
        return np.clip(np.rint(scaled), 0, 65535).astype(np.uint16)

    @cached_property
    def is_color(self) -> bool:
        """True if the three channels are red, green and blue."""
        return self.channels == 3 and self.samples.dtype == "uint8" and self.header.color

    @cached_property
    def shown_channels(self) -> tuple[Channel, ...]:
        """Channels with their first colours and contrast."""
        colors = _RGB if self.is_color else ("#ffffff",) if self.channels == 1 else _COLORS
        found = []
        for number, (name, plane_yx) in enumerate(zip(self.names, self._to_samples(self._coarse_cyx))):
            low, high = (0.0, 255.0) if self.is_color else find_robust_range(plane_yx, 0.2, 99.8)
            color = colors[number % len(colors)]
            found.append(Channel(name=name, color=color, low=low, high=max(high, low + 1)))
        return tuple(found)

    def draw_thumbnail(self) -> bytes:
        """Return a small picture of the image, PNG."""
        values = self._to_samples(self._arrays[-1]).astype(np.float32)
        picture_yxs = np.zeros((*values.shape[1:], 3), np.float32)
        for channel, plane_yx in zip(self.shown_channels, values):
            share_yx = np.clip((plane_yx - channel.low) / (channel.high - channel.low), 0, 1)
            color = [int(channel.color[place : place + 2], 16) for place in (1, 3, 5)]
            picture_yxs += share_yx[:, :, None] * np.array(color, np.float32)
        return encode_png(shrink_picture(np.clip(picture_yxs, 0, 255).astype(np.uint8), THUMBNAIL))


def _halve(image_cyx: NDArray[Any]) -> list[NDArray[Any]]:
    """Return an image and its halves, each the mean of 2 x 2 pixels of the one before, down to the size of a tile."""
    found = [image_cyx]
    while max(found[-1].shape[1:]) > TILE:
        last = found[-1]
        size = max(1, (last.shape[2] + 1) // 2), max(1, (last.shape[1] + 1) // 2)
        kept = last.dtype if last.dtype in (np.uint8, np.uint16, np.float32) else np.dtype(np.float64)
        planes = [cv2.resize(plane.astype(kept, copy=False), size, interpolation=cv2.INTER_AREA) for plane in last]
        found.append(np.stack(planes).astype(last.dtype))
    return found


def is_quick(header: Header) -> bool:
    """Return True if a small view of an image is read quickly: the image is small, or has small levels."""
    height, width = header.shape[3:]
    return height * width <= EDITABLE_PIXELS or max(header.levels[-1]) <= _COARSE
