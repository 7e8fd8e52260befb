"""Define sources, which are images that are read window by window, and the interface of a file format to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from septa.errors import InputError
from septa.images._info import Array
from septa.images.calibration import Calibration
from septa.images.sources.addresses import Location

PixelRange = tuple[int, int]
"""First row or column of a window, and the one after its last."""

RGB_NAMES = ("red", "green", "blue")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The part of a file that `septa.images.sources.open.open_source` opens.

    Attributes
    ----------
    level
        Level of the pyramid; 0 is the full size.
    channels
        Numbers of the channels, in the order in which they are returned; None for all.
    image
        Number of the image in a file that holds several: of the OME-TIFF image or TIFF series, or of the image in a
        bioformats2raw folder. None for the only one.
    region
        (top, left, bottom, right) in pixels of the level; bottom and right are not included. The source ends there,
        as if the image did. None for the whole image.
    """

    level: int = 0
    channels: tuple[int, ...] | None = None
    image: int | None = None
    region: tuple[int, int, int, int] | None = None


class WindowReader(Protocol):
    """The part of a source that depends on the file format: it reads stored values of a window of one plane."""

    def read(self, t: int, z: int, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Array:
        """Return values as stored, axes ``CYX``.

        The window lies inside the plane. Several threads may call this at once.
        """
        ...

    def list_files(self, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Iterator[Path]:
        """Yield the files that hold the samples of a window in all planes, also those that may be missing."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class ImageFile(Protocol):
    """An open file or folder, before one of its images and a level of that are chosen."""

    images: int
    """Number of images."""

    def count_levels(self, image: int) -> int:
        """Return the number of levels of an image that exists."""
        ...

    def describe_images(self) -> str:
        """Return the number and the sizes of the images, printable."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageLevel:
    """One level of an image, with all its channels, as a file format describes it.

    Attributes
    ----------
    path
        File or folder of the image, or its address.
    data_path
        File or folder of its samples, or its address, which errors name.
    axes
        Axes of the image, some of ``TCZYX`` in any order.
    shape
        Sizes of T, C, Z, Y, X; 1 for axes that the image lacks.
    stored
        Type of the samples in the file.
    image, images
        Number of the image in ``path``, and number of images of its kind that the opened file holds.
    level, levels
        Number of the level, and (Y, X) of every level of the pyramid.
    chunk
        (Y, X) of the pixels that are decoded at once.
    chunk_samples
        Number of the samples that are decoded at once.
    decoding_bytes
        As in `Source`.
    calibration
        Calibration of the level.
    channel_names
        Names in the file, which may be too few, too many, or not even text.
    notes
        Clauses about what was assumed to read the image.
    version
        Digest of the metadata of an image at an address, whose files are not listed.
    reader
        Reader of this level.
    """

    path: Location
    data_path: Location
    axes: str
    shape: tuple[int, int, int, int, int]
    stored: np.dtype[Any]
    image: int
    images: int
    level: int
    levels: tuple[tuple[int, int], ...]
    chunk: tuple[int, int]
    chunk_samples: int
    decoding_bytes: int
    calibration: Calibration
    channel_names: Sequence[object]
    notes: tuple[str, ...] = ()
    version: str = ""
    reader: WindowReader


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image of any size that is read window by window; made by `septa.images.sources.open.open_source`.

    Attributes
    ----------
    path
        File, folder or address of the image; of one image of a bioformats2raw folder, its own folder.
    axes
        Axes of the image, some of ``TCZYX`` in any order.
    shape
        Sizes of T, C, Z, Y, X at the opened level; 1 for axes that the image lacks. C counts the chosen channels.
    dtype
        Type of the arrays that `read` returns.
    image
        Number of the image in ``path``.
    images
        Number of images of this kind in the opened file; see `Selection`.
    level
        Number of the opened level; 0 for a region.
    levels
        (Y, X) of every level of the pyramid, the full size first; of a region, its own size only.
    chunk
        (Y, X) of the pixels that are decoded at once.
    decoding_bytes
        Most bytes that are in memory to decode a chunk, with its compressed form. A large chunk is kept until the next
        one is decoded.
    calibration
        Sizes, steps and positions of the opened level, and the names of the chosen channels.
    channels
        Numbers in the file of the chosen channels.
    channel_names
        Name of each chosen channel as in the file, or its number.
    notes
        Clauses about what was assumed to read the image, such as ``its axis R is read as T``.
    version
        Digest of the metadata of an image at an address, whose files are not listed; else empty.
    reader
        Reader of the stored values.
    """

    path: Location
    axes: str
    shape: tuple[int, int, int, int, int]
    dtype: np.dtype[Any]
    image: int
    images: int
    level: int
    levels: tuple[tuple[int, int], ...]
    chunk: tuple[int, int]
    decoding_bytes: int
    calibration: Calibration
    channels: tuple[int, ...]
    channel_names: tuple[str, ...]
    notes: tuple[str, ...]
    version: str = ""
    reader: WindowReader = field(repr=False, compare=False)

    @property
    def pixel_size_um(self) -> tuple[float, float] | None:
        """(y, x) micrometres per pixel of the opened level, if the file states them."""
        return self.calibration.pixel_size_um

    @property
    def origin_um(self) -> tuple[float, float]:
        """(y, x) position of the centre of the first pixel in micrometres; 0 if the file states none."""
        return self.calibration.origin_um[1:]

    def read(self, y: slice | PixelRange, x: slice | PixelRange, *, t: int = 0, z: int = 0) -> Array:
        """Read one window of one plane.

        Only the chunks that it touches are decoded. Many threads may read at once.

        Parameters
        ----------
        y, x
            Rows and columns inside the image, as slices of step 1 or as (first, end); pixels of the opened level.
        t, z
            Number of the plane along T and Z.

        Returns
        -------
        ndarray
            Axes ``CYX``, contiguous, of `dtype`: the values that `septa.images.read.read_image` returns.

        Raises
        ------
        InputError
            If there is no such plane, or a touched part of the file is damaged or cut short.
        ValueError
            If the window is empty or reaches beyond the image.
        """
        for name, index, size in (("t", t, self.shape[0]), ("z", z, self.shape[2])):
            if not 0 <= index < size:
                problem = f"there is no {name} {index}: the image has {name} 0 to {size - 1}"
                raise InputError(self.path, problem, f"Choose one of these {name}")
        ranges = _check_range(y, self.shape[3], "y"), _check_range(x, self.shape[4], "x")
        stored = self.reader.read(t, z, self.channels, *ranges)
        return np.ascontiguousarray(stored, dtype=self.dtype)

    def list_files(self) -> Iterator[Path]:
        """Yield the paths of all files that the image is read from, in a fixed order; none for an address.

        A chunk of a zarr array may have no file, and then has the fill value.
        """
        yield from self.reader.list_files(self.channels, (0, self.shape[3]), (0, self.shape[4]))

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self.reader.close()

    def __enter__(self) -> Source:
        """Return the source, which the end of the ``with`` statement closes."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def _check_range(window: slice | PixelRange, size: int, axis: str) -> PixelRange:
    begin, end = (window.start, window.stop) if isinstance(window, slice) else window
    step = window.step if isinstance(window, slice) else None
    begin, end = 0 if begin is None else int(begin), size if end is None else int(end)
    if step not in (None, 1) or not 0 <= begin < end <= size:
        raise ValueError(f"the window {axis} {begin}:{end} does not lie inside 0:{size}")
    return begin, end
