"""A trained net that works on a reduced or enlarged image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from .ensemble import Ensemble
from .unet import UNet


def reduce_net(net: UNet | Ensemble, factor: float) -> UNet | Ensemble:
    """Return the net that works on the image reduced by a factor, and enlarges its logits by as much.

    It is the net with ``reduction`` times ``factor``, or with ``magnification`` where that is below 1; the two share
    their weights. It finds in an image what the net finds in an image that is smaller by the factor, and its tiles are
    as exact.

    Parameters
    ----------
    net
        A net, or several.
    factor
        Power of two; the product with the net's reduction is 1/2, 1, 2, 4 or 8.

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
        total = factor * net.reduction / net.magnification
        sizes: tuple[Any, Any] = max(1, total), max(1, 1 / total)
        reduction, magnification = (int(each) if each % 1 == 0 else each for each in sizes)
        reduced = UNet.from_config(replace(net.config, reduction=reduction, magnification=magnification))
    reduced.load_state_dict(net.state_dict(), assign=True)
    return reduced.train(net.training)
