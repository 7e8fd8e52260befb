"""A net told in figures and as a drawing: every layer with its sizes, cost and receptive field."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch
from rich.table import Table
from torch import nn

from septa.describe.drawing import DrawingPlan, Shape, draw_plan
from septa.describe.layers import Layer, LayerTrace, trace_layers
from septa.model import build_net
from septa.nets import AtrousPyramid, AttentionGate, ConvBlock, PlainEncoder, SqueezeExcitation, UNet, UpConvolution
from septa.recipe import Recipe

_Kind = TypeVar("_Kind", bound=nn.Module)

CONVENTION = (
    "FLOPs: 2 for each multiplication with addition in convolutions and linear layers, for one image; "
    "norms, activations, pooling and interpolation are left out. "
    "Receptive field: pixels of the image along one axis; means over the image are left out. "
    "Memory: float32, 1 MB = 10**6 bytes."
)
"""How `NetDescription` counts, for people."""


@dataclass(frozen=True)
class NetDescription:
    """What a net is and costs for one image.

    Attributes
    ----------
    title
        Kind of net, and its encoder if that is not the U-Net's own.
    layers
        Each layer in the order in which it runs at inference.
    in_channels, out_channels
        Channels of the image and of the logits.
    input_size, output_size
        Height and width, pixels.
    asked_size
        The size that was asked for; another than ``input_size`` if the net does not take it.
    parameters
        Learned numbers in all, those that only training uses included.
    training_parameters
        Those that only training uses.
    flops
        Sum over the layers.
    peak_bytes
        Memory of image and activations at the peak of an inference pass, bytes.
    receptive_field, halo, margin, multiple
        See `septa.nets.UNet`, pixels.
    """

    title: str
    layers: tuple[Layer, ...]
    in_channels: int
    out_channels: int
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    asked_size: tuple[int, int]
    parameters: int
    training_parameters: int
    flops: int
    peak_bytes: int
    receptive_field: int
    halo: int
    margin: int
    multiple: int

    @property
    def note(self) -> str:
        """What was changed about the size that was asked for; empty if nothing was."""
        if self.asked_size == self.input_size:
            return ""
        return f"{_by(self.asked_size)} is no valid size of this net; {_by(self.input_size)} is the nearest"

    def totals(self) -> dict[str, str]:
        """Name and value of each figure of the whole net, for people."""
        return {
            "input": f"{self.in_channels} x {_by(self.input_size)}",
            "output": f"{self.out_channels} x {_by(self.output_size)}",
            "parameters": f"{self.parameters:,}"
            + (f", of them {self.training_parameters:,} in training only" if self.training_parameters else ""),
            "FLOPs": f"{self.flops / 1e9:,.2f} G",
            "memory at the peak of inference": f"{self.peak_bytes / 1e6:,.1f} MB",
            "receptive field": f"{self.receptive_field} pixels",
            "halo": f"{self.halo} pixels",
            "margin": f"{self.margin} pixels a side",
            "sizes shift by": f"{self.multiple} pixels",
        }

    def table(self) -> Table:
        """Layers grouped by block, then the totals, as a table for the terminal."""
        title = f"{self.title}, {_by(self.input_size)} -> {_by(self.output_size)}"
        footer = "\n".join([*(f"{name}: {value}" for name, value in self.totals().items()), self.note, CONVENTION])
        table = Table(title=title, caption=footer.replace("\n\n", "\n"), caption_justify="left")
        for name in ("layer", "kind"):
            table.add_column(name, no_wrap=True)
        for name in ("C, Y, X", "parameters", "field", "MFLOPs", "MB"):
            table.add_column(name, justify="right", no_wrap=True)
        for layer, after in zip(self.layers, [*self.layers[1:], None]):
            table.add_row(
                layer.name,
                layer.kind,
                ", ".join(map(str, layer.out_shape)),
                f"{layer.parameters:,}",
                str(layer.receptive_field),
                f"{layer.flops / 1e6:,.1f}",
                f"{layer.megabytes:,.2f}",
                end_section=after is not None and after.block != layer.block,
            )
        return table

    def to_json(self) -> str:
        """All of it as JSON: the attributes, with ``note`` and ``convention``; each layer with ``block`` and
        ``megabytes``."""
        layers = [{"block": layer.block, **asdict(layer), "megabytes": layer.megabytes} for layer in self.layers]
        told = {**asdict(self), "layers": layers, "note": self.note, "convention": CONVENTION}
        return json.dumps(told, indent=2) + "\n"


def build_meta_net(recipe: Recipe, channels: int | None = None, classes: int | None = None) -> UNet:
    """The net of a recipe, without memory for its weights.

    Parameters
    ----------
    recipe
        Its net; the channels and classes that its data names, where the others are not given.
    channels, classes
        Of the images and labels; else 1 and 2.
    """
    channels = channels or recipe.data.channels or 1
    classes = classes or len(recipe.data.class_names or ()) or 2
    with torch.device("meta"):
        return build_net(recipe, channels, 1 if recipe.net.output == "sigmoid" and classes == 2 else classes)


def describe_net(net: UNet, height: int, width: int) -> NetDescription:
    """Tell what a net is and costs for an image; nothing is computed, so any size takes the same short time.

    Parameters
    ----------
    net
        Not changed.
    height, width
        Size of the image, pixels, at least 1. One that a net with ``padding="valid"`` does not take is replaced by
        the nearest that it takes, see `Description.note`.

    Raises
    ------
    ValueError
        A side is below 1.

    Examples
    --------
    >>> told = describe_net(UNet(1, 2, padding="valid", norm="none"), 572, 572)
    >>> told.parameters, told.output_size, told.layers[0].out_shape
    (31030658, (388, 388), (64, 570, 570))
    """
    return _describe(net, height, width)[0]


def draw_net(net: UNet, height: int, width: int) -> str:
    """Draw a net after figure 1 of the U-Net paper, as an SVG document that needs nothing else.

    Parameters
    ----------
    net, height, width
        As for `describe_net`.

    Returns
    -------
    str
        The drawing, in light and dark colours by the viewer's preference.

    Raises
    ------
    ValueError
        A side is below 1.
    """
    told, traced = _describe(net, height, width)
    return draw_plan(_plan(net, told, traced))


def _describe(net: UNet, height: int, width: int) -> tuple[NetDescription, LayerTrace]:
    if min(height, width) < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    size = net.valid_size(height), net.valid_size(width)
    traced = trace_layers(net, *size)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    padded = size if net.margin else net.padded_size(*size)
    told = NetDescription(
        title=_title(net),
        layers=traced.layers,
        in_channels=net.in_channels,
        out_channels=net.out_channels,
        input_size=size,
        output_size=(net.output_size(size[0]), net.output_size(size[1])),
        asked_size=(height, width),
        parameters=parameters,
        training_parameters=parameters - sum(layer.parameters for layer in traced.layers),
        flops=sum(layer.flops for layer in traced.layers),
        peak_bytes=net.bytes_per_pixel * padded[0] * padded[1],
        receptive_field=net.receptive_field,
        halo=net.halo,
        margin=net.margin,
        multiple=net.multiple,
    )
    return told, traced


def _title(net: UNet) -> str:
    kind = "U-Net++" if net.nested else "U-Net"
    encoder = "" if isinstance(net.encoder, PlainEncoder) else f" with encoder {_encoder_name(net.encoder)}"
    return f"{kind}{encoder}, depth {net.depth}, width {net.width}"


def _encoder_name(encoder: object) -> str:
    from septa.nets import RESNET_LAYERS, ResNetEncoder

    if isinstance(encoder, ResNetEncoder):
        layers = [list(encoder.get_submodule(f"body.layer{at}").children()) for at in range(1, 5)]
        built = type(layers[0][0]), tuple(map(len, layers))
        return next(name for name, made in RESNET_LAYERS.items() if made == built)
    return str(getattr(encoder, "name", type(encoder).__name__))


def _plan(net: UNet, told: NetDescription, traced: LayerTrace) -> DrawingPlan:
    """Sort the layers into the places of the drawing."""
    shapes = {layer.name: layer for layer in traced.layers}
    if isinstance(net.encoder, PlainEncoder):
        left = [_block_maps(shapes, f"encoder.{level}") for level in range(net.depth + 1)]
    else:
        left = [[shape] for shape in traced.features]
        left[0] = [shapes["encoder.stem.conv1"].in_shape, *left[0]]
    image = (net.in_channels, *told.input_size)
    left[0] = [image, *left[0][0 if net.reduction > 1 else 1 :]]
    if net.aspp is not None:
        left[-1] = [*left[-1], left[-1][-1]]
    right: dict[tuple[int, int], Sequence[Shape]] = {}
    for key in net.decoder:
        level, _, column = key.partition("_")
        node = int(level), int(column or net.depth - int(level))
        right[node] = _block_maps(shapes, f"decoder.{key}")
    logits = shapes["head"].out_shape
    whole = (net.out_channels, *told.output_size)
    words, badges = _words(net)
    return DrawingPlan(
        title=told.title,
        subtitle=f"{told.parameters:,} parameters, receptive field {told.receptive_field} pixels, "
        f"{_by(told.input_size)} to {_by(told.output_size)}",
        image=image,
        left=left,
        right=right,
        out=[logits, whole] if net.reduction > 1 else [whole],
        words=words,
        badges=badges,
        nested=net.nested,
        supervised=len(net.heads) > 0,
    )


def _block_maps(shapes: dict[str, Layer], name: str) -> list[Shape]:
    first, second = shapes[f"{name}.conv1"], shapes[f"{name}.conv2"]
    return [first.in_shape, first.out_shape, second.out_shape]


def _words(net: UNet) -> tuple[dict[str, str], dict[str, str]]:
    """Legend of arrows and of badges."""
    plain = isinstance(net.encoder, PlainEncoder)
    blocks = _all(net.decoder, ConvBlock)
    normed = not isinstance(blocks[0].norm1, nn.Identity)
    once = f"conv 3x3{'' if net.margin == 0 else ' valid'}{', norm' if normed else ''}, ReLU"
    words = {
        "conv": f"twice {once}" if net.nested else once,
        "copy": "copy" + (" and crop" if net.margin else ""),
        **({"pool": "max pool 2x2"} if plain else {"stage": f"stage of {_encoder_name(net.encoder)}"}),
        "up": "up-conv 2x2" if _all(net.up, UpConvolution)[0].kind == "transpose" else "conv 1x1, bilinear x2",
        "head": "conv 1x1" + (", dashed: in training only" if len(net.heads) and not net.nested else ""),
    }
    if net.reduction > 1:
        words["up"] += f"; logits bilinear x{net.reduction}"
        words["pool"] = (f"{words['pool']}; " if plain else "") + f"image: mean of {net.reduction}x{net.reduction}"
    badges = {}
    if blocks[0].shortcut is not None:
        badges["+"] = "residual sum"
    if _all(net, SqueezeExcitation):
        badges["S"] = "squeeze and excitation"
    if _all(net, AttentionGate):
        badges["A"] = "attention gate"
    if _all(net, AtrousPyramid):
        badges["P"] = "atrous spatial pyramid pooling"
    if net.nested:
        # A node is a single box, so what happens inside stands in the legend alone.
        words["conv"] = ", ".join([words["conv"], *(badges.pop(sign) for sign in "+S" if sign in badges)])
        if len(net.heads):
            badges["H"] = "head of its own"
    return words, badges


def _all(net: nn.Module, kind: type[_Kind]) -> list[_Kind]:
    return [module for module in net.modules() if isinstance(module, kind)]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
