"""Blocks to the bytes of shards and back, through zarr's own sharding codec."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError, ResourceError
from septa.images._info import Array
from septa.images.store.spec import BlockIndex, StoreSpec

_ZSTD_LEVEL = 3
_REWRITE_BLOCK = "delete this file and run the command that wrote it again"


def locate_level(spec: StoreSpec, level: int) -> str:
    """Where the array of a level lies in the store."""
    return f"labels/{spec.name}/{level}" if spec.kind == "labels" else str(level)


def locate_shard(path: Path, spec: StoreSpec, level: int, index: BlockIndex) -> Path:
    """File of a block."""
    spec.block_shape(level, index)
    place = dict(zip("TZYX", index))
    return path.joinpath(locate_level(spec, level), "c", *(str(place.get(axis, 0)) for axis in spec.axes))


def build_array_options(spec: StoreSpec) -> dict[str, Any]:
    """How arrays of ``spec`` are laid out and encoded, as arguments of `zarr.create_array`."""
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
    """Bytes of the shard that holds a block, the part beyond the image empty.

    Chunks of zeros are left out, but a block of nothing else keeps them, so that every block that was written is a
    file and a file that is missing is a block that was lost.
    """
    import zarr
    from zarr.core.buffer import Buffer
    from zarr.storage import MemoryStore

    options = build_array_options(spec)
    files: dict[str, Buffer] = {}
    array = zarr.create_array(
        MemoryStore(files), shape=options["shards"], config={"write_empty_chunks": not block.any()}, **options
    )
    # Zarr pads an array's last shards with the fill value in just this way.
    height, width = block.shape[-2:]
    beyond = [(0, 0)] * (block.ndim - 2) + [(0, spec.block - height), (0, spec.block - width)]
    whole = np.pad(block, beyond) if block.shape[-2:] != (spec.block, spec.block) else block
    array[...] = np.expand_dims(whole, _missing(spec))
    return files[_key(spec)].to_bytes()


def decode_shard(file: Path, spec: StoreSpec, shape: tuple[int, ...]) -> Array:
    """Block of ``shape`` in a shard's file.

    Raises
    ------
    InputError
        The file is missing or damaged.
    """
    import zarr
    from zarr.core.buffer import Buffer, default_buffer_prototype
    from zarr.storage import MemoryStore

    options = build_array_options(spec)
    files: dict[str, Buffer] = {}
    array = zarr.create_array(MemoryStore(files), shape=options["shards"], **options)
    data = read_bytes(file)
    if not data:
        # Zarr takes an empty shard for an absent one, whose values are all 0.
        raise InputError(file, "the data is damaged (the file is empty)", _REWRITE_BLOCK)
    files[_key(spec)] = default_buffer_prototype().buffer.from_bytes(data)
    height, width = shape[-2:]
    with translate_zarr_errors(file, _REWRITE_BLOCK):
        window = np.asarray(array[..., :height, :width])
    return np.ascontiguousarray(window.squeeze(_missing(spec)))


def read_bytes(file: Path) -> bytes:
    """Bytes of a file of a store; see `decode_shard` for what is raised."""
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise InputError(file, "this block is missing", "run the command that writes the store again") from error
    except OSError as error:
        raise make_read_error(file, error) from error


def make_read_error(path: Path, error: OSError) -> InputError:
    """The error for a file or folder that the system does not let septa read."""
    return InputError(path, f"cannot be read ({error.strerror or error})", "check the path and its permissions")


@contextmanager
def translate_zarr_errors(path: Path, remedy: str) -> Iterator[None]:
    """Turn whatever damaged data makes zarr raise into one line that names the path."""
    try:
        yield
    except MemoryError as error:
        raise ResourceError(path, "there is not enough memory to decode it", "use smaller blocks") from error
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
        raise InputError(path, f"the data is damaged ({reason})", remedy) from error


def _key(spec: StoreSpec) -> str:
    return "/".join(["c", *("0" for _ in spec.axes)])


def _missing(spec: StoreSpec) -> tuple[int, ...]:
    """Positions, within the axes of the image, of those that a block does not have: T and Z."""
    return tuple(i for i, axis in enumerate(spec.axes) if axis in "TZ")
