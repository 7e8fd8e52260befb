"""What every source of images has in common: its description, and the checks around reading a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from septa.errors import InputError
from septa.images._info import Array, choose_dtype

_MOST_CHANNELS = 10_000
RGB_NAMES = ("red", "green", "blue")

PixelRange = tuple[int, int]
"""First row or column, and the one after the last."""


class WindowReader(Protocol):
    """What a format brings: stored values of one window of one plane."""

    def read(self, t: int, z: int, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Array:
        """Values as stored, axes ``CYX``; the window lies inside the plane. Called from several threads at once."""
        ...

    def close(self) -> None:
        """Free the file."""
        ...


@dataclass(frozen=True)
class Source:
    """An image of any size of which windows are read; made by `septa.images.sources.open.open_source`.

    Attributes
    ----------
    path
        The file or folder.
    axes
        Axes that the image has, in this order, of ``TCZYX``.
    shape
        T, C, Z, Y, X of the opened level; 1 for axes that the image lacks; C counts the chosen channels.
    dtype
        Type of the arrays that `read` returns.
    levels
        (Y, X) of every level of the pyramid; 0 is the full size.
    level
        The opened one.
    chunk
        (Y, X) that are decoded at once.
    pixel_size_um
        (y, x) micrometres per pixel of the opened level, if the file states them.
    origin_um
        (y, x) micrometres at which the centre of the first pixel lies; 0 where the file says nothing.
    channels
        Numbers in the file of the chosen channels.
    channel_names
        One for each chosen channel: as in the file, else its number.
    images
        How many images of this kind the file holds; see ``image`` of `open_source`.
    reader
        What decodes.
    """

    path: Path
    axes: str
    shape: tuple[int, int, int, int, int]
    dtype: np.dtype[Any]
    levels: tuple[tuple[int, int], ...]
    level: int
    chunk: tuple[int, int]
    pixel_size_um: tuple[float, float] | None
    origin_um: tuple[float, float]
    channels: tuple[int, ...]
    channel_names: tuple[str, ...]
    images: int
    reader: WindowReader = field(repr=False, compare=False)

    def read(self, y: slice | PixelRange, x: slice | PixelRange, *, t: int = 0, z: int = 0) -> Array:
        """Read one window of one plane; only the chunks that it touches are decoded. Safe to call from many threads.

        Parameters
        ----------
        y, x
            Rows and columns inside the image, as slices of step 1 or as (first, end); pixels of the opened level.
        t, z
            Which plane.

        Returns
        -------
        ndarray
            Axes ``CYX``, contiguous, of `dtype`: the values that `read_image` gives.

        Raises
        ------
        InputError
            There is no such plane, or a touched part of the file is damaged or cut short.
        ValueError
            The window is empty or reaches beyond the image.
        """
        for name, index, size in (("t", t, self.shape[0]), ("z", z, self.shape[2])):
            if not 0 <= index < size:
                raise InputError(self.path, f"there is no {name} {index}", f"the image has {name} 0 to {size - 1}")
        spans = _check_range(y, self.shape[3], "y"), _check_range(x, self.shape[4], "x")
        stored = self.reader.read(t, z, self.channels, *spans)
        return np.ascontiguousarray(stored, dtype=self.dtype)

    def close(self) -> None:
        """Free the file; reading afterwards is an error."""
        self.reader.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_range(window: slice | PixelRange, size: int, axis: str) -> PixelRange:
    begin, end = (window.start, window.stop) if isinstance(window, slice) else window
    step = window.step if isinstance(window, slice) else None
    begin, end = 0 if begin is None else int(begin), size if end is None else int(end)
    if step not in (None, 1) or not 0 <= begin < end <= size:
        raise ValueError(f"window {axis} {begin}:{end} does not lie inside 0:{size}")
    return begin, end


def choose_channels(source: Source, channels: Sequence[int] | None) -> Source:
    """The same source with fewer channels, in the given order."""
    if channels is None:
        return source
    count = source.shape[1]
    wrong = [channel for channel in channels if not 0 <= channel < count]
    if wrong or len(set(channels)) != len(channels) or not channels:
        problem = f"has no channel {wrong[0]}" if wrong else "channels must be given, each once"
        raise InputError(source.path, problem, f"the image has channels 0 to {count - 1}")
    return replace(
        source,
        shape=(source.shape[0], len(channels), *source.shape[2:]),
        channels=tuple(int(source.channels[channel]) for channel in channels),
        channel_names=tuple(source.channel_names[channel] for channel in channels),
    )


def name_channels(names: Sequence[object], count: int) -> tuple[str, ...]:
    """Names of all channels; the number of a channel where the file gives no usable name."""
    found = [name.strip() if isinstance(name, str) else "" for name in names]
    return tuple(found[i] if i < len(found) and found[i] else str(i) for i in range(count))


def check_level(path: Path, level: int, count: int) -> None:
    """Refuse a level that the pyramid does not have."""
    if not 0 <= level < count:
        raise InputError(path, f"there is no level {level}", f"the image has levels 0 to {count - 1}")


def check_image(path: Path, image: int, count: int) -> None:
    """Refuse an image that the file does not have."""
    if not 0 <= image < count:
        raise InputError(path, f"there is no image {image}", f"the file has images 0 to {count - 1}")


def check_channels(path: Path, count: int) -> None:
    """Refuse a number of channels that no image has."""
    if count > _MOST_CHANNELS:
        problem = f"has {count} channels, more than the limit of {_MOST_CHANNELS}"
        raise InputError(path, problem, "check that its axes are named rightly")


def check_chunk(path: Path, samples: int, max_pixels: int) -> None:
    """Refuse parts that are decoded at once and larger than ``max_pixels``."""
    if samples > max_pixels:
        problem = f"its chunks of {samples} samples are more than the limit of {max_pixels} pixels"
        raise InputError(path, problem, "save the image again in tiles or chunks of some hundred pixels a side")


def as_read(path: Path, stored: np.dtype[Any]) -> np.dtype[Any]:
    """Type that a source returns for a stored type; refuses what is no number."""
    if stored.kind not in "biuf" or stored.itemsize > 8:
        raise InputError(path, f"has samples of type {stored}", "convert it to integers or floats")
    return choose_dtype(stored)
