"""The statistics of features equal a slow computation, and cost the logits nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from septa.nets import UNet
from septa.nets.statistics import count_statistics, pool_statistics

pytestmark = pytest.mark.usefixtures("one_thread")


def test_means_and_squares_of_every_second_pixel() -> None:
    torch.manual_seed(0)
    features = [torch.rand(1, channels, 24 >> level, 32 >> level) for level, channels in enumerate((2, 3, 4, 5))]
    pooled = pool_statistics(features)[0].numpy()
    means, squares = [], []
    for level, side in ((0, 8), (1, 4)):
        for channel in features[level][0].numpy():
            rows, columns = (range(0, length, side) for length in channel.shape)
            cells = [[channel[y : y + side : 2, x : x + side : 2] for x in columns] for y in rows]
            means.append([[cell.mean() for cell in row] for row in cells])
            squares.append([[(cell**2).mean() for cell in row] for row in cells])
    assert np.allclose(pooled, np.array(means + squares), atol=1e-6)
    assert len(pooled) == count_statistics((2, 3, 4, 5))


def test_logits_do_not_change(member: UNet) -> None:
    side = member.valid_size(48)
    image = torch.rand(1, 2, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits, statistics = member.forward_with_statistics(image)
        assert torch.equal(logits, member(image))
        assert torch.equal(statistics, member.compute_statistics(image))
    assert statistics.shape[1] == count_statistics(member.encoder.channels)
    assert statistics.dtype == torch.float32


def test_a_net_of_one_level() -> None:
    net = UNet(1, 2, depth=1, width=2).eval()
    assert net.compute_statistics(torch.rand(1, 1, 7, 9)).shape == (1, count_statistics((2, 4)), 4, 5)
