"""An engine that reports its progress, so that a program with windows can show it and stop the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.inference.protocol import Engine

Float32 = NDArray[np.float32]


class WatchedEngine:
    """An engine that reports each window that it has computed.

    Parameters
    ----------
    engine
        Engine that computes.
    count
        Expected number of windows.
    report
        Function that receives the share that is done, and a text; it may raise to stop.
    """

    def __init__(self, engine: Engine, count: int, report: Callable[[float, str], None]) -> None:
        self._engine = engine
        self._count = count
        self._done = 0
        self._report = report
        run = getattr(engine, "run_with_statistics", None)
        if run is not None:
            self.run_with_statistics = lambda images: self._watch(run(images))

    def __call__(self, image_cyx: Float32) -> Float32:
        """Compute the logits of one image; see `Engine`."""
        return self._engine(image_cyx)

    def run_many(self, images: Iterable[Float32]) -> Iterator[Float32]:
        """Yield the logits of each image; see `Engine`."""
        return self._watch(self._engine.run_many(images))

    def _watch(self, results: Iterator[Any]) -> Iterator[Any]:
        self._tick()
        for result in results:
            self._done += 1
            self._tick()
            yield result

    def _tick(self) -> None:
        self._report(self._done / max(self._count, 1), f"{min(self._done, self._count)} of {self._count} tiles")
