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
    ImageInfo,
    check_image,
    check_page,
    check_size,
    make_damage_error,
    translate_decoder_errors,
)
from septa.images._photometric import JPEG_COMPRESSIONS, Decoded, Photometric, find_photometric
from septa.images._tiff_calibration import read_calibration
from septa.images._tiff_images import TiffImage, are_alike, describe_sizes, find_own_metadata, find_tiff_images
from septa.images._tiff_planes import DirectoryReader

CHANNEL_AXES = "CS"
_MOST_INTERLEAVED = 4
_LEAST_INTERLEAVED = 16
"""Largest number of columns of a page that are taken for channels, and smallest sides of the image that they make."""
UNNAMED_AXES = "IQ"
_ALPHA_CODES = (1, 2)
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
    alpha_sample
        Number of the sample that the file calls alpha, or None.
    photometric
        Meaning of the kept samples.
    """

    alike: tuple[Any, ...]
    axes: str
    shape: tuple[int, ...]
    split: int
    kept_samples: tuple[int, ...]
    alpha_sample: int | None
    photometric: Photometric

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
    def series_directories(self) -> int:
        """Number of directories that the axes of each series count."""
        return math.prod(self.shape[: self.split])

    @property
    def inner_channels(self) -> int:
        """Number of channels that each directory holds, without alpha."""
        return self.photometric.count_channels(len(self.kept_samples))

    @property
    def channels(self) -> int:
        """Number of channels without alpha."""
        return int(self.directories.shape[1]) * self.inner_channels

    @property
    def color(self) -> bool:
        """True if the first three channels are a colour."""
        return self.photometric.color and int(self.directories.shape[1]) == 1

    @property
    def flat(self) -> bool:
        """True if each directory is one plane, so that its windows can be decoded alone."""
        keyframe = self.series.keyframe
        size = (int(keyframe.imagelength), int(keyframe.imagewidth))
        return self.inner_pages == 1 and int(keyframe.shaped[1]) == 1 and size == (self.height, self.width)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the samples after the conversion of colours."""
        stored: np.dtype[Any] = self.series.keyframe.dtype.newbyteorder("=")
        return np.dtype(np.uint8) if self.photometric.kind == "palette" else stored


def read_tiff_info(path: Path, max_pixels: int, image: int | None = None) -> ImageInfo:
    """Describe a TIFF file from its directories; pixels are not decoded."""
    with _open_tiff(path) as file:
        images = find_tiff_images(path, file)
        chosen = _choose_image(path, images, image)
        return _describe(path, file, chosen, find_layout(path, chosen.levels[0]), max_pixels, image, len(images))


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
        info = _describe(path, file, chosen, layout, max_pixels, image, len(images))
        check_page(path, page, info.pages)
        series_number, page_in_series = divmod(page, layout.series_pages)
        row_number, inner_page = divmod(page_in_series, layout.inner_pages)
        first = series_number * layout.series_directories
        reader = DirectoryReader(path, file, layout.alike, layout.series_directories)
        numbers = layout.directories[row_number] + first
        planes = [_decode_directory(reader, layout, int(number))[inner_page] for number in numbers]
        array_cyx = np.concatenate(planes) if len(planes) > 1 else planes[0]
        return info, Decoded(
            array_cyx=array_cyx[: len(array_cyx) - info.alpha],
            alpha_yx=array_cyx[-1] if info.alpha else None,
            photometric=layout.photometric,
            color=layout.color,
            lossy=int(layout.series.keyframe.compression) in JPEG_COMPRESSIONS,
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
    path: Path, file: Any, image: TiffImage, layout: TiffLayout, max_pixels: int, number: int | None, images: int
) -> ImageInfo:
    keyframe = layout.series.keyframe
    height, width = layout.height, layout.width
    decoded_at_once = max(height * width * layout.channels, int(keyframe.size), _count_tile_samples(keyframe))
    check_size(path, height, width, decoded_at_once, max_pixels)
    if keyframe.dtype is None or keyframe.dtype.kind not in "biuf":
        problem = f"septa does not read samples of type {keyframe.dtype or 'unknown'}"
        raise InputError(path, problem, "Convert the image to integers or floats")
    orientation = keyframe.tags.valueof(ORIENTATION_TAG, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    calibration = read_calibration(file, keyframe, image.ome, layout.channels)
    if orientation >= 5:
        height, width = width, height
        calibration = calibration.turn()
    return ImageInfo(
        path=path,
        format="tiff",
        pages=layout.pages,
        channels=layout.channels,
        height=height,
        width=width,
        dtype=layout.dtype,
        axes="I" * (len(layout.alike) > 1) + layout.series.get_axes(squeeze=True),
        alpha=layout.alpha_sample is not None,
        palette=layout.photometric.kind == "palette",
        color=layout.color,
        orientation=int(orientation),
        calibration=calibration,
        image=0 if images == 1 else number,
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
    _refuse_interleaved(path, axes, shape)
    split = splits[-1]
    samples = _count_channels(axes[split:], shape[split:])
    extra = [int(code) for code in keyframe.extrasamples] if samples == keyframe.samplesperpixel else []
    first_extra = samples - len(extra)
    # Several directories of a page are channels of their own, which no alpha can belong to.
    alone = first_extra > 0 and _count_channels(axes[:split], shape[:split]) == 1
    alphas = [first_extra + i for i, code in enumerate(extra) if code in _ALPHA_CODES and alone]
    kept = tuple(sample for sample in range(samples) if sample not in alphas[:1])
    undeclared = sum(sample >= first_extra for sample in kept)
    return TiffLayout(
        alike=alike,
        axes=axes,
        shape=shape,
        split=split,
        kept_samples=kept,
        alpha_sample=alphas[0] if alphas else None,
        photometric=find_photometric(path, keyframe, len(kept), undeclared),
    )


def _refuse_interleaved(path: Path, axes: str, shape: tuple[int, ...]) -> None:
    """Refuse an array whose last axis holds channels but is taken for the columns of narrow pages."""
    height, width = shape[axes.index("Y")], shape[axes.index("X")]
    rows = max((size for axis, size in zip(axes, shape) if axis not in CHANNEL_AXES + "YX"), default=1)
    if 2 <= width <= _MOST_INTERLEAVED and min(height, rows) >= _LEAST_INTERLEAVED:
        problem = (
            f"the file holds {rows} pages of {height} x {width} pixels, "
            f"which looks like one image of {rows} x {height} pixels whose last axis is its {width} channels"
        )
        raise InputError(path, problem, "Save it with the channels first and axes named CYX")


def _count_channels(axes: str, shape: tuple[int, ...]) -> int:
    return math.prod(size for axis, size in zip(axes, shape) if axis in CHANNEL_AXES)


def _count_tile_samples(keyframe: Any) -> int:
    return int(keyframe.tilewidth) * int(keyframe.tilelength) * int(keyframe.tiledepth)


def _order_pages_and_channels(array: Array, axes: str, image_axes: str = "") -> Array:
    """Reorder the axes of an array to (page, channel, *image_axes)."""
    image = [axes.index(axis) for axis in image_axes]
    channels = [i for i, axis in enumerate(axes) if axis in CHANNEL_AXES]
    pages = [i for i in range(len(axes)) if i not in channels + image]
    count = [math.prod(array.shape[i] for i in group) for group in (pages, channels)]
    return array.transpose(pages + channels + image).reshape(*count, *(array.shape[i] for i in image))


def _decode_directory(reader: DirectoryReader, layout: TiffLayout, number: int) -> Array:
    """Decode the samples of one directory, axes (page, sample, Y, X); alpha is the last."""
    alpha = () if layout.alpha_sample is None else (layout.alpha_sample,)
    samples = [*layout.kept_samples, *alpha]
    if layout.flat:
        return reader.read_window(number, samples, (0, layout.height), (0, layout.width))[None]
    array = reader.read_whole(number).reshape(layout.shape[layout.split :])
    pages = _order_pages_and_channels(array, layout.axes[layout.split :], "YX")
    chosen: Array = pages[:, samples]
    return chosen


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
