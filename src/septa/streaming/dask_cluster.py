"""An executor on a Dask cluster: the same plan and the same blocks, done by many processes.

The client hands out blocks, two for each worker at a time. Image, blocks and store lie on storage that all workers see;
the model is sent once to each of them. A worker that dies costs the block that it was at, and a client that dies costs
nothing that is done.

Dask sends pickled messages between its processes, so that whoever reaches one of them can make it run anything. septa
itself opens ports at 127.0.0.1 alone; any other cluster is as safe as its network, or its TLS certificates, are.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from septa import runtime
from septa.errors import InputError, ModelError, ResourceError, SeptaError
from septa.images.store import BlockIndex
from septa.model import Model
from septa.streaming.blocks import BlockWorker, OutputBlock, PyramidBlock
from septa.streaming.events import StreamRequest

if TYPE_CHECKING:
    from septa.streaming.dask_worker import DaskRun, WorkerFailure, WorkerReply

_BLOCKS_PER_WORKER = 2
"""Blocks in flight for each worker: one that it is at, and one that waits."""
_ATTEMPTS = 3
"""How often a block is given out, after Dask has given it up or it failed."""
_POLL_S = 5.0
"""Seconds between two looks at how many workers there are."""
_WAIT_S = 600.0
"""Seconds without any worker after which a run ends."""
_NO_LOGGING = logging.CRITICAL + 1
_RERUN = "run the same command again to go on"


@dataclass(frozen=True)
class Tls:
    """Files (PEM) with which a client proves who it is, and knows the cluster; ``key`` may be part of ``cert``."""

    ca: Path
    cert: Path
    key: Path | None = None


class Cluster:
    """Workers that are connected. `make_executor` is what `septa.streaming.stream` takes.

    Attributes
    ----------
    client
        The `distributed.Client`.
    where
        What messages call the cluster.
    threads
        Of each worker, where they are processes of this client alone; None elsewhere.
    """

    def __init__(self, client: Any, where: str, threads: int | None = None) -> None:
        self.client, self.where = client, where
        self.threads = threads
        self._session, self._names = uuid4().hex, list[str]()

    def make_executor(self, request: StreamRequest, worker: BlockWorker) -> DaskExecutor:
        """All workers, prepared for one run.

        Raises
        ------
        InputError
            A worker does not see the plan or the image, or has another septa; the message names it.
        ResourceError
            Its memory does not suffice.
        """
        from septa.streaming import dask_worker

        job, data = self._job(request, worker)
        try:
            if job.sent not in self._names:
                self._register(dask_worker.ModelPlugin(job.sent, data))
            self._register(dask_worker.RunPlugin(job))
            answers = self.client.run(dask_worker.look, job.key, on_error="return")
        except Exception as error:
            problem = f"its workers cannot be prepared ({_reason(error)})"
            raise InputError(self.where, problem, "install the same septa on all of them") from error
        for address, answer in sorted(answers.items()):
            if isinstance(answer, dask_worker.WorkerReply) and answer.fault is not None:
                raise _make_error(f"worker {address}", answer.fault)
        if not any(isinstance(answer, dask_worker.WorkerReply) for answer in answers.values()):
            raise InputError(self.where, "none of its workers answers", "look into their logs")
        return DaskExecutor(self, job)

    def forget(self, *names: str) -> None:
        """Have the workers close the image of a run, or of all; a cluster outlives its client, and what it was sent."""
        for name in names or tuple(self._names):
            with suppress(Exception):  # they may be gone
                self.client.unregister_worker_plugin(name)
                self._names.remove(name)

    def workers(self) -> int:
        """How many there are now.

        Raises
        ------
        InputError
            The connection is lost.
        """
        try:
            if self.client.status == "running":
                return len(self.client.nthreads())
        except (OSError, TimeoutError, RuntimeError):
            pass
        raise InputError(self.where, "the connection was lost", _RERUN)

    def _register(self, plugin: Any) -> None:
        self._names.append(plugin.name)
        self.client.register_plugin(plugin)

    def _job(self, request: StreamRequest, worker: BlockWorker) -> tuple[DaskRun, bytes]:
        from septa.streaming.dask_worker import DaskRun

        data, plan = Model.read(request.model), worker.plan
        if hashlib.sha256(data).hexdigest() != plan.identity.model:
            raise ModelError(request.model, "was replaced while it was in use", "run the command again")
        there = replace(request.input, path=str(Path(request.input.path).resolve()))
        job = DaskRun(
            key=f"septa-{uuid4().hex}",
            plan=plan.digest,
            model=plan.identity.model,
            sent=f"septa-{plan.identity.model}-{self._session}",
            version=runtime.versions()["septa"],
            input=there,
            folder=worker.folder.resolve(),
            memory=request.memory,
            tile=request.tile,
            device=request.device,
            ours=self.threads is not None,
            threads=self.threads,
            places=self._places(),
        )
        return job, data

    def _places(self) -> dict[str, tuple[int, int]]:
        """For each worker its number among those of its machine, and how many they are."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        found = sorted((about["host"], about.get("nanny") or address) for address, about in workers.items())
        peers, before = Counter(host for host, _ in found), Counter[str]()
        places = {}
        for host, name in found:
            places[name] = before[host], peers[host]
            before[host] += 1
        return places


class DaskExecutor:
    """The workers of a cluster as `septa.streaming.executor.Executor`."""

    def __init__(self, cluster: Cluster, job: DaskRun) -> None:
        self._cluster, self._job = cluster, job

    def segment(self, indices: list[BlockIndex]) -> Iterator[BlockIndex]:
        """As `septa.streaming.executor.Executor.segment`."""
        from septa.streaming import dask_worker

        for index, _ in self._each(dask_worker.segment, ((index, index) for index in indices)):
            yield index

    def finish(self, blocks: Iterable[OutputBlock]) -> Iterator[tuple[OutputBlock, list[str]]]:
        """As `septa.streaming.executor.Executor.finish`."""
        from septa.streaming import dask_worker

        there = ((block.index, replace(block, store=block.store.resolve())) for block in blocks)
        return self._each(dask_worker.finish, there)

    def build(self, blocks: Iterable[PyramidBlock]) -> Iterator[tuple[PyramidBlock, str]]:
        """As `septa.streaming.executor.Executor.build`."""
        from septa.streaming import dask_worker

        there = ((block.index, replace(block, store=block.store.resolve())) for block in blocks)
        return self._each(dask_worker.build, there)

    def close(self) -> None:
        """As `septa.streaming.executor.Executor.close`."""
        self._cluster.forget(self._job.key)

    def _each(
        self, function: Callable[..., WorkerReply], blocks: Iterable[tuple[BlockIndex, Any]]
    ) -> Iterator[tuple[Any, Any]]:
        """Run a function on the workers for each block and yield each block that is done, with the function's value.

        At most `_BLOCKS_PER_WORKER` blocks per worker are in flight. A block that fails is submitted again.
        """
        client, waiting, done = self._cluster.client, iter(blocks), SimpleQueue[Any]()
        running: dict[str, tuple[Any, BlockIndex, Any, int]] = {}

        def start(index: BlockIndex, what: Any, tries: int) -> None:
            future = client.submit(function, self._job.key, what, pure=False)
            running[future.key] = future, index, what, tries
            future.add_done_callback(done.put)

        most, looked = _BLOCKS_PER_WORKER * max(1, self._cluster.workers()), time.monotonic()
        try:
            while True:
                while len(running) < most and (following := next(waiting, None)) is not None:
                    start(*following, 1)
                if not running:
                    return
                future = self._next(done)
                _, index, what, tries = running.pop(future.key)
                answer = self._answer(future)
                if answer.fault is None:
                    yield what, answer.value
                elif tries < _ATTEMPTS:
                    start(index, what, tries + 1)
                else:
                    at = f", the last time on worker {answer.address}" if answer.address else ""
                    raise _make_error(f"block {','.join(map(str, index))}", answer.fault, f"failed {tries} times{at}: ")
                if time.monotonic() > looked + _POLL_S:
                    most, looked = _BLOCKS_PER_WORKER * max(1, self._cluster.workers()), time.monotonic()
        finally:
            if running:
                with suppress(Exception):  # the scheduler may be gone
                    client.cancel([future for future, *_ in running.values()])

    def _next(self, done: SimpleQueue[Any]) -> Any:
        since = time.monotonic()
        while True:
            try:
                return done.get(timeout=_POLL_S)
            except Empty:
                if self._cluster.workers():
                    since = time.monotonic()
                elif time.monotonic() > since + _WAIT_S:
                    where, problem = self._cluster.where, f"had no worker for {_WAIT_S / 60:.0f} minutes"
                    raise InputError(where, problem, f"start some, and {_RERUN}") from None

    def _answer(self, future: Any) -> WorkerReply:
        from septa.streaming.dask_worker import WorkerFailure, WorkerReply

        if future.cancelled():
            raise InputError(self._cluster.where, "the connection was lost, or someone cancelled the work", _RERUN)
        try:
            answer: WorkerReply = future.result()
        except _import_distributed().KilledWorker:
            remedy = "give less --memory, and look into the logs of the workers"
            return WorkerReply("", fault=WorkerFailure("its workers", "died of it, or were killed", remedy, True))
        except Exception as error:
            return WorkerReply("", fault=WorkerFailure("Dask", f"raised {_reason(error)}", _RERUN, False))
        return answer


@contextmanager
def local_cluster(workers: int) -> Iterator[Cluster]:
    """Processes of this machine, which live as long as the context.

    Cores are divided evenly, within ``OMP_NUM_THREADS`` where that is set. Ports are opened at 127.0.0.1 alone.

    Parameters
    ----------
    workers
        How many, at least 1.

    Raises
    ------
    InputError
        The package distributed is not installed, or the processes cannot be started.
    """
    distributed = _import_distributed()
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = runtime.usable_cores()
    threads = max(1, min(cores // workers, int(given) if given.isdecimal() and int(given) else cores))
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    where = f"--workers {workers}"
    with _silence_logs(), TemporaryDirectory(prefix="septa-", ignore_cleanup_errors=True) as scratch:
        try:
            processes = distributed.LocalCluster(
                n_workers=workers,
                processes=True,
                threads_per_worker=1,
                host="127.0.0.1",
                protocol="tcp://",
                security=distributed.Security(require_encryption=False),
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                silence_logs=_NO_LOGGING,
                local_directory=scratch,
                env=limits,
            )
        except (OSError, RuntimeError, TimeoutError) as error:
            raise InputError(where, f"cannot be started ({_reason(error)})", "give fewer") from error
        with processes, distributed.Client(processes, set_as_default=False) as client:
            yield Cluster(client, where, threads)


@contextmanager
def remote_cluster(address: str, tls: Tls | None = None, *, timeout_s: float = 10) -> Iterator[Cluster]:
    """A cluster that runs already.

    Parameters
    ----------
    address
        Of its scheduler, such as ``tcp://host:8786`` or ``tls://host:8786``.
    tls
        Certificates, for ``tls://``.
    timeout_s
        Seconds to wait for the scheduler, and then for a first worker.

    Raises
    ------
    InputError
        The package distributed is not installed, nobody answers there, or there is no worker.
    """
    distributed, options = _import_distributed(), {}
    where = f"--cluster {address}"
    if tls is not None:
        key = None if tls.key is None else str(tls.key)
        options = {"tls_ca_file": str(tls.ca), "tls_client_cert": str(tls.cert), "tls_client_key": key}
    with _silence_logs():
        try:
            security = distributed.Security(**options, require_encryption=None if tls is None else True)
            client = distributed.Client(address, timeout=timeout_s, security=security, set_as_default=False)
        except (OSError, ValueError, TypeError, RuntimeError, TimeoutError) as error:
            remedy = "give the address that the scheduler prints, and for tls:// the certificates"
            raise InputError(where, f"cannot be reached ({_reason(error)})", remedy) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=timeout_s)
            except TimeoutError:
                raise InputError(where, "has no workers", f"start some: dask worker {address}") from None
            cluster = Cluster(client, where)
            try:
                yield cluster
            finally:
                cluster.forget()


@contextmanager
def _silence_logs() -> Iterator[None]:
    """No log of Dask's: what fails is told in one line."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado.application")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(_NO_LOGGING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _import_distributed() -> Any:
    try:
        return import_module("distributed")
    except ModuleNotFoundError as error:
        if error.name not in ("distributed", "dask"):
            raise
        where, remedy = "--workers and --cluster", "pip install 'septa[cluster]'"
        raise InputError(where, f"the package {error.name} is not installed", remedy) from None


def _make_error(where: str, fault: WorkerFailure, before: str = "") -> SeptaError:
    kind = ResourceError if fault.resource else InputError
    return kind(where, f"{before}{fault.where}: {fault.problem}", fault.remedy)


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())
