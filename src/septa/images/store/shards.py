"""Encode blocks as the bytes of shards, and decode them, with zarr's own sharding codec."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError, ResourceError, is_out_of_memory
from septa.images._info import Array, explain_decoder_error
from septa.images.store.spec import BlockIndex, StoreSpec

_ZSTD_LEVEL = 3
_REWRITE_BLOCK = "Delete this file and run the command that wrote it again"


def locate_level(spec: StoreSpec, level: int) -> str:
    """Return the path of the array of a level, relative to the store."""
    return f"labels/{spec.name}/{level}" if spec.kind == "labels" else str(level)


def locate_shard(path: Path, spec: StoreSpec, level: int, index: BlockIndex) -> Path:
    """Return the path of the file of a block.

    Raises
    ------
    IndexError
        If there is no such block.
    """
    spec.block_shape(level, index)
    place = dict(zip("TZYX", index))
    return path.joinpath(locate_level(spec, level), "c", *(str(place.get(axis, 0)) for axis in spec.axes))


def build_array_options(spec: StoreSpec) -> dict[str, Any]:
    """Return the layout and codecs of the arrays of ``spec``, as arguments of `zarr.create_array`."""
    from zarr.codecs import BytesCodec, ZstdCodec

    outer = {"C": spec.channels, "Y": spec.block, "X": spec.block}
    inner = {"Y": spec.chunk, "X": spec.chunk}
    return {
        "dtype": spec.dtype,
        "chunks": tuple(inner.get(axis, 1) for axis in spec.axes),
        "shards": tuple(outer.get(axis, 1) for axis in spec.axes),
        "compressors": ZstdCodec(level=_ZSTD_LEVEL, checksum=True),
        "filters": None,
        "serializer": BytesCodec(endian="little"),
        "fill_value": 0,
        "zarr_format": 3,
        "dimension_names": [axis.lower() for axis in spec.axes],
        "chunk_key_encoding": {"name": "default", "separator": "/"},
    }


def encode_shard(block: Array, spec: StoreSpec) -> bytes:
    """Return the bytes of the shard that holds a block; the part beyond the image is empty.

    Chunks of zeros are left out, unless the block holds nothing else. So every written block has a file, and a missing
    file is a lost block.
    """
    import zarr
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

    options = build_array_options(spec)
    files: dict[str, Buffer] = {}
    array = zarr.create_array(
        MemoryStore(files), shape=options["shards"], config={"write_empty_chunks": not block.any()}, **options
    )
    # Zarr pads the last shards of an array with the fill value in the same way.
    height, width = block.shape[-2:]
    beyond = [(0, 0)] * (block.ndim - 2) + [(0, spec.block - height), (0, spec.block - width)]
    whole = np.pad(block, beyond) if block.shape[-2:] != (spec.block, spec.block) else block
    array[...] = np.expand_dims(whole, _find_missing_axes(spec))
    return files[_shard_key(spec)].to_bytes()


def decode_shard(file: Path, spec: StoreSpec, shape: tuple[int, ...]) -> Array:
    """Decode a block of ``shape`` from the file of its shard.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    import zarr
    from zarr.core.buffer import Buffer, default_buffer_prototype
    from zarr.storage import MemoryStore

    options = build_array_options(spec)
    files: dict[str, Buffer] = {}
    array = zarr.create_array(MemoryStore(files), shape=options["shards"], **options)
    data = read_bytes(file)
    if not data:
        # Zarr treats an empty shard as an absent one, whose values are all 0.
        raise InputError(file, "the data is damaged (the file is empty)", _REWRITE_BLOCK)
    files[_shard_key(spec)] = default_buffer_prototype().buffer.from_bytes(data)
    height, width = shape[-2:]
    with translate_zarr_errors(file, _REWRITE_BLOCK):
        window = np.asarray(array[..., :height, :width])
    return np.ascontiguousarray(window.squeeze(_find_missing_axes(spec)))


def read_bytes(file: Path) -> bytes:
    """Return the bytes of a file of a store.

    Raises
    ------
    InputError
        If the file is missing or cannot be read.
    """
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise InputError(file, "this block is missing", "Run the command that writes the store again") from error
    except OSError as error:
        raise make_read_error(file, error) from error


def make_read_error(path: Path, error: OSError) -> InputError:
    """Return the error for a file or folder that the system does not let septa read."""
    reason = f" ({error.strerror})" if error.strerror else ""
    return InputError(path, f"the path cannot be read{reason}", "Check the path and its permissions")


@contextmanager
def translate_zarr_errors(path: Path, remedy: str) -> Iterator[None]:
    """Convert any exception that zarr raises for damaged data to an error of one line that names the path.

    Messages of zarr are not shown; the original exception is the cause of the new one.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            problem = "there is not enough memory to decode the data"
            raise ResourceError(path, problem, "Use smaller blocks") from error
        reason = explain_decoder_error(error)
        raise InputError(path, "the data is damaged" + (f" ({reason})" if reason else ""), remedy) from error


def _shard_key(spec: StoreSpec) -> str:
    return "/".join(["c", *("0" for _ in spec.axes)])


def _find_missing_axes(spec: StoreSpec) -> tuple[int, ...]:
    """Return the positions, among the axes of the image, of those that a block lacks: T and Z."""
    return tuple(i for i, axis in enumerate(spec.axes) if axis in "TZ")
