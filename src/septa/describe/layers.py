"""What a net does, layer by layer, found by sending a tensor without values through it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from septa.describe.drawing import Shape
from septa.nets import BilinearUpsample, PixelSpan, UNet

Role = Literal["convolution", "up", "pooling", "norm", "enlarge", "head", "linear", "other"]

_FIELD = "_septa_field"


@dataclass(frozen=True)
class Layer:
    """One layer at work.

    Attributes
    ----------
    name
        Path in the net, as in its state dict.
    role, kind
        What it does: in one word, and for people.
    in_shape, out_shape
        ``(C, Y, X)``; of a linear layer ``(C, 1, 1)``.
    kernel
        Pixels along x, 0 where the layer has none.
    level
        Halvings of the image's resolution so far, rounded.
    parameters
        Learned numbers; 0 for a layer that has run before.
    receptive_field
        Largest number of input pixels along one axis that can change one of its output pixels. What pools over the
        whole image is left out.
    flops
        For one image: 2 for each multiplication with addition of a convolution or linear layer; other layers 0.
    """

    name: str
    role: Role
    kind: str
    in_shape: Shape
    out_shape: Shape
    kernel: int
    level: int
    parameters: int
    receptive_field: int
    flops: int

    @property
    def block(self) -> str:
        """Path of the module that holds the layer; its own name at the top."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def megabytes(self) -> float:
        """Memory of its float32 output, 10**6 bytes."""
        return 4 * math.prod(self.out_shape) / 1e6


@dataclass(frozen=True)
class LayerTrace:
    """All layers in the order in which they run, and the shapes ``(C, Y, X)`` that the encoder hands over."""

    layers: tuple[Layer, ...]
    features: tuple[Shape, ...]


def trace_layers(net: UNet, height: int, width: int) -> LayerTrace:
    """Follow an image of a valid size through a net in evaluation, without arithmetic: all tensors are empty.

    Parameters
    ----------
    net
        Not changed.
    height, width
        Size of the image, pixels.

    Raises
    ------
    ValueError
        A size that the net refuses.
    """
    ghost = _ghost(net).eval()
    layers: list[Layer] = []
    features: list[Shape] = []
    seen: set[int] = set()

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
        field = _after(module, _field(inputs[0]))
        setattr(out, _FIELD, field)
        described = _describe(name, module)
        if described is not None:
            own = [parameter for parameter in module.parameters() if id(parameter) not in seen]
            seen.update(map(id, own))
            layers.append(
                Layer(
                    name,
                    *described,
                    in_shape=_shape(inputs[0]),
                    out_shape=_shape(out),
                    kernel=_along_x(getattr(module, "kernel_size", 0)),
                    level=round(math.log2(field.jump)),
                    parameters=sum(parameter.numel() for parameter in own),
                    receptive_field=field.width(net.multiple),
                    flops=_flops(module, inputs[0], out),
                )
            )

    def keep(_module: nn.Module, _inputs: tuple[Any, ...], out: Any) -> None:
        features.extend(_shape(feature) for feature in out)

    for name, module in ghost.named_modules():
        if not list(module.children()):
            module.register_forward_hook(partial(_hook, partial(note, name)))
    ghost.get_submodule("encoder").register_forward_hook(keep)
    image = torch.empty(1, net.in_channels, height, width, device="meta")
    setattr(image, _FIELD, _Field(Fraction(1), lambda span: span))
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_Follow())
        ghost(image)
    return LayerTrace(tuple(layers), tuple(features))


class _Field:
    """Which span of image pixels a span of a feature map depends on, and image pixels from one of its to the next."""

    def __init__(self, jump: Fraction, needs: Callable[[PixelSpan], PixelSpan]) -> None:
        self.jump = jump
        self._needs = needs
        self._known: dict[PixelSpan, PixelSpan] = {}

    def __call__(self, span: PixelSpan) -> PixelSpan:
        if span not in self._known:
            self._known[span] = self._needs(span)
        return self._known[span]

    def width(self, period: int) -> int:
        """Largest span of a single pixel; spans repeat after ``period`` pixels of the image."""
        count = max(1, math.ceil(period / self.jump))
        return max(high - low for low, high in (self((at, at + 1)) for at in range(count)))


class _Follow(TorchFunctionMode):
    """Hands the fields of arguments on to results. Layers of their own effect set theirs afterwards, in hooks."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        fields = {id(field): field for field in _fields((args, kwargs or {}))}
        results = [out] if isinstance(out, Tensor) else out if isinstance(out, list | tuple) else []
        if fields:
            field = _shifted(_union(list(fields.values())), _offset(func, args, kwargs or {}))
            for result in results:
                if isinstance(result, Tensor):
                    setattr(result, _FIELD, field)
        return out


def _ghost(net: UNet) -> UNet:
    """A copy whose parameters and buffers have shapes but no values."""
    memo: dict[int, Any] = {}
    for parameter in net.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in net.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(net, memo)


def _hook(note: Callable[..., None], module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
    note(module, inputs, out)


def _fields(values: Any) -> Iterator[_Field]:
    if isinstance(values, Tensor):
        found = getattr(values, _FIELD, None)
        if found is not None:
            yield found
    elif isinstance(values, dict):
        yield from _fields(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _fields(value)


def _field(tensor: Tensor) -> _Field:
    field: _Field = getattr(tensor, _FIELD)
    return field


def _union(fields: list[_Field]) -> _Field:
    if len(fields) == 1:
        return fields[0]

    def needs(span: PixelSpan) -> PixelSpan:
        spans = [field(span) for field in fields]
        return min(low for low, _ in spans), max(high for _, high in spans)

    return _Field(min(field.jump for field in fields), needs)


def _shifted(field: _Field, offset: int) -> _Field:
    return field if offset == 0 else _Field(field.jump, lambda span: field((span[0] + offset, span[1] + offset)))


def _offset(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Place of the result's first column in the argument: cropping and padding move it."""
    if func is functional.pad:
        return -int((args[1] if len(args) > 1 else kwargs["pad"])[0])
    if func is Tensor.__getitem__ and isinstance(args[1], tuple):
        last = args[1][-1]
        whole = Ellipsis in args[1] or len(args[1]) == args[0].ndim
        return int(last.indices(args[0].shape[-1])[0]) if whole and isinstance(last, slice) else 0
    return 0


def _after(module: nn.Module, field: _Field) -> _Field:
    """Field of what a layer returns, from the field of what it is given."""
    if isinstance(module, nn.ConvTranspose2d):
        kernel, stride, padding = (_along_x(v) for v in (module.kernel_size, module.stride, module.padding))

        def spread(span: PixelSpan) -> PixelSpan:
            return field((-((kernel - 1 - padding - span[0]) // stride), (span[1] - 1 + padding) // stride + 1))

        return _Field(field.jump / stride, spread)
    if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        kernel, stride = _along_x(module.kernel_size), _along_x(module.stride)
        reach = _along_x(getattr(module, "dilation", 1)) * (kernel - 1)
        padding = reach // 2 if module.padding == "same" else _along_x(module.padding)
        if (reach, stride) == (0, 1):
            return field

        def gather(span: PixelSpan) -> PixelSpan:
            return field((span[0] * stride - padding, (span[1] - 1) * stride - padding + reach + 1))

        return _Field(field.jump * stride, gather)
    if isinstance(module, BilinearUpsample):
        return _Field(field.jump / module.factor, lambda span: field(module.needs(span)))
    return field


def _describe(name: str, module: nn.Module) -> tuple[Role, str] | None:
    """Role and kind of a layer; None for one that is not worth a line."""
    kernel = _along_x(getattr(module, "kernel_size", 0))
    size = f"{kernel}x{kernel}"
    match module:
        case nn.ConvTranspose2d():
            return "up", f"up-convolution {size}"
        case nn.Conv2d():
            return ("head" if name.partition(".")[0].startswith("head") else "convolution"), _convolution(module, size)
        case nn.MaxPool2d():
            return "pooling", f"max pooling {size}"
        case nn.AvgPool2d():
            return None if kernel == 1 else ("pooling", f"mean pooling {size}")
        case nn.AdaptiveAvgPool2d():
            return "other", "mean over the image"
        case BilinearUpsample():
            return None if module.factor == 1 else ("enlarge", f"bilinear x{module.factor}")
        case nn.BatchNorm2d():
            return "norm", "batch norm"
        case nn.GroupNorm():
            return "norm", "instance norm" if module.num_groups == module.num_channels else "group norm"
        case nn.Linear():
            return "linear", "linear"
    return ("other", type(module).__name__) if list(module.parameters()) else None


def _convolution(conv: nn.Conv2d, size: str) -> str:
    extras = [
        *([f"stride {_along_x(conv.stride)}"] if _along_x(conv.stride) > 1 else []),
        *([f"dilation {_along_x(conv.dilation)}"] if _along_x(conv.dilation) > 1 else []),
        *([f"{conv.groups} groups"] if conv.groups > 1 else []),
    ]
    return ", ".join([f"convolution {size}", *extras])


def _flops(module: nn.Module, given: Tensor, out: Tensor) -> int:
    """Every weight of a convolution meets every pixel of its output once; of a transposed one, of its input."""
    if isinstance(module, nn.ConvTranspose2d):
        return 2 * module.weight.numel() * given.shape[-2] * given.shape[-1]
    if isinstance(module, nn.Conv2d):
        return 2 * module.weight.numel() * out.shape[-2] * out.shape[-1]
    if isinstance(module, nn.Linear):
        return 2 * module.weight.numel() * (out.numel() // out.shape[-1])
    return 0


def _shape(tensor: Tensor) -> Shape:
    shape = (*tensor.shape[1:], 1, 1)
    return int(shape[0]), int(shape[1]), int(shape[2])


def _along_x(value: Any) -> int:
    return int(value[-1]) if isinstance(value, tuple) else int(value)
