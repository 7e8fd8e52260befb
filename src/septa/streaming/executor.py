"""The interface of executors, which do the blocks of a run, and the executor that uses this process.

`septa.streaming.dask_cluster` has an executor that uses other processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Protocol, TypeVar

import torch

from septa.images.store import BlockIndex
from septa.prefetch import map_in_background, prefetch_items
from septa.streaming.block_worker import BlockWindow, BlockWorker
from septa.streaming.blocks import (
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
from septa.streaming.measuring import ObjectBlock, count_threads, measure_block

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """The processes or threads that do the blocks of a run."""

    def segment(self, indices: list[BlockIndex]) -> Iterator[BlockIndex]:
        """Segment blocks and yield the index of each finished one, in any order."""
        ...

    def write_output(self, blocks: Iterable[OutputBlock]) -> Iterator[tuple[OutputBlock, list[str]]]:
        """Write blocks into the store and yield each with its digests, in any order."""
        ...

    def measure(self, blocks: Iterable[ObjectBlock]) -> Iterator[ObjectBlock]:
        """Measure the objects of blocks and yield each finished block, in any order."""
        ...

    def write_pyramid(self, blocks: Iterable[PyramidBlock]) -> Iterator[tuple[PyramidBlock, str]]:
        """Write blocks of one pyramid level and yield each with its digest, in any order."""
        ...

    def close(self) -> None:
        """Free everything that was kept for the run."""
        ...


MakeExecutor = Callable[[StreamRequest, BlockWorker], Executor]
"""Makes an executor for a run, from its request and the client's own worker."""


class LocalExecutor:
    """An executor that uses this process.

    While the net runs on one block, one thread reads the next block and another labels the previous one.
    """

    def __init__(self, worker: BlockWorker) -> None:
        self._worker = worker

    def segment(self, indices: list[BlockIndex]) -> Iterator[BlockIndex]:
        """Segment blocks and yield the index of each finished one.

        A block with objects that reach beyond the margin is done again at the end, when no other block is in memory.
        """
        worker = self._worker
        margin = worker.plan.margin
        again: list[tuple[BlockIndex, int]] = []

        def score(given: tuple[BlockIndex, BlockWindow]) -> ScoredBlock:
            index, window = given
            return score_block(worker, index, margin, window)

        def label(scored: ScoredBlock) -> tuple[BlockIndex, int | None]:
            """Label a block. Return it with None, or with the margin with which it has to be done again."""
            try:
                return scored.index, None if label_block(worker, scored) else 2 * margin
            except MemoryError:  # more memory is free when no other block is in flight
                return scored.index, margin

        with (
            closing(prefetch_items((index, worker.read_window(index, margin)) for index in indices)) as windows,
            closing(map_in_background(label, map(score, windows))) as labelled,
        ):
            for index, next_margin in labelled:
                if next_margin is None:
                    yield index
                else:
                    again.append((index, next_margin))
        for index, next_margin in again:
            segment_block(worker, index, next_margin)
            yield index

    def write_output(self, blocks: Iterable[OutputBlock]) -> Iterator[tuple[OutputBlock, list[str]]]:
        """Write blocks into the store and yield each with its digests."""
        worker = self._worker

        def write(block: OutputBlock) -> list[str]:
            return write_output_block(worker.folder, worker.plan, worker.model, block)

        return self._map_in_threads(write, blocks)

    def measure(self, blocks: Iterable[ObjectBlock]) -> Iterator[ObjectBlock]:
        """Measure the objects of blocks and yield each finished block."""
        worker = self._worker
        threads = count_threads(worker, torch.get_num_threads())
        for block, _ in self._map_in_threads(lambda block: measure_block(worker, block), blocks, threads):
            yield block

    def write_pyramid(self, blocks: Iterable[PyramidBlock]) -> Iterator[tuple[PyramidBlock, str]]:
        """Write blocks of one pyramid level and yield each with its digest."""
        return self._map_in_threads(write_pyramid_block, blocks)

    def close(self) -> None:
        """Do nothing: this process keeps nothing for the run."""

    def _map_in_threads(
        self, work: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
    ) -> Iterator[tuple[Item, Result]]:
        """Call a function for each item, in as many threads as torch uses, or fewer if the memory requires that."""
        worker = self._worker
        if threads is None:
            threads = torch.get_num_threads()
            if worker.free is not None:
                threads = max(1, min(threads, worker.free // store_bytes(worker.model, worker.plan.block)))
        running: deque[tuple[Item, Future[Result]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for item in items:
                running.append((item, pool.submit(work, item)))
                if len(running) > threads:
                    done, future = running.popleft()
                    yield done, future.result()
            for done, future in running:
                yield done, future.result()
