"""The layers of a net with their sizes and costs, found by a forward pass of a tensor without values."""

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
from septa.nets import AlignedUpsample, BilinearUpsample, PixelSpan, UNet

Role = Literal["convolution", "up", "pooling", "norm", "enlarge", "head", "linear", "other"]

_FIELD = "_septa_field"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of a forward pass.

    Attributes
    ----------
    name
        Path in the net, as in its state dict.
    role
        Class of its operation, in one word.
    kind
        Description of its operation for people, such as ``convolution 3x3``.
    in_shape, out_shape
        Shapes of input and output, ``(C, Y, X)``; those of a linear layer are ``(C, 1, 1)``.
    kernel
        Size of the kernel along x, pixels; 0 for a layer without kernel.
    level
        Number of halvings of the image's resolution so far, rounded.
    parameters
        Number of learned parameters; 0 for a layer that has already run in the same pass.
    receptive_field
        Largest number of input pixels along one axis that can change one of its output pixels. Layers that pool over
        the whole image are not counted.
    flops
        Floating-point operations for one image: 2 for each multiply-add of a convolution or linear layer. Other layers
        have 0.
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
        """Path of the module that contains the layer; the layer's own name if it is at the top."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def megabytes(self) -> float:
        """Memory of its float32 output, in units of 10**6 bytes."""
        return 4 * math.prod(self.out_shape) / 1e6


@dataclass(frozen=True)
class LayerTrace:
    """Result of `trace_layers`.

    Attributes
    ----------
    layers
        All layers in the order in which they run.
    features
        Shapes ``(C, Y, X)`` of the encoder's features, level 0 first.
    """

    layers: tuple[Layer, ...]
    features: tuple[Shape, ...]


def trace_layers(net: UNet, height: int, width: int) -> LayerTrace:
    """Find the layers of a net, by a forward pass in evaluation mode without arithmetic: all tensors are empty.

    Parameters
    ----------
    net
        The net, which is not changed.
    height, width
        Size of the image, pixels; the net must accept it.

    Returns
    -------
    LayerTrace
        The layers in order, and the shapes of the encoder's features.

    Raises
    ------
    ValueError
        The net does not accept an image of this size.
    """
    empty_net = _copy_without_values(net).eval()
    layers: list[Layer] = []
    features: list[Shape] = []
    seen: set[int] = set()

    def record_layer(name: str, module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
        field = _output_field(module, _get_field(inputs[0]))
        setattr(out, _FIELD, field)
        classified = _classify_layer(name, module)
        if classified is None:
            return
        role, kind = classified
        own = [parameter for parameter in module.parameters() if id(parameter) not in seen]
        seen.update(map(id, own))
        layers.append(
            Layer(
                name=name,
                role=role,
                kind=kind,
                in_shape=_shape_of(inputs[0]),
                out_shape=_shape_of(out),
                kernel=_x_value(getattr(module, "kernel_size", 0)),
                level=round(math.log2(field.jump)),
                parameters=sum(parameter.numel() for parameter in own),
                receptive_field=field.width(net.multiple),
                flops=_count_flops(module, inputs[0], out),
            )
        )

    def record_features(_module: nn.Module, _inputs: tuple[Any, ...], out: Any) -> None:
        features.extend(_shape_of(feature) for feature in out)

    for name, module in empty_net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(partial(record_layer, name))
    empty_net.get_submodule("encoder").register_forward_hook(record_features)
    image = torch.empty(1, net.in_channels, height, width, device="meta")
    setattr(image, _FIELD, _Field(Fraction(1), lambda span: span))
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_FieldTracker())
        empty_net(image)
    return LayerTrace(tuple(layers), tuple(features))


class _Field:
    """Receptive field of a feature map.

    Calling it with a span of pixels of the map returns the span of image pixels that they depend on.

    Parameters
    ----------
    jump
        Number of image pixels from one pixel of the map to the next.
    needs
        Function that computes the span of image pixels; results are kept.
    """

    def __init__(self, jump: Fraction, needs: Callable[[PixelSpan], PixelSpan]) -> None:
        self.jump = jump
        self._needs = needs
        self._known: dict[PixelSpan, PixelSpan] = {}

    def __call__(self, span: PixelSpan) -> PixelSpan:
        if span not in self._known:
            self._known[span] = self._needs(span)
        return self._known[span]

    def width(self, period: int) -> int:
        """Return the length of the longest span of a single pixel; spans repeat after ``period`` image pixels."""
        count = max(1, math.ceil(period / self.jump))
        return max(high - low for low, high in (self((pixel, pixel + 1)) for pixel in range(count)))


class _FieldTracker(TorchFunctionMode):
    """Mode of PyTorch that gives the results of a function the fields of its arguments.

    Layers that change the field set that of their result afterwards, in hooks.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        fields = {id(field): field for field in _collect_fields((args, kwargs or {}))}
        results = [out] if isinstance(out, Tensor) else out if isinstance(out, list | tuple) else []
        if fields:
            field = _shift_field(_merge_fields(list(fields.values())), _find_offset(func, args, kwargs or {}))
            for result in results:
                if isinstance(result, Tensor):
                    setattr(result, _FIELD, field)
        return out


def _copy_without_values(net: UNet) -> UNet:
    """Return a copy whose parameters and buffers are on the meta device, so that they have shapes but no values."""
    memo: dict[int, Any] = {}
    for parameter in net.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
    for buffer in net.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(net, memo)


def _collect_fields(values: Any) -> Iterator[_Field]:
    """Yield the fields of all tensors in nested lists, tuples and dictionaries."""
    if isinstance(values, Tensor):
        found = getattr(values, _FIELD, None)
        if found is not None:
            yield found
    elif isinstance(values, dict):
        yield from _collect_fields(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _collect_fields(value)


def _get_field(tensor: Tensor) -> _Field:
    field: _Field = getattr(tensor, _FIELD)
    return field


def _merge_fields(fields: list[_Field]) -> _Field:
    if len(fields) == 1:
        return fields[0]

    def needs(span: PixelSpan) -> PixelSpan:
        spans = [field(span) for field in fields]
        return min(low for low, _ in spans), max(high for _, high in spans)

    return _Field(min(field.jump for field in fields), needs)


def _shift_field(field: _Field, offset: int) -> _Field:
    if offset == 0:
        return field
    return _Field(field.jump, lambda span: field((span[0] + offset, span[1] + offset)))


def _find_offset(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return the column of the argument that the result's first column is; cropping and padding change it."""
    if func is functional.pad:
        return -int((args[1] if len(args) > 1 else kwargs["pad"])[0])
    if func is Tensor.__getitem__ and isinstance(args[1], tuple):
        last = args[1][-1]
        whole = Ellipsis in args[1] or len(args[1]) == args[0].ndim
        return int(last.indices(args[0].shape[-1])[0]) if whole and isinstance(last, slice) else 0
    return 0


def _output_field(module: nn.Module, field: _Field) -> _Field:
    """Return the field of a layer's output, from the field of its input."""
    if isinstance(module, nn.ConvTranspose2d):
        kernel, stride, padding = (_x_value(v) for v in (module.kernel_size, module.stride, module.padding))

        def spread(span: PixelSpan) -> PixelSpan:
            return field((-((kernel - 1 - padding - span[0]) // stride), (span[1] - 1 + padding) // stride + 1))

        return _Field(field.jump / stride, spread)
    if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        kernel, stride = _x_value(module.kernel_size), _x_value(module.stride)
        reach = _x_value(getattr(module, "dilation", 1)) * (kernel - 1)
        padding = reach // 2 if module.padding == "same" else _x_value(module.padding)
        if (reach, stride) == (0, 1):
            return field

        def gather(span: PixelSpan) -> PixelSpan:
            return field((span[0] * stride - padding, (span[1] - 1) * stride - padding + reach + 1))

        return _Field(field.jump * stride, gather)
    if isinstance(module, AlignedUpsample):
        return _Field(field.jump / 2, lambda span: field(module.needs(span)))
    if isinstance(module, BilinearUpsample):
        return _Field(field.jump / module.factor, lambda span: field(module.needs(span)))
    return field


def _classify_layer(name: str, module: nn.Module) -> tuple[Role, str] | None:
    """Return role and kind of a layer; None for a layer that has no effect or no parameters to list."""
    kernel = _x_value(getattr(module, "kernel_size", 0))
    size = f"{kernel}x{kernel}"
    match module:
        case nn.ConvTranspose2d():
            return "up", f"up-convolution {size}"
        case nn.Conv2d():
            is_head = name.partition(".")[0].startswith("head")
            return ("head" if is_head else "convolution"), _describe_convolution(module, size)
        case nn.MaxPool2d():
            return "pooling", f"max pooling {size}"
        case nn.AvgPool2d():
            return None if kernel == 1 else ("pooling", f"mean pooling {size}")
        case nn.AdaptiveAvgPool2d():
            return "other", "mean over the image"
        case AlignedUpsample():
            return "enlarge", "bilinear x2, aligned"
        case BilinearUpsample():
            return None if module.factor == 1 else ("enlarge", f"bilinear x{module.factor}")
        case nn.BatchNorm2d():
            return "norm", "batch norm"
        case nn.GroupNorm():
            return "norm", "instance norm" if module.num_groups == module.num_channels else "group norm"
        case nn.Linear():
            return "linear", "linear"
    return ("other", type(module).__name__) if list(module.parameters()) else None


def _describe_convolution(conv: nn.Conv2d, size: str) -> str:
    parts = [f"convolution {size}"]
    if _x_value(conv.stride) > 1:
        parts.append(f"stride {_x_value(conv.stride)}")
    if _x_value(conv.dilation) > 1:
        parts.append(f"dilation {_x_value(conv.dilation)}")
    if conv.groups > 1:
        parts.append(f"{conv.groups} groups")
    return ", ".join(parts)


def _count_flops(module: nn.Module, x: Tensor, out: Tensor) -> int:
    """Return the floating-point operations of a layer for one image.

    Every weight of a convolution is used once for each pixel of its output; of a transposed one, of its input.
    """
    if isinstance(module, nn.ConvTranspose2d):
        return 2 * module.weight.numel() * x.shape[-2] * x.shape[-1]
    if isinstance(module, nn.Conv2d):
        return 2 * module.weight.numel() * out.shape[-2] * out.shape[-1]
    if isinstance(module, nn.Linear):
        return 2 * module.weight.numel() * (out.numel() // out.shape[-1])
    return 0


def _shape_of(tensor: Tensor) -> Shape:
    shape = (*tensor.shape[1:], 1, 1)
    return int(shape[0]), int(shape[1]), int(shape[2])


def _x_value(value: Any) -> int:
    """Return the value along x of a parameter such as a stride, which may be one number for all axes."""
    return int(value[-1]) if isinstance(value, tuple) else int(value)
