"""The steps after the net: merge the objects of the blocks, drop some, write the store, and measure the objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError
from septa.images import WrittenFiles, store
from septa.images.store import BlockIndex, StoreSpec
from septa.model import Model
from septa.streaming.block_file import is_done, load_block, load_facts
from septa.streaming.block_worker import BlockWorker
from septa.streaming.blocks import OutputBlock, PyramidBlock
from septa.streaming.events import StreamRequest, StreamStep
from septa.streaming.executor import Executor
from septa.streaming.measuring import ObjectBlock, measures_folder, scores_folder
from septa.streaming.object_facts import PlaneObjects, collect_plane
from septa.streaming.object_files import ObjectWriter
from septa.streaming.written_blocks import WrittenBlocks
from septa.tasks import MergedObjects, merge_blocks

_TIFF = (".tif", ".tiff")
Planes = dict[tuple[int, int], PlaneObjects]
"""The objects of each plane (t, z)."""


def is_tiff(output: Path) -> bool:
    """Return True if an output is an OME-TIFF file, and False if it is an OME-Zarr store."""
    return output.suffix.lower() in _TIFF


def find_label_type(model: Model, objects: int | None) -> np.dtype[Any]:
    """Return the type of the labels, given the number of objects; None for a semantic task."""
    if objects is None:
        return model.as_written(np.zeros((1, 1), np.int32)).dtype
    return np.dtype(np.uint32 if objects < 2**32 else np.uint64)


@dataclass(kw_only=True)
class StoreWriter:
    """Writer of the output of a run whose blocks are all segmented.

    Attributes
    ----------
    executor, worker
        Executor of the run, and the client's worker.
    request
        Request of the run.
    written
        Record of the files of objects that may be replaced.
    planes
        The objects, None for a semantic task; set by `merge`.
    """

    executor: Executor
    worker: BlockWorker
    request: StreamRequest
    written: WrittenFiles
    planes: Planes | None = field(default=None, init=False)

    def write(self) -> Iterator[StreamStep]:
        """Merge the objects and write everything that is missing."""
        plan, model, folder = self.worker.plan, self.worker.model, self.worker.folder
        self.planes = self._merge()
        specs = plan.specs(model, find_label_type(model, self._count_ids()))
        settings = plan.identity.objects
        if settings is not None and settings.min_confidence is not None:
            yield from self._drop(specs[0], settings.min_confidence)
        output = self.request.output
        is_copy = is_tiff(output) or self.request.into_image or plan.identity.zarr == "0.4"
        target = folder / "store.ome.zarr" if is_copy else output
        store.create_store(target, specs)
        written = WrittenBlocks(folder / "digests.jsonl", target, specs)
        total = sum(1 for spec in specs for level in range(len(spec.levels)) for _ in spec.blocks(level))
        yield from (StreamStep("writing", done, total) for done in self._write_blocks(target, specs, written))
        if settings is not None and settings.measured:
            yield from self._measure(target, specs, measures_folder(folder), only_scores=False)
            ObjectWriter(
                request=self.request, worker=self.worker, written=self.written, store=target, labels=specs[0]
            ).write()
        yield from (StreamStep("writing", done, total) for done in self._write_pyramid(target, specs, written))
        store.finish_store(target, specs)
        if is_tiff(output):
            store.write_ome_tiff(output, target, specs[0])
        elif self.request.into_image:
            store.write_labels_into(Path(self.request.input.path), target, specs)
        elif is_copy:
            store.write_zarr2(output, target, specs)

    def _merge(self) -> Planes | None:
        """Merge the objects of the blocks of each plane; return None for a semantic task."""
        plan, model, folder = self.worker.plan, self.worker.model, self.worker.folder
        if not model.task.finds_objects:
            return None
        times, depths, rows, columns = plan.grid

        def merge_plane(t: int, z: int) -> MergedObjects:
            try:
                return merge_blocks((rows, columns), lambda row, column: load_facts(folder, plan, (t, z, row, column)))
            except ValueError as error:
                problem = "neighbouring blocks of this run do not fit together"
                remedy = "Give --overwrite to start again, as the image or the machine may have changed since"
                raise InputError(folder, problem, remedy) from error

        return {
            plane: collect_plane(folder, plan, merge_plane(*plane), plane, model.task.object_classes)
            for plane in product(range(times), range(depths))
        }

    def _count_ids(self) -> int | None:
        return None if self.planes is None else sum(plane.merged.count for plane in self.planes.values())

    def _drop(self, spec: StoreSpec, least: float) -> Iterator[StreamStep]:
        """Drop objects of low confidence, which is found from all labels in a store of their own."""
        assert self.planes is not None
        plan, folder = self.worker.plan, self.worker.folder
        draft = folder / "draft.ome.zarr"
        store.create_store(draft, [spec])
        written = WrittenBlocks(folder / "draft.jsonl", draft, [spec])
        total = 2 * len(list(plan.blocks()))
        yield from (StreamStep("scoring", done, total) for done in self._write_blocks(draft, [spec], written))
        yield from self._measure(draft, [spec], scores_folder(folder), only_scores=True)
        for plane, objects in self.planes.items():
            dropped = np.zeros(objects.merged.count + 1, bool)
            for row, column in product(*map(range, plan.grid[2:])):
                scores = load_block(scores_folder(folder), plan, (*plane, row, column), ["scores"])["scores"]
                first, end = objects.merged.find_own_ids(row, column)
                dropped[first:end] = ~(scores >= least)
            self.planes[plane] = replace(objects, dropped=dropped)

    def _write_blocks(self, target: Path, specs: list[StoreSpec], written: WrittenBlocks) -> Iterator[int]:
        """Write the missing blocks of level 0, and yield the number of those that are done."""
        blocks = [(spec, index) for spec in specs for index in spec.blocks(0)]
        missing = Counter(index for spec, index in blocks if not written.is_written(spec, 0, index))
        done = len(blocks) - missing.total()
        outputs = (self._make_output_block(target, specs, index) for index in sorted(missing))
        for block, digests in self.executor.write_output(outputs):
            for spec, digest in zip(specs, digests, strict=True):
                written.add(spec, 0, block.index, digest)
            done += missing[block.index]
            yield done

    def _make_output_block(self, target: Path, specs: list[StoreSpec], index: BlockIndex) -> OutputBlock:
        if self.planes is None:
            return OutputBlock(target, tuple(specs), index, None)
        objects, settings = self.planes[index[:2]], self.worker.plan.identity.objects
        numbers = objects.look_up_ids(*index[2:])
        if settings is None or not settings.classes or len(specs) == 1:
            return OutputBlock(target, tuple(specs), index, numbers)
        here = np.isin(objects.ids, numbers)
        return OutputBlock(
            target, tuple(specs), index, numbers, border=objects.ids[here], classes=objects.classes[here]
        )

    def _measure(
        self, target: Path, specs: list[StoreSpec], folder: Path, *, only_scores: bool
    ) -> Iterator[StreamStep]:
        """Measure the objects of all blocks that are not measured yet."""
        plan = self.worker.plan
        blocks = list(plan.blocks())
        missing = [index for index in blocks if not is_done(folder, plan, index)]
        done = len(blocks) - len(missing)
        given = (self._make_object_block(target, specs, index, only_scores) for index in missing)
        for _ in self.executor.measure(given):
            done += 1
            if only_scores:
                yield StreamStep("scoring", len(blocks) + done, 2 * len(blocks))
            else:
                yield StreamStep("measuring", done, len(blocks))

    def _make_object_block(
        self, target: Path, specs: list[StoreSpec], index: BlockIndex, only_scores: bool
    ) -> ObjectBlock:
        assert self.planes is not None
        objects, settings = self.planes[index[:2]], self.worker.plan.identity.objects
        first, end = objects.merged.find_own_ids(*index[2:])
        border, boxes = objects.look_up_border(first, end)
        has_classes = settings is not None and settings.classes and not only_scores
        return ObjectBlock(
            store=target,
            labels=specs[0],
            class_labels=specs[1] if has_classes else None,
            index=index,
            first=first,
            count=end - first,
            border=border,
            boxes=boxes,
            only_scores=only_scores,
        )

    def _write_pyramid(self, target: Path, specs: list[StoreSpec], written: WrittenBlocks) -> Iterator[int]:
        """Write the missing blocks of the higher levels, and yield the number of blocks of all levels that are done."""
        blocks = [
            PyramidBlock(target, spec, level, index)
            for spec in specs
            for level in range(1, len(spec.levels))
            for index in spec.blocks(level)
        ]
        missing = [block for block in blocks if not written.is_written(block.spec, block.level, block.index)]
        done = len(blocks) - len(missing) + sum(1 for spec in specs for _ in spec.blocks(0))
        for level in range(1, max(len(spec.levels) for spec in specs)):
            for block, digest in self.executor.write_pyramid([block for block in missing if block.level == level]):
                written.add(block.spec, level, block.index, digest)
                done += 1
                yield done
