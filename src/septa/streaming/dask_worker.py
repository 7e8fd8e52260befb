"""Code that runs on the workers of a Dask cluster. It imports distributed, so it is imported only with a cluster."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from dask.system import CPU_COUNT
from distributed import WorkerPlugin

from septa import runtime
from septa.errors import InputError, ResourceError, SeptaError, is_out_of_memory
from septa.images.store import BlockIndex
from septa.model import Model
from septa.streaming.block_worker import BlockWorker
from septa.streaming.blocks import (
    OutputBlock,
    PyramidBlock,
    segment_block,
    write_output_block,
    write_pyramid_block,
)
from septa.streaming.budget import default_memory, fit_budget
from septa.streaming.identity import RunIdentity, StreamInput, digest_sample
from septa.streaming.measuring import ObjectBlock, measure_block
from septa.streaming.plan import StreamPlan

_SHARE_STORAGE = "Put the input and the output on storage that every worker sees under the same path"


@dataclass(frozen=True, kw_only=True)
class DaskRun:
    """Description of a run that each worker gets; the worker reads everything else from the plan's file.

    Attributes
    ----------
    key
        Name of the run.
    plan, model
        SHA-256 (hex) of its plan and of its model file.
    model_key
        Name under which the model was sent.
    version
        The client's version of septa.
    input, folder
        The image and the work folder, both with absolute paths.
    memory, tile, device
        As in `StreamRequest`.
    is_local
        True if the worker processes belong to the client. They then ignore Ctrl-C, which a terminal sends to all
        processes and which the client handles.
    threads
        Number of torch's threads. If None, a worker uses the number that Dask gave it, or its share of the cores.
    local_ranks
        For each worker, by the address of its nanny: its rank among the workers of its machine, from 0, and their
        number.
    """

    key: str
    plan: str
    model: str
    model_key: str
    version: str
    input: StreamInput
    folder: Path
    memory: int | None
    tile: int | None
    device: str
    is_local: bool
    threads: int | None
    local_ranks: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class WorkerFailure:
    """An error on a worker, as text: exceptions cannot be sent with everything that they hold.

    Attributes
    ----------
    where, problem, remedy
        As in `SeptaError`.
    is_resource
        True if the error is a `ResourceError`.
    traceback
        Traceback of an unexpected error, which ``--debug`` shows; else empty.
    """

    where: str
    problem: str
    remedy: str
    is_resource: bool = False
    traceback: str = ""

    @classmethod
    def from_exception(cls, error: Exception) -> WorkerFailure:
        """Describe an exception."""
        if isinstance(error, SeptaError):
            return cls(
                where=error.where,
                problem=error.problem,
                remedy=error.remedy,
                is_resource=isinstance(error, ResourceError),
            )
        if is_out_of_memory(error):
            return cls(
                where="", problem="the worker ran out of memory", remedy="Give a smaller --tile", is_resource=True
            )
        return cls(
            where="",
            problem=f"an unexpected {type(error).__name__} occurred",
            remedy="Run 'septa --debug predict ...' and report the output",
            traceback="".join(traceback.format_exception(error)),
        )


@dataclass(frozen=True)
class WorkerReply:
    """The result of a call on a worker, and the worker's address; ``failure`` is None if the call succeeded."""

    address: str
    value: Any = None
    failure: WorkerFailure | None = None


@dataclass(frozen=True, kw_only=True)
class _PreparedRun:
    """A run, and the place of this worker process in it."""

    run: DaskRun
    address: str
    rank: int
    peers: int
    threads: int


# State of this worker process.
_models: dict[str, bytes | Model] = {}
_prepared_runs: dict[str, _PreparedRun] = {}
_block_workers: dict[str, BlockWorker] = {}
_one_block = threading.Lock()
"""Allows one block at a time: --memory is for one block, however many threads Dask has."""


class ModelPlugin(WorkerPlugin):
    """The bytes of a model file. Dask sends them once to each worker process, also to one that starts later."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.data = data

    def setup(self, worker: Any) -> None:
        """Keep the bytes until the first block needs the model."""
        runtime.prepare()
        _models[self.name] = self.data
        self.data = b""

    def teardown(self, worker: Any) -> None:
        """Forget the model."""
        _models.pop(self.name, None)


class RunPlugin(WorkerPlugin):
    """The description of a run."""

    def __init__(self, run: DaskRun) -> None:
        self.name = run.key
        self.run = run

    def setup(self, worker: Any) -> None:
        """Keep the description and find this worker's rank and number of threads."""
        if self.run.is_local and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        ranks = self.run.local_ranks
        most = max((peers for _, peers in ranks.values()), default=1)
        # A worker that starts later has no rank; a hash spreads such workers over the GPUs.
        rank, peers = ranks.get(worker.nanny or worker.address, (abs(hash(worker.address)), most))
        cores = min(runtime.count_cores(), CPU_COUNT)
        given = worker.state.nthreads
        threads = self.run.threads or (min(given, cores) if given > 1 else cores // peers)
        _prepared_runs[self.run.key] = _PreparedRun(
            run=self.run, address=worker.address, rank=rank, peers=peers, threads=max(1, threads)
        )

    def teardown(self, worker: Any) -> None:
        """Forget the run and close its image."""
        _prepared_runs.pop(self.run.key, None)
        if (block_worker := _block_workers.pop(self.run.key, None)) is not None:
            block_worker.source.close()


async def check_worker(key: str) -> WorkerReply:
    """Check that this worker sees the plan and the image of a run, and has the memory for its blocks."""
    return await asyncio.to_thread(_call, key, lambda worker: None)


async def has_fast_bf16(device: str) -> bool:
    """Return True if this worker is fast in bfloat16; see `septa.runtime.has_fast_bf16`."""
    return await asyncio.to_thread(runtime.has_fast_bf16, device)


def segment(key: str, index: BlockIndex) -> WorkerReply:
    """Segment a block by `segment_block` on this worker."""
    return _call(key, lambda worker: segment_block(worker, index))


def write_output(key: str, block: OutputBlock) -> WorkerReply:
    """Write a block into the store by `write_output_block` on this worker; the value is its digests."""
    return _call(key, lambda worker: write_output_block(worker.folder, worker.plan, worker.model, block))


def measure_on_worker(key: str, block: ObjectBlock) -> WorkerReply:
    """Measure the objects of a block by `measure_block` on this worker."""
    return _call(key, lambda worker: measure_block(worker, block))


def write_pyramid(key: str, block: PyramidBlock) -> WorkerReply:
    """Write a block of a pyramid level by `write_pyramid_block` on this worker; the value is its digest."""
    return _call(key, lambda worker: write_pyramid_block(block))


def _call(key: str, work: Callable[[BlockWorker], Any]) -> WorkerReply:
    """Call a function with the block worker of a run, and return its value or its failure."""
    prepared = _prepared_runs.get(key)
    if prepared is None:
        problem = "this worker was not prepared for the run"
        return WorkerReply("", failure=WorkerFailure(where="", problem=problem, remedy="Look into the worker's log"))
    with _one_block:
        try:
            torch.set_num_threads(prepared.threads)
            if key not in _block_workers:
                _block_workers[key] = _make_worker(prepared)
            return WorkerReply(prepared.address, work(_block_workers[key]))
        except Exception as error:
            return WorkerReply(prepared.address, failure=WorkerFailure.from_exception(error))


def _make_worker(prepared: _PreparedRun) -> BlockWorker:
    run = prepared.run
    if (here := runtime.collect_versions()["septa"]) != run.version:
        problem = f"this worker has version {here} of septa, but the client has version {run.version}"
        raise InputError("", problem, "Install the same version on all of them")
    plan = _read_plan(run)
    model = _load_model(run.model_key).apply_scale(plan.scale)
    source = run.input.open(model.channels)
    try:
        identity = plan.identity
        seen = RunIdentity.from_source(
            source,
            run.input,
            path=identity.path,
            content=identity.content,
            model=run.model,
            engine=identity.engine,
            name=identity.name,
            probabilities=identity.probabilities,
            skip_empty=identity.skip_empty,
            objects=identity.objects,
            zarr=identity.zarr,
            diameter=identity.diameter,
        )
        if seen != identity or digest_sample(source) != plan.sample:
            raise InputError(run.input.path, "this is not the image that the run was planned for", _SHARE_STORAGE)
        memory = run.memory or default_memory(prepared.peers)
        budget = fit_budget(
            model,
            source.dtype.itemsize,
            memory,
            margin=plan.margin,
            block=plan.block,
            engine=identity.engine,
            decoding=source.decoding_bytes,
        )
        return BlockWorker(
            plan=plan,
            model=model,
            source=source,
            engine=model.engine(_choose_device(run.device, prepared.rank), identity.engine),
            folder=run.folder,
            tile=budget.choose_tile(run.tile, model.net, plan.scale.reduction),
            free=budget.free,
            limit=budget.limit,
        )
    except BaseException:
        source.close()
        raise


def _read_plan(run: DaskRun) -> StreamPlan:
    file = run.folder / "plan.json"
    try:
        plan = StreamPlan.from_json(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(file, f"the plan cannot be read ({error.strerror})", _SHARE_STORAGE) from error
    except ValueError as error:
        raise InputError(file, "the plan is damaged", "Run the same command again with --overwrite") from error
    if plan.digest != run.plan:
        raise InputError(file, "this is not the plan of the run", _SHARE_STORAGE)
    return replace(plan, input=run.input)


def _load_model(key: str) -> Model:
    model = _models[key]
    if not isinstance(model, Model):
        model = Model.from_bytes(model, "model")
        _models[key] = model
    return model


def _choose_device(name: str, rank: int) -> str:
    """Return the device for the worker of a rank: the workers of a machine take its GPUs in turn."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{rank % torch.cuda.device_count()}"
    return name
