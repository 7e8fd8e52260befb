"""Encoders by name: the contracting path of a U-Net taken from a known classification net."""

from __future__ import annotations

from septa.nets.resnet import RESNET_LAYERS, ResNetEncoder
from septa.nets.timm_encoder import TimmEncoder


def make_encoder(name: str, in_channels: int, width: int, norm: str) -> ResNetEncoder | TimmEncoder:
    """The encoder of that name, freshly initialised.

    Parameters
    ----------
    name
        ``resnet18``, ``resnet34``, ``resnet50``, or ``timm:NAME`` for a net of the package timm.
    in_channels
        Channels of the image.
    width
        Channels of the features at full resolution.
    norm
        Norm of the block that makes these, see `septa.nets.blocks.make_norm`.

    Raises
    ------
    ValueError
        There is no encoder of that name.
    InputError
        timm is not installed, or has no such net, or one that does not fit.

    Examples
    --------
    >>> make_encoder("resnet50", 3, 32, "batch").channels
    (32, 64, 256, 512, 1024, 2048)
    """
    if name.startswith("timm:"):
        return TimmEncoder(name.removeprefix("timm:"), in_channels, width, norm)
    if name in RESNET_LAYERS:
        return ResNetEncoder(name, in_channels, width, norm)
    raise ValueError(f"encoder must be one of {', '.join(RESNET_LAYERS)} or timm:NAME, got {name!r}")
