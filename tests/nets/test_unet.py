"""The padded U-Net against a well-known implementation, and its sizes, halo and receptive field."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from septa.nets import UNet
from septa.nets.blocks import UpConvolution, make_norm

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the well-known padded U-Net, written out independently ---------------------------------------------------------


class DoubleConv(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class KnownUNet(nn.Module):
    """U-Net with four poolings and w to 16 w channels, every step by name."""

    def __init__(self, channels: int, classes: int, w: int) -> None:
        super().__init__()
        self.inc = DoubleConv(channels, w)
        self.down1, self.down2 = DoubleConv(w, 2 * w), DoubleConv(2 * w, 4 * w)
        self.down3, self.down4 = DoubleConv(4 * w, 8 * w), DoubleConv(8 * w, 16 * w)
        self.pool = nn.MaxPool2d(2)
        self.up1, self.conv1 = nn.ConvTranspose2d(16 * w, 8 * w, 2, stride=2), DoubleConv(16 * w, 8 * w)
        self.up2, self.conv2 = nn.ConvTranspose2d(8 * w, 4 * w, 2, stride=2), DoubleConv(8 * w, 4 * w)
        self.up3, self.conv3 = nn.ConvTranspose2d(4 * w, 2 * w, 2, stride=2), DoubleConv(4 * w, 2 * w)
        self.up4, self.conv4 = nn.ConvTranspose2d(2 * w, w, 2, stride=2), DoubleConv(2 * w, w)
        self.outc = nn.Conv2d(w, classes, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = self.inc(x)
        b = self.down1(self.pool(a))
        c = self.down2(self.pool(b))
        d = self.down3(self.pool(c))
        e = self.down4(self.pool(d))
        f = self.conv1(torch.cat([d, self.up1(e)], dim=1))
        g = self.conv2(torch.cat([c, self.up2(f)], dim=1))
        h = self.conv3(torch.cat([b, self.up3(g)], dim=1))
        i = self.conv4(torch.cat([a, self.up4(h)], dim=1))
        return {
            **{f"encoder.{level}": value for level, value in enumerate((a, b, c, d, e))},
            **{f"decoder.{level}": value for level, value in enumerate((i, h, g, f))},
            "": self.outc(i),
        }


def list_parts(known: KnownUNet) -> dict[str, nn.Module]:
    """Return the parts of `KnownUNet` by the names of the corresponding parts of septa's net."""
    encoders = [known.inc, known.down1, known.down2, known.down3, known.down4]
    decoders = [known.conv4, known.conv3, known.conv2, known.conv1]
    ups = [known.up4, known.up3, known.up2, known.up1]
    return {
        **{f"encoder.{level}": part for level, part in enumerate(encoders)},
        **{f"decoder.{level}": part for level, part in enumerate(decoders)},
        **{f"up.{level}.conv": part for level, part in enumerate(ups)},
        "head": known.outc,
    }


def copy_weights(known: KnownUNet, net: UNet) -> None:
    """Copy tensor by tensor, in the order of the layers, which is the same in septa's blocks."""
    copied = 0
    for name, part in list_parts(known).items():
        ours, theirs = net.get_submodule(name).state_dict(), part.state_dict()
        assert len(ours) == len(theirs)
        for mine, other in zip(ours.values(), theirs.values(), strict=True):
            assert mine.shape == other.shape
            mine.copy_(other)
            copied += 1
    assert copied == len(net.state_dict()) == len(known.state_dict())


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_equals_the_well_known_unet_layer_by_layer(mode: str) -> None:
    torch.manual_seed(1)
    known, net = KnownUNet(3, 2, 8), UNet(3, 2, depth=4, width=8)
    for module in known.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    copy_weights(known, net)
    known.train(mode == "train")
    net.train(mode == "train")
    seen: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        if name in {"", *list_parts(known)}:
            module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out.detach().clone()}))
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = known(x)
        net(x)
    assert {name for name in seen if name.startswith(("encoder", "decoder"))} | {""} == set(expected)
    for name, value in expected.items():
        assert seen[name].shape == value.shape, name
        assert value.std() > 1e-3, name
        torch.testing.assert_close(seen[name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_the_number_of_parameters_is_that_of_the_well_known_unet() -> None:
    with torch.device("meta"):
        known, net = KnownUNet(3, 2, 64), UNet(3, 2, depth=4, width=64)
    counts = [sum(p.numel() for p in x.parameters()) for x in (known, net)]
    assert counts == [31_037_698] * 2
    assert [block.conv2.out_channels for block in net.encoder] == [64, 128, 256, 512, 1024]  # type: ignore[union-attr]


@pytest.mark.parametrize("up", ["transpose", "bilinear"])
@pytest.mark.parametrize("norm", ["group", "instance", "none"])
def test_other_norms_and_ups_equal_functional_torch(norm: str, up: str) -> None:
    torch.manual_seed(2)
    net = UNet(2, 3, depth=1, width=12, norm=norm, up=up)
    for name, parameter in net.named_parameters():
        if "norm" in name or name.endswith("bias"):
            nn.init.normal_(parameter, 0.5)
    weights = net.state_dict()
    groups = {"group": {12: 4, 24: 8}, "instance": {12: 12, 24: 24}}

    def block(x: Tensor, name: str) -> Tensor:
        for at in (1, 2):
            x = functional.conv2d(
                x, weights[f"{name}.conv{at}.weight"], weights.get(f"{name}.conv{at}.bias"), padding=1
            )
            if norm != "none":
                x = functional.group_norm(
                    x, groups[norm][x.shape[1]], weights[f"{name}.norm{at}.weight"], weights[f"{name}.norm{at}.bias"]
                )
            x = functional.relu(x)
        return x

    x = torch.randn(1, 2, 12, 20)
    skip = block(x, "encoder.0")
    deep = block(functional.max_pool2d(skip, 2), "encoder.1")
    weight, bias = weights["up.0.conv.weight"], weights["up.0.conv.bias"]
    if up == "transpose":
        raised = functional.conv_transpose2d(deep, weight, bias, stride=2)
    else:
        raised = functional.conv2d(functional.interpolate(deep, scale_factor=2, mode="bilinear"), weight, bias)
    out = block(torch.cat([skip, raised], 1), "decoder.0")
    expected = functional.conv2d(out, weights["head.weight"], weights["head.bias"])
    assert ("encoder.0.conv1.bias" in weights) == (norm == "none")
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)


def test_instance_norm_is_torchs_instance_norm() -> None:
    x = torch.randn(2, 6, 9, 7)
    torch.testing.assert_close(make_norm("instance", 6)(x), functional.instance_norm(x), rtol=1e-5, atol=1e-5)


def test_weights_are_he_normal() -> None:
    torch.manual_seed(3)
    net = UNet(8, 8, depth=2, width=32, norm="none")
    tested = 0
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            weight = module.weight.detach().double().flatten()
            # weight layout: Conv2d (out, in, 3, 3), ConvTranspose2d (in, out, 2, 2)
            incoming = module.weight.shape[0] if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
            std, n = math.sqrt(2 / incoming), weight.numel()
            assert weight.mean().abs() < 5 * std / math.sqrt(n), name
            assert abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * n), name
            if n > 1000:
                kurtosis = ((weight / std) ** 4).mean().item()
                # A normal distribution has kurtosis 3, a uniform one 1.8.
                assert abs(kurtosis - 3) < 5 * math.sqrt(96 / n), name
            assert module.bias is not None
            assert not module.bias.any()
            tested += 1
    assert tested == 13


# --- sizes ----------------------------------------------------------------------------------------------------------

SIZES = st.integers(1, 70)
NETS = {
    (depth, up): UNet(1, 2, depth=depth, width=2, norm=norm, up=up).eval()
    for depth, norm in ((1, "batch"), (2, "group"), (3, "none"), (4, "batch"))
    for up in ("transpose", "bilinear")
}


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.sampled_from(sorted(NETS)))
def test_any_size_gives_logits_of_that_size(height: int, width: int, which: tuple[int, str]) -> None:
    net = NETS[which]
    with torch.inference_mode():
        image = torch.randn(1, 1, height, width)
        logits = net(image)
        full_height, full_width = net.pad_size(height, width)
        rows, columns = np.arange(full_height).clip(max=height - 1), np.arange(full_width).clip(max=width - 1)
        padded = net(image[:, :, rows][:, :, :, columns])
    assert logits.shape == (1, 2, height, width)
    assert torch.isfinite(logits).all()
    assert full_height % net.multiple == full_width % net.multiple == 0
    assert 0 <= full_height - height < 2 * net.multiple
    assert 0 <= full_width - width < 2 * net.multiple
    # Exact: the net pads to the same array, and then computes the same.
    torch.testing.assert_close(logits, padded[..., :height, :width], rtol=0, atol=0)


def test_one_pixel_can_be_trained_on() -> None:
    net = UNet(1, 2, depth=3, width=2).train()
    # Batch norm refuses a single value per channel, so this needs the padding.
    net(torch.randn(1, 1, 1, 1)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 8, 8), (1, 1, 1, 8, 8)])
def test_other_inputs_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected a tensor \(B, 1, Y, X\), got \("):
        NETS[1, "transpose"](torch.zeros(shape))


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 0},
        {"width": 0},
        {"norm": "layer"},
        {"up": "nearest"},
        {"dropout": 1.0},
        {"padding": "no"},
        {"reduction": 3},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        UNet(1, 2, **{"depth": 1, "width": 2, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reducing_net_is_the_net_between_mean_pooling_and_bilinear_upsampling(reduction: int) -> None:
    torch.manual_seed(6)
    plain = UNet(2, 3, depth=1, width=4).eval()
    net = UNet(2, 3, depth=1, width=4, reduction=reduction).eval()
    net.load_state_dict(plain.state_dict())
    image = torch.randn(1, 2, 4 * reduction, 6 * reduction)
    cells = image.reshape(1, 2, 4, reduction, 6, reduction).mean((3, 5))
    oracle = functional.interpolate(plain(cells), scale_factor=reduction, mode="bilinear")
    torch.testing.assert_close(net(image), oracle, rtol=1e-5, atol=1e-5)
    assert net(image[..., :-1, 1:]).shape == (1, 3, 4 * reduction - 1, 6 * reduction - 1)


def test_a_magnifying_net_is_the_net_between_bilinear_upsampling_and_mean_pooling() -> None:
    torch.manual_seed(7)
    plain = UNet(2, 3, depth=2, width=4).eval()
    net = UNet(2, 3, depth=2, width=4, magnification=2).eval()
    net.load_state_dict(plain.state_dict())
    image = torch.randn(1, 2, 8, 12)
    oracle = plain(functional.interpolate(image, scale_factor=2, mode="bilinear"))
    oracle = oracle.reshape(1, 3, 8, 2, 12, 2).mean((3, 5))
    torch.testing.assert_close(net(image), oracle, rtol=1e-5, atol=1e-5)
    assert net(image[..., :-1, 1:]).shape == (1, 3, 7, 11)
    assert (net.multiple, plain.multiple) == (2, 4)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(4)
    net = UNet(1, 2, depth=1, width=8, norm="none", dropout=0.5)
    x = torch.randn(1, 1, 16, 16)
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))  # exact: the same computation twice


# --- receptive field and halo, against a net in which nothing cancels -------------------------------------------------


def make_positive(depth: int, up: str, reduction: int = 1, magnification: int = 1) -> UNet:
    """Build a net in which an output pixel grows with every input pixel that it depends on, and with no other.

    Every weight is positive. Max pooling would hide all but the largest pixel of a cell, which may be any of them, so
    it is replaced by the mean.
    """
    sizes = {"reduction": reduction, "magnification": magnification}
    net = UNet(1, 1, depth=depth, width=1, norm="none", up=up, **sizes).double()
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    net.encoder.down = nn.AvgPool2d(2)  # type: ignore[attr-defined]
    return net


def find_dependencies(net: UNet, size: int) -> np.ndarray:
    """Return a boolean array ``(output, input)``, True where the output pixel has a gradient at the input pixel."""
    row = size // 2
    image = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    logits = net(image)
    found = []
    for at in range(size):
        (gradient,) = torch.autograd.grad(logits[0, 0, row, at], image, retain_graph=True)
        found.append((gradient[0, 0] > 0).any(0).numpy())
    return np.array(found)


@pytest.mark.parametrize("up", ["transpose", "bilinear"])
@pytest.mark.parametrize(
    ("depth", "reduction", "magnification"),
    [(1, 1, 1), (2, 1, 1), (3, 1, 1), (1, 2, 1), (2, 2, 1), (1, 4, 1), (1, 1, 2), (3, 1, 2)],
)
def test_needs_halo_and_receptive_field_against_gradients(
    depth: int, reduction: int, magnification: int, up: str
) -> None:
    net = make_positive(depth, up, reduction, magnification)
    like = UNet.from_config(net.config)
    multiple = like.multiple
    size = 2 * like.halo + 3 * multiple
    depends = find_dependencies(net, size)
    first = like.halo + multiple
    spans = []
    for at in range(first, first + multiple):
        hit = np.flatnonzero(depends[at])
        spans.append((int(hit[0]), int(hit[-1]) + 1))
        assert like.needs((at, at + 1)) == spans[-1]
        assert depends[at, hit[0] : hit[-1] + 1].all()
    assert like.receptive_field == max(high - low for low, high in spans)
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    assert like.needs((first, first + multiple)) == (low, high)
    reach = max(first - low, high - first - multiple)
    assert like.halo - multiple < reach <= like.halo
    assert like.halo % multiple == 0


@pytest.mark.parametrize("up", ["transpose", "bilinear"])
def test_one_changed_pixel_changes_exactly_the_outputs_that_need_it(up: str) -> None:
    net, like = make_positive(2, up), UNet(1, 1, depth=2, width=1, norm="none", up=up)
    size, at = 96, 47
    image = torch.ones(1, 1, size, size, dtype=torch.float64)
    other = image.clone()
    other[0, 0, at, at] += 1e3
    changed = (net(other) != net(image))[0, 0].detach().numpy()
    needing = np.array([low <= at < high for low, high in (like.needs((y, y + 1)) for y in range(size))])
    np.testing.assert_array_equal(changed, needing[:, None] & needing[None])


def test_the_padded_net_reaches_as_far_as_the_design_says() -> None:
    nets = [UNet(1, 1, depth=depth, width=1, norm="none") for depth in range(1, 6)]
    spans = [net.needs((0, net.multiple)) for net in nets]
    assert [-low for low, _ in spans] == [high - net.multiple for net, (_, high) in zip(nets, spans, strict=True)]
    assert [-low for low, _ in spans] == [8, 22, 46, 94, 190]
    assert [net.halo for net in nets] == [8, 24, 48, 96, 192]


@pytest.mark.parametrize(("norm", "exact"), [("batch", True), ("none", True), ("group", False), ("instance", False)])
def test_exact_tiles_is_true_where_far_pixels_do_not_matter(norm: str, exact: bool) -> None:
    torch.manual_seed(5)
    net = UNet(1, 1, depth=1, width=4, norm=norm).eval()
    image = torch.randn(1, 1, 64, 64)
    other = image.clone()
    other[..., -4:, -4:] += 9
    with torch.inference_mode():
        same = torch.equal(net(image)[..., :32, :32], net(other)[..., :32, :32])
    assert same == exact == net.exact_tiles


def test_bilinear_up_commutes_with_its_convolution() -> None:
    up = UpConvolution(4, 2, "bilinear")
    nn.init.normal_(up.conv.bias)  # type: ignore[arg-type]
    x = torch.randn(1, 4, 5, 6)
    torch.testing.assert_close(up(x), up.conv(up.resize(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "depth", "width", "reduction"),
    [(1, 2, 4, 1), (3, 2, 4, 1), (1, 4, 16, 1), (1, 4, 64, 1), (2, 5, 8, 1), (1, 2, 4, 2), (3, 2, 8, 4)],
)
def test_from_steady_pixels_on_every_convolution_reads_enough_values(
    channels: int, depth: int, width: int, reduction: int
) -> None:
    net = UNet(channels, 2, depth=depth, width=width, norm="none", reduction=reduction)
    read: list[int] = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_pre_hook(lambda _m, inputs: read.append(inputs[0].numel()))
    side = 2 * net.multiple
    with torch.inference_mode():
        net(torch.zeros(1, channels, side, side))
    fewest = min(read) / side**2
    assert fewest * net.steady_pixels > 20_480 >= fewest * (net.steady_pixels - 1)
