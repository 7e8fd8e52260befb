"""Convolutional networks of the package timm as encoders. Their receptive fields are measured."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from septa.errors import InputError
from septa.nets.blocks import ConvBlock, PixelSpan, initialize_weights

STRIDES = (2, 4, 8, 16, 32)
GLOBAL_CONTEXT = 192
"""Context around a tile, pixels, for a network that no context makes exact: that of a U-Net with five poolings."""

_PROBE_SIZES = (512, 1024, 2048, 4096)
ReceptiveFields = tuple[tuple[PixelSpan, ...], ...]
"""For each level and each phase of its pixels: the span of input pixels that pixel o depends on, minus stride * o."""


class TimmEncoder(nn.Module):
    """Network of timm as the contracting path of a U-Net, with an additional block (``stem``) at full resolution.

    Parameters
    ----------
    name
        Name in timm, such as ``resnet34d`` or ``tf_efficientnet_lite0``. Its features must have strides 2, 4, 8, ...
    in_channels
        Number of channels of the image.
    width, norm
        Number of channels and norm of level 0; ``body`` keeps those of timm.

    Attributes
    ----------
    channels : tuple of int
        Number of channels of the features, level 0 first.
    local : bool
        True if the features depend on a bounded neighbourhood only. False with global pooling (squeeze-and-excitation,
        some norms) or attention; tiles are then not exact.
    first_convolution : str
        Name inside ``body`` of the weight of the convolution that reads the image.
    statistics : tuple or None
        Mean and standard deviation of red, green and blue that the published weights expect, if timm states them.

    Raises
    ------
    InputError
        timm is missing or broken, has no network of this name, or the network has no features at the required strides.
    """

    def __init__(self, name: str, in_channels: int, width: int, norm: str) -> None:
        super().__init__()
        self.name = name
        self.stem = ConvBlock(in_channels, width, norm)
        initialize_weights(self.stem)
        self.body = _create_body(name, in_channels)
        self.channels = (width, *self.body.feature_info.channels())
        self.first_convolution = _find_first_convolution(self.body)
        self.statistics = _read_statistics(self.body)
        self._fields = _measure_fields(name)
        self.local = self._fields is not None

    def forward(self, x_bcyx: Tensor) -> list[Tensor]:
        """Compute the features of images ``(B, in_channels, Y, X)``, level 0 first.

        Y and X must be multiples of the largest stride.
        """
        return [self.stem(x_bcyx), *self.body(x_bcyx)]

    def needs(self, spans: Sequence[PixelSpan | None]) -> PixelSpan:
        """Return the input span that the given spans of the features depend on together, along one axis.

        ``spans`` has one entry for each level; None if nothing of that level is needed. For a network that is not
        `local` the result is a neighbourhood of fixed size.
        """
        found = [] if spans[0] is None else [self.stem.needs(spans[0])]
        found += [self._level_needs(level, span) for level, span in enumerate(spans) if level > 0 and span is not None]
        if not found:
            raise ValueError("the spans of all levels are None")
        return min(low for low, _ in found), max(high for _, high in found)

    def _level_needs(self, level: int, span: PixelSpan) -> PixelSpan:
        stride = STRIDES[level - 1]
        if self._fields is None:
            return stride * span[0] - GLOBAL_CONTEXT, stride * span[1] + GLOBAL_CONTEXT
        phases = self._fields[level - 1]
        low, high = span
        lows = [stride * at + phases[at % len(phases)][0] for at in range(low, min(high, low + len(phases)))]
        highs = [stride * at + phases[at % len(phases)][1] for at in range(max(low, high - len(phases)), high)]
        return min(lows), max(highs)

    def is_spare(self, name: str) -> bool:
        """Return True for a tensor of published weights that the encoder does not use.

        These are the tensors of the classifier and of the layers that lead to it.
        """
        return name in _list_tensors(self.name)


def _read_statistics(body: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and standard deviation of red, green and blue that timm states for its weights, if it does."""
    config: Any = getattr(body, "pretrained_cfg", None) or {}
    mean, std = config.get("mean"), config.get("std")
    return (tuple(map(float, mean)), tuple(map(float, std))) if mean and std else None


def _import_timm() -> Any:
    try:
        return import_module("timm")
    except (ImportError, RuntimeError, OSError) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing == "timm":
            problem = "the package timm is not installed"
            raise InputError("net.encoder", problem, "Run pip install 'septa[encoders]'") from None
        problem = "the package timm is installed but cannot be imported"
        if missing is not None:
            problem = f"the package timm needs the package {missing}, which is not installed"
        remedy = "Install the torchvision that belongs to your torch, or choose resnet18, resnet34 or resnet50"
        raise InputError("net.encoder", problem, remedy) from error


def _create_body(name: str, in_channels: int) -> Any:
    timm = _import_timm()
    where = f"net.encoder timm:{name}"
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=3)
        remedy = f"Choose a similar name: {', '.join(close)}" if close else "List the names with timm.list_models()"
        raise InputError(where, f"timm {timm.__version__} has no network of this name", remedy)
    remedy = "Choose a convolutional network with features at strides 2, 4, 8, 16 and 32, such as timm:resnet34d"
    try:
        body = timm.create_model(name, pretrained=False, features_only=True, in_chans=in_channels)
        strides = tuple(body.feature_info.reduction())
    except (RuntimeError, AttributeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise InputError(where, "timm cannot build an encoder from this network", remedy) from error
    if not strides or strides != STRIDES[: len(strides)]:
        raise InputError(where, f"its features have strides {', '.join(map(str, strides))}", remedy)
    return body


def _find_first_convolution(body: nn.Module) -> str:
    for name, module in body.named_modules():
        if isinstance(module, nn.Conv2d):
            return f"{name}.weight"
    return ""


@cache
def _list_tensors(name: str) -> frozenset[str]:
    """Return the names of all tensors of a classification network."""
    with torch.device("meta"):
        return frozenset(_import_timm().create_model(name, pretrained=False).state_dict())


@cache
def _measure_fields(name: str) -> ReceptiveFields | None:
    """Measure which input pixels the features of a network depend on.

    One column of the image is set to NaN. Every operation propagates NaN whatever the weights are, so the features that
    become NaN are those that depend on this column. A network is periodic in its largest stride, so that as many
    columns are sufficient. The result is None if a column reaches the border of the largest image tried, or if the
    network has attention, whose windows do not move with the tile.

    Raises
    ------
    InputError
        The network does not accept images of any size.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        body = _create_body(name, 1).eval()
        if any("attention" in type(module).__name__.lower() for module in body.modules()):
            return None
        try:
            for size in _PROBE_SIZES:
                across = _measure_axis(body, size, 3)
                down = None if across is None else _measure_axis(body, size, 2)
                if across is not None and down is not None:
                    return _unite_fields(across, down)
        except (RuntimeError, AssertionError, ValueError) as error:
            problem = "this network does not accept images of any size"
            remedy = "Choose a network that does, such as timm:resnet34d"
            raise InputError(f"net.encoder timm:{name}", problem, remedy) from error
    return None


@torch.inference_mode()
def _measure_axis(body: Any, size: int, axis: int) -> ReceptiveFields | None:
    """Measure the spans along one axis (2 or 3); None if they reach the border of an image of this size."""
    period = int(max(body.feature_info.reduction()))
    strides = [int(stride) for stride in body.feature_info.reduction()]
    low = [[size] * (period // stride) for stride in strides]
    high = [[-size] * (period // stride) for stride in strides]
    first, last = size // 2, size // 2 + period - 1
    # The outermost columns come first, since they show soonest that the image is too small.
    for at in (first, last, *range(first + 1, last)):
        image = torch.zeros(1, 1, *((size, period) if axis == 2 else (period, size)))
        image.select(axis, at).fill_(torch.nan)
        for level, feature in enumerate(body(image)):
            reached = feature[0].isnan().any(0).any(3 - axis).nonzero().flatten().tolist()
            if not reached:
                continue
            if reached[0] == 0 or reached[-1] == feature.shape[axis] - 1:
                return None
            for pixel in reached:
                phase = pixel % len(low[level])
                offset = at - strides[level] * pixel
                low[level][phase] = min(low[level][phase], offset)
                high[level][phase] = max(high[level][phase], offset + 1)
    return tuple(tuple(zip(*spans, strict=True)) for spans in zip(low, high, strict=True))


def _unite_fields(across: ReceptiveFields, down: ReceptiveFields) -> ReceptiveFields:
    return tuple(
        tuple((min(x[0], y[0]), max(x[1], y[1])) for x, y in zip(spans_x, spans_y, strict=True))
        for spans_x, spans_y in zip(across, down, strict=True)
    )
