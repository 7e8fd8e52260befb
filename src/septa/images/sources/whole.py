"""Open files of which whole planes are decoded, one at a time.

These are PNG, JPEG, BMP, GIF, some kinds of TIFF, and all formats that optional packages read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from septa.errors import format_count
from septa.images._info import Array
from septa.images._large_chunk import LargeChunk
from septa.images.paths import list_image_files
from septa.images.read import read_image, read_info
from septa.images.sources.source import RGB_NAMES, ImageLevel, PixelRange
from septa.notices import Notices

_COPIES = 4
"""Most copies of a plane in memory while it is decoded, its compressed form included. Measured: 2.8 to 3.5."""


class WholePlanes:
    """A file of one image, or one of its images; see `septa.images.sources.source.ImageFile`.

    Its pages are T and Z if it states so, else Z.

    Parameters
    ----------
    path
        A file that `septa.images.read.read_image` reads.
    max_pixels, image
        See `septa.images.read.read_info`.
    expected, notices
        ``channels`` and ``notices`` of `septa.images.read.read_image`.

    Raises
    ------
    InputError
        As `septa.images.read.read_info`.
    """

    def __init__(
        self, path: Path, max_pixels: int, image: int, expected: int | None = None, notices: Notices | None = None
    ) -> None:
        self._info = read_info(path, image=image, max_pixels=max_pixels)
        read = partial(read_image, path, image=image, channels=expected, max_pixels=max_pixels, notices=notices)
        stated = self._info.page_axes if set(self._info.page_axes) <= {"T", "Z"} else ""
        sizes = dict(zip(stated, self._info.page_shape)) if stated else {"Z": self._info.pages}
        self._sizes_tz = sizes.get("T", 1), sizes.get("Z", 1)
        self._reader = _WholePlaneReader(path, read, sizes)
        self._keeps_alpha = self._info.alpha and expected == self._info.channels + 1
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
        times, depth = self._sizes_tz
        shape = (times, info.channels + self._keeps_alpha, depth, info.height, info.width)
        return ImageLevel(
            path=info.path,
            data_path=info.path,
            axes="".join(axis for axis, size in zip("TCZ", shape) if size > 1) + "YX",
            shape=shape,
            stored=info.dtype,
            image=info.image or 0,
            images=info.images,
            level=0,
            levels=((info.height, info.width),),
            chunk=(info.height, info.width),
            # `read_info` has checked the samples too: 4 of them count as one pixel.
            chunk_samples=info.height * info.width,
            decoding_bytes=_COPIES * info.height * info.width * info.channels * info.dtype.itemsize,
            calibration=info.calibration,
            channel_names=RGB_NAMES if info.color and shape[1] == 3 else (),
            notes=info.notes,
            reader=self._reader,
        )


class _WholePlaneReader:
    """A reader that decodes a plane whole and keeps the last one."""

    def __init__(self, path: Path, read: Callable[[int], Array], sizes: dict[str, int]) -> None:
        self._path = path
        self._read = read
        self._sizes = sizes
        self._last = LargeChunk()

    def read(self, t: int, z: int, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Array:
        page = 0
        for axis, size in self._sizes.items():
            page = page * size + {"T": t, "Z": z}[axis]
        plane_cyx: Array = self._last.get(page, partial(self._read, page))
        return plane_cyx[list(channels), y[0] : y[1], x[0] : x[1]]

    def list_files(self, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Iterator[Path]:
        yield from list_image_files(self._path)

    def close(self) -> None:
        self._last.clear()
