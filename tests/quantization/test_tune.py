"""Tuning of integers: training computes as the engine does, and the result is closer to the float net."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from septa.errors import ResourceError
from septa.inference.engines import torch_engine
from septa.nets import UNet
from septa.quantization import tune as _tune
from septa.quantization.graph_layers import find_producer
from septa.quantization.quantizer import Quantizer

pytestmark = pytest.mark.usefixtures("one_thread")

Image = NDArray[np.float32]


def distillation(logits_bkyx: Tensor, expected_bkyx: Tensor) -> Tensor:
    return functional.cross_entropy(logits_bkyx, expected_bkyx.softmax(1))


def noise(*shape: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def quantizer_of(net: UNet, side: int = 64) -> Quantizer:
    for package in ("openvino", "onnx", "nncf"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    return Quantizer(net, [noise(2, side, side, seed=seed) for seed in range(6)])


def net_of(**settings: Any) -> UNet:
    torch.manual_seed(0)
    net = UNet(2, 3, **{"depth": 1, "width": 4, **settings}).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return net


def error(one: Image, other: Image) -> float:
    return float(np.sqrt(np.square(one - other).mean()))


def divergence(one: Image, other: Image) -> float:
    """Return the distillation loss minus its minimum, as a mean over pixels."""
    logits, expected = torch.from_numpy(one)[None], torch.from_numpy(other)[None]
    return float(distillation(logits, expected) - distillation(expected, expected))


def simulate(quantizer: Quantizer, floats: tuple[str, ...] = ()) -> tuple[_tune.Simulation, Any]:
    """Return a simulation of the graph in integers, and the graph."""
    graph = quantizer._quantize(floats)
    return _tune.Simulation(quantizer._net, quantizer._model, graph), graph


def run(net: nn.Module, image_cyx: Image) -> Image:
    with torch.inference_mode():
        return net(torch.from_numpy(image_cyx)[None])[0].numpy()


def roundings(graph: Any) -> dict[str, tuple[float, float]]:
    return {
        op.get_friendly_name(): (find_producer(op, 1).data.item(), find_producer(op, 2).data.item())
        for op in graph.get_ordered_ops()
        if op.get_type_name() == "FakeQuantize"
    }


@pytest.mark.parametrize("settings", [{}, {"padding": "valid"}, {"norm": "none"}], ids=str)
def test_what_is_trained_is_what_the_engine_computes(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, exact_sums: bool
) -> None:
    if not exact_sums:
        pytest.skip("this processor has no VNNI, so its engine saturates sums that the training does not")
    monkeypatch.setattr(_tune, "_STEPS", 40)
    net = net_of(**settings)
    side = net.valid_size(64)
    image, quantizer = noise(2, side, side, seed=9), quantizer_of(net, side)
    simulation, graph = simulate(quantizer)
    expected, errors = torch_engine(net)(image), []
    for tuned in (False, True):
        if tuned:
            simulation.tune(quantizer._images, distillation, 5)
            simulation.write()
        logits = quantizer._pack(graph, ()).engine(net)(image)
        errors.append(divergence(logits, expected))
        # Sums in another order are sometimes rounded to the neighbouring step.
        assert error(run(simulation.net, image), logits) < 0.2 * error(logits, expected)
    assert errors[1] < 0.95 * errors[0]


@pytest.mark.parametrize(
    "family",
    ["bilinear", "attention", *(pytest.param(name, marks=pytest.mark.slow) for name in ("residual", "nested"))],
    indirect=True,
)
def test_every_net_is_tuned(member: UNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tune, "_STEPS", 40)
    quantizer, image = quantizer_of(member), noise(2, 96, 64, seed=9)
    expected, ends = torch_engine(member)(image), (quantizer.layers[0], quantizer.layers[-1])
    untuned, tuned = quantizer.make(ends), quantizer.tune(distillation, 5, ends)
    assert tuned.floats == untuned.floats == ends
    errors = [divergence(one.engine(member)(image), expected) for one in (untuned, tuned)]
    assert errors[1] < 0.95 * errors[0]


def test_equal_ranges_stay_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Concatenated activations have equal ranges, or the engine could not keep them in integers; 0 stays a step."""
    monkeypatch.setattr(_tune, "_STEPS", 5)
    quantizer = quantizer_of(net_of(depth=2))
    simulation, graph = simulate(quantizer)
    before = roundings(graph)
    simulation.tune(quantizer._images, distillation, 5)
    simulation.write()
    after = roundings(graph)
    assert before.keys() == after.keys()
    assert len(set(before.values())) == len(set(after.values())) < len(before)
    for name, (low, high) in after.items():
        assert (low, high) != before[name]
        step = (high - low) / 255
        assert low / step == pytest.approx(round(low / step), abs=1e-3)
        others = {other for other in before if before[other] == before[name]}
        assert others == {other for other in after if after[other] == after[name]}


def test_layers_in_float32_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tune, "_STEPS", 3)
    quantizer = quantizer_of(net_of())
    kept = quantizer.layers[2]
    simulation, _ = simulate(quantizer, (kept,))
    simulation.tune(quantizer._images, distillation, 5)
    assert hasattr(simulation.net.get_submodule(quantizer.layers[1]), "parametrizations")
    own, other = (net.get_submodule(kept).state_dict() for net in (simulation.net, quantizer._net))
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_the_better_of_tuned_and_untuned_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tune, "_STEPS", 10)
    monkeypatch.setattr(_tune, "_RATE", 50.0)
    quantizer = quantizer_of(net_of())
    assert quantizer.tune(distillation, 5).weights == quantizer.make().weights
    monkeypatch.setattr(_tune, "_RATE", 0.08)
    monkeypatch.setattr(_tune, "_STEPS", 40)
    assert quantizer.tune(distillation, 5).weights != quantizer.make().weights


def test_out_of_memory_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(logits_bkyx: Tensor, expected_bkyx: Tensor) -> Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(
        ResourceError,
        match=r"^memory: there is not enough for tuning on patches of 64 x 64 pixels\. Give --minutes 0\.$",
    ):
        quantizer_of(net_of()).tune(fail, 5)


def test_it_ends_with_its_minutes_or_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(10**6))
    monkeypatch.setattr(_tune, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(_tune, "_STEPS", 12)
    quantizer, calls = quantizer_of(net_of()), []
    for minutes in (0.1, 5):  # each step takes a second
        quantizer.tune(distillation, minutes, (), lambda done, total: calls.append((done, total)))
    assert calls[:6] == [(3, 12), (5, 12), (7, 12), (9, 12), (11, 12), (12, 12)]
    assert calls[6:] == [*((done, 12) for done in range(1, 13)), (12, 12)]


def test_rates_rise_and_fall() -> None:
    shares = [_tune._scale_rate(done) for done in np.linspace(0, 1, 101)]
    assert shares[0] == 0
    assert max(shares) == shares[10] == 1
    assert shares[55] == pytest.approx(0.5)
    assert shares[100] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("low", [0, -98])
def test_gradients_of_a_rounding(low: int) -> None:
    """Compare with Esser et al. 2020, equation 3, value by value."""
    x = torch.linspace(-20, 40, 301).requires_grad_()
    step = torch.tensor(0.1).requires_grad_()
    upstream = torch.randn(301, generator=torch.Generator().manual_seed(0))
    rounded = _tune._Rounded.apply(x, step, low)  # type: ignore[no-untyped-call]
    (rounded * upstream).sum().backward()
    assert x.grad is not None
    assert step.grad is not None
    expected = 0.0
    for index, value in enumerate(x.tolist()):
        ratio = value / 0.1
        level = min(max(round(ratio), low), low + 255)
        inside = level == round(ratio)
        assert rounded[index].item() == pytest.approx(level * 0.1, abs=1e-4)
        assert x.grad[index].item() == (upstream[index].item() if inside else 0)
        expected += upstream[index].item() * (level - ratio if inside else level)
    assert step.grad.item() == pytest.approx(expected, rel=1e-3)


def test_weights_lie_on_their_grid() -> None:
    weights = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    grid = _tune._Grid(weights.abs().amax((1, 2, 3), keepdim=True) / 127)
    levels = grid.right_inverse(weights)
    assert torch.equal(grid.integers(levels), (weights / grid.scale).round())
    assert grid.integers(levels * 3).abs().max() == 127
    assert ((grid(levels) - weights).abs() <= grid.scale / 2 * (1 + 1e-5)).all()
    levels.requires_grad_()
    grid(levels).sum().backward()
    assert levels.grad is not None
    torch.testing.assert_close(levels.grad, grid.scale.expand_as(levels))  # gradients pass the rounding unchanged
