"""How large blocks and tiles may be, that all of it stays within a memory budget."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from septa.errors import ResourceError
from septa.inference.tiling import auto_tile, least_for, least_tile
from septa.model import Model
from septa.tasks.instances import Instances

CHUNK = 256
"""Side of the chunks of the output, pixels."""
BLOCKS = (4096, 2048, 1024, 512, 256)
_SLACK = 96 * 2**20
"""What libraries allocate when they are first used, and what the heap loses between blocks of different sizes."""
_SHARE = 0.4
"""Of the budget that is free, for the arrays of a block; the rest is for the net's activations."""
_OBJECTS = 72
"""Bytes per pixel of a window while its objects are found: maps, seeds, queues, labels, regions of background."""


@dataclass(frozen=True)
class Budget:
    """Sides of blocks and tiles in pixels, and the bytes that they are expected to take at most, all in all."""

    block: int
    tile: int
    expected: int


def resident() -> int:
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


def fit(model: Model, itemsize: int, memory: int, *, margin: int, block: int | None = None) -> Budget:
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

    Raises
    ------
    ResourceError
        Nothing fits; the message names the least that would.
    """
    free = memory - resident() - _SLACK
    least = least_for(model.net)
    for side in BLOCKS if block is None else (block,):
        arrays = block_bytes(model, itemsize, side, margin)
        room = free - arrays
        if arrays > _SHARE * free and side != BLOCKS[-1] and block is None:
            continue
        if room >= least**2 * model.net.bytes_per_pixel:
            tile = _tile(model, room, side + 2 * (margin + 1), least)
            return Budget(side, tile, memory - room + tile**2 * model.net.bytes_per_pixel)
    needed = memory - free + arrays + least**2 * model.net.bytes_per_pixel
    problem = f"is too little: this net needs {megabytes(needed)} MB even in the smallest blocks"
    raise ResourceError(f"--memory {megabytes(memory)}MB", problem, f"give at least {megabytes(needed)}MB")


def block_bytes(model: Model, itemsize: int, side: int, margin: int) -> int:
    """Bytes of the arrays of one block: image windows (one is read ahead), logits, probabilities, objects."""
    net = model.net
    window = (side + 2 * (margin + 1) + 2 * (net.halo or net.margin)) ** 2
    inner = (side + 2 * (margin + 1)) ** 2
    objects = _OBJECTS if isinstance(model.task, Instances) else 8
    return 2 * window * model.channels * itemsize + inner * (12 * max(2, net.out_channels) + objects)


def megabytes(size: int) -> int:
    """Bytes as whole megabytes, rounded up."""
    return -(-size // 10**6)


def _tile(model: Model, room: int, side: int, least: int) -> int:
    """The largest tile of the room, and no larger than what a block asks for."""
    net = model.net
    tile = auto_tile(halo=net.halo, multiple=net.multiple, bytes_per_pixel=net.bytes_per_pixel, memory=room)
    whole = -(-(side + 2 * net.multiple) // net.multiple) * net.multiple + least_tile(
        net.halo or net.margin, net.multiple
    )
    return max(least, min(tile, whole))
