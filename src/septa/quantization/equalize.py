"""Channel equalisation: channels that one layer reads get more equal ranges, and the net stays the same function.

The input of a layer is rounded to steps of one size in all channels, so that a channel of small values has few steps.
If a channel of a convolution is divided by a factor and the weights that read it are multiplied by the factor, the
function of the net is unchanged. This holds where only ReLUs, max pooling and concatenations lie between them.

References
----------
Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction" (arXiv 1906.04721),
section 4.1; here with the ranges of activations instead of those of weights.
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
"""Exponent of the factors: 0 changes nothing, 1 makes the ranges of channels equal and those of weights unequal."""
_NEGATIVE = 2.0
"""Weight of values below 0 in a range, because they take steps from the channels without negative values."""
_LEAST = 0.05
"""Smallest range of a channel, as a share of the largest; smaller ranges count as this."""


@dataclass(frozen=True)
class _Reader:
    """A convolution that reads all channels of another one, in order, as its input channels from ``start`` on."""

    conv: Any
    start: int


def equalize_channels(net: nn.Module, graph: Any, images: Sequence[NDArray[np.float32]]) -> nn.Module:
    """Return a copy of a net whose layers read channels of more equal ranges.

    The copy is the same function except for rounding.

    Parameters
    ----------
    net
        Net in evaluation mode. A convolution that a norm reads is not changed.
    graph
        OpenVINO's graph of it.
    images
        Normalised sample images ``(1, C, Y, X)``, float32, of one size on the net's grid.
    """
    equalized = copy.deepcopy(net).requires_grad_(False)
    pairs = list(match_convolutions(equalized, graph))
    convs = {op.get_friendly_name(): conv for conv, op in pairs}
    readers = {conv: list(_find_readers(op, convs)) for conv, op in pairs}
    ranges = _measure_ranges(equalized, list(readers), images)
    factors = {
        conv: _compute_factors(conv, ranges, found) for conv, found in readers.items() if found and None not in found
    }
    for conv, factor in factors.items():
        _divide(conv, factor)
        for reader in readers[conv]:
            assert reader is not None
            _multiply(reader, factor)
    return equalized


def _find_readers(op: Any, convs: dict[str, Any]) -> Iterator[_Reader | None]:
    """Yield the convolutions that read a convolution's output; None for a reader that factors cannot pass."""
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
    """Return the range of each channel that each convolution reads: the mean over images of the largest value."""
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
    """Return the divisor of each channel of a convolution, from its range among the channels that are read with it."""
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
