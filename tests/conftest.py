"""What tests of several rooms share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from septa.nets import UNet

# As many tests run side by side as there are cores; more threads than that would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test fails for being slow, as on a machine that does other work too.
settings.register_profile("septa", deadline=None)
settings.load_profile("septa")

# A shell starts background jobs with SIGINT ignored, and what they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or fills the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of 64 x 64 pixels with instance labels. Not to be changed."""
    from septa.synthetic.dataset import write_dataset

    folder = tmp_path_factory.mktemp("cells") / "data"
    write_dataset(folder, "cells", 6, (64, 64), 0)
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small nets are faster on one thread, and round the same wherever the tests run."""
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
    """Settings of a net, one of each kind; by name with ``indirect``."""
    return FAMILY[request.param]


@pytest.fixture
def member(family: dict[str, Any]) -> UNet:
    """A net of each kind for 2 channels and 3 classes: random weights, and batch statistics unlike a fresh net's."""
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
