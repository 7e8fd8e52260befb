"""Folding of batch norms into convolutions: fewer passes over memory, and the same function except for rounding."""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from septa.inference.stamp import compute_stamp, reuse

PARITY = 1e-4
"""Largest difference from the logits of a net that counts as rounding, as a share of the largest logit."""

_folded_copies: weakref.WeakKeyDictionary[nn.Module, tuple[Hashable, nn.Module | None]] = weakref.WeakKeyDictionary()


def fold_norms(net: nn.Module, probe_bcyx: Tensor) -> nn.Module:
    """Return a copy of a net with its batch norms folded into convolutions, or the net itself.

    A forward pass over ``probe_bcyx`` shows which convolution feeds which norm. The copy is used only if its logits
    of the probe are the net's, within `PARITY`. It is made again only after a weight has changed.

    Weights are computed in float64 and rounded once: ``w' = w s`` and ``b' = (b - mean) s + shift``, where
    ``s = scale / sqrt(var + eps)``.

    Parameters
    ----------
    net
        Net in evaluation mode on the CPU. It is not changed.
    probe_bcyx
        Image ``(1, C, Y, X)``, float32, of a size that the net accepts.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        return net
    folded = reuse(_folded_copies, net, compute_stamp(net), lambda: _fold_copy(net, probe_bcyx))
    return net if folded is None else folded


def _fold_copy(net: nn.Module, probe_bcyx: Tensor) -> nn.Module | None:
    """Return a copy with folded norms; None if no norm can be folded, or if that changes the logits of the probe."""
    folded = copy.deepcopy(net).requires_grad_(False)
    with torch.inference_mode():
        expected = net(probe_bcyx)
        pairs = _find_pairs(folded, probe_bcyx)
    names = {module: name for name, module in folded.named_modules()}
    for conv, norm in pairs:
        _merge(conv, norm)
        parent, _, leaf = names[norm].rpartition(".")
        setattr(folded.get_submodule(parent), leaf, nn.Identity())
    with torch.inference_mode():
        difference = (folded(probe_bcyx) - expected).abs().max()
    return folded if pairs and difference <= PARITY * expected.abs().max() else None


def _find_pairs(net: nn.Module, probe_bcyx: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return each convolution with the norm that reads its output, if each of them runs once."""
    outputs: list[tuple[Tensor, nn.Conv2d]] = []
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    runs: Counter[nn.Module] = Counter()

    def after(module: nn.Module, inputs: Any, out: Tensor) -> None:
        runs[module] += 1
        if isinstance(module, nn.Conv2d):
            outputs.append((out, module))

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        source = [conv for out, conv in outputs[-1:] if out is inputs[0]]
        # A norm of another class may do more: timm's also applies the activation.
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
    mean = norm.running_mean.double()
    variance = norm.running_var.double()
    scale = (variance + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight.double())
    bias = (-mean if conv.bias is None else conv.bias.double() - mean) * scale
    shift = bias if norm.bias is None else bias + norm.bias.double()
    layout = {"memory_format": torch.channels_last}
    weight = (conv.weight.double() * scale[:, None, None, None]).to(conv.weight.dtype, **layout)  # type: ignore[call-overload]
    conv.weight, conv.bias = (nn.Parameter(tensor, False) for tensor in (weight, shift.to(conv.weight.dtype)))
