"""Decode arrays that NumPy saved, ``.npy`` and ``.npz``, without running anything that they hold."""

from __future__ import annotations

import ast
import math
import re
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zipfile import BadZipFile, ZipFile

import numpy as np

from septa.errors import InputError
from septa.images._info import Array, DamagedDataError, ImageInfo, check_page, check_size, translate_decoder_errors
from septa.images._object_arrays import find_masks
from septa.images._photometric import Decoded, Photometric

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 10_000
_MOST_CHANNELS = 4
"""Longest first axis of an array of three axes that are channels, not pages."""
_TYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_OBJECTS = "[<>|=]?O"
_REMEDY_OBJECTS = (
    "In cellpose, save the masks as PNG or TIFF (File menu); elsewhere, save one array of numbers with numpy.save"
)


class _Header(NamedTuple):
    """Description of an array in a file.

    Attributes
    ----------
    dtype
        Type of the samples; that of Python objects for arrays of them.
    fortran
        True if the first axis varies fastest.
    shape
        Size of each axis.
    """

    dtype: np.dtype[np.generic]
    fortran: bool
    shape: tuple[int, ...]


def read_array_info(path: Path, stream: BinaryIO, file_format: str, max_pixels: int) -> ImageInfo:
    """Describe the array in ``stream``; only masks of cellpose are read from arrays of Python objects.

    An array of two axes is YX, and 3 or 4 bytes along the last of three axes are colours. The first of three axes is C
    up to 4, else it counts pages.
    """
    with translate_decoder_errors(path, file_format):
        if file_format == "npz":
            with _open_member(path) as member:
                header = _read_header(path, member)
        else:
            header = _read_header(path, stream)
        shape, dtype = header.shape, header.dtype
        if dtype.kind == "O":
            masks = _read_masks(path, stream)
            shape, dtype = masks.shape, masks.dtype
    axes = find_array_axes(path, shape, dtype)
    size = dict(zip(axes, shape))
    height, width, channels = size["Y"], size["X"], size.get("C", size.get("S", 1))
    pages = size.get("I", 1)
    check_size(path, height, width, height * width * channels, max_pixels)
    if file_format == "npz":  # which may be compressed without bounds
        check_size(path, height, width, pages * height * width * channels, max_pixels)
    note = "" if len(shape) == 2 else f"the axes of the array are taken as {axes.replace('I', 'pages, ')}"
    return ImageInfo(
        path=path,
        format=file_format,
        pages=pages,
        channels=channels,
        height=height,
        width=width,
        dtype=dtype,
        axes=axes,
        alpha=False,
        palette=False,
        orientation=1,
        color="S" in axes and channels == 3,
        page_axes="I" if pages > 1 else "",
        page_shape=(pages,) if pages > 1 else (),
        notes=(note,) if note else (),
    )


def read_array_page(info: ImageInfo, stream: BinaryIO, page: int) -> Decoded:
    """Decode a page of the array that ``info`` describes."""
    check_page(info.path, page, info.pages)
    with translate_decoder_errors(info.path, info.format):
        if info.format == "npz":
            with _open_member(info.path) as member:
                array = _read_values(_read_header(info.path, member), member)
        else:
            stream.seek(0)
            header = _read_header(info.path, stream)
            array = _read_masks(info.path, stream) if header.dtype.kind == "O" else _read_values(header, stream)
        if "I" in info.axes:
            array = array[page]
        array_cyx = np.moveaxis(array, -1, 0) if "S" in info.axes else array.reshape(-1, info.height, info.width)
        array_cyx = np.ascontiguousarray(array_cyx).astype(info.dtype.newbyteorder("="), copy=False)
        return Decoded(
            array_cyx=array_cyx,
            alpha_yx=None,
            photometric=Photometric("stored", info.color),
            color=info.color,
            lossy=False,
        )


def find_array_axes(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> str:
    """Return the axes of an array without names, by their number and size; I counts pages and S is colours."""
    count = len(shape)
    if count == 2:
        return "YX"
    if count in (3, 4):
        color = shape[-1] in (3, 4) and min(shape[-3:-1]) > 4 and dtype.itemsize == 1
        if color:
            return "IYXS"[-count:]
        if count == 3:
            return "CYX" if shape[0] <= _MOST_CHANNELS else "IYX"
        if shape[1] <= _MOST_CHANNELS:
            return "ICYX"
    problem = f"the array has the shape {shape}, septa reads YX, CYX, YXS and pages of these"
    raise InputError(path, problem, "Save it with one of these sets of axes")


def _open_member(path: Path) -> BinaryIO:
    """Open the only array of a NPZ file."""
    try:
        archive = ZipFile(path)
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if len(names) != 1:
            shown = ", ".join(name.removesuffix(".npy")[:40] for name in names[:5])
            problem = f"the NPZ file holds {len(names)} arrays ({shown}), and septa reads files of one array"
            raise InputError(path, problem, "Save each array in a file of its own, with numpy.save")
        member: BinaryIO = archive.open(names[0])  # type: ignore[assignment]  # it reads bytes
    except (BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DamagedDataError("the ZIP file is damaged") from error
    return member


def _read_header(path: Path, stream: BinaryIO) -> _Header:
    """Read the header of an array and leave the stream at its values."""
    start = stream.read(8)
    if start[:6] != _MAGIC or len(start) < 8:
        raise DamagedDataError("the file ends early")
    wide = start[6] >= 2
    (length,) = struct.unpack("<I" if wide else "<H", stream.read(4 if wide else 2))
    if length > _MOST_HEADER:
        raise DamagedDataError("its header is too long")
    try:
        header = ast.literal_eval(stream.read(length).decode("utf-8" if start[6] >= 3 else "latin1").strip())
        kind, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise DamagedDataError("its header is not valid") from None
    if not isinstance(kind, str) or not (_TYPE.fullmatch(kind) or re.fullmatch(_OBJECTS, kind)):
        problem = f"the array holds values of the type {str(kind)[:40]}, not numbers"
        raise InputError(path, problem, "Save one array of numbers with numpy.save")
    sizes = isinstance(shape, tuple) and all(type(size) is int and 0 <= size < 1 << 40 for size in shape)
    if not sizes or not isinstance(fortran, bool):
        raise DamagedDataError("its header is not valid")
    return _Header(np.dtype(kind), fortran, shape)


def _read_values(header: _Header, stream: BinaryIO) -> Array:
    expected = math.prod(header.shape) * header.dtype.itemsize
    place = stream.tell()
    size = stream.seek(0, 2)
    stream.seek(place)
    if size - place < expected:
        raise DamagedDataError("the file ends early")
    data = stream.read(expected)
    if len(data) != expected:
        raise DamagedDataError("the file ends early")
    return np.frombuffer(data, header.dtype).reshape(header.shape, order="F" if header.fortran else "C")


def _read_masks(path: Path, stream: BinaryIO) -> Array:
    masks = find_masks(stream)
    if masks is None:
        raise InputError(path, "the file holds Python objects, which septa never loads", _REMEDY_OBJECTS)
    return masks
