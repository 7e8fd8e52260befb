"""The file of a block, what is kept of it until the store is finished: compressed arrays under a checksum."""

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


def block_file(folder: Path, plan: StreamPlan, index: BlockIndex) -> Path:
    """Where the result of a block is kept until the store is finished; not more than 1000 in one folder."""
    number = int(np.ravel_multi_index(index, plan.grid))
    return folder / "blocks" / f"{number // 1000:05d}" / f"{number:08d}.block"


def save_block(folder: Path, plan: StreamPlan, index: BlockIndex, arrays: Mapping[str, Array]) -> None:
    """Write a block's file, atomically.

    Raises
    ------
    InputError
        It cannot be written.
    ResourceError
        The disk is full.
    """
    write_bytes(block_file(folder, plan, index), _pack(plan, index, arrays))


def is_done(folder: Path, plan: StreamPlan, index: BlockIndex) -> bool:
    """Whether a block's file is there and its checksum holds."""
    return _open(folder, plan, index) is not None


def load_block(folder: Path, plan: StreamPlan, index: BlockIndex, names: Collection[str]) -> dict[str, Array]:
    """Some of what was written for a block.

    Raises
    ------
    InputError
        It is not there, or no longer, or damaged.
    """
    found = _open(folder, plan, index)
    try:
        if found is not None:
            about, tensors = found
            return {name: _unpack(about[name], tensors[name].numpy()) for name in names}
    except (KeyError, TypeError, ValueError, zlib.error):
        pass
    problem = "the file was damaged or removed while the store was being written"
    raise InputError(block_file(folder, plan, index), problem, "Run the same command again")


def load_facts(folder: Path, plan: StreamPlan, index: BlockIndex) -> MergeFacts:
    """What the merge must know of a block that is done. Errors as for `load_block`."""
    return MergeFacts.from_arrays(load_block(folder, plan, index, [field.name for field in fields(MergeFacts)]))


def _open(folder: Path, plan: StreamPlan, index: BlockIndex) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
    """Types and shapes of a block's arrays, and the arrays compressed; None where it is not done, or damaged."""
    path = block_file(folder, plan, index)
    try:
        header, tensors = tensor_file.unpack(path.read_bytes(), KIND, path)
        sound = header["block"] == list(index) and header["plan"] == plan.digest
        return (header["arrays"], tensors) if sound else None
    except (OSError, ModelError, KeyError):
        return None


def _pack(plan: StreamPlan, index: BlockIndex, arrays: Mapping[str, Array]) -> bytes:
    about = {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in arrays.items()}
    tensors = {}
    for name, array in arrays.items():
        squeezed = zlib.compress(np.ascontiguousarray(array).tobytes(), 1)
        tensors[name] = torch.frombuffer(bytearray(squeezed), dtype=torch.uint8)
    return tensor_file.pack(KIND, {"block": list(index), "plan": plan.digest, "arrays": about}, tensors)


def _unpack(about: Mapping[str, Any], squeezed: Array) -> Array:
    shape, dtype = tuple(int(side) for side in about["shape"]), np.dtype(about["dtype"])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = zlib.decompressobj().decompress(squeezed.tobytes(), size + 1)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes are not {dtype} {shape}")
    return np.frombuffer(data, dtype).reshape(shape)
