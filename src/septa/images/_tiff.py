"""TIFF through tifffile: which planes are pages and which are channels, and one page decoded at a time."""

from __future__ import annotations

import html
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
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
    check_page,
    check_size,
    make_damage_error,
    translate_decoder_errors,
)

CHANNEL_AXES = "CS"
_ALPHA_CODES = (1, 2)
_PHOTOMETRIC_RGB, _PHOTOMETRIC_PALETTE, _PHOTOMETRIC_YCBCR = 2, 3, 6
JPEG_COMPRESSIONS = (6, 7, 33007, 34892)
REDUCED = 1
ORIENTATION_TAG = 274
# tifffile only logs what would lose pages, or turn channels into pages, without a word.
_BROKEN = re.compile(
    r"invalid page offset|corrupted tag list|invalid offset to page|circular reference|invalid value offset"
    r"|OME series raised|shaped series"
)

_INCH_UM, _CM_UM = 25400.0, 10000.0
_DPI_OF_PRINTERS_AND_SCREENS = (1, 72, 75, 90, 96, 100, 120, 150, 200, 240, 254, 300, 360, 400, 600, 720, 1200)
_APERIO_SIZE = re.compile(r"\bMPP\s*=\s*(\d+(?:\.\d+)?)")
_PLAUSIBLE_UM = (1e-5, 1000.0)
UM_PER_UNIT = {
    "pm": 1e-6,
    "å": 1e-4,
    "a": 1e-4,
    "nm": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "inch": _INCH_UM,
    "in": _INCH_UM,
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a series of TIFF directories, or several that are alike, makes pages and channels.

    The axes before ``split`` count directories, those from ``split`` on lie inside each directory.
    """

    alike: tuple[Any, ...]
    axes: str
    shape: tuple[int, ...]
    split: int
    kept_samples: tuple[int, ...]

    @property
    def series(self) -> Any:
        return self.alike[0]

    @property
    def height(self) -> int:
        return int(self.shape[self.axes.index("Y")])

    @property
    def width(self) -> int:
        return int(self.shape[self.axes.index("X")])

    @property
    def directories(self) -> NDArray[np.int64]:
        """Numbers of the directories, axes (page, channel)."""
        axes, shape = self.axes[: self.split], self.shape[: self.split]
        numbers = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        return _pages_and_channels(numbers, axes)

    @property
    def inner_pages(self) -> int:
        inner = zip(self.axes[self.split :], self.shape[self.split :])
        return math.prod(size for axis, size in inner if axis not in CHANNEL_AXES + "YX")

    @property
    def series_pages(self) -> int:
        return int(self.directories.shape[0]) * self.inner_pages

    @property
    def pages(self) -> int:
        return self.series_pages * len(self.alike)

    @property
    def channels(self) -> int:
        return int(self.directories.shape[1]) * len(self.kept_samples)

    @property
    def alpha(self) -> bool:
        return len(self.kept_samples) < _inner_channels(self.axes[self.split :], self.shape[self.split :])


def read_tiff_info(path: Path, max_pixels: int) -> ImageInfo:
    """Describe a TIFF file from its directories; pixels are not decoded."""
    with _open_tiff(path) as file:
        return _describe(path, file, _layout(path, file), max_pixels)


def read_tiff_page(path: Path, page: int, max_pixels: int) -> tuple[ImageInfo, Decoded]:
    """Describe a TIFF file and decode one page of it and no other."""
    with _open_tiff(path) as file:
        layout = _layout(path, file)
        info = _describe(path, file, layout, max_pixels)
        check_page(path, page, info.pages)
        series, page = layout.alike[page // layout.series_pages], page % layout.series_pages
        row, inner = layout.directories[page // layout.inner_pages], page % layout.inner_pages
        planes = [_decode_directory(path, file, layout, series, int(number))[inner] for number in row]
        keyframe = layout.series.keyframe
        colors = keyframe.photometric in (_PHOTOMETRIC_RGB, _PHOTOMETRIC_YCBCR)
        return info, Decoded(
            array_cyx=np.concatenate(planes) if len(planes) > 1 else planes[0],
            palette=read_palette(file, layout),
            rgb=bool(colors and info.channels == 3 and len(row) == 1),
            lossy=int(keyframe.compression) in JPEG_COMPRESSIONS,
        )


def _describe(path: Path, file: Any, layout: Layout, max_pixels: int) -> ImageInfo:
    keyframe, (height, width) = layout.series.keyframe, (layout.height, layout.width)
    decoded_at_once = max(height * width * layout.channels, int(keyframe.size), _tile_samples(keyframe))
    check_size(path, height, width, decoded_at_once, max_pixels)
    if keyframe.dtype is None or keyframe.dtype.kind not in "biuf":
        kind = f"samples of type {keyframe.dtype or 'unknown'}"
        raise InputError(path, f"has {kind}", "convert it to integers or floats")
    palette = read_palette(file, layout) is not None
    orientation = keyframe.tags.valueof(ORIENTATION_TAG, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    pixel_size = read_pixel_size(file, keyframe)
    if orientation >= 5:
        height, width = width, height
        pixel_size = pixel_size and (pixel_size[1], pixel_size[0])
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
        pixel_size_um=pixel_size,
    )


def _layout(path: Path, file: Any) -> Layout:
    check_series(path, file)
    return find_layout(path, find_alike_series(path, file.series))


def check_series(path: Path, file: Any) -> None:
    """Refuse a file without any image."""
    if not file.series:
        raise InputError(path, "the TIFF file holds no image", "export it again")


def find_layout(path: Path, alike: tuple[Any, ...]) -> Layout:
    """How series that are alike make pages and channels."""
    series = alike[0]
    keyframe = series.keyframe
    axes, shape = series.get_axes(squeeze=False), tuple(int(size) for size in series.get_shape(squeeze=False))
    splits = [
        split
        for split in range(len(shape))
        if math.prod(shape[split:]) == keyframe.size and {"Y", "X"} <= set(axes[split:])
    ]
    if not splits or axes.count("Y") != 1 or axes.count("X") != 1 or 0 in shape:
        raise InputError(path, f"axes {axes} of size {shape} are not understood", "export it as plain TIFF or OME-TIFF")
    split = splits[-1]
    inner_channels = _inner_channels(axes[split:], shape[split:])
    kept_samples = _kept_samples(keyframe, inner_channels)
    return Layout(alike=alike, axes=axes, shape=shape, split=split, kept_samples=kept_samples)


def find_alike_series(path: Path, all_series: list[Any]) -> tuple[Any, ...]:
    """The first image and those that are further pages of it; refuses others unless they are small copies."""
    first, others = all_series[0], all_series[1:]
    if first.kind in ("generic", "uniform"):
        # Their series are sorted by kind of page, so the order of the pages is lost where there are several.
        alike = [first]
    else:
        alike = [series for series in all_series if _traits(series) == _traits(first)]
    if first.kind in ("generic", "uniform", "shaped"):
        strays = [series for series in others if not int(series.keyframe.subfiletype or 0) & REDUCED]
    else:
        strays = [series for series in others if math.prod(series.shape) >= math.prod(first.shape)]
    strays = [series for series in strays if series not in alike]
    if strays:
        sizes = " and ".join("x".join(map(str, series.shape)) for series in (first, strays[0]))
        problem = f"holds images of different kinds or sizes ({sizes})"
        raise InputError(path, problem, "save each of them as a file of its own")
    return tuple(alike)


def _traits(series: Any) -> tuple[Any, ...]:
    page = series.keyframe
    stored = (page.shape, page.dtype, page.axes, page.photometric, tuple(page.extrasamples), page.subfiletype)
    return (series.kind, series.get_axes(squeeze=False), series.get_shape(squeeze=False), *stored)


def _inner_channels(axes: str, shape: tuple[int, ...]) -> int:
    return math.prod(size for axis, size in zip(axes, shape) if axis in CHANNEL_AXES)


def _kept_samples(keyframe: Any, channels: int) -> tuple[int, ...]:
    """Every sample but alpha; extra samples of unknown meaning are channels."""
    extra = [int(code) for code in keyframe.extrasamples]
    if channels != keyframe.samplesperpixel or len(extra) >= channels:
        return tuple(range(channels))
    first_extra = channels - len(extra)
    return tuple(i for i in range(channels) if i < first_extra or extra[i - first_extra] not in _ALPHA_CODES)


def _tile_samples(keyframe: Any) -> int:
    return int(keyframe.tilewidth) * int(keyframe.tilelength) * int(keyframe.tiledepth)


def _pages_and_channels(array: Array, axes: str, image_axes: str = "") -> Array:
    """Bring axes in any order to (page, channel, *image_axes)."""
    image = [axes.index(axis) for axis in image_axes]
    channels = [i for i, axis in enumerate(axes) if axis in CHANNEL_AXES]
    pages = [i for i in range(len(axes)) if i not in channels + image]
    count = [math.prod(array.shape[i] for i in group) for group in (pages, channels)]
    return array.transpose(pages + channels + image).reshape(*count, *(array.shape[i] for i in image))


def _decode_directory(path: Path, file: Any, layout: Layout, series: Any, number: int) -> Array:
    """Pixels of one directory, axes (page, channel, Y, X)."""
    keyframe = series.keyframe
    handle = file.filehandle
    if len(series) == math.prod(layout.shape[: layout.split]):
        page = series[number]
        if page is None:
            raise InputError(path, f"plane {number} is in another file", "export the image as one file")
        ends = (offset + size for offset, size in zip(page.dataoffsets, page.databytecounts))
        # tifffile leaves parts without data uninitialised.
        parts = 1 if keyframe.is_contiguous else math.prod(keyframe.chunked)
        if max(ends, default=0) > handle.size or len(page.dataoffsets) < parts:
            raise make_damage_error(path, "tiff", "the file ends early")
        flat = page.asarray()
    elif len(series) == 1 and series.dataoffset is not None and keyframe.is_contiguous:
        # One directory describes all planes, which follow each other uncompressed (large ImageJ stacks).
        handle.seek(series.dataoffset + number * keyframe.nbytes)
        flat = handle.read_array(file.byteorder + keyframe.dtype.char, int(keyframe.size))
    else:
        raise make_damage_error(path, "tiff", f"{len(series)} planes where axes {layout.axes} need more")
    array = flat.reshape(layout.shape[layout.split :])
    pages = _pages_and_channels(array, layout.axes[layout.split :], "YX")
    kept: Array = pages[:, list(layout.kept_samples)]
    return kept


def read_palette(file: Any, layout: Layout) -> NDArray[np.uint8] | None:
    """Colour table, N x 3; none for ImageJ, which stores there how it shows grey values on the screen."""
    keyframe = layout.series.keyframe
    table = keyframe.colormap
    if keyframe.photometric != _PHOTOMETRIC_PALETTE or table is None or layout.channels != 1 or file.is_imagej:
        return None
    if keyframe.dtype not in (np.uint8, np.uint16) or table.ndim != 2 or len(table) != 3:
        return None
    colors = table.T if table.max() < 256 else table.T >> 8
    return np.ascontiguousarray(colors.astype(np.uint8))


def read_pixel_size(file: Any, keyframe: Any, image: int = 0) -> tuple[float, float] | None:
    """Micrometres per pixel, (y, x), of one image of the file, if the file states a real size."""
    if file.is_ome:
        return _ome_pixel_size(file.ome_metadata or "", image)
    if file.is_svs and (stated := _APERIO_SIZE.search(keyframe.description)):
        return keep_plausible_size(float(stated[1]), float(stated[1]))
    resolution = [keyframe.tags.valueof(tag) for tag in ("YResolution", "XResolution")]
    if not all(isinstance(ratio, tuple) and len(ratio) == 2 and all(ratio) for ratio in resolution):
        return None
    per_unit = [numerator / denominator for numerator, denominator in resolution]
    if file.is_imagej:
        unit = UM_PER_UNIT.get(str((file.imagej_metadata or {}).get("unit", "")).strip().lower())
    else:
        code = int(keyframe.tags.valueof("ResolutionUnit", 2) or 0)
        unit = {2: _INCH_UM, 3: _CM_UM}.get(code)
        dpi = [value * _INCH_UM / (unit or 1) for value in per_unit]
        if all(any(abs(value - usual) < 0.01 * usual for usual in _DPI_OF_PRINTERS_AND_SCREENS) for value in dpi):
            return None
    return keep_plausible_size(unit / per_unit[0], unit / per_unit[1]) if unit else None


def _ome_pixel_size(xml: str, image: int) -> tuple[float, float] | None:
    tags = re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    found = dict(re.findall(r'\b(PhysicalSize\w+)\s*=\s*"([^"]*)"', tags[image])) if image < len(tags) else {}
    sizes = []
    for axis in "YX":
        unit = UM_PER_UNIT.get(html.unescape(found.get(f"PhysicalSize{axis}Unit", "um")).strip().lower())
        try:
            sizes.append(float(found.get(f"PhysicalSize{axis}", "")) * (unit or math.nan))
        except ValueError:
            return None
    return keep_plausible_size(sizes[0], sizes[1])


def keep_plausible_size(y: float, x: float) -> tuple[float, float] | None:
    """A pixel size in micrometres, or None where it cannot be one of a microscope."""
    low, high = _PLAUSIBLE_UM
    return (y, x) if low <= y <= high and low <= x <= high else None


_messages: ContextVar[list[str] | None] = ContextVar("septa_tifffile_messages", default=None)


def _collect(record: logging.LogRecord) -> bool:
    """Keep what tifffile logs while septa reads a file out of the log, and remember errors."""
    messages = _messages.get()
    if messages is None:
        return True
    if record.levelno >= logging.ERROR:
        messages.append(record.getMessage())
    return False


@contextmanager
def watch_tiff_errors(path: Path) -> Iterator[None]:
    """While septa uses a TIFF file, what is wrong with it becomes an InputError, also what tifffile would only log."""
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
    """Open a TIFF file while `watch_tiff_errors`."""
    # Other files that the metadata names are left alone: one file is one image.
    file = tifffile.TiffFile(path, _multifile=False)
    try:
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
        if _BROKEN.search(message):
            raise make_damage_error(path, "tiff", "its list of pages or their description is broken")
