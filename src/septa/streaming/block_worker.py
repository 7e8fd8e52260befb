"""The state of a process that segments blocks: model, image, engine, and the tiles that fit into its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import ResourceError
from septa.images import Source, read_mirrored
from septa.images.store import BlockIndex
from septa.inference import (
    Engine,
    ImageRegion,
    ImageTile,
    add_margin,
    align_region,
    plan_tiles_for,
    predict_tiles,
    smallest_tile_for,
)
from septa.model import Model
from septa.streaming.budget import fit_tile, megabytes, pixel_bytes, region_bytes, trim_heap
from septa.streaming.plan import StreamPlan

Array = NDArray[Any]


@dataclass(kw_only=True)
class BlockWorker:
    """A process that segments blocks.

    Attributes
    ----------
    plan, model, source, engine
        The run's plan and model, the open image, and the engine that runs the model's net.
    folder
        The work folder, which holds the blocks' files.
    tile
        Largest side of a tile, pixels. It is halved when a tile does not fit into the memory, and stays so.
    free
        Bytes for the arrays and activations of a block; None if there is no limit.
    limit
        Bytes that the process may hold; None if there is no limit.
    net_seconds
        Seconds that the engine has run so far.
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

    def read_window(self, index: BlockIndex, margin: int) -> BlockWindow:
        """Read the part of the image that the net needs for a block and its margin.

        Raises
        ------
        InputError
            The image cannot be read.
        """
        net = self.model.net
        size = self.plan.size
        region = align_region(add_margin(self.plan.core(index), margin, size), size, net.multiple)
        largest = self.tile  # another thread may halve it while this one reads
        tiles = plan_tiles_for(net, *size, largest, region)
        begin = min(tile.begin[0] for tile in tiles), min(tile.begin[1] for tile in tiles)
        end = max(tile.end[0] for tile in tiles), max(tile.end[1] for tile in tiles)

        def read(y: tuple[int, int], x: tuple[int, int]) -> Array:
            image_cyx = self.source.read(y, x, t=index[0], z=index[1])
            return self.model.as_model_input(image_cyx, self.source.path)

        return BlockWindow(
            region=region,
            margin=margin,
            tile=largest,
            tiles=tiles,
            begin=begin,
            image_cyx=read_mirrored(read, size, begin, end),
        )

    def compute_logits(self, index: BlockIndex, window: BlockWindow) -> Array:
        """Run the net on a window of a block.

        Returns
        -------
        ndarray
            Logits of the window's region, ``(K, Y, X)``, float32.

        Raises
        ------
        OutOfMemory, MemoryError
            A tile does not fit into the memory.
        """
        (top, left), (bottom, right) = window.region
        out_kyx = np.empty((self.model.net.out_channels, bottom - top, right - left), np.float32)

        def keep(core: tuple[slice, slice], logits_kyx: Array) -> None:
            y, x = core
            out_kyx[:, y.start - top : y.stop - top, x.start - left : x.stop - left] = logits_kyx

        predict_tiles(_TimedEngine(self), window.read, self.plan.normalization(index), window.tiles, keep)
        return out_kyx

    def free_memory_for(self, height: int, width: int) -> None:
        """Return freed memory to the system if a tile of this size might exceed the limit without that."""
        if self.limit is not None:
            trim_heap(self.limit, height * width * pixel_bytes(self.model, self.plan.identity.engine))

    def halve_tile(self) -> bool:
        """Halve the largest side of a tile; return False if it has its smallest value already."""
        smaller = max(smallest_tile_for(self.model.net), self.tile // 2)
        is_smaller = smaller < self.tile
        self.tile = smaller
        return is_smaller

    def fit_tile_to(self, index: BlockIndex, margin: int) -> None:
        """Reduce the tile so that a block with a wide margin fits into the memory budget.

        Raises
        ------
        ResourceError
            The block does not fit even with the smallest tile.
        """
        if self.free is None:
            return
        (top, left), (bottom, right) = add_margin(self.plan.core(index), margin, self.plan.size)
        height, width = bottom - top, right - left
        itemsize = self.source.dtype.itemsize
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

    def find_skipped_parts(self, index: BlockIndex, region: ImageRegion) -> list[tuple[slice, slice]]:
        """Find the parts of a region that lie in skipped blocks.

        Parameters
        ----------
        index
            A block of the region's plane.
        region
            Rows and columns of the image.

        Returns
        -------
        list
            Rows and columns of each part, counted from the region's first pixel.
        """
        if not self.plan.skipped:
            return []
        side = self.plan.block
        parts = []
        (top, left), (bottom, right) = region
        for row in range(top // side, -(-bottom // side)):
            for column in range(left // side, -(-right // side)):
                if (index[0], index[1], row, column) in self.skipped:
                    rows = slice(max(0, row * side - top), (row + 1) * side - top)
                    columns = slice(max(0, column * side - left), (column + 1) * side - left)
                    parts.append((rows, columns))
        return parts

    @cached_property
    def skipped(self) -> frozenset[BlockIndex]:
        """The skipped blocks of the plan, as a set."""
        return frozenset(self.plan.skipped)


class _TimedEngine:
    """The engine of a worker, which counts its seconds and frees memory before each tile."""

    def __init__(self, worker: BlockWorker) -> None:
        self._worker = worker

    def __call__(self, image_cyx: Array) -> Array:
        return next(self.run_many([image_cyx]))

    def run_many(self, images: Iterable[Array]) -> Iterator[Array]:
        worker = self._worker
        reading_seconds = 0.0

        def read() -> Iterator[Array]:
            nonlocal reading_seconds
            began = perf_counter()
            for image_cyx in images:
                worker.free_memory_for(*image_cyx.shape[1:])
                reading_seconds += perf_counter() - began
                yield image_cyx
                began = perf_counter()

        began = perf_counter()
        for logits_kyx in worker.engine.run_many(read()):
            worker.net_seconds += perf_counter() - began - reading_seconds
            yield logits_kyx
            began = perf_counter()
            reading_seconds = 0.0


@dataclass(frozen=True, kw_only=True)
class BlockWindow:
    """The part of the image that the net needs for a block, in memory.

    Attributes
    ----------
    region
        Rows and columns of the image for which the net computes logits: the block with its margin.
    margin
        Pixels around the block.
    tile, tiles
        Largest side of a tile that was planned for, pixels; the tiles of the region.
    begin
        First row and column of ``image_cyx`` in the image. They are negative if the window is mirrored there.
    image_cyx
        Raw values ``(C, Y, X)`` of the region and its halo.
    """

    region: ImageRegion
    margin: int
    tile: int
    tiles: list[ImageTile]
    begin: tuple[int, int]
    image_cyx: Array

    def read(self, begin: tuple[int, int], end: tuple[int, int]) -> Array:
        """Return a part ``(C, Y, X)`` of the window, given in rows and columns of the image."""
        y, x = (slice(first - start, last - start) for first, last, start in zip(begin, end, self.begin, strict=True))
        return self.image_cyx[:, y, x]
