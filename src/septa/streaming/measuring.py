"""Measure the objects of a store block by block, from the finished labels: `measure_block`.

Each object belongs to the block that numbers it, and is measured once, in a window that holds it as a whole with all
that its measurements depend on. So the values are exactly those of the whole image. Distances to objects beyond the
window stay open; see `septa.streaming.object_files`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import ResourceError
from septa.images import store
from septa.images.store import BlockIndex, StoreSpec
from septa.objects import (
    ObjectTable,
    choose_measurements,
    confidence,
    find_context,
    make_column_names,
    measure_objects,
    trace_outlines,
)
from septa.streaming.block_file import load_block, save_block
from septa.streaming.block_worker import BlockWorker
from septa.streaming.budget import megabytes
from septa.streaming.object_facts import extend_boxes, foreground_store

Array = NDArray[Any]
Int64 = NDArray[np.int64]
Box = tuple[int, int, int, int]

NEIGHBOUR_CONTEXT = 128
"""Pixels around a group of objects in which the nearest other object is looked for first."""
OPEN = "open"
"""Array with True for objects whose nearest other object lies beyond the window."""
EDGE_GAPS = ("nearest_edge_distance", "nearest_edge_distance_um")
_CELLS = (1024, 512, 256)
"""Sides of the cells in which objects are measured together, pixels, the largest first."""
_PIXEL_BYTES = 150
"""Bytes for a pixel of a window, with all measurements of an image of one channel."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ObjectBlock:
    """The objects of a block that have to be measured.

    Attributes
    ----------
    store, labels
        Path of the store that holds the labels, and its label image.
    class_labels
        Label image of the classes of objects, if there are any.
    index
        The block.
    first, count
        First id of the block's objects, and the number of ids.
    border, boxes
        Ids of those that lie in several blocks, and their boxes; see `PlaneObjects.look_up_border`.
    only_scores
        True if only the confidences are wanted, False if they are known or found together with the measurements.
    """

    store: Path
    labels: StoreSpec
    class_labels: StoreSpec | None
    index: BlockIndex
    first: int
    count: int
    border: Int64
    boxes: Int64
    only_scores: bool

    @cached_property
    def plane(self) -> tuple[int, int]:
        """Numbers along T and Z."""
        return self.index[:2]


def scores_folder(folder: Path) -> Path:
    """Return the folder of the files with confidences, in the work folder."""
    return folder / "scores"


def measures_folder(folder: Path) -> Path:
    """Return the folder of the files with measurements, in the work folder."""
    return folder / "measures"


def measure_block(worker: BlockWorker, block: ObjectBlock) -> None:
    """Measure the objects of one block, and write its file of measurements, or of confidences.

    Raises
    ------
    InputError
        The image, the labels or the foreground cannot be read, or the file cannot be written.
    ResourceError
        An object does not fit into the memory, or the disk is full.
    """
    settings = worker.plan.identity.objects
    assert settings is not None
    measure = ("basic",) if block.only_scores else settings.measure
    tables, polygons, opened = [_measure_nothing(worker, block)], list[Any](), [np.zeros(0, bool)]
    scores = np.full(block.count, np.nan)
    known = None
    if settings.min_confidence is not None and not block.only_scores:
        known = load_block(scores_folder(worker.folder), worker.plan, block.index, ["scores"])["scores"]
    for ids, window in _plan_windows(worker, block, measure):
        labels_yx = store.read_store_window(block.store, block.labels, block.plane, *_spans(window))
        confidences = _find_confidences(worker, block, labels_yx, window, known)
        present = np.unique(labels_yx[labels_yx > 0]).astype(np.int64)
        scores[ids - block.first] = confidences[np.searchsorted(present, ids)]
        if block.only_scores:
            continue
        table = _measure_window(worker, block, labels_yx, window, confidences).select(np.isin(present, ids))
        tables.append(table)
        opened.append(_find_open(worker, table, window, measure))
        if settings.geojson:
            wanted_yx = np.where(np.isin(labels_yx, ids), labels_yx, 0)
            polygons += _move(trace_outlines(wanted_yx), window)
    if block.only_scores:
        save_block(scores_folder(worker.folder), worker.plan, block.index, {"scores": scores})
        return
    joined = {name: np.concatenate([table.columns[name] for table in tables]) for name in tables[0].columns}
    order = np.argsort(joined["label"])
    arrays = pack_table(ObjectTable(joined).select(order)) | {OPEN: np.concatenate(opened)[order]}
    if settings.geojson:
        arrays |= pack_outlines([polygons[k] for k in order.tolist()])
    save_block(measures_folder(worker.folder), worker.plan, block.index, arrays)


def count_threads(worker: BlockWorker, threads: int) -> int:
    """Return the number of threads that may measure blocks at the same time."""
    if worker.free is None:
        return threads
    return max(1, min(threads, worker.free // (_window_bytes(worker, 2 * _CELLS[-1]) + _strip_bytes(worker))))


# Windows -------------------------------------------------------------------------------------------------------------


def _plan_windows(worker: BlockWorker, block: ObjectBlock, measure: tuple[str, ...]) -> Iterator[tuple[Int64, Box]]:
    """Yield groups of objects that lie near each other, by their ids, and the window for each group."""
    boxes = _find_own_boxes(worker, block)
    own = np.flatnonzero(boxes[:, 2] > boxes[:, 0])
    context = _find_context(measure)
    cell = _choose_cell(worker, context)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    small = own[sides[own] <= cell]
    cells = boxes[small, :2] // cell
    order = np.lexsort((cells[:, 1], cells[:, 0]))
    ends = np.flatnonzero((np.diff(cells[order], axis=0) != 0).any(axis=1)) + 1
    groups = [group for group in np.split(small[order], ends) if group.size]
    height, width = worker.plan.size
    for group in [*groups, *own[sides[own] > cell][:, None]]:
        (top, left), (bottom, right) = boxes[group, :2].min(axis=0).tolist(), boxes[group, 2:].max(axis=0).tolist()
        window = (
            max(0, top - context),
            max(0, left - context),
            min(height, bottom + context),
            min(width, right + context),
        )
        if group.size == 1:
            _check_memory(worker, window)
        yield np.sort(group) + block.first, window


def _find_own_boxes(worker: BlockWorker, block: ObjectBlock) -> Int64:
    far = np.iinfo(np.int64).max
    boxes = np.tile(np.array([far, far, -1, -1], np.int64), (block.count, 1))
    (top, left), (bottom, right) = worker.plan.core(block.index)
    for y in range(top, bottom, _CELLS[-1]):
        rows = y, min(bottom, y + _CELLS[-1])
        labels_yx = store.read_store_window(block.store, block.labels, block.plane, rows, (left, right))
        extend_boxes(labels_yx.astype(np.int64), block.first, y, left, boxes)
    boxes[block.border - block.first] = block.boxes
    return boxes


def _find_context(measure: tuple[str, ...]) -> int:
    context = find_context(measure)
    return max(context, NEIGHBOUR_CONTEXT) if "neighbours" in choose_measurements(measure) else context


def _choose_cell(worker: BlockWorker, context: int) -> int:
    """Return the side of the largest cell whose windows fit into the memory; objects may reach one cell beyond it."""
    fitting = (
        cell for cell in _CELLS if worker.free is None or _window_bytes(worker, 2 * cell + 2 * context) <= worker.free
    )
    return next(fitting, _CELLS[-1])


def _window_bytes(worker: BlockWorker, height: int, width: int | None = None) -> int:
    pixel = _PIXEL_BYTES + 2 * worker.source.dtype.itemsize * worker.model.channels
    return height * (width or height) * pixel


def _strip_bytes(worker: BlockWorker) -> int:
    return 16 * _CELLS[-1] * worker.plan.block


def _check_memory(worker: BlockWorker, window: Box) -> None:
    """Refuse an object that does not fit into the memory."""
    top, left, bottom, right = window
    needed = _window_bytes(worker, bottom - top, right - left)
    if worker.free is not None and needed > worker.free:
        least = megabytes((worker.limit or worker.free) + needed - worker.free)
        problem = f"an object at rows {top} to {bottom}, columns {left} to {right} is too large to be measured"
        raise ResourceError(worker.source.path, problem, f"Give --memory {least}MB or more, which resumes the run")


def _spans(window: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    top, left, bottom, right = window
    return (top, bottom), (left, right)


# Measurements --------------------------------------------------------------------------------------------------------


def _find_confidences(
    worker: BlockWorker, block: ObjectBlock, labels_yx: Array, window: Box, known: Array | None
) -> NDArray[np.float64]:
    """Return the confidences of all objects in a window; those of objects that are not the block's mean nothing."""
    if known is None:
        plane = store.read_store_window(
            foreground_store(worker.folder), worker.plan.foreground_spec(), block.plane, *_spans(window)
        )
        return worker.model.confidence_curve.apply(confidence(labels_yx, plane[0]))
    ids = np.unique(labels_yx[labels_yx > 0]).astype(np.int64) - block.first
    own = (ids >= 0) & (ids < block.count)
    return np.where(own, known[np.where(own, ids, 0)] if known.size else np.nan, np.nan)


def _measure_window(
    worker: BlockWorker, block: ObjectBlock, labels_yx: Array, window: Box, confidences: Array
) -> ObjectTable:
    plan, settings = worker.plan, worker.plan.identity.objects
    assert settings is not None
    image_cyx = worker.source.read(*_spans(window), t=block.index[0], z=block.index[1])
    image_cyx = worker.model.as_model_input(image_cyx, worker.source.path)
    class_yx = None
    if block.class_labels is not None:
        raw_yx = store.read_store_window(block.store, block.class_labels, block.plane, *_spans(window))
        values = worker.model.labels.raw_values
        order = np.argsort(values)
        class_yx = order[np.searchsorted(values[order], raw_yx)]
    return measure_objects(
        labels_yx,
        image_cyx,
        confidences=confidences,
        pixel_size_um=plan.calibration.pixel_size_um,
        channel_names=make_column_names(plan.calibration.channel_names, len(image_cyx)),
        class_yx=class_yx,
        measure=settings.measure,
        origin_yx=window[:2],
        size_yx=plan.size,
    )


def _measure_nothing(worker: BlockWorker, block: ObjectBlock) -> ObjectTable:
    """Return an empty table with all columns."""
    settings = worker.plan.identity.objects
    assert settings is not None
    nothing_yx = np.zeros((1, 1), block.labels.dtype)
    image_cyx = worker.model.as_model_input(
        np.zeros((worker.source.shape[1], 1, 1), worker.source.dtype), worker.source.path
    )
    known = worker.plan.calibration
    return measure_objects(
        nothing_yx,
        image_cyx,
        confidences=np.zeros(0),
        pixel_size_um=known.pixel_size_um,
        channel_names=make_column_names(known.channel_names, len(image_cyx)),
        class_yx=None if block.class_labels is None else np.zeros((1, 1), np.int64),
        measure=settings.measure,
    )


def _find_open(worker: BlockWorker, table: ObjectTable, window: Box, measure: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return True for objects to which another one may be nearer than the nearest in the window."""
    opened = np.zeros(len(table), bool)
    if "neighbours" not in choose_measurements(measure) or window == (0, 0, *worker.plan.size):
        return opened
    least = min(worker.plan.calibration.pixel_size_um or (1.0, 1.0))
    for name, unit in zip(EDGE_GAPS, (1.0, least)):
        if name in table.columns:
            opened |= ~(table.columns[name] <= NEIGHBOUR_CONTEXT * unit)  # NaN if there is no other object
    return opened


def _move(outlines: dict[int, Any], window: Box) -> list[Any]:
    """Return the polygons of objects, moved from a window to the image."""
    offset = np.array([window[1], window[0]], np.int32)
    return [tuple(tuple(ring + offset for ring in polygon) for polygon in polygons) for polygons in outlines.values()]


# Files ---------------------------------------------------------------------------------------------------------------

_COLUMNS, _COLUMN = "columns", "column "
_OUTLINES = ("corners", "rings", "polygons", "objects")


def pack_table(table: ObjectTable) -> dict[str, Array]:
    """Return the arrays that keep a table of numbers in a file; see `unpack_table`."""
    names = np.frombuffer(json.dumps(list(table.columns)).encode(), np.uint8)
    return {_COLUMNS: names, **{_COLUMN + name: values for name, values in table.columns.items()}}


def load_table(worker_folder: Path, worker: BlockWorker, index: BlockIndex) -> tuple[ObjectTable, NDArray[np.bool_]]:
    """Read the table of a block, and True for objects whose nearest other one is not known."""
    folder, plan = measures_folder(worker_folder), worker.plan
    names = json.loads(load_block(folder, plan, index, [_COLUMNS])[_COLUMNS].tobytes())
    arrays = load_block(folder, plan, index, [OPEN, *(_COLUMN + name for name in names)])
    return ObjectTable({name: arrays[_COLUMN + name] for name in names}), arrays[OPEN]


def pack_outlines(outlines: list[Any]) -> dict[str, Array]:
    """Return the arrays that keep the polygons of objects in a file; see `load_outlines`."""
    polygons = [polygon for each in outlines for polygon in each]
    rings = [ring for polygon in polygons for ring in polygon]
    corners = np.concatenate([*rings, np.zeros((0, 2), np.int32)])
    sizes = ([len(part) for part in parts] for parts in (rings, polygons, outlines))
    counts = (np.array(size, np.int64) for size in sizes)
    return dict(zip(_OUTLINES, (corners.astype(np.int32), *counts)))


def load_outlines(worker_folder: Path, worker: BlockWorker, index: BlockIndex) -> list[Any]:
    """Read the polygons of the objects of a block; see `septa.objects.trace_outlines`."""
    arrays = load_block(measures_folder(worker_folder), worker.plan, index, _OUTLINES)
    corners = arrays["corners"]
    parts = _cut(corners, arrays["rings"])
    for name in ("polygons", "objects"):
        parts = [tuple(part) for part in _cut(parts, arrays[name])]
    return parts


def _cut(values: Any, sizes: Int64) -> list[Any]:
    ends = np.cumsum(sizes).tolist()
    return [values[end - size : end] for end, size in zip(ends, sizes.tolist())]
