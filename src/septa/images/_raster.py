"""Decode PNG, JPEG, BMP and GIF with Pillow, and PNG of 16-bit colours with imagecodecs."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin

from septa.images._info import (
    Array,
    DamagedDataError,
    ImageInfo,
    check_size,
    make_damage_error,
    read_exif_orientation,
    translate_decoder_errors,
)
from septa.images._photometric import NOTE_CMYK, NOTE_PALETTE, Decoded, Photometric
from septa.images._units import read_resolution
from septa.images.calibration import Calibration
from septa.notices import Notices

# Pillow's size limit and Python's warning filters are shared by the whole process, so only one thread opens a header
# at a time.
_opening_lock = threading.Lock()

_PLUGINS: dict[str, Any] = {
    "png": PngImagePlugin.PngImageFile,
    "jpeg": JpegImagePlugin.JpegImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "gif": GifImagePlugin.GifImageFile,
}
_ALPHA_MODES = ("LA", "RGBA")
_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
_PNG_ALPHA = {0: False, 2: False, 4: True, 6: True}
_COPY_BYTES = 1 << 22
_NOTE_PLAIN_CMYK = "CMYK without Adobe's marker is taken as inverted, as Adobe does, and converted to RGB"
_METRE_UM = 1e6
_ORIENTATION = 274


def read_raster_info(path: Path, stream: BinaryIO, file_format: str, max_pixels: int) -> ImageInfo:
    """Describe the image in ``stream`` from its header; pixels are not decoded."""
    with translate_decoder_errors(path, file_format):
        image = _open(stream, file_format)
        depth, color = _read_png_kind(stream) if file_format == "png" else (8, -1)
        mode = image.mode
        width, height = image.size
        alpha = _PNG_ALPHA[color] if depth == 16 else mode in _ALPHA_MODES or _has_palette_alpha(image)
        grey = color in (0, 4) if depth == 16 else mode in _GREY_MODES
        palette = mode in ("P", "PA")
        exif = _read_png_chunk(stream, b"eXIf") if file_format == "png" else image.info.get("exif", b"")
        calibration = _read_png_calibration(stream) if file_format == "png" else Calibration()
        orientation = read_exif_orientation(exif) if isinstance(exif, bytes) else 1
    check_size(path, height, width, height * width * (1 if grey else 3), max_pixels)
    if orientation >= 5:
        height, width = width, height
        calibration = calibration.turn()
    return ImageInfo(
        path=path,
        format=file_format,
        pages=1,
        channels=1 if grey else 3,
        height=height,
        width=width,
        dtype=np.dtype(np.uint16 if depth == 16 else np.uint8),
        axes="YX" if (grey and not alpha) or palette else "YXS",
        alpha=alpha,
        palette=palette,
        orientation=orientation,
        color=not grey,
        calibration=calibration,
    )


def read_raster_page(info: ImageInfo, stream: BinaryIO, notices: Notices | None = None) -> Decoded:
    """Decode the image that ``info`` describes."""
    with translate_decoder_errors(info.path, info.format):
        depth, color = 8, -1
        if info.format == "png":
            depth, color = _read_png_kind(stream)
            _check_png(info.path, stream)
        image = _open(stream, info.format)
        if notices is not None:
            _warn_unused(info, image, notices)
        palette = alpha_yx = None
        note = ""
        if depth == 16 and color != 0:
            array = _decode_deep_png(stream)
        else:
            image.load()
            if info.palette:
                palette = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
                note = NOTE_PALETTE
            if image.mode == "CMYK":
                note = NOTE_CMYK if "adobe" in image.info else _NOTE_PLAIN_CMYK
            array = np.asarray(image.convert("RGB") if image.mode == "CMYK" else image)
            if color == 0:
                array = _unstretch_grey(array, depth)
        array_cyx = np.moveaxis(array.reshape(*array.shape[:2], -1), 2, 0)
        if info.alpha and palette is None:
            alpha_yx = array_cyx[info.channels]
        elif info.alpha:
            alpha_yx = _read_palette_alpha(image, array_cyx)
        return Decoded(
            array_cyx=array_cyx[: 1 if palette is not None else info.channels],
            alpha_yx=alpha_yx,
            photometric=Photometric("stored" if palette is None else "palette", info.color, palette=palette, note=note),
            color=info.color,
            lossy=info.format == "jpeg",
        )


def _warn_unused(info: ImageInfo, image: ImageFile.ImageFile, notices: Notices) -> None:
    """Warn about frames and orientations that are not used."""
    if getattr(image, "is_animated", False):
        remedy = "Save the other frames as files of their own"
        notices.add(info.path, "only the first frame of the animation is read", remedy, warning=True)
    # Pillow also reads the orientation of XMP and of ImageMagick.
    if info.orientation == 1 and image.getexif().get(_ORIENTATION, 1) in range(2, 9):
        remedy = "Save the image upright if it is shown turned elsewhere"
        notices.add(info.path, "an orientation that is not stated in EXIF is not used", remedy, warning=True)


def _has_palette_alpha(image: Image.Image) -> bool:
    """Return True if some entry of the colour table is not opaque."""
    return image.mode == "PA" or (image.mode == "P" and "transparency" in image.info)


def _read_palette_alpha(image: Image.Image, array_cyx: Array) -> Array:
    """Return the alpha of each pixel of a palette image, whose transparency belongs to entries of the colour table."""
    if image.mode == "PA":
        alpha_yx: Array = array_cyx[1]
        return alpha_yx
    table = np.full(256, 255, np.uint8)
    transparency = image.info["transparency"]
    if isinstance(transparency, bytes):
        table[: len(transparency)] = np.frombuffer(transparency, np.uint8)
    else:
        table[int(transparency)] = 0
    opacity: Array = table[array_cyx[0]]
    return opacity


def _open(stream: BinaryIO, file_format: str) -> ImageFile.ImageFile:
    stream.seek(0)
    with _opening_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            image: ImageFile.ImageFile = _PLUGINS[file_format](stream)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    return image


def _unstretch_grey(array: Array, depth: int) -> Array:
    """Return grey samples as stored: Pillow stretches those of 2 and 4 bits to 0..255."""
    if depth in (2, 4):
        return array // np.uint8(255 // (2**depth - 1))
    return array.astype(np.uint16 if depth == 16 else np.uint8)


def _decode_deep_png(stream: BinaryIO) -> Array:
    import imagecodecs

    stream.seek(0)
    array: Array = imagecodecs.png_decode(stream.read())
    return array


def _read_png_kind(stream: BinaryIO) -> tuple[int, int]:
    """Return the bit depth and the colour type."""
    stream.seek(12)
    kind, _, _, depth, color = struct.unpack(">4sIIBB", stream.read(14))
    if kind != b"IHDR":
        raise DamagedDataError("the header is missing")
    return depth, color


def _list_png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, the start of the data and its length of each chunk, until IEND or the end of the file."""
    start = 8
    while True:
        stream.seek(start)
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, start + 8, length
        if kind == b"IEND":
            return
        start += length + 12


def _read_png_chunk(stream: BinaryIO, name: bytes) -> bytes:
    """Return the start of the data of the first chunk of a kind; empty if there is none."""
    for kind, start, length in _list_png_chunks(stream):
        if kind == name:
            stream.seek(start)
            return stream.read(min(length, 1 << 16))
    return b""


def _read_png_calibration(stream: BinaryIO) -> Calibration:
    """Return the pixel size that the chunk pHYs states as a resolution in pixels per metre."""
    data = _read_png_chunk(stream, b"pHYs")
    if len(data) != 9:
        return Calibration()
    x, y, unit = struct.unpack(">IIB", data)
    return Calibration(pixel_size_um=read_resolution(y, x, _METRE_UM) if unit == 1 and x and y else None)


def _check_png(path: Path, stream: BinaryIO) -> None:
    """Verify the checksum of every chunk: Pillow ignores those of the pixel data."""
    last = b""
    for kind, start, length in _list_png_chunks(stream):
        checksum = zlib.crc32(kind)
        left = length
        stream.seek(start)
        while left and (part := stream.read(min(left, _COPY_BYTES))):
            checksum = zlib.crc32(part, checksum)
            left -= len(part)
        if left or stream.read(4) != struct.pack(">I", checksum):
            raise make_damage_error(path, "png", "the file ends early" if left else "a checksum does not match")
        last = kind
    if last != b"IEND":
        raise make_damage_error(path, "png", "the file ends early")
