from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from septa.images.normalize import Normalization
from septa.images.window import cut_mirrored
from septa.inference._torch import torch_engine
from septa.inference.bf16 import diffuse_rounding, round_for_bf16
from septa.inference.predict import predict_tiles
from septa.inference.tiling import plan_tiles_for, smallest_tile_for
from septa.nets import UNet

pytestmark = pytest.mark.usefixtures("one_thread")

HALF_STEP = 2.0**-8
"""Largest relative error of rounding to bfloat16."""


def smooth_noise(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(1, channels, height // 8 + 2, width // 8 + 2)).astype(np.float32)
    large = nn.functional.interpolate(torch.from_numpy(coarse), scale_factor=8, mode="bilinear")
    return np.ascontiguousarray(large[0, :, :height, :width].numpy())


# --- rounding --------------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.int32, (2, 3, 3, 3), elements=st.integers(-(10**6), 10**6)))
def test_a_rounded_kernel_keeps_its_sum(numbers: np.ndarray) -> None:
    weight = (numbers / 1e4).astype(np.float32)
    rounded = diffuse_rounding(torch.from_numpy(weight))
    assert rounded.dtype == torch.bfloat16
    assert rounded.shape == weight.shape
    for kernel, got in zip(weight.reshape(6, 9).astype(np.float64), rounded.double().numpy().reshape(6, 9)):
        # The slow way: one weight after the other, the largest first.
        error, expected = 0.0, np.zeros(9)
        for place in sorted(range(9), key=lambda at: -abs(kernel[at])):
            expected[place] = torch.tensor(kernel[place] + error).float().bfloat16().item()
            error += kernel[place] - expected[place]
        largest = np.abs(kernel).max()
        assert abs(got.sum() - kernel.sum()) <= HALF_STEP * 2 * np.sort(np.abs(kernel))[0] + 2 * HALF_STEP**2 * largest
        np.testing.assert_allclose(got, expected, atol=4 * HALF_STEP * largest)
        assert np.abs(got - kernel).max() <= 2 * HALF_STEP * largest * (1 + HALF_STEP)


def test_rounding_keeps_the_memory_format_and_a_kernel_that_is_bf16_already() -> None:
    weight = torch.randn(4, 6, 3, 3).bfloat16().float().to(memory_format=torch.channels_last)
    rounded = diffuse_rounding(weight)
    assert rounded.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(rounded.float(), weight)


# --- nets ------------------------------------------------------------------------------------------------------------


def emulate(net: UNet, image_bcyx: Tensor) -> Tensor:
    """Return logits in float32 of a net that rounds weights and values as bfloat16 does, except at its ends."""
    copy = UNet.from_config(net.config).eval()
    copy.load_state_dict(net.state_dict())
    ends = {copy.encoder.get_submodule("0.conv1"), copy.head}

    def round_inputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        return tuple(value.bfloat16().float() for value in inputs)

    for module in copy.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_pre_hook(round_inputs) if module not in ends else None
            if module not in ends:
                diffused = isinstance(module, nn.Conv2d)
                weight = module.weight.detach()
                module.weight = nn.Parameter((diffuse_rounding(weight) if diffused else weight.bfloat16()).float())
    with torch.inference_mode():
        return copy(image_bcyx)


def test_the_engine_computes_all_but_the_ends_in_bf16() -> None:
    torch.manual_seed(0)
    net = UNet(1, 3, depth=2, width=8, norm="none").eval()
    image = smooth_noise(1, 96, 128)
    engine = torch_engine(net, "cpu", ["bf16"])
    logits, exact = engine(image), torch_engine(net)(image)
    expected = emulate(net, torch.from_numpy(image)[None])[0].numpy()
    # The oracle sums in float32 too, but rounds fewer results in between.
    assert np.abs(logits - expected).max() < 2 * np.abs(exact - expected).max()
    assert np.sqrt(np.mean((logits - expected) ** 2)) < np.sqrt(np.mean((exact - expected) ** 2))
    assert len(np.unique(logits)) > 256 * 8  # logits that bfloat16 had rounded would have few values


def test_it_is_closer_to_float32_than_autocast_alone() -> None:
    torch.manual_seed(0)
    net = UNet(2, 3, depth=3, width=8).eval()
    image = 2 + smooth_noise(2, 128, 160)
    with torch.inference_mode():
        exact = net(torch.from_numpy(image)[None])[0].numpy()
        with torch.autocast("cpu", torch.bfloat16):
            plain = net(torch.from_numpy(image)[None])[0].float().numpy()
    found = torch_engine(net, "cpu", ["bf16"])(image)
    error, plain_error = (np.sqrt(np.mean((logits - exact) ** 2)) for logits in (found, plain))
    assert 0 < error < 0.85 * plain_error


def test_the_net_itself_is_not_changed(member: UNet) -> None:
    before = {name: tensor.clone() for name, tensor in member.state_dict().items()}
    kinds = [type(module) for module in member.modules()]
    rounded = round_for_bf16(member)
    assert any(parameter.dtype == torch.bfloat16 for parameter in rounded.parameters())
    assert [type(module) for module in member.modules()] == kinds
    assert all(torch.equal(tensor, before[name]) for name, tensor in member.state_dict().items())


def test_the_weights_are_rounded_again_after_a_change(member: UNet) -> None:
    net = copy.deepcopy(member)
    rounded = round_for_bf16(net)
    assert round_for_bf16(net) is rounded
    with torch.no_grad():
        next(net.parameters()).mul_(2)
    assert round_for_bf16(net) is not rounded


def test_a_module_that_is_no_unet_runs_in_bf16_too() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)).eval()
    image = smooth_noise(1, 32, 40)
    logits = torch_engine(net, "cpu", ["bf16"])(image)
    exact = torch_engine(net)(image)
    assert 0 < np.abs(logits - exact).max() < 0.02 * np.abs(exact).max()


# --- tiles -----------------------------------------------------------------------------------------------------------


def in_tiles(net: UNet, image: np.ndarray, tile: int) -> np.ndarray:
    """Return the logits in bfloat16 of an image, assembled from tiles."""
    _, height, width = image.shape
    out_kyx = np.full((net.out_channels, height, width), np.nan, np.float32)

    def keep(core: tuple[slice, slice], logits_kyx: np.ndarray) -> None:
        out_kyx[(slice(None), *core)] = logits_kyx

    unit = Normalization("dataset", (0.0,) * len(image), (1.0,) * len(image))
    tiles = plan_tiles_for(net, height, width, tile)
    predict_tiles(torch_engine(net, "cpu", ["bf16"]), partial(cut_mirrored, image), unit, tiles, keep)
    return out_kyx


@settings(max_examples=6, deadline=None)
@example(size=(130, 192), more=0, width=3)  # in bfloat16 its sums would depend on the size
@given(
    size=st.tuples(st.integers(130, 260), st.integers(130, 260)),
    more=st.integers(0, 60),
    width=st.sampled_from([3, 8, 12, 16]),
)
def test_tiles_of_any_size_equal_the_whole_image(size: tuple[int, int], more: int, width: int) -> None:
    torch.manual_seed(0)
    net = UNet(1, 3, depth=3, width=width).eval()
    image = smooth_noise(1, *size, seed=more)
    np.testing.assert_array_equal(in_tiles(net, image, smallest_tile_for(net) + more), in_tiles(net, image, 2000))


def test_tiles_of_every_kind_of_net_equal_the_whole_image(member: UNet) -> None:
    if not member.exact_tiles:
        pytest.skip("this net pools over the image")
    image = smooth_noise(2, 150, 131)
    np.testing.assert_array_equal(
        in_tiles(member, image, smallest_tile_for(member) + 16), in_tiles(member, image, 2000)
    )
