"""The tiles of a model's images: planned for its net, run through an engine, and halved if the memory is short."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, OutOfMemory
from septa.images import Normalization, cut_mirrored
from septa.inference import (
    CoreConsumer,
    Engine,
    ImageTile,
    NetGeometry,
    plan_tiles_for,
    predict_tiles,
    smallest_tile_for,
)

from .options import PredictionOptions


def check_tile(net: NetGeometry, tile: int | None) -> None:
    """Check that a tile has room for a core and the halo of the net; None is accepted.

    Raises
    ------
    InputError
        The tile is too small.
    """
    least = smallest_tile_for(net)
    if tile is not None and tile < least:
        problem = f"a tile of this net must be at least {least} pixels, got {tile}"
        raise InputError("--tile", problem, f"Give --tile {least} or more")


def plan_model_tiles(net: NetGeometry, height: int, width: int, tile: int | None) -> list[ImageTile]:
    """Plan the tiles of an image of this size in pixels; InputError as of `check_tile`."""
    check_tile(net, tile)
    return plan_tiles_for(net, height, width, tile)


def run_tiles(
    net: NetGeometry,
    engine: Engine,
    image_cyx: NDArray[Any],
    normalization: Normalization,
    consume: CoreConsumer,
    options: PredictionOptions,
) -> None:
    """Pass the logits of each core of an image ``(C, Y, X)`` to ``consume``, with smaller tiles if the memory is short.

    Raises
    ------
    InputError
        The tile is too small.
    OutOfMemory, MemoryError
        The smallest tile, or a fixed tile, does not fit into the memory.
    """
    _, height, width = image_cyx.shape
    tiles = plan_model_tiles(net, height, width, options.tile)
    read = partial(cut_mirrored, image_cyx)
    largest = options.tile or max(max(np.subtract(tile.end, tile.begin)) for tile in tiles)
    while True:
        try:
            predict_tiles(engine, read, normalization, tiles, consume, options.sums)
            return
        except (OutOfMemory, MemoryError):
            if options.sums is not None:
                options.sums.clear()
            smaller = max(largest // 2, smallest_tile_for(net))
            if options.fixed_tile or smaller >= largest:
                raise
        largest = smaller
        tiles = plan_model_tiles(net, height, width, largest)


def count_pixels(consume: CoreConsumer, report: Callable[[int], object] | None) -> CoreConsumer:
    """Return a consumer that also reports the number of pixels of each core."""
    if report is None:
        return consume

    def consume_and_report(core: tuple[slice, slice], logits_kyx: NDArray[np.float32]) -> None:
        consume(core, logits_kyx)
        report(logits_kyx.shape[1] * logits_kyx.shape[2])

    return consume_and_report
