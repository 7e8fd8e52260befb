"""One zarr array, format 2 or 3, sharded or not: its metadata checked, its chunks decoded one at a time.

Written against the zarr specifications and for untrusted files: types and codecs come from a fixed list of plain
numbers and lossless compressors, so nothing is ever unpickled, and a chunk never decodes to more than the metadata
promises. A chunk whose file is absent is the fill value, as the specifications say; a damaged one is an error.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images._info import Array, make_damage_error, translate_decoder_errors
from septa.images.sources.zarr_codecs import (
    Codec,
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
    """How a shard file is divided: chunks of ``chunk`` samples, found through an index at its end or start."""

    chunk: tuple[int, ...]
    codecs: tuple[Codec, ...]
    checksum: bool
    at_end: bool


@dataclass(frozen=True, kw_only=True)
class ZarrArray:
    """What the metadata of an array says, checked."""

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

    @property
    def chunk(self) -> tuple[int, ...]:
        """Samples that are decoded at once, by axis."""
        return self.shard.chunk if self.shard else self.stored

    def read(self, window: Sequence[tuple[int, int]]) -> Array:
        """Values of a window, given as (first, end) of each axis; only the chunks that it touches are decoded."""
        values = np.full([end - begin for begin, end in window], self.fill, self.dtype)
        for index in _list_touched(window, self.stored):
            file = self._file(index)
            with translate_decoder_errors(file, "zarr"):
                try:
                    stream = file.open("rb")
                except FileNotFoundError:
                    continue
                with stream:
                    if self.shard:
                        self._read_shard(file, stream, index, window, values)
                    else:
                        _paste(
                            values,
                            window,
                            self._chunk(stream.read(self._most_bytes()), self.codecs),
                            index,
                            self.stored,
                        )
        return values

    def _file(self, index: tuple[int, ...]) -> Path:
        parts = self.separator.join(map(str, index))
        return self.path / (f"{self.prefix}{self.separator}{parts}" if self.prefix else parts)

    def _most_bytes(self) -> int:
        return limit_packed_size(math.prod(self.chunk) * self.dtype.itemsize)

    def _chunk(self, data: bytes, codecs: tuple[Codec, ...]) -> Array:
        shape = tuple(self.chunk[axis] for axis in self.order)
        plain = decompress(data, codecs, math.prod(shape) * self.dtype.itemsize)
        return np.frombuffer(plain, self.dtype).reshape(shape).transpose(np.argsort(self.order))

    def _read_shard(self, file: Path, stream: Any, shard: tuple[int, ...], window: Any, values: Array) -> None:
        assert self.shard
        grid = tuple(outer // inner for outer, inner in zip(self.stored, self.shard.chunk))
        size, index_bytes = file.stat().st_size, 16 * math.prod(grid) + 4 * self.shard.checksum
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
            if offset + count > size or count > self._most_bytes():
                raise make_damage_error(file, "zarr", "the file ends early or its index is broken")
            stream.seek(offset)
            _paste(values, window, self._chunk(stream.read(count), self.shard.codecs), chunk, self.shard.chunk)


def _list_touched(window: Sequence[tuple[int, int]], chunk: tuple[int, ...]) -> Any:
    return itertools.product(*(range(begin // size, -(-end // size)) for (begin, end), size in zip(window, chunk)))


def _paste(values: Array, window: Any, chunk: Array, index: tuple[int, ...], size: tuple[int, ...]) -> None:
    """Copy what a chunk shares with the window."""
    to, of = [], []
    for (begin, end), number, length in zip(window, index, size):
        start = number * length
        low, high = max(begin, start), min(end, start + length)
        to.append(slice(low - begin, high - begin))
        of.append(slice(low - start, high - start))
    values[tuple(to)] = chunk[tuple(of)]


def read_json(path: Path) -> dict[str, Any] | None:
    """A metadata file, or None when there is none."""
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= _JSON_BYTES else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from error
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(path, "is no zarr metadata", "the file is damaged; copy or export the image again")
    return found


def open_array(path: Path) -> ZarrArray | None:
    """Check the metadata of the array in a folder; None when the folder holds no array."""
    for name, parse in (("zarr.json", _parse_v3), (".zarray", _parse_v2)):
        metadata = read_json(path / name)
        if metadata is None or (name == "zarr.json" and metadata.get("node_type") != "array"):
            continue
        try:
            return parse(path, metadata)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = " ".join(str(error).split())[:200]
            problem = f"its zarr metadata is not understood ({type(error).__name__}: {reason})"
            raise InputError(path / name, problem, "write the array again, for example with zarr-python") from error
    return None


def _parse_v2(path: Path, found: dict[str, Any]) -> ZarrArray:
    _require(found["zarr_format"] == 2, f"zarr_format {found['zarr_format']!r}")
    code = found["dtype"]
    if not (isinstance(code, str) and re.fullmatch(r"[<>|](b1|[iu][1248]|f[248])", code)):
        raise InputError(path, f"has samples of type {code!r:.60}", "convert it to integers or floats")
    _require(not found.get("filters"), f"filters {found.get('filters')!r:.80}")
    _require(found["order"] in ("C", "F"), f"order {found['order']!r}")
    dtype, shape, chunk = np.dtype(code), _sizes(found["shape"], 0), _sizes(found["chunks"], 1)
    _require(len(shape) == len(chunk), "chunks of other dimension than the shape")
    axes = tuple(range(len(shape)))
    return ZarrArray(
        path=path,
        shape=shape,
        dtype=dtype,
        stored=chunk,
        fill=_fill(found["fill_value"], dtype),
        prefix="",
        separator=_separator(found.get("dimension_separator", ".")),
        order=axes if found["order"] == "C" else axes[::-1],
        codecs=find_codec_v2(found["compressor"]),
        shard=None,
        names=None,
        attributes=read_json(path / ".zattrs") or {},
    )


def _parse_v3(path: Path, found: dict[str, Any]) -> ZarrArray:
    _require(found["zarr_format"] == 3, f"zarr_format {found['zarr_format']!r}")
    name = found["data_type"]
    if not (isinstance(name, str) and name in _TYPES_V3):
        raise InputError(path, f"has samples of type {name!r:.60}", "convert it to integers or floats")
    _require(not found.get("storage_transformers"), "storage_transformers")
    _require(found["chunk_grid"]["name"] == "regular", f"chunk_grid {found['chunk_grid']['name']!r}")
    shape, stored = _sizes(found["shape"], 0), _sizes(found["chunk_grid"]["configuration"]["chunk_shape"], 1)
    _require(len(shape) == len(stored), "chunks of other dimension than the shape")
    keys = found["chunk_key_encoding"]
    _require(keys["name"] in ("default", "v2"), f"chunk_key_encoding {keys['name']!r}")
    default = keys["name"] == "default"
    shard, chain = _shard(found["codecs"], stored)
    order, big, codecs = parse_codecs_v3(chain, len(shape))
    names, attributes = found.get("dimension_names"), found.get("attributes", {})
    _require(isinstance(attributes, dict), "attributes that are no object")
    dtype = np.dtype(name)
    return ZarrArray(
        path=path,
        shape=shape,
        dtype=dtype.newbyteorder(">" if big else "<"),
        stored=stored,
        fill=_fill(found["fill_value"], dtype),
        prefix="c" if default else "",
        separator=_separator(keys.get("configuration", {}).get("separator", "/" if default else ".")),
        order=order,
        codecs=codecs,
        shard=shard and _Shard(shard.chunk, codecs, shard.checksum, shard.at_end),
        names=tuple(names) if isinstance(names, list) and len(names) == len(shape) else None,
        attributes=attributes,
    )


def _shard(codecs: Any, stored: tuple[int, ...]) -> tuple[_Shard | None, Any]:
    """How shards are divided, if they are, and the codecs of a chunk."""
    sharded = any(codec["name"] == "sharding_indexed" for codec in codecs)
    if not sharded:
        return None, codecs
    _require(len(codecs) == 1, "codecs around those of a shard")
    settings = codecs[0]["configuration"]
    chunk = _sizes(settings["chunk_shape"], 1)
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


def _sizes(found: Any, least: int) -> tuple[int, ...]:
    _require(isinstance(found, list) and len(found) <= _MOST_AXES, f"sizes {found!r:.60}")
    for size in found:
        _require(type(size) is int and least <= size <= _LONGEST_AXIS, f"sizes {found!r:.60}")
    return tuple(found)


def _separator(found: Any) -> str:
    _require(found in (".", "/"), f"separator {found!r:.20}")
    return str(found)


def _fill(found: Any, dtype: np.dtype[Any]) -> Any:
    """The fill value, a number or the name of one that JSON lacks; null is 0."""
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


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} cannot be read")
