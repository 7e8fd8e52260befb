"""Facts about single objects that are kept with each block, and those of objects that lie in several blocks.

With each block: the boxes of its border objects, the sums of the class probabilities of each object, and the foreground
probability near objects. See `septa.tasks.block_objects` for border objects and open holes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.images import store
from septa.images.store import BlockIndex
from septa.kernels import Kernel
from septa.model import Model
from septa.streaming.block_file import load_block
from septa.streaming.plan import StreamPlan
from septa.tasks import BlockLabels, MergedObjects, choose_classes

Array = NDArray[Any]
Int64 = NDArray[np.int64]

_REACH = 2
"""Pixels around objects whose foreground probability decides their confidence; see `septa.objects.confidence`."""


def foreground_store(folder: Path) -> Path:
    """Return the store in the work folder that keeps the foreground probability."""
    return folder / "foreground.ome.zarr"


def find_object_facts(
    folder: Path, plan: StreamPlan, model: Model, index: BlockIndex, block: BlockLabels, logits_kyx: Array | None
) -> dict[str, Array]:
    """Return the arrays of a block's file that the later steps need, and write its foreground probability.

    Parameters
    ----------
    folder, plan, model, index
        The work folder, the plan, the model and the block.
    block
        Labels and facts of the block.
    logits_kyx
        Logits of the block without its margin; None if it is background.

    Raises
    ------
    InputError, ResourceError
        The foreground cannot be written.
    """
    settings = plan.identity.objects
    if settings is None or block.facts is None:
        return {}
    (top, left), _ = plan.core(index)
    count, holes = block.facts.counts[:2].tolist()
    arrays: dict[str, Array] = {}
    if settings.classes:
        # As in `MergedObjects.look_up_ids`, open holes follow the objects, the last one first.
        ids_yx = np.where(block.labels_yx < 0, block.labels_yx + (count + holes + 1), block.labels_yx)
        if logits_kyx is None:
            arrays["class_sums"] = np.zeros((model.task.object_classes, count + holes + 1))
        else:
            arrays["class_sums"] = model.task.sum_classes(ids_yx, logits_kyx, count + holes + 1)
    if settings.measured:
        boxes = find_boxes(block.labels_yx, 1, count) + np.array([top, left, top, left])
        arrays["boxes"] = boxes[block.facts.border - 1]
    if settings.scored:
        size_yx = block.labels_yx.shape
        foreground_yx = np.zeros(size_yx, np.float32)
        if logits_kyx is not None:
            near_yx = _find_near(block.labels_yx)
            foreground_yx[near_yx] = model.task.probabilities(logits_kyx)[1][near_yx]
        store.write_store_block(foreground_store(folder), plan.foreground_spec(), 0, index, foreground_yx[None])
    return arrays


def _find_near(labels_yx: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return True near objects and holes, and near the border of the block, beyond which objects may lie."""
    import cv2

    near_yx = (labels_yx != 0).astype(np.uint8)
    near_yx[:_REACH] = near_yx[-_REACH:] = near_yx[:, :_REACH] = near_yx[:, -_REACH:] = 1
    side = 2 * _REACH + 1
    return cv2.dilate(near_yx, np.ones((side, side), np.uint8)).astype(bool)


@dataclass(frozen=True, eq=False, kw_only=True)
class PlaneObjects:
    """The objects of one plane of the image.

    Attributes
    ----------
    merged
        Their ids.
    ids
        Ids of the objects that lie at borders of blocks, ascending, int64.
    boxes
        Their boxes, int64 ``(n, 4)``: top, left, and one past the bottom and the right.
    classes
        Their classes, int32.
    dropped
        True for ids of objects that are dropped for their confidence; None if none is.
    """

    merged: MergedObjects
    ids: Int64
    boxes: Int64
    classes: NDArray[np.int32]
    dropped: NDArray[np.bool_] | None = None

    @property
    def count(self) -> int:
        """Number of objects that are kept."""
        return self.merged.count - self.count_dropped()

    def count_dropped(self) -> int:
        """Count the dropped objects."""
        return 0 if self.dropped is None else int(self.dropped.sum())

    def look_up_ids(self, row: int, column: int) -> Int64:
        """Return the ids of the objects and open holes of a block; see `MergedObjects.look_up_ids`."""
        ids = self.merged.look_up_ids(row, column)
        return ids if self.dropped is None else np.where(self.dropped[ids], 0, ids)

    def look_up_border(self, first: int, end: int) -> tuple[Int64, Int64]:
        """Return the ids from ``first`` to before ``end`` of border objects that are kept, and their boxes."""
        part = slice(*np.searchsorted(self.ids, (first, end)).tolist())
        ids, boxes = self.ids[part], self.boxes[part]
        kept = np.ones(ids.size, bool) if self.dropped is None else ~self.dropped[ids]
        return ids[kept], boxes[kept]


def collect_plane(
    folder: Path, plan: StreamPlan, merged: MergedObjects, plane: tuple[int, int], classes: int
) -> PlaneObjects:
    """Join the facts about objects that lie at borders of blocks.

    Parameters
    ----------
    folder, plan
        The work folder and the plan.
    merged, plane
        The objects of a plane, and its numbers along T and Z.
    classes
        Number of the classes of objects.

    Raises
    ------
    InputError
        The file of a block is missing or damaged.
    """
    settings = plan.identity.objects
    nothing = np.zeros(0, np.int64)
    if settings is None or not (settings.measured or settings.classes):
        return PlaneObjects(merged=merged, ids=nothing, boxes=nothing.reshape(0, 4), classes=np.zeros(0, np.int32))
    # The highest numbers of lists of the blocks' border objects; all of these are far fewer than the objects.
    parts = [
        (
            row,
            column,
            merged.look_up_ids(row, column)[load_block(folder, plan, (*plane, row, column), ["border"])["border"]],
        )
        for row, column in _list_blocks(plan)
    ]
    ids = np.unique(np.concatenate([part for *_, part in parts]))
    ids = ids[ids > 0]
    far = np.iinfo(np.int64).max
    boxes = np.tile(np.array([far, far, -1, -1], np.int64), (ids.size, 1))
    sums = np.zeros((max(1, classes if settings.classes else 0), ids.size))
    for row, column, part in parts:
        kept = part > 0
        places = np.searchsorted(ids, part[kept])
        names = [name for name, wanted in (("boxes", settings.measured), ("class_sums", settings.classes)) if wanted]
        arrays = load_block(folder, plan, (*plane, row, column), names)
        if settings.measured:
            np.minimum.at(boxes[:, :2], places, arrays["boxes"][kept, :2])
            np.maximum.at(boxes[:, 2:], places, arrays["boxes"][kept, 2:])
        if settings.classes:
            numbers = merged.look_up_ids(row, column)
            is_border = np.isin(numbers, ids)
            np.add.at(sums.T, np.searchsorted(ids, numbers[is_border]), arrays["class_sums"][:, is_border].T)
    return PlaneObjects(merged=merged, ids=ids, boxes=boxes, classes=np.argmax(sums, axis=0).astype(np.int32) + 1)


def classify_block(
    class_sums: NDArray[np.float64], numbers: Int64, ids: Int64, classes: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return the class of each object and open hole of a block.

    Parameters
    ----------
    class_sums
        Sums of the block.
    numbers
        Final ids of the block's objects and holes.
    ids, classes
        Final ids of border objects, ascending, and their classes.
    """
    found = choose_classes(class_sums)
    if ids.size:
        places = np.minimum(np.searchsorted(ids, numbers), ids.size - 1)
        found = np.where(ids[places] == numbers, classes[places], found)
    return np.where(numbers > 0, found, 0).astype(np.int32)


def find_boxes(labels_yx: Array, first: int, count: int) -> Int64:
    """Find the boxes of the objects of consecutive ids.

    Returns
    -------
    ndarray
        int64 ``(count, 4)``: top, left, and one past the bottom and the right; bottom is not above top for ids that do
        not occur.
    """
    far = np.iinfo(np.int64).max
    boxes = np.tile(np.array([far, far, -1, -1], np.int64), (count, 1))
    extend_boxes(labels_yx.astype(np.int64), first, 0, 0, boxes)
    return boxes


@Kernel
def extend_boxes(labels: Int64, first: int, top: int, left: int, boxes: Int64) -> None:
    """Extend the boxes of ids from ``first`` by a window whose first pixel is at ``top``, ``left``."""
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            k = labels[y, x] - first
            if 0 <= k < boxes.shape[0]:
                boxes[k, 0] = min(boxes[k, 0], y + top)
                boxes[k, 1] = min(boxes[k, 1], x + left)
                boxes[k, 2] = max(boxes[k, 2], y + top + 1)
                boxes[k, 3] = max(boxes[k, 3], x + left + 1)


def _list_blocks(plan: StreamPlan) -> Iterator[tuple[int, int]]:
    _, _, rows, columns = plan.grid
    return ((row, column) for row in range(rows) for column in range(columns))
