"""The residual networks of He et al. as encoders, with the parameter names of the published ImageNet weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from septa.nets.blocks import ConvBlock, PixelSpan, conv_needs, initialize_weights, union_spans


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions, of which the first has the stride."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride)

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """Process ``(B, in_channels, Y, X)`` to ``(B, channels, Y / stride, X / stride)``."""
        out = functional.relu(self.bn1(self.conv1(x_bcyx)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + (x_bcyx if self.downsample is None else self.downsample(x_bcyx)))

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Return the input span that the output ``span`` depends on; it contains that of the shortcut."""
        return conv_needs(self.conv1, conv_needs(self.conv2, span))


class Bottleneck(nn.Module):
    """Residual block of a 1x1, a 3x3 and a 1x1 convolution; the last has four times the channels.

    The 3x3 convolution has the stride. This is the variant ("v1.5") that the published weights belong to, whereas in
    the paper the first 1x1 convolution has the stride.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride)

    def forward(self, x_bcyx: Tensor) -> Tensor:
        """Process ``(B, in_channels, Y, X)`` to ``(B, 4 channels, Y / stride, X / stride)``."""
        out = functional.relu(self.bn1(self.conv1(x_bcyx)))
        out = functional.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return functional.relu(out + (x_bcyx if self.downsample is None else self.downsample(x_bcyx)))

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Return the input span that the output ``span`` depends on; it contains that of the shortcut."""
        return conv_needs(self.conv2, span)


RESNET_LAYERS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
"""Block and number of blocks in each of the four layers (table 1 of the paper), by name of the network."""


class ResNetBody(nn.Module):
    """Residual network without its classifier.

    Its state dict has the names and shapes of the published weights.

    Parameters
    ----------
    name
        A key of `RESNET_LAYERS`.
    in_channels
        Number of channels of the image.
    """

    def __init__(self, name: str, in_channels: int) -> None:
        super().__init__()
        block, counts = RESNET_LAYERS[name]
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        before = 64
        for at, count in enumerate(counts):
            channels = 64 << at
            blocks: list[nn.Module] = []
            for which in range(count):
                blocks.append(block(before, channels, 2 if at > 0 and which == 0 else 1))
                before = channels * block.expansion
            self.add_module(f"layer{at + 1}", nn.Sequential(*blocks))
        self.channels = (64, *(block.expansion * (64 << at) for at in range(4)))

    @property
    def layers(self) -> list[nn.Sequential]:
        """Layers 1 to 4, each a sequence of blocks."""
        found = [self.get_submodule(f"layer{at}") for at in range(1, 5)]
        return [layer for layer in found if isinstance(layer, nn.Sequential)]

    def forward(self, x_bcyx: Tensor) -> list[Tensor]:
        """Compute the features at strides 2, 4, 8, 16 and 32 of images ``(B, in_channels, Y, X)``."""
        features = [functional.relu(self.bn1(self.conv1(x_bcyx)))]
        x = self.maxpool(features[0])
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features

    def needs(self, spans: Sequence[PixelSpan | None]) -> PixelSpan | None:
        """Return the input span that the spans of the five features depend on; None if all of them are None."""
        needed = None
        for at, layer in reversed(list(enumerate(self.layers, start=1))):
            needed = union_spans(needed, spans[at])
            if needed is None:
                continue
            for block in reversed(layer):
                assert isinstance(block, BasicBlock | Bottleneck)
                needed = block.needs(needed)
        if needed is not None:
            needed = (2 * needed[0] - 1, 2 * needed[1])
        needed = union_spans(needed, spans[0])
        return None if needed is None else conv_needs(self.conv1, needed)


class ResNetEncoder(nn.Module):
    """ResNet-18, -34 or -50 as the contracting path of a U-Net, with six levels at strides 1, 2, 4, 8, 16 and 32.

    Level 0 is an additional block on the image (``stem``), since the ResNet has no features at full resolution. The
    other levels are the ReLU after ``conv1`` and the outputs of ``layer1`` to ``layer4``.

    Parameters
    ----------
    name
        ``resnet18``, ``resnet34`` or ``resnet50``.
    in_channels
        Number of channels of the image.
    width
        Number of channels of level 0.
    norm
        Norm of level 0; the ResNet itself always has batch norm.

    Attributes
    ----------
    channels : tuple of int
        Number of channels of the features, level 0 first.
    local : bool
        True, because no layer pools over the image.
    first_convolution : str
        Name inside ``body`` of the weight of the convolution that reads the image.

    Raises
    ------
    ValueError
        ``name`` is not a key of `RESNET_LAYERS`.

    References
    ----------
    He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition", table 1 (arXiv 1512.03385).

    Examples
    --------
    >>> import torch
    >>> encoder = ResNetEncoder("resnet18", in_channels=1, width=16, norm="batch")
    >>> encoder.channels
    (16, 64, 64, 128, 256, 512)
    >>> [tuple(feature.shape[-2:]) for feature in encoder(torch.zeros(1, 1, 64, 96))]
    [(64, 96), (32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    """

    local = True
    first_convolution = "conv1.weight"

    def __init__(self, name: str, in_channels: int, width: int, norm: str) -> None:
        super().__init__()
        if name not in RESNET_LAYERS:
            raise ValueError(f"name must be one of {', '.join(RESNET_LAYERS)}, got {name!r}")
        self.stem = ConvBlock(in_channels, width, norm)
        self.body = ResNetBody(name, in_channels)
        self.channels = (width, *self.body.channels)
        initialize_weights(self)

    def forward(self, x_bcyx: Tensor) -> list[Tensor]:
        """Compute the features of images ``(B, in_channels, Y, X)``, level 0 first; Y and X are multiples of 32."""
        return [self.stem(x_bcyx), *self.body(x_bcyx)]

    def needs(self, spans: Sequence[PixelSpan | None]) -> PixelSpan:
        """Return the input span that the given spans of the features depend on together, along one axis.

        ``spans`` has one entry for each level; None if nothing of that level is needed.
        """
        stem = None if spans[0] is None else self.stem.needs(spans[0])
        needed = union_spans(stem, self.body.needs(spans[1:]))
        if needed is None:
            raise ValueError("the spans of all levels are None")
        return needed

    def is_spare(self, name: str) -> bool:
        """Return True for a tensor of published weights that the encoder does not use: those of the classifier."""
        return name.startswith("fc.")


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
