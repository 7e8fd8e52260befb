"""Shared parts of the decoders: the description of a file, a decoded page, and the checks around decoding."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, ResourceError, SeptaError, is_out_of_memory
from septa.images.calibration import Calibration

Array = NDArray[Any]

MAX_PIXELS = 2_000_000_000
"""Largest height times width that is decoded unless the caller allows more."""

_SAMPLES_PER_PIXEL = 4


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """The contents of an image file's header.

    Attributes
    ----------
    path
        Path of the file.
    format
        "png", "jpeg", "bmp", "gif" or "tiff", detected from the content and never from the suffix.
    pages
        Number of independent planes (TIFF pages, Z, T); 1 for other formats, also for an animated GIF.
    channels
        Number of channels that `read_image` returns: alpha is not counted, an image with a palette or of CMYK has 3.
    height, width
        Size in pixels, after the orientation is applied.
    dtype
        Type of the array that `read_image` returns.
    axes
        Axes as on disk, for example "YX", "YXS", "CYX", "ZYX", "TCYX".
    alpha
        True if the file declares an alpha channel, which is dropped unless one channel more is expected.
    palette
        True if the pixels are indices into a colour table.
    orientation
        Orientation, 1..8, in EXIF or the TIFF tag; 1 is upright.
    color
        True if the first three channels are a colour (RGB).
    page_axes, page_shape
        Axes that the pages count, the slowest first, for example "TZ", and the size along each; "" and () for a
        single page. "I" and "Q" are axes without a name.
    image, images
        Number of the image, and number of images in the file. If none was chosen among several that are alike, the
        number is None, and the pages of all images are counted.
    notes
        Clauses about what was assumed to read the file, such as ``its smaller images are levels of a pyramid``.
    calibration
        Sizes, steps and positions that the file states, turned upright as the image is.
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
    color: bool = False
    page_axes: str = ""
    page_shape: tuple[int, ...] = ()
    image: int | None = 0
    images: int = 1
    notes: tuple[str, ...] = ()
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def pixel_size_um(self) -> tuple[float, float] | None:
        """(y, x) micrometres per pixel if the file states a real size, else None."""
        return self.calibration.pixel_size_um


class DamagedDataError(Exception):
    """Data that cannot be decoded; its text is septa's own and may be shown to the user."""


def check_size(path: Path, height: int, width: int, samples: int, max_pixels: int) -> None:
    """Refuse an empty image and one beyond ``max_pixels``, where 4 samples count as one pixel."""
    if height < 1 or width < 1 or samples < 1:
        raise InputError(path, f"the image is empty ({height} x {width} pixels)", "Export it again")
    if max(height * width * _SAMPLES_PER_PIXEL, samples) > max_pixels * _SAMPLES_PER_PIXEL:
        pixels = max(height * width, -(-samples // _SAMPLES_PER_PIXEL))
        raise InputError(
            path,
            f"{height} x {width} pixels in {samples} samples are more than the limit of {max_pixels} pixels",
            f"If you trust the file, raise the limit with --max-pixels {pixels}",
        )


def choose_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of the array that a reader returns for samples of type ``stored``.

    1-bit samples become uint8, float16 becomes float32, and integers of 64 bits become float64. The byte order is
    that of the machine.
    """
    types: dict[tuple[str, int], type] = {("b", 1): np.uint8, ("f", 2): np.float32, ("i", 8): np.float64}
    types["u", 8] = np.float64
    return np.dtype(types.get((stored.kind, stored.itemsize), stored)).newbyteorder("=")


def check_page(path: Path, page: int, pages: int) -> None:
    """Refuse a page that the file does not have."""
    if not 0 <= page < pages:
        problem = f"there is no page {page}: the file has pages 0 to {pages - 1}"
        raise InputError(path, problem, "Choose one of these pages")


def check_image(path: Path | str, image: int, images: int) -> None:
    """Refuse an image that the file does not have."""
    if not 0 <= image < images:
        names = f"images 0 to {images - 1}" if images > 1 else "one image, 0"
        problem = f"there is no image {image}: the file has {names}"
        raise InputError(path, problem, "Choose one of these images" if images > 1 else "Leave --image out")


@contextmanager
def translate_decoder_errors(path: Path | str, file_format: str) -> Iterator[None]:
    """Convert any exception of a decoder to a `SeptaError` of one line that names the file.

    Messages of other libraries are not shown; the original exception is the cause of the new one.
    """
    try:
        yield
    except SeptaError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise ResourceError(path, "there is not enough memory to decode the image", "Split the image") from error
        raise make_damage_error(path, file_format, explain_decoder_error(error)) from error


def explain_decoder_error(error: Exception) -> str:
    """Return the reason why data cannot be decoded, in septa's words; empty if it is not known."""
    if isinstance(error, DamagedDataError):
        return str(error)
    if isinstance(error, EOFError | struct.error) or "truncated" in str(error).lower():
        return "the file ends early"
    if isinstance(error, NotImplementedError):
        return "septa does not read this kind"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return ""


def make_damage_error(path: Path | str, file_format: str, reason: str = "") -> InputError:
    """Return the error for a file that starts as ``file_format`` and cannot be decoded."""
    problem = f"the {file_format.upper()} data cannot be decoded" + (f" ({reason})" if reason else "")
    return InputError(path, problem, "Copy or export it again: it is damaged, cut short or of an unusual kind")


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
    """Return the orientation, 1..8, in an EXIF block; 1 if it states none or is damaged.

    Examples
    --------
    >>> import struct
    >>> read_exif_orientation(struct.pack("<2sHIHHHIHH", b"II", 42, 8, 1, 274, 3, 1, 6, 0))
    6
    """
    block = exif.removeprefix(b"Exif\0\0")
    if block[:2] not in (b"II", b"MM"):
        return 1

    def read_number(start: int, size: int) -> int:
        return int.from_bytes(block[start : start + size], "little" if block[:2] == b"II" else "big")

    directory = read_number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * read_number(directory, 2), 12):
        if entry + 12 > len(block):
            break
        if read_number(entry, 2) == 274:
            value = read_number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
