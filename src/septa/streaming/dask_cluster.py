"""An executor on a Dask cluster: many processes work on the same plan and the same blocks.

The client submits blocks, at most two per worker at a time. Image, work folder and store lie on storage that all
workers see. The model is sent once to each worker. If a worker dies, only the block that it worked on is done again;
if the client dies, all finished blocks are kept. `septa.streaming.dask_connection` connects to clusters.

Dask sends pickled messages between its processes. Whoever reaches one of them can therefore make it run any code. septa
itself opens ports at 127.0.0.1 only; any other cluster is as safe as its network, or its TLS certificates.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from queue import Empty, SimpleQueue
from traceback import format_exception
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from septa import runtime
from septa.errors import InputError, ModelError, ResourceError, SeptaError
from septa.images import resolve_location
from septa.images.store import BlockIndex
from septa.model import Model
from septa.streaming.block_worker import BlockWorker
from septa.streaming.blocks import OutputBlock, PyramidBlock
from septa.streaming.events import StreamRequest
from septa.streaming.measuring import ObjectBlock

if TYPE_CHECKING:
    from septa.streaming.dask_worker import DaskRun, WorkerFailure, WorkerReply

_BLOCKS_PER_WORKER = 2
"""Blocks in flight for each worker: one that it works on, and one that waits."""
_ATTEMPTS = 3
"""Number of times that a block is submitted if it fails, or if Dask gives it up."""
_POLL_S = 5.0
"""Seconds between two counts of the workers."""
_WAIT_S = 600.0
"""Seconds without any worker after which a run ends."""
_RERUN = "Run the same command again to resume"


class Cluster:
    """A connection to the workers of a Dask cluster.

    Its method `make_executor` is an argument of `septa.streaming.stream`.

    Attributes
    ----------
    client
        The `distributed.Client`.
    where
        Name of the cluster in messages, such as ``--workers 4``.
    threads
        Number of threads of each worker, if the workers are processes of this client; else None.
    """

    def __init__(self, client: Any, where: str, threads: int | None = None) -> None:
        self.client = client
        self.where = where
        self.threads = threads
        self._session = uuid4().hex
        self._plugins: list[str] = []

    def make_executor(self, request: StreamRequest, worker: BlockWorker) -> DaskExecutor:
        """Prepare all workers for one run.

        Raises
        ------
        InputError
            A worker does not see the plan or the image, or has another version of septa. The message names the worker.
        ResourceError
            A worker has too little memory.
        """
        from septa.streaming import dask_worker

        run, data = self._describe_run(request, worker)
        try:
            if run.model_key not in self._plugins:
                self._register(dask_worker.ModelPlugin(run.model_key, data))
            self._register(dask_worker.RunPlugin(run))
            replies = self.client.run(dask_worker.check_worker, run.key, on_error="return")
        except Exception as error:
            problem = "the workers cannot be prepared for the run"
            raise InputError(self.where, problem, "Install the same septa and Dask on all of them") from error
        replies = {address: reply for address, reply in replies.items() if isinstance(reply, dask_worker.WorkerReply)}
        for address, reply in sorted(replies.items()):
            if reply.failure is not None:
                raise _make_error(f"worker {address}", reply.failure)
        if not replies:
            raise InputError(self.where, "none of the workers answers", "Look into their logs")
        return DaskExecutor(self, run)

    def has_fast_bf16(self, device: str) -> bool:
        """Return True if every worker is fast in bfloat16 on its device of this name.

        A worker that does not answer counts as not fast; `make_executor` reports it.
        """
        if self.threads is not None:
            return runtime.has_fast_bf16(device)
        from septa.streaming import dask_worker

        replies: dict[str, Any] = {}
        with suppress(Exception):
            replies = self.client.run(dask_worker.has_fast_bf16, device, on_error="return")
        return bool(replies) and all(reply is True for reply in replies.values())

    def forget(self, *names: str) -> None:
        """Make the workers close the image of a run; of all runs, and forget the model, if no name is given.

        A cluster that was started elsewhere outlives its client, and would keep everything that was sent to it.
        """
        for name in names or tuple(self._plugins):
            with suppress(Exception):  # the workers may have ended
                self.client.unregister_worker_plugin(name)
                self._plugins.remove(name)

    def count_workers(self) -> int:
        """Count the workers that are connected now.

        Raises
        ------
        InputError
            The connection to the scheduler is lost.
        """
        try:
            if self.client.status == "running":
                return len(self.client.nthreads())
        except (OSError, TimeoutError, RuntimeError):
            pass
        raise InputError(self.where, "the connection to the scheduler was lost", _RERUN)

    def _register(self, plugin: Any) -> None:
        self._plugins.append(plugin.name)
        self.client.register_plugin(plugin)

    def _describe_run(self, request: StreamRequest, worker: BlockWorker) -> tuple[DaskRun, bytes]:
        """Return what the workers need to know about a run, and the bytes of the model file."""
        from septa.streaming.dask_worker import DaskRun

        data = Model.read(request.model)
        plan = worker.plan
        if hashlib.sha256(data).hexdigest() != plan.identity.model:
            raise ModelError(request.model, "the file was replaced while it was in use", "Run the same command again")
        run = DaskRun(
            key=f"septa-{uuid4().hex}",
            plan=plan.digest,
            model=plan.identity.model,
            model_key=f"septa-{plan.identity.model}-{self._session}",
            version=runtime.collect_versions()["septa"],
            input=replace(request.input, path=resolve_location(request.input.path)),
            folder=worker.folder.resolve(),
            memory=request.memory,
            tile=request.tile,
            device=request.device,
            is_local=self.threads is not None,
            threads=self.threads,
            local_ranks=self._rank_workers(),
        )
        return run, data

    def _rank_workers(self) -> dict[str, tuple[int, int]]:
        """Return for each worker its rank among the workers of its machine, and their number."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        hosts = sorted((about["host"], about.get("nanny") or address) for address, about in workers.items())
        peers = Counter(host for host, _ in hosts)
        next_rank = Counter[str]()
        ranks = {}
        for host, name in hosts:
            ranks[name] = next_rank[host], peers[host]
            next_rank[host] += 1
        return ranks


@dataclass(frozen=True)
class _Submission:
    """A block that was submitted to the cluster: its index, the function's argument, and the number of this attempt."""

    index: BlockIndex
    block: Any
    attempt: int
    future: Any


class DaskExecutor:
    """The workers of a cluster as `septa.streaming.executor.Executor`."""

    def __init__(self, cluster: Cluster, run: DaskRun) -> None:
        self._cluster = cluster
        self._run = run

    def segment(self, indices: list[BlockIndex]) -> Iterator[BlockIndex]:
        """Segment blocks and yield the index of each finished one, in any order."""
        from septa.streaming import dask_worker

        for index, _ in self._run_blocks(dask_worker.segment, ((index, index) for index in indices)):
            yield index

    def write_output(self, blocks: Iterable[OutputBlock]) -> Iterator[tuple[OutputBlock, list[str]]]:
        """Write blocks into the store and yield each with its digests, in any order."""
        from septa.streaming import dask_worker

        absolute = ((block.index, replace(block, store=block.store.resolve())) for block in blocks)
        return self._run_blocks(dask_worker.write_output, absolute)

    def measure(self, blocks: Iterable[ObjectBlock]) -> Iterator[ObjectBlock]:
        """Measure the objects of blocks and yield each finished block, in any order."""
        from septa.streaming import dask_worker

        absolute = ((block.index, replace(block, store=block.store.resolve())) for block in blocks)
        for block, _ in self._run_blocks(dask_worker.measure_on_worker, absolute):
            yield block

    def write_pyramid(self, blocks: Iterable[PyramidBlock]) -> Iterator[tuple[PyramidBlock, str]]:
        """Write blocks of one pyramid level and yield each with its digest, in any order."""
        from septa.streaming import dask_worker

        absolute = ((block.index, replace(block, store=block.store.resolve())) for block in blocks)
        return self._run_blocks(dask_worker.write_pyramid, absolute)

    def close(self) -> None:
        """Make the workers forget the run; the model stays for the next run."""
        self._cluster.forget(self._run.key)

    def _run_blocks(
        self, function: Callable[..., WorkerReply], blocks: Iterable[tuple[BlockIndex, Any]]
    ) -> Iterator[tuple[Any, Any]]:
        """Call a function on the workers for each block, and yield each finished block with the function's value.

        At most `_BLOCKS_PER_WORKER` blocks per worker are in flight. A block that fails is submitted again.
        """
        client = self._cluster.client
        waiting = iter(blocks)
        done = SimpleQueue[Any]()
        running: dict[str, _Submission] = {}

        def submit(index: BlockIndex, block: Any, attempt: int) -> None:
            future = client.submit(function, self._run.key, block, pure=False)
            running[future.key] = _Submission(index, block, attempt, future)
            future.add_done_callback(done.put)

        most = self._count_slots()
        counted = time.monotonic()
        try:
            while True:
                while len(running) < most and (following := next(waiting, None)) is not None:
                    submit(*following, 1)
                if not running:
                    return
                submission = running.pop(self._wait(done).key)
                reply = self._collect_reply(submission.future)
                if reply.failure is None:
                    yield submission.block, reply.value
                elif submission.attempt < _ATTEMPTS:
                    submit(submission.index, submission.block, submission.attempt + 1)
                else:
                    worker = f", the last on worker {reply.address}" if reply.address else ""
                    block = f"block {','.join(map(str, submission.index))}"
                    raise _make_error(block, reply.failure, f"{submission.attempt} attempts failed{worker}")
                if time.monotonic() > counted + _POLL_S:
                    most = self._count_slots()
                    counted = time.monotonic()
        finally:
            if running:
                with suppress(Exception):  # the scheduler may have ended
                    client.cancel([submission.future for submission in running.values()])

    def _count_slots(self) -> int:
        """Return the largest number of blocks in flight."""
        return _BLOCKS_PER_WORKER * max(1, self._cluster.count_workers())

    def _wait(self, done: SimpleQueue[Any]) -> Any:
        """Wait for a future that is done."""
        since = time.monotonic()
        while True:
            try:
                return done.get(timeout=_POLL_S)
            except Empty:
                if self._cluster.count_workers():
                    since = time.monotonic()
                elif time.monotonic() > since + _WAIT_S:
                    problem = f"the cluster had no worker for {_WAIT_S / 60:.0f} minutes"
                    remedy = "Start workers and run the same command again to resume"
                    raise InputError(self._cluster.where, problem, remedy) from None

    def _collect_reply(self, future: Any) -> WorkerReply:
        """Return the reply of a future that is done; errors of Dask become failures."""
        from septa.streaming.dask_worker import WorkerFailure, WorkerReply

        if future.cancelled():
            problem = "the connection to the scheduler was lost, or the work was cancelled"
            raise InputError(self._cluster.where, problem, _RERUN)
        try:
            reply: WorkerReply = future.result()
        except import_distributed().KilledWorker:
            remedy = "Give less --memory, and look into the logs of the workers"
            problem = "the worker processes died or were killed"
            return WorkerReply("", failure=WorkerFailure(where="", problem=problem, remedy=remedy, is_resource=True))
        except Exception as error:
            text = "".join(format_exception(error))
            failure = WorkerFailure(where="", problem="Dask lost its result", remedy=_RERUN, traceback=text)
            return WorkerReply("", failure=failure)
        return reply


def import_distributed() -> Any:
    """Import the package distributed.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        return import_module("distributed")
    except ModuleNotFoundError as error:
        if error.name not in ("distributed", "dask"):
            raise
        problem = f"--workers and --cluster need the package {error.name}, which is not installed"
        raise InputError("", problem, "Run pip install 'septa[cluster]'") from None


class _WorkerTraceback(Exception):
    """The traceback of an error on a worker; the cause of the client's error, so that ``--debug`` shows it."""


def _make_error(where: str, failure: WorkerFailure, attempts: str = "") -> SeptaError:
    """Convert a failure to an error of the client, with the worker or the block as its place."""
    kind = ResourceError if failure.is_resource else InputError
    problem = ": ".join(part for part in (attempts, failure.where, failure.problem) if part)
    error = kind(where, problem, failure.remedy)
    if failure.traceback:
        error.__cause__ = _WorkerTraceback(failure.traceback)
    return error
