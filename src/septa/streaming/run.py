"""The workflow on one machine: plan, segment block by block, merge, write the store. Read `stream` from top to bottom.

Whatever was done before a kill, a full disk or Ctrl-C is kept in ``OUTPUT.work`` beside the output, and the same
command goes on with it. Done is what lies there with a checksum that holds, nothing else.
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
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from septa.errors import InputError, Interrupted
from septa.images import Source, store, write_text
from septa.images.store import StoreSpec
from septa.inference import smallest_tile_for
from septa.model import Model
from septa.streaming.block_file import is_done, load_facts
from septa.streaming.blocks import BlockWorker, OutputBlock, PyramidBlock, write_empty_block
from septa.streaming.budget import Budget, default_memory, fit_budget
from septa.streaming.events import StreamEvent, StreamFinished, StreamRequest, StreamStarted, StreamStep
from septa.streaming.executor import Executor, LocalExecutor, MakeExecutor
from septa.streaming.plan import RunIdentity, StreamPlan, margin_for
from septa.streaming.prescan import find_empty_blocks, resolve_normalizations
from septa.streaming.written_blocks import WrittenBlocks
from septa.tasks import MergedObjects, merge_blocks

_TIFF = (".tif", ".tiff")
_LONGEST = 150


def stream(request: StreamRequest, make_executor: MakeExecutor | None = None) -> Iterator[StreamEvent]:
    """Segment one image of any size into an OME-Zarr store or a pyramidal OME-TIFF.

    Parameters
    ----------
    request
        What is to be done. The same request again goes on where an earlier run was ended.
    make_executor
        Makes those who do the blocks; this process does them when not given.

    Yields
    ------
    `StreamStarted`, then `StreamStep`, then `StreamFinished`.

    Raises
    ------
    InputError
        The image, the model or the output cannot be used.
    ResourceError
        The budget is too small, or memory or the disk do not suffice.
    Interrupted
        Ctrl-C; the same request goes on.
    """
    began = time.monotonic()
    data = Model.read(request.model)
    model, digest = Model.from_bytes(data, request.model), hashlib.sha256(data).hexdigest()
    del data
    _check_request(model, request)
    folder = work_folder(request.output)
    try:
        with request.input.open() as source:
            device = "cpu" if make_executor else request.device
            name = request.engine or model.own_engine(device)
            identity = RunIdentity.from_source(
                source,
                request.input,
                model=digest,
                engine=name,
                name=_name(request),
                probabilities=request.probabilities,
                skip_empty=request.skip_empty,
            )
            if _is_finished(request, identity, folder):
                yield StreamFinished(
                    output=request.output,
                    megapixels=0.0,
                    segmented=0.0,
                    seconds=0.0,
                    net_seconds=None,
                    objects=None,
                    skipped=0.0,
                    again=True,
                )
                return
            engine = model.engine(device, name)
            plan, budget, notes = _plan(request, identity, source, model, folder)
            tile = min(budget.tile, request.tile or budget.tile)
            worker = BlockWorker(
                plan=plan,
                model=model,
                source=source,
                engine=engine,
                folder=folder,
                tile=tile,
                free=budget.free,
                limit=budget.limit,
            )
            executor = make_executor(request, worker) if make_executor else LocalExecutor(worker)
            yield from _stream(request, worker, budget, (*notes, *_explain_limits(model)), executor, began)
    except KeyboardInterrupt:
        problem = f"the run was interrupted, and its finished blocks are kept in {folder}"
        raise Interrupted(request.output, problem, "Run the same command again to resume", signal.SIGINT) from None


def work_folder(output: Path) -> Path:
    """Where an unfinished run keeps what it has done."""
    return output.with_name(f"{output.name}.work")


def _stream(
    request: StreamRequest,
    worker: BlockWorker,
    budget: Budget,
    notes: tuple[str, ...],
    executor: Executor,
    began: float,
) -> Iterator[StreamEvent]:
    plan, model, folder = worker.plan, worker.model, worker.folder
    every = list(plan.blocks())
    todo = [index for index in every if not is_done(folder, plan, index)]
    yield StreamStarted(
        plan=plan, budget=budget, model=model, blocks=len(every), done=len(every) - len(todo), notes=notes
    )
    for index in worker.skipped.intersection(todo):
        write_empty_block(folder, plan, model, index)
    todo = [index for index in todo if index not in worker.skipped]
    total, done = plan.megapixels(every), plan.megapixels(every) - plan.megapixels(todo)
    for index in executor.segment(todo):
        done += plan.megapixels([index])
        yield StreamStep("segmenting", done, total)
    merged = _merge(plan, model, folder)
    objects = None if merged is None else sum(part.count for part in merged.values())
    yield from _write(executor, worker, plan.specs(model, _label_type(model, objects)), merged, request.output)
    executor.close()
    shutil.rmtree(folder, ignore_errors=True)  # what a file system keeps for now is removed the next time
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
    if request.tile is not None and request.tile < smallest_tile_for(model.net):
        least = smallest_tile_for(model.net)
        problem = f"a tile of this net must be at least {least} pixels, got {request.tile}"
        raise InputError("--tile", problem, f"Give --tile {least} or more")
    if request.output.suffix.lower() in _TIFF and (model.task.multilabel or request.probabilities):
        problem = "an OME-TIFF file holds one image, but overlapping classes or probabilities need several"
        raise InputError(request.output, problem, "Give -o a name that ends in .ome.zarr")


def _name(request: StreamRequest) -> str:
    """Of the label image, as a store takes it."""
    name = request.name
    if name is None:
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", request.model.stem).lstrip("_.-")[:_LONGEST] or "labels"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or len(name) > _LONGEST:
        rule = f"1 to {_LONGEST} letters, digits, '_', '-' or '.', and start with a letter or digit"
        raise InputError("--name", f"a name must have {rule}, got {name!r}", "Give for example --name nuclei")
    return name


def _explain_limits(model: Model) -> Iterator[str]:
    """What the user is to know of the result."""
    if not model.net.exact_tiles:
        yield "the result differs slightly from that of the whole image, because this net pools over each tile"
    if model.task.object_classes > 1:
        yield "objects are written without their classes"


def _is_finished(request: StreamRequest, identity: RunIdentity, folder: Path) -> bool:
    """Whether the output is there already, as it was asked for; another one is replaced only when told so."""
    output, image = request.output, Path(request.input.path).resolve()
    if output.resolve() in (image, *image.parents):
        raise InputError(output, "the output is the input image, or a folder that holds it", "Give -o another name")
    if not output.exists():
        return False
    noted = store.read_store_attributes(output) if output.is_dir() else {}
    if request.overwrite:
        if output.is_dir() and not noted:
            problem = "the folder was not written by septa, so it is not replaced"
            raise InputError(output, problem, "Remove it, or give -o another name")
        return False
    kept = _load_plan(folder)
    goes_on = kept is not None and kept.identity == identity
    same = noted.get("asked") == identity.digest if output.is_dir() else goes_on
    if same and (output.is_file() or store.is_store_complete(output)):
        shutil.rmtree(folder, ignore_errors=True)  # a run was ended before it could
        return True
    unfinished = output.is_dir() and bool(noted) and not store.is_store_complete(output)
    if not (unfinished and (same or kept)):
        raise InputError(output, "the output exists", "Give --overwrite to replace it, or give -o another name")
    return False


def _load_plan(folder: Path) -> StreamPlan | None:
    """The plan of an unfinished run."""
    file = folder / "plan.json"
    if not file.exists():
        return None
    try:
        return StreamPlan.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        problem = "the plan of the unfinished run in this folder cannot be read"
        raise InputError(folder, problem, "Give --overwrite to start again, or remove the folder") from error


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        problem = f"the old output cannot be removed ({error.strerror})"
        raise InputError(path, problem, "Check its permissions") from error


def _plan(
    request: StreamRequest, identity: RunIdentity, source: Source, model: Model, folder: Path
) -> tuple[StreamPlan, Budget, tuple[str, ...]]:
    """The plan of the run to go on with, or a new one, and how large tiles may be now."""
    memory = request.memory or default_memory()
    margin, size = margin_for(model), source.dtype.itemsize
    plan = None if request.overwrite else _load_plan(folder)
    if plan is not None:
        if plan.identity != identity:
            differs = ", ".join(plan.identity.differences(identity))
            problem = f"the folder holds an unfinished run with other settings ({differs})"
            raise InputError(folder, problem, "Give the same settings again, or --overwrite to start again")
        budget = fit_budget(model, size, memory, margin=plan.margin, block=plan.block, engine=identity.engine)
        return plan, budget, ("an interrupted run is resumed",)
    budget = fit_budget(model, size, memory, margin=margin, engine=identity.engine)
    normalizations = resolve_normalizations(model, source)
    skipped, notes = find_empty_blocks(source, budget.block) if request.skip_empty else ((), ())
    plan = StreamPlan(
        identity=identity,
        input=request.input,
        block=budget.block,
        margin=margin,
        normalizations=normalizations,
        skipped=skipped,
        pixel_size_um=source.pixel_size_um,
        origin_um=source.origin_um,
    )
    if request.overwrite:
        _remove(request.output)
        _remove(folder)
    write_text(folder / "plan.json", json.dumps(plan.to_json(), indent=1))
    return plan, budget, notes


# Merging and writing -------------------------------------------------------------------------------------------------


def _label_type(model: Model, objects: int | None) -> np.dtype[Any]:
    if objects is None:
        return model.as_written(np.zeros((1, 1), np.int32)).dtype
    return np.dtype(np.uint32 if objects < 2**32 else np.uint64)


Planes = dict[tuple[int, int], MergedObjects]
"""For each plane (t, z) the final ids of its objects."""


def _merge(plan: StreamPlan, model: Model, folder: Path) -> Planes | None:
    if not model.task.finds_objects:
        return None
    times, depths, rows, columns = plan.grid

    def plane(t: int, z: int) -> MergedObjects:
        try:
            return merge_blocks((rows, columns), lambda row, column: load_facts(folder, plan, (t, z, row, column)))
        except ValueError as error:
            problem = "neighbouring blocks of this run do not fit together"
            remedy = "Give --overwrite to start again, as the image or the machine may have changed since"
            raise InputError(folder, problem, remedy) from error

    return {(t, z): plane(t, z) for t, z in product(range(times), range(depths))}


def _write(
    executor: Executor, worker: BlockWorker, specs: list[StoreSpec], merged: Planes | None, output: Path
) -> Iterator[StreamStep]:
    """The store level by level, each block once; then, if asked for, one TIFF of it."""
    folder = worker.folder
    tiff = output.suffix.lower() in _TIFF
    target = folder / "store.ome.zarr" if tiff else output
    store.create_store(target, specs)
    written = WrittenBlocks(folder / "digests.jsonl", target, specs)
    every = [
        (spec, level, index) for spec in specs for level in range(len(spec.levels)) for index in spec.blocks(level)
    ]
    missing = [key for key in every if not written.holds(*key)]
    base = Counter(index for _, level, index in missing if level == 0)
    done = len(every) - len(missing)

    def finishes() -> Iterator[OutputBlock]:
        for index in sorted(base):
            numbers = None if merged is None else merged[index[0], index[1]].look_up_ids(index[2], index[3])
            yield OutputBlock(target, tuple(specs), index, numbers)

    for block, digests in executor.write_output(finishes()):
        for spec, digest in zip(specs, digests, strict=True):
            written.add(spec, 0, block.index, digest)
        done += base[block.index]
        yield StreamStep("writing", done, len(every))
    for level in range(1, max(len(spec.levels) for spec in specs)):
        builds = [PyramidBlock(target, spec, at, index) for spec, at, index in missing if at == level]
        for build, digest in executor.write_pyramid(builds):
            written.add(build.spec, level, build.index, digest)
            done += 1
            yield StreamStep("writing", done, len(every))
    store.finish_store(target, specs)
    if tiff:
        store.write_ome_tiff(output, target, specs[0])
