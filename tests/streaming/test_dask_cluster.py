"""Tests of Dask clusters: many processes write the same bytes as one, even if some of them are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import pytest
import torch

from septa.errors import InputError, ResourceError, SeptaError
from septa.images.store import ome_zarr as store
from septa.streaming import (
    StreamFinished,
    StreamInput,
    StreamRequest,
    StreamStarted,
    StreamStep,
    dask_cluster,
    dask_connection,
    dask_worker,
    stream,
)
from septa.streaming.block_file import is_done
from septa.streaming.dask_cluster import Cluster, DaskExecutor
from septa.streaming.dask_connection import Tls, local_cluster, remote_cluster
from septa.streaming.plan import StreamPlan
from septa.streaming.run import work_folder

Septa = Callable[..., tuple[int, str, str]]
SIDE = 320
BLOCKS = 25


@pytest.fixture(scope="module")
def workers() -> Iterator[Cluster]:
    with local_cluster(2) as found:
        yield found


@pytest.fixture(scope="module")
def data(kit: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a model, and an image of 25 blocks."""
    folder = tmp_path_factory.mktemp("data")
    kit.make("seam").save(folder / "model.septa")
    kit.write_image(folder / "image.zarr", kit.texture((1, SIDE, SIDE)), "CYX")
    return folder


def request_of(data: Path, output: Path, **more: Any) -> StreamRequest:
    return StreamRequest(model=data / "model.septa", input=StreamInput(str(data / "image.zarr")), output=output, **more)


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def expected(data: Path, tmp_path: Path) -> dict[str, bytes]:
    """Return the files of the store that this process writes without a cluster."""
    list(stream(request_of(data, tmp_path / "local.zarr", name="cells")))
    return files(tmp_path / "local.zarr")


def processes(workers: Cluster) -> set[int]:
    return set(workers.client.run(os.getpid).values())


def test_two_processes_write_the_same_bytes(
    workers: Cluster, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most two blocks per worker are in flight, and the model is sent once for all runs."""
    sent: list[Any] = []
    most = 0
    submit = workers.client.submit

    def submit_and_count(*arguments: Any, **options: Any) -> Any:
        nonlocal most
        sent.append(submit(*arguments, **options))
        most = max(most, sum(future.status == "pending" for future in sent))
        return sent[-1]

    def models() -> list[tuple[str, str, int]]:
        from septa.streaming import dask_worker

        return [(name, type(model).__name__, id(model)) for name, model in dask_worker._models.items()]

    monkeypatch.setattr(workers.client, "submit", submit_and_count)
    asked = partial(request_of, data, probabilities=True, name="cells")
    list(stream(asked(tmp_path / "one.zarr", table=tmp_path / "one.csv")))
    monkeypatch.chdir(tmp_path)
    events = list(stream(asked(Path("two.zarr"), table=Path("two.csv")), workers.make_executor))
    assert files(tmp_path / "one.zarr") == files(tmp_path / "two.zarr")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert not work_folder(tmp_path / "two.zarr").exists()
    assert [type(events[0]), type(events[-1])] == [StreamStarted, StreamFinished]
    assert len(sent) == 3 * BLOCKS + 2 * (
        9 + 4 + 1 + 1
    )  # segmented, written into the store, measured, and the higher levels of two images
    assert 2 < most <= 4
    before = workers.client.run(models)
    assert all([kind for _, kind, _ in found] == ["Model"] for found in before.values())
    list(stream(asked(tmp_path / "three.zarr", table=tmp_path / "one.csv"), workers.make_executor))
    assert files(tmp_path / "three.zarr") == files(tmp_path / "one.zarr")
    assert workers.client.run(models) == before


def test_blocks_of_killed_workers_are_done_again(
    workers: Cluster, data: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    victims = sorted(processes(workers))
    killed = []
    steps = 0
    for event in stream(request_of(data, tmp_path / "store.zarr", name="cells"), workers.make_executor):
        steps += isinstance(event, StreamStep) and event.stage == "segmenting"
        if len(killed) < len(victims) and steps == 3 + 6 * len(killed):
            killed.append(victims[len(killed)])
            os.kill(killed[-1], signal.SIGKILL)
    assert steps == BLOCKS
    assert files(tmp_path / "store.zarr") == expected
    assert len(killed) == 2
    workers.client.wait_for_workers(2, timeout=60)
    assert not processes(workers) & set(killed)


CLIENT = """
from septa import cli
from septa.streaming import budget, plan
budget.BLOCKS, budget.CHUNK, plan.CHUNK = (64,), 32, 32
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_ended_client_is_resumed(
    workers: Cluster, data: Path, tmp_path: Path, expected: dict[str, bytes], number: signal.Signals
) -> None:
    """The signal goes to the whole process group, as the signal of a terminal does."""
    output = tmp_path / "store.zarr"
    command = ["predict", data / "model.septa", data / "image.zarr", "-o", output, "--workers", "2", "--name", "cells"]
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, *map(str, command)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = work_folder(output)
    try:
        while len(list(folder.glob("blocks/*/*.block"))) < 3:
            assert client.poll() is None
            time.sleep(0.02)
    finally:
        os.killpg(client.pid, number)
        _, err = client.communicate()
    if number == signal.SIGINT:
        assert client.returncode == 130
        assert err.count("\n") == 1
        assert "the run was interrupted, and its finished blocks are kept" in err
    assert not output.exists() or not store.is_store_complete(output)
    plan = StreamPlan.from_json(json.loads((folder / "plan.json").read_text()))
    done = sum(is_done(folder, plan, index) for index in plan.blocks())
    assert 3 <= done < BLOCKS
    events = list(stream(request_of(data, output, name="cells"), workers.make_executor))
    assert isinstance(events[0], StreamStarted)
    assert events[0].done == done
    assert sum(isinstance(event, StreamStep) and event.stage == "segmenting" for event in events) == BLOCKS - done
    assert files(output) == expected


# Failures ------------------------------------------------------------------------------------------------------------


def copy_data(data: Path, tmp_path: Path) -> Path:
    shutil.copytree(data, tmp_path / "data")
    return tmp_path / "data"


def test_an_image_that_workers_do_not_see_is_reported(workers: Cluster, data: Path, tmp_path: Path) -> None:
    data = copy_data(data, tmp_path)

    def make_executor(*arguments: Any) -> DaskExecutor:
        (data / "image.zarr").rename(data / "elsewhere.zarr")  # this process has it open
        return workers.make_executor(*arguments)

    with pytest.raises(InputError, match=r"^worker tcp://127.0.0.1:\d+: .*image.zarr: ") as caught:
        list(stream(request_of(data, tmp_path / "store.zarr"), make_executor))
    assert "\n" not in str(caught.value)


def test_a_plan_that_workers_do_not_see_is_reported(workers: Cluster, data: Path, tmp_path: Path) -> None:
    def make_executor(*arguments: Any) -> DaskExecutor:
        (work_folder(tmp_path / "store.zarr") / "plan.json").unlink()
        return workers.make_executor(*arguments)

    with pytest.raises(
        InputError, match=r"^worker tcp://.*plan.json: the plan cannot be read .* storage that every worker sees"
    ):
        list(stream(request_of(data, tmp_path / "store.zarr"), make_executor))


def test_too_little_memory_of_a_worker_is_reported(workers: Cluster, data: Path, tmp_path: Path) -> None:
    def make_executor(request: StreamRequest, worker: Any) -> DaskExecutor:
        return workers.make_executor(request_of(data, request.output, memory=2**20), worker)

    with pytest.raises(
        ResourceError, match=r"^worker tcp://.*--memory: this net needs at least .* Give --memory \d+MB or more"
    ):
        list(stream(request_of(data, tmp_path / "store.zarr"), make_executor))


def test_a_block_that_always_fails_is_reported(workers: Cluster, data: Path, tmp_path: Path) -> None:
    data = copy_data(data, tmp_path)

    def make_executor(*arguments: Any) -> DaskExecutor:
        found = workers.make_executor(*arguments)
        chunk = data / "image.zarr" / "0" / "c" / "0" / "5" / "6"  # rows 250.., columns 300..
        chunk.write_bytes(chunk.read_bytes()[:-9])
        return found

    with pytest.raises(
        InputError, match=r"^block 0,0,[2-4],[34]: 3 attempts failed, the last on worker tcp://\S+: .*image.zarr"
    ):
        list(stream(request_of(data, tmp_path / "store.zarr"), make_executor))


class Client:
    """A fake `distributed.Client` without a cluster."""

    status = "running"

    def __init__(self, outcome: BaseException | None, cores: int = 1) -> None:
        self.outcome = outcome
        self.cores = cores
        self.submitted: list[Any] = []
        self.cancelled: list[Any] = []

    def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(map(str, range(self.cores)), 1)

    def submit(self, function: Any, key: str, index: Any, pure: bool) -> Any:
        self.submitted.append(index)
        future: Any = Future()
        future.key = str(len(self.submitted))
        if self.outcome is None:
            future.set_result(dask_worker.WorkerReply("x"))
        elif isinstance(self.outcome, CancelledError):
            future.cancel()
        else:
            future.set_exception(self.outcome)
        return future

    def cancel(self, futures: list[Any]) -> None:
        self.cancelled += futures


def executor_of(client: Client) -> DaskExecutor:
    return DaskExecutor(Cluster(client, "--cluster x"), SimpleNamespace(key="key"))  # type: ignore[arg-type]


def test_a_block_that_kills_its_workers_is_reported() -> None:
    client = Client(distributed.KilledWorker("task", SimpleNamespace(address="a"), 3))  # type: ignore[arg-type]
    with pytest.raises(
        ResourceError, match=r"^block 0,0,3,5: 3 attempts failed: the worker processes died or were killed"
    ):
        list(executor_of(client).segment([(0, 0, 3, 5)]))
    assert client.submitted == [(0, 0, 3, 5)] * 3


def test_a_lost_connection_is_reported() -> None:
    with pytest.raises(
        InputError, match=r"^--cluster x: the connection to the scheduler was lost.* Run the same command again"
    ):
        list(executor_of(Client(CancelledError())).segment([(0, 0, 0, 0)]))
    client = Client(None)
    client.status = "closed"
    with pytest.raises(InputError, match=r"^--cluster x: the connection to the scheduler was lost"):
        list(executor_of(client).segment([(0, 0, 0, 0)]))


def test_closing_the_executor_cancels_queued_blocks() -> None:
    client = Client(None, cores=5)
    segmented = executor_of(client).segment([(0, 0, 0, x) for x in range(100)])
    next(segmented)
    segmented.close()  # type: ignore[attr-defined]
    assert len(client.submitted) == 10
    assert len(client.cancelled) == 9


def test_a_run_ends_after_a_long_time_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "_POLL_S", 0.01)
    monkeypatch.setattr(dask_cluster, "_WAIT_S", 0.05)
    client = Client(None, cores=0)
    client.submit = lambda *arguments, **options: SimpleNamespace(key="", add_done_callback=id)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="the cluster had no worker for 0 minutes"):
        list(executor_of(client).segment([(0, 0, 0, 0)]))


def test_texts_of_other_packages_are_shown_with_debug_only() -> None:
    failure = dask_worker.WorkerFailure.from_exception(RuntimeError("bad\x1b text"))
    error = dask_cluster._make_error("worker tcp://a:1", failure)
    assert isinstance(error, InputError)
    remedy = "Run 'septa --debug predict ...' and report the output"
    assert str(error) == f"worker tcp://a:1: an unexpected RuntimeError occurred. {remedy}."
    assert "RuntimeError: bad\x1b text" in str(error.__cause__)


def test_a_worker_without_memory_is_reported() -> None:
    error = dask_cluster._make_error("worker tcp://a:1", dask_worker.WorkerFailure.from_exception(MemoryError()))
    assert isinstance(error, ResourceError)
    assert str(error) == "worker tcp://a:1: the worker ran out of memory. Give a smaller --tile."


def test_a_lost_result_is_reported_without_the_text_of_dask() -> None:
    client = Client(RuntimeError("text of Dask"))
    with pytest.raises(
        InputError, match=r"^block 0,0,0,0: 3 attempts failed: Dask lost its result\. Run the"
    ) as caught:
        list(executor_of(client).segment([(0, 0, 0, 0)]))
    assert "text of Dask" in str(caught.value.__cause__)


# Connecting to a cluster ---------------------------------------------------------------------------------------------


def test_the_error_without_distributed_gives_the_install_command(
    septa: Septa, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    command = "predict", data / "model.septa", data / "image.zarr", "-o", tmp_path / "store.zarr"
    for option in (("--workers", 2), ("--cluster", "tcp://127.0.0.1:1")):
        code, _, err = septa(*command, *option)
        assert code == 2
        problem = "--workers and --cluster need the package distributed, which is not installed"
        assert err == f"{problem}. Run pip install 'septa[cluster]'.\n"


def test_workers_that_cannot_be_started_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: Any) -> None:
        raise RuntimeError("text of Dask")

    monkeypatch.setattr(distributed, "LocalCluster", fail)
    with pytest.raises(InputError) as caught, local_cluster(3):
        pass
    remedy = "Give fewer workers, or leave the option out"
    assert str(caught.value) == f"--workers 3: the worker processes cannot be started. {remedy}."


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tls://127.0.0.1:1", "nonsense", "a://b:c"])
def test_a_wrong_address_is_reported_in_one_line(
    septa: Septa, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(dask_connection, "remote_cluster", partial(remote_cluster, timeout_s=0.5))
    output = tmp_path / "store.zarr"
    code, _, err = septa("predict", data / "model.septa", data / "image.zarr", "-o", output, "--cluster", address)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"--cluster {address}: no scheduler can be reached at this address. Give the address")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--workers", "2", "--cluster", "tcp://a:1"], "--workers and --cluster cannot be combined. Give one of them."),
        (["--tls-ca", "x"], "--tls-ca works only with --cluster. Leave --tls-ca out."),
        (["--cluster", "tls://a:1", "--tls-ca", "x"], "--tls-ca x: the file does not exist."),
        (["--cluster", "tls://a:1", "--tls-ca", __file__], "TLS needs both --tls-ca and --tls-cert. Give both."),
    ],
)
def test_conflicting_options_are_refused(
    septa: Septa, data: Path, tmp_path: Path, options: list[str], error: str
) -> None:
    command = "predict", data / "model.septa", data / "image.zarr", "-o", tmp_path / "store.zarr"
    code, _, err = septa(*command, *options)
    assert code == 2
    assert err.startswith(error)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Make a self-signed certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl")
    folder = tmp_path_factory.mktemp("tls")
    files = Tls(folder / "cert.pem", folder / "cert.pem", folder / "key.pem")
    names = ["-subj", "/CN=septa", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return files


def test_a_remote_cluster_with_tls(
    certificate: Tls, data: Path, tmp_path: Path, expected: dict[str, bytes], septa: Septa
) -> None:
    """The cluster outlives its client, and keeps nothing that it was sent."""
    roles = {
        f"tls_{who}_{what}": str(getattr(certificate, what))
        for who in ("scheduler", "worker", "client")
        for what in ("cert", "key")
    }
    security = distributed.Security(tls_ca_file=str(certificate.ca), require_encryption=True, **roles)
    with distributed.LocalCluster(
        n_workers=1,
        processes=False,
        threads_per_worker=3,
        dashboard_address="127.0.0.1:0",
        security=security,
        protocol="tls://",
        memory_limit=0,
        local_directory=str(tmp_path / "scratch"),
        host="127.0.0.1",
    ) as running:
        address = running.scheduler_address
        with (
            pytest.raises(InputError, match="no scheduler can be reached at this address"),
            remote_cluster(address, timeout_s=0.5),
        ):
            pass
        with remote_cluster(address, certificate, timeout_s=60) as found:
            list(stream(request_of(data, tmp_path / "store.zarr", name="cells"), found.make_executor))
            assert len(dask_worker._models) == 1
        assert not dask_worker._models
        assert not dask_worker._prepared_runs
        assert not dask_worker._block_workers
        files_given = [f"--tls-{name}={getattr(certificate, name)}" for name in ("ca", "cert", "key")]
        command = "predict", data / "model.septa", data / "image.zarr", "-o", tmp_path / "store.zarr"
        code, out, err = septa(*command, "--cluster", address, *files_given, "--name", "cells")
        assert (code, err) == (0, "")
        assert "is complete already" in out
        running.scale(0)
        with (
            pytest.raises(InputError, match="the cluster has no workers"),
            remote_cluster(address, certificate, timeout_s=0.5),
        ):
            pass
    assert files(tmp_path / "store.zarr") == expected


# Workers -------------------------------------------------------------------------------------------------------------


def test_local_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch, workers: Cluster) -> None:
    def threads() -> tuple[int, str]:
        import torch

        return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]

    assert set(workers.client.run(threads).values()) == {(1, "1")}  # tests run with OMP_NUM_THREADS=1
    assert all(address.startswith("tcp://127.0.0.1:") for address in workers.client.nthreads())
    assert workers.client.scheduler.address.startswith("tcp://127.0.0.1:")


def test_ports_are_opened_at_localhost_only(workers: Cluster) -> None:
    def ports() -> set[str]:
        import psutil

        found = [psutil.Process(), *psutil.Process().children()]
        open_ = [port for process in found for port in process.net_connections() if port.status == psutil.CONN_LISTEN]
        return {port.laddr.ip for port in open_}

    assert ports() == {"127.0.0.1"}
    assert all(found == {"127.0.0.1"} for found in workers.client.run(ports).values())


@pytest.mark.parametrize(
    ("given", "peers", "asked", "expected"),
    [(1, 2, None, 4), (6, 2, None, 6), (99, 1, None, 8), (1, 20, None, 1), (1, 1, 3, 3)],
)
def test_a_worker_uses_its_threads_or_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, given: int, peers: int, asked: int | None, expected: int
) -> None:
    monkeypatch.setattr(dask_worker, "CPU_COUNT", 8)
    monkeypatch.setattr(dask_worker.runtime, "count_cores", lambda: 64)
    places = {"nanny": (3, peers)}
    job: Any = SimpleNamespace(key="key", is_local=False, threads=asked, local_ranks=places)
    for nanny, number in (("nanny", 3), ("a worker that started later", None)):
        plugin = dask_worker.RunPlugin(job)
        plugin.setup(SimpleNamespace(nanny=nanny, address="a", state=SimpleNamespace(nthreads=given)))
        place = dask_worker._prepared_runs["key"]
        assert place.threads == expected
        assert number in (None, place.rank)
        plugin.teardown(None)
        assert not dask_worker._prepared_runs


def test_the_workers_of_a_machine_take_its_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [dask_worker._choose_device("cpu", number) for number in range(2)] == ["cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [dask_worker._choose_device("auto", number) for number in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert dask_worker._choose_device("cuda:1", 0) == "cuda:1"


def test_workers_are_ranked_within_their_machine() -> None:
    hosts = {"tcp://b:1": ("b", None), "tcp://a:9": ("a", "tcp://a:2"), "tcp://a:3": ("a", "tcp://a:1")}
    about = {address: {"host": host, "nanny": nanny} for address, (host, nanny) in hosts.items()}
    client = SimpleNamespace(scheduler_info=lambda n_workers: {"workers": about})
    assert Cluster(client, "x")._rank_workers() == {"tcp://a:1": (0, 2), "tcp://a:2": (1, 2), "tcp://b:1": (0, 1)}


def test_a_worker_with_another_version_of_septa_is_refused(data: Path, tmp_path: Path) -> None:
    place: Any = SimpleNamespace(run=SimpleNamespace(version="0.0.1"))
    with pytest.raises(SeptaError, match=r"has version \S+ of septa, but the client has version 0.0.1"):
        dask_worker._make_worker(place)


def test_a_damaged_plan_is_refused_by_a_worker(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"block": 64')
    dask_run: Any = SimpleNamespace(folder=tmp_path)
    with pytest.raises(InputError) as caught:
        dask_worker._read_plan(dask_run)
    remedy = "Run the same command again with --overwrite"
    assert str(caught.value) == f"{tmp_path / 'plan.json'}: the plan is damaged. {remedy}."
