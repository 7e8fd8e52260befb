"""Read image and label files into arrays; no other part of septa decodes images.

The format is detected from the content, sizes are checked before anything is decoded, and any fault of a file raises
an `InputError` of one line.
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images._alpha import choose_soft_mask, merge_label_alpha, report_alpha
from septa.images._arrays import read_array_info, read_array_page
from septa.images._channels import join_infos, join_labels
from septa.images._info import (
    MAX_PIXELS,
    Array,
    ImageInfo,
    check_image,
    check_page,
    choose_dtype,
    turn_upright,
)
from septa.images._label_values import RawLabels, apply_threshold, convert_to_integers, is_grey, make_raw_labels
from septa.images._photometric import Decoded
from septa.images._raster import read_raster_info, read_raster_page
from septa.images._tiff import count_tiff_images, read_tiff_info, read_tiff_page
from septa.images.formats.nifti import is_compressed_nifti, is_nifti
from septa.images.formats.read import (
    CONTAINER_FORMATS,
    CONTAINER_SUFFIXES,
    count_scenes,
    read_container_info,
    read_container_page,
)
from septa.images.outliers import check_magnitude
from septa.images.paths import list_channel_files, split_dataset
from septa.notices import Notices

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageInfo",
    "RawLabels",
    "count_images_in_file",
    "decode_png",
    "read_image",
    "read_info",
    "read_labels",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".tif", ".tiff", *CONTAINER_SUFFIXES)
"""Suffixes, in lower case, by which the images of a folder are found; a file given by its name may have any suffix."""

_MAGIC = (
    (128, b"DICM", "dicom"),  # whose head may be that of a TIFF file
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpeg"),
    (0, b"BM", "bmp"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (0, b"II+\0", "tiff"),
    (0, b"MM\0+", "tiff"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"ZISRAWFILE", "czi"),
    (0, b"\xda\xce\xbe\x0a", "nd2"),
    (0, b"\x70\x00\x00\x00", "lif"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"NRRD00", "nrrd"),
)
_FOREIGN = (
    (0, b"PK\x03\x04", "a ZIP"),
    (0, b"\x1f\x8b", "a gzip"),
    (0, b"%PDF", "a PDF"),
    (8, b"WEBP", "a WebP"),
    (4, b"jP  ", "a JPEG 2000"),
    (4, b"ftyp", "a HEIF or MP4"),
)
_GZIP = b"\x1f\x8b"
_HEAD_BYTES = 352


def read_info(path: str | os.PathLike[str], *, image: int | None = None, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Describe an image file from its header; pixels are not decoded.

    Parameters
    ----------
    path
        PNG, JPEG, BMP, GIF or TIFF file with any suffix.
    image
        Number of the image in a file that holds several. If it is None, the pages of all of them are counted, which
        must be alike.
    max_pixels
        Largest height times width allowed, and a quarter of the largest number of samples of one page.

    Returns
    -------
    ImageInfo
        Description of the file, with the size and type of the array that `read_image` returns.

    Raises
    ------
    InputError
        If the file is missing, empty, of an unknown format, damaged or too large; or if it has no such image, or
        several that are not alike.
    """
    path = Path(path)
    if parts := list_channel_files(path):
        check_image(path, image or 0, 1)
        return join_infos(path, [read_info(part, max_pixels=max_pixels) for part in parts])
    file, dataset = split_dataset(path)
    file_format = _detect_format(file, dataset)
    if file_format == "tiff":
        return _replace_dtype(read_tiff_info(path, max_pixels, image))
    if file_format in CONTAINER_FORMATS:
        return _replace_dtype(read_container_info(path, file, dataset, file_format, max_pixels, image))
    check_image(path, image or 0, 1)
    with path.open("rb") as stream:
        if file_format in ("npy", "npz"):
            return _replace_dtype(read_array_info(path, stream, file_format, max_pixels))
        return read_raster_info(path, stream, file_format, max_pixels)


def count_images_in_file(path: str | os.PathLike[str]) -> int:
    """Return the number of images in a file; errors are those of `read_info`.

    A file has several if they are images of an OME-TIFF, or if the pages of a TIFF file differ.
    """
    path = Path(path)
    if list_channel_files(path):
        return 1
    file, dataset = split_dataset(path)
    file_format = _detect_format(file, dataset)
    if file_format in CONTAINER_FORMATS:
        return count_scenes(file, dataset, file_format)
    return count_tiff_images(path) if file_format == "tiff" else 1


def read_image(
    path: str | os.PathLike[str],
    page: int = 0,
    *,
    image: int | None = None,
    channels: int | None = None,
    max_pixels: int = MAX_PIXELS,
    notices: Notices | None = None,
) -> NDArray[Any]:
    """Read one page of an image file.

    Parameters
    ----------
    path
        PNG, JPEG, BMP, GIF (first frame) or TIFF file with any suffix.
    page
        Number of the page, from 0; see `ImageInfo.pages`.
    channels
        Number of channels that the caller expects. A channel that the file calls alpha is returned, as the last one,
        if the image has as many channels as this together with it; otherwise it is dropped.
    image, max_pixels
        See `read_info`.
    notices
        Receives what is assumed about the pages, and what is done with alpha, palettes, inks, inverted values and the
        orientation.

    Returns
    -------
    ndarray
        Axes ``CYX``, values as stored: integers of 8, 16 or 32 bits, float32 or float64. 1-bit images become uint8 0
        and 1, float16 becomes float32, integers of 64 bits become float64. Images with a palette, of CMYK and of YCbCr
        become RGB. Values are inverted where white is stored as 0, except by ImageJ. The orientation is applied.

    Raises
    ------
    InputError
        If the file is missing, empty, of an unknown format, damaged or too large, has no such page, or holds values
        beyond float32.
    """
    path = Path(path)
    if parts := list_channel_files(path):
        info = read_info(path, image=image, max_pixels=max_pixels)
        joined = [read_image(part, page, max_pixels=max_pixels, notices=notices) for part in parts]
        return np.concatenate(joined).astype(info.dtype, copy=False)
    info, decoded = _decode(path, page, max_pixels, notices, image)
    _note(notices, path, decoded.photometric.note)
    array_cyx = decoded.photometric.convert(decoded.array_cyx)
    if decoded.alpha_yx is not None:
        kept = channels == len(array_cyx) + 1
        report_alpha(path, decoded.alpha_yx, len(array_cyx), kept, notices)
        if kept:
            array_cyx = np.concatenate([array_cyx, decoded.alpha_yx[None].astype(array_cyx.dtype, copy=False)])
    check_magnitude(array_cyx, path)
    if info.orientation != 1:
        _note(notices, path, "the image is turned upright, as its orientation flag says")
    return turn_upright(array_cyx.astype(_replace_dtype(info).dtype, copy=False), info.orientation)


def read_labels(
    path: str | os.PathLike[str],
    page: int = 0,
    *,
    max_pixels: int = MAX_PIXELS,
    threshold: float | None = None,
    notices: Notices | None = None,
) -> RawLabels:
    """Read one page of a label file.

    Parameters
    ----------
    path
        PNG, BMP, GIF or TIFF file with any suffix.
    page
        Number of the page, from 0; see `ImageInfo.pages`.
    max_pixels
        See `read_info`.
    threshold
        Grey value from which on a pixel is foreground; see `apply_threshold`. None reads the values as stored.
    notices
        Receives what is assumed about the pages, and what is done with alpha and with inverted values.

    Returns
    -------
    RawLabels
        Indices of palette images; integers if all floats are whole numbers; one plane if the three channels of a
        colour are equal. Alpha is the mask if the colour is constant; otherwise it is dropped. Masks of two values
        are inverted where white is stored as 0, except by ImageJ. With a threshold, 0 and 255.

    Raises
    ------
    InputError
        As `read_image`. Also for JPEG compression, which changes labels; for an orientation flag, because the labels
        were then not drawn on these pixels; for CMYK and YCbCr, for more than two values where white is stored as 0,
        and for alpha that differs among pixels of one colour; and for values that are not whole numbers. A threshold
        allows JPEG and any number.
    """
    path = Path(path)
    if parts := list_channel_files(path):
        read_info(path, max_pixels=max_pixels)
        planes = [
            read_labels(part, page, max_pixels=max_pixels, threshold=threshold, notices=notices) for part in parts
        ]
        return join_labels(parts, planes)
    info, decoded = _decode(path, page, max_pixels, notices)
    if decoded.lossy and threshold is None:
        remedy = "Export the labels again as PNG or TIFF; converting this file does not help"
        if is_grey(decoded.array_cyx):
            remedy = (
                "Export the labels again as PNG or TIFF (converting this file does not help); for a mask of two "
                "classes you can instead set data.threshold=128, from which value on a pixel is foreground"
            )
        raise InputError(path, "JPEG compression has changed the labels at every edge", remedy)
    if info.orientation != 1:
        problem = f"the labels have an orientation flag (EXIF {info.orientation}), so their pixels are stored turned"
        raise InputError(path, problem, "Save them upright, without the flag")
    if threshold is not None:
        _note(notices, path, decoded.photometric.note)
        array_cyx = decoded.photometric.convert(decoded.array_cyx)
        if decoded.alpha_yx is not None:
            array_cyx = choose_soft_mask(path, array_cyx, decoded.alpha_yx, notices)
        return apply_threshold(path, array_cyx, threshold)
    array_cyx = convert_to_integers(path, _apply_photometric(path, decoded, notices))
    palette = decoded.photometric.palette
    # The indices of a palette say all that its transparency does.
    if decoded.alpha_yx is not None and palette is None:
        mask_yx = merge_label_alpha(path, array_cyx, decoded.alpha_yx, notices)
        array_cyx = array_cyx if mask_yx is None else mask_yx[None]
    return make_raw_labels(path, array_cyx, palette, rgb=decoded.color and len(array_cyx) == 3)


def decode_png(data: bytes, where: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Decode a PNG image that another file holds.

    Parameters
    ----------
    data
        The image.
    where
        File that holds it, for errors.
    max_pixels
        See `read_info`.

    Returns
    -------
    ndarray
        Axes ``CYX``, values as stored, indices of a palette; without alpha.

    Raises
    ------
    InputError
        The data is not a PNG image, damaged or too large.
    """
    stream = io.BytesIO(data)
    info = read_raster_info(Path(where), stream, "png", max_pixels)
    return read_raster_page(info, stream).array_cyx


def _apply_photometric(path: Path, decoded: Decoded, notices: Notices | None) -> Array:
    """Return the label values of the samples, or refuse samples that are not label values."""
    photometric, array_cyx = decoded.photometric, decoded.array_cyx
    if photometric.kind in ("cmyk", "ycbcr"):
        problem = f"the labels are stored as {'CMYK' if photometric.kind == 'cmyk' else 'YCbCr'}, not as label values"
        raise InputError(path, problem, "Save them as class indices, or as RGB without compression loss")
    if photometric.kind == "palette":
        return array_cyx
    if photometric.kind == "inverted" and not np.isin(array_cyx, (0, photometric.top)).all():
        problem = "white is stored as 0 in the labels and they have more than two values, so the values are unclear"
        raise InputError(path, problem, "Save them with black stored as 0")
    _note(notices, path, photometric.note)
    return photometric.convert(array_cyx)


def _note(notices: Notices | None, path: Path, text: str) -> None:
    if notices is not None and text:
        notices.add(path, text)


def _decode(
    path: Path, page: int, max_pixels: int, notices: Notices | None, image: int | None = None
) -> tuple[ImageInfo, Decoded]:
    file, dataset = split_dataset(path)
    file_format = _detect_format(file, dataset)
    if file_format == "tiff" or file_format in CONTAINER_FORMATS:
        if file_format == "tiff":
            info, decoded = read_tiff_page(path, page, max_pixels, image)
        else:
            info, decoded = read_container_page(path, file, dataset, file_format, page, max_pixels, image)
        for note in info.notes:
            _note(notices, path, note)
        return info, decoded
    check_image(path, image or 0, 1)
    with path.open("rb") as stream:
        if file_format in ("npy", "npz"):
            info = read_array_info(path, stream, file_format, max_pixels)
            for note in info.notes:
                _note(notices, path, note)
            return info, read_array_page(info, stream, page)
        info = read_raster_info(path, stream, file_format, max_pixels)
        check_page(path, page, info.pages)
        return info, read_raster_page(info, stream, notices)


def _detect_format(path: Path, dataset: str = "") -> str:
    """Detect the format from the first bytes; only HDF5 files have datasets."""
    file_format = _detect_content(path)
    if dataset and file_format != "hdf5":
        raise InputError(f"{path}:{dataset}", "the file is not an HDF5 file, so it has no datasets", f"Give {path}")
    return file_format


def _detect_content(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise InputError(path, "the path is not a file", "Give the path of an image file")
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        problem = f"the file cannot be read ({error.strerror or 'unknown error'})"
        raise InputError(path, problem, "Check the path and its permissions") from error
    except ValueError as error:
        problem = "the file cannot be read (its path contains a null character)"
        raise InputError(path, problem, "Check the path") from error
    if not head:
        raise InputError(path, "the file is empty", "Copy or export it again")
    for start, magic, file_format in _MAGIC:
        if head[start:].startswith(magic):
            return file_format
    if head.startswith(b"PK\3\4") and head[30:].split(b".npy")[0] != head[30:]:
        return "npz"
    if is_nifti(head) or (head.startswith(_GZIP) and is_compressed_nifti(path)):
        return "nifti"
    for start, magic, name in _FOREIGN:
        if head[start:].startswith(magic):
            problem = f"the file is {name} file, which septa does not read"
            raise InputError(path, problem, "Export it as TIFF, OME-TIFF or PNG")
    problem = "the file is not a PNG, JPEG, BMP, GIF or TIFF image"
    raise InputError(path, problem, "Export the image in one of these formats")


def _replace_dtype(info: ImageInfo) -> ImageInfo:
    """Replace the type on disk by that of the array that `read_image` returns."""
    return replace(info, dtype=choose_dtype(info.dtype))
