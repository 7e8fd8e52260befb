"""The tile loop: windows of an image through an engine, cores to a consumer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.images import Normalization
from septa.inference.protocol import Engine
from septa.inference.tiling import ImageTile

WindowReader = Callable[[tuple[int, int], tuple[int, int]], NDArray[Any]]
"""Gives the window of an image from its first row and column to those behind it, raw values ``CYX``. Where it lies
outside the image, which only valid nets ask for, it is mirrored; see `septa.images.window`."""

CoreConsumer = Callable[[tuple[slice, slice], NDArray[np.float32]], None]
"""Receives the index of a core in the image and its logits ``KYX`` float32."""


def predict_tiles(
    engine: Engine,
    read: WindowReader,
    normalization: Normalization,
    tiles: Sequence[ImageTile],
    consume: CoreConsumer,
) -> None:
    """Run every tile's window through the engine and hand the core of its logits to ``consume``, in the plan's order.

    Parameters
    ----------
    engine
        Executes the net.
    read
        Gives each window in raw values; no more of them are normalised than the engine takes at once.
    normalization
        Constants, already resolved for this image.
    tiles
        From `septa.inference.tiling.plan_tiles`.
    consume
        Receives each core.
    """
    windows = (normalization.apply(read(tile.begin, tile.end)) for tile in tiles)
    for tile, logits_kyx in zip(tiles, engine.run_many(windows), strict=True):
        consume(tile.core, logits_kyx[(slice(None), *tile.core_in_output)])
