"""Labels of an array that is read lazily: a lazy array of dask, whose blocks are segmented when they are needed.

Each block is segmented in a window with the halo of the net around it, so that the labels are those of the whole image.
The objects of all blocks are joined by `septa.tasks.merge_blocks`, as for stores.
"""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError, SeptaWarning
from septa.images import Normalization, choose_sampling_steps, measure_values, read_mirrored
from septa.inference import (
    Engine,
    ImageRegion,
    ImageTile,
    add_margin,
    align_region,
    plan_tiles_for,
    predict_tiles,
)
from septa.notices import Notices
from septa.tasks import BlockLabels, MergedObjects, MergeFacts, merge_blocks, renumber_block

from .options import PredictionOptions
from .protocol import TrainedModel
from .size import find_scale, is_measured, measure_diameter

_LOG = logging.getLogger("septa")
BLOCK = 1024
"""Side of a block, pixels, before it is rounded up to the period of the net."""
_WHOLE = 1 << 20
"""Largest number of pixels of an image that is compared with the training images as a whole."""
_SPREAD, _WINDOW = 3, 256
"""Windows along each axis that are compared of a larger image, and their side in pixels."""


def import_dask() -> Any:
    """Import the arrays of dask.

    Raises
    ------
    InputError
        dask is not installed.
    """
    try:
        import dask.array
    except ImportError:
        remedy = "Run pip install 'septa[cluster]', or read the image into memory first"
        raise InputError("image", "a lazily read array needs dask, which is not installed", remedy) from None
    return dask


class LazyModel:
    """A model in the graph of dask, with one engine for each process, used by one thread at a time.

    It travels to other processes as the bytes of its file, so that nothing of it is unpickled.
    """

    def __init__(self, model: TrainedModel, options: PredictionOptions) -> None:
        self.model = model
        self.options = options
        self.lock = threading.Lock()
        self._engine: Engine | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how another process builds it."""
        return _restore, (type(self.model), self.model.to_bytes(), self.options)

    @property
    def engine(self) -> Engine:
        """The engine; hold the lock while it is made and used."""
        if self._engine is None:
            self._engine = self.model.engine(self.options.device, self.options.engine, self.options.precision)
        return self._engine

    def __dask_tokenize__(self) -> tuple[str, ...]:
        """Return what identifies the results in a graph."""
        return ("septa", self.model.weights_sha256, repr(self.options), self.model.recipe.model_dump_json())


def _restore(kind: type[TrainedModel], data: bytes, options: PredictionOptions) -> LazyModel:
    return LazyModel(kind.from_bytes(data, "model"), options)


def label_lazily(model: TrainedModel, image: Any, options: PredictionOptions) -> Any:
    """Return the labels of one image as a lazy array.

    Parameters
    ----------
    model
        Model.
    image
        Lazy array ``(C, Y, X)`` or ``(Y, X)`` of dask.
    options
        Options of the prediction; an ``engine`` is a name.

    Returns
    -------
    dask.array.Array
        Labels ``(Y, X)``, int32.
    """
    dask = import_dask()
    image_cyx = image[None] if image.ndim == 2 else image
    size = (int(image_cyx.shape[1]), int(image_cyx.shape[2]))
    model = _fit_size(model, image_cyx, size, options)
    lazy = dask.delayed(LazyModel(model, options), traverse=False)
    versions = model.recipe.inference.tta if options.tta is None else options.tta
    if versions > 1 or model.recipe.data.resize is not None:
        labels = dask.delayed(_label_whole)(lazy, image_cyx)
        return dask.array.from_delayed(labels, size, np.int32)
    side = math.ceil(BLOCK / model.net.multiple) * model.net.multiple
    rows, columns = ([(begin, min(begin + side, end)) for begin in range(0, end, side)] for end in size)
    constants = dask.delayed(_find_constants_lazily)(lazy, size, *_choose_samples(model, image_cyx, size))
    reader = dask.delayed(_Reader(image_cyx), traverse=False)
    blocks = []
    for (top, bottom), (left, right) in product(rows, columns):
        core = (top, left), (bottom, right)
        begin, end = _find_window(model, core, model.task.block_margin, size, options.tile)[1:]
        begin = max(0, begin[0]), max(0, begin[1])
        window_cyx = image_cyx[:, begin[0] : end[0], begin[1] : end[1]]
        blocks.append(dask.delayed(_label_block)(lazy, constants, core, size, begin, window_cyx, reader))
    merged = None
    if model.task.finds_objects:
        merged = dask.delayed(_merge)((len(rows), len(columns)), [block.facts for block in blocks])
    grid = []
    for row, (top, bottom) in enumerate(rows):
        line = []
        for column, (left, right) in enumerate(columns):
            labels = dask.delayed(_finish)(blocks[row * len(columns) + column], merged, row, column)
            line.append(dask.array.from_delayed(labels, (bottom - top, right - left), np.int32))
        grid.append(line)
    return dask.array.block(grid)


class _Reader:
    """The whole array, of which a block reads what lies beyond its window."""

    def __init__(self, image_cyx: Any) -> None:
        self._image_cyx = image_cyx

    def read(self, y: tuple[int, int], x: tuple[int, int]) -> NDArray[Any]:
        return np.asarray(self._image_cyx[:, slice(*y), slice(*x)])


def _choose_samples(model: TrainedModel, image_cyx: Any, size: tuple[int, int]) -> tuple[Any, list[Any]]:
    """Return the pixels that the normalisation follows from, and windows to compare with the training images."""
    rows, columns = choose_sampling_steps(size)
    samples_cyx = None if model.normalization.kind == "dataset" else image_cyx[:, ::rows, ::columns]
    if model.training_values is None:
        return samples_cyx, []
    if math.prod(size) <= _WHOLE:
        return samples_cyx, [image_cyx]
    tops, lefts = (
        sorted({round(at) for at in np.linspace(0, max(0, side - _WINDOW), _SPREAD).tolist()}) for side in size
    )
    windows = [image_cyx[:, top : top + _WINDOW, left : left + _WINDOW] for top, left in product(tops, lefts)]
    return samples_cyx, windows


def _fit_size(model: TrainedModel, image_cyx: Any, size: tuple[int, int], options: PredictionOptions) -> TrainedModel:
    """Return the model at the size of the image, of which some windows are read at once if the model asks for it."""
    if not is_measured(model):
        return model
    samples_cyx, windows = _choose_samples(model, image_cyx, size)
    read = [np.asarray(window) for window in windows]
    constants = _find_constants(model, size, None if samples_cyx is None else np.asarray(samples_cyx), read)

    def read_window(window: tuple[slice, slice]) -> NDArray[Any]:
        return model.as_model_input(np.asarray(image_cyx[(slice(None), *window)]), "image")

    notices = Notices()
    diameter = measure_diameter(model, read_window, size, constants, options.device)
    sized = model.apply_scale(find_scale(model, diameter, size, "image", notices))
    for line in notices.lines():
        _LOG.info(line)
    return sized


def _find_constants(
    model: TrainedModel, size: tuple[int, int], samples_cyx: NDArray[Any] | None, windows: Sequence[NDArray[Any]]
) -> Normalization:
    """Return the normalisation of the image, with the factor for its values."""
    factor = 1.0
    if windows:
        fitted = [model.as_model_input(np.asarray(window), "image") for window in windows]
        shown = [window for window in fitted if measure_values(window).structured is not False]
        if shown or len(fitted) == 1:
            notices = Notices()
            factor = model.find_factor(np.concatenate(shown or fitted, axis=2), "image", notices)
            for line in notices.lines():
                warnings.warn(line, SeptaWarning, stacklevel=2)
    normalization = model.normalization.rescale(factor)
    if samples_cyx is None:
        return normalization
    input_cyx = model.as_model_input(samples_cyx, "image")
    if choose_sampling_steps(size) == (1, 1):
        return normalization.resolve(input_cyx)
    return normalization.resolve_samples(list(input_cyx))


def _find_constants_lazily(lazy: LazyModel, *facts: Any) -> Normalization:
    return _find_constants(lazy.model, *facts)


def _find_window(
    model: TrainedModel, core: ImageRegion, margin: int, size: tuple[int, int], tile: int | None
) -> tuple[list[ImageTile], tuple[int, int], tuple[int, int]]:
    """Return the tiles of a block with its margin, and the first and the last pixel that they read."""
    region = align_region(add_margin(core, margin, size), size, model.net.multiple)
    tiles = plan_tiles_for(model.net, *size, tile, region)
    begin = min(each.begin[0] for each in tiles), min(each.begin[1] for each in tiles)
    return tiles, begin, (max(each.end[0] for each in tiles), max(each.end[1] for each in tiles))


def _label_block(
    lazy: LazyModel,
    normalization: Normalization,
    core: ImageRegion,
    size: tuple[int, int],
    begin: tuple[int, int],
    window_cyx: NDArray[Any],
    reader: _Reader,
) -> BlockLabels:
    """Find the labels of a block; the margin is doubled until it holds the objects of the block."""
    model, margin = lazy.model, lazy.model.task.block_margin
    end = begin[0] + window_cyx.shape[1], begin[1] + window_cyx.shape[2]

    def read_inside(y: tuple[int, int], x: tuple[int, int]) -> NDArray[Any]:
        inside = begin[0] <= y[0] and y[1] <= end[0] and begin[1] <= x[0] and x[1] <= end[1]
        part_cyx = (
            window_cyx[:, y[0] - begin[0] : y[1] - begin[0], x[0] - begin[1] : x[1] - begin[1]]
            if inside
            else reader.read(y, x)
        )
        return model.as_model_input(np.asarray(part_cyx), "image")

    def read(first: tuple[int, int], last: tuple[int, int]) -> NDArray[Any]:
        return read_mirrored(read_inside, size, first, last)

    while True:
        tiles = _find_window(model, core, margin, size, lazy.options.tile)[0]
        (top, left), (bottom, right) = align_region(add_margin(core, margin, size), size, model.net.multiple)
        logits_kyx = np.empty((model.net.out_channels, bottom - top, right - left), np.float32)

        def keep(
            place: tuple[slice, slice],
            part_kyx: NDArray[np.float32],
            out_kyx: NDArray[np.float32] = logits_kyx,
            origin: tuple[int, int] = (top, left),
        ) -> None:
            y, x = (slice(part.start - at, part.stop - at) for part, at in zip(place, origin, strict=True))
            out_kyx[:, y, x] = part_kyx

        with lazy.lock:
            predict_tiles(lazy.engine, read, normalization, tiles, keep)
        local = slice(core[0][0] - top, core[1][0] - top), slice(core[0][1] - left, core[1][1] - left)
        ends = (top == 0, bottom == size[0], left == 0, right == size[1])
        block = model.task.label_block(logits_kyx, local, ends)
        if block is not None:
            return block
        margin *= 2


def _merge(grid: tuple[int, int], facts: Sequence[MergeFacts]) -> MergedObjects:
    return merge_blocks(grid, lambda row, column: facts[row * grid[1] + column])


def _finish(block: BlockLabels, merged: MergedObjects | None, row: int, column: int) -> NDArray[np.int32]:
    """Return the labels of a block as those of the whole image."""
    if merged is None:
        return block.labels_yx
    return renumber_block(block.labels_yx, merged.look_up_ids(row, column), np.int32)


def _label_whole(lazy: LazyModel, image_cyx: NDArray[Any]) -> NDArray[np.int32]:
    with lazy.lock:
        options = replace(lazy.options, engine=lazy.engine, precision=None)
        return lazy.model.compute_labels(lazy.model.as_model_input(image_cyx, "image"), options)
