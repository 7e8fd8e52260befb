"""Facts of a net's pass told from the pass itself, run without values (on PyTorch's ``meta`` device)."""

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
"""PyTorch on a CPU convolves a single input of more values with oneDNN, others with a kernel that rounds otherwise
(``use_mkldnn`` in ATen's Convolution.cpp)."""


_MANY_CHANNELS, _STEADY_ROW = 1024, 16
"""oneDNN convolves so many channels (times the stride) into rows of fewer pixels in another order: measured were 12 for
1024 and 2048 channels, and 14 for 512 with stride 2."""

_BESIDE = 100
"""Bytes per pixel of kernels' copies and of the allocator beside the activations: measured were 20 to 110."""


@dataclass(frozen=True)
class DryRun:
    """What a pass over one image does.

    Attributes
    ----------
    side
        Side of the image.
    reads
        Channels and side (the square root of the pixels) of what each convolution reads, in order, and its stride.
    peak
        Largest number of bytes of image and activations alive at one time.
    """

    side: int
    reads: tuple[tuple[int, float, int], ...]
    peak: int

    @property
    def bytes_per_pixel(self) -> int:
        """Memory at the peak for each pixel of the image, with what is taken beside the activations."""
        return math.ceil(self.peak / self.side**2) + _BESIDE


def dry_run(net: nn.Module, channels: int, side: int) -> DryRun:
    """Run ``net``, whose weights are on the ``meta`` device, on an image ``(1, channels, side, side)`` of float32."""
    reads: list[tuple[int, float, int]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        stride = module.stride[0] if isinstance(module, nn.Conv2d) else 1
        reads.append((inputs[0].shape[1], math.sqrt(inputs[0][0, 0].numel()), stride))

    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [module.register_forward_pre_hook(note) for module in convolutions]
    with torch.inference_mode(False), torch.no_grad(), _Memory() as memory:  # where operators are other ones
        net(torch.empty(1, channels, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    return DryRun(side, tuple(reads), memory.peak)


def find_steady_size(small: DryRun, large: DryRun) -> tuple[int, int]:
    """Pixels of an image, and its side, from which on PyTorch's CPU kernels for one image no longer depend on its size.

    A single image of fewer pixels may run as a batch of two; nothing helps where the side is less.

    Parameters
    ----------
    small, large
        Passes over the smallest image and over a larger one. The side that a convolution reads is affine in the
        image's, ``slope * (side - lost)``; where something is lost, long narrow images leave it the fewest values, so
        the width has to make up for the smallest height.
    """
    pixels, row = 0.0, 0.0
    for (channels, side, stride), (_, larger, _) in zip(small.reads, large.reads, strict=True):
        slope = (larger - side) / (large.side - small.side)
        if slope > 0:  # a layer behind a mean over the image reads the same at every size
            lost = small.side - side / slope
            narrow = small.side * (_STEADY_VALUES / (channels * side * slope) + lost)
            pixels = max(pixels, narrow if lost > 0 else _STEADY_VALUES / (channels * slope**2))
            if channels * stride >= _MANY_CHANNELS:
                row = max(row, lost + (_STEADY_ROW * stride + 2) / slope)  # 2: what a 3x3 convolution takes off
    return math.floor(pixels) + 1, math.ceil(row)


class _Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all arrays that are made and not yet freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.views: Counter[int] = Counter()
        self.alive = self.peak = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch loads its compiler, which takes longer than all of septa

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = _SHAPED.get(func, func)(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        self.peak = max(self.peak, self.alive)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        self.alive += 0 if self.views[key] else size
        self.views[key] += 1
        weakref.finalize(tensor, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.views[key] -= 1
        self.alive -= 0 if self.views[key] else size


# Shapes ---------------------------------------------------------------------------------------------------------------
# PyTorch tells the shapes of these operations by Python code that loads its compiler, which takes a second and more.


def _cat(parts: list[Tensor], axis: int = 0) -> Tensor:
    size = list(parts[0].shape)
    size[axis] = sum(part.shape[axis] for part in parts)
    return parts[0].new_empty(size)


def _convolution(
    x: Tensor, weight: Tensor, bias: Any, stride: _Sides, padding: _Sides, dilation: _Sides, transposed: bool,
    beyond: _Sides, groups: int,
) -> Tensor:  # fmt: skip
    if not transposed:
        return x.new_empty((x.shape[0], weight.shape[0], *_slid(x, weight.shape[2:], stride, padding, dilation)))
    axes = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, beyond, strict=True)
    sides = [(n - 1) * s - 2 * p + d * (k - 1) + b + 1 for n, k, s, p, d, b in axes]
    return x.new_empty((x.shape[0], weight.shape[1] * groups, *sides))


def _pool(
    x: Tensor, kernel: _Sides, stride: _Sides = (), padding: _Sides = (0, 0), dilation: _Sides = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    if ceil_mode:
        return torch.ops.aten.max_pool2d_with_indices.default(x, kernel, stride, padding, dilation, ceil_mode)  # type: ignore[no-any-return]
    size = (*x.shape[:2], *_slid(x, kernel, stride or kernel, padding, dilation))
    return x.new_empty(size), x.new_empty(size, dtype=torch.int64)


def _norm(x: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0), x.new_empty(0)


def _slid(x: Tensor, kernel: _Sides, stride: _Sides, padding: _Sides, dilation: _Sides) -> list[int]:
    """How often a kernel fits along each axis."""
    axes = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]


_SHAPED: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.cat.default: _cat,
    torch.ops.aten.convolution.default: _convolution,
    torch.ops.aten.max_pool2d_with_indices.default: _pool,
    torch.ops.aten.native_batch_norm.default: _norm,
    torch.ops.aten.native_group_norm.default: _norm,
}
