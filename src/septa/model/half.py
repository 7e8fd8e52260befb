"""Kernels in float16: a model file of half the size."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from septa.errors import InputError
from septa.nets import Ensemble, UNet


def is_kernel(tensor: Tensor) -> bool:
    """Return True for weights that are stored in float16: those of convolutions, which are nearly all of a net.

    Biases and the scales and statistics of norms stay in float32; they take little room, and variances may be tiny.
    """
    return tensor.dtype == torch.float32 and tensor.ndim > 1


def shrink_kernels(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with all kernels in float16.

    Raises
    ------
    InputError
        A weight is too large for float16.
    """
    shrunk = {name: tensor.half() if is_kernel(tensor) else tensor for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.isfinite().all() and not shrunk[name].isfinite().all():
            problem = f"the weight '{name}' is too large for float16"
            raise InputError("weights", problem, "Store the weights in float32")
    return shrunk


def restore_kernels(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with those in float16 as float32 where the net expects kernels of float32."""

    def is_shrunk(name: str, tensor: Tensor) -> bool:
        return tensor.dtype == torch.float16 and name in expected and is_kernel(expected[name])

    return {name: tensor.float() if is_shrunk(name, tensor) else tensor for name, tensor in tensors.items()}


def round_kernels(net: UNet | Ensemble) -> UNet | Ensemble:
    """Return a copy of a net with each kernel rounded to the nearest float16; errors as of `shrink_kernels`."""
    rounded, weights = copy.deepcopy(net), net.state_dict()
    rounded.load_state_dict(restore_kernels(shrink_kernels(weights), weights))
    return rounded
