"""Encoders: the ResNets against their paper, and networks of timm, by a stand-in and by the package itself."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from septa.errors import InputError
from septa.nets import timm_encoder
from septa.nets.encoders import make_encoder
from septa.nets.pretrained import IMAGENET_MEAN, IMAGENET_STD
from septa.nets.resnet import ResNetEncoder
from septa.nets.timm_encoder import GLOBAL_CONTEXT, TimmEncoder

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("resnet18", "resnet34", "resnet50")
SIZE = 1024


# --- names, shapes and counts, written out from table 1 of the paper -----------------------------------------------

TABLE = {
    "resnet18": ([[(3, 64), (3, 64)]] * 2, [[(3, 128)] * 2] * 2, [[(3, 256)] * 2] * 2, [[(3, 512)] * 2] * 2),
    "resnet34": ([[(3, 64)] * 2] * 3, [[(3, 128)] * 2] * 4, [[(3, 256)] * 2] * 6, [[(3, 512)] * 2] * 3),
    "resnet50": (
        [[(1, 64), (3, 64), (1, 256)]] * 3,
        [[(1, 128), (3, 128), (1, 512)]] * 4,
        [[(1, 256), (3, 256), (1, 1024)]] * 6,
        [[(1, 512), (3, 512), (1, 2048)]] * 3,
    ),
}
PARAMETERS = {"resnet18": 11_176_512, "resnet34": 21_284_672, "resnet50": 23_508_032}


def list_published_shapes(name: str, channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the published weights without classifier, from the paper's table."""

    def norm(prefix: str, count: int) -> dict[str, tuple[int, ...]]:
        parts = ("weight", "bias", "running_mean", "running_var")
        return {f"{prefix}.{part}": (count,) for part in parts} | {f"{prefix}.num_batches_tracked": ()}

    shapes = {"conv1.weight": (64, channels, 7, 7), **norm("bn1", 64)}
    before = 64
    for layer, blocks in enumerate(TABLE[name], start=1):
        for at, block in enumerate(blocks):
            path, first = f"layer{layer}.{at}", before
            for which, (kernel, count) in enumerate(block, start=1):
                shapes[f"{path}.conv{which}.weight"] = (count, before, kernel, kernel)
                shapes |= norm(f"{path}.bn{which}", count)
                before = count
            if at == 0 and (layer > 1 or first != before):
                shapes[f"{path}.downsample.0.weight"] = (before, first, 1, 1)
                shapes |= norm(f"{path}.downsample.1", before)
    return shapes


@pytest.mark.parametrize("name", NAMES)
def test_the_body_has_the_published_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        encoder = make_encoder(name, 3, 8, "batch")
    assert {key: tuple(value.shape) for key, value in encoder.body.state_dict().items()} == list_published_shapes(name)
    assert sum(parameter.numel() for parameter in encoder.body.parameters()) == PARAMETERS[name]
    assert {key.split(".")[0] for key in encoder.state_dict()} == {"stem", "body"}


# --- the same nets, computed from their state dict with functional torch alone --------------------------------------


def compute_by_hand(name: str, w: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Compute the five features in evaluation mode, after the paper's figure 5 and table 1."""

    def conv(x: Tensor, path: str, stride: int) -> Tensor:
        kernel = w[f"{path}.weight"]
        return torch.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm(x: Tensor, path: str) -> Tensor:
        mean, var, scale, shift = (
            w[f"{path}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift

    features = [norm(conv(x, "conv1", 2), "bn1").clamp(min=0)]
    x = torch.max_pool2d(features[0], 3, 2, 1)
    for layer, blocks in enumerate(TABLE[name], start=1):
        for at, block in enumerate(blocks):
            path = f"layer{layer}.{at}"
            stride = 2 if layer > 1 and at == 0 else 1
            out = x
            strided = next(which for which, (kernel, _) in enumerate(block, start=1) if kernel == 3)
            for which in range(1, len(block) + 1):
                out = norm(conv(out, f"{path}.conv{which}", stride if which == strided else 1), f"{path}.bn{which}")
                out = out if which == len(block) else out.clamp(min=0)
            if f"{path}.downsample.0.weight" in w:
                x = norm(conv(x, f"{path}.downsample.0", stride), f"{path}.downsample.1")
            x = (x + out).clamp(min=0)
        features.append(x)
    return features


def calm(encoder: nn.Module) -> None:
    """Set random norms whose residual branches stay small, so that activations remain of the order of 1."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            last = name.endswith(("bn2", "bn3"))
            nn.init.uniform_(module.weight, 0.1 if last else 0.5, 0.3 if last else 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_features_equal_the_net_written_with_functional_torch(name: str) -> None:
    torch.manual_seed(1)
    encoder = make_encoder(name, 2, 4, "batch").double().eval()
    calm(encoder)
    x = torch.randn(2, 2, 64, 96, dtype=torch.float64)
    with torch.inference_mode():
        features = encoder(x)
        expected = compute_by_hand(name, encoder.body.state_dict(), x)
        torch.testing.assert_close(features[0], encoder.stem(x))
    assert len(features) == 1 + len(expected) == len(encoder.channels)
    for level, (feature, like) in enumerate(zip(features[1:], expected, strict=True), start=1):
        assert feature.shape == (2, encoder.channels[level], 64 >> level, 96 >> level)
        assert 0.05 < feature.std() < 50
        torch.testing.assert_close(feature, like)


def test_training_reaches_every_parameter() -> None:
    encoder = make_encoder("resnet50", 1, 4, "batch").train()
    sum((feature**2).mean() for feature in encoder(torch.randn(2, 1, 64, 64))).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_a_new_encoder_has_weights_by_hes_rule() -> None:
    """A convolution followed by a ReLU keeps the second moment."""
    torch.manual_seed(2)
    for name, module in ResNetEncoder("resnet34", 3, 4, "batch").named_modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / module.weight[0].numel())
            count = module.weight.numel()
            assert abs(module.weight.std().item() / expected - 1) < 6 / math.sqrt(count), name


@pytest.mark.parametrize("name", ["plain", "resnet101", "", "timm"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="resnet18, resnet34, resnet50 or timm:NAME"):
        make_encoder(name, 1, 4, "batch")


# --- needs, against a net in which nothing cancels ------------------------------------------------------------------


def at_level(level: int, span: tuple[int, int], levels: int = 6) -> list[tuple[int, int] | None]:
    """Return the spans of all levels: the given one at its level, and None elsewhere."""
    return [span if at == level else None for at in range(levels)]


def make_positive(module: nn.Module) -> None:
    """Change a net so that an output grows with every input that it depends on, and with no other.

    It then has one channel everywhere, positive weights, no norms, and mean pooling in place of max pooling.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            conv = nn.Conv2d(1, 1, child.kernel_size, child.stride, child.padding, bias=False)  # type: ignore[arg-type]
            nn.init.constant_(conv.weight, 0.1)
            setattr(module, name, conv)
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        else:
            make_positive(child)


@pytest.fixture(scope="module")
def spans() -> dict[tuple[str, int], tuple[int, int, int]]:
    """Find for each net and level, by gradients, the input pixels that a pixel in the middle depends on."""
    found = {}
    for name in NAMES:
        with torch.device("meta"):
            encoder = make_encoder(name, 1, 1, "none")
        make_positive(encoder)
        encoder.double()
        image = torch.ones(1, 1, 64, SIZE, dtype=torch.float64, requires_grad=True)
        for level, feature in enumerate(encoder(image)):
            at = (SIZE >> level) // 2
            (gradient,) = torch.autograd.grad(feature[0, 0, (64 >> level) // 2, at], image, retain_graph=True)
            hit = np.flatnonzero((gradient[0, 0] > 0).any(0).numpy())
            found[name, level] = at, int(hit[0]), int(hit[-1]) + 1
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", range(6))
def test_needs_is_exactly_the_support_of_the_gradient(name: str, level: int, spans: dict[Any, Any]) -> None:
    with torch.device("meta"):
        encoder = make_encoder(name, 1, 1, "none")
    at, low, high = spans[name, level]
    assert 0 < low < high < SIZE
    assert encoder.needs(at_level(level, (at, at + 1))) == (low, high)
    assert encoder.needs(at_level(level, (at - 3, at + 6))) == (low - (3 << level), high + (5 << level))


def test_the_receptive_fields_are_the_known_ones() -> None:
    """Compare with Araujo, Norris, Sim 2019, "Computing receptive fields of convolutional neural networks".

    ResNet-50 has 483 there, with the stride in the first 1x1 convolution. In the 3x3 it is 427, as measured above.
    """
    with torch.device("meta"):
        fields = [make_encoder(name, 1, 1, "none").needs(at_level(5, (0, 1))) for name in NAMES]
    assert [high - low for low, high in fields] == [435, 899, 427]


with torch.device("meta"):
    RESNET18 = ResNetEncoder("resnet18", 1, 1, "none")
SPAN = st.tuples(st.integers(-50, 50), st.integers(1, 40)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.none() | SPAN, min_size=6, max_size=6))
def test_needs_of_many_levels_is_the_union(levels: list[tuple[int, int] | None]) -> None:
    encoder = RESNET18
    each = [encoder.needs(at_level(level, span)) for level, span in enumerate(levels) if span is not None]
    if not each:
        with pytest.raises(ValueError, match="the spans of all levels are None"):
            encoder.needs(levels)
    else:
        assert encoder.needs(levels) == (min(low for low, _ in each), max(high for _, high in each))


# --- tiles ----------------------------------------------------------------------------------------------------------


def worst_difference(encoder: Any, size: int, cores: Sequence[tuple[int, int]]) -> float:
    """Return the largest difference of any feature between tiles, cut with the halo from `needs`, and the image."""
    torch.manual_seed(3)
    layout = torch.channels_last
    encoder = encoder.to(memory_format=layout)
    image = torch.randn(1, 2, size, size).contiguous(memory_format=layout)
    levels = range(len(encoder.channels))
    worst = 0.0
    with torch.inference_mode():
        whole = encoder(image)
        for start, end in cores:
            low, high = encoder.needs([(start >> level, end >> level) for level in levels])
            low, high = max(0, low // 32 * 32), min(size, -(-high // 32) * 32)
            assert (low, high) != (0, size)
            tile = encoder(image[..., low:high, low:high].contiguous(memory_format=layout))
            for level in levels:
                inside = slice((start - low) >> level, (end - low) >> level)
                expected = whole[level][..., start >> level : end >> level, start >> level : end >> level]
                assert expected.std() > 1e-3
                worst = max(worst, (tile[level][..., inside, inside] - expected).abs().max().item())
    return worst


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_tiles_equal_the_whole_bit_for_bit(name: str) -> None:
    """Tiles lie at the image's edges and inside; equality is exact, as the design promises.

    They are at least 480 pixels wide, since a strided convolution of ResNet-50 rounds differently where its rows have
    at most 14 outputs (oneDNN).
    """
    torch.manual_seed(4)
    encoder = make_encoder(name, 2, 4, "batch").eval()
    calm(encoder)
    assert encoder.local
    assert worst_difference(encoder, 640, [(0, 288), (288, 352), (352, 640)]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_pixel_outside_needs_changes_nothing_and_the_last_inside_does(name: str, spans: dict[Any, Any]) -> None:
    with torch.device("meta"):
        encoder = make_encoder(name, 1, 1, "none")
    make_positive(encoder)
    encoder.double()
    at = spans[name, 5][0]
    low, high = encoder.needs(at_level(5, (at, at + 1)))
    image = torch.ones(1, 1, 32, SIZE, dtype=torch.float64)
    for column, changes in ((low - 1, False), (low, True), (high - 1, True), (high, False)):
        other = image.clone()
        other[..., column] = torch.nan
        assert bool(encoder(other)[5][0, 0, 0, at].isnan()) == changes


# --- timm: a small stand-in for the package -------------------------------------------------------------------------


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


class Attention(nn.Identity):
    pass


class Small(nn.Module):
    """A pyramid of strided 3x3 convolutions with ReLU6, one for each level."""

    def __init__(self, in_chans: int, strides: Sequence[int], extra: nn.Module) -> None:
        super().__init__()
        before = [1, *strides]
        self.stages = nn.ModuleList(
            nn.Conv2d(in_chans if at == 0 else 4 * at, 4 * at + 4, 3, stride=b // a, padding=1)
            for at, (a, b) in enumerate(pairwise(before))
        )
        self.extra = extra
        self.feature_info = SimpleNamespace(
            channels=lambda: [4 * at + 4 for at in range(len(strides))], reduction=lambda: list(strides)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = nn.functional.relu6(stage(x))
            features.append(x)
        return [*features[:-1], self.extra(features[-1])]


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == 7, "input size must be 224"
        return x


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a stand-in for timm with a few networks."""
    nets: dict[str, tuple[Sequence[int], type[nn.Module]]] = {
        "small": ((2, 4, 8, 16, 32), nn.Identity),
        "shallow": ((2, 4, 8), nn.Identity),
        "patches": ((4, 8, 16, 32), nn.Identity),
        "gated": ((2, 4, 8), Gate),
        "attentive": ((2, 4, 8), Attention),
        "fixed": ((2, 4, 8, 16, 32), Fixed),
    }

    def create_model(name: str, pretrained: bool, features_only: bool = False, in_chans: int = 3) -> nn.Module:
        assert not pretrained
        if name == "headless":
            raise RuntimeError("features_only not implemented\nfor headless models.")
        strides, extra = nets[name]
        net = Small(in_chans, strides, extra())
        if name == "shallow":
            net.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
        if not features_only:
            net.add_module("classifier", nn.Linear(4 * len(strides), 10))
        return net

    timm = ModuleType("timm")
    timm.__dict__.update(
        __version__="1.0.0",
        create_model=create_model,
        is_model=lambda name: name in (*nets, "headless"),
        list_models=lambda: list(nets),
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    forget()
    yield
    forget()


def forget() -> None:
    timm_encoder._measure_fields.cache_clear()
    timm_encoder._list_tensors.cache_clear()


@pytest.mark.usefixtures("stand_in")
def test_a_timm_net_is_measured() -> None:
    """Level l of the stand-in has l convolutions with stride 2, so its pixel needs 2**(l + 1) - 1 input pixels."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    timm_encoder._measure_fields("small")
    assert torch.equal(torch.get_rng_state(), before)
    encoder = make_encoder("timm:small", 2, 6, "batch").eval()
    assert encoder.local
    assert encoder.channels == (6, 4, 8, 12, 16, 20)
    assert encoder.first_convolution == "stages.0.weight"
    assert [tuple(feature.shape[1:]) for feature in encoder(torch.zeros(1, 2, 64, 32))] == [
        (channels, 64 >> level, 32 >> level) for level, channels in enumerate(encoder.channels)
    ]
    assert encoder.needs(at_level(0, (3, 9))) == (1, 11)
    for level in range(1, 6):
        reach = 2**level - 1
        for at in (-3, 0, 1, 6):
            assert encoder.needs(at_level(level, (at, at + 1))) == (at * 2**level - reach, at * 2**level + reach + 1)
        assert encoder.needs(at_level(level, (-2, 70))) == (-2 * 2**level - reach, 69 * 2**level + reach + 1)
    assert encoder.needs([(0, 32), (0, 16), None, None, None, (0, 1)]) == (-31, 34)
    with pytest.raises(ValueError, match="the spans of all levels are None"):
        encoder.needs([None] * 6)


@pytest.mark.usefixtures("stand_in")
def test_tiles_of_a_timm_net_equal_the_whole() -> None:
    torch.manual_seed(6)
    encoder = make_encoder("timm:small", 2, 4, "batch").eval()
    assert worst_difference(encoder, 1280, [(0, 640), (320, 960), (640, 1280)]) == 0


@pytest.mark.usefixtures("stand_in")
def test_a_timm_net_has_the_statistics_that_its_weights_expect() -> None:
    assert make_encoder("timm:shallow", 1, 4, "none").statistics == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert make_encoder("timm:small", 1, 4, "none").statistics is None


@pytest.mark.usefixtures("stand_in")
def test_a_shallower_timm_net_has_fewer_levels() -> None:
    encoder = make_encoder("timm:shallow", 1, 4, "none")
    assert encoder.channels == (4, 4, 8, 12)
    assert len(encoder(torch.zeros(1, 1, 8, 24))) == 4
    assert encoder.needs([None, None, None, (0, 1)]) == (-7, 8)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("name", ["gated", "attentive"])
def test_a_timm_net_that_sees_the_whole_image_is_not_local(name: str) -> None:
    encoder = make_encoder(f"timm:{name}", 1, 4, "none")
    assert not encoder.local
    assert encoder.needs([None, None, None, (-1, 2)]) == (-8 - GLOBAL_CONTEXT, 16 + GLOBAL_CONTEXT)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smal", "timm 1.0.0 has no network of this name. Choose a similar name: small."),
        ("xyzzy", "timm 1.0.0 has no network of this name. List the names with timm.list_models()."),
        ("patches", "its features have strides 4, 8, 16, 32. Choose a convolutional network with features at strides"),
        ("headless", "timm cannot build an encoder from this network. Choose a convolutional network with features"),
        ("fixed", "this network does not accept images of any size. Choose a network that does, such as"),
    ],
)
def test_a_timm_net_that_does_not_fit_is_refused(name: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        make_encoder(f"timm:{name}", 1, 4, "none")
    assert str(caught.value).startswith(f"net.encoder timm:{name}: {expected}")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("headless", "features_only not implemented\nfor headless models."),
        ("fixed", "input size must be 224"),
    ],
)
def test_the_cause_of_a_refused_timm_net_is_kept(name: str, cause: str) -> None:
    with pytest.raises(InputError) as caught:
        make_encoder(f"timm:{name}", 1, 4, "none")
    assert str(caught.value.__cause__).startswith(cause)
    assert cause not in str(caught.value)


def test_without_timm_the_error_gives_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(timm_encoder, "import_module", absent)
    with pytest.raises(InputError, match=r"timm is not installed\. Run pip install 'septa\[encoders\]'\."):
        make_encoder("timm:resnet18", 1, 4, "none")


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (
            RuntimeError("operator torchvision::nms does not exist"),
            "the package timm is installed but cannot be imported",
        ),
        (
            ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
            "the package timm needs the package torchvision, which is not installed",
        ),
    ],
)
def test_a_broken_timm_is_distinguished_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, error: Exception, problem: str
) -> None:
    def broken(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(timm_encoder, "import_module", broken)
    with pytest.raises(InputError) as caught:
        make_encoder("timm:resnet18", 1, 4, "none")
    assert str(caught.value).startswith(f"net.encoder: {problem}. Install the torchvision that belongs to your torch")
    assert caught.value.__cause__ is error


# --- timm itself ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_timm() -> Iterator[None]:
    """Import the package itself.

    At import torchvision registers shapes for two operators of its own library. If the library is not built for the
    installed torch, these operators are missing, so they are declared here; they cannot be used.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        pytest.skip(f"the package {error.name} is not installed")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] in ("timm", "torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import timm
    assert timm.__version__
    forget()
    yield
    forget()


@pytest.mark.usefixtures("real_timm")
def test_timms_resnet18_is_ours() -> None:
    torch.manual_seed(7)
    ours, theirs = make_encoder("resnet18", 2, 4, "batch").eval(), make_encoder("timm:resnet18", 2, 4, "batch").eval()
    assert isinstance(theirs, TimmEncoder)
    calm(ours)
    theirs.load_state_dict(ours.state_dict())
    assert ours.channels == theirs.channels
    assert theirs.local
    assert theirs.statistics == (IMAGENET_MEAN, IMAGENET_STD)
    assert theirs.first_convolution == ours.first_convolution
    x = torch.randn(1, 2, 64, 96)
    with torch.inference_mode():
        for mine, other in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(mine, other)
    for level in range(6):
        for span in ((0, 1), (-5, 9), (3, 4)):
            assert theirs.needs(at_level(level, span)) == ours.needs(at_level(level, span))
    assert theirs.is_spare("fc.weight")
    assert not theirs.is_spare("head.weight")


@pytest.mark.usefixtures("real_timm")
def test_a_timm_net_with_squeeze_and_excitation_is_not_local() -> None:
    assert not make_encoder("timm:mobilenetv3_small_050", 1, 4, "batch").local
