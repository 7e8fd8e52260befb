"""The weights of one net in another: the response stays, for equal channels and for outputs that are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from septa.nets import UNet, UNetConfig, copy_weights
from septa.nets.pretrained import adapt_channels


def build(config: UNetConfig, channels: int, outputs: int) -> UNet:
    torch.manual_seed(1)
    return UNet.from_config(replace(config, in_channels=channels, out_channels=outputs)).eval()


def segment(net: UNet, grey_b1yx: Tensor) -> Tensor:
    side = net.valid_size(64)
    with torch.inference_mode():
        logits = net(grey_b1yx[:, :, :side, :side].repeat(1, net.in_channels, 1, 1))
    assert isinstance(logits, Tensor)
    return logits


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_every_net_answers_to_equal_channels_as_before(member: UNet, channels: int) -> None:
    grey = torch.rand(1, 1, 128, 128)
    target = build(member.config, channels, 4)
    fresh = segment(target, grey)
    copy_weights(member, target, [2, None, 0, 1])
    before, after = segment(member, grey), segment(target, grey)
    torch.testing.assert_close(after[:, [2, 3, 0]], before, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(after[:, 1], fresh[:, 1], atol=1e-3)  # new weights read other features


def test_new_outputs_keep_their_own_weights(member: UNet) -> None:
    target = build(member.config, 2, 2)
    own = target.head.weight.detach().clone()
    copy_weights(member, target, [None, 1])
    assert torch.equal(target.head.weight[0], own[0])
    assert torch.equal(target.head.weight[1], member.head.weight[1])


def test_the_source_is_not_changed(member: UNet) -> None:
    before = {name: value.clone() for name, value in member.state_dict().items()}
    copy_weights(member, build(member.config, 1, 3), [0, 1, 2])
    assert all(torch.equal(value, before[name]) for name, value in member.state_dict().items())


def test_a_residual_block_may_gain_or_lose_its_shortcut() -> None:
    config = UNetConfig(in_channels=4, out_channels=2, depth=1, width=4, block="residual")
    plain, projected = build(config, 4, 2), build(config, 3, 2)
    copy_weights(plain, projected, [0, 1])
    copy_weights(projected, plain, [0, 1])
    assert torch.equal(plain.head.weight, projected.head.weight)


@pytest.mark.parametrize("change", [{"depth": 3}, {"width": 8}, {"norm": "group"}, {"up": "bilinear"}])
def test_other_nets_are_refused(change: dict[str, int | str]) -> None:
    config = UNetConfig(in_channels=1, out_channels=2, depth=2, width=4)
    with pytest.raises(ValueError, match="other settings than channels and outputs"):
        copy_weights(build(config, 1, 2), build(replace(config, **change), 1, 2), [0, 1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="3 outputs to copy for a net of 2"):
        copy_weights(build(config, 1, 2), build(config, 1, 2), [0, 1, 0])


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9))
def test_channels_are_adapted_so_that_the_sum_stays(old: int, new: int) -> None:
    weight = torch.randn(3, old, 3, 3, dtype=torch.float64)
    adapted = adapt_channels(weight, new)
    assert adapted.shape == (3, new, 3, 3)
    torch.testing.assert_close(adapted.sum(1), weight.sum(1))
    if new == old:
        assert torch.equal(adapted, weight)
