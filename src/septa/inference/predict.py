"""The tile loop: windows of an image through an engine, cores to a consumer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from septa.images.normalize import Normalization
from septa.images.window import mirrored_window
from septa.inference.engines import Engine
from septa.inference.tiling import Tile

Consumer = Callable[[tuple[slice, slice], NDArray[np.float32]], None]
"""Receives the index of a core in the image and its logits ``KYX`` float32."""


def predict_tiles(
    engine: Engine,
    image_cyx: NDArray[np.generic],
    normalization: Normalization,
    tiles: Sequence[Tile],
    consume: Consumer,
) -> None:
    """Run every tile's window through the engine and hand the core of its logits to ``consume``, in the plan's order.

    Parameters
    ----------
    engine
        Executes the net.
    image_cyx
        The image in raw values, ``CYX``; only a window of it is normalised at a time.
    normalization
        Constants, already resolved for this image.
    tiles
        From `septa.inference.tiling.plan`.
    consume
        Receives each core.
    """
    for tile in tiles:
        window_cyx = mirrored_window(image_cyx, tile.begin, tile.end)
        logits_kyx = engine(normalization.apply(window_cyx))
        consume(tile.core, logits_kyx[(slice(None), *tile.core_in_output)])
