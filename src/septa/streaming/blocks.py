"""The two functions of a block. `segment_block` writes one file, which alone says that the block is done;
`finish_block` turns that file into a block of the store. Both can be done again at any time, by any process.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from septa import sealed
from septa.errors import InputError, ModelError, ResourceError
from septa.images.normalize import Normalization
from septa.images.source import Source
from septa.images.store import BlockIndex, StoreSpec, write_block
from septa.images.window import read_mirrored
from septa.images.write import write_bytes
from septa.inference.engines import Engine
from septa.inference.predict import predict_tiles
from septa.inference.tiling import Region, Tile, aligned, least_for, plan_for
from septa.model import Model
from septa.streaming.budget import megabytes, pixel_bytes, region_bytes, tile_within
from septa.streaming.plan import KIND, Plan
from septa.tasks import pieces
from septa.tasks.instances import Instances
from septa.tasks.pieces import Facts

Array = NDArray[Any]


@dataclass
class Worker:
    """What segments blocks: the model, the image, and how large tiles may be here.

    ``tile`` is halved when memory does not suffice, and stays so. ``free`` are the bytes for the arrays and activations
    of a block; None: no limit.
    """

    plan: Plan
    model: Model
    source: Source
    engine: Engine
    folder: Path
    tile: int
    free: int | None = None

    def window(self, index: BlockIndex, margin: int) -> Window:
        """Read what the net needs for a block."""
        net, size, tile = self.model.net, self.plan.size, self.tile
        region = aligned(_grown(self.plan.core(index), margin, size), size, net.multiple)
        tiles = plan_for(net, *size, tile, region)
        begin = min(tile.begin[0] for tile in tiles), min(tile.begin[1] for tile in tiles)
        end = max(tile.end[0] for tile in tiles), max(tile.end[1] for tile in tiles)

        def read(y: tuple[int, int], x: tuple[int, int]) -> Array:
            image_cyx = self.source.read(y, x, t=index[0], z=index[1])
            return self.model.fit(image_cyx, self.source.path)

        return Window(region, margin, tile, tiles, begin, read_mirrored(read, size, begin, end))

    def logits(self, index: BlockIndex, window: Window) -> Array:
        """Raw scores ``(K, Y, X)`` of a window's region, float32."""
        (top, left), (bottom, right) = window.region
        constants = self.plan.constants
        normalization = Normalization.from_json(constants.get("") or constants[f"{index[0]},{index[1]}"])
        out_kyx = np.empty((self.model.net.out_channels, bottom - top, right - left), np.float32)

        def keep(core: tuple[slice, slice], logits_kyx: Array) -> None:
            y, x = core
            out_kyx[:, y.start - top : y.stop - top, x.start - left : x.stop - left] = logits_kyx

        predict_tiles(self.engine, window.read, normalization, window.tiles, keep)
        return out_kyx

    def shrink(self) -> bool:
        """Halve the tile; False where it is the smallest already."""
        smaller = max(least_for(self.model.net), self.tile // 2)
        shrunk, self.tile = smaller < self.tile, smaller
        return shrunk

    def make_room(self, index: BlockIndex, margin: int) -> None:
        """Make tiles so small that a block with a wider margin fits into the budget.

        Raises
        ------
        ResourceError
            It does not fit with the smallest ones either.
        """
        if self.free is None:
            return
        (top, left), (bottom, right) = _grown(self.plan.core(index), margin, self.plan.size)
        itemsize, height, width = self.source.dtype.itemsize, bottom - top, right - left
        engine = self.plan.asked.engine
        tile = tile_within(self.model, itemsize, height, width, self.free, engine)
        if not tile:
            what = f"the objects at rows {top} to {bottom}, columns {left} to {right}, hang together"
            least = least_for(self.model.net) ** 2 * pixel_bytes(self.model, engine)
            more = megabytes(region_bytes(self.model, itemsize, height, width) + least - self.free)
            raise ResourceError(self.source.path, f"{what}, and the memory does not hold them", f"give {more}MB more")
        self.tile = min(self.tile, tile)

    def blank(self, index: BlockIndex, region: Region) -> list[tuple[slice, slice]]:
        """Where a region lies in blocks that are skipped, in its own coordinates."""
        if not self.plan.skipped:
            return []
        side, found = self.plan.block, []
        (top, left), (bottom, right) = region
        for row in range(top // side, -(-bottom // side)):
            for column in range(left // side, -(-right // side)):
                if (index[0], index[1], row, column) in self.skipped:
                    y, x = (max(0, n * side - o) for n, o in ((row, top), (column, left)))
                    found.append((slice(y, (row + 1) * side - top), slice(x, (column + 1) * side - left)))
        return found

    @cached_property
    def skipped(self) -> frozenset[BlockIndex]:
        """Of the plan."""
        return frozenset(self.plan.skipped)


@dataclass(frozen=True)
class Window:
    """A region of the image with its halo, in memory; ``tile`` is the largest side that its tiles were planned for."""

    region: Region
    margin: int
    tile: int
    tiles: list[Tile]
    begin: tuple[int, int]
    image_cyx: Array

    def read(self, begin: tuple[int, int], end: tuple[int, int]) -> Array:
        """A part of it, in coordinates of the image."""
        y, x = (slice(a - o, b - o) for a, b, o in zip(begin, end, self.begin))
        return self.image_cyx[:, y, x]


@dataclass(frozen=True)
class Finish:
    """A block that is to be written into the store; ``numbers`` are the final ids of its objects."""

    store: Path
    specs: tuple[StoreSpec, ...]
    index: BlockIndex
    numbers: NDArray[np.int64] | None


def segment_block(worker: Worker, index: BlockIndex, window: Window | None = None) -> None:
    """Segment one block and write its file.

    Raises
    ------
    InputError
        The image cannot be read, or the file cannot be written.
    ResourceError
        Memory or the disk do not suffice.
    """
    plan, task = worker.plan, worker.model.task
    margin = plan.margin if window is None else window.margin
    while True:
        try:
            window = window or worker.window(index, margin)
            logits_kyx = worker.logits(index, window)
            core = _inside(plan.core(index), window.region[0])
            arrays = _labelled(worker, index, window.region, core, logits_kyx)
        except (ResourceError, MemoryError) as error:
            if isinstance(error, ResourceError) and error.where != "memory":
                raise
            # A window that was read ahead may be planned for larger tiles than those that are known to fit.
            tried, window = worker.tile if window is None else window.tile, None
            if tried <= worker.tile and not worker.shrink():
                raise
            continue
        if arrays is not None:
            break
        margin, window = 2 * margin, None  # some object reaches further than the margin
        worker.make_room(index, margin)
    if plan.asked.probabilities:
        probabilities_kyx = task.probabilities(logits_kyx[(slice(None), *core)])
        arrays["probabilities"] = probabilities_kyx.astype(np.float16)
    write_bytes(block_file(worker.folder, plan, index), _packed(plan, index, arrays))


def empty_block(folder: Path, plan: Plan, model: Model, index: BlockIndex) -> None:
    """Write the file of a block that is skipped: all background. Errors as for `segment_block`."""
    (top, left), (bottom, right) = plan.core(index)
    task = model.task
    arrays: dict[str, Array]
    if isinstance(task, Instances):
        (y, x), (y_end, x_end) = _grown(((top, left), (bottom, right)), 1, plan.size)
        nothing = np.zeros((y_end - y, x_end - x), np.float32)
        ends = y == 0, y_end == plan.size[0], x == 0, x_end == plan.size[1]
        core = _inside(((top, left), (bottom, right)), (y, x))
        block = pieces.cut_block(nothing, nothing, task.decoding, core, ends)
        assert block is not None
        arrays = block.to_arrays()
    else:
        arrays = {"labels_yx": model.as_written(np.zeros((bottom - top, right - left), np.int32))}
    if plan.asked.probabilities:
        certain_kyx = np.zeros((task.classes, bottom - top, right - left), np.float16)
        certain_kyx[: 0 if task.multilabel else 1] = 1
        arrays["probabilities"] = certain_kyx
    write_bytes(block_file(folder, plan, index), _packed(plan, index, arrays))


def _labelled(
    worker: Worker, index: BlockIndex, region: Region, core: tuple[slice, slice], logits_kyx: Array
) -> dict[str, Array] | None:
    """Labels of the core and what the merge needs; None where the region is too small to tell."""
    model, size = worker.model, worker.plan.size
    task = model.task
    if not isinstance(task, Instances):
        return {"labels_yx": model.as_written(task.decode(logits_kyx[(slice(None), *core)]))}
    foreground_yx, inner_yx = task.maps(logits_kyx)
    for part in worker.blank(index, region):
        foreground_yx[part] = 0
    (top, left), (bottom, right) = region
    ends = top == 0, bottom == size[0], left == 0, right == size[1]
    block = pieces.cut_block(foreground_yx, inner_yx, task.decoding, core, ends)
    return None if block is None else block.to_arrays()


def load_block(folder: Path, plan: Plan, index: BlockIndex) -> dict[str, Array] | None:
    """What was written for a block; None where it is not done, or its file is damaged."""
    path = block_file(folder, plan, index)
    try:
        header, tensors = sealed.unpack(path.read_bytes(), KIND, path)
        if header["block"] != list(index) or header["plan"] != plan.digest:
            return None
        return {name: _unpacked(header["arrays"][name], tensor.numpy()) for name, tensor in tensors.items()}
    except (OSError, ModelError, KeyError, TypeError, ValueError, zlib.error):
        return None


def load_facts(folder: Path, plan: Plan, index: BlockIndex) -> Facts:
    """What the merge must know of a block that is done.

    Raises
    ------
    InputError
        It is not, or no longer.
    """
    return Facts.from_arrays(_done(folder, plan, index))


def finish_block(folder: Path, plan: Plan, block: Finish) -> list[str]:
    """Write the block's images into the store, with the final ids; returns their digests.

    Raises
    ------
    InputError
        The block's file is missing or damaged, or the store cannot be written.
    ResourceError
        The disk is full.
    """
    arrays = _done(folder, plan, block.index)
    labels = arrays["labels_yx"]
    if block.numbers is not None:
        labels = pieces.finish_block(labels, block.numbers, block.specs[0].dtype)
    planes = labels if labels.ndim == 3 else labels[None]
    found = [*planes, *([arrays["probabilities"]] if plan.asked.probabilities else [])]
    return [
        write_block(block.store, spec, 0, block.index, np.ascontiguousarray(part, spec.dtype))
        for spec, part in zip(block.specs, found, strict=True)
    ]


def block_file(folder: Path, plan: Plan, index: BlockIndex) -> Path:
    """Where the result of a block is kept until the store is finished; not more than 1000 in one folder."""
    number = int(np.ravel_multi_index(index, plan.grid))
    return folder / "blocks" / f"{number // 1000:05d}" / f"{number:08d}.block"


def _done(folder: Path, plan: Plan, index: BlockIndex) -> dict[str, Array]:
    arrays = load_block(folder, plan, index)
    if arrays is None:
        path = block_file(folder, plan, index)
        raise InputError(path, "was damaged or removed while the store was written", "run the same command again")
    return arrays


def _packed(plan: Plan, index: BlockIndex, arrays: Mapping[str, Array]) -> bytes:
    about = {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in arrays.items()}
    tensors = {}
    for name, array in arrays.items():
        squeezed = zlib.compress(np.ascontiguousarray(array).tobytes(), 1)
        tensors[name] = torch.frombuffer(bytearray(squeezed), dtype=torch.uint8)
    return sealed.pack(KIND, {"block": list(index), "plan": plan.digest, "arrays": about}, tensors)


def _unpacked(about: Mapping[str, Any], squeezed: Array) -> Array:
    shape, dtype = tuple(int(side) for side in about["shape"]), np.dtype(about["dtype"])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = zlib.decompressobj().decompress(squeezed.tobytes(), size + 1)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes are not {dtype} {shape}")
    return np.frombuffer(data, dtype).reshape(shape)


def _grown(core: Region, margin: int, size: tuple[int, int]) -> Region:
    """A block with its margin, and the line beyond that its neighbours begin with."""
    wide = margin + 1 if margin else 0
    (top, left), (bottom, right) = core
    return (max(0, top - wide), max(0, left - wide)), (min(size[0], bottom + wide), min(size[1], right + wide))


def _inside(core: Region, begin: tuple[int, int]) -> tuple[slice, slice]:
    (top, left), (bottom, right) = core
    return slice(top - begin[0], bottom - begin[0]), slice(left - begin[1], right - begin[1])
