"""Channels get more equal ranges, and the net stays the same function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from septa.inference.fold import fold_norms
from septa.inference.graph import export_graph, make_probe, pad_to_grid
from septa.nets import UNet
from septa.quantization.equalize import equalize_channels

pytestmark = pytest.mark.usefixtures("one_thread")

Image = NDArray[np.float32]


@pytest.fixture(autouse=True)
def _needs() -> None:
    for package in ("openvino", "onnx"):
        pytest.importorskip(package, reason=f"{package} is not installed")


def made_of(net: nn.Module, images: list[Image]) -> nn.Module:
    from septa.inference.openvino_engine import import_openvino

    return equalize_channels(net, import_openvino().Core().read_model(export_graph(net)), images)


def samples(net: UNet, side: int = 64, count: int = 3) -> list[Image]:
    rng, side = np.random.default_rng(0), net.valid_size(side) if net.margin else side
    return [pad_to_grid(net, rng.normal(size=(2, side, side)).astype(np.float32))[None] for _ in range(count)]


def logits(net: nn.Module, image_bcyx: Image) -> Image:
    with torch.inference_mode():
        return net(torch.from_numpy(image_bcyx))[0].numpy()


def spread(net: nn.Module, image_bcyx: Image) -> dict[str, float]:
    """Return the largest range of a channel that each convolution reads, as a multiple of the median range."""
    found: dict[str, float] = {}

    def look(name: str, x: Tensor) -> None:
        ranges = x[0].abs().amax((1, 2))
        found[name] = float(ranges.max() / ranges.median().clamp(min=1e-6))

    hooks = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: look(name, inputs[0]))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    logits(net, image_bcyx)
    for hook in hooks:
        hook.remove()
    return found


def unequal(net: UNet) -> UNet:
    """Make the ranges of channels unequal, by factors that the next layer compensates only in part."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight *= torch.exp(torch.randn(len(module.weight), generator=rng))
    return net


def test_every_net_stays_the_function_that_it_was(member: UNet) -> None:
    images = samples(member)
    net = fold_norms(member, make_probe(member))
    kept = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    made = made_of(net, images)
    expected = logits(net, images[0])
    np.testing.assert_allclose(logits(made, images[0]), expected, atol=2e-5 * float(np.abs(expected).max()))
    assert all(torch.equal(kept[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("family", ["plain", "valid bilinear", "nested"], indirect=True)
def test_channels_that_are_read_together_come_nearer(member: UNet) -> None:
    images = samples(member)
    net = fold_norms(unequal(member), make_probe(member))
    before, after = (spread(one, images[0]) for one in (net, made_of(net, images)))
    inner = [name for name in before if name != "encoder.0.conv1"]
    assert before["encoder.0.conv1"] == after["encoder.0.conv1"]  # the image
    assert np.mean([after[name] / before[name] for name in inner]) < 0.8


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("up.0.conv", "decoder.0.conv1"),
        ("encoder.0.conv2", "encoder.1.conv1"),
        ("encoder.1.conv1", "encoder.1.conv2"),
        ("decoder.0.conv2", "head"),
    ],
)
def test_a_channel_of_large_values_is_brought_to_the_range_of_the_others(name: str, reader: str) -> None:
    torch.manual_seed(0)
    net = UNet(2, 2, depth=1, width=4, norm="none").eval()
    with torch.no_grad():
        weight = net.get_submodule(name).weight
        (weight[:, 1] if name.startswith("up") else weight[1]).mul_(100)
    images = samples(net)
    made = made_of(net, images)
    before, after = (spread(one, images[0])[reader] for one in (net, made))
    assert before > 50
    assert after < 0.3 * before
    np.testing.assert_allclose(logits(made, images[0]), logits(net, images[0]), rtol=1e-3, atol=1e-3)


def test_convolutions_before_a_norm_are_not_changed() -> None:
    """The norm would cancel the factors; in a net with group norm only the upsampling can be equalised."""
    torch.manual_seed(0)
    net = UNet(2, 2, depth=1, width=8, norm="group").eval()
    nn.init.uniform_(net.get_submodule("up.0.conv").bias)
    made = dict(made_of(net, samples(net)).named_parameters())
    changed = {name for name, weight in net.named_parameters() if not torch.equal(made[name], weight)}
    assert changed == {"up.0.conv.weight", "up.0.conv.bias", "decoder.0.conv1.weight"}
