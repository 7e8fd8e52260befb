"""Nets in 8-bit integers: close to the float net, independent of tiles, and stored as bytes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from septa.errors import InputError, ModelError
from septa.images.normalize import Normalization
from septa.images.window import cut_mirrored
from septa.inference.engines import make_engine, torch_engine
from septa.inference.int8 import Int8
from septa.inference.predict import predict_tiles
from septa.inference.tiling import plan_tiles_for, smallest_tile_for
from septa.nets import UNet
from septa.quantization import quantizer as int8
from septa.quantization.quantizer import Quantizer

pytestmark = pytest.mark.usefixtures("one_thread")


def net_of(**settings: Any) -> UNet:
    torch.manual_seed(0)
    net = UNet(2, 3, **{"depth": 2, "width": 8, **settings}).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def made() -> tuple[UNet, Quantizer, Int8]:
    for package in ("openvino", "onnx", "nncf"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    net = net_of()
    quantizer = Quantizer(net, [noise(2, 64, 64, seed=seed) for seed in range(6)])
    return net, quantizer, quantizer.make(quantizer.layers[:1])


Made = tuple[UNet, Quantizer, Int8]


@pytest.mark.parametrize("size", [(64, 64), (37, 121), (128, 65)])
def test_logits_are_near_the_nets_but_rounded(made: Made, size: tuple[int, int], exact_sums: bool) -> None:
    net, _, quantized = made
    image = noise(2, *size, seed=9)
    expected, logits = torch_engine(net)(image), quantized.engine(net)(image)
    assert logits.shape == expected.shape
    assert logits.dtype == np.float32
    error = float(np.sqrt(np.square(logits - expected).mean())) / float(expected.std())
    assert 1e-4 < error < (0.05 if exact_sums else 0.06)  # rounded, but the same net


def test_integers_that_openvino_cannot_read_are_reported(made: Made) -> None:
    net, _, quantized = made
    broken = replace(quantized, graph=quantized.graph[:-200])
    problem, remedy = (
        r"OpenVINO \S+ cannot read its 8-bit integers",
        "Run 'septa quantize' again, or give --engine torch",
    )
    with pytest.raises(ModelError, match=rf"^model: {problem}\. {remedy}\.$"):
        broken.engine(net)(noise(2, 32, 32))


def test_integers_run_many_images_as_each_alone(made: Made) -> None:
    net, _, quantized = made
    images = [noise(2, 40, 32, seed=seed) for seed in range(3)]
    engine = quantized.engine(net)
    for image, logits in zip(images, engine.run_many(iter(images)), strict=True):
        np.testing.assert_array_equal(logits, engine(image))  # exact: one engine, one size


def test_weights_are_kept_in_eight_bits(made: Made) -> None:
    net, quantizer, quantized = made
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert len(quantized.weights) < 1.7 * parameters  # four bytes each in float32
    assert (
        quantized.layers
        == len(quantizer.layers)
        == sum(isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d) for module in net.modules())
    )
    assert len(quantizer.make(quantizer.layers).weights) > 3 * parameters  # all in float32


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(20, 260), width=st.integers(20, 260), extra=st.integers(0, 20))
def test_tiles_are_the_whole_images(made: Made, height: int, width: int, extra: int) -> None:
    net, _, quantized = made
    engine, image = quantized.engine(net), noise(2, height, width, seed=height)
    tile = smallest_tile_for(net) + extra * net.multiple
    found = np.empty((3, height, width), np.float32)

    def keep(core: tuple[slice, slice], logits_kyx: NDArray[np.float32]) -> None:
        found[(slice(None), *core)] = logits_kyx

    unit = Normalization("dataset", (0.0, 0.0), (1.0, 1.0))
    predict_tiles(engine, partial(cut_mirrored, image), unit, plan_tiles_for(net, height, width, tile), keep)
    # Exact: sums of integers do not depend on their order, so tiles promise the values of the whole image.
    np.testing.assert_array_equal(found, engine(image))


@pytest.mark.slow
def test_the_layer_that_harms_most_is_found(made: Made) -> None:
    """The channels of one layer differ by orders of magnitude, but share the scale of its output."""
    net = net_of(norm="none")
    with torch.no_grad():
        [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)][3].weight[0] *= 300
    quantizer = Quantizer(net, [noise(2, 64, 64, seed=seed) for seed in range(4)])
    ranked = quantizer.rank_layers(quantizer.layers[:1])
    assert sorted([*ranked, quantizer.layers[0]]) == sorted(quantizer.layers)
    worst, best = (quantizer.make([quantizer.layers[0], name]) for name in (ranked[0], ranked[-1]))
    image = noise(2, 64, 64, seed=20)
    expected = torch_engine(net)(image)
    errors = [float(np.square(one.engine(net)(image) - expected).mean()) for one in (worst, best)]
    assert errors[0] < 0.8 * errors[1]


def test_bytes_and_facts_come_back(made: Made) -> None:
    net, quantizer, quantized = made
    tensors = {"a weight": torch.zeros(1), **quantized.tensors()}
    again = Int8.from_tensors(quantized.to_json(), tensors)
    assert again == quantized
    assert list(tensors) == ["a weight"]
    assert again.floats == quantizer.layers[:1]
    image = noise(2, 48, 48)
    np.testing.assert_array_equal(again.engine(net)(image), quantized.engine(net)(image))


def test_an_engine_by_name_is_of_integers_or_floats(made: Made) -> None:
    net, _, quantized = made
    image = noise(2, 48, 48)
    lines: list[str] = []
    integers, floats = quantized.engine(net)(image), torch_engine(net)(image)
    for name, expected in {"openvino": integers, "auto": integers, "torch": floats}.items():
        found = make_engine(net, "cpu", name, int8=quantized, notify=lines.append)(image)
        np.testing.assert_array_equal(found, expected)
    assert lines == ["engine: openvino, which runs this model in 8-bit integers"]


@pytest.mark.parametrize("package", ["openvino", "onnx", "nncf"])
def test_a_package_that_is_missing_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(
        InputError, match=rf"^quantize: the package {package} is not installed\. Run pip install 'septa\[openvino\]'\.$"
    ):
        Quantizer(net_of(), [noise(2, 64, 64)])
