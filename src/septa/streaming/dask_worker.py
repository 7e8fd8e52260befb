"""What runs on the workers of a Dask cluster. Imports distributed, so it is imported only where there is a cluster."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from dask.system import CPU_COUNT
from distributed import WorkerPlugin

from septa import runtime
from septa.errors import InputError, ResourceError, SeptaError
from septa.images.store import BlockIndex
from septa.model import Model
from septa.streaming.blocks import (
    BlockWorker,
    OutputBlock,
    PyramidBlock,
    segment_block,
    write_output_block,
    write_pyramid_block,
)
from septa.streaming.budget import default_memory, fit_budget
from septa.streaming.plan import RunIdentity, StreamInput, StreamPlan

_SHARE_STORAGE = "put the model's input and output on storage that every worker sees under the same path"


@dataclass(frozen=True, kw_only=True)
class DaskRun:
    """What a worker must be told of a run; the rest stands in the plan's file.

    Attributes
    ----------
    key, plan, model
        Name of the run; digests of its plan and of its model.
    sent
        Name under which the model was sent.
    version
        Of septa.
    input, folder
        Where image and plan lie: absolute paths.
    memory, tile, device
        As in `StreamRequest`.
    ours
        Whether the processes are the client's own: Ctrl-C, which its terminal sends to all of them, is its business.
    threads
        Of torch; when None a worker takes as many as dask gave it, or its share of the cores.
    places
        By the address of a worker's nanny: its number among the workers of its machine, and how many they are.
    """

    key: str
    plan: str
    model: str
    sent: str
    version: str
    input: StreamInput
    folder: Path
    memory: int | None
    tile: int | None
    device: str
    ours: bool
    threads: int | None
    places: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class WorkerFailure:
    """An error of septa's, told in words: exceptions do not survive being sent with all that they hold."""

    where: str
    problem: str
    remedy: str
    resource: bool

    @classmethod
    def of(cls, error: Exception) -> WorkerFailure:
        """An exception as a fault."""
        if isinstance(error, SeptaError):
            return cls(error.where, error.problem, error.remedy, isinstance(error, ResourceError))
        text = " ".join(f"{type(error).__name__} {error}".split())
        return cls("septa", f"unexpected {text}", "", isinstance(error, MemoryError))


@dataclass(frozen=True)
class WorkerReply:
    """What came of a call, and where."""

    address: str
    value: Any = None
    fault: WorkerFailure | None = None


@dataclass(kw_only=True)
class _PreparedRun:
    """What a worker process knows of a run."""

    job: DaskRun
    address: str
    number: int
    peers: int
    threads: int


# Of this process, for as long as it lives.
_models: dict[str, bytes | Model] = {}
_places: dict[str, _PreparedRun] = {}
_workers: dict[str, BlockWorker] = {}
_busy = threading.Lock()
"""One block at a time: what --memory gives is for one, however many threads dask has."""


class ModelPlugin(WorkerPlugin):
    """The bytes of a model file: Dask sends them once to each worker process, also to those that come later."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self.data = name, data

    def setup(self, worker: Any) -> None:
        """Keep them until the first block asks for the model."""
        runtime.prepare()
        _models[self.name] = self.data
        self.data = b""

    def teardown(self, worker: Any) -> None:
        """Forget the model."""
        _models.pop(self.name, None)


class RunPlugin(WorkerPlugin):
    """What a run is about."""

    def __init__(self, job: DaskRun) -> None:
        self.name, self.job = job.key, job

    def setup(self, worker: Any) -> None:
        """Keep it, with what this worker is among the others."""
        if self.job.ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        places = self.job.places
        most = max((peers for _, peers in places.values()), default=1)
        number, peers = places.get(worker.nanny or worker.address, (abs(hash(worker.address)), most))
        cores = min(runtime.usable_cores(), CPU_COUNT)
        given = worker.state.nthreads
        threads = self.job.threads or (min(given, cores) if given > 1 else cores // peers)
        _places[self.job.key] = _PreparedRun(
            job=self.job, address=worker.address, number=number, peers=peers, threads=max(1, threads)
        )

    def teardown(self, worker: Any) -> None:
        """Forget it."""
        _places.pop(self.job.key, None)
        if (gone := _workers.pop(self.job.key, None)) is not None:
            gone.source.close()


async def look(key: str) -> WorkerReply:
    """Whether this worker can do blocks: it sees the plan and the image, and has the memory."""
    return await asyncio.to_thread(_answer, key, lambda worker: None)


def segment(key: str, index: BlockIndex) -> WorkerReply:
    """`segment_block` here."""
    return _answer(key, lambda worker: segment_block(worker, index))


def finish(key: str, block: OutputBlock) -> WorkerReply:
    """`write_output_block` here."""
    return _answer(key, lambda worker: write_output_block(worker.folder, worker.plan, block))


def build(key: str, block: PyramidBlock) -> WorkerReply:
    """`write_pyramid_block` here."""
    return _answer(key, lambda worker: write_pyramid_block(block))


def _answer(key: str, work: Callable[[BlockWorker], Any]) -> WorkerReply:
    place = _places.get(key)
    if place is None:
        return WorkerReply(
            "", fault=WorkerFailure("septa", "was not prepared for this run", "look into the worker's log", False)
        )
    with _busy:
        try:
            torch.set_num_threads(place.threads)
            if key not in _workers:
                _workers[key] = _make(place)
            return WorkerReply(place.address, work(_workers[key]))
        except Exception as error:
            return WorkerReply(place.address, fault=WorkerFailure.of(error))


def _make(place: _PreparedRun) -> BlockWorker:
    job = place.job
    if (here := runtime.versions()["septa"]) != job.version:
        raise InputError("septa", f"is version {here} here and {job.version} where it was called", "install the same")
    plan, model = _plan(job), _model(job.sent)
    source = job.input.open()
    try:
        identity = plan.identity
        seen = RunIdentity.of(
            source,
            job.input,
            model=job.model,
            engine=identity.engine,
            name=identity.name,
            probabilities=identity.probabilities,
            skip_empty=identity.skip_empty,
        )
        if seen != identity:
            raise InputError(job.input.path, "is another image than the one that was planned for", _SHARE_STORAGE)
        memory = job.memory or default_memory(place.peers)
        budget = fit_budget(
            model, source.dtype.itemsize, memory, margin=plan.margin, block=plan.block, engine=identity.engine
        )
        tile = min(budget.tile, job.tile or budget.tile)
        engine = model.engine(_device(job.device, place.number), identity.engine)
        return BlockWorker(
            plan=plan,
            model=model,
            source=source,
            engine=engine,
            folder=job.folder,
            tile=tile,
            free=budget.free,
            limit=budget.limit,
        )
    except BaseException:
        source.close()
        raise


def _plan(job: DaskRun) -> StreamPlan:
    file = job.folder / "plan.json"
    try:
        plan = StreamPlan.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(file, f"cannot be read ({reason})", _SHARE_STORAGE) from None
    if plan.digest != job.plan:
        raise InputError(file, "is another plan than the one of this run", _SHARE_STORAGE)
    return replace(plan, input=job.input)


def _model(sent: str) -> Model:
    model = _models[sent]
    if not isinstance(model, Model):
        model = _models[sent] = Model.from_bytes(model, "model")
    return model


def _device(name: str, number: int) -> str:
    """One GPU for each worker of a machine, in turn."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{number % torch.cuda.device_count()}"
    return name
