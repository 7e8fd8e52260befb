"""Check the metadata of zarr arrays of format 2 and 3 before anything is decoded.

This follows the zarr specifications and is safe for untrusted files. Types and codecs come from a fixed list of plain
numbers and lossless compressors, so nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
import zlib
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images.sources.addresses import ForbiddenError
from septa.images.sources.places import Place
from septa.images.sources.zarr_array import Shard, ZarrArray
from septa.images.sources.zarr_codecs import UnsupportedMetadataError, find_codec_v2, parse_codecs_v3

_JSON_BYTES = 64 * 2**20
_LONGEST_AXIS = 2**40
_MOST_AXES = 5
_CHUNKS_OF_A_SHARD = 2**24
_TYPES_V3 = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
}


def read_json(place: Place) -> dict[str, Any] | None:
    """Return the contents of a metadata file, or None if there is no file.

    Raises
    ------
    InputError
        If the file cannot be read, or is not a JSON object.
    """
    try:
        with place.open_file() as file:
            text = file.read(0, _JSON_BYTES + 1, keep=True)
        found = json.loads(text) if len(text) <= _JSON_BYTES else None
    except (FileNotFoundError, NotADirectoryError, ForbiddenError):
        return None
    except OSError as error:
        problem = f"the file cannot be read ({error.strerror})"
        raise InputError(place.location, problem, "Check the path and its permissions") from error
    except (ValueError, RecursionError, zipfile.BadZipFile, zlib.error, EOFError):
        found = None
    if not isinstance(found, dict):
        raise InputError(place.location, "the file is not zarr metadata", "Copy or export the image again")
    return found


def open_array(place: Place) -> ZarrArray | None:
    """Check the metadata of the array in a folder; return None if the folder holds no array.

    Raises
    ------
    InputError
        If the metadata is damaged, or describes what septa does not read.
    """
    for name, parse in (("zarr.json", _parse_v3), (".zarray", _parse_v2)):
        metadata = read_json(place / name)
        if metadata is None or (name == "zarr.json" and metadata.get("node_type") != "array"):
            continue
        try:
            return parse(place, metadata)
        except InputError:
            raise
        except (UnsupportedMetadataError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            problem = f"septa does not read this zarr metadata ({_explain(error)})"
            raise InputError(
                (place / name).location, problem, "Write the array again, for example with zarr-python"
            ) from error
    return None


def _explain(error: Exception) -> str:
    """Return the fault of metadata in septa's words."""
    if isinstance(error, UnsupportedMetadataError):
        return str(error)
    if isinstance(error, KeyError):
        return f"its entry {error.args[0]!r:.40} is missing"
    return "an entry has a wrong type or value"


def _check_dtype(place: Place, code: object, valid: bool) -> None:
    if not valid:
        problem = f"septa does not read samples of type {code!r:.60}"
        raise InputError(place.location, problem, "Convert the array to integers or floats")


def _parse_v2(place: Place, found: dict[str, Any]) -> ZarrArray:
    _require(found["zarr_format"] == 2, f"zarr_format {found['zarr_format']!r}")
    code = found["dtype"]
    _check_dtype(place, code, isinstance(code, str) and bool(re.fullmatch(r"[<>|](b1|[iu][1248]|f[248])", code)))
    _require(not found.get("filters"), f"filters {found.get('filters')!r:.80}")
    _require(found["order"] in ("C", "F"), f"order {found['order']!r}")
    dtype = np.dtype(code)
    shape = _parse_sizes(found["shape"], 0)
    chunk = _parse_sizes(found["chunks"], 1)
    _require(len(shape) == len(chunk), "chunks and a shape of different dimension")
    axes = tuple(range(len(shape)))
    return ZarrArray(
        place=place,
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
        attributes=read_json(place / ".zattrs") or {},
    )


def _parse_v3(place: Place, found: dict[str, Any]) -> ZarrArray:
    _require(found["zarr_format"] == 3, f"zarr_format {found['zarr_format']!r}")
    name = found["data_type"]
    _check_dtype(place, name, isinstance(name, str) and name in _TYPES_V3)
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
        place=place,
        shape=shape,
        dtype=dtype.newbyteorder(">" if big else "<"),
        stored=stored,
        fill=_parse_fill(found["fill_value"], dtype),
        prefix="c" if default else "",
        separator=_parse_separator(keys.get("configuration", {}).get("separator", "/" if default else ".")),
        order=order,
        codecs=codecs,
        shard=shard and Shard(shard.chunk, codecs, shard.checksum, shard.at_end),
        names=tuple(names) if isinstance(names, list) and len(names) == len(shape) else None,
        attributes=attributes,
    )


def _parse_shard(codecs: Any, stored: tuple[int, ...]) -> tuple[Shard | None, Any]:
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
    return Shard(chunk, (), len(index) == 2, location == "end"), settings["codecs"]


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
