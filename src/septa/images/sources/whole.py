"""Open files of which whole planes are decoded, one at a time: PNG, JPEG, BMP, GIF, and some kinds of TIFF."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from septa.errors import format_count
from septa.images._info import Array
from septa.images.read import read_image, read_info
from septa.images.sources.source import RGB_NAMES, ImageLevel, PixelRange


class WholePlanes:
    """A file of one image whose pages are Z; see `septa.images.sources.source.ImageFile`.

    Parameters
    ----------
    path
        A file that `septa.images.read.read_image` reads.
    max_pixels, image
        See `septa.images.read.read_info`.

    Raises
    ------
    InputError
        As `septa.images.read.read_info`.
    """

    def __init__(self, path: Path, max_pixels: int, image: int) -> None:
        self._info = read_info(path, image=image, max_pixels=max_pixels)
        self._max_pixels = max_pixels
        self.images = self._info.images

    def count_levels(self, image: int) -> int:
        """Return 1: there is no pyramid."""
        return 1

    def describe_images(self) -> str:
        """Return the number of images, printable."""
        return format_count(self.images, "image")

    def open_level(self) -> ImageLevel:
        """Describe the image."""
        info = self._info
        shape = (1, info.channels, info.pages, info.height, info.width)
        is_color = info.channels == 3 and (info.palette or info.format != "tiff")
        return ImageLevel(
            path=info.path,
            data_path=info.path,
            axes="".join(axis for axis, size in zip("CZ", shape[1:3]) if size > 1) + "YX",
            shape=shape,
            stored=info.dtype,
            image=info.image,
            images=info.images,
            level=0,
            levels=((info.height, info.width),),
            chunk=(info.height, info.width),
            # `read_info` has checked the samples too: 4 of them count as one pixel.
            chunk_samples=info.height * info.width,
            calibration=info.calibration,
            channel_names=RGB_NAMES if is_color else (),
            notes=info.notes,
            reader=_WholePlaneReader(info.path, self._max_pixels, info.image),
        )


class _WholePlaneReader:
    """A reader that decodes a plane whole and keeps the last one."""

    def __init__(self, path: Path, max_pixels: int, image: int) -> None:
        self._path = path
        self._max_pixels = max_pixels
        self._image = image
        self._lock = threading.Lock()
        self._last: tuple[int, Array] | None = None

    def read(self, t: int, z: int, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Array:
        with self._lock:
            last = self._last
            if last is None or last[0] != z:
                last = self._last = (z, read_image(self._path, z, image=self._image, max_pixels=self._max_pixels))
        return last[1][list(channels), y[0] : y[1], x[0] : x[1]]

    def list_files(self, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Iterator[Path]:
        yield self._path

    def close(self) -> None:
        self._last = None
