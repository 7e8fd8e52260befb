"""What the decoders share: the description of a file, its decoded page, and the guards around decoding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, ResourceError, SeptaError

Array = NDArray[Any]

MAX_PIXELS = 2_000_000_000
"""Largest height times width that is decoded unless the caller allows more."""

_SAMPLES_PER_PIXEL = 4


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What the header of an image file says.

    Attributes
    ----------
    path
        The file.
    format
        "png", "jpeg", "bmp", "gif" or "tiff", told from the content and never from the suffix.
    pages
        Number of independent planes (TIFF pages, Z, T); 1 for other formats, also for an animated GIF.
    channels
        Number of channels that `read_image` returns: alpha is not counted, a palette image has 3.
    height, width
        Size in pixels, after the orientation was applied.
    dtype
        Type of the array that `read_image` returns.
    axes
        Axes as on disk, for example "YX", "YXS", "CYX", "ZYX", "TCYX".
    alpha
        Whether there is an alpha channel, which is dropped.
    palette
        Whether the pixels are indices into a colour table.
    orientation
        EXIF orientation, 1..8; 1 is upright.
    pixel_size_um
        (y, x) micrometres per pixel if the file states a real one.
    """

    path: Path
    format: str
    pages: int
    channels: int
    height: int
    width: int
    dtype: np.dtype[Any]
    axes: str
    alpha: bool
    palette: bool
    orientation: int
    pixel_size_um: tuple[float, float] | None


@dataclass(frozen=True)
class Decoded:
    """One page as stored: alpha dropped, not turned upright, palette indices not looked up.

    ``palette`` is N x 3 uint8 for palette images; ``rgb`` says that the three channels are a colour;
    ``lossy`` that the compression changes values.
    """

    array_cyx: Array
    palette: NDArray[np.uint8] | None
    rgb: bool
    lossy: bool


def check_size(path: Path, height: int, width: int, samples: int, max_pixels: int) -> None:
    """Refuse an empty image and one beyond ``max_pixels``, where 4 samples count as one pixel."""
    if height < 1 or width < 1 or samples < 1:
        raise InputError(path, f"the image is empty ({height} x {width} pixels)", "export it again")
    if max(height * width * _SAMPLES_PER_PIXEL, samples) > max_pixels * _SAMPLES_PER_PIXEL:
        pixels = max(height * width, -(-samples // _SAMPLES_PER_PIXEL))
        raise InputError(
            path,
            f"{height} x {width} pixels in {samples} samples are more than the limit of {max_pixels} pixels",
            f"if the file can be trusted, raise the limit with --max-pixels {pixels}",
        )


def choose_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Type of the array that a reader returns for samples of type ``stored``, in the byte order of the machine.

    1-bit becomes uint8, float16 float32, and integers of 64 bit become float64.
    """
    types: dict[tuple[str, int], type] = {("b", 1): np.uint8, ("f", 2): np.float32, ("i", 8): np.float64}
    types["u", 8] = np.float64
    return np.dtype(types.get((stored.kind, stored.itemsize), stored)).newbyteorder("=")


def check_page(path: Path, page: int, pages: int) -> None:
    """Refuse a page that the file does not have."""
    if not 0 <= page < pages:
        raise InputError(path, f"there is no page {page}", f"the file has pages 0 to {pages - 1}")


@contextmanager
def translate_decoder_errors(path: Path, file_format: str) -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into one line that names the file."""
    try:
        yield
    except SeptaError:
        raise
    except MemoryError as error:
        raise ResourceError(path, "there is not enough memory to decode it", "split the image") from error
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
        raise make_damage_error(path, file_format, reason) from error


def make_damage_error(path: Path, file_format: str, reason: str) -> InputError:
    """The error for a file that starts as ``file_format`` and cannot be decoded."""
    problem = f"the {file_format.upper()} data cannot be decoded ({reason})"
    return InputError(path, problem, "the file is damaged, cut short or of an unusual kind; copy or export it again")


def turn_upright(array_cyx: Array, orientation: int) -> Array:
    """Turn a stored image, axes ``CYX``, upright; ``orientation`` is that of EXIF, 1..8."""
    if orientation >= 5:
        array_cyx = array_cyx.swapaxes(1, 2)
    if orientation in (3, 4, 7, 8):
        array_cyx = array_cyx[:, ::-1]
    if orientation in (2, 3, 6, 7):
        array_cyx = array_cyx[:, :, ::-1]
    return np.ascontiguousarray(array_cyx)


def read_exif_orientation(exif: bytes) -> int:
    """Orientation, 1..8, in an EXIF block; 1 when it states none or is damaged.

    Examples
    --------
    >>> import struct
    >>> read_exif_orientation(struct.pack("<2sHIHHHIHH", b"II", 42, 8, 1, 274, 3, 1, 6, 0))
    6
    """
    block = exif.removeprefix(b"Exif\0\0")
    if block[:2] not in (b"II", b"MM"):
        return 1

    def number(start: int, size: int) -> int:
        return int.from_bytes(block[start : start + size], "little" if block[:2] == b"II" else "big")

    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if entry + 12 > len(block):
            break
        if number(entry, 2) == 274:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
