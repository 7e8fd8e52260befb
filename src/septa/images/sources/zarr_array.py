"""Read a zarr array of format 2 or 3, sharded or not: check its metadata, and decode its chunks one at a time.

This follows the zarr specifications and is safe for untrusted files. Types and codecs come from a fixed list of plain
numbers and lossless compressors, so nothing is ever unpickled. A chunk never decodes to more than the metadata
promises. As the specifications say, a chunk without a file has the fill value; a damaged one is an error.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images._info import Array, make_damage_error, translate_decoder_errors
from septa.images._large_chunk import LARGE_BYTES, LargeChunk
from septa.images.sources.zarr_codecs import (
    Codec,
    UnsupportedMetadataError,
    check_crc32c,
    decompress,
    find_codec_v2,
    limit_packed_size,
    parse_codecs_v3,
)

_JSON_BYTES = 64 * 2**20
_LONGEST_AXIS = 2**40
_MOST_AXES = 5
_CHUNKS_OF_A_SHARD = 2**24
_ABSENT = 2**64 - 1
_TYPES_V3 = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
}


@dataclass(frozen=True)
class _Shard:
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
class ZarrArray:
    """A zarr array: its checked metadata, and the reading of windows.

    Attributes
    ----------
    path
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

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored: tuple[int, ...]
    fill: Any
    prefix: str
    separator: str
    order: tuple[int, ...]
    codecs: tuple[Codec, ...]
    shard: _Shard | None
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
        for index in _list_touched(window, self.stored):
            file = self._locate_file(index)
            with translate_decoder_errors(file, "zarr"):
                try:
                    stream = file.open("rb")
                except FileNotFoundError:
                    continue
                with stream:
                    if self.shard:
                        self._read_shard(file, stream, index, window, values)
                    else:
                        chunk = self._decode_chunk(stream, self._limit_bytes(), index, self.codecs)
                        _paste(values, window, chunk, index, self.stored)
        return values

    def list_files(self, window: Sequence[tuple[int, int]]) -> Iterator[Path]:
        """Yield the files of the chunks or shards that a window touches, also those that do not exist."""
        return map(self._locate_file, _list_touched(window, self.stored))

    def _locate_file(self, index: tuple[int, ...]) -> Path:
        parts = self.separator.join(map(str, index))
        return self.path / (f"{self.prefix}{self.separator}{parts}" if self.prefix else parts)

    def _limit_bytes(self) -> int:
        return limit_packed_size(math.prod(self.chunk) * self.dtype.itemsize)

    def _decode_chunk(self, stream: Any, count: int, index: tuple[int, ...], codecs: tuple[Codec, ...]) -> Array:
        """Decode the chunk of an index from the next bytes of its file, at most ``count``."""
        shape = tuple(self.chunk[axis] for axis in self.order)
        size = math.prod(shape) * self.dtype.itemsize

        def decode() -> Array:
            plain = decompress(stream.read(count), codecs, size)
            return np.frombuffer(plain, self.dtype).reshape(shape).transpose(np.argsort(self.order))

        if size <= LARGE_BYTES:
            return decode()
        chunk: Array = self.large_chunk.get(index, decode)
        return chunk

    def _read_shard(self, file: Path, stream: Any, shard: tuple[int, ...], window: Any, values: Array) -> None:
        assert self.shard
        grid = tuple(outer // inner for outer, inner in zip(self.stored, self.shard.chunk))
        size = file.stat().st_size
        index_bytes = 16 * math.prod(grid) + 4 * self.shard.checksum
        if size < index_bytes:
            raise make_damage_error(file, "zarr", "the file ends early")
        stream.seek(size - index_bytes if self.shard.at_end else 0)
        index = check_crc32c(stream.read(index_bytes)) if self.shard.checksum else stream.read(index_bytes)
        places = np.frombuffer(index, "<u8").reshape(*grid, 2)
        first = [number * count for number, count in zip(shard, grid)]
        inside = [
            (max(begin, number * outer), min(end, (number + 1) * outer))
            for (begin, end), number, outer in zip(window, shard, self.stored)
        ]
        for chunk in _list_touched(inside, self.shard.chunk):
            offset, count = map(int, places[tuple(number - start for number, start in zip(chunk, first))])
            if offset == count == _ABSENT:
                continue
            if offset + count > size or count > self._limit_bytes():
                raise make_damage_error(file, "zarr", "the file ends early or its index is damaged")
            stream.seek(offset)
            values_of_chunk = self._decode_chunk(stream, count, chunk, self.shard.codecs)
            _paste(values, window, values_of_chunk, chunk, self.shard.chunk)


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


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the contents of a metadata file, or None if there is no file.

    Raises
    ------
    InputError
        If the file cannot be read, or is not a JSON object.
    """
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= _JSON_BYTES else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problem = f"the file cannot be read ({error.strerror})"
        raise InputError(path, problem, "Check the path and its permissions") from error
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(path, "the file is not zarr metadata", "Copy or export the image again")
    return found


def open_array(path: Path) -> ZarrArray | None:
    """Check the metadata of the array in a folder; return None if the folder holds no array.

    Raises
    ------
    InputError
        If the metadata is damaged, or describes what septa does not read.
    """
    for name, parse in (("zarr.json", _parse_v3), (".zarray", _parse_v2)):
        metadata = read_json(path / name)
        if metadata is None or (name == "zarr.json" and metadata.get("node_type") != "array"):
            continue
        try:
            return parse(path, metadata)
        except InputError:
            raise
        except (UnsupportedMetadataError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            problem = f"septa does not read this zarr metadata ({_explain(error)})"
            raise InputError(path / name, problem, "Write the array again, for example with zarr-python") from error
    return None


def _explain(error: Exception) -> str:
    """Return the fault of metadata in septa's words."""
    if isinstance(error, UnsupportedMetadataError):
        return str(error)
    if isinstance(error, KeyError):
        return f"its entry {error.args[0]!r:.40} is missing"
    return "an entry has a wrong type or value"


def _check_dtype(path: Path, code: object, valid: bool) -> None:
    if not valid:
        problem = f"septa does not read samples of type {code!r:.60}"
        raise InputError(path, problem, "Convert the array to integers or floats")


def _parse_v2(path: Path, found: dict[str, Any]) -> ZarrArray:
    _require(found["zarr_format"] == 2, f"zarr_format {found['zarr_format']!r}")
    code = found["dtype"]
    _check_dtype(path, code, isinstance(code, str) and bool(re.fullmatch(r"[<>|](b1|[iu][1248]|f[248])", code)))
    _require(not found.get("filters"), f"filters {found.get('filters')!r:.80}")
    _require(found["order"] in ("C", "F"), f"order {found['order']!r}")
    dtype = np.dtype(code)
    shape = _parse_sizes(found["shape"], 0)
    chunk = _parse_sizes(found["chunks"], 1)
    _require(len(shape) == len(chunk), "chunks and a shape of different dimension")
    axes = tuple(range(len(shape)))
    return ZarrArray(
        path=path,
        shape=shape,
        dtype=dtype,
        stored=chunk,
        fill=_parse_fill(found["fill_value"], dtype),
        prefix="",
        separator=_parse_separator(found.get("dimension_separator", ".")),
        order=axes if found["order"] == "C" else axes[::-1],
        codecs=find_codec_v2(found["compressor"]),
        shard=None,
        names=None,
        attributes=read_json(path / ".zattrs") or {},
    )


def _parse_v3(path: Path, found: dict[str, Any]) -> ZarrArray:
    _require(found["zarr_format"] == 3, f"zarr_format {found['zarr_format']!r}")
    name = found["data_type"]
    _check_dtype(path, name, isinstance(name, str) and name in _TYPES_V3)
    _require(not found.get("storage_transformers"), "storage_transformers")
    _require(found["chunk_grid"]["name"] == "regular", f"chunk_grid {found['chunk_grid']['name']!r}")
    shape = _parse_sizes(found["shape"], 0)
    stored = _parse_sizes(found["chunk_grid"]["configuration"]["chunk_shape"], 1)
    _require(len(shape) == len(stored), "chunks and a shape of different dimension")
    keys = found["chunk_key_encoding"]
    _require(keys["name"] in ("default", "v2"), f"chunk_key_encoding {keys['name']!r}")
    default = keys["name"] == "default"
    shard, chain = _parse_shard(found["codecs"], stored)
    order, big, codecs = parse_codecs_v3(chain, len(shape))
    names = found.get("dimension_names")
    attributes = found.get("attributes", {})
    _require(isinstance(attributes, dict), "attributes that are not an object")
    dtype = np.dtype(name)
    return ZarrArray(
        path=path,
        shape=shape,
        dtype=dtype.newbyteorder(">" if big else "<"),
        stored=stored,
        fill=_parse_fill(found["fill_value"], dtype),
        prefix="c" if default else "",
        separator=_parse_separator(keys.get("configuration", {}).get("separator", "/" if default else ".")),
        order=order,
        codecs=codecs,
        shard=shard and _Shard(shard.chunk, codecs, shard.checksum, shard.at_end),
        names=tuple(names) if isinstance(names, list) and len(names) == len(shape) else None,
        attributes=attributes,
    )


def _parse_shard(codecs: Any, stored: tuple[int, ...]) -> tuple[_Shard | None, Any]:
    """Return the division of the shards, or None, and the codecs of a chunk."""
    sharded = any(codec["name"] == "sharding_indexed" for codec in codecs)
    if not sharded:
        return None, codecs
    _require(len(codecs) == 1, "codecs around those of a shard")
    settings = codecs[0]["configuration"]
    chunk = _parse_sizes(settings["chunk_shape"], 1)
    divides = len(chunk) == len(stored) and not any(outer % inner for outer, inner in zip(stored, chunk))
    _require(divides, f"shards of {stored} that chunks of {chunk} do not divide")
    count = math.prod(outer // inner for outer, inner in zip(stored, chunk))
    _require(count <= _CHUNKS_OF_A_SHARD, f"{count} chunks in a shard")
    index = [codec["name"] for codec in settings["index_codecs"]]
    little = settings["index_codecs"][0].get("configuration", {}).get("endian", "little") == "little"
    _require(index in (["bytes"], ["bytes", "crc32c"]) and little, f"index_codecs {index!r:.80}")
    location = settings.get("index_location", "end")
    _require(location in ("start", "end"), f"index_location {location!r}")
    return _Shard(chunk, (), len(index) == 2, location == "end"), settings["codecs"]


def _parse_sizes(found: Any, least: int) -> tuple[int, ...]:
    _require(isinstance(found, list) and len(found) <= _MOST_AXES, f"sizes {found!r:.60}")
    for size in found:
        _require(type(size) is int and least <= size <= _LONGEST_AXIS, f"sizes {found!r:.60}")
    return tuple(found)


def _parse_separator(found: Any) -> str:
    _require(found in (".", "/"), f"separator {found!r:.20}")
    return str(found)


def _parse_fill(found: Any, dtype: np.dtype[Any]) -> Any:
    """Return the fill value, given as a number or as the name of one that JSON lacks; null is 0."""
    if isinstance(found, str):
        _require(dtype.kind == "f", f"fill_value {found!r:.40}")
        if found.startswith("0x"):
            bits = int(found, 16).to_bytes(dtype.itemsize, "little")
            return np.frombuffer(bits, dtype.newbyteorder("<"))[0]
        _require(found in ("NaN", "Infinity", "-Infinity"), f"fill_value {found!r:.40}")
        return dtype.type(float(found.replace("Infinity", "inf")))
    _require(found is None or isinstance(found, bool | int | float), f"fill_value {found!r:.40}")
    value = 0 if found is None else found
    _require(dtype.kind == "f" or value == int(value), f"fill_value {found!r:.40}")
    return dtype.type(value) if dtype.kind == "f" else np.array(int(value), dtype.newbyteorder("="))[()]


def _require(holds: bool, entry: str) -> None:
    """Refuse metadata in which ``entry`` is not as septa reads it."""
    if not holds:
        raise UnsupportedMetadataError(entry)
