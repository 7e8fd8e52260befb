"""The weights of one net as the initial weights of another that reads other channels or has other outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from septa.nets.pretrained import adapt_channels
from septa.nets.unet import UNet


def copy_weights(source: UNet, target: UNet, outputs: Sequence[int | None]) -> None:
    """Copy the weights and statistics of a net into a net of the same layers.

    Convolutions that read the image are adapted to the channels of the target, see `adapt_channels`: equal channels
    have the same response as before. The heads take the weights of the outputs that are named, and keep their own for
    the others.

    Parameters
    ----------
    source
        Net to copy from; it is not changed.
    target
        Net to copy to. Its settings may differ in the numbers of channels and outputs and in the dropout only.
    outputs
        For each output of the target the index of the output of the source that means the same; None for a new one.

    Raises
    ------
    ValueError
        The nets differ in other settings, or ``outputs`` has another length than the target has outputs.

    Examples
    --------
    >>> grey, color = UNet(1, 2, depth=1, width=4).eval(), UNet(3, 3, depth=1, width=4).eval()
    >>> copy_weights(grey, color, [0, None, 1])
    >>> image_bcyx = torch.rand(1, 1, 8, 8)
    >>> torch.allclose(color(image_bcyx.expand(-1, 3, -1, -1))[:, [0, 2]], grey(image_bcyx), atol=1e-5)
    True
    """
    mine, its = source.config, target.config
    adapted = replace(mine, in_channels=its.in_channels, out_channels=its.out_channels, dropout=its.dropout)
    if adapted != its:
        raise ValueError(f"the nets differ in other settings than channels and outputs: {mine} and {its}")
    if len(outputs) != its.out_channels:
        raise ValueError(f"there are {len(outputs)} outputs to copy for a net of {its.out_channels} outputs")
    found = source.state_dict()
    with torch.no_grad():
        for name, tensor in target.state_dict().items():
            # A residual block has a shortcut only if its numbers of channels differ.
            if name not in found:
                continue
            if name.startswith(("head.", "heads.")):
                _copy_rows(found[name], tensor, outputs)
            elif found[name].shape == tensor.shape:
                tensor.copy_(found[name])
            else:
                tensor.copy_(adapt_channels(found[name], its.in_channels))


def _copy_rows(source: Tensor, target: Tensor, outputs: Sequence[int | None]) -> None:
    for row, index in enumerate(outputs):
        if index is not None:
            target[row].copy_(source[index])
