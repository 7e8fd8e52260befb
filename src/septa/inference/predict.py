"""The tile loop: an engine computes the windows of an image, and a consumer receives the cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.images import Normalization
from septa.inference.features import FeatureSums
from septa.inference.protocol import Engine, run_with_statistics
from septa.inference.tiling import ImageTile

WindowReader = Callable[[tuple[int, int], tuple[int, int]], NDArray[Any]]
"""Function from the first row and column of a window, and the row and column after it, to its raw values ``CYX``.

A window of a valid net may reach beyond the image, which is mirrored there; see `septa.images.cut_mirrored`."""

CoreConsumer = Callable[[tuple[slice, slice], NDArray[np.float32]], None]
"""Function that receives the index ``(Y, X)`` of a core in the image, and its logits ``KYX``, float32."""


def predict_tiles(
    engine: Engine,
    read: WindowReader,
    normalization: Normalization,
    tiles: Sequence[ImageTile],
    consume: CoreConsumer,
    sums: FeatureSums | None = None,
) -> None:
    """Compute the logits of every tile and pass their cores to ``consume``, in the order of the tiles.

    Parameters
    ----------
    engine
        Engine that runs the net.
    read
        Function that reads a window. Windows are read and normalised when the engine asks for them.
    normalization
        Constants for this image; see `septa.images.Normalization.resolve`.
    tiles
        Tiles from `plan_tiles` or `plan_tiles_for`.
    consume
        Function that receives each core.
    sums
        Receives the features of each core, if the engine has access to them.
    """
    windows = (normalization.apply(read(tile.begin, tile.end)) for tile in tiles)
    if sums is None:
        for tile, logits_kyx in zip(tiles, engine.run_many(windows), strict=True):
            consume(tile.core, logits_kyx[(slice(None), *tile.core_in_output)])
        return
    for tile, (logits_kyx, statistics_cyx) in zip(tiles, run_with_statistics(engine, windows), strict=True):
        if statistics_cyx is not None:
            sums.add(statistics_cyx, tile)
        consume(tile.core, logits_kyx[(slice(None), *tile.core_in_output)])
