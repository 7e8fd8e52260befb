"""The contracting paths of the nets: the U-Net's own, and those of known classification networks."""

from __future__ import annotations

from septa.nets.blocks import Encoder, PlainEncoder
from septa.nets.config import UNetConfig
from septa.nets.resnet import RESNET_LAYERS, ResNetEncoder
from septa.nets.timm_encoder import TimmEncoder


def build_encoder(config: UNetConfig) -> Encoder:
    """Build the contracting path that a config asks for, with new weights.

    Raises
    ------
    InputError
        timm is not installed, has no network of this name, or the network is not suitable.
    """
    if config.encoder != "plain":
        return make_encoder(config.encoder, config.in_channels, config.width, config.norm)
    channels = [config.width << level for level in range(config.depth + 1)]
    return PlainEncoder(config.in_channels, channels, config.norm, **config.block_options)


def make_encoder(name: str, in_channels: int, width: int, norm: str) -> ResNetEncoder | TimmEncoder:
    """Build the encoder of a classification network, with new weights.

    Parameters
    ----------
    name
        ``resnet18``, ``resnet34``, ``resnet50``, or ``timm:NAME`` for a network of the package timm.
    in_channels
        Number of channels of the image.
    width
        Number of channels of the features at full resolution.
    norm
        Norm of the block that computes these features, see `septa.nets.blocks.make_norm`.

    Raises
    ------
    ValueError
        There is no encoder of this name.
    InputError
        timm is not installed, has no network of this name, or the network is not suitable.

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
