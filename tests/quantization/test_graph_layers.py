"""Convolutions of a net are matched with the operations of its graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from septa.inference.graph import export_graph, make_probe
from septa.nets import UNet
from septa.quantization import graph_layers as _layers

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _needs() -> None:
    for package in ("openvino", "onnx"):
        pytest.importorskip(package, reason=f"{package} is not installed")


def graph_for(net: UNet) -> object:
    from septa.inference.openvino_engine import import_openvino

    return import_openvino().Core().read_model(export_graph(net))


def bare(net: UNet) -> UNet:
    """Remove norms, which the graph would fold into weights, and set biases, which it leaves out if they are 0."""
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, leaf = name.rpartition(".")
            setattr(net.get_submodule(parent), leaf, nn.Identity())
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.uniform_(module.bias, 1, 2)
    return net


def test_every_convolution_that_runs_is_found(member: UNet) -> None:
    net = bare(member)
    ran: set[nn.Module] = set()
    hooks = [
        module.register_forward_hook(lambda module, inputs, out: ran.add(module))
        for module in net.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.inference_mode():
        net(make_probe(net))
    for hook in hooks:
        hook.remove()
    graph = graph_for(net)  # operations are valid only as long as the graph exists
    found = dict(_layers.match_convolutions(net, graph))
    assert set(found) == ran
    for conv, op in found.items():
        np.testing.assert_array_equal(_layers.find_producer(op, 1).data, conv.weight.detach().numpy())
        added = _layers.find_bias(op)
        assert (added is None) == (conv.bias is None)
        if added is not None:
            add, index, values = added
            assert _layers.find_producer(add, 1 - index).get_friendly_name() == op.get_friendly_name()
            np.testing.assert_array_equal(values.ravel(), conv.bias.detach().numpy())


def test_convolutions_of_equal_weights_are_left_out() -> None:
    net = UNet(2, 2, depth=1, width=4, norm="none").eval()
    first, twin = net.get_submodule("encoder.0.conv2"), net.get_submodule("decoder.0.conv2")
    before = set(dict(_layers.match_convolutions(net, graph_for(net))))
    assert {first, twin} < before
    with torch.no_grad():
        twin.weight.copy_(first.weight)
    assert before - set(dict(_layers.match_convolutions(net, graph_for(net)))) == {first, twin}


def test_a_cut_of_channels_is_not_a_crop() -> None:
    import openvino
    from openvino import opset13 as operations

    image = operations.parameter([1, 4, 8, 8], np.float32)
    rows = operations.slice(image, [1, 1], [7, 7], [1, 1], [2, 3])
    channels = operations.slice(image, [1], [3], [1], [1])
    openvino.Model([rows, channels], [image])
    assert _layers.is_crop(rows)
    assert not _layers.is_crop(channels)
    assert not _layers.is_crop(operations.relu(image))
