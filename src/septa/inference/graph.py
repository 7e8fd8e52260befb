"""A net as a graph that other engines read (ONNX bytes), and the frame around an engine."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from septa import __version__
from septa.errors import InputError, ResourceError
from septa.inference import _cache

_OPERATORS = 18
"""ONNX's version of its operators; every engine of the last years knows it."""


class Net(Protocol):
    """What must be known of a net to run its graph; `septa.nets.UNet` says what each is."""

    @property
    def in_channels(self) -> int: ...
    @property
    def multiple(self) -> int: ...
    @property
    def margin(self) -> int: ...
    def valid_size(self, size: int) -> int: ...
    def output_size(self, size: int) -> int: ...
    def padded_size(self, height: int, width: int) -> tuple[int, int]: ...


Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


# Around an engine ----------------------------------------------------------------------------------------------------


def framed(net: Net, run: Run) -> Run:
    """Pads images as the net does for itself, so that ``run`` gets sizes of its grid; crops logits, tells of memory."""

    def inner(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = (net.output_size(side) for side in image_cyx.shape[1:])
        with memory_told(image_cyx.shape):
            return np.ascontiguousarray(run(on_grid(net, image_cyx))[:, :height, :width])

    return inner


def on_grid(net: Net, image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
    """An image as the net pads it for itself, its edge repeated below and to the right."""
    if net.margin:
        return image_cyx
    size = image_cyx.shape[1:]
    behind = [(0, full - side) for side, full in zip(size, net.padded_size(*size), strict=True)]
    return np.pad(image_cyx, ((0, 0), *behind), "edge")


@contextmanager
def memory_told(shape: tuple[int, ...], what: str = "a tile", remedy: str = "give a smaller --tile") -> Iterator[None]:
    """Want of memory for so many pixels ``CYX``, however an engine says it, as ResourceError."""
    size = f"{shape[-2]} x {shape[-1]}"
    told = ResourceError("memory", f"does not suffice for {what} of {size} pixels", remedy)
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise told from error
    except Exception as error:  # the engines and torch's CPU allocator have no exception of their own
        words = str(error).replace("illegal memory access", "")
        if any(word in words for word in ("memory", "bad_alloc", "bad allocation", "Failed to allocate")):
            raise told from error
        raise


# The graph -----------------------------------------------------------------------------------------------------------


def probe_for(net: Net) -> Tensor:
    """A small image ``(1, C, Y, X)`` of noise on the net's grid, always the same."""
    side = net.valid_size(max(2, 128 // net.multiple) * net.multiple)
    return torch.randn(1, net.in_channels, side, side, generator=torch.Generator().manual_seed(0))


def graph_of(net: nn.Module, key: str = "") -> bytes:
    """The net as ONNX bytes, for images of any size of its grid; from the cache where it is there.

    Parameters
    ----------
    net
        As `septa.nets.UNet`.
    key
        Tells weights and settings from all others; nothing is kept when empty.

    Raises
    ------
    InputError
        PyTorch cannot write this net as a graph.
    """
    if not key:
        return _export(net)
    key = f"graph {__version__} {torch.__version__} {_OPERATORS} {key}"
    if (graph := _cache.find(key)) is None:
        graph = _export(net)
        _cache.keep(key, graph)
    return graph


def _export(net: nn.Module) -> bytes:
    plain = _plain(net)
    data, axes = io.BytesIO(), {2: "y", 3: "x"}
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # that sizes are constants; the frame sees to them
            torch.onnx.export(
                plain, (probe_for(net),), data, dynamo=False, input_names=["image"], output_names=["logits"],  # type: ignore[arg-type]
                dynamic_axes={"image": axes, "logits": axes}, opset_version=_OPERATORS,
            )  # fmt: skip
    except Exception as error:
        problem = f"this net cannot be written as a graph ({' '.join(str(error).split())[:200]})"
        raise InputError("--engine", problem, "give --engine torch") from error
    return data.getvalue()


def _plain(net: nn.Module) -> nn.Module:
    """A copy on the CPU whose 1x1 convolutions are PyTorch's own: a net's may be written for its CPU kernels."""
    made = copy.deepcopy(net).cpu().float().eval().requires_grad_(False)
    for name, module in list(made.named_modules()):
        if isinstance(module, nn.Conv2d) and type(module) is not nn.Conv2d and module.kernel_size == (1, 1):
            conv = nn.Conv2d(
                module.in_channels, module.out_channels, 1, module.stride, module.padding, groups=module.groups,  # type: ignore[arg-type]
                bias=module.bias is not None,
            )  # fmt: skip
            conv.weight, conv.bias = module.weight, module.bias
            parent, _, leaf = name.rpartition(".")
            setattr(made.get_submodule(parent), leaf, conv.eval())
    return made
