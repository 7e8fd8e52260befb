"""The contracting paths of the nets: the U-Net's own, and those of known classification networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor, nn

from septa.nets.blocks import LOCAL_NORMS, ConvBlock, MaxPool, PixelSpan, union_spans
from septa.nets.config import UNetConfig
from septa.nets.resnet import RESNET_LAYERS, ResNetEncoder
from septa.nets.timm_encoder import TimmEncoder


class Encoder(Protocol):
    """Interface of a contracting path to `septa.nets.UNet`."""

    channels: tuple[int, ...]
    """Number of channels of each level's feature, level 0 (full resolution) first; each level halves the size."""
    local: bool
    """False if a layer pools over the whole image."""

    def __call__(self, x_bcyx: Tensor) -> list[Tensor]:
        """Compute the features of all levels, level 0 first."""

    def needs(self, spans: Sequence[PixelSpan | None]) -> PixelSpan:
        """Return the input span that the given spans of the features depend on together.

        ``spans`` has one entry for each level; None if nothing of that level is needed.
        """


class PlainEncoder(nn.Module):
    """Contracting path of the U-Net: a `ConvBlock` on each level, with 2x2 max pooling between the levels.

    Parameters
    ----------
    in_channels
        Number of channels of the image.
    channels
        Number of channels of each level, full resolution first.
    norm, valid, residual, squeeze, bias
        As for `ConvBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        norm: str,
        *,
        valid: bool = False,
        residual: bool = False,
        squeeze: bool = False,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.local = not squeeze and norm in LOCAL_NORMS
        for level, (before, after) in enumerate(zip([in_channels, *channels], channels)):
            block = ConvBlock(before, after, norm, valid=valid, residual=residual, squeeze=squeeze, bias=bias)
            self.add_module(str(level), block)
        self.down = MaxPool()

    def __iter__(self) -> Iterator[ConvBlock]:
        """Yield the blocks, full resolution first."""
        for level in range(len(self.channels)):
            block = self.get_submodule(str(level))
            assert isinstance(block, ConvBlock)
            yield block

    def forward(self, x_bcyx: Tensor) -> list[Tensor]:
        """Compute the features of all levels, level 0 first.

        The feature of a level has the shape ``(B, channels[level], Y, X)`` with Y and X of that level.
        """
        features: list[Tensor] = []
        for block in self:
            features.append(block(self.down(features[-1]) if features else x_bcyx))
        return features

    def needs(self, spans: Sequence[PixelSpan | None]) -> PixelSpan:
        """Return the input span that the given spans of the features depend on together.

        ``spans`` has one entry for each level; None if nothing of that level is needed.
        """
        needed: PixelSpan | None = None
        for block, span in reversed(list(zip(self, spans, strict=True))):
            needed = union_spans(span, None if needed is None else self.down.needs(needed))
            needed = None if needed is None else block.needs(needed)
        if needed is None:
            raise ValueError("the spans of all levels are None")
        return needed

    def compute_sides(self, bottom: int) -> tuple[int, list[int], int]:
        """Compute the sides of all arrays, pixels, if the block of the lowest level reads an array of side ``bottom``.

        Returns
        -------
        int
            Side of the image.
        list
            Side of the feature of each level, level 0 first.
        int
            Number of pixels along one axis by which each block makes its input smaller.
        """
        shrink = next(iter(self)).shrink
        sides = [bottom - shrink]
        for _ in self.channels[1:]:
            sides.insert(0, 2 * bottom)
            bottom = 2 * bottom + shrink
        return bottom, sides, shrink


def build_encoder(config: UNetConfig) -> Encoder:
    """Build the contracting path that a config asks for, with new weights.

    Raises
    ------
    InputError
        timm is not installed, has no network of this name, or the network is not suitable.
    """
    if config.encoder != "plain":
        return make_encoder(config.encoder, config.in_channels, config.width, config.norm)
    return PlainEncoder(config.in_channels, config.level_widths, config.norm, **config.block_options)


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
