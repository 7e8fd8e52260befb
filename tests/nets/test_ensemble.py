from __future__ import annotations

import pytest
import torch

from septa.inference.protocol import NetGeometry
from septa.nets import UNet
from septa.nets.ensemble import MOST_MEMBERS, Ensemble, list_members

SIZES = ("in_channels", "multiple", "margin", "halo", "steady_side")
"""Sizes that tiles depend on."""


def test_an_ensemble_has_the_sizes_of_its_members(member: UNet) -> None:
    ensemble: NetGeometry = Ensemble([member, UNet.from_config(member.config)])
    assert all(getattr(ensemble, name) == getattr(member, name) for name in SIZES)
    for side in (37, 188, 200):
        assert ensemble.valid_size(side) == member.valid_size(side)
        assert ensemble.input_size(side) == member.input_size(side)
        assert ensemble.output_size(member.valid_size(side)) == member.output_size(member.valid_size(side))
    assert ensemble.pad_size(37, 50) == member.pad_size(37, 50)
    assert member.bytes_per_pixel < ensemble.bytes_per_pixel < 1.5 * member.bytes_per_pixel


def test_an_ensemble_has_no_output_of_its_own() -> None:
    ensemble = Ensemble([UNet(1, 2, depth=1, width=2) for _ in range(2)])
    with pytest.raises(NotImplementedError):
        ensemble(torch.zeros(1, 1, 8, 8))


def test_members_are_listed_and_pruned() -> None:
    nets = [UNet(1, 2, depth=2, width=2, nested=True, deep_supervision=True) for _ in range(3)]
    ensemble = Ensemble(nets)
    assert list_members(ensemble) == tuple(nets)
    assert list_members(nets[0]) == (nets[0],)
    small = ensemble.prune(1)
    assert [member.depth for member in small.members] == [1, 1, 1]
    assert small.members[2].head is nets[2].heads["0_1"]


def test_members_must_be_several_and_alike() -> None:
    net = UNet(1, 2, depth=1, width=2)
    for count in (1, MOST_MEMBERS + 1):
        with pytest.raises(ValueError, match=f"2 to {MOST_MEMBERS} nets, got {count}"):
            Ensemble([net] * count)
    with pytest.raises(ValueError, match="same settings"):
        Ensemble([net, UNet(1, 2, depth=1, width=4)])
