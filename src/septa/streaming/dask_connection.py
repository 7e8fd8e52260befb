"""Connections to Dask clusters: worker processes of this machine, or a cluster that already runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from septa import runtime
from septa.errors import InputError
from septa.streaming.dask_cluster import Cluster, import_distributed

_NO_LOGGING = logging.CRITICAL + 1


@dataclass(frozen=True)
class Tls:
    """Files (PEM) with which the client and the cluster identify each other; ``key`` may be part of ``cert``."""

    ca: Path
    cert: Path
    key: Path | None = None


@contextmanager
def local_cluster(workers: int) -> Iterator[Cluster]:
    """Start worker processes on this machine; they live as long as the context.

    The cores are divided evenly between the processes, within ``OMP_NUM_THREADS`` if that is set. Ports are opened at
    127.0.0.1 only.

    Parameters
    ----------
    workers
        Number of processes, at least 1.

    Raises
    ------
    InputError
        The package distributed is not installed, or the processes cannot be started.
    """
    distributed = import_distributed()
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = runtime.count_cores()
    threads = max(1, min(cores // workers, int(given) if given.isdecimal() and int(given) else cores))
    where = f"--workers {workers}"
    with (
        _silence_logs(),
        TemporaryDirectory(prefix="septa-", ignore_cleanup_errors=True) as scratch,
        ExitStack() as stack,
    ):
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
                env={f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")},
            )
            stack.enter_context(processes)
            client = stack.enter_context(distributed.Client(processes, set_as_default=False))
        except Exception as error:
            remedy = "Give fewer workers, or leave the option out"
            raise InputError(where, "the worker processes cannot be started", remedy) from error
        yield Cluster(client, where, threads)


@contextmanager
def remote_cluster(address: str, tls: Tls | None = None, *, timeout_s: float = 10) -> Iterator[Cluster]:
    """Connect to a cluster that already runs.

    Parameters
    ----------
    address
        Address of its scheduler, such as ``tcp://host:8786`` or ``tls://host:8786``.
    tls
        Certificates, for ``tls://``.
    timeout_s
        Seconds to wait for the scheduler, and then for the first worker.

    Raises
    ------
    InputError
        The package distributed is not installed, no scheduler answers at this address, or it has no workers.
    """
    distributed = import_distributed()
    where = f"--cluster {address}"
    options: dict[str, Any] = {}
    if tls is not None:
        options = {
            "tls_ca_file": str(tls.ca),
            "tls_client_cert": str(tls.cert),
            "tls_client_key": None if tls.key is None else str(tls.key),
            "require_encryption": True,
        }
    with _silence_logs():
        try:
            security = distributed.Security(**options)
            client = distributed.Client(address, timeout=timeout_s, security=security, set_as_default=False)
        except Exception as error:
            remedy = "Give the address that the scheduler prints, and the certificates for a tls:// address"
            raise InputError(where, "no scheduler can be reached at this address", remedy) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=timeout_s)
            except TimeoutError:
                remedy = f"Start workers with: dask worker {address}"
                raise InputError(where, "the cluster has no workers", remedy) from None
            cluster = Cluster(client, where)
            try:
                yield cluster
            finally:
                cluster.forget()


@contextmanager
def _silence_logs() -> Iterator[None]:
    """Turn Dask's logs off: septa reports failures in one line."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado.application")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(_NO_LOGGING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
