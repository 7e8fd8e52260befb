"""Open files of which whole planes are decoded, one at a time: PNG, JPEG, BMP, GIF, and some kinds of TIFF."""

from __future__ import annotations

import threading
from pathlib import Path

from septa.images._info import Array
from septa.images.read import read_image, read_info
from septa.images.sources.source import RGB_NAMES, ImageLevel, PixelRange


class WholePlanes:
    """A file of one image whose pages are Z; see `septa.images.sources.source.ImageFile`.

    Parameters
    ----------
    path
        A file that `septa.images.read.read_image` reads.
    max_pixels
        See `septa.images.read.read_info`.

    Raises
    ------
    InputError
        As `septa.images.read.read_info`.
    """

    images = 1

    def __init__(self, path: Path, max_pixels: int) -> None:
        self._info = read_info(path, max_pixels=max_pixels)
        self._max_pixels = max_pixels

    def count_levels(self, image: int) -> int:
        """Return 1: there is no pyramid."""
        return 1

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
            image=0,
            images=1,
            level=0,
            levels=((info.height, info.width),),
            chunk=(info.height, info.width),
            # `read_info` has checked the samples too: 4 of them count as one pixel.
            chunk_samples=info.height * info.width,
            calibration=info.calibration,
            channel_names=RGB_NAMES if is_color else (),
            reader=_WholePlaneReader(info.path, self._max_pixels),
        )


class _WholePlaneReader:
    """A reader that decodes a plane whole and keeps the last one."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        self._path = path
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._last: tuple[int, Array] | None = None

    def read(self, t: int, z: int, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Array:
        with self._lock:
            last = self._last
            if last is None or last[0] != z:
                last = self._last = (z, read_image(self._path, z, max_pixels=self._max_pixels))
        return last[1][list(channels), y[0] : y[1], x[0] : x[1]]

    def close(self) -> None:
        self._last = None
