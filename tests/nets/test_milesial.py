"""The older PyTorch-UNet against an independent construction, and the settings that it needs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from septa.errors import InputError, RecipeError
from septa.inference import export_graph
from septa.model import build_net
from septa.nets import UNet
from septa.presets import load_recipe
from septa.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def double(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


class OlderUNet(nn.Module):
    """The net step by step, for widths of w times 64, 128, 256, 512, 512."""

    def __init__(self, channels: int, classes: int, w: int) -> None:
        super().__init__()
        self.inc = double(channels, w)
        self.down1, self.down2 = double(w, 2 * w), double(2 * w, 4 * w)
        self.down3, self.down4 = double(4 * w, 8 * w), double(8 * w, 8 * w)
        self.up1, self.up2 = double(16 * w, 4 * w), double(8 * w, 2 * w)
        self.up3, self.up4 = double(4 * w, w), double(2 * w, w)
        self.outc = nn.Conv2d(w, classes, 1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(functional.max_pool2d(x1, 2))
        x3 = self.down2(functional.max_pool2d(x2, 2))
        x4 = self.down3(functional.max_pool2d(x3, 2))
        x5 = self.down4(functional.max_pool2d(x4, 2))
        y = self.up1(torch.cat([x4, self.up(x5)], 1))
        y = self.up2(torch.cat([x3, self.up(y)], 1))
        y = self.up3(torch.cat([x2, self.up(y)], 1))
        y = self.up4(torch.cat([x1, self.up(y)], 1))
        out: Tensor = self.outc(y)
        return out


def copy_layers(source: OlderUNet, target: UNet) -> None:
    """Copy the layers, which both nets have in the same order within each part."""
    encoder = [source.inc, source.down1, source.down2, source.down3, source.down4]
    decoder = [source.up4, source.up3, source.up2, source.up1]
    pairs = [*zip(encoder, target.encoder), *((part, target.decoder[str(level)]) for level, part in enumerate(decoder))]  # type: ignore[call-overload]
    for layers, block in pairs:
        for name, layer in zip(("conv1", "norm1", "conv2", "norm2"), [layers[at] for at in (0, 1, 3, 4)]):
            block.get_submodule(name).load_state_dict(layer.state_dict())
    target.head.load_state_dict(source.outc.state_dict())


def test_the_preset_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        net = build_net(load_recipe("milesial"), 3, 1)
        plain = OlderUNet(3, 1, 64)
    count = sum(weight.numel() for weight in net.parameters())
    assert count == sum(weight.numel() for weight in plain.parameters()) == 13_395_329
    assert not net.exact_tiles


@pytest.mark.parametrize("size", [(32, 48), (64, 32)])
@pytest.mark.parametrize("training", [False, True])
def test_the_net_equals_an_independent_one(size: tuple[int, int], training: bool) -> None:
    widths = {"net.width": 4, "net.widths": [4, 8, 16, 32, 32], "net.decoder_widths": [4, 4, 8, 16], "net.reduction": 1}
    recipe = load_recipe("milesial").with_overrides(f"{key}={value}" for key, value in widths.items())
    torch.manual_seed(1)
    known, net = OlderUNet(3, 1, 4).train(training), build_net(recipe, 3, 1).train(training)
    for module in known.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
    copy_layers(known, net)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(net(x), known(x), rtol=0, atol=1e-5)


def test_a_width_that_contradicts_the_widths_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"net\.widths begins with another number than net\.width, which is 16"):
        load_recipe("milesial").with_overrides(["net.width=16"])
    with pytest.raises(RecipeError, match="widths must be 5 numbers"):
        build_net(Recipe().with_overrides(["net.widths=[32, 8]"]), 1, 1)


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(["same", "valid"]), st.integers(1, 3), st.integers(0, 7))
def test_the_receptive_field_with_a_head_of_3x3(padding: str, depth: int, shift: int) -> None:
    net = UNet(1, 1, depth=depth, width=2, norm="none", padding=padding, head_kernel=3).double().eval()
    for values in net.parameters():
        values.data.abs_()  # no rectifier is closed, so every pixel that a logit needs has a gradient
    side = net.valid_size(4 * net.multiple + 2 * net.halo)
    image = torch.rand(1, 1, side, side, dtype=torch.double, requires_grad=True)
    logits = net(image)
    at = logits.shape[-1] // 2 + shift % net.multiple
    logits[..., at, at].sum().backward()
    assert image.grad is not None
    touched = image.grad[0, 0].abs().sum(0).nonzero().flatten()
    low, high = net.needs((at, at + 1))
    assert low <= int(touched.min())
    assert int(touched.max()) < high
    assert net.margin == (side - logits.shape[-1]) // 2


class Cropping(nn.Module):
    """The three levels of a U-Net whose skip connections are cropped from the top left, step by step."""

    def __init__(self, net: UNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        features = []
        for level, block in enumerate(net.encoder):  # type: ignore[arg-type,var-annotated]
            features.append(x := block(functional.max_pool2d(x, 2) if level else x))
        for level in (1, 0):
            up = net.up[str(level)](x)
            x = net.decoder[str(level)](torch.cat([features[level][:, :, : up.shape[2], : up.shape[3]], up], 1))
        out: Tensor = net.head(x)
        return out


@pytest.mark.parametrize("size", [(21, 22), (24, 27), (33, 16)])
def test_odd_sizes_are_cropped_from_the_top_left(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = UNet(1, 2, depth=2, width=4, odd_sizes="crop").eval()
    x = torch.randn(1, 1, *size)
    expected, found = Cropping(net)(x), net(x)
    height, width = expected.shape[2:]
    assert (height, width) == tuple(side // 4 * 4 for side in size)
    torch.testing.assert_close(found[:, :, :height, :width], expected, rtol=0, atol=1e-6)
    assert found.shape[2:] == size
    assert (found[:, :, height:] == found[:, :, height - 1 : height]).all()
    assert not torch.equal(found, UNet.from_config(net.config).eval()(x))


def test_a_net_that_crops_has_no_graph() -> None:
    with pytest.raises(InputError, match=r"net\.odd_sizes.*Use --engine torch"):
        export_graph(UNet(1, 1, depth=1, width=2, odd_sizes="crop").eval())
