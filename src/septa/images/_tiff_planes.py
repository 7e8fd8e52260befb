"""Decode windows and whole directories of TIFF files: the one place that turns strips and tiles into samples."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from septa.errors import InputError
from septa.images._info import Array, make_damage_error
from septa.images._large_chunk import LARGE_BYTES, LargeChunk
from septa.images._photometric import JPEG_COMPRESSIONS

_PLANES_REMEMBERED = 64
_JPEG, _LOSSY_DNG = 7, 34892
_CCITT = (2, 3, 4)
_RUN_BYTES = 1 << 20
"""Bytes of uncompressed rows that are read at once."""
_READ_BESIDE = 16
"""Share of a row, as a divisor, from which on a window reads the whole row rather than its part."""
_JPEG_END = b"\xff\xd9"
# A cut CCITT stream takes these bits for runs of black and white; a complete one ends before them.
_CCITT_TAIL = b"\x3f\x9f\xcf\xe7" * 64

Range = tuple[int, int]
"""First row or column of a window, and the one after its last."""


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """One directory: its series' first one, the places of its strips or tiles, and the options to decode them.

    ``run`` is True if one run of bytes holds all samples, uncompressed.
    """

    keyframe: Any
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    run: bool
    options: dict[str, Any]


class DirectoryReader:
    """A reader of the directories of some series that are alike, inside `septa.images._tiff.watch_tiff_errors`.

    Several threads may read at once: the lock guards the position in the file and the state of tifffile, never the
    decoding.

    Parameters
    ----------
    path
        Path that errors name.
    file, alike
        File and series, as tifffile describes them.
    directories
        Number of directories that the axes of each series count.
    """

    def __init__(self, path: Path, file: Any, alike: Sequence[Any], directories: int) -> None:
        self._path = path
        self._file = file
        self._alike = alike
        self._directories = directories
        self._lock = threading.RLock()
        self._large_chunk = LargeChunk()
        self._find_plane = lru_cache(_PLANES_REMEMBERED)(self._look_up_plane)
        for series in alike:
            check_compression(path, series.keyframe)

    def close(self) -> None:
        """Close the file."""
        self._large_chunk.clear()
        with self._lock:
            self._file.close()

    def read_window(self, number: int, samples: Sequence[int], y: Range, x: Range) -> Array:
        """Decode a window of a directory without depth.

        Returns
        -------
        ndarray
            Values as stored, axes (sample, Y, X), in the byte order of the machine.
        """
        with self._lock:
            plane = self._find_plane(number)
        values = np.empty((len(samples), y[1] - y[0], x[1] - x[0]), plane.keyframe.dtype.newbyteorder("="))
        if is_plain(plane.keyframe):
            self._read_rows(plane, values, samples, y, x)
        else:
            self._read_segments(plane, values, samples, y, x)
        return values

    def read_whole(self, number: int) -> Array:
        """Decode a directory, axes as `tifffile.TiffPage.shaped`: (separate sample, depth, Y, X, sample)."""
        with self._lock:
            plane = self._find_plane(number)
        keyframe = plane.keyframe
        if plane.run:
            data = self._read_bytes(plane.offsets[0], keyframe.nbytes)
            stored = np.frombuffer(data, self._find_stored_dtype(plane)).reshape(keyframe.shaped)
            return stored.astype(keyframe.dtype.newbyteorder("="))
        values = np.empty(keyframe.shaped, keyframe.dtype.newbyteorder("="))
        for segment in range(math.prod(keyframe.chunked)):
            part, place, shape = self._decode(plane, segment)
            ends = [min(begin + size, end) for begin, size, end in zip(place[1:], shape, keyframe.shaped[1:])]
            inside = tuple(slice(0, end - begin) for begin, end in zip(place[1:], ends))
            values[place[0]][tuple(map(slice, place[1:], ends))] = part[inside]
        return values

    def _find_stored_dtype(self, plane: _Plane) -> np.dtype[Any]:
        dtype: np.dtype[Any] = plane.keyframe.dtype.newbyteorder(self._file.byteorder)
        return dtype

    def _look_up_plane(self, number: int) -> _Plane:
        series_number, number = divmod(number, self._directories)
        series = self._alike[series_number]
        keyframe = series.keyframe
        if len(series) == self._directories:
            page = series[number]
            if page is None:
                remedy = "Export the image again, as one file"
                raise InputError(self._path, f"plane {number} is missing from the file", remedy)
            tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
            options = tables if int(keyframe.compression) in JPEG_COMPRESSIONS else {}
            keyframe.init_decode()
            return self._check_plane(keyframe, tuple(page.dataoffsets), tuple(page.databytecounts), options)
        if len(series) == 1 and series.dataoffset is not None and is_plain(keyframe):
            # One directory describes all planes, which follow each other uncompressed (large ImageJ stacks).
            start = series.dataoffset + number * keyframe.nbytes
            return _Plane(keyframe=keyframe, offsets=(start,), sizes=(keyframe.nbytes,), run=True, options={})
        problem = f"its pages need more than the {len(series)} planes that it holds"
        raise make_damage_error(self._path, "tiff", problem)

    def _check_plane(
        self, keyframe: Any, offsets: tuple[int, ...], sizes: tuple[int, ...], options: dict[str, Any]
    ) -> _Plane:
        """Return a plane all of whose strips or tiles are listed."""
        parts = math.prod(keyframe.chunked)
        plane = _Plane(keyframe=keyframe, offsets=offsets, sizes=sizes, run=False, options=options)
        if is_plain(keyframe) and offsets and sizes and (len(offsets) == 1 or keyframe.is_stk or keyframe.is_lsm):
            if parts == 1:
                self._check_segment(plane, 0, keyframe.nbytes)
            return replace(plane, offsets=offsets[:1], sizes=(keyframe.nbytes,), run=True)
        if len(offsets) < parts or len(sizes) < parts:
            raise make_damage_error(self._path, "tiff", "the file ends early")
        return plane

    def _check_segment(self, plane: _Plane, segment: int, least: int = 0) -> None:
        """Refuse a strip or tile without data, or with fewer bytes than it needs."""
        if plane.offsets[segment] == 0 or plane.sizes[segment] == 0:
            remedy = "Save the image again with all its pixels; sparse TIFF files leave parts out"
            raise InputError(self._path, f"{_name_segment(plane, segment)} of the image has no data", remedy)
        if plane.sizes[segment] < least:
            raise self._make_cut_error(plane, segment)

    def _make_cut_error(self, plane: _Plane, segment: int) -> InputError:
        return make_damage_error(self._path, "tiff", f"{_name_segment(plane, segment)} is cut short")

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

    def _read_rows(self, plane: _Plane, values: Array, samples: Sequence[int], y: Range, x: Range) -> None:
        """Read uncompressed strips: the bytes of each row of the window are contiguous in the file."""
        planar, _, height, width, contig = plane.keyframe.shaped
        dtype = self._find_stored_dtype(plane)
        pixel = contig * dtype.itemsize
        rows = height if plane.run else _count_rows_of_strip(plane.keyframe)
        down = -(-height // rows)
        for separate, targets in _group_samples(samples, planar):
            for strip in range(y[0] // rows, -(-y[1] // rows)):
                segment = 0 if plane.run else separate * down + strip
                start = plane.offsets[segment] + plane.run * separate * height * width * pixel
                top, bottom = max(y[0], strip * rows), min(y[1], (strip + 1) * rows)
                if not plane.run:
                    self._check_segment(plane, segment, (bottom - strip * rows) * width * pixel)
                for begin, read, data in self._read_runs(start, strip * rows, (top, bottom), x, width * pixel, pixel):
                    lines = np.frombuffer(data, dtype).reshape(-1, read[1] - read[0], contig)
                    part = lines[:, x[0] - read[0] : x[1] - read[0]]
                    for position, sample in targets:
                        values[position, begin - y[0] : begin - y[0] + len(part)] = part[:, :, sample]

    def _read_runs(
        self, start: int, first: int, y: Range, x: Range, row: int, pixel: int
    ) -> Iterator[tuple[int, Range, bytes]]:
        """Yield the first row, the columns and the bytes of runs of rows of a strip.

        Rows are read whole, many at once, unless the window is much narrower than they are.
        """
        whole = _READ_BESIDE * (x[1] - x[0]) * pixel >= row
        left, right = (0, row // pixel) if whole else x
        step = max(1, _RUN_BYTES // row) if whole else 1
        for begin in range(*y, step):
            rows = min(step, y[1] - begin)
            data = self._read_bytes(start + (begin - first) * row + left * pixel, rows * (right - left) * pixel)
            yield begin, (left, right), data

    def _read_segments(self, plane: _Plane, values: Array, samples: Sequence[int], y: Range, x: Range) -> None:
        """Decode each tile or compressed strip that the window touches."""
        planar, _, height, width, _ = plane.keyframe.shaped
        high, wide = segment_size(plane.keyframe)
        across, down = -(-width // wide), -(-height // high)
        for separate, targets in _group_samples(samples, planar):
            for row in range(y[0] // high, -(-y[1] // high)):
                for column in range(x[0] // wide, -(-x[1] // wide)):
                    segment = (separate * down + row) * across + column
                    top, left = row * high, column * wide
                    rows = slice(max(y[0], top), min(y[1], top + high))
                    columns = slice(max(x[0], left), min(x[1], left + wide))
                    part_yxs = self._decode(plane, segment)[0][0]
                    place = _shift(rows, y[0]), _shift(columns, x[0])
                    inside = _shift(rows, top), _shift(columns, left)
                    for position, sample in targets:
                        values[(position, *place)] = part_yxs[(*inside, sample)]

    def _decode(self, plane: _Plane, segment: int) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
        """Decode one strip or tile, axes (depth, Y, X, sample); return its place and shape, too."""
        self._check_segment(plane, segment)
        keyframe = plane.keyframe
        if math.prod(segment_size(keyframe)) * keyframe.shaped[4] * keyframe.dtype.itemsize <= LARGE_BYTES:
            return self._decode_anew(plane, segment)
        decoded: tuple[Array, tuple[int, ...], tuple[int, ...]] = self._large_chunk.get(
            plane.offsets[segment], lambda: self._decode_anew(plane, segment)
        )
        return decoded

    def _decode_anew(self, plane: _Plane, segment: int) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
        data = self._read_bytes(plane.offsets[segment], plane.sizes[segment])
        compression = int(plane.keyframe.compression)
        # libjpeg fills what is missing with grey, and the CCITT decoder with white.
        if compression in (_JPEG, _LOSSY_DNG) and data.rfind(_JPEG_END) < 0:
            raise self._make_cut_error(plane, segment)
        part, place, shape = plane.keyframe.decode(data, segment, **plane.options)
        if compression in _CCITT and not _is_complete(plane, segment, data, part):
            raise self._make_cut_error(plane, segment)
        return part, place, shape


def _is_complete(plane: _Plane, segment: int, data: bytes, part: Array) -> bool:
    """Return False if a CCITT stream ends before its last row, so that further bits change what it shows."""
    try:
        longer, _, _ = plane.keyframe.decode(data + _CCITT_TAIL, segment)
    except Exception:
        # Any fault means that the added bits were read.
        return False
    return np.array_equal(part, longer)


def _name_segment(plane: _Plane, segment: int) -> str:
    return f"{'tile' if plane.keyframe.is_tiled else 'strip'} {segment}"


def check_compression(path: Path, keyframe: Any) -> None:
    """Refuse a directory whose compression cannot be decoded."""
    if keyframe.compression != 1 and keyframe.compression not in tifffile.TIFF.DECOMPRESSORS:
        problem = f"septa does not read TIFF compression {int(keyframe.compression)}"
        raise InputError(path, problem, "Export the image without compression, or with Deflate or LZW")


def is_plain(keyframe: Any) -> bool:
    """Return True if rows lie in the file uncompressed."""
    packed = keyframe.dtype is None or keyframe.dtype.itemsize * 8 != keyframe.bitspersample
    altered = keyframe.compression != 1 or keyframe.predictor != 1 or keyframe.fillorder != 1
    return not (keyframe.is_tiled or packed or altered or keyframe.is_subsampled)


def segment_size(keyframe: Any) -> tuple[int, int]:
    """Return height and width of a tile or strip in pixels."""
    if keyframe.is_tiled:
        return int(keyframe.tilelength), int(keyframe.tilewidth)
    return _count_rows_of_strip(keyframe), int(keyframe.imagewidth)


def _count_rows_of_strip(keyframe: Any) -> int:
    return max(1, min(int(keyframe.rowsperstrip), int(keyframe.imagelength)))


def _group_samples(samples: Sequence[int], planar: int) -> list[tuple[int, list[tuple[int, int]]]]:
    """Return the positions of samples in the result and in a decoded part, for each plane of separate samples."""
    if planar == 1:
        return [(0, list(enumerate(samples)))]
    return [(one, [(i, 0) for i, sample in enumerate(samples) if sample == one]) for one in sorted(set(samples))]


def _shift(part: slice, by: int) -> slice:
    return slice(part.start - by, part.stop - by)
