"""Memory and sizes of a net's forward pass, found by a pass without values (on PyTorch's ``meta`` device)."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_Sides = Sequence[int]

_STEADY_VALUES = 20_480
"""Number of values of a single input above which PyTorch convolves it with oneDNN on a CPU. Smaller inputs go to a
kernel that rounds differently (``use_mkldnn`` in ATen's Convolution.cpp)."""

_MANY_CHANNELS = 1024
"""Number of channels times stride from which oneDNN sums in another order for short rows of output pixels."""
_STEADY_ROW = 16
"""Number of pixels from which a row is not short. The limit was measured as 12 pixels for 1024 and 2048 channels, and
as 14 for 512 channels with stride 2."""

_OVERHEAD = 100
"""Bytes per pixel that kernels and the allocator need in addition to the activations; 20 to 110 were measured."""


@dataclass(frozen=True)
class DryRun:
    """Sizes in a forward pass over one square image.

    Attributes
    ----------
    side
        Side of the image, pixels.
    reads
        For each convolution in order: number of channels of its input, side of its input (the square root of the
        number of pixels), and its stride.
    peak
        Largest number of bytes of the image and the activations that exist at one time.
    """

    side: int
    reads: tuple[tuple[int, float, int], ...]
    peak: int

    @property
    def bytes_per_pixel(self) -> int:
        """Peak memory for each pixel of the image, bytes, including the overhead of kernels and allocator."""
        return math.ceil(self.peak / self.side**2) + _OVERHEAD


def dry_run(net: nn.Module, channels: int, side: int) -> DryRun:
    """Run a net without values on a float32 image ``(1, channels, side, side)``.

    Parameters
    ----------
    net
        Net in evaluation mode whose weights are on the ``meta`` device.
    channels
        Number of channels of the image.
    side
        Side of the image, pixels; the net must accept it.
    """
    reads: list[tuple[int, float, int]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        stride = module.stride[0] if isinstance(module, nn.Conv2d) else 1
        reads.append((inputs[0].shape[1], math.sqrt(inputs[0][0, 0].numel()), stride))

    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [module.register_forward_pre_hook(record) for module in convolutions]
    # Inference mode replaces some operators by others, whose shapes would not be intercepted.
    with torch.inference_mode(False), torch.no_grad(), _MemoryCounter() as memory:
        net(torch.empty(1, channels, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    return DryRun(side, tuple(reads), memory.peak)


def find_steady_size(small: DryRun, large: DryRun) -> tuple[int, int]:
    """Find the image size from which PyTorch's choice of CPU kernels does not depend on the size.

    It holds for a single image. An image of fewer pixels can be run as a batch of two instead; for a smaller side there
    is no remedy.

    Parameters
    ----------
    small, large
        Passes over the smallest image that the net accepts and over a larger one.

    Returns
    -------
    int
        Smallest number of pixels of the image.
    int
        Smallest side of the image, pixels.

    Notes
    -----
    The side that a convolution reads is an affine function of the image's side, ``slope * (side - lost)``. If ``lost``
    is above 0, an image of the smallest height leaves the fewest values, so its width must compensate.
    """
    pixels = 0.0
    row = 0.0
    for (channels, side, stride), (_, larger, _) in zip(small.reads, large.reads, strict=True):
        slope = (larger - side) / (large.side - small.side)
        # A layer after a mean over the image reads the same size for every image; its slope is 0.
        if slope > 0:
            lost = small.side - side / slope
            narrow = small.side * (_STEADY_VALUES / (channels * side * slope) + lost)
            pixels = max(pixels, narrow if lost > 0 else _STEADY_VALUES / (channels * slope**2))
            if channels * stride >= _MANY_CHANNELS:
                # 2 pixels are lost in a 3x3 convolution without padding.
                row = max(row, lost + (_STEADY_ROW * stride + 2) / slope)
    return math.floor(pixels) + 1, math.ceil(row)


class _MemoryCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Mode of PyTorch that counts the bytes of all arrays that exist, and their maximum.

    Attributes
    ----------
    views
        For each storage, the number of tensors that use it.
    alive, peak
        Number of bytes that exist now, and the largest number so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.views: Counter[int] = Counter()
        self.alive = 0
        self.peak = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise PyTorch loads its compiler, which takes longer than loading all of septa.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = _SHAPE_RULES.get(func, func)(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        self.peak = max(self.peak, self.alive)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        size = storage.nbytes()
        self.alive += 0 if self.views[key] else size
        self.views[key] += 1
        weakref.finalize(tensor, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.views[key] -= 1
        self.alive -= 0 if self.views[key] else size


# Shapes ---------------------------------------------------------------------------------------------------------------
# PyTorch computes the shapes of these operations by Python code that loads its compiler, which takes over a second.


def _infer_cat(parts: list[Tensor], axis: int = 0) -> Tensor:
    size = list(parts[0].shape)
    size[axis] = sum(part.shape[axis] for part in parts)
    return parts[0].new_empty(size)


def _infer_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: _Sides,
    padding: _Sides,
    dilation: _Sides,
    transposed: bool,
    output_padding: _Sides,
    groups: int,
) -> Tensor:
    if not transposed:
        sides = _count_windows(x, weight.shape[2:], stride, padding, dilation)
        return x.new_empty((x.shape[0], weight.shape[0], *sides))
    axes = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, output_padding, strict=True)
    sides = [(n - 1) * s - 2 * p + d * (k - 1) + extra + 1 for n, k, s, p, d, extra in axes]
    return x.new_empty((x.shape[0], weight.shape[1] * groups, *sides))


def _infer_pool(
    x: Tensor,
    kernel: _Sides,
    stride: _Sides = (),
    padding: _Sides = (0, 0),
    dilation: _Sides = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    if ceil_mode:
        pool = torch.ops.aten.max_pool2d_with_indices.default
        return pool(x, kernel, stride, padding, dilation, ceil_mode)  # type: ignore[no-any-return]
    size = (*x.shape[:2], *_count_windows(x, kernel, stride or kernel, padding, dilation))
    return x.new_empty(size), x.new_empty(size, dtype=torch.int64)


def _infer_norm(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0), x.new_empty(0)


def _count_windows(x: Tensor, kernel: _Sides, stride: _Sides, padding: _Sides, dilation: _Sides) -> list[int]:
    """Return the number of positions of a sliding kernel along each axis."""
    axes = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]


_SHAPE_RULES: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.cat.default: _infer_cat,
    torch.ops.aten.convolution.default: _infer_convolution,
    torch.ops.aten.max_pool2d_with_indices.default: _infer_pool,
    torch.ops.aten.native_batch_norm.default: _infer_norm,
    torch.ops.aten.native_group_norm.default: _infer_norm,
}
