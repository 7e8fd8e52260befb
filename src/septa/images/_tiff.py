"""Decode TIFF with tifffile: find which planes are pages and which are channels, and decode one page at a time."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images._info import (
    Array,
    Decoded,
    ImageInfo,
    check_image,
    check_page,
    check_size,
    make_damage_error,
    translate_decoder_errors,
)
from septa.images._tiff_calibration import read_calibration
from septa.images._tiff_images import TiffImage, are_alike, describe_sizes, find_own_metadata, find_tiff_images

CHANNEL_AXES = "CS"
UNNAMED_AXES = "IQ"
_ALPHA_CODES = (1, 2)
_PHOTOMETRIC_RGB, _PHOTOMETRIC_PALETTE, _PHOTOMETRIC_YCBCR = 2, 3, 6
JPEG_COMPRESSIONS = (6, 7, 33007, 34892)
ORIENTATION_TAG = 274
# tifffile only logs these faults, which lose pages or turn channels into pages.
_SILENT_FAULTS = re.compile(
    r"invalid page offset|corrupted tag list|invalid offset to page|circular reference|invalid value offset"
    r"|OME series raised|shaped series"
)


@dataclass(frozen=True, kw_only=True)
class TiffLayout:
    """The arrangement of pages and channels in one series of TIFF directories, or in several that are alike.

    Attributes
    ----------
    alike
        Series of tifffile that have the same arrangement; each holds further pages.
    axes, shape
        Axes of one series, as tifffile names them, and the size along each.
    split
        Number of axes that count directories; the other axes lie inside each directory.
    kept_samples
        Numbers of the samples of a directory that are not alpha.
    """

    alike: tuple[Any, ...]
    axes: str
    shape: tuple[int, ...]
    split: int
    kept_samples: tuple[int, ...]

    @property
    def series(self) -> Any:
        """First series."""
        return self.alike[0]

    @property
    def height(self) -> int:
        """Height in pixels, as stored."""
        return int(self.shape[self.axes.index("Y")])

    @property
    def width(self) -> int:
        """Width in pixels, as stored."""
        return int(self.shape[self.axes.index("X")])

    @property
    def directories(self) -> NDArray[np.int64]:
        """Numbers of the directories, int64, axes (page, channel)."""
        axes, shape = self.axes[: self.split], self.shape[: self.split]
        numbers = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        return _order_pages_and_channels(numbers, axes)

    @property
    def inner_pages(self) -> int:
        """Number of pages inside each directory."""
        inner = zip(self.axes[self.split :], self.shape[self.split :])
        return math.prod(size for axis, size in inner if axis not in CHANNEL_AXES + "YX")

    @property
    def page_sizes(self) -> list[tuple[str, int]]:
        """Axes that count the pages, the slowest first, and the size along each; "I" and "Q" have no meaning."""
        sizes = [("I", len(self.alike)), *zip(self.axes, self.shape)]
        return [(axis, size) for axis, size in sizes if axis not in CHANNEL_AXES + "YX" and size > 1]

    @property
    def series_pages(self) -> int:
        """Number of pages of each series."""
        return int(self.directories.shape[0]) * self.inner_pages

    @property
    def pages(self) -> int:
        """Number of pages of all series."""
        return self.series_pages * len(self.alike)

    @property
    def channels(self) -> int:
        """Number of channels without alpha."""
        return int(self.directories.shape[1]) * len(self.kept_samples)

    @property
    def alpha(self) -> bool:
        """True if there is an alpha channel."""
        return len(self.kept_samples) < _count_inner_channels(self.axes[self.split :], self.shape[self.split :])


def read_tiff_info(path: Path, max_pixels: int, image: int | None = None) -> ImageInfo:
    """Describe a TIFF file from its directories; pixels are not decoded."""
    with _open_tiff(path) as file:
        images = find_tiff_images(path, file)
        chosen = _choose_image(path, images, image)
        return _describe(path, file, chosen, find_layout(path, chosen.levels[0]), max_pixels, image or 0, len(images))


def count_tiff_images(path: Path) -> int:
    """Return the number of images of a TIFF file."""
    with _open_tiff(path) as file:
        return len(find_tiff_images(path, file))


def read_tiff_page(path: Path, page: int, max_pixels: int, image: int | None = None) -> tuple[ImageInfo, Decoded]:
    """Describe a TIFF file and decode one of its pages, and no other."""
    with _open_tiff(path) as file:
        images = find_tiff_images(path, file)
        chosen = _choose_image(path, images, image)
        layout = find_layout(path, chosen.levels[0])
        info = _describe(path, file, chosen, layout, max_pixels, image or 0, len(images))
        check_page(path, page, info.pages)
        series_number, page_in_series = divmod(page, layout.series_pages)
        row_number, inner_page = divmod(page_in_series, layout.inner_pages)
        series = layout.alike[series_number]
        row = layout.directories[row_number]
        planes = [_decode_directory(path, file, layout, series, int(number))[inner_page] for number in row]
        keyframe = layout.series.keyframe
        colors = keyframe.photometric in (_PHOTOMETRIC_RGB, _PHOTOMETRIC_YCBCR)
        return info, Decoded(
            array_cyx=np.concatenate(planes) if len(planes) > 1 else planes[0],
            palette=read_palette(file, layout),
            rgb=bool(colors and info.channels == 3 and len(row) == 1),
            lossy=int(keyframe.compression) in JPEG_COMPRESSIONS,
        )


def _choose_image(path: Path, images: tuple[TiffImage, ...], number: int | None) -> TiffImage:
    """Return one image, or all of them as the pages of one."""
    if number is not None:
        check_image(path, number, len(images))
        return images[number]
    first = images[0]
    if not are_alike(images):
        problem = f"the file holds {describe_sizes(images)}"
        raise InputError(path, problem, "Save each image in its own file")
    return replace(first, levels=(tuple(series for image in images for series in image.levels[0]),))


def _describe(
    path: Path, file: Any, image: TiffImage, layout: TiffLayout, max_pixels: int, number: int, images: int
) -> ImageInfo:
    keyframe = layout.series.keyframe
    height, width = layout.height, layout.width
    decoded_at_once = max(height * width * layout.channels, int(keyframe.size), _count_tile_samples(keyframe))
    check_size(path, height, width, decoded_at_once, max_pixels)
    if keyframe.dtype is None or keyframe.dtype.kind not in "biuf":
        problem = f"septa does not read samples of type {keyframe.dtype or 'unknown'}"
        raise InputError(path, problem, "Convert the image to integers or floats")
    palette = read_palette(file, layout) is not None
    orientation = keyframe.tags.valueof(ORIENTATION_TAG, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    calibration = read_calibration(file, keyframe, image.ome)
    if orientation >= 5:
        height, width = width, height
        calibration = calibration.turn()
    return ImageInfo(
        path=path,
        format="tiff",
        pages=layout.pages,
        channels=3 if palette else layout.channels,
        height=height,
        width=width,
        dtype=np.dtype(np.uint8) if palette else keyframe.dtype.newbyteorder("="),
        axes="I" * (len(layout.alike) > 1) + layout.series.get_axes(squeeze=True),
        alpha=layout.alpha,
        palette=palette,
        orientation=int(orientation),
        calibration=calibration,
        image=number,
        images=images,
        notes=image.notes,
        page_axes="".join(axis for axis, _ in layout.page_sizes),
        page_shape=tuple(size for _, size in layout.page_sizes),
    )


def find_layout(path: Path, alike: tuple[Any, ...]) -> TiffLayout:
    """Find the pages and channels of series that are alike."""
    series = alike[0]
    keyframe = series.keyframe
    axes = series.get_axes(squeeze=False)
    shape = tuple(int(size) for size in series.get_shape(squeeze=False))
    splits = [
        split
        for split in range(len(shape))
        if math.prod(shape[split:]) == keyframe.size and {"Y", "X"} <= set(axes[split:])
    ]
    if not splits or axes.count("Y") != 1 or axes.count("X") != 1 or 0 in shape:
        problem = f"septa does not read the axes {axes} of size {shape}"
        raise InputError(path, problem, "Export the image as plain TIFF or OME-TIFF")
    split = splits[-1]
    inner_channels = _count_inner_channels(axes[split:], shape[split:])
    kept_samples = _list_kept_samples(keyframe, inner_channels)
    return TiffLayout(alike=alike, axes=axes, shape=shape, split=split, kept_samples=kept_samples)


def _count_inner_channels(axes: str, shape: tuple[int, ...]) -> int:
    return math.prod(size for axis, size in zip(axes, shape) if axis in CHANNEL_AXES)


def _list_kept_samples(keyframe: Any, channels: int) -> tuple[int, ...]:
    """Return the numbers of all samples but alpha; extra samples of unknown meaning are channels."""
    extra = [int(code) for code in keyframe.extrasamples]
    if channels != keyframe.samplesperpixel or len(extra) >= channels:
        return tuple(range(channels))
    first_extra = channels - len(extra)
    return tuple(i for i in range(channels) if i < first_extra or extra[i - first_extra] not in _ALPHA_CODES)


def _count_tile_samples(keyframe: Any) -> int:
    return int(keyframe.tilewidth) * int(keyframe.tilelength) * int(keyframe.tiledepth)


def _order_pages_and_channels(array: Array, axes: str, image_axes: str = "") -> Array:
    """Reorder the axes of an array to (page, channel, *image_axes)."""
    image = [axes.index(axis) for axis in image_axes]
    channels = [i for i, axis in enumerate(axes) if axis in CHANNEL_AXES]
    pages = [i for i in range(len(axes)) if i not in channels + image]
    count = [math.prod(array.shape[i] for i in group) for group in (pages, channels)]
    return array.transpose(pages + channels + image).reshape(*count, *(array.shape[i] for i in image))


def _decode_directory(path: Path, file: Any, layout: TiffLayout, series: Any, number: int) -> Array:
    """Decode the pixels of one directory, axes (page, channel, Y, X)."""
    keyframe = series.keyframe
    check_compression(path, keyframe)
    handle = file.filehandle
    if len(series) == math.prod(layout.shape[: layout.split]):
        page = series[number]
        if page is None:
            raise InputError(path, f"plane {number} is missing from the file", "Export the image again, as one file")
        ends = (offset + size for offset, size in zip(page.dataoffsets, page.databytecounts))
        # tifffile leaves the pixels of parts without data uninitialised.
        parts = 1 if keyframe.is_contiguous else math.prod(keyframe.chunked)
        if max(ends, default=0) > handle.size or len(page.dataoffsets) < parts:
            raise make_damage_error(path, "tiff", "the file ends early")
        flat = page.asarray()
    elif len(series) == 1 and series.dataoffset is not None and keyframe.is_contiguous:
        # One directory describes all planes, which follow each other uncompressed (large ImageJ stacks).
        handle.seek(series.dataoffset + number * keyframe.nbytes)
        flat = handle.read_array(file.byteorder + keyframe.dtype.char, int(keyframe.size))
    else:
        raise make_damage_error(path, "tiff", f"its axes {layout.axes} need more than {len(series)} planes")
    array = flat.reshape(layout.shape[layout.split :])
    pages = _order_pages_and_channels(array, layout.axes[layout.split :], "YX")
    kept: Array = pages[:, list(layout.kept_samples)]
    return kept


def check_compression(path: Path, keyframe: Any) -> None:
    """Refuse a directory whose compression cannot be decoded."""
    if keyframe.compression != 1 and keyframe.compression not in tifffile.TIFF.DECOMPRESSORS:
        problem = f"septa does not read TIFF compression {int(keyframe.compression)}"
        raise InputError(path, problem, "Export the image without compression, or with Deflate or LZW")


def read_palette(file: Any, layout: TiffLayout) -> NDArray[np.uint8] | None:
    """Return the colour table, N x 3 uint8, or None.

    The table of an ImageJ file is not a palette: it only holds the colours in which ImageJ shows grey values.
    """
    keyframe = layout.series.keyframe
    table = keyframe.colormap
    if keyframe.photometric != _PHOTOMETRIC_PALETTE or table is None or layout.channels != 1 or file.is_imagej:
        return None
    if keyframe.dtype not in (np.uint8, np.uint16) or table.ndim != 2 or len(table) != 3:
        return None
    colors = table.T if table.max() < 256 else table.T >> 8
    return np.ascontiguousarray(colors.astype(np.uint8))


_messages: ContextVar[list[str] | None] = ContextVar("septa_tifffile_messages", default=None)


def _collect(record: logging.LogRecord) -> bool:
    """Filter the log of tifffile: drop its messages while septa reads a file, and keep the errors among them."""
    messages = _messages.get()
    if messages is None:
        return True
    if record.levelno >= logging.ERROR:
        messages.append(record.getMessage())
    return False


@contextmanager
def watch_tiff_errors(path: Path) -> Iterator[None]:
    """Raise an `InputError` for any fault of a TIFF file that septa uses, also for those that tifffile only logs."""
    tifffile.logger().addFilter(_collect)
    messages: list[str] = []
    token = _messages.set(messages)
    try:
        with translate_decoder_errors(path, "tiff"):
            yield
            _check_messages(path, messages)
    finally:
        _messages.reset(token)


def open_tiff_file(path: Path) -> Any:
    """Open a TIFF file, inside `watch_tiff_errors`."""
    # Other files that the metadata names are not opened.
    file = tifffile.TiffFile(path, _multifile=False)
    try:
        if (xml := find_own_metadata(path, file)) is not None:
            file.close()
            file = tifffile.TiffFile(path, _multifile=False, omexml=xml)
        _ = file.series
        _check_messages(path, _messages.get() or [])
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def _open_tiff(path: Path) -> Iterator[Any]:
    with watch_tiff_errors(path), open_tiff_file(path) as file:
        yield file


def _check_messages(path: Path, messages: list[str]) -> None:
    for message in messages:
        if _SILENT_FAULTS.search(message):
            raise make_damage_error(path, "tiff", "its list of pages or their description is damaged")
