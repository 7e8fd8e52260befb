"""Channels brought to like ranges, by factors that the weights before and behind them take up.

What one layer reads is rounded to steps of one size in all its channels, so that a channel of small values has few of
them. Dividing what a convolution makes of a channel, and multiplying by as much the weights that read it, leaves the
function as it is wherever there are but ReLUs, maxima and concatenations between.

References
----------
Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction" (arXiv 1906.04721),
section 4.1; here with ranges of activations in place of those of weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from septa.quantization.graph_layers import KINDS, find_bias, find_consumers, is_crop, match_convolutions

_POWER = 0.5
"""0 leaves channels as they are, 1 makes their ranges equal at the cost of those of weights."""
_NEGATIVE = 2.0
"""How much more a value below 0 counts: it takes steps from channels that have none."""
_LEAST = 0.05
"""Ranges below this share of the largest count as this."""


@dataclass(frozen=True)
class _Reader:
    """A convolution that reads all channels of another one, in order, from ``start`` on."""

    conv: Any
    start: int


def equalize_channels(net: nn.Module, graph: Any, images: Sequence[NDArray[np.float32]]) -> nn.Module:
    """A copy of a net of the same function but for rounding, whose layers read channels of more equal ranges.

    Parameters
    ----------
    net
        In evaluation. Convolutions with a norm behind them stay as they are.
    graph
        OpenVINO's graph of it.
    images
        Normalised sample images ``1CYX`` of one size, on its grid.
    """
    made = copy.deepcopy(net).requires_grad_(False)
    pairs = list(match_convolutions(made, graph))
    convs = {op.get_friendly_name(): conv for conv, op in pairs}
    readers = {conv: list(_find_readers(op, convs)) for conv, op in pairs}
    ranges = _measure_ranges(made, list(readers), images)
    factors = {
        conv: _compute_factors(conv, ranges, found) for conv, found in readers.items() if found and None not in found
    }
    for conv, factor in factors.items():
        _divide(conv, factor)
        for reader in readers[conv]:
            assert reader is not None
            _multiply(reader, factor)
    return made


def _find_readers(op: Any, convs: dict[str, Any]) -> Iterator[_Reader | None]:
    """What reads a convolution's output; None for what does not let factors through, or is no layer that is known."""
    added = find_bias(op)
    yield from _follow(op if added is None else added[0], 0, convs)


def _follow(op: Any, start: int, convs: dict[str, Any]) -> Iterator[_Reader | None]:
    for reader, index in find_consumers(op):
        kind = reader.get_type_name()
        if kind in KINDS:
            conv = convs.get(reader.get_friendly_name())
            yield _Reader(conv, start) if conv is not None else None
        elif kind in ("Relu", "MaxPool") or (index == 0 and is_crop(reader)):
            yield from _follow(reader, start, convs)
        elif kind == "Concat" and reader.get_axis() in (1, -3):
            before = sum(reader.get_input_partial_shape(n)[1].get_length() for n in range(index))
            yield from _follow(reader, start + before, convs)
        else:
            yield None


def _measure_ranges(net: nn.Module, convs: list[Any], images: Sequence[NDArray[np.float32]]) -> dict[Any, Tensor]:
    """For each convolution the range of each channel that it reads: the largest value of an image, on average."""
    seen: dict[Any, list[Tensor]] = {conv: [] for conv in convs}

    def look(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        seen[conv].append(torch.maximum(x.amax((2, 3)), -_NEGATIVE * x.amin((2, 3))))

    hooks = [conv.register_forward_pre_hook(look) for conv in convs]
    with torch.no_grad():
        for image_bcyx in images:
            net(torch.from_numpy(image_bcyx).contiguous(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()
    return {conv: torch.cat(found).mean(0) for conv, found in seen.items() if found}


def _compute_factors(conv: Any, ranges: dict[Any, Tensor], readers: list[Any]) -> Tensor:
    """By what a convolution's channels are divided: compared with all channels that are read together with them."""
    widest = max(readers, key=lambda reader: len(ranges[reader.conv]))
    together = ranges[widest.conv]
    own = together[widest.start : widest.start + conv.out_channels]
    return (own / together.max().clamp(min=1e-30)).clamp(min=_LEAST) ** _POWER


def _divide(conv: Any, factor: Tensor) -> None:
    axis = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
    conv.weight /= _spread(factor, axis)
    if conv.bias is not None:
        conv.bias /= factor


def _multiply(reader: _Reader, factor: Tensor) -> None:
    axis = 0 if isinstance(reader.conv, nn.ConvTranspose2d) else 1
    read = reader.conv.weight.narrow(axis, reader.start, len(factor))
    read *= _spread(factor, axis)


def _spread(values: Tensor, axis: int) -> Tensor:
    return values.reshape([-1 if n == axis else 1 for n in range(4)])
