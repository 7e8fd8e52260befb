"""The U-Net and its family: one grid of nodes, which settings fill."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from septa.nets.aspp import AtrousPyramid
from septa.nets.blocks import (
    LOCAL_NORMS,
    BilinearUpsample,
    ConvBlock,
    Encoder,
    MeanPool,
    PixelSpan,
    PlainEncoder,
    Pointwise,
    UpConvolution,
    crop_centre,
    initialize_weights,
)
from septa.nets.gates import AttentionGate
from septa.nets.grid import Node, NodeGrid, check, coarser_node
from septa.nets.join import Join
from septa.nets.probe import dry_run, find_steady_size


class UNet(nn.Module):
    """The U-Net family.

    Its nodes (i, j) lie at level i (``width * 2**i`` channels, the image halved i times) and column j. Nodes (i, 0) are
    the features of the contracting path. Node (i, j) is a block over all nodes of its level with smaller columns, the
    skip connections, and the enlarged node (i + 1, j - 1). The U-Net has nodes (i, 0) and (i, depth - i) alone, U-Net++
    all with i + j <= depth. Logits come from node (0, depth). By default it is the network that most implementations
    call U-Net; with ``padding="valid"`` and ``norm="none"`` it is the paper's.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the image and of the logits.
    depth
        Number of poolings, at least 1. An encoder other than ``plain`` has its own.
    width
        Channels at full resolution.
    padding
        ``same``: logits of the image's size. ``valid``: convolutions without padding, logits `margin` pixels a side
        smaller than the image.
    norm
        ``batch``, ``group`` (8 groups, fewer where the channels do not divide), ``instance`` or ``none``. Group and
        instance norms pool over the image: tiles then differ from the whole, see `exact_tiles`.
    up
        ``transpose`` (2x2 up-convolution) or ``bilinear``.
    dropout
        Chance of dropping a value at the end of the contracting path, while training.
    reduction
        1, 2, 4 or 8. Above 1 the net works on the image reduced by this factor (means of pixels) and its logits are
        enlarged bilinearly to the image's size: objects that are large in pixels are seen whole, in a fraction of the
        time. Sizes, halo and receptive field remain in pixels of the image.
    block, squeeze
        ``plain`` or ``residual``, and squeeze and excitation in every block (which pools over the image); see
        `septa.nets.blocks.ConvBlock`.
    attention, aspp
        Attention gates on the skip connections (`septa.nets.AttentionGate`); atrous spatial pyramid pooling at the
        bottom (`septa.nets.AtrousPyramid`).
    nested, deep_supervision
        The nested skip connections of U-Net++; while training, logits of every level of the expanding path (``nested``:
        of all nodes (0, j)).
    encoder
        ``plain``, or a name that `septa.nets.encoders.make_encoder` knows.

    Raises
    ------
    ValueError
        A parameter is out of its range, or two exclude each other.

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

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        depth: int = 4,
        width: int = 64,
        padding: str = "same",
        norm: str = "batch",
        up: str = "transpose",
        dropout: float = 0.0,
        reduction: int = 1,
        block: str = "plain",
        squeeze: bool = False,
        attention: bool = False,
        aspp: bool = False,
        nested: bool = False,
        deep_supervision: bool = False,
        encoder: str = "plain",
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        check(settings)
        self._settings = settings
        self.in_channels, self.out_channels, self.width = in_channels, out_channels, width
        self.reduction, self.valid = reduction, padding == "valid"
        self.nested, self.deep_supervision, self._exact = nested, deep_supervision, not squeeze and norm in LOCAL_NORMS
        # Beyond the edges of a valid net's arrays the image goes on, while bilinear interpolation repeats the edge.
        self._trim = int(self.valid and (up == "bilinear" or attention))
        options = {"valid": self.valid, "residual": block == "residual", "squeeze": squeeze}
        self.encoder: Encoder
        if encoder == "plain":
            channels = [width << level for level in range(depth + 1)]
            self.encoder = PlainEncoder(in_channels, channels, norm, **options)
        else:
            from septa.nets.encoders import make_encoder

            self.encoder = make_encoder(encoder, in_channels, width, norm)
        self.depth = len(self.encoder.channels) - 1
        self.aspp = AtrousPyramid(self.encoder.channels[-1], norm) if aspp else None
        self.dropout = nn.Dropout(dropout)
        self._grid = NodeGrid(self.depth, nested)
        self._supervised = self._grid.head_nodes(deep_supervision)
        self._least, self._sides = self._grid.find_smallest(self.encoder, self._trim)
        self.up, self.decoder, self.gate = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for node in sorted(self._grid.order):
            key, coarse, here = self._grid.layer_key(node), self._channels(coarser_node(node)), width << node[0]
            skips = sum(self._channels(skip) for skip in self._grid.skip_nodes(node))
            self.up[key] = UpConvolution(coarse, here, up)
            self.decoder[key] = ConvBlock(skips + here, here, norm, **options)
            if attention:
                self.gate[key] = AttentionGate(skips, coarse, max(1, here // 2), self._trim)
        self.head = Pointwise(width, out_channels)
        self.heads = nn.ModuleDict(
            {self._grid.layer_key(node): Pointwise(self._channels(node), out_channels) for node in self._supervised[1:]}
        )
        self.reduce = MeanPool(reduction)
        self.enlarge = nn.ModuleList(BilinearUpsample(reduction << level) for level in range(self.depth))
        for name, part in self.named_children():
            if encoder == "plain" or name != "encoder":  # others have begun as their papers say
                initialize_weights(part)

    def _channels(self, node: Node) -> int:
        return self.encoder.channels[node[0]] if node[1] == 0 else self.width << node[0]

    def _join(self, node: Node) -> Join:
        key = self._grid.layer_key(node)
        return Join(self.up[key], self.gate[key] if self.gate else None, self.decoder[key], self._trim)

    @property
    def multiple(self) -> int:
        """Shifting the image by a multiple of this shifts the logits: 2**depth times the reduction."""
        return self.reduction << self.depth

    @property
    def margin(self) -> int:
        """Pixels a side by which the logits are smaller than the image: 0 where convolutions are padded."""
        return (self._least - self._sides[0, self.depth]) // 2 if self.valid else 0

    def valid_size(self, size: int) -> int:
        """The nearest side of an image, pixels, that `forward` takes (of two as near the larger); see `output_size`.

        With ``padding="valid"`` every pooling has to find an even side, and at least one pixel has to come out.
        """
        if not self.valid:
            return size
        return self._least + max(0, (size - self._least + self.multiple // 2) // self.multiple) * self.multiple

    def output_size(self, size: int) -> int:
        """Side of the logits, pixels, for an image of side ``size``.

        Raises
        ------
        ValueError
            `forward` takes no image of this side; names the nearest two that it takes.
        """
        if self.valid_size(size) != size:
            low = max(self._least, self.input_size(size - 2 * self.margin) - self.multiple)
            sides = f"{low} or {low + self.multiple}"
            raise ValueError(f"with padding=valid a side of {size} pixels is no valid size; the nearest are {sides}")
        return size - 2 * self.margin

    def input_size(self, size: int) -> int:
        """The smallest side of an image, pixels, that `forward` takes and whose logits have at least side ``size``."""
        if not self.valid:
            return size
        return self._least + max(0, math.ceil((size + 2 * self.margin - self._least) / self.multiple)) * self.multiple

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the array that an image of this size becomes before the first convolution.

        ``padding="same"``: the next multiple of `multiple`, and at least two of it, to which `forward` pads. ``valid``:
        the mirrored image that gives logits for all of it.
        """
        if self.valid:
            return self.input_size(height), self.input_size(width)
        step = self.multiple
        return max(2, math.ceil(height / step)) * step, max(2, math.ceil(width / step)) * step

    @property
    def exact_tiles(self) -> bool:
        """Whether a tile's core equals the same pixels of the whole image: not where a layer pools over the image."""
        return self._exact and self.encoder.local

    @property
    def halo(self) -> int:
        """Context that a core needs on each side, pixels.

        ``padding="same"``: rounded up to a multiple of `multiple`; cores start and end at multiples of `multiple`, so
        the span of one such core tells it for all. ``valid``: `margin`.
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
        """Half-open span of input pixels that the output pixels of ``span`` depend on, along one axis.

        Both are indices into the arrays that `forward` takes and returns: with ``padding="valid"`` output 0 lies
        `margin` pixels inside the image, and its span starts at 0 or later.
        """
        if self.reduction > 1:
            span = BilinearUpsample(self.reduction).needs(span)
        spans = {}
        for node in self._supervised if self.nested else self._supervised[:1]:
            inside = (self._sides[node] - self._sides[0, self.depth]) // 2
            spans[node] = span[0] + inside, span[1] + inside
        return self._needs(spans)

    def node_needs(self, level: int, column: int, span: PixelSpan) -> PixelSpan:
        """Half-open span of input pixels that the pixels ``span`` of node (level, column) depend on, along one axis.

        ``span`` counts the node's own pixels, of 2**level times the reduction input pixels each.

        Raises
        ------
        ValueError
            The net has no such node.
        """
        if (level, column) not in self._sides:
            raise ValueError(f"this net has no node ({level}, {column})")
        return self._needs({(level, column): span})

    def _needs(self, spans: dict[Node, PixelSpan]) -> PixelSpan:
        """From the spans of some nodes back through the grid; every way counts, skip connections and deeper levels."""
        spans = self._grid.trace_spans(spans, self._sides, lambda node, span: self._join(node).needs(span))
        features = [spans.get((level, 0)) for level in range(self.depth + 1)]
        if self.aspp is not None and features[-1] is not None:
            features[-1] = self.aspp.needs(features[-1])
        span = self.encoder.needs(features)
        return self.reduce.needs(span) if self.reduction > 1 else span

    @cached_property
    def _steady(self) -> tuple[int, int]:
        least, twin = self._least if self.valid else 2 * self.multiple, self._twin()
        return find_steady_size(*(dry_run(twin, self.in_channels, side) for side in (least, least + self.multiple)))

    @property
    def steady_pixels(self) -> int:
        """Pixels from which on PyTorch's CPU kernels for a single image no longer depend on its size."""
        return self._steady[0]

    @property
    def steady_side(self) -> int:
        """Side of a window, pixels, from which on this holds for nets of many channels too."""
        return self._steady[1]

    @cached_property
    def bytes_per_pixel(self) -> int:
        """Memory of an inference pass in float32 at its peak, bytes per pixel of the image."""
        return dry_run(self._twin(), self.in_channels, self.valid_size(64 * self.multiple)).bytes_per_pixel

    def _twin(self) -> UNet:
        with torch.device("meta"):
            return UNet(**self._settings).eval()

    @property
    def supervision_weights(self) -> tuple[float, ...]:
        """Weight in the loss of each output of `forward` while training, finest first; their sum is 1.

        Equal for U-Net++, as its paper has them; else each coarser level counts half.
        """
        weights = [1.0 if self.nested else 0.5**at for at in range(len(self._supervised))]
        return tuple(weight / sum(weights) for weight in weights)

    def forward(self, image_bcyx: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits.

        Parameters
        ----------
        image_bcyx
            Normalised images, float, ``(B, in_channels, Y, X)``. With ``padding="same"`` Y and X are at least 1; a size
            that is no multiple of `multiple` is padded below and at the right by repeating the edge, and the logits are
            cropped. With ``valid`` Y and X are sizes that `valid_size` returns.

        Returns
        -------
        Tensor
            Logits ``(B, out_channels, Y - 2 * margin, X - 2 * margin)``. With nested nodes and deep supervision their
            mean over all heads. While training with deep supervision a tuple of such tensors, one for each head, finest
            first.

        Raises
        ------
        ValueError
            Another number of axes or channels, or a size that a valid net does not take.
        """
        if image_bcyx.ndim != 4 or image_bcyx.shape[1] != self.in_channels:
            raise ValueError(f"expected a tensor (B, {self.in_channels}, Y, X), got {tuple(image_bcyx.shape)}")
        height, width = image_bcyx.shape[2:]
        size = self.output_size(height), self.output_size(width)
        x = image_bcyx
        if not self.valid and (padded := self.padded_size(height, width)) != (height, width):
            x = functional.pad(x, (0, padded[1] - width, 0, padded[0] - height), mode="replicate")
        if self.reduction > 1:
            x = self.reduce(x)
        logits = self._run(x, size)
        if self.training and self.deep_supervision:
            return tuple(logits)
        return logits[0] if len(logits) == 1 else sum(logits[1:], logits[0]) / len(logits)

    def _run(self, x: Tensor, size: tuple[int, int]) -> list[Tensor]:
        features = {(level, 0): feature for level, feature in enumerate(self.encoder(x))}
        bottom = (self.depth, 0)
        if self.aspp is not None:
            features[bottom] = self.aspp(features[bottom])
        features[bottom] = self.dropout(features[bottom])
        logits = dict.fromkeys(self._answering(), x)
        for node in self._grid.order:
            join = self._join(node)
            joined = join([features[skip] for skip in self._grid.skip_nodes(node)], features[coarser_node(node)])
            for read in self._grid.last_reads[node]:  # before the block, where memory is at its peak
                del features[read]
            features[node] = join.block(joined)
            del joined
            if node in logits:
                logits[node] = self._logits(node, features[node], size)
        return list(logits.values())

    def _answering(self) -> list[Node]:
        """Nodes whose heads make the output, finest first."""
        return self._supervised if self.training or self.nested else self._supervised[:1]

    def _logits(self, node: Node, x: Tensor, size: tuple[int, int]) -> Tensor:
        head = self.head if node == (0, self.depth) else self.heads[self._grid.layer_key(node)]
        logits: Tensor = head(x)
        if (self.reduction << node[0]) > 1:
            logits = self.enlarge[node[0]](logits)
        return crop_centre(logits, *size) if self.valid else logits[..., : size[0], : size[1]]

    def prune(self, depth: int) -> UNet:
        """The smaller net of the nodes with i + j <= depth and the head of node (0, depth), with the same weights.

        Raises
        ------
        ValueError
            The net is not nested with deep supervision and the plain encoder, or ``depth`` is none of 1 .. its own.
        """
        if not (self.nested and self.deep_supervision and isinstance(self.encoder, PlainEncoder)):
            raise ValueError("only a net with nested=true, deep_supervision=true and encoder=plain can be pruned")
        if not 1 <= depth <= self.depth:
            raise ValueError(f"depth must be 1 to {self.depth}, got {depth}")
        aspp = self.aspp if depth == self.depth else None
        changes = {"depth": depth, "deep_supervision": False, "aspp": aspp is not None}
        with torch.device("meta"):
            small = UNet(**{**self._settings, **changes})
        for level in range(depth + 1):
            small.encoder.add_module(str(level), self.encoder.get_submodule(str(level)))  # type: ignore[attr-defined]
        for name in ("up", "decoder", "gate"):
            mine, its = getattr(self, name), getattr(small, name)
            its.update({key: mine[key] for key in its})
        small.aspp, small.dropout = aspp, self.dropout
        head = self.head if depth == self.depth else self.heads[f"0_{depth}"]
        assert isinstance(head, Pointwise)
        small.head = head
        return small.train(self.training)
