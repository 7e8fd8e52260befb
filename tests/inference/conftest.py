"""What tests of engines share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from septa.nets import UNet

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
    torch.manual_seed(0)
    net = UNet(2, 3, **{"depth": 2, "width": 4, **family}).eval()
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean = torch.empty(norm.num_features).uniform_(-0.5, 0.5)
        norm.running_var = torch.empty(norm.num_features).uniform_(0.3, 3)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    return net
