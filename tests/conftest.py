"""Fixtures and settings that the tests of several folders share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from .forks import NOTHING, ForkServer

if TYPE_CHECKING:
    from septa.nets import UNet

    from .faulty_server import FaultyServer

# One test runs on each core, so more than one thread per test would only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test fails because it is slow, since the machine may do other work too.
settings.register_profile("septa", deadline=None)
settings.load_profile("septa")

# A shell starts background jobs with SIGINT ignored, and child processes would inherit this.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = {
    *("test_dask_cluster.py", "test_data_faults.py", "test_doctests.py", "test_engines.py", "test_exact.py"),
    *("test_kill.py", "test_loop.py", "test_model.py", "test_readme.py", "test_resume.py", "test_run.py"),
}
"""Files of tests that take long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let slow tests take the time they need; every other one is ended after the ``timeout`` of pyproject.toml.

    Files that take a minute or more go first, so that no process is left with one of them while the others wait.
    """
    items.sort(key=lambda item: item.path.name not in LONG)  # the order stays otherwise
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use a temporary cache folder, so that no test reads or fills the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _no_shipped_models() -> Iterator[None]:
    """Ship no model, so that no training starts from one by itself; tests that need models name their folder."""
    from septa.pretrained import shipped as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FOLDER", NOTHING)
        yield


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Start a process whose forks run the command."""
    server = ForkServer({"COLUMNS": "120"})
    yield server
    server.close()


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write six images of 64 x 64 pixels with instance labels; tests must not change them."""
    from septa.synthetic.dataset import write_dataset

    folder = tmp_path_factory.mktemp("cells") / "data"
    write_dataset(folder, "cells", 6, (64, 64), 0)
    return folder


@pytest.fixture(scope="session")
def shipped_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder with a model ``nuclei`` as septa ships it: file, card and examples; tests must not change it.

    The model is of two classes, for images of one channel.
    """
    folder = tmp_path_factory.mktemp("shipped")
    old = Path(__file__).parent / "files" / "v0.1"
    shutil.copyfile(old / "instances.septa", folder / "nuclei.septa")
    for part in ("images", "labels"):
        (folder / "examples" / "nuclei" / part).mkdir(parents=True)
        shutil.copyfile(old / "data" / part / "0.png", folder / "examples" / "nuclei" / part / "0.png")
    (folder / "nuclei.md").write_text(CARD, encoding="utf-8")
    return folder


CARD = """---
summary: nuclei in fluorescence
channels: 1
objects: 6 to 120 pixels
licence: CC0, MIT
minutes: 5
---
# nuclei

Trained on drawn cells.
"""


@pytest.fixture
def shipped(shipped_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make septa ship the models of `shipped_folder` in this process."""
    from septa.pretrained import shipped as module

    monkeypatch.setattr(module, "FOLDER", shipped_folder)
    return shipped_folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread: small nets are faster, and their results do not depend on the number of cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


FAMILY: dict[str, dict[str, Any]] = {
    "plain": {},
    "bilinear": {"up": "bilinear"},
    "residual": {"block": "residual", "squeeze": True},
    "nested": {"nested": True, "deep_supervision": True},
    "attention": {"attention": True, "aspp": True},
    "group": {"norm": "group", "reduction": 2},
    "valid": {"padding": "valid", "norm": "none"},
    "valid bilinear": {"padding": "valid", "up": "bilinear"},
    "resnet": {"encoder": "resnet18"},
}


@pytest.fixture(params=FAMILY)
def family(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the settings of each kind of net; ``indirect`` selects one by name."""
    return FAMILY[request.param]


@pytest.fixture
def member(family: dict[str, Any]) -> UNet:
    """Make a net of each kind for 2 channels and 3 classes.

    The weights are random, and the batch statistics differ from those of a new net.
    """
    import torch
    from torch import nn

    from septa.nets import UNet

    torch.manual_seed(0)
    net = UNet(2, 3, **{"depth": 2, "width": 4, **family}).eval()
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean = torch.empty(norm.num_features).uniform_(-0.5, 0.5)
        norm.running_var = torch.empty(norm.num_features).uniform_(0.3, 3)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    return net


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """Return a server of ``tmp_path``; limits of time are short, and each test makes its own connections."""
    pytest.importorskip("aiohttp")
    from septa.images.sources import remote

    from .faulty_server import FaultyServer

    monkeypatch.setattr(remote, "READ_S", 0.15)
    monkeypatch.setattr(remote, "PAUSES_S", (0.01, 0.01, 0.01))
    remote._connect.cache_clear()
    kit = FaultyServer(tmp_path)
    yield kit
    kit.server.shutdown()
    kit.server.server_close()
    remote._connect.cache_clear()
