"""Exact tiles of any function against one call on the whole image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from septa.inference import tile_predict
from septa.nets import UNet

pytestmark = pytest.mark.usefixtures("one_thread")


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 4), st.integers(0, 12))
def test_a_filter_by_tiles_equals_the_whole(height: int, width: int, reach: int, more: int) -> None:
    image_yx = np.random.default_rng(height * 71 + width).random((height, width))

    def smooth(window_yx: Any) -> Any:
        assert max(window_yx.shape) <= max(2 * (reach + more) + 1, 16)
        return scipy.ndimage.uniform_filter(window_yx, 2 * reach + 1, mode="reflect")

    if reach <= min(height, width):
        tile = max(2 * (reach + more) + 1, 16)
        found_yx = tile_predict(smooth, image_yx, reach + more, tile=tile)
        np.testing.assert_allclose(found_yx, scipy.ndimage.uniform_filter(image_yx, 2 * reach + 1), atol=1e-12)


def test_a_halo_that_is_too_small_is_seen() -> None:
    image_yx = np.random.default_rng(0).random((60, 60))
    filtered = scipy.ndimage.maximum_filter(image_yx, 9)
    assert (tile_predict(lambda part: scipy.ndimage.maximum_filter(part, 9), image_yx, 4, tile=20) == filtered).all()
    assert (tile_predict(lambda part: scipy.ndimage.maximum_filter(part, 9), image_yx, 3, tile=20) != filtered).any()


def test_a_net_by_tiles_equals_the_whole_image() -> None:
    torch.manual_seed(0)
    net = UNet(2, 3, depth=2, width=4).eval().requires_grad_(False)
    image_bcyx = torch.rand(1, 2, 131, 94)
    tile = 2 * net.halo + 4 * net.multiple
    found = tile_predict(net, image_bcyx, net.halo - 1, tile=tile, multiple=net.multiple)
    torch.testing.assert_close(found, net(image_bcyx), rtol=0, atol=1e-5)
    shifted = tile_predict(net, image_bcyx, net.halo + 1, tile=tile + 2, multiple=1)
    assert (shifted - net(image_bcyx)).abs().max() > 1e-3  # cores off the grid pool other pixels


def test_functions_of_torch_keep_type_and_leading_axes() -> None:
    image = torch.arange(2 * 3 * 40 * 30, dtype=torch.float64).reshape(2, 3, 40, 30)
    pool = lambda part: functional.max_pool2d(part, 3, stride=1, padding=1).mean(1)  # noqa: E731
    found = tile_predict(pool, image, 1, tile=16)
    assert found.dtype == torch.float64
    assert torch.equal(found, pool(image))


def test_windows_alone_are_read_and_written() -> None:
    reads: list[tuple[int, ...]] = []

    class Stored:
        shape = (100, 50)

        def __getitem__(self, index: Any) -> Any:
            part = np.ones(self.shape)[index]
            reads.append(part.shape)
            return part

    out = np.zeros((100, 50), np.float32)
    assert tile_predict(lambda part: part * 2, Stored(), 2, tile=20, out=out) is out
    assert (out == 2).all()
    assert max(max(shape) for shape in reads) <= 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"halo": -1}, "halo must be at least 0"),
        ({"halo": 10, "tile": 20}, "no room for a core; with a halo of 10 it needs 21"),
        ({"halo": 1, "multiple": 0}, "multiple at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tile_predict(lambda part: part, np.zeros((50, 50)), **arguments)


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fn returned the shape \(48, 48\) for a window of shape \(50, 50\)"):
        tile_predict(lambda part: part[1:-1, 1:-1], np.zeros((50, 50)), 1)
