"""Read windows of a zarr array of format 2 or 3, sharded or not, decoding only the chunks that they touch.

This follows the zarr specifications and is safe for untrusted files. Types and codecs come from a fixed list of plain
numbers and lossless compressors, so nothing is ever unpickled. A chunk never decodes to more than the metadata
promises. As the specifications say, a chunk without a file has the fill value; a damaged one is an error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from septa.images._info import Array, DamagedDataError, make_damage_error, translate_decoder_errors
from septa.images._large_chunk import LARGE_BYTES, LargeChunk
from septa.images.sources.places import Place, ZarrFile
from septa.images.sources.zarr_codecs import Codec, check_crc32c, decompress, limit_packed_size
from septa.prefetch import map_ahead

_ABSENT = 2**64 - 1


@dataclass(frozen=True)
class Shard:
    """The division of a shard file into chunks, which an index at its end or start locates.

    Attributes
    ----------
    chunk
        Samples of a chunk along each axis.
    codecs
        Decoders of a chunk.
    checksum
        True if the index has a checksum.
    at_end
        True if the index is at the end of the file.
    """

    chunk: tuple[int, ...]
    codecs: tuple[Codec, ...]
    checksum: bool
    at_end: bool


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A chunk in an open file: its index, its place in the file, and its decoders."""

    index: tuple[int, ...]
    place: Place
    file: ZarrFile
    begin: int
    count: int
    codecs: tuple[Codec, ...]


@dataclass(frozen=True, kw_only=True)
class ZarrArray:
    """A zarr array: its checked metadata, and the reading of windows.

    Attributes
    ----------
    place
        Folder of the array.
    shape
        Samples along each axis.
    dtype
        Type of the samples, in the byte order of the file.
    stored
        Samples along each axis of the part that one file holds: a chunk, or a shard.
    fill
        Value of the samples that no file holds.
    prefix, separator
        Parts of the names of chunk files.
    order
        Order of the axes inside a chunk.
    codecs
        Decoders of a chunk.
    shard
        Division of each file, or None if a file holds one chunk.
    names
        Names of the axes in zarr 3 metadata, or None.
    attributes
        Attributes of the user.
    large_chunk
        The last decoded chunk, if chunks are large.
    """

    place: Place
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored: tuple[int, ...]
    fill: Any
    prefix: str
    separator: str
    order: tuple[int, ...]
    codecs: tuple[Codec, ...]
    shard: Shard | None
    names: tuple[Any, ...] | None
    attributes: Mapping[str, Any]
    large_chunk: LargeChunk = field(default_factory=LargeChunk, repr=False, compare=False)

    @property
    def chunk(self) -> tuple[int, ...]:
        """Samples along each axis that are decoded at once."""
        return self.shard.chunk if self.shard else self.stored

    def read(self, window: Sequence[tuple[int, int]]) -> Array:
        """Return the values of a window; only the chunks that it touches are decoded.

        Parameters
        ----------
        window
            (first, end) along each axis.

        Returns
        -------
        ndarray
            Values of type `dtype`, with the axes of the array.

        Raises
        ------
        InputError
            If a chunk is damaged.
        """
        values = np.full([end - begin for begin, end in window], self.fill, self.dtype)
        for index, chunk in map_ahead(self._read_part, self._list_parts(window), self.threads):
            if chunk is not None:
                _paste(values, window, chunk, index, self.chunk)
        return values

    @property
    def threads(self) -> int:
        """Number of chunks that are read and decoded at once: several only where each request takes long."""
        return 1 if math.prod(self.chunk) * self.dtype.itemsize > LARGE_BYTES else self.place.threads

    def list_keys(self, window: Sequence[tuple[int, int]]) -> Iterator[str]:
        """Yield the names of the chunks or shards that a window touches, also those that have no file."""
        return map(self._name_file, _list_touched(window, self.stored))

    def _name_file(self, index: tuple[int, ...]) -> str:
        parts = self.separator.join(map(str, index))
        return f"{self.prefix}{self.separator}{parts}" if self.prefix else parts

    def _limit_bytes(self) -> int:
        return limit_packed_size(math.prod(self.chunk) * self.dtype.itemsize)

    def _list_parts(self, window: Sequence[tuple[int, int]]) -> Iterator[_Part]:
        """Yield the chunks that a window touches and that have a file; a file is open until the next one is asked for.

        Raises
        ------
        InputError
            If the index of a shard is damaged.
        """
        for index in _list_touched(window, self.stored):
            place = self.place / self._name_file(index)
            with translate_decoder_errors(place.location, "zarr"):
                try:
                    file = place.open_file()
                except FileNotFoundError:
                    continue
            with file:
                if self.shard is None:
                    yield _Part(
                        index=index, place=place, file=file, begin=0, count=self._limit_bytes(), codecs=self.codecs
                    )
                else:
                    yield from self._list_parts_of_shard(self.shard, place, file, index, window)

    def _read_part(self, part: _Part) -> tuple[tuple[int, ...], Array | None]:
        """Return the index of a chunk and its values; None if a file at an address does not exist."""
        with translate_decoder_errors(part.place.location, "zarr"):
            try:
                return part.index, self._decode_chunk(part)
            except FileNotFoundError:
                if self.shard is not None:
                    raise
                return part.index, None

    def _decode_chunk(self, part: _Part) -> Array:
        shape = tuple(self.chunk[axis] for axis in self.order)
        size = math.prod(shape) * self.dtype.itemsize

        def decode() -> Array:
            plain = decompress(part.file.read(part.begin, part.count), part.codecs, size)
            return np.frombuffer(plain, self.dtype).reshape(shape).transpose(np.argsort(self.order))

        if size <= LARGE_BYTES:
            return decode()
        chunk: Array = self.large_chunk.get(part.index, decode)
        return chunk

    def _list_parts_of_shard(
        self, division: Shard, place: Place, file: ZarrFile, shard: tuple[int, ...], window: Sequence[tuple[int, int]]
    ) -> Iterator[_Part]:
        with translate_decoder_errors(place.location, "zarr"):
            grid = tuple(outer // inner for outer, inner in zip(self.stored, division.chunk))
            index_bytes = 16 * math.prod(grid) + 4 * division.checksum
            try:
                size = file.size
            except FileNotFoundError:
                return
            if size < index_bytes:
                raise DamagedDataError("the file ends early")
            index = file.read(size - index_bytes if division.at_end else 0, index_bytes, keep=True)
            index = check_crc32c(index) if division.checksum else index
            places = np.frombuffer(index, "<u8").reshape(*grid, 2)
        first = [number * count for number, count in zip(shard, grid)]
        inside = [
            (max(begin, number * outer), min(end, (number + 1) * outer))
            for (begin, end), number, outer in zip(window, shard, self.stored)
        ]
        for chunk in _list_touched(inside, division.chunk):
            offset, count = map(int, places[tuple(number - start for number, start in zip(chunk, first))])
            if offset == count == _ABSENT:
                continue
            if offset + count > size or count > self._limit_bytes():
                raise make_damage_error(place.location, "zarr", "the file ends early or its index is damaged")
            yield _Part(index=chunk, place=place, file=file, begin=offset, count=count, codecs=division.codecs)


def _list_touched(window: Sequence[tuple[int, int]], chunk: tuple[int, ...]) -> Any:
    return itertools.product(*(range(begin // size, -(-end // size)) for (begin, end), size in zip(window, chunk)))


def _paste(values: Array, window: Any, chunk: Array, index: tuple[int, ...], size: tuple[int, ...]) -> None:
    """Copy the part of a chunk that lies in the window."""
    target, part = [], []
    for (begin, end), number, length in zip(window, index, size):
        start = number * length
        low, high = max(begin, start), min(end, start + length)
        target.append(slice(low - begin, high - begin))
        part.append(slice(low - start, high - start))
    values[tuple(target)] = chunk[tuple(part)]
