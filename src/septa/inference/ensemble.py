"""The engine of an ensemble: each member runs on every image, and their activations are averaged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from septa.inference.protocol import Engine, run_with_statistics

Float32 = NDArray[np.float32]


class Averaging(NamedTuple):
    """Functions between the logits of a task and values that may be averaged.

    Attributes
    ----------
    activations
        Function from logits ``(K, Y, X)`` to values in [0, 1], in memory of their own.
    as_logits
        Its inverse.
    """

    activations: Callable[[Float32], Float32]
    as_logits: Callable[[Float32], Float32]


class EnsembleEngine:
    """Engine that computes the logits of the averaged activations of several nets.

    The mean is taken of probabilities (`septa.tasks.Task.activations`), as for rotated and mirrored versions of an
    image, and not of logits: one member that is sure of a mistake has a huge logit and would outvote the others.

    Each pixel is averaged by itself, so the result does not depend on the tiles if those of the members do not. Logits
    of one member at a time are held in memory.

    Parameters
    ----------
    engines
        Engine of each member.
    averaging
        Functions of the task.

    References
    ----------
    Lakshminarayanan, Pritzel, Blundell 2017, "Simple and scalable predictive uncertainty estimation using deep
    ensembles" (arXiv 1612.01474), section 2.4.
    """

    def __init__(self, engines: Sequence[Engine], averaging: Averaging) -> None:
        self._engines = engines
        self._averaging = averaging

    def __call__(self, image_cyx: Float32) -> Float32:
        """Compute the logits of one image; see `Engine`."""
        return next(self.run_many([image_cyx]))

    def run_many(self, images: Iterable[Float32]) -> Iterator[Float32]:
        """Yield the logits of each image; see `Engine`. An image is read once for all members."""
        first, *others = self._engines
        copies = tee(images, len(self._engines))
        return self._average(first.run_many(copies[0]), others, copies[1:])

    def run_with_statistics(self, images: Iterable[Float32]) -> Iterator[tuple[Float32, Float32 | None]]:
        """Yield the logits of each image, and the statistics of the first member; see `run_with_statistics`."""
        first, *others = self._engines
        copies = tee(images, len(self._engines))
        found: deque[Float32 | None] = deque()

        def run_first() -> Iterator[Float32]:
            for logits_kyx, statistics_cyx in run_with_statistics(first, copies[0]):
                found.append(statistics_cyx)
                yield logits_kyx

        for logits_kyx in self._average(run_first(), others, copies[1:]):
            yield logits_kyx, found.popleft()

    def _average(
        self, first: Iterator[Float32], others: Sequence[Engine], copies: Sequence[Iterable[Float32]]
    ) -> Iterator[Float32]:
        runs = [engine.run_many(copy) for engine, copy in zip(others, copies, strict=True)]
        activations, as_logits = self._averaging
        share = np.float32(1 / len(self._engines))
        for logits_kyx in first:
            sum_kyx = activations(logits_kyx)
            for run in runs:
                sum_kyx += activations(next(run))
            sum_kyx *= share
            yield as_logits(sum_kyx)
