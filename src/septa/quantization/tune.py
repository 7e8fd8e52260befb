"""Tuning of integers by fake quantization, until the net in integers gives nearly the logits of the float net.

Each forward pass rounds as the engine does. Weights, on the grid of their integers, biases and the steps of
activations are learned; gradients pass rounding unchanged (straight-through). The target is the output of the float
net, so no labels are needed.

References
----------
Fake quantization: Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference" (arXiv 1712.05877), section 3. Steps: Esser et al. 2020, "Learned step size
quantization" (arXiv 1902.08153), equation 3. Float net as teacher: Hinton et al. 2015 (arXiv 1503.02531).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from septa.inference import translate_out_of_memory
from septa.quantization.graph_layers import find_bias, find_producer, is_crop, match_convolutions, set_constant

Distillation = Callable[[Tensor, Tensor], Tensor]
"""Loss from logits ``(B, K, Y, X)`` and the expected logits to a scalar; it is smallest where they agree."""
TuningProgress = Callable[[int, int], None]
"""Function that receives the number of steps done and their total."""

_LEVELS = 255
"""Number of steps from the lowest integer of an activation to the highest."""
_MOST = 127
"""Largest integer of a weight; the smallest is its negative."""
_BATCH = 2
"""Number of images of a step."""
_STEPS = 400
"""Largest number of steps."""
_WARMUP = 0.1
"""Share of the tuning that is warm-up; after it the learning rates fall along half a cosine."""
_RATE = 0.02
"""Learning rate of weights, in units of their integers, and of biases."""
_STEP_RATE = 0.0025
"""Learning rate of the logarithms of the steps."""
_PASSED = ("Concat", "MaxPool", "Reshape", "Squeeze", "Unsqueeze", "Transpose")
"""Operations between the rounding of an activation and the convolution that reads it which keep integers."""


class _Rounded(torch.autograd.Function):
    """Rounding of activations to multiples of a step, clipped to the range of 8-bit integers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.low = low
        return (x / step).round_().clamp_(low, low + _LEVELS).mul_(step)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, step = ctx.saved_tensors
        gradient = gradients[0]
        exact = x / step
        rounded = exact.round()
        inside = (rounded >= ctx.low) & (rounded <= ctx.low + _LEVELS)
        by_step = torch.where(inside, rounded - exact, rounded.clamp_(ctx.low, ctx.low + _LEVELS))
        return gradient * inside, (gradient * by_step).sum(), None


class _Range(nn.Module):
    """Rounding of the input of a layer, with a learned step."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.first = (high - low) / _LEVELS
        self.low = round(low / self.first)
        self.log = nn.Parameter(torch.zeros(()))

    @property
    def step(self) -> Tensor:
        """Distance between neighbouring values."""
        return self.first * self.log.exp()

    def forward(self, x: Tensor) -> Tensor:
        rounded: Tensor = _Rounded.apply(x, self.step, self.low)  # type: ignore[no-untyped-call]
        return rounded

    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest value."""
        return tuple((self.low + level) * self.step.item() for level in (0, _LEVELS))  # type: ignore[return-value]


class _Grid(nn.Module):
    """Parametrisation of weights as integers times a scale for each output channel."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.scale: Tensor

    def integers(self, levels: Tensor) -> Tensor:
        return levels.round().clamp(-_MOST, _MOST)

    def forward(self, levels: Tensor) -> Tensor:
        return (levels + (self.integers(levels) - levels).detach()) * self.scale

    def right_inverse(self, weights: Tensor) -> Tensor:
        return weights / self.scale


class _Units(nn.Module):
    """Parametrisation of biases in units of one activation step times the largest weight."""

    def __init__(self, unit: Tensor) -> None:
        super().__init__()
        self.register_buffer("unit", unit)
        self.unit: Tensor

    def forward(self, units: Tensor) -> Tensor:
        return units * self.unit

    def right_inverse(self, bias: Tensor) -> Tensor:
        return bias / self.unit


_Ranges = dict[tuple[float, ...], _Range]
"""Range for each pair of lowest and highest values in the graph."""


@dataclass(frozen=True)
class _Layer:
    """A convolution in integers.

    Attributes
    ----------
    conv
        Convolution of the net.
    op
        Its operation in the graph in integers.
    roundings
        Operations that round its input, all to the same range; empty if the ranges differ or a part is not rounded.
    """

    conv: Any
    op: Any
    roundings: tuple[Any, ...]


class Simulation:
    """A float net that computes as a graph in integers does, and whose weights, biases and ranges can be learned.

    Layers are matched by their weights. Layers in float32, and layers without a match, are not changed. Only the inputs
    of convolutions are rounded; OpenVINO also rounds at other places, such as additions of branches.

    Parameters
    ----------
    net
        The float net, in evaluation mode.
    floats
        OpenVINO's graph of it, before quantisation.
    integers
        OpenVINO's graph of it, after quantisation.
    """

    def __init__(self, net: nn.Module, floats: Any, integers: Any) -> None:
        self._teacher = net
        self._graph = integers
        self.net: nn.Module = copy.deepcopy(net).requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._layers = list(_match_layers(self.net, floats, integers))
        self._ranges: _Ranges = {}
        for layer in self._layers:
            _simulate_layer(layer, self._ranges)

    def tune(
        self,
        images: Sequence[NDArray[np.float32]],
        distillation: Distillation,
        minutes: float,
        progress: TuningProgress = lambda done, total: None,
    ) -> None:
        """Learn to give the logits of the float net.

        Parameters
        ----------
        images
            Normalised images ``(1, C, Y, X)``, float32, of one size on the net's grid.
        distillation
            Loss that is minimised.
        minutes
            Longest duration; the step that is running is completed.
        progress
            Function that receives the number of steps done and their total.

        Raises
        ------
        ResourceError
            The memory does not hold the activations of a step.
        """
        learned = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        steps, others = ([one for one in learned if (one.ndim == 0) == scalar] for scalar in (True, False))
        parts = [(group, rate) for group, rate in ((others, _RATE), (steps, _STEP_RATE)) if group]
        if not parts:
            return
        optimizer = torch.optim.Adam([{"params": group} for group, _ in parts])
        rng = np.random.default_rng(0)
        begin = perf_counter()
        for number in range(_STEPS):
            done = max(number / _STEPS, (perf_counter() - begin) / (60 * minutes))
            if done >= 1:
                break
            for group, (_, rate) in zip(optimizer.param_groups, parts, strict=True):
                group["lr"] = rate * _scale_rate(done)
            chosen = np.concatenate([images[n] for n in rng.integers(len(images), size=_BATCH)])
            with translate_out_of_memory(chosen.shape, "tuning on patches", "Give --minutes 0"):
                self._step(optimizer, torch.from_numpy(chosen), distillation)
            progress(round(_STEPS * done) + 1, _STEPS)
        progress(_STEPS, _STEPS)

    def _step(self, optimizer: torch.optim.Optimizer, image_bcyx: Tensor, distillation: Distillation) -> None:
        image_bcyx = image_bcyx.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            expected = self._teacher(image_bcyx)
        optimizer.zero_grad()
        distillation(self.net(image_bcyx), expected).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def write(self) -> None:
        """Write the learned weights, biases and ranges into the graph. Ranges that are equal stay equal."""
        for layer in self._layers:
            learned = layer.conv.parametrizations
            levels = learned.weight[0].integers(learned.weight.original).to(torch.int8)
            set_constant(find_producer(find_producer(layer.op, 1), 0), 0, levels.contiguous().numpy(force=True))
            if "bias" in learned and (added := find_bias(layer.op)) is not None:
                set_constant(*added[:2], layer.conv.bias.reshape(1, -1, 1, 1).numpy(force=True))
        for op in self._graph.get_ordered_ops():
            if op.get_type_name() == "FakeQuantize" and (found := self._ranges.get(_find_range(op) or ())) is not None:
                for index, end in enumerate(found.ends() * 2, 1):
                    set_constant(op, index, np.float32(end))


def _scale_rate(done: float) -> float:
    """Return the factor of the learning rates after the share ``done`` of the tuning."""
    return min(done / _WARMUP, 0.5 + 0.5 * math.cos(math.pi * (done - _WARMUP) / (1 - _WARMUP)))


# Between net and graph -----------------------------------------------------------------------------------------------


def _match_layers(net: nn.Module, floats: Any, integers: Any) -> Iterator[_Layer]:
    """Yield the convolutions that compute in integers."""
    quantized = {op.get_friendly_name(): op for op in integers.get_ordered_ops()}
    for conv, op in match_convolutions(net, floats):
        found = quantized[op.get_friendly_name()]
        if find_producer(found, 1).get_type_name() == "Multiply":
            roundings = list(_find_roundings(find_producer(found, 0)))
            agree = None not in roundings and len({_find_range(one) for one in roundings}) == 1
            yield _Layer(conv, found, tuple(roundings) if agree else ())


def _simulate_layer(layer: _Layer, ranges: _Ranges) -> None:
    """Make a layer compute as the engine does, with parameters that are learned. Equal ranges share one parameter."""
    conv = layer.conv
    scale = torch.from_numpy(find_producer(find_producer(layer.op, 1), 1).data.copy())
    parametrize.register_parametrization(conv, "weight", _Grid(scale))
    conv.parametrizations.weight.original.requires_grad_(True)
    added = None if conv.bias is None else find_bias(layer.op)
    if added is not None:
        conv.bias.data = torch.from_numpy(added[2].ravel().copy())  # quantisation may have changed it
    if not layer.roundings or (ends := _find_range(layer.roundings[0])) is None:
        return
    chosen = ranges.setdefault(ends, _Range(*ends))
    conv.rounding = chosen  # a submodule, so that its step is a parameter of the net
    conv.register_forward_pre_hook(lambda module, inputs: (chosen(inputs[0]),))
    if added is not None:
        parametrize.register_parametrization(conv, "bias", _Units(scale.flatten() * _MOST * chosen.first))
        conv.parametrizations.bias.original.requires_grad_(True)


def _find_roundings(node: Any) -> Iterator[Any]:
    """Yield the operations that round the output of a node; None where it is not rounded, or changed after it."""
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        yield node if _find_range(node) else None
    elif kind in _PASSED or is_crop(node):
        for index in range(node.get_input_size() if kind == "Concat" else 1):
            yield from _find_roundings(find_producer(node, index))
    else:
        yield None


def _find_range(rounding: Any) -> tuple[float, float] | None:
    """Return the lowest and the highest value of a rounding; None if they differ between channels."""
    lows, highs = (find_producer(rounding, index).data for index in (1, 2))
    return (lows.item(), highs.item()) if lows.size == highs.size == 1 else None
