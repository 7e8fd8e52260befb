"""Who does the blocks of a run: this process, or others (`septa.streaming.dask_cluster`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Protocol, TypeVar

import torch

from septa.images.store import BlockIndex
from septa.prefetch import map_in_background, prefetch_items
from septa.streaming.blocks import (
    BlockWindow,
    BlockWorker,
    OutputBlock,
    PyramidBlock,
    ScoredBlock,
    label_block,
    score_block,
    segment_block,
    write_output_block,
    write_pyramid_block,
)
from septa.streaming.budget import store_bytes
from septa.streaming.events import StreamRequest

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """Who does the blocks; `septa.streaming.dask_cluster` has others."""

    def segment(self, indices: list[BlockIndex]) -> Iterator[BlockIndex]:
        """Segment blocks, in any order, telling each that is done."""
        ...

    def write_output(self, blocks: Iterable[OutputBlock]) -> Iterator[tuple[OutputBlock, list[str]]]:
        """Write blocks into the store, in any order, telling each with its digests."""
        ...

    def write_pyramid(self, blocks: Iterable[PyramidBlock]) -> Iterator[tuple[PyramidBlock, str]]:
        """Write blocks of one level of the pyramid, in any order, telling each with its digest."""
        ...

    def close(self) -> None:
        """The run is done."""
        ...


MakeExecutor = Callable[[StreamRequest, BlockWorker], Executor]
"""An executor for a run, from what is asked and what the client has made of it."""


class LocalExecutor:
    """This process. While the net is at one block, the next one is read, and what it has scored before is labelled."""

    def __init__(self, worker: BlockWorker) -> None:
        self._worker = worker

    def segment(self, indices: list[BlockIndex]) -> Iterator[BlockIndex]:
        """As `Executor.segment`; blocks whose objects reach further than the margin come last, one at a time."""
        worker, margin = self._worker, self._worker.plan.margin
        again: list[tuple[BlockIndex, int]] = []

        def score(given: tuple[BlockIndex, BlockWindow]) -> ScoredBlock:
            return score_block(worker, given[0], margin, given[1])

        def label(scored: ScoredBlock) -> tuple[BlockIndex, int | None]:
            """The block, and the margin with which it is to be done again, if it is."""
            try:
                return scored.index, None if label_block(worker, scored) else 2 * margin
            except MemoryError:  # there is more of it when no other block is in flight
                return scored.index, margin

        with (
            closing(prefetch_items((index, worker.window(index, margin)) for index in indices)) as windows,
            closing(map_in_background(label, map(score, windows))) as labelled,
        ):
            for index, wider in labelled:
                if wider is None:
                    yield index
                else:
                    again.append((index, wider))
        for index, wider in again:
            segment_block(worker, index, wider)
            yield index

    def write_output(self, blocks: Iterable[OutputBlock]) -> Iterator[tuple[OutputBlock, list[str]]]:
        """As `Executor.finish`."""
        worker = self._worker
        return self._spread(lambda block: write_output_block(worker.folder, worker.plan, block), blocks)

    def write_pyramid(self, blocks: Iterable[PyramidBlock]) -> Iterator[tuple[PyramidBlock, str]]:
        """As `Executor.build`."""
        return self._spread(write_pyramid_block, blocks)

    def close(self) -> None:
        """As `Executor.close`."""

    def _spread(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Do items in as many threads as the net has, or fewer where the memory asks for that."""
        threads, free = torch.get_num_threads(), self._worker.free
        if free is not None:
            threads = max(1, min(threads, free // store_bytes(self._worker.model, self._worker.plan.block)))
        running: deque[tuple[Item, Future[Result]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for item in items:
                running.append((item, pool.submit(work, item)))
                if len(running) > threads:
                    done, future = running.popleft()
                    yield done, future.result()
            for done, future in running:
                yield done, future.result()
