"""How large blocks and tiles may be, that all of it stays within a memory budget."""

from __future__ import annotations

import ctypes
import math
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from septa.errors import ResourceError
from septa.inference import choose_tile, smallest_tile, smallest_tile_for
from septa.model import Model
from septa.runtime import usable_memory

CHUNK = 256
"""Side of the chunks of the output, pixels."""
BLOCKS = (4096, 2048, 1024, 512, 256)
_MEMORY = 4 * 2**30
_SLACK = 96 * 2**20
"""What libraries allocate when they are first used, and what the heap loses between blocks of different sizes."""
_SHARE = 0.4
"""Of the budget that is free, for the arrays of a block; the rest is for the net's activations."""
_TAKES = {"torch": 1.0, "onnxruntime": 1.4, "openvino": 1.5}
"""Memory for a tile as a multiple of what the net says, by engine: measured 0.9, 1.25 and 1.4."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Sides of blocks and tiles in pixels, the bytes that the process is expected to hold at most, those that are free
    for the arrays and activations of a block, and those that it may hold.
    """

    block: int
    tile: int
    expected: int
    free: int
    limit: int


def resident_bytes() -> int:
    """Bytes of memory that this process holds now; its peak where the system does not tell."""
    try:
        with Path("/proc/self/status").open(encoding="ascii") as lines:
            for line in lines:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def trim_heap(limit: int, needed: int) -> None:
    """Give freed memory back to the system if what is needed next might not fit into a limit otherwise.

    What one pass frees is kept for the next, which spares it page faults; but as arrays of many sizes come and go it
    falls into pieces, and the process grows although much of what it holds is free.

    Parameters
    ----------
    limit
        Bytes that the process may hold.
    needed
        Bytes that it is about to take.
    """
    if resident_bytes() + needed > limit:
        with suppress(OSError, AttributeError):  # another libc
            ctypes.CDLL(None).malloc_trim(0)


def default_memory(processes: int = 1) -> int:
    """Bytes for each of some processes of this machine where nothing was said."""
    return min(_MEMORY, usable_memory() // 2 // processes)


def fit_budget(
    model: Model, itemsize: int, memory: int, *, margin: int, block: int | None = None, engine: str = "torch"
) -> Budget:
    """The largest blocks and tiles for which a budget suffices.

    Parameters
    ----------
    model
        What segments.
    itemsize
        Bytes of a value of the image.
    memory
        Bytes for all of the process, what it holds already included.
    margin
        Pixels around a block that are segmented with it.
    block
        Side of the blocks, if it is settled.
    engine
        What executes the net; some take more memory.

    Raises
    ------
    ResourceError
        Nothing fits; the message names the least that would.
    """
    _load_kernels(model)
    free = memory - resident_bytes() - _SLACK
    least, pixel = smallest_tile_for(model.net), pixel_bytes(model, engine)
    for side in BLOCKS if block is None else (block,):
        arrays = block_bytes(model, itemsize, side, margin)
        room = free - arrays
        if arrays > _SHARE * free and side != BLOCKS[-1] and block is None:
            continue
        if room >= least**2 * pixel:
            tile = _tile(model, room, side + 2 * (margin + 1), pixel)
            return Budget(block=side, tile=tile, expected=memory - room + tile**2 * pixel, free=free, limit=memory)
    needed = memory - free + arrays + least**2 * pixel
    problem = f"this net needs at least {megabytes(needed)} MB with the smallest blocks, got {megabytes(memory)} MB"
    raise ResourceError("--memory", problem, f"Give --memory {megabytes(needed)}MB or more")


def _load_kernels(model: Model) -> None:
    """Find the objects of nothing, so that the compiled code for it is in memory before that is looked at."""
    model.task.blank_block((8, 8), (slice(0, 8), slice(0, 8)), (True, True, True, True))


def pixel_bytes(model: Model, engine: str) -> int:
    """Bytes that an engine takes for a pixel of a tile."""
    return math.ceil(model.net.bytes_per_pixel * _TAKES.get(engine, max(_TAKES.values())))


def block_bytes(model: Model, itemsize: int, side: int, margin: int) -> int:
    """Bytes of the arrays of the blocks in flight: `region_bytes` of one, and the logits of the next."""
    wide = side + 2 * (margin + 1)
    return region_bytes(model, itemsize, wide, wide) + 4 * wide**2 * model.net.out_channels


def region_bytes(model: Model, itemsize: int, height: int, width: int) -> int:
    """Bytes of the arrays of a region that is segmented at once: image windows (one is read ahead), logits,
    probabilities, objects.
    """
    context = 2 * (model.net.halo or model.net.margin)
    image = 2 * (height + context) * (width + context) * model.channels * itemsize
    return image + height * width * (12 * max(2, model.net.out_channels) + model.task.block_bytes_per_pixel)


def store_bytes(model: Model, side: int) -> int:
    """Bytes that it takes to write a block into the store: labels of a block file and of the store, their copies while
    they are compressed, and so of probabilities.
    """
    return side**2 * (48 + 8 * model.task.classes)


def fit_tile(model: Model, itemsize: int, height: int, width: int, free: int, engine: str) -> int:
    """The largest tile for a region, given the bytes that are free; 0 where none fits."""
    room, pixel = free - region_bytes(model, itemsize, height, width), pixel_bytes(model, engine)
    return 0 if room < smallest_tile_for(model.net) ** 2 * pixel else _tile(model, room, max(height, width), pixel)


def megabytes(size: int) -> int:
    """Bytes as whole megabytes, rounded up."""
    return -(-size // 10**6)


def _tile(model: Model, room: int, side: int, pixel: int) -> int:
    """The largest tile of the room, and no larger than what a block asks for."""
    net = model.net
    tile = choose_tile(halo=net.halo, multiple=net.multiple, bytes_per_pixel=pixel, memory=room)
    context = smallest_tile(net.halo or net.margin, net.multiple)
    whole = -(-(side + 2 * net.multiple) // net.multiple) * net.multiple + context
    return max(smallest_tile_for(net), min(tile, whole))
