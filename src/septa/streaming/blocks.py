"""The two functions of a block. `segment_block` writes one file, which alone says that the block is done;
`write_output_block` turns that file into a block of the store. Both can be done again at any time, by any process.

`segment_block` is `score_block`, in which the net works, and `label_block`, in which it does not: one of them can be
done while another block is at the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import OutOfMemory, ResourceError
from septa.images import Source, read_mirrored, store
from septa.images.store import BlockIndex, StoreSpec
from septa.inference import (
    Engine,
    ImageRegion,
    ImageTile,
    align_region,
    plan_tiles_for,
    predict_tiles,
    smallest_tile_for,
)
from septa.model import Model
from septa.streaming.block_file import load_block, save_block
from septa.streaming.budget import fit_tile, megabytes, pixel_bytes, region_bytes, trim_heap
from septa.streaming.plan import StreamPlan
from septa.tasks import BlockLabels, renumber_block

Array = NDArray[Any]


@dataclass(kw_only=True)
class BlockWorker:
    """What segments blocks: the model, the image, and how large tiles may be here.

    ``tile`` is halved when memory does not suffice, and stays so. ``free`` are the bytes for the arrays and activations
    of a block, ``limit`` those that the process may hold; None: no limit. ``net_seconds`` are those that the engine has
    taken so far.
    """

    plan: StreamPlan
    model: Model
    source: Source
    engine: Engine
    folder: Path
    tile: int
    free: int | None = None
    limit: int | None = None
    net_seconds: float = 0.0

    def window(self, index: BlockIndex, margin: int) -> BlockWindow:
        """Read what the net needs for a block."""
        net, size, tile = self.model.net, self.plan.size, self.tile
        region = align_region(_add_margin(self.plan.core(index), margin, size), size, net.multiple)
        tiles = plan_tiles_for(net, *size, tile, region)
        begin = min(tile.begin[0] for tile in tiles), min(tile.begin[1] for tile in tiles)
        end = max(tile.end[0] for tile in tiles), max(tile.end[1] for tile in tiles)

        def read(y: tuple[int, int], x: tuple[int, int]) -> Array:
            image_cyx = self.source.read(y, x, t=index[0], z=index[1])
            return self.model.as_model_input(image_cyx, self.source.path)

        return BlockWindow(
            region=region,
            margin=margin,
            tile=tile,
            tiles=tiles,
            begin=begin,
            image_cyx=read_mirrored(read, size, begin, end),
        )

    def logits(self, index: BlockIndex, window: BlockWindow) -> Array:
        """Raw scores ``(K, Y, X)`` of a window's region, float32."""
        (top, left), (bottom, right) = window.region
        out_kyx = np.empty((self.model.net.out_channels, bottom - top, right - left), np.float32)

        def keep(core: tuple[slice, slice], logits_kyx: Array) -> None:
            y, x = core
            out_kyx[:, y.start - top : y.stop - top, x.start - left : x.stop - left] = logits_kyx

        predict_tiles(_Timed(self), window.read, self.plan.normalization(index), window.tiles, keep)
        return out_kyx

    def trim_heap(self, height: int, width: int) -> None:
        """Make sure that memory is left for a tile."""
        if self.limit is not None:
            trim_heap(self.limit, height * width * pixel_bytes(self.model, self.plan.identity.engine))

    def shrink(self) -> bool:
        """Halve the tile; False where it is the smallest already."""
        smaller = max(smallest_tile_for(self.model.net), self.tile // 2)
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
        (top, left), (bottom, right) = _add_margin(self.plan.core(index), margin, self.plan.size)
        itemsize, height, width = self.source.dtype.itemsize, bottom - top, right - left
        engine = self.plan.identity.engine
        tile = fit_tile(self.model, itemsize, height, width, self.free, engine)
        if not tile:
            place = f"rows {top} to {bottom}, columns {left} to {right}"
            least = smallest_tile_for(self.model.net) ** 2 * pixel_bytes(self.model, engine)
            missing = region_bytes(self.model, itemsize, height, width) + least - self.free
            needed = megabytes((self.limit or self.free) + missing)
            problem = f"connected objects at {place} do not fit into --memory together"
            raise ResourceError(self.source.path, problem, f"Give --memory {needed}MB or more")
        self.tile = min(self.tile, tile)

    def blank(self, index: BlockIndex, region: ImageRegion) -> list[tuple[slice, slice]]:
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


class _Timed:
    """A worker's engine, which counts its seconds and makes sure of memory before each tile."""

    def __init__(self, worker: BlockWorker) -> None:
        self._worker = worker

    def __call__(self, image_cyx: Array) -> Array:
        return next(self.run_many([image_cyx]))

    def run_many(self, images: Iterable[Array]) -> Iterator[Array]:
        worker, elsewhere = self._worker, 0.0

        def read() -> Iterator[Array]:
            nonlocal elsewhere
            began = perf_counter()
            for image_cyx in images:
                worker.trim_heap(*image_cyx.shape[1:])
                elsewhere += perf_counter() - began
                yield image_cyx
                began = perf_counter()

        began = perf_counter()
        for logits_kyx in worker.engine.run_many(read()):
            worker.net_seconds += perf_counter() - began - elsewhere
            yield logits_kyx
            began, elsewhere = perf_counter(), 0.0


@dataclass(frozen=True, kw_only=True)
class BlockWindow:
    """A region of the image with its halo, in memory; ``tile`` is the largest side that its tiles were planned for."""

    region: ImageRegion
    margin: int
    tile: int
    tiles: list[ImageTile]
    begin: tuple[int, int]
    image_cyx: Array

    def read(self, begin: tuple[int, int], end: tuple[int, int]) -> Array:
        """A part of it, in coordinates of the image."""
        y, x = (slice(a - o, b - o) for a, b, o in zip(begin, end, self.begin))
        return self.image_cyx[:, y, x]


@dataclass(frozen=True)
class ScoredBlock:
    """Raw scores of a block with its margin ``(K, Y, X)``, float32, and the region of the image that they are of."""

    index: BlockIndex
    margin: int
    region: ImageRegion
    logits_kyx: Array


@dataclass(frozen=True)
class OutputBlock:
    """A block that is to be written into the store; ``numbers`` are the final ids of its objects."""

    store: Path
    specs: tuple[StoreSpec, ...]
    index: BlockIndex
    numbers: NDArray[np.int64] | None


@dataclass(frozen=True)
class PyramidBlock:
    """A block of a level of the pyramid that is to be made from the level below."""

    store: Path
    spec: StoreSpec
    level: int
    index: BlockIndex


def segment_block(worker: BlockWorker, index: BlockIndex, margin: int | None = None) -> None:
    """Segment one block and write its file, with as wide a margin as it takes.

    Parameters
    ----------
    margin
        Pixels around the block to begin with; the plan's when not given.

    Raises
    ------
    InputError
        The image cannot be read, or the file cannot be written.
    ResourceError
        Memory or the disk do not suffice.
    """
    margin = worker.plan.margin if margin is None else margin
    while True:
        if margin > worker.plan.margin:
            worker.make_room(index, margin)
        try:
            if label_block(worker, score_block(worker, index, margin)):
                return
            margin *= 2
        except MemoryError:
            if not worker.shrink():
                raise


def score_block(worker: BlockWorker, index: BlockIndex, margin: int, window: BlockWindow | None = None) -> ScoredBlock:
    """Have the net score a block with a margin, in smaller tiles where memory does not suffice.

    Parameters
    ----------
    window
        Of this block and margin, if it was read already.

    Raises
    ------
    InputError
        The image cannot be read.
    ResourceError, MemoryError
        Memory does not suffice for the smallest tiles either.
    """
    while True:
        try:
            window = window or worker.window(index, margin)
            return ScoredBlock(index, margin, window.region, worker.logits(index, window))
        except (OutOfMemory, MemoryError):
            # A window that was read ahead may be planned for larger tiles than those that are known to fit.
            tried, window = worker.tile if window is None else window.tile, None
            if tried <= worker.tile and not worker.shrink():
                raise


def label_block(worker: BlockWorker, scored: ScoredBlock) -> bool:
    """Find what is in a block and write its file; False where an object reaches further than the margin.

    Raises
    ------
    InputError
        The file cannot be written.
    ResourceError, MemoryError
        Memory or the disk do not suffice.
    """
    plan, index, logits_kyx = worker.plan, scored.index, scored.logits_kyx
    core = _to_local(plan.core(index), scored.region[0])
    arrays = _find_labels(worker, index, scored.region, core, logits_kyx)
    if arrays is None:
        return False
    if plan.identity.probabilities:
        probabilities_kyx = worker.model.task.probabilities(logits_kyx[(slice(None), *core)])
        arrays["probabilities"] = probabilities_kyx.astype(np.float16)
    save_block(worker.folder, plan, index, arrays)
    return True


def write_empty_block(folder: Path, plan: StreamPlan, model: Model, index: BlockIndex) -> None:
    """Write the file of a block that is skipped: all background. Errors as for `segment_block`."""
    (top, left), (bottom, right) = plan.core(index)
    (y, x), (y_end, x_end) = _add_margin(((top, left), (bottom, right)), 1, plan.size)
    core = _to_local(((top, left), (bottom, right)), (y, x))
    task, ends = model.task, _ends(((y, x), (y_end, x_end)), plan.size)
    arrays = _to_arrays(task.blank_block((y_end - y, x_end - x), core, ends), model)
    if plan.identity.probabilities:
        certain_kyx = np.zeros((task.classes, bottom - top, right - left), np.float16)
        certain_kyx[: 0 if task.multilabel else 1] = 1
        arrays["probabilities"] = certain_kyx
    save_block(folder, plan, index, arrays)


def _find_labels(
    worker: BlockWorker, index: BlockIndex, region: ImageRegion, core: tuple[slice, slice], logits_kyx: Array
) -> dict[str, Array] | None:
    """Labels of the core and what the merge needs; None where the region is too small to tell."""
    ends, blank = _ends(region, worker.plan.size), worker.blank(index, region)
    block = worker.model.task.label_block(logits_kyx, core, ends, blank)
    return None if block is None else _to_arrays(block, worker.model)


def _ends(region: ImageRegion, size: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    """Tell where the image ends: at the top, bottom, left and right side of a region."""
    (top, left), (bottom, right) = region
    return top == 0, bottom == size[0], left == 0, right == size[1]


def _to_arrays(block: BlockLabels, model: Model) -> dict[str, Array]:
    """Arrays of a block's file. Ids are those of the block until the merge; classes become raw values at once."""
    return {"labels_yx": model.as_written(block.labels_yx)} if block.facts is None else block.to_arrays()


def write_output_block(folder: Path, plan: StreamPlan, block: OutputBlock) -> list[str]:
    """Write the block's images into the store, with the final ids; returns their digests.

    Raises
    ------
    InputError
        The block's file is missing or damaged, or the store cannot be written.
    ResourceError
        The disk is full.
    """
    soft = ["probabilities"] if plan.identity.probabilities else []
    labels, *more = load_block(folder, plan, block.index, ["labels_yx", *soft]).values()
    if block.numbers is not None:
        labels = renumber_block(labels, block.numbers, block.specs[0].dtype)
    planes = labels if labels.ndim == 3 else labels[None]
    return [
        store.write_store_block(block.store, spec, 0, block.index, np.ascontiguousarray(part, spec.dtype))
        for spec, part in zip(block.specs, [*planes, *more], strict=True)
    ]


def write_pyramid_block(block: PyramidBlock) -> str:
    """Write one block of a level of the pyramid; returns its digest. Errors as for `write_output_block`."""
    return store.build_pyramid_block(block.store, block.spec, block.level, block.index)


def _add_margin(core: ImageRegion, margin: int, size: tuple[int, int]) -> ImageRegion:
    """A block with its margin, and the line beyond that its neighbours begin with."""
    wide = margin + 1 if margin else 0
    (top, left), (bottom, right) = core
    return (max(0, top - wide), max(0, left - wide)), (min(size[0], bottom + wide), min(size[1], right + wide))


def _to_local(core: ImageRegion, begin: tuple[int, int]) -> tuple[slice, slice]:
    (top, left), (bottom, right) = core
    return slice(top - begin[0], bottom - begin[0]), slice(left - begin[1], right - begin[1])
