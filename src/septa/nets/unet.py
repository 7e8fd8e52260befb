"""The U-Net family: one grid of nodes, whose layers are chosen by a `UNetConfig`."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from septa.nets.aspp import AtrousPyramid
from septa.nets.blocks import (
    LOCAL_NORMS,
    ConvBlock,
    PixelSpan,
    UpConvolution,
    average_heads,
    crop_centre,
    initialize_weights,
)
from septa.nets.config import UNetConfig
from septa.nets.encoders import build_encoder
from septa.nets.gates import AttentionGate
from septa.nets.grid import Node, NodeGrid, coarser_node
from septa.nets.heads import fit_logits, make_head
from septa.nets.join import Join
from septa.nets.probe import dry_run, find_steady_size
from septa.nets.prune import prune_config, share_layers
from septa.nets.scale import ImageResizer
from septa.nets.statistics import pool_statistics


class UNet(nn.Module):
    """The U-Net family.

    Node (i, j) lies at level i (the image downsampled i times by 2, ``width * 2**i`` channels) and in column j. Nodes
    (i, 0) are the features of the contracting path. Any other node (i, j) is a block that reads the skip connections,
    which are all nodes of its level in smaller columns, and the upsampled node (i + 1, j - 1). The U-Net has the nodes
    (i, 0) and (i, depth - i) only. U-Net++ has all nodes with i + j <= depth. The logits come from node (0, depth).
    By default it is the network that most implementations call U-Net. With ``padding="valid"`` and ``norm="none"`` it
    is the network of the paper.

    Parameters
    ----------
    in_channels, out_channels
        Number of channels of the image and of the logits.
    **settings
        The other attributes of `UNetConfig`, by keyword. Those left out have the defaults of that class.

    Attributes
    ----------
    config : UNetConfig
        All settings; `from_config` builds the same net again.
    depth : int
        Number of poolings, which is the encoder's own unless ``config.encoder`` is ``plain``.

    Raises
    ------
    ValueError
        A setting is out of its range, or two settings exclude each other.
    TypeError
        A setting has a name that `UNetConfig` does not know.
    InputError
        An encoder of timm is asked for, and timm is missing or has no suitable network of this name.

    References
    ----------
    Ronneberger, Fischer, Brox 2015, "U-Net" (arXiv 1505.04597), figure 1.
    Zhou et al. 2018, "UNet++" (arXiv 1807.10165), figure 1.

    Examples
    --------
    >>> net = UNet(1, 2, depth=2, width=4)
    >>> net(torch.zeros(1, 1, 37, 50)).shape
    torch.Size([1, 2, 37, 50])
    >>> net.multiple, net.halo, net.receptive_field
    (4, 24, 44)
    >>> net = UNet(1, 2, depth=4, width=1, padding="valid")
    >>> net.margin, net.output_size(572), net.input_size(500)
    (92, 388, 684)
    """

    def __init__(self, in_channels: int, out_channels: int, **settings: Any) -> None:
        super().__init__()
        self.config = config = UNetConfig(in_channels=in_channels, out_channels=out_channels, **settings)
        self.in_channels = config.in_channels
        self.out_channels = config.out_channels
        self.width = config.width
        self.reduction, self.magnification = config.reduction, config.magnification
        self.valid = config.padding == "valid"
        self.nested = config.nested
        self.deep_supervision = config.deep_supervision
        # Outside the arrays of a valid net the image continues, whereas bilinear interpolation repeats the edge.
        self._trim = int(self.valid and (config.up == "bilinear" or config.attention))
        self.encoder = build_encoder(config)
        self.depth = len(self.encoder.channels) - 1
        self.aspp = AtrousPyramid(self.encoder.channels[-1], config.norm) if config.aspp else None
        self.dropout = nn.Dropout(config.dropout)
        self._grid = NodeGrid(self.depth, config.nested)
        self._head_nodes = self._grid.head_nodes(config.deep_supervision)
        self._head_reach, self._head_shrink = config.head_kernel // 2, (config.head_kernel - 1) * self.valid
        self._smallest_side, self._node_sides = self._grid.find_smallest(self.encoder, self._trim, self._head_shrink)
        self.up = nn.ModuleDict()
        self.decoder = nn.ModuleDict()
        self.gate = nn.ModuleDict()
        for node in sorted(self._grid.order):
            self._add_node(node)
        make = partial(make_head, outputs=self.out_channels, kernel=config.head_kernel, valid=self.valid)
        self.head = make(self._channels((0, self.depth)))
        self.heads = nn.ModuleDict({self._grid.layer_key(at): make(self._channels(at)) for at in self._head_nodes[1:]})
        self.resize = ImageResizer(self.reduction, self.magnification, self.depth)
        for name, part in self.named_children():
            # Other encoders have initialised themselves as their papers say.
            if config.encoder == "plain" or name != "encoder":
                initialize_weights(part)

    @classmethod
    def from_config(cls, config: UNetConfig) -> Self:
        """Build the net of a config, with new weights from torch's current random state.

        Examples
        --------
        >>> net = UNet(1, 2, depth=2, width=4)
        >>> UNet.from_config(net.config).config == net.config
        True
        """
        return cls(**asdict(config))

    def _add_node(self, node: Node) -> None:
        key = self._grid.layer_key(node)
        coarse, out = self._channels(coarser_node(node)), self._channels(node)
        skips = sum(self._channels(skip) for skip in self._grid.skip_nodes(node))
        self.up[key] = UpConvolution(coarse, out, self.config.up)
        raised = coarse if self.config.up == "aligned" else out
        self.decoder[key] = ConvBlock(skips + raised, out, self.config.norm, **self.config.block_options)
        if self.config.attention:
            self.gate[key] = AttentionGate(skips, coarse, max(1, out // 2), self._trim)

    def _channels(self, node: Node) -> int:
        if node[1] == 0:
            return self.encoder.channels[node[0]]
        return self.config.expanding_widths[node[0]]

    def _join(self, node: Node) -> Join:
        key = self._grid.layer_key(node)
        gate = self.gate[key] if self.gate else None
        return Join(self.up[key], gate, self.decoder[key], self._trim, top_left=self.config.odd_sizes == "crop")

    @property
    def multiple(self) -> int:
        """Period of the net, pixels: 2**depth times the reduction, divided by the magnification.

        If the image is shifted by a multiple of it, the logits are shifted by as much and otherwise unchanged.
        """
        return (self.reduction << self.depth) // self.magnification

    @property
    def margin(self) -> int:
        """Pixels on each side by which the logits are smaller than the image; 0 with padded convolutions."""
        lost = self._smallest_side - self._node_sides[0, self.depth] + self._head_shrink
        return lost // 2 if self.valid else 0

    def valid_size(self, size: int) -> int:
        """Return the image side nearest to ``size``, pixels, that `forward` accepts.

        Of two equally near sides it is the larger. With ``padding="valid"`` every pooling needs an even side, and at
        least one pixel of logits must remain.
        """
        if not self.valid:
            return size
        steps = max(0, (size - self._smallest_side + self.multiple // 2) // self.multiple)
        return self._smallest_side + steps * self.multiple

    def output_size(self, size: int) -> int:
        """Return the side of the logits, pixels, for an image of side ``size``.

        Raises
        ------
        ValueError
            `forward` does not accept an image of this side. The message gives the two nearest sides that it accepts.
        """
        if self.valid_size(size) != size:
            low = max(self._smallest_side, self.input_size(size - 2 * self.margin) - self.multiple)
            raise ValueError(
                f"with padding=valid a side of {size} pixels is not a valid size; "
                f"the nearest valid sizes are {low} and {low + self.multiple}"
            )
        return size - 2 * self.margin

    def input_size(self, size: int) -> int:
        """Return the smallest image side, pixels, that `forward` accepts and that gives logits of at least ``size``."""
        if not self.valid:
            return size
        steps = max(0, math.ceil((size + 2 * self.margin - self._smallest_side) / self.multiple))
        return self._smallest_side + steps * self.multiple

    def pad_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width, pixels, of the array that the first convolution reads for an image of this size.

        With ``padding="same"`` each side is the next multiple of `multiple`, at least two of them; `forward` pads the
        image to it, unless it crops odd sizes. With ``valid`` it is the size of the mirrored image whose logits cover
        the whole image.
        """
        if self.valid:
            return self.input_size(height), self.input_size(width)
        step, least = 1 if self.config.odd_sizes == "crop" else self.multiple, 2 * self.multiple
        return max(least, math.ceil(height / step) * step), max(least, math.ceil(width / step) * step)

    @property
    def exact_tiles(self) -> bool:
        """True if a tile's core equals the whole image there, because no layer depends on the image as a whole."""
        config = self.config
        return not config.squeeze and config.norm in LOCAL_NORMS and self.encoder.local and config.up != "aligned"

    @property
    def halo(self) -> int:
        """Context that a core needs on each side, pixels.

        With ``padding="same"`` it is rounded up to a multiple of `multiple`. Cores start and end at multiples of
        `multiple`, so one such core represents all. With ``valid`` it is `margin`.
        """
        if self.valid:
            return self.margin
        low, high = self.needs((0, self.multiple))
        return math.ceil(max(-low, high - self.multiple) / self.multiple) * self.multiple

    @property
    def receptive_field(self) -> int:
        """Largest number of input pixels along one axis that can change one output pixel."""
        return max(high - low for low, high in (self.needs((at, at + 1)) for at in range(self.multiple)))

    def needs(self, span: PixelSpan) -> PixelSpan:
        """Return the half-open span of input pixels that the output pixels of ``span`` depend on, along one axis.

        Both are indices into the arrays that `forward` accepts and returns. With ``padding="valid"`` output pixel 0
        lies `margin` pixels inside the image, and its span starts at 0 or later.
        """
        span = self.resize.trace_restored(span)
        spans = {}
        for node in self._head_nodes if self.nested else self._head_nodes[:1]:
            inside = (self._node_sides[node] - self._node_sides[0, self.depth] + self._head_shrink) // 2
            spans[node] = span[0] + inside - self._head_reach, span[1] + inside + self._head_reach
        return self._needs(spans)

    def node_needs(self, level: int, column: int, span: PixelSpan) -> PixelSpan:
        """Return the half-open span of input pixels that the pixels ``span`` of a node depend on, along one axis.

        The pixels of node (level, column) are counted in ``span``; each is as wide as 2**level times the reduction
        input pixels, divided by the magnification.

        Raises
        ------
        ValueError
            The net has no such node.
        """
        if (level, column) not in self._node_sides:
            raise ValueError(f"this net has no node ({level}, {column})")
        return self._needs({(level, column): span})

    def _needs(self, spans: dict[Node, PixelSpan]) -> PixelSpan:
        """Trace the spans of some nodes back to the image, along every path through the grid."""
        spans = self._grid.trace_spans(spans, self._node_sides, lambda node, span: self._join(node).needs(span))
        features = [spans.get((level, 0)) for level in range(self.depth + 1)]
        if self.aspp is not None and features[-1] is not None:
            features[-1] = self.aspp.needs(features[-1])
        span = self.encoder.needs(features)
        return self.resize.needs(span)

    @cached_property
    def _steady_size(self) -> tuple[int, int]:
        side = self._smallest_side if self.valid else 2 * self.multiple
        net = self._build_without_weights()
        return find_steady_size(*(dry_run(net, self.in_channels, each) for each in (side, side + self.multiple)))

    @property
    def steady_pixels(self) -> int:
        """Number of pixels of one image from which PyTorch's choice of CPU kernels does not depend on its size."""
        return self._steady_size[0]

    @property
    def steady_side(self) -> int:
        """Side of a window, pixels, from which this also holds for nets of many channels."""
        return self._steady_size[1]

    @cached_property
    def bytes_per_pixel(self) -> int:
        """Peak memory of an inference pass in float32, bytes per pixel of the image."""
        side = self.valid_size(64 * self.multiple)
        return dry_run(self._build_without_weights(), self.in_channels, side).bytes_per_pixel

    def _build_without_weights(self) -> UNet:
        with torch.device("meta"):
            return UNet.from_config(self.config).eval()

    @property
    def supervision_weights(self) -> tuple[float, ...]:
        """Weights in the loss of the outputs of `forward` during training, finest first; their sum is 1.

        They are equal for U-Net++, as in its paper. Otherwise each coarser level has half the weight of the finer one.
        """
        weights = [1.0 if self.nested else 0.5**at for at in range(len(self._head_nodes))]
        return tuple(weight / sum(weights) for weight in weights)

    def forward(self, image_bcyx: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the logits.

        Parameters
        ----------
        image_bcyx
            Normalised images, float, ``(B, in_channels, Y, X)``. With ``padding="same"`` Y and X are at least 1. A size
            that is not a multiple of `multiple` is padded at the bottom and at the right by repeating the edge, and
            the logits are cropped. With ``valid`` Y and X must be sizes that `valid_size` returns.

        Returns
        -------
        Tensor
            Logits ``(B, out_channels, Y - 2 * margin, X - 2 * margin)``. With nested nodes and deep supervision they
            are the mean over all heads. During training with deep supervision the result is a tuple of such tensors,
            one for each head, finest first.

        Raises
        ------
        ValueError
            The tensor has another number of axes or channels, or a size that a valid net does not accept.
        """
        x, size = self._prepare(image_bcyx)
        logits = self._decode(self.encoder(x), size)
        return tuple(logits) if self.training and self.deep_supervision else average_heads(logits)

    def forward_with_statistics(self, image_bcyx: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the logits of `forward` in evaluation mode, and `septa.nets.pool_statistics` of the features."""
        x, size = self._prepare(image_bcyx)
        features = self.encoder(x)
        statistics = pool_statistics(features)
        return average_heads(self._decode(features, size)), statistics

    def compute_statistics(self, image_bcyx: Tensor) -> Tensor:
        """Compute the statistics of `forward_with_statistics` alone, in a third of its time."""
        return pool_statistics(self.encoder(self._prepare(image_bcyx)[0]))

    def _prepare(self, image_bcyx: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return images as the encoder reads them, and the size of the logits."""
        if image_bcyx.ndim != 4 or image_bcyx.shape[1] != self.in_channels:
            raise ValueError(f"expected a tensor (B, {self.in_channels}, Y, X), got {tuple(image_bcyx.shape)}")
        height, width = image_bcyx.shape[2:]
        size = self.output_size(height), self.output_size(width)
        x = image_bcyx
        if not self.valid and (padded := self.pad_size(height, width)) != (height, width):
            x = functional.pad(x, (0, padded[1] - width, 0, padded[0] - height), mode="replicate")
        return self.resize(x), size

    def _decode(self, encoded: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Compute the logits from the features of all levels, and empty their list, so that they are freed early."""
        features = {(level, 0): feature for level, feature in enumerate(encoded)}
        encoded.clear()
        bottom = (self.depth, 0)
        if self.aspp is not None:
            features[bottom] = self.aspp(features[bottom])
        features[bottom] = self.dropout(features[bottom])
        heads = self._head_nodes if self.training or self.nested else self._head_nodes[:1]
        logits: dict[Node, Tensor] = {}
        for node in self._grid.order:
            join = self._join(node)
            joined = join([features[skip] for skip in self._grid.skip_nodes(node)], features[coarser_node(node)])
            # The block is where memory is at its peak, so features that no later node reads are freed before it.
            for read in self._grid.last_reads[node]:
                del features[read]
            features[node] = join.block(joined)
            del joined
            if node in heads:
                logits[node] = self._logits(node, features[node], size)
        return [logits[node] for node in heads]

    def _logits(self, node: Node, x: Tensor, size: tuple[int, int]) -> Tensor:
        head = self.head if node == (0, self.depth) else self.heads[self._grid.layer_key(node)]
        logits = self.resize.restore(head(x), node[0])
        return crop_centre(logits, *size) if self.valid else fit_logits(logits, *size)

    def prune(self, depth: int) -> UNet:
        """Return the smaller net of the nodes with i + j <= depth and the head of node (0, depth).

        The two nets share their weights.

        Raises
        ------
        ValueError
            The net is not nested with deep supervision and the plain encoder, or ``depth`` is not from 1 to its own.
        """
        with torch.device("meta"):
            small = UNet.from_config(prune_config(self.config, depth))
        share_layers(self, small)
        return small.train(self.training)
