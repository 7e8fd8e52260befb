"""Choice of the largest blocks and tiles that stay within a memory budget."""

from __future__ import annotations

import ctypes
import math
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from septa.errors import ResourceError
from septa.inference import NetGeometry, choose_tile, scale_tile, smallest_tile, smallest_tile_for
from septa.model import Model
from septa.runtime import find_memory_limit

CHUNK = 256
"""Side of the chunks of the output, pixels."""
BLOCKS = (4096, 2048, 1024, 512, 256)
"""Sides that blocks may have, pixels, the largest first."""
_DEFAULT_MEMORY = 4 * 2**30
"""Largest budget that is used without --memory, bytes."""
_RESERVE = 96 * 2**20
"""Bytes for what libraries allocate on first use, and for the fragmentation of the heap by blocks of many sizes."""
_ARRAY_SHARE = 0.4
"""Largest share of the free budget for the arrays of a block; the rest is for the net's activations."""
_ENGINE_FACTORS = {"torch": 1.0, "torch+bf16": 0.6, "onnxruntime": 1.4, "openvino": 1.5}
"""Memory of a tile, as a multiple of the net's own estimate. Measured: 0.9, 0.5, 1.25 and 1.4."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Sizes that fit into a memory budget.

    Attributes
    ----------
    block, tile
        Sides of a block and of the largest tile, pixels.
    expected
        Bytes that the process is expected to hold at most.
    free
        Bytes for the arrays and activations of a block.
    limit
        Bytes that the process may hold.
    """

    block: int
    tile: int
    expected: int
    free: int
    limit: int

    def choose_tile(self, tile: int | None, net: NetGeometry, reduction: float) -> int:
        """Return the largest tile in pixels of the image, if the net must see no more than ``tile`` reduced ones."""
        return self.tile if tile is None else min(self.tile, scale_tile(net, tile, reduction))


def resident_bytes() -> int:
    """Return the memory that this process holds now, in bytes; its peak on systems that do not report that."""
    try:
        with Path("/proc/self/status").open(encoding="ascii") as lines:
            for line in lines:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return _read_windows_memory()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class _WindowsMemory(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of Windows."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("faults", ctypes.c_uint32),
        *((name, ctypes.c_size_t) for name in ("peak", "working_set", "a", "b", "c", "d", "pagefile", "e")),
    )


def _read_windows_memory() -> int:
    """Return the memory that this process holds on Windows, in bytes; 1 GiB if the system does not report it."""
    counters = _WindowsMemory(size=ctypes.sizeof(_WindowsMemory))
    kernel = getattr(ctypes, "windll", None)
    if kernel is None:
        return 2**30
    handle = ctypes.c_void_p(-1)  # this process
    if not kernel.kernel32.K32GetProcessMemoryInfo(handle, ctypes.byref(counters), counters.size):
        return 2**30
    return int(counters.working_set)


def trim_heap(limit: int, needed: int) -> None:
    """Return freed memory to the system if the next allocation might exceed a limit without that.

    The heap keeps freed memory for the next allocation, which saves page faults. But arrays of many sizes fragment it,
    so the process grows although much of its memory is free.

    Parameters
    ----------
    limit
        Bytes that the process may hold.
    needed
        Bytes that it is going to allocate.
    """
    if resident_bytes() + needed > limit:
        with suppress(OSError, AttributeError):  # only glibc has this function
            ctypes.CDLL(None).malloc_trim(0)


def default_memory(processes: int = 1) -> int:
    """Return the budget of each of several processes on this machine if the user gives none, in bytes.

    It is 4 GiB, or half of the machine's memory divided by the number of processes if that is less.
    """
    return min(_DEFAULT_MEMORY, find_memory_limit() // 2 // processes)


def fit_budget(
    model: Model,
    itemsize: int,
    memory: int,
    *,
    margin: int,
    block: int | None = None,
    engine: str = "torch",
    decoding: int = 0,
) -> Budget:
    """Choose the largest blocks and tiles that fit into a memory budget.

    Parameters
    ----------
    model
        The model that segments the blocks.
    itemsize
        Bytes of a value of the image.
    memory
        Bytes for the whole process, including those that it holds already.
    margin
        Pixels around a block that are segmented with it.
    block
        Side of the blocks, pixels; the largest that fits if None.
    engine
        Name of the engine that runs the net; some need more memory.
    decoding
        Bytes that are needed to decode a chunk of the image; see `septa.images.Source`.

    Raises
    ------
    ResourceError
        Nothing fits. The message gives the smallest budget that is enough.
    """
    _load_kernels(model)
    free = memory - resident_bytes() - _RESERVE - decoding
    least = smallest_tile_for(model.net)
    pixel = pixel_bytes(model, engine)
    for side in BLOCKS if block is None else (block,):
        arrays = block_bytes(model, itemsize, side, margin)
        room = free - arrays
        if arrays > _ARRAY_SHARE * free and side != BLOCKS[-1] and block is None:
            continue
        if room >= least**2 * pixel:
            tile = _largest_tile(model, room, side + 2 * (margin + 1), pixel)
            return Budget(block=side, tile=tile, expected=memory - room + tile**2 * pixel, free=free, limit=memory)
    needed = megabytes(memory - free + arrays + least**2 * pixel)
    size = "the smallest blocks" if block is None else f"blocks of {block} pixels"
    remedy = f"Give --memory {needed}MB or more"
    if decoding > _RESERVE:
        size += f" and {megabytes(decoding)} MB to decode a chunk of the image"
        remedy += ", or save the image in tiles"
    problem = f"this net needs at least {needed} MB with {size}, got {megabytes(memory)} MB"
    raise ResourceError("--memory", problem, remedy)


def _load_kernels(model: Model) -> None:
    """Label an empty block, so that the compiled code for it is loaded before the memory is measured."""
    model.task.blank_block((8, 8), (slice(0, 8), slice(0, 8)), (True, True, True, True))


def pixel_bytes(model: Model, engine: str) -> int:
    """Return the bytes that an engine needs for a pixel of a tile.

    PyTorch frees the activations of one net before the next one runs. Other engines keep those of each.
    """
    factor = _ENGINE_FACTORS.get(engine, max(_ENGINE_FACTORS.values()))
    kept = 1 if engine.startswith("torch") else model.members
    return math.ceil(model.net.bytes_per_pixel * factor * kept)


def block_bytes(model: Model, itemsize: int, side: int, margin: int) -> int:
    """Return the bytes of the arrays of the blocks in flight: `region_bytes` of one, and the logits of the next."""
    wide = side + 2 * (margin + 1)
    return region_bytes(model, itemsize, wide, wide) + 4 * wide**2 * model.net.out_channels


def region_bytes(model: Model, itemsize: int, height: int, width: int) -> int:
    """Return the bytes of the arrays of a region that is segmented at once.

    These are two windows of the image (one is read ahead), logits, probabilities and objects.
    """
    context = 2 * (model.net.halo or model.net.margin)
    image = 2 * (height + context) * (width + context) * model.channels * itemsize
    return image + height * width * (12 * max(2, model.net.out_channels) + model.task.block_bytes_per_pixel)


def store_bytes(model: Model, side: int) -> int:
    """Return the bytes that are needed to write a block into the store.

    These are the labels of the block's file and of the store, their copies during compression, and the same for
    probabilities.
    """
    return side**2 * (48 + 8 * model.task.classes)


def fit_tile(model: Model, itemsize: int, height: int, width: int, free: int, engine: str) -> int:
    """Return the side of the largest tile for a region, given the free bytes; 0 if no tile fits."""
    room = free - region_bytes(model, itemsize, height, width)
    pixel = pixel_bytes(model, engine)
    if room < smallest_tile_for(model.net) ** 2 * pixel:
        return 0
    return _largest_tile(model, room, max(height, width), pixel)


def megabytes(size: int) -> int:
    """Convert bytes to whole megabytes, rounded up."""
    return -(-size // 10**6)


def _largest_tile(model: Model, room: int, side: int, pixel: int) -> int:
    """Return the side of the largest tile that fits into ``room`` bytes, but not more than the whole region needs."""
    net = model.net
    tile = choose_tile(halo=net.halo, multiple=net.multiple, bytes_per_pixel=pixel, memory=room)
    context = smallest_tile(net.halo or net.margin, net.multiple)
    whole = -(-(side + 2 * net.multiple) // net.multiple) * net.multiple + context
    return max(smallest_tile_for(net), min(tile, whole))
