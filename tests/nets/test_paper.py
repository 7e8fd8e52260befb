"""The net of Ronneberger, Fischer, Brox 2015 against figure 1 of the paper, written out layer by layer."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor, nn

from septa.nets import UNet

pytestmark = pytest.mark.usefixtures("one_thread")


class Paper(nn.Module):
    """Net of figure 1, from left to right; w is 64 there."""

    def __init__(self, channels: int, classes: int, w: int) -> None:
        super().__init__()
        self.relu, self.pool, self.drop = nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5)
        self.conv1, self.conv2 = nn.Conv2d(channels, w, 3), nn.Conv2d(w, w, 3)
        self.conv3, self.conv4 = nn.Conv2d(w, 2 * w, 3), nn.Conv2d(2 * w, 2 * w, 3)
        self.conv5, self.conv6 = nn.Conv2d(2 * w, 4 * w, 3), nn.Conv2d(4 * w, 4 * w, 3)
        self.conv7, self.conv8 = nn.Conv2d(4 * w, 8 * w, 3), nn.Conv2d(8 * w, 8 * w, 3)
        self.conv9, self.conv10 = nn.Conv2d(8 * w, 16 * w, 3), nn.Conv2d(16 * w, 16 * w, 3)
        self.up1 = nn.ConvTranspose2d(16 * w, 8 * w, 2, stride=2)
        self.conv11, self.conv12 = nn.Conv2d(16 * w, 8 * w, 3), nn.Conv2d(8 * w, 8 * w, 3)
        self.up2 = nn.ConvTranspose2d(8 * w, 4 * w, 2, stride=2)
        self.conv13, self.conv14 = nn.Conv2d(8 * w, 4 * w, 3), nn.Conv2d(4 * w, 4 * w, 3)
        self.up3 = nn.ConvTranspose2d(4 * w, 2 * w, 2, stride=2)
        self.conv15, self.conv16 = nn.Conv2d(4 * w, 2 * w, 3), nn.Conv2d(2 * w, 2 * w, 3)
        self.up4 = nn.ConvTranspose2d(2 * w, w, 2, stride=2)
        self.conv17, self.conv18 = nn.Conv2d(2 * w, w, 3), nn.Conv2d(w, w, 3)
        self.conv19 = nn.Conv2d(w, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu(self.conv2(self.relu(self.conv1(x))))
        b = self.relu(self.conv4(self.relu(self.conv3(self.pool(a)))))
        c = self.relu(self.conv6(self.relu(self.conv5(self.pool(b)))))
        d = self.relu(self.conv8(self.relu(self.conv7(self.pool(c)))))
        e = self.drop(self.relu(self.conv10(self.relu(self.conv9(self.pool(d))))))
        # Crops from 64 to 56 pixels, 136 to 104, 280 to 200, and 568 to 392, and by as much at any other image size.
        y = torch.cat([d[:, :, 4:-4, 4:-4], self.up1(e)], 1)
        y = self.relu(self.conv12(self.relu(self.conv11(y))))
        y = torch.cat([c[:, :, 16:-16, 16:-16], self.up2(y)], 1)
        y = self.relu(self.conv14(self.relu(self.conv13(y))))
        y = torch.cat([b[:, :, 40:-40, 40:-40], self.up3(y)], 1)
        y = self.relu(self.conv16(self.relu(self.conv15(y))))
        y = torch.cat([a[:, :, 88:-88, 88:-88], self.up4(y)], 1)
        y = self.relu(self.conv18(self.relu(self.conv17(y))))
        out: Tensor = self.conv19(y)
        return out


PLACES = {
    **{f"encoder.{level}": (2 * level + 1, 2 * level + 2) for level in range(5)},
    **{f"decoder.{level}": (17 - 2 * level, 18 - 2 * level) for level in range(4)},
}


def copy_weights(paper: Paper, net: UNet) -> None:
    state = {"head." + name: value for name, value in paper.conv19.state_dict().items()}
    for place, numbers in PLACES.items():
        for at, number in enumerate(numbers, 1):
            layer = paper.get_submodule(f"conv{number}")
            state |= {f"{place}.conv{at}.{name}": value for name, value in layer.state_dict().items()}
    for level in range(4):
        layer = paper.get_submodule(f"up{4 - level}")
        state |= {f"up.{level}.conv.{name}": value for name, value in layer.state_dict().items()}
    net.load_state_dict(state, strict=True)


def make_paper() -> Paper:
    """Build the net with He's initialisation.

    With PyTorch's own initialisation the deep levels would hardly influence the output.
    """
    paper = Paper(1, 2, 4)
    for layer in paper.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, 0, 0.1)  # type: ignore[arg-type]
    return paper


def make_net(width: int, dropout: float = 0.0) -> UNet:
    """Build the same net by septa."""
    return UNet(1, 2, depth=4, width=width, padding="valid", norm="none", dropout=dropout)


@pytest.mark.parametrize("size", [(572, 572), (188, 204)])
def test_equals_figure_1(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    paper, net = make_paper().eval(), make_net(4).eval()
    copy_weights(paper, net)
    image = torch.randn(1, 1, *size)
    with torch.inference_mode():
        expected, found = paper(image), net(image)
    assert found.shape == (1, 2, size[0] - 184, size[1] - 184)
    assert found.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_dropout_is_where_the_contracting_path_ends() -> None:
    paper, net = make_paper().train(), make_net(4, dropout=0.5).train()
    copy_weights(paper, net)
    image = torch.randn(1, 1, 188, 188)
    torch.manual_seed(1)
    expected = paper(image)
    torch.manual_seed(1)
    torch.testing.assert_close(net(image), expected, rtol=1e-5, atol=1e-6)
    torch.manual_seed(2)
    assert not torch.allclose(net(image), expected)


def test_size_and_number_of_parameters() -> None:
    with torch.device("meta"):
        net = make_net(64)
        logits = net(torch.zeros(1, 1, 572, 572))
    assert sum(p.numel() for p in net.parameters()) == 31_030_658
    assert logits.shape == (1, 2, 388, 388)
    assert (net.margin, net.halo, net.multiple, net.output_size(572)) == (92, 92, 16, 388)
    assert net.exact_tiles


def test_weights_are_he_normal_in_every_layer() -> None:
    torch.manual_seed(3)
    net, seen = make_net(8), 0
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            weight = layer.weight.detach().double().flatten()
            # N, "the number of incoming nodes of one neuron": 9 * 64 for a 3x3 convolution of 64 channels
            side = 1 if isinstance(layer, nn.ConvTranspose2d) else layer.kernel_size[0]
            std = math.sqrt(2 / (side**2 * layer.in_channels))
            assert abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * weight.numel()), name
            assert layer.bias is not None
            assert not layer.bias.any()
            seen += 1
    assert seen == 23


def compute_side(size: int, depth: int) -> int | None:
    """Compute the side of the output; None if a pooling reads an odd side or no pixel remains."""
    for _ in range(depth):
        size -= 4
        if size < 2 or size % 2:
            return None
        size //= 2
    size -= 4
    for _ in range(depth):
        if size < 1:
            return None
        size = 2 * size - 4
    return size if size >= 1 else None


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_valid_sizes_against_every_size(depth: int) -> None:
    net = UNet(1, 1, depth=depth, width=1, padding="valid", norm="none")
    outputs = {size: out for size in range(1, 420) if (out := compute_side(size, depth)) is not None}
    assert net.margin == 6 * 2**depth - 4
    for size in range(1, 400):
        nearest = min(outputs, key=lambda valid: (abs(valid - size), -valid))
        assert net.valid_size(size) == nearest
        if size in outputs:
            assert net.output_size(size) == outputs[size] == size - 2 * net.margin
            continue
        two = sorted(sorted(outputs, key=lambda valid: (abs(valid - size), valid))[:2])
        low = max((valid for valid in outputs if valid < size), default=two[0])
        with pytest.raises(ValueError, match=rf"{size} pixels .* {low} and {low + net.multiple}$"):
            net.output_size(size)
    for length in range(1, 400 - 2 * net.margin):
        assert net.input_size(length) == min(size for size, out in outputs.items() if out >= length)


def test_other_sizes_are_refused() -> None:
    net = make_net(1)
    problem = "with padding=valid a side of 570 pixels is not a valid size; the nearest valid sizes are 556 and 572"
    with pytest.raises(ValueError, match=re.escape(problem)):
        net(torch.zeros(1, 1, 572, 570))
