"""Images of any size as sources of windows: OME-Zarr, plain zarr arrays, and every file that `read_image` reads.

Of OME-Zarr and TIFF only the chunks that a window touches are decoded, so an image may be larger than the memory;
other files are decoded whole, one plane at a time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from septa.errors import InputError
from septa.images._info import MAX_PIXELS, Array
from septa.images.read import read_image, read_info
from septa.images.sources.ome_zarr import open_zarr
from septa.images.sources.source import (
    RGB_NAMES,
    PixelRange,
    Source,
    check_image,
    check_level,
    choose_channels,
    name_channels,
)
from septa.images.sources.tiff import open_tiff

__all__ = ["Source", "open_source"]

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_source(
    path: str | os.PathLike[str],
    *,
    level: int = 0,
    channels: Sequence[int] | None = None,
    image: int = 0,
    max_pixels: int | None = None,
) -> Source:
    """Open an image of any size; nothing is decoded yet.

    Parameters
    ----------
    path
        A folder that is an OME-Zarr image (version 0.4 or 0.5, or what bioformats2raw writes) or a zarr array, or a
        file: TIFF, OME-TIFF, BigTIFF, SVS, or another one that `read_image` reads. Arrays without named axes are
        read by their number of axes as YX, CYX, CZYX or TCZYX; unnamed pages of a TIFF file are Z.
    level
        Which level of the pyramid; 0 is the full size.
    channels
        Which channels, in which order; all when not given.
    image
        Which image of a file that holds several: number of an OME-TIFF image or TIFF series, or of a bioformats2raw
        folder.
    max_pixels
        Most samples that may be decoded at once: of a chunk, or of the plane of a file that is decoded whole
        (`septa.images.read.MAX_PIXELS` when not given). The size of the image itself is not limited.

    Returns
    -------
    Source
        Close it, or use it in a ``with`` statement.

    Raises
    ------
    InputError
        The path is missing, damaged, no image, of an unsupported kind or not written completely; or it has no such
        level, channel or image.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from septa.images.write import write_probabilities
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_probabilities(Path(folder) / "a.tif", np.eye(6, dtype=np.float32)[None])
    ...     with open_source(Path(folder) / "a.tif") as source:
    ...         print(source.shape, source.read((2, 4), (1, 4)).tolist())
    (1, 1, 1, 6, 6) [[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]
    """
    path = Path(path)
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if path.is_dir():
        source = open_zarr(path, level, image, limit)
    else:
        tiff = open_tiff(path, level, image, limit) if _is_tiff(path) else None
        source = tiff or _open_held(path, level, image, limit)
    try:
        return choose_channels(source, channels)
    except InputError:
        source.close()
        raise


def _is_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) in _TIFF_MAGIC
    except (OSError, ValueError):
        return False  # read_info says what is wrong


class _WholePlaneReader:
    """Reads a plane whole and remembers the last one."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        self._path, self._max_pixels = path, max_pixels
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


def _open_held(path: Path, level: int, image: int, max_pixels: int) -> Source:
    """A file of which whole planes are decoded; its pages are Z."""
    info = read_info(path, max_pixels=max_pixels)
    check_level(path, level, 1)
    check_image(path, image, 1)
    sizes = (1, info.channels, info.pages, info.height, info.width)
    colors = RGB_NAMES if info.channels == 3 and (info.palette or info.format != "tiff") else ()
    return Source(
        path=path,
        axes="".join(axis for axis, size in zip("CZ", sizes[1:3]) if size > 1) + "YX",
        shape=sizes,
        dtype=info.dtype.newbyteorder("="),
        levels=((info.height, info.width),),
        level=0,
        chunk=(info.height, info.width),
        pixel_size_um=info.pixel_size_um,
        origin_um=(0.0, 0.0),
        channels=tuple(range(info.channels)),
        channel_names=name_channels(colors, info.channels),
        images=1,
        reader=_WholePlaneReader(path, max_pixels),
    )
