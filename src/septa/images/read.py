"""Image files to arrays: the one decoder of septa.

The format is told from the content, sizes are checked before anything is decoded, and whatever is wrong with a file
is an `InputError` of one line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images._info import MAX_PIXELS, Array, Decoded, ImageInfo, check_page, choose_dtype, turn_upright
from septa.images._raster import read_raster_info, read_raster_page
from septa.images._tiff import read_tiff_info, read_tiff_page

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "ImageInfo", "RawLabels", "read_image", "read_info", "read_labels"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes, in lower case, by which a folder's images are found; a file given by its name may have any suffix."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"BM", "bmp"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)
_FOREIGN = (
    (0, b"ZISRAWFILE", "a Zeiss CZI"),
    (0, b"\xda\xce\xbe\x0a", "a Nikon ND2"),
    (0, b"\x70\x00\x00\x00", "a Leica LIF"),
    (0, b"\x89HDF", "an HDF5"),
    (0, b"PK\x03\x04", "a ZIP"),
    (0, b"\x1f\x8b", "a gzip"),
    (0, b"%PDF", "a PDF"),
    (0, b"\x93NUMPY", "a NumPy"),
    (8, b"WEBP", "a WebP"),
    (4, b"jP  ", "a JPEG 2000"),
    (4, b"ftyp", "a HEIF or MP4"),
    (128, b"DICM", "a DICOM"),
)
_HEAD_BYTES = 132


@dataclass(frozen=True)
class RawLabels:
    """Labels as a file stores them, before their values are given a meaning.

    Attributes
    ----------
    array
        "index": ``YX``, integers. "rgb": ``YXS``, uint8, one colour per class. "channels": ``CYX``, integers, one
        plane per class.
    kind
        Which of these.
    palette
        N x 3 uint8, the colour table of a palette image; its array holds the indices.
    """

    array: NDArray[Any]
    kind: Literal["index", "rgb", "channels"]
    palette: NDArray[np.uint8] | None


def read_info(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Describe an image file from its header; pixels are not decoded.

    Parameters
    ----------
    path
        PNG, JPEG, BMP, GIF or TIFF, whatever its suffix.
    max_pixels
        Largest height times width allowed, and a quarter of the largest number of samples of one page.

    Raises
    ------
    InputError
        The file is missing, empty, unknown, damaged or too large.
    """
    path = Path(path)
    file_format = _format(path)
    if file_format == "tiff":
        return _as_read(read_tiff_info(path, max_pixels))
    with path.open("rb") as stream:
        return read_raster_info(path, stream, file_format, max_pixels)


def read_image(path: str | os.PathLike[str], page: int = 0, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Read one page of an image file.

    Parameters
    ----------
    path
        PNG, JPEG, BMP, GIF (first frame) or TIFF, whatever its suffix.
    page
        Which page; see `ImageInfo.pages`.
    max_pixels
        See `read_info`.

    Returns
    -------
    ndarray
        Axes ``CYX``, values as stored: integers of 8, 16 or 32 bit, float32 or float64. 1-bit images are uint8 0 and
        1, float16 becomes float32, integers of 64 bit become float64. Palette images become RGB, CMYK JPEG too;
        alpha is dropped; the EXIF orientation is applied.

    Raises
    ------
    InputError
        The file is missing, empty, unknown, damaged or too large, or has no such page.
    """
    info, decoded = _decode(Path(path), page, max_pixels)
    array_cyx = decoded.array_cyx
    if decoded.palette is not None:
        array_cyx = np.moveaxis(_look_up(decoded.palette, array_cyx[0]), 2, 0)
    return turn_upright(array_cyx.astype(_as_read(info).dtype, copy=False), info.orientation)


def read_labels(path: str | os.PathLike[str], page: int = 0, *, max_pixels: int = MAX_PIXELS) -> RawLabels:
    """Read one page of a label file.

    Parameters
    ----------
    path
        PNG, BMP, GIF or TIFF, whatever its suffix.
    page
        Which page; see `ImageInfo.pages`.
    max_pixels
        See `read_info`.

    Returns
    -------
    RawLabels
        Palette images give their indices, floats that are whole numbers become integers, colours whose three
        channels are equal become one plane, alpha is dropped.

    Raises
    ------
    InputError
        As `read_image`; also for JPEG compression, which changes labels, for an EXIF orientation, which says that
        labels were not drawn on these pixels, and for values that are no whole numbers.
    """
    path = Path(path)
    info, decoded = _decode(path, page, max_pixels)
    if decoded.lossy:
        remedy = "export the labels again as PNG or TIFF; converting this file does not help"
        raise InputError(path, "JPEG compression has changed the labels at every edge", remedy)
    if info.orientation != 1:
        problem = f"the labels carry an orientation flag (EXIF {info.orientation}), so their pixels are stored turned"
        raise InputError(path, problem, "save them upright, without the flag")
    array_cyx = _whole_numbers(path, decoded.array_cyx)
    if len(array_cyx) == 1:
        return RawLabels(np.ascontiguousarray(array_cyx[0]), "index", decoded.palette)
    if not decoded.rgb:
        return RawLabels(np.ascontiguousarray(array_cyx), "channels", None)
    if np.array_equal(array_cyx[0], array_cyx[1]) and np.array_equal(array_cyx[0], array_cyx[2]):
        return RawLabels(np.ascontiguousarray(array_cyx[0]), "index", None)
    return RawLabels(np.ascontiguousarray(np.moveaxis(_eight_bit(path, array_cyx), 0, 2)), "rgb", None)


def _decode(path: Path, page: int, max_pixels: int) -> tuple[ImageInfo, Decoded]:
    file_format = _format(path)
    if file_format == "tiff":
        return read_tiff_page(path, page, max_pixels)
    with path.open("rb") as stream:
        info = read_raster_info(path, stream, file_format, max_pixels)
        check_page(path, page, info.pages)
        return info, read_raster_page(info, stream)


def _format(path: Path) -> str:
    """Tell the format from the first bytes."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(path, "is no file", "give the path of an image file")
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(path, f"cannot be read ({reason})", "check the path and its permissions") from error
    if not head:
        raise InputError(path, "the file is empty", "copy or export it again")
    for magic, file_format in _MAGIC:
        if head.startswith(magic):
            return file_format
    for start, magic, name in _FOREIGN:
        if head[start:].startswith(magic):
            raise InputError(path, f"is {name} file, which cannot be read", "export it as TIFF, OME-TIFF or PNG")
    raise InputError(path, "is no PNG, JPEG, BMP, GIF or TIFF file", "export the image in one of these formats")


def _as_read(info: ImageInfo) -> ImageInfo:
    """Replace the type on disk by the one that `read_image` returns."""
    return replace(info, dtype=choose_dtype(info.dtype))


def _look_up(palette: NDArray[np.uint8], indices: Array) -> NDArray[np.uint8]:
    """Colours of palette indices; an index beyond the table is black."""
    table = np.zeros((max(len(palette), int(indices.max()) + 1), 3), dtype=np.uint8)
    table[: len(palette)] = palette
    return table[indices]


def _whole_numbers(path: Path, array: Array) -> Array:
    """Labels as integers in the byte order of the machine."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind != "f":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if not np.isfinite(array).all() or np.abs(array).max() >= 2**31 or (array != np.rint(array)).any():
        problem = f"labels are whole numbers, but this file holds {array.dtype} values that are not"
        raise InputError(path, problem, "export the labels as integers, without interpolation")
    return array.astype(np.int32)


def _eight_bit(path: Path, array: Array) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 and array.min() >= 0:
        if array.max() <= 255:
            return array.astype(np.uint8)
        if array.dtype == np.uint16 and not (array % 257).any():
            return (array // 257).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(path, f"colour labels are {array.dtype}", "save them as RGB of 8 bits, or as class indices")
    return array
