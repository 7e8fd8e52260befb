"""Descriptions of nets against their layers, gradients and real passes, and drawings without overlaps."""

from __future__ import annotations

import io
import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from septa.describe.description import describe_net, draw_net
from septa.nets.unet import UNet

SVG = "{http://www.w3.org/2000/svg}"

FAMILY: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep": {"depth": 5, "width": 2},
    "shallow": {"depth": 1},
    "valid": {"padding": "valid", "norm": "none"},
    "valid bilinear": {"padding": "valid", "up": "bilinear"},
    "valid gated": {"padding": "valid", "attention": True},
    "valid nested": {"padding": "valid", "nested": True, "norm": "none"},
    "bilinear reduced": {"up": "bilinear", "reduction": 4},
    "residual": {"block": "residual", "norm": "group"},
    "squeezed": {"squeeze": True, "norm": "instance"},
    "gated": {"attention": True},
    "pyramid": {"aspp": True},
    "nested": {"nested": True},
    "nested gated supervised": {"nested": True, "attention": True, "deep_supervision": True},
    "nested reduced": {"nested": True, "reduction": 2, "aspp": True, "block": "residual"},
    "supervised": {"deep_supervision": True},
    "resnet50": {"encoder": "resnet50"},
    "resnet18 pyramid": {"encoder": "resnet18", "aspp": True, "attention": True},
    "resnet18 nested": {"encoder": "resnet18", "nested": True, "reduction": 2},
}


def make(name: str, **changes: Any) -> UNet:
    return UNet(1, 3, **{"depth": 3, "width": 4, **FAMILY[name], **changes})


def make_paper() -> UNet:
    with torch.device("meta"):
        return UNet(1, 2, depth=4, width=64, padding="valid", norm="none")


def list_texts(drawing: str, style: str = "") -> list[str]:
    """Return the texts of a drawing, or those of one style, in order."""
    texts = ElementTree.fromstring(drawing).iter(f"{SVG}text")
    return [text.text or "" for text in texts if text.get("class") == style or not style]


def test_the_papers_net() -> None:
    description = describe_net(make_paper(), 572, 572)
    assert description.parameters == 31_030_658
    assert (description.input_size, description.output_size) == ((572, 572), (388, 388))
    assert (description.margin, description.note) == (92, "")
    convolutions = [layer for layer in description.layers if layer.role == "convolution"]
    # The sizes and channels are those of figure 1, from left to right.
    sizes = [570, 568, 282, 280, 138, 136, 66, 64, 30, 28, 54, 52, 102, 100, 198, 196, 390, 388]
    channels = [64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024, 512, 512, 256, 256, 128, 128, 64, 64]
    assert [layer.out_shape for layer in convolutions] == [(c, n, n) for c, n in zip(channels, sizes, strict=True)]
    pools = [layer.out_shape[1] for layer in description.layers if layer.role == "pooling"]
    assert pools == [284, 140, 68, 32]
    ups = [layer.out_shape for layer in description.layers if layer.role == "up"]
    assert ups == [(512, 56, 56), (256, 104, 104), (128, 200, 200), (64, 392, 392)]
    assert (description.layers[-1].role, description.layers[-1].out_shape) == ("head", (2, 388, 388))
    # Two 3x3 convolutions see 5 pixels. Pooling makes it 6. Then each convolution adds 2 * 2**level.
    fields = [layer.receptive_field for layer in convolutions[:10]]
    assert fields == [3, 5, 10, 14, 24, 32, 52, 68, 108, 140]


@pytest.mark.parametrize("name", FAMILY)
def test_parameters_and_receptive_field_are_the_nets(name: str) -> None:
    net = make(name)
    description = describe_net(net, 96, 128)
    assert description.parameters == sum(parameter.numel() for parameter in net.parameters())
    used = sum(layer.parameters for layer in description.layers)
    assert description.training_parameters == description.parameters - used
    assert (description.training_parameters > 0) == (name == "supervised")
    # The left side is found by following the layers one by one, the right side is composed from the blocks.
    largest = max(layer.receptive_field for layer in description.layers)
    assert largest == net.receptive_field == description.receptive_field
    assert description.layers[-1].receptive_field == net.receptive_field or net.nested
    names = {name for name, _ in net.named_modules()}
    assert names >= {layer.name for layer in description.layers}


@pytest.mark.parametrize("name", FAMILY)
def test_shapes_and_flops_are_those_of_a_real_pass(name: str) -> None:
    net = make(name).eval()
    description = describe_net(net, 64, 32)
    seen: list[tuple[str, tuple[int, ...]]] = []
    listed = {layer.name for layer in description.layers}
    for path, module in net.named_modules():
        if path in listed:
            module.register_forward_hook(lambda _, __, out, path=path: seen.append((path, tuple(out.shape[1:]))))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        logits = net(torch.rand(1, 1, *description.input_size))
    assert tuple(logits.shape) == (1, description.out_channels, *description.output_size)
    assert seen == [(layer.name, layer.out_shape) for layer in description.layers]
    assert description.flops == sum(layer.flops for layer in description.layers) == counter.get_total_flops()


@pytest.mark.parametrize("name", ["plain", "deep", "valid", "bilinear reduced", "pyramid", "resnet18 pyramid"])
def test_receptive_fields_grow_along_the_contracting_path(name: str) -> None:
    net = make(name)
    description = describe_net(net, 128, 128)
    inside = [layer for layer in description.layers if layer.name.startswith("encoder.")]
    # In a residual network the branches of a block have different receptive fields.
    if "encoder" not in FAMILY[name]:
        fields = [layer.receptive_field for layer in inside]
        assert all(before <= after for before, after in itertools.pairwise(fields))
    for level in range(net.depth + 1 if "encoder" not in FAMILY[name] and not net.aspp else 0):
        last = [layer for layer in inside if layer.name.startswith(f"encoder.{level}.")][-1]
        low, high = net.node_needs(level, 0, (40, 41))
        assert last.receptive_field == high - low


def test_the_receptive_field_of_a_layer_is_that_of_its_gradients() -> None:
    """Gradients of a real net with all weights 1 are compared with the fields in the table, at every phase."""
    net = UNet(1, 2, depth=2, width=1, norm="none", up="bilinear").double().eval()
    for parameter in net.parameters():
        torch.nn.init.constant_(parameter, 1 if parameter.ndim > 1 else 0)
    # The gradient of a maximum would reach one pixel only.
    net.encoder.down = torch.nn.AvgPool2d(2)  # type: ignore[attr-defined]
    description = describe_net(UNet(1, 2, depth=2, width=1, norm="none", up="bilinear"), 96, 8)
    fields = {layer.name: layer.receptive_field for layer in description.layers}
    for name in ("encoder.0.conv2", "encoder.2.conv1", "up.1.conv", "decoder.1.conv1", "decoder.0.conv2"):
        kept: list[torch.Tensor] = []
        hook = net.get_submodule(name).register_forward_hook(lambda _, __, out, kept=kept: kept.append(out))
        image = torch.ones(1, 1, 96, 96, dtype=torch.float64, requires_grad=True)
        net(image)
        hook.remove()
        middle = kept[0].shape[3] // 2
        widths = []
        for at in range(middle - 2, middle + 2):
            (slope,) = torch.autograd.grad(kept[0][0, 0, middle, at], image, retain_graph=True)
            reached = torch.nonzero(slope[0, 0].abs().sum(0)).flatten()
            widths.append(int(reached[-1] - reached[0]) + 1)
        assert max(widths) == fields[name]


def test_the_net_is_not_changed() -> None:
    net = make("plain").train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    describe_net(net, 64, 64)
    draw_net(net, 64, 64)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.device.type == "cpu" for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_size_that_does_not_fit_is_replaced_with_a_note() -> None:
    description = describe_net(make_paper(), 570, 1000)
    assert description.input_size == (572, 1004)
    assert description.asked_size == (570, 1000)
    assert description.note == "570x1000 is not a valid size for this net; the nearest valid size is 572x1004"
    with pytest.raises(ValueError, match="at least 1"):
        describe_net(make_paper(), 0, 10)


def test_large_images_need_no_memory() -> None:
    description = describe_net(make("plain", width=64, depth=4), 100_000, 100_000)
    assert description.layers[0].out_shape == (64, 100_000, 100_000)
    assert description.peak_bytes > 10**12


def test_the_table_contains_every_layer_and_the_totals() -> None:
    description = describe_net(make_paper(), 500, 572)
    console = Console(width=200, file=io.StringIO())
    console.print(description.table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for layer in description.layers:
        assert re.search(rf"{re.escape(layer.name)} .*{re.escape(layer.kind)} .*{layer.receptive_field} ", text)
    for expected in ("31,030,658", "500x572 is not a valid size", "2 for each multiply-add", "64, 506, 570", "MFLOPs"):
        assert expected in text


def test_the_json_contains_everything() -> None:
    description = describe_net(make("gated"), 64, 96)
    read = json.loads(description.to_json())
    assert read["parameters"] == description.parameters
    assert read["output_size"] == [64, 96]
    assert [layer["name"] for layer in read["layers"]] == [layer.name for layer in description.layers]
    assert read["layers"][0]["block"] == "encoder.0"
    assert read["layers"][0]["megabytes"] == pytest.approx(4 * 64 * 96 * 4e-6)
    assert "2 for each" in read["convention"]


def test_the_drawing_of_the_papers_net_has_its_channels_and_sizes_in_order() -> None:
    drawing = draw_net(make_paper(), 572, 572)
    left = [1, 64, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512, 1024, 1024]
    right = [1024, 512, 512, 512, 256, 256, 256, 128, 128, 128, 64, 64, 2]
    assert list_texts(drawing, "channels") == [str(channels) for channels in left + right]
    sides = [572, 570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28]
    sides += [56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388, 388]
    assert list_texts(drawing, "size") == [f"{side}²" for side in sides]
    assert "31,030,658 parameters" in " ".join(list_texts(drawing, "sub"))
    assert {"copy and crop", "max pool 2x2", "up-conv 2x2", "conv 1x1"} <= set(list_texts(drawing, "words"))
    assert "prefers-color-scheme:dark" in drawing
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<script|<image|url\(", drawing)


@pytest.mark.parametrize("name", FAMILY)
def test_every_member_is_drawn_with_all_its_channels_and_nothing_overlaps(name: str) -> None:
    net = make(name, width=16)
    drawing = draw_net(net, 192, 256)
    shown = set(list_texts(drawing, "channels"))
    assert {str(channels) for channels in net.encoder.channels} <= shown
    assert {"1", "3"} <= shown
    signs = set(list_texts(drawing, "sign"))
    settings = FAMILY[name]
    for key, sign in {"attention": "A", "aspp": "P"}.items():
        assert (sign in signs) == bool(settings.get(key))
    if settings.get("block") == "residual":
        assert "residual sum" in " ".join(list_texts(drawing, "words"))
    if not net.nested:
        assert ("+" in signs) == (settings.get("block") == "residual")
        assert ("S" in signs) == bool(settings.get("squeeze"))
    else:
        assert {f"{i},{j}" for i in range(net.depth + 1) for j in range(net.depth + 1 - i)} <= signs
    if "encoder" in settings:
        assert settings["encoder"] in " ".join(list_texts(drawing))
    boxes, labels, size = locate(drawing)
    for one, other in itertools.combinations(boxes, 2):
        assert not overlap(one, other) or is_inside(one, other)
    for label in labels:
        assert not any(overlap(label, box) and not is_inside(box, label) for box in boxes), label
        assert 0 <= label[0] < label[2] <= size[0]
        assert 0 <= label[1] < label[3] <= size[1]
    for one, other in itertools.combinations(labels, 2):
        assert not overlap(one, other)


Area = tuple[float, float, float, float]


def locate(drawing: str) -> tuple[list[Area], list[Area], tuple[float, float]]:
    """Return the boxes and the estimated areas of texts, (left, top, right, bottom), and the size of the drawing."""
    root = ElementTree.fromstring(drawing)
    size = float(root.get("width", "0")), float(root.get("height", "0"))
    boxes = []
    for rect in root.iter(f"{SVG}rect"):
        if "map" in (rect.get("class") or ""):
            x, y, width, height = (float(rect.get(key, "0")) for key in ("x", "y", "width", "height"))
            boxes.append((x, y, x + width, y + height))
    labels = []
    for text in root.iter(f"{SVG}text"):
        x, y, style = float(text.get("x", "0")), float(text.get("y", "0")), text.get("class") or ""
        letter = {"title": 9, "sub": 6.3, "words": 6, "size": 5.6, "tiny": 4.8}.get(style, 6.4)
        long = letter * len(text.text or "")
        if text.get("transform"):
            labels.append((x - 7, y, x + 1, y + long))
        elif style in ("channels", "sign", "tiny"):
            labels.append((x - long / 2, y - 7, x + long / 2, y))
        else:
            labels.append((x, y - 8, x + long, y))
    return boxes, labels, size


def overlap(one: Area, other: Area) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def is_inside(outer: Area, inner: Area) -> bool:
    """Return True if the smaller area lies in the larger one, whichever it is."""
    first, second = sorted((outer, inner), key=lambda area: (area[2] - area[0]) * (area[3] - area[1]))
    return (
        second[0] <= first[0] + 0.2
        and second[1] <= first[1] + 0.2
        and first[2] <= second[2] + 0.2
        and first[3] <= second[3] + 0.2
    )


@pytest.mark.parametrize("depth", range(1, 6))
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("size_hw", [(4096, 3000), (64, 64)])
def test_nothing_overlaps_at_any_depth(depth: int, nested: bool, size_hw: tuple[int, int]) -> None:
    with torch.device("meta"):
        net = UNet(3, 12, depth=depth, width=64, nested=nested, deep_supervision=True, block="residual", squeeze=True)
    boxes, labels, _ = locate(draw_net(net, *size_hw))
    assert not any(overlap(label, box) and not is_inside(box, label) for label in labels for box in boxes)
    assert not any(overlap(one, other) for one, other in itertools.combinations(labels, 2))


def test_text_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("septa.describe.description._encoder_name", lambda _: '<script>"&')
    drawing = draw_net(make("resnet18 pyramid"), 64, 64)
    assert "<script" not in drawing
    assert '<script>"&' in " ".join(list_texts(drawing))
