"""The two steps of a block: `segment_block` writes its file, `write_output_block` writes that into the store.

Both can be repeated at any time, by any process. A block is done if its file exists and its checksum is right.

`segment_block` consists of `score_block`, which runs the net, and `label_block`, which finds the labels. An executor
may label one block while it scores the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from septa.errors import OutOfMemory, unify_out_of_memory
from septa.images import store
from septa.images.store import BlockIndex, StoreSpec
from septa.inference import ImageRegion, add_margin
from septa.model import Model
from septa.streaming.block_file import load_block, save_block
from septa.streaming.block_worker import BlockWindow, BlockWorker
from septa.streaming.object_facts import classify_block, find_object_facts
from septa.streaming.plan import StreamPlan
from septa.tasks import BlockLabels, renumber_block

Array = NDArray[Any]


@dataclass(frozen=True)
class ScoredBlock:
    """The logits of a block with its margin.

    Attributes
    ----------
    index, margin
        The block, and the pixels around it.
    region
        Rows and columns of the image that the logits belong to.
    logits_kyx
        Logits ``(K, Y, X)``, float32.
    """

    index: BlockIndex
    margin: int
    region: ImageRegion
    logits_kyx: Array


@dataclass(frozen=True)
class OutputBlock:
    """A block of the store's level 0 that has to be written.

    Attributes
    ----------
    store, specs
        Path of the store, and its images.
    index
        The block.
    numbers
        The final ids of the block's objects, see `septa.tasks.MergedObjects.look_up_ids`; None for a semantic task.
    border, classes
        Final ids, ascending, and classes of objects that lie in several blocks, as far as the block may hold them; None
        if no classes are written.
    """

    store: Path
    specs: tuple[StoreSpec, ...]
    index: BlockIndex
    numbers: NDArray[np.int64] | None
    border: NDArray[np.int64] | None = None
    classes: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class PyramidBlock:
    """A block of a higher pyramid level that has to be built from the level below.

    Attributes
    ----------
    store, spec
        Path of the store, and one of its images.
    level, index
        The pyramid level, and the block in it.
    """

    store: Path
    spec: StoreSpec
    level: int
    index: BlockIndex


def segment_block(worker: BlockWorker, index: BlockIndex, margin: int | None = None) -> None:
    """Segment one block and write its file. The margin is doubled until it holds the objects of the block.

    Parameters
    ----------
    worker, index
        The worker and the block.
    margin
        Pixels around the block in the first attempt; the plan's margin if None.

    Raises
    ------
    InputError
        The image cannot be read, or the file cannot be written.
    ResourceError, MemoryError
        The process is out of memory, or the disk is full.
    """
    margin = worker.plan.margin if margin is None else margin
    while True:
        if margin > worker.plan.margin:
            worker.fit_tile_to(index, margin)
        try:
            if label_block(worker, score_block(worker, index, margin)):
                return
            margin *= 2
        except MemoryError:
            if not worker.halve_tile():
                raise


def score_block(worker: BlockWorker, index: BlockIndex, margin: int, window: BlockWindow | None = None) -> ScoredBlock:
    """Run the net on a block with its margin. The tile is halved as long as it does not fit into the memory.

    Parameters
    ----------
    worker, index, margin
        The worker, the block, and the pixels around it.
    window
        The window of this block and margin, if it was read already.

    Raises
    ------
    InputError
        The image cannot be read.
    OutOfMemory, MemoryError
        Even the smallest tile does not fit into the memory.
    """
    while True:
        try:
            with unify_out_of_memory():
                window = window or worker.read_window(index, margin)
                return ScoredBlock(index, margin, window.region, worker.compute_logits(index, window))
        except (OutOfMemory, MemoryError):
            # A window that was read earlier may have larger tiles than those that are known to fit by now. Then it is
            # enough to read it again.
            tried = worker.tile if window is None else window.tile
            window = None
            if tried <= worker.tile and not worker.halve_tile():
                raise


def label_block(worker: BlockWorker, scored: ScoredBlock) -> bool:
    """Find the labels of a block and write its file.

    Returns
    -------
    bool
        False if an object of the block reaches beyond the margin. Then nothing is written.

    Raises
    ------
    InputError
        The file cannot be written.
    ResourceError, MemoryError
        The process is out of memory, or the disk is full.
    """
    plan = worker.plan
    core = _to_local(plan.core(scored.index), scored.region)
    image_ends = _find_image_ends(scored.region, plan.size)
    blank = worker.find_skipped_parts(scored.index, scored.region)
    with unify_out_of_memory():
        block = worker.model.task.label_block(scored.logits_kyx, core, image_ends, blank)
        if block is None:
            return False
        arrays = _to_arrays(block, worker.model)
        logits_kyx = scored.logits_kyx[(slice(None), *core)]
        arrays |= find_object_facts(worker.folder, plan, worker.model, scored.index, block, logits_kyx)
        if plan.identity.probabilities:
            probabilities_kyx = worker.model.task.probabilities(logits_kyx)
            arrays["probabilities"] = probabilities_kyx.astype(np.float16)
    save_block(worker.folder, plan, scored.index, arrays)
    return True


def write_empty_block(folder: Path, plan: StreamPlan, model: Model, index: BlockIndex) -> None:
    """Write the file of a skipped block, which is background everywhere.

    Raises
    ------
    InputError
        The file cannot be written.
    ResourceError
        The disk is full.
    """
    core = plan.core(index)
    region = add_margin(core, 1, plan.size)
    (top, left), (bottom, right) = region
    block = model.task.blank_block(
        (bottom - top, right - left), _to_local(core, region), _find_image_ends(region, plan.size)
    )
    arrays = _to_arrays(block, model) | find_object_facts(folder, plan, model, index, block, None)
    if plan.identity.probabilities:
        (top, left), (bottom, right) = core
        certain_kyx = np.zeros((model.task.classes, bottom - top, right - left), np.float16)
        if not model.task.multilabel:
            certain_kyx[0] = 1
        arrays["probabilities"] = certain_kyx
    save_block(folder, plan, index, arrays)


def write_output_block(folder: Path, plan: StreamPlan, model: Model, block: OutputBlock) -> list[str]:
    """Write a block into the images of the store, with the final ids of its objects.

    Returns
    -------
    list
        Digest of the block in each image.

    Raises
    ------
    InputError
        The block's file is missing or damaged, or the store cannot be written.
    ResourceError
        The disk is full.
    """
    has_probabilities = block.specs[-1].kind == "probabilities"
    wanted = {"labels_yx": True, "probabilities": has_probabilities, "class_sums": block.classes is not None}
    arrays = load_block(folder, plan, block.index, [name for name, given in wanted.items() if given])
    labels, parts = arrays["labels_yx"], []
    if block.numbers is None:
        parts += list(labels if labels.ndim == 3 else labels[None])
    else:
        parts.append(renumber_block(labels, block.numbers, block.specs[0].dtype))
    if block.classes is not None:
        assert block.numbers is not None
        assert block.border is not None
        found = classify_block(arrays["class_sums"], block.numbers, block.border, block.classes)
        parts.append(model.labels.raw_values[found][labels])
    if has_probabilities:
        parts.append(arrays["probabilities"])
    return [
        store.write_store_block(block.store, spec, 0, block.index, np.ascontiguousarray(part, spec.dtype))
        for spec, part in zip(block.specs, parts, strict=True)
    ]


def write_pyramid_block(block: PyramidBlock) -> str:
    """Build one block of a pyramid level and return its digest.

    Raises
    ------
    InputError
        The level below is missing or damaged, or the store cannot be written.
    ResourceError
        The disk is full.
    """
    return store.build_pyramid_block(block.store, block.spec, block.level, block.index)


def _find_image_ends(region: ImageRegion, size: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    """Return True for each side (top, bottom, left, right) of a region where the image ends."""
    (top, left), (bottom, right) = region
    return top == 0, bottom == size[0], left == 0, right == size[1]


def _to_arrays(block: BlockLabels, model: Model) -> dict[str, Array]:
    """Return the arrays of a block's file.

    Objects keep the ids of the block until the merge. Classes become the values of label images at once.
    """
    return {"labels_yx": model.as_written(block.labels_yx)} if block.facts is None else block.to_arrays()


def _to_local(core: ImageRegion, region: ImageRegion) -> tuple[slice, slice]:
    """Return the rows and columns of a block, counted from the first pixel of a region."""
    (top, left), (bottom, right) = core
    (first_row, first_column), _ = region
    return slice(top - first_row, bottom - first_row), slice(left - first_column, right - first_column)
