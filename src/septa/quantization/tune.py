"""Layers in integers, tuned until the net gives what it gives in float32.

Every pass rounds as the engine will. Weights move on the grid of their integers, and with them biases and the steps of
activations; gradients pass rounding as if it were not there. What shall come out is what the float net gives, so no
labels are needed.

References
----------
Simulated rounding: Jacob et al. 2018, "Quantization and training of neural networks for efficient
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
"""From logits ``BKYX`` and those that they should be to a scalar that is least where they agree."""
Progress = Callable[[int, int], None]

_LEVELS = 255
"""Steps from the lowest integer of an activation to its highest."""
_MOST = 127
"""Largest integer of a weight; the lowest is its negative."""
_BATCH = 2
_STEPS = 400
_WARMUP = 0.1
"""Share of the tuning in which learning rates rise; then they fall as half a cosine."""
_RATE = 0.02
"""Learning rate of weights, in integers, and of biases."""
_STEP_RATE = 0.0025
"""Learning rate of the logarithm of steps."""
_PASSED = ("Concat", "MaxPool", "Reshape", "Squeeze", "Unsqueeze", "Transpose")
"""What leaves integers as they are, between an activation's rounding and the convolution that reads it."""


class _Rounded(torch.autograd.Function):
    """Activations on their grid: multiples of a step, from the lowest to the highest that 8 bits hold."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.low = low
        return (x / step).round_().clamp_(low, low + _LEVELS).mul_(step)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x, step), gradient = ctx.saved_tensors, gradients[0]
        exact = x / step
        rounded = exact.round()
        inside = (rounded >= ctx.low) & (rounded <= ctx.low + _LEVELS)
        by_step = torch.where(inside, rounded - exact, rounded.clamp_(ctx.low, ctx.low + _LEVELS))
        return gradient * inside, (gradient * by_step).sum(), None


class _Range(nn.Module):
    """Rounds what comes into a layer, by a step that is learned."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.first = (high - low) / _LEVELS
        self.low = round(low / self.first)
        self.log = nn.Parameter(torch.zeros(()))

    @property
    def step(self) -> Tensor:
        return self.first * self.log.exp()

    def forward(self, x: Tensor) -> Tensor:
        rounded: Tensor = _Rounded.apply(x, self.step, self.low)  # type: ignore[no-untyped-call]
        return rounded

    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        return tuple((self.low + level) * self.step.item() for level in (0, _LEVELS))  # type: ignore[return-value]


class _Grid(nn.Module):
    """Weights as integers times a scale for each channel that they make."""

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
    """Biases in units of what one step of an activation changes at the largest weight."""

    def __init__(self, unit: Tensor) -> None:
        super().__init__()
        self.register_buffer("unit", unit)
        self.unit: Tensor

    def forward(self, units: Tensor) -> Tensor:
        return units * self.unit

    def right_inverse(self, bias: Tensor) -> Tensor:
        return bias / self.unit


_Ranges = dict[tuple[float, ...], _Range]
"""By the lowest and highest values that the graph had for them."""


@dataclass(frozen=True)
class _Layer:
    """A convolution of the net, and the operation that it is in the graph of integers.

    ``roundings``: the operations that round what comes into it, all to the same range; none where that is not so.
    """

    conv: Any
    op: Any
    roundings: tuple[Any, ...]


class Simulation:
    """A float net that computes what a graph in integers does, and whose weights, biases and ranges can be learned.

    Layers are found by their weights; those in float32, and those that are not found, stay floats. What is rounded
    elsewhere than before a convolution, as where branches are added, is not.

    Parameters
    ----------
    net
        The float net, in evaluation.
    floats, integers
        OpenVINO's graphs of it, before and after quantisation.
    """

    def __init__(self, net: nn.Module, floats: Any, integers: Any) -> None:
        self._teacher, self._graph = net, integers
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
        progress: Progress = lambda done, total: None,
    ) -> None:
        """Learn to give what the float net gives.

        Parameters
        ----------
        images
            Normalised images ``1CYX`` of one size, on the net's grid.
        distillation
            What is made small.
        minutes
            It may take, beside the last of its steps.
        progress
            Is told the steps done and their number.

        Raises
        ------
        ResourceError
            The memory does not suffice.
        """
        learned = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        steps, others = ([one for one in learned if (one.ndim == 0) == scalar] for scalar in (True, False))
        parts = [(group, rate) for group, rate in ((others, _RATE), (steps, _STEP_RATE)) if group]
        if not parts:
            return
        optimizer = torch.optim.Adam([{"params": group} for group, _ in parts])
        rng, begin = np.random.default_rng(0), perf_counter()
        for number in range(_STEPS):
            done = max(number / _STEPS, (perf_counter() - begin) / (60 * minutes))
            if done >= 1:
                break
            for group, (_, rate) in zip(optimizer.param_groups, parts, strict=True):
                group["lr"] = rate * _scale_rate(done)
            chosen = np.concatenate([images[n] for n in rng.integers(len(images), size=_BATCH)])
            with translate_out_of_memory(chosen.shape, "tuning on patches", "give --minutes 0"):
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
        """Put what was learned into the graph. Ranges that are one stay one."""
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
    """Of the learning rate, after this share of the tuning."""
    return min(done / _WARMUP, 0.5 + 0.5 * math.cos(math.pi * (done - _WARMUP) / (1 - _WARMUP)))


# Between net and graph -----------------------------------------------------------------------------------------------


def _match_layers(net: nn.Module, floats: Any, integers: Any) -> Iterator[_Layer]:
    """The layers in integers."""
    quantized = {op.get_friendly_name(): op for op in integers.get_ordered_ops()}
    for conv, op in match_convolutions(net, floats):
        found = quantized[op.get_friendly_name()]
        if find_producer(found, 1).get_type_name() == "Multiply":
            roundings = list(_find_roundings(find_producer(found, 0)))
            agree = None not in roundings and len({_find_range(one) for one in roundings}) == 1
            yield _Layer(conv, found, tuple(roundings) if agree else ())


def _simulate_layer(layer: _Layer, ranges: _Ranges) -> None:
    """Let a layer compute as the engine does, and its parameters be learned. Ranges that are one stay one."""
    conv = layer.conv
    scale = torch.from_numpy(find_producer(find_producer(layer.op, 1), 1).data.copy())
    parametrize.register_parametrization(conv, "weight", _Grid(scale))
    conv.parametrizations.weight.original.requires_grad_(True)
    added = None if conv.bias is None else find_bias(layer.op)
    if added is not None:
        conv.bias.data = torch.from_numpy(added[2].ravel().copy())  # that of integers may differ
    if not layer.roundings or (ends := _find_range(layer.roundings[0])) is None:
        return
    chosen = ranges.setdefault(ends, _Range(*ends))
    conv.rounding = chosen  # a module within, so that its step is one of the net's parameters
    conv.register_forward_pre_hook(lambda module, inputs: (chosen(inputs[0]),))
    if added is not None:
        parametrize.register_parametrization(conv, "bias", _Units(scale.flatten() * _MOST * chosen.first))
        conv.parametrizations.bias.original.requires_grad_(True)


def _find_roundings(node: Any) -> Iterator[Any]:
    """The operations that round what a node gives; None where it is not rounded, or changed afterwards."""
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        yield node if _find_range(node) else None
    elif kind in _PASSED or is_crop(node):
        for index in range(node.get_input_size() if kind == "Concat" else 1):
            yield from _find_roundings(find_producer(node, index))
    else:
        yield None


def _find_range(rounding: Any) -> tuple[float, float] | None:
    """The lowest and the highest value that it lets through; None where channels differ in that."""
    lows, highs = (find_producer(rounding, index).data for index in (1, 2))
    return (lows.item(), highs.item()) if lows.size == highs.size == 1 else None
