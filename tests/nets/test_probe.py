"""Shapes of layers without values against those of a pass with values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from septa.nets import probe

X = (2, 6, 13, 18)


class Cat(nn.Module):
    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.narrow(self.axis, 0, 2)], self.axis)


LAYERS: list[nn.Module] = [
    nn.Conv2d(6, 4, 3),
    nn.Conv2d(6, 9, (3, 5), stride=(2, 3), padding=(1, 2), dilation=(2, 1), groups=3),
    nn.Conv2d(6, 4, 3, padding="same", dilation=2),
    nn.ConvTranspose2d(6, 4, 2, stride=2),
    nn.ConvTranspose2d(6, 9, (3, 5), stride=(2, 3), padding=(1, 2), dilation=(2, 1), output_padding=1, groups=3),
    nn.MaxPool2d(2),
    nn.MaxPool2d(3, stride=2, padding=1),
    nn.MaxPool2d((2, 3), stride=(1, 2)),
    nn.MaxPool2d(3, stride=2, ceil_mode=True),
    nn.MaxPool2d(3, stride=1, dilation=2),
    nn.BatchNorm2d(6),
    nn.GroupNorm(2, 6),
    Cat(0),
    Cat(1),
    Cat(-1),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_dry_run_gives_the_shapes_of_a_pass_with_values(layer: nn.Module) -> None:
    expected = layer.eval()(torch.zeros(X))
    with torch.no_grad(), probe._MemoryCounter() as memory:
        out = layer.to("meta")(torch.empty(X, device="meta"))
    assert out.is_meta
    assert out.shape == expected.shape
    assert out.dtype == expected.dtype
    assert memory.alive >= expected.nbytes
