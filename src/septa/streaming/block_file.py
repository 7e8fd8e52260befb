"""The files of blocks, which exist until the store is finished: compressed arrays with a checksum."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from septa import tensor_file
from septa.errors import InputError, ModelError
from septa.images import write_bytes
from septa.images.store import BlockIndex
from septa.streaming.plan import KIND, StreamPlan
from septa.tasks import MergeFacts

Array = NDArray[Any]


def block_path(folder: Path, plan: StreamPlan, index: BlockIndex) -> Path:
    """Return the path of a block's file in the work folder. At most 1000 files lie in one folder."""
    number = int(np.ravel_multi_index(index, plan.grid))
    return folder / "blocks" / f"{number // 1000:05d}" / f"{number:08d}.block"


def save_block(folder: Path, plan: StreamPlan, index: BlockIndex, arrays: Mapping[str, Array]) -> None:
    """Write a block's file atomically.

    Raises
    ------
    InputError
        It cannot be written.
    ResourceError
        The disk is full.
    """
    write_bytes(block_path(folder, plan, index), _pack(plan, index, arrays))


def is_done(folder: Path, plan: StreamPlan, index: BlockIndex) -> bool:
    """Return True if a block's file exists, belongs to the plan, and has the right checksum."""
    return _open(folder, plan, index) is not None


def load_block(folder: Path, plan: StreamPlan, index: BlockIndex, names: Collection[str]) -> dict[str, Array]:
    """Read arrays of a block's file by their names.

    Raises
    ------
    InputError
        The file is missing or damaged.
    """
    found = _open(folder, plan, index)
    try:
        if found is not None:
            about, tensors = found
            return {name: _unpack(about[name], tensors[name].numpy()) for name in names}
    except (KeyError, TypeError, ValueError, zlib.error):
        pass
    problem = "the file was damaged or removed while the store was being written"
    raise InputError(block_path(folder, plan, index), problem, "Run the same command again")


def load_facts(folder: Path, plan: StreamPlan, index: BlockIndex) -> MergeFacts:
    """Read what the merge needs to know of a block.

    Raises
    ------
    InputError
        The block's file is missing or damaged.
    """
    return MergeFacts.from_arrays(load_block(folder, plan, index, [field.name for field in fields(MergeFacts)]))


def _open(folder: Path, plan: StreamPlan, index: BlockIndex) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """Return types and shapes of a block's arrays, and their compressed bytes; None if the block is not done."""
    path = block_path(folder, plan, index)
    try:
        header, tensors = tensor_file.unpack(path.read_bytes(), KIND, path)
        sound = header["block"] == list(index) and header["plan"] == plan.digest
        return (header["arrays"], tensors) if sound else None
    except (OSError, ModelError, KeyError):
        return None


def _pack(plan: StreamPlan, index: BlockIndex, arrays: Mapping[str, Array]) -> bytes:
    """Return the bytes of a block's file."""
    about = {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in arrays.items()}
    tensors = {}
    for name, array in arrays.items():
        compressed = zlib.compress(np.ascontiguousarray(array).tobytes(), 1)
        tensors[name] = torch.frombuffer(bytearray(compressed), dtype=torch.uint8)
    return tensor_file.pack(KIND, {"block": list(index), "plan": plan.digest, "arrays": about}, tensors)


def _unpack(about: Mapping[str, Any], compressed: Array) -> Array:
    """Decompress an array. At most the bytes that its shape needs are decompressed, whatever the file holds."""
    shape = tuple(int(side) for side in about["shape"])
    dtype = np.dtype(about["dtype"])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = zlib.decompressobj().decompress(compressed.tobytes(), size + 1)
    if len(data) != size:
        raise ValueError(f"an array of {dtype} {shape} cannot have {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)
