"""An image as tiles of a pyramid: small images are halved in memory, large ones have levels in their file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import Calibration, Selection, Source, encode_png, find_robust_range, open_source, shrink_picture

TILE = 256
"""Side of a tile, pixels of its level."""
EDITABLE_PIXELS = 64_000_000
"""Largest image that is kept in memory, and so can be segmented and corrected."""
_SAMPLES = 256_000_000
"""Most samples of such an image: pixels times channels."""
_COARSE = 4096
"""Largest side of the smallest level of a file that is viewed from its own levels."""
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
    """An image that is open for viewing.

    Parameters
    ----------
    path
        Image file or zarr image of the folder.

    Raises
    ------
    InputError
        The image cannot be read, is a stack, has too many channels, or is large and has no levels.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sources: list[Source] = []
        with open_source(path) as source:
            channels, (height, width) = source.shape[1], source.shape[3:]
            _check(path, source)
            self.calibration: Calibration = source.calibration
            self.names = source.channel_names
            self.size_yx = height, width
            self.channels = channels
            self.in_memory = height * width <= EDITABLE_PIXELS and height * width * channels <= _SAMPLES
            self._arrays: list[NDArray[Any]] = []
            if self.in_memory:
                self._arrays = _halve(source.read((0, height), (0, width)))
                self.levels = [(array.shape[1], array.shape[2]) for array in self._arrays]
            else:
                self.levels = list(source.levels)
        if not self.in_memory:
            if max(self.levels[-1]) > _COARSE:
                problem = f"the image has {height} x {width} pixels and no small level to show it from"
                raise InputError(path, problem, "Save it as OME-Zarr or OME-TIFF with a pyramid")
            self._sources = [open_source(path, Selection(level=level)) for level in range(len(self.levels))]

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
            raise InputError(self.path, problem, "Segment it with 'septa predict' to a NAME.ome.zarr store")
        return self._arrays[0]

    def close(self) -> None:
        """Close the file."""
        for source in self._sources:
            source.close()

    def read_tile(self, level: int, row: int, column: int) -> NDArray[Any]:
        """Return the samples of a tile ``CYX``, uint8 or uint16; tiles at the right and the bottom may be smaller.

        Raises
        ------
        InputError
            There is no such tile.
        """
        (top, bottom), (left, right) = self.find_tile(level, row, column)
        if self.in_memory:
            return self._to_samples(self._arrays[level][:, top:bottom, left:right])
        return self._to_samples(self._sources[level].read((top, bottom), (left, right)))

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

    @cached_property
    def _coarse_cyx(self) -> NDArray[Any]:
        """Values of the smallest level that shows enough to choose the contrast from."""
        if self.in_memory:
            small = [array for array in self._arrays if array.shape[1] * array.shape[2] <= 4_000_000]
            return small[0]
        source = self._sources[-1]
        return source.read((0, source.shape[3]), (0, source.shape[4]))

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
        return self.channels == 3 and self.samples.dtype == "uint8"

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
        values = self._to_samples(self._arrays[-1] if self.in_memory else self._coarse_cyx).astype(np.float32)
        picture_yxs = np.zeros((*values.shape[1:], 3), np.float32)
        for channel, plane_yx in zip(self.shown_channels, values):
            share_yx = np.clip((plane_yx - channel.low) / (channel.high - channel.low), 0, 1)
            color = [int(channel.color[place : place + 2], 16) for place in (1, 3, 5)]
            picture_yxs += share_yx[:, :, None] * np.array(color, np.float32)
        return encode_png(shrink_picture(np.clip(picture_yxs, 0, 255).astype(np.uint8), THUMBNAIL))


def _check(path: Path, source: Source) -> None:
    frames, channels, planes = source.shape[:3]
    if frames * planes > 1:
        problem = f"the image is a stack of {frames * planes} planes, and the app shows single planes"
        raise InputError(path, problem, "Segment it with 'septa predict'")
    if channels > _CHANNELS:
        problem = f"the image has {channels} channels, and the app shows at most {_CHANNELS}"
        raise InputError(path, problem, "Save fewer channels")


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
