"""An ensemble: several nets of one architecture, whose outputs are averaged."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from septa.nets.config import UNetConfig
from septa.nets.unet import UNet

MOST_MEMBERS = 100
"""Largest number of nets in an ensemble."""


class Ensemble(nn.Module):
    """Several nets of one config. It has their sizes, and no ``forward``.

    What is averaged depends on the task, so engines run the members one after the other and average their activations;
    see `septa.inference.EnsembleEngine`. A window of the ensemble is a window of each member, so tiles that are exact
    for one member are exact for the ensemble.

    Parameters
    ----------
    members
        At least two nets.

    Raises
    ------
    ValueError
        There is only one net, there are more than `MOST_MEMBERS`, or the configs differ.

    Examples
    --------
    >>> net = Ensemble([UNet(1, 2, depth=2, width=4), UNet(1, 2, depth=2, width=4)])
    >>> net.halo == net.members[0].halo, len(net.state_dict()) // len(net.members[0].state_dict())
    (True, 2)
    """

    def __init__(self, members: Sequence[UNet]) -> None:
        super().__init__()
        if not 2 <= len(members) <= MOST_MEMBERS:
            raise ValueError(f"an ensemble has 2 to {MOST_MEMBERS} nets, got {len(members)}")
        if any(member.config != members[0].config for member in members):
            raise ValueError("the nets of an ensemble must have the same settings")
        self.members: Sequence[UNet] = nn.ModuleList(members)  # type: ignore[assignment]

    @property
    def config(self) -> UNetConfig:
        """Settings of each member."""
        return self.members[0].config

    @property
    def in_channels(self) -> int:
        """Number of channels of the image."""
        return self.members[0].in_channels

    @property
    def out_channels(self) -> int:
        """Number of channels of the logits."""
        return self.members[0].out_channels

    @property
    def multiple(self) -> int:
        """Period of each member; see `UNet.multiple`."""
        return self.members[0].multiple

    @property
    def margin(self) -> int:
        """Pixels on each side by which the logits are smaller than the image; see `UNet.margin`."""
        return self.members[0].margin

    @property
    def halo(self) -> int:
        """Context that a core needs on each side; see `UNet.halo`."""
        return self.members[0].halo

    @property
    def receptive_field(self) -> int:
        """Largest number of input pixels along one axis that can change one output pixel."""
        return self.members[0].receptive_field

    @property
    def exact_tiles(self) -> bool:
        """True if a tile's core equals the same pixels of the whole image; see `UNet.exact_tiles`."""
        return self.members[0].exact_tiles

    @property
    def steady_side(self) -> int:
        """Side of a window from which PyTorch's choice of CPU kernels does not depend on its size."""
        return self.members[0].steady_side

    @property
    def bytes_per_pixel(self) -> int:
        """Peak memory of an inference pass, bytes per pixel: that of one member, and the sum of the activations."""
        return self.members[0].bytes_per_pixel + 4 * (self.out_channels + 1)

    def valid_size(self, size: int) -> int:
        """Return the image side nearest to ``size`` that the members accept; see `UNet.valid_size`."""
        return self.members[0].valid_size(size)

    def input_size(self, size: int) -> int:
        """Return the smallest image side whose logits have a side of at least ``size``; see `UNet.input_size`."""
        return self.members[0].input_size(size)

    def output_size(self, size: int) -> int:
        """Return the side of the logits for an image of side ``size``; see `UNet.output_size`."""
        return self.members[0].output_size(size)

    def pad_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size to which each member pads an image; see `UNet.pad_size`."""
        return self.members[0].pad_size(height, width)

    def prune(self, depth: int) -> Ensemble:
        """Return the ensemble of the pruned members, which share their weights; see `UNet.prune`."""
        return Ensemble([member.prune(depth) for member in self.members])


def list_members(net: UNet | Ensemble) -> tuple[UNet, ...]:
    """Return the members of an ensemble, or the net itself."""
    return tuple(net.members) if isinstance(net, Ensemble) else (net,)
