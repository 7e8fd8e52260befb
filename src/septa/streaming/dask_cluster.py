"""Hands on a Dask cluster: the same plan and the same blocks, done by many processes.

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
from septa.streaming.blocks import Build, Finish, Worker
from septa.streaming.events import StreamRequest

if TYPE_CHECKING:
    from septa.streaming.dask_worker import Answer, BlockJob, Fault

_AHEAD = 2
"""Blocks in flight for each worker: one that it is at, and one that waits."""
_TRIES = 3
"""How often a block is given out, after Dask has given it up or it failed."""
_LOOK = 5.0
"""Seconds between two looks at how many workers there are."""
_PATIENCE = 600.0
"""Seconds without any worker after which a run ends."""
_SILENT = logging.CRITICAL + 1
_AGAIN = "run the same command again to go on"


@dataclass(frozen=True)
class Tls:
    """Files (PEM) with which a client proves who it is, and knows the cluster; ``key`` may be part of ``cert``."""

    ca: Path
    cert: Path
    key: Path | None = None


class Cluster:
    """Workers that are connected. `hands` is what `septa.streaming.stream` takes.

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

    def hands(self, request: StreamRequest, worker: Worker) -> DaskExecutor:
        """All workers, prepared for one run.

        Raises
        ------
        InputError
            A worker does not see the plan or the image, or has another septa; the message names it.
        ResourceError
            Its memory does not suffice.
        """
        from septa.streaming import dask_worker as _workers

        job, data = self._job(request, worker)
        try:
            if job.sent not in self._names:
                self._register(_workers.SendModel(job.sent, data))
            self._register(_workers.SendJob(job))
            answers = self.client.run(_workers.look, job.key, on_error="return")
        except Exception as error:
            problem = f"its workers cannot be prepared ({_reason(error)})"
            raise InputError(self.where, problem, "install the same septa on all of them") from error
        for address, answer in sorted(answers.items()):
            if isinstance(answer, _workers.Answer) and answer.fault is not None:
                raise _error(f"worker {address}", answer.fault)
        if not any(isinstance(answer, _workers.Answer) for answer in answers.values()):
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
        raise InputError(self.where, "the connection was lost", _AGAIN)

    def _register(self, plugin: Any) -> None:
        self._names.append(plugin.name)
        self.client.register_plugin(plugin)

    def _job(self, request: StreamRequest, worker: Worker) -> tuple[BlockJob, bytes]:
        from septa.streaming.dask_worker import BlockJob

        data, plan = Model.read(request.model), worker.plan
        if hashlib.sha256(data).hexdigest() != plan.asked.model:
            raise ModelError(request.model, "was replaced while it was in use", "run the command again")
        there = replace(request.input, path=str(Path(request.input.path).resolve()))
        job = BlockJob(
            f"septa-{uuid4().hex}", plan.digest, plan.asked.model, f"septa-{plan.asked.model}-{self._session}",
            runtime.versions()["septa"], there, worker.folder.resolve(), request.memory, request.tile, request.device,
            self.threads is not None, self.threads, self._places(),
        )  # fmt: skip
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

    def __init__(self, cluster: Cluster, job: BlockJob) -> None:
        self._cluster, self._job = cluster, job

    def segment(self, indices: list[BlockIndex]) -> Iterator[BlockIndex]:
        """As `septa.streaming.executor.Executor.segment`."""
        from septa.streaming import dask_worker as _workers

        for index, _ in self._each(_workers.segment, ((index, index) for index in indices)):
            yield index

    def finish(self, blocks: Iterable[Finish]) -> Iterator[tuple[Finish, list[str]]]:
        """As `septa.streaming.executor.Executor.finish`."""
        from septa.streaming import dask_worker as _workers

        there = ((block.index, replace(block, store=block.store.resolve())) for block in blocks)
        return self._each(_workers.finish, there)

    def build(self, blocks: Iterable[Build]) -> Iterator[tuple[Build, str]]:
        """As `septa.streaming.executor.Executor.build`."""
        from septa.streaming import dask_worker as _workers

        there = ((block.index, replace(block, store=block.store.resolve())) for block in blocks)
        return self._each(_workers.build, there)

    def close(self) -> None:
        """As `septa.streaming.executor.Executor.close`."""
        self._cluster.forget(self._job.key)

    def _each(
        self, function: Callable[..., Answer], blocks: Iterable[tuple[BlockIndex, Any]]
    ) -> Iterator[tuple[Any, Any]]:
        """Do something for all of the blocks, and for those that fail again, never more than `_AHEAD` for each worker
        at once; tells each that is done, with its answer.
        """
        client, waiting, done = self._cluster.client, iter(blocks), SimpleQueue[Any]()
        running: dict[str, tuple[Any, BlockIndex, Any, int]] = {}

        def start(index: BlockIndex, what: Any, tries: int) -> None:
            future = client.submit(function, self._job.key, what, pure=False)
            running[future.key] = future, index, what, tries
            future.add_done_callback(done.put)

        most, looked = _AHEAD * max(1, self._cluster.workers()), time.monotonic()
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
                elif tries < _TRIES:
                    start(index, what, tries + 1)
                else:
                    at = f", the last time on worker {answer.address}" if answer.address else ""
                    raise _error(f"block {','.join(map(str, index))}", answer.fault, f"failed {tries} times{at}: ")
                if time.monotonic() > looked + _LOOK:
                    most, looked = _AHEAD * max(1, self._cluster.workers()), time.monotonic()
        finally:
            if running:
                with suppress(Exception):  # the scheduler may be gone
                    client.cancel([future for future, *_ in running.values()])

    def _next(self, done: SimpleQueue[Any]) -> Any:
        since = time.monotonic()
        while True:
            try:
                return done.get(timeout=_LOOK)
            except Empty:
                if self._cluster.workers():
                    since = time.monotonic()
                elif time.monotonic() > since + _PATIENCE:
                    where, problem = self._cluster.where, f"had no worker for {_PATIENCE / 60:.0f} minutes"
                    raise InputError(where, problem, f"start some, and {_AGAIN}") from None

    def _answer(self, future: Any) -> Answer:
        from septa.streaming.dask_worker import Answer, Fault

        if future.cancelled():
            raise InputError(self._cluster.where, "the connection was lost, or someone cancelled the work", _AGAIN)
        try:
            answer: Answer = future.result()
        except _distributed().KilledWorker:
            remedy = "give less --memory, and look into the logs of the workers"
            return Answer("", fault=Fault("its workers", "died of it, or were killed", remedy, True))
        except Exception as error:
            return Answer("", fault=Fault("Dask", f"raised {_reason(error)}", _AGAIN, False))
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
    distributed = _distributed()
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = runtime.usable_cores()
    threads = max(1, min(cores // workers, int(given) if given.isdecimal() and int(given) else cores))
    limits = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    where = f"--workers {workers}"
    with _quiet(), TemporaryDirectory(prefix="septa-", ignore_cleanup_errors=True) as scratch:
        try:
            processes = distributed.LocalCluster(
                n_workers=workers, processes=True, threads_per_worker=1, host="127.0.0.1", protocol="tcp://",
                security=distributed.Security(require_encryption=False), dashboard_address="127.0.0.1:0",
                memory_limit=0, silence_logs=_SILENT, local_directory=scratch, env=limits,
            )  # fmt: skip
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
    distributed, options = _distributed(), {}
    where = f"--cluster {address}"
    if tls is not None:
        key = None if tls.key is None else str(tls.key)
        options = {"tls_ca_file": str(tls.ca), "tls_client_cert": str(tls.cert), "tls_client_key": key}
    with _quiet():
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
def _quiet() -> Iterator[None]:
    """No log of Dask's: what fails is told in one line."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado.application")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(_SILENT)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _distributed() -> Any:
    try:
        return import_module("distributed")
    except ModuleNotFoundError as error:
        if error.name not in ("distributed", "dask"):
            raise
        where, remedy = "--workers and --cluster", "pip install 'septa[cluster]'"
        raise InputError(where, f"the package {error.name} is not installed", remedy) from None


def _error(where: str, fault: Fault, before: str = "") -> SeptaError:
    kind = ResourceError if fault.resource else InputError
    return kind(where, f"{before}{fault.where}: {fault.problem}", fault.remedy)


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())
