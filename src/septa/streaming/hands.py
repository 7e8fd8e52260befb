"""Who does the blocks of a run: this process, or others (`septa.streaming.cluster`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from septa.images.store import BlockIndex
from septa.streaming.blocks import Finish, Window, Worker, finish_block, segment_block
from septa.streaming.events import Request


class Hands(Protocol):
    """Who does the blocks; `septa.streaming.cluster` has others."""

    def segment(self, indices: list[BlockIndex]) -> Iterator[BlockIndex]:
        """Segment blocks, in any order, telling each that is done."""
        ...

    def finish(self, blocks: Iterable[Finish]) -> Iterator[tuple[BlockIndex, list[str]]]:
        """Write blocks into the store, telling each with its digests."""
        ...


MakeHands = Callable[[Request, Worker], Hands]
"""Hands for a run, from what is asked and what the client has made of it."""


class Local:
    """This process: the next window is read while the net is at work on one."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def segment(self, indices: list[BlockIndex]) -> Iterator[BlockIndex]:
        """As `Hands.segment`."""
        worker, margin = self._worker, self._worker.plan.margin
        with ThreadPoolExecutor(1) as reader:
            ahead: Future[Window] | None = None
            for number, index in enumerate(indices):
                window = ahead.result() if ahead is not None else worker.window(index, margin)
                following = indices[number + 1 : number + 2]
                ahead = reader.submit(worker.window, following[0], margin) if following else None
                segment_block(worker, index, window)
                yield index

    def finish(self, blocks: Iterable[Finish]) -> Iterator[tuple[BlockIndex, list[str]]]:
        """As `Hands.finish`."""
        for block in blocks:
            worker = self._worker
            yield block.index, finish_block(worker.folder, worker.plan, block)
