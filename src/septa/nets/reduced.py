"""A trained net that works on a reduced image."""

from __future__ import annotations

from dataclasses import replace

import torch

from .ensemble import Ensemble
from .unet import UNet


def reduce_net(net: UNet | Ensemble, factor: int) -> UNet | Ensemble:
    """Return the net that works on the image reduced by a factor, and enlarges its logits by as much.

    It is the net with ``reduction`` times ``factor``; the two share their weights. It finds in an image what the net
    finds in an image that is smaller by the factor, and its tiles are as exact.

    Parameters
    ----------
    net
        A net, or several.
    factor
        Factor, at least 1; the product with the net's reduction is 1, 2, 4 or 8.

    Raises
    ------
    ValueError
        The product has another value, or the net is valid.

    Examples
    --------
    >>> net = UNet(1, 2, depth=2, width=4)
    >>> reduce_net(net, 2).multiple, net.multiple
    (8, 4)
    """
    if isinstance(net, Ensemble):
        members = [reduce_net(member, factor) for member in net.members]
        return Ensemble([member for member in members if isinstance(member, UNet)])
    with torch.device("meta"):
        reduced = UNet.from_config(replace(net.config, reduction=net.reduction * factor))
    reduced.load_state_dict(net.state_dict(), assign=True)
    return reduced.train(net.training)
