"""Write the table and the outlines of the objects of a store, block by block, from the files of their measurements.

Distances to neighbours are completed first. Only for these are numbers of all objects of a plane in memory: their
centroids, boxes and distances, about 100 bytes for each object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from septa.errors import InputError
from septa.images import Calibration, WrittenFiles, check_outside_zarr, store, write_atomic
from septa.images.store import BlockIndex, StoreSpec
from septa.notices import Notices
from septa.objects import (
    GeoJsonWriter,
    ObjectTable,
    check_table_file,
    choose_measurements,
    describe_features,
    find_nearest_centroids,
    note_scale,
    write_table,
)
from septa.streaming.block_file import is_done, load_block, save_block
from septa.streaming.block_worker import BlockWorker
from septa.streaming.events import StreamRequest
from septa.streaming.measuring import EDGE_GAPS, NEIGHBOUR_CONTEXT, load_outlines, load_table
from septa.streaming.plan import StreamPlan

Array = NDArray[Any]
_CENTROID_GAPS = ("nearest_centroid_distance", "nearest_centroid_distance_um")
_AXES = {"T": "frame", "Z": "plane"}


@dataclass(frozen=True, eq=False, kw_only=True)
class ObjectWriter:
    """Writer of the table and the outlines that a request asks for.

    Attributes
    ----------
    request, worker
        The request, and the client's worker.
    written
        Decides which files may be replaced.
    store, labels
        Store and label image of the objects.
    """

    request: StreamRequest
    worker: BlockWorker
    written: WrittenFiles
    store: Path
    labels: StoreSpec

    def write(self) -> None:
        """Write all files, when all blocks are measured.

        Raises
        ------
        InputError
            A file cannot be written or must not be replaced, or the file of a block is missing or damaged.
        ResourceError
            The disk is full.
        """
        if "neighbours" in choose_measurements(self.request.measure):
            for plane in self._list_planes():
                self._complete_neighbours(plane)
        if self.request.table is not None:
            tables = (table for plane in self._list_planes() for _, table in self._load_tables(plane))
            write_table(self.request.table, tables, guard=self.written.guard())
        if self.request.geojson is not None:
            files = list_outlines(self.request, self._plan.identity.shape)
            for file, plane in zip(files, self._list_planes(), strict=True):
                guard = self.written.guard(self.request.input.path)
                write_atomic(file, partial(self._write_outlines, plane), guard=guard)

    @property
    def _plan(self) -> StreamPlan:
        return self.worker.plan

    def _list_planes(self) -> list[tuple[int, int]]:
        times, depths, _, _ = self._plan.grid
        return list(product(range(times), range(depths)))

    def _list_blocks(self, plane: tuple[int, int]) -> Iterator[BlockIndex]:
        _, _, rows, columns = self._plan.grid
        return ((*plane, row, column) for row, column in product(range(rows), range(columns)))

    def _write_outlines(self, plane: tuple[int, int], stream: BinaryIO) -> None:
        writer = GeoJsonWriter(stream)
        for index, table in self._load_tables(plane):
            columns = {name: values for name, values in table.columns.items() if name not in ("image", *_AXES.values())}
            outlines = load_outlines(self.worker.folder, self.worker, index)
            writer.add(describe_features(outlines, ObjectTable(columns), position=self._find_position(plane)))
        writer.close()

    def _load_tables(self, plane: tuple[int, int]) -> Iterator[tuple[BlockIndex, ObjectTable]]:
        """Yield the complete table of each block of a plane."""
        gaps, first = self._load_neighbours(plane), 0
        names = self.worker.model.labels.class_names
        place = {"image": self._name_page(plane)} | self._find_position(plane)
        for index in self._list_blocks(plane):
            table, _ = load_table(self.worker.folder, self.worker, index)
            columns = dict(table.columns)
            for name, values in gaps.items():
                columns[name] = values[first : first + len(table)]
            if "class" in columns:
                columns["class"] = np.asarray(names, np.str_)[columns["class"]]
            placed = {name: np.full(len(table), value) for name, value in place.items()}
            yield index, ObjectTable(placed | columns)
            first += len(table)

    def _find_position(self, plane: tuple[int, int]) -> dict[str, int]:
        """Return the numbers of the page among the frames and planes of a stack, as for files in a folder."""
        if len(self._list_planes()) == 1:
            return {}
        axes = self._plan.identity.axes
        return {_AXES[axis]: number for axis, number in zip("TZ", plane) if axis in axes}

    def _name_page(self, plane: tuple[int, int]) -> str:
        name = self.request.image_name or Path(self.request.input.path).stem
        planes = self._list_planes()
        return name if len(planes) == 1 else f"{name}_{planes.index(plane):04d}"

    # Neighbours

    def _load_neighbours(self, plane: tuple[int, int]) -> dict[str, Array]:
        if "neighbours" not in choose_measurements(self.request.measure):
            return {}
        names = [name for name in (*_CENTROID_GAPS, *EDGE_GAPS) if self._is_scaled or not name.endswith("_um")]
        return load_block(self._gaps_folder, self._plan, (*plane, 0, 0), names)

    def _complete_neighbours(self, plane: tuple[int, int]) -> None:
        """Find the distances of all objects of a plane to their neighbours, and keep them in a file."""
        index = (*plane, 0, 0)
        if is_done(self._gaps_folder, self._plan, index):
            return
        wanted = ["label", "centroid_y", "centroid_x", *("bbox_top", "bbox_left", "bbox_bottom", "bbox_right")]
        units = {"": (1.0, 1.0)} | (
            {"_um": self._plan.calibration.pixel_size_um or (1.0, 1.0)} if self._is_scaled else {}
        )
        names = [*wanted, *(EDGE_GAPS[0] + ending for ending in units)]
        columns, opened = self._join_columns(plane, names)
        labels = columns["label"]
        boxes = np.stack([columns[name] for name in wanted[3:]], axis=1)
        read = partial(store.read_store_window, self.store, self.labels, plane)
        found: dict[str, Array] = {}
        for ending, (y_um, x_um) in units.items():
            gaps = columns[EDGE_GAPS[0] + ending].copy()
            for k in np.flatnonzero(opened).tolist():
                gaps[k] = find_far_gap(read, labels, boxes, k, self._plan.size, (y_um, x_um))
            found[EDGE_GAPS[0] + ending] = gaps
            found[_CENTROID_GAPS[0] + ending] = find_nearest_centroids(
                columns["centroid_y"] * y_um, columns["centroid_x"] * x_um
            )
        save_block(self._gaps_folder, self._plan, index, found)

    def _join_columns(self, plane: tuple[int, int], names: list[str]) -> tuple[dict[str, Array], NDArray[np.bool_]]:
        """Return columns of all objects of a plane, and True for those whose nearest other object is not known."""
        columns: dict[str, list[Array]] = {name: [] for name in names}
        opened = []
        for index in self._list_blocks(plane):
            table, part = load_table(self.worker.folder, self.worker, index)
            opened.append(part)
            for name in names:
                columns[name].append(table.columns[name])
        return {name: np.concatenate(parts) for name, parts in columns.items()}, np.concatenate(opened)

    @property
    def _gaps_folder(self) -> Path:
        return self.worker.folder / "gaps"

    @property
    def _is_scaled(self) -> bool:
        return self._plan.calibration.pixel_size_um is not None


def list_outlines(request: StreamRequest, shape: tuple[int, ...]) -> list[Path]:
    """Return the files of outlines, one for each plane of an image of a shape (T, C, Z, Y, X)."""
    if request.geojson is None:
        return []
    count = shape[0] * shape[2]
    name = request.geojson.name.removesuffix(".geojson")
    return [
        request.geojson if count == 1 else request.geojson.with_name(f"{name}_{number:04d}.geojson")
        for number in range(count)
    ]


def list_object_files(request: StreamRequest, shape: tuple[int, ...]) -> list[Path]:
    """Return the table and the files of outlines of an image of a shape (T, C, Z, Y, X)."""
    return [*([] if request.table is None else [request.table]), *list_outlines(request, shape)]


def check_object_files(
    request: StreamRequest, files: list[Path], calibration: Calibration, notices: Notices
) -> WrittenFiles:
    """Check the files of objects before any work, and return the record of those that may be replaced.

    It notes what is assumed about the places and sizes of objects.

    Raises
    ------
    InputError
        A file exists that septa did not write from the same image, is the output or lies in a zarr folder, or a package
        is missing.
    """
    written = WrittenFiles(request.overwrite, protected=[request.input.path])
    if request.table is not None:
        check_table_file(request.table)
    for file in files:
        check_outside_zarr(file)
        if file.resolve() == request.output.resolve():
            raise InputError(file, "the table is the output itself", "Give another name with --table")
    if files:
        note_scale(notices, request.input.path, calibration, request.measure)
    if files and request.input.region is not None:
        notices.add(request.input.path, "places of objects count from the first pixel of the region")
    written.check({file: None if file == request.table else request.input.path for file in files})
    return written


# The nearest other object, far away ----------------------------------------------------------------------------------

_WINDOW = 2048
"""Side of the largest window in which other objects are looked for at once, pixels."""


def find_far_gap(
    read: Any, labels: Array, boxes: Array, k: int, size: tuple[int, int], unit: tuple[float, float]
) -> float:
    """Return the least distance from the centre of a pixel of an object to that of another one; NaN without one.

    Parameters
    ----------
    read
        Function of rows and columns that reads a window of the labels.
    labels, boxes
        Ids and boxes of all objects.
    k
        Place of the object in both.
    size
        Size of the image.
    unit
        Size of a pixel, y and x.
    """
    top, left, bottom, right = boxes[k].tolist()
    reach = 2 * NEIGHBOUR_CONTEXT
    while max(bottom - top, right - left) + 2 * reach <= _WINDOW:
        rows = max(0, top - reach), min(size[0], bottom + reach)
        columns = max(0, left - reach), min(size[1], right + reach)
        labels_yx = read(rows, columns).astype(np.int64)
        own, others = _list_rim(labels_yx == labels[k]), _list_rim((labels_yx > 0) & (labels_yx != labels[k]))
        gap = _measure_gap(own, others, unit)
        if gap <= reach * min(unit) or (rows, columns) == ((0, size[0]), (0, size[1])):
            return gap if others.size else np.nan
        reach *= 2
    # So far apart, objects are few.
    before = np.maximum(boxes[:, :2] - boxes[k, 2:] + 1, boxes[k, :2] - boxes[:, 2:] + 1)
    least = np.hypot(*(np.maximum(before, 0) * np.array(unit)).T)
    least[k] = np.inf
    own, best = _read_rim(read, boxes[k], labels[k]), np.inf
    for other in np.argsort(least, kind="stable").tolist():
        if least[other] >= best:
            break
        best = min(best, _measure_gap(own, _read_rim(read, boxes[other], labels[other]), unit))
    return best if np.isfinite(best) else np.nan


def _list_rim(mask_yx: NDArray[np.bool_]) -> Array:
    """Return the places ``(n, 2)`` of the pixels of a mask that have a side in common with another pixel."""
    inner = np.pad(mask_yx, 1)
    inside = inner[1:-1, 1:-1] & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return np.argwhere(mask_yx & ~inside)


def _read_rim(read: Any, box: Array, label: int) -> Array:
    """Return the places in the image of the outer pixels of an object, which is read in strips."""
    top, left, bottom, right = box.tolist()
    step = max(16, _WINDOW**2 // (right - left))
    parts = []
    for row in range(top, bottom, step):
        rows = row, min(bottom, row + step)
        parts.append(_list_rim(read(rows, (left, right)) == label) + np.array([row, left]))
    return np.concatenate(parts)


def _measure_gap(one: Array, other: Array, unit: tuple[float, float]) -> float:
    from scipy.spatial import cKDTree

    if not other.size:
        return np.inf
    distances, _ = cKDTree(other * np.array(unit)).query(one * np.array(unit))
    return float(distances.min())
