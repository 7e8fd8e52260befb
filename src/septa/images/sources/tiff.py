"""Open TIFF files of any size: only the tiles, strips or rows that a window touches are read and decoded."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images._info import Array, make_damage_error
from septa.images._tiff import (
    CHANNEL_AXES,
    JPEG_COMPRESSIONS,
    ORIENTATION_TAG,
    UNNAMED_AXES,
    TiffLayout,
    check_compression,
    find_layout,
    open_tiff_file,
    read_palette,
    watch_tiff_errors,
)
from septa.images._tiff_calibration import read_calibration
from septa.images._tiff_images import describe_sizes, find_tiff_images
from septa.images.sources.source import RGB_NAMES, ImageLevel, PixelRange

_PLANES_REMEMBERED = 64

_Target = tuple[int, int]
"""Position of a channel in the result, and the number of its sample in a directory."""


@dataclass(frozen=True)
class _Axes:
    """Sizes of T, Z and C, the positions of T and Z among the axes over directories, and what was assumed."""

    sizes: tuple[int, int, int]
    roles: dict[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Plane:
    """The places of the strips or tiles of one directory, and the options to decode them."""

    keyframe: Any
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    options: dict[str, Any]


class _TiffReader:
    """A reader of one level.

    The lock guards the position in the file and the state of tifffile, never the decoding.
    """

    def __init__(self, path: Path, file: Any, layout: TiffLayout, directories_tzc: NDArray[np.int64]) -> None:
        self._path = path
        self._file = file
        self._layout = layout
        self._directories = directories_tzc
        self._lock = threading.RLock()
        self._keyframe = layout.series.keyframe
        self._inner = len(layout.kept_samples)
        self._plane = lru_cache(_PLANES_REMEMBERED)(self._find_plane)

    def read(self, t: int, z: int, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Array:
        dtype = self._keyframe.dtype.newbyteorder("=")
        values = np.empty((len(channels), y[1] - y[0], x[1] - x[0]), dtype)
        with watch_tiff_errors(self._path):
            targets_of_directory: dict[int, list[_Target]] = {}
            for position, channel in enumerate(channels):
                directory, sample = divmod(channel, self._inner)
                number = int(self._directories[t, z, directory])
                targets_of_directory.setdefault(number, []).append((position, self._layout.kept_samples[sample]))
            for number, targets in targets_of_directory.items():
                with self._lock:
                    plane = self._plane(number)
                read = self._read_rows if _is_plain(plane.keyframe) else self._read_segments
                read(plane, values, targets, y, x)
        return values

    def list_files(self, channels: tuple[int, ...], y: PixelRange, x: PixelRange) -> Iterator[Path]:
        yield self._path

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def _find_plane(self, number: int) -> _Plane:
        directories = math.prod(self._layout.shape[: self._layout.split])
        series_number, number = divmod(number, directories)
        series = self._layout.alike[series_number]
        keyframe = series.keyframe
        if len(series) == directories:
            page = series[number]
            if page is None:
                remedy = "Export the image again, as one file"
                raise InputError(self._path, f"plane {number} is missing from the file", remedy)
            tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
            options = tables if int(keyframe.compression) in JPEG_COMPRESSIONS else {}
            keyframe.init_decode()
            offsets, sizes = tuple(page.dataoffsets), tuple(page.databytecounts)
            parts = 1 if keyframe.is_contiguous else math.prod(keyframe.chunked)
            if len(offsets) < parts or len(sizes) < parts:
                raise make_damage_error(self._path, "tiff", "the file ends early")
            return _Plane(keyframe, offsets, sizes, options)
        if len(series) == 1 and series.dataoffset is not None and _is_plain(keyframe):
            # One directory describes all planes, which follow each other uncompressed (large ImageJ stacks).
            return _Plane(keyframe, (series.dataoffset + number * keyframe.nbytes,), (keyframe.nbytes,), {})
        raise make_damage_error(self._path, "tiff", f"its axes {self._layout.axes} need more than {len(series)} planes")

    def _read_bytes(self, offset: int, size: int) -> bytes:
        with self._lock:
            handle = self._file.filehandle
            if offset + size > handle.size:
                raise make_damage_error(self._path, "tiff", "the file ends early")
            handle.seek(offset)
            data: bytes = handle.read(size)
        if len(data) != size:
            raise make_damage_error(self._path, "tiff", "the file ends early")
        return data

    def _read_rows(self, plane: _Plane, values: Array, targets: list[_Target], y: PixelRange, x: PixelRange) -> None:
        """Read uncompressed strips: the bytes of each row of the window are contiguous in the file."""
        planar, _, height, width, contig = plane.keyframe.shaped
        dtype = np.dtype(plane.keyframe.parent.byteorder + plane.keyframe.dtype.char)
        pixel = contig * dtype.itemsize
        # tifffile merges strips that follow each other without a gap.
        strips = _count_strips(plane.keyframe) * planar
        rows = height if len(plane.offsets) < strips else _count_rows_of_strip(plane.keyframe)
        whole = len(plane.offsets) == 1 and planar > 1
        for sample in sorted({sample for _, sample in targets}) if planar > 1 else [0]:
            positions = [(p, 0 if planar > 1 else s) for p, s in targets if planar == 1 or s == sample]
            for row in range(*y):
                strip, inside = divmod(row, rows)
                strip += 0 if whole else sample * -(-height // rows)
                start = plane.offsets[strip] + (inside * width + x[0]) * pixel + whole * sample * height * width * pixel
                if strips == len(plane.offsets) and 0 < plane.sizes[strip] < (inside * width + x[1]) * pixel:
                    raise make_damage_error(self._path, "tiff", f"strip {strip} is cut short")
                empty = plane.offsets[strip] == plane.sizes[strip] == 0
                data = b"" if empty else self._read_bytes(start, (x[1] - x[0]) * pixel)
                line = np.frombuffer(data, dtype).reshape(-1, contig)
                for position, column in positions:
                    values[position, row - y[0]] = plane.keyframe.nodata if empty else line[:, column]

    def _read_segments(
        self, plane: _Plane, values: Array, targets: list[_Target], y: PixelRange, x: PixelRange
    ) -> None:
        """Decode each tile or compressed strip that the window touches."""
        keyframe = plane.keyframe
        planar, _, height, width, _ = keyframe.shaped
        high, wide = _segment_size(keyframe)
        across, down = -(-width // wide), -(-height // high)
        for sample in sorted({sample for _, sample in targets}) if planar > 1 else [0]:
            positions = [(p, 0 if planar > 1 else s) for p, s in targets if planar == 1 or s == sample]
            for row in range(y[0] // high, -(-y[1] // high)):
                for column in range(x[0] // wide, -(-x[1] // wide)):
                    number = (sample * down + row) * across + column
                    top, left = row * high, column * wide
                    rows = slice(max(y[0], top), min(y[1], top + high))
                    columns = slice(max(x[0], left), min(x[1], left + wide))
                    part = self._decode(plane, number)
                    place = _shift(rows, y[0]), _shift(columns, x[0])
                    inside = _shift(rows, top), _shift(columns, left)
                    for position, inner in positions:
                        values[(position, *place)] = keyframe.nodata if part is None else part[(*inside, inner)]

    def _decode(self, plane: _Plane, number: int) -> Array | None:
        """Decode one tile or strip, axes ``YXS``; return None if the file has no data for it."""
        offset, size = plane.offsets[number], plane.sizes[number]
        if size == 0:
            return None
        decoded, _, _ = plane.keyframe.decode(self._read_bytes(offset, size), number, **plane.options)
        part: Array = decoded[0]
        return part


def _shift(part: slice, by: int) -> slice:
    return slice(part.start - by, part.stop - by)


class TiffImages:
    """An open TIFF file; see `septa.images.sources.source.ImageFile`.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds no image.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with watch_tiff_errors(path):
            self._file = open_tiff_file(path)
            try:
                self._images = find_tiff_images(path, self._file)
            except BaseException:
                self.close()
                raise
        self.images = len(self._images)

    def describe_images(self) -> str:
        """Return the number and the sizes of the images, printable."""
        return describe_sizes(self._images)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def count_levels(self, image: int) -> int:
        """Return the number of levels of an image that exists."""
        return len(self._images[image].levels)

    def open_level(self, image: int, level: int) -> ImageLevel | None:
        """Open one level of one image, both of which exist.

        Returns
        -------
        ImageLevel or None
            None for a kind of TIFF of which only whole planes can be decoded. Otherwise the file is closed through
            the reader.

        Raises
        ------
        InputError
            If the file is damaged, or has other axes than septa reads.
        """
        with watch_tiff_errors(self._path):
            layouts = [find_layout(self._path, series) for series in self._images[image].levels]
            if any(_needs_whole_planes(self._file, layout) for layout in (layouts[0], layouts[level])):
                return None
            return self._describe(layouts, image, level)

    def _describe(self, layouts: Sequence[TiffLayout], image: int, level: int) -> ImageLevel:
        path, file, found = self._path, self._file, self._images[image]
        axes_of_levels = [_find_axes(path, layout) for layout in layouts]
        axes, full, layout = axes_of_levels[level], layouts[0], layouts[level]
        if any(one.sizes != axes_of_levels[0].sizes for one in axes_of_levels):
            raise InputError(path, "the levels of its pyramid have other axes than the image", "Export it again")
        keyframe = layout.series.keyframe
        check_compression(path, keyframe)
        frames, slices, channels = axes.sizes
        chunk = (1, layout.width) if _is_plain(keyframe) else _segment_size(keyframe)
        samples = keyframe.shaped[4]
        calibration = read_calibration(file, found.first.keyframe, found.ome)
        scale = full.height / layout.height, full.width / layout.width
        names = calibration.channel_names
        if len(names) != channels or not any(names):
            names = RGB_NAMES if channels == samples == 3 else ()
        return ImageLevel(
            path=path,
            data_path=path,
            axes="".join(axis for axis, size in zip("TCZ", (frames, channels, slices)) if size > 1) + "YX",
            shape=(frames, channels, slices, layout.height, layout.width),
            stored=keyframe.dtype or np.dtype("V"),
            image=image,
            images=self.images,
            level=level,
            levels=tuple((one.height, one.width) for one in layouts),
            chunk=chunk,
            chunk_samples=math.prod(chunk) * samples,
            calibration=calibration.rescale((1.0, *scale)),
            notes=(*found.notes, *axes.notes),
            channel_names=names,
            reader=_TiffReader(path, file, layout, _number_directories(layout, axes)),
        )


def _needs_whole_planes(file: Any, layout: TiffLayout) -> bool:
    """Return True for palettes, turned images, and volumes within one directory, whose planes are decoded whole."""
    keyframe = layout.series.keyframe
    turned = keyframe.tags.valueof(ORIENTATION_TAG, 1) in range(2, 9)
    volume = layout.inner_pages > 1 or keyframe.shaped[1] > 1
    return turned or volume or read_palette(file, layout) is not None or int(keyframe.tiledepth) > 1


def _is_plain(keyframe: Any) -> bool:
    """Return True if rows lie in the file uncompressed."""
    packed = keyframe.dtype is None or keyframe.dtype.itemsize * 8 != keyframe.bitspersample
    altered = keyframe.compression != 1 or keyframe.predictor != 1 or keyframe.fillorder != 1
    return not (keyframe.is_tiled or packed or altered or keyframe.is_subsampled)


def _segment_size(keyframe: Any) -> tuple[int, int]:
    if keyframe.is_tiled:
        return int(keyframe.tilelength), int(keyframe.tilewidth)
    return _count_rows_of_strip(keyframe), int(keyframe.imagewidth)


def _count_rows_of_strip(keyframe: Any) -> int:
    return max(1, min(int(keyframe.rowsperstrip), int(keyframe.imagelength)))


def _count_strips(keyframe: Any) -> int:
    return -(-int(keyframe.imagelength) // _count_rows_of_strip(keyframe))


def _list_directories(layout: TiffLayout) -> tuple[str, tuple[int, ...]]:
    """Return the axes over directories and their sizes; several series are the first axis, without a name."""
    return "I" + layout.axes[: layout.split], (len(layout.alike), *layout.shape[: layout.split])


def _find_axes(path: Path, layout: TiffLayout) -> _Axes:
    """Find which of the axes over directories is T and which is Z; a stack of unnamed pages is Z."""
    axes, shape = _list_directories(layout)
    roles = {axis: axes.index(axis) for axis in "TZ" if axis in axes}
    notes = []
    others = [i for i, axis in enumerate(axes) if axis not in "TZ" + CHANNEL_AXES and shape[i] > 1]
    for i in others:
        free = [axis for axis in "ZT" if axis not in roles or shape[roles[axis]] == 1]
        if len(others) > 1 or not free:
            problem = f"the axes {layout.axes} are more than T, C, Z, Y and X"
            raise InputError(path, problem, "Save fewer axes in one file")
        roles[free[0]] = i
        if axes[i] not in UNNAMED_AXES:
            notes.append(f"its axis {axes[i]} is read as {free[0]}")
    frames, slices = (shape[roles[axis]] if axis in roles else 1 for axis in "TZ")
    return _Axes((frames, slices, layout.channels), roles, tuple(notes))


def _number_directories(layout: TiffLayout, axes: _Axes) -> NDArray[np.int64]:
    """Return the numbers of the directories, axes (T, Z, channel)."""
    frames, slices, _ = axes.sizes
    _, shape = _list_directories(layout)
    numbers = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    outer = [axes.roles[axis] for axis in "TZ" if axis in axes.roles]
    rest = [axis for axis in range(len(shape)) if axis not in outer]
    return numbers.transpose(outer + rest).reshape(frames, slices, -1)
