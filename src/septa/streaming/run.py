"""The workflow: plan, segment block by block, merge, write the store. Read `stream` from top to bottom.

If a run ends early, by a kill, a full disk or Ctrl-C, its finished blocks stay in the work folder ``OUTPUT.work`` next
to the output, and the same command resumes it. A block is finished only if its file has the right checksum.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError, Interrupted
from septa.images import Source, is_address, lock_outputs, resolve_location, store, write_text
from septa.images.store import StoreSpec
from septa.model import Model, explain_precision
from septa.notices import Notices
from septa.runtime import has_fast_bf16
from septa.streaming.block_file import is_done, load_facts
from septa.streaming.block_worker import BlockWorker
from septa.streaming.blocks import OutputBlock, PyramidBlock, write_empty_block
from septa.streaming.budget import Budget, default_memory, fit_budget
from septa.streaming.events import StreamEvent, StreamFinished, StreamRequest, StreamStarted, StreamStep
from septa.streaming.executor import Executor, LocalExecutor, MakeExecutor
from septa.streaming.identity import RunIdentity, digest_content, digest_sample
from septa.streaming.output import (
    check_output,
    find_image_around,
    is_finished,
    load_plan,
    remove_earlier_run,
    work_folder,
)
from septa.streaming.plan import StreamPlan
from septa.streaming.prescan import find_empty_blocks, find_factor, report_unlike, resolve_normalizations
from septa.streaming.written_blocks import WrittenBlocks
from septa.tasks import MergedObjects, merge_blocks

_TIFF = (".tif", ".tiff")
_LONGEST_NAME = 150


def stream(request: StreamRequest, make_executor: MakeExecutor | None = None) -> Iterator[StreamEvent]:
    """Segment one image of any size into an OME-Zarr store or a pyramidal OME-TIFF.

    Parameters
    ----------
    request
        The image, the model, the output and the settings. The same request resumes an interrupted run.
    make_executor
        Makes the executor of the blocks, such as `septa.streaming.Cluster.make_executor`. This process segments the
        blocks if it is None.

    Yields
    ------
    StreamEvent
        One `StreamStarted`, a `StreamStep` for each finished block, and one `StreamFinished`. The latter is the only
        event if the output is complete already.

    Raises
    ------
    InputError
        The image, the model or the output cannot be used.
    ResourceError
        The budget is too small, the process is out of memory, or the disk is full.
    Interrupted
        The user pressed Ctrl-C. The same request resumes the run.
    """
    began = time.monotonic()
    data = Model.read(request.model)
    model = Model.from_bytes(data, request.model)
    digest = hashlib.sha256(data).hexdigest()
    del data
    _check_request(model, request)
    if request.into_image:
        request = replace(request, output=_find_output_in_image(request, model))
    folder = work_folder(request.output)
    try:
        notices = Notices()
        with request.input.open(model.channels, notices) as source:
            check_output(request, source)
            if source.shape[1] == 1:  # refuse or note a channel that would be repeated, before any work
                model.as_model_input(np.zeros((1, 1, 1), source.dtype), request.input.path, notices)
            device = "cpu" if make_executor else request.device
            fast = has_fast_bf16(device) if request.fast_bf16 is None else request.fast_bf16
            identity = RunIdentity.from_source(
                source,
                request.input,
                path=resolve_location(request.input.path),
                content=digest_content(source),
                model=digest,
                engine=model.choose_engine(device, request.engine, request.precision, fast=fast),
                name=_choose_name(request),
                probabilities=request.probabilities,
                skip_empty=request.skip_empty,
                zarr=_choose_version(request),
            )
            with lock_outputs([find_image_around(request.output) or request.output]) as notes:
                if is_finished(request, identity, folder):
                    if request.into_image:  # an earlier run may have been killed before it could do this
                        store.list_labels_of(Path(request.input.path), _list_names(model, identity.name))
                    yield _report_finished(request)
                    return
                engine = model.engine(device, identity.engine)
                plan, budget, more = _make_plan(request, identity, source, model, folder, device)
                worker = BlockWorker(
                    plan=plan,
                    model=model,
                    source=source,
                    engine=engine,
                    folder=folder,
                    tile=min(budget.tile, request.tile or budget.tile),
                    free=budget.free,
                    limit=budget.limit,
                )
                executor = make_executor(request, worker) if make_executor else LocalExecutor(worker)
                known = notices.lines()
                about = explain_precision(identity.engine, model.bf16, fast=fast)
                notes = (*notes, *more, *about, *_explain_limits(model), *known)
                for event in _stream(request, worker, budget, notes, executor, began):
                    late = tuple(notices.lines()[len(known) :])
                    yield replace(event, notes=late) if isinstance(event, StreamFinished) else event
    except KeyboardInterrupt:
        raise make_interrupted(request.output) from None


def make_interrupted(output: Path) -> Interrupted:
    """Return the error of a run that the user interrupted."""
    problem = f"the run was interrupted, and its finished blocks are kept in {work_folder(output)}"
    return Interrupted(output, problem, "Run the same command again to resume", signal.SIGINT)


def _stream(
    request: StreamRequest,
    worker: BlockWorker,
    budget: Budget,
    notes: tuple[str, ...],
    executor: Executor,
    began: float,
) -> Iterator[StreamEvent]:
    """Segment the blocks that are not done yet, merge their objects, and write the output."""
    plan = worker.plan
    model = worker.model
    folder = worker.folder
    blocks = list(plan.blocks())
    todo = [index for index in blocks if not is_done(folder, plan, index)]
    yield StreamStarted(
        plan=plan, budget=budget, model=model, blocks=len(blocks), done=len(blocks) - len(todo), notes=notes
    )
    for index in worker.skipped.intersection(todo):
        write_empty_block(folder, plan, model, index)
    todo = [index for index in todo if index not in worker.skipped]
    total = plan.megapixels(blocks)
    done = total - plan.megapixels(todo)
    for index in executor.segment(todo):
        done += plan.megapixels([index])
        yield StreamStep("segmenting", done, total)
    if digest_content(worker.source) != plan.identity.content:
        problem = "the image was changed while it was segmented"
        raise InputError(request.input.path, problem, "Run the command with --overwrite to start again")
    merged = _merge(plan, model, folder)
    objects = None if merged is None else sum(part.count for part in merged.values())
    yield from _write(executor, worker, plan.specs(model, _label_type(model, objects)), merged, request)
    executor.close()
    shutil.rmtree(folder, ignore_errors=True)  # the next run removes files that a file system keeps for now
    yield StreamFinished(
        output=request.output,
        megapixels=total,
        segmented=plan.megapixels(todo),
        seconds=time.monotonic() - began,
        net_seconds=worker.net_seconds if isinstance(executor, LocalExecutor) else None,
        objects=objects,
        skipped=plan.megapixels(plan.skipped) / total,
        conflicts=0 if merged is None else sum(part.conflicts for part in merged.values()),
    )


# Planning ------------------------------------------------------------------------------------------------------------


def _check_request(model: Model, request: StreamRequest) -> None:
    """Refuse a model or settings that do not allow a segmentation in blocks."""
    where = request.model
    if model.recipe.data.resize is not None:
        problem = "this model resizes every image to one size (data.resize) and cannot segment an image in blocks"
        raise InputError(where, problem, "Give -o a folder, or train without data.resize")
    if model.recipe.inference.tta > 1:
        problem = (
            "this model averages over flipped and rotated copies of the whole image (inference.tta), not of blocks"
        )
        raise InputError(where, problem, "Give -o a folder, or train with inference.tta=1")
    if model.task.finds_objects and not model.net.exact_tiles:
        problem = "this net pools over the whole image, so neighbouring blocks would disagree about objects"
        raise InputError(where, problem, "Give -o a folder, or train with net.norm=batch or net.norm=none")
    if not model.task.finds_objects and _label_type(model, None).kind != "u":
        problem = "a class of this model has a label value below 0, which a store cannot hold"
        raise InputError(where, problem, "Train with label values of at least 0")
    model.check_tile(request.tile)
    if request.output.suffix.lower() in _TIFF and (model.task.multilabel or request.probabilities):
        problem = "an OME-TIFF file holds one image, but overlapping classes or probabilities need several"
        raise InputError(request.output, problem, "Give -o a name that ends in .ome.zarr")


def _choose_name(request: StreamRequest) -> str:
    """Return the name of the label image, as a store allows it."""
    name = request.name
    if name is None:
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", request.model.stem).lstrip("_.-")[:_LONGEST_NAME] or "labels"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or len(name) > _LONGEST_NAME:
        rule = f"1 to {_LONGEST_NAME} letters, digits, '_', '-' or '.', and start with a letter or digit"
        raise InputError("--name", f"a name must have {rule}, got {name!r}", "Give for example --name nuclei")
    return name


def _find_output_in_image(request: StreamRequest, model: Model) -> Path:
    """Return the folder of labels that go into the image itself; refuse what cannot be written there."""
    image = request.input
    if is_address(image.path):
        raise InputError(image.path, "septa writes nothing to addresses", "Give -o NAME.ome.zarr instead")
    if image.region is not None or image.level or image.image is not None or request.probabilities:
        problem = "only labels of a whole image at its full size can be written into it"
        raise InputError(
            "--into-image", problem, "Leave --region, --level, --image and --probabilities out, or give -o"
        )
    return Path(image.path) / "labels" / _list_names(model, _choose_name(request))[0]


def _choose_version(request: StreamRequest) -> str:
    """Return the version of OME-Zarr that is written."""
    if not request.into_image:
        return request.zarr or "0.5"
    found = "0.4" if store.find_image_format(Path(request.input.path)) == 2 else "0.5"
    if request.zarr not in (None, found):
        problem = f"the image is OME-Zarr {found}, and so must be the labels in it"
        raise InputError(f"--zarr {request.zarr}", problem, "Leave the option out")
    return found


def _list_names(model: Model, name: str) -> list[str]:
    """Return the names of the label images of a run."""
    return [f"{name}_{number}" for number in range(model.task.classes)] if model.task.multilabel else [name]


def _explain_limits(model: Model) -> Iterator[str]:
    """Yield sentences about limits of the result."""
    if not model.net.exact_tiles:
        yield "the result differs slightly from that of the whole image, because this net pools over each tile"
    if model.task.object_classes > 1:
        yield "objects are written without their classes"


def _report_finished(request: StreamRequest) -> StreamFinished:
    """Return the only event of a run whose output is complete already."""
    return StreamFinished(
        output=request.output,
        megapixels=0.0,
        segmented=0.0,
        seconds=0.0,
        net_seconds=None,
        objects=None,
        skipped=0.0,
        already_complete=True,
    )


def _make_plan(
    request: StreamRequest, identity: RunIdentity, source: Source, model: Model, folder: Path, device: str
) -> tuple[StreamPlan, Budget, tuple[str, ...]]:
    """Return the plan of the interrupted run, or a new plan; the sizes that fit into the budget now; and notes."""
    memory = request.memory or default_memory()
    itemsize, decoding = source.dtype.itemsize, source.decoding_bytes
    fit = partial(fit_budget, model, itemsize, memory, engine=identity.engine, decoding=decoding)
    plan = None if request.overwrite else load_plan(folder)
    notices = Notices()
    if plan is not None:
        if plan.identity != identity:
            differs = ", ".join(plan.identity.differences(identity))
            problem = f"the folder holds an unfinished run of another image or with other settings ({differs})"
            same = f"--engine {plan.identity.engine}" if differs == "engine" else "the same settings again"
            raise InputError(folder, problem, f"Give {same}, or --overwrite to start again")
        budget = fit(margin=plan.margin, block=plan.block)
        find_factor(model, source, notices)
        report_unlike(model, source, plan.normalizations, device, notices)
        return plan, budget, ("an interrupted run is resumed", *notices.lines())
    budget = fit(margin=model.task.block_margin)
    normalizations = resolve_normalizations(model, source, find_factor(model, source, notices))
    report_unlike(model, source, normalizations, device, notices)
    skipped, notes = find_empty_blocks(source, budget.block) if request.skip_empty else ((), ())
    plan = StreamPlan(
        identity=identity,
        input=request.input,
        sample=digest_sample(source),
        block=budget.block,
        margin=model.task.block_margin,
        normalizations=normalizations,
        skipped=skipped,
        calibration=source.calibration,
    )
    if request.overwrite:
        remove_earlier_run(request.output, folder)
    write_text(folder / "plan.json", json.dumps(plan.to_json(), indent=1))
    return plan, budget, (*notes, *notices.lines())


# Merging and writing -------------------------------------------------------------------------------------------------


def _label_type(model: Model, objects: int | None) -> np.dtype[Any]:
    """Return the type of the labels, given the number of objects; None for a semantic task."""
    if objects is None:
        return model.as_written(np.zeros((1, 1), np.int32)).dtype
    return np.dtype(np.uint32 if objects < 2**32 else np.uint64)


MergedPlanes = dict[tuple[int, int], MergedObjects]
"""The final ids of the objects of each plane (t, z)."""


def _merge(plan: StreamPlan, model: Model, folder: Path) -> MergedPlanes | None:
    """Merge the objects of the blocks of each plane; return None for a semantic task."""
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

    return {(t, z): merge_plane(t, z) for t, z in product(range(times), range(depths))}


def _write(
    executor: Executor, worker: BlockWorker, specs: list[StoreSpec], merged: MergedPlanes | None, request: StreamRequest
) -> Iterator[StreamStep]:
    """Write the missing blocks of the store, level by level; then convert it if the output is of another kind."""
    output, is_tiff = request.output, request.output.suffix.lower() in _TIFF
    is_copy = is_tiff or request.into_image or worker.plan.identity.zarr == "0.4"
    target = worker.folder / "store.ome.zarr" if is_copy else output
    store.create_store(target, specs)
    written = WrittenBlocks(worker.folder / "digests.jsonl", target, specs)
    blocks = [
        (spec, level, index) for spec in specs for level in range(len(spec.levels)) for index in spec.blocks(level)
    ]
    missing = [block for block in blocks if not written.is_written(*block)]
    images_missing = Counter(index for _, level, index in missing if level == 0)
    done = len(blocks) - len(missing)

    def output_blocks() -> Iterator[OutputBlock]:
        for index in sorted(images_missing):
            numbers = None if merged is None else merged[index[0], index[1]].look_up_ids(index[2], index[3])
            yield OutputBlock(target, tuple(specs), index, numbers)

    for block, digests in executor.write_output(output_blocks()):
        for spec, digest in zip(specs, digests, strict=True):
            written.add(spec, 0, block.index, digest)
        done += images_missing[block.index]
        yield StreamStep("writing", done, len(blocks))
    for level in range(1, max(len(spec.levels) for spec in specs)):
        higher = [PyramidBlock(target, spec, level, index) for spec, at, index in missing if at == level]
        for pyramid_block, digest in executor.write_pyramid(higher):
            written.add(pyramid_block.spec, level, pyramid_block.index, digest)
            done += 1
            yield StreamStep("writing", done, len(blocks))
    store.finish_store(target, specs)
    if is_tiff:
        store.write_ome_tiff(output, target, specs[0])
    elif request.into_image:
        store.write_labels_into(Path(request.input.path), target, specs)
    elif is_copy:
        store.write_zarr2(output, target, specs)
