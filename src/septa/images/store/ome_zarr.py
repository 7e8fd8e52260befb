"""Write results of any size: an OME-Zarr 0.5 store that is written block by block and can be resumed.

`create_store` makes a store, `write_store_block` fills level 0, `build_pyramid_block` fills the other levels, and
`finish_store` closes it. Any number of threads and processes may write blocks. Only a closed store has OME metadata,
so an unfinished one is not mistaken for a result.

::

    PATH/                  group; its image is the probabilities, or else the first labels
      0/ 1/ ...            probabilities, level by level
      labels/NAME/         label image
        0/ 1/ ...          labels, level by level
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images.store.metadata import build_metadata, check_same, check_specs, read_septa_attributes
from septa.images.store.ome_tiff import write_pyramid_tiff
from septa.images.store.shards import (
    decode_shard,
    encode_shard,
    locate_level,
    locate_shard,
    make_read_error,
    translate_zarr_errors,
)
from septa.images.store.spec import BlockIndex, StoreKind, StoreSpec
from septa.images.write import remove_leftovers, write_bytes, write_text

__all__ = [
    "BlockIndex",
    "StoreKind",
    "StoreSpec",
    "build_pyramid_block",
    "create_store",
    "digest_store_block",
    "downsample",
    "finish_store",
    "is_free",
    "is_store_complete",
    "read_store_attributes",
    "read_store_block",
    "read_store_window",
    "write_ome_tiff",
    "write_store_block",
]

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


def create_store(path: str | Path, specs: Sequence[StoreSpec]) -> None:
    """Create a store without blocks, or resume an existing one.

    An existing store of the same specs stays unchanged, complete or not.

    Parameters
    ----------
    path
        Folder to create; its name usually ends in ``.ome.zarr``.
    specs
        Labels of different names and at most one image of probabilities, all of the same size.

    Raises
    ------
    InputError
        If the folder holds other files or a store of other specs, or cannot be written.
    ResourceError
        If the disk is full.
    ValueError
        If ``specs`` do not fit together.
    """
    path = Path(path)
    check_specs(specs)
    # This is checked first, because another process may be creating the same store.
    free = is_free(path)
    attributes = read_septa_attributes(path)
    if attributes:
        check_same(path, attributes, specs)
        if attributes.get("complete") is True:
            return
    elif not free:
        raise InputError(path, "the folder holds files that are not a septa store", "Write to another folder")
    # The root is written first, so that the folder is recognised as this store from then on.
    for file, text in reversed(list(build_metadata(path, specs, complete=False))):
        if not os.path.lexists(file):
            write_text(file, text)


def write_store_block(path: str | Path, spec: StoreSpec, level: int, index: BlockIndex, block: NDArray[Any]) -> str:
    """Write one block as a whole shard, atomically.

    Equal blocks give equal files. A block of zeros gets a file too.

    Parameters
    ----------
    path
        Store that `create_store` made.
    spec
        Image of the store.
    level, index
        Level and index of the block.
    block
        Values of the spec's type and of the shape `StoreSpec.block_shape`; axes ``YX`` for labels, ``CYX`` for
        probabilities.

    Returns
    -------
    str
        SHA-256 of the file, in hexadecimal digits.

    Raises
    ------
    InputError
        If the file cannot be written.
    ResourceError
        If the disk is full.
    IndexError
        If there is no such block.
    ValueError
        If ``block`` has another shape or type.
    """
    expected = spec.block_shape(level, index)
    if block.shape != expected or block.dtype != spec.dtype:
        got = f"{block.dtype} {block.shape}"
        raise ValueError(f"block {index} of level {level} must be {spec.dtype} {expected}, got {got}")
    data = encode_shard(block, spec)
    write_bytes(locate_shard(Path(path), spec, level, index), data)
    return hashlib.sha256(data).hexdigest()


def digest_store_block(path: str | Path, spec: StoreSpec, level: int, index: BlockIndex) -> str | None:
    """Return the SHA-256 of the current file of a block, in hexadecimal digits; None if there is no file.

    Raises
    ------
    InputError
        If the file cannot be read.
    IndexError
        If there is no such block.
    """
    file = locate_shard(Path(path), spec, level, index)
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise make_read_error(file, error) from error


def read_store_block(path: str | Path, spec: StoreSpec, level: int, index: BlockIndex) -> NDArray[Any]:
    """Read one block; the inverse of `write_store_block`.

    Raises
    ------
    InputError
        If the file of the block is missing or damaged.
    IndexError
        If there is no such block.
    """
    return decode_shard(locate_shard(Path(path), spec, level, index), spec, spec.block_shape(level, index))


def read_store_window(
    path: str | Path, spec: StoreSpec, plane: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> NDArray[Any]:
    """Read a window of level 0, which may touch several blocks.

    Parameters
    ----------
    path, spec
        Store, which need not be complete, and one of its images.
    plane
        Numbers along T and Z.
    rows, columns
        First row and column, and one past the last.

    Returns
    -------
    ndarray
        Axes ``YX`` for labels, ``CYX`` for probabilities.

    Raises
    ------
    InputError
        If a block that the window touches is missing or damaged.
    """
    import zarr

    path, side = Path(path), spec.block
    touched = product(range(rows[0] // side, -(-rows[1] // side)), range(columns[0] // side, -(-columns[1] // side)))
    for row, column in touched:
        file = locate_shard(path, spec, 0, (*plane, row, column))
        if not file.is_file():
            raise InputError(file, "this block is missing", "Run the command that writes the store again")
    folder = path / locate_level(spec, 0)
    place = dict(zip("TZ", plane)) | {"C": slice(None), "Y": slice(*rows), "X": slice(*columns)}
    with translate_zarr_errors(folder, "Run the command that writes the store again"):
        array = zarr.open_array(str(folder), mode="r", zarr_format=3)
        return np.asarray(array[tuple(place[axis] for axis in spec.axes)])


def downsample(array: NDArray[Any], kind: StoreKind) -> NDArray[Any]:
    """Halve the last two axes, sizes rounded up.

    Parameters
    ----------
    array
        Axes ``YX`` or ``CYX``.
    kind
        "labels": every second pixel is kept, so no new label value arises. "probabilities": 2 x 2 pixels are averaged;
        the last row or column of an odd size counts twice.

    Returns
    -------
    ndarray
        A new array of the same type.

    Examples
    --------
    >>> downsample(np.array([[1, 2, 3], [4, 5, 6]]), "labels")
    array([[1, 3]])
    >>> downsample(np.array([[0.0, 0.5, 1.0]], np.float32), "probabilities")
    array([[0.25, 1.  ]], dtype=float32)
    """
    if kind == "labels":
        return array[..., ::2, ::2].copy()
    height, width = array.shape[-2:]
    even = np.pad(array, [(0, 0)] * (array.ndim - 2) + [(0, height % 2), (0, width % 2)], mode="edge")
    total = np.zeros((*even.shape[:-2], even.shape[-2] // 2, even.shape[-1] // 2), np.float32)
    for y, x in product((0, 1), (0, 1)):
        total += even[..., y::2, x::2]
    return (total / 4).astype(array.dtype)


def build_pyramid_block(path: str | Path, spec: StoreSpec, level: int, index: BlockIndex) -> str:
    """Build and write one block of a level from up to four blocks of the level below it.

    Only one of these is in memory at a time.

    Returns
    -------
    str
        As `write_store_block`.

    Raises
    ------
    InputError, ResourceError, IndexError
        As `read_store_block` and `write_store_block`.
    ValueError
        If ``level`` is 0, which is not built from another level.
    """
    if level < 1:
        raise ValueError("level 0 cannot be built: there is no level below it")
    block = np.zeros(spec.block_shape(level, index), spec.dtype)
    t, z, by, bx = index
    half = spec.block // 2
    grid = spec.grid(level - 1)
    for dy, dx in product((0, 1), (0, 1)):
        below = (t, z, 2 * by + dy, 2 * bx + dx)
        if below[2] < grid[2] and below[3] < grid[3]:
            small = downsample(read_store_block(path, spec, level - 1, below), spec.kind)
            y, x = dy * half, dx * half
            block[..., y : y + small.shape[-2], x : x + small.shape[-1]] = small
    return write_store_block(path, spec, level, index, block)


def finish_store(path: str | Path, specs: Sequence[StoreSpec]) -> None:
    """Write the OME metadata, and last the mark that the store is complete.

    Temporary files of killed processes are removed.

    Raises
    ------
    InputError
        If blocks are missing, the folder is not a septa store or one of other specs, or it cannot be written.
    ResourceError
        If the disk is full.
    ValueError
        If ``specs`` do not fit together.
    """
    path = Path(path)
    check_specs(specs)
    attributes = read_septa_attributes(path)
    if not attributes:
        raise InputError(path, "the folder is not a septa store", "Run the command that writes it again")
    check_same(path, attributes, specs)
    _check_blocks(path, specs)
    for folder in {file.parent for file in _list_block_files(path, specs)}:
        remove_leftovers(folder)
    for file, text in build_metadata(path, specs, complete=True):
        remove_leftovers(file.parent)
        write_text(file, text)


def is_store_complete(path: str | Path) -> bool:
    """Return True if ``path`` is a septa store, or one of its groups, that `finish_store` has completed.

    Raises
    ------
    InputError
        If the folder cannot be read.
    """
    return read_septa_attributes(Path(path)).get("complete") is True


def read_store_attributes(path: str | Path) -> dict[str, Any]:
    """Return `StoreSpec.attributes` of the first image of a store; empty if ``path`` is not a septa store.

    Raises
    ------
    InputError
        If the folder cannot be read.
    """
    specs = read_septa_attributes(Path(path)).get("specs")
    first = specs[0] if isinstance(specs, list) and specs else None
    found = first.get("attributes") if isinstance(first, dict) else None
    return found if isinstance(found, dict) else {}


def write_ome_tiff(path_tif: str | Path, path: str | Path, spec: StoreSpec) -> None:
    """Copy one image of a complete store into one pyramidal OME-TIFF, tile by tile, atomically.

    The file is a BigTIFF with tiles of 512 x 512 pixels, zlib compression, the levels as SubIFDs, and the pixel size
    of the store. float16 becomes float32, because OME-TIFF has no float16.

    Parameters
    ----------
    path_tif
        File to create; its name usually ends in ``.ome.tif``.
    path
        Store.
    spec
        Image of the store.

    Raises
    ------
    InputError
        If the store is not complete, does not hold this image or is damaged; if the labels have 64 bits, which
        OME-TIFF cannot hold; or if the file cannot be written.
    ResourceError
        If the disk is full.
    """
    path = Path(path)
    attributes = read_septa_attributes(path)
    if attributes.get("complete") is not True:
        raise InputError(path, "the store is not complete", "Run the command that writes it again")
    specs = attributes.get("specs")
    if not isinstance(specs, list) or spec.to_json() not in specs:
        problem = f"the store holds no {spec.kind} {spec.name!r} with these settings"
        raise InputError(path, problem, "Give a store that was written with them")
    if spec.dtype == np.uint64:
        problem = "OME-TIFF cannot hold labels of 64 bits"
        raise InputError(path_tif, problem, "Keep the OME-Zarr store, or write labels of 32 bits")
    _check_blocks(path, [spec])
    write_pyramid_tiff(Path(path_tif), path, spec)


def is_free(path: Path) -> bool:
    """Return True if the folder is missing, or empty except for temporary files of killed processes."""
    try:
        return all(_UNFINISHED.fullmatch(entry.name) for entry in path.iterdir()) if path.exists() else True
    except NotADirectoryError as error:
        raise InputError(path, "the path is a file, not a folder", "Write to another folder") from error
    except OSError as error:
        raise make_read_error(path, error) from error


def _check_blocks(path: Path, specs: Sequence[StoreSpec]) -> None:
    """Refuse a store that lacks blocks, because readers would show them as background without an error."""
    try:
        missing = [file for file in _list_block_files(path, specs) if not (file.is_file() and file.stat().st_size)]
    except OSError as error:
        raise make_read_error(path, error) from error
    if missing:
        problem = f"{len(missing)} blocks are missing or empty, the first is {missing[0].relative_to(path).as_posix()}"
        raise InputError(path, problem, "Run the command that writes the store again")


def _list_block_files(path: Path, specs: Sequence[StoreSpec]) -> Iterator[Path]:
    for spec in specs:
        for level in range(len(spec.levels)):
            for index in spec.blocks(level):
                yield locate_shard(path, spec, level, index)
