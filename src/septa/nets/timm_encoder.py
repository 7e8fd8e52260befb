"""Any convolutional net of the package timm as an encoder. Its receptive field is measured."""

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
REACH_OF_A_NET_THAT_POOLS = 192
"""Context read around a tile, pixels, where no context makes it exact; that of the plain U-Net with five poolings."""

_PROBES = (512, 1024, 2048, 4096)
Reach = tuple[tuple[PixelSpan, ...], ...]


class TimmEncoder(nn.Module):
    """A net of timm as the contracting path of a U-Net, a block of its own (``stem``) at full resolution before it.

    Parameters
    ----------
    name
        Name in timm, such as ``resnet34d`` or ``tf_efficientnet_lite0``; its features must have strides 2, 4, 8, ...
    in_channels
        Channels of the image.
    width, norm
        Channels and norm of level 0; ``body`` keeps timm's own.

    Attributes
    ----------
    channels : tuple of int
        Channels of the features, level 0 first.
    local : bool
        Whether features depend on a bounded neighbourhood only: false with global pooling (squeeze and excitation,
        some norms) or attention. Tiles are then not exact.
    first_convolution : str
        Name inside ``body`` of the convolution that reads the image.

    Raises
    ------
    InputError
        timm is missing or broken, has no such net, or the net gives no features of the needed strides.
    """

    def __init__(self, name: str, in_channels: int, width: int, norm: str) -> None:
        super().__init__()
        self.name = name
        self.stem = ConvBlock(in_channels, width, norm)
        initialize_weights(self.stem)
        self.body = _create(name, in_channels)
        self.channels = (width, *self.body.feature_info.channels())
        self.first_convolution = _first_convolution(self.body)
        self.statistics = _statistics(self.body)
        self._reach = _measure(name)
        self.local = self._reach is not None

    def forward(self, x_bcyx: Tensor) -> list[Tensor]:
        """Features of images ``(B, in_channels, Y, X)``, Y and X multiples of the largest stride; level 0 first."""
        return [self.stem(x_bcyx), *self.body(x_bcyx)]

    def needs(self, spans: Sequence[PixelSpan | None]) -> PixelSpan:
        """Span of input pixels that the given span of each level's feature depends on, along one axis.

        ``spans`` has an entry for each level, None where nothing of it is needed. For a net that is not `local` it is
        a neighbourhood of fixed size.
        """
        found = [] if spans[0] is None else [self.stem.needs(spans[0])]
        found += [self._level_needs(level, span) for level, span in enumerate(spans) if level > 0 and span is not None]
        if not found:
            raise ValueError("no level's span is given")
        return min(low for low, _ in found), max(high for _, high in found)

    def _level_needs(self, level: int, span: PixelSpan) -> PixelSpan:
        stride = STRIDES[level - 1]
        if self._reach is None:
            return stride * span[0] - REACH_OF_A_NET_THAT_POOLS, stride * span[1] + REACH_OF_A_NET_THAT_POOLS
        phases = self._reach[level - 1]
        low, high = span
        lows = [stride * at + phases[at % len(phases)][0] for at in range(low, min(high, low + len(phases)))]
        highs = [stride * at + phases[at % len(phases)][1] for at in range(max(low, high - len(phases)), high)]
        return min(lows), max(highs)

    def is_spare(self, name: str) -> bool:
        """Whether published weights may hold this tensor though the encoder has no place for it: the classifier and
        what leads to it."""
        return name in _whole_names(self.name)


def _statistics(body: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of red, green and blue that timm says its weights expect; None if it says nothing."""
    told: Any = getattr(body, "pretrained_cfg", None) or {}
    mean, std = told.get("mean"), told.get("std")
    return (tuple(map(float, mean)), tuple(map(float, std))) if mean and std else None


def _timm() -> Any:
    try:
        return import_module("timm")
    except ModuleNotFoundError as error:
        if error.name == "timm":
            remedy = "pip install 'septa[encoders]'"
            raise InputError("net.encoder", "the package timm is not installed", remedy) from None
        problem: Exception = error
    except (ImportError, RuntimeError, OSError) as error:
        problem = error
    reason = " ".join(str(problem).split())
    remedy = "install the torchvision that belongs to your torch, or choose resnet18, resnet34 or resnet50"
    raise InputError("net.encoder", f"the package timm cannot be imported ({reason})", remedy) from None


def _create(name: str, in_channels: int) -> Any:
    timm, where = _timm(), f"net.encoder timm:{name}"
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=3)
        remedy = f"similar names: {', '.join(close)}" if close else "timm.list_models() lists its names"
        raise InputError(where, f"timm {timm.__version__} has no such net", remedy)
    remedy = "choose a convolutional net with features at strides 2, 4, 8, 16, 32, such as timm:resnet34d"
    try:
        body = timm.create_model(name, pretrained=False, features_only=True, in_chans=in_channels)
        strides = tuple(body.feature_info.reduction())
    except (RuntimeError, AttributeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise InputError(where, f"timm makes no feature encoder of this net ({reason})", remedy) from None
    if not strides or strides != STRIDES[: len(strides)]:
        raise InputError(where, f"its features have strides {', '.join(map(str, strides))}", remedy)
    return body


def _first_convolution(body: nn.Module) -> str:
    for name, module in body.named_modules():
        if isinstance(module, nn.Conv2d):
            return f"{name}.weight"
    return ""


@cache
def _whole_names(name: str) -> frozenset[str]:
    """Names of all tensors of the classification net."""
    with torch.device("meta"):
        return frozenset(_timm().create_model(name, pretrained=False).state_dict())


@cache
def _measure(name: str) -> Reach | None:
    """For each level and each phase of its pixels: the span of input pixels that pixel ``o`` needs, less stride * o.

    A column of the image is made NaN, which every operation passes on whatever the weights are: the features that
    become NaN are those that depend on it. A net repeats itself at its largest stride, so that as many columns tell
    everything. None where a column reaches the border of the largest image tried, or the net has attention, whose
    windows do not move with the tile.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        body = _create(name, 1).eval()
        if any("attention" in type(module).__name__.lower() for module in body.modules()):
            return None
        try:
            for size in _PROBES:
                if (across := _probe(body, size, 3)) is not None and (down := _probe(body, size, 2)) is not None:
                    return _both(across, down)
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = " ".join(str(error).split())
            remedy = "choose a net that takes images of any size, such as timm:resnet34d"
            raise InputError(f"net.encoder timm:{name}", f"the net cannot be run ({reason})", remedy) from None
    return None


@torch.inference_mode()
def _probe(body: Any, size: int, axis: int) -> Reach | None:
    """Spans along one axis (2 or 3), or None where they reach the border of an image of that size."""
    period = int(max(body.feature_info.reduction()))
    strides = [int(stride) for stride in body.feature_info.reduction()]
    low = [[size] * (period // stride) for stride in strides]
    high = [[-size] * (period // stride) for stride in strides]
    first, last = size // 2, size // 2 + period - 1
    for at in (first, last, *range(first + 1, last)):  # the outermost tell soonest that the image is too small
        image = torch.zeros(1, 1, *((size, period) if axis == 2 else (period, size)))
        image.select(axis, at).fill_(torch.nan)
        for level, feature in enumerate(body(image)):
            reached = feature[0].isnan().any(0).any(3 - axis).nonzero().flatten().tolist()
            if not reached:
                continue
            if reached[0] == 0 or reached[-1] == feature.shape[axis] - 1:
                return None
            for pixel in reached:
                phase, offset = pixel % len(low[level]), at - strides[level] * pixel
                low[level][phase] = min(low[level][phase], offset)
                high[level][phase] = max(high[level][phase], offset + 1)
    return tuple(tuple(zip(*spans, strict=True)) for spans in zip(low, high, strict=True))


def _both(a: Reach, b: Reach) -> Reach:
    return tuple(
        tuple((min(x[0], y[0]), max(x[1], y[1])) for x, y in zip(one, other, strict=True))
        for one, other in zip(a, b, strict=True)
    )
