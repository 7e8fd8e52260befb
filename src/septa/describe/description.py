"""Descriptions of a net as a table, as JSON and as a drawing: each layer with its sizes, costs and receptive field."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from rich.table import Table

from septa.describe.drawing import DrawingPlan, Shape, draw_plan
from septa.describe.layers import Layer, LayerTrace, trace_layers
from septa.model import build_net
from septa.nets import PlainEncoder, UNet
from septa.recipe import Recipe

CONVENTION = (
    "FLOPs: 2 for each multiply-add in convolutions and linear layers, for one image; "
    "norms, activations, pooling and interpolation are not counted. "
    "Receptive field: pixels of the image along one axis; means over the image are not counted. "
    "Memory: float32, 1 MB = 10**6 bytes."
)
"""Rules by which `NetDescription` counts, for people."""


@dataclass(frozen=True, kw_only=True)
class NetDescription:
    """Sizes and costs of a net for one image.

    Attributes
    ----------
    title
        Kind of net, and its encoder if that is not the U-Net's own.
    layers
        Layers in the order in which they run at inference.
    in_channels, out_channels
        Number of channels of the image and of the logits.
    input_size, output_size
        Height and width of the image and of the logits, pixels.
    asked_size
        Height and width that were asked for. They differ from ``input_size`` if the net does not accept them.
    parameters
        Number of learned parameters, including those that are used in training only.
    training_parameters
        Number of learned parameters that are used in training only.
    flops
        Floating-point operations, summed over the layers.
    peak_bytes
        Peak memory of image and activations in an inference pass, bytes.
    receptive_field, halo, margin, multiple
        Properties of `septa.nets.UNet`, pixels.
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
        """Sentence about a size that was replaced by the nearest valid one; empty if the size was valid."""
        if self.asked_size == self.input_size:
            return ""
        asked, nearest = _format_size(self.asked_size), _format_size(self.input_size)
        return f"{asked} is not a valid size for this net; the nearest valid size is {nearest}"

    def totals(self) -> dict[str, str]:
        """Return the name and the value of each figure of the whole net, for people."""
        in_training = f" ({self.training_parameters:,} of them in training only)" if self.training_parameters else ""
        return {
            "input": f"{self.in_channels} x {_format_size(self.input_size)}",
            "output": f"{self.out_channels} x {_format_size(self.output_size)}",
            "parameters": f"{self.parameters:,}{in_training}",
            "FLOPs": f"{self.flops / 1e9:,.2f} G",
            "peak memory of inference": f"{self.peak_bytes / 1e6:,.1f} MB",
            "receptive field": f"{self.receptive_field} pixels",
            "halo": f"{self.halo} pixels",
            "margin": f"{self.margin} pixels on each side",
            "tiles start at multiples of": f"{self.multiple} pixels",
        }

    def table(self) -> Table:
        """Return the layers, grouped by block, and the totals as a table for the terminal."""
        title = f"{self.title}, {_format_size(self.input_size)} -> {_format_size(self.output_size)}"
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
        """Return a JSON document with all attributes, ``note`` and ``convention``.

        Each layer has also its ``block`` and ``megabytes``.
        """
        layers = [{"block": layer.block, **asdict(layer), "megabytes": layer.megabytes} for layer in self.layers]
        document = {**asdict(self), "layers": layers, "note": self.note, "convention": CONVENTION}
        return json.dumps(document, indent=2) + "\n"


def build_meta_net(recipe: Recipe, channels: int | None = None, classes: int | None = None) -> UNet:
    """Build the net of a recipe on PyTorch's meta device, where its weights take no memory.

    Parameters
    ----------
    recipe
        Recipe with the settings of the net.
    channels, classes
        Number of channels of the images and of classes of the labels. If None, they are those that the recipe's data
        section gives, or else 1 and 2.

    Raises
    ------
    RecipeError
        Settings of the net exclude each other.
    """
    channels = channels or recipe.data.channels or 1
    classes = classes or len(recipe.data.class_names or ()) or 2
    with torch.device("meta"):
        return build_net(recipe, channels, 1 if recipe.net.output == "sigmoid" and classes == 2 else classes)


def describe_net(net: UNet, height: int, width: int) -> NetDescription:
    """Describe the sizes and costs of a net for an image.

    No values are computed, so the time does not depend on the size.

    Parameters
    ----------
    net
        The net, which is not changed.
    height, width
        Size of the image, pixels, at least 1. A size that a net with ``padding="valid"`` does not accept is replaced by
        the nearest valid one, see `NetDescription.note`.

    Raises
    ------
    ValueError
        A side is below 1.

    Examples
    --------
    >>> description = describe_net(UNet(1, 2, padding="valid", norm="none"), 572, 572)
    >>> description.parameters, description.output_size, description.layers[0].out_shape
    (31030658, (388, 388), (64, 570, 570))
    """
    return _describe_and_trace(net, height, width)[0]


def draw_net(net: UNet, height: int, width: int) -> str:
    """Draw a net in the style of figure 1 of the U-Net paper, as an SVG document without external files.

    Parameters
    ----------
    net, height, width
        As for `describe_net`.

    Returns
    -------
    str
        SVG document, whose colours are light or dark as the viewer prefers.

    Raises
    ------
    ValueError
        A side is below 1.
    """
    description, trace = _describe_and_trace(net, height, width)
    return draw_plan(_plan_drawing(net, description, trace))


def _describe_and_trace(net: UNet, height: int, width: int) -> tuple[NetDescription, LayerTrace]:
    if min(height, width) < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    size = net.valid_size(height), net.valid_size(width)
    trace = trace_layers(net, *size)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    padded = size if net.margin else net.pad_size(*size)
    description = NetDescription(
        title=_make_title(net),
        layers=trace.layers,
        in_channels=net.in_channels,
        out_channels=net.out_channels,
        input_size=size,
        output_size=(net.output_size(size[0]), net.output_size(size[1])),
        asked_size=(height, width),
        parameters=parameters,
        training_parameters=parameters - sum(layer.parameters for layer in trace.layers),
        flops=sum(layer.flops for layer in trace.layers),
        peak_bytes=net.bytes_per_pixel * padded[0] * padded[1],
        receptive_field=net.receptive_field,
        halo=net.halo,
        margin=net.margin,
        multiple=net.multiple,
    )
    return description, trace


def _make_title(net: UNet) -> str:
    kind = "U-Net++" if net.nested else "U-Net"
    encoder = "" if isinstance(net.encoder, PlainEncoder) else f" with encoder {_encoder_name(net)}"
    return f"{kind}{encoder}, depth {net.depth}, width {net.width}"


def _encoder_name(net: UNet) -> str:
    return net.config.encoder.removeprefix("timm:")


def _plan_drawing(net: UNet, description: NetDescription, trace: LayerTrace) -> DrawingPlan:
    """Assign the layers to the positions of the drawing."""
    layers = {layer.name: layer for layer in trace.layers}
    if isinstance(net.encoder, PlainEncoder):
        left = [_block_maps(layers, f"encoder.{level}") for level in range(net.depth + 1)]
    else:
        left = [[shape] for shape in trace.features]
        left[0] = [layers["encoder.stem.conv1"].in_shape, *left[0]]
    image = (net.in_channels, *description.input_size)
    left[0] = [image, *left[0][0 if _changes_size(net) else 1 :]]
    if net.aspp is not None:
        left[-1] = [*left[-1], left[-1][-1]]
    right: dict[tuple[int, int], Sequence[Shape]] = {}
    for key in net.decoder:
        level, _, column = key.partition("_")
        node = int(level), int(column or net.depth - int(level))
        right[node] = _block_maps(layers, f"decoder.{key}")
    logits = layers["head"].out_shape
    whole = (net.out_channels, *description.output_size)
    words, badges = _make_legend(net)
    sizes = f"{_format_size(description.input_size)} to {_format_size(description.output_size)}"
    counts = f"{description.parameters:,} parameters, receptive field {description.receptive_field} pixels"
    return DrawingPlan(
        title=description.title,
        subtitle=f"{counts}, {sizes}",
        image=image,
        left=left,
        right=right,
        out=[logits, whole] if _changes_size(net) else [whole],
        words=words,
        badges=badges,
        nested=net.nested,
        supervised=len(net.heads) > 0,
    )


def _changes_size(net: UNet) -> bool:
    return net.reduction > 1 or net.magnification > 1


def _block_maps(layers: dict[str, Layer], name: str) -> list[Shape]:
    """Return the shapes of a block's input and of the outputs of its two convolutions."""
    first, second = layers[f"{name}.conv1"], layers[f"{name}.conv2"]
    return [first.in_shape, first.out_shape, second.out_shape]


def _make_legend(net: UNet) -> tuple[dict[str, str], dict[str, str]]:
    """Return the legend of the arrows and that of the badges."""
    plain = isinstance(net.encoder, PlainEncoder)
    valid = " valid" if net.valid else ""
    norm = "" if net.config.norm == "none" else ", norm"
    once = f"conv 3x3{valid}{norm}, ReLU"
    words = {
        "conv": f"twice {once}" if net.nested else once,
        "copy": "copy" + (" and crop" if net.margin else ""),
        **({"pool": "max pool 2x2"} if plain else {"stage": f"stage of {_encoder_name(net)}"}),
        "up": "up-conv 2x2" if net.config.up == "transpose" else "conv 1x1, bilinear x2",
        "head": "conv 1x1" + (", dashed: in training only" if len(net.heads) and not net.nested else ""),
    }
    if net.reduction > 1:
        words["up"] += f"; logits bilinear x{net.reduction}"
        words["pool"] = (f"{words['pool']}; " if plain else "") + f"image: mean of {net.reduction}x{net.reduction}"
    if net.magnification > 1:
        words["up"] += f"; logits mean of {net.magnification}x{net.magnification}"
        words["pool"] = (f"{words['pool']}; " if plain else "") + f"image: bilinear x{net.magnification}"
    badges = {}
    if net.config.block == "residual":
        badges["+"] = "residual sum"
    if net.config.squeeze:
        badges["S"] = "squeeze-and-excitation"
    if net.config.attention:
        badges["A"] = "attention gate"
    if net.aspp is not None:
        badges["P"] = "atrous spatial pyramid pooling"
    if net.nested:
        # A node is a single box, so only the legend shows the operations inside.
        words["conv"] = ", ".join([words["conv"], *(badges.pop(sign) for sign in "+S" if sign in badges)])
        if len(net.heads):
            badges["H"] = "own head"
    return words, badges


def _format_size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
