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
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from septa.errors import InputError, Interrupted
from septa.images import Source, WrittenFiles, is_address, lock_outputs, resolve_location, store, write_text
from septa.model import Model, explain_precision
from septa.notices import Notices
from septa.objects import choose_measurements
from septa.runtime import has_fast_bf16
from septa.streaming.block_file import is_done
from septa.streaming.block_worker import BlockWorker
from septa.streaming.blocks import write_empty_block
from septa.streaming.budget import Budget, default_memory, fit_budget
from septa.streaming.events import StreamEvent, StreamFinished, StreamRequest, StreamStarted, StreamStep
from septa.streaming.executor import Executor, LocalExecutor, MakeExecutor
from septa.streaming.identity import ObjectSettings, RunIdentity, digest_content, digest_sample
from septa.streaming.object_facts import foreground_store
from septa.streaming.object_files import check_object_files, list_object_files
from septa.streaming.output import (
    check_output,
    find_image_around,
    is_finished,
    load_plan,
    remove_earlier_run,
    work_folder,
)
from septa.streaming.plan import StreamPlan
from septa.streaming.prescan import (
    find_empty_blocks,
    find_factor,
    measure_scale,
    report_unlike,
    resolve_normalizations,
)
from septa.streaming.writing import StoreWriter, find_label_type, is_tiff

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
    model, digest = _load_model(request.model)
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
                objects=_choose_object_settings(model, request),
                zarr=_choose_version(request),
                diameter=request.diameter,
            )
            files = list_object_files(request, source.shape)
            with lock_outputs([find_image_around(request.output) or request.output, *files[:1]]) as notes:
                if is_finished(request, identity, folder, files):
                    if request.into_image:  # an earlier run may have been killed before it could do this
                        store.list_labels_of(Path(request.input.path), _list_names(model, identity.name))
                    yield _report_finished(request)
                    return
                written = check_object_files(request, files, source.calibration, notices)
                engine = model.engine(device, identity.engine)
                plan, budget, more = _make_plan(request, identity, source, model, folder, device)
                model = model.apply_scale(plan.scale)
                worker = BlockWorker(
                    plan=plan,
                    model=model,
                    source=source,
                    engine=engine if plan.scale.reduction == 1 else model.engine(device, identity.engine),
                    folder=folder,
                    tile=budget.choose_tile(request.tile, model.net, plan.scale.reduction),
                    free=budget.free,
                    limit=budget.limit,
                )
                executor = make_executor(request, worker) if make_executor else LocalExecutor(worker)
                more += explain_precision(identity.engine, model.bf16, fast=fast)
                notes = (*notes, *more, *_explain_limits(model, request.output), *(known := notices.lines()))
                for event in _stream(request, worker, budget, notes, executor, written, began):
                    late = tuple(notices.lines()[len(known) :])
                    yield replace(event, notes=late) if isinstance(event, StreamFinished) else event
    except KeyboardInterrupt:
        raise make_interrupted(request.output) from None


def _load_model(path: Path) -> tuple[Model, str]:
    """Return a model and the SHA-256 (hex) of its file."""
    data = Model.read(path)
    return Model.from_bytes(data, path), hashlib.sha256(data).hexdigest()


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
    written: WrittenFiles,
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
    writer = StoreWriter(executor=executor, worker=worker, request=request, written=written)
    yield from writer.write()
    planes = None if writer.planes is None else writer.planes.values()
    executor.close()
    shutil.rmtree(folder, ignore_errors=True)  # the next run removes files that a file system keeps for now
    yield StreamFinished(
        output=request.output,
        megapixels=total,
        segmented=plan.megapixels(todo),
        seconds=time.monotonic() - began,
        net_seconds=worker.net_seconds if isinstance(executor, LocalExecutor) else None,
        objects=None if planes is None else sum(plane.count for plane in planes),
        dropped=0 if planes is None else sum(plane.count_dropped() for plane in planes),
        skipped=plan.megapixels(plan.skipped) / total,
        conflicts=0 if planes is None else sum(plane.merged.conflicts for plane in planes),
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
    if not model.task.finds_objects and find_label_type(model, None).kind != "u":
        problem = "a class of this model has a label value below 0, which a store cannot hold"
        raise InputError(where, problem, "Train with label values of at least 0")
    model.check_tile(request.tile)
    _check_objects(model, request)
    if is_tiff(request.output) and (model.task.multilabel or request.probabilities):
        problem = "an OME-TIFF file holds one image, but overlapping classes or probabilities need several"
        raise InputError(request.output, problem, "Give -o a name that ends in .ome.zarr")


def _check_objects(model: Model, request: StreamRequest) -> None:
    """Refuse files of objects from a model without objects, and measurements without a file."""
    wanted = request.table is not None or request.geojson is not None
    if (wanted or request.min_confidence is not None) and not model.task.finds_objects:
        problem = "this model finds no objects, but --table, --geojson and --min-confidence need them"
        raise InputError(request.model, problem, "Leave them out, or give a model that was trained as --task instances")
    if choose_measurements(request.measure) and not wanted:
        problem = "measurements go to tables and to outlines for QuPath, and neither is requested"
        raise InputError("--measure", problem, "Add --table FILE.csv or --geojson, or leave the option out")


def _choose_object_settings(model: Model, request: StreamRequest) -> ObjectSettings | None:
    """Return what is done with single objects; None if there is nothing to do besides numbering them."""
    settings = ObjectSettings(
        table=request.table is not None,
        geojson=request.geojson is not None,
        measure=tuple(sorted(choose_measurements(request.measure))) or ("basic",),
        min_confidence=request.min_confidence,
        classes=model.task.finds_objects and model.task.object_classes > 1,
    )
    return settings if settings.scored or settings.classes else None


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
    if model.task.multilabel:
        return [f"{name}_{number}" for number in range(model.task.classes)]
    return [name, f"{name}_classes"] if model.task.object_classes > 1 else [name]


def _explain_limits(model: Model, output: Path) -> Iterator[str]:
    """Yield sentences about limits of the result."""
    if not model.net.exact_tiles:
        yield "the result differs slightly from that of the whole image, because this net pools over each tile"
    if model.task.object_classes > 1 and is_tiff(output):
        yield "the label image holds the objects without their classes, because an OME-TIFF file holds one image"


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
    fit = partial(fit_budget, itemsize=itemsize, memory=memory, engine=identity.engine, decoding=decoding)
    plan = None if request.overwrite else load_plan(folder)
    notices = Notices()
    if plan is not None:
        if plan.identity != identity:
            differs = ", ".join(plan.identity.differences(identity))
            problem = f"the folder holds an unfinished run of another image or with other settings ({differs})"
            same = f"--engine {plan.identity.engine}" if differs == "engine" else "the same settings again"
            raise InputError(folder, problem, f"Give {same}, or --overwrite to start again")
        model = model.apply_scale(plan.scale)
        budget = fit(model, margin=plan.margin, block=plan.block)
        find_factor(model, source, notices)
        report_unlike(model, source, plan.normalizations, device, notices)
        return plan, budget, ("an interrupted run is resumed", *notices.lines())
    normalizations = resolve_normalizations(model, source, find_factor(model, source, notices))
    if request.diameter is None:
        scale = measure_scale(model, source, normalizations, device, notices)
    else:
        scale = model.choose_scale(request.diameter)
    model = model.apply_scale(scale)
    budget = fit(model, margin=model.task.block_margin)
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
        scale=scale,
    )
    if request.overwrite:
        remove_earlier_run(request.output, folder)
    if identity.objects is not None and identity.objects.scored:
        store.create_store(foreground_store(folder), [plan.foreground_spec()])
    write_text(folder / "plan.json", json.dumps(plan.to_json(), indent=1))
    return plan, budget, (*notes, *notices.lines())
