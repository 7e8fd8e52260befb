"""Graphs of nets (ONNX bytes) for other engines, and what all engines of graphs share."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from septa import __version__
from septa.errors import InputError, OutOfMemory, SeptaError, is_out_of_memory, unify_out_of_memory
from septa.inference import _cache
from septa.inference.protocol import Engine, NetGeometry, SingleImageEngine
from septa.nets import UNet

_OPERATORS = 18
"""Version of ONNX's operators, which every engine of the last years supports."""


# Around an engine ----------------------------------------------------------------------------------------------------


def accept_any_size(net: NetGeometry, engine: Engine) -> Engine:
    """Return an engine for images of any size, from one for images on the net's grid.

    It pads images as the net does itself, crops the logits, and raises ResourceError if the memory does not hold an
    image.
    """

    def compute(image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = (net.output_size(side) for side in image_cyx.shape[1:])
        with translate_out_of_memory(image_cyx.shape):
            return np.ascontiguousarray(engine(pad_to_grid(net, image_cyx))[:, :height, :width])

    return SingleImageEngine(compute)


def pad_to_grid(net: NetGeometry, image_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pad an image ``CYX`` as the net does itself: its edge is repeated below and to the right.

    An image for a valid net is returned unchanged.
    """
    if net.margin:
        return image_cyx
    size = image_cyx.shape[1:]
    padding = [(0, full - side) for side, full in zip(size, net.pad_size(*size), strict=True)]
    return np.pad(image_cyx, ((0, 0), *padding), "edge")


@contextmanager
def translate_out_of_memory(
    shape: tuple[int, ...], what: str = "a tile", remedy: str = "Give a smaller --tile"
) -> Iterator[None]:
    """Convert a backend's out-of-memory error to OutOfMemory.

    Parameters
    ----------
    shape
        Shape of the array that is computed; its last two axes are Y and X.
    what
        Noun for an array of this shape, such as ``a tile``.
    remedy
        Remedy of the error.

    Raises
    ------
    OutOfMemory
        Memory is exhausted.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        problem = f"there is not enough for {what} of {shape[-2]} x {shape[-1]} pixels"
        raise OutOfMemory("memory", problem, remedy) from error


@contextmanager
def translate_engine_errors(name: str) -> Iterator[None]:
    """Convert an error of the package of an engine: to MemoryError if memory is exhausted, else to InputError.

    Errors of septa are raised unchanged.
    """
    try:
        yield
    except SeptaError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise InputError(f"--engine {name}", f"{name} cannot run this net", "Give --engine torch") from error


# The graph -----------------------------------------------------------------------------------------------------------


def make_probe(net: NetGeometry) -> Tensor:
    """Return a small image ``(1, C, Y, X)`` of noise on the net's grid, which is the same at each call."""
    side = net.valid_size(max(2, 128 // net.multiple) * net.multiple)
    return torch.randn(1, net.in_channels, side, side, generator=torch.Generator().manual_seed(0))


def export_graph(net: nn.Module, key: str = "") -> bytes:
    """Export a net to ONNX, for images of any size on its grid.

    Parameters
    ----------
    net
        A `septa.nets.UNet`.
    key
        Text that identifies the weights and settings of the net. The graph is read from the user's cache, or kept
        there, under this key; if it is empty, the cache is not used.

    Returns
    -------
    bytes
        The ONNX file.

    Raises
    ------
    InputError
        PyTorch cannot export this net.
    """
    if not key:
        return _write_onnx(net)
    key = f"graph {__version__} {torch.__version__} {_OPERATORS} {key}"
    if (graph := _cache.find(key)) is None:
        graph = _write_onnx(net)
        _cache.keep(key, graph)
    return graph


def _write_onnx(net: nn.Module) -> bytes:
    try:
        return write_graph(net, make_probe(net), {"image": "YX", "logits": "YX"}, operators=_OPERATORS)  # type: ignore[arg-type]
    except (MemoryError, SeptaError):
        raise
    except Exception as error:
        raise InputError("--engine", "PyTorch cannot export this net to ONNX", "Give --engine torch") from error


def write_graph(module: nn.Module, probe_bcyx: Tensor, names: dict[str, str], *, operators: int) -> bytes:
    """Write a module with one input and one output as ONNX.

    Parameters
    ----------
    module
        Module whose operations do not depend on the size of the image, except by tensors.
    probe_bcyx
        Image ``(B, C, Y, X)`` for which it is traced.
    names
        Name of the input and of the output, each with the letters of its axes (of ``BCYX``) that may have any size.
    operators
        Version of ONNX's operators.

    Returns
    -------
    bytes
        The ONNX file.

    Raises
    ------
    InputError
        The net crops odd sizes.
    MemoryError
        Memory is exhausted.
    Exception
        PyTorch cannot export the module.
    """
    if any(isinstance(part, UNet) and part.config.odd_sizes == "crop" for part in module.modules()):
        problem = "a net that crops odd sizes (net.odd_sizes) has no graph for all sizes"
        raise InputError("net.odd_sizes", problem, "Use --engine torch, or train with net.odd_sizes=pad")
    plain = use_plain_convolutions(module)
    data = io.BytesIO()
    with unify_out_of_memory(), warnings.catch_warnings(), torch.inference_mode():
        # PyTorch warns that sizes become constants. They do so only for sizes off the grid, which never come.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            plain,
            (probe_bcyx,),
            data,  # type: ignore[arg-type]
            dynamo=False,
            input_names=[next(iter(names))],
            output_names=list(names)[1:],
            dynamic_axes={name: {"BCYX".index(axis): axis.lower() for axis in axes} for name, axes in names.items()},
            opset_version=operators,
        )
    return data.getvalue()


def use_plain_convolutions(net: nn.Module) -> nn.Module:
    """Return a copy on the CPU in which PyTorch's own 1x1 convolutions replace those made for its CPU kernels."""
    plain = copy.deepcopy(net).cpu().float().eval().requires_grad_(False)
    for name, module in list(plain.named_modules()):
        if isinstance(module, nn.Conv2d) and type(module) is not nn.Conv2d and module.kernel_size == (1, 1):
            conv = nn.Conv2d(
                module.in_channels,
                module.out_channels,
                kernel_size=1,
                stride=module.stride,  # type: ignore[arg-type]
                padding=module.padding,  # type: ignore[arg-type]
                groups=module.groups,
                bias=module.bias is not None,
            )
            conv.weight = module.weight
            conv.bias = module.bias
            parent, _, leaf = name.rpartition(".")
            setattr(plain.get_submodule(parent), leaf, conv.eval())
    return plain
