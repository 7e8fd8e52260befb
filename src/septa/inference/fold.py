"""Batch norm folded into the convolutions before it: fewer passes over memory, the same function but for rounding."""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

PARITY = 1e-4
"""Largest difference from a net's own logits, as a share of the largest of them, that passes for rounding."""

Stamp = tuple[tuple[int, int, int], ...]
"""Tells the weights that a net has now from those that it has once they were changed."""
_folded_copies: weakref.WeakKeyDictionary[nn.Module, tuple[Stamp, nn.Module | None]] = weakref.WeakKeyDictionary()


def fold_norms(net: nn.Module, probe_bcyx: Tensor) -> nn.Module:
    """A copy of a net, in evaluation on the CPU, with its batch norms folded into convolutions; or the net itself.

    Which convolution feeds which norm is seen in a pass over ``probe_bcyx``, and the copy is kept only if its logits
    of that are the net's. It is made once for as long as the weights stay as they are.

    Computed in float64 and rounded once: ``w' = w s`` and ``b' = (b - mean) s + shift``, where
    ``s = scale / sqrt(var + eps)``.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        return net
    stamp = compute_stamp(net)
    before, made = _folded_copies.get(net, (None, None))
    if stamp is None or before != stamp:
        made = _copy_without_norms(net, probe_bcyx)
        if stamp is not None:
            _folded_copies[net] = stamp, made
    return net if made is None else made


def compute_stamp(net: nn.Module) -> Stamp | None:
    """The stamp of a net's weights; None where that cannot be told."""
    try:
        tensors = net.state_dict(keep_vars=True).values()
        return tuple((id(tensor), tensor.data_ptr(), tensor._version) for tensor in tensors)
    except RuntimeError:  # made in inference mode
        return None


def _copy_without_norms(net: nn.Module, probe_bcyx: Tensor) -> nn.Module | None:
    made = copy.deepcopy(net).requires_grad_(False)
    with torch.inference_mode():
        expected = net(probe_bcyx)
        pairs = _find_pairs(made, probe_bcyx)
    names = {module: name for name, module in made.named_modules()}
    for conv, norm in pairs:
        _merge(conv, norm)
        parent, _, leaf = names[norm].rpartition(".")
        setattr(made.get_submodule(parent), leaf, nn.Identity())
    with torch.inference_mode():
        differs = (made(probe_bcyx) - expected).abs().max()
    return made if pairs and differs <= PARITY * expected.abs().max() else None


def _find_pairs(net: nn.Module, probe_bcyx: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions with the norm that reads what they make, of those that run once."""
    made: list[tuple[Tensor, nn.Conv2d]] = []
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    runs: Counter[nn.Module] = Counter()

    def after(module: nn.Module, inputs: Any, out: Tensor) -> None:
        runs[module] += 1
        if isinstance(module, nn.Conv2d):
            made.append((out, module))

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        source = [conv for out, conv in made[-1:] if out is inputs[0]]
        # A norm of another class may do more: timm's apply the activation, too.
        if source and type(module) is nn.BatchNorm2d and module.running_mean is not None:
            found.append((source[0], module))

    hooks = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    net(probe_bcyx)
    for hook in hooks:
        hook.remove()
    return [(conv, norm) for conv, norm in found if runs[conv] == runs[norm] == 1]


def _merge(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight.double())
    bias = (-mean if conv.bias is None else conv.bias.double() - mean) * scale
    shift = bias if norm.bias is None else bias + norm.bias.double()
    layout = {"memory_format": torch.channels_last}
    weight = (conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype, **layout)  # type: ignore[call-overload]
    conv.weight, conv.bias = (nn.Parameter(tensor, False) for tensor in (weight, shift.to(conv.weight.dtype)))
